/* test_buffer.c: the output buffer: stages.md S80-S90, S97-S99, S11; through a producer and alone. */
#include "stage_sim.h"

static void check_overflow(bool keep_first, const char *kept, const char *rest) {
    node *source = producer_with(5, keep_first), *sink = consumer();
    source->on_demand = give_nothing;
    push(source, 1, 5);
    push(source, 6, 3);
    CHECK_TRACE(source, "discarded(3) ");
    CHECK_EQ(tr_stage_buffered(&source->stage), 5);
    subscribe(sink, source, 4, 0);
    forget_traces();
    sim_run();
    char expected[64];
    snprintf(expected, sizeof expected, "%s%s", kept, rest);
    CHECK_TRACE(sink, expected);
    sim_end();
}

static void s81_keep_first(void) { check_overflow(true, "1-4 ", "5 "); }
static void s82_keep_last(void) { check_overflow(false, "4-7 ", "8 "); }

static void s83_one_push_larger_than_the_buffer(void) {
    for (int keep_first = 0; keep_first < 2; keep_first++) {
        node *source = producer_with(5, keep_first), *sink = consumer();
        source->on_demand = give_nothing;
        push(source, 1, 8);
        CHECK_TRACE(source, "discarded(3) ");
        subscribe(sink, source, 8, 0);
        forget_traces();
        sim_run();
        CHECK_TRACE(sink, keep_first ? "1-5 " : "4-8 ");
        sim_end();
    }
}

static void s84_s87_unlimited(void) {
    node *source = producer_with(TR_BUFFER_UNLIMITED, false), *sink = consumer();
    source->on_demand = give_nothing;
    push(source, 1, 5);
    CHECK_EQ(tr_stage_buffered(&source->stage), 5);
    push(source, 6, 3);
    CHECK_EQ(tr_stage_buffered(&source->stage), 8);
    info(source, 9); /* S90: not counted */
    CHECK_EQ(tr_stage_buffered(&source->stage), 8);
    subscribe(sink, source, 4, 0);
    forget_traces();
    sim_run();
    CHECK_EQ(tr_stage_buffered(&source->stage), 0);
    CHECK_TRACE(sink, "1-4 5-8 ");
    sim_end();
}

static void s11_size_zero_keeps_nothing(void) {
    for (int keep_first = 0; keep_first < 2; keep_first++) {
        node *source = producer_with(0, keep_first), *sink = consumer();
        source->on_demand = give_nothing;
        push(source, 1, 3);
        info(source, 9);
        sim_run();
        CHECK_TRACE(source, "discarded(3) info(9) ");
        subscribe(sink, source, 2, 0);
        sim_run();
        push(source, 4, 3);
        CHECK_TRACE(source, "subscribe(consumer,2,2) demand(2) discarded(1) ");
        sim_run();
        CHECK_TRACE(sink, "subscribe(producer,1,2) 4-5 ");
        sim_end();
    }
}

static int stop_on_discard(void *host, uint64_t count, tr_reason **stop) {
    (void)host, (void)count;
    *stop = because("boom");
    return TR_OK;
}

static void s86_format_discarded_may_fail(void) {
    node *source = producer_with(2, false);
    tr_stage_ops ops = sim_ops;
    ops.discarded = stop_on_discard;
    source->stage.ops = &ops;
    push(source, 0, 5);
    CHECK(!source->alive);
    CHECK_TRACE(source, "stop(boom) ");
    sim_end();
}

/* ---- Alone, against a plain array ----------------------------------------------------------------*/

static uint32_t random_number(uint32_t limit) {
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % limit;
}

enum { INFO = -1, MODEL_SIZE = 4096 };

/* Events and infos in order; drops and takes move `head`. */
typedef struct model {
    int items[MODEL_SIZE];
    size_t head, tail;
    uint64_t events;
} model;

static void model_settle(model *m, uint64_t size, uint64_t *dropped, uint64_t *infos) {
    for (; m->head < m->tail; m->head++) {
        if (m->items[m->head] == INFO) {
            ++*infos;
        } else if (m->events > size) {
            m->events--;
            ++*dropped;
        } else {
            return;
        }
    }
}

