/* How do messages get behind the tail of a partition, and when do readers see them?
 *
 * Imports publishing.h, remembering.h, guard.h. Callable from any thread. SHARING rules 12 and 13: under the lock store `reserve`,
 * copy the batch, fill the end slot that is not in force, release-store `tail` (the publication), note the index, unlock,
 * then look for sleepers. A death at any instruction leaves bytes past the tail, which mean nothing. */
#include "publishing.h"
#include "remembering.h"

#include "tidelog/guard.h"

bool tl_end_at(tl_hot *hot, uint64_t *tail, tl_end *out) {
    for (int tries = 0; tries < 10000; tries++) {
        uint64_t seen = __atomic_load_n(&hot->tail, __ATOMIC_ACQUIRE);
        tl_end_read(hot, seen, out);
        /* The slot in force is rewritten only after the tail has moved on. */
        if (__atomic_load_n(&hot->tail, __ATOMIC_RELAXED) == seen && (out->tail == seen || TL_BUG(END_SLOT_WITHOUT_TAG))) {
            *tail = seen;
            return true;
        }
    }
    return false;
}

/* What the lock was not simply free for, or what forbids to append under it. */
int tl_append_lock_slowly(tl_partition *partition, bool locked, bool try_only, tl_error *err) {
    tl_store *store = partition->store;
    tl_hot *hot = partition->hot;
    if (!locked) {
        if (try_only)
            return TL_EAGAIN;
        int taken = tl_store_take(store, &hot->lock, "a partition is locked", err);
        if (taken < 0)
            return taken;
        if (taken == TL_LOCK_TAKEN_OVER) {
            int status = tl_partition_repair(partition, err);
            if (status < 0) { /* it stays unrepaired, and whoever comes next must not take it for whole */
                __atomic_store_n(&hot->lock, TL_LOCK_WAITERS | TL_LOCK_NOBODY, __ATOMIC_SEQ_CST);
                return status;
            }
        }
    }
    int status = TL_OK;
    if (!tl_store_usable(store))
        status = tl_store_refuse(store, err);
    else if (store->options.look)
        status = tl_store_refuse_look(store, err);
    else if (__atomic_load_n(&hot->id, __ATOMIC_RELAXED) != partition->id && !TL_BUG(WRITER_IGNORES_DROP))
        status = tl_fail(err, TL_EDROPPED, "the channel was dropped", partition->cold->directory, -1);
    else if (__atomic_load_n(&hot->failed, __ATOMIC_RELAXED) != 0) {
        const char *what = (hot->failed & TL_UNRECOVERED) != 0 ? tl_given_up : "a sync of the partition failed: it takes no more messages";
        status = tl_fail(err, TL_EFAILED, what, partition->cold->directory, -1);
        if (err != NULL)
            err->sys_errno = (int)(hot->failed & ~TL_UNRECOVERED);
    }
    if (status < 0)
        tl_lock_release(&hot->lock, store->me);
    return status;
}

int tl_partition_lock(tl_partition *partition, bool try_only, tl_error *err) { return tl_append_lock(partition, try_only, err); }

bool tl_partition_is_locked(const tl_partition *partition) {
    return (__atomic_load_n(&partition->hot->lock, __ATOMIC_RELAXED) & ~TL_LOCK_WAITERS) != 0;
}

void tl_append_abandon(tl_partition *partition, const tl_room *where) {
    __atomic_store_n(&partition->hot->reserve, where->tail, __ATOMIC_RELEASE);
}

void tl_partition_unlock(tl_partition *partition) {
    tl_lock_release(&partition->hot->lock, partition->store->me);
}

/* An entry is due. Every 4 KiB or so it costs more than a few additions; a failure to make one is no failure of the append,
 * since lookups scan on. */
