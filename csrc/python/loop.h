/* loop.h: what event loops' part of the binding (loop.c) shows the rest. */
#ifndef TR_PYTHON_LOOP_H
#define TR_PYTHON_LOOP_H

#include "state.h"
#include "tailrace_loop.h"

/* Send a request of this kind (of kind STOP: with a reason) whose answer completes a future of the running loop.
 * (future, ref) or NULL with an exception. */
PyObject *tr_await_request(PyObject *module, PyObject *dest, uint32_t kind, PyObject *request,
                           PyObject *timeout);

/* Give a future its result (stolen; NULL with an exception: none), unless it is done already. */
void tr_give(tr_state *state, PyObject *future, PyObject *value);
/* Give None to all the futures in a dict, which is replaced by an empty one. */
void tr_wake_all(tr_state *state, PyObject **futures);

/* This thread runs the engine's own event loop. */
extern _Thread_local bool tr_runs_loop;
/* On that thread: find out which process the calling code is of. */
void tr_loop_sync(tr_state *state, tr_engine *engine);
/* Its loop, and the asyncio loop (new reference). */
tr_loop *tr_own_loop(PyObject **event_loop);
/* Let other threads have the interpreter lock if the loop, the calling thread's, keeps it: between two steps. */
void tr_let_others(tr_loop *loop);
/* After a step: have the loop look at what was left for it. -1 with an exception. */
int tr_loop_catch_up(tr_state *state);
void tr_loop_end_here(void);

extern PyMethodDef tr_loop_functions[];
int tr_loop_init_module(PyObject *module);
int tr_loop_traverse(tr_loop_state *loops, visitproc visit, void *arg);
void tr_loop_clear(tr_loop_state *loops);
void tr_loop_free_state(tr_loop_state *loops);

#endif
