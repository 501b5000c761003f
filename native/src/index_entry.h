/* How is one entry of an offset or time index read?
 *
 * Imports index.h; private to native/src/index*.c. Callable from any thread. A stored i32 is read as u32, so that a
 * negative one is larger than everything valid and one comparison refuses both. */
#ifndef TIDELOG_INDEX_ENTRY_H
#define TIDELOG_INDEX_ENTRY_H

#include "tidelog/index.h"

#define TL_INDEX_POSITION_END ((uint32_t)INT32_MAX + 1u)

TL_INLINE int64_t relative_at(const uint8_t *entries, size_t slot) {
    return (int64_t)tl_be32(entries + slot * TL_INDEX_ENTRY_BYTES);
}

TL_INLINE uint32_t position_at(const uint8_t *entries, size_t slot) {
    return tl_be32(entries + slot * TL_INDEX_ENTRY_BYTES + 4);
}

TL_INLINE int64_t timestamp_at(const uint8_t *entries, size_t slot) {
    return (int64_t)tl_be64(entries + slot * TL_INDEX_TIME_ENTRY_BYTES);
}

TL_INLINE int64_t time_relative_at(const uint8_t *entries, size_t slot) {
    return (int64_t)tl_be32(entries + slot * TL_INDEX_TIME_ENTRY_BYTES + 8);
}

TL_INLINE uint32_t offset_entries(const tl_index *index) {
    return index->offset_count < index->offset_capacity ? index->offset_count : index->offset_capacity;
}

TL_INLINE uint32_t time_entries(const tl_index *index) {
    return index->time_count < index->time_capacity ? index->time_count : index->time_capacity;
}

/* -1 below the base; above all relative offsets the largest one, which finds the same entry. */
TL_INLINE int64_t relative_key(int64_t base_offset, int64_t offset) {
    if (offset < base_offset)
        return -1;
    uint64_t relative = (uint64_t)offset - (uint64_t)base_offset;
    return relative < INT32_MAX ? (int64_t)relative : INT32_MAX;
}

/* A time entry as values; {-1, base offset} when no batch can be what it says. */
TL_INLINE tl_index_time time_entry_at(const tl_index *index, size_t slot) {
    tl_index_time entry = {timestamp_at(index->time_entries, slot), 0};
    int64_t relative = time_relative_at(index->time_entries, slot);
    entry.offset = (int64_t)((uint64_t)index->base_offset + (uint64_t)relative);
    if (entry.timestamp_ms < 0 || relative > INT32_MAX || entry.offset < index->base_offset)
        entry = (tl_index_time){-1, index->base_offset};
    return entry;
}

#endif
