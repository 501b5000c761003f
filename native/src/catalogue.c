/* Which partitions does a store have, how do they come and go, and which handle stands for one?
 *
 * Imports handles.h. Thread-safe. SHARING rules 18 and 32: slots are handed out under the catalogue's inner lock and are
 * reused only by an exclusive opener; an id is never reused, so that a late writer of a dropped partition finds out. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"
#include "tidelog/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define RETRY_NS 1000000

/* --- the catalogue lock for callers --- */

int tl_store_catalogue_lock(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    int64_t deadline = tl_os->monotonic_ns() + tl_store_lock_timeout_ns(store);
    for (;;) {
        if (pthread_mutex_trylock(&store->catalogue) == 0) {
            int status = tl_store_usable(store) ? tl_os->lock(store->lock_fd, TL_LOCK_EXCLUSIVE, TL_BYTE_CATALOGUE, 1, false) : -EAGAIN;
            if (status == 0) {
                store->catalogue_held = true;
                TL_POINT("catalogue.locked");
                return TL_OK;
            }
            pthread_mutex_unlock(&store->catalogue);
            if (!tl_store_usable(store))
                return tl_store_refuse(store, err);
            if (status != -EAGAIN)
                return tl_fail_sys(err, status, "the catalogue cannot be locked", store->path);
        }
        if (tl_os->monotonic_ns() > deadline)
            return tl_fail(err, TL_ELOCKED, "the catalogue is locked", store->path, -1);
        uint32_t word = 0;
        (void)tl_os->futex_wait(&word, 0, RETRY_NS);
    }
}

void tl_store_catalogue_unlock(tl_store *store) {
    if (store->fork_generation != __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED) || !store->catalogue_held)
        return;
    store->catalogue_held = false;
    if (store->lock_fd >= 0)
        (void)tl_os->lock(store->lock_fd, TL_UNLOCK, TL_BYTE_CATALOGUE, 1, false);
    pthread_mutex_unlock(&store->catalogue);
}

uint64_t tl_store_generation(const tl_store *store) { return __atomic_load_n(&store->header->generation, __ATOMIC_ACQUIRE); }
void tl_store_bump_generation(tl_store *store) { __atomic_fetch_add(&store->header->generation, 1, __ATOMIC_SEQ_CST); }

/* --- making, configuring --- */

static int take_inner(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    int taken = tl_store_take(store, &store->header->catalogue_lock, "the catalogue is locked", err);
    if (taken != TL_LOCK_TAKEN_OVER)
        return taken;
    int status = tl_leftovers_finish(store, err);
    if (status < 0) /* what the dead one began stays for whoever comes next */
        __atomic_store_n(&store->header->catalogue_lock, TL_LOCK_WAITERS | TL_LOCK_NOBODY, __ATOMIC_SEQ_CST);
    return status;
}

static void release_inner(tl_store *store) { tl_lock_release(&store->header->catalogue_lock, store->me); }

static void store_config(tl_cold *cold, const tl_partition_config *config) {
    __atomic_store_n(&cold->segment_bytes, config->segment_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->segment_ms, config->segment_ms, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->retention_ms, config->retention_ms, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->retention_bytes, config->retention_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->max_message_bytes, config->max_message_bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->retention_consumed, config->retention_consumed ? 1u : 0u, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->id_count, config->id_count, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->id_age_ms, config->id_age_ms, __ATOMIC_RELAXED);
}

static int check_limits(const tl_partition_config *config, const char *where, tl_error *err) {
    if (config->segment_bytes < TL_MIN_SEGMENT_BYTES || config->segment_bytes > TL_MAX_SEGMENT_BYTES)
        return tl_fail(err, TL_EINVAL, "a segment has 4096 to 2147483647 bytes", where, -1);
    if (config->id_count > TL_IDS_COUNT_MOST || config->id_age_ms < 0 || config->id_age_ms > TL_IDS_AGE_MOST_MS)
        return tl_fail(err, TL_EINVAL, "a window of message ids has at most 10,000,000 ids and 30 days", where, -1);
    return TL_OK;
}

static int check_config(const tl_partition_config *config, tl_error *err) {
    if (config->directory[0] == 0 || config->directory[0] == '.' || strchr(config->directory, '/') != NULL ||
        memchr(config->directory, 0, sizeof config->directory) == NULL)
        return tl_fail(err, TL_EINVAL, "the directory of a partition is one name without '/'", config->directory, -1);
    return check_limits(config, config->directory, err);
}

