/* bench_core.c: what the core's operations cost by themselves, without an interpreter.
 *
 *   make -C csrc bench
 *
 * Best of five, in nanoseconds per operation. "attached" is the way under an interpreter lock (with
 * hand-off, one core worker, the caller holds the lock), which here costs nothing; "free" is without.
 * The second table is of 1, 2 and 8 workers without an interpreter lock, all busy at once. */
#include <malloc.h>

#include "actors.h"

enum { ROUNDS = 5 };

static tr_engine *engine;
static pthread_mutex_t interpreter = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int64_t handled;
static _Atomic bool done;

static void attach(void *context, void *thread) {
    (void)context, (void)thread;
    pthread_mutex_lock(&interpreter);
}

static void detach(void *context, void *thread) {
    (void)context, (void)thread;
    pthread_mutex_unlock(&interpreter);
}

static void keep(void *context, tr_term term) { (void)context, (void)term; }

static void wait_for_done(bool locked) {
    if (locked) detach(NULL, NULL);
    while (!atomic_load(&done)) pause_a_little();
    if (locked) attach(NULL, NULL);
    atomic_store(&done, false);
}

/* ---- What is measured: each returns how many operations it did ----------------------------------*/

static void count_down(tr_process *self, void *state, tr_message *message) {
    (void)self, (void)state, (void)message;
    if (atomic_fetch_sub_explicit(&handled, 1, memory_order_relaxed) == 1)
        atomic_store(&done, true);
}

static const tr_behaviour counter = {.handle = count_down};

static tr_pid spawn_it(const tr_behaviour *behaviour, void *state) {
    tr_pid pid;
    CHECK_EQ(tr_spawn(engine, &(tr_spawn_options){0}, behaviour, state, &pid, NULL), TR_OK);
    return pid;
}

static uint64_t send_and_handle(bool locked) {
    enum { MESSAGES = 500000 };
    tr_pid pid = spawn_it(&counter, NULL);
    atomic_store(&handled, MESSAGES);
    for (int i = 0; i < MESSAGES; i++) tr_send(engine, pid, TR_MESSAGE_TERM, NULL);
    wait_for_done(locked);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    return MESSAGES;
}

/* The state is the other one's pid. */
static void bounce(tr_process *self, void *state, tr_message *message) {
    (void)self;
    if (message->number == 0) {
        atomic_store(&done, true);
        return;
    }
    tr_message *back = tr_message_new(TR_MESSAGE_USER);
    back->number = message->number - 1;
    tr_send_message(engine, *(tr_pid *)state, back);
}

static const tr_behaviour bouncing = {.handle = bounce};

static uint64_t ping_pong(bool locked) {
    enum { MESSAGES = 300000 };
    tr_pid one, other;
    one = spawn_it(&bouncing, &other);
    other = spawn_it(&bouncing, &one);
    tr_message *first = tr_message_new(TR_MESSAGE_USER);
    first->number = MESSAGES;
    tr_send_message(engine, one, first);
    wait_for_done(locked);
    tr_exit(engine, 0, one, tr_reason_constant(TR_KILL));
    tr_exit(engine, 0, other, tr_reason_constant(TR_KILL));
    return MESSAGES;
}

static void end_at_once(tr_process *self, void *state, tr_message *message) {
    count_down(self, state, message);
    tr_exit_self(self, tr_reason_constant(TR_NORMAL));
}

static const tr_behaviour ending = {.handle = end_at_once};

static uint64_t spawn_and_exit(bool locked) {
    enum { PROCESSES = 100000 };
    tr_pid pid;
    atomic_store(&handled, PROCESSES);
    for (int i = 0; i < PROCESSES; i++) {
        tr_spawn_options options = {.first = tr_message_new(TR_MESSAGE_TERM)};
        CHECK_EQ(tr_spawn(engine, &options, &ending, NULL, &pid, NULL), TR_OK);
    }
    wait_for_done(locked);
    return PROCESSES;
}

