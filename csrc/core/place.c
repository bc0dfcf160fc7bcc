/* place.c: see place.h. */
#include "place.h"

#include <stdlib.h>

enum { STEAL_AT_MOST = 256 };

int tri_places_init(tri_places *places, uint32_t count) {
    *places = (tri_places){0};
    if (count == 0) return TR_OK;
    places->all = aligned_alloc(_Alignof(tri_place), count * sizeof *places->all);
    if (places->all == NULL) return TR_ENOMEM;
    for (; places->count < count; places->count++) {
        tri_place *place = &places->all[places->count];
        *place = (tri_place){0};
        if (pthread_mutex_init(&place->lock, NULL) == 0) continue;
        tri_places_fini(places);
        return TR_ENOMEM;
    }
    return TR_OK;
}

void tri_places_fini(tri_places *places) {
    for (uint32_t i = 0; i < places->count; i++) pthread_mutex_destroy(&places->all[i].lock);
    free(places->all);
}

/* ---- A place's queue, under its lock ------------------------------------------------------------*/

static bool is_urgent(const tr_process *process) { return process->priority >= TR_PRIORITY_HIGH; }

static void push(tri_places *places, tri_place *place, tr_process *process) {
    tri_run_queue_push(&place->queue, process);
    if (is_urgent(process)) {
        atomic_fetch_add(&place->urgent, 1);
        atomic_fetch_add(&places->urgent, 1);
    }
    atomic_store(&place->length, place->queue.length);
}

/* The queue has lost this process. */
static void note_taken(tri_places *places, tri_place *place, const tr_process *process) {
    if (is_urgent(process)) {
        atomic_fetch_sub(&place->urgent, 1);
        atomic_fetch_sub(&places->urgent, 1);
    }
    atomic_store_explicit(&place->length, place->queue.length, memory_order_relaxed);
}

static uint64_t length(const tri_place *place) {
    return atomic_load_explicit(&place->length, memory_order_relaxed);
}

/* ---- Who holds a place, under scheduler.lock ----------------------------------------------------*/

tri_place *tri_places_hold(tri_places *places, struct tri_worker *worker) {
    tri_place *place = NULL;
    for (uint32_t i = 0; i < places->count; i++) {
        tri_place *next = &places->all[i];
        if (next->holder != NULL) continue;
        if (place == NULL || length(next) > length(place)) place = next;
    }
    pthread_mutex_lock(&place->lock);
    place->holder = worker;
    pthread_mutex_unlock(&place->lock);
    atomic_fetch_add(&places->held, 1);
    return place;
}

void tri_place_let_go(tri_places *places, tri_place *place) {
    pthread_mutex_lock(&place->lock);
    place->holder = NULL;
    pthread_mutex_unlock(&place->lock);
    atomic_fetch_sub(&places->held, 1);
}

/* ---- Push and take ------------------------------------------------------------------------------*/

bool tri_place_push(tri_places *places, tri_place *place, struct tri_worker *worker,
                    tr_process *process) {
    pthread_mutex_lock(&place->lock);
    bool mine = place->holder == worker;
    if (mine) push(places, place, process);
    pthread_mutex_unlock(&place->lock);
    return mine;
}

void tri_place_put(tri_places *places, tri_place *place, tr_process *process) {
    pthread_mutex_lock(&place->lock);
    push(places, place, process);
    pthread_mutex_unlock(&place->lock);
}

/* ---- Stealing -----------------------------------------------------------------------------------*/

/* Take up to `wanted` processes of at least this priority out of a queue, a fair share of each, the oldest
 * first. */
static void split(tri_places *places, tri_place *from, int lowest, uint64_t wanted,
                  tri_queue *loot) {
    uint64_t among = 0;
    pthread_mutex_lock(&from->lock);
    for (int rank = lowest; rank < TRI_PRIORITIES; rank++) among += from->queue.ranks[rank].count;
    for (int rank = TRI_PRIORITIES - 1; rank >= lowest && among > 0; rank--) {
        tri_queue *queue = &from->queue.ranks[rank];
        uint64_t share = (queue->count * wanted + among - 1) / among;
        for (; share > 0 && queue->count > 0 && loot->count < wanted; share--) {
            tri_queue_push(loot, tri_queue_pop(queue));
            from->queue.length--;
            note_taken(places, from, loot->tail);
        }
    }
    pthread_mutex_unlock(&from->lock);
}

static void put_all(tri_places *places, tri_place *place, tri_queue *loot, uint64_t stolen) {
    pthread_mutex_lock(&place->lock);
    place->steals += stolen;
    while (loot->count > 0) push(places, place, tri_queue_pop(loot));
    pthread_mutex_unlock(&place->lock);
}

static tri_place *longest_but(const tri_places *places, const tri_place *place) {
    tri_place *longest = NULL;
    for (uint32_t i = 0; i < places->count; i++) {
        tri_place *other = &places->all[i];
        if (other == place || length(other) == 0) continue;
        if (longest == NULL || length(other) > length(longest)) longest = other;
    }
    return longest;
}

