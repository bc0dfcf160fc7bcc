/* await.c: see await.h. */
#include "await.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "call.h"
#include "engine.h"

/* ---- Loops --------------------------------------------------------------------------------------*/

static tr_loop *make_loop(tr_engine *engine) {
    tr_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) return NULL;
    loop->engine = engine;
    if (tri_parker_init(&loop->pause.parker) != TR_OK) goto fail;
    loop->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->fd >= 0) return loop;
    tri_parker_fini(&loop->pause.parker);
fail:
    free(loop);
    return NULL;
}

tr_loop *tr_loop_new(tr_engine *engine) {
    tri_bonds *bonds = &engine->bonds;
    pthread_mutex_lock(&bonds->lock);
    tr_loop *loop = bonds->loops;
    if (loop != NULL) bonds->loops = loop->next;
    pthread_mutex_unlock(&bonds->lock);
    bool made = loop == NULL;
    if (made && (loop = make_loop(engine)) == NULL) return NULL;
    pthread_mutex_lock(&bonds->lock);
    if (made) {
        loop->next_made = bonds->loops_made;
        bonds->loops_made = loop;
    }
    tri_pause_begin(loop);
    pthread_mutex_unlock(&bonds->lock);
    return loop;
}

void tr_loop_release(tr_loop *loop) {
    tri_bonds *bonds = &loop->engine->bonds;
    pthread_mutex_lock(&bonds->lock);
    tri_pause_end(loop);
    loop->next = bonds->loops;
    bonds->loops = loop;
    pthread_mutex_unlock(&bonds->lock);
}

void tri_loops_fini(tr_engine *engine) {
    tr_loop *loop = engine->bonds.loops_made;
    while (loop != NULL) {
        tr_loop *next = loop->next_made;
        close(loop->fd);
        tri_parker_fini(&loop->pause.parker);
        free(loop);
        loop = next;
    }
}

int tr_loop_fd(const tr_loop *loop) { return loop->fd; }

