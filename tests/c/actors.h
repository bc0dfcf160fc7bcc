/* actors.h: a host, terms and processes for the tests of the process layer.
 *
 * Each test runs on a thread of its own (TEST), so that its foreign process and the record of the
 * thread end with it; after it every term and every actor's state must have been released. A term is
 * a counted box with a number. An actor is a process whose state is a function and a few fields.
 * Nothing sleeps to wait: take() waits for a message, EVENTUALLY for a condition, both with a limit
 * that only a broken engine reaches. */
#ifndef TRI_ACTORS_H
#define TRI_ACTORS_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "clock.h"
#include "tailrace.h"

#define UNUSED __attribute__((unused))
#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define LIMIT (60 * SECOND)

/* ---- Terms --------------------------------------------------------------------------------------*/

typedef struct box {
    int64_t value;
} box;

static _Atomic int live_terms, live_actors;

UNUSED static tr_term term(int64_t value) {
    box *made = malloc(sizeof *made);
    CHECK(made != NULL);
    made->value = value;
    atomic_fetch_add(&live_terms, 1);
    return made;
}

UNUSED static int64_t value_of(tr_term term) { return ((box *)term)->value; }

static void release_term(void *context, tr_term term) {
    (void)context;
    atomic_fetch_sub(&live_terms, 1);
    free(term);
}

/* A reason that carries a number. */
UNUSED static tr_reason *reason_of(tr_engine *engine, int64_t value) {
    tr_reason *reason = tr_reason_new(engine, TR_OTHER, term(value));
    CHECK(reason != NULL);
    return reason;
}

/* ---- Actors -------------------------------------------------------------------------------------*/

typedef struct actor actor;
struct actor {
    void (*handle)(tr_process *self, actor *me, tr_message *message);
    void (*run)(tr_process *self, actor *me);
    int (*step)(tr_process *self, actor *me, uint64_t *deadline);
    void *data;
    tr_pid peer;
    int64_t number;
};

static void actor_handle(tr_process *self, void *state, tr_message *message) {
    ((actor *)state)->handle(self, state, message);
}

static void actor_run(tr_process *self, void *state) { ((actor *)state)->run(self, state); }

static int actor_step(tr_process *self, void *state, uint64_t *deadline) {
    return ((actor *)state)->step(self, state, deadline);
}

static void actor_release(void *state) {
    atomic_fetch_sub(&live_actors, 1);
    free(state);
}

UNUSED static const tr_behaviour handling = {
    .name = "actor", .handle = actor_handle, .release = actor_release};
UNUSED static const tr_behaviour running = {
    .name = "runner", .run = actor_run, .release = actor_release};
UNUSED static const tr_behaviour stepping = {
    .name = "stepper", .step = actor_step, .release = actor_release};

/* Spawn with these options; `model` is copied. */
UNUSED static int spawn(tr_engine *engine, const tr_spawn_options *options, const actor *model,
                        tr_pid *pid, tr_ref *ref) {
    actor *state = malloc(sizeof *state);
    CHECK(state != NULL);
    *state = *model;
    atomic_fetch_add(&live_actors, 1);
    const tr_behaviour *behaviour = model->run != NULL    ? &running
                                    : model->step != NULL ? &stepping
                                                          : &handling;
    return tr_spawn(engine, options, behaviour, state, pid, ref);
}

/* A process on the core. */
UNUSED static tr_pid start(tr_engine *engine, const actor *model) {
    tr_pid pid = 0;
    tr_spawn_options options = {.kind = TR_KIND_CORE, .priority = TR_PRIORITY_NORMAL};
    CHECK_EQ(spawn(engine, &options, model, &pid, NULL), TR_OK);
    return pid;
}

/* A process on the elastic pool. */
UNUSED static tr_pid start_thread(tr_engine *engine, const actor *model) {
    tr_pid pid = 0;
    tr_spawn_options options = {.kind = TR_KIND_THREAD, .priority = TR_PRIORITY_NORMAL};
    CHECK_EQ(spawn(engine, &options, model, &pid, NULL), TR_OK);
    return pid;
}

/* ---- The calling thread -------------------------------------------------------------------------*/

