/* engine.h: the engine object, which owns everything.
 *
 * There is no state outside it but one thread-local pointer (thread.h). The engine is made by the host,
 * used by any thread, stopped once, and freed when the last of its threads has let go of it: worker
 * threads that could not be stopped keep it alive for ever.
 *
 * Lock order, outermost first; a thread that holds one may only take a later one:
 *   1. bonds.lock      links, monitors, names, ends of processes, the free list of slots
 *   2. scheduler.lock  run queues, workers and their roles
 *   3. a place's lock  its run queue (place.h); one place at a time
 *   4. ticker.lock     the timer wheel
 * None is held while the host runs code; a parker may be unparked under any of them. */
#ifndef TRI_ENGINE_H
#define TRI_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bond.h"
#include "clock.h"
#include "process.h"
#include "scheduler.h"
#include "tailrace.h"
#include "ticker.h"

struct tr_engine {
    tr_host host;
    tr_options options;
    uint64_t id;
    tri_clock clock;
    _Atomic uint32_t references; /* the owner, and each foreign thread that has a process here */
    _Atomic bool stopping;       /* all were asked to end: only they start processes; set once */
    _Atomic bool closed;         /* no new process, no new timer; set once, after `stopping` */
    pthread_mutex_t stop_lock;   /* who stops; never taken while another lock is held */
    _Atomic bool forked;         /* this is the child's copy: nothing of it may be used */
    _Atomic uint64_t last_ref;
    tri_table table;
    tri_bonds bonds;
    tri_scheduler scheduler;
    tri_ticker ticker;
    tri_slow slow;
};

static inline void tri_release_term(tr_engine *engine, tr_term term) {
    if (term != NULL && engine->host.release != NULL)
        engine->host.release(engine->host.context, term);
}

/* The memory goes with the last reference. */
void tri_engine_retain(tr_engine *engine);
void tri_engine_release(tr_engine *engine);

#endif
