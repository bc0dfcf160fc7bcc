/* parker.c: see parker.h. */
#include "parker.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#include "tailrace.h"

enum { EMPTY, TOKEN, SLEEPING };

#ifdef __linux__

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

int tri_parker_init(tri_parker *parker) {
    atomic_init(&parker->word, EMPTY);
    return TR_OK;
}

void tri_parker_fini(tri_parker *parker) { (void)parker; }

static int sleep_while_sleeping(tri_parker *parker, uint64_t deadline) {
    struct timespec limit = {.tv_sec = (time_t)(deadline / 1000000000u),
                             .tv_nsec = (long)(deadline % 1000000000u)};
    long result = syscall(SYS_futex, &parker->word, FUTEX_WAIT_BITSET_PRIVATE, SLEEPING,
                          deadline == TR_FOREVER ? NULL : &limit, NULL, FUTEX_BITSET_MATCH_ANY);
    if (result == -1 && errno == ETIMEDOUT) return TR_ETIMEDOUT;
    if (result == -1 && errno == EINTR) return TR_EINTR;
    return TR_OK; /* woken, or the word had changed: the caller looks */
}

int tri_parker_park(tri_parker *parker, uint64_t deadline) {
    uint32_t expected = EMPTY;
    if (!atomic_compare_exchange_strong(&parker->word, &expected, SLEEPING)) {
        atomic_exchange(&parker->word, EMPTY);
        return TR_OK;
    }
    for (;;) {
        int result = sleep_while_sleeping(parker, deadline);
        expected = TOKEN;
        if (atomic_compare_exchange_strong(&parker->word, &expected, EMPTY)) return TR_OK;
        if (result == TR_OK) continue; /* spurious */
        /* Stop sleeping, unless a token came at the last moment. */
        return atomic_exchange(&parker->word, EMPTY) == TOKEN ? TR_OK : result;
    }
}

void tri_parker_unpark(tri_parker *parker) {
    if (atomic_exchange(&parker->word, TOKEN) == SLEEPING)
        syscall(SYS_futex, &parker->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#else

int tri_parker_init(tri_parker *parker) {
    atomic_init(&parker->word, EMPTY);
    if (pthread_mutex_init(&parker->mutex, NULL) != 0) return TR_ENOMEM;
    if (pthread_cond_init(&parker->wake, NULL) != 0) {
        pthread_mutex_destroy(&parker->mutex);
        return TR_ENOMEM;
    }
    return TR_OK;
}

void tri_parker_fini(tri_parker *parker) {
    pthread_cond_destroy(&parker->wake);
    pthread_mutex_destroy(&parker->mutex);
}

/* Darwin has no absolute monotonic wait: one relative wait at most 50 ms long, reported as EINTR
 * so that the caller looks for signals, which a condition variable does not tell of. */
static int wait_a_little(tri_parker *parker, uint64_t deadline) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (time >= deadline) return TR_ETIMEDOUT;
    uint64_t left = deadline - time < 50000000u ? deadline - time : 50000000u;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t until = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + left;
    struct timespec limit = {.tv_sec = (time_t)(until / 1000000000u),
                             .tv_nsec = (long)(until % 1000000000u)};
    pthread_cond_timedwait(&parker->wake, &parker->mutex, &limit);
    return TR_EINTR;
}

int tri_parker_park(tri_parker *parker, uint64_t deadline) {
    int result = TR_OK;
    pthread_mutex_lock(&parker->mutex);
    if (atomic_load(&parker->word) != TOKEN) result = wait_a_little(parker, deadline);
    if (atomic_exchange(&parker->word, EMPTY) == TOKEN) result = TR_OK;
    pthread_mutex_unlock(&parker->mutex);
    return result;
}

void tri_parker_unpark(tri_parker *parker) {
    pthread_mutex_lock(&parker->mutex);
    atomic_store(&parker->word, TOKEN);
    pthread_cond_signal(&parker->wake);
    pthread_mutex_unlock(&parker->mutex);
}

#endif
