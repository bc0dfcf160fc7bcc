/* subscription.h: a stage's table of subscriptions. What a subscription is: tailrace_stage.h.
 *
 * Who owns: the table holds one reference until the subscription ends; input that still waits holds
 * more, so that a callback gets the real sender after that (S126). Threads: only the one that runs the
 * stage; no locks. */
#ifndef TRI_SUBSCRIPTION_H
#define TRI_SUBSCRIPTION_H

#include "tailrace_stage.h"

/* Finds subscriptions by their tag and by the ref of the monitor on their peer: both are unique, so
 * one open-addressing table holds both. Lookup, insert and remove are O(1); 16 bytes a slot, four
 * slots or more per subscription. A zeroed table is an empty one. */
typedef struct tri_subscriptions {
    struct tri_subscription_slot *slots; /* NULL while nothing was ever inserted */
    size_t mask;
    size_t used;                  /* slots: two for each subscription */
    tr_subscription *first, *last; /* all, oldest first */
} tri_subscriptions;

/* Make room for one more subscription, so that insert cannot fail. TR_ENOMEM. */
int tri_subscriptions_reserve(tri_subscriptions *table);
/* Enter tag and monitor. */
void tri_subscriptions_insert(tri_subscriptions *table, tr_subscription *subscription);
void tri_subscriptions_remove(tri_subscriptions *table, tr_subscription *subscription);
/* By tag or monitor; NULL if unknown. */
tr_subscription *tri_subscriptions_find(const tri_subscriptions *table, tr_ref ref);
void tri_subscriptions_fini(tri_subscriptions *table);

#endif
