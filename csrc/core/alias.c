/* alias.c: addresses that their owner can switch off.
 *
 * An alias is a Ref that stands for the process that made it, until it is taken back: by its owner, by the
 * first message, or by the end of the monitor that has the same Ref. It is a bond whose two ends
 * are its owner, so it goes with the owner; found by Ref in bonds.aliases; everything is under bonds.lock.
 * Sending to one is O(1) and takes that lock, which a send to a pid does not. */
#include <stdlib.h>

#include "engine.h"

static tri_bond *find(tr_engine *engine, tr_ref ref) {
    tri_entry *entry = ref == 0 ? NULL : tri_map_first(&engine->bonds.aliases, ref);
    return entry == NULL ? NULL : entry->value;
}

void tri_alias_forget(tr_engine *engine, tri_bond *alias) {
    tri_map *aliases = &engine->bonds.aliases;
    tri_map_remove(aliases, tri_map_first(aliases, alias->message.ref));
    tri_bond_untie(alias);
}

void tri_alias_demonitored(tr_engine *engine, tr_ref ref) {
    tri_bond *alias = find(engine, ref);
    if (alias == NULL || alias->message.number == TR_ALIAS_EXPLICIT) return;
    tri_alias_forget(engine, alias);
    free(alias); /* it owns nothing of the host's */
}

/* Under the lock. *alias is set to NULL when it is used. */
static int add(tr_process *self, tri_bond **alias) {
    tr_engine *engine = self->engine;
    tr_ref ref = (*alias)->message.ref;
    bool with_monitor = (*alias)->message.number >= TR_ALIAS_DEMONITOR;
    if (tri_is_dead(self)) return TR_EKILLED;
    if (with_monitor && tri_map_first(&engine->bonds.monitors, ref) == NULL) return TR_OK;
    int result = tri_map_add(&engine->bonds.aliases, ref, *alias);
    if (result != TR_OK) return result;
    tri_bond_tie(*alias, TRI_ALIAS, self, self);
    *alias = NULL;
    return TR_OK;
}

int tr_alias(tr_process *self, int mode, tr_ref *ref) {
    tr_engine *engine = self->engine;
    tri_bond *alias = tri_bond_new();
    if (alias == NULL) return TR_ENOMEM;
    if (*ref == 0) *ref = tr_ref_new(engine);
    alias->message.ref = *ref;
    alias->message.number = (uint64_t)mode;
    pthread_mutex_lock(&engine->bonds.lock);
    int result = add(self, &alias);
    pthread_mutex_unlock(&engine->bonds.lock);
    free(alias);
    return result;
}

bool tr_unalias(tr_process *self, tr_ref ref) {
    tr_engine *engine = self->engine;
    pthread_mutex_lock(&engine->bonds.lock);
    tri_bond *alias = find(engine, ref);
    bool ours = alias != NULL && alias->left == self;
    if (ours) tri_alias_forget(engine, alias);
    pthread_mutex_unlock(&engine->bonds.lock);
    if (ours) free(alias);
    return ours;
}

/* Under the lock: deliver, and switch off what one message switches off. What is to be freed after the
 * lock is linked to *grave. */
static void deliver(tr_engine *engine, tri_bond *alias, tr_message *message, tr_message **grave) {
    uint64_t mode = alias->message.number;
    tr_ref ref = alias->message.ref;
    tri_deliver(alias->left, message, grave);
    if (mode == TR_ALIAS_REPLY_DEMONITOR) {
        tri_monitor_remove(engine, ref, grave); /* and with it the alias */
    } else if (mode == TR_ALIAS_REPLY) {
        tri_alias_forget(engine, alias);
        free(alias);
    }
}

int tr_send_alias(tr_engine *engine, tr_ref ref, tr_message *message) {
    tr_message *grave = NULL;
    pthread_mutex_lock(&engine->bonds.lock);
    tri_bond *alias = find(engine, ref);
    if (alias != NULL) deliver(engine, alias, message, &grave);
    pthread_mutex_unlock(&engine->bonds.lock);
    tri_grave_free(engine, grave);
    if (alias != NULL) return TR_OK;
    tr_message_free(engine, message);
    return TR_EDEAD;
}
