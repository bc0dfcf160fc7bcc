/* test_alias.c: addresses that their owner can switch off (O57 to O60, O266). */
#include "puppet.h"

static tr_engine *engine;

static tr_ref alias(int mode, tr_ref ref) {
    CHECK_EQ(tr_alias(tr_self(engine), mode, &ref), TR_OK);
    CHECK(ref != 0);
    return ref;
}

static int send_to(tr_ref ref, int64_t value) {
    tr_message *message = tr_message_new(TR_MESSAGE_TERM);
    CHECK(message != NULL);
    message->term = term(value);
    return tr_send_alias(engine, ref, message);
}

static void an_explicit_alias_lasts_until_it_is_taken_back_O57_O58(void) {
    engine = engine_new();
    tr_ref ref = alias(TR_ALIAS_EXPLICIT, 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(send_to(ref, i), TR_OK);
    CHECK(tr_unalias(tr_self(engine), ref));
    CHECK(!tr_unalias(tr_self(engine), ref));
    CHECK_EQ(send_to(ref, 9), TR_EDEAD);
    CHECK_EQ(send_to(0, 9), TR_EDEAD);
    CHECK_EQ(send_to(tr_ref_new(engine), 9), TR_EDEAD);
    for (int i = 0; i < 3; i++) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), i);
    CHECK(mailbox_is_empty(engine));
    engine_end(engine);
}

static void a_reply_alias_takes_one_message_O59(void) {
    engine = engine_new();
    tr_ref ref = alias(TR_ALIAS_REPLY, 0);
    CHECK_EQ(send_to(ref, 1), TR_OK);
    CHECK_EQ(send_to(ref, 2), TR_EDEAD);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK(!tr_unalias(tr_self(engine), ref));
    engine_end(engine);
}

static void try_to_unalias(tr_process *self, actor *me) {
    CHECK(!tr_unalias(self, (tr_ref)me->number));
    tell(engine, me->peer, 0);
}

static void only_the_owner_takes_it_back_O58(void) {
    engine = engine_new();
    tr_ref ref = alias(TR_ALIAS_EXPLICIT, 0);
    start_thread(engine, &(actor){.run = try_to_unalias, .peer = here(engine),
                                  .number = (int64_t)ref});
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 0);
    CHECK_EQ(send_to(ref, 1), TR_OK);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    engine_end(engine); /* it goes with this thread's process */
}

/* What is left of an alias of this mode after the monitor with its Ref has gone. */
static int after_the_monitor(int mode, bool by_death) {
    tr_pid pid = puppet(engine);
    tr_ref ref = watch(engine, pid);
    CHECK_EQ(alias(mode, ref), ref);
    if (by_death) {
        tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
        CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_KILLED);
    } else {
        CHECK(tr_demonitor(tr_self(engine), ref, true));
    }
    int result = send_to(ref, 1);
    if (result == TR_OK) CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK_EQ(tr_unalias(tr_self(engine), ref), result == TR_OK);
    CHECK(mailbox_is_empty(engine));
    return result;
}

static void an_alias_of_a_monitor_goes_with_it_or_stays_O60(void) {
    engine = engine_new();
    for (int by_death = 0; by_death < 2; by_death++) {
        CHECK_EQ(after_the_monitor(TR_ALIAS_EXPLICIT, by_death), TR_OK);
        CHECK_EQ(after_the_monitor(TR_ALIAS_DEMONITOR, by_death), TR_EDEAD);
        CHECK_EQ(after_the_monitor(TR_ALIAS_REPLY_DEMONITOR, by_death), TR_EDEAD);
    }
    engine_end(engine);
}

static void a_reply_ends_the_monitor_too_O60_O266(void) {
    engine = engine_new();
    tr_pid pid = puppet(engine);
    tr_ref ref = watch(engine, pid);
    alias(TR_ALIAS_REPLY_DEMONITOR, ref);
    CHECK_EQ(send_to(ref, 1), TR_OK);
    CHECK_EQ(send_to(ref, 2), TR_EDEAD);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    CHECK(mailbox_is_empty(engine)); /* no Down */
    CHECK(!tr_demonitor(tr_self(engine), ref, true));
    engine_end(engine);
}

