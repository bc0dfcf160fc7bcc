/* test_stage.c: subscribing, the arithmetic of demand, producing, accumulate mode: stages.md S20-S66,
 * S71-S75, S94-S107. Cancellation is in test_stage_cancel.c, ProducerConsumers in
 * test_stage_middle.c, dispatchers in test_dispatcher.c. */
#include "stage_sim.h"

/* A counting producer and a consumer that asks max, min; both traces begin as expected. */
static void check_demand(uint64_t max, uint64_t min, const char *batches, const char *demands) {
    node *source = producer(), *sink = consumer();
    subscribe(sink, source, max, min);
    forget_traces();
    sim_run_some(60);
    char expected[512];
    snprintf(expected, sizeof expected, "subscribe(consumer,2,%d) %s", (int)max, demands);
    CHECK_BEGINS(source, expected);
    CHECK_BEGINS(sink, batches);
    sim_end();
}

static void s20_s22_order_of_subscribing(void) {
    node *source = producer(), *sink = consumer();
    tr_ref tag = subscribe(sink, source, 10, 5);
    CHECK_TRACE(sink, "subscribe(producer,1,10) ");
    CHECK_EQ(source->first->kind, SUBSCRIBE);
    CHECK_EQ(source->first->next->kind, ASK);
    CHECK_EQ(source->first->next->count, 10);
    CHECK(tr_stage_find(&sink->stage, tag)->tag == tag);
    sim_run_some(1);
    CHECK_TRACE(source, "subscribe(consumer,2,10) ");
    CHECK(tr_stage_find(&source->stage, tag)->tag == tag);
    sim_end();
}

static void s26_handle_subscribe_may_stop(void) {
    node *source = producer(), *sink = consumer();
    sink->stop_on_subscribe = "enough";
    subscribe(sink, source, 10, 5);
    CHECK_TRACE(sink, "subscribe(producer,1,10) stop(enough) ");
    source->stop_on_subscribe = "closed";
    node *other = consumer();
    subscribe_with(other, source, 10, 5, TR_TEMPORARY);
    sim_run();
    CHECK(!source->alive && other->alive);
    sim_end();
}

static void s27_s28_many_subscriptions(void) {
    node *left = producer(), *right = producer(), *sink = consumer();
    right->next_event = 100;
    left->on_demand = right->on_demand = give_nothing;
    tr_ref tags[] = {subscribe(sink, left, 4, 2), subscribe(sink, right, 2, 1),
                     subscribe(sink, left, 2, 0)};
    CHECK(tags[0] != tags[2]);
    sim_run();
    forget_traces();
    push(left, 1, 3);
    push(right, 100, 2);
    sim_run();
    CHECK_TRACE(sink, "1-2 3 100 101 ");
    tr_subscription *at = tr_stage_first(&sink->stage);
    for (size_t i = 0; i < 3; i++, at = at->next) CHECK_EQ(at->tag, tags[i]);
    CHECK(!at);
    sim_end();
}

static void s35_subscribing_to_a_consumer_is_refused(void) {
    node *target = consumer(), *sink = consumer();
    subscribe_with(sink, target, 10, 5, TR_TEMPORARY);
    sim_run();
    CHECK_TRACE(target, "not-a-producer(2) ");
    CHECK_TRACE(sink, "subscribe(producer,1,10) cancel(not_a_producer,1) ");
    CHECK(target->alive && sink->alive);
    tr_subscribe_options options = {10, 5, TR_PERMANENT};
    node *source = producer();
    CHECK_EQ(tr_stage_subscribe(&source->stage, target->pid, 77, &options, NULL), TR_EINVAL);
    sim_end();
}

