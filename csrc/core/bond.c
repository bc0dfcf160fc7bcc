/* bond.c: see bond.h. */
#include "bond.h"

#include <stdlib.h>

#include "await.h"
#include "engine.h"

int tri_bonds_init(tri_bonds *bonds) {
    tri_map_init(&bonds->monitors);
    tri_map_init(&bonds->aliases);
    tri_map_init(&bonds->awaits);
    bonds->awaits_ended = false;
    bonds->loops = bonds->loops_made = NULL;
    tri_map_init(&bonds->names);
    return pthread_mutex_init(&bonds->lock, NULL) == 0 ? TR_OK : TR_ENOMEM;
}

void tri_bonds_fini(tri_bonds *bonds) {
    tri_map_fini(&bonds->monitors);
    tri_map_fini(&bonds->aliases);
    tri_map_fini(&bonds->awaits);
    tri_map_fini(&bonds->names);
    pthread_mutex_destroy(&bonds->lock);
}

tri_bond *tri_bond_new(void) { return calloc(1, sizeof(tri_bond)); }

void tri_bond_tie(tri_bond *bond, uint8_t kind, tr_process *left, tr_process *right) {
    bond->kind = kind;
    bond->tied = true;
    bond->left = left;
    bond->right = right;
    bond->left_next = left->left;
    bond->left_at = &left->left;
    if (left->left != NULL) left->left->left_at = &bond->left_next;
    left->left = bond;
    bond->right_next = right->right;
    bond->right_at = &right->right;
    if (right->right != NULL) right->right->right_at = &bond->right_next;
    right->right = bond;
}

void tri_bond_untie(tri_bond *bond) {
    bond->tied = false;
    *bond->left_at = bond->left_next;
    if (bond->left_next != NULL) bond->left_next->left_at = bond->left_at;
    *bond->right_at = bond->right_next;
    if (bond->right_next != NULL) bond->right_next->right_at = bond->right_at;
}

static void bury_bond(tri_bond *bond, tr_message **grave) {
    bond->message.next = *grave;
    *grave = &bond->message;
}

void tri_grave_free(tr_engine *engine, tr_message *grave) {
    while (grave != NULL) {
        tr_message *next = grave->next;
        tr_message_free(engine, grave);
        grave = next;
    }
}

/* ---- Ends ---------------------------------------------------------------------------------------*/

/* Turn an untied bond into the message that tells `to` of an end, and deliver it. */
static void announce(tri_bond *bond, uint32_t kind, tr_process *to, tr_process *dead,
                     tr_message **grave) {
    bond->message.kind = kind;
    bond->message.from = tr_process_pid(dead);
    bond->message.reason = tr_reason_retain(dead->reason);
    tri_deliver(to, &bond->message, grave);
}

/* Mark one process dead and put it on the list of corpses whose bonds are still to be seen to. */
static void mark_dead(tr_process *process, tr_reason *reason, tr_process **corpses) {
    process->reason = reason;
    tri_mark_dead(process);
    process->dead_next = *corpses;
    *corpses = process;
}

static void break_link(tri_bond *bond, tr_process *dead, tr_process **corpses,
                       tr_message **grave) {
    tr_process *peer = bond->left == dead ? bond->right : bond->left;
    tri_bond_untie(bond);
    if (atomic_load(&peer->flags) & TRI_TRAP) {
        announce(bond, TR_MESSAGE_EXIT, peer, dead, grave);
        return;
    }
    bury_bond(bond, grave);
    if (tr_reason_kind(dead->reason) != TR_NORMAL && !tri_is_dead(peer))
        mark_dead(peer, tr_reason_retain(dead->reason), corpses);
}

static void forget_monitor(tr_engine *engine, tri_bond *bond) {
    tri_map *monitors = &engine->bonds.monitors;
    tri_map_remove(monitors, tri_map_first(monitors, bond->message.ref));
    tri_bond_untie(bond);
    tri_alias_demonitored(engine, bond->message.ref);
}

void tri_monitor_remove(tr_engine *engine, tr_ref ref, tr_message **grave) {
    tri_entry *entry = tri_map_first(&engine->bonds.monitors, ref);
    if (entry == NULL) {
        tri_alias_demonitored(engine, ref);
        return;
    }
    tri_bond *bond = entry->value;
    forget_monitor(engine, bond);
    bury_bond(bond, grave);
}

/* What the dead process itself linked, watched or called. */
static void break_left(tr_engine *engine, tr_process *dead, tr_process **corpses,
                       tr_message **grave) {
    while (dead->left != NULL) {
        tri_bond *bond = dead->left;
        if (bond->kind == TRI_LINK) {
            break_link(bond, dead, corpses, grave);
        } else if (bond->kind == TRI_MONITOR) {
            forget_monitor(engine, bond);
            bury_bond(bond, grave);
        } else if (bond->kind == TRI_ALIAS) {
            tri_alias_forget(engine, bond);
            bury_bond(bond, grave);
        } else if (bond->kind == TRI_AWAITING) {
            tri_await_broken(bond, dead);
        } else {
            tri_bond_untie(bond);
        }
    }
}

