/* How is a partition appended to, read, synced and trimmed?
 *
 * Imports store.h, batch.h, base.h. Every function may be called by many threads of many processes at once; what a call
 * locks it unlocks before it returns. Calls that may block or make system calls say so: callers release the GIL first. */
#ifndef TIDELOG_LOG_H
#define TIDELOG_LOG_H

#include "tidelog/batch.h"
#include "tidelog/store.h"

/* Bytes and the records in them; positions in records are from `bytes`. Zero it before use, free with tl_chunk_free;
 * tl_chunk_clear keeps the memory. */
typedef struct tl_chunk {
    uint8_t *bytes;
    size_t used, room;
    tl_record *records;
    size_t count, capacity;
} tl_chunk;
/* Appends the unpacked payload of a compressed batch to chunk->bytes (through tl_chunk_reserve). */
typedef int (*tl_unpack)(void *context, tl_chunk *chunk, const tl_batch *batch, size_t payload_at, size_t payload_bytes,
                         tl_error *err);

typedef struct tl_appended {
    int64_t base_offset, next_offset; /* offsets are dense from the first message to the last */
    uint64_t tail;                    /* to be given to tl_partition_sync */
    /* Only of appends with a producer or ids: */
    size_t answered;                  /* messages, from the first on, that are in the log now; after an error perhaps not all */
    size_t duplicates;                /* of these: were in it before */
    int32_t sequence;                 /* of the first message; -1: none was given yet */
} tl_appended;

struct tl_producer;
struct tl_transaction;
struct tl_message_id;

/* As whom to append. */
typedef struct tl_producing {
    const struct tl_producer *producer;       /* NULL: a client's own batch, as `encoded` says */
    struct tl_transaction *transaction;       /* NULL: not in a transaction */
    int16_t epoch;                            /* of the transaction; else the one in force is taken */
    int32_t sequence;                         /* of the first message, where it is sent again; -1: the next one */
} tl_producing;

/* What to append; exactly one of messages, rows, encoded is set. */
typedef struct tl_append {
    const tl_message *messages;
    const tl_rows *rows;
    uint8_t *encoded; /* one ready batch with a right CRC; its base offset is patched in place */
    size_t encoded_bytes;
    size_t first, count;       /* which messages or rows; for encoded: how many messages it holds */
    int64_t max_timestamp_ms;  /* of `encoded` */
    size_t bound_bytes;        /* of messages: tl_batch_bound of their bytes, if the caller has summed them; 0: not */
    const tl_batch_spec *spec; /* NULL: tl_batch_plain */
    /* Either of these two asks for checks (append_checked.c), the plain path has none: */
    const tl_producing *producing;
    const struct tl_message_id *ids; /* one per message (`first` is 0): those seen before are left out. With `encoded`, where
                                      * nothing can be left out, all are then: *offsets and *duplicates say why */
    tl_unpack unpack;                /* of compressed batches that others appended, with `unpack_context`; NULL: none can be */
    void *unpack_context;
    bool no_ids;                     /* of `encoded`: a message without an id in `ids` has no header message-id either */
    /* With checks, where not NULL, one per message: offsets (of a duplicate: the first one's), and whether it was one. Of
     * `encoded` with ids, a repetition within the batch gets TL_DUPLICATE_OF_THIS_CALL and the number of the first. */
    int64_t *offsets;
    uint8_t *duplicates;
} tl_append;

enum { TL_DUPLICATE = 1, TL_DUPLICATE_OF_THIS_CALL = 2 };

enum {
    TL_APPEND_TRY =
        1, /* no waiting and no system call: TL_EAGAIN when one would be needed. For callers that hold the GIL */
    TL_APPEND_THROUGH_FILE = 2 /* pwrite instead of stores to the map: cheaper when a sync follows */
};

/* Appends everything or nothing that is visible: several batches may be published one by one, so after an error
 * result->next_offset - result->base_offset messages are in (0 with TL_EAGAIN). */
int tl_partition_append(tl_partition *partition, const tl_append *what, unsigned flags, tl_appended *result,
                        tl_error *err);
/* The path of `send`. */
int tl_partition_append_one(tl_partition *partition, const tl_message *message, unsigned flags, tl_appended *result,
                            tl_error *err);

/* What the partition knows an id by, and whatever is needed to look for it is on its way: the earlier the better. */
void tl_partition_expect_id(tl_partition *partition, const void *id, size_t bytes, struct tl_message_id *out);
/* The path of `send` with an id, which never waits. `now_ms`: of the monotonic clock, -1: it is asked. TL_OK: it is in
 * (result->duplicates 1: it was in before, and result->base_offset is where). TL_EAGAIN: this needs tl_partition_append, with
 * or without waiting. */
int tl_partition_append_one_id(tl_partition *partition, const tl_message *message, const struct tl_message_id *id,
                               int64_t now_ms, tl_appended *result, tl_error *err);
/* The path of `send` as a named producer, which never waits: the next message of its name, without headers, in no
 * transaction. TL_EAGAIN: this needs tl_partition_append. */
int tl_partition_append_one_named(tl_partition *partition, const tl_message *message, const struct tl_producer *producer,
                                  tl_appended *result, tl_error *err);

/* Whether somebody holds the append lock now: tells what TL_EAGAIN of a try was about. */
bool tl_partition_is_locked(const tl_partition *partition);

/* Blocks until everything before `tail` is on disk (group commit among threads and processes). */
int tl_partition_sync(tl_partition *partition, uint64_t tail, int64_t timeout_ns, tl_error *err);
bool tl_partition_is_synced(const tl_partition *partition, uint64_t tail);

