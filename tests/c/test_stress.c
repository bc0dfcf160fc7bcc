/* test_stress.c: everything at once, on eight core workers without an interpreter lock, and under one.
 *
 * Citizens, processes on the core and on the elastic pool, and a few foreign threads send to each other,
 * link, watch, name, call, enter, end and spawn at random until a budget of actions is spent. While they do,
 * and in an audit of the survivors after, the promises are checked: no message lost or swapped between one
 * sender and one receiver (O20), every monitor fires exactly once and with one reason for all (O7,
 * O52), a name is free before the Down is there (O14), a call ends with its own answer or with the
 * callee's end (O111, O115), no circle of calls waits (the calls have no limit), and nothing is left. */
#include "fake_lock.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { ACTIONS = 60000 };
#else
enum { ACTIONS = 300000 };
#endif

enum { MOST = 20000, AT_ONCE = 400, NAMES = 32, PAIRS = 512, WATCHED = 64, CALLERS = 48, POOL = 24 };

enum { KICK = TR_MESSAGE_USER, LETTER, ALARM, AUDIT };

/* What a citizen knows. Only its own thread touches it. */
typedef struct pair {
    tr_pid pid;
    uint64_t number;
} pair;

typedef struct citizen {
    uint32_t index; /* in everyone[] */
    uint64_t random;
    pair sent[PAIRS], got[PAIRS];
    struct { tr_ref ref; uint32_t index; bool from_spawn; } watched[WATCHED];
    tr_pid owed_to; /* a call not answered yet */
    tr_ref owed;
    int64_t owed_number;
    int depth;
} citizen;

static tr_engine *engine;
static bool locked; /* whether there is an interpreter lock; all but waits is done with it */

static void attach(void) {
    if (locked) lock_take();
}

static void detach(void) {
    if (locked) lock_give();
}

static int detached(int (*wait)(tr_process *, uint64_t), tr_process *self, uint64_t deadline) {
    detach();
    int result = wait(self, deadline);
    attach();
    return result;
}
static _Atomic int64_t budget;
static _Atomic uint32_t population, callers, pool;
static _Atomic int32_t living;
static struct {
    _Atomic tr_pid pid;
    _Atomic int64_t reason; /* 0: not heard of; else what the first to hear of the end heard */
} everyone[MOST];
static _Atomic uint64_t letters, downs, calls, answers, ends, circles;

static uint64_t next_random(citizen *me) {
    me->random ^= me->random << 13;
    me->random ^= me->random >> 7;
    me->random ^= me->random << 17;
    return me->random >> 11;
}

static uint32_t anybody(citizen *me) {
    uint32_t known = atomic_load(&population);
    if (known > MOST) known = MOST;
    /* Mostly the young, who live. */
    uint32_t among = next_random(me) % 8 == 0 || known < AT_ONCE ? known : AT_ONCE;
    return known - 1 - (uint32_t)(next_random(me) % among);
}

static tr_pid pid_of(uint32_t index) { return atomic_load(&everyone[index].pid); }

static pair *pair_with(pair *pairs, tr_pid pid) {
    for (uint32_t i = 0, at = (uint32_t)(pid ^ pid >> 32) % PAIRS; i < PAIRS; i++) {
        pair *entry = &pairs[(at + i) % PAIRS];
        if (entry->pid == pid) return entry;
        if (entry->pid == 0) {
            *entry = (pair){.pid = pid};
            return entry;
        }
    }
    return NULL;
}

/* ---- What comes ---------------------------------------------------------------------------------*/

static int64_t fingerprint(tr_reason *reason) {
    tr_term term = tr_reason_term(reason);
    return 1 + tr_reason_kind(reason) + (term == NULL ? 0 : value_of(term) * 16);
}

static void on_letter(citizen *me, tr_message *message) {
    pair *from = pair_with(me->got, message->from);
    if (from != NULL) CHECK_EQ(message->number, ++from->number);
    atomic_fetch_add(&letters, 1);
}

