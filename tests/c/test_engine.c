/* test_engine.c: an engine's life: lazy start, stop, fork, another one after it. */
#include <sys/wait.h>
#include <unistd.h>

#include "fake_lock.h"
#include "puppet.h"

static tr_engine *engine;
static _Atomic int count;
static _Atomic bool inside, go_on;

static tr_counters counters(void) {
    tr_counters now;
    tr_engine_counters(engine, &now);
    return now;
}

static void count_up(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&count, 1);
}

/* ---- Start --------------------------------------------------------------------------------------*/

static void nothing_is_started_before_there_is_work(void) {
    engine = engine_new();
    CHECK_EQ(counters().threads, 0);
    CHECK_EQ(counters().processes, 0);
    CHECK(tr_self_or_null(engine) == NULL);
    here(engine);
    CHECK_EQ(counters().processes, 1);
    CHECK_EQ(counters().threads, 0);
    tell(engine, start(engine, &(actor){.handle = count_up}), 0);
    EVENTUALLY(counters().threads > 0);
    CHECK(tr_engine_id(engine) != 0);
    engine_end(engine);
    engine = engine_new();
    engine_end(engine); /* one that never ran */
}

static void one_engine_after_the_other(void) {
    uint64_t before = 0;
    for (int i = 0; i < 30; i++) {
        engine = engine_new();
        CHECK(tr_engine_id(engine) != before);
        before = tr_engine_id(engine);
        CHECK(ask(engine, puppet(engine), NULL));
        engine_end(engine);
    }
}

/* ---- Stop ---------------------------------------------------------------------------------------*/

static void a_stop_ends_everything_and_refuses_new_processes(void) {
    engine = engine_new();
    tr_pid pids[50];
    for (int i = 0; i < 50; i++) pids[i] = puppet(engine);
    CHECK(!tr_engine_stopping(engine));
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
    CHECK(tr_engine_stopping(engine));
    for (int i = 0; i < 50; i++) CHECK(!tr_alive(engine, pids[i]));
    CHECK_EQ(counters().processes, 1); /* this thread's */
    CHECK_EQ(counters().threads, 0);
    tr_pid pid;
    CHECK_EQ(spawn(engine, &(tr_spawn_options){0}, &(actor){.handle = count_up}, &pid, NULL),
             TR_ESTOPPED);
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0); /* again: nothing */
    tr_engine_free(engine);
}

static int64_t order_of_ends[100];

static void note_the_end(tr_process *self, actor *me, tr_message *message) {
    CHECK_EQ(message->kind, TR_MESSAGE_EXIT);
    CHECK_EQ(tr_reason_kind(message->reason), TR_SHUTDOWN);
    order_of_ends[atomic_fetch_add(&count, 1)] = me->number;
    tr_exit_self(self, tr_reason_constant(TR_SHUTDOWN));
}

static void trap(tr_process *self, void *state) {
    (void)state;
    tr_trap_exit(self, true);
}

/* Slots are used again, so the order of slots is not that of age. With an interpreter lock, as without one a worker
 * that is held up loses its place, and what it runs comes late. */
static void the_newest_are_ended_first(void) {
    enum { PROCESSES = 60 };
    static const tr_behaviour trapping = {
        .begin = trap, .handle = actor_handle, .release = actor_release};
    engine = locked_engine(0);
    atomic_store(&count, 0);
    for (int i = 0; i < 2000; i++)
        tr_exit(engine, 0, puppet(engine), tr_reason_constant(TR_KILL));
    for (int i = 0; i < PROCESSES; i++) {
        tr_pid pid;
        actor *state = calloc(1, sizeof *state);
        *state = (actor){.handle = note_the_end, .number = i};
        atomic_fetch_add(&live_actors, 1);
        CHECK_EQ(tr_spawn(engine, &(tr_spawn_options){0}, &trapping, state, &pid, NULL), TR_OK);
        tr_info info;
        EVENTUALLY_UNLOCKED(tr_process_info(engine, pid, &info) == TR_OK && info.trap_exit);
    }
    locked_engine_end(engine);
    CHECK_EQ(atomic_load(&count), PROCESSES);
    for (int i = 0; i < PROCESSES; i++) CHECK_EQ(order_of_ends[i], PROCESSES - 1 - i);
}

static void ignore(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
}

static void trap_in(tr_pid pid) {
    tr_process *process = tr_process_acquire(engine, pid);
    tr_trap_exit(process, true);
    tr_process_release(process);
}

static void end_when_asked(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->kind != TR_MESSAGE_EXIT) return;
    atomic_fetch_add(&count, 1);
    tr_exit_self(self, tr_reason_constant(TR_NORMAL));
}

/* Asked to end, it starts a process and a timer, and ends when that fires. */
static void use_the_engine_first(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->kind != TR_MESSAGE_EXIT) {
        tr_exit_self(self, tr_reason_constant(TR_NORMAL));
        return;
    }
    tr_pid other = start(engine, &(actor){.handle = end_when_asked});
    trap_in(other);
    tr_timer *timer;
    CHECK_EQ(tr_timer_start(engine, tr_process_pid(self), NULL, tr_message_new(TR_MESSAGE_USER),
                            tr_now(engine) + MS, &timer), TR_OK);
    tr_timer_release(timer);
}

