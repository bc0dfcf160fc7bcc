/* queue.c: the growing ring. */
#include "queue.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 8, KEPT_CAPACITY = 256 };

static int grow(tri_queue *queue) {
    if (queue->length < queue->capacity) return TR_OK;
    size_t capacity = queue->capacity ? queue->capacity * 2 : FIRST_CAPACITY;
    if (capacity > SIZE_MAX / sizeof(tri_item)) return TR_ENOMEM;
    tri_item *items = malloc(capacity * sizeof *items);
    if (!items) return TR_ENOMEM;
    for (size_t i = 0; i < queue->length; i++) items[i] = *tri_queue_at(queue, i);
    free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    queue->head = 0;
    return TR_OK;
}

int tri_queue_push(tri_queue *queue, const tri_item *item) {
    if (grow(queue)) return TR_ENOMEM;
    *tri_queue_at(queue, queue->length) = *item;
    queue->length++;
    return TR_OK;
}

int tri_queue_push_front(tri_queue *queue, const tri_item *item) {
    if (grow(queue)) return TR_ENOMEM;
    queue->head = (queue->head - 1) & (queue->capacity - 1);
    queue->items[queue->head] = *item;
    queue->length++;
    return TR_OK;
}

tri_item tri_queue_pop(tri_queue *queue) {
    tri_item item = queue->items[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->length--;
    if (!queue->length && queue->capacity > KEPT_CAPACITY) tri_queue_fini(queue);
    return item;
}

void tri_queue_fini(tri_queue *queue) {
    free(queue->items);
    *queue = (tri_queue){0};
}
