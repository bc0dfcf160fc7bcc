/* server.c: the trampoline that runs a GenServer's callbacks.
 *
 * See server.h for who owns what. A message arrives with its term owned; the term is handed to the
 * callback and released after it. Methods are looked up at each call through the type's method cache, so
 * nothing has to be resolved or kept per server. After every call into Python the process may be dead
 * (killed by somebody else): then whatever came back is dropped, and nothing else is done. */
#include "server.h"

#include "task.h"

/* ---- How processes end --------------------------------------------------------------------------*/

tr_reason *tr_raised_reason(tr_state *state, tr_engine *engine, bool server,
                            PyObject **exception) {
    PyObject *value = tr_take_exception();
    tr_reason *reason = NULL;
    *exception = NULL;
    if (value == NULL) return tr_reason_constant(TR_KILLED);
    if (PyObject_TypeCheck(value, (PyTypeObject *)state->Killed)) {
        Py_DECREF(value);
        return tr_reason_constant(TR_KILLED);
    }
    bool asked = PyObject_IsInstance(value, state->python.ProcessExit) == 1;
    PyObject *detail =
        asked ? PyObject_GetAttr(value, state->texts.reason) : Py_NewRef(value);
    if (detail != NULL) reason = tr_reason_from_python(state, engine, detail);
    Py_XDECREF(detail);
    PyErr_Clear();
    if (reason == NULL) reason = tr_reason_constant(TR_KILLED);
    if (!asked || (server && !tr_reason_is_clean(reason)))
        *exception = value;
    else
        Py_DECREF(value);
    return reason;
}

void tr_log_crash(tr_state *state, tr_process *process, const char *what, PyObject *message,
                  PyObject *exception) {
    PyObject *pid = tr_pid_new(state, tr_process_pid(process));
    PyObject *done = pid == NULL ? NULL
                                 : PyObject_CallFunction(state->python.log_crash, "OsOO", pid, what,
                                                         message ? message : Py_None, exception);
    /* A broken log handler must not end more; and that the process was killed in it is no news. */
    if (done == NULL && tr_process_is_dead(process)) PyErr_Clear();
    if (done == NULL && PyErr_Occurred()) PyErr_WriteUnraisable(pid);
    Py_XDECREF(done);
    Py_XDECREF(pid);
}

void tr_exit_raised(tr_state *state, tr_process *process, const char *what, PyObject *message,
                    bool server) {
    PyObject *exception;
    tr_reason *reason =
        tr_raised_reason(state, tr_process_engine(process), server, &exception);
    if (exception != NULL && !tr_process_is_dead(process))
        tr_log_crash(state, process, what, message, exception);
    Py_XDECREF(exception);
    tr_exit_self(process, reason);
}

/* ---- Calling into the instance ------------------------------------------------------------------*/