static void on_down(citizen *me, tr_message *message) {
    uint32_t i = 0;
    while (i < WATCHED && me->watched[i].ref != message->ref) i++;
    CHECK(i < WATCHED); /* else it fired twice, or was removed before */
    uint32_t index = me->watched[i].index;
    CHECK_EQ(message->from, pid_of(index));
    CHECK(!tr_alive(engine, message->from));
    if (tr_reason_kind(message->reason) == TR_NOPROC) {
        CHECK(!me->watched[i].from_spawn);
    } else {
        int64_t first = 0, heard = fingerprint(message->reason);
        if (!atomic_compare_exchange_strong(&everyone[index].reason, &first, heard))
            CHECK_EQ(heard, first);
    }
    char name[16];
    snprintf(name, sizeof name, "name%u", index % NAMES);
    CHECK(tr_whereis(engine, name) != message->from);
    me->watched[i].ref = 0;
    atomic_fetch_add(&downs, 1);
}

/* All that is watched lives: what has ended was heard of before this came. */
static void on_audit(citizen *me, tr_message *message) {
    for (uint32_t i = 0; i < WATCHED; i++)
        if (me->watched[i].ref != 0) CHECK(tr_alive(engine, pid_of(me->watched[i].index)));
    tr_reply(engine, message->from, message->ref, term(value_of(message->term) + 1));
}

static void settle_debt(citizen *me) {
    if (me->owed_to == 0) return;
    tr_reply(engine, me->owed_to, me->owed, term(me->owed_number + 1));
    tr_reply(engine, me->owed_to, me->owed, term(-1)); /* once too often */
    me->owed_to = 0;
}

static void on_call(citizen *me, tr_process *self, tr_message *message) {
    settle_debt(me);
    me->owed_to = message->from;
    me->owed = message->ref;
    me->owed_number = value_of(message->term);
    /* Rarely the answer comes only with the next message. */
    if (next_random(me) % 8 != 0)
        settle_debt(me);
    else
        tr_send_message(engine, tr_process_pid(self), tr_message_new(KICK));
}

/* ---- What a citizen does ------------------------------------------------------------------------*/

static tr_pid make(citizen *me, tr_process *self);

static void write_letter(citizen *me, tr_process *self) {
    tr_pid to = pid_of(anybody(me));
    pair *pair = pair_with(me->sent, to);
    if (pair == NULL || to == 0) return;
    tr_message *message = tr_message_new(LETTER);
    CHECK(message != NULL);
    message->from = tr_process_pid(self);
    message->number = ++pair->number;
    message->term = term(0);
    tr_send_message(engine, to, message);
}

static void watch(citizen *me, tr_process *self) {
    uint32_t index = anybody(me), i = 0;
    while (i < WATCHED && me->watched[i].ref != 0) i++;
    if (i == WATCHED || pid_of(index) == 0 || pid_of(index) == tr_process_pid(self)) return;
    tr_ref ref;
    if (tr_monitor(self, pid_of(index), term(1), &ref) != TR_OK) return;
    me->watched[i].ref = ref;
    me->watched[i].index = index;
    me->watched[i].from_spawn = false;
}

static void unwatch(citizen *me, tr_process *self) {
    uint32_t i = (uint32_t)(next_random(me) % WATCHED);
    if (me->watched[i].ref == 0) return;
    tr_demonitor(self, me->watched[i].ref, true);
    me->watched[i].ref = 0;
}

static void take_name(citizen *me, tr_process *self) {
    char name[16];
    tr_pid holder, pid = tr_process_pid(self);
    snprintf(name, sizeof name, "name%u", me->index % NAMES);
    int result = tr_register(engine, name, pid, &holder);
    if (result == TR_OK && next_random(me) % 2 == 0) tr_unregister(engine, name);
}

static void call_somebody(citizen *me, tr_process *self) {
    tr_pid to = pid_of(anybody(me)), cycle[4];
    int64_t number = (int64_t)(next_random(me) % 1000);
    if (to == 0 || me->depth > 0) return;
    if (atomic_fetch_add(&callers, 1) < CALLERS) {
        settle_debt(me); /* who waits for us meanwhile would be in no circle that is seen */
        tr_call_options options = {
            .kind = TR_MESSAGE_CALL, .term = term(number), .cycle = cycle, .size = 4};
        int result = tr_call(self, to, &options);
        if (result == TR_EDEADLOCK) {
            CHECK(options.length >= 2 && cycle[0] == tr_process_pid(self) && cycle[1] == to);
            atomic_fetch_add(&circles, 1);
        }
        if (result == TR_OK) {
            bool patient = next_random(me) % 4 != 0;
            int waited = detached(tr_call_wait, self, patient ? TR_FOREVER : in(next_random(me) % MS));
            CHECK(waited == TR_OK || waited == TR_EKILLED || !patient);
            if (waited == TR_OK || tr_call_cancel(self) == TR_OK) {
                tr_term reply;
                tr_reason *reason;
                tr_call_take(self, &reply, &reason);
                CHECK((reply == NULL) != (reason == NULL));
                if (reply != NULL) CHECK_EQ(value_of(reply), number + 1);
                if (reason != NULL) CHECK(!tr_alive(engine, to));
                if (reply != NULL) release_term(NULL, reply);
                tr_reason_release(reason);
                atomic_fetch_add(&answers, 1);
            }
            atomic_fetch_add(&calls, 1);
        }
    }
    atomic_fetch_sub(&callers, 1);
}

