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
 *   life, run, flags, mailbox.inbox, mailbox.length, reductions, call   any thread (atomics)
 *   mailbox.head/tail, state, outer                      the thread that runs the process
 *   left, right, name, reason, dead_next, parent         under bonds.lock
 *   next                                                 the run queue that holds it, under its lock
 *   thread, worker                                       written by the runner before it sets
 *                                                        RUNNING or PARKED; read by whoever took the
 *                                                        process out of PARKED
 *
 * The sleep protocol. `run` is IDLE (nobody has it), QUEUED (in a run queue), RUNNING (a thread is in
 * it), PARKED (its thread sleeps in the middle of it). A sender pushes, then looks at `run`: IDLE it
 * turns into QUEUED and enqueues, PARKED it turns into RUNNING and unparks. The runner sets IDLE or
 * PARKED, then looks at the inbox (and at the flag DEAD) again. All four accesses are sequentially
 * consistent, so that one of the two sees the other: no wake-up is lost.
 *
 * Death. tri_end (bond.c) marks a process DEAD: from then on it is gone for everybody else. The memory
 * is released ("buried") by the thread that next owns `run`: the runner itself, or a worker, to which
 * the ender queues an idle corpse.
 *
 * An idle process costs sizeof(tr_process), about 170 bytes, and what its behaviour keeps. */
#ifndef TRI_PROCESS_H
#define TRI_PROCESS_H

#include "mailbox.h"
#include "thread.h"

struct tri_bond;
struct tri_call;
struct tri_worker;

enum { TRI_FREE, TRI_IDLE, TRI_QUEUED, TRI_RUNNING, TRI_PARKED };
enum { TRI_DEAD = 1, TRI_TRAP = 2 };

struct tr_process {
    _Atomic uint64_t life;
    tr_engine *engine;
    tri_mailbox mailbox;
    _Atomic uint8_t run;
    _Atomic uint8_t flags;
    uint8_t kind;
    uint8_t priority;
    uint32_t index;
    tr_process *next;
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
    _Atomic uint32_t reductions;
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

/* Push and wake. Takes the message over. The process must be referenced or under bonds.lock. False if
 * it was refused; `refused` then collects it (when bonds.lock is held) or it is freed. */
bool tri_deliver(tr_process *process, tr_message *message, tr_message **refused);
/* Make sure that somebody looks at the process. */
void tri_notify(tr_process *process);

/* Sleep until ready() or `deadline`: TR_OK, TR_ETIMEDOUT, TR_EINTR, TR_EKILLED. On the thread that
 * runs the process, detached. */
int tri_park(tr_process *self, bool (*ready)(tr_process *self), uint64_t deadline);

/* The end of a slice, on the thread that runs the process: go idle, be queued again, or be buried.
 * The process must not be touched after. */
void tri_yield(tr_process *process);

#endif
