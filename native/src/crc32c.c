/* What is the CRC-32C of these bytes, by the fastest instructions this CPU has?
 *
 * Imports crc32c.h. Callable from any thread; tables are written once, by a constructor, before any caller runs.
 *
 * Polynomials are bit-reflected: bit 31 of a uint32_t stands for x^0. Every folding constant is a power of x modulo P
 * computed at start-up, so none is a remembered number. Three facts carry all the code:
 *   crc_word(c, w) of a zero c is w * x^32 mod P;
 *   a carry-less product of two reflected 32-bit values, read as a 64-bit word, is A * B * x;
 *   of two reflected 64-bit values, read as 128 bits, likewise A * B * x. */
#include "tidelog/crc32c.h"

#define POLYNOMIAL 0x82f63b78u
#define ORDER 0x7fffffffu /* x^ORDER = 1 mod P, because P = (x + 1) * (a primitive polynomial of degree 31) */

/* How the chosen implementation does the three jobs; crc is raw here, without the inversions at both ends. */
typedef struct implementation {
    const char *name;
    uint32_t (*extend)(uint32_t crc, const uint8_t *p, size_t n);
    uint32_t (*copy)(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n);
    uint32_t (*shift)(uint32_t crc, uint64_t n); /* the effect of n zero bytes */
    uint32_t (*piece)(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes, const uint8_t *src, size_t n,
                      size_t zero);
    uint32_t (*words)(uint32_t crc, const uint64_t *words, size_t bytes);
} implementation;

static uint32_t table[8][256];
static uint32_t zero_bytes[64]; /* x^(8 * 2^k) */

static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        product ^= a & bit ? b : 0;
        b = (b >> 1) ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return product;
}

static uint32_t power_of_x(int64_t n) {
    uint64_t exponent = (uint64_t)(n < 0 ? n + (int64_t)ORDER : n);
    uint32_t result = 1u << 31, square = 1u << 30;
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1)
            result = multiply(result, square);
        square = multiply(square, square);
    }
    return result;
}

/* Slice-by-8: for machines with no CRC instruction, and the oracle the others are tested against. */
static uint32_t table_extend(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w = tl_le64(p) ^ crc;
        crc = table[7][w & 0xff] ^ table[6][(w >> 8) & 0xff] ^ table[5][(w >> 16) & 0xff] ^ table[4][(w >> 24) & 0xff] ^
              table[3][(w >> 32) & 0xff] ^ table[2][(w >> 40) & 0xff] ^ table[1][(w >> 48) & 0xff] ^ table[0][w >> 56];
    }
    for (; n > 0; n--)
        crc = table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return crc;
}

/* The copy comes first and the checksum reads it back, 8 KiB at a time, so that it reads L1. */
TL_INLINE uint32_t copy_in_chunks(uint32_t (*extend)(uint32_t, const uint8_t *, size_t), uint32_t crc, uint8_t *dst,
                                  const uint8_t *src, size_t n) {
    while (n > 0) {
        size_t chunk = n < 8192 ? n : 8192;
        memcpy(dst, src, chunk);
        crc = extend(crc, dst, chunk);
        dst += chunk;
        src += chunk;
        n -= chunk;
    }
    return crc;
}

static uint32_t table_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n) {
    return copy_in_chunks(table_extend, crc, dst, src, n);
}

static uint32_t table_shift(uint32_t crc, uint64_t n) {
    for (unsigned k = 0; n != 0; n >>= 1, k++)
        if (n & 1)
            crc = multiply(zero_bytes[k], crc);
    return crc;
}

TL_INLINE uint32_t piece_by(uint32_t (*extend)(uint32_t, const uint8_t *, size_t),
                            uint32_t (*copy)(uint32_t, uint8_t *, const uint8_t *, size_t), uint32_t crc, uint8_t *dst,
                            uint64_t front, size_t front_bytes, const uint8_t *src, size_t n, size_t zero) {
    uint8_t end = 0;
    tl_put_le64(dst, front);
    crc = extend(crc, (const uint8_t *)&front, front_bytes);
    crc = copy(crc, dst + front_bytes, src, n);
    dst[front_bytes + n] = zero != 0 ? 0 : dst[front_bytes + n];
    return extend(crc, &end, zero);
}

