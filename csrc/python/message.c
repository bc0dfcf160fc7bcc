/* message.c: the type Message: one datum on its way through a pipeline.
 *
 * Made by the million, so it is lean: what is nearly always the default (metadata, batcher, batch
 * key, acknowledger, reason) is NULL until it is set, `data` is a plain slot that the interpreter
 * specialises, and dead messages are kept on a free list of the module (not without the GIL, where
 * the allocator is as fast and a shared list would need a lock).
 *
 * Final: no subclasses, no attributes of the user's; metadata is there for that. Takes part in
 * garbage collection, because data, and the traceback of a reason, may lead back to the message. */
#include "message.h"

#include <structmember.h>

static tr_message_state *state_of(PyObject *self) {
    return ((message_object *)self)->state;
}

/* ---- Life --------------------------------------------------------------------------------------- */

static message_object *allocate(tr_message_state *state) {
#ifndef Py_GIL_DISABLED
    message_object *spare = state->spare;
    if (spare) {
        state->spare = (message_object *)spare->data;
        state->spares--;
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
        _Py_NewReference((PyObject *)spare);
#else
        Py_SET_REFCNT((PyObject *)spare, 1);
#endif
        return spare;
    }
#endif
    return PyObject_GC_New(message_object, state->message_type);
}

/* The memory and the reference to the type: to the free list as they are, or back. */
static void release_memory(tr_message_state *state, message_object *self) {
#ifndef Py_GIL_DISABLED
    if (state->spares < MESSAGE_FREE_LIST) {
        self->data = (PyObject *)state->spare;
        state->spare = self;
        state->spares++;
        return;
    }
#else
    (void)state;
#endif
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

PyObject *tr_message_new_object(tr_message_state *state, PyObject *data, PyObject *acknowledger) {
    message_object *self = allocate(state);
    if (!self)
        return NULL;
    self->state = state;
    self->data = Py_NewRef(data);
    self->acknowledger = Py_XNewRef(acknowledger);
    self->metadata = self->batcher = self->batch_key = self->reason = NULL;
    self->status = MESSAGE_OK;
    self->exit = self->flush = false;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int message_traverse(PyObject *object, visitproc visit, void *arg) {
    message_object *self = (message_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->data);
    Py_VISIT(self->metadata);
    Py_VISIT(self->acknowledger);
    Py_VISIT(self->batch_key);
    Py_VISIT(self->reason);
    return 0;
}

static int message_clear(PyObject *object) {
    message_object *self = (message_object *)object;
    Py_CLEAR(self->data);
    Py_CLEAR(self->metadata);
    Py_CLEAR(self->acknowledger);
    Py_CLEAR(self->batcher);
    Py_CLEAR(self->batch_key);
    Py_CLEAR(self->reason);
    return 0;
}

static void drop(PyObject *object) {
    tr_message_state *state = state_of(object);
    message_clear(object);
    release_memory(state, (message_object *)object);
}

/* Whether dropping the message could drop other messages, and so on for ever. */
static bool may_be_deep(const message_object *self) {
    return (self->data && PyType_IS_GC(Py_TYPE(self->data))) || self->metadata || self->reason ||
           self->batch_key;
}

static void message_dealloc(PyObject *object) {
    PyObject_GC_UnTrack(object);
    if (!may_be_deep((message_object *)object)) {
        drop(object);
        return;
    }
    Py_TRASHCAN_BEGIN(object, message_dealloc)
    drop(object);
    Py_TRASHCAN_END
}

/* ---- Checks shared by constructor and setters ---------------------------------------------------- */

/* None or nothing, or a dict (kept as it is), or another mapping (copied): *dict is owned or NULL. */
static int check_metadata(PyObject *value, PyObject **dict) {
    *dict = NULL;
    if (!value || value == Py_None)
        return 0;
    if (PyDict_Check(value)) {
        *dict = Py_NewRef(value);
        return 0;
    }
    if (!PyMapping_Check(value) || !PyObject_HasAttrString(value, "keys")) {
        PyErr_Format(PyExc_TypeError, "metadata: expected a mapping, got %R", value);
        return -1;
    }
    *dict = PyDict_New();
    if (!*dict)
        return -1;
    if (PyDict_Update(*dict, value) < 0) {
        Py_CLEAR(*dict);
        return -1;
    }
    return 0;
}

static int check_acknowledger(PyObject *value, PyObject **triple) {
    *triple = NULL;
    if (!value || value == Py_None)
        return 0;
    if (!PyTuple_CheckExact(value) || PyTuple_GET_SIZE(value) != 3) {
        PyErr_Format(PyExc_TypeError,
                     "acknowledger: expected None or a triple (acknowledger, ack_ref, ack_data), "
                     "got %R",
                     value);
        return -1;
    }
    *triple = Py_NewRef(value);
    return 0;
}

static int refuse_deletion(PyObject *value, const char *name) {
    if (value)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s cannot be deleted", name);
    return -1;
}

/* ---- Constructor -------------------------------------------------------------------------------- */

static PyObject *make(PyTypeObject *type, PyObject *data, PyObject *metadata,
                      PyObject *acknowledger) {
    tr_message_state *state = tr_message_state_of(PyType_GetModule(type));
    PyObject *dict, *triple;
    if (check_metadata(metadata, &dict) < 0)
        return NULL;
    if (check_acknowledger(acknowledger, &triple) < 0) {
        Py_XDECREF(dict);
        return NULL;
    }
    PyObject *self = tr_message_new_object(state, data, triple);
    Py_XDECREF(triple);
    if (!self) {
        Py_XDECREF(dict);
        return NULL;
    }
    ((message_object *)self)->metadata = dict;
    return self;
}

static PyObject *message_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"data", "metadata", "acknowledger", NULL};
    PyObject *data, *metadata = NULL, *acknowledger = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:Message", names, &data, &metadata,
                                     &acknowledger))
        return NULL;
    return make(type, data, metadata, acknowledger);
}

