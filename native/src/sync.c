/* How do appended bytes reach the disk, once for all who wait?
 *
 * Imports handles.h, guard.h. Blocking; callable from any thread. SHARING rules 21 and 23: the sync lock is taken without
 * the append lock; its holder captures the tail, syncs every segment up to it (and seals and directory if they changed),
 * publishes `synced` and wakes the others. A failed sync is sticky for every process: the kernel has marked the pages
 * clean, so that a second try would succeed and mean nothing. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define SLICE_NS 20000000
#define MUCH_BYTES (1u << 20)

bool tl_partition_is_synced(const tl_partition *partition, uint64_t tail) {
    return __atomic_load_n(&partition->hot->synced, __ATOMIC_ACQUIRE) >= tail;
}

/* After the release: a waiter that is not served yet must find the lock free when it wakes. */
static void end_turn(tl_hot *hot) {
    __atomic_fetch_add(&hot->sync_turns, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&hot->sync_waiters, __ATOMIC_SEQ_CST) != 0)
        tl_os->futex_wake(&hot->sync_turns, INT32_MAX);
}

static int failed_error(tl_partition *partition, tl_error *err) {
    int number = (int)(__atomic_load_n(&partition->hot->failed, __ATOMIC_RELAXED) & ~TL_UNRECOVERED);
    tl_fail(err, TL_EFAILED, "a sync of the partition failed", partition->cold->directory, -1);
    if (err != NULL)
        err->sys_errno = number;
    return TL_EFAILED;
}

/* The word stops this boot's processes at once, the file the next ones. */
int tl_partition_set_failed(tl_partition *partition, int negative_errno, const char *path, tl_error *err) {
    tl_store *store = partition->store;
    uint32_t none = 0;
    __atomic_compare_exchange_n(&partition->hot->failed, &none, (uint32_t)-negative_errno, false, __ATOMIC_SEQ_CST,
                                __ATOMIC_RELAXED);
    char marker[360];
    snprintf(marker, sizeof marker, "%s/" TL_FAILED_FILE, partition->cold->directory);
    int fd = tl_os->open(store->dir, marker, O_WRONLY | O_CREAT, TL_FILE_MODE);
    if (fd >= 0) {
        char text[160];
        int length = snprintf(text, sizeof text, "errno %d while syncing %.100s\n", -negative_errno, path);
        (void)tl_os->pwrite(fd, text, (size_t)length, 0);
        (void)tl_os->fsync(fd);
        tl_os->close(fd);
    }
    end_turn(partition->hot);
    tl_fail_sys(err, negative_errno, "a segment could not be synced; the partition takes no more messages", path);
    if (err != NULL)
        err->code = TL_EFAILED;
    return TL_EFAILED;
}

/* dirty_from: where what is to be written begins, if it is much; -1 otherwise. */
static int sync_path(tl_partition *partition, const char *path, bool directory, bool keep, uint32_t ordinal, int64_t dirty_from,
                     tl_error *err) {
    tl_store *store = partition->store;
    int fd = keep && partition->sync_fd >= 0 && partition->sync_ordinal == ordinal ? partition->sync_fd : -1;
    if (fd < 0) {
        if (keep && partition->sync_fd >= 0) {
            tl_os->close(partition->sync_fd);
            partition->sync_fd = -1;
            __atomic_fetch_sub(&store->open_descriptors, 1, __ATOMIC_RELAXED);
        }
        fd = tl_os->open(store->dir, path, directory ? O_RDONLY | O_DIRECTORY : O_RDWR, 0);
        if (fd == -ENOENT)
            return TL_ENOTFOUND;
        if (fd < 0)
            return tl_fail_sys(err, fd, "a file cannot be opened to sync it", path);
        if (keep && __atomic_add_fetch(&store->open_descriptors, 1, __ATOMIC_RELAXED) <= TL_MAX_OPEN_SEGMENTS) {
            partition->sync_fd = fd;
            partition->sync_ordinal = ordinal;
        } else if (keep) {
            __atomic_fetch_sub(&store->open_descriptors, 1, __ATOMIC_RELAXED);
        }
    }
    if (dirty_from >= 0)
        tl_os->write_out(fd, (uint64_t)dirty_from);
    int status = directory ? tl_os->fsync(fd) : tl_os->fdatasync(fd);
    if (status < 0 && TL_BUG(FSYNC_RETRIED))
        status = directory ? tl_os->fsync(fd) : tl_os->fdatasync(fd);
    if (fd != partition->sync_fd)
        tl_os->close(fd);
    return status < 0 ? tl_partition_set_failed(partition, status, path, err) : TL_OK;
}

__attribute__((noinline)) static void touch_pages(uint8_t *map, uint64_t first, uint64_t last) {
    for (uint64_t at = first; at < last; at += TL_PAGE)
        (void)__atomic_fetch_or(map + at, 0, __ATOMIC_RELAXED); /* writers may be at work in the last page */
}

