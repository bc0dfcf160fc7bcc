/* loop.c: event loops: how the tasks of an asyncio loop wait for the engine.
 *
 * A loop that waits for the engine gets a Door, kept as an attribute of the loop, thus as long as it. The door
 * owns a tr_loop (tailrace_loop.h), whose descriptor the loop watches: when something is completed
 * the loop calls the door's `open`, once for however much there is, which gives each waiting future its
 * result: an answer as it is, anything else as an Unanswered. The Python side (_asynchronous.py)
 * awaits the futures and cancels what nobody waits for any more.
 *
 * A door is touched by its loop's thread only, but for its end, which happens wherever the loop's does. */
#include "loop.h"

#include "state.h"
#include "task.h"

typedef struct door {
    PyObject_HEAD
    tr_state *state;   /* borrowed */
    tr_engine *engine; /* that the tr_loop is of; maybe one that was stopped */
    tr_loop *loop;     /* owned */
    PyObject *mail;    /* owned: a dict, the futures that wait for mail of the thread's process, in order */
    bool over;         /* the engine's own loop: it shall end */
} door;

struct tr_loop_state {
    PyTypeObject *Door;         /* owned */
    _Atomic(PyObject *) get_running_loop; /* owned; NULL until asyncio is first needed, then constant */
    PyObject *create_future, *set_result, *add_reader, *remove_reader, *attribute; /* owned: texts */
};

/* ---- Doors --------------------------------------------------------------------------------------*/

/* What was raised while one future was given its result, by a handler of a signal: the others get theirs all the same,
 * then it goes on. A future that is done already was cancelled, and nobody waits for it. */
typedef struct raised {
    PyObject *type, *value, *traceback; /* owned; NULL: nothing */
} raised;

/* That it was done is asyncio's InvalidStateError. */
static bool was_done(PyObject *type) {
    PyObject *module = PyImport_ImportModule("asyncio.exceptions");
    PyObject *invalid = module == NULL ? NULL : PyObject_GetAttrString(module, "InvalidStateError");
    bool was = invalid != NULL && PyErr_GivenExceptionMatches(type, invalid);
    Py_XDECREF(invalid);
    Py_XDECREF(module);
    PyErr_Clear();
    return was;
}

static void drop_raised(raised *one) {
    Py_XDECREF(one->type);
    Py_XDECREF(one->value);
    Py_XDECREF(one->traceback);
}

static void keep_raised(raised *kept) {
    raised now;
    if (!PyErr_Occurred()) return;
    PyErr_Fetch(&now.type, &now.value, &now.traceback);
    if (kept->type == NULL && !was_done(now.type)) {
        *kept = now;
        return;
    }
    drop_raised(&now);
}

/* -1 if there is something. */
static int raise_kept(raised *kept) {
    if (kept->type == NULL) return 0;
    PyErr_Restore(kept->type, kept->value, kept->traceback);
    return -1;
}

/* Takes over `value`; it may be NULL, with an exception. A signal is handled before, as what its handler raises within
 * would keep the loop from hearing that the future is done. */
static void give(tr_state *state, PyObject *future, PyObject *value, raised *kept) {
    PyObject *done = NULL;
    keep_raised(kept);
    if (PyErr_CheckSignals() != 0) keep_raised(kept);
    if (value != NULL) done = PyObject_CallMethodOneArg(future, state->loop->set_result, value);
    keep_raised(kept);
    Py_XDECREF(done);
    Py_XDECREF(value);
}

void tr_give(tr_state *state, PyObject *future, PyObject *value) {
    raised kept = {0};
    give(state, future, value, &kept);
    drop_raised(&kept); /* on the engine's thread, where no signal is handled */
}

static PyObject *unanswered(tr_state *state, tr_await *await) {
    static const char *const outcomes[] = {"reply", "ended", "timeout", "killed", "stopped"};
    PyObject *reason = await->reason == NULL ? Py_NewRef(Py_None)
                                             : tr_reason_to_python(state, await->reason);
    if (reason == NULL) return NULL;
    return PyObject_CallFunction(state->python.Unanswered, "sN", outcomes[await->outcome], reason);
}

