/* module.c: the module tailrace._core: its state, its types, its functions.
 *
 * Multi-phase init; no interpreter lock needed; one interpreter only (a second one would need engine
 * threads of its own). The state is embedded in the module and cleared with it. */
#include "armed.h"
#include "interrupt.h"
#include "loop.h"
#include "message.h"
#include "stage.h"
#include "task.h"
#include "turnstile.h"
#include "wait.h"

/* The order of tr_texts. */
static const char *const texts[] = {
    "normal", "shutdown", "kill", "killed", "noproc", "timeout",
    "init", "handle_call", "handle_cast", "handle_info", "handle_continue", "handle_timeout",
    "terminate", "value", "events", "continue_", "reason", "reply", "pid",
    "$cast", "$call", "asyncio", "_let_go",
};

/* The order of tr_python. */
static const char *const names[] = {
    "Down", "Exit", "Reply", "NoReply", "Stop", "NOREPLY", "IGNORE", "UNSET", "ProcessExit",
    "make_error", "log_crash", "start_engine", "process_info", "forked_exit",
    "do_nothing",
    "Unanswered", "acall", "astop", "run_function", "log_slow", "log_out_of_threads",
    "partial", "run_loop", "make_task", "cancel_tasks", "log_unended",
};

enum { TEXTS = sizeof texts / sizeof *texts, NAMES = sizeof names / sizeof *names };
static_assert(sizeof(tr_texts) == TEXTS * sizeof(PyObject *), "texts and tr_texts differ");
static_assert(sizeof(tr_python) == NAMES * sizeof(PyObject *), "names and tr_python differ");

/* configure(**objects): what C needs of the package. Once, at import. */
static PyObject *configure(PyObject *module, PyObject *args, PyObject *keywords) {
    PyObject **slots = (PyObject **)&tr_state_of(module)->python;
    if (PyTuple_GET_SIZE(args) != 0 || keywords == NULL) {
        PyErr_SetString(PyExc_TypeError, "configure() takes keywords only");
        return NULL;
    }
    for (int i = 0; i < NAMES; i++) {
        PyObject *object = PyDict_GetItemString(keywords, names[i]);
        if (object == NULL) {
            PyErr_Format(PyExc_TypeError, "configure() misses %s", names[i]);
            return NULL;
        }
        Py_XSETREF(slots[i], Py_NewRef(object));
    }
    Py_RETURN_NONE;
}

static PyObject *restore_pid(PyObject *module, PyObject *args) {
    unsigned long long pid, engine;
    if (!PyArg_ParseTuple(args, "KK", &pid, &engine)) return NULL;
    PyObject *object = tr_pid_new(tr_state_of(module), pid);
    if (object != NULL) ((tr_pid_object *)object)->engine = engine;
    return object;
}

static PyObject *restore_ref(PyObject *module, PyObject *args) {
    unsigned long long ref, engine;
    if (!PyArg_ParseTuple(args, "KK", &ref, &engine)) return NULL;
    PyObject *object = tr_ref_object_new(tr_state_of(module), ref);
    if (object != NULL) ((tr_ref_object *)object)->engine = engine;
    return object;
}

static PyObject *restore_from(PyObject *module, PyObject *args) {
    unsigned long long pid, ref, engine;
    if (!PyArg_ParseTuple(args, "KKK", &pid, &ref, &engine)) return NULL;
    PyObject *object = tr_from_new(tr_state_of(module), pid, ref);
    if (object != NULL) ((tr_from_object *)object)->engine = engine;
    return object;
}

static PyMethodDef functions[] = {
    {"configure", (PyCFunction)(void (*)(void))configure, METH_VARARGS | METH_KEYWORDS, NULL},
    {"restore_pid", restore_pid, METH_VARARGS, "What a pickled Pid calls."},
    {"restore_ref", restore_ref, METH_VARARGS, "What a pickled Ref calls."},
    {"restore_from", restore_from, METH_VARARGS, "What a pickled From calls."},
    {NULL, NULL, 0, NULL},
};

static int make_killed(PyObject *module, tr_state *state) {
    PyObject *bases = PyExc_BaseException;
    state->Killed = PyErr_NewExceptionWithDoc(
        "tailrace._core.Killed",
        "The process that runs this code was killed. Let it pass: whatever is done now is dropped.",
        bases, NULL);
    return state->Killed == NULL ? -1 : PyModule_AddObjectRef(module, "Killed", state->Killed);
}

static int make_texts(tr_state *state) {
    PyObject **slots = (PyObject **)&state->texts;
    for (int i = 0; i < TEXTS; i++)
        if ((slots[i] = PyUnicode_InternFromString(texts[i])) == NULL) return -1;
    return 0;
}

