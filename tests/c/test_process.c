/* test_process.c: spawning, pids, messages and names (O1 to O25, O61 to O65). */
#include "actors.h"

/* ---- The first steps: everything once -----------------------------------------------------------*/

static void echo(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    tr_engine *engine = tr_process_engine(self);
    if (message->kind == TR_MESSAGE_CALL) {
        tr_reply(engine, message->from, message->ref, term(value_of(message->term) + 1));
    } else if (message->kind == TR_MESSAGE_STOP) {
        tr_exit_self(self, tr_reason_retain(message->reason));
    } else {
        tr_send(engine, me->peer, TR_MESSAGE_TERM, message->term);
        message->term = NULL;
    }
}

static void a_process_handles_what_it_is_sent(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = echo, .peer = here(engine)});
    tell(engine, pid, 42);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 42);
    engine_end(engine);
}

static void a_call_is_answered(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    tr_pid pid = start(engine, &(actor){.handle = echo});
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    CHECK_EQ(tr_call(self, pid, &options), TR_OK);
    CHECK_EQ(tr_call_wait(self, in(LIMIT)), TR_OK);
    tr_term reply;
    tr_reason *reason;
    tr_call_take(self, &reply, &reason);
    CHECK(reason == NULL);
    CHECK_EQ(value_of(reply), 2);
    release_term(NULL, reply);
    engine_end(engine);
}

static void an_end_is_announced(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = echo});
    tr_exit(engine, here(engine), pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(wait_for_end(engine, pid), TR_NOPROC);
    CHECK(!tr_alive(engine, pid));
    engine_end(engine);
}

static void a_timer_fires(void) {
    tr_engine *engine = engine_new();
    tr_message *message = tr_message_new(TR_MESSAGE_TERM);
    message->term = term(7);
    tr_timer *timer;
    CHECK_EQ(tr_timer_start(engine, here(engine), NULL, message, in(2 * MS), &timer), TR_OK);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 7);
    tr_timer_release(timer);
    engine_end(engine);
}

static void answer_peer(tr_process *self, actor *me) {
    tell(tr_process_engine(self), me->peer, me->number);
}

static void a_function_runs_on_the_elastic_pool(void) {
    tr_engine *engine = engine_new();
    start_thread(engine, &(actor){.run = answer_peer, .peer = here(engine), .number = 9});
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 9);
    engine_end(engine);
}

/* ---- Spawn and pids -----------------------------------------------------------------------------*/

static void hear_nothing(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
}

static void a_fresh_process_has_nothing_of_its_maker_O9(void) {
    tr_engine *engine = engine_new();
    tr_trap_exit(tr_self(engine), true);
    tr_pid holder, pid;
    CHECK_EQ(tr_register(engine, "maker", here(engine), &holder), TR_OK);
    pid = start(engine, &(actor){.handle = hear_nothing});
    tr_info info;
    CHECK_EQ(tr_process_info(engine, pid, &info), TR_OK);
    CHECK_EQ(info.pid, pid);
    CHECK_EQ(info.parent, 0);
    CHECK_EQ(info.priority, TR_PRIORITY_NORMAL);
    CHECK(!info.trap_exit && info.name[0] == 0 && info.message_queue_len == 0);
    CHECK_EQ(tr_process_bonds(engine, pid, TR_LINKS, NULL, 0), 0);
    engine_end(engine);
}

static void a_pid_is_never_used_twice_O11(void) {
    enum { ROUNDS = 5000 };
    tr_engine *engine = engine_new();
    tr_pid first = 0, last = 0, me = here(engine);
    for (int i = 0; i < ROUNDS; i++) {
        tr_pid pid = start(engine, &(actor){.handle = hear_nothing});
        CHECK(pid != first && pid != last && pid != me && pid != 0);
        if (first == 0) first = pid;
        last = pid;
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        CHECK_EQ(tr_send(engine, first, TR_MESSAGE_TERM, term(1)), TR_EDEAD);
        CHECK(!tr_alive(engine, first));
    }
    /* The slots were used again, or there would be a chunk for each thousand. */
    tr_counters counters;
    EVENTUALLY((tr_engine_counters(engine, &counters), counters.processes == 1));
    CHECK_EQ(counters.spawned, ROUNDS + 1);
    engine_end(engine);
}

