/* scheduler.c: see scheduler.h. The workers themselves are in worker.c. */
#include "scheduler.h"

#include <stdlib.h>

#include "engine.h"
#include "worker.h"

int tri_scheduler_init(tri_scheduler *scheduler, tr_engine *engine) {
    *scheduler = (tri_scheduler){.engine = engine};
    if (tri_parker_init(&scheduler->stopper) != TR_OK) return TR_ENOMEM;
    return pthread_mutex_init(&scheduler->lock, NULL) == 0 ? TR_OK : TR_ENOMEM;
}

void tri_scheduler_fini(tri_scheduler *scheduler) {
    tri_worker *worker = atomic_load(&scheduler->workers);
    while (worker != NULL) {
        tri_worker *next = worker->next;
        tri_parker_fini(&worker->wake);
        tri_parker_fini(&worker->thread.parker);
        free(worker);
        worker = next;
    }
    tri_parker_fini(&scheduler->stopper);
    pthread_mutex_destroy(&scheduler->lock);
}

/* ---- Queues, under lock -------------------------------------------------------------------------*/

static void push(tri_queue *queue, tr_process *process) {
    process->next = NULL;
    if (queue->tail != NULL)
        queue->tail->next = process;
    else
        queue->head = process;
    queue->tail = process;
    queue->count++;
}

static tr_process *pop(tri_queue *queue) {
    tr_process *process = queue->head;
    queue->head = process->next;
    if (queue->head == NULL) queue->tail = NULL;
    queue->count--;
    return process;
}

static void push_core(tri_scheduler *s, tr_process *process) {
    push(&s->core[process->priority], process);
    s->core_waiting++;
}

static void push_woken(tri_scheduler *s, tri_worker *worker) {
    while (worker->woken.head != NULL) push_core(s, pop(&worker->woken));
}

static int pick_priority(tri_scheduler *s) {
    static const int by_rank[] = {TR_PRIORITY_MAX, TR_PRIORITY_HIGH, TR_PRIORITY_NORMAL,
                                  TR_PRIORITY_LOW};
    s->turn++;
    if (s->turn % 64 == 0) { /* whoever would starve: the lowest that waits, in rotation */
        for (int i = 0; i < TRI_PRIORITIES; i++) {
            int priority = (int)((s->turn / 64 + (uint32_t)i) % TRI_PRIORITIES);
            if (s->core[priority].head != NULL) return priority;
        }
    }
    if (s->core[TR_PRIORITY_MAX].head == NULL && s->core[TR_PRIORITY_HIGH].head == NULL &&
        s->turn % 8 == 0 && s->core[TR_PRIORITY_LOW].head != NULL)
        return TR_PRIORITY_LOW;
    for (int i = 0; i < TRI_PRIORITIES; i++)
        if (s->core[by_rank[i]].head != NULL) return by_rank[i];
    return -1;
}

/* ---- Roles, under lock --------------------------------------------------------------------------*/

static void take_core(tri_scheduler *s, tri_worker *worker) {
    atomic_store(&worker->role, TRI_ROLE_CORE);
    s->core_count++;
    s->active = worker;
}

static void leave_core(tri_scheduler *s, tri_worker *worker, int role) {
    atomic_store(&worker->role, role);
    s->core_count--;
    push_woken(s, worker);
    if (s->active == worker) s->active = NULL;
    if (role == TRI_ROLE_DETACHED) s->detached_count++;
}

static void go_idle(tri_scheduler *s, tri_worker *worker) {
    atomic_store(&worker->role, TRI_ROLE_IDLE);
    worker->next_idle = s->idle;
    s->idle = worker;
    s->idle_count++;
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
    if (s->threads < s->engine->options.max_threads) worker = tri_worker_new(s);
    if (worker != NULL)
        s->threads++;
    else
        s->limit_hits++;
    return worker;
}

static bool core_wants(const tri_scheduler *s) {
    return s->core_waiting > 0 && s->core_count < s->engine->options.parallel;
}

/* Processes of the pool may all wait for one of the core, so it must never get the last threads. */
static bool pool_wants(const tri_scheduler *s) {
    const tr_options *options = &s->engine->options;
    uint32_t kept = options->parallel + (options->handoff ? 1 : 0);
    uint32_t most = options->max_threads > kept ? options->max_threads - kept : 1;
    return s->elastic.head != NULL && !s->searching &&
           s->elastic_count + s->detached_count < most;
}

static void become_searcher(tri_scheduler *s, tri_worker *worker) {
    atomic_store(&worker->role, TRI_ROLE_ELASTIC);
    worker->searching = s->searching = true;
    s->elastic_count++;
}

static void stop_searching(tri_scheduler *s, tri_worker *worker) {
    if (worker->searching) worker->searching = s->searching = false;
}

