/* supervisor.c: see supervisor.h. In three parts: the table, the plan, the events. */
#include "supervisor.h"

#include <stdlib.h>

/* ---- The table ----------------------------------------------------------------------------------*/

static tri_child *find(const tri_map *map, uint64_t key) {
    tri_entry *entry = key == 0 ? NULL : tri_map_first(map, key);
    return entry == NULL ? NULL : entry->value;
}

static void unindex(tri_map *map, uint64_t key) {
    tri_map_remove(map, tri_map_first(map, key));
}

static bool counts_as_running(const tri_child *child) { return child->state != TR_CHILD_DOWN; }

/* To DOWN or RESTARTING: cannot fail. */
static void set_not_running(tr_supervisor *supervisor, tri_child *child, uint8_t state) {
    if (child->significant) {
        supervisor->significant -= counts_as_running(child);
        supervisor->significant += state == TR_CHILD_RESTARTING;
    }
    if (child->pid != 0) unindex(&supervisor->by_pid, child->pid);
    child->pid = 0;
    child->state = state;
}

static int set_running(tr_supervisor *supervisor, tri_child *child, tr_pid pid) {
    int result = tri_map_add(&supervisor->by_pid, pid, child);
    if (result != TR_OK) return result;
    if (child->significant) supervisor->significant += !counts_as_running(child);
    child->pid = pid;
    child->state = TR_CHILD_RUNNING;
    return TR_OK;
}

static bool options_are_valid(const tr_supervisor *supervisor, const tr_child_options *options) {
    if (options->restart < TR_PERMANENT || options->restart > TR_TEMPORARY) return false;
    return !options->significant || (options->restart != TR_PERMANENT &&
                                     supervisor->auto_shutdown != TR_AUTO_NEVER);
}

static int append(tr_supervisor *supervisor, const tr_child_options *options, tri_child **made) {
    if (!options_are_valid(supervisor, options)) return TR_EINVAL;
    tri_child *child = calloc(1, sizeof *child);
    if (child == NULL) return TR_ENOMEM;
    child->handle = supervisor->last_handle + 1;
    child->restart = (uint8_t)options->restart;
    child->significant = options->significant;
    if (tri_map_add(&supervisor->by_handle, child->handle, child) != TR_OK) {
        free(child);
        return TR_ENOMEM;
    }
    supervisor->last_handle = child->handle;
    child->previous = supervisor->tail;
    *(child->previous == NULL ? &supervisor->head : &child->previous->next) = child;
    supervisor->tail = child;
    supervisor->count++;
    *made = child;
    return TR_OK;
}

static void drop(tr_supervisor *supervisor, tri_child *child) {
    set_not_running(supervisor, child, TR_CHILD_DOWN);
    unindex(&supervisor->by_handle, child->handle);
    *(child->previous == NULL ? &supervisor->head : &child->previous->next) = child->next;
    *(child->next == NULL ? &supervisor->tail : &child->next->previous) = child->previous;
    supervisor->count--;
    free(child);
}

static void describe(const tri_child *child, tr_child_info *info) {
    *info = (tr_child_info){.child = child->handle, .pid = child->pid, .state = child->state};
}

/* ---- The plan -----------------------------------------------------------------------------------*/

static bool is_busy(const tr_supervisor *supervisor) {
    const tri_plan *plan = &supervisor->plan;
    return plan->step != TRI_STEP_NONE || plan->notice.kind != TR_ACT_NONE || plan->forget != NULL;
}

/* Whether an event may come: the children were started and no plan is under way. */
static bool is_ready(const tr_supervisor *supervisor) {
    return supervisor->started && !is_busy(supervisor);
}

static void begin(tr_supervisor *supervisor, int kind, int step, tri_child *first, tri_child *last) {
    tri_plan *plan = &supervisor->plan;
    plan->kind = kind;
    plan->step = step;
    plan->first = first;
    plan->last = last;
    plan->at = step == TRI_STEP_STOPPING ? last : first;
    plan->said = false;
}

static void begin_shutdown(tr_supervisor *supervisor) {
    begin(supervisor, TRI_PLAN_SHUTDOWN, TRI_STEP_STOPPING, supervisor->head, supervisor->tail);
}

