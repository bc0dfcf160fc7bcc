/* call.c: see call.h. */
#include "call.h"

#include <sched.h>
#include <stdlib.h>

#include "await.h"
#include "engine.h"

static uint64_t ticket_of(tr_ref ref, unsigned step) { return ref << 2 | step; }

/* Win the right to answer. */
static bool begin_answer(tri_call *call, tr_ref ref) {
    uint64_t waiting = ticket_of(ref, TRI_CALL_WAITING);
    return atomic_compare_exchange_strong(&call->ticket, &waiting,
                                          ticket_of(ref, TRI_CALL_FILLING));
}

/* One that is not in use; NULL without memory. */
static tri_call *free_record(tr_process *self) {
    _Atomic(tri_call *) *link = &self->call;
    tri_call *call;
    while ((call = atomic_load(link)) != NULL && atomic_load(&call->ticket) != 0) link = &call->inner;
    if (call != NULL) return call;
    call = calloc(1, sizeof *call);
    atomic_store(link, call);
    return call;
}

/* The innermost in use; the outermost if none is, NULL if there is none. */
static tri_call *current_record(const tr_process *self) {
    tri_call *found = atomic_load(&((tr_process *)self)->call);
    for (tri_call *call = found; call != NULL; call = atomic_load(&call->inner))
        if (atomic_load(&call->ticket) != 0) found = call;
    return found;
}

void tri_call_free(tr_engine *engine, struct tri_call *call) {
    while (call != NULL) {
        tri_call *inner = atomic_load(&call->inner);
        tri_release_term(engine, call->reply);
        tr_reason_release(call->reason);
        free(call);
        call = inner;
    }
}

static bool is_done(tri_call *call) {
    return (atomic_load(&call->ticket) & 3) == TRI_CALL_DONE;
}

/* True if nobody will answer any more; false if the answer is there. */
static bool give_up(tri_call *call) {
    uint64_t ticket = atomic_load(&call->ticket);
    if (ticket == 0) return true;
    if ((ticket & 3) == TRI_CALL_WAITING &&
        atomic_compare_exchange_strong(&call->ticket, &ticket, 0))
        return true;
    while (!is_done(call)) sched_yield(); /* a few instructions of the one who answers */
    return false;
}

static void take_answer(tri_call *call, tr_term *reply, tr_reason **reason) {
    *reply = call->reply;
    *reason = call->reason;
    call->reply = NULL;
    call->reason = NULL;
    atomic_store(&call->ticket, 0);
}

void tri_call_drop(tr_process *process) {
    tr_term reply;
    tr_reason *reason;
    for (tri_call *call = atomic_load(&process->call); call != NULL; call = atomic_load(&call->inner)) {
        if (give_up(call)) continue;
        take_answer(call, &reply, &reason);
        tri_release_term(process->engine, reply);
        tr_reason_release(reason);
    }
}

tr_process *tri_call_callee(tr_process *process) {
    tr_process *callee = process->kind == TR_KIND_ASYNC ? tri_await_callee(process) : NULL;
    if (callee != NULL) return callee; /* first: one that calls meanwhile calls who awaits this for it */
    for (tri_call *call = atomic_load(&process->call); call != NULL; call = atomic_load(&call->inner))
        if (call->bond.tied) callee = call->bond.right;
    return callee;
}

/* The engine kills all that are left, one after the other: who calls one of them hears nothing of its end, but
 * waits for his own. */
static bool is_doomed(const tr_process *process) {
    return process->kind != TR_KIND_THREAD_OWN && atomic_load(&process->engine->closed);
}

void tri_call_broken(tri_bond *bond, tr_reason *reason) {
    tri_call *call = (tri_call *)bond;
    tr_ref ref = atomic_load(&call->ticket) >> 2;
    tr_process *caller = bond->left;
    tri_bond_untie(bond);
    if (is_doomed(caller) || !begin_answer(call, ref)) return;
    call->reason = tr_reason_retain(reason);
    atomic_store(&call->ticket, ticket_of(ref, TRI_CALL_DONE));
    tri_wake(caller);
}

/* Whether `process` waits for `self`: is it, or has entered it (tr_spawn) and stands still meanwhile. */
static bool is_held_by(const tr_process *process, const tr_process *self) {
    while (self != NULL && self != process) self = self->outer;
    return self != NULL;
}

