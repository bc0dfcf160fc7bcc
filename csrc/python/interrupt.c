/* interrupt.c: how Python code of a killed process is made to unwind: its thread is to raise Killed, which
 * it does at the next instruction that looks. `finally` and `with` let go of what the code holds.
 *
 * But a thread that waits for a lock raises as soon as it has got it, before it is in the `try` or in
 * the `with` that would let go of it: the lock would stay taken for ever, and with the one of a logging
 * handler (up to 3.12) every process would hang that logs. So a thread that is about to take something,
 * or to let go of it, is not interrupted there: by the names of its innermost function and of what that
 * calls, or is about to call if it stands still before it gets to see the interrupt. The caller tries again soon;
 * nothing is lost, as a thread that waits in C does not unwind before it returns from there. Of many that do
 * nothing but take one lock, all but one are at it whenever somebody looks: so who is held back for the
 * second time is armed to raise Killed itself, where a loop of its ends next or the call returns that it
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

#include <opcode.h>

#include "armed.h"
#include "loop.h"

static bool is_of_a_lock(PyObject *name) {
    static const char *const names[] = {"acquire",     "release",          "__enter__",
                                        "__exit__",    "_acquire_restore", "_release_save",
                                        "_acquireLock", "_releaseLock"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) return true;
    return false;
}

static bool is_back_jump(int opcode) {
#if PY_VERSION_HEX < 0x030C0000
    if (opcode == POP_JUMP_BACKWARD_IF_TRUE || opcode == POP_JUMP_BACKWARD_IF_FALSE) return true;
#endif
    return opcode == JUMP_BACKWARD;
}

/* That waits by taking a lock which nobody else will want, and has its `try`: whoever is killed there must
 * not go on with what it waited for. */
static bool is_condition_wait(PyObject *name) {
    return PyUnicode_CompareWithASCIIString(name, "wait") == 0;
}

enum { NEARBY = 24, LONGEST_CALL = 200 }; /* instructions, caches among them */

static bool is_call(int opcode) {
#ifdef CALL_KW
    if (opcode == CALL_KW) return true;
#endif
    return opcode == CALL || opcode == CALL_FUNCTION_EX;
}

/* Where Python looks for interrupts. At the turnstile a thread stands elsewhere, too, and looks at the next one. */
static bool is_look(int opcode) { return is_call(opcode) || opcode == RESUME || is_back_jump(opcode); }

static bool names_a_lock(PyObject *names, int index) {
    return index >= 0 && index < PyTuple_GET_SIZE(names) && is_of_a_lock(PyTuple_GET_ITEM(names, index));
}

/* The instruction that loads a method, where in its argument the number of the name begins, and the bit that says
 * that it is no plain attribute. */
#if PY_VERSION_HEX < 0x030C0000
enum { METHOD = LOAD_METHOD, METHOD_BITS = 0, IS_METHOD = 0 };
#else
enum { METHOD = LOAD_ATTR, METHOD_BITS = 1, IS_METHOD = 1 };
#endif

static bool is_method(const unsigned char *at) { return at[0] == METHOD && (at[1] & IS_METHOD) == IS_METHOD; }

static bool any_names_a_lock(PyObject *names) {
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++)
        if (names_a_lock(names, (int)i)) return true;
    return false;
}

static bool has_free_lock(PyCodeObject *code) {
    PyObject *free = PyCode_GetFreevars(code), *cells = PyCode_GetCellvars(code);
    bool found = any_names_a_lock(free) || any_names_a_lock(cells);
    Py_XDECREF(free);
    Py_XDECREF(cells);
    return found;
}

/* Whether it loads anything that is named like a lock's. */
static bool loads_lock(PyCodeObject *code, PyObject *locals, const unsigned char *at) {
    if (at[0] == METHOD) return names_a_lock(code->co_names, at[1] >> METHOD_BITS);
    if (at[0] == LOAD_GLOBAL) return names_a_lock(code->co_names, at[1] >> 1);
    if (at[0] == LOAD_DEREF) return has_free_lock(code);
    return at[0] == LOAD_FAST && names_a_lock(locals, at[1]);
}

static bool is_at_call(int opcode) {
#if PY_VERSION_HEX < 0x030C0000
    if (opcode == PRECALL) return true;
#endif
    return is_call(opcode);
}

/* Whether what is to be called is loaded here: a method, a global, or a variable beside PUSH_NULL. *at moves to what
 * has the name. */
static bool loads_callee(const unsigned char *text, int size, int *at) {
    const unsigned char *here = text + *at;
    if (is_method(here) || (here[0] == LOAD_GLOBAL && (here[1] & 1) != 0)) return true;
    if (here[0] != PUSH_NULL) return false;
#if PY_VERSION_HEX < 0x030D0000
    *at += 2;
#else
    do *at -= 2;
    while (*at >= 0 && text[*at] == CACHE);
#endif
    return *at >= 0 && *at < size;
}

/* Whether the method of a lock is called at this instruction or was somewhat before. What the arguments of the call
 * call is none of it. */
static bool lock_was_called(PyCodeObject *code, const unsigned char *text, int size, int instruction) {
    PyObject *locals = PyCode_GetVarnames(code);
    bool calls = is_at_call(text[instruction]), found = locals == NULL;
    int last = instruction - 2 * (calls ? LONGEST_CALL : NEARBY), nested = 0, at;
    for (int i = calls ? instruction - 2 : instruction; i >= 0 && i >= last && !found; i -= 2) {
        at = i;
        if (calls && is_call(text[i])) nested++;
        if (!loads_callee(text, size, &at)) continue;
        found = nested == 0 && loads_lock(code, locals, text + at);
        if (nested-- == 0) break;
    }
    Py_XDECREF(locals);
    return found;
}

