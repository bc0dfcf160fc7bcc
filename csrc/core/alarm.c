/* alarm.c: see alarm.h. */
#include "alarm.h"

#include <stdlib.h>

#include "engine.h"

/* After `set` is cleared the alarm is its process's again: nothing of it is touched. */
static void ring(tri_timer *node) {
    tri_alarm *alarm = (tri_alarm *)node;
    tr_process *process = alarm->process;
    atomic_store(&alarm->set, false);
    tri_wake(process);
}

static tri_alarm *own_alarm(tr_process *self) {
    tri_alarm *alarm = atomic_load(&self->alarm);
    if (alarm != NULL) return alarm;
    alarm = calloc(1, sizeof *alarm);
    if (alarm == NULL) return NULL;
    alarm->node.fire = ring;
    alarm->process = self;
    atomic_store(&self->alarm, alarm);
    return alarm;
}

/* Under the ticker's lock. Whether the ticker must wake earlier than it meant to. */
static bool put(tri_alarm *alarm, uint64_t deadline) {
    tr_engine *engine = alarm->process->engine;
    tri_ticker *ticker = &engine->ticker;
    if (atomic_load(&alarm->set)) {
        /* Taken out by the ticker already: it rings soon, and is set again then. */
        if (!tri_wheel_remove(&ticker->wheel, &alarm->node)) return false;
    } else if (engine->options.virtual_time && deadline <= tri_clock_now(&engine->clock)) {
        return false; /* nobody would ring it: it has rung */
    }
    atomic_store(&alarm->set, true);
    return tri_ticker_add(ticker, &alarm->node, deadline);
}

int tri_alarm_set(tr_process *self, uint64_t deadline) {
    tri_ticker *ticker = &self->engine->ticker;
    tri_alarm *alarm = own_alarm(self);
    if (alarm == NULL) return TR_ENOMEM;
    if (atomic_load(&alarm->set) && alarm->node.deadline <= deadline) return TR_OK;
    pthread_mutex_lock(&ticker->lock);
    bool sooner = put(alarm, deadline);
    pthread_mutex_unlock(&ticker->lock);
    if (sooner) tri_parker_unpark(&ticker->parker);
    return TR_OK;
}

bool tri_alarm_rang(tr_process *process) {
    tri_alarm *alarm = atomic_load(&process->alarm);
    return alarm != NULL && !atomic_load(&alarm->set);
}

void tri_alarm_clear(tr_process *process) {
    tri_ticker *ticker = &process->engine->ticker;
    tri_alarm *alarm = atomic_load(&process->alarm);
    if (alarm == NULL || !atomic_load(&alarm->set)) return;
    pthread_mutex_lock(&ticker->lock);
    if (tri_wheel_remove(&ticker->wheel, &alarm->node)) atomic_store(&alarm->set, false);
    pthread_mutex_unlock(&ticker->lock);
}