bool tri_call_closes_cycle(tr_process *self, tr_process *callee, tr_call_options *options) {
    size_t length = 1;
    tr_process *process = callee, *behind = callee; /* half as fast: to be met again in a circle of others */
    while (process != NULL && !is_held_by(process, self)) {
        process = tri_call_callee(process);
        if (length++ % 2 == 0) behind = tri_call_callee(behind);
        if (process == behind) return false;
    }
    if (process == NULL) return false;
    if (process != self) length++;
    options->length = length;
    process = self;
    for (size_t i = 0; i < length && i < options->size; i++) {
        options->cycle[i] = tr_process_pid(process);
        process = i == 0 ? callee : tri_call_callee(process);
    }
    return true;
}

static int register_call(tr_process *self, tri_call *call, tr_pid pid, tr_call_options *options) {
    tr_engine *engine = self->engine;
    int result = TR_OK;
    pthread_mutex_lock(&engine->bonds.lock);
    tr_process *callee = tri_peek(engine, pid);
    if (tri_is_dead(self))
        result = TR_EKILLED;
    else if (callee == NULL || tri_is_dead(callee))
        result = is_doomed(self) ? TR_OK : TR_EDEAD;
    else if (callee == self)
        result = TR_ESELF;
    else if (tri_call_closes_cycle(self, callee, options))
        result = TR_EDEADLOCK;
    else
        tri_bond_tie(&call->bond, TRI_CALLING, self, callee);
    pthread_mutex_unlock(&engine->bonds.lock);
    return result;
}

static void unregister_call(tr_process *self, tri_call *call) {
    pthread_mutex_lock(&self->engine->bonds.lock);
    if (call->bond.tied) tri_bond_untie(&call->bond);
    pthread_mutex_unlock(&self->engine->bonds.lock);
}

static int start(tr_process *self, tr_pid callee, tr_message *request, tr_call_options *options) {
    tri_call *call = free_record(self);
    if (call == NULL) return TR_ENOMEM;
    request->ref = tr_ref_new(self->engine);
    request->from = tr_process_pid(self);
    atomic_store(&call->ticket, ticket_of(request->ref, TRI_CALL_WAITING));
    int result = register_call(self, call, callee, options);
    if (result != TR_OK) atomic_store(&call->ticket, 0);
    return result;
}

/* If it is refused, the callee's end is the answer. */
static void send_request(tr_process *self, tr_pid callee, tr_message *request) {
    tri_worker *worker = atomic_load(&self->worker);
    if (worker != NULL) worker->calls = true;
    tr_send_message(self->engine, callee, request);
    if (worker != NULL) worker->calls = false;
}

int tr_call(tr_process *self, tr_pid callee, tr_call_options *options) {
    tr_engine *engine = self->engine;
    bool forked = atomic_load(&engine->forked);
    tr_message *request = forked ? NULL : tr_message_new(options->kind);
    if (request == NULL) {
        tri_release_term(engine, options->term);
        tr_reason_release(options->reason);
        return forked ? TR_ESTOPPED : TR_ENOMEM;
    }
    request->term = options->term;
    request->reason = options->reason;
    int result = start(self, callee, request, options);
    if (result != TR_OK)
        tr_message_free(engine, request);
    else
        send_request(self, callee, request);
    return result;
}

bool tr_call_answered(const tr_process *self) {
    tri_call *call = current_record(self);
    return call != NULL && is_done(call);
}

static bool answered(tr_process *self) { return tr_call_answered(self); }

int tr_call_wait(tr_process *self, uint64_t deadline) {
    return tri_park(self, TRI_DEEP, answered, deadline);
}

int tr_call_cancel(tr_process *self) {
    tri_call *call = current_record(self);
    if (!give_up(call)) return TR_OK;
    unregister_call(self, call);
    return TR_ETIMEDOUT;
}

void tr_call_take(tr_process *self, tr_term *reply, tr_reason **reason) {
    tri_call *call = current_record(self);
    unregister_call(self, call);
    take_answer(call, reply, reason);
}

static bool answer_await(tr_engine *engine, tr_pid caller, tr_ref ref, tr_term term) {
    pthread_mutex_lock(&engine->bonds.lock);
    bool answered = tri_await_answer(engine, caller, ref, term);
    pthread_mutex_unlock(&engine->bonds.lock);
    return answered;
}

void tr_reply(tr_engine *engine, tr_pid caller, tr_ref ref, tr_term term) {
    tr_process *process = tri_acquire(engine, caller);
    tri_call *call = process != NULL ? atomic_load(&process->call) : NULL;
    while (call != NULL && !begin_answer(call, ref)) call = atomic_load(&call->inner);
    if (call != NULL) {
        call->reply = term;
        atomic_store(&call->ticket, ticket_of(ref, TRI_CALL_DONE));
        tri_wake(process);
        term = NULL;
    } else if (process != NULL && answer_await(engine, caller, ref, term)) {
        term = NULL;
    }
    if (process != NULL) tri_release(process);
    tri_release_term(engine, term);
}
