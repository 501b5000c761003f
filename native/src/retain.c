/* Which segments may go, and in what order do they?
 *
 * Imports handles.h. Blocking; callable from any thread. SHARING rule 17: the new log start is published (and durable)
 * before anything is unlinked, so that a reader which finds a file gone finds out why. Maps keep the inode of what a
 * reader is in. */
#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static void remove_files(tl_partition *partition, int64_t base_offset) {
    char path[360], gone[360];
    for (size_t i = 0; i < TL_SEGMENT_SUFFIXES; i++) {
        tl_segment_path(partition, base_offset, tl_segment_suffixes[i], path);
        int length = snprintf(gone, sizeof gone, "%.340s.deleted", path);
        if (length > 0 && tl_os->rename(partition->store->dir, path, partition->store->dir, gone) == 0) {
            TL_POINT("retain.renamed");
            (void)tl_os->unlink(partition->store->dir, gone, false);
        }
    }
}

static void raise_log_start(tl_hot *hot, int64_t before) {
    int64_t seen = __atomic_load_n(&hot->log_start, __ATOMIC_RELAXED);
    while (seen < before &&
           !__atomic_compare_exchange_n(&hot->log_start, &seen, before, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        continue;
}

/* The new start, on disk and then in the shared words. Not under the partition's lock, because writers do not wait for a
 * disk here, but under the sync lock: of two deleters the second must not leave the lower start on disk, for segments that
 * the first one removes. *first: the oldest segment there was. */
static int move_start(tl_partition *partition, int64_t before, uint32_t first_kept, uint32_t *first, tl_error *err) {
    tl_store *store = partition->store;
    tl_hot *hot = partition->hot;
    int status = tl_store_take(store, &hot->sync_lock, "a partition is being synced", err);
    if (status < 0)
        return status;
    *first = __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t start = __atomic_load_n(&hot->log_start, __ATOMIC_ACQUIRE), base = 0;
    uint32_t kept = first_kept > *first ? first_kept : *first;
    status = tl_segment_base(partition, kept, &base, err);
    if (status == TL_OK)
        status = tl_records_put_start(store, partition->slot, before > start ? before : start, kept, base, err);
    TL_POINT("retain.recorded");
    if (status == TL_OK)
        status = tl_partition_lock(partition, false, err);
    if (status == TL_OK) {
        raise_log_start(hot, before);
        __atomic_store_n(&hot->first_base, base, __ATOMIC_RELAXED);
        __atomic_store_n(&hot->first_ordinal, kept, __ATOMIC_RELEASE);
        TL_POINT("retain.published");
        tl_partition_unlock(partition);
    }
    tl_lock_release(&hot->sync_lock, store->me);
    return status;
}

int tl_partition_delete_segments(tl_partition *partition, int64_t before, uint32_t first_kept, tl_error *err) {
    tl_hot *hot = partition->hot;
    uint32_t first = __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE);
    uint32_t active = tl_place_ordinal(tl_partition_tail(partition));
    first_kept = first_kept > active ? active : first_kept;
    if (before <= __atomic_load_n(&hot->log_start, __ATOMIC_ACQUIRE) && first_kept <= first)
        return 0;
    TL_POINT("retain.begin");
    for (uint32_t ordinal = first; TL_BUG(LOG_START_AFTER_UNLINK) && ordinal < first_kept; ordinal++) {
        tl_seal seal;
        if (tl_seals_get(partition, ordinal, &seal, NULL) == TL_OK)
            remove_files(partition, seal.base_offset);
    }
    /* What producers wrote below is known at the start of what is kept, before anything goes. */
    int status = first_kept > first ? tl_producers_keep(partition, first_kept, err) : TL_OK;
    if (status == TL_OK)
        status = move_start(partition, before, first_kept, &first, err);
    if (status < 0)
        return status;
    int removed = 0;
    for (uint32_t ordinal = first; ordinal < first_kept; ordinal++) {
        tl_seal seal;
        status = tl_seals_get(partition, ordinal, &seal, err);
        if (status < 0)
            return status;
        remove_files(partition, seal.base_offset);
        removed++;
        TL_POINT("retain.removed");
    }
    tl_partition_forget_segments(partition, first_kept);
    if (removed > 0)
        tl_segment_sweep(partition);
    return removed;
}

int tl_partition_trim(tl_partition *partition, int64_t before, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_bounds bounds;
    int status = tl_partition_bounds(partition, &bounds, err);
    if (status < 0)
        return status;
    if (before < 0 || before > bounds.log_end)
        return tl_fail(err, TL_ERANGE, "messages can be trimmed before an offset up to the log end",
                       partition->cold->directory, -1);
    if (before <= bounds.log_start)
        return TL_OK;
    if (before == bounds.log_end) { /* everything goes: the active segment too, so a new one is begun */
        status = tl_partition_lock(partition, false, err);
        if (status < 0)
            return status;
        tl_end end;
        tl_end_read(hot, hot->tail, &end);
        if (end.end_offset == before && tl_place_position(hot->tail) > 0)
            status = tl_partition_roll_early(partition, err);
        tl_partition_unlock(partition);
        if (status < 0)
            return status;
    }
    uint32_t active = tl_place_ordinal(tl_partition_tail(partition));
    uint32_t kept = __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE);
    for (; kept < active; kept++) {
        tl_seal seal;
        status = tl_seals_get(partition, kept, &seal, err);
        if (status < 0)
            return status;
        if (seal.end_offset > before)
            break;
    }
    status = tl_partition_delete_segments(partition, before, kept, err);
    return status < 0 ? status : TL_OK;
}

