/* worker.c: an engine thread. See worker.h and scheduler.h. */
#include "worker.h"

#include <signal.h>
#include <stdlib.h>

#include "engine.h"

tri_worker *tri_worker_new(tri_scheduler *scheduler) {
    tri_worker *worker = atomic_load(&scheduler->workers);
    for (; worker != NULL; worker = worker->next)
        if (atomic_load(&worker->role) == TRI_ROLE_GONE) return worker;
    worker = calloc(1, sizeof *worker);
    if (worker == NULL) return NULL;
    if (tri_parker_init(&worker->wake) != TR_OK) goto fail;
    if (tri_parker_init(&worker->thread.parker) != TR_OK) goto fail_wake;
    if (tri_parker_init(&worker->gate_parker) != TR_OK) goto fail_thread;
    worker->thread.engine = scheduler->engine;
    worker->thread.worker = worker;
    worker->next = atomic_load(&scheduler->workers);
    atomic_store(&scheduler->workers, worker);
    return worker;
fail_thread:
    tri_parker_fini(&worker->thread.parker);
fail_wake:
    tri_parker_fini(&worker->wake);
fail:
    free(worker);
    return NULL;
}

uint64_t tri_worker_cpu(const tri_worker *worker) { return tri_clock_cpu(worker->cpu); }

static void attach(tri_worker *worker) {
    tr_engine *engine = worker->thread.engine;
    if (engine->host.attach == NULL) return;
    tr_attach_begins(engine);
    engine->host.attach(engine->host.context, worker->host);
    tr_attach_ends(engine);
}

static void detach(tri_worker *worker) {
    tr_host *host = &worker->thread.engine->host;
    if (host->detach != NULL) host->detach(host->context, worker->host);
}

/* ---- A slice ------------------------------------------------------------------------------------*/

/* Add to a number that only this thread writes and others may read. */
static void add(_Atomic uint64_t *number, uint64_t n) {
    uint64_t value = atomic_load_explicit(number, memory_order_relaxed);
    atomic_store_explicit(number, value + n, memory_order_relaxed);
}

/* After a callback: whether the process must let others run. */
static bool slice_is_over(tri_worker *worker, tr_process *process) {
    add(&worker->serial, 2);
    return tri_is_dead(process) || atomic_load_explicit(&worker->preempt, memory_order_relaxed) ||
           atomic_load_explicit(&worker->role, memory_order_relaxed) == TRI_ROLE_DETACHED;
}

/* Before a callback: what waits at the worker's place meanwhile is for others, too. */
static void share(tri_worker *worker) {
    const tri_place *place = worker->place;
    if (place != NULL && atomic_load_explicit(&place->length, memory_order_relaxed) > 0)
        tri_scheduler_share(&worker->thread.engine->scheduler);
}

static uint64_t handle_messages(tri_worker *worker, tr_process *process) {
    tr_engine *engine = worker->thread.engine;
    uint64_t handled = 0;
    while (handled < TRI_SLICE) {
        tr_message *message = tri_mailbox_take(&process->mailbox);
        if (message == NULL) break;
        share(worker);
        atomic_store_explicit(&worker->slow.kind, message->kind, memory_order_relaxed);
        process->behaviour->handle(process, process->state, message);
        tr_message_free(engine, message);
        handled++;
        if (slice_is_over(worker, process)) break;
    }
    return handled;
}

static uint64_t take_steps(tri_worker *worker, tr_process *process, int *wait, uint64_t *deadline) {
    uint64_t steps = 0;
    do {
        share(worker);
        *deadline = TR_FOREVER;
        *wait = process->behaviour->step(process, process->state, deadline);
        steps++;
    } while (!slice_is_over(worker, process) && *wait == TR_STEP_AGAIN && steps < TRI_SLICE);
    return steps;
}

static void run_to_end(tr_process *process) {
    process->behaviour->run(process, process->state);
    if (!tri_is_dead(process)) tr_exit_self(process, tr_reason_constant(TR_NORMAL));
}

/* By how much it is to be believed less that it blocks, which callbacks that were long seem to confirm; only so much
 * that it is tried at the core again, however many one slice had. */
static uint64_t doubts(const tr_process *process, uint64_t handled, uint64_t score) {
    enum { SELDOM = 16 };
    uint64_t all = atomic_load_explicit(&process->reductions, memory_order_relaxed);
    uint64_t count = all / SELDOM - (all - handled) / SELDOM, most = score - (TRI_LEARNED - 1);
    return count < most ? count : most;
}