static void s37_s40_bad_numbers_change_nothing(void) {
    node *source = producer(), *sink = consumer();
    const tr_subscribe_options bad[] = {{0, 0, 0}, {10, 10, 0}, {TR_DEMAND_LIMIT + 1, 0, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(tr_stage_subscribe(&sink->stage, source->pid, 5, &bad[i], NULL), TR_EINVAL);
    CHECK_TRACE(sink, "");
    CHECK(!source->first);
    sim_end();
}

static void s53_default_halves(void) { check_demand(1000, 500, "0-499 500-999 ", "demand(1000) "); }

static void s54_ten_five(void) {
    check_demand(10, 5, "0-4 5-9 10-14 15-19 20-24 ", "demand(10) demand(5) demand(5) demand(5) ");
}

static void s55_hundred_twenty(void) {
    check_demand(100, 20, "0-79 80-99 100-179 180-259 260-279 280-359 ",
                 "demand(100) demand(80) demand(100) demand(80) demand(100) ");
}

static void s56_hundred_eighty(void) {
    check_demand(100, 80, "0-19 20-39 40-59 60-79 80-99 100-119 ",
                 "demand(100) demand(20) demand(20) demand(20) demand(20) demand(20) ");
}

static void s57_min_zero(void) {
    check_demand(1, 0, "0 1 2 3 4 ", "demand(1) demand(1) demand(1) demand(1) ");
    check_demand(10, 0, "0-9 10-19 20-29 ", "demand(10) demand(10) demand(10) ");
}

static void s58_odd_numbers(void) {
    check_demand(3, 1, "0-1 2 3-4 5-6 7 8-9 ", "demand(3) demand(2) demand(3) demand(2) ");
    check_demand(5, 4, "0 1 2 3 4 5 ", "demand(5) demand(1) demand(1) demand(1) ");
}

static void s59_small_messages_are_not_gathered(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    subscribe(sink, source, 1000, 750);
    sim_run();
    forget_traces();
    push(source, 0, 100);
    push(source, 100, 100);
    sim_run();
    CHECK_TRACE(source, "");
    push(source, 200, 100);
    sim_run();
    CHECK_TRACE(source, "demand(300) ");
    CHECK_TRACE(sink, "0-99 100-199 200-299 ");
    sim_end();
}

static void s60_s68_excess_is_delivered_and_not_counted(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    tr_ref tag = subscribe(sink, source, 4, 2);
    sim_run();
    ask(source, tag, 3);
    sim_run();
    forget_traces();
    push(source, 0, 7);
    sim_run();
    CHECK_TRACE(sink, "0-1 2-3 excess(2) 4-5 excess(1) 6 ");
    CHECK_TRACE(source, "demand(2) demand(2) ");
    sim_end();
}

static void stop_on_second_batch(node *self, tr_batch *batch, tr_outcome *outcome) {
    if (self->next_event++) outcome->stop = because("enough");
    (void)batch;
}

static void s61_a_stop_drops_the_rest_of_the_message(void) {
    node *source = producer(), *sink = consumer();
    sink->on_events = stop_on_second_batch;
    subscribe(sink, source, 20, 15);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,2,20) demand(20) demand(5) down(enough,2) ");
    CHECK_TRACE(sink, "subscribe(producer,1,20) 0-4 5-9 stop(enough) ");
    sim_end();
}

static void s63_s66_manual_demand(void) {
    node *source = producer(), *sink = consumer();
    sink->manual = true;
    tr_ref tag = subscribe(sink, source, 10, 5);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,2,10) ");
    ask(source, tag, 50);
    sim_run();
    ask(source, tag, 50);
    sim_run();
    CHECK_TRACE(source, "demand(50) demand(50) ");
    CHECK_TRACE(sink, "subscribe(producer,1,10) 0-49 50-99 ");
    source->on_demand = give_nothing;
    ask(source, tag, 0);
    ask(source, tag, 3);
    ask(source, tag, 3);
    sim_run();
    CHECK_TRACE(source, "demand(3) demand(3) ");
    push(source, 0, 8);
    sim_run();
    CHECK_TRACE(sink, "0-5 ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 2);
    sim_end();
}

static void s70_s248_ask_for_an_unknown_tag(void) {
    node *source = producer(), *sink = consumer();
    mail *letter = new_mail(ASK, sink->pid, 4711);
    letter->count = 5;
    post_mail(source->pid, letter);
    step(source);
    CHECK_EQ(sink->first->kind, CANCELLED);
    CHECK(!strcmp(reason_text(sink->first->reason), "unknown_subscription"));
    sim_run();
    CHECK_TRACE(sink, "");
    sim_end();
}

static void s247_s249_unknown_and_duplicated_tags(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    tr_ref tag = subscribe_with(sink, source, 10, 5, TR_TEMPORARY);
    sim_run();
    forget_traces();
    post_mail(source->pid, new_mail(SUBSCRIBE, FOREIGN_PID, tag));
    sim_run();
    CHECK_TRACE(source, "duplicate(99) ");
    mail *letter = new_mail(EVENTS, source->pid, 4711);
    letter->batch = numbers(0, 3);
    post_mail(sink->pid, letter);
    step(sink);
    CHECK_TRACE(sink, "");
    CHECK_EQ(source->first->kind, CANCEL);
    sim_end();
}

/* ---- Producing -----------------------------------------------------------------------------------*/

static void s72_the_buffer_serves_first(void) {
    node *source = producer(), *sink = consumer();
    push(source, 101, 5);
    subscribe(sink, source, 4, 0);
    forget_traces();
    sim_run_some(9);
    CHECK_BEGINS(sink, "101-104 105 0-2 3-6 ");
    CHECK_BEGINS(source, "subscribe(consumer,2,4) demand(3) demand(4) ");
    sim_end();
}

static void half(node *self, uint64_t count, tr_outcome *outcome) {
    outcome->events = numbers(self->next_event, (size_t)count / 2);
    self->next_event += (int)count / 2;
}

static void twice(node *self, uint64_t count, tr_outcome *outcome) {
    outcome->events = numbers(self->next_event, (size_t)count * 2);
    self->next_event += (int)count * 2;
}

static void s73_a_shortfall_is_never_announced_again(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = half;
    subscribe(sink, source, 8, 0);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,2,8) demand(8) ");
    CHECK_EQ(tr_stage_requested(&source->stage), 4);
    sim_end();
}

