/* open_batches.c: Batches, what a batcher holds: one open batch per batch key.
 *
 * Counts and deadlines are kept by the core (tailrace_pipeline.h); this file finds the open batch of
 * a key and keeps its messages. A message whose key is the very object of the batch in progress needs
 * no lookup.
 * A batch that leaves is a triple (messages, batch_key, trigger); it is never empty.
 *
 * A run is a row of messages of one chunk with the same key. A message in flush mode makes its batch
 * leave at the end of the run (P80); a batch that is full leaves at once (P82) and the run begins
 * anew. A splitter, called as splitter(message, accumulator), decides in place of the size and
 * answers ("emit", accumulator) or ("cont", accumulator). If it raises or answers nonsense, or if the
 * key cannot be hashed, that message alone is handed back together with the exception.
 *
 * One process uses a Batches object and its open batches, from the thread that runs it: nothing in
 * them has a lock. */
#include "message.h"

#include <stddef.h>

#include "tailrace_pipeline.h"

typedef struct open_batch {
    PyObject_HEAD
    tr_open_batch batch;        /* in the list of its batcher */
    PyObject *messages;    /* owned list */
    PyObject *key;         /* owned */
    PyObject *accumulator; /* the splitter's, owned; NULL without one */
} open_batch;

typedef struct batches {
    PyObject_HEAD
    PyObject *module;        /* borrowed: the type keeps it alive */
    tr_message_state *state; /* of the module */
    tr_batcher batcher;
    unsigned long long waiting; /* messages in open batches */
    PyObject *by_key;   /* owned dict: key -> open_batch */
    PyObject *restarts; /* owned dict: key -> accumulator that the last emit answered, or NULL */
    PyObject *splitter; /* owned; NULL: split by size */
    PyObject *initial;  /* owned: the first accumulator; NULL without a splitter */
} batches;

/* What one call of add collects. */
typedef struct harvest {
    PyObject *left;    /* owned list of triples, or NULL */
    PyObject *refused; /* owned list of (message, exception), or NULL */
} harvest;

/* ---- OpenBatch: owned by the dict ---------------------------------------------------------------- */

static int open_batch_traverse(PyObject *object, visitproc visit, void *arg) {
    open_batch *self = (open_batch *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->messages);
    Py_VISIT(self->key);
    Py_VISIT(self->accumulator);
    return 0;
}

static int open_batch_clear(PyObject *object) {
    open_batch *self = (open_batch *)object;
    Py_CLEAR(self->messages);
    Py_CLEAR(self->key);
    Py_CLEAR(self->accumulator);
    return 0;
}

static void open_batch_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    open_batch_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot open_batch_slots[] = {{Py_tp_dealloc, open_batch_dealloc},
                                         {Py_tp_traverse, open_batch_traverse},
                                         {Py_tp_clear, open_batch_clear},
                                         {0, NULL}};

