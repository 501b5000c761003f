/* Do transactions of one process keep what transactions.h promises?
 *
 * Imports transactions_kit.h. Visibility is looked at through reads, by the numbers of messages; offsets through their slots. */
#define _GNU_SOURCE
#include "transactions_kit.h"

#include "../../native/src/transacting.h"

static char path[200];
static uint64_t seen[KIT_MOST];

static void begin_case(kit *k, uint32_t segment_bytes) {
    kit_directory(path, "transactions");
    kit_enter(k, path, segment_bytes, false);
    kit_claim(k);
    kit_later_ns = 0;
}

static void end_case(kit *k) {
    CHECK(kit_check(k) == 0);
    CHECK(kit_is_stable(k));
    kit_leave(k);
    kit_enter(k, path, 1 << 20, false); /* after a clean close */
    CHECK(kit_check(k) == 0);
    kit_leave(k);
    kit_remove(AT_FDCWD, path);
}

static void offset(kit *k, tl_transaction *transaction, int64_t value) {
    MUST(tl_transaction_offset(transaction, k->offset_slot, k->store->me, k->lease_epoch, value, &kit_error));
}

static void check_commit_and_abort(bool synced) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "till");
    kit_send(k.partitions[0], NULL, 1);
    tl_transaction transaction = kit_begin(&producer);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        kit_send(k.partitions[i], &transaction, 10 + (uint64_t)i);
    kit_send(k.partitions[0], NULL, 2); /* behind it: waits with it */
    offset(&k, &transaction, 7);
    CHECK(kit_read(k.partitions[0], 0, seen) == 1 && seen[0] == 1);
    CHECK(kit_read(k.partitions[1], 0, seen) == 0);
    CHECK(kit_read(k.partitions[0], TL_READ_UNCOMMITTED, seen) == 3);
    CHECK(kit_committed(&k) == TL_OFFSETS_NONE);
    int64_t stable = -1;
    MUST(tl_partition_stable_end(k.partitions[0], &stable, &kit_error));
    CHECK(stable == 1);
    MUST(tl_transaction_commit(&transaction, synced, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 3 && seen[0] == 1 && seen[1] == 10 && seen[2] == 2);
    CHECK(kit_sees(k.partitions[1], 11) && kit_sees(k.partitions[2], 12));
    CHECK(kit_committed(&k) == 7 && kit_is_stable(&k));
    CHECK(tl_transaction_abort(&transaction, &kit_error) == TL_ETXNSTATE);
    CHECK(tl_transaction_commit(&transaction, synced, &kit_error) == TL_EFENCED);

    transaction = kit_begin(&producer);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        kit_send(k.partitions[i], &transaction, 20 + (uint64_t)i);
    kit_send(k.partitions[0], NULL, 3);
    offset(&k, &transaction, 9);
    MUST(tl_transaction_abort(&transaction, &kit_error));
    MUST(tl_transaction_abort(&transaction, &kit_error));
    CHECK(tl_transaction_commit(&transaction, synced, &kit_error) == TL_EFENCED);
    CHECK(kit_try_send(k.partitions[0], &transaction, 21, 1, NULL) == TL_EFENCED);
    CHECK(kit_read(k.partitions[0], 0, seen) == 4 && seen[3] == 3);
    CHECK(kit_read(k.partitions[0], TL_READ_UNCOMMITTED, seen) == 5);
    CHECK(!kit_sees(k.partitions[1], 21) && kit_committed(&k) == 7 && kit_is_stable(&k));
    CHECK(k.store->header->unfinished == 0);
    end_case(&k);
}