static void complete(tr_state *state, tr_await *await, raised *kept) {
    PyObject *value = await->reply;
    await->reply = NULL;
    if (await->outcome != TR_AWAIT_REPLY) value = unanswered(state, await);
    give(state, await->context, value, kept);
    Py_DECREF((PyObject *)await->context);
    tr_await_free(await);
}

static void complete_all(tr_state *state, tr_await *await, raised *kept) {
    while (await != NULL) {
        tr_await *next = await->next;
        complete(state, await, kept);
        await = next;
    }
}

static void wake_all(tr_state *state, PyObject **futures, raised *kept) {
    PyObject *waiting = *futures, *future, *value;
    Py_ssize_t at = 0;
    if ((*futures = PyDict_New()) == NULL) { /* without memory they are woken again */
        PyErr_Clear();
        *futures = Py_NewRef(waiting);
    }
    while (PyDict_Next(waiting, &at, &future, &value)) give(state, future, Py_NewRef(Py_None), kept);
    Py_DECREF(waiting);
}

void tr_wake_all(tr_state *state, PyObject **futures) {
    raised kept = {0};
    wake_all(state, futures, &kept);
    drop_raised(&kept); /* as in tr_give */
}

/* ---- The engine's own loop ----------------------------------------------------------------------*/

/* Of the thread that runs it; both owned, until the event loop is closed. */
_Thread_local bool tr_runs_loop;
static _Thread_local door *own_door;
static _Thread_local PyObject *own_event_loop;

tr_loop *tr_own_loop(PyObject **event_loop) {
    Py_XSETREF(*event_loop, Py_NewRef(own_event_loop));
    return own_door->loop;
}

/* Between steps the context says whose the code is: a callback of a protocol, of a future. */
void tr_loop_sync(tr_state *state, tr_engine *engine) {
    if (own_door->engine != engine || tr_loop_is_inside(own_door->loop)) return;
    tr_owner *owner = tr_owner_here(state);
    tr_process *process = owner == NULL ? NULL : owner->as != NULL ? owner->as : owner->process;
    tr_loop_attribute(own_door->loop, process);
}

int tr_refuse_to_block(tr_state *state, const char *what, const char *twin) {
    (void)state;
    if (!tr_runs_loop) return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "%s would block the engine's event loop and all that runs there; use `await %s`",
                 what, twin);
    return -1;
}

int tr_refuse_mail(tr_state *state, const char *what) {
    tr_owner *owner = tr_runs_loop ? tr_owner_here(state) : NULL;
    if (owner == NULL || owner->as == NULL) return 0;
    PyErr_Format(PyExc_RuntimeError, "%s is for functions and servers; a stage has handle_info", what);
    return -1;
}

