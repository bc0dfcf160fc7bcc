/* test_scheduler.c: slices, priorities, hand-off, the elastic pool, idleness (O82 to O91 as far as the
 * core decides them). */
#include <unistd.h>

#include "engine.h"
#include "fake_lock.h"
#include "worker.h"

static tr_engine *engine;
static _Atomic int count, started_count;
static _Atomic bool flag;

static void reset(void) {
    atomic_store(&count, 0);
    atomic_store(&started_count, 0);
    atomic_store(&flag, false);
}

static tr_counters counters(void) {
    tr_counters now;
    tr_engine_counters(engine, &now);
    return now;
}

static void count_up(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&count, 1);
}

static void raise_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_store(&flag, true);
}

static tr_pid start_at(int priority, const actor *model) {
    tr_pid pid;
    tr_spawn_options options = {.priority = priority};
    CHECK_EQ(spawn(engine, &options, model, &pid, NULL), TR_OK);
    return pid;
}

/* ---- Slices and priorities, without an interpreter lock -----------------------------------------*/

static int in_slice, longest_slice;

static void slice_begins(tr_process *self, void *state) {
    (void)self, (void)state;
    in_slice = 0;
}

static void count_in_slice(tr_process *self, void *state, tr_message *message) {
    (void)self, (void)state, (void)message;
    if (++in_slice > longest_slice) longest_slice = in_slice;
    atomic_fetch_add(&count, 1);
}

static void a_slice_is_a_thousand_callbacks(void) {
    enum { MESSAGES = 5000 };
    static const tr_behaviour sliced = {.begin = slice_begins, .handle = count_in_slice};
    engine = engine_new();
    reset();
    in_slice = longest_slice = 0;
    tr_pid pid;
    CHECK_EQ(tr_spawn(engine, &(tr_spawn_options){0}, &sliced, NULL, &pid, NULL), TR_OK);
    for (int i = 0; i < MESSAGES; i++) tell(engine, pid, i);
    EVENTUALLY(atomic_load(&count) == MESSAGES);
    CHECK(longest_slice <= TRI_SLICE);
    EVENTUALLY(counters().callbacks >= MESSAGES);
    CHECK(counters().slices >= MESSAGES / TRI_SLICE);
    engine_end(engine);
}

static int sequence[1024];

static void note_priority(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)message;
    sequence[atomic_fetch_add(&count, 1)] = (int)me->number;
}

/* The engine cannot begin while the test holds the lock, so the order of turns is all the scheduler's. */
static void priorities_take_turns_O85_O86(void) {
    enum { EACH = 40, ALL = 4 * EACH };
    engine = locked_engine(0);
    reset();
    for (int i = 0; i < ALL; i++) {
        int priority = i % 4;
        tr_pid pid = start_at(priority, &(actor){.handle = note_priority, .number = priority});
        tell(engine, pid, 0);
    }
    EVENTUALLY_UNLOCKED(atomic_load(&count) == ALL);
    int late = 0, low = 0;
    for (int i = 0; i < EACH; i++) late += sequence[i] != TR_PRIORITY_MAX;
    CHECK(late <= 4); /* whoever is passed over gets a turn in 64 */
    late = 0;
    for (int i = EACH; i < 2 * EACH; i++) late += sequence[i] < TR_PRIORITY_HIGH;
    CHECK(late <= 4);
    for (int i = 2 * EACH; i < 3 * EACH; i++) low += sequence[i] == TR_PRIORITY_LOW;
    CHECK(low >= 3 && low <= 9); /* one turn in eight */
    locked_engine_end(engine);
}

/* Somebody of each priority from `lowest` to `highest` always waits: how many turns each got of `turns`. */
static void count_turns(int lowest, int highest, int turns, int *counts) {
    tri_run_queue queue = {0};
    tr_process processes[TRI_PRIORITIES] = {0};
    for (int priority = lowest; priority <= highest; priority++) {
        counts[priority] = 0;
        processes[priority].priority = (uint8_t)priority;
        tri_run_queue_push(&queue, &processes[priority]);
    }
    for (int i = 0; i < turns; i++) {
        tr_process *taken = tri_run_queue_take(&queue);
        counts[taken->priority]++;
        tri_run_queue_push(&queue, taken);
    }
}

