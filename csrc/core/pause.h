/* pause.h: event loops that compute let others have their turn at the interpreter lock.
 *
 * An event loop whose steps compute keeps that lock from everybody else for seconds. It lets go of it for an instant in
 * each look at its descriptors, but whoever waits for the lock is woken by that, finds it taken again, and its time until
 * a forced switch begins anew. So the loop's thread pauses, detached, between two steps:
 *
 *   - until somebody is attached, a millisecond at most, when threads are known to wait for that (`attaching`), at
 *     most once a millisecond;
 *   - and as there may be others that nobody counts, for a moment, after each switch interval through which
 *     it has computed.
 *
 * The engine's own loop asks after each step and slice whether it shall (looper.c). A loop of the program's, whose other
 * tasks are not ours, asks when it is woken; so the ticker wakes one that computes while threads wait.
 *
 * Who touches what: `attaching` and `pausing` anybody, sequentially consistent, so that who begins to wait after the
 * looper looked finds it pausing; a parker that is taken out of `pausing` lives as long as the engine, and a token too
 * many costs a pause. `since` and `computed` are the loop's thread's; `seen` and `seen_computed` the ticker's; `clock` is
 * under bonds.lock. */
#ifndef TRI_PAUSE_H
#define TRI_PAUSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "parker.h"
#include "tailrace.h"

/* Of an engine. */
typedef struct tri_pauses {
    _Atomic uint32_t attaching;
    _Atomic(tri_parker *) pausing; /* of the loop that began last, until somebody is attached */
    bool waited;                   /* the ticker's: some did at the last tick */
} tri_pauses;

/* Of an event loop. */
typedef struct tri_pause {
    tri_parker parker;
    clockid_t clock;              /* its thread's CPU time; -1: none */
    uint64_t since, computed;     /* the first step after a pause, or when it was found not to compute; its CPU time then */
    uint64_t seen, seen_computed; /* the same, at the ticker's last look */
} tri_pause;

/* The calling thread is the loop's from now on. Under bonds.lock. */
void tri_pause_begin(tri_pause *pause);
/* Once a millisecond while there is work, by the ticker. */
void tri_pause_tick(tr_engine *engine, uint64_t now);

#endif
