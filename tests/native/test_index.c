/* Do appends and rebuilds write Kafka's bytes, and do the checks see every bit that differs?
 *
 * Imports index.h through index_oracle.h. Single-threaded. The oracle for the entries is Kafka's recovery loop
 * (position of this batch minus position of the last entry), written on bytes of its own. */
#include "index_oracle.h"

static uint64_t state = 20261127;

static uint64_t below(uint64_t n) {
    return check_random(&state) % n;
}

/* --- the worked example, computed by hand --- */

static void check_golden(void) {
    static const struct {
        uint32_t position, bytes;
        int64_t first, last, timestamp_ms;
    } batches[] = {
        {0, 3000, 100, 109, 1000},
        {3000, 2000, 110, 119, 900},
        {5000, 100, 120, 120, 2000},   /* 5000 bytes since the start: entries {20, 5000} and {2000, 20} */
        {5100, 4096, 121, 130, 1500},
        {9196, 200, 131, 140, 2000},   /* 4196 since: {40, 9196}; the largest timestamp is still 2000 of batch 120 */
        {9396, 3896, 141, 150, -1},
        {13292, 61, 151, 151, 2999},   /* exactly 4096 since: not due */
        {13353, 61, 152, 160, 2500},   /* 4157: {60, 13353}; the time entry is batch 151's: {2999, 51} */
        {13414, 61, 161, 161, 0x123456789a},
    };
    uint8_t offsets[24], times[36];
    CHECK(check_unhex("0000001400001388" "00000028000023ec" "0000003c00003429", offsets) == sizeof offsets);
    CHECK(check_unhex("00000000000007d000000014" "0000000000000bb700000033" "000000123456789a0000003d", times) == 36);
    tl_index index = new_index(100, 3, 3);
    tl_index_progress progress;
    tl_index_start(&progress);
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        tl_batch batch = batch_of(batches[i].first, (int32_t)(batches[i].last - batches[i].first),
                                  batches[i].timestamp_ms, batches[i].bytes);
        CHECK(tl_index_scan_step(&index, &progress, batches[i].position, &batch, NULL) == TL_OK);
    }
    CHECK(index.offset_count == 3 && memcmp(index.offset_entries, offsets, sizeof offsets) == 0);
    CHECK(index.time_count == 2 && memcmp(index.time_entries, times, 24) == 0);
    CHECK(tl_index_full(&index));
    CHECK(tl_index_finish(&index, &progress, NULL) == TL_OK);
    CHECK(index.time_count == 3 && memcmp(index.time_entries, times, sizeof times) == 0);
    CHECK(tl_index_finish(&index, &progress, NULL) == TL_OK && index.time_count == 3);
    static const int64_t wanted[][2] = {{INT64_MIN, 0}, {-1, 0}, {99, 0}, {100, 0}, {119, 0}, {120, 5000}, {121, 5000},
                                        {139, 5000}, {140, 9196}, {159, 9196}, {160, 13353}, {INT64_MAX, 13353}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK(tl_index_lookup(&index, wanted[i][0], NO_LIMIT).position == wanted[i][1]);
    CHECK(tl_index_lookup(&index, 139, NO_LIMIT).offset == 120 && tl_index_lookup(&index, 119, NO_LIMIT).offset == -1);
    CHECK(tl_index_lookup(&index, 160, 13353).offset == -1 && tl_index_lookup(&index, 160, 13353).position == 0);
    CHECK(tl_index_lookup(&index, 160, 13354).offset == 160);
    tl_index_time at = tl_index_lookup_time(&index, 2998);
    CHECK(at.timestamp_ms == 2000 && at.offset == 120);
    at = tl_index_lookup_time(&index, 2999);
    CHECK(at.timestamp_ms == 2999 && at.offset == 151);
    at = tl_index_lookup_time(&index, 1999);
    CHECK(at.timestamp_ms == -1 && at.offset == 100);
    free_index(&index);
}

/* --- appends and rebuilds over a made log --- */

#define BATCHES_MAX 400
typedef struct made_log {
    tl_batch batches[BATCHES_MAX];
    uint32_t positions[BATCHES_MAX + 1];
    uint32_t count;
    int64_t base_offset;
} made_log;

