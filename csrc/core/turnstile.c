/* turnstile.c: see turnstile.h. */
#include "turnstile.h"

#include "engine.h"
#include "worker.h"

/* How many CPU clocks the ticker reads in one tick at most: a quarter of a microsecond each. */
enum { LOOKS = 32 };

static bool works(const tri_scheduler *s) {
    return s->engine->options.handoff && s->engine->host.arm != NULL && !s->turnstile.open;
}

/* ---- Lists --------------------------------------------------------------------------------------*/

static void unlink_from(tri_worker **at, const tri_worker *worker) {
    while (*at != NULL && *at != worker) at = &(*at)->next_gated;
    if (*at != NULL) *at = worker->next_gated;
}

static void park_last(tri_turnstile *t, tri_worker *worker) {
    worker->gate = TRI_GATE_PARKED;
    worker->next_gated = NULL;
    if (t->head == NULL)
        t->head = worker;
    else
        t->tail->next_gated = worker;
    t->tail = worker;
}

static void unpark(tri_turnstile *t, tri_worker *worker) {
    unlink_from(&t->head, worker);
    if (t->tail == worker) {
        t->tail = t->head;
        while (t->tail != NULL && t->tail->next_gated != NULL) t->tail = t->tail->next_gated;
    }
    worker->gate = t->admitted == worker ? TRI_GATE_ADMITTED : TRI_GATE_FREE;
    worker->turn_began = tri_worker_cpu(worker);
    tri_parker_unpark(&worker->gate_parker);
}

/* Nothing is wanted of it any more, and the turn is not its any more. */
static void set_free(tri_turnstile *t, tri_worker *worker) {
    worker->gate = TRI_GATE_FREE;
    if (t->admitted == worker) t->admitted = NULL;
}

/* ---- Admission ----------------------------------------------------------------------------------*/

static void admit(tri_turnstile *t, uint64_t now) {
    tri_worker *worker = t->head;
    if (worker == NULL || t->admitted != NULL) return;
    t->admitted = worker;
    t->admitted_at = now;
    unpark(t, worker);
}

void tri_turnstile_core_idle(tri_scheduler *s, uint64_t now) { admit(&s->turnstile, now); }

static void admit_if_due(tri_scheduler *s, uint64_t now) {
    if (s->core_count == 0 || now >= s->turnstile.closed_until) admit(&s->turnstile, now);
}

void tri_turnstile_want(tri_scheduler *s, tri_worker *worker) {
    tri_turnstile *t = &s->turnstile;
    if (!works(s) || worker->gate == TRI_GATE_WANTED || worker->gate == TRI_GATE_PARKED) return;
    worker->gate = TRI_GATE_WANTED;
    worker->turn_serial = atomic_load(&worker->serial);
    worker->next_gated = t->wanted;
    t->wanted = worker;
    atomic_store(&t->duty, true);
}

static uint64_t used(const tri_worker *worker) {
    uint64_t now = tri_worker_cpu(worker);
    return now > worker->turn_began ? now - worker->turn_began : 0;
}

void tri_turnstile_core_begins(tri_scheduler *s) {
    tri_worker *worker = s->turnstile.admitted;
    if (worker != NULL && worker->gate == TRI_GATE_ADMITTED && used(worker) >= TRI_TURN / 2)
        tri_turnstile_want(s, worker);
}

/* ---- The ticker's look --------------------------------------------------------------------------*/

/* A thread that may compute in a callback, as far as can be seen without its clock. */
static bool may_spin(const tri_worker *worker) {
    int role = atomic_load(&((tri_worker *)worker)->role);
    if (role != TRI_ROLE_DETACHED && role != TRI_ROLE_ELASTIC) return false;
    if (worker->waiting || (atomic_load(&((tri_worker *)worker)->serial) & 1) == 0) return false;
    return worker->gate == TRI_GATE_FREE || worker->gate == TRI_GATE_ARMED;
}

static void look(tri_scheduler *s, tri_worker *worker) {
    uint64_t serial = atomic_load(&worker->serial);
    if (worker->turn_serial != serial) { /* a callback that was not seen before */
        worker->turn_serial = serial;
        worker->turn_began = tri_worker_cpu(worker);
        return;
    }
    /* An armed one that went on came to none of the instructions that were armed: do it again. */
    if (used(worker) >= TRI_TURN) tri_turnstile_want(s, worker);
}

/* The admitted one's turn ends when it is used up and somebody waits, or when its clock stands still:
 * it blocks, perhaps after it was armed. */
static void look_at_admitted(tri_scheduler *s, tri_worker *worker, uint64_t now) {
    tri_turnstile *t = &s->turnstile;
    bool busy = s->core_count > 0;
    uint64_t spent = used(worker), since = now - t->admitted_at;
    t->last_seen = now;
    if (worker->gate == TRI_GATE_ADMITTED && spent >= (busy ? TRI_TURN : TRI_LONG_TURN)) {
        if (busy || t->head != NULL) tri_turnstile_want(s, worker);
    } else if (since >= 2 * TRI_LONG_TURN && spent < since / 10) {
        if (worker->gate == TRI_GATE_ADMITTED) worker->gate = TRI_GATE_FREE;
        t->admitted = NULL;
    }
}

/* Each thread that may spin gets its look in turn, LOOKS of them in a tick. */
static void look_around(tri_scheduler *s) {
    tri_turnstile *t = &s->turnstile;
    uint32_t number = 0, looked = 0;
    tri_worker *worker = atomic_load(&s->workers);
    for (; worker != NULL && looked < LOOKS; worker = worker->next) {
        if (!may_spin(worker) || number++ < t->first_looked) continue;
        look(s, worker);
        looked++;
    }
    t->first_looked = looked == LOOKS ? t->first_looked + LOOKS : 0;
}

