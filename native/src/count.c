/* How many messages stand between an offset and where a reader has to stop?
 *
 * Imports handles.h, reading.h. Callable from any thread. Offsets may have gaps of 2^30 where a power cut was filled up,
 * so their difference is no answer. A record takes seven bytes: a segment with more offsets than a seventh of its bytes
 * has a gap (or is compressed well), and only such a one is walked, header by header. All of its offsets are looked at
 * for that, not those from `from` on: it may stand in the gap, close to its end. Where a named producer has written, every
 * segment from `from` on is walked, because markers and what was aborted take offsets too. */
#include "handles.h"

#include "producers.h"
#include "reading.h"
#include "tidelog/record.h"

static int count_walking(tl_reading *reading, int64_t from, int64_t *messages, tl_error *err) {
    int64_t expected = 0;
    uint32_t position = tl_reading_hint(reading, from, &expected);
    while (position < reading->limit) {
        tl_batch batch;
        int status = tl_reading_header(reading, position, expected, &batch, err);
        if (status < 0)
            return status;
        int64_t next = tl_batch_next_offset(&batch);
        bool counts = next > from && batch.count > 0 && !tl_batch_is_control(&batch);
        int aborted = counts ? tl_reading_is_aborted(reading, &batch, err) : 0;
        if (aborted < 0)
            return aborted;
        if (counts && aborted == 0)
            *messages += batch.base_offset >= from ? batch.count : next - from;
        expected = next;
        position += batch.bytes;
    }
    return TL_OK;
}

/* Where producers with an id have written there may be markers, and messages of aborted transactions. */
static bool has_producers(tl_partition *partition) {
    uint64_t *known = &partition->cold->producers, unknown = TL_PRODUCERS_UNKNOWN;
    uint64_t seen = __atomic_load_n(known, __ATOMIC_ACQUIRE);
    if (seen != TL_PRODUCERS_UNKNOWN)
        return seen == TL_PRODUCERS_SOME;
    tl_segment_files files = {0};
    if (tl_segment_list(partition, ".producers", &files, NULL) < 0 || files.count > 0) {
        tl_os->free(files.bases);
        return true;
    }
    (void)__atomic_compare_exchange_n(known, &unknown, TL_PRODUCERS_NONE, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    return false;
}

int tl_partition_count(tl_partition *partition, int64_t from, unsigned flags, int64_t *messages, tl_error *err) {
    tl_reading reading;
    *messages = 0;
    int status = tl_reading_begin(&reading, partition, flags, err);
    if (status < 0)
        return status;
    from = from < reading.bounds.log_start ? reading.bounds.log_start : from;
    uint32_t ordinal = 0, last = tl_place_ordinal(reading.bound);
    if (from >= reading.bounds.log_end)
        return TL_OK;
    bool walk = has_producers(partition);
    status = tl_reading_segment(&reading, from, &ordinal, err);
    for (; status == TL_OK && ordinal <= last; ordinal++) {
        if (ordinal == last && tl_place_position(reading.bound) == 0)
            break;
        status = tl_reading_enter(&reading, ordinal, err);
        if (status < 0)
            break;
        int64_t begin = from > reading.segment->base_offset ? from : reading.segment->base_offset;
        int64_t end = reading.end_offset >= 0 ? reading.end_offset : reading.bounds.log_end;
        if (end <= begin)
            continue;
        if (!walk && end - reading.segment->base_offset <= (int64_t)(reading.limit / TL_RECORD_MIN_BYTES))
            *messages += end - begin;
        else
            status = count_walking(&reading, begin, messages, err);
    }
    tl_reading_end(&reading);
    return status < 0 ? status : TL_OK;
}
