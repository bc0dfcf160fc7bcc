/* process.c: see process.h. */
#include "process.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "alarm.h"
#include "await.h"
#include "engine.h"

#define TAKEN (UINT64_C(1) << 31)
#define ONE_GENERATION (UINT64_C(1) << 32)

static uint32_t references(uint64_t life) { return (uint32_t)(life & (TAKEN - 1)); }
static uint32_t generation(uint64_t life) { return (uint32_t)(life >> 32); }

/* ---- The table ----------------------------------------------------------------------------------*/

int tri_table_init(tri_table *table, uint32_t max_processes) {
    *table = (tri_table){.chunk_limit = (max_processes + TRI_CHUNK - 1) / TRI_CHUNK};
    table->chunks = calloc(table->chunk_limit, sizeof *table->chunks);
    return table->chunks == NULL ? TR_ENOMEM : TR_OK;
}

void tri_table_fini(tr_engine *engine, tri_table *table) {
    for (uint32_t c = 0; c < table->chunk_count; c++) {
        tr_process *chunk = atomic_load_explicit(&table->chunks[c], memory_order_acquire);
        for (uint32_t i = 0; i < TRI_CHUNK; i++) {
            tri_call_free(engine, atomic_load(&chunk[i].call));
            free(atomic_load(&chunk[i].alarm));
        }
        free(chunk);
    }
    free(table->chunks);
}

static void put_free(tri_table *table, tr_process *process) {
    process->dead_next = NULL;
    if (table->free_last != NULL)
        table->free_last->dead_next = process;
    else
        table->free = process;
    table->free_last = process;
}

/* One chunk more, under bonds.lock. */
static int grow(tr_engine *engine) {
    tri_table *table = &engine->table;
    if (table->chunk_count == table->chunk_limit) return TR_ELIMIT;
    tr_process *chunk = calloc(TRI_CHUNK, sizeof *chunk);
    if (chunk == NULL) return TR_ENOMEM;
    for (uint32_t i = 0; i < TRI_CHUNK; i++) {
        chunk[i].engine = engine;
        chunk[i].index = table->chunk_count * TRI_CHUNK + i;
        atomic_init(&chunk[i].life, ONE_GENERATION);
        tri_mailbox_init(&chunk[i].mailbox);
        tri_mailbox_close(&chunk[i].mailbox);
        put_free(table, &chunk[i]);
    }
    atomic_store_explicit(&table->chunks[table->chunk_count++], chunk, memory_order_release);
    return TR_OK;
}

static int take_slot(tr_engine *engine, tr_process **process) {
    tri_table *table = &engine->table;
    uint64_t limit = engine->options.max_processes;
    if (atomic_load_explicit(&table->alive, memory_order_relaxed) >= limit) return TR_ELIMIT;
    if (table->free == NULL) {
        int result = grow(engine);
        if (result != TR_OK) return result;
    }
    *process = table->free;
    table->free = table->free->dead_next;
    if (table->free == NULL) table->free_last = NULL;
    atomic_fetch_add_explicit(&table->alive, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&table->spawned, 1, memory_order_relaxed);
    return TR_OK;
}

static tr_process *slot(tr_engine *engine, tr_pid pid) {
    uint32_t index = (uint32_t)pid;
    if (index / TRI_CHUNK >= engine->table.chunk_limit) return NULL;
    tr_process *chunk =
        atomic_load_explicit(&engine->table.chunks[index / TRI_CHUNK], memory_order_acquire);
    return chunk == NULL ? NULL : &chunk[index % TRI_CHUNK];
}

/* Nobody refers to the slot any more: on to the next generation, unless somebody else was faster or has
 * just looked at it with an old pid (he then comes back here). Under bonds.lock. */
static void recycle(tr_process *process, uint64_t life) {
    uint64_t next = (uint64_t)(generation(life) + 1) << 32;
    if (generation(next) == 0) next = ONE_GENERATION;
    if (atomic_compare_exchange_strong(&process->life, &life, next))
        put_free(&process->engine->table, process);
}

static void release_locked(tr_process *process) {
    uint64_t life = atomic_fetch_sub(&process->life, 1) - 1;
    if (references(life) == 0 && (life & TAKEN) != 0) recycle(process, life);
}

void tri_release(tr_process *process) {
    uint64_t life = atomic_fetch_sub(&process->life, 1) - 1;
    if (references(life) != 0 || (life & TAKEN) == 0) return;
    tr_engine *engine = process->engine;
    pthread_mutex_lock(&engine->bonds.lock);
    recycle(process, life);
    pthread_mutex_unlock(&engine->bonds.lock);
}

