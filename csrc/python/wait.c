/* wait.c: see wait.h. */
#include "coroutine.h"

enum { NEW, OFFERED, HELD, DONE, SPENT };
enum { RECEIVE, CALL, STOP, SLEEP };

static bool advance(tr_wait_object *wait, uint8_t from, uint8_t to) {
    return atomic_compare_exchange_strong(&wait->step, &from, to);
}

/* ---- For the process ----------------------------------------------------------------------------*/

/* The result (stolen), or NULL for the exception that is set. */
static int finish(tr_wait_object *wait, PyObject *value) {
    wait->failed = value == NULL;
    if (value == NULL) value = tr_take_exception();
    Py_XSETREF(wait->value, value);
    atomic_store(&wait->step, DONE);
    return TR_STEP_AGAIN;
}

static bool is_over(tr_process *self, const tr_wait_object *wait) {
    return wait->deadline != TR_FOREVER && tr_now(tr_process_engine(self)) >= wait->deadline;
}

static PyObject *raise_receive_timeout(tr_state *state, const tr_wait_object *wait) {
    PyObject *limit = PyFloat_FromDouble((double)wait->nanoseconds / 1e9);
    if (limit == NULL) return NULL;
    tr_raise(state, "receive_timeout", limit);
    Py_DECREF(limit);
    return NULL;
}

static int look_for_message(tr_state *state, tr_process *self, tr_wait_object *wait) {
    tr_message *message = tr_receive_match(state, self, wait->subject, &wait->cursor);
    if (message != NULL)
        return finish(wait, tr_message_to_python(state, tr_process_engine(self), message));
    if (!is_over(self, wait)) return TR_STEP_MESSAGE;
    bool raises = wait->value == state->python.UNSET;
    return finish(wait, raises ? raise_receive_timeout(state, wait) : Py_NewRef(wait->value));
}

/* What came of asking `subject` to stop for the reason `value`: it ended for `ended` (taken over). */
static PyObject *stopped(tr_state *state, tr_process *self, tr_wait_object *wait,
                         tr_reason *ended) {
    tr_reason *wanted = tr_reason_from_python(state, tr_process_engine(self), wait->value);
    bool same = wanted != NULL && tr_same_reason(wanted, ended);
    tr_reason_release(wanted);
    if (!same) return PyErr_Occurred() ? NULL : tr_raise_ended(state, ended);
    tr_reason_release(ended);
    return Py_NewRef(Py_None);
}

static int look_for_answer(tr_state *state, tr_process *self, tr_wait_object *wait) {
    tr_term reply;
    tr_reason *reason;
    bool answered = tr_call_answered(self);
    if (!answered && !is_over(self, wait)) return TR_STEP_ANSWER;
    if (!answered && tr_call_cancel(self) != TR_OK)
        return finish(wait, tr_raise(state, "call_timeout", wait->subject));
    tr_call_take(self, &reply, &reason);
    if (wait->kind == STOP) return finish(wait, stopped(state, self, wait, reason));
    return finish(wait, reason != NULL ? tr_raise_ended(state, reason) : reply);
}

int tr_wait_look(tr_state *state, tr_process *self, tr_wait_object *wait, uint64_t *deadline) {
    if (atomic_load_explicit(&wait->step, memory_order_relaxed) == DONE) return TR_STEP_AGAIN;
    *deadline = wait->deadline;
    switch (wait->kind) {
    case RECEIVE:
        return look_for_message(state, self, wait);
    case CALL:
    case STOP:
        return look_for_answer(state, self, wait);
    default:
        return is_over(self, wait) ? finish(wait, Py_NewRef(Py_None)) : TR_STEP_DEADLINE;
    }
}

static int send_call(tr_state *state, tr_process *self, tr_wait_object *wait) {
    PyObject *request = wait->value;
    wait->value = NULL;
    return tr_send_request(state, self, wait->subject, TR_MESSAGE_CALL, request, NULL);
}

static int send_stop(tr_state *state, tr_process *self, tr_wait_object *wait) {
    tr_reason *reason = tr_reason_from_python(state, tr_process_engine(self), wait->value);
    if (reason == NULL) return -1;
    return tr_send_request(state, self, wait->subject, TR_MESSAGE_STOP, NULL, reason);
}

