/* tailrace.h: the public C API of the engine.
 *
 * The engine runs lightweight processes that own a mailbox each, may be linked and watched, and are
 * run by a few threads. It knows nothing of the language its callbacks are written in: a message is
 * an opaque word (tr_term) that the host can release, a callback is a function pointer with a
 * context. Plain C types and opaque handles only, so that a foreign function interface can read
 * this file as it stands.
 *
 * Conventions. Functions return TR_OK (0) or a negative TR_E code. Times are nanoseconds of
 * CLOCK_MONOTONIC, or of the virtual clock; TR_FOREVER is no limit. Unless a paragraph says otherwise a function may be
 * called from any thread, never blocks, and never calls the host while it holds a lock. */
#ifndef TAILRACE_H
#define TAILRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t tr_pid; /* a process: slot below, generation above; 0 is none; never used twice */
typedef uint64_t tr_ref; /* unique within an engine; 0 is none */
typedef void *tr_term;   /* a word of the host's; the engine holds one reference to each it keeps */

enum {
    TR_OK = 0,
    TR_ENOMEM = -1,     /* out of memory; nothing has changed */
    TR_EDEAD = -2,      /* no such process runs */
    TR_EINVAL = -3,     /* an argument is out of range */
    TR_ENAME = -4,      /* the name is taken, or the process has one already */
    TR_ELIMIT = -5,     /* the configured number of processes or threads is reached */
    TR_ETIMEDOUT = -6,  /* the limit passed */
    TR_ESTOPPED = -7,   /* the engine is stopping or stopped */
    TR_EKILLED = -8,    /* the calling process is dead; it must unwind */
    TR_EINTR = -9,      /* a signal arrived while waiting */
    TR_EDEADLOCK = -10, /* waiting would close a cycle of processes that wait for each other */
    TR_EEXISTS = -11,   /* already there */
    TR_ESELF = -12      /* a process cannot do this to itself */
};

enum { TR_PRIORITY_LOW, TR_PRIORITY_NORMAL, TR_PRIORITY_HIGH, TR_PRIORITY_MAX };

/* How an end counts, for a supervisor's child as for a subscription: any end, any but a clean one,
 * none. */
enum { TR_PERMANENT, TR_TRANSIENT, TR_TEMPORARY };

/* Where a process runs: on the engine's core workers, one slice at a time; or on the elastic pool,
 * where it may block. TR_KIND_THREAD_OWN is a foreign thread that uses the engine. TR_KIND_PROCESS runs as
 * TR_KIND_THREAD: on the pool, where it waits for an operating-system process that does its work.
 * TR_KIND_ASYNC runs on the host's event loop (tailrace_loop.h) if its behaviour is stepped, and on the
 * pool if not. */
enum { TR_KIND_CORE, TR_KIND_THREAD, TR_KIND_THREAD_OWN, TR_KIND_PROCESS, TR_KIND_ASYNC };

enum { TR_STATUS_WAITING, TR_STATUS_RUNNABLE, TR_STATUS_RUNNING, TR_STATUS_EXITING };

typedef struct tr_engine tr_engine;
typedef struct tr_process tr_process;

/* ---- Exit reasons -------------------------------------------------------------------------------
 * An immutable, reference-counted value. The first six kinds are constants that need no counting. */

enum {
    TR_NORMAL,
    TR_SHUTDOWN,
    TR_KILL,
    TR_KILLED,
    TR_NOPROC,
    TR_TIMEOUT,
    TR_SHUTDOWN_WITH, /* ("shutdown", x): the term is the whole pair */
    TR_OTHER          /* the term is the reason */
};

typedef struct tr_reason tr_reason;

/* One of the constants, TR_NORMAL to TR_TIMEOUT. Never fails. */
tr_reason *tr_reason_constant(int kind);

/* A reason with a term; takes over the reference to the term. NULL when memory is short (the term is
 * released). */
