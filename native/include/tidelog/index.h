/* Where in a segment does a search for an offset, or for a timestamp, begin?
 *
 * Imports batch.h, base.h. Callable from any thread: pure functions over memory of the caller, who owns the files,
 * their maps, the published counts and the lock that keeps writers apart. Lookups take no lock: entries below a
 * published count do not change, and whatever another process scribbles over them, an answer may be wrong but no byte
 * outside the entries is touched.
 *
 * Formats are Kafka's, big-endian (docs/format.md). An offset entry {relative offset i32, position i32} names the
 * batch that starts at `position` and the LAST offset of it. A time entry {timestamp i64, relative offset i32} says: no
 * batch up to here is newer than `timestamp`, and the batch ending at that offset was the first to reach it.
 *
 * A search may start at the greatest entry whose offset <= target, because that batch ends at or before the target: the
 * target lies in it or behind it. The next entry must not be used: the target may lie in its batch or before it.
 *
 * Answers are hints. An offset entry is genuine when a batch starts at its position and ends at its offset, a time
 * entry when the batch ending at its offset has its timestamp as the largest. A genuine entry that fits the target is a
 * right place to start even when damaged ones misled the search; otherwise start at position 0. */
#ifndef TIDELOG_INDEX_H
#define TIDELOG_INDEX_H

#include "tidelog/batch.h"

#define TL_INDEX_ENTRY_BYTES 8u
#define TL_INDEX_TIME_ENTRY_BYTES 12u
#define TL_INDEX_INTERVAL_BYTES 4096u   /* an entry is due when more than this was appended since the last one */
#define TL_INDEX_MAX_BYTES 10485760u    /* Kafka's segment.index.bytes, rounded down to whole entries */
#define TL_INDEX_TIME_MAX_BYTES 10485756u

/* Both indexes of one segment. A count above its capacity is taken for the capacity. Whoever only looks offsets up may
 * leave the time members zero. Writers publish time_count before offset_count, so that a process which goes on from the
 * last offset entry finds the time entry made with it. */
typedef struct tl_index {
    int64_t base_offset;
    uint8_t *offset_entries, *time_entries;
    uint32_t offset_count, offset_capacity;     /* entries, not bytes */
    uint32_t time_count, time_capacity;
} tl_index;

typedef struct tl_index_entry {
    int64_t offset;                     /* the last offset of the batch at `position`; -1: no entry fits */
    uint32_t position;
} tl_index_entry;

typedef struct tl_index_time {
    int64_t timestamp_ms;               /* -1: no entry fits, and `offset` is the segment's base */
    int64_t offset;
} tl_index_time;

/* --- writing --- */

/* What must be remembered between two batches. Appending and rebuilding go through the same functions, so that a
 * rebuilt index has the bytes of the one that appends wrote. */
typedef struct tl_index_progress {
    uint64_t bytes_since_entry;
    int64_t max_timestamp_ms;           /* -1: no batch so far has a timestamp >= 0 */
    int64_t max_timestamp_offset;       /* the last offset of the batch that reached it first */
} tl_index_progress;

/* What the indexes need to know of a batch. */
typedef struct tl_index_batch {
    int64_t last_offset, max_timestamp_ms;
    uint32_t position, bytes;
} tl_index_batch;

/* The state before the first batch of a segment. */
TL_INLINE void tl_index_start(tl_index_progress *progress) {
    progress->bytes_since_entry = 0;
    progress->max_timestamp_ms = progress->max_timestamp_offset = -1;
}

/* One offset entry. TL_EFULL: roll the segment. TL_ECORRUPT: the last entry is not below this one, rebuild the index.
 * TL_EINVAL: offset or position outside the segment; neither may be the segment's first, which gets no entry. */
int tl_index_append(tl_index *index, int64_t last_offset, uint32_t position, tl_error *err);

/* One time entry; 0 and no entry when the timestamp is not above the last one's. Leaves one slot to tl_index_finish. */
int tl_index_append_time(tl_index *index, int64_t timestamp_ms, int64_t offset, tl_error *err);

/* The entries for a batch, or none and an error: the part of tl_index_note for when they are due. */
int tl_index_append_due(tl_index *index, tl_index_progress *progress, const tl_index_batch *batch, tl_error *err);

