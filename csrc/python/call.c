/* call.c: send, cast, call, stop, reply, and how Python code waits.
 *
 * The hot path of the binding: send and cast keep the interpreter lock and allocate one message. A
 * wait is detached. On the main thread it is cut into steps of 50 ms, because a signal may be delivered
 * to another thread; a signal delivered here ends a step at once. Python's handlers run between steps and
 * may raise. */
#include "docs.h"
#include "state.h"
#include "task.h"

#define STEP UINT64_C(50000000)

static int one_wait(tr_process *self, int (*wait)(tr_process *, uint64_t), uint64_t deadline) {
    tr_engine *engine = tr_process_engine(self);
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = wait(self, deadline);
    tr_attach_begins(engine);
    Py_END_ALLOW_THREADS
    tr_attach_ends(engine);
    return result;
}

int tr_wait_detached(tr_state *state, tr_process *self, int (*wait)(tr_process *, uint64_t),
                     uint64_t deadline) {
    if (tr_refuse_to_block(state, "this call", "its twin with the prefix a") != 0) return -1;
    bool main_thread = PyThread_get_thread_ident() == state->main_thread;
    tr_engine *engine = tr_process_engine(self);
    for (;;) {
        uint64_t step = main_thread ? tr_deadline(engine, STEP) : deadline;
        int result = one_wait(self, wait, step < deadline ? step : deadline);
        if (main_thread && PyErr_CheckSignals() != 0) return -1;
        if (result == TR_OK) return 0;
        if (result == TR_EKILLED) return -2;
        if (result == TR_ESTOPPED) { /* a signal handler forked: this is the child */
            tr_raise_code(state, result);
            return -1;
        }
        if (result == TR_ETIMEDOUT && tr_now(engine) >= deadline) return 1;
    }
}

/* ---- send and cast ------------------------------------------------------------------------------*/

static PyObject *send_to_alias(tr_state *state, tr_engine *engine, PyObject *dest,
                               PyObject *term) {
    tr_ref_object *alias = (tr_ref_object *)dest;
    if (alias->engine != tr_engine_id_of(state)) Py_RETURN_NONE; /* switched off with its engine */
    tr_message *message = tr_message_new(TR_MESSAGE_TERM);
    if (message == NULL) return PyErr_NoMemory();
    message->term = Py_NewRef(term);
    tr_send_alias(engine, alias->ref, message);
    Py_RETURN_NONE;
}

PyObject *tr_do_send(tr_state *state, PyObject *dest, uint32_t kind, PyObject *message) {
    tr_engine *engine = tr_engine_get(state);
    tr_pid pid;
    PyObject *name;
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    if (Py_TYPE(dest) == state->Ref && kind == TR_MESSAGE_TERM)
        return send_to_alias(state, engine, dest, message);
    if (tr_destination(state, engine, dest, &pid, &name) != 0) return NULL;
    if (pid == 0 && name != NULL && kind == TR_MESSAGE_TERM) return tr_raise(state, "noname", name);
    if (pid != 0 && tr_send(engine, pid, kind, Py_NewRef(message)) == TR_ENOMEM)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *py_send(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "send() takes 2 arguments (dest, message), got %zd", count);
        return NULL;
    }
    return tr_do_send(tr_state_of(module), args[0], TR_MESSAGE_TERM, args[1]);
}

static PyObject *py_cast(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "cast() takes 2 arguments (dest, request), got %zd", count);
        return NULL;
    }
    return tr_do_send(tr_state_of(module), args[0], TR_MESSAGE_CAST, args[1]);
}

/* All destinations are looked up before anything is sent (O272). */
static PyObject *py_send_many(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *dests, *message;
    if (!PyArg_ParseTuple(args, "OO:send_many", &dests, &message)) return NULL;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    PyObject *iterator = PyObject_GetIter(dests);
    if (iterator == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "dests: expected an iterable of destinations, got %R", dests);
    PyObject *list = iterator == NULL ? NULL : PySequence_Tuple(iterator);
    Py_XDECREF(iterator);
    if (list == NULL) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(list);
    tr_pid *pids = PyMem_Calloc((size_t)count + 1, sizeof *pids);
    bool good = pids != NULL;
    if (!good) PyErr_NoMemory();
    for (Py_ssize_t i = 0; good && i < count; i++) {
        PyObject *dest = PyTuple_GET_ITEM(list, i), *name;
        if (dest == Py_None) continue;
        good = tr_destination(state, engine, dest, &pids[i], &name) == 0;
        if (good && pids[i] == 0 && name != NULL) good = tr_raise(state, "noname", name) != NULL;
    }
    for (Py_ssize_t i = 0; good && i < count; i++)
        if (pids[i] != 0 && tr_send(engine, pids[i], TR_MESSAGE_TERM, Py_NewRef(message)) ==
                                TR_ENOMEM)
            good = PyErr_NoMemory() != NULL;
    PyMem_Free(pids);
    Py_DECREF(list);
    if (!good) return NULL;
    Py_RETURN_NONE;
}

