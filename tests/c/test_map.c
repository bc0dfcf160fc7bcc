/* test_map.c: the hash map, against a plain list. */
#include "map.h"

#include "check.h"
#include "tailrace.h"

static void an_empty_map_finds_nothing(void) {
    tri_map map;
    tri_map_init(&map);
    CHECK(tri_map_first(&map, 7) == NULL);
    tri_map_fini(&map);
}

static void what_is_added_is_found_until_it_is_removed(void) {
    enum { KEYS = 10000 };
    tri_map map;
    static char values[KEYS + 1];
    tri_map_init(&map);
    for (uint64_t key = 1; key <= KEYS; key++) CHECK_EQ(tri_map_add(&map, key, &values[key]), TR_OK);
    CHECK_EQ(map.count, KEYS);
    for (uint64_t key = 1; key <= KEYS; key += 2) tri_map_remove(&map, tri_map_first(&map, key));
    for (uint64_t key = 1; key <= KEYS; key++) {
        tri_entry *entry = tri_map_first(&map, key);
        CHECK_EQ(entry != NULL, key % 2 == 0);
        if (entry != NULL) CHECK(entry->value == &values[key]);
    }
    CHECK_EQ(map.count, KEYS / 2);
    CHECK(map.size <= 4 * KEYS);
    tri_map_fini(&map);
}

/* Names are stored under their hash: equal ones stand side by side. */
static void equal_keys_are_all_found(void) {
    static char values[5];
    tri_map map;
    tri_map_init(&map);
    for (int i = 0; i < 5; i++) CHECK_EQ(tri_map_add(&map, 42, &values[i]), TR_OK);
    for (int removed = 0; removed <= 5; removed++) {
        int seen = 0;
        for (tri_entry *e = tri_map_first(&map, 42); e != NULL; e = tri_map_next(&map, e))
            seen |= 1 << ((char *)e->value - values);
        CHECK_EQ(__builtin_popcount((unsigned)seen), 5 - removed);
        if (removed < 5) tri_map_remove(&map, tri_map_first(&map, 42));
    }
    tri_map_fini(&map);
}

/* A small range of keys in a small map: long runs, wrapped around, with holes in them. */
static void random_changes_agree_with_a_list(void) {
    enum { RANGE = 12, STEPS = 200000 };
    int there[RANGE + 1] = {0};
    static char value;
    uint64_t random = 1;
    tri_map map;
    tri_map_init(&map);
    for (int step = 0; step < STEPS; step++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint64_t key = 1 + (random >> 33) % RANGE;
        if (there[key] > 0 || map.count == 12) {
            tri_entry *entry = tri_map_first(&map, key);
            if (entry != NULL) tri_map_remove(&map, entry);
            if (there[key] > 0) there[key]--;
        } else {
            CHECK_EQ(tri_map_add(&map, key, &value), TR_OK);
            there[key]++;
        }
        for (uint64_t k = 1; k <= RANGE; k++)
            CHECK_EQ(tri_map_first(&map, k) != NULL, there[k] > 0);
    }
    CHECK_EQ(map.size, 16);
    tri_map_fini(&map);
}

int main(void) {
    RUN(an_empty_map_finds_nothing);
    RUN(what_is_added_is_found_until_it_is_removed);
    RUN(equal_keys_are_all_found);
    RUN(random_changes_agree_with_a_list);
    return check_report();
}
