/* armed.c: how a thread is made to call us from its bytecode: at its next instruction, to pass the turnstile, or
 * where a loop of what it runs ends next or the call returns that it is in, to raise Killed there (interrupt.c
 * says why there).
 *
 * On 3.11 the thread gets a trace function, with opcode events for its frames, since a loop like
 * `while True: pass` has no line event; what a debugger or a coverage tool had set is kept, gets the
 * events that were taken from it, and is put back. From 3.12 on it is sys.monitoring, under a free tool id,
 * with events for the code of its frames alone. Code is shared by threads, so the events stay until
 * the last armed thread of that code is through, and other threads that run into them just go on.
 *
 * A thread is armed for one thing at a time: at one place to pass, at all functions that it is in to end.
 * Only builds with the interpreter lock arm, and that lock protects all of this: the lists are changed
 * by attached threads, and nothing between finding an entry and changing it runs Python code. */
#include "armed.h"

#include <frameobject.h>

#include "lock_code.h"
#include "turnstile.h"

typedef struct tr_armed {
    struct tr_armed *next;
    PyThreadState *thread; /* borrowed: it disarms before it ends */
    PyObject *place;       /* owned: the frame on 3.11, else the code object */
    int what;
    int stood; /* the innermost frame's instruction when it was armed to end */
#if PY_VERSION_HEX < 0x030C0000
    Py_tracefunc trace;    /* what was set before */
    PyObject *trace_argument; /* owned */
    bool opcodes;             /* the frame's f_trace_opcodes before */
#endif
} tr_armed;

enum { BUCKETS = 127 };

struct tr_arms {
    tr_armed *of[BUCKETS]; /* by thread: who runs into another's events must see soon that they are not its own */
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *set_local_events; /* owned; NULL: there was no free tool id */
    long tool;
    long events, instruction; /* to pass, and to end */
#endif
};

static tr_armed **bucket_of(tr_arms *arms, const PyThreadState *thread) {
    return &arms->of[(uintptr_t)thread / 16 % BUCKETS];
}

static tr_armed *find(tr_arms *arms, PyThreadState *thread) {
    tr_armed *entry = *bucket_of(arms, thread);
    while (entry != NULL && entry->thread != thread) entry = entry->next;
    return entry;
}

static tr_armed *find_at(tr_arms *arms, PyThreadState *thread, PyObject *place) {
    tr_armed *entry = *bucket_of(arms, thread);
    while (entry != NULL && (entry->thread != thread || entry->place != place)) entry = entry->next;
    return entry;
}

static tr_armed *add(tr_arms *arms, PyThreadState *thread, PyObject *place, int what) {
    tr_armed *entry = PyMem_RawCalloc(1, sizeof *entry);
    if (entry == NULL) return NULL;
    entry->thread = thread;
    entry->place = Py_NewRef(place);
    entry->what = what;
    tr_armed **bucket = bucket_of(arms, thread);
    entry->next = *bucket;
    *bucket = entry;
    return entry;
}

/* Take it out of the list; the caller frees it. */
static void take(tr_arms *arms, tr_armed *entry) {
    tr_armed **at = bucket_of(arms, entry->thread);
    while (*at != entry) at = &(*at)->next;
    *at = entry->next;
}

static void disarm(tr_arms *arms, PyThreadState *thread);

static bool may_end(PyCodeObject *code, int instruction, int stood) {
    tr_text text;
    if (instruction < 0 || !tr_text_open(&text, code)) return false;
    bool ends = tr_text_may_end(&text, instruction, stood);
    tr_text_close(&text);
    return ends;
}

/* A killed process is to end here, where nothing is half done. On its thread, with an exception set then. */
static bool ends_here(tr_state *state, tr_armed *entry, PyCodeObject *code, int instruction) {
    int collects = PyGC_Disable(); /* a finalizer may disarm us */
    bool ends = may_end(code, instruction, entry->stood);
    if (ends) disarm(state->arms, entry->thread);
    if (collects) PyGC_Enable();
    if (!ends) return false;
    tr_engine *engine = atomic_load(&state->engine);
    if (engine != NULL) tr_interrupted(engine);
    PyErr_SetNone(state->Killed);
    return true;
}

#if PY_VERSION_HEX < 0x030C0000

/* ---- 3.11: a trace function ---------------------------------------------------------------------*/

static int on_event(PyObject *module, PyFrameObject *frame, int what, PyObject *argument);

