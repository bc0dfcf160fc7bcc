/* route_dispatcher.c: events to slots, see tailrace_pipeline.h.
 *
 * A subscription's `index` is its slot. Its place in the slot's array is its turn: who was served goes
 * to the end. `deliverable` is the demand reported and not yet used by an event, delivered or queued:
 * an ask raises it in full, also where the queue serves it. */
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "stage.h"
#include "tailrace_pipeline.h"

typedef struct route_slot {
    tr_subscription **subscriptions;
    size_t length, capacity;
    tr_batch *queue; /* a ring; what has demand is never queued */
    size_t head, waiting, size;
} route_slot;

typedef struct route_dispatcher {
    tr_dispatcher base;
    tr_route_options options;
    size_t queued;     /* batches, in all slots */
    uint32_t *chosen;  /* slot of each event of a batch being dispatched */
    tr_batch *parts;   /* runs of one slot in it */
    size_t room;       /* of both */
    tr_term *infos;    /* ordered messages that wait */
    size_t info_count, info_capacity;
    route_slot slots[];
} route_dispatcher;

static route_dispatcher *of(tr_dispatcher *base) { return (route_dispatcher *)base; }

static const tr_words *words_of(const route_dispatcher *self) { return &self->base.stage->words; }

/* ---- The queue of a slot -------------------------------------------------------------------------*/

static int queue_push(route_dispatcher *self, route_slot *slot, tr_batch batch) {
    if (slot->waiting == slot->size) {
        size_t size = slot->size ? slot->size * 2 : 8;
        tr_batch *ring = malloc(size * sizeof *ring);
        if (!ring) {
            tri_batch_release(&batch, words_of(self));
            return TR_ENOMEM;
        }
        for (size_t i = 0; i < slot->waiting; i++)
            ring[i] = slot->queue[(slot->head + i) % slot->size];
        free(slot->queue);
        slot->queue = ring;
        slot->size = size;
        slot->head = 0;
    }
    slot->queue[(slot->head + slot->waiting++) % slot->size] = batch;
    self->queued++;
    return TR_OK;
}

/* Take up to `limit` events from the head of the queue. */
static tr_batch queue_take(route_dispatcher *self, route_slot *slot, uint64_t limit) {
    tr_batch *first = &slot->queue[slot->head];
    tr_batch taken = tri_batch_split(first, limit < first->count ? (size_t)limit : first->count,
                                     words_of(self));
    if (!first->count) {
        slot->head = (slot->head + 1) % slot->size;
        slot->waiting--;
        self->queued--;
    }
    return taken;
}

/* ---- Delivery ------------------------------------------------------------------------------------*/

/* The subscription whose turn it is, moved to the end; NULL if none has demand. */
static tr_subscription *next_turn(route_slot *slot) {
    for (size_t i = 0; i < slot->length; i++) {
        tr_subscription *found = slot->subscriptions[i];
        if (!found->demand) continue;
        memmove(&slot->subscriptions[i], &slot->subscriptions[i + 1],
                (slot->length - i - 1) * sizeof found);
        slot->subscriptions[slot->length - 1] = found;
        return found;
    }
    return NULL;
}

/* Deliver a batch as far as the slot has demand; queue the rest. Takes it over. */
static int place(route_dispatcher *self, route_slot *slot, tr_batch batch) {
    tr_subscription *to;
    while (batch.count && !slot->waiting && (to = next_turn(slot))) {
        tr_batch part = tri_batch_split(
            &batch, to->demand < batch.count ? (size_t)to->demand : batch.count, words_of(self));
        to->demand -= part.count;
        int error = tr_stage_deliver(self->base.stage, to, part);
        if (error) {
            tri_batch_release(&batch, words_of(self));
            return error;
        }
    }
    return batch.count ? queue_push(self, slot, batch) : TR_OK;
}

/* Ordered messages are due once nothing is queued. */
static int post_infos(route_dispatcher *self) {
    int error = TR_OK;
    for (size_t i = 0; !self->queued && i < self->info_count; i++) {
        int failed = tr_stage_post(self->base.stage, self->infos[i]);
        if (!error) error = failed;
    }
    if (!self->queued) self->info_count = 0;
    return error;
}

/* ---- The class -----------------------------------------------------------------------------------*/

static int route_subscribe(tr_dispatcher *base, tr_subscription *subscription, tr_term options,
                           tr_reason **refusal) {
    route_dispatcher *self = of(base);
    size_t index = self->options.find(self->options.context, options, refusal);
    if (index >= self->options.slots) return *refusal ? TR_OK : TR_ENOMEM;
    route_slot *slot = &self->slots[index];
    if (slot->length == slot->capacity) {
        size_t capacity = slot->capacity ? slot->capacity * 2 : 2;
        tr_subscription **grown = realloc(slot->subscriptions, capacity * sizeof *grown);
        if (!grown) return TR_ENOMEM;
        slot->subscriptions = grown;
        slot->capacity = capacity;
    }
    subscription->demand = 0;
    subscription->index = index;
    slot->subscriptions[slot->length++] = subscription;
    return TR_OK;
}

