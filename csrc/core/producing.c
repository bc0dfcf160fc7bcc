/* producing.c: the producing end: consumers come, ask and go. */
#include "stage_parts.h"

int tri_stage_produce(tr_stage *stage, uint64_t count) {
    tr_outcome outcome = {0};
    int error = stage->ops->handle_demand(tri_stage_host(stage), count, &outcome);
    return tri_stage_answer(stage, &outcome, error);
}

/* The user's side of an end, and the demand that the dispatcher could now serve better (S127). The
 * subscription is out of table and dispatcher already, so that nothing emitted here can be sent to
 * it (S140). */
static int tell_end(tr_stage *stage, tr_subscription *subscription, int how, tr_reason *reason) {
    tr_outcome outcome = {0};
    int error = stage->ops->handle_cancel(tri_stage_host(stage), subscription, how, reason, &outcome);
    error = tri_stage_answer(stage, &outcome, error);
    if (!error && !stage->stop) error = tri_stage_serve(stage);
    tri_stage_unref(stage, subscription);
    return error;
}

/* `subscription` is not in the dispatcher (any more). */
static int end(tr_stage *stage, tr_subscription *subscription, int how, tr_reason *reason) {
    tri_stage_remove(stage, subscription, how);
    int error = TR_OK;
    if (how == TR_CANCELLED)
        error = tri_sent(stage->ops->cancelled(tri_stage_host(stage), subscription->peer,
                                               subscription->tag, reason));
    int failed = tell_end(stage, subscription, how, reason);
    return error ? error : failed;
}

int tri_stage_end_consumer(tr_stage *stage, tr_subscription *subscription, int how,
                           tr_reason *reason) {
    int error = stage->dispatcher->class->cancel(stage->dispatcher, subscription);
    int failed = end(stage, subscription, how, reason);
    return error ? error : failed;
}

/* A consumer that is watched and known: the user's word on it, then the dispatcher's (S21, S143). */
static int admit(tr_stage *stage, tr_subscription *subscription, tr_term words) {
    tr_dispatcher *dispatcher = stage->dispatcher;
    tr_reason *stop = NULL, *refusal = NULL;
    bool manual = false; /* only automatic is legal here (S25): the host makes `stop` of the other */
    int error =
        stage->ops->handle_subscribe(tri_stage_host(stage), subscription, words, &manual, &stop);
    if (stop) tr_stage_stop(stage, stop);
    if (!error && !stage->stop)
        error = dispatcher->class->subscribe(dispatcher, subscription, words, &refusal);
    if (error || stage->stop) {
        if (refusal) tr_reason_release(refusal);
        tri_stage_remove(stage, subscription, TR_CANCELLED);
        tri_stage_unref(stage, subscription);
        return error;
    }
    if (!refusal) return tri_stage_serve(stage);
    error = end(stage, subscription, TR_CANCELLED, refusal);
    tr_reason_release(refusal);
    return error;
}

static int reject(tr_stage *stage, tr_pid consumer, tr_ref tag, int line_kind,
                  tr_stage_reason which) {
    tr_stage_log line = {.kind = line_kind, .peer = consumer};
    tr_stage_log_line(stage, &line);
    return tri_stage_reject(stage, stage->ops->cancelled, consumer, tag, which);
}

int tr_stage_on_subscribe(tr_stage *stage, tr_pid consumer, tr_ref tag, tr_term words) {
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    int error;
    if (!stage->dispatcher) {
        error = reject(stage, consumer, tag, TR_LOG_NOT_A_PRODUCER, TR_NOT_A_PRODUCER);
    } else if (tr_stage_find(stage, tag)) {
        error = reject(stage, consumer, tag, TR_LOG_DUPLICATE, TR_DUPLICATED_SUBSCRIPTION);
    } else {
        tr_subscription *subscription =
            tri_stage_add(stage, TR_ROLE_CONSUMER, consumer, tag, &error);
        if (subscription) error = admit(stage, subscription, words);
    }
    return tri_stage_leave(stage, error);
}

static int ask(tr_stage *stage, tr_subscription *subscription, uint64_t count) {
    tr_dispatcher *dispatcher = stage->dispatcher;
    uint64_t room = TR_DEMAND_LIMIT - dispatcher->deliverable;
    if (subscription->demand > TR_DEMAND_LIMIT - room) room = TR_DEMAND_LIMIT - subscription->demand;
    if (count > room) count = room;
    if (!count) return TR_OK;
    int error = dispatcher->class->ask(dispatcher, subscription, count);
    return error ? error : tri_stage_serve(stage);
}

int tr_stage_on_ask(tr_stage *stage, tr_pid sender, tr_ref tag, uint64_t count) {
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    tr_subscription *subscription = tri_stage_with_role(stage, tag, TR_ROLE_CONSUMER);
    int error = TR_OK;
    if (subscription)
        error = ask(stage, subscription, count);
    else if (stage->dispatcher) /* a Consumer has refused the SUBSCRIBE before (S35) */
        error = tri_stage_reject(stage, stage->ops->cancelled, sender, tag, TR_UNKNOWN_SUBSCRIPTION);
    return tri_stage_leave(stage, error);
}

int tr_stage_on_cancel(tr_stage *stage, tr_ref tag, tr_reason *reason) {
    if (!tri_stage_enter(stage)) return tri_stage_refused(stage);
    tr_subscription *subscription = tri_stage_with_role(stage, tag, TR_ROLE_CONSUMER);
    int error = subscription ? tri_stage_end_consumer(stage, subscription, TR_CANCELLED, reason)
                             : TR_OK; /* S136 */
    return tri_stage_leave(stage, error);
}
