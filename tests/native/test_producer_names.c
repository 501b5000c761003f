/* Do names of producers keep their identity, and fence, across reopening, a new boot and the end of their epochs?
 *
 * Imports producers_kit.h. Single-threaded; works in a directory of its own. */
#define _GNU_SOURCE
#include "producers_kit.h"
#include "tidelog/shared.h"
#include "tidelog/transactions.h"

static int (*true_fdatasync)(int fd);
static int syncs;

static int counted_fdatasync(int fd) {
    syncs++;
    return true_fdatasync(fd);
}

static int next_epoch(tl_producer *producer, int16_t *epoch, tl_error *err) {
    bool over = false;
    kit_must_be(tl_transactions_lock(producer->store, &over, err), TL_OK, err);
    int status = tl_producer_next_epoch(producer, epoch, err);
    tl_transactions_unlock(producer->store);
    return status;
}

/* What an opening takes from a block is on the disk before it returns; most openings take nothing. */
static void test_durable(void) {
    true_fdatasync = tl_os_table.fdatasync;
    tl_os_table.fdatasync = counted_fdatasync;
    kit_enter(true);
    int written = 0;
    for (int i = 0; i < 4100; i++) {
        int before = syncs;
        tl_producer producer = kit_open_name("durable");
        CHECK(tl_producer_epoch(&producer) == i);
        if (i % 2048 == 0)
            CHECK(syncs > before);
        written += syncs > before;
    }
    CHECK(written == 3);
    int before = syncs;
    (void)kit_open_name("another");
    CHECK(syncs > before);
    kit_leave();
    tl_os_table.fdatasync = true_fdatasync;
    kit_remove(AT_FDCWD, kit_base);
    CHECK(mkdir(kit_base, 0700) == 0);
}

/* The same, after the child took an epoch: nobody knows how many it used. */
static void cut_with_name(void) {
    kit_leave();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        kit_enter(false);
        (void)kit_open_name("till");
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    kit_boot++;
    kit_enter(false);
}