tr_process *tri_acquire(tr_engine *engine, tr_pid pid) {
    tr_process *process = slot(engine, pid);
    if (process == NULL) return NULL;
    uint64_t life = atomic_fetch_add(&process->life, 1);
    if (generation(life) == pid >> 32 && (life & TAKEN) != 0) return process;
    tri_release(process);
    return NULL;
}

tr_process *tri_peek(tr_engine *engine, tr_pid pid) {
    tr_process *process = slot(engine, pid);
    if (process == NULL) return NULL;
    uint64_t life = atomic_load(&process->life);
    return generation(life) == pid >> 32 && (life & TAKEN) != 0 ? process : NULL;
}

tr_process *tr_process_acquire(tr_engine *engine, tr_pid pid) {
    tr_process *process = tri_acquire(engine, pid);
    if (process == NULL || !tri_is_dead(process)) return process;
    tri_release(process);
    return NULL;
}

void tr_process_release(tr_process *process) { tri_release(process); }

void tri_mark_dead(tr_process *process) {
    tr_engine *engine = process->engine;
    uint8_t flags = atomic_fetch_or(&process->flags, TRI_DEAD);
    if ((flags & TRI_ASKED) != 0) atomic_fetch_sub(&engine->table.asked, 1);
    if (process->kind != TR_KIND_THREAD_OWN) atomic_fetch_sub(&engine->table.living, 1);
    if (atomic_load_explicit(&engine->stopping, memory_order_relaxed))
        tri_scheduler_drained(&engine->scheduler);
}

/* Counted before it is marked, so that whoever marks it dead at the same time can count it out. */
void tri_mark_asked(tr_process *process) {
    _Atomic uint64_t *asked = &process->engine->table.asked;
    atomic_fetch_add(asked, 1);
    uint8_t flags = atomic_load(&process->flags);
    do {
        if ((flags & (TRI_ASKED | TRI_DEAD)) != 0) {
            atomic_fetch_sub(asked, 1);
            return;
        }
    } while (!atomic_compare_exchange_weak(&process->flags, &flags, flags | TRI_ASKED));
}

/* ---- Delivery and the sleep protocol ------------------------------------------------------------*/

/* An event loop of the foreign thread wants to know of a message, once. */
static void tell_watcher(tr_process *process) {
    if ((atomic_fetch_and(&process->flags, (uint8_t)~TRI_WATCHED) & TRI_WATCHED) != 0)
        tri_loop_mail(atomic_load(&process->watcher));
}

static void rouse(tr_process *process, bool deep) {
    if ((atomic_load(&process->flags) & TRI_WATCHED) != 0) tell_watcher(process);
    for (;;) {
        uint8_t run = atomic_load(&process->run);
        if (run == TRI_IDLE || (deep && run == TRI_DORMANT)) {
            if (!atomic_compare_exchange_weak(&process->run, &run, TRI_QUEUED)) continue;
            tri_scheduler_enqueue(&process->engine->scheduler, process);
        } else if (run == TRI_PARKED || (deep && run == TRI_DEEP)) {
            if (!atomic_compare_exchange_weak(&process->run, &run, TRI_RUNNING)) continue;
            tri_parker_unpark(&process->thread->parker);
        }
        return;
    }
}

void tri_notify(tr_process *process) { rouse(process, false); }
void tri_wake(tr_process *process) { rouse(process, true); }

bool tri_deliver(tr_process *process, tr_message *message, tr_message **refused) {
    if (!tri_is_dead(process) && tri_mailbox_push(&process->mailbox, message)) {
        tri_notify(process);
        return true;
    }
    if (refused != NULL) {
        message->next = *refused;
        *refused = message;
    } else {
        tr_message_free(process->engine, message);
    }
    return false;
}

/* The host may do anything while its things are released, even use the engine as this process, which
 * is dead. The slot is let go of under the lock, when whoever ended the process is done with it. */
static void bury(tr_process *process) {
    tr_engine *engine = process->engine;
    bool foreign = process->kind == TR_KIND_THREAD_OWN;
    tri_grave_free(engine, tri_mailbox_close(&process->mailbox));
    tri_call_drop(process);
    tri_alarm_clear(process);
    if (process->behaviour->release != NULL) process->behaviour->release(process->state);
    pthread_mutex_lock(&engine->bonds.lock);
    tr_reason *reason = process->reason;
    process->reason = NULL;
    process->state = NULL;
    atomic_store(&process->run, TRI_FREE);
    release_locked(process);
    pthread_mutex_unlock(&engine->bonds.lock);
    tr_reason_release(reason);
    if (foreign) atomic_fetch_sub(&engine->table.foreign, 1);
    atomic_fetch_sub(&engine->table.alive, 1);
    if (atomic_load_explicit(&engine->stopping, memory_order_relaxed))
        tri_scheduler_drained(&engine->scheduler);
}

