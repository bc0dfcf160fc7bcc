/* buffer.h: the output buffer of an emitting stage: events no dispatcher could place yet, in order,
 * and the ordered messages among them (S80-S101).
 *
 * Ordered messages take no room and are never dropped: one is due as soon as no event is before it,
 * sent or discarded (S97-S99). After each push and each take the stage calls tri_buffer_trim until it
 * returns false; between its inputs the head of the buffer is thus never a message, and the buffer
 * holds at most `size` events.
 *
 * Who owns: the buffer owns what it holds. Threads: only the one that runs the stage; no locks. Costs:
 * push O(1), dropping and taking O(batches passed); events are never copied but by the host's join,
 * when one message to a consumer is made of several emitted batches. */
#ifndef TRI_BUFFER_H
#define TRI_BUFFER_H

#include "ring.h"

typedef struct tri_buffer {
    const tr_words *words;
    uint64_t size;
    bool keep_first; /* on overflow drop the newest events instead of the oldest */
    uint64_t count;  /* events; messages are not counted (S90) */
    tri_ring ring;
} tri_buffer;

/* `words` must outlive the buffer. */
void tri_buffer_init(tri_buffer *buffer, uint64_t size, bool keep_first, const tr_words *words);
/* Append events; takes them over. *discarded is raised by what "keep first" drops. */
int tri_buffer_push(tri_buffer *buffer, tr_batch batch, uint64_t *discarded);
/* Put events back that were just taken. Takes them over. */
int tri_buffer_push_front(tri_buffer *buffer, tr_batch batch);
/* Append an ordered message. Takes it over, also on failure. */
int tri_buffer_push_info(tri_buffer *buffer, tr_term message);
/* Drop the oldest events beyond `size`, raising *discarded. Stops, returning true, at a message that
 * is due: *message is the caller's, who then calls again. */
bool tri_buffer_trim(tri_buffer *buffer, uint64_t *discarded, tr_term *message);
/* Take the oldest events, at most `limit` and up to the next message, as one batch. The buffer must
 * not be empty, `limit` > 0. On TR_ENOMEM nothing has changed. */
int tri_buffer_take(tri_buffer *buffer, uint64_t limit, tr_batch *taken);
void tri_buffer_fini(tri_buffer *buffer);

#endif
