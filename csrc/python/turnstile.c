/* turnstile.c: the binding's part of the turnstile (see core/turnstile.h for who is armed, when and why; how is in
 * armed.c): what an armed thread does, and the interpreter's switch interval.
 *
 * Only builds with the interpreter lock have it, and that lock protects all of this. */
#include "turnstile.h"

#include "armed.h"

struct tr_turnstile_state {
    PyObject *set_interval, *get_interval; /* sys.setswitchinterval and its twin; owned */
    double interval;                       /* the program's, while ours is set; or 0 */
    double ours;
};

void tr_turnstile_pass(tr_state *state) {
    tr_engine *engine = atomic_load(&state->engine);
    if (engine == NULL || !tr_turnstile_arrive(engine)) return;
    Py_BEGIN_ALLOW_THREADS
    tr_turnstile_wait(engine);
    Py_END_ALLOW_THREADS
}

/* ---- Host functions -----------------------------------------------------------------------------*/

void tr_turnstile_disarm(void *context, void *thread) { tr_disarm(context, thread, TR_ARMED_TO_PASS); }

bool tr_turnstile_arm(void *context, void *thread) { return tr_arm(context, thread, TR_ARMED_TO_PASS); }

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
}
