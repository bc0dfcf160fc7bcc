/* tailrace_stage.h: stages: producers, consumers or both; subscriptions, demand, buffer, modes and
 * cancellation. Part of the public C API.
 *
 * A stage is a state machine. The host feeds it inputs (messages of its peers, ends of peers, what
 * callbacks of the host emitted); the stage answers with effects (messages to peers, monitors) and
 * callbacks, both functions of one table. It has no mailbox, no thread, no clock: the host's process
 * provides them, and one host can be a test that plays whole pipelines in a loop.
 *
 * Threads. Everything here runs on the thread that currently runs the stage's process, one input at a
 * time. There are no locks. No function may be called from inside an effect or a callback of the same
 * stage (TR_EINVAL), but those marked "any time". What user code does to its own stage from inside a
 * callback is therefore a message: ask and cancel are messages to the producing end anyway, and an
 * asynchronous subscribe, a change of mode or an ordered message goes through the own mailbox.
 *
 * Stopping. When the stage has to end, by a callback's answer or a cancel (S128-S132), it keeps the
 * reason: the host looks at tr_stage_stopping after each input and ends the process. From then on all
 * inputs are taken and ignored.
 *
 * Failing. Inputs return TR_OK, or what an effect or callback returned. TR_EDEAD of an effect is no
 * failure: the peer's Down is on its way. After a failure the stage is consistent and can be used or
 * finished; what that input carried may be lost. Batches, terms and reasons given to an input are
 * taken over or borrowed as said there, also on failure.
 *
 * Messages between stages. SUBSCRIBE(tag, options), ASK(tag, n), CANCEL(tag, reason) go to the
 * producing end; EVENTS(tag, batch), CANCELLED(tag, reason) to the consuming end. Messages of one
 * pair must arrive in order. Anyone may send ASK and CANCEL. A resubscribe is a CANCEL of the old
 * subscription to its own producer, then an ordinary SUBSCRIBE.
 *
 * Costs. A message costs one table lookup and one callback, no allocation but the host's; memory is
 * bounded by the demand, the buffer's size and, in accumulate mode, by nothing (S108). */
#ifndef TAILRACE_STAGE_H
#define TAILRACE_STAGE_H

#include "tailrace.h"

/* ---- Batches -------------------------------------------------------------------------------------
 * Events on their way: a view of a list of the host's, which owns one reference to the list. Cutting a
 * batch in two costs a reference, whatever its length; dropping events moves a bound. The host makes a
 * list of its own from a view only when it hands it to a callback, and not even then when the view is
 * a whole list: a batch that nobody cut is the list that was emitted, its events never touched. */

typedef struct tr_batch {
    tr_term list;  /* NULL: no events */
    size_t offset; /* of the first event */
    size_t count;
} tr_batch;

/* What the host can do with its lists and messages. Called on the stage's own thread. */
typedef struct tr_words {
    void *host;
    void (*retain)(void *host, tr_term word);
    void (*release)(void *host, tr_term word);
    /* One batch with the events of `parts` (at least two), in order. The parts stay the caller's.
     * TR_ENOMEM. */
    int (*join)(void *host, const tr_batch *parts, size_t count, tr_batch *joined);
} tr_words;

/* ---- Subscriptions -------------------------------------------------------------------------------
 * One subscription as one of its two ends sees it. The consuming end keeps the demand arithmetic
 * (S48-S52); the producing end keeps what its dispatcher needs. Both know the other by `tag`, which
 * is the same at both ends, and watch it. Read-only for the host, but for `host`. */

/* What the peer is: the role that handle_subscribe gets. */
enum { TR_ROLE_PRODUCER, TR_ROLE_CONSUMER };

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

/* ---- Dispatchers ---------------------------------------------------------------------------------
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
 * TR_DEMAND_LIMIT.
 *
 * The stage owns its dispatcher; a dispatcher owns no subscription but may keep pointers to those
 * between subscribe and cancel. */

/* Sums of demand never grow beyond this; what exceeds it is not counted. */
#define TR_DEMAND_LIMIT ((uint64_t)INT64_MAX)

typedef struct tr_dispatcher tr_dispatcher;
typedef struct tr_stage tr_stage;

/* All return TR_OK or TR_ENOMEM. A dispatcher whose code is the host's reports what went wrong there
 * with tr_stage_stop. */
typedef struct tr_dispatcher_class {
    const char *name;
    /* A new subscription, with demand 0 (S144). To refuse it, set *refusal to a reason (owned). */
    int (*subscribe)(tr_dispatcher *self, tr_subscription *subscription, tr_term options,
                     tr_reason **refusal);
    /* `count` > 0 more are wanted; the sum of all demand stays within TR_DEMAND_LIMIT. */
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
    tr_stage *stage; /* set when it is given to one */
    uint64_t deliverable;
    uint64_t requested;
};