/* Counts a batch that makes no entry. */
TL_INLINE void tl_index_count(tl_index_progress *progress, const tl_index_batch *batch) {
    if (batch->max_timestamp_ms > progress->max_timestamp_ms) {
        progress->max_timestamp_ms = batch->max_timestamp_ms;
        progress->max_timestamp_offset = batch->last_offset;
    }
    progress->bytes_since_entry += batch->bytes;
}

/* To be called for every batch in order, after it was published: makes the entries when they are due. The batch is
 * counted also when that fails, and the entries are tried again at the next one. */
TL_INLINE int tl_index_note(tl_index *index, tl_index_progress *progress, const tl_index_batch *batch, tl_error *err) {
    int status = TL_OK;
    bool due = progress->bytes_since_entry > TL_INDEX_INTERVAL_BYTES;
    tl_index_count(progress, batch);
    if (TL_UNLIKELY(due)) {
        status = tl_index_append_due(index, progress, batch, err);
        if (status == TL_OK)
            progress->bytes_since_entry = batch->bytes;
    }
    return status;
}

/* The same for a batch that a scan has parsed. A rebuild sets both counts to 0 and feeds all from position 0. */
int tl_index_scan_step(tl_index *index, tl_index_progress *progress, uint32_t position, const tl_batch *batch,
                       tl_error *err);

/* The last time entry of a segment, at its roll: its largest timestamp, if no entry says so yet. */
int tl_index_finish(tl_index *index, const tl_index_progress *progress, tl_error *err);

/* No room for the next entries: roll before appending (Kafka's rule). */
bool tl_index_full(const tl_index *index);

/* Goes on with indexes that somebody else wrote: *progress becomes the state before the batch of the last entry, and
 * that batch's position is returned; feed it and all behind it to tl_index_scan_step, which adds entries that a dead
 * writer owed. Verify the batch first; when the entry is not genuine, or 0 comes back though there are entries,
 * rebuild. */
uint32_t tl_index_resume(const tl_index *index, uint32_t limit_position, tl_index_progress *progress);

/* Drops and zeroes what was written for batches at or past `limit_position`, and a final time entry: both indexes are
 * then as appends left them before that batch. */
void tl_index_truncate(tl_index *index, uint32_t limit_position);

/* --- searching --- */

/* The greatest entry <= offset; {-1, 0} when there is none or it points at or past `limit_position`. */
tl_index_entry tl_index_lookup(const tl_index *index, int64_t offset, uint32_t limit_position);

/* The position to start from for each offset, in any order (ascending ones are faster); 0 where no entry fits. A batch
 * starting there with a base offset <= target proves it right. `positions` may be the array `offsets`. */
void tl_index_lookup_many(const tl_index *index, const int64_t *offsets, size_t n, uint32_t limit_position,
                          int64_t *positions);

/* The same over bare bytes, without a limit. */
void tl_index_lookup_raw(const uint8_t *entries, size_t count, int64_t base_offset, const int64_t *offsets, size_t n,
                         int64_t *positions);

/* The greatest entry <= timestamp: the first record at or past the timestamp is in the batch ending at `offset` or
 * behind it, so look that offset up and scan. {-1, base offset}: from the base. */
tl_index_time tl_index_lookup_time(const tl_index *index, int64_t timestamp_ms);
void tl_index_lookup_times(const tl_index *index, const int64_t *timestamps_ms, size_t n, tl_index_time *found);

/* --- checking; err->what names the index, err->position is the byte position of the entry in its file --- */

/* At open, over a whole file: Kafka's rules, and that it does not end in an unused slot, because zeros behind the
 * entries (a preallocated file that was never trimmed) mislead a search. TL_ECORRUPT: rebuild. */
int tl_index_sanity(const uint8_t *bytes, size_t size_bytes, tl_error *err);
int tl_index_sanity_time(const uint8_t *bytes, size_t size_bytes, tl_error *err);

/* Every entry of both indexes: above the one before and inside the segment. */
int tl_index_verify(const tl_index *index, uint32_t limit_position, int64_t end_offset, tl_error *err);

/* Compares the entries with the log: start from a zeroed tl_index_check, feed every batch of the segment in order, then
 * ask whether entries are left that no batch explained. */
typedef struct tl_index_check {
    uint32_t offset_at, time_at;        /* the next entry to explain */
} tl_index_check;

int tl_index_check_step(const tl_index *index, tl_index_check *check, uint32_t position, const tl_batch *batch,
                        tl_error *err);
int tl_index_check_end(const tl_index *index, const tl_index_check *check, tl_error *err);

#endif