/* ---- call and stop ------------------------------------------------------------------------------*/

PyObject *tr_await_answer(tr_state *state, tr_engine *engine, tr_process *self, uint64_t deadline,
                          tr_reason **reason, bool *timed_out) {
    tr_term reply = NULL;
    *reason = NULL;
    *timed_out = false;
    int result = tr_wait_detached(state, self, tr_call_wait, deadline);
    bool answered = result == 0 || tr_call_cancel(self) == TR_OK;
    if (answered) tr_call_take(self, &reply, reason);
    if (result >= 0) {
        *timed_out = !answered;
        return reply;
    }
    /* An exception or our own end counts, even when the answer was faster. */
    Py_XDECREF((PyObject *)reply);
    if (result == -2 && *reason != NULL) return NULL; /* its end was ours, too */
    tr_reason_release(*reason);
    *reason = NULL;
    if (result == -2) tr_current(state, engine);
    return NULL;
}

PyObject *tr_raise_ended(tr_state *state, tr_reason *reason) {
    PyObject *detail = tr_reason_to_python(state, reason);
    tr_reason_release(reason);
    if (detail == NULL) return NULL;
    tr_raise(state, "call_exit", detail);
    Py_DECREF(detail);
    return NULL;
}

static PyObject *raise_deadlock(tr_state *state, const tr_call_options *options) {
    size_t length = options->length < options->size ? options->length : options->size;
    PyObject *cycle = PyTuple_New((Py_ssize_t)length);
    for (size_t i = 0; cycle != NULL && i < length; i++) {
        PyObject *pid = tr_pid_new(state, options->cycle[i]);
        if (pid == NULL)
            Py_CLEAR(cycle);
        else
            PyTuple_SET_ITEM(cycle, (Py_ssize_t)i, pid);
    }
    if (cycle == NULL) return NULL;
    tr_raise(state, "deadlock", cycle);
    Py_DECREF(cycle);
    return NULL;
}

PyObject *tr_raise_refused(tr_state *state, int result, const tr_call_options *options,
                               PyObject *dest) {
    if (result == TR_EDEAD) return tr_raise(state, "noproc", dest);
    if (result == TR_ESELF) return tr_raise(state, "calling_self", NULL);
    if (result == TR_EDEADLOCK) return raise_deadlock(state, options);
    return tr_raise_code(state, result);
}

int tr_send_request(tr_state *state, tr_process *self, PyObject *dest, uint32_t kind, tr_term term,
                    tr_reason *reason) {
    enum { CYCLE = 64 };
    tr_pid cycle[CYCLE], pid;
    tr_call_options options = {
        .kind = kind, .term = term, .reason = reason, .cycle = cycle, .size = CYCLE};
    tr_engine *engine = tr_process_engine(self);
    PyObject *name;
    if (tr_destination(state, engine, dest, &pid, &name) != 0) {
        Py_XDECREF((PyObject *)term);
        tr_reason_release(reason);
        return -1;
    }
    int result = tr_call(self, pid, &options);
    if (result == TR_OK) return 0;
    if (result == TR_EKILLED) tr_current(state, engine);
    if (!PyErr_Occurred()) tr_raise_refused(state, result, &options, dest);
    return -1;
}

/* Send a request and wait. Takes over term and reason. Either an answer (new reference), or NULL with
 * *ended set (owned), or NULL with an exception. */
static PyObject *ask(tr_state *state, PyObject *dest, uint32_t kind, tr_term term,
                     tr_reason *reason, uint64_t nanoseconds, tr_reason **ended) {
    bool timed_out;
    bool stop = kind == TR_MESSAGE_STOP;
    bool blocks = tr_refuse_to_block(state, stop ? "stop()" : "call()",
                                     stop ? "astop()" : "acall()") != 0;
    tr_engine *engine = blocks ? NULL : tr_engine_get(state);
    tr_process *self = engine == NULL ? NULL : tr_current(state, engine);
    if (self == NULL) {
        Py_XDECREF((PyObject *)term);
        tr_reason_release(reason);
        return NULL;
    }
    uint64_t deadline = tr_deadline(engine, nanoseconds);
    if (tr_send_request(state, self, dest, kind, term, reason) != 0) return NULL;
    PyObject *reply = tr_await_answer(state, engine, self, deadline, ended, &timed_out);
    if (timed_out) tr_raise(state, "call_timeout", dest);
    if (*ended != NULL && tr_process_is_dead(self)) {
        tr_reason_release(*ended);
        *ended = NULL;
        tr_current(state, engine);
    }
    return reply;
}

