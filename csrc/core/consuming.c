/* consuming.c: the consuming end: subscribing, the arithmetic of demand, the input queue of a
 * ProducerConsumer, and what the end of a subscription does to the stage. */
#include "stage_parts.h"

/* ---- Subscribing ---------------------------------------------------------------------------------*/

/* Watched and entered; the order is S20's. */
static int open(tr_stage *stage, tr_subscription *subscription, tr_term words) {
    void *host = tri_stage_host(stage);
    tr_reason *stop = NULL;
    int error = tri_sent(stage->ops->subscribe(host, subscription, words));
    if (error) {
        tri_stage_remove(stage, subscription, TR_CANCELLED);
        tri_stage_unref(stage, subscription);
        return error;
    }
    error = stage->ops->handle_subscribe(host, subscription, words, &subscription->manual, &stop);
    if (stop) tr_stage_stop(stage, stop);
    if (error || stage->stop || subscription->manual) return error;
    subscription->outstanding = subscription->max_demand;
    return tri_sent(stage->ops->ask(host, subscription, subscription->max_demand));
}

int tr_stage_subscribe(tr_stage *stage, tr_pid producer, tr_ref tag,
                       const tr_subscribe_options *options, tr_term words) {
    if (stage->type == TR_PRODUCER || !tag || tr_stage_find(stage, tag) || !options->max_demand ||
        options->max_demand > TR_DEMAND_LIMIT || options->min_demand >= options->max_demand)
        return TR_EINVAL;
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    int error;
    tr_subscription *subscription = tri_stage_add(stage, TR_ROLE_PRODUCER, producer, tag, &error);
    if (subscription) {
        subscription->max_demand = options->max_demand;
        subscription->min_demand = options->min_demand;
        subscription->cancel = (uint8_t)options->cancel;
        error = open(stage, subscription, words);
    }
    return tri_stage_leave(stage, error);
}

int tr_stage_unsubscribe(tr_stage *stage, tr_ref tag, tr_reason *reason) {
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    tr_subscription *old = tri_stage_with_role(stage, tag, TR_ROLE_PRODUCER);
    int error = TR_OK;
    if (old) error = tri_sent(stage->ops->cancel(tri_stage_host(stage), old->peer, tag, reason));
    return tri_stage_leave(stage, error);
}

/* ---- Events --------------------------------------------------------------------------------------*/

static int handle(tr_stage *stage, tr_subscription *from, tr_batch batch) {
    tr_outcome outcome = {0};
    int error = stage->ops->handle_events(tri_stage_host(stage), from, batch, &outcome);
    return tri_stage_answer(stage, &outcome, error);
}

/* How many of `count` events were owed; the others are excess (S60). */
static uint64_t count_owed(tr_stage *stage, const tr_subscription *from, uint64_t count,
                           uint64_t owed) {
    if (count <= owed) return count;
    tr_stage_log line = {.kind = TR_LOG_EXCESS, .subscription = from, .count = count - owed};
    tr_stage_log_line(stage, &line);
    return owed;
}

/* One message of an automatic subscription, cut into batches of at most max - min, each followed by
 * the ask that refills what is outstanding once it is down to min (S49-S52). What a message may use
 * up is what was outstanding when it came, so that excess never counts as demand (S60). */
static int consume(tr_stage *stage, tr_subscription *from, tr_batch batch) {
    uint64_t owed = from->outstanding;
    const uint64_t largest = from->max_demand - from->min_demand;
    int error = TR_OK;
    while (batch.count && !error && !stage->stop) {
        size_t size = batch.count < largest ? batch.count : (size_t)largest;
        tr_batch part = tri_batch_split(&batch, size, &stage->words);
        uint64_t counted = count_owed(stage, from, part.count, owed);
        owed -= counted;
        from->outstanding -= counted;
        uint64_t more = 0;
        if (from->outstanding <= from->min_demand) more = from->max_demand - from->outstanding;
        from->outstanding += more;
        error = handle(stage, from, part);
        if (more && !error && !stage->stop)
            error = tri_sent(stage->ops->ask(tri_stage_host(stage), from, more));
    }
    tri_batch_release(&batch, &stage->words); /* what a stop left over is lost (S61) */
    return error;
}

/* A message whole if nobody asks again for it: the subscription is manual (S64) or gone (S125). */
static int process(tr_stage *stage, tr_subscription *from, tr_batch batch) {
    return from->manual || from->gone ? handle(stage, from, batch) : consume(stage, from, batch);
}

