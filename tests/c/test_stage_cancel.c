/* test_stage_cancel.c: the end of subscriptions: stages.md S30-S32, S43-S46, S127-S140. */
#include "stage_sim.h"

/* Cancel with `text` under `mode`, and let the producer die with it: does the consumer live on? */
static void check_mode(int mode, const char *text, bool lives) {
    for (int down = 0; down < 2; down++) {
        node *source = producer(), *sink = consumer();
        source->on_demand = give_nothing;
        tr_ref tag = subscribe_with(sink, source, 10, 5, mode);
        sim_run();
        forget_traces();
        if (down)
            die(source, because(text));
        else
            cancel(source, tag, text);
        sim_run();
        char expected[128];
        int length = snprintf(expected, sizeof expected, "%s(%s,1) ", down ? "down" : "cancel", text);
        if (!lives) /* S130-S132: told first, then stopped with the raw reason */
            snprintf(expected + length, sizeof expected - (size_t)length, "ends(%s) stop(%s) ", text,
                     text);
        CHECK_TRACE(sink, expected);
        CHECK_EQ(sink->alive, lives);
        CHECK_EQ(source->alive, !down);
        sim_end();
    }
}

static void s127_s132_the_table_of_modes(void) {
    const char *const clean[] = {"normal", "shutdown", "shutdown:done"};
    for (size_t i = 0; i < 3; i++) {
        check_mode(TR_PERMANENT, clean[i], false);
        check_mode(TR_TRANSIENT, clean[i], true);
        check_mode(TR_TEMPORARY, clean[i], true);
    }
    check_mode(TR_PERMANENT, "boom", false);
    check_mode(TR_TRANSIENT, "boom", false);
    check_mode(TR_TEMPORARY, "boom", true);
    check_mode(TR_PERMANENT, "killed", false);
}

static void s135_already_subscribed_stops_nobody(void) {
    check_mode(TR_PERMANENT, "already_subscribed", true);
}

static void s127_the_producing_end(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    tr_ref tag = subscribe_with(sink, source, 10, 5, TR_TEMPORARY);
    sim_run();
    forget_traces();
    cancel(source, tag, "over");
    step(source);
    CHECK_TRACE(source, "cancel(over,2) ");
    CHECK(!tr_stage_find(&source->stage, tag));
    CHECK_EQ(sink->first->kind, CANCELLED);
    cancel(source, tag, "again"); /* S136, S137 */
    step(source);
    CHECK_TRACE(source, "");
    sim_run();
    CHECK_TRACE(sink, "cancel(over,1) ");
    CHECK_EQ(sim.watches_length, 0);
    die(sink, because("boom"));
    sim_run();
    CHECK_TRACE(source, "");
    sim_end();
}

static void emit_three(node *self, tr_outcome *outcome) {
    (void)self;
    outcome->events = numbers(70, 3);
}

static void s130_events_of_handle_cancel_are_dispatched(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    source->on_demand = give_nothing;
    middle->on_cancel = emit_three;
    subscribe(middle, source, 10, 5);
    subscribe(sink, middle, 10, 5);
    sim_run();
    die(source, because("over"));
    forget_traces();
    sim_run();
    CHECK_TRACE(middle, "down(over,1) ends(over) stop(over) ");
    CHECK_TRACE(sink, "70-72 down(over,2) ends(over) stop(over) "); /* S133 */
    sim_end();
}