/* The constructor without argument tuple and dict; anything unusual goes the long way. */
PyObject *tr_message_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf,
                                    PyObject *names) {
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (!names && count >= 1 && count <= 3)
        return make((PyTypeObject *)type, args[0], count > 1 ? args[1] : NULL,
                    count > 2 ? args[2] : NULL);
    PyObject *tuple = PyTuple_New(count), *kwargs = NULL, *self = NULL;
    if (!tuple)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    if (names) {
        kwargs = PyDict_New();
        if (!kwargs)
            goto done;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++)
            if (PyDict_SetItem(kwargs, PyTuple_GET_ITEM(names, i), args[count + i]) < 0)
                goto done;
    }
    self = message_new((PyTypeObject *)type, tuple, kwargs);
done:
    Py_DECREF(tuple);
    Py_XDECREF(kwargs);
    return self;
}

/* ---- Attributes --------------------------------------------------------------------------------- */

/* Put `value` (reference taken over) into *field and drop what was there. */
static void replace(message_object *self, PyObject **field, PyObject *value) {
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(self);
    old = *field;
    *field = value;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
}

/* A new reference to *field, or to `fallback` if it is NULL. */
static PyObject *read_field(message_object *self, PyObject **field, PyObject *fallback) {
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(self);
    value = Py_NewRef(*field ? *field : fallback);
    Py_END_CRITICAL_SECTION();
    return value;
}

/* The same; NULL if it is. */
static PyObject *read_or_null(message_object *self, PyObject **field) {
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(self);
    value = Py_XNewRef(*field);
    Py_END_CRITICAL_SECTION();
    return value;
}

PyObject *tr_message_acknowledger(message_object *self) {
    return read_or_null(self, &self->acknowledger);
}

PyObject *tr_message_data(message_object *self) { return read_or_null(self, &self->data); }

