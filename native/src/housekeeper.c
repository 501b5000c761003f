/* Who flushes, checkpoints, renews leases, applies retention and notices the dead?
 *
 * Imports handles.h. One thread per process and store; one process is elected (byte 1 of store.lock), the others stand
 * by. SHARING rule 24: flushing is work, not a role. A stopped housekeeper keeps its byte, so whoever sees the last round
 * older than twice the interval does it. */
#include "handles.h"
#include "tidelog/transactions.h"

#include <errno.h>

/* A consistent copy of what stands before the tail, with the index counts if nobody appended meanwhile. */
static bool capture(tl_partition *partition, tl_state *out) {
    tl_hot *hot = partition->hot;
    tl_end end;
    uint64_t tail = 0;
    memset(out, 0, sizeof *out);
    if (!tl_end_at(hot, &tail, &end))
        return false;
    uint32_t ordinal = tl_place_ordinal(tail);
    out->recovery_point = tail;
    out->recovery_offset = end.end_offset;
    out->max_timestamp_ms = end.max_timestamp_ms;
    out->header_crc = end.header_crc;
    out->batches = end.batches;
    TL_BETWEEN();
    out->base_offset = __atomic_load_n(&hot->active_base[ordinal & 1], __ATOMIC_ACQUIRE);
    out->index_entries = __atomic_load_n(&hot->index_entries, __ATOMIC_RELAXED);
    out->time_entries = __atomic_load_n(&hot->time_entries, __ATOMIC_RELAXED);
    out->bytes_since_entry = __atomic_load_n(&hot->bytes_since_entry, __ATOMIC_RELAXED);
    out->time_max_ms = __atomic_load_n(&hot->time_max_ms, __ATOMIC_RELAXED);
    out->time_max_offset = __atomic_load_n(&hot->time_max_offset, __ATOMIC_RELAXED);
    out->created_ms = __atomic_load_n(&hot->segment_created_ms, __ATOMIC_RELAXED);
    /* A roll in between makes all these words those of another segment, and the one after it takes this one's base. */
    TL_ACQUIRE_FENCE();
    return tl_place_ordinal(__atomic_load_n(&hot->tail, __ATOMIC_ACQUIRE)) == ordinal;
}

bool tl_partition_capture(tl_partition *partition, tl_state *out) {
    for (int tries = 0; tries < 100; tries++)
        if (capture(partition, out))
            return true;
    return false;
}

/* Flushes one partition if `age_ns` has passed since its oldest unsynced append. 1: it did. */
static int flush_one(tl_store *store, uint32_t slot, int64_t now_ns, int64_t age_ns, tl_state *state, tl_error *err) {
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    uint64_t id = __atomic_load_n(&hot->id, __ATOMIC_ACQUIRE);
    uint64_t dirty = __atomic_load_n(&hot->dirty_since_ns, __ATOMIC_RELAXED);
    bool moved = __atomic_load_n(&hot->synced, __ATOMIC_RELAXED) != __atomic_load_n(&hot->saved, __ATOMIC_RELAXED);
    if (id == 0 || (id & 1) != 0 || __atomic_load_n(&hot->failed, __ATOMIC_RELAXED) != 0)
        return 0;
    /* A leader clears the time and then syncs: while it does, and when it has died in between, the time says nothing
     * about the bytes that it wanted to sync. */
    bool unsynced = __atomic_load_n(&hot->synced, __ATOMIC_RELAXED) != __atomic_load_n(&hot->tail, __ATOMIC_RELAXED);
    bool timed = dirty != 0 && __atomic_load_n(&hot->syncing, __ATOMIC_RELAXED) == 0;
    if (!moved && (!unsynced || (age_ns > 0 && timed && now_ns - (int64_t)dirty < age_ns)))
        return 0;
    tl_partition *partition = NULL;
    if (tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err) < 0)
        return 0;
    int result = TL_OK;
    if (TL_BUG(RECOVERY_POINT_AFTER_SYNC))
        result = tl_partition_sync_flush(partition, err);
    TL_POINT("housekeeper.capture");
    if (result == TL_OK && tl_partition_capture(partition, state)) { /* before the sync: what it says is then on disk */
        if (!TL_BUG(CHECKPOINT_BEFORE_LOG_SYNC) && !TL_BUG(RECOVERY_POINT_AFTER_SYNC))
            result = tl_partition_sync(partition, state->recovery_point, tl_store_lock_timeout_ns(store), err);
        if (result == TL_OK && state->recovery_point != __atomic_load_n(&hot->saved, __ATOMIC_RELAXED)) {
            (void)tl_producers_seal(partition, NULL); /* what it cannot write it writes next time */
            result = 1;
        }
    }
    TL_POINT("housekeeper.flushed");
    tl_partition_release(partition);
    return result;
}

