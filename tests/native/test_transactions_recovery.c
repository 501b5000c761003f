/* timeout_s: 240
 *
 * Are transactions all or nothing when whoever works on them is killed, at any point?
 *
 * Imports transactions_kit.h, transacting.h. A child runs one transaction and kills itself at its nth point; n goes up until it
 * gets through. Then somebody else ends what is left: beside it, after the death of all, or on another boot. */
#define _GNU_SOURCE
#include "transactions_kit.h"

#include "../../native/src/transacting.h"

#include <errno.h>
#include <sys/mman.h>

enum aftermath { BESIDE, ALL_DEAD, NEW_BOOT };

/* What the child tells: shared with it. */
typedef struct told {
    int stage; /* 1: commit or abort was called, 2: it was answered */
    int status;
} told;
static told *child;
static long hits, kill_at; /* 0: never */
static const char *kill_name;
static const char *count_from; /* points count from the one of this name on; NULL: all do */

static void kill_self(const char *name) {
    if (count_from != NULL && strcmp(name, count_from) == 0)
        count_from = NULL;
    if (count_from != NULL && kill_name == NULL)
        return;
    if (kill_name != NULL ? strcmp(name, kill_name) == 0 && ++hits == kill_at : kill_at > 0 && ++hits == kill_at)
        raise(SIGKILL);
}

static char path[200];

/* In the child: one message and a batch of two in each partition, an offset. Never returns. */
static void run_transaction(uint64_t number, bool commit, bool synced) {
    kit k;
    kit_enter(&k, path, 4096, false);
    tl_producer producer = kit_producer(&k, "till");
    kit_claim(&k);
    tl_point_hook = kill_self;
    tl_transaction transaction = kit_begin(&producer);
    for (uint32_t i = 0; i < KIT_PARTITIONS; i++) {
        MUST(kit_try_send(k.partitions[i], &transaction, number + 3 * i, 1, NULL));
        MUST(kit_try_send(k.partitions[i], &transaction, number + 3 * i + 1, 2, NULL));
    }
    MUST(tl_transaction_offset(&transaction, k.offset_slot, k.store->me, k.lease_epoch, (int64_t)number, &kit_error));
    child->stage = 1;
    child->status = commit ? tl_transaction_commit(&transaction, synced, &kit_error) : tl_transaction_abort(&transaction, &kit_error);
    child->stage = 2;
    tl_point_hook = NULL;
    raise(SIGKILL); /* nothing is closed */
}

/* In the child: ends what somebody left. */
static void run_finisher(void) {
    kit k;
    tl_point_hook = kill_self;
    kit_enter(&k, path, 4096, false);
    (void)tl_transactions_sweep(k.store, &kit_error);
    child->stage = 2;
    tl_point_hook = NULL;
    raise(SIGKILL);
}

static void fork_and_wait(void (*run)(void), const char *name, long nth) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(30);
        hits = 0;
        kill_at = nth;
        kill_name = name;
        run();
        _exit(9);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        REFUSE("the child ended with %x instead of being killed (kill at %s %ld)", (unsigned)status, name == NULL ? "point" : name, nth);
}

static uint64_t next_number = 1000;
static bool child_commits, child_synced;
static void child_transaction(void) { run_transaction(next_number, child_commits, child_synced); }

/* How many messages of the child's transaction a reader sees; REFUSEs a part of them. */
static bool all_or_nothing(kit *k, const char *when) {
    static uint64_t seen[KIT_MOST];
    size_t count = 0;
    for (uint32_t i = 0; i < KIT_PARTITIONS; i++) {
        size_t got = kit_read(k->partitions[i], 0, seen);
        for (size_t at = 0; at < got; at++)
            count += seen[at] >= next_number && seen[at] < next_number + 3 * KIT_PARTITIONS;
    }
    if (count != 0 && count != 3 * KIT_PARTITIONS)
        REFUSE("%s: %zu of %d messages are visible", when, count, 3 * KIT_PARTITIONS);
    bool moved = kit_committed(k) == (int64_t)next_number;
    if (moved != (count > 0))
        REFUSE("%s: %zu messages are visible, the committed offset is %lld", when, count, (long long)kit_committed(k));
    return count > 0;
}

