/* How does a Kafka RecordBatch v2 become messages again, and what is refused?
 *
 * Imports batch.h, record.h, crc32c.h. Callable from any thread: pure functions over the caller's memory.
 *
 * The bytes may lie in a map that another process writes to: each field is read once into a local and checked there,
 * so bytes that change underfoot give wrong values or TL_ECORRUPT, never an access outside the batch. */
#include "tidelog/batch.h"

#include "tidelog/crc32c.h"
#include "tidelog/record.h"

#define KNOWN_ATTRIBUTES 0x7fu
#define LAST_CODEC 4u       /* zstd */

static int corrupt(tl_error *err, const char *what, size_t position) {
    return tl_fail(err, TL_ECORRUPT, what, NULL, (int64_t)position);
}

int tl_batch_parse(const uint8_t *p, size_t available, tl_batch *out, tl_error *err) {
    if (available < TL_BATCH_HEADER_BYTES)
        return corrupt(err, "fewer bytes are left than a record batch header has", 0);
    uint32_t length = tl_be32(p + 8);
    if (length < TL_BATCH_HEADER_BYTES - TL_BATCH_PREFIX_BYTES || length > INT32_MAX)
        return corrupt(err, "a record batch's length is below 49 or negative", 8);
    if (p[16] != 2)
        return corrupt(err, "a record batch's magic is not 2 (older message formats are not read)", 16);
    if (length > available - TL_BATCH_PREFIX_BYTES)
        return corrupt(err, "a record batch is cut off: its length reaches past the bytes that are there", 8);
    tl_batch b;
    b.base_offset = (int64_t)tl_be64(p);
    b.bytes = length + TL_BATCH_PREFIX_BYTES;
    b.leader_epoch = (int32_t)tl_be32(p + 12);
    b.crc = tl_be32(p + 17);
    b.attributes = tl_be16(p + 21);
    b.last_offset_delta = (int32_t)tl_be32(p + 23);
    b.base_timestamp_ms = (int64_t)tl_be64(p + 27);
    b.max_timestamp_ms = (int64_t)tl_be64(p + 35);
    b.producer_id = (int64_t)tl_be64(p + 43);
    b.producer_epoch = (int16_t)tl_be16(p + 51);
    b.base_sequence = (int32_t)tl_be32(p + 53);
    b.count = (int32_t)tl_be32(p + 57);
    if ((b.attributes & ~KNOWN_ATTRIBUTES) != 0)
        return corrupt(err, "a record batch has unknown attribute bits", 21);
    if (tl_batch_codec(&b) > LAST_CODEC)
        return corrupt(err, "a record batch has an unknown compression codec", 21);
    if (b.last_offset_delta < 0)
        return corrupt(err, "a record batch's last offset delta is negative", 23);
    if (b.base_offset < 0 || b.base_offset >= INT64_MAX - b.last_offset_delta)
        return corrupt(err, "a record batch's offsets are negative or do not fit 63 bits", 0);
    if (b.count < 0 || b.count > (int64_t)b.last_offset_delta + 1)
        return corrupt(err, "a record batch's count is negative or larger than its range of offsets", 57);
    if (tl_batch_codec(&b) == 0) {
        uint32_t payload = b.bytes - TL_BATCH_HEADER_BYTES;
        if ((uint32_t)b.count > payload / TL_RECORD_MIN_BYTES)
            return corrupt(err, "a record batch's count is larger than its bytes allow", 57);
        if (b.count == 0 && payload != 0)
            return corrupt(err, "a record batch without records has bytes behind its header", TL_BATCH_HEADER_BYTES);
    }
    if (tl_batch_is_control(&b) && (tl_batch_codec(&b) != 0 || b.count > 1))
        return corrupt(err, "a control batch is compressed or has more than one record", 21);
    *out = b;
    return TL_OK;
}