/* Pids that were never given out, or of slots in use under another generation. */
static void a_made_up_pid_is_nobody(void) {
    tr_engine *engine = engine_new();
    here(engine);
    tr_pid pid = start(engine, &(actor){.handle = hear_nothing});
    tr_pid wrong[] = {0, 1, pid + 1, pid + (UINT64_C(1) << 32), pid | 0x7fffffff, UINT64_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(!tr_alive(engine, wrong[i]));
        CHECK_EQ(tr_send(engine, wrong[i], TR_MESSAGE_TERM, term(1)), TR_EDEAD);
        CHECK_EQ(tr_link(tr_self(engine), wrong[i]), TR_EDEAD);
        tr_exit(engine, 0, wrong[i], tr_reason_constant(TR_KILL));
    }
    CHECK(tr_alive(engine, pid));
    engine_end(engine);
}

static void the_limit_of_processes_is_an_error_of_the_spawner_O16(void) {
    enum { MOST = 100 };
    tr_engine *engine = engine_with((tr_options){.max_processes = MOST});
    tr_pid pids[MOST], pid;
    here(engine);
    for (int i = 0; i < MOST - 1; i++) pids[i] = start(engine, &(actor){.handle = hear_nothing});
    actor model = {.handle = hear_nothing};
    CHECK_EQ(spawn(engine, &(tr_spawn_options){.name = "extra"}, &model, &pid, NULL), TR_ELIMIT);
    CHECK_EQ(tr_whereis(engine, "extra"), 0);
    tr_exit(engine, 0, pids[7], tr_reason_constant(TR_KILL));
    tr_counters counters;
    EVENTUALLY((tr_engine_counters(engine, &counters), counters.processes == MOST - 1));
    CHECK_EQ(spawn(engine, &(tr_spawn_options){.name = "extra"}, &model, &pid, NULL), TR_OK);
    CHECK_EQ(tr_whereis(engine, "extra"), pid);
    engine_end(engine);
}

static void all_processes_are_listed_O15(void) {
    enum { PROCESSES = 1500 };
    tr_engine *engine = engine_new();
    for (int i = 0; i < PROCESSES; i++) start(engine, &(actor){.handle = hear_nothing});
    static tr_pid pids[PROCESSES + 10];
    CHECK_EQ(tr_processes(engine, pids, PROCESSES + 10), PROCESSES);
    for (int i = 0; i < PROCESSES; i++) CHECK(tr_alive(engine, pids[i]));
    CHECK_EQ(tr_processes(engine, NULL, 0), PROCESSES);
    engine_end(engine);
}

/* What is in the mailbox from the start comes before what anybody could send. */
static void tell_all(tr_process *self, actor *me, tr_message *message) {
    tell(tr_process_engine(self), me->peer, value_of(message->term));
}

static void the_first_message_is_first(void) {
    tr_engine *engine = engine_new();
    tr_message *first = tr_message_new(TR_MESSAGE_TERM);
    first->term = term(0);
    tr_pid pid;
    actor model = {.handle = tell_all, .peer = here(engine)};
    tr_spawn_options options = {.name = "known", .first = first};
    CHECK_EQ(spawn(engine, &options, &model, &pid, NULL), TR_OK);
    for (int i = 1; i < 100; i++) tell(engine, tr_whereis(engine, "known"), i);
    for (int i = 0; i < 100; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
    engine_end(engine);
}

/* ---- Entered processes --------------------------------------------------------------------------*/

/* Whoever enters a process is it until it leaves; what is sent meanwhile waits. */
static void an_entered_process_runs_on_the_caller_s_thread(void) {
    tr_engine *engine = engine_new();
    tr_pid me = here(engine), pid, inner;
    tr_spawn_options options = {.enter = true, .link = true, .monitor = true, .name = "entered"};
    tr_ref ref;
    actor model = {.handle = tell_all, .peer = me};
    CHECK_EQ(spawn(engine, &options, &model, &pid, &ref), TR_OK);
    CHECK_EQ(here(engine), pid);
    CHECK_EQ(tr_process_parent(tr_self(engine)), me);
    tell(engine, pid, 1);
    CHECK_EQ(spawn(engine, &(tr_spawn_options){.enter = true}, &model, &inner, NULL), TR_OK);
    CHECK_EQ(here(engine), inner);
    tr_leave(engine);
    CHECK_EQ(here(engine), pid);
    CHECK(tr_process_info(engine, pid, &(tr_info){0}) == TR_OK);
    tr_leave(engine);
    CHECK_EQ(here(engine), me);
    tr_leave(engine); /* one's own process cannot be left */
    CHECK_EQ(here(engine), me);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    tr_unlink(tr_self(engine), pid);
    tr_demonitor(tr_self(engine), ref, true);
    engine_end(engine);
}

static void an_entered_process_may_end_or_be_killed_before_it_is_left(void) {
    tr_engine *engine = engine_new();
    actor model = {.handle = hear_nothing};
    for (int killed = 0; killed < 2; killed++) {
        tr_pid pid;
        tr_ref ref;
        tr_spawn_options options = {.enter = true, .monitor = true};
        CHECK_EQ(spawn(engine, &options, &model, &pid, &ref), TR_OK);
        tell(engine, pid, 1);
        if (killed) tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        else tr_exit_self(tr_self(engine), tr_reason_constant(TR_SHUTDOWN));
        CHECK(tr_process_is_dead(tr_self(engine)));
        CHECK_EQ(here(engine), pid);
        tr_leave(engine);
        CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL),
                 killed ? TR_KILLED : TR_SHUTDOWN);
    }
    engine_end(engine);
}

