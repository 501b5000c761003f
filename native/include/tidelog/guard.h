/* How does an access to a mapped file fail with an error instead of killing the process?
 *
 * Imports base.h. A page of a map may be gone when it is touched: the file was truncated from outside, the disk has a
 * bad block, the file system shut down, a copy-on-write disk is full. The kernel then raises SIGBUS in the thread that
 * touched it. Every access of the core to a mapped file runs inside a guarded block of that thread:
 *
 *     tl_guard guard;
 *     TL_GUARDED(guard) {
 *         memcpy(to, map + position, bytes);
 *     } TL_GUARD_CAUGHT(guard) {
 *         return tl_fail(err, TL_EBUS, "the mapped file cannot be read", path, (const uint8_t *)guard.address - map);
 *     }
 *
 * `return`, `break` (out of the block) and `goto` may leave the block; the guard is dropped by a cleanup. Guards nest,
 * in one function and across calls: a fault goes to the innermost block, and in TL_GUARD_CAUGHT the outer one is in
 * force again. Entering and leaving costs about 2 ns and no system call.
 *
 * What a block must not do, because a fault leaves it (and every function it called) between two instructions:
 *  - hold a pthread mutex or malloc'd memory that only the block knows of; our own futex locks are taken before it;
 *  - leave half-made promises in shared memory: a fault is treated like the death of a writer at that instruction;
 *  - call back into Python.
 * Locals of the function that owns the guard: one that is assigned before the block and not inside it keeps its value;
 * one that is assigned inside the block and read in TL_GUARD_CAUGHT or later after a fault must be volatile (or live
 * in memory that others can see). gcc's -Wclobbered finds most of these. It also warns about loop counters around a
 * block; put the block into a function of its own then. Functions that contain a block are never inlined.
 *
 * The block catches every SIGBUS of its thread, also one in a buffer of the caller: compare `address` with the map.
 * A thread that blocks SIGBUS is killed by the kernel whatever is installed. */
#ifndef TIDELOG_GUARD_H
#define TIDELOG_GUARD_H

#include "tidelog/base.h"

#include <setjmp.h>

typedef struct tl_guard {
    struct tl_guard *outer;
    const void *volatile address; /* the byte whose page was missing */
    jmp_buf place;
} tl_guard;

/* initial-exec: reached by one load, and by the signal handler without allocating a thread's block. */
extern _Thread_local tl_guard *tl_guard_current __attribute__((tls_model("initial-exec")));

/* Makes SIGBUS reach the guards. Call it at every opening of a store: it costs one system call when our handler is
 * still in place, and puts it back on top when somebody (faulthandler) installed theirs over it. Any other SIGBUS goes
 * on to the handler that was there before. 0, TL_EIO, or TL_EFULL after very many different handlers. */
int tl_guard_install(tl_error *err);

/* Why setjmp and not gcc's __builtin_setjmp, which saves one nanosecond: only calls count as ways to the second return
 * of the builtin. In a block that merely loads from a map gcc sees no way there, deletes the CAUGHT branch, and a fault
 * jumps to an arbitrary address. For setjmp gcc also keeps every spilled local in a stack slot of its own.
 * glibc's setjmp does not save the signal mask, and need not: guard.c jumps in ordinary context.
 *
 * The fences keep the compiler from moving an access to the map out of the block. */
TL_INLINE tl_guard *tl_guard_enter(tl_guard *guard) {
    guard->outer = tl_guard_current;
    tl_guard_current = guard;
    __asm__ volatile("" ::: "memory");
    return guard;
}

TL_INLINE void tl_guard_leave(tl_guard **guard) {
    __asm__ volatile("" ::: "memory");
    tl_guard_current = (*guard)->outer;
}

#define TL_GUARD_PASTE(a, b) a##b
#define TL_GUARD_NAME(a, b) TL_GUARD_PASTE(a, b)
#define TL_GUARD_BLOCK(guard, entered, once) \
    if (setjmp((guard).place) == 0) \
        for (tl_guard *entered __attribute__((cleanup(tl_guard_leave))) = tl_guard_enter(&(guard)), *once = entered; \
             once != NULL; once = NULL)

#define TL_GUARDED(guard) TL_GUARD_BLOCK(guard, TL_GUARD_NAME(entered_, __LINE__), TL_GUARD_NAME(once_, __LINE__))
#define TL_GUARD_CAUGHT(guard) else

#endif
