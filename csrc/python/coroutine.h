/* coroutine.h: processes that are coroutines, stepped by the core's workers.
 *
 * A coroutine that awaits only the engine needs no event loop and no thread: a worker sends into it, it
 * runs until it yields a Wait (wait.h), and when what it waits for is there, some worker sends into it
 * again. Between two steps nothing of it lies on any thread. */
#ifndef TR_PYTHON_COROUTINE_H
#define TR_PYTHON_COROUTINE_H

#include "state.h"
#include "wait.h"

/* A coroutine under way. Owned by a process, and touched only by the thread that runs it. */
typedef struct tr_drive {
    PyObject *coroutine; /* owned; NULL: none, or it has ended */
    tr_wait_object *wait;       /* owned: what it waits for; NULL before its first step */
} tr_drive;

/* Go on with it: TR_DRIVE_WAITS, with what for in *wait and *deadline; TR_DRIVE_RETURNED, with *result
 * (new reference); or TR_DRIVE_RAISED, with an exception set. After the last two it is empty. */
enum { TR_DRIVE_WAITS, TR_DRIVE_RETURNED, TR_DRIVE_RAISED };
int tr_drive_on(tr_state *state, tr_process *self, tr_drive *drive, int *wait, uint64_t *deadline,
                PyObject **result);

/* The process is gone: close what has not ended, which runs its `finally` blocks, and log it when they
 * wait or fail. Attached, in the process's context. */
void tr_drive_close(tr_state *state, tr_drive *drive);

/* The state of a process that runs an async def function, for tr_spawn; NULL with an exception. The arguments
 * are borrowed; keywords may be NULL. */
void *tr_coroutine_new(tr_state *state, PyObject *callable, PyObject *args, PyObject *keywords);
extern const tr_behaviour tr_coroutine_behaviour;
/* Of such a state: borrowed. */
PyObject *tr_coroutine_callable(void *state);

#endif