static void s74_s75_excess_is_buffered(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = twice;
    sink->manual = true;
    tr_ref tag = subscribe(sink, source, 4, 0);
    ask(source, tag, 4);
    sim_run();
    CHECK_EQ(tr_stage_buffered(&source->stage), 4);
    ask(source, tag, 3);
    sim_run();
    forget_traces();
    ask(source, tag, 2);
    sim_run();
    CHECK_TRACE(sink, "7 8 ");
    CHECK_TRACE(source, "demand(1) ");
    sim_end();
}

static void s77_a_consumer_cannot_emit(void) {
    node *sink = consumer();
    push(sink, 0, 3);
    CHECK_TRACE(sink, "lost(3) ");
    CHECK(sink->alive);
    sim_end();
}

static void s91_the_buffer_drains_before_new_events(void) {
    node *source = producer(), *first = consumer(), *second = consumer();
    source->on_demand = give_nothing;
    subscribe(first, source, 10, 0);
    sim_run();
    die(first, because("boom"));
    sim_run();
    push(source, 1, 3);
    CHECK_EQ(tr_stage_buffered(&source->stage), 3);
    forget_traces();
    second->manual = true;
    tr_ref tag = subscribe(second, source, 5, 0);
    ask(source, tag, 5);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,3,5) "); /* 7 of 10 are still owed by the source */
    push(source, 4, 4);
    sim_run();
    CHECK_TRACE(second, "subscribe(producer,1,5) 1-3 4-5 ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 2);
    CHECK_EQ(tr_stage_requested(&source->stage), 3);
    sim_end();
}

/* ---- Ordered infos -------------------------------------------------------------------------------*/

static void s92_s93_an_info_with_nothing_before_it(void) {
    node *source = producer(), *sink = consumer();
    info(source, 1);
    info(sink, 2);
    sim_run();
    CHECK_TRACE(source, "info(1) ");
    CHECK_TRACE(sink, "info(2) ");
    sim_end();
}

static void s94_s98_an_info_waits_for_the_events_before_it(void) {
    const uint64_t sizes[] = {3, TR_BUFFER_UNLIMITED};
    for (size_t size = 0; size < 2; size++) {
        for (size_t fill = 1; fill <= 3; fill++) {
            node *source = producer_with(sizes[size], false), *sink = consumer();
            source->on_demand = give_nothing;
            push(source, 0, fill);
            info(source, 7);
            sim_run();
            CHECK_TRACE(source, "");
            CHECK_EQ(tr_stage_buffered(&source->stage), fill);
            subscribe(sink, source, fill, 0); /* S99: the ask is used up exactly */
            char expected[64];
            snprintf(expected, sizeof expected, "subscribe(consumer,2,%zu) info(7) ", fill);
            sim_run_some(3); /* SUBSCRIBE, ASK, the info; not the consumer's next ask */
            CHECK_TRACE(source, expected);
            sim_end();
        }
    }
}

static void s95_infos_split_a_delivery(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    sink->manual = true;
    push(source, 1, 3);
    info(source, 4), info(source, 5), info(source, 6);
    push(source, 7, 2);
    info(source, 9);
    tr_ref tag = subscribe(sink, source, 5, 0);
    ask(source, tag, 5);
    sim_run();
    CHECK_TRACE(sink, "subscribe(producer,1,5) 1-3 7-8 ");
    CHECK_TRACE(source, "subscribe(consumer,2,5) info(4) info(5) info(6) info(9) ");
    sim_end();
}

