/* What does a victim append: one message, many, batches made beforehand, rows? Imports work.h. One thread. */
#define _GNU_SOURCE
#include "work.h"

enum { MOST_MESSAGES = 60, ROW_BYTES = 40, HUGE_ROW_BYTES = 4000, HUGE_ROWS = 640 };

static uint8_t arena[1 << 20], encoded[1 << 20], huge[HUGE_ROWS * HUGE_ROW_BYTES];

static uint32_t ask(model_partition *p, uint32_t bytes, bool has_key) {
    uint32_t sequence = p->sent;
    p->messages[sequence] = (model_message){-1, m->clock_ms, bytes, MESSAGE_ASKED, has_key};
    __atomic_store_n(&p->sent, sequence + 1, __ATOMIC_RELEASE);
    return sequence;
}

static void kept(model_partition *p, uint32_t first, uint32_t count, const tl_appended *out) {
    if (out->base_offset != p->end_seen || out->next_offset != out->base_offset + count)
        model_fail("messages %u to %u got offsets %lld to %lld, the log end was %lld", first, first + count - 1,
                   (long long)out->base_offset, (long long)out->next_offset - 1, (long long)p->end_seen);
    for (uint32_t i = 0; i < count; i++) {
        p->messages[first + i].offset = out->base_offset + i;
        p->messages[first + i].state = MESSAGE_KEPT;
    }
    p->end_seen = out->next_offset;
}

static tl_message message_of(const model_partition *p, uint32_t sequence, uint8_t *at) {
    const model_message *entry = &p->messages[sequence];
    model_fill_value(p, sequence, entry->bytes, at);
    return (tl_message){.key = entry->has_key ? at : NULL,
                        .key_bytes = entry->has_key ? 8 : -1,
                        .value = at,
                        .value_bytes = (int32_t)entry->bytes,
                        .timestamp_ms = entry->timestamp_ms};
}

void work_append_one(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    unsigned flags = work_roll(6) == 0 ? TL_APPEND_THROUGH_FILE : work_roll(6) == 0 ? TL_APPEND_TRY : 0;
    uint32_t sequence = ask(p, model_value_bytes(p, p->sent), work_roll(3) == 0);
    m->clock_ms++;
    const tl_message message = message_of(p, sequence, arena);
    tl_appended out = {0};
    tl_error err = {0};
    model_doing("append message %u to partition %d, flags %u", sequence, (int)(p - m->partition), flags);
    int status = tl_partition_append_one(handle, &message, flags, &out, &err);
    if (status == TL_EAGAIN && flags == TL_APPEND_TRY)
        status = tl_partition_append_one(handle, &message, 0, &out, &err);
    model_expect_ok(status, &err, "append one");
    kept(p, sequence, 1, &out);
}

static void append_many(tl_store *store, model_partition *p, uint32_t count, bool ready) {
    tl_partition *handle = work_partition(store, p);
    unsigned flags = work_roll(3) == 0 ? TL_APPEND_THROUGH_FILE : 0;
    tl_message messages[MOST_MESSAGES];
    uint32_t first = p->sent;
    size_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = ask(p, model_value_bytes(p, p->sent), work_roll(3) == 0);
        messages[i] = message_of(p, sequence, arena + used);
        used += p->messages[sequence].bytes;
        m->clock_ms++;
    }
    tl_append what = {.messages = messages, .count = count};
    if (ready) {
        size_t bytes = 0;
        if (tl_batch_measure(messages, count, TL_BATCH_MAX_BYTES, &bytes) != count)
            model_fail("%u messages do not fit a batch", count);
        what = (tl_append){.encoded = encoded, .encoded_bytes = bytes, .count = count};
        tl_batch_encode(encoded, 0, &tl_batch_plain, messages, count, &what.max_timestamp_ms);
    }
    tl_appended out = {0};
    tl_error err = {0};
    model_doing("append messages %u to %u to partition %d%s, flags %u", first, first + count - 1,
                (int)(p - m->partition), ready ? ", encoded" : "", flags);
    model_expect_ok(tl_partition_append(handle, &what, flags, &out, &err), &err, "append many");
    kept(p, first, count, &out);
}

static void append_rows(tl_store *store, model_partition *p, uint32_t count, uint32_t row_bytes) {
    tl_partition *handle = work_partition(store, p);
    uint32_t first = p->sent;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = ask(p, row_bytes, false);
        model_fill_value(p, sequence, row_bytes, huge + (size_t)i * row_bytes);
    }
    const tl_rows rows = {.rows = huge, .stride = row_bytes, .row_bytes = row_bytes, .timestamp_ms = m->clock_ms};
    const tl_append what = {.rows = &rows, .count = count};
    m->clock_ms++;
    tl_appended out = {0};
    tl_error err = {0};
    model_doing("append rows %u to %u of %u bytes to partition %d", first, first + count - 1, row_bytes,
                (int)(p - m->partition));
    model_expect_ok(tl_partition_append(handle, &what, work_roll(4) == 0 ? TL_APPEND_THROUGH_FILE : 0, &out, &err), &err,
                    "append rows");
    kept(p, first, count, &out);
}

void appends_some(tl_store *store, model_partition *p) {
    uint32_t room = MODEL_MESSAGES - p->sent, kind = work_roll(100);
    if (room < MOST_MESSAGES)
        return;
    if (kind < 50)
        for (uint32_t i = 1 + work_roll(12); i > 0; i--)
            work_append_one(store, p);
    else if (kind < 80)
        append_many(store, p, 1 + work_roll(work_roll(3) == 0 ? MOST_MESSAGES : 8), false);
    else if (kind < 90)
        append_many(store, p, 1 + work_roll(12), true);
    else if (kind < 99 || room < HUGE_ROWS)
        append_rows(store, p, 1 + work_roll(40), ROW_BYTES);
    else
        append_rows(store, p, HUGE_ROWS, HUGE_ROW_BYTES);
}
