/* How do messages become a Kafka RecordBatch v2?
 *
 * Imports batch.h, record.h, crc32c.h, murmur2.h (what of a row is its key). Callable from any thread: pure functions
 * over the caller's memory.
 *
 * The CRC covers what was stored, never the source, so a source that another thread changes cannot make a wrong batch.
 * Small records are written first and summed a few KiB at a time, while L1 still holds them: a checksum call per record
 * would cost more than the record. Large values are copied and summed in one pass. */
#include "tidelog/batch.h"

#include "tidelog/crc32c.h"
#include "tidelog/murmur2.h"
#include "tidelog/record.h"

#define MARKER_BYTES 78
#define FETCH_AHEAD_BYTES 4096 /* what the thread that makes pages ready has zeroed lies in its core's cache: 100 ns away */

const tl_batch_spec tl_batch_plain = {.producer_id = -1, .base_sequence = -1, .producer_epoch = -1, .attributes = 0};

/* What the CRC covers of a header, 40 bytes, put together in registers: fields stored one by one could not be loaded as words
 * without waiting for the stores. */
typedef struct header_words {
    uint64_t at[5];
} header_words;

#define HEADER_SUMMED_BYTES (TL_BATCH_HEADER_BYTES - TL_BATCH_CRC_FROM)

TL_INLINE header_words words_of(const tl_batch_spec *spec, int32_t last_offset_delta, int64_t base_timestamp_ms,
                                int64_t max_timestamp_ms, int32_t count) {
    /* attributes 2 | last offset delta 4 | base timestamp 8 | max timestamp 8 | producer id 8 | epoch 2 | sequence 4 | count 4 */
    uint64_t base = __builtin_bswap64((uint64_t)base_timestamp_ms), max = __builtin_bswap64((uint64_t)max_timestamp_ms);
    uint64_t producer = __builtin_bswap64((uint64_t)spec->producer_id);
    uint64_t delta = __builtin_bswap32((uint32_t)last_offset_delta), epoch = __builtin_bswap16((uint16_t)spec->producer_epoch);
    uint64_t sequence = __builtin_bswap32((uint32_t)spec->base_sequence), records = __builtin_bswap32((uint32_t)count);
    return (header_words){{__builtin_bswap16(spec->attributes) | delta << 16 | base << 48, base >> 16 | max << 48,
                           max >> 16 | producer << 48, producer >> 16 | epoch << 48, sequence | records << 32}};
}

/* Everything but the CRC. */
TL_INLINE header_words put_header(uint8_t *out, int64_t base_offset, size_t batch_bytes, const tl_batch_spec *spec,
                                  int32_t last_offset_delta, int64_t base_timestamp_ms, int64_t max_timestamp_ms,
                                  int32_t count) {
    tl_put_be64(out, (uint64_t)base_offset);
    tl_put_be32(out + 8, (uint32_t)(batch_bytes - TL_BATCH_PREFIX_BYTES));
    tl_put_be32(out + 12, 0);
    out[16] = 2;
    const header_words words = words_of(spec, last_offset_delta, base_timestamp_ms, max_timestamp_ms, count);
    /* One by one: a loop becomes moves of pairs, through memory, which wait for their halves. */
    tl_put_le64(out + TL_BATCH_CRC_FROM, words.at[0]);
    tl_put_le64(out + TL_BATCH_CRC_FROM + 8, words.at[1]);
    tl_put_le64(out + TL_BATCH_CRC_FROM + 16, words.at[2]);
    tl_put_le64(out + TL_BATCH_CRC_FROM + 24, words.at[3]);
    tl_put_le64(out + TL_BATCH_CRC_FROM + 32, words.at[4]);
    return words;
}

TL_INLINE void put_crc(uint8_t *out, uint32_t crc) { tl_put_be32(out + 17, crc); }

TL_INLINE void sum_all(uint8_t *out, size_t bytes) {
    put_crc(out, tl_crc32c(0, out + TL_BATCH_CRC_FROM, bytes - TL_BATCH_CRC_FROM));
}

/* Bytes from `from` to the writer's cursor are written and not yet part of crc. */
typedef struct running_sum {
    const uint8_t *from;
    uint32_t crc;
} running_sum;

