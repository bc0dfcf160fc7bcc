/* slow.c: see slow.h. */
#include "slow.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "engine.h"
#include "worker.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

int tri_slow_init(tri_slow *slow, tr_engine *engine) {
    uint64_t limit = engine->host.slow == NULL ? 0 : engine->options.slow_callback;
    uint64_t step = limit == 0 ? 50 * MS : limit / 8;
    *slow = (tri_slow){.engine = engine, .limit = limit, .step = step < 50 * MS ? step : 50 * MS};
    return tri_parker_init(&slow->parker);
}

void tri_slow_fini(tri_slow *slow) { tri_parker_fini(&slow->parker); }

/* ---- Telling ------------------------------------------------------------------------------------*/

static void describe(tri_worker *worker, tr_process *process, tr_slow *about) {
    tri_suspect *suspect = &worker->slow;
    tr_host *host = &worker->thread.engine->host;
    uint64_t began = atomic_load(&suspect->began), now = tri_clock_monotonic();
    about->pid = tr_process_pid(process);
    about->elapsed = now > began ? now - began : 0;
    about->how = atomic_load(&suspect->how);
    about->kind = atomic_load_explicit(&suspect->kind, memory_order_relaxed);
    about->on_loop = atomic_load_explicit(&worker->role, memory_order_relaxed) == TRI_ROLE_LOOP;
    if (host->subject != NULL) about->subject = host->subject(host->context, process, &about->pid);
}

/* The reporter, attached. */
static void tell_running(tri_worker *worker) {
    tri_suspect *suspect = &worker->slow;
    tr_host *host = &worker->thread.engine->host;
    uint64_t flagged = atomic_load(&suspect->flagged);
    tr_slow about = {0};
    if (flagged == 0) return;
    uintptr_t held = tri_scheduler_hold(worker);
    if (held == 0) return; /* later; or it has just ended, then its worker tells */
    bool ours = atomic_load(&worker->serial) == flagged &&
                atomic_compare_exchange_strong(&suspect->flagged, &flagged, 0);
    if (ours) describe(worker, tri_held_process(held), &about);
    about.thread = suspect->thread;
    tri_scheduler_unhold(worker, held);
    if (ours) host->slow(host->context, &about);
}

void tri_slow_ended(tri_worker *worker, tr_process *process) {
    tri_suspect *suspect = &worker->slow;
    tr_host *host = &worker->thread.engine->host;
    uint64_t flagged = atomic_exchange(&suspect->flagged, 0);
    uint64_t serial = atomic_load(&worker->serial); /* a message's callback has added 2 at its end */
    tr_slow about = {.over = true};
    if (flagged == 0 || (serial != flagged && serial != flagged + 2)) return;
    describe(worker, process, &about);
    host->slow(host->context, &about);
}

static void tell_all(tri_slow *slow, void *thread) {
    tr_engine *engine = slow->engine;
    tr_host *host = &engine->host;
    if (host->attach != NULL) host->attach(host->context, thread);
    tri_worker *worker = atomic_load(&engine->scheduler.workers);
    for (; worker != NULL; worker = worker->next) tell_running(worker);
    if (atomic_exchange(&slow->out_of_threads, false) && host->out_of_threads != NULL)
        host->out_of_threads(host->context, engine->options.max_threads,
                             atomic_load(&slow->by_system));
    if (host->detach != NULL) host->detach(host->context, thread);
}

static bool goes_on(tri_slow *slow) {
    pthread_mutex_t *lock = &slow->engine->scheduler.lock;
    pthread_mutex_lock(lock);
    bool on = !slow->ending;
    pthread_mutex_unlock(lock);
    return on;
}

static void *reporter_main(void *argument) {
    tri_slow *slow = argument;
    tr_engine *engine = slow->engine;
    tr_host *host = &engine->host;
    void *thread = NULL; /* if it cannot be had now, the next look wakes us again */
    while (goes_on(slow)) {
        if (thread == NULL && host->thread_start != NULL)
            thread = host->thread_start(host->context);
        if (thread != NULL || host->thread_start == NULL) tell_all(slow, thread);
        tri_parker_park(&slow->parker, TR_FOREVER);
    }
    if (thread != NULL) host->thread_stop(host->context, thread);
    pthread_mutex_lock(&engine->scheduler.lock);
    slow->running = false;
    tri_parker_unpark(&engine->scheduler.stopper);
    pthread_mutex_unlock(&engine->scheduler.lock); /* the last use of the engine */
    return NULL;
}

/* Wake the reporter, or start it; if there is no thread for it now, the next look tries again. */
static void wake_reporter(tri_slow *slow) {
    if (slow->starting) {
        tri_parker_unpark(&slow->parker);
        return;
    }
    pthread_mutex_t *lock = &slow->engine->scheduler.lock;
    pthread_t thread;
    pthread_mutex_lock(lock);
    slow->running = true;
    pthread_mutex_unlock(lock);
    slow->starting = tri_start_thread(&thread, reporter_main, slow) == TR_OK;
    if (slow->starting) {
        pthread_detach(thread);
        return;
    }
    pthread_mutex_lock(lock);
    slow->running = false;
    pthread_mutex_unlock(lock);
}

