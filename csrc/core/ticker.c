/* ticker.c: see ticker.h; and the timers of the public API. */
#include "ticker.h"

#include <stdlib.h>
#include <string.h>

#include "engine.h"

enum { QUIET_TICKS = 20 };
#define GUARDED (4 * TRI_TICK)
#define SELDOM (20 * TRI_TICK)
#define INTERRUPT_EVERY 5

int tri_ticker_init(tri_ticker *ticker, tr_engine *engine) {
    ticker->engine = engine;
    ticker->started = ticker->ending = false;
    ticker->host = NULL;
    atomic_init(&ticker->running, false);
    atomic_init(&ticker->asleep, false);
    atomic_init(&ticker->idle, false);
    atomic_init(&ticker->sleeps_until, 0);
    atomic_init(&ticker->ticks, 0);
    tri_wheel_init(&ticker->wheel, tri_clock_now(&engine->clock));
    if (tri_parker_init(&ticker->parker) != TR_OK) return TR_ENOMEM;
    return pthread_mutex_init(&ticker->lock, NULL) == 0 ? TR_OK : TR_ENOMEM;
}

void tri_ticker_fini(tri_ticker *ticker) {
    tri_wheel_fini(&ticker->wheel);
    tri_parker_fini(&ticker->parker);
    pthread_mutex_destroy(&ticker->lock);
}

void tri_ticker_fire(tri_ticker *ticker, uint64_t now) {
    pthread_mutex_lock(&ticker->lock);
    tri_timer *timer = tri_wheel_advance(&ticker->wheel, now);
    pthread_mutex_unlock(&ticker->lock);
    while (timer != NULL) {
        tri_timer *next = timer->next;
        timer->fire(timer);
        timer = next;
    }
}

/* ---- The thread ---------------------------------------------------------------------------------*/

static void resend_interrupts(tri_ticker *ticker) {
    tr_engine *engine = ticker->engine;
    tr_host *host = &engine->host;
    if (ticker->host == NULL && host->thread_start != NULL)
        ticker->host = host->thread_start(host->context);
    if (host->thread_start != NULL && ticker->host == NULL) return;
    tri_pause_ticker_begins(engine);
    if (host->attach != NULL) host->attach(host->context, ticker->host);
    tri_pause_ticker_ends(engine);
    tri_scheduler_interrupt_again(&engine->scheduler);
    if (host->detach != NULL) host->detach(host->context, ticker->host);
}

/* One tick. Returns how soon the next one is needed. */
static int tick(tri_ticker *ticker) {
    tri_scheduler *scheduler = &ticker->engine->scheduler;
    uint64_t now = tri_clock_monotonic();
    atomic_fetch_add_explicit(&ticker->ticks, 1, memory_order_relaxed);
    bool slow = tri_slow_tick(&ticker->engine->slow, now);
    int need = tri_scheduler_tick(scheduler, now);
    bool marked = atomic_load(&scheduler->marked) > 0;
    bool waits = tri_pause_tick(ticker->engine, marked);
    if (marked || (waits && need < TRI_TICK_GUARDED)) return TRI_TICK_SOON;
    return slow && need == TRI_TICK_NEVER ? TRI_TICK_SELDOM : need;
}

/* Ticks are at whole milliseconds of the clock, not a millisecond after each other. A callback that sleeps for a
 * millisecond again and again would else wake together with the ticker each time, by one timer interrupt, and Linux
 * would send the thread that it wakes then to another processor: seen, 40 us instead of 10 to hand the core off, or
 * a millisecond behind a thread of the kernel's that runs there. They are half a millisecond apart at least. */
static uint64_t next_tick(int need) {
    static const uint64_t pauses[] = {
        [TRI_TICK_SELDOM] = SELDOM, [TRI_TICK_GUARDED] = GUARDED, [TRI_TICK_SOON] = TRI_TICK};
    if (need == TRI_TICK_NEVER) return TR_FOREVER;
    return (tri_clock_monotonic() + TRI_TICK / 2) / TRI_TICK * TRI_TICK + pauses[need];
}

