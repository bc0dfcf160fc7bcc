/* bond.h: what ties processes together: links, monitors, calls in progress, names; and how they end.
 *
 * A bond has a left end (who linked, watches, or calls) and a right end (who was linked, is watched, or is
 * called) and lies in one list of each. Its first member is a message, which becomes the Exit or Down
 * when the other end dies: announcing a death needs no memory and cannot fail. Links and monitors are
 * allocated one by one; a call's bond is part of the caller's tri_call (call.c) and used again.
 *
 * Everything here is under one lock, bonds.lock: the topology changes rarely compared with messages, and
 * with one lock an exit that runs through a thousand links is one atomic step for everybody else. An end
 * is O(bonds of the process). Monitors are found by Ref in a hash map, names in another. Nothing of the
 * host's is released under the lock: what has to go is collected and freed after it. */
#ifndef TRI_BOND_H
#define TRI_BOND_H

#include <pthread.h>

#include "map.h"
#include "tailrace.h"

struct tri_call;

enum { TRI_LINK, TRI_MONITOR, TRI_CALLING, TRI_ALIAS, TRI_AWAITING };

typedef struct tri_bond {
    tr_message message; /* first: a bond that was delivered is freed as a message */
    tr_process *left, *right;
    struct tri_bond *left_next, **left_at;
    struct tri_bond *right_next, **right_at;
    uint8_t kind;
    bool tied; /* in the lists */
} tri_bond;

typedef struct tri_bonds {
    pthread_mutex_t lock;
    tri_map monitors; /* Ref -> bond */
    tri_map aliases;  /* Ref -> bond, see alias.c */
    tri_map awaits;   /* Ref -> tri_await, see await.h */
    bool awaits_ended; /* the engine has stopped: no more */
    struct tr_loop *loops, *loops_made; /* not in use; all: see await.h */
    tri_map names;    /* hash of the name -> process, see names.c */
} tri_bonds;

int tri_bonds_init(tri_bonds *bonds);
void tri_bonds_fini(tri_bonds *bonds);

/* Under the lock. */
void tri_bond_tie(tri_bond *bond, uint8_t kind, tr_process *left, tr_process *right);
void tri_bond_untie(tri_bond *bond);

/* Prepared before the lock is taken, because allocation may fail and must not happen half-way. */
tri_bond *tri_bond_new(void);

/* Link or watch a process that cannot be dead yet (spawn), under the lock. */
int tri_bond_monitor(tr_engine *engine, tri_bond *bond, tr_process *watcher, tr_process *watched);

/* Remove the monitor with this Ref, if there is one, and an alias that ends with it. */
void tri_monitor_remove(tr_engine *engine, tr_ref ref, tr_message **grave);

/* alias.c, under the lock: unhook an alias; switch off the alias of a monitor that has ended. */
void tri_alias_forget(tr_engine *engine, tri_bond *alias);
void tri_alias_demonitored(tr_engine *engine, tr_ref ref);

/* End `process`, which must not be dead, for `reason` (taken over), and whomever its links take along.
 * Under the lock; what is to be freed after it is linked to *grave. */
void tri_end(tr_engine *engine, tr_process *process, tr_reason *reason, tr_message **grave);
void tri_grave_free(tr_engine *engine, tr_message *grave);

/* names.c, under the lock. `name` is taken over when TR_OK. */
tr_process *tri_names_find(tr_engine *engine, const char *name);
int tri_names_add(tr_engine *engine, char *name, tr_process *process);
void tri_names_remove(tr_engine *engine, tr_process *process);

/* call.c, under the lock: the callee of this call ended. */
void tri_call_broken(tri_bond *bond, tr_reason *reason);
/* call.c: whom the process waits for in a call, or NULL. Under the lock. */
tr_process *tri_call_callee(tr_process *process);
/* call.c: the caller is buried: no answer any more, and what came is released. */
void tri_call_drop(tr_process *process);
/* call.c: release a record and an answer nobody took. */
void tri_call_free(tr_engine *engine, struct tri_call *call);

#endif
