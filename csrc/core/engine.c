/* engine.c: see engine.h: making, stopping, forking. */
#include "engine.h"

#include "await.h"

#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define HALF_A_SECOND UINT64_C(500000000)

const char *tr_version(void) { return "0.1.0"; }

/* Tells engines apart, of other processes too; never 0. */
static uint64_t new_id(const tr_engine *engine) {
    uint64_t id = 0;
    if (getrandom(&id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id)
        id = tri_clock_monotonic() ^ ((uint64_t)getpid() << 40) ^ (uint64_t)(uintptr_t)engine;
    return id != 0 ? id : 1;
}

static void set_options(tr_engine *engine, const tr_options *options) {
    engine->options = *options;
    if (engine->options.max_processes == 0) engine->options.max_processes = 1u << 22;
    if (engine->options.max_threads == 0) engine->options.max_threads = 512;
    if (engine->options.parallel == 0) engine->options.parallel = 1;
    if (engine->options.parallel > engine->options.max_threads)
        engine->options.parallel = engine->options.max_threads;
}

tr_engine *tr_engine_new(const tr_options *options, const tr_host *host) {
    tr_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return NULL;
    engine->host = *host;
    engine->id = new_id(engine);
    set_options(engine, options);
    tri_clock_init(&engine->clock, options->virtual_time);
    atomic_init(&engine->references, 1);
    if (tri_table_init(&engine->table, engine->options.max_processes) != TR_OK) goto fail;
    if (tri_bonds_init(&engine->bonds) != TR_OK) goto fail_table;
    if (tri_scheduler_init(&engine->scheduler, engine) != TR_OK) goto fail_bonds;
    if (tri_ticker_init(&engine->ticker, engine) != TR_OK) goto fail_scheduler;
    if (tri_slow_init(&engine->slow, engine) != TR_OK) goto fail_ticker;
    if (pthread_mutex_init(&engine->stop_lock, NULL) != 0) goto fail_slow;
    return engine;
fail_slow:
    tri_slow_fini(&engine->slow);
fail_ticker:
    tri_ticker_fini(&engine->ticker);
fail_scheduler:
    tri_scheduler_fini(&engine->scheduler);
fail_bonds:
    tri_bonds_fini(&engine->bonds);
fail_table:
    tri_table_fini(engine, &engine->table);
fail:
    free(engine);
    return NULL;
}

void tri_engine_retain(tr_engine *engine) {
    atomic_fetch_add_explicit(&engine->references, 1, memory_order_relaxed);
}

void tri_engine_release(tr_engine *engine) {
    if (atomic_fetch_sub_explicit(&engine->references, 1, memory_order_acq_rel) != 1) return;
    pthread_mutex_destroy(&engine->stop_lock);
    tri_slow_fini(&engine->slow);
    tri_ticker_fini(&engine->ticker);
    tri_scheduler_fini(&engine->scheduler);
    tri_loops_fini(engine);
    tri_bonds_fini(&engine->bonds);
    tri_table_fini(engine, &engine->table);
    free(engine);
}

void tr_engine_free(tr_engine *engine) {
    /* Timers hold references; what is pending will never fire. */
    tri_ticker_drop_all(&engine->ticker);
    tri_engine_release(engine);
}

/* ---- Stop ---------------------------------------------------------------------------------------*/

typedef struct condemned {
    tr_pid pid, parent;
    uint32_t age; /* spawns since */
} condemned;

static int by_age(const void *one, const void *other) {
    const condemned *a = one, *b = other;
    return (a->age > b->age) - (a->age < b->age);
}

/* The living processes that the engine runs, newest first; *count of them. NULL when memory is short. */
static condemned *list_all(tr_engine *engine, size_t *count) {
    size_t size = tr_processes(engine, NULL, 0);
    tr_pid *pids = malloc((size + 1) * sizeof *pids);
    condemned *list = malloc((size + 1) * sizeof *list);
    size_t listed = pids == NULL ? 0 : tr_processes(engine, pids, size);
    uint32_t now = (uint32_t)atomic_load(&engine->table.spawned);
    *count = 0;
    for (size_t i = 0; list != NULL && i < listed && i < size; i++) {
        tr_process *process = tr_process_acquire(engine, pids[i]);
        if (process == NULL) continue;
        if (process->kind != TR_KIND_THREAD_OWN)
            list[(*count)++] = (condemned){pids[i], process->parent, now - process->born};
        tr_process_release(process);
    }
    free(pids);
    if (list != NULL) qsort(list, *count, sizeof *list, by_age);
    return list;
}

/* Whether no process of the engine's is there to end it in order. */
static bool is_root(tr_engine *engine, tr_pid parent) {
    tr_process *process = parent == 0 ? NULL : tr_process_acquire(engine, parent);
    if (process == NULL) return true;
    bool foreign = process->kind == TR_KIND_THREAD_OWN;
    tr_process_release(process);
    return foreign;
}

static void signal(tr_engine *engine, const condemned *one, int kind) {
    tr_process *process = tr_process_acquire(engine, one->pid);
    if (process == NULL) return;
    tri_mark_asked(process);
    tr_process_release(process);
    tr_exit(engine, one->parent, one->pid, tr_reason_constant(kind));
}

/* Send an exit signal to each, or to each root, as from its parent. Returns how many there were. */
static size_t signal_all(tr_engine *engine, int kind, bool roots_only) {
    size_t count;
    condemned *list = list_all(engine, &count);
    for (size_t i = 0; i < count; i++)
        if (!roots_only || is_root(engine, list[i].parent))
            signal(engine, &list[i], kind);
    free(list);
    return count;
}

/* Foreign threads' processes end with their threads, not here. */
static uint64_t unburied(tr_engine *engine) {
    return atomic_load(&engine->table.alive) - atomic_load(&engine->table.foreign);
}

static uint64_t living(tr_engine *engine) { return atomic_load(&engine->table.living); }
static uint64_t asked(tr_engine *engine) { return atomic_load(&engine->table.asked); }

static void wait_until_none(tr_engine *engine, uint64_t (*count)(tr_engine *), uint64_t deadline) {
    int result = TR_OK;
    while (count(engine) > 0 && result != TR_ETIMEDOUT)
        result = tri_parker_park(&engine->scheduler.stopper, deadline);
}

/* The roots first: supervisors end their children in order, pipelines drain. Then whoever has got loose
 * from its parent, and whom those start who are asked to end. Under stop_lock. */
static void ask_to_end(tr_engine *engine, uint64_t deadline) {
    if (atomic_exchange(&engine->stopping, true)) return;
    uint64_t now = tri_clock_monotonic();
    uint64_t patience = deadline > now ? (deadline - now) / 4 * 3 : 0;
    signal_all(engine, TR_SHUTDOWN, true);
    wait_until_none(engine, asked, now + patience);
    while (living(engine) > 0 && tri_clock_monotonic() < deadline &&
           signal_all(engine, TR_SHUTDOWN, false) > 0)
        wait_until_none(engine, asked, deadline);
    wait_until_none(engine, living, deadline); /* whom memory is too short to signal */
}

uint64_t tr_engine_drain(tr_engine *engine, uint64_t deadline) {
    if (atomic_load(&engine->forked)) return 0;
    pthread_mutex_lock(&engine->stop_lock);
    ask_to_end(engine, deadline);
    pthread_mutex_unlock(&engine->stop_lock);
    return living(engine);
}

int tr_engine_stop(tr_engine *engine, uint64_t deadline) {
    if (atomic_load(&engine->forked)) return 0;
    pthread_mutex_lock(&engine->stop_lock);
    ask_to_end(engine, deadline);
    if (!atomic_exchange(&engine->closed, true)) {
        signal_all(engine, TR_KILL, false);
        /* All are dead now; a callback that does not return keeps its process unburied. */
        wait_until_none(engine, unburied, tri_clock_monotonic() + HALF_A_SECOND);
    }
    uint32_t left =
        tri_scheduler_end(&engine->scheduler, tri_clock_monotonic() + HALF_A_SECOND);
    tri_ticker_end(&engine->ticker);
    left += tri_slow_end(&engine->slow, tri_clock_monotonic() + HALF_A_SECOND);
    tri_await_stop(engine);
    pthread_mutex_unlock(&engine->stop_lock);
    return (int)left;
}

/* ---- Fork ---------------------------------------------------------------------------------------*/

void tr_engine_fork_prepare(tr_engine *engine) {
    pthread_mutex_lock(&engine->bonds.lock);
    tri_scheduler_lock(&engine->scheduler);
    pthread_mutex_lock(&engine->ticker.lock);
}

void tr_engine_fork_parent(tr_engine *engine) {
    pthread_mutex_unlock(&engine->ticker.lock);
    tri_scheduler_unlock(&engine->scheduler);
    pthread_mutex_unlock(&engine->bonds.lock);
}

/* The locks are this thread's since prepare, so it may unlock them; the engine is then unusable, and
 * whatever still calls it is told that it has stopped. */
void tr_engine_fork_child(tr_engine *engine) {
    atomic_store(&engine->forked, true);
    atomic_store(&engine->stopping, true);
    atomic_store(&engine->closed, true);
    engine->scheduler.ending = engine->ticker.ending = true;
    tr_engine_fork_parent(engine);
    tri_thread_forget();
}

/* ---- Looking at it ------------------------------------------------------------------------------*/

bool tr_engine_stopping(const tr_engine *engine) {
    return atomic_load(&((tr_engine *)engine)->stopping);
}

uint64_t tr_engine_stop_timeout(const tr_engine *engine) { return engine->options.stop_timeout; }
uint64_t tr_engine_id(const tr_engine *engine) { return engine->id; }
uint64_t tr_now(const tr_engine *engine) { return tri_clock_now(&engine->clock); }

void tr_engine_advance(tr_engine *engine, uint64_t now) {
    if (!engine->options.virtual_time) return;
    tri_clock_advance(&engine->clock, now);
    tri_ticker_fire(&engine->ticker, now);
}

tr_ref tr_ref_new(tr_engine *engine) {
    return atomic_fetch_add_explicit(&engine->last_ref, 1, memory_order_relaxed) + 1;
}

void tr_engine_counters(tr_engine *engine, tr_counters *counters) {
    *counters = (tr_counters){
        .processes = atomic_load(&engine->table.alive),
        .spawned = atomic_load(&engine->table.spawned),
    };
    tri_scheduler_counters(&engine->scheduler, counters);
    tri_ticker_counters(&engine->ticker, counters);
}
