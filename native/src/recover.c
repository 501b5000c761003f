/* What is left of a partition after a power cut, and how does it go on without giving an offset out twice?
 *
 * Imports handles.h, guard.h. The gate is held alone. SHARING rules 21 and 22: everything before the recovery point was
 * synced and is trusted; behind it only what a scan with CRCs confirms counts, and nothing behind the first gap, since
 * pages reach the disk in any order. What is cut goes to .torn files, synced before anything is removed. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include "tidelog/crc32c.h"
#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

/* --- putting the torn aside --- */

/* Where the zeros at the end begin; false: the file cannot be read. */
static bool find_last_used(const tl_segment *segment, uint32_t from, uint32_t *until) {
    tl_guard guard;
    TL_GUARDED(guard) {
        uint32_t at = segment->found_bytes; /* may be less than `from` when the file had been cut short */
        while (at > from && segment->map[at - 1] == 0)
            at--;
        *until = at;
    } TL_GUARD_CAUGHT(guard) {
        return false;
    }
    return true;
}

/* A name for torn bytes that nothing has yet: a recovery that a power cut ended has perhaps saved what is torn once more
 * by now, and its copy is the better one. Returns the descriptor of the new file. */
static int create_torn(tl_partition *partition, int64_t base_offset, const char *suffix, char path[360]) {
    int fd = -EEXIST;
    for (unsigned turn = 1; turn < 10000 && fd == -EEXIST; turn++) {
        char numbered[64];
        if (turn == 1)
            snprintf(numbered, sizeof numbered, "%s", suffix);
        else
            snprintf(numbered, sizeof numbered, "%s.%u", suffix, turn);
        tl_segment_path(partition, base_offset, numbered, path);
        fd = tl_os->open(partition->store->dir, path, O_WRONLY | O_CREAT | O_EXCL, TL_FILE_MODE);
    }
    return fd;
}

/* Copies the bytes from `from` on that are not zero at the end to <base>.log.torn-<position>. */
static int put_aside(tl_partition *partition, tl_segment *segment, uint32_t from, tl_recovery *totals, tl_error *err) {
    uint32_t until = 0;
    if (!find_last_used(segment, from, &until))
        return tl_fail(err, TL_EBUS, "a segment cannot be read", partition->cold->directory, from);
    if (until <= from)
        return TL_OK;
    char path[360], suffix[40];
    snprintf(suffix, sizeof suffix, ".log.torn-%u", from);
    int fd = create_torn(partition, segment->base_offset, suffix, path);
    if (fd < 0)
        return tl_fail_sys(err, fd, "torn bytes cannot be put aside", path);
    int64_t written = tl_os->pwrite(fd, segment->map + from, until - from, 0);
    int status = written < 0 ? (int)written : tl_os->fsync(fd);
    tl_os->close(fd);
    if (status == 0)
        status = tl_segment_sync_names(partition);
    TL_POINT("recover.torn_saved");
    if (status < 0)
        return tl_fail_sys(err, status, "torn bytes cannot be put aside", path);
    totals->torn_bytes += until - from;
    tl_guard guard;
    TL_GUARDED(guard) {
        memset(segment->map + from, 0, until - from);
    } TL_GUARD_CAUGHT(guard) {
        return tl_fail(err, TL_EBUS, "a segment cannot be written", path, from);
    }
    /* On the disk before anything is written there: a batch that lost its first bytes would be whole again if a power cut
     * left only the first bytes of its successor, which are the same. */
    if ((status = tl_segment_descriptor(partition, segment, &fd, err)) < 0)
        return status;
    status = tl_os->fdatasync(fd);
    if (fd != segment->fd)
        tl_os->close(fd);
    TL_POINT("recover.torn_wiped");
    return status < 0 ? tl_fail_sys(err, status, "a segment cannot be synced", path) : TL_OK;
}

static int put_segment_aside(tl_partition *partition, int64_t base, tl_recovery *totals, tl_error *err) {
    tl_store *store = partition->store;
    char path[360], torn[360];
    tl_segment_path(partition, base, ".log", path);
    int fd = create_torn(partition, base, ".log.torn", torn); /* an empty file, for the rename to replace */
    if (fd < 0)
        return tl_fail_sys(err, fd, "a torn segment cannot be put aside", torn);
    tl_os->close(fd);
    fd = tl_os->open(store->dir, path, O_RDONLY, 0);
    tl_stat stat;
    if (fd >= 0) {
        if (tl_os->stat(fd, &stat) == 0)
            totals->torn_bytes += stat.size_bytes;
        tl_os->close(fd);
    }
    int status = tl_os->rename(store->dir, path, store->dir, torn);
    if (status < 0 && status != -ENOENT)
        return tl_fail_sys(err, status, "a torn segment cannot be put aside", path);
    tl_segment_path(partition, base, ".index", path);
    (void)tl_os->unlink(store->dir, path, false);
    tl_segment_path(partition, base, ".timeindex", path);
    (void)tl_os->unlink(store->dir, path, false);
    tl_segment_path(partition, base, ".txnindex", path);
    (void)tl_os->unlink(store->dir, path, false);
    TL_POINT("recover.segment_aside");
    return TL_OK;
}