static int end_now(tr_stage *stage, tr_subscription *subscription, int how, tr_reason *reason);

int tri_stage_run_input(tr_stage *stage) {
    int error = TR_OK;
    while (!error && !stage->stop && stage->waiting.length) {
        bool events = tri_ring_at(&stage->waiting, 0)->kind == TRI_ITEM_EVENTS;
        if (events && !stage->dispatcher->requested) break;
        tri_item item = tri_stage_next_waiting(stage);
        if (events) {
            error = process(stage, item.subscription, item.batch);
            tri_stage_unref(stage, item.subscription);
        } else if (item.kind == TRI_ITEM_INFO) {
            error = tri_stage_output_info(stage, item.word);
        } else {
            error = end_now(stage, item.subscription, (int)item.number, item.reason);
            tr_reason_release(item.reason);
        }
    }
    return error;
}

/* Input of a ProducerConsumer that nobody downstream wants yet (S113). */
static int queue_input(tr_stage *stage, tr_subscription *from, tr_batch batch) {
    tri_item item = {.kind = TRI_ITEM_EVENTS, .batch = batch, .subscription = from};
    from->references++;
    int error = tri_stage_wait(stage, &item);
    if (error) tri_stage_release_item(stage, &item);
    return error;
}

int tr_stage_on_events(tr_stage *stage, tr_pid producer, tr_ref tag, tr_batch batch) {
    if (!tri_stage_enter(stage)) {
        tri_batch_release(&batch, &stage->words);
        return tri_stage_refused(stage);
    }
    tr_subscription *from = tri_stage_with_role(stage, tag, TR_ROLE_PRODUCER);
    int error = TR_OK;
    if (!from || !batch.count) {
        tri_batch_release(&batch, &stage->words);
        if (!from)
            error = tri_stage_reject(stage, stage->ops->cancel, producer, tag,
                                     TR_UNKNOWN_SUBSCRIPTION);
    } else if (stage->dispatcher && (stage->waiting.length || !stage->dispatcher->requested)) {
        error = queue_input(stage, from, batch);
    } else {
        error = process(stage, from, batch);
    }
    return tri_stage_leave(stage, error);
}

/* ---- Ends ----------------------------------------------------------------------------------------*/

static bool is_fatal(const tr_stage *stage, const tr_subscription *subscription,
                     const tr_reason *reason) {
    if (subscription->cancel == TR_TEMPORARY) return false;
    if (subscription->cancel == TR_TRANSIENT && tr_reason_is_clean(reason)) return false;
    return !stage->ops->is_harmless(tri_stage_host(stage), reason);
}

/* The user's word first, with its events, then the table of cancel modes (S128-S131). */
static int end_now(tr_stage *stage, tr_subscription *subscription, int how, tr_reason *reason) {
    tr_outcome outcome = {0};
    int error = stage->ops->handle_cancel(tri_stage_host(stage), subscription, how, reason, &outcome);
    error = tri_stage_answer(stage, &outcome, error);
    if (!stage->stop && is_fatal(stage, subscription, reason)) {
        tr_stage_log line = {
            .kind = TR_LOG_ENDS, .subscription = subscription, .reason = reason};
        tr_stage_log_line(stage, &line);
        tr_stage_stop(stage, tr_reason_retain(reason));
    }
    tri_stage_unref(stage, subscription);
    return error;
}

int tri_stage_end_producer(tr_stage *stage, tr_subscription *subscription, int how,
                           tr_reason *reason) {
    tri_stage_remove(stage, subscription, how);
    if (!stage->waiting.length) return end_now(stage, subscription, how, reason);
    tri_item item = {.kind = TRI_ITEM_CANCEL, /* behind the input that is waiting (S123) */
                     .subscription = subscription,
                     .reason = tr_reason_retain(reason),
                     .number = (uint64_t)how};
    int error = tri_stage_wait(stage, &item);
    if (error) tri_stage_release_item(stage, &item);
    return error;
}

int tr_stage_on_cancelled(tr_stage *stage, tr_ref tag, tr_reason *reason) {
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    tr_subscription *subscription = tri_stage_with_role(stage, tag, TR_ROLE_PRODUCER);
    int error = subscription ? tri_stage_end_producer(stage, subscription, TR_CANCELLED, reason)
                             : TR_OK;
    return tri_stage_leave(stage, error);
}
