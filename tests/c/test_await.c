/* test_await.c: what the tasks of event loops wait for: answers, ends, limits, mail; how each is completed
 * once, or cancelled; how the loop is woken. */
#include <poll.h>

#include "engine.h"
#include "puppet.h"
#include "tailrace_loop.h"

static void echo(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->kind == TR_MESSAGE_STOP)
        tr_exit_self(self, tr_reason_retain(message->reason));
    else if (message->kind == TR_MESSAGE_CALL)
        tr_reply(tr_process_engine(self), message->from, message->ref,
                 term(value_of(message->term) + 1));
}

/* What each await is known by. */
typedef struct slot { int times, outcome, kind; int64_t value; } slot;

/* Call `pid`; what comes of it goes to `slot`. */
static int ask_for(tr_engine *engine, tr_loop *loop, tr_pid pid, int64_t value, uint64_t deadline,
                   slot *slot, tr_ref *ref) {
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(value)};
    return tr_await_call(tr_self(engine), loop, pid, &options, deadline, false, slot, ref);
}

static bool is_readable(tr_loop *loop, int milliseconds) {
    struct pollfd watched = {.fd = tr_loop_fd(loop), .events = POLLIN};
    return poll(&watched, 1, milliseconds) == 1;
}

/* Take what has been completed, without waiting; how many. */
static int look(tr_loop *loop) {
    int count = 0;
    for (tr_await *await = tr_loop_take(loop), *next; await != NULL; await = next, count++) {
        slot *slot = await->context;
        next = await->next;
        slot->times++;
        slot->outcome = await->outcome;
        slot->value = await->reply == NULL ? -1 : value_of(await->reply);
        slot->kind = await->reason == NULL ? -1 : tr_reason_kind(await->reason);
        CHECK((await->outcome == TR_AWAIT_REPLY) == (await->reply != NULL));
        tr_await_free(await);
    }
    return count;
}

static void take_some(tr_loop *loop, int count) {
    uint64_t limit = in(LIMIT);
    while (count > 0) {
        CHECK(is_readable(loop, (int)(LIMIT / MS)));
        count -= look(loop);
        CHECK(tri_clock_monotonic() < limit);
    }
    CHECK_EQ(count, 0);
}

/* ---- Answers ------------------------------------------------------------------------------------*/

static void any_number_of_calls_is_under_way(void) {
    enum { CALLS = 1000 };
    static slot slots[CALLS];
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = start(engine, &(actor){.handle = echo});
    tr_ref ref;
    memset(slots, 0, sizeof slots);
    for (int i = 0; i < CALLS; i++)
        CHECK_EQ(ask_for(engine, loop, pid, i, in(LIMIT), &slots[i], &ref), TR_OK);
    take_some(loop, CALLS);
    for (int i = 0; i < CALLS; i++) {
        CHECK_EQ(slots[i].times, 1);
        CHECK_EQ(slots[i].value, i + 1);
    }
    CHECK(mailbox_is_empty(engine));
    CHECK_EQ(tr_process_bonds(engine, pid, TR_MONITORED_BY, NULL, 0), 0);
    tr_loop_release(loop);
    engine_end(engine);
}

static void what_was_completed_first_is_taken_first(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = start(engine, &(actor){.handle = echo});
    slot slots[3] = {0};
    tr_ref ref;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(ask_for(engine, loop, pid, i, TR_FOREVER, &slots[i], &ref), TR_OK);
    ask(engine, pid, NULL); /* it has answered all */
    tr_await *await = tr_loop_take(loop);
    for (int i = 0; i < 3; i++) {
        tr_await *next = await->next;
        CHECK(await->context == &slots[i]);
        tr_await_free(await); /* with its reply, which nobody took */
        await = next;
    }
    CHECK(await == NULL);
    tr_loop_release(loop);
    engine_end(engine);
}

static void the_loop_is_woken_once(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = start(engine, &(actor){.handle = echo});
    slot slots[2] = {0};
    tr_ref ref;
    CHECK(!is_readable(loop, 0));
    for (int i = 0; i < 2; i++)
        CHECK_EQ(ask_for(engine, loop, pid, i, TR_FOREVER, &slots[i], &ref), TR_OK);
    ask(engine, pid, NULL);
    CHECK(is_readable(loop, 0));
    CHECK_EQ(look(loop), 2);
    CHECK(!is_readable(loop, 0));
    CHECK_EQ(look(loop), 0);
    tr_loop_release(loop);
    engine_end(engine);
}

