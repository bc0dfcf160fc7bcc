/* process.h: processes, and the table that finds them.
 *
 * A process is one struct in a slot of the table. Slots are allocated in chunks, never freed before the
 * engine, and used again under a new generation, so a pid (slot and generation) never names two
 * processes, and a stale pointer at worst points at somebody else's live slot.
 *
 * Life of a slot. `life` holds the generation above, then one bit "taken", then a count of references.
 * Looking a pid up adds a reference and compares the generation; the process itself holds one from spawn
 * to burial. Whoever drops the last reference of a taken slot moves it to the next generation and
 * puts it on the free list.
 *
 * Who may touch what:
 *   life, run, flags, mailbox.inbox, mailbox.pushed, reductions, call, alarm, blocking   any thread (atomics)
 *   mailbox.head/tail, state, outer                      the thread that runs the process
 *   left, right, name, reason, dead_next, parent         under bonds.lock
 *   next                                                 the run queue that holds it, under its lock
 *   watcher                                              written by the foreign thread before it sets
 *                                                        WATCHED; read by who took that flag away
 *   thread, worker                                       written by the runner before it sets PARKED;
 *                                                        thread is read by whoever took the process
 *                                                        out of PARKED, worker by whoever interrupts
 *   born                                                 written at spawn, then constant
 *
 * A slot also comes back when a stale pid is looked up: tri_acquire adds a reference to whatever lies there,
 * sees the wrong generation and gives it back. So the count may be above what the owners hold, a slot
 * may be held for a moment after its last reference went, and recycling is one compare-and-swap of the
 * whole word, which fails as long as anybody is there; the last to leave tries again.
 *
 * The sleep protocol. `run` is IDLE (nobody has it), QUEUED (in a run queue), RUNNING (a thread is in
 * it), DORMANT (nobody has it, and messages do not concern it: an answer, its deadline or its end do),
 * PARKED (its thread sleeps in the middle of it and wants to know of messages), or DEEP (it sleeps
 * and messages do not concern it). A sender pushes, then looks at `run`: IDLE it turns into QUEUED and
 * enqueues, PARKED it turns into RUNNING and unparks; so does with DORMANT and DEEP who answers or ends the
 * process. The runner sets IDLE, DORMANT, PARKED or DEEP, then looks at what it waits for (and at the
 * flag DEAD) again. All four accesses are sequentially consistent, so that one of the two
 * sees the other: no wake-up is lost. Who turns PARKED or DEEP into RUNNING leaves exactly one token in
 * the parker, and the sleeper takes exactly that one: when it woke by itself and lost the race for `run`
 * it waits for the token that is on its way. So a parker is empty whenever its thread is awake, and
 * the waker may touch a thread's parker, because the thread cannot go before it has the token.
 *
 * Only the step from IDLE or DORMANT to QUEUED puts a process into a run queue, or its own runner does: it is never in
 * two. After its runner set IDLE or DORMANT, the process may be run, buried and replaced by another one at any
 * moment; the runner then looks at atomics only, and at worst queues a live, idle process for nothing.
 *
 * Death. tri_end (bond.c) marks a process DEAD: from then on it is gone for everybody else. The memory
 * is released ("buried") by the thread that next owns `run`: the runner itself, when it was QUEUED, RUNNING,
 * PARKED or DEEP, or a worker, to which the ender queues an idle or dormant corpse. The runner may see the flag
 * before tri_end is done with the corpse, so a burial takes bonds.lock before it lets go of the slot.
 *
 * An idle process costs sizeof(tr_process), 192 bytes, and what its behaviour keeps. */
#ifndef TRI_PROCESS_H
#define TRI_PROCESS_H

#include "mailbox.h"
#include "thread.h"

struct tri_alarm;
struct tri_bond;
struct tri_call;
struct tri_worker;
struct tr_loop;

