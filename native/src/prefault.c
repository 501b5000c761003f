/* Who faults in the pages that a writer will need next?
 *
 * Imports handles.h. One thread per process and store, started by the first writer that gets far enough to want it.
 * Faulting a page of a mapped file costs as much as several messages; done ahead, on another core, the writer never
 * waits for it. A writer that catches up populates for itself: the thread makes things faster, never possible. */
#include "handles.h"

#define FROM_POSITION (256u << 10) /* small partitions, of which there may be ten thousand, do without */
#define STEP_LEAST (256u << 10)
#define STEP_MOST (8u << 20)

static uint32_t step_of(uint32_t position) {
    return position < STEP_LEAST ? STEP_LEAST : position > STEP_MOST ? STEP_MOST : position;
}

static void raise_populated(tl_segment *segment, uint32_t until) {
    uint32_t seen = __atomic_load_n(&segment->populated, __ATOMIC_RELAXED);
    while (seen < until &&
           !__atomic_compare_exchange_n(&segment->populated, &seen, until, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        continue;
}

static void *prefault_until_closed(void *context) {
    tl_store *store = context;
    for (;;) {
        uint32_t word = __atomic_load_n(&store->prefault_word, __ATOMIC_SEQ_CST);
        tl_segment *segment = __atomic_exchange_n(&store->prefault_segment, NULL, __ATOMIC_SEQ_CST);
        if (segment != NULL) {
            uint32_t from = __atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE) / TL_PAGE * TL_PAGE;
            uint32_t until = __atomic_load_n(&segment->prefault_until, __ATOMIC_ACQUIRE);
            /* In small bites, so that the writer sees progress. */
            while (from < until && __atomic_load_n(&store->prefault_stop, __ATOMIC_ACQUIRE) == 0) {
                uint32_t bite = until - from < STEP_LEAST ? until - from : STEP_LEAST;
                if (tl_os->populate(segment->map + from, bite, true) < 0)
                    break; /* a full disk, say: the writer meets it and reports it */
                from += bite;
                raise_populated(segment, from);
            }
            __atomic_store_n(&segment->prefault_until, 0, __ATOMIC_RELEASE);
            tl_segment_release(store, segment);
            continue;
        }
        if (__atomic_load_n(&store->prefault_stop, __ATOMIC_ACQUIRE) != 0)
            return NULL;
        (void)tl_os->futex_wait(&store->prefault_word, word, -1);
    }
}

static bool start(tl_store *store) {
    store->has_prefaulter = tl_thread_start(&store->prefaulter, prefault_until_closed, store) == 0;
    return store->has_prefaulter;
}

/* Under the partition's lock, when fewer than prefault_ahead bytes are left. */
void tl_prefault_ask(tl_partition *partition, tl_segment *segment, uint32_t position) {
    tl_store *store = partition->store;
    segment->prefault_ahead = position < FROM_POSITION ? 0 : step_of(position) / 2;
    if (segment->prefault_ahead == 0 || store->options.no_housekeeper ||
        __atomic_load_n(&segment->prefault_until, __ATOMIC_ACQUIRE) != 0 ||
        __atomic_load_n(&store->prefault_segment, __ATOMIC_RELAXED) != NULL)
        return;
    uint32_t populated = __atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE);
    uint32_t until =
        segment->allocated - populated < step_of(position) ? segment->allocated : populated + step_of(position);
    if (until <= populated)
        return;
    pthread_mutex_lock(&store->mutex); /* seldom, and held for a few instructions elsewhere */
    bool runs =
        __atomic_load_n(&store->prefault_stop, __ATOMIC_RELAXED) == 0 && (store->has_prefaulter || start(store));
    pthread_mutex_unlock(&store->mutex);
    if (!runs)
        return;
    tl_segment *none = NULL;
    __atomic_fetch_add(&segment->refs, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&segment->prefault_until, until, __ATOMIC_RELEASE);
    if (!__atomic_compare_exchange_n(&store->prefault_segment, &none, segment, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED)) {
        __atomic_store_n(&segment->prefault_until, 0, __ATOMIC_RELEASE);
        __atomic_fetch_sub(&segment->refs, 1, __ATOMIC_RELAXED); /* the writer holds another */
        return;
    }
    __atomic_fetch_add(&store->prefault_word, 1, __ATOMIC_SEQ_CST);
    tl_os->futex_wake(&store->prefault_word, 1);
}

void tl_prefault_stop(tl_store *store) {
    pthread_mutex_lock(&store->mutex);
    __atomic_store_n(&store->prefault_stop, 1, __ATOMIC_SEQ_CST);
    bool runs = store->has_prefaulter;
    store->has_prefaulter = false;
    pthread_mutex_unlock(&store->mutex);
    if (runs) {
        __atomic_fetch_add(&store->prefault_word, 1, __ATOMIC_SEQ_CST);
        tl_os->futex_wake(&store->prefault_word, 1);
        pthread_join(store->prefaulter, NULL);
    }
    tl_segment_release(store, __atomic_exchange_n(&store->prefault_segment, NULL, __ATOMIC_SEQ_CST));
}
