/* stage_sim.h: whole pipelines of stages in one loop: processes with a first-in-first-out mailbox,
 * monitors and no threads, so that every run is the same run.
 *
 * A node is a stage with its user code (function pointers with defaults: a counting producer, an
 * identity, a consumer that only looks) and a trace: one line of text that says what its callbacks
 * were called with. Events are ints; a batch prints as "3-7", "3" or, when not consecutive, "0..4#10"
 * (first, last, number). Tests compare traces. sim_end checks that no list, message or reason leaked.
 *
 * sim_run delivers until all mailboxes are empty: always the oldest message of the first node that has
 * one. Nodes made first thus answer before later ones go on. */
#ifndef TRI_STAGE_SIM_H
#define TRI_STAGE_SIM_H

#include <stdarg.h>
#include <string.h>

#include "check.h"
#include "engine.h"
#include "stage.h"

enum { MAX_NODES = 16, TRACE_SIZE = 1 << 16, FOREIGN_PID = 99 };

typedef struct list {
    int references;
    size_t length;
    int events[];
} list;

typedef struct mail {
    struct mail *next;
    enum { SUBSCRIBE, ASK, EVENTS, CANCEL, CANCELLED, DOWN, POSTED } kind;
    tr_pid from;
    tr_ref ref;
    uint64_t count;
    tr_batch batch;
    tr_term word;
    tr_reason *reason;
} mail;

typedef struct node node;
struct node {
    tr_stage stage;
    tr_pid pid;
    bool alive;
    mail *first, **last;
    char trace[TRACE_SIZE];
    size_t trace_length;
    int next_event; /* of the counting producer */
    int fail;       /* code that the next effect or callback answers */
    tr_ref failing_monitor;
    /* User code. */
    void (*on_demand)(node *self, uint64_t count, tr_outcome *outcome);
    void (*on_events)(node *self, tr_batch *batch, tr_outcome *outcome);
    void (*on_cancel)(node *self, tr_outcome *outcome);
    void (*on_info)(node *self, tr_term word, tr_outcome *outcome);
    bool manual; /* what handle_subscribe answers to a producer */
    const char *stop_on_subscribe;
    bool silent_discard; /* format_discarded answers false */
};

typedef struct watch {
    tr_ref ref;
    tr_pid watcher, target;
} watch;

static struct {
    node *nodes[MAX_NODES]; /* pid - 1 */
    size_t nodes_length;
    watch watches[1 << 12];
    size_t watches_length;
    tr_ref next_ref;
    long lists, mails;
    bool failing;             /* memory is short: a node whose input failed ends */
    volatile bool own_memory; /* the allocation is the simulator's, not the stage's */
} sim;

static tr_engine sim_engine; /* for tr_reason_new: a host that releases nothing */

/* ---- Small things --------------------------------------------------------------------------------*/

static inline void *sim_allocate(size_t size) {
    sim.own_memory = true;
    void *memory = calloc(1, size);
    sim.own_memory = false;
    CHECK(memory);
    return memory;
}

static inline tr_reason *because(const char *text) {
    if (!strcmp(text, "normal")) return tr_reason_constant(TR_NORMAL);
    if (!strcmp(text, "shutdown")) return tr_reason_constant(TR_SHUTDOWN);
    if (!strcmp(text, "killed")) return tr_reason_constant(TR_KILLED);
    bool pair = !strncmp(text, "shutdown:", 9);
    sim.own_memory = true;
    tr_reason *made =
        tr_reason_new(&sim_engine, pair ? TR_SHUTDOWN_WITH : TR_OTHER, (tr_term)text);
    sim.own_memory = false;
    return made;
}

static inline const char *reason_text(const tr_reason *reason) {
    static const char *const names[] = {"normal", "shutdown", "kill", "killed", "noproc", "timeout"};
    int kind = tr_reason_kind(reason);
    return kind <= TR_TIMEOUT ? names[kind] : (const char *)tr_reason_term(reason);
}

static inline void trace(node *self, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t room = TRACE_SIZE - self->trace_length;
    int length = vsnprintf(self->trace + self->trace_length, room, format, arguments);
    va_end(arguments);
    CHECK(length >= 0 && (size_t)length < room);
    self->trace_length += (size_t)length;
}

static inline void trace_batch(node *self, const tr_batch *batch) {
    const int *events = ((list *)batch->list)->events + batch->offset;
    CHECK(batch->count > 0 && batch->offset + batch->count <= ((list *)batch->list)->length);
    bool consecutive = true;
    for (size_t i = 1; i < batch->count; i++) consecutive &= events[i] == events[0] + (int)i;
    if (batch->count == 1)
        trace(self, "%d ", events[0]);
    else if (consecutive)
        trace(self, "%d-%d ", events[0], events[batch->count - 1]);
    else
        trace(self, "%d..%d#%zu ", events[0], events[batch->count - 1], batch->count);
}

