/* What do appends with checks share with plain ones?
 *
 * Private to append.c, append_checked.c and whoever appends a marker. Imports handles.h. Between tl_partition_lock and
 * tl_append_unlock: make room, reserve, put the batch, publish; see publishing.h. */
#ifndef TIDELOG_SRC_APPENDING_H
#define TIDELOG_SRC_APPENDING_H

#include "handles.h"

/* What one batch needs to get in. */
typedef struct tl_room {
    uint8_t *at;
    uint64_t tail;
    tl_end end;
    uint64_t looked; /* of a seeded bug: the sleepers as they were before anything was published */
} tl_room;

/* Scratch for the largest batch, where it goes through the file; `heap` is to be freed. */
typedef struct tl_scratch {
    uint8_t small[4096];
    uint8_t *bytes, *heap;
} tl_scratch;

/* Unsynced bytes are older than promised: the appender helps before it makes more of them. Without the lock. */
int tl_append_help(tl_partition *partition, unsigned flags, tl_error *err);
/* Whether there is room with everything at hand. */
TL_INLINE bool tl_append_at_hand(const tl_partition *partition, size_t bytes, size_t count, unsigned flags, tl_room *out) {
    const tl_hot *hot = partition->hot;
    const tl_segment *segment = partition->writer;
    uint64_t tail = hot->tail, until = tl_place_position(tail) + (uint64_t)bytes;
    tl_end_read(hot, tail, &out->end);
    if (TL_UNLIKELY(segment == NULL || segment->ordinal != tl_place_ordinal(tail)))
        return false;
    int64_t next_offset = out->end.end_offset + (int64_t)count;
    uint32_t ready = __atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE);
    if (TL_UNLIKELY(next_offset >= __atomic_load_n(&hot->lease, __ATOMIC_RELAXED) || next_offset - segment->base_offset > INT32_MAX ||
                    until > __atomic_load_n(&partition->cold->segment_bytes, __ATOMIC_RELAXED) || until > ready ||
                    (flags & TL_APPEND_THROUGH_FILE) != 0 || tl_prefault_is_due(segment, until, ready)))
        return false;
    out->at = segment->map + tl_place_position(tail);
    out->tail = tail;
    return true;
}
/* Rolls, allocates, populates, extends the lease as needed; TL_EAGAIN when `flags` forbid that. */
int tl_append_make_room(tl_partition *partition, size_t bytes, size_t count, unsigned flags, tl_room *out, tl_error *err);
TL_INLINE int tl_append_room(tl_partition *partition, size_t bytes, size_t count, unsigned flags, tl_room *out, tl_error *err) {
    return TL_LIKELY(tl_append_at_hand(partition, bytes, count, flags, out)) ? TL_OK
           : tl_append_make_room(partition, bytes, count, flags, out, err);
}
/* Nothing will be published; the reserved bytes are zeros again. */
void tl_append_abandon(tl_partition *partition, const tl_room *where);
/* How many of the messages from `first` on make the next batch, and the bytes to ask room for. */
size_t tl_append_measure(const tl_append *what, size_t first, size_t count, size_t *bytes);
int tl_append_scratch(const tl_append *what, tl_scratch *scratch, tl_error *err);
/* Encodes into the map or, with `through_file`, writes through the file. *bytes: in, the room; out, the size. *header: the
 * batch as it stands in memory. */
int tl_append_put(tl_partition *partition, const tl_append *what, size_t first, size_t count, size_t *bytes,
                  const tl_room *where, tl_scratch *through_file, const uint8_t **header, int64_t *newest_ms, tl_error *err);
/* A batch in which no message has an id keeps the window of ids complete. */
TL_INLINE void tl_append_follow_ids(tl_partition *partition, uint64_t from, uint64_t tail) {
    uint64_t *complete = &partition->cold->ids_complete;
    if (TL_UNLIKELY(__atomic_load_n(complete, __ATOMIC_RELAXED) == from) && from != 0)
        __atomic_store_n(complete, tail, __ATOMIC_RELEASE);
}

/* --- append_checked.c --- */
int tl_partition_append_checked(tl_partition *partition, const tl_append *what, unsigned flags, tl_appended *result,
                                tl_error *err);

#endif