/* --- scanning --- */

/* Whether a batch that holds stands at `position`; then `end` moves behind it. */
static bool scan_batch(const tl_segment *segment, uint32_t position, bool trusted, tl_end *end, tl_batch *batch) {
    volatile bool good = false;
    tl_error inner = {0};
    tl_guard guard;
    TL_GUARDED(guard) {
        const uint8_t *at = segment->map + position;
        good = tl_batch_parse(at, segment->found_bytes - position, batch, &inner) == TL_OK && batch->base_offset == end->end_offset &&
               batch->leader_epoch == 0 && (trusted || TL_BUG(TAIL_CRC_NOT_CHECKED) || tl_batch_crc_ok(at, batch));
        if (good)
            end->header_crc = tl_crc32c(end->header_crc, at, TL_BATCH_CRC_FROM);
    } TL_GUARD_CAUGHT(guard) {
        return false;
    }
    if (!good)
        return false;
    end->end_offset = tl_batch_next_offset(batch);
    end->batches++;
    if (batch->max_timestamp_ms > end->max_timestamp_ms)
        end->max_timestamp_ms = batch->max_timestamp_ms;
    return true;
}

static bool scan_index(tl_index *index, tl_index_progress *progress, uint32_t position, const tl_batch *batch) {
    tl_guard guard;
    TL_GUARDED(guard) {
        (void)tl_index_scan_step(index, progress, position, batch, NULL);
    } TL_GUARD_CAUGHT(guard) {
        return false;
    }
    return true;
}

/* Walks the active segment from its start: without CRCs to `trusted`, with them behind it. Rebuilds the running header
 * CRC and both indexes, and moves the tail to the end of what holds. Damage before the recovery point is not a torn tail:
 * nothing is cut for it, the walk goes on where the checkpoint knows that a batch begins, and reads report it. */
static int scan(tl_partition *partition, uint32_t trusted, tl_recovery *totals, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_segment *segment = partition->writer;
    uint32_t ordinal = segment->ordinal;
    tl_end end = {.end_offset = segment->base_offset, .max_timestamp_ms = -1}, known;
    tl_end_read(hot, hot->tail, &known);
    uint32_t position = 0;
    hot->index_entries = hot->time_entries = 0;
    tl_index index;
    tl_index_progress progress;
    tl_index_start(&progress);
    int status = tl_segment_index(partition, segment, &index, true, err);
    if (status < 0)
        return status;
    if (trusted > segment->found_bytes && (status = tl_segment_allocate(segment, trusted, err)) < 0)
        return status;
    while (position < segment->found_bytes || position < trusted) {
        tl_batch batch;
        bool holds = position < segment->found_bytes && scan_batch(segment, position, position < trusted, &end, &batch);
        if (position < trusted && (!holds || batch.bytes > trusted - position ||
                                   (batch.bytes == trusted - position && end.end_offset != known.end_offset))) {
            position = trusted;
            end = known;
            /* What stands between is in no index; no time entry may hide a newer message there. */
            progress.max_timestamp_ms = known.max_timestamp_ms;
            progress.max_timestamp_offset = known.end_offset - 1;
            totals->damaged_partitions++;
            continue;
        }
        if (!holds)
            break;
        if (tl_index_full(&index)) {
            hot->index_entries = index.offset_count;
            hot->time_entries = index.time_count;
            if ((status = tl_segment_index(partition, segment, &index, true, err)) < 0)
                return status;
        }
        if (!scan_index(&index, &progress, position, &batch))
            return tl_fail(err, TL_EBUS, "an index cannot be written", partition->cold->directory, -1);
        if (position >= trusted)
            totals->scanned_bytes += batch.bytes;
        position += batch.bytes;
    }
    end.tail = tl_place(ordinal, position);
    hot->end_a = end;
    hot->end_b = (tl_end){0};
    hot->tail = hot->reserve = end.tail;
    hot->index_entries = index.offset_count;
    hot->time_entries = index.time_count;
    hot->bytes_since_entry = progress.bytes_since_entry;
    hot->time_max_ms = progress.max_timestamp_ms;
    hot->time_max_offset = progress.max_timestamp_offset;
    TL_POINT("recover.scanned");
    return TL_OK;
}

