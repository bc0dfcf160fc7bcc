/* pause.c: see pause.h. */
#include "pause.h"

#include <pthread.h>

#include "await.h"
#include "engine.h"

/* In ns: how long it pauses at most if somebody is known to wait, and else: about as long as a thread takes to wake. */
#define LONG_PAUSE TRI_TICK
#define SHORT_PAUSE (TRI_TICK / 20)
/* In percent of the time between two looks: it computes. Others may have the processor, too. */
enum { COMPUTES = 25 };

void tri_pause_begin(tr_loop *loop) {
    if (pthread_getcpuclockid(pthread_self(), &loop->pause.clock) != 0) return;
    loop->pause.used = true;
    loop->pause.began = tri_clock_monotonic();
    tr_loop_goes_on(loop);
    atomic_fetch_add(&loop->engine->scheduler.pauses.loops, 1);
}

void tri_pause_end(tr_loop *loop) {
    if (loop->pause.used) atomic_fetch_sub(&loop->engine->scheduler.pauses.loops, 1);
    loop->pause.used = false;
}

/* ---- Those that wait ----------------------------------------------------------------------------*/

void tr_attach_begins(tr_engine *engine) {
    tri_pauses *pauses = &engine->scheduler.pauses;
    if (!engine->options.handoff) return;
    atomic_fetch_add(&pauses->attaching, 1);
    if (atomic_load(&pauses->loops) > 0) tri_ticker_poke(&engine->ticker);
}

void tr_attach_ends(tr_engine *engine) {
    tri_pauses *pauses = &engine->scheduler.pauses;
    if (!engine->options.handoff) return;
    atomic_fetch_sub(&pauses->attaching, 1);
    tri_parker *parker = atomic_load(&pauses->pausing) == NULL ? NULL : atomic_exchange(&pauses->pausing, NULL);
    if (parker != NULL) tri_parker_unpark(parker);
}

static bool some_wait(tr_engine *engine) { return atomic_load(&engine->scheduler.pauses.attaching) > 0; }

/* ---- The loop's thread --------------------------------------------------------------------------*/

static uint64_t switch_interval(const tr_engine *engine) {
    return atomic_load_explicit(&engine->scheduler.switch_interval, memory_order_relaxed);
}

/* Its CPU clock, which takes a system call, is looked at once in a turn. */
static bool is_due(tr_loop *loop) {
    tri_pause *pause = &loop->pause;
    bool wanted = atomic_load(&pause->wanted);
    uint64_t now = tri_clock_monotonic();
    uint64_t turn = wanted || some_wait(loop->engine) ? pause->turn : switch_interval(loop->engine);
    if (now - pause->asked < turn) {
        if (wanted) tri_loop_signal(loop); /* ask again */
        return false;
    }
    pause->asked = now;
    return wanted || tri_clock_cpu(CLOCK_THREAD_CPUTIME_ID) - pause->computed >= turn;
}

bool tr_loop_shall_pause(tr_loop *loop) {
    tr_engine *engine = loop->engine;
    if (!engine->options.handoff || loop->inside > 0 || atomic_load(&engine->forked) || !is_due(loop)) return false;
    atomic_store(&loop->pause.wanted, false);
    loop->pause.began = tri_clock_monotonic();
    atomic_store(&engine->scheduler.pauses.pausing, &loop->pause.parker);
    return true;
}

void tr_loop_pause(tr_loop *loop) {
    tri_parker *own = &loop->pause.parker;
    uint64_t length = some_wait(loop->engine) ? LONG_PAUSE : SHORT_PAUSE;
    (void)tri_parker_park(own, loop->pause.began + length);
    (void)atomic_compare_exchange_strong(&loop->engine->scheduler.pauses.pausing, &own, NULL);
}

void tr_loop_goes_on(tr_loop *loop) {
    tri_pause *pause = &loop->pause;
    uint64_t interval = switch_interval(loop->engine);
    pause->asked = tri_clock_monotonic();
    pause->computed = tri_clock_cpu(CLOCK_THREAD_CPUTIME_ID);
    pause->turn = pause->asked - pause->began;
    if (pause->turn > interval) pause->turn = interval;
    if (pause->turn < TRI_TICK) pause->turn = TRI_TICK;
    if (!atomic_load(&loop->engine->scheduler.pauses.ticker)) return;
    atomic_store(&pause->wanted, true);
    tri_loop_signal(loop);
}

/* ---- The ticker ---------------------------------------------------------------------------------*/

static bool computes(tri_pause *pause, uint64_t now) {
    uint64_t computed = tri_clock_cpu(pause->clock), passed = now - pause->seen;
    bool does = computed - pause->seen_computed >= passed / 100 * COMPUTES;
    pause->seen = now;
    pause->seen_computed = computed;
    return does;
}

static void wake(tr_engine *engine) {
    if (atomic_load(&engine->scheduler.pauses.loops) == 0) return;
    uint64_t now = tri_clock_monotonic();
    pthread_mutex_lock(&engine->bonds.lock);
    for (tr_loop *loop = engine->bonds.loops_made; loop != NULL; loop = loop->next_made) {
        if (!loop->pause.used || !computes(&loop->pause, now)) continue;
        atomic_store(&loop->pause.wanted, true);
        tri_loop_signal(loop);
    }
    pthread_mutex_unlock(&engine->bonds.lock);
}

bool tri_pause_tick(tr_engine *engine, bool will_wait) {
    tri_pauses *pauses = &engine->scheduler.pauses;
    bool waited = pauses->waited;
    pauses->waited = some_wait(engine) || will_wait;
    if (waited && pauses->waited) wake(engine);
    return pauses->waited && atomic_load(&pauses->loops) > 0;
}

void tri_pause_ticker_begins(tr_engine *engine) {
    tr_attach_begins(engine);
    atomic_store(&engine->scheduler.pauses.ticker, true);
    wake(engine);
}

void tri_pause_ticker_ends(tr_engine *engine) {
    atomic_store(&engine->scheduler.pauses.ticker, false);
    tr_attach_ends(engine);
}