static void whoever_is_passed_over_gets_one_turn_in_64_O86(void) {
    enum { ROUNDS = 100, TURNS = 64 * ROUNDS };
    int counts[TRI_PRIORITIES];
    for (int highest = TR_PRIORITY_HIGH; highest <= TR_PRIORITY_MAX; highest++) {
        for (int lowest = TR_PRIORITY_LOW; lowest < highest; lowest++) {
            count_turns(lowest, highest, TURNS, counts);
            for (int priority = lowest; priority < highest; priority++) CHECK(counts[priority] >= ROUNDS);
            CHECK(counts[highest] >= TURNS / 21 * 20);
        }
    }
    count_turns(TR_PRIORITY_LOW, TR_PRIORITY_NORMAL, TURNS, counts);
    CHECK_EQ(counts[TR_PRIORITY_LOW], TURNS / 8);
}

static void meet(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)message;
    atomic_fetch_add(&count, 1);
    EVENTUALLY(atomic_load(&count) >= me->number);
}

static void callbacks_run_in_parallel_without_the_lock_O88(void) {
    enum { PARALLEL = 4 };
    engine = engine_with((tr_options){.parallel = PARALLEL});
    reset();
    for (int i = 0; i < PARALLEL; i++)
        tell(engine, start(engine, &(actor){.handle = meet, .number = PARALLEL}), 0);
    EVENTUALLY(atomic_load(&count) == PARALLEL);
    engine_end(engine);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void wait_at_gate(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    atomic_fetch_add(&count, 1);
}

/* A tick for each would do, too, but it would take as many ticks. */
static void those_behind_a_callback_that_blocks_go_to_the_pool(void) {
    enum { WAITERS = 30 };
    engine = engine_with((tr_options){.parallel = 1});
    reset();
    pthread_mutex_lock(&gate);
    tell(engine, start(engine, &(actor){.handle = wait_at_gate}), 0);
    EVENTUALLY(atomic_load(&started_count) == 1);
    for (int i = 0; i < WAITERS; i++) {
        int priority = i % 2 == 0 ? TR_PRIORITY_NORMAL : TR_PRIORITY_LOW;
        tell(engine, start_at(priority, &(actor){.handle = wait_at_gate}), 0);
    }
    EVENTUALLY(atomic_load(&started_count) == WAITERS + 1);
    tr_counters now = counters();
    CHECK_EQ(now.threads_elastic + now.threads_detached + now.threads_core, WAITERS + 1);
    CHECK(now.threads_elastic > WAITERS / 2);
    CHECK(now.handoffs < WAITERS / 2);
    pthread_mutex_unlock(&gate);
    EVENTUALLY(atomic_load(&count) == WAITERS + 1);
    engine_end(engine);
}

static void urgent_ones_stay_at_the_core(void) {
    tri_run_queue from = {0};
    tri_queue to = {0};
    tr_process processes[TRI_PRIORITIES] = {0};
    for (int priority = 0; priority < TRI_PRIORITIES; priority++) {
        processes[priority].priority = (uint8_t)priority;
        tri_run_queue_push(&from, &processes[priority]);
    }
    CHECK_EQ(tri_run_queue_move(&from, 1, &to), 1);
    CHECK(tri_queue_pop(&to) == &processes[TR_PRIORITY_NORMAL]);
    CHECK_EQ(tri_run_queue_move(&from, 9, &to), 1);
    CHECK(tri_queue_pop(&to) == &processes[TR_PRIORITY_LOW]);
    CHECK_EQ(from.length, 2);
    CHECK(tri_run_queue_take(&from) == &processes[TR_PRIORITY_MAX]);
    CHECK(tri_run_queue_take(&from) == &processes[TR_PRIORITY_HIGH]);
}

static void wait_for_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    EVENTUALLY(atomic_load(&flag));
}

