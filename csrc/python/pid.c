/* pid.c: Pid, Ref, From and Timer.
 *
 * A Pid is two numbers, the process and the engine it belongs to: weak, immutable, without references
 * to other objects, so it takes no part in garbage collection and may be shared by threads freely.
 * Ref and From likewise. A Timer owns one reference to the core's timer. The types are heap types of the
 * module; methods find the state through their defining class. */
#include "docs.h"
#include "state.h"

#define STATE(type) ((tr_state *)PyType_GetModuleState(type))

static tr_state *state_of(PyObject *object) {
    return STATE(Py_TYPE(object)); /* none of the types can be subclassed */
}

static Py_hash_t hash_number(uint64_t number) {
    Py_hash_t hash = (Py_hash_t)(number * 0x9E3779B97F4A7C15u);
    return hash == -1 ? -2 : hash;
}

static void dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *compare_numbers(uint64_t left, uint64_t right, int operation) {
    Py_RETURN_RICHCOMPARE(left, right, operation);
}

/* ---- Pid ----------------------------------------------------------------------------------------*/

PyObject *tr_pid_new(tr_state *state, tr_pid pid) {
    tr_pid_object *object = PyObject_New(tr_pid_object, state->Pid);
    if (object == NULL) return NULL;
    object->pid = pid;
    object->engine = tr_engine_id_of(state);
    return (PyObject *)object;
}

static PyObject *pid_repr(PyObject *object) {
    tr_pid_object *self = (tr_pid_object *)object;
    tr_state *state = state_of(object);
    tr_engine *engine = atomic_load(&state->engine);
    unsigned index = (unsigned)(uint32_t)self->pid, turn = (unsigned)(self->pid >> 32) - 1;
    char name[256];
    if (engine != NULL && self->engine == tr_engine_id_of(state) &&
        tr_name_of(engine, self->pid, name, sizeof name)) {
        PyObject *text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
        PyObject *repr =
            text == NULL ? NULL : PyUnicode_FromFormat("<pid %u.%u \"%U\">", turn, index, text);
        Py_XDECREF(text);
        return repr;
    }
    return PyUnicode_FromFormat("<pid %u.%u>", turn, index);
}

static Py_hash_t pid_hash(PyObject *self) { return hash_number(((tr_pid_object *)self)->pid); }

static PyObject *pid_compare(PyObject *left, PyObject *right, int operation) {
    if (Py_TYPE(left) != Py_TYPE(right)) Py_RETURN_NOTIMPLEMENTED;
    tr_pid_object *a = (tr_pid_object *)left, *b = (tr_pid_object *)right;
    if (a->engine != b->engine) return compare_numbers(a->engine, b->engine, operation);
    return compare_numbers(a->pid, b->pid, operation);
}

static PyObject *pid_reduce(PyObject *object, PyObject *unused) {
    (void)unused;
    tr_pid_object *self = (tr_pid_object *)object;
    PyObject *restore = PyObject_GetAttrString(state_of(object)->module, "restore_pid");
    if (restore == NULL) return NULL;
    return Py_BuildValue("N(KK)", restore, (unsigned long long)self->pid,
                         (unsigned long long)self->engine);
}

static PyObject *pid_send(PyObject *self, PyObject *message) {
    return tr_do_send(state_of(self), self, TR_MESSAGE_TERM, message);
}

static PyObject *pid_cast(PyObject *self, PyObject *request) {
    return tr_do_send(state_of(self), self, TR_MESSAGE_CAST, request);
}

static PyObject *pid_call(PyObject *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"request", "timeout", NULL};
    PyObject *request, *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:call", names, &request, &timeout))
        return NULL;
    return tr_do_call(state_of(self), self, request, timeout);
}

static PyObject *pid_stop(PyObject *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"reason", "timeout", NULL};
    PyObject *reason = NULL, *timeout = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|OO:stop", names, &reason, &timeout))
        return NULL;
    return tr_do_stop(state_of(self), self, reason, timeout);
}

/* The coroutine function `function` with this Pid as its first argument. */
static PyObject *with_self(PyObject *function, PyObject *self, PyObject *const *args,
                           Py_ssize_t count, PyObject *names) {
    PyObject *stack[8];
    Py_ssize_t total = count + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    if (total > 7) {
        PyErr_SetString(PyExc_TypeError, "too many arguments");
        return NULL;
    }
    stack[0] = self;
    for (Py_ssize_t i = 0; i < total; i++) stack[i + 1] = args[i];
    return PyObject_Vectorcall(function, stack, (size_t)count + 1, names);
}