static void nobody_to_call_O109_O110(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = puppet(engine);
    tr_ref ref;
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(ask_for(engine, loop, pid, 1, in(LIMIT), NULL, &ref), TR_EDEAD);
    CHECK_EQ(ask_for(engine, loop, 0, 1, in(LIMIT), NULL, &ref), TR_EDEAD);
    CHECK_EQ(ask_for(engine, loop, here(engine), 1, in(LIMIT), NULL, &ref), TR_ESELF);
    CHECK(!is_readable(loop, 0));
    tr_loop_release(loop);
    engine_end(engine);
}

/* ---- Ends and limits ----------------------------------------------------------------------------*/

static void the_callee_s_end_is_the_answer_O111(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = start(engine, &(actor){.handle = echo});
    slot slot = {0};
    tr_ref ref;
    tr_call_options options = {.kind = TR_MESSAGE_STOP, .reason = reason_of(engine, 4)};
    CHECK_EQ(tr_await_call(tr_self(engine), loop, pid, &options, TR_FOREVER, false, &slot, &ref),
             TR_OK);
    take_some(loop, 1);
    CHECK_EQ(slot.outcome, TR_AWAIT_ENDED);
    CHECK_EQ(slot.kind, TR_OTHER);
    tr_loop_release(loop);
    engine_end(engine);
}

/* Answers a call when the next message comes, and then all it owes, again. */
typedef struct debt { tr_pid to; tr_ref ref; } debt;

static void answer_late(tr_process *self, actor *me, tr_message *message) {
    debt *owed = me->data;
    for (int i = 0; owed->to != 0 && i < 2; i++)
        tr_reply(tr_process_engine(self), owed->to, owed->ref, term(7));
    *owed = (debt){0};
    if (message->kind == TR_MESSAGE_CALL) *owed = (debt){message->from, message->ref};
    else tell(tr_process_engine(self), me->peer, 1);
}

static void a_late_answer_is_dropped_O112_O115(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    debt owed = {0};
    tr_pid pid = start(engine, &(actor){.handle = answer_late, .data = &owed,
                                        .peer = here(engine)});
    slot slot = {0};
    tr_ref ref;
    CHECK_EQ(ask_for(engine, loop, pid, 1, in(MS), &slot, &ref), TR_OK);
    take_some(loop, 1);
    CHECK_EQ(slot.outcome, TR_AWAIT_TIMEOUT);
    CHECK(!tr_await_cancel(engine, ref, &slot));
    tell(engine, pid, 0);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1); /* it has answered, twice */
    CHECK_EQ(look(loop), 0);
    CHECK(mailbox_is_empty(engine));
    tr_loop_release(loop);
    engine_end(engine);
}

static void moments_come_in_their_order(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    slot slots[3] = {0};
    tr_ref refs[3];
    for (int i = 0; i < 2; i++)
        CHECK_EQ(tr_await_sleep(tr_self(engine), loop, in(i == 0 ? LIMIT : MS), &slots[i], &refs[i]),
                 TR_OK);
    CHECK_EQ(tr_await_sleep(tr_self(engine), loop, 0, &slots[2], &refs[2]), TR_OK);
    take_some(loop, 2);
    CHECK_EQ(slots[0].times, 0);
    CHECK_EQ(slots[1].outcome, TR_AWAIT_TIMEOUT);
    CHECK_EQ(slots[2].outcome, TR_AWAIT_TIMEOUT);
    CHECK(tr_await_cancel(engine, refs[0], &slots[0]));
    tr_loop_release(loop);
    engine_end(engine);
}

static void under_virtual_time_only_the_clock_completes_it(void) {
    tr_engine *engine = engine_with((tr_options){.virtual_time = true});
    tr_loop *loop = tr_loop_new(engine);
    slot slots[2] = {0};
    tr_ref ref;
    uint64_t now = tr_now(engine);
    CHECK_EQ(tr_await_sleep(tr_self(engine), loop, now + SECOND, &slots[0], &ref), TR_OK);
    CHECK_EQ(look(loop), 0);
    CHECK_EQ(tr_await_sleep(tr_self(engine), loop, now, &slots[1], &ref), TR_OK);
    CHECK_EQ(look(loop), 1);
    CHECK_EQ(slots[1].times, 1);
    tr_engine_advance(engine, now + SECOND);
    CHECK_EQ(look(loop), 1);
    CHECK_EQ(slots[0].outcome, TR_AWAIT_TIMEOUT);
    tr_loop_release(loop);
    engine_end(engine);
}

