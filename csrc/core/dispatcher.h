/* dispatcher.h: what decides which subscription gets which events. A part of an emitting stage.
 *
 * A dispatcher is a class (functions) and two numbers that the stage reads:
 *
 *   deliverable  how many events it would place if it got them now
 *   requested    how many events the stage has been asked for and has not emitted since
 *
 * Everything about demand follows from them, for every class alike. After each ask and each end of a
 * subscription the stage first gives the dispatcher what is buffered, up to `deliverable`; if
 * `deliverable` still exceeds `requested`, it asks its own source for the difference, which raises
 * `requested`. Every event the stage emits lowers `requested`, placed or not, never below 0. What is
 * "owed" from cancelled subscriptions (S149) is `requested - deliverable`. In a ProducerConsumer
 * `requested` is the counter that lets the input queue move (S113, S122).
 *
 *   demand      deliverable = the sum of what the subscriptions asked for and did not get
 *   broadcast   deliverable = the minimum of that (S156)
 *   partition   deliverable = reported demand that no event was hashed for yet (S91)
 *
 * The stage changes `requested`; only the class changes `deliverable`, and keeps it at most
 * TRI_DEMAND_LIMIT.
 *
 * Who owns: the stage owns its dispatcher; a dispatcher owns no subscription but may keep pointers to
 * those between subscribe and cancel. Threads: only the one that runs the stage; no locks. */
#ifndef TRI_DISPATCHER_H
#define TRI_DISPATCHER_H

#include "batch.h"
#include "subscription.h"

/* Sums of demand never grow beyond this; what exceeds it is not counted. */
#define TRI_DEMAND_LIMIT ((uint64_t)INT64_MAX)

typedef struct tr_dispatcher tr_dispatcher;
struct tr_stage;

/* All return TR_OK or TR_ENOMEM. A dispatcher whose code is the host's reports what went wrong there
 * with tr_stage_stop. */
typedef struct tr_dispatcher_class {
    const char *name;
    /* A new subscription, with demand 0 (S144). To refuse it, set *refusal to a reason (owned). */
    int (*subscribe)(tr_dispatcher *self, tr_subscription *subscription, tr_term options,
                     tr_reason **refusal);
    /* `count` > 0 more are wanted; the sum of all demand stays within TRI_DEMAND_LIMIT. */
    int (*ask)(tr_dispatcher *self, tr_subscription *subscription, uint64_t count);
    /* The subscription has ended; not called for one that was refused. */
    int (*cancel)(tr_dispatcher *self, tr_subscription *subscription);
    /* Place events with tr_stage_deliver; the tail that has no place stays in *batch. Called with
     * and without demand and subscriptions (S142). */
    int (*dispatch)(tr_dispatcher *self, tr_batch *batch);
    /* An ordered message: hand it to tr_stage_post once all events dispatched before it were sent.
     * Takes it over. NULL: at once. */
    int (*info)(tr_dispatcher *self, tr_term message);
    void (*free)(tr_dispatcher *self);
} tr_dispatcher_class;

struct tr_dispatcher {
    const tr_dispatcher_class *class;
    struct tr_stage *stage; /* set by tr_stage_init */
    uint64_t deliverable;
    uint64_t requested;
};

#endif
