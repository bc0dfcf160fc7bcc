/* stage_host.c: what the core's stage asks of its host: Python lists, messages between processes, and
 * the callbacks of the stage's class.
 *
 * The core runs between two points of a callback of the server's trampoline, so everything here is
 * called attached, on the thread that runs the process. A callback that raised or asked for a stop has
 * ended the process by the time it returns here; the core is told TR_EKILLED and unwinds. */
#include "stage.h"

static py_stage *of(void *host) { return host; }
static tr_engine *engine_of(py_stage *self) { return tr_process_engine(self->self); }

/* ---- Lists ---------------------------------------------------------------------------------------*/

static void words_retain(void *host, tr_term word) {
    (void)host;
    Py_INCREF((PyObject *)word);
}

static void words_release(void *host, tr_term word) {
    (void)host;
    Py_DECREF((PyObject *)word);
}

/* A list with exactly the events of a view; takes the view over. Slices are taken with the list's own
 * bounds: somebody may have kept and changed what a callback returned. */
static PyObject *list_of(tr_batch batch) {
    PyObject *list = batch.list;
    if (batch.offset == 0 && batch.count == (size_t)PyList_GET_SIZE(list)) return list;
    PyObject *slice = PyList_GetSlice(list, (Py_ssize_t)batch.offset,
                                      (Py_ssize_t)(batch.offset + batch.count));
    Py_DECREF(list);
    return slice;
}

static int extend(PyObject *list, tr_batch more) {
    PyObject *slice = list_of(more);
    if (slice == NULL) return -1;
    Py_ssize_t end = PyList_GET_SIZE(list);
    int result = PyList_SetSlice(list, end, end, slice);
    Py_DECREF(slice);
    return result;
}

static tr_batch whole(PyObject *list) {
    tr_batch batch = {.list = list, .count = (size_t)PyList_GET_SIZE(list)};
    return batch;
}

static int words_join(void *host, const tr_batch *parts, size_t count, tr_batch *joined) {
    (void)host;
    PyObject *list = PyList_New(0);
    bool good = list != NULL;
    for (size_t i = 0; good && i < count; i++) {
        Py_INCREF((PyObject *)parts[i].list);
        good = extend(list, parts[i]) == 0;
    }
    if (good) {
        *joined = whole(list);
        return TR_OK;
    }
    Py_XDECREF(list);
    PyErr_Clear();
    return TR_ENOMEM;
}

tr_words tr_stage_words(py_stage *self) {
    tr_words words = {self, words_retain, words_release, words_join};
    return words;
}

/* How many events the stage can use: what is asked of it and what its buffer takes. */
static Py_ssize_t usable(const py_stage *self) {
    uint64_t requested = tr_stage_requested(self->stage);
    if (self->buffer_size >= (uint64_t)PY_SSIZE_T_MAX - requested) return PY_SSIZE_T_MAX;
    return (Py_ssize_t)(requested + self->buffer_size);
}

/* The items of an iterator as a list; ValueError if there are more than `most`. */
static PyObject *draw(py_stage *self, PyObject *iterator, Py_ssize_t most) {
    if (most == PY_SSIZE_T_MAX) return PySequence_List(iterator);
    PyObject *cut = PyObject_CallFunction(self->state->stage->islice, "On", iterator, most);
    PyObject *list = cut == NULL ? NULL : PySequence_List(cut);
    Py_XDECREF(cut);
    if (list == NULL || PyList_GET_SIZE(list) < most) return list;
    PyObject *more = PyIter_Next(iterator);
    if (more == NULL && !PyErr_Occurred()) return list;
    if (more != NULL)
        PyErr_Format(PyExc_ValueError,
                     "events: expected at most %zd, what was asked for and the buffer takes, "
                     "from an iterable that is no list; got more",
                     most);
    Py_XDECREF(more);
    Py_DECREF(list);
    return NULL;
}

int tr_stage_batch_of(py_stage *self, PyObject *events, const char *callback, tr_batch *batch) {
    if (!PyList_CheckExact(events)) {
        PyObject *iterator = PyObject_GetIter(events);
        if (iterator == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            tr_raise_bad_return(self->server, callback, events);
        }
        Py_DECREF(events);
        events = iterator == NULL ? NULL : draw(self, iterator, usable(self));
        Py_XDECREF(iterator);
        if (events == NULL) return -1;
    }
    *batch = whole(events);
    return 0;
}

int tr_stage_append(tr_batch *batch, tr_batch more) {
    if (batch->list == NULL) {
        *batch = more;
        return 0;
    }
    int result = extend(batch->list, more);
    *batch = whole(batch->list);
    return result;
}

/* ---- Messages ------------------------------------------------------------------------------------*/

