/* batch.h: events on their way between stages: a view of a list of the host's.
 *
 * A batch is `count` events of `list`, from `offset`, and owns one reference to the list. Cutting a
 * batch in two costs a reference, whatever its length; dropping events moves a bound. The host makes
 * a list of its own from a view only when it hands it to a callback, and not even then when the view
 * is a whole list: a batch that nobody cut is the list that was emitted, its events never touched.
 *
 * Who owns: whoever holds the tr_batch. A function that takes one over takes it also on failure.
 * Threads: as the stage it belongs to. Costs: O(1). */
#ifndef TRI_BATCH_H
#define TRI_BATCH_H

#include "tailrace.h"

typedef struct tr_batch {
    tr_term list;  /* NULL: no events */
    size_t offset; /* of the first event */
    size_t count;
} tr_batch;

/* What the host can do with its lists and messages. Called on the stage's own thread. */
typedef struct tr_words {
    void *host;
    void (*retain)(void *host, tr_term word);
    void (*release)(void *host, tr_term word);
    /* One batch with the events of `parts` (at least two), in order. The parts stay the caller's.
     * TR_ENOMEM. */
    int (*join)(void *host, const tr_batch *parts, size_t count, tr_batch *joined);
} tr_words;

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
