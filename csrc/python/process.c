/* process.c: spawn, receive, links, monitors, exits, names, timers.
 *
 * A spawned function's state (callable, arguments, context) is owned by its process and touched only by
 * the thread that runs it; it is released, attached, when the process is buried. */
#include "coroutine.h"
#include "docs.h"
#include "server.h"
#include "state.h"
#include "task.h"
#include "wait.h"

/* ---- Functions as processes ---------------------------------------------------------------------*/

typedef struct function {
    tr_state *state; /* borrowed */
    PyObject *callable, *args, *keywords, *context; /* owned; keywords may be NULL */
} function;

static void function_release(void *state) {
    function *self = state;
    Py_XDECREF(self->callable);
    Py_XDECREF(self->args);
    Py_XDECREF(self->keywords);
    Py_XDECREF(self->context);
    PyMem_RawFree(self);
}

/* What the user gave (borrowed): the first argument, if that is run in a worker. */
static PyObject *subject(function *self) {
    bool away = self->callable == self->state->python.run_function;
    return away ? PyTuple_GET_ITEM(self->args, 0) : self->callable;
}

static void function_run(tr_process *process, void *state) {
    function *self = state;
    if (PyContext_Enter(self->context) != 0) PyErr_Clear();
    PyObject *result = PyObject_Call(self->callable, self->args, self->keywords);
    if (result != NULL)
        Py_DECREF(result);
    else
        tr_exit_raised(self->state, process, "function", subject(self), false);
    if (PyContext_Exit(self->context) != 0) PyErr_Clear();
}

static const tr_behaviour function_behaviour = {
    .name = "function", .run = function_run, .release = function_release};

PyObject *tr_function_callable(tr_process *process) {
    if (tr_process_behaviour(process) == &tr_coroutine_behaviour)
        return tr_coroutine_callable(tr_process_state(process));
    if (tr_process_behaviour(process) == &tr_async_function_behaviour)
        return tr_async_function_callable(tr_process_state(process));
    if (tr_process_behaviour(process) != &function_behaviour) return NULL;
    return ((function *)tr_process_state(process))->callable;
}

