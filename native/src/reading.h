/* What does one call that reads a partition keep while it runs?
 *
 * Private to native/src. Imports handles.h, guard.h. A tl_reading lives on the stack of one call. */
#ifndef TIDELOG_READING_H
#define TIDELOG_READING_H

#include "handles.h"
#include "tidelog/guard.h"

typedef struct tl_reading {
    tl_partition *partition;
    unsigned flags;
    tl_bounds bounds;
    uint64_t bound;      /* nothing at or past this place is looked at */
    tl_segment *segment; /* referenced, or NULL */
    uint32_t limit;      /* of the segment, in bytes */
    int64_t end_offset;  /* where a sealed segment ends; -1: it is the bound's own */
} tl_reading;

int tl_reading_begin(tl_reading *reading, tl_partition *partition, unsigned flags, tl_error *err);
void tl_reading_end(tl_reading *reading);
int tl_reading_enter(tl_reading *reading, uint32_t ordinal, tl_error *err);
int tl_reading_header(const tl_reading *reading, uint32_t position, int64_t expected, tl_batch *batch, tl_error *err);
int tl_reading_locate(tl_reading *reading, tl_cursor *cursor, tl_error *err);
int tl_reading_next(tl_reading *reading, tl_cursor *cursor, tl_error *err);
int tl_reading_range(tl_reading *reading, const tl_cursor *cursor, tl_error *err);
uint32_t tl_reading_hint(tl_reading *reading, int64_t offset, int64_t *batch_offset);
int tl_reading_corrupt(const tl_reading *reading, const char *what, uint32_t position, tl_error *err);
int tl_reading_bus(const tl_reading *reading, const tl_guard *guard, tl_error *err);
/* Copies the batch at the cursor to the chunk's end, CRC checked. */
int tl_reading_copy(tl_reading *reading, const tl_cursor *cursor, const tl_batch *batch, tl_chunk *chunk,
                    tl_error *err);
/* After `status` (TL_ECORRUPT or TL_EBUS) at the cursor. TL_OK: what is wanted is whole, only the way to it is damaged, and
 * the cursor stands there now. Else `status`, err naming the damaged place, *resume the offset at which reading may go on
 * (-1: none known). Any other status is handed back. cursor->located is false then. */
int tl_reading_resync(tl_reading *reading, tl_cursor *cursor, int status, int64_t *resume, tl_error *err);
/* Whether the CRC of a batch that was parsed at `position` is right. */
bool tl_reading_whole(const tl_reading *reading, uint32_t position, const tl_batch *batch);
/* The last segment whose base offset is <= offset. */
int tl_reading_segment(tl_reading *reading, int64_t offset, uint32_t *ordinal, tl_error *err);
int tl_reading_copy_keys(const uint8_t *batch, uint32_t batch_bytes, const tl_key_place *places, size_t count,
                         tl_chunk *keys, tl_error *err);

/* A batch of a transaction that was aborted is as if it were not there. 1, 0, or a negative code. Of the batches of no
 * transaction, which is nearly all, the bits in the parsed header say so. */
int tl_reading_look_up_aborted(const tl_reading *reading, const tl_batch *batch, tl_error *err);
TL_INLINE int tl_reading_is_aborted(const tl_reading *reading, const tl_batch *batch, tl_error *err) {
    if (TL_LIKELY((batch->attributes & TL_ATTR_TRANSACTIONAL) == 0))
        return 0;
    return tl_reading_look_up_aborted(reading, batch, err);
}

TL_INLINE void tl_cursor_step(tl_cursor *cursor, const tl_batch *batch) {
    cursor->place += batch->bytes;
    cursor->batch_offset = tl_batch_next_offset(batch);
    if (cursor->offset < cursor->batch_offset)
        cursor->offset = cursor->batch_offset;
}

#endif
