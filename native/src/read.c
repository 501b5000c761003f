/* How are whole batches copied out of a partition, from any offset on, without a lock?
 *
 * Imports handles.h, guard.h. Callable from any thread; a cursor and a chunk belong to one call at a time. SHARING rule
 * 14: load the tail (acquire), then the partition's id; nothing at or past the tail is looked at. Every batch must begin
 * at the offset where the one before it ended, so that damage in the 17 bytes which a CRC does not cover shows too. */
#include "handles.h"

#include "tidelog/guard.h"
#include "tidelog/transactions.h"
#include "reading.h"

#include <stdio.h>


#define RECORD_LEAST_BYTES 7u /* the smallest record there is: what a count is held against before memory is taken for it */

const char tl_given_up[] = "the partition could not be recovered: close the store everywhere and open it again, "
                           "or run tidelog check --repair";

void tl_chunk_clear(tl_chunk *chunk) { chunk->used = chunk->count = 0; }

void tl_chunk_free(tl_chunk *chunk) {
    tl_os->free(chunk->bytes);
    tl_os->free(chunk->records);
    memset(chunk, 0, sizeof *chunk);
}

int tl_chunk_reserve(tl_chunk *chunk, size_t more_bytes, size_t more_records, tl_error *err) {
    if (more_bytes > UINT32_MAX - chunk->used || more_records > UINT32_MAX - chunk->count)
        return tl_fail(err, TL_ETOOLARGE, "more than 4 GiB in one read: ask for fewer messages", "", -1);
    if (chunk->room - chunk->used < more_bytes) {
        size_t room = chunk->room < 16384 ? 16384 : chunk->room;
        while (room - chunk->used < more_bytes)
            room *= 2;
        uint8_t *bytes = tl_os->realloc(chunk->bytes, room);
        if (bytes == NULL)
            return tl_fail(err, TL_ENOMEM, "no memory for the messages read", "", -1);
        chunk->bytes = bytes;
        chunk->room = room;
    }
    if (chunk->capacity - chunk->count < more_records) {
        size_t capacity = chunk->capacity < 128 ? 128 : chunk->capacity;
        while (capacity - chunk->count < more_records)
            capacity *= 2;
        tl_record *records = tl_os->realloc(chunk->records, capacity * sizeof *records);
        if (records == NULL)
            return tl_fail(err, TL_ENOMEM, "no memory for the messages read", "", -1);
        chunk->records = records;
        chunk->capacity = capacity;
    }
    return TL_OK;
}

int tl_partition_bounds(tl_partition *partition, tl_bounds *out, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_end end;
    if (!tl_store_usable(partition->store))
        return tl_store_refuse(partition->store, err);
    if (__atomic_load_n(&hot->id, __ATOMIC_ACQUIRE) != partition->id)
        return tl_fail(err, TL_EDROPPED, "the channel was dropped", partition->cold->directory, -1);
    if (TL_UNLIKELY((__atomic_load_n(&hot->failed, __ATOMIC_RELAXED) & TL_UNRECOVERED) != 0)) /* its end is not known */
        return tl_fail(err, TL_EFAILED, tl_given_up, partition->cold->directory, -1);
    if (!tl_end_at(hot, &out->tail, &end))
        return tl_fail(err, TL_ECORRUPT, "the shared words of a partition do not fit together",
                       partition->cold->directory, -1);
    out->log_end = end.end_offset;
    out->log_start = __atomic_load_n(&hot->log_start, __ATOMIC_ACQUIRE);
    if (out->log_start > out->log_end)
        out->log_start = out->log_end;
    return TL_OK;
}

/* --- the view of one call --- */

int tl_reading_begin(tl_reading *reading, tl_partition *partition, unsigned flags, tl_error *err) {
    memset(reading, 0, sizeof *reading);
    reading->partition = partition;
    reading->flags = flags;
    int status = tl_partition_bounds(partition, &reading->bounds, err);
    if (status < 0)
        return status;
    reading->bound = reading->bounds.tail;
    if ((flags & TL_READ_UNCOMMITTED) == 0) {
        uint64_t lso = __atomic_load_n(&partition->hot->lso, __ATOMIC_ACQUIRE);
        reading->bound = lso < reading->bound ? lso : reading->bound;
    }
    return TL_OK;
}

