/* mailbox.h: a queue with many producers and one consumer.
 *
 * Senders push onto a lock-free stack (newest first); the consumer takes the whole stack with one
 * exchange and turns it round into its private list. A push is one compare-and-swap, taking is amortised
 * O(1) and costs no atomic operation per message. Memory: three words, and the messages.
 *
 * Ownership: a message pushed belongs to the mailbox until it is taken. `inbox` and `pushed` may be
 * touched by any thread; `head`, `tail` and `removals` only by the thread that runs the process, which
 * alone writes `taken`.
 * Ordering: the push is sequentially consistent because it also takes part in the sleep protocol of
 * process.h (the sender looks at `run` after it; the consumer looks at `inbox` after it set `run`).
 * A closed mailbox refuses everything for ever (until the slot is initialised again). */
#ifndef TRI_MAILBOX_H
#define TRI_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tailrace.h"

typedef struct tri_mailbox {
    _Atomic(tr_message *) inbox;
    tr_message *head, *tail;
    /* The length is pushed - taken; two counters, so that taking costs no locked instruction. Both relaxed:
     * for people to look at. */
    _Atomic uint32_t pushed, taken;
    uint32_t removals;       /* grows with each message taken: makes a cursor stale */
} tri_mailbox;

void tri_mailbox_init(tri_mailbox *mailbox);

/* False if it is closed; the caller keeps the message then. */
bool tri_mailbox_push(tri_mailbox *mailbox, tr_message *message);
void tri_mailbox_push_front(tri_mailbox *mailbox, tr_message *message);

/* The oldest message or NULL. */
tr_message *tri_mailbox_take(tri_mailbox *mailbox);

/* The oldest that matches, looking only behind the cursor when it is still good. */
tr_message *tri_mailbox_take_match(tri_mailbox *mailbox,
                                   bool (*match)(const tr_message *, void *context), void *context,
                                   tr_cursor *cursor);

/* Look at everything that was pushed: nothing is new any more. */
void tri_mailbox_gather(tri_mailbox *mailbox);

/* Whether a message waits, seen or not; for the consumer. */
bool tri_mailbox_has_any(const tri_mailbox *mailbox);
/* Whether something was pushed since the consumer last took the stack; for anybody. */
bool tri_mailbox_has_new(const tri_mailbox *mailbox);

uint32_t tri_mailbox_length(const tri_mailbox *mailbox);

/* Refuse what comes; return all that was there, linked. */
tr_message *tri_mailbox_close(tri_mailbox *mailbox);

#endif
