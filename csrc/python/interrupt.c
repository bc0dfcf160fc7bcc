/* interrupt.c: how Python code of a killed process is made to unwind: its thread is to raise Killed, which
 * it does at the next instruction that looks. `finally` and `with` let go of what the code holds.
 *
 * But a thread that waits for a lock raises as soon as it has got it, before it is in the `try` or in
 * the `with` that would let go of it: the lock would stay taken for ever, and with the one of a logging
 * handler (up to 3.12) every process would hang that logs. So a thread that is about to take something,
 * or to let go of it, is not interrupted there: by the names of its innermost function and of what that
 * calls, or is about to call if it stands still before it gets to see the interrupt (lock_code.c). The caller
 * tries again soon; nothing is lost, as a thread that waits in C does not unwind before it returns from there. Of
 * many that do nothing but take one lock, all but one are at it whenever somebody looks: so who is held back for
 * the second time is armed to raise Killed itself, where a loop of its ends next or the call returns that it
 * is in (armed.c). Only code that computes on in a function of such a name is interrupted there in the end.
 *
 * Where the interrupt is sent is where it hits, as the sender has the interpreter lock meanwhile; or at the
 * next call or loop, if the thread is at the turnstile or, since 3.13, gave the lock up to let others run.
 * On a free-threaded build the thread may be elsewhere by then, and its frames cannot be read: there nothing is
 * held back (3.13's logging takes its locks by `with` on the lock itself, which no interrupt gets into).
 *
 * What must be done whole on every build, because it holds something that no `with` lets go of, is run by
 * `uninterrupted`. */
#include "interrupt.h"

#include "armed.h"
#include "lock_code.h"
#include "loop.h"

#ifndef Py_GIL_DISABLED

enum { SEES_LATE = PY_VERSION_HEX >= 0x030D0000 }; /* see look_ahead */
enum { SEEN_LATE = -1 };                           /* beside what tr_host.interrupt returns */
enum { NEAREST = 8 };                              /* frames */

static bool is_near_a_lock(PyFrameObject *frame) {
    PyFrameObject *at = (PyFrameObject *)Py_NewRef(frame);
    bool found = false;
    for (int i = 0; at != NULL && i <= NEAREST && !found; i++) {
        PyCodeObject *code = PyFrame_GetCode(at);
        tr_text text;
        found = !tr_text_open(&text, code) || tr_text_mentions_a_lock(&text);
        tr_text_close(&text);
        Py_DECREF(code);
        PyFrameObject *outer = PyFrame_GetBack(at);
        Py_DECREF(at);
        at = outer;
    }
    Py_XDECREF(at);
    return found;
}

/* Since 3.13 who gave the interpreter lock up where it looks for requests sees the interrupt at its next look only,
 * wherever that is: maybe after it has returned, or in a trace function. Not who waits in a call, but that looks
 * the same. */
static int look_ahead(PyThreadState *thread, PyFrameObject *frame, const tr_text *text, int instruction) {
    if (tr_text_is_condition_wait(text, instruction)) return TR_INTERRUPTED;
    bool traced = thread->c_tracefunc != NULL || thread->c_profilefunc != NULL;
    return traced || is_near_a_lock(frame) ? SEEN_LATE : TR_INTERRUPTED;
}

static int look_at_frame(PyThreadState *thread, PyFrameObject *frame) {
    PyCodeObject *code = PyFrame_GetCode(frame);
    int instruction = PyFrame_GetLasti(frame), found = TR_INTERRUPTED;
    tr_text text;
    if (instruction >= 0 && tr_text_open(&text, code)) {
        found = tr_text_look(&text, instruction);
        if (SEES_LATE && found == TR_INTERRUPTED) found = look_ahead(thread, frame, &text, instruction);
        tr_text_close(&text);
    }
    Py_DECREF(code);
    return found;
}

/* Whether the thread may be where an interrupt would leave something taken. One in a trace function, which is called
 * anywhere, is let come out of it. */