/* A callback that takes longer than a tick loses its place. */
static void a_slow_callback_stops_nobody_without_the_lock(void) {
    engine = engine_new();
    reset();
    for (int i = 0; i < 3; i++) tell(engine, start(engine, &(actor){.handle = wait_for_flag}), 0);
    EVENTUALLY(atomic_load(&started_count) == 3);
    CHECK(counters().handoffs + counters().threads_elastic + counters().threads_core >= 3);
    tell(engine, start(engine, &(actor){.handle = raise_flag}), 0);
    EVENTUALLY(atomic_load(&flag));
    CHECK(counters().handoffs > 0);
    EVENTUALLY(counters().threads_detached == 0);
    engine_end(engine);
}

/* ---- Hand-off under the lock --------------------------------------------------------------------*/

static void block_until_flag(tr_process *self, actor *me, tr_message *message) {
    lock_give();
    wait_for_flag(self, me, message);
    lock_take();
    atomic_fetch_add(&count, 1);
}

static void spin_until_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    while (!atomic_load(&flag)) checkpoint();
    atomic_fetch_add(&count, 1);
}

/* `n` of these, then one that ends it: it gets its turn although none of them returns before. */
static void others_go_on(void (*stuck)(tr_process *, actor *, tr_message *), int n) {
    engine = locked_engine(0);
    reset();
    for (int i = 0; i < n; i++) tell(engine, start(engine, &(actor){.handle = stuck}), 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == n);
    CHECK(counters().handoffs + counters().threads_elastic >= (uint64_t)n - 1); /* the pool may help */
    tell(engine, start(engine, &(actor){.handle = raise_flag}), 0);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == n);
    CHECK(counters().handoffs > 0);
    EVENTUALLY_UNLOCKED(counters().threads_detached == 0);
    locked_engine_end(engine);
}

static void callbacks_that_block_stop_nobody(void) { others_go_on(block_until_flag, 20); }
static void callbacks_that_spin_stop_nobody_O82(void) { others_go_on(spin_until_flag, 3); }

static void wait_for_a_message(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    tr_cursor cursor = {0};
    tr_message *second;
    lock_give();
    while ((second = tr_receive(self, NULL, NULL, &cursor)) == NULL)
        CHECK_EQ(tr_wait(self, in(LIMIT)), TR_OK);
    lock_take();
    tr_message_free(engine, second);
    tell(engine, me->peer, 1);
    atomic_fetch_add(&count, 1);
}

/* A wait within the engine gives the core away at once: nobody needs to notice. */
static void a_wait_in_a_callback_gives_the_core_away(void) {
    enum { CHAIN = 30 };
    engine = locked_engine(0);
    reset();
    tr_pid next = start(engine, &(actor){.handle = count_up});
    for (int i = 0; i < CHAIN; i++) {
        next = start(engine, &(actor){.handle = wait_for_a_message, .peer = next});
        tell(engine, next, 0);
    }
    tell(engine, next, 1);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == CHAIN + 1);
    locked_engine_end(engine);
}

static void block_and_wake(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    const tri_worker *worker = atomic_load(&self->worker);
    block_until_flag(self, me, message);
    EVENTUALLY(counters().threads_core == 0);
    CHECK(atomic_load(&worker->role) == TRI_ROLE_DETACHED);
    tell(engine, me->peer, 0);
    bool computed = atomic_load(&worker->gate) != TRI_GATE_FREE; /* in the waits here, on a slow machine */
    CHECK_EQ(atomic_load(&worker->role), computed ? TRI_ROLE_DETACHED : TRI_ROLE_CORE);
}

