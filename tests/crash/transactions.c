/* What does a victim do in transactions, and does a store hold what follows? Imports work.h. One thread.
 *
 * In partitions of their own, so that the other oracles need not know of markers. Each transaction has a number; its messages
 * say it. Visible is all of one or nothing, what was answered stays so, and the committed offset of the group is that of the
 * last one that is visible: every transaction commits its number. Dice of its own. */
#define _GNU_SOURCE
#include "work.h"

#include "tidelog/transactions.h"

#include <stdio.h>

enum { PARTS = 3 };
static const char *const group = "transactions";
static tl_producer producer;
static bool has_producer;
static uint32_t lease_epoch;

void transactions_begin(void) {
    has_producer = false;
    lease_epoch = 0;
}

static void channel_of(uint8_t channel[16]) { memcpy(channel, MODEL_TRANSACTIONS_CHANNEL, 16); }

/* --- partitions and the lease --- */

typedef struct wanted {
    uint32_t number, slot;
    bool found;
} wanted;

static int if_ours(void *context, uint32_t slot, const tl_partition_config *config) {
    wanted *w = context;
    if (memcmp(config->channel, MODEL_TRANSACTIONS_CHANNEL, 16) != 0 || config->partition != w->number)
        return 0;
    w->slot = slot;
    w->found = true;
    return 1;
}

static bool find_slot(tl_store *store, uint32_t number, uint32_t *slot) {
    wanted w = {number, 0, false};
    (void)tl_store_each_partition(store, &w, if_ours);
    *slot = w.slot;
    return w.found;
}

static tl_partition *part(tl_store *store, uint32_t number, bool create) {
    uint8_t channel[16];
    uint32_t slot = 0;
    tl_partition *partition = NULL;
    tl_error err = {0};
    channel_of(channel);
    if (!find_slot(store, number, &slot)) {
        if (!create)
            return NULL;
        tl_partition_config config = {.partition = number,
                                      .segment_bytes = 4096 + 4096 * number,
                                      .segment_ms = -1,
                                      .retention_ms = -1,
                                      .retention_bytes = -1,
                                      .max_message_bytes = 1 << 20};
        memcpy(config.channel, channel, 16);
        snprintf(config.directory, sizeof config.directory, "transactions-%u", number);
        model_expect_ok(tl_store_create_partitions(store, &config, 1, &slot, &err), &err, "create a partition for transactions");
    }
    model_expect_ok(tl_store_partition(store, slot, channel, &partition, &err), &err, "take a handle for transactions");
    return partition;
}

static uint32_t offset_slot(tl_store *store) {
    uint8_t channel[16];
    uint32_t slot = 0;
    tl_error err = {0};
    channel_of(channel);
    model_expect_ok(tl_store_offset_slot(store, group, strlen(group), channel, 0, true, &slot, &err), &err, "find the offset slot");
    return slot;
}

static int64_t committed(tl_store *store) {
    tl_offset_word word;
    tl_error err = {0};
    model_expect_ok(tl_offsets_read(tl_store_offsets(store), offset_slot(store), &word, NULL), &err, "read the offset");
    return word.offset;
}

static void claim(tl_store *store) {
    tl_offset_word word;
    tl_error err = {0};
    uint32_t slot = offset_slot(store);
    model_expect_ok(tl_offsets_read(tl_store_offsets(store), slot, &word, NULL), &err, "read the offset");
    model_expect_ok(tl_offsets_claim(tl_store_offsets(store), slot, word, tl_store_owner(store), &lease_epoch), &err, "claim the lease");
    model_expect_ok(tl_transactions_finish_slot(store, slot, &err), &err, "finish what the old owner decided");
}

/* --- work --- */

static void send(tl_partition *partition, tl_transaction *transaction, uint32_t number, uint32_t index) {
    uint8_t value[400] = {0};
    tl_message messages[2];
    tl_appended appended;
    tl_error err = {0};
    const int32_t bytes = 8 + (int32_t)(number * 37 % 380);
    for (uint32_t i = 0; i < 2; i++)
        messages[i] = (tl_message){.value = value, .value_bytes = bytes, .key_bytes = -1, .timestamp_ms = m->clock_ms};
    memcpy(value, &number, 4);
    memcpy(value + 4, &index, 4);
    const tl_producing producing = {.producer = &producer, .transaction = transaction, .epoch = transaction->epoch, .sequence = -1};
    const tl_append what = {.messages = messages, .count = 1 + number % 2, .producing = &producing};
    model_expect_ok(tl_partition_append(partition, &what, 0, &appended, &err), &err, "send in a transaction");
}

/* How many messages a transaction has in all; it follows from its number. */
static uint32_t size_of(uint32_t number) { return (1 + number % PARTS) * (1 + number % 2); }

