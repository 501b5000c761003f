/* Are synced transactions all or nothing whatever a power cut leaves, and does none stay open?
 *
 * Imports run.h, transactions.h. Single-threaded. They have partitions and a group of their own; each has a number, which its
 * messages carry and its offset is. What was written only may lose a part of itself in a power cut, and nothing else. */
#ifndef TIDELOG_POWER_TRANSACTIONS_H
#define TIDELOG_POWER_TRANSACTIONS_H

#include "run.h"
#include "tidelog/transactions.h"

static const uint8_t transactions_channel[17] = "transactions----";
enum { TXN_PARTS = 3 };

typedef struct txn_slots {
    uint32_t slots[TXN_PARTS];
    bool found[TXN_PARTS];
} txn_slots;

static int note_txn_slot(void *context, uint32_t slot, const tl_partition_config *config) {
    txn_slots *s = context;
    if (memcmp(config->channel, transactions_channel, 16) == 0 && config->partition < TXN_PARTS) {
        s->slots[config->partition] = slot;
        s->found[config->partition] = true;
    }
    return 0;
}

static tl_partition *txn_part(tl_store *in, uint32_t number) {
    txn_slots s = {.found = {false}};
    tl_partition *partition = NULL;
    tl_error err = {0};
    (void)tl_store_each_partition(in, &s, note_txn_slot);
    if (s.found[number] && tl_store_partition(in, s.slots[number], transactions_channel, &partition, &err) < 0)
        violated("a partition for transactions cannot be opened: %s", err.what);
    return partition;
}

static int make_txn_parts(tl_error *err) {
    tl_partition_config configs[TXN_PARTS];
    uint32_t slots[TXN_PARTS];
    memset(configs, 0, sizeof configs);
    for (uint32_t i = 0; i < TXN_PARTS; i++) {
        memcpy(configs[i].channel, transactions_channel, 16);
        snprintf(configs[i].directory, sizeof configs[i].directory, "transactions-%u", i);
        configs[i].partition = i;
        configs[i].segment_bytes = 4096 << i;
        configs[i].segment_ms = configs[i].retention_ms = configs[i].retention_bytes = -1;
        configs[i].max_message_bytes = 1 << 20;
    }
    return tl_store_create_partitions(store, configs, TXN_PARTS, slots, err);
}

static uint32_t txn_size(uint32_t number) { return 1 + number % TXN_PARTS; }

/* Whether a sync that was made to fail explains it; then there are no more transactions until the next opening. */
static bool txn_failed(int status, const tl_error *err, const char *what) {
    if (status >= 0)
        return false;
    if (!told.sync_failed)
        violated("%s fails: %s, %s (%s)", what, tl_status_name(status), err->what, err->path);
    told.store_failed = true;
    return true;
}

static int txn_send(tl_partition *partition, tl_transaction *transaction, uint32_t number) {
    uint8_t value[600] = {0};
    tl_appended out;
    tl_error err = {0};
    memcpy(value, &number, sizeof number);
    const tl_message message = {.value = value, .value_bytes = 8 + (int32_t)(number * 91 % 590), .key_bytes = -1, .timestamp_ms = 5};
    const tl_producing producing = {
        .producer = transaction->producer, .transaction = transaction, .epoch = transaction->epoch, .sequence = -1};
    const tl_append what = {.messages = &message, .count = 1, .producing = &producing};
    int status = tl_partition_append(partition, &what, 0, &out, &err);
    (void)txn_failed(status, &err, "an append in a transaction");
    return status;
}

static void op_transaction(void) {
    uint32_t number = told.txn_count, slot = 0, epoch = 0;
    tl_producer producer;
    tl_transaction transaction;
    tl_offset_word word;
    tl_error err = {0};
    if (number == TXNS || told.txn_failed)
        return;
    trace("transaction %u", number);
    told.txns[number] = TXN_OPEN;
    told.txn_count++;
    tl_partition *first = txn_part(store, 0);
    tl_partition_release(first);
    if (first == NULL && txn_failed(make_txn_parts(&err), &err, "making partitions for transactions"))
        return;
    if (txn_failed(tl_producer_open(store, "cut", 3, &producer, &err), &err, "opening a producer") ||
        txn_failed(tl_store_offset_slot(store, "followers", 9, transactions_channel, 0, true, &slot, &err), &err, "an offset slot") ||
        txn_failed(tl_offsets_read(tl_store_offsets(store), slot, &word, NULL), &err, "reading an offset") ||
        txn_failed(tl_offsets_claim(tl_store_offsets(store), slot, word, tl_store_owner(store), &epoch), &err, "a claim") ||
        txn_failed(tl_transaction_begin(&producer, 60000, &transaction, &err), &err, "beginning a transaction"))
        return;
    for (uint32_t i = 0; i < txn_size(number); i++) {
        tl_partition *partition = txn_part(store, i);
        int status = txn_send(partition, &transaction, number);
        tl_partition_release(partition);
        if (status < 0)
            return;
    }
    if (txn_failed(tl_transaction_offset(&transaction, slot, tl_store_owner(store), epoch, number, &err), &err, "an offset"))
        return;
    uint64_t how = pick(6);
    if (how == 0)
        return; /* its owner goes away */
    bool commit = how > 1, synced = how > 2;
    told.txns[number] = commit ? (synced ? TXN_ASKED : TXN_WRITTEN) : TXN_ABORTED;
    trace("transaction %u: %s", number, !commit ? "abort" : synced ? "synced commit" : "commit");
    int status = commit ? tl_transaction_commit(&transaction, synced, &err) : tl_transaction_abort(&transaction, &err);
    if (!txn_failed(status, &err, "the end of a transaction") && synced)
        told.txns[number] = TXN_SYNCED;
    tl_producer_close(&producer);
}

