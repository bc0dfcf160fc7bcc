/* clock.c: see clock.h. Release on advance and acquire on read, so that whoever sees the new time
 * also sees what was done before it was set. */
#include "clock.h"

#include <assert.h>

void tri_clock_init(tri_clock *clock, bool virtual_time) {
    clock->virtual_time = virtual_time;
    atomic_init(&clock->virtual_now, 0);
}

uint64_t tri_clock_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail: the clock exists and `now` is writable */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t tri_clock_cpu(clockid_t thread) {
    struct timespec used;
    if (clock_gettime(thread, &used) != 0) return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

uint64_t tri_clock_now(const tri_clock *clock) {
    if (clock->virtual_time) {
        return atomic_load_explicit(&clock->virtual_now, memory_order_acquire);
    }
    return tri_clock_monotonic();
}

void tri_clock_advance(tri_clock *clock, uint64_t to_ns) {
    assert(clock->virtual_time);
    uint64_t seen = atomic_load_explicit(&clock->virtual_now, memory_order_relaxed);
    while (seen < to_ns &&
           !atomic_compare_exchange_weak_explicit(&clock->virtual_now, &seen, to_ns,
                                                  memory_order_release, memory_order_relaxed)) {
    }
}
