/* test_step.c: processes that are stepped: what each step waits for, deadlines, ends, and no wake-up that
 * is lost when messages, answers, deadlines and ends come at the same time. */
#include "alarm.h"
#include "engine.h"
#include "puppet.h"

static _Atomic int steps;

static void count_step(void) { atomic_fetch_add(&steps, 1); }

/* The number in the oldest message of this kind, or -1. */
static bool is_term(const tr_message *message, void *wanted) {
    return message->kind == TR_MESSAGE_TERM &&
           (wanted == NULL || value_of(message->term) == *(int64_t *)wanted);
}

static int64_t find(tr_process *self, int64_t *wanted) {
    tr_cursor cursor = {0};
    tr_message *message = tr_receive(self, is_term, wanted, &cursor);
    int64_t value = message == NULL ? -1 : value_of(message->term);
    tr_message_free(tr_process_engine(self), message);
    return value;
}

/* ---- Messages -----------------------------------------------------------------------------------*/

/* Waits for the message that says me->number, one after the other; tells its peer each. */
static int in_order(tr_process *self, actor *me, uint64_t *deadline) {
    (void)deadline;
    count_step();
    if (find(self, &me->number) < 0) return TR_STEP_MESSAGE;
    tell(tr_process_engine(self), me->peer, me->number++);
    return TR_STEP_AGAIN;
}

static void it_takes_the_messages_that_it_wants_and_leaves_the_others_O22(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.step = in_order, .peer = here(engine), .number = 1});
    tell(engine, pid, 3);
    tell(engine, pid, 2);
    tell(engine, pid, 1);
    for (int i = 1; i <= 3; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
    engine_end(engine);
}

static bool is_waiting(tr_engine *engine, tr_pid pid) {
    tr_info info;
    CHECK_EQ(tr_process_info(engine, pid, &info), TR_OK);
    return info.status == TR_STATUS_WAITING;
}

static void a_message_that_it_leaves_does_not_step_it_again_O26(void) {
    tr_engine *engine = engine_new();
    atomic_store(&steps, 0);
    tr_pid pid = start(engine, &(actor){.step = in_order, .peer = here(engine), .number = 1});
    tell(engine, pid, 5);
    EVENTUALLY(is_waiting(engine, pid) && atomic_load(&steps) > 0);
    int seen = atomic_load(&steps);
    CHECK(seen <= 2);
    for (int i = 0; i < 20; i++) pause_a_little();
    CHECK(atomic_load(&steps) <= 2);
    tell(engine, pid, 1);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    engine_end(engine);
}

/* ---- Answers ------------------------------------------------------------------------------------*/

static void answer_when_told(tr_process *self, actor *me, tr_message *message) {
    tr_engine *engine = tr_process_engine(self);
    tr_message *debt = me->data;
    if (message->kind == TR_MESSAGE_CALL) {
        debt->from = message->from;
        debt->ref = message->ref;
        tell(engine, me->peer, 0);
    } else if (value_of(message->term) < 0) {
        tr_exit_self(self, tr_reason_constant(TR_SHUTDOWN));
    } else {
        tr_reply(engine, debt->from, debt->ref, term(value_of(message->term)));
    }
}

/* Calls me->number, tells its peer what came. */
static int one_call(tr_process *self, actor *me, uint64_t *deadline) {
    count_step();
    tr_engine *engine = tr_process_engine(self);
    if (me->data == NULL) {
        tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
        CHECK_EQ(tr_call(self, (tr_pid)me->number, &options), TR_OK);
        me->data = me;
    }
    *deadline = in(LIMIT);
    if (!tr_call_answered(self)) return TR_STEP_ANSWER;
    tr_term reply;
    tr_reason *reason;
    tr_call_take(self, &reply, &reason);
    tell(engine, me->peer, reply != NULL ? value_of(reply) : -1 - tr_reason_kind(reason));
    if (reply != NULL) release_term(NULL, reply);
    tr_reason_release(reason);
    tr_exit_self(self, tr_reason_constant(TR_NORMAL));
    return TR_STEP_AGAIN;
}

static void an_answer_steps_it_and_messages_do_not_O116(void) {
    tr_engine *engine = engine_new();
    tr_message debt = {0};
    tr_pid callee = start(engine, &(actor){.handle = answer_when_told, .data = &debt,
                                           .peer = here(engine)});
    atomic_store(&steps, 0);
    tr_pid pid = start(engine, &(actor){.step = one_call, .peer = here(engine),
                                        .number = (int64_t)callee});
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
    EVENTUALLY(is_waiting(engine, pid));
    for (int i = 0; i < 100; i++) tell(engine, pid, i);
    tell(engine, callee, 42);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 42);
    CHECK_EQ(atomic_load(&steps), 2);
    engine_end(engine);
}

static void the_end_of_the_callee_steps_it_O111(void) {
    tr_engine *engine = engine_new();
    tr_message debt = {0};
    tr_pid callee = start(engine, &(actor){.handle = answer_when_told, .data = &debt,
                                           .peer = here(engine)});
    start(engine, &(actor){.step = one_call, .peer = here(engine), .number = (int64_t)callee});
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
    tell(engine, callee, -1);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), -1 - TR_SHUTDOWN);
    engine_end(engine);
}