static PyType_Spec open_batch_spec = {
    .name = "tailrace._core.OpenBatch",
    .basicsize = sizeof(open_batch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = open_batch_slots,
};

/* ---- Opening and leaving ------------------------------------------------------------------------- */

static open_batch *batch_of(tr_open_batch *batch) {
    return (open_batch *)((char *)batch - offsetof(open_batch, batch));
}

/* The accumulator a new batch of `key` begins with: borrowed, NULL without a splitter. */
static PyObject *first_accumulator(batches *self, PyObject *key) {
    PyObject *kept = self->restarts ? PyDict_GetItemWithError(self->restarts, key) : NULL;
    return kept || PyErr_Occurred() ? kept : self->initial;
}

/* The open batch of `key`, made if there is none: borrowed from by_key. NULL: an exception. */
static open_batch *find_or_open(batches *self, PyObject *key, uint64_t now) {
    PyObject *found = PyDict_GetItemWithError(self->by_key, key);
    if (found || PyErr_Occurred())
        return (open_batch *)found;
    PyObject *accumulator = first_accumulator(self, key);
    if (PyErr_Occurred())
        return NULL;
    open_batch *fresh = (open_batch *)self->state->open_batch_type->tp_alloc(
        self->state->open_batch_type, 0);
    if (!fresh)
        return NULL;
    fresh->key = Py_NewRef(key);
    fresh->accumulator = Py_XNewRef(accumulator);
    fresh->messages = PyList_New(0);
    if (!fresh->messages || PyDict_SetItem(self->by_key, key, (PyObject *)fresh) < 0) {
        Py_DECREF(fresh);
        return NULL;
    }
    tr_batcher_open(&self->batcher, &fresh->batch, now);
    Py_DECREF(fresh);
    return fresh;
}

/* The batch leaves: append its triple to *left and forget it. It was held by by_key alone. */
static int leave(batches *self, open_batch *batch, PyObject *trigger, PyObject **left) {
    int outcome = -1;
    Py_INCREF(batch);
    self->waiting -= batch->batch.count;
    tr_batcher_close(&self->batcher, &batch->batch);
    PyObject *triple = PyTuple_Pack(3, batch->messages, batch->key, trigger);
    if (PyDict_DelItem(self->by_key, batch->key) == 0 && triple && (*left || (*left = PyList_New(0))))
        outcome = PyList_Append(*left, triple);
    Py_XDECREF(triple);
    Py_DECREF(batch);
    return outcome;
}

/* The next batch of the key starts over from the initial accumulator (P88). */
static int forget_accumulator(batches *self, PyObject *key) {
    if (!self->restarts)
        return 0;
    int found = PyDict_Contains(self->restarts, key);
    return found > 0 ? PyDict_DelItem(self->restarts, key) : found;
}

/* The accumulator that came with "emit" is where the next batch of the key starts (P87). The initial
 * one is not remembered: keys may be many. */
static int keep_accumulator(batches *self, open_batch *batch) {
    int initial = PyObject_RichCompareBool(batch->accumulator, self->initial, Py_EQ);
    if (initial != 0)
        return initial < 0 ? -1 : forget_accumulator(self, batch->key);
    if (!self->restarts && !(self->restarts = PyDict_New()))
        return -1;
    return PyDict_SetItem(self->restarts, batch->key, batch->accumulator);
}

/* ---- One message --------------------------------------------------------------------------------- */

/* Ask the splitter: 1 emit, 0 go on, -1 exception. The batch gets the new accumulator. */
static int ask_splitter(batches *self, open_batch *batch, PyObject *message) {
    PyObject *args[2] = {message, batch->accumulator};
    PyObject *answer = PyObject_Vectorcall(self->splitter, args, 2, NULL);
    if (!answer)
        return -1;
    int emit = -1;
    if (PyTuple_CheckExact(answer) && PyTuple_GET_SIZE(answer) == 2) {
        PyObject *verb = PyTuple_GET_ITEM(answer, 0);
        emit = PyObject_RichCompareBool(verb, self->state->word_emit, Py_EQ);
        if (emit == 0) {
            int go_on = PyObject_RichCompareBool(verb, self->state->word_cont, Py_EQ);
            emit = go_on == 1 ? 0 : -1;
        }
    }
    if (emit >= 0)
        Py_SETREF(batch->accumulator, Py_NewRef(PyTuple_GET_ITEM(answer, 1)));
    else if (!PyErr_Occurred())
        PyErr_Format(PyExc_RuntimeError,
                     "batch_size: expected the splitter to answer (\"emit\", accumulator) or "
                     "(\"cont\", accumulator), got %R",
                     answer);
    Py_DECREF(answer);
    return emit;
}

/* Put the message into the batch: 1 it is full, 0 not yet, -1 exception and the message is not in. */
static int put(batches *self, open_batch *batch, PyObject *message) {
    int emit = self->splitter ? ask_splitter(self, batch, message) : 0;
    if (emit < 0 || PyList_Append(batch->messages, message) < 0)
        return -1;
    self->waiting++;
    bool full = tr_batcher_add(&self->batcher, &batch->batch);
    if (emit && keep_accumulator(self, batch) < 0)
        PyErr_Clear(); /* cannot be compared or kept: the key starts from the initial one */
    return full || emit;
}

/* Hand the message back with the exception being raised, which ends being raised. */
static int refuse(batches *self, harvest *out, PyObject *message) {
    PyObject *exception = tr_message_take_exception(self->module), *pair = NULL;
    if (exception && (out->refused || (out->refused = PyList_New(0))))
        pair = PyTuple_Pack(2, message, exception);
    Py_XDECREF(exception);
    int outcome = pair ? PyList_Append(out->refused, pair) : -1;
    Py_XDECREF(pair);
    return outcome;
}

/* A batch that was opened for a message that was then refused must not stay behind empty: *batch
 * becomes NULL with it. */
static int drop_if_empty(batches *self, open_batch **batch) {
    open_batch *empty = *batch;
    if (empty->batch.count > 0)
        return 0;
    *batch = NULL;
    Py_INCREF(empty);
    tr_batcher_close(&self->batcher, &empty->batch);
    int outcome = PyDict_DelItem(self->by_key, empty->key);
    Py_DECREF(empty);
    return outcome;
}

/* End of a run: what holds a flush message leaves. */
static int end_run(batches *self, open_batch *batch, bool flush, harvest *out) {
    if (!batch || !flush)
        return 0;
    if (forget_accumulator(self, batch->key) < 0)
        return -1;
    return leave(self, batch, self->state->word_flush, &out->left);
}

/* The run in progress while messages are added. */
typedef struct run {
    open_batch *batch; /* borrowed from by_key; NULL: none */
    bool flush;        /* a message of it was in flush mode */
} run;

/* Continue the run with a message of `key`, or end it and begin another: 1; 0 if the key cannot be
 * used, with an exception; -1 exception. */
static int go_on(batches *self, PyObject *key, uint64_t now, run *current, harvest *out) {
    if (current->batch && current->batch->key == key)
        return 1;
    open_batch *next = find_or_open(self, key, now);
    if (!next)
        return 0;
    if (next == current->batch)
        return 1;
    if (end_run(self, current->batch, current->flush, out) < 0)
        return -1;
    *current = (run){next, false};
    return 1;
}

static int add_one(batches *self, PyObject *item, uint64_t now, run *current, harvest *out) {
    if (!is_message(self->state, item)) {
        PyErr_Format(PyExc_TypeError, "expected a Message, got %R", item);
        return -1;
    }
    message_object *message = (message_object *)item;
    PyObject *key = tr_message_batch_key(message);
    int usable = go_on(self, key, now, current, out);
    Py_DECREF(key);
    if (usable <= 0)
        return usable < 0 ? -1 : refuse(self, out, item);
    int full = put(self, current->batch, item);
    if (full < 0)
        return refuse(self, out, item) < 0 ? -1 : drop_if_empty(self, &current->batch);
    current->flush |= message->flush;
    if (!full)
        return 0;
    open_batch *batch = current->batch;
    *current = (run){0};
    return leave(self, batch, self->state->word_size, &out->left);
}

static int add_all(batches *self, PyObject *messages, uint64_t now, harvest *out) {
    run current = {0};
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(messages); i++) {
        PyObject *item = tr_list_item(messages, i);
        int outcome = item ? add_one(self, item, now, &current, out) : -1;
        Py_XDECREF(item);
        if (outcome < 0)
            return -1;
    }
    return end_run(self, current.batch, current.flush, out);
}

