/* source.c: Source, an iterator that a pipeline draws from, and what became of it.
 *
 * The worker that draws may be killed at any bytecode, so what is known of the iterator is noted here,
 * in C, before any Python code runs again: that it ended, what it raised, or that a kill went through
 * its own code, after which nobody can say what it has left out. Whoever replaces the worker finds it.
 *
 * The iterator may block with items drawn and not yet handed on. They lie in `drawn`, from where
 * somebody else may take them meanwhile (rescue).
 *
 * Threads: pull is for one at a time, its callers share a lock, under which `ended`, `error` and
 * `interrupted` are read too. rescue may be called beside it: `drawn` and what is said of the pull in
 * progress are touched in the object's critical section only (under the GIL: between two calls of the
 * iterator). */
#include "message.h"

#include <structmember.h>
#include <time.h>

typedef struct source {
    PyObject_HEAD
    PyObject *iterator; /* constant; owned */
    PyObject *error;    /* under the callers' lock; owned: what the iterator raised, or NULL */
    PyObject *drawn;    /* in the critical section; owned list of the pull in progress, or NULL */
    int64_t since;      /* in the critical section: when the pull in progress began; 0: there is none */
    bool ended;         /* under the callers' lock, as the next */
    bool interrupted;
} source;

enum { MOST_ROOM = 1000 }; /* items that a list is made for before they are there */

static int64_t coarse_now(void) {
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* An empty list with room for `size` items. */
static PyObject *list_with_room(Py_ssize_t size) {
    PyObject *list = PyList_New(size < MOST_ROOM ? size : MOST_ROOM);
    if (list)
        Py_SET_SIZE((PyVarObject *)list, 0);
    return list;
}

/* Note how the iterator left off: it raised, or it ended. -1 if a kill went through it. */
static int note_end(PyObject *module, source *self) {
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyErr_Clear();
        self->ended = true;
        return 0;
    }
    self->error = tr_message_take_exception(module);
    self->interrupted = !self->error;
    return self->error ? 0 : -1;
}

static int append_drawn(source *self, PyObject *item) {
    int outcome;
    Py_BEGIN_CRITICAL_SECTION(self);
    outcome = PyList_Append(self->drawn, item);
    Py_END_CRITICAL_SECTION();
    return outcome;
}

/* The pull is over: take what it has drawn. */
static PyObject *end_pull(source *self) {
    PyObject *drawn;
    Py_BEGIN_CRITICAL_SECTION(self);
    drawn = self->drawn;
    self->drawn = NULL;
    self->since = 0;
    Py_END_CRITICAL_SECTION();
    return drawn;
}

/* Draw up to `wanted` items; with `state` as messages. 0, or -1 with an exception. */
static int draw(PyObject *module, source *self, Py_ssize_t wanted, tr_message_state *state,
                int64_t patience) {
    iternextfunc next = Py_TYPE(self->iterator)->tp_iternext;
    int64_t started = self->since; /* ours, which only this pull ends */
    Py_ssize_t look = 1; /* at the clock, after so many items: 1, 2, 4, 8, then each 8th */
    for (Py_ssize_t i = 1; i <= wanted; i++) {
        PyObject *item = next(self->iterator);
        if (!item)
            return note_end(module, self);
        if (state)
            Py_SETREF(item, tr_message_new_object(state, item, NULL));
        int failed = item ? append_drawn(self, item) : -1;
        Py_XDECREF(item);
        if (failed)
            return -1;
        if (i == look) {
            if (coarse_now() - started >= patience)
                break;
            look += look < 8 ? look : 8;
        }
    }
    return 0;
}

/* pull(n, as_messages, patience): up to n items, fewer if the iterator leaves off or `patience` ns are
 * over. */
