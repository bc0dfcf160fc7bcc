/* test_looper.c: the engine's own event loop: who runs on it, what its steps may do, how they are
 * interrupted, how it ends. The host's event loop is a poll of the one descriptor. */
#include <poll.h>

#include "engine.h"
#include "puppet.h"
#include "tailrace_loop.h"

/* ---- A host with an event loop ------------------------------------------------------------------*/

static _Atomic(tr_engine *) looped; /* the engine whose loop run_loop runs */
static _Atomic int loops_begun, loops_ended;
static _Atomic(uintptr_t) loop_thread;
static _Thread_local tr_loop *own_loop;
static _Thread_local _Atomic bool *interrupted;

/* What an await is known by: what the loop does when it is completed. */
typedef struct job job;
struct job { void (*run)(job *job, int outcome); tr_process *process; tr_pid peer; int64_t number; };

static bool is_readable(tr_loop *loop, int milliseconds) {
    struct pollfd watched = {.fd = tr_loop_fd(loop), .events = POLLIN};
    return poll(&watched, 1, milliseconds) == 1;
}

static void run_jobs(tr_await *await) {
    while (await != NULL) {
        tr_await *next = await->next;
        job *job = await->context;
        job->run(job, await->outcome);
        tr_await_free(await);
        await = next;
    }
}

static void run_loop(void *context) {
    (void)context;
    own_loop = tr_loop_new(atomic_load(&looped));
    CHECK(own_loop != NULL);
    atomic_fetch_add(&loops_begun, 1);
    atomic_store(&loop_thread, (uintptr_t)pthread_self());
    tr_loop_adopt(own_loop);
    bool behind = false, over = false;
    while (!over) {
        if (!behind) CHECK(is_readable(own_loop, (int)(LIMIT / MS)));
        run_jobs(tr_loop_take(own_loop));
        over = !tr_loop_run(own_loop);
        behind = tr_loop_is_behind(own_loop);
        CHECK(!tr_loop_is_behind(own_loop));
    }
    run_jobs(tr_loop_take(own_loop));
    tr_loop_abandon(own_loop);
    tr_loop_release(own_loop);
    atomic_fetch_add(&loops_ended, 1);
}

static void *thread_start(void *context) {
    (void)context;
    interrupted = calloc(1, sizeof *interrupted);
    CHECK(interrupted != NULL);
    return (void *)interrupted;
}

static void thread_stop(void *context, void *thread) {
    (void)context;
    free(thread);
}

static int interrupt(void *context, void *thread, int how) {
    (void)context, (void)how;
    atomic_store((_Atomic bool *)thread, true);
    return TR_INTERRUPTED;
}

static void interrupt_clear(void *context, void *thread) {
    (void)context;
    atomic_store((_Atomic bool *)thread, false);
}

static tr_engine *looped_engine(void) {
    static const tr_host host = {.release = release_term, .thread_start = thread_start,
                                 .thread_stop = thread_stop, .interrupt = interrupt,
                                 .interrupt_clear = interrupt_clear, .run_loop = run_loop};
    tr_engine *engine = tr_engine_new(&(tr_options){0}, &host);
    CHECK(engine != NULL);
    atomic_store(&looped, engine);
    atomic_store(&loops_begun, 0);
    atomic_store(&loops_ended, 0);
    return engine;
}

/* Whatever its test did, there was one loop, and it has ended. */
static void looped_engine_end(tr_engine *engine) {
    engine_end(engine);
    CHECK_EQ(atomic_load(&loops_begun), 1);
    CHECK_EQ(atomic_load(&loops_ended), 1);
}

static tr_pid start_on_loop(tr_engine *engine, const actor *model) {
    tr_pid pid = 0;
    tr_spawn_options options = {.kind = TR_KIND_ASYNC, .priority = TR_PRIORITY_NORMAL};
    CHECK_EQ(spawn(engine, &options, model, &pid, NULL), TR_OK);
    return pid;
}

