/* message_loop.c: the loops over messages that run once per chunk or batch.
 *
 * MessageLoop  a processor's handle_events: calls handle_message for each message of a chunk,
 *              settles what failed, acknowledges, and answers what goes on to the batchers. Belongs
 *              to one worker.
 * split        sorts messages by status.
 *
 * On the way that nearly all messages take (handle_message returns the message it was given, ok,
 * and nobody waits for an acknowledgement) a chunk allocates nothing and calls no other Python code:
 * the list that came in is the list that goes on. Everything else (an exception, a failed message,
 * an acknowledger) is handed to Python functions, at most once per failed message or chunk.
 *
 * References: lists and messages are owned by the callers throughout; "borrowed" is said. A MessageLoop has no
 * lock: the worker's process calls it, thus one thread at a time. */
#include "ledger.h"
#include "message.h"

#include <structmember.h>

/* ---- MessageLoop -------------------------------------------------------------------------------- */

typedef struct message_loop {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *module;        /* borrowed: the type keeps it alive */
    tr_message_state *state; /* of the module */
    PyObject *function;      /* handle_message, owned; of a bound method the function ... */
    PyObject *receiver;      /* ... and the object, owned, or NULL */
    PyObject *batchers;      /* frozenset of names, owned; NULL: there are none */
    PyObject *known;         /* the name found in batchers last, owned or NULL */
    ledger *ledger;          /* owned */
    held *held;              /* owned: how many messages the worker has in hand */
    PyObject *on_error;      /* owned: (message, exception) -> whether the message was taken away */
    PyObject *on_failed;     /* owned: (failed) -> failed, before they are acknowledged */
    PyObject *acknowledge;   /* owned: (successful, failed), does not raise for an acknowledger */
} message_loop;

