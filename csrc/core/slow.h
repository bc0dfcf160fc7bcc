/* slow.h: what the host should tell its user: callbacks that take long, and that threads run out.
 *
 * The ticker looks for both, every eighth of the limit, and never waits for the host: telling is done by the
 * reporter, a thread of its own, started when there is something to tell for the first time, asleep in
 * between. It is no worker; a host whose log is slow delays nobody.
 *
 * A callback is slow when its process is of kind TR_KIND_CORE and it neither returned nor waited in the engine
 * for as long as the limit; so is a step on the host's event loop, since all others on it wait. It is flagged once, and told once, by whoever takes the flag first: the
 * reporter, who attaches and then sees it still run, stack and all; or its own worker after it has ended,
 * because the interpreter lock was not to be had before (a native stall). The flag is the `serial` of
 * the callback, so that a flag that comes too late hits nobody else.
 *
 * How it is slow is judged by the ticker, from outside: by the CPU clock of its thread in the second half of
 * the limit, by whether it is runnable now (on a busy machine it may get no time), and by whether the standby, which
 * waits for the interpreter lock, got it.
 *
 * While the reporter takes a reference to what the process runs, it holds the worker's `target`
 * (tri_scheduler_hold), so the worker cannot leave the process, and its state stays.
 *
 * Lack of threads is told once an episode, which is over when none was refused for a second. */
#ifndef TRI_SLOW_H
#define TRI_SLOW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "parker.h"
#include "tailrace.h"

struct tri_worker;

/* Of each worker. */
typedef struct tri_suspect {
    uint64_t thread;   /* pthread_self(), set when the thread begins, then constant */
    int task;          /* the same as the system numbers it, where it tells of tasks; else 0 */
    uint64_t waits;    /* begun in the engine; under scheduler.lock */
    _Atomic bool counts;    /* it runs a process of kind TR_KIND_CORE, or the event loop: its own, relaxed */
    _Atomic uint32_t kind;  /* of the message that it handles: its own, relaxed */
    /* The ticker's: the callback it saw last, and when for the first time; when half the limit had
     * passed (0: not yet), and the thread's CPU time then. */
    uint64_t serial, seen_waits, since, half, cpu;
    uint64_t flagged_serial;
    /* The callback to be told, or 0; set by the ticker after the next two, taken by who tells. */
    _Atomic uint64_t flagged;
    _Atomic uint64_t began;
    _Atomic int how;
} tri_suspect;

typedef struct tri_slow {
    tr_engine *engine;
    uint64_t limit;       /* 0: nothing is slow */
    uint64_t step, next;  /* the ticker's: how often to look, and when again */
    uint64_t hits, hit_at; /* the ticker's: refusals seen, and when the last */
    uint64_t failures;     /* the ticker's: of these, those by the system */
    _Atomic bool by_system; /* with the next: the system gives no more */
    _Atomic bool out_of_threads; /* to be told */
    bool pending;         /* the ticker's: something is timed, or not told yet */
    bool starting;        /* the ticker's: the reporter was started */
    bool running, ending; /* under scheduler.lock */
    tri_parker parker;    /* the reporter's */
} tri_slow;

int tri_slow_init(tri_slow *slow, tr_engine *engine);
void tri_slow_fini(tri_slow *slow);

/* Each tick. Whether it is needed again. */
bool tri_slow_tick(tri_slow *slow, uint64_t now);

/* A worker's thread begins. */
void tri_slow_begin(struct tri_worker *worker);
/* Whether its thread runs or would like to. Any thread; asks the system, so for rare use. */
bool tri_slow_is_runnable(const tri_suspect *suspect);
/* It begins a slice: before its serial says so. */
static inline void tri_slow_slice(tri_suspect *suspect, const tr_process *process, bool on_loop) {
    bool counts = on_loop || tr_process_kind(process) == TR_KIND_CORE;
    atomic_store_explicit(&suspect->counts, counts, memory_order_relaxed);
    atomic_store_explicit(&suspect->kind, TR_SLOW_FUNCTION, memory_order_relaxed);
}
/* Its slice is over and it was flagged meanwhile; attached, the process is not released yet. */
void tri_slow_ended(struct tri_worker *worker, tr_process *process);

/* End the reporter, after the ticker. How many threads (0 or 1) did not end until `deadline`. */
uint32_t tri_slow_end(tri_slow *slow, uint64_t deadline);

#endif
