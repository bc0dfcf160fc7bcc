/* stage_request.c: what the package's _stages.py is made of: starting stages, asking them for things
 * from outside, and the functions that carry such a request out inside the stage's process.
 *
 * From outside (any thread): start_stage, stage_check, stage_ask, stage_cancel, stage_call,
 * stage_cast.
 * Inside, while a request or the start is handled: stage_subscribe, stage_unsubscribe, stage_info,
 * stage_accumulate, stage_buffered, stage_stop. They refuse any other caller. */
#include "stage.h"

static PyObject *configure_stages(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"Subscription", "resolve", "subscribe", "request", "log", NULL};
    tr_stage_python given = {0}, *python = &tr_state_of(module)->stage->python;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "$OOOOO:configure_stages", names,
                                     &given.Subscription, &given.resolve, &given.subscribe,
                                     &given.request, &given.log))
        return NULL;
    Py_XSETREF(python->Subscription, Py_NewRef(given.Subscription));
    Py_XSETREF(python->resolve, Py_NewRef(given.resolve));
    Py_XSETREF(python->subscribe, Py_NewRef(given.subscribe));
    Py_XSETREF(python->request, Py_NewRef(given.request));
    Py_XSETREF(python->log, Py_NewRef(given.log));
    Py_RETURN_NONE;
}

static PyObject *start_stage(PyObject *module, PyObject *args) {
    return tr_server_start(module, args, &tr_stage_extension, NULL);
}

static PyObject *begin_stage(PyObject *module, PyObject *args) {
    return tr_server_begin(module, args, &tr_stage_extension, NULL);
}

/* ---- From outside --------------------------------------------------------------------------------*/

/* The pid of a Pid of this engine; 0 for one of an engine that is gone. */
static int pid_of(tr_state *state, tr_engine *engine, PyObject *object, tr_pid *pid) {
    PyObject *name;
    return tr_destination(state, engine, object, pid, &name);
}

static int ref_of(tr_state *state, PyObject *object, const char *argument, tr_ref *ref) {
    if (Py_TYPE(object) != state->Ref) {
        PyErr_Format(PyExc_TypeError, "%s: expected a Ref, got %R", argument, object);
        return -1;
    }
    tr_ref_object *found = (tr_ref_object *)object;
    *ref = found->engine == tr_engine_id_of(state) ? found->ref : 0;
    return 0;
}

/* Send ASK or CANCEL for the subscription `tag` to its producing end; takes the reason over. */
static PyObject *send_to_producer(tr_state *state, tr_engine *engine, PyObject *producer,
                                  PyObject *tag, uint32_t kind, uint64_t number,
                                  tr_reason *reason) {
    tr_pid pid;
    tr_ref ref;
    tr_process *self = tr_self_or_null(engine);
    bool good = tr_check_alive(state, engine) == 0 && pid_of(state, engine, producer, &pid) == 0 &&
                ref_of(state, tag, "tag", &ref) == 0;
    tr_message *message = good ? tr_message_new(kind) : NULL;
    if (message == NULL) {
        tr_reason_release(reason);
        return good ? PyErr_NoMemory() : NULL;
    }
    message->from = self == NULL ? 0 : tr_process_pid(self);
    message->ref = ref;
    message->number = number;
    message->reason = reason;
    if (pid != 0 && ref != 0)
        tr_send_message(engine, pid, message);
    else
        tr_message_free(engine, message);
    Py_RETURN_NONE;
}

static PyObject *stage_ask(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *producer, *tag;
    unsigned long long count;
    if (!PyArg_ParseTuple(args, "OOK:stage_ask", &producer, &tag, &count)) return NULL;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL) return NULL;
    return send_to_producer(state, engine, producer, tag, STAGE_ASK, count, NULL);
}

static PyObject *stage_cancel(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *producer, *tag, *why;
    if (!PyArg_ParseTuple(args, "OOO:stage_cancel", &producer, &tag, &why)) return NULL;
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL) return NULL;
    tr_reason *reason = tr_reason_from_python(state, engine, why);
    if (reason == NULL) return NULL;
    return send_to_producer(state, engine, producer, tag, STAGE_CANCEL, 0, reason);
}