static void make_log(made_log *log, bool unique_timestamps) {
    uint32_t position = 0, largest = below(2) ? 600 : 9000;
    int64_t offset = log->base_offset = (int64_t)below(2) * (int64_t)below(1u << 20), clock = (int64_t)below(1u << 30);
    log->count = (uint32_t)below(BATCHES_MAX);
    for (uint32_t i = 0; i < log->count; i++) {
        uint32_t bytes = 61 + (uint32_t)below(largest);
        int64_t timestamp_ms = below(9) ? clock - (int64_t)below(40) : -1 - (int64_t)below(3);
        clock += unique_timestamps ? 41 : (int64_t)below(30);
        if (unique_timestamps)
            timestamp_ms = clock;
        log->batches[i] = batch_of(offset, (int32_t)below(below(10) ? 20 : 2000000), timestamp_ms, bytes);
        log->positions[i] = position;
        offset = tl_batch_next_offset(&log->batches[i]) + (below(5) ? 0 : (int64_t)below(1000));
        position += bytes;
    }
    log->positions[log->count] = position;
}

/* Kafka's LogSegment.recover, on bytes of its own. */
static void naive_rebuild(const made_log *log, uint32_t upto, tl_index *out) {
    int64_t max_timestamp_ms = -1, max_timestamp_offset = -1, last_written_ms = -1;
    uint32_t last_entry_position = 0;
    out->offset_count = out->time_count = 0;
    for (uint32_t i = 0; i < upto; i++) {
        const tl_batch *batch = &log->batches[i];
        int64_t last_offset = batch->base_offset + batch->last_offset_delta;
        if (batch->max_timestamp_ms > max_timestamp_ms) {
            max_timestamp_ms = batch->max_timestamp_ms;
            max_timestamp_offset = last_offset;
        }
        if (log->positions[i] - last_entry_position > 4096) {
            put_offset(out, out->offset_count++, (uint32_t)(last_offset - log->base_offset), log->positions[i]);
            last_entry_position = log->positions[i];
            if (max_timestamp_ms > last_written_ms) {
                put_time(out, out->time_count++, max_timestamp_ms, (uint32_t)(max_timestamp_offset - log->base_offset));
                last_written_ms = max_timestamp_ms;
            }
        }
    }
}

static bool same(const tl_index *a, const tl_index *b) {
    return a->offset_count == b->offset_count && a->time_count == b->time_count &&
           (a->offset_count == 0 || memcmp(a->offset_entries, b->offset_entries, 8 * (size_t)a->offset_count) == 0) &&
           (a->time_count == 0 || memcmp(a->time_entries, b->time_entries, 12 * (size_t)a->time_count) == 0);
}

static int64_t log_end(const made_log *log) {
    return log->count == 0 ? log->base_offset : tl_batch_next_offset(&log->batches[log->count - 1]);
}

/* The batch a reader would stop at: the first one, from `position` on, whose last offset reaches the target. */
static uint32_t walk_to(const made_log *log, int64_t position, int64_t target) {
    uint32_t i = 0;
    while (i < log->count && log->positions[i] < position)
        i++;
    CHECK(log->positions[i] == position);
    while (i < log->count && tl_batch_last_offset(&log->batches[i]) < target)
        i++;
    return i;
}

static void check_targets(const made_log *log, const tl_index *index) {
    uint32_t end_position = log->positions[log->count];
    for (uint32_t i = 0; i < log->count; i++) {
        const tl_batch *batch = &log->batches[i];
        int64_t middle = batch->base_offset + batch->last_offset_delta / 2;
        int64_t targets[3] = {batch->base_offset, middle, tl_batch_last_offset(batch)};
        for (int k = 0; k < 3; k++)
            CHECK(walk_to(log, tl_index_lookup(index, targets[k], end_position).position, targets[k]) == i);
        int64_t wanted_ms = batch->max_timestamp_ms - (int64_t)below(3);
        if (wanted_ms < 0)
            continue;
        uint32_t first = 0;
        while (log->batches[first].max_timestamp_ms < wanted_ms)
            first++;
        tl_index_time hint = tl_index_lookup_time(index, wanted_ms);
        CHECK(hint.offset <= tl_batch_last_offset(&log->batches[first]));
        int64_t position = tl_index_lookup(index, hint.offset, end_position).position;
        CHECK(position <= log->positions[first]);
    }
}

static void check_against_log(const made_log *log, const tl_index *index, int expected) {
    tl_index_check check = {0, 0};
    tl_error err;
    int status = TL_OK;
    for (uint32_t i = 0; i < log->count && status == TL_OK; i++)
        status = tl_index_check_step(index, &check, log->positions[i], &log->batches[i], &err);
    if (status == TL_OK)
        status = tl_index_check_end(index, &check, &err);
    CHECK(status == expected);
    CHECK(status == TL_OK || (strstr(err.what, "index: ") != NULL && strstr(err.detail, "rebuild the index") != NULL));
}