static int route_ask(tr_dispatcher *base, tr_subscription *subscription, uint64_t count) {
    route_dispatcher *self = of(base);
    route_slot *slot = &self->slots[subscription->index];
    subscription->demand += count;
    base->deliverable += count;
    while (slot->waiting && subscription->demand) {
        tr_batch batch = queue_take(self, slot, subscription->demand);
        subscription->demand -= batch.count;
        int error = tr_stage_deliver(base->stage, subscription, batch);
        if (error) return error;
    }
    return post_infos(self);
}

static int route_cancel(tr_dispatcher *base, tr_subscription *subscription) {
    route_slot *slot = &of(base)->slots[subscription->index];
    base->deliverable -= subscription->demand < base->deliverable ? subscription->demand
                                                                   : base->deliverable;
    size_t i = 0;
    while (slot->subscriptions[i] != subscription) i++;
    memmove(&slot->subscriptions[i], &slot->subscriptions[i + 1],
            (--slot->length - i) * sizeof subscription);
    return TR_OK;
}

static int make_room(route_dispatcher *self, size_t count) {
    if (count <= self->room) return TR_OK;
    uint32_t *chosen = realloc(self->chosen, count * sizeof *chosen);
    if (!chosen) return TR_ENOMEM;
    self->chosen = chosen;
    tr_batch *parts = realloc(self->parts, count * sizeof *parts);
    if (!parts) return TR_ENOMEM;
    self->parts = parts;
    self->room = count;
    return TR_OK;
}

/* The events of `batch` that go to `slot`, as one batch; none: count 0. */
static int gather(route_dispatcher *self, const tr_batch *batch, uint32_t slot, tr_batch *gathered) {
    const tr_words *words = words_of(self);
    size_t parts = 0;
    for (size_t i = 0; i < batch->count; i++) {
        if (self->chosen[i] != slot) continue;
        if (i && self->chosen[i - 1] == slot)
            self->parts[parts - 1].count++;
        else
            self->parts[parts++] = (tr_batch){batch->list, batch->offset + i, 1};
    }
    *gathered = (tr_batch){0};
    if (parts > 1) return words->join(words->host, self->parts, parts, gathered);
    if (parts == 1) {
        *gathered = self->parts[0];
        words->retain(words->host, gathered->list);
    }
    return TR_OK;
}

static int route_dispatch(tr_dispatcher *base, tr_batch *batch) {
    route_dispatcher *self = of(base);
    size_t count = batch->count < base->deliverable ? batch->count : (size_t)base->deliverable;
    if (!count) return TR_OK;
    int error = make_room(self, count);
    if (error) return error;
    tr_batch taken = tri_batch_split(batch, count, words_of(self));
    for (size_t i = 0; i < count; i++)
        self->chosen[i] = (uint32_t)self->options.choose(self->options.context, taken.list,
                                                         taken.offset + i);
    base->deliverable -= count;
    for (size_t slot = 0; slot < self->options.slots; slot++) {
        tr_batch part;
        int failed = gather(self, &taken, (uint32_t)slot, &part);
        if (!failed && part.count) failed = place(self, &self->slots[slot], part);
        if (!error) error = failed;
    }
    tri_batch_release(&taken, words_of(self));
    return error;
}

static int route_info(tr_dispatcher *base, tr_term message) {
    route_dispatcher *self = of(base);
    if (!self->queued) return tr_stage_post(base->stage, message);
    if (self->info_count == self->info_capacity) {
        size_t capacity = self->info_capacity ? self->info_capacity * 2 : 4;
        tr_term *grown = realloc(self->infos, capacity * sizeof *grown);
        if (!grown) {
            words_of(self)->release(words_of(self)->host, message);
            return TR_ENOMEM;
        }
        self->infos = grown;
        self->info_capacity = capacity;
    }
    self->infos[self->info_count++] = message;
    return TR_OK;
}

static void route_free(tr_dispatcher *base) {
    route_dispatcher *self = of(base);
    for (size_t i = 0; i < self->options.slots; i++) {
        route_slot *slot = &self->slots[i];
        for (size_t j = 0; j < slot->waiting; j++)
            tri_batch_release(&slot->queue[(slot->head + j) % slot->size], words_of(self));
        free(slot->queue);
        free(slot->subscriptions);
    }
    for (size_t i = 0; i < self->info_count; i++)
        words_of(self)->release(words_of(self)->host, self->infos[i]);
    free(self->infos);
    free(self->chosen);
    free(self->parts);
    if (self->options.free) self->options.free(self->options.context);
    free(self);
}

static const tr_dispatcher_class route_class = {
    .name = "RouteDispatcher",
    .subscribe = route_subscribe,
    .ask = route_ask,
    .cancel = route_cancel,
    .dispatch = route_dispatch,
    .info = route_info,
    .free = route_free,
};

tr_dispatcher *tr_route_dispatcher_new(const tr_route_options *options) {
    route_dispatcher *self =
        calloc(1, sizeof *self + options->slots * sizeof self->slots[0]);
    if (!self) return NULL;
    self->base.class = &route_class;
    self->options = *options;
    return &self->base;
}