static tri_place *urgent_but(const tri_places *places, const tri_place *place) {
    for (uint32_t i = 0; i < places->count; i++) {
        tri_place *other = &places->all[i];
        if (other != place && atomic_load_explicit(&other->urgent, memory_order_relaxed) > 0)
            return other;
    }
    return NULL;
}

/* One process to run, and with it a good part of what the victim has. The victim may have been faster,
 * or somebody else: then on to the next, as often as there are places. */
static tr_process *steal(tri_places *places, tri_place *place) {
    for (uint32_t tries = 0; tries < places->count; tries++) {
        tri_place *victim = longest_but(places, place);
        if (victim == NULL) break;
        tri_queue loot = {0};
        uint64_t half = (length(victim) + 1) / 2;
        split(places, victim, TR_PRIORITY_LOW, half < STEAL_AT_MOST ? half : STEAL_AT_MOST, &loot);
        if (loot.count == 0) continue;
        uint64_t stolen = loot.count;
        tr_process *process = tri_queue_pop(&loot);
        put_all(places, place, &loot, stolen);
        return process;
    }
    return NULL;
}

static tr_process *steal_urgent(tri_places *places, tri_place *place) {
    tri_place *victim = urgent_but(places, place);
    tri_queue loot = {0};
    if (victim != NULL) split(places, victim, TR_PRIORITY_HIGH, 1, &loot);
    if (loot.count == 0) return NULL;
    tr_process *process = tri_queue_pop(&loot);
    put_all(places, place, &loot, 1);
    return process;
}

/* Whether somebody else's max or high process comes first. Not always: a place passes its own over 63
 * times at most. */
static bool look_elsewhere(const tri_places *places, tri_place *place) {
    if (atomic_load_explicit(&places->urgent, memory_order_relaxed) == 0) return false;
    if (atomic_load_explicit(&place->urgent, memory_order_relaxed) > 0) return false;
    return ++place->queue.turn % 64 != 0;
}

/* From the own queue. *elsewhere, unless NULL: nothing was taken because others are to be looked at first. */
static tr_process *take_own(tri_places *places, tri_place *place, bool *elsewhere) {
    tr_process *process = NULL;
    pthread_mutex_lock(&place->lock);
    if (elsewhere == NULL || !(*elsewhere = look_elsewhere(places, place)))
        process = tri_run_queue_take(&place->queue);
    if (process != NULL) note_taken(places, place, process);
    pthread_mutex_unlock(&place->lock);
    return process;
}

tr_process *tri_place_take(tri_places *places, tri_place *place) {
    bool elsewhere = false;
    tr_process *process = take_own(places, place, &elsewhere);
    if (elsewhere && (process = steal_urgent(places, place)) == NULL)
        process = take_own(places, place, NULL);
    return process != NULL ? process : steal(places, place);
}

/* ---- All places ---------------------------------------------------------------------------------*/

void tri_places_move(tri_places *places, uint64_t most, tri_queue *to) {
    for (uint32_t i = 0; i < places->count && most > 0; i++) {
        tri_place *place = &places->all[i];
        if (place->holder != NULL) continue;
        pthread_mutex_lock(&place->lock);
        most -= tri_run_queue_move(&place->queue, most, to);
        atomic_store(&place->length, place->queue.length);
        pthread_mutex_unlock(&place->lock);
    }
}

uint64_t tri_places_waiting(const tri_places *places) {
    uint64_t waiting = 0;
    for (uint32_t i = 0; i < places->count; i++) waiting += atomic_load(&places->all[i].length);
    return waiting;
}

uint64_t tri_places_steals(tri_places *places) {
    uint64_t steals = 0;
    for (uint32_t i = 0; i < places->count; i++) {
        pthread_mutex_lock(&places->all[i].lock);
        steals += places->all[i].steals;
        pthread_mutex_unlock(&places->all[i].lock);
    }
    return steals;
}

void tri_places_balance(tri_places *places) {
    tri_place *longest = NULL, *shortest = NULL;
    for (uint32_t i = 0; i < places->count; i++) {
        tri_place *place = &places->all[i];
        if (place->holder == NULL) continue;
        if (longest == NULL || length(place) > length(longest)) longest = place;
        if (shortest == NULL || length(place) < length(shortest)) shortest = place;
    }
    if (longest == NULL || length(longest) < length(shortest) + 2) return;
    tri_queue loot = {0};
    split(places, longest, TR_PRIORITY_LOW, (length(longest) - length(shortest)) / 2, &loot);
    put_all(places, shortest, &loot, 0);
}

void tri_places_lock(tri_places *places) {
    for (uint32_t i = 0; i < places->count; i++) pthread_mutex_lock(&places->all[i].lock);
}

void tri_places_unlock(tri_places *places) {
    for (uint32_t i = places->count; i > 0; i--) pthread_mutex_unlock(&places->all[i - 1].lock);
}
