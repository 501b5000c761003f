/* What are the steps by which a batch gets behind the tail, between making room for it and waking whoever waits for it?
 *
 * Private to the files that append. Imports appending.h, crc32c.h. Inline, since a call from one of them to another costs a
 * tenth of a send: see append.c for their order. */
#ifndef TIDELOG_SRC_PUBLISHING_H
#define TIDELOG_SRC_PUBLISHING_H

#include "appending.h"

#include "tidelog/crc32c.h"

/* --- append.c --- */

/* What the lock was not simply free for, or what forbids to append under it. */
int tl_append_lock_slowly(tl_partition *partition, bool locked, bool try_only, tl_error *err);
/* An entry of the index is due. */
void tl_append_make_entry(tl_partition *partition, const tl_index_batch *batch, bool may_block);

TL_INLINE int tl_append_lock(tl_partition *partition, bool try_only, tl_error *err) {
    tl_store *store = partition->store;
    tl_hot *hot = partition->hot;
    bool locked = tl_lock_try(&hot->lock, store->me);
    if (TL_LIKELY(locked && tl_store_usable(store) && !store->options.look &&
                  __atomic_load_n(&hot->id, __ATOMIC_RELAXED) == partition->id && __atomic_load_n(&hot->failed, __ATOMIC_RELAXED) == 0))
        return TL_OK;
    return tl_append_lock_slowly(partition, locked, try_only, err);
}

TL_INLINE void tl_append_reserve(tl_partition *partition, tl_room *where, size_t bytes) {
    tl_hot *hot = partition->hot;
    if (TL_BUG(NO_BARRIER_BEFORE_SLEEPERS)) /* what a reordering of the two amounts to: the look comes first */
        where->looked = __atomic_load_n(&hot->sleepers, __ATOMIC_RELAXED);
    __atomic_store_n(&hot->reserve, where->tail + bytes, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    TL_POINT("append.reserved");
}

/* After the batch is published: an index is never ahead of the data. */
TL_INLINE void tl_append_note_index(tl_partition *partition, const tl_index_batch *batch, bool may_block) {
    tl_hot *hot = partition->hot;
    tl_index_progress progress = {hot->bytes_since_entry, hot->time_max_ms, hot->time_max_offset};
    if (TL_UNLIKELY(progress.bytes_since_entry > TL_INDEX_INTERVAL_BYTES)) {
        tl_append_make_entry(partition, batch, may_block);
        return;
    }
    tl_index_count(&progress, batch);
    tl_hot_set_progress(hot, progress.bytes_since_entry, progress.max_timestamp_ms, progress.max_timestamp_offset);
}

/* The running CRC over a batch's first 21 bytes: base offset, length, leader epoch 0, magic, CRC. What is known is not loaded:
 * the length and the epoch were stored a moment ago as two words, and a load of both at once would wait for the stores. */
TL_INLINE uint32_t tl_append_sum_prefix(uint32_t crc, int64_t base_offset, size_t bytes, const uint8_t *header) {
    const uint64_t words[3] = {__builtin_bswap64((uint64_t)base_offset), __builtin_bswap32((uint32_t)bytes - TL_BATCH_PREFIX_BYTES),
                               header[16] | (uint64_t)tl_le32(header + 17) << 8};
    return tl_crc32c_words(crc, words, TL_BATCH_CRC_FROM);
}

/* The new tail. `header` is the batch as it stands in memory now. */
TL_INLINE uint64_t tl_append_publish(tl_partition *partition, const tl_room *where, const uint8_t *header, size_t bytes,
                                     int64_t next_offset, int64_t max_timestamp_ms, bool may_block) {
    tl_hot *hot = partition->hot;
    uint64_t tail = where->tail + bytes;
    tl_end *end = hot->end_a.tail == where->tail ? &hot->end_b : &hot->end_a;
    const tl_end filled = {.tail = tail, .end_offset = next_offset,
                           .max_timestamp_ms = where->end.max_timestamp_ms > max_timestamp_ms
                               ? where->end.max_timestamp_ms : max_timestamp_ms,
                           .header_crc = tl_append_sum_prefix(where->end.header_crc, where->end.end_offset, bytes, header),
                           .batches = where->end.batches + 1};
    tl_end_store(end, &filled);
    TL_POINT("append.end_filled");
    const tl_index_batch noted = {next_offset - 1, max_timestamp_ms, tl_place_position(where->tail), (uint32_t)bytes};
    if (TL_BUG(INDEX_AHEAD_OF_DATA))
        tl_append_note_index(partition, &noted, may_block);
    TL_YIELD();
    __atomic_store_n(&hot->tail, tail, __ATOMIC_RELEASE);
    TL_POINT("append.tail_stored");
    if (!TL_BUG(INDEX_AHEAD_OF_DATA))
        tl_append_note_index(partition, &noted, may_block);
    if (TL_UNLIKELY(__atomic_load_n(&hot->dirty_since_ns, __ATOMIC_RELAXED) == 0))
        __atomic_store_n(&hot->dirty_since_ns, (uint64_t)tl_os->monotonic_ns(), __ATOMIC_RELAXED);
    return tail;
}

/* After the last publication. The release is a full barrier, so that a sleeper either sees the new tail or is seen. */
TL_INLINE void tl_append_unlock(tl_partition *partition, const tl_room *where) {
    tl_hot *hot = partition->hot;
    tl_lock_release(&hot->lock, partition->store->me);
    TL_POINT("append.unlocked");
    TL_YIELD();
    uint64_t sleepers = TL_BUG(NO_BARRIER_BEFORE_SLEEPERS) ? where->looked : __atomic_load_n(&hot->sleepers, __ATOMIC_SEQ_CST);
    if (TL_UNLIKELY(sleepers != 0))
        tl_partition_wake_sleepers(partition);
}

#endif
