/* batcher.c: see batcher.h. */
#include "batcher.h"

#include <stddef.h>

void tr_batcher_init(tr_batcher *batcher, uint64_t size, uint64_t timeout) {
    *batcher = (tr_batcher){.size = size, .timeout = timeout};
}

void tr_batcher_open(tr_batcher *batcher, tr_batch *batch, uint64_t now) {
    uint64_t timeout = batcher->timeout;
    batch->deadline = now > UINT64_MAX - timeout ? UINT64_MAX : now + timeout;
    batch->count = 0;
    batch->next = NULL;
    batch->previous = batcher->last;
    if (batcher->last)
        batcher->last->next = batch;
    else
        batcher->first = batch;
    batcher->last = batch;
    batcher->open++;
}

void tr_batcher_close(tr_batcher *batcher, tr_batch *batch) {
    if (batch->previous)
        batch->previous->next = batch->next;
    else
        batcher->first = batch->next;
    if (batch->next)
        batch->next->previous = batch->previous;
    else
        batcher->last = batch->previous;
    batcher->open--;
}

tr_batch *tr_batcher_expired(const tr_batcher *batcher, uint64_t now) {
    tr_batch *first = batcher->first;
    return first && first->deadline <= now ? first : NULL;
}

uint64_t tr_batcher_deadline(const tr_batcher *batcher) {
    return batcher->first ? batcher->first->deadline : UINT64_MAX;
}