/* What a node saw since the last look. */
#define CHECK_TRACE(self, expected)                                                                \
    do {                                                                                           \
        if (strcmp((self)->trace, expected)) {                                                     \
            fprintf(stderr, "%s:%d: trace is \"%s\"\n expected \"%s\"\n", __FILE__, __LINE__,      \
                    (self)->trace, expected);                                                      \
            abort();                                                                               \
        }                                                                                          \
        (self)->trace_length = 0;                                                                  \
        (self)->trace[0] = 0;                                                                      \
    } while (0)

/* How the trace begins, for pipelines that never end. */
#define CHECK_BEGINS(self, expected)                                                               \
    do {                                                                                           \
        if (strncmp((self)->trace, expected, strlen(expected))) {                                  \
            fprintf(stderr, "%s:%d: trace is \"%.500s\"\n expected \"%s\"\n", __FILE__,           \
                    __LINE__, (self)->trace, expected);                                            \
            abort();                                                                               \
        }                                                                                          \
        (self)->trace_length = 0;                                                                  \
        (self)->trace[0] = 0;                                                                      \
    } while (0)

static inline tr_batch new_batch(size_t count) {
    list *made = sim_allocate(sizeof *made + count * sizeof(int));
    made->references = 1;
    made->length = count;
    sim.lists++;
    return (tr_batch){.list = made, .count = count};
}

static inline tr_batch numbers(int first, size_t count) {
    tr_batch batch = new_batch(count);
    for (size_t i = 0; i < count; i++) ((list *)batch.list)->events[i] = first + (int)i;
    return batch;
}

/* ---- The host: words -----------------------------------------------------------------------------*/

static void sim_retain(void *host, tr_term word) {
    (void)host;
    ((list *)word)->references++;
}

/* Lists only: ordered messages are small ints in disguise. */
static void sim_release(void *host, tr_term word) {
    (void)host;
    if ((uintptr_t)word < 4096 || --((list *)word)->references) return;
    free(word);
    sim.lists--;
}

static int sim_join(void *host, const tr_batch *parts, size_t count, tr_batch *joined) {
    node *self = host;
    if (self->fail) return self->fail;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += parts[i].count;
    *joined = new_batch(total);
    int *to = ((list *)joined->list)->events;
    for (size_t i = 0; i < count; i++) {
        memcpy(to, ((list *)parts[i].list)->events + parts[i].offset, parts[i].count * sizeof *to);
        to += parts[i].count;
    }
    return TR_OK;
}

/* ---- The host: effects ---------------------------------------------------------------------------*/

static inline node *node_of(tr_pid pid) {
    return pid && pid <= sim.nodes_length ? sim.nodes[pid - 1] : NULL;
}

static inline mail *new_mail(int kind, tr_pid from, tr_ref ref) {
    mail *letter = sim_allocate(sizeof *letter);
    letter->kind = kind;
    letter->from = from;
    letter->ref = ref;
    sim.mails++;
    return letter;
}

static inline void free_mail(mail *letter) {
    if (letter->batch.list) sim_release(NULL, letter->batch.list);
    tr_reason_release(letter->reason);
    free(letter);
    sim.mails--;
}

static inline int post_mail(tr_pid to, mail *letter) {
    node *receiver = node_of(to);
    if (!receiver || !receiver->alive) {
        free_mail(letter);
        return TR_EDEAD;
    }
    letter->next = NULL;
    *receiver->last = letter;
    receiver->last = &letter->next;
    return TR_OK;
}

static int sim_subscribe(void *host, const tr_subscription *to, tr_term options) {
    node *self = host;
    if (self->fail) return self->fail;
    mail *letter = new_mail(SUBSCRIBE, self->pid, to->tag);
    letter->word = options;
    return post_mail(to->peer, letter);
}

static int sim_ask(void *host, const tr_subscription *to, uint64_t count) {
    mail *letter = new_mail(ASK, ((node *)host)->pid, to->tag);
    letter->count = count;
    return post_mail(to->peer, letter);
}

static int sim_events(void *host, const tr_subscription *to, tr_batch batch) {
    node *self = host;
    CHECK(batch.count > 0);
    if (self->fail) {
        sim_release(NULL, batch.list);
        return self->fail;
    }
    mail *letter = new_mail(EVENTS, self->pid, to->tag);
    letter->batch = batch;
    return post_mail(to->peer, letter);
}