/* What it wakes then needs no other thread; that it blocked is remembered all the same. */
static void who_lost_the_core_takes_it_back_when_it_wakes_another(void) {
    engine = locked_engine(0);
    reset();
    tr_pid other = start(engine, &(actor){.handle = count_up}), pid;
    tr_process *process;
    pid = start(engine, &(actor){.handle = block_and_wake, .peer = other});
    for (int i = 1; i <= 2; i++) {
        tell(engine, pid, 0);
        EVENTUALLY_UNLOCKED(atomic_load(&started_count) == i && counters().handoffs == (uint64_t)i);
        atomic_store(&flag, true);
        EVENTUALLY_UNLOCKED(atomic_load(&count) == 2 * i && counters().threads_core == 0);
        atomic_store(&flag, false);
        CHECK((process = tr_process_acquire(engine, pid)) != NULL);
        CHECK_EQ(atomic_load(&process->blocking), i * TRI_BLOCKED);
        tr_process_release(process);
    }
    locked_engine_end(engine);
}

/* Two processes ping each other beside one that spins and one that keeps blocking. */
typedef struct ball { int left; } ball;

static void bounce(tr_process *self, actor *me, tr_message *message) {
    int64_t left = value_of(message->term);
    if (left == 0) atomic_store(&flag, true);
    else {
        tr_message *back = tr_message_new(TR_MESSAGE_TERM);
        back->term = term(left - 1);
        back->from = tr_process_pid(self);
        tr_send_message(engine, message->from != 0 ? message->from : me->peer, back);
    }
    checkpoint();
}

static void work_goes_on_beside_a_spinner_and_a_blocker(void) {
    engine = locked_engine(0);
    reset();
    tell(engine, start(engine, &(actor){.handle = spin_until_flag}), 0);
    tell(engine, start(engine, &(actor){.handle = block_until_flag}), 0);
    tr_pid one = start(engine, &(actor){.handle = bounce});
    tr_pid other = start(engine, &(actor){.handle = bounce, .peer = one});
    tell(engine, other, 200);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 2);
    locked_engine_end(engine);
}

/* ---- The elastic pool ---------------------------------------------------------------------------*/

static void sleeper(tr_process *self, actor *me) {
    (void)self;
    atomic_fetch_add(&started_count, 1);
    if (me->number) lock_give();
    EVENTUALLY(atomic_load(&flag));
    if (me->number) lock_take();
    atomic_fetch_add(&count, 1);
}

static void a_thousand_sleepers_share_the_pool(bool locked) {
    enum { SLEEPERS = 1000, THREADS = 120 };
    engine = locked ? locked_engine(THREADS) : engine_with((tr_options){.max_threads = THREADS});
    reset();
    for (int i = 0; i < SLEEPERS; i++)
        start_thread(engine, &(actor){.run = sleeper, .number = locked});
    if (locked) lock_give();
    EVENTUALLY(atomic_load(&started_count) >= THREADS - 3); /* all but what is kept for the core */
    CHECK(counters().threads <= THREADS);
    tell(engine, start(engine, &(actor){.handle = raise_flag}), 0);
    EVENTUALLY(atomic_load(&count) == SLEEPERS);
    CHECK(counters().threads_limit_hits > 0 || counters().threads <= THREADS);
    if (locked) lock_take();
    if (locked) locked_engine_end(engine);
    else engine_end(engine);
}

static void a_thousand_sleepers_share_the_pool_under_the_lock(void) {
    a_thousand_sleepers_share_the_pool(true);
}

static void a_thousand_sleepers_share_the_pool_without_the_lock(void) {
    a_thousand_sleepers_share_the_pool(false);
}

static void run_and_return(tr_process *self, actor *me) {
    (void)self, (void)me;
    atomic_fetch_add(&count, 1);
    checkpoint();
}

static void functions_that_do_not_block_share_few_threads(void) {
    enum { FUNCTIONS = 2000 };
    engine = locked_engine(0);
    reset();
    for (int i = 0; i < FUNCTIONS; i++) start_thread(engine, &(actor){.run = run_and_return});
    EVENTUALLY_UNLOCKED(atomic_load(&count) == FUNCTIONS);
    CHECK(counters().threads < 50);
    locked_engine_end(engine);
}

