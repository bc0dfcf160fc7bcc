/* worker.h: one engine thread; what scheduler.c and worker.c say to each other.
 *
 * worker.c is the thread's own loop: sleep, attach, run slices in the role it was given. scheduler.c holds
 * the queues and decides about roles. Nobody else includes this. */
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
} tri_glimpse;

/* Under scheduler.lock: a worker without a thread (a new one, or one whose thread ended). */
tri_worker *tri_worker_new(tri_scheduler *scheduler);
/* Wake it, or start its thread. */
void tri_worker_start(tri_worker *worker);

/* scheduler.c. The next process, or NULL when the role is over (the worker then has its next one). */
tr_process *tri_scheduler_next_core(tri_scheduler *scheduler, tri_worker *worker);
tr_process *tri_scheduler_next_elastic(tri_scheduler *scheduler, tri_worker *worker);
uint64_t tri_scheduler_elastic_taken(tri_scheduler *scheduler);

void tri_scheduler_watch(tri_scheduler *scheduler, tri_glimpse *glimpse);
/* The standby has the interpreter lock. */
int tri_scheduler_stand_by(tri_scheduler *scheduler, tri_worker *worker, const tri_glimpse *before);

void tri_scheduler_start_failed(tri_scheduler *scheduler, tri_worker *worker);
/* Whether an idle worker shall end; then, after its last use of the engine, worker_ended. */
bool tri_scheduler_worker_ends(tri_scheduler *scheduler, tri_worker *worker);
void tri_scheduler_worker_ended(tri_scheduler *scheduler);

#endif
