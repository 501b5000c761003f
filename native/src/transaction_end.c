/* What follows from a decision, and who sees to it?
 *
 * Imports transacting.h, appending.h. Callable from any thread. A decided transaction is finished by whoever comes: its sync,
 * its offsets, a marker in each partition. Every step may be repeated, and none is repeated to another one's harm: offsets are
 * moved under transactions_lock while the record still says so, a marker goes only where a transaction of this producer id
 * and this epoch is open. Nobody holds transactions_lock while appending. */
#include "transacting.h"

#include "publishing.h"

static int lock(tl_store *store, tl_error *err) {
    bool over = false;
    return tl_transactions_lock(store, &over, err);
}

/* --- markers --- */

typedef struct marking {
    int64_t producer_id;
    int16_t epoch;
    bool commit;
} marking;

typedef struct oldest {
    int64_t other_than, first_offset;
    uint64_t place;
} oldest;

static int find_oldest(void *context, const tl_producer_state *state) {
    oldest *found = context;
    if (state->producer_id != found->other_than && state->txn_first_place < found->place) {
        found->place = state->txn_first_place;
        found->first_offset = state->txn_first_offset;
    }
    return 0;
}

/* Under the mutex and the lock, which it gives back. Readers stop at `lso`, so that is moved before the tail: whoever sees
 * the marker's tail sees what lies before it, too, and does not go to sleep on it. */
static int mark_locked(tl_partition *partition, const marking *m, uint64_t *place, tl_error *err) {
    tl_hot *hot = partition->hot;
    tl_room where = {.looked = 0};
    uint8_t marker[96];
    int result = 0, status = tl_producers_catch_up(partition, true, err);
    const tl_producer_state *state = status < 0 ? NULL : tl_producer_table_find(tl_producers_table(partition), m->producer_id);
    bool open = state != NULL && state->txn_first_offset >= 0 && (state->epoch == m->epoch || TL_BUG(LATE_MARKER_HITS_NEXT));
    *place = hot->tail;
    if (open) {
        int64_t first_offset = state->txn_first_offset, now_ms = tl_os->now_ms();
        size_t bytes = tl_batch_encode_marker(marker, 0, m->producer_id, m->epoch, m->commit, 0, now_ms);
        const tl_append what = {.encoded = marker, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = now_ms};
        oldest other = {.other_than = m->producer_id, .place = UINT64_MAX};
        (void)tl_producers_each_open(partition, &other, find_oldest);
        status = tl_append_room(partition, bytes, 1, 0, &where, err);
        const tl_aborted_transaction aborted = {m->producer_id, first_offset, where.end.end_offset};
        if (status == TL_OK && !m->commit)
            status = tl_aborted_note(partition, partition->writer->base_offset, &aborted,
                                     other.place == UINT64_MAX ? aborted.last_offset + 1 : other.first_offset, err);
        const uint8_t *header = NULL;
        int64_t newest_ms = now_ms;
        tl_batch batch;
        if (status == TL_OK) {
            if (!TL_BUG(LSO_AFTER_TAIL))
                __atomic_store_n(&hot->lso, other.place, __ATOMIC_SEQ_CST);
            TL_POINT("txn.lso_raised");
            tl_append_reserve(partition, &where, bytes);
            status = tl_append_put(partition, &what, 0, 1, &bytes, &where, NULL, &header, &newest_ms, err);
        }
        if (status == TL_OK && (status = tl_batch_parse(marker, bytes, &batch, err)) == TL_OK) {
            *place = tl_append_publish(partition, &where, header, bytes, batch.base_offset + 1, newest_ms, true);
            TL_POINT("txn.marker");
            if (TL_BUG(LSO_AFTER_TAIL))
                __atomic_store_n(&hot->lso, other.place, __ATOMIC_SEQ_CST);
            __atomic_store_n(&partition->cold->first_open, other.place, __ATOMIC_RELEASE);
            (void)tl_producers_note(partition, &batch, where.tail, *place, m->commit ? TL_MARKER_COMMIT : TL_MARKER_ABORT, 0, NULL);
            result = 1;
        }
    }
    tl_append_unlock(partition, &where);
    return status < 0 ? status : result;
}