/* Whether `pid` is a stage's process, or dead. A process never changes what it is. */
static bool may_be_stage(tr_engine *engine, tr_pid pid) {
    tr_process *process = tr_process_acquire(engine, pid);
    if (process == NULL) return true;
    bool answer = tr_process_behaviour(process) == &tr_extended_behaviour;
    tr_process_release(process);
    return answer;
}

/* Find a stage; TypeError for another process. *pid is 0 if there is no such process. */
static tr_engine *stage_destination(tr_state *state, const char *argument, PyObject *dest,
                                    tr_pid *pid) {
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    if (pid_of(state, engine, dest, pid) != 0) return NULL;
    if (*pid == 0 || may_be_stage(engine, *pid)) return engine;
    PyErr_Format(PyExc_TypeError, "%s: expected a stage, got the other process %R", argument, dest);
    return NULL;
}

static PyObject *stage_check(PyObject *module, PyObject *args) {
    const char *argument;
    PyObject *dest;
    tr_pid pid;
    if (!PyArg_ParseTuple(args, "sO:stage_check", &argument, &dest)) return NULL;
    if (stage_destination(tr_state_of(module), argument, dest, &pid) == NULL) return NULL;
    Py_RETURN_NONE;
}

static PyObject *stage_call(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *dest, *request, *timeout;
    if (!PyArg_ParseTuple(args, "OOO:stage_call", &dest, &request, &timeout)) return NULL;
    tr_pid pid;
    tr_engine *engine = stage_destination(state, "stage", dest, &pid);
    if (engine == NULL) return NULL;
    return tr_do_request(state, dest, STAGE_REQUEST, request, timeout);
}

