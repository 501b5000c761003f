/* Does any input make the batch decoder crash, read outside its bytes, or contradict itself?
 *
 * Imports batch.h, record.h, crc32c.h, check.h. The first byte chooses how far the input is helped along: bit 0 makes
 * the CRC right, bit 1 the length and the magic as well. The rest is a batch. What must hold for every input:
 *   - what is accepted lies within the batch, and the batch alone (without what follows it) reads the same;
 *   - any cut of an accepted batch is refused;
 *   - a column read succeeds exactly when the CRC is right, the records decode and all values have its length;
 *   - records with dense offsets, encoded anew, decode to the same records. */
#include "../native/check.h"
#include "tidelog/batch.h"
#include "tidelog/crc32c.h"
#include "tidelog/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *take(size_t bytes) {
    void *p = malloc(bytes > 0 ? bytes : 1);
    CHECK(p != NULL);
    return p;
}

static bool inside(uint32_t at, int64_t bytes, size_t end) {
    return at >= TL_BATCH_HEADER_BYTES && at <= end && (bytes <= 0 || (uint64_t)bytes <= end - at);
}

static bool same_bytes(const uint8_t *p, uint32_t at, const uint8_t *q, uint32_t other_at, int64_t bytes) {
    return bytes <= 0 || memcmp(p + at, q + other_at, (size_t)bytes) == 0;
}

static void check_same(const uint8_t *p, const tl_record *a, const uint8_t *q, const tl_record *b, size_t count) {
    for (; count > 0; count--, a++, b++) {
        CHECK(a->offset == b->offset && a->timestamp_ms == b->timestamp_ms);
        CHECK(a->key_bytes == b->key_bytes && same_bytes(p, a->key_at, q, b->key_at, a->key_bytes));
        CHECK(a->value_bytes == b->value_bytes && same_bytes(p, a->value_at, q, b->value_at, a->value_bytes));
        CHECK(a->headers_bytes == b->headers_bytes && same_bytes(p, a->headers_at, q, b->headers_at, a->headers_bytes));
    }
}

static void check_inside(const uint8_t *p, const tl_batch *b, const tl_record *r) {
    for (int32_t i = 0; i < b->count; i++) {
        CHECK(r[i].offset >= b->base_offset && r[i].offset <= tl_batch_last_offset(b));
        CHECK(i == 0 || r[i - 1].offset < r[i].offset);
        CHECK(r[i].key_bytes >= -1 && inside(r[i].key_at, r[i].key_bytes, b->bytes));
        CHECK(r[i].value_bytes >= -1 && inside(r[i].value_at, r[i].value_bytes, b->bytes));
        CHECK(inside(r[i].headers_at, r[i].headers_bytes, b->bytes));
        size_t at = r[i].headers_at, end = at + r[i].headers_bytes;
        int32_t left = -1, value_bytes = 0;
        uint32_t name_at = 0, name_bytes = 0, value_at = 0;
        int more;
        while ((more = tl_header_next(p, &at, end, &left, &name_at, &name_bytes, &value_at, &value_bytes)) == 1)
            CHECK(inside(name_at, name_bytes, end) && value_bytes >= -1 && inside(value_at, value_bytes, end));
        CHECK(more == 0 && at == end);
    }
}

static void check_column(const uint8_t *p, const tl_batch *b, const tl_record *r, bool decodes, uint8_t choice) {
    bool first = decodes && b->count > 0 && r[0].value_bytes >= 0;
    size_t row_bytes = first ? (size_t)r[0].value_bytes : choice, taken = 0, expected = 0;
    int64_t from_offset = b->base_offset + choice % 4;
    bool equal = true;
    for (int32_t i = 0; decodes && i < b->count; i++) {
        expected += r[i].offset >= from_offset;
        equal = equal && (r[i].offset < from_offset || r[i].value_bytes == (int32_t)row_bytes);
    }
    size_t count = (size_t)b->count;
    uint8_t *rows = take(count * row_bytes);
    int64_t *offsets = take(count * sizeof *offsets), *times = take(count * sizeof *times);
    tl_key_place *keys = take(count * sizeof *keys);
    int status = tl_batch_gather(p, b, from_offset, row_bytes, rows, offsets, times, keys, &taken, NULL);
    CHECK((status == TL_OK) == (decodes && equal && tl_batch_crc_ok(p, b)));
    CHECK(taken == (status == TL_OK ? expected : 0));
    for (size_t i = 0; i < taken; i++) {
        const tl_record *record = r + (count - taken) + i;
        CHECK(offsets[i] == record->offset && times[i] == record->timestamp_ms);
        CHECK(keys[i].at == record->key_at && keys[i].bytes == record->key_bytes);
        CHECK(row_bytes == 0 || memcmp(rows + i * row_bytes, p + record->value_at, row_bytes) == 0);
    }
    free(rows);
    free(offsets);
    free(times);
    free(keys);
}