static int call_soon(door *self) {
    PyObject *open = PyObject_GetAttrString((PyObject *)self, "open");
    PyObject *done = open == NULL ? NULL : PyObject_CallMethod(own_event_loop, "call_soon", "O", open);
    Py_XDECREF(open);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int tr_loop_catch_up(tr_state *state) {
    (void)state;
    if (!tr_loop_is_behind(own_door->loop)) return 0;
    PyObject *type, *value, *traceback; /* a step's own exception */
    PyErr_Fetch(&type, &value, &traceback);
    int result = call_soon(own_door);
    if (type != NULL) PyErr_Restore(type, value, traceback);
    return type != NULL ? 0 : result;
}

void tr_let_others(tr_loop *loop) {
    if (!tr_loop_shall_pause(loop)) return;
    Py_BEGIN_ALLOW_THREADS
    tr_loop_pause(loop);
    Py_END_ALLOW_THREADS
    tr_loop_goes_on(loop);
}

static int run_processes(door *self) {
    if (tr_loop_run(self->loop)) {
        tr_let_others(self->loop);
        return tr_loop_catch_up(self->state);
    }
    if (self->over) return 0; /* what is left cleans up: to stop now would cut that short */
    self->over = true;
    PyObject *done = PyObject_CallMethod(own_event_loop, "stop", NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

void tr_loop_end_here(void) {
    if (own_door == NULL) return;
    PyObject *ended = (PyObject *)own_door, *event_loop = own_event_loop;
    tr_loop_abandon(own_door->loop);
    tr_runs_loop = false;
    own_door = NULL;
    own_event_loop = NULL;
    Py_DECREF(ended);
    Py_DECREF(event_loop);
}

static PyObject *door_open(PyObject *object, PyObject *unused) {
    (void)unused;
    door *self = (door *)object;
    raised kept = {0};
    tr_release_deferred(self->state);
    complete_all(self->state, tr_loop_take(self->loop), &kept);
    if (tr_loop_has_mail(self->loop)) wake_all(self->state, &self->mail, &kept);
    if (self != own_door) {
        tr_let_others(self->loop);
        if (raise_kept(&kept) != 0) return NULL;
        Py_RETURN_NONE;
    }
    drop_raised(&kept); /* as in tr_give */
    if (run_processes(self) != 0) return NULL;
    Py_RETURN_NONE;
}

static int door_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((door *)object)->mail);
    return 0;
}

static int door_clear(PyObject *object) {
    Py_CLEAR(((door *)object)->mail);
    return 0;
}

static void door_dealloc(PyObject *object) {
    door *self = (door *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->loop != NULL) {
        tr_await *await = tr_loop_take(self->loop);
        while (await != NULL) {
            tr_await *next = await->next;
            Py_DECREF((PyObject *)await->context);
            tr_await_free(await);
            await = next;
        }
        tr_loop_release(self->loop);
    }
    door_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *door_over(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((door *)object)->over);
}

static PyGetSetDef door_properties[] = {
    {"over", door_over, NULL, "Whether the engine has ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef door_methods[] = {
    {"open", door_open, METH_NOARGS, "Give the waiting futures what has come. The loop calls it."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot door_slots[] = {
    {Py_tp_dealloc, door_dealloc}, {Py_tp_traverse, door_traverse},
    {Py_tp_clear, door_clear},     {Py_tp_methods, door_methods},
    {Py_tp_getset, door_properties},
    {Py_tp_doc, "What the engine knows of an event loop. Private."},
    {0, NULL},
};

static PyType_Spec door_spec = {
    .name = "tailrace._core.Door",
    .basicsize = sizeof(door),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = door_slots,
};

/* Whoever waits in an event loop has imported asyncio; the package does not, which would take long. */
static PyObject *find_running_loop(tr_loop_state *loops) {
    PyObject *events = PyImport_ImportModule("asyncio.events"), *none = NULL;
    PyObject *function = events == NULL ? NULL : PyObject_GetAttrString(events, "get_running_loop");
    Py_XDECREF(events);
    if (function != NULL &&
        !atomic_compare_exchange_strong(&loops->get_running_loop, &none, function))
        Py_SETREF(function, none); /* another thread was faster */
    return function;
}

static PyObject *running_loop(tr_loop_state *loops) {
    PyObject *function = atomic_load_explicit(&loops->get_running_loop, memory_order_acquire);
    if (function == NULL) function = find_running_loop(loops);
    return function == NULL ? NULL : PyObject_CallNoArgs(function);
}

static int watch(tr_loop_state *loops, PyObject *loop, door *self) {
    PyObject *open = PyObject_GetAttrString((PyObject *)self, "open");
    PyObject *fd = open == NULL ? NULL : PyLong_FromLong(tr_loop_fd(self->loop));
    PyObject *done = fd == NULL ? NULL : PyObject_CallMethodObjArgs(loop, loops->add_reader, fd,
                                                                    open, NULL);
    int result = done == NULL ? -1 : PyObject_SetAttr(loop, loops->attribute, (PyObject *)self);
    Py_XDECREF(done);
    Py_XDECREF(fd);
    Py_XDECREF(open);
    return result;
}

static door *door_new(tr_state *state, tr_engine *engine, PyObject *loop) {
    tr_loop_state *loops = state->loop;
    door *self = PyObject_GC_New(door, loops->Door);
    if (self == NULL) return NULL;
    self->state = state;
    self->engine = engine;
    self->over = false;
    self->mail = PyDict_New();
    self->loop = self->mail == NULL ? NULL : tr_loop_new(engine);
    PyObject_GC_Track(self);
    if (self->loop == NULL && !PyErr_Occurred()) PyErr_NoMemory();
    if (self->loop != NULL && watch(loops, loop, self) == 0) return self;
    Py_DECREF(self);
    return NULL;
}

/* The door of an engine that was stopped, or of the parent of a forked child. Who waits there hears of it
 * now: the loop will not open it any more. */
static int forget(tr_loop_state *loops, PyObject *loop, door *old) {
    raised kept = {0};
    complete_all(old->state, tr_loop_take(old->loop), &kept);
    if (kept.type != NULL) return raise_kept(&kept); /* the next one takes the door away */
    PyObject *fd = PyLong_FromLong(tr_loop_fd(old->loop));
    PyObject *done =
        fd == NULL ? NULL : PyObject_CallMethodOneArg(loop, loops->remove_reader, fd);
    Py_XDECREF(fd);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The door of the running loop, made if it has none. New reference, or NULL with an exception. */
static door *door_here(tr_state *state, tr_engine *engine, PyObject **loop) {
    tr_loop_state *loops = state->loop;
    if ((*loop = running_loop(loops)) == NULL) return NULL;
    PyObject *found = PyObject_GetAttr(*loop, loops->attribute);
    if (found == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) goto fail;
    if (found == NULL) PyErr_Clear();
    if (found != NULL && ((door *)found)->engine == engine) return (door *)found;
    if (found != NULL && forget(loops, *loop, (door *)found) != 0) goto fail;
    Py_XDECREF(found);
    found = (PyObject *)door_new(state, engine, *loop);
    if (found != NULL) return (door *)found;
fail:
    Py_XDECREF(found);
    Py_CLEAR(*loop);
    return NULL;
}

/* loop_begin(event loop) -> Door: the calling thread, which the engine started for this, is about to run it. */
static PyObject *loop_begin(PyObject *module, PyObject *event_loop) {
    tr_state *state = tr_state_of(module);
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_task_import(state) != 0) return NULL;
    if (!tr_on_engine_thread(engine)) {
        PyErr_SetString(PyExc_RuntimeError, "loop_begin() is for the engine's own thread");
        return NULL;
    }
    door *self = door_new(state, engine, event_loop);
    if (self == NULL) return NULL;
    own_door = (door *)Py_NewRef((PyObject *)self);
    own_event_loop = Py_NewRef(event_loop);
    tr_runs_loop = true;
    tr_loop_adopt(self->loop);
    return (PyObject *)self;
}

/* ---- Waiting ------------------------------------------------------------------------------------*/

/* What every wait begins with: engine, process, door and a future of the running loop. */
typedef struct wait {
    tr_state *state;
    tr_engine *engine;
    tr_process *self;
    door *door;       /* owned */
    PyObject *future; /* owned */
} wait;

static int wait_begin(wait *wait, PyObject *module) {
    *wait = (struct wait){.state = tr_state_of(module)};
    wait->engine = tr_engine_get(wait->state);
    wait->self = wait->engine == NULL ? NULL : tr_current(wait->state, wait->engine);
    if (wait->self == NULL) return -1;
    PyObject *loop;
    wait->door = door_here(wait->state, wait->engine, &loop);
    if (wait->door == NULL) return -1;
    wait->future = PyObject_CallMethodNoArgs(loop, wait->state->loop->create_future);
    Py_DECREF(loop);
    if (wait->future != NULL) return 0;
    Py_CLEAR(wait->door);
    return -1;
}

static void wait_end(wait *wait) {
    Py_XDECREF((PyObject *)wait->door);
    Py_XDECREF(wait->future);
}

/* (future, ref), or NULL with an exception, when `result` is an error. */
static PyObject *under_way(wait *wait, int result, tr_ref ref) {
    if (result == TR_OK) return Py_BuildValue("OK", wait->future, (unsigned long long)ref);
    Py_DECREF(wait->future); /* its await's */
    if (result == TR_EKILLED) tr_current(wait->state, wait->engine);
    return PyErr_Occurred() ? NULL : tr_raise_code(wait->state, result);
}

/* A callback that awaits in its own task does nothing else meanwhile; other tasks may. */
static bool waits_alone(tr_state *state) {
    tr_owner *owner = tr_runs_loop ? tr_owner_here(state) : NULL;
    return owner != NULL && owner->own_step;
}

PyObject *tr_await_request(PyObject *module, PyObject *dest, uint32_t kind, PyObject *request,
                           PyObject *timeout) {
    wait wait;
    uint64_t nanoseconds;
    PyObject *name, *result = NULL;
    tr_pid pid;
    tr_ref ref;
    if (tr_seconds(timeout, "timeout", true, &nanoseconds) != 0) return NULL;
    if (wait_begin(&wait, module) != 0) goto done;
    if (tr_destination(wait.state, wait.engine, dest, &pid, &name) != 0) goto done;
    enum { CYCLE = 64 };
    tr_pid cycle[CYCLE];
    tr_call_options options = {.kind = kind, .cycle = cycle, .size = CYCLE};
    if (kind == TR_MESSAGE_STOP) {
        options.reason = tr_reason_from_python(wait.state, wait.engine, request);
        if (options.reason == NULL) goto done;
    } else {
        options.term = Py_NewRef(request);
    }
    int code = tr_await_call(wait.self, wait.door->loop, pid, &options,
                             tr_deadline(wait.engine, nanoseconds), waits_alone(wait.state),
                             Py_NewRef(wait.future), &ref);
    if (code == TR_EDEAD || code == TR_ESELF || code == TR_EDEADLOCK)
        tr_raise_refused(wait.state, code, &options, dest);
    result = under_way(&wait, code, ref);
done:
    wait_end(&wait);
    return result;
}

static PyObject *await_call(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "await_call() takes dest, request, timeout");
        return NULL;
    }
    return tr_await_request(module, args[0], TR_MESSAGE_CALL, args[1], args[2]);
}

static PyObject *await_stop(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "await_stop() takes dest, reason, timeout");
        return NULL;
    }
    return tr_await_request(module, args[0], TR_MESSAGE_STOP, args[1], args[2]);
}

