/* test_call.c: a request and its one answer (O108 to O116, O119), and circles of calls. */
#include "puppet.h"

static void echo(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->kind == TR_MESSAGE_STOP)
        tr_exit_self(self, tr_reason_retain(message->reason));
    else
        tr_reply(tr_process_engine(self), message->from, message->ref,
                 term(value_of(message->term) + 1));
}

static int begin(tr_engine *engine, tr_pid pid, int64_t value) {
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(value)};
    return tr_call(tr_self(engine), pid, &options);
}

/* What came: the number of the answer, or minus one and the reason's kind. */
static int64_t taken(tr_engine *engine, int *kind) {
    tr_term reply;
    tr_reason *reason;
    tr_call_take(tr_self(engine), &reply, &reason);
    CHECK((reply == NULL) != (reason == NULL));
    int64_t value = reply == NULL ? -1 : value_of(reply);
    if (reply != NULL) release_term(NULL, reply);
    if (kind != NULL) *kind = reason == NULL ? -1 : tr_reason_kind(reason);
    tr_reason_release(reason);
    return value;
}

static void calls_are_answered_one_after_the_other_O108(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = echo});
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(begin(engine, pid, i), TR_OK);
        CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
        CHECK_EQ(taken(engine, NULL), i + 1);
    }
    CHECK_EQ(tr_process_bonds(engine, pid, TR_MONITORED_BY, NULL, 0), 0);
    engine_end(engine);
}

static void nobody_to_call_O109_O110(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = puppet(engine);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(begin(engine, pid, 1), TR_EDEAD);
    CHECK_EQ(begin(engine, 0, 1), TR_EDEAD);
    CHECK_EQ(begin(engine, here(engine), 1), TR_ESELF);
    CHECK_EQ(tr_call_cancel(tr_self(engine)), TR_ETIMEDOUT); /* there is none: no harm */
    engine_end(engine);
}

static void end_with(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    tr_exit_self(self, tr_reason_constant((int)me->number));
}

static void the_callee_s_end_is_the_answer_O111(void) {
    static const int kinds[] = {TR_NORMAL, TR_SHUTDOWN, TR_KILL};
    tr_engine *engine = engine_new();
    int kind;
    for (int i = 0; i < 3; i++) {
        tr_pid pid = start(engine, &(actor){.handle = end_with, .number = kinds[i]});
        CHECK_EQ(begin(engine, pid, 1), TR_OK);
        CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
        CHECK_EQ(taken(engine, &kind), -1);
        CHECK_EQ(kind, kinds[i]);
    }
    tr_pid pid = start(engine, &(actor){.handle = obey, .peer = here(engine)});
    order(engine, pid, DO_EXIT, pid, tr_reason_constant(TR_KILL), 0);
    if (begin(engine, pid, 1) == TR_OK) {
        CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
        CHECK_EQ(taken(engine, &kind), -1);
        CHECK_EQ(kind, TR_KILLED);
    }
    CHECK(mailbox_is_empty(engine));
    engine_end(engine);
}

static void a_stop_is_answered_by_the_end(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = start(engine, &(actor){.handle = echo});
    tr_call_options options = {.kind = TR_MESSAGE_STOP, .reason = reason_of(engine, 4)};
    CHECK_EQ(tr_call(tr_self(engine), pid, &options), TR_OK);
    CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
    int kind;
    CHECK_EQ(taken(engine, &kind), -1);
    CHECK_EQ(kind, TR_OTHER);
    engine_end(engine);
}

/* Answers each call only when the next message comes, and all it owes several times. */
typedef struct debt { tr_pid to; tr_ref ref; } debt;

static void answer_late(tr_process *self, actor *me, tr_message *message) {
    debt *owed = me->data;
    for (int i = 0; owed->to != 0 && i < 3; i++)
        tr_reply(tr_process_engine(self), owed->to, owed->ref, term(-5));
    *owed = (debt){0};
    if (message->kind == TR_MESSAGE_CALL) *owed = (debt){message->from, message->ref};
    else tell(tr_process_engine(self), me->peer, 1);
}

static void a_late_answer_is_dropped_before_the_mailbox_O112_O114_O115(void) {
    tr_engine *engine = engine_new();
    debt owed = {0};
    tr_pid late = start(engine, &(actor){.handle = answer_late, .data = &owed,
                                         .peer = here(engine)});
    tr_pid prompt = start(engine, &(actor){.handle = echo});
    CHECK_EQ(begin(engine, late, 1), TR_OK);
    CHECK_EQ(tr_call_wait(tr_self(engine), in(0)), TR_ETIMEDOUT);
    CHECK_EQ(tr_call_cancel(tr_self(engine)), TR_ETIMEDOUT);
    CHECK_EQ(begin(engine, prompt, 10), TR_OK); /* the next call must not get it */
    tell(engine, late, 0);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
    CHECK_EQ(taken(engine, NULL), 11);
    CHECK(mailbox_is_empty(engine));
    CHECK(tr_alive(engine, late));
    engine_end(engine);
}

static void giving_up_races_with_the_answer(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    tr_pid pid = start(engine, &(actor){.handle = echo});
    int answered = 0;
    for (int i = 0; i < 3000; i++) {
        CHECK_EQ(begin(engine, pid, i), TR_OK);
        for (int j = 0; j < i % 50; j++) sched_yield();
        if (tr_call_cancel(self) != TR_OK) continue;
        CHECK_EQ(taken(engine, NULL), i + 1);
        answered++;
    }
    CHECK(mailbox_is_empty(engine));
    (void)answered; /* as it comes */
    engine_end(engine);
}