/* ---- Giving up ----------------------------------------------------------------------------------*/

static void what_is_given_up_is_not_completed(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    debt owed = {0};
    tr_pid pid = start(engine, &(actor){.handle = answer_late, .data = &owed,
                                        .peer = here(engine)});
    slot slot = {0};
    tr_ref ref;
    CHECK_EQ(ask_for(engine, loop, pid, 1, in(LIMIT), &slot, &ref), TR_OK);
    CHECK(!tr_await_cancel(engine, ref, NULL)); /* somebody else's, of another engine */
    CHECK(tr_await_cancel(engine, ref, &slot));
    CHECK(!tr_await_cancel(engine, ref, &slot));
    tell(engine, pid, 0);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(look(loop), 0);
    CHECK(!is_readable(loop, 0));
    CHECK_EQ(slot.times, 0);
    tr_loop_release(loop);
    engine_end(engine);
}

/* Each is completed or cancelled, never both, never neither. */
static void giving_up_races_with_answer_end_and_limit(void) {
    enum { ROUNDS = 3000 };
    static slot slots[ROUNDS];
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = 0;
    int cancelled = 0;
    memset(slots, 0, sizeof slots);
    for (int i = 0; i < ROUNDS; i++) {
        tr_ref ref;
        uint64_t limit = i % 3 == 0 ? in((uint64_t)(i % 40) * 1000) : in(LIMIT);
        if (pid == 0) pid = start(engine, &(actor){.handle = echo});
        CHECK_EQ(ask_for(engine, loop, pid, i, limit, &slots[i], &ref), TR_OK);
        for (int j = 0; j < i % 50; j++) sched_yield();
        if (i % 5 == 0) {
            tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
            pid = 0;
        }
        if (tr_await_cancel(engine, ref, &slots[i])) {
            slots[i].times += 10;
            cancelled++;
        }
        look(loop);
    }
    look(loop); /* nothing is under way any more */
    for (int i = 0; i < ROUNDS; i++) CHECK(slots[i].times == 1 || slots[i].times == 10);
    CHECK(mailbox_is_empty(engine));
    (void)cancelled; /* as it comes */
    tr_loop_release(loop);
    engine_end(engine);
}

/* ---- The end of who waits -----------------------------------------------------------------------*/

static void keep_silent(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
}

static void a_killed_process_waits_for_nothing_more_O119(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_pid pid = start(engine, &(actor){.handle = keep_silent});
    slot slots[3] = {0};
    tr_ref ref;
    CHECK_EQ(ask_for(engine, loop, pid, 1, in(LIMIT), &slots[0], &ref), TR_OK);
    CHECK_EQ(ask_for(engine, loop, pid, 2, TR_FOREVER, &slots[1], &ref), TR_OK);
    CHECK_EQ(tr_await_sleep(tr_self(engine), loop, TR_FOREVER, &slots[2], &ref), TR_OK);
    tr_exit(engine, 0, here(engine), tr_reason_constant(TR_KILL));
    CHECK_EQ(ask_for(engine, loop, pid, 3, in(LIMIT), NULL, &ref), TR_EKILLED);
    CHECK_EQ(tr_await_sleep(tr_self(engine), loop, in(LIMIT), NULL, &ref), TR_EKILLED);
    take_some(loop, 3);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(slots[i].times, 1);
        CHECK_EQ(slots[i].outcome, TR_AWAIT_KILLED);
        CHECK_EQ(slots[i].kind, TR_KILLED);
    }
    tr_self_renew(engine);
    CHECK_EQ(tr_process_bonds(engine, pid, TR_MONITORED_BY, NULL, 0), 0);
    tr_loop_release(loop);
    engine_end(engine);
}

static void the_engine_s_stop_completes_all(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_process *self = tr_self(engine);
    slot slots[2] = {0};
    tr_ref ref;
    tr_pid pid = start(engine, &(actor){.handle = keep_silent});
    CHECK_EQ(ask_for(engine, loop, pid, 1, TR_FOREVER, &slots[0], &ref), TR_OK);
    CHECK_EQ(tr_await_sleep(self, loop, TR_FOREVER, &slots[1], &ref), TR_OK);
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
    take_some(loop, 2);
    CHECK_EQ(slots[0].outcome, TR_AWAIT_ENDED);
    CHECK(slots[1].outcome == TR_AWAIT_STOPPED || slots[1].outcome == TR_AWAIT_KILLED);
    CHECK(tr_await_sleep(self, loop, TR_FOREVER, &slots[1], &ref) != TR_OK);
    tr_loop_release(loop);
    tr_engine_free(engine);
}