static void processes_use_the_engine_until_they_end(void) {
    enum { PROCESSES = 20 };
    for (int parallel = 1; parallel <= 4; parallel += 3) {
        engine = engine_with((tr_options){.parallel = parallel});
        atomic_store(&count, 0);
        for (int i = 0; i < PROCESSES; i++) {
            tr_pid pid = start(engine, &(actor){.handle = use_the_engine_first});
            trap_in(pid);
        }
        CHECK_EQ(tr_engine_drain(engine, in(LIMIT)), 0);
        CHECK_EQ(atomic_load(&count), PROCESSES); /* those were asked, when their makers had ended */
        tr_pid pid;
        CHECK_EQ(spawn(engine, &(tr_spawn_options){0}, &(actor){.handle = ignore}, &pid, NULL),
                 TR_ESTOPPED); /* from outside */
        engine_end(engine);
    }
}

static void whoever_ignores_a_stop_is_killed(void) {
    engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = ignore});
    trap_in(pid);
    CHECK_EQ(tr_engine_stop(engine, in(5 * MS)), 0);
    CHECK(!tr_alive(engine, pid));
    tr_engine_free(engine);
}

static void call_another(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->kind == TR_MESSAGE_EXIT) return;
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(0)};
    CHECK_EQ(tr_call(self, (tr_pid)value_of(message->term), &options), TR_OK);
    atomic_fetch_add(&count, 1);
    CHECK_EQ(tr_call_wait(self, TR_FOREVER), TR_EKILLED);
    CHECK_EQ(tr_call_cancel(self), TR_ETIMEDOUT);
}

/* The end of one that is killed first is no answer to another that is next. */
static void who_is_killed_at_the_end_waits_until_then(void) {
    enum { CALLERS = 8, BETWEEN = 2000 };
    tr_pid callers[CALLERS];
    engine = engine_new();
    atomic_store(&count, 0);
    for (int i = 0; i < CALLERS; i++)
        trap_in(callers[i] = start(engine, &(actor){.handle = call_another}));
    for (int i = 0; i < BETWEEN; i++) trap_in(start(engine, &(actor){.handle = ignore}));
    for (int i = 0; i < CALLERS; i++) {
        tr_pid callee = start(engine, &(actor){.handle = ignore});
        trap_in(callee);
        tell(engine, callers[i], (int64_t)callee);
    }
    EVENTUALLY(atomic_load(&count) == CALLERS);
    CHECK_EQ(tr_engine_stop(engine, in(5 * MS)), 0);
    tr_engine_free(engine);
}

static void never_return(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_store(&inside, true);
    EVENTUALLY(atomic_load(&go_on));
}

/* The engine stays for the thread that was left behind, until that has come home after all. */
static void a_callback_that_never_returns_is_left_behind(void) {
    atomic_store(&inside, false);
    atomic_store(&go_on, false);
    engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = never_return});
    tell(engine, pid, 0);
    tell(engine, pid, 1);
    EVENTUALLY(atomic_load(&inside));
    CHECK_EQ(tr_engine_stop(engine, in(5 * MS)), 1);
    CHECK(!tr_alive(engine, pid));
    tr_engine *next = engine_new(); /* meanwhile there can be another one */
    CHECK(ask(next, puppet(next), NULL));
    CHECK_EQ(tr_engine_stop(next, in(LIMIT)), 0);
    tr_engine_free(next);
    atomic_store(&go_on, true);
    EVENTUALLY(counters().threads == 0);
    CHECK_EQ(tr_engine_stop(engine, 0), 0);
    tr_engine_free(engine);
}

static void *stop_too(void *unused) {
    (void)unused;
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
    return NULL;
}

static void several_may_stop_it_at_once(void) {
    pthread_t threads[4];
    engine = engine_with((tr_options){.parallel = 4});
    for (int i = 0; i < 500; i++) puppet(engine);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, stop_too, NULL) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    tr_engine_free(engine);
}

static void *spawn_until_it_stops(void *unused) {
    (void)unused;
    tr_pid pid;
    int result;
    do {
        result = spawn(engine, &(tr_spawn_options){0}, &(actor){.handle = count_up}, &pid, NULL);
        if (result == TR_OK) tell(engine, pid, 0);
    } while (result == TR_OK);
    CHECK_EQ(result, TR_ESTOPPED);
    return NULL;
}

static void a_stop_misses_nobody_who_is_spawned_meanwhile(void) {
    for (int i = 0; i < 10; i++) {
        pthread_t threads[2];
        engine = engine_with((tr_options){.parallel = 2});
        atomic_store(&count, 0);
        for (int j = 0; j < 2; j++)
            CHECK(pthread_create(&threads[j], NULL, spawn_until_it_stops, NULL) == 0);
        EVENTUALLY(atomic_load(&count) > 100);
        CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
        for (int j = 0; j < 2; j++) CHECK(pthread_join(threads[j], NULL) == 0);
        CHECK_EQ(counters().processes, 0);
        tr_engine_free(engine);
    }
}