tr_wait_object *tr_wait_take(tr_state *state, tr_process *self, PyObject *yielded) {
    tr_wait_object *wait = (tr_wait_object *)yielded;
    if (Py_TYPE(yielded) != state->Wait || !advance(wait, OFFERED, HELD)) {
        PyErr_Format(PyExc_TypeError,
                     "this coroutine awaits %R, which is not the engine's: with scheduler='core' it "
                     "may await acall, astop, areceive and asleep only; scheduler='asyncio' is the place "
                     "for others",
                     yielded);
        Py_DECREF(yielded);
        return NULL;
    }
    wait->deadline = tr_deadline(tr_process_engine(self), wait->nanoseconds);
    if ((wait->kind == CALL && send_call(state, self, wait) != 0) ||
        (wait->kind == STOP && send_stop(state, self, wait) != 0))
        finish(wait, NULL);
    return wait;
}

/* ---- For the coroutine --------------------------------------------------------------------------*/

static PySendResult give(tr_wait_object *wait, PyObject **result) {
    PyObject *value = wait->value;
    wait->value = NULL;
    if (!wait->failed) {
        *result = value;
        return PYGEN_RETURN;
    }
    *result = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(value), value);
    Py_DECREF(value);
    return PYGEN_ERROR;
}

static PySendResult wait_send(PyObject *object, PyObject *sent, PyObject **result) {
    (void)sent;
    tr_wait_object *wait = (tr_wait_object *)object;
    if (advance(wait, NEW, OFFERED)) {
        *result = Py_NewRef(object);
        return PYGEN_NEXT;
    }
    if (advance(wait, DONE, SPENT)) return give(wait, result);
    PyErr_SetString(PyExc_RuntimeError, "what acall, astop, areceive or asleep gave can be awaited once");
    *result = NULL;
    return PYGEN_ERROR;
}

/* The same for interpreters that do not ask for am_send: the result is a StopIteration. */
static PyObject *wait_next(PyObject *object) {
    PyObject *result;
    if (wait_send(object, Py_None, &result) != PYGEN_RETURN) return result;
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop == NULL) return NULL;
    PyErr_SetObject(PyExc_StopIteration, stop);
    Py_DECREF(stop);
    return NULL;
}

static PyObject *wait_repr(PyObject *object) {
    static const char *const kinds[] = {"areceive", "acall", "astop", "asleep"};
    return PyUnicode_FromFormat("<wait of %s at %p>", kinds[((tr_wait_object *)object)->kind], object);
}

