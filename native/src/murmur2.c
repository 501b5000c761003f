/* What is Kafka's murmur2 of a key, and of many keys at once?
 *
 * Imports murmur2.h. Callable from any thread; the implementation is chosen by CPU before main() and read through one
 * atomic pointer, as in crc32c.c.
 *
 * One hash is a chain of multiplications, each waiting for the one before. Many hashes are independent: the processor
 * overlaps them by itself in the scalar loop, and eight go through one AVX2 register. */
#include "tidelog/murmur2.h"

#define SEED 0x9747b28cu
#define MULTIPLIER 0x5bd1e995u
#define POSITIVE 0x7fffffffu

TL_INLINE uint32_t mix(uint32_t h, uint32_t word) {
    word *= MULTIPLIER;
    word ^= word >> 24;
    word *= MULTIPLIER;
    return (h * MULTIPLIER) ^ word;
}

/* The last `bytes` & 3 bytes of a key as a little-endian number. */
TL_INLINE uint32_t last_word(const uint8_t *key, size_t bytes) {
    size_t rest = bytes & 3;
    if (bytes >= 4) /* one load that ends where the key ends */
        return tl_le32(key + bytes - 4) >> 1 >> (31 - 8 * rest);
    uint32_t word = 0;
    for (size_t i = 0; i < rest; i++)
        word |= (uint32_t)key[i] << (8 * i);
    return word;
}

TL_INLINE uint32_t hash_of(const uint8_t *key, size_t bytes) {
    uint32_t h = SEED ^ (uint32_t)bytes;
    for (size_t i = 0; i + 4 <= bytes; i += 4)
        h = mix(h, tl_le32(key + i));
    if ((bytes & 3) != 0)
        h = (h ^ last_word(key, bytes)) * MULTIPLIER;
    h ^= h >> 13;
    h *= MULTIPLIER;
    return h ^ (h >> 15);
}

uint32_t tl_murmur2(const void *key, size_t bytes) { return hash_of(key, bytes); }

static void scalar_slices(const uint8_t *const *keys, const int32_t *keys_bytes, size_t from, size_t count,
                          const tl_modulus *modulus, uint32_t *out) {
    for (size_t i = from; i < count; i++)
        out[i] = keys[i] == NULL || keys_bytes[i] < 0
                     ? UINT32_MAX
                     : tl_modulus_take(modulus, hash_of(keys[i], (size_t)keys_bytes[i]) & POSITIVE);
}

/* --- fixed-width keys --- */

typedef struct key_rows {
    const uint8_t *keys;
    size_t stride, key_bytes;
    tl_modulus modulus;
} key_rows;

static void scalar_rows(const key_rows *rows, bool strip, size_t from, size_t count, uint32_t *out) {
    const uint8_t *key = rows->keys + from * rows->stride;
    for (size_t i = from; i < count; i++, key += rows->stride) {
        size_t bytes = strip ? tl_stripped_bytes(key, rows->key_bytes) : rows->key_bytes;
        out[i] = tl_modulus_take(&rows->modulus, hash_of(key, bytes) & POSITIVE);
    }
}

typedef struct implementation {
    const char *name;
    void (*rows)(const key_rows *rows, bool strip, size_t from, size_t count, uint32_t *out);
    void (*slices)(const uint8_t *const *keys, const int32_t *keys_bytes, size_t from, size_t count,
                   const tl_modulus *modulus, uint32_t *out);
} implementation;

static const implementation with_scalar = {"scalar", scalar_rows, scalar_slices};
static const implementation *chosen = &with_scalar;

#if defined(__x86_64__)

#include <immintrin.h>
#define WIDE __attribute__((target("avx2")))
#define WIDE_INLINE WIDE static inline __attribute__((always_inline))
#define LANES 8
#define MAX_WORDS 16 /* of a key: longer ones gain nothing from lanes */

