/* scheduler.c: see scheduler.h: the queues, the tick, the life of workers. Roles are in roles.c, hand-off is in
 * handoff.c, kills are in interrupt.c; the workers themselves are in worker.c. */
#include "scheduler.h"

#include <stdlib.h>

#include "await.h"
#include "engine.h"
#include "roles.h"
#include "worker.h"

int tri_scheduler_init(tri_scheduler *scheduler, tr_engine *engine) {
    *scheduler = (tri_scheduler){.engine = engine};
    const tr_options *options = &engine->options;
    atomic_init(&scheduler->switch_interval, engine->options.switch_interval);
    tri_load_init(&scheduler->load, tri_clock_monotonic());
    if (tri_parker_init(&scheduler->stopper) != TR_OK) return TR_ENOMEM;
    if (tri_places_init(&scheduler->places, options->handoff ? 0 : options->parallel) != TR_OK)
        return TR_ENOMEM;
    if (pthread_mutex_init(&scheduler->lock, NULL) == 0) return TR_OK;
    tri_places_fini(&scheduler->places);
    return TR_ENOMEM;
}

void tri_scheduler_fini(tri_scheduler *scheduler) {
    tri_worker *worker = atomic_load(&scheduler->workers);
    while (worker != NULL) {
        tri_worker *next = worker->next;
        tri_parker_fini(&worker->wake);
        tri_parker_fini(&worker->thread.parker);
        tri_parker_fini(&worker->gate_parker);
        free(worker);
        worker = next;
    }
    tri_parker_fini(&scheduler->stopper);
    tri_places_fini(&scheduler->places);
    pthread_mutex_destroy(&scheduler->lock);
}

/* ---- Queues -------------------------------------------------------------------------------------*/

void tri_scheduler_share(tri_scheduler *s) {
    tri_places *places = &s->places;
    if (atomic_load(&places->held) == places->count || atomic_load(&places->thief)) return;
    pthread_mutex_lock(&s->lock);
    tri_worker *thief = tri_want_core(s);
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, thief);
}

static bool is_elastic(const tr_process *process) {
    return process->kind != TR_KIND_CORE;
}

/* Since callbacks have been blocking, the core is not without a standby while anybody waits for it. */
static void guard(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&s->unguarded, false, memory_order_relaxed);
    tri_worker *standby = tri_want_standby(s);
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, standby);
}

/* What the worker at the core wakes stays with it, if it still is. */
static bool keep(tri_scheduler *s, tr_process *process) {
    tri_thread *here = tri_thread_here_or_null(s->engine);
    tri_worker *worker = here == NULL ? NULL : here->worker;
    if (worker == NULL || is_elastic(process) || tri_is_learned(process)) return false;
    if (atomic_load_explicit(&worker->role, memory_order_relaxed) != TRI_ROLE_CORE) return false;
    if (!tri_has_places(s)) {
        tri_queue_push(&worker->woken, process);
        if (atomic_load_explicit(&s->unguarded, memory_order_relaxed)) guard(s);
        return true;
    }
    if (!tri_place_push(&s->places, worker->place, worker, process)) return false;
    if (atomic_load_explicit(&worker->place->length, memory_order_relaxed) > 1)
        tri_scheduler_share(s);
    return true;
}

static bool is_for_loop(const tri_scheduler *s, const tr_process *process) {
    return process->kind == TR_KIND_ASYNC && process->behaviour->step != NULL &&
           s->engine->host.run_loop != NULL;
}

static void enqueue_async(tri_scheduler *s, tr_process *process) {
    pthread_mutex_lock(&s->lock);
    tri_queue_push(&s->async, process);
    tri_worker *worker = tri_want_looper(s);
    if (s->loop != NULL) tri_loop_signal(s->loop);
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, worker);
}

/* Whether there are threads enough to keep some for those that do not block. */
static bool has_choice(const tri_scheduler *s) {
    uint32_t looper = s->looper != NULL;
    return s->engine->options.max_threads > s->engine->options.parallel + looper + 1;
}

/* Who has blocked lately would bring the core to a stand when no thread is to be had that could go on there. */
static bool would_stop_core(const tri_scheduler *s, const tr_process *process) {
    return tri_has_blocked(process) && has_choice(s) && !tri_is_dead(process) && !tri_core_has_spare(s);
}

/* One that is learned leaves the core to others, even if it has to wait for a thread. One that is urgent does not
 * wait, unless the core had to wait for it. */