static inline int post_reason(int kind, tr_pid from, tr_pid to, tr_ref tag, tr_reason *reason) {
    mail *letter = new_mail(kind, from, tag);
    letter->reason = tr_reason_retain(reason);
    return post_mail(to, letter);
}

static int sim_cancel(void *host, tr_pid producer, tr_ref tag, tr_reason *reason) {
    return post_reason(CANCEL, ((node *)host)->pid, producer, tag, reason);
}

static int sim_cancelled(void *host, tr_pid consumer, tr_ref tag, tr_reason *reason) {
    return post_reason(CANCELLED, ((node *)host)->pid, consumer, tag, reason);
}

static int sim_watch(void *host, tr_pid peer, tr_ref *monitor) {
    node *self = host, *target = node_of(peer);
    if (self->fail) return self->fail;
    *monitor = ++sim.next_ref;
    if (!target || !target->alive)
        return post_reason(DOWN, peer, self->pid, *monitor, tr_reason_constant(TR_NOPROC));
    CHECK(sim.watches_length < sizeof sim.watches / sizeof *sim.watches);
    sim.watches[sim.watches_length++] = (watch){*monitor, self->pid, peer};
    return TR_OK;
}

static void sim_unwatch(void *host, tr_ref monitor) {
    (void)host;
    for (size_t i = 0; i < sim.watches_length; i++)
        if (sim.watches[i].ref == monitor) sim.watches[i--] = sim.watches[--sim.watches_length];
}

static int sim_post(void *host, tr_term message) {
    node *self = host;
    mail *letter = new_mail(POSTED, self->pid, 0);
    letter->word = message;
    return post_mail(self->pid, letter);
}

static void sim_log(void *host, const tr_stage_log *line) {
    node *self = host;
    switch (line->kind) {
    case TR_LOG_EXCESS: trace(self, "excess(%d) ", (int)line->count); break;
    case TR_LOG_LARGE_ASK: trace(self, "large(%d>%d) ", (int)line->count, (int)line->limit); break;
    case TR_LOG_LOST_EVENTS: trace(self, "lost(%d) ", (int)line->events->count); break;
    case TR_LOG_ENDS: trace(self, "ends(%s) ", reason_text(line->reason)); break;
    case TR_LOG_NOT_A_PRODUCER: trace(self, "not-a-producer(%d) ", (int)line->peer); break;
    case TR_LOG_DUPLICATE: trace(self, "duplicate(%d) ", (int)line->peer); break;
    }
}

/* ---- The host: callbacks -------------------------------------------------------------------------*/

static int sim_handle_subscribe(void *host, tr_subscription *subscription, tr_term options,
                                bool *manual, tr_reason **stop) {
    node *self = host;
    bool of_producer = subscription->role == TR_ROLE_PRODUCER;
    trace(self, "subscribe(%s,%d,%d) ", of_producer ? "producer" : "consumer",
          (int)subscription->peer, (int)(uintptr_t)options);
    *manual = of_producer && self->manual;
    if (self->stop_on_subscribe) *stop = because(self->stop_on_subscribe);
    subscription->host = self;
    return TR_OK;
}

static int sim_handle_demand(void *host, uint64_t count, tr_outcome *outcome) {
    node *self = host;
    CHECK(count > 0);
    CHECK_EQ(tr_stage_emit(&self->stage, (tr_batch){0}), TR_EINVAL); /* not from inside */
    trace(self, "demand(%d) ", (int)count);
    if (self->on_demand) {
        self->on_demand(self, count, outcome);
        return TR_OK;
    }
    outcome->events = numbers(self->next_event, (size_t)count);
    self->next_event += (int)count;
    return TR_OK;
}

static int sim_handle_events(void *host, tr_subscription *from, tr_batch batch,
                             tr_outcome *outcome) {
    node *self = host;
    CHECK(from->role == TR_ROLE_PRODUCER && from->host == self && node_of(from->peer) != self);
    trace_batch(self, &batch);
    if (self->on_events) self->on_events(self, &batch, outcome);
    if (batch.list) sim_release(NULL, batch.list);
    return TR_OK;
}

static int sim_handle_cancel(void *host, tr_subscription *subscription, int how, tr_reason *reason,
                             tr_outcome *outcome) {
    node *self = host;
    CHECK(!tr_stage_find(&self->stage, subscription->tag));
    trace(self, "%s(%s,%d) ", how == TR_CANCELLED ? "cancel" : "down", reason_text(reason),
          (int)subscription->peer);
    if (self->on_cancel) self->on_cancel(self, outcome);
    return TR_OK;
}