static void queue_again(tr_process *process) {
    atomic_store(&process->run, TRI_QUEUED);
    tri_scheduler_enqueue(&process->engine->scheduler, process);
}

/* Whether a process that went to rest must be looked at. It may be somebody else's by now: only the atomics
 * are looked at. */
static bool is_needed(tr_process *process, int wait, uint64_t deadline) {
    if (tri_is_dead(process)) return true;
    if (wait == TR_STEP_MESSAGE && tri_mailbox_has_new(&process->mailbox)) return true;
    if (wait == TR_STEP_ANSWER && tr_call_answered(process)) return true;
    return deadline != TR_FOREVER && tri_alarm_rang(process);
}

static void go_to_rest(tr_process *process, int wait, uint64_t deadline) {
    tr_engine *engine = process->engine;
    uint8_t rest = wait == TR_STEP_MESSAGE ? TRI_IDLE : TRI_DORMANT;
    atomic_store(&process->run, rest);
    if (is_needed(process, wait, deadline) &&
        atomic_compare_exchange_strong(&process->run, &rest, TRI_QUEUED))
        tri_scheduler_enqueue(&engine->scheduler, process);
}

void tri_yield(tr_process *process) {
    if (tri_is_dead(process))
        bury(process);
    else if (process->mailbox.head != NULL)
        queue_again(process);
    else
        go_to_rest(process, TR_STEP_MESSAGE, TR_FOREVER);
}

void tri_rest(tr_process *process, int wait, uint64_t deadline) {
    if (tri_is_dead(process))
        bury(process);
    else if (wait == TR_STEP_AGAIN)
        queue_again(process);
    else if (deadline != TR_FOREVER && tri_alarm_set(process, deadline) != TR_OK)
        queue_again(process); /* without memory for an alarm it has to look itself */
    else
        go_to_rest(process, wait, deadline);
}

/* ---- Spawn --------------------------------------------------------------------------------------*/

static void refuse(tr_engine *engine, const tr_spawn_options *options,
                   const tr_behaviour *behaviour, void *state) {
    tr_message_free(engine, options->first);
    if (behaviour->release != NULL) behaviour->release(state);
}

static void init(tr_process *process, const tr_spawn_options *options,
                 const tr_behaviour *behaviour, void *state) {
    process->behaviour = behaviour;
    process->state = state;
    process->kind = (uint8_t)options->kind;
    process->priority = (uint8_t)options->priority;
    process->left = process->right = NULL;
    process->reason = NULL;
    process->outer = NULL;
    process->thread = NULL;
    atomic_store(&process->worker, NULL);
    process->parent = 0;
    process->born = (uint32_t)atomic_load_explicit(&process->engine->table.spawned,
                                                   memory_order_relaxed);
    atomic_store(&process->flags, 0);
    atomic_store_explicit(&process->reductions, 0, memory_order_relaxed);
    atomic_store_explicit(&process->blocking, 0, memory_order_relaxed);
    tri_mailbox_init(&process->mailbox);
    tri_table *table = &process->engine->table;
    atomic_fetch_add(process->kind == TR_KIND_THREAD_OWN ? &table->foreign : &table->living, 1);
    if (options->first != NULL) tri_mailbox_push(&process->mailbox, options->first);
    atomic_fetch_add(&process->life, TAKEN | 1);
}

/* What a spawn needs from the allocator, had before the lock is taken. */
typedef struct spare {
    tri_bond *link, *monitor;
    char *name;
} spare;

static void spare_free(spare *spare) {
    free(spare->link);
    free(spare->monitor);
    free(spare->name);
}

static int spare_new(const tr_spawn_options *options, spare *spare) {
    *spare = (struct spare){0};
    if (options->link) spare->link = tri_bond_new();
    if (options->monitor) spare->monitor = tri_bond_new();
    if (options->name != NULL) spare->name = strdup(options->name);
    if ((options->link && spare->link == NULL) || (options->monitor && spare->monitor == NULL) ||
        (options->name != NULL && spare->name == NULL)) {
        spare_free(spare);
        return TR_ENOMEM;
    }
    return TR_OK;
}

