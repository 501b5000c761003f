/* What becomes of transactions when all processes are dead, or the machine was?
 *
 * Imports transacting.h, producers.h, appending.h. The gate is held alone. On the same boot the states of the records are the
 * truth: what is open is aborted, what is decided is finished. After a new boot a record counts when its CRC (and that of
 * every slot it goes on in) is right and it says that it is committed; what is open in a log that was scanned and has no such
 * record is aborted. All of it may be done again from the start: nothing is removed before what follows from it is on disk. */
#include "transacting.h"

#include "producers.h"

#include <errno.h>
#include <stdio.h>

/* --- the same boot --- */

int tl_transactions_recover_same_boot(tl_store *store, tl_recovery *recovery, tl_error *err) {
    tl_shared_header *header = store->header;
    header->transactions_lock = header->records_sync_lock = 0; /* records_syncing stays: a leader may have died */
    if (tl_txn_used(store) == 0)
        return TL_OK;
    tl_error inner = {0};
    int status = header->transactions_failed != 0 ? tl_txn_write_anew(store, &inner) : tl_txn_map(store, false, &inner);
    if (status == TL_ENOTFOUND || status == TL_ECORRUPT) { /* somebody has damaged it: nothing is known to be committed */
        header->transactions = header->unfinished = 0;
        for (uint32_t row = 0; row < TL_PRODUCERS; row++)
            tl_shared_producer(store->shared, row)->transaction = 0;
        return tl_transactions_recover(store, false, recovery, err);
    }
    if (status < 0) {
        if (err != NULL)
            *err = inner;
        return status;
    }
    tl_txn_repair(store);
    TL_POINT("txn.recovering");
    /* What cannot be ended now (a failed partition, a full disk) waits for whoever sweeps. */
    (void)tl_transactions_end_all(store, NULL);
    return TL_OK;
}

/* --- a new boot: what the disk says was decided --- */

typedef struct decisions {
    tl_txn_record *records;
    uint32_t count;
} decisions;

static tl_txn_units units_of(const decisions *d, tl_txn_record *record) {
    return (tl_txn_units){.all = d->records, .count = d->count, .record = record, .number = record->number};
}

/* The record and all slots it goes on in are as they were when it was decided. */
static bool is_whole(const decisions *d, const tl_txn_record *record) {
    const tl_txn_record *at = record;
    for (uint32_t steps = 0; steps < TL_TXN_CHAIN; steps++) {
        if (at->used > TL_TXN_UNITS || at->crc != tl_txn_crc(at) || at->number != record->number)
            return false;
        if (at->next == 0)
            return true;
        if (at->next > d->count)
            return false;
        at = &d->records[at->next - 1];
        if (at->state != TL_TXN_CHAINED)
            return false;
    }
    return false;
}

static bool is_commit(const decisions *d, const tl_txn_record *record) {
    return (record->state == TL_TXN_COMMITTING || record->state == TL_TXN_DONE) && record->decision == TL_TXN_COMMIT &&
           is_whole(d, record);
}

static bool was_committed(const decisions *d, int64_t producer_id, int16_t epoch) {
    for (uint32_t i = 0; i < d->count; i++)
        if (d->records[i].producer_id == producer_id && d->records[i].epoch == epoch && is_commit(d, &d->records[i]))
            return true;
    return false;
}

/* --- partitions --- */

static int note_open(void *context, const tl_producer_state *state) {
    tl_txn_opens *opens = context;
    if (state->txn_first_offset < 0)
        return 0;
    const tl_txn_open open = {state->producer_id, state->txn_first_offset, state->txn_first_place, state->epoch};
    return tl_txn_add_open(opens, &open, NULL);
}

/* What is open at the end of the log, and what was aborted in the segment of the recovery point or behind it. 0: no producer
 * ever wrote here. */