void tl_append_make_entry(tl_partition *partition, const tl_index_batch *batch, bool may_block) {
    tl_hot *hot = partition->hot;
    tl_index_progress progress = {hot->bytes_since_entry, hot->time_max_ms, hot->time_max_offset};
    tl_segment *segment = partition->writer;
    tl_index index;
    uint32_t wanted = (hot->index_entries + 2) * TL_INDEX_ENTRY_BYTES;
    uint32_t wanted_time = (hot->time_entries + 2) * TL_INDEX_TIME_ENTRY_BYTES;
    bool has_room = segment->offset_map != NULL && segment->time_map != NULL && wanted <= segment->offset_allocated &&
                    wanted_time <= segment->time_allocated;
    memset(&index, 0, sizeof index);
    if ((has_room || may_block) && tl_segment_index(partition, segment, &index, true, NULL) == TL_OK) {
        tl_guard guard;
        TL_GUARDED(guard) {
            (void)tl_index_note(&index, &progress, batch, NULL);
            TL_POINT("append.index_entry");
            tl_hot_set_counts(hot, index.offset_count, index.time_count);
            TL_POINT("append.index_counted");
        } TL_GUARD_CAUGHT(guard) {
            progress.bytes_since_entry = 0;
        }
    } else { /* without the system call it takes to grow the index: the next append that may block makes the entry */
        tl_index_count(&progress, batch);
    }
    tl_hot_set_progress(hot, progress.bytes_since_entry, progress.max_timestamp_ms, progress.max_timestamp_offset);
}

/* Messages that are not looked for may have ids all the same: they are noted, if that is at hand. */
TL_INLINE void note_ids(tl_partition *partition, const tl_append *what, size_t at, size_t count, int64_t base_offset,
                        uint64_t from, uint64_t tail) {
    if (TL_UNLIKELY(__atomic_load_n(&partition->cold->ids_complete, __ATOMIC_RELAXED) == from) && from != 0)
        tl_ids_note_batch(partition, what, NULL, NULL, at, count, base_offset, false, from, tail, 0, false);
}

static int map_failed(tl_partition *partition, const tl_guard *guard, tl_error *err) {
    char path[360];
    tl_segment *segment = partition->writer;
    tl_segment_path(partition, segment->base_offset, ".log", path);
    /* Bytes may lie past the tail; nobody will zero them, because nobody can. The next append overwrites or fails. */
    return tl_fail(err, TL_EBUS, "the active segment cannot be written", path, (const uint8_t *)guard->address - segment->map);
}

/* Unsynced bytes are older than promised: the appender helps before it makes more of them (SHARING rule 24). */
int tl_append_help(tl_partition *partition, unsigned flags, tl_error *err) {
    if ((flags & TL_APPEND_TRY) != 0)
        return TL_EAGAIN;
    return tl_partition_sync_flush(partition, err);
}

int tl_partition_append_one(tl_partition *partition, const tl_message *message, unsigned flags, tl_appended *result, tl_error *err) {
    tl_hot *hot = partition->hot;
    const tl_frame frame = tl_batch_frame(message);
    size_t bytes = frame.bytes;
    if (TL_UNLIKELY(bytes > TL_TRY_MOST_BYTES || (flags & TL_APPEND_THROUGH_FILE) != 0)) {
        const tl_append many = {.messages = message, .count = 1};
        return tl_partition_append(partition, &many, flags, result, err);
    }
    if (TL_UNLIKELY(__atomic_load_n(&hot->late, __ATOMIC_RELAXED) != 0)) {
        int status = tl_append_help(partition, flags, err);
        if (status < 0)
            return status;
    }
    int status = tl_append_lock(partition, (flags & TL_APPEND_TRY) != 0, err);
    if (TL_UNLIKELY(status < 0))
        return status;
    TL_POINT("append.locked");
    tl_room where;
    where.looked = 0;
    status = tl_append_room(partition, bytes, 1, flags, &where, err);
    if (TL_UNLIKELY(status < 0)) {
        tl_partition_unlock(partition);
        return status;
    }
    tl_append_reserve(partition, &where, bytes);
    int64_t offset = where.end.end_offset;
    if (TL_BUG(TAIL_BEFORE_COPY))
        __atomic_store_n(&hot->tail, where.tail + bytes, __ATOMIC_RELEASE);
    tl_guard guard;
    TL_GUARDED(guard) {
        tl_batch_encode_one(where.at, offset, message, &frame);
    } TL_GUARD_CAUGHT(guard) {
        status = map_failed(partition, &guard, err);
        tl_partition_unlock(partition);
        return status;
    }
    TL_POINT("append.copied");
    result->base_offset = offset;
    result->next_offset = offset + 1;
    result->tail = tl_append_publish(partition, &where, where.at, bytes, offset + 1, message->timestamp_ms, (flags & TL_APPEND_TRY) == 0);
    tl_append_follow_ids(partition, where.tail, result->tail);
    tl_append_unlock(partition, &where);
    return TL_OK;
}