int tl_txn_mark(tl_partition *partition, int64_t producer_id, int16_t epoch, bool commit, uint64_t *place, tl_error *err) {
    const marking m = {producer_id, epoch, commit};
    (void)tl_producers_enter(partition, false);
    int status = tl_producers_catch_up(partition, false, err);
    if (status == TL_OK)
        status = tl_partition_lock(partition, false, err);
    if (status == TL_OK)
        status = mark_locked(partition, &m, place, err);
    tl_producers_leave(partition);
    return status;
}

/* --- finishing --- */

typedef struct part {
    uint32_t slot;
    uint64_t id, place;
    bool ended;
} part;

typedef struct ending {
    uint32_t state;
    bool synced, applied;
    uint64_t sequence;
    marking marking;
    part *parts;
    size_t count;
} ending;

static bool is_decided(uint32_t state) { return state == TL_TXN_COMMITTING || state == TL_TXN_ABORTING; }

/* Under the lock: the record, if it is still this transaction's and waits to be finished. */
static tl_txn_record *decided_record(tl_store *store, uint32_t slot, uint64_t number) {
    tl_txn_record *record = tl_txn_at(store, slot);
    return record != NULL && record->number == number && is_decided(tl_txn_state(record)) ? record : NULL;
}

/* 1: there is something to finish; `parts` is to be freed. */
static int copy(tl_store *store, uint32_t slot, uint64_t number, ending *e, tl_error *err) {
    int status = lock(store, err);
    if (status < 0)
        return status;
    tl_txn_record *record = decided_record(store, slot, number);
    if (record == NULL) {
        tl_transactions_unlock(store);
        return 0;
    }
    e->state = tl_txn_state(record);
    e->synced = record->synced != 0;
    e->applied = record->applied != 0;
    e->sequence = record->sequence;
    e->marking = (marking){record->producer_id, record->epoch, e->state == TL_TXN_COMMITTING};
    size_t count = 0;
    tl_txn_units u = tl_txn_units_of(store, record);
    for (const tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;)
        count += unit->kind == TL_TXN_PARTITION;
    e->parts = tl_calloc(count + 1, sizeof *e->parts);
    u = tl_txn_units_of(store, record);
    for (const tl_txn_unit *unit; e->parts != NULL && (unit = tl_txn_next(&u)) != NULL;)
        if (unit->kind == TL_TXN_PARTITION && e->count < count)
            e->parts[e->count++] = (part){unit->slot, unit->id, unit->place, unit->place != 0};
    tl_transactions_unlock(store);
    return e->parts == NULL ? tl_fail(err, TL_ENOMEM, "no memory to finish a transaction", "", -1) : 1;
}

/* Under the lock, so that what somebody commits afterwards is never overtaken by this. A slot that was forgotten, or that is
 * damaged, has nothing to be moved. */
void tl_txn_apply_offsets(tl_store *store, tl_txn_record *record) {
    tl_txn_units u = tl_txn_units_of(store, record);
    for (const tl_txn_unit *unit; record->applied == 0 && (unit = tl_txn_next(&u)) != NULL;) {
        if (unit->kind != TL_TXN_OFFSET)
            continue;
        (void)tl_offsets_advance(store->offsets, unit->slot, unit->offset, record->decided_ms);
        TL_POINT("txn.offset_applied");
    }
    __atomic_store_n(&record->applied, 1, __ATOMIC_RELEASE);
}

/* The decision is on the disk before anything that follows from it is seen: a marker, or an offset from which another
 * consumer goes on, may get to the disk by itself. */