/* A full counter (EAGAIN) is readable, which is all that is wanted. */
void tri_loop_signal(tr_loop *loop) {
    uint64_t one = 1;
    tri_thread *here = tri_thread_here_or_null(loop->engine);
    if (here != NULL && here->loop == loop && loop->inside > 0) {
        loop->behind = true;
        return;
    }
    if (atomic_exchange(&loop->signalled, true)) return;
    while (write(loop->fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

/* A forked child shares the descriptor with its parent, whose wake-ups it must leave there. */
static void hush(tr_loop *loop) {
    uint64_t count;
    if (atomic_load_explicit(&loop->engine->forked, memory_order_relaxed)) return;
    while (read(loop->fd, &count, sizeof count) < 0 && errno == EINTR) continue;
    atomic_store(&loop->signalled, false);
}

static tri_await *of_public(tr_await *public) {
    return (tri_await *)((char *)public - offsetof(tri_await, public));
}

tr_await *tr_loop_take(tr_loop *loop) {
    hush(loop);
    tri_await *newest = atomic_exchange(&loop->finished, NULL);
    tr_await *list = NULL;
    while (newest != NULL) {
        tr_await *public = &newest->public;
        newest = public->next == NULL ? NULL : of_public(public->next);
        public->next = list;
        list = public;
    }
    return list;
}

void tri_loop_mail(tr_loop *loop) {
    atomic_store(&loop->mail, true);
    tri_loop_signal(loop);
}

bool tr_loop_has_mail(tr_loop *loop) { return atomic_exchange(&loop->mail, false); }

bool tr_watch(tr_process *self, tr_loop *loop) {
    atomic_store(&self->watcher, loop);
    atomic_fetch_or(&self->flags, TRI_WATCHED);
    return !tri_mailbox_has_new(&self->mailbox);
}

/* ---- One await ----------------------------------------------------------------------------------*/

static void release(tri_await *await) {
    if (atomic_fetch_sub_explicit(&await->references, 1, memory_order_acq_rel) == 1) free(await);
}

void tr_await_free(tr_await *public) {
    tri_await *await = of_public(public);
    tr_engine *engine = await->loop->engine;
    if (public->reply != NULL) tri_release_term(engine, public->reply);
    tr_reason_release(public->reason);
    release(await);
}

/* Under bonds.lock, by whoever came first: it is not under way any more. */
static void conclude(tri_await *await) {
    tr_engine *engine = await->loop->engine;
    tri_map *awaits = &engine->bonds.awaits;
    await->pending = false;
    tri_map_remove(awaits, tri_map_first(awaits, await->public.ref));
    tri_bond_untie(&await->bond);
    if (await->timer.fire == NULL) return;
    pthread_mutex_lock(&engine->ticker.lock);
    bool removed = tri_wheel_remove(&engine->ticker.wheel, &await->timer);
    pthread_mutex_unlock(&engine->ticker.lock);
    if (removed) release(await);
}

static void complete(tri_await *await, int outcome, tr_term reply, tr_reason *reason) {
    tr_loop *loop = await->loop;
    conclude(await);
    await->public.outcome = outcome;
    await->public.reply = reply;
    await->public.reason = tr_reason_retain(reason);
    tri_await *newest = atomic_load(&loop->finished);
    do {
        await->public.next = newest == NULL ? NULL : &newest->public;
    } while (!atomic_compare_exchange_weak(&loop->finished, &newest, await));
    tri_loop_signal(loop);
}

static tri_await *find(tr_engine *engine, tr_ref ref) {
    tri_entry *entry = tri_map_first(&engine->bonds.awaits, ref);
    return entry == NULL ? NULL : entry->value;
}

bool tri_await_answer(tr_engine *engine, tr_pid caller, tr_ref ref, tr_term term) {
    tri_await *await = find(engine, ref);
    if (await == NULL || tr_process_pid(await->bond.left) != caller) return false;
    complete(await, TR_AWAIT_REPLY, term, NULL);
    return true;
}

void tri_await_broken(tri_bond *bond, tr_process *dead) {
    bool own = bond->left == dead;
    complete((tri_await *)bond, own ? TR_AWAIT_KILLED : TR_AWAIT_ENDED, NULL, dead->reason);
}

static void ring(tri_timer *node) {
    tri_await *await = (tri_await *)((char *)node - offsetof(tri_await, timer));
    tr_engine *engine = await->loop->engine;
    pthread_mutex_lock(&engine->bonds.lock);
    if (await->pending) complete(await, TR_AWAIT_TIMEOUT, NULL, NULL);
    pthread_mutex_unlock(&engine->bonds.lock);
    release(await);
}

void tri_await_stop(tr_engine *engine) {
    tri_map *awaits = &engine->bonds.awaits;
    pthread_mutex_lock(&engine->bonds.lock);
    engine->bonds.awaits_ended = true;
    for (size_t i = 0; i < awaits->size;) {
        if (awaits->entries[i].key == 0)
            i++;
        else /* another entry may move here */
            complete(awaits->entries[i].value, TR_AWAIT_STOPPED, NULL, NULL);
    }
    pthread_mutex_unlock(&engine->bonds.lock);
}

/* ---- Beginning and giving up --------------------------------------------------------------------*/

static tri_await *await_new(tr_process *self, tr_loop *loop, uint64_t deadline, void *context) {
    tri_await *await = calloc(1, sizeof *await);
    if (await == NULL) return NULL;
    await->loop = loop;
    await->public.context = context;
    await->public.ref = tr_ref_new(self->engine);
    atomic_init(&await->references, deadline == TR_FOREVER ? 1 : 2);
    if (deadline != TR_FOREVER) await->timer.fire = ring;
    return await;
}

/* Under bonds.lock. *sooner: the ticker must be woken. */
static int begin(tri_await *await, tr_process *self, tr_process *other, uint64_t deadline,
                 bool *sooner) {
    tr_engine *engine = self->engine;
    if (tri_is_dead(self)) return TR_EKILLED;
    if (engine->bonds.awaits_ended) return TR_ESTOPPED;
    if (tri_map_add(&engine->bonds.awaits, await->public.ref, await) != TR_OK) return TR_ENOMEM;
    tri_bond_tie(&await->bond, TRI_AWAITING, self, other);
    await->pending = true;
    if (deadline == TR_FOREVER) return TR_OK;
    pthread_mutex_lock(&engine->ticker.lock);
    *sooner = tri_ticker_add(&engine->ticker, &await->timer, deadline);
    pthread_mutex_unlock(&engine->ticker.lock);
    return TR_OK;
}

/* Under virtual time a deadline that has passed already has nobody else to fire it. */
static void after_begin(tr_engine *engine, uint64_t deadline, bool sooner) {
    uint64_t now;
    if (sooner) tri_parker_unpark(&engine->ticker.parker);
    if (engine->options.virtual_time && deadline <= (now = tri_clock_now(&engine->clock)))
        tri_ticker_fire(&engine->ticker, now);
}

int tr_await_sleep(tr_process *self, tr_loop *loop, uint64_t deadline, void *context,
                   tr_ref *ref) {
    tr_engine *engine = self->engine;
    bool sooner = false;
    tri_await *await = await_new(self, loop, deadline, context);
    if (await == NULL) return TR_ENOMEM;
    *ref = await->public.ref;
    pthread_mutex_lock(&engine->bonds.lock);
    int result = begin(await, self, self, deadline, &sooner);
    pthread_mutex_unlock(&engine->bonds.lock);
    if (result != TR_OK)
        free(await);
    else
        after_begin(engine, deadline, sooner);
    return result;
}

tr_process *tri_await_callee(tr_process *process) {
    for (tri_bond *bond = process->left; bond != NULL; bond = bond->left_next)
        if (bond->kind == TRI_AWAITING && ((tri_await *)bond)->alone) return bond->right;
    return NULL;
}

static int begin_call(tri_await *await, tr_process *self, tr_pid pid, tr_call_options *options,
                      uint64_t deadline, bool *sooner) {
    tr_engine *engine = self->engine;
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *callee = tri_peek(engine, pid);
    int result = TR_OK;
    if (tri_is_dead(self))
        result = TR_EKILLED;
    else if (callee == NULL || tri_is_dead(callee))
        result = TR_EDEAD;
    else if (callee == self)
        result = TR_ESELF;
    else if (await->alone && tri_call_closes_cycle(self, callee, options))
        result = TR_EDEADLOCK;
    else
        result = begin(await, self, callee, deadline, sooner);
    pthread_mutex_unlock(&engine->bonds.lock);
    return result;
}

int tr_await_call(tr_process *self, tr_loop *loop, tr_pid callee, tr_call_options *options,
                  uint64_t deadline, bool alone, void *context, tr_ref *ref) {
    tr_engine *engine = self->engine;
    bool sooner = false;
    tr_message *request = tr_message_new(options->kind);
    if (request == NULL) {
        tri_release_term(engine, options->term);
        tr_reason_release(options->reason);
        return TR_ENOMEM;
    }
    request->term = options->term;
    request->reason = options->reason;
    request->from = tr_process_pid(self);
    tri_await *await = await_new(self, loop, deadline, context);
    int result = await == NULL ? TR_ENOMEM : TR_OK;
    if (result == TR_OK) {
        request->ref = *ref = await->public.ref;
        await->alone = alone;
        result = begin_call(await, self, callee, options, deadline, &sooner);
    }
    if (result != TR_OK) {
        free(await);
        tr_message_free(engine, request);
        return result;
    }
    tr_send_message(engine, callee, request); /* refused: the callee's end is the answer */
    after_begin(engine, deadline, sooner);
    return TR_OK;
}

bool tr_await_cancel(tr_engine *engine, tr_ref ref, const void *context) {
    pthread_mutex_lock(&engine->bonds.lock);
    tri_await *await = find(engine, ref);
    if (await != NULL && await->public.context != context) await = NULL;
    if (await != NULL) conclude(await);
    pthread_mutex_unlock(&engine->bonds.lock);
    if (await == NULL) return false;
    release(await);
    return true;
}