TL_INLINE void sum_up_to(running_sum *sum, const uint8_t *p) {
    sum->crc = tl_crc32c(sum->crc, sum->from, (size_t)(p - sum->from));
    sum->from = p;
}

TL_INLINE uint8_t *put_value(uint8_t *p, const uint8_t *value, size_t bytes, running_sum *sum) {
    if (TL_UNLIKELY(sum != NULL && bytes >= TL_FUSE_BYTES)) {
        sum_up_to(sum, p);
        sum->crc = tl_crc32c_copy(p, value, bytes, sum->crc);
        sum->from = p + bytes;
    } else {
        tl_copy_short(p, value, bytes);
    }
    return p + bytes;
}

TL_INLINE size_t body_bytes_of(const tl_message *m, int64_t base_timestamp_ms, int64_t offset_delta) {
    return tl_record_body_bytes(tl_timestamp_delta(m->timestamp_ms, base_timestamp_ms), offset_delta, m->key_bytes,
                                m->value_bytes, tl_headers_bytes(m));
}

/* A record whose fields take two bytes at most, which are put together in words: nearly every one. The value is long enough
 * for a word to be stored where less stands. */
TL_INLINE bool is_short(const tl_message *m, uint64_t timestamp_zigzag, int64_t offset_delta, size_t headers_bytes) {
    return (uint32_t)m->value_bytes - 8 < TL_FUSE_BYTES - 8 && m->key_bytes < TL_FUSE_BYTES && timestamp_zigzag < 0x4000 &&
           offset_delta < 0x2000 && headers_bytes == 0;
}

TL_INLINE uint8_t *put_short(uint8_t *p, const tl_message *m, uint32_t timestamp_zigzag, uint32_t offset_delta) {
    unsigned length_bytes, timestamp_bytes, offset_bytes, key_bytes, value_bytes;
    uint64_t timestamp = tl_varint_zigzag_word(timestamp_zigzag, &timestamp_bytes);
    uint64_t offset = tl_varint_word(offset_delta, &offset_bytes), key = 1; /* -1 */
    uint64_t value = tl_varint_word((uint32_t)m->value_bytes, &value_bytes);
    uint32_t body_bytes = 2 + timestamp_bytes + offset_bytes + value_bytes + (uint32_t)m->value_bytes;
    key_bytes = 1;
    if (m->key_bytes >= 0) {
        key = tl_varint_word((uint32_t)m->key_bytes, &key_bytes);
        body_bytes += (uint32_t)m->key_bytes;
    }
    uint64_t length = tl_varint_word(body_bytes + key_bytes, &length_bytes);
    /* length | attributes 0 | timestamp delta | offset delta */
    tl_put_le64(p, length | timestamp << (8 * length_bytes + 8) | offset << (8 * (length_bytes + 1 + timestamp_bytes)));
    p += length_bytes + 1 + timestamp_bytes + offset_bytes;
    tl_put_le32(p, (uint32_t)key);
    p += key_bytes;
    if (m->key_bytes > 0) {
        tl_copy_short(p, m->key, (size_t)m->key_bytes);
        p += m->key_bytes;
    }
    tl_put_le32(p, (uint32_t)value);
    p += value_bytes;
    tl_copy_short(p, m->value, (size_t)m->value_bytes);
    p += m->value_bytes;
    *p = 0;
    return p + 1;
}

TL_INLINE uint8_t *put_record(uint8_t *p, const tl_message *m, int64_t base_timestamp_ms, int64_t offset_delta,
                              running_sum *sum) {
    size_t headers_bytes = tl_headers_bytes(m);
    uint64_t timestamp_zigzag = tl_zigzag(tl_timestamp_delta(m->timestamp_ms, base_timestamp_ms));
    if (TL_LIKELY(is_short(m, timestamp_zigzag, offset_delta, headers_bytes)))
        return put_short(p, m, (uint32_t)timestamp_zigzag, (uint32_t)offset_delta);
    p = tl_record_put_front(p, body_bytes_of(m, base_timestamp_ms, offset_delta),
                            tl_timestamp_delta(m->timestamp_ms, base_timestamp_ms), offset_delta, m->key, m->key_bytes,
                            m->value_bytes);
    if (m->value_bytes > 0)
        p = put_value(p, m->value, (size_t)m->value_bytes, sum);
    if (TL_LIKELY(headers_bytes == 0)) {
        *p++ = 0;
        return p;
    }
    memcpy(p, m->headers, headers_bytes);
    return p + headers_bytes;
}

