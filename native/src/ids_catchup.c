/* Which ids has the log got that the window does not know yet?
 *
 * Imports remembering.h, reading.h, record.h, guard.h. The long way (after a new boot, or behind appends that did not look)
 * is gathered without the partition's lock, since batches may have to be read from the disk and unpacked by Python; under the
 * lock it is taken over if the window still stands where the walk began. A few batches are walked under the lock itself.
 *
 * A walk that begins without a window goes back segment by segment until it has as many ids as count, or until everything
 * older is too old. Of a message the log has only the timestamp its sender gave it, which may be any: it is taken for the
 * time it came if it lies between the creation of its segment's file and now; else the message came just now. So nothing is
 * forgotten early, and some is remembered longer than it had to be. */
#include "remembering.h"

#include "reading.h"
#include "tidelog/guard.h"
#include "tidelog/record.h"

#include <fcntl.h>

#define ID_HEADER "message-id"
#define NOT_KNOWN INT64_MIN

/* --- one message --- */

void tl_ids_of_headers(uint64_t key, const uint8_t *base, size_t at, size_t bytes, tl_message_id *out) {
    size_t end = at + bytes;
    int32_t left = -1, value_bytes = 0;
    uint32_t name_at = 0, name_bytes = 0, value_at = 0, id_at = 0, id_bytes = 0;
    *out = (tl_message_id){{0, 0}};
    while (bytes > 0 && tl_header_next(base, &at, end, &left, &name_at, &name_bytes, &value_at, &value_bytes) == 1)
        if (name_bytes == sizeof ID_HEADER - 1 && value_bytes > 0 && memcmp(base + name_at, ID_HEADER, name_bytes) == 0) {
            id_at = value_at;
            id_bytes = (uint32_t)value_bytes;
        }
    if (id_bytes > 0)
        tl_ids_hash(key, base + id_at, id_bytes, out);
}

/* --- gathering --- */

void tl_ids_gathered_free(tl_ids_gathered *gathered) {
    if (gathered->list != NULL)
        tl_os->free(gathered->list);
    gathered->list = NULL;
    gathered->count = gathered->room = 0;
}

/* Of one segment at most `most`, the last ones. */
static int add(tl_ids_gathered *to, const tl_ids_seen *seen, size_t most, tl_error *err) {
    if (to->count == to->room) {
        if (to->count >= 2 * most && most > 0) {
            memmove(to->list, to->list + (to->count - most), most * sizeof *to->list);
            to->count = most;
        } else {
            size_t room = to->room < 256 ? 256 : 2 * to->room;
            tl_ids_seen *list = tl_os->realloc(to->list, room * sizeof *list);
            if (list == NULL)
                return tl_fail(err, TL_ENOMEM, "no memory for the message ids of a partition", "", -1);
            to->list = list;
            to->room = room;
        }
    }
    to->list[to->count++] = *seen;
    return TL_OK;
}

typedef struct walk {
    tl_reading reading;
    tl_chunk chunk;
    tl_unpack unpack;
    void *context;
    uint64_t key;
    size_t most;
    int64_t born_ms; /* of the segment's file; NOT_KNOWN */
    int64_t now_ms;  /* wall clock */
} walk;

/* The ids of one batch. What cannot be decoded has none. */
static int take_batch(walk *w, uint32_t position, const tl_batch *batch, tl_ids_gathered *to, tl_error *err) {
    if (batch->count == 0 || tl_batch_is_control(batch))
        return TL_OK;
    tl_chunk_clear(&w->chunk);
    const tl_cursor cursor = {.place = tl_place(w->reading.segment->ordinal, position)};
    int status = tl_reading_copy(&w->reading, &cursor, batch, &w->chunk, err);
    if (status < 0)
        return status;
    w->chunk.used = batch->bytes;
    size_t at = TL_BATCH_HEADER_BYTES, bytes = batch->bytes - TL_BATCH_HEADER_BYTES;
    if (tl_batch_codec(batch) != 0) {
        if (w->unpack == NULL)
            return tl_fail(err, TL_EUNSUPPORTED, "a batch is compressed and nothing is at hand to unpack it", "", position);
        size_t before = w->chunk.used;
        if ((status = w->unpack(w->context, &w->chunk, batch, at, bytes, err)) < 0)
            return status;
        at = before;
        bytes = w->chunk.used - before;
    }
    if ((status = tl_chunk_add(&w->chunk, at, bytes, batch, batch->base_offset, err)) < 0)
        return status;
    for (size_t i = 0; i < w->chunk.count && status == TL_OK; i++) {
        const tl_record *record = &w->chunk.records[i];
        tl_ids_seen seen = {.offset = record->offset, .timestamp_ms = record->timestamp_ms};
        if (record->headers_bytes == 0)
            continue;
        tl_ids_of_headers(w->key, w->chunk.bytes, record->headers_at, record->headers_bytes, &seen.id);
        if (tl_batch_is_transactional(batch))
            seen.offset |= TL_IDS_IN_TRANSACTION;
        if (w->born_ms == NOT_KNOWN || seen.timestamp_ms < w->born_ms || seen.timestamp_ms > w->now_ms)
            seen.timestamp_ms = NOT_KNOWN;
        if (seen.id.hash[0] != 0)
            status = add(to, &seen, w->most, err);
    }
    return status;
}