static void say(const char *what, long points) {
    static int64_t last;
    int64_t now = tl_io_posix.monotonic_ns();
    if (getenv("KIT_SHOW") != NULL)
        fprintf(stderr, "%s: %ld points, %.1f s\n", what, points, last == 0 ? 0.0 : (double)(now - last) / 1e9);
    last = now;
}

/* After whatever happened: all or nothing, nothing is open, and the next one works. */
static void verify(kit *k, bool commit, const char *when) {
    bool visible = all_or_nothing(k, when);
    if (child->stage == 2 && child->status == TL_OK && visible != commit)
        REFUSE("%s: it was answered, and what is visible is the contrary", when);
    if (visible && (!commit || child->stage < 1))
        REFUSE("%s: messages are visible that were not committed", when);
    if (!kit_is_stable(k) || k->store->header->unfinished != 0)
        REFUSE("%s: something stays open", when);
    next_number += 100;
    kit_send(k->partitions[0], NULL, next_number);
    CHECK(kit_sees(k->partitions[0], next_number));
    next_number += 100;
    tl_producer producer = kit_producer(k, "till");
    kit_claim(k);
    tl_transaction transaction = kit_begin(&producer);
    for (uint32_t i = 0; i < KIT_PARTITIONS; i++)
        kit_send(k->partitions[i], &transaction, next_number + i);
    MUST(tl_transaction_offset(&transaction, k->offset_slot, k->store->me, k->lease_epoch, (int64_t)next_number, &kit_error));
    MUST(tl_transaction_commit(&transaction, false, &kit_error));
    for (uint32_t i = 0; i < KIT_PARTITIONS; i++)
        CHECK(kit_sees(k->partitions[i], next_number + i));
    CHECK(kit_committed(k) == (int64_t)next_number && kit_is_stable(k));
    if (kit_check(k) != 0)
        REFUSE("%s: check finds %d places wrong", when, kit_findings);
    tl_producer_close(&producer);
    next_number += 100;
}

/* The log does not have to grow for ever. */
static void trim_all(kit *k) {
    for (int i = 0; i < KIT_PARTITIONS; i++) {
        tl_bounds bounds;
        MUST(tl_partition_bounds(k->partitions[i], &bounds, &kit_error));
        MUST(tl_partition_trim(k->partitions[i], bounds.log_end, &kit_error));
    }
}

