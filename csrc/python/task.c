/* task.c: see task.h. */
#include "task.h"

#include "server.h"

/* How the Driver of a task ends. */
enum {
    DRIVER_CHILD, /* with what the coroutine ends with: a task that the process's code made */
    DRIVER_ONCE,  /* with None, after `finished`: an async function's own task */
    DRIVER_SERIES /* not before the process does: coroutine after coroutine, a server's own task */
};

typedef struct tr_driver {
    PyObject_HEAD
    tr_owner *owner;   /* owned */
    PyObject *inner;   /* owned: the coroutine; NULL between two of a series */
    PyObject *pending; /* owned: what its first step, taken outside the task, yielded; or NULL */
    PyObject *parked;  /* owned: the future that the task of a series waits for between two; or NULL */
    int mode;
    bool stepping;     /* its task is inside it */
    bool stale;        /* the task has been cancelled by a coroutine that has ended: not to be thrown on */
} tr_driver;

/* ---- Owners -------------------------------------------------------------------------------------*/

static int owner_traverse(PyObject *object, visitproc visit, void *arg) {
    tr_owner *self = (tr_owner *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->instance);
    Py_VISIT(self->event_loop);
    Py_VISIT(self->mail);
    Py_VISIT(self->tasks);
    Py_VISIT(self->task);
    Py_VISIT((PyObject *)self->driver);
    return 0;
}

static int owner_clear(PyObject *object) {
    tr_owner *self = (tr_owner *)object;
    Py_CLEAR(self->instance);
    Py_CLEAR(self->event_loop);
    Py_CLEAR(self->mail);
    Py_CLEAR(self->tasks);
    Py_CLEAR(self->task);
    Py_CLEAR(self->driver);
    return 0;
}

static void owner_dealloc(PyObject *object) {
    tr_owner *self = (tr_owner *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->process != NULL) tr_process_release(self->process);
    if (self->as != NULL) tr_process_release(self->as);
    owner_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *owner_tasks(PyObject *object, void *unused) {
    (void)unused;
    return Py_NewRef(((tr_owner *)object)->tasks);
}

static PyObject *owner_ended(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((tr_owner *)object)->ended);
}

