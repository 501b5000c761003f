/* Where does the next batch stand, and what has to be done before it can?
 *
 * Imports appending.h. Under the partition's lock. A segment is mapped, begun, allocated, its pages populated, the lease of
 * offsets extended: what takes a system call is not done for a caller that may not wait. */
#include "appending.h"

/* The active segment, mapped for writing in this process. */
int tl_partition_writer(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    uint32_t ordinal = tl_place_ordinal(hot->tail);
    if (partition->writer != NULL) {
        if (partition->writer->ordinal == ordinal)
            return TL_OK;
        tl_segment_release(partition->store, partition->writer);
        partition->writer = NULL;
    }
    int64_t base = hot->active_base[ordinal & 1];
    int status = tl_segment_open_writer(partition, ordinal, base, &partition->writer, err);
    if (status == TL_ENOTFOUND) {
        if (tl_place_position(hot->tail) != 0)
            return tl_fail(err, TL_ECORRUPT, "the active segment is missing", err == NULL ? "" : err->path, -1);
        /* Nothing stands in it yet: it has to be created, at whatever offset comes next. */
        __atomic_store_n(&hot->segment_created_ms, (uint64_t)tl_os->now_ms(), __ATOMIC_RELAXED);
        status = tl_segment_create(partition, ordinal, base, &partition->writer, err);
    }
    if (status == TL_OK)
        tl_segment_lend(partition);
    return status;
}

int tl_append_make_room(tl_partition *partition, size_t bytes, size_t count, unsigned flags, tl_room *out, tl_error *err) {
    tl_hot *hot = partition->hot;
    bool may_block = (flags & TL_APPEND_TRY) == 0;
    for (;;) {
        uint64_t tail = hot->tail;
        uint32_t position = tl_place_position(tail);
        tl_segment *segment = partition->writer;
        tl_end_read(hot, tail, &out->end);
        if (TL_UNLIKELY(segment == NULL || segment->ordinal != tl_place_ordinal(tail))) {
            if (!may_block)
                return TL_EAGAIN;
            int status = tl_partition_writer(partition, err);
            if (status < 0)
                return status;
            continue;
        }
        uint64_t until = (uint64_t)position + bytes;
        /* Before a roll: a new boot passes a partition over that has no lease, and would not see the next segment. A lease
         * that ends where the log ends is the sign of a clean close, so appends never use one up. */
        if (TL_UNLIKELY(out->end.end_offset + (int64_t)count >= __atomic_load_n(&hot->lease, __ATOMIC_RELAXED))) {
            if (!may_block)
                return TL_EAGAIN;
            int status = tl_partition_extend_lease(partition, err);
            if (status < 0)
                return status;
        }
        bool offsets_far = out->end.end_offset + (int64_t)count - segment->base_offset > INT32_MAX;
        if (TL_UNLIKELY(until > __atomic_load_n(&partition->cold->segment_bytes, __ATOMIC_RELAXED) || offsets_far) && position > 0) {
            if (!may_block)
                return TL_EAGAIN;
            int status = tl_partition_roll(partition, out->end.end_offset, err);
            if (status < 0)
                return status;
            continue;
        }
        bool through_file = (flags & TL_APPEND_THROUGH_FILE) != 0;
        uint32_t ready = __atomic_load_n(through_file ? &segment->allocated : &segment->populated, __ATOMIC_ACQUIRE);
        if (TL_UNLIKELY(until > ready)) {
            if (!may_block)
                return TL_EAGAIN;
            if (until > TL_MAX_SEGMENT_BYTES)
                return tl_fail(err, TL_ETOOLARGE, "a batch does not fit into a segment", partition->cold->directory, (int64_t)until);
            int status = through_file ? tl_segment_allocate(segment, (uint32_t)until, err)
                : tl_segment_make_ready(segment, (uint32_t)until, err);
            if (status < 0)
                return status;
        }
        if (TL_UNLIKELY(!through_file && tl_prefault_is_due(segment, until, ready)))
            tl_prefault_ask(segment, position);
        out->at = segment->map + position;
        out->tail = tail;
        return TL_OK;
    }
}