/* Two at once in one partition: readers stop at the older one, whoever ends first. */
static void check_two_at_once(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer first = kit_producer(&k, "a"), second = kit_producer(&k, "b");
    tl_transaction a = kit_begin(&first), b = kit_begin(&second);
    kit_send(k.partitions[0], &a, 1);
    kit_send(k.partitions[0], &b, 2);
    kit_send(k.partitions[0], &a, 3);
    kit_send(k.partitions[0], &b, 4);
    MUST(tl_transaction_commit(&b, false, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 0);
    b = kit_begin(&second);
    kit_send(k.partitions[0], &b, 5);
    MUST(tl_transaction_abort(&a, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 2 && seen[0] == 2 && seen[1] == 4);
    a = kit_begin(&first);
    kit_send(k.partitions[0], &a, 6);
    MUST(tl_transaction_commit(&a, false, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 2);
    MUST(tl_transaction_abort(&b, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 3 && seen[2] == 6);
    CHECK(tl_aborted_contains(k.partitions[0], first.producer_id, 0, NULL) == 1);
    CHECK(tl_aborted_contains(k.partitions[0], second.producer_id, 1, NULL) == 0);
    end_case(&k);
}

static void check_timeout(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "slow");
    tl_transaction transaction = kit_begin(&producer), again;
    CHECK(tl_transaction_begin(&producer, 1000, &again, &kit_error) == TL_EEXIST);
    kit_send(k.partitions[0], &transaction, 1);
    offset(&k, &transaction, 5);
    MUST(tl_transactions_sweep(k.store, &kit_error));
    CHECK(!kit_is_stable(&k));
    kit_later_ns = 61 * (int64_t)1000000000;
    CHECK(tl_transaction_commit(&transaction, true, &kit_error) == TL_EFENCED); /* nobody has swept yet */
    CHECK(kit_is_stable(&k) && !kit_sees(k.partitions[0], 1) && kit_committed(&k) == TL_OFFSETS_NONE);
    transaction = kit_begin(&producer);
    kit_send(k.partitions[0], &transaction, 2);
    kit_later_ns *= 2;
    MUST(tl_transactions_sweep(k.store, &kit_error));
    CHECK(kit_is_stable(&k) && !kit_sees(k.partitions[0], 2));
    CHECK(kit_try_send(k.partitions[0], &transaction, 3, 1, NULL) == TL_EFENCED);
    CHECK(tl_transaction_commit(&transaction, false, &kit_error) == TL_EFENCED);
    transaction = kit_begin(&producer);
    kit_send(k.partitions[0], &transaction, 4);
    MUST(tl_transaction_commit(&transaction, false, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 1 && seen[0] == 4);
    CHECK(tl_transaction_begin(&producer, 0, &transaction, &kit_error) == TL_EINVAL);
    end_case(&k);
}

/* A lease or a name that was lost before the commit makes it void. */
static void check_fencing(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction transaction = kit_begin(&producer);
    kit_send(k.partitions[1], &transaction, 1);
    offset(&k, &transaction, 3);
    kit_claim(&k); /* another member */
    CHECK(tl_transaction_commit(&transaction, false, &kit_error) == TL_EFENCED);
    CHECK(kit_is_stable(&k) && !kit_sees(k.partitions[1], 1) && kit_committed(&k) == TL_OFFSETS_NONE);

    transaction = kit_begin(&producer);
    kit_send(k.partitions[1], &transaction, 2);
    tl_producer newer = kit_producer(&k, "till"); /* aborts it at once */
    CHECK(kit_is_stable(&k) && !kit_sees(k.partitions[1], 2));
    CHECK(kit_try_send(k.partitions[1], &transaction, 3, 1, NULL) == TL_EFENCED);
    CHECK(tl_transaction_commit(&transaction, false, &kit_error) == TL_EFENCED);
    tl_transaction other;
    CHECK(tl_transaction_begin(&producer, 1000, &other, &kit_error) == TL_EFENCED);
    other = kit_begin(&newer);
    kit_send(k.partitions[1], &other, 4);
    MUST(tl_transaction_commit(&other, false, &kit_error));
    CHECK(kit_read(k.partitions[1], 0, seen) == 1 && seen[0] == 4);
    end_case(&k);
}

/* A marker or an end that comes late must not touch the next transaction of the producer. */
static void check_late(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction old = kit_begin(&producer);
    kit_send(k.partitions[0], &old, 1);
    MUST(tl_transaction_abort(&old, &kit_error));
    tl_transaction next = kit_begin(&producer);
    kit_send(k.partitions[0], &next, 2);
    CHECK(next.epoch != old.epoch || next.producer_id != old.producer_id);
    CHECK(tl_transaction_commit(&old, false, &kit_error) == TL_EFENCED);
    MUST(tl_transaction_abort(&old, &kit_error));
    uint64_t place = 0; /* a finisher that was stopped before its marker */
    CHECK(tl_txn_mark(k.partitions[0], old.producer_id, old.epoch, false, &place, &kit_error) == 0);
    CHECK(!kit_is_stable(&k));
    offset(&k, &next, 11);
    MUST(tl_transaction_commit(&next, false, &kit_error));
    CHECK(kit_read(k.partitions[0], 0, seen) == 1 && seen[0] == 2 && kit_committed(&k) == 11);
    end_case(&k);
}

static void check_record_reuse(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "many");
    tl_transaction transaction;
    for (uint64_t i = 0; i < 300; i++) {
        transaction = kit_begin(&producer);
        kit_send(k.partitions[i % 3], &transaction, i);
        offset(&k, &transaction, (int64_t)i + 1);
        MUST(i % 5 == 4 ? tl_transaction_abort(&transaction, &kit_error) : tl_transaction_commit(&transaction, false, &kit_error));
    }
    CHECK(k.store->header->transactions <= 2 && k.store->header->unfinished == 0);
    size_t count = kit_read(k.partitions[0], 0, seen) + kit_read(k.partitions[1], 0, seen) + kit_read(k.partitions[2], 0, seen);
    CHECK(count == 240 && kit_committed(&k) == 299);
    /* Synced ones keep their records until markers and offsets are on disk. */
    for (uint64_t i = 0; i < 100; i++) {
        transaction = kit_begin(&producer);
        kit_send(k.partitions[0], &transaction, 1000 + i);
        offset(&k, &transaction, 1000 + (int64_t)i);
        MUST(tl_transaction_commit(&transaction, true, &kit_error));
    }
    CHECK(k.store->header->transactions >= 100);
    tl_transaction_info infos[200];
    CHECK(tl_transactions_list(k.store, infos, 200, &kit_error) == 100 && infos[0].state == 4 && infos[0].offsets == 1);
    MUST(tl_store_housekeep(k.store, &kit_error));
    CHECK(tl_transactions_list(k.store, infos, 200, &kit_error) == 0);
    uint32_t used = k.store->header->transactions;
    for (uint64_t i = 0; i < 50; i++) {
        transaction = kit_begin(&producer);
        kit_send(k.partitions[0], &transaction, 2000 + i);
        MUST(tl_transaction_commit(&transaction, true, &kit_error));
    }
    CHECK(k.store->header->transactions == used);
    end_case(&k);
}

static int fdatasyncs, fsyncs;
static int count_fdatasync(int fd) {
    fdatasyncs++;
    return tl_io_posix.fdatasync(fd);
}
static int count_fsync(int fd) {
    fsyncs++;
    return tl_io_posix.fsync(fd);
}

/* A synced commit costs one sync for each partition and one for the record. */
static void check_syncs(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "till");
    tl_os_table.fdatasync = count_fdatasync;
    tl_os_table.fsync = count_fsync;
    for (int round = 0; round < 3; round++) {
        tl_transaction transaction = kit_begin(&producer);
        for (int i = 0; i < KIT_PARTITIONS; i++)
            kit_send(k.partitions[i], &transaction, (uint64_t)(round * 10 + i));
        offset(&k, &transaction, round + 1);
        fdatasyncs = fsyncs = 0;
        MUST(tl_transaction_commit(&transaction, true, &kit_error));
        CHECK(round == 0 || (fdatasyncs == KIT_PARTITIONS + 1 && fsyncs == 0));
        transaction = kit_begin(&producer);
        kit_send(k.partitions[0], &transaction, 100);
        fdatasyncs = fsyncs = 0;
        MUST(tl_transaction_commit(&transaction, false, &kit_error));
        CHECK(fdatasyncs == 0 && fsyncs == 0);
        transaction = kit_begin(&producer);
        MUST(tl_transaction_commit(&transaction, true, &kit_error)); /* nothing was in it */
        CHECK(fdatasyncs == 0 && fsyncs == 0);
    }
    tl_os_table.fdatasync = tl_io_posix.fdatasync;
    tl_os_table.fsync = tl_io_posix.fsync;
    end_case(&k);
}

/* More offsets than a record has room for. */
static void check_chain(void) {
    enum { SLOTS = 300 };
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "wide");
    uint32_t slots[SLOTS], epochs[SLOTS];
    char name[600];
    memset(name, 'g', sizeof name);
    for (uint32_t i = 0; i < SLOTS; i++) { /* every tenth in a group of its own, with a long name */
        size_t bytes = i % 10 == 0 ? 400 + (size_t)snprintf(name + 400, 20, "%u", i) : 7;
        MUST(tl_store_offset_slot(k.store, i % 10 == 0 ? name : "readers", bytes, kit_channel, 10 + i, true, &slots[i], &kit_error));
        tl_offset_word word;
        MUST(tl_offsets_read(k.store->offsets, slots[i], &word, NULL));
        MUST(tl_offsets_claim(k.store->offsets, slots[i], word, k.store->me, &epochs[i]));
    }
    for (int round = 0; round < 3; round++) {
        tl_transaction transaction = kit_begin(&producer);
        for (uint32_t i = 0; i < SLOTS; i++) {
            if (i == 200)
                kit_send(k.partitions[2], &transaction, (uint64_t)round);
            MUST(tl_transaction_offset(&transaction, slots[i], k.store->me, epochs[i], round * 1000 + (int64_t)i, &kit_error));
        }
        MUST(tl_transaction_offset(&transaction, slots[5], k.store->me, epochs[5], round * 1000 + 77, &kit_error));
        MUST(round == 1 ? tl_transaction_abort(&transaction, &kit_error) : tl_transaction_commit(&transaction, true, &kit_error));
        for (uint32_t i = 0; i < SLOTS; i++) {
            tl_offset_word word;
            MUST(tl_offsets_read(k.store->offsets, slots[i], &word, NULL));
            int64_t value = i == 5 ? 77 : (int64_t)i;
            CHECK(word.offset == (round == 2 ? 2000 + value : value));
        }
        CHECK(kit_check(&k) == 0);
        MUST(tl_store_housekeep(k.store, &kit_error));
    }
    CHECK(kit_read(k.partitions[2], 0, seen) == 2 && seen[0] == 0 && seen[1] == 2);
    CHECK(k.store->header->transactions <= 12);
    end_case(&k);
}

static kit *hooked;
static int markers;

/* At the moment a marker is published: whoever is woken by its tail sees the messages, and the decision is on disk. */
static void look_at_marker(const char *name) {
    if (strcmp(name, "txn.marker") != 0)
        return;
    markers++;
    CHECK(hooked->partitions[0]->hot->lso == UINT64_MAX || markers > 1);
    CHECK(hooked->store->header->decisions_synced == hooked->store->header->decisions);
    CHECK(kit_committed(hooked) == 5);
}

static void check_order(void) {
    kit k;
    begin_case(&k, 1 << 20);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction transaction = kit_begin(&producer);
    kit_send(k.partitions[0], &transaction, 1);
    kit_send(k.partitions[1], &transaction, 2);
    offset(&k, &transaction, 5);
    hooked = &k;
    tl_point_hook = look_at_marker;
    MUST(tl_transaction_commit(&transaction, true, &kit_error));
    tl_point_hook = NULL;
    CHECK(markers == 2 && kit_sees(k.partitions[0], 1) && kit_sees(k.partitions[1], 2));
    end_case(&k);
}

int main(void) {
    kit_install();
    tl_os_table.monotonic_ns = kit_monotonic;
    check_commit_and_abort(false);
    check_commit_and_abort(true);
    check_two_at_once();
    check_timeout();
    check_fencing();
    check_late();
    check_record_reuse();
    check_syncs();
    check_chain();
    check_order();
    return check_report();
}
