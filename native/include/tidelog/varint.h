/* How is a zigzag varint (Kafka's varint and varlong) measured, written and read?
 *
 * Imports base.h. Callable from any thread: pure functions over the caller's bytes.
 * Readers take (cursor, end) and return the new cursor, or NULL when the bytes run out or do not fit the type;
 * they never look at a byte at or past `end`. Encodings longer than necessary are accepted, as Kafka accepts them. */
#ifndef TIDELOG_VARINT_H
#define TIDELOG_VARINT_H

#include "tidelog/base.h"

#define TL_VARINT_MAX 10
#define TL_VARINT32_MAX 5

TL_INLINE uint64_t tl_zigzag(int64_t v) {
    return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

TL_INLINE int64_t tl_unzigzag(uint64_t u) {
    return (int64_t)((u >> 1) ^ (0 - (u & 1)));
}

/* Bytes of a zigzag value that needs `bits` bits: ceil(bits / 7) for 1..64, without a division. */
TL_INLINE size_t tl_varint_size(int64_t v) {
    unsigned bits = 64u - (unsigned)__builtin_clzll(tl_zigzag(v) | 1);
    return (bits * 9 + 64) >> 6;
}

/* Writes at most TL_VARINT_MAX bytes; a value in the int32 range at most TL_VARINT32_MAX. */
TL_INLINE uint8_t *tl_varint_put(uint8_t *p, int64_t v) {
    uint64_t u = tl_zigzag(v);
    if (TL_LIKELY(u < 0x80)) {
        p[0] = (uint8_t)u;
        return p + 1;
    }
    if (TL_LIKELY(u < 0x4000)) {
        p[0] = (uint8_t)(u | 0x80);
        p[1] = (uint8_t)(u >> 7);
        return p + 2;
    }
    while (u >= 0x80) {
        *p++ = (uint8_t)(u | 0x80);
        u >>= 7;
    }
    *p++ = (uint8_t)u;
    return p;
}

/* A zigzag value below 2^14 as it is written in one or two bytes, in the low bytes of a word. */
TL_INLINE uint64_t tl_varint_zigzag_in(uint64_t u, unsigned bytes) { return bytes == 1 ? u : (u & 0x7f) | 0x80 | (u << 1 & 0x7f00); }

TL_INLINE uint64_t tl_varint_zigzag_word(uint32_t u, unsigned *bytes) {
    *bytes = u < 0x80 ? 1 : 2;
    return tl_varint_zigzag_in(u, *bytes);
}

/* The same of a value below 8192. */
TL_INLINE uint64_t tl_varint_word(uint32_t v, unsigned *bytes) { return tl_varint_zigzag_word(2 * v, bytes); }

static inline const uint8_t *tl_varint_get_slow(const uint8_t *p, const uint8_t *end, int64_t *out) {
    uint64_t u = 0;
    for (unsigned shift = 0; shift < 70 && p < end; shift += 7) {
        uint64_t byte = *p++;
        if (shift == 63 && byte > 1)
            return NULL; /* a tenth byte may hold one bit only */
        u |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = tl_unzigzag(u);
            return p;
        }
    }
    return NULL;
}

TL_INLINE const uint8_t *tl_varint_get(const uint8_t *p, const uint8_t *end, int64_t *out) {
    if (TL_LIKELY(p < end)) {
        uint32_t first = p[0];
        if (TL_LIKELY(first < 0x80)) {
            *out = tl_unzigzag(first);
            return p + 1;
        }
        if (TL_LIKELY(end - p > 1 && p[1] < 0x80)) {
            *out = tl_unzigzag((first & 0x7f) | ((uint32_t)p[1] << 7));
            return p + 2;
        }
    }
    return tl_varint_get_slow(p, end, out);
}

/* Fails as well when the value needs more than five bytes or does not fit int32. */
TL_INLINE const uint8_t *tl_varint32_get(const uint8_t *p, const uint8_t *end, int32_t *out) {
    if (TL_LIKELY(p < end)) {
        uint32_t first = p[0];
        if (TL_LIKELY(first < 0x80)) {
            *out = (int32_t)((first >> 1) ^ (0 - (first & 1)));
            return p + 1;
        }
        if (TL_LIKELY(end - p > 1 && p[1] < 0x80)) {
            uint32_t u = (first & 0x7f) | ((uint32_t)p[1] << 7);
            *out = (int32_t)((u >> 1) ^ (0 - (u & 1)));
            return p + 2;
        }
    }
    int64_t wide = 0;
    const uint8_t *limit = end - p > TL_VARINT32_MAX ? p + TL_VARINT32_MAX : end;
    p = tl_varint_get_slow(p, limit, &wide);
    if (p == NULL || wide < INT32_MIN || wide > INT32_MAX)
        return NULL;
    *out = (int32_t)wide;
    return p;
}

#endif