static uint32_t table_piece(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes, const uint8_t *src,
                            size_t n, size_t zero) {
    return piece_by(table_extend, table_copy, crc, dst, front, front_bytes, src, n, zero);
}

static uint32_t table_words(uint32_t crc, const uint64_t *words, size_t bytes) {
    return table_extend(crc, (const uint8_t *)words, bytes);
}

static const implementation with_table = {"table", table_extend, table_copy, table_shift, table_piece, table_words};
static const implementation *chosen = &with_table;

#if defined(__x86_64__)

#include <immintrin.h>
#define CRC_ONLY __attribute__((target("sse4.2")))
#define CRC_FOLD __attribute__((target("sse4.2,pclmul")))

CRC_ONLY TL_INLINE uint32_t crc_word(uint32_t crc, uint64_t w) { return (uint32_t)_mm_crc32_u64(crc, w); }
CRC_ONLY TL_INLINE uint32_t crc_byte(uint32_t crc, uint8_t b) { return _mm_crc32_u8(crc, b); }

CRC_FOLD TL_INLINE uint64_t carryless(uint32_t a, uint32_t b) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

#define STREAMS_NAME "pclmul"

/* For a CPU (or a hypervisor) that has the CRC instruction but hides PCLMUL: one stream, nothing to merge. */
CRC_ONLY static uint32_t sse42_extend(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; n -= 8, p += 8)
        crc = crc_word(crc, tl_le64(p));
    for (; n > 0; n--)
        crc = crc_byte(crc, *p++);
    return crc;
}

static uint32_t sse42_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n) {
    return copy_in_chunks(sse42_extend, crc, dst, src, n);
}

static uint32_t sse42_piece(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes, const uint8_t *src,
                            size_t n, size_t zero) {
    return piece_by(sse42_extend, sse42_copy, crc, dst, front, front_bytes, src, n, zero);
}

CRC_ONLY static uint32_t sse42_words(uint32_t crc, const uint64_t *words, size_t bytes) {
    return sse42_extend(crc, (const uint8_t *)words, bytes);
}

static const implementation with_sse42 = {"sse42", sse42_extend, sse42_copy, table_shift, sse42_piece, sse42_words};

#elif defined(__aarch64__)

#include <arm_acle.h>
#include <arm_neon.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#ifndef HWCAP_PMULL
#define HWCAP_PMULL (1 << 4)
#endif
#define CRC_FOLD __attribute__((target("+crc+crypto")))

CRC_FOLD TL_INLINE uint32_t crc_word(uint32_t crc, uint64_t w) { return __crc32cd(crc, w); }
CRC_FOLD TL_INLINE uint32_t crc_byte(uint32_t crc, uint8_t b) { return __crc32cb(crc, b); }

CRC_FOLD TL_INLINE uint64_t carryless(uint32_t a, uint32_t b) {
    return vgetq_lane_u64(vreinterpretq_u64_p128(vmull_p64((poly64_t)a, (poly64_t)b)), 0);
}

#define STREAMS_NAME "armv8"

#endif

#ifdef STREAMS_NAME

#define STREAM_WORDS 128
static uint32_t
    fold_words[2 * STREAM_WORDS + 1]; /* x^(64 * k - 33): moves a CRC over k words when xored into the last of them */
static uint32_t fold_zero_bytes[64];  /* x^(8 * 2^k - 33) */

/* The last n < 8 bytes, in the low bytes of `w`, by one instruction: leading zero bytes leave a zero CRC alone, so the
 * bytes are pushed to the top of the word together with the part of the CRC they meet. */
CRC_FOLD TL_INLINE uint32_t crc_tail(uint32_t crc, uint64_t w, size_t n) {
    uint64_t mixed = w ^ crc;
    return crc_word(0, (mixed << 1) << (63 - 8 * n)) ^ (uint32_t)(mixed >> (8 * n));
}

CRC_FOLD TL_INLINE uint64_t take_word(uint8_t *dst, const uint8_t *src, size_t at, bool copying) {
    uint64_t w = tl_le64(src + at);
    if (copying)
        tl_put_le64(dst + at, w);
    return w;
}

/* Three independent streams hide the instruction's latency of three cycles. Their length follows the input, and the
 * merge rides in the last word, so that inputs of a hundred bytes gain as well. `copying` is a constant at each call. */
