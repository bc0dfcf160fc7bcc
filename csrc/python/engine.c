/* engine.c: the binding's side of the engine's life: host functions, lazy start, exit, fork.
 *
 * The engine is started by the package's _engine.start (called from tr_engine_get on first use), which
 * knows the options; it is stopped here, not through the control door, because a Ctrl-C must not get
 * between the steps. What an engine thread needs from Python is here: a thread state made on its own
 * thread, attach and detach.
 *
 * After the interpreter began to end nobody may attach any more: `closed` is set first, and a thread
 * that comes too late sleeps for ever. Objects dropped by detached threads (timers, a thread's end)
 * go to a lock-free stack that attached ones empty, with each call of the engine. */
#include <pthread.h>
#include <unistd.h>

#include "armed.h"
#include "interrupt.h"
#include "loop.h"
#include "turnstile.h"

/* ---- Host functions -----------------------------------------------------------------------------*/

void tr_release_all_deferred(tr_state *state) {
    tr_deferred *list = atomic_exchange(&state->deferred, NULL);
    while (list != NULL) {
        tr_deferred *next = list->next;
        Py_DECREF(list->object);
        PyMem_RawFree(list);
        list = next;
    }
}

/* Not PyGILState_Check, which always says yes once a program has made a sub-interpreter. */
static bool is_attached(void) {
#if PY_VERSION_HEX >= 0x030D0000
    PyThreadState *current = PyThreadState_GetUnchecked();
#else
    PyThreadState *current = _PyThreadState_UncheckedGet(); /* 3.11: of whoever holds the lock */
#endif
    return current != NULL && current == PyGILState_GetThisThreadState();
}

static void host_release(void *context, tr_term term) {
    tr_state *state = context;
    if (atomic_load(&state->closed)) return; /* too late: the objects go with the interpreter */
    if (is_attached()) {
        Py_DECREF((PyObject *)term);
        return;
    }
    tr_deferred *node = PyMem_RawMalloc(sizeof *node);
    if (node == NULL) return; /* an object too many alive is better than an abort */
    node->object = term;
    node->next = atomic_load(&state->deferred);
    while (!atomic_compare_exchange_weak(&state->deferred, &node->next, node)) continue;
}

static void *host_thread_start(void *context) {
    tr_state *state = context;
    return atomic_load(&state->closed) ? NULL : PyThreadState_New(state->interpreter);
}

static void host_attach(void *context, void *thread) {
    tr_state *state = context;
    while (atomic_load(&state->closed)) pause();
    PyEval_RestoreThread(thread);
    tr_release_deferred(state);
}

static void host_detach(void *context, void *thread) {
    (void)context;
    (void)thread;
    PyEval_SaveThread();
}

static void host_thread_stop(void *context, void *thread) {
    tr_state *state = context;
    if (atomic_load(&state->closed)) return;
    PyEval_RestoreThread(thread);
    PyThreadState_Clear(thread);
    PyThreadState_DeleteCurrent();
}

static void host_forked(void *context) {
    tr_state *state = context;
    Py_XDECREF(PyObject_CallNoArgs(state->python.forked_exit));
    _exit(1); /* forked_exit does not return */
}

static void host_run_loop(void *context) {
    tr_state *state = context;
    PyObject *done = PyObject_CallNoArgs(state->python.run_loop);
    if (done == NULL) PyErr_WriteUnraisable(state->python.run_loop);
    Py_XDECREF(done);
    tr_loop_end_here();
}

static tr_host host_of(tr_state *state) {
    return (tr_host){.context = state,
                     .release = host_release,
                     .thread_start = host_thread_start,
                     .thread_stop = host_thread_stop,
                     .attach = host_attach,
                     .detach = host_detach,
                     .interrupt = tr_host_interrupt,
                     .interrupt_clear = tr_host_interrupt_clear,
                     .forked = host_forked,
                     .arm = tr_turnstile_arm,
                     .disarm = tr_turnstile_disarm,
                     .switch_interval = tr_turnstile_interval,
                     .slow = tr_host_slow,
                     .subject = tr_host_subject,
                     .out_of_threads = tr_host_out_of_threads,
                     .run_loop = host_run_loop};
}

/* ---- Start and stop -----------------------------------------------------------------------------*/

PyObject *tr_engine_start(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    unsigned int max_processes, max_threads, parallel;
    int handoff;
    double switch_interval, slow_callback, stop_timeout;
    if (!PyArg_ParseTuple(args, "IIIpddd", &max_processes, &max_threads, &parallel, &handoff,
                          &switch_interval, &slow_callback, &stop_timeout))
        return NULL;
#ifndef Py_GIL_DISABLED
    tr_arms_prepare(state);
#endif
    if (atomic_load(&state->closed)) return tr_raise(state, "stopped", NULL);
    if (atomic_load(&state->engine) != NULL) return tr_raise(state, "running", NULL);
    tr_options options = {.max_processes = max_processes,
                          .max_threads = max_threads,
                          .parallel = parallel,
                          .handoff = handoff != 0,
                          .switch_interval = (uint64_t)(switch_interval * 1e9),
                          .slow_callback = (uint64_t)(slow_callback * 1e9),
                          .stop_timeout = (uint64_t)(stop_timeout * 1e9)};
    tr_host host = host_of(state);
    tr_engine *engine = tr_engine_new(&options, &host);
    if (engine == NULL) return PyErr_NoMemory();
    atomic_fetch_add(&state->engine_id, 1);
    atomic_store(&state->stopped, false);
    atomic_store(&state->engine, engine);
    Py_RETURN_NONE;
}