tr_reason *tr_reason_new(tr_engine *engine, int kind, tr_term term);
tr_reason *tr_reason_retain(tr_reason *reason);
void tr_reason_release(tr_reason *reason);
int tr_reason_kind(const tr_reason *reason);
/* Borrowed; NULL for constants. */
tr_term tr_reason_term(const tr_reason *reason);
/* Whether this is a clean end: normal, shutdown or ("shutdown", x). */
bool tr_reason_is_clean(const tr_reason *reason);

/* ---- Messages -----------------------------------------------------------------------------------
 * What a mailbox holds. A message owns its term and its reason. Kinds below TR_MESSAGE_USER are the
 * engine's; a behaviour may use others between its own processes. */

enum {
    TR_MESSAGE_TERM,    /* term */
    TR_MESSAGE_CAST,    /* term */
    TR_MESSAGE_CALL,    /* from, ref, term: answer with tr_reply */
    TR_MESSAGE_EXIT,    /* from, reason: a trapped exit signal */
    TR_MESSAGE_DOWN,    /* from, ref, reason, term (the name that was watched, or NULL) */
    TR_MESSAGE_STOP,    /* from, ref, reason: asked to end with this reason */
    TR_MESSAGE_TIMEOUT, /* ref: a timer of the process's own */
    TR_MESSAGE_USER = 16
};

typedef struct tr_message {
    struct tr_message *next;
    uint32_t kind;
    uint32_t flags; /* the mailbox's own */
    tr_pid from;
    tr_ref ref;
    tr_term term;
    tr_reason *reason;
    uint64_t number; /* for a behaviour's own kinds */
} tr_message;

/* An empty message of this kind, or NULL when memory is short. */
tr_message *tr_message_new(uint32_t kind);

/* Release what a message owns, and the message. */
void tr_message_free(tr_engine *engine, tr_message *message);

/* No limit, where a deadline is asked for. */
#define TR_FOREVER UINT64_MAX

/* ---- Host and behaviours ------------------------------------------------------------------------
 * The host is the language above. An engine thread is "attached" while it may run host code. */

/* How a callback is slow: its thread sleeps; it computes; it computes and nobody gets the interpreter lock;
 * its thread sleeps and nobody gets the interpreter lock, which it or another thread keeps. */
enum { TR_SLOW_BLOCKS, TR_SLOW_SPINS, TR_SLOW_STALLS, TR_SLOW_STARVES };

#define TR_SLOW_FUNCTION UINT32_MAX

/* A callback of a process of kind TR_KIND_CORE, or a step on the host's event loop, that took longer than the limit,
 * waits in the engine apart. */
typedef struct tr_slow {
    tr_pid pid;
    tr_term subject;  /* tr_host.subject's; the host's to release */
    uint32_t kind;    /* of the message, or TR_SLOW_FUNCTION */
    int how;
    uint64_t elapsed;
    bool over;        /* it has ended; else it still ran a moment ago */
    bool on_loop;     /* the event loop waits for it */
    uint64_t thread;  /* pthread_self() of its thread; 0 if over */
} tr_slow;

enum { TR_INTERRUPTED, TR_HELD_WAITING, TR_HELD_COMPUTING };
enum { TR_INTERRUPT, TR_INTERRUPT_AGAIN, TR_INTERRUPT_AT_ONCE };

