/* Are zigzag varints measured, written and read as Kafka does, at every boundary and cut at every length?
 *
 * Imports varint.h. Single-threaded. The oracle works bit by bit and shares no code with the header. */
#include "check.h"
#include "tidelog/varint.h"

/* Zigzag by cases and base-128 by division. */
static size_t slow_put(uint8_t *out, int64_t v) {
    uint64_t u = v >= 0 ? 2 * (uint64_t)v : 2 * (uint64_t)(-(v + 1)) + 1;
    size_t n = 0;
    for (;;) {
        uint8_t low = (uint8_t)(u % 128);
        u /= 128;
        out[n++] = (uint8_t)(u > 0 ? low + 128 : low);
        if (u == 0)
            return n;
    }
}

/* In a heap block of exactly n bytes, so that AddressSanitizer sees a read past the end. */
static bool read_exact(const uint8_t *bytes, size_t n, size_t *used, int64_t *out, bool narrow) {
    uint8_t *p = malloc(n > 0 ? n : 1);
    CHECK(p != NULL);
    memcpy(p, bytes, n);
    int32_t small = 0;
    const uint8_t *after = narrow ? tl_varint32_get(p, p + n, &small) : tl_varint_get(p, p + n, out);
    if (after != NULL && narrow)
        *out = small;
    if (after != NULL)
        *used = (size_t)(after - p);
    free(p);
    return after != NULL;
}

static void check_value(int64_t v) {
    uint8_t want[16], got[16];
    size_t n = slow_put(want, v), used;
    int64_t back;
    memset(got, 0xee, sizeof got);
    CHECK(tl_varint_size(v) == n);
    CHECK(tl_varint_put(got, v) == got + n && memcmp(got, want, n) == 0 && got[n] == 0xee);
    CHECK(tl_unzigzag(tl_zigzag(v)) == v);
    bool narrow = v >= INT32_MIN && v <= INT32_MAX;
    want[n] = 0x55; /* what follows is not looked at */
    for (size_t more = 0; more < 2; more++) {
        CHECK(read_exact(want, n + more, &used, &back, false) && back == v && used == n);
        CHECK(read_exact(want, n + more, &used, &back, true) == narrow);
        CHECK(!narrow || (back == v && used == n));
    }
    for (size_t cut = 0; cut < n; cut++) {
        CHECK(!read_exact(want, cut, &used, &back, false));
        CHECK(!read_exact(want, cut, &used, &back, true));
    }
    /* The same value with zero groups behind it: allowed while it fits the type's longest form. */
    for (size_t longer = n + 1; longer <= 11; longer++) {
        want[n - 1] |= 0x80;
        for (size_t i = n; i < longer; i++)
            want[i] = i + 1 < longer ? 0x80 : 0;
        CHECK(read_exact(want, longer, &used, &back, false) == (longer <= TL_VARINT_MAX));
        CHECK(longer > TL_VARINT_MAX || (back == v && used == longer));
        CHECK(read_exact(want, longer, &used, &back, true) == (narrow && longer <= TL_VARINT32_MAX));
        CHECK(!narrow || longer > TL_VARINT32_MAX || (back == v && used == longer));
    }
}

static void check_vectors(void) {
    static const struct {
        int64_t value;
        const char *hex;
    } vectors[] = {{0, "00"},
                   {-1, "01"},
                   {1, "02"},
                   {-2, "03"},
                   {63, "7e"},
                   {-64, "7f"},
                   {64, "8001"},
                   {-65, "8101"},
                   {300, "d804"},
                   {8191, "fe7f"},
                   {-8192, "ff7f"},
                   {8192, "808001"},
                   {INT32_MAX, "feffffff0f"},
                   {INT32_MIN, "ffffffff0f"},
                   {INT64_MAX, "feffffffffffffffff01"},
                   {INT64_MIN, "ffffffffffffffffff01"},
                   {1700000000000, "80a0abfef962"}};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t want[16], got[16];
        size_t n = check_unhex(vectors[i].hex, want), used;
        int64_t back;
        CHECK(tl_varint_put(got, vectors[i].value) == got + n && memcmp(got, want, n) == 0);
        CHECK(read_exact(want, n, &used, &back, false) && back == vectors[i].value && used == n);
    }
}

static void check_refused(void) {
    static const struct {
        const char *hex;
        bool wide, narrow; /* whether it can be read as 64 and as 32 bits */
    } cases[] = {{"", false, false},
                 {"80", false, false},
                 {"8080808080", false, false},
                 {"feffffff0f", true, true},
                 {"feffffff1f", true, false}, /* 2^32 - 1: bits past the 32nd, in five bytes */
                 {"8080808010", true, false},
                 {"ffffffff7f", true, false},
                 {"ffffffffffffffffff01", true, false},
                 {"ffffffffffffffffff02", false, false}, /* a 65th bit */
                 {"ffffffffffffffffff7f", false, false},
                 {"8080808080808080808000", false, false},
                 {"ffffffffffffffffffff01", false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[16];
        size_t n = check_unhex(cases[i].hex, bytes), used;
        int64_t back;
        CHECK(read_exact(bytes, n, &used, &back, false) == cases[i].wide);
        CHECK(read_exact(bytes, n, &used, &back, true) == cases[i].narrow);
    }
}

int main(void) {
    check_vectors();
    check_refused();
    for (int64_t v = -70000; v <= 70000; v += v > -9000 && v < 9000 ? 1 : 7)
        check_value(v);
    for (unsigned bit = 0; bit < 63; bit++) {
        for (int64_t near = -2; near <= 2; near++) {
            int64_t v = (int64_t)((UINT64_C(1) << bit) + (uint64_t)near);
            check_value(v);
            check_value(-v);
        }
    }
    for (int64_t near = 0; near < 3; near++) {
        check_value(INT64_MAX - near);
        check_value(INT64_MIN + near);
    }
    uint64_t seed = 3;
    for (int i = 0; i < 20000; i++) {
        uint64_t v = check_random(&seed);
        check_value((int64_t)(v >> (check_random(&seed) & 63)));
        check_value((int64_t)~(v >> (check_random(&seed) & 63)));
    }
    return check_report();
}
