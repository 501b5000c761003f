/* What is Kafka's murmur2 of a key, and which partition follows from it?
 *
 * Imports base.h. Callable from any thread: pure functions.
 * Source: the 32-bit MurmurHash2 with seed 0x9747b28c, as Kafka's default partitioner uses it. */
#ifndef TIDELOG_MURMUR2_H
#define TIDELOG_MURMUR2_H

#include "tidelog/base.h"

uint32_t tl_murmur2(const void *key, size_t bytes);

/* A key's length without its trailing NULs (NumPy's S). Batches store the bytes that are hashed here. */
static inline size_t tl_stripped_bytes(const uint8_t *key, size_t bytes) {
    while (bytes >= 8 && tl_le64(key + bytes - 8) == 0)
        bytes -= 8;
    while (bytes > 0 && key[bytes - 1] == 0)
        bytes--;
    return bytes;
}

/* "To positive" is a mask in Kafka, not an absolute value. `partitions` > 0. */
TL_INLINE uint32_t tl_partition_of(uint32_t hash, uint32_t partitions) {
    return (hash & 0x7fffffffu) % partitions;
}

/* n % divisor without a division, exact for every n below 2^31 (Granlund and Montgomery). For the smallest k with
 * 2^k >= divisor, multiplier = ceil(2^(31 + k) / divisor) fits 32 bits, and what the rounding adds to n's quotient is
 * below 1 / divisor: never enough to reach the next whole number. */
typedef struct tl_modulus {
    uint32_t divisor, multiplier;
    uint32_t shift; /* 31 + k */
} tl_modulus;

TL_INLINE tl_modulus tl_modulus_of(uint32_t divisor) {
    uint32_t shift = divisor < 2 ? 31 : 63 - (uint32_t)__builtin_clz(divisor - 1);
    return (tl_modulus){.divisor = divisor,
                        .multiplier = (uint32_t)(((UINT64_C(1) << shift) + divisor - 1) / divisor),
                        .shift = shift};
}

TL_INLINE uint32_t tl_modulus_take(const tl_modulus *modulus, uint32_t n) {
    uint32_t quotient = (uint32_t)(((uint64_t)n * modulus->multiplier) >> modulus->shift);
    return n - quotient * modulus->divisor;
}

/* Partitions of `count` keys at keys[i], keys_bytes[i]; a NULL key gets UINT32_MAX. */
void tl_partition_slices(const uint8_t *const *keys, const int32_t *keys_bytes, size_t count, uint32_t partitions,
                         uint32_t *out);

/* The same for fixed-width keys, `stride` bytes apart. `strip`: trailing NULs do not belong to a key (NumPy's S). */
void tl_partition_rows(const uint8_t *keys, size_t stride, size_t key_bytes, bool strip, size_t count,
                       uint32_t partitions, uint32_t *out);

/* "avx2" or "scalar": how tl_partition_rows works here. For tests and benchmarks, tl_partition_rows_select() changes it
 * for the whole process; TL_EUNSUPPORTED when this build or CPU lacks it. */
const char *tl_partition_rows_name(void);
int tl_partition_rows_select(const char *name);

#endif