static bool is_for_pool(const tri_scheduler *s, const tr_process *process) {
    if (is_elastic(process) || would_stop_core(s, process)) return true;
    if (!tri_is_learned(process)) return false;
    bool waits = has_choice(s) && process->priority < TR_PRIORITY_HIGH && !tri_is_dead(process);
    return waits || tri_pool_room(s) > 0;
}

void tri_scheduler_enqueue(tri_scheduler *s, tr_process *process) {
    tri_worker *worker, *standby = NULL;
    bool back = false, unattended = false;
    if (is_for_loop(s, process)) {
        enqueue_async(s, process);
        return;
    }
    if (keep(s, process)) return;
    pthread_mutex_lock(&s->lock);
    if (is_for_pool(s, process)) {
        tri_queue_push(is_elastic(process) ? &s->elastic : &s->learned, process);
        worker = tri_want_searcher(s);
        unattended = worker == NULL && !s->searching;
    } else {
        tri_push_core(s, process);
        back = tri_take_back(s);
        worker = back ? NULL : tri_want_core(s);
        if (back || s->handoffs_until != 0) standby = tri_want_standby(s);
    }
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, worker);
    tri_start_role(s, standby);
    if (back || unattended) tri_ticker_poke(&s->engine->ticker);
}

/* The worker's share of what came from outside, to its place. */
static void fetch(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    uint64_t share = (s->core.length + s->places.count - 1) / s->places.count;
    for (; share > 0; share--)
        tri_place_put(&s->places, worker->place, tri_run_queue_take(&s->core));
    atomic_store(&s->outside, s->core.length);
    pthread_mutex_unlock(&s->lock);
}

/* Found nothing, or lost the place: whether to look again. */
static bool stay_at_place(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    if (atomic_load(&worker->role) == TRI_ROLE_CORE)
        tri_leave_core(s, worker, TRI_ROLE_IDLE);
    else
        s->detached_count--;
    tri_end_theft(s, worker);
    worker->place = NULL;
    tri_retire(s, worker);
    bool stays = atomic_load(&worker->role) == TRI_ROLE_CORE;
    pthread_mutex_unlock(&s->lock);
    return stays;
}

/* Whether more waits where this worker, which has something to run, is who must see to it: a thief looks at all
 * places, since it kept others from being woken. */
static bool leaves_work(tri_scheduler *s, tri_worker *worker) {
    bool thief = worker->thief;
    tri_end_theft(s, worker);
    if (atomic_load(&s->outside) > 0) return true;
    return thief ? tri_places_waiting(&s->places) > 0 : atomic_load(&worker->place->length) > 0;
}

static tr_process *next_at_place(tri_scheduler *s, tri_worker *worker) {
    do {
        if (atomic_load(&worker->role) != TRI_ROLE_CORE) continue;
        if (atomic_load_explicit(&s->outside, memory_order_relaxed) > 0) fetch(s, worker);
        tr_process *process = tri_place_take(&s->places, worker->place);
        if (process == NULL) continue;
        if (leaves_work(s, worker)) tri_scheduler_share(s);
        return process;
    } while (stay_at_place(s, worker));
    return NULL;
}

/* Under an interpreter lock: the next for the core. Threads may have run short since it was queued. */
static tr_process *take_for_core(tri_scheduler *s) {
    tr_process *process;
    while ((process = tri_run_queue_take(&s->core)) != NULL && would_stop_core(s, process))
        tri_queue_push(&s->learned, process);
    return process;
}

