/* test_exit.c: exit signals, links and monitors (O6 to O8, O14, O27 to O56). */
#include "puppet.h"

/* ---- The matrix (O27 to O35) --------------------------------------------------------------------*/

enum { SIGNAL, SIGNAL_SELF, LINKED, LINKED_KILLED }; /* how the target hears of it */
enum { LIVES = -1 };
enum { NUMBER = 77 };

typedef struct row {
    const char *rule;
    int how, kind;
    int dies;  /* what a target that does not trap ends with, or LIVES */
    int hears; /* what one that traps gets as a message, or LIVES if it dies as above */
} row;

static const row matrix[] = {
    {"O27 normal", SIGNAL, TR_NORMAL, LIVES, TR_NORMAL},
    {"O28 normal to itself", SIGNAL_SELF, TR_NORMAL, TR_NORMAL, TR_NORMAL},
    {"O29 any other", SIGNAL, TR_OTHER, TR_OTHER, TR_OTHER},
    {"O29 any other to itself", SIGNAL_SELF, TR_OTHER, TR_OTHER, TR_OTHER},
    {"O29 shutdown", SIGNAL, TR_SHUTDOWN, TR_SHUTDOWN, TR_SHUTDOWN},
    {"O29 shutdown with", SIGNAL, TR_SHUTDOWN_WITH, TR_SHUTDOWN_WITH, TR_SHUTDOWN_WITH},
    {"O30 kill", SIGNAL, TR_KILL, TR_KILLED, LIVES},
    {"O30 kill to itself", SIGNAL_SELF, TR_KILL, TR_KILLED, LIVES},
    {"O31 killed", SIGNAL, TR_KILLED, TR_KILLED, TR_KILLED},
    {"O32 a link ended normal", LINKED, TR_NORMAL, LIVES, TR_NORMAL},
    {"O33 a link ended otherwise", LINKED, TR_OTHER, TR_OTHER, TR_OTHER},
    {"O33 a link ended shutdown", LINKED, TR_SHUTDOWN, TR_SHUTDOWN, TR_SHUTDOWN},
    {"O34 a link was killed", LINKED_KILLED, TR_KILL, TR_KILLED, TR_KILLED},
    {"O35 a link ended itself with kill", LINKED, TR_KILL, TR_KILL, TR_KILL},
};

static tr_reason *make_reason(tr_engine *engine, int kind) {
    if (kind <= TR_TIMEOUT) return tr_reason_constant(kind);
    tr_reason *reason = tr_reason_new(engine, kind, term(NUMBER));
    CHECK(reason != NULL);
    return reason;
}

/* Do it to `target`; answers the process the signal comes from. */
static tr_pid send_signal(tr_engine *engine, const row *row, tr_pid target) {
    tr_reason *reason = make_reason(engine, row->kind);
    if (row->how == SIGNAL_SELF) {
        order(engine, target, DO_EXIT, target, reason, 0);
        return target;
    }
    tr_pid peer = puppet(engine);
    if (row->how == SIGNAL) {
        order(engine, peer, DO_EXIT, target, reason, 0);
        return peer;
    }
    order(engine, peer, DO_LINK, target, NULL, 0);
    int64_t linked;
    CHECK(ask(engine, peer, &linked));
    CHECK_EQ(linked, TR_OK);
    if (row->how == LINKED)
        order(engine, peer, DO_END, 0, reason, 0);
    else
        tr_exit(engine, here(engine), peer, reason);
    return peer;
}

static void check_reason(const tr_message *message, int kind) {
    CHECK_EQ(tr_reason_kind(message->reason), kind);
    if (kind > TR_TIMEOUT) CHECK_EQ(value_of(tr_reason_term(message->reason)), NUMBER);
}

