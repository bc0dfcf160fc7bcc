/* ledger.h: what a pipeline counts.
 *
 * Ledger   what became of its messages, and whether it has been halted; one for all its workers.
 * Held     how many messages one worker has in hand; a new one for each worker that is started, so
 *          that what a killed one held counts no more.
 *
 * All fields are atomic and independent of each other, so any thread may use them without a lock; they are
 * written once per chunk, not per message. */
#ifndef TR_PYTHON_LEDGER_H
#define TR_PYTHON_LEDGER_H

#include "message.h"

#include <stdatomic.h>

enum { LEDGER_SUCCESSFUL, LEDGER_FAILED, LEDGER_RETRIED, LEDGER_DEAD, LEDGER_COUNTERS };

typedef struct ledger {
    PyObject_HEAD
    _Atomic unsigned long long counters[LEDGER_COUNTERS];
    _Atomic bool halted;
} ledger;

typedef struct held {
    PyObject_HEAD
    _Atomic long long number;
} held;

static inline void tr_ledger_count(ledger *self, int counter, Py_ssize_t number) {
    if (number > 0)
        atomic_fetch_add_explicit(&self->counters[counter], (unsigned long long)number,
                                  memory_order_relaxed);
}

static inline void tr_held_add(held *self, Py_ssize_t number) {
    atomic_fetch_add_explicit(&self->number, number, memory_order_relaxed);
}

#endif
