/* test_stealing.c: several workers without an interpreter lock, each with its own queue (O84 to O88).
 *
 * A herd of processes is driven to and fro between eight workers while callbacks compute for longer than a
 * tick, wait in the engine, and are sent to from outside: none is ever run by two workers at once, none is
 * forgotten in a queue. */
#include "actors.h"
#include "engine.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { HOPS = 2000 };
#else
enum { HOPS = 10000 };
#endif

enum { WORKERS = 8, HERD = 200, BALLS = 64, OUTSIDE = 4 };

static tr_engine *engine;
static _Atomic int count, started_count;
static _Atomic bool flag;

static void begin(uint32_t parallel) {
    atomic_store(&count, 0);
    atomic_store(&started_count, 0);
    atomic_store(&flag, false);
    engine = engine_with((tr_options){.parallel = parallel});
}

static tr_counters counters(void) {
    tr_counters now;
    tr_engine_counters(engine, &now);
    return now;
}

/* ---- Spreading ----------------------------------------------------------------------------------*/

static void meet(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)message;
    atomic_fetch_add(&count, 1);
    EVENTUALLY(atomic_load(&count) >= me->number);
}

static void wake_all_and_meet(tr_process *self, actor *me, tr_message *message) {
    const tr_pid *others = me->data;
    for (int i = 0; i < WORKERS - 1; i++) tell(engine, others[i], 0);
    meet(self, me, message);
}

/* One callback wakes seven others and waits for them, in its place, until all run: each on a worker of its own. */
static void what_one_callback_wakes_spreads_over_all_workers_O88(void) {
    tr_pid others[WORKERS - 1];
    begin(WORKERS);
    for (int i = 0; i < WORKERS - 1; i++)
        others[i] = start(engine, &(actor){.handle = meet, .number = WORKERS});
    tell(engine, start(engine, &(actor){.handle = wake_all_and_meet, .number = WORKERS,
                                        .data = others}), 0);
    EVENTUALLY(atomic_load(&count) == WORKERS);
    CHECK(counters().steals > 0);
    engine_end(engine);
}

static void raise_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_store(&flag, true);
}

static void wake_and_wait_for_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)message;
    tell(engine, me->peer, 0);
    EVENTUALLY(atomic_load(&flag));
}

/* The one process a worker keeps to itself, for when its callback is over: not for ever. */
static void one_process_behind_a_long_callback_is_stolen(void) {
    begin(2);
    tr_pid last = start(engine, &(actor){.handle = raise_flag});
    tell(engine, start(engine, &(actor){.handle = wake_and_wait_for_flag, .peer = last}), 0);
    EVENTUALLY(atomic_load(&flag));
    CHECK_EQ(counters().handoffs, 0); /* a place was free, so nobody lost one */
    engine_end(engine);
}

static void wait_for_flag(tr_process *self, actor *me, tr_message *message) {
    (void)self, (void)me, (void)message;
    atomic_fetch_add(&started_count, 1);
    EVENTUALLY(atomic_load(&flag));
}

/* All places are taken by long callbacks: who holds one loses it, with what it has queued. */
static void a_place_goes_to_another_worker_with_its_queue(void) {
    begin(2);
    tr_pid last = start(engine, &(actor){.handle = raise_flag});
    tell(engine, start(engine, &(actor){.handle = wait_for_flag}), 0);
    EVENTUALLY(atomic_load(&started_count) == 1);
    tell(engine, start(engine, &(actor){.handle = wake_and_wait_for_flag, .peer = last}), 0);
    EVENTUALLY(atomic_load(&flag));
    EVENTUALLY(counters().threads_detached == 0);
    engine_end(engine);
}

static void count_on(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    me->number++;
    if (me->number == 3 * TRI_SLICE) atomic_fetch_add(&count, 1);
    if (!atomic_load(&flag)) tell(engine, tr_process_pid(self), 0);
}

/* None of them ever sleeps, so no worker is ever without work: each gets its turns all the same. */
static void busy_processes_all_get_on_O84(void) {
    enum { BUSY = 7 };
    begin(2);
    for (int i = 0; i < BUSY; i++) tell(engine, start(engine, &(actor){.handle = count_on}), 0);
    EVENTUALLY(atomic_load(&count) == BUSY);
    atomic_store(&flag, true);
    engine_end(engine);
}

