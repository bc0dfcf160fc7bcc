/* armed.h: threads that call us from their bytecode. See armed.c. All of it attached. */
#ifndef TR_PYTHON_ARMED_H
#define TR_PYTHON_ARMED_H

#include "state.h"

typedef struct tr_arms tr_arms;

enum {
    TR_ARMED_TO_PASS, /* the turnstile, at the next instruction, once */
    TR_ARMED_TO_END   /* by Killed, soon, in a function that the thread is in now (tr_may_end_at) */
};

/* Arm it; anew, if it is armed already. False if that cannot be: it is armed for the other thing, or something
 * failed. Both may run audit hooks. */
bool tr_arm(tr_state *state, PyThreadState *thread, int what);
void tr_disarm(tr_state *state, PyThreadState *thread, int what);

/* In the child of a fork: nobody is armed any more. */
void tr_arms_forked(tr_state *state);

int tr_arms_init(tr_state *state);
int tr_arms_traverse(tr_arms *arms, visitproc visit, void *arg);
void tr_arms_clear(tr_arms *arms);

#endif
