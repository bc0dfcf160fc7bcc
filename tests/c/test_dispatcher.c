/* test_dispatcher.c: DemandDispatcher, seen through a producer that emits only what it is told to:
 * stages.md S142-S155; and its heap against a plain sorted list. */
#include "stage_sim.h"

typedef struct bench {
    node *source;
    node *sinks[3];
    tr_ref tags[3];
} bench;

/* A silent producer with `count` manual consumers. */
static bench set_up(size_t count, tr_demand_options options) {
    bench made = {0};
    made.source = start((tr_stage_options){.type = TR_PRODUCER,
                                           .buffer_size = 10000,
                                           .dispatcher = tr_demand_dispatcher_new(&options)});
    made.source->on_demand = give_nothing;
    for (size_t i = 0; i < count; i++) {
        made.sinks[i] = consumer();
        made.sinks[i]->manual = true;
        made.tags[i] = subscribe_with(made.sinks[i], made.source, 10, 5, TR_TEMPORARY);
    }
    sim_run();
    forget_traces();
    return made;
}

static void ask_of(bench *b, size_t which, uint64_t count) {
    ask(b->source, b->tags[which], count);
    sim_run();
}

static uint64_t owed(const bench *b) {
    const tr_dispatcher *dispatcher = b->source->stage.dispatcher;
    return dispatcher->requested - dispatcher->deliverable;
}

static void emit(bench *b, int first, size_t count) {
    push(b->source, first, count);
    sim_run();
}

static void s142_dispatch_without_consumers(void) {
    bench b = set_up(0, (tr_demand_options){0});
    emit(&b, 0, 3);
    CHECK_EQ(tr_stage_buffered(&b.source->stage), 3);
    sim_end();
}

static void s144_a_subscription_brings_no_demand(void) {
    bench b = set_up(2, (tr_demand_options){0});
    CHECK_EQ(tr_stage_requested(&b.source->stage), 0);
    sim_end();
}

static void s145_largest_demand_first_ties_in_order_of_change(void) {
    bench b = set_up(3, (tr_demand_options){.max_demand = 10});
    ask_of(&b, 0, 4), ask_of(&b, 1, 2), ask_of(&b, 2, 3);
    ask_of(&b, 2, 2); /* third 5, first 4, second 2 */
    ask_of(&b, 1, 4); /* second 6, third 5, first 4 */
    emit(&b, 0, 7);
    CHECK_TRACE(b.sinks[1], "0-5 ");
    CHECK_TRACE(b.sinks[2], "6 ");
    emit(&b, 7, 5); /* third and first have 4: the third changed last */
    CHECK_TRACE(b.sinks[0], "7-10 ");
    CHECK_TRACE(b.sinks[2], "11 ");
    sim_end();
}

static void s146_the_first_takes_all_it_can(void) {
    bench b = set_up(2, (tr_demand_options){0});
    ask_of(&b, 0, 3), ask_of(&b, 1, 2);
    emit(&b, 0, 5);
    CHECK_TRACE(b.sinks[0], "0-2 ");
    CHECK_TRACE(b.sinks[1], "3-4 ");
    sim_end();
}

static void s147_equals_take_turns(void) {
    bench b = set_up(2, (tr_demand_options){0});
    ask_of(&b, 0, 3), ask_of(&b, 1, 3);
    emit(&b, 0, 2), emit(&b, 2, 2), emit(&b, 4, 3);
    CHECK_TRACE(b.sinks[0], "0-1 4 ");
    CHECK_TRACE(b.sinks[1], "2-3 5 ");
    CHECK_EQ(tr_stage_buffered(&b.source->stage), 1);
    sim_end();
}