static void test_names(void) {
    tl_appended out;
    tl_error err = {0};
    kit_enter(true);
    tl_producer till = kit_open_name("till"), other = kit_open_name("other");
    CHECK(till.producer_id != other.producer_id && tl_producer_epoch(&till) == 0);
    int64_t offset = -2;
    kit_must_be(tl_producer_last(&till, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == -1);
    for (int i = 0; i < 3; i++) {
        CHECK(kit_send(&till, -1, 2, &out) == TL_OK && out.sequence == 2 * i && out.base_offset == 2 * i && out.duplicates == 0);
        CHECK(out.answered == 2);
    }
    CHECK(kit_send(&till, 4, 2, &out) == TL_OK && out.duplicates == 2 && out.base_offset == 4 && out.tail > 0);
    CHECK(kit_send(&till, 2, 2, &out) == TL_OK && out.duplicates == 2 && out.base_offset == 2);
    CHECK(kit_send(&till, 7, 1, &out) == TL_EOUTOFORDER);
    CHECK(kit_send(&other, -1, 1, &out) == TL_OK && out.sequence == 0);
    kit_must_be(tl_producer_last(&till, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 5);

    tl_producer again = kit_open_name("till");
    CHECK(again.producer_id == till.producer_id && tl_producer_epoch(&again) == 1 && again.row == till.row);
    CHECK(tl_producer_is_fenced(&till) && !tl_producer_is_fenced(&again) && !tl_producer_is_fenced(&other));
    CHECK(kit_send(&till, -1, 1, &out) == TL_EFENCED);
    CHECK(kit_send(&till, 4, 2, &out) == TL_EFENCED); /* also what would be a repetition */
    CHECK(tl_producer_last(&till, kit_partition, &offset, &err) == TL_EFENCED);
    kit_must_be(tl_producer_last(&again, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 5);
    CHECK(kit_send(&again, -1, 1, &out) == TL_OK && out.sequence == 0 && out.base_offset == 7);
    CHECK(kit_send(&again, -1, 1, &out) == TL_OK && out.sequence == 1);
    tl_producer_close(&till); /* says nothing any more about the name */
    tl_producer_close(&again);
    tl_producer third = kit_open_name("till");
    CHECK(tl_producer_epoch(&third) == 2);
    CHECK(kit_send(&again, -1, 1, &out) == TL_EFENCED);

    int64_t id = third.producer_id, other_id = other.producer_id;
    kit_leave();
    kit_enter(false);
    tl_producer reopened = kit_open_name("till");
    CHECK(reopened.producer_id == id && tl_producer_epoch(&reopened) >= 3);
    kit_must_be(tl_producer_last(&reopened, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 8);
    int16_t before = tl_producer_epoch(&reopened);
    kit_leave();
    kit_boot++;
    kit_enter(false); /* closed in order: not an epoch is lost */
    reopened = kit_open_name("till");
    CHECK(reopened.producer_id == id && tl_producer_epoch(&reopened) == before + 1);
    kit_cut(0);
    tl_producer booted = kit_open_name("till"); /* what was used of the epochs is what was given back by the close before */
    CHECK(booted.producer_id == id && tl_producer_epoch(&booted) == before + 2);
    cut_with_name();
    booted = kit_open_name("till");
    CHECK(booted.producer_id == id && tl_producer_epoch(&booted) >= before + 2 + 2048);
    CHECK(kit_open_name("other").producer_id == other_id);
    int64_t fresh = kit_open_name("fresh").producer_id;
    CHECK(fresh != id && fresh != other_id && fresh >= 1000); /* the rest of the block may have been given out */
    kit_must_be(tl_producer_last(&booted, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 8);
    CHECK(kit_send(&booted, -1, 1, &out) == TL_OK && out.sequence == 0);

    tl_producer bad;
    char longest[TL_PRODUCER_NAME_BYTES + 1];
    memset(longest, 'n', sizeof longest);
    CHECK(tl_producer_open(kit_store, "", 0, &bad, &err) == TL_EINVAL);
    CHECK(tl_producer_open(kit_store, longest, sizeof longest, &bad, &err) == TL_EINVAL);
    kit_must_be(tl_producer_open(kit_store, longest, sizeof longest - 1, &bad, &err), TL_OK, &err);
    kit_leave();
}

/* Past the last epoch comes a new id; what the old one wrote is still known by the name. */
static void test_epochs_end(void) {
    tl_error err = {0};
    tl_appended out;
    kit_enter(false);
    tl_producer producer = kit_open_name("epochs");
    CHECK(kit_send(&producer, -1, 1, &out) == TL_OK);
    int64_t wrote = out.base_offset, first_id = producer.producer_id, offset = -1;
    int16_t epoch = tl_producer_epoch(&producer), before = epoch;
    while (producer.producer_id == first_id) {
        before = epoch;
        kit_must_be(next_epoch(&producer, &epoch, &err), TL_OK, &err);
        CHECK(epoch == before + 1 || (epoch == 0 && before == 32766));
    }
    CHECK(epoch == 0 && before == 32766);
    kit_must_be(tl_producer_last(&producer, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == wrote);
    CHECK(kit_send(&producer, -1, 1, &out) == TL_OK && out.sequence == 0);
    kit_must_be(tl_producer_last(&producer, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == out.base_offset);
    int64_t id = producer.producer_id;
    for (int turn = 0; turn < 3; turn++) { /* four ids back is still known */
        for (int16_t e = 0; e < 32766;)
            kit_must_be(next_epoch(&producer, &e, &err), TL_OK, &err);
        kit_must_be(next_epoch(&producer, &epoch, &err), TL_OK, &err);
        CHECK(epoch == 0 && producer.producer_id != id);
    }
    kit_must_be(tl_producer_last(&producer, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == out.base_offset);
    id = producer.producer_id;
    kit_cut(0);
    producer = kit_open_name("epochs");
    CHECK(producer.producer_id == id && tl_producer_epoch(&producer) == 1);
    kit_must_be(tl_producer_last(&producer, kit_partition, &offset, &err), TL_OK, &err);
    CHECK(offset == out.base_offset);
    kit_leave();
}

static void test_many_names(void) {
    static tl_producer all[1024 + 1];
    char name[32];
    tl_error err = {0};
    kit_enter(false);
    for (int i = 0; i < 1024; i++) {
        snprintf(name, sizeof name, "name-%d", i);
        int status = tl_producer_open(kit_store, name, strlen(name), &all[i], &err);
        if (status == TL_EFULL) { /* the row of nobody here is left: those of the tests before are open */
            CHECK(i > 1000);
            break;
        }
        kit_must_be(status, TL_OK, &err);
    }
    CHECK(tl_producer_open(kit_store, "one more", 8, &all[1024], &err) == TL_EFULL);
    int64_t id = all[7].producer_id;
    int16_t epoch = tl_producer_epoch(&all[7]);
    tl_producer old = all[7];
    tl_producer_close(&all[7]);
    tl_producer more = kit_open_name("one more");
    CHECK(more.row == old.row && tl_producer_is_fenced(&old));
    tl_producer_close(&all[8]);
    tl_producer seven = kit_open_name("name-7");
    CHECK(seven.producer_id == id && tl_producer_epoch(&seven) > epoch);
    kit_leave();
}

int main(void) {
    kit_install();
    kit_directory(kit_base, "names");
    test_durable();
    test_names();
    test_epochs_end();
    test_many_names();
    CHECK(kit_straight > 0);
    kit_remove(AT_FDCWD, kit_base);
    return check_report();
}
