/* test_stage_middle.c: ProducerConsumers: stages.md S100, S112-S126. */
#include "stage_sim.h"

static void s112_s116_input_waits_for_demand(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    subscribe(middle, source, 10, 5);
    sink->manual = true;
    tr_ref tag = subscribe(sink, middle, 100, 0);
    sim_run();
    CHECK_TRACE(source, "subscribe(consumer,2,10) demand(10) ");
    CHECK_TRACE(middle, "subscribe(producer,1,10) subscribe(consumer,3,100) ");
    CHECK_EQ(tr_stage_waiting(&middle->stage), 10);
    ask(middle, tag, 1);
    sim_run();
    CHECK_TRACE(middle, "0-4 5-9 ");
    CHECK_TRACE(source, "demand(5) demand(5) ");
    CHECK_EQ(tr_stage_buffered(&middle->stage), 9);
    CHECK_EQ(tr_stage_waiting(&middle->stage), 10);
    ask(middle, tag, 4);
    ask(middle, tag, 5);
    sim_run();
    CHECK_TRACE(middle, "large(4>1) large(5>1) ");
    CHECK_TRACE(sink, "subscribe(producer,2,100) 0 1-4 5-9 ");
    CHECK_TRACE(source, "");
    ask(middle, tag, 1);
    sim_run();
    CHECK_TRACE(middle, "10-14 ");
    CHECK_EQ(tr_stage_buffered(&middle->stage), 4);
    sim_end();
}

static void s117_a_stalled_consumer_stops_the_asking(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    subscribe(middle, source, 10, 8);
    sink->manual = true; /* a consumer at 10/5 that blocks on its first batch has asked 10 */
    tr_ref tag = subscribe(sink, middle, 10, 5);
    ask(middle, tag, 10);
    forget_traces();
    sim_run();
    CHECK_TRACE(middle, "subscribe(consumer,3,10) 0-1 2-3 4-5 6-7 8-9 ");
    CHECK_EQ(tr_stage_waiting(&middle->stage), 10);
    sim_end();
}

static void s118_a_stage_that_emits_nothing_keeps_pulling(void) {
    node *source = producer(), *middle = both(NULL), *sink = consumer();
    subscribe(middle, source, 100, 80);
    subscribe(sink, middle, 100, 50);
    forget_traces();
    sim_run_some(200);
    CHECK_BEGINS(middle, "subscribe(consumer,3,100) 0-19 20-39 40-59 60-79 80-99 100-119 120-139 ");
    sim_end();
}

/* What the consumer got: the sizes of its batches, as text. */
static void note_size(node *self, tr_batch *batch, tr_outcome *outcome) {
    (void)outcome;
    const int *events = ((list *)batch->list)->events + batch->offset;
    for (size_t i = 0; i < batch->count; i++) CHECK_EQ(events[i], (self->next_event + (int)i) / 2);
    self->next_event += (int)batch->count;
    self->trace_length = (size_t)(strrchr(self->trace, ' ') - self->trace); /* the batch's own text */
    while (self->trace_length && self->trace[self->trace_length - 1] != ' ') self->trace_length--;
    self->trace[self->trace_length] = 0;
    trace(self, "%zu ", batch->count);
}

static void check_doubling(uint64_t min, bool consumer_first, const char *demands,
                           const char *middle_batches, const char *sizes) {
    node *source = producer(), *middle = both(emit_double), *sink = consumer();
    sink->on_events = note_size;
    if (consumer_first) {
        subscribe(sink, middle, 100, 50);
        sim_run();
        subscribe(middle, source, 100, min);
    } else {
        subscribe(middle, source, 100, min);
        sim_run();
        subscribe(sink, middle, 100, 50);
    }
    sink->trace_length = 0;
    sim_run_some(400);
    CHECK_BEGINS(sink, sizes);
    char expected[256];
    snprintf(expected, sizeof expected, "subscribe(consumer,2,100) %s", demands);
    CHECK_BEGINS(source, expected);
    CHECK(strstr(middle->trace, middle_batches));
    sim_end();
}

static void s119_doubling_in_twenties(void) {
    for (int consumer_first = 0; consumer_first < 2; consumer_first++)
        check_doubling(80, consumer_first, "demand(100) demand(20) demand(20) demand(20) ",
                       ") 0-19 20-39 40-59 60-79 80-99 100-119 ",
                       "40 40 20 50 30 20 40 10 30 20 20 30 10 40 ");
}

static void s120_doubling_in_eighties(void) {
    for (int consumer_first = 0; consumer_first < 2; consumer_first++)
        check_doubling(20, consumer_first,
                       "demand(100) demand(80) demand(100) demand(80) demand(100) ",
                       ") 0-79 80-99 100-179 180-259 260-279 280-359 ",
                       "50 50 50 50 50 50 50 10 40 50 ");
}

