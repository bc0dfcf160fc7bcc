/* turnstile.c: how a thread that computes is stopped at its next bytecode (tr_host.arm; see
 * core/turnstile.h for who is armed, when and why).
 *
 * On 3.11 the thread gets a trace function, with opcode events for its top frame, since a loop like
 * `while True: pass` has no line event; what a debugger or a coverage tool had set is kept, gets the
 * event that was taken from it, and is put back. From 3.12 on it is sys.monitoring, under a free tool id,
 * with events for the code of the top frame alone. Code is shared by threads, so the events stay until
 * the last armed thread of that code is through, and other threads that run into them just go on.
 *
 * Only builds with the interpreter lock arm, and that lock protects all of this: `armed` is changed
 * by attached threads, and nothing between finding an entry and changing it runs Python code. */
#include "turnstile.h"

#include <frameobject.h>

typedef struct tr_armed {
    struct tr_armed *next;
    PyThreadState *thread; /* borrowed: it disarms before it ends */
    PyObject *place;       /* owned: the frame on 3.11, else the code object */
#if PY_VERSION_HEX < 0x030C0000
    Py_tracefunc trace;    /* what was set before */
    PyObject *trace_argument; /* owned */
    bool opcodes;             /* the frame's f_trace_opcodes before */
#endif
} tr_armed;

struct tr_turnstile_state {
    tr_armed *armed;
    PyObject *set_interval, *get_interval; /* sys.setswitchinterval and its twin; owned */
    double interval;                       /* the program's, while ours is set; or 0 */
    double ours;
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *set_local_events; /* owned; NULL until first used */
    long tool, events;
    bool refused; /* there is no free tool id */
#endif
};

static tr_armed *find(tr_turnstile_state *turnstile, PyThreadState *thread) {
    tr_armed *entry = turnstile->armed;
    while (entry != NULL && entry->thread != thread) entry = entry->next;
    return entry;
}

static tr_armed *add(tr_turnstile_state *turnstile, PyThreadState *thread, PyObject *place) {
    tr_armed *entry = PyMem_RawCalloc(1, sizeof *entry);
    if (entry == NULL) return NULL;
    entry->thread = thread;
    entry->place = Py_NewRef(place);
    entry->next = turnstile->armed;
    turnstile->armed = entry;
    return entry;
}

/* Take it out of the list; the caller frees it. */
static void take(tr_turnstile_state *turnstile, tr_armed *entry) {
    tr_armed **at = &turnstile->armed;
    while (*at != entry) at = &(*at)->next;
    *at = entry->next;
}

/* The thread's own: wait for its turn, if it has to. */
static void pass(tr_state *state) {
    tr_engine *engine = atomic_load(&state->engine);
    if (engine == NULL || !tr_turnstile_arrive(engine)) return;
    Py_BEGIN_ALLOW_THREADS
    tr_turnstile_wait(engine);
    Py_END_ALLOW_THREADS
}

#if PY_VERSION_HEX < 0x030C0000

/* ---- 3.11: a trace function ---------------------------------------------------------------------*/

static int on_event(PyObject *module, PyFrameObject *frame, int what, PyObject *argument);

/* What `entry` had changed is as it was; unless the program has set another function meanwhile. */
static void put_back(tr_turnstile_state *turnstile, tr_armed *entry) {
    take(turnstile, entry);
    bool ours = entry->thread->c_tracefunc == on_event;
    if (ours && _PyEval_SetTrace(entry->thread, entry->trace, entry->trace_argument) != 0) PyErr_Clear();
    if (PyObject_SetAttrString(entry->place, "f_trace_opcodes",
                               entry->opcodes ? Py_True : Py_False) != 0)
        PyErr_Clear();
}

static void drop(tr_armed *entry) {
    Py_DECREF(entry->place);
    Py_XDECREF(entry->trace_argument);
    PyMem_RawFree(entry);
}

static int on_event(PyObject *module, PyFrameObject *frame, int what, PyObject *argument) {
    tr_state *state = tr_state_of(module);
    tr_armed *entry = find(state->turnstile, PyThreadState_Get());
    if (entry == NULL) return 0;
    put_back(state->turnstile, entry);
    pass(state);
    bool wanted = entry->trace != NULL && (what != PyTrace_OPCODE || entry->opcodes);
    int result = wanted ? entry->trace(entry->trace_argument, frame, what, argument) : 0;
    drop(entry);
    return result;
}

