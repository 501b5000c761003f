/* Do threads that send, commit, abort, sweep, take leases over and read keep every transaction whole?
 *
 * Imports transactions_kit.h. Each sender commits its own numbers; readers look at one partition after the other and find
 * each transaction in all of them once its marker is in the first that they look at last. Run under ThreadSanitizer. */
#define _GNU_SOURCE
#include "transactions_kit.h"

#include <pthread.h>

enum { SENDERS = 4, ROUNDS = 1500, READERS = 2 };

static kit shared_kit;
static uint32_t left = SENDERS;
static uint64_t committed[SENDERS], aborted[SENDERS];

static void must(int status, const tl_error *err, const char *what) {
    if (status < 0)
        REFUSE("%s: %s, %s, %s", what, tl_status_name(status), err->what, err->path);
}

static void *send_and_commit(void *context) {
    int self = (int)(intptr_t)context;
    char name[16];
    tl_error err = {0};
    tl_producer producer;
    uint64_t dice = (uint64_t)self + 7;
    snprintf(name, sizeof name, "sender-%d", self);
    must(tl_producer_open(shared_kit.store, name, strlen(name), &producer, &err), &err, "open");
    for (uint32_t round = 0; round < ROUNDS; round++) {
        tl_transaction transaction;
        must(tl_transaction_begin(&producer, 60000, &transaction, &err), &err, "begin");
        for (uint32_t i = 0; i < KIT_PARTITIONS; i++) {
            uint8_t text[KIT_TEXT];
            const tl_message message = kit_message((uint64_t)self * 100000 + round, text);
            const tl_producing producing = {&producer, &transaction, transaction.epoch, -1};
            const tl_append what = {.messages = &message, .count = 1, .producing = &producing};
            tl_appended appended;
            must(tl_partition_append(shared_kit.partitions[i], &what, 0, &appended, &err), &err, "send");
        }
        bool commit = check_random(&dice) % 4 != 0;
        must(commit ? tl_transaction_commit(&transaction, check_random(&dice) % 8 == 0, &err) : tl_transaction_abort(&transaction, &err),
             &err, "end");
        *(commit ? &committed[self] : &aborted[self]) += 1;
    }
    __atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* How many messages of all senders are visible in a partition; those of one come in their order. */
static uint64_t count_visible(tl_partition *partition, tl_cursor *cursor, int64_t last[SENDERS]) {
    tl_chunk chunk = {0};
    tl_read_end end;
    tl_error err = {0};
    uint64_t count = 0;
    do {
        tl_chunk_clear(&chunk);
        must(tl_partition_read(partition, cursor, &chunk, 50, 1 << 16, 0, &end, &err), &err, "read");
        for (size_t i = 0; i < chunk.count; i++) {
            uint64_t number = strtoull((const char *)chunk.bytes + chunk.records[i].value_at + 8, NULL, 10);
            uint32_t who = (uint32_t)(number / 100000);
            if (who >= SENDERS || (int64_t)number <= last[who])
                REFUSE("message %llu is there twice or out of order", (unsigned long long)number);
            last[who] = (int64_t)number;
        }
        count += chunk.count;
    } while (chunk.count > 0);
    tl_chunk_free(&chunk);
    return count;
}

static void *read_along(void *context) {
    tl_cursor cursors[KIT_PARTITIONS] = {{0}};
    int64_t last[KIT_PARTITIONS][SENDERS];
    uint64_t counts[KIT_PARTITIONS] = {0};
    tl_error err = {0};
    (void)context;
    memset(last, 0xff, sizeof last);
    for (bool done = false; !done;) {
        done = __atomic_load_n(&left, __ATOMIC_SEQ_CST) == 0;
        for (int i = 0; i < KIT_PARTITIONS; i++)
            counts[i] += count_visible(shared_kit.partitions[i], &cursors[i], last[i]);
        must(tl_transactions_sweep(shared_kit.store, &err), &err, "sweep");
        uint64_t tail = tl_partition_tail(shared_kit.partitions[0]);
        (void)tl_store_wait(shared_kit.store, shared_kit.partitions, &tail, 1, 1000000, 0, NULL, 0, NULL, &err);
    }
    uint64_t wanted = 0;
    for (int i = 0; i < SENDERS; i++)
        wanted += committed[i];
    for (int i = 0; i < KIT_PARTITIONS; i++)
        if (counts[i] != wanted)
            REFUSE("%llu messages of partition %d were visible, %llu were committed", (unsigned long long)counts[i], i,
                   (unsigned long long)wanted);
    return NULL;
}

static void *keep_house(void *context) {
    tl_error err = {0};
    (void)context;
    while (__atomic_load_n(&left, __ATOMIC_SEQ_CST) > 0)
        must(tl_store_housekeep(shared_kit.store, &err), &err, "housekeep");
    return NULL;
}

int main(void) {
    char path[200];
    pthread_t threads[SENDERS + READERS + 1];
    kit_install();
    kit_directory(path, "txn-stress");
    kit_enter(&shared_kit, path, 16384, false);
    for (int i = 0; i < SENDERS; i++)
        CHECK(pthread_create(&threads[i], NULL, send_and_commit, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < READERS; i++)
        CHECK(pthread_create(&threads[SENDERS + i], NULL, read_along, NULL) == 0);
    CHECK(pthread_create(&threads[SENDERS + READERS], NULL, keep_house, NULL) == 0);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(kit_is_stable(&shared_kit) && kit_check(&shared_kit) == 0);
    kit_leave(&shared_kit);
    kit_remove(AT_FDCWD, path);
    return check_report();
}
