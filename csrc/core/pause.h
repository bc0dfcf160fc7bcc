/* pause.h: event loops that compute let others have their turn at the interpreter lock.
 *
 * An event loop whose steps compute keeps that lock from everybody else for seconds. It lets go of it for an instant in
 * each look at its descriptors, but whoever waits for the lock is woken by that, finds it taken again, and its time until
 * a forced switch begins anew. So the loop's thread pauses, detached, between two steps:
 *
 *   - until somebody is attached, a millisecond at most, when threads are known to wait for that (`attaching`). It goes on
 *     for as long as it was away then, but for a millisecond at least and a switch interval at most;
 *   - and as there may be others that nobody counts, for a moment, when it has computed for a switch interval.
 *
 * The engine's own loop asks after each step and slice whether it shall. A loop of the program's, whose other tasks
 * are not ours, asks when it is woken; so the ticker wakes one that computes while threads wait (`wanted`), and it
 * wakes itself until its time has come. Who begins to wait pokes the ticker, which ticks on until nobody does. While
 * the ticker waits itself, who was asked goes on asking itself.
 *
 * Who touches what: `attaching`, `loops`, `pausing`, `ticker`, `wanted` anybody, sequentially consistent, so that who begins to wait
 * after the looper looked finds it pausing; a parker that is taken out of `pausing` lives as long as the engine, and
 * a token too many costs a pause. `used` and `clock` are under bonds.lock, `seen` and `seen_computed` the ticker's. The rest
 * is the loop's thread's. */
#ifndef TRI_PAUSE_H
#define TRI_PAUSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "parker.h"
#include "tailrace.h"

struct tr_loop;

/* Of an engine. */
typedef struct tri_pauses {
    _Atomic uint32_t attaching;
    _Atomic uint32_t loops;        /* that are in use */
    _Atomic(tri_parker *) pausing; /* of the loop that began last, until somebody is attached */
    _Atomic bool ticker;           /* waits itself, and asks nobody */
    bool waited;                   /* the ticker's: some did at the last tick */
} tri_pauses;

/* Of an event loop. */
typedef struct tri_pause {
    tri_parker parker;
    bool used;
    clockid_t clock;              /* its thread's CPU time */
    uint64_t seen, seen_computed; /* when the ticker looked last; the CPU time then */
    _Atomic bool wanted;
    uint64_t asked, computed;     /* when it asked for the clock last; its CPU time when it went on */
    uint64_t began, turn;         /* when it paused; how long it may go on since */
} tri_pause;

/* Under bonds.lock. The calling thread is the loop's from now on; it is nobody's. */
void tri_pause_begin(struct tr_loop *loop);
void tri_pause_end(struct tr_loop *loop);

/* The ticker's, once a millisecond; `will_wait`: it may wait to be attached itself. Whether threads wait, so that
 * it has to come back. */
bool tri_pause_tick(tr_engine *engine, bool will_wait);
/* Around its own wait. */
void tri_pause_ticker_begins(tr_engine *engine);
void tri_pause_ticker_ends(tr_engine *engine);

#endif