/* Each batch goes to the subscription with the largest demand (S145-S155). */
typedef struct tr_demand_options {
    uint64_t max_demand; /* an ask above it is logged (S151); 0: the first ask seen */
    bool shuffle;        /* the order is shuffled once, at the first dispatch (S153) */
    uint64_t seed;       /* of that shuffle */
} tr_demand_options;

/* NULL when memory is short. The stage it is given to frees it. */
tr_dispatcher *tr_demand_dispatcher_new(const tr_demand_options *options);

/* ---- Stages --------------------------------------------------------------------------------------*/

typedef enum tr_stage_type { TR_PRODUCER, TR_PRODUCER_CONSUMER, TR_CONSUMER } tr_stage_type;

/* How a subscription ended. */
enum { TR_CANCELLED, TR_WENT_DOWN };

/* Reasons that the stage itself gives; their terms are the host's. */
typedef enum tr_stage_reason {
    TR_UNKNOWN_SUBSCRIPTION, /* S70, S248, S249 */
    TR_NOT_A_PRODUCER,       /* S35 */
    TR_DUPLICATED_SUBSCRIPTION /* S247 */
} tr_stage_reason;

/* What a callback answered. The stage takes both over. */
typedef struct tr_outcome {
    tr_batch events;  /* to be emitted first */
    tr_reason *stop;  /* then stop with this; NULL: go on */
} tr_outcome;

/* What is worth a line in the log. */
typedef enum tr_stage_log_kind {
    TR_LOG_EXCESS,          /* error: `count` events nobody asked for came by `subscription` (S60) */
    TR_LOG_LARGE_ASK,       /* warning: `subscription` asked `count`, expected at most `limit` (S151) */
    TR_LOG_LOST_EVENTS,     /* error: a Consumer emitted `events` (S77) */
    TR_LOG_ENDS,            /* info, error unless clean: `subscription` ended with `reason`, and
                               with it this stage (S132) */
    TR_LOG_NOT_A_PRODUCER,  /* error: `peer` tried to subscribe to a Consumer (S35) */
    TR_LOG_DUPLICATE        /* error: `peer` used the tag of a living subscription (S247) */
} tr_stage_log_kind;

typedef struct tr_stage_log {
    tr_stage_log_kind kind;
    const tr_subscription *subscription;
    tr_pid peer;
    uint64_t count, limit;
    const tr_batch *events;
    const tr_reason *reason;
} tr_stage_log;

/* The host's side. Functions that return int return TR_OK or a negative TR_E code. Reasons, options
 * and subscriptions are borrowed for the call; batches are taken over, also on failure. */
typedef struct tr_stage_ops {
    /* Effects: messages to a peer. */
    int (*subscribe)(void *host, const tr_subscription *to, tr_term options);
    int (*ask)(void *host, const tr_subscription *to, uint64_t count);
    int (*events)(void *host, const tr_subscription *to, tr_batch batch);
    int (*cancel)(void *host, tr_pid producer, tr_ref tag, tr_reason *reason);
    int (*cancelled)(void *host, tr_pid consumer, tr_ref tag, tr_reason *reason);
    /* Watch a peer; its end becomes tr_stage_on_down with *monitor, also if it is dead already. */
    int (*watch)(void *host, tr_pid peer, tr_ref *monitor);
    void (*unwatch)(void *host, tr_ref monitor);
    /* Put an ordered message, now due, at the end of the stage's own mailbox. Takes it over. */
    int (*post)(void *host, tr_term message);
    void (*log)(void *host, const tr_stage_log *line);

    /* Callbacks of the user's. A zeroed *outcome comes in. A callback that raised or answered
     * nonsense is an outcome with `stop`; an error code is for a host that cannot go on. */
    int (*handle_subscribe)(void *host, tr_subscription *subscription, tr_term options,
                            bool *manual, tr_reason **stop);
    int (*handle_demand)(void *host, uint64_t count, tr_outcome *outcome);
    int (*handle_events)(void *host, tr_subscription *from, tr_batch batch, tr_outcome *outcome);
    int (*handle_cancel)(void *host, tr_subscription *subscription, int how, tr_reason *reason,
                         tr_outcome *outcome);
    /* The buffer overflowed by `count` events: ask format_discarded and log (S85, S86). */
    int (*discarded)(void *host, uint64_t count, tr_reason **stop);

    /* The reason (own reference) for one of the stage's own; NULL when memory is short. */
    tr_reason *(*reason)(void *host, tr_stage_reason which);
    /* Whether the reason never stops a consumer: "already_subscribed" (S135). */
    bool (*is_harmless)(void *host, const tr_reason *reason);
    /* A subscription with `host` set is freed: release that. */
    void (*forget)(void *host, tr_subscription *subscription);
} tr_stage_ops;

/* As buffer_size: no limit. */
#define TR_BUFFER_UNLIMITED UINT64_MAX

