/* What does a process do that comes into a store: as the only one, after a clean close, a death or a power cut, or beside others?
 *
 * Imports handles.h. Called while a store is opened, under the registry's mutex; recovery has the gate alone. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <errno.h>

/* --- recovery; the gate is held alone --- */

/* Every process is gone, and the page cache is the one they wrote to: the words are the truth. */
static int recover_same_boot(tl_store *store, tl_recovery *recovery, tl_error *err) {
    tl_shared_header *header = store->header;
    recovery->same_boot = true;
    header->catalogue_lock = header->checkpoint_lock = header->checkpoint_sync_lock = 0;
    tl_groups_forget_members(store);
    int status = tl_checkpoint_open(&store->checkpoint, store->dir, &header->checkpoint, err);
    if (status == TL_OK && tl_checkpoint_needs_recovery(&store->checkpoint))
        status = tl_checkpoint_recover(&store->checkpoint, err); /* all are gone: what its files hold is written anew */
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_OPEN, &store->offsets, err);
    if (status < 0)
        return status;
    for (uint32_t slot = 0; slot < header->partitions; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        hot->sleepers = 0;
        hot->sync_waiters = 0;
        hot->sync_lock = 0; /* `syncing` stays: the next leader must know that one died */
        if (hot->id == 0 || (hot->id & 1) != 0) {
            hot->lock = 0;
            continue;
        }
        recovery->partitions++;
        if (hot->lock == 0 && hot->reserve == hot->tail)
            continue;
        recovery->repaired_locks++;
        hot->lock = store->me;
        tl_partition *partition = NULL;
        tl_error inner = {0};
        status = tl_store_partition(store, slot, cold->channel, &partition, &inner);
        if (status == TL_OK) {
            status = tl_partition_repair(partition, &inner);
            tl_partition_release(partition);
        }
        if (status < 0) { /* this partition alone is out of order, and whoever locks it next tries again */
            recovery->failed_partitions++;
            __atomic_store_n(&hot->lock, TL_LOCK_WAITERS | TL_LOCK_NOBODY, __ATOMIC_SEQ_CST);
            continue;
        }
        hot->lock = 0;
    }
    status = tl_leftovers_finish(store, err);
    tl_leftovers_sweep(store);
    return status == TL_OK ? tl_transactions_recover_same_boot(store, recovery, err) : status;
}

static int recover_from_disk(tl_store *store, bool fresh, tl_recovery *recovery, tl_error *err) {
    int status = tl_shared_create(store, err);
    if (status < 0)
        return status;
    tl_shared_header *header = store->header;
    store->me = tl_owner_make(0, 1); /* until a slot is taken; nobody else is here */
    TL_POINT("recover.shared_created");
    if (fresh)
        status = tl_checkpoint_create(&store->checkpoint, store->dir, TL_FILE_MODE, &header->checkpoint, err);
    if (!fresh || status == TL_EEXIST) {
        status = tl_checkpoint_open(&store->checkpoint, store->dir, &header->checkpoint, err);
        if (status == TL_OK)
            status = tl_checkpoint_recover(&store->checkpoint, err);
    }
    bool clean = false, loaded_clean = false;
    if (status == TL_OK)
        status = tl_records_load_mark(store, &clean, err);
    if (status == TL_OK && clean) /* before anything changes, the table of offsets first of all */
        status = tl_records_put_clean(store, TL_CLEAN_OPENING, err);
    TL_POINT("recover.opening_marked");
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_RESET, &store->offsets, err);
    if (status == TL_OK)
        status = tl_records_load(store, &loaded_clean, err);
    if (status < 0)
        return status;
    TL_POINT("recover.loaded");
    recovery->clean = clean;
    recovery->created = fresh;
    return TL_OK;
}

/* After a slot was taken: what needs an owner. */
static int recover_partitions(tl_store *store, tl_recovery *recovery, tl_error *err) {
    tl_shared_header *header = store->header;
    uint32_t count = header->partitions, leased = 0;
    uint32_t *slots = tl_calloc(count + 1, sizeof *slots);
    int64_t *leases = tl_calloc(count + 1, sizeof *leases);
    int status = TL_OK;
    if (slots == NULL || leases == NULL) {
        status = tl_fail(err, TL_ENOMEM, "no memory to recover partitions", "", -1);
        goto out;
    }
    for (uint32_t slot = 0; slot < count; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        if (hot->id == 0)
            continue;
        recovery->partitions++;
        tl_partition *partition = NULL;
        status = tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err);
        if (status < 0)
            goto out;
        tl_error inner = {0};
        int recovered = tl_partition_recover(partition, recovery->clean, recovery, &inner);
        if (recovered == TL_ENOMEM || recovered == TL_ENOSPC) {
            if (err != NULL)
                *err = inner;
            status = recovered;
        } else if (recovered < 0) { /* damage in one partition keeps nobody from the others */
            recovery->failed_partitions++;
            hot->failed = TL_UNRECOVERED | (inner.sys_errno != 0 ? (uint32_t)inner.sys_errno : EIO);
        } else if (recovered == 1) {
            tl_end end;
            tl_end_read(hot, hot->tail, &end);
            slots[leased] = slot;
            leases[leased++] = end.end_offset + TL_LEASE;
        }
        tl_partition_release(partition);
        if (status < 0)
            goto out;
        TL_POINT("recover.partition");
    }
    status = tl_records_put_lease(store, slots, leases, leased, err);
    for (uint32_t i = 0; status == TL_OK && i < leased; i++)
        tl_shared_hot(store->shared, slots[i])->lease = leases[i];
    TL_POINT("recover.leased");
    if (status == TL_OK)
        status = tl_transactions_recover(store, recovery->clean, recovery, err);
    /* Before the first append: from here on a power cut needs the scan. */
    if (status == TL_OK && recovery->clean && !TL_BUG(CLEAN_MARK_KEPT))
        status = tl_records_put_clean(store, TL_UNCLEAN, err);
    TL_POINT("recover.unclean_marked");
    if (!recovery->clean)
        tl_leftovers_sweep(store);
