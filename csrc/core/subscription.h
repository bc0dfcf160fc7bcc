/* subscription.h: one subscription as one of its two ends sees it, and a stage's table of them.
 *
 * The consuming end keeps the demand arithmetic (S48-S52); the producing end keeps what its
 * dispatcher needs. Both know the other by `tag`, which is the same at both ends, and watch it.
 *
 * Who owns: the stage's table holds one reference until the subscription ends; input that still
 * waits holds more, so that a callback gets the real sender after that (S126). Threads: only the one
 * that runs the stage; no locks. */
#ifndef TRI_SUBSCRIPTION_H
#define TRI_SUBSCRIPTION_H

#include "tailrace.h"

/* What the peer is: the role that handle_subscribe gets. */
enum { TR_ROLE_PRODUCER, TR_ROLE_CONSUMER };

/* What the end of a subscription does to the consuming stage (S127 ff.). */
enum { TR_PERMANENT, TR_TRANSIENT, TR_TEMPORARY };

typedef struct tr_subscription {
    tr_ref tag;
    tr_pid peer;
    tr_ref monitor;
    void *host; /* the host's, NULL at first; given back through tr_stage_ops.forget */
    struct tr_subscription *previous, *next; /* in its table */
    uint32_t references;
    uint8_t role;

    /* The consuming end: role TR_ROLE_PRODUCER. */
    uint8_t cancel;
    bool manual;
    bool gone;            /* ended; only waiting input still knows it */
    uint64_t max_demand;
    uint64_t min_demand;
    uint64_t outstanding; /* asked for and not received */

    /* The producing end: role TR_ROLE_CONSUMER; the dispatcher's. */
    uint64_t demand; /* asked for and not sent */
    uint64_t order;
    size_t index;
} tr_subscription;

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
