/* roles.c: see roles.h. */
#include "roles.h"

#include "engine.h"
#include "worker.h"

bool tri_has_places(const tri_scheduler *s) { return s->places.count > 0; }

void tri_push_woken(tri_scheduler *s, tri_worker *worker) {
    while (worker->woken.head != NULL) tri_run_queue_push(&s->core, tri_queue_pop(&worker->woken));
}

void tri_push_core(tri_scheduler *s, tr_process *process) {
    tri_run_queue_push(&s->core, process);
    if (tri_has_places(s)) atomic_store(&s->outside, s->core.length);
}

void tri_end_theft(tri_scheduler *s, tri_worker *worker) {
    if (!worker->thief) return;
    worker->thief = false;
    atomic_store(&s->places.thief, false);
}

void tri_take_core(tri_scheduler *s, tri_worker *worker) {
    if (tri_has_places(s)) worker->place = tri_places_hold(&s->places, worker);
    atomic_store(&worker->role, TRI_ROLE_CORE);
    s->core_count++;
    tri_load_change(&s->load, s->core_count, tri_clock_monotonic());
    s->active = worker;
}

void tri_leave_core(tri_scheduler *s, tri_worker *worker, int role) {
    atomic_store(&worker->role, role);
    s->core_count--;
    tri_load_change(&s->load, s->core_count, tri_clock_monotonic());
    if (tri_has_places(s))
        tri_place_let_go(&s->places, worker->place);
    else
        tri_push_woken(s, worker);
    if (s->active == worker) s->active = NULL;
    if (role == TRI_ROLE_DETACHED) s->detached_count++;
}

static void go_idle(tri_scheduler *s, tri_worker *worker) {
    atomic_store(&worker->role, TRI_ROLE_IDLE);
    worker->next_idle = s->idle;
    s->idle = worker;
    s->idle_count++;
}

/* How many more threads may be started. */
static uint32_t new_threads(const tri_scheduler *s) {
    uint32_t most = s->engine->options.max_threads, counted = s->threads - s->waiting_count;
    return counted < most && s->threads / TRI_THREADS_IN_ALL < most ? most - counted : 0;
}

/* An idle worker, or a new one; NULL at the limit. What it needs outside the lock is done by
 * tri_worker_start. */
static tri_worker *get_worker(tri_scheduler *s) {
    tri_worker *worker = s->idle;
    if (s->ending) return NULL;
    if (worker != NULL) {
        s->idle = worker->next_idle;
        s->idle_count--;
        return worker;
    }
    if (new_threads(s) > 0) worker = tri_worker_new(s);
    if (worker != NULL)
        s->threads++;
    else
        s->limit_hits++;
    return worker;
}

uint64_t tri_core_waiting(const tri_scheduler *s) {
    return s->core.length + (tri_has_places(s) ? tri_places_waiting(&s->places) : 0);
}

static bool core_wants(const tri_scheduler *s) {
    bool duty = atomic_load_explicit(&s->turnstile.duty, memory_order_relaxed);
    return s->core_count < s->engine->options.parallel && (tri_core_waiting(s) > 0 || duty);
}

uint32_t tri_pool_room(const tri_scheduler *s) {
    const tr_options *options = &s->engine->options;
    uint32_t kept = options->parallel + (options->handoff ? 1 : 0) + (s->looper != NULL ? 1 : 0);
    uint32_t most = options->max_threads > kept ? options->max_threads - kept : 1;
    uint32_t count = s->elastic_count + s->detached_count;
    uint32_t busy = count - s->waiting_count;
    return busy < most && count / TRI_THREADS_IN_ALL < most ? most - busy : 0;
}

static uint32_t threads_for_core(const tri_scheduler *s) {
    return s->idle_count + s->standby + new_threads(s);
}

bool tri_core_may_grow(const tri_scheduler *s) {
    return s->core_count < s->engine->options.parallel && threads_for_core(s) > 0;
}

bool tri_core_has_spare(const tri_scheduler *s) {
    bool grows = s->core_count < s->engine->options.parallel; /* the callback itself takes a thread */
    return threads_for_core(s) >= (grows ? 2 : 1);
}

bool tri_pool_has_work(const tri_scheduler *s) {
    return s->elastic.head != NULL || s->learned.head != NULL;
}

static bool pool_wants(const tri_scheduler *s) {
    return tri_pool_has_work(s) && !s->searching && tri_pool_room(s) > 0;
}

tr_process *tri_pop_pool(tri_scheduler *s) {
    s->elastic_taken++;
    s->learned_next = !s->learned_next;
    bool learned = s->elastic.head == NULL || (s->learned_next && s->learned.head != NULL);
    return tri_queue_pop(learned ? &s->learned : &s->elastic);
}

static void become_searcher(tri_scheduler *s, tri_worker *worker) {
    atomic_store(&worker->role, TRI_ROLE_ELASTIC);
    worker->searching = s->searching = true;
    s->elastic_count++;
}

void tri_stop_searching(tri_scheduler *s, tri_worker *worker) {
    if (worker->searching) worker->searching = s->searching = false;
}

tri_worker *tri_want_core(tri_scheduler *s) {
    if (tri_has_places(s) && atomic_load(&s->places.thief)) return NULL; /* one is on its way */
    tri_worker *worker = core_wants(s) ? get_worker(s) : NULL;
    if (worker == NULL) return NULL;
    if (tri_has_places(s)) {
        worker->thief = true;
        atomic_store(&s->places.thief, true);
    }
    tri_take_core(s, worker);
    return worker;
}

tri_worker *tri_want_searcher(tri_scheduler *s) {
    if (!pool_wants(s)) {
        if (tri_pool_has_work(s) && !s->searching) s->limit_hits++;
        return NULL;
    }
    tri_worker *worker = get_worker(s);
    if (worker != NULL) become_searcher(s, worker);
    return worker;
}

tri_worker *tri_want_standby(tri_scheduler *s) {
    if (s->standby || !s->engine->options.handoff || s->core_count == 0) return NULL;
    tri_worker *worker = get_worker(s);
    if (worker == NULL) return NULL;
    atomic_store(&worker->role, TRI_ROLE_STANDBY);
    s->standby = true;
    return worker;
}

tri_worker *tri_want_looper(tri_scheduler *s) {
    tri_worker *worker = s->async.head == NULL || s->looper != NULL ? NULL : get_worker(s);
    if (worker == NULL) return NULL;
    atomic_store(&worker->role, TRI_ROLE_LOOP);
    s->looper = worker;
    return worker;
}

void tri_retire(tri_scheduler *s, tri_worker *worker) {
    if (core_wants(s))
        tri_take_core(s, worker);
    else if (pool_wants(s))
        become_searcher(s, worker);
    else
        go_idle(s, worker);
}

void tri_start_role(tri_scheduler *s, tri_worker *worker) {
    if (worker == NULL) return;
    tri_worker_start(worker);
    tri_ticker_poke(&s->engine->ticker);
}
