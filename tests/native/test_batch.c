/* Are record batches written byte for byte as Kafka writes them, measured exactly, and read back as what went in?
 *
 * Imports slow_batch.h, batch.h, crc32c.h. Single-threaded. Damaged and hostile batches: test_batch_hostile.c. */
#include "slow_batch.h"
#include "tidelog/crc32c.h"

#define POOL_BYTES (1u << 16)
#define MOST 1500

static uint64_t seed = 5;
static uint8_t pool[POOL_BYTES + 16384];
static uint8_t header_pool[MOST * 64];

/* `hex` must be what stands at out, and the CRC in it must be right. */
static void check_bytes(const char *hex, const uint8_t *out, size_t bytes) {
    uint8_t want[256];
    size_t n = check_unhex(hex, want);
    tl_batch b;
    CHECK(n == bytes && memcmp(want, out, n) == 0);
    CHECK(tl_batch_parse(out, bytes, &b, NULL) == TL_OK && b.bytes == bytes && tl_batch_crc_ok(out, &b));
    CHECK(b.crc == slow_crc32c(out + 21, bytes - 21));
}

#define BYTES(text) .value = (const uint8_t *)(text), .value_bytes = (int32_t)sizeof(text) - 1
#define HEADERS(text) .headers = (const uint8_t *)(text), .headers_bytes = (uint32_t)sizeof(text) - 1
#define KEY(text) .key = (const uint8_t *)(text), .key_bytes = (int32_t)sizeof(text) - 1

static void check_vectors(void) {
    const tl_message a[] = {
        {KEY("k1"), BYTES("hello"), .timestamp_ms = VECTOR_T},
        {.key_bytes = -1, BYTES("world"), HEADERS("\2\2h\2v"), .timestamp_ms = VECTOR_T + 5},
        {KEY("k3"), .value_bytes = -1, HEADERS("\2\2n\1"), .timestamp_ms = VECTOR_T - 3},
    };
    uint8_t out[256];
    int64_t max_ms;
    size_t bytes;
    tl_batch b;
    CHECK(tl_batch_measure(a, 3, SIZE_MAX, &bytes) == 3 && bytes == VECTOR_A_BYTES);
    CHECK(tl_batch_encode(out, 0, &tl_batch_plain, a, 3, &max_ms) == bytes && max_ms == VECTOR_T + 5);
    check_bytes(VECTOR_A, out, bytes);
    CHECK(tl_batch_encode_records(out + 61, a, 3) == 42);
    CHECK(tl_batch_finish(out, 0, &tl_batch_plain, 42, 3, VECTOR_T, VECTOR_T + 5) == bytes);
    check_bytes(VECTOR_A, out, bytes);

    const tl_message one = {KEY("a"), BYTES("1"), .timestamp_ms = VECTOR_T};
    const tl_batch_spec transactional = {
        .producer_id = 1000, .base_sequence = 7, .producer_epoch = 2, .attributes = TL_ATTR_TRANSACTIONAL};
    bytes = tl_batch_encode(out, 0, &transactional, &one, 1, &max_ms);
    check_bytes(VECTOR_B, out, bytes);
    CHECK(tl_batch_parse(out, bytes, &b, NULL) == TL_OK && tl_batch_is_transactional(&b) && !tl_batch_is_control(&b));
    CHECK(b.producer_id == 1000 && b.producer_epoch == 2 && b.base_sequence == 7 && tl_batch_next_offset(&b) == 1);

    CHECK(tl_batch_encode_marker(out, 10, 1000, 2, 1, 0, VECTOR_T) == 78);
    check_bytes(VECTOR_C, out, 78);
    CHECK(tl_batch_parse(out, 78, &b, NULL) == TL_OK && tl_batch_is_control(&b));
    CHECK(tl_batch_encode_marker(out, 10, 1000, 2, 0, 0, VECTOR_T) == 78);
    check_bytes(VECTOR_D, out, 78);

    const tl_message x = {KEY("x"), BYTES("y"), .timestamp_ms = VECTOR_T};
    tl_batch_spec spec = tl_batch_plain;
    spec.attributes = TL_ATTR_LOG_APPEND_TIME;
    bytes = tl_batch_encode_records(out + 61, &x, 1);
    bytes = tl_batch_finish(out, 100, &spec, bytes, 1, VECTOR_T, VECTOR_T + 99);
    tl_put_be32(out + 12, 5); /* the leader epoch: outside the CRC */
    check_bytes(VECTOR_E, out, bytes);
    tl_record r;
    CHECK(tl_batch_parse(out, bytes, &b, NULL) == TL_OK && b.leader_epoch == 5);
    CHECK(tl_batch_records(out, 61, bytes - 61, &b, &r, NULL) == TL_OK);
    CHECK(r.timestamp_ms == VECTOR_T + 99 && r.offset == 100);

    /* What compaction leaves keeps its largest timestamp; an empty batch of ours never had one. */
    const tl_batch_spec left = {.producer_id = 1000, .base_sequence = 40, .producer_epoch = 2, .attributes = 0x10};
    CHECK(tl_batch_encode_empty(out, 500, 509, &left) == 61);
    CHECK(tl_batch_parse(out, 61, &b, NULL) == TL_OK && tl_batch_crc_ok(out, &b) && b.max_timestamp_ms == -1);
    tl_put_be64(out + 35, VECTOR_T);
    tl_put_be32(out + 12, 3);
    slow_fix_crc(out, 61);
    check_bytes(VECTOR_F, out, 61);
    CHECK(tl_batch_parse(out, 61, &b, NULL) == TL_OK && b.count == 0 && b.base_timestamp_ms == -1);
    CHECK(tl_batch_last_offset(&b) == 509 && tl_batch_records(out, 61, 0, &b, NULL, NULL) == TL_OK);

    uint8_t zstd[256];
    size_t n = check_unhex(VECTOR_ZSTD, zstd);
    CHECK(tl_batch_parse(zstd, n, &b, NULL) == TL_OK && tl_batch_codec(&b) == 4 && tl_batch_crc_ok(zstd, &b));
    spec.attributes = 4;
    memcpy(out + 61, zstd + 61, n - 61);
    CHECK(tl_batch_finish(out, 0, &spec, n - 61, 3, VECTOR_T, VECTOR_T + 5) == n && memcmp(out, zstd, n) == 0);
    tl_batch_set_base_offset(out, 77);
    CHECK(tl_batch_parse(out, n, &b, NULL) == TL_OK && b.base_offset == 77 && tl_batch_crc_ok(out, &b));
}