/* ---- Circles ------------------------------------------------------------------------------------*/

/* Calls its peer, alone or not, and does not answer whom it is called by. */
static void call_back(tr_process *self, actor *me, tr_message *message) {
    tr_engine *engine = tr_process_engine(self);
    tr_pid cycle[4] = {0};
    tr_call_options options = {
        .kind = TR_MESSAGE_CALL, .term = term(1), .cycle = cycle, .size = 4};
    slot slot = {0};
    tr_ref ref;
    tr_loop *loop = tr_loop_new(engine);
    int result =
        tr_await_call(self, loop, message->from, &options, TR_FOREVER, me->number != 0, &slot, &ref);
    if (result == TR_EDEADLOCK) {
        CHECK_EQ(options.length, 2);
        CHECK(cycle[0] == tr_process_pid(self) && cycle[1] == message->from);
    } else {
        CHECK(tr_await_cancel(engine, ref, &slot));
    }
    tr_loop_release(loop);
    tr_reply(engine, message->from, message->ref, term(result));
}

static void only_who_waits_alone_closes_a_circle_O110(void) {
    static const int expected[] = {TR_OK, TR_EDEADLOCK};
    tr_engine *engine = engine_new();
    for (int alone = 0; alone < 2; alone++) {
        tr_pid pid = start(engine, &(actor){.handle = call_back, .number = alone});
        tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(0)};
        CHECK_EQ(tr_call(tr_self(engine), pid, &options), TR_OK);
        CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
        tr_term reply;
        tr_reason *reason;
        tr_call_take(tr_self(engine), &reply, &reason);
        CHECK_EQ(value_of(reply), expected[alone]);
        release_term(NULL, reply);
    }
    while (!mailbox_is_empty(engine)) continue; /* the requests that were given up */
    engine_end(engine);
}

/* Awaits, alone, whom it is told about, and does not answer; a term has it give up the last. */
typedef struct waits { slot slot; tr_loop *loop; tr_ref last; } waits;

static void await_alone(tr_process *self, actor *me, tr_message *message) {
    tr_engine *engine = tr_process_engine(self);
    waits *waits = me->data;
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = NULL};
    if (message->kind == TR_MESSAGE_TERM)
        CHECK(tr_await_cancel(engine, waits->last, &waits->slot));
    else if (message->kind == TR_MESSAGE_USER)
        tr_await_call(self, waits->loop, message->from, &options, TR_FOREVER, true,
                      &waits->slot, &waits->last);
    else
        return; /* a request */
    tell(engine, me->peer, 0);
}

/* One that awaits two at a time, as no coroutine should, hides a circle from the search, which must end when
 * it comes to light. */
static void a_circle_of_others_does_not_trap_the_search(void) {
    tr_engine *engine = engine_new();
    waits waits[3] = {0};
    tr_pid pids[3];
    for (int i = 0; i < 3; i++) {
        waits[i].loop = tr_loop_new(engine);
        tr_spawn_options options = {.kind = TR_KIND_ASYNC, .priority = TR_PRIORITY_NORMAL};
        actor model = {.handle = await_alone, .data = &waits[i], .peer = here(engine)};
        CHECK_EQ(spawn(engine, &options, &model, &pids[i], NULL), TR_OK);
    }
    static const int orders[][2] = {{0, 1}, {0, 2}, {1, 0}};
    for (int i = 0; i < 3; i++) {
        order(engine, pids[orders[i][0]], TR_MESSAGE_USER, pids[orders[i][1]], NULL, 0);
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
    }
    tell(engine, pids[0], 0);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    CHECK_EQ(tr_call(tr_self(engine), pids[1], &options), TR_OK);
    CHECK_EQ(tr_call_cancel(tr_self(engine)), TR_ETIMEDOUT);
    for (int i = 0; i < 3; i++) tr_exit(engine, 0, pids[i], tr_reason_constant(TR_KILL));
    for (int i = 0; i < 3; i++) look(waits[i].loop);
    for (int i = 0; i < 3; i++) tr_loop_release(waits[i].loop);
    engine_end(engine);
}

/* ---- Mail ---------------------------------------------------------------------------------------*/