static bool is_true(PyObject *object, const char *attribute) {
    PyObject *value = PyObject_GetAttrString(object, attribute);
    bool result = value == Py_True;
    Py_XDECREF(value);
    return result;
}

static bool arm_at(tr_state *state, PyThreadState *thread, PyObject *frame) {
    tr_armed *entry = add(state->turnstile, thread, frame);
    if (entry == NULL) return false;
    entry->trace = thread->c_tracefunc;
    entry->trace_argument = Py_XNewRef(thread->c_traceobj);
    entry->opcodes = is_true(frame, "f_trace_opcodes");
    if (PyObject_SetAttrString(frame, "f_trace_opcodes", Py_True) == 0 &&
        _PyEval_SetTrace(thread, on_event, state->module) == 0)
        return true;
    PyErr_Clear();
    put_back(state->turnstile, entry);
    drop(entry);
    return false;
}

static PyObject *place_of(PyThreadState *thread) {
    return (PyObject *)PyThreadState_GetFrame(thread);
}

#else

/* ---- 3.12 and later: sys.monitoring -------------------------------------------------------------*/

static bool set_events(tr_turnstile_state *turnstile, PyObject *code, long events) {
    PyObject *done =
        PyObject_CallFunction(turnstile->set_local_events, "lOl", turnstile->tool, code, events);
    if (done == NULL) PyErr_Clear();
    Py_XDECREF(done);
    return done != NULL;
}

static void put_back(tr_turnstile_state *turnstile, tr_armed *entry) {
    take(turnstile, entry);
    for (tr_armed *other = turnstile->armed; other != NULL; other = other->next)
        if (other->place == entry->place) return;
    set_events(turnstile, entry->place, 0);
}

static void drop(tr_armed *entry) {
    Py_DECREF(entry->place);
    PyMem_RawFree(entry);
}

static PyObject *on_event(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    tr_state *state = tr_state_of(module);
    tr_armed *entry = find(state->turnstile, PyThreadState_Get());
    if (entry == NULL) Py_RETURN_NONE;
    put_back(state->turnstile, entry);
    drop(entry);
    pass(state);
    Py_RETURN_NONE;
}

static PyMethodDef on_event_method = {"turnstile", (PyCFunction)(void (*)(void))on_event,
                                      METH_FASTCALL, "What an armed thread's next bytecode calls."};

/* Whatever a thread does that is more than straight-line code. */
static const char *const event_names[] = {"JUMP",      "PY_START", "PY_RESUME",
                                          "PY_RETURN", "PY_YIELD", "CALL"};

/* Register for the events under a tool id that nobody uses: 3 and 4 have no meaning of their own. */
static int register_tool(tr_state *state, PyObject *monitoring) {
    tr_turnstile_state *turnstile = state->turnstile;
    PyObject *function = PyCFunction_New(&on_event_method, state->module);
    PyObject *events = PyObject_GetAttrString(monitoring, "events");
    int result = function != NULL && events != NULL ? 0 : -1;
    for (turnstile->tool = 4; result == 0 && turnstile->tool >= 3; turnstile->tool--) {
        PyObject *done =
            PyObject_CallMethod(monitoring, "use_tool_id", "ls", turnstile->tool, "tailrace");
        Py_XDECREF(done);
        if (done != NULL) break;
        PyErr_Clear();
        if (turnstile->tool == 3) result = -1;
    }
    for (size_t i = 0; result == 0 && i < sizeof event_names / sizeof *event_names; i++) {
        PyObject *event = PyObject_GetAttrString(events, event_names[i]);
        PyObject *old = event == NULL ? NULL
                                      : PyObject_CallMethod(monitoring, "register_callback", "lOO",
                                                            turnstile->tool, event, function);
        if (old != NULL) turnstile->events |= PyLong_AsLong(event);
        result = old == NULL ? -1 : 0;
        Py_XDECREF(event);
        Py_XDECREF(old);
    }
    Py_XDECREF(function);
    Py_XDECREF(events);
    return result;
}

