/* stage.c: a server that is a stage: its start, its protocol messages, the events of its callbacks,
 * its end. */
#include "stage.h"

static py_stage *of(tr_server *server) { return server->extension; }

int tr_stage_settle(py_stage *self, int error) {
    if (tr_process_is_dead(self->self)) {
        PyErr_Clear();
        return -1;
    }
    if (PyErr_Occurred()) return -1;
    if (error != TR_OK) {
        tr_raise_code(self->state, error);
        return -1;
    }
    tr_reason *stop = tr_stage_stopping(self->stage);
    if (stop == NULL) return 0;
    tr_server_stop(self->self, self->server, tr_reason_retain(stop));
    return -1;
}

/* ---- Start ---------------------------------------------------------------------------------------*/

/* A DemandDispatcher comes as the tuple (max_demand or 0, shuffle, seed). */
static tr_dispatcher *make_dispatcher(tr_state *state, PyObject *object) {
    if (PyObject_TypeCheck(object, state->stage->DispatcherTemplate))
        return ((tr_dispatcher_template *)object)->make(object);
    unsigned long long max_demand, seed;
    int shuffle;
    if (!PyArg_ParseTuple(object, "KpK", &max_demand, &shuffle, &seed)) return NULL;
    tr_demand_options options = {.max_demand = max_demand, .shuffle = shuffle, .seed = seed};
    tr_dispatcher *dispatcher = tr_demand_dispatcher_new(&options);
    if (dispatcher == NULL) PyErr_NoMemory();
    return dispatcher;
}

static int make_stage(py_stage *self, PyObject *dispatcher, tr_stage_options *options) {
    if (options->type != TR_CONSUMER) {
        options->dispatcher = make_dispatcher(self->state, dispatcher);
        if (options->dispatcher == NULL) return -1;
    }
    tr_words words = tr_stage_words(self);
    int error = tr_stage_new(options, &tr_stage_host_ops, &words, &self->stage);
    if (error == TR_OK) return 0;
    tr_raise_code(self->state, error);
    return -1;
}

