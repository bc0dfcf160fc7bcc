/* test_counters.c: what the engine tells about itself: load.h, and the counters of a running engine. */
#include "fake_lock.h"
#include "load.h"

static tr_engine *engine;
static _Atomic bool entered, flag;

static tr_counters counters(void) {
    tr_counters now;
    tr_engine_counters(engine, &now);
    return now;
}

/* ---- The load, with times of our own ------------------------------------------------------------*/

static void busy_time_is_the_sum_over_the_workers(void) {
    tri_load load;
    tri_load_init(&load, 1000);
    tri_load_change(&load, 1, 1100); /* 100 of nobody */
    tri_load_change(&load, 2, 1150); /* 50 of one */
    tri_load_change(&load, 0, 1160); /* 10 of two */
    tri_load_change(&load, 0, 2000);
    CHECK_EQ(load.busy, 70);
    tri_load_change(&load, 1, 1990); /* a clock that was read earlier takes nothing away */
    CHECK_EQ(load.busy, 70);
    CHECK_EQ(load.changed, 2000);
}

static void an_interval_is_a_second_or_more(void) {
    tri_load load;
    tri_load_init(&load, 5);
    tri_load_change(&load, 1, 5);
    tri_load_roll(&load, SECOND);
    CHECK_EQ(load.recent, 0);
    tri_load_roll(&load, SECOND + 5);
    CHECK_EQ(load.recent, SECOND);
    CHECK_EQ(load.recent_busy, SECOND);
    tri_load_change(&load, 0, SECOND + 5 + MS);
    tri_load_roll(&load, 9 * SECOND); /* nobody looked for long */
    CHECK_EQ(load.recent, 8 * SECOND - 5);
    CHECK_EQ(load.recent_busy, MS);
}

static void a_handoff_is_timed_once(void) {
    tri_load load;
    tri_load_init(&load, tri_clock_monotonic());
    tri_load_taken(&load);
    CHECK_EQ(load.timed, 0);
    for (int i = 0; i < 2; i++) {
        tri_load_change(&load, 0, tri_clock_monotonic());
        tri_load_handed_off(&load);
        tri_load_taken(&load);
        tri_load_taken(&load);
    }
    CHECK_EQ(load.timed, 2);
    CHECK(load.longest <= load.time);
}

/* ---- A running engine ---------------------------------------------------------------------------*/

static void hold(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_store(&entered, true);
    EVENTUALLY(atomic_load(&flag));
}

static uint64_t sum_of_roles(const tr_counters *now) {
    return now->threads_idle + now->threads_core + now->threads_standby + now->threads_elastic +
           now->threads_detached;
}

static void queues_and_threads_are_counted(void) {
    engine = engine_with((tr_options){.parallel = 1, .max_threads = 7});
    atomic_store(&entered, false);
    atomic_store(&flag, false);
    tr_counters before = counters();
    CHECK_EQ(before.parallel, 1);
    CHECK_EQ(before.threads_limit, 7);
    CHECK_EQ(before.busy, 0);
    tell(engine, start(engine, &(actor){.handle = hold}), 0);
    EVENTUALLY(atomic_load(&entered));
    tr_counters now = counters();
    CHECK_EQ(now.threads, sum_of_roles(&now));
    CHECK(now.threads_core + now.threads_detached >= 1);
    CHECK(now.busy > 0);
    EVENTUALLY(counters().ticks > before.ticks);
    EVENTUALLY(counters().uptime > now.uptime);
    atomic_store(&flag, true);
    EVENTUALLY(counters().threads_idle == counters().threads);
    uint64_t busy = counters().busy;
    CHECK_EQ(counters().busy, busy); /* nobody runs, so it stands still */
    engine_end(engine);
}

static void run_queues_are_counted_by_priority(void) {
    engine = locked_engine(0); /* the engine cannot begin while the test holds the lock */
    for (int priority = 0; priority < 4; priority++) {
        for (int i = 0; i <= priority; i++) {
            tr_pid pid;
            tr_spawn_options options = {.priority = priority};
            CHECK_EQ(spawn(engine, &options, &(actor){.handle = hold}, &pid, NULL), TR_OK);
            atomic_store(&flag, true);
            tell(engine, pid, 0);
        }
    }
    tr_counters now = counters();
    for (int priority = 0; priority < 4; priority++)
        CHECK_EQ(now.run_queues[priority], (uint64_t)priority + 1);
    CHECK_EQ(now.run_queue, 10);
    EVENTUALLY_UNLOCKED(counters().run_queue == 0);
    locked_engine_end(engine);
}

static void timers_that_are_pending_are_counted(void) {
    engine = engine_with((tr_options){.virtual_time = true});
    tr_timer *timers[3];
    for (uint64_t i = 0; i < 3; i++) {
        tr_message *message = tr_message_new(TR_MESSAGE_TERM);
        CHECK(message != NULL);
        CHECK_EQ(tr_timer_start(engine, 0, "nobody", message, (i + 1) * SECOND, &timers[i]), TR_OK);
        CHECK_EQ(counters().timers, i + 1);
    }
    CHECK(tr_timer_cancel(timers[1]) >= 0);
    CHECK_EQ(counters().timers, 2);
    tr_engine_advance(engine, SECOND);
    CHECK_EQ(counters().timers, 1);
    tr_engine_advance(engine, 3 * SECOND);
    CHECK_EQ(counters().timers, 0);
    for (int i = 0; i < 3; i++) tr_timer_release(timers[i]);
    engine_end(engine);
}

static void wait_in_the_engine(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    if (me->number++ > 0) return; /* what it waited for */
    lock_give();
    int result = tr_wait(self, TR_FOREVER);
    lock_take();
    CHECK_EQ(result, TR_OK);
}

/* The other process is queued when the first begins to wait, so the core is handed to its worker. */
static void a_wait_that_hands_off_is_timed(void) {
    engine = locked_engine(0);
    atomic_store(&flag, true);
    tr_pid waiter = start(engine, &(actor){.handle = wait_in_the_engine});
    tell(engine, waiter, 0);
    tell(engine, start(engine, &(actor){.handle = hold}), 0);
    EVENTUALLY_UNLOCKED(counters().handoffs_timed == 1);
    tr_counters now = counters();
    CHECK(now.handoffs >= 1);
    CHECK(now.handoff_longest > 0);
    CHECK_EQ(now.handoff_longest, now.handoff_time);
    tell(engine, waiter, 1);
    EVENTUALLY_UNLOCKED(counters().callbacks == 3);
    locked_engine_end(engine);
}

int main(void) {
    TEST(busy_time_is_the_sum_over_the_workers);
    TEST(an_interval_is_a_second_or_more);
    TEST(a_handoff_is_timed_once);
    TEST(queues_and_threads_are_counted);
    TEST(run_queues_are_counted_by_priority);
    TEST(timers_that_are_pending_are_counted);
    TEST(a_wait_that_hands_off_is_timed);
    return check_report();
}