/* What the next record is framed by when it differs from the one before it only in its value's bytes: values of one length without
 * keys make long runs of such records. */
typedef struct alike {
    uint64_t front, back;           /* length, attributes, timestamp delta; null key, length of the value */
    unsigned front_bytes, offset_bytes, back_bytes;
    uint32_t offset_most;           /* deltas up to this take as many bytes; 0: none is known */
    int32_t value_bytes;
    int64_t timestamp_ms;
} alike;

TL_INLINE bool is_alike(const alike *a, const tl_message *m, size_t offset_delta) {
    return m->value_bytes == a->value_bytes && m->timestamp_ms == a->timestamp_ms && m->key_bytes < 0 && tl_headers_bytes(m) == 0 &&
           offset_delta <= a->offset_most;
}

TL_INLINE uint8_t *put_alike(uint8_t *p, const alike *a, const tl_message *m, uint32_t offset_delta) {
    uint64_t offset = tl_varint_zigzag_in(2 * (uint64_t)offset_delta, a->offset_bytes);
    tl_put_le64(p, a->front | offset << 8 * a->front_bytes);
    p += a->front_bytes + a->offset_bytes;
    tl_put_le32(p, (uint32_t)a->back);
    p += a->back_bytes;
    tl_copy_short(p, m->value, (size_t)a->value_bytes);
    p += a->value_bytes;
    *p = 0;
    return p + 1;
}

static void learn(alike *a, const tl_message *m, int64_t base_timestamp_ms, int64_t offset_delta) {
    uint64_t timestamp_zigzag = tl_zigzag(tl_timestamp_delta(m->timestamp_ms, base_timestamp_ms));
    unsigned length_bytes, timestamp_bytes, value_bytes;
    if (m->key_bytes >= 0 || !is_short(m, timestamp_zigzag, offset_delta, tl_headers_bytes(m)))
        return;
    uint64_t timestamp = tl_varint_zigzag_word((uint32_t)timestamp_zigzag, &timestamp_bytes);
    a->back = 1 | tl_varint_word((uint32_t)m->value_bytes, &value_bytes) << 8;
    a->back_bytes = 1 + value_bytes;
    a->offset_bytes = offset_delta < 64 ? 1 : 2;
    uint64_t length = tl_varint_word(2 + timestamp_bytes + a->offset_bytes + a->back_bytes + (uint32_t)m->value_bytes, &length_bytes);
    a->front = length | timestamp << (8 * length_bytes + 8);
    a->front_bytes = length_bytes + 1 + timestamp_bytes;
    a->offset_most = offset_delta < 64 ? 63 : 8191;
    a->timestamp_ms = m->timestamp_ms;
}

/* A batch's length and count are int32 in its header, whatever the caller's limit is. */
TL_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

size_t tl_batch_measure(const tl_message *messages, size_t count, size_t limit, size_t *bytes) {
    size_t total = TL_BATCH_HEADER_BYTES, taken = 0;
    int64_t base_timestamp_ms = count > 0 ? messages[0].timestamp_ms : 0;
    limit = least(limit, INT32_MAX);
    count = least(count, INT32_MAX);
    for (; taken < count; taken++) {
        size_t record = tl_record_bytes(body_bytes_of(&messages[taken], base_timestamp_ms, (int64_t)taken));
        if (total + record > limit && taken > 0)
            break;
        total += record;
    }
    *bytes = total;
    return taken;
}