static uint32_t find_free(tl_store *store, uint32_t from) {
    /* Slots of dropped partitions carry DROPPED until an exclusive opener clears them, so `id` 0 is really free. */
    for (uint32_t slot = from; slot < store->header->partitions; slot++)
        if (tl_shared_cold(store->shared, slot)->id == 0 && tl_shared_hot(store->shared, slot)->id == 0)
            return slot;
    return store->header->partitions > from ? store->header->partitions : from;
}

static int unlink_each(void *context, const char *name) {
    const int *directory = context;
    (void)tl_os->unlink(*directory, name, false);
    return 0;
}

void tl_catalogue_remove_directory(tl_store *store, const char *name) {
    int fd = tl_os->open(store->dir, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return;
    /* Deleting while listing may pass some over; what is left is tried again until a round finds nothing. */
    for (int rounds = 0; rounds < 100; rounds++) {
        (void)tl_os->list(fd, &fd, unlink_each);
        TL_POINT("drop.emptied");
        if (tl_os->unlink(store->dir, name, true) != -ENOTEMPTY)
            break;
    }
    tl_os->close(fd);
}

/* What stands where a new partition's files will go was left by a drop that failed half way: its batches must never be
 * taken for the new one's, nor its definition come back beside the new one. */
static int make_way(tl_store *store, const char *directory, uint64_t id, tl_error *err) {
    uint32_t dropped[64], used = 0;
    for (uint32_t slot = 0; slot < store->header->partitions; slot++) {
        const tl_cold *cold = tl_shared_cold(store->shared, slot);
        uint64_t seen = __atomic_load_n(&tl_shared_hot(store->shared, slot)->id, __ATOMIC_ACQUIRE);
        if (seen == 0 || strcmp(cold->directory, directory) != 0)
            continue;
        if ((seen & 1) == 0)
            return tl_fail(err, TL_EEXIST, "a partition has this directory already", directory, -1);
        if (used < sizeof dropped / sizeof *dropped)
            dropped[used++] = slot;
    }
    int status = used == 0 ? TL_OK : tl_records_drop(store, dropped, used, err);
    if (status < 0)
        return status;
    char gone[64];
    snprintf(gone, sizeof gone, ".deleted-%llu-before", (unsigned long long)id);
    status = tl_os->rename(store->dir, directory, store->dir, gone);
    TL_POINT("catalogue.way_made");
    if (status < 0 && status != -ENOENT)
        return tl_fail_sys(err, status, "files of a dropped partition stand in the way and cannot be moved", directory);
    tl_catalogue_remove_directory(store, gone);
    return TL_OK;
}

static int is_there(tl_store *store, const char *directory, tl_error *err) {
    int fd = tl_os->open(store->dir, directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd >= 0)
        tl_os->close(fd);
    if (fd < 0 && fd != -ENOENT)
        return tl_fail_sys(err, fd, "the directory of a new partition cannot be looked for", directory);
    return fd >= 0 ? 1 : 0;
}

static void clear_words(void *words, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
        __atomic_store_n((uint64_t *)words + i, 0, __ATOMIC_RELAXED);
}

static int fill_slot(tl_store *store, const tl_partition_config *config, uint32_t slot, tl_error *err) {
    int status = tl_shared_grow(store, slot + 1, err);
    if (status < 0)
        return status;
    uint64_t id = __atomic_fetch_add(&store->header->next_id, 2, __ATOMIC_SEQ_CST);
    if ((status = is_there(store, config->directory, err)) == 1)
        status = make_way(store, config->directory, id, err);
    if (status < 0)
        return status;
    tl_cold *cold = tl_shared_cold(store->shared, slot);
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    clear_words(hot, sizeof *hot); /* rounds of housekeeping look at free slots too */
    clear_words(cold, sizeof *cold);
    memcpy(cold->channel, config->channel, 16);
    cold->partition = config->partition;
    memcpy(cold->directory, config->directory, sizeof cold->directory);
    store_config(cold, config);
    const tl_end none = {.max_timestamp_ms = -1};
    tl_end_store(&hot->end_a, &none);
    tl_hot_set_progress(hot, 0, -1, -1);
    __atomic_store_n(&hot->lso, UINT64_MAX, __ATOMIC_RELAXED);
    __atomic_store_n(&cold->first_open, UINT64_MAX, __ATOMIC_RELAXED);
    __atomic_store_n(&hot->lease, 0, __ATOMIC_RELAXED); /* equal to the end: nothing was given out, so a power cut has nothing to fill */
    cold->id = id;
    return TL_OK;
}

static int create_locked(tl_store *store, const tl_partition_config *configs, size_t count, uint32_t *slots, tl_error *err) {
    uint32_t from = 0;
    size_t filled = 0;
    int status = TL_OK;
    for (; filled < count && status == TL_OK; filled += status == TL_OK) {
        slots[filled] = find_free(store, from);
        from = slots[filled] + 1;
        status = fill_slot(store, &configs[filled], slots[filled], err);
    }
    /* The directories of dropped partitions must be out of the way on the disk too, before a definition with one of their
     * names is: a power cut would bring them back under the new one. */
    if (status == TL_OK && !TL_BUG(DIRECTORY_NOT_SYNCED) && (status = tl_os->fsync(store->dir)) < 0)
        status = tl_fail_sys(err, status, "the directory of the store cannot be synced", store->path);
    TL_POINT("catalogue.filled");
    int recorded = status == TL_OK ? tl_records_put_definitions(store, slots, count, true, err) : TL_ENOSPC;
    if (recorded < 0) {
        /* The definitions may be in the checkpoint although the call failed. Those that cannot be taken back stay half
         * made in the words, and whoever is alone in the store next undoes them. */
        bool written = recorded != TL_ENOSPC && recorded != TL_ENOMEM;
        if (!written || tl_records_drop(store, slots, count, NULL) == TL_OK)
            for (size_t i = 0; i < filled; i++)
                tl_shared_cold(store->shared, slots[i])->id = 0;
        return status < 0 ? status : recorded;
    }
    TL_POINT("catalogue.durable");
    for (size_t i = 0; i < count; i++)
        __atomic_store_n(&tl_shared_hot(store->shared, slots[i])->id, tl_shared_cold(store->shared, slots[i])->id, __ATOMIC_RELEASE);
    TL_POINT("catalogue.published");
    return TL_OK;
}

int tl_store_create_partitions(tl_store *store, const tl_partition_config *configs, size_t count, uint32_t *slots, tl_error *err) {
    for (size_t i = 0; i < count; i++) {
        int status = check_config(&configs[i], err);
        if (status < 0)
            return status;
    }
    int status = take_inner(store, err);
    if (status < 0)
        return status;
    status = create_locked(store, configs, count, slots, err);
    release_inner(store);
    return status;
}

int tl_store_configure_partitions(tl_store *store, const uint32_t *slots, size_t count,
                                  const tl_partition_config *config, tl_error *err) {
    int status = check_limits(config, store->path, err);
    if (status == TL_OK)
        status = take_inner(store, err);
    if (status < 0)
        return status;
    for (size_t i = 0; i < count && status == TL_OK; i++) {
        if (slots[i] >= store->header->partitions || tl_shared_cold(store->shared, slots[i])->id == 0)
            status = tl_fail(err, TL_EINVAL, "there is no such partition slot", store->path, slots[i]);
        else
            store_config(tl_shared_cold(store->shared, slots[i]), config);
    }
    if (status == TL_OK)
        status = tl_records_put_definitions(store, slots, count, false, err);
    release_inner(store);
    return status;
}

/* --- dropping --- */

void tl_partition_drop_directory(tl_store *store, uint32_t slot) {
    tl_cold *cold = tl_shared_cold(store->shared, slot);
    char gone[64];
    snprintf(gone, sizeof gone, ".deleted-%llu", (unsigned long long)(cold->id & ~(uint64_t)1));
    int status = tl_os->rename(store->dir, cold->directory, store->dir, gone);
    TL_POINT("drop.renamed");
    if (status == 0 || status == -ENOENT)
        tl_catalogue_remove_directory(store, gone);
}

static int mark_dropped(tl_store *store, uint32_t slot, bool *marked, tl_error *err) {
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    uint64_t id = __atomic_load_n(&hot->id, __ATOMIC_ACQUIRE);
    if (id == 0 || (id & 1) != 0)
        return TL_OK;
    tl_partition *partition = NULL;
    int status = tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err);
    if (status < 0)
        return status;
    status = tl_partition_lock(partition, false, err); /* no writer is half way when its files go */
    if (status == TL_OK || status == TL_EFAILED || status == TL_EDROPPED) {
        __atomic_store_n(&hot->id, id | 1, __ATOMIC_SEQ_CST);
        *marked = true;
        if (status == TL_OK)
            tl_partition_unlock(partition);
        status = TL_OK;
        TL_POINT("drop.marked");
    }
    tl_partition_release(partition);
    return status;
}