/* Renewing at half keeps appenders from ever waiting for it. */
static bool lease_runs_out(tl_store *store, uint32_t slot, int64_t *lease) {
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    uint64_t id = __atomic_load_n(&hot->id, __ATOMIC_ACQUIRE), tail = 0;
    tl_end end;
    int64_t seen = __atomic_load_n(&hot->lease, __ATOMIC_RELAXED);
    /* A lease equal to the end is that of a partition nobody has written to since it was closed: it stays so. */
    if (id == 0 || (id & 1) != 0 || !tl_end_at(hot, &tail, &end) || seen == end.end_offset ||
        seen - end.end_offset >= TL_LEASE / 2)
        return false;
    *lease = end.end_offset + TL_LEASE;
    return true;
}

static int renew_leases(tl_store *store, uint32_t *slots, int64_t *leases, uint32_t room, tl_error *err) {
    uint32_t count = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE), used = 0;
    for (uint32_t slot = 0; slot < count && used < room; slot++)
        if (lease_runs_out(store, slot, &leases[used]))
            slots[used++] = slot;
    if (used == 0)
        return TL_OK;
    int status = tl_records_put_lease(store, slots, leases, used, err);
    for (uint32_t i = 0; status == TL_OK && i < used; i++) {
        tl_hot *hot = tl_shared_hot(store->shared, slots[i]);
        int64_t seen = __atomic_load_n(&hot->lease, __ATOMIC_RELAXED);
        while (seen < leases[i] &&
               !__atomic_compare_exchange_n(&hot->lease, &seen, leases[i], false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            continue;
    }
    TL_POINT("housekeeper.leases");
    return status;
}

static int retain_all(tl_store *store, tl_error *err) {
    uint32_t count = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE);
    int kept = TL_OK;
    int64_t now_ms = tl_os->now_ms();
    for (uint32_t slot = 0; slot < count && tl_store_usable(store); slot++) {
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        uint64_t id = __atomic_load_n(&hot->id, __ATOMIC_ACQUIRE);
        bool limited = __atomic_load_n(&cold->retention_ms, __ATOMIC_RELAXED) >= 0 ||
                       __atomic_load_n(&cold->retention_bytes, __ATOMIC_RELAXED) >= 0 ||
                       __atomic_load_n(&cold->retention_consumed, __ATOMIC_RELAXED) != 0 ||
                       __atomic_load_n(&cold->segment_ms, __ATOMIC_RELAXED) >= 0;
        if (id == 0 || (id & 1) != 0 || !limited || __atomic_load_n(&hot->tail, __ATOMIC_RELAXED) == 0)
            continue;
        tl_partition *partition = NULL;
        tl_error inner = {0};
        if (tl_store_partition(store, slot, cold->channel, &partition, &inner) < 0)
            continue;
        int status = tl_partition_retain(partition, now_ms, &inner);
        tl_keep_first(status, &inner, &kept, err);
        tl_partition_release(partition);
    }
    return kept;
}