static tri_worker *want_core(tri_scheduler *s) {
    tri_worker *worker = core_wants(s) ? get_worker(s) : NULL;
    if (worker != NULL) take_core(s, worker);
    return worker;
}

static tri_worker *want_searcher(tri_scheduler *s) {
    tri_worker *worker = pool_wants(s) ? get_worker(s) : NULL;
    if (worker != NULL) become_searcher(s, worker);
    return worker;
}

static tri_worker *want_standby(tri_scheduler *s) {
    if (s->standby || !s->engine->options.handoff || s->core_count == 0) return NULL;
    tri_worker *worker = get_worker(s);
    if (worker == NULL) return NULL;
    atomic_store(&worker->role, TRI_ROLE_STANDBY);
    s->standby = true;
    return worker;
}

/* The worker's role is over: it goes where it is wanted, which may have been refused for want of
 * threads before, or sleeps. */
static void retire(tri_scheduler *s, tri_worker *worker) {
    if (core_wants(s))
        take_core(s, worker);
    else if (pool_wants(s))
        become_searcher(s, worker);
    else
        go_idle(s, worker);
}

static void start(tri_scheduler *s, tri_worker *worker) {
    if (worker == NULL) return;
    tri_worker_start(worker);
    tri_ticker_poke(&s->engine->ticker);
}

void tri_scheduler_start_failed(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    int role = atomic_load(&worker->role);
    if (role == TRI_ROLE_CORE) leave_core(s, worker, TRI_ROLE_GONE);
    if (role == TRI_ROLE_STANDBY) s->standby = false;
    if (role == TRI_ROLE_ELASTIC) s->elastic_count--;
    stop_searching(s, worker);
    worker->started = false;
    atomic_store(&worker->role, TRI_ROLE_GONE);
    s->threads--;
    s->limit_hits++;
    tri_parker_unpark(&s->stopper);
    pthread_mutex_unlock(&s->lock);
}

/* The calling thread, if it is the worker at the core and may keep what it wakes to itself. */
static tri_worker *at_core(tri_scheduler *s) {
    if (!s->engine->options.handoff) return NULL;
    tri_thread *here = tri_thread_here_or_null(s->engine);
    tri_worker *worker = here == NULL ? NULL : here->worker;
    bool core = worker != NULL && atomic_load_explicit(&worker->role, memory_order_relaxed) ==
                                      TRI_ROLE_CORE;
    return core ? worker : NULL;
}

void tri_scheduler_enqueue(tri_scheduler *s, tr_process *process) {
    tri_worker *worker = at_core(s);
    if (worker != NULL && process->kind != TR_KIND_THREAD) {
        push(&worker->woken, process);
        return;
    }
    pthread_mutex_lock(&s->lock);
    if (process->kind == TR_KIND_THREAD) {
        push(&s->elastic, process);
        worker = want_searcher(s);
    } else {
        push_core(s, process);
        worker = want_core(s);
    }
    pthread_mutex_unlock(&s->lock);
    start(s, worker);
}

