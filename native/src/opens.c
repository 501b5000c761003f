/* Which transactions are open in a partition, as its log says?
 *
 * Imports transacting.h, reading.h. A walk over batch headers with memory of its own: whoever repairs a partition has its
 * lock and must not wait for the mutex behind which the table of its producers is; whoever recovers or checks one wants to
 * know what was aborted, too. Damaged places are stepped over: what stood there is as if it never was. */
#include "transacting.h"

#include "reading.h"

void tl_txn_opens_free(tl_txn_opens *opens) {
    tl_os->free(opens->open);
    tl_os->free(opens->ended);
    memset(opens, 0, sizeof *opens);
}

static int make_room(void **list, size_t count, size_t *room, size_t bytes, tl_error *err) {
    if (count < *room)
        return TL_OK;
    size_t more = *room == 0 ? 16 : 2 * *room;
    void *grown = tl_os->realloc(*list, more * bytes);
    if (grown == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the transactions of a partition", "", -1);
    *list = grown;
    *room = more;
    return TL_OK;
}

int tl_txn_marker_of(const uint8_t *bytes, const tl_batch *batch) {
    tl_record record;
    if (batch->count != 1 || tl_batch_records(bytes, TL_BATCH_HEADER_BYTES, batch->bytes - TL_BATCH_HEADER_BYTES, batch,
                                              &record, NULL) < 0 || record.key_bytes < 4 || record.value_bytes < 6)
        return TL_MARKER_NONE; /* compacted away, or a filler of a repair */
    unsigned type = tl_be16(bytes + record.key_at + 2);
    return type <= TL_MARKER_COMMIT ? (int)type : TL_MARKER_NONE;
}

int tl_txn_add_open(tl_txn_opens *opens, const tl_txn_open *open, tl_error *err) {
    void *list = opens->open;
    int status = make_room(&list, opens->open_count, &opens->open_room, sizeof *open, err);
    opens->open = list;
    if (status == TL_OK)
        opens->open[opens->open_count++] = *open;
    return status;
}

int tl_txn_step(tl_txn_opens *opens, const tl_batch *batch, uint64_t place, int marker, int64_t segment_base, tl_error *err) {
    size_t at = 0;
    if (batch->producer_id < 0)
        return TL_OK;
    while (at < opens->open_count && opens->open[at].producer_id != batch->producer_id)
        at++;
    if (!tl_batch_is_control(batch)) {
        const tl_txn_open open = {batch->producer_id, batch->base_offset, place, batch->producer_epoch};
        return tl_batch_is_transactional(batch) && at == opens->open_count ? tl_txn_add_open(opens, &open, err) : TL_OK;
    }
    if (marker == TL_MARKER_NONE || at == opens->open_count)
        return TL_OK;
    if (marker == TL_MARKER_ABORT) {
        void *list = opens->ended;
        int status = make_room(&list, opens->ended_count, &opens->ended_room, sizeof *opens->ended, err);
        opens->ended = list;
        if (status < 0)
            return status;
        opens->ended[opens->ended_count++] =
            (tl_txn_ended){{batch->producer_id, opens->open[at].first_offset, batch->base_offset}, segment_base};
    }
    opens->open[at] = opens->open[--opens->open_count];
    return TL_OK;
}

static int walk_one(tl_reading *reading, tl_cursor *cursor, tl_txn_opens *out, tl_error *err) {
    tl_batch batch;
    uint32_t position = tl_place_position(cursor->place);
    int status = tl_reading_header(reading, position, cursor->batch_offset, &batch, err), marker = TL_MARKER_NONE;
    if (status < 0)
        return status;
    if (TL_UNLIKELY(batch.producer_id >= 0 && tl_batch_is_control(&batch))) {
        uint8_t bytes[256];
        volatile bool whole = batch.bytes <= sizeof bytes;
        tl_guard guard;
        TL_GUARDED(guard) { whole = whole && tl_batch_copy_checked(bytes, reading->segment->map + position, &batch); }
        TL_GUARD_CAUGHT(guard) { return tl_reading_bus(reading, &guard, err); }
        if (whole)
            marker = tl_txn_marker_of(bytes, &batch);
    }
    status = tl_txn_step(out, &batch, cursor->place, marker, reading->segment->base_offset, err);
    if (status < 0)
        return status;
    tl_cursor_step(cursor, &batch);
    cursor->offset = cursor->batch_offset;
    return TL_OK;
}

/* Where the walk begins is the start of a segment, or a batch whose header says its offset. */
static int begin_at(tl_reading *reading, uint64_t from, tl_cursor *cursor, tl_error *err) {
    uint32_t first = __atomic_load_n(&reading->partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t base = 0;
    if (tl_place_ordinal(from) < first)
        from = tl_place(first, 0);
    int status = tl_segment_base(reading->partition, tl_place_ordinal(from), &base, err);
    *cursor = (tl_cursor){.offset = base, .place = tl_place(tl_place_ordinal(from), 0), .batch_offset = base, .located = true};
    if (status < 0 || tl_place_position(from) == 0 || from >= reading->bound)
        return status;
    tl_batch batch;
    tl_error inner = {0};
    if (tl_reading_enter(reading, tl_place_ordinal(from), &inner) == TL_OK &&
        tl_reading_header(reading, tl_place_position(from), -1, &batch, &inner) == TL_OK)
        *cursor = (tl_cursor){.offset = batch.base_offset, .place = from, .batch_offset = batch.base_offset, .located = true};
    return TL_OK;
}

int tl_txn_walk(tl_partition *partition, uint64_t from, tl_txn_opens *out, tl_error *err) {
    tl_reading reading;
    tl_cursor cursor;
    int status = tl_reading_begin(&reading, partition, TL_READ_UNCOMMITTED, err);
    if (status < 0)
        return status;
    status = begin_at(&reading, from, &cursor, err);
    while (status >= 0 && cursor.place < reading.bound && (status = tl_reading_next(&reading, &cursor, err)) != 0) {
        if (status > 0)
            status = walk_one(&reading, &cursor, out, err);
        if (status < 0) {
            int64_t resume = -1;
            status = tl_reading_resync(&reading, &cursor, status, &resume, err);
            if (status < 0 && resume > cursor.offset) {
                cursor.offset = resume;
                cursor.located = false;
                status = TL_OK;
            }
        }
    }
    tl_reading_end(&reading);
    return status < 0 ? status : TL_OK;
}

/* --- the last stable place --- */

/* A dead writer may have lowered it for a transaction that never came, or raised it for a marker that never came. */
int tl_transactions_repair(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    uint64_t from = __atomic_load_n(&partition->cold->first_open, __ATOMIC_RELAXED), oldest = UINT64_MAX;
    if (TL_BUG(LSO_NOT_REPAIRED) || (from == UINT64_MAX && __atomic_load_n(&hot->lso, __ATOMIC_RELAXED) == UINT64_MAX))
        return TL_OK;
    tl_txn_opens opens = {0};
    int status = tl_txn_walk(partition, from, &opens, err);
    for (size_t i = 0; i < opens.open_count; i++)
        oldest = opens.open[i].place < oldest ? opens.open[i].place : oldest;
    tl_txn_opens_free(&opens);
    if (status < 0)
        return status;
    __atomic_store_n(&hot->lso, oldest, __ATOMIC_SEQ_CST);
    TL_POINT("txn.lso_repaired");
    __atomic_store_n(&partition->cold->first_open, oldest, __ATOMIC_RELEASE);
    return TL_OK;
}

void tl_transaction_opening(tl_partition *partition, uint64_t place) {
    tl_hot *hot = partition->hot;
    if (__atomic_load_n(&partition->cold->first_open, __ATOMIC_RELAXED) == UINT64_MAX)
        __atomic_store_n(&partition->cold->first_open, place, __ATOMIC_RELEASE);
    TL_POINT("txn.opening");
    if (__atomic_load_n(&hot->lso, __ATOMIC_RELAXED) == UINT64_MAX)
        __atomic_store_n(&hot->lso, place, __ATOMIC_SEQ_CST);
    TL_POINT("txn.lso");
}

int tl_partition_stable_end(tl_partition *partition, int64_t *offset, tl_error *err) {
    tl_reading reading;
    int status = tl_reading_begin(&reading, partition, 0, err);
    if (status < 0)
        return status;
    *offset = reading.bounds.log_end;
    if (reading.bound < reading.bounds.tail) {
        tl_batch batch;
        status = tl_reading_enter(&reading, tl_place_ordinal(reading.bound), err);
        if (status == TL_OK) {
            reading.limit = tl_place_ordinal(reading.bound) == tl_place_ordinal(reading.bounds.tail)
                                ? tl_place_position(reading.bounds.tail)
                                : (uint32_t)reading.segment->map_bytes;
            status = tl_reading_header(&reading, tl_place_position(reading.bound), -1, &batch, err);
        }
        if (status == TL_OK)
            *offset = batch.base_offset;
    }
    tl_reading_end(&reading);
    return status;
}