/* Stop the engine and forget it; its memory stays, since threads and timers may still look at it. In one
 * piece, so that no signal's handler raises in between: it runs when this has returned, or within
 * the logging, whose exception is raised when all is done. -1 with that exception. */
static int stop(tr_state *state, tr_engine *engine, uint64_t limit) {
    uint64_t deadline = tr_now(engine) + limit, late;
    Py_BEGIN_ALLOW_THREADS
    late = tr_engine_drain(engine, deadline);
    Py_END_ALLOW_THREADS
    PyObject *done = late == 0 ? NULL : PyObject_CallNoArgs(state->python.log_unended);
    Py_XDECREF(done);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_BEGIN_ALLOW_THREADS
    tr_engine_stop(engine, deadline);
    Py_END_ALLOW_THREADS
    atomic_store(&state->stopped, true); /* before: who finds no engine must see why */
    atomic_compare_exchange_strong(&state->engine, &engine, NULL);
    tr_turnstile_interval(state, 0);
    tr_release_deferred(state);
    PyErr_Restore(type, value, traceback);
    return type == NULL ? 0 : -1;
}

PyObject *tr_engine_stop_now(PyObject *module, PyObject *timeout) {
    tr_state *state = tr_state_of(module);
    tr_engine *engine = atomic_load(&state->engine);
    uint64_t limit = engine == NULL ? 0 : tr_engine_stop_timeout(engine);
    if (timeout != Py_None && tr_seconds(timeout, "timeout", false, &limit) != 0) return NULL;
    if (engine == NULL) Py_RETURN_NONE;
    if (tr_on_engine_thread(engine)) {
        PyErr_SetString(PyExc_RuntimeError, "shutdown() would wait for the process that calls it");
        return NULL;
    }
    if (stop(state, engine, limit) != 0) return NULL;
    Py_RETURN_NONE;
}