static void *function_new(tr_state *state, PyObject *callable, PyObject *args,
                              PyObject *keywords) {
    function *self = PyMem_RawCalloc(1, sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->state = state;
    self->callable = Py_NewRef(callable);
    self->args = Py_NewRef(args);
    self->keywords = Py_XNewRef(keywords);
    self->context = PyContext_CopyCurrent();
    if (self->context != NULL) return self;
    function_release(self);
    return NULL;
}

static int one_of(PyObject *object, const char *argument, const char *const *texts, int *value) {
    const char *text = PyUnicode_Check(object) ? PyUnicode_AsUTF8(object) : NULL;
    for (int i = 0; text != NULL && texts[i] != NULL; i++) {
        if (strcmp(text, texts[i]) != 0) continue;
        *value = i;
        return 0;
    }
    PyErr_Clear();
    PyObject *allowed = PyUnicode_FromString("");
    for (int i = 0; allowed != NULL && texts[i] != NULL; i++)
        Py_SETREF(allowed, PyUnicode_FromFormat("%U%s'%s'", allowed, i == 0 ? "" : ", ", texts[i]));
    if (allowed != NULL)
        PyErr_Format(text == NULL && !PyUnicode_Check(object) ? PyExc_TypeError : PyExc_ValueError,
                     "%s: expected one of %U, got %R", argument, allowed, object);
    Py_XDECREF(allowed);
    return -1;
}

int tr_priority(PyObject *object, int *priority) {
    static const char *const texts[] = {"low", "normal", "high", NULL};
    return one_of(object, "priority", texts, priority);
}

int tr_scheduler_kind(PyObject *object, int default_kind, int *kind) {
    static const char *const texts[] = {"core", "thread", "asyncio", "process", NULL};
    static const int kinds[] = {TR_KIND_CORE, TR_KIND_THREAD, TR_KIND_ASYNC, TR_KIND_PROCESS};
    int which;
    *kind = default_kind;
    if (object == Py_None) return 0;
    if (one_of(object, "scheduler", texts, &which) != 0) return -1;
    *kind = kinds[which];
    return 0;
}

enum { UNSAID = -1 };

/* What spawn was given, taken apart. */
typedef struct spawn_request {
    PyObject *callable;  /* borrowed */
    PyObject *args;      /* owned */
    PyObject *keywords;  /* owned, or NULL */
    bool coroutine;      /* an async def function */
    tr_spawn_options options; /* kind is UNSAID until the function is known */
} spawn_request;

static bool is_coroutine_function(tr_state *state, PyObject *callable) {
    while (Py_TYPE(callable) == (PyTypeObject *)state->python.partial) {
        PyObject *inner = PyObject_GetAttrString(callable, "func");
        if (inner == NULL) PyErr_Clear();
        Py_XDECREF(inner); /* the partial keeps it */
        if (inner == NULL) return false;
        callable = inner;
    }
    if (PyMethod_Check(callable)) callable = PyMethod_GET_FUNCTION(callable);
    if (!PyFunction_Check(callable)) return false;
    return (((PyCodeObject *)PyFunction_GET_CODE(callable))->co_flags & CO_COROUTINE) != 0;
}

/* name=, scheduler= and priority= are spawn's; every other keyword is the function's. */
static int take_keyword(spawn_request *request, PyObject *keyword, PyObject *value) {
    if (PyUnicode_CompareWithASCIIString(keyword, "name") == 0) {
        if (value == Py_None) return 0;
        request->options.name = tr_name(value, "name");
        return request->options.name == NULL ? -1 : 0;
    }
    if (PyUnicode_CompareWithASCIIString(keyword, "scheduler") == 0)
        return tr_scheduler_kind(value, UNSAID, &request->options.kind);
    if (PyUnicode_CompareWithASCIIString(keyword, "priority") == 0)
        return tr_priority(value, &request->options.priority);
    if (request->keywords == NULL && (request->keywords = PyDict_New()) == NULL) return -1;
    return PyDict_SetItem(request->keywords, keyword, value);
}

/* Where it runs when nobody says so; and where an async def function can. */
static int choose_scheduler(spawn_request *request) {
    int *kind = &request->options.kind;
    if (*kind == UNSAID) *kind = request->coroutine ? TR_KIND_ASYNC : TR_KIND_THREAD;
    if (!request->coroutine || *kind == TR_KIND_ASYNC || *kind == TR_KIND_CORE) return 0;
    PyErr_Format(PyExc_ValueError,
                 "scheduler: expected 'asyncio' for an async def function, or 'core' if it awaits "
                 "only the engine, got '%s'",
                 *kind == TR_KIND_PROCESS ? "process" : "thread");
    return -1;
}

static int parse_spawn(tr_state *state, PyObject *const *args, Py_ssize_t count, PyObject *names,
                       spawn_request *request) {
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "spawn: the function to run is missing");
        return -1;
    }
    request->callable = args[0];
    if (!PyCallable_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "fn: expected a callable, got %R", args[0]);
        return -1;
    }
    request->coroutine = is_coroutine_function(state, args[0]);
    Py_ssize_t keywords = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < keywords; i++)
        if (take_keyword(request, PyTuple_GET_ITEM(names, i), args[count + i]) != 0) return -1;
    if (choose_scheduler(request) != 0) return -1;
    request->args = PyTuple_New(count - 1);
    if (request->args == NULL) return -1;
    for (Py_ssize_t i = 1; i < count; i++)
        PyTuple_SET_ITEM(request->args, i - 1, Py_NewRef(args[i]));
    return 0;
}

static PyObject *pid_and_ref(tr_state *state, tr_pid pid, tr_ref ref) {
    PyObject *object = tr_pid_new(state, pid);
    PyObject *reference = object == NULL ? NULL : tr_ref_object_new(state, ref);
    if (reference != NULL) return Py_BuildValue("NN", object, reference);
    Py_XDECREF(object);
    return NULL;
}

/* Let the process run run_function(callable, args, keywords) instead. */
static int in_worker(tr_state *state, spawn_request *request) {
    PyObject *args = PyTuple_Pack(3, request->callable, request->args,
                                  request->keywords == NULL ? Py_None : request->keywords);
    if (args == NULL) return -1;
    Py_SETREF(request->args, args);
    Py_CLEAR(request->keywords);
    request->callable = state->python.run_function;
    return 0;
}