static uint64_t start_idle(bool locked) {
    enum { PROCESSES = 100000 };
    tr_pid pid;
    (void)locked;
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_EQ(tr_spawn(engine, &(tr_spawn_options){.enter = true}, &counter, NULL, &pid, NULL),
                 TR_OK);
        tr_leave(engine);
    }
    return PROCESSES;
}

static void answer(tr_process *self, void *state, tr_message *message) {
    (void)self, (void)state;
    tr_reply(engine, message->from, message->ref, (tr_term)&engine);
}

static const tr_behaviour answering = {.handle = answer};

static uint64_t call_from_a_thread(bool locked) {
    enum { CALLS = 20000 };
    tr_process *self = tr_self(engine);
    tr_pid pid = spawn_it(&answering, NULL);
    for (int i = 0; i < CALLS; i++) {
        tr_call_options options = {.kind = TR_MESSAGE_CALL};
        tr_term reply;
        tr_reason *reason;
        CHECK_EQ(tr_call(self, pid, &options), TR_OK);
        if (locked) detach(NULL, NULL);
        CHECK_EQ(tr_call_wait(self, TR_FOREVER), TR_OK);
        if (locked) attach(NULL, NULL);
        tr_call_take(self, &reply, &reason);
    }
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    return CALLS;
}

static uint64_t monitor_and_demonitor(bool locked) {
    enum { MONITORS = 200000 };
    (void)locked;
    tr_pid pid = spawn_it(&counter, NULL);
    for (int i = 0; i < MONITORS; i++) {
        tr_ref ref;
        CHECK_EQ(tr_monitor(tr_self(engine), pid, NULL, &ref), TR_OK);
        CHECK(tr_demonitor(tr_self(engine), ref, false));
    }
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    return MONITORS;
}

static uint64_t timer_and_cancel(bool locked) {
    enum { TIMERS = 200000 };
    (void)locked;
    for (int i = 0; i < TIMERS; i++) {
        tr_timer *timer;
        tr_message *message = tr_message_new(TR_MESSAGE_TERM);
        CHECK_EQ(tr_timer_start(engine, here(engine), NULL, message, in(LIMIT), &timer), TR_OK);
        CHECK(tr_timer_cancel(timer) > 0);
        tr_timer_release(timer);
    }
    return TIMERS;
}

/* ---- Many at once, on several workers -----------------------------------------------------------*/

/* Pairs that play ping-pong. The state is the other one's pid. */
enum { PAIRS = 16, BOUNCES = 40000 };

static void bounce_on(tr_process *self, void *state, tr_message *message) {
    if (message->number > 0) {
        bounce(self, state, message);
    } else if (atomic_fetch_sub(&handled, 1) == 1) {
        atomic_store(&done, true);
    }
}

static const tr_behaviour bouncing_on = {.handle = bounce_on};

static uint64_t many_pairs(bool locked) {
    static tr_pid pairs[PAIRS][2];
    atomic_store(&handled, PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        pairs[i][0] = spawn_it(&bouncing_on, &pairs[i][1]);
        pairs[i][1] = spawn_it(&bouncing_on, &pairs[i][0]);
    }
    for (int i = 0; i < PAIRS; i++) {
        tr_message *first = tr_message_new(TR_MESSAGE_USER);
        first->number = BOUNCES;
        tr_send_message(engine, pairs[i][0], first);
    }
    wait_for_done(locked);
    for (int i = 0; i < 2 * PAIRS; i++)
        tr_exit(engine, 0, pairs[i / 2][i % 2], tr_reason_constant(TR_KILL));
    return PAIRS * (uint64_t)BOUNCES;
}

/* A millisecond of work, on this thread's own clock so that a busy machine does not shorten it. */
static uint64_t thread_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void work_a_millisecond(tr_process *self, void *state, tr_message *message) {
    uint64_t begin = thread_time();
    while (thread_time() - begin < MS) continue;
    end_at_once(self, state, message);
}