/* --- many --- */

size_t tl_append_measure(const tl_append *what, size_t first, size_t count, size_t *bytes) {
    *bytes = what->encoded_bytes;
    if (what->encoded != NULL)
        return what->count;
    if (what->rows != NULL)
        return tl_batch_measure_rows(what->rows, first, count, TL_BATCH_MAX_BYTES, bytes);
    return tl_batch_measure(what->messages + first, count, TL_BATCH_MAX_BYTES, bytes);
}

/* *bytes: in, the room for the batch; out, its size. Returns the largest timestamp. */
static int64_t encode(const tl_append *what, size_t first, size_t count, int64_t base_offset, uint8_t *out, size_t *bytes) {
    int64_t newest = what->max_timestamp_ms;
    if (what->encoded != NULL) {
        tl_batch_set_base_offset(what->encoded, base_offset);
        tl_put_be32(what->encoded + 12, 0);
        if (out != what->encoded)
            memcpy(out, what->encoded, *bytes);
        return newest;
    }
    const tl_batch_spec *spec = what->spec == NULL ? &tl_batch_plain : what->spec;
    if (what->rows != NULL) {
        *bytes = tl_batch_encode_rows(out, base_offset, spec, what->rows, first, count);
        return what->rows->timestamp_ms;
    }
    *bytes = tl_batch_encode(out, base_offset, spec, what->messages + first, count, &newest);
    return newest;
}

/* One batch through the map. */
static int put_mapped(tl_partition *partition, const tl_append *what, size_t first, size_t count, size_t *bytes,
                      const tl_room *where, int64_t *newest, tl_error *err) {
    if (TL_BUG(TAIL_BEFORE_COPY))
        __atomic_store_n(&partition->hot->tail, where->tail + *bytes, __ATOMIC_RELEASE);
    volatile int64_t found = 0;
    tl_guard guard;
    TL_GUARDED(guard) {
        found = encode(what, first, count, where->end.end_offset, where->at, bytes);
    } TL_GUARD_CAUGHT(guard) {
        return map_failed(partition, &guard, err);
    }
    *newest = found;
    return TL_OK;
}

/* One batch through the file: with a sync behind it, write() is cheaper than a page fault and a dirty page table. */
static int put_through_file(tl_partition *partition, const tl_append *what, size_t first, size_t count, size_t bytes,
                            const tl_room *where, uint8_t *from, int64_t *newest, tl_error *err) {
    *newest = encode(what, first, count, where->end.end_offset, from, &bytes);
    int fd = -1, status = tl_segment_descriptor(partition, partition->writer, &fd, err);
    if (status < 0)
        return status;
    int64_t written = tl_os->pwrite(fd, from, bytes, tl_place_position(where->tail));
    if (fd != partition->writer->fd)
        tl_os->close(fd);
    if (written >= 0)
        return TL_OK;
    /* A part may have arrived: it must not outlive this call, or a shorter batch would leave a piece of it behind. */
    tl_guard guard;
    TL_GUARDED(guard) {
        memset(where->at, 0, bytes);
    } TL_GUARD_CAUGHT(guard) {
        (void)map_failed(partition, &guard, NULL);
    }
    char path[360];
    tl_segment_path(partition, partition->writer->base_offset, ".log", path);
    return tl_fail_sys(err, (int)written, "the active segment cannot be written", path);
}

int tl_append_put(tl_partition *partition, const tl_append *what, size_t first, size_t count, size_t *bytes,
                  const tl_room *where, tl_scratch *through_file, const uint8_t **header, int64_t *newest_ms, tl_error *err) {
    *header = where->at;
    if (through_file == NULL)
        return put_mapped(partition, what, first, count, bytes, where, newest_ms, err);
    uint8_t *from = what->encoded != NULL ? what->encoded : through_file->bytes;
    *header = from;
    return put_through_file(partition, what, first, count, *bytes, where, from, newest_ms, err);
}