static void fill(tl_message *m, size_t count, uint32_t largest) {
    uint64_t spread = check_random(&seed) >> (2 + check_random(&seed) % 62);
    for (size_t i = 0; i < count; i++) {
        m[i] = (tl_message){.key = pool + check_random(&seed) % 256, .value = pool + check_random(&seed) % 16384};
        m[i].value_bytes = check_random(&seed) % 10 == 0 ? -1 : random_length(&seed, largest);
        m[i].key_bytes = check_random(&seed) % 3 == 0 ? -1 : (int32_t)(check_random(&seed) % 80);
        m[i].timestamp_ms = VECTOR_T - (int64_t)(spread / 2) + (int64_t)(check_random(&seed) % (spread + 1));
        if (check_random(&seed) % 4 == 0) {
            m[i].headers = header_pool + 64 * i;
            m[i].headers_bytes = random_headers(&seed, header_pool + 64 * i);
        }
    }
    if (check_random(&seed) % 16 == 0) { /* deltas that wrap */
        m[0].timestamp_ms = INT64_MAX;
        m[count - 1].timestamp_ms = INT64_MIN;
    }
}

static bool same_field(const uint8_t *at, int32_t bytes, const uint8_t *want, int32_t want_bytes) {
    return bytes == want_bytes && (bytes <= 0 || memcmp(at, want, (size_t)bytes) == 0);
}