static void try_row(const row *row, bool traps) {
    tr_engine *engine = engine_new();
    tr_pid target = puppet(engine);
    tr_ref ref = watch(engine, target);
    order(engine, target, DO_TRAP, 0, NULL, traps);
    CHECK(ask(engine, target, NULL));
    tr_pid from = send_signal(engine, row, target);
    if (traps && row->hears != LIVES) {
        tr_message *heard = take(engine);
        CHECK_EQ(heard->kind, TR_MESSAGE_EXIT);
        CHECK_EQ(heard->number, target);
        CHECK_EQ(heard->from, from);
        check_reason(heard, row->hears);
        tr_message_free(engine, heard);
        CHECK(ask(engine, target, NULL));
    } else if (row->dies != LIVES) {
        tr_message *down = take(engine);
        CHECK_EQ(down->kind, TR_MESSAGE_DOWN);
        CHECK_EQ(down->ref, ref);
        check_reason(down, row->dies);
        tr_message_free(engine, down);
        CHECK(!tr_alive(engine, target));
    } else {
        if (row->how == SIGNAL) ask(engine, from, NULL);
        if (row->how == LINKED) wait_for_end(engine, from);
        CHECK(ask(engine, target, NULL));
    }
    CHECK(mailbox_is_empty(engine));
    engine_end(engine);
}

static void the_exit_matrix_O27_to_O35(void) {
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
        try_row(&matrix[i], false);
        try_row(&matrix[i], true);
    }
}

/* ---- Exit signals -------------------------------------------------------------------------------*/

static void a_death_runs_along_a_chain_and_stops_at_a_trap_O38(void) {
    enum { LENGTH = 200 };
    tr_engine *engine = engine_new();
    tr_pid chain[LENGTH];
    for (int i = 0; i < LENGTH; i++) {
        chain[i] = puppet(engine);
        if (i > 0) order(engine, chain[i], DO_LINK, chain[i - 1], NULL, 0);
        CHECK(ask(engine, chain[i], NULL));
    }
    order(engine, chain[LENGTH / 2], DO_TRAP, 0, NULL, 1);
    CHECK(ask(engine, chain[LENGTH / 2], NULL));
    tr_ref ref = watch(engine, chain[LENGTH / 2 - 1]);
    order(engine, chain[0], DO_END, 0, make_reason(engine, TR_OTHER), 0);
    int64_t number;
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, chain[LENGTH / 2 - 1], ref, &number), TR_OTHER);
    CHECK_EQ(number, NUMBER);
    CHECK_EQ(take_end(engine, TR_MESSAGE_EXIT, chain[LENGTH / 2 - 1], 0, &number), TR_OTHER);
    for (int i = 0; i < LENGTH; i++) CHECK_EQ(tr_alive(engine, chain[i]), i >= LENGTH / 2);
    engine_end(engine);
}

static void is_dead_at_once_after_a_kill_O12(void) {
    tr_engine *engine = engine_new();
    for (int i = 0; i < 500; i++) {
        tr_pid pid = puppet(engine);
        tr_exit(engine, here(engine), pid, tr_reason_constant(TR_KILL));
        CHECK(!tr_alive(engine, pid));
        CHECK_EQ(tr_process_info(engine, pid, &(tr_info){0}), TR_EDEAD);
        CHECK_EQ(tr_send(engine, pid, TR_MESSAGE_TERM, term(1)), TR_EDEAD);
        tr_exit(engine, here(engine), pid, tr_reason_constant(TR_KILL)); /* does nothing (O39) */
    }
    engine_end(engine);
}

/* O43: whoever is killed in the middle of a callback is dead for all at once; it hears of it from every
 * call, and what it does then changes nothing. */
static _Atomic bool inside, go_on;

static void linger(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    tr_engine *engine = tr_process_engine(self);
    atomic_store(&inside, true);
    EVENTUALLY(atomic_load(&go_on));
    tr_pid pid = 0;
    tr_ref ref = 0;
    tr_spawn_options options = {.link = true};
    CHECK(tr_process_is_dead(self));
    CHECK_EQ(tr_link(self, me->peer), TR_EKILLED);
    CHECK_EQ(tr_monitor(self, me->peer, term(1), &ref), TR_EKILLED);
    CHECK_EQ(spawn(engine, &options, &(actor){.handle = obey}, &pid, NULL), TR_EKILLED);
    CHECK_EQ(tr_wait(self, TR_FOREVER), TR_EKILLED);
    CHECK_EQ(tr_sleep(self, TR_FOREVER), TR_EKILLED);
    tr_call_options call = {.kind = TR_MESSAGE_CALL, .term = term(1)};
    CHECK_EQ(tr_call(self, me->peer, &call), TR_EKILLED);
    CHECK_EQ(tr_register(engine, "late", tr_process_pid(self), &pid), TR_EDEAD);
    tr_reason *reason = tr_process_reason(self);
    CHECK_EQ(tr_reason_kind(reason), TR_KILLED);
    tr_exit_self(self, tr_reason_constant(TR_NORMAL));
    atomic_store(&inside, false);
}

