/* parker.h: one thread sleeps, another wakes it.
 *
 * A parker belongs to one thread, which alone may park. Anybody may unpark; at most one token is kept,
 * so an unpark that comes first makes the next park return at once. One 32-bit word: 0 empty,
 * 1 a token is there, 2 the owner sleeps. unpark releases, park acquires: what the waker wrote before is
 * seen by the woken. On Linux a futex, because a futex wait ends with EINTR when a signal handler ran
 * (a condition variable's does not), which is what makes Ctrl-C prompt; elsewhere mutex and condition. */
#ifndef TRI_PARKER_H
#define TRI_PARKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct tri_parker {
    _Atomic uint32_t word;
#ifndef __linux__
    pthread_mutex_t mutex;
    pthread_cond_t wake;
#endif
} tri_parker;

int tri_parker_init(tri_parker *parker);
void tri_parker_fini(tri_parker *parker);

/* Sleep until a token is there and take it. `deadline` is nanoseconds of CLOCK_MONOTONIC or
 * TR_FOREVER. TR_OK, TR_ETIMEDOUT, or TR_EINTR when a signal handler ran. */
int tri_parker_park(tri_parker *parker, uint64_t deadline);

/* Leave a token. Never blocks. */
void tri_parker_unpark(tri_parker *parker);

#endif