static void notice(tr_supervisor *supervisor, int kind, const tri_child *child) {
    supervisor->plan.notice = (tr_action){.kind = kind, .child = child->handle};
}

/* The restart of a child that is down, room for which was reserved in the intensity (O153, O156). */
static void begin_restart(tr_supervisor *supervisor, tri_child *child, uint64_t now) {
    if (!tri_intensity_count(&supervisor->intensity, now)) {
        notice(supervisor, TR_ACT_GIVE_UP, child);
        begin_shutdown(supervisor);
        return;
    }
    if (supervisor->strategy == TR_ONE_FOR_ONE) {
        begin(supervisor, TRI_PLAN_RESTART, TRI_STEP_STARTING, child, child);
        return;
    }
    tri_child *first = supervisor->strategy == TR_ONE_FOR_ALL ? supervisor->head : child;
    begin(supervisor, TRI_PLAN_RESTART, TRI_STEP_STOPPING, first, supervisor->tail);
}

static void end(tr_supervisor *supervisor, int step) {
    begin(supervisor, supervisor->plan.kind, step, NULL, NULL);
}

static void step_on(tri_plan *plan) {
    if (plan->step == TRI_STEP_STOPPING) {
        plan->at = plan->at == plan->first ? NULL : plan->at->previous;
    } else {
        plan->at = plan->at == plan->last ? NULL : plan->at->next;
    }
}

/* The child leaves the table and the range, if it is in it. */
static void forget(tr_supervisor *supervisor, tri_child *child) {
    tri_plan *plan = &supervisor->plan;
    bool was_all = plan->first == child && plan->last == child;
    if (plan->at == child) step_on(plan);
    if (plan->first == child) plan->first = was_all ? NULL : child->next;
    if (plan->last == child) plan->last = was_all ? NULL : child->previous;
    drop(supervisor, child);
}

/* Go on to the next child that has something to be done; false at the end of the range. */
static bool find_next(tr_supervisor *supervisor) {
    tri_plan *plan = &supervisor->plan;
    bool stopping = plan->step == TRI_STEP_STOPPING;
    for (; plan->at != NULL; step_on(plan)) {
        if ((plan->at->state == TR_CHILD_RUNNING) == stopping) return true;
        if (stopping) set_not_running(supervisor, plan->at, TR_CHILD_DOWN); /* was restarting */
    }
    return false;
}

static void end_step(tr_supervisor *supervisor) {
    tri_plan *plan = &supervisor->plan;
    if (plan->step == TRI_STEP_STARTING || plan->kind == TRI_PLAN_TERMINATE_CHILD) {
        end(supervisor, TRI_STEP_NONE);
    } else if (plan->kind == TRI_PLAN_SHUTDOWN) {
        end(supervisor, TRI_STEP_ENDED);
    } else { /* a group is stopped: start it */
        plan->step = TRI_STEP_STARTING;
        plan->at = plan->first;
    }
}

void tr_supervisor_next(tr_supervisor *supervisor, tr_action *action) {
    tri_plan *plan = &supervisor->plan;
    *action = plan->notice;
    if (action->kind != TR_ACT_NONE) {
        plan->notice = (tr_action){.kind = TR_ACT_NONE};
        return;
    }
    if (plan->forget != NULL) {
        *action = (tr_action){.kind = TR_ACT_FORGET, .child = plan->forget->handle};
        forget(supervisor, plan->forget);
        plan->forget = NULL;
        return;
    }
    while (plan->step == TRI_STEP_STOPPING || plan->step == TRI_STEP_STARTING) {
        if (find_next(supervisor)) {
            action->kind = plan->step == TRI_STEP_STOPPING ? TR_ACT_STOP : TR_ACT_START;
            action->child = plan->at->handle;
            action->pid = plan->at->pid;
            plan->said = true;
            return;
        }
        end_step(supervisor);
    }
    action->kind = plan->step == TRI_STEP_ENDED ? TR_ACT_END : TR_ACT_NONE;
}