static void answer(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me;
    tr_reply(engine, message->from, message->ref, term(value_of(message->term)));
}

static void ask_the_server(tr_process *self, actor *me) {
    tr_term reply;
    tr_reason *reason;
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    CHECK_EQ(tr_call(self, me->peer, &options), TR_OK);
    CHECK_EQ(tr_call_wait(self, in(LIMIT)), TR_OK);
    tr_call_take(self, &reply, &reason);
    release_term(NULL, reply);
    atomic_fetch_add(&count, 1);
}

/* However few threads there are, the core gets one: else the callers would wait for ever. Those that
 * wait in the engine do not count for the limit, but there is one for them, too. */
static void the_pool_leaves_a_thread_for_the_core(void) {
    for (uint32_t threads = 2; threads < 6; threads++) {
        enum { CALLERS = 100 };
        engine = engine_with((tr_options){.max_threads = threads});
        reset();
        tr_pid server = start(engine, &(actor){.handle = answer});
        for (int i = 0; i < CALLERS; i++)
            start_thread(engine, &(actor){.run = ask_the_server, .peer = server});
        EVENTUALLY(atomic_load(&count) == CALLERS);
        CHECK(counters().threads <= threads * TRI_THREADS_IN_ALL);
        engine_end(engine);
    }
}

/* Work that found no thread is taken by the next one that is free, without a tick. */
static void one_thread_does_everything(void) {
    engine = engine_with((tr_options){.max_threads = 1});
    reset();
    for (int i = 0; i < 200; i++) {
        start_thread(engine, &(actor){.run = run_and_return});
        tell(engine, start(engine, &(actor){.handle = count_up}), 0);
    }
    EVENTUALLY(atomic_load(&count) == 400);
    CHECK_EQ(counters().threads, 1);
    engine_end(engine);
}

static _Atomic int refusals;

static void *refuse_some(void *context) {
    return atomic_fetch_sub(&refusals, 1) > 0 ? NULL : fake_start(context);
}

/* A thread that cannot be had now is tried again; what waits for it is not lost. */
static void a_thread_that_fails_to_start_is_tried_again(void) {
    tr_host host = {.release = release_term, .thread_start = refuse_some, .thread_stop = fake_stop};
    engine = tr_engine_new(&(tr_options){.parallel = 2}, &host);
    reset();
    atomic_store(&refusals, 10);
    tell(engine, start(engine, &(actor){.handle = count_up}), 0);
    start_thread(engine, &(actor){.run = run_and_return});
    EVENTUALLY(atomic_load(&count) == 2);
    CHECK(counters().threads_limit_hits >= 10);
    CHECK(counters().threads <= 5);
    engine_end(engine);
    CHECK_EQ(atomic_load(&fake_threads), 0);
}

/* ---- Interrupts ---------------------------------------------------------------------------------*/

static void spin_until_interrupted(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    while (!atomic_load(&this_thread->interrupted)) checkpoint();
    atomic_store(&this_thread->interrupted, false); /* it arrived */
    atomic_fetch_add(&count, 1);
}

static void must_not_be_interrupted(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    CHECK(!atomic_load(&this_thread->interrupted));
    atomic_fetch_add(&count, 1);
}

static void a_kill_interrupts_its_victim_and_nobody_else(void) {
    engine = locked_engine(0);
    for (int i = 0; i < 5; i++) {
        reset();
        tr_pid victim = start(engine, &(actor){.handle = spin_until_interrupted});
        tell(engine, victim, 0);
        EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
        tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
        CHECK(!tr_alive(engine, victim));
        for (int j = 0; j < 20; j++)
            tell(engine, start(engine, &(actor){.handle = must_not_be_interrupted}), 0);
        EVENTUALLY_UNLOCKED(atomic_load(&count) == 21);
    }
    EVENTUALLY_UNLOCKED(atomic_load(&engine->scheduler.marked) == 0);
    locked_engine_end(engine);
}

