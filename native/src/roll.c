/* How does a partition go on in a new segment, what does the next locker do after a writer's death, and how far may
 * offsets be given out?
 *
 * Imports handles.h, guard.h. Everything here runs under the partition's lock. SHARING rules 15, 16 and 22. */
#include "handles.h"

#include "tidelog/crc32c.h"
#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>

/* Indexes of a segment that is complete: the final time entry, then both files cut to what is used. Nobody reads entries
 * past the published counts, so the cut is below nobody's feet. Failures cost speed later, never data. */
static void finish_indexes(tl_partition *partition, tl_segment *segment, tl_seal *seal) {
    tl_hot *hot = partition->hot;
    tl_index index;
    tl_index_progress progress = {hot->bytes_since_entry, hot->time_max_ms, hot->time_max_offset};
    seal->index_entries = hot->index_entries;
    seal->time_entries = hot->time_entries;
    if (tl_segment_index(partition, segment, &index, true, NULL) < 0)
        return;
    volatile bool finished = false;
    tl_guard guard;
    TL_GUARDED(guard) {
        (void)tl_index_finish(&index, &progress, NULL);
        finished = true;
    }
    TL_GUARD_CAUGHT(guard) { finished = false; }
    if (!finished)
        return;
    seal->index_entries = index.offset_count;
    seal->time_entries = index.time_count;
    __atomic_store_n(&hot->time_entries, index.time_count, __ATOMIC_RELEASE);
}

static void cut_file(tl_partition *partition, int64_t base_offset, const char *suffix, uint64_t bytes) {
    char path[360];
    tl_segment_path(partition, base_offset, suffix, path);
    int fd = tl_os->open(partition->store->dir, path, O_RDWR, 0);
    if (fd < 0)
        return;
    (void)tl_os->ftruncate(fd, bytes);
    tl_os->close(fd);
}

/* Kafka's tools read a sealed segment to its end, so what was allocated ahead is given back. */
void tl_segment_trim_files(tl_partition *partition, int64_t base_offset, const tl_seal *seal) {
    cut_file(partition, base_offset, ".log", seal->length);
    cut_file(partition, base_offset, ".index", (uint64_t)seal->index_entries * TL_INDEX_ENTRY_BYTES);
    cut_file(partition, base_offset, ".timeindex", (uint64_t)seal->time_entries * TL_INDEX_TIME_ENTRY_BYTES);
}

static void unlink_segment(tl_partition *partition, int64_t base_offset) {
    static const char *const suffixes[] = {".log", ".index", ".timeindex", ".txnindex", ".log.new"};
    char path[360];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        tl_segment_path(partition, base_offset, suffixes[i], path);
        (void)tl_os->unlink(partition->store->dir, path, false);
    }
}

int tl_partition_roll(tl_partition *partition, int64_t base_offset, tl_error *err) {
    tl_store *store = partition->store;
    tl_hot *hot = partition->hot;
    int status = tl_partition_writer(partition, err);
    if (status < 0)
        return status;
    uint64_t tail = hot->tail;
    uint32_t ordinal = tl_place_ordinal(tail);
    tl_segment *old = partition->writer, *fresh = NULL;
    tl_end end;
    tl_end_read(hot, tail, &end);
    if (tl_place_position(tail) == 0 || ordinal == UINT32_MAX)
        return tl_fail(err, TL_EINVAL, "an empty segment cannot be rolled", partition->cold->directory, -1);
    TL_POINT("roll.begin");
    tl_seal seal = {.base_offset = old->base_offset,
                    .end_offset = base_offset,
                    .max_timestamp_ms = end.max_timestamp_ms,
                    .length = tl_place_position(tail),
                    .header_crc = end.header_crc,
                    .batches = end.batches};
    finish_indexes(partition, old, &seal);
    status = tl_segment_create(partition, ordinal + 1, base_offset, &fresh, err);
    if (status < 0)
        return status;
    TL_POINT("roll.created");
    /* The seal and the next base come before the tail: a reader at the old end must find where to go on. */
    const tl_seal next = {.base_offset = base_offset, .max_timestamp_ms = -1};
    if (!TL_BUG(SEAL_AFTER_TAIL)) {
        status = tl_seals_put(partition, ordinal, &seal, err);
        TL_POINT("roll.sealed");
        if (status == TL_OK)
            status = tl_seals_put(partition, ordinal + 1, &next, err);
        if (status < 0) {
            tl_segment_release(store, fresh);
            unlink_segment(partition, base_offset);
            return status;
        }
    }
    TL_POINT("roll.next_sealed");
    uint64_t place = tl_place(ordinal + 1, 0);
    __atomic_store_n(&hot->active_base[(ordinal + 1) & 1], base_offset, __ATOMIC_RELEASE);
    tl_end *slot = hot->end_a.tail == tail ? &hot->end_b : &hot->end_a;
    const tl_end begun = {.tail = place, .end_offset = base_offset, .max_timestamp_ms = -1};
    tl_end_store(slot, &begun);
    hot->reserve = place;
    TL_POINT("roll.end_filled");
    __atomic_store_n(&hot->tail, place, __ATOMIC_RELEASE);
    TL_POINT("roll.tail_stored");
    if (partition->cold->ids_complete == tail) /* no batch came in between */
        __atomic_store_n(&partition->cold->ids_complete, place, __ATOMIC_RELEASE);
    /* From here readers take the counts of the old segment from its seal; a death before these lines is mended by
     * tl_partition_repair, which starts the progress of an empty segment anew. */
    tl_hot_set_counts(hot, 0, 0);
    tl_hot_set_progress(hot, 0, -1, -1);
    __atomic_store_n(&hot->segment_created_ms, (uint64_t)tl_os->now_ms(), __ATOMIC_RELAXED);
    if (TL_BUG(SEAL_AFTER_TAIL)) {
        TL_POINT("roll.sealed");
        status = tl_seals_put(partition, ordinal, &seal, err);
        if (status == TL_OK)
            status = tl_seals_put(partition, ordinal + 1, &next, err);
        if (status < 0)
            return status;
    }
    partition->writer = fresh;
    tl_segment_lend(partition);
    TL_POINT("roll.counters_reset");
    tl_segment_trim_files(partition, old->base_offset, &seal);
    tl_segment_release(store, old);
    TL_POINT("roll.done");
    return TL_OK;
}