static void check_encoded_anew(const uint8_t *p, const tl_batch *b, const tl_record *r) {
    size_t count = (size_t)b->count, bytes;
    tl_message *m = take(count * sizeof *m);
    int64_t max_ms, largest = INT64_MIN;
    for (size_t i = 0; i < count; i++) {
        m[i] = (tl_message){.key = p + r[i].key_at, .value = p + r[i].value_at, .key_bytes = r[i].key_bytes,
                            .value_bytes = r[i].value_bytes, .timestamp_ms = r[i].timestamp_ms};
        if (r[i].headers_bytes > 0)
            m[i].headers = p + r[i].headers_at;
        m[i].headers_bytes = r[i].headers_bytes;
        largest = m[i].timestamp_ms > largest ? m[i].timestamp_ms : largest;
    }
    CHECK(tl_batch_measure(m, count, SIZE_MAX, &bytes) == count);
    uint8_t *again = take(bytes);
    tl_record *records = take(count * sizeof *records);
    CHECK(tl_batch_encode(again, b->base_offset, &tl_batch_plain, m, count, &max_ms) == bytes && max_ms == largest);
    tl_batch parsed;
    CHECK(tl_batch_parse(again, bytes, &parsed, NULL) == TL_OK && parsed.bytes == bytes);
    CHECK(parsed.count == b->count && parsed.max_timestamp_ms == largest && tl_batch_crc_ok(again, &parsed));
    size_t payload = bytes - TL_BATCH_HEADER_BYTES;
    CHECK(tl_batch_records(again, TL_BATCH_HEADER_BYTES, payload, &parsed, records, NULL) == TL_OK);
    check_same(p, r, again, records, count);
    free(m);
    free(again);
    free(records);
}

static void check_batch(const uint8_t *p, size_t size, uint8_t choice) {
    tl_batch b, alone;
    tl_error err = {.code = 0};
    int status = tl_batch_parse(p, size, &b, &err);
    if (status != TL_OK) {
        CHECK(status == TL_ECORRUPT && err.code == TL_ECORRUPT && err.what != NULL && err.position >= 0);
        return;
    }
    CHECK(b.bytes >= TL_BATCH_HEADER_BYTES && b.bytes <= size);
    for (size_t step = 0, cut = 0; cut < b.bytes; cut += 1 + step++)
        CHECK(tl_batch_parse(p, cut, &alone, NULL) == TL_ECORRUPT);
    CHECK(tl_batch_parse(p, b.bytes - 1, &alone, NULL) == TL_ECORRUPT);
    uint8_t *exact = take(b.bytes);
    CHECK(tl_batch_copy_checked(exact, p, &b) == tl_batch_crc_ok(p, &b) && memcmp(exact, p, b.bytes) == 0);
    CHECK(tl_batch_parse(exact, b.bytes, &alone, NULL) == TL_OK && alone.bytes == b.bytes && alone.count == b.count);
    if (tl_batch_codec(&b) != 0) {
        free(exact);
        return;
    }
    size_t count = (size_t)b.count, payload = b.bytes - TL_BATCH_HEADER_BYTES;
    CHECK(count <= payload / TL_RECORD_MIN_BYTES);
    tl_record *records = take(count * sizeof *records), *again = take(count * sizeof *again);
    status = tl_batch_records(p, TL_BATCH_HEADER_BYTES, payload, &b, records, &err);
    CHECK(tl_batch_records(exact, TL_BATCH_HEADER_BYTES, payload, &alone, again, NULL) == status);
    if (status == TL_OK) {
        check_inside(p, &b, records);
        check_same(p, records, exact, again, count);
        if (count > 0 && b.last_offset_delta == b.count - 1)
            check_encoded_anew(p, &b, records);
    } else {
        CHECK(status == TL_ECORRUPT && err.position >= TL_BATCH_HEADER_BYTES && err.position <= (int64_t)b.bytes);
    }
    check_column(exact, &b, records, status == TL_OK, choice);
    free(records);
    free(again);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    uint8_t choice = data[0];
    uint8_t *batch = take(--size);
    memcpy(batch, data + 1, size);
    if (size >= TL_BATCH_HEADER_BYTES) {
        if (choice & 2) {
            tl_put_be32(batch + 8, (uint32_t)(size - TL_BATCH_PREFIX_BYTES));
            batch[16] = 2;
        }
        uint64_t bytes = (uint64_t)tl_be32(batch + 8) + TL_BATCH_PREFIX_BYTES;
        if ((choice & 1) && bytes >= TL_BATCH_HEADER_BYTES && bytes <= size)
            tl_put_be32(batch + 17, tl_crc32c(0, batch + TL_BATCH_CRC_FROM, (size_t)bytes - TL_BATCH_CRC_FROM));
    }
    check_batch(batch, size, choice >> 2);
    free(batch);
    return 0;
}
