/* Is a record batch that was cut, flipped or forged refused, and never read outside its bytes?
 *
 * Imports slow_batch.h, batch.h. Single-threaded. Each batch stands in a heap block of exactly its size, so that
 * AddressSanitizer sees a read past either end. */
#include "slow_batch.h"

static uint64_t seed = 23;

/* What happened to a batch: refused by which step, or decoded. */
enum fate { NO_HEADER, NO_CRC, NO_RECORDS, DECODED };

static bool inside(uint32_t at, int64_t bytes, size_t from, size_t end) {
    return at >= from && at <= end && (bytes <= 0 || (uint64_t)bytes <= end - at);
}

static void check_records_inside(const uint8_t *p, const tl_batch *b, const tl_record *r) {
    for (int32_t i = 0; i < b->count; i++) {
        CHECK(r[i].offset >= b->base_offset && r[i].offset <= tl_batch_last_offset(b));
        CHECK(i == 0 || r[i].offset > r[i - 1].offset);
        CHECK(r[i].key_bytes >= -1 && inside(r[i].key_at, r[i].key_bytes, 61, b->bytes));
        CHECK(r[i].value_bytes >= -1 && inside(r[i].value_at, r[i].value_bytes, 61, b->bytes));
        CHECK(inside(r[i].headers_at, r[i].headers_bytes, 61, b->bytes));
        size_t at = r[i].headers_at, end = at + r[i].headers_bytes;
        int32_t left = -1, value_bytes = 0;
        uint32_t name_at = 0, name_bytes = 0, value_at = 0;
        int more;
        while ((more = tl_header_next(p, &at, end, &left, &name_at, &name_bytes, &value_at, &value_bytes)) == 1) {
            CHECK(inside(name_at, name_bytes, 61, end) && inside(value_at, value_bytes, 61, end));
            CHECK(left >= 0);
        }
        CHECK(more == 0 && at == end);
    }
}

/* Takes every step on a copy of exactly `available` bytes. With `fix_crc` the copy's CRC is made right after the header
 * was accepted, so that the records are judged by their shape alone. */
static enum fate judge(const uint8_t *bytes, size_t available, bool fix_crc, const char **what, int64_t *position) {
    uint8_t *p = malloc(available > 0 ? available : 1), *copy = NULL;
    tl_record *records = NULL;
    tl_error err = {.code = 0, .position = -1, .what = ""};
    tl_batch b;
    enum fate fate = NO_HEADER;
    CHECK(p != NULL);
    memcpy(p, bytes, available);
    if (tl_batch_parse(p, available, &b, &err) != TL_OK)
        goto out;
    CHECK(b.bytes >= 61 && b.bytes <= available && b.count >= 0);
    if (fix_crc) {
        slow_fix_crc(p, b.bytes);
        CHECK(tl_batch_parse(p, available, &b, &err) == TL_OK);
    }
    copy = malloc(b.bytes);
    CHECK(copy != NULL);
    CHECK(tl_batch_copy_checked(copy, p, &b) == tl_batch_crc_ok(p, &b));
    CHECK(memcmp(copy, p, b.bytes) == 0);
    bool crc_ok = tl_batch_crc_ok(p, &b);
    fate = crc_ok ? NO_RECORDS : NO_CRC;
    if (tl_batch_codec(&b) == 0) {
        CHECK((size_t)b.count <= (b.bytes - 61) / 7);
        records = malloc(((size_t)b.count + 1) * sizeof *records);
        CHECK(records != NULL);
        int status = tl_batch_records(p, 61, b.bytes - 61, &b, records, &err);
        CHECK(status == TL_OK || status == TL_ECORRUPT);
        if (status == TL_OK)
            check_records_inside(p, &b, records);
        if (status == TL_OK && crc_ok)
            fate = DECODED;
        /* A column read accepts what both checks accept, if all values have one length. */
        bool first = status == TL_OK && b.count > 0 && records[0].value_bytes >= 0, equal = true;
        size_t row_bytes = first ? (size_t)records[0].value_bytes : 3;
        for (int32_t i = 0; i < b.count && status == TL_OK; i++)
            equal = equal && records[i].value_bytes == (int32_t)row_bytes;
        uint8_t *rows = malloc((size_t)b.count * row_bytes + 1);
        size_t taken;
        CHECK(rows != NULL);
        tl_error column_err;
        int column = tl_batch_gather(p, &b, 0, row_bytes, rows, NULL, NULL, NULL, &taken, &column_err);
        CHECK((column == TL_OK) == (fate == DECODED && equal));
        CHECK(column == TL_OK || (column == TL_ECORRUPT && taken == 0));
        free(rows);
    } else if (crc_ok) {
        fate = DECODED;
    }
out:
    if (what != NULL)
        *what = err.what;
    if (position != NULL)
        *position = err.position;
    if (fate == NO_HEADER)
        CHECK(err.code == TL_ECORRUPT && err.position >= 0 && err.position <= 61 && strlen(err.what) > 20);
    free(records);
    free(copy);
    free(p);
    return fate;
}