typedef struct tr_host {
    void *context;
    /* Drop one reference. Any thread, attached or not; never called under a lock. */
    void (*release)(void *context, tr_term term);
    /* On a new engine thread, detached: make what attach needs; NULL on failure. */
    void *(*thread_start)(void *context);
    void (*thread_stop)(void *context, void *thread);
    void (*attach)(void *context, void *thread);
    void (*detach)(void *context, void *thread);
    /* Make the code that this engine thread runs unwind soon (kill). The caller is attached.
     * TR_INTERRUPTED, or this is no good moment, try again soon: the code may wait, or it computes. The thread
     * may be left to find a good moment itself: it calls tr_interrupted then.
     * TR_INTERRUPT: the caller may hold a lock of the engine's: must not call it back, nor run code of the program's.
     * TR_INTERRUPT_AGAIN: it holds none. TR_INTERRUPT_AT_ONCE: that too, and any moment is good. */
    int (*interrupt)(void *context, void *thread, int how);
    /* Take an interrupt back that did not arrive. On the thread itself, attached. */
    void (*interrupt_clear)(void *context, void *thread);
    /* A callback returned in a forked child: end the child; does not return. */
    void (*forked)(void *context);
    /* Make the next instruction of host code on this engine thread call tr_turnstile_arrive, once;
     * again if it is armed already. False if that cannot be. The caller is attached. NULL: threads
     * that compute are not made to take turns. */
    bool (*arm)(void *context, void *thread);
    /* Take that back. On the thread itself, attached. */
    void (*disarm)(void *context, void *thread);
    /* Let a thread that waits for the interpreter lock take it by force after `nanoseconds`; 0: after
     * what the program had set before. Returns what counts now, 0 if nothing changed. Attached. */
    uint64_t (*switch_interval)(void *context, uint64_t nanoseconds);
    /* Tell the user of a slow callback (tr_slow, which says what is taken over), once each. Attached,
     * on a thread of its own, or on the callback's after it. NULL: nobody is told. */
    void (*slow)(void *context, const tr_slow *slow);
    /* A reference to what a process runs, for tr_slow; NULL if there is nothing to refer to. *pid may be set to
     * whom it acts for. Attached; for a few instructions: runs no host code. */
    tr_term (*subject)(void *context, tr_process *process, tr_pid *pid);
    /* Tell the user that work waits for threads, of which there may be no more than `limit`, or
     * of which the system gives no more; once an episode. Attached, on a thread of its own. */
    void (*out_of_threads)(void *context, uint32_t limit, bool by_system);
    /* Run an event loop on this engine thread, attached, until tr_loop_run says that it is over
     * (tailrace_loop.h). NULL if the host has none. */
    void (*run_loop)(void *context);
} tr_host;

/* What a step waits for: nothing, others may run first; a message that came after the mailbox was last
 * looked through; the answer to tr_call; only its deadline. */
enum { TR_STEP_AGAIN, TR_STEP_MESSAGE, TR_STEP_ANSWER, TR_STEP_DEADLINE };

/* What a process does. Callbacks run attached, on the thread that runs the process, one at a time;
 * none is called under a lock. */
typedef struct tr_behaviour {
    const char *name;
    /* Around each slice; either may be NULL. */
    void (*begin)(tr_process *self, void *state);
    void (*end)(tr_process *self, void *state);
    /* Handle one message. Takes what the message owns by clearing its fields; the engine frees the
     * rest. Ends the process by calling tr_exit_self. */
    void (*handle)(tr_process *self, void *state, tr_message *message);
    /* Instead of handle: run once, to the end; the process then ends, TR_NORMAL unless
     * tr_exit_self was called. */
    void (*run)(tr_process *self, void *state);
    /* Instead of handle: go on for a bit and answer what is waited for (TR_STEP_..., *deadline), then
     * nothing of it runs and no thread is held. Called when the process starts; then when what it waits for
     * is there or the deadline (TR_FOREVER unless set) has passed, and now and then without a reason:
     * it looks which. Takes its messages with tr_receive. Ends the process by calling tr_exit_self. */
    int (*step)(tr_process *self, void *state, uint64_t *deadline);
    /* The process is gone: release its state. */
    void (*release)(void *state);
} tr_behaviour;

/* ---- The engine ---------------------------------------------------------------------------------*/

typedef struct tr_options {
    uint32_t max_processes;     /* 0: 4,194,304 */
    uint32_t max_threads;       /* workers, running and waiting; 0: 512 */
    uint32_t parallel;          /* core workers that run at a time: 1 under an interpreter lock */
    bool handoff;               /* a standby waits for the interpreter lock (see scheduler.h) */
    uint64_t switch_interval;   /* ns after which the interpreter lock is taken by force */
    bool virtual_time;          /* time moves only by tr_engine_advance */
    uint64_t slow_callback;     /* ns after which a callback is slow; 0: none is */
    uint64_t stop_timeout;      /* ns; the host's own: see tr_engine_stop_timeout */
} tr_options;