static PyGetSetDef owner_properties[] = {
    {"tasks", owner_tasks, NULL, "The tasks that the process's code has made.", NULL},
    {"ended", owner_ended, NULL, "Whether the process has been buried.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot owner_slots[] = {
    {Py_tp_dealloc, owner_dealloc}, {Py_tp_traverse, owner_traverse},
    {Py_tp_clear, owner_clear},     {Py_tp_getset, owner_properties},
    {Py_tp_doc, "A process on the event loop. Private."},
    {0, NULL},
};

static PyType_Spec owner_spec = {
    .name = "tailrace._core.Owner",
    .basicsize = sizeof(tr_owner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = owner_slots,
};

static int make_current(tr_state *state, PyObject *context, tr_owner *owner) {
    if (PyContext_Enter(context) != 0) return -1;
    PyObject *token = PyContextVar_Set(state->task->owner, (PyObject *)owner);
    Py_XDECREF(token);
    if (PyContext_Exit(context) != 0) return -1;
    return token == NULL ? -1 : 0;
}

tr_owner *tr_owner_new(tr_state *state, PyObject *context,
                       void (*finished)(tr_owner *owner, PyObject *value), void *user) {
    tr_owner *self = PyObject_GC_New(tr_owner, state->task->Owner);
    if (self == NULL) return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->state = state;
    self->finished = finished;
    self->user = user;
    self->mail = PyDict_New();
    self->tasks = PySet_New(NULL);
    PyObject_GC_Track(self);
    if (self->mail != NULL && self->tasks != NULL && make_current(state, context, self) == 0)
        return self;
    Py_DECREF(self);
    return NULL;
}

int tr_owner_begin(tr_owner *self, tr_process *process) {
    self->process = tr_process_acquire(tr_process_engine(process), tr_process_pid(process));
    if (self->process == NULL) { /* ended meanwhile: it is stepped no more */
        PyErr_SetNone(self->state->Killed);
        return -1;
    }
    self->loop = tr_own_loop(&self->event_loop);
    return 0;
}

/* Cancel what is left of it; _event_loop.py does so again until all are done. */
void tr_owner_end(tr_owner *self) {
    self->ended = true;
    self->user = NULL;
    if (self->event_loop != NULL && (self->task != NULL || PySet_GET_SIZE(self->tasks) > 0)) {
        PyObject *done = PyObject_CallFunctionObjArgs(
            self->state->python.cancel_tasks, self->event_loop,
            self->task == NULL ? Py_None : self->task, self->tasks, NULL);
        if (done == NULL) PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(done);
    }
    Py_CLEAR(self->task);
    Py_CLEAR(self->driver);
}

bool tr_owner_mail(tr_owner *self) {
    bool more = tr_mailbox_seen(self->process);
    if (PyDict_GET_SIZE(self->mail) == 0) return false;
    if (!more) return true;
    tr_wake_all(self->state, &self->mail);
    return false; /* they ask again */
}

tr_owner *tr_owner_here(tr_state *state) {
    PyObject *value = NULL;
    if (PyContextVar_Get(state->task->owner, NULL, &value) != 0) PyErr_Clear();
    Py_XDECREF(value); /* the context keeps it */
    return (tr_owner *)value;
}

/* ---- Drivers ------------------------------------------------------------------------------------*/

static tr_driver *driver_new(tr_owner *owner, PyObject *inner, int mode) {
    tr_driver *self = PyObject_GC_New(tr_driver, owner->state->task->Driver);
    if (self == NULL) return NULL;
    self->owner = (tr_owner *)Py_NewRef((PyObject *)owner);
    self->inner = Py_XNewRef(inner);
    self->pending = self->parked = NULL;
    self->mode = mode;
    self->stepping = self->stale = false;
    PyObject_GC_Track(self);
    return self;
}

/* Driver(owner, coroutine): for the tasks that a process's code makes. */
static PyObject *driver_make(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *owner, *coroutine;
    (void)type;
    (void)keywords;
    if (!PyArg_ParseTuple(args, "OO:Driver", &owner, &coroutine)) return NULL;
    tr_state *state = tr_state_of(PyType_GetModule(type));
    if (Py_TYPE(owner) != state->task->Owner) {
        PyErr_SetString(PyExc_TypeError, "owner: expected an Owner");
        return NULL;
    }
    return (PyObject *)driver_new((tr_owner *)owner, coroutine, DRIVER_CHILD);
}

static int driver_traverse(PyObject *object, visitproc visit, void *arg) {
    tr_driver *self = (tr_driver *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->owner);
    Py_VISIT(self->inner);
    Py_VISIT(self->pending);
    Py_VISIT(self->parked);
    return 0;
}

static int driver_clear(PyObject *object) {
    tr_driver *self = (tr_driver *)object;
    Py_CLEAR(self->inner);
    Py_CLEAR(self->pending);
    Py_CLEAR(self->parked);
    Py_CLEAR(self->owner);
    return 0;
}

static void driver_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    driver_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* Step: send `value`, or throw `exception`. As PyIter_Send. */
static PySendResult step(PyObject *inner, PyObject *value, PyObject *const *exception,
                         Py_ssize_t count, PyObject **result) {
    if (exception == NULL) return PyIter_Send(inner, value, result);
    PyObject *method = PyObject_GetAttrString(inner, "throw");
    *result = method == NULL ? NULL : PyObject_Vectorcall(method, exception, (size_t)count, NULL);
    Py_XDECREF(method);
    if (*result != NULL) return PYGEN_NEXT;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) return PYGEN_ERROR;
    PyObject *stop = tr_take_exception();
    *result = PyObject_GetAttrString(stop, "value");
    Py_DECREF(stop);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* The task of a series waits until there is another coroutine. */
static PySendResult park(tr_driver *self, PyObject **result) {
    if (self->owner->ended) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    Py_CLEAR(self->parked);
    PyObject *future = PyObject_CallMethod(self->owner->event_loop, "create_future", NULL);
    *result = future;
    if (future == NULL) return PYGEN_ERROR;
    if (PyObject_SetAttrString(future, "_asyncio_future_blocking", Py_True) != 0) {
        Py_CLEAR(*result);
        return PYGEN_ERROR;
    }
    self->parked = Py_NewRef(future);
    return PYGEN_NEXT;
}

/* A task that was killed ends as a cancelled one, about which nobody logs. */
static void soften(tr_owner *owner) {
    if (owner->process == NULL || !tr_process_is_dead(owner->process)) return;
    if (!PyErr_ExceptionMatches(owner->state->Killed)) return;
    PyErr_Clear();
    PyErr_SetNone(owner->state->task->CancelledError);
}

/* The coroutine is done: `value` (stolen), or NULL and an exception. Still entered. */
static PySendResult inner_done(tr_driver *self, PyObject *value, PyObject **result) {
    tr_owner *owner = self->owner;
    Py_CLEAR(self->inner);
    if (self->mode == DRIVER_CHILD) {
        *result = value;
        if (value == NULL) soften(owner);
        return value == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }
    if (owner->ended || tr_process_is_dead(owner->process)) {
        Py_XDECREF(value);
        PyErr_Clear();
    } else {
        owner->finished(owner, value);
    }
    if (self->mode == DRIVER_SERIES && self->inner == NULL) return park(self, result);
    *result = self->inner == NULL ? Py_NewRef(Py_None) : self->pending; /* of the next in the series */
    self->pending = NULL;
    return self->inner == NULL ? PYGEN_RETURN : PYGEN_NEXT;
}

static PySendResult drive_entered(tr_driver *self, PyObject *value, PyObject *const *exception,
                                  Py_ssize_t count, PyObject **result) {
    PySendResult how = step(self->inner, value, exception, count, result);
    if (how == PYGEN_NEXT) return how;
    return inner_done(self, how == PYGEN_RETURN ? *result : NULL, result);
}

/* The first step, taken outside of the task, has yielded something that the task is to wait for. */
static bool hand_over(tr_driver *self, PyObject *const *exception, PyObject **result) {
    PyObject *pending = self->pending;
    if (pending == NULL) return false;
    self->pending = NULL;
    bool wait = exception == NULL && pending != Py_None;
    if (wait) {
        *result = pending;
        return true;
    }
    if (exception != NULL && pending != Py_None) { /* as Task.cancel does */
        PyObject *done = PyObject_CallMethod(pending, "cancel", NULL);
        if (done == NULL) PyErr_Clear();
        Py_XDECREF(done);
    }
    Py_DECREF(pending);
    return false;
}

/* Taking a late interrupt back runs code, which must not meet the step's own exception. */
static void leave(tr_owner *owner, tr_loop_step before) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    tr_loop_leave(owner->loop, owner->process, before);
    PyErr_Restore(type, value, traceback);
}

static PySendResult drive(tr_driver *self, PyObject *value, PyObject *const *exception,
                          Py_ssize_t count, PyObject **result) {
    tr_owner *owner = self->owner;
    if (self->inner == NULL && self->mode == DRIVER_SERIES) return park(self, result);
    if (self->inner == NULL) {
        *result = NULL;
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->stale) exception = NULL;
    self->stale = false;
    if (exception == NULL && value == NULL) value = Py_None;
    if (hand_over(self, exception, result)) return PYGEN_NEXT;
    PyObject *inner = Py_NewRef(self->inner);
    bool own = owner->own_step;
    tr_loop_step before = tr_loop_enter(owner->loop, owner->process, owner->as);
    self->stepping = true;
    owner->own_step = self->mode != DRIVER_CHILD;
    PySendResult how = drive_entered(self, value, exception, count, result);
    owner->own_step = own;
    self->stepping = false;
    leave(owner, before);
    Py_DECREF(inner);
    if (tr_loop_catch_up(owner->state) != 0) PyErr_WriteUnraisable((PyObject *)self);
    tr_let_others(owner->loop);
    return how;
}

static PySendResult driver_am_send(PyObject *object, PyObject *value, PyObject **result) {
    return drive((tr_driver *)object, value, NULL, 0, result);
}

/* What send() and throw() return or raise. */
static PyObject *as_method(PySendResult how, PyObject *result) {
    if (how != PYGEN_RETURN) return result;
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *driver_send(PyObject *object, PyObject *value) {
    PyObject *result = NULL;
    PySendResult how = drive((tr_driver *)object, value, NULL, 0, &result);
    return as_method(how, result);
}

static PyObject *driver_next(PyObject *object) { return driver_send(object, Py_None); }

static PyObject *driver_throw(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    PyObject *result = NULL;
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    PySendResult how = drive((tr_driver *)object, NULL, args, count, &result);
    return as_method(how, result);
}

static PyObject *driver_close(PyObject *object, PyObject *unused) {
    (void)unused;
    tr_driver *self = (tr_driver *)object;
    Py_CLEAR(self->pending);
    if (self->inner == NULL) Py_RETURN_NONE;
    PyObject *inner = self->inner;
    self->inner = NULL;
    PyObject *result = PyObject_CallMethod(inner, "close", NULL);
    Py_DECREF(inner);
    return result;
}

/* cr_frame and the like, for whoever looks at a task's coroutine. */
static PyObject *driver_getattr(PyObject *object, PyObject *name) {
    PyObject *result = PyObject_GenericGetAttr(object, name), *inner = ((tr_driver *)object)->inner;
    if (result != NULL || inner == NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return result;
    PyErr_Clear();
    return PyObject_GetAttr(inner, name);
}

static PyObject *driver_self(PyObject *object) { return Py_NewRef(object); }

static PyMethodDef driver_methods[] = {
    {"send", driver_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))driver_throw, METH_FASTCALL, NULL},
    {"close", driver_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot driver_slots[] = {
    {Py_tp_new, driver_make},           {Py_tp_dealloc, driver_dealloc},
    {Py_tp_traverse, driver_traverse},  {Py_tp_clear, driver_clear},
    {Py_tp_methods, driver_methods},    {Py_tp_getattro, driver_getattr},
    {Py_tp_iter, driver_self},          {Py_tp_iternext, driver_next},
    {Py_am_await, driver_self},         {Py_am_send, driver_am_send},
    {Py_tp_doc, "What a task of a process runs: the coroutine, as that process. Private."},
    {0, NULL},
};

static PyType_Spec driver_spec = {
    .name = "tailrace._core.Driver",
    .basicsize = sizeof(tr_driver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = driver_slots,
};

/* ---- The own task of a process ------------------------------------------------------------------*/

static int make_task(tr_owner *self, PyObject *coroutine, PyObject *context, int mode) {
    self->driver = driver_new(self, coroutine, mode);
    if (self->driver == NULL) return -1;
    self->task = PyObject_CallFunctionObjArgs(self->state->python.make_task, self->event_loop,
                                              (PyObject *)self->driver, context, NULL);
    if (self->task != NULL) return 0;
    Py_CLEAR(self->driver);
    return -1;
}

static int enter_task(tr_owner *self, PyObject *function) {
    PyObject *args[] = {self->event_loop, self->task};
    PyObject *done = PyObject_Vectorcall(function, args, 2, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The task, which is parked, or has not begun, goes on with what the first step has yielded. */
static void resume_task(tr_driver *driver, PyObject *coroutine, PyObject *yielded) {
    driver->inner = coroutine;
    driver->pending = yielded;
    if (driver->parked == NULL) return;
    tr_give(driver->owner->state, driver->parked, Py_NewRef(Py_None));
    Py_CLEAR(driver->parked);
}

static bool is_cancelled(PyObject *future) {
    if (future == NULL) return false;
    PyObject *answer = PyObject_CallMethod(future, "cancelled", NULL);
    bool cancelled = answer == Py_True;
    if (answer == NULL) PyErr_Clear();
    Py_XDECREF(answer);
    return cancelled;
}

/* Its first step as the task: outside of it, or within a step of it that has ended another coroutine. */
static PySendResult first_step(tr_owner *self, PyObject *coroutine, PyObject **yielded) {
    struct tr_task_state *tasks = self->state->task;
    if (self->driver->stepping) return PyIter_Send(coroutine, Py_None, yielded);
    self->driver->stale = is_cancelled(self->driver->parked);
    PySendResult how = PYGEN_ERROR;
    *yielded = NULL;
    if (enter_task(self, tasks->enter_task) == 0) {
        PyObject *type, *error, *traceback;
        self->own_step = true;
        if (self->as != NULL) tr_loop_attribute(self->loop, self->as);
        how = PyIter_Send(coroutine, Py_None, yielded);
        if (self->as != NULL) tr_loop_attribute(self->loop, self->process);
        self->own_step = false;
        PyErr_Fetch(&type, &error, &traceback);
        if (enter_task(self, tasks->leave_task) != 0) PyErr_Clear();
        PyErr_Restore(type, error, traceback);
    }
    return how;
}

static bool run_now(tr_owner *self, PyObject *coroutine, PyObject **value) {
    PyObject *yielded;
    PySendResult how = first_step(self, coroutine, &yielded);
    if (how == PYGEN_NEXT) {
        resume_task(self->driver, coroutine, yielded);
        return false;
    }
    Py_DECREF(coroutine);
    *value = yielded;
    return true;
}

bool tr_owner_run(tr_owner *self, PyObject *coroutine, PyObject *context, bool now,
                  PyObject **value) {
    *value = NULL;
    if (self->task == NULL &&
        make_task(self, now ? NULL : coroutine, context, now ? DRIVER_SERIES : DRIVER_ONCE) != 0) {
        PyObject *closed = NULL, *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        closed = PyObject_CallMethod(coroutine, "close", NULL);
        Py_XDECREF(closed);
        PyErr_Restore(type, error, traceback);
        Py_DECREF(coroutine);
        return true;
    }
    if (now) return run_now(self, coroutine, value);
    Py_DECREF(coroutine); /* the driver's */
    return false;
}

/* ---- Async functions ----------------------------------------------------------------------------*/

typedef struct async_function {
    tr_state *state;
    tr_owner *owner; /* owned */
    PyObject *callable, *args, *keywords, *context; /* owned; keywords may be NULL */
    bool begun;
} async_function;

static void function_finished(tr_owner *owner, PyObject *value) {
    async_function *self = owner->user;
    if (value == NULL)
        tr_exit_raised(self->state, owner->process, "function", self->callable, false);
    else
        tr_exit_self(owner->process, tr_reason_constant(TR_NORMAL));
    Py_XDECREF(value);
}

/* Call the function; if that gives a coroutine, its task goes on. */
static void function_begin(async_function *self, tr_process *process) {
    PyObject *value = NULL;
    if (tr_owner_begin(self->owner, process) != 0) {
        PyErr_Clear();
        return;
    }
    if (PyContext_Enter(self->context) != 0) PyErr_Clear();
    PyObject *result = PyObject_Call(self->callable, self->args, self->keywords);
    if (PyContext_Exit(self->context) != 0) PyErr_Clear();
    bool done = result == NULL || !PyCoro_CheckExact(result);
    if (done)
        value = result;
    else
        done = tr_owner_run(self->owner, result, self->context, false, &value);
    if (done) function_finished(self->owner, value);
}

static int function_step(tr_process *process, void *state, uint64_t *deadline) {
    async_function *self = state;
    (void)deadline;
    if (!self->begun) {
        self->begun = true;
        function_begin(self, process);
    }
    if (self->owner->process != NULL) tr_owner_mail(self->owner);
    return TR_STEP_MESSAGE;
}

static void function_release(void *state) {
    async_function *self = state;
    if (self->owner != NULL) tr_owner_end(self->owner);
    Py_XDECREF((PyObject *)self->owner);
    Py_XDECREF(self->callable);
    Py_XDECREF(self->args);
    Py_XDECREF(self->keywords);
    Py_XDECREF(self->context);
    PyMem_RawFree(self);
}

const tr_behaviour tr_async_function_behaviour = {
    .name = "function", .step = function_step, .release = function_release};

PyObject *tr_async_function_callable(void *state) { return ((async_function *)state)->callable; }

void *tr_async_function_new(tr_state *state, PyObject *callable, PyObject *args,
                            PyObject *keywords) {
    async_function *self = PyMem_RawCalloc(1, sizeof *self);
    if (self == NULL) return PyErr_NoMemory();
    self->state = state;
    self->callable = Py_NewRef(callable);
    self->args = Py_NewRef(args);
    self->keywords = Py_XNewRef(keywords);
    self->context = PyContext_CopyCurrent();
    if (self->context != NULL)
        self->owner = tr_owner_new(state, self->context, function_finished, self);
    if (self->owner != NULL) return self;
    function_release(self);
    return NULL;
}

/* ---- The module's part --------------------------------------------------------------------------*/

static PyObject *owner_here(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_owner *owner = tr_owner_here(tr_state_of(module));
    return Py_NewRef(owner == NULL ? Py_None : (PyObject *)owner);
}

/* act_for(pid, instance): what the calling process's coroutines, callbacks of `instance`, do from now on, they do as
 * that process, which stands still meanwhile. */
static PyObject *act_for(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    tr_engine *engine = tr_engine_get(state);
    tr_owner *owner = tr_runs_loop ? tr_owner_here(state) : NULL;
    PyObject *object, *instance;
    tr_pid pid;
    if (!PyArg_ParseTuple(args, "OO", &object, &instance)) return NULL;
    if (engine == NULL || tr_only_pid(state, object, &pid) != 0) return NULL;
    if (owner == NULL || owner->as != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "act_for() is for companions");
        return NULL;
    }
    Py_XSETREF(owner->instance, Py_NewRef(instance));
    owner->as = tr_process_acquire(engine, pid);
    if (owner->as == NULL) return tr_raise(state, "noproc", object);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"act_for", act_for, METH_VARARGS, "act_for(pid, instance): see _companion.py"},
    {"owner", owner_here, METH_NOARGS, "The Owner of the running code on the event loop, or None."},
    {NULL, NULL, 0, NULL},
};

int tr_task_import(tr_state *state) {
    struct tr_task_state *tasks = state->task;
    if (tasks->CancelledError != NULL) return 0;
    PyObject *asyncio = PyImport_ImportModule("asyncio.tasks");
    PyObject *exceptions = asyncio == NULL ? NULL : PyImport_ImportModule("asyncio.exceptions");
    if (exceptions != NULL) {
        tasks->enter_task = PyObject_GetAttrString(asyncio, "_enter_task");
        tasks->leave_task = PyObject_GetAttrString(asyncio, "_leave_task");
        tasks->CancelledError = PyObject_GetAttrString(exceptions, "CancelledError");
    }
    Py_XDECREF(exceptions);
    Py_XDECREF(asyncio);
    return PyErr_Occurred() ? -1 : 0;
}

int tr_task_init_module(PyObject *module) {
    tr_state *state = tr_state_of(module);
    struct tr_task_state *tasks = PyMem_Calloc(1, sizeof *tasks);
    if (tasks == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
    state->task = tasks;
    tasks->owner = PyContextVar_New("tailrace.process", NULL);
    tasks->Owner = (PyTypeObject *)PyType_FromModuleAndSpec(module, &owner_spec, NULL);
    tasks->Driver = (PyTypeObject *)PyType_FromModuleAndSpec(module, &driver_spec, NULL);
    if (tasks->owner == NULL || tasks->Owner == NULL || tasks->Driver == NULL) return -1;
    if (PyModule_AddType(module, tasks->Driver) != 0) return -1;
    return PyModule_AddFunctions(module, functions);
}

int tr_task_traverse(struct tr_task_state *tasks, visitproc visit, void *arg) {
    if (tasks == NULL) return 0;
    PyObject **slots = (PyObject **)tasks;
    for (size_t i = 0; i < sizeof *tasks / sizeof *slots; i++) Py_VISIT(slots[i]);
    return 0;
}

void tr_task_clear(struct tr_task_state *tasks) {
    if (tasks == NULL) return;
    PyObject **slots = (PyObject **)tasks;
    for (size_t i = 0; i < sizeof *tasks / sizeof *slots; i++) Py_CLEAR(slots[i]);
}

void tr_task_free_state(struct tr_task_state *tasks) { PyMem_Free(tasks); }
