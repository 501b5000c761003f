/* What do the programs that test transactions share: a store with partitions and a lease, messages by number, what readers see?
 *
 * Imports store_kit.h, transactions.h, handles.h. Single-threaded. */
#ifndef TIDELOG_TEST_TRANSACTIONS_KIT_H
#define TIDELOG_TEST_TRANSACTIONS_KIT_H

#include "../../native/src/handles.h"
#include "store_kit.h"
#include "tidelog/transactions.h"

enum { KIT_PARTITIONS = 3, KIT_MOST = 4096, KIT_SECOND_MS = 1000 };

static tl_error kit_error;
static int64_t kit_later_ns; /* added to the monotonic clock */

static inline int64_t kit_monotonic(void) { return tl_io_posix.monotonic_ns() + kit_later_ns; }

typedef struct kit {
    tl_store *store;
    tl_partition *partitions[KIT_PARTITIONS];
    uint32_t offset_slot, lease_epoch; /* of the group "readers" and partition 0 */
} kit;

#define MUST(call) KIT_MUST(call, kit_error)

static inline void kit_enter(kit *k, const char *path, uint32_t segment_bytes, bool threads) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 3000, .create = true, .no_housekeeper = !threads};
    int state = 0;
    memset(k, 0, sizeof *k);
    MUST(tl_store_open(path, &options, &k->store, &state, NULL, &kit_error));
    MUST(tl_store_ready(k->store, &kit_error));
    for (uint32_t i = 0; i < KIT_PARTITIONS; i++) {
        uint32_t slot = i;
        if (k->store->header->partitions <= i)
            MUST(kit_create(k->store, i, segment_bytes, &slot, &kit_error));
        MUST(tl_store_partition(k->store, slot, kit_channel, &k->partitions[i], &kit_error));
    }
    MUST(tl_store_offset_slot(k->store, "readers", 7, kit_channel, 0, true, &k->offset_slot, &kit_error));
}

static inline void kit_leave(kit *k) {
    for (int i = 0; i < KIT_PARTITIONS; i++)
        tl_partition_release(k->partitions[i]);
    MUST(tl_store_close(k->store, &kit_error));
    tl_store_free(k->store);
}

static inline void kit_claim(kit *k) {
    tl_offset_word word;
    MUST(tl_offsets_read(k->store->offsets, k->offset_slot, &word, NULL));
    MUST(tl_offsets_claim(k->store->offsets, k->offset_slot, word, k->store->me, &k->lease_epoch));
    MUST(tl_transactions_finish_slot(k->store, k->offset_slot, &kit_error));
}

static inline int64_t kit_committed(kit *k) {
    tl_offset_word word;
    MUST(tl_offsets_read(k->store->offsets, k->offset_slot, &word, NULL));
    return word.offset;
}

static inline tl_producer kit_producer(kit *k, const char *name) {
    tl_producer producer;
    MUST(tl_producer_open(k->store, name, strlen(name), &producer, &kit_error));
    return producer;
}

static inline tl_transaction kit_begin(tl_producer *producer) {
    tl_transaction transaction;
    MUST(tl_transaction_begin(producer, 60 * KIT_SECOND_MS, &transaction, &kit_error));
    return transaction;
}

/* One message, or a batch of `count` with numbers that go up. Plain without a transaction. */
static inline int kit_try_send(tl_partition *partition, tl_transaction *transaction, uint64_t number, size_t count, int64_t *offset) {
    static uint8_t texts[KIT_BATCH][KIT_TEXT];
    tl_message messages[KIT_BATCH];
    for (size_t i = 0; i < count; i++)
        messages[i] = kit_message(number + i, texts[i]);
    const tl_producing producing = {.producer = transaction == NULL ? NULL : transaction->producer,
                                    .transaction = transaction,
                                    .epoch = transaction == NULL ? 0 : transaction->epoch,
                                    .sequence = -1};
    const tl_append what = {.messages = messages, .count = count, .producing = transaction == NULL ? NULL : &producing};
    tl_appended appended;
    int status = tl_partition_append(partition, &what, 0, &appended, &kit_error);
    if (offset != NULL)
        *offset = appended.base_offset;
    return status;
}

static inline int64_t kit_send(tl_partition *partition, tl_transaction *transaction, uint64_t number) {
    int64_t offset = -1;
    MUST(kit_try_send(partition, transaction, number, 1, &offset));
    return offset;
}

/* Numbers of the messages that a reader sees, by what they say; each must be whole. */
static inline size_t kit_read(tl_partition *partition, unsigned flags, uint64_t numbers[KIT_MOST]) {
    tl_cursor cursor = {.offset = 0};
    tl_chunk chunk = {0};
    size_t seen = 0;
    int64_t last = -1;
    tl_bounds bounds;
    MUST(tl_partition_bounds(partition, &bounds, &kit_error));
    cursor.offset = bounds.log_start;
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        MUST(tl_partition_read(partition, &cursor, &chunk, 7, 1 << 20, flags, &end, &kit_error));
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++) {
            const tl_record *record = &chunk.records[i];
            uint64_t number = strtoull((const char *)chunk.bytes + record->value_at + 8, NULL, 10);
            if (record->offset <= last || !kit_is(&chunk, record, number))
                REFUSE("offset %lld holds something else than message %llu", (long long)record->offset, (unsigned long long)number);
            last = record->offset;
            CHECK(seen < KIT_MOST);
            numbers[seen++] = number;
        }
    }
    tl_chunk_free(&chunk);
    return seen;
}

static inline bool kit_sees(tl_partition *partition, uint64_t number) {
    static uint64_t numbers[KIT_MOST];
    size_t count = kit_read(partition, 0, numbers);
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

static int kit_findings;
static inline void kit_finding(void *context, const char *file, int64_t position, const char *what, int64_t first, int64_t next) {
    (void)context;
    kit_findings++;
    if (getenv("KIT_SHOW") != NULL)
        fprintf(stderr, "finding: %s at %lld: %s [%lld, %lld)\n", file, (long long)position, what, (long long)first, (long long)next);
}

/* How many places `tidelog check` finds wrong. */
static inline int kit_check(kit *k) {
    const tl_check_report report = {NULL, kit_finding, NULL};
    kit_findings = 0;
    for (int i = 0; i < KIT_PARTITIONS; i++)
        MUST(tl_partition_check(k->partitions[i], &report, &kit_error));
    MUST(tl_store_check(k->store, &report, &kit_error));
    return kit_findings;
}

static inline bool kit_is_stable(kit *k) {
    for (int i = 0; i < KIT_PARTITIONS; i++)
        if (k->partitions[i]->hot->lso != UINT64_MAX)
            return false;
    return true;
}

#endif
