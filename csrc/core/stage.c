/* stage.c: the life of a stage, its subscriptions, what leaves it, its modes. */
#include "stage.h"

#include <stdlib.h>

#include "stage_parts.h"

/* ---- Life ----------------------------------------------------------------------------------------*/

int tri_stage_init(tr_stage *stage, const tr_stage_options *options, const tr_stage_ops *ops,
                   const tr_words *words) {
    tr_dispatcher *dispatcher = options->dispatcher;
    bool emits = options->type != TR_CONSUMER;
    if (emits != (dispatcher != NULL) || (options->accumulate && options->type != TR_PRODUCER)) {
        if (dispatcher) dispatcher->class->free(dispatcher);
        return TR_EINVAL;
    }
    *stage = (tr_stage){.ops = ops,
                        .words = *words,
                        .type = options->type,
                        .accumulating = options->accumulate,
                        .dispatcher = dispatcher};
    tri_buffer_init(&stage->buffer, options->buffer_size, options->buffer_keep_first, &stage->words);
    if (dispatcher) dispatcher->stage = stage;
    return TR_OK;
}

void tri_stage_fini(tr_stage *stage) {
    tr_subscription *next = stage->subscriptions.first;
    while (next) {
        tr_subscription *subscription = next;
        next = subscription->next;
        tri_stage_unref(stage, subscription);
    }
    tri_subscriptions_fini(&stage->subscriptions);
    while (stage->waiting.length) {
        tri_item item = tri_stage_next_waiting(stage);
        tri_stage_release_item(stage, &item);
    }
    tri_ring_fini(&stage->waiting);
    tri_buffer_fini(&stage->buffer);
    if (stage->dispatcher) stage->dispatcher->class->free(stage->dispatcher);
    stage->dispatcher = NULL;
    if (stage->stop) tr_reason_release(stage->stop);
    stage->stop = NULL;
}

int tr_stage_new(const tr_stage_options *options, const tr_stage_ops *ops, const tr_words *words,
                 tr_stage **stage) {
    tr_stage *made = malloc(sizeof *made);
    if (!made) {
        if (options->dispatcher) options->dispatcher->class->free(options->dispatcher);
        return TR_ENOMEM;
    }
    int error = tri_stage_init(made, options, ops, words);
    if (error)
        free(made);
    else
        *stage = made;
    return error;
}

void tr_stage_free(tr_stage *stage) {
    tri_stage_fini(stage);
    free(stage);
}

tr_reason *tr_stage_stopping(const tr_stage *stage) { return stage->stop; }

void tr_stage_stop(tr_stage *stage, tr_reason *reason) {
    if (stage->stop)
        tr_reason_release(reason);
    else
        stage->stop = reason;
}

void tr_stage_log_line(tr_stage *stage, const tr_stage_log *line) {
    stage->ops->log(tri_stage_host(stage), line);
}

/* ---- Subscriptions -------------------------------------------------------------------------------*/

tr_subscription *tri_stage_add(tr_stage *stage, int role, tr_pid peer, tr_ref tag, int *error) {
    *error = tri_subscriptions_reserve(&stage->subscriptions);
    if (*error) return NULL;
    tr_subscription *subscription = calloc(1, sizeof *subscription);
    if (!subscription) {
        *error = TR_ENOMEM;
        return NULL;
    }
    *error = stage->ops->watch(tri_stage_host(stage), peer, &subscription->monitor);
    if (*error) {
        free(subscription);
        return NULL;
    }
    subscription->tag = tag;
    subscription->peer = peer;
    subscription->role = (uint8_t)role;
    subscription->references = 1;
    tri_subscriptions_insert(&stage->subscriptions, subscription);
    return subscription;
}

void tri_stage_remove(tr_stage *stage, tr_subscription *subscription, int how) {
    tri_subscriptions_remove(&stage->subscriptions, subscription);
    subscription->gone = true;
    if (how == TR_CANCELLED) stage->ops->unwatch(tri_stage_host(stage), subscription->monitor);
}

void tri_stage_unref(tr_stage *stage, tr_subscription *subscription) {
    if (--subscription->references) return;
    if (subscription->host) stage->ops->forget(tri_stage_host(stage), subscription);
    free(subscription);
}

tr_subscription *tr_stage_find(const tr_stage *stage, tr_ref tag) {
    tr_subscription *found = tri_subscriptions_find(&stage->subscriptions, tag);
    return found && found->tag == tag ? found : NULL;
}

tr_subscription *tri_stage_with_role(const tr_stage *stage, tr_ref tag, int role) {
    tr_subscription *found = tr_stage_find(stage, tag);
    return found && found->role == role ? found : NULL;
}