/* What an engine has done and does. Times are nanoseconds of CLOCK_MONOTONIC, under virtual time too. */
typedef struct tr_counters {
    uint64_t processes;     /* alive now */
    uint64_t spawned;
    uint64_t slices;        /* turns given to processes */
    uint64_t callbacks;
    uint64_t handoffs;      /* callbacks that lost the core to another worker */
    /* Of these, under an interpreter lock, the callbacks that waited in the engine while others were
     * queued: how many, and the time from there until another worker took the next process. When
     * other ones began to block is not known. */
    uint64_t handoffs_timed, handoff_time, handoff_longest;
    uint64_t steals;        /* processes that a core worker took from another one's queue */
    /* Waiting for a core worker now, by priority and in all, without those that the callback which runs
     * now has woken. */
    uint64_t run_queues[4];
    uint64_t run_queue;
    uint64_t elastic_queue; /* waiting for a thread of the elastic pool now */
    uint64_t loop_queue;    /* waiting for the host's event loop now */
    uint64_t parallel;      /* core workers that run at a time */
    uint64_t threads;       /* workers alive now; the next five add up to it */
    uint64_t threads_idle;
    uint64_t threads_core;     /* they run slices, or wait for the interpreter lock to do so */
    uint64_t threads_standby;
    uint64_t threads_elastic;
    uint64_t threads_detached; /* inside a callback that lost the core */
    uint64_t threads_loop;     /* it runs the host's event loop */
    uint64_t threads_limit;
    uint64_t threads_limit_hits; /* a thread was wanted and not to be had */
    uint64_t uptime;
    uint64_t busy;          /* time of core workers with something to run, of all together */
    uint64_t recent, recent_busy; /* the last interval, a second or more, and its share of `busy` */
    uint64_t interrupts;    /* sent to callbacks that still run */
    uint64_t timers;        /* pending */
    uint64_t ticks;
} tr_counters;

/* The version of this library, as "0.1.0"; constant. */
const char *tr_version(void);

/* Make an engine. No thread is started before there is work. NULL when memory is short. */
tr_engine *tr_engine_new(const tr_options *options, const tr_host *host);

/* The first half of a stop: end all processes with TR_SHUTDOWN, newest first: those without a parent
 * among the engine's processes at once, the rest by their parents, or when these have ended, or when
 * three quarters of the time have passed. Processes go on as before until they end, and may start
 * others and set timers; foreign threads may not start any. Returns the number of those that have not ended at `deadline` (of
 * CLOCK_MONOTONIC, under virtual time too). Callers as of tr_engine_stop. */
uint64_t tr_engine_drain(tr_engine *engine, uint64_t deadline);

/* Drain, unless that is done; then refuse new processes and timers, kill what is left, wait half a second more, and end the threads.
 * Detached callers only (the host must be able to run meanwhile), and not one of the engine's own
 * processes. Returns the number of threads that had to be left behind because their callback did
 * not return; the engine must then not be freed. A second caller waits for the first. */
int tr_engine_stop(tr_engine *engine, uint64_t deadline);

/* Free a stopped engine that left no thread behind. */
void tr_engine_free(tr_engine *engine);

/* How long the engine is to be given to drain when whoever stops it does not say. */
uint64_t tr_engine_stop_timeout(const tr_engine *engine);

bool tr_engine_stopping(const tr_engine *engine);
/* A random number that tells this engine from any other, of other programs too. Never 0. */
uint64_t tr_engine_id(const tr_engine *engine);
uint64_t tr_now(const tr_engine *engine);
/* Virtual time only: move the clock to `now` and fire what is due. On one of the engine's own threads:
 * attached callers only. */
