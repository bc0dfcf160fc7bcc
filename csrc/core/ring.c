/* ring.c: the growing ring. */
#include "ring.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 8, KEPT_CAPACITY = 256 };

static int grow(tri_ring *ring) {
    if (ring->length < ring->capacity) return TR_OK;
    size_t capacity = ring->capacity ? ring->capacity * 2 : FIRST_CAPACITY;
    if (capacity > SIZE_MAX / sizeof(tri_item)) return TR_ENOMEM;
    tri_item *items = malloc(capacity * sizeof *items);
    if (!items) return TR_ENOMEM;
    for (size_t i = 0; i < ring->length; i++) items[i] = *tri_ring_at(ring, i);
    free(ring->items);
    ring->items = items;
    ring->capacity = capacity;
    ring->head = 0;
    return TR_OK;
}

int tri_ring_push(tri_ring *ring, const tri_item *item) {
    if (grow(ring)) return TR_ENOMEM;
    *tri_ring_at(ring, ring->length) = *item;
    ring->length++;
    return TR_OK;
}

int tri_ring_push_front(tri_ring *ring, const tri_item *item) {
    if (grow(ring)) return TR_ENOMEM;
    ring->head = (ring->head - 1) & (ring->capacity - 1);
    ring->items[ring->head] = *item;
    ring->length++;
    return TR_OK;
}

tri_item tri_ring_pop(tri_ring *ring) {
    tri_item item = ring->items[ring->head];
    ring->head = (ring->head + 1) & (ring->capacity - 1);
    ring->length--;
    if (!ring->length && ring->capacity > KEPT_CAPACITY) tri_ring_fini(ring);
    return item;
}

void tri_ring_fini(tri_ring *ring) {
    free(ring->items);
    *ring = (tri_ring){0};
}
