/* slow.c: what the core finds slow, told to the package, which logs it (_slow.py).
 *
 * Called attached: on the core's reporter thread, while the callback still runs, or on the callback's own thread
 * after it. No engine lock is held. */
#include "server.h"
#include "task.h"

/* An instance, whose callback it is, or a function. A companion is told as the stage that it acts for. A process that
 * is buried, whose tasks clean up on the event loop, has none. */
tr_term tr_host_subject(void *context, tr_process *process, tr_pid *pid) {
    (void)context;
    if (tr_process_state(process) == NULL) return NULL;
    if (!tr_is_server(process)) return Py_XNewRef(tr_function_callable(process));
    tr_server *server = tr_process_state(process);
    tr_process *stage = server->owner == NULL ? NULL : server->owner->as;
    if (stage == NULL) return Py_XNewRef(server->instance);
    *pid = tr_process_pid(stage);
    return Py_XNewRef(server->owner->instance);
}

/* ---- The stack ------------------------------------------------------------------------------------
 *
 * The thread must not move while its frames are read. The interpreter lock sees to that, as nothing here runs
 * bytecode or collects garbage; without one the world is stopped, for which the one public door is a visit of all
 * objects. That is done for a thread that blocks only: one that computes in native code would make all others wait
 * for it, as any collection does. In between nothing is let go of, as that could run anything. */

enum { DEEPEST = 1000 }; /* as deep as a recursion may be, unless the user says otherwise */

typedef struct tr_stack {
    PyFrameObject *frames[DEEPEST]; /* owned, like the next two; the innermost is first, and given */
    PyCodeObject *codes[DEEPEST];
    PyObject *globals[DEEPEST];
    int lines[DEEPEST];
    int count;
} tr_stack;

static void walk(tr_stack *stack) {
    PyFrameObject *frame = stack->frames[0];
    while (frame != NULL && stack->count < DEEPEST) {
        int i = stack->count++;
        stack->frames[i] = frame;
        stack->codes[i] = PyFrame_GetCode(frame);
        stack->globals[i] = PyFrame_GetGlobals(frame);
        stack->lines[i] = PyFrame_GetLineNumber(frame);
        frame = stack->count < DEEPEST ? PyFrame_GetBack(frame) : NULL;
    }
}

#ifdef Py_GIL_DISABLED

/* Ends the visit, which must not go on to what was allocated here. */
static int walk_once(PyObject *any, void *stack) {
    (void)any;
    walk(stack);
    return 0;
}

static void walk_undisturbed(tr_stack *stack) { PyUnstable_GC_VisitObjects(walk_once, stack); }

static bool is_readable(const tr_slow *slow) { return !slow->over && slow->how == TR_SLOW_BLOCKS; }

#else

static void walk_undisturbed(tr_stack *stack) {
    int collects = PyGC_Disable();
    walk(stack);
    if (collects) PyGC_Enable();
}

static bool is_readable(const tr_slow *slow) { return !slow->over; }

#endif

/* The thread's innermost frame, new reference; NULL without an exception if it cannot be had. */
static PyFrameObject *frame_of(uint64_t thread) {
    PyObject *found = NULL, *function = PySys_GetObject("_current_frames");
    PyObject *frames = function == NULL ? NULL : PyObject_CallNoArgs(function);
    PyObject *key = frames == NULL ? NULL : PyLong_FromUnsignedLongLong(thread);
    if (key != NULL && PyDict_Check(frames))
        found = Py_XNewRef(PyDict_GetItemWithError(frames, key));
    Py_XDECREF(key);
    Py_XDECREF(frames);
    PyErr_Clear();
    if (found != NULL && !PyFrame_Check(found)) Py_CLEAR(found);
    return (PyFrameObject *)found;
}

/* A list of (code, line, globals), the innermost first; what is let go of may run Python code from here on. */
static PyObject *entries_of(tr_stack *stack) {
    PyObject *entries = PyList_New(stack->count);
    for (int i = 0; i < stack->count; i++) {
        PyObject *entry = entries == NULL ? NULL
                                          : Py_BuildValue("OiO", stack->codes[i], stack->lines[i],
                                                          stack->globals[i]);
        if (entry != NULL)
            PyList_SET_ITEM(entries, i, entry);
        else
            Py_CLEAR(entries);
        Py_DECREF(stack->globals[i]);
        Py_DECREF(stack->codes[i]);
        Py_DECREF(stack->frames[i]);
    }
    return entries;
}

/* The stack of a callback that still runs, empty if it cannot be read. NULL with an exception. */
static PyObject *stack_of(const tr_slow *slow) {
    if (!is_readable(slow)) return PyList_New(0);
    tr_stack stack; /* not initialized: it is large */
    stack.count = 0;
    stack.frames[0] = frame_of(slow->thread);
    if (stack.frames[0] != NULL) walk_undisturbed(&stack);
    if (stack.count == 0) Py_XDECREF(stack.frames[0]);
    PyErr_Clear(); /* frames that there was no memory for */
    return entries_of(&stack);
}

/* An error in a log handler is shown and ends nothing; that a killed process was interrupted in it is no news. */
static void finish(tr_state *state, PyObject *done) {
    if (done == NULL && PyErr_ExceptionMatches(state->Killed)) PyErr_Clear();
    if (done == NULL && PyErr_Occurred()) PyErr_WriteUnraisable(NULL);
    Py_XDECREF(done);
}

void tr_host_slow(void *context, const tr_slow *slow) {
    static const char *const how[] = {"blocks", "computes", "stalls", "starves"};
    tr_state *state = context;
    PyObject *stack = stack_of(slow);
    PyObject *pid = stack == NULL ? NULL : tr_pid_new(state, slow->pid);
    PyObject *done = NULL;
    if (pid != NULL)
        done = PyObject_CallFunction(state->python.log_slow, "OOssdOOO", pid,
                                     slow->subject == NULL ? Py_None : (PyObject *)slow->subject,
                                     tr_server_callback_name(slow->kind), how[slow->how],
                                     (double)slow->elapsed / 1e9, slow->over ? Py_True : Py_False,
                                     slow->on_loop ? Py_True : Py_False, stack);
    finish(state, done);
    Py_XDECREF(pid);
    Py_XDECREF(stack);
    Py_XDECREF((PyObject *)slow->subject);
}

void tr_host_out_of_threads(void *context, uint32_t limit, bool by_system) {
    tr_state *state = context;
    finish(state, PyObject_CallFunction(state->python.log_out_of_threads, "IO", limit,
                                        by_system ? Py_True : Py_False));
}