static void s148_s149_cancelled_demand_is_owed(void) {
    bench b = set_up(2, (tr_demand_options){0});
    ask_of(&b, 0, 10);
    cancel(b.source, b.tags[0], "over");
    sim_run();
    CHECK_EQ(owed(&b), 10);
    ask_of(&b, 1, 5);
    CHECK_EQ(owed(&b), 5);
    CHECK_TRACE(b.source, "demand(10) cancel(over,2) ");
    cancel(b.source, b.tags[1], "over");
    sim_run();
    CHECK_EQ(owed(&b), 10);
    sim_end();
}

static void s150_leftovers_lower_what_is_owed(void) {
    bench b = set_up(1, (tr_demand_options){0});
    ask_of(&b, 0, 10);
    cancel(b.source, b.tags[0], "over");
    sim_run();
    emit(&b, 0, 3);
    CHECK_EQ(owed(&b), 7);
    emit(&b, 3, 10);
    CHECK_EQ(owed(&b), 0);
    sim_end();

    b = set_up(2, (tr_demand_options){0});
    ask_of(&b, 0, 3), ask_of(&b, 1, 3);
    cancel(b.source, b.tags[0], "over");
    sim_run();
    emit(&b, 0, 5);
    CHECK_TRACE(b.sinks[1], "0-2 ");
    CHECK_EQ(tr_stage_buffered(&b.source->stage), 2);
    CHECK_EQ(owed(&b), 1);
    forget_traces();
    ask_of(&b, 1, 5);
    CHECK_TRACE(b.source, "large(5>3) demand(2) ");
    CHECK_TRACE(b.sinks[1], "3-4 ");
    sim_end();
}

static void s151_s152_a_large_ask_is_logged_and_counts(void) {
    bench b = set_up(1, (tr_demand_options){.max_demand = 3});
    ask_of(&b, 0, 4), ask_of(&b, 0, 4), ask_of(&b, 0, 3);
    CHECK_TRACE(b.source, "large(4>3) demand(4) large(4>3) demand(4) demand(3) ");
    sim_end();
    b = set_up(1, (tr_demand_options){0});
    ask_of(&b, 0, 2), ask_of(&b, 0, 5), ask_of(&b, 0, 4);
    CHECK_TRACE(b.source, "demand(2) large(5>2) demand(5) large(4>2) demand(4) ");
    sim_end();
}

static void s153_s154_shuffled_once(void) {
    bool seen[2] = {false, false};
    for (uint64_t seed = 0; seed < 64; seed++) {
        bench b = set_up(3, (tr_demand_options){.shuffle = true, .seed = seed});
        ask_of(&b, 0, 3), ask_of(&b, 1, 2);
        emit(&b, 0, 5);
        bool in_order = !strcmp(b.sinks[0]->trace, "0-2 ");
        seen[in_order] = true;
        CHECK_TRACE(b.sinks[0], in_order ? "0-2 " : "2-4 ");
        CHECK_TRACE(b.sinks[1], in_order ? "3-4 " : "0-1 ");
        CHECK_TRACE(b.sinks[2], "");
        CHECK_EQ(tr_stage_buffered(&b.source->stage), 0);
        ask_of(&b, 0, 1), ask_of(&b, 1, 2); /* from now on the larger demand is first */
        emit(&b, 5, 3);
        CHECK_TRACE(b.sinks[1], "5-6 ");
        CHECK_TRACE(b.sinks[0], "7 ");
        sim_end();
    }
    CHECK(seen[0] && seen[1]);
}

static void s155_infos_at_once(void) {
    bench b = set_up(1, (tr_demand_options){0});
    info(b.source, 1);
    sim_run();
    CHECK_TRACE(b.source, "info(1) ");
    sim_end();
}

/* ---- The heap and the list -----------------------------------------------------------------------*/

enum { MANY = 300 };

/* The original: a list sorted by demand, changed entries behind their equals. */
typedef struct model {
    struct entry {
        tr_ref tag;
        uint64_t demand, received;
    } entries[MANY];
    size_t length;
} model;

