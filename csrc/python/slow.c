/* slow.c: what the core finds slow, told to the package, which logs it (_slow.py).
 *
 * Called attached: on the core's reporter thread, while the callback still runs, or on the callback's own thread
 * after it. No engine lock is held. */
#include "server.h"

tr_term tr_host_subject(void *context, tr_process *process) {
    (void)context;
    const tr_behaviour *behaviour = tr_process_behaviour(process);
    if (behaviour == &tr_server_behaviour || behaviour == &tr_extended_behaviour)
        return Py_XNewRef(((tr_server *)tr_process_state(process))->instance);
    return Py_XNewRef(tr_function_callable(process));
}

/* The thread's Python frame, new reference; NULL without an exception if it cannot be had. The function is
 * called from C, so no bytecode runs here that would let the callback go on before its frame is taken. Without
 * an interpreter lock only the frames of a thread that blocks hold still to be read. */
static PyObject *frame_of(const tr_slow *slow) {
#ifdef Py_GIL_DISABLED
    if (slow->how != TR_SLOW_BLOCKS) return NULL;
#endif
    if (slow->over) return NULL;
    PyObject *frame = NULL, *function = PySys_GetObject("_current_frames");
    PyObject *frames = function == NULL ? NULL : PyObject_CallNoArgs(function);
    PyObject *thread = frames == NULL ? NULL : PyLong_FromUnsignedLongLong(slow->thread);
    if (thread != NULL && PyDict_Check(frames))
        frame = Py_XNewRef(PyDict_GetItemWithError(frames, thread));
    Py_XDECREF(thread);
    Py_XDECREF(frames);
    PyErr_Clear();
    return frame;
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
    PyObject *frame = frame_of(slow);
    PyObject *pid = tr_pid_new(state, slow->pid);
    PyObject *done = NULL;
    if (pid != NULL)
        done = PyObject_CallFunction(state->python.log_slow, "OOssdOO", pid,
                                     slow->subject == NULL ? Py_None : (PyObject *)slow->subject,
                                     tr_server_callback_name(slow->kind), how[slow->how],
                                     (double)slow->elapsed / 1e9, slow->over ? Py_True : Py_False,
                                     frame == NULL ? Py_None : frame);
    finish(state, done);
    Py_XDECREF(pid);
    Py_XDECREF(frame);
    Py_XDECREF((PyObject *)slow->subject);
}

void tr_host_out_of_threads(void *context, uint32_t limit, bool by_system) {
    tr_state *state = context;
    finish(state, PyObject_CallFunction(state->python.log_out_of_threads, "IO", limit,
                                        by_system ? Py_True : Py_False));
}