static void the_next_message_wakes_the_loop_once(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_process *self = tr_self(engine);
    CHECK(tr_watch(self, loop));
    CHECK(!tr_loop_has_mail(loop));
    tell(engine, here(engine), 1);
    CHECK(is_readable(loop, 0));
    CHECK_EQ(look(loop), 0);
    CHECK(tr_loop_has_mail(loop));
    CHECK(!tr_loop_has_mail(loop));
    tell(engine, here(engine), 2); /* nobody has asked to be told of it */
    CHECK(!is_readable(loop, 0));
    CHECK(!tr_watch(self, loop)); /* one is there already */
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 2);
    tr_loop_release(loop);
    engine_end(engine);
}

enum { LETTERS = 20000 };

static void send_letters(tr_process *self, actor *me) {
    for (int i = 0; i < LETTERS; i++) tell(tr_process_engine(self), me->peer, i);
}

static void no_message_is_slept_through(void) {
    tr_engine *engine = engine_new();
    tr_loop *loop = tr_loop_new(engine);
    tr_process *self = tr_self(engine);
    start_thread(engine, &(actor){.run = send_letters, .peer = here(engine)});
    for (int next = 0; next < LETTERS;) {
        tr_cursor cursor = {0};
        tr_message *message = tr_receive(self, NULL, NULL, &cursor);
        if (message != NULL) {
            CHECK_EQ(value_of(message->term), next++);
            tr_message_free(engine, message);
        } else if (tr_watch(self, loop)) {
            CHECK(is_readable(loop, (int)(LIMIT / MS)));
            look(loop);
            tr_loop_has_mail(loop);
        }
    }
    tr_loop_release(loop);
    engine_end(engine);
}

/* ---- Many loops ---------------------------------------------------------------------------------*/

static void loops_are_used_again(void) {
    tr_engine *engine = engine_new();
    tr_loop *one = tr_loop_new(engine), *two = tr_loop_new(engine);
    CHECK(one != two && tr_loop_fd(one) != tr_loop_fd(two));
    tr_loop_release(one);
    CHECK(tr_loop_new(engine) == one);
    tr_loop_release(one);
    tr_loop_release(two);
    engine_end(engine);
}

/* A task's life on a loop of its own: calls servers that others kill. */
static void call_many(tr_process *self, actor *me) {
    enum { ROUNDS = 300, CALLS = 10 };
    tr_engine *engine = tr_process_engine(self);
    tr_loop *loop = tr_loop_new(engine);
    for (int i = 0; i < ROUNDS; i++) {
        slot slots[CALLS] = {0};
        int waiting = 0;
        tr_pid pid = start(engine, &(actor){.handle = echo});
        tr_ref refs[CALLS];
        for (int j = 0; j < CALLS; j++)
            if (ask_for(engine, loop, pid, j, j % 4 == 0 ? in(20000) : TR_FOREVER, &slots[j],
                        &refs[j]) == TR_OK)
                waiting++;
        if (i % 3 == 0) tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        if (i % 2 == 0 && tr_await_cancel(engine, refs[5], &slots[5])) waiting--;
        take_some(loop, waiting);
        for (int j = 0; j < CALLS; j++) CHECK(slots[j].times <= 1);
        tr_exit(engine, 0, pid, tr_reason_constant(TR_SHUTDOWN));
    }
    tr_loop_release(loop);
    tell(engine, me->peer, 1);
}

static void many_loops_at_the_same_time(void) {
    enum { LOOPS = 4 };
    tr_engine *engine = engine_new();
    for (int i = 0; i < LOOPS; i++)
        start_thread(engine, &(actor){.run = call_many, .peer = here(engine)});
    for (int i = 0; i < LOOPS; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    engine_end(engine);
}

int main(void) {
    TEST(any_number_of_calls_is_under_way);
    TEST(what_was_completed_first_is_taken_first);
    TEST(the_loop_is_woken_once);
    TEST(nobody_to_call_O109_O110);
    TEST(the_callee_s_end_is_the_answer_O111);
    TEST(a_late_answer_is_dropped_O112_O115);
    TEST(moments_come_in_their_order);
    TEST(under_virtual_time_only_the_clock_completes_it);
    TEST(what_is_given_up_is_not_completed);
    TEST(giving_up_races_with_answer_end_and_limit);
    TEST(a_killed_process_waits_for_nothing_more_O119);
    TEST(the_engine_s_stop_completes_all);
    TEST(only_who_waits_alone_closes_a_circle_O110);
    TEST(a_circle_of_others_does_not_trap_the_search);
    TEST(the_next_message_wakes_the_loop_once);
    TEST(no_message_is_slept_through);
    TEST(loops_are_used_again);
    TEST(many_loops_at_the_same_time);
    return check_report();
}
