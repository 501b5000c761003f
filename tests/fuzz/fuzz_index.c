/* Can bytes in place of an index, counts and queries make a lookup, an append or a check touch anything else?
 *
 * Imports index.h through tests/native/index_oracle.h. Single-threaded. Input: 32 bytes of numbers, then the entries,
 * which serve as both indexes. Entries in order, made so on request or by luck, are answered like the oracle, all
 * others by a hint that harms nobody. */
#include "../native/index_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD_BYTES 32
#define QUERIES_MAX 48

static bool offsets_in_order(const tl_index *index) {
    uint64_t before = 0;
    for (uint32_t slot = 0; slot < index->offset_count; slot++) {
        uint64_t relative = big_endian(index->offset_entries + 8 * (size_t)slot, 4);
        if (relative < before || relative > INT32_MAX)
            return false;
        before = relative;
    }
    return true;
}

static bool times_in_order(const tl_index *index) {
    int64_t before = 0;
    for (uint32_t slot = 0; slot < index->time_count; slot++) {
        int64_t timestamp_ms = (int64_t)big_endian(index->time_entries + 12 * (size_t)slot, 8);
        uint64_t relative = big_endian(index->time_entries + 12 * (size_t)slot + 8, 4);
        if (timestamp_ms < before || relative > INT32_MAX)
            return false;
        before = timestamp_ms;
    }
    return true;
}

/* Takes the entries as steps from the one before. */
static void bring_in_order(tl_index *index) {
    uint32_t relative = 0, position = 0;
    int64_t timestamp_ms = 0;
    for (uint32_t slot = 0; slot < index->offset_count; slot++) {
        relative += (uint32_t)big_endian(index->offset_entries + 8 * (size_t)slot + 2, 2);
        position += (uint32_t)big_endian(index->offset_entries + 8 * (size_t)slot + 6, 2);
        put_offset(index, slot, relative, position);
    }
    relative = 0;
    for (uint32_t slot = 0; slot < index->time_count; slot++) {
        timestamp_ms += (int64_t)big_endian(index->time_entries + 12 * (size_t)slot + 4, 4);
        relative += (uint32_t)big_endian(index->time_entries + 12 * (size_t)slot + 10, 2);
        put_time(index, slot, timestamp_ms, relative);
    }
}

static void search(const tl_index *index, uint64_t seed, unsigned shape, uint32_t limit_position) {
    int64_t queries[QUERIES_MAX], positions[QUERIES_MAX], raw[QUERIES_MAX], query = index->base_offset;
    tl_index_time times[QUERIES_MAX];
    size_t n = seed % (QUERIES_MAX + 1);
    uint64_t step = UINT64_MAX >> (shape & 63);
    for (size_t i = 0; i < n; i++) {
        uint64_t moved = check_random(&seed) & step;
        bool ascending = (shape & 64) != 0; /* until it wraps */
        query = (int64_t)((uint64_t)(ascending ? query : index->base_offset) + moved);
        queries[i] = query;
    }
    bool ordered = offsets_in_order(index), times_ordered = times_in_order(index);
    tl_index_lookup_many(index, queries, n, limit_position, positions);
    tl_index_lookup_raw(index->offset_entries, index->offset_count, index->base_offset, queries, n, raw);
    tl_index_lookup_times(index, queries, n, times);
    for (size_t i = 0; i < n; i++) {
        int64_t expected = naive_position(index, queries[i], limit_position);
        tl_index_entry one = tl_index_lookup(index, queries[i], limit_position);
        tl_index_time single = tl_index_lookup_time(index, queries[i]), time = naive_time(index, queries[i]);
        CHECK(is_hint(index, queries[i], limit_position, positions[i]));
        CHECK(is_hint(index, queries[i], limit_position, one.position));
        CHECK(is_hint(index, queries[i], NO_LIMIT, raw[i]));
        CHECK(!ordered || (positions[i] == expected && one.position == expected));
        CHECK(times[i].timestamp_ms == -1 || (times[i].timestamp_ms >= 0 && times[i].timestamp_ms <= queries[i]));
        CHECK(times[i].offset >= index->base_offset && times[i].offset - index->base_offset <= INT32_MAX);
        CHECK(!times_ordered || (times[i].offset == time.offset && times[i].timestamp_ms == time.timestamp_ms));
        CHECK(!times_ordered || (single.offset == time.offset && single.timestamp_ms == time.timestamp_ms));
    }
}

