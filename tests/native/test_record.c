/* Does the reader of records, which takes short ones out of words, say the same as one that goes byte by byte?
 *
 * Imports slow_batch.h, record.h. Single-threaded. Each record stands in a heap block of exactly its size, or with bytes
 * behind it, so that AddressSanitizer sees a read past the end. */
#include "slow_batch.h"

#include "tidelog/record.h"

static uint64_t seed = 41;

/* A varint below `end` of at most `most` bytes; NULL: there is none. */
static const uint8_t *slow_varint(const uint8_t *p, const uint8_t *end, unsigned most, int64_t *out) {
    unsigned __int128 sum = 0, unit = 1;
    for (unsigned i = 0; i < most && p < end; i++, unit *= 128) {
        sum += unit * (*p % 128u);
        if (*p++ < 128) {
            if (sum > UINT64_MAX)
                return NULL;
            uint64_t u = (uint64_t)sum;
            *out = u % 2 == 0 ? (int64_t)(u / 2) : -(int64_t)(u / 2) - 1;
            return p;
        }
    }
    return NULL;
}

typedef struct slow_record {
    int64_t timestamp_delta, offset_delta, key_bytes, value_bytes;
    const uint8_t *key, *value, *next;
} slow_record;

static bool fits(int64_t v) { return v >= INT32_MIN && v <= INT32_MAX; }

/* A record without headers. */
static bool slow_read(const uint8_t *p, const uint8_t *end, slow_record *out) {
    int64_t length, count;
    if ((p = slow_varint(p, end, 5, &length)) == NULL || length < 6 || length > end - p)
        return false;
    end = p + length;
    if (*p++ != 0 || (p = slow_varint(p, end, 10, &out->timestamp_delta)) == NULL ||
        (p = slow_varint(p, end, 5, &out->offset_delta)) == NULL || !fits(out->offset_delta) ||
        (p = slow_varint(p, end, 5, &out->key_bytes)) == NULL || out->key_bytes < -1 || out->key_bytes > end - p)
        return false;
    out->key = p;
    p += out->key_bytes > 0 ? out->key_bytes : 0;
    if ((p = slow_varint(p, end, 5, &out->value_bytes)) == NULL || out->value_bytes < -1 || out->value_bytes > end - p)
        return false;
    out->value = p;
    p += out->value_bytes > 0 ? out->value_bytes : 0;
    out->next = end;
    return (p = slow_varint(p, end, 5, &count)) != NULL && count == 0 && p == end;
}

static void check_same(const uint8_t *bytes, size_t n, unsigned long *good) {
    uint8_t *exact = malloc(n > 0 ? n : 1);
    CHECK(exact != NULL);
    memcpy(exact, bytes, n);
    slow_record want;
    tl_record_view got;
    const uint8_t *bad = NULL;
    bool is = slow_read(exact, exact + n, &want);
    const char *what = tl_record_read(exact, exact + n, &got, &bad);
    if (is) {
        CHECK(what == NULL && got.next == want.next && got.header_count == 0);
        CHECK(got.timestamp_delta == want.timestamp_delta && got.offset_delta == want.offset_delta);
        CHECK(got.key_bytes == want.key_bytes && got.value_bytes == want.value_bytes);
        CHECK(got.key == want.key && got.value == want.value);
    } else if (what == NULL) { /* with headers: the block ends the record */
        CHECK(got.header_count > 0 && got.next <= exact + n);
    } else {
        CHECK(bad >= exact && bad <= exact + n);
    }
    *good += is;
    free(exact);
}

/* Lengths around every border of a field of one, two and three bytes. */
static int64_t some_length(void) {
    static const int64_t borders[] = {-1, 0, 1, 6, 63, 64, 100, 127, 128, 300, 4095, 8191, 8192, 9000};
    return borders[check_random(&seed) % (sizeof borders / sizeof *borders)];
}

int main(void) {
    enum { ROUNDS = 300000, ROOM = 32768 };
    static uint8_t body[ROOM], whole[ROOM];
    unsigned long good = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t key_bytes = check_random(&seed) % 2 == 0 ? -1 : some_length(), value_bytes = some_length();
        if (check_random(&seed) % 2 == 0) /* small ones are damaged where it matters */
            key_bytes = key_bytes > 3 ? 3 : key_bytes, value_bytes = value_bytes > 9 ? 9 : value_bytes;
        uint8_t *p = body;
        *p++ = check_random(&seed) % 50 == 0;
        p = slow_put_varint(p, (int64_t)(check_random(&seed) >> (check_random(&seed) % 64)) * (check_random(&seed) % 2 == 0 ? 1 : -1));
        p = slow_put_varint(p, (int64_t)(check_random(&seed) % 20000) - 100);
        p = slow_put_varint(p, key_bytes);
        for (int64_t i = 0; i < key_bytes; i++)
            *p++ = (uint8_t)check_random(&seed);
        p = slow_put_varint(p, value_bytes);
        for (int64_t i = 0; i < value_bytes; i++)
            *p++ = (uint8_t)check_random(&seed);
        *p++ = check_random(&seed) % 30 == 0;
        uint8_t *end = slow_put_varint(whole, p - body);
        end = slow_put_bytes(end, body, (size_t)(p - body));
        for (uint64_t more = check_random(&seed) % 3 == 0 ? check_random(&seed) % 24 : 0; more > 0; more--)
            *end++ = (uint8_t)check_random(&seed);
        size_t n = (size_t)(end - whole);
        for (uint64_t changes = check_random(&seed) % 4 == 0 ? 1 + check_random(&seed) % 2 : 0; changes > 0; changes--)
            whole[check_random(&seed) % (n < 24 ? n : 24)] ^= (uint8_t)(1u << check_random(&seed) % 8);
        if (check_random(&seed) % 8 == 0)
            n -= check_random(&seed) % (n < 24 ? n : 24);
        check_same(whole, n, &good);
    }
    CHECK(good > ROUNDS / 4 && good < ROUNDS - ROUNDS / 10);
    return check_report();
}
