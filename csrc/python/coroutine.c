/* coroutine.c: see coroutine.h. */
#include "coroutine.h"

#include "server.h"

/* ---- Driving a coroutine ------------------------------------------------------------------------*/

/* Throw the exception that is set into it, where it waits. As PyIter_Send. */
static PySendResult throw_into(PyObject *coroutine, PyObject **result) {
    PyObject *value = tr_take_exception();
    *result = value == NULL ? NULL : PyObject_CallMethod(coroutine, "throw", "O", value);
    Py_XDECREF(value);
    if (*result != NULL) return PYGEN_NEXT;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) return PYGEN_ERROR;
    PyErr_Clear(); /* it caught the exception and returned: nobody asks for what */
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

int tr_drive_on(tr_state *state, tr_process *self, tr_drive *drive, int *wait, uint64_t *deadline,
                PyObject **result) {
    *wait = TR_STEP_AGAIN;
    if (drive->wait != NULL) *wait = tr_wait_look(state, self, drive->wait, deadline);
    if (*wait != TR_STEP_AGAIN) return TR_DRIVE_WAITS;
    Py_CLEAR(drive->wait);
    PySendResult sent = PyIter_Send(drive->coroutine, Py_None, result);
    while (sent == PYGEN_NEXT) {
        drive->wait = tr_wait_take(state, self, *result);
        if (drive->wait != NULL) {
            *wait = tr_wait_look(state, self, drive->wait, deadline);
            return TR_DRIVE_WAITS;
        }
        sent = throw_into(drive->coroutine, result);
    }
    Py_CLEAR(drive->coroutine);
    return sent == PYGEN_RETURN ? TR_DRIVE_RETURNED : TR_DRIVE_RAISED;
}

/* The corpse is still the thread's process, so that whatever the coroutine does with the engine fails. */
void tr_drive_close(tr_state *state, tr_drive *drive) {
    PyObject *coroutine = drive->coroutine;
    drive->coroutine = NULL;
    Py_CLEAR(drive->wait);
    if (coroutine == NULL) return;
    PyObject *done = PyObject_CallMethod(coroutine, "close", NULL);
    tr_engine *engine = atomic_load(&state->engine);
    tr_process *self = engine == NULL ? NULL : tr_self_or_null(engine);
    if (done == NULL && !PyErr_ExceptionMatches(state->Killed) && self != NULL) {
        PyObject *exception;
        tr_reason_release(tr_raised_reason(state, engine, false, &exception));
        if (exception != NULL) tr_log_crash(state, self, "cleanup", coroutine, exception);
        Py_XDECREF(exception);
    }
    PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(coroutine);
}

/* ---- Coroutine functions as processes -----------------------------------------------------------*/

/* Owned by its process; touched only by the thread that runs that. */
typedef struct coroutine {
    tr_state *state;           /* borrowed */
    PyObject *callable;        /* owned */
    PyObject *args, *keywords; /* owned; until the first step; keywords may be NULL */
    PyObject *context;         /* owned */
    tr_drive drive;
} coroutine;

static void enter(coroutine *self) {
    if (PyContext_Enter(self->context) != 0) PyErr_Clear();
}

static void leave(coroutine *self) {
    if (PyContext_Exit(self->context) != 0) PyErr_Clear();
}

static void coroutine_begin(tr_process *process, void *opaque) {
    (void)process;
    enter(opaque);
}

static void coroutine_end(tr_process *process, void *opaque) {
    (void)process;
    leave(opaque);
}

/* Call the function: here and not in spawn, which never fails because of it (O1). */
static int make(coroutine *self) {
    if (self->args == NULL) return 0;
    self->drive.coroutine = PyObject_Call(self->callable, self->args, self->keywords);
    Py_CLEAR(self->args);
    Py_CLEAR(self->keywords);
    return self->drive.coroutine == NULL ? -1 : 0;
}

static int coroutine_step(tr_process *process, void *opaque, uint64_t *deadline) {
    coroutine *self = opaque;
    PyObject *result = NULL;
    int wait = TR_STEP_AGAIN, how = TR_DRIVE_RAISED;
    if (make(self) == 0)
        how = tr_drive_on(self->state, process, &self->drive, &wait, deadline, &result);
    if (how == TR_DRIVE_WAITS) return wait;
    Py_XDECREF(result);
    if (how == TR_DRIVE_RETURNED)
        tr_exit_self(process, tr_reason_constant(TR_NORMAL));
    else
        tr_exit_raised(self->state, process, "function", self->callable, false);
    return TR_STEP_AGAIN;
}

static void coroutine_release(void *opaque) {
    coroutine *self = opaque;
    if (self->drive.coroutine != NULL) {
        enter(self);
        tr_drive_close(self->state, &self->drive);
        leave(self);
    }
    Py_XDECREF(self->callable);
    Py_XDECREF(self->args);
    Py_XDECREF(self->keywords);
    Py_XDECREF(self->context);
    PyMem_RawFree(self);
}

const tr_behaviour tr_coroutine_behaviour = {.name = "coroutine",
                                             .begin = coroutine_begin,
                                             .end = coroutine_end,
                                             .step = coroutine_step,
                                             .release = coroutine_release};

PyObject *tr_coroutine_callable(void *state) { return ((coroutine *)state)->callable; }

void *tr_coroutine_new(tr_state *state, PyObject *callable, PyObject *args, PyObject *keywords) {
    coroutine *self = PyMem_RawCalloc(1, sizeof *self);
    if (self == NULL) return PyErr_NoMemory();
    self->state = state;
    self->callable = Py_NewRef(callable);
    self->args = Py_NewRef(args);
    self->keywords = Py_XNewRef(keywords);
    self->context = PyContext_CopyCurrent();
    if (self->context != NULL) return self;
    coroutine_release(self);
    return NULL;
}