/* ---- Methods ------------------------------------------------------------------------------------- */

/* add(messages, now): (batches that leave, [(refused message, exception)]). */
static PyObject *batches_add(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    batches *self = (batches *)object;
    harvest out = {0};
    if (count != 2 || !PyList_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "add: expected (list, int)");
        return NULL;
    }
    uint64_t now = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred() || add_all(self, args[0], now, &out) < 0) {
        Py_XDECREF(out.left);
        Py_XDECREF(out.refused);
        return NULL;
    }
    if (!out.left)
        out.left = Py_NewRef(Py_None);
    if (!out.refused)
        out.refused = Py_NewRef(Py_None);
    return Py_BuildValue("(NN)", out.left, out.refused);
}

/* Take batches out while `next` names one; None if there were none. */
static PyObject *take_out(batches *self, uint64_t now, bool all, PyObject *trigger) {
    PyObject *left = NULL;
    tr_open_batch *next;
    while ((next = all ? self->batcher.first : tr_batcher_expired(&self->batcher, now))) {
        open_batch *batch = batch_of(next);
        if (forget_accumulator(self, batch->key) < 0 || leave(self, batch, trigger, &left) < 0) {
            Py_XDECREF(left);
            return NULL;
        }
    }
    return left ? left : Py_NewRef(Py_None);
}