static void whoever_is_killed_in_a_callback_is_gone_before_it_returns_O43(void) {
    tr_engine *engine = engine_new();
    atomic_store(&inside, false);
    atomic_store(&go_on, false);
    tr_pid holder, pid = start(engine, &(actor){.handle = linger, .peer = here(engine)});
    CHECK_EQ(tr_register(engine, "name", pid, &holder), TR_OK);
    tr_ref ref = watch(engine, pid);
    tell(engine, pid, 1);
    EVENTUALLY(atomic_load(&inside));
    tr_exit(engine, here(engine), pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_KILLED);
    CHECK_EQ(tr_whereis(engine, "name"), 0);
    atomic_store(&go_on, true);
    EVENTUALLY(!atomic_load(&inside));
    engine_end(engine);
}

/* ---- Links --------------------------------------------------------------------------------------*/

static void a_link_is_one_and_has_two_ends_O44_O47(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    tr_pid pid = puppet(engine), linked;
    for (int i = 0; i < 3; i++) CHECK_EQ(tr_link(self, pid), TR_OK);
    CHECK_EQ(tr_link(self, here(engine)), TR_OK);
    CHECK_EQ(tr_process_bonds(engine, pid, TR_LINKS, &linked, 1), 1);
    CHECK_EQ(linked, here(engine));
    CHECK_EQ(tr_process_bonds(engine, here(engine), TR_LINKS, &linked, 1), 1);
    CHECK_EQ(linked, pid);
    tr_unlink(self, pid);
    tr_unlink(self, pid);
    CHECK_EQ(tr_process_bonds(engine, pid, TR_LINKS, NULL, 0), 0);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(tr_link(self, pid), TR_EDEAD); /* O36: what that means to the caller is the host's */
    tr_unlink(self, pid);
    CHECK(!tr_process_is_dead(self));
    engine_end(engine);
}

static void no_exit_comes_after_unlink_O46(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    tr_trap_exit(self, true);
    for (int i = 0; i < 300; i++) {
        tr_pid pid = puppet(engine);
        tr_link(self, pid);
        order(engine, pid, DO_END, 0, tr_reason_constant(TR_SHUTDOWN), 0);
        tr_unlink(self, pid);
        tr_cursor cursor = {0};
        tr_message_free(engine, tr_receive(self, NULL, NULL, &cursor)); /* already there: it stays */
        EVENTUALLY(!tr_alive(engine, pid));
        CHECK(mailbox_is_empty(engine));
    }
    engine_end(engine);
}

static void the_trap_counts_when_the_signal_comes_O40(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    CHECK(!tr_trap_exit(self, true));
    tr_exit(engine, here(engine), here(engine), make_reason(engine, TR_OTHER));
    CHECK(tr_trap_exit(self, false));
    CHECK_EQ(take_end(engine, TR_MESSAGE_EXIT, here(engine), 0, NULL), TR_OTHER);
    CHECK(!tr_process_is_dead(self));
    engine_end(engine);
}

/* ---- Spawned with bonds -------------------------------------------------------------------------*/

static void end_at_once(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    tr_exit_self(self, reason_of(tr_process_engine(self), me->number));
}

static void a_child_that_dies_at_once_is_heard_with_its_reason_O6_O7_O8(void) {
    enum { CHILDREN = 3000 };
    tr_engine *engine = engine_with((tr_options){.parallel = 4});
    tr_trap_exit(tr_self(engine), true);
    tr_ref refs[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        tr_pid pid;
        tr_spawn_options options = {.link = true, .monitor = true,
                                    .first = tr_message_new(TR_MESSAGE_TERM)};
        actor model = {.handle = end_at_once, .number = i};
        CHECK_EQ(spawn(engine, &options, &model, &pid, &refs[i]), TR_OK);
    }
    bool exits[CHILDREN] = {0}, downs[CHILDREN] = {0};
    for (int i = 0; i < 2 * CHILDREN; i++) {
        tr_message *message = take(engine);
        CHECK_EQ(tr_reason_kind(message->reason), TR_OTHER);
        int64_t which = value_of(tr_reason_term(message->reason));
        bool *seen = message->kind == TR_MESSAGE_EXIT ? exits : downs;
        CHECK(!seen[which]);
        seen[which] = true;
        if (message->kind == TR_MESSAGE_DOWN) CHECK_EQ(message->ref, refs[which]);
        tr_message_free(engine, message);
    }
    CHECK(mailbox_is_empty(engine));
    engine_end(engine);
}

