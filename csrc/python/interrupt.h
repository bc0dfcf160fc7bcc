/* interrupt.h: the host functions that make the code of a killed process unwind. See interrupt.c. */
#ifndef TR_PYTHON_INTERRUPT_H
#define TR_PYTHON_INTERRUPT_H

#include "state.h"

/* As tr_host.interrupt and tr_host.interrupt_clear; `context` is the tr_state, `thread` a thread state. */
int tr_host_interrupt(void *context, void *thread, int how);
void tr_host_interrupt_clear(void *context, void *thread);

extern PyMethodDef tr_interrupt_functions[];

#endif