static bool is_on_loop(void) {
    return atomic_load(&loop_thread) == (uintptr_t)pthread_self() && own_loop != NULL;
}

static tr_process *acquire(tr_process *self) {
    tr_process *process = tr_process_acquire(tr_process_engine(self), tr_process_pid(self));
    CHECK(process == self);
    return process;
}

/* ---- Steps --------------------------------------------------------------------------------------*/

/* Takes one message; sends its number, one less, to its peer. */
static int count_down(tr_process *self, actor *me, uint64_t *deadline) {
    tr_engine *engine = tr_process_engine(self);
    tr_cursor cursor = {0};
    (void)deadline;
    CHECK(is_on_loop());
    CHECK(tr_self(engine) == self);
    CHECK(tr_loop_is_inside(own_loop));
    tr_message *message = tr_receive(self, NULL, NULL, &cursor);
    if (message == NULL) return TR_STEP_MESSAGE;
    if (message->kind == TR_MESSAGE_EXIT)
        tr_exit_self(self, tr_reason_constant(TR_NORMAL));
    else
        tell(engine, me->peer, value_of(message->term) - 1);
    tr_message_free(engine, message);
    return TR_STEP_AGAIN;
}

static void all_run_on_the_one_thread(void) {
    enum { PROCESSES = 100 };
    tr_engine *engine = looped_engine();
    tr_pid pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++)
        pids[i] = start_on_loop(engine, &(actor){.step = count_down, .peer = here(engine)});
    for (int i = 0; i < PROCESSES; i++) tell(engine, pids[i], 8);
    for (int i = 0; i < PROCESSES; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 7);
    CHECK(atomic_load(&loop_thread) != (uintptr_t)pthread_self());
    looped_engine_end(engine);
}

/* Two that count down together. All that others write to the descriptor has been written when `told` is set, and
 * read two turns of the loop later. */
enum { TURNS = 20, QUIET = 10 };
static _Atomic bool told;
static tr_pid partners[2];

static int to_and_fro(tr_process *self, actor *me, uint64_t *deadline) {
    tr_engine *engine = tr_process_engine(self);
    tr_cursor cursor = {0};
    (void)deadline;
    tr_message *message = tr_receive(self, NULL, NULL, &cursor);
    if (message == NULL) return TR_STEP_MESSAGE;
    int64_t left = message->kind == TR_MESSAGE_EXIT ? -1 : value_of(message->term);
    tr_message_free(engine, message);
    while (left == TURNS && !atomic_load(&told)) sched_yield();
    if (left < 0)
        tr_exit_self(self, tr_reason_constant(TR_NORMAL));
    else
        tell(engine, left == 0 ? me->peer : partners[left % 2], left - 1);
    if (left > 0 && left <= QUIET) CHECK(!is_readable(own_loop, 0));
    return TR_STEP_AGAIN;
}

static void what_is_left_from_within_is_not_written(void) {
    tr_engine *engine = looped_engine();
    atomic_store(&told, false);
    for (int i = 0; i < 2; i++)
        partners[i] = start_on_loop(engine, &(actor){.step = to_and_fro, .peer = here(engine)});
    tell(engine, partners[1], TURNS);
    atomic_store(&told, true);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), -1);
    looped_engine_end(engine);
}

static _Atomic int seen_new, seen_old, seen_rest;

/* Leaves its mail where it is. */
static int only_look(tr_process *self, actor *me, uint64_t *deadline) {
    (void)me, (void)deadline;
    atomic_fetch_add(tr_mailbox_seen(self) ? &seen_new : &seen_old, 1);
    if (!tr_mailbox_is_empty(self)) atomic_fetch_add(&seen_rest, 1);
    return TR_STEP_MESSAGE;
}

