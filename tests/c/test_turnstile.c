/* test_turnstile.c: callbacks that compute take turns at the interpreter lock; processes that block are
 * learned; waits do not use threads up (O82, O83, O90). */
#include "engine.h"
#include "fake_lock.h"
#include "worker.h"

enum { SPINNERS = 6 };

static tr_engine *engine;
static _Atomic int count, started_count, turns[SPINNERS];
static _Atomic bool flag;

static void begin(uint32_t max_threads) {
    engine = locked_engine(max_threads);
    atomic_store(&count, 0);
    atomic_store(&started_count, 0);
    atomic_store(&flag, false);
    atomic_store(&fake_armed, 0);
    for (int i = 0; i < SPINNERS; i++) atomic_store(&turns[i], 0);
}

static uint32_t parked(void) {
    tri_scheduler *s = &engine->scheduler;
    uint32_t number = 0;
    pthread_mutex_lock(&s->lock);
    for (tri_worker *worker = s->turnstile.head; worker != NULL; worker = worker->next_gated) number++;
    pthread_mutex_unlock(&s->lock);
    return number;
}

static bool is_over(void) {
    return atomic_load(&flag) || atomic_load(&this_thread->interrupted);
}

static void spin(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)message;
    atomic_fetch_add(&started_count, 1);
    for (uint64_t last = 0; !is_over(); checkpoint()) {
        if (lock.turns != last) atomic_fetch_add(&turns[me->number], 1);
        last = lock.turns;
    }
    atomic_store(&this_thread->interrupted, false);
    atomic_fetch_add(&count, 1);
}

static void start_spinners(tr_pid *pids) {
    for (int i = 0; i < SPINNERS; i++) {
        tr_pid pid = start(engine, &(actor){.handle = spin, .number = i});
        tell(engine, pid, 0);
        if (pids != NULL) pids[i] = pid;
    }
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == SPINNERS);
    EVENTUALLY_UNLOCKED(parked() >= SPINNERS - 2);
}

static void all_end(void) {
    atomic_store(&flag, true);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == SPINNERS);
}

static void spinners_take_turns_and_each_gets_some(void) {
    begin(0);
    start_spinners(NULL);
    for (int i = 0; i < SPINNERS; i++) {
        int before = atomic_load(&turns[i]);
        EVENTUALLY_UNLOCKED(atomic_load(&turns[i]) > before + 2);
    }
    CHECK_EQ(atomic_load(&fake_interval), TRI_TURN);
    all_end();
    locked_engine_end(engine);
}

static void answer(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me;
    checkpoint();
    tr_reply(engine, message->from, message->ref, term(value_of(message->term)));
}

static void ask(tr_pid server, int64_t number) {
    tr_term reply;
    tr_reason *reason;
    tr_process *self = tr_self(engine);
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(number)};
    CHECK_EQ(tr_call(self, server, &options), TR_OK);
    lock_give();
    CHECK_EQ(tr_call_wait(self, in(LIMIT)), TR_OK);
    lock_take();
    tr_call_take(self, &reply, &reason);
    CHECK_EQ(value_of(reply), number);
    release_term(NULL, reply);
}

static void servers_answer_beside_spinners_O82(void) {
    begin(0);
    start_spinners(NULL);
    tr_pid server = start(engine, &(actor){.handle = answer});
    for (int i = 0; i < 50; i++) ask(server, i);
    CHECK_EQ(atomic_load(&count), 0); /* none of them has ended */
    all_end();
    locked_engine_end(engine);
}

static void the_interval_is_put_back_after_the_last_spinner(void) {
    begin(0);
    start_spinners(NULL);
    CHECK_EQ(atomic_load(&fake_interval), TRI_TURN);
    all_end();
    EVENTUALLY_UNLOCKED(atomic_load(&fake_interval) == 0);
    CHECK_EQ(parked(), 0);
    CHECK(engine->scheduler.turnstile.admitted == NULL);
    locked_engine_end(engine);
}

static void a_killed_spinner_is_let_through(void) {
    tr_pid pids[SPINNERS];
    begin(0);
    start_spinners(pids);
    for (int i = 0; i < SPINNERS; i++) {
        tr_exit(engine, 0, pids[i], tr_reason_constant(TR_KILL));
        CHECK(!tr_alive(engine, pids[i]));
        EVENTUALLY_UNLOCKED(atomic_load(&count) == i + 1);
    }
    locked_engine_end(engine);
}

static void a_stop_lets_all_through(void) {
    begin(0);
    start_spinners(NULL);
    locked_engine_end(engine); /* kills them; fails if a thread stays behind */
    CHECK_EQ(atomic_load(&count), SPINNERS);
}

/* One that used its turn and then blocks must not keep the others from theirs. */
static void spin_then_block(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    while (atomic_load(&fake_armed) < 2 * SPINNERS && !is_over()) checkpoint();
    atomic_fetch_add(&started_count, 1);
    lock_give();
    EVENTUALLY(atomic_load(&flag));
    lock_take();
    atomic_fetch_add(&count, 1);
}

static void one_that_blocks_gives_its_turn_up(void) {
    begin(0);
    start_spinners(NULL);
    tell(engine, start(engine, &(actor){.handle = spin_then_block}), 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == SPINNERS + 1);
    for (int i = 0; i < SPINNERS; i++) {
        int before = atomic_load(&turns[i]);
        EVENTUALLY_UNLOCKED(atomic_load(&turns[i]) > before + 2);
    }
    atomic_store(&flag, true);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == SPINNERS + 1);
    locked_engine_end(engine);
}

