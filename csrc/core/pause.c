/* pause.c: see pause.h. */
#include "pause.h"

#include <pthread.h>

#include "await.h"
#include "engine.h"

/* In ns: how long it pauses at most if somebody is known to wait, and else: about as long as a thread takes to wake. */
#define LONG_PAUSE TRI_TICK
#define SHORT_PAUSE (TRI_TICK / 20)
/* It computes: in percent of the time. */
enum { MOSTLY = 80 };

void tri_pause_begin(tri_pause *pause) {
    if (pthread_getcpuclockid(pthread_self(), &pause->clock) != 0) pause->clock = -1;
}

void tr_attach_begins(tr_engine *engine) { atomic_fetch_add(&engine->scheduler.pauses.attaching, 1); }

void tr_attach_ends(tr_engine *engine) {
    tri_pauses *pauses = &engine->scheduler.pauses;
    atomic_fetch_sub(&pauses->attaching, 1);
    tri_parker *parker = atomic_load(&pauses->pausing) == NULL ? NULL : atomic_exchange(&pauses->pausing, NULL);
    if (parker != NULL) tri_parker_unpark(parker);
}

static bool some_wait(tr_engine *engine) { return atomic_load(&engine->scheduler.pauses.attaching) > 0; }

/* ---- The loop's thread --------------------------------------------------------------------------*/

static void begin_anew(tri_pause *pause) {
    pause->since = tri_clock_monotonic();
    pause->computed = tri_clock_cpu(CLOCK_THREAD_CPUTIME_ID);
}

bool tr_loop_shall_pause(tr_loop *loop) {
    tr_engine *engine = loop->engine;
    tri_pause *pause = &loop->pause;
    if (!engine->options.handoff || loop->inside > 0 || atomic_load(&engine->forked)) return false;
    if (pause->since == 0) begin_anew(pause);
    uint64_t passed = tri_clock_monotonic() - pause->since;
    bool waited_for = some_wait(engine);
    uint64_t interval = atomic_load_explicit(&engine->scheduler.switch_interval, memory_order_relaxed);
    if (passed < (waited_for ? TRI_TICK : interval)) return false;
    if (waited_for || tri_clock_cpu(CLOCK_THREAD_CPUTIME_ID) - pause->computed >= passed / 100 * MOSTLY) return true;
    begin_anew(pause);
    return false;
}

void tr_loop_pause(tr_loop *loop) {
    tri_pauses *pauses = &loop->engine->scheduler.pauses;
    tri_parker *own = &loop->pause.parker;
    atomic_store(&pauses->pausing, own);
    uint64_t length = some_wait(loop->engine) ? LONG_PAUSE : SHORT_PAUSE;
    (void)tri_parker_park(own, tri_clock_monotonic() + length);
    (void)atomic_compare_exchange_strong(&pauses->pausing, &own, NULL);
    loop->pause.since = 0;
}

/* ---- The ticker ---------------------------------------------------------------------------------*/

static bool computes(tri_pause *pause, uint64_t now) {
    uint64_t computed = tri_clock_cpu(pause->clock), passed = now - pause->seen;
    bool mostly = computed - pause->seen_computed >= passed / 100 * MOSTLY;
    pause->seen = now;
    pause->seen_computed = computed;
    return mostly && passed < 4 * TRI_TICK; /* or it is not known since when */
}

void tri_pause_tick(tr_engine *engine, uint64_t now) {
    tri_pauses *pauses = &engine->scheduler.pauses;
    bool waited = pauses->waited;
    pauses->waited = engine->options.handoff && some_wait(engine);
    if (!waited || !pauses->waited) return;
    pthread_mutex_lock(&engine->bonds.lock);
    for (tr_loop *loop = engine->bonds.loops_made; loop != NULL; loop = loop->next_made)
        if (computes(&loop->pause, now)) tri_loop_signal(loop);
    pthread_mutex_unlock(&engine->bonds.lock);
}
