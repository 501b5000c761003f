/* How do messages become a Kafka RecordBatch v2, and a batch messages again?
 *
 * Imports record.h, crc32c.h, varint.h, base.h. Callable from any thread: pure functions over the caller's memory.
 * Layout and limits: docs/format.md (Kafka's DefaultRecordBatch and DefaultRecord, magic 2).
 * Decoding treats every byte as hostile: bounds first, counts bounded by the bytes that remain. */
#ifndef TIDELOG_BATCH_H
#define TIDELOG_BATCH_H

#include "tidelog/record.h"

#define TL_BATCH_HEADER_BYTES 61
#define TL_BATCH_PREFIX_BYTES 12      /* base offset and length: what stands before the counted bytes */
#define TL_BATCH_CRC_FROM 21          /* the CRC covers from here to the end */
#define TL_BATCH_MAX_BYTES (1u << 20) /* target limit; a single larger record makes a larger batch */

#define TL_ATTR_CODEC 0x07u
#define TL_ATTR_LOG_APPEND_TIME 0x08u
#define TL_ATTR_TRANSACTIONAL 0x10u
#define TL_ATTR_CONTROL 0x20u
#define TL_ATTR_DELETE_HORIZON 0x40u

/* One message to encode. `headers` is a ready block: varint count, then the headers; NULL: none. */
typedef struct tl_message {
    const uint8_t *key, *value, *headers;
    int32_t key_bytes, value_bytes; /* -1: null */
    uint32_t headers_bytes;
    uint32_t reserved;
    int64_t timestamp_ms;
} tl_message;

/* Fixed-width rows: the value is the row, the key `key_bytes` of it from `key_at` (key_bytes 0: no key). */
typedef struct tl_rows {
    const uint8_t *rows;
    size_t stride, row_bytes, key_at, key_bytes;
    bool strip_key;       /* trailing NULs do not belong to the key */
    int64_t timestamp_ms; /* of every row */
    const uint32_t *pick; /* row numbers to take, in order; NULL: 0, 1, 2, ... */
} tl_rows;

/* What a batch carries besides records. Plain batches: tl_batch_plain. */
typedef struct tl_batch_spec {
    int64_t producer_id;
    int32_t base_sequence;
    int16_t producer_epoch;
    uint16_t attributes;
} tl_batch_spec;

extern const tl_batch_spec tl_batch_plain; /* -1, -1, -1, 0 */

/* --- encoding; base offset and leader epoch are written as given and 0, the CRC does not cover them --- */

/* No `count` messages whose keys, values and headers have `payload_bytes` together make a larger batch. */
TL_INLINE size_t tl_batch_bound(size_t count, size_t payload_bytes) {
    return TL_BATCH_HEADER_BYTES + 36 * count + payload_bytes;
}

/* How many of the first `count` messages fit a batch of `limit` bytes (at least one), and its exact size, which is over
 * the limit when the first message alone is. What is measured and then encoded must not change in between where lengths
 * follow from it: keys of rows with strip_key. */
size_t tl_batch_measure(const tl_message *messages, size_t count, size_t limit, size_t *bytes);
size_t tl_batch_measure_rows(const tl_rows *rows, size_t first, size_t count, size_t limit, size_t *bytes);

/* Writes exactly the measured bytes and returns them; reports the largest timestamp. */
size_t tl_batch_encode(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_message *messages,
                       size_t count, int64_t *max_timestamp_ms);
size_t tl_batch_encode_rows(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_rows *rows,
                            size_t first, size_t count);

/* How one message stands in a batch of its own: found before any lock is taken, and used up by one of the three below. */
typedef struct tl_frame {
    size_t bytes;         /* of the batch */
    uint64_t front;       /* what stands before the key, or before the value where there is no key; its first byte lowest */
    uint64_t middle;      /* what stands between key and value */
    uint32_t front_bytes; /* 0: something is null or long, and nothing is prepared */
    uint32_t middle_bytes;
} tl_frame;