/* The tick saw the callback that has just ended sleep at the core; a message's has added 2 at its end. */
static bool has_slept(const tri_worker *worker) {
    uint64_t slept = atomic_load_explicit(&worker->slept, memory_order_relaxed);
    return slept != 0 && atomic_load_explicit(&worker->serial, memory_order_relaxed) - slept <= 2;
}

/* What a slice says of the process's habits (worker.h). `time` is 0 at the core. */
static void learn(tri_worker *worker, tr_process *process, uint64_t handled, uint64_t time) {
    uint64_t score = atomic_load_explicit(&process->blocking, memory_order_relaxed);
    int role = atomic_load_explicit(&worker->role, memory_order_relaxed);
    bool lost = time == 0 && (role == TRI_ROLE_DETACHED || worker->took_back || has_slept(worker));
    if ((score == 0 && !lost) || (time == 0 && role == TRI_ROLE_ELASTIC)) return;
    if (lost)
        score += score < TRI_LEARNED ? TRI_BLOCKED : 0;
    else if (handled > 0 && time > handled * TRI_LONG_CALLBACK)
        score -= score < TRI_LEARNED ? 0 : doubts(process, handled, score);
    else
        score -= handled < score ? handled : score;
    atomic_store_explicit(&process->blocking, (uint8_t)score, memory_order_relaxed);
}

void tri_run_slice(tri_worker *worker, tr_process *process, uint64_t since) {
    tr_engine *engine = worker->thread.engine;
    const tr_behaviour *behaviour = process->behaviour;
    uint64_t handled = 1, deadline = TR_FOREVER;
    int wait = TR_STEP_MESSAGE;
    int role = atomic_load_explicit(&worker->role, memory_order_relaxed);
    tri_slow_slice(&worker->slow, process, role == TRI_ROLE_LOOP);
    add(&worker->serial, 1);
    process->thread = &worker->thread;
    if (atomic_load_explicit(&process->worker, memory_order_relaxed) != worker)
        atomic_store(&process->worker, worker);
    worker->thread.current = process;
    /* It was QUEUED, which is as good as RUNNING for everybody else. */
    atomic_store_explicit(&process->run, TRI_RUNNING, memory_order_release);
    tri_scheduler_begin(worker, process);
    atomic_store_explicit(&worker->preempt, false, memory_order_relaxed);
    worker->took_back = false;
    if (!tri_is_dead(process)) {
        if (behaviour->begin != NULL) behaviour->begin(process, process->state);
        if (behaviour->run != NULL)
            run_to_end(process);
        else if (behaviour->step != NULL)
            handled = take_steps(worker, process, &wait, &deadline);
        else
            handled = handle_messages(worker, process);
        if (behaviour->end != NULL) behaviour->end(process, process->state);
    }
    tri_scheduler_leave(process, NULL);
    add(&process->reductions, handled);
    learn(worker, process, handled, since == 0 ? 0 : tri_clock_monotonic() - since);
    if (atomic_load(&engine->forked) && engine->host.forked != NULL)
        engine->host.forked(engine->host.context);
    if (atomic_load_explicit(&worker->slow.flagged, memory_order_relaxed) != 0)
        tri_slow_ended(worker, process);
    /* Still current: what a burial runs, runs as the dead process. */
    if (behaviour->step != NULL)
        tri_rest(process, wait, deadline);
    else
        tri_yield(process);
    worker->thread.current = NULL;
    add(&worker->slices, 1);
    add(&worker->callbacks, handled);
    add(&worker->serial, 1);
    if (atomic_load_explicit(&worker->gate, memory_order_relaxed) != TRI_GATE_FREE ||
        atomic_load_explicit(&worker->armed, memory_order_relaxed))
        tri_turnstile_leave(&engine->scheduler, worker);
}

/* ---- Roles --------------------------------------------------------------------------------------*/

static void run_core(tri_worker *worker) {
    tri_scheduler *scheduler = &worker->thread.engine->scheduler;
    tr_process *process;
    while ((process = tri_scheduler_next_core(scheduler, worker)) != NULL)
        tri_run_slice(worker, process, 0);
}