static void an_interrupt_that_is_held_back_is_sent_in_the_end(void) {
    for (int refusals = 1; refusals <= 1000000; refusals *= 1000) {
        engine = locked_engine(0);
        reset();
        tr_pid victim = start(engine, &(actor){.handle = spin_until_interrupted});
        tell(engine, victim, 0);
        EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
        atomic_store(&fake_refusals, refusals);
        tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
        EVENTUALLY_UNLOCKED(atomic_load(&count) == 1);
        CHECK(atomic_exchange(&fake_refusals, 0) < refusals);
        locked_engine_end(engine);
    }
}

/* It is interrupted when it goes on, not because waiting took it CPU time. */
static void an_interrupt_of_one_that_waits_is_held_back_until_it_goes_on(void) {
    enum { TRIES = 40 }; /* five milliseconds each: more time than one gets that computes */
    engine = locked_engine(0);
    reset();
    tr_pid victim = start(engine, &(actor){.handle = spin_until_interrupted});
    tell(engine, victim, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
    atomic_store(&fake_waits, true);
    atomic_store(&fake_refusals, TRIES);
    tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 1);
    CHECK_EQ(atomic_load(&fake_refusals), 0);
    atomic_store(&fake_waits, false);
    locked_engine_end(engine);
}

/* What tr_interrupted is for: to unwind takes it a while, in which no interrupt comes. */
static void interrupt_itself(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    while (atomic_load(&fake_asked_again) == 0) checkpoint();
    CHECK(!atomic_load(&this_thread->interrupted));
    tr_interrupted(engine);
    int asked = atomic_load(&fake_asked_again);
    tri_worker *worker = tri_thread_here_or_null(engine)->worker;
    uint64_t cpu = tri_worker_cpu(worker), began = tri_clock_monotonic();
    while (tri_worker_cpu(worker) - cpu < MS) checkpoint();
    bool disturbed = atomic_load(&fake_asked_again) != asked;
    CHECK(!disturbed || tri_clock_monotonic() - began > 50 * MS); /* it did not run for so long */
    atomic_fetch_add(&count, 1);
}

static void one_that_is_held_back_may_interrupt_itself(void) {
    engine = locked_engine(0);
    reset();
    atomic_store(&fake_asked_again, 0);
    atomic_store(&fake_waits, true);
    atomic_store(&fake_refusals, 1000000);
    tr_pid victim = start(engine, &(actor){.handle = interrupt_itself});
    tell(engine, victim, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
    tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 1);
    atomic_store(&fake_waits, false);
    atomic_store(&fake_refusals, 0);
    locked_engine_end(engine);
}

static int byte_pipe[2];
static _Atomic(fake_thread *) reader;

static void read_a_byte(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    char byte;
    atomic_store(&reader, this_thread);
    lock_give();
    CHECK_EQ(read(byte_pipe[0], &byte, 1), 1);
    lock_take();
    atomic_store(&this_thread->interrupted, false);
    atomic_fetch_add(&count, 1);
}

enum { OFTEN = 40 };

static void compute_until_asked_often(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    atomic_store(&this_thread->asked_again, 0);
    while (atomic_load(&this_thread->asked_again) < OFTEN) checkpoint();
    atomic_store(&this_thread->interrupted, false);
    atomic_fetch_add(&count, 1);
}

