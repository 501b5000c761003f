/* How is a shared lock waited for, and when is it taken from a dead owner?
 *
 * Imports lock.h. Callable from any thread. */
#include "tidelog/lock.h"

#include <errno.h>

#define SLICE_NS 20000000
#define SPINS 64

/* One attempt; keeps the waiters bit that others have set, because whoever set it sleeps. */
static bool take_if_free(uint32_t *word, tl_owner me, uint32_t waiters) {
    uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
    if ((seen & ~TL_LOCK_WAITERS) != 0)
        return false;
    TL_YIELD();
    return __atomic_compare_exchange_n(word, &seen, me | (seen & TL_LOCK_WAITERS) | waiters, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

/* The owner in the word is dead for the kernel: put ourselves there by one compare-and-swap, so that of several
 * survivors exactly one repairs. */
static bool take_from_dead(uint32_t *word, tl_owner me, const tl_liveness *liveness) {
    uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    tl_owner owner = seen & ~TL_LOCK_WAITERS;
    if (owner == 0 || owner == me)
        return false;
    if (!TL_BUG(STOPPED_OWNER_ROBBED) && liveness->alive(liveness, owner))
        return false;
    TL_POINT("lock.owner_dead");
    return __atomic_compare_exchange_n(word, &seen, me | TL_LOCK_WAITERS, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

int tl_lock_take(uint32_t *word, tl_owner me, const tl_liveness *liveness, int64_t timeout_ns, tl_owner *holder) {
    for (int i = 0; i < SPINS; i++) {
        if (take_if_free(word, me, 0))
            return TL_LOCK_TAKEN;
        tl_cpu_relax();
    }
    int64_t deadline = timeout_ns < 0 ? INT64_MAX : tl_os->monotonic_ns() + timeout_ns;
    /* After sleeping once the waiters bit is kept on taking: others may still sleep, and an extra wake is harmless. */
    uint32_t waiters = 0;
    for (;;) {
        if (take_if_free(word, me, waiters))
            return TL_LOCK_TAKEN;
        uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
        if ((seen & ~TL_LOCK_WAITERS) == 0)
            continue;
        int64_t now = timeout_ns == 0 ? deadline : tl_os->monotonic_ns();
        if (now >= deadline) {
            if (take_from_dead(word, me, liveness))
                return TL_LOCK_TAKEN_OVER;
            if (take_if_free(word, me, waiters))
                return TL_LOCK_TAKEN;
            if (holder != NULL)
                *holder = __atomic_load_n(word, __ATOMIC_RELAXED) & ~TL_LOCK_WAITERS;
            return TL_ELOCKED;
        }
        if ((seen & TL_LOCK_WAITERS) == 0) {
            TL_YIELD();
            if (!__atomic_compare_exchange_n(word, &seen, seen | TL_LOCK_WAITERS, false, __ATOMIC_RELAXED,
                                             __ATOMIC_RELAXED))
                continue;
            seen |= TL_LOCK_WAITERS;
        }
        int64_t slice = deadline - now < SLICE_NS ? deadline - now : SLICE_NS;
        int result = tl_os->futex_wait(word, seen, slice);
        waiters = TL_LOCK_WAITERS;
        if (result == -ETIMEDOUT && take_from_dead(word, me, liveness))
            return TL_LOCK_TAKEN_OVER;
    }
}

int tl_lock_wake(uint32_t *word) {
    return tl_os->futex_wake(word, 1);
}
