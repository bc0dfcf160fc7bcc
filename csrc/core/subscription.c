/* subscription.c: the table of subscriptions: linear probing, deletion by moving entries back, so
 * that no lookup ever passes a tombstone. Refs are consecutive numbers; multiplying by an odd
 * constant spreads them. */
#include "subscription.h"

#include <stdlib.h>

typedef struct tri_subscription_slot {
    tr_ref ref; /* 0: free */
    tr_subscription *subscription;
} slot;

enum { FIRST_CAPACITY = 8 };

static size_t home(const tri_subscriptions *table, tr_ref ref) {
    return (size_t)((ref * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & table->mask;
}

static slot *locate(const tri_subscriptions *table, tr_ref ref) {
    size_t index = home(table, ref);
    while (table->slots[index].ref && table->slots[index].ref != ref)
        index = (index + 1) & table->mask;
    return &table->slots[index];
}

static void put(tri_subscriptions *table, tr_ref ref, tr_subscription *subscription) {
    slot *place = locate(table, ref);
    if (!place->ref) table->used++;
    *place = (slot){ref, subscription};
}

int tri_subscriptions_reserve(tri_subscriptions *table) {
    size_t capacity = table->slots ? table->mask + 1 : 0;
    if ((table->used + 2) * 2 <= capacity) return TR_OK;
    tri_subscriptions grown = {.first = table->first, .last = table->last};
    grown.mask = (capacity ? capacity * 2 : FIRST_CAPACITY) - 1;
    grown.slots = calloc(grown.mask + 1, sizeof *grown.slots);
    if (!grown.slots) return TR_ENOMEM;
    for (size_t i = 0; i < capacity; i++)
        if (table->slots[i].ref) put(&grown, table->slots[i].ref, table->slots[i].subscription);
    free(table->slots);
    *table = grown;
    return TR_OK;
}

void tri_subscriptions_insert(tri_subscriptions *table, tr_subscription *subscription) {
    put(table, subscription->tag, subscription);
    put(table, subscription->monitor, subscription);
    subscription->previous = table->last;
    *(table->last ? &table->last->next : &table->first) = subscription;
    table->last = subscription;
}

static void take_out(tri_subscriptions *table, tr_ref ref) {
    slot *hole = locate(table, ref);
    if (!hole->ref) return;
    table->used--;
    size_t free_index = (size_t)(hole - table->slots), index = free_index;
    for (;;) {
        index = (index + 1) & table->mask;
        if (!table->slots[index].ref) break;
        /* An entry may move back to the hole unless its home lies behind the hole. */
        size_t distance = (index - home(table, table->slots[index].ref)) & table->mask;
        if (distance < ((index - free_index) & table->mask)) continue;
        table->slots[free_index] = table->slots[index];
        free_index = index;
    }
    table->slots[free_index] = (slot){0};
}

void tri_subscriptions_remove(tri_subscriptions *table, tr_subscription *subscription) {
    take_out(table, subscription->tag);
    take_out(table, subscription->monitor);
    tr_subscription *previous = subscription->previous, *next = subscription->next;
    *(previous ? &previous->next : &table->first) = next;
    *(next ? &next->previous : &table->last) = previous;
    subscription->previous = subscription->next = NULL;
}

tr_subscription *tri_subscriptions_find(const tri_subscriptions *table, tr_ref ref) {
    if (!table->slots || !ref) return NULL;
    return locate(table, ref)->subscription;
}

void tri_subscriptions_fini(tri_subscriptions *table) {
    free(table->slots);
    *table = (tri_subscriptions){0};
}