static void a_dead_parent_makes_no_children(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = 0;
    tr_exit(engine, 0, here(engine), tr_reason_constant(TR_KILL));
    tr_spawn_options options = {.link = true, .name = "child", .monitor = true,
                                .first = tr_message_new(TR_MESSAGE_TERM)};
    CHECK_EQ(spawn(engine, &options, &(actor){.handle = obey}, &pid, &(tr_ref){0}), TR_EKILLED);
    CHECK_EQ(tr_whereis(engine, "child"), 0);
    engine_end(engine);
}

/* ---- Monitors -----------------------------------------------------------------------------------*/

static void each_monitor_fires_once_O48_O52(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = puppet(engine), watchers[4];
    tr_ref refs[3];
    for (int i = 0; i < 3; i++) refs[i] = watch(engine, pid);
    CHECK(refs[0] != refs[1] && refs[1] != refs[2]);
    CHECK_EQ(tr_process_bonds(engine, pid, TR_MONITORED_BY, watchers, 4), 3);
    CHECK_EQ(watchers[0], here(engine));
    CHECK_EQ(tr_process_bonds(engine, here(engine), TR_MONITORS, watchers, 4), 3);
    CHECK_EQ(watchers[2], pid);
    order(engine, pid, DO_END, 0, make_reason(engine, TR_OTHER), 0);
    tr_ref seen = 0;
    for (int i = 0; i < 3; i++) {
        tr_message *down = take(engine);
        CHECK_EQ(down->kind, TR_MESSAGE_DOWN);
        check_reason(down, TR_OTHER);
        seen ^= down->ref;
        tr_message_free(engine, down);
    }
    CHECK_EQ(seen, refs[0] ^ refs[1] ^ refs[2]);
    CHECK(mailbox_is_empty(engine));
    CHECK(!tr_process_is_dead(tr_self(engine)));
    engine_end(engine);
}

static void to_watch_the_dead_gives_noproc_at_once_O49(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = puppet(engine);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    tr_ref ref;
    CHECK_EQ(tr_monitor(tr_self(engine), pid, term(5), &ref), TR_OK);
    tr_message *down = take(engine);
    CHECK_EQ(down->ref, ref);
    CHECK_EQ(tr_reason_kind(down->reason), TR_NOPROC);
    CHECK_EQ(value_of(down->term), 5); /* O50: the label comes back */
    tr_message_free(engine, down);
    ref = watch(engine, 0); /* nobody has that name */
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, 0, ref, NULL), TR_NOPROC);
    engine_end(engine);
}

static void to_watch_oneself_does_nothing_O51(void) {
    tr_engine *engine = engine_new();
    tr_ref ref;
    CHECK_EQ(tr_monitor(tr_self(engine), here(engine), term(5), &ref), TR_OK);
    CHECK(ref != 0);
    CHECK(!tr_demonitor(tr_self(engine), ref, true));
    engine_end(engine);
}

static void demonitor_stops_it_and_flush_takes_it_back_O53_O54(void) {
    tr_engine *engine = engine_new();
    tr_process *self = tr_self(engine);
    tr_pid pid = puppet(engine);
    tr_ref stopped = watch(engine, pid), flushed = watch(engine, pid), kept = watch(engine, pid);
    CHECK(tr_demonitor(self, stopped, false));
    CHECK(!tr_demonitor(self, stopped, true));
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK(!tr_demonitor(self, flushed, true));
    CHECK(!tr_demonitor(self, kept, false));
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, kept, NULL), TR_KILLED);
    CHECK(mailbox_is_empty(engine));
    CHECK(!tr_demonitor(self, 987654321, true)); /* unknown */
    engine_end(engine);
}

static void only_the_watcher_may_demonitor(void) {
    tr_engine *engine = engine_new();
    tr_pid pid = puppet(engine), other = puppet(engine);
    tr_ref ref = watch(engine, pid);
    tr_message *message = tr_message_new(DO_DEMONITOR);
    message->ref = ref;
    tr_send_message(engine, other, message);
    CHECK(ask(engine, other, NULL));
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_KILLED);
    engine_end(engine);
}