static void a_call_sleeps_through_other_messages_O116(void) {
    enum { OTHERS = 1000 };
    tr_engine *engine = engine_new();
    debt owed = {0};
    tr_pid pid = start(engine, &(actor){.handle = answer_late, .data = &owed,
                                        .peer = here(engine)});
    CHECK_EQ(begin(engine, pid, 1), TR_OK);
    for (int i = 0; i < OTHERS; i++) tell(engine, here(engine), i);
    CHECK_EQ(tr_call_wait(tr_self(engine), in(20 * MS)), TR_ETIMEDOUT);
    tell(engine, pid, 0);
    CHECK_EQ(tr_call_wait(tr_self(engine), in(LIMIT)), TR_OK);
    CHECK_EQ(taken(engine, NULL), -5);
    for (int i = 0; i < OTHERS; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    engine_end(engine);
}

/* ---- A caller that dies -------------------------------------------------------------------------*/

static void call_and_wait(tr_process *self, actor *me) {
    CHECK_EQ(begin(tr_process_engine(self), me->peer, 1), TR_OK);
    CHECK_EQ(tr_call_wait(self, TR_FOREVER), TR_EKILLED);
}

static void remember(tr_process *self, actor *me, tr_message *message) {
    (void)self;
    *(debt *)me->data = (debt){message->from, message->ref};
    tell(tr_process_engine(self), me->peer, 0);
}

/* The answer to a dead caller is released, and is not the next one's of its slot. */
static void an_answer_to_a_dead_caller_is_released_O119(void) {
    tr_engine *engine = engine_new();
    debt owed = {0};
    tr_pid pid = start(engine, &(actor){.handle = remember, .data = &owed, .peer = here(engine)});
    for (int i = 0; i < 50; i++) {
        tr_pid caller = start_thread(engine, &(actor){.run = call_and_wait, .peer = pid});
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
        tr_exit(engine, 0, caller, tr_reason_constant(TR_KILL));
        tr_reply(engine, owed.to, owed.ref, term(99));
    }
    engine_end(engine);
}

/* ---- Circles ------------------------------------------------------------------------------------*/

typedef struct ring { tr_engine *engine; tr_pid members[8]; int size; _Atomic int results[8]; } ring;

/* Each calls the next; the last one closes the circle. */
static void call_the_next(tr_process *self, actor *me, tr_message *message) {
    ring *ring = me->data;
    tr_pid cycle[8] = {0};
    int i = (int)me->number;
    tr_call_options options = {
        .kind = TR_MESSAGE_CALL, .term = term(i), .cycle = cycle, .size = 8};
    int result = tr_call(self, ring->members[(i + 1) % ring->size], &options);
    if (result == TR_EDEADLOCK) {
        CHECK_EQ(options.length, ring->size);
        for (int j = 0; j < ring->size; j++)
            CHECK_EQ(cycle[j], ring->members[(i + j) % ring->size]);
    } else if (result == TR_OK) {
        result = tr_call_wait(self, in(LIMIT));
        int64_t value = taken(ring->engine, NULL);
        CHECK(value == 7 || value == -1);
    }
    atomic_store(&ring->results[i], result);
    if (message->kind == TR_MESSAGE_CALL)
        tr_reply(ring->engine, message->from, message->ref, term(7));
}

static void the_last_call_of_a_circle_is_refused_O110(void) {
    for (int size = 2; size <= 8; size++) {
        ring ring = {.engine = engine_new(), .size = size};
        for (int i = 0; i < size; i++) {
            ring.members[i] = start(ring.engine, &(actor){.handle = call_the_next, .data = &ring,
                                                          .number = i});
            atomic_store(&ring.results[i], 100);
        }
        tell(ring.engine, ring.members[0], 0);
        int refused = 0;
        for (int i = 0; i < size; i++) {
            EVENTUALLY(atomic_load(&ring.results[i]) != 100);
            refused += atomic_load(&ring.results[i]) == TR_EDEADLOCK;
        }
        CHECK_EQ(refused, 1);
        engine_end(ring.engine);
    }
}

/* A process that starts another one inside its callback cannot answer it meanwhile. */
static void start_one_that_calls_us(tr_process *self, actor *me, tr_message *message) {
    tr_engine *engine = tr_process_engine(self);
    tr_pid pid, outer = tr_process_pid(self), cycle[4];
    (void)message;
    CHECK_EQ(spawn(engine, &(tr_spawn_options){.enter = true}, &(actor){.handle = echo}, &pid,
                   NULL), TR_OK);
    tr_call_options options = {
        .kind = TR_MESSAGE_CALL, .term = term(1), .cycle = cycle, .size = 4};
    CHECK_EQ(tr_call(tr_self(engine), outer, &options), TR_EDEADLOCK);
    CHECK_EQ(options.length, 2);
    CHECK(cycle[0] == pid && cycle[1] == outer);
    tr_leave(engine);
    tell(engine, me->peer, 1);
}

static void the_starter_cannot_be_called_by_whom_it_starts(void) {
    tr_engine *engine = engine_new();
    tell(engine, start(engine, &(actor){.handle = start_one_that_calls_us, .peer = here(engine)}),
         0);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    engine_end(engine);
}

int main(void) {
    TEST(calls_are_answered_one_after_the_other_O108);
    TEST(nobody_to_call_O109_O110);
    TEST(the_callee_s_end_is_the_answer_O111);
    TEST(a_stop_is_answered_by_the_end);
    TEST(a_late_answer_is_dropped_before_the_mailbox_O112_O114_O115);
    TEST(giving_up_races_with_the_answer);
    TEST(a_call_sleeps_through_other_messages_O116);
    TEST(an_answer_to_a_dead_caller_is_released_O119);
    TEST(the_last_call_of_a_circle_is_refused_O110);
    TEST(the_starter_cannot_be_called_by_whom_it_starts);
    return check_report();
}
