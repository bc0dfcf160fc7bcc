/* test_timer_api.c: timers of the public API, the ticker and virtual time (O66 to O75). */
#include "engine.h"
#include "puppet.h"

static tr_message *number(int64_t value) {
    tr_message *message = tr_message_new(TR_MESSAGE_TERM);
    CHECK(message != NULL);
    message->term = term(value);
    return message;
}

static tr_timer *timer_to(tr_engine *engine, tr_pid pid, const char *name, int64_t value,
                          uint64_t deadline) {
    tr_timer *timer;
    CHECK_EQ(tr_timer_start(engine, pid, name, number(value), deadline, &timer), TR_OK);
    return timer;
}

static tr_engine *virtual_engine(void) { return engine_with((tr_options){.virtual_time = true}); }

/* ---- Virtual time: everything is exact ----------------------------------------------------------*/

static void a_timer_fires_when_it_is_due_and_not_before_O69(void) {
    tr_engine *engine = virtual_engine();
    tr_timer *timer = timer_to(engine, here(engine), NULL, 5, 10 * MS);
    CHECK_EQ(tr_now(engine), 0);
    tr_engine_advance(engine, 10 * MS - 1);
    CHECK(mailbox_is_empty(engine));
    CHECK_EQ(tr_timer_remaining(timer), 1);
    tr_engine_advance(engine, 10 * MS);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 5);
    CHECK_EQ(tr_timer_remaining(timer), -1); /* O71 */
    CHECK_EQ(tr_timer_cancel(timer), -1);
    tr_timer_release(timer);
    engine_end(engine);
}

static void a_time_in_the_past_fires_at_once_O68(void) {
    tr_engine *engine = virtual_engine();
    tr_engine_advance(engine, SECOND);
    tr_timer_release(timer_to(engine, here(engine), NULL, 1, SECOND));
    tr_timer_release(timer_to(engine, here(engine), NULL, 2, 0));
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 2);
    engine_end(engine);
}

static void a_cancelled_timer_never_fires_O70_O72(void) {
    tr_engine *engine = virtual_engine();
    tr_timer *timer = timer_to(engine, here(engine), NULL, 5, 10 * MS);
    tr_engine_advance(engine, 4 * MS);
    CHECK_EQ(tr_timer_cancel(timer), 6 * MS);
    CHECK_EQ(tr_timer_cancel(timer), -1);
    tr_engine_advance(engine, SECOND);
    CHECK(mailbox_is_empty(engine));
    tr_timer_release(timer);
    engine_end(engine);
}

static void timers_fire_in_the_order_of_their_deadlines(void) {
    enum { TIMERS = 1000 };
    tr_engine *engine = virtual_engine();
    for (int i = 0; i < TIMERS; i++)
        tr_timer_release(timer_to(engine, here(engine), NULL, i * 7 % TIMERS,
                                  (uint64_t)(i * 7 % TIMERS) * MS));
    tr_engine_advance(engine, SECOND);
    for (int i = 0; i < TIMERS; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
    engine_end(engine);
}

static void a_timer_whose_process_ended_is_gone_O67(void) {
    tr_engine *engine = virtual_engine();
    tr_pid pid = puppet(engine);
    tr_timer *one = timer_to(engine, pid, NULL, 1, 10 * MS);
    tr_timer *other = timer_to(engine, pid, NULL, 2, 10 * MS);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(tr_timer_remaining(one), -1);
    CHECK_EQ(tr_timer_cancel(one), -1);
    tr_engine_advance(engine, SECOND);
    tr_timer_release(one);
    tr_timer_release(other);
    engine_end(engine);
}

static void a_name_is_looked_up_when_it_is_due_O66(void) {
    tr_engine *engine = virtual_engine();
    tr_pid holder, pid = puppet(engine);
    CHECK_EQ(tr_register(engine, "later", pid, &holder), TR_OK);
    tr_timer *timer = timer_to(engine, 0, "later", 1, 10 * MS);
    tr_timer *nobody = timer_to(engine, 0, "nobody", 1, 10 * MS);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(tr_register(engine, "later", here(engine), &holder), TR_OK);
    CHECK_EQ(tr_timer_remaining(timer), 10 * MS);
    tr_engine_advance(engine, 10 * MS);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK(mailbox_is_empty(engine));
    tr_timer_release(timer);
    tr_timer_release(nobody);
    engine_end(engine);
}

/* Waits end by the virtual clock, however long they last. */
static void sleep_then_tell(tr_process *self, actor *me) {
    tr_engine *engine = tr_process_engine(self);
    CHECK_EQ(tr_sleep(self, 100 * SECOND), TR_ETIMEDOUT);
    CHECK(tr_now(engine) >= 100 * SECOND);
    CHECK_EQ(tr_wait(self, 200 * SECOND), TR_ETIMEDOUT);
    CHECK(tr_now(engine) >= 200 * SECOND);
    CHECK_EQ(tr_wait(self, 50 * SECOND), TR_ETIMEDOUT); /* passed long ago */
    tr_call_options options = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    CHECK_EQ(tr_call(self, me->peer, &options), TR_OK);
    CHECK_EQ(tr_call_wait(self, 300 * SECOND), TR_ETIMEDOUT);
    CHECK(tr_now(engine) >= 300 * SECOND);
    CHECK_EQ(tr_call_cancel(self), TR_ETIMEDOUT);
    tell(engine, me->peer, 3);
}

static void waits_end_by_the_virtual_clock(void) {
    tr_engine *engine = virtual_engine();
    for (int i = 0; i < 20; i++) {
        start_thread(engine, &(actor){.run = sleep_then_tell, .peer = here(engine)});
    }
    uint64_t now = 0;
    for (int done = 0; done < 20;) {
        tr_cursor cursor = {0};
        tr_engine_advance(engine, now += SECOND);
        tr_message *message = tr_receive(tr_self(engine), NULL, NULL, &cursor);
        if (message != NULL && message->kind == TR_MESSAGE_TERM) done++;
        if (message == NULL) sched_yield();
        tr_message_free(engine, message);
    }
    engine_end(engine);
}

static void tell_and_wait(tr_process *self, actor *me) {
    tr_engine *engine = tr_process_engine(self);
    tell(engine, me->peer, 1);
    CHECK_EQ(tr_wait(self, SECOND), TR_OK);
    tell(engine, me->peer, 2);
    CHECK_EQ(tr_sleep(self, TR_FOREVER), TR_EKILLED);
}

static void a_message_and_an_end_wake_under_virtual_time(void) {
    tr_engine *engine = virtual_engine();
    for (int i = 0; i < 200; i++) {
        tr_pid pid = start_thread(engine, &(actor){.run = tell_and_wait, .peer = here(engine)});
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
        tell(engine, pid, 0);
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 2);
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    }
    engine_end(engine);
}