/* Goes on behind a damaged batch. false: nothing of the segment is left. */
static bool pass_over(walk *w, uint32_t *position, int64_t *expected, int status) {
    tl_reading *reading = &w->reading;
    if (*expected < 0) { /* begun in the middle: from the start of the segment the way to go on is known */
        *position = 0;
        *expected = reading->segment->base_offset;
        return true;
    }
    uint32_t ordinal = reading->segment->ordinal;
    tl_cursor cursor = {.offset = *expected, .place = tl_place(ordinal, *position), .batch_offset = *expected, .located = true};
    int64_t resume = -1;
    if (tl_reading_resync(reading, &cursor, status, &resume, NULL) != TL_OK) {
        cursor = (tl_cursor){.offset = resume};
        if (resume <= *expected || tl_reading_locate(reading, &cursor, NULL) < 0)
            return false;
    }
    if (reading->segment == NULL || tl_place_ordinal(cursor.place) != ordinal || tl_place_position(cursor.place) <= *position)
        return false;
    *position = tl_place_position(cursor.place);
    *expected = cursor.batch_offset;
    return true;
}

static int walk_segment(walk *w, uint32_t ordinal, uint32_t position, tl_ids_gathered *to, tl_error *err) {
    tl_partition *partition = w->reading.partition;
    if (tl_place(ordinal, 0) == w->reading.bound)
        return TL_OK; /* nothing in it, and perhaps no file */
    int status = tl_reading_enter(&w->reading, ordinal, err);
    if (status < 0) /* removed meanwhile, or lost: what it held is seen no more */
        return status == TL_ERANGE || status == TL_ECORRUPT ? TL_OK : status;
    int64_t expected = position == 0 ? w->reading.segment->base_offset : -1;
    while (position < w->reading.limit) {
        tl_batch batch;
        status = tl_reading_header(&w->reading, position, expected, &batch, err);
        if (status == TL_OK)
            status = take_batch(w, position, &batch, to, err);
        if (status == TL_OK) {
            position += batch.bytes;
            expected = tl_batch_next_offset(&batch);
        } else if ((status != TL_ECORRUPT && status != TL_EBUS) || !pass_over(w, &position, &expected, status)) {
            break;
        }
        if (!tl_store_usable(partition->store))
            return tl_store_refuse(partition->store, err);
    }
    return status == TL_ECORRUPT || status == TL_EBUS ? TL_OK : status;
}

/* When the file of a segment was made; NOT_KNOWN. Messages of the segments before it came earlier. */
static int64_t born_ms(tl_partition *partition, uint32_t ordinal) {
    int64_t base = 0;
    char path[360];
    tl_stat stat = {0};
    if (tl_segment_base(partition, ordinal, &base, NULL) < 0)
        return NOT_KNOWN;
    tl_segment_path(partition, base, ".log", path);
    int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
    if (fd < 0)
        return NOT_KNOWN;
    int status = tl_os->stat(fd, &stat);
    tl_os->close(fd);
    return status == 0 && stat.created_ms > 0 ? stat.created_ms : NOT_KNOWN;
}

/* Whether every message of the segments before `ordinal` is too old to count. */
static bool is_old_before(tl_partition *partition, uint32_t ordinal, uint32_t active, int64_t born, int64_t horizon_ms) {
    if (born != NOT_KNOWN)
        return born < horizon_ms;
    tl_seal seal; /* at least two segments are read, then their newest timestamps decide */
    return ordinal < active && tl_seals_get(partition, ordinal - 1, &seal, NULL) == TL_OK && seal.max_timestamp_ms < horizon_ms;
}

