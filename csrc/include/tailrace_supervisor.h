/* tailrace_supervisor.h: what a supervisor decides.
 *
 * A tr_supervisor is a table of children in start order and the rules for them: who is restarted
 * when one ends, in which order, how often, and when the supervisor gives up. It decides; its host
 * acts: the host starts, stops and watches the processes and keeps their specs. The core knows a
 * child by a handle (tr_child), which the host maps to its spec and which is never used twice.
 *
 * The host's loop. An event (tr_supervisor_start, _child_exited, _retry, _shutdown, _start_child,
 * _terminate_child, _restart_child) makes a plan. The host then asks for one action after the other
 * until it gets TR_ACT_NONE or TR_ACT_END:
 *
 *     tr_action action;
 *     while (tr_supervisor_next(supervisor, &action), action.kind > TR_ACT_END) {
 *         switch (action.kind) {
 *         case TR_ACT_START: ... tr_supervisor_done(supervisor, TR_DONE_STARTED, pid); break;
 *         case TR_ACT_STOP:  ... tr_supervisor_done(supervisor, TR_DONE_STOPPED, 0); break;
 *         case TR_ACT_RETRY: put "retry action.child" at the end of the own queue; break;
 *         ...
 *
 * Only one plan is under way at a time: an event before the end of a plan is TR_EBUSY, but for
 * tr_supervisor_shutdown, which replaces it. Exits of children that were seen meanwhile are reported
 * afterwards.
 *
 * Threads: one at a time, the supervisor's own process; no lock, never blocks, calls nobody.
 * Costs: O(1) for each event and action; starting or stopping n children is n actions. */
#ifndef TAILRACE_SUPERVISOR_H
#define TAILRACE_SUPERVISOR_H

#include "tailrace.h"

typedef struct tr_supervisor tr_supervisor;
typedef uint64_t tr_child; /* a child of one supervisor; 0 is none */

enum {
    TR_EBUSY = -30,       /* a plan is under way, or the supervisor has ended */
    TR_ENOCHILD = -31,    /* there is no such child ("not_found") */
    TR_ERUNNING = -32,    /* the child runs ("running") */
    TR_ERESTARTING = -33  /* the child waits for the next try to restart it ("restarting") */
};

/* Which children one that has to be restarted takes with it: none, all, or those after it. */
enum { TR_ONE_FOR_ONE, TR_ONE_FOR_ALL, TR_REST_FOR_ONE };

/* Whether the end of significant children, without a restart, ends the supervisor. */
enum { TR_AUTO_NEVER, TR_AUTO_ANY_SIGNIFICANT, TR_AUTO_ALL_SIGNIFICANT };

typedef struct tr_supervisor_options {
    int strategy;
    int auto_shutdown;
    uint64_t max_restarts; /* so many restarts within ... */
    uint64_t max_time;     /* ... so many nanoseconds are borne; one more and it gives up */
} tr_supervisor_options;

typedef struct tr_child_options {
    int restart; /* TR_PERMANENT, TR_TRANSIENT or TR_TEMPORARY: which ends bring it back */
    bool significant; /* not for permanent children, not under TR_AUTO_NEVER: TR_EINVAL */
} tr_child_options;

/* Down: never started, ended without a restart, or stopped. Restarting: its start failed and is
 * tried again. */
enum { TR_CHILD_DOWN, TR_CHILD_RUNNING, TR_CHILD_RESTARTING };

typedef struct tr_child_info {
    tr_child child;
    tr_pid pid; /* 0 unless running */
    int state;
} tr_child_info;

enum {
    TR_ACT_NONE,          /* the plan is done: wait for the next event */
    TR_ACT_END,           /* all children are stopped: end. Said again whenever asked */
    TR_ACT_START,         /* run the start function of .child, then report STARTED, IGNORED or FAILED */
    TR_ACT_STOP,          /* shut .child, running as .pid, down; report STOPPED once it is dead */
    TR_ACT_FORGET,        /* .child has left the table: drop its spec */
    TR_ACT_RETRY,         /* the start of .child failed: call tr_supervisor_retry(child) after the
                             events that are waiting already */
    TR_ACT_GIVE_UP,       /* too many restarts, the last one for .child: what follows are the STOPs
                             and END; end with "shutdown" */
    TR_ACT_AUTO_SHUTDOWN  /* the end of .child, significant, ends the supervisor: likewise */
};