static void end_somebody(citizen *me, tr_process *self) {
    static const int kinds[] = {TR_NORMAL, TR_SHUTDOWN, TR_KILL, TR_OTHER};
    int kind = kinds[next_random(me) % 4];
    if (atomic_load(&living) < AT_ONCE / 2) return;
    tr_reason *reason = kind == TR_OTHER ? reason_of(engine, (int64_t)(next_random(me) % 1000))
                                         : tr_reason_constant(kind);
    if (next_random(me) % 4 == 0)
        tr_exit_self(self, reason);
    else
        tr_exit(engine, tr_process_pid(self), pid_of(anybody(me)), reason);
    atomic_fetch_add(&ends, 1);
}

static void set_timer(citizen *me) {
    tr_timer *timer;
    tr_message *message = tr_message_new(ALARM);
    message->term = term(2);
    uint64_t deadline = in(next_random(me) % (2 * MS));
    if (tr_timer_start(engine, pid_of(anybody(me)), NULL, message, deadline, &timer) != TR_OK)
        return;
    if (next_random(me) % 2 == 0) tr_timer_cancel(timer);
    tr_timer_release(timer);
}

/* An alias of a monitor or of none, used once or not at all; it goes when its owner or its monitor does. */
static void make_alias(citizen *me, tr_process *self) {
    uint32_t i = (uint32_t)(next_random(me) % WATCHED);
    int mode = (int)(next_random(me) % 3);
    tr_ref ref = mode == TR_ALIAS_DEMONITOR ? me->watched[i].ref : 0;
    if (tr_alias(self, mode, &ref) != TR_OK) return;
    if (next_random(me) % 2 == 0) tr_send_alias(engine, ref, tr_message_new(KICK));
    if (mode == TR_ALIAS_EXPLICIT && next_random(me) % 2 == 0) tr_unalias(self, ref);
}

static void act(citizen *me, tr_process *self) {
    if (atomic_fetch_sub(&budget, 1) <= 0 || tr_process_is_dead(self)) return;
    switch (next_random(me) % 24) {
    case 0: case 1: make(me, self); break;
    case 2: case 3: watch(me, self); break;
    case 4: unwatch(me, self); break;
    case 5: tr_link(self, pid_of(anybody(me))); break;
    case 6: tr_unlink(self, pid_of(anybody(me))); break;
    case 7: take_name(me, self); break;
    case 8: case 9: call_somebody(me, self); break;
    case 10: end_somebody(me, self); break;
    case 11: tr_trap_exit(self, next_random(me) % 2 == 0); break;
    case 12: set_timer(me); break;
    case 13: { tr_info info; tr_process_info(engine, pid_of(anybody(me)), &info); break; }
    case 15: make_alias(me, self); break;
    case 14: { tr_pid pids[8]; tr_process_bonds(engine, pid_of(anybody(me)), TR_LINKS, pids, 8); break; }
    default: write_letter(me, self);
    }
}

static void on_message(tr_process *self, citizen *me, tr_message *message) {
    switch (message->kind) {
    case LETTER: on_letter(me, message); break;
    case TR_MESSAGE_DOWN: on_down(me, message); break;
    case TR_MESSAGE_CALL: on_call(me, self, message); break;
    case AUDIT: settle_debt(me); on_audit(me, message); break;
    default: settle_debt(me);
    }
    for (uint64_t i = next_random(me) % 3; i > 0; i--) act(me, self);
    if (locked) checkpoint();
    if (locked && next_random(me) % 256 == 0) { /* it blocks for a moment */
        lock_give();
        pause_a_little();
        lock_take();
    }
}