int tl_append_scratch(const tl_append *what, tl_scratch *scratch, tl_error *err) {
    size_t most = 0;
    scratch->heap = NULL;
    scratch->bytes = scratch->small;
    if (what->encoded != NULL)
        return TL_OK;
    for (size_t at = what->first, end = what->first + what->count; at < end;) {
        size_t bytes = 0;
        at += tl_append_measure(what, at, end - at, &bytes);
        most = bytes > most ? bytes : most;
    }
    if (most <= sizeof scratch->small)
        return TL_OK;
    scratch->heap = scratch->bytes = tl_os->malloc(most);
    return scratch->heap != NULL ? TL_OK : tl_fail(err, TL_ENOMEM, "no memory to encode a batch", "", -1);
}

int tl_partition_append(tl_partition *partition, const tl_append *what, unsigned flags, tl_appended *result, tl_error *err) {
    if (TL_UNLIKELY(what->producing != NULL || what->ids != NULL))
        return tl_partition_append_checked(partition, what, flags, result, err);
    tl_hot *hot = partition->hot;
    bool through_file = (flags & TL_APPEND_THROUGH_FILE) != 0;
    /* Measuring costs a third of encoding: a caller that has added up its bytes anyway spares it. */
    bool bounded = what->messages != NULL && !through_file && what->bound_bytes > 0 && what->bound_bytes <= TL_BATCH_MAX_BYTES;
    tl_scratch scratch;
    memset(result, 0, sizeof *result);
    if (what->count == 0)
        return tl_fail(err, TL_EINVAL, "an append has no messages", "", -1);
    int status;
    scratch.heap = NULL;
    if (through_file && (status = tl_append_scratch(what, &scratch, err)) < 0)
        return status;
    if (TL_UNLIKELY(__atomic_load_n(&hot->late, __ATOMIC_RELAXED) != 0) && (status = tl_append_help(partition, flags, err)) < 0)
        goto out;
    status = tl_partition_lock(partition, (flags & TL_APPEND_TRY) != 0, err);
    if (status < 0)
        goto out;
    TL_POINT("append_many.locked");
    size_t at = what->first, end = what->first + what->count;
    bool started = false;
    tl_room where = {.looked = 0};
    while (at < end) {
        size_t bytes = what->bound_bytes, take = what->count;
        if (!bounded)
            take = tl_append_measure(what, at, end - at, &bytes);
        if (bytes > TL_MAX_SEGMENT_BYTES) {
            status = tl_fail(err, TL_ETOOLARGE, "a batch does not fit into a segment", partition->cold->directory, (int64_t)bytes);
            break;
        }
        /* Once begun a try goes on: its caller bounded the bytes, and half an answer would cost more than a short wait. */
        status = tl_append_room(partition, bytes, take, started ? flags & ~(unsigned)TL_APPEND_TRY : flags, &where, err);
        if (status < 0)
            break;
        if (!started) {
            result->base_offset = result->next_offset = where.end.end_offset;
            started = true;
        }
        tl_append_reserve(partition, &where, bytes);
        int64_t newest = -1;
        const uint8_t *header = NULL;
        status = tl_append_put(partition, what, at, take, &bytes, &where, through_file ? &scratch : NULL, &header, &newest, err);
        if (status < 0)
            break;
        TL_POINT("append_many.copied");
        result->next_offset = where.end.end_offset + (int64_t)take;
        result->tail = tl_append_publish(partition, &where, header, bytes, result->next_offset, newest, (flags & TL_APPEND_TRY) == 0);
        __atomic_store_n(&hot->reserve, result->tail, __ATOMIC_RELAXED); /* a bound reserved more than it took */
        TL_POINT("append_many.published");
        note_ids(partition, what, at, take, where.end.end_offset, where.tail, result->tail);
        at += take;
    }
    tl_append_unlock(partition, &where);
out:
    if (scratch.heap != NULL)
        tl_os->free(scratch.heap);
    return status;
}
