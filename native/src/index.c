/* Which entries does a batch add to a segment's indexes, and are the entries that stand there right?
 *
 * Imports index.h. Callable from any thread; the header says what a caller must guard. */
#include "index_entry.h"

#include <stdio.h>

static int fail_entry(tl_error *err, int code, const char *what, size_t position, int64_t found, int64_t limit) {
    tl_fail(err, code, what, NULL, (int64_t)position);
    if (err != NULL)
        snprintf(err->detail, sizeof err->detail, "found %lld, limit %lld%s", (long long)found, (long long)limit,
                 code == TL_ECORRUPT ? "; rebuild the index" : "");
    return code;
}

static int corrupt_offsets(tl_error *err, const char *what, size_t slot, int64_t found, int64_t limit) {
    return fail_entry(err, TL_ECORRUPT, what, slot * TL_INDEX_ENTRY_BYTES, found, limit);
}

static int corrupt_times(tl_error *err, const char *what, size_t slot, int64_t found, int64_t limit) {
    return fail_entry(err, TL_ECORRUPT, what, slot * TL_INDEX_TIME_ENTRY_BYTES, found, limit);
}

/* --- writing --- */

static bool relative_of(const tl_index *index, int64_t offset, uint32_t *relative) {
    uint64_t wide = (uint64_t)offset - (uint64_t)index->base_offset;
    *relative = (uint32_t)wide;
    return offset >= index->base_offset && wide <= INT32_MAX;
}

static int check_offset_entry(const tl_index *index, int64_t last_offset, uint32_t position, tl_error *err) {
    uint32_t relative, count = index->offset_count;
    size_t at = (size_t)count * TL_INDEX_ENTRY_BYTES;
    if (!relative_of(index, last_offset, &relative) || relative == 0)
        return fail_entry(err, TL_EINVAL, "offset index: the offset is not 1 to 2^31 - 1 above the segment's base", at,
                          last_offset, index->base_offset);
    if (position == 0 || position >= TL_INDEX_POSITION_END)
        return fail_entry(err, TL_EINVAL, "offset index: the position is not between 1 and 2^31 - 1", at, position,
                          INT32_MAX);
    if (count >= index->offset_capacity)
        return fail_entry(err, TL_EFULL, "offset index: full; roll the segment before appending", at, count,
                          index->offset_capacity);
    if (count > 0) {
        int64_t last_relative = relative_at(index->offset_entries, count - 1);
        uint32_t last_position = position_at(index->offset_entries, count - 1);
        if (last_relative >= relative)
            return corrupt_offsets(err, "offset index: the last entry's offset is not below the log's", count - 1,
                                   last_relative, relative);
        if (last_position >= position)
            return corrupt_offsets(err, "offset index: the last entry's position is not below the log's", count - 1,
                                   last_position, position);
    }
    return TL_OK;
}

static void put_offset_entry(tl_index *index, int64_t last_offset, uint32_t position) {
    uint64_t relative = (uint64_t)last_offset - (uint64_t)index->base_offset;
    tl_put_be64(index->offset_entries + (size_t)index->offset_count * TL_INDEX_ENTRY_BYTES, relative << 32 | position);
    index->offset_count++;
}

/* 1: nothing to add. Kafka starts from timestamp -1, so an entry below 0 never exists. */
static int check_time_entry(const tl_index *index, int64_t timestamp_ms, int64_t offset, uint32_t limit,
                            tl_error *err) {
    uint32_t relative, count = index->time_count;
    size_t at = (size_t)count * TL_INDEX_TIME_ENTRY_BYTES;
    if (timestamp_ms < 0)
        return 1;
    if (!relative_of(index, offset, &relative))
        return fail_entry(err, TL_EINVAL, "time index: the offset is not 0 to 2^31 - 1 above the segment's base", at,
                          offset, index->base_offset);
    if (count > 0 && count <= index->time_capacity) {
        if (timestamp_at(index->time_entries, count - 1) >= timestamp_ms)
            return 1;
        int64_t last_relative = time_relative_at(index->time_entries, count - 1);
        if (last_relative > relative)
            return corrupt_times(err, "time index: the last entry's offset is above the log's", count - 1,
                                 last_relative, relative);
    }
    if (count >= limit)
        return fail_entry(err, TL_EFULL, "time index: full; roll the segment before appending", at, count, limit);
    return TL_OK;
}

