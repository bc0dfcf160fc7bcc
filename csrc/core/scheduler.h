/* scheduler.h: which thread runs which process.
 *
 * Workers are threads of the engine, started when there is work and kept. Each has a role:
 *
 *   IDLE      sleeps
 *   CORE      holds one of the `parallel` places at the core queues and runs slices from them
 *   STANDBY   waits for the interpreter lock, to take the core over from a callback that blocks
 *   LOOP      runs the host's event loop, and on it processes of kind "asyncio" (looper.c); there is one
 *   ELASTIC   runs processes of kind "thread", which may block
 *   DETACHED  was CORE; its callback blocked, waits in the engine, or computes too long, so the place
 *             at the core went to another worker; it finishes the callback and then is IDLE or CORE
 *             again; CORE at once when it wakes a process while nobody has the core
 *
 * A process is run by one worker at a time. A slice is a number of callbacks, cut short at the next
 * tick when others wait. Which process is next, run_queue.h says.
 *
 * Under an interpreter lock (`handoff`) one place exists. The interpreter gives its lock to whoever waits
 * when a callback blocks, so the standby, which waits, finds itself running: it looks whether the core's
 * worker is inside a callback and has not merely lost the lock by force (a young callback after a
 * forced switch gets it back), and takes the place. It waits only while the core has been busy across a
 * tick, or, within 20 ms after a hand-over, works while others wait, because waiting for good would slow every
 * wake-up. There is no cost on the busy path.
 *
 * Without an interpreter lock there is one place per core, with a queue each (place.h); `core` is then for
 * what comes from outside the workers at the core, each of which takes its share of it with its next
 * turn. A worker wakes another one when it goes on while processes wait in its queue: not for the one process that it
 * runs next itself, so that two that talk to each other stay together, and one at a time: who was woken
 * and found work wakes the next. The ticker wakes one, too, for what lies behind a long callback, and
 * takes the place from a worker that was inside one callback for a whole tick when no other is free.
 *
 * The elastic pool grows by one searcher at a time: a worker that took a process starts the next
 * searcher before it runs it, so functions that do not block share one thread and functions that
 * do get one each, up to the limit, of which the core keeps its share: processes of the pool may all
 * wait for one of the core's.
 *
 * A wait inside a callback gives the place away first (tri_scheduler_before_wait). A thread that waits in
 * the engine does not count for the limit of threads, so that such waits never use up the threads that
 * would end them; in all there may be TRI_THREADS_IN_ALL times as many.
 *
 * A process whose callbacks block again and again is learned (worker.c) and goes to the elastic
 * pool at once, by a queue of its own, until its callbacks are short again. When the pool has no thread for
 * it, it waits there, or the core would stand still whenever threads are short; so does, while no thread could go
 * on at the core, who has blocked lately. But once the pool has taken nobody for a tick, one of those that wait goes
 * to the core after all: the others may wait for it. If no thread could go on there, that is put off for a second.
 *
 * Who is not learned yet costs a hand-off, and without an interpreter lock a tick. When callbacks block one after
 * the other, those that wait behind them go to the pool, too, for once, but for urgent ones (tri_relieve),
 * and those of them that never blocked come back if the pool takes nobody.
 *
 * Threads that compute without end take turns at the interpreter lock: turnstile.h; an event loop that does
 * lets others have theirs between two steps: pause.h. An idle thread
 * beyond TRI_IDLE_KEPT ends after TRI_IDLE_STAYS.
 *
 * Roles. A worker gets a role while it is IDLE, from whoever has work, under `lock`, and is woken after it: the
 * token waits if it does not sleep yet, or not any more, and a token too many costs it one look. Only
 * its own thread ends a role, under `lock` too, and at once takes the next that is wanted (`retire`), so that
 * work is either taken by somebody who holds a role or finds an idle worker or a free place when it is
 * queued: nobody goes idle beside waiting work. The one exception is CORE -> DETACHED, which others do;
 * the worker sees it after the callback. An idle worker ends only under `lock`, by leaving the idle list.
 *
 * Who may touch what: queues (but those of places), roles and lists under `lock`. A worker reads its own role without it,
 * after each callback. `serial` is written by its worker, odd while inside the host's code and larger
 * after every callback, and read by others as a hint (relaxed; the interpreter lock orders it where it
 * decides). `target` is explained at tri_scheduler_interrupt. Workers are never freed before the
 * engine: a stale pointer to one is harmless. */
