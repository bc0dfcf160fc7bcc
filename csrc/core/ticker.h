/* ticker.h: the engine's sense of time: one thread that fires timers and ticks the scheduler.
 *
 * It sleeps until the next timer, or for a millisecond while the scheduler is busy; after 20 quiet
 * ticks it sleeps for good until somebody pokes it, so that an idle engine costs nothing, or for 20 ms
 * at a time while a callback is under way, or the event loop is in use and slow steps are to be told. While callbacks keep blocking and the core is idle between them, it
 * ticks every 4 ms: then no callback that comes back needs to poke it, and few wake beside it.
 *
 * It is started by the first poke or timer. The wheel is under `lock`; timers fire outside it. Under virtual time the
 * wheel is advanced by tr_engine_advance on the caller's thread, and the thread only ticks. */
#ifndef TRI_TICKER_H
#define TRI_TICKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "parker.h"
#include "tailrace.h"
#include "timer.h"

typedef struct tri_ticker {
    tr_engine *engine;
    pthread_mutex_t lock;
    tri_wheel wheel;
    pthread_t thread;
    bool started;              /* under lock */
    bool ending;               /* under lock */
    _Atomic bool running;      /* started, as seen without the lock */
    _Atomic bool asleep;       /* sleeps without ticking, or ticks seldom */
    _Atomic bool idle;         /* sleeps without ticking */
    _Atomic uint64_t sleeps_until;
    _Atomic uint64_t ticks;    /* written by the thread alone, relaxed: to look at */
    tri_parker parker;
    void *host;                /* made when first needed: to send interrupts again */
} tri_ticker;

int tri_ticker_init(tri_ticker *ticker, tr_engine *engine);
void tri_ticker_fini(tri_ticker *ticker);

/* There is work: tick from now on. Cheap when it ticks already. */
void tri_ticker_poke(tri_ticker *ticker);
/* There is something to look at now and then: the ticker, which runs, does not sleep for good. Cheap else. */
void tri_ticker_rouse(tri_ticker *ticker);

/* End the thread and wait for it. Detached callers. */
void tri_ticker_end(tri_ticker *ticker);

/* worker.c: a thread with all signals blocked. TR_OK or TR_ELIMIT. */
int tri_start_thread(pthread_t *thread, void *(*run)(void *), void *argument);

void tri_ticker_counters(tri_ticker *ticker, tr_counters *counters);

/* Put a timer into the wheel, under `lock`. Whether the caller must unpark the thread, which means to
 * sleep longer. */
bool tri_ticker_add(tri_ticker *ticker, tri_timer *timer, uint64_t deadline);

/* Forget all pending timers: none will fire. */
void tri_ticker_drop_all(tri_ticker *ticker);

/* Fire what is due at `now`. */
void tri_ticker_fire(tri_ticker *ticker, uint64_t now);

#endif