/* Under bonds.lock: nothing has changed when this fails. */
static int tie_and_name(tr_engine *engine, tr_process *process, tr_process *self, spare *spare,
                        tr_ref *ref) {
    if (spare->name != NULL && tri_names_add(engine, spare->name, process) != TR_OK)
        return TR_ENOMEM;
    if (spare->monitor != NULL) {
        spare->monitor->message.ref = tr_ref_new(engine);
        int result = tri_bond_monitor(engine, spare->monitor, self, process);
        if (result != TR_OK) {
            if (spare->name != NULL) tri_names_remove(engine, process);
            spare->name = NULL; /* freed with the entry */
            return result;
        }
        *ref = spare->monitor->message.ref;
    }
    if (spare->link != NULL) {
        tri_bond_tie(spare->link, TRI_LINK, self, process);
        process->parent = tr_process_pid(self);
    }
    *spare = (struct spare){0};
    return TR_OK;
}

/* While the engine drains, its own processes go on as before: a supervisor restarts, a handler spawns.
 * Whoever comes from outside is refused. */
static bool is_closed_to_us(tr_engine *engine) {
    if (!atomic_load(&engine->stopping)) return false;
    if (atomic_load(&engine->closed)) return true;
    tr_process *self = tr_self_or_null(engine);
    return self == NULL || self->kind == TR_KIND_THREAD_OWN;
}

static int allocate(tr_engine *engine, const tr_spawn_options *options,
                    const tr_behaviour *behaviour, void *state, tr_process *self,
                    tr_process **process, tr_pid *pid, tr_ref *ref, spare *spare) {
    if (options->name != NULL) {
        tr_process *holder = tri_names_find(engine, options->name);
        if (holder != NULL) {
            *pid = tr_process_pid(holder);
            return TR_ENAME;
        }
    }
    if (self != NULL && tri_is_dead(self)) return TR_EKILLED;
    /* Under the lock: tr_engine_stop finds all processes that were made before. */
    if (is_closed_to_us(engine)) return TR_ESTOPPED;
    int result = take_slot(engine, process);
    if (result != TR_OK) return result;
    init(*process, options, behaviour, state);
    *pid = tr_process_pid(*process);
    return tie_and_name(engine, *process, self, spare, ref);
}

int tr_spawn(tr_engine *engine, const tr_spawn_options *options, const tr_behaviour *behaviour,
             void *state, tr_pid *pid, tr_ref *ref) {
    spare spare;
    tr_process *process = NULL, *self = NULL;
    tri_thread *here = options->enter ? tri_thread_here(engine) : NULL;
    int result = is_closed_to_us(engine) ? TR_ESTOPPED : spare_new(options, &spare);
    if (result != TR_OK) {
        refuse(engine, options, behaviour, state);
        return result;
    }
    if (options->link || options->monitor) self = tr_self(engine);
    if ((options->enter && here == NULL) || ((options->link || options->monitor) && self == NULL)) {
        result = TR_ENOMEM;
    } else {
        pthread_mutex_lock(&engine->bonds.lock);
        result = allocate(engine, options, behaviour, state, self, &process, pid, ref, &spare);
        if (result == TR_OK) atomic_store(&process->run, options->enter ? TRI_RUNNING : TRI_QUEUED);
        pthread_mutex_unlock(&engine->bonds.lock);
    }
    if (result != TR_OK) {
        spare_free(&spare);
        if (process != NULL) { /* never seen by anybody: bury it, with state and first message */
            tri_mark_dead(process);
            bury(process);
        } else {
            refuse(engine, options, behaviour, state);
        }
        return result;
    }
    if (options->enter) {
        process->outer = here->current;
        process->thread = here;
        atomic_store(&process->worker, here->worker);
        here->current = process;
        tri_scheduler_enter(process);
    } else {
        tri_scheduler_enqueue(&engine->scheduler, process);
    }
    return TR_OK;
}

void tr_leave(tr_engine *engine) {
    tri_thread *here = tri_thread_here_or_null(engine);
    if (here == NULL || here->current == NULL || here->current == here->own) return;
    tr_process *process = here->current;
    here->current = process->outer;
    process->outer = NULL;
    tri_scheduler_leave(process, here->current);
    tri_yield(process);
}

/* ---- Looking at processes -----------------------------------------------------------------------*/

tr_pid tr_process_pid(const tr_process *process) {
    uint64_t life = atomic_load_explicit(&((tr_process *)process)->life, memory_order_relaxed);
    return (life & ~(ONE_GENERATION - 1)) | process->index;
}

