/* test_batcher.c: counts and deadlines of open batches (P73 to P78), time passed in by hand. */
#include "check.h"
#include "tailrace_pipeline.h"

static void a_batch_is_full_at_its_size(void) { /* P74 */
    tr_batcher batcher;
    tr_open_batch batch;
    tr_batcher_init(&batcher, 3, 100);
    tr_batcher_open(&batcher, &batch, 0);
    CHECK(!tr_batcher_add(&batcher, &batch));
    CHECK(!tr_batcher_add(&batcher, &batch));
    CHECK(tr_batcher_add(&batcher, &batch));
    tr_batcher_close(&batcher, &batch);
    CHECK_EQ(batcher.open, 0);
    CHECK_EQ(tr_batcher_deadline(&batcher), UINT64_MAX);
}

static void size_zero_is_never_full(void) {
    tr_batcher batcher;
    tr_open_batch batch;
    tr_batcher_init(&batcher, 0, 100);
    tr_batcher_open(&batcher, &batch, 0);
    for (int i = 0; i < 1000; i++)
        CHECK(!tr_batcher_add(&batcher, &batch));
    tr_batcher_close(&batcher, &batch);
}

static void time_runs_from_the_first_message(void) { /* P76, P77 */
    tr_batcher batcher;
    tr_open_batch batch;
    tr_batcher_init(&batcher, 10, 100);
    tr_batcher_open(&batcher, &batch, 5);
    tr_batcher_add(&batcher, &batch);
    tr_batcher_add(&batcher, &batch);
    CHECK_EQ(tr_batcher_deadline(&batcher), 105);
    CHECK(tr_batcher_expired(&batcher, 104) == NULL);
    CHECK(tr_batcher_expired(&batcher, 105) == &batch);
    tr_batcher_close(&batcher, &batch);
    CHECK(tr_batcher_expired(&batcher, 1000) == NULL);
}

static void batches_expire_in_the_order_they_opened(void) { /* P73, P78 */
    tr_batcher batcher;
    tr_open_batch batches[3];
    tr_batcher_init(&batcher, 10, 100);
    for (int i = 0; i < 3; i++)
        tr_batcher_open(&batcher, &batches[i], (uint64_t)i);
    tr_batcher_close(&batcher, &batches[1]);
    CHECK(tr_batcher_expired(&batcher, 200) == &batches[0]);
    tr_batcher_close(&batcher, &batches[0]);
    CHECK(tr_batcher_expired(&batcher, 101) == NULL);
    CHECK(tr_batcher_expired(&batcher, 102) == &batches[2]);
    tr_batcher_open(&batcher, &batches[1], 50);
    CHECK_EQ(tr_batcher_deadline(&batcher), 102);
    tr_batcher_close(&batcher, &batches[2]);
    CHECK_EQ(tr_batcher_deadline(&batcher), 150);
    tr_batcher_close(&batcher, &batches[1]);
    CHECK_EQ(batcher.open, 0);
}

static void an_endless_timeout_does_not_overflow(void) {
    tr_batcher batcher;
    tr_open_batch batch;
    tr_batcher_init(&batcher, 1, UINT64_MAX);
    tr_batcher_open(&batcher, &batch, 7);
    CHECK_EQ(tr_batcher_deadline(&batcher), UINT64_MAX);
    tr_batcher_close(&batcher, &batch);
}

int main(void) {
    RUN(a_batch_is_full_at_its_size);
    RUN(size_zero_is_never_full);
    RUN(time_runs_from_the_first_message);
    RUN(batches_expire_in_the_order_they_opened);
    RUN(an_endless_timeout_does_not_overflow);
    return check_report();
}