static void s96_a_moving_buffer(void) {
    node *source = producer_with(3, false), *sink = consumer();
    source->on_demand = give_nothing;
    sink->manual = true;
    tr_ref tag = subscribe(sink, source, 10, 0);
    push(source, 1, 3);
    info(source, 101);
    ask(source, tag, 2);
    sim_run();
    CHECK_TRACE(sink, "subscribe(producer,1,10) 1-2 ");
    CHECK_TRACE(source, "subscribe(consumer,2,10) ");
    push(source, 4, 2);
    info(source, 102);
    ask(source, tag, 1);
    sim_run();
    CHECK_TRACE(sink, "3 ");
    CHECK_TRACE(source, "info(101) ");
    ask(source, tag, 2);
    sim_run();
    CHECK_TRACE(sink, "4-5 ");
    CHECK_TRACE(source, "info(102) ");
    sim_end();
}

static void s97_an_info_outlives_the_events_before_it(void) {
    node *source = producer_with(3, false);
    push(source, 1, 2);
    info(source, 8);
    push(source, 3, 3);
    sim_run();
    CHECK_TRACE(source, "discarded(2) info(8) ");
    push(source, 6, 1);
    info(source, 9);
    push(source, 7, 9); /* drops what is before the info and some of what is after it */
    sim_run();
    CHECK_TRACE(source, "discarded(1) discarded(9) info(9) ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 3);
    sim_end();
}

/* ---- Accumulate mode -----------------------------------------------------------------------------*/

static node *accumulating(void) {
    return start((tr_stage_options){.type = TR_PRODUCER, .buffer_size = 10000, .accumulate = true});
}

static void set_mode(node *self, bool accumulate) {
    after(self, tr_stage_set_accumulate(&self->stage, accumulate));
}

static void s103_s104_demands_are_not_summed(void) {
    node *source = accumulating(), *left = consumer(), *right = consumer();
    subscribe(left, source, 2, 0);
    subscribe(right, source, 2, 0);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,2,2) subscribe(consumer,3,2) ");
    push(source, 50, 2);
    CHECK_EQ(tr_stage_buffered(&source->stage), 0);
    CHECK_EQ(tr_stage_waiting(&source->stage), 2);
    set_mode(source, true); /* S106 */
    left->on_events = right->on_events = NULL;
    set_mode(source, false);
    CHECK_TRACE(source, "demand(2) demand(2) ");
    CHECK_EQ(tr_stage_waiting(&source->stage), 0);
    set_mode(source, false);
    CHECK_TRACE(source, "");
    sim_end();
}

static void s105_events_and_demand_in_arrival_order(void) {
    node *source = accumulating(), *sink = consumer();
    subscribe(sink, source, 4, 0);
    sim_run();
    push(source, 101, 6);
    forget_traces();
    set_mode(source, false);
    sim_run_some(6);
    CHECK_BEGINS(source, "demand(4) demand(2) ");
    CHECK_BEGINS(sink, "0-3 101-104 105-106 4-5 ");
    sim_end();

    source = accumulating(), sink = consumer();
    push(source, 101, 6);
    subscribe(sink, source, 4, 0);
    sim_run();
    forget_traces();
    set_mode(source, false);
    sim_run_some(4);
    CHECK_BEGINS(source, "demand(2) ");
    CHECK_BEGINS(sink, "101-104 105-106 0-1 ");
    sim_end();
}

static void s101_an_info_stays_behind_accumulated_events(void) {
    node *source = accumulating(), *sink = consumer();
    source->on_demand = give_nothing;
    push(source, 1, 3);
    info(source, 9);
    sim_run();
    CHECK_TRACE(source, "");
    set_mode(source, false);
    sim_run();
    CHECK_TRACE(source, "");
    subscribe(sink, source, 3, 0);
    sim_run();
    CHECK_BEGINS(source, "subscribe(consumer,2,3) ");
    CHECK_TRACE(sink, "subscribe(producer,1,3) 1-3 ");
    sim_end();
}

static void s109_only_producers_accumulate(void) {
    node *middle = both(emit_same), *sink = consumer();
    CHECK_EQ(tr_stage_set_accumulate(&middle->stage, true), TR_EINVAL);
    CHECK_EQ(tr_stage_set_accumulate(&sink->stage, true), TR_EINVAL);
    CHECK_EQ(tr_stage_set_accumulate(&middle->stage, false), TR_OK);
    CHECK(!tr_stage_accumulates(&middle->stage));
    sim_end();
}

/* ---- Limits and failures -------------------------------------------------------------------------*/