WIDE_INLINE __m256i two(__m128i low, __m128i high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

WIDE_INLINE __m256i load_16(const uint8_t *const *lanes, size_t lane, size_t at) {
    return two(_mm_loadu_si128((const __m128i_u *)(lanes[lane] + at)),
               _mm_loadu_si128((const __m128i_u *)(lanes[lane + 4] + at)));
}

WIDE_INLINE __m256i load_8(const uint8_t *const *lanes, size_t lane, size_t at) {
    return two(_mm_loadl_epi64((const __m128i_u *)(lanes[lane] + at)),
               _mm_loadl_epi64((const __m128i_u *)(lanes[lane + 4] + at)));
}

/* Word j of eight keys goes to words[j], lane by lane; the last one may be partial. No byte outside a key is loaded. */
WIDE_INLINE void load_words(const uint8_t *const *lanes, size_t key_bytes, __m256i words[MAX_WORDS]) {
    size_t j = 0;
    for (; 4 * j + 16 <= key_bytes; j += 4) {
        __m256i a = load_16(lanes, 0, 4 * j), b = load_16(lanes, 1, 4 * j);
        __m256i c = load_16(lanes, 2, 4 * j), d = load_16(lanes, 3, 4 * j);
        __m256i ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
        __m256i cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
        words[j] = _mm256_unpacklo_epi64(ab_low, cd_low);
        words[j + 1] = _mm256_unpackhi_epi64(ab_low, cd_low);
        words[j + 2] = _mm256_unpacklo_epi64(ab_high, cd_high);
        words[j + 3] = _mm256_unpackhi_epi64(ab_high, cd_high);
    }
    if (4 * j + 8 <= key_bytes) {
        __m256i ab = _mm256_unpacklo_epi32(load_8(lanes, 0, 4 * j), load_8(lanes, 1, 4 * j));
        __m256i cd = _mm256_unpacklo_epi32(load_8(lanes, 2, 4 * j), load_8(lanes, 3, 4 * j));
        words[j++] = _mm256_unpacklo_epi64(ab, cd);
        words[j++] = _mm256_unpackhi_epi64(ab, cd);
    }
    for (; 4 * j < key_bytes; j++) {
        uint32_t last[LANES];
        for (size_t lane = 0; lane < LANES; lane++)
            last[lane] = 4 * j + 4 <= key_bytes ? tl_le32(lanes[lane] + 4 * j) : last_word(lanes[lane], key_bytes);
        words[j] = _mm256_loadu_si256((const __m256i_u *)last);
    }
}

WIDE_INLINE __m256i mix_lanes(__m256i h, __m256i word) {
    const __m256i m = _mm256_set1_epi32((int)MULTIPLIER);
    word = _mm256_mullo_epi32(word, m);
    word = _mm256_mullo_epi32(_mm256_xor_si256(word, _mm256_srli_epi32(word, 24)), m);
    return _mm256_xor_si256(_mm256_mullo_epi32(h, m), word);
}

WIDE_INLINE __m256i mix_rest(__m256i h, __m256i word) {
    return _mm256_mullo_epi32(_mm256_xor_si256(h, word), _mm256_set1_epi32((int)MULTIPLIER));
}

/* Each lane's key without its trailing NULs. */
WIDE_INLINE __m256i stripped_lanes(const __m256i *words, size_t count) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i bytes = zero;
    for (size_t j = 0; j < count; j++) {
        __m256i word = words[j], until = _mm256_set1_epi32((int)(4 * j + 4)); /* each NUL at the top adds -1 */
        until = _mm256_add_epi32(until, _mm256_cmpeq_epi32(_mm256_srli_epi32(word, 8), zero));
        until = _mm256_add_epi32(until, _mm256_cmpeq_epi32(_mm256_srli_epi32(word, 16), zero));
        until = _mm256_add_epi32(until, _mm256_cmpeq_epi32(_mm256_srli_epi32(word, 24), zero));
        bytes = _mm256_blendv_epi8(until, bytes, _mm256_cmpeq_epi32(word, zero));
    }
    return bytes;
}

WIDE_INLINE __m256i hash_equal(const __m256i *words, size_t key_bytes) {
    __m256i h = _mm256_set1_epi32((int)(SEED ^ (uint32_t)key_bytes));
    for (size_t j = 0; j < key_bytes / 4; j++)
        h = mix_lanes(h, words[j]);
    return (key_bytes & 3) == 0 ? h : mix_rest(h, words[key_bytes / 4]);
}

/* A lane takes part in word j while its key reaches that far. What stands behind a stripped key is NUL, so its last,
 * partial word needs no masking. */
WIDE_INLINE __m256i hash_lanes(const __m256i *words, size_t count, __m256i bytes) {
    __m256i h = _mm256_xor_si256(_mm256_set1_epi32((int)SEED), bytes);
    for (size_t j = 0; j < count; j++) {
        __m256i left = _mm256_sub_epi32(bytes, _mm256_set1_epi32((int)(4 * j)));
        __m256i whole = _mm256_cmpgt_epi32(left, _mm256_set1_epi32(3));
        __m256i some = _mm256_cmpgt_epi32(left, _mm256_setzero_si256());
        __m256i partial = _mm256_blendv_epi8(h, mix_rest(h, words[j]), some);
        h = _mm256_blendv_epi8(partial, mix_lanes(h, words[j]), whole);
    }
    return h;
}

WIDE_INLINE __m256i partition_lanes(__m256i h, const tl_modulus *modulus) {
    const __m256i multiplier = _mm256_set1_epi64x(modulus->multiplier);
    const __m128i shift = _mm_cvtsi32_si128((int)modulus->shift);
    h = mix_rest(h, _mm256_srli_epi32(h, 13));
    h = _mm256_xor_si256(h, _mm256_srli_epi32(h, 15));
    h = _mm256_and_si256(h, _mm256_set1_epi32((int)POSITIVE));
    __m256i even = _mm256_srl_epi64(_mm256_mul_epu32(h, multiplier), shift);
    __m256i odd = _mm256_srl_epi64(_mm256_mul_epu32(_mm256_srli_epi64(h, 32), multiplier), shift);
    __m256i quotient = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    return _mm256_sub_epi32(h, _mm256_mullo_epi32(quotient, _mm256_set1_epi32((int)modulus->divisor)));
}