static void settle(tri_buffer *buffer, model *m, uint64_t size, uint64_t discarded,
                   uint64_t expected_discarded) {
    uint64_t infos = 0, expected_infos = 0;
    tr_term word;
    while (tri_buffer_trim(buffer, &discarded, &word)) infos++;
    model_settle(m, size, &expected_discarded, &expected_infos);
    CHECK_EQ(infos, expected_infos);
    CHECK_EQ(discarded, expected_discarded);
    CHECK_EQ(buffer->count, m->events);
}

static void push_both(tri_buffer *buffer, model *m, int first, size_t count) {
    uint64_t discarded = 0, expected = 0;
    CHECK_EQ(tri_buffer_push(buffer, numbers(first, count), &discarded), TR_OK);
    for (size_t i = 0; i < count; i++) {
        if (buffer->keep_first && m->events == buffer->size) {
            expected++;
        } else {
            m->items[m->tail++] = first + (int)i;
            m->events++;
        }
    }
    settle(buffer, m, buffer->size, discarded, expected);
}

static void take_both(tri_buffer *buffer, model *m, uint64_t limit) {
    tr_batch taken;
    CHECK_EQ(tri_buffer_take(buffer, limit, &taken), TR_OK);
    const int *events = ((list *)taken.list)->events + taken.offset;
    CHECK(taken.count > 0 && taken.count <= limit);
    for (size_t i = 0; i < taken.count; i++) CHECK_EQ(events[i], m->items[m->head++]);
    CHECK(taken.count == limit || m->head == m->tail || m->items[m->head] == INFO);
    m->events -= taken.count;
    if (random_number(4) == 0) { /* a dispatcher that placed nothing gives it back */
        m->head -= taken.count;
        m->events += taken.count;
        CHECK_EQ(tri_buffer_push_front(buffer, taken), TR_OK);
    } else {
        sim_release(NULL, taken.list);
    }
    settle(buffer, m, buffer->size, 0, 0);
}

static void any_mix_keeps_order_and_counts(void) {
    const uint64_t sizes[] = {1, 3, 10, TR_BUFFER_UNLIMITED};
    node host = {0};
    tr_words words = {&host, sim_retain, sim_release, sim_join};
    for (size_t run = 0; run < 200; run++) {
        model m = {0};
        tri_buffer buffer;
        tri_buffer_init(&buffer, sizes[run % 4], run & 4, &words);
        int next = 0;
        for (int step_number = 0; step_number < 300; step_number++) {
            uint32_t dice = random_number(10);
            if (dice < 5) {
                size_t count = 1 + random_number(6);
                push_both(&buffer, &m, next, count);
                next += (int)count;
            } else if (dice < 6 && buffer.count) {
                CHECK_EQ(tri_buffer_push_info(&buffer, (tr_term)(uintptr_t)1), TR_OK);
                m.items[m.tail++] = INFO;
            } else if (buffer.count) {
                take_both(&buffer, &m, 1 + random_number(8));
            }
        }
        tri_buffer_fini(&buffer);
        CHECK_EQ(sim.lists, 0);
    }
}

static void a_join_that_fails_changes_nothing(void) {
    node host = {.fail = TR_ENOMEM};
    tr_words words = {&host, sim_retain, sim_release, sim_join};
    tri_buffer buffer;
    tri_buffer_init(&buffer, 100, false, &words);
    uint64_t discarded = 0;
    CHECK_EQ(tri_buffer_push(&buffer, numbers(0, 3), &discarded), TR_OK);
    CHECK_EQ(tri_buffer_push(&buffer, numbers(3, 3), &discarded), TR_OK);
    tr_batch taken;
    CHECK_EQ(tri_buffer_take(&buffer, 5, &taken), TR_ENOMEM);
    CHECK_EQ(buffer.count, 6);
    host.fail = TR_OK;
    CHECK_EQ(tri_buffer_take(&buffer, 5, &taken), TR_OK);
    CHECK_EQ(taken.count, 5);
    sim_release(NULL, taken.list);
    tri_buffer_fini(&buffer);
    CHECK_EQ(sim.lists, 0);
}

int main(void) {
    RUN(s81_keep_first);
    RUN(s82_keep_last);
    RUN(s83_one_push_larger_than_the_buffer);
    RUN(s84_s87_unlimited);
    RUN(s11_size_zero_keeps_nothing);
    RUN(s86_format_discarded_may_fail);
    RUN(any_mix_keeps_order_and_counts);
    RUN(a_join_that_fails_changes_nothing);
    return check_report();
}