enum { TRI_FREE, TRI_IDLE, TRI_DORMANT, TRI_QUEUED, TRI_RUNNING, TRI_PARKED, TRI_DEEP };
enum { TRI_DEAD = 1, TRI_TRAP = 2, TRI_WATCHED = 4, TRI_ASKED = 8 };

struct tr_process {
    _Atomic uint64_t life;
    tr_engine *engine;
    tri_mailbox mailbox;
    _Atomic uint8_t run;
    _Atomic uint8_t flags;
    uint8_t kind;
    uint8_t priority;
    /* How often its callbacks block, see worker.h. Relaxed: written by its runner; by the tick while it is queued. */
    _Atomic uint8_t blocking;
    uint32_t index;
    union {
        tr_process *next;
        _Atomic(struct tr_loop *) watcher; /* of a foreign thread's process, which is never queued */
    };
    tr_process *dead_next; /* the list of corpses in bond.c; the list of free slots */
    const tr_behaviour *behaviour;
    void *state;
    tri_thread *thread;
    _Atomic(struct tri_worker *) worker; /* NULL while a foreign thread runs it */
    tr_process *outer;         /* whose callback entered this one (tr_spawn with enter) */
    struct tri_bond *left, *right;
    char *name;
    tr_reason *reason;
    tr_pid parent;
    _Atomic(struct tri_call *) call;
    _Atomic(struct tri_alarm *) alarm;
    _Atomic uint64_t reductions; /* written by the runner only */
    uint32_t born;               /* its place in the order of spawns */
};

enum { TRI_CHUNK = 1024 };

typedef struct tri_table {
    _Atomic(tr_process *) *chunks; /* published with release, read with acquire */
    uint32_t chunk_limit;
    uint32_t chunk_count;    /* under bonds.lock, as the free list */
    tr_process *free;        /* oldest first: a slot rests as long as possible */
    tr_process *free_last;
    _Atomic uint64_t alive;   /* from spawn to burial */
    _Atomic uint64_t foreign; /* of these, the processes of foreign threads */
    _Atomic uint64_t living;  /* those of ours that have not been ended */
    _Atomic uint64_t asked;   /* of these, who were asked to end (TRI_ASKED), because the engine stops */
    _Atomic uint64_t spawned;
} tri_table;

int tri_table_init(tri_table *table, uint32_t max_processes);
void tri_table_fini(tr_engine *engine, tri_table *table);

/* The process with this pid, referenced, or NULL. */
tr_process *tri_acquire(tr_engine *engine, tr_pid pid);
void tri_release(tr_process *process);
/* The same for a pid whose process cannot go away (bonds.lock is held and it is not buried). */
tr_process *tri_peek(tr_engine *engine, tr_pid pid);

static inline bool tri_is_dead(const tr_process *process) {
    return (atomic_load(&((tr_process *)process)->flags) & TRI_DEAD) != 0;
}

/* Set the flag DEAD, once. */
void tri_mark_dead(tr_process *process);
/* Count a process among those whose end a stop waits for. */
void tri_mark_asked(tr_process *process);

/* Push and wake. Takes the message over. The process must be referenced or under bonds.lock. False if
 * it was refused; `refused` then collects it (when bonds.lock is held) or it is freed. */
bool tri_deliver(tr_process *process, tr_message *message, tr_message **refused);
/* Make sure that somebody looks at the process: at a new message; at an answer or its end. */
void tri_notify(tr_process *process);
void tri_wake(tr_process *process);

/* Sleep as TRI_PARKED or TRI_DEEP until ready() or `deadline` on the engine's clock: TR_OK,
 * TR_ETIMEDOUT, TR_EINTR, TR_EKILLED. On the thread that runs the process, detached. */
int tri_park(tr_process *self, uint8_t how, bool (*ready)(tr_process *self), uint64_t deadline);

/* The end of a slice, on the thread that runs the process: go idle, be queued again, or be buried.
 * The process must not be touched after. */
void tri_yield(tr_process *process);
/* The same for a process that is stepped, with what its last step answered. */
void tri_rest(tr_process *process, int wait, uint64_t deadline);

#endif
