/* Do readers see every offset once, in order, with the bytes that were sent, and are they woken in time? Imports shared.h. */
#define _GNU_SOURCE
#include "shared.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint8_t expected[8192];

/* Nobody slept when it was published, or its writer died before the call returned: then nothing was promised. */
static void note_wake(reader *me, int64_t slept_at, int64_t woke_at, int64_t offset) {
    if (offset >= MOST_OFFSETS)
        return;
    int64_t published = __atomic_load_n(&b->published_ns[offset], __ATOMIC_ACQUIRE);
    if (published == 0 || published <= slept_at)
        return;
    me->waits++;
    if (woke_at - published > me->worst_ns)
        me->worst_ns = woke_at - published;
}

static void check_one(reader *me, const tl_chunk *chunk, const tl_record *record) {
    uint32_t writer_number = 0, bytes = 0;
    uint64_t sequence = 0;
    const uint8_t *value = chunk->bytes + record->value_at;
    if (record->offset != me->next)
        wrong("after offset %lld came %lld", (long long)me->next - 1, (long long)record->offset);
    if (record->value_bytes >= 16) {
        memcpy(&writer_number, value, 4);
        memcpy(&bytes, value + 4, 4);
        memcpy(&sequence, value + 8, 8);
    }
    if (record->value_bytes < 16 || writer_number >= WRITERS || (int32_t)bytes != record->value_bytes ||
        bytes != message_bytes(writer_number, sequence))
        wrong("offset %lld holds bytes that nobody sent", (long long)record->offset);
    message_fill(writer_number, sequence, expected);
    if (memcmp(expected, value, bytes) != 0)
        wrong("message %llu of writer %u has other bytes at offset %lld", (unsigned long long)sequence, writer_number,
              (long long)record->offset);
    if (sequence + 1 <= me->last[writer_number])
        wrong("message %llu of writer %u came after %llu", (unsigned long long)sequence, writer_number,
              (unsigned long long)me->last[writer_number] - 1);
    uint64_t id = (uint64_t)writer_number << 40 | (sequence + 1), seen = 0;
    if (record->offset < MOST_OFFSETS &&
        !__atomic_compare_exchange_n(&b->message_at[record->offset], &seen, id, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST) &&
        seen != id)
        wrong("two readers saw different messages at offset %lld", (long long)record->offset);
    me->last[writer_number] = sequence + 1;
    __atomic_store_n(&me->next, record->offset + 1, __ATOMIC_RELEASE);
}

/* A killed reader may have stored `last` and not `next`: it is made again from what was seen. */
static void find_last(reader *me) {
    memset(me->last, 0, sizeof me->last);
    for (int64_t offset = me->next < 4096 ? 0 : me->next - 4096; offset < me->next && offset < MOST_OFFSETS; offset++) {
        uint64_t id = b->message_at[offset];
        me->last[id >> 40] = id & (((uint64_t)1 << 40) - 1);
    }
}

static void read_on(reader *me, tl_partition *partition, tl_cursor *cursor, tl_chunk *chunk, int64_t slept_at,
                    int64_t woke_at) {
    tl_error err = {0};
    for (bool first = true;; first = false) {
        tl_read_end end;
        tl_chunk_clear(chunk);
        expect_ok(tl_partition_read(partition, cursor, chunk, 256, 1 << 18, 0, &end, &err), &err, "read");
        if (chunk->count == 0)
            return;
        if (first && woke_at != 0)
            note_wake(me, slept_at, woke_at, chunk->records[0].offset);
        for (size_t i = 0; i < chunk->count; i++)
            check_one(me, chunk, &chunk->records[i]);
    }
}

void run_reader(uint32_t self) {
    reader *me = &b->readers[self];
    tl_error err = {0};
    tl_chunk chunk = {0};
    tl_store *store = enter(false);
    tl_partition *partition = partition_of(store);
    find_last(me);
    tl_cursor cursor = {.offset = me->next};
    while (__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE) == 0) {
        uint64_t seen = tl_partition_tail(partition);
        read_on(me, partition, &cursor, &chunk, 0, 0);
        uint64_t tail = tl_partition_tail(partition);
        if (tail != seen)
            continue; /* what came meanwhile was read, or is now */
        int64_t slept_at = now_ns();
        int status = tl_store_wait(store, &partition, &tail, 1, 250000000, 0, NULL, 0, NULL, &err);
        int64_t woke_at = now_ns();
        if (status < 0 && status != TL_ETIMEOUT)
            expect_ok(status, &err, "wait");
        if (status >= 0)
            read_on(me, partition, &cursor, &chunk, slept_at, woke_at);
    }
    tl_chunk_free(&chunk);
    leave(store, partition);
    _exit(0);
}

/* --- at the end --- */

static void say_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                        int64_t next) {
    (void)context;
    fprintf(stderr, "finding: %s, position %lld: %s (offsets %lld to %lld)\n", file, (long long)position, what,
            (long long)first, (long long)next);
}

void verify_all(void) {
    static reader all;
    tl_error err = {0};
    tl_chunk chunk = {0};
    tl_store *store = enter(false);
    tl_partition *partition = partition_of(store);
    tl_bounds bounds;
    expect_ok(tl_partition_bounds(partition, &bounds, &err), &err, "bounds");
    if (bounds.log_start < b->trimmed)
        wrong("the log starts at %lld, an acknowledged trim was at %lld", (long long)bounds.log_start,
              (long long)b->trimmed);
    tl_cursor cursor = {.offset = bounds.log_start};
    all.next = bounds.log_start;
    read_on(&all, partition, &cursor, &chunk, 0, 0);
    tl_chunk_free(&chunk);
    if (bounds.log_end != all.next)
        wrong("the log ends at %lld, the last message was %lld", (long long)bounds.log_end, (long long)all.next - 1);
    for (uint32_t w = 0; w < WRITERS; w++) {
        for (uint64_t sequence = 0; sequence < b->writers[w].asked; sequence++) {
            int64_t offset = b->offset_of[w][sequence] - 1;
            if (offset >= 0 && offset < MOST_OFFSETS && b->message_at[offset] != ((uint64_t)w << 40 | (sequence + 1)))
                wrong("message %llu of writer %u, acknowledged at offset %lld, is not there",
                      (unsigned long long)sequence, w, (long long)offset);
        }
    }
    const tl_check_report report = {.finding = say_finding};
    int findings = tl_partition_check(partition, &report, &err);
    expect_ok(findings, &err, "check");
    if (findings != 0)
        wrong("check has %d findings", findings);
    leave(store, partition);
}