/* One round. age_ns: only what has been unsynced for longer is flushed. */
static int round_locked(tl_store *store, int64_t age_ns, bool everything, tl_error *err) {
    uint32_t count = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE), used = 0, room = count + 1;
    uint32_t *slots = tl_calloc(room, sizeof *slots);
    int64_t *leases = tl_calloc(room, sizeof *leases);
    tl_state *states = NULL;
    int kept = TL_OK, status = TL_OK;
    int64_t now_ns = tl_os->monotonic_ns();
    tl_error inner = {0};
    if (slots == NULL || leases == NULL) {
        status = tl_fail(&inner, TL_ENOMEM, "no memory for a round of housekeeping", "", -1);
        tl_keep_first(status, &inner, &kept, err);
        goto out;
    }
    size_t states_room = 0;
    for (uint32_t slot = 0; slot < count; slot++) {
        if (used == states_room) {
            size_t more = states_room == 0 ? 64 : 2 * states_room;
            tl_state *grown = tl_os->realloc(states, more * sizeof *states);
            if (grown == NULL) {
                status = tl_fail(&inner, TL_ENOMEM, "no memory for a round of housekeeping", "", -1);
                tl_keep_first(status, &inner, &kept, err);
                break;
            }
            states = grown;
            states_room = more;
        }
        status = flush_one(store, slot, now_ns, age_ns, &states[used], &inner);
        tl_keep_first(status, &inner, &kept, err);
        if (status == 1)
            slots[used++] = slot;
    }
    TL_POINT("housekeeper.synced");
    if (used > 0) {
        status = tl_records_put_states(store, slots, states, used, &inner);
        tl_keep_first(status, &inner, &kept, err);
        for (uint32_t i = 0; status == TL_OK && i < used; i++)
            __atomic_store_n(&tl_shared_hot(store->shared, slots[i])->saved, states[i].recovery_point,
                             __ATOMIC_RELAXED);
    }
    /* Before the offsets: what they have moved to by now is in the checkpoint when that is on the disk. */
    tl_done_records done;
    tl_transactions_collect_done(store, &done);
    uint64_t changed_before = __atomic_load_n(&store->header->checkpoint.tail[0], __ATOMIC_RELAXED) ^
                              __atomic_load_n(&store->header->checkpoint.tail[1], __ATOMIC_RELAXED);
    status = tl_records_put_offsets(store, &inner);
    tl_keep_first(status, &inner, &kept, err);
    uint64_t changed_after = __atomic_load_n(&store->header->checkpoint.tail[0], __ATOMIC_RELAXED) ^
                             __atomic_load_n(&store->header->checkpoint.tail[1], __ATOMIC_RELAXED);
    TL_POINT("housekeeper.recorded");
    bool saved = status == TL_OK;
    if (used > 0 || changed_before != changed_after || everything || done.count > 0) {
        status = tl_records_sync(store, &inner);
        tl_keep_first(status, &inner, &kept, err);
    }
    tl_transactions_free_done(store, &done, saved && status == TL_OK);
    status = renew_leases(store, slots, leases, room, &inner);
    tl_keep_first(status, &inner, &kept, err);
    __atomic_store_n(&store->header->last_flush_ns, (uint64_t)tl_os->monotonic_ns(), __ATOMIC_RELEASE);
    TL_POINT("housekeeper.done");
out:
    tl_os->free(states);
    tl_os->free(slots);
    tl_os->free(leases);
    return kept;
}

int tl_store_housekeep(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    (void)tl_transactions_sweep(store, NULL);
    pthread_mutex_lock(&store->housekeeping);
    int status = round_locked(store, 0, true, err);
    tl_error inner = {0};
    int retained = retain_all(store, &inner);
    tl_keep_first(retained, &inner, &status, err);
    pthread_mutex_unlock(&store->housekeeping);
    return status;
}

int tl_store_sync(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    pthread_mutex_lock(&store->housekeeping);
    int status = round_locked(store, 0, true, err);
    pthread_mutex_unlock(&store->housekeeping);
    return status;
}