/* ---- Deadlines ----------------------------------------------------------------------------------*/

/* Sleeps, now longer and now shorter than before, so that its alarm is left and is set anew; tells when it
 * overslept (1), woke too early for good (0) or is done (2). */
static int sleeper(tr_process *self, actor *me, uint64_t *deadline) {
    static const uint64_t naps[] = {1, 5, 2, 3, 1, 1, 4};
    tr_engine *engine = tr_process_engine(self);
    uint64_t *until = me->data;
    uint64_t now = tr_now(engine);
    if (*until != 0 && now < *until) {
        *deadline = *until;
        return me->number % 2 == 0 ? TR_STEP_DEADLINE : TR_STEP_MESSAGE;
    }
    if (me->number == (int64_t)(sizeof naps / sizeof *naps)) {
        tell(engine, me->peer, (int64_t)now);
        tr_exit_self(self, tr_reason_constant(TR_NORMAL));
        return TR_STEP_AGAIN;
    }
    *until = *deadline = now + naps[me->number++] * MS;
    return me->number % 2 == 0 ? TR_STEP_DEADLINE : TR_STEP_MESSAGE;
}

static void it_is_stepped_at_its_deadline(void) {
    tr_engine *engine = engine_new();
    uint64_t until = 0, began = tr_now(engine);
    start(engine, &(actor){.step = sleeper, .peer = here(engine), .data = &until});
    CHECK(take_number(engine, TR_MESSAGE_TERM) >= (int64_t)(began + 17 * MS));
    engine_end(engine);
}

static void under_virtual_time_too(void) {
    tr_engine *engine = engine_with((tr_options){.virtual_time = true});
    uint64_t until = 0;
    start(engine, &(actor){.step = sleeper, .peer = here(engine), .data = &until});
    tr_cursor cursor = {0};
    tr_message *message = NULL;
    for (uint64_t now = 0; message == NULL; now += MS / 4) {
        tr_engine_advance(engine, now);
        pause_a_little();
        message = tr_receive(tr_self(engine), NULL, NULL, &cursor);
    }
    CHECK(value_of(message->term) >= (int64_t)(17 * MS));
    tr_message_free(engine, message);
    engine_end(engine);
}

/* Waits for a message with a limit that is never reached; me->number counts what came. */
static int patient(tr_process *self, actor *me, uint64_t *deadline) {
    if (find(self, NULL) >= 0) {
        tell(tr_process_engine(self), me->peer, ++me->number);
        return TR_STEP_AGAIN;
    }
    *deadline = in(LIMIT + (uint64_t)me->number * MS);
    return TR_STEP_MESSAGE;
}

static void an_alarm_that_is_not_needed_yet_stays_where_it_is(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.step = patient, .peer = here(engine)});
    uint64_t first = 0;
    for (int i = 1; i <= 100; i++) {
        tell(engine, pid, 1);
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
        EVENTUALLY(is_waiting(engine, pid));
        tr_process *process = tri_acquire(engine, pid);
        tri_alarm *alarm = atomic_load(&process->alarm);
        CHECK(atomic_load(&alarm->set));
        if (first == 0) first = alarm->node.deadline;
        CHECK_EQ(alarm->node.deadline, first);
        tri_release(process);
    }
    engine_end(engine);
}

static void a_process_that_is_gone_leaves_no_alarm(void) {
    tr_engine *engine = engine_new();
    for (int i = 0; i < 20; i++) {
        tr_pid pid = start(engine, &(actor){.step = patient, .peer = here(engine)});
        EVENTUALLY(is_waiting(engine, pid));
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        CHECK_EQ(wait_for_end(engine, pid), TR_NOPROC);
    }
    EVENTUALLY(atomic_load(&live_actors) == 0);
    pthread_mutex_lock(&engine->ticker.lock);
    CHECK_EQ(tri_wheel_next(&engine->ticker.wheel), UINT64_MAX);
    pthread_mutex_unlock(&engine->ticker.lock);
    engine_end(engine);
}

/* ---- Turns and ends -----------------------------------------------------------------------------*/

/* Never waits; ends when its peer has had its turn. */
static int busy(tr_process *self, actor *me, uint64_t *deadline) {
    (void)deadline;
    if (atomic_load((_Atomic int *)me->data) != 0) tr_exit_self(self, tr_reason_constant(TR_NORMAL));
    return TR_STEP_AGAIN;
}

static int raise_flag(tr_process *self, actor *me, uint64_t *deadline) {
    (void)deadline;
    atomic_store((_Atomic int *)me->data, 1);
    tr_exit_self(self, tr_reason_constant(TR_NORMAL));
    return TR_STEP_AGAIN;
}

