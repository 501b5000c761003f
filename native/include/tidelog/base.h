/* What every file of the core shares: status codes, the error record, byte order.
 *
 * Imports nothing. Callable from any thread. Never includes Python.h, so the core builds and is tested on its own. */
#ifndef TIDELOG_BASE_H
#define TIDELOG_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Results are 0 or a negative code. One place in the Cython glue turns a code into an exception class. */
enum tl_status {
    TL_OK = 0,
    TL_EINVAL = -1, /* the caller's arguments are wrong */
    TL_ENOMEM = -2,
    TL_EIO = -3,       /* a system call failed; sys_errno says how */
    TL_ENOSPC = -4,    /* no room on the file system */
    TL_ECORRUPT = -5,  /* bytes on disk or in shared memory are wrong; path and position say where */
    TL_ERANGE = -6,    /* an offset outside [log start, log end] */
    TL_ETOOLARGE = -7, /* a message or batch over its limit */
    TL_EAGAIN = -8,    /* a try-lock found the lock taken */
    TL_ETIMEOUT = -9,
    TL_ELOCKED = -10, /* lock_timeout passed; `holder` says who */
    TL_ECLOSED = -11,
    TL_EFORKED = -12, /* a handle opened before fork() was used in the child */
    TL_EFAILED = -13, /* a sync failed earlier; sticky until healed */
    TL_EFENCED = -14, /* a lease was taken over */
    TL_ENOTFOUND = -15,
    TL_EEXIST = -16,
    TL_EUNSUPPORTED = -17,
    TL_EDROPPED = -18, /* the partition was dropped */
    TL_EFULL = -19,    /* a fixed table has no free slot */
    TL_EBUS = -20,     /* SIGBUS or SIGSEGV inside a guarded access to a map */
    TL_ETURNED = -21,  /* a wait ended because the word of its group moved on; never an exception */
    TL_EOUTOFORDER = -22, /* a producer's batch does not follow its last one */
    TL_ETXNSTATE = -23    /* what was asked does not fit the state of the transaction */
};

/* Filled by the failing call, owned by the caller: there is no per-thread global. */
typedef struct tl_error {
    int code;
    int sys_errno;
    int64_t position; /* byte position in `path`, or -1 */
    const char *what; /* a static sentence: what was wrong */
    char path[512];   /* the file it concerns, or "" */
    char detail[160]; /* numbers that belong to `what`, or "" */
} tl_error;

#define TL_LIKELY(x) __builtin_expect(!!(x), 1)
#define TL_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define TL_INLINE static inline __attribute__((always_inline))

/* gcc refuses fences under ThreadSanitizer, which orders nothing by them anyway. */
#if defined(__SANITIZE_THREAD__)
#define TL_FENCE(order) ((void)0)
#else
#define TL_FENCE(order) __atomic_thread_fence(order)
#endif
/* In a loop that waits for another core. */
TL_INLINE void tl_cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}
#define TL_FULL_FENCE() TL_FENCE(__ATOMIC_SEQ_CST)
#define TL_ACQUIRE_FENCE() TL_FENCE(__ATOMIC_ACQUIRE) /* loads before it come before all that follow */
#define TL_RELEASE_FENCE() TL_FENCE(__ATOMIC_RELEASE) /* stores after it come after all before it */

/* Fill `err` (which may be NULL) and return `code`, so that a caller can write `return tl_fail(...)`. */
int tl_fail(tl_error *err, int code, const char *what, const char *path, int64_t position);
/* From the -errno of a system call: ENOSPC and EDQUOT become TL_ENOSPC, ENOMEM TL_ENOMEM, all else TL_EIO. */
int tl_fail_sys(tl_error *err, int negative_errno, const char *what, const char *path);
const char *tl_status_name(int code);

/* Kafka's formats are big-endian, our own are little-endian. Loads and stores go through memcpy: never an unaligned cast. */
TL_INLINE uint16_t tl_be16(const void *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}
TL_INLINE uint32_t tl_be32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
TL_INLINE uint64_t tl_be64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}
TL_INLINE void tl_put_be16(void *p, uint16_t v) {
    v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}
TL_INLINE void tl_put_be32(void *p, uint32_t v) {
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}
TL_INLINE void tl_put_be64(void *p, uint64_t v) {
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}
TL_INLINE uint32_t tl_le32(const void *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
TL_INLINE uint64_t tl_le64(const void *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
TL_INLINE void tl_put_le32(void *p, uint32_t v) { memcpy(p, &v, 4); }
TL_INLINE void tl_put_le64(void *p, uint64_t v) { memcpy(p, &v, 8); }

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tidelog supports little-endian Linux only (x86-64 and aarch64)"
#endif

#endif