static PyObject *await_sleep(PyObject *module, PyObject *seconds) {
    wait wait;
    uint64_t nanoseconds;
    PyObject *result = NULL;
    tr_ref ref;
    if (tr_seconds(seconds, "seconds", false, &nanoseconds) != 0) return NULL;
    if (wait_begin(&wait, module) == 0)
        result = under_way(&wait,
                           tr_await_sleep(wait.self, wait.door->loop,
                                          tr_deadline(wait.engine, nanoseconds),
                                          Py_NewRef(wait.future), &ref),
                           ref);
    wait_end(&wait);
    return result;
}

/* Where the calling code's futures wait for mail: with its process on the engine's loop, else with the door. */
static PyObject *mail_of(tr_state *state, door *door) {
    tr_owner *owner = tr_runs_loop ? tr_owner_here(state) : NULL;
    return owner == NULL ? door->mail : owner->mail;
}

/* await_mail(deadline) -> (future, ref) for the next message, or the deadline; None if there is a
 * new message. */
static PyObject *await_mail(PyObject *module, PyObject *object) {
    wait wait;
    PyObject *result = NULL;
    tr_ref ref;
    unsigned long long deadline = PyLong_AsUnsignedLongLong(object);
    if (deadline == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    if (wait_begin(&wait, module) != 0) goto done;
    if (tr_refuse_mail(wait.state, "areceive()") != 0) goto done;
    PyObject *mail = mail_of(wait.state, wait.door);
    if (!tr_runs_loop && !tr_watch(wait.self, wait.door->loop)) {
        result = Py_NewRef(Py_None);
    } else if (PyDict_SetItem(mail, wait.future, Py_None) == 0) {
        int code = tr_await_sleep(wait.self, wait.door->loop, deadline, Py_NewRef(wait.future),
                                  &ref);
        result = under_way(&wait, code, ref);
        if (result == NULL) PyDict_DelItem(mail, wait.future);
        if (tr_runs_loop) tr_step(wait.self); /* it looks for new messages from now on */
    }
done:
    wait_end(&wait);
    return result;
}

/* Nobody waits for this any more, be it because it came. */
static PyObject *await_cancel(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    tr_state *state = tr_state_of(module);
    tr_engine *engine = atomic_load(&state->engine);
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "await_cancel() takes future, ref");
        return NULL;
    }
    unsigned long long ref = PyLong_AsUnsignedLongLong(args[1]);
    if (ref == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    if (engine != NULL && tr_await_cancel(engine, ref, args[0])) Py_DECREF(args[0]); /* its await's */
    Py_RETURN_NONE;
}