static PyObject *call_handler(message_loop *self, PyObject *message) {
    PyObject *args[3] = {NULL, self->receiver, message};
    if (self->receiver)
        return PyObject_Vectorcall(self->function, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                   NULL);
    return PyObject_Vectorcall(self->function, args + 2, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static void refuse_batcher(message_loop *self, PyObject *name) {
    PyObject *names = PySequence_List(self->batchers);
    if (names && PyList_Sort(names) == 0)
        PyErr_Format(PyExc_RuntimeError, "unknown batcher %R; the batchers are %R", name, names);
    Py_XDECREF(names);
}

/* Whether the batcher of this ok message exists; otherwise an exception is set (P70). */
static bool batcher_exists(message_loop *self, message_object *message) {
    PyObject *name = tr_message_batcher(message);
    int found = name == self->known ? 1 : PySet_Contains(self->batchers, name);
    if (found > 0 && name != self->known)
        Py_XSETREF(self->known, Py_NewRef(name));
    else if (found == 0)
        refuse_batcher(self, name);
    Py_DECREF(name);
    return found > 0;
}

/* Run the handler on one message. Answers the message that came of it (owned), ok or failed by its
 * own mark; NULL with an exception set if the handler raised, returned something else, or chose a
 * batcher that does not exist. */
static PyObject *handle_one(message_loop *self, PyObject *message) {
    PyObject *result = call_handler(self, message);
    if (!result)
        return NULL;
    if (result != message && !is_message(self->state, result)) {
        PyErr_Format(PyExc_RuntimeError,
                     "handle_message: expected the message to be returned, got %R", result);
        Py_DECREF(result);
        return NULL;
    }
    message_object *handled = (message_object *)result;
    if (handled->status == MESSAGE_OK && self->batchers && !batcher_exists(self, handled)) {
        Py_DECREF(result);
        return NULL;
    }
    return result;
}

static int append(PyObject **list, PyObject *item) {
    if (!*list && !(*list = PyList_New(0)))
        return -1;
    return PyList_Append(*list, item);
}

/* The handler raised on `message`, which had `data` (borrowed, may be NULL): make the message what it
 * was when it was given (P66) and let Python judge. A kill goes on unwinding. */
static int handle_error(message_loop *self, PyObject *message, PyObject *data, PyObject **failed) {
    PyObject *exception = tr_message_take_exception(self->module);
    if (!exception)
        return -1;
    tr_message_set_data((message_object *)message, Py_XNewRef(data));
    PyObject *args[2] = {message, exception};
    PyObject *answer = PyObject_Vectorcall(self->on_error, args, 2, NULL);
    Py_DECREF(exception);
    if (!answer)
        return -1;
    int taken = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (taken != 0)
        return taken < 0 ? -1 : 0;
    return append(failed, message);
}

/* Handle events[index] and put what comes of it at events[*kept], or into *failed, or nowhere. */
static int step(message_loop *self, PyObject *events, Py_ssize_t index, Py_ssize_t *kept,
                PyObject **failed, bool *told) {
    PyObject *message = tr_list_item(events, index);
    PyObject *data = NULL, *result = NULL;
    int outcome = -1;
    if (!message)
        return -1;
    if (!is_message(self->state, message)) {
        PyErr_Format(PyExc_RuntimeError, "expected a Message, got %R", message);
        goto done;
    }
    data = tr_message_data((message_object *)message);
    result = handle_one(self, message);
    if (!result) {
        outcome = handle_error(self, message, data, failed);
        goto done;
    }
    message_object *handled = (message_object *)result;
    if (result != message)
        tr_message_inherit(handled, (message_object *)message);
    if (handled->status != MESSAGE_OK) {
        outcome = append(failed, result);
        goto done;
    }
    *told = *told || handled->acknowledger;
    outcome = 0;
    if (result != message || *kept != index)
        outcome = PyList_SetItem(events, *kept, Py_NewRef(result));
    ++*kept;
done:
    Py_XDECREF(result);
    Py_XDECREF(data);
    Py_DECREF(message);
    return outcome;
}

/* handle_failed and dead letters: *failed becomes what is acknowledged as failed. */
static int settle(message_loop *self, PyObject **failed) {
    PyObject *settled = PyObject_CallOneArg(self->on_failed, *failed);
    if (!settled)
        return -1;
    Py_SETREF(*failed, settled);
    if (PyList_Check(settled))
        return 0;
    PyErr_Format(PyExc_TypeError, "expected a list of failed messages, got %R", settled);
    return -1;
}

/* Acknowledge a finished chunk: all of it, or with batchers only what failed. */
static int acknowledge(message_loop *self, PyObject *done, PyObject *failed, bool told) {
    Py_ssize_t lost = failed ? PyList_GET_SIZE(failed) : 0;
    if (lost > 0 || told) {
        PyObject *good = self->batchers ? PyList_New(0) : Py_NewRef(done);
        PyObject *bad = failed ? Py_NewRef(failed) : PyList_New(0);
        PyObject *answer = NULL;
        if (good && bad)
            answer = PyObject_CallFunctionObjArgs(self->acknowledge, good, bad, NULL);
        Py_XDECREF(good);
        Py_XDECREF(bad);
        if (!answer)
            return -1;
        Py_DECREF(answer);
    }
    if (!self->batchers)
        tr_ledger_count(self->ledger, LEDGER_SUCCESSFUL, PyList_GET_SIZE(done));
    tr_ledger_count(self->ledger, LEDGER_FAILED, lost);
    return 0;
}

static PyObject *run_chunk(message_loop *self, PyObject *events) {
    PyObject *failed = NULL, *answer = NULL;
    Py_ssize_t kept = 0;
    bool told = false;
    Py_ssize_t size = PyList_GET_SIZE(events);
    tr_held_add(self->held, size);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(events); i++) {
        if (atomic_load_explicit(&self->ledger->halted, memory_order_relaxed)) {
            answer = Py_NewRef(Py_None);
            goto done;
        }
        if (step(self, events, i, &kept, &failed, &told) < 0)
            goto done;
    }
    if (kept < PyList_GET_SIZE(events) &&
        PyList_SetSlice(events, kept, PyList_GET_SIZE(events), NULL) < 0)
        goto done;
    if (tr_message_check_alive(self->module) < 0 || (failed && settle(self, &failed) < 0))
        goto done;
    if (acknowledge(self, events, failed, told && !self->batchers) < 0)
        goto done;
    answer = Py_NewRef(self->batchers && kept > 0 ? events : Py_None);
done:
    tr_held_add(self->held, -size);
    Py_XDECREF(failed);
    return answer;
}

/* loop(events, sender=None): as handle_events is called. */
static PyObject *loop_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf,
                                 PyObject *names) {
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (count < 1 || count > 2 || (names && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "expected (events, sender)");
        return NULL;
    }
    if (!PyList_CheckExact(args[0])) {
        PyErr_Format(PyExc_TypeError, "events: expected a list, got %R", args[0]);
        return NULL;
    }
    PyObject *events = Py_NewRef(args[0]);
    PyObject *answer = run_chunk((message_loop *)self, events);
    Py_DECREF(events);
    return answer;
}

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"handle_message", "batchers",  "ledger",      "held",
                            "on_error",       "on_failed", "acknowledge", NULL};
    PyObject *handler, *batchers, *book, *hand, *on_error, *on_failed, *acknowledge;
    tr_message_state *state = tr_message_state_of(PyType_GetModule(type));
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!O!OOO:MessageLoop", names, &handler,
                                     &batchers, state->ledger_type, &book, state->held_type, &hand,
                                     &on_error, &on_failed, &acknowledge))
        return NULL;
    if (batchers != Py_None && !PyFrozenSet_CheckExact(batchers)) {
        PyErr_SetString(PyExc_TypeError, "batchers: expected None or a frozenset");
        return NULL;
    }
    message_loop *self = (message_loop *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    bool bound = PyMethod_Check(handler);
    self->vectorcall = loop_vectorcall;
    self->module = PyType_GetModule(type);
    self->state = state;
    self->function = Py_NewRef(bound ? PyMethod_GET_FUNCTION(handler) : handler);
    self->receiver = bound ? Py_NewRef(PyMethod_GET_SELF(handler)) : NULL;
    self->batchers = batchers == Py_None ? NULL : Py_NewRef(batchers);
    self->ledger = (ledger *)Py_NewRef(book);
    self->held = (held *)Py_NewRef(hand);
    self->on_error = Py_NewRef(on_error);
    self->on_failed = Py_NewRef(on_failed);
    self->acknowledge = Py_NewRef(acknowledge);
    return (PyObject *)self;
}

