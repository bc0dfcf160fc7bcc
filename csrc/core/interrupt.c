/* interrupt.c: how the code of a killed process is made to unwind.
 *
 * `target` of a worker is the process whose callback it is in, with BUSY while somebody sends an interrupt
 * to it and MARKED after. Only the worker sets and clears the process; whoever wants to interrupt it
 * moves process -> process|BUSY -> process|MARKED, so that an interrupt meant for one process can
 * not hit the next: the worker waits for BUSY to pass (a few instructions) and takes back what was
 * MARKED and did not arrive. None is missed: the ender sets DEAD and then looks at the target, the worker
 * sets the target and then looks at DEAD. A process that was ended while its worker ran an inner one
 * (tr_spawn with enter) is interrupted when the inner one is left. Interrupts are sent by attached
 * threads; while the engine stops, which is done by a detached one, it only marks, and the ticker, which
 * sends all again every few milliseconds, attaches itself. The host may hold one back (tr_host.interrupt);
 * that is tried again by the ticker, too.
 *
 * A process may MASK itself for what must be done whole. Nobody sends to a target that is MASKED; the worker
 * looks at DEAD when it has taken the mask off. */
#include "engine.h"
#include "worker.h"

enum { BUSY = 1, MARKED = 2, MASKED = 4, BITS = BUSY | MARKED | MASKED };
#define INTERRUPT_AFTER_CPU UINT64_C(5000000) /* ns that the victim's thread computed */
#define INTERRUPT_AFTER UINT64_C(50000000)
#define HELD_COMPUTING UINT64_C(20000000)
#define HELD_AT_MOST UINT64_C(60000000000)

/* The sender's few instructions; but with an interpreter lock it may be waiting for that, in the host. */
static uintptr_t look_again(tri_worker *worker) {
    tr_host *host = &worker->thread.engine->host;
    if (host->detach != NULL) {
        host->detach(host->context, worker->host);
        host->attach(host->context, worker->host);
    }
    return atomic_load(&worker->target);
}

static void set_target(tri_worker *worker, tr_process *process) {
    tr_engine *engine = worker->thread.engine;
    uintptr_t old = atomic_load(&worker->target);
    for (;;) {
        if (old & BUSY)
            old = look_again(worker);
        else if (atomic_compare_exchange_weak(&worker->target, &old, (uintptr_t)process))
            break;
    }
    if ((old & MARKED) == 0) return;
    atomic_store(&worker->held_back, 0);
    atomic_store(&worker->unwinds, false);
    atomic_fetch_sub(&engine->scheduler.marked, 1);
    if (engine->host.interrupt_clear != NULL)
        engine->host.interrupt_clear(engine->host.context, worker->host);
}

void tri_scheduler_enter(tr_process *process) {
    tri_worker *worker = atomic_load(&process->worker);
    if (worker != NULL) set_target(worker, process);
}

/* What the host holds back because it is no good moment is sent all the same to code that computes on and is never
 * at a good one. To wait takes CPU time too, though little: for the interpreter lock, once a millisecond. Whose
 * clock stands still blocks, and what the host found or did at the last try is as it was. */
static void deliver(tr_engine *engine, tri_worker *worker, uintptr_t process, bool again) {
    uint64_t cpu = tri_worker_cpu(worker);
    if (atomic_load(&worker->held_back) != process) {
        worker->held_first = worker->held_last = cpu;
        worker->held_computing = 0;
        worker->held_again = false;
    }
    if (worker->held_again && cpu != 0 && cpu == worker->held_last) return;
    bool at_once = worker->held_computing >= HELD_COMPUTING || cpu - worker->held_first >= HELD_AT_MOST;
    int how = at_once ? TR_INTERRUPT_AT_ONCE : again ? TR_INTERRUPT_AGAIN : TR_INTERRUPT;
    int result = engine->host.interrupt(engine->host.context, worker->host, how);
    if (result == TR_HELD_COMPUTING) worker->held_computing += cpu - worker->held_last;
    worker->held_last = cpu;
    worker->held_again = again;
    if (result == TR_INTERRUPTED) atomic_store(&worker->unwinds, true);
    atomic_store(&worker->held_back, result == TR_INTERRUPTED ? 0 : process);
}

enum { MARK, SEND, SEND_AGAIN };

static void send_interrupt(tr_engine *engine, tri_worker *worker, uintptr_t from, int what) {
    uintptr_t process = from & ~(uintptr_t)BITS;
    if (!atomic_compare_exchange_strong(&worker->target, &from, process | BUSY)) return;
    if ((from & MARKED) == 0) atomic_fetch_add(&engine->scheduler.marked, 1);
    if (what != MARK) deliver(engine, worker, process, what == SEND_AGAIN);
    atomic_store(&worker->target, process | MARKED);
}

void tri_scheduler_leave(tr_process *process, tr_process *outer) {
    tr_engine *engine = process->engine;
    tri_worker *worker = atomic_load(&process->worker);
    if (worker == NULL) return;
    set_target(worker, outer);
    if (outer == NULL || !tri_is_dead(outer) || engine->host.interrupt == NULL) return;
    send_interrupt(engine, worker, (uintptr_t)outer, SEND);
    tri_ticker_poke(&engine->ticker);
}

