/* server_start.c: how Python code starts a server: `start`, `start_link` and their awaitable twins.
 *
 * The caller makes the instance and its tr_server, spawns the process, which then owns them, and sees to
 * `init`. That runs on the calling thread as the new process, if nothing speaks against it; or the
 * process is asked for it by a call, whose answer the caller waits for in the engine, or awaits. A
 * start that is given up (a limit, an exception, a task that is cancelled) leaves no server. */
#include "server.h"

#include "loop.h"
#include "task.h"

static PyObject *raise_start_error(tr_state *state, tr_engine *engine, tr_reason *reason) {
    PyObject *detail = tr_reason_to_python(state, reason);
    tr_reason_release(reason);
    tr_self_renew(engine); /* this call tells the thread what ended its process */
    if (detail == NULL) return NULL;
    if (PyErr_GivenExceptionMatches(detail, PyExc_KeyboardInterrupt))
        PyErr_SetObject((PyObject *)Py_TYPE(detail), detail);
    else
        tr_raise(state, "start_error", detail);
    Py_DECREF(detail);
    return NULL;
}

/* Run init on the calling thread: no thread switch, and the caller waits for it anyway. */
static PyObject *start_here(tr_state *state, tr_engine *engine, tr_server *server, tr_pid pid) {
    tr_reason *reason = NULL;
    PyObject *object = tr_pid_new(state, pid);
    int status = tr_server_init_here(tr_self(engine), server, &reason);
    tr_leave(engine);
    if (status == TR_INIT_OK && object != NULL) return object;
    Py_XDECREF(object);
    if (status == TR_INIT_OK) return NULL;
    if (status == TR_INIT_IGNORE) return Py_NewRef(state->python.IGNORE);
    return raise_start_error(state, engine, reason);
}

/* The server has answered IGNORE and is about to end: be told when it has, as it is by a start that runs
 * init itself. -1 with an exception. */
static int await_end(tr_state *state, tr_engine *engine, tr_process *self, tr_pid pid) {
    tr_call_options options = {.kind = TR_MESSAGE_STOP, .reason = tr_reason_constant(TR_NORMAL)};
    tr_reason *ended = NULL;
    bool timed_out;
    int result = tr_call(self, pid, &options);
    if (result == TR_EDEAD) return 0;
    if (result == TR_OK) tr_await_answer(state, engine, self, TR_FOREVER, &ended, &timed_out);
    tr_reason_release(ended);
    if (result != TR_OK) tr_raise_code(state, result);
    return PyErr_Occurred() ? -1 : 0;
}

/* Nobody waits for the server's init any more, or nobody could ask for it: the server must not stay.
 * `self` is NULL when the caller is dead, and its links with it. */
static void abandon(tr_engine *engine, tr_process *self, tr_pid pid) {
    if (self != NULL) tr_unlink(self, pid);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
}

static PyObject *start_there(tr_state *state, tr_engine *engine, tr_pid pid, uint64_t nanoseconds) {
    tr_call_options options = {.kind = TR_SERVER_INIT};
    tr_reason *ended = NULL;
    bool timed_out = false;
    tr_process *self = tr_current(state, engine);
    uint64_t deadline = tr_deadline(engine, nanoseconds);
    int result = self == NULL ? TR_EKILLED : tr_call(self, pid, &options);
    if (result != TR_OK) {
        abandon(engine, self, pid);
        if (self == NULL) return NULL;
        if (result != TR_EDEAD) return tr_raise_code(state, result);
        return raise_start_error(state, engine, tr_reason_constant(TR_NOPROC)); /* killed by others */
    }
    PyObject *answer = tr_await_answer(state, engine, self, deadline, &ended, &timed_out);
    if (ended != NULL) return raise_start_error(state, engine, ended);
    if (answer == NULL) { /* too late, or an exception in the caller */
        abandon(engine, self, pid);
        if (timed_out) tr_raise(state, "start_error", state->texts.timeout);
        return NULL;
    }
    if (answer == state->python.IGNORE && await_end(state, engine, self, pid) == 0) return answer;
    bool runs = answer != state->python.IGNORE;
    Py_DECREF(answer);
    return runs ? tr_pid_new(state, pid) : NULL;
}

/* What start_server is given, and the server that was spawned. */
typedef struct start {
    PyObject *class, *arguments, *keywords, *name, *timeout, *scheduler, *priority;
    tr_spawn_options options;
    uint64_t nanoseconds;
    tr_server *server;
    tr_pid pid;
} start;

