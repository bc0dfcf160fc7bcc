/* task.h: processes that live on the engine's event loop: their tasks.
 *
 * Each such process has an `owner`, the object that its tasks share: it is the value of the ContextVar by which
 * code on the event loop is told whose it is. Every task of the process (its own, and those that its code
 * makes) is a real asyncio.Task around a Driver, a coroutine that steps the user's coroutine between
 * tr_loop_enter and tr_loop_leave. When the process is buried its owner cancels all of them,
 * again and again until they are done; the owner keeps the slot of the process until then, so
 * that what still runs is known to be of a dead process.
 *
 * Owners and Drivers are made anywhere and touched on the event loop's thread only. */
#ifndef TR_PYTHON_TASK_H
#define TR_PYTHON_TASK_H

#include "loop.h"
#include "state.h"

typedef struct tr_owner {
    PyObject_HEAD
    tr_state *state;      /* borrowed */
    tr_process *process;  /* acquired at its first step, until the owner goes; NULL before */
    /* Acquired: who it acts for, or NULL; see _companion.py. Set once, after the next, on the loop's thread; the
     * core's reporter reads both, too, while that is inside the process. */
    _Atomic(tr_process *) as;
    PyObject *instance;   /* owned: whose callbacks these are, or NULL */
    tr_loop *loop;        /* borrowed; the engine's own */
    PyObject *event_loop; /* owned; the asyncio loop */
    PyObject *mail;       /* owned: a dict, the futures that wait for a message */
    PyObject *tasks;      /* owned: a set, the tasks that the process's code has made */
    PyObject *task;       /* owned: its own task, or NULL */
    struct tr_driver *driver; /* owned: that task's */
    bool ended;           /* the process is buried */
    bool own_step;        /* what runs is its own task, not one that its code made */
    /* The own task's coroutine is done, with a value (stolen) or NULL and an exception. */
    void (*finished)(struct tr_owner *owner, PyObject *value);
    void *user;           /* for finished: borrowed, NULL when gone */
} tr_owner;

/* A new owner, current in `context`. NULL with an exception. */
tr_owner *tr_owner_new(tr_state *state, PyObject *context,
                       void (*finished)(tr_owner *owner, PyObject *value), void *user);
/* From the first step of the process. -1 with an exception. */
int tr_owner_begin(tr_owner *owner, tr_process *process);
/* The process is buried. */
void tr_owner_end(tr_owner *owner);
/* From a step: wake those that wait for a message, if one came. Whether somebody waits on. */
bool tr_owner_mail(tr_owner *owner);
/* Run the coroutine (stolen) in the owner's own task, which is made at the first time with `context`.
 * `now`: its first step is taken at once, and the answer is true if it was the last: *value is its
 * result, or NULL with an exception. Otherwise `finished` is called when it is done. */
bool tr_owner_run(tr_owner *owner, PyObject *coroutine, PyObject *context, bool now,
                  PyObject **value);

/* Who the calling code belongs to on the event loop, borrowed, or NULL. */
tr_owner *tr_owner_here(tr_state *state);

/* The calling code acts for a stage, whose mailbox is the stage's own: RuntimeError. 0 or -1. */
int tr_refuse_mail(tr_state *state, const char *what);
/* The running thread is the event loop's: RuntimeError that names the awaitable twin. 0 or -1. */
int tr_refuse_to_block(tr_state *state, const char *what, const char *twin);

/* Behaviour of an async function, its callable (borrowed), and what it is spawned with. */
extern const tr_behaviour tr_async_function_behaviour;
PyObject *tr_async_function_callable(void *state);
void *tr_async_function_new(tr_state *state, PyObject *callable, PyObject *args,
                            PyObject *keywords);

/* All owned; the last three are set once, on the event loop's thread, when it begins. */
struct tr_task_state {
    PyObject *owner; /* the ContextVar */
    PyTypeObject *Owner, *Driver;
    PyObject *enter_task, *leave_task, *CancelledError; /* asyncio's */
};

int tr_task_import(tr_state *state);
int tr_task_init_module(PyObject *module);
int tr_task_traverse(struct tr_task_state *tasks, visitproc visit, void *arg);
void tr_task_clear(struct tr_task_state *tasks);
void tr_task_free_state(struct tr_task_state *tasks);

#endif
