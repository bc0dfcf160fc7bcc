/* turnstile.h: the binding's part of the turnstile (turnstile.c): host functions, and its state. */
#ifndef TR_PYTHON_TURNSTILE_H
#define TR_PYTHON_TURNSTILE_H

#include "state.h"

typedef struct tr_turnstile_state tr_turnstile_state;

/* The armed thread's own: wait for its turn, if it has to. */
void tr_turnstile_pass(tr_state *state);

/* See tr_host. */
bool tr_turnstile_arm(void *context, void *thread);
void tr_turnstile_disarm(void *context, void *thread);
uint64_t tr_turnstile_interval(void *context, uint64_t nanoseconds);

int tr_turnstile_init(tr_state *state);
int tr_turnstile_traverse(tr_turnstile_state *turnstile, visitproc visit, void *arg);
void tr_turnstile_clear(tr_turnstile_state *turnstile);

#endif
