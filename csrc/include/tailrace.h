/* tailrace.h: the public C API of the engine.
 *
 * The engine runs lightweight processes that own a mailbox each, may be linked and watched, and are
 * run by a few threads. It knows nothing of the language its callbacks are written in: a message is
 * an opaque word (tr_term) that the host can release, a callback is a function pointer with a
 * context. Plain C types and opaque handles only, so that a foreign function interface can read
 * this file as it stands.
 *
 * Conventions. Functions return TR_OK (0) or a negative TR_E code. Times are nanoseconds of
 * CLOCK_MONOTONIC; TR_FOREVER is no limit. Unless a paragraph says otherwise a function may be
 * called from any thread, never blocks, and never calls the host while it holds a lock. */
#ifndef TAILRACE_H
#define TAILRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t tr_pid; /* a process: slot below, generation above; 0 is none; never used twice */
typedef uint64_t tr_ref; /* unique within an engine; 0 is none */
typedef void *tr_term;   /* a word of the host's; the engine holds one reference to each it keeps */

enum {
    TR_OK = 0,
    TR_ENOMEM = -1,     /* out of memory; nothing has changed */
    TR_EDEAD = -2,      /* no such process runs */
    TR_EINVAL = -3,     /* an argument is out of range */
    TR_ENAME = -4,      /* the name is taken, or the process has one already */
    TR_ELIMIT = -5,     /* the configured number of processes or threads is reached */
    TR_ETIMEDOUT = -6,  /* the limit passed */
    TR_ESTOPPED = -7,   /* the engine is stopping or stopped */
    TR_EKILLED = -8,    /* the calling process is dead; it must unwind */
    TR_EINTR = -9,      /* a signal arrived while waiting */
    TR_EDEADLOCK = -10, /* waiting would close a cycle of processes that wait for each other */
    TR_EEXISTS = -11,   /* already there */
    TR_ESELF = -12      /* a process cannot do this to itself */
};

#endif
