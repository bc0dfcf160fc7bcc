/* rate_limit.c: RateWindow, the door to the core's rate limiter (tailrace_pipeline.h).
 *
 * One object serves all producers of a pipeline; every method may be called from any thread. Times
 * are nanoseconds of the clock whose readings are passed in. */
#include "message.h"

#include "tailrace_pipeline.h"

typedef struct rate_window {
    PyObject_HEAD
    tr_limiter *limiter; /* constant; owned; NULL only while it is being made; has a lock of its own */
} rate_window;

static PyObject *window_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"allowed", "interval", "now", NULL};
    unsigned long long allowed, interval, now;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KKK:RateWindow", names, &allowed, &interval,
                                     &now))
        return NULL;
    rate_window *self = (rate_window *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    int outcome = tr_limiter_new(allowed, interval, now, &self->limiter);
    if (outcome == TR_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    if (outcome == TR_ENOMEM)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, "allowed, interval: expected numbers > 0");
    return NULL;
}

static void window_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    if (((rate_window *)object)->limiter)
        tr_limiter_free(((rate_window *)object)->limiter);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *window_take(PyObject *self, PyObject *args) {
    unsigned long long wanted, now;
    if (!PyArg_ParseTuple(args, "KK:take", &wanted, &now))
        return NULL;
    return PyLong_FromUnsignedLongLong(
        tr_limiter_take(((rate_window *)self)->limiter, wanted, now));
}

static PyObject *window_left(PyObject *self, PyObject *time) {
    unsigned long long now = PyLong_AsUnsignedLongLong(time);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromUnsignedLongLong(tr_limiter_left(((rate_window *)self)->limiter, now));
}

static PyObject *window_reopens(PyObject *self, PyObject *time) {
    unsigned long long now = PyLong_AsUnsignedLongLong(time);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromUnsignedLongLong(tr_limiter_reopens(((rate_window *)self)->limiter, now));
}

static PyObject *window_update(PyObject *self, PyObject *args) {
    unsigned long long allowed, interval, now;
    int reset;
    if (!PyArg_ParseTuple(args, "KKpK:update", &allowed, &interval, &reset, &now))
        return NULL;
    tr_limiter_update(((rate_window *)self)->limiter, allowed, interval, reset, now);
    Py_RETURN_NONE;
}

static PyObject *window_settings(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    uint64_t allowed, interval;
    tr_limiter_settings(((rate_window *)self)->limiter, &allowed, &interval);
    return Py_BuildValue("(KK)", (unsigned long long)allowed, (unsigned long long)interval);
}

static PyMethodDef window_methods[] = {
    {"take", window_take, METH_VARARGS,
     "take($self, wanted, now, /)\n--\n\nTake up to wanted out of the present window; how many."},
    {"left", window_left, METH_O,
     "left($self, now, /)\n--\n\nHow many the present window still allows."},
    {"reopens", window_reopens, METH_O, "reopens($self, now, /)\n--\n\nWhen the next window begins."},
    {"update", window_update, METH_VARARGS,
     "update($self, allowed, interval, reset, now, /)\n--\n\nNew settings; 0 keeps the old one."},
    {"settings", window_settings, METH_NOARGS,
     "settings($self, /)\n--\n\n(allowed, interval), as last asked for."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot window_slots[] = {
    {Py_tp_doc, "RateWindow(allowed, interval, now)\n--\n\nHow many messages may still be released "
                "in the present window; times in ns."},
    {Py_tp_new, window_new},
    {Py_tp_dealloc, window_dealloc},
    {Py_tp_methods, window_methods},
    {0, NULL}};

static PyType_Spec window_spec = {
    .name = "tailrace._core.RateWindow",
    .basicsize = sizeof(rate_window),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = window_slots,
};

int tr_rate_limit_init(PyObject *module, tr_message_state *state) {
    return tr_message_add_type(module, &window_spec, &state->limiter_type, true);
}
