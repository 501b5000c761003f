/* How does a transaction begin, what belongs to it, and when is it decided?
 *
 * Imports transacting.h. Callable from any thread. Records are changed under transactions_lock. The order of the checks of a
 * commit is the point: state, name, time and leases are looked at, and `state` stored, under one hold of the lock. Whoever
 * takes a name or a lease over changes its word first and takes this lock afterwards: so either the commit sees the change,
 * or the other one finds the commit and finishes it. */
#include "transacting.h"

#include <stdio.h>

/* --- the lock --- */

static bool is_unfinished(uint32_t state) {
    return state == TL_TXN_OPEN || state == TL_TXN_COMMITTING || state == TL_TXN_ABORTING;
}

bool tl_txn_is_head(uint32_t state) { return is_unfinished(state) || state == TL_TXN_DONE; }

/* A death in the lock leaves whole states, since each is stored last; what may be wrong is what is derived from them. */
void tl_txn_repair(tl_store *store) {
    uint32_t used = tl_txn_used(store), unfinished = 0;
    TL_POINT("txn.lock.taken_over");
    for (uint32_t i = 0; i < TL_PRODUCERS; i++)
        tl_shared_producer(store->shared, i)->transaction = 0;
    for (uint32_t i = 0; i < used; i++) {
        tl_txn_record *record = tl_txn_at(store, i);
        if (record == NULL || !is_unfinished(tl_txn_state(record)))
            continue;
        unfinished++;
        if (record->row < TL_PRODUCERS)
            tl_shared_producer(store->shared, record->row)->transaction = i + 1;
    }
    /* Slots that go on for nobody. */
    for (uint32_t i = 0; i < used; i++) {
        tl_txn_record *record = tl_txn_at(store, i);
        if (record == NULL || tl_txn_state(record) != TL_TXN_CHAINED)
            continue;
        const tl_txn_record *head = tl_txn_at(store, record->head);
        bool reached = false;
        uint32_t steps = 0;
        bool alive = head != NULL && tl_txn_is_head(tl_txn_state(head)) && head->number == record->number;
        for (const tl_txn_record *at = alive ? head : NULL; at != NULL && !reached && at->next != 0 && steps < TL_TXN_CHAIN;
             steps++) {
            reached = at->next - 1 == i;
            at = tl_txn_at(store, at->next - 1);
        }
        if (!reached)
            __atomic_store_n(&record->state, TL_TXN_FREE, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&store->header->unfinished, unfinished, __ATOMIC_SEQ_CST);
    TL_POINT("txn.lock.repaired");
}

int tl_transactions_lock(tl_store *store, bool *over, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    int taken = tl_store_take(store, &store->header->transactions_lock, "the transactions are locked", err);
    if (taken < 0)
        return taken;
    int status = TL_OK;
    *over = taken == TL_LOCK_TAKEN_OVER;
    if (tl_txn_used(store) > 0)
        status = tl_txn_map(store, false, err);
    if (status == TL_OK && *over)
        tl_txn_repair(store);
    if (status == TL_OK && !tl_store_usable(store))
        status = tl_store_refuse(store, err);
    else if (status < 0 && *over) { /* not repaired: nor does whoever comes next find it so */
        __atomic_store_n(&store->header->transactions_lock, TL_LOCK_WAITERS | TL_LOCK_NOBODY, __ATOMIC_SEQ_CST);
        return status;
    }
    if (status < 0)
        tl_transactions_unlock(store);
    return status;
}

void tl_transactions_unlock(tl_store *store) { tl_lock_release(&store->header->transactions_lock, store->me); }

static int lock(tl_store *store, tl_error *err) {
    bool over = false;
    return tl_transactions_lock(store, &over, err);
}

/* --- begin --- */

static int fenced(tl_error *err) {
    return tl_fail(err, TL_EFENCED, "a newer producer of this name was opened", "", -1);
}

static int failed(tl_store *store, tl_error *err) {
    tl_fail(err, TL_EFAILED,
            "a sync of the records of transactions failed: close the store everywhere and open it again", TL_TXN_FILE, -1);
    if (err != NULL)
        err->sys_errno = (int)store->header->transactions_failed;
    return TL_EFAILED;
}

/* Those who watch processes look at the owners of producers; they are told once that there is one here. */
static void announce(tl_store *store) {
    if (__atomic_exchange_n(&store->records_announced, 1, __ATOMIC_SEQ_CST) == 0)
        __atomic_fetch_add(&store->header->arrivals, 1, __ATOMIC_SEQ_CST);
}

/* Under the lock. */
static int begin_locked(tl_producer *producer, int64_t timeout_ms, tl_transaction *out, tl_error *err) {
    tl_store *store = producer->store;
    tl_producer_row *row = tl_shared_producer(store->shared, producer->row);
    uint32_t slot = 0;
    if (store->header->transactions_failed != 0)
        return failed(store, err);
    if (tl_producer_is_fenced(producer))
        return fenced(err);
    if (row->transaction != 0) /* another thread has begun one in between */
        return tl_fail(err, TL_EEXIST, "this producer has a transaction open already", "", -1);
    int16_t epoch = 0;
    int status = tl_txn_free_slot(store, &slot, err);
    if (status == TL_OK)
        status = tl_producer_next_epoch(producer, &epoch, err);
    if (status < 0)
        return status;
    tl_txn_record *record = tl_txn_at(store, slot);
    if (record == NULL)
        return tl_fail(err, TL_ECORRUPT, "the file of transactions is shorter than it says", TL_TXN_FILE, 16);
    int64_t now_ns = tl_os->monotonic_ns();
    record->crc = 0;
    __atomic_store_n(&record->number, ++store->header->next_transaction, __ATOMIC_RELAXED);
    record->producer_id = row->producer_id;
    record->epoch = epoch;
    record->decision = TL_TXN_UNDECIDED;
    record->started_ms = tl_os->now_ms();
    record->decided_ms = 0;
    record->timeout_ms = timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout_ms;
    __atomic_store_n(&record->used, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&record->next, 0, __ATOMIC_RELAXED);
    record->synced = record->applied = record->head = 0;
    record->row = producer->row;
    record->sequence = 0;
    __atomic_store_n(&record->decided_ns, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&record->owner, store->me, __ATOMIC_RELAXED);
    __atomic_store_n(&record->deadline_ns,
                     timeout_ms > (INT64_MAX - now_ns) / 1000000 ? INT64_MAX : now_ns + timeout_ms * 1000000,
                     __ATOMIC_RELAXED);
    TL_POINT("txn.filled");
    __atomic_fetch_add(&store->header->unfinished, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&record->state, TL_TXN_OPEN, __ATOMIC_SEQ_CST);
    TL_POINT("txn.opened");
    row->transaction = slot + 1;
    *out = (tl_transaction){.producer = producer,
                            .record = slot,
                            .number = record->number,
                            .producer_id = record->producer_id,
                            .epoch = epoch,
                            .deadline_ns = record->deadline_ns};
    return TL_OK;
}

/* What an earlier one left is ended; one that is open and ours is an error of the caller. */
static int end_earlier(tl_producer *producer, tl_error *err) {
    tl_store *store = producer->store;
    int status = lock(store, err);
    if (status < 0)
        return status;
    const tl_producer_row *row = tl_shared_producer(store->shared, producer->row);
    const tl_txn_record *record = row->transaction == 0 ? NULL : tl_txn_at(store, row->transaction - 1);
    bool open = record != NULL && tl_txn_state(record) == TL_TXN_OPEN && record->owner == store->me &&
                record->deadline_ns > tl_os->monotonic_ns();
    bool is_fenced = tl_producer_is_fenced(producer);
    tl_transactions_unlock(store);
    if (is_fenced)
        return fenced(err);
    if (open)
        return tl_fail(err, TL_EEXIST, "this producer has a transaction open already", "", -1);
    return record == NULL ? TL_OK : tl_transactions_abort_of(store, producer->row, err);
}

/* Made under the lock: of two who made it at once, the second would put an empty file over records in use. */
static int map_records(tl_store *store, tl_error *err) {
    int status = tl_txn_map(store, false, err);
    if (status == TL_ENOTFOUND && (status = lock(store, err)) == TL_OK) {
        status = tl_txn_map(store, true, err);
        tl_transactions_unlock(store);
    }
    return status < 0 ? status : tl_txn_keep_name(store, err);
}

int tl_transaction_begin(tl_producer *producer, int64_t timeout_ms, tl_transaction *out, tl_error *err) {
    tl_store *store = producer->store;
    if (timeout_ms <= 0)
        return tl_fail(err, TL_EINVAL, "a transaction has a time-out above 0", "", -1);
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    int status = map_records(store, err);
    if (status < 0)
        return status;
    announce(store);
    for (int tries = 0;; tries++) {
        if ((status = lock(store, err)) < 0)
            return status;
        status = begin_locked(producer, timeout_ms, out, err);
        tl_transactions_unlock(store);
        if (status == TL_EEXIST && tries == 0) {
            if ((status = end_earlier(producer, err)) < 0)
                return status;
            continue;
        }
        if ((status != TL_EFULL && status != TL_ENOSPC) || tries > 0)
            break;
        /* Records wait for their markers and offsets to reach the disk: a round of housekeeping frees them. */
        tl_error inner = {0};
        if (tl_store_sync(store, &inner) < 0)
            break;
    }
    TL_POINT("txn.begun");
    return status;
}

/* --- is it open? --- */

/* Under the lock: the record, if it is still this transaction's and open. */
tl_txn_record *tl_txn_open_record(tl_store *store, const tl_transaction *transaction) {
    tl_txn_record *record = tl_txn_at(store, transaction->record);
    if (record == NULL || record->number != transaction->number || tl_txn_state(record) != TL_TXN_OPEN)
        return NULL;
    return record;
}

/* Why it is not open any more. */
int tl_txn_decided(const tl_transaction *transaction, tl_error *err) {
    if (tl_producer_is_fenced(transaction->producer))
        return fenced(err);
    if (tl_os->monotonic_ns() >= transaction->deadline_ns)
        return tl_fail(err, TL_EFENCED, "the transaction took longer than its time-out and was aborted", "", -1);
    return tl_fail(err, TL_EFENCED, "the transaction was ended already", "", -1);
}

int tl_transaction_check_open(const tl_transaction *transaction, tl_error *err) {
    const tl_txn_record *record = tl_txn_at(transaction->producer->store, transaction->record);
    /* The number before and after: a slot that was given to another one has been closed in between. */
    if (TL_LIKELY(record != NULL && __atomic_load_n(&record->number, __ATOMIC_ACQUIRE) == transaction->number &&
                  tl_txn_state(record) == TL_TXN_OPEN &&
                  __atomic_load_n(&record->number, __ATOMIC_RELAXED) == transaction->number))
        return TL_OK;
    return tl_txn_decided(transaction, err);
}

/* --- the decision --- */

static void stamp(tl_store *store, tl_txn_record *record, uint16_t decision, bool synced) {
    record->decision = decision;
    record->synced = synced;
    record->decided_ms = tl_os->now_ms();
    __atomic_store_n(&record->decided_ns, tl_os->monotonic_ns(), __ATOMIC_RELAXED);
    for (tl_txn_record *at = record; at != NULL; at = at->next == 0 ? NULL : tl_txn_at(store, at->next - 1))
        at->crc = tl_txn_crc(at);
}

void tl_txn_decide_abort(tl_store *store, tl_txn_record *record) {
    stamp(store, record, TL_TXN_ABORT, false);
    __atomic_store_n(&record->state, TL_TXN_ABORTING, __ATOMIC_SEQ_CST);
    TL_POINT("txn.aborting");
}

/* All leases are in force: the committed offset of none of them was read by anybody else since. */
static int check_leases(tl_store *store, tl_txn_record *record, tl_error *err) {
    tl_txn_units u = tl_txn_units_of(store, record);
    for (tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;) {
        tl_offset_word word;
        if (unit->kind != TL_TXN_OFFSET || TL_BUG(OFFSETS_WITHOUT_LEASE_CHECK))
            continue;
        if (tl_offsets_read(store->offsets, unit->slot, &word, NULL) < 0 || word.epoch != (uint32_t)unit->id ||
            word.owner != (uint32_t)(unit->id >> 32))
            return tl_fail(err, TL_EFENCED, "a partition that was read from was taken over by another consumer", "", -1);
    }
    return TL_OK;
}

/* Under the lock. TL_EFENCED: it is decided against, by this call or before. */
static int decide_commit(const tl_transaction *transaction, bool synced, uint64_t *sequence, tl_error *err) {
    tl_store *store = transaction->producer->store;
    tl_txn_record *record = tl_txn_open_record(store, transaction);
    if (record == NULL)
        return tl_txn_decided(transaction, err);
    int status = tl_producer_is_fenced(transaction->producer) || tl_os->monotonic_ns() >= transaction->deadline_ns
                     ? tl_txn_decided(transaction, err)
                     : check_leases(store, record, err);
    TL_POINT("txn.checked");
    if (status < 0) {
        tl_txn_decide_abort(store, record);
        return status;
    }
    stamp(store, record, TL_TXN_COMMIT, synced);
    *sequence = record->sequence = __atomic_load_n(&store->header->decisions, __ATOMIC_RELAXED) + 1;
    TL_POINT("txn.stamped");
    __atomic_store_n(&record->state, TL_TXN_COMMITTING, __ATOMIC_SEQ_CST);
    /* After the state: a leader that counts a decision as synced must have had it in the file. */
    __atomic_store_n(&store->header->decisions, *sequence, __ATOMIC_RELEASE);
    TL_POINT("txn.committing");
    return TL_OK;
}

/* Each partition's messages are on disk before the decision is. One after the other: each is one fdatasync, and a device
 * that makes them durable together does so for other callers, too. */
static int sync_partitions(const tl_transaction *transaction, tl_error *err) {
    tl_store *store = transaction->producer->store;
    tl_txn_record *record = tl_txn_at(store, transaction->record);
    if (tl_transaction_check_open(transaction, err) < 0)
        return TL_EFENCED;
    tl_txn_units u = tl_txn_units_of(store, record);
    for (tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;) {
        tl_partition *partition = NULL;
        if (unit->kind != TL_TXN_PARTITION || unit->slot >= store->header->partitions)
            continue;
        tl_error inner = {0};
        int status = tl_store_partition(store, unit->slot, tl_shared_cold(store->shared, unit->slot)->channel, &partition, &inner);
        if (status == TL_OK && partition->id == unit->id)
            status = tl_partition_sync_flush(partition, &inner);
        if (status == TL_OK || status == TL_EDROPPED)
            status = TL_OK;
        tl_partition_release(partition);
        if (status < 0) {
            if (err != NULL)
                *err = inner;
            return status;
        }
    }
    TL_POINT("txn.data_synced");
    return TL_OK;
}

static bool is_empty(const tl_transaction *transaction) {
    const tl_txn_record *record = tl_txn_at(transaction->producer->store, transaction->record);
    return record != NULL && __atomic_load_n(&record->used, __ATOMIC_ACQUIRE) == 0;
}

int tl_transaction_commit(tl_transaction *transaction, bool synced, tl_error *err) {
    tl_store *store = transaction->producer->store;
    uint64_t sequence = 0;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    synced = synced && !is_empty(transaction);
    int status = synced ? sync_partitions(transaction, err) : TL_OK;
    if (status == TL_EFAILED) {
        (void)tl_transaction_abort(transaction, NULL);
        return status;
    }
    if (status < 0 && status != TL_EFENCED)
        return status;
    status = lock(store, err);
    if (status < 0)
        return status;
    status = store->header->transactions_failed != 0 && synced ? failed(store, err)
                                                                : decide_commit(transaction, synced, &sequence, err);
    if (status == TL_OK && !synced) /* nothing has to reach the disk before */
        tl_txn_apply_offsets(store, tl_txn_at(store, transaction->record));
    tl_transactions_unlock(store);
    if (status == TL_EFAILED) {
        (void)tl_transaction_abort(transaction, NULL);
        return status;
    }
    TL_POINT("txn.decided");
    if (status == TL_OK && synced && !TL_BUG(MARKER_BEFORE_RECORD_SYNC))
        status = tl_txn_sync(store, sequence, err);
    if (status == TL_EFAILED)
        return status; /* nobody knows what is on the disk: no marker is written */
    if (status < 0 && status != TL_EFENCED)
        return tl_fail(err, TL_ETIMEOUT, "the transaction is committed, but the disk has not confirmed it in time", TL_TXN_FILE, -1);
    /* What cannot be done now (a full disk, a stopped owner of a lock) whoever sweeps next does; it is decided. */
    (void)tl_txn_finish(store, transaction->record, transaction->number, NULL);
    if (status == TL_OK && synced && TL_BUG(MARKER_BEFORE_RECORD_SYNC))
        status = tl_txn_sync(store, sequence, err);
    return status;
}

int tl_transaction_abort(tl_transaction *transaction, tl_error *err) {
    tl_store *store = transaction->producer->store;
    int status = lock(store, err);
    if (status < 0)
        return status;
    tl_txn_record *record = tl_txn_at(store, transaction->record);
    bool ours = record != NULL && record->number == transaction->number;
    uint32_t state = ours ? tl_txn_state(record) : TL_TXN_FREE;
    if (state == TL_TXN_OPEN)
        tl_txn_decide_abort(store, record);
    uint16_t record_decision = ours ? record->decision : TL_TXN_UNDECIDED;
    tl_transactions_unlock(store);
    if (ours && record_decision == TL_TXN_COMMIT)
        return tl_fail(err, TL_ETXNSTATE, "the transaction is committed", "", -1);
    if (state == TL_TXN_FREE)
        return TL_OK;
    (void)tl_txn_finish(store, transaction->record, transaction->number, NULL);
    return TL_OK;
}
