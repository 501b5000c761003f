/* Does every CRC-32C implementation agree with a bit-by-bit oracle, at every length, alignment and split?
 *
 * Imports crc32c.h. Single-threaded. */
#include "check.h"
#include "tidelog/crc32c.h"

#define LONGEST 4096

static uint32_t bitwise(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static uint8_t data[LONGEST + 64], copy[LONGEST + 192];
static uint32_t expected[8][LONGEST + 1];

static void check_vectors(void) {
    uint8_t block[32];
    CHECK(tl_crc32c(0, "", 0) == 0);
    CHECK(tl_crc32c(0, "123456789", 9) == 0xe3069283u);
    memset(block, 0, 32);
    CHECK(tl_crc32c(0, block, 32) == 0x8a9136aau);
    memset(block, 0xff, 32);
    CHECK(tl_crc32c(0, block, 32) == 0x62a8ab43u);
}

static void check_lengths(void) {
    for (size_t align = 0; align < 8; align++) {
        for (size_t n = 0; n <= LONGEST; n++) {
            uint32_t start = (uint32_t)(n * 2654435761u) & (0u - (uint32_t)(align & 1));
            uint32_t want = start == 0 ? expected[align][n] : tl_crc32c_combine(start, expected[align][n], n);
            CHECK(tl_crc32c(start, data + align, n) == want);
            uint8_t *to = copy + 64 + (7 * align + n) % 64;
            memset(to - 1, 0x5a, n + 2);
            CHECK(tl_crc32c_copy(to, data + align, n, start) == want);
            CHECK(memcmp(to, data + align, n) == 0 && to[-1] == 0x5a && to[n] == 0x5a);
        }
    }
}

static void check_pieces(void) {
    uint64_t seed = 11;
    for (int i = 0; i < 40000; i++) {
        size_t front_bytes = check_random(&seed) % 9, n = check_random(&seed) % (i % 4 == 0 ? 2048 : 200);
        size_t zero = check_random(&seed) & 1;
        uint64_t front = check_random(&seed);
        uint32_t start = (uint32_t)check_random(&seed);
        static uint8_t want[4096], got[4096 + 16];
        memcpy(want, &front, front_bytes);
        memcpy(want + front_bytes, data + i % 64, n);
        want[front_bytes + n] = 0;
        size_t total = front_bytes + n + zero;
        memset(got, 0x5a, sizeof got);
        CHECK(tl_crc32c_piece(start, got, front, front_bytes, data + i % 64, n, zero) == tl_crc32c(start, want, total));
        CHECK(memcmp(got, want, total) == 0 && got[total + 8] == 0x5a);
        uint64_t words[5];
        for (int k = 0; k < 5; k++)
            words[k] = check_random(&seed);
        size_t bytes = check_random(&seed) % (sizeof words + 1);
        CHECK(tl_crc32c_words(start, words, bytes) == tl_crc32c(start, words, bytes));
    }
}

static void check_splits_and_combine(void) {
    uint64_t seed = 7;
    for (int i = 0; i < 20000; i++) {
        size_t n = check_random(&seed) % (LONGEST + 1), at = check_random(&seed) % (n + 1);
        uint32_t a = tl_crc32c(0, data, at), b = tl_crc32c(0, data + at, n - at);
        CHECK(tl_crc32c(a, data + at, n - at) == expected[0][n]);
        CHECK(tl_crc32c_combine(a, b, n - at) == expected[0][n]);
    }
    /* Zero bytes far beyond what can be hashed: moving over a then b equals moving over a + b. */
    for (int i = 0; i < 2000; i++) {
        uint64_t a = check_random(&seed) >> (i & 31), b = check_random(&seed) >> (i & 63);
        uint32_t crc = (uint32_t)check_random(&seed);
        CHECK(tl_crc32c_combine(tl_crc32c_combine(crc, 0, a >> 1), 0, b >> 1) ==
              tl_crc32c_combine(crc, 0, (a >> 1) + (b >> 1)));
    }
}

/* Exactly sized heap blocks, so that AddressSanitizer sees a read past either end. */
static void check_bounds(void) {
    for (size_t n = 1; n <= 700; n++) {
        uint8_t *from = malloc(n), *to = malloc(n);
        CHECK(from != NULL && to != NULL);
        memcpy(from, data, n);
        CHECK(tl_crc32c(0, from, n) == expected[0][n]);
        CHECK(tl_crc32c_copy(to, from, n, 0) == expected[0][n] && memcmp(from, to, n) == 0);
        free(from);
        free(to);
    }
}

static void check_large(void) {
    size_t n = (1u << 20) + 77;
    uint8_t *big = malloc(n), *to = malloc(n);
    CHECK(big != NULL && to != NULL);
    uint64_t seed = 9;
    for (size_t i = 0; i < n; i++)
        big[i] = (uint8_t)check_random(&seed);
    uint32_t want = bitwise(0, big, n);
    CHECK(tl_crc32c(0, big, n) == want);
    CHECK(tl_crc32c_copy(to, big, n, 0) == want && memcmp(big, to, n) == 0);
    free(big);
    free(to);
}

int main(void) {
    static const char *names[] = {"table", "sse42", "pclmul", "avx512", "armv8"};
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)check_random(&seed);
    for (size_t align = 0; align < 8; align++)
        for (size_t n = 1; n <= LONGEST; n++)
            expected[align][n] = bitwise(expected[align][n - 1], data + align + n - 1, 1);
    printf("default: %s;", tl_crc32c_name());
    check_vectors();
    CHECK(tl_crc32c_select("none") == TL_EUNSUPPORTED);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int status = tl_crc32c_select(names[i]);
        CHECK(status == TL_OK || status == TL_EUNSUPPORTED);
        if (status != TL_OK)
            continue;
        CHECK(strcmp(tl_crc32c_name(), names[i]) == 0);
        printf(" %s", names[i]);
        check_vectors();
        check_lengths();
        check_splits_and_combine();
        check_pieces();
        check_bounds();
        check_large();
    }
    printf("; ");
    return check_report();
}
