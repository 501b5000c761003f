/* Which entry of an index fits an offset or a timestamp?
 *
 * Imports index.h. Callable from any thread; takes no lock.
 *
 * A binary search over a million entries waits for memory about ten times in a row. Batched lookups therefore run LANES
 * searches in step: every lane has the same span, so a level is LANES independent loads, none behind a branch, and both
 * places the next level may look at are requested one level ahead. A table of samples for the top levels, built per
 * call, took twice the time. Queries in ascending order search only from the last answer to a bound found by doubling
 * steps, which is a few entries when they are dense. */
#include "index_entry.h"

#define LANES 16u
#define CACHED_SPAN 16u /* entries: below it the next probes are in lines already asked for */

typedef int64_t (*key_reader)(const uint8_t *entries, size_t slot);

/* Sorted entries and how their key is read; the members are constants at every use, so that all of it is inlined. */
typedef struct table {
    const uint8_t *entries;
    size_t count, entry_bytes;
    key_reader key_at;
} table;

/* Moves every slots[lane], which stands at the first slot of a span inside the table, to the last slot of that span
 * whose key is <= the lane's, or leaves it there. What the entries hold decides which half is taken, never a place
 * outside the span, so entries in disorder are harmless. */
TL_INLINE void descend(const table *in, size_t span, const int64_t *keys, size_t *slots, unsigned lanes) {
    while (span > 1) {
        size_t half = span / 2, next = (span - half) / 2;
        for (unsigned lane = 0; lane < lanes; lane++) {
            size_t slot = slots[lane];
            if (span > CACHED_SPAN) {
                __builtin_prefetch(in->entries + (slot + next) * in->entry_bytes);
                __builtin_prefetch(in->entries + (slot + half + next) * in->entry_bytes);
            }
            bool upper = in->key_at(in->entries, slot + half) <= keys[lane];
            slots[lane] = slot + (half & (0 - (size_t)upper));
        }
        span -= half;
    }
}

/* What one block of queries leaves to the next: its last key and where that was found. */
typedef struct run {
    size_t slot;
    int64_t key;
} run;

TL_INLINE void search_block(const table *in, run *before, const int64_t keys[LANES], size_t slots[LANES]) {
    bool ascending = keys[0] >= before->key;
    for (unsigned lane = 1; lane < LANES; lane++)
        ascending &= keys[lane] >= keys[lane - 1];
    size_t from = 0, span = in->count;
    if (ascending) {
        size_t left = in->count - before->slot;
        from = before->slot;
        for (span = LANES; span < left && in->key_at(in->entries, from + span) <= keys[LANES - 1];)
            span *= 2;
        span = span < left ? span : left;
    }
    for (unsigned lane = 0; lane < LANES; lane++)
        slots[lane] = from;
    descend(in, span, keys, slots, LANES);
    before->slot = slots[LANES - 1];
    before->key = keys[LANES - 1];
}

/* --- offset index --- */

TL_INLINE table offset_table(const tl_index *index) {
    return (table){index->offset_entries, offset_entries(index), TL_INDEX_ENTRY_BYTES, relative_at};
}

TL_INLINE uint32_t position_limit(uint32_t limit_position) {
    return limit_position < TL_INDEX_POSITION_END ? limit_position : TL_INDEX_POSITION_END;
}

/* {-1, 0} when it does not fit. The entry is read once more and whole: what the search saw may have changed. */
TL_INLINE tl_index_entry confirm(const uint8_t *entries, size_t slot, int64_t key, uint32_t limit_position) {
    uint64_t entry = tl_be64(entries + slot * TL_INDEX_ENTRY_BYTES);
    int64_t relative = (int64_t)(entry >> 32);
    uint32_t position = (uint32_t)entry;
    bool fits = (relative <= key) & (position < limit_position);
    return (tl_index_entry){fits ? relative : -1, fits ? position : 0};
}

