/* convert.c: between Python objects and the engine's reasons, messages, destinations and times.
 *
 * Pure conversions: nothing here keeps a reference or blocks. Attached callers only. */
#include <math.h>

#include "state.h"

PyObject *tr_raise(tr_state *state, const char *code, PyObject *detail) {
    PyObject *exception =
        PyObject_CallFunction(state->python.make_error, "sO", code, detail ? detail : Py_None);
    if (exception == NULL) return NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return NULL;
}

PyObject *tr_take_exception(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

PyObject *tr_raise_code(tr_state *state, int code) {
    switch (code) {
    case TR_ENOMEM:
        return PyErr_NoMemory();
    case TR_ESTOPPED:
        return tr_raise(state, "stopped", NULL);
    case TR_ELIMIT:
        return tr_raise(state, "limit", NULL);
    case TR_EKILLED:
        PyErr_SetNone(state->Killed);
        return NULL;
    case TR_EDEAD:
        return tr_raise(state, "noproc", NULL);
    default:
        PyErr_Format(PyExc_SystemError, "tailrace: unexpected error %d of the core", code);
        return NULL;
    }
}

/* ---- Reasons ------------------------------------------------------------------------------------*/

PyObject *tr_reason_to_python(tr_state *state, tr_reason *reason) {
    PyObject *constants[] = {state->texts.normal, state->texts.shutdown, state->texts.kill,
                             state->texts.killed, state->texts.noproc,   state->texts.timeout};
    int kind = reason == NULL ? TR_NORMAL : tr_reason_kind(reason);
    if (kind <= TR_TIMEOUT) return Py_NewRef(constants[kind]);
    PyObject *term = tr_reason_term(reason);
    return Py_NewRef(term != NULL ? term : Py_None);
}

static int constant_kind(tr_state *state, PyObject *text) {
    PyObject *constants[] = {state->texts.normal, state->texts.shutdown, state->texts.kill,
                             state->texts.killed, state->texts.noproc,   state->texts.timeout};
    for (int kind = 0; kind <= TR_TIMEOUT; kind++)
        if (text == constants[kind] || PyUnicode_Compare(text, constants[kind]) == 0) return kind;
    return -1;
}

static bool is_shutdown_pair(tr_state *state, PyObject *reason) {
    if (!PyTuple_CheckExact(reason) || PyTuple_GET_SIZE(reason) != 2) return false;
    PyObject *first = PyTuple_GET_ITEM(reason, 0);
    return PyUnicode_CheckExact(first) && PyUnicode_Compare(first, state->texts.shutdown) == 0;
}

tr_reason *tr_reason_from_python(tr_state *state, tr_engine *engine, PyObject *reason) {
    if (PyUnicode_CheckExact(reason)) {
        int kind = constant_kind(state, reason);
        if (kind >= 0) return tr_reason_constant(kind);
    }
    int kind = is_shutdown_pair(state, reason) ? TR_SHUTDOWN_WITH : TR_OTHER;
    tr_reason *result = tr_reason_new(engine, kind, Py_NewRef(reason));
    if (result == NULL) PyErr_NoMemory();
    return result;
}

/* ---- Messages -----------------------------------------------------------------------------------*/

/* The label of a monitor is the name or Pid that Down carries, or the pair (tag, that) below. */
static PyObject *down_to_python(tr_state *state, tr_message *message) {
    PyObject *label = message->term, *tag = NULL, *down = NULL;
    if (label != NULL && PyTuple_CheckExact(label)) {
        tag = PyTuple_GET_ITEM(label, 0);
        label = PyTuple_GET_ITEM(label, 1);
    }
    PyObject *ref = tr_ref_object_new(state, message->ref);
    PyObject *who = label != NULL ? Py_NewRef(label) : tr_pid_new(state, message->from);
    PyObject *reason = tr_reason_to_python(state, message->reason);
    if (ref != NULL && who != NULL && reason != NULL)
        down = tag != NULL ? PyTuple_Pack(4, tag, ref, who, reason) /* O56 */
                           : PyObject_CallFunctionObjArgs(state->python.Down, ref, who, reason,
                                                          NULL);
    Py_XDECREF(ref);
    Py_XDECREF(who);
    Py_XDECREF(reason);
    return down;
}

static PyObject *exit_to_python(tr_state *state, tr_message *message) {
    PyObject *who = message->term != NULL ? Py_NewRef((PyObject *)message->term)
                                          : tr_pid_new(state, message->from);
    PyObject *reason = tr_reason_to_python(state, message->reason);
    PyObject *exit = NULL;
    if (who != NULL && reason != NULL)
        exit = PyObject_CallFunctionObjArgs(state->python.Exit, who, reason, NULL);
    Py_XDECREF(who);
    Py_XDECREF(reason);
    return exit;
}

/* A call that reached a process which is no server: what it needs to answer it. To be asked to stop is answered by
 * ending, and in no other way. */
static PyObject *call_to_python(tr_state *state, tr_message *message) {
    tr_ref ref = message->kind == TR_MESSAGE_STOP ? 0 : message->ref;
    PyObject *from = tr_from_new(state, message->from, ref);
    if (from == NULL) return NULL;
    PyObject *request = message->term != NULL ? (PyObject *)message->term : Py_None;
    PyObject *result = PyTuple_Pack(3, state->texts.call_tag, from, request);
    Py_DECREF(from);
    return result;
}

PyObject *tr_message_object(tr_state *state, tr_message *message) {
    PyObject *term = message->term;
    switch (message->kind) {
    case TR_MESSAGE_TERM:
        message->term = NULL;
        return term;
    case TR_MESSAGE_CAST:
        return PyTuple_Pack(2, state->texts.cast_tag, term);
    case TR_MESSAGE_DOWN:
        return down_to_python(state, message);
    case TR_MESSAGE_EXIT:
        return exit_to_python(state, message);
    default:
        return call_to_python(state, message);
    }
}

PyObject *tr_message_to_python(tr_state *state, tr_engine *engine, tr_message *message) {
    PyObject *result = tr_message_object(state, message);
    tr_message_free(engine, message);
    return result;
}

/* ---- Destinations -------------------------------------------------------------------------------*/

static int pid_of(tr_state *state, tr_pid_object *object, tr_pid *pid) {
    if (object->engine == tr_engine_id_of(state)) {
        *pid = object->pid;
        return 0;
    }
    *pid = 0; /* of an engine that was shut down: dead */
    if (object->engine >> 32 == state->program) return 0;
    tr_raise(state, "foreign_pid", (PyObject *)object);
    return -1;
}

/* Of a Pid or a handle. 1; 0 if the object is neither; -1 with an exception. */
static int find_pid(tr_state *state, PyObject *object, tr_pid *pid) {
    if (Py_TYPE(object) == state->Pid)
        return pid_of(state, (tr_pid_object *)object, pid) == 0 ? 1 : -1;
    PyObject *inner = PyObject_GetAttr(object, state->texts.pid);
    if (inner == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
        PyErr_Clear();
        return 0;
    }
    int found = 0;
    if (Py_TYPE(inner) == state->Pid)
        found = pid_of(state, (tr_pid_object *)inner, pid) == 0 ? 1 : -1;
    Py_DECREF(inner);
    return found;
}

int tr_destination(tr_state *state, tr_engine *engine, PyObject *dest, tr_pid *pid,
                   PyObject **name) {
    *name = NULL;
    if (PyUnicode_Check(dest)) {
        const char *text = tr_name(dest, "dest");
        if (text == NULL) return -1;
        *pid = tr_whereis(engine, text);
        *name = dest;
        return 0;
    }
    int found = find_pid(state, dest, pid);
    if (found == 0)
        PyErr_Format(PyExc_TypeError,
                     "dest: expected a Pid, a registered name or a handle, got %R", dest);
    return found > 0 ? 0 : -1;
}

int tr_only_pid(tr_state *state, PyObject *object, tr_pid *pid) {
    int found = find_pid(state, object, pid);
    if (found == 0)
        PyErr_Format(PyExc_TypeError, "pid: expected a Pid or a handle, got %R", object);
    return found > 0 ? 0 : -1;
}

/* ---- Times and names ----------------------------------------------------------------------------*/

int tr_seconds(PyObject *object, const char *argument, bool none_allowed, uint64_t *nanoseconds) {
    if (object == Py_None && none_allowed) {
        *nanoseconds = TR_FOREVER;
        return 0;
    }
    bool number = !PyBool_Check(object) && (PyFloat_Check(object) || PyLong_Check(object));
    double seconds = number ? PyFloat_AsDouble(object) : -1.0;
    if (number && seconds == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear(); /* an int too large for a float: for ever, unless it is negative */
        int sign;
        PyLong_AsLongLongAndOverflow(object, &sign);
        seconds = sign < 0 ? -1.0 : INFINITY;
    }
    if (!number || !(seconds >= 0)) {
        PyErr_Format(number ? PyExc_ValueError : PyExc_TypeError,
                     "%s: expected a number of seconds >= 0%s, got %R", argument,
                     none_allowed ? " or None" : "", object);
        return -1;
    }
    *nanoseconds = seconds >= 9e9 ? TR_FOREVER : (uint64_t)ceil(seconds * 1e9);
    return 0;
}

uint64_t tr_deadline(tr_engine *engine, uint64_t nanoseconds) {
    if (nanoseconds == TR_FOREVER) return TR_FOREVER; /* without a look at the clock */
    uint64_t now = tr_now(engine);
    return nanoseconds >= TR_FOREVER - now ? TR_FOREVER : now + nanoseconds;
}

const char *tr_name(PyObject *object, const char *argument) {
    Py_ssize_t size;
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected a non-empty str, got %R", argument, object);
        return NULL;
    }
    const char *text = PyUnicode_AsUTF8AndSize(object, &size);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: expected a str that can be encoded, got %R", argument,
                     object);
    }
    if (text == NULL) return NULL;
    if (size == 0 || size > TR_NAME_MAX || (Py_ssize_t)strlen(text) != size) {
        PyErr_Format(PyExc_ValueError,
                     "%s: expected a non-empty str without NUL of at most %d bytes, got %R",
                     argument, TR_NAME_MAX, object);
        return NULL;
    }
    return text;
}