static const tr_behaviour working = {.handle = work_a_millisecond};

enum { TASKS = 100 };

static void start_tasks(tr_process *self, void *state, tr_message *message) {
    (void)self, (void)state, (void)message;
    for (int i = 0; i < TASKS; i++) {
        tr_pid pid;
        tr_spawn_options options = {.first = tr_message_new(TR_MESSAGE_TERM)};
        CHECK_EQ(tr_spawn(engine, &options, &working, NULL, &pid, NULL), TR_OK);
    }
    tr_exit_self(self, tr_reason_constant(TR_NORMAL));
}

static const tr_behaviour spawner = {.handle = start_tasks};

static uint64_t tasks_of_one_spawner(bool locked) {
    atomic_store(&handled, TASKS);
    tr_send(engine, spawn_it(&spawner, NULL), TR_MESSAGE_TERM, NULL);
    wait_for_done(locked);
    return TASKS;
}

/* ---- Measuring ----------------------------------------------------------------------------------*/

static uint32_t workers = 1;

static uint64_t once(uint64_t (*work)(bool), bool locked) {
    tr_host host = {.release = keep};
    tr_options options = {.parallel = workers};
    if (locked) {
        host.attach = attach;
        host.detach = detach;
        options.handoff = true;
        options.switch_interval = 5 * MS;
        attach(NULL, NULL);
    }
    engine = tr_engine_new(&options, &host);
    CHECK(engine != NULL);
    here(engine);
    uint64_t begin = tri_clock_monotonic();
    uint64_t count = work(locked), took = tri_clock_monotonic() - begin;
    if (locked) detach(NULL, NULL);
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
    tr_engine_free(engine);
    return took / count;
}

static uint64_t best(uint64_t (*work)(bool), bool locked) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t took = once(work, locked);
        if (took < least) least = took;
    }
    return least;
}

static void row(const char *name, uint64_t (*work)(bool)) {
    printf("%-26s %8llu %8llu\n", name, (unsigned long long)best(work, true),
           (unsigned long long)best(work, false));
}

static void parallel_row(const char *name, uint64_t (*work)(bool)) {
    static const uint32_t counts[] = {1, 2, 8};
    printf("%-26s", name);
    for (int i = 0; i < 3; i++) {
        workers = counts[i];
        printf(" %8llu", (unsigned long long)best(work, false));
    }
    workers = 1;
    printf("\n");
}

static void bytes_per_idle_process(void) {
    enum { PROCESSES = 100 * 1024 };
    engine = tr_engine_new(&(tr_options){0}, &(tr_host){.release = keep});
    here(engine);
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < PROCESSES; i++) {
        tr_pid pid;
        tr_spawn_options options = {.enter = true};
        CHECK_EQ(tr_spawn(engine, &options, &counter, NULL, &pid, NULL), TR_OK);
        tr_leave(engine);
    }
    struct mallinfo2 after = mallinfo2();
    printf("%-26s %8zu\n", "bytes of an idle process",
           (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / PROCESSES);
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
    tr_engine_free(engine);
}

int main(void) {
    printf("%-26s %8s %8s\n", "ns", "attached", "free");
    row("send and handle", send_and_handle);
    row("ping-pong, per message", ping_pong);
    row("spawn and exit", spawn_and_exit);
    row("start an idle process", start_idle);
    row("call from a thread", call_from_a_thread);
    row("monitor and demonitor", monitor_and_demonitor);
    row("timer and cancel", timer_and_cancel);
    bytes_per_idle_process();
    printf("\n%-26s %8u %8u %8u\n", "ns, by workers", 1, 2, 8);
    parallel_row("ping-pong, one pair", ping_pong);
    parallel_row("ping-pong, 16 pairs", many_pairs);
    parallel_row("send from outside", send_and_handle);
    parallel_row("spawn from outside", spawn_and_exit);
    parallel_row("1 ms task of one spawner", tasks_of_one_spawner);
    return 0;
}