/* ---- Processes that block -----------------------------------------------------------------------*/

static int habit(tr_pid pid) {
    tr_process *process = tr_process_acquire(engine, pid);
    CHECK(process != NULL);
    int score = atomic_load(&process->blocking);
    tr_process_release(process);
    return score;
}

static void block_or_not(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me;
    if (value_of(message->term) != 0) {
        lock_give();
        uint64_t until = in(2 * MS);
        while (tri_clock_monotonic() < until) sched_yield();
        lock_take();
    }
    atomic_fetch_add(&count, 1);
}

static void tell_many(tr_pid pid, int count_of, int value) {
    int before = atomic_load(&count);
    for (int i = 0; i < count_of; i++) tell(engine, pid, value);
    EVENTUALLY_UNLOCKED(atomic_load(&count) >= before + count_of);
}

/* Hand-off takes a standby, which is there when the core has been busy: let it be. */
static tr_pid until_it_is_tried_again(int seems_to_block, int at_once) {
    begin(0);
    tr_pid pid = start(engine, &(actor){.handle = block_or_not});
    tr_pid other = start(engine, &(actor){.handle = answer});
    for (int round = 0; habit(pid) < TRI_LEARNED; round++) {
        CHECK(round < 10000);
        int before = atomic_load(&count);
        tell(engine, pid, 1);
        ask(other, round);
        EVENTUALLY_UNLOCKED(atomic_load(&count) > before);
    }
    uint64_t taken = tri_scheduler_elastic_taken(&engine->scheduler);
    tell(engine, pid, 1);
    EVENTUALLY_UNLOCKED(tri_scheduler_elastic_taken(&engine->scheduler) > taken);
    for (int round = 0; habit(pid) >= TRI_LEARNED; round++) { /* also if it goes on */
        CHECK(round < 10000);
        tell_many(pid, at_once, seems_to_block);
    }
    EVENTUALLY_UNLOCKED(atomic_load(&engine->scheduler.elastic_count) == 0);
    return pid;
}

static void a_process_that_blocks_again_and_again_is_learned(void) {
    tr_pid pid = until_it_is_tried_again(0, 1);
    uint64_t taken = tri_scheduler_elastic_taken(&engine->scheduler);
    int before = atomic_load(&count);
    tell(engine, pid, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&count) > before);
    CHECK_EQ(tri_scheduler_elastic_taken(&engine->scheduler), taken);
    locked_engine_end(engine);
}

static void one_that_goes_on_seeming_so_is_tried_again(void) {
    until_it_is_tried_again(1, 1);
    locked_engine_end(engine);
}

/* What is doubted is counted in callbacks, wherever slices begin and end. */
static void one_that_finds_many_messages_is_tried_again(void) {
    until_it_is_tried_again(1, 16);
    locked_engine_end(engine);
}

/* ---- Threads ------------------------------------------------------------------------------------*/

static void ask_the_next(tr_process *self, actor *me, tr_message *message) {
    (void)self;
    if (me->peer != 0) ask(me->peer, value_of(message->term));
    tr_reply(engine, message->from, message->ref, term(value_of(message->term)));
}

/* A chain of calls that is longer than the limit of threads: who waits in the engine does not count. */
static void calls_in_a_chain_do_not_use_the_threads_up(void) {
    enum { THREADS = 4, CHAIN = 40 };
    begin(THREADS);
    tr_pid next = 0;
    for (int i = 0; i < CHAIN; i++)
        next = start(engine, &(actor){.handle = ask_the_next, .peer = next});
    for (int i = 0; i < 20; i++) ask(next, i); /* they are learned meanwhile */
    EVENTUALLY_UNLOCKED(engine->scheduler.waiting_count == 0);
    locked_engine_end(engine);
}

static void threads_that_are_idle_for_long_end(void) {
    enum { CHAIN = 30 };
    begin(0);
    tr_pid next = 0;
    for (int i = 0; i < CHAIN; i++)
        next = start(engine, &(actor){.handle = ask_the_next, .peer = next});
    ask(next, 1);
    tr_counters now;
    tr_engine_counters(engine, &now);
    CHECK(now.threads > TRI_IDLE_KEPT);
    lock_give();
    EVENTUALLY((tr_engine_counters(engine, &now), now.threads <= TRI_IDLE_KEPT));
    lock_take();
    ask(next, 2); /* and there are new ones when they are wanted */
    locked_engine_end(engine);
}

int main(void) {
    TEST(spinners_take_turns_and_each_gets_some);
    TEST(servers_answer_beside_spinners_O82);
    TEST(the_interval_is_put_back_after_the_last_spinner);
    TEST(a_killed_spinner_is_let_through);
    TEST(a_stop_lets_all_through);
    TEST(one_that_blocks_gives_its_turn_up);
    TEST(a_process_that_blocks_again_and_again_is_learned);
    TEST(one_that_goes_on_seeming_so_is_tried_again);
    TEST(one_that_finds_many_messages_is_tried_again);
    TEST(calls_in_a_chain_do_not_use_the_threads_up);
    TEST(threads_that_are_idle_for_long_end);
    return check_report();
}
