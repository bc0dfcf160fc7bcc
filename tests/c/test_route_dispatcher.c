/* test_route_dispatcher.c: each event to its slot: events are ints, two slots, even and odd numbers.
 * The first subscription serves the even ones, the second the odd ones, and so on in turn. */
#include "stage_sim.h"
#include "tailrace_pipeline.h"

typedef struct router {
    size_t next;
    bool freed;
} router;

static router context;

static size_t choose(void *self, tr_term list_of_events, size_t index) {
    (void)self;
    return (size_t)(((list *)list_of_events)->events[index] % 2);
}

static size_t find(void *self, tr_term options, tr_reason **refusal) {
    (void)options;
    size_t slot = ((router *)self)->next++;
    if (slot == 4) *refusal = because("no such slot");
    return slot == 4 ? 2 : slot % 2;
}

static void freed(void *self) {
    ((router *)self)->freed = true;
}

static node *source_with(size_t consumers, node **sinks, tr_ref *tags) {
    context = (router){0};
    tr_route_options options = {
        .slots = 2, .context = &context, .choose = choose, .find = find, .free = freed};
    node *source = start((tr_stage_options){.type = TR_PRODUCER,
                                            .buffer_size = 10000,
                                            .dispatcher = tr_route_dispatcher_new(&options)});
    source->on_demand = give_nothing;
    for (size_t i = 0; i < consumers; i++) {
        sinks[i] = consumer();
        sinks[i]->manual = true;
        tags[i] = subscribe_with(sinks[i], source, 10, 5, TR_TEMPORARY);
    }
    sim_run();
    forget_traces();
    return source;
}

static void ask_of(node *source, tr_ref tag, uint64_t count) {
    ask(source, tag, count);
    sim_run();
}

static void emit(node *source, int first, size_t count) {
    push(source, first, count);
    sim_run();
}

static void each_event_to_its_slot_as_one_batch(void) {
    node *sinks[2];
    tr_ref tags[2];
    node *source = source_with(2, sinks, tags);
    ask_of(source, tags[0], 5), ask_of(source, tags[1], 5);
    emit(source, 0, 6);
    CHECK_TRACE(sinks[0], "0..4#3 ");
    CHECK_TRACE(sinks[1], "1..5#3 ");
    CHECK_EQ(tr_stage_requested(&source->stage), 4);
    sim_end();
    CHECK(context.freed);
}

static void events_of_a_slot_without_demand_wait_in_order(void) {
    node *sinks[2];
    tr_ref tags[2];
    node *source = source_with(2, sinks, tags);
    ask_of(source, tags[0], 6);
    emit(source, 1, 1), emit(source, 3, 1), emit(source, 2, 1), emit(source, 5, 1);
    CHECK_TRACE(sinks[0], "2 ");
    CHECK_TRACE(sinks[1], "");
    ask_of(source, tags[1], 2);
    CHECK_TRACE(sinks[1], "1 3 ");
    ask_of(source, tags[1], 5);
    CHECK_TRACE(sinks[1], "5 ");
    sim_end();
}

static void no_more_is_taken_than_was_asked_for(void) { /* P54 */
    node *sinks[2];
    tr_ref tags[2];
    node *source = source_with(2, sinks, tags);
    ask_of(source, tags[0], 2);
    emit(source, 0, 10);
    CHECK_TRACE(sinks[0], "0 ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 8);
    ask_of(source, tags[1], 1); /* 1 from the queue; 2 for the first slot out of the buffer */
    CHECK_TRACE(sinks[1], "1 ");
    CHECK_TRACE(sinks[0], "2 ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 7);
    sim_end();
}

static void two_of_a_slot_take_turns(void) {
    node *sinks[3];
    tr_ref tags[3];
    node *source = source_with(3, sinks, tags);
    ask_of(source, tags[0], 5), ask_of(source, tags[2], 5);
    emit(source, 0, 1), emit(source, 2, 1), emit(source, 4, 1);
    CHECK_TRACE(sinks[0], "0 4 ");
    CHECK_TRACE(sinks[2], "2 ");
    sim_end();
}

static void a_successor_gets_what_was_queued(void) { /* P161: only what was sent is lost */
    node *sinks[3];
    tr_ref tags[3];
    node *source = source_with(2, sinks, tags);
    ask_of(source, tags[1], 1);
    ask_of(source, tags[0], 3);
    emit(source, 1, 1), emit(source, 3, 1), emit(source, 5, 1);
    CHECK_TRACE(sinks[1], "1 ");
    cancel(source, tags[1], "shutdown");
    sim_run();
    context.next = 1;
    sinks[2] = consumer();
    sinks[2]->manual = true;
    tags[2] = subscribe_with(sinks[2], source, 10, 5, TR_TEMPORARY);
    sim_run();
    forget_traces();
    ask_of(source, tags[2], 9);
    CHECK_TRACE(sinks[2], "3 5 ");
    sim_end();
}

static void demand_of_who_leaves_is_not_deliverable(void) {
    node *sinks[2];
    tr_ref tags[2];
    node *source = source_with(2, sinks, tags);
    ask_of(source, tags[0], 3);
    cancel(source, tags[0], "shutdown");
    sim_run();
    emit(source, 1, 2);
    CHECK_EQ(tr_stage_buffered(&source->stage), 2);
    sim_end();
}

static void an_ordered_message_waits_for_the_queues(void) { /* S181 */
    node *sinks[2];
    tr_ref tags[2];
    node *source = source_with(2, sinks, tags);
    ask_of(source, tags[0], 3);
    emit(source, 1, 1);
    forget_traces();
    info(source, 7);
    sim_run();
    CHECK_TRACE(source, "");
    ask_of(source, tags[1], 1);
    CHECK_TRACE(source, "demand(1) info(7) ");
    sim_end();
}

static void an_unknown_slot_is_refused(void) {
    node *sinks[5];
    tr_ref tags[5];
    node *source = source_with(4, sinks, tags);
    sinks[4] = consumer();
    tags[4] = subscribe_with(sinks[4], source, 10, 5, TR_TEMPORARY);
    sim_run();
    CHECK(tr_stage_find(&sinks[4]->stage, tags[4]) == NULL);
    sim_end();
}

int main(void) {
    RUN(each_event_to_its_slot_as_one_batch);
    RUN(events_of_a_slot_without_demand_wait_in_order);
    RUN(no_more_is_taken_than_was_asked_for);
    RUN(two_of_a_slot_take_turns);
    RUN(a_successor_gets_what_was_queued);
    RUN(demand_of_who_leaves_is_not_deliverable);
    RUN(an_ordered_message_waits_for_the_queues);
    RUN(an_unknown_slot_is_refused);
    return check_report();
}
