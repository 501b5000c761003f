/* What do the entries of an index say, read byte by byte and searched by walking through all of them?
 *
 * Imports check.h, index.h. Single-threaded. Every block of entries is a heap block of exactly its size, so that
 * AddressSanitizer sees a read past either end. */
#ifndef TIDELOG_TEST_INDEX_ORACLE_H
#define TIDELOG_TEST_INDEX_ORACLE_H

#include "check.h"
#include "tidelog/index.h"

#define NO_LIMIT UINT32_MAX

static inline uint64_t big_endian(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static inline void put_big_endian(uint8_t *p, int bytes, uint64_t v) {
    for (int i = bytes; i-- > 0; v >>= 8)
        p[i] = (uint8_t)v;
}

static inline tl_index new_index(int64_t base_offset, uint32_t offset_capacity, uint32_t time_capacity) {
    tl_index index = {.base_offset = base_offset, .offset_capacity = offset_capacity, .time_capacity = time_capacity};
    index.offset_entries = calloc(offset_capacity, 8);
    index.time_entries = calloc(time_capacity, 12);
    CHECK(offset_capacity == 0 || index.offset_entries != NULL);
    CHECK(time_capacity == 0 || index.time_entries != NULL);
    return index;
}

static inline void free_index(tl_index *index) {
    free(index->offset_entries);
    free(index->time_entries);
}

static inline void put_offset(tl_index *index, uint32_t slot, uint32_t relative, uint32_t position) {
    put_big_endian(index->offset_entries + 8 * (size_t)slot, 4, relative);
    put_big_endian(index->offset_entries + 8 * (size_t)slot + 4, 4, position);
}

static inline void put_time(tl_index *index, uint32_t slot, int64_t timestamp_ms, uint32_t relative) {
    put_big_endian(index->time_entries + 12 * (size_t)slot, 8, (uint64_t)timestamp_ms);
    put_big_endian(index->time_entries + 12 * (size_t)slot + 8, 4, relative);
}

static inline tl_batch batch_of(int64_t base_offset, int32_t last_offset_delta, int64_t max_timestamp_ms,
                                uint32_t bytes) {
    tl_batch batch = {.base_offset = base_offset, .last_offset_delta = last_offset_delta, .bytes = bytes};
    batch.max_timestamp_ms = max_timestamp_ms;
    batch.count = last_offset_delta + 1;
    return batch;
}

static inline bool offset_fits(const tl_index *index, uint32_t slot, int64_t target) {
    int64_t relative = (int32_t)big_endian(index->offset_entries + 8 * (size_t)slot, 4);
    return target >= index->base_offset && relative >= 0 &&
           (uint64_t)relative <= (uint64_t)target - (uint64_t)index->base_offset;
}

static inline uint32_t position_of(const tl_index *index, uint32_t slot) {
    return (uint32_t)big_endian(index->offset_entries + 8 * (size_t)slot + 4, 4);
}

static inline int64_t naive_position(const tl_index *index, int64_t target, uint32_t limit_position) {
    int64_t position = 0;
    for (uint32_t slot = 0; slot < index->offset_count; slot++)
        if (offset_fits(index, slot, target))
            position = position_of(index, slot);
    return position < limit_position && position <= INT32_MAX ? position : 0;
}

static inline tl_index_time naive_time(const tl_index *index, int64_t target) {
    tl_index_time found = {-1, index->base_offset};
    for (uint32_t slot = 0; slot < index->time_count; slot++) {
        int64_t timestamp_ms = (int64_t)big_endian(index->time_entries + 12 * (size_t)slot, 8);
        if (timestamp_ms <= target) {
            found.timestamp_ms = timestamp_ms;
            found.offset = index->base_offset + (int64_t)big_endian(index->time_entries + 12 * (size_t)slot + 8, 4);
        }
    }
    return found;
}

/* An answer may be 0, or an entry that fits the target and lies inside. */
static inline bool is_hint(const tl_index *index, int64_t target, uint32_t limit_position, int64_t position) {
    if (position == 0)
        return true;
    for (uint32_t slot = 0; slot < index->offset_count; slot++)
        if (position_of(index, slot) == position && offset_fits(index, slot, target))
            return position < limit_position && position <= INT32_MAX;
    return false;
}

#endif
