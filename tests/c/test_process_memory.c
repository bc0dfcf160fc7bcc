/* test_process_memory.c: every allocation of the calling thread fails once, in each operation of the
 * process layer that allocates: it answers TR_ENOMEM, what it took over is released, and it works
 * when tried again.
 *
 * malloc and friends are replaced here, which the sanitizers do not allow: with them this program
 * only says so. */
#include "puppet.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

int main(void) {
    printf("1 passed, 0 failed (sanitizers have a malloc of their own: nothing to do)\n");
    return 0;
}

#else

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);

static _Thread_local long until_failure; /* 0: never */
static _Thread_local bool failed;

static bool fails(void) {
    if (until_failure == 0 || --until_failure != 0) return false;
    return failed = true;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }

static tr_engine *engine;
static tr_pid target;

static void hear_nothing(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
}

/* ---- Operations: each gets what it needs while nothing fails, then allocates in the engine ------*/

static void arm(long number) {
    failed = false;
    until_failure = number;
}

static int disarm(int result) {
    until_failure = 0;
    return result;
}

static int spawn_with_everything(long number) {
    actor *state = malloc(sizeof *state);
    *state = (actor){.handle = hear_nothing};
    atomic_fetch_add(&live_actors, 1);
    tr_message *first = tr_message_new(TR_MESSAGE_TERM);
    first->term = term(1);
    tr_spawn_options options = {.link = true, .monitor = true, .name = "name", .first = first};
    tr_pid pid = 0;
    tr_ref ref = 0;
    arm(number);
    int result = disarm(tr_spawn(engine, &options, &handling, state, &pid, &ref));
    CHECK_EQ(tr_whereis(engine, "name"), result == TR_OK ? pid : 0);
    if (result == TR_OK) {
        tr_unlink(tr_self(engine), pid);
        CHECK(tr_demonitor(tr_self(engine), ref, true));
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    }
    return result;
}

static int send_a_term(long number) {
    tr_term what = term(1);
    arm(number);
    return disarm(tr_send(engine, target, TR_MESSAGE_TERM, what));
}

static int link_and_unlink(long number) {
    arm(number);
    int result = disarm(tr_link(tr_self(engine), target));
    CHECK_EQ(tr_process_bonds(engine, target, TR_LINKS, NULL, 0), result == TR_OK);
    tr_unlink(tr_self(engine), target);
    return result;
}

static int monitor_it(long number) {
    tr_ref ref = 0;
    tr_term label = term(1);
    arm(number);
    int result = disarm(tr_monitor(tr_self(engine), target, label, &ref));
    CHECK_EQ(tr_process_bonds(engine, target, TR_MONITORED_BY, NULL, 0), result == TR_OK);
    if (result == TR_OK) CHECK(tr_demonitor(tr_self(engine), ref, true));
    return result;
}

static int name_it(long number) {
    tr_pid holder;
    arm(number);
    int result = disarm(tr_register(engine, "other", target, &holder));
    CHECK_EQ(tr_whereis(engine, "other"), result == TR_OK ? target : 0);
    if (result == TR_OK) CHECK_EQ(tr_unregister(engine, "other"), TR_OK);
    return result;
}

static int call_it(long number) {
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    arm(number);
    int result = disarm(tr_call(tr_self(engine), target, &options));
    if (result == TR_OK) CHECK_EQ(tr_call_cancel(tr_self(engine)), TR_ETIMEDOUT);
    return result;
}

static int set_a_timer(long number) {
    tr_timer *timer;
    tr_message *message = tr_message_new(TR_MESSAGE_TERM);
    message->term = term(1);
    arm(number);
    int result = disarm(tr_timer_start(engine, 0, "other", message, in(LIMIT), &timer));
    if (result == TR_OK) {
        CHECK(tr_timer_cancel(timer) > 0);
        tr_timer_release(timer);
    }
    return result;
}

static int make_an_alias(long number) {
    tr_ref ref = 0;
    arm(number);
    int result = disarm(tr_alias(tr_self(engine), TR_ALIAS_EXPLICIT, &ref));
    CHECK_EQ(tr_unalias(tr_self(engine), ref), result == TR_OK);
    return result;
}

static int make_a_reason(long number) {
    tr_term what = term(1);
    arm(number);
    tr_reason *reason = tr_reason_new(engine, TR_OTHER, what);
    disarm(0);
    tr_reason_release(reason);
    return reason == NULL ? TR_ENOMEM : TR_OK;
}

static int make_an_engine(long number) {
    arm(number);
    tr_engine *made = tr_engine_new(&(tr_options){0}, &plain_host);
    disarm(0);
    if (made == NULL) return TR_ENOMEM;
    CHECK_EQ(tr_engine_stop(made, 0), 0);
    tr_engine_free(made);
    return TR_OK;
}

static void every_allocation_may_fail(void) {
    static int (*const operations[])(long) = {
        spawn_with_everything, send_a_term, link_and_unlink, monitor_it, name_it, call_it,
        set_a_timer, make_an_alias, make_a_reason, make_an_engine};
    engine = engine_new();
    here(engine);
    target = start(engine, &(actor){.handle = hear_nothing});
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        long number = 1;
        for (; operations[i](number) != TR_OK; number++) CHECK(failed);
        CHECK(number > 1);
    }
    engine_end(engine);
}

/* Without memory for a message, whoever would have got one ends: only that needs none. */
static void an_exit_needs_no_memory(void) {
    engine = engine_new();
    here(engine);
    tr_ref ref;
    for (int i = 0; i < 3; i++) {
        static const int kinds[] = {TR_NORMAL, TR_SHUTDOWN, TR_KILL};
        target = start(engine, &(actor){.handle = hear_nothing});
        CHECK_EQ(tr_monitor(tr_self(engine), target, NULL, &ref), TR_OK);
        arm(1);
        tr_exit(engine, here(engine), target, tr_reason_constant(kinds[i]));
        disarm(0);
        CHECK(failed);
        CHECK_EQ(tr_alive(engine, target), kinds[i] == TR_NORMAL);
        CHECK_EQ(tr_demonitor(tr_self(engine), ref, true), kinds[i] == TR_NORMAL);
    }
    engine_end(engine);
}

/* On the worker's thread: lets the allocation of its alarm fail, after which it is stepped again. */
static int nap(tr_process *self, actor *me, uint64_t *deadline) {
    uint64_t *until = me->data;
    if (*until == 0) *until = in(5 * MS);
    if (failed) me->number++;
    if (tr_now(engine) >= *until) {
        tell(engine, me->peer, me->number);
        tr_exit_self(self, tr_reason_constant(TR_NORMAL));
        return TR_STEP_AGAIN;
    }
    if (me->number == 0) arm(1);
    *deadline = *until;
    return TR_STEP_DEADLINE;
}

static void without_memory_for_its_alarm_a_process_looks_itself(void) {
    engine = engine_new();
    uint64_t until = 0;
    start(engine, &(actor){.step = nap, .data = &until, .peer = here(engine)});
    CHECK(take_number(engine, TR_MESSAGE_TERM) > 0);
    CHECK(tr_now(engine) >= until);
    engine_end(engine);
}

int main(void) {
    TEST(every_allocation_may_fail);
    TEST(an_exit_needs_no_memory);
    TEST(without_memory_for_its_alarm_a_process_looks_itself);
    return check_report();
}

#endif
