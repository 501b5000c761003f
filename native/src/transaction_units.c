/* What belongs to a transaction: its partitions, what was read for it, and which transactions are there?
 *
 * Imports transacting.h. Callable from any thread. Units are added under transactions_lock and count when `used` is raised: a
 * death leaves them out. A record that is full goes on in another slot. */
#include "transacting.h"

static int lock(tl_store *store, tl_error *err) {
    bool over = false;
    return tl_transactions_lock(store, &over, err);
}

/* --- units --- */

tl_txn_units tl_txn_units_of(tl_store *store, tl_txn_record *record) {
    return (tl_txn_units){.all = tl_txn_at(store, 0),
                          .count = tl_txn_used(store),
                          .record = record,
                          .number = __atomic_load_n(&record->number, __ATOMIC_RELAXED)};
}

/* The slot that goes on for the one at hand. */
static tl_txn_record *follow(const tl_txn_units *u) {
    uint32_t next = __atomic_load_n(&u->record->next, __ATOMIC_ACQUIRE);
    if (next == 0 || next > u->count)
        return NULL;
    tl_txn_record *record = u->all + (next - 1);
    bool goes_on = tl_txn_state(record) == TL_TXN_CHAINED && __atomic_load_n(&record->number, __ATOMIC_RELAXED) == u->number;
    return goes_on ? record : NULL;
}

tl_txn_unit *tl_txn_next(tl_txn_units *u) {
    for (;;) {
        uint32_t used = __atomic_load_n(&u->record->used, __ATOMIC_ACQUIRE);
        used = used < TL_TXN_UNITS ? used : TL_TXN_UNITS;
        if (u->at < used) {
            tl_txn_unit *unit = &u->record->units[u->at];
            uint32_t span = tl_txn_span(unit, used - u->at);
            u->at = span == 0 ? used : u->at + span;
            if (span > 0)
                return unit;
        }
        tl_txn_record *next = ++u->steps < TL_TXN_CHAIN ? follow(u) : NULL;
        if (next == NULL)
            return NULL;
        u->record = next;
        u->at = 0;
    }
}

/* Slots that went on for it follow: whoever finds one of them without its head frees it. */
void tl_txn_free(tl_store *store, tl_txn_record *record) {
    tl_txn_record *chain[TL_TXN_CHAIN], *next;
    size_t count = 0;
    tl_txn_units u = tl_txn_units_of(store, record);
    while (count < TL_TXN_CHAIN && (next = follow(&u)) != NULL)
        u.record = chain[count++] = next;
    __atomic_store_n(&record->state, TL_TXN_FREE, __ATOMIC_RELEASE);
    TL_POINT("txn.freed");
    for (size_t i = 0; i < count; i++)
        __atomic_store_n(&chain[i]->state, TL_TXN_FREE, __ATOMIC_RELEASE);
}

/* Room for `span` units behind all others; NULL with err set when there is none. They count when `used` is raised. */
static tl_txn_unit *append_units(tl_store *store, tl_txn_record *head, uint32_t span, tl_txn_record **in, tl_error *err) {
    tl_txn_record *last = head;
    uint32_t steps = 1;
    for (tl_txn_record *next; last->next != 0 && (next = tl_txn_at(store, last->next - 1)) != NULL; last = next)
        steps++;
    if (TL_TXN_UNITS - last->used < span) {
        uint32_t slot = 0;
        if (steps >= TL_TXN_CHAIN) {
            tl_fail(err, TL_EFULL, "a transaction has too many partitions and offsets", TL_TXN_FILE, -1);
            return NULL;
        }
        if (tl_txn_free_slot(store, &slot, err) < 0)
            return NULL;
        tl_txn_record *more = tl_txn_at(store, slot);
        if (more == NULL)
            return NULL;
        more->crc = 0;
        __atomic_store_n(&more->used, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&more->next, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&more->number, head->number, __ATOMIC_RELAXED);
        more->head = (uint32_t)(head - tl_txn_at(store, 0));
        __atomic_store_n(&more->state, TL_TXN_CHAINED, __ATOMIC_RELEASE);
        TL_POINT("txn.chained");
        __atomic_store_n(&last->next, slot + 1, __ATOMIC_RELEASE);
        last = more;
    }
    *in = last;
    return &last->units[last->used];
}

static void count_units(tl_txn_record *in, uint32_t span) { __atomic_store_n(&in->used, in->used + span, __ATOMIC_RELEASE); }

int tl_transaction_join(tl_transaction *transaction, tl_partition *partition, tl_error *err) {
    tl_store *store = partition->store;
    if (__atomic_load_n(&partition->joined, __ATOMIC_ACQUIRE) == transaction->number)
        return TL_OK;
    int status = lock(store, err);
    if (status < 0)
        return status;
    tl_txn_record *record = tl_txn_open_record(store, transaction), *in = NULL;
    if (record == NULL) {
        tl_transactions_unlock(store);
        return tl_txn_decided(transaction, err);
    }
    tl_txn_units u = tl_txn_units_of(store, record);
    tl_txn_unit *unit;
    while ((unit = tl_txn_next(&u)) != NULL)
        if (unit->kind == TL_TXN_PARTITION && unit->slot == partition->slot && unit->id == partition->id)
            break;
    if (unit == NULL) {
        tl_error inner = {0};
        unit = append_units(store, record, 1, &in, &inner);
        if (unit != NULL) {
            *unit = (tl_txn_unit){.kind = TL_TXN_PARTITION, .slot = partition->slot, .id = partition->id};
            count_units(in, 1);
        } else {
            status = inner.code != 0 ? inner.code : TL_ECORRUPT;
            if (err != NULL)
                *err = inner;
        }
    }
    if (unit != NULL)
        __atomic_store_n(&partition->joined, transaction->number, __ATOMIC_RELEASE);
    tl_transactions_unlock(store);
    TL_POINT("txn.joined");
    return status;
}

