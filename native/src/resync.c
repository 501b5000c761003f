/* Where does reading go on behind a damaged place, so that only what is damaged is lost?
 *
 * Imports handles.h, guard.h, reading.h. Callable from any thread. Used after a read has met damage, so it may be slow: it
 * believes nothing but batches whose CRC is right and whose offsets follow on. A header may lie about the length or the last
 * offset of its batch, and an index about anything; and the value of a message may hold a whole batch, which must not be
 * taken for one of the log. That is why a batch behind the damage counts only if a chain of whole batches leads from it
 * exactly to a place that is known otherwise: a genuine index entry, or the segment's end. */
#include "handles.h"

#include "reading.h"
#include "tidelog/guard.h"

bool tl_reading_whole(const tl_reading *reading, uint32_t position, const tl_batch *batch) {
    volatile bool whole = false;
    tl_guard guard;
    TL_GUARDED(guard) { whole = tl_batch_crc_ok(reading->segment->map + position, batch); }
    TL_GUARD_CAUGHT(guard) { whole = false; }
    return whole;
}

/* Whether a whole batch stands at `position` whose offsets lie at or past `from`. */
static bool whole_at(const tl_reading *reading, uint32_t position, int64_t from, tl_batch *batch) {
    if (tl_reading_header(reading, position, -1, batch, NULL) < 0 || batch->base_offset < from ||
        batch->bytes > reading->limit - position)
        return false;
    return tl_reading_whole(reading, position, batch);
}

/* An entry of the offset index, whatever it is worth. */
static bool entry_at(const tl_index *index, uint32_t slot, int64_t *last_offset, uint32_t *position) {
    volatile bool there = false;
    tl_guard guard;
    TL_GUARDED(guard) {
        const uint8_t *entry = index->offset_entries + (size_t)slot * TL_INDEX_ENTRY_BYTES;
        *last_offset = index->base_offset + (int64_t)tl_be32(entry);
        *position = tl_be32(entry + 4);
        there = true;
    }
    TL_GUARD_CAUGHT(guard) { there = false; }
    return there;
}

/* A genuine entry: the last one that holds `offset` or less, or (behind > 0) the first one past that position. The place it
 * names, or `otherwise`. */
static uint32_t find_entry(const tl_reading *reading, const tl_index *index, int64_t offset, uint32_t behind,
                           uint32_t otherwise) {
    uint32_t best = otherwise;
    for (uint32_t slot = 0; slot < index->offset_count; slot++) {
        int64_t last = 0;
        uint32_t position = 0;
        tl_batch batch;
        if (!entry_at(index, slot, &last, &position))
            break;
        bool wanted = behind > 0 ? position > behind && position < best : position > best && last <= offset;
        if (wanted && position < reading->limit && whole_at(reading, position, index->base_offset, &batch) &&
            tl_batch_last_offset(&batch) == last)
            best = position;
    }
    return best;
}

/* Whether whole batches that follow on from each other lead from `position` exactly to `anchor`. */
static bool leads_to(const tl_reading *reading, uint32_t position, int64_t from, uint32_t anchor, int64_t end_offset) {
    int64_t expected = -1;
    while (position < anchor) {
        tl_batch batch;
        if (!whole_at(reading, position, from, &batch) || (expected >= 0 && batch.base_offset != expected))
            return false;
        expected = from = tl_batch_next_offset(&batch);
        position += batch.bytes;
    }
    tl_batch last;
    if (position != anchor)
        return false;
    if (anchor == reading->limit)
        return expected < 0 || expected <= end_offset;
    return tl_reading_header(reading, anchor, -1, &last, NULL) == TL_OK &&
           (expected < 0 || last.base_offset == expected);
}

/* Bytes at which a batch may begin: leader epoch 0 and magic 2 in their places. */
__attribute__((noinline)) static void seek_mark(const uint8_t *map, volatile uint32_t *at, uint32_t until) {
    static const uint8_t mark[5] = {0, 0, 0, 0, 2};
    uint32_t position = *at;
    while (position + TL_BATCH_HEADER_BYTES <= until &&
           memcmp(map + position + TL_BATCH_PREFIX_BYTES, mark, sizeof mark) != 0)
        position++;
    *at = position + TL_BATCH_HEADER_BYTES <= until ? position : until;
}

static uint32_t next_candidate(const tl_reading *reading, uint32_t position, uint32_t until) {
    volatile uint32_t at = position;
    volatile bool reached = false;
    tl_guard guard;
    TL_GUARDED(guard) {
        seek_mark(reading->segment->map, &at, until);
        reached = true;
    }
    TL_GUARD_CAUGHT(guard) { reached = false; }
    return reached ? at : reading->limit;
}

