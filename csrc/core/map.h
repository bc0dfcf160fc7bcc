/* map.h: a hash map from a 64-bit key to a pointer.
 *
 * Open addressing with linear probing and backward-shift deletion; at most three quarters full; a power
 * of two of 16-byte entries. O(1). The key 0 is not allowed. One key may be there several times
 * (names.c stores hashes): walk with tri_map_first and tri_map_next. Not synchronised: the owner's lock. */
#ifndef TRI_MAP_H
#define TRI_MAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct tri_entry {
    uint64_t key;
    void *value;
} tri_entry;

typedef struct tri_map {
    tri_entry *entries;
    size_t size; /* a power of two, or 0 */
    size_t count;
} tri_map;

void tri_map_init(tri_map *map);
void tri_map_fini(tri_map *map);
/* TR_ENOMEM: nothing has changed. */
int tri_map_add(tri_map *map, uint64_t key, void *value);
/* The first entry with this key, or NULL; the next one after `entry`. */
tri_entry *tri_map_first(const tri_map *map, uint64_t key);
tri_entry *tri_map_next(const tri_map *map, const tri_entry *entry);
/* Remove an entry that was found. Other entries may move. */
void tri_map_remove(tri_map *map, tri_entry *entry);

#endif