#ifndef TRI_SCHEDULER_H
#define TRI_SCHEDULER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "load.h"
#include "place.h"
#include "process.h"
#include "pause.h"
#include "run_queue.h"
#include "slow.h"
#include "tailrace.h"
#include "thread.h"
#include "turnstile.h"

enum {
    TRI_ROLE_GONE,   /* no thread: the record may be used again */
    TRI_ROLE_ENDING, /* its thread is on its way out */
    TRI_ROLE_IDLE,
    TRI_ROLE_CORE,
    TRI_ROLE_STANDBY,
    TRI_ROLE_ELASTIC,
    TRI_ROLE_LOOP,
    TRI_ROLE_DETACHED
};

#define TRI_TICK UINT64_C(1000000) /* ns */
enum { TRI_SLICE = 1000, TRI_THREADS_IN_ALL = 16, TRI_IDLE_KEPT = 4 };
#define TRI_IDLE_STAYS UINT64_C(5000000000)

typedef struct tri_worker {
    tri_thread thread; /* first: its record as a thread */
    tri_parker wake;   /* for a new role; thread.parker is for waits inside callbacks */
    void *host;
    bool started; /* by whoever made it, before anybody else knows it */
    _Atomic int role;
    _Atomic uint64_t serial;
    _Atomic bool preempt;      /* others wait: end the slice after this callback */
    _Atomic uintptr_t target;  /* the process it runs, and three bits */
    _Atomic uint64_t slices, callbacks; /* written by the worker alone, relaxed: to look at */
    /* With hand-off only: the processes that its own callback woke, not yet in the core queues. Written
     * by the worker while it is attached and CORE, so without a lock; whoever takes the core from it
     * is attached too, and moves them on. */
    tri_queue woken;
    /* Without: the place it holds at the core, and whether it was woken to steal and has found nothing yet.
     * Written by whoever gives it the role, before it is woken; then its own. NULL and false else. */
    tri_place *place;
    bool thief;
    bool took_back;            /* its callback lost the core and took it back; its own */
    bool calls;                /* it sends a request and will wait for the answer; its own */
    bool searching;            /* under lock: the elastic pool's searcher */
    uint64_t seen_serial, seen_cpu; /* the ticker's: at the last look; the clock only while in a callback */
    uint64_t asleep_since;          /* the ticker's: with hand-off, if no thread is left for one */
    _Atomic uint64_t slept;         /* the callback that was seen to; relaxed */
    _Atomic bool waiting;      /* in an engine call that waits; written under lock */
    /* The ticker's: whom it saw interrupted, the thread's CPU clock and the time then. */
    uintptr_t interrupted;
    uint64_t interrupted_cpu, interrupted_at;
    _Atomic bool unwinds; /* it was interrupted since the ticker looked last */
    /* Whose interrupt the host holds back (0: nobody's), and what was seen of the thread since. Written by
     * whoever made `target` BUSY; put back by the worker itself. */
    _Atomic uintptr_t held_back;
    uint64_t held_first, held_last, held_computing; /* its CPU clock at the first and the last try; time it computed */
    bool held_again;                                /* the last try was the ticker's */
    /* The turnstile's, under lock; `gate` and `armed` are read by its own thread without it. */
    clockid_t cpu;
    _Atomic uint8_t gate;
    _Atomic bool armed; /* by the host, maybe for a gate of before */
    uint64_t turn_serial; /* the callback that turn_began counts for */
    uint64_t turn_began;  /* the thread's CPU clock then */
    tri_parker gate_parker;
    struct tri_worker *next_gated;
    tri_suspect slow;
    struct tri_worker *next;   /* all workers */
    struct tri_worker *next_idle;
} tri_worker;

