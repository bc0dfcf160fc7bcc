/* handoff.c: how the core goes on when its worker does not: the standby, waits inside callbacks, and places taken
 * back. See scheduler.h for the idea, worker.h for who calls it. */
#include "engine.h"
#include "roles.h"
#include "worker.h"

void tri_scheduler_watch(tri_scheduler *s, tri_glimpse *glimpse) {
    tri_worker *active, *admitted;
    pthread_mutex_lock(&s->lock);
    active = s->active;
    admitted = s->turnstile.admitted;
    uint64_t serial = active == NULL ? 0 : atomic_load(&active->serial);
    bool same = active == glimpse->worker && serial == glimpse->serial;
    *glimpse = (tri_glimpse){.worker = active,
                             .serial = serial,
                             .time = tri_clock_monotonic(),
                             .cpu = active == NULL ? 0 : tri_worker_cpu(active),
                             .arrivals = s->turnstile.arrivals,
                             .admitted = admitted,
                             .admitted_cpu = admitted == NULL ? 0 : tri_worker_cpu(admitted),
                             .doubted = same && glimpse->doubted};
    pthread_mutex_unlock(&s->lock);
}

/* Whether a thread from the turnstile may have taken the lock from the core by force meanwhile. */
static bool interfered(tri_scheduler *s, const tri_glimpse *before) {
    const tri_turnstile *t = &s->turnstile;
    if (t->arrivals != before->arrivals || t->admitted != before->admitted) return true;
    return t->admitted != NULL &&
           tri_worker_cpu(t->admitted) - before->admitted_cpu > TRI_TURN / 4;
}

/* Whether the core's worker sits in a callback that gave the interpreter lock away, or that is old. */
static bool is_stuck(tri_scheduler *s, tri_glimpse *before, uint64_t now) {
    uint64_t serial = atomic_load(&s->active->serial);
    if ((serial & 1) == 0) return false;
    bool same = s->active == before->worker && serial == before->serial;
    uint64_t interval = atomic_load_explicit(&s->switch_interval, memory_order_relaxed) / 10 * 8;
    bool forced = now - before->time >= interval;
    if (!interfered(s, before)) return same || !forced;
    /* It may merely have lost the lock in the middle of its callback. */
    if (!same) return false;
    if (before->doubted || tri_worker_cpu(s->active) - before->cpu >= TRI_TURN) return true;
    before->doubted = true;
    return false;
}

/* Whether the core's worker, which got its role while it slept, is not attached yet: the standby is,
 * and the other is in no callback that could have given the lock away. They change roles, or the standby
 * would attach and detach without a pause, in the way of the one that wakes. */
static bool is_waking(tri_scheduler *s) {
    return s->active != NULL && (atomic_load(&s->active->serial) & 1) == 0;
}

int tri_scheduler_stand_by(tri_scheduler *s, tri_worker *worker, tri_glimpse *before) {
    int decision = TRI_STANDBY_AGAIN;
    tri_worker *next = NULL;
    uint64_t now = tri_clock_monotonic();
    pthread_mutex_lock(&s->lock);
    if (is_waking(s)) {
        tri_leave_core(s, s->active, TRI_ROLE_STANDBY);
        tri_take_core(s, worker);
        pthread_mutex_unlock(&s->lock);
        return TRI_STANDBY_TAKE;
    }
    if (s->active != NULL && is_stuck(s, before, now)) {
        tri_worker *stuck = s->active;
        tri_leave_core(s, stuck, TRI_ROLE_DETACHED);
        if (tri_worker_cpu(stuck) - before->cpu >= TRI_TURN / 2 && before->worker == stuck)
            tri_turnstile_want(s, stuck); /* it computes: the core shall not have to find out */
        else
            s->blocks++;
        s->handoffs++;
        s->standby_until = s->handoffs_until = now + TRI_STANDBY_STAYS;
    }
    if (s->core_count == 0 && s->core.length > 0 && !s->ending) {
        s->standby = false;
        tri_take_core(s, worker);
        if (s->core.length > 1)
            next = tri_want_standby(s);
        else
            atomic_store_explicit(&s->unguarded, true, memory_order_relaxed);
        decision = TRI_STANDBY_TAKE;
    } else if (s->core_count == 0 || now > s->standby_until || s->ending) {
        s->standby = false;
        tri_retire(s, worker);
        decision = TRI_STANDBY_RETIRE;
    }
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, next);
    return decision;
}

bool tri_take_back(tri_scheduler *s) {
    tri_thread *here = tri_thread_here_or_null(s->engine);
    tri_worker *worker = here == NULL ? NULL : here->worker;
    if (worker == NULL || tri_has_places(s) || s->core_count > 0 || s->ending) return false;
    if (worker->calls) return false; /* it gives the core away at once */
    bool lost = atomic_load(&worker->role) == TRI_ROLE_DETACHED && !atomic_load(&worker->waiting);
    if (!lost || worker->gate != TRI_GATE_FREE) return false; /* who computes passes the turnstile */
    s->detached_count--;
    s->standby_until = tri_clock_monotonic() + TRI_STANDBY_STAYS;
    worker->took_back = true;
    tri_take_core(s, worker);
    return true;
}

