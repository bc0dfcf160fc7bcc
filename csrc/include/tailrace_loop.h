/* tailrace_loop.h: waiting without a thread, for event loops of the host.
 *
 * A tr_loop is what the engine knows of an event loop: a file descriptor that becomes readable when
 * something has been completed, and the list of what has. The loop watches the descriptor, then takes the
 * whole list; however much is completed meanwhile, it is woken once.
 *
 * A tr_await is one thing that one of the loop's tasks waits for: the answer to a call, or a moment. Any
 * number may be under way for one process. It is completed exactly once, or cancelled:
 * whichever comes first. */
#ifndef TAILRACE_LOOP_H
#define TAILRACE_LOOP_H

#include "tailrace.h"

typedef struct tr_loop tr_loop;

/* How it was completed. */
enum {
    TR_AWAIT_REPLY,   /* `reply` */
    TR_AWAIT_ENDED,   /* the callee ended: `reason` */
    TR_AWAIT_TIMEOUT, /* its time came */
    TR_AWAIT_KILLED,  /* the process that waited was ended: `reason` */
    TR_AWAIT_STOPPED  /* the engine stopped */
};

typedef struct tr_await {
    struct tr_await *next;
    void *context;     /* the host's, handed back */
    tr_ref ref;
    int outcome;
    tr_term reply;     /* owned */
    tr_reason *reason; /* owned */
} tr_await;

/* NULL when memory or file descriptors are short. It belongs to the calling thread's event loop until
 * tr_loop_release. */
tr_loop *tr_loop_new(tr_engine *engine);
/* Everything it waited for has been cancelled or taken. */
void tr_loop_release(tr_loop *loop);
int tr_loop_fd(const tr_loop *loop);
/* What has been completed, oldest first, linked by `next`; each is freed with tr_await_free. Makes the
 * descriptor unreadable until there is more. The loop's own thread. */
tr_await *tr_loop_take(tr_loop *loop);
/* Releases reply and reason unless they were taken (set to NULL). */
void tr_await_free(tr_await *await);

/* As tr_call, but the answer completes an await of `loop`, as does `deadline` (TR_FOREVER: none).
 * Not limited to one at a time. `alone`: the process does nothing else until then, which counts in the
 * search for deadlocks.
 * TR_OK and *ref; or an error, after which nothing is under way and `context` is the caller's. */
int tr_await_call(tr_process *self, tr_loop *loop, tr_pid callee, tr_call_options *options,
                  uint64_t deadline, bool alone, void *context, tr_ref *ref);
/* Wait for `deadline` only. */
int tr_await_sleep(tr_process *self, tr_loop *loop, uint64_t deadline, void *context, tr_ref *ref);
/* Give up what was begun with this context, which is the caller's again; whatever would have come is
 * dropped. False if it has been completed (then tr_loop_take gives it, or gave it), also by the stop of another
 * engine, whose refs are those of this one again. */
bool tr_await_cancel(tr_engine *engine, tr_ref ref, const void *context);

/* Wake `loop`, once, when the next message comes for the calling thread's own process; `loop` is the
 * thread's. False if there is a new one already: look again. */
bool tr_watch(tr_process *self, tr_loop *loop);
/* Whether a message woke the loop since it was last asked. The loop's own thread. */
bool tr_loop_has_mail(tr_loop *loop);

/* Whether the loop has computed for so long that it shall let others have the host's lock: to ask between two steps, or
 * when the loop was woken. Then it does so by tr_loop_pause, detached, and by tr_loop_goes_on, attached again. The
 * loop's own thread. See core/pause.h. */
bool tr_loop_shall_pause(tr_loop *loop);
void tr_loop_pause(tr_loop *loop);
void tr_loop_goes_on(tr_loop *loop);

/* ---- The engine's own loop ----------------------------------------------------------------------
 * The event loop that host.run_loop runs. Processes of kind ASYNC whose behaviour is stepped take their
 * slices on it, in tr_loop_run. What their tasks do between slices is done between
 * tr_loop_enter and tr_loop_leave, so that the process is the current one and can be interrupted. All of
 * this is for the loop's thread. */

/* From now on `loop` is the engine's. */
void tr_loop_adopt(tr_loop *loop);
/* No more: the event loop is closed. */
void tr_loop_abandon(tr_loop *loop);
/* Run a slice of each process that is queued. False when the engine has ended and the loop shall. */
bool tr_loop_run(tr_loop *loop);
/* Whether there is something for tr_loop_take or tr_loop_run that the descriptor does not tell of, because
 * it was left between enter and leave, or in tr_loop_run: call both again soon. */
bool tr_loop_is_behind(tr_loop *loop);
/* Whose step runs, and as whom. */
typedef struct tr_loop_step {
    tr_process *process, *as;
} tr_loop_step;
/* `process` (acquired; maybe dead) is what runs now. What it does counts as done by `as`, unless that is NULL:
 * a process that stands still meanwhile. Returns what ran before. */
tr_loop_step tr_loop_enter(tr_loop *loop, tr_process *process, tr_process *as);
/* In the child of a fork it does not return. */
void tr_loop_leave(tr_loop *loop, tr_process *process, tr_loop_step before);
/* Whether a slice or an enter is in progress. Otherwise the next one says who is current, without more:
 * NULL or a process. */
bool tr_loop_is_inside(const tr_loop *loop);
void tr_loop_attribute(tr_loop *loop, tr_process *process);
/* Have a process that rests stepped again. */
void tr_step(tr_process *process);
/* From a step: all messages that came so far have been seen. Whether there were new ones. */
bool tr_mailbox_seen(tr_process *self);
bool tr_mailbox_is_empty(const tr_process *self);

#endif
