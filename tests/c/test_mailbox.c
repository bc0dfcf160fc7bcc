/* test_mailbox.c: the queue of messages by itself (O18 to O25). */
#include "mailbox.h"

#include "actors.h"

static tri_mailbox box_of_messages;

static tr_message *message(uint64_t number) {
    tr_message *made = tr_message_new(TR_MESSAGE_USER);
    CHECK(made != NULL);
    made->number = number;
    return made;
}

static void push(uint64_t number) { CHECK(tri_mailbox_push(&box_of_messages, message(number))); }

static void take_it(uint64_t number) {
    tr_message *taken = tri_mailbox_take(&box_of_messages);
    CHECK(taken != NULL);
    CHECK_EQ(taken->number, number);
    tr_message_free(NULL, taken);
}

static void close_it(void) {
    tr_message *rest = tri_mailbox_close(&box_of_messages), *next;
    for (; rest != NULL; rest = next) {
        next = rest->next;
        tr_message_free(NULL, rest);
    }
}

static void messages_come_out_in_order_O20(void) {
    tri_mailbox_init(&box_of_messages);
    CHECK(tri_mailbox_take(&box_of_messages) == NULL);
    for (uint64_t i = 0; i < 10; i++) push(i);
    CHECK_EQ(tri_mailbox_length(&box_of_messages), 10);
    for (uint64_t i = 0; i < 5; i++) take_it(i);
    for (uint64_t i = 10; i < 15; i++) push(i);
    for (uint64_t i = 5; i < 15; i++) take_it(i);
    CHECK_EQ(tri_mailbox_length(&box_of_messages), 0);
    CHECK(!tri_mailbox_has_any(&box_of_messages));
    close_it();
}

static void what_is_pushed_to_the_front_comes_first(void) {
    tri_mailbox_init(&box_of_messages);
    tri_mailbox_push_front(&box_of_messages, message(1));
    push(2);
    tri_mailbox_push_front(&box_of_messages, message(0));
    CHECK_EQ(tri_mailbox_length(&box_of_messages), 3);
    for (uint64_t i = 0; i < 3; i++) take_it(i);
    push(3);
    take_it(3);
    close_it();
}

static bool is_number(const tr_message *candidate, void *number) {
    return candidate->number == *(uint64_t *)number;
}

static int looked_at;

static bool count_looks(const tr_message *candidate, void *number) {
    looked_at++;
    return is_number(candidate, number);
}

static void a_match_leaves_the_others_in_place_O22(void) {
    tri_mailbox_init(&box_of_messages);
    for (uint64_t i = 0; i < 6; i++) push(i);
    static const uint64_t wanted[] = {3, 0, 5, 9};
    for (int i = 0; i < 4; i++) {
        tr_cursor cursor = {0};
        uint64_t number = wanted[i];
        tr_message *taken =
            tri_mailbox_take_match(&box_of_messages, is_number, &number, &cursor);
        CHECK_EQ(taken != NULL, number < 6);
        tr_message_free(NULL, taken);
    }
    take_it(1);
    take_it(2);
    push(7); /* the tail is right after the last one was taken */
    take_it(4);
    take_it(7);
    close_it();
}

static void a_cursor_looks_at_each_message_once_O25(void) {
    enum { BACKLOG = 1000 };
    tri_mailbox_init(&box_of_messages);
    tr_cursor cursor = {0};
    uint64_t wanted = BACKLOG + 50;
    looked_at = 0;
    for (uint64_t i = 0; i < BACKLOG; i++) push(i);
    for (uint64_t i = 0; i < 50; i++) {
        CHECK(tri_mailbox_take_match(&box_of_messages, count_looks, &wanted, &cursor) == NULL);
        push(BACKLOG + i);
    }
    push(wanted);
    tr_message *taken = tri_mailbox_take_match(&box_of_messages, count_looks, &wanted, &cursor);
    CHECK(taken != NULL);
    tr_message_free(NULL, taken);
    CHECK_EQ(looked_at, BACKLOG + 51);
    /* It is stale now, and starts again. */
    wanted = 0;
    taken = tri_mailbox_take_match(&box_of_messages, is_number, &wanted, &cursor);
    CHECK(taken != NULL);
    tr_message_free(NULL, taken);
    close_it();
}

static void a_closed_mailbox_refuses_and_stays_closed(void) {
    tri_mailbox_init(&box_of_messages);
    push(1);
    take_it(1);
    push(2);
    push(3);
    close_it();
    tr_message *late = message(4);
    tr_cursor cursor = {0};
    for (int i = 0; i < 2; i++) {
        CHECK(!tri_mailbox_push(&box_of_messages, late));
        CHECK(tri_mailbox_take(&box_of_messages) == NULL);
        CHECK(tri_mailbox_take_match(&box_of_messages, NULL, NULL, &cursor) == NULL);
    }
    tr_message_free(NULL, late);
    close_it();
}

enum { SENDERS = 4, EACH = 20000 };

static void *send_many(void *which) {
    for (uint64_t i = 0; i < EACH; i++) {
        tr_message *sent = message(i);
        sent->from = *(int *)which;
        CHECK(tri_mailbox_push(&box_of_messages, sent));
    }
    return NULL;
}

static void many_senders_keep_their_own_order_O20(void) {
    pthread_t threads[SENDERS];
    int names[SENDERS];
    uint64_t next[SENDERS] = {0};
    tri_mailbox_init(&box_of_messages);
    for (int i = 0; i < SENDERS; i++) {
        names[i] = i;
        CHECK(pthread_create(&threads[i], NULL, send_many, &names[i]) == 0);
    }
    for (int got = 0; got < SENDERS * EACH;) {
        tr_message *taken = tri_mailbox_take(&box_of_messages);
        if (taken == NULL) {
            sched_yield();
            continue;
        }
        CHECK_EQ(taken->number, next[taken->from]++);
        tr_message_free(NULL, taken);
        got++;
    }
    for (int i = 0; i < SENDERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK_EQ(tri_mailbox_length(&box_of_messages), 0);
    close_it();
}

int main(void) {
    TEST(messages_come_out_in_order_O20);
    TEST(what_is_pushed_to_the_front_comes_first);
    TEST(a_match_leaves_the_others_in_place_O22);
    TEST(a_cursor_looks_at_each_message_once_O25);
    TEST(a_closed_mailbox_refuses_and_stays_closed);
    TEST(many_senders_keep_their_own_order_O20);
    return check_report();
}