static PyObject *mail_cancel(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    tr_state *state = tr_state_of(module);
    tr_engine *engine = atomic_load(&state->engine);
    PyObject *loop;
    if (engine != NULL) {
        door *self = door_here(state, engine, &loop);
        if (self == NULL) return NULL;
        if (PyDict_DelItem(mail_of(state, self), args[0]) != 0) PyErr_Clear();
        Py_DECREF((PyObject *)self);
        Py_DECREF(loop);
    }
    return await_cancel(module, args, count);
}

/* deadline(timeout or None): on the engine's clock, for await_mail. */
static PyObject *deadline(PyObject *module, PyObject *timeout) {
    uint64_t nanoseconds;
    if (tr_seconds(timeout, "timeout", true, &nanoseconds) != 0) return NULL;
    tr_engine *engine = tr_engine_get(tr_state_of(module));
    if (engine == NULL) return NULL;
    return PyLong_FromUnsignedLongLong(tr_deadline(engine, nanoseconds));
}

PyMethodDef tr_loop_functions[] = {
    {"await_call", (PyCFunction)(void (*)(void))await_call, METH_FASTCALL,
     "await_call(dest, request, timeout) -> (future, ref)"},
    {"await_stop", (PyCFunction)(void (*)(void))await_stop, METH_FASTCALL,
     "await_stop(dest, reason, timeout) -> (future, ref)"},
    {"await_sleep", await_sleep, METH_O, "await_sleep(seconds) -> (future, ref)"},
    {"await_mail", await_mail, METH_O, "await_mail(deadline) -> (future, ref), or None: look now"},
    {"await_cancel", (PyCFunction)(void (*)(void))await_cancel, METH_FASTCALL,
     "await_cancel(future, ref): give up what await_call, await_stop or await_sleep began"},
    {"mail_cancel", (PyCFunction)(void (*)(void))mail_cancel, METH_FASTCALL,
     "mail_cancel(future, ref): give up what await_mail began"},
    {"loop_begin", loop_begin, METH_O, "loop_begin(event loop) -> Door"},
    {"deadline", deadline, METH_O, "deadline(timeout or None) -> nanoseconds"},
    {NULL, NULL, 0, NULL},
};

