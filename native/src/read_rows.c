/* How are fixed-width rows gathered from batches straight into one array?
 *
 * Imports handles.h, guard.h, reading.h. Callable from any thread. Records have no fixed stride in Kafka's format, so a
 * view of the map cannot be an array; one pass copies the rows out and checks the CRC of everything it walks over. */
#include "handles.h"

#include "reading.h"
#include "tidelog/guard.h"

int tl_partition_read_rows(tl_partition *partition, tl_cursor *cursor, size_t row_bytes, uint8_t *rows, size_t room,
                           int64_t *offsets, int64_t *timestamps_ms, tl_chunk *keys, size_t *taken, size_t *need,
                           unsigned flags, tl_read_end *end, tl_error *err) {
    tl_reading reading;
    memset(end, 0, sizeof *end);
    end->skipped_to = -1;
    *taken = *need = 0;
    int status = tl_reading_begin(&reading, partition, flags, err);
    if (status < 0 || (status = tl_reading_range(&reading, cursor, err)) < 0)
        return status;
    tl_key_place *places = NULL;
    size_t places_room = 0;
again:
    while (*taken < room) {
        tl_batch batch;
        status = tl_reading_next(&reading, cursor, err);
        if (status <= 0)
            break;
        uint32_t position = tl_place_position(cursor->place);
        status = tl_reading_header(&reading, position, cursor->batch_offset, &batch, err);
        if (status < 0)
            break;
        if ((status = tl_reading_is_aborted(&reading, &batch, err)) < 0)
            break;
        if (batch.count == 0 || tl_batch_is_control(&batch) || status == 1) {
            tl_chunk skipped = {0}; /* its CRC is checked like any other's */
            status = tl_reading_copy(&reading, cursor, &batch, &skipped, err);
            tl_chunk_free(&skipped);
            if (status < 0)
                break;
            tl_cursor_step(cursor, &batch);
            continue;
        }
        size_t count = (size_t)batch.count;
        if (count > room - *taken) {
            *need = count;
            if (*taken == 0)
                status = tl_fail(err, TL_ETOOLARGE, "the next batch has more rows than there is room for", "", -1);
            break;
        }
        if ((flags & TL_READ_TRY) != 0 && batch.bytes > TL_TRY_MOST_BYTES) {
            status = *taken > 0 ? TL_OK : TL_EAGAIN;
            break;
        }
        if (tl_batch_codec(&batch) != 0) {
            if (*taken > 0)
                break;
            if (keys == NULL)
                status = tl_fail(err, TL_EINVAL, "a compressed batch needs a chunk to be copied to", "", -1);
            else
                status = tl_reading_copy(&reading, cursor, &batch, keys, err);
            if (status < 0)
                break;
            end->compressed = true;
            end->batch = batch;
            end->batch_at = keys->used;
            keys->used += batch.bytes;
            tl_cursor_step(cursor, &batch);
            break;
        }
        if (keys != NULL && count > places_room) {
            tl_key_place *more = tl_os->realloc(places, count * sizeof *more);
            if (more == NULL) {
                status = tl_fail(err, TL_ENOMEM, "no memory for the keys read", "", -1);
                break;
            }
            places = more;
            places_room = count;
        }
        const uint8_t *at = reading.segment->map + position;
        if (batch.bytes >= 65536)
            (void)tl_os->populate((void *)(uintptr_t)((uintptr_t)at & ~(uintptr_t)(TL_PAGE - 1)),
                                  batch.bytes + ((uintptr_t)at & (TL_PAGE - 1)), false);
        tl_error inner = {0};
        size_t got = 0;
        int gathered = TL_OK;
        tl_guard guard;
        TL_GUARDED(guard) {
            gathered = tl_batch_gather(at, &batch, cursor->offset, row_bytes, rows + *taken * row_bytes,
                                       offsets == NULL ? NULL : offsets + *taken,
                                       timestamps_ms == NULL ? NULL : timestamps_ms + *taken,
                                       keys == NULL ? NULL : places, &got, &inner);
            if (gathered == TL_OK && keys != NULL)
                gathered = tl_reading_copy_keys(at, batch.bytes, places, got, keys, &inner);
        }
        TL_GUARD_CAUGHT(guard) {
            status = tl_reading_bus(&reading, &guard, err);
            break;
        }
        if (gathered < 0) {
            status = gathered == TL_ECORRUPT ? tl_reading_corrupt(&reading, inner.what, position, err)
                                             : tl_fail(err, gathered, inner.what, "", -1);
            break;
        }
        *taken += got;
        tl_cursor_step(cursor, &batch);
    }
    if (status < 0 && *taken > 0 && (status == TL_ECORRUPT || status == TL_EBUS)) { /* the next call meets the damage */
        cursor->located = false;
        status = TL_OK;
    }
    if (status < 0 && (status = tl_reading_resync(&reading, cursor, status, &end->skipped_to, err)) == TL_OK)
        goto again;
    tl_os->free(places);
    tl_reading_end(&reading);
    return status < 0 ? status : TL_OK;
}