static int wait_traverse(PyObject *object, visitproc visit, void *arg) {
    tr_wait_object *wait = (tr_wait_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(wait->subject);
    Py_VISIT(wait->value);
    return 0;
}

static int wait_clear(PyObject *object) {
    tr_wait_object *wait = (tr_wait_object *)object;
    Py_CLEAR(wait->subject);
    Py_CLEAR(wait->value);
    return 0;
}

static void wait_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    wait_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyType_Slot wait_slots[] = {
    {Py_tp_dealloc, wait_dealloc},
    {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},
    {Py_tp_repr, wait_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wait_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, wait_send},
    {Py_tp_doc, "What a coroutine on the core awaits. Made by acall, astop, areceive and asleep."},
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "tailrace._core.Wait",
    .basicsize = sizeof(tr_wait_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wait_slots,
};

int tr_wait_init_module(PyObject *module) {
    tr_state *state = tr_state_of(module);
    state->Wait = (PyTypeObject *)PyType_FromModuleAndSpec(module, &wait_spec, NULL);
    return state->Wait == NULL ? -1 : PyModule_AddType(module, state->Wait);
}

/* ---- Making one ---------------------------------------------------------------------------------*/

/* Whether an event loop runs in this thread: then what is awaited is asyncio's, also when a coroutine on the
 * core entered it (asyncio.run). -1 with an exception. */
static int loop_runs(tr_state *state) {
    PyObject *ask = atomic_load(&state->running_loop);
    if (ask == NULL) {
        PyObject *module = PyImport_GetModule(state->texts.asyncio);
        if (module == NULL) return PyErr_Occurred() ? -1 : 0;
        PyObject *found = PyObject_GetAttrString(module, "_get_running_loop");
        Py_DECREF(module);
        if (found == NULL) return -1;
        if (atomic_compare_exchange_strong(&state->running_loop, &ask, found))
            ask = found;
        else
            Py_DECREF(found); /* another thread was faster */
    }
    PyObject *loop = PyObject_CallNoArgs(ask);
    Py_XDECREF(loop);
    return loop == NULL ? -1 : loop != Py_None;
}

/* Whether the caller is a coroutine on the core. -1 with an exception. */
static int is_stepped(tr_state *state) {
    tr_engine *engine = atomic_load_explicit(&state->engine, memory_order_acquire);
    tr_process *self = engine == NULL ? NULL : tr_self_or_null(engine);
    if (self == NULL || tr_process_behaviour(self) != &tr_coroutine_behaviour) return 0;
    if (tr_check_alive(state, engine) != 0) return -1;
    int loop = loop_runs(state);
    return loop < 0 ? -1 : !loop;
}

/* `subject` and `value` are borrowed, may be NULL. */
static PyObject *make(tr_state *state, uint8_t kind, PyObject *subject, PyObject *value,
                      uint64_t nanoseconds) {
    tr_wait_object *wait = PyObject_GC_New(tr_wait_object, state->Wait);
    if (wait == NULL) return NULL;
    atomic_init(&wait->step, NEW);
    wait->kind = kind;
    wait->failed = false;
    wait->subject = Py_XNewRef(subject);
    wait->value = Py_XNewRef(value);
    wait->nanoseconds = nanoseconds;
    wait->deadline = TR_FOREVER;
    wait->cursor = (tr_cursor){0};
    PyObject_GC_Track(wait);
    return (PyObject *)wait;
}

/* Whether the function answers *answer at once: None to who is no coroutine on the core. */
static bool declines(tr_state *state, const char *name, Py_ssize_t count, PyObject **answer) {
    *answer = NULL;
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "%s() takes 3 arguments, got %zd", name, count);
        return true;
    }
    int stepped = is_stepped(state);
    if (stepped == 0) *answer = Py_NewRef(Py_None);
    return stepped != 1;
}

static PyObject *wait_receive(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    tr_state *state = tr_state_of(module);
    PyObject *answer;
    uint64_t nanoseconds;
    if (declines(state, "wait_receive", count, &answer)) return answer;
    if (tr_check_match(state, args[0]) != 0 ||
        tr_seconds(args[1], "timeout", true, &nanoseconds) != 0)
        return NULL;
    return make(state, RECEIVE, args[0], args[2], nanoseconds);
}

static PyObject *wait_answer(PyObject *module, uint8_t kind, const char *name,
                             PyObject *const *args, Py_ssize_t count) {
    tr_state *state = tr_state_of(module);
    PyObject *answer;
    uint64_t nanoseconds;
    if (declines(state, name, count, &answer)) return answer;
    if (tr_seconds(args[2], "timeout", true, &nanoseconds) != 0) return NULL;
    return make(state, kind, args[0], args[1], nanoseconds);
}

static PyObject *wait_call(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    return wait_answer(module, CALL, "wait_call", args, count);
}

static PyObject *wait_stop(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    return wait_answer(module, STOP, "wait_stop", args, count);
}

static PyObject *wait_sleep(PyObject *module, PyObject *seconds) {
    tr_state *state = tr_state_of(module);
    uint64_t nanoseconds;
    int stepped = is_stepped(state);
    if (stepped == 0) Py_RETURN_NONE;
    if (stepped < 0 || tr_seconds(seconds, "seconds", false, &nanoseconds) != 0) return NULL;
    return make(state, SLEEP, NULL, NULL, nanoseconds);
}

PyMethodDef tr_wait_functions[] = {
    {"wait_receive", (PyCFunction)(void (*)(void))wait_receive, METH_FASTCALL,
     "wait_receive(match, timeout, default): what a coroutine on the core awaits; else None."},
    {"wait_call", (PyCFunction)(void (*)(void))wait_call, METH_FASTCALL,
     "wait_call(dest, request, timeout): what a coroutine on the core awaits; else None."},
    {"wait_stop", (PyCFunction)(void (*)(void))wait_stop, METH_FASTCALL,
     "wait_stop(dest, reason, timeout): what a coroutine on the core awaits; else None."},
    {"wait_sleep", wait_sleep, METH_O,
     "wait_sleep(seconds): what a coroutine on the core awaits; else None."},
    {NULL, NULL, 0, NULL},
};
