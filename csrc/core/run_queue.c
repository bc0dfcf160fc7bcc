/* run_queue.c: see run_queue.h. */
#include "run_queue.h"

static int pick_rank(tri_run_queue *queue) {
    static const int by_rank[] = {TR_PRIORITY_MAX, TR_PRIORITY_HIGH, TR_PRIORITY_NORMAL,
                                  TR_PRIORITY_LOW};
    tri_queue *ranks = queue->ranks;
    uint32_t turn = ++queue->turn;
    if (turn % 64 == 0) { /* whoever would starve: the lowest that waits, in rotation */
        for (int i = 0; i < TRI_PRIORITIES; i++) {
            int rank = (int)((turn / 64 + (uint32_t)i) % TRI_PRIORITIES);
            if (ranks[rank].head != NULL) return rank;
        }
    }
    if (ranks[TR_PRIORITY_MAX].head == NULL && ranks[TR_PRIORITY_HIGH].head == NULL &&
        turn % 8 == 0 && ranks[TR_PRIORITY_LOW].head != NULL)
        return TR_PRIORITY_LOW;
    for (int i = 0; i < TRI_PRIORITIES; i++)
        if (ranks[by_rank[i]].head != NULL) return by_rank[i];
    return -1;
}

tr_process *tri_run_queue_take(tri_run_queue *queue) {
    if (queue->length == 0) return NULL;
    queue->length--;
    return tri_queue_pop(&queue->ranks[pick_rank(queue)]);
}

uint64_t tri_run_queue_move(tri_run_queue *queue, uint64_t most, tri_queue *to) {
    uint64_t moved = 0;
    for (int rank = TR_PRIORITY_NORMAL; rank >= TR_PRIORITY_LOW; rank--)
        for (; moved < most && queue->ranks[rank].head != NULL; moved++)
            tri_queue_push(to, tri_queue_pop(&queue->ranks[rank]));
    queue->length -= moved;
    return moved;
}
