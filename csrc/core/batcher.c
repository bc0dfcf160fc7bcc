/* batcher.c: counts and deadlines of open batches, see tailrace_pipeline.h. */
#include "tailrace_pipeline.h"

void tr_batcher_init(tr_batcher *batcher, uint64_t size, uint64_t timeout) {
    *batcher = (tr_batcher){.size = size, .timeout = timeout};
}

void tr_batcher_open(tr_batcher *batcher, tr_open_batch *batch, uint64_t now) {
    uint64_t timeout = batcher->timeout;
    batch->deadline = now > UINT64_MAX - timeout ? TR_FOREVER : now + timeout;
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

bool tr_batcher_add(const tr_batcher *batcher, tr_open_batch *batch) {
    return ++batch->count == batcher->size;
}

void tr_batcher_close(tr_batcher *batcher, tr_open_batch *batch) {
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

tr_open_batch *tr_batcher_expired(const tr_batcher *batcher, uint64_t now) {
    tr_open_batch *first = batcher->first;
    return first && first->deadline <= now ? first : NULL;
}

uint64_t tr_batcher_deadline(const tr_batcher *batcher) {
    return batcher->first ? batcher->first->deadline : TR_FOREVER;
}