/* Seals the active segment where it ends and goes on in the file that follows. */
static int follow(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    uint32_t ordinal = tl_place_ordinal(hot->tail);
    tl_end end = hot->end_a;
    tl_segment *old = partition->writer;
    const tl_seal seal = {.base_offset = old->base_offset, .end_offset = end.end_offset, .max_timestamp_ms = end.max_timestamp_ms,
                          .length = tl_place_position(hot->tail), .header_crc = end.header_crc, .batches = end.batches,
                          .index_entries = hot->index_entries, .time_entries = hot->time_entries};
    const tl_seal next = {.base_offset = end.end_offset, .max_timestamp_ms = -1};
    int status = tl_seals_put(partition, ordinal, &seal, err);
    if (status == TL_OK)
        status = tl_seals_put(partition, ordinal + 1, &next, err);
    if (status < 0)
        return status;
    hot->active_base[(ordinal + 1) & 1] = end.end_offset;
    hot->end_a = (tl_end){.tail = tl_place(ordinal + 1, 0), .end_offset = end.end_offset, .max_timestamp_ms = -1};
    hot->tail = hot->reserve = hot->end_a.tail;
    tl_segment_trim_files(partition, old->base_offset, &seal);
    tl_segment_release(partition->store, old);
    partition->writer = NULL;
    return TL_OK;
}

static int scan_all(tl_partition *partition, const tl_segment_files *files, tl_recovery *totals, tl_error *err) {
    tl_hot *hot = partition->hot;
    uint32_t trusted = tl_place_position(hot->tail);
    int64_t base = hot->active_base[tl_place_ordinal(hot->tail) & 1];
    size_t at = 0;
    while (at < files->count && files->bases[at] < base)
        at++;
    bool present = at < files->count && files->bases[at] == base;
    int status = TL_OK;
    bool gone = !present && trusted > 0;
    if (gone) { /* what it held is lost; what stands in other segments and what comes is not */
        status = tl_segment_create(partition, tl_place_ordinal(hot->tail), base, &partition->writer, err);
        if (status < 0)
            return status;
        tl_segment_release(partition->store, partition->writer);
        partition->writer = NULL;
    }
    while (present || gone) {
        status = tl_segment_open_writer(partition, tl_place_ordinal(hot->tail), gone ? base : files->bases[at], &partition->writer, err);
        if (status < 0)
            return status;
        if ((status = scan(partition, trusted, totals, err)) < 0)
            return status;
        at += gone ? 0 : 1;
        present = true;
        gone = false;
        trusted = 0;
        bool contiguous = at < files->count && files->bases[at] == hot->end_a.end_offset && tl_place_position(hot->tail) > 0;
        uint32_t from = tl_place_position(hot->tail);
        status = put_aside(partition, partition->writer, from, totals, err);
        if (status < 0)
            return status;
        if (!contiguous)
            break;
        if ((status = follow(partition, err)) < 0)
            return status;
    }
    for (; at < files->count; at++) {
        status = put_segment_aside(partition, files->bases[at], totals, err);
        if (status < 0)
            return status;
    }
    status = files->count > 0 ? tl_segment_sync_names(partition) : 0;
    if (status < 0)
        return tl_fail_sys(err, status, "the directory of a partition cannot be synced", partition->cold->directory);
    /* A trim moves the recovery point past segments whose seals were never synced, perhaps not even their file. */
    uint32_t ordinal = tl_place_ordinal(hot->tail);
    if (ordinal == 0)
        return TL_OK;
    status = tl_os->mkdir(partition->store->dir, partition->cold->directory, TL_DIRECTORY_MODE);
    if (status < 0 && status != -EEXIST)
        return tl_fail_sys(err, status, "the directory of a partition cannot be made", partition->cold->directory);
    const tl_seal active = {.base_offset = hot->active_base[ordinal & 1], .max_timestamp_ms = -1};
    return tl_seals_put(partition, ordinal, &active, err);
}

/* [end, lease) may have been given out and lost: an empty batch takes these offsets for ever. Also in a segment that is
 * empty: were it to begin at the lease instead, the next recovery would look for it where its recovery point says. */