static void check_rebuild(void) {
    static made_log log;
    for (int round = 0; round < 600; round++) {
        make_log(&log, false);
        tl_index appended = new_index(log.base_offset, BATCHES_MAX, BATCHES_MAX + 1);
        tl_index rebuilt = new_index(log.base_offset, BATCHES_MAX, BATCHES_MAX + 1);
        tl_index oracle = new_index(log.base_offset, BATCHES_MAX, BATCHES_MAX + 1);
        tl_index_progress appending, scanning;
        tl_index_start(&appending);
        tl_index_start(&scanning);
        for (uint32_t i = 0; i < log.count; i++) {
            tl_index_batch note = {tl_batch_last_offset(&log.batches[i]), log.batches[i].max_timestamp_ms,
                                   log.positions[i], log.batches[i].bytes};
            CHECK(tl_index_note(&appended, &appending, &note, NULL) == TL_OK);
            CHECK(tl_index_scan_step(&rebuilt, &scanning, log.positions[i], &log.batches[i], NULL) == TL_OK);
        }
        naive_rebuild(&log, log.count, &oracle);
        CHECK(same(&appended, &oracle) && same(&rebuilt, &oracle));
        CHECK(memcmp(&appending, &scanning, sizeof appending) == 0);
        CHECK(tl_index_verify(&appended, log.positions[log.count], log_end(&log), NULL) == TL_OK);
        CHECK(tl_index_sanity(appended.offset_entries, 8 * (size_t)appended.offset_count, NULL) == TL_OK);
        CHECK(tl_index_sanity_time(appended.time_entries, 12 * (size_t)appended.time_count, NULL) == TL_OK);
        check_targets(&log, &appended);
        check_against_log(&log, &appended, TL_OK);

        /* lost entries, a shorter log, another process that goes on: the same bytes again */
        uint32_t cut = (uint32_t)below(log.count + 1);
        tl_index_truncate(&rebuilt, log.positions[cut]);
        naive_rebuild(&log, cut, &oracle);
        CHECK(same(&rebuilt, &oracle));
        for (uint32_t slot = rebuilt.offset_count; slot < BATCHES_MAX; slot++)
            CHECK(big_endian(rebuilt.offset_entries + 8 * (size_t)slot, 8) == 0);
        for (uint32_t slot = rebuilt.time_count; slot < BATCHES_MAX; slot++)
            CHECK(big_endian(rebuilt.time_entries + 12 * (size_t)slot, 8) == 0);
        if (rebuilt.offset_count > 0 && below(2)) /* the owner died before it published the offset entry */
            rebuilt.offset_count--;
        uint32_t from = tl_index_resume(&rebuilt, log.positions[log.count], &scanning);
        for (uint32_t i = walk_to(&log, from, INT64_MIN); i < log.count; i++)
            CHECK(tl_index_scan_step(&rebuilt, &scanning, log.positions[i], &log.batches[i], NULL) == TL_OK);
        CHECK(same(&rebuilt, &appended));
        CHECK(memcmp(&appending, &scanning, sizeof appending) == 0);

        CHECK(tl_index_finish(&appended, &appending, NULL) == TL_OK);
        CHECK(tl_index_finish(&rebuilt, &scanning, NULL) == TL_OK);
        CHECK(same(&rebuilt, &appended));
        if (appending.max_timestamp_ms >= 0) {
            const uint8_t *last = appended.time_entries + 12 * (size_t)(appended.time_count - 1);
            CHECK((int64_t)big_endian(last, 8) == appending.max_timestamp_ms);
            CHECK(log.base_offset + (int64_t)big_endian(last + 8, 4) == appending.max_timestamp_offset);
        } else {
            CHECK(appended.time_count == 0);
        }
        check_against_log(&log, &appended, TL_OK);
        tl_index_truncate(&appended, log.positions[log.count]); /* a segment that is written on loses its final entry */
        naive_rebuild(&log, log.count, &oracle);
        CHECK(same(&appended, &oracle));
        free_index(&appended);
        free_index(&rebuilt);
        free_index(&oracle);
    }
}

