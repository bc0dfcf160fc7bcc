/* state.h: the module's state and the small things every file of the binding needs.
 *
 * There is one tr_state, embedded in the module object (multi-phase init); it is the host context of
 * the engine. Fields say who owns them, and what protects them where there is no interpreter lock:
 *
 *   constant   set while the module is imported (configure() included) and not changed until it is cleared, at the
 *              end of the interpreter; a forked child, which has one thread, sets some again
 *   atomic     written by whoever starts or stops the engine (one at a time, the package's engine lock
 *              sees to that) and read by anybody
 *
 * Nothing here is touched by a detached thread but `deferred`, `closed` and `engine`.
 *
 * Locks and attached threads. A thread that holds a lock of the core's never attaches, detaches or runs
 * Python code before it has let go of it: everything under a lock is the core's own code, which calls the
 * host under a lock only to interrupt (interrupt.c, which reads frames and arms them, and worker_talk.c:
 * they neither detach nor wait for a thread that does). So a thread that waits for such a lock while it is attached
 * waits for a few instructions of a running thread, never for one that a stop-the-world pause or
 * the interpreter lock holds up. Critical sections are not relied on across a call into Python either:
 * each covers a few loads and stores. */
#ifndef TR_PYTHON_STATE_H
#define TR_PYTHON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "tailrace.h"

/* One object on that stack. Written by whoever pushes it, before; then whoever takes the stack owns all. */
typedef struct tr_deferred {
    struct tr_deferred *next;
    PyObject *object;
} tr_deferred;

/* Python objects that C needs, given by the package at import (configure). All owned and constant. The
 * order is that of `names` in module.c. */
typedef struct tr_python {
    PyObject *Down, *Exit;
    PyObject *Reply, *NoReply, *Stop, *NOREPLY, *IGNORE, *UNSET;
    PyObject *ProcessExit;
    PyObject *make_error;    /* (code: str, detail) -> exception instance */
    PyObject *log_crash;     /* (pid, what: str, message, exception_or_reason) */
    PyObject *start_engine;  /* () -> None: the lazy start */
    PyObject *process_info;  /* (pid) -> ProcessInfo or None */
    PyObject *forked_exit;   /* () -> never: a callback returned in a forked child */
    PyObject *do_nothing;    /* () -> None, in bytecode: takes an interrupt that is pending */
    PyObject *Unanswered;    /* (outcome: str, reason): what an await got that is no answer */
    PyObject *acall, *astop; /* the coroutine functions of _asynchronous.py */
    PyObject *run_function;  /* (fn, args, kwargs or None): run it in an operating-system worker */
    PyObject *log_slow;      /* (pid, subject, callback, how, seconds, over, on_loop, stack: _slow.py) */
    PyObject *log_out_of_threads; /* (limit, by_system) */
    PyObject *partial;       /* functools.partial */
    PyObject *run_loop;      /* () -> None: run the engine's event loop on this thread */
    PyObject *make_task;     /* (event loop, driver, context) -> Task */
    PyObject *cancel_tasks;  /* (event loop, task or None, set of tasks): until they are done */
    PyObject *log_unended;   /* () -> None: who has not ended in the time of a stop */
} tr_python;

/* Interned strings, owned, constant. The order is that of `texts` in module.c. */
typedef struct tr_texts {
    PyObject *normal, *shutdown, *kill, *killed, *noproc, *timeout;
    PyObject *init, *handle_call, *handle_cast, *handle_info, *handle_continue, *handle_timeout;
    PyObject *terminate, *value, *events, *continue_, *reason, *reply, *pid;
    PyObject *cast_tag, *call_tag, *asyncio, *let_go;
} tr_texts;

typedef struct tr_loop_state tr_loop_state;

