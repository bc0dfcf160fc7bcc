/* timer.c: see timer.h.
 *
 * Invariant: with t = max(deadline, wheel->now at the last add or deal), a pending timer lies at
 * the level of the highest 6-bit digit in which t differs from wheel->now (level 0 if none), in the
 * slot named by that digit of t. Hence the occupied slots of a level are never behind the digit of
 * wheel->now, and no bit scan has to wrap around. */
#include "timer.h"

#include <assert.h>
#include <stddef.h>

static tri_slot *slot_at(tri_wheel *wheel, unsigned level, unsigned index) {
    return &wheel->slots[level * TRI_WHEEL_SLOTS + index];
}

static void slot_clear(tri_slot *slot) {
    slot->head = NULL;
    slot->tail = &slot->head;
    slot->earliest = UINT64_MAX;
}

static void mark(tri_wheel *wheel, unsigned level, unsigned index) {
    wheel->occupied[level] |= UINT64_C(1) << index;
    wheel->levels |= UINT64_C(1) << level;
}

static void unmark(tri_wheel *wheel, unsigned level, unsigned index) {
    wheel->occupied[level] &= ~(UINT64_C(1) << index);
    if (wheel->occupied[level] == 0) {
        wheel->levels &= ~(UINT64_C(1) << level);
    }
}

static void place(tri_wheel *wheel, tri_timer *timer) {
    uint64_t due = timer->deadline > wheel->now ? timer->deadline : wheel->now;
    uint64_t differ = due ^ wheel->now;
    unsigned level = differ == 0 ? 0 : (63u - (unsigned)__builtin_clzll(differ)) / TRI_WHEEL_BITS;
    unsigned index = (due >> (level * TRI_WHEEL_BITS)) & (TRI_WHEEL_SLOTS - 1);
    tri_slot *slot = slot_at(wheel, level, index);
    timer->next = NULL;
    timer->link = slot->tail;
    timer->slot = slot;
    *slot->tail = timer;
    slot->tail = &timer->next;
    if (due < slot->earliest) {
        slot->earliest = due;
    }
    mark(wheel, level, index);
}

/* Finds the slot with the earliest timer; false if there is none. */
static bool first_slot(const tri_wheel *wheel, unsigned *level, unsigned *index) {
    if (wheel->levels == 0) {
        return false;
    }
    *level = (unsigned)__builtin_ctzll(wheel->levels);
    *index = (unsigned)__builtin_ctzll(wheel->occupied[*level]);
    return true;
}

static uint64_t slot_start(const tri_wheel *wheel, unsigned level, unsigned index) {
    unsigned shift = level * TRI_WHEEL_BITS;
    return (((wheel->now >> shift) & ~(uint64_t)(TRI_WHEEL_SLOTS - 1)) | index) << shift;
}

static tri_timer *take_slot(tri_wheel *wheel, unsigned level, unsigned index) {
    tri_slot *slot = slot_at(wheel, level, index);
    tri_timer *taken = slot->head;
    slot_clear(slot);
    unmark(wheel, level, index);
    return taken;
}

void tri_wheel_init(tri_wheel *wheel, uint64_t now) {
    wheel->now = now;
    wheel->count = 0;
    wheel->levels = 0;
    for (unsigned level = 0; level < TRI_WHEEL_LEVELS; level++) {
        wheel->occupied[level] = 0;
    }
    for (unsigned at = 0; at < TRI_WHEEL_LEVELS * TRI_WHEEL_SLOTS; at++) {
        slot_clear(&wheel->slots[at]);
    }
}

void tri_wheel_fini(tri_wheel *wheel) {
    unsigned level, index;
    while (first_slot(wheel, &level, &index)) {
        tri_timer *next;
        for (tri_timer *timer = take_slot(wheel, level, index); timer != NULL; timer = next) {
            next = timer->next;
            timer->next = NULL;
            timer->link = NULL;
        }
    }
    wheel->count = 0;
}

void tri_wheel_add(tri_wheel *wheel, tri_timer *timer, uint64_t deadline_ns) {
    assert(!tri_timer_pending(timer));
    timer->deadline = deadline_ns;
    wheel->count++;
    place(wheel, timer);
}

bool tri_wheel_remove(tri_wheel *wheel, tri_timer *timer) {
    if (!tri_timer_pending(timer)) {
        return false;
    }
    tri_slot *slot = timer->slot;
    *timer->link = timer->next;
    if (timer->next != NULL) {
        timer->next->link = timer->link;
    } else {
        slot->tail = timer->link;
    }
    timer->next = NULL;
    timer->link = NULL;
    wheel->count--;
    if (slot->head == NULL) {
        unsigned at = (unsigned)(slot - wheel->slots);
        slot_clear(slot);
        unmark(wheel, at / TRI_WHEEL_SLOTS, at % TRI_WHEEL_SLOTS);
    }
    return true;
}

uint64_t tri_wheel_next(tri_wheel *wheel) {
    unsigned level, index;
    return first_slot(wheel, &level, &index) ? slot_at(wheel, level, index)->earliest : UINT64_MAX;
}

/* Moves the time into the first slot, as far as nothing in it is overtaken, and deals its timers
 * out again; those that are due are appended at *tail. Returns the new tail. */
static tri_timer **enter_slot(tri_wheel *wheel, unsigned level, unsigned index, uint64_t now,
                              tri_timer **tail) {
    uint64_t earliest = slot_at(wheel, level, index)->earliest;
    wheel->now = earliest < now ? earliest : now;
    tri_timer *next;
    for (tri_timer *timer = take_slot(wheel, level, index); timer != NULL; timer = next) {
        next = timer->next;
        if (timer->deadline > wheel->now) {
            place(wheel, timer);
            continue;
        }
        timer->next = NULL;
        timer->link = NULL;
        wheel->count--;
        *tail = timer;
        tail = &timer->next;
    }
    return tail;
}

tri_timer *tri_wheel_advance(tri_wheel *wheel, uint64_t now) {
    tri_timer *expired = NULL, **tail = &expired;
    unsigned level, index;
    if (now < wheel->now) {
        now = wheel->now;
    }
    while (first_slot(wheel, &level, &index) && slot_start(wheel, level, index) <= now) {
        tail = enter_slot(wheel, level, index, now, tail);
    }
    wheel->now = now;
    return expired;
}