int tri_stage_reject(tr_stage *stage,
                     int (*tell)(void *host, tr_pid peer, tr_ref tag, tr_reason *reason),
                     tr_pid peer, tr_ref tag, tr_stage_reason which) {
    tr_reason *reason = stage->ops->reason(tri_stage_host(stage), which);
    if (!reason) return TR_ENOMEM;
    int error = tri_sent(tell(tri_stage_host(stage), peer, tag, reason));
    tr_reason_release(reason);
    return error;
}

int tr_stage_on_down(tr_stage *stage, tr_ref monitor, tr_reason *reason, bool *known) {
    tr_subscription *found = tri_subscriptions_find(&stage->subscriptions, monitor);
    *known = found && found->monitor == monitor;
    if (!*known) return TR_OK;
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    int error = found->role == TR_ROLE_CONSUMER
                    ? tri_stage_end_consumer(stage, found, TR_WENT_DOWN, reason)
                    : tri_stage_end_producer(stage, found, TR_WENT_DOWN, reason);
    return tri_stage_leave(stage, error);
}

/* ---- What waits inside ---------------------------------------------------------------------------*/

int tri_stage_wait(tr_stage *stage, const tri_item *item) {
    int error = tri_ring_push(&stage->waiting, item);
    if (!error && item->kind == TRI_ITEM_EVENTS) stage->waiting_events += item->batch.count;
    return error;
}

tri_item tri_stage_next_waiting(tr_stage *stage) {
    tri_item item = tri_ring_pop(&stage->waiting);
    if (item.kind == TRI_ITEM_EVENTS) stage->waiting_events -= item.batch.count;
    return item;
}

void tri_stage_release_item(tr_stage *stage, tri_item *item) {
    tri_batch_release(&item->batch, &stage->words);
    if (item->kind == TRI_ITEM_INFO) stage->words.release(tri_stage_host(stage), item->word);
    if (item->kind == TRI_ITEM_CANCEL) tr_reason_release(item->reason);
    if (item->subscription) tri_stage_unref(stage, item->subscription);
}

/* ---- What leaves ---------------------------------------------------------------------------------*/

int tr_stage_deliver(tr_stage *stage, tr_subscription *to, tr_batch batch) {
    return tri_sent(stage->ops->events(tri_stage_host(stage), to, batch));
}

int tr_stage_post(tr_stage *stage, tr_term message) {
    return stage->ops->post(tri_stage_host(stage), message);
}

static int dispatch_info(tr_stage *stage, tr_term message) {
    tr_dispatcher *dispatcher = stage->dispatcher;
    if (!dispatcher || !dispatcher->class->info) return tr_stage_post(stage, message);
    return dispatcher->class->info(dispatcher, message);
}

/* The ordered messages that no event holds back any longer are due (S97, S99). */
static int release_infos(tr_stage *stage, uint64_t *discarded) {
    int error = TR_OK;
    tr_term message;
    while (tri_buffer_trim(&stage->buffer, discarded, &message)) {
        int failed = dispatch_info(stage, message);
        if (!error) error = failed;
    }
    return error;
}

static int store(tr_stage *stage, tr_batch batch) {
    uint64_t discarded = 0;
    int error = tri_buffer_push(&stage->buffer, batch, &discarded);
    int failed = release_infos(stage, &discarded);
    if (!error) error = failed;
    if (discarded) {
        tr_reason *stop = NULL;
        failed = stage->ops->discarded(tri_stage_host(stage), discarded, &stop);
        if (!error) error = failed;
        if (stop) tr_stage_stop(stage, stop);
    }
    return error;
}

/* Events of a Consumer have nowhere to go (S77). */
static int lose(tr_stage *stage, tr_batch *batch) {
    tr_stage_log line = {.kind = TR_LOG_LOST_EVENTS, .events = batch};
    tr_stage_log_line(stage, &line);
    tri_batch_release(batch, &stage->words);
    return TR_OK;
}

/* In accumulate mode nothing leaves (S103). */
static int hold_back(tr_stage *stage, tr_batch *batch) {
    tri_item item = {.kind = TRI_ITEM_EVENTS, .batch = *batch};
    int error = tri_stage_wait(stage, &item);
    if (error) tri_batch_release(batch, &stage->words);
    return error;
}

int tri_stage_emit(tr_stage *stage, tr_batch batch) {
    tr_dispatcher *dispatcher = stage->dispatcher;
    if (!batch.count) {
        tri_batch_release(&batch, &stage->words);
        return TR_OK;
    }
    if (!dispatcher) return lose(stage, &batch);
    if (stage->accumulating) return hold_back(stage, &batch);
    dispatcher->requested -=
        batch.count < dispatcher->requested ? batch.count : dispatcher->requested;
    int error = dispatcher->class->dispatch(dispatcher, &batch);
    if (!batch.count) return error;
    int failed = store(stage, batch);
    return error ? error : failed;
}