/* ---- The module's part --------------------------------------------------------------------------*/

int tr_loop_init_module(PyObject *module) {
    static const char *const texts[] = {"create_future", "set_result", "add_reader",
                                        "remove_reader", "_tailrace_door"};
    tr_state *state = tr_state_of(module);
    tr_loop_state *loops = PyMem_Calloc(1, sizeof *loops);
    if (loops == NULL) return PyErr_NoMemory() == NULL ? -1 : 0;
    state->loop = loops;
    PyObject **slots = &loops->create_future;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if ((slots[i] = PyUnicode_InternFromString(texts[i])) == NULL) return -1;
    loops->Door = (PyTypeObject *)PyType_FromModuleAndSpec(module, &door_spec, NULL);
    return loops->Door == NULL ? -1 : 0;
}

int tr_loop_traverse(tr_loop_state *loops, visitproc visit, void *arg) {
    if (loops == NULL) return 0;
    Py_VISIT(loops->Door);
    PyObject *function = atomic_load(&loops->get_running_loop);
    Py_VISIT(function);
    return 0;
}

void tr_loop_clear(tr_loop_state *loops) {
    if (loops == NULL) return;
    Py_CLEAR(loops->Door);
    PyObject *function = atomic_exchange(&loops->get_running_loop, NULL);
    Py_XDECREF(function);
    PyObject **slots = &loops->create_future;
    for (int i = 0; i < 5; i++) Py_CLEAR(slots[i]);
}

void tr_loop_free_state(tr_loop_state *loops) { PyMem_Free(loops); }
