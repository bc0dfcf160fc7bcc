/* demand_dispatcher.c: each batch goes to the subscription with the largest demand (S145-S155).
 *
 * The subscriptions lie in a binary heap: larger demand first, among equals the one whose demand
 * changed the longer time ago. An entry gets a new place whenever its demand changes, which is what
 * a list sorted by demand with insertion after equals would do.
 *
 * Who owns: the dispatcher owns its heap of pointers, not the subscriptions. Threads: only the one
 * that runs the stage. Costs: ask, cancel and each delivery O(log n), and O(1) with one subscription;
 * 8 bytes per subscription. */
#include <stdlib.h>

#include "dispatcher.h"

typedef struct demand_dispatcher {
    tr_dispatcher base;
    uint64_t max_demand; /* 0: not known yet */
    uint64_t random;
    bool shuffle;        /* still to be done */
    uint64_t order;      /* of the last change */
    tr_subscription **heap;
    size_t length, capacity;
} demand_dispatcher;

static demand_dispatcher *of(tr_dispatcher *base) { return (demand_dispatcher *)base; }

/* ---- The heap ------------------------------------------------------------------------------------*/

static bool before(const tr_subscription *left, const tr_subscription *right) {
    return left->demand != right->demand ? left->demand > right->demand
                                         : left->order < right->order;
}

static void place(demand_dispatcher *self, size_t index, tr_subscription *subscription) {
    self->heap[index] = subscription;
    subscription->index = index;
}

static void move_up(demand_dispatcher *self, size_t index) {
    tr_subscription *moving = self->heap[index];
    while (index && before(moving, self->heap[(index - 1) / 2])) {
        place(self, index, self->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    place(self, index, moving);
}

static void move_down(demand_dispatcher *self, size_t index) {
    tr_subscription *moving = self->heap[index];
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= self->length) break;
        if (child + 1 < self->length && before(self->heap[child + 1], self->heap[child])) child++;
        if (!before(self->heap[child], moving)) break;
        place(self, index, self->heap[child]);
        index = child;
    }
    place(self, index, moving);
}

/* Its demand has changed: last among its equals. */
static void reorder(demand_dispatcher *self, tr_subscription *subscription) {
    subscription->order = ++self->order;
    if (self->length == 1) return;
    move_up(self, subscription->index);
    move_down(self, subscription->index);
}

/* ---- Subscriptions and demand --------------------------------------------------------------------*/

static int demand_subscribe(tr_dispatcher *base, tr_subscription *subscription, tr_term options,
                            tr_reason **refusal) {
    (void)options, (void)refusal; /* every subscription is welcome */
    demand_dispatcher *self = of(base);
    if (self->length == self->capacity) {
        size_t capacity = self->capacity ? self->capacity * 2 : 4;
        tr_subscription **heap = realloc(self->heap, capacity * sizeof *heap);
        if (!heap) return TR_ENOMEM;
        self->heap = heap;
        self->capacity = capacity;
    }
    subscription->demand = 0;
    subscription->order = ++self->order;
    place(self, self->length++, subscription);
    move_up(self, subscription->index);
    return TR_OK;
}

static int demand_ask(tr_dispatcher *base, tr_subscription *subscription, uint64_t count) {
    demand_dispatcher *self = of(base);
    if (!self->max_demand) self->max_demand = count;
    if (count > self->max_demand) {
        tr_stage_log line = {.kind = TR_LOG_LARGE_ASK,
                             .subscription = subscription,
                             .count = count,
                             .limit = self->max_demand};
        tr_stage_log_line(base->stage, &line);
    }
    subscription->demand += count;
    base->deliverable += count;
    reorder(self, subscription);
    return TR_OK;
}

static int demand_cancel(tr_dispatcher *base, tr_subscription *subscription) {
    demand_dispatcher *self = of(base);
    base->deliverable -= subscription->demand;
    size_t hole = subscription->index;
    tr_subscription *last = self->heap[--self->length];
    if (last == subscription) return TR_OK;
    place(self, hole, last);
    move_up(self, hole);
    move_down(self, last->index);
    return TR_OK;
}

/* ---- Dispatch ------------------------------------------------------------------------------------*/

/* Give `to` what it can take. */
static int give(demand_dispatcher *self, tr_subscription *to, tr_batch *batch) {
    tr_dispatcher *base = &self->base;
    uint64_t count = batch->count < to->demand ? batch->count : to->demand;
    to->demand -= count;
    base->deliverable -= count;
    return tr_stage_deliver(base->stage, to,
                            tri_batch_split(batch, (size_t)count, tri_dispatcher_words(base)));
}

/* splitmix64 */
static uint64_t next_random(demand_dispatcher *self) {
    uint64_t mixed = self->random += UINT64_C(0x9E3779B97F4A7C15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94D049BB133111EB);
    return mixed ^ mixed >> 31;
}

/* The one dispatch in random order (S153), of those that have demand (S154). What is left afterwards
 * is a heap again, with equals in the random order. */
static int dispatch_shuffled(demand_dispatcher *self, tr_batch *batch) {
    int error = TR_OK;
    size_t ready = 0;
    for (size_t i = 0; i < self->length; i++) {
        tr_subscription *here = self->heap[i];
        if (!here->demand) continue;
        self->heap[i] = self->heap[ready];
        self->heap[ready++] = here;
    }
    for (size_t i = ready; i > 1; i--) {
        size_t other = (size_t)(next_random(self) % i);
        tr_subscription *here = self->heap[i - 1];
        self->heap[i - 1] = self->heap[other];
        self->heap[other] = here;
    }
    for (size_t i = 0; i < ready; i++) self->heap[i]->order = ++self->order;
    for (size_t i = 0; i < ready && batch->count; i++) {
        int failed = give(self, self->heap[i], batch);
        if (!error) error = failed;
        self->heap[i]->order = ++self->order;
    }
    for (size_t i = 0; i < self->length; i++) self->heap[i]->index = i;
    for (size_t i = self->length / 2; i-- > 0;) move_down(self, i);
    return error;
}

static int demand_dispatch(tr_dispatcher *base, tr_batch *batch) {
    demand_dispatcher *self = of(base);
    if (self->shuffle && base->deliverable) {
        self->shuffle = false;
        return dispatch_shuffled(self, batch);
    }
    while (batch->count && base->deliverable) {
        tr_subscription *top = self->heap[0];
        int error = give(self, top, batch);
        reorder(self, top);
        if (error) return error;
    }
    return TR_OK;
}

static void demand_free(tr_dispatcher *base) {
    free(of(base)->heap);
    free(base);
}

static const tr_dispatcher_class demand_class = {
    .name = "DemandDispatcher",
    .subscribe = demand_subscribe,
    .ask = demand_ask,
    .cancel = demand_cancel,
    .dispatch = demand_dispatch,
    .info = NULL, /* at once (S155) */
    .free = demand_free,
};

tr_dispatcher *tr_demand_dispatcher_new(const tr_demand_options *options) {
    demand_dispatcher *self = calloc(1, sizeof *self);
    if (!self) return NULL;
    self->base.class = &demand_class;
    self->max_demand = options->max_demand;
    self->shuffle = options->shuffle;
    self->random = options->seed;
    return &self->base;
}