/* As _PyEval_SetTrace, but neither audited, which may run anything, nor refused while another is being set. */
static void set_trace(PyThreadState *thread, Py_tracefunc trace, PyObject *argument) {
    PyObject *before = thread->c_traceobj;
    thread->c_traceobj = Py_XNewRef(argument);
    thread->c_tracefunc = trace;
    bool on = thread->tracing == 0 && (trace != NULL || thread->c_profilefunc != NULL);
    thread->cframe->use_tracing = on ? 255 : 0;
    Py_XDECREF(before);
}

/* What `entry` had changed is as it was; unless the program has set another function meanwhile. */
static void put_back(tr_arms *arms, tr_armed *entry) {
    take(arms, entry);
    bool ours = entry->thread->c_tracefunc == on_event, last = find(arms, entry->thread) == NULL;
    if (ours && last) set_trace(entry->thread, entry->trace, entry->trace_argument);
    if (PyObject_SetAttrString(entry->place, "f_trace_opcodes",
                               entry->opcodes ? Py_True : Py_False) != 0)
        PyErr_Clear();
}

static void forget(tr_arms *arms, tr_armed *entry) { take(arms, entry); }

static void drop(tr_armed *entry) {
    Py_DECREF(entry->place);
    Py_XDECREF(entry->trace_argument);
    PyMem_RawFree(entry);
}

static int pass_on(const tr_armed *entry, bool opcodes, PyFrameObject *frame, int what, PyObject *argument) {
    bool wanted = entry->trace != NULL && (what != PyTrace_OPCODE || opcodes);
    return wanted ? entry->trace(entry->trace_argument, frame, what, argument) : 0;
}

static bool ends_at(tr_state *state, tr_armed *here, PyFrameObject *frame) {
    PyCodeObject *code = PyFrame_GetCode(frame);
    bool ends = ends_here(state, here, code, PyFrame_GetLasti(frame));
    Py_DECREF(code);
    return ends;
}

static int on_event(PyObject *module, PyFrameObject *frame, int what, PyObject *argument) {
    tr_state *state = tr_state_of(module);
    PyThreadState *thread = PyThreadState_Get();
    tr_armed *entry = find(state->arms, thread), *here = find_at(state->arms, thread, (PyObject *)frame);
    if (entry == NULL) return 0;
    if (entry->what == TR_ARMED_TO_END) {
        if (here != NULL && what == PyTrace_OPCODE && ends_at(state, here, frame)) return -1;
        return pass_on(entry, here != NULL && here->opcodes, frame, what, argument);
    }
    put_back(state->arms, entry);
    tr_turnstile_pass(state);
    int result = pass_on(entry, entry->opcodes, frame, what, argument);
    drop(entry);
    return result;
}

static bool is_true(PyObject *object, const char *attribute) {
    PyObject *value = PyObject_GetAttrString(object, attribute);
    bool result = value == Py_True;
    Py_XDECREF(value);
    return result;
}

static bool arm_at(tr_state *state, PyThreadState *thread, PyObject *frame, int what) {
    tr_armed *first = find(state->arms, thread), *entry = add(state->arms, thread, frame, what);
    if (entry == NULL) return false;
    entry->trace = first != NULL ? first->trace : thread->c_tracefunc;
    entry->trace_argument = Py_XNewRef(first != NULL ? first->trace_argument : thread->c_traceobj);
    entry->opcodes = is_true(frame, "f_trace_opcodes");
    if (first == NULL) set_trace(thread, on_event, state->module);
    if (PyObject_SetAttrString(frame, "f_trace_opcodes", Py_True) == 0) return true;
    PyErr_Clear();
    put_back(state->arms, entry);
    drop(entry);
    return false;
}

static PyObject *place_of(PyFrameObject *frame) { return Py_NewRef((PyObject *)frame); }

/* The program has set another trace function since. */
static bool is_lost(const tr_armed *entry) { return entry->thread->c_tracefunc != on_event; }

void tr_arms_prepare(tr_state *state) { (void)state; }

#else

/* ---- 3.12 and later: sys.monitoring -------------------------------------------------------------*/

/* For what is armed at this code. To end it takes all instructions, as an error raised at a JUMP event passes all
 * handlers by (on 3.12 and 3.13). */
static long wanted(tr_arms *arms, PyObject *code) {
    long events = 0;
    for (int i = 0; i < BUCKETS; i++)
        for (tr_armed *entry = arms->of[i]; entry != NULL; entry = entry->next)
            if (entry->place == code) events |= entry->what == TR_ARMED_TO_END ? arms->instruction : arms->events;
    return events;
}

