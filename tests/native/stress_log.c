/* Do threads of one store race on anything that is not atomic, and is what they read still right?
 *
 * timeout_s: 180
 * Imports store_kit.h. Runs under ThreadSanitizer: eight threads and the store's own two, every operation, two partitions whose
 * small segments roll all the time. The kernel's view of files (two maps of one file) is beyond the sanitizer; the content
 * of every message is checked instead. Runs for TIDELOG_STRESS_SECONDS, or 20. */
#define _GNU_SOURCE
#include "store_kit.h"

#include <pthread.h>
#include <time.h>

enum { PARTITIONS = 2, THREADS = 8, SEGMENT = 16384, TEXT = 64, APPENDERS = 2 };

/* For several threads at once: CHECK's counter is for one. */
#define REQUIRE(condition) \
    do { \
        if (!(condition)) \
            REFUSE("failed: %s", #condition); \
    } while (0)

static tl_store *store;
static tl_partition *partitions[PARTITIONS];
static uint32_t slots[PARTITIONS];
static uint32_t done;
static uint64_t appended[PARTITIONS]; /* messages, by all */
static uint64_t operations[THREADS];

static bool stopped(void) { return __atomic_load_n(&done, __ATOMIC_RELAXED) != 0; }

static bool allowed(int status, const tl_error *err, int a, int b) {
    if (status >= 0 || status == a || status == b)
        return true;
    REFUSE("%s: %s, %s, errno %d, position %lld %s", tl_status_name(status), err->what, err->path, err->sys_errno,
           (long long)err->position, err->detail);
}

/* --- appending: "<appender> <number>", numbers without a gap in each partition --- */

static void text_of(uint64_t who, uint64_t number, char out[TEXT]) {
    int n = snprintf(out, TEXT, "%llu %llu ", (unsigned long long)who, (unsigned long long)number);
    memset(out + n, 'x', (size_t)(TEXT - n));
}

static void *append(void *argument) {
    uint64_t who = (uintptr_t)argument, seed = who, numbers[PARTITIONS] = {0};
    static _Thread_local char texts[64][TEXT];
    while (!stopped()) {
        size_t p = check_random(&seed) % PARTITIONS,
               count = check_random(&seed) % 4 == 0 ? 1 + check_random(&seed) % 60 : 1;
        unsigned flags = (unsigned)(check_random(&seed) % 4);
        tl_message messages[64];
        tl_error err = {0};
        tl_appended out = {0};
        for (size_t i = 0; i < count; i++) {
            text_of(who, numbers[p] + i, texts[i]);
            messages[i] = (tl_message){
                .value = (uint8_t *)texts[i], .value_bytes = TEXT, .key_bytes = -1, .timestamp_ms = tl_os->now_ms()};
        }
        const tl_append what = {.messages = messages, .count = count};
        int status = count == 1 && check_random(&seed) % 2 == 0
                         ? tl_partition_append_one(partitions[p], messages, flags, &out, &err)
                         : tl_partition_append(partitions[p], &what, flags, &out, &err);
        REQUIRE(allowed(status, &err, TL_EAGAIN, TL_EAGAIN));
        if (status < 0)
            continue;
        REQUIRE(out.next_offset - out.base_offset == (int64_t)count);
        numbers[p] += count;
        __atomic_fetch_add(&appended[p], count, __ATOMIC_RELAXED);
        operations[who]++;
        if (check_random(&seed) % 64 == 0) {
            REQUIRE(allowed(tl_partition_sync(partitions[p], out.tail, 10000000000, &err), &err, TL_OK, TL_OK));
            REQUIRE(tl_partition_is_synced(partitions[p], out.tail));
        }
    }
    return NULL;
}

/* --- reading --- */

typedef struct reader {
    int64_t numbers[APPENDERS]; /* the last seen of each appender; -1: none since the start */
} reader;

static void look_at(reader *r, const tl_chunk *chunk, const tl_record *record) {
    unsigned long long who = 9, number = 0;
    char text[TEXT + 1] = {0}, wanted[TEXT];
    REQUIRE(record->value_bytes == TEXT);
    memcpy(text, chunk->bytes + record->value_at, TEXT);
    REQUIRE(sscanf(text, "%llu %llu ", &who, &number) == 2 && who < APPENDERS);
    text_of(who, number, wanted);
    REQUIRE(memcmp(text, wanted, TEXT) == 0);
    if (r == NULL)
        return;
    REQUIRE(r->numbers[who] < 0 || number == (uint64_t)r->numbers[who] + 1);
    r->numbers[who] = (int64_t)number;
}

static void *read_on(void *argument) {
    uint64_t who = (uintptr_t)argument, seed = who;
    size_t p = who % PARTITIONS;
    tl_chunk chunk = {0};
    tl_cursor cursor = {0};
    reader r = {{-1, -1}};
    while (!stopped()) {
        tl_error err = {0};
        tl_read_end end;
        tl_chunk_clear(&chunk);
        int64_t from = cursor.offset;
        int status = tl_partition_read(partitions[p], &cursor, &chunk, 1 + check_random(&seed) % 300, 1 << 16,
                                       check_random(&seed) % 8 == 0 ? TL_READ_TRY : 0, &end, &err);
        REQUIRE(allowed(status, &err, TL_ERANGE, TL_EAGAIN));
        if (status == TL_ERANGE ||
            check_random(&seed) % 5000 == 0) { /* trimmed away, or for a change: from the start again */
            tl_bounds bounds;
            REQUIRE(tl_partition_bounds(partitions[p], &bounds, &err) == TL_OK);
            cursor = (tl_cursor){.offset = bounds.log_start};
            r = (reader){{-1, -1}};
            continue;
        }
        for (size_t i = 0; i < chunk.count; i++) {
            REQUIRE(chunk.records[i].offset == from + (int64_t)i);
            look_at(&r, &chunk, &chunk.records[i]);
        }
        operations[who] += chunk.count > 0;
        if (chunk.count == 0 && status == TL_OK) {
            const uint64_t seen = tl_partition_tail(partitions[p]);
            tl_bounds bounds;
            REQUIRE(tl_partition_bounds(partitions[p], &bounds, &err) == TL_OK);
            if (bounds.log_end == cursor.offset) {
                tl_partition *const one[] = {partitions[p]};
                status = tl_store_wait(store, one, &seen, 1, 20000000, 1000, NULL, 0, NULL, &err);
                REQUIRE(allowed(status, &err, TL_ETIMEOUT, TL_ETIMEOUT));
            }
        }
    }
    tl_chunk_free(&chunk);
    return NULL;
}

static void finding(void *context, const char *file, int64_t position, const char *what, int64_t first, int64_t next) {
    (void)context;
    REFUSE("check: %s at %lld: %s, offsets %lld to %lld", file, (long long)position, what, (long long)first,
           (long long)next);
}

static void *look_around(void *argument) {
    uint64_t who = (uintptr_t)argument, seed = who;
    tl_chunk chunk = {0};
    while (!stopped()) {
        size_t p = check_random(&seed) % PARTITIONS, failed = 0;
        tl_error err = {0};
        tl_bounds bounds;
        tl_partition_info info;
        REQUIRE(tl_partition_bounds(partitions[p], &bounds, &err) == TL_OK);
        REQUIRE(bounds.log_start <= bounds.log_end);
        if (bounds.log_end - bounds.log_start < 10)
            continue;
        int64_t offsets[8], found[2];
        for (size_t i = 0; i < 8; i++)
            offsets[i] =
                bounds.log_start + (int64_t)(check_random(&seed) % (uint64_t)(bounds.log_end - bounds.log_start));
        tl_chunk_clear(&chunk);
        int status = tl_partition_read_at(partitions[p], offsets, 8, &chunk, 0, NULL, NULL, &failed, &err);
        REQUIRE(allowed(status, &err, TL_ERANGE, TL_ERANGE)); /* trimmed meanwhile */
        for (size_t i = 0; i < chunk.count; i++) {
            REQUIRE(chunk.records[i].offset == offsets[i]);
            look_at(NULL, &chunk, &chunk.records[i]);
        }
        if (status == TL_OK) {
            const int64_t times[2] = {chunk.records[0].timestamp_ms, chunk.records[0].timestamp_ms + 1};
            status = tl_partition_find(partitions[p], times, 2, found, NULL, NULL, &err);
            REQUIRE(allowed(status, &err, TL_ERANGE, TL_ERANGE));
            REQUIRE(status < 0 || (found[0] <= offsets[0] || bounds.log_start < found[0]));
        }
        REQUIRE(allowed(tl_partition_describe(partitions[p], &info, &err), &err, TL_OK, TL_OK));
        if (check_random(&seed) % 16 == 0) {
            const tl_check_report report = {.finding = finding};
            REQUIRE(allowed(tl_partition_check(partitions[p], &report, &err), &err, TL_ERANGE, TL_ERANGE));
        }
        operations[who]++;
    }
    tl_chunk_free(&chunk);
    return NULL;
}

/* --- keeping house --- */

static void *trim(void *argument) {
    uint64_t who = (uintptr_t)argument, seed = who;
    while (!stopped()) {
        size_t p = check_random(&seed) % PARTITIONS;
        tl_error err = {0};
        tl_bounds bounds;
        REQUIRE(tl_partition_bounds(partitions[p], &bounds, &err) == TL_OK);
        int64_t before = check_random(&seed) % 20 == 0 ? bounds.log_end : bounds.log_end - 5000;
        if (before > bounds.log_start)
            REQUIRE(allowed(tl_partition_trim(partitions[p], before, &err), &err, TL_OK, TL_OK));
        REQUIRE(allowed(tl_partition_retain(partitions[p], tl_os->now_ms(), &err), &err, TL_OK, TL_OK));
        operations[who]++;
        const struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int count_one(void *context, uint32_t slot, const tl_partition_config *config) {
    *(uint32_t *)context += config->segment_bytes == SEGMENT && slot < 64;
    return 0;
}

static void *keep_house(void *argument) {
    uint64_t who = (uintptr_t)argument, round = 0;
    while (!stopped()) {
        tl_error err = {0};
        uint32_t slot = 0, epoch = 0, count = 0, other = 0;
        REQUIRE(
            allowed(round % 2 == 0 ? tl_store_sync(store, &err) : tl_store_housekeep(store, &err), &err, TL_OK, TL_OK));
        REQUIRE(allowed(tl_store_offset_slot(store, "group", 5, kit_channel, (uint32_t)(round % 50), true, &slot, &err),
                        &err, TL_OK, TL_OK));
        tl_offset_word word;
        tl_offsets *table = tl_store_offsets(store);
        REQUIRE(tl_offsets_read(table, slot, &word, NULL) == TL_OK &&
                tl_offsets_claim(table, slot, word, tl_store_owner(store), &epoch) == TL_OK);
        REQUIRE(tl_offsets_commit(table, slot, tl_store_owner(store), epoch, (int64_t)round, 1) == TL_OK);
        REQUIRE(allowed(tl_store_sync_offsets(store, &err), &err, TL_OK, TL_OK));
        tl_partition_config config = {.partition = 7,
                                      .segment_bytes = 8192,
                                      .segment_ms = -1,
                                      .retention_ms = -1,
                                      .retention_bytes = -1,
                                      .max_message_bytes = 4096};
        memcpy(config.channel, "another channel", 16);
        snprintf(config.directory, sizeof config.directory, "more-%llu", (unsigned long long)round % 3);
        REQUIRE(allowed(tl_store_create_partitions(store, &config, 1, &other, &err), &err, TL_OK, TL_OK));
        tl_partition *extra = NULL;
        tl_appended out;
        kit_ledger ledger = {0};
        REQUIRE(tl_store_partition(store, other, config.channel, &extra, &err) == TL_OK);
        REQUIRE(kit_append(extra, &ledger, 3, 0, &out, &err) == TL_OK);
        kit_verify(extra, &ledger, "a partition of its own");
        free(ledger.entries);
        REQUIRE(allowed(tl_store_drop_partitions(store, &other, 1, &err), &err, TL_OK, TL_OK));
        tl_partition_release(extra);
        REQUIRE(tl_store_each_partition(store, &count, count_one) == 0 && count == PARTITIONS);
        tl_store_wake(store);
        tl_store_bump_generation(store);
        operations[who]++;
        round++;
    }
    return NULL;
}

int main(void) {
    char path[200];
    const char *seconds = getenv("TIDELOG_STRESS_SECONDS");
    tl_error err = {0};
    int state = 0;
    kit_install();
    kit_directory(path, "stress");
    const tl_store_options options = {.flush_interval_ms = 20, .lock_timeout_ms = 20000, .create = true};
    CHECK(tl_store_open(path, &options, &store, &state, NULL, &err) == TL_OK && tl_store_ready(store, &err) == TL_OK);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        CHECK(kit_create(store, p, SEGMENT, &slots[p], &err) == TL_OK);
        CHECK(tl_store_partition(store, slots[p], kit_channel, &partitions[p], &err) == TL_OK);
    }
    void *(*const work[THREADS])(void *) = {append, append, read_on, read_on, look_around, trim, keep_house, read_on};
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, work[i], (void *)i) == 0);
    sleep(seconds == NULL ? 20 : (unsigned)atoi(seconds));
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    uint64_t total = 0;
    for (int i = 0; i < THREADS; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(operations[i] > 0);
        total += operations[i];
    }
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        tl_bounds bounds;
        CHECK(tl_partition_bounds(partitions[p], &bounds, &err) == TL_OK && bounds.log_end == (int64_t)appended[p]);
        tl_partition_release(partitions[p]);
    }
    CHECK(tl_store_close(store, &err) == TL_OK);
    tl_store_free(store);
    kit_remove(AT_FDCWD, path);
    printf("%llu operations; ", (unsigned long long)total);
    return check_report();
}