/* The records of the batch at `bytes_at` are the messages, with offsets from base_offset on. */
static void check_decoded(const uint8_t *bytes_at, const tl_batch *b, const tl_message *m, int64_t base_offset) {
    tl_record *records = malloc(((size_t)b->count + 1) * sizeof *records);
    tl_error err;
    CHECK(records != NULL);
    CHECK(tl_batch_records(bytes_at, 61, b->bytes - 61, b, records, &err) == TL_OK);
    for (int32_t i = 0; i < b->count; i++) {
        const tl_record *r = &records[i];
        CHECK(r->offset == base_offset + i && r->timestamp_ms == m[i].timestamp_ms);
        CHECK(same_field(bytes_at + r->key_at, r->key_bytes, m[i].key, m[i].key_bytes));
        CHECK(same_field(bytes_at + r->value_at, r->value_bytes, m[i].value, m[i].value_bytes));
        bool has = m[i].headers != NULL && m[i].headers[0] != 0;
        CHECK(r->headers_bytes == (has ? m[i].headers_bytes : 0));
        CHECK(!has || memcmp(bytes_at + r->headers_at, m[i].headers, m[i].headers_bytes) == 0);
        size_t at = r->headers_at, end = at + r->headers_bytes;
        int32_t left = -1, value_bytes, seen = 0;
        uint32_t name_at, name_bytes, value_at;
        while (tl_header_next(bytes_at, &at, end, &left, &name_at, &name_bytes, &value_at, &value_bytes) == 1)
            seen++;
        CHECK(left == 0 && at == end && seen == (has ? m[i].headers[0] / 2 : 0));
    }
    free(records);
}

static void check_round_trip(size_t count, uint32_t largest) {
    static tl_message m[MOST];
    fill(m, count, largest);
    tl_batch_spec spec = tl_batch_plain;
    if (check_random(&seed) % 2 == 0)
        spec = (tl_batch_spec){.producer_id = (int64_t)check_random(&seed),
                               .base_sequence = (int32_t)check_random(&seed),
                               .producer_epoch = (int16_t)check_random(&seed),
                               .attributes = TL_ATTR_TRANSACTIONAL};
    int64_t base_offset = (int64_t)(check_random(&seed) >> (1 + check_random(&seed) % 62)) & ~(1ll << 62), max_ms;
    size_t bytes;
    CHECK(tl_batch_measure(m, count, SIZE_MAX, &bytes) == count);
    uint8_t *want = malloc(bytes), *got = malloc(bytes), *copy = malloc(bytes);
    CHECK(want != NULL && got != NULL && copy != NULL);
    CHECK(slow_encode(want, base_offset, &spec, m, count) == bytes);
    CHECK(tl_batch_encode(got, base_offset, &spec, m, count, &max_ms) == bytes && memcmp(want, got, bytes) == 0);
    memset(got, 0xee, bytes);
    CHECK(tl_batch_encode_records(got + 61, m, count) == bytes - 61);
    CHECK(tl_batch_finish(got, base_offset, &spec, bytes - 61, (int32_t)count, m[0].timestamp_ms, max_ms) == bytes);
    CHECK(memcmp(want, got, bytes) == 0);
    tl_batch b;
    tl_error err;
    CHECK(tl_batch_parse(got, bytes, &b, &err) == TL_OK && tl_batch_crc_ok(got, &b) && b.max_timestamp_ms == max_ms);
    CHECK(b.producer_id == spec.producer_id && b.producer_epoch == spec.producer_epoch && b.count == (int32_t)count);
    CHECK(tl_batch_copy_checked(copy, got, &b) && memcmp(copy, got, bytes) == 0);
    check_decoded(copy, &b, m, base_offset);

    /* Any limit takes as many messages as fit, and one in any case. */
    size_t limit = check_random(&seed) % (bytes + 2), part;
    size_t taken = tl_batch_measure(m, count, limit, &part);
    CHECK(taken >= 1 && taken <= count && (part <= limit || taken == 1));
    CHECK(tl_batch_encode(copy, 0, &spec, m, taken, &max_ms) == part);
    if (taken < count)
        CHECK(slow_encode(copy, 0, &spec, m, taken + 1) > limit);
    CHECK(tl_batch_measure(m, count, bytes, &part) == count && part == bytes);
    CHECK(count == 1 || (tl_batch_measure(m, count, bytes - 1, &part) == count - 1));

    uint8_t *one = malloc(slow_encode(want, base_offset, &tl_batch_plain, m, 1));
    CHECK(one != NULL);
    bytes = slow_encode(want, base_offset, &tl_batch_plain, m, 1);
    tl_frame frame = tl_batch_frame(m);
    tl_batch_encode_unsealed(one, base_offset, m, &frame);
    CHECK(frame.bytes == bytes && one[16] == 0);
    tl_batch_seal(one);
    CHECK(memcmp(one, want, bytes) == 0);
    free(one);

    one = malloc(bytes);
    CHECK(one != NULL);
    tl_batch_encode_one(one, base_offset, m, &frame);
    CHECK(memcmp(one, want, bytes) == 0);
    CHECK(slow_encode(want, base_offset, &spec, m, 1) == bytes);
    tl_batch_encode_signed(one, base_offset, &spec, m, &frame);
    CHECK(memcmp(one, want, bytes) == 0);
    free(one);
    free(want);
    free(got);
    free(copy);
}