static int find_opens(tl_partition *partition, uint32_t ordinal, tl_txn_opens *opens, tl_error *err) {
    tl_producers before;
    int status = tl_producers_begin(partition, &before, ordinal, err);
    if (status < 0)
        return status;
    if (before.complete >= partition->hot->tail) {
        tl_producers_end(&before);
        return 0;
    }
    status = tl_producers_walk(partition, &before, ordinal, NULL, NULL, err);
    if (status == TL_OK && tl_producer_table_each(before.table, opens, note_open) < 0)
        status = tl_fail(err, TL_ENOMEM, "no memory for the transactions of a partition", partition->cold->directory, -1);
    /* Of what its producers did behind the start of that segment nothing is known yet, unless no file is older. */
    for (size_t i = 0; i < opens->open_count;)
        if (opens->open[i].place != UINT64_MAX && opens->open[i].place >= tl_place(ordinal, 0))
            opens->open[i] = opens->open[--opens->open_count];
        else
            i++;
    tl_producers_end(&before);
    if (status == TL_OK)
        status = tl_txn_walk(partition, tl_place(ordinal, 0), opens, err);
    return status < 0 ? status : 1;
}

/* Files that say what was aborted are synced when a segment is complete; those of later ones are made anew. */
static int rebuild_index(tl_partition *partition, uint32_t ordinal, const tl_txn_opens *opens, tl_error *err) {
    for (; ordinal <= tl_place_ordinal(partition->hot->tail); ordinal++) {
        int64_t base = 0;
        int status = tl_segment_base(partition, ordinal, &base, err);
        if (status == TL_OK)
            status = tl_aborted_write(partition, base, opens->ended, opens->ended_count, err);
        if (status < 0)
            return status;
    }
    return TL_OK;
}

static int end_opens(tl_partition *partition, uint64_t recovery_point, const decisions *d, tl_error *err) {
    tl_txn_opens opens = {0};
    uint32_t ordinal = tl_place_ordinal(recovery_point), first = partition->hot->first_ordinal;
    ordinal = ordinal < first ? first : ordinal;
    int status = find_opens(partition, ordinal, &opens, err);
    if (status == 1)
        status = rebuild_index(partition, ordinal, &opens, err);
    for (size_t i = 0; status == TL_OK && i < opens.open_count; i++) {
        const tl_txn_open *open = &opens.open[i];
        uint64_t place = 0;
        int marked = tl_txn_mark(partition, open->producer_id, open->epoch,
                                 was_committed(d, open->producer_id, open->epoch), &place, err);
        status = marked < 0 ? marked : TL_OK;
        TL_POINT("txn.recovered_marker");
    }
    if (status == TL_OK)
        __atomic_store_n(&partition->hot->lso, UINT64_MAX, __ATOMIC_RELEASE);
    if (status == TL_OK && opens.open_count > 0)
        status = tl_partition_sync_flush(partition, err);
    tl_txn_opens_free(&opens);
    return status;
}

static int recover_partition(tl_store *store, uint32_t slot, uint64_t recovery_point, const decisions *d, tl_recovery *recovery,
                             tl_error *err) {
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    tl_partition *partition = NULL;
    int status = tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err);
    if (status < 0)
        return status;
    uint32_t failed = hot->failed;
    hot->failed = 0; /* also one that takes no more messages must not end in an open transaction */
    status = end_opens(partition, recovery_point, d, err);
    if (failed != 0) {
        hot->failed = failed;
        status = status == TL_EFAILED ? TL_OK : status;
    }
    tl_partition_release(partition);
    if (status < 0 && status != TL_ENOMEM && status != TL_ENOSPC) { /* damage in one partition keeps nobody from the others */
        hot->failed = TL_UNRECOVERED | EIO;
        recovery->failed_partitions++;
        status = TL_OK;
    }
    return status;
}

/* The slot of a partition that was given up and that a committed transaction has a part in; UINT32_MAX: there is none. The
 * decision must not be forgotten then, or that part would be aborted when the partition can be recovered. */