static int sim_discarded(void *host, uint64_t count, tr_reason **stop) {
    node *self = host;
    (void)stop;
    trace(self, self->silent_discard ? "format(%d) " : "discarded(%d) ", (int)count);
    return TR_OK;
}

static tr_reason *sim_reason(void *host, tr_stage_reason which) {
    (void)host;
    static const char *const names[] = {"unknown_subscription", "not_a_producer",
                                        "duplicated_subscription"};
    return because(names[which]);
}

static bool sim_is_harmless(void *host, const tr_reason *reason) {
    (void)host;
    return !strcmp(reason_text(reason), "already_subscribed");
}

static void sim_forget(void *host, tr_subscription *subscription) {
    CHECK(subscription->host == host);
}

static const tr_stage_ops sim_ops = {
    .subscribe = sim_subscribe,
    .ask = sim_ask,
    .events = sim_events,
    .cancel = sim_cancel,
    .cancelled = sim_cancelled,
    .watch = sim_watch,
    .unwatch = sim_unwatch,
    .post = sim_post,
    .log = sim_log,
    .handle_subscribe = sim_handle_subscribe,
    .handle_demand = sim_handle_demand,
    .handle_events = sim_handle_events,
    .handle_cancel = sim_handle_cancel,
    .discarded = sim_discarded,
    .reason = sim_reason,
    .is_harmless = sim_is_harmless,
    .forget = sim_forget,
};

/* ---- Nodes ---------------------------------------------------------------------------------------*/

static inline tr_dispatcher *demand_dispatcher(void) {
    sim.own_memory = true;
    tr_dispatcher *made = tr_demand_dispatcher_new(&(tr_demand_options){0});
    sim.own_memory = false;
    return made;
}

static inline node *start(tr_stage_options options) {
    node *self = sim_allocate(sizeof *self);
    CHECK(sim.nodes_length < MAX_NODES);
    sim.nodes[sim.nodes_length++] = self;
    self->pid = sim.nodes_length;
    self->alive = true;
    self->last = &self->first;
    if (options.type != TR_CONSUMER && !options.dispatcher)
        options.dispatcher = demand_dispatcher();
    tr_words words = {self, sim_retain, sim_release, sim_join};
    CHECK_EQ(tri_stage_init(&self->stage, &options, &sim_ops, &words), TR_OK);
    return self;
}

static inline node *producer(void) {
    return start((tr_stage_options){.type = TR_PRODUCER, .buffer_size = 10000});
}

static inline node *producer_with(uint64_t size, bool keep_first) {
    return start((tr_stage_options){
        .type = TR_PRODUCER, .buffer_size = size, .buffer_keep_first = keep_first});
}

static inline node *consumer(void) { return start((tr_stage_options){.type = TR_CONSUMER}); }

static inline void emit_same(node *self, tr_batch *batch, tr_outcome *outcome) {
    (void)self;
    outcome->events = *batch;
    *batch = (tr_batch){0};
}

static inline void emit_double(node *self, tr_batch *batch, tr_outcome *outcome) {
    (void)self;
    outcome->events = new_batch(batch->count * 2);
    for (size_t i = 0; i < batch->count * 2; i++)
        ((list *)outcome->events.list)->events[i] =
            ((list *)batch->list)->events[batch->offset + i / 2];
}

/* An answer to demand: nothing. */
static inline void give_nothing(node *self, uint64_t count, tr_outcome *outcome) {
    (void)self, (void)count, (void)outcome;
}

static inline node *both(void (*on_events)(node *, tr_batch *, tr_outcome *)) {
    node *self = start((tr_stage_options){.type = TR_PRODUCER_CONSUMER,
                                          .buffer_size = TR_BUFFER_UNLIMITED});
    self->on_events = on_events;
    return self;
}

/* A process ends: its peers learn it. */
static inline void die(node *self, tr_reason *reason) {
    if (!self->alive) {
        tr_reason_release(reason);
        return;
    }
    self->alive = false;
    tri_stage_fini(&self->stage);
    while (self->first) {
        mail *letter = self->first;
        self->first = letter->next;
        free_mail(letter);
    }
    for (size_t i = 0; i < sim.watches_length; i++) {
        watch here = sim.watches[i];
        if (here.target == self->pid) post_reason(DOWN, self->pid, here.watcher, here.ref, reason);
        if (here.target == self->pid || here.watcher == self->pid)
            sim.watches[i--] = sim.watches[--sim.watches_length];
    }
    tr_reason_release(reason);
}