/* What the process runs and how, by where it runs. NULL with an exception. */
static void *make_function(tr_state *state, spawn_request *request,
                           const tr_behaviour **behaviour) {
    PyObject *callable = request->callable, *args = request->args, *keywords = request->keywords;
    if (request->options.kind == TR_KIND_ASYNC) {
        *behaviour = &tr_async_function_behaviour;
        return tr_async_function_new(state, callable, args, keywords);
    }
    if (request->coroutine) {
        *behaviour = &tr_coroutine_behaviour;
        return tr_coroutine_new(state, callable, args, keywords);
    }
    *behaviour = &function_behaviour;
    return function_new(state, callable, args, keywords);
}

static PyObject *do_spawn(tr_state *state, spawn_request *request) {
    tr_spawn_options *options = &request->options;
    bool bound = options->link || options->monitor;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    if (bound && tr_current(state, engine) == NULL) return NULL;
    if (options->kind == TR_KIND_PROCESS && in_worker(state, request) != 0) return NULL;
    const tr_behaviour *behaviour;
    void *self = make_function(state, request, &behaviour);
    if (self == NULL) return NULL;
    tr_pid pid;
    tr_ref ref = 0;
    int result = tr_spawn(engine, options, behaviour, self, &pid, &ref);
    if (result == TR_ENAME) return tr_raise_taken(state, "already_registered", pid);
    if (result != TR_OK) return tr_raise_code(state, result);
    return options->monitor ? pid_and_ref(state, pid, ref) : tr_pid_new(state, pid);
}

static PyObject *spawn(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names,
                       bool link, bool monitor) {
    spawn_request request = {.options = {.kind = UNSAID,
                                         .priority = TR_PRIORITY_NORMAL,
                                         .link = link,
                                         .monitor = monitor}};
    PyObject *result = NULL;
    if (parse_spawn(tr_state_of(module), args, count, names, &request) == 0)
        result = do_spawn(tr_state_of(module), &request);
    Py_XDECREF(request.args);
    Py_XDECREF(request.keywords);
    return result;
}

static PyObject *py_spawn(PyObject *module, PyObject *const *args, Py_ssize_t count,
                          PyObject *names) {
    return spawn(module, args, count, names, false, false);
}

static PyObject *py_spawn_link(PyObject *module, PyObject *const *args, Py_ssize_t count,
                               PyObject *names) {
    return spawn(module, args, count, names, true, false);
}

static PyObject *py_spawn_monitor(PyObject *module, PyObject *const *args, Py_ssize_t count,
                                  PyObject *names) {
    return spawn(module, args, count, names, false, true);
}

PyObject *tr_raise_taken(tr_state *state, const char *code, tr_pid pid) {
    PyObject *holder = pid == 0 ? Py_NewRef(Py_None) : tr_pid_new(state, pid);
    if (holder == NULL) return NULL;
    tr_raise(state, code, holder);
    Py_DECREF(holder);
    return NULL;
}

/* ---- The calling process ------------------------------------------------------------------------*/

/* Engine and calling process of a function that needs both. */
static tr_process *here(PyObject *module, tr_state **state, tr_engine **engine) {
    *state = tr_state_of(module);
    *engine = tr_engine_get(*state);
    return *engine == NULL ? NULL : tr_current(*state, *engine);
}

static PyObject *py_self(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_state *state;
    tr_engine *engine;
    tr_process *self = here(module, &state, &engine);
    return self == NULL ? NULL : tr_pid_new(state, tr_process_pid(self));
}

static bool carries_ref(PyObject *object, tr_state *state, tr_ref ref) {
    if (Py_TYPE(object) == state->Ref)
        return ((tr_ref_object *)object)->ref == ref &&
               ((tr_ref_object *)object)->engine == tr_engine_id_of(state);
    if (!PyTuple_Check(object)) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) {
        PyObject *item = PyTuple_GET_ITEM(object, i);
        if (Py_TYPE(item) == state->Ref && carries_ref(item, state, ref)) return true;
    }
    return false;
}

typedef struct wanted {
    tr_state *state;
    tr_ref ref;
} wanted;

bool tr_is_server(const tr_process *self) {
    const tr_behaviour *behaviour = tr_process_behaviour(self);
    return behaviour == &tr_server_behaviour || behaviour == &tr_extended_behaviour ||
           behaviour == &tr_async_server_behaviour;
}