static void monitors_go_with_the_watcher_O55(void) {
    tr_engine *engine = engine_new();
    tr_pid watched = puppet(engine), watcher = puppet(engine);
    order(engine, watcher, DO_MONITOR, watched, NULL, 0);
    CHECK(ask(engine, watcher, NULL));
    CHECK_EQ(tr_process_bonds(engine, watched, TR_MONITORED_BY, NULL, 0), 1);
    tr_exit(engine, 0, watcher, tr_reason_constant(TR_KILL));
    CHECK_EQ(tr_process_bonds(engine, watched, TR_MONITORED_BY, NULL, 0), 0);
    CHECK(ask(engine, watched, NULL));
    engine_end(engine);
}

static void end_after_a_message(tr_process *self, actor *me, tr_message *message) {
    (void)message;
    tell(tr_process_engine(self), me->peer, 1);
    tr_exit_self(self, tr_reason_constant(TR_SHUTDOWN));
}

static void what_was_sent_before_dying_comes_before_the_down_O20_O14(void) {
    tr_engine *engine = engine_with((tr_options){.parallel = 2});
    for (int i = 0; i < 1000; i++) {
        tr_pid holder;
        tr_pid pid = start(engine, &(actor){.handle = end_after_a_message, .peer = here(engine)});
        CHECK_EQ(tr_register(engine, "one", pid, &holder), TR_OK);
        tr_ref ref = watch(engine, pid);
        tell(engine, pid, 0);
        CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
        CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_SHUTDOWN);
        CHECK_EQ(tr_whereis(engine, "one"), 0);
    }
    engine_end(engine);
}

/* ---- Foreign threads ----------------------------------------------------------------------------*/

static void *use_the_engine(void *context) {
    actor *shared = context;
    shared->peer = here(shared->data);
    return NULL;
}

static void a_thread_s_process_ends_normally_with_the_thread(void) {
    tr_engine *engine = engine_new();
    actor shared = {.data = engine};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_the_engine, &shared) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(shared.peer != 0);
    CHECK(!tr_alive(engine, shared.peer));
    engine_end(engine);
}

static void a_thread_whose_process_was_ended_gets_a_fresh_one(void) {
    tr_engine *engine = engine_new();
    tr_pid first = here(engine);
    tr_exit(engine, 0, first, make_reason(engine, TR_OTHER));
    CHECK_EQ(here(engine), first);
    tr_reason *reason = tr_process_reason(tr_self(engine));
    CHECK_EQ(tr_reason_kind(reason), TR_OTHER);
    tr_reason_release(reason);
    tr_self_renew(engine);
    CHECK(here(engine) != first);
    CHECK(tr_alive(engine, here(engine)));
    tr_pid second = here(engine);
    tr_self_renew(engine); /* only the dead are renewed */
    CHECK_EQ(here(engine), second);
    engine_end(engine);
}

int main(void) {
    TEST(the_exit_matrix_O27_to_O35);
    TEST(a_death_runs_along_a_chain_and_stops_at_a_trap_O38);
    TEST(is_dead_at_once_after_a_kill_O12);
    TEST(whoever_is_killed_in_a_callback_is_gone_before_it_returns_O43);
    TEST(a_link_is_one_and_has_two_ends_O44_O47);
    TEST(no_exit_comes_after_unlink_O46);
    TEST(the_trap_counts_when_the_signal_comes_O40);
    TEST(a_child_that_dies_at_once_is_heard_with_its_reason_O6_O7_O8);
    TEST(a_dead_parent_makes_no_children);
    TEST(each_monitor_fires_once_O48_O52);
    TEST(to_watch_the_dead_gives_noproc_at_once_O49);
    TEST(to_watch_oneself_does_nothing_O51);
    TEST(demonitor_stops_it_and_flush_takes_it_back_O53_O54);
    TEST(only_the_watcher_may_demonitor);
    TEST(monitors_go_with_the_watcher_O55);
    TEST(what_was_sent_before_dying_comes_before_the_down_O20_O14);
    TEST(a_thread_s_process_ends_normally_with_the_thread);
    TEST(a_thread_whose_process_was_ended_gets_a_fresh_one);
    return check_report();
}