static void txn_finding(void *context, const char *file, int64_t position, const char *what, int64_t first, int64_t next) {
    violated("transactions-%u: check: %s at %lld: %s (offsets %lld to %lld)", *(const uint32_t *)context, file, (long long)position,
             what, (long long)first, (long long)next);
}

/* How many messages of each are visible. False: a partition has failed, so nothing can be said of all of them together. */
static bool read_txns(tl_store *in, uint32_t seen[TXNS]) {
    static tl_chunk chunk; /* keeps its memory */
    for (uint32_t i = 0; i < TXN_PARTS; i++) {
        tl_cursor cursor = {0};
        tl_error err = {0};
        tl_partition *partition = txn_part(in, i);
        tl_partition_info info = {0};
        if (partition == NULL)
            continue;
        (void)tl_partition_describe(partition, &info, &err);
        int64_t stable = 0, last = -1;
        if (info.failed == 0 && (tl_partition_stable_end(partition, &stable, &err) < 0 || stable != info.log_end))
            violated("a transaction stays open in partition %u: the last stable offset is %lld, the log end %lld", i,
                     (long long)stable, (long long)info.log_end);
        for (;;) {
            tl_read_end end;
            tl_chunk_clear(&chunk);
            int status = tl_partition_read(partition, &cursor, &chunk, 100, 1 << 20, 0, &end, &err);
            if (status < 0)
                violated("transactions-%u: reading fails: %s, %s (%s)", i, tl_status_name(status), err.what, err.path);
            if (chunk.count == 0)
                break;
            for (size_t k = 0; k < chunk.count; k++) {
                uint32_t number = 0;
                memcpy(&number, chunk.bytes + chunk.records[k].value_at, sizeof number);
                if (number >= told.txn_count || (int64_t)number <= last)
                    violated("transactions-%u holds a message of transaction %u behind %lld", i, number, (long long)last);
                last = number;
                seen[number]++;
            }
        }
        const tl_check_report report = {.context = &i, .finding = txn_finding};
        if (info.failed == 0 && tl_partition_check(partition, &report, &err) < 0)
            violated("transactions-%u: check fails: %s", i, err.what);
        tl_partition_release(partition);
        if (info.failed != 0)
            return false;
    }
    return true;
}

static void verify_transactions(tl_store *in, enum how_strict strict) {
    static uint32_t seen[TXNS];
    tl_error err = {0};
    memset(seen, 0, sizeof seen);
    int swept = tl_transactions_sweep(in, &err);
    told.txn_failed = !read_txns(in, seen);
    if (swept < 0 && !told.sync_failed && !(swept == TL_EFAILED && told.txn_failed))
        violated("ending the transactions of the dead fails: %s, %s", err.what, err.path);
    if (told.txn_failed)
        return;
    int64_t newest_synced = -1, newest = -1;
    for (uint32_t number = 0; number < told.txn_count; number++) {
        uint8_t *state = &told.txns[number];
        bool all = seen[number] == txn_size(number), none = seen[number] == 0;
        bool whole = *state != TXN_WRITTEN && *state != TXN_TORN; /* a cut may take a part of what was written only */
        if ((whole || (strict != AFTER_CUT && *state == TXN_WRITTEN)) && !all && !none)
            violated("%u of %u messages of transaction %u are visible", seen[number], txn_size(number), number);
        if ((*state == TXN_SYNCED || *state == TXN_SEEN) && !all)
            violated("transaction %u is lost, its commit was %s", number, *state == TXN_SYNCED ? "synced" : "seen after a cut");
        if ((*state == TXN_OPEN || *state == TXN_ABORTED) && !none)
            violated("transaction %u is visible and was not committed", number);
        if (*state == TXN_ASKED && strict != AFTER_CLOSE)
            *state = none ? TXN_ABORTED : strict == AFTER_CUT ? TXN_SEEN : TXN_ASKED;
        if (*state == TXN_WRITTEN && strict == AFTER_CUT)
            *state = none ? TXN_ABORTED : all ? TXN_SEEN : TXN_TORN;
        newest_synced = *state == TXN_SYNCED ? number : newest_synced;
        newest = none ? newest : number;
    }
    tl_offset_word word = {.offset = -1};
    uint32_t slot = 0;
    if (tl_store_offset_slot(in, "followers", 9, transactions_channel, 0, false, &slot, NULL) == TL_OK)
        (void)tl_offsets_read(tl_store_offsets(in), slot, &word, NULL);
    if (strict == AFTER_CUT) /* offsets are not held back to what is synced: one may be ahead of messages that are lost */
        told.txn_offset = word.offset;
    if (word.offset < newest_synced || (word.offset > newest && word.offset > told.txn_offset))
        violated("the committed offset is %lld, the newest synced transaction %lld, the newest visible one %lld",
                 (long long)word.offset, (long long)newest_synced, (long long)newest);
}

#endif