size_t tl_batch_encode(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_message *messages,
                       size_t count, int64_t *max_timestamp_ms) {
    uint8_t *const first = out + TL_BATCH_HEADER_BYTES;
    int64_t base_ms = messages[0].timestamp_ms, max_ms = base_ms;
    running_sum sum = {.from = first, .crc = 0};
    alike next = {.value_bytes = INT32_MIN};
    uint8_t *p = first;
    for (size_t i = 0; i < count; i++) {
        const tl_message *m = &messages[i];
        __builtin_prefetch(p + FETCH_AHEAD_BYTES, 1); /* of short records; of a long one the processor sees the direction */
        __builtin_prefetch(p + FETCH_AHEAD_BYTES + 64, 1);
        if (TL_LIKELY(is_alike(&next, m, i))) {
            p = put_alike(p, &next, m, (uint32_t)i);
        } else {
            max_ms = m->timestamp_ms > max_ms ? m->timestamp_ms : max_ms;
            p = put_record(p, m, base_ms, (int64_t)i, &sum);
            next.offset_most = 0;
            if (m->value_bytes == next.value_bytes)
                learn(&next, m, base_ms, (int64_t)i);
            next.value_bytes = m->value_bytes;
        }
        if (TL_UNLIKELY(p - sum.from >= TL_SUM_BYTES))
            sum_up_to(&sum, p);
    }
    size_t bytes = (size_t)(p - out);
    const header_words words = put_header(out, base_offset, bytes, spec, (int32_t)(count - 1), base_ms, max_ms, (int32_t)count);
    if (sum.from == first) {
        sum_all(out, bytes);
    } else { /* the largest timestamp is known only now, so the header is summed last and put in front */
        sum_up_to(&sum, p);
        uint32_t header = tl_crc32c_words(0, words.at, HEADER_SUMMED_BYTES);
        put_crc(out, tl_crc32c_combine(header, sum.crc, (uint64_t)(p - first)));
    }
    *max_timestamp_ms = max_ms;
    return bytes;
}

/* The checksum of a plain one-message batch's header depends on its timestamp alone: that of the last one is kept. */
static _Thread_local struct {
    int64_t timestamp_ms;
    uint32_t crc;
    bool known;
} header_sum __attribute__((tls_model("initial-exec")));

TL_INLINE uint32_t sum_header(const header_words *words, int64_t timestamp_ms) {
    if (TL_UNLIKELY(header_sum.timestamp_ms != timestamp_ms || !header_sum.known)) {
        header_sum.crc = tl_crc32c_words(0, words->at, HEADER_SUMMED_BYTES);
        header_sum.timestamp_ms = timestamp_ms;
        header_sum.known = true;
    }
    return header_sum.crc;
}

tl_frame tl_batch_frame_other(const tl_message *m) {
    size_t headers_bytes = tl_headers_bytes(m);
    if (m->key_bytes < 0 || m->value_bytes < TL_FRAME_KEYED_VALUE_BYTES || (headers_bytes > 0 && headers_bytes < 8) ||
        (size_t)m->key_bytes + (size_t)m->value_bytes + headers_bytes > TL_FRAME_BODY_BYTES - 8)
        return (tl_frame){.bytes = TL_BATCH_HEADER_BYTES + tl_record_bytes(tl_record_body_bytes(0, 0, m->key_bytes, m->value_bytes,
                                                                                               headers_bytes))};
    /* length | attributes 0 | timestamp delta 0 | offset delta 0 | key length | key | value length */
    unsigned first, second, third;
    uint64_t key_length = tl_varint_word((uint32_t)m->key_bytes, &second);
    uint64_t value_length = tl_varint_word((uint32_t)m->value_bytes, &third);
    uint32_t body_bytes = 3 + second + (uint32_t)m->key_bytes + third + (uint32_t)m->value_bytes +
                          (headers_bytes > 0 ? (uint32_t)headers_bytes : 1);
    uint64_t length = tl_varint_word(body_bytes, &first);
    return (tl_frame){.bytes = TL_BATCH_HEADER_BYTES + first + body_bytes,
                      .front = length | key_length << (8 * first + 24),
                      .front_bytes = first + 3 + second,
                      .middle = value_length,
                      .middle_bytes = third};
}