/* ---- A host whose destructors use the engine ----------------------------------------------------*/

static _Atomic int destroyed;

static void release_and_use(void *context, tr_term what) {
    release_term(context, what);
    atomic_fetch_add(&destroyed, 1);
    tr_process *self = tr_self(engine);
    if (self != NULL) {
        tr_cursor cursor = {0};
        tr_ref ref;
        tr_message_free(engine, tr_receive(self, NULL, NULL, &cursor));
        tr_link(self, tr_process_pid(self));
        if (tr_monitor(self, 0, NULL, &ref) == TR_OK) tr_demonitor(self, ref, true);
        tr_send(engine, tr_process_pid(self), TR_MESSAGE_TERM, NULL);
        tr_call_options options = {.kind = TR_MESSAGE_CALL};
        CHECK(tr_call(self, tr_process_pid(self), &options) != TR_OK);
    }
    tr_pid pid;
    actor model = {.handle = ignore};
    if (atomic_load(&destroyed) % 4 == 0)
        spawn(engine, &(tr_spawn_options){.link = true}, &model, &pid, NULL);
}

static void released_terms_may_use_the_engine(void) {
    tr_host host = {.release = release_and_use};
    atomic_store(&destroyed, 0);
    engine = tr_engine_new(&(tr_options){.parallel = 3}, &host);
    for (int i = 0; i < 300; i++) {
        tr_pid pid = start(engine, &(actor){.handle = ignore});
        for (int j = 0; j < 4; j++) tell(engine, pid, j);
        tr_timer *timer;
        tr_message *message = tr_message_new(TR_MESSAGE_TERM);
        message->term = term(1);
        tr_timer_start(engine, pid, NULL, message, in((uint64_t)i * 10000), &timer);
        tr_timer_release(timer);
        tr_ref ref;
        tr_monitor(tr_self(engine), pid, term(2), &ref);
        tr_demonitor(tr_self(engine), ref, false);
        tr_reason *reason = reason_of(engine, i);
        tr_exit(engine, 0, pid, reason);
    }
    engine_end(engine);
}

/* ---- Fork ---------------------------------------------------------------------------------------*/

#if !defined(__SANITIZE_THREAD__)

static void *work_all_the_time(void *unused) {
    (void)unused;
    while (!atomic_load(&go_on)) {
        tr_pid pid = puppet(engine);
        ask(engine, pid, NULL);
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL)); /* or they fill the table in the end */
    }
    return NULL;
}

static void use_a_dead_engine(void) {
    tr_pid pid;
    tr_timer *timer;
    tr_process *self = tr_self(engine);
    CHECK(self == NULL);
    CHECK_EQ(spawn(engine, &(tr_spawn_options){0}, &(actor){.handle = ignore}, &pid, NULL),
             TR_ESTOPPED);
    CHECK_EQ(tr_send(engine, 1, TR_MESSAGE_TERM, term(1)), TR_ESTOPPED);
    CHECK_EQ(tr_timer_start(engine, 1, NULL, tr_message_new(0), 0, &timer), TR_ESTOPPED);
    CHECK_EQ(tr_engine_stop(engine, 0), 0);
    engine = engine_new(); /* the child's own: it starts no thread here */
    CHECK_EQ(tr_send(engine, here(engine), TR_MESSAGE_TERM, term(4)), TR_OK);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 4);
}

static void a_forked_child_has_a_dead_engine_and_may_have_another(void) {
    engine = engine_with((tr_options){.parallel = 2});
    atomic_store(&go_on, false);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work_all_the_time, NULL) == 0);
    for (int i = 0; i < 20; i++) {
        tr_engine_fork_prepare(engine);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            tr_engine_fork_child(engine);
            use_a_dead_engine();
            _exit(0);
        }
        tr_engine_fork_parent(engine);
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK_EQ(status, 0);
    }
    atomic_store(&go_on, true);
    CHECK(pthread_join(thread, NULL) == 0);
    engine_end(engine);
}

#endif

int main(void) {
    TEST(nothing_is_started_before_there_is_work);
    TEST(one_engine_after_the_other);
    TEST(a_stop_ends_everything_and_refuses_new_processes);
    TEST(the_newest_are_ended_first);
    TEST(processes_use_the_engine_until_they_end);
    TEST(whoever_ignores_a_stop_is_killed);
    TEST(who_is_killed_at_the_end_waits_until_then);
    TEST(a_callback_that_never_returns_is_left_behind);
    TEST(several_may_stop_it_at_once);
    TEST(a_stop_misses_nobody_who_is_spawned_meanwhile);
    TEST(released_terms_may_use_the_engine);
#if !defined(__SANITIZE_THREAD__) /* it knows nothing of the threads that a child does not have */
    TEST(a_forked_child_has_a_dead_engine_and_may_have_another);
#endif
    return check_report();
}