bool tl_batch_crc_ok(const uint8_t *p, const tl_batch *batch) {
    return tl_crc32c(0, p + TL_BATCH_CRC_FROM, batch->bytes - TL_BATCH_CRC_FROM) == batch->crc;
}

bool tl_batch_copy_checked(uint8_t *to, const uint8_t *p, const tl_batch *batch) {
    memcpy(to, p, TL_BATCH_CRC_FROM);
    uint32_t crc = tl_crc32c_copy(to + TL_BATCH_CRC_FROM, p + TL_BATCH_CRC_FROM, batch->bytes - TL_BATCH_CRC_FROM, 0);
    /* What stands before the counted bytes has no CRC: it must be what was parsed, or the copy is another batch. */
    return crc == batch->crc && tl_be32(to + 17) == batch->crc && tl_be64(to) == (uint64_t)batch->base_offset &&
           tl_be32(to + 8) == batch->bytes - TL_BATCH_PREFIX_BYTES && to[16] == 2;
}

/* What a record looks like that differs from the one before it only in its value's bytes, and comes right after it: values of
 * one length without keys make long runs of such records. */
typedef struct alike {
    uint64_t front, front_mask; /* length, attributes, timestamp delta; the offset delta follows */
    uint64_t back, rest_mask;   /* null key, length of the value, where they follow it; with it */
    uint32_t front_bytes, key_from, value_from, bytes; /* bytes 0: none is known */
    uint32_t zigzag_most;       /* of the offset delta while it takes as many bytes */
} alike;

/* Only what is written as we write it: a field with more bytes than it needs would stand elsewhere. */
static void learn(alike *a, const uint8_t *p, const uint8_t *end, const tl_record_view *r) {
    uint8_t front[32];
    a->bytes = 0;
    if (r->key_bytes != -1 || r->header_count != 0 || r->value_bytes < 0 || r->value_bytes >= 8192 || r->offset_delta >= 8192 ||
        end - p < 16)
        return;
    size_t offset_bytes = tl_varint_size(r->offset_delta), value_bytes = tl_varint_size(r->value_bytes);
    const uint8_t *after = tl_record_put_front(front, tl_record_body_bytes(r->timestamp_delta, r->offset_delta, -1, r->value_bytes, 0),
                                               r->timestamp_delta, r->offset_delta, NULL, -1, r->value_bytes);
    size_t front_bytes = (size_t)(after - front) - offset_bytes - 1 - value_bytes;
    if (front_bytes > 8 || r->value != p + (after - front) || memcmp(p, front, (size_t)(after - front)) != 0)
        return;
    a->front_mask = UINT64_MAX >> (64 - 8 * front_bytes);
    a->front = tl_le64(front) & a->front_mask;
    a->back = 1 | (uint64_t)front[front_bytes + offset_bytes + 1] << 8 | (value_bytes == 2 ? (uint64_t)after[-1] << 16 : 0);
    a->back <<= 8 * offset_bytes;
    a->rest_mask = UINT64_MAX >> (64 - 8 * (offset_bytes + 1 + value_bytes));
    a->front_bytes = (uint32_t)front_bytes;
    a->key_from = (uint32_t)(front_bytes + offset_bytes + 1);
    a->value_from = (uint32_t)(after - front);
    a->bytes = (uint32_t)(r->next - p);
    a->zigzag_most = offset_bytes == 1 ? 0x7f : 0x3fff;
}

