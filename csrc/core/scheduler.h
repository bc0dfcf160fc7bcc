/* scheduler.h: which thread runs which process.
 *
 * Workers are threads of the engine, started when there is work and kept. Each has a role:
 *
 *   IDLE      sleeps
 *   CORE      holds one of the `parallel` places at the core queues and runs slices from them
 *   STANDBY   waits for the interpreter lock, to take the core over from a callback that blocks
 *   ELASTIC   runs processes of kind "thread", which may block
 *   DETACHED  was CORE; its callback blocked, waits in the engine, or computes too long, so the place
 *             at the core went to another worker; it finishes the callback and then is IDLE or CORE again
 *
 * A process is run by one worker at a time. A slice is a number of callbacks, cut short at the next
 * tick when others wait. Core queues by priority: max before high before the rest; of the rest, one turn
 * in eight goes to low; whoever is passed over gets at least one turn in 64.
 *
 * Under an interpreter lock (`handoff`) one place exists. The interpreter gives its lock to whoever waits
 * when a callback blocks, so the standby, which waits, finds itself running: it looks whether the core's
 * worker is inside a callback and has not merely lost the lock by force (a young callback after a
 * forced switch gets it back), and takes the place. It waits only while the core has been busy across a
 * tick, or 20 ms after a hand-over, because waiting for good would slow every wake-up. There is
 * no cost on the busy path. Without an interpreter lock the ticker takes the place from a worker that was
 * inside one callback for a whole tick.
 *
 * The elastic pool grows by one searcher at a time: a worker that took a process starts the next
 * searcher before it runs it, so functions that do not block share one thread and functions that
 * do get one each, up to the limit, of which the core keeps its share: processes of the pool may all
 * wait for one of the core's.
 *
 * A wait inside a callback gives the place away first (tri_scheduler_before_wait).
 *
 * Roles. A worker gets a role while it is IDLE, from whoever has work, under `lock`, and is woken after it: the
 * token waits if it does not sleep yet, or not any more, and a token too many costs it one look. Only
 * its own thread ends a role, under `lock` too, and at once takes the next that is wanted (`retire`), so that
 * work is either taken by somebody who holds a role or finds an idle worker or a free place when it is
 * queued: nobody goes idle beside waiting work. The one exception is CORE -> DETACHED, which others do;
 * the worker sees it after the callback. An idle worker ends only under `lock`, by leaving the idle list.
 *
 * Who may touch what: queues, roles and lists under `lock`. A worker reads its own role without it,
 * after each callback. `serial` is written by its worker, odd while inside the host's code and larger
 * after every callback, and read by others as a hint (relaxed; the interpreter lock orders it where it
 * decides). `target` is explained at tri_scheduler_interrupt. Workers are never freed before the
 * engine: a stale pointer to one is harmless. */
#ifndef TRI_SCHEDULER_H
#define TRI_SCHEDULER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "process.h"
#include "tailrace.h"
#include "thread.h"

enum {
    TRI_ROLE_GONE,
    TRI_ROLE_IDLE,
    TRI_ROLE_CORE,
    TRI_ROLE_STANDBY,
    TRI_ROLE_ELASTIC,
    TRI_ROLE_DETACHED
};

enum { TRI_PRIORITIES = 4, TRI_SLICE = 1000 };

typedef struct tri_queue {
    tr_process *head, *tail;
    uint64_t count;
} tri_queue;

typedef struct tri_worker {
    tri_thread thread; /* first: its record as a thread */
    tri_parker wake;   /* for a new role; thread.parker is for waits inside callbacks */
    void *host;
    bool started; /* by whoever made it, before anybody else knows it */
    _Atomic int role;
    _Atomic uint64_t serial;
    _Atomic bool preempt;      /* others wait: end the slice after this callback */
    _Atomic uintptr_t target;  /* the process it runs, and two mark bits */
    _Atomic uint64_t slices, callbacks; /* written by the worker alone, relaxed: to look at */
    /* With hand-off only: the processes that its own callback woke, not yet in the core queues. Written
     * by the worker while it is attached and CORE, so without a lock; whoever takes the core from it
     * is attached too, and moves them on. */
    tri_queue woken;
    bool searching;            /* under lock: the elastic pool's searcher */
    uint64_t seen_serial;      /* the ticker's: serial at the last tick */
    struct tri_worker *next;   /* all workers */
    struct tri_worker *next_idle;
} tri_worker;

typedef struct tri_scheduler {
    tr_engine *engine;
    pthread_mutex_t lock;
    tri_queue core[TRI_PRIORITIES];
    tri_queue elastic;
    uint64_t core_waiting; /* in all core queues */
    uint32_t turn;
    _Atomic(tri_worker *) workers; /* only grows */
    tri_worker *idle;
    tri_worker *active; /* with one place: who has it */
    uint32_t threads, idle_count, core_count, elastic_count, detached_count;
    bool searching, standby, ending;
    bool was_busy; /* the core, at the last tick */
    uint64_t standby_until;
    uint64_t elastic_taken;
    uint64_t handoffs, limit_hits;
    _Atomic uint32_t marked;            /* interrupts sent to callbacks that still run */
    tri_parker stopper;                 /* tr_engine_stop waits here */
} tri_scheduler;

int tri_scheduler_init(tri_scheduler *scheduler, tr_engine *engine);
void tri_scheduler_fini(tri_scheduler *scheduler);

/* Put a process that is QUEUED into its queue and see to it that somebody runs it. On a worker thread:
 * attached. */
void tri_scheduler_enqueue(tri_scheduler *scheduler, tr_process *process);

/* The calling worker begins a slice of `process`. */
static inline void tri_scheduler_begin(tri_worker *worker, tr_process *process) {
    /* Nobody else writes a target that is 0. Sequentially consistent, so that either whoever ends the
     * process sees its target here, or the worker, which looks next, sees that it is dead. */
    atomic_store(&worker->target, (uintptr_t)process);
}

/* The calling thread begins / ceases to run `process` itself, within a callback of `outer`. */
void tri_scheduler_enter(tr_process *process);
void tri_scheduler_leave(tr_process *process, tr_process *outer);

/* The running process is about to sleep: let another worker have the core. */
void tri_scheduler_before_wait(tr_process *self);

/* The process was ended by somebody else: if a worker is inside its callback, interrupt that.
 * Under bonds.lock. */
void tri_scheduler_interrupt(tr_process *dead);
/* Again, for all that have not unwound yet. The calling thread is attached. */
void tri_scheduler_interrupt_again(tri_scheduler *scheduler);

/* Once a millisecond while there is work, by the ticker. Whether it is needed again. */
bool tri_scheduler_tick(tri_scheduler *scheduler, uint64_t now);

/* A process was buried while the engine stops. */
void tri_scheduler_drained(tri_scheduler *scheduler);
/* Let all workers end and wait until `deadline`; how many did not. */
uint32_t tri_scheduler_end(tri_scheduler *scheduler, uint64_t deadline);

void tri_scheduler_counters(tri_scheduler *scheduler, tr_counters *counters);

#endif