static void demand_saturates(void) {
    node *source = producer(), *sink = consumer();
    source->on_demand = give_nothing;
    sink->manual = true;
    tr_ref tag = subscribe(sink, source, 10, 0), other = subscribe(sink, source, 10, 0);
    ask(source, tag, UINT64_MAX);
    ask(source, tag, UINT64_MAX);
    ask(source, other, UINT64_MAX);
    sim_run();
    CHECK(tr_stage_requested(&source->stage) == TR_DEMAND_LIMIT);
    push(source, 0, 5);
    ask(source, other, 7);
    sim_run();
    CHECK(tr_stage_requested(&source->stage) == TR_DEMAND_LIMIT);
    sim_end();
}

static void a_failing_effect_leaves_the_stage_usable(void) {
    node *source = producer(), *sink = consumer();
    tr_subscribe_options options = {4, 0, TR_TEMPORARY};
    sink->fail = TR_ENOMEM;
    CHECK_EQ(tr_stage_subscribe(&sink->stage, source->pid, 5000, &options, NULL), TR_ENOMEM);
    CHECK(!tr_stage_find(&sink->stage, 5000));
    sink->fail = TR_OK;
    source->on_demand = give_nothing;
    subscribe_with(sink, source, 4, 0, TR_TEMPORARY);
    sim_run();
    source->fail = TR_ENOMEM;
    CHECK_EQ(tr_stage_emit(&source->stage, numbers(0, 3)), TR_ENOMEM);
    source->fail = TR_OK;
    forget_traces();
    push(source, 3, 1);
    sim_run();
    CHECK_TRACE(sink, "3 ");
    sim_end();
}

static void a_stage_that_stops_takes_and_ignores(void) {
    node *source = producer();
    tr_stage_stop(&source->stage, because("first"));
    tr_stage_stop(&source->stage, because("second"));
    CHECK(!strcmp(reason_text(tr_stage_stopping(&source->stage)), "first"));
    CHECK_EQ(tr_stage_emit(&source->stage, numbers(0, 3)), TR_OK);
    CHECK_EQ(tr_stage_buffered(&source->stage), 0);
    sim_end();
}

static void options_that_make_no_stage(void) {
    tr_stage stage;
    tr_words words = {0};
    tr_stage_options consumer_with_dispatcher = {
        .type = TR_CONSUMER, .dispatcher = tr_demand_dispatcher_new(&(tr_demand_options){0})};
    CHECK_EQ(tri_stage_init(&stage, &consumer_with_dispatcher, &sim_ops, &words), TR_EINVAL);
    tr_stage_options producer_without = {.type = TR_PRODUCER};
    CHECK_EQ(tri_stage_init(&stage, &producer_without, &sim_ops, &words), TR_EINVAL);
}

int main(void) {
    RUN(s20_s22_order_of_subscribing);
    RUN(s26_handle_subscribe_may_stop);
    RUN(s27_s28_many_subscriptions);
    RUN(s35_subscribing_to_a_consumer_is_refused);
    RUN(s37_s40_bad_numbers_change_nothing);
    RUN(s53_default_halves);
    RUN(s54_ten_five);
    RUN(s55_hundred_twenty);
    RUN(s56_hundred_eighty);
    RUN(s57_min_zero);
    RUN(s58_odd_numbers);
    RUN(s59_small_messages_are_not_gathered);
    RUN(s60_s68_excess_is_delivered_and_not_counted);
    RUN(s61_a_stop_drops_the_rest_of_the_message);
    RUN(s63_s66_manual_demand);
    RUN(s70_s248_ask_for_an_unknown_tag);
    RUN(s247_s249_unknown_and_duplicated_tags);
    RUN(s72_the_buffer_serves_first);
    RUN(s73_a_shortfall_is_never_announced_again);
    RUN(s74_s75_excess_is_buffered);
    RUN(s77_a_consumer_cannot_emit);
    RUN(s91_the_buffer_drains_before_new_events);
    RUN(s92_s93_an_info_with_nothing_before_it);
    RUN(s94_s98_an_info_waits_for_the_events_before_it);
    RUN(s95_infos_split_a_delivery);
    RUN(s96_a_moving_buffer);
    RUN(s97_an_info_outlives_the_events_before_it);
    RUN(s103_s104_demands_are_not_summed);
    RUN(s105_events_and_demand_in_arrival_order);
    RUN(s101_an_info_stays_behind_accumulated_events);
    RUN(s109_only_producers_accumulate);
    RUN(demand_saturates);
    RUN(a_failing_effect_leaves_the_stage_usable);
    RUN(a_stage_that_stops_takes_and_ignores);
    RUN(options_that_make_no_stage);
    return check_report();
}