void tr_message_set_data(message_object *self, PyObject *data) { replace(self, &self->data, data); }

PyObject *tr_message_batcher(message_object *self) {
    return read_field(self, &self->batcher, self->state->word_default);
}

PyObject *tr_message_batch_key(message_object *self) {
    return read_field(self, &self->batch_key, self->state->word_default);
}

void tr_message_inherit(message_object *self, message_object *from) {
    PyObject *own = tr_message_acknowledger(self);
    if (!own)
        replace(self, &self->acknowledger, tr_message_acknowledger(from));
    Py_XDECREF(own);
}

void tr_message_set_exception(message_object *self, PyObject *reason, bool exit) {
    self->status = MESSAGE_EXCEPTION;
    self->exit = exit;
    replace(self, &self->reason, Py_NewRef(reason));
}

static PyObject *get_metadata(PyObject *object, void *Py_UNUSED(closure)) {
    message_object *self = (message_object *)object;
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!self->metadata)
        self->metadata = PyDict_New();
    value = Py_XNewRef(self->metadata);
    Py_END_CRITICAL_SECTION();
    return value;
}

static int set_metadata(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    PyObject *dict;
    if (refuse_deletion(value, "metadata") < 0 || check_metadata(value, &dict) < 0)
        return -1;
    replace((message_object *)object, &((message_object *)object)->metadata, dict);
    return 0;
}

static PyObject *get_acknowledger(PyObject *object, void *Py_UNUSED(closure)) {
    return read_field((message_object *)object, &((message_object *)object)->acknowledger, Py_None);
}

static int set_acknowledger(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    PyObject *triple;
    if (refuse_deletion(value, "acknowledger") < 0 || check_acknowledger(value, &triple) < 0)
        return -1;
    replace((message_object *)object, &((message_object *)object)->acknowledger, triple);
    return 0;
}

static PyObject *get_batcher(PyObject *object, void *Py_UNUSED(closure)) {
    return tr_message_batcher((message_object *)object);
}

static int set_batcher(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    if (refuse_deletion(value, "batcher") < 0)
        return -1;
    if (!PyUnicode_CheckExact(value) || PyUnicode_GET_LENGTH(value) == 0) {
        PyErr_Format(PyExc_TypeError, "batcher: expected the name of a batcher, got %R", value);
        return -1;
    }
    replace((message_object *)object, &((message_object *)object)->batcher, Py_NewRef(value));
    return 0;
}

static PyObject *get_batch_key(PyObject *object, void *Py_UNUSED(closure)) {
    return tr_message_batch_key((message_object *)object);
}

static int set_batch_key(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    if (refuse_deletion(value, "batch_key") < 0)
        return -1;
    if (PyObject_Hash(value) == -1) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "batch_key: expected a hashable value, got %R", value);
        return -1;
    }
    replace((message_object *)object, &((message_object *)object)->batch_key, Py_NewRef(value));
    return 0;
}

static PyObject *get_batch_mode(PyObject *object, void *Py_UNUSED(closure)) {
    tr_message_state *state = state_of(object);
    return Py_NewRef(((message_object *)object)->flush ? state->word_flush : state->word_bulk);
}

static int set_batch_mode(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    if (refuse_deletion(value, "batch_mode") < 0)
        return -1;
    bool is_text = PyUnicode_Check(value);
    bool flush = is_text && PyUnicode_CompareWithASCIIString(value, "flush") == 0;
    if (!flush && !(is_text && PyUnicode_CompareWithASCIIString(value, "bulk") == 0)) {
        PyErr_Format(is_text ? PyExc_ValueError : PyExc_TypeError,
                     "batch_mode: expected \"bulk\" or \"flush\", got %R", value);
        return -1;
    }
    ((message_object *)object)->flush = flush;
    return 0;
}

