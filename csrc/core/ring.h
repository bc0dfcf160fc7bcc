/* ring.h: a growing ring of things that wait inside a stage, in arrival order.
 *
 * Three waits use it: the output buffer (events, infos), the input of a ProducerConsumer (events,
 * infos, ends of subscriptions) and what a Producer in accumulate mode holds back (events, infos,
 * demand).
 *
 * Who owns: an item owns its batch, word, reason and reference to its subscription; the ring only
 * stores items and releases nothing. Threads: only the one that runs the stage; no locks. Costs: all
 * O(1), push amortised; 56 bytes per item; a ring that grew large gives its memory back once empty.
 * A zeroed ring is an empty one. */
#ifndef TRI_RING_H
#define TRI_RING_H

#include "batch.h"

typedef enum tri_item_kind {
    TRI_ITEM_EVENTS, /* batch; of input: subscription */
    TRI_ITEM_INFO,   /* word: an ordered message */
    TRI_ITEM_DEMAND, /* number: demand held back */
    TRI_ITEM_CANCEL  /* subscription, reason; number: TR_CANCELLED or TR_WENT_DOWN */
} tri_item_kind;

typedef struct tri_item {
    tri_item_kind kind;
    tr_batch batch;
    tr_subscription *subscription;
    union {
        tr_term word;
        tr_reason *reason;
    };
    uint64_t number;
} tri_item;

typedef struct tri_ring {
    tri_item *items; /* capacity a power of two, or NULL */
    size_t capacity;
    size_t head;
    size_t length;
} tri_ring;

/* TR_ENOMEM: nothing has changed, the item is still the caller's. */
int tri_ring_push(tri_ring *ring, const tri_item *item);
int tri_ring_push_front(tri_ring *ring, const tri_item *item);
/* The ring must not be empty. */
tri_item tri_ring_pop(tri_ring *ring);

/* `index` 0 is the oldest; must be below length. Valid until the next push or pop. */
static inline tri_item *tri_ring_at(const tri_ring *ring, size_t index) {
    return &ring->items[(ring->head + index) & (ring->capacity - 1)];
}

/* Forget the ring; the caller has taken everything out. */
void tri_ring_fini(tri_ring *ring);

#endif