typedef struct tr_action {
    int kind;
    tr_child child;
    tr_pid pid;
} tr_action;

enum { TR_DONE_STARTED, TR_DONE_IGNORED, TR_DONE_FAILED, TR_DONE_STOPPED };

/* ---- Life ---------------------------------------------------------------------------------------*/

/* A supervisor without children. TR_EINVAL: unknown strategy or auto_shutdown, or max_time 0. */
int tr_supervisor_new(const tr_supervisor_options *options, tr_supervisor **supervisor);

void tr_supervisor_free(tr_supervisor *supervisor);

/* Append a child that does not run. Before tr_supervisor_start only; afterwards use
 * tr_supervisor_start_child. TR_EINVAL, TR_ENOMEM, TR_EBUSY. */
int tr_supervisor_add(tr_supervisor *supervisor, const tr_child_options *options, tr_child *child);

/* Plan: START each child in order. After one FAILED: STOP those started, in reverse order, then END. */
int tr_supervisor_start(tr_supervisor *supervisor);

/* Plan: STOP all children in reverse order, then END. At any time; what another plan had begun is
 * left as it is, and a START or STOP that is not reported yet counts as not done. */
void tr_supervisor_shutdown(tr_supervisor *supervisor);

/* ---- Actions ------------------------------------------------------------------------------------*/

/* The next action. START and STOP are said again until they are reported, the others once. */
void tr_supervisor_next(tr_supervisor *supervisor, tr_action *action);

/* Report what became of the last action, a START or a STOP; `pid` for TR_DONE_STARTED, else 0.
 * TR_EINVAL: that is no answer to that action, or another child has this pid. TR_ENOMEM: nothing
 * has changed; the host may stop the process and report TR_DONE_FAILED. */
int tr_supervisor_done(tr_supervisor *supervisor, int outcome, tr_pid pid);

/* ---- Events -------------------------------------------------------------------------------------*/

/* The process `pid` has ended, `clean` as tr_reason_is_clean says, at the time `now`. TR_ENOCHILD:
 * it is no child, or no more: nothing to do. Otherwise *child is set and the plan is, whatever
 * applies: restart it by the strategy (a clean end only if permanent), GIVE_UP, FORGET it,
 * AUTO_SHUTDOWN, nothing. TR_ENOMEM: nothing has changed. */
int tr_supervisor_child_exited(tr_supervisor *supervisor, tr_pid pid, bool clean, uint64_t now,
                               tr_child *child);

/* The time for what TR_ACT_RETRY asked for has come. The plan is another restart, which counts; or
 * nothing if the child has been started, stopped or deleted meanwhile. */
int tr_supervisor_retry(tr_supervisor *supervisor, tr_child child, uint64_t now);

/* ---- Administration -----------------------------------------------------------------------------*/

/* Append a child and plan to START it. If it FAILED, or is temporary and IGNORED, the plan goes on
 * with FORGET. TR_EINVAL, TR_ENOMEM, TR_EBUSY (before tr_supervisor_start too). */
int tr_supervisor_start_child(tr_supervisor *supervisor, const tr_child_options *options,
                              tr_child *child);

/* Plan: STOP it if it runs, FORGET it if it is temporary. Nothing is restarted, no automatic
 * shutdown follows, and a waiting retry does nothing. TR_ENOCHILD, TR_EBUSY. */
int tr_supervisor_terminate_child(tr_supervisor *supervisor, tr_child child);

/* Plan: START it; it stays down if that FAILED. TR_ERUNNING, TR_ERESTARTING, TR_ENOCHILD, TR_EBUSY. */
int tr_supervisor_restart_child(tr_supervisor *supervisor, tr_child child);

/* Remove it from the table, at once and without a plan. Errors as above. */
int tr_supervisor_delete_child(tr_supervisor *supervisor, tr_child child);

/* ---- Looking ------------------------------------------------------------------------------------*/

/* The children in start order. Fills at most `size` entries, returns how many there are. */
size_t tr_supervisor_children(const tr_supervisor *supervisor, tr_child_info *children, size_t size);

/* One child. TR_ENOCHILD. */
int tr_supervisor_child(const tr_supervisor *supervisor, tr_child child, tr_child_info *info);

#endif