static PyObject *source_pull(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    source *self = (source *)object;
    PyObject *module = PyType_GetModule(Py_TYPE(object));
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "pull: expected (n, as_messages, patience)");
        return NULL;
    }
    Py_ssize_t wanted = PyLong_AsSsize_t(args[0]);
    tr_message_state *state = args[1] == Py_True ? tr_message_state_of(module) : NULL;
    int64_t patience = PyLong_AsLongLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (self->ended || self->error || self->interrupted)
        wanted = 0;
    PyObject *list = list_with_room(wanted > 0 ? wanted : 0);
    if (!list || wanted <= 0)
        return list;
    Py_BEGIN_CRITICAL_SECTION(self);
    self->drawn = list;
    self->since = coarse_now();
    Py_END_CRITICAL_SECTION();
    int outcome = draw(module, self, wanted, state, patience);
    list = end_pull(self);
    if (outcome < 0)
        Py_CLEAR(list);
    return list;
}

/* rescue(age): what a pull that began `age` ns ago or earlier has drawn so far, or None. */
static PyObject *source_rescue(PyObject *object, PyObject *age) {
    source *self = (source *)object;
    int64_t least = PyLong_AsLongLong(age);
    if (PyErr_Occurred())
        return NULL;
    PyObject *fresh = PyList_New(0), *drawn = NULL;
    if (!fresh)
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->since && coarse_now() - self->since >= least && PyList_GET_SIZE(self->drawn) > 0) {
        drawn = self->drawn;
        self->drawn = Py_NewRef(fresh);
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(fresh);
    return drawn ? drawn : Py_NewRef(Py_None);
}

/* For how many ns the pull in progress has lasted; 0: there is none. */
static PyObject *source_age(PyObject *object, void *Py_UNUSED(closure)) {
    source *self = (source *)object;
    int64_t age;
    Py_BEGIN_CRITICAL_SECTION(self);
    age = self->since ? coarse_now() - self->since + 1 : 0;
    Py_END_CRITICAL_SECTION();
    return PyLong_FromLongLong(age);
}

static PyObject *source_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"iterable", NULL};
    PyObject *iterable;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Source", names, &iterable))
        return NULL;
    PyObject *iterator = PyObject_GetIter(iterable);
    source *self = iterator ? (source *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        Py_XDECREF(iterator);
        return NULL;
    }
    self->iterator = iterator;
    return (PyObject *)self;
}

static int source_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((source *)object)->iterator);
    Py_VISIT(((source *)object)->error);
    Py_VISIT(((source *)object)->drawn);
    return 0;
}

static int source_clear(PyObject *object) {
    source *self = (source *)object;
    self->ended = true;
    Py_CLEAR(self->error);
    Py_CLEAR(self->iterator);
    Py_CLEAR(self->drawn);
    return 0;
}

static void source_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    source_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef source_methods[] = {
    {"pull", (PyCFunction)(void (*)(void))source_pull, METH_FASTCALL,
     "pull($self, n, as_messages, patience, /)\n--\n\nUp to n items, within patience ns."},
    {"rescue", source_rescue, METH_O,
     "rescue($self, age, /)\n--\n\nWhat a pull of this age in ns has drawn so far, or None."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef source_members[] = {
    {"error", T_OBJECT, offsetof(source, error), READONLY, "What the iterator raised, or None."},
    {"ended", T_BOOL, offsetof(source, ended), READONLY, "Whether the iterator has ended."},
    {"interrupted", T_BOOL, offsetof(source, interrupted), READONLY,
     "Whether a kill went through the iterator's code."},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef source_attributes[] = {
    {"age", source_age, NULL, "int: how long the pull in progress has lasted, ns; 0: none.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot source_slots[] = {
    {Py_tp_doc, "Source(iterable)\n--\n\nAn iterator, and what became of it."},
    {Py_tp_new, source_new},
    {Py_tp_dealloc, source_dealloc},
    {Py_tp_traverse, source_traverse},
    {Py_tp_clear, source_clear},
    {Py_tp_methods, source_methods},
    {Py_tp_members, source_members},
    {Py_tp_getset, source_attributes},
    {0, NULL}};

static PyType_Spec source_spec = {
    .name = "tailrace._core.Source",
    .basicsize = sizeof(source),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = source_slots,
};

int tr_source_init(PyObject *module, tr_message_state *state) {
    return tr_message_add_type(module, &source_spec, &state->source_type, true);
}
