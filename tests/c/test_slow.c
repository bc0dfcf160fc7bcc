/* test_slow.c: slow callbacks and the lack of threads are told once, and nobody else is (slow.h). */
#include "engine.h"
#include "fake_lock.h"

enum { MOST = 64 };

static tr_engine *engine;
static _Atomic int told, lacks;
static tr_slow reports[MOST];
static _Atomic bool flag, by_system;
static _Atomic int entered;

static void note(void *context, const tr_slow *slow) {
    (void)context;
    int at = atomic_load(&told);
    CHECK(at < MOST);
    reports[at] = *slow;
    atomic_store(&told, at + 1);
}

static tr_term subject_of(void *context, tr_process *process, tr_pid *pid) {
    (void)context;
    CHECK_EQ(*pid, tr_process_pid(process));
    return tr_process_state(process);
}

static void note_lack(void *context, uint32_t limit, bool system) {
    (void)context;
    CHECK_EQ(limit, engine->options.max_threads);
    atomic_store(&by_system, system);
    atomic_fetch_add(&lacks, 1);
}

static tr_host telling(tr_host host) {
    host.slow = note;
    host.subject = subject_of;
    host.out_of_threads = note_lack;
    return host;
}

static void begin(tr_host host, tr_options options) {
    host = telling(host);
    atomic_store(&told, 0);
    atomic_store(&lacks, 0);
    atomic_store(&entered, 0);
    atomic_store(&flag, false);
    engine = tr_engine_new(&options, &host);
    CHECK(engine != NULL);
}

/* Without an interpreter lock. */
static void begin_free(tr_options options) { begin((tr_host){.release = release_term}, options); }

/* With one; the caller holds it after. */
static void begin_locked(uint64_t limit) {
    begin(fake_host, (tr_options){.parallel = 1, .handoff = true, .switch_interval = SWITCH_INTERVAL,
                                  .slow_callback = limit});
    lock_take();
}

static const tr_slow *report_of(tr_pid pid) {
    for (int i = 0; i < atomic_load(&told); i++)
        if (reports[i].pid == pid) return &reports[i];
    return NULL;
}

/* ---- Callbacks ----------------------------------------------------------------------------------*/

static void until_told(tr_process *self, actor *me, tr_message *message) {
    (void)me, (void)message;
    EVENTUALLY(report_of(tr_process_pid(self)) != NULL);
    atomic_fetch_add(&entered, 1);
}

static void a_slow_callback_is_told_once_while_it_runs(void) {
    begin_free((tr_options){.slow_callback = 20 * MS});
    tr_pid slow = start(engine, &(actor){.handle = until_told});
    tell(engine, slow, 0);
    EVENTUALLY(atomic_load(&entered) == 1);
    CHECK(!reports[0].over);
    CHECK(reports[0].thread != 0);
    CHECK(reports[0].subject != NULL);
    CHECK(reports[0].elapsed >= 20 * MS);
    CHECK_EQ(reports[0].kind, TR_MESSAGE_TERM);
    tell(engine, slow, 0); /* is told already; another one is told after it, so it would have been */
    tr_pid other = start(engine, &(actor){.handle = until_told});
    tell(engine, other, 0);
    EVENTUALLY(report_of(other) != NULL);
    CHECK_EQ(atomic_load(&told), 2);
    engine_end(engine);
}

static void wait_for_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&entered, 1);
    EVENTUALLY(atomic_load(&flag));
}

static void run_until_flag(tr_process *self, actor *me) { wait_for_flag(self, me, NULL); }

static void wait_in_engine(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    if (me->number++ > 0) return;
    atomic_fetch_add(&entered, 1);
    int result = tr_wait(self, TR_FOREVER);
    CHECK(result == TR_OK || result == TR_EKILLED);
}

/* They began before the one that is told, so they would have been told before it. */
static void who_may_block_and_who_waits_in_the_engine_is_not_slow(void) {
    begin_free((tr_options){.parallel = 2, .slow_callback = 20 * MS});
    tr_pid waiter = start(engine, &(actor){.handle = wait_in_engine});
    tell(engine, waiter, 0);
    start_thread(engine, &(actor){.run = run_until_flag});
    EVENTUALLY(atomic_load(&entered) == 2);
    tr_pid slow = start(engine, &(actor){.handle = until_told});
    tell(engine, slow, 0);
    EVENTUALLY(atomic_load(&entered) == 3);
    CHECK_EQ(atomic_load(&told), 1);
    atomic_store(&flag, true);
    tell(engine, waiter, 0);
    engine_end(engine);
}

static void nothing_is_slow_without_a_limit(void) {
    begin_free((tr_options){.slow_callback = 0});
    tell(engine, start(engine, &(actor){.handle = wait_for_flag}), 0);
    EVENTUALLY(atomic_load(&entered) == 1);
    tr_counters now;
    tr_engine_counters(engine, &now);
    uint64_t ticks = now.ticks;
    EVENTUALLY((tr_engine_counters(engine, &now), now.ticks > ticks + 20));
    CHECK_EQ(atomic_load(&told), 0);
    atomic_store(&flag, true);
    engine_end(engine);
}