TL_INLINE void lookup_offsets(table in, int64_t base_offset, const int64_t *offsets, size_t n, uint32_t limit_position,
                              int64_t *positions) {
    run before = {0, INT64_MIN};
    if (in.count == 0) {
        for (size_t i = 0; i < n; i++)
            positions[i] = 0;
        return;
    }
    for (size_t at = 0; at < n; at += LANES) {
        unsigned lanes = n - at < LANES ? (unsigned)(n - at) : LANES; /* a last block is filled up with its last key */
        int64_t keys[LANES];
        size_t slots[LANES];
        for (unsigned lane = 0; lane < LANES; lane++)
            keys[lane] = relative_key(base_offset, offsets[at + (lane < lanes ? lane : lanes - 1)]);
        search_block(&in, &before, keys, slots);
        for (unsigned lane = 0; lane < lanes; lane++)
            positions[at + lane] = confirm(in.entries, slots[lane], keys[lane], limit_position).position;
    }
}

tl_index_entry tl_index_lookup(const tl_index *index, int64_t offset, uint32_t limit_position) {
    table in = offset_table(index);
    int64_t key = relative_key(index->base_offset, offset);
    size_t slot = 0;
    if (in.count == 0)
        return (tl_index_entry){-1, 0};
    descend(&in, in.count, &key, &slot, 1);
    tl_index_entry found = confirm(in.entries, slot, key, position_limit(limit_position));
    if (found.offset >= 0)
        found.offset = (int64_t)((uint64_t)index->base_offset + (uint64_t)found.offset);
    return found;
}

void tl_index_lookup_many(const tl_index *index, const int64_t *offsets, size_t n, uint32_t limit_position,
                          int64_t *positions) {
    lookup_offsets(offset_table(index), index->base_offset, offsets, n, position_limit(limit_position), positions);
}

void tl_index_lookup_raw(const uint8_t *entries, size_t count, int64_t base_offset, const int64_t *offsets, size_t n,
                         int64_t *positions) {
    table in = {entries, count, TL_INDEX_ENTRY_BYTES, relative_at};
    lookup_offsets(in, base_offset, offsets, n, TL_INDEX_POSITION_END, positions);
}

/* --- time index --- */

TL_INLINE table time_table(const tl_index *index) {
    return (table){index->time_entries, time_entries(index), TL_INDEX_TIME_ENTRY_BYTES, timestamp_at};
}

TL_INLINE tl_index_time confirm_time(const tl_index *index, size_t slot, int64_t timestamp_ms) {
    tl_index_time found = time_entry_at(index, slot);
    return found.timestamp_ms <= timestamp_ms ? found : (tl_index_time){-1, index->base_offset};
}

tl_index_time tl_index_lookup_time(const tl_index *index, int64_t timestamp_ms) {
    table in = time_table(index);
    size_t slot = 0;
    if (in.count == 0)
        return (tl_index_time){-1, index->base_offset};
    descend(&in, in.count, &timestamp_ms, &slot, 1);
    return confirm_time(index, slot, timestamp_ms);
}

void tl_index_lookup_times(const tl_index *index, const int64_t *timestamps_ms, size_t n, tl_index_time *found) {
    table in = time_table(index);
    run before = {0, INT64_MIN};
    if (in.count == 0) {
        for (size_t i = 0; i < n; i++)
            found[i] = (tl_index_time){-1, index->base_offset};
        return;
    }
    for (size_t at = 0; at < n; at += LANES) {
        unsigned lanes = n - at < LANES ? (unsigned)(n - at) : LANES;
        int64_t keys[LANES];
        size_t slots[LANES];
        for (unsigned lane = 0; lane < LANES; lane++)
            keys[lane] = timestamps_ms[at + (lane < lanes ? lane : lanes - 1)];
        search_block(&in, &before, keys, slots);
        for (unsigned lane = 0; lane < lanes; lane++)
            found[at + lane] = confirm_time(index, slots[lane], keys[lane]);
    }
}