void tl_reading_end(tl_reading *reading) {
    tl_segment_release(reading->partition->store, reading->segment);
    reading->segment = NULL;
}

/* Maps segment `ordinal` and finds its limit. TL_ERANGE: retention has taken it. */
int tl_reading_enter(tl_reading *reading, uint32_t ordinal, tl_error *err) {
    tl_partition *partition = reading->partition;
    if (reading->segment != NULL && reading->segment->ordinal == ordinal)
        return TL_OK;
    tl_reading_end(reading);
    if (ordinal < __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE))
        return tl_fail(err, TL_ERANGE, "the offset was removed by retention or trim", partition->cold->directory, -1);
    int status = tl_segment_open_reader(partition, ordinal, &reading->segment, err);
    if (status < 0) {
        if (ordinal < __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE))
            return tl_fail(err, TL_ERANGE, "the offset was removed by retention or trim", partition->cold->directory,
                           -1);
        int64_t base = 0;
        char path[360];
        if (status != TL_ENOTFOUND)
            return status;
        if (__atomic_load_n(&partition->hot->id, __ATOMIC_ACQUIRE) != partition->id) /* a drop took the file */
            return tl_fail(err, TL_EDROPPED, "the channel was dropped", partition->cold->directory, -1);
        snprintf(path, sizeof path, "%s", partition->cold->directory);
        if (tl_segment_base(partition, ordinal, &base, NULL) == TL_OK)
            tl_segment_path(partition, base, ".log", path);
        return tl_fail(err, TL_ECORRUPT, "a segment is missing", path, -1);
    }
    reading->end_offset = -1;
    if (ordinal == tl_place_ordinal(reading->bound)) {
        reading->limit = tl_place_position(reading->bound);
    } else {
        tl_seal seal;
        status = tl_seals_get(partition, ordinal, &seal, err);
        if (status < 0)
            return status;
        reading->limit = seal.length;
        reading->end_offset = seal.end_offset;
    }
    if (reading->limit > reading->segment->map_bytes) { /* its limits were raised after this process mapped it */
        tl_partition_forget_segments(partition, UINT32_MAX);
        tl_reading_end(reading);
        status = tl_segment_open_reader(partition, ordinal, &reading->segment, err);
        if (status == TL_OK && reading->limit > reading->segment->map_bytes)
            status = tl_fail(err, TL_ECORRUPT, "a segment is shorter than its published length",
                             partition->cold->directory, reading->limit);
    }
    return status;
}

int tl_reading_corrupt(const tl_reading *reading, const char *what, uint32_t position, tl_error *err) {
    char path[360];
    tl_segment_path(reading->partition, reading->segment->base_offset, ".log", path);
    return tl_fail(err, TL_ECORRUPT, what, path, position);
}

int tl_reading_bus(const tl_reading *reading, const tl_guard *guard, tl_error *err) {
    char path[360];
    tl_segment_path(reading->partition, reading->segment->base_offset, ".log", path);
    return tl_fail(err, TL_EBUS, "a segment cannot be read", path,
                   (const uint8_t *)guard->address - reading->segment->map);
}

/* Parses the header at `position` out of a private copy, so that nothing changes between check and use. */
int tl_reading_header(const tl_reading *reading, uint32_t position, int64_t expected, tl_batch *batch, tl_error *err) {
    uint8_t header[TL_BATCH_HEADER_BYTES];
    uint32_t available = reading->limit - position;
    if (position > reading->limit || available < sizeof header)
        return tl_reading_corrupt(reading, "a segment ends inside a batch header", position, err);
    tl_guard guard;
    TL_GUARDED(guard) { memcpy(header, reading->segment->map + position, sizeof header); }
    TL_GUARD_CAUGHT(guard) { return tl_reading_bus(reading, &guard, err); }
    tl_error inner = {0};
    if (tl_batch_parse(header, available, batch, &inner) < 0)
        return tl_reading_corrupt(reading, inner.what, position, err);
    if (expected >= 0 && batch->base_offset != expected)
        return tl_reading_corrupt(reading, "a batch does not begin at the offset where the one before it ended",
                                  position, err);
    if (batch->leader_epoch != 0)
        return tl_reading_corrupt(reading, "a batch has a leader epoch, which this log never writes", position, err);
    return TL_OK;
}

