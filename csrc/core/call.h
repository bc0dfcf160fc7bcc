/* call.h: a request and its one answer.
 *
 * The answer does not travel through the mailbox, so it is found without looking at other messages and a
 * late one is dropped before it gets there. Each process that ever called has one tri_call, kept
 * for the next process in its slot. `ticket` holds the Ref of the call in progress and how far it is:
 *
 *   0 -> (ref, WAITING) -> (ref, FILLING) -> (ref, DONE) -> 0       one who answers won WAITING -> FILLING
 *                       -> 0                                       the caller gave up
 *
 * Winning the step to FILLING gives the right to write `reply` or `reason`; DONE publishes them. All
 * steps are sequentially consistent, because they also take part in the sleep protocol of process.h.
 * Giving up and answering race for the one step away from WAITING: who gives up too late finds the answer.
 * A caller that is buried gives up, waits for an answer that is being filled in and releases it.
 * The bond tells the callee's end; it is touched under bonds.lock only.
 *
 * Who waits may be made to call once more before it goes on waiting: a handler of a signal does. That call has a
 * record of its own, `inner`, made when it is first needed and kept as well. In use is the innermost whose ticket
 * is not 0; answers find theirs by its Ref. */
#ifndef TRI_CALL_H
#define TRI_CALL_H

#include "bond.h"
#include "process.h"

enum { TRI_CALL_WAITING = 1, TRI_CALL_FILLING = 2, TRI_CALL_DONE = 3 };

typedef struct tri_call {
    tri_bond bond;
    _Atomic uint64_t ticket;
    tr_term reply;
    tr_reason *reason;
    _Atomic(struct tri_call *) inner; /* written by the process itself */
} tri_call;

/* Under bonds.lock. Whether waiting for `callee` would close a cycle; its pids, beginning with the caller's. */
bool tri_call_closes_cycle(tr_process *self, tr_process *callee, tr_call_options *options);

#endif
