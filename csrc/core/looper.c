/* looper.c: the engine's own event loop: the slices of the processes that live on it.
 *
 * One worker has the role LOOP and runs the host's event loop in it, started by the first process that
 * needs it. Such processes wait in scheduler.async; who puts one there signals the loop (await.h), which
 * calls tr_loop_run. A process rests DORMANT or IDLE while its tasks wait, so all rules about messages,
 * ends and wake-ups are those of process.h; its tasks are the host's, which tells us whose
 * step it is about to run, so that tr_self and interrupts know.
 *
 * `target` of the worker (interrupt.c) is the process whose step is inside the host's code; a step of a process
 * that is dead already, one that cleans up, is marked from the beginning, so that it is
 * interrupted if it does not end: again and again, by the ticker. */
#include "await.h"
#include "engine.h"
#include "worker.h"

static tri_worker *worker_of(tr_loop *loop) {
    return tri_thread_here_or_null(loop->engine)->worker;
}

/* `serial` is odd while a step runs, also one within another. */
static void count_serial(tri_worker *worker, bool outermost) {
    uint64_t serial = atomic_load_explicit(&worker->serial, memory_order_relaxed);
    atomic_store_explicit(&worker->serial, serial + (outermost ? 1 : 2), memory_order_relaxed);
}

void tr_loop_adopt(tr_loop *loop) {
    tri_scheduler *s = &loop->engine->scheduler;
    tri_thread_here_or_null(loop->engine)->loop = loop;
    pthread_mutex_lock(&s->lock);
    s->loop = loop;
    tri_loop_signal(loop); /* for those that wait already */
    pthread_mutex_unlock(&s->lock);
}

void tr_loop_abandon(tr_loop *loop) {
    tri_scheduler *s = &loop->engine->scheduler;
    pthread_mutex_lock(&s->lock);
    s->loop = NULL;
    pthread_mutex_unlock(&s->lock);
    tri_thread_here_or_null(loop->engine)->loop = NULL;
}

static tr_process *next_queued(tri_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    tr_process *process = s->async.head == NULL ? NULL : tri_queue_pop(&s->async);
    pthread_mutex_unlock(&s->lock);
    return process;
}

/* A step, which has a target by now, or slices begin, which may turn out to be slow: see is_loop_watched. */
static void watch(tr_loop *loop) {
    if (loop->engine->slow.limit != 0) tri_ticker_rouse(&loop->engine->ticker);
}

bool tr_loop_run(tr_loop *loop) {
    tri_scheduler *s = &loop->engine->scheduler;
    tri_worker *worker = worker_of(loop);
    pthread_mutex_lock(&s->lock);
    bool over = s->ending;
    uint64_t waiting = s->async.count; /* who comes meanwhile, comes next time */
    atomic_store_explicit(&s->loop_runs, waiting > 0, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    if (waiting > 0) watch(loop);
    loop->inside++;
    for (tr_process *process; waiting > 0 && (process = next_queued(s)) != NULL; waiting--)
        tri_run_slice(worker, process, 0);
    loop->inside--;
    atomic_store_explicit(&s->loop_runs, false, memory_order_relaxed);
    return !over;
}

bool tr_loop_is_behind(tr_loop *loop) {
    bool behind = loop->behind && loop->inside == 0;
    if (behind) loop->behind = false;
    return behind;
}

tr_loop_step tr_loop_enter(tr_loop *loop, tr_process *process, tr_process *as) {
    tri_worker *worker = worker_of(loop);
    tr_loop_step before = {tri_held_process(atomic_load(&worker->target)), worker->thread.current};
    if (loop->inside++ == 0) before = (tr_loop_step){NULL, NULL}; /* what was attributed to somebody is over */
    count_serial(worker, before.as == NULL);
    worker->thread.current = as != NULL ? as : process;
    atomic_store(&process->worker, worker);
    tri_scheduler_enter(process);
    if (tri_is_dead(process)) tri_scheduler_mark(process);
    if (before.as == NULL) watch(loop);
    return before;
}

void tr_loop_leave(tr_loop *loop, tr_process *process, tr_loop_step before) {
    tr_engine *engine = loop->engine;
    if (atomic_load(&engine->forked) && engine->host.forked != NULL) engine->host.forked(engine->host.context);
    tri_worker *worker = worker_of(loop);
    tri_scheduler_leave(process, before.process);
    if (atomic_load_explicit(&worker->slow.flagged, memory_order_relaxed) != 0) tri_slow_ended(worker, process);
    worker->thread.current = before.as;
    count_serial(worker, before.as == NULL);
    loop->inside--;
}

bool tr_loop_is_inside(const tr_loop *loop) { return loop->inside > 0; }

void tr_loop_attribute(tr_loop *loop, tr_process *process) {
    worker_of(loop)->thread.current = process;
}

void tr_step(tr_process *process) { tri_wake(process); }

bool tr_mailbox_seen(tr_process *self) {
    bool more = tri_mailbox_has_new(&self->mailbox);
    if (more) tri_mailbox_gather(&self->mailbox);
    return more;
}

bool tr_mailbox_is_empty(const tr_process *self) { return !tri_mailbox_has_any(&self->mailbox); }
