/* place.h: the places at the core and their queues, when there is no interpreter lock.
 *
 * A worker at the core holds one place. What its callbacks wake goes to the place's own queue, and it takes
 * what it runs next from there, so workers do not meet while each has work. Whoever finds its own queue
 * empty steals half of the longest other one, the oldest processes first, a half of each priority. Somebody
 * else's max and high processes are fetched before own normal and low ones. Once a millisecond the longest and
 * the shortest queue are evened out, because workers that always have work never steal.
 *
 * A place belongs to its queue's work, not to a worker: when the worker is stuck in a callback or waits, another
 * one takes the place with all that is queued there (scheduler.h).
 *
 * Who may touch what: the queue and `steals` under the place's lock, which is taken with nothing or
 * scheduler.lock held, one at a time, and inside which nothing is called. `holder` is written under both
 * locks and read under either: a worker that pushes to its place and whoever takes the place from it
 * agree on who was first. `length` and `urgent` mirror the queue, so that others may look without the lock.
 *
 * Nobody sleeps beside work. To push and to look whether anybody is to be woken (`held`, `thief`) is one
 * order; to say that one holds no place any more, or is no thief any more, and to look at all lengths is the
 * other; all four are sequentially consistent, so that one of the two sees the other. */
#ifndef TRI_PLACE_H
#define TRI_PLACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "run_queue.h"

struct tri_worker;

typedef struct tri_place {
    _Alignas(64) pthread_mutex_t lock;
    struct tri_worker *holder; /* or NULL */
    tri_run_queue queue;
    uint64_t steals; /* processes that this place took from others */
    _Atomic uint64_t length, urgent; /* all, and max and high ones */
} tri_place;

typedef struct tri_places {
    tri_place *all;
    uint32_t count; /* 0 with an interpreter lock */
    _Alignas(64) _Atomic uint32_t held; /* written under scheduler.lock */
    _Atomic bool thief;      /* a worker is on its way to steal; written under scheduler.lock, or by it */
    _Atomic uint64_t urgent; /* max and high processes at all places */
} tri_places;

int tri_places_init(tri_places *places, uint32_t count);
void tri_places_fini(tri_places *places);

/* Under scheduler.lock: give the worker a place nobody holds, one with work if there is any; take its place
 * from it. */
tri_place *tri_places_hold(tri_places *places, struct tri_worker *worker);
void tri_place_let_go(tri_places *places, tri_place *place);

/* Queue a process at the place, which `worker` must hold: false if it does not any more. */
bool tri_place_push(tri_places *places, tri_place *place, struct tri_worker *worker,
                    tr_process *process);
/* The same for what came from outside, under scheduler.lock. */
void tri_place_put(tri_places *places, tri_place *place, tr_process *process);

/* The next process for the holder of the place, from its queue or stolen; NULL if there is none. If it has
 * lost the place meanwhile, what it gets is its to run all the same. */
tr_process *tri_place_take(tri_places *places, tri_place *place);

/* Move up to `most` normal and low processes to `to` that wait at places which nobody holds. Under
 * scheduler.lock. */
void tri_places_move(tri_places *places, uint64_t most, tri_queue *to);

/* How many processes wait at all places. */
uint64_t tri_places_waiting(const tri_places *places);
uint64_t tri_places_steals(tri_places *places);

/* Even the longest and the shortest queue of held places out. Under scheduler.lock. */
void tri_places_balance(tri_places *places);

/* Around fork, under scheduler.lock. */
void tri_places_lock(tri_places *places);
void tri_places_unlock(tri_places *places);

#endif