static PyObject *pid_acall(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *names) {
    return with_self(state_of(self)->python.acall, self, args, count, names);
}

static PyObject *pid_astop(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *names) {
    return with_self(state_of(self)->python.astop, self, args, count, names);
}

static PyObject *pid_exit(PyObject *self, PyObject *reason) {
    return tr_do_exit(state_of(self), self, reason);
}

static PyObject *pid_info(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyObject_CallOneArg(state_of(self)->python.process_info, self);
}

static PyObject *pid_alive(PyObject *object, void *unused) {
    (void)unused;
    tr_pid_object *self = (tr_pid_object *)object;
    tr_state *state = state_of(object);
    tr_engine *engine = atomic_load(&state->engine);
    bool ours = engine != NULL && self->engine == tr_engine_id_of(state);
    return PyBool_FromLong(ours && tr_alive(engine, self->pid));
}

static PyObject *pid_name(PyObject *object, void *unused) {
    (void)unused;
    tr_pid_object *self = (tr_pid_object *)object;
    tr_state *state = state_of(object);
    tr_engine *engine = atomic_load(&state->engine);
    char name[256];
    if (engine == NULL || self->engine != tr_engine_id_of(state) ||
        !tr_name_of(engine, self->pid, name, sizeof name))
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
}

static PyMethodDef pid_methods[] = {
    {"send", pid_send, METH_O, tr_doc_pid_send},
    {"cast", pid_cast, METH_O, tr_doc_pid_cast},
    {"call", (PyCFunction)(void (*)(void))pid_call, METH_VARARGS | METH_KEYWORDS, tr_doc_pid_call},
    {"stop", (PyCFunction)(void (*)(void))pid_stop, METH_VARARGS | METH_KEYWORDS, tr_doc_pid_stop},
    {"acall", (PyCFunction)(void (*)(void))pid_acall, METH_FASTCALL | METH_KEYWORDS,
     tr_doc_pid_acall},
    {"astop", (PyCFunction)(void (*)(void))pid_astop, METH_FASTCALL | METH_KEYWORDS,
     tr_doc_pid_astop},
    {"exit", pid_exit, METH_O, tr_doc_pid_exit},
    {"info", pid_info, METH_NOARGS, tr_doc_pid_info},
    {"__reduce__", pid_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pid_properties[] = {
    {"alive", pid_alive, NULL, tr_doc_pid_alive, NULL},
    {"name", pid_name, NULL, tr_doc_pid_name, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pid_slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, pid_repr},
    {Py_tp_hash, pid_hash},
    {Py_tp_richcompare, pid_compare},
    {Py_tp_methods, pid_methods},
    {Py_tp_getset, pid_properties},
    {Py_tp_doc, (void *)tr_doc_pid},
    {0, NULL},
};

static PyType_Spec pid_spec = {
    .name = "tailrace.Pid",
    .basicsize = sizeof(tr_pid_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pid_slots,
};

/* ---- Ref and From -------------------------------------------------------------------------------*/

PyObject *tr_ref_object_new(tr_state *state, tr_ref ref) {
    tr_ref_object *object = PyObject_New(tr_ref_object, state->Ref);
    if (object == NULL) return NULL;
    object->ref = ref;
    object->engine = tr_engine_id_of(state);
    return (PyObject *)object;
}

static PyObject *ref_repr(PyObject *self) {
    return PyUnicode_FromFormat("<ref %llu>", (unsigned long long)((tr_ref_object *)self)->ref);
}

static Py_hash_t ref_hash(PyObject *self) { return hash_number(((tr_ref_object *)self)->ref); }

static PyObject *ref_compare(PyObject *left, PyObject *right, int operation) {
    if (Py_TYPE(left) != Py_TYPE(right) || (operation != Py_EQ && operation != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    tr_ref_object *a = (tr_ref_object *)left, *b = (tr_ref_object *)right;
    return PyBool_FromLong((a->ref == b->ref && a->engine == b->engine) == (operation == Py_EQ));
}

static PyObject *ref_reduce(PyObject *object, PyObject *unused) {
    (void)unused;
    tr_ref_object *self = (tr_ref_object *)object;
    PyObject *restore = PyObject_GetAttrString(state_of(object)->module, "restore_ref");
    if (restore == NULL) return NULL;
    return Py_BuildValue("N(KK)", restore, (unsigned long long)self->ref,
                         (unsigned long long)self->engine);
}

static PyMethodDef ref_methods[] = {
    {"__reduce__", ref_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ref_slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, ref_repr},
    {Py_tp_hash, ref_hash},
    {Py_tp_richcompare, ref_compare},
    {Py_tp_methods, ref_methods},
    {Py_tp_doc, (void *)tr_doc_ref},
    {0, NULL},
};

static PyType_Spec ref_spec = {
    .name = "tailrace.Ref",
    .basicsize = sizeof(tr_ref_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ref_slots,
};

PyObject *tr_from_new(tr_state *state, tr_pid pid, tr_ref ref) {
    tr_from_object *object = PyObject_New(tr_from_object, state->From);
    if (object == NULL) return NULL;
    object->pid = pid;
    object->ref = ref;
    object->engine = tr_engine_id_of(state);
    return (PyObject *)object;
}

static PyObject *from_repr(PyObject *object) {
    tr_from_object *self = (tr_from_object *)object;
    return PyUnicode_FromFormat("<from %u.%u, ref %llu>", (unsigned)(self->pid >> 32) - 1,
                                (unsigned)(uint32_t)self->pid, (unsigned long long)self->ref);
}

static PyObject *from_pid(PyObject *self, void *unused) {
    (void)unused;
    PyObject *pid = tr_pid_new(state_of(self), ((tr_from_object *)self)->pid);
    if (pid != NULL) ((tr_pid_object *)pid)->engine = ((tr_from_object *)self)->engine;
    return pid;
}

static PyObject *from_reduce(PyObject *object, PyObject *unused) {
    (void)unused;
    tr_from_object *self = (tr_from_object *)object;
    PyObject *restore = PyObject_GetAttrString(state_of(object)->module, "restore_from");
    if (restore == NULL) return NULL;
    return Py_BuildValue("N(KKK)", restore, (unsigned long long)self->pid,
                         (unsigned long long)self->ref, (unsigned long long)self->engine);
}

static PyMethodDef from_methods[] = {
    {"__reduce__", from_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef from_properties[] = {
    {"pid", from_pid, NULL, tr_doc_from_pid, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot from_slots[] = {
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, from_repr},
    {Py_tp_methods, from_methods},
    {Py_tp_getset, from_properties},
    {Py_tp_doc, (void *)tr_doc_from},
    {0, NULL},
};

static PyType_Spec from_spec = {
    .name = "tailrace.From",
    .basicsize = sizeof(tr_from_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = from_slots,
};

/* ---- Timer --------------------------------------------------------------------------------------*/

typedef struct {
    PyObject_HEAD
    tr_timer *timer; /* constant; owned; the core's, under the ticker's lock */
} timer_object;

PyObject *tr_timer_new(tr_state *state, tr_timer *timer) {
    timer_object *object = PyObject_New(timer_object, state->Timer);
    if (object == NULL) {
        tr_timer_cancel(timer);
        tr_timer_release(timer);
        return NULL;
    }
    object->timer = timer;
    return (PyObject *)object;
}

static void timer_dealloc(PyObject *object) {
    tr_timer_release(((timer_object *)object)->timer);
    dealloc(object);
}

static PyObject *seconds_or_none(int64_t nanoseconds) {
    if (nanoseconds < 0) Py_RETURN_NONE;
    return PyFloat_FromDouble((double)nanoseconds / 1e9);
}

static PyObject *timer_cancel(PyObject *self, PyObject *unused) {
    (void)unused;
    return seconds_or_none(tr_timer_cancel(((timer_object *)self)->timer));
}

static PyObject *timer_remaining(PyObject *self, PyObject *unused) {
    (void)unused;
    return seconds_or_none(tr_timer_remaining(((timer_object *)self)->timer));
}

static PyMethodDef timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS, tr_doc_timer_cancel},
    {"remaining", timer_remaining, METH_NOARGS, tr_doc_timer_remaining},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_dealloc, timer_dealloc},
    {Py_tp_methods, timer_methods},
    {Py_tp_doc, (void *)tr_doc_timer},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "tailrace.Timer",
    .basicsize = sizeof(timer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

int tr_pid_types(PyObject *module, tr_state *state) {
    struct {
        PyType_Spec *spec;
        PyTypeObject **type;
    } types[] = {{&pid_spec, &state->Pid},
                 {&ref_spec, &state->Ref},
                 {&from_spec, &state->From},
                 {&timer_spec, &state->Timer}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (type == NULL) return -1;
        *types[i].type = (PyTypeObject *)type;
        if (PyModule_AddType(module, *types[i].type) != 0) return -1;
    }
    return 0;
}
