/* await.h: what the tasks of event loops wait for, and how the loops are told.
 *
 * A tri_await is allocated for one call or one moment. While it is under way it is found by its Ref in
 * bonds.awaits and tied by its bond to the process that waits (left) and to the callee (right; for a moment
 * to the waiting process again): the end of either completes it. A limit has a timer in the
 * ticker's wheel. Reply, end, limit and cancellation race; bonds.lock decides, under which `pending` is
 * cleared by the first of them, which also undoes the rest: map, bond, timer. What
 * is completed is pushed on the loop's stack, from where the loop's thread takes it: it then
 * belongs to the host.
 *
 * References: one for being under way, which goes to the stack and the host or is dropped by a cancel;
 * one for a timer that is in the wheel or on its way out of it.
 *
 * Loops. `signalled` is set by whoever has something for the loop and cleared by the loop before it
 * looks; who sets it writes to the descriptor. A stale pointer to a loop (a sender that found a watched
 * process) must be harmless: loops are kept for reuse, descriptor and all, and never freed
 * before the engine. */
#ifndef TRI_AWAIT_H
#define TRI_AWAIT_H

#include <stdatomic.h>

#include "bond.h"
#include "pause.h"
#include "tailrace_loop.h"
#include "timer.h"

struct tr_loop {
    tr_engine *engine;
    int fd;
    _Atomic bool signalled;
    _Atomic bool mail;                   /* a watched process got a message */
    /* Of the engine's own loop, by its thread alone: how many enters and runs it is inside, at whose
     * end it looks by itself; and whether something was left for it meanwhile. */
    uint32_t inside;
    bool behind;
    tri_pause pause;
    _Atomic(struct tri_await *) finished; /* a stack; the newest first */
    struct tr_loop *next;                /* all that are not in use; under bonds.lock */
    struct tr_loop *next_made;           /* all there are; under bonds.lock */
};

typedef struct tri_await {
    tri_bond bond;    /* first: bond.message is not used */
    tr_await public;  /* what the host gets */
    tri_timer timer;
    tr_loop *loop;
    bool pending;     /* under bonds.lock */
    bool alone;       /* a call beside which the process does nothing; constant */
    _Atomic uint32_t references;
} tri_await;

/* Under bonds.lock. The answer to `ref`, if that is an await of `caller`; false: it is not, and the term
 * stays the caller's. */
bool tri_await_answer(tr_engine *engine, tr_pid caller, tr_ref ref, tr_term term);
/* Under bonds.lock: one end of the bond died. */
void tri_await_broken(tri_bond *bond, tr_process *dead);
/* Under bonds.lock. Whom the process awaits alone, or NULL. O(bonds of the process). */
tr_process *tri_await_callee(tr_process *process);
/* The engine has stopped: complete all. */
void tri_await_stop(tr_engine *engine);
/* Free the loops. */
void tri_loops_fini(tr_engine *engine);
/* There is something for the loop: wake it. Any thread, under any lock. */
void tri_loop_signal(tr_loop *loop);
/* A watched process got a message. Any thread, under any lock. */
void tri_loop_mail(tr_loop *loop);

#endif
