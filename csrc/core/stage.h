/* stage.h: the state of a stage. What a stage does is said in tailrace_stage.h.
 *
 * Three files work on it: stage.c (life, output, modes), producing.c and consuming.c (the two ends of
 * a subscription). Who owns: the stage owns everything in it. Threads: only the one that runs the
 * stage's process; no locks. */
#ifndef TRI_STAGE_H
#define TRI_STAGE_H

#include "buffer.h"
#include "subscription.h"
#include "tailrace_stage.h"

struct tr_stage {
    const tr_stage_ops *ops;
    tr_words words; /* words.host is also the first argument of `ops` */
    tr_stage_type type;
    bool accumulating;
    bool busy;               /* inside an input */
    tr_reason *stop;         /* owned; not NULL once the stage has to end */
    tr_dispatcher *dispatcher;
    tri_subscriptions subscriptions;
    tri_buffer buffer;
    tri_ring waiting;        /* input of a ProducerConsumer, or what accumulate mode holds back */
    uint64_t waiting_events; /* in `waiting` */
};

/* A stage inside another object; it must not move. As tr_stage_new and tr_stage_free. */
int tri_stage_init(tr_stage *stage, const tr_stage_options *options, const tr_stage_ops *ops,
                   const tr_words *words);
void tri_stage_fini(tr_stage *stage);

#endif