static bool touch(uint8_t *map, uint64_t first, uint64_t last) {
    tl_guard guard;
    TL_GUARDED(guard) { touch_pages(map, first, last); }
    TL_GUARD_CAUGHT(guard) { return false; }
    return true;
}

/* A leader died inside fdatasync: it may have seen an error that nobody will be told again. Made dirty once more, the
 * pages are written once more, and the error (if the disk still has it) is ours. */
static int dirty_again(tl_partition *partition, uint64_t from, uint64_t until, tl_error *err) {
    for (uint32_t ordinal = tl_place_ordinal(from); ordinal <= tl_place_ordinal(until); ordinal++) {
        int64_t base = 0;
        int status = tl_segment_base(partition, ordinal, &base, err);
        if (status < 0)
            return status;
        tl_segment *segment = NULL;
        status = tl_segment_open_writer(partition, ordinal, base, &segment, err);
        if (status == TL_ENOTFOUND)
            continue; /* retention took it */
        if (status < 0)
            return status;
        uint64_t first = ordinal == tl_place_ordinal(from) ? tl_place_position(from) / TL_PAGE * TL_PAGE : 0;
        uint64_t last = ordinal == tl_place_ordinal(until) ? tl_place_position(until) : segment->allocated;
        if (!touch(segment->map, first, last))
            status = tl_fail(err, TL_EBUS, "a segment cannot be written", partition->cold->directory, (int64_t)first);
        tl_segment_release(partition->store, segment);
        if (status < 0)
            return status;
    }
    if (tl_place_ordinal(until) > 0 && tl_seals_map(partition, false, NULL) == TL_OK &&
        !touch(partition->seals, 0, __atomic_load_n(&partition->seals_allocated, __ATOMIC_ACQUIRE)))
        return tl_fail(err, TL_EBUS, "the file of seals cannot be written", partition->cold->directory, -1);
    return TL_OK;
}

/* A seal promises so many entries, and nobody scans a segment that lies before the recovery point. */
int tl_partition_sync_indexes(tl_partition *partition, int64_t base_offset, tl_error *err) {
    for (size_t i = 1; i < TL_SEGMENT_SUFFIXES; i++) {
        char path[360];
        tl_segment_path(partition, base_offset, tl_segment_suffixes[i], path);
        int status = sync_path(partition, path, false, false, 0, -1, err);
        if (status < 0 && status != TL_ENOTFOUND)
            return status;
    }
    return TL_OK;
}

static int sync_directory(tl_partition *partition, uint64_t tail, tl_error *err) {
    uint64_t wanted = tl_place(tl_place_ordinal(tail), 1);
    if (partition->directory_synced >= wanted || TL_BUG(DIRECTORY_NOT_SYNCED))
        return TL_OK;
    char path[360];
    int status = TL_OK;
    if (tl_place_ordinal(tail) > 0) {
        snprintf(path, sizeof path, "%s/seals", partition->cold->directory);
        status = sync_path(partition, path, false, false, 0, -1, err);
        if (status == TL_ENOTFOUND)
            status = TL_OK;
    }
    if (status == TL_OK)
        status = sync_path(partition, partition->cold->directory, true, false, 0, -1, err);
    if (status == TL_OK && partition->directory_synced == 0)
        status = sync_path(partition, ".", true, false, 0, -1, err);
    if (status == TL_OK)
        partition->directory_synced = wanted;
    TL_POINT("sync.directory");
    return status;
}

/* Where in this segment the unsynced bytes begin, if they are many; -1 otherwise. */
static int64_t much_from(uint64_t synced, uint64_t tail, uint32_t ordinal) {
    uint64_t from = ordinal == tl_place_ordinal(synced) ? tl_place_position(synced) : 0;
    uint64_t until = ordinal == tl_place_ordinal(tail) ? tl_place_position(tail) : UINT32_MAX;
    return until - from > MUCH_BYTES ? (int64_t)(from / TL_PAGE * TL_PAGE) : -1;
}

