/* wait.h: what a coroutine on the core yields when it awaits the engine: a receive, a call, a sleep.
 *
 * `await tr.areceive()` makes a Wait, which yields itself up to whoever drives the coroutine (tr_drive_on in
 * coroutine.c), is filled in by it, and then gives its result to the coroutine. `step` says how far it is:
 *
 *   NEW -> OFFERED       it was awaited, and is on its way up
 *   OFFERED -> HELD      a process took it: only the thread that runs that process touches the rest
 *   HELD -> DONE         `value` is the result, or the exception when `failed`
 *   DONE -> SPENT        the coroutine has it
 *
 * The steps are atomic, so that a Wait that is passed around and awaited in two places is one process's
 * at most; the others get an error. */
#ifndef TR_PYTHON_WAIT_H
#define TR_PYTHON_WAIT_H

#include "state.h"

typedef struct tr_wait_object {
    PyObject_HEAD
    _Atomic uint8_t step;
    uint8_t kind;
    bool failed;
    PyObject *subject;    /* owned: receive: None or a Ref; call, stop: the destination; sleep: NULL */
    PyObject *value;      /* owned: the default, the request or the reason; when DONE what came */
    uint64_t nanoseconds; /* the limit; never changes */
    uint64_t deadline;    /* from when it is held */
    tr_cursor cursor;
} tr_wait_object;

/* Take what a coroutine of `self` yielded (stolen) and begin to wait for it. NULL with a TypeError when it is
 * not the engine's, or not this process's. */
tr_wait_object *tr_wait_take(tr_state *state, tr_process *self, PyObject *yielded);

/* See whether it has come: TR_STEP_AGAIN if so, and then always; else what to wait for. */
int tr_wait_look(tr_state *state, tr_process *self, tr_wait_object *wait, uint64_t *deadline);

int tr_wait_init_module(PyObject *module);

/* process.c: what receive(match) takes now, or NULL; 0 or -1 with a TypeError. */
tr_message *tr_receive_match(tr_state *state, tr_process *self, PyObject *match, tr_cursor *cursor);
int tr_check_match(tr_state *state, PyObject *match);

#endif