static void put_time_entry(tl_index *index, int64_t timestamp_ms, int64_t offset) {
    uint8_t *entry = index->time_entries + (size_t)index->time_count * TL_INDEX_TIME_ENTRY_BYTES;
    tl_put_be64(entry, (uint64_t)timestamp_ms);
    tl_put_be32(entry + 8, (uint32_t)((uint64_t)offset - (uint64_t)index->base_offset));
    index->time_count++;
}

/* The last slot is kept for tl_index_finish. */
static uint32_t time_limit(const tl_index *index) {
    return index->time_capacity == 0 ? 0 : index->time_capacity - 1;
}

static int add_time_entry(tl_index *index, int64_t timestamp_ms, int64_t offset, uint32_t limit, tl_error *err) {
    int status = check_time_entry(index, timestamp_ms, offset, limit, err);
    if (status == TL_OK)
        put_time_entry(index, timestamp_ms, offset);
    return status < 0 ? status : TL_OK;
}

int tl_index_append(tl_index *index, int64_t last_offset, uint32_t position, tl_error *err) {
    int status = check_offset_entry(index, last_offset, position, err);
    if (status == TL_OK)
        put_offset_entry(index, last_offset, position);
    return status;
}

int tl_index_append_time(tl_index *index, int64_t timestamp_ms, int64_t offset, tl_error *err) {
    return add_time_entry(index, timestamp_ms, offset, time_limit(index), err);
}

/* The time entry includes the batch itself, as in Kafka. The offset entry is checked first and written last: what can
 * fail comes before what changes anything. */
int tl_index_append_due(tl_index *index, tl_index_progress *progress, const tl_index_batch *batch, tl_error *err) {
    int status = check_offset_entry(index, batch->last_offset, batch->position, err);
    if (status == TL_OK)
        status = tl_index_append_time(index, progress->max_timestamp_ms, progress->max_timestamp_offset, err);
    if (status == TL_OK) {
        put_offset_entry(index, batch->last_offset, batch->position);
        progress->bytes_since_entry = 0;
    }
    return status;
}

int tl_index_scan_step(tl_index *index, tl_index_progress *progress, uint32_t position, const tl_batch *batch,
                       tl_error *err) {
    tl_index_batch known = {tl_batch_last_offset(batch), batch->max_timestamp_ms, position, batch->bytes};
    return tl_index_note(index, progress, &known, err);
}

int tl_index_finish(tl_index *index, const tl_index_progress *progress, tl_error *err) {
    return add_time_entry(index, progress->max_timestamp_ms, progress->max_timestamp_offset, index->time_capacity, err);
}

bool tl_index_full(const tl_index *index) {
    return index->offset_count >= index->offset_capacity || index->time_count >= time_limit(index);
}

uint32_t tl_index_resume(const tl_index *index, uint32_t limit_position, tl_index_progress *progress) {
    uint32_t count = offset_entries(index), times = time_entries(index);
    tl_index_start(progress);
    if (count == 0)
        return 0;
    uint32_t position = position_at(index->offset_entries, count - 1);
    if (position >= limit_position || position >= TL_INDEX_POSITION_END)
        return 0;
    if (times > 0) { /* made with the last offset entry or later, else nothing newer came: the maximum up to there */
        tl_index_time newest = time_entry_at(index, times - 1);
        progress->max_timestamp_ms = newest.timestamp_ms;
        progress->max_timestamp_offset = newest.timestamp_ms < 0 ? -1 : newest.offset;
    }
    return position;
}