typedef struct tr_stage_options {
    tr_stage_type type;
    tr_dispatcher *dispatcher; /* taken over, also on failure; NULL for a Consumer and only there */
    uint64_t buffer_size;      /* events; TR_BUFFER_UNLIMITED: no limit */
    bool buffer_keep_first;
    bool accumulate;           /* Producer only: begin in accumulate mode */
} tr_stage_options;

/* `ops` must outlive the stage; `words` is copied and its host is the host of `ops` too. TR_ENOMEM;
 * TR_EINVAL: a Consumer with a dispatcher, another stage without, accumulate for no Producer. */
int tr_stage_new(const tr_stage_options *options, const tr_stage_ops *ops, const tr_words *words,
                 tr_stage **stage);
/* Release everything. Sends nothing: peers learn it as the end of the process. */
void tr_stage_free(tr_stage *stage);

/* The reason the stage has to end with, borrowed; NULL: go on. Any time. */
tr_reason *tr_stage_stopping(const tr_stage *stage);
/* Make it end; takes the reason over. The first reason counts. Any time. */
void tr_stage_stop(tr_stage *stage, tr_reason *reason);

/* ---- The consuming end ---------------------------------------------------------------------------*/

typedef struct tr_subscribe_options {
    uint64_t max_demand; /* 1 .. TR_DEMAND_LIMIT */
    uint64_t min_demand; /* below max_demand */
    int cancel;          /* TR_PERMANENT, TR_TRANSIENT, TR_TEMPORARY */
} tr_subscribe_options;

/* Subscribe to `producer` under a fresh `tag`; `words` goes untouched to both handle_subscribes and
 * the dispatcher (borrowed). TR_EINVAL: bad numbers, or this is a Producer. */
int tr_stage_subscribe(tr_stage *stage, tr_pid producer, tr_ref tag,
                       const tr_subscribe_options *options, tr_term words);
/* First half of a resubscribe: ask the producer of `tag` to end it. Unknown tags are ignored (S44). */
int tr_stage_unsubscribe(tr_stage *stage, tr_ref tag, tr_reason *reason);
/* EVENTS from `producer`. Takes the batch over. */
int tr_stage_on_events(tr_stage *stage, tr_pid producer, tr_ref tag, tr_batch batch);
int tr_stage_on_cancelled(tr_stage *stage, tr_ref tag, tr_reason *reason);

/* ---- The producing end ---------------------------------------------------------------------------*/

int tr_stage_on_subscribe(tr_stage *stage, tr_pid consumer, tr_ref tag, tr_term words);
/* ASK from `sender`, who may be anyone; the events go to the subscribed stage (S69). */
int tr_stage_on_ask(tr_stage *stage, tr_pid sender, tr_ref tag, uint64_t count);
int tr_stage_on_cancel(tr_stage *stage, tr_ref tag, tr_reason *reason);

/* ---- Both ends -----------------------------------------------------------------------------------*/

/* The end of a watched process. *known: whether the monitor belonged to a subscription; if not, the
 * notice is not the stage's (S138). */
int tr_stage_on_down(tr_stage *stage, tr_ref monitor, tr_reason *reason, bool *known);
/* Events that a callback outside the stage's own emitted: handle_call, handle_cast, handle_info, … */
int tr_stage_emit(tr_stage *stage, tr_batch batch);
/* Queue an ordered message: tr_stage_ops.post gets it when everything emitted before it has left.
 * Takes it over. */
int tr_stage_info(tr_stage *stage, tr_term message);
/* Accumulate or forward (S102-S111). TR_EINVAL: accumulate is for Producers. */
int tr_stage_set_accumulate(tr_stage *stage, bool accumulate);

bool tr_stage_accumulates(const tr_stage *stage);
/* Events in the output buffer (S87-S90). */
uint64_t tr_stage_buffered(const tr_stage *stage);
/* Events that wait before handle_events (ProducerConsumer) or in accumulate mode (Producer). */
uint64_t tr_stage_waiting(const tr_stage *stage);
/* Asked of the stage and not emitted since. */
uint64_t tr_stage_requested(const tr_stage *stage);
/* The live subscription with this tag, or NULL. Any time. */
tr_subscription *tr_stage_find(const tr_stage *stage, tr_ref tag);
/* The oldest subscription; go on with its `next`. Any time. */
tr_subscription *tr_stage_first(const tr_stage *stage);

/* ---- For dispatchers, inside their functions -----------------------------------------------------*/

/* Send events to a subscription; takes the batch over. */
int tr_stage_deliver(tr_stage *stage, tr_subscription *to, tr_batch batch);
/* An ordered message is due. Takes it over. */
int tr_stage_post(tr_stage *stage, tr_term message);
void tr_stage_log_line(tr_stage *stage, const tr_stage_log *line);

#endif