/* `key_bytes` and `strip` are constants at the calls for the usual widths, so that the words stay in registers. */
WIDE_INLINE size_t wide_loop(const key_rows *rows, size_t key_bytes, bool strip, size_t count, uint32_t *out) {
    __m256i words[MAX_WORDS];
    size_t word_count = (key_bytes + 3) / 4, i = 0;
    const uint8_t *key = rows->keys;
    for (; i + LANES <= count; i += LANES, key += LANES * rows->stride) {
        const size_t by = rows->stride; /* written out: in a loop they would go through memory */
        const uint8_t *const lanes[LANES] = {key,          key + by,     key + 2 * by, key + 3 * by,
                                             key + 4 * by, key + 5 * by, key + 6 * by, key + 7 * by};
        load_words(lanes, key_bytes, words);
        __m256i h =
            strip ? hash_lanes(words, word_count, stripped_lanes(words, word_count)) : hash_equal(words, key_bytes);
        _mm256_storeu_si256((__m256i_u *)(out + i), partition_lanes(h, &rows->modulus));
    }
    return i;
}

WIDE static void wide_rows(const key_rows *rows, bool strip, size_t from, size_t count, uint32_t *out) {
    if (rows->key_bytes == 16)
        from = strip ? wide_loop(rows, 16, true, count, out) : wide_loop(rows, 16, false, count, out);
    else if (rows->key_bytes == 8)
        from = strip ? wide_loop(rows, 8, true, count, out) : wide_loop(rows, 8, false, count, out);
    else if (rows->key_bytes <= 4 * MAX_WORDS)
        from = wide_loop(rows, rows->key_bytes, strip, count, out);
    scalar_rows(rows, strip, from, count, out);
}

/* Eight keys of one length at a time; whoever has others among them, and what is left, goes one by one. */
WIDE static void wide_slices(const uint8_t *const *keys, const int32_t *keys_bytes, size_t from, size_t count,
                             const tl_modulus *modulus, uint32_t *out) {
    __m256i words[MAX_WORDS];
    for (; from + LANES <= count; from += LANES) {
        int32_t bytes = keys_bytes[from];
        __m256i different =
            _mm256_xor_si256(_mm256_loadu_si256((const __m256i_u *)(keys_bytes + from)), _mm256_set1_epi32(bytes));
        bool absent = false;
        for (size_t lane = 0; lane < LANES; lane++)
            absent |= keys[from + lane] == NULL;
        if (absent || bytes < 0 || bytes > 4 * MAX_WORDS || !_mm256_testz_si256(different, different)) {
            scalar_slices(keys, keys_bytes, from, from + LANES, modulus, out);
            continue;
        }
        __m256i h;
        if (bytes == 16) { /* of a constant length: the words stay in registers */
            load_words(keys + from, 16, words);
            h = hash_equal(words, 16);
        } else {
            load_words(keys + from, (size_t)bytes, words);
            h = hash_equal(words, (size_t)bytes);
        }
        _mm256_storeu_si256((__m256i_u *)(out + from), partition_lanes(h, modulus));
    }
    scalar_slices(keys, keys_bytes, from, count, modulus, out);
}

static const implementation with_avx2 = {"avx2", wide_rows, wide_slices};

#endif

static const implementation *best(const char *wanted) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && (wanted == NULL || strcmp(wanted, with_avx2.name) == 0))
        return &with_avx2;
#endif
    return wanted == NULL || strcmp(wanted, with_scalar.name) == 0 ? &with_scalar : NULL;
}

__attribute__((constructor(101))) static void prepare(void) { __atomic_store_n(&chosen, best(NULL), __ATOMIC_RELEASE); }

const char *tl_partition_rows_name(void) { return __atomic_load_n(&chosen, __ATOMIC_RELAXED)->name; }

int tl_partition_rows_select(const char *name) {
    const implementation *found = best(name);
    if (found == NULL)
        return TL_EUNSUPPORTED;
    __atomic_store_n(&chosen, found, __ATOMIC_RELEASE);
    return TL_OK;
}

void tl_partition_rows(const uint8_t *keys, size_t stride, size_t key_bytes, bool strip, size_t count,
                       uint32_t partitions, uint32_t *out) {
    key_rows rows = {.keys = keys, .stride = stride, .key_bytes = key_bytes, .modulus = tl_modulus_of(partitions)};
    __atomic_load_n(&chosen, __ATOMIC_RELAXED)->rows(&rows, strip, 0, count, out);
}

void tl_partition_slices(const uint8_t *const *keys, const int32_t *keys_bytes, size_t count, uint32_t partitions,
                         uint32_t *out) {
    const tl_modulus modulus = tl_modulus_of(partitions);
    __atomic_load_n(&chosen, __ATOMIC_RELAXED)->slices(keys, keys_bytes, 0, count, &modulus, out);
}