/* Takes the records from p on that are so, with the offset deltas that follow `previous`; how many. */
TL_INLINE int32_t take_alike(const alike *a, const uint8_t *base, const uint8_t *p, const uint8_t *end, const tl_batch *batch,
                             int64_t previous, int32_t count, const tl_record *like, tl_record *out) {
    const uint64_t front = a->front, front_mask = a->front_mask, back = a->back, rest_mask = a->rest_mask;
    const unsigned offset_bytes = a->zigzag_most > 0x7f ? 2 : 1;
    const size_t bytes = a->bytes, front_bytes = a->front_bytes, room = bytes < 16 ? 16 : bytes;
    uint64_t zigzag = 2 * (uint64_t)(previous + 1);
    uint64_t most = 2 * (uint64_t)batch->last_offset_delta;
    most = most < a->zigzag_most ? most : a->zigzag_most;
    tl_record record = *like;
    record.key_at = (uint32_t)(p - base) + a->key_from;
    record.value_at = (uint32_t)(p - base) + a->value_from;
    record.headers_at = (uint32_t)(p - base) + (uint32_t)bytes - 1;
    int32_t taken = 0;
    for (; taken < count && (size_t)(end - p) >= room && zigzag <= most; taken++, zigzag += 2, p += bytes) {
        uint64_t offset = tl_varint_zigzag_in(zigzag, offset_bytes);
        if ((tl_le64(p) & front_mask) != front || (tl_le64(p + front_bytes) & rest_mask) != (offset | back) || p[bytes - 1] != 0)
            break;
        record.offset++;
        out[taken] = record;
        record.key_at += (uint32_t)bytes;
        record.value_at += (uint32_t)bytes;
        record.headers_at += (uint32_t)bytes;
    }
    return taken;
}

int tl_batch_records(const uint8_t *base, size_t from, size_t bytes, const tl_batch *batch, tl_record *out,
                     tl_error *err) {
    const uint8_t *p = base + from, *const end = p + bytes, *bad = p;
    const bool append_time = (batch->attributes & TL_ATTR_LOG_APPEND_TIME) != 0;
    int64_t previous = -1;
    if (from > UINT32_MAX || bytes > UINT32_MAX - from)
        return corrupt(err, "records lie more than 4 GiB from where their positions are counted", 0);
    if (batch->count < 0 || (size_t)batch->count > bytes / TL_RECORD_MIN_BYTES)
        return corrupt(err, "a record batch's count is larger than its bytes allow", from);
    alike next = {.bytes = 0};
    int32_t value_bytes = -1;
    for (int32_t i = 0; i < batch->count; i++, out++) {
        if (TL_LIKELY(next.bytes != 0)) {
            int32_t taken = take_alike(&next, base, p, end, batch, previous, batch->count - i, out - 1, out);
            p += (size_t)taken * next.bytes;
            previous += taken;
            out += taken;
            i += taken;
            next.bytes = 0;
            if (i == batch->count)
                break;
        }
        tl_record_view r;
        const char *what = tl_record_read(p, end, &r, &bad);
        if (TL_UNLIKELY(what != NULL))
            return corrupt(err, what, (size_t)(bad - base));
        if (TL_UNLIKELY(r.offset_delta <= previous || r.offset_delta > batch->last_offset_delta))
            return corrupt(err, "a record's offset is not above the one before it, or past its batch's last offset",
                           (size_t)(p - base));
        previous = r.offset_delta;
        if (r.value_bytes == value_bytes)
            learn(&next, p, end, &r);
        value_bytes = r.value_bytes;
        out->offset = batch->base_offset + r.offset_delta;
        out->timestamp_ms = append_time ? batch->max_timestamp_ms
                                        : tl_timestamp_of(batch->base_timestamp_ms, r.timestamp_delta);
        out->key_at = (uint32_t)(r.key - base);
        out->value_at = (uint32_t)(r.value - base);
        out->headers_at = (uint32_t)(r.headers - base);
        out->key_bytes = r.key_bytes;
        out->value_bytes = r.value_bytes;
        out->headers_bytes = r.header_count == 0 ? 0 : (uint32_t)(r.next - r.headers);
        p = r.next;
    }
    if (p != end)
        return corrupt(err, "a record batch has bytes left behind its last record", (size_t)(p - base));
    return TL_OK;
}