/* The first batch behind the damaged one at `position`, or the segment's limit. */
static uint32_t behind_damage(const tl_reading *reading, const tl_index *index, uint32_t position, int64_t from,
                              int64_t end_offset) {
    uint32_t anchor = find_entry(reading, index, 0, position, reading->limit);
    for (uint32_t at = next_candidate(reading, position + 1, anchor); at < anchor;
         at = next_candidate(reading, at + 1, anchor))
        if (leads_to(reading, at, from, anchor, end_offset))
            return at;
    return anchor;
}

/* Finds the batch that holds cursor->offset or comes next, believing CRCs only. TL_OK: the cursor stands there or at the
 * segment's end. TL_ECORRUPT: it lies in the damaged place at *position; *resume is the next offset that can be read. */
static int walk(tl_reading *reading, tl_cursor *cursor, uint32_t *position, int64_t *resume, tl_error *err) {
    tl_index index;
    int64_t end_offset = reading->bounds.log_end;
    if (reading->segment->ordinal <
        tl_place_ordinal(reading->bound)) /* where the next segment begins: offsets may have gaps */
        (void)tl_segment_base(reading->partition, reading->segment->ordinal + 1, &end_offset, NULL);
    if (tl_segment_reader_index(reading->partition, reading->segment, &index, NULL) < 0)
        memset(&index, 0, sizeof index);
    uint32_t at = find_entry(reading, &index, cursor->offset, 0, 0);
    tl_batch batch;
    int64_t expected = at > 0 && tl_reading_header(reading, at, -1, &batch, NULL) == TL_OK
                           ? batch.base_offset
                           : reading->segment->base_offset;
    while (at < reading->limit) {
        if (whole_at(reading, at, expected, &batch) && batch.base_offset == expected) {
            if (tl_batch_last_offset(&batch) >= cursor->offset)
                break;
            expected = tl_batch_next_offset(&batch);
            at += batch.bytes;
            continue;
        }
        uint32_t next = behind_damage(reading, &index, at, expected, end_offset);
        int64_t begins = next < reading->limit && tl_reading_header(reading, next, -1, &batch, NULL) == TL_OK
                             ? batch.base_offset
                             : end_offset;
        if (begins > cursor->offset) {
            *position = at;
            *resume = begins;
            return tl_reading_corrupt(reading, "a batch is damaged", at, err);
        }
        at = next;
        expected = begins;
    }
    cursor->place = tl_place(reading->segment->ordinal, at);
    cursor->batch_offset = expected;
    cursor->located = true;
    return TL_OK;
}

/* What cannot be entered is passed over as a whole. */
static int64_t next_segment(tl_reading *reading, int64_t offset) {
    uint32_t ordinal = 0;
    int64_t base = -1;
    if (tl_reading_segment(reading, offset, &ordinal, NULL) < 0 || ordinal >= tl_place_ordinal(reading->bound) ||
        tl_segment_base(reading->partition, ordinal + 1, &base, NULL) < 0)
        return -1;
    return base > offset ? base : -1;
}

int tl_reading_resync(tl_reading *reading, tl_cursor *cursor, int status, int64_t *resume, tl_error *err) {
    bool stood = cursor->located;
    uint64_t place = cursor->place;
    cursor->located = false;
    if (status != TL_ECORRUPT && status != TL_EBUS)
        return status;
    if (reading->segment == NULL) {
        *resume = next_segment(reading, cursor->offset);
        return status;
    }
    tl_error inner = {0};
    uint32_t position = 0;
    int found = walk(reading, cursor, &position, resume, &inner);
    bool moved = !stood || cursor->place != place;
    if (found == TL_OK && moved)
        return TL_OK;
    if (found == TL_OK) { /* its CRC is right and its content is not: nothing to be had from it */
        tl_batch batch;
        cursor->located = false;
        bool parsed = tl_reading_header(reading, tl_place_position(place), -1, &batch, NULL) == TL_OK;
        *resume = parsed ? tl_batch_next_offset(&batch) : next_segment(reading, cursor->offset);
        return status;
    }
    /* The damage may stand before the batch at which it was noticed: an offset that does not follow on is found there. */
    if (status == TL_ECORRUPT && stood && tl_place(reading->segment->ordinal, position) == place)
        return status;
    if (err != NULL) {
        *err = inner;
        err->code = status;
    }
    return status;
}