static int look_at_thread(PyThreadState *thread) {
    if (thread->tracing > 0) return TR_HELD_WAITING;
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    int found = frame == NULL ? TR_INTERRUPTED : look_at_frame(thread, frame);
    Py_XDECREF(frame);
    return found;
}

/* Who would see it late is armed at once, so that what waits now does nothing more when it has waited; if it cannot be
 * armed, late is better than never. The caller may have an exception set, and it may hold a lock of the engine's:
 * so without a collection, and without letting go of what was armed before, which could run anything. */
static int look_or_arm(tr_state *state, PyThreadState *thread, int how) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int collects = PyGC_Disable();
    int found = look_at_thread(thread);
    bool late = found == SEEN_LATE;
    bool arms = how == TR_INTERRUPT_AGAIN || (late && !tr_is_armed(state, thread));
    bool armed = found != TR_INTERRUPTED && arms && tr_arm(state, thread, TR_ARMED_TO_END);
    if (late) found = armed || !arms ? TR_HELD_COMPUTING : TR_INTERRUPTED;
    if (collects) PyGC_Enable();
    PyErr_Restore(type, value, traceback);
    return found;
}

#endif

/* Up to 3.12 PyThreadState_SetAsyncExc makes all threads look until one has found something, and 3.11 lets no
 * traced thread get on meanwhile, which is for ever if the victim blocks. But whoever gets the interpreter
 * lock looks at its own field, and the victim must get it before it goes on, as it is ours now. */
static void send_killed(tr_state *state, PyThreadState *thread) {
#if PY_VERSION_HEX < 0x030D0000
    if (thread != PyThreadState_Get()) {
        Py_XSETREF(thread->async_exc, Py_NewRef(state->Killed));
        return;
    }
#endif
    PyThreadState_SetAsyncExc(thread->thread_id, state->Killed);
}

int tr_host_interrupt(void *context, void *thread, int how) {
    tr_state *state = context;
    tr_talk_interrupt(state, ((PyThreadState *)thread)->thread_id);
#ifndef Py_GIL_DISABLED
    int found = how == TR_INTERRUPT_AT_ONCE ? TR_INTERRUPTED : look_or_arm(state, thread, how);
    if (found != TR_INTERRUPTED) return found;
    if (how != TR_INTERRUPT) tr_disarm(state, thread, TR_ARMED_TO_END);
#else
    (void)how;
#endif
    send_killed(state, thread);
    return TR_INTERRUPTED;
}

/* Up to 3.12 taking an exception back leaves the request to look for one set, for all threads: every bytecode
 * that looks takes the slow way from then on, and a traced function never gets past its first. So it is
 * raised, where it does no harm. */
void tr_host_interrupt_clear(void *context, void *thread) {
    tr_state *state = context;
    tr_disarm(state, thread, TR_ARMED_TO_END);
#if PY_VERSION_HEX < 0x030D0000
    while (((PyThreadState *)thread)->async_exc != NULL) {
        /* Once more: another thread that took its own has taken the request for all. */
        PyThreadState_SetAsyncExc(((PyThreadState *)thread)->thread_id, state->Killed);
        PyObject *done = PyObject_CallNoArgs(state->python.do_nothing);
        if (done == NULL) PyErr_Clear();
        Py_XDECREF(done);
    }
#else
    PyThreadState_SetAsyncExc(((PyThreadState *)thread)->thread_id, NULL);
#endif
}

/* uninterrupted(function, *args) */
static PyObject *uninterrupted(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "uninterrupted() needs a function");
        return NULL;
    }
    tr_engine *engine = atomic_load(&tr_state_of(module)->engine);
    bool masked = engine != NULL && tr_mask(engine);
    PyObject *result = PyObject_Vectorcall(args[0], args + 1, (size_t)count - 1, NULL);
    if (masked) tr_unmask(engine);
    return result;
}

PyMethodDef tr_interrupt_functions[] = {
    {"uninterrupted", (PyCFunction)(void (*)(void))uninterrupted, METH_FASTCALL,
     "uninterrupted(function, /, *args)\n--\n\nCall the function, which ends soon by itself: a kill of "
     "the running process waits for it."},
    {NULL, NULL, 0, NULL},
};