int tri_stage_answer(tr_stage *stage, tr_outcome *outcome, int error) {
    int failed = tri_stage_emit(stage, outcome->events);
    if (outcome->stop) tr_stage_stop(stage, outcome->stop);
    return error ? error : failed;
}

int tr_stage_emit(tr_stage *stage, tr_batch batch) {
    if (!tri_stage_enter(stage)) {
        tri_batch_release(&batch, &stage->words);
        return tri_stage_refused(stage);
    }
    return tri_stage_leave(stage, tri_stage_emit(stage, batch));
}

/* Give the dispatcher what is buffered, up to what it can place. */
static int drain(tr_stage *stage) {
    tr_dispatcher *dispatcher = stage->dispatcher;
    while (stage->buffer.count && dispatcher->deliverable) {
        tr_batch batch;
        int error = tri_buffer_take(&stage->buffer, dispatcher->deliverable, &batch);
        if (error) return error;
        error = dispatcher->class->dispatch(dispatcher, &batch);
        bool unplaced = batch.count > 0;
        if (unplaced) {
            int failed = tri_buffer_push_front(&stage->buffer, batch);
            if (!error) error = failed;
        }
        uint64_t discarded = 0; /* stays 0: the buffer was within its size before */
        int failed = release_infos(stage, &discarded);
        if (!error) error = failed;
        if (error || unplaced) return error;
    }
    return TR_OK;
}

int tri_stage_serve(tr_stage *stage) {
    tr_dispatcher *dispatcher = stage->dispatcher;
    int error = drain(stage);
    if (error) return error;
    uint64_t rest = 0;
    if (dispatcher->deliverable > dispatcher->requested)
        rest = dispatcher->deliverable - dispatcher->requested;
    dispatcher->requested += rest;
    if (stage->type == TR_PRODUCER_CONSUMER) return tri_stage_run_input(stage);
    if (!rest) return TR_OK;
    if (!stage->accumulating) return tri_stage_produce(stage, rest);
    tri_item item = {.kind = TRI_ITEM_DEMAND, .number = rest};
    error = tri_stage_wait(stage, &item);
    if (error) dispatcher->requested -= rest;
    return error;
}

/* ---- Ordered messages ----------------------------------------------------------------------------*/

int tri_stage_output_info(tr_stage *stage, tr_term message) {
    if (stage->buffer.count) return tri_buffer_push_info(&stage->buffer, message);
    return dispatch_info(stage, message);
}

int tr_stage_info(tr_stage *stage, tr_term message) {
    if (!tri_stage_enter(stage)) {
        stage->words.release(tri_stage_host(stage), message);
        return tri_stage_refused(stage);
    }
    int error;
    if (stage->waiting.length) { /* behind that input (S100) or those events (S101) */
        tri_item item = {.kind = TRI_ITEM_INFO, .word = message};
        error = tri_stage_wait(stage, &item);
        if (error) stage->words.release(tri_stage_host(stage), message);
    } else {
        error = tri_stage_output_info(stage, message);
    }
    return tri_stage_leave(stage, error);
}

/* ---- Modes ---------------------------------------------------------------------------------------*/

/* What was held back happens now, in arrival order, item by item (S104). Demand that has meanwhile
 * been served by events is not announced any more. */
static int replay(tr_stage *stage) {
    int error = TR_OK;
    while (!error && !stage->stop && stage->waiting.length) {
        tri_item item = tri_stage_next_waiting(stage);
        uint64_t requested = stage->dispatcher->requested;
        if (item.kind == TRI_ITEM_EVENTS)
            error = tri_stage_emit(stage, item.batch);
        else if (item.kind == TRI_ITEM_INFO)
            error = tri_stage_output_info(stage, item.word);
        else if (requested)
            error = tri_stage_produce(stage, item.number < requested ? item.number : requested);
    }
    return error;
}

int tr_stage_set_accumulate(tr_stage *stage, bool accumulate) {
    if (accumulate && stage->type != TR_PRODUCER) return TR_EINVAL;
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    bool forward = stage->accumulating && !accumulate;
    stage->accumulating = accumulate;
    return tri_stage_leave(stage, forward ? replay(stage) : TR_OK);
}

bool tr_stage_accumulates(const tr_stage *stage) { return stage->accumulating; }

/* ---- Looking at it -------------------------------------------------------------------------------*/

uint64_t tr_stage_buffered(const tr_stage *stage) { return stage->buffer.count; }
uint64_t tr_stage_waiting(const tr_stage *stage) { return stage->waiting_events; }

uint64_t tr_stage_requested(const tr_stage *stage) {
    return stage->dispatcher ? stage->dispatcher->requested : 0;
}

tr_subscription *tr_stage_first(const tr_stage *stage) { return stage->subscriptions.first; }
