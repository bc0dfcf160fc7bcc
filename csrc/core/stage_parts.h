/* stage_parts.h: what stage.c, producing.c and consuming.c share: the two ends of a subscription are
 * files of their own over one struct tr_stage. Internal to these three. */
#ifndef TRI_STAGE_PARTS_H
#define TRI_STAGE_PARTS_H

#include "stage.h"

/* Around each input. False: the input is ignored or refused, and tri_stage_refused is its result. */
static inline bool tri_stage_enter(tr_stage *stage) {
    if (stage->busy || stage->stop) return false;
    return stage->busy = true;
}

static inline int tri_stage_refused(const tr_stage *stage) {
    return stage->busy ? TR_EINVAL : TR_OK;
}

static inline int tri_stage_leave(tr_stage *stage, int error) {
    stage->busy = false;
    return error;
}

/* The result of an effect on a peer that may be dead: its Down tells, not this. */
static inline int tri_sent(int error) { return error == TR_EDEAD ? TR_OK : error; }

static inline void *tri_stage_host(const tr_stage *stage) { return stage->words.host; }

/* ---- stage.c -------------------------------------------------------------------------------------*/

/* Give events to the dispatcher, and what it has no place for to the buffer. Takes the batch over. */
int tri_stage_emit(tr_stage *stage, tr_batch batch);
/* Emit what a callback answered and take its wish to stop; `error` is what it returned. */
int tri_stage_answer(tr_stage *stage, tr_outcome *outcome, int error);
/* Serve demand: from the buffer, then from handle_demand or the waiting input. */
int tri_stage_serve(tr_stage *stage);
/* An ordered message has reached the output. Takes it over. */
int tri_stage_output_info(tr_stage *stage, tr_term message);
/* End with one of the stage's own reasons what `peer` wanted, by the effect `tell`. */
int tri_stage_reject(tr_stage *stage,
                     int (*tell)(void *host, tr_pid peer, tr_ref tag, tr_reason *reason),
                     tr_pid peer, tr_ref tag, tr_stage_reason which);

/* A watched, entered subscription with one reference, the table's; NULL with *error set. */
tr_subscription *tri_stage_add(tr_stage *stage, int role, tr_pid peer, tr_ref tag, int *error);
/* Take it out of the table, and stop watching unless the peer has ended; the table's reference is
 * the caller's now. */
void tri_stage_remove(tr_stage *stage, tr_subscription *subscription, int how);
void tri_stage_unref(tr_stage *stage, tr_subscription *subscription);
/* The live subscription with this tag if its peer has that role, else NULL. */
tr_subscription *tri_stage_with_role(const tr_stage *stage, tr_ref tag, int role);

int tri_stage_wait(tr_stage *stage, const tri_item *item);
tri_item tri_stage_next_waiting(tr_stage *stage);
void tri_stage_release_item(tr_stage *stage, tri_item *item);

/* ---- producing.c ---------------------------------------------------------------------------------*/

/* Run handle_demand and emit its answer. */
int tri_stage_produce(tr_stage *stage, uint64_t count);
/* The subscription of a consumer has ended. */
int tri_stage_end_consumer(tr_stage *stage, tr_subscription *subscription, int how,
                           tr_reason *reason);

/* ---- consuming.c ---------------------------------------------------------------------------------*/

/* ProducerConsumer: process waiting input while downstream wants events (S113). */
int tri_stage_run_input(tr_stage *stage);
/* The subscription to a producer has ended. */
int tri_stage_end_producer(tr_stage *stage, tr_subscription *subscription, int how,
                           tr_reason *reason);

#endif