tr_process *tri_scheduler_next_core(tri_scheduler *s, tri_worker *worker) {
    tr_process *process = NULL;
    if (tri_has_places(s)) return next_at_place(s, worker);
    bool duty = atomic_load_explicit(&s->turnstile.duty, memory_order_relaxed);
    if (duty && atomic_load(&worker->role) == TRI_ROLE_CORE) tri_turnstile_serve(s);
    pthread_mutex_lock(&s->lock);
    if (atomic_load(&worker->role) == TRI_ROLE_DETACHED) {
        s->detached_count--;
        tri_retire(s, worker);
    }
    if (atomic_load(&worker->role) == TRI_ROLE_CORE) {
        tri_push_woken(s, worker);
        process = take_for_core(s);
        if (process == NULL) {
            tri_load_nobody(&s->load);
            tri_leave_core(s, worker, TRI_ROLE_IDLE);
            tri_retire(s, worker);
            if (s->core_count == 0) tri_turnstile_core_idle(s, tri_clock_monotonic());
        } else {
            tri_load_taken(&s->load);
            s->taken++;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return process;
}

tr_process *tri_scheduler_next_elastic(tri_scheduler *s, tri_worker *worker) {
    tr_process *process = NULL;
    tri_worker *searcher = NULL;
    pthread_mutex_lock(&s->lock);
    tri_stop_searching(s, worker);
    if (tri_pool_has_work(s)) {
        process = tri_pop_pool(s);
        searcher = tri_want_searcher(s);
    } else {
        s->elastic_count--;
        tri_retire(s, worker);
    }
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, searcher);
    return process;
}

uint64_t tri_scheduler_elastic_taken(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    uint64_t taken = s->elastic_taken;
    pthread_mutex_unlock(&s->lock);
    return taken;
}

/* ---- The tick -----------------------------------------------------------------------------------*/

#define STANDS_LONG (1000 * TRI_TICK)
enum { LOOKED_AT = 1000 }; /* so that the lock is not held for long */

/* Who was sent to the pool for once, or only has to be buried, goes to the core. */
static void take_harmless_back(tri_scheduler *s) {
    uint64_t count = s->learned.count < LOOKED_AT ? s->learned.count : LOOKED_AT;
    for (; count > 0; count--) {
        tr_process *process = tri_queue_pop(&s->learned);
        if (tri_has_blocked(process) && !tri_is_dead(process))
            tri_queue_push(&s->learned, process);
        else
            tri_push_core(s, process);
    }
}

/* The pool takes nobody: who is harmless goes to the core, and so does, if the pool gets no thread, one of those
 * that have blocked, for the others may wait for it. If the core would come to a stand with it, that is put off for
 * long, and what is known of it is forgotten, or it would be kept from the core again; and the next one does not
 * follow before the core has gone on. Whether any did. */
static bool rescue(tri_scheduler *s, uint64_t now) {
    bool stands = s->elastic_taken == s->taken_before && s->learned.head != NULL;
    bool full = tri_pool_room(s) == 0 || !s->searching;
    uint64_t before = s->learned.count;
    s->taken_before = s->elastic_taken;
    if (!stands) {
        s->stands_since = now;
        return false;
    }
    bool may_block = !has_choice(s) || tri_core_has_spare(s), goes_on = s->core.length == 0 || s->taken > 0;
    bool is_late = now - s->stands_since > STANDS_LONG && goes_on;
    take_harmless_back(s);
    if (s->learned.head != NULL && full && (may_block || is_late)) {
        tr_process *process = tri_queue_pop(&s->learned);
        if (!may_block) atomic_store_explicit(&process->blocking, 0, memory_order_relaxed);
        tri_push_core(s, process);
    }
    return s->learned.count < before;
}

/* Once a tick, though timers make the ticker come more often: who is stuck, and what waits for it. */
static void look(tri_scheduler *s, bool overlooked, uint64_t now) {
    if (now - s->looked_at < TRI_TICK / 2) return;
    s->looked_at = now;
    bool rescued = rescue(s, now);
    if (tri_has_places(s))
        tri_retake(s, overlooked);
    else
        tri_look_for_sleepers(s, now);
    tri_relieve(s, !rescued);
}

static void preempt_all(tri_scheduler *s) {
    for (tri_worker *worker = atomic_load(&s->workers); worker != NULL; worker = worker->next)
        atomic_store_explicit(&worker->preempt, true, memory_order_relaxed);
}

/* Whether the event loop is in a step, or has been since the last tick: it may turn out to be slow. */
static bool is_loop_watched(tri_scheduler *s) {
    tri_worker *worker = s->looper;
    if (worker == NULL || s->engine->slow.limit == 0) return false;
    uint64_t before = s->loop_serial;
    s->loop_serial = atomic_load(&worker->serial);
    return s->loop_serial != before || atomic_load(&s->loop_runs) || atomic_load(&worker->target) != 0;
}

int tri_scheduler_tick(tri_scheduler *s, uint64_t now) {
    tri_worker *core = NULL, *standby = NULL, *searcher, *looper;
    pthread_mutex_lock(&s->lock);
    tri_load_roll(&s->load, now);
    bool soon = s->core_count > 0 || tri_core_waiting(s) > 0 || tri_pool_has_work(s) || s->async.head != NULL;
    if (tri_turnstile_tick(s, now)) soon = true;
    if (now > s->handoffs_until) s->handoffs_until = 0;
    bool guarded = s->handoffs_until != 0;
    bool seldom = s->elastic_count + s->detached_count > s->waiting_count || is_loop_watched(s);
    if (s->core_count > 0) s->standby_until = now + TRI_STANDBY_STAYS;
    if (s->core_count > 0 || s->looper != NULL || tri_pool_has_work(s)) preempt_all(s);
    bool overlooked = tri_is_overlooked(s);
    if (tri_has_places(s)) {
        tri_places_balance(&s->places);
    } else if (s->core_count > 0 && s->was_busy) { /* busy across a tick */
        standby = tri_want_standby(s);
    }
    s->was_busy = s->core_count > 0;
    look(s, overlooked, now);
    if (overlooked) core = tri_want_core(s);
    searcher = tri_want_searcher(s);
    looper = tri_want_looper(s);
    pthread_mutex_unlock(&s->lock);
    tri_worker *const next[] = {core, standby, searcher, looper};
    for (int i = 0; i < 4; i++)
        if (next[i] != NULL) tri_worker_start(next[i]);
    if (soon) return TRI_TICK_SOON;
    return guarded ? TRI_TICK_GUARDED : seldom ? TRI_TICK_SELDOM : TRI_TICK_NEVER;
}

/* ---- Workers ------------------------------------------------------------------------------------*/

void tri_scheduler_worker_begins(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    if (pthread_getcpuclockid(pthread_self(), &worker->cpu) != 0)
        worker->cpu = -1; /* no clock: it counts as one that stands still */
    pthread_mutex_unlock(&s->lock);
}

void tri_scheduler_core_begins(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    tri_turnstile_core_begins(s);
    pthread_mutex_unlock(&s->lock);
}

void tri_scheduler_loop_ended(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    s->looper = NULL;
    tri_retire(s, worker);
    pthread_mutex_unlock(&s->lock);
}

void tri_scheduler_start_failed(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    int role = atomic_load(&worker->role);
    if (role == TRI_ROLE_CORE) {
        tri_leave_core(s, worker, TRI_ROLE_GONE);
        tri_end_theft(s, worker);
        worker->place = NULL;
    }
    if (role == TRI_ROLE_STANDBY) s->standby = false;
    if (role == TRI_ROLE_ELASTIC) s->elastic_count--;
    if (role == TRI_ROLE_LOOP) s->looper = NULL;
    tri_stop_searching(s, worker);
    worker->started = false;
    atomic_store(&worker->role, TRI_ROLE_GONE);
    s->threads--;
    s->limit_hits++;
    s->start_failures++;
    tri_parker_unpark(&s->stopper);
    pthread_mutex_unlock(&s->lock);
}

/* ---- The end ------------------------------------------------------------------------------------*/

void tri_scheduler_drained(tri_scheduler *s) { tri_parker_unpark(&s->stopper); }

bool tri_scheduler_worker_ends(tri_scheduler *s, tri_worker *worker, bool idle_long) {
    pthread_mutex_lock(&s->lock);
    bool ends = atomic_load(&worker->role) == TRI_ROLE_IDLE &&
                (s->ending || (idle_long && s->idle_count > TRI_IDLE_KEPT));
    if (ends) {
        for (tri_worker **at = &s->idle; *at != NULL; at = &(*at)->next_idle) {
            if (*at != worker) continue;
            *at = worker->next_idle;
            break;
        }
        s->idle_count--;
        atomic_store(&worker->role, TRI_ROLE_ENDING);
    }
    pthread_mutex_unlock(&s->lock);
    return ends;
}

void tri_scheduler_worker_ended(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    worker->started = false;
    atomic_store(&worker->role, TRI_ROLE_GONE);
    s->threads--;
    tri_parker_unpark(&s->stopper);
    pthread_mutex_unlock(&s->lock);
}

uint32_t tri_scheduler_end(tri_scheduler *s, uint64_t deadline) {
    uint32_t left;
    int result = TR_OK;
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    tri_turnstile_open(s);
    for (tri_worker *worker = s->idle; worker != NULL; worker = worker->next_idle)
        tri_parker_unpark(&worker->wake);
    if (s->loop != NULL) tri_loop_signal(s->loop);
    left = s->threads;
    pthread_mutex_unlock(&s->lock);
    while (left > 0 && result != TR_ETIMEDOUT) {
        result = tri_parker_park(&s->stopper, deadline);
        pthread_mutex_lock(&s->lock);
        left = s->threads;
        pthread_mutex_unlock(&s->lock);
    }
    return left;
}

void tri_scheduler_lock(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    tri_places_lock(&s->places);
}

void tri_scheduler_unlock(tri_scheduler *s) {
    tri_places_unlock(&s->places);
    pthread_mutex_unlock(&s->lock);
}