/* Rows are messages whose value is the row and whose key is a part of it. */
static void check_rows(size_t row_bytes, size_t count) {
    static tl_message m[MOST];
    static uint32_t pick[MOST];
    tl_rows rows = {.rows = pool, .row_bytes = row_bytes, .timestamp_ms = VECTOR_T};
    rows.stride = row_bytes + check_random(&seed) % 5;
    size_t first = check_random(&seed) % 3, available = sizeof pool / (rows.stride + 1);
    if (check_random(&seed) % 2 == 0 && row_bytes > 0) {
        rows.key_bytes = 1 + check_random(&seed) % row_bytes;
        rows.key_at = check_random(&seed) % (row_bytes - rows.key_bytes + 1);
        rows.strip_key = check_random(&seed) % 2 == 0;
    }
    if (check_random(&seed) % 2 == 0) {
        rows.pick = pick;
        for (size_t i = 0; i < MOST; i++)
            pick[i] = (uint32_t)(check_random(&seed) % available);
    } else if (first + count > available) {
        count = available - first;
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = pool + rows.stride * (rows.pick == NULL ? first + i : pick[first + i]);
        m[i] = (tl_message){.value = row, .value_bytes = (int32_t)row_bytes, .key_bytes = -1, .timestamp_ms = VECTOR_T};
        if (rows.key_bytes > 0) {
            m[i].key = row + rows.key_at;
            m[i].key_bytes = (int32_t)rows.key_bytes;
            while (rows.strip_key && m[i].key_bytes > 0 && m[i].key[m[i].key_bytes - 1] == 0)
                m[i].key_bytes--;
        }
    }
    size_t bytes, limit = 1 + check_random(&seed) % (count * (row_bytes + 20) + 100), want_bytes;
    CHECK(tl_batch_measure_rows(&rows, first, count, SIZE_MAX, &bytes) == count);
    CHECK(tl_batch_measure(m, count, SIZE_MAX, &want_bytes) == count && want_bytes == bytes);
    uint8_t *want = malloc(bytes), *got = malloc(bytes), *column = malloc(count * row_bytes + 1);
    int64_t *offsets = malloc(count * sizeof *offsets), *times = malloc(count * sizeof *times);
    tl_key_place *keys = malloc(count * sizeof *keys);
    CHECK(want != NULL && got != NULL && column != NULL && offsets != NULL && times != NULL && keys != NULL);
    CHECK(slow_encode(want, 1000, &tl_batch_plain, m, count) == bytes);
    CHECK(tl_batch_encode_rows(got, 1000, &tl_batch_plain, &rows, first, count) == bytes);
    CHECK(memcmp(want, got, bytes) == 0);

    tl_batch b;
    tl_error err;
    size_t taken, skip = check_random(&seed) % (count + 2);
    int64_t from = 1000 + (int64_t)skip;
    CHECK(tl_batch_parse(got, bytes, &b, &err) == TL_OK);
    CHECK(tl_batch_gather(got, &b, from, row_bytes, column, offsets, times, keys, &taken, &err) == TL_OK);
    CHECK(taken == (skip < count ? count - skip : 0));
    for (size_t i = 0; i < taken; i++) {
        CHECK(offsets[i] == from + (int64_t)i && times[i] == VECTOR_T);
        CHECK(memcmp(column + i * row_bytes, m[skip + i].value, row_bytes) == 0);
        CHECK(same_field(got + keys[i].at, keys[i].bytes, m[skip + i].key, m[skip + i].key_bytes));
    }
    CHECK(tl_batch_gather(got, &b, 0, row_bytes, column, NULL, NULL, NULL, &taken, &err) == TL_OK && taken == count);
    CHECK(tl_batch_gather(got, &b, 0, row_bytes + 1, column, NULL, NULL, NULL, &taken, &err) == TL_ECORRUPT);
    CHECK(err.position > 61 && strstr(err.what, "length of a row") != NULL);

    taken = tl_batch_measure_rows(&rows, first, count, limit, &bytes);
    CHECK(tl_batch_measure(m, count, limit, &want_bytes) == taken && want_bytes == bytes);
    free(want);
    free(got);
    free(column);
    free(offsets);
    free(times);
    free(keys);
}