static int roll_offsets(tl_store *store, uint32_t slot, uint64_t number, bool synced, uint64_t sequence, tl_error *err) {
    int status = synced && !TL_BUG(MARKER_BEFORE_RECORD_SYNC) ? tl_txn_sync(store, sequence, err) : TL_OK;
    if (status == TL_OK)
        status = lock(store, err);
    if (status < 0)
        return status;
    tl_txn_record *record = decided_record(store, slot, number);
    if (record != NULL && tl_txn_state(record) == TL_TXN_COMMITTING)
        tl_txn_apply_offsets(store, record);
    tl_transactions_unlock(store);
    return TL_OK;
}

static int end_in(tl_store *store, const ending *e, part *in, tl_error *err) {
    tl_partition *partition = NULL;
    if (in->slot >= __atomic_load_n(&store->header->partitions, __ATOMIC_ACQUIRE)) {
        in->ended = true;
        return TL_OK;
    }
    tl_hot *hot = tl_shared_hot(store->shared, in->slot);
    if (__atomic_load_n(&hot->failed, __ATOMIC_RELAXED) != 0 && __atomic_load_n(&hot->id, __ATOMIC_RELAXED) == in->id)
        return tl_fail(err, TL_EFAILED, "a partition of a transaction has failed", "", -1);
    int status = tl_store_partition(store, in->slot, tl_shared_cold(store->shared, in->slot)->channel, &partition, err);
    if (status == TL_OK && partition->id == in->id)
        status = tl_txn_mark(partition, e->marking.producer_id, e->marking.epoch, e->marking.commit, &in->place, err);
    tl_partition_release(partition);
    in->ended = status >= 0 || status == TL_EDROPPED;
    return in->ended ? TL_OK : status;
}

/* All there is to do was done, or (with TL_EFAILED) all that can be. A commit that is to survive a power cut keeps its record
 * until its markers and offsets are on the disk. */
static void note_end(tl_store *store, uint32_t slot, uint64_t number, const ending *e, int outcome) {
    if (lock(store, NULL) < 0)
        return; /* it is finished once more by whoever sweeps next, and found to be */
    tl_txn_record *record = decided_record(store, slot, number);
    if (record != NULL) {
        size_t at = 0;
        bool all = true;
        tl_txn_units u = tl_txn_units_of(store, record);
        for (tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;) {
            if (unit->kind != TL_TXN_PARTITION || at >= e->count)
                continue;
            if (e->parts[at].ended)
                unit->place = e->parts[at].place == 0 ? 1 : e->parts[at].place;
            all = all && e->parts[at++].ended;
        }
        tl_producer_row *row = record->row < TL_PRODUCERS ? tl_shared_producer(store->shared, record->row) : NULL;
        if ((all || outcome == TL_EFAILED) && row != NULL && row->transaction == slot + 1)
            row->transaction = 0;
        if (all) {
            TL_POINT("txn.ended");
            if (e->state == TL_TXN_COMMITTING && e->synced)
                __atomic_store_n(&record->state, TL_TXN_DONE, __ATOMIC_RELEASE);
            else
                tl_txn_free(store, record);
            __atomic_fetch_sub(&store->header->unfinished, 1, __ATOMIC_SEQ_CST);
        }
    }
    tl_transactions_unlock(store);
}

int tl_txn_finish(tl_store *store, uint32_t slot, uint64_t number, tl_error *err) {
    ending e = {0};
    tl_error inner = {0};
    int kept = TL_OK, status = copy(store, slot, number, &e, err);
    if (status <= 0)
        return status;
    if (e.state == TL_TXN_COMMITTING && !e.applied)
        status = roll_offsets(store, slot, number, e.synced, e.sequence, err);
    if (status < 0) {
        tl_os->free(e.parts);
        return status;
    }
    size_t count = TL_BUG(COMMIT_FORGETS_A_PARTITION) && e.count > 1 ? e.count - 1 : e.count;
    for (size_t i = 0; i < e.count; i++) {
        if (i >= count)
            e.parts[i].ended = true;
        if (e.parts[i].ended)
            continue;
        status = end_in(store, &e, &e.parts[i], &inner);
        if (status < 0 && (kept == TL_OK || kept == TL_EFAILED)) { /* one that may be tried again counts more */
            kept = status;
            if (err != NULL)
                *err = inner;
        }
    }
    TL_POINT("txn.marked");
    note_end(store, slot, number, &e, kept);
    tl_os->free(e.parts);
    TL_POINT("txn.done");
    return kept;
}

