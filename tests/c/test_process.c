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

int main(void) {
    TEST(a_process_handles_what_it_is_sent);
    TEST(a_call_is_answered);
    TEST(an_end_is_announced);
    TEST(a_timer_fires);
    TEST(a_function_runs_on_the_elastic_pool);
    return check_report();
}