/* Sizes of batches too large to build here: summed record by record. */
static void check_measure_many_rows(void) {
    tl_rows rows = {.rows = pool, .stride = 0, .row_bytes = 55, .timestamp_ms = 1};
    const tl_message m = {.key_bytes = -1, .value = pool, .value_bytes = 55};
    size_t total = 61, bytes;
    CHECK(tl_batch_measure_rows(&rows, 0, 0, SIZE_MAX, &bytes) == 0 && bytes == 61);
    for (size_t n = 1; n < 1100000; n++) {
        uint8_t front[16];
        size_t body = 6 + (size_t)(slow_put_varint(front, (int64_t)n - 1) - front) + 55 - 1;
        total += body + (size_t)(slow_put_varint(front, (int64_t)body) - front);
        bool edge = n < 70 || (n > 8190 && n < 8200) || n > 1048570;
        if (!edge || n > 1048580)
            continue;
        CHECK(tl_batch_measure_rows(&rows, 0, n, SIZE_MAX, &bytes) == n && bytes == total);
        CHECK(tl_batch_measure_rows(&rows, 0, SIZE_MAX, total, &bytes) == n && bytes == total);
        if (n > 1)
            CHECK(tl_batch_measure_rows(&rows, 0, SIZE_MAX, total - 1, &bytes) == n - 1);
    }
    CHECK(tl_batch_measure_rows(&rows, 0, 5, 0, &bytes) == 1);
    CHECK(tl_batch_measure(&m, 1, 0, &total) == 1 && bytes == total);
    CHECK(tl_batch_measure(&m, 0, 100, &bytes) == 0 && bytes == 61);
    CHECK(tl_batch_measure_rows(&rows, 0, SIZE_MAX, SIZE_MAX, &bytes) < (size_t)INT32_MAX / 60 && bytes <= INT32_MAX);
}

int main(void) {
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = check_random(&seed) % 4 == 0 ? 0 : (uint8_t)check_random(&seed);
    static const char *names[] = {"table", "pclmul", "avx512", "armv8"};
    check_vectors();
    check_measure_many_rows();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (tl_crc32c_select(names[i]) != TL_OK)
            continue;
        printf("%s ", names[i]);
        for (int round = 0; round < 300; round++) {
            check_round_trip(1 + check_random(&seed) % 8, 20000);
            check_round_trip(1 + check_random(&seed) % 200, 300);
            check_rows((size_t)random_length(&seed, 3000), 1 + check_random(&seed) % 100);
        }
        check_round_trip(MOST, 100);
        check_rows(20, MOST - 3);
        check_rows(1024, 60);
    }
    return check_report();
}