int tl_store_drop_partitions(tl_store *store, const uint32_t *slots, size_t count, tl_error *err) {
    for (size_t i = 0; i < count; i++)
        if (slots[i] >= store->header->partitions)
            return tl_fail(err, TL_EINVAL, "there is no such partition slot", store->path, slots[i]);
    bool *marked = tl_calloc(count + 1, sizeof *marked);
    if (marked == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to drop partitions", store->path, -1);
    int status = take_inner(store, err);
    if (status < 0) {
        tl_os->free(marked);
        return status;
    }
    for (size_t i = 0; i < count && status == TL_OK; i++)
        status = mark_dropped(store, slots[i], &marked[i], err);
    if (status == TL_OK)
        status = tl_records_drop(store, slots, count, err);
    TL_POINT("drop.recorded");
    /* Not recorded: they live on. A failed sync leaves it in doubt, and what may be gone after a power cut takes no more. */
    for (size_t i = 0; i < count && status < 0 && status != TL_EFAILED; i++)
        if (marked[i])
            __atomic_fetch_and(&tl_shared_hot(store->shared, slots[i])->id, ~(uint64_t)1, __ATOMIC_SEQ_CST);
    tl_os->free(marked);
    for (size_t i = 0; i < count && status == TL_OK; i++) {
        tl_partition_drop_directory(store, slots[i]);
        if (store->gate_exclusive) { /* nobody else can have a handle: the slot is free at once */
            tl_shared_cold(store->shared, slots[i])->id = 0;
            __atomic_store_n(&tl_shared_hot(store->shared, slots[i])->id, 0, __ATOMIC_RELEASE);
        }
    }
    release_inner(store);
    tl_store_wake_everybody(store); /* sleepers on them learn that they are gone */
    return status;
}

static void fill_config(const tl_cold *cold, tl_partition_config *config) {
    memset(config, 0, sizeof *config);
    memcpy(config->channel, cold->channel, 16);
    config->partition = cold->partition;
    memcpy(config->directory, cold->directory, sizeof config->directory);
    config->directory[sizeof config->directory - 1] = 0;
    config->segment_bytes = __atomic_load_n(&cold->segment_bytes, __ATOMIC_RELAXED);
    config->segment_ms = __atomic_load_n(&cold->segment_ms, __ATOMIC_RELAXED);
    config->retention_ms = __atomic_load_n(&cold->retention_ms, __ATOMIC_RELAXED);
    config->retention_bytes = __atomic_load_n(&cold->retention_bytes, __ATOMIC_RELAXED);
    config->max_message_bytes = __atomic_load_n(&cold->max_message_bytes, __ATOMIC_RELAXED);
    config->retention_consumed = __atomic_load_n(&cold->retention_consumed, __ATOMIC_RELAXED) != 0;
    config->id_count = __atomic_load_n(&cold->id_count, __ATOMIC_RELAXED);
    config->id_age_ms = __atomic_load_n(&cold->id_age_ms, __ATOMIC_RELAXED);
}

int tl_store_each_partition(tl_store *store, void *context, int (*each)(void *context, uint32_t slot,
                                                                        const tl_partition_config *config)) {
    uint32_t count = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE);
    for (uint32_t slot = 0; slot < count; slot++) {
        uint64_t id = __atomic_load_n(&tl_shared_hot(store->shared, slot)->id, __ATOMIC_ACQUIRE);
        if (id == 0 || (id & 1) != 0)
            continue;
        tl_partition_config config;
        fill_config(tl_shared_cold(store->shared, slot), &config);
        int result = each(context, slot, &config);
        if (result != 0)
            return result;
    }
    return 0;
}

