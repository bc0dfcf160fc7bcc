/* test_rate_limiter.c: the window counter (P119 to P131), with time passed in by hand. */
#include "check.h"
#include "tailrace_pipeline.h"

#include <pthread.h>

static void starts_full_and_closes_at_zero(void) { /* P120, P121, P123 */
    tr_limiter *limiter;
    CHECK_EQ(tr_limiter_new(3, 100, 1000, &limiter), TR_OK);
    CHECK_EQ(tr_limiter_take(limiter, 2, 1000), 2);
    CHECK_EQ(tr_limiter_left(limiter, 1050), 1);
    CHECK_EQ(tr_limiter_take(limiter, 5, 1099), 1);
    CHECK_EQ(tr_limiter_take(limiter, 1, 1099), 0);
    CHECK_EQ(tr_limiter_reopens(limiter, 1099), 1100);
    CHECK_EQ(tr_limiter_take(limiter, 5, 1100), 3);
    tr_limiter_free(limiter);
}

static void nothing_is_carried_over(void) { /* P120 */
    tr_limiter *limiter;
    CHECK_EQ(tr_limiter_new(2, 100, 0, &limiter), TR_OK);
    CHECK_EQ(tr_limiter_take(limiter, 9, 1234), 2);
    CHECK_EQ(tr_limiter_reopens(limiter, 1234), 1300);
    tr_limiter_free(limiter);
}

static void an_update_waits_for_the_window_in_progress(void) { /* P126, P127 */
    tr_limiter *limiter;
    uint64_t allowed, interval;
    CHECK_EQ(tr_limiter_new(1, 100, 0, &limiter), TR_OK);
    CHECK_EQ(tr_limiter_take(limiter, 1, 0), 1);
    tr_limiter_update(limiter, 3, 50, false, 10);
    tr_limiter_settings(limiter, &allowed, &interval);
    CHECK_EQ(allowed, 3);
    CHECK_EQ(interval, 50);
    CHECK_EQ(tr_limiter_left(limiter, 99), 0);
    CHECK_EQ(tr_limiter_reopens(limiter, 99), 100);
    CHECK_EQ(tr_limiter_take(limiter, 9, 100), 3);
    CHECK_EQ(tr_limiter_reopens(limiter, 100), 150);
    tr_limiter_free(limiter);
}

static void a_reset_begins_a_new_window(void) { /* P128 */
    tr_limiter *limiter;
    CHECK_EQ(tr_limiter_new(1, 100, 0, &limiter), TR_OK);
    CHECK_EQ(tr_limiter_take(limiter, 4, 0), 1);
    tr_limiter_update(limiter, 3, 0, true, 60);
    CHECK_EQ(tr_limiter_take(limiter, 4, 60), 3);
    CHECK_EQ(tr_limiter_reopens(limiter, 60), 160);
    tr_limiter_free(limiter);
}

static void refuses_what_cannot_flow(void) {
    tr_limiter *limiter;
    CHECK_EQ(tr_limiter_new(0, 100, 0, &limiter), TR_EINVAL);
    CHECK_EQ(tr_limiter_new(1, 0, 0, &limiter), TR_EINVAL);
}

static void an_endless_window_does_not_overflow(void) {
    tr_limiter *limiter;
    CHECK_EQ(tr_limiter_new(1, UINT64_MAX, 5, &limiter), TR_OK);
    CHECK_EQ(tr_limiter_reopens(limiter, 5), UINT64_MAX);
    tr_limiter_free(limiter);
}

typedef struct taker {
    tr_limiter *limiter;
    uint64_t granted;
} taker;

static void *take_many(void *argument) {
    taker *self = argument;
    for (int i = 0; i < 20000; i++)
        self->granted += tr_limiter_take(self->limiter, 1, 0);
    return NULL;
}

static void threads_share_one_allowance(void) { /* P119 */
    tr_limiter *limiter;
    taker takers[4];
    pthread_t threads[4];
    uint64_t granted = 0;
    CHECK_EQ(tr_limiter_new(50000, 100, 0, &limiter), TR_OK);
    for (int i = 0; i < 4; i++) {
        takers[i] = (taker){.limiter = limiter};
        CHECK_EQ(pthread_create(&threads[i], NULL, take_many, &takers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        granted += takers[i].granted;
    }
    CHECK_EQ(granted, 50000);
    tr_limiter_free(limiter);
}

int main(void) {
    RUN(starts_full_and_closes_at_zero);
    RUN(nothing_is_carried_over);
    RUN(an_update_waits_for_the_window_in_progress);
    RUN(a_reset_begins_a_new_window);
    RUN(refuses_what_cannot_flow);
    RUN(an_endless_window_does_not_overflow);
    RUN(threads_share_one_allowance);
    return check_report();
}