/* `earlier` in front of what is there. */
static int prepend(tl_ids_gathered *to, tl_ids_gathered *earlier, tl_error *err) {
    if (earlier->count == 0)
        return TL_OK;
    size_t count = to->count + earlier->count;
    tl_ids_seen *list = tl_os->realloc(earlier->list, count * sizeof *list);
    if (list == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the message ids of a partition", "", -1);
    if (to->count > 0)
        memcpy(list + earlier->count, to->list, to->count * sizeof *list);
    if (to->list != NULL)
        tl_os->free(to->list);
    to->list = list;
    to->count = to->room = count;
    earlier->list = NULL;
    return TL_OK;
}

static int gather_back(walk *w, tl_ids_gathered *out, tl_error *err) {
    tl_partition *partition = w->reading.partition;
    uint32_t active = tl_place_ordinal(w->reading.bound);
    uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t horizon_ms = w->now_ms - __atomic_load_n(&partition->cold->id_age_ms, __ATOMIC_RELAXED);
    if (!out->whole && tl_place_ordinal(out->from) > first)
        first = tl_place_ordinal(out->from);
    for (uint32_t ordinal = active;; ordinal--) {
        tl_ids_gathered part = {0};
        int64_t born = born_ms(partition, ordinal);
        w->born_ms = born;
        if (born == NOT_KNOWN && ordinal == active && partition->hot->segment_created_ms != 0)
            w->born_ms = (int64_t)__atomic_load_n(&partition->hot->segment_created_ms, __ATOMIC_RELAXED);
        bool begun = !out->whole && ordinal == tl_place_ordinal(out->from);
        int status = walk_segment(w, ordinal, begun ? tl_place_position(out->from) : 0, &part, err);
        if (status == TL_OK)
            status = prepend(out, &part, err);
        tl_ids_gathered_free(&part);
        TL_POINT("ids.segment_gathered");
        if (status < 0 || begun || ordinal <= first || out->count >= w->most ||
            is_old_before(partition, ordinal, active, born, horizon_ms))
            return status;
    }
}

int tl_ids_gather(tl_partition *partition, tl_unpack unpack, void *context, tl_ids_gathered *out, tl_error *err) {
    walk w = {.unpack = unpack, .context = context, .key = tl_ids_key(partition), .now_ms = tl_os->now_ms(),
              .most = __atomic_load_n(&partition->cold->id_count, __ATOMIC_RELAXED)};
    out->count = 0;
    int status = tl_ids_seek(partition, err);
    if (status < 0 && status != TL_ENOTFOUND)
        return status;
    out->whole = status == TL_ENOTFOUND;
    out->from = __atomic_load_n(&partition->cold->ids_complete, __ATOMIC_ACQUIRE);
    if ((status = tl_reading_begin(&w.reading, partition, TL_READ_UNCOMMITTED, err)) < 0)
        return status;
    out->upto = w.reading.bound;
    if (!TL_BUG(IDS_NOT_REBUILT) || !out->whole)
        status = gather_back(&w, out, err);
    tl_reading_end(&w.reading);
    tl_chunk_free(&w.chunk);
    return status;
}

/* --- under the lock --- */

/* When a message came, by the clock that ids are aged by. */
static int64_t came_ms(int64_t timestamp_ms, int64_t wall_ms, int64_t now_ms) {
    return timestamp_ms == NOT_KNOWN || timestamp_ms > wall_ms ? now_ms : now_ms - (wall_ms - timestamp_ms);
}

static int take_over(tl_partition *partition, const tl_ids_gathered *gathered, int64_t now_ms, tl_error *err) {
    int64_t wall_ms = tl_os->now_ms();
    for (size_t i = 0; i < gathered->count; i++) {
        const tl_ids_seen *seen = &gathered->list[i];
        int status = tl_ids_put(partition, &seen->id, seen->offset, came_ms(seen->timestamp_ms, wall_ms, now_ms), now_ms, true, err);
        if (status < 0)
            return status;
    }
    TL_POINT("ids.taken_over");
    return TL_OK;
}

/* The ids of one batch in the map of the active segment. 1: it is compressed. */
static int note_batch_at(tl_partition *partition, const uint8_t *at, const tl_batch *batch, int64_t now_ms, bool may_block,
                         tl_error *err) {
    if (batch->count == 0 || tl_batch_is_control(batch))
        return TL_OK;
    if (tl_batch_codec(batch) != 0)
        return 1;
    uint64_t key = tl_ids_key(partition);
    int64_t wall_ms = tl_os->now_ms(), born = (int64_t)__atomic_load_n(&partition->hot->segment_created_ms, __ATOMIC_RELAXED);
    const uint8_t *p = at + TL_BATCH_HEADER_BYTES, *const end = at + batch->bytes, *bad = NULL;
    for (int32_t i = 0; i < batch->count; i++) {
        tl_record_view record;
        tl_message_id id;
        if (tl_record_read(p, end, &record, &bad) != NULL)
            return TL_OK; /* damaged: it has no ids */
        p = record.next;
        if (record.header_count == 0)
            continue;
        tl_ids_of_headers(key, record.headers, 0, (size_t)(record.next - record.headers), &id);
        int64_t offset = batch->base_offset + record.offset_delta;
        if (tl_batch_is_transactional(batch))
            offset |= TL_IDS_IN_TRANSACTION;
        int64_t stamp_ms = tl_timestamp_of(batch->base_timestamp_ms, record.timestamp_delta);
        int64_t time_ms = came_ms(born > 0 && stamp_ms >= born ? stamp_ms : NOT_KNOWN, wall_ms, now_ms);
        int status = id.hash[0] == 0 ? TL_OK : tl_ids_put(partition, &id, offset, time_ms, now_ms, may_block, err);
        if (status < 0)
            return status;
    }
    return TL_OK;
}

/* One step of the walk in the active segment; *position moves behind the batch. 1: not from here. */
__attribute__((noinline)) static int step_here(tl_partition *partition, uint32_t *position, uint32_t limit, int64_t now_ms,
                                               bool may_block, tl_error *err) {
    tl_batch batch;
    volatile int status = 1;
    tl_error inner;
    tl_guard guard;
    TL_GUARDED(guard) {
        const uint8_t *at = partition->writer->map + *position;
        if (tl_batch_parse(at, limit - *position, &batch, &inner) == TL_OK) {
            status = note_batch_at(partition, at, &batch, now_ms, may_block, err);
            if (status == TL_OK)
                *position += batch.bytes;
        }
    }
    TL_GUARD_CAUGHT(guard) { return 1; }
    return status;
}

static int walk_here(tl_partition *partition, int64_t now_ms, bool may_block, tl_error *err) {
    uint64_t *complete = &partition->cold->ids_complete, tail = partition->hot->tail;
    uint64_t from = __atomic_load_n(complete, __ATOMIC_RELAXED);
    if (from == tail)
        return TL_OK;
    if (from > tail) /* never, unless somebody scribbled over the words */
        __atomic_store_n(&partition->cold->ids_file, 0, __ATOMIC_RELEASE);
    if (from > tail || tl_place_ordinal(from) != tl_place_ordinal(tail) || tail - from > TL_IDS_NEAR_BYTES)
        return 1;
    if (partition->writer == NULL || partition->writer->ordinal != tl_place_ordinal(tail)) {
        if (!may_block)
            return TL_EAGAIN;
        int status = tl_partition_writer(partition, err);
        if (status < 0)
            return status;
    }
    uint32_t position = tl_place_position(from);
    while (position < tl_place_position(tail)) {
        int status = step_here(partition, &position, tl_place_position(tail), now_ms, may_block, err);
        if (status != TL_OK)
            return status;
        __atomic_store_n(complete, tl_place(tl_place_ordinal(tail), position), __ATOMIC_RELEASE);
        TL_POINT("ids.walked");
    }
    return TL_OK;
}

bool tl_ids_is_near(tl_partition *partition) {
    uint64_t tail = __atomic_load_n(&partition->hot->tail, __ATOMIC_RELAXED);
    uint64_t complete = __atomic_load_n(&partition->cold->ids_complete, __ATOMIC_RELAXED);
    uint32_t file = __atomic_load_n(&partition->cold->ids_file, __ATOMIC_RELAXED);
    return file != 0 && partition->ids != NULL && partition->ids->file == file && tail - complete <= TL_IDS_NEAR_BYTES;
}

int tl_ids_catch_up(tl_partition *partition, const tl_ids_gathered *gathered, int64_t now_ms, bool may_block, tl_error *err) {
    tl_ids_rule rule;
    int status = tl_ids_map(partition, may_block, err);
    if (status == TL_ENOTFOUND) {
        if (gathered == NULL || !gathered->whole)
            return may_block ? 1 : TL_EAGAIN;
        status = tl_ids_make(partition, gathered->count, now_ms, err);
        if (status == TL_OK && (status = take_over(partition, gathered, now_ms, err)) == TL_OK)
            tl_ids_enforce(partition, gathered->upto);
    } else if (status == TL_OK && gathered != NULL && !gathered->whole && gathered->upto > gathered->from &&
               gathered->from == partition->cold->ids_complete) {
        status = take_over(partition, gathered, now_ms, err);
        if (status == TL_OK)
            __atomic_store_n(&partition->cold->ids_complete, gathered->upto, __ATOMIC_RELEASE);
    }
    if (status < 0)
        return status;
    if (TL_UNLIKELY(!tl_ids_rule_at(partition, now_ms, &rule)))
        status = may_block ? tl_ids_renew(partition, false, now_ms, err) : TL_EAGAIN;
    if (status == TL_OK)
        status = walk_here(partition, now_ms, may_block, err);
    return status == 1 && !may_block ? TL_EAGAIN : status;
}
