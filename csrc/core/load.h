/* load.h: how busy the core is, and how fast it changes hands.
 *
 * Time is counted per stretch in which a worker has the core, not per slice: a worker that has it runs
 * slices without a gap, so the sum is the same and the clock is read when a worker wakes up or
 * goes to sleep, never on the busy path. Owned by the scheduler, under its lock; nothing to free. O(1). */
#ifndef TRI_LOAD_H
#define TRI_LOAD_H

#include <stdint.h>

typedef struct tri_load {
    uint64_t began;           /* the engine's start */
    uint64_t busy;            /* up to `changed`, of all workers together */
    uint64_t changed;
    uint32_t working;         /* since then */
    uint64_t mark, mark_busy; /* where the interval that is not over yet began */
    uint64_t recent, recent_busy; /* the last whole one */
    uint64_t handed_off;      /* since when a hand-off is under way; 0: none */
    uint64_t timed, time, longest; /* hand-offs that were timed */
} tri_load;

void tri_load_init(tri_load *load, uint64_t now);

/* From now on so many workers have the core. */
void tri_load_change(tri_load *load, uint32_t working, uint64_t now);

/* The time is `now`: an interval may be over. */
void tri_load_roll(tri_load *load, uint64_t now);

/* A callback gives the core away while others wait for it; `changed` is the time. */
static inline void tri_load_handed_off(tri_load *load) { load->handed_off = load->changed; }

/* A worker took a process out of the core queues. */
void tri_load_handed_over(tri_load *load);
static inline void tri_load_taken(tri_load *load) {
    if (load->handed_off != 0) tri_load_handed_over(load);
}
/* It found none: nobody waited. */
static inline void tri_load_nobody(tri_load *load) { load->handed_off = 0; }

#endif