static void s140_events_of_handle_cancel_do_not_go_to_the_cancelled(void) {
    node *source = producer(), *first = consumer(), *second = consumer();
    source->on_demand = give_nothing;
    source->on_cancel = emit_three;
    tr_ref tag = subscribe_with(first, source, 10, 5, TR_TEMPORARY);
    subscribe(second, source, 2, 0);
    sim_run();
    forget_traces();
    cancel(source, tag, "over");
    sim_run();
    CHECK_TRACE(first, "cancel(over,1) ");
    CHECK_TRACE(second, "70-71 72 ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 0); /* the second has asked again */
    sim_end();
}

static void s134_a_consumer_s_death_leaves_the_producer(void) {
    node *source = producer(), *sink = consumer();
    subscribe(sink, source, 10, 5);
    sim_run_some(6);
    die(sink, because("boom"));
    forget_traces();
    sim_run();
    CHECK(strstr(source->trace, "down(boom,2) "));
    CHECK(source->alive);
    sim_end();
}

static void stop_in_cancel(node *self, tr_outcome *outcome) {
    (void)self;
    outcome->stop = because("own");
}

static void a_stop_of_handle_cancel_comes_first(void) {
    node *source = producer(), *sink = consumer();
    sink->on_cancel = stop_in_cancel;
    subscribe_with(sink, source, 1, 0, TR_TEMPORARY);
    die(source, because("boom"));
    sim_run();
    CHECK_TRACE(sink, "subscribe(producer,1,1) down(boom,1) stop(own) ");
    sim_end();
}

static void s32_subscribing_to_the_dead(void) {
    for (int mode = TR_PERMANENT; mode <= TR_TEMPORARY; mode++) {
        node *source = producer(), *sink = consumer();
        die(source, because("over"));
        subscribe_with(sink, source, 10, 5, mode);
        CHECK(sink->alive);
        sim_run();
        CHECK_BEGINS(sink, "subscribe(producer,1,10) down(noproc,1) ");
        CHECK_EQ(sink->alive, mode == TR_TEMPORARY);
        sim_end();
    }
}

static void s138_a_foreign_down_is_not_the_stage_s(void) {
    node *sink = consumer();
    post_reason(DOWN, FOREIGN_PID, sink->pid, 4711, tr_reason_constant(TR_NORMAL));
    sim_run();
    CHECK_TRACE(sink, "foreign-down ");
    sim_end();
}

/* ---- Resubscribe ---------------------------------------------------------------------------------*/

static void resubscribe(node *self, tr_ref old, const char *text, node *to, uint64_t max) {
    tr_reason *reason = because(text);
    CHECK_EQ(tr_stage_unsubscribe(&self->stage, old, reason), TR_OK);
    tr_reason_release(reason);
    subscribe_with(self, to, max, max / 2, TR_TEMPORARY);
}

static void s43_s46_old_demand_is_credited(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    tr_ref old = subscribe_with(sink, source, 10, 5, TR_TEMPORARY);
    sim_run();
    forget_traces();
    resubscribe(sink, old, "normal", source, 20);
    sim_run();
    CHECK_TRACE(source, "cancel(normal,2) subscribe(consumer,2,20) large(20>10) demand(10) ");
    CHECK_TRACE(sink, "subscribe(producer,1,20) cancel(normal,1) ");
    sim_end();
}

static void s43_the_old_one_is_cancelled_at_its_own_producer(void) {
    node *left = producer(), *right = producer(), *sink = consumer();
    left->on_demand = right->on_demand = give_nothing;
    tr_ref old = subscribe_with(sink, left, 10, 5, TR_TEMPORARY);
    sim_run();
    forget_traces();
    resubscribe(sink, old, "moved", right, 10);
    sim_run();
    CHECK_TRACE(left, "cancel(moved,3) ");
    CHECK_TRACE(right, "subscribe(consumer,3,10) demand(10) ");
    sim_end();
}

static void s44_an_unknown_old_tag_is_ignored(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    resubscribe(sink, 4711, "normal", source, 10);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,2,10) demand(10) ");
    sim_end();
}

static void s45_the_old_mode_decides(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    tr_ref old = subscribe_with(sink, source, 10, 5, TR_PERMANENT);
    sim_run();
    resubscribe(sink, old, "normal", source, 20);
    sim_run();
    CHECK(!sink->alive);
    sim_end();
}

int main(void) {
    RUN(s127_s132_the_table_of_modes);
    RUN(s135_already_subscribed_stops_nobody);
    RUN(s127_the_producing_end);
    RUN(s130_events_of_handle_cancel_are_dispatched);
    RUN(s140_events_of_handle_cancel_do_not_go_to_the_cancelled);
    RUN(s134_a_consumer_s_death_leaves_the_producer);
    RUN(a_stop_of_handle_cancel_comes_first);
    RUN(s32_subscribing_to_the_dead);
    RUN(s138_a_foreign_down_is_not_the_stage_s);
    RUN(s43_s46_old_demand_is_credited);
    RUN(s43_the_old_one_is_cancelled_at_its_own_producer);
    RUN(s44_an_unknown_old_tag_is_ignored);
    RUN(s45_the_old_mode_decides);
    return check_report();
}
