/* map.c: see map.h. */
#include "map.h"

#include <stdlib.h>

#include "tailrace.h"

void tri_map_init(tri_map *map) { *map = (tri_map){0}; }

void tri_map_fini(tri_map *map) {
    free(map->entries);
    tri_map_init(map);
}

/* Fibonacci hashing: consecutive keys (Refs are) spread evenly. */
static size_t home(const tri_map *map, uint64_t key) {
    return (size_t)((key * 0x9E3779B97F4A7C15u) >> 20) & (map->size - 1);
}

static void insert(tri_map *map, uint64_t key, void *value) {
    size_t at = home(map, key);
    while (map->entries[at].key != 0) at = (at + 1) & (map->size - 1);
    map->entries[at] = (tri_entry){key, value};
}

static int grow(tri_map *map) {
    tri_map larger = {.size = map->size == 0 ? 16 : map->size * 2, .count = map->count};
    larger.entries = calloc(larger.size, sizeof *larger.entries);
    if (larger.entries == NULL) return TR_ENOMEM;
    for (size_t i = 0; i < map->size; i++)
        if (map->entries[i].key != 0) insert(&larger, map->entries[i].key, map->entries[i].value);
    free(map->entries);
    *map = larger;
    return TR_OK;
}

int tri_map_add(tri_map *map, uint64_t key, void *value) {
    if ((map->count + 1) * 4 > map->size * 3) {
        int result = grow(map);
        if (result != TR_OK) return result;
    }
    insert(map, key, value);
    map->count++;
    return TR_OK;
}

static tri_entry *probe(const tri_map *map, size_t at, uint64_t key) {
    for (; map->entries[at].key != 0; at = (at + 1) & (map->size - 1))
        if (map->entries[at].key == key) return &map->entries[at];
    return NULL;
}

tri_entry *tri_map_first(const tri_map *map, uint64_t key) {
    return map->size == 0 ? NULL : probe(map, home(map, key), key);
}

tri_entry *tri_map_next(const tri_map *map, const tri_entry *entry) {
    size_t at = (size_t)(entry - map->entries);
    return probe(map, (at + 1) & (map->size - 1), entry->key);
}

void tri_map_remove(tri_map *map, tri_entry *entry) {
    size_t mask = map->size - 1;
    size_t hole = (size_t)(entry - map->entries);
    for (size_t at = (hole + 1) & mask; map->entries[at].key != 0; at = (at + 1) & mask) {
        size_t wanted = home(map, map->entries[at].key);
        /* Move it back unless its home lies behind the hole. */
        if (((at - wanted) & mask) >= ((at - hole) & mask)) {
            map->entries[hole] = map->entries[at];
            hole = at;
        }
    }
    map->entries[hole] = (tri_entry){0, NULL};
    map->count--;
}
