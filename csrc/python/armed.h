/* armed.h: threads that call us from their bytecode. See armed.c. All of it attached. */
#ifndef TR_PYTHON_ARMED_H
#define TR_PYTHON_ARMED_H

#include "state.h"

typedef struct tr_arms tr_arms;

enum {
    TR_ARMED_TO_PASS, /* the turnstile, at the next instruction, once */
    TR_ARMED_TO_END   /* by Killed, soon, in a function that the thread is in now (tr_text_may_end) */
};

/* Take a tool id of sys.monitoring, for good; where nobody has one to give, nothing is ever armed. Runs audit hooks. */
void tr_arms_prepare(tr_state *state);

/* Arm it; anew, if it is armed already, which may run code of the program's, as disarming may: a place may go with
 * it. False if that cannot be: it is to pass and armed to end already, or something failed. */
bool tr_arm(tr_state *state, PyThreadState *thread, int what);
void tr_disarm(tr_state *state, PyThreadState *thread, int what);
bool tr_is_armed(tr_state *state, PyThreadState *thread);

/* In the child of a fork: nobody is armed any more. */
void tr_arms_forked(tr_state *state);

int tr_arms_init(tr_state *state);
int tr_arms_traverse(tr_arms *arms, visitproc visit, void *arg);
void tr_arms_clear(tr_arms *arms);

#endif
