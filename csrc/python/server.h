/* server.h: a GenServer's process: what its parts, and the stages built on it, share.
 *
 * A tr_server is the state of one server process. It is made by the caller of start, then owned by the
 * process: only the thread that runs the process touches it (under the interpreter lock or not), and it
 * is released, attached, when the process is buried. So no field has a lock: the run queues hand a process,
 * and all that was written in its last slice, from one thread to the next. The user's state lives
 * on `instance`, for which the same holds.
 *
 * A server on the event loop (task.h) is stepped: a message at a time, and none while a callback that is a
 * coroutine is suspended. Its first step is taken at once, inside the slice; only if it suspends there the
 * server's task goes on with it, and hands its result to server_resumed.
 *
 * A stage is a server with an extension: `extend` says how its protocol messages and the events of
 * its callbacks are handled; everything else (calls, casts, infos, timeouts, ends) is the server's. */
#ifndef TR_PYTHON_SERVER_H
#define TR_PYTHON_SERVER_H

#include "state.h"

typedef struct tr_server tr_server;

typedef struct tr_server_extension {
    /* `init` returned this: NULL taken care of; else the object for the server to interpret (new
     * reference, may be None). NULL with an exception set: the start fails with it. `result` is
     * stolen. Called once, before anything else. */
    PyObject *(*started)(tr_process *self, tr_server *server, PyObject *result);
    /* A message of kind TR_MESSAGE_USER or above. 0; or -1 with an exception set: the server ends. */
    int (*message)(tr_process *self, tr_server *server, tr_message *message);
    /* A TERM, DOWN or EXIT before handle_info gets it: true if it was taken care of. With an
     * exception set the server ends. */
    bool (*info)(tr_process *self, tr_server *server, tr_message *message);
    /* The events of an action (stolen) that this callback returned. 0; or -1 with an exception set, or
     * without one when the process has ended. */
    int (*emit)(tr_process *self, tr_server *server, PyObject *events, const char *callback);
    /* Before terminate runs and after it, with the reason. May be NULL. */
    void (*ending)(tr_process *self, tr_server *server, tr_reason *reason);
    void (*release)(tr_server *server);
} tr_server_extension;

/* A callback that is a coroutine and has been suspended: what to do with its result. */
typedef struct tr_suspended {
    int what;              /* 0: none is */
    const char *callback;
    PyObject *subject;     /* owned: the message it handles, or NULL */
    tr_pid from;           /* of the call it answers */
    tr_ref ref;            /* 0: it answers none */
    tr_reason *reason;     /* owned: of a terminate, and the two below */
    PyObject *exception, *reply; /* owned, or NULL */
} tr_suspended;

struct tr_server {
    tr_state *state;     /* borrowed */
    PyObject *instance;  /* owned */
    PyObject *context;   /* owned */
    PyObject *args, *keywords; /* owned until init ran; keywords may be NULL */
    tr_timer *timer;     /* owned: the one of NoReply(timeout=), or NULL */
    tr_ref timeout_ref;  /* of the timeout that still counts, or 0 */
    tr_message *stash;   /* what came before init ran, newest first */
    bool ready;          /* init succeeded */
    const tr_server_extension *extend; /* NULL for plain servers */
    void *extension;     /* the extension's own */
    struct tr_owner *owner; /* owned: of a server on the event loop, else NULL */
    tr_suspended suspended;
};

extern const tr_behaviour tr_server_behaviour;
/* The same for servers with an extension, so that anybody can tell a stage from a server. */
extern const tr_behaviour tr_extended_behaviour;
/* The same for servers on the event loop. */
extern const tr_behaviour tr_async_server_behaviour;

/* Call a method of the instance with one argument. New reference or NULL with an exception. */
PyObject *tr_server_call(tr_server *server, PyObject *method, PyObject *argument);

/* Raise BadReturn: the callback must not return this value (borrowed). Always -1. */
int tr_raise_bad_return(tr_server *server, const char *callback, PyObject *value);

/* Interpret what a callback returned (stolen): None, NOREPLY, NoReply, Stop, events. For the callbacks
 * that do not answer calls. 0 to go on; -1 when the process has ended or is dead. */
int tr_server_result(tr_process *self, tr_server *server, PyObject *result, const char *callback,
                     PyObject *message);

/* A callback raised (the exception is set), or the server is to stop for `reason` (taken over): run
 * terminate, log, end the process. */
void tr_server_crash(tr_process *self, tr_server *server, const char *callback, PyObject *message);
void tr_server_stop(tr_process *self, tr_server *server, tr_reason *reason);

/* End `process` with the exception that is set; log it unless it says not to. `server`: a ProcessExit
 * with an unclean reason is logged too (O3). */
void tr_exit_raised(tr_state *state, tr_process *process, const char *what, PyObject *message,
                    bool server);
/* The reason the set exception stands for; clears it. *exception gets it (new) when it is to be logged. */
tr_reason *tr_raised_reason(tr_state *state, tr_engine *engine, bool server,
                            PyObject **exception);
void tr_log_crash(tr_state *state, tr_process *process, const char *what, PyObject *message,
                  PyObject *exception);

/* ---- For server_start.c --------------------------------------------------------------------------*/

/* The message that asks a server for its init; those above are server.c's and the extensions'. */
enum { TR_SERVER_INIT = 0x10000 };
enum { TR_INIT_OK, TR_INIT_IGNORE, TR_INIT_FAILED };

/* Make the instance, and the state of its process. NULL with an exception. */
tr_server *tr_server_new(tr_state *state, PyObject *class, PyObject *args, PyObject *keywords,
                         const tr_server_extension *extend, void *extension);
/* Free a state that no process has taken over (the process does so itself when it is buried). */
void tr_server_release(void *server);
/* It is to run on the event loop. -1 with an exception. */
int tr_server_join_loop(tr_server *server);
/* Run init, as its process, on the thread that has entered that. TR_INIT_FAILED: *reason (owned) is why;
 * then, and after TR_INIT_IGNORE, the process has ended. */
int tr_server_init_here(tr_process *self, tr_server *server, tr_reason **reason);

/* ---- Starting -----------------------------------------------------------------------------------*/

/* server_start.c. Start a server; `extend` may be NULL. Arguments are those of the Python function core.start_server. */
PyObject *tr_server_start(PyObject *module, PyObject *args, const tr_server_extension *extend,
                          void *extension);

/* The same, but init is awaited by a task of the running event loop: (pid, (future, ref)). */
PyObject *tr_server_begin(PyObject *module, PyObject *args, const tr_server_extension *extend,
                          void *extension);

/* Which callback handles messages of this kind; "" for an extension's own. */
const char *tr_server_callback_name(uint32_t kind);

/* process.c */
/* What a function's process runs, borrowed; NULL for others. */
PyObject *tr_function_callable(tr_process *process);
/* Whether it is a server or a stage, wherever it runs: its state is a tr_server. process.c */
bool tr_is_server(const tr_process *self);
int tr_priority(PyObject *object, int *priority);
int tr_scheduler_kind(PyObject *object, int default_kind, int *kind);
PyObject *tr_raise_taken(tr_state *state, const char *code, tr_pid pid);

#endif
