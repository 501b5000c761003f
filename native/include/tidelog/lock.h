/* Who holds a lock that processes share, and what happens when its owner dies?
 *
 * Imports os.h, base.h. Callable from any thread of any process that has the word mapped.
 * A lock is one 32-bit futex word {waiters 1, incarnation 21, slot + 1: 10}; 0 is free (SHARING rules 8 and 9).
 * Waits are slices of at most 20 ms; a lock is taken over only when its owner is dead for the kernel (its liveness byte
 * is free or its incarnation has moved on), never because time passed. */
#ifndef TIDELOG_LOCK_H
#define TIDELOG_LOCK_H

#include "tidelog/os.h"

typedef uint32_t tl_owner; /* a lock word without the waiters bit; 0: nobody */

#define TL_LOCK_WAITERS 0x80000000u
#define TL_INCARNATION_MASK 0x1fffffu
#define TL_LOCK_NOBODY \
    0x3ffu /* no process has this slot: the next who wants the lock finds its owner dead and repairs */

TL_INLINE tl_owner tl_owner_make(uint32_t slot, uint32_t incarnation) {
    return ((incarnation & TL_INCARNATION_MASK) << 10) | ((slot + 1) & 0x3ffu);
}
TL_INLINE uint32_t tl_owner_slot(tl_owner owner) { return (owner & 0x3ffu) - 1; }
TL_INLINE uint32_t tl_owner_incarnation(tl_owner owner) { return (owner >> 10) & TL_INCARNATION_MASK; }

/* Says whether an owner is alive; asks the kernel, so it costs a system call. */
typedef struct tl_liveness {
    bool (*alive)(const struct tl_liveness *self, tl_owner owner);
} tl_liveness;

enum { TL_LOCK_TAKEN = 0, TL_LOCK_TAKEN_OVER = 1 };

/* Also a full barrier: whoever has raised a flag and then finds this owner's lock free is seen by whoever takes it. */
TL_INLINE bool tl_lock_try(uint32_t *word, tl_owner me) {
    uint32_t free = 0;
    TL_YIELD();
    return __atomic_compare_exchange_n(word, &free, me, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* TL_LOCK_TAKEN, TL_LOCK_TAKEN_OVER (the caller repairs what the lock guards before anything else), or TL_ELOCKED with
 * the holder's word in *holder once timeout_ns has passed (-1: never; 0: one attempt, without a system call unless the
 * owner may be dead). */
int tl_lock_take(uint32_t *word, tl_owner me, const tl_liveness *liveness, int64_t timeout_ns, tl_owner *holder);

int tl_lock_wake(uint32_t *word);

/* A compare-and-swap and not a blind exchange: if another process was told (wrongly, by a broken kernel or a closing
 * handle) that this owner is dead, its lock must not be freed under it. It is also the full barrier that a publisher
 * needs before it looks for sleepers. */
TL_INLINE void tl_lock_release(uint32_t *word, tl_owner me) {
    uint32_t expected = me;
    TL_YIELD();
    if (TL_LIKELY(__atomic_compare_exchange_n(word, &expected, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)))
        return;
    if (expected == (me | TL_LOCK_WAITERS) &&
        __atomic_compare_exchange_n(word, &expected, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        tl_lock_wake(word);
}

#endif