/* --- offsets --- */

/* What a slot of the table of offsets is called, for the next boot. */
static int name_slot(tl_store *store, uint32_t slot, tl_txn_where *where, char *group, size_t *group_bytes, tl_error *err) {
    uint32_t cursor = slot;
    tl_offset_view view;
    int status = tl_offsets_next(store->offsets, &cursor, &view, err);
    if (status < 0)
        return status;
    if (status == 0 || view.slot != slot)
        return tl_fail(err, TL_EINVAL, "there is no such slot of the table of offsets", TL_OFFSETS_FILE, slot);
    memset(where, 0, sizeof *where);
    memcpy(where->channel, view.channel_id, sizeof where->channel);
    where->partition = view.partition;
    where->group = view.group;
    return tl_offsets_group_name(store->offsets, view.group, group, group_bytes, err);
}

static int add_group(tl_store *store, tl_txn_record *head, uint32_t number, const char *name, size_t bytes, tl_error *err) {
    tl_txn_record *in = NULL;
    uint32_t span = 1 + (uint32_t)((bytes + TL_TXN_NAME_BYTES - 1) / TL_TXN_NAME_BYTES);
    tl_txn_unit *unit = append_units(store, head, span, &in, err);
    if (unit == NULL)
        return TL_EFULL;
    *unit = (tl_txn_unit){.kind = TL_TXN_GROUP, .slot = number, .id = bytes};
    for (uint32_t i = 1; i < span; i++) {
        size_t at = (i - 1) * TL_TXN_NAME_BYTES;
        memset(&unit[i], 0, sizeof *unit);
        memcpy(&unit[i], name + at, bytes - at < TL_TXN_NAME_BYTES ? bytes - at : TL_TXN_NAME_BYTES);
    }
    count_units(in, span);
    return TL_OK;
}

int tl_transaction_offset(tl_transaction *transaction, uint32_t slot, tl_owner owner, uint32_t lease_epoch, int64_t offset,
                          tl_error *err) {
    tl_store *store = transaction->producer->store;
    tl_txn_where where;
    char group[TL_OFFSETS_MAX_GROUP_BYTES];
    size_t group_bytes = 0;
    if (offset < 0 || owner == 0)
        return tl_fail(err, TL_EINVAL, "an offset to commit is not negative, and a lease has an owner", "", -1);
    int status = name_slot(store, slot, &where, group, &group_bytes, err);
    if (status == TL_OK)
        status = lock(store, err);
    if (status < 0)
        return status;
    tl_error inner = {0};
    tl_txn_record *record = tl_txn_open_record(store, transaction), *in = NULL;
    if (record == NULL) {
        tl_transactions_unlock(store);
        return tl_txn_decided(transaction, err);
    }
    bool has_group = false;
    tl_txn_unit *unit, *found = NULL;
    tl_txn_units u = tl_txn_units_of(store, record);
    while (found == NULL && (unit = tl_txn_next(&u)) != NULL) {
        has_group = has_group || (unit->kind == TL_TXN_GROUP && unit->slot == where.group);
        if (unit->kind == TL_TXN_OFFSET && unit->slot == slot)
            found = unit;
    }
    const tl_txn_unit wanted = {.kind = TL_TXN_OFFSET, .slot = slot, .id = lease_epoch | (uint64_t)owner << 32, .offset = offset};
    if (found == NULL && !has_group)
        status = add_group(store, record, where.group, group, group_bytes, &inner);
    if (status == TL_OK && found == NULL && (unit = append_units(store, record, 2, &in, &inner)) != NULL) {
        unit[0] = wanted;
        memcpy(&unit[1], &where, sizeof where);
        count_units(in, 2);
    } else if (status == TL_OK && found != NULL) {
        *found = wanted;
    } else {
        status = inner.code != 0 ? inner.code : TL_ECORRUPT;
        if (err != NULL)
            *err = inner;
    }
    tl_transactions_unlock(store);
    TL_POINT("txn.offset");
    return status;
}

/* --- looking --- */

int tl_transactions_list(tl_store *store, tl_transaction_info *out, size_t room, tl_error *err) {
    uint32_t used = tl_txn_used(store);
    int count = 0, status = used == 0 ? TL_ENOTFOUND : tl_txn_map(store, false, err);
    bool locked = status == TL_OK && !store->options.look; /* whoever looks sees what is being changed half changed */
    if (locked)
        status = lock(store, err);
    if (status < 0)
        return status == TL_ENOTFOUND ? 0 : status;
    for (uint32_t slot = 0; slot < used && (size_t)count < room; slot++) {
        tl_txn_record *record = tl_txn_at(store, slot);
        uint32_t state = record == NULL ? TL_TXN_FREE : tl_txn_state(record);
        if (!tl_txn_is_head(state))
            continue;
        tl_transaction_info *info = &out[count++];
        *info = (tl_transaction_info){.number = __atomic_load_n(&record->number, __ATOMIC_RELAXED),
                                      .record = slot,
                                      .state = state,
                                      .producer_id = record->producer_id,
                                      .started_ms = record->started_ms,
                                      .timeout_ms = record->timeout_ms,
                                      .epoch = record->epoch,
                                      .synced = record->synced != 0,
                                      .row = record->row,
                                      .owner = __atomic_load_n(&record->owner, __ATOMIC_RELAXED)};
        tl_txn_units u = tl_txn_units_of(store, record);
        for (const tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;) {
            info->partitions += unit->kind == TL_TXN_PARTITION;
            info->offsets += unit->kind == TL_TXN_OFFSET;
        }
    }
    if (locked)
        tl_transactions_unlock(store);
    return count;
}