void transactions_work(tl_store *store, uint64_t seed) {
    tl_transaction transaction;
    tl_error err = {0};
    uint32_t number = m->transactions;
    if (number >= MODEL_TRANSACTIONS)
        return;
    if (!has_producer || model_random(&seed) % 8 == 0) {
        if (has_producer)
            tl_producer_close(&producer);
        model_doing("open a producer");
        model_expect_ok(tl_producer_open(store, "victim", 6, &producer, &err), &err, "open a producer");
        has_producer = true;
    }
    if (lease_epoch == 0 || model_random(&seed) % 4 == 0) {
        model_doing("claim the lease for transactions");
        claim(store);
    }
    model_transaction *t = &m->transaction[number];
    *t = (model_transaction){.state = TRANSACTION_OPEN};
    m->transactions = number + 1;
    model_doing("begin transaction %u", number);
    model_expect_ok(tl_transaction_begin(&producer, 60000, &transaction, &err), &err, "begin a transaction");
    for (uint32_t i = 0; i < 1 + number % PARTS; i++) {
        tl_partition *partition = part(store, i, true);
        model_doing("send to partition %u in transaction %u", i, number);
        send(partition, &transaction, number, i);
        tl_partition_release(partition);
    }
    model_expect_ok(
        tl_transaction_offset(&transaction, offset_slot(store), tl_store_owner(store), lease_epoch, (int64_t)number, &err), &err,
        "note an offset");
    bool commit = model_random(&seed) % 4 != 0, synced = model_random(&seed) % 3 == 0;
    t->state = commit ? TRANSACTION_ASKED : TRANSACTION_ABORTED;
    model_doing("%s transaction %u", commit ? (synced ? "commit (synced)" : "commit") : "abort", number);
    int status = commit ? tl_transaction_commit(&transaction, synced, &err) : tl_transaction_abort(&transaction, &err);
    model_expect_ok(status, &err, "end a transaction");
    if (commit)
        __atomic_store_n(&t->state, synced ? TRANSACTION_SYNCED : TRANSACTION_COMMITTED, __ATOMIC_RELEASE);
}

/* --- verifying --- */

static void read_all(tl_store *store, uint32_t number, uint32_t seen[MODEL_TRANSACTIONS]) {
    tl_partition *partition = part(store, number, false);
    tl_cursor cursor = {0};
    tl_chunk chunk = {0};
    tl_error err = {0};
    uint32_t last = 0;
    while (partition != NULL) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        model_expect_ok(tl_partition_read(partition, &cursor, &chunk, 100, 1 << 16, 0, &end, &err), &err, "read transactions");
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++) {
            uint32_t id[2];
            memcpy(id, chunk.bytes + chunk.records[i].value_at, sizeof id);
            if (id[0] >= m->transactions || id[1] != number || id[0] < last)
                model_fail("partition %u of transactions holds message %u of transaction %u behind %u", number, id[1], id[0], last);
            last = id[0];
            seen[id[0]]++;
        }
    }
    tl_chunk_free(&chunk);
    tl_partition_release(partition);
}

/* Nobody else has a transaction open: all owners but this process are dead. */
void transactions_verify(tl_store *store, bool booted) {
    static uint32_t seen[MODEL_TRANSACTIONS];
    int64_t newest = TL_OFFSETS_NONE, newest_synced = TL_OFFSETS_NONE;
    tl_error err = {0};
    memset(seen, 0, sizeof seen);
    model_doing("end the transactions of the dead");
    model_expect_ok(tl_transactions_sweep(store, &err), &err, "sweep transactions");
    model_doing("read what transactions left");
    for (uint32_t i = 0; i < PARTS; i++)
        read_all(store, i, seen);
    for (uint32_t number = 0; number < m->transactions; number++) {
        model_transaction *t = &m->transaction[number];
        if (seen[number] != 0 && seen[number] != size_of(number))
            model_fail("%u of the %u messages of transaction %u are visible", seen[number], size_of(number), number);
        bool visible = seen[number] > 0, must = t->state == TRANSACTION_COMMITTED || t->state == TRANSACTION_SYNCED;
        bool must_not = t->state == TRANSACTION_OPEN || t->state == TRANSACTION_ABORTED;
        if ((must && !visible) || (must_not && visible))
            model_fail("transaction %u is %s", number, visible ? "visible and was not committed" : "lost, it was committed");
        if (t->state == TRANSACTION_ASKED)
            t->state = visible ? TRANSACTION_COMMITTED : TRANSACTION_ABORTED;
        newest = visible ? (int64_t)number : newest;
        newest_synced = t->state == TRANSACTION_SYNCED ? (int64_t)number : newest_synced;
    }
    int64_t offset = m->transactions == 0 ? TL_OFFSETS_NONE : committed(store);
    m->offset_booted = m->offset_booted || booted; /* a boot takes what no checkpoint has, until the next commit */
    if (offset == newest)
        m->offset_booted = false;
    else if (!m->offset_booted || offset < newest_synced || offset > newest)
        model_fail("the committed offset is %lld, the last visible transaction is %lld (synced: %lld)", (long long)offset,
                   (long long)newest, (long long)newest_synced);
    for (uint32_t i = 0; i < PARTS; i++) {
        int64_t stable = -1;
        tl_bounds bounds;
        tl_partition *partition = part(store, i, false);
        if (partition == NULL)
            continue;
        model_expect_ok(tl_partition_stable_end(partition, &stable, &err), &err, "the last stable offset");
        model_expect_ok(tl_partition_bounds(partition, &bounds, &err), &err, "bounds");
        if (stable != bounds.log_end)
            model_fail("a transaction stays open in partition %u, at offset %lld", i, (long long)stable);
        tl_partition_release(partition);
    }
}