/* ---- Real time ----------------------------------------------------------------------------------*/

static void real_timers_fire_in_time_and_wake_a_sleeping_ticker(void) {
    tr_engine *engine = engine_new();
    for (int i = 0; i < 3; i++) {
        uint64_t deadline = tr_now(engine) + 3 * MS;
        tr_timer_release(timer_to(engine, here(engine), NULL, i, deadline));
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
        CHECK(tr_now(engine) >= deadline);
        EVENTUALLY(atomic_load(&engine->ticker.asleep));
    }
    /* A sooner one wakes a ticker that sleeps for a later one; one in the past fires at once. */
    tr_timer *late = timer_to(engine, here(engine), NULL, 9, tr_now(engine) + LIMIT);
    tr_timer_release(timer_to(engine, here(engine), NULL, 8, tr_now(engine) + MS));
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 8);
    tr_timer_release(timer_to(engine, here(engine), NULL, 7, 0));
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 7);
    CHECK(tr_timer_remaining(late) > 0);
    tr_timer_release(late); /* pending: it goes with the engine */
    engine_end(engine);
}

static void a_sleep_lasts_and_messages_do_not_end_it(void) {
    tr_engine *engine = engine_new();
    tell(engine, here(engine), 1);
    tr_timer *timer = timer_to(engine, here(engine), NULL, 2, in(2 * MS));
    uint64_t deadline = in(6 * MS);
    CHECK_EQ(tr_sleep(tr_self(engine), deadline), TR_ETIMEDOUT);
    CHECK(tr_now(engine) >= deadline);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 2);
    tr_timer_release(timer);
    engine_end(engine);
}

/* Cancelling races with firing: the message comes, or it does not, and cancel says which. */
static void cancel_races_with_firing(void) {
    tr_engine *engine = engine_new();
    int fired = 0, came = 0;
    for (int i = 0; i < 500; i++) {
        tr_timer *timer = timer_to(engine, here(engine), NULL, i, tr_now(engine) + i * 200);
        if (i % 3 == 0) sched_yield();
        if (tr_timer_cancel(timer) < 0) fired++;
        tr_timer_release(timer);
    }
    for (; came < fired; came++) tr_message_free(engine, take(engine));
    CHECK(mailbox_is_empty(engine));
    engine_end(engine);
}

static void an_engine_stops_while_timers_fire(void) {
    for (int i = 0; i < 20; i++) {
        tr_engine *engine = engine_new();
        tr_pid pid = puppet(engine);
        for (int j = 0; j < 200; j++) {
            tr_timer *timer;
            tr_message *message = tr_message_new(DO_TRAP);
            CHECK_EQ(tr_timer_start(engine, pid, NULL, message, tr_now(engine) + j * 20000, &timer),
                     TR_OK);
            tr_timer_release(timer);
        }
        CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
        tr_timer *timer = NULL;
        CHECK_EQ(tr_timer_start(engine, pid, NULL, number(1), 0, &timer), TR_ESTOPPED);
        tr_engine_free(engine);
    }
}

int main(void) {
    TEST(a_timer_fires_when_it_is_due_and_not_before_O69);
    TEST(a_time_in_the_past_fires_at_once_O68);
    TEST(a_cancelled_timer_never_fires_O70_O72);
    TEST(timers_fire_in_the_order_of_their_deadlines);
    TEST(a_timer_whose_process_ended_is_gone_O67);
    TEST(a_name_is_looked_up_when_it_is_due_O66);
    TEST(waits_end_by_the_virtual_clock);
    TEST(a_message_and_an_end_wake_under_virtual_time);
    TEST(real_timers_fire_in_time_and_wake_a_sleeping_ticker);
    TEST(a_sleep_lasts_and_messages_do_not_end_it);
    TEST(cancel_races_with_firing);
    TEST(an_engine_stops_while_timers_fire);
    return check_report();
}