/* --- handles --- */

static int grow_table(tl_store *store, uint32_t slot) {
    if (slot < store->table_size)
        return TL_OK;
    uint32_t size = store->table_size < 64 ? 64 : store->table_size;
    while (size <= slot)
        size *= 2;
    tl_partition **table = tl_os->realloc(store->table, size * sizeof *table);
    if (table == NULL)
        return TL_ENOMEM;
    memset(table + store->table_size, 0, (size - store->table_size) * sizeof *table);
    store->table = table;
    store->table_size = size;
    return TL_OK;
}

int tl_store_partition(tl_store *store, uint32_t slot, const uint8_t channel[16], tl_partition **out, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (slot >= __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE))
        return tl_fail(err, TL_EINVAL, "there is no such partition slot", store->path, slot);
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    tl_cold *cold = tl_shared_cold(store->shared, slot);
    uint64_t id = __atomic_load_n(&hot->id, __ATOMIC_ACQUIRE);
    if (id == 0 || (id & 1) != 0 || id != cold->id || memcmp(cold->channel, channel, 16) != 0)
        return tl_fail(err, TL_EDROPPED, "the channel was dropped", cold->directory, -1);
    int status = TL_OK;
    tl_partition *partition = NULL;
    pthread_mutex_lock(&store->mutex);
    if (grow_table(store, slot) < 0) {
        status = tl_fail(err, TL_ENOMEM, "no memory for a partition", cold->directory, -1);
    } else if ((partition = store->table[slot]) != NULL && partition->id == id) {
        __atomic_fetch_add(&partition->refs, 1, __ATOMIC_RELAXED);
    } else if ((partition = tl_calloc(1, sizeof *partition)) == NULL) {
        status = tl_fail(err, TL_ENOMEM, "no memory for a partition", cold->directory, -1);
    } else {
        partition->store = store;
        partition->slot = slot;
        partition->refs = 1;
        partition->id = id;
        partition->hot = hot;
        partition->cold = cold;
        partition->sync_fd = -1;
        pthread_mutex_init(&partition->mutex, NULL);
        pthread_mutex_init(&partition->index_mutex, NULL);
        pthread_mutex_init(&partition->producers_mutex, NULL);
        pthread_mutex_init(&partition->aborted_mutex, NULL);
        tl_store_retain(store);
        store->table[slot] = partition;
    }
    pthread_mutex_unlock(&store->mutex);
    *out = partition;
    return status;
}