static void start_failed(tr_supervisor *supervisor, tri_child *child) {
    end(supervisor, TRI_STEP_NONE);
    switch (supervisor->plan.kind) {
    case TRI_PLAN_START: /* O146 */
        begin_shutdown(supervisor);
        break;
    case TRI_PLAN_RESTART: /* O160, O161 */
        set_not_running(supervisor, child, TR_CHILD_RESTARTING);
        if (!child->retry_waits) notice(supervisor, TR_ACT_RETRY, child);
        child->retry_waits = true;
        break;
    case TRI_PLAN_START_CHILD: /* O174 */
        supervisor->plan.forget = child;
        break;
    default: /* TRI_PLAN_RESTART_CHILD: it stays down */
        break;
    }
}

int tr_supervisor_done(tr_supervisor *supervisor, int outcome, tr_pid pid) {
    tri_plan *plan = &supervisor->plan;
    bool stopping = plan->step == TRI_STEP_STOPPING;
    if (!plan->said || (outcome == TR_DONE_STOPPED) != stopping) return TR_EINVAL;
    tri_child *child = plan->at;
    switch (outcome) {
    case TR_DONE_STARTED:
        if (pid == 0 || find(&supervisor->by_pid, pid) != NULL) return TR_EINVAL;
        if (set_running(supervisor, child, pid) != TR_OK) return TR_ENOMEM;
        break;
    case TR_DONE_STOPPED:
        set_not_running(supervisor, child, TR_CHILD_DOWN);
        break;
    case TR_DONE_IGNORED:
    case TR_DONE_FAILED:
        break;
    default:
        return TR_EINVAL;
    }
    plan->said = false;
    if (outcome == TR_DONE_FAILED) {
        start_failed(supervisor, child);
        return TR_OK;
    }
    step_on(plan);
    if (child->state == TR_CHILD_DOWN && child->restart == TR_TEMPORARY) plan->forget = child;
    return TR_OK;
}

/* ---- Life ---------------------------------------------------------------------------------------*/

int tr_supervisor_new(const tr_supervisor_options *options, tr_supervisor **supervisor) {
    if (options->strategy < TR_ONE_FOR_ONE || options->strategy > TR_REST_FOR_ONE ||
        options->auto_shutdown < TR_AUTO_NEVER ||
        options->auto_shutdown > TR_AUTO_ALL_SIGNIFICANT || options->max_time == 0) {
        return TR_EINVAL;
    }
    tr_supervisor *made = calloc(1, sizeof *made);
    if (made == NULL) return TR_ENOMEM;
    made->strategy = options->strategy;
    made->auto_shutdown = options->auto_shutdown;
    tri_map_init(&made->by_handle);
    tri_map_init(&made->by_pid);
    tri_intensity_init(&made->intensity, options->max_restarts, options->max_time);
    *supervisor = made;
    return TR_OK;
}

void tr_supervisor_free(tr_supervisor *supervisor) {
    if (supervisor == NULL) return;
    while (supervisor->head != NULL) drop(supervisor, supervisor->head);
    tri_map_fini(&supervisor->by_handle);
    tri_map_fini(&supervisor->by_pid);
    tri_intensity_fini(&supervisor->intensity);
    free(supervisor);
}

int tr_supervisor_add(tr_supervisor *supervisor, const tr_child_options *options, tr_child *child) {
    if (supervisor->started) return TR_EBUSY;
    tri_child *made;
    int result = append(supervisor, options, &made);
    if (result == TR_OK) *child = made->handle;
    return result;
}

int tr_supervisor_start(tr_supervisor *supervisor) {
    if (supervisor->started) return TR_EBUSY;
    supervisor->started = true;
    begin(supervisor, TRI_PLAN_START, TRI_STEP_STARTING, supervisor->head, supervisor->tail);
    return TR_OK;
}

void tr_supervisor_shutdown(tr_supervisor *supervisor) {
    supervisor->started = true;
    if (supervisor->plan.step != TRI_STEP_ENDED) begin_shutdown(supervisor);
}

/* ---- Events -------------------------------------------------------------------------------------*/

/* O170, O171: the end of `child`, which is down, was no reason to restart it. */
static bool ends_the_supervisor(const tr_supervisor *supervisor, const tri_child *child) {
    return child->significant && (supervisor->auto_shutdown == TR_AUTO_ANY_SIGNIFICANT ||
                                  supervisor->significant == 0);
}