tr_process *tri_scheduler_next_core(tri_scheduler *s, tri_worker *worker) {
    tr_process *process = NULL;
    pthread_mutex_lock(&s->lock);
    if (atomic_load(&worker->role) == TRI_ROLE_DETACHED) {
        s->detached_count--;
        retire(s, worker);
    }
    if (atomic_load(&worker->role) == TRI_ROLE_CORE) {
        push_woken(s, worker);
        if (s->core_waiting > 0) {
            process = pop(&s->core[pick_priority(s)]);
            s->core_waiting--;
        } else {
            leave_core(s, worker, TRI_ROLE_IDLE);
            retire(s, worker);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return process;
}

tr_process *tri_scheduler_next_elastic(tri_scheduler *s, tri_worker *worker) {
    tr_process *process = NULL;
    tri_worker *searcher = NULL;
    pthread_mutex_lock(&s->lock);
    stop_searching(s, worker);
    if (s->elastic.head != NULL) {
        process = pop(&s->elastic);
        s->elastic_taken++;
        searcher = want_searcher(s);
    } else {
        s->elastic_count--;
        retire(s, worker);
    }
    pthread_mutex_unlock(&s->lock);
    start(s, searcher);
    return process;
}

uint64_t tri_scheduler_elastic_taken(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    uint64_t taken = s->elastic_taken;
    pthread_mutex_unlock(&s->lock);
    return taken;
}

/* ---- Hand-off -----------------------------------------------------------------------------------*/

void tri_scheduler_watch(tri_scheduler *s, tri_glimpse *glimpse) {
    pthread_mutex_lock(&s->lock);
    glimpse->worker = s->active;
    glimpse->serial = s->active == NULL ? 0 : atomic_load(&s->active->serial);
    glimpse->time = tri_clock_monotonic();
    pthread_mutex_unlock(&s->lock);
}

/* Whether the core's worker sits in a callback that gave the interpreter lock away, or that is old. */
static bool is_stuck(tri_scheduler *s, const tri_glimpse *before, uint64_t now) {
    uint64_t serial = atomic_load(&s->active->serial);
    if ((serial & 1) == 0) return false;
    bool forced = now - before->time >= s->engine->options.switch_interval / 10 * 8;
    return !forced || (s->active == before->worker && serial == before->serial);
}

int tri_scheduler_stand_by(tri_scheduler *s, tri_worker *worker, const tri_glimpse *before) {
    int decision = TRI_STANDBY_AGAIN;
    tri_worker *next = NULL;
    uint64_t now = tri_clock_monotonic();
    pthread_mutex_lock(&s->lock);
    if (s->active != NULL && is_stuck(s, before, now)) {
        leave_core(s, s->active, TRI_ROLE_DETACHED);
        s->handoffs++;
        s->standby_until = now + TRI_STANDBY_STAYS;
    }
    if (s->core_count == 0 && s->core_waiting > 0 && !s->ending) {
        s->standby = false;
        take_core(s, worker);
        next = want_standby(s);
        decision = TRI_STANDBY_TAKE;
    } else if (s->core_count == 0 || now > s->standby_until || s->ending) {
        s->standby = false;
        retire(s, worker);
        decision = TRI_STANDBY_RETIRE;
    }
    pthread_mutex_unlock(&s->lock);
    start(s, next);
    return decision;
}

void tri_scheduler_before_wait(tr_process *self) {
    tri_worker *worker = atomic_load(&self->worker);
    tri_worker *next = NULL;
    if (worker == NULL) return;
    tri_scheduler *s = &self->engine->scheduler;
    pthread_mutex_lock(&s->lock);
    if (atomic_load(&worker->role) == TRI_ROLE_CORE) {
        leave_core(s, worker, TRI_ROLE_DETACHED);
        next = want_core(s);
    }
    pthread_mutex_unlock(&s->lock);
    start(s, next);
}

/* Without an interpreter lock: a worker inside one callback for a whole tick gives its place up. */
static tri_worker *retake(tri_scheduler *s) {
    tri_worker *worker = atomic_load(&s->workers);
    for (; worker != NULL; worker = worker->next) {
        uint64_t serial = atomic_load(&worker->serial);
        bool stuck = (serial & 1) != 0 && serial == worker->seen_serial;
        worker->seen_serial = serial;
        if (!stuck || atomic_load(&worker->role) != TRI_ROLE_CORE || s->core_waiting == 0) continue;
        leave_core(s, worker, TRI_ROLE_DETACHED);
        s->handoffs++;
        tri_worker *next = want_core(s);
        if (next != NULL) return next;
    }
    return NULL;
}

bool tri_scheduler_tick(tri_scheduler *s, uint64_t now) {
    tri_worker *next = NULL;
    pthread_mutex_lock(&s->lock);
    bool busy = s->core_count > 0 || s->core_waiting > 0 || s->elastic.head != NULL ||
                s->detached_count > 0;
    if (s->core_count > 0) s->standby_until = now + TRI_STANDBY_STAYS;
    if (s->core_count > 0)
        for (tri_worker *worker = atomic_load(&s->workers); worker != NULL; worker = worker->next)
            atomic_store_explicit(&worker->preempt, true, memory_order_relaxed);
    if (!s->engine->options.handoff)
        next = retake(s);
    else if (s->core_count > 0 && s->was_busy) /* busy across a tick */
        next = want_standby(s);
    s->was_busy = s->core_count > 0;
    if (next == NULL) next = want_core(s); /* what was turned away at the limit of threads */
    if (next == NULL) next = want_searcher(s);
    pthread_mutex_unlock(&s->lock);
    if (next != NULL) tri_worker_start(next);
    return busy;
}

/* ---- Interrupts ---------------------------------------------------------------------------------
 *
 * `target` of a worker is the process whose callback it is in, with BUSY while somebody sends an interrupt
 * to it and MARKED after. Only the worker sets and clears the process; whoever wants to interrupt it
 * moves process -> process|BUSY -> process|MARKED, so that an interrupt meant for one process can
 * not hit the next: the worker waits for BUSY to pass (a few instructions) and takes back what was
 * MARKED and did not arrive. None is missed: the ender sets DEAD and then looks at the target, the worker
 * sets the target and then looks at DEAD. A process that was ended while its worker ran an inner one
 * (tr_spawn with enter) is interrupted when the inner one is left. Interrupts are sent by attached
 * threads; while the engine stops, which is done by a detached one, it only marks, and the ticker, which
 * sends all again every few milliseconds, attaches itself. */

enum { BUSY = 1, MARKED = 2 };

static void set_target(tri_worker *worker, tr_process *process) {
    tr_engine *engine = worker->thread.engine;
    uintptr_t old = atomic_load(&worker->target);
    for (;;) {
        if (old & BUSY)
            old = atomic_load(&worker->target);
        else if (atomic_compare_exchange_weak(&worker->target, &old, (uintptr_t)process))
            break;
    }
    if ((old & MARKED) == 0) return;
    atomic_fetch_sub(&engine->scheduler.marked, 1);
    if (engine->host.interrupt_clear != NULL)
        engine->host.interrupt_clear(engine->host.context, worker->host);
}

void tri_scheduler_enter(tr_process *process) {
    tri_worker *worker = atomic_load(&process->worker);
    if (worker != NULL) set_target(worker, process);
}

static void send_interrupt(tr_engine *engine, tri_worker *worker, uintptr_t from, bool attached) {
    uintptr_t process = from & ~(uintptr_t)(BUSY | MARKED);
    if (!atomic_compare_exchange_strong(&worker->target, &from, process | BUSY)) return;
    if ((from & MARKED) == 0) atomic_fetch_add(&engine->scheduler.marked, 1);
    if (attached) engine->host.interrupt(engine->host.context, worker->host);
    atomic_store(&worker->target, process | MARKED);
}

void tri_scheduler_leave(tr_process *process, tr_process *outer) {
    tr_engine *engine = process->engine;
    tri_worker *worker = atomic_load(&process->worker);
    if (worker == NULL) return;
    set_target(worker, outer);
    if (outer != NULL && tri_is_dead(outer) && engine->host.interrupt != NULL)
        send_interrupt(engine, worker, (uintptr_t)outer, true);
}

void tri_scheduler_interrupt(tr_process *dead) {
    tr_engine *engine = dead->engine;
    tri_worker *worker = atomic_load(&dead->worker);
    if (worker == NULL || engine->host.interrupt == NULL) return;
    tri_thread *here = tri_thread_here_or_null(engine);
    if (here != NULL && here->worker == worker) return; /* it is us: we return by ourselves */
    send_interrupt(engine, worker, (uintptr_t)dead, !atomic_load(&engine->stopping));
    tri_ticker_poke(&engine->ticker);
}

void tri_scheduler_interrupt_again(tri_scheduler *s) {
    tri_worker *worker = atomic_load(&s->workers);
    for (; worker != NULL; worker = worker->next) {
        uintptr_t target = atomic_load(&worker->target);
        if ((target & MARKED) != 0 && (target & BUSY) == 0)
            send_interrupt(s->engine, worker, target, true);
    }
}

/* ---- The end ------------------------------------------------------------------------------------*/

void tri_scheduler_drained(tri_scheduler *s) { tri_parker_unpark(&s->stopper); }

bool tri_scheduler_worker_ends(tri_scheduler *s, tri_worker *worker) {
    pthread_mutex_lock(&s->lock);
    bool ends = s->ending && atomic_load(&worker->role) == TRI_ROLE_IDLE;
    if (ends) {
        for (tri_worker **at = &s->idle; *at != NULL; at = &(*at)->next_idle) {
            if (*at != worker) continue;
            *at = worker->next_idle;
            break;
        }
        s->idle_count--;
        atomic_store(&worker->role, TRI_ROLE_GONE);
    }
    pthread_mutex_unlock(&s->lock);
    return ends;
}

void tri_scheduler_worker_ended(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    s->threads--;
    tri_parker_unpark(&s->stopper);
    pthread_mutex_unlock(&s->lock);
}

uint32_t tri_scheduler_end(tri_scheduler *s, uint64_t deadline) {
    uint32_t left;
    int result = TR_OK;
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    for (tri_worker *worker = s->idle; worker != NULL; worker = worker->next_idle)
        tri_parker_unpark(&worker->wake);
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

void tri_scheduler_counters(tri_scheduler *s, tr_counters *counters) {
    pthread_mutex_lock(&s->lock);
    for (tri_worker *worker = atomic_load(&s->workers); worker != NULL; worker = worker->next) {
        counters->slices += atomic_load_explicit(&worker->slices, memory_order_relaxed);
        counters->callbacks += atomic_load_explicit(&worker->callbacks, memory_order_relaxed);
    }
    counters->handoffs = s->handoffs;
    counters->run_queue = s->core_waiting;
    counters->elastic_queue = s->elastic.count;
    counters->threads = s->threads;
    counters->threads_idle = s->idle_count;
    counters->threads_detached = s->detached_count;
    counters->threads_limit_hits = s->limit_hits;
    pthread_mutex_unlock(&s->lock);
}
