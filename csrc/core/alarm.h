/* alarm.h: the time limit of a process that is stepped.
 *
 * A process that waits with a limit has an alarm in the ticker's wheel, which wakes it. A limit is seldom
 * reached, and the next wait mostly has a later one: so the alarm is left where it is when a wait ends,
 * and set anew only when it rings too early, or would ring too late. Most waits cost it no lock.
 *
 * Each process that ever waited so has one tri_alarm, kept for the next process in its slot and freed with
 * the table. `set` is true from when the alarm is put into the wheel until it rings; both steps are
 * sequentially consistent, because they take part in the sleep protocol of process.h: it is cleared
 * before the process is woken, and looked at after the process went idle. Only the thread that runs
 * the process sets and clears the alarm; only the ticker rings it. It may ring for a process that does not
 * wait for it any more, or for the next one in the slot, which then looks and waits on. */
#ifndef TRI_ALARM_H
#define TRI_ALARM_H

#include <stdatomic.h>
#include <stdbool.h>

#include "process.h"
#include "timer.h"

typedef struct tri_alarm {
    tri_timer node; /* first: what the wheel links; under the ticker's lock, but for reading `deadline` */
    tr_process *process;
    _Atomic bool set;
} tri_alarm;

/* Wake the process at `deadline` or before. TR_ENOMEM. */
int tri_alarm_set(tr_process *self, uint64_t deadline);
/* Whether there is nothing to wait for: it rang. For anybody, after tri_alarm_set. */
bool tri_alarm_rang(tr_process *process);
/* The process is buried: it need not ring any more. */
void tri_alarm_clear(tr_process *process);

#endif
