/* Who decides for those who cannot any more, and when is a record free again?
 *
 * Imports transacting.h. Any thread of any process, also of several at once. Records are looked at without the lock; only when
 * one of them is due is the lock taken, and each is judged once more under it. */
#include "transacting.h"

#define LEFT_ALONE_NS 20000000 /* how long a live owner is let to finish what it decided */

static int lock(tl_store *store, tl_error *err) {
    bool over = false;
    return tl_transactions_lock(store, &over, err);
}

/* --- sweeping --- */

enum sweeping { SWEEP_DUE, SWEEP_OURS, SWEEP_ALL };

/* Whether somebody else has to decide or to finish it. */
static bool is_due(tl_store *store, tl_pulse *known, const tl_txn_record *record, int64_t now_ns, enum sweeping which) {
    uint32_t state = tl_txn_state(record);
    tl_owner owner = __atomic_load_n(&record->owner, __ATOMIC_RELAXED);
    if (state != TL_TXN_OPEN && state != TL_TXN_COMMITTING && state != TL_TXN_ABORTING)
        return false;
    if (which == SWEEP_ALL || (which == SWEEP_OURS && owner == store->me))
        return true;
    if (which == SWEEP_OURS)
        return false;
    if (state == TL_TXN_OPEN)
        return now_ns >= __atomic_load_n(&record->deadline_ns, __ATOMIC_RELAXED) || !tl_pulse_is_alive(store, known, owner);
    return now_ns - __atomic_load_n(&record->decided_ns, __ATOMIC_RELAXED) > LEFT_ALONE_NS || !tl_pulse_is_alive(store, known, owner);
}

static bool anything_due(tl_store *store, enum sweeping which) {
    tl_pulse known = {{0}};
    int64_t now_ns = tl_os->monotonic_ns();
    for (uint32_t i = 0; i < tl_txn_used(store); i++) {
        const tl_txn_record *record = tl_txn_at(store, i);
        if (record != NULL && is_due(store, &known, record, now_ns, which))
            return true;
    }
    return tl_store_lock_is_orphaned(store, &store->header->transactions_lock);
}

typedef struct due {
    uint32_t slot;
    uint64_t number;
} due;

static int sweep(tl_store *store, enum sweeping which, tl_error *err) {
    tl_pulse known = {{0}};
    int kept = TL_OK, status = tl_txn_map(store, false, err);
    if (status < 0)
        return status;
    if (!anything_due(store, which))
        return TL_OK;
    if ((status = lock(store, err)) < 0)
        return status;
    uint32_t used = tl_txn_used(store);
    size_t count = 0;
    due *list = tl_calloc(used + 1, sizeof *list);
    int64_t now_ns = tl_os->monotonic_ns();
    for (uint32_t i = 0; list != NULL && i < used; i++) {
        tl_txn_record *record = tl_txn_at(store, i);
        if (record == NULL || !is_due(store, &known, record, now_ns, which))
            continue;
        TL_POINT("txn.sweep.found");
        if (tl_txn_state(record) == TL_TXN_OPEN)
            tl_txn_decide_abort(store, record);
        list[count++] = (due){i, record->number};
    }
    tl_transactions_unlock(store);
    if (list == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to sweep transactions", "", -1);
    for (size_t i = 0; i < count; i++) {
        tl_error inner = {0};
        tl_keep_first(tl_txn_finish(store, list[i].slot, list[i].number, &inner), &inner, &kept, err);
    }
    tl_os->free(list);
    return kept;
}

int tl_transactions_sweep(tl_store *store, tl_error *err) {
    if (TL_LIKELY(__atomic_load_n(&store->header->unfinished, __ATOMIC_ACQUIRE) == 0) || store->options.look ||
        !tl_store_usable(store))
        return TL_OK;
    return sweep(store, SWEEP_DUE, err);
}

void tl_transactions_leave(tl_store *store) {
    if (__atomic_load_n(&store->header->unfinished, __ATOMIC_ACQUIRE) > 0 && !store->options.look)
        (void)sweep(store, SWEEP_OURS, NULL);
}

int tl_transactions_end_all(tl_store *store, tl_error *err) {
    return __atomic_load_n(&store->header->unfinished, __ATOMIC_ACQUIRE) == 0 ? TL_OK : sweep(store, SWEEP_ALL, err);
}

/* --- records that have done their work --- */

static bool is_on_disk(tl_store *store, tl_txn_record *record) {
    tl_txn_units u = tl_txn_units_of(store, record);
    for (const tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;) {
        if (unit->kind != TL_TXN_PARTITION || unit->slot >= store->header->partitions)
            continue;
        const tl_hot *hot = tl_shared_hot(store->shared, unit->slot);
        if (__atomic_load_n(&hot->id, __ATOMIC_ACQUIRE) == unit->id &&
            __atomic_load_n(&hot->synced, __ATOMIC_ACQUIRE) < unit->place)
            return false;
    }
    return true;
}

void tl_transactions_collect_done(tl_store *store, tl_done_records *out) {
    memset(out, 0, sizeof *out);
    uint32_t used = tl_txn_used(store);
    if (used == 0 || tl_txn_map(store, false, NULL) < 0)
        return;
    for (uint32_t i = 0; i < used; i++) {
        tl_txn_record *record = tl_txn_at(store, i);
        if (record == NULL || tl_txn_state(record) != TL_TXN_DONE)
            continue;
        uint64_t number = __atomic_load_n(&record->number, __ATOMIC_RELAXED);
        if (!is_on_disk(store, record) || tl_txn_state(record) != TL_TXN_DONE)
            continue;
        if (out->slots == NULL) {
            out->slots = tl_calloc(used, sizeof *out->slots);
            out->numbers = tl_calloc(used, sizeof *out->numbers);
            if (out->slots == NULL || out->numbers == NULL)
                break;
        }
        out->slots[out->count] = i;
        out->numbers[out->count++] = number;
    }
}

void tl_transactions_free_done(tl_store *store, tl_done_records *done, bool durable) {
    if (durable && done->count > 0 && lock(store, NULL) == TL_OK) {
        for (size_t i = 0; i < done->count; i++) {
            tl_txn_record *record = tl_txn_at(store, done->slots[i]);
            if (record != NULL && record->number == done->numbers[i] && tl_txn_state(record) == TL_TXN_DONE)
                tl_txn_free(store, record);
        }
        tl_transactions_unlock(store);
    }
    tl_os->free(done->slots);
    tl_os->free(done->numbers);
}