TL_INLINE void encode_framed(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_message *m,
                             const tl_frame *frame, bool plain, bool sealed) {
    if (TL_UNLIKELY(frame->front_bytes == 0 && sealed)) {
        int64_t newest_ms;
        (void)tl_batch_encode(out, base_offset, spec, m, 1, &newest_ms);
        return;
    }
    size_t headers_bytes = tl_headers_bytes(m);
    const header_words words = put_header(out, base_offset, frame->bytes, spec, 0, m->timestamp_ms, m->timestamp_ms, 1);
    if (!sealed)
        out[16] = 0; /* before the CRC makes a batch of it */
    if (TL_UNLIKELY(frame->front_bytes == 0)) {
        (void)put_record(out + TL_BATCH_HEADER_BYTES, m, m->timestamp_ms, 0, NULL);
        sum_all(out, frame->bytes);
        return;
    }
    uint32_t crc = plain ? sum_header(&words, m->timestamp_ms) : tl_crc32c_words(0, words.at, HEADER_SUMMED_BYTES);
    uint8_t *p = out + TL_BATCH_HEADER_BYTES;
    uint64_t front = frame->front;
    size_t front_bytes = frame->front_bytes;
    if (frame->middle_bytes != 0) {
        crc = tl_crc32c_piece(crc, p, front, front_bytes, m->key, (size_t)m->key_bytes, 0);
        p += front_bytes + (size_t)m->key_bytes;
        front = frame->middle;
        front_bytes = frame->middle_bytes;
    }
    crc = tl_crc32c_piece(crc, p, front, front_bytes, m->value, (size_t)m->value_bytes, headers_bytes == 0);
    if (headers_bytes > 0)
        crc = tl_crc32c_copy(p + front_bytes + m->value_bytes, m->headers, headers_bytes, crc);
    put_crc(out, crc);
}

void tl_batch_encode_one(uint8_t *out, int64_t base_offset, const tl_message *m, const tl_frame *frame) {
    encode_framed(out, base_offset, &tl_batch_plain, m, frame, true, true);
}

void tl_batch_encode_unsealed(uint8_t *out, int64_t base_offset, const tl_message *m, const tl_frame *frame) {
    encode_framed(out, base_offset, &tl_batch_plain, m, frame, true, false);
}

void tl_batch_encode_signed(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_message *m, const tl_frame *frame) {
    encode_framed(out, base_offset, spec, m, frame, false, true);
}

size_t tl_batch_encode_records(uint8_t *out, const tl_message *messages, size_t count) {
    uint8_t *p = out;
    for (size_t i = 0; i < count; i++)
        p = put_record(p, &messages[i], messages[0].timestamp_ms, (int64_t)i, NULL);
    return (size_t)(p - out);
}

size_t tl_batch_finish(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, size_t payload_bytes,
                       int32_t count, int64_t base_timestamp_ms, int64_t max_timestamp_ms) {
    size_t bytes = TL_BATCH_HEADER_BYTES + payload_bytes;
    put_header(out, base_offset, bytes, spec, count - 1, base_timestamp_ms, max_timestamp_ms, count);
    sum_all(out, bytes);
    return bytes;
}

size_t tl_batch_encode_empty(uint8_t *out, int64_t base_offset, int64_t last_offset, const tl_batch_spec *spec) {
    put_header(out, base_offset, TL_BATCH_HEADER_BYTES, spec, (int32_t)(last_offset - base_offset), -1, -1, 0);
    sum_all(out, TL_BATCH_HEADER_BYTES);
    return TL_BATCH_HEADER_BYTES;
}

size_t tl_batch_encode_marker(uint8_t *out, int64_t base_offset, int64_t producer_id, int16_t producer_epoch, int kind,
                              int32_t coordinator_epoch, int64_t timestamp_ms) {
    uint8_t key[4], value[6];
    tl_put_be16(key, 0); /* version */
    tl_put_be16(key + 2, (uint16_t)kind);
    tl_put_be16(value, 0); /* version */
    tl_put_be32(value + 2, (uint32_t)coordinator_epoch);
    tl_message marker = {.key = key, .value = value, .key_bytes = 4, .value_bytes = 6, .timestamp_ms = timestamp_ms};
    tl_batch_spec spec = {.producer_id = producer_id,
                          .base_sequence = -1,
                          .producer_epoch = producer_epoch,
                          .attributes = TL_ATTR_TRANSACTIONAL | TL_ATTR_CONTROL};
    put_record(out + TL_BATCH_HEADER_BYTES, &marker, timestamp_ms, 0, NULL);
    put_header(out, base_offset, MARKER_BYTES, &spec, 0, timestamp_ms, timestamp_ms, 1);
    sum_all(out, MARKER_BYTES);
    return MARKER_BYTES;
}

/* --- fixed-width rows --- */

TL_INLINE const uint8_t *row_at(const tl_rows *rows, size_t index) {
    return rows->rows + (rows->pick == NULL ? index : rows->pick[index]) * rows->stride;
}