/* Kills the transaction at each point that it passes. */
static void kill_everywhere(bool commit, bool synced, enum aftermath after, long step) {
    kit k;
    kit_directory(path, "txn-kills");
    kit_enter(&k, path, 4096, false);
    if (after != BESIDE)
        kit_leave(&k);
    child_commits = commit;
    child_synced = synced;
    bool through = false;
    long nth = 1;
    for (; !through; nth += step) {
        char when[120];
        snprintf(when, sizeof when, "%s%s, aftermath %d, killed at point %ld", synced ? "synced " : "", commit ? "commit" : "abort",
                 (int)after, nth);
        *child = (told){0, 0};
        fork_and_wait(child_transaction, NULL, nth);
        through = child->stage == 2;
        if (after == NEW_BOOT)
            kit_boot++;
        if (after != BESIDE)
            kit_enter(&k, path, 4096, false);
        MUST(tl_transactions_sweep(k.store, &kit_error));
        verify(&k, commit, when);
        if (nth % 40 < step)
            trim_all(&k);
        if (after != BESIDE)
            kit_leave(&k);
    }
    CHECK(nth > (step > 1 ? 20 : 60));
    say("killed everywhere", nth);
    if (after == BESIDE)
        kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

/* The owner dies when it has decided; whoever finishes (or recovers) is killed at each of its points, and then another one. */
static void kill_finishers(bool commit, bool synced, enum aftermath after, long step) {
    kit k;
    kit_directory(path, "txn-finish");
    kit_enter(&k, path, 4096, false);
    if (after != BESIDE)
        kit_leave(&k);
    child_commits = commit;
    child_synced = synced;
    bool through = false;
    for (long nth = 1; !through; nth += step) {
        char when[120];
        snprintf(when, sizeof when, "%s%s, aftermath %d, finisher killed at point %ld", synced ? "synced " : "",
                 commit ? "commit" : "abort", (int)after, nth);
        *child = (told){0, 0};
        fork_and_wait(child_transaction, commit ? "txn.committing" : "txn.aborting", 1);
        if (after == NEW_BOOT)
            kit_boot++;
        count_from = after == BESIDE ? NULL : "txn.recovering";
        fork_and_wait(run_finisher, NULL, nth);
        count_from = NULL;
        through = child->stage == 2;
        child->stage = 1;
        if (after != BESIDE)
            kit_enter(&k, path, 4096, false);
        MUST(tl_transactions_sweep(k.store, &kit_error));
        if (all_or_nothing(&k, when) != commit)
            REFUSE("%s: it was decided, and what is visible is the contrary", when);
        verify(&k, commit, when);
        if (nth % 20 < step)
            trim_all(&k);
        if (after != BESIDE)
            kit_leave(&k);
        if (through)
            say("finishers killed", nth);
    }
    if (after == BESIDE)
        kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

/* Whoever takes the lease of a dead owner that had decided reads the offset it decided on. */
static void check_taker(bool synced) {
    kit k;
    kit_directory(path, "txn-taker");
    kit_enter(&k, path, 1 << 20, false);
    child_commits = true;
    child_synced = synced;
    *child = (told){0, 0};
    fork_and_wait(child_transaction, "txn.committing", 1);
    CHECK(kit_committed(&k) == TL_OFFSETS_NONE);
    kit_claim(&k);
    CHECK(kit_committed(&k) == (int64_t)next_number);
    MUST(tl_transactions_sweep(k.store, &kit_error));
    verify(&k, true, "taker");
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

/* A reader that waits behind the transaction of a dead owner goes on by itself. */
static void check_waiter(void) {
    kit k;
    kit_directory(path, "txn-waiter");
    kit_enter(&k, path, 1 << 20, false);
    child_commits = true;
    *child = (told){0, 0};
    fork_and_wait(child_transaction, "txn.checked", 1);
    kit_send(k.partitions[1], NULL, 1);
    CHECK(!kit_sees(k.partitions[1], 1));
    uint64_t tail = tl_partition_tail(k.partitions[1]);
    int64_t began = tl_os->monotonic_ns();
    CHECK(tl_store_wait(k.store, &k.partitions[1], &tail, 1, 5000000000, 0, NULL, 0, NULL, &kit_error) == 0);
    CHECK(tl_os->monotonic_ns() - began < 2000000000);
    CHECK(kit_sees(k.partitions[1], 1) && kit_is_stable(&k));
    verify(&k, true, "waiter");
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

static int failing_fd = -1;
static int fail_fdatasync(int fd) { return fd == failing_fd ? -EIO : tl_io_posix.fdatasync(fd); }

/* A sync of the records fails: nobody says that it is committed before it is known to be. */
static void check_failed_sync(void) {
    kit k;
    kit_directory(path, "txn-failed");
    kit_enter(&k, path, 1 << 20, false);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction transaction = kit_begin(&producer);
    kit_send(k.partitions[0], &transaction, 1);
    failing_fd = k.store->records_fd;
    tl_os_table.fdatasync = fail_fdatasync;
    CHECK(tl_transaction_commit(&transaction, true, &kit_error) == TL_EFAILED && strcmp(kit_error.path, TL_TXN_FILE) == 0);
    tl_os_table.fdatasync = tl_io_posix.fdatasync;
    kit_later_ns = 1000000000; /* whoever thinks that the owner has stopped */
    CHECK(tl_transactions_sweep(k.store, &kit_error) == TL_EFAILED);
    kit_later_ns = 0;
    CHECK(!kit_sees(k.partitions[0], 1) && !kit_is_stable(&k));
    CHECK(tl_transaction_begin(&producer, 1000, &transaction, &kit_error) == TL_EFAILED);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        tl_partition_release(k.partitions[i]);
    CHECK(tl_store_close(k.store, &kit_error) == TL_EFAILED);
    tl_store_free(k.store);
    kit_enter(&k, path, 1 << 20, false);
    CHECK(kit_sees(k.partitions[0], 1) && kit_is_stable(&k) && kit_check(&k) == 0);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

static int full_fallocate(int fd, uint64_t from, uint64_t bytes) {
    return fd == failing_fd ? -ENOSPC : tl_io_posix.fallocate(fd, from, bytes);
}

/* The disk is full when all records are in use: they are freed by what frees them anyway. */
static void check_full(void) {
    kit k;
    kit_directory(path, "txn-full");
    kit_enter(&k, path, 1 << 20, false);
    tl_producer producer = kit_producer(&k, "till");
    for (uint64_t i = 0; i < 200; i++) {
        tl_transaction transaction = kit_begin(&producer);
        failing_fd = k.store->records_fd;
        tl_os_table.fallocate = full_fallocate;
        kit_send(k.partitions[0], &transaction, i);
        MUST(tl_transaction_commit(&transaction, true, &kit_error));
    }
    CHECK(k.store->header->transactions == TL_TXN_FIRST_SLOTS);
    tl_os_table.fallocate = tl_io_posix.fallocate;
    CHECK(kit_check(&k) == 0);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

static int no_fallocate(int fd, uint64_t from, uint64_t bytes) {
    (void)fd;
    (void)from;
    (void)bytes;
    return -ENOSPC;
}

/* Outside of any transaction, as a named producer. */
static int send_plainly(kit *k, tl_producer *producer, unsigned flags, uint64_t number) {
    static uint8_t text[KIT_TEXT];
    const tl_message message = kit_message(number, text);
    const tl_producing producing = {.producer = producer, .sequence = -1};
    const tl_append what = {.messages = &message, .count = 1, .producing = &producing};
    tl_appended appended;
    return tl_partition_append(k->partitions[0], &what, flags, &appended, &kit_error);
}

/* There is no room for a marker: what is decided stays so, and is seen when there is. `plainly`: the producer goes on with a
 * message of no transaction. */
static void check_no_room(bool plainly) {
    kit k;
    kit_directory(path, "txn-room");
    kit_enter(&k, path, 4096, false);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction transaction = kit_begin(&producer), next;
    kit_send(k.partitions[1], &transaction, 5000);
    uint64_t number = 0;
    while (tl_place_position(tl_partition_tail(k.partitions[0])) <= 4096 - 78)
        kit_send(k.partitions[0], &transaction, ++number);
    tl_os_table.fallocate = no_fallocate;
    MUST(tl_transaction_commit(&transaction, false, &kit_error));
    CHECK(!kit_sees(k.partitions[0], 1) && kit_sees(k.partitions[1], 5000) && k.store->header->unfinished == 1);
    CHECK(tl_transaction_begin(&producer, 1000, &next, &kit_error) == TL_ENOSPC);
    CHECK(send_plainly(&k, &producer, 0, 6000) == TL_ENOSPC && !kit_sees(k.partitions[0], 1));
    tl_os_table.fallocate = tl_io_posix.fallocate;
    if (plainly) {
        CHECK(send_plainly(&k, &producer, TL_APPEND_TRY, 6000) == TL_EAGAIN);
        MUST(send_plainly(&k, &producer, 0, 6000));
        CHECK(kit_sees(k.partitions[0], 1) && kit_sees(k.partitions[0], 6000) && k.store->header->unfinished == 0);
        transaction = kit_begin(&producer);
        kit_send(k.partitions[0], &transaction, 6001);
        CHECK(send_plainly(&k, &producer, 0, 6002) == TL_ETXNSTATE); /* one that is open is the caller's to end */
        MUST(tl_transaction_abort(&transaction, &kit_error));
    }
    next = kit_begin(&producer); /* finishes it first */
    CHECK(kit_sees(k.partitions[0], 1) && kit_sees(k.partitions[0], number) && k.store->header->unfinished == 1);
    MUST(tl_transaction_abort(&next, &kit_error));
    CHECK(kit_check(&k) == 0 && kit_is_stable(&k));
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

int main(void) {
    kit_install();
    tl_os_table.monotonic_ns = kit_monotonic;
    child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(child != MAP_FAILED);
    check_failed_sync();
    check_full();
    check_no_room(false);
    check_no_room(true);
    check_taker(false);
    check_taker(true);
    check_waiter();
    kill_everywhere(true, false, BESIDE, 1);
    kill_everywhere(true, true, BESIDE, 2);
    kill_everywhere(false, false, BESIDE, 2);
    kill_everywhere(true, true, ALL_DEAD, 3);
    kill_everywhere(true, true, NEW_BOOT, 3);
    kill_everywhere(false, false, NEW_BOOT, 5);
    kill_finishers(true, true, BESIDE, 1);
    kill_finishers(false, false, BESIDE, 2);
    kill_finishers(true, true, ALL_DEAD, 2);
    kill_finishers(true, true, NEW_BOOT, 3);
    kill_finishers(false, false, NEW_BOOT, 4);
    return check_report();
}