/* Rolls a segment that is older than it may get, so that its messages can age out. */
static int roll_if_old(tl_partition *partition, int64_t now_ms, tl_error *err) {
    tl_hot *hot = partition->hot;
    int64_t most = __atomic_load_n(&partition->cold->segment_ms, __ATOMIC_RELAXED);
    int64_t retention = __atomic_load_n(&partition->cold->retention_ms, __ATOMIC_RELAXED);
    if (retention > 0 && (most < 0 || most > retention / 4))
        most = retention / 4 < 1 ? 1 : retention / 4;
    if (most < 0 || tl_place_position(tl_partition_tail(partition)) == 0 ||
        now_ms - (int64_t)__atomic_load_n(&hot->segment_created_ms, __ATOMIC_RELAXED) < most)
        return TL_OK;
    int status = tl_partition_lock(partition, false, err);
    if (status < 0)
        return status;
    if (tl_place_position(hot->tail) > 0 && now_ms - (int64_t)hot->segment_created_ms >= most) {
        status = tl_partition_roll_early(partition, err);
        TL_POINT("retain.rolled_old");
    }
    tl_partition_unlock(partition);
    return status;
}

/* The lowest offset that some group has not read yet; -1: no group has committed, so nothing counts as consumed. */
static int64_t consumed_before(tl_partition *partition) {
    tl_offsets *table = partition->store->offsets;
    uint32_t cursor = 0;
    int64_t lowest = -1;
    tl_offset_view view;
    int more;
    while ((more = tl_offsets_next(table, &cursor, &view, NULL)) != 0) {
        if (more < 0 || view.partition != partition->cold->partition ||
            memcmp(view.channel_id, partition->cold->channel, 16) != 0)
            continue;
        if (view.word.offset < 0)
            return -1;
        if (lowest < 0 || view.word.offset < lowest)
            lowest = view.word.offset;
    }
    return lowest;
}

int tl_partition_retain(tl_partition *partition, int64_t now_ms, tl_error *err) {
    tl_hot *hot = partition->hot;
    int64_t keep_ms = __atomic_load_n(&partition->cold->retention_ms, __ATOMIC_RELAXED);
    int64_t keep_bytes = __atomic_load_n(&partition->cold->retention_bytes, __ATOMIC_RELAXED);
    bool consumed = __atomic_load_n(&partition->cold->retention_consumed, __ATOMIC_RELAXED) != 0;
    int status = roll_if_old(partition, now_ms, err);
    if (status < 0 || (keep_ms < 0 && keep_bytes < 0 && !consumed))
        return status;
    uint64_t tail = tl_partition_tail(partition);
    uint32_t active = tl_place_ordinal(tail), first = __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t read_before = consumed ? consumed_before(partition) : -1;
    uint64_t total = tl_place_position(tail);
    for (uint32_t ordinal = first; keep_bytes >= 0 && ordinal < active; ordinal++) {
        tl_seal seal;
        if ((status = tl_seals_get(partition, ordinal, &seal, err)) < 0)
            return status;
        total += seal.length;
    }
    uint32_t kept = first;
    int64_t before = -1;
    for (; kept < active; kept++) {
        tl_seal seal;
        if ((status = tl_seals_get(partition, kept, &seal, err)) < 0)
            return status;
        bool old = keep_ms >= 0 && now_ms - seal.max_timestamp_ms > keep_ms;
        bool over = keep_bytes >= 0 && total - seal.length >= (uint64_t)keep_bytes;
        if (!old && !over && !(consumed && seal.end_offset <= read_before))
            break;
        total -= seal.length;
        before = seal.end_offset;
    }
    return kept == first ? 0 : tl_partition_delete_segments(partition, before, kept, err);
}

int tl_partition_describe(tl_partition *partition, tl_partition_info *out, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_bounds bounds;
    memset(out, 0, sizeof *out);
    int status = tl_partition_bounds(partition, &bounds, err);
    if (status < 0)
        return status;
    tl_end end;
    uint64_t tail;
    (void)tl_end_at(hot, &tail, &end);
    out->log_start = bounds.log_start;
    out->log_end = bounds.log_end;
    out->tail = bounds.tail;
    out->max_timestamp_ms = end.max_timestamp_ms;
    out->lease = __atomic_load_n(&hot->lease, __ATOMIC_RELAXED);
    out->synced = __atomic_load_n(&hot->synced, __ATOMIC_ACQUIRE);
    out->failed = (int)(__atomic_load_n(&hot->failed, __ATOMIC_RELAXED) & ~TL_UNRECOVERED);
    out->first_ordinal = __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE);
    uint32_t active = tl_place_ordinal(bounds.tail);
    bool has_active = tl_place_position(bounds.tail) > 0;
    out->segments = active - out->first_ordinal + (has_active ? 1 : 0);
    out->bytes = tl_place_position(bounds.tail);
    for (uint32_t ordinal = out->first_ordinal; ordinal <= active; ordinal++) {
        int64_t base = 0;
        tl_seal seal;
        if (ordinal < active && tl_seals_get(partition, ordinal, &seal, NULL) == TL_OK) {
            out->bytes += seal.length;
            if (seal.max_timestamp_ms > out->max_timestamp_ms)
                out->max_timestamp_ms = seal.max_timestamp_ms;
        }
        if (tl_segment_base(partition, ordinal, &base, NULL) < 0)
            continue;
        char path[360];
        tl_segment_path(partition, base, ".log", path);
        int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
        tl_stat stat;
        if (fd < 0)
            continue;
        if (tl_os->stat(fd, &stat) == 0)
            out->allocated_bytes += stat.blocks_bytes;
        tl_os->close(fd);
    }
    return TL_OK;
}