/* ---- Messages -----------------------------------------------------------------------------------*/

static void push_two_to_the_front(tr_process *self, actor *me, tr_message *message) {
    int64_t value = value_of(message->term);
    if (value == 0) {
        for (int i = 2; i > 0; i--) {
            tr_message *ahead = tr_message_new(TR_MESSAGE_TERM);
            ahead->term = term(i);
            tr_push_front(self, ahead);
        }
    }
    tell(tr_process_engine(self), me->peer, value);
}

static void what_is_pushed_to_the_front_is_handled_next_O124(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = push_two_to_the_front, .peer = here(engine)});
    tell(engine, pid, 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
    engine_end(engine);
}

static void a_queue_that_nobody_reads_is_counted_O13_O78(void) {
    tr_engine *engine = engine_new();
    tr_info info;
    for (int i = 0; i < 7; i++) tell(engine, here(engine), i);
    CHECK_EQ(tr_process_info(engine, here(engine), &info), TR_OK);
    CHECK_EQ(info.message_queue_len, 7);
    CHECK_EQ(info.kind, TR_KIND_THREAD_OWN);
    CHECK_EQ(info.status, TR_STATUS_RUNNING);
    for (int i = 0; i < 7; i++) take_number(engine, TR_MESSAGE_TERM);
    tr_pid pid = start(engine, &(actor){.handle = tell_all, .peer = here(engine)});
    for (int i = 0; i < 5; i++) tell(engine, pid, i);
    for (int i = 0; i < 5; i++) take_number(engine, TR_MESSAGE_TERM);
    EVENTUALLY(tr_process_info(engine, pid, &info) == TR_OK && info.reductions == 5);
    EVENTUALLY(tr_process_info(engine, pid, &info) == TR_OK && info.status == TR_STATUS_WAITING);
    engine_end(engine);
}

static void a_wait_ends_in_time_and_with_any_message_O23(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    CHECK_EQ(tr_wait(self, 0), TR_ETIMEDOUT);
    uint64_t limit = in(3 * MS);
    CHECK_EQ(tr_wait(self, limit), TR_ETIMEDOUT);
    CHECK(tri_clock_monotonic() >= limit);
    tell(engine, here(engine), 1);
    CHECK_EQ(tr_wait(self, 0), TR_OK); /* what is there wins over the limit */
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    tr_exit(engine, 0, here(engine), tr_reason_constant(TR_KILL));
    CHECK_EQ(tr_wait(self, TR_FOREVER), TR_EKILLED);
    engine_end(engine);
}

/* ---- Names --------------------------------------------------------------------------------------*/

