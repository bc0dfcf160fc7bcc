/* batcher.h: which batch leaves when.
 *
 * A batcher keeps one open batch per key. A batch leaves when it has `size` messages, when `timeout`
 * has passed since its first message, or when it is told to (flush). This file keeps count and time;
 * what a key and a message are, and finding the open batch of a key, is the host's.
 *
 * The host embeds a tr_batch in whatever holds the messages of one open batch. All batches of a
 * batcher wait equally long, so the order of opening is the order of expiry: the open batches form a
 * list with the next to expire in front, and one timer for the first suffices. Everything is O(1).
 *
 * No locks: a batcher belongs to the one process that runs it. Nothing is allocated; a batch that
 * was opened must be closed before it is freed. Times are nanoseconds of one clock. */
#ifndef TRI_BATCHER_H
#define TRI_BATCHER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tr_batch {
    struct tr_batch *next, *previous;
    uint64_t count;    /* messages in it */
    uint64_t deadline; /* when it leaves at the latest */
} tr_batch;

typedef struct tr_batcher {
    tr_batch *first, *last;
    uint64_t size; /* 0: never full by number */
    uint64_t timeout;
    uint64_t open; /* batches in the list */
} tr_batcher;

void tr_batcher_init(tr_batcher *batcher, uint64_t size, uint64_t timeout);

/* A new batch, empty: its time runs from now. */
void tr_batcher_open(tr_batcher *batcher, tr_batch *batch, uint64_t now);

/* One more message is in it; whether the batch is full. */
static inline bool tr_batcher_add(tr_batcher *batcher, tr_batch *batch) {
    return ++batch->count == batcher->size;
}

/* The batch leaves, for whatever reason. */
void tr_batcher_close(tr_batcher *batcher, tr_batch *batch);

/* The first batch whose time has come, still open; NULL if there is none. */
tr_batch *tr_batcher_expired(const tr_batcher *batcher, uint64_t now);

/* When the next batch expires; UINT64_MAX if none is open. */
uint64_t tr_batcher_deadline(const tr_batcher *batcher);

#endif
