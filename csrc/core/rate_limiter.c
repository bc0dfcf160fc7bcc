/* rate_limiter.c: the window counter, see tailrace_pipeline.h. Every entry point catches up with the
 * time first. Lock order: the limiter's lock is a leaf. */
#include <pthread.h>
#include <stdlib.h>

#include "tailrace_pipeline.h"

struct tr_limiter {
    pthread_mutex_t lock;
    uint64_t allowed; /* per window from the next one on */
    uint64_t interval;
    uint64_t left; /* in this window */
    uint64_t ends; /* end of this window */
};

static uint64_t add_saturating(uint64_t left, uint64_t right) {
    return left > UINT64_MAX - right ? UINT64_MAX : left + right;
}

/* Enter the window that contains `now`. The windows in between held nothing anybody could still
 * use; they only fix where the present one begins. */
static void catch_up(tr_limiter *limiter, uint64_t now) {
    if (now < limiter->ends)
        return;
    uint64_t late = (now - limiter->ends) % limiter->interval;
    limiter->ends = add_saturating(now - late, limiter->interval);
    limiter->left = limiter->allowed;
}

int tr_limiter_new(uint64_t allowed, uint64_t interval, uint64_t now, tr_limiter **limiter) {
    if (allowed == 0 || interval == 0)
        return TR_EINVAL;
    tr_limiter *made = malloc(sizeof *made);
    if (made == NULL)
        return TR_ENOMEM;
    if (pthread_mutex_init(&made->lock, NULL) != 0) {
        free(made);
        return TR_ENOMEM;
    }
    made->allowed = made->left = allowed;
    made->interval = interval;
    made->ends = add_saturating(now, interval);
    *limiter = made;
    return TR_OK;
}

void tr_limiter_free(tr_limiter *limiter) {
    pthread_mutex_destroy(&limiter->lock);
    free(limiter);
}

uint64_t tr_limiter_take(tr_limiter *limiter, uint64_t wanted, uint64_t now) {
    pthread_mutex_lock(&limiter->lock);
    catch_up(limiter, now);
    uint64_t granted = wanted < limiter->left ? wanted : limiter->left;
    limiter->left -= granted;
    pthread_mutex_unlock(&limiter->lock);
    return granted;
}

uint64_t tr_limiter_left(tr_limiter *limiter, uint64_t now) {
    pthread_mutex_lock(&limiter->lock);
    catch_up(limiter, now);
    uint64_t left = limiter->left;
    pthread_mutex_unlock(&limiter->lock);
    return left;
}

uint64_t tr_limiter_reopens(tr_limiter *limiter, uint64_t now) {
    pthread_mutex_lock(&limiter->lock);
    catch_up(limiter, now);
    uint64_t ends = limiter->ends;
    pthread_mutex_unlock(&limiter->lock);
    return ends;
}

void tr_limiter_update(tr_limiter *limiter, uint64_t allowed, uint64_t interval, bool reset,
                       uint64_t now) {
    pthread_mutex_lock(&limiter->lock);
    catch_up(limiter, now);
    if (allowed != 0)
        limiter->allowed = allowed;
    if (interval != 0)
        limiter->interval = interval;
    if (reset) {
        limiter->left = limiter->allowed;
        limiter->ends = add_saturating(now, limiter->interval);
    }
    pthread_mutex_unlock(&limiter->lock);
}

void tr_limiter_settings(tr_limiter *limiter, uint64_t *allowed, uint64_t *interval) {
    pthread_mutex_lock(&limiter->lock);
    *allowed = limiter->allowed;
    *interval = limiter->interval;
    pthread_mutex_unlock(&limiter->lock);
}