static void mail_that_was_seen_does_not_step_it_again(void) {
    tr_engine *engine = looped_engine();
    tr_info info;
    atomic_store(&seen_new, 0), atomic_store(&seen_old, 0), atomic_store(&seen_rest, 0);
    tr_pid pid = start_on_loop(engine, &(actor){.step = only_look});
    EVENTUALLY(atomic_load(&seen_old) > 0);
    tell(engine, pid, 1);
    EVENTUALLY(atomic_load(&seen_new) == 1 && atomic_load(&seen_rest) > 0);
    EVENTUALLY(tr_process_info(engine, pid, &info) == TR_OK && info.status == TR_STATUS_WAITING);
    int steps = atomic_load(&seen_old);
    CHECK(steps <= 3); /* it may be stepped without a reason */
    tr_process *process = tr_process_acquire(engine, pid);
    tr_step(process); /* as here */
    EVENTUALLY(atomic_load(&seen_old) > steps);
    CHECK_EQ(atomic_load(&seen_new), 1);
    tr_process_release(process);
    looped_engine_end(engine);
}

/* ---- Between steps ------------------------------------------------------------------------------*/

static job the_job;

/* When it is told, it waits for a moment of its own, which runs the job. */
static int begin_job(tr_process *self, actor *me, uint64_t *deadline) {
    tr_cursor cursor = {0};
    tr_ref ref;
    (void)me, (void)deadline;
    tr_message *message = tr_receive(self, NULL, NULL, &cursor);
    if (message == NULL) return TR_STEP_MESSAGE;
    tr_message_free(tr_process_engine(self), message);
    the_job.process = acquire(self);
    CHECK_EQ(tr_await_sleep(self, own_loop, in(MS), &the_job, &ref), TR_OK);
    return TR_STEP_DEADLINE;
}

static void be_the_process(job *job, int outcome) {
    tr_process *process = job->process;
    tr_engine *engine = tr_process_engine(process);
    CHECK_EQ(outcome, TR_AWAIT_TIMEOUT);
    CHECK(!tr_loop_is_inside(own_loop));
    tr_loop_attribute(own_loop, process); /* a callback that is no step */
    CHECK(tr_self(engine) == process);
    tr_loop_attribute(own_loop, NULL);
    tr_loop_step before = tr_loop_enter(own_loop, process, NULL), within;
    tr_process *as;
    CHECK(before.as == NULL && tr_self(engine) == process && tr_loop_is_inside(own_loop));
    as = tr_process_acquire(engine, job->peer);
    within = tr_loop_enter(own_loop, process, as);
    CHECK(within.process == process && within.as == process);
    CHECK(tr_self(engine) == as);
    tr_loop_leave(own_loop, process, within);
    tr_process_release(as);
    CHECK(tr_self(engine) == process);
    tell(engine, job->peer, 1);
    tr_exit_self(process, tr_reason_constant(TR_SHUTDOWN));
    tr_loop_leave(own_loop, process, before);
    CHECK(!tr_loop_is_inside(own_loop));
    tr_process_release(process);
}

static void between_enter_and_leave_it_is_the_process(void) {
    tr_engine *engine = looped_engine();
    the_job = (job){.run = be_the_process, .peer = here(engine)};
    tr_pid pid = start_on_loop(engine, &(actor){.step = begin_job});
    tr_ref ref = watch(engine, pid);
    tell(engine, pid, 0);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_SHUTDOWN);
    EVENTUALLY(atomic_load(&live_actors) == 0);
    looped_engine_end(engine);
}

/* ---- Kills --------------------------------------------------------------------------------------*/

static void spin_until_interrupted(void) {
    while (!atomic_load(interrupted)) sched_yield();
    atomic_store(interrupted, false); /* it arrived */
}

static _Atomic bool spins;

static int spin(tr_process *self, actor *me, uint64_t *deadline) {
    (void)self, (void)me, (void)deadline;
    atomic_store(&spins, true);
    spin_until_interrupted();
    return TR_STEP_AGAIN;
}