/* Runs no Python code, so a mailbox never changes under a scan. */
static bool matches_ref(const tr_message *message, void *context) {
    wanted *wanted = context;
    if (message->kind == TR_MESSAGE_DOWN) return message->ref == wanted->ref;
    if (message->kind != TR_MESSAGE_TERM) return false;
    return carries_ref((PyObject *)message->term, wanted->state, wanted->ref);
}

/* What a server's or a stage's own machinery sends is not for its callbacks to receive. */
static bool matches_any(const tr_message *message, void *context) {
    (void)context;
    return message->kind < TR_MESSAGE_USER && message->kind != TR_MESSAGE_TIMEOUT;
}

tr_message *tr_receive_match(tr_state *state, tr_process *self, PyObject *match,
                             tr_cursor *cursor) {
    if (match == Py_None) return tr_receive(self, tr_is_server(self) ? matches_any : NULL, NULL, cursor);
    bool ours = ((tr_ref_object *)match)->engine == tr_engine_id_of(state);
    wanted wanted = {state, ours ? ((tr_ref_object *)match)->ref : 0}; /* 0: of an engine that was, nothing has it */
    return tr_receive(self, matches_ref, &wanted, cursor);
}

int tr_check_match(tr_state *state, PyObject *match) {
    if (match == Py_None || Py_TYPE(match) == state->Ref) return 0;
    PyErr_Format(PyExc_TypeError, "match: expected None or a Ref, got %R", match);
    return -1;
}

/* receive(match, timeout, default): default is UNSET when there is none. */
static PyObject *py_receive(PyObject *module, PyObject *args) {
    tr_state *state;
    tr_engine *engine;
    PyObject *match, *timeout, *otherwise;
    uint64_t nanoseconds;
    if (!PyArg_ParseTuple(args, "OOO:receive", &match, &timeout, &otherwise)) return NULL;
    state = tr_state_of(module);
    if (tr_check_match(state, match) != 0) return NULL;
    if (tr_seconds(timeout, "timeout", true, &nanoseconds) != 0) return NULL;
    if (nanoseconds != 0 && tr_refuse_to_block(state, "receive()", "areceive()") != 0) return NULL;
    if (tr_refuse_mail(state, "receive()") != 0) return NULL;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL) return NULL;
    uint64_t deadline = tr_deadline(engine, nanoseconds);
    tr_cursor cursor = {0};
    for (;;) {
        tr_message *message = tr_receive_match(state, self, match, &cursor);
        if (message != NULL) return tr_message_to_python(state, engine, message);
        if (nanoseconds == 0) break;
        int result = tr_wait_detached(state, self, tr_wait, deadline);
        if (result == -2) tr_current(state, engine);
        if (result < 0) return NULL;
        if (result == 1) break;
    }
    if (otherwise != state->python.UNSET) return Py_NewRef(otherwise);
    return tr_raise(state, "receive_timeout", timeout);
}

static PyObject *py_sleep(PyObject *module, PyObject *seconds) {
    tr_state *state;
    tr_engine *engine;
    uint64_t nanoseconds;
    if (tr_seconds(seconds, "seconds", false, &nanoseconds) != 0) return NULL;
    if (tr_refuse_to_block(tr_state_of(module), "sleep()", "asleep()") != 0) return NULL;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL) return NULL;
    int result = tr_wait_detached(state, self, tr_sleep, tr_deadline(engine, nanoseconds));
    if (result == -2) tr_current(state, engine);
    if (result < 0) return NULL;
    Py_RETURN_NONE;
}

static int check_bool(PyObject *object, const char *argument) {
    if (PyBool_Check(object)) return 0;
    PyErr_Format(PyExc_TypeError, "%s: expected a bool, got %R", argument, object);
    return -1;
}

static PyObject *py_trap_exit(PyObject *module, PyObject *flag) {
    tr_state *state;
    tr_engine *engine;
    if (check_bool(flag, "flag") != 0) return NULL;
    tr_process *self = here(module, &state, &engine);
    return self == NULL ? NULL : PyBool_FromLong(tr_trap_exit(self, flag == Py_True));
}

/* ---- Links and monitors -------------------------------------------------------------------------*/