/* Make the stage and its subscriptions out of what `resolve` says. 0, or -1 with an exception. */
static int begin(tr_process *process, tr_server *server, PyObject *resolved) {
    PyObject *dispatcher, *subscribe_to, *result;
    int type, keep_first, accumulate;
    unsigned long long size;
    if (!PyArg_ParseTuple(resolved, "iOKppOO", &type, &dispatcher, &size, &keep_first, &accumulate,
                          &subscribe_to, &result))
        return -1;
    py_stage *self = PyMem_Calloc(1, sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->state = server->state;
    self->server = server;
    self->self = process;
    self->buffer_size = size;
    server->extension = self;
    tr_stage_options options = {.type = (tr_stage_type)type,
                                .buffer_size = size,
                                .buffer_keep_first = keep_first,
                                .accumulate = accumulate};
    if (make_stage(self, dispatcher, &options) != 0) return -1;
    PyObject *done = PyObject_CallFunctionObjArgs(server->state->stage->python.subscribe,
                                                  server->instance, subscribe_to, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Options come from the class, from the start and from init: `resolve` makes one set of them, and what
 * is left of init's result for the server. */
static PyObject *started(tr_process *process, tr_server *server, PyObject *result) {
    tr_python *python = &server->state->python;
    if (result == python->IGNORE || (PyObject *)Py_TYPE(result) == python->Stop) return result;
    PyObject *resolved = PyObject_CallFunctionObjArgs(server->state->stage->python.resolve,
                                                      server->instance, result, NULL);
    Py_DECREF(result);
    if (resolved == NULL) return NULL;
    PyObject *rest = NULL;
    if (begin(process, server, resolved) == 0)
        rest = Py_NewRef(PyTuple_GET_ITEM(resolved, PyTuple_GET_SIZE(resolved) - 1));
    else if (tr_process_is_dead(process))
        PyErr_Clear(); /* a callback has ended it, for a reason of its own */
    Py_DECREF(resolved);
    return rest;
}

static void release(tr_server *server) {
    py_stage *self = of(server);
    if (self == NULL) return; /* init failed */
    if (self->stage != NULL) tr_stage_free(self->stage);
    PyMem_Free(self);
}

/* ---- Messages ------------------------------------------------------------------------------------*/

static int receive(py_stage *self, tr_message *message) {
    tr_stage *stage = self->stage;
    tr_batch batch = {.list = message->term,
                      .offset = (size_t)(message->number >> 32),
                      .count = (size_t)(message->number & UINT32_MAX)};
    switch (message->kind) {
    case STAGE_EVENTS:
        message->term = NULL;
        return tr_stage_on_events(stage, message->from, message->ref, batch);
    case STAGE_ASK:
        return tr_stage_on_ask(stage, message->from, message->ref, message->number);
    case STAGE_SUBSCRIBE:
        return tr_stage_on_subscribe(stage, message->from, message->ref, message->term);
    case STAGE_CANCEL:
        return tr_stage_on_cancel(stage, message->ref, message->reason);
    case STAGE_CANCELLED:
        return tr_stage_on_cancelled(stage, message->ref, message->reason);
    default:
        return TR_OK;
    }
}

static int on_message(tr_process *process, tr_server *server, tr_message *message) {
    (void)process;
    py_stage *self = of(server);
    if (message->kind == STAGE_REQUEST) return tr_stage_on_request(self, message);
    return tr_stage_settle(self, receive(self, message));
}

/* The end of a process that a subscription watches is the stage's; everything else is handle_info's. */
static bool on_info(tr_process *process, tr_server *server, tr_message *message) {
    (void)process;
    py_stage *self = of(server);
    if (message->kind != TR_MESSAGE_DOWN) return false;
    bool known;
    int error = tr_stage_on_down(self->stage, message->ref, message->reason, &known);
    if (known) tr_stage_settle(self, error);
    return known;
}

static int emit(tr_process *process, tr_server *server, PyObject *events, const char *callback) {
    (void)process;
    py_stage *self = of(server);
    tr_batch batch;
    if (tr_stage_batch_of(self, events, callback, &batch) != 0) return -1;
    if (self->outcome != NULL) return tr_stage_append(&self->outcome->events, batch);
    return tr_stage_settle(self, tr_stage_emit(self->stage, batch));
}

const tr_server_extension tr_stage_extension = {
    .started = started,
    .message = on_message,
    .info = on_info,
    .emit = emit,
    .ending = NULL,
    .release = release,
};

/* ---- The module's share --------------------------------------------------------------------------*/

static const char *const texts[] = {
    "handle_demand", "handle_events", "handle_subscribe", "handle_cancel", "format_discarded",
    "producer", "consumer", "automatic", "manual", "cancel", "down",
    "unknown_subscription", "not_a_producer", "duplicated_subscription", "already_subscribed",
};
enum { TEXTS = sizeof texts / sizeof *texts, NAMES = sizeof(tr_stage_python) / sizeof(PyObject *) };
static_assert(sizeof(tr_stage_texts) == TEXTS * sizeof(PyObject *), "texts differ");

static void template_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot template_slots[] = {
    {Py_tp_doc, "A dispatcher written in C, to be copied by each stage that gets it."},
    {Py_tp_dealloc, template_dealloc},
    {0, NULL},
};

static PyType_Spec template_spec = {
    .name = "tailrace._core.DispatcherTemplate",
    .basicsize = sizeof(tr_dispatcher_template),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = template_slots,
};

int tr_stage_init_module(PyObject *module) {
    struct tr_stage_state *stage = PyMem_Calloc(1, sizeof *stage);
    if (stage == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    tr_state_of(module)->stage = stage;
    PyObject **slots = (PyObject **)&stage->texts;
    for (int i = 0; i < TEXTS; i++)
        if ((slots[i] = PyUnicode_InternFromString(texts[i])) == NULL) return -1;
    stage->DispatcherTemplate =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &template_spec, NULL);
    if (stage->DispatcherTemplate == NULL || PyModule_AddType(module, stage->DispatcherTemplate) != 0)
        return -1;
    PyObject *itertools = PyImport_ImportModule("itertools");
    stage->islice = itertools == NULL ? NULL : PyObject_GetAttrString(itertools, "islice");
    Py_XDECREF(itertools);
    return stage->islice == NULL ? -1 : PyModule_AddFunctions(module, tr_stage_functions);
}

int tr_stage_traverse(struct tr_stage_state *stage, visitproc visit, void *arg) {
    if (stage == NULL) return 0;
    PyObject **python = (PyObject **)&stage->python;
    for (int i = 0; i < NAMES; i++) Py_VISIT(python[i]);
    Py_VISIT(stage->DispatcherTemplate);
    Py_VISIT(stage->islice);
    return 0;
}

void tr_stage_clear(struct tr_stage_state *stage) {
    if (stage == NULL) return;
    PyObject **python = (PyObject **)&stage->python;
    for (int i = 0; i < NAMES; i++) Py_CLEAR(python[i]);
    Py_CLEAR(stage->DispatcherTemplate);
    Py_CLEAR(stage->islice);
}

void tr_stage_free_state(struct tr_stage_state *stage) {
    if (stage == NULL) return;
    tr_stage_clear(stage);
    PyObject **slots = (PyObject **)&stage->texts;
    for (int i = 0; i < TEXTS; i++) Py_CLEAR(slots[i]);
    PyMem_Free(stage);
}
