/* ledger.c: Ledger and Held, see ledger.h. */
#include "ledger.h"

/* ---- Ledger ------------------------------------------------------------------------------------- */

static PyObject *ledger_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Ledger", names))
        return NULL;
    return type->tp_alloc(type, 0); /* zeroed */
}

static void plain_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *ledger_counter(PyObject *self, void *closure) {
    return PyLong_FromUnsignedLongLong(((ledger *)self)->counters[(intptr_t)closure]);
}

static PyObject *ledger_add(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"successful", "failed", "retried", "dead", NULL};
    Py_ssize_t numbers[LEDGER_COUNTERS] = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nnnn:add", names,
                                     &numbers[LEDGER_SUCCESSFUL], &numbers[LEDGER_FAILED],
                                     &numbers[LEDGER_RETRIED], &numbers[LEDGER_DEAD]))
        return NULL;
    for (int i = 0; i < LEDGER_COUNTERS; i++)
        tr_ledger_count((ledger *)self, i, numbers[i]);
    Py_RETURN_NONE;
}

static PyObject *ledger_halt(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    ((ledger *)self)->halted = true;
    Py_RETURN_NONE;
}

static PyObject *ledger_halted(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((ledger *)self)->halted);
}

static PyGetSetDef ledger_attributes[] = {
    {"successful", ledger_counter, NULL, "int: acknowledged as successful.", (void *)LEDGER_SUCCESSFUL},
    {"failed", ledger_counter, NULL, "int: acknowledged as failed.", (void *)LEDGER_FAILED},
    {"retried", ledger_counter, NULL, "int: runs repeated.", (void *)LEDGER_RETRIED},
    {"dead", ledger_counter, NULL, "int: taken by the dead letter.", (void *)LEDGER_DEAD},
    {"halted", ledger_halted, NULL, "bool: whether no further callback may start.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMethodDef ledger_methods[] = {
    {"add", (PyCFunction)(void (*)(void))ledger_add, METH_VARARGS | METH_KEYWORDS,
     "add($self, successful=0, failed=0, retried=0, dead=0)\n--\n\nCount messages."},
    {"halt", ledger_halt, METH_NOARGS,
     "halt($self, /)\n--\n\nStart no further callback of the pipeline's."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot ledger_slots[] = {
    {Py_tp_doc, "Ledger()\n--\n\nWhat became of a pipeline's messages, and whether it was halted."},
    {Py_tp_new, ledger_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_getset, ledger_attributes},
    {Py_tp_methods, ledger_methods},
    {0, NULL}};

static PyType_Spec ledger_spec = {
    .name = "tailrace._core.Ledger",
    .basicsize = sizeof(ledger),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ledger_slots,
};

/* ---- Held --------------------------------------------------------------------------------------- */

static PyObject *held_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Held", names))
        return NULL;
    return type->tp_alloc(type, 0); /* zeroed */
}

static PyObject *held_add(PyObject *self, PyObject *number) {
    Py_ssize_t change = PyLong_AsSsize_t(number);
    if (change == -1 && PyErr_Occurred())
        return NULL;
    tr_held_add((held *)self, change);
    Py_RETURN_NONE;
}

static PyObject *held_number(PyObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(((held *)self)->number);
}

static int held_set(PyObject *self, PyObject *value, void *Py_UNUSED(closure)) {
    long long number = value ? PyLong_AsLongLong(value) : 0;
    if (PyErr_Occurred())
        return -1;
    ((held *)self)->number = number;
    return 0;
}

static PyGetSetDef held_attributes[] = {
    {"number", held_number, held_set, "int: how many.", NULL}, {NULL, NULL, NULL, NULL, NULL}};

static PyMethodDef held_methods[] = {
    {"add", held_add, METH_O, "add($self, number, /)\n--\n\nTake more in hand, or fewer."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot held_slots[] = {
    {Py_tp_doc, "Held()\n--\n\nHow many messages a worker has in hand."},
    {Py_tp_new, held_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_getset, held_attributes},
    {Py_tp_methods, held_methods},
    {0, NULL}};

static PyType_Spec held_spec = {
    .name = "tailrace._core.Held",
    .basicsize = sizeof(held),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = held_slots,
};

int tr_ledger_init(PyObject *module, tr_message_state *state) {
    if (tr_message_add_type(module, &ledger_spec, &state->ledger_type, true) < 0)
        return -1;
    return tr_message_add_type(module, &held_spec, &state->held_type, true);
}