PyObject *tr_do_request(tr_state *state, PyObject *dest, uint32_t kind, PyObject *request,
                        PyObject *timeout) {
    uint64_t nanoseconds = UINT64_C(5000000000);
    tr_reason *ended = NULL;
    if (timeout != NULL && tr_seconds(timeout, "timeout", true, &nanoseconds) != 0) return NULL;
    PyObject *reply =
        ask(state, dest, kind, Py_NewRef(request), NULL, nanoseconds, &ended);
    return ended != NULL ? tr_raise_ended(state, ended) : reply;
}

PyObject *tr_do_call(tr_state *state, PyObject *dest, PyObject *request, PyObject *timeout) {
    return tr_do_request(state, dest, TR_MESSAGE_CALL, request, timeout);
}

bool tr_same_reason(tr_reason *wanted, tr_reason *got) {
    if (tr_reason_kind(wanted) != tr_reason_kind(got)) return false;
    if (tr_reason_kind(wanted) <= TR_TIMEOUT) return true;
    int equal = PyObject_RichCompareBool(tr_reason_term(wanted), tr_reason_term(got), Py_EQ);
    if (equal < 0) PyErr_Clear(); /* what cannot be compared is not what was wanted */
    return equal == 1;
}

PyObject *tr_do_stop(tr_state *state, PyObject *dest, PyObject *reason, PyObject *timeout) {
    uint64_t nanoseconds = TR_FOREVER;
    tr_reason *ended = NULL;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL) return NULL;
    if (timeout != NULL && tr_seconds(timeout, "timeout", true, &nanoseconds) != 0) return NULL;
    tr_reason *wanted = reason == NULL ? tr_reason_constant(TR_NORMAL)
                                       : tr_reason_from_python(state, engine, reason);
    if (wanted == NULL) return NULL;
    PyObject *reply = ask(state, dest, TR_MESSAGE_STOP, NULL, tr_reason_retain(wanted),
                          nanoseconds, &ended);
    bool as_wanted = ended != NULL && tr_same_reason(wanted, ended);
    tr_reason_release(wanted);
    if (ended == NULL) return reply; /* an exception; a stop request is never answered */
    if (!as_wanted) return tr_raise_ended(state, ended);
    tr_reason_release(ended);
    Py_RETURN_NONE;
}

static PyObject *py_call(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"dest", "request", "timeout", NULL};
    PyObject *dest, *request, *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|O:call", names, &dest, &request,
                                     &timeout))
        return NULL;
    return tr_do_call(tr_state_of(module), dest, request, timeout);
}

static PyObject *py_stop(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"dest", "reason", "timeout", NULL};
    PyObject *dest, *reason = NULL, *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|OO:stop", names, &dest, &reason, &timeout))
        return NULL;
    return tr_do_stop(tr_state_of(module), dest, reason, timeout);
}

static PyObject *py_reply(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *caller, *value;
    if (!PyArg_ParseTuple(args, "OO:reply", &caller, &value)) return NULL;
    if (Py_TYPE(caller) != state->From) {
        PyErr_Format(PyExc_TypeError,
                     "caller: expected the From that handle_call was given, got %R", caller);
        return NULL;
    }
    tr_engine *engine = tr_engine_get(state);
    tr_from_object *from = (tr_from_object *)caller;
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    if (from->engine >> 32 != state->program) return tr_raise(state, "foreign_pid", caller);
    if (from->engine == tr_engine_id_of(state))
        tr_reply(engine, from->pid, from->ref, Py_NewRef(value));
    Py_RETURN_NONE;
}

PyMethodDef tr_call_functions[] = {
    {"send", (PyCFunction)(void (*)(void))py_send, METH_FASTCALL, tr_doc_send},
    {"cast", (PyCFunction)(void (*)(void))py_cast, METH_FASTCALL, tr_doc_cast},
    {"send_many", py_send_many, METH_VARARGS, tr_doc_send_many},
    {"call", (PyCFunction)(void (*)(void))py_call, METH_VARARGS | METH_KEYWORDS, tr_doc_call},
    {"stop", (PyCFunction)(void (*)(void))py_stop, METH_VARARGS | METH_KEYWORDS, tr_doc_stop},
    {"reply", py_reply, METH_VARARGS, tr_doc_reply},
    {NULL, NULL, 0, NULL},
};