/* When the interpreter ends. A Ctrl-C that came meanwhile is dropped: there is nothing left to interrupt. */
PyObject *tr_engine_exit(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_state *state = tr_state_of(module);
    tr_engine *engine = atomic_load(&state->engine);
    if (engine == NULL || tr_on_engine_thread(engine)) Py_RETURN_NONE;
    int result = stop(state, engine, tr_engine_stop_timeout(engine));
    if (result == 0) result = PyErr_CheckSignals();
    if (result != 0 && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) PyErr_Clear();
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyObject *tr_engine_close(PyObject *module, PyObject *unused) {
    PyObject *done = tr_engine_exit(module, unused);
    atomic_store(&tr_state_of(module)->closed, true);
    return done;
}

PyObject *tr_engine_address(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_engine *engine = atomic_load(&tr_state_of(module)->engine);
    return PyLong_FromUnsignedLongLong((uintptr_t)engine);
}

tr_engine *tr_engine_get(tr_state *state) {
    tr_release_deferred(state);
    tr_engine *engine = atomic_load_explicit(&state->engine, memory_order_acquire);
    if (engine != NULL) {
        if (tr_runs_loop) tr_loop_sync(state, engine);
        return engine;
    }
    if (atomic_load(&state->stopped) || atomic_load(&state->closed)) {
        tr_raise(state, "stopped", NULL);
        return NULL;
    }
    PyObject *done = PyObject_CallNoArgs(state->python.start_engine);
    if (done == NULL) return NULL;
    Py_DECREF(done);
    engine = atomic_load(&state->engine);
    if (engine == NULL) tr_raise(state, "stopped", NULL);
    return engine;
}

static PyObject *engine_running(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_engine *engine = tr_engine_get(tr_state_of(module));
    return engine == NULL ? NULL : PyLong_FromUnsignedLongLong((uintptr_t)engine);
}

/* ---- The calling process ------------------------------------------------------------------------*/

static tr_process *raise_ended(tr_state *state, tr_engine *engine, tr_process *self) {
    if (tr_process_kind(self) != TR_KIND_THREAD_OWN) {
        PyErr_SetNone(state->Killed);
        return NULL;
    }
    tr_reason *reason = tr_process_reason(self);
    PyObject *detail = tr_reason_to_python(state, reason);
    tr_reason_release(reason);
    tr_self_renew(engine);
    if (detail == NULL) return NULL;
    PyObject *exception = PyObject_CallOneArg(state->python.ProcessExit, detail);
    Py_DECREF(detail);
    if (exception == NULL) return NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return NULL;
}

tr_process *tr_current(tr_state *state, tr_engine *engine) {
    tr_process *self = tr_self(engine);
    if (self == NULL) {
        tr_raise_code(state, tr_engine_stopping(engine) ? TR_ESTOPPED : TR_ELIMIT);
        return NULL;
    }
    return tr_process_is_dead(self) ? raise_ended(state, engine, self) : self;
}

int tr_check_alive(tr_state *state, tr_engine *engine) {
    tr_process *self = tr_self_or_null(engine);
    if (self == NULL || !tr_process_is_dead(self)) return 0;
    raise_ended(state, engine, self);
    return -1;
}

/* ---- Fork ---------------------------------------------------------------------------------------*/

static uint32_t random_program(void) {
    uint32_t program = 0;
    PyObject *os = PyImport_ImportModule("os");
    PyObject *bytes = os == NULL ? NULL : PyObject_CallMethod(os, "urandom", "i", 4);
    if (bytes != NULL && PyBytes_Check(bytes)) memcpy(&program, PyBytes_AS_STRING(bytes), 4);
    PyErr_Clear();
    Py_XDECREF(bytes);
    Py_XDECREF(os);
    return program != 0 ? program : (uint32_t)getpid();
}

/* The engine's locks are taken by pthread_atfork, thus last: Python's own hooks, and the wait for
 * all other threads of a free-threaded build, come before it, while those still need the engine. Its
 * handlers have no argument, hence the one pointer that is not in the state; and the engine that was locked
 * is remembered by the thread that forks. */
static _Atomic(tr_state *) forked_state;
static _Thread_local tr_engine *forking;

static void fork_prepare(void) {
    tr_state *state = atomic_load(&forked_state);
    forking = state == NULL ? NULL : atomic_load(&state->engine);
    if (forking != NULL) tr_engine_fork_prepare(forking);
}

static void fork_parent(void) {
    if (forking != NULL) tr_engine_fork_parent(forking);
}

static void fork_child(void) {
    tr_state *state = atomic_load(&forked_state);
    if (forking != NULL) tr_engine_fork_child(forking);
    if (state != NULL) atomic_store(&state->engine, NULL);
}

static void new_program(tr_state *state) {
    state->program = random_program();
    atomic_store(&state->engine_id, (uint64_t)state->program << 32);
}

/* Once, at import. */
PyObject *tr_fork_watch(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_state *state = tr_state_of(module);
    new_program(state);
    static atomic_flag watching = ATOMIC_FLAG_INIT;
    atomic_store(&forked_state, state);
    if (!atomic_flag_test_and_set(&watching) &&
        pthread_atfork(fork_prepare, fork_parent, fork_child) != 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

void tr_fork_forget(tr_state *state) {
    tr_state *mine = state;
    atomic_compare_exchange_strong(&forked_state, &mine, NULL);
}

/* In the child of os.fork, when Python runs again. */
PyObject *tr_forked(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_state *state = tr_state_of(module);
    atomic_store(&state->stopped, false);
    state->main_thread = PyThread_get_thread_ident();
    tr_runs_loop = false; /* the engine's loop is the parent's */
    new_program(state);
    tr_arms_forked(state);
    if (tr_talk_init(state) != 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *pid_number(PyObject *module, PyObject *pid) {
    tr_state *state = tr_state_of(module);
    tr_pid number;
    if (tr_engine_get(state) == NULL || tr_only_pid(state, pid, &number) != 0) return NULL;
    return PyLong_FromUnsignedLongLong(number);
}

static PyObject *pid_from_number(PyObject *module, PyObject *number) {
    unsigned long long pid = PyLong_AsUnsignedLongLong(number);
    if (pid == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    return tr_pid_new(tr_state_of(module), pid);
}

PyMethodDef tr_engine_functions[] = {
    {"engine_start", tr_engine_start, METH_VARARGS,
     "engine_start(max_processes, max_threads, parallel, handoff, switch_interval, slow_callback, "
     "stop_timeout)"},
    {"engine_stop", tr_engine_stop_now, METH_O, "engine_stop(timeout in seconds or None)"},
    {"engine_exit", tr_engine_exit, METH_NOARGS, "The interpreter is about to end: stop."},
    {"engine_close", tr_engine_close, METH_NOARGS, "The same, and nobody attaches after it."},
    {"engine_address", tr_engine_address, METH_NOARGS, "The tr_engine * as an int; 0 if none."},
    {"engine_running", engine_running, METH_NOARGS, "The same, started if it never was."},
    {"fork_watch", tr_fork_watch, METH_NOARGS, "Follow forks from now on. Once, at import."},
    {"forked", tr_forked, METH_NOARGS, "In the child of os.fork: be another program."},
    {"pid_number", pid_number, METH_O, "The tr_pid of a Pid or a handle; 0 if its engine is gone."},
    {"pid_from_number", pid_from_number, METH_O, "The Pid of a tr_pid of the running engine."},
    {NULL, NULL, 0, NULL},
};