/* -1: the rows have no key. An all-NUL key under strip_key is an empty key, not a missing one. */
TL_INLINE int32_t key_bytes_of(const tl_rows *rows, const uint8_t *row) {
    if (rows->key_bytes == 0)
        return -1;
    return (int32_t)(rows->strip_key ? tl_stripped_bytes(row + rows->key_at, rows->key_bytes) : rows->key_bytes);
}

TL_INLINE size_t row_body_bytes(const tl_rows *rows, int32_t key_bytes, size_t offset_delta) {
    return tl_record_body_bytes(0, (int64_t)offset_delta, key_bytes, (int32_t)rows->row_bytes, 0);
}

/* Records differ only by the width of their offset delta, which changes four times in 2^31: one division per width. */
static size_t measure_equal_rows(const tl_rows *rows, size_t count, size_t limit, size_t *bytes) {
    int32_t key_bytes = rows->key_bytes == 0 ? -1 : (int32_t)rows->key_bytes;
    size_t total = TL_BATCH_HEADER_BYTES, taken = 0;
    for (unsigned width = 1; taken < count; width++) {
        size_t record = tl_record_bytes(row_body_bytes(rows, key_bytes, taken));
        size_t until = least(count, (size_t)1 << (7 * width - 1)); /* the first delta that needs one byte more */
        size_t room = total < limit ? (limit - total) / record : 0;
        size_t more = least(until - taken, room);
        if (taken == 0 && more == 0)
            more = 1;
        taken += more;
        total += more * record;
        if (taken < until)
            break;
    }
    *bytes = total;
    return taken;
}

size_t tl_batch_measure_rows(const tl_rows *rows, size_t first, size_t count, size_t limit, size_t *bytes) {
    limit = least(limit, INT32_MAX);
    count = least(count, INT32_MAX);
    if (!rows->strip_key || rows->key_bytes == 0)
        return measure_equal_rows(rows, count, limit, bytes);
    size_t total = TL_BATCH_HEADER_BYTES, taken = 0;
    for (; taken < count; taken++) {
        int32_t key_bytes = key_bytes_of(rows, row_at(rows, first + taken));
        size_t record = tl_record_bytes(row_body_bytes(rows, key_bytes, taken));
        if (total + record > limit && taken > 0)
            break;
        total += record;
    }
    *bytes = total;
    return taken;
}

/* Written once with `fused` as a constant at each of its two calls. */
TL_INLINE uint8_t *put_rows(uint8_t *p, const tl_rows *rows, size_t first, size_t count, running_sum *sum, bool fused) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = row_at(rows, first + i);
        int32_t key_bytes = key_bytes_of(rows, row);
        p = tl_record_put_front(p, row_body_bytes(rows, key_bytes, i), 0, (int64_t)i, row + rows->key_at, key_bytes,
                                (int32_t)rows->row_bytes);
        if (fused) {
            sum_up_to(sum, p);
            sum->crc = tl_crc32c_copy(p, row, rows->row_bytes, sum->crc);
            p += rows->row_bytes;
            sum->from = p;
            *p++ = 0;
        } else {
            tl_copy_short(p, row, rows->row_bytes);
            p += rows->row_bytes;
            *p++ = 0;
            if (TL_UNLIKELY(p - sum->from >= TL_SUM_BYTES))
                sum_up_to(sum, p);
        }
    }
    sum_up_to(sum, p);
    return p;
}

/* All rows have one timestamp, so the header is known but for the length, which the CRC does not cover. */
size_t tl_batch_encode_rows(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_rows *rows,
                            size_t first, size_t count) {
    put_header(out, base_offset, 0, spec, (int32_t)(count - 1), rows->timestamp_ms, rows->timestamp_ms, (int32_t)count);
    running_sum sum = {.from = out + TL_BATCH_CRC_FROM, .crc = 0};
    uint8_t *p = out + TL_BATCH_HEADER_BYTES;
    if (rows->row_bytes >= TL_FUSE_BYTES)
        p = put_rows(p, rows, first, count, &sum, true);
    else
        p = put_rows(p, rows, first, count, &sum, false);
    tl_put_be32(out + 8, (uint32_t)(p - out - TL_BATCH_PREFIX_BYTES));
    put_crc(out, sum.crc);
    return (size_t)(p - out);
}
