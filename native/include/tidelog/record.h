/* How is one record of a batch framed: how many bytes does it take, and is what stands there a record?
 *
 * Imports varint.h, base.h. Callable from any thread: pure functions over the caller's memory.
 * length, attributes (0), timestamp delta, offset delta, key length, key, value length, value, header count, headers.
 * Everything read is hostile: a field is never looked for past the record's own end, which is never past `end`. */
#ifndef TIDELOG_RECORD_H
#define TIDELOG_RECORD_H

#include "tidelog/varint.h"

#define TL_RECORD_MIN_BYTES 7 /* seven fields of one byte each */

/* A batch is summed a few KiB at a time, while L1 still holds what was written or decoded: a checksum call per small
 * record costs more than the record. From TL_FUSE_BYTES on a value is copied and summed in one pass instead. */
#define TL_SUM_BYTES 4096
#define TL_FUSE_BYTES 768

/* Most values are of 16 to 256 bytes: a call of memcpy costs more than these moves. The last one overlaps. */
TL_INLINE void tl_copy_short(uint8_t *to, const uint8_t *from, size_t n) {
    if (TL_LIKELY(n >= 16 && n <= 256)) {
        for (size_t i = 0; i < n - 16; i += 16)
            memcpy(to + i, from + i, 16);
        memcpy(to + n - 16, from + n - 16, 16);
    } else if (n > 0) {
        memcpy(to, from, n);
    }
}

/* Bytes of a key or value with its length in front; -1 (null) takes the length only. */
TL_INLINE size_t tl_record_field_bytes(int32_t bytes) {
    return tl_varint_size(bytes) + (bytes > 0 ? (size_t)bytes : 0);
}

/* A record's bytes behind its length field. */
TL_INLINE size_t tl_record_body_bytes(int64_t timestamp_delta, int64_t offset_delta, int32_t key_bytes,
                                      int32_t value_bytes, size_t headers_bytes) {
    return 1 + tl_varint_size(timestamp_delta) + tl_varint_size(offset_delta) + tl_record_field_bytes(key_bytes) +
           tl_record_field_bytes(value_bytes) + (headers_bytes > 0 ? headers_bytes : 1);
}

TL_INLINE size_t tl_record_bytes(size_t body_bytes) {
    return tl_varint_size((int64_t)body_bytes) + body_bytes;
}

/* Deltas of timestamps wrap, as Java's do: any two timestamps can share a batch and come back unchanged. */
TL_INLINE int64_t tl_timestamp_delta(int64_t timestamp_ms, int64_t base_ms) {
    return (int64_t)((uint64_t)timestamp_ms - (uint64_t)base_ms);
}

TL_INLINE int64_t tl_timestamp_of(int64_t base_ms, int64_t delta) {
    return (int64_t)((uint64_t)base_ms + (uint64_t)delta);
}

/* A record's fields up to its value, written where it will stand; the key is NULL or key_bytes long. */
TL_INLINE uint8_t *tl_record_put_front(uint8_t *p, size_t body_bytes, int64_t timestamp_delta, int64_t offset_delta,
                                       const uint8_t *key, int32_t key_bytes, int32_t value_bytes) {
    p = tl_varint_put(p, (int64_t)body_bytes);
    *p++ = 0;
    p = tl_varint_put(p, timestamp_delta);
    p = tl_varint_put(p, offset_delta);
    p = tl_varint_put(p, key_bytes);
    if (key_bytes > 0) {
        memcpy(p, key, (size_t)key_bytes);
        p += key_bytes;
    }
    return tl_varint_put(p, value_bytes);
}

/* A record as it stands. The lengths were checked against the bytes, the pointers need no further check. */
typedef struct tl_record_view {
    const uint8_t *key, *value, *headers, *next;
    int64_t timestamp_delta;
    int32_t offset_delta, key_bytes, value_bytes; /* lengths: -1 null */
    int32_t header_count;
} tl_record_view;

/* A header's name and value; NULL when it is not one. */
static inline const uint8_t *tl_header_read(const uint8_t *p, const uint8_t *end, const uint8_t **name,
                                            int32_t *name_bytes, const uint8_t **value, int32_t *value_bytes) {
    p = tl_varint32_get(p, end, name_bytes);
    if (p == NULL || *name_bytes < 0 || *name_bytes > end - p)
        return NULL;
    *name = p;
    p = tl_varint32_get(p + *name_bytes, end, value_bytes);
    if (p == NULL || *value_bytes < -1 || *value_bytes > end - p)
        return NULL;
    *value = p;
    return *value_bytes > 0 ? p + *value_bytes : p;
}

static inline const char *tl_headers_check(const uint8_t *p, const uint8_t *end, int32_t count, const uint8_t **bad) {
    const uint8_t *name, *value;
    int32_t name_bytes, value_bytes;
    *bad = p;
    if (count < 0 || count > (end - p) / 2)
        return "a record's header count is negative or larger than its bytes allow";
    for (; count > 0; count--) {
        *bad = p;
        p = tl_header_read(p, end, &name, &name_bytes, &value, &value_bytes);
        if (p == NULL)
            return "a record's header has a null name or reaches past its record";
    }
    *bad = p;
    return p == end ? NULL : "a record has bytes left behind its last header";
}