void tri_scheduler_before_wait(tr_process *self) {
    tri_worker *worker = atomic_load(&self->worker);
    tri_worker *next = NULL;
    if (worker == NULL) return;
    tri_scheduler *s = &self->engine->scheduler;
    pthread_mutex_lock(&s->lock);
    atomic_store(&worker->waiting, true);
    worker->slow.waits++;
    s->waiting_count++;
    if (atomic_load(&worker->role) == TRI_ROLE_CORE) {
        tri_leave_core(s, worker, TRI_ROLE_DETACHED);
        next = tri_want_core(s);
        if (next != NULL) {
            s->handoffs++;
            if (!tri_has_places(s)) tri_load_handed_off(&s->load);
        }
    } else {
        next = tri_want_searcher(s);
    }
    pthread_mutex_unlock(&s->lock);
    tri_start_role(s, next);
}

void tri_scheduler_after_wait(tr_process *self) {
    tri_worker *worker = atomic_load(&self->worker);
    if (worker == NULL) return;
    tri_scheduler *s = &self->engine->scheduler;
    pthread_mutex_lock(&s->lock);
    atomic_store(&worker->waiting, false);
    s->waiting_count--;
    pthread_mutex_unlock(&s->lock);
}

static bool is_stuck_since_tick(tri_worker *worker) {
    uint64_t serial = atomic_load(&worker->serial);
    return (serial & 1) != 0 && serial == worker->seen_serial;
}

/* Whether the worker, which is at the core and in a callback, has hardly run since the last tick. */
static bool has_slept_since_tick(tri_worker *worker) {
    uint64_t before = worker->seen_cpu;
    worker->seen_cpu = tri_worker_cpu(worker);
    return worker->seen_cpu - before < TRI_TICK / 8;
}

/* Whether processes wait for which no worker comes by itself, for want of threads when they were queued, or
 * behind a long callback. The one that a worker keeps to run next is not among them. */
bool tri_is_overlooked(tri_scheduler *s) {
    if (!tri_has_places(s) || s->core.length > 0) return true;
    for (uint32_t i = 0; i < s->places.count; i++) {
        tri_place *place = &s->places.all[i];
        uint64_t length = atomic_load(&place->length);
        if (length > 1) return true;
        if (length == 1 && (place->holder == NULL || is_stuck_since_tick(place->holder))) return true;
    }
    return false;
}

/* Without an interpreter lock: who sits in one callback for a whole tick, while others wait, nobody can take a free
 * place and no thief is on its way, gives its place up; to itself, after the callback, if no thread is left. */
void tri_retake(tri_scheduler *s, bool overlooked) {
    bool help = tri_core_may_grow(s) || atomic_load(&s->places.thief);
    uint64_t wanted = help || !overlooked ? 0 : tri_core_waiting(s);
    for (tri_worker *worker = atomic_load(&s->workers); worker != NULL; worker = worker->next) {
        bool at_core = atomic_load(&worker->role) == TRI_ROLE_CORE;
        bool stuck = is_stuck_since_tick(worker);
        worker->seen_serial = atomic_load(&worker->serial);
        if (!at_core || (worker->seen_serial & 1) == 0) continue;
        bool slept = has_slept_since_tick(worker);
        if (wanted == 0 || !stuck) continue;
        s->blocks += slept && !tri_slow_is_runnable(&worker->slow); /* the machine may be busy */
        tri_leave_core(s, worker, TRI_ROLE_DETACHED);
        s->handoffs++;
        wanted--;
    }
}

void tri_look_for_sleepers(tri_scheduler *s, uint64_t now) {
    tri_worker *worker = s->active;
    if (worker == NULL || tri_core_has_spare(s)) return;
    bool sleeps = is_stuck_since_tick(worker) && has_slept_since_tick(worker);
    worker->seen_serial = atomic_load(&worker->serial);
    if (!sleeps) worker->asleep_since = now;
    uint64_t others = 2 * atomic_load_explicit(&s->switch_interval, memory_order_relaxed);
    if (now - worker->asleep_since <= others) return;
    atomic_store_explicit(&worker->slept, worker->seen_serial, memory_order_relaxed);
}

/* Blocking callbacks are a pattern if the core did little else for a tick, and cost much: with an interpreter lock
 * a hand-off each; without one they kept half of the places. For each so many processes are moved: about as many
 * as the pool can take in a tick. */
enum { MANY_BLOCKS = 4, MOVED_WITH_LOCK = 4, MOVED_WITHOUT = 32 };

static uint64_t to_be_moved(const tri_scheduler *s) {
    if (tri_has_places(s)) return 2 * s->blocks < s->places.count ? 0 : s->blocks * MOVED_WITHOUT;
    bool pattern = s->blocks >= MANY_BLOCKS && s->taken <= 2 * s->blocks;
    return pattern ? s->blocks * MOVED_WITH_LOCK : 0;
}

void tri_relieve(tri_scheduler *s, bool possible) {
    uint64_t most = possible ? to_be_moved(s) : 0, room = tri_pool_room(s);
    s->blocks = s->taken = 0;
    room = room > s->learned.count ? room - s->learned.count : 0;
    if (room < most) most = room;
    if (most == 0) return;
    most -= tri_run_queue_move(&s->core, most, &s->learned);
    if (!tri_has_places(s)) return;
    atomic_store(&s->outside, s->core.length);
    tri_places_move(&s->places, most, &s->learned);
}