CRC_FOLD TL_INLINE uint32_t crc_streams(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n, bool copying) {
    if (n < 8) {
        for (size_t i = 0; i < n; i++) {
            uint8_t byte = src[i];
            if (copying)
                dst[i] = byte;
            crc = crc_byte(crc, byte);
        }
        return crc;
    }
    size_t at = 0;
    while (n - at >= 72) {
        size_t words = (n - at) / 24;
        words = words < STREAM_WORDS ? words : STREAM_WORDS;
        size_t width = 8 * words, last = at + width - 8;
        uint32_t a = crc, b = 0, c = 0;
        for (; at < last; at += 8) {
            a = crc_word(a, take_word(dst, src, at, copying));
            b = crc_word(b, take_word(dst, src, at + width, copying));
            c = crc_word(c, take_word(dst, src, at + 2 * width, copying));
        }
        a = crc_word(a, take_word(dst, src, at, copying));
        b = crc_word(b, take_word(dst, src, at + width, copying));
        uint64_t w = take_word(dst, src, at + 2 * width, copying);
        crc = crc_word(c, w ^ carryless(a, fold_words[2 * words]) ^ carryless(b, fold_words[words]));
        at += 8 + 2 * width;
    }
    for (; n - at >= 8; at += 8)
        crc = crc_word(crc, take_word(dst, src, at, copying));
    size_t rest = n - at;
    uint64_t w = take_word(dst, src, n - 8, copying);
    return crc_tail(crc, (w >> 1) >> (63 - 8 * rest), rest);
}

CRC_FOLD static uint32_t streams_extend(uint32_t crc, const uint8_t *p, size_t n) {
    return crc_streams(crc, NULL, p, n, false);
}

CRC_FOLD static uint32_t streams_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n) {
    return crc_streams(crc, dst, src, n, true);
}

CRC_FOLD static uint32_t streams_shift(uint32_t crc, uint64_t n) {
    for (; n != 0; n &= n - 1)
        crc = crc_word(0, carryless(crc, fold_zero_bytes[__builtin_ctzll(n)]));
    return crc;
}

CRC_FOLD TL_INLINE uint32_t front_word(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes) {
    tl_put_le64(dst, front);
    if (front_bytes == 8)
        return crc_word(crc, front);
    uint64_t kept = front & (((uint64_t)1 << (8 * front_bytes)) - 1);
    return crc_tail(crc, kept, front_bytes);
}

CRC_FOLD static uint32_t streams_piece(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes,
                                       const uint8_t *src, size_t n, size_t zero) {
    crc = front_word(crc, dst, front, front_bytes);
    dst += front_bytes;
    crc = crc_streams(crc, dst, src, n, true);
    if (zero != 0) {
        dst[n] = 0;
        crc = crc_byte(crc, 0);
    }
    return crc;
}

CRC_FOLD static uint32_t streams_words(uint32_t crc, const uint64_t *words, size_t bytes) {
    for (; bytes >= 8; bytes -= 8)
        crc = crc_word(crc, *words++);
    return bytes == 0 ? crc : crc_tail(crc, *words & (((uint64_t)1 << (8 * bytes)) - 1), bytes);
}

static const implementation with_streams = {STREAMS_NAME,  streams_extend, streams_copy,
                                            streams_shift, streams_piece,  streams_words};

#endif

#if defined(__x86_64__)

#define CRC_WIDE __attribute__((target("sse4.2,pclmul,avx512f,avx512bw,avx512vl,avx512vbmi,vpclmulqdq")))

/* Constants for one 128-bit lane that is D bits away from where it must arrive: its low half needs x^(D+63), its high
 * half x^(D-1). to_end[m] moves the four lanes of a block that m blocks follow onto the last 16 bytes. */
static _Alignas(64) uint64_t to_end[4][8];
static _Alignas(64) uint64_t by_block[8];
static _Alignas(64) uint64_t by_four_blocks[8];

CRC_WIDE TL_INLINE __m512i fold(__m512i v, const uint64_t constants[8], __m512i next) {
    __m512i k = _mm512_load_si512(constants);
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(v, k, 0x00), _mm512_clmulepi64_epi128(v, k, 0x11), next,
                                     0x96);
}