/* A time entry is made together with the first offset entry at or past its offset, which may be a later batch than the
 * one it names: so it goes when that offset entry goes. */
void tl_index_truncate(tl_index *index, uint32_t limit_position) {
    uint32_t count = offset_entries(index), kept = count, times = time_entries(index), times_kept = times;
    while (kept > 0 && position_at(index->offset_entries, kept - 1) >= limit_position)
        kept--;
    int64_t last = kept == 0 ? -1 : relative_at(index->offset_entries, kept - 1);
    while (times_kept > 0 && time_relative_at(index->time_entries, times_kept - 1) > last)
        times_kept--;
    index->offset_count = kept;
    index->time_count = times_kept;
    if (kept < count)
        memset(index->offset_entries + (size_t)kept * TL_INDEX_ENTRY_BYTES, 0,
               (size_t)(count - kept) * TL_INDEX_ENTRY_BYTES);
    if (times_kept < times)
        memset(index->time_entries + (size_t)times_kept * TL_INDEX_TIME_ENTRY_BYTES, 0,
               (size_t)(times - times_kept) * TL_INDEX_TIME_ENTRY_BYTES);
}

/* --- checking --- */

int tl_index_sanity(const uint8_t *bytes, size_t size_bytes, tl_error *err) {
    size_t count = size_bytes / TL_INDEX_ENTRY_BYTES;
    if (size_bytes % TL_INDEX_ENTRY_BYTES != 0)
        return corrupt_offsets(err, "offset index: the size is not a multiple of 8", count, (int64_t)size_bytes,
                               TL_INDEX_ENTRY_BYTES);
    if (count == 0)
        return TL_OK;
    int64_t relative = relative_at(bytes, count - 1);
    if (relative == 0)
        return corrupt_offsets(err, "offset index: it ends in an unused slot", count - 1, 0, 1);
    if (relative > INT32_MAX)
        return corrupt_offsets(err, "offset index: the last offset is below the segment's base", count - 1,
                               (int32_t)relative, 0);
    return TL_OK;
}

int tl_index_sanity_time(const uint8_t *bytes, size_t size_bytes, tl_error *err) {
    size_t count = size_bytes / TL_INDEX_TIME_ENTRY_BYTES;
    if (size_bytes % TL_INDEX_TIME_ENTRY_BYTES != 0)
        return corrupt_times(err, "time index: the size is not a multiple of 12", count, (int64_t)size_bytes,
                             TL_INDEX_TIME_ENTRY_BYTES);
    if (count == 0)
        return TL_OK;
    int64_t first_ms = timestamp_at(bytes, 0), last_ms = timestamp_at(bytes, count - 1);
    int64_t relative = time_relative_at(bytes, count - 1);
    if (last_ms < first_ms)
        return corrupt_times(err, "time index: the last timestamp is below the first", count - 1, last_ms, first_ms);
    if (relative > INT32_MAX)
        return corrupt_times(err, "time index: the last offset is below the segment's base", count - 1,
                             (int32_t)relative, 0);
    if (count > 1 && last_ms == 0 && relative == 0) /* a lone {0, 0} is an entry: timestamp 0 in a first batch of one */
        return corrupt_times(err, "time index: it ends in an unused slot", count - 1, 0, 1);
    return TL_OK;
}

static int verify_offsets(const tl_index *index, uint32_t limit_position, int64_t last, tl_error *err) {
    int64_t relative = 0;
    uint32_t position = 0;
    for (uint32_t slot = 0; slot < offset_entries(index); slot++) {
        int64_t next_relative = relative_at(index->offset_entries, slot);
        uint32_t next_position = position_at(index->offset_entries, slot);
        if (next_relative <= relative)
            return corrupt_offsets(err, "offset index: an offset is not above the one before", slot, next_relative,
                                   relative);
        if (next_relative > last)
            return corrupt_offsets(err, "offset index: an offset is past the segment's end", slot, next_relative, last);
        if (next_position <= position)
            return corrupt_offsets(err, "offset index: a position is not above the one before", slot, next_position,
                                   position);
        if (next_position >= limit_position || next_position >= TL_INDEX_POSITION_END)
            return corrupt_offsets(err, "offset index: a position is past the segment's end", slot, next_position,
                                   limit_position);
        relative = next_relative;
        position = next_position;
    }
    return TL_OK;
}