int tl_header_next(const uint8_t *base, size_t *at, size_t end, int32_t *left, uint32_t *name_at, uint32_t *name_bytes,
                   uint32_t *value_at, int32_t *value_bytes) {
    if (*at > end || end > UINT32_MAX)
        return TL_ECORRUPT;
    const uint8_t *p = base + *at, *const stop = base + end, *name, *value;
    int32_t count = *left, length;
    if (count < 0) {
        if (p == stop) { /* a record without headers has an empty block */
            *left = 0;
            return 0;
        }
        p = tl_varint32_get(p, stop, &count);
        if (p == NULL || count < 0 || count > (stop - p) / 2)
            return TL_ECORRUPT;
    }
    if (count == 0) {
        *left = 0;
        *at = (size_t)(p - base);
        return p == stop ? 0 : TL_ECORRUPT;
    }
    p = tl_header_read(p, stop, &name, &length, &value, value_bytes);
    if (p == NULL)
        return TL_ECORRUPT;
    *name_at = (uint32_t)(name - base);
    *name_bytes = (uint32_t)length;
    *value_at = (uint32_t)(value - base);
    *left = count - 1;
    *at = (size_t)(p - base);
    return 1;
}

int tl_batch_gather(const uint8_t *p, const tl_batch *batch, int64_t from_offset, size_t row_bytes, uint8_t *rows,
                    int64_t *offsets, int64_t *timestamps_ms, tl_key_place *keys, size_t *taken, tl_error *err) {
    const uint8_t *at = p + TL_BATCH_HEADER_BYTES, *const end = p + batch->bytes, *bad = at;
    const uint8_t *summed = p + TL_BATCH_CRC_FROM; /* the CRC runs over all bytes in order, values among them */
    const bool append_time = (batch->attributes & TL_ATTR_LOG_APPEND_TIME) != 0;
    const bool fused = row_bytes >= TL_FUSE_BYTES;
    uint32_t crc = 0;
    int64_t previous = -1;
    size_t row = 0;
    *taken = 0;
    for (int32_t i = 0; i < batch->count; i++) {
        tl_record_view r;
        const char *what = tl_record_read(at, end, &r, &bad);
        if (TL_UNLIKELY(what != NULL))
            return corrupt(err, what, (size_t)(bad - p));
        if (TL_UNLIKELY(r.offset_delta <= previous || r.offset_delta > batch->last_offset_delta))
            return corrupt(err, "a record's offset is not above the one before it, or past its batch's last offset",
                           (size_t)(at - p));
        previous = r.offset_delta;
        at = r.next;
        if (batch->base_offset + r.offset_delta >= from_offset) {
            if (TL_UNLIKELY(r.value_bytes < 0 || (size_t)r.value_bytes != row_bytes))
                return corrupt(err, "a record's value has not the length of a row", (size_t)(r.value - p));
            uint8_t *to = rows + row * row_bytes;
            if (fused) {
                crc = tl_crc32c(crc, summed, (size_t)(r.value - summed));
                crc = tl_crc32c_copy(to, r.value, row_bytes, crc);
                summed = r.value + row_bytes;
            } else {
                tl_copy_short(to, r.value, row_bytes);
            }
            if (offsets != NULL)
                offsets[row] = batch->base_offset + r.offset_delta;
            if (timestamps_ms != NULL)
                timestamps_ms[row] = append_time ? batch->max_timestamp_ms
                                                 : tl_timestamp_of(batch->base_timestamp_ms, r.timestamp_delta);
            if (keys != NULL)
                keys[row] = (tl_key_place){.at = (uint32_t)(r.key - p), .bytes = r.key_bytes};
            row++;
        }
        if (TL_UNLIKELY(at - summed >= TL_SUM_BYTES)) {
            crc = tl_crc32c(crc, summed, (size_t)(at - summed));
            summed = at;
        }
    }
    if (at != end)
        return corrupt(err, "a record batch has bytes left behind its last record", (size_t)(at - p));
    if (tl_crc32c(crc, summed, (size_t)(end - summed)) != batch->crc)
        return corrupt(err, "a record batch's CRC-32C does not match its bytes", 17);
    *taken = row;
    return TL_OK;
}