bool tri_turnstile_tick(tri_scheduler *s, uint64_t now) {
    tri_turnstile *t = &s->turnstile;
    if (!works(s)) return false;
    if (t->admitted != NULL) look_at_admitted(s, t->admitted, now);
    look_around(s);
    admit_if_due(s, now);
    if (t->wanted != NULL || t->head != NULL) t->last_seen = now;
    if (t->short_interval && now - t->last_seen > TRI_QUIET) atomic_store(&t->duty, true);
    return t->short_interval;
}

/* ---- Arming -------------------------------------------------------------------------------------*/

/* The next worker to arm, whose callback is still the one that was seen. */
static tri_worker *next_wanted(tri_scheduler *s) {
    tri_turnstile *t = &s->turnstile;
    while (t->wanted != NULL) {
        tri_worker *worker = t->wanted;
        t->wanted = worker->next_gated;
        int role = atomic_load(&worker->role);
        bool same = atomic_load(&worker->serial) == worker->turn_serial && !t->open &&
                    (role == TRI_ROLE_DETACHED || role == TRI_ROLE_ELASTIC);
        if (!same) {
            set_free(t, worker);
            continue;
        }
        worker->gate = TRI_GATE_ARMED;
        worker->turn_began = tri_worker_cpu(worker);
        if (worker == t->admitted) t->admitted_at = tri_clock_monotonic();
        return worker;
    }
    return NULL;
}

static void set_interval(tri_scheduler *s, bool short_interval) {
    tr_engine *engine = s->engine;
    if (engine->host.switch_interval == NULL) return;
    uint64_t now = engine->host.switch_interval(engine->host.context, short_interval ? TRI_TURN : 0);
    if (now != 0) atomic_store_explicit(&s->switch_interval, now, memory_order_relaxed);
}

/* The interpreter lock, which this thread holds, keeps a worker that was seen inside a callback there
 * until it is armed. */
void tri_turnstile_serve(tri_scheduler *s) {
    tri_turnstile *t = &s->turnstile;
    tr_host *host = &s->engine->host;
    bool was_short, is_short;
    tri_worker *worker;
    pthread_mutex_lock(&s->lock);
    was_short = t->short_interval;
    while ((worker = next_wanted(s)) != NULL) {
        t->last_seen = tri_clock_monotonic();
        t->short_interval = true;
        atomic_store(&worker->armed, true);
        pthread_mutex_unlock(&s->lock);
        bool armed = host->arm(host->context, worker->host);
        pthread_mutex_lock(&s->lock);
        if (!armed && worker->gate == TRI_GATE_ARMED) set_free(t, worker);
    }
    if (was_short && tri_clock_monotonic() - t->last_seen > TRI_QUIET) t->short_interval = false;
    is_short = t->short_interval;
    atomic_store(&t->duty, false);
    pthread_mutex_unlock(&s->lock);
    if (was_short != is_short) set_interval(s, is_short);
}

/* ---- The armed thread ---------------------------------------------------------------------------*/

bool tr_turnstile_arrive(tr_engine *engine) {
    tri_scheduler *s = &engine->scheduler;
    tri_turnstile *t = &s->turnstile;
    tri_thread *here = tri_thread_here_or_null(engine);
    tri_worker *worker = here == NULL ? NULL : here->worker;
    if (worker == NULL || atomic_load(&engine->forked)) return false;
    uint64_t now = tri_clock_monotonic();
    pthread_mutex_lock(&s->lock);
    atomic_store(&worker->armed, false);
    bool stop = worker->gate == TRI_GATE_ARMED && !t->open;
    if (worker->gate == TRI_GATE_ARMED) set_free(t, worker);
    if (stop) {
        t->arrivals++;
        t->closed_until = now + TRI_PAUSE;
        park_last(t, worker);
        if (s->core_count == 0) admit(t, now);
        stop = t->admitted != worker;
        if (!stop) tri_parker_park(&worker->gate_parker, 0); /* take the token of its own admission */
    }
    pthread_mutex_unlock(&s->lock);
    return stop;
}

void tr_turnstile_wait(tr_engine *engine) {
    tri_thread *here = tri_thread_here_or_null(engine);
    if (here == NULL || here->worker == NULL) return;
    while (tri_parker_park(&here->worker->gate_parker, TR_FOREVER) != TR_OK) continue;
}

static void go(tri_scheduler *s, tri_worker *worker, bool ended) {
    tri_turnstile *t = &s->turnstile;
    if (worker->gate == TRI_GATE_PARKED) unpark(t, worker);
    if (!ended) return;
    if (worker->gate == TRI_GATE_WANTED) unlink_from(&t->wanted, worker);
    bool had_turn = t->admitted == worker;
    set_free(t, worker);
    if (had_turn) admit_if_due(s, tri_clock_monotonic());
}

void tri_turnstile_leave(tri_scheduler *s, tri_worker *worker) {
    tr_host *host = &s->engine->host;
    pthread_mutex_lock(&s->lock);
    bool armed = atomic_exchange(&worker->armed, false);
    go(s, worker, true);
    pthread_mutex_unlock(&s->lock);
    if (armed) host->disarm(host->context, worker->host);
}

void tri_turnstile_release(tri_scheduler *s, tri_worker *worker) {
    if (!s->engine->options.handoff) return;
    pthread_mutex_lock(&s->lock);
    go(s, worker, false);
    pthread_mutex_unlock(&s->lock);
}

void tri_turnstile_open(tri_scheduler *s) {
    s->turnstile.open = true;
    while (s->turnstile.head != NULL) unpark(&s->turnstile, s->turnstile.head);
}