/* ---- The herd -----------------------------------------------------------------------------------*/

typedef struct sheep {
    _Atomic bool inside;
    uint64_t random;
    uint64_t met; /* not atomic: the thread sanitizer sees to it that one worker at a time is in here */
} sheep;

static tr_pid herd[HERD];
static _Atomic uint64_t under_way, handled;

static uint64_t dice(uint64_t *random) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random >> 11;
}

static void throw(uint64_t *random, uint64_t hops) {
    tr_message *ball = tr_message_new(TR_MESSAGE_USER);
    CHECK(ball != NULL);
    ball->number = hops;
    CHECK_EQ(tr_send_message(engine, herd[dice(random) % HERD], ball), TR_OK);
}

static void compute(uint64_t nanoseconds) {
    for (uint64_t end = in(nanoseconds); tri_clock_monotonic() < end;) continue;
}

static void on_ball(tr_process *self, void *state, tr_message *ball) {
    sheep *me = state;
    CHECK(!atomic_exchange(&me->inside, true));
    me->met++;
    uint64_t what = dice(&me->random) % 1024;
    if (what < 2) compute(3 * MS);
    if (what == 2) tr_sleep(self, in(MS));
    atomic_fetch_add(&handled, 1);
    if (ball->number > 0) throw(&me->random, ball->number - 1);
    atomic_store(&me->inside, false);
    if (ball->number == 0) atomic_fetch_sub(&under_way, 1);
}

static void sheep_release(void *state) {
    atomic_fetch_sub(&live_actors, 1);
    free(state);
}

static const tr_behaviour grazing = {.handle = on_ball, .release = sheep_release};

static void *throw_in(void *seed) {
    uint64_t random = (uintptr_t)seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (int i = 0; i < BALLS / OUTSIDE; i++) {
        throw(&random, HOPS);
        if (i % 4 == 0) pause_a_little();
    }
    return NULL;
}

static void drive(uint32_t parallel) {
    begin(parallel);
    atomic_store(&under_way, BALLS);
    atomic_store(&handled, 0);
    for (int i = 0; i < HERD; i++) {
        sheep *made = calloc(1, sizeof *made);
        CHECK(made != NULL);
        made->random = (uint64_t)i * UINT64_C(0x9E3779B97F4A7C15) + 1;
        atomic_fetch_add(&live_actors, 1);
        tr_spawn_options options = {.priority = i % 16 < 12 ? TR_PRIORITY_NORMAL : i % 4};
        CHECK_EQ(tr_spawn(engine, &options, &grazing, made, &herd[i], NULL), TR_OK);
    }
    pthread_t threads[OUTSIDE];
    for (uintptr_t i = 0; i < OUTSIDE; i++)
        CHECK(pthread_create(&threads[i], NULL, throw_in, (void *)(i + 1)) == 0);
    for (int i = 0; i < OUTSIDE; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    EVENTUALLY(atomic_load(&under_way) == 0);
    CHECK_EQ(atomic_load(&handled), BALLS * (HOPS + UINT64_C(1)));
    EVENTUALLY(counters().run_queue == 0 && counters().threads_detached == 0);
    tr_counters end = counters();
    printf("   %llu slices, %llu steals, %llu hand-offs, %llu threads\n",
           (unsigned long long)end.slices, (unsigned long long)end.steals,
           (unsigned long long)end.handoffs, (unsigned long long)end.threads);
    engine_end(engine);
}

static void no_process_is_lost_or_run_twice_on_eight_workers(void) { drive(WORKERS); }
static void no_process_is_lost_or_run_twice_on_two_workers(void) { drive(2); }
static void no_process_is_lost_or_run_twice_on_one_worker(void) { drive(1); }

int main(void) {
    TEST(what_one_callback_wakes_spreads_over_all_workers_O88);
    TEST(one_process_behind_a_long_callback_is_stolen);
    TEST(a_place_goes_to_another_worker_with_its_queue);
    TEST(busy_processes_all_get_on_O84);
    TEST(no_process_is_lost_or_run_twice_on_eight_workers);
    TEST(no_process_is_lost_or_run_twice_on_two_workers);
    TEST(no_process_is_lost_or_run_twice_on_one_worker);
    return check_report();
}