/* Whether to go on. Sleeps until the next timer, or until the next tick. */
static bool sleep(tri_ticker *ticker, int need) {
    bool asleep = need == TRI_TICK_NEVER || need == TRI_TICK_SELDOM;
    atomic_store(&ticker->idle, need == TRI_TICK_NEVER);
    atomic_store(&ticker->asleep, asleep);
    /* Work that was queued before `asleep` was set poked nobody: look again. */
    int again = asleep ? tick(ticker) : need;
    if (asleep && again == TRI_TICK_SOON) return true;
    uint64_t until = next_tick(need == TRI_TICK_NEVER ? again : need);
    pthread_mutex_lock(&ticker->lock);
    bool go_on = !ticker->ending;
    if (!ticker->engine->options.virtual_time) {
        uint64_t next = tri_wheel_next(&ticker->wheel);
        if (next < until) until = next;
    }
    atomic_store(&ticker->sleeps_until, until);
    pthread_mutex_unlock(&ticker->lock);
    if (go_on) tri_parker_park(&ticker->parker, until);
    return go_on;
}

static void *ticker_main(void *argument) {
    tri_ticker *ticker = argument;
    tr_engine *engine = ticker->engine;
    uint32_t quiet = 0, ticks = 0;
    for (;;) {
        if (!engine->options.virtual_time) tri_ticker_fire(ticker, tri_clock_monotonic());
        int need = tick(ticker);
        quiet = need == TRI_TICK_SOON ? 0 : quiet + 1;
        bool marked = atomic_load(&engine->scheduler.marked) > 0;
        if (marked && ++ticks % INTERRUPT_EVERY == 0) resend_interrupts(ticker);
        bool soon = quiet < QUIET_TICKS && need != TRI_TICK_GUARDED;
        if (!sleep(ticker, soon ? TRI_TICK_SOON : need)) break;
    }
    if (ticker->host != NULL) engine->host.thread_stop(engine->host.context, ticker->host);
    return NULL;
}

static void ensure_started(tri_ticker *ticker) {
    if (ticker->started || ticker->ending) return;
    ticker->started = tri_start_thread(&ticker->thread, ticker_main, ticker) == TR_OK;
}

void tri_ticker_poke(tri_ticker *ticker) {
    if (atomic_load_explicit(&ticker->running, memory_order_acquire)) {
        if (atomic_load(&ticker->asleep) && atomic_exchange(&ticker->asleep, false))
            tri_parker_unpark(&ticker->parker);
        return;
    }
    pthread_mutex_lock(&ticker->lock);
    ensure_started(ticker);
    atomic_store_explicit(&ticker->running, ticker->started, memory_order_release);
    pthread_mutex_unlock(&ticker->lock);
}

void tri_ticker_rouse(tri_ticker *ticker) {
    if (atomic_load(&ticker->idle) && atomic_exchange(&ticker->idle, false))
        tri_parker_unpark(&ticker->parker);
}

bool tri_ticker_add(tri_ticker *ticker, tri_timer *timer, uint64_t deadline) {
    tri_wheel_add(&ticker->wheel, timer, deadline);
    if (ticker->engine->options.virtual_time) return false;
    ensure_started(ticker);
    atomic_store_explicit(&ticker->running, ticker->started, memory_order_release);
    return deadline < atomic_load(&ticker->sleeps_until);
}

void tri_ticker_end(tri_ticker *ticker) {
    pthread_mutex_lock(&ticker->lock);
    bool join = ticker->started && !ticker->ending;
    ticker->ending = true;
    pthread_mutex_unlock(&ticker->lock);
    if (!join) return;
    tri_parker_unpark(&ticker->parker);
    pthread_join(ticker->thread, NULL);
}

void tri_ticker_counters(tri_ticker *ticker, tr_counters *counters) {
    counters->ticks = atomic_load_explicit(&ticker->ticks, memory_order_relaxed);
    pthread_mutex_lock(&ticker->lock);
    counters->timers = ticker->wheel.count;
    pthread_mutex_unlock(&ticker->lock);
}

/* ---- Timers of the public API -------------------------------------------------------------------
 *
 * A timer is counted: one reference is the wheel's while it is pending, one the caller's. Its message
 * is the timer's until it fires. Cancelling takes the lock, so a timer either fires or is cancelled. */