static uint32_t awaited_partition(tl_store *store, const decisions *d) {
    for (uint32_t i = 0; i < d->count; i++) {
        if (!is_commit(d, &d->records[i]))
            continue;
        tl_txn_units u = units_of(d, &d->records[i]);
        for (const tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;)
            for (uint32_t slot = 0; unit->kind == TL_TXN_PARTITION && slot < store->header->partitions; slot++)
                if (tl_shared_cold(store->shared, slot)->id == unit->id &&
                    (tl_shared_hot(store->shared, slot)->failed & TL_UNRECOVERED) != 0)
                    return slot;
    }
    return UINT32_MAX;
}

/* Whoever can make the partition readable again only has to open the store; the other way out costs that part. */
static int refuse_without(tl_store *store, uint32_t slot, tl_error *err) {
    (void)tl_fail(err, TL_EIO, "a committed transaction has a part in a partition that cannot be recovered now, so the store stays "
                  "closed", tl_shared_cold(store->shared, slot)->directory, -1);
    if (err != NULL) {
        err->sys_errno = (int)(tl_shared_hot(store->shared, slot)->failed & ~TL_UNRECOVERED);
        snprintf(err->detail, sizeof err->detail, "to go on without it, rename " TL_TXN_FILE ": that part is aborted then, and what "
                 "the transaction had read comes again");
    }
    return TL_EIO;
}

/* --- offsets --- */

static bool has_partition(tl_store *store, const tl_txn_where *where) {
    for (uint32_t slot = 0; slot < store->header->partitions; slot++) {
        const tl_cold *cold = tl_shared_cold(store->shared, slot);
        if (cold->id != 0 && cold->partition == where->partition && memcmp(cold->channel, where->channel, 16) == 0)
            return true;
    }
    return false;
}

static bool group_name(const decisions *d, tl_txn_record *record, uint32_t number, char *name, size_t *bytes) {
    tl_txn_units u = units_of(d, record);
    for (const tl_txn_unit *unit; (unit = tl_txn_next(&u)) != NULL;) {
        if (unit->kind != TL_TXN_GROUP || unit->slot != number)
            continue;
        *bytes = unit->id;
        for (size_t at = 0; at < *bytes; at += TL_TXN_NAME_BYTES)
            memcpy(name + at, &unit[1 + at / TL_TXN_NAME_BYTES], *bytes - at < TL_TXN_NAME_BYTES ? *bytes - at : TL_TXN_NAME_BYTES);
        return *bytes > 0;
    }
    return false;
}

/* An offset that somebody set by hand after the commit stands in the checkpoint under a later time. */
static int apply_offset(tl_store *store, const decisions *d, tl_txn_record *record, const tl_txn_unit *unit, tl_error *err) {
    char name[TL_OFFSETS_MAX_GROUP_BYTES];
    size_t bytes = 0;
    tl_txn_where where;
    tl_offset_word word;
    int64_t time_ms = 0;
    uint32_t group = 0, slot = 0;
    memcpy(&where, unit + 1, sizeof where);
    if (!has_partition(store, &where) || !group_name(d, record, where.group, name, &bytes))
        return TL_OK;
    int status = tl_offsets_group(store->offsets, name, bytes, true, &group, err);
    if (status == TL_OK)
        status = tl_offsets_slot(store->offsets, group, where.channel, where.partition, true, &slot, err);
    if (status == TL_OK)
        status = tl_offsets_read(store->offsets, slot, &word, &time_ms);
    if (status == TL_OK && time_ms <= record->decided_ms)
        status = tl_offsets_advance(store->offsets, slot, unit->offset, record->decided_ms);
    TL_POINT("txn.recovered_offset");
    return status;
}