typedef struct tri_scheduler {
    tr_engine *engine;
    pthread_mutex_t lock;
    tri_run_queue core;
    _Atomic uint64_t outside; /* its length, for a look without the lock; with places only */
    tri_places places;
    tri_queue elastic;
    tri_queue learned;     /* of the core's, for the pool: those that block, and some that waited behind them */
    bool learned_next;     /* whose turn it is, of the two */
    tri_queue async;       /* for the loop */
    tri_worker *looper;    /* who has the role LOOP */
    struct tr_loop *loop;  /* the loop it runs, once that is ready */
    _Atomic bool loop_runs; /* slices of processes that were queued: set under lock */
    tri_pauses pauses;
    uint64_t loop_serial;  /* at the last tick: the looper's */
    _Atomic(tri_worker *) workers; /* only grows */
    tri_worker *idle;
    tri_worker *active; /* with one place: who has it */
    uint32_t threads, idle_count, core_count, elastic_count, detached_count;
    uint32_t waiting_count; /* of the elastic and detached: those in an engine call that waits */
    bool searching, standby, ending;
    /* Who took the core as the standby left none behind, as nobody else waited: whoever makes somebody wait
     * sees to it. A hint: relaxed, true for longer than it should be costs one look under the lock. */
    _Atomic bool unguarded;
    bool was_busy; /* the core, at the last tick */
    uint64_t standby_until;
    uint64_t handoffs_until; /* callbacks have been blocking: until then the core is not without a standby; or 0 */
    uint64_t elastic_taken, taken_before; /* now, and at the last look */
    uint64_t stands_since; /* the last look at which the pool had taken somebody, or nobody waited for it */
    uint64_t looked_at;    /* when the tick last looked who is stuck */
    uint64_t handoffs, limit_hits;
    uint64_t blocks, taken; /* since the last look: callbacks seen to block; with one place: processes taken */
    uint64_t start_failures; /* of limit_hits: the system had no thread */
    tri_load load;         /* under lock */
    _Atomic uint32_t marked;            /* interrupts sent to callbacks that still run */
    tri_parker stopper;                 /* tr_engine_stop waits here */
    _Atomic uint64_t switch_interval;   /* the host's at present, in ns: a guess to go by */
    tri_turnstile turnstile;
} tri_scheduler;

int tri_scheduler_init(tri_scheduler *scheduler, tr_engine *engine);
void tri_scheduler_fini(tri_scheduler *scheduler);

/* Put a process that is QUEUED into its queue and see to it that somebody runs it. On a worker thread:
 * attached. */
void tri_scheduler_enqueue(tri_scheduler *scheduler, tr_process *process);

/* The calling worker, which holds a place, goes on while others wait in its queue: let another one come. */
void tri_scheduler_share(tri_scheduler *scheduler);

/* The calling worker begins a slice of `process`. */
static inline void tri_scheduler_begin(tri_worker *worker, tr_process *process) {
    /* Nobody else writes a target that is 0. Sequentially consistent, so that either whoever ends the
     * process sees its target here, or the worker, which looks next, sees that it is dead. */
    atomic_store(&worker->target, (uintptr_t)process);
}

/* The calling thread begins / ceases to run `process` itself, within a callback of `outer`. */
void tri_scheduler_enter(tr_process *process);
void tri_scheduler_leave(tr_process *process, tr_process *outer);

/* The running process is about to sleep: let another worker have the core. */
void tri_scheduler_before_wait(tr_process *self);
/* It goes on. */
void tri_scheduler_after_wait(tr_process *self);

/* The process was ended by somebody else: if a worker is inside its callback, interrupt that.
 * Under bonds.lock. */
void tri_scheduler_interrupt(tr_process *dead);
/* A step of a process that has been ended begins: interrupt it if it does not end soon. On its thread. */
void tri_scheduler_mark(tr_process *dead);
/* Again, for all that have not unwound yet. The calling thread is attached. */
void tri_scheduler_interrupt_again(tri_scheduler *scheduler);

/* Keep a worker inside the process it runs, for a few instructions, to look at what the process owns. 0
 * if it runs none, or somebody interrupts it just now. Attached, on another thread. */
uintptr_t tri_scheduler_hold(tri_worker *worker);
void tri_scheduler_unhold(tri_worker *worker, uintptr_t held);
tr_process *tri_held_process(uintptr_t held);

/* Once a millisecond while there is work, by the ticker. How it is needed again: not at all, now and
 * then because somebody is inside a callback that may begin to compute, not at once because callbacks have been
 * blocking and whoever is next has a standby from the start, or soon. */
enum { TRI_TICK_NEVER, TRI_TICK_SELDOM, TRI_TICK_GUARDED, TRI_TICK_SOON };
int tri_scheduler_tick(tri_scheduler *scheduler, uint64_t now);

/* A process was buried while the engine stops. */
void tri_scheduler_drained(tri_scheduler *scheduler);
/* Let all workers end and wait until `deadline`; how many did not. */
uint32_t tri_scheduler_end(tri_scheduler *scheduler, uint64_t deadline);

/* Around fork: all locks of the scheduler's. */
void tri_scheduler_lock(tri_scheduler *scheduler);
void tri_scheduler_unlock(tri_scheduler *scheduler);

/* A slice of a process that was taken out of a queue, on the calling worker; `since`: when it was, if it
 * is watched for blocking, else 0. worker.c */
void tri_run_slice(tri_worker *worker, tr_process *process, uint64_t since);

/* counters.c */
void tri_scheduler_counters(tri_scheduler *scheduler, tr_counters *counters);

#endif
