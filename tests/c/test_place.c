/* test_place.c: the queues of places: who may push, what is taken, what is stolen (O84 to O88). One thread, so
 * that each step can be looked at; test_stealing.c is for many. */
#include "place.h"

#include "actors.h"

enum { MOST = 600 };

static tri_places places;
static tr_process herd[MOST];
static int used;

/* Places 0, 1, ... held by as many workers, whose addresses are all that counts. */
static struct tri_worker *worker(uint32_t i) { return (struct tri_worker *)&herd[i]; }

static tri_place *place(uint32_t i) { return &places.all[i]; }

static void begin(uint32_t count) {
    used = 0;
    CHECK_EQ(tri_places_init(&places, count), TR_OK);
    for (uint32_t i = 0; i < count; i++) CHECK(tri_places_hold(&places, worker(i)) == place(i));
}

static void end(void) {
    CHECK_EQ(tri_places_waiting(&places), 0);
    CHECK_EQ(atomic_load(&places.urgent), 0);
    tri_places_fini(&places);
}

static tr_process *put(uint32_t at, int priority) {
    tr_process *process = &herd[used++];
    CHECK(used <= MOST);
    process->priority = (uint8_t)priority;
    CHECK(tri_place_push(&places, place(at), worker(at), process));
    return process;
}

static void empty(uint32_t at) {
    while (tri_place_take(&places, place(at)) != NULL) continue;
}

static void a_place_serves_in_order_O84(void) {
    begin(1);
    tr_process *one = put(0, TR_PRIORITY_NORMAL), *two = put(0, TR_PRIORITY_NORMAL);
    CHECK_EQ(tri_places_waiting(&places), 2);
    CHECK(tri_place_take(&places, place(0)) == one);
    CHECK(tri_place_push(&places, place(0), worker(0), one));
    CHECK(tri_place_take(&places, place(0)) == two);
    CHECK(tri_place_take(&places, place(0)) == one);
    CHECK(tri_place_take(&places, place(0)) == NULL);
    end();
}

static void only_the_holder_may_push(void) {
    begin(2);
    tr_process *kept = put(0, TR_PRIORITY_NORMAL), late = {.priority = TR_PRIORITY_NORMAL};
    tri_place_let_go(&places, place(0));
    CHECK_EQ(atomic_load(&places.held), 1);
    CHECK(!tri_place_push(&places, place(0), worker(0), &late));
    /* The queue goes to whoever holds the place next. */
    CHECK(tri_places_hold(&places, worker(7)) == place(0));
    CHECK(!tri_place_push(&places, place(0), worker(0), &late));
    CHECK(tri_place_take(&places, place(0)) == kept);
    end();
}

static void a_free_place_with_work_is_held_first(void) {
    begin(3);
    put(1, TR_PRIORITY_NORMAL);
    for (uint32_t i = 0; i < 3; i++) tri_place_let_go(&places, place(i));
    CHECK(tri_places_hold(&places, worker(9)) == place(1));
    CHECK(tri_places_hold(&places, worker(8)) == place(0));
    empty(1);
    end();
}

static void an_empty_place_steals_half_of_the_longest_O88(void) {
    begin(3);
    put(0, TR_PRIORITY_NORMAL);
    tr_process *oldest = put(1, TR_PRIORITY_NORMAL);
    for (int i = 0; i < 9; i++) put(1, TR_PRIORITY_NORMAL);
    CHECK(tri_place_take(&places, place(2)) == oldest);
    CHECK_EQ(atomic_load(&place(0)->length), 1);
    CHECK_EQ(atomic_load(&place(1)->length), 5);
    CHECK_EQ(atomic_load(&place(2)->length), 4);
    CHECK_EQ(tri_places_steals(&places), 5);
    for (uint32_t i = 0; i < 3; i++) empty(i);
    end();
}

static void the_last_process_is_stolen_too(void) {
    begin(2);
    tr_process *only = put(0, TR_PRIORITY_LOW);
    CHECK(tri_place_take(&places, place(1)) == only);
    CHECK(tri_place_take(&places, place(1)) == NULL);
    CHECK(tri_place_take(&places, place(0)) == NULL);
    end();
}

static void a_thief_takes_a_share_of_each_priority(void) {
    begin(2);
    for (int i = 0; i < 10; i++) {
        put(0, TR_PRIORITY_LOW);
        put(0, TR_PRIORITY_NORMAL);
    }
    tr_process *first = tri_place_take(&places, place(1));
    CHECK_EQ(first->priority, TR_PRIORITY_NORMAL);
    CHECK_EQ(place(1)->queue.ranks[TR_PRIORITY_NORMAL].count, 4);
    CHECK_EQ(place(1)->queue.ranks[TR_PRIORITY_LOW].count, 5);
    empty(0);
    empty(1);
    end();
}

static void high_of_any_place_goes_before_normal_O86(void) {
    begin(3);
    tr_process *own = put(0, TR_PRIORITY_NORMAL);
    put(1, TR_PRIORITY_NORMAL);
    tr_process *high = put(2, TR_PRIORITY_HIGH), *max = put(2, TR_PRIORITY_MAX);
    CHECK(tri_place_take(&places, place(0)) == max);
    CHECK(tri_place_take(&places, place(0)) == high);
    CHECK(tri_place_take(&places, place(0)) == own);
    empty(1);
    end();
}

/* A thousand high ones elsewhere: the own normal one gets its turn within 64. */
static void high_elsewhere_starves_nobody(void) {
    begin(2);
    tr_process *own = put(0, TR_PRIORITY_NORMAL);
    int turns = 1;
    tr_process *taken;
    for (int i = 0; i < 200; i++) put(1, TR_PRIORITY_HIGH);
    for (; (taken = tri_place_take(&places, place(0))) != own; turns++)
        CHECK_EQ(taken->priority, TR_PRIORITY_HIGH);
    CHECK(turns <= 64);
    empty(1);
    end();
}

static void held_places_are_evened_out_O84(void) {
    begin(3);
    for (int i = 0; i < 7; i++) put(0, TR_PRIORITY_NORMAL);
    put(1, TR_PRIORITY_NORMAL);
    tri_place_let_go(&places, place(2));
    tri_places_balance(&places);
    CHECK_EQ(atomic_load(&place(0)->length), 4);
    CHECK_EQ(atomic_load(&place(1)->length), 4);
    CHECK_EQ(atomic_load(&place(2)->length), 0);
    tri_places_balance(&places);
    CHECK_EQ(atomic_load(&place(0)->length), 4);
    CHECK_EQ(tri_places_steals(&places), 0);
    empty(0);
    empty(1);
    end();
}

static void without_places_nothing_waits(void) {
    CHECK_EQ(tri_places_init(&places, 0), TR_OK);
    CHECK_EQ(tri_places_waiting(&places), 0);
    CHECK_EQ(tri_places_steals(&places), 0);
    tri_places_fini(&places);
}

int main(void) {
    TEST(a_place_serves_in_order_O84);
    TEST(only_the_holder_may_push);
    TEST(a_free_place_with_work_is_held_first);
    TEST(an_empty_place_steals_half_of_the_longest_O88);
    TEST(the_last_process_is_stolen_too);
    TEST(a_thief_takes_a_share_of_each_priority);
    TEST(high_of_any_place_goes_before_normal_O86);
    TEST(high_elsewhere_starves_nobody);
    TEST(held_places_are_evened_out_O84);
    TEST(without_places_nothing_waits);
    return check_report();
}