static int loop_traverse(PyObject *object, visitproc visit, void *arg) {
    message_loop *self = (message_loop *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->function);
    Py_VISIT(self->receiver);
    Py_VISIT(self->ledger);
    Py_VISIT(self->on_error);
    Py_VISIT(self->on_failed);
    Py_VISIT(self->acknowledge);
    return 0;
}

/* What the loop still needs while a call of it runs is kept: only the ways back to it are cut. */
static int loop_clear(PyObject *object) {
    message_loop *self = (message_loop *)object;
    Py_CLEAR(self->receiver);
    Py_CLEAR(self->function);
    Py_CLEAR(self->on_error);
    Py_CLEAR(self->on_failed);
    Py_CLEAR(self->acknowledge);
    return 0;
}

static void loop_dealloc(PyObject *object) {
    message_loop *self = (message_loop *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    loop_clear(object);
    Py_CLEAR(self->batchers);
    Py_CLEAR(self->known);
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->held);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef loop_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(message_loop, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "MessageLoop(handle_message, batchers, ledger, held, on_error, on_failed, "
                "acknowledge)\n"
                "--\n\nA processor's handle_events."},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, loop_members},
    {0, NULL}};

static PyType_Spec loop_spec = {
    .name = "tailrace._core.MessageLoop",
    .basicsize = sizeof(message_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

/* ---- Functions ---------------------------------------------------------------------------------- */

/* Sort messages by status into two new lists, in order, and say whether one has an acknowledger. -1
 * with a RuntimeError quoting what is no list of messages. */
static int sort_messages(tr_message_state *state, PyObject *messages, PyObject **ok,
                         PyObject **failed, bool *told) {
    *told = false;
    *ok = *failed = NULL;
    if (!PyList_Check(messages)) {
        PyErr_Format(PyExc_RuntimeError, "expected a list of messages, got %R", messages);
        return -1;
    }
    PyObject *items = PyList_AsTuple(messages); /* the list is the user's, and may change */
    *ok = PyList_New(0);
    *failed = PyList_New(0);
    if (!items || !*ok || !*failed)
        goto fail;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i); /* borrowed */
        if (!is_message(state, item)) {
            PyErr_Format(PyExc_RuntimeError, "expected a list of messages, got %R in %R", item,
                         messages);
            goto fail;
        }
        message_object *message = (message_object *)item;
        *told = *told || message->acknowledger;
        if (PyList_Append(message->status == MESSAGE_OK ? *ok : *failed, item) < 0)
            goto fail;
    }
    Py_DECREF(items);
    return 0;
fail:
    Py_XDECREF(items);
    Py_CLEAR(*ok);
    Py_CLEAR(*failed);
    return -1;
}

