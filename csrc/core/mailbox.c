/* mailbox.c: see mailbox.h; and the messages themselves. */
#include "mailbox.h"

#include <stdlib.h>

#include "engine.h"

/* What `inbox` holds once closed: no message can have this address. */
#define CLOSED ((tr_message *)(uintptr_t)1)

tr_message *tr_message_new(uint32_t kind) {
    tr_message *message = malloc(sizeof *message);
    if (message == NULL) return NULL;
    *message = (tr_message){.kind = kind};
    return message;
}

void tr_message_free(tr_engine *engine, tr_message *message) {
    if (message == NULL) return;
    if (message->term != NULL) tri_release_term(engine, message->term);
    tr_reason_release(message->reason);
    free(message);
}

void tri_mailbox_init(tri_mailbox *mailbox) {
    atomic_store(&mailbox->inbox, NULL);
    atomic_store_explicit(&mailbox->pushed, 0, memory_order_relaxed);
    atomic_store_explicit(&mailbox->taken, 0, memory_order_relaxed);
    mailbox->head = mailbox->tail = NULL;
    mailbox->removals = 0;
}

bool tri_mailbox_push(tri_mailbox *mailbox, tr_message *message) {
    tr_message *newest = atomic_load_explicit(&mailbox->inbox, memory_order_relaxed);
    atomic_fetch_add_explicit(&mailbox->pushed, 1, memory_order_relaxed);
    do {
        if (newest == CLOSED) return false;
        message->next = newest;
    } while (!atomic_compare_exchange_weak(&mailbox->inbox, &newest, message));
    return true;
}

void tri_mailbox_push_front(tri_mailbox *mailbox, tr_message *message) {
    atomic_fetch_add_explicit(&mailbox->pushed, 1, memory_order_relaxed);
    message->next = mailbox->head;
    mailbox->head = message;
    if (mailbox->tail == NULL) mailbox->tail = message;
    mailbox->removals++; /* a cursor would pass it over */
}

/* Append what senders pushed to the private list, oldest first. */
void tri_mailbox_gather(tri_mailbox *mailbox) {
    tr_message *seen = atomic_load_explicit(&mailbox->inbox, memory_order_relaxed);
    if (seen == NULL || seen == CLOSED) return;
    tr_message *newest = atomic_exchange_explicit(&mailbox->inbox, NULL, memory_order_acquire);
    tr_message *last = newest, *first = NULL;
    while (newest != NULL) {
        tr_message *older = newest->next;
        newest->next = first;
        first = newest;
        newest = older;
    }
    if (mailbox->tail != NULL)
        mailbox->tail->next = first;
    else
        mailbox->head = first;
    mailbox->tail = last;
}

/* Take `message` out, whose predecessor is `before` (NULL for the head). */
static tr_message *unhook(tri_mailbox *mailbox, tr_message *before, tr_message *message) {
    if (before != NULL)
        before->next = message->next;
    else
        mailbox->head = message->next;
    if (mailbox->tail == message) mailbox->tail = before;
    mailbox->removals++;
    uint32_t taken = atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
    atomic_store_explicit(&mailbox->taken, taken + 1, memory_order_relaxed);
    message->next = NULL;
    return message;
}

tr_message *tri_mailbox_take(tri_mailbox *mailbox) {
    if (mailbox->head == NULL) tri_mailbox_gather(mailbox);
    return mailbox->head == NULL ? NULL : unhook(mailbox, NULL, mailbox->head);
}

tr_message *tri_mailbox_take_match(tri_mailbox *mailbox,
                                   bool (*match)(const tr_message *, void *), void *context,
                                   tr_cursor *cursor) {
    tri_mailbox_gather(mailbox);
    tr_message *before = cursor->removals == mailbox->removals ? cursor->last : NULL;
    tr_message *message = before != NULL ? before->next : mailbox->head;
    while (message != NULL && match != NULL && !match(message, context)) {
        before = message;
        message = message->next;
    }
    if (message != NULL) return unhook(mailbox, before, message);
    *cursor = (tr_cursor){.last = before, .removals = mailbox->removals};
    return NULL;
}

bool tri_mailbox_has_any(const tri_mailbox *mailbox) {
    return mailbox->head != NULL || tri_mailbox_has_new(mailbox);
}

bool tri_mailbox_has_new(const tri_mailbox *mailbox) {
    return atomic_load(&mailbox->inbox) != NULL;
}

tr_message *tri_mailbox_close(tri_mailbox *mailbox) {
    tri_mailbox_gather(mailbox);
    tr_message *rest = atomic_exchange(&mailbox->inbox, CLOSED);
    if (rest == CLOSED) return NULL;
    tr_message *all = mailbox->head;
    if (mailbox->tail != NULL)
        mailbox->tail->next = rest; /* order does not matter any more */
    else
        all = rest;
    mailbox->head = mailbox->tail = NULL;
    return all;
}

uint32_t tri_mailbox_length(const tri_mailbox *mailbox) {
    uint32_t taken = atomic_load_explicit(&mailbox->taken, memory_order_relaxed);
    return atomic_load_explicit(&mailbox->pushed, memory_order_relaxed) - taken;
}
