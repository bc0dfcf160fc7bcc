/* rate_limiter.h: how many messages may still be released in the present window of time.
 *
 * One counter, shared by all producers of a pipeline. Time is cut into windows of `interval`; each
 * begins with `allowed` messages and nothing is carried over. Windows have no timer of their own:
 * whoever takes or looks passes the time in, and windows that have ended meanwhile are caught up
 * with. Waking those who wait for the next window is the caller's business; tr_limiter_reopens says
 * when.
 *
 * A change of the settings waits for the end of the window in progress, which keeps its length, or
 * begins a new window at once.
 *
 * The owner embeds the struct. Any thread may call anything; a short lock of its own serialises
 * them, nothing is called under it. Everything is O(1). Times are nanoseconds of one clock. */
#ifndef TRI_RATE_LIMITER_H
#define TRI_RATE_LIMITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct tr_limiter {
    pthread_mutex_t lock;
    uint64_t allowed; /* per window from the next one on */
    uint64_t interval;
    uint64_t left;    /* in this window */
    uint64_t ends;    /* end of this window */
} tr_limiter;

/* A limiter whose first window begins now, full. TR_EINVAL if allowed or interval is 0; TR_ENOMEM. */
int tr_limiter_init(tr_limiter *limiter, uint64_t allowed, uint64_t interval, uint64_t now);
void tr_limiter_fini(tr_limiter *limiter);

/* Take up to `wanted` out of this window; how many were granted. */
uint64_t tr_limiter_take(tr_limiter *limiter, uint64_t wanted, uint64_t now);

/* How many are left in this window; 0 means the gate is closed. */
uint64_t tr_limiter_left(tr_limiter *limiter, uint64_t now);

/* When this window ends: the next moment a closed gate opens by itself. Always after `now`. */
uint64_t tr_limiter_reopens(tr_limiter *limiter, uint64_t now);

/* New settings; 0 keeps the old one. With `reset` a new, full window begins at once, otherwise they
 * hold from the next window on. */
void tr_limiter_update(tr_limiter *limiter, uint64_t allowed, uint64_t interval, bool reset,
                       uint64_t now);

/* The settings last asked for, in force or not. */
void tr_limiter_settings(tr_limiter *limiter, uint64_t *allowed, uint64_t *interval);

#endif
