/* stage.h: a stage's process: what stage.c, stage_host.c and stage_request.c share.
 *
 * A stage is a server (server.h) whose extension is a py_stage: the core's state machine with Python
 * on both sides of it. A batch of the core is a view of a Python list: a list that a callback returned
 * is handed on as it is when nobody cuts it, otherwise each receiver gets a slice. Only the thread
 * that runs the process touches a py_stage, attached.
 *
 * tr_state owns the tr_stage_state, which tr_stage_init makes; module.c forwards m_traverse, m_clear
 * and m_free. */
#ifndef TR_PYTHON_STAGE_H
#define TR_PYTHON_STAGE_H

#include "server.h"
#include "tailrace_stage.h"

/* The messages between stages, and what is asked of a stage from outside. */
enum {
    STAGE_SUBSCRIBE = TR_MESSAGE_USER, /* from, ref: the tag, term: the options, a dict */
    STAGE_ASK,                         /* from, ref: the tag, number */
    STAGE_EVENTS,    /* from, ref: the tag, term: a list, number: offset above, count below */
    STAGE_CANCEL,    /* from, ref: the tag, reason */
    STAGE_CANCELLED, /* from, ref: the tag, reason */
    STAGE_REQUEST    /* term: a request for _stages.py; from and ref if it was a call */
};

/* All of it the process's own: no lock. The lists of its batches may be known to others (a broadcast, a
 * callback that kept what it returned), so they are read by functions that take the list's own lock. */
typedef struct py_stage {
    tr_stage *stage;     /* owned */
    tr_state *state;     /* borrowed */
    tr_server *server;   /* borrowed: owns this */
    tr_process *self;    /* borrowed: the process */
    uint64_t buffer_size;
    tr_outcome *outcome; /* of the core's callback in progress; NULL: events go to the core */
} py_stage;

/* What the package gave with configure_stages(). All owned; constant after the import, as all below. */
typedef struct tr_stage_python {
    PyObject *Subscription; /* (pid, tag, producer) */
    PyObject *resolve;      /* (instance, result of init) -> the options, see stage.c */
    PyObject *subscribe;    /* (instance, subscribe_to): right after the start */
    PyObject *request;      /* (instance, request) -> reply */
    PyObject *log;          /* (what, pid, subscription or peer, count, limit, detail) */
} tr_stage_python;

typedef struct tr_stage_texts {
    PyObject *handle_demand, *handle_events, *handle_subscribe, *handle_cancel, *format_discarded;
    PyObject *producer, *consumer, *automatic, *manual, *cancel, *down;
    PyObject *unknown_subscription, *not_a_producer, *duplicated_subscription, *already_subscribed;
} tr_stage_texts;

struct tr_stage_state {
    tr_stage_python python;
    tr_stage_texts texts;
    PyTypeObject *DispatcherTemplate; /* owned */
    PyObject *islice;                 /* owned: itertools.islice */
};

/* Immutable, since any number of stages on any thread use it.
 *
 * What a StageOptions may have as its dispatcher besides a DemandDispatcher: an object of a type
 * derived from _core.DispatcherTemplate that begins so. A template serves any number of stages. */
typedef struct tr_dispatcher_template {
    PyObject_HEAD
    /* A dispatcher for one stage; NULL with an exception set. */
    tr_dispatcher *(*make)(PyObject *self);
} tr_dispatcher_template;

/* ---- stage.c -------------------------------------------------------------------------------------*/

extern const tr_server_extension tr_stage_extension;

/* After an input of the core: 0 to go on; -1 with an exception set, or without one when the process
 * has ended. */
int tr_stage_settle(py_stage *self, int error);

/* ---- stage_host.c --------------------------------------------------------------------------------*/

extern const tr_stage_ops tr_stage_host_ops;
tr_words tr_stage_words(py_stage *self);
/* The Subscription of one. New reference or NULL. */
PyObject *tr_stage_subscription(py_stage *self, tr_subscription *subscription);
/* Any iterable of events as a batch; steals `events`. An iterable is asked for no more than the stage
 * could use, so that one without end costs no memory without end. -1 with BadReturn, ValueError for
 * too many events, or what iterating raised. */
int tr_stage_batch_of(py_stage *self, PyObject *events, const char *callback, tr_batch *batch);
/* Append events to a batch that a callback has returned so far; takes `more` over. */
int tr_stage_append(tr_batch *batch, tr_batch more);

/* ---- stage_request.c -----------------------------------------------------------------------------*/

extern PyMethodDef tr_stage_functions[];
/* A request has arrived. As tr_stage_settle. */
int tr_stage_on_request(py_stage *self, tr_message *message);

/* ---- for module.c --------------------------------------------------------------------------------*/

int tr_stage_init_module(PyObject *module);
int tr_stage_traverse(struct tr_stage_state *stage, visitproc visit, void *arg);
void tr_stage_clear(struct tr_stage_state *stage);
void tr_stage_free_state(struct tr_stage_state *stage);

#endif