static PyObject *py_link(PyObject *module, PyObject *object) {
    tr_state *state;
    tr_engine *engine;
    tr_pid pid;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL || tr_only_pid(state, object, &pid) != 0) return NULL;
    int result = pid == 0 ? TR_EDEAD : tr_link(self, pid);
    if (result == TR_OK) Py_RETURN_TRUE;
    if (result != TR_EDEAD) return tr_raise_code(state, result);
    if (!tr_traps_exit(self)) return tr_raise(state, "noproc", object);
    tr_message *message = tr_message_new(TR_MESSAGE_EXIT);
    if (message == NULL) return PyErr_NoMemory();
    message->from = pid;
    if (Py_TYPE(object) == state->Pid) message->term = Py_NewRef(object); /* as it was given */
    message->reason = tr_reason_constant(TR_NOPROC);
    tr_send_message(engine, tr_process_pid(self), message);
    Py_RETURN_TRUE;
}

static PyObject *py_unlink(PyObject *module, PyObject *object) {
    tr_state *state;
    tr_engine *engine;
    tr_pid pid;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL || tr_only_pid(state, object, &pid) != 0) return NULL;
    if (pid != 0) tr_unlink(self, pid);
    Py_RETURN_TRUE;
}

/* What Down carries when that is not the Pid: a name, a Pid of an engine that is gone, a tag with either
 * (see down_to_python). NULL without an exception when the Pid will do. */
static PyObject *monitor_label(tr_state *state, PyObject *dest, PyObject *name, tr_pid pid,
                               PyObject *tag) {
    bool as_given = name != NULL || pid == 0;
    if (tag == Py_None) return as_given ? Py_NewRef(dest) : NULL;
    PyObject *who = as_given ? Py_NewRef(dest) : tr_pid_new(state, pid);
    PyObject *label = who == NULL ? NULL : PyTuple_Pack(2, tag, who);
    Py_XDECREF(who);
    return label;
}

/* alias(mode="explicit") -> Ref */
static PyObject *py_alias(PyObject *module, PyObject *args, PyObject *keywords) {
    static const char *const modes[] = {"explicit", "reply", NULL};
    static char *names[] = {"mode", NULL};
    tr_state *state;
    tr_engine *engine;
    PyObject *text = NULL;
    int mode = TR_ALIAS_EXPLICIT;
    tr_ref ref = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O:alias", names, &text)) return NULL;
    if (text != NULL && one_of(text, "mode", modes, &mode) != 0) return NULL;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL) return NULL;
    int result = tr_alias(self, mode, &ref);
    return result == TR_OK ? tr_ref_object_new(state, ref) : tr_raise_code(state, result);
}

static PyObject *py_unalias(PyObject *module, PyObject *ref) {
    tr_state *state;
    tr_engine *engine;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL) return NULL;
    if (Py_TYPE(ref) != state->Ref) {
        PyErr_Format(PyExc_TypeError, "ref: expected the Ref of an alias, got %R", ref);
        return NULL;
    }
    tr_ref_object *object = (tr_ref_object *)ref;
    return PyBool_FromLong(object->engine == tr_engine_id_of(state) && tr_unalias(self, object->ref));
}

static PyObject *py_monitor(PyObject *module, PyObject *args, PyObject *keywords) {
    static const char *const modes[] = {"explicit", "demonitor", "reply_demonitor", NULL};
    static const int codes[] = {TR_ALIAS_EXPLICIT, TR_ALIAS_DEMONITOR, TR_ALIAS_REPLY_DEMONITOR};
    static char *names[] = {"", "alias", "tag", NULL};
    tr_state *state;
    tr_engine *engine;
    tr_pid pid;
    tr_ref ref;
    PyObject *dest, *name, *alias = Py_None, *tag = Py_None;
    int mode = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$OO:monitor", names, &dest, &alias, &tag))
        return NULL;
    if (alias != Py_None && one_of(alias, "alias", modes, &mode) != 0) return NULL;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL || tr_destination(state, engine, dest, &pid, &name) != 0) return NULL;
    PyObject *label = monitor_label(state, dest, name, pid, tag);
    if (label == NULL && PyErr_Occurred()) return NULL;
    int result = tr_monitor(self, pid, label, &ref);
    if (result == TR_OK && alias != Py_None) result = tr_alias(self, codes[mode], &ref);
    return result == TR_OK ? tr_ref_object_new(state, ref) : tr_raise_code(state, result);
}

