/* thread.c: see thread.h. */
#include "thread.h"

#include <pthread.h>
#include <stdlib.h>

#include "engine.h"

/* The key exists for its destructor alone: it ends a foreign thread's process with the thread. */
static _Thread_local tri_thread *here;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool has_key;

/* End the thread's own process, normally, and let go of the engine. In a forked child or after a stop
 * the engine is only let go of. */
static void detach_engine(tri_thread *thread) {
    tr_engine *engine = thread->engine;
    if (atomic_load(&engine->forked)) return;
    if (thread->own != NULL) {
        tr_exit_self(thread->own, tr_reason_constant(TR_NORMAL));
        tri_yield(thread->own);
        thread->own = thread->current = NULL;
    }
    tri_engine_release(engine);
}

static void thread_ended(void *record) {
    tri_thread *thread = record;
    here = NULL;
    detach_engine(thread);
    tri_parker_fini(&thread->parker);
    free(thread);
}

static void make_key(void) { has_key = pthread_key_create(&key, thread_ended) == 0; }

tri_thread *tri_thread_here_or_null(tr_engine *engine) {
    return here != NULL && here->engine == engine ? here : NULL;
}

static tri_thread *record_new(void) {
    pthread_once(&once, make_key);
    tri_thread *thread = has_key ? calloc(1, sizeof *thread) : NULL;
    if (thread == NULL) return NULL;
    if (tri_parker_init(&thread->parker) == TR_OK) {
        if (pthread_setspecific(key, thread) == 0) return thread;
        tri_parker_fini(&thread->parker);
    }
    free(thread);
    return NULL;
}

tri_thread *tri_thread_here(tr_engine *engine) {
    if (here != NULL && here->engine == engine) return here;
    if (here != NULL && here->worker != NULL) return NULL;
    if (here != NULL) {
        detach_engine(here); /* it belonged to an engine that was stopped */
    } else {
        here = record_new();
        if (here == NULL) return NULL;
    }
    tri_engine_retain(engine);
    here->engine = engine;
    here->own = here->current = NULL;
    return here;
}

void tri_thread_adopt(tri_thread *thread) { here = thread; }

void tri_thread_forget(void) {
    if (here != NULL && here->worker == NULL) pthread_setspecific(key, NULL);
    here = NULL;
}

static const tr_behaviour foreign = {.name = "thread"};

/* A foreign thread's process is always RUNNING or PARKED: no worker ever runs it. */
static tr_process *own_process(tri_thread *thread) {
    tr_pid pid;
    tr_spawn_options options = {
        .kind = TR_KIND_THREAD_OWN, .priority = TR_PRIORITY_NORMAL, .enter = true};
    if (tr_spawn(thread->engine, &options, &foreign, NULL, &pid, NULL) != TR_OK) return NULL;
    thread->own = thread->current;
    return thread->own;
}

tr_process *tr_self(tr_engine *engine) {
    tri_thread *thread = tri_thread_here(engine);
    if (thread == NULL) return NULL;
    if (thread->current != NULL || thread->worker != NULL) return thread->current;
    return own_process(thread);
}

tr_process *tr_self_or_null(tr_engine *engine) {
    tri_thread *thread = tri_thread_here_or_null(engine);
    return thread == NULL ? NULL : thread->current;
}

bool tr_on_engine_thread(tr_engine *engine) {
    tri_thread *thread = tri_thread_here_or_null(engine);
    return thread != NULL && thread->worker != NULL;
}

void tr_self_renew(tr_engine *engine) {
    tri_thread *thread = tri_thread_here_or_null(engine);
    if (thread == NULL || thread->own == NULL || thread->current != thread->own) return;
    if (!tri_is_dead(thread->own)) return;
    tr_process *process = thread->own;
    thread->own = thread->current = NULL;
    tri_yield(process);
}
