/* clock.h: the time an engine lives in.
 *
 * Real time is CLOCK_MONOTONIC in nanoseconds: it never goes back and knows nothing of the wall
 * clock. Virtual time stands still until it is advanced, so that a test decides when timers expire.
 * Which of the two is fixed at init. The owner embeds the struct; there is nothing to free.
 * Any thread may read and advance; virtual time is one atomic word and only grows. O(1). */
#ifndef TRI_CLOCK_H
#define TRI_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

typedef struct tri_clock {
    bool virtual_time;
    _Atomic uint64_t virtual_now; /* unused in real time */
} tri_clock;

/* Virtual time starts at 0. */
void tri_clock_init(tri_clock *clock, bool virtual_time);

/* CLOCK_MONOTONIC, whatever the clock of the engine. */
uint64_t tri_clock_monotonic(void);

/* The CPU time that a thread has used, in nanoseconds; 0 if the thread has ended. */
uint64_t tri_clock_cpu(clockid_t thread);

uint64_t tri_clock_now(const tri_clock *clock);

/* Moves virtual time on to to_ns; a time already passed changes nothing. Virtual clocks only. */
void tri_clock_advance(tri_clock *clock, uint64_t to_ns);

#endif