void tl_partition_release(tl_partition *partition) {
    if (partition == NULL)
        return;
    tl_store *store = partition->store;
    bool foreign = store->fork_generation != __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED);
    if (foreign) /* the parent's locks may be in any state here: leave everything as it is */
        return;
    pthread_mutex_lock(&store->mutex);
    if (__atomic_sub_fetch(&partition->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        pthread_mutex_unlock(&store->mutex);
        return;
    }
    if (partition->slot < store->table_size && store->table[partition->slot] == partition)
        store->table[partition->slot] = NULL;
    pthread_mutex_unlock(&store->mutex);
    tl_partition_forget_segments(partition, UINT32_MAX);
    tl_segment_release(store, partition->writer);
    if (partition->seals != NULL)
        tl_os->unmap(partition->seals, TL_SEALS_MAX_BYTES);
    if (partition->sync_fd >= 0) {
        tl_os->close(partition->sync_fd);
        __atomic_fetch_sub(&store->open_descriptors, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_destroy(&partition->mutex);
    pthread_mutex_destroy(&partition->index_mutex);
    pthread_mutex_destroy(&partition->producers_mutex);
    pthread_mutex_destroy(&partition->aborted_mutex);
    tl_aborted_free(partition);
    tl_producers_free(partition);
    tl_ids_free(partition);
    tl_os->free(partition);
    tl_store_free(store);
}

/* --- offsets --- */

int tl_store_offset_slot(tl_store *store, const char *group, size_t group_bytes, const uint8_t channel[16], uint32_t partition,
                         bool create, uint32_t *slot, tl_error *err) {
    uint32_t number = 0;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    int status = tl_offsets_group(store->offsets, group, group_bytes, false, &number, err);
    if (status == TL_OK)
        status = tl_offsets_slot(store->offsets, number, channel, partition, false, slot, err);
    if (status != TL_ENOTFOUND || !create)
        return status;
    if ((status = take_inner(store, err)) < 0)
        return status;
    status = tl_offsets_group(store->offsets, group, group_bytes, true, &number, err);
    if (status == TL_OK)
        status = tl_offsets_slot(store->offsets, number, channel, partition, true, slot, err);
    release_inner(store);
    return status;
}

int tl_store_group(tl_store *store, const char *group, size_t group_bytes, uint32_t *number, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    int status = tl_offsets_group(store->offsets, group, group_bytes, false, number, err);
    if (status != TL_ENOTFOUND)
        return status;
    if ((status = take_inner(store, err)) < 0)
        return status;
    status = tl_offsets_group(store->offsets, group, group_bytes, true, number, err);
    release_inner(store);
    return status;
}

int tl_store_sync_offsets(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    pthread_mutex_lock(&store->housekeeping);
    int status = tl_records_put_offsets(store, err);
    pthread_mutex_unlock(&store->housekeeping);
    return status == TL_OK ? tl_records_sync(store, err) : status;
}