int tr_supervisor_child_exited(tr_supervisor *supervisor, tr_pid pid, bool clean, uint64_t now,
                               tr_child *child) {
    if (!is_ready(supervisor)) return TR_EBUSY;
    tri_child *ended = find(&supervisor->by_pid, pid);
    if (ended == NULL) return TR_ENOCHILD;
    bool restart = ended->restart == TR_PERMANENT || (ended->restart == TR_TRANSIENT && !clean);
    if (restart && tri_intensity_reserve(&supervisor->intensity, now) != TR_OK) return TR_ENOMEM;
    *child = ended->handle;
    set_not_running(supervisor, ended, TR_CHILD_DOWN);
    if (restart) {
        begin_restart(supervisor, ended, now);
        return TR_OK;
    }
    if (ended->restart == TR_TEMPORARY) supervisor->plan.forget = ended;
    if (ends_the_supervisor(supervisor, ended)) {
        notice(supervisor, TR_ACT_AUTO_SHUTDOWN, ended);
        begin_shutdown(supervisor);
    }
    return TR_OK;
}

int tr_supervisor_retry(tr_supervisor *supervisor, tr_child child, uint64_t now) {
    if (!is_ready(supervisor)) return TR_EBUSY;
    tri_child *waiting = find(&supervisor->by_handle, child);
    if (waiting == NULL) return TR_OK;
    if (waiting->state == TR_CHILD_RESTARTING) {
        if (tri_intensity_reserve(&supervisor->intensity, now) != TR_OK) return TR_ENOMEM;
        set_not_running(supervisor, waiting, TR_CHILD_DOWN);
        begin_restart(supervisor, waiting, now);
    }
    waiting->retry_waits = false;
    return TR_OK;
}

/* ---- Administration -----------------------------------------------------------------------------*/

int tr_supervisor_start_child(tr_supervisor *supervisor, const tr_child_options *options,
                              tr_child *child) {
    if (!is_ready(supervisor)) return TR_EBUSY;
    tri_child *made;
    int result = append(supervisor, options, &made);
    if (result != TR_OK) return result;
    *child = made->handle;
    begin(supervisor, TRI_PLAN_START_CHILD, TRI_STEP_STARTING, made, made);
    return TR_OK;
}

int tr_supervisor_terminate_child(tr_supervisor *supervisor, tr_child child) {
    if (!is_ready(supervisor)) return TR_EBUSY;
    tri_child *found = find(&supervisor->by_handle, child);
    if (found == NULL) return TR_ENOCHILD;
    begin(supervisor, TRI_PLAN_TERMINATE_CHILD, TRI_STEP_STOPPING, found, found);
    return TR_OK;
}

/* The child, which must be down. */
static int find_down(tr_supervisor *supervisor, tr_child child, tri_child **found) {
    if (!is_ready(supervisor)) return TR_EBUSY;
    *found = find(&supervisor->by_handle, child);
    if (*found == NULL) return TR_ENOCHILD;
    switch ((*found)->state) {
    case TR_CHILD_RUNNING: return TR_ERUNNING;
    case TR_CHILD_RESTARTING: return TR_ERESTARTING;
    default: return TR_OK;
    }
}

int tr_supervisor_restart_child(tr_supervisor *supervisor, tr_child child) {
    tri_child *found;
    int result = find_down(supervisor, child, &found);
    if (result != TR_OK) return result;
    begin(supervisor, TRI_PLAN_RESTART_CHILD, TRI_STEP_STARTING, found, found);
    return TR_OK;
}

int tr_supervisor_delete_child(tr_supervisor *supervisor, tr_child child) {
    tri_child *found;
    int result = find_down(supervisor, child, &found);
    if (result == TR_OK) drop(supervisor, found);
    return result;
}

/* ---- Looking ------------------------------------------------------------------------------------*/

size_t tr_supervisor_children(const tr_supervisor *supervisor, tr_child_info *children, size_t size) {
    size_t at = 0;
    for (tri_child *child = supervisor->head; child != NULL && at < size; child = child->next)
        describe(child, &children[at++]);
    return supervisor->count;
}

int tr_supervisor_child(const tr_supervisor *supervisor, tr_child child, tr_child_info *info) {
    const tri_child *found = find(&supervisor->by_handle, child);
    if (found == NULL) return TR_ENOCHILD;
    describe(found, info);
    return TR_OK;
}
