/* timer.h: a hierarchical timer wheel: many deadlines, cheap to set and cheaper to cancel.
 *
 * A timer is a node embedded in whatever waits; a zeroed node is an idle one. While a timer is
 * pending the wheel links it and its owner keeps it alive and leaves it alone; otherwise the node
 * is the owner's. The wheel allocates nothing and calls nobody: `fire` belongs to whoever works off
 * the list that tri_wheel_advance returns.
 *
 * Threads: the wheel has NO lock. The scheduler, its one user, holds its timer lock around every
 * call, and around tri_timer_pending.
 *
 * How it works. Deadlines are nanoseconds, read as 11 digits of 6 bits. A timer lies at the level
 * of the highest digit in which its deadline differs from the wheel's time, in the slot named by
 * that digit. So everything at a lower level is due before everything at a higher one, equal
 * deadlines always lie in the same slot in the order they were added, and the earliest timer is in
 * the first occupied slot of the lowest occupied level, found with two bit scans. When the time
 * enters a slot its timers are dealt out again, each at least one level lower. Each slot knows a
 * lower bound of its deadlines, so that a lone timer is met exactly once: when it is due.
 *
 * Costs: add, remove and next O(1); advance O(1) amortised per timer (it moves at most 11 times),
 * however long the jump. Timers are never returned early; how late is up to the caller alone. */
#ifndef TRI_TIMER_H
#define TRI_TIMER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tri_timer tri_timer;
typedef struct tri_slot tri_slot;

struct tri_timer {
    tri_timer *next;
    tri_timer **link; /* what points at this node; NULL when not pending */
    tri_slot *slot;   /* where it lies while pending */
    uint64_t deadline;
    void (*fire)(tri_timer *timer);
};

struct tri_slot {
    tri_timer *head;
    tri_timer **tail;  /* the last node's next, or head */
    uint64_t earliest; /* no timer here is due before this; exact unless that timer was removed */
};

enum { TRI_WHEEL_BITS = 6, TRI_WHEEL_SLOTS = 1 << TRI_WHEEL_BITS, TRI_WHEEL_LEVELS = 11 };

typedef struct tri_wheel {
    uint64_t now;                        /* up to where deadlines have been worked off */
    uint64_t count;                      /* pending timers */
    uint64_t levels;                     /* bit l: level l has a timer */
    uint64_t occupied[TRI_WHEEL_LEVELS]; /* bit s: slot s of the level has a timer */
    tri_slot slots[TRI_WHEEL_LEVELS * TRI_WHEEL_SLOTS]; /* level by level */
} tri_wheel;

void tri_wheel_init(tri_wheel *wheel, uint64_t now);

/* Takes out every timer that is still pending; none fires. */
void tri_wheel_fini(tri_wheel *wheel);

/* The timer must not be pending. A deadline already passed is due at the next advance. */
void tri_wheel_add(tri_wheel *wheel, tri_timer *timer, uint64_t deadline_ns);

/* True if the timer was still pending. False: idle, or on a list that advance returned, which
 * whoever works off that list sorts out; the node may then not be freed before its turn. */
bool tri_wheel_remove(tri_wheel *wheel, tri_timer *timer);

static inline bool tri_timer_pending(const tri_timer *timer) {
    return timer->link != 0;
}

/* When advance must be called next: the earliest deadline, or somewhat earlier after a removal (at
 * most once per removed timer); for a deadline already passed a time not after the last advance.
 * UINT64_MAX if the wheel is empty. */
uint64_t tri_wheel_next(tri_wheel *wheel);

/* Takes out the timers whose deadline is <= now and returns them linked by `next`: first those whose
 * deadline had passed when they were added, then in the order of deadlines; equals in the order they
 * were added. A `now` before an earlier one counts as that one. Read `next` before the node is used
 * or added again. */
tri_timer *tri_wheel_advance(tri_wheel *wheel, uint64_t now);

#endif
