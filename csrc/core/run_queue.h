/* run_queue.h: processes that wait for a worker, first in, first out; and such queues by priority.
 *
 * No locks in here: a queue belongs to whoever owns the structure it lies in, who says so there. A process
 * is linked by `next`, so it is in one queue at most. Nothing here allocates or fails. */
#ifndef TRI_RUN_QUEUE_H
#define TRI_RUN_QUEUE_H

#include <stdint.h>

#include "process.h"

enum { TRI_PRIORITIES = 4 };

typedef struct tri_queue {
    tr_process *head, *tail;
    uint64_t count;
} tri_queue;

static inline void tri_queue_push(tri_queue *queue, tr_process *process) {
    process->next = NULL;
    if (queue->tail != NULL)
        queue->tail->next = process;
    else
        queue->head = process;
    queue->tail = process;
    queue->count++;
}

/* The oldest; the queue is not empty. */
static inline tr_process *tri_queue_pop(tri_queue *queue) {
    tr_process *process = queue->head;
    queue->head = process->next;
    if (queue->head == NULL) queue->tail = NULL;
    queue->count--;
    return process;
}

typedef struct tri_run_queue {
    tri_queue ranks[TRI_PRIORITIES];
    uint64_t length; /* of all ranks */
    uint32_t turn;   /* grows with each process taken */
} tri_run_queue;

static inline void tri_run_queue_push(tri_run_queue *queue, tr_process *process) {
    tri_queue_push(&queue->ranks[process->priority], process);
    queue->length++;
}

/* Whose turn it is; NULL when the queue is empty. Max before high before the rest, but one turn in 21 for those that
 * are passed over: each priority gets at least one in 64. Of the rest alone, one turn in eight goes to low. */
tr_process *tri_run_queue_take(tri_run_queue *queue);

/* Move up to `most` normal and low processes to `to`, normal ones first, the oldest of each first. How many. */
uint64_t tri_run_queue_move(tri_run_queue *queue, uint64_t most, tri_queue *to);

#endif
