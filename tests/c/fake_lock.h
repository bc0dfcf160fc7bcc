/* fake_lock.h: a host with an interpreter lock, which works like CPython's: whoever waits longer than
 * the switch interval asks for it, and the holder gives it away at its next checkpoint and waits until
 * somebody else had it. One lock a program. */
#ifndef TRI_FAKE_LOCK_H
#define TRI_FAKE_LOCK_H

#include "actors.h"

#define SWITCH_INTERVAL (5 * MS)

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t freed, taken;
    bool held;
    _Atomic bool wanted;
    uint64_t turns;
} lock = {.mutex = PTHREAD_MUTEX_INITIALIZER, .freed = PTHREAD_COND_INITIALIZER,
          .taken = PTHREAD_COND_INITIALIZER};

static _Atomic uint64_t fake_interval; /* what the engine asked for; 0: the usual one */

static uint64_t current_interval(void) {
    uint64_t asked = atomic_load(&fake_interval);
    return asked != 0 ? asked : SWITCH_INTERVAL;
}

static void lock_take(void) {
    pthread_mutex_lock(&lock.mutex);
    while (lock.held) {
        uint64_t turn = lock.turns;
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_nsec += (long)current_interval();
        if (limit.tv_nsec >= (long)SECOND) limit.tv_nsec -= (long)SECOND, limit.tv_sec++;
        int result = pthread_cond_timedwait(&lock.freed, &lock.mutex, &limit);
        if (result != 0 && lock.held && lock.turns == turn) atomic_store(&lock.wanted, true);
    }
    lock.held = true;
    lock.turns++;
    atomic_store(&lock.wanted, false);
    pthread_cond_broadcast(&lock.taken);
    pthread_mutex_unlock(&lock.mutex);
}

static void lock_give(void) {
    pthread_mutex_lock(&lock.mutex);
    uint64_t turn = lock.turns;
    CHECK(lock.held);
    lock.held = false;
    pthread_cond_signal(&lock.freed);
    if (atomic_load(&lock.wanted))
        while (lock.turns == turn) pthread_cond_wait(&lock.taken, &lock.mutex);
    pthread_mutex_unlock(&lock.mutex);
}

/* What an engine thread is to this host: the interrupt that is pending; whether its next checkpoint
 * is the turnstile. */
typedef struct fake_thread {
    _Atomic bool interrupted;
    _Atomic bool armed;
    _Atomic int asked_again; /* TR_INTERRUPT_AGAIN */
} fake_thread;

static _Thread_local fake_thread *this_thread;
static _Atomic int fake_threads, fake_armed;
static _Atomic(tr_engine *) fake_engine; /* whose threads are armed */

static void pass_turnstile(void) {
    tr_engine *engine = atomic_load(&fake_engine);
    if (engine == NULL || !tr_turnstile_arrive(engine)) return;
    lock_give();
    tr_turnstile_wait(engine);
    lock_take();
}

/* Between two instructions of the interpreter. */
UNUSED static void checkpoint(void) {
    if (this_thread != NULL && atomic_exchange(&this_thread->armed, false)) pass_turnstile();
    if (!atomic_load(&lock.wanted)) return;
    lock_give();
    lock_take();
}

static void *fake_start(void *context) {
    (void)context;
    this_thread = calloc(1, sizeof *this_thread);
    CHECK(this_thread != NULL);
    atomic_fetch_add(&fake_threads, 1);
    return this_thread;
}

static void fake_stop(void *context, void *thread) {
    (void)context;
    atomic_fetch_sub(&fake_threads, 1);
    free(thread);
}

static void fake_attach(void *context, void *thread) {
    (void)context;
    CHECK(thread == this_thread);
    lock_take();
}

static void fake_detach(void *context, void *thread) {
    (void)context, (void)thread;
    lock_give();
}

static _Atomic int fake_refusals; /* so many interrupts are held back */
static _Atomic bool fake_waits;   /* the victim seems to wait meanwhile */
static _Atomic int fake_asked_again; /* TR_INTERRUPT_AGAIN */

static int fake_interrupt(void *context, void *thread, int how) {
    (void)context;
    CHECK(lock.held);
    if (how == TR_INTERRUPT_AGAIN) {
        atomic_fetch_add(&fake_asked_again, 1);
        atomic_fetch_add(&((fake_thread *)thread)->asked_again, 1);
    }
    if (how != TR_INTERRUPT_AT_ONCE && atomic_load(&fake_refusals) > 0) {
        atomic_fetch_sub(&fake_refusals, 1);
        return atomic_load(&fake_waits) ? TR_HELD_WAITING : TR_HELD_COMPUTING;
    }
    atomic_store(&((fake_thread *)thread)->interrupted, true);
    return TR_INTERRUPTED;
}

static void fake_clear(void *context, void *thread) {
    (void)context;
    CHECK(thread == this_thread);
    atomic_store(&((fake_thread *)thread)->interrupted, false);
}

static bool fake_arm(void *context, void *thread) {
    (void)context;
    CHECK(lock.held);
    if (atomic_load(&fake_engine) == NULL) return false;
    atomic_fetch_add(&fake_armed, 1);
    atomic_store(&((fake_thread *)thread)->armed, true);
    return true;
}

static void fake_disarm(void *context, void *thread) {
    (void)context;
    CHECK(thread == this_thread);
    atomic_store(&((fake_thread *)thread)->armed, false);
}

static uint64_t fake_switch_interval(void *context, uint64_t nanoseconds) {
    (void)context;
    CHECK(lock.held);
    atomic_store(&fake_interval, nanoseconds);
    return nanoseconds != 0 ? nanoseconds : SWITCH_INTERVAL;
}

static const tr_host fake_host = {
    .release = release_term, .thread_start = fake_start, .thread_stop = fake_stop,
    .attach = fake_attach, .detach = fake_detach, .interrupt = fake_interrupt,
    .interrupt_clear = fake_clear, .arm = fake_arm, .disarm = fake_disarm,
    .switch_interval = fake_switch_interval};

/* An engine under the lock; the caller holds the lock after. */
UNUSED static tr_engine *locked_engine(uint32_t max_threads) {
    tr_options options = {.max_threads = max_threads, .parallel = 1, .handoff = true,
                          .switch_interval = SWITCH_INTERVAL};
    tr_engine *engine = tr_engine_new(&options, &fake_host);
    CHECK(engine != NULL);
    atomic_store(&fake_engine, engine);
    lock_take();
    return engine;
}

UNUSED static void locked_engine_end(tr_engine *engine) {
    lock_give();
    engine_end(engine);
    atomic_store(&fake_engine, NULL);
    CHECK_EQ(atomic_load(&fake_threads), 0);
}

/* Wait without the lock. */
#define EVENTUALLY_UNLOCKED(condition)                                                             \
    do {                                                                                           \
        lock_give();                                                                               \
        EVENTUALLY(condition);                                                                     \
        lock_take();                                                                               \
    } while (0)

#endif