static bool set_events(tr_arms *arms, PyObject *code, long events) {
    if (arms->set_local_events == NULL) return false;
    PyObject *done = PyObject_CallFunction(arms->set_local_events, "lOl", arms->tool, code, events);
    Py_XDECREF(done);
    if (done != NULL) return true;
    PyErr_Clear();
    Py_CLEAR(arms->set_local_events); /* the program has freed our id, and may give it to another tool */
    return false;
}

/* Off first: when a second tool comes to the code, a debugger say, 3.12 and 3.13 forget whose its INSTRUCTION events
 * were (update_instrumentation_data starts per_instruction_tools with nobody's). */
static bool renew(tr_arms *arms, PyObject *code) {
    return set_events(arms, code, 0) && set_events(arms, code, wanted(arms, code));
}

static void put_back(tr_arms *arms, tr_armed *entry) {
    take(arms, entry);
    set_events(arms, entry->place, wanted(arms, entry->place));
}

static void forget(tr_arms *arms, tr_armed *entry) { put_back(arms, entry); }

static void drop(tr_armed *entry) {
    Py_DECREF(entry->place);
    PyMem_RawFree(entry);
}

static PyObject *on_event(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    tr_state *state = tr_state_of(module);
    tr_armed *entry = find(state->arms, PyThreadState_Get());
    if (entry == NULL || entry->what != TR_ARMED_TO_PASS) Py_RETURN_NONE;
    put_back(state->arms, entry);
    drop(entry);
    tr_turnstile_pass(state);
    Py_RETURN_NONE;
}

