/* supervisor.h: the inside of tr_supervisor; the manual is tailrace_supervisor.h.
 *
 * The table is a list in start order with two indexes, by handle and by pid. The supervisor owns its
 * children; each is one allocation, freed when it is forgotten or deleted. Handles are counted up.
 *
 * A plan is a range of the list and a direction. Stopping walks it backwards and meets the children
 * that run, starting walks it forwards and meets those that do not; a group restart is the one after
 * the other. `at` is the child the next action is for. What a step entails beyond that waits in
 * `notice` (at most one) and `forget` (at most one) and is said before the walk goes on.
 *
 * Invariants. The pid index holds exactly the children in state RUNNING. A temporary child that does
 * not run is in the table only between its event and its FORGET. At most one retry per child is with
 * the host. `significant` is the number of significant children running or restarting. */
#ifndef TRI_SUPERVISOR_H
#define TRI_SUPERVISOR_H

#include "intensity.h"
#include "map.h"
#include "tailrace_supervisor.h"

typedef struct tri_child {
    struct tri_child *previous, *next;
    tr_child handle;
    tr_pid pid; /* 0 unless running */
    uint8_t state;
    uint8_t restart;
    bool significant;
    bool retry_waits; /* the host has been given a TR_ACT_RETRY that has not come back */
} tri_child;

enum { TRI_STEP_NONE, TRI_STEP_STOPPING, TRI_STEP_STARTING, TRI_STEP_ENDED };

enum {
    TRI_PLAN_START, /* all children, for the first time */
    TRI_PLAN_RESTART,
    TRI_PLAN_SHUTDOWN,
    TRI_PLAN_START_CHILD, /* the other three are administration */
    TRI_PLAN_RESTART_CHILD,
    TRI_PLAN_TERMINATE_CHILD
};

typedef struct tri_plan {
    int kind;
    int step;
    tri_child *first, *last; /* the range; NULL if it is empty */
    tri_child *at;           /* NULL: the walk is over */
    bool said;               /* the action for `at` has been given out and is not reported yet */
    tr_action notice;        /* TR_ACT_NONE: there is none */
    tri_child *forget;
} tri_plan;

struct tr_supervisor {
    int strategy;
    int auto_shutdown;
    bool started;
    tri_child *head, *tail;
    size_t count;
    size_t significant;
    tr_child last_handle;
    tri_map by_handle;
    tri_map by_pid;
    tri_intensity intensity;
    tri_plan plan;
};

#endif
