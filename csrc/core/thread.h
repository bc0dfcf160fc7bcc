/* thread.h: what the engine knows of a thread.
 *
 * One record a thread, found by a thread-local pointer: the only state outside the engine object. A
 * worker's record is part of the worker (scheduler.h). A foreign thread, the main thread for one, gets
 * a record when it first uses the engine, with a process of its own that ends, "normal", with the
 * thread; the record holds a reference to the engine until then. Only its thread touches a record,
 * but for the parker.
 *
 * A worker's record stays its engine's: a worker that was left behind by a stop does not get into another
 * engine, and between two slices it has no process. */
#ifndef TRI_THREAD_H
#define TRI_THREAD_H

#include "parker.h"
#include "tailrace.h"

struct tri_worker;

typedef struct tri_thread {
    tr_engine *engine;
    tr_process *current;       /* the innermost process this thread runs */
    tr_process *own;           /* a foreign thread's own process */
    struct tri_worker *worker; /* NULL for a foreign thread */
    struct tr_loop *loop;      /* the engine's own, while this thread runs it (looper.c) */
    tri_parker parker;
} tri_thread;

/* The record of this thread for this engine; made if it has none. NULL when memory is short, or on a
 * worker of another engine. */
tri_thread *tri_thread_here(tr_engine *engine);
tri_thread *tri_thread_here_or_null(tr_engine *engine);
/* For a worker, whose record lies elsewhere. */
void tri_thread_adopt(tri_thread *thread);
/* In a forked child: forget the record. */
void tri_thread_forget(void);

#endif