/* A searcher that got the interpreter lock by force while others of the pool make progress is not
 * needed yet: it gives the lock back and waits on. */
static void attach_elastic(tri_worker *worker) {
    tr_engine *engine = worker->thread.engine;
    for (;;) {
        uint64_t taken = tri_scheduler_elastic_taken(&engine->scheduler);
        uint64_t since = tri_clock_monotonic();
        attach(worker);
        if (!engine->options.handoff) return;
        uint64_t waited = tri_clock_monotonic() - since;
        uint64_t interval =
            atomic_load_explicit(&engine->scheduler.switch_interval, memory_order_relaxed);
        if (waited < interval / 10 * 8) return;
        if (tri_scheduler_elastic_taken(&engine->scheduler) == taken) return;
        if (atomic_load(&engine->stopping)) return;
        detach(worker);
    }
}

static void run_elastic(tri_worker *worker) {
    tri_scheduler *scheduler = &worker->thread.engine->scheduler;
    tr_process *process;
    while ((process = tri_scheduler_next_elastic(scheduler, worker)) != NULL)
        tri_run_slice(worker, process, tri_has_blocked(process) ? tri_clock_monotonic() : 0);
}

static void stand_by(tri_worker *worker) {
    tri_scheduler *scheduler = &worker->thread.engine->scheduler;
    tri_glimpse glimpse = {0};
    for (;;) {
        tri_scheduler_watch(scheduler, &glimpse);
        attach(worker);
        int decision = tri_scheduler_stand_by(scheduler, worker, &glimpse);
        if (decision == TRI_STANDBY_TAKE) run_core(worker);
        detach(worker);
        if (decision != TRI_STANDBY_AGAIN) return;
    }
}

/* Whether it was idle for so long that it may end. */
static bool play_role(tri_worker *worker) {
    tri_scheduler *scheduler = &worker->thread.engine->scheduler;
    switch (atomic_load(&worker->role)) {
    case TRI_ROLE_CORE:
        attach(worker);
        tri_scheduler_core_begins(scheduler);
        run_core(worker);
        detach(worker);
        break;
    case TRI_ROLE_ELASTIC:
        attach_elastic(worker);
        run_elastic(worker);
        detach(worker);
        break;
    case TRI_ROLE_STANDBY:
        stand_by(worker);
        break;
    case TRI_ROLE_LOOP:
        attach(worker);
        worker->thread.engine->host.run_loop(worker->thread.engine->host.context);
        detach(worker);
        tri_scheduler_loop_ended(&worker->thread.engine->scheduler, worker);
        break;
    default:
        return tri_parker_park(&worker->wake, tri_clock_monotonic() + TRI_IDLE_STAYS) ==
               TR_ETIMEDOUT;
    }
    return false;
}

static void *worker_main(void *argument) {
    tri_worker *worker = argument;
    tr_engine *engine = worker->thread.engine;
    tr_host *host = &engine->host;
    tri_thread_adopt(&worker->thread);
    tri_scheduler_worker_begins(&engine->scheduler, worker);
    tri_slow_begin(worker);
    if (host->thread_start != NULL) {
        worker->host = host->thread_start(host->context);
        if (worker->host == NULL) {
            tri_scheduler_start_failed(&engine->scheduler, worker);
            return NULL;
        }
    }
    bool idle_long = false;
    while (!tri_scheduler_worker_ends(&engine->scheduler, worker, idle_long))
        idle_long = play_role(worker);
    if (host->thread_stop != NULL) host->thread_stop(host->context, worker->host);
    tri_thread_adopt(NULL);
    tri_scheduler_worker_ended(&engine->scheduler, worker);
    return NULL;
}

/* Signals are the host's main thread's: all are blocked here, so that they never land in a worker. */
int tri_start_thread(pthread_t *thread, void *(*run)(void *), void *argument) {
    sigset_t all, before;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return TR_ENOMEM;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return result == 0 ? TR_OK : TR_ELIMIT;
}

void tri_worker_start(tri_worker *worker) {
    if (worker->started) {
        tri_parker_unpark(&worker->wake);
        return;
    }
    pthread_t thread;
    worker->started = true;
    if (tri_start_thread(&thread, worker_main, worker) == TR_OK)
        pthread_detach(thread);
    else
        tri_scheduler_start_failed(&worker->thread.engine->scheduler, worker);
}
