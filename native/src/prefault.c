/* Who makes the file longer and faults in the pages that a writer will need next?
 *
 * Imports handles.h. One thread per process and store, started by the first writer that gets far enough to want it.
 * Faulting a page of a mapped file costs as much as several messages; done ahead, on another core, the writer never
 * waits for it. It takes no lock of the partition: zeros at the end of the file are in nobody's way, whoever else makes it
 * longer. A writer that catches up helps itself: the thread makes things faster, never possible. */
#include "handles.h"

#include <fcntl.h>

#define FROM_POSITION (192u << 10) /* small partitions, of which there may be ten thousand, do without */
#define BITE_LEAST (128u << 10)
#define BITE_MOST (512u << 10)
#define STEP_LEAST (256u << 10) /* half of it is asked for ahead: it must last while the thread wakes up */
#define STEP_MOST (4u << 20)   /* what was zeroed longer ago is in no cache any more when it is written */

static uint32_t step_of(uint32_t position) {
    uint32_t step = 2 * (position / TL_PAGE) * TL_PAGE;
    return position > STEP_MOST / 2 ? STEP_MOST : step < STEP_LEAST ? STEP_LEAST : step;
}

/* Zeros that came behind the end of a segment after its roll has cut it. */
static void cut_if_sealed(const tl_segment *segment) {
    tl_partition *partition = segment->partition;
    tl_seal seal;
    if (tl_place_ordinal(__atomic_load_n(&partition->hot->tail, __ATOMIC_ACQUIRE)) != segment->ordinal &&
        tl_seals_read(partition, segment->ordinal, &seal, NULL) == TL_OK && seal.length > 0)
        tl_segment_trim_files(partition, segment->base_offset, &seal);
}

/* In small bites, so that the writer sees progress, and we its. */
static void prepare(tl_store *store, tl_segment *segment) {
    uint32_t until = __atomic_load_n(&segment->prefault_until, __ATOMIC_ACQUIRE);
    uint32_t most = until / 32 < BITE_LEAST ? BITE_LEAST : until / 32 > BITE_MOST ? BITE_MOST : until / 32 / TL_PAGE * TL_PAGE;
    int fd = -1;
    for (;;) {
        (void)tl_segment_wait_ready(segment, &segment->writer_grows, UINT32_MAX);
        uint32_t from = __atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE) / TL_PAGE * TL_PAGE;
        if (from >= until || __atomic_load_n(&store->prefault_stop, __ATOMIC_ACQUIRE) != 0)
            break;
        uint32_t bite = until - from < most ? until - from : most;
        uint32_t there = __atomic_load_n(&segment->allocated, __ATOMIC_ACQUIRE) - from;
        if (there == 0) {
            char path[360];
            tl_segment_path(segment->partition, segment->base_offset, ".log", path);
            if (fd < 0 && (fd = tl_os->open(store->dir, path, O_RDWR, 0)) < 0)
                break;
            if (tl_segment_lengthen(segment, fd, from + bite) < 0)
                break; /* a full disk, say: the writer meets it and reports it */
            TL_POINT("prefault.lengthened");
            continue;
        }
        bite = bite < there ? bite : there;
        if (tl_os->populate(segment->map + from, bite, true) < 0)
            break;
        tl_segment_raise(&segment->populated, from + bite);
    }
    if (fd >= 0) {
        tl_os->close(fd);
        if (!TL_BUG(ZEROS_LEFT_BEHIND_A_SEAL))
            cut_if_sealed(segment);
    }
}

static void forget(tl_store *store, tl_segment *segment) {
    tl_partition *partition = segment->partition;
    tl_segment_release(store, segment);
    tl_partition_release(partition);
}

static void *prefault_until_closed(void *context) {
    tl_store *store = context;
    for (;;) {
        uint32_t word = __atomic_load_n(&store->prefault_word, __ATOMIC_SEQ_CST);
        tl_segment *segment = __atomic_exchange_n(&store->prefault_segment, NULL, __ATOMIC_SEQ_CST);
        if (segment != NULL) {
            __atomic_store_n(&segment->prefault_runs, true, __ATOMIC_RELEASE);
            prepare(store, segment);
            __atomic_store_n(&segment->prefault_runs, false, __ATOMIC_RELEASE);
            __atomic_store_n(&segment->prefault_until, 0, __ATOMIC_RELEASE);
            forget(store, segment);
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
void tl_prefault_ask(tl_segment *segment, uint32_t position) {
    tl_partition *partition = segment->partition;
    tl_store *store = partition->store;
    uint32_t populated = __atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE), limit = tl_segment_limit(segment);
    segment->prefault_ahead = position < FROM_POSITION || populated >= limit ? 0 : step_of(position) / 2;
    if (segment->prefault_ahead == 0 || store->options.no_housekeeper ||
        __atomic_load_n(&segment->prefault_until, __ATOMIC_ACQUIRE) != 0 ||
        __atomic_load_n(&store->prefault_segment, __ATOMIC_RELAXED) != NULL)
        return;
    uint32_t until = limit - populated < step_of(position) ? limit : populated + step_of(position);
    pthread_mutex_lock(&store->mutex); /* seldom, and held for a few instructions elsewhere */
    bool runs =
        __atomic_load_n(&store->prefault_stop, __ATOMIC_RELAXED) == 0 && (store->has_prefaulter || start(store));
    pthread_mutex_unlock(&store->mutex);
    if (!runs)
        return;
    tl_segment *none = NULL;
    __atomic_fetch_add(&segment->refs, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&partition->refs, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&segment->prefault_until, until, __ATOMIC_RELEASE);
    if (!__atomic_compare_exchange_n(&store->prefault_segment, &none, segment, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED)) {
        __atomic_store_n(&segment->prefault_until, 0, __ATOMIC_RELEASE);
        __atomic_fetch_sub(&segment->refs, 1, __ATOMIC_RELAXED); /* the writer holds another of both */
        __atomic_fetch_sub(&partition->refs, 1, __ATOMIC_RELAXED);
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
    tl_segment *left = __atomic_exchange_n(&store->prefault_segment, NULL, __ATOMIC_SEQ_CST);
    if (left != NULL)
        forget(store, left);
}