static uint64_t in(uint64_t time) { return tri_clock_monotonic() + time; }

UNUSED static tr_pid here(tr_engine *engine) {
    tr_process *self = tr_self(engine);
    CHECK(self != NULL);
    return tr_process_pid(self);
}

/* The next message to this process that matches; waits for it. */
UNUSED static tr_message *take_match(tr_process *self,
                                     bool (*match)(const tr_message *, void *), void *context) {
    tr_cursor cursor = {0};
    uint64_t limit = in(LIMIT);
    for (;;) {
        tr_message *message = tr_receive(self, match, context, &cursor);
        if (message != NULL) return message;
        CHECK_EQ(tr_wait(self, limit), TR_OK);
    }
}

UNUSED static tr_message *take(tr_engine *engine) {
    return take_match(tr_self(engine), NULL, NULL);
}

/* The number in the next message, which must be of this kind and carry a term. */
UNUSED static int64_t take_number(tr_engine *engine, uint32_t kind) {
    tr_message *message = take(engine);
    CHECK_EQ(message->kind, kind);
    int64_t value = value_of(message->term);
    tr_message_free(engine, message);
    return value;
}

UNUSED static bool mailbox_is_empty(tr_engine *engine) {
    tr_cursor cursor = {0};
    tr_message *message = tr_receive(tr_self(engine), NULL, NULL, &cursor);
    tr_message_free(engine, message);
    return message == NULL;
}

UNUSED static void tell(tr_engine *engine, tr_pid pid, int64_t value) {
    tr_send(engine, pid, TR_MESSAGE_TERM, term(value));
}

/* The next message must be the Down or Exit of this process; answers the reason's kind. */
UNUSED static int take_end(tr_engine *engine, uint32_t kind, tr_pid pid, tr_ref ref,
                           int64_t *number) {
    tr_message *message = take(engine);
    CHECK_EQ(message->kind, kind);
    CHECK_EQ(message->from, pid);
    if (kind == TR_MESSAGE_DOWN) CHECK_EQ(message->ref, ref);
    int reason = tr_reason_kind(message->reason);
    if (number != NULL) *number = value_of(tr_reason_term(message->reason));
    tr_message_free(engine, message);
    return reason;
}

/* Wait for the end of a process that somebody else made. */
UNUSED static int wait_for_end(tr_engine *engine, tr_pid pid) {
    tr_ref ref;
    CHECK_EQ(tr_monitor(tr_self(engine), pid, NULL, &ref), TR_OK);
    return take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL);
}

UNUSED static void pause_a_little(void) {
    struct timespec pause = {.tv_nsec = 200000};
    nanosleep(&pause, NULL);
}

#define EVENTUALLY(condition)                                                                      \
    do {                                                                                           \
        for (uint64_t eventually_limit = in(LIMIT); !(condition); pause_a_little())                \
            CHECK(tri_clock_monotonic() < eventually_limit && #condition);                         \
    } while (0)

/* ---- Engines and tests --------------------------------------------------------------------------*/

UNUSED static const tr_host plain_host = {.release = release_term};

UNUSED static tr_engine *engine_with(tr_options options) {
    tr_engine *engine = tr_engine_new(&options, &plain_host);
    CHECK(engine != NULL);
    return engine;
}

UNUSED static tr_engine *engine_new(void) { return engine_with((tr_options){0}); }

UNUSED static void engine_end(tr_engine *engine) {
    CHECK_EQ(tr_engine_stop(engine, in(LIMIT)), 0);
    tr_engine_free(engine);
}

static void *run_test(void *test) {
    (*(void (**)(void))test)();
    return NULL;
}

UNUSED static void on_its_own_thread(void (*test)(void)) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_test, &test) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_EQ(atomic_load(&live_terms), 0);
    CHECK_EQ(atomic_load(&live_actors), 0);
}

#define TEST(test)                                                                                 \
    do {                                                                                           \
        on_its_own_thread(test);                                                                   \
        check_passed++;                                                                            \
        printf("ok %s\n", #test);                                                                  \
        fflush(stdout);                                                                            \
    } while (0)

#endif
