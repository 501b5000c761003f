/* What does a writer do until it is killed, and how long did each call take? Imports shared.h.
 *
 * Writer 0 appends single messages, writer 1 batches through the file and syncs them, writer 2 comes and goes: it closes the
 * store, opens it again, and trims. Inside the lock each may be told to die or to stop: a random kill hits 20 ns too seldom. */
#define _GNU_SOURCE
#include "shared.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BATCH = 8, SLOW_NS = 10000000 };

static writer *me;
static uint32_t self_number;
static uint8_t arena[BATCH * 8192];
static int schedule_fd = -1;

/* What it has waited for a processor so far. */
static int64_t delayed_ns(void) {
    char text[128] = {0};
    long long on_cpu = 0, waited = 0;
    if (schedule_fd < 0)
        schedule_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (schedule_fd < 0 || pread(schedule_fd, text, sizeof text - 1, 0) <= 0 ||
        sscanf(text, "%lld %lld", &on_cpu, &waited) != 2)
        return 0;
    return waited;
}

static bool under_lock(const char *name) {
    static const char *const prefixes[] = {
        "append.locked", "append.reserved", "append.copied", "append.end_filled", "append.tail_stored",
        "append_many.",  "roll.",           "segment.",      "retain.published"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static void obey(const char *name) {
    uint32_t order = __atomic_load_n(&me->order, __ATOMIC_RELAXED);
    if (order == ORDER_NONE)
        return;
    bool locked = under_lock(name);
    if ((!locked && strncmp(name, "sync.", 5) != 0 && strncmp(name, "retain.", 7) != 0) ||
        (order == ORDER_STOP && !locked))
        return;
    if (me->steps > 0) {
        me->steps--;
        return;
    }
    if (order == ORDER_DIE)
        raise(SIGKILL);
    __atomic_store_n(&me->order, ORDER_NONE, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&me->stops, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&me->in_lock, 1, __ATOMIC_SEQ_CST);
    raise(SIGSTOP);
    __atomic_store_n(&me->in_lock, 0, __ATOMIC_SEQ_CST);
}

/* The stop that somebody else is in, if any: writer and count in one word. */
static uint64_t stopped_one(void) {
    for (uint32_t w = 0; w < WRITERS; w++)
        if (w != self_number && __atomic_load_n(&b->writers[w].in_lock, __ATOMIC_SEQ_CST) != 0)
            return (uint64_t)(w + 1) << 32 | __atomic_load_n(&b->writers[w].stops, __ATOMIC_SEQ_CST);
    return 0;
}

static void note_call(int64_t from, int64_t until, int64_t delayed) {
    me->calls++;
    if (until - from > me->worst_ns)
        me->worst_ns = until - from;
    if (until - from < SLOW_NS)
        return;
    slow_call *slow = &me->slow[me->slow_count % SLOW];
    *slow = (slow_call){{from, until}, delayed};
    __atomic_store_n(&me->slow_count, me->slow_count + 1, __ATOMIC_RELEASE);
}

static void append(tl_partition *partition, uint32_t count, bool synced) {
    tl_message messages[BATCH];
    uint64_t first = me->asked;
    size_t used = 0;
    if (first + count > MOST_PER_WRITER)
        return;
    for (uint32_t i = 0; i < count; i++) {
        message_fill(self_number, first + i, arena + used);
        uint32_t bytes = message_bytes(self_number, first + i);
        messages[i] =
            (tl_message){.value = arena + used, .value_bytes = (int32_t)bytes, .key_bytes = -1, .timestamp_ms = 1};
        used += bytes;
    }
    __atomic_store_n(&me->asked, first + count, __ATOMIC_RELEASE);
    tl_appended out = {0};
    tl_error err = {0};
    int64_t delayed = delayed_ns(), from = now_ns();
    uint64_t stopped = stopped_one();
    const tl_append what = {.messages = messages, .count = count};
    int status = count == 1 && !synced
                     ? tl_partition_append_one(partition, messages, 0, &out, &err)
                     : tl_partition_append(partition, &what, synced ? TL_APPEND_THROUGH_FILE : 0, &out, &err);
    expect_ok(status, &err, "append");
    if (stopped != 0 && stopped_one() == stopped)
        __atomic_fetch_add(&me->robbed, 1, __ATOMIC_SEQ_CST);
    if (synced)
        expect_ok(tl_partition_sync(partition, out.tail, -1, &err), &err, "sync");
    int64_t until = now_ns();
    note_call(from, until, delayed_ns() - delayed);
    if (out.next_offset - out.base_offset != (int64_t)count)
        wrong("an append of %u messages got offsets %lld to %lld", count, (long long)out.base_offset,
              (long long)out.next_offset);
    for (uint32_t i = 0; i < count; i++) {
        if (out.base_offset + i < MOST_OFFSETS)
            __atomic_store_n(&b->published_ns[out.base_offset + i], until, __ATOMIC_RELEASE);
        __atomic_store_n(&b->offset_of[self_number][first + i], out.base_offset + i + 1, __ATOMIC_RELEASE);
    }
}

/* Behind what both readers have read, so that none of them falls out of the log. */
static void trim(tl_partition *partition) {
    int64_t before = INT64_MAX;
    tl_error err = {0};
    for (int r = 0; r < READERS; r++) {
        int64_t next = __atomic_load_n(&b->readers[r].next, __ATOMIC_ACQUIRE);
        before = next < before ? next : before;
    }
    before -= 3000;
    if (before <= b->trimmed)
        return;
    expect_ok(tl_partition_trim(partition, before, &err), &err, "trim");
    b->trimmed = before;
}

void run_writer(uint32_t self, uint64_t seed) {
    uint64_t state = seed;
    self_number = self;
    me = &b->writers[self];
    me->in_lock = 0;
    tl_point_hook = obey;
    tl_store *store = enter(true);
    tl_partition *partition = partition_of(store);
    while (__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE) == 0) {
        append(partition, self == 0 ? 1 : 1 + (uint32_t)(random_of(&state) % BATCH), self == 1);
        if (self == 2 && random_of(&state) % 30 == 0)
            trim(partition);
        if (self == 2 && random_of(&state) % 100 == 0) {
            leave(store, partition);
            store = enter(true);
            partition = partition_of(store);
        }
        sleep_us(100 + (int64_t)(random_of(&state) % 400));
    }
    me->order = ORDER_NONE;
    leave(store, partition);
    _exit(0);
}

static void dawdle(const char *name) {
    if (strcmp(name, "append.reserved") == 0)
        sleep_us(200);
}

int64_t write_pair(tl_partition *partition, uint64_t *state) {
    uint64_t *asked = &b->writers[0].asked;
    int64_t offset = -1;
    for (int i = 0; i < 2; i++) {
        uint8_t bytes[8192];
        tl_appended out = {0};
        tl_error err = {0};
        message_fill(0, *asked, bytes);
        const tl_message message = {
            .value = bytes, .value_bytes = (int32_t)message_bytes(0, *asked), .key_bytes = -1, .timestamp_ms = 1};
        uint64_t sequence = (*asked)++;
        /* The reader that the first one woke goes back to sleep about when the second one is published. */
        tl_point_hook = i == 1 ? dawdle : NULL;
        expect_ok(tl_partition_append_one(partition, &message, 0, &out, &err), &err, "append a pair");
        tl_point_hook = NULL;
        offset = out.base_offset;
        __atomic_store_n(&b->published_ns[out.base_offset], now_ns(), __ATOMIC_RELEASE);
        b->offset_of[0][sequence] = out.base_offset + 1;
        int64_t until = now_ns() + (int64_t)(random_of(state) % 40000); /* a sleep would be longer than that */
        while (i == 0 && now_ns() < until)
            continue;
    }
    return offset;
}
