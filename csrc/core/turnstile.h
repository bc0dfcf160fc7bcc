/* turnstile.h: threads that compute take turns at the interpreter lock.
 *
 * A callback that computes without end lost the core to another worker (DETACHED), or runs on the elastic
 * pool; but its thread still asks for the interpreter lock, and ten such threads would each hold it
 * for a switch interval between two slices of the core. So they pass a turnstile, one at a time.
 *
 * A spinner is found by its thread's CPU clock: the ticker looks, without the interpreter lock, at
 * threads inside a callback, and one that used more than a turn is WANTED. The core's worker ARMs it
 * between two slices (the host makes the thread's next instruction call tr_turnstile_arrive), which
 * needs the interpreter lock and nothing else. The armed thread disarms itself, gives the lock away, and is
 * PARKED, first in, first out. One is admitted when the core is idle, or else TRI_PAUSE after the last one
 * arrived. It is armed again when it used its turn and somebody wants the lock. While there are
 * spinners the host's switch interval is short, and back to what it was TRI_QUIET after the last one.
 *
 * What is never in the way: an admitted thread whose CPU clock stands still (it blocks now) gives its turn
 * up; a killed one is admitted at once, and again with every repeated interrupt, so that it can unwind; at the
 * end of a callback its thread leaves the turnstile; a thread in C code that never comes to an instruction
 * stays armed and is no worse off than without a turnstile; at the engine's end it is open.
 *
 * Only with hand-off, and a host that can arm. All fields are under scheduler.lock but where said. */
#ifndef TRI_TURNSTILE_H
#define TRI_TURNSTILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tailrace.h"

struct tri_scheduler;
struct tri_worker;

#define TRI_TURN UINT64_C(1000000)         /* CPU time of a turn, in ns, and the short switch interval */
#define TRI_LONG_TURN UINT64_C(5000000)    /* the same while the core is idle */
#define TRI_PAUSE UINT64_C(2000000)        /* of the core's, between two spinners */
#define TRI_QUIET UINT64_C(100000000)

enum { TRI_GATE_FREE, TRI_GATE_WANTED, TRI_GATE_ARMED, TRI_GATE_PARKED, TRI_GATE_ADMITTED };

typedef struct tri_turnstile {
    struct tri_worker *wanted;        /* to be armed */
    struct tri_worker *head, *tail;   /* parked, in order of arrival */
    struct tri_worker *admitted;      /* whose turn it is; WANTED or ARMED when the turn is over */
    uint64_t admitted_at;             /* or armed, at the end of its turn */
    uint64_t closed_until;            /* for a busy core */
    uint64_t last_seen;               /* when there was a spinner last */
    uint64_t arrivals;
    uint32_t first_looked;            /* where the ticker's look goes on */
    bool short_interval;              /* the host's switch interval is TRI_TURN */
    bool open;                        /* nobody is stopped any more */
    _Atomic bool duty;                /* the core's worker has to arm somebody or to set the interval;
                                         set under the lock, read without as a hint */
} tri_turnstile;

/* Under scheduler.lock. */

/* Once a millisecond: look for spinners, admit. Whether there are any. */
bool tri_turnstile_tick(struct tri_scheduler *scheduler, uint64_t now);
/* This worker computes too long. */
void tri_turnstile_want(struct tri_scheduler *scheduler, struct tri_worker *worker);
/* The core is about to run: if the admitted one used its turn, the core comes first now. */
void tri_turnstile_core_begins(struct tri_scheduler *scheduler);
void tri_turnstile_core_idle(struct tri_scheduler *scheduler, uint64_t now);
/* Let everybody pass from now on. */
void tri_turnstile_open(struct tri_scheduler *scheduler);

/* Without it. */

/* Do what `duty` asks for: the core's worker, attached, between two slices. */
void tri_turnstile_serve(struct tri_scheduler *scheduler);
/* The worker's callback is over. On its own thread, attached. */
void tri_turnstile_leave(struct tri_scheduler *scheduler, struct tri_worker *worker);
/* It was killed: let it unwind. */
void tri_turnstile_release(struct tri_scheduler *scheduler, struct tri_worker *worker);

#endif