PyObject *tr_server_call(tr_server *server, PyObject *method, PyObject *argument) {
    PyObject *args[] = {server->instance, argument};
    return PyObject_VectorcallMethod(method, args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

enum { SUSPENDED_RESULT = 1, SUSPENDED_TERMINATE, SUSPENDED_INIT };

/* On the event loop a callback may return a coroutine, which is run. True: it has been suspended; the
 * caller notes what is to be done with its result. False: *result is what it came to. */
static bool suspends(tr_server *server, PyObject **result) {
    if (server->owner == NULL || *result == NULL || !PyCoro_CheckExact(*result)) return false;
    PyObject *value;
    if (!tr_owner_run(server->owner, *result, server->context, true, &value)) return true;
    *result = value;
    return false;
}

static void suspended_clear(tr_suspended *suspended) {
    Py_XDECREF(suspended->subject);
    tr_reason_release(suspended->reason);
    Py_XDECREF(suspended->exception);
    Py_XDECREF(suspended->reply);
    *suspended = (tr_suspended){0};
}

/* What run after terminate: answer, log, end (O135: the answer goes out after terminate). `result`, stolen, is
 * what terminate returned, or NULL with what it raised, which is the reason then. */
static void finish_end(tr_process *self, tr_server *server, PyObject *result,
                       tr_suspended *suspended) {
    tr_state *state = server->state;
    tr_engine *engine = tr_process_engine(self);
    tr_reason *reason = suspended->reason;
    PyObject *exception = suspended->exception;
    suspended->reason = NULL;
    suspended->exception = NULL;
    if (result == NULL) {
        tr_reason_release(reason);
        Py_CLEAR(exception);
        reason = tr_raised_reason(state, engine, true, &exception);
    }
    Py_XDECREF(result);
    if (suspended->reply != NULL)
        tr_reply(engine, suspended->from, suspended->ref, Py_NewRef(suspended->reply));
    if (!tr_process_is_dead(self) && !tr_reason_is_clean(reason)) {
        PyObject *cause = exception != NULL ? Py_NewRef(exception)
                                            : tr_reason_to_python(state, reason);
        if (cause != NULL) tr_log_crash(state, self, suspended->callback, suspended->subject, cause);
        PyErr_Clear();
        Py_XDECREF(cause);
    }
    Py_XDECREF(exception);
    tr_exit_self(self, reason);
}

/* Terminate, answer, log, end. Takes over reason and exception (may be NULL); `call` and `reply` are of the
 * call in progress, or NULL. */
static void finish(tr_process *self, tr_server *server, tr_reason *reason, PyObject *exception,
                   const char *callback, PyObject *message, tr_message *call, PyObject *reply) {
    tr_suspended rest = {.what = SUSPENDED_TERMINATE,
                         .callback = callback,
                         .subject = Py_XNewRef(message),
                         .reason = reason,
                         .exception = exception,
                         .reply = Py_XNewRef(reply)};
    if (call != NULL) {
        rest.from = call->from;
        rest.ref = call->ref;
    }
    if (server->extend != NULL && server->extend->ending != NULL)
        server->extend->ending(self, server, reason);
    PyObject *object = tr_reason_to_python(server->state, reason);
    PyObject *result =
        object == NULL ? NULL : tr_server_call(server, server->state->texts.terminate, object);
    Py_XDECREF(object);
    if (suspends(server, &result)) {
        server->suspended = rest;
        return;
    }
    finish_end(self, server, result, &rest);
    suspended_clear(&rest);
}

void tr_server_crash(tr_process *self, tr_server *server, const char *callback,
                     PyObject *message) {
    PyObject *exception;
    if (tr_process_is_dead(self)) {
        PyErr_Clear();
        return;
    }
    tr_reason *reason =
        tr_raised_reason(server->state, tr_process_engine(self), true, &exception);
    finish(self, server, reason, exception, callback, message, NULL, NULL);
}

void tr_server_stop(tr_process *self, tr_server *server, tr_reason *reason) {
    finish(self, server, reason, NULL, "terminate", NULL, NULL, NULL);
}

/* ---- Timeouts -----------------------------------------------------------------------------------*/

static void cancel_timeout(tr_server *server) {
    if (server->timer == NULL) return;
    tr_timer_cancel(server->timer);
    tr_timer_release(server->timer);
    server->timer = NULL;
    server->timeout_ref = 0;
}

static int arm_timeout(tr_process *self, tr_server *server, PyObject *seconds) {
    tr_engine *engine = tr_process_engine(self);
    uint64_t nanoseconds;
    if (tr_seconds(seconds, "timeout", true, &nanoseconds) != 0) return -1;
    if (nanoseconds == TR_FOREVER) return 0;
    tr_message *message = tr_message_new(TR_MESSAGE_TIMEOUT);
    if (message == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    cancel_timeout(server);
    message->ref = server->timeout_ref = tr_ref_new(engine);
    int result = tr_timer_start(engine, tr_process_pid(self), NULL, message,
                                tr_deadline(engine, nanoseconds), &server->timer);
    if (result == TR_OK) return 0;
    server->timer = NULL;
    tr_raise_code(server->state, result);
    return -1;
}

/* ---- What callbacks return ----------------------------------------------------------------------*/

int tr_raise_bad_return(tr_server *server, const char *callback, PyObject *value) {
    PyObject *detail = Py_BuildValue("(OsO)", Py_TYPE(server->instance), callback, value);
    if (detail == NULL) return -1;
    tr_raise(server->state, "bad_return", detail);
    Py_DECREF(detail);
    return -1;
}

/* The events of an action, when it has some. 0 or -1 with an exception. */
static int emit_events(tr_process *self, tr_server *server, PyObject *action,
                       const char *callback) {
    PyObject *events = PyObject_GetAttr(action, server->state->texts.events);
    if (events == NULL) return -1;
    if (events == Py_None) {
        Py_DECREF(events);
        return 0;
    }
    if (server->extend != NULL) return server->extend->emit(self, server, events, callback);
    Py_DECREF(events);
    return tr_raise_bad_return(server, callback, action);
}

/* continue_= and timeout= of an action. *token gets the token (new) or NULL. */
static int apply_then(tr_process *self, tr_server *server, PyObject *action, PyObject **token) {
    tr_texts *texts = &server->state->texts;
    PyObject *seconds = PyObject_GetAttr(action, texts->timeout);
    int result = seconds == NULL ? -1 : 0;
    if (result == 0 && seconds != Py_None) result = arm_timeout(self, server, seconds);
    Py_XDECREF(seconds);
    if (result != 0) return -1;
    PyObject *next = PyObject_GetAttr(action, texts->continue_);
    if (next == NULL) return -1;
    if (next == server->state->python.UNSET)
        Py_DECREF(next);
    else
        *token = next;
    return 0;
}

/* Stop(reason, reply=): ends the process. Always -1, without an exception unless the object is broken. */
static int apply_stop(tr_process *self, tr_server *server, PyObject *action, const char *callback,
                      PyObject *message, tr_message *call) {
    tr_state *state = server->state;
    PyObject *object = PyObject_GetAttr(action, state->texts.reason);
    PyObject *reply = object == NULL ? NULL : PyObject_GetAttr(action, state->texts.reply);
    tr_reason *reason =
        reply == NULL ? NULL : tr_reason_from_python(state, tr_process_engine(self), object);
    bool answer = call != NULL && reply != NULL && reply != state->python.UNSET;
    if (reason != NULL)
        finish(self, server, reason, NULL, callback, message, call, answer ? reply : NULL);
    Py_XDECREF(object);
    Py_XDECREF(reply);
    return -1;
}

/* One result (stolen). `call` is the call to answer, or NULL. 0; or -1 with an exception, or without when
 * the process has ended. */
static int apply(tr_process *self, tr_server *server, PyObject *result, const char *callback,
                 PyObject *message, tr_message *call, PyObject **token) {
    tr_python *python = &server->state->python;
    PyObject *type = (PyObject *)Py_TYPE(result);
    int status = 0;
    if (type == python->Stop) {
        status = apply_stop(self, server, result, callback, message, call);
    } else if (type == python->NoReply || (type == python->Reply && call != NULL)) {
        status = emit_events(self, server, result, callback);
        if (status == 0 && type == python->Reply) {
            PyObject *value = PyObject_GetAttr(result, server->state->texts.value);
            if (value != NULL)
                tr_reply(tr_process_engine(self), call->from, call->ref, value);
            else
                status = -1;
        }
        if (status == 0) status = apply_then(self, server, result, token);
    } else if (result == python->NOREPLY) {
        status = 0;
    } else if (call != NULL) {
        tr_reply(tr_process_engine(self), call->from, call->ref, result);
        return 0;
    } else if (result != Py_None) {
        status = tr_raise_bad_return(server, callback, result);
    }
    Py_DECREF(result);
    return status;
}

/* The result of a callback, and of the continues it asks for. */
static int conclude(tr_process *self, tr_server *server, PyObject *result, const char *callback,
                    PyObject *message, tr_message *call) {
    PyObject *token = NULL, *subject = Py_XNewRef(message);
    int status = 0;
    for (;;) {
        if (suspends(server, &result)) {
            server->suspended = (tr_suspended){.what = SUSPENDED_RESULT,
                                               .callback = callback,
                                               .subject = Py_XNewRef(subject)};
            if (call != NULL) {
                server->suspended.from = call->from;
                server->suspended.ref = call->ref;
            }
            break;
        }
        if (tr_process_is_dead(self)) {
            Py_XDECREF(result);
            PyErr_Clear();
            status = -1;
            break;
        }
        if (result == NULL ||
            apply(self, server, result, callback, subject, call, &token) != 0) {
            if (PyErr_Occurred()) tr_server_crash(self, server, callback, subject);
            status = -1;
            break;
        }
        if (token == NULL) break;
        Py_XSETREF(subject, token);
        token = NULL;
        callback = "handle_continue";
        call = NULL;
        result = tr_server_call(server, server->state->texts.handle_continue, subject);
    }
    Py_XDECREF(token);
    Py_XDECREF(subject);
    return status;
}

int tr_server_result(tr_process *self, tr_server *server, PyObject *result, const char *callback,
                     PyObject *message) {
    if (result == Py_None && !tr_process_is_dead(self)) { /* the common case */
        Py_DECREF(result);
        return 0;
    }
    return conclude(self, server, result, callback, message, NULL);
}

/* ---- Messages -----------------------------------------------------------------------------------*/

enum { SERVER_CONTINUE = TR_SERVER_INIT + 1 };

static void handle_call(tr_process *self, tr_server *server, tr_message *message) {
    tr_state *state = server->state;
    PyObject *request = message->term;
    PyObject *from = tr_from_new(state, message->from, message->ref);
    PyObject *args[] = {server->instance, request, from};
    PyObject *result = from == NULL ? NULL
                                    : PyObject_VectorcallMethod(
                                          state->texts.handle_call, args,
                                          3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_XDECREF(from);
    conclude(self, server, result, "handle_call", request, message);
}

static void handle_info(tr_process *self, tr_server *server, tr_message *message) {
    tr_state *state = server->state;
    if (server->extend != NULL && server->extend->info(self, server, message)) {
        if (PyErr_Occurred()) tr_server_crash(self, server, "handle_info", NULL);
        return;
    }
    PyObject *object = tr_message_object(state, message);
    PyObject *result =
        object == NULL ? NULL : tr_server_call(server, state->texts.handle_info, object);
    tr_server_result(self, server, result, "handle_info", object);
    Py_XDECREF(object);
}

static void handle_exit(tr_process *self, tr_server *server, tr_message *message) {
    if (message->from != tr_process_parent(self)) {
        handle_info(self, server, message);
        return;
    }
    tr_reason *reason = message->reason;
    message->reason = NULL;
    tr_server_stop(self, server, reason); /* O131: the parent's signal ends it */
}

static void handle_timeout(tr_process *self, tr_server *server, tr_message *message) {
    if (server->timeout_ref == 0 || message->ref != server->timeout_ref) return; /* cancelled */
    cancel_timeout(server);
    PyObject *result = PyObject_CallMethodNoArgs(server->instance,
                                                 server->state->texts.handle_timeout);
    tr_server_result(self, server, result, "handle_timeout", NULL);
}

static void handle_continue(tr_process *self, tr_server *server, tr_message *message) {
    PyObject *token = message->term;
    PyObject *result = tr_server_call(server, server->state->texts.handle_continue, token);
    tr_server_result(self, server, result, "handle_continue", token);
}

static void handle_cast(tr_process *self, tr_server *server, tr_message *message) {
    PyObject *request = message->term;
    PyObject *result = tr_server_call(server, server->state->texts.handle_cast, request);
    tr_server_result(self, server, result, "handle_cast", request);
}

static void handle_stop(tr_process *self, tr_server *server, tr_message *message) {
    tr_reason *reason = message->reason;
    message->reason = NULL;
    tr_server_stop(self, server, reason);
}

static void handle_init(tr_process *self, tr_server *server, tr_message *message);

static void dispatch(tr_process *self, tr_server *server, tr_message *message) {
    switch (message->kind) {
    case TR_MESSAGE_CAST:
        handle_cast(self, server, message);
        return;
    case TR_MESSAGE_CALL:
        handle_call(self, server, message);
        return;
    case TR_MESSAGE_TERM:
    case TR_MESSAGE_DOWN:
        handle_info(self, server, message);
        return;
    case TR_MESSAGE_EXIT:
        handle_exit(self, server, message);
        return;
    case TR_MESSAGE_STOP:
        handle_stop(self, server, message);
        return;
    case SERVER_CONTINUE:
        handle_continue(self, server, message);
        return;
    default:
        if (server->extend != NULL && server->extend->message(self, server, message) != 0)
            tr_server_crash(self, server, "handle_info", NULL);
    }
}

const char *tr_server_callback_name(uint32_t kind) {
    switch (kind) {
    case TR_SERVER_INIT:
        return "init";
    case TR_MESSAGE_CAST:
        return "handle_cast";
    case TR_MESSAGE_CALL:
        return "handle_call";
    case TR_MESSAGE_TERM:
    case TR_MESSAGE_DOWN:
    case TR_MESSAGE_EXIT:
        return "handle_info";
    case TR_MESSAGE_STOP:
        return "terminate";
    case TR_MESSAGE_TIMEOUT:
        return "handle_timeout";
    case SERVER_CONTINUE:
        return "handle_continue";
    default:
        return "";
    }
}

static void stash(tr_server *server, tr_message *message) {
    tr_message *copy = tr_message_new(message->kind);
    if (copy == NULL) return; /* dropped: the sender of a message has no promise */
    *copy = *message;
    copy->next = server->stash;
    server->stash = copy;
    message->term = NULL;
    message->reason = NULL;
}

static void server_handle(tr_process *self, void *opaque, tr_message *message) {
    tr_server *server = opaque;
    if (message->kind == TR_MESSAGE_TIMEOUT) {
        handle_timeout(self, server, message);
    } else if (server->ready) {
        if (server->timer != NULL) cancel_timeout(server); /* any message does (O125) */
        dispatch(self, server, message);
        Py_XDECREF((PyObject *)message->term); /* here, where that is known to be allowed */
        message->term = NULL;
    } else if (message->kind == TR_SERVER_INIT) {
        handle_init(self, server, message);
    } else {
        stash(server, message);
    }
}

static void server_begin(tr_process *self, void *opaque) {
    (void)self;
    if (PyContext_Enter(((tr_server *)opaque)->context) != 0) PyErr_Clear();
}

static void server_end(tr_process *self, void *opaque) {
    (void)self;
    if (PyContext_Exit(((tr_server *)opaque)->context) != 0) PyErr_Clear();
}

/* Tell an instance that holds more than memory that its process is gone. Its own end may come later:
 * without the interpreter lock an object is freed by the thread that made it, which may be idle. */
static void let_go(tr_server *server) {
    PyObject *type, *value, *traceback;
    if (server->instance == NULL) return;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *function =
        PyObject_GetAttr((PyObject *)Py_TYPE(server->instance), server->state->texts.let_go);
    PyObject *done = function == NULL || function == Py_None
                         ? Py_XNewRef(function)
                         : PyObject_CallOneArg(function, server->instance);
    if (done == NULL) PyErr_WriteUnraisable(server->instance);
    Py_XDECREF(done);
    Py_XDECREF(function);
    PyErr_Restore(type, value, traceback);
}

void tr_server_release(void *opaque) {
    tr_server *server = opaque;
    let_go(server);
    cancel_timeout(server);
    suspended_clear(&server->suspended);
    if (server->owner != NULL) tr_owner_end(server->owner);
    Py_CLEAR(server->owner);
    if (server->extend != NULL && server->extend->release != NULL)
        server->extend->release(server);
    while (server->stash != NULL) {
        tr_message *next = server->stash->next;
        Py_XDECREF((PyObject *)server->stash->term);
        tr_reason_release(server->stash->reason);
        server->stash->term = NULL;
        server->stash->reason = NULL;
        tr_message_free(NULL, server->stash);
        server->stash = next;
    }
    Py_XDECREF(server->instance);
    Py_XDECREF(server->context);
    Py_XDECREF(server->args);
    Py_XDECREF(server->keywords);
    PyMem_RawFree(server);
}

const tr_behaviour tr_server_behaviour = {.name = "server",
                                          .begin = server_begin,
                                          .end = server_end,
                                          .handle = server_handle,
                                          .release = tr_server_release};

const tr_behaviour tr_extended_behaviour = {.name = "stage",
                                            .begin = server_begin,
                                            .end = server_end,
                                            .handle = server_handle,
                                            .release = tr_server_release};

/* ---- Init ---------------------------------------------------------------------------------------*/

tr_server *tr_server_new(tr_state *state, PyObject *class, PyObject *args, PyObject *keywords,
                         const tr_server_extension *extend, void *extension) {
    tr_server *server = PyMem_RawCalloc(1, sizeof *server);
    if (server == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    server->state = state;
    server->args = Py_NewRef(args);
    server->keywords = keywords == Py_None ? NULL : Py_NewRef(keywords);
    server->context = PyContext_CopyCurrent();
    server->instance =
        server->context == NULL ? NULL : PyObject_CallNoArgs(class);
    if (server->instance == NULL) {
        tr_server_release(server);
        return NULL;
    }
    server->extend = extend;
    server->extension = extension;
    return server;
}

/* Run init. True: the server runs. False: the process has ended, or *ignored. */
static PyObject *call_init(tr_server *server) {
    PyObject *init = PyObject_GetAttr(server->instance, server->state->texts.init);
    PyObject *result =
        init == NULL ? NULL : PyObject_Call(init, server->args, server->keywords);
    Py_XDECREF(init);
    Py_CLEAR(server->args);
    Py_CLEAR(server->keywords);
    return result;
}

/* Before everything that is in the mailbox; the token is stolen. */
static int continue_first(tr_process *self, PyObject *token) {
    tr_message *message = tr_message_new(SERVER_CONTINUE);
    if (message == NULL) {
        Py_DECREF(token);
        PyErr_NoMemory();
        return TR_INIT_FAILED;
    }
    message->term = token;
    tr_push_front(self, message);
    return TR_INIT_OK;
}

/* What init returned (stolen). TR_INIT_FAILED with an exception set, or with *reason (owned) for Stop. */
static int interpret_init(tr_process *self, tr_server *server, PyObject *result,
                          tr_reason **reason) {
    tr_state *state = server->state;
    tr_python *python = &state->python;
    PyObject *token = NULL;
    int status = TR_INIT_OK;
    if (server->extend != NULL) result = server->extend->started(self, server, result);
    if (result == NULL) return PyErr_Occurred() ? TR_INIT_FAILED : TR_INIT_OK;
    if (result == python->IGNORE) {
        status = TR_INIT_IGNORE;
    } else if ((PyObject *)Py_TYPE(result) == python->Stop) {
        PyObject *object = PyObject_GetAttr(result, state->texts.reason);
        if (object != NULL)
            *reason = tr_reason_from_python(state, tr_process_engine(self), object);
        Py_XDECREF(object);
        status = TR_INIT_FAILED;
    } else if ((PyObject *)Py_TYPE(result) == python->NoReply) {
        if (emit_events(self, server, result, "init") != 0 ||
            apply_then(self, server, result, &token) != 0)
            status = TR_INIT_FAILED;
        else if (token != NULL)
            status = continue_first(self, token);
    } else if (result != Py_None) {
        tr_raise_bad_return(server, "init", result);
        status = TR_INIT_FAILED;
    }
    Py_DECREF(result);
    return status;
}

/* Init as a whole, on the process; `result` (stolen) is what it returned, or NULL. TR_INIT_FAILED:
 * *reason (owned) is why, and the exception to log, if any, has been logged; the process has not ended
 * yet. */
static int run_init(tr_process *self, tr_server *server, PyObject *result, tr_reason **reason) {
    *reason = NULL;
    PyObject *exception;
    int status = result == NULL ? TR_INIT_FAILED : interpret_init(self, server, result, reason);
    server->ready = status == TR_INIT_OK;
    if (status != TR_INIT_FAILED || *reason != NULL) return status;
    *reason = tr_raised_reason(server->state, tr_process_engine(self), true, &exception);
    if (exception != NULL && !tr_process_is_dead(self) &&
        PyErr_GivenExceptionMatches(exception, PyExc_Exception))
        tr_log_crash(server->state, self, "init", NULL, exception);
    Py_XDECREF(exception);
    return status;
}

/* The failed process ends without touching a parent that traps exits: it hears of it by the exception
 * (O107), and for IGNORE (O101) nobody needs to hear. */
static void end_quietly(tr_process *self, tr_engine *engine, tr_reason *reason, bool ignored) {
    tr_pid parent = tr_process_parent(self);
    tr_info info;
    bool traps = parent != 0 && tr_process_info(engine, parent, &info) == TR_OK && info.trap_exit;
    if (parent != 0 && (traps || ignored)) tr_unlink(self, parent);
    tr_exit_self(self, reason);
}

int tr_server_init_here(tr_process *self, tr_server *server, tr_reason **reason) {
    tr_engine *engine = tr_process_engine(self);
    server_begin(self, server);
    int status = run_init(self, server, call_init(server), reason);
    server_end(self, server);
    if (status == TR_INIT_FAILED) {
        tr_reason_retain(*reason);
        end_quietly(self, engine, *reason, false);
    } else if (status == TR_INIT_IGNORE) {
        end_quietly(self, engine, tr_reason_constant(TR_NORMAL), true);
    } else if (tr_process_is_dead(self)) {
        *reason = tr_process_reason(self);
        status = TR_INIT_FAILED;
    }
    return status;
}

/* Init is over: answer the call that asked for it, None or IGNORE. `result` as for run_init. */
static void init_end(tr_process *self, tr_server *server, PyObject *result, tr_pid from,
                     tr_ref ref) {
    tr_engine *engine = tr_process_engine(self);
    tr_state *state = server->state;
    tr_reason *reason;
    while (server->stash != NULL) { /* before what came later; a continue comes before them */
        tr_message *next = server->stash->next;
        tr_push_front(self, server->stash);
        server->stash = next;
    }
    int status = run_init(self, server, result, &reason);
    if (status == TR_INIT_FAILED) {
        end_quietly(self, engine, reason, false);
        return;
    }
    PyObject *answer = status == TR_INIT_IGNORE ? state->python.IGNORE : Py_None;
    if (status == TR_INIT_IGNORE && tr_process_parent(self) != 0)
        tr_unlink(self, tr_process_parent(self));
    tr_reply(engine, from, ref, Py_NewRef(answer));
    if (status == TR_INIT_IGNORE) tr_exit_self(self, tr_reason_constant(TR_NORMAL));
}

/* Init on a worker, asked for by a call. */
static void handle_init(tr_process *self, tr_server *server, tr_message *message) {
    PyObject *result = call_init(server);
    if (suspends(server, &result))
        server->suspended = (tr_suspended){
            .what = SUSPENDED_INIT, .from = message->from, .ref = message->ref};
    else
        init_end(self, server, result, message->from, message->ref);
}

/* ---- On the event loop --------------------------------------------------------------------------*/

/* The suspended callback is done. */
static void server_resumed(tr_owner *owner, PyObject *value) {
    tr_server *server = owner->user;
    tr_process *self = owner->process;
    tr_suspended rest = server->suspended;
    tr_message call = {.from = rest.from, .ref = rest.ref};
    server->suspended = (tr_suspended){0};
    if (rest.what == SUSPENDED_RESULT)
        conclude(self, server, value, rest.callback, rest.subject, rest.ref != 0 ? &call : NULL);
    else if (rest.what == SUSPENDED_TERMINATE)
        finish_end(self, server, value, &rest);
    else
        init_end(self, server, value, rest.from, rest.ref);
    suspended_clear(&rest);
    tr_step(self); /* the next message */
}

static int server_step(tr_process *self, void *opaque, uint64_t *deadline) {
    tr_server *server = opaque;
    (void)deadline;
    if (server->owner->process == NULL && tr_owner_begin(server->owner, self) != 0) {
        PyErr_Clear();
        return TR_STEP_MESSAGE;
    }
    if (server->suspended.what == 0) {
        tr_cursor cursor = {0};
        tr_message *message = tr_receive(self, NULL, NULL, &cursor);
        if (message == NULL) return TR_STEP_MESSAGE;
        server_handle(self, server, message);
        tr_message_free(tr_process_engine(self), message);
    }
    if (server->suspended.what == 0) return tr_mailbox_is_empty(self) ? TR_STEP_MESSAGE : TR_STEP_AGAIN;
    return tr_owner_mail(server->owner) ? TR_STEP_MESSAGE : TR_STEP_DEADLINE;
}

const tr_behaviour tr_async_server_behaviour = {.name = "server",
                                                .begin = server_begin,
                                                .end = server_end,
                                                .step = server_step,
                                                .release = tr_server_release};

int tr_server_join_loop(tr_server *server) {
    server->owner = tr_owner_new(server->state, server->context, server_resumed, server);
    return server->owner == NULL ? -1 : 0;
}