/* After each input: what the host does. */
static inline void after(node *self, int error) {
    if (sim.failing && error == TR_ENOMEM) {
        die(self, because("memory"));
        return;
    }
    CHECK_EQ(error, TR_OK);
    tr_reason *stop = self->alive ? tr_stage_stopping(&self->stage) : NULL;
    if (!stop) return;
    trace(self, "stop(%s) ", reason_text(stop));
    die(self, tr_reason_retain(stop));
}

static inline int handle_posted(node *self, tr_term word) {
    tr_outcome outcome = {0};
    trace(self, "info(%d) ", (int)(uintptr_t)word);
    if (self->on_info) self->on_info(self, word, &outcome);
    int error = tr_stage_emit(&self->stage, outcome.events);
    if (outcome.stop) tr_stage_stop(&self->stage, outcome.stop);
    return error;
}

static inline int handle_mail(node *self, mail *letter) {
    tr_stage *stage = &self->stage;
    tr_batch batch = letter->batch;
    bool known = true;
    int error = TR_OK;
    switch (letter->kind) {
    case SUBSCRIBE: return tr_stage_on_subscribe(stage, letter->from, letter->ref, letter->word);
    case ASK: return tr_stage_on_ask(stage, letter->from, letter->ref, letter->count);
    case EVENTS:
        letter->batch = (tr_batch){0};
        return tr_stage_on_events(stage, letter->from, letter->ref, batch);
    case CANCEL: return tr_stage_on_cancel(stage, letter->ref, letter->reason);
    case CANCELLED: return tr_stage_on_cancelled(stage, letter->ref, letter->reason);
    case DOWN:
        error = tr_stage_on_down(stage, letter->ref, letter->reason, &known);
        if (!known) trace(self, "foreign-down ");
        return error;
    case POSTED: return handle_posted(self, letter->word);
    }
    return TR_EINVAL;
}

/* Deliver the oldest message, if there is one. */
static inline bool step(node *self) {
    mail *letter = self->first;
    if (!letter) return false;
    self->first = letter->next;
    if (!self->first) self->last = &self->first;
    after(self, handle_mail(self, letter));
    free_mail(letter);
    return true;
}

static inline void sim_run(void) {
    for (size_t i = 0; i < sim.nodes_length;) i = step(sim.nodes[i]) ? 0 : i + 1;
}

/* Up to `messages` messages. */
static inline void sim_run_some(int messages) {
    for (size_t i = 0; i < sim.nodes_length && messages;) {
        bool moved = step(sim.nodes[i]);
        messages -= moved;
        i = moved ? 0 : i + 1;
    }
}

static inline tr_ref subscribe_with(node *self, node *to, uint64_t max, uint64_t min, int cancel) {
    tr_subscribe_options options = {max, min, cancel};
    tr_ref tag = ++sim.next_ref;
    after(self, tr_stage_subscribe(&self->stage, to->pid, tag, &options, (tr_term)(uintptr_t)max));
    return tag;
}

static inline tr_ref subscribe(node *self, node *to, uint64_t max, uint64_t min) {
    return subscribe_with(self, to, max, min, TR_PERMANENT);
}

static inline void ask(node *producer_node, tr_ref tag, uint64_t count) {
    mail *letter = new_mail(ASK, FOREIGN_PID, tag);
    letter->count = count;
    post_mail(producer_node->pid, letter);
}

static inline void cancel(node *producer_node, tr_ref tag, const char *text) {
    tr_reason *reason = because(text);
    post_reason(CANCEL, FOREIGN_PID, producer_node->pid, tag, reason);
    tr_reason_release(reason);
}

/* What a handle_info of the node would emit. */
static inline void push(node *self, int first, size_t count) {
    after(self, tr_stage_emit(&self->stage, numbers(first, count)));
}

static inline void info(node *self, int number) {
    after(self, tr_stage_info(&self->stage, (tr_term)(uintptr_t)number));
}

static inline void forget_traces(void) {
    for (size_t i = 0; i < sim.nodes_length; i++)
        sim.nodes[i]->trace_length = 0, sim.nodes[i]->trace[0] = 0;
}

static inline void sim_end(void) {
    for (size_t i = 0; i < sim.nodes_length; i++) die(sim.nodes[i], because("shutdown"));
    for (size_t i = 0; i < sim.nodes_length; i++) free(sim.nodes[i]);
    CHECK_EQ(sim.lists, 0);
    CHECK_EQ(sim.mails, 0);
    memset(&sim, 0, sizeof sim);
}

#endif
