/* names.c: registered names.
 *
 * A name is a non-empty string held by at most one process, and a process holds at most one. The map is
 * keyed by the name's hash; the process owns the string. Everything prefixed tri_ runs under bonds.lock. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* FNV-1a, which is enough for names people write; 0 is no key. */
static uint64_t hash(const char *name) {
    uint64_t value = 0xCBF29CE484222325u;
    for (; *name != 0; name++) value = (value ^ (unsigned char)*name) * 0x100000001B3u;
    return value != 0 ? value : 1;
}

static tri_entry *find(tr_engine *engine, const char *name) {
    tri_map *names = &engine->bonds.names;
    for (tri_entry *entry = tri_map_first(names, hash(name)); entry != NULL;
         entry = tri_map_next(names, entry))
        if (strcmp(((tr_process *)entry->value)->name, name) == 0) return entry;
    return NULL;
}

tr_process *tri_names_find(tr_engine *engine, const char *name) {
    tri_entry *entry = find(engine, name);
    return entry == NULL ? NULL : entry->value;
}

int tri_names_add(tr_engine *engine, char *name, tr_process *process) {
    int result = tri_map_add(&engine->bonds.names, hash(name), process);
    if (result == TR_OK) process->name = name;
    return result;
}

void tri_names_remove(tr_engine *engine, tr_process *process) {
    if (process->name == NULL) return;
    tri_map_remove(&engine->bonds.names, find(engine, process->name));
    free(process->name);
    process->name = NULL;
}

int tr_register(tr_engine *engine, const char *name, tr_pid pid, tr_pid *holder) {
    int result = TR_OK;
    char *copy = strdup(name);
    if (copy == NULL) return TR_ENOMEM;
    *holder = 0;
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *taken = tri_names_find(engine, name);
    tr_process *process = tri_peek(engine, pid);
    if (process == NULL || tri_is_dead(process)) {
        result = TR_EDEAD;
    } else if (taken != NULL || process->name != NULL) {
        result = TR_ENAME;
        *holder = taken != NULL ? tr_process_pid(taken) : 0;
    } else {
        result = tri_names_add(engine, copy, process);
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    if (result != TR_OK) free(copy);
    return result;
}

int tr_unregister(tr_engine *engine, const char *name) {
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *process = tri_names_find(engine, name);
    if (process != NULL) tri_names_remove(engine, process);
    pthread_mutex_unlock(&engine->bonds.lock);
    return process != NULL ? TR_OK : TR_EDEAD;
}

tr_pid tr_whereis(tr_engine *engine, const char *name) {
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *process = tri_names_find(engine, name);
    tr_pid pid = process != NULL ? tr_process_pid(process) : 0;
    pthread_mutex_unlock(&engine->bonds.lock);
    return pid;
}

void tr_registered(tr_engine *engine, void (*visit)(void *, const char *, tr_pid), void *context) {
    tri_map *names = &engine->bonds.names;
    pthread_mutex_lock(&engine->bonds.lock);
    for (size_t i = 0; i < names->size; i++) {
        tr_process *process = names->entries[i].value;
        if (names->entries[i].key != 0) visit(context, process->name, tr_process_pid(process));
    }
    pthread_mutex_unlock(&engine->bonds.lock);
}

bool tr_name_of(tr_engine *engine, tr_pid pid, char *buffer, size_t size) {
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *process = tri_peek(engine, pid);
    bool named = process != NULL && process->name != NULL && size > 0;
    if (named) {
        strncpy(buffer, process->name, size - 1);
        buffer[size - 1] = 0;
    }
    pthread_mutex_unlock(&engine->bonds.lock);
    return named;
}