/* Whoever sleeps in a dead process's stead must look again: its locks and leases are free now. */
static void notice_the_dead(tl_store *store) {
    uint32_t count = (uint32_t)__atomic_load_n(&store->header->processes, __ATOMIC_ACQUIRE);
    bool any = false;
    for (uint32_t slot = 0; slot < count && slot < TL_PROCESSES; slot++) {
        tl_process *process = tl_shared_process(store->shared, slot);
        uint32_t pid = __atomic_load_n(&process->pid, __ATOMIC_RELAXED);
        uint32_t inside = __atomic_load_n(&process->inside, __ATOMIC_SEQ_CST);
        if (slot == store->slot || inside == 0 || tl_os->locked(store->lock_fd, TL_BYTE_PROCESS + slot) != 0)
            continue;
        /* Of two who take the slot one after the other both may have the same process id, never the same incarnation. */
        if (__atomic_compare_exchange_n(&process->inside, &inside, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
            (void)__atomic_compare_exchange_n(&process->pid, &pid, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
            any = true;
        }
    }
    if (any)
        tl_store_wake_everybody(store);
}

/* Bytes that nobody has managed to sync in the promised time: appenders help (and wait). */
static void mark_late(tl_store *store, int64_t now_ns, int64_t limit_ns) {
    uint32_t count = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE);
    for (uint32_t slot = 0; slot < count; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        uint64_t dirty = __atomic_load_n(&hot->dirty_since_ns, __ATOMIC_RELAXED);
        if (dirty != 0 && now_ns - (int64_t)dirty > limit_ns)
            __atomic_store_n(&hot->late, 1, __ATOMIC_RELAXED);
    }
}

/* Whether every partition is on disk, or has failed for good. */
static bool is_quiet(const tl_store *store) {
    uint32_t count = __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE);
    for (uint32_t slot = 0; slot < count; slot++) {
        const tl_hot *hot = tl_shared_hot(store->shared, slot);
        uint64_t id = __atomic_load_n(&hot->id, __ATOMIC_ACQUIRE);
        uint64_t synced = __atomic_load_n(&hot->synced, __ATOMIC_RELAXED);
        if (id != 0 && (id & 1) == 0 && __atomic_load_n(&hot->failed, __ATOMIC_RELAXED) == 0 &&
            (synced != __atomic_load_n(&hot->tail, __ATOMIC_RELAXED) ||
             synced != __atomic_load_n(&hot->saved, __ATOMIC_RELAXED)))
            return false;
    }
    return true;
}

static void tick(tl_store *store) {
    int64_t interval_ns = (int64_t)__atomic_load_n(&store->header->flush_interval_ms, __ATOMIC_RELAXED) * 1000000;
    int64_t now_ns = tl_os->monotonic_ns();
    if (!store->is_housekeeper)
        store->is_housekeeper = tl_os->lock(store->lock_fd, TL_LOCK_EXCLUSIVE, TL_BYTE_HOUSEKEEPER, 1, false) == 0;
    int64_t since = now_ns - (int64_t)__atomic_load_n(&store->header->last_flush_ns, __ATOMIC_ACQUIRE);
    mark_late(store, now_ns, 2 * interval_ns);
    (void)tl_transactions_sweep(store, NULL);
    if (store->is_housekeeper)
        notice_the_dead(store);
    /* The elected one flushes what is half an interval old, at ticks of half an interval: nothing gets older than one. */
    if (!store->is_housekeeper && since < interval_ns + interval_ns / 2)
        return;
    pthread_mutex_lock(&store->housekeeping);
    (void)round_locked(store, store->is_housekeeper ? interval_ns / 2 : interval_ns, false, NULL);
    if (now_ns - store->retained_ns > (interval_ns > 1000000000 ? interval_ns : 1000000000)) {
        store->retained_ns = now_ns;
        (void)retain_all(store, NULL);
    }
    pthread_mutex_unlock(&store->housekeeping);
}

static void *housekeep_until_closed(void *context) {
    tl_store *store = context;
    while (__atomic_load_n(&store->housekeeper_word, __ATOMIC_ACQUIRE) == 0) {
        int64_t interval_ns = (int64_t)__atomic_load_n(&store->header->flush_interval_ms, __ATOMIC_RELAXED) * 1000000;
        /* What comes after a look at nothing is no older than the sleep: a whole interval then keeps the promise. */
        (void)tl_os->futex_wait(&store->housekeeper_word, 0, (is_quiet(store) ? interval_ns : interval_ns / 2) + 1);
        if (__atomic_load_n(&store->housekeeper_word, __ATOMIC_ACQUIRE) == 0 && tl_store_usable(store))
            tick(store);
    }
    return NULL;
}

int tl_housekeeper_start(tl_store *store, tl_error *err) {
    if (store->has_housekeeper)
        return TL_OK;
    store->housekeeper_word = 0;
    int status = tl_thread_start(&store->housekeeper, housekeep_until_closed, store);
    if (status < 0)
        return tl_fail_sys(err, status, "the housekeeping thread cannot be started", store->path);
    store->has_housekeeper = true;
    return TL_OK;
}

void tl_housekeeper_stop(tl_store *store) {
    if (!store->has_housekeeper)
        return;
    __atomic_store_n(&store->housekeeper_word, 1, __ATOMIC_RELEASE);
    tl_os->futex_wake(&store->housekeeper_word, INT32_MAX);
    pthread_join(store->housekeeper, NULL);
    store->has_housekeeper = false;
}