static bool has_tool(tr_state *state) {
    tr_turnstile_state *turnstile = state->turnstile;
    if (turnstile->set_local_events != NULL || turnstile->refused) return !turnstile->refused;
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed */
    Py_XINCREF(monitoring);
    if (monitoring != NULL && register_tool(state, monitoring) == 0)
        turnstile->set_local_events = PyObject_GetAttrString(monitoring, "set_local_events");
    turnstile->refused = turnstile->set_local_events == NULL;
    PyErr_Clear();
    Py_XDECREF(monitoring);
    return !turnstile->refused;
}

static bool arm_at(tr_state *state, PyThreadState *thread, PyObject *code) {
    if (!has_tool(state)) return false;
    tr_armed *entry = add(state->turnstile, thread, code);
    if (entry == NULL) return false;
    if (set_events(state->turnstile, code, state->turnstile->events)) return true;
    put_back(state->turnstile, entry);
    drop(entry);
    return false;
}

static PyObject *place_of(PyThreadState *thread) {
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    if (frame == NULL) return NULL;
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    Py_DECREF(frame);
    return code;
}

#endif

/* ---- Host functions -----------------------------------------------------------------------------*/

void tr_turnstile_disarm(void *context, void *thread) {
    tr_state *state = context;
    tr_armed *entry = find(state->turnstile, thread);
    if (entry == NULL) return;
    put_back(state->turnstile, entry);
    drop(entry);
}

bool tr_turnstile_arm(void *context, void *thread) {
    tr_state *state = context;
    tr_turnstile_disarm(context, thread);
    PyObject *place = place_of(thread);
    if (place == NULL) return false;
    bool armed = arm_at(state, thread, place);
    Py_DECREF(place);
    return armed;
}

static double get_interval(tr_turnstile_state *turnstile) {
    PyObject *value = PyObject_CallNoArgs(turnstile->get_interval);
    double seconds = value == NULL ? 0 : PyFloat_AsDouble(value);
    Py_XDECREF(value);
    PyErr_Clear();
    return seconds > 0 ? seconds : 0;
}

static bool set_interval(tr_turnstile_state *turnstile, double seconds) {
    PyObject *done = PyObject_CallFunction(turnstile->set_interval, "d", seconds);
    PyErr_Clear();
    Py_XDECREF(done);
    return done != NULL;
}

/* The program may have chosen another interval while ours was set: then that is left alone. */
uint64_t tr_turnstile_interval(void *context, uint64_t nanoseconds) {
    tr_turnstile_state *turnstile = ((tr_state *)context)->turnstile;
    double now = get_interval(turnstile), wanted = (double)nanoseconds / 1e9;
    if (nanoseconds == 0) {
        wanted = turnstile->interval;
        bool ours = wanted > 0 && now == turnstile->ours;
        turnstile->interval = 0;
        if (!ours || !set_interval(turnstile, wanted)) return 0;
        return (uint64_t)(wanted * 1e9);
    }
    if (now <= wanted || turnstile->interval > 0 || !set_interval(turnstile, wanted)) return 0;
    turnstile->interval = now;
    turnstile->ours = get_interval(turnstile);
    return nanoseconds;
}

/* ---- The module's part --------------------------------------------------------------------------*/

int tr_turnstile_init(tr_state *state) {
    state->turnstile = PyMem_RawCalloc(1, sizeof *state->turnstile);
    if (state->turnstile == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *set = PySys_GetObject("setswitchinterval"), *get = PySys_GetObject("getswitchinterval");
    if (set == NULL || get == NULL) {
        PyErr_SetString(PyExc_ImportError, "sys has no setswitchinterval");
        return -1;
    }
    state->turnstile->set_interval = Py_NewRef(set);
    state->turnstile->get_interval = Py_NewRef(get);
    return 0;
}

int tr_turnstile_traverse(tr_turnstile_state *turnstile, visitproc visit, void *arg) {
    if (turnstile == NULL) return 0;
    Py_VISIT(turnstile->set_interval);
    Py_VISIT(turnstile->get_interval);
    return 0;
}

void tr_turnstile_clear(tr_turnstile_state *turnstile) {
    if (turnstile == NULL) return;
    Py_CLEAR(turnstile->set_interval);
    Py_CLEAR(turnstile->get_interval);
#if PY_VERSION_HEX >= 0x030C0000
    Py_CLEAR(turnstile->set_local_events);
#endif
}