static int parse_start(PyObject *args, start *start) {
    int link;
    if (!PyArg_ParseTuple(args, "OO!OpOOOO:start", &start->class, &PyTuple_Type, &start->arguments,
                          &start->keywords, &link, &start->name, &start->timeout,
                          &start->scheduler, &start->priority))
        return -1;
    tr_spawn_options *options = &start->options;
    *options = (tr_spawn_options){.link = link};
    if (tr_scheduler_kind(start->scheduler, TR_KIND_CORE, &options->kind) != 0 ||
        tr_priority(start->priority, &options->priority) != 0 ||
        tr_seconds(start->timeout, "timeout", true, &start->nanoseconds) != 0)
        return -1;
    if (start->name == Py_None) return 0;
    options->name = tr_name(start->name, "name");
    return options->name == NULL ? -1 : 0;
}

static int spawn_server(tr_state *state, tr_engine *engine, start *start,
                        const tr_server_extension *extend, void *extension) {
    const tr_behaviour *behaviour = extend == NULL ? &tr_server_behaviour : &tr_extended_behaviour;
    bool on_loop = start->options.kind == TR_KIND_ASYNC && extend == NULL;
    start->server = tr_server_new(state, start->class, start->arguments, start->keywords, extend,
                                  extension);
    if (start->server == NULL) return -1;
    if (tr_check_alive(state, engine) != 0 || /* killed while its class was called */
        (on_loop && tr_server_join_loop(start->server) != 0)) {
        tr_server_release(start->server);
        return -1;
    }
    if (on_loop) behaviour = &tr_async_server_behaviour;
    int result = tr_spawn(engine, &start->options, behaviour, start->server, &start->pid, NULL);
    if (result == TR_ENAME)
        tr_raise_taken(state, "already_started", start->pid);
    else if (result != TR_OK)
        tr_raise_code(state, result);
    return result == TR_OK ? 0 : -1;
}

PyObject *tr_server_start(PyObject *module, PyObject *args, const tr_server_extension *extend,
                          void *extension) {
    tr_state *state = tr_state_of(module);
    start start;
    if (parse_start(args, &start) != 0) return NULL;
    if (tr_refuse_to_block(state, "start_link()", "astart_link()") != 0) return NULL;
    /* Init runs on the calling thread, unless there is a limit, it belongs to the event loop, or a worker
     * takes its time to start: then the caller waits in the engine, which lets others run. */
    bool elsewhere = start.options.kind == TR_KIND_PROCESS ||
                     (start.options.kind == TR_KIND_ASYNC && extend == NULL);
    start.options.enter = start.nanoseconds == TR_FOREVER && !elsewhere;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    bool known = start.options.link || !start.options.enter;
    if (known && tr_current(state, engine) == NULL) return NULL;
    if (spawn_server(state, engine, &start, extend, extension) != 0) return NULL;
    return start.options.enter ? start_here(state, engine, start.server, start.pid)
                               : start_there(state, engine, start.pid, start.nanoseconds);
}

/* As tr_server_start, but init is awaited: (pid, future, ref). */
PyObject *tr_server_begin(PyObject *module, PyObject *args, const tr_server_extension *extend,
                          void *extension) {
    tr_state *state = tr_state_of(module);
    start start;
    if (parse_start(args, &start) != 0) return NULL;
    tr_engine *engine = tr_engine_get(state);
    tr_process *self = engine == NULL ? NULL : tr_current(state, engine);
    if (self == NULL || spawn_server(state, engine, &start, extend, extension) != 0) return NULL;
    PyObject *pid = tr_pid_new(state, start.pid), *wait = NULL;
    if (pid != NULL) wait = tr_await_request(module, pid, TR_SERVER_INIT, Py_None, start.timeout);
    if (wait != NULL) return Py_BuildValue("NN", pid, wait);
    abandon(engine, self, start.pid);
    Py_XDECREF(pid);
    return NULL;
}

static PyObject *py_begin_server(PyObject *module, PyObject *args) {
    return tr_server_begin(module, args, NULL, NULL);
}

static PyObject *py_start_server(PyObject *module, PyObject *args) {
    return tr_server_start(module, args, NULL, NULL);
}

PyMethodDef tr_server_functions[] = {
    {"start_server", py_start_server, METH_VARARGS,
     "start_server(cls, args, kwargs or None, link, name, timeout, scheduler, priority)"},
    {"begin_server", py_begin_server, METH_VARARGS, "As start_server -> (pid, (future, ref))"},
    {NULL, NULL, 0, NULL},
};