/* Every bit of both indexes is noticed by the comparison with the log, and so is every entry too many. */
static void check_flips(void) {
    static made_log log;
    int logs = 0;
    while (logs < 8) {
        make_log(&log, true);
        tl_index index = new_index(log.base_offset, BATCHES_MAX, BATCHES_MAX + 1);
        tl_index_progress progress;
        tl_index_start(&progress);
        for (uint32_t i = 0; i < log.count; i++)
            CHECK(tl_index_scan_step(&index, &progress, log.positions[i], &log.batches[i], NULL) == TL_OK);
        CHECK(tl_index_finish(&index, &progress, NULL) == TL_OK);
        for (size_t bit = 0; bit < 64 * (size_t)index.offset_count; bit++) {
            index.offset_entries[bit / 8] ^= (uint8_t)(1u << bit % 8);
            check_against_log(&log, &index, TL_ECORRUPT);
            index.offset_entries[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t bit = 0; bit < 96 * (size_t)index.time_count; bit++) {
            index.time_entries[bit / 8] ^= (uint8_t)(1u << bit % 8);
            check_against_log(&log, &index, TL_ECORRUPT);
            index.time_entries[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        check_against_log(&log, &index, TL_OK);
        if (index.offset_count > 2) {
            logs++;
            index.offset_count++; /* an unused slot */
            check_against_log(&log, &index, TL_ECORRUPT);
            put_offset(&index, index.offset_count - 1, INT32_MAX, log.positions[log.count]);
            check_against_log(&log, &index, TL_ECORRUPT);
            index.offset_count--;
            index.time_count++;
            check_against_log(&log, &index, TL_ECORRUPT);
            put_time(&index, index.time_count - 1, INT64_MAX, INT32_MAX);
            check_against_log(&log, &index, TL_ECORRUPT);
        }
        free_index(&index);
    }
}

/* --- refusals --- */

static void check_append_refuses(void) {
    tl_error err;
    tl_index index = new_index(1000, 3, 3);
    CHECK(tl_index_append(&index, 999, 100, &err) == TL_EINVAL);
    CHECK(tl_index_append(&index, INT64_MIN, 100, &err) == TL_EINVAL);
    CHECK(tl_index_append(&index, 1000, 100, &err) == TL_EINVAL);
    CHECK(tl_index_append(&index, 1001 + (int64_t)INT32_MAX, 100, &err) == TL_EINVAL);
    CHECK(tl_index_append(&index, INT64_MAX, 100, &err) == TL_EINVAL);
    CHECK(tl_index_append(&index, 1001, 0, &err) == TL_EINVAL);
    CHECK(tl_index_append(&index, 1001, (uint32_t)INT32_MAX + 1, &err) == TL_EINVAL);
    CHECK(index.offset_count == 0);
    CHECK(tl_index_append(&index, 1005, 100, &err) == TL_OK);
    CHECK(tl_index_append(&index, 1005, 200, &err) == TL_ECORRUPT && err.position == 0);
    CHECK(strstr(err.detail, "found 5, limit 5; rebuild the index") != NULL);
    CHECK(tl_index_append(&index, 1006, 100, &err) == TL_ECORRUPT);
    CHECK(tl_index_append(&index, 1006, 101, &err) == TL_OK && !tl_index_full(&index));
    CHECK(tl_index_append(&index, 1000 + (int64_t)INT32_MAX, INT32_MAX, &err) == TL_OK && tl_index_full(&index));
    CHECK(tl_index_append(&index, 1000 + (int64_t)INT32_MAX, INT32_MAX, &err) == TL_EFULL && err.position == 24);
    CHECK(tl_index_append(&index, 1000 + (int64_t)INT32_MAX, INT32_MAX, NULL) == TL_EFULL);
    CHECK(index.offset_count == 3);
    index.offset_count = UINT32_MAX;
    CHECK(tl_index_append(&index, 1007, 102, &err) == TL_EFULL);
    free_index(&index);

    index = new_index(1000, 3, 3);
    CHECK(tl_index_append_time(&index, -1, 1000, &err) == TL_OK && index.time_count == 0);
    CHECK(tl_index_append_time(&index, 0, 999, &err) == TL_EINVAL && index.time_count == 0);
    CHECK(tl_index_append_time(&index, 0, 1001 + (int64_t)INT32_MAX, &err) == TL_EINVAL && index.time_count == 0);
    CHECK(tl_index_append_time(&index, 0, 1000, &err) == TL_OK && index.time_count == 1);
    CHECK(tl_index_sanity_time(index.time_entries, 12, &err) == TL_OK);
    CHECK(tl_index_append_time(&index, 0, 1001, &err) == TL_OK && index.time_count == 1);
    CHECK(!tl_index_full(&index));
    CHECK(tl_index_append_time(&index, 7, 1003, &err) == TL_OK && index.time_count == 2 && tl_index_full(&index));
    CHECK(tl_index_append_time(&index, 7, 1009, &err) == TL_OK && index.time_count == 2);
    CHECK(tl_index_append_time(&index, 8, 1002, &err) == TL_ECORRUPT && err.position == 12);
    CHECK(tl_index_append_time(&index, 8, 1004, &err) == TL_EFULL && index.time_count == 2);
    tl_index_progress progress = {0, 8, 1004};
    CHECK(tl_index_finish(&index, &progress, &err) == TL_OK && index.time_count == 3);
    progress.max_timestamp_ms = 9;
    CHECK(tl_index_finish(&index, &progress, &err) == TL_EFULL && index.time_count == 3);
    index.time_count = UINT32_MAX;
    CHECK(tl_index_finish(&index, &progress, &err) == TL_EFULL);
    free_index(&index);

    index = new_index(0, 0, 0);
    CHECK(tl_index_full(&index));
    CHECK(tl_index_append(&index, 1, 1, &err) == TL_EFULL && tl_index_append_time(&index, 1, 1, &err) == TL_EFULL);
    CHECK(tl_index_finish(&index, &progress, &err) == TL_EFULL);
    free_index(&index);
}

/* When one of the two entries is refused neither is made, and the next batch asks again. */
static void check_both_or_none(void) {
    tl_error err;
    tl_index index = new_index(0, 2, 1);
    tl_index_progress progress;
    tl_index_start(&progress);
    tl_batch batch = batch_of(0, 9, 50, 5000);
    CHECK(tl_index_scan_step(&index, &progress, 0, &batch, &err) == TL_OK);
    batch = batch_of(10, 9, 60, 100);
    CHECK(tl_index_scan_step(&index, &progress, 5000, &batch, &err) == TL_EFULL);
    CHECK(index.offset_count == 0 && index.time_count == 0);
    CHECK(progress.bytes_since_entry == 5100 && progress.max_timestamp_ms == 60 && progress.max_timestamp_offset == 19);
    free(index.time_entries);
    index.time_entries = calloc(2, 12);
    index.time_capacity = 2;
    batch = batch_of(20, 9, 55, 100);
    CHECK(tl_index_scan_step(&index, &progress, 5100, &batch, &err) == TL_OK);
    CHECK(index.offset_count == 1 && index.time_count == 1 && progress.bytes_since_entry == 100);
    CHECK(big_endian(index.offset_entries, 8) == ((uint64_t)29 << 32 | 5100));
    CHECK(big_endian(index.time_entries, 8) == 60 && big_endian(index.time_entries + 8, 4) == 19);
    progress.bytes_since_entry = 5000;
    batch = batch_of(30, 9, 70, 100); /* a position below the last entry's: the log is not what the index says */
    CHECK(tl_index_scan_step(&index, &progress, 5100, &batch, &err) == TL_ECORRUPT);
    CHECK(index.offset_count == 1 && index.time_count == 1);
    free_index(&index);
}

static void check_sanity(void) {
    tl_error err;
    uint8_t bytes[36] = {0};
    CHECK(tl_index_sanity(bytes, 0, &err) == TL_OK && tl_index_sanity_time(bytes, 0, &err) == TL_OK);
    for (size_t size = 1; size < sizeof bytes; size++) {
        memset(bytes, 1, sizeof bytes);
        CHECK(tl_index_sanity(bytes, size, &err) == (size % 8 == 0 ? TL_OK : TL_ECORRUPT));
        CHECK(tl_index_sanity_time(bytes, size, &err) == (size % 12 == 0 ? TL_OK : TL_ECORRUPT));
    }
    memset(bytes + 8, 0, 8);
    CHECK(tl_index_sanity(bytes, 8, &err) == TL_OK);
    CHECK(tl_index_sanity(bytes, 16, &err) == TL_ECORRUPT && err.position == 8);
    bytes[8] = 0x80;
    CHECK(tl_index_sanity(bytes, 16, &err) == TL_ECORRUPT && err.position == 8);
    memset(bytes, 0, sizeof bytes);
    CHECK(tl_index_sanity_time(bytes, 12, &err) == TL_OK); /* timestamp 0 in a first batch of one record */
    CHECK(tl_index_sanity_time(bytes, 24, &err) == TL_ECORRUPT && err.position == 12);
    bytes[7] = 9;
    bytes[19] = 8;
    CHECK(tl_index_sanity_time(bytes, 24, &err) == TL_ECORRUPT && err.position == 12);
    bytes[19] = 9;
    CHECK(tl_index_sanity_time(bytes, 24, &err) == TL_OK);
    bytes[20] = 0xff;
    CHECK(tl_index_sanity_time(bytes, 24, &err) == TL_ECORRUPT && err.position == 12);
}

static void check_verify(void) {
    tl_error err;
    tl_index good = new_index(50, 3, 3), index = new_index(50, 3, 3);
    for (uint32_t slot = 0; slot < 3; slot++) {
        put_offset(&good, slot, 10 * (slot + 1), 5000 * (slot + 1));
        put_time(&good, slot, 100 * ((int64_t)slot + 1), 10 * (slot + 1));
    }
    good.offset_count = good.time_count = index.offset_count = index.time_count = 3;
#define RESTORE \
    (memcpy(index.offset_entries, good.offset_entries, 24), memcpy(index.time_entries, good.time_entries, 36))
#define REFUSED(slot_bytes) (tl_index_verify(&index, 15001, 81, &err) == TL_ECORRUPT && err.position == (slot_bytes))
    RESTORE;
    CHECK(tl_index_verify(&index, 15001, 81, &err) == TL_OK);
    CHECK(tl_index_verify(&index, 15000, 81, &err) == TL_ECORRUPT && err.position == 16);
    CHECK(tl_index_verify(&index, 15001, 80, &err) == TL_ECORRUPT && err.position == 16);
    CHECK(tl_index_verify(&index, 15001, INT64_MIN, &err) == TL_ECORRUPT && err.position == 0);
    put_offset(&index, 0, 0, 5000);
    CHECK(REFUSED(0));
    put_offset(&index, 0, 10, 0);
    CHECK(REFUSED(0));
    RESTORE;
    put_offset(&index, 1, 10, 10000);
    CHECK(REFUSED(8));
    put_offset(&index, 1, 20, 5000);
    CHECK(REFUSED(8));
    put_offset(&index, 1, UINT32_MAX, 10000);
    CHECK(REFUSED(8));
    put_offset(&index, 1, 20, UINT32_MAX);
    CHECK(REFUSED(8));
    RESTORE;
    put_time(&index, 0, -1, 10);
    CHECK(REFUSED(0));
    RESTORE;
    put_time(&index, 1, 100, 20);
    CHECK(REFUSED(12));
    put_time(&index, 1, 200, 9);
    CHECK(REFUSED(12));
    put_time(&index, 1, 200, 10);
    CHECK(tl_index_verify(&index, 15001, 81, &err) == TL_OK); /* Kafka lets offsets repeat */
    put_time(&index, 1, 200, UINT32_MAX);
    CHECK(REFUSED(12));
    free_index(&good);
    free_index(&index);
}

static void check_resume_refuses(void) {
    tl_index index = new_index(50, 2, 2);
    tl_index_progress progress;
    CHECK(tl_index_resume(&index, 100, &progress) == 0 && progress.max_timestamp_ms == -1);
    put_offset(&index, 0, 10, 5000);
    put_time(&index, 0, 77, 3);
    index.offset_count = index.time_count = 1;
    CHECK(tl_index_resume(&index, 5000, &progress) == 0 && progress.max_timestamp_ms == -1);
    CHECK(tl_index_resume(&index, 5001, &progress) == 5000 && progress.bytes_since_entry == 0);
    CHECK(progress.max_timestamp_ms == 77 && progress.max_timestamp_offset == 53);
    put_offset(&index, 0, 10, UINT32_MAX - 1);
    CHECK(tl_index_resume(&index, NO_LIMIT, &progress) == 0);
    put_offset(&index, 0, 10, 5000);
    put_time(&index, 0, -77, 3);
    CHECK(tl_index_resume(&index, 5001, &progress) == 5000 && progress.max_timestamp_ms == -1);
    put_time(&index, 0, 77, UINT32_MAX);
    CHECK(tl_index_resume(&index, 5001, &progress) == 5000 && progress.max_timestamp_offset == -1);
    free_index(&index);
}

int main(void) {
    check_golden();
    check_rebuild();
    check_flips();
    check_append_refuses();
    check_both_or_none();
    check_sanity();
    check_verify();
    check_resume_refuses();
    return check_report();
}
