/* dispatcher.h: what the core's own dispatchers are made with. What a dispatcher is, and what its
 * functions must do: tailrace_stage.h.
 *
 * A class embeds tr_dispatcher as its first member, keeps its per-subscription state in the fields of
 * tr_subscription that are the producing end's, and cuts batches with tri_batch_split.
 *
 * Threads: only the one that runs the stage; no locks. */
#ifndef TRI_DISPATCHER_H
#define TRI_DISPATCHER_H

#include "batch.h"
#include "stage.h"

static inline const tr_words *tri_dispatcher_words(const tr_dispatcher *dispatcher) {
    return &dispatcher->stage->words;
}

#endif