/* Before the segment is full. A partition nobody has written to since it was closed has no lease; recovery would pass it
 * over and not see the segment that begins here. */
int tl_partition_roll_early(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_end end;
    tl_end_read(hot, hot->tail, &end);
    int status = __atomic_load_n(&hot->lease, __ATOMIC_RELAXED) <= end.end_offset
                     ? tl_partition_extend_lease(partition, err)
                     : TL_OK;
    return status < 0 ? status : tl_partition_roll(partition, end.end_offset, err);
}

/* Rebuilds counts and progress of the active segment's indexes from its last genuine entry, or from its start. */
static int repair_index(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    if (TL_BUG(INDEX_AHEAD_OF_DATA)) /* entries made too early stay; each is for a batch that may never come */
        return TL_OK;
    tl_segment *segment = partition->writer;
    uint32_t limit = tl_place_position(hot->tail);
    tl_index index;
    hot->index_entries = hot->index_entries > TL_INDEX_MAX_BYTES / TL_INDEX_ENTRY_BYTES ? 0 : hot->index_entries;
    hot->time_entries = hot->time_entries > TL_INDEX_TIME_MAX_BYTES / TL_INDEX_TIME_ENTRY_BYTES ? 0 : hot->time_entries;
    int status = tl_segment_index(partition, segment, &index, true, err);
    if (status < 0)
        return status;
    volatile uint32_t position = 0;
    tl_index_progress progress;
    tl_guard guard;
    TL_GUARDED(guard) {
        tl_index_truncate(&index, limit);
        position = tl_index_resume(&index, limit, &progress);
        if (position == 0) /* no genuine entry to go on from: all are made again */
            index.offset_count = index.time_count = 0;
        while (position < limit) {
            tl_batch batch;
            if (tl_batch_parse(segment->map + position, limit - position, &batch, err) < 0)
                break;
            if (tl_index_full(&index)) { /* of the allocated part: grow it */
                tl_hot_set_counts(hot, index.offset_count, index.time_count);
                if (tl_segment_index(partition, segment, &index, true, NULL) < 0)
                    break;
            }
            (void)tl_index_scan_step(&index, &progress, position, &batch, NULL);
            position += batch.bytes;
        }
        tl_hot_set_counts(hot, index.offset_count, index.time_count);
        tl_hot_set_progress(hot, progress.bytes_since_entry, progress.max_timestamp_ms, progress.max_timestamp_offset);
    }
    TL_GUARD_CAUGHT(guard) {
        return tl_fail(err, TL_EBUS, "the active segment cannot be read", partition->cold->directory,
                       (int64_t)position);
    }
    return TL_OK;
}

static bool wipe(uint8_t *from, size_t bytes) {
    tl_guard guard;
    TL_GUARDED(guard) { memset(from, 0, bytes); }
    TL_GUARD_CAUGHT(guard) { return false; }
    return true;
}

/* What a dead writer left behind the tail goes from the disk too, before another batch gets the same offsets: the kernel
 * may have written the dead one's batch by itself, and a power cut that takes the new one would bring back a message that
 * nobody ever saw, at an offset where others have seen one. */