void tr_engine_advance(tr_engine *engine, uint64_t now);
/* Takes the engine's locks for a moment, and none of the host's. */
void tr_engine_counters(tr_engine *engine, tr_counters *counters);
tr_ref tr_ref_new(tr_engine *engine);

/* Around fork(2), on the forking thread. In the child the engine is dead for good: every call answers
 * TR_ESTOPPED, its memory is left alone, and its threads are not there. */
void tr_engine_fork_prepare(tr_engine *engine);
void tr_engine_fork_parent(tr_engine *engine);
void tr_engine_fork_child(tr_engine *engine);

/* What an armed thread does (tr_host.arm), attached: true if it shall wait for its turn, which it does,
 * detached, by tr_turnstile_wait. See core/turnstile.h. */
bool tr_turnstile_arrive(tr_engine *engine);
void tr_turnstile_wait(tr_engine *engine);
/* A thread, attached before and after, is about to wait for the host's lock / has it. Meanwhile an event loop that
 * computes lets it have its turn. The engine does so for its own threads. */
void tr_attach_begins(tr_engine *engine);
void tr_attach_ends(tr_engine *engine);
/* The calling thread unwinds now: it has interrupted itself (tr_host.interrupt). Attached. */
void tr_interrupted(tr_engine *engine);

/* ---- Processes ----------------------------------------------------------------------------------*/

typedef struct tr_spawn_options {
    int kind;
    int priority;
    bool link;          /* to the calling process */
    bool monitor;       /* by the calling process; *ref gets the Ref */
    const char *name;   /* or NULL */
    bool enter;         /* the calling thread runs the process itself until tr_leave */
    tr_message *first;  /* in the mailbox before anybody knows the pid; taken over; or NULL */
} tr_spawn_options;

/* Make a process. Takes over `state`, also on failure (behaviour->release). With `enter` the new
 * process becomes the calling thread's current process and receives nothing until tr_leave. It may be
 * dead already when this returns (tr_process_is_dead), ended together with its parent.
 * On TR_ENAME *pid is the holder of the name. Attached callers only. */
int tr_spawn(tr_engine *engine, const tr_spawn_options *options, const tr_behaviour *behaviour,
             void *state, tr_pid *pid, tr_ref *ref);

/* End what `enter` began: the process goes on on the engine's workers (or is buried when it ended)
 * and the caller's own process is current again. */
void tr_leave(tr_engine *engine);

/* Let nobody interrupt what runs on the calling thread (tr_host.interrupt) until tr_unmask: who ends its process
 * meanwhile interrupts it then. Attached; no tr_spawn with `enter` in between. False, and no tr_unmask is
 * due: it is masked already, or nobody could interrupt it. */
bool tr_mask(tr_engine *engine);
void tr_unmask(tr_engine *engine);

/* Whether the calling thread is one of the engine's own. */
bool tr_on_engine_thread(tr_engine *engine);

/* The process of the calling thread; a foreign thread gets one of its own on first use. NULL when
 * memory is short, when the engine is stopping, or on an engine's thread that runs no process of it. */
tr_process *tr_self(tr_engine *engine);
/* The same without making one. */
tr_process *tr_self_or_null(tr_engine *engine);
tr_pid tr_process_pid(const tr_process *process);
tr_pid tr_process_parent(const tr_process *process);
tr_engine *tr_process_engine(const tr_process *process);
void *tr_process_state(const tr_process *process);
const tr_behaviour *tr_process_behaviour(const tr_process *process);
int tr_process_kind(const tr_process *process);
/* Whether the process has been ended while it still runs. */
bool tr_process_is_dead(const tr_process *process);
/* The reason of a dead process that is still running (own reference), else NULL. */
tr_reason *tr_process_reason(tr_process *process);
/* For a foreign thread whose process was ended: forget it, so that tr_self makes a fresh one. */
void tr_self_renew(tr_engine *engine);

/* Look at another process for a moment: NULL if dead, else call tr_process_release after. What never
 * changes (pid, parent, kind, behaviour) may be read; its state may be released at any time. */