typedef struct tl_bounds {
    int64_t log_start, log_end;
    uint64_t tail;
} tl_bounds;
int tl_partition_bounds(tl_partition *partition, tl_bounds *out, tl_error *err); /* no system call */
uint64_t tl_partition_tail(const tl_partition *partition);

/* --- reading: copies whole batches out of the maps, checking each CRC in the same pass, so that nothing a caller holds
 * depends on a map, a file that retention deletes, or another process. --- */

/* Where a reader is. Zero it and set `offset`; the rest is a cache. */
typedef struct tl_cursor {
    int64_t offset;       /* of the next message wanted */
    uint64_t place;       /* of the batch that holds it or comes next; valid when `located` */
    int64_t batch_offset; /* base offset expected there */
    bool located;
} tl_cursor;

void tl_chunk_clear(tl_chunk *chunk);
void tl_chunk_free(tl_chunk *chunk);
int tl_chunk_reserve(tl_chunk *chunk, size_t more_bytes, size_t more_records, tl_error *err);

enum {
    TL_READ_UNCOMMITTED = 1,
    TL_READ_TRY = 2 /* no system call, at most 64 KiB: TL_EAGAIN when more would be needed */
};

/* What ended a read early. */
typedef struct tl_read_end {
    bool compressed; /* the batch at chunk->bytes + batch_at is compressed (header included) */
    size_t batch_at;
    tl_batch batch;
    int64_t skipped_to; /* after TL_ECORRUPT: the offset at which reading may go on, -1: none known */
} tl_read_end;

/* Appends to `chunk` the records from cursor->offset on, whole batches, until it holds at least max_records or max_bytes
 * more than before (at least one batch), or the end of the log. Moves the cursor. Control batches and empty batches are
 * passed over. A compressed batch ends the read: it is copied whole, cursor already moved behind it, end->compressed set;
 * the caller unpacks it and calls tl_chunk_add.
 * TL_OK also when there was nothing (chunk->count unchanged); TL_ERANGE when cursor->offset is below the log start or
 * past the log end; TL_ECORRUPT with file and position. */
int tl_partition_read(tl_partition *partition, tl_cursor *cursor, tl_chunk *chunk, size_t max_records, size_t max_bytes,
                      unsigned flags, tl_read_end *end, tl_error *err);

/* Adds the records (offset >= from_offset) of an unpacked payload, which stands at chunk->bytes[at, at + bytes). */
int tl_chunk_add(tl_chunk *chunk, size_t at, size_t bytes, const tl_batch *batch, int64_t from_offset, tl_error *err);

/* Column read: values of exactly row_bytes, back to back, as many whole batches as fit `room` rows (at least the records
 * wanted of one batch must fit: *need says how much room that takes when it answers TL_ETOOLARGE). Any of offsets,
 * timestamps_ms may be NULL. Keys are appended to `keys` (records with key and offset only) when it is not NULL.
 * A compressed batch ends the read as above, copied to `keys`->bytes. */
int tl_partition_read_rows(tl_partition *partition, tl_cursor *cursor, size_t row_bytes, uint8_t *rows, size_t room,
                           int64_t *offsets, int64_t *timestamps_ms, tl_chunk *keys, size_t *taken, size_t *need,
                           unsigned flags, tl_read_end *end, tl_error *err);

/* Random access: the records at `offsets` (any order; sorted is fast), one record each, in order. An offset without a
 * message (a gap, a control record) or outside the log is TL_ERANGE, *failed says which. */
int tl_partition_read_at(tl_partition *partition, const int64_t *offsets, size_t count, tl_chunk *chunk, unsigned flags,
                         tl_unpack unpack, void *context, size_t *failed, tl_error *err);

/* The first offset whose timestamp is >= each given one; log end where there is none. */
int tl_partition_find(tl_partition *partition, const int64_t *timestamps_ms, size_t count, int64_t *offsets,
                      tl_unpack unpack, void *context, tl_error *err);

/* Messages from an offset to where a reader with these flags stops, of those that it would see; gaps, empty batches and
 * control batches are none. */
int tl_partition_count(tl_partition *partition, int64_t from, unsigned flags, int64_t *messages, tl_error *err);

/* Deletes whole segments below `before` and moves the log start to it. */
int tl_partition_trim(tl_partition *partition, int64_t before, tl_error *err);
/* What retention says now; `now_ms` wall clock. Returns the number of segments deleted. */
int tl_partition_retain(tl_partition *partition, int64_t now_ms, tl_error *err);

typedef struct tl_partition_info {
    int64_t log_start, log_end, max_timestamp_ms, lease;
    uint64_t bytes, allocated_bytes, tail, synced;
    uint32_t segments, first_ordinal;
    int failed; /* errno of a failed sync, 0: none */
} tl_partition_info;
int tl_partition_describe(tl_partition *partition, tl_partition_info *out, tl_error *err);

/* Walks everything: CRCs, continuity, indexes, seals. For every finding it calls report(context, file, position, what,
 * first_offset, next_offset); progress(context, bytes) as it goes. Read-only. Returns the number of findings. */
typedef struct tl_check_report {
    void *context;
    void (*finding)(void *context, const char *file, int64_t position, const char *what, int64_t first_offset,
                    int64_t next_offset);
    void (*progress)(void *context, uint64_t bytes, uint64_t batches, uint64_t messages);
} tl_check_report;
int tl_partition_check(tl_partition *partition, const tl_check_report *report, tl_error *err);
/* The same for what belongs to the store as a whole: both checkpoint files and the table of offsets. */
int tl_store_check(tl_store *store, const tl_check_report *report, tl_error *err);

#endif