uint32_t tri_slow_end(tri_slow *slow, uint64_t deadline) {
    tri_scheduler *scheduler = &slow->engine->scheduler;
    int result = TR_OK;
    pthread_mutex_lock(&scheduler->lock);
    slow->ending = true;
    bool running = slow->running;
    pthread_mutex_unlock(&scheduler->lock);
    tri_parker_unpark(&slow->parker);
    while (running && result != TR_ETIMEDOUT) {
        result = tri_parker_park(&scheduler->stopper, deadline);
        pthread_mutex_lock(&scheduler->lock);
        running = slow->running;
        pthread_mutex_unlock(&scheduler->lock);
    }
    return running ? 1 : 0;
}

/* ---- Looking ------------------------------------------------------------------------------------*/

void tri_slow_begin(tri_worker *worker) {
    worker->slow.thread = (uint64_t)(uintptr_t)pthread_self();
#ifdef __linux__
    worker->slow.task = (int)syscall(SYS_gettid);
#endif
}

/* /proc says: "number (name) state ...". */
bool tri_slow_is_runnable(const tri_suspect *suspect) {
    char path[64], text[128];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", suspect->task);
    int file = suspect->task == 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    text[size > 0 ? size : 0] = '\0';
    const char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' && end[2] == 'R';
}

/* Under scheduler.lock, the callback has reached the limit. */
static int judge(tri_slow *slow, tri_worker *worker, uint64_t now) {
    tri_scheduler *s = &slow->engine->scheduler;
    tri_suspect *suspect = &worker->slow;
    uint64_t used = tri_worker_cpu(worker) - suspect->cpu;
    bool computes = used > (now - suspect->half) / 200 || tri_slow_is_runnable(suspect) ||
                    atomic_load(&worker->gate) != TRI_GATE_FREE; /* it is made to wait */
    /* The standby has waited for the interpreter lock all the time. */
    bool locked = s->engine->options.handoff && s->standby &&
                  atomic_load(&worker->role) == TRI_ROLE_CORE;
    if (locked) return computes ? TR_SLOW_STALLS : TR_SLOW_STARVES;
    return computes ? TR_SLOW_SPINS : TR_SLOW_BLOCKS;
}

static void flag(tri_slow *slow, tri_worker *worker, uint64_t now) {
    tri_suspect *suspect = &worker->slow;
    atomic_store(&suspect->began, suspect->since);
    atomic_store(&suspect->how, judge(slow, worker, now));
    suspect->flagged_serial = suspect->serial;
    atomic_store(&suspect->flagged, suspect->serial);
    atomic_store(&worker->preempt, true); /* so that the slice ends with this callback */
}

enum { FINE, TIMED, FLAGGED };

/* Under scheduler.lock. */
static int look_at(tri_slow *slow, tri_worker *worker, uint64_t now) {
    tri_suspect *suspect = &worker->slow;
    uint64_t serial = atomic_load(&worker->serial);
    if ((serial & 1) == 0 || !atomic_load(&suspect->counts) || atomic_load(&worker->waiting))
        return FINE;
    if (serial != suspect->serial || suspect->waits != suspect->seen_waits) {
        suspect->serial = serial;
        suspect->seen_waits = suspect->waits;
        suspect->since = now;
        suspect->half = 0;
        return TIMED;
    }
    if (serial == suspect->flagged_serial)
        return atomic_load(&suspect->flagged) != 0 ? FLAGGED : FINE;
    if (now - suspect->since < slow->limit / 2) return TIMED;
    if (suspect->half == 0) {
        suspect->cpu = tri_worker_cpu(worker);
        suspect->half = now;
    } else if (now - suspect->since >= slow->limit) {
        flag(slow, worker, now);
        return FLAGGED;
    }
    return TIMED;
}

/* Under scheduler.lock. */
static void look_at_refusals(tri_slow *slow, uint64_t now) {
    const tri_scheduler *s = &slow->engine->scheduler;
    if (s->limit_hits == slow->hits) return;
    if (slow->hits == 0 || now - slow->hit_at >= SECOND) {
        atomic_store(&slow->by_system, s->start_failures != slow->failures);
        atomic_store(&slow->out_of_threads, true);
    }
    slow->failures = s->start_failures;
    slow->hits = s->limit_hits;
    slow->hit_at = now;
}

/* Refusals since the last look: the ticker must not fall asleep before the next one. */
static bool was_refused(tri_slow *slow) {
    tri_scheduler *s = &slow->engine->scheduler;
    pthread_mutex_lock(&s->lock);
    bool refused = s->limit_hits != slow->hits;
    pthread_mutex_unlock(&s->lock);
    return refused;
}

bool tri_slow_tick(tri_slow *slow, uint64_t now) {
    tri_scheduler *s = &slow->engine->scheduler;
    if (slow->limit == 0 && s->engine->host.out_of_threads == NULL) return false;
    if (now < slow->next) return slow->pending || was_refused(slow);
    slow->next = now + slow->step;
    slow->pending = false;
    bool news = false;
    pthread_mutex_lock(&s->lock);
    tri_worker *worker = slow->limit == 0 ? NULL : atomic_load(&s->workers);
    for (; worker != NULL; worker = worker->next) {
        int found = look_at(slow, worker, now);
        if (found != FINE) slow->pending = true;
        if (found == FLAGGED) news = true;
    }
    look_at_refusals(slow, now);
    pthread_mutex_unlock(&s->lock);
    if (!news && !atomic_load(&slow->out_of_threads)) return slow->pending;
    wake_reporter(slow);
    return slow->pending = true;
}