/* on_instruction(code, offset) */
static PyObject *on_instruction(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    tr_state *state = tr_state_of(module);
    tr_armed *entry = count == 2 ? find_at(state->arms, PyThreadState_Get(), args[0]) : NULL;
    if (entry == NULL || entry->what != TR_ARMED_TO_END) Py_RETURN_NONE;
    if (ends_here(state, entry, (PyCodeObject *)args[0], (int)PyLong_AsLong(args[1]))) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef on_event_method = {"turnstile", (PyCFunction)(void (*)(void))on_event, METH_FASTCALL,
                                      "What a thread calls that is armed to pass."};
static PyMethodDef on_instruction_method = {"end", (PyCFunction)(void (*)(void))on_instruction, METH_FASTCALL,
                                            "What a thread calls that is armed to end."};

/* Use a tool id that nobody uses: 3 and 4 have no meaning of their own. */
static bool take_tool(tr_arms *arms, PyObject *monitoring) {
    for (arms->tool = 4; arms->tool >= 3; arms->tool--) {
        PyObject *done = PyObject_CallMethod(monitoring, "use_tool_id", "ls", arms->tool, "tailrace");
        Py_XDECREF(done);
        if (done != NULL) return true;
        PyErr_Clear();
    }
    return false;
}

/* Have the function called at this event. Returns the event, or 0. */
static long register_for(tr_state *state, PyObject *monitoring, const char *name, PyMethodDef *method) {
    PyObject *function = PyCFunction_New(method, state->module);
    PyObject *events = PyObject_GetAttrString(monitoring, "events");
    PyObject *event = events == NULL ? NULL : PyObject_GetAttrString(events, name);
    PyObject *old = event == NULL || function == NULL
                        ? NULL
                        : PyObject_CallMethod(monitoring, "register_callback", "lOO", state->arms->tool,
                                              event, function);
    long result = old == NULL ? 0 : PyLong_AsLong(event);
    Py_XDECREF(old);
    Py_XDECREF(event);
    Py_XDECREF(events);
    Py_XDECREF(function);
    return result;
}

/* Whatever a thread does that is more than straight-line code. */
static const char *const event_names[] = {"JUMP",      "PY_START", "PY_RESUME",
                                          "PY_RETURN", "PY_YIELD", "CALL"};

static bool register_tool(tr_state *state, PyObject *monitoring) {
    tr_arms *arms = state->arms;
    if (!take_tool(arms, monitoring)) return false;
    for (size_t i = 0; i < sizeof event_names / sizeof *event_names; i++) {
        long event = register_for(state, monitoring, event_names[i], &on_event_method);
        if (event == 0) return false;
        arms->events |= event;
    }
    arms->instruction = register_for(state, monitoring, "INSTRUCTION", &on_instruction_method);
    return arms->instruction != 0;
}

void tr_arms_prepare(tr_state *state) {
    tr_arms *arms = state->arms;
    if (arms->set_local_events != NULL) return;
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed */
    Py_XINCREF(monitoring);
    if (monitoring != NULL && register_tool(state, monitoring))
        arms->set_local_events = PyObject_GetAttrString(monitoring, "set_local_events");
    PyErr_Clear();
    Py_XDECREF(monitoring);
}

static bool arm_at(tr_state *state, PyThreadState *thread, PyObject *code, int what) {
    tr_armed *entry = add(state->arms, thread, code, what);
    if (entry == NULL) return false;
    if (renew(state->arms, code)) return true;
    put_back(state->arms, entry);
    drop(entry);
    return false;
}

static PyObject *place_of(PyFrameObject *frame) { return (PyObject *)PyFrame_GetCode(frame); }

static bool is_lost(const tr_armed *entry) {
    (void)entry;
    return false;
}

#endif

/* ---- Arming -------------------------------------------------------------------------------------*/

static void disarm(tr_arms *arms, PyThreadState *thread) {
    tr_armed *entry;
    while ((entry = find(arms, thread)) != NULL) {
        put_back(arms, entry);
        drop(entry);
    }
}

void tr_disarm(tr_state *state, PyThreadState *thread, int what) {
    tr_armed *entry = find(state->arms, thread);
    if (entry != NULL && entry->what == what) disarm(state->arms, thread);
}

static tr_armed *arm_in(tr_state *state, PyThreadState *thread, PyFrameObject *frame, int what) {
    PyObject *place = place_of(frame);
    tr_armed *entry = find_at(state->arms, thread, place);
    if (entry == NULL && arm_at(state, thread, place, what)) entry = find_at(state->arms, thread, place);
    if (entry != NULL) entry->stood = -1;
    Py_DECREF(place);
    return entry;
}

/* A deep recursion has the same code again and again. */
enum { DEEPEST = 100 };

static bool arm_frames(tr_state *state, PyThreadState *thread, int what) {
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    /* One at the turnstile may stand before a call instead of in it. */
    int stands = frame == NULL || thread->tracing > 0 ? -1 : PyFrame_GetLasti(frame);
    int left = what == TR_ARMED_TO_PASS ? 1 : DEEPEST;
    tr_armed *first = NULL;
    while (frame != NULL) {
        tr_armed *entry = arm_in(state, thread, frame, what);
        if (first == NULL) first = entry;
        PyFrameObject *outer = entry == NULL || --left == 0 ? NULL : PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = outer;
    }
    if (first != NULL) first->stood = stands;
    return first != NULL;
}

/* One that was armed is so anew: it may be elsewhere by now, and its events may be lost. */
bool tr_arm(tr_state *state, PyThreadState *thread, int what) {
    tr_armed *before = find(state->arms, thread);
    bool is_to_end = before != NULL && before->what == TR_ARMED_TO_END && !is_lost(before);
    if (is_to_end && what == TR_ARMED_TO_PASS) return false;
    int collects = PyGC_Disable(); /* a finalizer could let the thread go on */
    disarm(state->arms, thread);
    bool armed = arm_frames(state, thread, what);
    PyErr_Clear();
    if (collects) PyGC_Enable();
    return armed;
}

bool tr_is_armed(tr_state *state, PyThreadState *thread) { return find(state->arms, thread) != NULL; }

void tr_arms_forked(tr_state *state) {
    tr_arms *arms = state->arms;
    disarm(arms, PyThreadState_Get());
    for (int i = 0; i < BUCKETS; i++)
        while (arms->of[i] != NULL) { /* of threads that are no more */
            tr_armed *entry = arms->of[i];
            forget(arms, entry);
            drop(entry);
        }
}

/* ---- The module's part --------------------------------------------------------------------------*/

int tr_arms_init(tr_state *state) {
    state->arms = PyMem_RawCalloc(1, sizeof *state->arms);
    if (state->arms == NULL) PyErr_NoMemory();
    return state->arms == NULL ? -1 : 0;
}

int tr_arms_traverse(tr_arms *arms, visitproc visit, void *arg) {
#if PY_VERSION_HEX >= 0x030C0000
    if (arms != NULL) Py_VISIT(arms->set_local_events);
#else
    (void)arms, (void)visit, (void)arg;
#endif
    return 0;
}

void tr_arms_clear(tr_arms *arms) {
#if PY_VERSION_HEX >= 0x030C0000
    if (arms != NULL) Py_CLEAR(arms->set_local_events);
#else
    (void)arms;
#endif
}