/* ---- Citizens -----------------------------------------------------------------------------------*/

static void citizen_handle(tr_process *self, void *state, tr_message *message) {
    on_message(self, state, message);
}

static void citizen_run(tr_process *self, void *state) {
    tr_cursor cursor = {0};
    int result = TR_OK;
    while (result == TR_OK && !tr_process_is_dead(self)) {
        tr_message *message = tr_receive(self, NULL, NULL, &cursor);
        if (message != NULL) on_message(self, state, message);
        else result = detached(tr_wait, self, TR_FOREVER);
        tr_message_free(engine, message);
    }
    CHECK(tr_process_is_dead(self));
}

static void citizen_release(void *state) {
    atomic_fetch_sub(&living, 1);
    atomic_fetch_sub(&live_actors, 1);
    free(state);
}

static void pool_release(void *state) {
    atomic_fetch_sub(&pool, 1);
    citizen_release(state);
}

static const tr_behaviour on_core = {
    .name = "citizen", .handle = citizen_handle, .release = citizen_release};
static const tr_behaviour on_pool = {.name = "pool", .run = citizen_run, .release = pool_release};

static citizen *citizen_new(void) {
    uint32_t index = atomic_fetch_add(&population, 1);
    if (index >= MOST) {
        atomic_fetch_sub(&population, 1);
        return NULL;
    }
    citizen *made = calloc(1, sizeof *made);
    CHECK(made != NULL);
    made->index = index;
    made->random = index * UINT64_C(0x9E3779B97F4A7C15) + 1;
    atomic_fetch_add(&live_actors, 1);
    atomic_fetch_add(&living, 1);
    return made;
}

static tr_pid make(citizen *me, tr_process *self) {
    if (atomic_load(&living) >= AT_ONCE) return 0;
    citizen *child = citizen_new();
    if (child == NULL) return 0;
    uint32_t index = child->index, i = 0;
    uint64_t dice = me == NULL ? 0 : next_random(me);
    bool in_pool = dice % 8 == 1;
    if (in_pool && atomic_fetch_add(&pool, 1) >= POOL) {
        atomic_fetch_sub(&pool, 1);
        in_pool = false;
    }
    while (me != NULL && i < WATCHED && me->watched[i].ref != 0) i++;
    tr_spawn_options options = {
        .kind = in_pool ? TR_KIND_THREAD : TR_KIND_CORE,
        .priority = (int)(dice >> 4 & 3),
        .link = (dice >> 6 & 3) == 1,
        .monitor = me != NULL && i < WATCHED && (dice >> 8 & 1),
        .enter = !in_pool && me != NULL && (dice >> 9 & 3) == 1,
        .first = (dice >> 11 & 1) ? tr_message_new(KICK) : NULL,
    };
    tr_pid pid = 0;
    tr_ref ref = 0;
    int result = tr_spawn(engine, &options, in_pool ? &on_pool : &on_core, child, &pid, &ref);
    atomic_store(&everyone[index].pid, result == TR_OK ? pid : 0);
    if (result != TR_OK) {
        CHECK_EQ(result, TR_EKILLED);
        return 0;
    }
    if (options.monitor) {
        me->watched[i].ref = ref;
        me->watched[i].index = index;
        me->watched[i].from_spawn = true;
    }
    if (options.enter) {
        me->depth++;
        tr_process *inner = tr_self(engine);
        CHECK_EQ(tr_process_pid(inner), pid);
        citizen *inside = tr_process_state(inner);
        inside->depth = me->depth;
        if (me->depth < 4) act(inside, inner);
        inside->depth = 0;
        tr_leave(engine);
        CHECK(tr_self(engine) == self);
        me->depth--;
    }
    return pid;
}

/* A foreign thread: a citizen for a while, which then just ends. */
static void *foreigner(void *unused) {
    (void)unused;
    attach();
    citizen *me = citizen_new();
    tr_process *self = me == NULL ? NULL : tr_self(engine);
    if (me == NULL) goto out;
    CHECK(self != NULL);
    atomic_store(&everyone[me->index].pid, tr_process_pid(self));
    tr_cursor cursor = {0};
    for (int i = 0; i < 300 && !tr_process_is_dead(self) && atomic_load(&budget) > 0; i++) {
        tr_message *message = tr_receive(self, NULL, NULL, &cursor);
        if (message != NULL) on_message(self, me, message);
        else if (i % 16 == 0) detached(tr_wait, self, in(MS));
        else act(me, self);
        tr_message_free(engine, message);
    }
    citizen_release(me);
out:
    detach();
    return NULL;
}

