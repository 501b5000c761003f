/* Which messages stand at these offsets, and at which offset does a point in time begin?
 *
 * Imports handles.h, guard.h, reading.h. Callable from any thread. One batch at a time is held decoded; sorted offsets
 * therefore decode each batch once. */
#include "handles.h"

#include "reading.h"
#include "tidelog/guard.h"

/* The batch looked at last. */
typedef struct held {
    tl_chunk chunk; /* its bytes and all its records */
    tl_batch batch;
    bool valid;
} held;

int tl_reading_copy_keys(const uint8_t *batch, uint32_t batch_bytes, const tl_key_place *places, size_t count,
                         tl_chunk *keys, tl_error *err) {
    for (size_t i = 0; i < count; i++) {
        uint32_t at = places[i].at;
        int32_t bytes = places[i].bytes;
        size_t copied = bytes > 0 ? (size_t)bytes : 0;
        if (at > batch_bytes || copied > batch_bytes - at)
            return tl_fail(err, TL_ECORRUPT, "a key reaches past its batch", "", at);
        int status = tl_chunk_reserve(keys, copied, 1, err);
        if (status < 0)
            return status;
        tl_record *record = &keys->records[keys->count++];
        memset(record, 0, sizeof *record);
        record->key_at = (uint32_t)keys->used;
        record->key_bytes = bytes;
        record->value_bytes = -1;
        memcpy(keys->bytes + keys->used, batch + at, copied);
        keys->used += copied;
    }
    return TL_OK;
}

/* Decodes the batch at `position` into `h`. */
static int hold(tl_reading *reading, uint32_t position, const tl_batch *batch, held *h, tl_unpack unpack, void *context,
                tl_error *err) {
    h->valid = false;
    tl_chunk_clear(&h->chunk);
    h->batch = *batch;
    int aborted = tl_reading_is_aborted(reading, batch, err);
    if (aborted < 0)
        return aborted;
    if (batch->count == 0 || tl_batch_is_control(batch) || aborted == 1) {
        if (!tl_reading_whole(reading, position, batch)) /* one flipped bit makes a marker of any batch */
            return tl_reading_corrupt(reading, "the CRC of a batch is wrong", position, err);
        h->valid = true;
        return TL_OK;
    }
    int status = tl_chunk_reserve(&h->chunk, batch->bytes, tl_batch_codec(batch) == 0 ? (size_t)batch->count : 0, err);
    if (status < 0)
        return status;
    volatile bool whole = false;
    tl_guard guard;
    TL_GUARDED(guard) { whole = tl_batch_copy_checked(h->chunk.bytes, reading->segment->map + position, batch); }
    TL_GUARD_CAUGHT(guard) { return tl_reading_bus(reading, &guard, err); }
    if (!whole)
        return tl_reading_corrupt(reading, "the CRC of a batch is wrong", position, err);
    h->chunk.used = batch->bytes;
    size_t at = TL_BATCH_HEADER_BYTES, bytes = batch->bytes - TL_BATCH_HEADER_BYTES;
    if (tl_batch_codec(batch) != 0) {
        if (unpack == NULL)
            return tl_fail(err, TL_EUNSUPPORTED, "a batch is compressed and nothing is at hand to unpack it", "",
                           position);
        size_t before = h->chunk.used;
        status = unpack(context, &h->chunk, batch, at, bytes, err);
        if (status < 0)
            return status;
        at = before;
        bytes = h->chunk.used - before;
    }
    tl_error inner = {0};
    status = tl_chunk_add(&h->chunk, at, bytes, batch, batch->base_offset, &inner);
    if (status == TL_ECORRUPT)
        return tl_reading_corrupt(reading, inner.what, position, err);
    if (status < 0)
        return tl_fail(err, status, inner.what, "", -1);
    h->valid = true;
    return TL_OK;
}