static PyObject *py_demonitor(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"ref", "flush", "info", NULL};
    tr_state *state;
    tr_engine *engine;
    PyObject *ref, *flush = Py_False, *info = Py_False;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|OO:demonitor", names, &ref, &flush, &info))
        return NULL;
    if (check_bool(flush, "flush") != 0 || check_bool(info, "info") != 0) return NULL;
    tr_process *self = here(module, &state, &engine);
    if (self == NULL) return NULL;
    if (Py_TYPE(ref) != state->Ref) {
        PyErr_Format(PyExc_TypeError, "ref: expected the Ref of a monitor, got %R", ref);
        return NULL;
    }
    tr_ref_object *object = (tr_ref_object *)ref;
    bool ours = object->engine == tr_engine_id_of(state);
    bool removed = ours && tr_demonitor(self, object->ref, flush == Py_True);
    return PyBool_FromLong(removed || info == Py_False);
}

PyObject *tr_do_exit(tr_state *state, PyObject *dest, PyObject *reason) {
    tr_engine *engine = tr_engine_get(state);
    tr_process *self = engine == NULL ? NULL : tr_current(state, engine); /* Exit tells who it was */
    tr_pid pid;
    if (self == NULL || tr_only_pid(state, dest, &pid) != 0) return NULL;
    tr_reason *owned = tr_reason_from_python(state, engine, reason);
    if (owned == NULL) return NULL;
    tr_exit(engine, tr_process_pid(self), pid, owned);
    /* Signals to oneself take effect before this returns (O28, O29). */
    if (tr_check_alive(state, engine) != 0) return NULL;
    Py_RETURN_TRUE;
}

static PyObject *py_exit(PyObject *module, PyObject *args) {
    PyObject *pid, *reason;
    if (!PyArg_ParseTuple(args, "OO:exit", &pid, &reason)) return NULL;
    return tr_do_exit(tr_state_of(module), pid, reason);
}

/* ---- Names --------------------------------------------------------------------------------------*/

static PyObject *py_register(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"name", "pid", NULL};
    tr_state *state;
    tr_engine *engine;
    PyObject *name, *object = Py_None;
    tr_pid pid, holder;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:register", names, &name, &object))
        return NULL;
    const char *text = tr_name(name, "name");
    tr_process *self = text == NULL ? NULL : here(module, &state, &engine);
    if (self == NULL) return NULL;
    pid = tr_process_pid(self);
    if (object != Py_None && tr_only_pid(state, object, &pid) != 0) return NULL;
    int result = tr_register(engine, text, pid, &holder);
    if (result == TR_EDEAD) {
        PyErr_Format(PyExc_ValueError, "pid: expected a running process, got %R", object);
        return NULL;
    }
    if (result == TR_ENAME && holder == 0) {
        PyErr_Format(PyExc_ValueError, "name: the process has a name already; got %R", name);
        return NULL;
    }
    if (result == TR_ENAME) return tr_raise_taken(state, "already_registered", holder);
    if (result != TR_OK) return tr_raise_code(state, result);
    Py_RETURN_TRUE;
}

static PyObject *py_unregister(PyObject *module, PyObject *name) {
    tr_state *state = tr_state_of(module);
    const char *text = tr_name(name, "name");
    tr_engine *engine = text == NULL ? NULL : tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    if (tr_unregister(engine, text) == TR_OK) Py_RETURN_TRUE;
    PyErr_Format(PyExc_ValueError, "name: expected a registered name, got %R", name);
    return NULL;
}

static PyObject *py_whereis(PyObject *module, PyObject *name) {
    tr_state *state = tr_state_of(module);
    const char *text = tr_name(name, "name");
    tr_engine *engine = text == NULL ? NULL : tr_engine_get(state);
    if (engine == NULL) return NULL;
    tr_pid pid = tr_whereis(engine, text);
    if (pid == 0) Py_RETURN_NONE;
    return tr_pid_new(state, pid);
}

typedef struct name_list {
    char **names;
    size_t count, size;
} name_list;

