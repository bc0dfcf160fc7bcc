/* route_dispatcher.c: RouteDispatcher(names), which sends each message to the subscription of its batcher:
 * the template from which a stage makes the core's route dispatcher (tailrace_pipeline.h).
 *
 * One slot per name. A subscription says whose it is by the option `partition`. A message that names
 * no batcher of the pipeline cannot come here: the message loop has failed it.
 *
 * A template may serve any number of stages; each dispatcher keeps its template alive. The functions
 * below the type are called by the stage that owns the dispatcher, attached. */
#include "message.h"

#include "stage.h"
#include "tailrace_pipeline.h"

/* Immutable: any number of threads may read it. */
typedef struct route_template {
    tr_dispatcher_template base;
    PyObject *module;        /* borrowed: the type keeps it alive */
    tr_message_state *state; /* of the module */
    PyObject *names;         /* owned tuple of str */
} route_template;

/* ---- The host's side of a dispatcher -------------------------------------------------------------*/

static size_t slot_of(route_template *self, PyObject *name) {
    Py_ssize_t slots = PyTuple_GET_SIZE(self->names);
    for (Py_ssize_t i = 0; i < slots; i++)
        if (PyTuple_GET_ITEM(self->names, i) == name)
            return (size_t)i;
    for (Py_ssize_t i = 0; i < slots; i++)
        if (PyUnicode_Check(name) && PyUnicode_Compare(PyTuple_GET_ITEM(self->names, i), name) == 0)
            return (size_t)i;
    return (size_t)slots;
}

static size_t choose(void *context, tr_term list, size_t index) {
    route_template *self = context;
    PyObject *item = tr_list_item(list, (Py_ssize_t)index);
    size_t slot = 0;
    if (item && is_message(self->state, item)) {
        PyObject *name = tr_message_batcher((message_object *)item);
        slot = slot_of(self, name);
        Py_DECREF(name);
    }
    Py_XDECREF(item);
    PyErr_Clear();
    return slot < (size_t)PyTuple_GET_SIZE(self->names) ? slot : 0;
}

static size_t find(void *context, tr_term options, tr_reason **refusal) {
    route_template *self = context;
    tr_state *state = tr_state_of(self->module);
    PyObject *name = PyMapping_GetItemString(options, "partition");
    PyErr_Clear();
    size_t slot = name ? slot_of(self, name) : (size_t)PyTuple_GET_SIZE(self->names);
    if (slot < (size_t)PyTuple_GET_SIZE(self->names)) {
        Py_DECREF(name);
        return slot;
    }
    PyObject *error = PyUnicode_FromFormat("partition: expected one of %R, got %R", self->names,
                                           name ? name : Py_None);
    tr_engine *engine = error ? tr_engine_get(state) : NULL;
    if (engine)
        *refusal = tr_reason_from_python(state, engine, error);
    Py_XDECREF(error);
    Py_XDECREF(name);
    PyErr_Clear();
    return slot;
}

static void release(void *context) {
    Py_DECREF((PyObject *)context);
}

/* ---- The template --------------------------------------------------------------------------------*/

static tr_dispatcher *make(PyObject *object) {
    route_template *self = (route_template *)object;
    tr_route_options options = {.slots = (size_t)PyTuple_GET_SIZE(self->names),
                                .context = self,
                                .choose = choose,
                                .find = find,
                                .free = release};
    tr_dispatcher *made = tr_route_dispatcher_new(&options);
    if (!made) {
        PyErr_NoMemory();
        return NULL;
    }
    Py_INCREF(self);
    return made;
}

static PyObject *template_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"names", NULL};
    PyObject *names;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:RouteDispatcher", keywords, &names))
        return NULL;
    names = PySequence_Tuple(names);
    if (!names)
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(names, i))) {
            PyErr_Format(PyExc_TypeError, "names: expected str, got %R", PyTuple_GET_ITEM(names, i));
            Py_DECREF(names);
            return NULL;
        }
    }
    route_template *self =
        PyTuple_GET_SIZE(names) > 0 ? (route_template *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "names: expected at least one");
        Py_DECREF(names);
        return NULL;
    }
    self->base.make = make;
    self->module = PyType_GetModule(type);
    self->state = tr_message_state_of(self->module);
    self->names = names;
    return (PyObject *)self;
}

static void template_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((route_template *)object)->names);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot template_slots[] = {
    {Py_tp_doc, "RouteDispatcher(names)\n--\n\nEach message goes to the subscription whose option "
                "`partition` is its batcher."},
    {Py_tp_new, template_new},
    {Py_tp_dealloc, template_dealloc},
    {0, NULL}};

static PyType_Spec template_spec = {
    .name = "tailrace._core.RouteDispatcher",
    .basicsize = sizeof(route_template),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = template_slots,
};

int tr_route_dispatcher_init(PyObject *module, tr_message_state *state) {
    PyObject *base = (PyObject *)tr_state_of(module)->stage->DispatcherTemplate;
    state->route_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &template_spec, base);
    return state->route_type ? PyModule_AddType(module, state->route_type) : -1;
}
