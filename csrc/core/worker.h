/* worker.h: one engine thread; what the files of the scheduler say to each other.
 *
 * worker.c is the thread's own loop: sleep, attach, run slices in the role it was given. scheduler.c holds
 * the queues, roles.c and handoff.c decide about roles. */
#ifndef TRI_WORKER_H
#define TRI_WORKER_H

#include "scheduler.h"

enum { TRI_STANDBY_AGAIN, TRI_STANDBY_TAKE, TRI_STANDBY_RETIRE };

/* How long after a hand-over, or after the core was last seen busy, the standby goes on waiting. */
#define TRI_STANDBY_STAYS UINT64_C(20000000)

/* What a standby saw before it began to wait for the interpreter lock. */
typedef struct tri_glimpse {
    tri_worker *worker;
    uint64_t serial;
    uint64_t time;
    uint64_t cpu;          /* the worker's clock */
    uint64_t arrivals;     /* at the turnstile */
    tri_worker *admitted;
    uint64_t admitted_cpu;
    bool doubted;          /* the same callback was given the benefit of the doubt once */
} tri_glimpse;

/* Under scheduler.lock: a worker without a thread (a new one, or one whose thread ended). */
tri_worker *tri_worker_new(tri_scheduler *scheduler);
/* Wake it, or start its thread. */
void tri_worker_start(tri_worker *worker);
/* CPU time that its thread has used, in nanoseconds; 0 if that has ended. Any thread. */
uint64_t tri_worker_cpu(const tri_worker *worker);

/* scheduler.c. The next process, or NULL when the role is over (the worker then has its next one). */
tr_process *tri_scheduler_next_core(tri_scheduler *scheduler, tri_worker *worker);
tr_process *tri_scheduler_next_elastic(tri_scheduler *scheduler, tri_worker *worker);
uint64_t tri_scheduler_elastic_taken(tri_scheduler *scheduler);

void tri_scheduler_watch(tri_scheduler *scheduler, tri_glimpse *glimpse);
/* handoff.c. The calling worker, which lost the core in the middle of its callback, takes it back if nobody has it,
 * as it has woken somebody: so it runs that one itself after the callback, and no other thread needs to
 * wake up but a standby. Under scheduler.lock. */
bool tri_take_back(tri_scheduler *scheduler);
/* For the tick, under scheduler.lock: whether processes wait for which no worker comes by
 * itself; take places back from who does not return. */
bool tri_is_overlooked(tri_scheduler *scheduler);
void tri_retake(tri_scheduler *scheduler, bool overlooked);
/* Under an interpreter lock: when no thread is to be had for a standby, nobody takes the core from a callback that
 * blocks, so what its process is to learn from is seen here; not if the others had the lock meanwhile, twice. */
void tri_look_for_sleepers(tri_scheduler *scheduler, uint64_t now);
/* Let the pool have some of what waits at the core, if callbacks block there one after the other and the pool can
 * have it; count anew. */
void tri_relieve(tri_scheduler *scheduler, bool possible);

/* The standby has the interpreter lock. */
int tri_scheduler_stand_by(tri_scheduler *scheduler, tri_worker *worker, tri_glimpse *before);

/* The worker's thread runs; it has the core and the interpreter lock. */
void tri_scheduler_worker_begins(tri_scheduler *scheduler, tri_worker *worker);
void tri_scheduler_core_begins(tri_scheduler *scheduler);

/* The host's event loop is over. */
void tri_scheduler_loop_ended(tri_scheduler *scheduler, tri_worker *worker);

void tri_scheduler_start_failed(tri_scheduler *scheduler, tri_worker *worker);
/* Whether an idle worker shall end; then, as its last use of the engine, worker_ended. */
bool tri_scheduler_worker_ends(tri_scheduler *scheduler, tri_worker *worker, bool idle_long);
void tri_scheduler_worker_ended(tri_scheduler *scheduler, tri_worker *worker);

/* ---- Processes that block -----------------------------------------------------------------------
 * A score: up by 8 with each hand-off, or when no thread was left for one, down by 1 with each callback without. At
 * LEARNED, after three hand-offs nearly in a row, the process is run by the pool; there each callback shorter than
 * half a millisecond lowers it by 1, and so does, down to LEARNED - 1, one in sixteen of the others: who waits there
 * for the interpreter lock seems to block. So everybody is tried at the core again, unless threads are short, and one
 * hand-off there tells. */
enum { TRI_BLOCKED = 8, TRI_LEARNED = 24 };
#define TRI_LONG_CALLBACK UINT64_C(500000)

static inline bool tri_has_blocked(const tr_process *process) {
    return atomic_load_explicit(&process->blocking, memory_order_relaxed) > 0;
}

static inline bool tri_is_learned(const tr_process *process) {
    return atomic_load_explicit(&process->blocking, memory_order_relaxed) >= TRI_LEARNED;
}

#endif
