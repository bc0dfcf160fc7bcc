/* message_state.c: what the C parts of the pipeline keep per module: types, words, spare messages. */
#include "message.h"

#include "state.h"

#include <time.h>

tr_message_state *tr_message_state_of(PyObject *module) {
    return tr_state_of(module)->message;
}

int tr_message_check_alive(PyObject *module) {
    tr_state *state = tr_state_of(module);
    tr_engine *engine = atomic_load(&state->engine);
    return engine ? tr_check_alive(state, engine) : 0;
}

PyObject *tr_message_take_exception(PyObject *module) {
    PyObject *killed = tr_state_of(module)->Killed;
    if (killed && PyErr_ExceptionMatches(killed))
        return NULL;
    return tr_take_exception();
}

int tr_message_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type, bool shown) {
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (!*type)
        return -1;
    return shown ? PyModule_AddType(module, *type) : 0;
}

static int intern_words(tr_message_state *state) {
    const struct {
        PyObject **word;
        const char *text;
    } words[] = {
        {&state->word_default, "default"},     {&state->word_ok, "ok"},
        {&state->word_failed, "failed"},       {&state->word_exception, "exception"},
        {&state->word_error, "error"},         {&state->word_exit, "exit"},
        {&state->word_bulk, "bulk"},           {&state->word_flush, "flush"},
        {&state->word_size, "size"},           {&state->word_timeout, "timeout"},
        {&state->word_ack, "ack"},             {&state->word_configure, "configure"},
        {&state->word_emit, "emit"},           {&state->word_cont, "cont"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        *words[i].word = PyUnicode_InternFromString(words[i].text);
        if (!*words[i].word)
            return -1;
    }
    return 0;
}

/* now(): the engine's time in ns; before there is an engine, that of the clock it will use. */
static PyObject *now(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    tr_engine *engine = atomic_load(&tr_state_of(module)->engine);
    if (engine)
        return PyLong_FromUnsignedLongLong(tr_now(engine));
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return PyLong_FromUnsignedLongLong((unsigned long long)time.tv_sec * 1000000000u +
                                       (unsigned long long)time.tv_nsec);
}

static PyObject *check_alive(PyObject *module, PyObject *Py_UNUSED(ignored)) {
    if (tr_message_check_alive(module) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"now", now, METH_NOARGS, "now()\n--\n\nThe engine's time in nanoseconds."},
    {"check_alive", check_alive, METH_NOARGS,
     "check_alive()\n--\n\nRaise if the caller is leftover code of a killed process."},
    {NULL, NULL, 0, NULL}};

int tr_message_init(PyObject *module) {
    tr_message_state *state = PyMem_Calloc(1, sizeof *state);
    if (!state) {
        PyErr_NoMemory();
        return -1;
    }
    tr_state_of(module)->message = state;
    if (PyModule_AddFunctions(module, functions) < 0 || intern_words(state) < 0 ||
        tr_message_add_type(module, &tr_message_spec, &state->message_type, true) < 0)
        return -1;
    state->message_type->tp_vectorcall = tr_message_vectorcall;
    if (tr_ledger_init(module, state) < 0 || tr_message_loop_init(module, state) < 0 ||
        tr_message_wire_init(module) < 0 || tr_open_batches_init(module, state) < 0)
        return -1;
    if (tr_source_init(module, state) < 0 || tr_rate_limit_init(module, state) < 0)
        return -1;
    return tr_route_dispatcher_init(module, state);
}

int tr_message_traverse(tr_message_state *state, visitproc visit, void *arg) {
    if (!state)
        return 0;
#ifndef Py_GIL_DISABLED
    for (message_object *spare = state->spare; spare; spare = (message_object *)spare->data)
        Py_VISIT(Py_TYPE(spare));
#endif
    Py_VISIT(state->message_type);
    Py_VISIT(state->ledger_type);
    Py_VISIT(state->held_type);
    Py_VISIT(state->loop_type);
    Py_VISIT(state->batches_type);
    Py_VISIT(state->open_batch_type);
    Py_VISIT(state->limiter_type);
    Py_VISIT(state->source_type);
    Py_VISIT(state->route_type);
    return 0;
}

void tr_message_clear(tr_message_state *state) {
    if (!state)
        return;
#ifndef Py_GIL_DISABLED
    while (state->spare) {
        message_object *spare = state->spare;
        PyTypeObject *type = Py_TYPE(spare);
        state->spare = (message_object *)spare->data;
        PyObject_GC_Del(spare);
        Py_DECREF(type);
    }
    state->spares = MESSAGE_FREE_LIST; /* from here on messages go back to the allocator */
#endif
    Py_CLEAR(state->message_type);
    Py_CLEAR(state->ledger_type);
    Py_CLEAR(state->held_type);
    Py_CLEAR(state->loop_type);
    Py_CLEAR(state->batches_type);
    Py_CLEAR(state->open_batch_type);
    Py_CLEAR(state->limiter_type);
    Py_CLEAR(state->source_type);
    Py_CLEAR(state->route_type);
}

void tr_message_free_state(tr_message_state *state) {
    if (!state)
        return;
    tr_message_clear(state);
    PyObject **words[] = {
        &state->word_default, &state->word_ok,        &state->word_failed, &state->word_exception,
        &state->word_error,   &state->word_exit,      &state->word_bulk,   &state->word_flush,
        &state->word_size,    &state->word_timeout,   &state->word_ack,    &state->word_configure,
        &state->word_emit,    &state->word_cont,
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        Py_CLEAR(*words[i]);
    PyMem_Free(state);
}