static PyObject *stage_cast(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *dest, *request;
    if (!PyArg_ParseTuple(args, "OO:stage_cast", &dest, &request)) return NULL;
    tr_pid pid;
    tr_engine *engine = stage_destination(state, "stage", dest, &pid);
    if (engine == NULL) return NULL;
    if (pid != 0 && tr_send(engine, pid, STAGE_REQUEST, Py_NewRef(request)) == TR_ENOMEM)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* ---- Inside --------------------------------------------------------------------------------------*/

int tr_stage_on_request(py_stage *self, tr_message *message) {
    PyObject *request = message->term;
    PyObject *reply = PyObject_CallFunctionObjArgs(self->state->stage->python.request,
                                                   self->server->instance, request, NULL);
    if (tr_process_is_dead(self->self) || reply == NULL || message->from == 0)
        Py_XDECREF(reply);
    else
        tr_reply(tr_process_engine(self->self), message->from, message->ref, reply);
    return tr_stage_settle(self, TR_OK);
}

/* The stage whose process is the caller. NULL with an exception. */
static py_stage *current(tr_state *state) {
    tr_engine *engine = tr_engine_get(state);
    if (engine == NULL || tr_check_alive(state, engine) != 0) return NULL;
    tr_process *process = tr_self_or_null(engine);
    tr_server *server = NULL;
    if (process != NULL && tr_process_behaviour(process) == &tr_extended_behaviour)
        server = tr_process_state(process);
    if (server != NULL && server->extend == &tr_stage_extension && server->extension != NULL)
        return server->extension;
    PyErr_SetString(PyExc_RuntimeError, "not called by a stage");
    return NULL;
}

/* The result of a function below. */
static PyObject *done(py_stage *self, int error) {
    if (tr_process_is_dead(self->self)) PyErr_Clear();
    if (PyErr_Occurred()) return NULL;
    if (error != TR_OK) return tr_raise_code(self->state, error);
    Py_RETURN_NONE;
}

static PyObject *stage_subscribe(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *producer, *words;
    tr_subscribe_options options;
    unsigned long long max, min;
    if (!PyArg_ParseTuple(args, "OO!KKi:stage_subscribe", &producer, &PyDict_Type, &words, &max,
                          &min, &options.cancel))
        return NULL;
    options.max_demand = max;
    options.min_demand = min;
    py_stage *self = current(state);
    tr_engine *engine = self == NULL ? NULL : tr_process_engine(self->self);
    tr_pid pid;
    if (engine == NULL || pid_of(state, engine, producer, &pid) != 0) return NULL;
    tr_ref tag = tr_ref_new(engine);
    int error = tr_stage_subscribe(self->stage, pid, tag, &options, words);
    tr_subscription *made = tr_stage_find(self->stage, tag);
    if (error != TR_OK || made == NULL) return done(self, error);
    return tr_stage_subscription(self, made);
}

static PyObject *stage_unsubscribe(PyObject *module, PyObject *args) {
    tr_state *state = tr_state_of(module);
    PyObject *tag, *why;
    tr_ref ref;
    if (!PyArg_ParseTuple(args, "OO:stage_unsubscribe", &tag, &why)) return NULL;
    py_stage *self = current(state);
    if (self == NULL || ref_of(state, tag, "old", &ref) != 0) return NULL;
    tr_reason *reason = tr_reason_from_python(state, tr_process_engine(self->self), why);
    if (reason == NULL) return NULL;
    int error = tr_stage_unsubscribe(self->stage, ref, reason);
    tr_reason_release(reason);
    return done(self, error);
}

static PyObject *stage_info(PyObject *module, PyObject *message) {
    py_stage *self = current(tr_state_of(module));
    if (self == NULL) return NULL;
    return done(self, tr_stage_info(self->stage, Py_NewRef(message)));
}

static PyObject *stage_accumulate(PyObject *module, PyObject *args) {
    int accumulate = -1;
    if (!PyArg_ParseTuple(args, "|p:stage_accumulate", &accumulate)) return NULL;
    py_stage *self = current(tr_state_of(module));
    if (self == NULL) return NULL;
    if (accumulate >= 0) return done(self, tr_stage_set_accumulate(self->stage, accumulate));
    return PyBool_FromLong(tr_stage_accumulates(self->stage));
}

static PyObject *stage_buffered(PyObject *module, PyObject *unused) {
    (void)unused;
    py_stage *self = current(tr_state_of(module));
    return self == NULL ? NULL : PyLong_FromUnsignedLongLong(tr_stage_buffered(self->stage));
}

static PyObject *stage_stop(PyObject *module, PyObject *why) {
    tr_state *state = tr_state_of(module);
    py_stage *self = current(state);
    if (self == NULL) return NULL;
    tr_reason *reason = tr_reason_from_python(state, tr_process_engine(self->self), why);
    if (reason == NULL) return NULL;
    tr_stage_stop(self->stage, reason);
    Py_RETURN_NONE;
}

static PyObject *stage_tag(PyObject *module, PyObject *unused) {
    (void)unused;
    tr_state *state = tr_state_of(module);
    tr_engine *engine = tr_engine_get(state);
    return engine == NULL ? NULL : tr_ref_object_new(state, tr_ref_new(engine));
}

PyMethodDef tr_stage_functions[] = {
    {"configure_stages", (PyCFunction)(void (*)(void))configure_stages,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"start_stage", start_stage, METH_VARARGS, "As start_server."},
    {"begin_stage", begin_stage, METH_VARARGS, "As begin_server."},
    {"stage_ask", stage_ask, METH_VARARGS, "stage_ask(producer, tag, count)"},
    {"stage_cancel", stage_cancel, METH_VARARGS, "stage_cancel(producer, tag, reason)"},
    {"stage_check", stage_check, METH_VARARGS, "stage_check(argument's name, stage)"},
    {"stage_call", stage_call, METH_VARARGS, "stage_call(stage, request, timeout)"},
    {"stage_cast", stage_cast, METH_VARARGS, "stage_cast(stage, request)"},
    {"stage_subscribe", stage_subscribe, METH_VARARGS,
     "stage_subscribe(producer, options, max_demand, min_demand, cancel) -> Subscription"},
    {"stage_unsubscribe", stage_unsubscribe, METH_VARARGS, "stage_unsubscribe(tag, reason)"},
    {"stage_info", stage_info, METH_O, "stage_info(message)"},
    {"stage_accumulate", stage_accumulate, METH_VARARGS, "stage_accumulate([accumulate])"},
    {"stage_stop", stage_stop, METH_O, "stage_stop(reason): end once the request is answered"},
    {"stage_tag", stage_tag, METH_NOARGS, "stage_tag() -> Ref: of no subscription"},
    {"stage_buffered", stage_buffered, METH_NOARGS, "stage_buffered() -> int"},
    {NULL, NULL, 0, NULL},
};