tr_process *tr_process_acquire(tr_engine *engine, tr_pid pid);
void tr_process_release(tr_process *process);

bool tr_alive(tr_engine *engine, tr_pid pid);

typedef struct tr_info {
    tr_pid pid, parent;
    int status, priority, kind;
    bool trap_exit;
    uint64_t message_queue_len, reductions, memory;
    char name[256]; /* cut; empty if none */
} tr_info;

/* TR_EDEAD if it does not run. */
int tr_process_info(tr_engine *engine, tr_pid pid, tr_info *info);
enum { TR_LINKS, TR_MONITORS, TR_MONITORED_BY };
/* Pids linked to / watched by / watching `pid`; fills at most `size`, returns how many there are. */
size_t tr_process_bonds(tr_engine *engine, tr_pid pid, int which, tr_pid *pids, size_t size);
/* Pids of all processes, exiting ones too, oldest slot first; same convention. */
size_t tr_processes(tr_engine *engine, tr_pid *pids, size_t size);

/* ---- Messages between processes -----------------------------------------------------------------*/

/* Put `message` at the end of the mailbox of `pid`. Takes it over, also on failure. Never blocks.
 * TR_EDEAD if no such process runs, which most senders ignore. O(1). */
int tr_send_message(tr_engine *engine, tr_pid pid, tr_message *message);

/* Put `message` before all others in the own mailbox. Only from the process's own callbacks. */
void tr_push_front(tr_process *self, tr_message *message);

/* The same for a plain term. Takes over the reference. Attached callers only. */
int tr_send(tr_engine *engine, tr_pid pid, uint32_t kind, tr_term term);

/* What a receive has looked at already: start with zeros. */
typedef struct tr_cursor {
    tr_message *last;
    uint32_t removals;
} tr_cursor;

/* The oldest message of the calling process's own mailbox that `match` accepts (NULL: any), taken
 * out of it; NULL if there is none. With the same cursor after a wait, only newer messages are
 * looked at. */
tr_message *tr_receive(tr_process *self, bool (*match)(const tr_message *message, void *context),
                       void *context, tr_cursor *cursor);

/* Wait until something new may be in the own mailbox. Detached callers only. TR_OK, TR_ETIMEDOUT,
 * TR_EINTR (a signal), TR_EKILLED (the process was ended). */
int tr_wait(tr_process *self, uint64_t deadline);

/* Sleep until `deadline`, whatever arrives: TR_ETIMEDOUT when it has passed, TR_EINTR, TR_EKILLED.
 * Detached callers only. */
int tr_sleep(tr_process *self, uint64_t deadline);

/* A call. tr_call sends the request with a fresh ref and registers the caller for the answer or the
 * callee's end; then tr_call_wait as tr_wait until it answers TR_OK; then exactly one of *reply
 * (owned) and *reason (owned) is set. Giving up: tr_call_cancel, after which a late answer is
 * dropped; it answers TR_OK if the answer was faster, to be taken as after tr_call_wait.
 * kind is TR_MESSAGE_CALL, or TR_MESSAGE_STOP with `reason`. One call at a time and process.
 * Takes over term and reason, also on failure. TR_EDEAD, TR_ESELF, TR_EDEADLOCK (cycle: up to `size`
 * pids in `cycle`, *length set), TR_ENOMEM. */
typedef struct tr_call_options {
    uint32_t kind;
    tr_term term;
    tr_reason *reason;
    tr_pid *cycle;
    size_t size;
    size_t length;
} tr_call_options;
int tr_call(tr_process *self, tr_pid callee, tr_call_options *options);
int tr_call_wait(tr_process *self, uint64_t deadline);
/* For a process that is stepped, which does not wait: whether the answer is there. */
bool tr_call_answered(const tr_process *self);
int tr_call_cancel(tr_process *self);
void tr_call_take(tr_process *self, tr_term *reply, tr_reason **reason);