static void a_name_has_one_holder_and_a_process_one_name_O61_O63(void) {
    tr_engine *engine = engine_new();
    tr_pid one = start(engine, &(actor){.handle = hear_nothing}), holder;
    tr_pid other = start(engine, &(actor){.handle = hear_nothing});
    char name[8];
    CHECK_EQ(tr_whereis(engine, "a"), 0);
    CHECK_EQ(tr_unregister(engine, "a"), TR_EDEAD);
    CHECK_EQ(tr_register(engine, "a", one, &holder), TR_OK);
    CHECK_EQ(tr_whereis(engine, "a"), one);
    CHECK_EQ(tr_register(engine, "a", other, &holder), TR_ENAME);
    CHECK_EQ(holder, one);
    CHECK_EQ(tr_register(engine, "b", one, &holder), TR_ENAME);
    CHECK_EQ(holder, 0);
    CHECK(tr_name_of(engine, one, name, sizeof name) && strcmp(name, "a") == 0);
    CHECK(!tr_name_of(engine, other, name, sizeof name));
    tr_pid pid;
    actor model = {.handle = hear_nothing};
    CHECK_EQ(spawn(engine, &(tr_spawn_options){.name = "a"}, &model, &pid, NULL), TR_ENAME);
    CHECK_EQ(pid, one);
    CHECK_EQ(tr_unregister(engine, "a"), TR_OK);
    CHECK_EQ(tr_register(engine, "b", one, &holder), TR_OK);
    tr_exit(engine, 0, one, tr_reason_constant(TR_KILL));
    CHECK_EQ(tr_whereis(engine, "b"), 0); /* O64 */
    CHECK_EQ(tr_register(engine, "b", one, &holder), TR_EDEAD);
    CHECK_EQ(tr_register(engine, "b", other, &holder), TR_OK);
    engine_end(engine);
}

static void note_name(void *context, const char *name, tr_pid pid) {
    (void)pid;
    CHECK(strncmp(name, "name", 4) == 0);
    ((char *)context)[atoi(name + 4)]++;
}

static void all_names_are_listed_O63(void) {
    enum { NAMES = 1000 };
    tr_engine *engine = engine_new();
    char name[16], seen[NAMES] = {0};
    for (int i = 0; i < NAMES; i++) {
        tr_pid pid, holder;
        snprintf(name, sizeof name, "name%d", i);
        pid = start(engine, &(actor){.handle = hear_nothing});
        CHECK_EQ(tr_register(engine, name, pid, &holder), TR_OK);
        if (i % 2 == 0) tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    }
    tr_registered(engine, note_name, seen);
    for (int i = 0; i < NAMES; i++) CHECK_EQ(seen[i], i % 2);
    engine_end(engine);
}

typedef struct race { tr_engine *engine; _Atomic int ready, won; } race;

static void *take_the_name(void *context) {
    race *race = context;
    tr_pid pid = start(race->engine, &(actor){.handle = hear_nothing}), holder;
    atomic_fetch_add(&race->ready, 1);
    EVENTUALLY(atomic_load(&race->ready) == 4);
    int result = tr_register(race->engine, "prize", pid, &holder);
    CHECK(result == TR_OK || (result == TR_ENAME && holder != 0));
    if (result == TR_OK) atomic_fetch_add(&race->won, 1);
    return NULL;
}

static void of_several_who_want_a_name_one_gets_it_O62(void) {
    for (int i = 0; i < 30; i++) {
        race race = {.engine = engine_new()};
        pthread_t threads[4];
        for (int j = 0; j < 4; j++)
            CHECK(pthread_create(&threads[j], NULL, take_the_name, &race) == 0);
        for (int j = 0; j < 4; j++) CHECK(pthread_join(threads[j], NULL) == 0);
        CHECK_EQ(atomic_load(&race.won), 1);
        engine_end(race.engine);
    }
}

int main(void) {
    TEST(a_process_handles_what_it_is_sent);
    TEST(a_call_is_answered);
    TEST(an_end_is_announced);
    TEST(a_timer_fires);
    TEST(a_function_runs_on_the_elastic_pool);
    TEST(a_fresh_process_has_nothing_of_its_maker_O9);
    TEST(a_pid_is_never_used_twice_O11);
    TEST(a_made_up_pid_is_nobody);
    TEST(the_limit_of_processes_is_an_error_of_the_spawner_O16);
    TEST(all_processes_are_listed_O15);
    TEST(the_first_message_is_first);
    TEST(an_entered_process_runs_on_the_caller_s_thread);
    TEST(an_entered_process_may_end_or_be_killed_before_it_is_left);
    TEST(what_is_pushed_to_the_front_is_handled_next_O124);
    TEST(a_queue_that_nobody_reads_is_counted_O13_O78);
    TEST(a_wait_ends_in_time_and_with_any_message_O23);
    TEST(a_name_has_one_holder_and_a_process_one_name_O61_O63);
    TEST(all_names_are_listed_O63);
    TEST(of_several_who_want_a_name_one_gets_it_O62);
    return check_report();
}