static int apply_offsets(tl_store *store, const decisions *d, tl_error *err) {
    int status = TL_OK;
    for (uint32_t i = 0; i < d->count && status == TL_OK; i++) {
        if (!is_commit(d, &d->records[i]))
            continue;
        tl_txn_units u = units_of(d, &d->records[i]);
        for (const tl_txn_unit *unit; status == TL_OK && (unit = tl_txn_next(&u)) != NULL;)
            if (unit->kind == TL_TXN_OFFSET)
                status = apply_offset(store, d, &d->records[i], unit, err);
    }
    if (status == TL_OK && d->count > 0)
        status = tl_records_put_offsets(store, err);
    if (status == TL_OK && d->count > 0)
        status = tl_records_sync(store, err);
    return status;
}

/* Bytes that cannot be believed say nothing; they are kept beside, for whoever wants to look at them. */
static int load_decisions(tl_store *store, decisions *d, tl_error *err) {
    tl_error inner = {0};
    int status = tl_txn_load(store, &d->records, &d->count, &inner);
    if (status == TL_ECORRUPT || status == TL_EUNSUPPORTED) {
        (void)tl_os->rename(store->dir, TL_TXN_FILE, store->dir, TL_TXN_FILE ".torn");
        return TL_OK;
    }
    if (status < 0 && err != NULL)
        *err = inner;
    return status;
}

int tl_transactions_recover(tl_store *store, bool clean, tl_recovery *recovery, tl_error *err) {
    decisions d = {NULL, 0};
    int status = clean ? TL_OK : load_decisions(store, &d, err);
    TL_POINT("txn.recovering");
    for (uint32_t slot = 0; slot < store->header->partitions && status == TL_OK; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        uint64_t recovery_point = cold->first_open;
        cold->first_open = UINT64_MAX;
        if (!clean && hot->id != 0 && (hot->id & 1) == 0 && (hot->failed & TL_UNRECOVERED) == 0 && recovery_point != UINT64_MAX)
            status = recover_partition(store, slot, recovery_point, &d, recovery, err);
    }
    uint32_t awaited = status == TL_OK ? awaited_partition(store, &d) : UINT32_MAX;
    if (awaited != UINT32_MAX)
        status = refuse_without(store, awaited, err);
    if (status == TL_OK)
        status = apply_offsets(store, &d, err);
    TL_POINT("txn.recovered");
    tl_os->free(d.records);
    return status == TL_OK ? tl_txn_reset(store, err) : status;
}

/* --- looking for damage --- */

static const char *wrong_with(const decisions *d, const tl_txn_record *record) {
    if (record->state > TL_TXN_CHAINED)
        return "a record of a transaction has an impossible state";
    if (record->state == TL_TXN_FREE)
        return NULL;
    if (record->used > TL_TXN_UNITS || record->next > d->count)
        return "a record of a transaction has an impossible count or place";
    bool decided = record->state == TL_TXN_COMMITTING || record->state == TL_TXN_ABORTING || record->state == TL_TXN_DONE;
    return decided && !is_whole(d, record) ? "the CRC of a decided transaction is wrong" : NULL;
}

/* A copy may be taken while one is being written: real damage is still there when looked at again. */
int tl_transactions_check(tl_store *store, void *context, void (*found)(void *context, const tl_error *problem), tl_error *err) {
    for (int tries = 0;; tries++) {
        decisions d = {NULL, 0};
        tl_error problem = {0};
        int status = tl_txn_load(store, &d.records, &d.count, &problem);
        bool any = status == TL_ECORRUPT, last = tries == 2;
        if (status < 0 && status != TL_ECORRUPT) {
            if (err != NULL)
                *err = problem;
            return status;
        }
        if (status == TL_ECORRUPT && last)
            found(context, &problem);
        for (uint32_t i = 0; i < d.count; i++) {
            const char *wrong = wrong_with(&d, &d.records[i]);
            any = any || wrong != NULL;
            if (wrong == NULL || !last)
                continue;
            (void)tl_fail(&problem, TL_ECORRUPT, wrong, TL_TXN_FILE, (int64_t)(i + 1) * TL_PAGE);
            found(context, &problem);
        }
        tl_os->free(d.records);
        if (!any || last)
            return TL_OK;
    }
}