static tr_message *new_message(py_stage *self, uint32_t kind, tr_ref tag) {
    tr_message *message = tr_message_new(kind);
    if (message == NULL) return NULL;
    message->from = tr_process_pid(self->self);
    message->ref = tag;
    return message;
}

static int send_subscribe(void *host, const tr_subscription *to, tr_term options) {
    py_stage *self = of(host);
    tr_message *message = new_message(self, STAGE_SUBSCRIBE, to->tag);
    if (message == NULL) return TR_ENOMEM;
    message->term = PyDict_Copy(options); /* the two ends do not share a dict */
    if (message->term == NULL) {
        PyErr_Clear();
        tr_message_free(engine_of(self), message);
        return TR_ENOMEM;
    }
    return tr_send_message(engine_of(self), to->peer, message);
}

static int send_ask(void *host, const tr_subscription *to, uint64_t count) {
    py_stage *self = of(host);
    tr_message *message = new_message(self, STAGE_ASK, to->tag);
    if (message == NULL) return TR_ENOMEM;
    message->number = count;
    return tr_send_message(engine_of(self), to->peer, message);
}

static int send_events(void *host, const tr_subscription *to, tr_batch batch) {
    py_stage *self = of(host);
    tr_message *message = new_message(self, STAGE_EVENTS, to->tag);
    if (message != NULL && (batch.offset > UINT32_MAX || batch.count > UINT32_MAX)) {
        PyObject *list = list_of(batch); /* a list of its own, if it is not one already */
        batch = (tr_batch){0};
        if (list != NULL && PyList_GET_SIZE(list) <= UINT32_MAX) batch = whole(list);
        if (batch.list == NULL) {
            Py_XDECREF(list);
            PyErr_Clear();
        }
    }
    if (message == NULL || batch.list == NULL) {
        Py_XDECREF((PyObject *)batch.list);
        tr_message_free(engine_of(self), message);
        return TR_ENOMEM;
    }
    message->term = batch.list;
    message->number = (uint64_t)batch.offset << 32 | (uint64_t)batch.count;
    return tr_send_message(engine_of(self), to->peer, message);
}

static int send_reason(py_stage *self, uint32_t kind, tr_pid pid, tr_ref tag, tr_reason *reason) {
    tr_message *message = new_message(self, kind, tag);
    if (message == NULL) return TR_ENOMEM;
    message->reason = tr_reason_retain(reason);
    return tr_send_message(engine_of(self), pid, message);
}

static int send_cancel(void *host, tr_pid producer, tr_ref tag, tr_reason *reason) {
    return send_reason(of(host), STAGE_CANCEL, producer, tag, reason);
}

static int send_cancelled(void *host, tr_pid consumer, tr_ref tag, tr_reason *reason) {
    return send_reason(of(host), STAGE_CANCELLED, consumer, tag, reason);
}

static int watch(void *host, tr_pid peer, tr_ref *monitor) {
    return tr_monitor(of(host)->self, peer, NULL, monitor);
}

static void unwatch(void *host, tr_ref monitor) { tr_demonitor(of(host)->self, monitor, true); }

static int post(void *host, tr_term message) {
    py_stage *self = of(host);
    return tr_send(engine_of(self), tr_process_pid(self->self), TR_MESSAGE_TERM, message);
}

/* ---- Subscriptions -------------------------------------------------------------------------------*/

PyObject *tr_stage_subscription(py_stage *self, tr_subscription *subscription) {
    if (subscription->host != NULL) return Py_NewRef((PyObject *)subscription->host);
    tr_pid producer = subscription->role == TR_ROLE_PRODUCER ? subscription->peer
                                                             : tr_process_pid(self->self);
    PyObject *peer = tr_pid_new(self->state, subscription->peer);
    PyObject *tag = tr_ref_object_new(self->state, subscription->tag);
    PyObject *asked = tr_pid_new(self->state, producer), *made = NULL;
    if (peer != NULL && tag != NULL && asked != NULL)
        made = PyObject_CallFunctionObjArgs(self->state->stage->python.Subscription, peer, tag,
                                            asked, NULL);
    Py_XDECREF(peer);
    Py_XDECREF(tag);
    Py_XDECREF(asked);
    if (made != NULL) subscription->host = Py_NewRef(made);
    return made;
}

static void forget(void *host, tr_subscription *subscription) {
    (void)host;
    Py_DECREF((PyObject *)subscription->host);
    subscription->host = NULL;
}

/* ---- The log -------------------------------------------------------------------------------------*/