void tri_scheduler_interrupt(tr_process *dead) {
    tr_engine *engine = dead->engine;
    tri_worker *worker = atomic_load(&dead->worker);
    if (worker == NULL || engine->host.interrupt == NULL) return;
    tri_thread *here = tri_thread_here_or_null(engine);
    if (here != NULL && here->worker == worker) return; /* it is us: we return by ourselves */
    /* On the event loop only what goes on for a while is interrupted, by the ticker: a step that ends by
     * itself is rather not torn out of the event loop's own code. */
    bool now = !atomic_load(&engine->stopping) && atomic_load(&worker->role) != TRI_ROLE_LOOP;
    send_interrupt(engine, worker, (uintptr_t)dead, now ? SEND : MARK);
    tri_turnstile_release(&engine->scheduler, worker);
    tri_ticker_poke(&engine->ticker);
}

void tri_scheduler_mark(tr_process *dead) {
    tr_engine *engine = dead->engine;
    if (engine->host.interrupt == NULL) return;
    send_interrupt(engine, atomic_load(&dead->worker), (uintptr_t)dead, MARK);
    tri_ticker_poke(&engine->ticker);
}

/* Change the mask of the calling worker's target. What the target was; 0 if there is none, or it has that mask. */
static uintptr_t set_mask(tri_worker *worker, uintptr_t mask) {
    uintptr_t old = atomic_load(&worker->target);
    for (;;) {
        if (tri_held_process(old) == NULL || (old & MASKED) == mask) return 0;
        if (old & BUSY)
            old = look_again(worker);
        else if (atomic_compare_exchange_weak(&worker->target, &old, old ^ MASKED))
            return old;
    }
}

bool tr_mask(tr_engine *engine) {
    tr_host *host = &engine->host;
    tri_thread *here = tri_thread_here_or_null(engine);
    tri_worker *worker = here == NULL ? NULL : here->worker;
    uintptr_t old = worker == NULL ? 0 : set_mask(worker, MASKED);
    if ((old & MARKED) != 0 && host->interrupt_clear != NULL) /* the ticker sends it again */
        host->interrupt_clear(host->context, worker->host);
    return old != 0;
}

void tr_unmask(tr_engine *engine) {
    tri_worker *worker = tri_thread_here_or_null(engine)->worker;
    uintptr_t old = set_mask(worker, 0);
    tr_process *process = tri_held_process(old);
    if (process == NULL || !tri_is_dead(process) || engine->host.interrupt == NULL) return;
    bool now = atomic_load(&worker->role) != TRI_ROLE_LOOP; /* as tri_scheduler_interrupt */
    if ((old & MARKED) == 0) send_interrupt(engine, worker, (uintptr_t)process, now ? SEND : MARK);
    tri_ticker_poke(&engine->ticker);
}

/* Whether what was interrupted has had the time to unwind, cleanup and all: on a busy machine its thread
 * hardly runs, and each interrupt more would break its cleanup off. */
static bool had_its_time(tri_worker *worker, uintptr_t target, uint64_t now) {
    uint64_t cpu = tri_worker_cpu(worker);
    bool begun = atomic_exchange(&worker->unwinds, false), known = worker->interrupted == target && !begun;
    if (known && cpu - worker->interrupted_cpu < INTERRUPT_AFTER_CPU &&
        now - worker->interrupted_at < INTERRUPT_AFTER)
        return false;
    worker->interrupted = target;
    worker->interrupted_cpu = cpu;
    worker->interrupted_at = now;
    return known || (!begun && atomic_load(&worker->thread.engine->stopping)); /* which only marks */
}

void tri_scheduler_interrupt_again(tri_scheduler *s) {
    uint64_t now = tri_clock_monotonic();
    tri_worker *worker = atomic_load(&s->workers);
    for (; worker != NULL; worker = worker->next) {
        uintptr_t target = atomic_load(&worker->target);
        if ((target & BITS) != MARKED) continue;
        tri_turnstile_release(s, worker);
        bool owed = atomic_load(&worker->held_back) == (target & ~(uintptr_t)MARKED);
        if (owed || had_its_time(worker, target, now))
            send_interrupt(s->engine, worker, target, SEND_AGAIN);
    }
}

void tr_interrupted(tr_engine *engine) {
    tri_thread *here = tri_thread_here_or_null(engine);
    if (here == NULL || here->worker == NULL) return;
    atomic_store(&here->worker->unwinds, true);
    atomic_store(&here->worker->held_back, 0);
}

tr_process *tri_held_process(uintptr_t held) {
    return (tr_process *)(held & ~(uintptr_t)BITS);
}

uintptr_t tri_scheduler_hold(tri_worker *worker) {
    uintptr_t target = atomic_load(&worker->target);
    if (tri_held_process(target) == NULL || (target & BUSY) != 0) return 0;
    return atomic_compare_exchange_strong(&worker->target, &target, target | BUSY) ? target : 0;
}

/* Whoever ended the process meanwhile found it BUSY and sent no interrupt: it is ours to send. */
void tri_scheduler_unhold(tri_worker *worker, uintptr_t held) {
    tr_engine *engine = worker->thread.engine;
    atomic_store(&worker->target, held);
    if ((held & BITS) != 0 || engine->host.interrupt == NULL) return;
    if (tri_is_dead(tri_held_process(held))) send_interrupt(engine, worker, held, SEND);
}
