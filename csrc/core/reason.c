/* reason.c: exit reasons.
 *
 * A reason is immutable and shared by everybody who hears of one death, so it is counted, here rather
 * than by the host: a death is announced from threads that may not touch the host's objects. The
 * constants are static and never counted. Any thread may retain and release. */
#include <stdatomic.h>
#include <stdlib.h>

#include "engine.h"

struct tr_reason {
    int kind;
    _Atomic uint32_t references; /* acquire-release on the way to zero, so that the last sees all */
    tr_engine *engine;
    tr_term term;
};

tr_reason *tr_reason_constant(int kind) {
    static tr_reason constants[] = {
        {.kind = TR_NORMAL}, {.kind = TR_SHUTDOWN}, {.kind = TR_KILL},
        {.kind = TR_KILLED}, {.kind = TR_NOPROC},   {.kind = TR_TIMEOUT},
    };
    return &constants[kind >= TR_NORMAL && kind <= TR_TIMEOUT ? kind : TR_KILLED];
}

tr_reason *tr_reason_new(tr_engine *engine, int kind, tr_term term) {
    tr_reason *reason = malloc(sizeof *reason);
    if (reason == NULL) {
        tri_release_term(engine, term);
        return NULL;
    }
    reason->kind = kind;
    atomic_init(&reason->references, 1);
    reason->engine = engine;
    reason->term = term;
    return reason;
}

static bool is_constant(const tr_reason *reason) { return reason->kind <= TR_TIMEOUT; }

tr_reason *tr_reason_retain(tr_reason *reason) {
    if (reason != NULL && !is_constant(reason))
        atomic_fetch_add_explicit(&reason->references, 1, memory_order_relaxed);
    return reason;
}

void tr_reason_release(tr_reason *reason) {
    if (reason == NULL || is_constant(reason)) return;
    if (atomic_fetch_sub_explicit(&reason->references, 1, memory_order_acq_rel) != 1) return;
    tri_release_term(reason->engine, reason->term);
    free(reason);
}

int tr_reason_kind(const tr_reason *reason) { return reason->kind; }
tr_term tr_reason_term(const tr_reason *reason) { return reason->term; }

bool tr_reason_is_clean(const tr_reason *reason) {
    return reason->kind == TR_NORMAL || reason->kind == TR_SHUTDOWN ||
           reason->kind == TR_SHUTDOWN_WITH;
}
