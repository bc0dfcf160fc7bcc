/* buffer.c: the output buffer. */
#include "buffer.h"

#include <stdlib.h>

void tri_buffer_init(tri_buffer *buffer, uint64_t size, bool keep_first, const tr_words *words) {
    *buffer = (tri_buffer){.words = words, .size = size, .keep_first = keep_first};
}

int tri_buffer_push(tri_buffer *buffer, tr_batch batch, uint64_t *discarded) {
    if (buffer->keep_first && batch.count > buffer->size - buffer->count) {
        uint64_t room = buffer->size - buffer->count;
        *discarded += batch.count - room;
        batch.count = (size_t)room;
    }
    int error = TR_OK;
    if (batch.count) {
        tri_item item = {.kind = TRI_ITEM_EVENTS, .batch = batch};
        error = tri_ring_push(&buffer->ring, &item);
        if (!error) {
            buffer->count += batch.count;
            return TR_OK;
        }
    }
    tri_batch_release(&batch, buffer->words);
    return error;
}

int tri_buffer_push_front(tri_buffer *buffer, tr_batch batch) {
    tri_item item = {.kind = TRI_ITEM_EVENTS, .batch = batch};
    int error = tri_ring_push_front(&buffer->ring, &item);
    if (error)
        tri_batch_release(&batch, buffer->words);
    else
        buffer->count += batch.count;
    return error;
}

int tri_buffer_push_info(tri_buffer *buffer, tr_term message) {
    tri_item item = {.kind = TRI_ITEM_INFO, .word = message};
    int error = tri_ring_push(&buffer->ring, &item);
    if (error) buffer->words->release(buffer->words->host, message);
    return error;
}

/* Drop the first `count` events of the batch at the head. */
static void drop(tri_buffer *buffer, size_t count) {
    tri_item *head = tri_ring_at(&buffer->ring, 0);
    buffer->count -= count;
    head->batch.offset += count;
    head->batch.count -= count;
    if (head->batch.count) return;
    tri_item item = tri_ring_pop(&buffer->ring);
    tri_batch_release(&item.batch, buffer->words);
}

bool tri_buffer_trim(tri_buffer *buffer, uint64_t *discarded, tr_term *message) {
    while (buffer->ring.length) {
        const tri_item *head = tri_ring_at(&buffer->ring, 0);
        if (head->kind == TRI_ITEM_INFO) {
            *message = tri_ring_pop(&buffer->ring).word;
            return true;
        }
        if (buffer->count <= buffer->size) return false;
        uint64_t excess = buffer->count - buffer->size;
        size_t dropped = excess < head->batch.count ? (size_t)excess : head->batch.count;
        *discarded += dropped;
        drop(buffer, dropped);
    }
    return false;
}

/* How many batches from the head make up `limit` events, or all events before the next message;
 * *count is their number. */
static size_t run_length(const tri_buffer *buffer, uint64_t limit, uint64_t *count) {
    size_t run = 0;
    for (*count = 0; run < buffer->ring.length && *count < limit; run++) {
        const tri_item *item = tri_ring_at(&buffer->ring, run);
        if (item->kind == TRI_ITEM_INFO) break;
        *count += item->batch.count;
    }
    if (*count > limit) *count = limit;
    return run;
}

static int take_several(tri_buffer *buffer, size_t run, uint64_t count, tr_batch *taken) {
    tr_batch *parts = malloc(run * sizeof *parts);
    if (!parts) return TR_ENOMEM;
    uint64_t left = count;
    for (size_t i = 0; i < run; i++) {
        parts[i] = tri_ring_at(&buffer->ring, i)->batch;
        if (parts[i].count > left) parts[i].count = (size_t)left;
        left -= parts[i].count;
    }
    int error = buffer->words->join(buffer->words->host, parts, run, taken);
    if (!error)
        for (size_t i = 0; i < run; i++) drop(buffer, parts[i].count);
    free(parts);
    return error;
}

int tri_buffer_take(tri_buffer *buffer, uint64_t limit, tr_batch *taken) {
    uint64_t count;
    size_t run = run_length(buffer, limit, &count);
    if (run > 1) return take_several(buffer, run, count, taken);
    tri_item *head = tri_ring_at(&buffer->ring, 0);
    *taken = tri_batch_split(&head->batch, (size_t)count, buffer->words);
    buffer->count -= count;
    if (!head->batch.count) tri_ring_pop(&buffer->ring);
    return TR_OK;
}

void tri_buffer_fini(tri_buffer *buffer) {
    while (buffer->ring.length) {
        tri_item item = tri_ring_pop(&buffer->ring);
        if (item.kind == TRI_ITEM_INFO)
            buffer->words->release(buffer->words->host, item.word);
        else
            tri_batch_release(&item.batch, buffer->words);
    }
    tri_ring_fini(&buffer->ring);
    buffer->count = 0;
}