/* The record at `offset` of the held batch, or NULL. Offsets are dense but for compacted batches. */
static const tl_record *find_record(const held *h, int64_t offset) {
    size_t count = h->chunk.count;
    if (count == 0)
        return NULL;
    size_t guess = (size_t)(offset - h->batch.base_offset);
    if (guess < count && h->chunk.records[guess].offset == offset)
        return &h->chunk.records[guess];
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (h->chunk.records[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && h->chunk.records[low].offset == offset ? &h->chunk.records[low] : NULL;
}

/* Copies one record, its bytes packed at the chunk's end. */
static int take(const held *h, const tl_record *record, tl_chunk *chunk, tl_error *err) {
    size_t value = record->value_bytes > 0 ? (size_t)record->value_bytes : 0;
    size_t key = record->key_bytes > 0 ? (size_t)record->key_bytes : 0;
    int status = tl_chunk_reserve(chunk, value + key + record->headers_bytes, 1, err);
    if (status < 0)
        return status;
    tl_record *out = &chunk->records[chunk->count++];
    *out = *record;
    const uint8_t *from = h->chunk.bytes;
    uint8_t *to = chunk->bytes + chunk->used;
    out->value_at = (uint32_t)chunk->used;
    memcpy(to, from + record->value_at, value);
    out->key_at = out->value_at + (uint32_t)value;
    memcpy(to + value, from + record->key_at, key);
    out->headers_at = out->key_at + (uint32_t)key;
    memcpy(to + value + key, from + record->headers_at, record->headers_bytes);
    chunk->used += value + key + record->headers_bytes;
    return TL_OK;
}

/* Decodes the batch that holds cursor->offset, and moves the cursor behind it. */
static int hold_at(tl_reading *reading, tl_cursor *cursor, held *h, tl_unpack unpack, void *context, tl_error *err) {
    const char *directory = reading->partition->cold->directory;
    int status = tl_reading_next(reading, cursor, err);
    if (status == 0)
        return tl_fail(err, TL_ERANGE, "the offset is at or past the log end", directory, -1);
    if (status < 0)
        return status;
    tl_batch batch;
    status = tl_reading_header(reading, tl_place_position(cursor->place), cursor->batch_offset, &batch, err);
    if (status < 0)
        return status;
    if (cursor->offset < batch.base_offset)
        return tl_fail(err, TL_ERANGE, "no message has this offset (offsets may have gaps)", directory, -1);
    status = hold(reading, tl_place_position(cursor->place), &batch, h, unpack, context, err);
    if (status < 0)
        return status;
    cursor->place += batch.bytes;
    cursor->batch_offset = tl_batch_next_offset(&batch);
    return 1;
}

int tl_partition_read_at(tl_partition *partition, const int64_t *offsets, size_t count, tl_chunk *chunk, unsigned flags,
                         tl_unpack unpack, void *context, size_t *failed, tl_error *err) {
    tl_reading reading;
    int status = tl_reading_begin(&reading, partition, flags, err);
    if (status < 0)
        return status;
    held h;
    memset(&h, 0, sizeof h);
    tl_cursor cursor = {0};
    for (size_t i = 0; i < count; i++) {
        int64_t offset = offsets[i];
        *failed = i;
        if (!h.valid || offset < h.batch.base_offset || offset > tl_batch_last_offset(&h.batch)) {
            cursor.offset = offset;
            /* The batch behind the held one is looked at before the index is asked. */
            bool near = h.valid && cursor.located && offset == tl_batch_next_offset(&h.batch);
            if (!near)
                cursor.located = false;
            if ((status = tl_reading_range(&reading, &cursor, err)) < 0)
                break;
            do {
                int64_t resume = -1;
                status = hold_at(&reading, &cursor, &h, unpack, context, err);
                if (status < 0)
                    status = tl_reading_resync(&reading, &cursor, status, &resume, err);
                else
                    break;
            } while (status == TL_OK); /* only the way to the batch is damaged: once more from where it stands */
            if (status < 0)
                break;
        }
        const tl_record *record = find_record(&h, offset);
        if (record == NULL) {
            status = tl_fail(err, TL_ERANGE, "no message has this offset (offsets may have gaps)",
                             partition->cold->directory, -1);
            break;
        }
        status = take(&h, record, chunk, err);
        if (status < 0)
            break;
    }
    tl_chunk_free(&h.chunk);
    tl_reading_end(&reading);
    return status < 0 ? status : TL_OK;
}

/* --- time --- */

/* The first segment whose newest message is at or past `timestamp`; the active one when none is. */
static int find_time_segment(tl_reading *reading, int64_t timestamp_ms, uint32_t *ordinal, tl_error *err) {
    uint32_t last = tl_place_ordinal(reading->bound);
    for (uint32_t at = __atomic_load_n(&reading->partition->hot->first_ordinal, __ATOMIC_ACQUIRE); at < last; at++) {
        tl_seal seal;
        int status = tl_seals_get(reading->partition, at, &seal, err);
        if (status < 0)
            return status;
        if (seal.max_timestamp_ms >= timestamp_ms) {
            *ordinal = at;
            return TL_OK;
        }
    }
    *ordinal = last;
    return TL_OK;
}

static bool look_up_time(const tl_index *index, int64_t timestamp_ms, tl_index_time *entry) {
    tl_guard guard;
    TL_GUARDED(guard) {
        *entry = tl_index_lookup_time(index, timestamp_ms - 1); /* the first AT the timestamp is wanted */
        return entry->timestamp_ms >= 0;
    }
    TL_GUARD_CAUGHT(guard) { return false; }
    return false;
}

/* Moves the cursor to where a search for `timestamp_ms` may begin: behind the batch that an entry names, if that batch says
 * the same of itself, else to the segment's start. */
static int time_hint(tl_reading *reading, int64_t timestamp_ms, tl_cursor *cursor, tl_error *err) {
    tl_index index;
    tl_index_time entry;
    tl_batch batch;
    int64_t base = reading->segment->base_offset, start = reading->bounds.log_start;
    uint32_t ordinal = reading->segment->ordinal;
    if (tl_segment_reader_index(reading->partition, reading->segment, &index, NULL) == TL_OK && index.time_count > 0 &&
        look_up_time(&index, timestamp_ms, &entry) && entry.offset >= start && entry.offset < reading->bounds.log_end) {
        *cursor = (tl_cursor){.offset = entry.offset};
        bool genuine =
            tl_reading_locate(reading, cursor, NULL) == TL_OK && tl_place_ordinal(cursor->place) == ordinal &&
            tl_place_position(cursor->place) < reading->limit && reading->segment->ordinal == ordinal &&
            tl_reading_header(reading, tl_place_position(cursor->place), cursor->batch_offset, &batch, NULL) == TL_OK &&
            tl_batch_last_offset(&batch) == entry.offset && batch.max_timestamp_ms == entry.timestamp_ms;
        if (genuine)
            return TL_OK;
    }
    *cursor = (tl_cursor){.offset = base < start ? start : base};
    return reading->segment != NULL && reading->segment->ordinal == ordinal ? TL_OK
                                                                            : tl_reading_enter(reading, ordinal, err);
}

static int find_one(tl_reading *reading, int64_t timestamp_ms, held *h, tl_unpack unpack, void *context, int64_t *found,
                    tl_error *err) {
    tl_cursor cursor = {0};
    uint32_t ordinal = 0;
    *found = reading->bounds.log_end;
    int status = find_time_segment(reading, timestamp_ms, &ordinal, err);
    if (status < 0)
        return status;
    if (tl_place(ordinal, 0) >= reading->bound) /* what comes next is there, or it is not decided yet */
        return reading->bound < reading->bounds.tail ? tl_segment_base(reading->partition, ordinal, found, err) : TL_OK;
    if ((status = tl_reading_enter(reading, ordinal, err)) < 0)
        return status;
    if ((status = time_hint(reading, timestamp_ms, &cursor, err)) < 0)
        return status;
    while ((status = tl_reading_next(reading, &cursor, err)) == 1) {
        tl_batch batch;
        uint32_t position = tl_place_position(cursor.place);
        status = tl_reading_header(reading, position, cursor.batch_offset, &batch, err);
        if (status < 0)
            return status;
        if (!tl_reading_whole(reading, position,
                              &batch)) /* passed over for what its header says, so that must be true */
            return tl_reading_corrupt(reading, "the CRC of a batch is wrong", position, err);
        bool wanted = batch.max_timestamp_ms >= timestamp_ms && batch.count > 0 && !tl_batch_is_control(&batch);
        int aborted = wanted ? tl_reading_is_aborted(reading, &batch, err) : 0;
        if (aborted < 0)
            return aborted;
        if (wanted && aborted == 0) {
            status = hold(reading, position, &batch, h, unpack, context, err);
            if (status < 0)
                return status;
            for (size_t i = 0; i < h->chunk.count; i++) {
                const tl_record *record = &h->chunk.records[i];
                if (record->timestamp_ms >= timestamp_ms && record->offset >= reading->bounds.log_start) {
                    *found = record->offset;
                    return TL_OK;
                }
            }
        }
        cursor.place += batch.bytes;
        cursor.offset = cursor.batch_offset = tl_batch_next_offset(&batch);
    }
    if (status == 0 && reading->bound < reading->bounds.tail)
        *found = cursor.batch_offset;
    return status;
}

int tl_partition_find(tl_partition *partition, const int64_t *timestamps_ms, size_t count, int64_t *offsets,
                      tl_unpack unpack, void *context, tl_error *err) {
    tl_reading reading;
    int status = tl_reading_begin(&reading, partition, 0, err);
    if (status < 0)
        return status;
    held h;
    memset(&h, 0, sizeof h);
    for (size_t i = 0; i < count && status >= 0; i++) {
        if (i > 0 && timestamps_ms[i] == timestamps_ms[i - 1])
            offsets[i] = offsets[i - 1];
        else
            status = find_one(&reading, timestamps_ms[i], &h, unpack, context, &offsets[i], err);
    }
    tl_chunk_free(&h.chunk);
    tl_reading_end(&reading);
    return status < 0 ? status : TL_OK;
}