/* Its thread is as it was at the last try; and who is killed while it waits for ever may do so in great number. */
static void one_that_blocks_is_not_tried_again_and_again(void) {
    engine = locked_engine(0);
    reset();
    CHECK_EQ(pipe(byte_pipe), 0);
    atomic_store(&reader, NULL);
    atomic_store(&fake_waits, true);
    atomic_store(&fake_refusals, 1000000);
    tr_pid blocks = start(engine, &(actor){.handle = read_a_byte});
    tell(engine, blocks, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&reader) != NULL);
    atomic_store(&atomic_load(&reader)->asked_again, 0);
    tr_exit(engine, 0, blocks, tr_reason_constant(TR_KILL));
    EVENTUALLY_UNLOCKED(atomic_load(&atomic_load(&reader)->asked_again) > 0);
    tr_pid computes = start(engine, &(actor){.handle = compute_until_asked_often});
    tell(engine, computes, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
    tr_exit(engine, 0, computes, tr_reason_constant(TR_KILL));
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 1);
    CHECK(atomic_load(&atomic_load(&reader)->asked_again) < OFTEN / 2);
    atomic_store(&fake_refusals, 0);
    CHECK_EQ(write(byte_pipe[1], ".", 1), 1);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 2);
    atomic_store(&fake_waits, false);
    locked_engine_end(engine);
    close(byte_pipe[0]);
    close(byte_pipe[1]);
}

static void compute_masked(tr_process *self, actor *me, tr_message *message) {
    (void)me, (void)message;
    CHECK(tr_mask(engine));
    CHECK(!tr_mask(engine)); /* it is masked already */
    atomic_fetch_add(&started_count, 1);
    while (!tr_process_is_dead(self)) checkpoint();
    for (int i = 0; i < 100; i++) { /* the ticker has its chances, too */
        checkpoint();
        CHECK(!atomic_load(&this_thread->interrupted));
    }
    tr_unmask(engine);
    CHECK(atomic_exchange(&this_thread->interrupted, false));
    CHECK(tr_mask(engine)); /* as its cleanup may */
    tr_unmask(engine);
    atomic_fetch_add(&count, 1);
}

static void a_masked_process_is_interrupted_when_the_mask_is_off(void) {
    engine = locked_engine(0);
    for (int i = 0; i < 20; i++) {
        reset();
        tr_pid victim = start(engine, &(actor){.handle = compute_masked});
        tell(engine, victim, 0);
        EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
        tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
        EVENTUALLY_UNLOCKED(atomic_load(&count) == 1);
        tell(engine, start(engine, &(actor){.handle = must_not_be_interrupted}), 0);
        EVENTUALLY_UNLOCKED(atomic_load(&count) == 2);
    }
    EVENTUALLY_UNLOCKED(atomic_load(&engine->scheduler.marked) == 0);
    locked_engine_end(engine);
}

static void mask_when_killed(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    while (!atomic_load(&this_thread->interrupted)) checkpoint();
    CHECK(tr_mask(engine));
    CHECK(!atomic_load(&this_thread->interrupted)); /* taken back */
    tr_unmask(engine);
    while (!atomic_load(&this_thread->interrupted)) checkpoint();
    atomic_store(&this_thread->interrupted, false);
    atomic_fetch_add(&count, 1);
}

static void a_mask_takes_an_interrupt_back_that_is_sent_again_after_it(void) {
    engine = locked_engine(0);
    reset();
    tr_pid victim = start(engine, &(actor){.handle = mask_when_killed});
    tell(engine, victim, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
    tr_exit(engine, 0, victim, tr_reason_constant(TR_KILL));
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 1);
    EVENTUALLY_UNLOCKED(atomic_load(&engine->scheduler.marked) == 0);
    locked_engine_end(engine);
}

/* It is killed while it runs an inner process: that one is left alone, and it is told after. */
static void run_an_inner_one(tr_process *self, actor *me, tr_message *message) {
    (void)me, (void)message;
    tr_pid pid;
    CHECK_EQ(spawn(engine, &(tr_spawn_options){.enter = true}, &(actor){.handle = count_up}, &pid,
                   NULL), TR_OK);
    atomic_fetch_add(&started_count, 1);
    while (!atomic_load(&flag)) checkpoint();
    CHECK(!atomic_load(&this_thread->interrupted));
    tell(engine, pid, 0);
    tr_leave(engine);
    CHECK(tr_self(engine) == self);
    CHECK(tr_process_is_dead(self));
    while (!atomic_load(&this_thread->interrupted)) checkpoint();
    atomic_store(&this_thread->interrupted, false);
    atomic_fetch_add(&count, 1);
}

