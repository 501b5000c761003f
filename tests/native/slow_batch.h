/* What does a record batch look like, written byte by byte with no code of the core, and what do tests put in one?
 *
 * Imports check.h, batch.h (the structures only). Single-threaded. */
#ifndef TIDELOG_TEST_SLOW_BATCH_H
#define TIDELOG_TEST_SLOW_BATCH_H

#include "check.h"
#include "tidelog/batch.h"

/* Batches that Kafka's own classes parsed and whose CRC they accepted. T = VECTOR_T. */
#define VECTOR_T INT64_C(1700000000000)
#define VECTOR_A_BYTES 103
#define VECTOR_A /* three records: (T, k1, hello), (T+5, null, world, header h=v), (T-3, k3, null, header n=null) */ \
    "00000000000000000000005b00000000027f20915c0000000000020000018bcfe568000000018bcfe56805ffffffffffffff" \
    "ffffffffffffff000000031a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b330102" \
    "026e01"
#define VECTOR_B /* transactional, producer 1000, epoch 2, sequence 7: a=1 */ \
    "00000000000000000000003a0000000002e3c713880010000000000000018bcfe568000000018bcfe5680000000000000003" \
    "e800020000000700000001100000000261023100"
#define VECTOR_C /* commit marker at offset 10 */ \
    "000000000000000a000000420000000002faf141810030000000000000018bcfe568000000018bcfe5680000000000000003" \
    "e80002ffffffff000000012000000008000000010c00000000000000"
#define VECTOR_D /* abort marker */ \
    "000000000000000a0000004200000000020ecf97c90030000000000000018bcfe568000000018bcfe5680000000000000003" \
    "e80002ffffffff000000012000000008000000000c00000000000000"
#define VECTOR_E /* append time T+99, base offset 100, leader epoch 5: x=y */ \
    "00000000000000640000003a00000005029b76ca500008000000000000018bcfe568000000018bcfe56863ffffffffffffff" \
    "ffffffffffffff00000001100000000278027900"
#define VECTOR_F /* left empty by compaction: offsets 500 to 509 */ \
    "00000000000001f40000003100000003025d16da6f001000000009ffffffffffffffff0000018bcfe5680000000000000003" \
    "e800020000002800000000"
#define VECTOR_ZSTD /* the records of A, compressed */ \
    "0000000000000000000000640000000002dcc84c8e0004000000020000018bcfe568000000018bcfe56805ffffffffffffff" \
    "ffffffffffffff0000000328b52ffd202a5101001a000000046b310a68656c6c6f001e000a02010a776f726c640202680276" \
    "16000504046b330102026e01"

static inline uint32_t slow_crc32c(const uint8_t *p, size_t n) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc / 2 ^ 0x82f63b78u : crc / 2;
    }
    return ~crc;
}

/* Big-endian, `bytes` wide. */
static inline uint8_t *slow_put_int(uint8_t *p, uint64_t v, unsigned bytes) {
    for (unsigned i = bytes; i-- > 0;) {
        p[i] = (uint8_t)v;
        v /= 256;
    }
    return p + bytes;
}

static inline uint8_t *slow_put_varint(uint8_t *p, int64_t v) {
    uint64_t u = v >= 0 ? 2 * (uint64_t)v : 2 * (uint64_t)(-(v + 1)) + 1;
    for (; u >= 128; u /= 128)
        *p++ = (uint8_t)(u % 128 + 128);
    *p++ = (uint8_t)u;
    return p;
}

static inline uint8_t *slow_put_bytes(uint8_t *p, const uint8_t *from, size_t n) {
    for (size_t i = 0; i < n; i++)
        *p++ = from[i];
    return p;
}

/* Sets the CRC of a batch of `bytes` bytes, so that a damaged one gets past it. */
static inline void slow_fix_crc(uint8_t *batch, size_t bytes) {
    slow_put_int(batch + 17, slow_crc32c(batch + 21, bytes - 21), 4);
}

