/* test_timer.c: the timer wheel and the clock (O69: never early; O94: cost independent of the
 * number of timers). Time is a number here: nothing sleeps. */
#include "../../csrc/core/clock.h"
#include "../../csrc/core/timer.h"
#include "check.h"

#include <string.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)

static uint64_t random_state = 88172645463325252u;

static uint64_t random_word(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static tri_wheel wheel;

static int length(const tri_timer *timer) {
    int count = 0;
    for (; timer != NULL; timer = timer->next) {
        count++;
    }
    return count;
}

static void an_empty_wheel_waits_for_ever(void) {
    tri_wheel_init(&wheel, 5);
    CHECK(tri_wheel_next(&wheel) == UINT64_MAX);
    CHECK(tri_wheel_advance(&wheel, UINT64_MAX) == NULL);
    CHECK(tri_wheel_next(&wheel) == UINT64_MAX);
    tri_wheel_fini(&wheel);
}

static void a_timer_is_never_early_O69(void) {
    tri_timer timer = {0};
    tri_wheel_init(&wheel, 7);
    tri_wheel_add(&wheel, &timer, 7 + 10 * MS);
    CHECK(tri_timer_pending(&timer));
    CHECK(tri_wheel_next(&wheel) == 7 + 10 * MS);
    CHECK(tri_wheel_advance(&wheel, 7 + 10 * MS - 1) == NULL);
    CHECK(tri_wheel_next(&wheel) == 7 + 10 * MS);
    CHECK(tri_wheel_advance(&wheel, 7 + 10 * MS) == &timer);
    CHECK(timer.next == NULL && !tri_timer_pending(&timer));
    CHECK(tri_wheel_advance(&wheel, HOUR) == NULL);
}

static void a_passed_deadline_is_due_at_once(void) {
    tri_timer late = {0}, later = {0}, now = {0};
    tri_wheel_init(&wheel, 100 * SECOND);
    tri_wheel_add(&wheel, &late, 99 * SECOND);
    tri_wheel_add(&wheel, &later, 0);
    tri_wheel_add(&wheel, &now, 100 * SECOND);
    CHECK(tri_wheel_next(&wheel) <= 100 * SECOND);
    tri_timer *expired = tri_wheel_advance(&wheel, 100 * SECOND);
    CHECK(expired == &late && late.next == &later && later.next == &now && now.next == NULL);
}

static void a_clock_read_before_the_last_one_still_expires(void) {
    tri_timer timer = {0};
    tri_wheel_init(&wheel, 0);
    CHECK(tri_wheel_advance(&wheel, SECOND) == NULL);
    tri_wheel_add(&wheel, &timer, SECOND / 2);
    CHECK(tri_wheel_advance(&wheel, SECOND - MS) == &timer);
}

static void equal_deadlines_expire_in_the_order_added(void) {
    enum { COUNT = 64 };
    tri_timer timers[COUNT];
    memset(timers, 0, sizeof timers);
    tri_wheel_init(&wheel, 3);
    uint64_t deadline = 3 * HOUR + 12345, now = 3;
    for (int i = 0; i < COUNT; i++) { /* seen from ever closer, so added at every level */
        tri_wheel_add(&wheel, &timers[i], deadline);
        now += (deadline - now) / 2;
        CHECK(tri_wheel_advance(&wheel, now) == NULL);
    }
    tri_timer *expired = tri_wheel_advance(&wheel, deadline);
    for (int i = 0; i < COUNT; i++, expired = expired->next) {
        CHECK(expired == &timers[i]);
    }
    CHECK(expired == NULL);
}

static void an_idle_engine_sleeps_until_the_deadline(void) {
    tri_timer timer = {0};
    uint64_t start = 987654321 * MS;
    tri_wheel_init(&wheel, start);
    tri_wheel_add(&wheel, &timer, start + HOUR);
    CHECK(tri_wheel_next(&wheel) == start + HOUR);
    CHECK(tri_wheel_advance(&wheel, start + HOUR / 2) == NULL);
    CHECK(tri_wheel_next(&wheel) == start + HOUR);
    CHECK(tri_wheel_remove(&wheel, &timer));
    CHECK(tri_wheel_next(&wheel) == UINT64_MAX);
}

static void removed_timers_cost_one_idle_wake_up_at_most(void) {
    enum { COUNT = 1000 };
    static tri_timer timers[COUNT];
    memset(timers, 0, sizeof timers);
    tri_timer last = {0};
    tri_wheel_init(&wheel, 0);
    for (int i = 0; i < COUNT; i++) {
        tri_wheel_add(&wheel, &timers[i], HOUR + (uint64_t)i * MS);
    }
    tri_wheel_add(&wheel, &last, HOUR + 20 * SECOND);
    for (int i = 0; i < COUNT; i++) {
        CHECK(tri_wheel_remove(&wheel, &timers[i]));
    }
    int wake_ups = 0;
    while (tri_timer_pending(&last)) {
        uint64_t next = tri_wheel_next(&wheel);
        CHECK(next <= HOUR + 20 * SECOND);
        tri_wheel_advance(&wheel, next);
        wake_ups++;
    }
    CHECK(wake_ups <= 2);
}

static void far_deadlines_fit(void) {
    uint64_t now = 1234567891011;
    uint64_t ahead[] = {UINT64_C(1) << 30, UINT64_C(1) << 44, (UINT64_C(1) << 60) + 17,
                        UINT64_C(1) << 63, UINT64_MAX - 1 - now};
    enum { COUNT = sizeof ahead / sizeof *ahead };
    tri_timer timers[COUNT];
    memset(timers, 0, sizeof timers);
    tri_wheel_init(&wheel, now);
    for (int i = COUNT - 1; i >= 0; i--) {
        tri_wheel_add(&wheel, &timers[i], now + ahead[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(tri_wheel_next(&wheel) == now + ahead[i]);
        CHECK(tri_wheel_advance(&wheel, now + ahead[i] - 1) == NULL);
        CHECK(tri_wheel_advance(&wheel, now + ahead[i]) == &timers[i]);
    }
    CHECK(tri_wheel_next(&wheel) == UINT64_MAX);
}

static void one_jump_takes_everything_in_order(void) {
    enum { COUNT = 5000 };
    static tri_timer timers[COUNT];
    memset(timers, 0, sizeof timers);
    tri_wheel_init(&wheel, 1);
    for (int i = 0; i < COUNT; i++) {
        tri_wheel_add(&wheel, &timers[i], 1 + (random_word() >> (1 + random_word() % 63)));
    }
    tri_timer *expired = tri_wheel_advance(&wheel, UINT64_MAX);
    CHECK_EQ(length(expired), COUNT);
    for (; expired->next != NULL; expired = expired->next) {
        CHECK(expired->deadline <= expired->next->deadline);
    }
}

static void remove_says_whether_it_was_pending(void) {
    tri_timer first = {0}, second = {0}, third = {0};
    tri_wheel_init(&wheel, 0);
    CHECK(!tri_wheel_remove(&wheel, &first));
    tri_wheel_add(&wheel, &first, SECOND);
    tri_wheel_add(&wheel, &second, SECOND);
    tri_wheel_add(&wheel, &third, SECOND);
    CHECK(tri_wheel_remove(&wheel, &second)); /* in the middle */
    CHECK(!tri_wheel_remove(&wheel, &second));
    CHECK(tri_wheel_remove(&wheel, &third)); /* the last */
    tri_wheel_add(&wheel, &second, SECOND);  /* behind the first again */
    CHECK(tri_wheel_remove(&wheel, &first)); /* the first */
    CHECK(tri_wheel_advance(&wheel, SECOND) == &second);
    CHECK(second.next == NULL);
}

static int fired;
static void count_firing(tri_timer *timer) {
    CHECK(!tri_timer_pending(timer));
    fired++;
}

/* What a scheduler does: it works off the list, while callbacks cancel and set timers. */
static void cancel_and_set_while_the_expired_are_worked_off(void) {
    enum { COUNT = 100 };
    tri_timer timers[COUNT], other = {0};
    memset(timers, 0, sizeof timers);
    tri_wheel_init(&wheel, 0);
    for (int i = 0; i < COUNT; i++) {
        timers[i].fire = count_firing;
        tri_wheel_add(&wheel, &timers[i], SECOND + (uint64_t)i);
    }
    tri_wheel_add(&wheel, &other, 2 * SECOND);
    tri_timer *next, *expired = tri_wheel_advance(&wheel, SECOND + COUNT);
    for (; expired != NULL; expired = next) {
        next = expired->next;
        expired->fire(expired);
        CHECK(!tri_wheel_remove(&wheel, &timers[COUNT - 1])); /* too late for the last */
        tri_wheel_remove(&wheel, &other);
        tri_wheel_add(&wheel, expired, 3 * SECOND);           /* periodic */
    }
    CHECK_EQ(fired, COUNT);
    CHECK_EQ(length(tri_wheel_advance(&wheel, 3 * SECOND)), COUNT);
}

static void fini_leaves_no_timer_pending(void) {
    tri_timer near = {0}, far = {0};
    tri_wheel_init(&wheel, 0);
    tri_wheel_add(&wheel, &near, MS);
    tri_wheel_add(&wheel, &far, 100 * HOUR);
    tri_wheel_fini(&wheel);
    CHECK(!tri_timer_pending(&near) && !tri_timer_pending(&far));
    CHECK(!tri_wheel_remove(&wheel, &near));
    CHECK(tri_wheel_next(&wheel) == UINT64_MAX);
}

/* The model: timers in an array kept in the order (deadline, order of adding). */
enum { MODEL = 400 };
static tri_timer model_timers[MODEL];
static tri_timer *sorted[MODEL];
static int sorted_count;

static void model_add(tri_timer *timer) {
    int at = sorted_count++;
    for (; at > 0 && sorted[at - 1]->deadline > timer->deadline; at--) {
        sorted[at] = sorted[at - 1];
    }
    sorted[at] = timer;
}

static void model_remove(int at) {
    memmove(&sorted[at], &sorted[at + 1], (size_t)(--sorted_count - at) * sizeof *sorted);
}

static uint64_t random_span(unsigned top_bit) {
    return random_word() >> (63 - random_word() % top_bit);
}

static void random_steps(uint64_t now, unsigned top_bit, int steps) {
    memset(model_timers, 0, sizeof model_timers);
    sorted_count = 0;
    tri_wheel_init(&wheel, now);
    for (int step = 0; step < steps; step++) {
        tri_timer *timer = &model_timers[random_word() % MODEL];
        switch (random_word() % 8) {
        case 0: { /* time passes, sometimes exactly to a deadline or just before it */
            uint64_t to = now + random_span(top_bit);
            if (sorted_count > 0 && random_word() % 2) {
                to = sorted[random_word() % (uint64_t)sorted_count]->deadline - random_word() % 2;
            }
            now = to > now ? to : now;
            tri_timer *expired = tri_wheel_advance(&wheel, now);
            for (; expired != NULL; expired = expired->next) {
                CHECK(sorted_count > 0 && sorted[0] == expired);
                CHECK(expired->deadline <= now && !tri_timer_pending(expired));
                model_remove(0);
            }
            CHECK(sorted_count == 0 || sorted[0]->deadline > now);
            break;
        }
        case 1:
        case 2:
        case 3: { /* cancel */
            bool pending = false;
            for (int i = 0; i < sorted_count; i++) {
                if (sorted[i] == timer) {
                    pending = true;
                    model_remove(i);
                    break;
                }
            }
            CHECK(tri_wheel_remove(&wheel, timer) == pending);
            break;
        }
        default: /* set; some deadlines are equal to another timer's */
            if (!tri_timer_pending(timer)) {
                bool equal = sorted_count > 0 && random_word() % 4 == 0;
                uint64_t deadline = equal
                    ? sorted[random_word() % (uint64_t)sorted_count]->deadline
                    : now + 1 + random_span(top_bit);
                tri_wheel_add(&wheel, timer, deadline);
                model_add(timer);
            }
        }
        uint64_t next = tri_wheel_next(&wheel);
        CHECK(sorted_count == 0 ? next == UINT64_MAX
                                : next <= sorted[0]->deadline && next > now);
    }
}

static void random_steps_agree_with_a_sorted_list(void) {
    for (int round = 0; round < 20; round++) {
        random_steps(random_word() >> 2, 12, 4000);
        random_steps(random_word() >> 2, 34, 4000);
        random_steps(random_word() >> 2, 47, 4000);
    }
    random_steps(0, 6, 20000);
}

/* O94: two million timers at once, half of them cancelled; the rest expires in small steps. */
static void millions_of_timers_O94(void) {
    const size_t count = 2000000;
    tri_timer *timers = calloc(count, sizeof *timers);
    CHECK(timers != NULL);
    uint64_t start = 42 * SECOND;
    tri_wheel_init(&wheel, start);
    for (size_t i = 0; i < count; i++) {
        tri_wheel_add(&wheel, &timers[i], start + 1 + random_word() % (10 * SECOND));
    }
    size_t pending = count;
    for (size_t i = 0; i < count; i += 2) {
        CHECK(tri_wheel_remove(&wheel, &timers[i]));
        pending--;
    }
    uint64_t last = 0;
    for (uint64_t now = start; pending > 0; now += MS) {
        for (tri_timer *t = tri_wheel_advance(&wheel, now); t != NULL; t = t->next, pending--) {
            CHECK(last <= t->deadline && now - MS < t->deadline && t->deadline <= now);
            last = t->deadline;
        }
    }
    CHECK(tri_wheel_next(&wheel) == UINT64_MAX);
    free(timers);
}

static void real_time_is_monotonic(void) {
    tri_clock clock;
    tri_clock_init(&clock, false);
    uint64_t before = tri_clock_now(&clock);
    CHECK(before > 0 && tri_clock_now(&clock) >= before);
}

static void virtual_time_moves_only_when_told_and_never_back(void) {
    tri_clock clock;
    tri_clock_init(&clock, true);
    CHECK(tri_clock_now(&clock) == 0);
    tri_clock_advance(&clock, SECOND);
    CHECK(tri_clock_now(&clock) == SECOND);
    tri_clock_advance(&clock, MS);
    CHECK(tri_clock_now(&clock) == SECOND);
}

int main(void) {
    RUN(an_empty_wheel_waits_for_ever);
    RUN(a_timer_is_never_early_O69);
    RUN(a_passed_deadline_is_due_at_once);
    RUN(a_clock_read_before_the_last_one_still_expires);
    RUN(equal_deadlines_expire_in_the_order_added);
    RUN(an_idle_engine_sleeps_until_the_deadline);
    RUN(removed_timers_cost_one_idle_wake_up_at_most);
    RUN(far_deadlines_fit);
    RUN(one_jump_takes_everything_in_order);
    RUN(remove_says_whether_it_was_pending);
    RUN(cancel_and_set_while_the_expired_are_worked_off);
    RUN(fini_leaves_no_timer_pending);
    RUN(random_steps_agree_with_a_sorted_list);
    RUN(millions_of_timers_O94);
    RUN(real_time_is_monotonic);
    RUN(virtual_time_moves_only_when_told_and_never_back);
    return check_report();
}
