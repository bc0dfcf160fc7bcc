/* intensity.c: see intensity.h. */
#include "intensity.h"

#include <stdlib.h>

#include "tailrace.h"

enum { FIRST_SIZE = 4 };

void tri_intensity_init(tri_intensity *intensity, uint64_t max_restarts, uint64_t max_time) {
    *intensity = (tri_intensity){.max_restarts = max_restarts, .max_time = max_time};
}

void tri_intensity_fini(tri_intensity *intensity) {
    free(intensity->times);
    *intensity = (tri_intensity){0};
}

static bool too_old(const tri_intensity *intensity, uint64_t now) {
    uint64_t then = intensity->times[intensity->first];
    return now > then && now - then > intensity->max_time;
}

static int grow(tri_intensity *intensity) {
    size_t size = intensity->size == 0 ? FIRST_SIZE : intensity->size * 2;
    if (size > SIZE_MAX / sizeof(uint64_t)) return TR_ENOMEM;
    uint64_t *times = malloc(size * sizeof *times);
    if (times == NULL) return TR_ENOMEM;
    for (size_t i = 0; i < intensity->count; i++)
        times[i] = intensity->times[(intensity->first + i) % intensity->size];
    free(intensity->times);
    intensity->times = times;
    intensity->size = size;
    intensity->first = 0;
    return TR_OK;
}

int tri_intensity_reserve(tri_intensity *intensity, uint64_t now) {
    while (intensity->count > 0 && too_old(intensity, now)) {
        intensity->first = (intensity->first + 1) % intensity->size;
        intensity->count--;
    }
    bool full = intensity->count == intensity->size;
    return full && intensity->count < intensity->max_restarts ? grow(intensity) : TR_OK;
}

bool tri_intensity_count(tri_intensity *intensity, uint64_t now) {
    if (intensity->count >= intensity->max_restarts) return false;
    intensity->times[(intensity->first + intensity->count) % intensity->size] = now;
    intensity->count++;
    return true;
}