/* tl_batch_copy_checked compares with what was parsed: bytes that change in between are seen, CRC or not. */
static void check_changed_between(void) {
    uint8_t a[VECTOR_A_BYTES], copy[VECTOR_A_BYTES];
    tl_batch b;
    check_unhex(VECTOR_A, a);
    CHECK(tl_batch_parse(a, sizeof a, &b, NULL) == TL_OK && tl_batch_copy_checked(copy, a, &b));
    for (size_t bit = 0; bit < 8 * sizeof a; bit++) {
        a[bit / 8] ^= (uint8_t)(1u << bit % 8);
        bool leader_epoch = bit / 8 >= 12 && bit / 8 < 16;
        CHECK(tl_batch_copy_checked(copy, a, &b) == leader_epoch);
        a[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void check_cuts(void) {
    uint8_t a[VECTOR_A_BYTES + 1] = {0}, cut[VECTOR_A_BYTES];
    check_unhex(VECTOR_A, a);
    CHECK(judge(a, VECTOR_A_BYTES, false, NULL, NULL) == DECODED);
    CHECK(judge(a, VECTOR_A_BYTES + 1, false, NULL, NULL) == DECODED); /* another batch may follow */
    for (size_t n = 0; n < VECTOR_A_BYTES; n++) {
        CHECK(judge(a, n, false, NULL, NULL) == NO_HEADER);
        if (n < 61)
            continue;
        memcpy(cut, a, n);
        slow_put_int(cut + 8, n - 12, 4);
        CHECK(judge(cut, n, false, NULL, NULL) <= NO_CRC);
        CHECK(judge(cut, n, true, NULL, NULL) <= NO_RECORDS);
        slow_put_int(cut + 57, 0, 4); /* and without a count, only bare headers are batches */
        CHECK(judge(cut, n, true, NULL, NULL) == (n == 61 ? DECODED : NO_HEADER));
    }
}

static void check_flips(void) {
    uint8_t a[VECTOR_A_BYTES];
    check_unhex(VECTOR_A, a);
    unsigned harmless = 0;
    for (size_t bit = 0; bit < 8 * sizeof a; bit++) {
        size_t byte = bit / 8;
        a[byte] ^= (uint8_t)(1u << bit % 8);
        enum fate fate = judge(a, sizeof a, false, NULL, NULL);
        if (fate == DECODED) {
            CHECK(byte < 8 || (byte >= 12 && byte < 16)); /* base offset and leader epoch: set by whoever appends */
            harmless++;
        }
        judge(a, sizeof a, true, NULL, NULL);
        a[byte] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK(harmless == 63 + 32); /* the base offset's sign is refused */
}

typedef struct forgery {
    size_t at;
    unsigned bytes;
    uint64_t value;
    enum fate fate;
} forgery;

/* Header fields of vector A, with the CRC made right. */
static void check_headers(void) {
    static const forgery forgeries[] = {
        {0, 8, UINT64_MAX, NO_HEADER},
        {0, 8, (uint64_t)INT64_MAX - 3, DECODED},
        {0, 8, (uint64_t)INT64_MAX - 2, NO_HEADER}, /* the next offset would not fit */
        {0, 8, (uint64_t)INT64_MAX, NO_HEADER},
        {8, 4, 0, NO_HEADER},
        {8, 4, 48, NO_HEADER},
        {8, 4, 49, NO_HEADER}, /* a count, but no bytes */
        {8, 4, 90, NO_RECORDS},
        {8, 4, 92, NO_HEADER},
        {8, 4, 0x7fffffff, NO_HEADER},
        {8, 4, 0x80000000, NO_HEADER},
        {8, 4, 0xffffffff, NO_HEADER},
        {12, 4, 0xffffffff, DECODED},
        {16, 1, 0, NO_HEADER},
        {16, 1, 1, NO_HEADER},
        {16, 1, 3, NO_HEADER},
        {21, 2, 0x0001, DECODED}, /* compressed: the payload is opaque here */
        {21, 2, 0x0004, DECODED},
        {21, 2, 0x0005, NO_HEADER},
        {21, 2, 0x0007, NO_HEADER},
        {21, 2, 0x0058, DECODED},
        {21, 2, 0x0020, NO_HEADER}, /* control with three records */
        {21, 2, 0x0024, NO_HEADER},
        {21, 2, 0x0080, NO_HEADER},
        {21, 2, 0x8000, NO_HEADER},
        {23, 4, 1, NO_HEADER},
        {23, 4, 3, DECODED},
        {23, 4, 0x7fffffff, DECODED},
        {23, 4, 0x80000000, NO_HEADER},
        {23, 4, 0xffffffff, NO_HEADER},
        {57, 4, 0, NO_HEADER},
        {57, 4, 1, NO_RECORDS},
        {57, 4, 2, NO_RECORDS},
        {57, 4, 4, NO_HEADER},
        {57, 4, 0x7fffffff, NO_HEADER},
        {57, 4, 0xffffffff, NO_HEADER},
    };
    uint8_t a[VECTOR_A_BYTES];
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        check_unhex(VECTOR_A, a);
        slow_put_int(a + forgeries[i].at, forgeries[i].value, forgeries[i].bytes);
        CHECK(judge(a, sizeof a, true, NULL, NULL) == forgeries[i].fate);
    }
    /* A count that only the offsets bound, with few bytes behind it: refused before anything is allocated for it. */
    check_unhex(VECTOR_A, a);
    slow_put_int(a + 23, 0x7fffffff, 4);
    slow_put_int(a + 57, 0x7fffffff, 4);
    CHECK(judge(a, sizeof a, true, NULL, NULL) == NO_HEADER);
    tl_batch b;
    tl_record records[8];
    slow_put_int(a + 21, 2, 2);
    CHECK(tl_batch_parse(a, sizeof a, &b, NULL) == TL_OK && b.count == INT32_MAX);
    CHECK(tl_batch_records(a, 61, 42, &b, records, NULL) == TL_ECORRUPT);
    b.count = -1;
    CHECK(tl_batch_records(a, 61, 42, &b, records, NULL) == TL_ECORRUPT);
    b.count = 3;
    CHECK(tl_batch_records(a, 61, UINT32_MAX, &b, records, NULL) == TL_ECORRUPT);
}

/* One or two records given as hex behind a right header. `position` counts from the records. */
static void check_payload(const char *hex, uint32_t count, uint32_t last_delta, bool good, int64_t position) {
    uint8_t p[256];
    const char *what;
    int64_t at;
    check_unhex(VECTOR_A, p);
    size_t bytes = 61 + check_unhex(hex, p + 61);
    slow_put_int(p + 8, bytes - 12, 4);
    slow_put_int(p + 23, last_delta, 4);
    slow_put_int(p + 57, count, 4);
    enum fate fate = judge(p, bytes, true, &what, &at);
    if (fate != (good ? DECODED : NO_RECORDS) || (!good && at != 61 + position))
        fprintf(stderr, "%s: fate %d at %lld: %s\n", hex, fate, (long long)at - 61, what);
    CHECK(fate == (good ? DECODED : NO_RECORDS));
    CHECK(good || at == 61 + position);
}

#define GOOD(hex, count, last_delta) check_payload(hex, count, last_delta, true, 0)
#define BAD(hex, count, last_delta, position) check_payload(hex, count, last_delta, false, position)

/* length, attributes, timestamp delta, offset delta, key length, value length, header count */
static void check_record_shapes(void) {
    GOOD("0c000000010100", 1, 0); /* null key, null value */
    GOOD("0c000000000000", 1, 0); /* empty key, empty value */
    GOOD("8c00000000010100", 1, 0); /* longer varints than necessary */
    GOOD("8c80808000000000010100", 1, 0);
    GOOD("0e00800000010100", 1, 0);
    GOOD("0c000002010100", 1, 1); /* gaps in front, between and behind */
    GOOD("0c0000000101000c00000a010100", 2, 9);

    BAD("8c8080808000000000010100", 1, 0, 0); /* a length of six bytes */
    BAD("0a000000010100", 1, 0, 0);           /* too short for its fields */
    BAD("0d000000010100", 1, 0, 0);           /* negative */
    BAD("0e000000010100", 1, 0, 0);           /* one byte past the batch */
    BAD("feffffff0f000000010100", 1, 0, 0);
    BAD("80808080808080", 1, 0, 0);
    BAD("0e00000001010000", 1, 0, 7); /* one byte too many in the record */
    BAD("0c00000001010000", 1, 0, 7); /* one byte too many in the batch */
    BAD("0c010000010100", 1, 0, 1);   /* attributes */
    BAD("0c008080808080", 1, 0, 2);   /* a timestamp delta without an end */
    BAD("18008080808080808080808000", 1, 0, 2);
    BAD("140000feffffff1f010100", 1, 0, 3); /* offset deltas: over 32 bits, negative, past the last, twice, falling */
    BAD("0c000001010100", 1, 0, 0);
    BAD("0c000002010100", 1, 0, 0);
    BAD("0c0000000101000c000000010100", 2, 1, 7);
    BAD("0c0000020101000c000000010100", 2, 1, 7);
    BAD("0c000000030100", 1, 0, 4); /* key lengths: -2, past the record, up to its end, the ends of int32 */
    BAD("0c000000060100", 1, 0, 4);
    BAD("0c000000040100", 1, 0, 7);
    BAD("14000000feffffff0f0100", 1, 0, 4);
    BAD("14000000ffffffff0f0100", 1, 0, 4);
    BAD("0c000000010300", 1, 0, 5); /* value lengths likewise */
    BAD("0c000000010400", 1, 0, 5);
    BAD("0c000000010200", 1, 0, 7);
    BAD("1400000001feffffff0f00", 1, 0, 5);
    BAD("1400000001ffffffff0f00", 1, 0, 5);
}

/* header count, then name length, name, value length, value of each */
static void check_header_shapes(void) {
    GOOD("100000000101020000", 1, 0); /* empty name, empty value */
    GOOD("100000000101020001", 1, 0); /* null value */
    GOOD("120000000101020261" "01", 1, 0); /* a name of one byte */
    BAD("0c000000010101", 1, 0, 7);   /* header counts: -1, more than two bytes each allow */
    BAD("100000000101040000", 1, 0, 7);
    BAD("140000000101feffffff0f", 1, 0, 11);
    BAD("100000000101020100", 1, 0, 7); /* a null name */
    BAD("100000000101020400", 1, 0, 7); /* a name, a value past the record */
    BAD("100000000101020002", 1, 0, 7);
    BAD("100000000101020003", 1, 0, 7);         /* a value length of -2 */
    BAD("1400000001010400000400", 1, 0, 9);     /* the second header is cut */
    BAD("12000000010102000000", 1, 0, 9);       /* bytes behind the last */
    BAD("180000000101020000feffffff", 1, 0, 9);
    /* A block may also be given to the reader without the record's check before. */
    static const char *const blocks[] = {"01",     "0400",   "040000",   "0200", "020100",
                                         "020400", "020003", "02000000", "80"};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        uint8_t bytes[16];
        size_t end = check_unhex(blocks[i], bytes), at = 0;
        uint8_t *exact = malloc(end);
        int32_t left = -1, value_bytes;
        uint32_t name_at, name_bytes, value_at;
        CHECK(exact != NULL);
        memcpy(exact, bytes, end);
        int result;
        while ((result = tl_header_next(exact, &at, end, &left, &name_at, &name_bytes, &value_at, &value_bytes)) == 1)
            CHECK(inside(name_at, name_bytes, 0, end) && inside(value_at, value_bytes, 0, end));
        CHECK(result == TL_ECORRUPT);
        free(exact);
    }
}

/* Batches of random messages, with random bytes changed, removed or repeated and the CRC made right. */
static void check_random_damage(void) {
    enum { ROUNDS = 60000, ROOM = 4096 };
    static uint8_t pool[512], whole[ROOM], headers[8 * 64];
    unsigned long fates[4] = {0};
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (uint8_t)check_random(&seed);
    for (int round = 0; round < ROUNDS; round++) {
        tl_message m[8];
        size_t count = 1 + check_random(&seed) % 8;
        for (size_t i = 0; i < count; i++) {
            m[i] = (tl_message){.key = pool, .value = pool + 100, .timestamp_ms = VECTOR_T + (int64_t)i};
            m[i].key_bytes = (int32_t)(check_random(&seed) % 20) - 1;
            m[i].value_bytes = round % 2 == 0 ? 20 : (int32_t)(check_random(&seed) % 90) - 1;
            if (check_random(&seed) % 2 == 0) {
                m[i].headers = headers + 64 * i;
                m[i].headers_bytes = random_headers(&seed, headers + 64 * i);
            }
        }
        size_t bytes = slow_encode(whole, (int64_t)(check_random(&seed) >> 2), &tl_batch_plain, m, count);
        for (uint64_t changes = check_random(&seed) % 3; changes > 0; changes--) {
            size_t at = 61 + check_random(&seed) % (bytes - 61), n = 1 + check_random(&seed) % 4;
            uint64_t kind = check_random(&seed) % 5;
            if (kind == 0) {
                whole[at] = (uint8_t)check_random(&seed);
            } else if (kind == 1) {
                whole[at] ^= (uint8_t)(1u << check_random(&seed) % 8);
            } else if (kind == 2) {
                whole[57 + check_random(&seed) % 4] ^= (uint8_t)(1u << check_random(&seed) % 8);
            } else if (kind == 3 && at + n < bytes) {
                memmove(whole + at, whole + at + n, bytes - at - n);
                bytes -= n;
            } else if (kind == 4 && bytes + n < ROOM) {
                memmove(whole + at + n, whole + at, bytes - at);
                bytes += n;
            }
            slow_put_int(whole + 8, bytes - 12, 4);
        }
        fates[judge(whole, bytes, true, NULL, NULL)]++;
    }
    CHECK(fates[NO_HEADER] > ROUNDS / 20 && fates[NO_CRC] == 0);
    CHECK(fates[NO_RECORDS] > ROUNDS / 20 && fates[DECODED] > ROUNDS / 20);
}

int main(void) {
    check_changed_between();
    check_cuts();
    check_flips();
    check_headers();
    check_record_shapes();
    check_header_shapes();
    check_random_damage();
    return check_report();
}