static void an_outer_process_is_interrupted_when_the_inner_one_is_left(void) {
    engine = locked_engine(0);
    reset();
    tr_pid outer = start(engine, &(actor){.handle = run_an_inner_one});
    tell(engine, outer, 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
    tr_exit(engine, 0, outer, tr_reason_constant(TR_KILL));
    atomic_store(&flag, true);
    EVENTUALLY_UNLOCKED(atomic_load(&count) == 2);
    locked_engine_end(engine);
}

/* The engine's stop is detached: the ticker sends its interrupts. */
static void a_stop_interrupts_what_spins(void) {
    engine = locked_engine(0);
    reset();
    tell(engine, start(engine, &(actor){.handle = spin_until_interrupted}), 0);
    EVENTUALLY_UNLOCKED(atomic_load(&started_count) == 1);
    locked_engine_end(engine);
    CHECK_EQ(atomic_load(&count), 1);
}

/* ---- Idle ---------------------------------------------------------------------------------------*/

/* O89: nothing ticks and all threads sleep, until there is work again. */
static void an_idle_engine_sleeps(void) {
    engine = engine_with((tr_options){.parallel = 3});
    reset();
    tr_pid pid = start(engine, &(actor){.handle = count_up});
    for (int i = 0; i < 3; i++) {
        tell(engine, pid, 0);
        EVENTUALLY(atomic_load(&count) == i + 1);
        EVENTUALLY(counters().threads_idle == counters().threads);
        EVENTUALLY(atomic_load(&engine->ticker.parker.word) != 0 &&
                   atomic_load(&engine->ticker.asleep));
    }
    engine_end(engine);
}

int main(void) {
    TEST(a_slice_is_a_thousand_callbacks);
    TEST(priorities_take_turns_O85_O86);
    TEST(whoever_is_passed_over_gets_one_turn_in_64_O86);
    TEST(callbacks_run_in_parallel_without_the_lock_O88);
    TEST(those_behind_a_callback_that_blocks_go_to_the_pool);
    TEST(urgent_ones_stay_at_the_core);
    TEST(a_slow_callback_stops_nobody_without_the_lock);
    TEST(callbacks_that_block_stop_nobody);
    TEST(callbacks_that_spin_stop_nobody_O82);
    TEST(a_wait_in_a_callback_gives_the_core_away);
    TEST(who_lost_the_core_takes_it_back_when_it_wakes_another);
    TEST(work_goes_on_beside_a_spinner_and_a_blocker);
    TEST(a_thousand_sleepers_share_the_pool_under_the_lock);
    TEST(a_thousand_sleepers_share_the_pool_without_the_lock);
    TEST(functions_that_do_not_block_share_few_threads);
    TEST(the_pool_leaves_a_thread_for_the_core);
    TEST(one_thread_does_everything);
    TEST(a_thread_that_fails_to_start_is_tried_again);
    TEST(a_kill_interrupts_its_victim_and_nobody_else);
    TEST(an_interrupt_that_is_held_back_is_sent_in_the_end);
    TEST(an_interrupt_of_one_that_waits_is_held_back_until_it_goes_on);
    TEST(one_that_is_held_back_may_interrupt_itself);
    TEST(one_that_blocks_is_not_tried_again_and_again);
    TEST(a_masked_process_is_interrupted_when_the_mask_is_off);
    TEST(a_mask_takes_an_interrupt_back_that_is_sent_again_after_it);
    TEST(an_outer_process_is_interrupted_when_the_inner_one_is_left);
    TEST(a_stop_interrupts_what_spins);
    TEST(an_idle_engine_sleeps);
    return check_report();
}