tr_pid tr_process_parent(const tr_process *process) { return process->parent; }
tr_engine *tr_process_engine(const tr_process *process) { return process->engine; }
void *tr_process_state(const tr_process *process) { return process->state; }
const tr_behaviour *tr_process_behaviour(const tr_process *process) { return process->behaviour; }
int tr_process_kind(const tr_process *process) { return process->kind; }
bool tr_process_is_dead(const tr_process *process) { return tri_is_dead(process); }

tr_reason *tr_process_reason(tr_process *process) {
    tr_engine *engine = process->engine;
    pthread_mutex_lock(&engine->bonds.lock);
    tr_reason *reason = tr_reason_retain(process->reason);
    pthread_mutex_unlock(&engine->bonds.lock);
    return reason;
}

bool tr_alive(tr_engine *engine, tr_pid pid) {
    tr_process *process = tr_process_acquire(engine, pid);
    if (process == NULL) return false;
    tri_release(process);
    return true;
}

static int status(const tr_process *process) {
    if (tri_is_dead(process)) return TR_STATUS_EXITING;
    switch (atomic_load(&((tr_process *)process)->run)) {
    case TRI_QUEUED:
        return TR_STATUS_RUNNABLE;
    case TRI_RUNNING:
        return TR_STATUS_RUNNING;
    default:
        return TR_STATUS_WAITING;
    }
}

int tr_process_info(tr_engine *engine, tr_pid pid, tr_info *info) {
    tr_process *process = tr_process_acquire(engine, pid);
    if (process == NULL) return TR_EDEAD;
    uint32_t length = tri_mailbox_length(&process->mailbox);
    *info = (tr_info){
        .pid = pid,
        .parent = process->parent,
        .status = status(process),
        .priority = process->priority,
        .kind = process->kind,
        .trap_exit = (atomic_load(&process->flags) & TRI_TRAP) != 0,
        .message_queue_len = length,
        .reductions = atomic_load_explicit(&process->reductions, memory_order_relaxed),
        .memory = sizeof *process + (uint64_t)length * sizeof(tr_message),
    };
    tr_name_of(engine, pid, info->name, sizeof info->name);
    tri_release(process);
    return TR_OK;
}

