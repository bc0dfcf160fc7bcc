/* test_pause.c: an event loop that computes lets others have their turn at the interpreter lock. The loop is this
 * thread's: it computes, and lets go of the lock for an instant between two steps, as a look at descriptors does. */
#include <poll.h>

#include "engine.h"
#include "fake_lock.h"
#include "tailrace_loop.h"

#define STEP (MS / 5)

static tr_engine *engine;
static tr_loop *loop;
static _Atomic int served;

static void begin(void) {
    engine = locked_engine(0);
    loop = tr_loop_new(engine);
    CHECK(loop != NULL);
    atomic_store(&served, 0);
}

static void end(void) {
    tr_loop_release(loop);
    locked_engine_end(engine);
}

static void compute(uint64_t nanoseconds) {
    uint64_t until = tri_clock_monotonic() + nanoseconds;
    while (tri_clock_monotonic() < until) checkpoint();
}

static void pause_loop(void) {
    lock_give();
    tr_loop_pause(loop);
    lock_take();
    tr_loop_goes_on(loop);
}

/* One step, and the look after it. */
static void step(void) {
    compute(STEP);
    lock_give();
    lock_take();
    struct pollfd watched = {.fd = tr_loop_fd(loop), .events = POLLIN};
    if (poll(&watched, 1, 0) == 0) return;
    CHECK(tr_loop_take(loop) == NULL);
    if (tr_loop_shall_pause(loop)) pause_loop();
}

static void serve(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&served, 1);
}

/* Told by its steps: without being woken it would make thousands for one message. */
static void the_core_has_its_turn_beside_a_loop_of_the_program(void) {
    enum { MESSAGES = 20, AT_MOST = 500 };
    begin();
    tr_pid pid = start(engine, &(actor){.handle = serve});
    for (int i = 0, steps = 0; i < MESSAGES; i++) {
        tell(engine, pid, i);
        while (atomic_load(&served) == i) {
            step();
            CHECK(++steps < MESSAGES * AT_MOST);
        }
        pause_loop(); /* the core is idle again */
    }
    end();
}

static void a_loop_that_computes_pauses_after_a_switch_interval(void) {
    begin();
    uint64_t began = tri_clock_monotonic();
    CHECK(!tr_loop_shall_pause(loop));
    while (!tr_loop_shall_pause(loop)) { /* a thread that gets no processor does not compute */
        CHECK(tri_clock_monotonic() - began < LIMIT);
        compute(STEP);
    }
    CHECK(tri_clock_monotonic() - began >= SWITCH_INTERVAL);
    pause_loop();
    CHECK(!tr_loop_shall_pause(loop));
    end();
}

static void one_that_sleeps_does_not(void) {
    begin();
    CHECK(!tr_loop_shall_pause(loop));
    for (int i = 0; i < 10; i++) {
        lock_give();
        nanosleep(&(struct timespec){.tv_nsec = (long)(2 * SWITCH_INTERVAL)}, NULL);
        lock_take();
        CHECK(!tr_loop_shall_pause(loop));
    }
    end();
}

/* In an engine whose host has no lock. */
static void without_a_lock_nobody_pauses(void) {
    tr_engine *free_engine = engine_new();
    tr_loop *own = tr_loop_new(free_engine);
    CHECK(own != NULL && !tr_loop_shall_pause(own));
    uint64_t until = tri_clock_monotonic() + 2 * SWITCH_INTERVAL;
    while (tri_clock_monotonic() < until) CHECK(!tr_loop_shall_pause(own));
    tr_loop_release(own);
    engine_end(free_engine);
}

int main(void) {
    TEST(the_core_has_its_turn_beside_a_loop_of_the_program);
    TEST(a_loop_that_computes_pauses_after_a_switch_interval);
    TEST(one_that_sleeps_does_not);
    TEST(without_a_lock_nobody_pauses);
    return check_report();
}
