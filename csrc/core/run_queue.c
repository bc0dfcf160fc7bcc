/* run_queue.c: see run_queue.h. */
#include "run_queue.h"

enum { PASSED_OVER = 64 / 3 }; /* turns from one of theirs to the next */

/* One of those that others pass over, in rotation: each gets one of three such turns at least; or -1. */
static int pick_passed_over(const tri_queue *ranks, uint32_t round) {
    static const int first[] = {TR_PRIORITY_LOW, TR_PRIORITY_NORMAL, TR_PRIORITY_HIGH};
    int rank = first[round % 3];
    if (rank == TR_PRIORITY_HIGH && ranks[TR_PRIORITY_MAX].head == NULL) rank = TR_PRIORITY_NORMAL;
    if (ranks[rank].head != NULL) return rank;
    if (ranks[TR_PRIORITY_NORMAL].head != NULL) return TR_PRIORITY_NORMAL;
    return ranks[TR_PRIORITY_LOW].head != NULL ? TR_PRIORITY_LOW : -1;
}

static int pick_rank(tri_run_queue *queue) {
    static const int by_rank[] = {TR_PRIORITY_MAX, TR_PRIORITY_HIGH, TR_PRIORITY_NORMAL,
                                  TR_PRIORITY_LOW};
    tri_queue *ranks = queue->ranks;
    uint32_t turn = ++queue->turn;
    bool urgent = ranks[TR_PRIORITY_MAX].head != NULL || ranks[TR_PRIORITY_HIGH].head != NULL;
    int rank = urgent && turn % PASSED_OVER == 0 ? pick_passed_over(ranks, turn / PASSED_OVER) : -1;
    if (rank >= 0) return rank;
    if (!urgent && turn % 8 == 0 && ranks[TR_PRIORITY_LOW].head != NULL) return TR_PRIORITY_LOW;
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