/* Up to here every length field takes two bytes at most, so that what stands before a value fits a word. */
#define TL_FRAME_BODY_BYTES 4000
/* A word is stored where the middle stands: so many bytes of value, and the count of headers, fill it up. */
#define TL_FRAME_KEYED_VALUE_BYTES 6

TL_INLINE size_t tl_headers_bytes(const tl_message *m) { return m->headers == NULL ? 0 : m->headers_bytes; }

tl_frame tl_batch_frame_other(const tl_message *m); /* with a key, or null, or long */

/* What stands there is put together in registers: bytes stored one by one could not be loaded as a word at once. */
TL_INLINE tl_frame tl_batch_frame(const tl_message *m) {
    size_t headers_bytes = tl_headers_bytes(m);
    if (TL_UNLIKELY(m->key_bytes >= 0 || m->value_bytes < 1 || (size_t)m->value_bytes + headers_bytes > TL_FRAME_BODY_BYTES - 8 ||
                    (headers_bytes > 0 && headers_bytes < 8)))
        return tl_batch_frame_other(m);
    /* length | attributes 0 | timestamp delta 0 | offset delta 0 | key length -1 | value length */
    unsigned first, second;
    uint64_t value_length = tl_varint_word((uint32_t)m->value_bytes, &second);
    uint32_t body_bytes = 4 + second + (uint32_t)m->value_bytes + (headers_bytes > 0 ? (uint32_t)headers_bytes : 1);
    uint64_t length = tl_varint_word(body_bytes, &first);
    return (tl_frame){.bytes = TL_BATCH_HEADER_BYTES + first + body_bytes,
                      .front = length | (uint64_t)1 << (8 * first + 24) | value_length << (8 * first + 32),
                      .front_bytes = first + 4 + second};
}

/* One message, the path of `send`: the bytes that tl_batch_encode with count 1 writes. `frame` is the message's. */
void tl_batch_encode_one(uint8_t *out, int64_t base_offset, const tl_message *message, const tl_frame *frame);
/* The same but for the magic, which stays 0: nobody takes this for a batch before tl_batch_seal. So it can be written before
 * it is known whether the message is to be sent. */
void tl_batch_encode_unsealed(uint8_t *out, int64_t base_offset, const tl_message *message, const tl_frame *frame);
TL_INLINE void tl_batch_seal(uint8_t *out) { out[16] = 2; }
/* The same as one of a producer. */
void tl_batch_encode_signed(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_message *message,
                            const tl_frame *frame);

/* The records of a batch without its header, to be compressed elsewhere; then the header over the compressed bytes,
 * which must already stand at out + TL_BATCH_HEADER_BYTES. Both return bytes written in total. */
size_t tl_batch_encode_records(uint8_t *out, const tl_message *messages, size_t count);
size_t tl_batch_finish(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, size_t payload_bytes,
                       int32_t count, int64_t base_timestamp_ms, int64_t max_timestamp_ms);

/* A batch without records over [base_offset, last_offset]; exactly TL_BATCH_HEADER_BYTES. (last - base) < 2^31. */
size_t tl_batch_encode_empty(uint8_t *out, int64_t base_offset, int64_t last_offset, const tl_batch_spec *spec);

/* A transaction marker (kind 0 abort, 1 commit); 78 bytes. */
size_t tl_batch_encode_marker(uint8_t *out, int64_t base_offset, int64_t producer_id, int16_t producer_epoch, int kind,
                              int32_t coordinator_epoch, int64_t timestamp_ms);

TL_INLINE void tl_batch_set_base_offset(uint8_t *batch, int64_t base_offset) {
    tl_put_be64(batch, (uint64_t)base_offset);
}

/* --- decoding --- */

typedef struct tl_batch {
    int64_t base_offset, base_timestamp_ms, max_timestamp_ms, producer_id;
    uint32_t bytes; /* the whole batch, prefix included */
    uint32_t crc;
    int32_t leader_epoch, last_offset_delta, base_sequence, count;
    int16_t producer_epoch;
    uint16_t attributes;
} tl_batch;