static PyObject *batches_expire(PyObject *object, PyObject *now) {
    batches *self = (batches *)object;
    uint64_t time = PyLong_AsUnsignedLongLong(now);
    if (PyErr_Occurred())
        return NULL;
    return take_out(self, time, false, self->state->word_timeout);
}

static PyObject *batches_flush(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    batches *self = (batches *)object;
    return take_out(self, 0, true, self->state->word_flush);
}

static PyObject *batches_deadline(PyObject *object, void *Py_UNUSED(closure)) {
    batches *self = (batches *)object;
    if (!self->batcher.first)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(tr_batcher_deadline(&self->batcher));
}

static PyObject *batches_waiting(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(((batches *)object)->waiting);
}

static PyObject *batches_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"size", "timeout", "splitter", "initial", NULL};
    unsigned long long size, timeout;
    PyObject *splitter = Py_None, *initial = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KK|OO:Batches", names, &size, &timeout,
                                     &splitter, &initial))
        return NULL;
    batches *self = (batches *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->module = PyType_GetModule(type);
    self->state = tr_message_state_of(self->module);
    tr_batcher_init(&self->batcher, splitter == Py_None ? size : 0, timeout);
    if (splitter != Py_None) {
        self->splitter = Py_NewRef(splitter);
        self->initial = Py_NewRef(initial);
    }
    self->by_key = PyDict_New();
    if (!self->by_key)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int batches_traverse(PyObject *object, visitproc visit, void *arg) {
    batches *self = (batches *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->by_key);
    Py_VISIT(self->restarts);
    Py_VISIT(self->splitter);
    Py_VISIT(self->initial);
    return 0;
}

/* The batcher's list points into what by_key owns, so it is forgotten first; it is not walked, for the collector may
 * have cleared by_key before. */
static int batches_clear(PyObject *object) {
    batches *self = (batches *)object;
    tr_batcher_init(&self->batcher, self->batcher.size, self->batcher.timeout);
    Py_CLEAR(self->by_key);
    Py_CLEAR(self->restarts);
    Py_CLEAR(self->splitter);
    Py_CLEAR(self->initial);
    return 0;
}

static void batches_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    batches_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef batches_methods[] = {
    {"add", (PyCFunction)(void (*)(void))batches_add, METH_FASTCALL,
     "add($self, messages, now, /)\n--\n\n(batches that leave or None, [(refused message, "
     "exception)] or None); now in ns."},
    {"expire", batches_expire, METH_O,
     "expire($self, now, /)\n--\n\nBatches whose time is over at now (ns), or None."},
    {"flush", batches_flush, METH_NOARGS,
     "flush($self, /)\n--\n\nAll open batches, or None."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef batches_attributes[] = {
    {"deadline", batches_deadline, NULL, "int | None: when the next batch expires, ns.", NULL},
    {"waiting", batches_waiting, NULL, "int: messages in open batches.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot batches_slots[] = {
    {Py_tp_doc, "Batches(size, timeout, splitter=None, initial=None)\n--\n\nThe open batches of a "
                "batcher; timeout in ns."},
    {Py_tp_new, batches_new},
    {Py_tp_dealloc, batches_dealloc},
    {Py_tp_traverse, batches_traverse},
    {Py_tp_clear, batches_clear},
    {Py_tp_methods, batches_methods},
    {Py_tp_getset, batches_attributes},
    {0, NULL}};

static PyType_Spec batches_spec = {
    .name = "tailrace._core.Batches",
    .basicsize = sizeof(batches),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = batches_slots,
};

int tr_open_batches_init(PyObject *module, tr_message_state *state) {
    if (tr_message_add_type(module, &open_batch_spec, &state->open_batch_type, false) < 0)
        return -1;
    return tr_message_add_type(module, &batches_spec, &state->batches_type, true);
}
