/* intensity.h: how many restarts a supervisor has done lately (O156 to O158).
 *
 * A ring of the times of the last restarts, at most as many as are allowed, so that its size follows
 * what happens and not what is configured. Embedded in the supervisor, same thread rules. O(1)
 * amortised; 8 bytes per remembered restart. */
#ifndef TRI_INTENSITY_H
#define TRI_INTENSITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tri_intensity {
    uint64_t max_restarts;
    uint64_t max_time; /* ns */
    uint64_t *times;   /* a ring of `size` */
    size_t size;
    size_t first; /* the oldest */
    size_t count;
} tri_intensity;

void tri_intensity_init(tri_intensity *intensity, uint64_t max_restarts, uint64_t max_time);
void tri_intensity_fini(tri_intensity *intensity);

/* Make sure that one more restart at `now` can be counted; forgets those that are too old. TR_ENOMEM. */
int tri_intensity_reserve(tri_intensity *intensity, uint64_t now);

/* Count a restart, for which room was reserved at the same `now`. False: it is one too many. */
bool tri_intensity_count(tri_intensity *intensity, uint64_t now);

#endif