/* Reads the header. Checks: enough bytes for the whole batch, magic 2, length in [49, available - 12], unknown
 * attribute bits zero, known codec, 0 <= base offset, no offset overflow, 0 <= count <= last offset delta + 1. When not
 * compressed also: count bounded by the payload (a record needs 7 bytes), no payload without records. Control batches
 * are uncompressed and have at most one record (compaction may take it). A compressed batch's count is bounded by its
 * offsets only: compare it with the decompressed bytes before allocating for it.
 * TL_ECORRUPT with err->position relative to `p` and a sentence; the CRC is not checked. */
int tl_batch_parse(const uint8_t *p, size_t available, tl_batch *out, tl_error *err);

/* Whether the CRC of a parsed batch is right. */
bool tl_batch_crc_ok(const uint8_t *p, const tl_batch *batch);

/* Copies a parsed batch and checks the CRC of the bytes that arrived in `to`, in one pass. */
bool tl_batch_copy_checked(uint8_t *to, const uint8_t *p, const tl_batch *batch);

TL_INLINE int64_t tl_batch_last_offset(const tl_batch *b) { return b->base_offset + b->last_offset_delta; }
TL_INLINE int64_t tl_batch_next_offset(const tl_batch *b) { return tl_batch_last_offset(b) + 1; }
TL_INLINE unsigned tl_batch_codec(const tl_batch *b) { return b->attributes & TL_ATTR_CODEC; }
TL_INLINE bool tl_batch_is_control(const tl_batch *b) { return (b->attributes & TL_ATTR_CONTROL) != 0; }
TL_INLINE bool tl_batch_is_transactional(const tl_batch *b) { return (b->attributes & TL_ATTR_TRANSACTIONAL) != 0; }

/* Where a decoded record stands; `_at` are positions from the `base` given to the decoder. */
typedef struct tl_record {
    int64_t offset, timestamp_ms;
    uint32_t value_at, key_at, headers_at;
    int32_t value_bytes, key_bytes; /* -1: null */
    uint32_t headers_bytes;         /* of the block: varint count and headers; 0 when there are none */
} tl_record;

/* Decodes all records of a batch whose (uncompressed) payload is base[from, from + bytes). out has room for
 * batch->count. Checks everything: lengths, offset deltas strictly increasing and <= last offset delta, attributes 0,
 * headers well formed (names are not null), the payload used up exactly. TL_ECORRUPT: err->position is relative to
 * base. LOG_APPEND_TIME gives every record the batch's max timestamp; with DELETE_HORIZON base timestamp deltas still
 * apply. */
int tl_batch_records(const uint8_t *base, size_t from, size_t bytes, const tl_batch *batch, tl_record *out,
                     tl_error *err);

/* Reads one header of a block at *at (first call: *at is the block's position): 1 and advances, 0 at the end, or
 * TL_ECORRUPT. *left is the number of headers still to come, -1 before the first call. */
int tl_header_next(const uint8_t *base, size_t *at, size_t end, int32_t *left, uint32_t *name_at, uint32_t *name_bytes,
                   uint32_t *value_at, int32_t *value_bytes);

/* Column read: values of exactly `row_bytes` go to `rows` back to back, CRC checked in the same pass over `p` (a
 * parsed, uncompressed, non-control batch of map bytes). Skips records below `from_offset`, whatever their values are.
 * offsets and timestamps may be NULL; all have room for batch->count. *taken: rows written. keys: NULL, or where to
 * note each record's key as position from `p` and length (key_bytes -1: null) so that the caller can copy them.
 * TL_ECORRUPT also when a value has another length (err->what says so, err->position its place). Nothing may be used
 * when it fails. */
typedef struct tl_key_place {
    uint32_t at;
    int32_t bytes;
} tl_key_place;
int tl_batch_gather(const uint8_t *p, const tl_batch *batch, int64_t from_offset, size_t row_bytes, uint8_t *rows,
                    int64_t *offsets, int64_t *timestamps_ms, tl_key_place *keys, size_t *taken, tl_error *err);

#endif