CRC_WIDE TL_INLINE __m512i take_block(uint8_t *dst, const uint8_t *src, size_t at, bool copying) {
    __m512i v = _mm512_loadu_si512(src + at);
    if (copying)
        _mm512_storeu_si512(dst + at, v);
    return v;
}

/* The message is seen as whole 64-byte blocks with zero bytes in front, which do not change a CRC that starts at zero;
 * the running crc is added to the first four real bytes. */
CRC_WIDE TL_INLINE uint32_t crc_wide(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n, bool copying) {
    if (n < 24)
        return crc_streams(crc, dst, src, n, copying);
    size_t at = ((n - 1) & 63) + 1; /* real bytes in the first block */
    __m512i v;
    if (TL_UNLIKELY(at < 4)) { /* the crc would reach into the second block */
        for (size_t i = 0; i < at; i++) {
            uint8_t byte = src[i];
            if (copying)
                dst[i] = byte;
            crc = crc_byte(crc, byte);
        }
        v = take_block(dst, src, at, copying);
        v = _mm512_xor_si512(v, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
        at += 64;
    } else {
        if (n >= 64) {
            v = take_block(dst, src, 0, copying);
        } else {
            __mmask64 present = UINT64_MAX >> (64 - at);
            v = _mm512_maskz_loadu_epi8(present, src);
            if (copying)
                _mm512_mask_storeu_epi8(dst, present, v);
        }
        v = _mm512_xor_si512(v, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
        const __m512i iota =
            _mm512_set_epi64(0x3f3e3d3c3b3a3938, 0x3736353433323130, 0x2f2e2d2c2b2a2928, 0x2726252423222120,
                             0x1f1e1d1c1b1a1918, 0x1716151413121110, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
        __m512i from = _mm512_add_epi8(iota, _mm512_set1_epi8((char)at)); /* vpermb takes it modulo 64 */
        v = _mm512_maskz_permutexvar_epi8(UINT64_MAX << (64 - at), from, v);
    }
    size_t blocks = (n - at) >> 6; /* still to come */
    __m512i sum = _mm512_setzero_si512();
    if (blocks < 4) {
        for (; blocks > 0; blocks--, at += 64) {
            sum = fold(v, to_end[blocks], sum);
            v = take_block(dst, src, at, copying);
        }
    } else {
        __m512i v1 = take_block(dst, src, at, copying), v2 = take_block(dst, src, at + 64, copying);
        __m512i v3 = take_block(dst, src, at + 128, copying);
        at += 192;
        for (blocks -= 3; blocks >= 4; blocks -= 4, at += 256) {
            v = fold(v, by_four_blocks, take_block(dst, src, at, copying));
            v1 = fold(v1, by_four_blocks, take_block(dst, src, at + 64, copying));
            v2 = fold(v2, by_four_blocks, take_block(dst, src, at + 128, copying));
            v3 = fold(v3, by_four_blocks, take_block(dst, src, at + 192, copying));
        }
        for (; blocks > 0; blocks--, at += 64) {
            v1 = fold(v, by_block, v1);
            v = v1;
            v1 = v2;
            v2 = v3;
            v3 = take_block(dst, src, at, copying);
        }
        sum = fold(v, to_end[3], fold(v1, to_end[2], fold(v2, to_end[1], sum)));
        v = v3;
    }
    sum = fold(v, to_end[0], sum);
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
    __m128i lane = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return crc_word(crc_word(0, (uint64_t)_mm_cvtsi128_si64(lane)), (uint64_t)_mm_extract_epi64(lane, 1));
}

CRC_WIDE static uint32_t wide_extend(uint32_t crc, const uint8_t *p, size_t n) {
    return crc_wide(crc, NULL, p, n, false);
}

CRC_WIDE static uint32_t wide_copy(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n) {
    return crc_wide(crc, dst, src, n, true);
}

CRC_WIDE static uint32_t wide_piece(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes, const uint8_t *src,
                                    size_t n, size_t zero) {
    crc = front_word(crc, dst, front, front_bytes);
    dst += front_bytes;
    crc = crc_wide(crc, dst, src, n, true);
    if (zero != 0) {
        dst[n] = 0;
        crc = crc_byte(crc, 0);
    }
    return crc;
}

static const implementation with_avx512 = {"avx512", wide_extend, wide_copy, streams_shift, wide_piece, streams_words};

static void fill_lane(uint64_t lane[2], int64_t distance_bits) {
    lane[0] = (uint64_t)power_of_x(distance_bits + 63) << 32;
    lane[1] = (uint64_t)power_of_x(distance_bits - 1) << 32;
}

static void fill_wide_constants(void) {
    for (int lane = 0; lane < 4; lane++) {
        for (int block = 0; block < 4; block++)
            fill_lane(&to_end[block][2 * lane], 512 * block + 128 * (3 - lane));
        fill_lane(&by_block[2 * lane], 512);
        fill_lane(&by_four_blocks[2 * lane], 2048);
    }
}

#endif

static const implementation *best(const char *wanted) {
#define OFFER(candidate, available) \
    if ((available) && (wanted == NULL || strcmp(wanted, (candidate).name) == 0)) \
        return &(candidate);
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool words = __builtin_cpu_supports("sse4.2") != 0;
    bool streams = words && __builtin_cpu_supports("pclmul");
    OFFER(with_avx512, streams && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
                           __builtin_cpu_supports("vpclmulqdq"))
    OFFER(with_streams, streams)
    OFFER(with_sse42, words)
#elif defined(__aarch64__)
    unsigned long capabilities = getauxval(AT_HWCAP);
    OFFER(with_streams, (capabilities & HWCAP_CRC32) != 0 && (capabilities & HWCAP_PMULL) != 0)
#endif
    OFFER(with_table, true)
#undef OFFER
    return NULL;
}

/* Priority 101 is the first one user code may have: other constructors already find the right pointer. */
__attribute__((constructor(101))) static void prepare(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (uint32_t i = 0; i < 256; i++)
            table[slice][i] = table[0][table[slice - 1][i] & 0xff] ^ (table[slice - 1][i] >> 8);
    zero_bytes[0] = power_of_x(8);
    for (int k = 1; k < 64; k++)
        zero_bytes[k] = multiply(zero_bytes[k - 1], zero_bytes[k - 1]);
#ifdef STREAMS_NAME
    uint32_t one_word = power_of_x(64), undo = power_of_x(-33);
    fold_words[0] = undo;
    for (int k = 1; k <= 2 * STREAM_WORDS; k++)
        fold_words[k] = multiply(fold_words[k - 1], one_word);
    for (int k = 0; k < 64; k++)
        fold_zero_bytes[k] = multiply(zero_bytes[k], undo);
#endif
#if defined(__x86_64__)
    fill_wide_constants();
#endif
    __atomic_store_n(&chosen, best(NULL), __ATOMIC_RELEASE);
}

uint32_t tl_crc32c(uint32_t crc, const void *p, size_t n) {
    return ~__atomic_load_n(&chosen, __ATOMIC_RELAXED)->extend(~crc, p, n);
}

uint32_t tl_crc32c_copy(void *dst, const void *src, size_t n, uint32_t crc) {
    return ~__atomic_load_n(&chosen, __ATOMIC_RELAXED)->copy(~crc, dst, src, n);
}

uint32_t tl_crc32c_piece(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes, const void *src, size_t n,
                         size_t zero) {
    return ~__atomic_load_n(&chosen, __ATOMIC_RELAXED)->piece(~crc, dst, front, front_bytes, src, n, zero);
}

uint32_t tl_crc32c_words(uint32_t crc, const uint64_t *words, size_t bytes) {
    return ~__atomic_load_n(&chosen, __ATOMIC_RELAXED)->words(~crc, words, bytes);
}

uint32_t tl_crc32c_combine(uint32_t a, uint32_t b, uint64_t len_b) {
    return __atomic_load_n(&chosen, __ATOMIC_RELAXED)->shift(a, len_b) ^ b;
}

const char *tl_crc32c_name(void) { return __atomic_load_n(&chosen, __ATOMIC_RELAXED)->name; }

int tl_crc32c_select(const char *name) {
    const implementation *found = best(name);
    if (found == NULL)
        return TL_EUNSUPPORTED;
    __atomic_store_n(&chosen, found, __ATOMIC_RELEASE);
    return TL_OK;
}