/* --- for others --- */

int tl_transactions_abort_of(tl_store *store, uint32_t row_index, tl_error *err) {
    const tl_producer_row *row = tl_shared_producer(store->shared, row_index);
    int status = lock(store, err);
    if (status < 0)
        return status;
    uint32_t slot = row->transaction;
    tl_txn_record *record = slot == 0 ? NULL : tl_txn_at(store, slot - 1);
    uint64_t number = record == NULL ? 0 : record->number;
    if (record != NULL && record->row == row_index && tl_txn_state(record) == TL_TXN_OPEN)
        tl_txn_decide_abort(store, record);
    tl_transactions_unlock(store);
    status = record == NULL ? TL_OK : tl_txn_finish(store, slot - 1, number, err);
    return status == TL_EFAILED && __atomic_load_n(&store->header->transactions_failed, __ATOMIC_RELAXED) == 0 ? TL_OK : status;
}

int tl_transactions_finish_of(tl_store *store, uint32_t row_index, tl_error *err) {
    const tl_producer_row *row = tl_shared_producer(store->shared, row_index);
    int status = lock(store, err);
    if (status < 0)
        return status;
    uint32_t slot = row->transaction;
    const tl_txn_record *record = slot == 0 ? NULL : tl_txn_at(store, slot - 1);
    bool decided = record != NULL && record->row == row_index && is_decided(tl_txn_state(record));
    uint64_t number = decided ? record->number : 0;
    tl_transactions_unlock(store);
    status = decided ? tl_txn_finish(store, slot - 1, number, err) : TL_OK;
    return status < 0 ? status : decided;
}

/* Under the lock: a committing record that names this slot and has not moved its offset. */
static tl_txn_record *find_committing(tl_store *store, uint32_t offset_slot, uint32_t *slot) {
    for (*slot = 0; *slot < tl_txn_used(store); (*slot)++) {
        tl_txn_record *record = tl_txn_at(store, *slot);
        if (record == NULL || tl_txn_state(record) != TL_TXN_COMMITTING || record->applied != 0)
            continue;
        tl_txn_units u = tl_txn_units_of(store, record);
        for (const tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;)
            if (unit->kind == TL_TXN_OFFSET && unit->slot == offset_slot)
                return record;
    }
    return NULL;
}

int tl_transactions_finish_slot(tl_store *store, uint32_t offset_slot, tl_error *err) {
    TL_FULL_FENCE(); /* our claim before this look: the owner counts its transaction before it looks at the claim */
    if (TL_LIKELY(__atomic_load_n(&store->header->unfinished, __ATOMIC_SEQ_CST) == 0) || TL_BUG(TAKER_DOES_NOT_FINISH))
        return TL_OK;
    for (;;) {
        uint32_t slot = 0;
        int status = lock(store, err);
        if (status < 0)
            return status;
        const tl_txn_record *record = find_committing(store, offset_slot, &slot);
        uint64_t number = record == NULL ? 0 : record->number, sequence = record == NULL ? 0 : record->sequence;
        bool synced = record != NULL && record->synced != 0;
        tl_transactions_unlock(store);
        if (record == NULL)
            return TL_OK;
        TL_POINT("txn.taker_found");
        status = roll_offsets(store, slot, number, synced, sequence, err);
        if (status < 0)
            return status;
    }
}
