/* batch.h: letting go of batches and cutting them. What a batch is: tailrace_stage.h.
 *
 * Who owns: whoever holds the tr_batch. A function that takes one over takes it also on failure.
 * Threads: as the stage it belongs to. Costs: O(1). */
#ifndef TRI_BATCH_H
#define TRI_BATCH_H

#include "tailrace_stage.h"

static inline void tri_batch_release(tr_batch *batch, const tr_words *words) {
    if (batch->list) words->release(words->host, batch->list);
    *batch = (tr_batch){0};
}

/* Take the first `count` events, at most all, out of `batch`; it keeps the rest. */
static inline tr_batch tri_batch_split(tr_batch *batch, size_t count, const tr_words *words) {
    tr_batch head = *batch;
    if (count >= batch->count) {
        *batch = (tr_batch){0};
        return head;
    }
    words->retain(words->host, batch->list);
    head.count = count;
    batch->offset += count;
    batch->count -= count;
    return head;
}

#endif