static void s113_s122_a_dead_consumer_does_not_keep_the_pull_open(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    subscribe(middle, source, 10, 5);
    sink->manual = true;
    tr_ref tag = subscribe(sink, middle, 100, 0);
    sim_run();
    push(middle, 1000, 3); /* S122: what other callbacks emit uses the same demand */
    ask(middle, tag, 20);
    die(sink, because("boom"));
    sim_run();
    CHECK(tr_stage_requested(&middle->stage) == 0);
    CHECK(tr_stage_buffered(&middle->stage) <= 30);
    CHECK(tr_stage_waiting(&middle->stage) <= 10);
    sim_end();
}

static void s122_events_of_other_callbacks_use_the_demand(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    source->on_demand = give_nothing;
    subscribe(middle, source, 10, 5);
    subscribe(sink, middle, 4, 2);
    sim_run();
    push(middle, 100, 3);
    CHECK_EQ(tr_stage_requested(&middle->stage), 1);
    sim_end();
}

static void s100_an_info_waits_behind_queued_input(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    info(middle, 1);
    sim_run();
    CHECK_TRACE(middle, "info(1) ");
    subscribe(middle, source, 10, 5);
    sim_run();
    forget_traces();
    info(middle, 2);
    sim_run();
    CHECK_TRACE(middle, "");
    sink->manual = true;
    tr_ref tag = subscribe(sink, middle, 100, 0);
    ask(middle, tag, 4);
    sim_run();
    CHECK_TRACE(middle, "subscribe(consumer,3,100) 0-4 5-9 ");
    ask(middle, tag, 6);
    sim_run();
    CHECK_TRACE(middle, "large(6>4) info(2) ");
    sim_end();
}

static void s123_s125_the_end_of_a_producer_waits_behind_its_input(void) {
    node *source = producer(), *middle = both(emit_double), *sink = consumer();
    tr_ref up = subscribe_with(middle, source, 100, 50, TR_TEMPORARY);
    sim_run();
    cancel(source, up, "over");
    sim_run();
    CHECK_TRACE(middle, "subscribe(producer,1,100) ");
    CHECK(!tr_stage_find(&middle->stage, up));
    CHECK_EQ(tr_stage_waiting(&middle->stage), 100);
    sink->on_events = NULL;
    subscribe(sink, middle, 100, 50);
    sim_run();
    CHECK_TRACE(middle, "subscribe(consumer,3,100) 0-99 cancel(over,1) ");
    CHECK_BEGINS(sink, "subscribe(producer,2,100) 0..24#50 25..49#50 50..74#50 ");
    CHECK_BEGINS(source, "subscribe(consumer,2,100) demand(100) cancel(over,2) ");
    sim_end();
}

static void s124_a_fatal_cancel_waits_too(void) {
    node *source = producer(), *middle = both(emit_same), *sink = consumer();
    subscribe(middle, source, 10, 5);
    sim_run();
    forget_traces();
    die(source, because("boom"));
    sim_run();
    info(middle, 5);
    CHECK(middle->alive);
    CHECK_TRACE(middle, "");
    subscribe_with(sink, middle, 3, 0, TR_TEMPORARY);
    sim_run();
    CHECK_TRACE(middle, "subscribe(consumer,3,3) 0-9 down(boom,1) ends(boom) stop(boom) ");
    CHECK(!middle->alive);
    CHECK_TRACE(sink, "subscribe(producer,2,3) 0-2 down(boom,2) ");
    sim_end();
}

static void s123_an_end_at_the_head_of_the_queue_needs_no_demand(void) {
    node *source = producer(), *middle = both(emit_same);
    source->on_demand = give_nothing;
    subscribe(middle, source, 10, 5);
    sim_run();
    forget_traces();
    die(source, because("normal"));
    sim_run();
    CHECK_TRACE(middle, "down(normal,1) ends(normal) stop(normal) ");
    sim_end();
}

int main(void) {
    RUN(s112_s116_input_waits_for_demand);
    RUN(s117_a_stalled_consumer_stops_the_asking);
    RUN(s118_a_stage_that_emits_nothing_keeps_pulling);
    RUN(s119_doubling_in_twenties);
    RUN(s120_doubling_in_eighties);
    RUN(s113_s122_a_dead_consumer_does_not_keep_the_pull_open);
    RUN(s122_events_of_other_callbacks_use_the_demand);
    RUN(s100_an_info_waits_behind_queued_input);
    RUN(s123_s125_the_end_of_a_producer_waits_behind_its_input);
    RUN(s124_a_fatal_cancel_waits_too);
    RUN(s123_an_end_at_the_head_of_the_queue_needs_no_demand);
    return check_report();
}