/* Who linked, watches or calls the dead process. */
static void break_right(tr_engine *engine, tr_process *dead, tr_process **corpses,
                        tr_message **grave) {
    while (dead->right != NULL) {
        tri_bond *bond = dead->right;
        if (bond->kind == TRI_LINK) {
            break_link(bond, dead, corpses, grave);
        } else if (bond->kind == TRI_MONITOR) {
            tr_process *watcher = bond->left;
            forget_monitor(engine, bond);
            announce(bond, TR_MESSAGE_DOWN, watcher, dead, grave);
        } else if (bond->kind == TRI_AWAITING) {
            tri_await_broken(bond, dead);
        } else {
            tri_call_broken(bond, dead->reason);
        }
    }
}

void tri_end(tr_engine *engine, tr_process *process, tr_reason *reason, tr_message **grave) {
    tr_process *corpses = NULL;
    mark_dead(process, reason, &corpses);
    while (corpses != NULL) {
        tr_process *dead = corpses;
        corpses = dead->dead_next;
        tri_names_remove(engine, dead);
        break_left(engine, dead, &corpses, grave);
        break_right(engine, dead, &corpses, grave);
        tri_scheduler_interrupt(dead);
        tri_wake(dead); /* somebody must bury it */
    }
}

/* ---- Links --------------------------------------------------------------------------------------*/

/* The link between two processes, searching both sides in step: O(the smaller number of bonds). */
static tri_bond *find_link(tr_process *one, tr_process *other) {
    tri_bond *a = one->left, *b = one->right, *c = other->left, *d = other->right;
    for (;;) {
        if (a == NULL && b == NULL) return NULL;
        if (c == NULL && d == NULL) return NULL;
        if (a != NULL && a->kind == TRI_LINK && a->right == other) return a;
        if (b != NULL && b->kind == TRI_LINK && b->left == other) return b;
        if (c != NULL && c->kind == TRI_LINK && c->right == one) return c;
        if (d != NULL && d->kind == TRI_LINK && d->left == one) return d;
        if (a != NULL) a = a->left_next;
        if (b != NULL) b = b->right_next;
        if (c != NULL) c = c->left_next;
        if (d != NULL) d = d->right_next;
    }
}

static int link_locked(tr_process *self, tr_pid pid, tri_bond **bond) {
    tr_process *peer = tri_peek(self->engine, pid);
    if (tri_is_dead(self)) return TR_EKILLED;
    if (peer == self) return TR_OK;
    if (peer == NULL || tri_is_dead(peer)) return TR_EDEAD;
    if (find_link(self, peer) != NULL) return TR_OK;
    tri_bond_tie(*bond, TRI_LINK, self, peer);
    *bond = NULL;
    return TR_OK;
}

int tr_link(tr_process *self, tr_pid pid) {
    tri_bond *bond = tri_bond_new();
    if (bond == NULL) return TR_ENOMEM;
    pthread_mutex_lock(&self->engine->bonds.lock);
    int result = link_locked(self, pid, &bond);
    pthread_mutex_unlock(&self->engine->bonds.lock);
    free(bond);
    return result;
}

void tr_unlink(tr_process *self, tr_pid pid) {
    pthread_mutex_lock(&self->engine->bonds.lock);
    tr_process *peer = tri_peek(self->engine, pid);
    tri_bond *bond = peer == NULL || peer == self ? NULL : find_link(self, peer);
    if (bond != NULL) tri_bond_untie(bond);
    pthread_mutex_unlock(&self->engine->bonds.lock);
    free(bond);
}

/* ---- Monitors -----------------------------------------------------------------------------------*/

int tri_bond_monitor(tr_engine *engine, tri_bond *bond, tr_process *watcher, tr_process *watched) {
    int result = tri_map_add(&engine->bonds.monitors, bond->message.ref, bond);
    if (result == TR_OK) tri_bond_tie(bond, TRI_MONITOR, watcher, watched);
    return result;
}

