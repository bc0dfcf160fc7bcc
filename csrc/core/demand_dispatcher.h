/* demand_dispatcher.h: each batch goes to the subscription with the largest demand (S145-S155).
 *
 * The subscriptions lie in a binary heap: larger demand first, among equals the one whose demand
 * changed the longer time ago. An entry gets a new place whenever its demand changes, which is what
 * a list sorted by demand with insertion after equals would do.
 *
 * Who owns: the dispatcher owns its heap of pointers, not the subscriptions. Threads: only the one
 * that runs the stage. Costs: ask, cancel and each delivery O(log n), and O(1) with one subscription;
 * 8 bytes per subscription. */
#ifndef TRI_DEMAND_DISPATCHER_H
#define TRI_DEMAND_DISPATCHER_H

#include "dispatcher.h"

typedef struct tr_demand_options {
    uint64_t max_demand; /* an ask above it is logged (S151); 0: the first ask seen */
    bool shuffle;        /* the order is shuffled once, at the first dispatch (S153) */
    uint64_t seed;       /* of that shuffle */
} tr_demand_options;

/* NULL when memory is short. The stage it is given to frees it. */
tr_dispatcher *tr_demand_dispatcher_new(const tr_demand_options *options);

#endif