static void a_step_that_does_not_end_is_interrupted_O43(void) {
    tr_engine *engine = looped_engine();
    for (int i = 0; i < 3; i++) {
        atomic_store(&spins, false);
        tr_pid pid = start_on_loop(engine, &(actor){.step = spin});
        EVENTUALLY(atomic_load(&spins));
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        CHECK(!tr_alive(engine, pid));
        EVENTUALLY(atomic_load(&live_actors) == 0);
    }
    EVENTUALLY(atomic_load(&engine->scheduler.marked) == 0);
    tr_pid next = start_on_loop(engine, &(actor){.step = count_down, .peer = here(engine)});
    tell(engine, next, 3);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 2);
    looped_engine_end(engine);
}

/* What is left of a dead process cleans up, and does not end. */
static void clean_up(job *job, int outcome) {
    tr_process *process = job->process;
    tr_engine *engine = tr_process_engine(process);
    CHECK_EQ(outcome, TR_AWAIT_KILLED);
    CHECK(tr_process_is_dead(process));
    tr_loop_step before = tr_loop_enter(own_loop, process, NULL);
    spin_until_interrupted();
    tr_loop_leave(own_loop, process, before);
    CHECK(!atomic_load(interrupted));
    tr_process_release(process);
    tell(engine, job->peer, 1);
}

static int wait_for_ever(tr_process *self, actor *me, uint64_t *deadline) {
    tr_ref ref;
    (void)deadline;
    if (me->number == 0) {
        me->number = 1;
        the_job.process = acquire(self);
        CHECK_EQ(tr_await_sleep(self, own_loop, TR_FOREVER, &the_job, &ref), TR_OK);
        tell(tr_process_engine(self), the_job.peer, 0);
    }
    return TR_STEP_DEADLINE;
}

static void the_cleanup_of_a_dead_process_is_interrupted(void) {
    tr_engine *engine = looped_engine();
    the_job = (job){.run = clean_up, .peer = here(engine)};
    tr_pid pid = start_on_loop(engine, &(actor){.step = wait_for_ever});
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    EVENTUALLY(atomic_load(&live_actors) == 0);
    looped_engine_end(engine);
}

/* ---- The end ------------------------------------------------------------------------------------*/

static void kill_some(tr_process *self, actor *me) {
    enum { ROUNDS = 2000 };
    tr_engine *engine = tr_process_engine(self);
    for (int i = 0; i < ROUNDS; i++) {
        tr_pid pid = start_on_loop(engine, &(actor){.step = count_down, .peer = me->peer});
        tell(engine, pid, 1);
        if (i % 2 == 0) tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    }
    tell(engine, me->peer, 100);
}

static void processes_come_and_go_from_all_sides(void) {
    enum { THREADS = 3 };
    tr_engine *engine = looped_engine();
    for (int i = 0; i < THREADS; i++)
        start_thread(engine, &(actor){.run = kill_some, .peer = here(engine)});
    for (int ended = 0, answered = 0; ended < THREADS || answered < THREADS * 1000;) {
        if (take_number(engine, TR_MESSAGE_TERM) == 100) ended++;
        else answered++;
    }
    looped_engine_end(engine);
}

static void a_stop_ends_what_rests_and_then_the_loop(void) {
    for (int i = 0; i < 20; i++) {
        tr_engine *engine = looped_engine();
        start_on_loop(engine, &(actor){.step = count_down, .peer = here(engine)});
        tr_pid pid = start_on_loop(engine, &(actor){.step = only_look});
        tell(engine, pid, 1);
        looped_engine_end(engine);
        CHECK_EQ(atomic_load(&live_actors), 0);
    }
}

int main(void) {
    TEST(all_run_on_the_one_thread);
    TEST(what_is_left_from_within_is_not_written);
    TEST(mail_that_was_seen_does_not_step_it_again);
    TEST(between_enter_and_leave_it_is_the_process);
    TEST(a_step_that_does_not_end_is_interrupted_O43);
    TEST(the_cleanup_of_a_dead_process_is_interrupted);
    TEST(processes_come_and_go_from_all_sides);
    TEST(a_stop_ends_what_rests_and_then_the_loop);
    return check_report();
}