static void log_in_python(py_stage *self, const char *what, PyObject *who, uint64_t count,
                          uint64_t limit, PyObject *detail) {
    PyObject *pid = tr_pid_new(self->state, tr_process_pid(self->self)), *done = NULL;
    if (pid != NULL && who != NULL && detail != NULL)
        done = PyObject_CallFunction(self->state->stage->python.log, "sOOKKO", what, pid, who,
                                     (unsigned long long)count, (unsigned long long)limit, detail);
    if (done == NULL && tr_process_is_dead(self->self))
        PyErr_Clear(); /* killed in the middle of it */
    else if (done == NULL)
        PyErr_WriteUnraisable(pid); /* a broken log handler must not end more */
    Py_XDECREF(done);
    Py_XDECREF(pid);
    Py_XDECREF(who);
    Py_XDECREF(detail);
}

static void log_line(void *host, const tr_stage_log *line) {
    static const char *const names[] = {
        [TR_LOG_EXCESS] = "excess",         [TR_LOG_LARGE_ASK] = "large_ask",
        [TR_LOG_LOST_EVENTS] = "lost",      [TR_LOG_ENDS] = "ends",
        [TR_LOG_NOT_A_PRODUCER] = "target", [TR_LOG_DUPLICATE] = "duplicate",
    };
    py_stage *self = of(host);
    tr_reason *reason = (tr_reason *)line->reason;
    PyObject *who = Py_NewRef(Py_None), *detail = Py_NewRef(Py_None);
    if (line->subscription != NULL)
        Py_SETREF(who, tr_stage_subscription(self, (tr_subscription *)line->subscription));
    else if (line->peer != 0)
        Py_SETREF(who, tr_pid_new(self->state, line->peer));
    if (line->events != NULL)
        Py_SETREF(detail, Py_NewRef((PyObject *)line->events->list));
    else if (reason != NULL)
        Py_SETREF(detail, tr_reason_to_python(self->state, reason));
    log_in_python(self, names[line->kind], who, line->count, line->limit, detail);
}

/* ---- Callbacks -----------------------------------------------------------------------------------*/

/* Whether the server understands a result: None and actions. Anything else are events. */
static bool is_action(py_stage *self, PyObject *result) {
    tr_python *python = &self->state->python;
    PyObject *type = (PyObject *)Py_TYPE(result);
    return result == Py_None || result == python->NOREPLY || type == python->NoReply ||
           type == python->Stop || type == python->Reply;
}

/* What a callback returned (stolen, NULL with an exception) becomes the outcome. */
static int take_answer(py_stage *self, PyObject *result, const char *callback, PyObject *message,
                       tr_outcome *outcome) {
    if (tr_process_is_dead(self->self)) {
        Py_XDECREF(result);
        PyErr_Clear();
        return TR_EKILLED;
    }
    if (result != NULL && PyList_CheckExact(result)) { /* the common case: a list of events */
        outcome->events = whole(result);
        return TR_OK;
    }
    if (result == NULL || (!is_action(self, result) &&
                           tr_stage_batch_of(self, result, callback, &outcome->events) != 0)) {
        tr_server_crash(self->self, self->server, callback, message);
        return TR_EKILLED;
    }
    if (outcome->events.list != NULL) return TR_OK;
    self->outcome = outcome;
    int status = tr_server_result(self->self, self->server, result, callback, message);
    self->outcome = NULL;
    return status == 0 ? TR_OK : TR_EKILLED;
}