/* Returns the bytes written to out, which must have room. A record is built aside first, to learn its length. */
static inline size_t slow_encode(uint8_t *out, int64_t base_offset, const tl_batch_spec *spec, const tl_message *m,
                                 size_t count) {
    uint8_t *p = out + 61;
    int64_t max_ms = m[0].timestamp_ms;
    for (size_t i = 0; i < count; i++) {
        size_t key = m[i].key_bytes > 0 ? (size_t)m[i].key_bytes : 0;
        size_t value = m[i].value_bytes > 0 ? (size_t)m[i].value_bytes : 0;
        uint8_t *aside = malloc(64 + key + value + m[i].headers_bytes), *q = aside;
        CHECK(aside != NULL);
        *q++ = 0;
        q = slow_put_varint(q, (int64_t)((uint64_t)m[i].timestamp_ms - (uint64_t)m[0].timestamp_ms));
        q = slow_put_varint(q, (int64_t)i);
        q = slow_put_varint(q, m[i].key_bytes);
        q = slow_put_bytes(q, m[i].key, key);
        q = slow_put_varint(q, m[i].value_bytes);
        q = slow_put_bytes(q, m[i].value, value);
        if (m[i].headers != NULL)
            q = slow_put_bytes(q, m[i].headers, m[i].headers_bytes);
        else
            *q++ = 0;
        p = slow_put_varint(p, q - aside);
        p = slow_put_bytes(p, aside, (size_t)(q - aside));
        free(aside);
        if (m[i].timestamp_ms > max_ms)
            max_ms = m[i].timestamp_ms;
    }
    size_t bytes = (size_t)(p - out);
    p = slow_put_int(out, (uint64_t)base_offset, 8);
    p = slow_put_int(p, bytes - 12, 4);
    p = slow_put_int(p, 0, 4);
    *p = 2;
    p = slow_put_int(p + 5, spec->attributes, 2);
    p = slow_put_int(p, count - 1, 4);
    p = slow_put_int(p, (uint64_t)m[0].timestamp_ms, 8);
    p = slow_put_int(p, (uint64_t)max_ms, 8);
    p = slow_put_int(p, (uint64_t)spec->producer_id, 8);
    p = slow_put_int(p, (uint64_t)spec->producer_epoch, 2);
    p = slow_put_int(p, (uint64_t)spec->base_sequence, 4);
    slow_put_int(p, count, 4);
    slow_fix_crc(out, bytes);
    return bytes;
}

/* Lengths near every width of a varint, and now and then a large one. */
static inline int32_t random_length(uint64_t *seed, uint32_t largest) {
    static const uint32_t edges[] = {0,   1,   15,  16,  17,  48,  56,   63,   64,   65,  100,
                                     255, 256, 257, 767, 768, 769, 1024, 4096, 8191, 8192};
    uint64_t kind = check_random(seed) % 8;
    uint32_t n = (uint32_t)(check_random(seed) % 120);
    if (kind == 0)
        n = edges[check_random(seed) % (sizeof edges / sizeof *edges)];
    else if (kind == 1)
        n = (uint32_t)check_random(seed) >> (check_random(seed) % 32);
    return (int32_t)(n > largest ? n % (largest + 1) : n);
}

/* A block of up to three headers, some with null or empty values, at out; its bytes. */
static inline uint32_t random_headers(uint64_t *seed, uint8_t *out) {
    uint32_t count = (uint32_t)(check_random(seed) % 4);
    uint8_t *p = slow_put_varint(out, count);
    for (; count > 0; count--) {
        for (int part = 0; part < 2; part++) {
            int32_t n = (int32_t)(check_random(seed) % 9) - part;
            p = slow_put_varint(p, n);
            for (; n > 0; n--)
                *p++ = (uint8_t)check_random(seed);
        }
    }
    return (uint32_t)(p - out);
}

#endif