static void one_that_never_waits_lets_others_run_O84(void) {
    tr_engine *engine = engine_with((tr_options){.parallel = 1});
    _Atomic int flag = 0;
    tr_pid first = start(engine, &(actor){.step = busy, .data = &flag});
    tr_pid second = start(engine, &(actor){.step = busy, .data = &flag});
    start(engine, &(actor){.step = raise_flag, .data = &flag});
    wait_for_end(engine, first);
    wait_for_end(engine, second);
    engine_end(engine);
}

static int forever(tr_process *self, actor *me, uint64_t *deadline) {
    (void)self;
    *deadline = me->number % 2 == 0 ? TR_FOREVER : in(LIMIT);
    return me->number / 2 == 0 ? TR_STEP_MESSAGE : TR_STEP_DEADLINE;
}

static void whatever_it_waits_for_it_can_be_ended(void) {
    tr_engine *engine = engine_new();
    for (int round = 0; round < 100; round++) {
        tr_pid pid = start(engine, &(actor){.step = forever, .number = round % 4});
        if (round % 8 < 4) EVENTUALLY(is_waiting(engine, pid));
        tr_ref ref = watch(engine, pid);
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_KILLED);
    }
    EVENTUALLY(atomic_load(&live_actors) == 0);
    engine_end(engine);
}

/* ---- Everything at once -------------------------------------------------------------------------*/

enum { PLAYERS = 16, BALLS = 2000 };

static void echo(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->kind == TR_MESSAGE_CALL)
        tr_reply(tr_process_engine(self), message->from, message->ref, term(1));
}

typedef struct player {
    tr_pid echo;
    int taken;
    bool calling;
    uint64_t until;
} player;

/* For each message it gets, it calls the echo, with limits that are often reached. */
static int play(tr_process *self, actor *me, uint64_t *deadline) {
    player *player = me->data;
    tr_engine *engine = tr_process_engine(self);
    *deadline = player->until;
    if (player->calling) {
        tr_term reply = NULL;
        tr_reason *reason = NULL;
        bool late = tr_now(engine) >= player->until;
        if (!tr_call_answered(self) && !late) return TR_STEP_ANSWER;
        if (tr_call_answered(self) || tr_call_cancel(self) == TR_OK)
            tr_call_take(self, &reply, &reason);
        if (reply != NULL) release_term(NULL, reply);
        tr_reason_release(reason);
        player->calling = false;
        if (++player->taken == BALLS) {
            tell(engine, me->peer, 1);
            tr_exit_self(self, tr_reason_constant(TR_NORMAL));
        }
        return TR_STEP_AGAIN;
    }
    if (find(self, NULL) < 0) {
        *deadline = in(MS / 10); /* rings for nothing, now and then */
        return TR_STEP_MESSAGE;
    }
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    int result = tr_call(self, player->echo, &options);
    if (result == TR_EKILLED) return TR_STEP_AGAIN;
    CHECK_EQ(result, TR_OK);
    player->until = *deadline = in((uint64_t)(player->taken % 4) * 20000);
    player->calling = true;
    return TR_STEP_ANSWER;
}

static void no_wake_up_is_lost(void) {
    tr_engine *engine = engine_with((tr_options){.parallel = 4});
    tr_pid server = start(engine, &(actor){.handle = echo}), pids[PLAYERS];
    player players[PLAYERS] = {0};
    for (int i = 0; i < PLAYERS; i++) {
        players[i].echo = server;
        pids[i] = start(engine, &(actor){.step = play, .peer = here(engine), .data = &players[i]});
    }
    for (int ball = 0; ball < BALLS; ball++)
        for (int i = 0; i < PLAYERS; i++) tell(engine, pids[i], ball);
    for (int i = 0; i < PLAYERS; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    engine_end(engine);
}

static void ends_and_alarms_cross(void) {
    tr_engine *engine = engine_with((tr_options){.parallel = 4});
    tr_pid server = start(engine, &(actor){.handle = echo});
    enum { ROUNDS = 2000 };
    static player players[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        players[round] = (player){.echo = server};
        tr_pid pid = start(engine, &(actor){.step = play, .peer = here(engine),
                                            .data = &players[round]});
        for (int ball = 0; ball < round % 5; ball++) tell(engine, pid, ball);
        if (round % 3 == 0) sched_yield();
        tr_ref ref = watch(engine, pid);
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_KILLED);
    }
    engine_end(engine);
}

int main(void) {
    TEST(it_takes_the_messages_that_it_wants_and_leaves_the_others_O22);
    TEST(a_message_that_it_leaves_does_not_step_it_again_O26);
    TEST(an_answer_steps_it_and_messages_do_not_O116);
    TEST(the_end_of_the_callee_steps_it_O111);
    TEST(it_is_stepped_at_its_deadline);
    TEST(under_virtual_time_too);
    TEST(an_alarm_that_is_not_needed_yet_stays_where_it_is);
    TEST(a_process_that_is_gone_leaves_no_alarm);
    TEST(one_that_never_waits_lets_others_run_O84);
    TEST(whatever_it_waits_for_it_can_be_ended);
    TEST(no_wake_up_is_lost);
    TEST(ends_and_alarms_cross);
    return check_report();
}