/* Answer a call. Takes over the term. Works once; later or late answers are dropped. */
void tr_reply(tr_engine *engine, tr_pid caller, tr_ref ref, tr_term term);

/* ---- Links, monitors, exits, names --------------------------------------------------------------
 * All O(1) but where said; serialised by one lock of the engine's. */

/* TR_EDEAD if `pid` does not run. Linking oneself does nothing. O(smaller number of links). */
int tr_link(tr_process *self, tr_pid pid);
void tr_unlink(tr_process *self, tr_pid pid);

/* Watch `pid`, or the present holder of `name` (`label` is then what Down carries; taken over). A
 * process that does not run gives an immediate Down with TR_NOPROC. */
int tr_monitor(tr_process *self, tr_pid pid, tr_term label, tr_ref *ref);
/* Whether a monitor was removed before it fired. With flush a Down in the mailbox is removed. */
bool tr_demonitor(tr_process *self, tr_ref ref, bool flush);

/* An alias: a Ref that can be sent to and stands for the calling process until it is switched off:
 * EXPLICIT by tr_unalias only, REPLY by the first message too, DEMONITOR with the monitor that has
 * the same Ref, REPLY_DEMONITOR with it or, both, by the first message. *ref is the Ref of a monitor the
 * caller has just made (if that has ended already, the last two do nothing), or 0 for a new one. */
enum { TR_ALIAS_EXPLICIT, TR_ALIAS_REPLY, TR_ALIAS_DEMONITOR, TR_ALIAS_REPLY_DEMONITOR };
int tr_alias(tr_process *self, int mode, tr_ref *ref);
/* Whether it was on, and the caller's. */
bool tr_unalias(tr_process *self, tr_ref ref);
/* As tr_send_message; TR_EDEAD if it is switched off. */
int tr_send_alias(tr_engine *engine, tr_ref ref, tr_message *message);

/* Send an exit signal; takes over the reason. Attached callers only. */
void tr_exit(tr_engine *engine, tr_pid from, tr_pid pid, tr_reason *reason);
/* End the calling process; takes over the reason. The caller then returns from its callback. */
void tr_exit_self(tr_process *self, tr_reason *reason);
bool tr_traps_exit(const tr_process *process);
/* The previous flag. */
bool tr_trap_exit(tr_process *self, bool trap);

/* TR_ENAME: taken, *holder is set (0 when `pid` itself has a name already); TR_EDEAD. */
int tr_register(tr_engine *engine, const char *name, tr_pid pid, tr_pid *holder);
/* TR_EDEAD if nobody holds it. */
int tr_unregister(tr_engine *engine, const char *name);
/* 0 if nobody holds it. */
tr_pid tr_whereis(tr_engine *engine, const char *name);
/* Calls `visit` for each name under the engine's lock: it must only copy. */
void tr_registered(tr_engine *engine, void (*visit)(void *context, const char *name, tr_pid pid),
                   void *context);
/* Copies the name of `pid` into `buffer` (cut to size, ended with 0); false if it has none. */
bool tr_name_of(tr_engine *engine, tr_pid pid, char *buffer, size_t size);

/* ---- Timers -------------------------------------------------------------------------------------*/

typedef struct tr_timer tr_timer;

/* Send `message` to `pid`, or to the then holder of `name`, at `deadline`. Takes over the message.
 * A timer to a pid is dropped when that process ends (at the latest when it is due). The caller owns
 * one reference to *timer and gives it back with tr_timer_release, which does not cancel. TR_ENOMEM,
 * TR_ESTOPPED. */
int tr_timer_start(tr_engine *engine, tr_pid pid, const char *name, tr_message *message,
                   uint64_t deadline, tr_timer **timer);
/* Nanoseconds that were left, or -1 if it had fired, was cancelled, or its process has ended. */
int64_t tr_timer_cancel(tr_timer *timer);
int64_t tr_timer_remaining(tr_timer *timer);
void tr_timer_release(tr_timer *timer);

#endif