static PyObject *get_status(PyObject *object, void *Py_UNUSED(closure)) {
    tr_message_state *state = state_of(object);
    switch (((message_object *)object)->status) {
    case MESSAGE_OK:
        return Py_NewRef(state->word_ok);
    case MESSAGE_FAILED:
        return Py_NewRef(state->word_failed);
    default:
        return Py_NewRef(state->word_exception);
    }
}

static PyObject *get_reason(PyObject *object, void *Py_UNUSED(closure)) {
    return read_field((message_object *)object, &((message_object *)object)->reason, Py_None);
}

static PyObject *get_kind(PyObject *object, void *Py_UNUSED(closure)) {
    message_object *self = (message_object *)object;
    tr_message_state *state = state_of(object);
    if (self->status != MESSAGE_EXCEPTION)
        Py_RETURN_NONE;
    return Py_NewRef(self->exit ? state->word_exit : state->word_error);
}

/* ---- Methods ------------------------------------------------------------------------------------ */

static PyObject *message_to(PyObject *self, PyObject *batcher) {
    return set_batcher(self, batcher, NULL) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *message_fail(PyObject *object, PyObject *reason) {
    message_object *self = (message_object *)object;
    self->status = MESSAGE_FAILED;
    replace(self, &self->reason, Py_NewRef(reason));
    return Py_NewRef(object);
}

static PyObject *message_ack_now(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    message_object *self = (message_object *)object;
    tr_message_state *state = state_of(object);
    PyObject *triple = tr_message_acknowledger(self), *told = NULL, *rest = NULL, *answer = NULL;
    if (!triple)
        return Py_NewRef(object);
    told = PyList_New(1);
    rest = PyList_New(0);
    if (!told || !rest)
        goto done;
    PyList_SET_ITEM(told, 0, Py_NewRef(object));
    bool ok = self->status == MESSAGE_OK;
    answer = PyObject_CallMethodObjArgs(PyTuple_GET_ITEM(triple, 0), state->word_ack,
                                        PyTuple_GET_ITEM(triple, 1), ok ? told : rest,
                                        ok ? rest : told, NULL);
    if (answer)
        replace(self, &self->acknowledger, NULL);
done:
    Py_XDECREF(told);
    Py_XDECREF(rest);
    Py_DECREF(triple);
    if (!answer)
        return NULL;
    Py_DECREF(answer);
    return Py_NewRef(object);
}

/* Ask the acknowledger for its `configure`; a clear refusal if there is nobody to ask. */
static PyObject *configure_method(tr_message_state *state, PyObject *triple) {
    if (!triple) {
        PyErr_SetString(PyExc_RuntimeError,
                        "configure_ack: the message has no acknowledger to configure");
        return NULL;
    }
    PyObject *acknowledger = PyTuple_GET_ITEM(triple, 0);
    PyObject *method = PyObject_GetAttr(acknowledger, state->word_configure);
    if (!method && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_RuntimeError,
                     "configure_ack: the acknowledger %R cannot be configured: it has no "
                     "method configure(ack_ref, ack_data, options)",
                     acknowledger);
    }
    return method;
}

static PyObject *message_configure_ack(PyObject *object, PyObject *args, PyObject *options) {
    message_object *self = (message_object *)object;
    PyObject *triple = NULL, *method = NULL, *given = NULL, *data = NULL, *fresh = NULL;
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "configure_ack: expected keyword arguments only");
        return NULL;
    }
    triple = tr_message_acknowledger(self);
    method = configure_method(state_of(object), triple);
    if (!method)
        goto done;
    given = options ? PyDict_Copy(options) : PyDict_New();
    if (!given)
        goto done;
    data = PyObject_CallFunctionObjArgs(method, PyTuple_GET_ITEM(triple, 1),
                                        PyTuple_GET_ITEM(triple, 2), given, NULL);
    if (!data)
        goto done;
    fresh = PyTuple_Pack(3, PyTuple_GET_ITEM(triple, 0), PyTuple_GET_ITEM(triple, 1), data);
    if (fresh)
        replace(self, &self->acknowledger, Py_NewRef(fresh));
