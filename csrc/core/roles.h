/* roles.h: who runs what: the steps by which workers get roles and lose them (see scheduler.h).
 *
 * All of it is under scheduler.lock, but for tri_start_role. Only scheduler.c and handoff.c use it. */
#ifndef TRI_ROLES_H
#define TRI_ROLES_H

#include "scheduler.h"

/* Whether each core worker has queues of its own: builds without an interpreter lock. */
bool tri_has_places(const tri_scheduler *s);
/* How many processes wait for a worker of the core. */
uint64_t tri_core_waiting(const tri_scheduler *s);
void tri_push_core(tri_scheduler *s, tr_process *process);
/* What the worker kept to itself, to the queue of all. */
void tri_push_woken(tri_scheduler *s, tri_worker *worker);

void tri_take_core(tri_scheduler *s, tri_worker *worker);
void tri_leave_core(tri_scheduler *s, tri_worker *worker, int role);
/* The first process has been found, or there is none: the next thief may be sent for. */
void tri_end_theft(tri_scheduler *s, tri_worker *worker);

/* How many threads more the pool may have. Its processes may all wait for one of the core's, so it must
 * never get the last threads. */
uint32_t tri_pool_room(const tri_scheduler *s);
/* Whether a worker could be had for a place at the core that is free. */
bool tri_core_may_grow(const tri_scheduler *s);
/* Whether a callback may block at the core: a thread could be had that goes on there. */
bool tri_core_has_spare(const tri_scheduler *s);
bool tri_pool_has_work(const tri_scheduler *s);
tr_process *tri_pop_pool(tri_scheduler *s);
void tri_stop_searching(tri_scheduler *s, tri_worker *worker);

/* A worker that has the role now and must be started, after the lock, or NULL: nobody is needed, or there is
 * no thread. */
tri_worker *tri_want_core(tri_scheduler *s);
tri_worker *tri_want_searcher(tri_scheduler *s);
tri_worker *tri_want_standby(tri_scheduler *s);
/* Some wait for the event loop, and there is no loop yet. */
tri_worker *tri_want_looper(tri_scheduler *s);
/* The worker's role is over: it goes where it is wanted, which may have been refused for want of
 * threads before, or sleeps. */
void tri_retire(tri_scheduler *s, tri_worker *worker);

/* Not under the lock. */
void tri_start_role(tri_scheduler *s, tri_worker *worker);

#endif