static int fill(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    int64_t lease = hot->lease;
    tl_end end;
    tl_end_read(hot, hot->tail, &end);
    if (lease <= end.end_offset || TL_BUG(OFFSET_REUSED_AFTER_CUT))
        return TL_OK;
    int status = TL_OK;
    __atomic_store_n(&hot->lease, lease + 1, __ATOMIC_RELAXED); /* in the words only, where nobody looks yet: filling up takes no new one */
    for (int64_t from = end.end_offset; status == TL_OK && from < lease;) { /* offsets of one batch lie less than 2^31 apart */
        int64_t count = lease - from < TL_LEASE ? lease - from : TL_LEASE;
        uint8_t batch[TL_BATCH_HEADER_BYTES];
        size_t bytes = tl_batch_encode_empty(batch, from, from + count - 1, &tl_batch_plain);
        const tl_append what = {.encoded = batch, .encoded_bytes = bytes, .count = (size_t)count, .max_timestamp_ms = -1};
        tl_appended appended;
        status = tl_partition_append(partition, &what, 0, &appended, err);
        from += count;
    }
    TL_POINT("recover.filled");
    if (status < 0 || (status = tl_partition_lock(partition, false, err)) < 0)
        return status;
    status = tl_partition_roll(partition, lease, err);
    tl_partition_unlock(partition);
    TL_POINT("recover.rolled");
    return status;
}

/* Segments below the first one kept were being deleted when the power went. */
static int drop_below_start(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    if (hot->first_ordinal == 0)
        return TL_OK;
    if (hot->first_ordinal > tl_place_ordinal(hot->tail))
        return tl_fail(err, TL_ECORRUPT, "the first segment kept lies behind the tail", partition->cold->directory, -1);
    tl_segment_sweep(partition);
    return TL_OK;
}

int tl_partition_recover(tl_partition *partition, bool clean, tl_recovery *totals, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_end known;
    tl_end_read(hot, hot->tail, &known);
    if (known.tail != hot->tail)
        return tl_fail(err, TL_ECORRUPT, "the checkpoint's record of a partition does not fit together", partition->cold->directory, -1);
    if (hot->log_start > known.end_offset && hot->lease <= known.end_offset)
        return tl_fail(err, TL_ECORRUPT, "the log start of a partition lies behind its end", partition->cold->directory, -1);
    bool untouched = hot->lease == known.end_offset; /* no offset was given out since it was closed */
    if (clean || untouched) {
        partition->cold->first_open = UINT64_MAX; /* whoever closed it ended every transaction */
        return TL_OK;
    }
    totals->scanned_partitions++;
    tl_segment_files files;
    int status = tl_segment_list(partition, ".log", &files, err);
    if (status == TL_OK && files.failed_marker)
        hot->failed = EIO;
    if (status == TL_OK)
        status = scan_all(partition, &files, totals, err);
    if (status == TL_OK)
        status = drop_below_start(partition, err);
    tl_os->free(files.bases);
    if (status < 0)
        return status;
    tl_producers_recover(partition, tl_place_ordinal(known.tail));
    uint32_t failed = hot->failed;
    hot->failed = 0; /* filling appends, and an offset must not be given out twice even in a partition that takes no more */
    status = fill(partition, err);
    hot->failed = failed;
    if (status < 0)
        return status;
    hot->dirty_since_ns = (uint64_t)tl_os->monotonic_ns();
    return 1;
}

/* --- closing cleanly --- */

int tl_partition_settle(tl_partition *partition, tl_state *out, tl_error *err) {
    tl_hot *hot = partition->hot;
    int status = TL_OK;
    if (hot->failed != 0)
        return tl_fail(err, TL_EFAILED, "a partition has failed, so the store stays marked as not closed cleanly",
                       partition->cold->directory, -1);
    if (hot->synced != hot->tail && !TL_BUG(CHECKPOINT_BEFORE_LOG_SYNC))
        status = tl_partition_sync(partition, hot->tail, -1, err);
    if (status < 0)
        return status;
    TL_POINT("close.synced");
    (void)tl_partition_capture(partition, out);
    int64_t base = hot->active_base[tl_place_ordinal(hot->tail) & 1];
    if (tl_place_position(hot->tail) > 0) {
        const tl_seal used = {.length = tl_place_position(hot->tail), .index_entries = hot->index_entries,
                              .time_entries = hot->time_entries};
        tl_segment_trim_files(partition, base, &used);
        tl_segment_release(partition->store, partition->writer); /* what it knew of the file's length is over */
        partition->writer = NULL;
    }
    if (hot->tail > 0) { /* an empty segment has a file of producers perhaps */
        status = tl_partition_sync_indexes(partition, base, err); /* the next opener takes their counts from the checkpoint */
        if (status == TL_OK && (status = tl_segment_sync_names(partition)) < 0)
            status = tl_fail_sys(err, status, "the directory of a partition cannot be synced", partition->cold->directory);
    }
    TL_POINT("close.trimmed");
    return status;
}