done:
    Py_XDECREF(triple);
    Py_XDECREF(method);
    Py_XDECREF(given);
    Py_XDECREF(data);
    if (!fresh)
        return NULL;
    Py_DECREF(fresh);
    return Py_NewRef(object);
}

static PyObject *message_repr(PyObject *object) {
    message_object *self = (message_object *)object;
    int entered = Py_ReprEnter(object);
    if (entered != 0)
        return entered > 0 ? PyUnicode_FromString("<Message ...>") : NULL;
    PyObject *data = read_field(self, &self->data, Py_None), *reason = get_reason(object, NULL), *text;
    PyObject *status = get_status(object, NULL);
    text = self->status == MESSAGE_OK
               ? PyUnicode_FromFormat("<Message %R>", data)
               : PyUnicode_FromFormat("<Message %R %U: %R>", data, status, reason);
    Py_DECREF(data);
    Py_DECREF(reason);
    Py_DECREF(status);
    Py_ReprLeave(object);
    return text;
}

/* ---- The type ----------------------------------------------------------------------------------- */

static PyMemberDef members[] = {
    {"data", T_OBJECT_EX, offsetof(message_object, data), 0, "What the message carries."},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef attributes[] = {
    {"metadata", get_metadata, set_metadata, "dict: facts about the message, for anybody.", NULL},
    {"acknowledger", get_acknowledger, set_acknowledger,
     "None, or (acknowledger, ack_ref, ack_data): who is told how it ended.", NULL},
    {"batcher", get_batcher, set_batcher, "str: the batcher it goes to.", NULL},
    {"batch_key", get_batch_key, set_batch_key,
     "Hashable: only messages with equal keys share a batch.", NULL},
    {"batch_mode", get_batch_mode, set_batch_mode,
     "\"bulk\", or \"flush\": its batch leaves at once.", NULL},
    {"status", get_status, NULL, "\"ok\", \"failed\" or \"exception\"; read only.", NULL},
    {"reason", get_reason, NULL, "The reason given to fail(), or the exception; else None.", NULL},
    {"kind", get_kind, NULL, "Of an exception \"error\" or \"exit\"; else None.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMethodDef methods[] = {
    {"to", message_to, METH_O,
     "to($self, batcher, /)\n--\n\nSend the message to this batcher; returns the message."},
    {"fail", message_fail, METH_O,
     "fail($self, reason, /)\n--\n\nMark the message as failed; returns the message."},
    {"ack_now", message_ack_now, METH_NOARGS,
     "ack_now($self, /)\n--\n\nTell the acknowledger now, by the present status, and nobody later; "
     "returns the\nmessage."},
    {"configure_ack", (PyCFunction)(void (*)(void))message_configure_ack,
     METH_VARARGS | METH_KEYWORDS,
     "configure_ack($self, /, **options)\n--\n\nChange how this message is acknowledged; returns "
     "the message. RuntimeError if its\nacknowledger cannot be configured."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {
    {Py_tp_doc,
     "Message(data, metadata=None, acknowledger=None)\n--\n\n"
     "One datum on its way through a pipeline. It belongs to whoever holds it; its methods\n"
     "change it and return it.\n\n"
     ">>> import tailrace as tr\n"
     ">>> message = tr.Message(21)\n"
     ">>> message.data *= 2\n"
     ">>> message.to(\"s3\").batcher, message.data, message.status\n"
     "('s3', 42, 'ok')\n"},
    {Py_tp_new, message_new},
    {Py_tp_dealloc, message_dealloc},
    {Py_tp_traverse, message_traverse},
    {Py_tp_clear, message_clear},
    {Py_tp_repr, message_repr},
    {Py_tp_members, members},
    {Py_tp_getset, attributes},
    {Py_tp_methods, methods},
    {0, NULL}};

PyType_Spec tr_message_spec = {
    .name = "tailrace.Message",
    .basicsize = sizeof(message_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