/* Under the engine's lock: copies only. */
static void copy_name(void *context, const char *name, tr_pid pid) {
    (void)pid;
    name_list *list = context;
    if (list->count == list->size) {
        size_t size = list->size * 2 + 16;
        char **larger = PyMem_RawRealloc(list->names, size * sizeof *larger);
        if (larger == NULL) return;
        list->names = larger;
        list->size = size;
    }
    char *copy = PyMem_RawMalloc(strlen(name) + 1);
    if (copy == NULL) return;
    strcpy(copy, name);
    list->names[list->count++] = copy;
}

static PyObject *py_registered(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_engine *engine = tr_engine_get(tr_state_of(module));
    name_list list = {0};
    if (engine == NULL) return NULL;
    tr_registered(engine, copy_name, &list);
    PyObject *result = PyList_New(0);
    for (size_t i = 0; i < list.count; i++) {
        PyObject *name = result == NULL ? NULL : PyUnicode_FromString(list.names[i]);
        if (name == NULL || PyList_Append(result, name) != 0) Py_CLEAR(result);
        Py_XDECREF(name);
        PyMem_RawFree(list.names[i]);
    }
    PyMem_RawFree(list.names);
    return result;
}

/* ---- Timers -------------------------------------------------------------------------------------*/

/* send_after(dest, message, delay) -> Timer */
static PyObject *py_send_after(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"dest", "message", "delay", NULL};
    tr_state *state = tr_state_of(module);
    PyObject *dest, *term, *delay, *name;
    uint64_t nanoseconds;
    tr_pid pid;
    tr_timer *timer;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOO:send_after", names, &dest, &term, &delay))
        return NULL;
    if (tr_seconds(delay, "delay", false, &nanoseconds) != 0) return NULL;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    if (tr_destination(state, engine, dest, &pid, &name) != 0) return NULL;
    tr_message *message = tr_message_new(TR_MESSAGE_TERM);
    if (message == NULL) return PyErr_NoMemory();
    message->term = Py_NewRef(term);
    /* A name is looked up when the time comes (O66). */
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8(name);
    int result =
        tr_timer_start(engine, pid, text, message, tr_deadline(engine, nanoseconds), &timer);
    return result == TR_OK ? tr_timer_new(state, timer) : tr_raise_code(state, result);
}

PyMethodDef tr_process_functions[] = {
    {"spawn", (PyCFunction)(void (*)(void))py_spawn, METH_FASTCALL | METH_KEYWORDS, tr_doc_spawn},
    {"spawn_link", (PyCFunction)(void (*)(void))py_spawn_link, METH_FASTCALL | METH_KEYWORDS,
     tr_doc_spawn_link},
    {"spawn_monitor", (PyCFunction)(void (*)(void))py_spawn_monitor,
     METH_FASTCALL | METH_KEYWORDS, tr_doc_spawn_monitor},
    {"self", py_self, METH_NOARGS, tr_doc_self},
    {"receive", py_receive, METH_VARARGS, "See tailrace.receive."},
    {"sleep", py_sleep, METH_O, tr_doc_sleep},
    {"trap_exit", py_trap_exit, METH_O, "See tailrace.trap_exit."},
    {"link", py_link, METH_O, tr_doc_link},
    {"unlink", py_unlink, METH_O, tr_doc_unlink},
    {"alias", (PyCFunction)(void (*)(void))py_alias, METH_VARARGS | METH_KEYWORDS, tr_doc_alias},
    {"unalias", py_unalias, METH_O, tr_doc_unalias},
    {"monitor", (PyCFunction)(void (*)(void))py_monitor, METH_VARARGS | METH_KEYWORDS,
     tr_doc_monitor},
    {"demonitor", (PyCFunction)(void (*)(void))py_demonitor, METH_VARARGS | METH_KEYWORDS,
     tr_doc_demonitor},
    {"exit", py_exit, METH_VARARGS, tr_doc_exit},
    {"register", (PyCFunction)(void (*)(void))py_register, METH_VARARGS | METH_KEYWORDS,
     tr_doc_register},
    {"unregister", py_unregister, METH_O, tr_doc_unregister},
    {"whereis", py_whereis, METH_O, tr_doc_whereis},
    {"registered", py_registered, METH_NOARGS, tr_doc_registered},
    {"send_after", (PyCFunction)(void (*)(void))py_send_after, METH_VARARGS | METH_KEYWORDS,
     tr_doc_send_after},
    {NULL, NULL, 0, NULL},
};
