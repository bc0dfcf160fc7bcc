/* message.h: what the C parts of the pipeline share: the Message type and the state of the module.
 *
 * A Message belongs to whoever holds it: nobody else may touch it meanwhile. Its references are
 * read and set under the object's critical section all the same (nothing under the GIL), so that even
 * code that breaks this rule cannot break the interpreter; `data` as an attribute by the interpreter's own
 * accessors. The flags are bytes: whoever breaks the rule reads an old or a new one. The lists that messages
 * come in are the user's as well, who may have kept them: items are taken out with a reference.
 *
 * tr_state owns the tr_message_state, which tr_message_init makes; module.c forwards m_traverse, m_clear
 * and m_free. Every function here is called attached. */
#ifndef TR_PYTHON_MESSAGE_H
#define TR_PYTHON_MESSAGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#if PY_VERSION_HEX < 0x030D0000
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

enum { MESSAGE_OK, MESSAGE_FAILED, MESSAGE_EXCEPTION };

typedef struct message_object {
    PyObject_HEAD
    struct tr_message_state *state; /* constant; of the module, which the type keeps alive */
    /* Under the critical section: */
    PyObject *data;         /* owned; NULL only after `del message.data` */
    PyObject *metadata;     /* owned dict; NULL until somebody looks */
    PyObject *acknowledger; /* owned triple; NULL: nobody is told */
    PyObject *batcher;      /* owned str; NULL: "default" */
    PyObject *batch_key;    /* owned; NULL: "default" */
    PyObject *reason;       /* owned; NULL while ok */
    /* The holder's: */
    uint8_t status;         /* MESSAGE_OK, ... */
    bool exit;              /* of an exception: its kind is "exit", not "error" */
    bool flush;             /* batch mode */
} message_object;

/* As many as a few workers hold at a max_demand of 1000; 100 bytes each. */
#define MESSAGE_FREE_LIST 4096

/* Constant from the module's import to its end, but for the spare messages, which the GIL protects. */
typedef struct tr_message_state {
    PyTypeObject *message_type; /* all owned */
    PyTypeObject *ledger_type;
    PyTypeObject *held_type;
    PyTypeObject *loop_type;
    PyTypeObject *batches_type;
    PyTypeObject *open_batch_type;
    PyTypeObject *limiter_type;
    PyTypeObject *source_type;
    PyTypeObject *route_type;
    PyObject *word_default, *word_ok, *word_failed, *word_exception, *word_error, *word_exit,
        *word_bulk, *word_flush, *word_size, *word_timeout, *word_ack, *word_configure, *word_emit,
        *word_cont;
#ifndef Py_GIL_DISABLED
    message_object *spare; /* dead messages, chained through data: memory, and a reference to the type */
    int spares;
#endif
} tr_message_state;

tr_message_state *tr_message_state_of(PyObject *module);

/* Make the state and add the pipeline's types and functions to the module; 0, or -1 with an
 * exception set. The other three accept NULL, and may be called again. */
int tr_message_init(PyObject *module);
int tr_message_traverse(tr_message_state *state, visitproc visit, void *arg);
void tr_message_clear(tr_message_state *state);
/* Everything, the words too, which messages may need until the last of them is gone. */
void tr_message_free_state(tr_message_state *state);

/* ---- Between message.c and its neighbours ------------------------------------------------------ */

extern PyType_Spec tr_message_spec;
PyObject *tr_message_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf,
                                PyObject *names);
int tr_ledger_init(PyObject *module, tr_message_state *state);
int tr_message_loop_init(PyObject *module, tr_message_state *state);
int tr_message_wire_init(PyObject *module);
int tr_open_batches_init(PyObject *module, tr_message_state *state);
int tr_source_init(PyObject *module, tr_message_state *state);
int tr_rate_limit_init(PyObject *module, tr_message_state *state);
int tr_route_dispatcher_init(PyObject *module, tr_message_state *state);

static inline bool is_message(const tr_message_state *state, PyObject *object) {
    return Py_IS_TYPE(object, state->message_type);
}

/* A new message around `data`; `acknowledger` is a triple or NULL. Both borrowed. */
PyObject *tr_message_new_object(tr_message_state *state, PyObject *data, PyObject *acknowledger);

/* Make the message an exception: reason borrowed. */
void tr_message_set_exception(message_object *message, PyObject *reason, bool exit);

/* A message in place of another takes over its acknowledger, unless it has one of its own. */
void tr_message_inherit(message_object *message, message_object *from);

/* The acknowledger, a new reference or NULL. */
PyObject *tr_message_acknowledger(message_object *message);

/* The data, a new reference or NULL; set it (taken over, may be NULL). */
PyObject *tr_message_data(message_object *message);
void tr_message_set_data(message_object *message, PyObject *data);

/* Batcher and batch key, "default" if there is none: new references. */
PyObject *tr_message_batcher(message_object *message);
PyObject *tr_message_batch_key(message_object *message);

/* A new reference to an item of a list that others may know. NULL with an IndexError. */
static inline PyObject *tr_list_item(PyObject *list, Py_ssize_t index) {
#ifdef Py_GIL_DISABLED
    return PyList_GetItemRef(list, index);
#else
    return Py_XNewRef(PyList_GetItem(list, index));
#endif
}

/* The exception being raised, as an object of its own and no longer raised; owned. NULL, and it goes
 * on being raised, if it interrupts a killed process: that code must unwind. */
PyObject *tr_message_take_exception(PyObject *module);

/* 0, or -1 with an exception if the caller is leftover code of a killed process. */
int tr_message_check_alive(PyObject *module);

/* Make a type from its spec, keep it in *type and, if `shown`, put it into the module. */
int tr_message_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type, bool shown);

#endif