/* split(messages): (ok, failed, whether somebody is to be told). */
static PyObject *split(PyObject *module, PyObject *messages) {
    PyObject *ok, *failed;
    bool told;
    if (sort_messages(tr_message_state_of(module), messages, &ok, &failed, &told) < 0)
        return NULL;
    return Py_BuildValue("(NNO)", ok, failed, told ? Py_True : Py_False);
}

/* The data of each message, in a new tuple. The list is nobody else's, here and below. */
static PyObject *data_of(PyObject *messages) {
    Py_ssize_t size = PyList_GET_SIZE(messages);
    PyObject *data = PyTuple_New(size);
    for (Py_ssize_t i = 0; data && i < size; i++) {
        message_object *message = (message_object *)PyList_GET_ITEM(messages, i);
        PyObject *datum = tr_message_data(message);
        PyTuple_SET_ITEM(data, i, datum ? datum : Py_NewRef(Py_None));
    }
    return data;
}

static void restore_data(PyObject *messages, PyObject *data) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(data); i++) {
        message_object *message = (message_object *)PyList_GET_ITEM(messages, i);
        tr_message_set_data(message, Py_NewRef(PyTuple_GET_ITEM(data, i)));
    }
}

/* run_batch(handle_batch, batcher, messages, info): (None, ok, failed, whether somebody is to be told,
 * number returned), or, if it raised or answered no list of messages, (exception, [], the messages as
 * received, True, 0): also with the data they had (P94). */
static PyObject *run_batch(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    tr_message_state *state = tr_message_state_of(module);
    PyObject *copy = NULL, *data = NULL, *returned = NULL, *answer = NULL, *ok, *failed;
    bool told;
    if (count != 4 || !PyList_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "run_batch: expected (callable, str, list, BatchInfo)");
        return NULL;
    }
    copy = PyList_GetSlice(args[2], 0, PyList_GET_SIZE(args[2]));
    data = copy ? data_of(copy) : NULL;
    if (!data)
        goto done;
    returned = PyObject_Vectorcall(args[0], args + 1, 3, NULL);
    if (returned && sort_messages(state, returned, &ok, &failed, &told) == 0) {
        Py_ssize_t number = PyList_GET_SIZE(ok) + PyList_GET_SIZE(failed);
        answer = Py_BuildValue("(ONNOn)", Py_None, ok, failed, told ? Py_True : Py_False, number);
        goto done;
    }
    PyObject *exception = tr_message_take_exception(module);
    if (exception) {
        restore_data(copy, data);
        answer = Py_BuildValue("(N[]OOi)", exception, copy, Py_True, 0);
    }
done:
    Py_XDECREF(copy);
    Py_XDECREF(data);
    Py_XDECREF(returned);
    return answer;
}

/* set_exception(message, exception, exit, data=...): mark a message as an exception. */
static PyObject *set_exception(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    tr_message_state *state = tr_message_state_of(module);
    if (count != 3 || !is_message(state, args[0])) {
        PyErr_SetString(PyExc_TypeError, "set_exception: expected (Message, exception, bool)");
        return NULL;
    }
    tr_message_set_exception((message_object *)args[0], args[1], args[2] == Py_True);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"split", split, METH_O, "split(messages, /)\n--\n\n(ok, failed, whether one has an acknowledger), in order."},
    {"run_batch", (PyCFunction)(void (*)(void))run_batch, METH_FASTCALL,
     "run_batch(handle_batch, batcher, messages, info, /)\n--\n\n(exception or None, ok, failed, "
     "whether one has an acknowledger, number returned)."},
    {"set_exception", (PyCFunction)(void (*)(void))set_exception, METH_FASTCALL,
     "set_exception(message, exception, exit, /)\n--\n\nMark a message as an exception."},
    {NULL, NULL, 0, NULL}};

int tr_message_loop_init(PyObject *module, tr_message_state *state) {
    if (tr_message_add_type(module, &loop_spec, &state->loop_type, true) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