size_t tr_processes(tr_engine *engine, tr_pid *pids, size_t size) {
    size_t count = 0;
    pthread_mutex_lock(&engine->bonds.lock);
    for (uint32_t c = 0; c < engine->table.chunk_count; c++) {
        tr_process *chunk = atomic_load_explicit(&engine->table.chunks[c], memory_order_acquire);
        for (uint32_t i = 0; i < TRI_CHUNK; i++) {
            if (atomic_load(&chunk[i].run) == TRI_FREE) continue;
            if (count < size) pids[count] = tr_process_pid(&chunk[i]);
            count++;
        }
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    return count;
}

/* ---- Messages -----------------------------------------------------------------------------------*/

int tr_send_message(tr_engine *engine, tr_pid pid, tr_message *message) {
    bool forked = atomic_load_explicit(&engine->forked, memory_order_relaxed);
    tr_process *process = forked ? NULL : tri_acquire(engine, pid);
    if (process == NULL) {
        tr_message_free(engine, message);
        return forked ? TR_ESTOPPED : TR_EDEAD;
    }
    bool delivered = tri_deliver(process, message, NULL);
    tri_release(process);
    return delivered ? TR_OK : TR_EDEAD;
}

/* Under an interpreter lock a slot can only be given to another process by a thread that is attached,
 * so a sender that is attached need not hold on to it: two locked instructions less. */
static int send_attached(tr_engine *engine, tr_pid pid, tr_message *message) {
    tr_process *process = tri_peek(engine, pid);
    if (process != NULL) return tri_deliver(process, message, NULL) ? TR_OK : TR_EDEAD;
    tr_message_free(engine, message);
    return TR_EDEAD;
}

int tr_send(tr_engine *engine, tr_pid pid, uint32_t kind, tr_term term) {
    tr_message *message = tr_message_new(kind);
    if (message == NULL) {
        tri_release_term(engine, term);
        return TR_ENOMEM;
    }
    message->term = term;
    if (engine->options.handoff) return send_attached(engine, pid, message);
    return tr_send_message(engine, pid, message);
}

void tr_push_front(tr_process *self, tr_message *message) {
    tri_mailbox_push_front(&self->mailbox, message);
}

tr_message *tr_receive(tr_process *self, bool (*match)(const tr_message *, void *), void *context,
                       tr_cursor *cursor) {
    return tri_mailbox_take_match(&self->mailbox, match, context, cursor);
}

/* ---- Sleeping -----------------------------------------------------------------------------------*/

/* Virtual time: what ends a sleep when the clock is moved past its deadline. It lies on the sleeper's
 * stack, so whoever rings it must be done with it before the sleeper goes: `done` is his last touch. */
typedef struct alarm {
    tri_timer node; /* first: what the wheel links */
    tr_process *sleeper;
    _Atomic bool rang, done;
} alarm;

static void ring(tri_timer *node) {
    alarm *bell = (alarm *)node;
    atomic_store(&bell->rang, true);
    tri_wake(bell->sleeper);
    atomic_store(&bell->done, true);
}

static void set_alarm(alarm *bell, tr_process *self, uint64_t deadline) {
    tri_ticker *ticker = &self->engine->ticker;
    *bell = (alarm){.node.fire = ring, .sleeper = self};
    pthread_mutex_lock(&ticker->lock);
    bool due = deadline <= tri_clock_now(&self->engine->clock);
    if (!due) tri_wheel_add(&ticker->wheel, &bell->node, deadline);
    pthread_mutex_unlock(&ticker->lock);
    atomic_store(&bell->rang, due);
    atomic_store(&bell->done, due);
}

static void clear_alarm(alarm *bell) {
    tri_ticker *ticker = &bell->sleeper->engine->ticker;
    pthread_mutex_lock(&ticker->lock);
    bool pending = tri_wheel_remove(&ticker->wheel, &bell->node);
    pthread_mutex_unlock(&ticker->lock);
    while (!pending && !atomic_load(&bell->done)) sched_yield();
}

static bool roused(tr_process *self, bool (*ready)(tr_process *), const alarm *bell) {
    return ready(self) || tri_is_dead(self) || (bell != NULL && atomic_load(&bell->rang));
}

/* Sleep once: until somebody turned the process to RUNNING, whose token is then taken, or until there
 * is no reason to sleep (any more), and then the sleeper turns it himself. */
static int sleep_once(tr_process *self, uint8_t how, bool (*ready)(tr_process *),
                      const alarm *bell, uint64_t deadline) {
    tri_parker *parker = &self->thread->parker;
    uint8_t asleep = how;
    int result = TR_OK;
    atomic_store(&self->run, how);
    if (!roused(self, ready, bell)) {
        result = tri_parker_park(parker, deadline);
        if (result == TR_OK) return TR_OK;
    }
    if (!atomic_compare_exchange_strong(&self->run, &asleep, TRI_RUNNING))
        while (tri_parker_park(parker, TR_FOREVER) != TR_OK) continue;
    return result;
}

static int sleep_until_ready(tr_process *self, uint8_t how, bool (*ready)(tr_process *),
                             const alarm *bell, uint64_t deadline) {
    int result = TR_OK;
    tri_scheduler_before_wait(self);
    while (result == TR_OK && !roused(self, ready, bell))
        result = sleep_once(self, how, ready, bell, deadline);
    tri_scheduler_after_wait(self);
    return result == TR_OK && bell != NULL && atomic_load(&bell->rang) ? TR_ETIMEDOUT : result;
}

int tri_park(tr_process *self, uint8_t how, bool (*ready)(tr_process *), uint64_t deadline) {
    tr_engine *engine = self->engine;
    int result = TR_OK;
    if (atomic_load(&engine->forked)) return TR_ESTOPPED;
    if (!ready(self) && !tri_is_dead(self)) {
        if (engine->options.virtual_time && deadline != TR_FOREVER) {
            alarm bell;
            set_alarm(&bell, self, deadline);
            result = sleep_until_ready(self, how, ready, &bell, TR_FOREVER);
            clear_alarm(&bell);
        } else {
            result = sleep_until_ready(self, how, ready, NULL, deadline);
        }
    }
    if (tri_is_dead(self)) return TR_EKILLED;
    return ready(self) ? TR_OK : result;
}

static bool has_new(tr_process *self) { return tri_mailbox_has_new(&self->mailbox); }

int tr_wait(tr_process *self, uint64_t deadline) {
    return tri_park(self, TRI_PARKED, has_new, deadline);
}

static bool never(tr_process *self) {
    (void)self;
    return false;
}

int tr_sleep(tr_process *self, uint64_t deadline) {
    return tri_park(self, TRI_DEEP, never, deadline);
}
