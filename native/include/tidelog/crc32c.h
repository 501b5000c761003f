/* What is the CRC-32C (Castagnoli) of these bytes?
 *
 * Imports base.h. Callable from any thread. The implementation is chosen by CPU before main() and read through one
 * atomic pointer; tl_crc32c_select() changes it for the whole process and exists for tests and benchmarks. */
#ifndef TIDELOG_CRC32C_H
#define TIDELOG_CRC32C_H

#include "tidelog/base.h"

/* Starts with 0 and chains: crc(crc(0, a), b) == crc(0, a+b). */
uint32_t tl_crc32c(uint32_t crc, const void *p, size_t n);

/* Copies src to dst (no overlap) and continues `crc` over the bytes stored: each byte is loaded once, so a source that
 * another thread changes meanwhile cannot leave bytes in dst that the result does not cover. */
uint32_t tl_crc32c_copy(void *dst, const void *src, size_t n, uint32_t crc);

/* One piece of a record: the low `front_bytes` (0 to 8) bytes of `front`, then `n` bytes of `src`, then a zero byte if
 * `zero` is 1. Writes them to dst and continues `crc` over them, all from registers: a checksum that reads back what was
 * stored a moment ago, in other widths, waits for the stores. dst has room for 8 bytes more than the piece. */
uint32_t tl_crc32c_piece(uint32_t crc, uint8_t *dst, uint64_t front, size_t front_bytes, const void *src, size_t n,
                         size_t zero);

/* Continues `crc` over `bytes` bytes that stand in whole words, the first lowest: as tl_crc32c, but every load is one of a
 * word, so that words that were stored a moment ago are not waited for. */
uint32_t tl_crc32c_words(uint32_t crc, const uint64_t *words, size_t bytes);

/* crc(a+b) from crc(a), crc(b) and the length of b in bytes. */
uint32_t tl_crc32c_combine(uint32_t a, uint32_t b, uint64_t len_b);

/* "table", "sse42", "pclmul", "avx512" or "armv8". */
const char *tl_crc32c_name(void);

/* TL_EUNSUPPORTED when this build or CPU lacks it. */
int tl_crc32c_select(const char *name);

#endif
