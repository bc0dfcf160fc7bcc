/* counters.c: what the scheduler tells about itself. Any thread; under scheduler.lock, which is never
 * held while the host's code runs, for as long as it takes to walk the list of workers. */
#include "engine.h"

static void count_worker(const tri_worker *worker, tr_counters *counters) {
    uint64_t *const by_role[] = {
        [TRI_ROLE_IDLE] = &counters->threads_idle,
        [TRI_ROLE_CORE] = &counters->threads_core,
        [TRI_ROLE_STANDBY] = &counters->threads_standby,
        [TRI_ROLE_ELASTIC] = &counters->threads_elastic,
        [TRI_ROLE_DETACHED] = &counters->threads_detached,
        [TRI_ROLE_LOOP] = &counters->threads_loop,
    };
    int role = atomic_load(&((tri_worker *)worker)->role);
    if (role == TRI_ROLE_GONE || role == TRI_ROLE_ENDING) return;
    counters->threads++;
    (*by_role[role])++;
}

static void count_queue(const tri_run_queue *queue, tr_counters *counters) {
    for (int i = 0; i < TRI_PRIORITIES; i++) counters->run_queues[i] += queue->ranks[i].count;
    counters->run_queue += queue->length;
}

static void count_place(tri_place *place, tr_counters *counters) {
    pthread_mutex_lock(&place->lock);
    count_queue(&place->queue, counters);
    pthread_mutex_unlock(&place->lock);
}

static void tell_load(tri_load *load, tr_counters *counters) {
    uint64_t now = tri_clock_monotonic();
    tri_load_roll(load, now);
    tri_load_change(load, load->working, now);
    counters->uptime = load->changed - load->began;
    counters->busy = load->busy;
    counters->recent = load->recent;
    counters->recent_busy = load->recent_busy;
    counters->handoffs_timed = load->timed;
    counters->handoff_time = load->time;
    counters->handoff_longest = load->longest;
}

void tri_scheduler_counters(tri_scheduler *s, tr_counters *counters) {
    const tr_options *options = &s->engine->options;
    pthread_mutex_lock(&s->lock);
    for (tri_worker *worker = atomic_load(&s->workers); worker != NULL; worker = worker->next) {
        counters->slices += atomic_load_explicit(&worker->slices, memory_order_relaxed);
        counters->callbacks += atomic_load_explicit(&worker->callbacks, memory_order_relaxed);
        count_worker(worker, counters);
    }
    counters->steals = tri_places_steals(&s->places);
    count_queue(&s->core, counters);
    for (uint32_t i = 0; i < s->places.count; i++) count_place(&s->places.all[i], counters);
    counters->elastic_queue = s->elastic.count + s->learned.count;
    counters->loop_queue = s->async.count;
    counters->handoffs = s->handoffs;
    counters->parallel = options->parallel;
    counters->threads_limit = options->max_threads;
    counters->threads_limit_hits = s->limit_hits;
    counters->interrupts = atomic_load(&s->marked);
    tell_load(&s->load, counters);
    pthread_mutex_unlock(&s->lock);
}