typedef struct tr_state {
    PyObject *module;              /* constant; borrowed: the state lives in it */
    PyInterpreterState *interpreter; /* constant */
    unsigned long main_thread;     /* constant but for a forked child */
    uint32_t program;              /* the same; random: tells pids of this operating-system process */
    _Atomic(tr_engine *) engine;   /* NULL: none; published after it is complete */
    _Atomic uint64_t engine_id;    /* program << 32 | number of the engine; set before `engine` is */
    _Atomic bool closed;           /* the interpreter is ending: nobody may attach any more */
    _Atomic bool stopped;          /* an engine was stopped: not started by itself again */
    _Atomic(tr_deferred *) deferred; /* a lock-free stack: objects dropped by detached threads; owned */
    PyTypeObject *Pid, *Ref, *From, *Timer, *Wait; /* constant; owned */
    _Atomic(PyObject *) running_loop; /* owned: asyncio's function, set once when it was seen */
    PyObject *Killed;              /* constant; owned: the exception that interrupts a killed process */
    tr_python python;
    tr_texts texts;
    struct tr_message_state *message; /* constant; message.c's own */
    struct tr_stage_state *stage;     /* constant; stage.c's own */
    struct tr_loop_state *loop;       /* constant; loop.c's own */
    pthread_mutex_t talk_lock;        /* worker_talk.c's own: guards ... */
    struct tr_talk *talks;            /* ... who waits for an operating-system worker */
    struct tr_turnstile_state *turnstile; /* turnstile.c's own */
    struct tr_arms *arms;                 /* armed.c's own */
    struct tr_task_state *task;       /* task.c's own */
} tr_state;

extern struct PyModuleDef tr_module;

/* Tells Pids and Refs of the running engine from others'. A plain load. */
static inline uint64_t tr_engine_id_of(tr_state *state) {
    return atomic_load_explicit(&state->engine_id, memory_order_relaxed);
}

static inline tr_state *tr_state_of(PyObject *module) {
    return (tr_state *)PyModule_GetState(module);
}

/* ---- engine.c -----------------------------------------------------------------------------------*/

/* The engine, started if it never was. NULL with an exception (EngineStopped). */
tr_engine *tr_engine_get(tr_state *state);
/* The calling process, alive. NULL with an exception: ProcessExit for a thread whose process was ended
 * (once), Killed for leftover code of a killed process. */
tr_process *tr_current(tr_state *state, tr_engine *engine);
/* 0, or -1 with an exception when the caller is leftover code of a killed process. Makes no process. */
int tr_check_alive(tr_state *state, tr_engine *engine);
PyObject *tr_engine_start(PyObject *module, PyObject *args);
PyObject *tr_engine_stop_now(PyObject *module, PyObject *timeout);
PyObject *tr_engine_exit(PyObject *module, PyObject *unused);
PyObject *tr_engine_address(PyObject *module, PyObject *unused);
PyObject *tr_engine_close(PyObject *module, PyObject *unused);
PyObject *tr_fork_watch(PyObject *module, PyObject *unused);
PyObject *tr_forked(PyObject *module, PyObject *unused);
/* The module's state is going away. */
void tr_fork_forget(tr_state *state);

/* slow.c: functions of the host. */
void tr_host_slow(void *context, const tr_slow *slow);
tr_term tr_host_subject(void *context, tr_process *process, tr_pid *pid);
void tr_host_out_of_threads(void *context, uint32_t limit, bool by_system);

/* Release what detached threads dropped. Attached; runs whatever those objects' ends run. */
void tr_release_all_deferred(tr_state *state);
static inline void tr_release_deferred(tr_state *state) {
    if (atomic_load_explicit(&state->deferred, memory_order_relaxed) != NULL)
        tr_release_all_deferred(state);
}

/* ---- worker_talk.c ------------------------------------------------------------------------------*/

/* At import, and in a forked child. -1 with an exception. */
int tr_talk_init(tr_state *state);
/* The process that runs on this thread was killed: end its wait for a worker, and the worker. */
void tr_talk_interrupt(tr_state *state, unsigned long thread);

/* ---- convert.c ----------------------------------------------------------------------------------*/

/* Raise the package's error for `code`; always returns NULL. `detail` is borrowed, may be NULL. */
PyObject *tr_raise(tr_state *state, const char *code, PyObject *detail);
/* The same for an error code of the core's. */
PyObject *tr_raise_code(tr_state *state, int code);
/* Take the exception that is set, with its traceback: new reference, or NULL if none is. */
PyObject *tr_take_exception(void);

/* New reference. */
PyObject *tr_reason_to_python(tr_state *state, tr_reason *reason);
/* An owned reason, or NULL with an exception. */
tr_reason *tr_reason_from_python(tr_state *state, tr_engine *engine, PyObject *reason);

/* The object of a message that was taken out of a mailbox, which is freed. New reference or NULL. */
PyObject *tr_message_to_python(tr_state *state, tr_engine *engine, tr_message *message);

/* The same; the message stays the caller's, but for a plain message's term, which is taken. */
PyObject *tr_message_object(tr_state *state, tr_message *message);

/* Where a message goes. *pid is 0 for a name nobody holds (then *name is the borrowed str) and for a
 * pid of an engine that was shut down. -1 with TypeError or EngineError. */