/* A field of one or two bytes at the low end of a word, which loses it. false: it is longer. */
TL_INLINE bool tl_record_take(uint64_t *word, const uint8_t **p, uint32_t *zigzag) {
    uint32_t low = (uint32_t)*word & 0x7f;
    if (TL_LIKELY((*word & 0x80) == 0)) {
        *zigzag = low;
        *word >>= 8;
        *p += 1;
        return true;
    }
    *zigzag = low | ((uint32_t)*word >> 1 & 0x3f80);
    bool whole = (*word & 0x8000) == 0;
    *word >>= 16;
    *p += 2;
    return whole;
}

/* The record at p where it is one of nearly all: every length below 8192, no header, bytes behind it. Its fields are taken out
 * of words: a word is in bounds where a field may not be, so that one comparison bounds several of them. false: it may be
 * another one, or none. */
TL_INLINE bool tl_record_read_short(const uint8_t *p, const uint8_t *end, tl_record_view *out) {
    uint32_t length, timestamp, offset, key, value;
    if (TL_UNLIKELY(end - p < 16))
        return false;
    uint64_t word = tl_le64(p);
    if (TL_UNLIKELY(!tl_record_take(&word, &p, &length)))
        return false;
    const uint8_t *stop = p + (length >> 1);
    bool odd = (length & 1) != 0 || (word & 0xff) != 0; /* a negative length; attributes */
    word >>= 8;
    p++;
    if (TL_UNLIKELY(odd || !tl_record_take(&word, &p, &timestamp)))
        return false;
    word = tl_le64(p); /* at most 5 bytes behind the first one */
    if (TL_UNLIKELY(!tl_record_take(&word, &p, &offset) || !tl_record_take(&word, &p, &key)))
        return false;
    out->key = p;
    out->key_bytes = -1;
    if (key != 1) {
        p += key >> 1;
        if (TL_UNLIKELY((key & 1) != 0 || end - p < 8))
            return false;
        out->key_bytes = (int32_t)(key >> 1);
        word = tl_le64(p);
    }
    if (TL_UNLIKELY(!tl_record_take(&word, &p, &value) || (value & 1) != 0 || p + (value >> 1) + 1 != stop || stop > end ||
                    stop[-1] != 0))
        return false;
    out->value = p;
    out->value_bytes = (int32_t)(value >> 1);
    out->headers = stop - 1;
    out->next = stop;
    out->timestamp_delta = tl_unzigzag(timestamp);
    out->offset_delta = (int32_t)tl_unzigzag(offset);
    out->header_count = 0;
    return true;
}

/* Reads the record at p. NULL: it is one; otherwise a sentence, and *bad is where it fails. */
TL_INLINE const char *tl_record_read(const uint8_t *p, const uint8_t *end, tl_record_view *out, const uint8_t **bad) {
    int32_t length, header_count;
    if (TL_LIKELY(tl_record_read_short(p, end, out)))
        return NULL;
#define TL_RECORD_FAIL(at, sentence) \
    do { \
        *bad = (at); \
        return (sentence); \
    } while (0)
    const uint8_t *at = tl_varint32_get(p, end, &length);
    if (TL_UNLIKELY(at == NULL || length < TL_RECORD_MIN_BYTES - 1 || length > end - at))
        TL_RECORD_FAIL(p, "a record's length is too small or reaches past its batch");
    const uint8_t *stop = at + length; /* known early: the next record does not wait for this one's fields */
    out->next = stop;
    if (TL_UNLIKELY(*at != 0))
        TL_RECORD_FAIL(at, "a record's attributes are not 0");
    p = at + 1;
    at = tl_varint_get(p, stop, &out->timestamp_delta);
    if (TL_UNLIKELY(at == NULL))
        TL_RECORD_FAIL(p, "a record's timestamp delta is not a varint within its record");
    p = at;
    at = tl_varint32_get(p, stop, &out->offset_delta);
    if (TL_UNLIKELY(at == NULL))
        TL_RECORD_FAIL(p, "a record's offset delta is not a varint within its record");
    p = at;
    at = tl_varint32_get(p, stop, &out->key_bytes);
    if (TL_UNLIKELY(at == NULL || out->key_bytes < -1 || out->key_bytes > stop - at))
        TL_RECORD_FAIL(p, "a record's key length is below -1 or reaches past its record");
    out->key = at;
    p = at + (out->key_bytes & ~(out->key_bytes >> 31)); /* -1 counts as 0, without a branch on the data */
    at = tl_varint32_get(p, stop, &out->value_bytes);
    if (TL_UNLIKELY(at == NULL || out->value_bytes < -1 || out->value_bytes > stop - at))
        TL_RECORD_FAIL(p, "a record's value length is below -1 or reaches past its record");
    out->value = at;
    p = at + (out->value_bytes & ~(out->value_bytes >> 31));
    out->headers = p;
    at = tl_varint32_get(p, stop, &header_count);
    if (TL_UNLIKELY(at == NULL))
        TL_RECORD_FAIL(p, "a record's header count is not a varint within its record");
    out->header_count = header_count;
    if (TL_UNLIKELY(header_count != 0))
        return tl_headers_check(at, stop, header_count, bad);
    if (TL_UNLIKELY(at != stop))
        TL_RECORD_FAIL(at, "a record has bytes left behind its last field");
    return NULL;
#undef TL_RECORD_FAIL
}

#endif
