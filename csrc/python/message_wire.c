/* message_wire.c: messages taken apart, and put together again, on the other side of a pickle.
 *
 * pack_messages   a list of messages becomes a list of their data, and a dict with the rest of those
 *                 few of which more than the data is not the default, by position.
 * apply_packed    makes a message what one was that had been packed.
 *
 * The acknowledger stays where it is: it is told in the program, whoever handles the message. */
#include "message.h"

/* What is not the default: (metadata, batcher, batch_key, flush, status, exit, reason), None for the
 * default. NULL without an exception if nothing is. Under the message's critical section. */
static PyObject *rest_of(message_object *message) {
    bool plain = (!message->metadata || PyDict_GET_SIZE(message->metadata) == 0) &&
                 !message->batcher && !message->batch_key && !message->flush &&
                 message->status == MESSAGE_OK;
    if (plain)
        return NULL;
    return Py_BuildValue("(OOOiiiO)", message->metadata ? message->metadata : Py_None,
                         message->batcher ? message->batcher : Py_None,
                         message->batch_key ? message->batch_key : Py_None, message->flush,
                         message->status, message->exit,
                         message->reason ? message->reason : Py_None);
}

static int pack(message_object *message, Py_ssize_t index, PyObject *data, PyObject **rest,
                bool *told) {
    PyObject *more;
    Py_BEGIN_CRITICAL_SECTION(message);
    PyList_SET_ITEM(data, index, Py_NewRef(message->data ? message->data : Py_None));
    *told = *told || message->acknowledger;
    more = rest_of(message);
    Py_END_CRITICAL_SECTION();
    if (!more)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *key = PyLong_FromSsize_t(index);
    if (!*rest)
        *rest = PyDict_New();
    int result = key && *rest ? PyDict_SetItem(*rest, key, more) : -1;
    Py_XDECREF(key);
    Py_DECREF(more);
    return result;
}

/* pack_messages(messages): (data, rest or None, whether one has an acknowledger). */
static PyObject *pack_messages(PyObject *module, PyObject *messages) {
    tr_message_state *state = tr_message_state_of(module);
    PyObject *items = PySequence_Tuple(messages); /* the list is the user's, and may change */
    if (!items)
        return NULL;
    Py_ssize_t size = PyTuple_GET_SIZE(items);
    PyObject *data = PyList_New(size), *rest = NULL;
    bool told = false, good = data != NULL;
    for (Py_ssize_t i = 0; good && i < size; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i); /* borrowed */
        if (!is_message(state, item)) {
            PyErr_Format(PyExc_RuntimeError, "expected a Message, got %R", item);
            good = false;
        } else {
            good = pack((message_object *)item, i, data, &rest, &told) == 0;
        }
    }
    Py_DECREF(items);
    if (good)
        return Py_BuildValue("(NNO)", data, rest ? rest : Py_NewRef(Py_None),
                             told ? Py_True : Py_False);
    Py_XDECREF(data);
    Py_XDECREF(rest);
    return NULL;
}

static void set(PyObject **field, PyObject *value) {
    Py_XSETREF(*field, value == Py_None ? NULL : Py_NewRef(value));
}

/* apply_packed(message, data, rest or None): the message gets everything but its acknowledger. */
static PyObject *apply_packed(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    PyObject *metadata = Py_None, *batcher = Py_None, *key = Py_None, *reason = Py_None;
    int flush = 0, status = MESSAGE_OK, exit = 0;
    if (count != 3 || !is_message(tr_message_state_of(module), args[0])) {
        PyErr_SetString(PyExc_TypeError, "apply_packed: expected (Message, data, rest)");
        return NULL;
    }
    if (args[2] != Py_None &&
        !PyArg_ParseTuple(args[2], "OOOiiiO:apply_packed", &metadata, &batcher, &key, &flush,
                          &status, &exit, &reason))
        return NULL;
    message_object *message = (message_object *)args[0];
    Py_BEGIN_CRITICAL_SECTION(message);
    Py_XSETREF(message->data, Py_NewRef(args[1]));
    set(&message->metadata, metadata);
    set(&message->batcher, batcher);
    set(&message->batch_key, key);
    set(&message->reason, reason);
    message->flush = flush != 0;
    message->status = (uint8_t)status;
    message->exit = exit != 0;
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"pack_messages", pack_messages, METH_O,
     "pack_messages(messages, /)\n--\n\n(data, rest or None, whether one has an acknowledger)."},
    {"apply_packed", (PyCFunction)(void (*)(void))apply_packed, METH_FASTCALL,
     "apply_packed(message, data, rest, /)\n--\n\nMake a message what one was that was packed."},
    {NULL, NULL, 0, NULL}};

int tr_message_wire_init(PyObject *module) { return PyModule_AddFunctions(module, functions); }