/* ---- The test -----------------------------------------------------------------------------------*/

static void kick(uint64_t *random) {
    citizen dice = {.random = *random};
    tr_pid pid = pid_of(anybody(&dice));
    *random = dice.random;
    tr_send_message(engine, pid, tr_message_new(KICK));
}

static bool audit(tr_process *self, tr_pid pid) {
    tr_call_options options = {.kind = AUDIT, .term = term(5)};
    if (tr_call(self, pid, &options) != TR_OK) return false;
    CHECK_EQ(detached(tr_call_wait, self, in(LIMIT)), TR_OK);
    tr_term reply;
    tr_reason *reason;
    tr_call_take(self, &reply, &reason);
    if (reply != NULL) CHECK_EQ(value_of(reply), 6);
    if (reply != NULL) release_term(NULL, reply);
    tr_reason_release(reason);
    return true;
}

static void live(void) {
    enum { FOREIGNERS = 4 };
    pthread_t threads[FOREIGNERS];
    uint64_t random = 99;
    while (atomic_load(&budget) > 0) {
        for (int i = 0; i < FOREIGNERS; i++)
            CHECK(pthread_create(&threads[i], NULL, foreigner, NULL) == 0);
        for (int round = 0; round < 40; round++) {
            while (atomic_load(&living) < AT_ONCE / 2)
                if (make(NULL, NULL) == 0) break;
            for (int i = 0; i < 64; i++) kick(&random);
            detach();
            pause_a_little();
            attach();
        }
        detach();
        for (int i = 0; i < FOREIGNERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        attach();
        if (atomic_load(&population) >= MOST) atomic_store(&budget, 0);
    }
}

static void forget_all(void) {
    memset(everyone, 0, sizeof everyone);
    population = callers = pool = 0;
    living = 0;
    letters = downs = calls = answers = ends = circles = 0;
}

static void play(const tr_host *host, const tr_options *options) {
    forget_all();
    engine = tr_engine_new(options, host);
    CHECK(engine != NULL);
    attach();
    tr_process *self = tr_self(engine);
    atomic_store(&budget, ACTIONS);
    live();
    uint32_t everybody = atomic_load(&population), audited = 0;
    for (uint32_t i = 0; i < everybody; i++) audit(self, pid_of(i));
    for (uint32_t i = 0; i < everybody; i++) {
        audited += audit(self, pid_of(i));
        if (pid_of(i) != 0) tr_exit(engine, 0, pid_of(i), tr_reason_constant(TR_KILL));
    }
    detach();
    EVENTUALLY(atomic_load(&living) == 0);
    tr_counters counters;
    EVENTUALLY((tr_engine_counters(engine, &counters), counters.processes == 1));
    CHECK_EQ(counters.run_queue + counters.elastic_queue, 0);
    CHECK(mailbox_is_empty(engine));
    printf("   %u processes, %u at the end; %llu letters, %llu downs, %llu calls, %llu answers, "
           "%llu ends, %llu circles, %llu hand-offs\n", everybody, audited,
           (unsigned long long)atomic_load(&letters), (unsigned long long)atomic_load(&downs),
           (unsigned long long)atomic_load(&calls), (unsigned long long)atomic_load(&answers),
           (unsigned long long)atomic_load(&ends), (unsigned long long)atomic_load(&circles),
           (unsigned long long)counters.handoffs);
    engine_end(engine);
}

static int interrupt(void *context, void *thread, int how) {
    (void)context, (void)thread, (void)how;
    return TR_INTERRUPTED;
}

static void all_promises_hold_in_parallel(void) {
    locked = false;
    play(&(tr_host){.release = release_term, .interrupt = interrupt},
         &(tr_options){.parallel = 8, .max_threads = 256});
}

static void all_promises_hold_under_the_lock(void) {
    locked = true;
    play(&fake_host, &(tr_options){.parallel = 1, .max_threads = 256, .handoff = true,
                                   .switch_interval = SWITCH_INTERVAL});
    CHECK_EQ(atomic_load(&fake_threads), 0);
}

int main(void) {
    TEST(all_promises_hold_in_parallel);
    TEST(all_promises_hold_under_the_lock);
    return check_report();
}