/* A walk along made batches with the entries as they are: appends go behind them or are refused. */
static void go_on(tl_index *index, uint64_t seed, uint32_t limit_position) {
    tl_index_progress progress;
    tl_index_check check = {0, 0};
    tl_error err;
    uint32_t position = tl_index_resume(index, limit_position, &progress);
    int64_t offset = index->base_offset;
    for (int i = 0; i < 40; i++) {
        tl_batch batch = {.base_offset = offset, .bytes = 61 + (uint32_t)(check_random(&seed) & 4095)};
        batch.last_offset_delta = (int32_t)(check_random(&seed) >> (33 + seed % 31));
        batch.max_timestamp_ms = (int64_t)(check_random(&seed) >> (seed & 63));
        tl_index before = *index;
        int status = tl_index_scan_step(index, &progress, position, &batch, &err);
        CHECK(index->offset_count - before.offset_count <= (status == TL_OK));
        CHECK(index->time_count - before.time_count <= index->offset_count - before.offset_count);
        (void)tl_index_check_step(index, &check, position, &batch, &err);
        position += batch.bytes;
        offset += batch.last_offset_delta + 1;
    }
    (void)tl_index_check_end(index, &check, &err);
    (void)tl_index_finish(index, &progress, &err);
    tl_index_truncate(index, limit_position);
    CHECK(index->offset_count <= index->offset_capacity && index->time_count <= index->time_capacity);
    CHECK(index->offset_count == 0 || position_of(index, index->offset_count - 1) < limit_position);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD_BYTES)
        return 0;
    uint64_t seed = big_endian(data, 8);
    uint32_t limit_position = (uint32_t)big_endian(data + 16, 4);
    const uint8_t *bytes = data + HEAD_BYTES;
    size_t bytes_count = size - HEAD_BYTES;
    uint32_t spare = data[20] & 15u;
    tl_index index = new_index((int64_t)(big_endian(data + 8, 8) >> (2 + (data[21] & 31))),
                               (uint32_t)(bytes_count / 8) + spare, (uint32_t)(bytes_count / 12) + spare);
    index.offset_count = (uint32_t)(bytes_count / 8);
    index.time_count = (uint32_t)(bytes_count / 12);
    if (bytes_count >= 8)
        memcpy(index.offset_entries, bytes, bytes_count / 8 * 8);
    if (bytes_count >= 12)
        memcpy(index.time_entries, bytes, bytes_count / 12 * 12);
    if (data[23] & 2)
        bring_in_order(&index);
    tl_error err;
    int64_t end_offset = (int64_t)big_endian(data + 24, 8);
    bool verified = tl_index_verify(&index, limit_position, end_offset, &err) == TL_OK;
    CHECK(!verified || (offsets_in_order(&index) && times_in_order(&index)));
    CHECK(!verified || tl_index_sanity(index.offset_entries, 8 * (size_t)index.offset_count, &err) == TL_OK);
    CHECK(!verified || tl_index_sanity_time(index.time_entries, 12 * (size_t)index.time_count, &err) == TL_OK);
    (void)tl_index_sanity(bytes, bytes_count, &err);
    (void)tl_index_sanity_time(bytes, bytes_count, &err);
    search(&index, seed, data[22], limit_position);
    if (data[23] & 1)
        index.offset_count = index.time_count = UINT32_MAX - data[23];
    go_on(&index, seed, limit_position);
    search(&index, ~seed, data[22], limit_position);
    free_index(&index);
    return 0;
}