int tr_monitor(tr_process *self, tr_pid pid, tr_term label, tr_ref *ref) {
    tr_engine *engine = self->engine;
    tri_bond *bond = tri_bond_new();
    if (bond == NULL) {
        tri_release_term(engine, label);
        return TR_ENOMEM;
    }
    bond->message.ref = *ref = tr_ref_new(engine);
    bond->message.term = label;
    bool gone = false, self_watch = false;
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *watched = tri_peek(engine, pid);
    int result = tri_is_dead(self) ? TR_EKILLED : TR_OK;
    if (result == TR_OK) {
        gone = watched == NULL || tri_is_dead(watched);
        self_watch = watched == self;
        if (!gone && !self_watch) result = tri_bond_monitor(engine, bond, self, watched);
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    if (result == TR_OK && gone) {
        bond->message.kind = TR_MESSAGE_DOWN;
        bond->message.from = pid;
        bond->message.reason = tr_reason_constant(TR_NOPROC);
        tri_deliver(self, &bond->message, NULL);
    } else if (result != TR_OK || self_watch) {
        tr_message_free(engine, &bond->message);
    }
    return result;
}

static bool is_down(const tr_message *message, void *ref) {
    return message->kind == TR_MESSAGE_DOWN && message->ref == *(tr_ref *)ref;
}

bool tr_demonitor(tr_process *self, tr_ref ref, bool flush) {
    tr_engine *engine = self->engine;
    tri_bond *bond = NULL;
    pthread_mutex_lock(&engine->bonds.lock);
    tri_entry *entry = tri_map_first(&engine->bonds.monitors, ref);
    if (entry != NULL && ((tri_bond *)entry->value)->left == self) {
        bond = entry->value;
        forget_monitor(engine, bond);
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    if (bond != NULL) {
        tr_message_free(engine, &bond->message);
    } else if (flush) {
        tr_cursor cursor = {0};
        tr_message_free(engine, tr_receive(self, is_down, &ref, &cursor));
    }
    return bond != NULL;
}

/* ---- Exit signals -------------------------------------------------------------------------------*/

/* A message to announce a signal with, in case the target traps; the reason stays the caller's. */
static void signal_locked(tr_engine *engine, tr_pid from, tr_process *target, tr_reason *reason,
                          tr_message *message, tr_message **grave) {
    int kind = tr_reason_kind(reason);
    bool traps = (atomic_load(&target->flags) & TRI_TRAP) != 0;
    if (kind == TR_KILL) {
        tri_end(engine, target, tr_reason_constant(TR_KILLED), grave);
    } else if (traps) {
        message->from = from;
        message->reason = tr_reason_retain(reason);
        tri_deliver(target, message, grave);
        return;
    } else if (kind != TR_NORMAL || from == tr_process_pid(target)) {
        tri_end(engine, target, tr_reason_retain(reason), grave);
    }
    message->next = *grave;
    *grave = message;
}

void tr_exit(tr_engine *engine, tr_pid from, tr_pid pid, tr_reason *reason) {
    tr_message *grave = NULL;
    tr_message *message = tr_message_new(TR_MESSAGE_EXIT);
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *target = tri_peek(engine, pid);
    if (target != NULL && !tri_is_dead(target)) {
        if (message != NULL)
            signal_locked(engine, from, target, reason, message, &grave);
        else if (tr_reason_kind(reason) != TR_NORMAL)
            /* Out of memory: an end is the only signal that needs none. */
            tri_end(engine, target, tr_reason_constant(TR_KILLED), &grave);
        message = NULL;
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    tr_message_free(engine, message);
    tri_grave_free(engine, grave);
    tr_reason_release(reason);
}

void tr_exit_self(tr_process *self, tr_reason *reason) {
    tr_engine *engine = self->engine;
    tr_message *grave = NULL;
    pthread_mutex_lock(&engine->bonds.lock);
    bool dead = tri_is_dead(self);
    if (!dead) tri_end(engine, self, reason, &grave);
    pthread_mutex_unlock(&engine->bonds.lock);
    if (dead) tr_reason_release(reason);
    tri_grave_free(engine, grave);
}

bool tr_traps_exit(const tr_process *process) {
    return (atomic_load(&((tr_process *)process)->flags) & TRI_TRAP) != 0;
}

bool tr_trap_exit(tr_process *self, bool trap) {
    uint8_t before = trap ? atomic_fetch_or(&self->flags, TRI_TRAP)
                          : atomic_fetch_and(&self->flags, (uint8_t)~TRI_TRAP);
    return (before & TRI_TRAP) != 0;
}

/* ---- Looking at bonds ---------------------------------------------------------------------------*/

static void note(tr_pid *pids, size_t size, size_t *count, const tr_process *process) {
    if (*count < size) pids[*count] = tr_process_pid(process);
    (*count)++;
}

size_t tr_process_bonds(tr_engine *engine, tr_pid pid, int which, tr_pid *pids, size_t size) {
    size_t count = 0;
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *process = tri_peek(engine, pid);
    if (process != NULL && !tri_is_dead(process)) {
        for (tri_bond *bond = process->left; bond != NULL; bond = bond->left_next)
            if ((bond->kind == TRI_LINK && which == TR_LINKS) ||
                (bond->kind == TRI_MONITOR && which == TR_MONITORS))
                note(pids, size, &count, bond->right);
        for (tri_bond *bond = process->right; bond != NULL; bond = bond->right_next)
            if ((bond->kind == TRI_LINK && which == TR_LINKS) ||
                (bond->kind == TRI_MONITOR && which == TR_MONITORED_BY))
                note(pids, size, &count, bond->left);
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    return count;
}