int tr_destination(tr_state *state, tr_engine *engine, PyObject *dest, tr_pid *pid,
                   PyObject **name);

/* A Pid or a handle, where a name is not allowed (O39); *pid as above. */
int tr_only_pid(tr_state *state, PyObject *object, tr_pid *pid);

/* Seconds to nanoseconds. None is TR_FOREVER when allowed. -1 with TypeError or ValueError. */
int tr_seconds(PyObject *object, const char *argument, bool none_allowed, uint64_t *nanoseconds);
uint64_t tr_deadline(tr_engine *engine, uint64_t nanoseconds);

/* A name: a non-empty str without NUL, at most TR_NAME_MAX bytes as UTF-8, so that it fits wherever the core
 * copies one. Borrowed UTF-8 or NULL with an exception. */
enum { TR_NAME_MAX = 255 };
const char *tr_name(PyObject *object, const char *argument);

/* ---- pid.c --------------------------------------------------------------------------------------*/

/* All three are immutable from when they are made, so any thread may read them. */

typedef struct {
    PyObject_HEAD
    tr_pid pid;
    uint64_t engine;
} tr_pid_object;

typedef struct {
    PyObject_HEAD
    tr_ref ref;
    uint64_t engine;
} tr_ref_object;

typedef struct {
    PyObject_HEAD
    tr_pid pid;
    tr_ref ref;
    uint64_t engine;
} tr_from_object;

PyObject *tr_pid_new(tr_state *state, tr_pid pid);
PyObject *tr_ref_object_new(tr_state *state, tr_ref ref);
PyObject *tr_from_new(tr_state *state, tr_pid pid, tr_ref ref);
/* Takes over the timer. */
PyObject *tr_timer_new(tr_state *state, tr_timer *timer);
int tr_pid_types(PyObject *module, tr_state *state);

/* ---- process functions, one table each ----------------------------------------------------------*/

extern PyMethodDef tr_process_functions[]; /* process.c */
extern PyMethodDef tr_call_functions[];    /* call.c */
extern PyMethodDef tr_server_functions[];  /* server_start.c */
extern PyMethodDef tr_wait_functions[];    /* wait.c */
extern PyMethodDef tr_engine_functions[];  /* engine.c */
extern PyMethodDef tr_talk_functions[];    /* worker_talk.c */

/* call.c: shared by the functions and the methods of Pid. */
PyObject *tr_do_send(tr_state *state, PyObject *dest, uint32_t kind, PyObject *message);
PyObject *tr_do_call(tr_state *state, PyObject *dest, PyObject *request, PyObject *timeout);
/* A call whose request is a message of an extension's own kind. */
PyObject *tr_do_request(tr_state *state, PyObject *dest, uint32_t kind, PyObject *request,
                        PyObject *timeout);
PyObject *tr_do_stop(tr_state *state, PyObject *dest, PyObject *reason, PyObject *timeout);
/* Raise what tr_call refused with; always returns NULL. */
PyObject *tr_raise_refused(tr_state *state, int result, const tr_call_options *options,
                           PyObject *dest);
PyObject *tr_do_exit(tr_state *state, PyObject *dest, PyObject *reason);
/* Send a request of the calling process, for whose answer it then waits. Takes over term and reason. 0, or
 * -1 with the exception of a call that cannot be. */
int tr_send_request(tr_state *state, tr_process *self, PyObject *dest, uint32_t kind, tr_term term,
                    tr_reason *reason);
/* Raise what a call raises whose callee has ended; takes over the reason. Always NULL. */
PyObject *tr_raise_ended(tr_state *state, tr_reason *reason);
/* Whether a stop ended with the reason it was asked for. Runs __eq__. */
bool tr_same_reason(tr_reason *wanted, tr_reason *got);
/* Wait for the answer of a call that was sent. New reference; or NULL with *reason set (owned: the
 * callee ended; which may have ended the caller, too), or NULL with *timed_out, or NULL with an
 * exception. */
PyObject *tr_await_answer(tr_state *state, tr_engine *engine, tr_process *self, uint64_t deadline,
                          tr_reason **reason, bool *timed_out);
/* Wait detached; on the main thread in steps, running signal handlers between them. 0, 1 on timeout, -1
 * with an exception, -2 when `self` was ended (without exception: tr_current raises it). `wait` is tr_wait, tr_call_wait or tr_sleep. */
int tr_wait_detached(tr_state *state, tr_process *self, int (*wait)(tr_process *, uint64_t),
                     uint64_t deadline);

#endif