out:
    tl_os->free(slots);
    tl_os->free(leases);
    return status;
}

/* A partition that recovery gave up has no words to go on from: everything is read from the disk once more. Committed
 * offsets stand in the table alone, so they are saved first. */
static int give_up_words(tl_store *store, tl_error *err) {
    tl_shared_header *header = store->header;
    header->catalogue_lock = header->checkpoint_lock = header->checkpoint_sync_lock = 0;
    store->me = tl_owner_make(0, 1); /* until a slot is taken; nobody else is here */
    int status = tl_checkpoint_open(&store->checkpoint, store->dir, &header->checkpoint, err);
    if (status == TL_OK && tl_checkpoint_needs_recovery(&store->checkpoint))
        status = tl_checkpoint_recover(&store->checkpoint, err);
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_OPEN, &store->offsets, err);
    if (status == TL_OK)
        status = tl_records_put_offsets(store, err);
    if (status == TL_OK)
        status = tl_records_sync(store, err);
    tl_offsets_close(store->offsets);
    store->offsets = NULL;
    tl_checkpoint_close(&store->checkpoint);
    return status;
}

static bool any_given_up(const tl_store *store) {
    for (uint32_t slot = 0; slot < store->header->partitions; slot++) {
        const tl_hot *hot = tl_shared_hot(store->shared, slot);
        if (hot->id != 0 && (hot->id & 1) == 0 && (hot->failed & TL_UNRECOVERED) != 0)
            return true;
    }
    return false;
}

int tl_entry_recover(tl_store *store, tl_recovery *recovery, tl_error *err) {
    int known = tl_directory_read_identity(store, err);
    if (known < 0 && known != TL_ENOTFOUND)
        return known;
    if (known == TL_ENOTFOUND && !store->options.create)
        return tl_fail(err, TL_ENOTFOUND, "there is no store here", store->path, -1);
    int opened = known == TL_OK ? tl_shared_open(store, err) : TL_ENOTFOUND;
    if (opened < 0 && opened != TL_ENOTFOUND && opened != TL_ECORRUPT)
        return opened; /* the truth of this boot may stand in them: a lack of descriptors is no reason to forget it */
    bool warm = opened == TL_OK && tl_shared_is_ready(store);
    bool was_closing = warm && __atomic_load_n(&store->header->ready_set, __ATOMIC_ACQUIRE) == TL_READY_ALONE;
    int status = TL_OK;
    if (warm && any_given_up(store)) {
        if ((status = give_up_words(store, err)) < 0)
            return status;
        warm = was_closing = false;
    }
    if (!warm)
        status = recover_from_disk(store, known == TL_ENOTFOUND, recovery, err);
    if (status < 0)
        return status;
    /* Words that are whole stay ready: if we die or fail here, whoever comes next finds what we found, and the locks of the
     * dead are taken over one by one. New ones are not ready before everything is loaded: who comes then starts over. */
    if (TL_BUG(READY_STORED_FIRST))
        tl_shared_set_ready(store);
    else if (!warm)
        tl_shared_unready(store);
    TL_POINT("recover.unready");
    status = tl_gate_take_slot(store, err);
    if (status < 0)
        return status;
    __atomic_store_n(&store->open, 1, __ATOMIC_SEQ_CST);
    status = warm ? recover_same_boot(store, recovery, err) : recover_partitions(store, recovery, err);
    if (status == TL_OK && was_closing)
        status = tl_records_put_clean(store, TL_UNCLEAN, err);
    if (status == TL_OK && known == TL_ENOTFOUND)
        status = tl_directory_write_identity(store, err);
    return status;
}

int tl_entry_join(tl_store *store, tl_error *err) {
    int status = tl_gate_take_slot(store, err);
    if (status == TL_OK)
        status = tl_checkpoint_open(&store->checkpoint, store->dir, &store->header->checkpoint, err);
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_OPEN, &store->offsets, err);
    if (status < 0)
        return status;
    uint64_t seen = __atomic_load_n(&store->header->flush_interval_ms, __ATOMIC_RELAXED);
    uint64_t ours = (uint64_t)store->options.flush_interval_ms;
    while (ours < seen && !__atomic_compare_exchange_n(&store->header->flush_interval_ms, &seen, ours, false,
                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        continue;
    __atomic_store_n(&store->open, 1, __ATOMIC_SEQ_CST);
    return TL_OK;
}