/* Under the sync lock. */
static int lead(tl_partition *partition, tl_error *err) {
    tl_hot *hot = partition->hot;
    if (__atomic_load_n(&hot->failed, __ATOMIC_ACQUIRE) != 0)
        return failed_error(partition, err);
    /* Cleared before the capture: an append that the capture misses sets it again. */
    __atomic_store_n(&hot->dirty_since_ns, 0, __ATOMIC_SEQ_CST);
    uint64_t synced = __atomic_load_n(&hot->synced, __ATOMIC_ACQUIRE);
    uint64_t tail = __atomic_load_n(&hot->tail, __ATOMIC_SEQ_CST);
    int status = TL_OK;
    if (__atomic_load_n(&hot->syncing, __ATOMIC_ACQUIRE) != 0 && !TL_BUG(SYNCING_IGNORED)) {
        status = dirty_again(partition, synced, tail, err);
        if (status < 0)
            return status;
        TL_POINT("sync.dirtied_again");
    }
    if (synced >= tail) {
        __atomic_store_n(&hot->syncing, 0, __ATOMIC_RELEASE);
        return TL_OK;
    }
    __atomic_store_n(&hot->syncing, tail + 1, __ATOMIC_SEQ_CST);
    TL_POINT("sync.begin");
    for (uint32_t ordinal = tl_place_ordinal(synced); status == TL_OK && ordinal <= tl_place_ordinal(tail); ordinal++) {
        if (ordinal < __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE))
            continue;
        bool newest = ordinal == tl_place_ordinal(tail);
        if (newest && tl_place_position(tail) == 0)
            continue;
        int64_t base = 0;
        status = tl_segment_base(partition, ordinal, &base, err);
        if (status < 0)
            break;
        char path[360];
        tl_segment_path(partition, base, ".log", path);
        status = sync_path(partition, path, false, newest, ordinal, much_from(synced, tail, ordinal), err);
        if (status == TL_ENOTFOUND) {
            bool deleted = ordinal < __atomic_load_n(&hot->first_ordinal, __ATOMIC_ACQUIRE);
            status = deleted ? TL_OK : tl_fail(err, TL_ECORRUPT, "a segment is missing", path, -1);
        }
        if (status == TL_OK && !newest)
            status = tl_partition_sync_indexes(partition, base, err);
        TL_POINT("sync.segment");
    }
    if (status == TL_OK)
        status = sync_directory(partition, tail, err);
    if (status < 0) {
        /* Nothing was promised for this range; the next leader goes over it again unless the partition has failed. */
        __atomic_store_n(&hot->dirty_since_ns, (uint64_t)tl_os->monotonic_ns(), __ATOMIC_RELAXED);
        return status;
    }
    TL_POINT("sync.before_publish");
    __atomic_store_n(&hot->synced, tail, __ATOMIC_RELEASE);
    __atomic_store_n(&hot->syncing, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&hot->late, 0, __ATOMIC_RELAXED);
    TL_POINT("sync.published");
    return TL_OK;
}

static int lead_and_release(tl_partition *partition, tl_error *err) {
    int status = tl_store_usable(partition->store) ? lead(partition, err) : tl_store_refuse(partition->store, err);
    tl_lock_release(&partition->hot->sync_lock, partition->store->me);
    end_turn(partition->hot);
    return status;
}

int tl_partition_sync(tl_partition *partition, uint64_t tail, int64_t timeout_ns, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_store *store = partition->store;
    int64_t deadline = timeout_ns < 0 ? INT64_MAX : tl_os->monotonic_ns() + timeout_ns;
    for (;;) {
        uint32_t turns =
            __atomic_load_n(&hot->sync_turns, __ATOMIC_SEQ_CST); /* before the lock is tried: its release bumps it */
        if (__atomic_load_n(&hot->synced, __ATOMIC_ACQUIRE) >= tail)
            return TL_OK;
        if (__atomic_load_n(&hot->failed, __ATOMIC_ACQUIRE) != 0)
            return failed_error(partition, err);
        if (!tl_store_usable(store))
            return tl_store_refuse(store, err);
        if (store->options.look)
            return tl_store_refuse_look(store, err);
        if (tl_lock_try(&hot->sync_lock, store->me)) {
            int status = lead_and_release(partition, err);
            if (status < 0)
                return status;
            continue;
        }
        int64_t now = tl_os->monotonic_ns();
        if (now >= deadline)
            return tl_fail(err, TL_ETIMEOUT, "the disk has not confirmed in time", partition->cold->directory, -1);
        __atomic_fetch_add(&hot->sync_waiters, 1, __ATOMIC_SEQ_CST);
        int result = tl_os->futex_wait(&hot->sync_turns, turns, deadline - now < SLICE_NS ? deadline - now : SLICE_NS);
        __atomic_fetch_sub(&hot->sync_waiters, 1, __ATOMIC_SEQ_CST);
        if (result == -ETIMEDOUT) { /* the leader may have died */
            tl_owner holder = 0;
            int taken = tl_lock_take(&hot->sync_lock, store->me, &store->liveness, 0, &holder);
            if (taken >= 0) {
                TL_POINT("sync.lock_taken");
                int status = lead_and_release(partition, err);
                if (status < 0)
                    return status;
            }
        }
    }
}

int tl_partition_sync_flush(tl_partition *partition, tl_error *err) {
    uint64_t tail = __atomic_load_n(&partition->hot->tail, __ATOMIC_ACQUIRE);
    return tl_partition_sync(partition, tail, tl_store_lock_timeout_ns(partition->store), err);
}
