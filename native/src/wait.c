/* How does a reader sleep until something is published, and who wakes it?
 *
 * Imports handles.h. Callable from any thread. SHARING rule 19: a sleeper sets its process's bit at every partition it
 * waits for, looks at the tails once more, and sleeps on its process's futex word with the value read before the bits;
 * a publisher, after the full barrier of its unlock, takes the bits and bumps and wakes the words of all they stand for.
 * A publisher that dies or is stopped before it wakes costs its readers a slice. Where no other process is in the store
 * there is nobody who could: then a slice is longer, and whoever comes in ends it. */
#include "handles.h"
#include "tidelog/transactions.h"

#include <errno.h>

#define SLICE_NS 100000000
#define ALONE_SLICE_NS 1000000000

static void wake_process(tl_store *store, uint32_t slot) {
    tl_process *process = tl_shared_process(store->shared, slot);
    __atomic_fetch_add(&process->word, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&process->sleeping, __ATOMIC_SEQ_CST) != 0)
        tl_os->futex_wake(&process->word, INT32_MAX);
}

void tl_partition_wake_sleepers(tl_partition *partition) {
    tl_store *store = partition->store;
    uint64_t bits = __atomic_exchange_n(&partition->hot->sleepers, 0, __ATOMIC_SEQ_CST);
    uint32_t processes = (uint32_t)__atomic_load_n(&store->header->processes, __ATOMIC_ACQUIRE);
    processes = processes > TL_PROCESSES ? TL_PROCESSES : processes;
    while (bits != 0) {
        uint32_t bit = (uint32_t)__builtin_ctzll(bits);
        bits &= bits - 1;
        for (uint32_t slot = bit; slot < processes; slot += 64)
            wake_process(store, slot);
    }
    TL_POINT("append.woken");
}

void tl_store_wake(tl_store *store) { wake_process(store, store->slot); }

void tl_store_wake_everybody(tl_store *store) {
    uint32_t processes = (uint32_t)__atomic_load_n(&store->header->processes, __ATOMIC_ACQUIRE);
    for (uint32_t slot = 0; slot < processes && slot < TL_PROCESSES; slot++)
        wake_process(store, slot);
}

uint64_t tl_partition_tail(const tl_partition *partition) {
    return __atomic_load_n(&partition->hot->tail, __ATOMIC_ACQUIRE);
}

static int changed(tl_partition *const *partitions, const uint64_t *seen, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (__atomic_load_n(&partitions[i]->hot->tail, __ATOMIC_SEQ_CST) != seen[i] ||
            __atomic_load_n(&partitions[i]->hot->id, __ATOMIC_RELAXED) != partitions[i]->id)
            return (int)i;
    return -1;
}

static bool cancelled(tl_store *store, const uint32_t *cancel) {
    return !tl_store_usable(store) || (cancel != NULL && __atomic_load_n(cancel, __ATOMIC_SEQ_CST) != 0);
}

static int refuse(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    return tl_fail(err, TL_ECLOSED, "the call was cancelled by a close", "", -1);
}

/* Before the tails: what a member may read has changed, so what it would read next is to be asked anew. */
static bool turned(tl_store *store, const tl_turn *turns, size_t count) {
    if (count > 0)
        tl_deaths_nudge(store); /* members that wait are the first to learn of a newcomer */
    for (size_t i = 0; i < count; i++)
        if (__atomic_load_n(turns[i].word, __ATOMIC_SEQ_CST) != turns[i].seen)
            return true;
    return false;
}

/* After the bits. Whoever comes in says so in its slot before it bumps our word: we see the one or the other. A dead
 * process counts until somebody has noticed its death. */
static bool is_alone(const tl_store *store) {
    uint32_t processes = (uint32_t)__atomic_load_n(&store->header->processes, __ATOMIC_SEQ_CST);
    for (uint32_t slot = 0; slot < processes && slot < TL_PROCESSES; slot++)
        if (slot != store->slot && __atomic_load_n(&tl_shared_process(store->shared, slot)->inside, __ATOMIC_SEQ_CST) != 0)
            return false;
    return true;
}

/* Whether an open transaction keeps messages of these partitions back: its owner may be dead, or out of time. */
static bool is_held_up(const tl_store *store, tl_partition *const *partitions, size_t count) {
    if (TL_LIKELY(__atomic_load_n(&store->header->unfinished, __ATOMIC_ACQUIRE) == 0))
        return false;
    for (size_t i = 0; i < count; i++)
        if (__atomic_load_n(&partitions[i]->hot->lso, __ATOMIC_RELAXED) != UINT64_MAX)
            return true;
    return false;
}

int tl_store_wait(tl_store *store, tl_partition *const *partitions, const uint64_t *seen, size_t count,
                  int64_t timeout_ns, int64_t busy_ns, const tl_turn *turns, size_t turn_count, const uint32_t *cancel,
                  tl_error *err) {
    int found = changed(partitions, seen, count);
    if (cancelled(store, cancel))
        return refuse(store, err);
    if (turned(store, turns, turn_count))
        return TL_ETURNED;
    if (found >= 0)
        return found;
    int64_t now = tl_os->monotonic_ns();
    int64_t deadline = timeout_ns < 0 || timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
    int64_t spin_until = busy_ns < deadline - now ? now + busy_ns : deadline;
    while (now < spin_until) {
        for (int i = 0; i < 256; i++) {
            if ((found = changed(partitions, seen, count)) >= 0)
                return found;
            tl_cpu_relax();
        }
        if (cancelled(store, cancel))
            return refuse(store, err);
        if (turned(store, turns, turn_count))
            return TL_ETURNED;
        now = tl_os->monotonic_ns();
    }
    tl_process *process = tl_shared_process(store->shared, store->slot);
    const uint64_t bit = (uint64_t)1 << (store->slot & 63);
    for (;;) {
        uint32_t value = __atomic_load_n(&process->word, __ATOMIC_SEQ_CST);
        for (size_t i = 0; i < count; i++)
            if ((__atomic_load_n(&partitions[i]->hot->sleepers, __ATOMIC_RELAXED) & bit) == 0)
                __atomic_fetch_or(&partitions[i]->hot->sleepers, bit, __ATOMIC_SEQ_CST);
        TL_POINT("wait.bits_set");
        TL_FULL_FENCE();
        if (turned(store, turns, turn_count))
            return TL_ETURNED;
        if ((found = changed(partitions, seen, count)) >= 0)
            return found;
        if (cancelled(store, cancel))
            return refuse(store, err);
        now = tl_os->monotonic_ns();
        if (now >= deadline)
            return TL_ETIMEOUT;
        __atomic_fetch_add(&process->sleeping, 1, __ATOMIC_SEQ_CST);
        int64_t slice = is_alone(store) ? ALONE_SLICE_NS : SLICE_NS;
        bool held_up = is_held_up(store, partitions, count);
        slice = held_up ? SLICE_NS : slice;
        int status = tl_os->futex_wait(&process->word, value, deadline - now < slice ? deadline - now : slice);
        __atomic_fetch_sub(&process->sleeping, 1, __ATOMIC_SEQ_CST);
        TL_POINT("wait.woken");
        if (held_up)
            (void)tl_transactions_sweep(store, NULL);
        if (status == -EINTR)
            return TL_EAGAIN;
    }
}