static int verify_times(const tl_index *index, int64_t last, tl_error *err) {
    int64_t timestamp_ms = -1, relative = 0;
    for (uint32_t slot = 0; slot < time_entries(index); slot++) {
        int64_t next_ms = timestamp_at(index->time_entries, slot);
        int64_t next_relative = time_relative_at(index->time_entries, slot);
        if (next_ms <= timestamp_ms)
            return corrupt_times(err, "time index: a timestamp is not above the one before", slot, next_ms,
                                 timestamp_ms);
        if (next_relative < relative)
            return corrupt_times(err, "time index: an offset is below the one before", slot, next_relative, relative);
        if (next_relative > last)
            return corrupt_times(err, "time index: an offset is past the segment's end", slot, next_relative, last);
        timestamp_ms = next_ms;
        relative = next_relative;
    }
    return TL_OK;
}

int tl_index_verify(const tl_index *index, uint32_t limit_position, int64_t end_offset, tl_error *err) {
    int64_t last = end_offset <= index->base_offset ? -1 : relative_key(index->base_offset, end_offset - 1);
    int status = verify_offsets(index, limit_position, last, err);
    return status == TL_OK ? verify_times(index, last, err) : status;
}

static int explain_offset(const tl_index *index, tl_index_check *check, uint32_t position, int64_t last,
                          tl_error *err) {
    uint32_t slot = check->offset_at;
    if (slot >= offset_entries(index))
        return TL_OK;
    int64_t relative = relative_at(index->offset_entries, slot);
    uint32_t entry_position = position_at(index->offset_entries, slot);
    if (entry_position < position)
        return corrupt_offsets(err, "offset index: no batch starts at an entry's position", slot, entry_position,
                               position);
    if (entry_position > position)
        return TL_OK;
    if (relative != last)
        return corrupt_offsets(err, "offset index: an entry's offset is not its batch's last", slot, relative, last);
    check->offset_at++;
    return TL_OK;
}

static int explain_time(const tl_index *index, tl_index_check *check, const tl_batch *batch, int64_t last,
                        tl_error *err) {
    uint32_t slot = check->time_at;
    if (slot >= time_entries(index))
        return TL_OK;
    int64_t timestamp_ms = timestamp_at(index->time_entries, slot);
    int64_t relative = time_relative_at(index->time_entries, slot);
    if (relative < last)
        return corrupt_times(err, "time index: no batch ends at an entry's offset", slot, relative, last);
    if (relative > last)
        return TL_OK;
    if (timestamp_ms != batch->max_timestamp_ms)
        return corrupt_times(err, "time index: an entry's timestamp is not its batch's", slot, timestamp_ms,
                             batch->max_timestamp_ms);
    check->time_at++;
    return TL_OK;
}

int tl_index_check_step(const tl_index *index, tl_index_check *check, uint32_t position, const tl_batch *batch,
                        tl_error *err) {
    int64_t last = (int64_t)((uint64_t)tl_batch_last_offset(batch) - (uint64_t)index->base_offset);
    int status = explain_offset(index, check, position, last, err);
    return status == TL_OK ? explain_time(index, check, batch, last, err) : status;
}

int tl_index_check_end(const tl_index *index, const tl_index_check *check, tl_error *err) {
    if (check->offset_at < offset_entries(index))
        return corrupt_offsets(err, "offset index: an entry is past the last batch", check->offset_at, check->offset_at,
                               offset_entries(index));
    if (check->time_at < time_entries(index))
        return corrupt_times(err, "time index: an entry is past the last batch", check->time_at, check->time_at,
                             time_entries(index));
    return TL_OK;
}