struct tr_timer {
    tri_timer node; /* first: what the wheel links */
    tr_engine *engine;
    tr_pid pid;
    char *name; /* or NULL */
    tr_message *message;
    _Atomic uint32_t references;
};

static void timer_release(tr_timer *timer) {
    if (atomic_fetch_sub_explicit(&timer->references, 1, memory_order_acq_rel) != 1) return;
    tr_engine *engine = timer->engine;
    tr_message_free(engine, timer->message);
    free(timer->name);
    free(timer);
    tri_engine_release(engine);
}

static void fire(tri_timer *node) {
    tr_timer *timer = (tr_timer *)node;
    tr_message *message = timer->message;
    timer->message = NULL;
    tr_pid pid = timer->name != NULL ? tr_whereis(timer->engine, timer->name) : timer->pid;
    tr_send_message(timer->engine, pid, message);
    timer_release(timer);
}

/* Alarms are not counted: they belong to the table. */
void tri_ticker_drop_all(tri_ticker *ticker) {
    pthread_mutex_lock(&ticker->lock);
    tri_timer *node = tri_wheel_advance(&ticker->wheel, UINT64_MAX);
    pthread_mutex_unlock(&ticker->lock);
    while (node != NULL) {
        tri_timer *next = node->next;
        if (node->fire == fire) timer_release((tr_timer *)node);
        node = next;
    }
}

int tr_timer_start(tr_engine *engine, tr_pid pid, const char *name, tr_message *message,
                   uint64_t deadline, tr_timer **out) {
    tri_ticker *ticker = &engine->ticker;
    bool stopped = atomic_load(&engine->closed);
    tr_timer *timer = stopped ? NULL : calloc(1, sizeof *timer);
    char *copy = name != NULL ? strdup(name) : NULL;
    if (timer == NULL || (name != NULL && copy == NULL)) {
        free(timer);
        free(copy);
        tr_message_free(engine, message);
        return stopped ? TR_ESTOPPED : TR_ENOMEM;
    }
    *timer = (tr_timer){.node.fire = fire, .engine = engine, .pid = pid, .name = copy,
                        .message = message, .references = 2};
    tri_engine_retain(engine);
    bool virtual_time = engine->options.virtual_time;
    pthread_mutex_lock(&ticker->lock);
    bool sooner = tri_ticker_add(ticker, &timer->node, deadline);
    pthread_mutex_unlock(&ticker->lock);
    *out = timer;
    if (sooner) tri_parker_unpark(&ticker->parker);
    uint64_t now = virtual_time ? tri_clock_now(&engine->clock) : 0;
    if (virtual_time && deadline <= now) tri_ticker_fire(ticker, now); /* nobody else would */
    return TR_OK;
}

static int64_t left(tr_timer *timer) {
    uint64_t now = tri_clock_now(&timer->engine->clock);
    if (timer->node.deadline <= now) return 0;
    uint64_t left = timer->node.deadline - now;
    return left > INT64_MAX ? INT64_MAX : (int64_t)left;
}

/* A timer to a process that ended counts as gone (O67), though it leaves the wheel only when it is due. */
static bool has_receiver(tr_timer *timer) {
    return timer->name != NULL || tr_alive(timer->engine, timer->pid);
}

int64_t tr_timer_cancel(tr_timer *timer) {
    tri_ticker *ticker = &timer->engine->ticker;
    pthread_mutex_lock(&ticker->lock);
    bool pending = tri_wheel_remove(&ticker->wheel, &timer->node);
    pthread_mutex_unlock(&ticker->lock);
    if (!pending) return -1;
    int64_t result = has_receiver(timer) ? left(timer) : -1;
    timer_release(timer);
    return result;
}

int64_t tr_timer_remaining(tr_timer *timer) {
    tri_ticker *ticker = &timer->engine->ticker;
    pthread_mutex_lock(&ticker->lock);
    bool pending = tri_timer_pending(&timer->node);
    pthread_mutex_unlock(&ticker->lock);
    return pending && has_receiver(timer) ? left(timer) : -1;
}

void tr_timer_release(tr_timer *timer) { timer_release(timer); }