/* The thread that gets Ctrl-C, which need not be the one that imports the package. */
static int find_main_thread(tr_state *state) {
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *thread =
        threading == NULL ? NULL : PyObject_CallMethod(threading, "main_thread", NULL);
    PyObject *ident = thread == NULL ? NULL : PyObject_GetAttrString(thread, "ident");
    if (ident != NULL) state->main_thread = PyLong_AsUnsignedLong(ident);
    Py_XDECREF(ident);
    Py_XDECREF(thread);
    Py_XDECREF(threading);
    return PyErr_Occurred() ? -1 : 0;
}

/* The engine's threads belong to one interpreter, and so does what follows forks. From 3.12 on Python itself
 * refuses the module to interpreters with a lock of their own. */
static int refuse_sub_interpreters(void) {
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return 0;
    PyErr_SetString(PyExc_ImportError,
                    "tailrace runs in the main interpreter only, not in a sub-interpreter: "
                    "its engine belongs to one interpreter of the program");
    return -1;
}

static int module_exec(PyObject *module) {
    if (refuse_sub_interpreters() != 0) return -1;
    tr_state *state = tr_state_of(module);
    state->module = module;
    state->interpreter = PyInterpreterState_Get();
    if (find_main_thread(state) != 0 || tr_talk_init(state) != 0) return -1;
    PyMethodDef *tables[] = {functions, tr_engine_functions, tr_process_functions,
                             tr_call_functions, tr_server_functions, tr_loop_functions,
                             tr_talk_functions, tr_wait_functions, tr_interrupt_functions};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) != 0) return -1;
    if (make_texts(state) != 0 || tr_pid_types(module, state) != 0) return -1;
    if (make_killed(module, state) != 0 || tr_arms_init(state) != 0) return -1;
    if (tr_turnstile_init(state) != 0) return -1;
    if (tr_wait_init_module(module) != 0 || tr_task_init_module(module) != 0) return -1;
    if (tr_loop_init_module(module) != 0 || tr_stage_init_module(module) != 0) return -1;
    return tr_message_init(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    tr_state *state = tr_state_of(module);
    PyObject **python = (PyObject **)&state->python;
    for (int i = 0; i < NAMES; i++) Py_VISIT(python[i]);
    Py_VISIT(state->Pid);
    Py_VISIT(state->Ref);
    Py_VISIT(state->From);
    Py_VISIT(state->Timer);
    Py_VISIT(state->Wait);
    Py_VISIT(atomic_load(&state->running_loop));
    Py_VISIT(state->Killed);
    int loops = tr_loop_traverse(state->loop, visit, arg);
    if (loops != 0) return loops;
    int tasks = tr_task_traverse(state->task, visit, arg);
    if (tasks != 0) return tasks;
    int result = tr_stage_traverse(state->stage, visit, arg);
    if (result == 0) result = tr_turnstile_traverse(state->turnstile, visit, arg);
    if (result == 0) result = tr_arms_traverse(state->arms, visit, arg);
    return result != 0 ? result : tr_message_traverse(state->message, visit, arg);
}

static int module_clear(PyObject *module) {
    tr_state *state = tr_state_of(module);
    PyObject **python = (PyObject **)&state->python, **strings = (PyObject **)&state->texts;
    for (int i = 0; i < NAMES; i++) Py_CLEAR(python[i]);
    for (int i = 0; i < TEXTS; i++) Py_CLEAR(strings[i]);
    Py_CLEAR(state->Pid);
    Py_CLEAR(state->Ref);
    Py_CLEAR(state->From);
    Py_CLEAR(state->Timer);
    Py_CLEAR(state->Wait);
    Py_XDECREF(atomic_exchange(&state->running_loop, NULL));
    Py_CLEAR(state->Killed);
    tr_loop_clear(state->loop);
    tr_task_clear(state->task);
    tr_stage_clear(state->stage);
    tr_turnstile_clear(state->turnstile);
    tr_arms_clear(state->arms);
    tr_message_clear(state->message);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
    tr_state *state = tr_state_of(module);
    tr_fork_forget(state);
    tr_loop_free_state(state->loop);
    state->loop = NULL;
    PyMem_RawFree(state->turnstile);
    PyMem_RawFree(state->arms);
    state->turnstile = NULL;
    state->arms = NULL;
    tr_task_free_state(state->task);
    state->task = NULL;
    tr_stage_free_state(state->stage);
    state->stage = NULL;
    tr_message_free_state(state->message);
    state->message = NULL;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef tr_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tailrace._core",
    .m_doc = "The hot path between Python and the engine. Private.",
    .m_size = sizeof(tr_state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&tr_module); }