int tl_reading_look_up_aborted(const tl_reading *reading, const tl_batch *batch, tl_error *err) {
    if ((reading->flags & TL_READ_UNCOMMITTED) != 0 || tl_batch_is_control(batch))
        return 0;
    return tl_aborted_contains(reading->partition, batch->producer_id, batch->base_offset, err);
}

/* --- finding --- */

/* The last segment whose base is <= offset. */
int tl_reading_segment(tl_reading *reading, int64_t offset, uint32_t *ordinal, tl_error *err) {
    tl_partition *partition = reading->partition;
    uint32_t high = tl_place_ordinal(reading->bounds.tail);
    uint32_t low = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t base = 0;
    int status = tl_segment_base(partition, high, &base, err);
    if (status < 0)
        return status;
    if (offset >= base || high <= low) {
        *ordinal = high;
        return TL_OK;
    }
    high--;
    while (low < high) { /* the first kept segment is taken whatever its base: offsets before it are a gap */
        uint32_t middle = low + (high - low + 1) / 2;
        status = tl_segment_base(partition, middle, &base, err);
        if (status < 0)
            return status;
        if (base <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    *ordinal = low;
    return TL_OK;
}

/* An entry of the index that a batch at its place confirms, or the segment's start. */
uint32_t tl_reading_hint(tl_reading *reading, int64_t offset, int64_t *batch_offset) {
    tl_partition *partition = reading->partition;
    tl_segment *segment = reading->segment;
    tl_index index;
    *batch_offset = segment->base_offset;
    int status = tl_segment_reader_index(partition, segment, &index, NULL);
    if (status < 0 || index.offset_count == 0)
        return 0;
    tl_index_entry entry = {-1, 0};
    tl_guard guard;
    TL_GUARDED(guard) { entry = tl_index_lookup(&index, offset, reading->limit); }
    TL_GUARD_CAUGHT(guard) { return 0; }
    tl_batch batch;
    if (entry.offset < 0 || tl_reading_header(reading, entry.position, -1, &batch, NULL) < 0 ||
        tl_batch_last_offset(&batch) != entry.offset || batch.base_offset > offset ||
        batch.base_offset < segment->base_offset)
        return 0;
    *batch_offset = batch.base_offset;
    return entry.position;
}

int tl_reading_locate(tl_reading *reading, tl_cursor *cursor, tl_error *err) {
    uint32_t ordinal = 0;
    int status = tl_reading_segment(reading, cursor->offset, &ordinal, err);
    if (status < 0)
        return status;
    if (reading->bound <= tl_place(ordinal, 0)) {
        cursor->place = tl_place(ordinal, 0); /* nothing in it, and perhaps no file; or nothing of it is decided yet */
        cursor->located = true;
        return tl_segment_base(reading->partition, ordinal, &cursor->batch_offset, err);
    }
    if ((status = tl_reading_enter(reading, ordinal, err)) < 0)
        return status;
    int64_t expected = 0;
    uint32_t position = tl_reading_hint(reading, cursor->offset, &expected);
    while (position < reading->limit) {
        tl_batch batch;
        if ((status = tl_reading_header(reading, position, expected, &batch, err)) < 0)
            return status;
        if (tl_batch_last_offset(&batch) >= cursor->offset)
            break;
        expected = tl_batch_next_offset(&batch);
        position += batch.bytes;
    }
    /* A trim took the offset after the range was checked: what stands first now is not what was asked for. */
    if (expected > cursor->offset &&
        cursor->offset < __atomic_load_n(&reading->partition->hot->log_start, __ATOMIC_ACQUIRE))
        return tl_fail(err, TL_ERANGE, "the offset was removed by retention or trim",
                       reading->partition->cold->directory, -1);
    cursor->place = tl_place(ordinal, position);
    cursor->batch_offset = expected;
    cursor->located = true;
    return TL_OK;
}

/* Makes cursor->place name a batch below the bound. 1: it does, 0: the end was reached. */
int tl_reading_next(tl_reading *reading, tl_cursor *cursor, tl_error *err) {
    if (!cursor->located) {
        int status = tl_reading_locate(reading, cursor, err);
        if (status < 0)
            return status;
    }
    for (;;) {
        if (cursor->place >= reading->bound)
            return 0;
        uint32_t ordinal = tl_place_ordinal(cursor->place);
        int status = tl_reading_enter(reading, ordinal, err);
        if (status == TL_ERANGE &&
            cursor->offset >= __atomic_load_n(&reading->partition->hot->log_start, __ATOMIC_ACQUIRE)) {
            status = tl_reading_locate(reading, cursor, err); /* it stood at the end of a segment that is gone */
            if (status == TL_OK)
                continue;
        }
        if (status < 0)
            return status;
        if (tl_place_position(cursor->place) < reading->limit)
            return 1;
        if (ordinal == tl_place_ordinal(reading->bound))
            return 0;
        if (tl_place_position(cursor->place) > reading->limit ||
            (reading->end_offset >= 0 && cursor->batch_offset != reading->end_offset))
            return tl_reading_corrupt(reading, "the last batch of a segment does not end where its seal says",
                                      reading->limit, err);
        cursor->place = tl_place(ordinal + 1, 0);
        /* A cut may have left a gap between segments; the next one's name says where it begins. */
        int64_t base = 0;
        if ((status = tl_segment_base(reading->partition, ordinal + 1, &base, err)) < 0)
            return status;
        if (base < cursor->batch_offset)
            return tl_reading_corrupt(reading, "a segment begins before the one before it ended", reading->limit, err);
        cursor->batch_offset = base;
    }
}

int tl_reading_range(tl_reading *reading, const tl_cursor *cursor, tl_error *err) {
    if (cursor->offset >= reading->bounds.log_start && cursor->offset <= reading->bounds.log_end)
        return TL_OK;
    tl_fail(err, TL_ERANGE,
            cursor->offset < 0                         ? "an offset is never negative"
            : cursor->offset > reading->bounds.log_end ? "the offset is past the log end"
                                                       : "the offset is below the log start",
            reading->partition->cold->directory, -1);
    return TL_ERANGE;
}

/* Copies the batch at the cursor to the chunk's end, CRC checked. */
int tl_reading_copy(tl_reading *reading, const tl_cursor *cursor, const tl_batch *batch, tl_chunk *chunk,
                    tl_error *err) {
    uint32_t position = tl_place_position(cursor->place);
    /* What a compressed batch says of its records is bounded by nothing that stands here: its unpacked bytes will tell. */
    size_t records = tl_batch_codec(batch) == 0 ? (size_t)batch->count : 0;
    int status = tl_chunk_reserve(chunk, batch->bytes, records, err);
    if (status < 0)
        return status;
    volatile bool whole = false;
    tl_guard guard;
    TL_GUARDED(guard) {
        whole = tl_batch_copy_checked(chunk->bytes + chunk->used, reading->segment->map + position, batch);
    }
    TL_GUARD_CAUGHT(guard) { return tl_reading_bus(reading, &guard, err); }
    return whole ? TL_OK : tl_reading_corrupt(reading, "the CRC of a batch is wrong", position, err);
}

int tl_chunk_add(tl_chunk *chunk, size_t at, size_t bytes, const tl_batch *batch, int64_t from_offset, tl_error *err) {
    if ((size_t)batch->count > bytes / RECORD_LEAST_BYTES)
        return tl_fail(err, TL_ECORRUPT, "a batch says that it holds more records than its bytes have room for", "", -1);
    int status = tl_chunk_reserve(chunk, 0, (size_t)batch->count, err);
    if (status < 0)
        return status;
    tl_record *added = chunk->records + chunk->count;
    status = tl_batch_records(chunk->bytes, at, bytes, batch, added, err);
    if (status < 0)
        return status;
    size_t count = (size_t)batch->count, skip = 0;
    while (skip < count && added[skip].offset < from_offset)
        skip++;
    if (skip > 0)
        memmove(added, added + skip, (count - skip) * sizeof *added);
    chunk->count += count - skip;
    return TL_OK;
}

/* Whole batches until there is enough. 0 or TL_OK at the end; anything below says what came in between. */
static int read_some(tl_reading *reading, tl_cursor *cursor, tl_chunk *chunk, size_t max_records, size_t max_bytes,
                     tl_read_end *end, tl_error *err) {
    size_t from_records = chunk->count, from_bytes = chunk->used;
    while (chunk->count - from_records < max_records && chunk->used - from_bytes < max_bytes) {
        tl_batch batch;
        int status = tl_reading_next(reading, cursor, err);
        if (status <= 0)
            return status;
        status = tl_reading_header(reading, tl_place_position(cursor->place), cursor->batch_offset, &batch, err);
        if (status < 0)
            return status;
        if (chunk->used > from_bytes && (batch.bytes > max_bytes - (chunk->used - from_bytes)))
            return TL_OK;
        if ((reading->flags & TL_READ_TRY) != 0 && batch.bytes > TL_TRY_MOST_BYTES - (chunk->used - from_bytes))
            return chunk->used > from_bytes ? TL_OK : TL_EAGAIN;
        status = tl_reading_copy(reading, cursor, &batch, chunk, err);
        if (status < 0)
            return status;
        if (batch.count == 0 || tl_batch_is_control(&batch)) {
            tl_cursor_step(cursor, &batch);
            continue;
        }
        status = tl_reading_is_aborted(reading, &batch, err);
        if (TL_UNLIKELY(status != 0)) {
            if (status < 0)
                return status;
            tl_cursor_step(cursor, &batch);
            continue;
        }
        if (tl_batch_codec(&batch) != 0) {
            end->compressed = true;
            end->batch = batch;
            end->batch_at = chunk->used;
            chunk->used += batch.bytes;
            tl_cursor_step(cursor, &batch);
            return TL_OK;
        }
        tl_error inner = {0};
        status = tl_chunk_add(chunk, chunk->used + TL_BATCH_HEADER_BYTES, batch.bytes - TL_BATCH_HEADER_BYTES, &batch,
                              cursor->offset, &inner);
        if (status < 0)
            return status == TL_ECORRUPT
                       ? tl_reading_corrupt(reading, inner.what, tl_place_position(cursor->place), err)
                       : tl_fail(err, status, inner.what, "", -1);
        chunk->used += batch.bytes;
        tl_cursor_step(cursor, &batch);
    }
    return TL_OK;
}

int tl_partition_read(tl_partition *partition, tl_cursor *cursor, tl_chunk *chunk, size_t max_records, size_t max_bytes,
                      unsigned flags, tl_read_end *end, tl_error *err) {
    tl_reading reading;
    memset(end, 0, sizeof *end);
    end->skipped_to = -1;
    int status = tl_reading_begin(&reading, partition, flags, err);
    if (status < 0 || (status = tl_reading_range(&reading, cursor, err)) < 0)
        return status;
    size_t from_records = chunk->count;
    do {
        status = read_some(&reading, cursor, chunk, max_records, max_bytes, end, err);
        if (status >= 0)
            break;
        /* What was read before a damaged place is good: it is handed over, and the next call meets the damage. */
        if (chunk->count > from_records && (status == TL_ECORRUPT || status == TL_EBUS)) {
            cursor->located = false;
            status = TL_OK;
            break;
        }
        status = tl_reading_resync(&reading, cursor, status, &end->skipped_to, err);
    } while (status == TL_OK);
    tl_reading_end(&reading);
    return status < 0 ? status : TL_OK;
}
