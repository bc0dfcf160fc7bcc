/* tailrace_pipeline.h: what a pipeline of stages needs besides the stages: a rate limiter, the
 * accounting of batches, a dispatcher that routes.
 *
 * None of them knows what a message is or calls back but where said. Times are nanoseconds of
 * whatever clock the caller reads; they are passed in. */
#ifndef TAILRACE_PIPELINE_H
#define TAILRACE_PIPELINE_H

#include "tailrace.h"

/* ---- Rate limiter -------------------------------------------------------------------------------
 * How many messages may still be released in the present window of time. One counter, shared by all
 * producers of a pipeline. Time is cut into windows of `interval`; each begins with `allowed`
 * messages and nothing is carried over. Windows have no timer of their own: whoever takes or looks
 * passes the time in, and windows that have ended meanwhile are caught up with. Waking those who
 * wait for the next window is the caller's business; tr_limiter_reopens says when.
 *
 * Any thread may call anything; a short lock of the limiter's own serialises them. O(1). */

typedef struct tr_limiter tr_limiter;

/* A limiter whose first window begins now, full. TR_EINVAL if allowed or interval is 0; TR_ENOMEM. */
int tr_limiter_new(uint64_t allowed, uint64_t interval, uint64_t now, tr_limiter **limiter);
void tr_limiter_free(tr_limiter *limiter);

/* Take up to `wanted` out of this window; how many were granted. */
uint64_t tr_limiter_take(tr_limiter *limiter, uint64_t wanted, uint64_t now);

/* How many are left in this window; 0 means the gate is closed. */
uint64_t tr_limiter_left(tr_limiter *limiter, uint64_t now);

/* When this window ends: the next moment a closed gate opens by itself. Always after `now`. */
uint64_t tr_limiter_reopens(tr_limiter *limiter, uint64_t now);

/* New settings; 0 keeps the old one. With `reset` a new, full window begins at once, otherwise they
 * hold from the end of the window in progress, which keeps its length. */
void tr_limiter_update(tr_limiter *limiter, uint64_t allowed, uint64_t interval, bool reset,
                       uint64_t now);

/* The settings last asked for, in force or not. */
void tr_limiter_settings(tr_limiter *limiter, uint64_t *allowed, uint64_t *interval);

/* ---- Batcher ------------------------------------------------------------------------------------
 * Which batch leaves when. A batcher keeps one open batch per key. A batch leaves when it has `size`
 * messages, when `timeout` has passed since its first message, or when it is told to. Here are count
 * and time; what a key and a message are, and finding the open batch of a key, is the host's.
 *
 * The host embeds a tr_open_batch in whatever holds the messages of one open batch. All batches of a
 * batcher wait equally long, so the order of opening is the order of expiry: the open batches form a
 * list with the next to expire in front, and one timer for the first suffices. Everything is O(1).
 *
 * No locks: a batcher belongs to the one process that runs it. Nothing is allocated; a batch that
 * was opened must be closed before it is freed. */

typedef struct tr_open_batch {
    struct tr_open_batch *next, *previous;
    uint64_t count;    /* messages in it */
    uint64_t deadline; /* when it leaves at the latest */
} tr_open_batch;

typedef struct tr_batcher {
    tr_open_batch *first, *last;
    uint64_t size; /* 0: never full by number */
    uint64_t timeout;
    uint64_t open; /* batches in the list */
} tr_batcher;

void tr_batcher_init(tr_batcher *batcher, uint64_t size, uint64_t timeout);

/* A new batch, empty: its time runs from now. */
void tr_batcher_open(tr_batcher *batcher, tr_open_batch *batch, uint64_t now);

/* One more message is in it; whether the batch is full. */
bool tr_batcher_add(const tr_batcher *batcher, tr_open_batch *batch);

/* The batch leaves, for whatever reason. */
void tr_batcher_close(tr_batcher *batcher, tr_open_batch *batch);

/* The first batch whose time has come, still open; NULL if there is none. */
tr_open_batch *tr_batcher_expired(const tr_batcher *batcher, uint64_t now);

/* When the next batch expires; TR_FOREVER if none is open. */
uint64_t tr_batcher_deadline(const tr_batcher *batcher);

/* ---- Route dispatcher ---------------------------------------------------------------------------
 * Each event goes to the slot that the host names for it. A stage in front of several kinds of
 * consumers has one slot for each kind. A subscription serves one slot, a slot any number of
 * subscriptions: the one with demand that was served the longest time ago gets the next batch.
 * Events of a slot without demand wait in its queue, in order, also while nobody serves it, so that
 * whoever replaces a consumer that ended gets them. The queues are bounded by the demand of all slots
 * together: an event is taken only for demand that was reported. Ordered messages are due when no
 * slot has anything queued.
 *
 * A part of a stage: only the thread that runs it. Costs: dispatch of n events over s slots O(n s)
 * comparisons of integers, one batch per slot; ask and cancel O(subscriptions of the slot). */

typedef struct tr_route_options {
    size_t slots;  /* at least 1 */
    void *context; /* the host's, for the functions below */
    /* The slot of the event at `index` of `list`, below `slots`. */
    size_t (*choose)(void *context, tr_term list, size_t index);
    /* The slot that these subscription options name. If none: `slots` or above, and *refusal
     * (owned) says why, or stays NULL when memory is short. */
    size_t (*find)(void *context, tr_term options, tr_reason **refusal);
    void (*free)(void *context); /* may be NULL */
} tr_route_options;

/* A tr_dispatcher of tailrace_stage.h. NULL when memory is short (`context` stays the caller's). The
 * stage it is given to frees it. */
struct tr_dispatcher *tr_route_dispatcher_new(const tr_route_options *options);

#endif