static int wipe_reserved(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_segment *segment = partition->writer;
    uint32_t position = tl_place_position(hot->tail), until = tl_place_position(hot->reserve);
    until = until < segment->allocated ? until : segment->allocated;
    if (tl_place_ordinal(hot->reserve) != tl_place_ordinal(hot->tail) || until <= position)
        return TL_OK;
    if (!wipe(segment->map + position, until - position))
        return tl_fail(err, TL_EBUS, "the active segment cannot be written", partition->cold->directory, position);
    TL_POINT("repair.wiped");
    int fd = -1, status = tl_segment_descriptor(partition, segment, &fd, err);
    if (status < 0)
        return status;
    status = tl_os->fdatasync(fd);
    if (fd != segment->fd)
        tl_os->close(fd);
    char path[360];
    tl_segment_path(partition, segment->base_offset, ".log", path);
    return status < 0 ? tl_partition_set_failed(partition, status, path, err) : TL_OK;
}

int tl_partition_repair(tl_partition *partition, tl_error *err) {
    tl_store *store = partition->store;
    tl_hot *hot = partition->hot;
    uint64_t tail = hot->tail;
    uint32_t position = tl_place_position(tail);
    TL_POINT("repair.begin");
    tl_end end;
    tl_end_read(hot, tail, &end);
    if (end.tail != tail)
        return tl_fail(err, TL_ECORRUPT, "the shared words of a partition do not fit together",
                       partition->cold->directory, -1);
    int64_t base = hot->active_base[tl_place_ordinal(tail) & 1];
    int status = tl_transactions_repair(partition, err);
    if (status < 0)
        return status;
    if (position > 0 && !TL_BUG(STRAY_SEGMENT_KEPT))
        unlink_segment(partition, end.end_offset); /* a roll that did not reach the tail */
    TL_POINT("repair.stray_removed");
    if (position == 0) { /* nothing stands in the active segment, and perhaps there is none */
        tl_hot_set_counts(hot, 0, 0);
        tl_hot_set_progress(hot, 0, -1, -1);
        tl_seal seal;
        if (tl_place_ordinal(tail) > 0 && tl_seals_get(partition, tl_place_ordinal(tail) - 1, &seal, NULL) == TL_OK &&
            seal.length > 0)
            tl_segment_trim_files(partition, seal.base_offset, &seal); /* a roll that went no further than the tail */
        char path[360];
        tl_segment_path(partition, base, ".log", path);
        int fd = tl_os->open(store->dir, path, O_RDONLY, 0);
        if (fd >= 0)
            tl_os->close(fd);
        else if (fd == -ENOENT) {
            hot->reserve = tail;
            return TL_OK;
        }
    }
    status = tl_partition_writer(partition, err);
    if (status < 0)
        return status;
    if (!TL_BUG(NO_ZERO_TO_RESERVE) && (status = wipe_reserved(partition, err)) < 0)
        return status;
    TL_POINT("repair.zeroed");
    if (position > 0 && (status = repair_index(partition, err)) < 0)
        return status;
    TL_POINT("repair.indexed");
    hot->reserve = tail;
    return TL_OK;
}

/* Leases are renewed for every partition of the channel that is near its end: one sync instead of one each. */
int tl_partition_extend_lease(tl_partition *partition, tl_error *err) {
    enum { MOST = 4096 };
    tl_store *store = partition->store;
    uint32_t count = 0, all = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE);
    uint32_t *slots = tl_os->malloc(MOST * sizeof *slots);
    int64_t *leases = tl_os->malloc(MOST * sizeof *leases);
    int status = TL_OK;
    if (slots == NULL || leases == NULL) {
        status = tl_fail(err, TL_ENOMEM, "no memory to extend leases", "", -1);
        goto out;
    }
    slots[count] = partition->slot;
    tl_end own;
    tl_end_read(partition->hot, partition->hot->tail, &own);
    leases[count++] = own.end_offset + TL_LEASE;
    for (uint32_t slot = 0; slot < all && count < MOST; slot++) {
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        uint64_t tail = 0;
        tl_end end;
        if (slot == partition->slot || memcmp(cold->channel, partition->cold->channel, 16) != 0 ||
            (__atomic_load_n(&hot->id, __ATOMIC_ACQUIRE) & ~(uint64_t)1) == 0 || !tl_end_at(hot, &tail, &end))
            continue;
        if (__atomic_load_n(&hot->lease, __ATOMIC_RELAXED) - end.end_offset < TL_LEASE / 2) {
            slots[count] = slot;
            leases[count++] = end.end_offset + TL_LEASE;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        __atomic_store_n(&tl_shared_hot(store->shared, slots[i])->lease_asked, 1, __ATOMIC_SEQ_CST);
    TL_POINT("lease.begin");
    status = tl_records_put_lease(store, slots, leases, count, err);
    if (status < 0)
        goto out;
    TL_POINT("lease.durable");
    for (uint32_t i = 0; i < count; i++) {
        tl_hot *hot = tl_shared_hot(store->shared, slots[i]);
        int64_t seen = __atomic_load_n(&hot->lease, __ATOMIC_RELAXED);
        while (seen < leases[i] &&
               !__atomic_compare_exchange_n(&hot->lease, &seen, leases[i], false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            continue;
    }
    TL_POINT("lease.extended");
out:
    tl_os->free(slots);
    tl_os->free(leases);
    return status;
}