/* ---- Under the lock -----------------------------------------------------------------------------*/

static void block_until_told(tr_process *self, actor *me, tr_message *message) {
    lock_give();
    until_told(self, me, message);
    lock_take();
}

static void who_gives_the_lock_away_and_sleeps_blocks(void) {
    begin_locked(20 * MS);
    tr_pid slow = start(engine, &(actor){.handle = block_until_told});
    tell(engine, slow, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&entered) == 1);
    CHECK(!reports[0].over);
    CHECK(reports[0].how == TR_SLOW_BLOCKS || reports[0].how == TR_SLOW_SPINS); /* it polls */
    locked_engine_end(engine);
}

static bool flagged_now(void) {
    tri_worker *worker = atomic_load(&engine->scheduler.workers);
    for (; worker != NULL; worker = worker->next)
        if (atomic_load(&worker->slow.flagged) != 0) return true;
    return false;
}

/* Never gives the lock away, so nobody can tell before its end. */
static void stall(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    EVENTUALLY(flagged_now());
    CHECK_EQ(atomic_load(&told), 0);
    atomic_fetch_add(&entered, 1);
}

static void a_native_stall_is_told_when_it_is_over(void) {
    begin_locked(20 * MS);
    tr_pid slow = start(engine, &(actor){.handle = stall});
    tell(engine, slow, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&told) == 1);
    CHECK_EQ(reports[0].pid, slow);
    CHECK(reports[0].how == TR_SLOW_STALLS || reports[0].how == TR_SLOW_STARVES);
    CHECK(reports[0].over || reports[0].thread != 0);
    CHECK_EQ(reports[0].kind, TR_MESSAGE_TERM);
    locked_engine_end(engine);
}

/* What is killed while somebody looks at it is interrupted all the same. */
static void spin_until_interrupted(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&entered, 1);
    while (!atomic_load(&this_thread->interrupted)) checkpoint();
}

static void a_kill_reaches_what_is_looked_at_O43(void) {
    begin_locked(2 * MS);
    for (int i = 0; i < 40; i++) {
        tr_pid victim = start(engine, &(actor){.handle = spin_until_interrupted});
        tell(engine, victim, 0);
        EVENTUALLY_UNLOCKED(atomic_load(&entered) == i + 1);
        if (i % 2 == 0) EVENTUALLY_UNLOCKED(report_of(victim) != NULL);
        tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
        EVENTUALLY_UNLOCKED(!tr_alive(engine, victim));
    }
    tr_counters now;
    EVENTUALLY_UNLOCKED((tr_engine_counters(engine, &now), now.interrupts == 0));
    locked_engine_end(engine);
}

/* ---- Threads ------------------------------------------------------------------------------------*/

static void the_lack_of_threads_is_told_once_an_episode(void) {
    begin_free((tr_options){.max_threads = 4});
    for (int i = 0; i < 20; i++) start_thread(engine, &(actor){.run = run_until_flag});
    EVENTUALLY(atomic_load(&lacks) == 1);
    tr_counters now;
    tr_engine_counters(engine, &now);
    uint64_t ticks = now.ticks;
    EVENTUALLY((tr_engine_counters(engine, &now), now.ticks > ticks + 20));
    CHECK_EQ(atomic_load(&lacks), 1);
    CHECK(!atomic_load(&by_system));
    CHECK(now.threads_limit_hits > 0);
    atomic_store(&flag, true);
    EVENTUALLY(atomic_load(&entered) == 20);
    engine_end(engine);
}

static _Atomic int refusals;

/* The reporter's thread is one of those that the system refuses. */
static void *refuse_some(void *context) {
    return atomic_fetch_sub(&refusals, 1) > 0 ? NULL : fake_start(context);
}

static void a_system_without_threads_is_told_as_such(void) {
    atomic_store(&refusals, 10);
    begin((tr_host){.release = release_term, .thread_start = refuse_some, .thread_stop = fake_stop},
          (tr_options){.parallel = 1});
    tell(engine, start(engine, &(actor){.handle = wait_for_flag}), 0);
    atomic_store(&flag, true);
    EVENTUALLY(atomic_load(&entered) == 1);
    EVENTUALLY(atomic_load(&lacks) == 1);
    CHECK(atomic_load(&by_system));
    engine_end(engine);
    CHECK_EQ(atomic_load(&fake_threads), 0);
}

int main(void) {
    TEST(a_slow_callback_is_told_once_while_it_runs);
    TEST(who_may_block_and_who_waits_in_the_engine_is_not_slow);
    TEST(nothing_is_slow_without_a_limit);
    TEST(who_gives_the_lock_away_and_sleeps_blocks);
    TEST(a_native_stall_is_told_when_it_is_over);
    TEST(a_kill_reaches_what_is_looked_at_O43);
    TEST(the_lack_of_threads_is_told_once_an_episode);
    TEST(a_system_without_threads_is_told_as_such);
    return check_report();
}