static void an_alias_of_a_monitor_that_has_fired_is_off(void) {
    engine = engine_new();
    tr_pid pid = puppet(engine);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    tr_ref ref = watch(engine, pid);
    CHECK_EQ(alias(TR_ALIAS_REPLY_DEMONITOR, ref), ref);
    CHECK_EQ(send_to(ref, 1), TR_EDEAD);
    CHECK_EQ(take_end(engine, TR_MESSAGE_DOWN, pid, ref, NULL), TR_NOPROC);
    engine_end(engine);
}

static void make_aliases_and_end(tr_process *self, actor *me) {
    tr_ref *refs = me->data;
    refs[1] = refs[2] = 0;
    CHECK_EQ(tr_monitor(self, me->peer, NULL, &refs[0]), TR_OK);
    CHECK_EQ(tr_alias(self, TR_ALIAS_DEMONITOR, &refs[0]), TR_OK);
    CHECK_EQ(tr_alias(self, TR_ALIAS_EXPLICIT, &refs[1]), TR_OK);
    CHECK_EQ(tr_alias(self, TR_ALIAS_REPLY, &refs[2]), TR_OK);
    tell(engine, me->peer, 1);
    tr_cursor cursor = {0};
    while (tr_receive(self, NULL, NULL, &cursor) == NULL)
        if (tr_wait(self, TR_FOREVER) == TR_EKILLED) return;
}

static void aliases_go_with_their_owner(void) {
    engine = engine_new();
    tr_ref refs[3];
    actor model = {.run = make_aliases_and_end, .peer = here(engine), .data = refs};
    tr_pid pid = start_thread(engine, &model);
    CHECK_EQ(take_number(engine, TR_MESSAGE_TERM), 1);
    tr_exit(engine, 0, pid, tr_reason_constant(TR_KILL));
    for (int i = 0; i < 3; i++) CHECK_EQ(send_to(refs[i], 1), TR_EDEAD);
    tr_exit(engine, 0, here(engine), tr_reason_constant(TR_KILL));
    engine_end(engine);
}

/* O266: request and answer raced by the end: one of the two comes, never both. */
static void answer_or_end(tr_process *self, actor *me, tr_message *message) {
    (void)me;
    if (message->number % 2 == 0) send_to(message->ref, 5);
    tr_exit_self(self, tr_reason_constant(TR_SHUTDOWN));
}

static void one_of_answer_and_down_comes_O266(void) {
    engine = engine_with((tr_options){.parallel = 2});
    for (uint64_t i = 0; i < 1000; i++) {
        tr_pid pid = start(engine, &(actor){.handle = answer_or_end});
        tr_ref ref = watch(engine, pid);
        alias(TR_ALIAS_REPLY_DEMONITOR, ref);
        tr_message *request = tr_message_new(TR_MESSAGE_USER);
        request->ref = ref;
        request->number = i;
        tr_send_message(engine, pid, request);
        tr_message *came = take(engine);
        CHECK_EQ(came->kind, i % 2 == 0 ? TR_MESSAGE_TERM : TR_MESSAGE_DOWN);
        tr_message_free(engine, came);
        EVENTUALLY(!tr_alive(engine, pid));
        CHECK(mailbox_is_empty(engine));
    }
    engine_end(engine);
}

int main(void) {
    TEST(an_explicit_alias_lasts_until_it_is_taken_back_O57_O58);
    TEST(a_reply_alias_takes_one_message_O59);
    TEST(only_the_owner_takes_it_back_O58);
    TEST(an_alias_of_a_monitor_goes_with_it_or_stays_O60);
    TEST(a_reply_ends_the_monitor_too_O60_O266);
    TEST(an_alias_of_a_monitor_that_has_fired_is_off);
    TEST(aliases_go_with_their_owner);
    TEST(one_of_answer_and_down_comes_O266);
    return check_report();
}