static void model_insert(model *m, struct entry entry) {
    size_t at = 0;
    while (at < m->length && m->entries[at].demand >= entry.demand) at++;
    memmove(&m->entries[at + 1], &m->entries[at], (m->length - at) * sizeof entry);
    m->entries[at] = entry;
    m->length++;
}

static struct entry model_remove(model *m, size_t at) {
    struct entry entry = m->entries[at];
    memmove(&m->entries[at], &m->entries[at + 1], (--m->length - at) * sizeof entry);
    return entry;
}

static void model_dispatch(model *m, uint64_t count) {
    while (count && m->length && m->entries[0].demand) {
        struct entry entry = model_remove(m, 0);
        uint64_t given = count < entry.demand ? count : entry.demand;
        entry.demand -= given;
        entry.received += given;
        count -= given;
        model_insert(m, entry);
    }
}

static uint64_t received[MANY];

static int count_events(void *host, const tr_subscription *to, tr_batch batch) {
    (void)host;
    received[to->tag - 1] += batch.count;
    sim_release(NULL, batch.list);
    return TR_OK;
}

static int watch_nothing(void *host, tr_pid peer, tr_ref *monitor) {
    (void)host;
    *monitor = peer + 100000;
    return TR_OK;
}

static uint32_t random_number(uint32_t limit) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % limit;
}

static void the_heap_orders_as_a_sorted_list_does(void) {
    static model m;
    node *source = producer();
    source->on_demand = give_nothing;
    static tr_stage_ops ops;
    ops = sim_ops;
    ops.events = count_events;
    ops.watch = watch_nothing;
    source->stage.ops = &ops;
    tr_stage *stage = &source->stage;
    for (tr_ref tag = 1; tag <= MANY; tag++) {
        CHECK_EQ(tr_stage_on_subscribe(stage, FOREIGN_PID + tag, tag, NULL), TR_OK);
        model_insert(&m, (struct entry){.tag = tag});
    }
    for (int round = 0; round < 20000; round++) {
        source->trace_length = 0;
        uint32_t dice = random_number(100);
        size_t at = m.length ? random_number((uint32_t)m.length) : 0;
        if (dice < 60 && m.length) {
            struct entry entry = model_remove(&m, at);
            uint64_t more = 1 + random_number(5);
            entry.demand += more;
            model_insert(&m, entry);
            CHECK_EQ(tr_stage_on_ask(stage, 0, entry.tag, more), TR_OK);
        } else if (dice < 99 || m.length < 20) {
            uint64_t most = stage->dispatcher->deliverable;
            if (!most) continue;
            uint64_t count = 1 + random_number(most < 20 ? (uint32_t)most : 20);
            model_dispatch(&m, count);
            CHECK_EQ(tr_stage_emit(stage, numbers(0, count)), TR_OK);
        } else {
            struct entry entry = model_remove(&m, at);
            CHECK_EQ(received[entry.tag - 1], entry.received);
            CHECK_EQ(tr_stage_on_cancel(stage, entry.tag, tr_reason_constant(TR_NORMAL)), TR_OK);
            CHECK(!tr_stage_find(stage, entry.tag));
        }
        for (size_t i = 0; i < m.length; i++)
            CHECK_EQ(received[m.entries[i].tag - 1], m.entries[i].received);
    }
    sim_end();
}

int main(void) {
    RUN(s142_dispatch_without_consumers);
    RUN(s144_a_subscription_brings_no_demand);
    RUN(s145_largest_demand_first_ties_in_order_of_change);
    RUN(s146_the_first_takes_all_it_can);
    RUN(s147_equals_take_turns);
    RUN(s148_s149_cancelled_demand_is_owed);
    RUN(s150_leftovers_lower_what_is_owed);
    RUN(s151_s152_a_large_ask_is_logged_and_counts);
    RUN(s153_s154_shuffled_once);
    RUN(s155_infos_at_once);
    RUN(the_heap_orders_as_a_sorted_list_does);
    return check_report();
}