/* Call a method of the instance with two arguments. */
static PyObject *call2(py_stage *self, PyObject *method, PyObject *first, PyObject *second) {
    PyObject *args[] = {self->server->instance, first, second};
    return PyObject_VectorcallMethod(method, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static int handle_demand(void *host, uint64_t count, tr_outcome *outcome) {
    py_stage *self = of(host);
    PyObject *number = PyLong_FromUnsignedLongLong(count);
    PyObject *result =
        number == NULL
            ? NULL
            : tr_server_call(self->server, self->state->stage->texts.handle_demand, number);
    int error = take_answer(self, result, "handle_demand", number, outcome);
    Py_XDECREF(number);
    return error;
}

static int handle_events(void *host, tr_subscription *from, tr_batch batch, tr_outcome *outcome) {
    py_stage *self = of(host);
    PyObject *sender = tr_stage_subscription(self, from);
    PyObject *events = list_of(batch);
    PyObject *result = NULL;
    if (sender != NULL && events != NULL)
        result = call2(self, self->state->stage->texts.handle_events, events, sender);
    int error = take_answer(self, result, "handle_events", events, outcome);
    Py_XDECREF(events);
    Py_XDECREF(sender);
    return error;
}

static int handle_cancel(void *host, tr_subscription *subscription, int how, tr_reason *reason,
                         tr_outcome *outcome) {
    py_stage *self = of(host);
    tr_stage_texts *texts = &self->state->stage->texts;
    PyObject *sender = tr_stage_subscription(self, subscription);
    PyObject *why = tr_reason_to_python(self->state, reason), *pair = NULL, *result = NULL;
    if (why != NULL) pair = PyTuple_Pack(2, how == TR_CANCELLED ? texts->cancel : texts->down, why);
    if (sender != NULL && pair != NULL) result = call2(self, texts->handle_cancel, pair, sender);
    int error = take_answer(self, result, "handle_cancel", pair, outcome);
    Py_XDECREF(pair);
    Py_XDECREF(why);
    Py_XDECREF(sender);
    return error;
}

/* "automatic", None, or "manual" where that is legal (S24, S25): 0 with *manual set; -1 for others. */
static int mode_of(py_stage *self, PyObject *result, bool of_producer, bool *manual) {
    if (result == Py_None) return 0;
    if (!PyUnicode_Check(result)) return -1;
    if (PyUnicode_Compare(result, self->state->stage->texts.automatic) == 0) return 0;
    if (!of_producer || PyUnicode_Compare(result, self->state->stage->texts.manual) != 0) return -1;
    *manual = true;
    return 0;
}

static int handle_subscribe(void *host, tr_subscription *subscription, tr_term options,
                            bool *manual, tr_reason **stop) {
    (void)stop; /* the server has stopped the process itself */
    py_stage *self = of(host);
    tr_state *state = self->state;
    tr_stage_texts *texts = &state->stage->texts;
    bool of_producer = subscription->role == TR_ROLE_PRODUCER;
    PyObject *sender = tr_stage_subscription(self, subscription), *result = NULL;
    if (sender != NULL) {
        PyObject *args[] = {self->server->instance, of_producer ? texts->producer : texts->consumer,
                            options, sender};
        result = PyObject_VectorcallMethod(texts->handle_subscribe, args,
                                           4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(sender);
    }
    bool dead = tr_process_is_dead(self->self);
    if (!dead && result != NULL && mode_of(self, result, of_producer, manual) == 0) {
        Py_DECREF(result);
        return TR_OK;
    }
    if (!dead && result != NULL && (PyObject *)Py_TYPE(result) != state->python.Stop) {
        tr_raise_bad_return(self->server, "handle_subscribe", result);
        Py_CLEAR(result);
    }
    tr_outcome nothing = {0};
    return take_answer(self, result, "handle_subscribe", options, &nothing);
}

static int discarded(void *host, uint64_t count, tr_reason **stop) {
    (void)stop;
    py_stage *self = of(host);
    PyObject *number = PyLong_FromUnsignedLongLong(count);
    PyObject *result =
        number == NULL
            ? NULL
            : tr_server_call(self->server, self->state->stage->texts.format_discarded, number);
    int wanted = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (wanted < 0 || tr_process_is_dead(self->self)) {
        tr_server_crash(self->self, self->server, "format_discarded", number);
        Py_XDECREF(number);
        return TR_EKILLED;
    }
    Py_DECREF(number);
    if (wanted)
        log_in_python(self, "discarded", Py_NewRef(Py_None), count, 0, Py_NewRef(Py_None));
    return TR_OK;
}

/* ---- Reasons -------------------------------------------------------------------------------------*/

static tr_reason *own_reason(void *host, tr_stage_reason which) {
    py_stage *self = of(host);
    tr_stage_texts *texts = &self->state->stage->texts;
    PyObject *names[] = {[TR_UNKNOWN_SUBSCRIPTION] = texts->unknown_subscription,
                         [TR_NOT_A_PRODUCER] = texts->not_a_producer,
                         [TR_DUPLICATED_SUBSCRIPTION] = texts->duplicated_subscription};
    tr_reason *reason = tr_reason_from_python(self->state, engine_of(self), names[which]);
    if (reason == NULL) PyErr_Clear();
    return reason;
}

static bool is_harmless(void *host, const tr_reason *reason) {
    if (tr_reason_kind(reason) != TR_OTHER) return false;
    PyObject *term = tr_reason_term(reason);
    return PyUnicode_CheckExact(term) &&
           PyUnicode_Compare(term, of(host)->state->stage->texts.already_subscribed) == 0;
}

const tr_stage_ops tr_stage_host_ops = {
    .subscribe = send_subscribe,
    .ask = send_ask,
    .events = send_events,
    .cancel = send_cancel,
    .cancelled = send_cancelled,
    .watch = watch,
    .unwatch = unwatch,
    .post = post,
    .log = log_line,
    .handle_subscribe = handle_subscribe,
    .handle_demand = handle_demand,
    .handle_events = handle_events,
    .handle_cancel = handle_cancel,
    .discarded = discarded,
    .reason = own_reason,
    .is_harmless = is_harmless,
    .forget = forget,
};