/* Whether one will be called before the thread looks for interrupts. */
static bool lock_will_be_called(PyCodeObject *code, const unsigned char *text, int size, int instruction) {
    PyObject *locals = is_look(text[instruction]) ? NULL : PyCode_GetVarnames(code);
    if (locals == NULL) return false;
    bool found = false;
    for (int i = instruction; i < size && !is_look(text[i]) && !found; i += 2)
        found = loads_lock(code, locals, text + i);
    Py_DECREF(locals);
    return found;
}

/* Whether the thread may be where an interrupt would leave something taken, as tr_host.interrupt says. At the end of
 * a loop what was taken in it is in good hands. */
static int look_at_text(PyCodeObject *code, const unsigned char *text, int size, int instruction) {
    bool loops = is_back_jump(text[instruction]);
    if (is_of_a_lock(code->co_name)) return loops ? TR_HELD_COMPUTING : TR_HELD_WAITING;
    if (!loops && lock_was_called(code, text, size, instruction) && !is_condition_wait(code->co_name))
        return TR_HELD_WAITING;
    return lock_will_be_called(code, text, size, instruction) ? TR_HELD_WAITING : TR_INTERRUPTED;
}

/* Where the call before this instruction is, which has just returned; or -1. */
static int call_before(const unsigned char *text, int instruction) {
    int at = instruction - 2;
    while (at >= 0 && text[at] == CACHE) at -= 2;
    return at >= 0 && is_call(text[at]) ? at : -1;
}

/* A conditional jump back, of 3.11, is none: its condition may be that something was taken. */
static bool may_end(PyCodeObject *code, const unsigned char *text, int size, int instruction, int stood) {
    bool loops = text[instruction] == JUMP_BACKWARD;
    int at = loops ? instruction : call_before(text, instruction);
    if (at < 0 || (!loops && at != stood)) return false; /* not where a Python function has returned */
    return look_at_text(code, text, size, at) == TR_INTERRUPTED;
}

bool tr_may_end_at(PyCodeObject *code, int instruction, int stood) {
    PyObject *bytes = instruction < 0 ? NULL : PyCode_GetCode(code);
    bool ends = false;
    if (bytes == NULL)
        PyErr_Clear();
    else
        ends = may_end(code, (const unsigned char *)PyBytes_AS_STRING(bytes), (int)PyBytes_GET_SIZE(bytes),
                       instruction, stood);
    Py_XDECREF(bytes);
    return ends;
}

#ifndef Py_GIL_DISABLED

static int look_at_code(PyCodeObject *code, int instruction) {
    PyObject *bytes = instruction < 0 ? NULL : PyCode_GetCode(code);
    if (bytes == NULL) return TR_INTERRUPTED;
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(bytes);
    int found = look_at_text(code, text, (int)PyBytes_GET_SIZE(bytes), instruction);
    Py_DECREF(bytes);
    return found;
}

enum { SEES_LATE = PY_VERSION_HEX >= 0x030D0000 }; /* see look_ahead */

#if PY_VERSION_HEX >= 0x030D0000

static bool mentions_a_lock(PyCodeObject *code) {
    PyObject *locals = PyCode_GetVarnames(code);
    bool found = any_names_a_lock(code->co_names) || any_names_a_lock(locals) || has_free_lock(code);
    Py_XDECREF(locals);
    return found;
}

enum { NEAREST = 8 }; /* frames */

/* Since 3.13 who gave the interpreter lock up where it looks for requests sees the interrupt at its next look only,
 * wherever that is: maybe after it has returned, or in a trace function. Takes the frame over. */
static int look_ahead(PyThreadState *thread, PyFrameObject *frame) {
    bool found = thread->c_tracefunc != NULL;
    for (int i = 0; frame != NULL; i++) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        found = found || mentions_a_lock(code);
        PyFrameObject *outer = found || i == NEAREST ? NULL : PyFrame_GetBack(frame);
        Py_DECREF(code);
        Py_DECREF(frame);
        frame = outer;
    }
    return found ? TR_HELD_COMPUTING : TR_INTERRUPTED;
}

#else

static int look_ahead(PyThreadState *thread, PyFrameObject *frame) {
    (void)thread;
    Py_DECREF(frame);
    return TR_INTERRUPTED;
}

#endif

/* Whether the thread may be where an interrupt would leave something taken. One in a trace function, which is called
 * anywhere, is let come out of it. */
static int look_at_thread(PyThreadState *thread) {
    if (thread->tracing > 0) return TR_HELD_WAITING;
    PyFrameObject *frame = PyThreadState_GetFrame(thread);
    if (frame == NULL) return TR_INTERRUPTED;
    PyCodeObject *code = PyFrame_GetCode(frame);
    int found = look_at_code(code, PyFrame_GetLasti(frame));
    Py_DECREF(code);
    if (found == TR_INTERRUPTED) return look_ahead(thread, frame);
    Py_DECREF(frame);
    return found;
}

/* What may see its interrupt too late is armed at once, so that what waits now does nothing more when it has waited. The
 * caller may have an exception set, and it may hold a lock of the engine's: so without a collection, and
 * without letting go of what was armed before, which could run anything. */
static int look_or_arm(tr_state *state, PyThreadState *thread, int how) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int collects = PyGC_Disable();
    int found = look_at_thread(thread);
    bool late = SEES_LATE && found == TR_HELD_COMPUTING && !tr_is_armed(state, thread);
    if (found != TR_INTERRUPTED && (late || how == TR_INTERRUPT_AGAIN)) tr_arm(state, thread, TR_ARMED_TO_END);
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
