/* Is a committed transaction kept when the opener of a new boot cannot recover one of its partitions?
 *
 * Imports transactions_kit.h, transacting.h. A process is killed when it has decided to commit and nothing has followed from
 * that. The next opener, on another boot, cannot open the files of one partition. As long as that is so nobody gets in, and
 * the decision stays where it is. Then the files are there again, or somebody takes the records away: that part is aborted,
 * the offset stays, and all else can be used. */
#define _GNU_SOURCE
#include "../../native/src/transacting.h"
#include "transactions_kit.h"

#include <errno.h>
#include <sys/prctl.h>

enum { BEFORE = 1, COMMITTED, AFTERWARDS, READ_UP_TO = 7, GONE = 1 };

static char path[200];

static void die(const char *name) {
    if (strcmp(name, "txn.committing") == 0)
        raise(SIGKILL);
}

/* `parts`: how many partitions the transaction goes to, from the first on. */
static void commit_and_die(bool with_the_gone) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        kit k;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(30);
        kit_enter(&k, path, 1 << 20, false);
        for (int i = 0; i < KIT_PARTITIONS; i++)
            kit_send(k.partitions[i], NULL, BEFORE);
        MUST(tl_store_sync(k.store, &kit_error));
        tl_producer producer = kit_producer(&k, "till");
        kit_claim(&k);
        tl_transaction transaction = kit_begin(&producer);
        for (int i = 0; i < KIT_PARTITIONS; i++)
            if (i != GONE || with_the_gone)
                kit_send(k.partitions[i], &transaction, COMMITTED);
        MUST(tl_transaction_offset(&transaction, k.offset_slot, k.store->me, k.lease_epoch, READ_UP_TO, &kit_error));
        tl_point_hook = die;
        MUST(tl_transaction_commit(&transaction, true, &kit_error));
        _exit(1);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    kit_boot++;
}

static int refuse_one(int dir, const char *name, int flags, unsigned mode) {
    if (strncmp(name, "orders-1/", 9) == 0 && strstr(name, ".log") != NULL)
        return -EACCES;
    return tl_io_posix.open(dir, name, flags, mode);
}

static bool exists(const char *name) {
    char full[512];
    snprintf(full, sizeof full, "%s/%s", path, name);
    return access(full, F_OK) == 0;
}

/* What the opener is told: what it is about, where, why, and what to do when it stays so. */
static void check_refused(void) {
    const tl_store_options options = {.flush_interval_ms = 1000, .lock_timeout_ms = 3000, .no_housekeeper = true};
    for (int tries = 0; tries < 3; tries++) {
        tl_store *store = NULL;
        tl_error err = {0};
        int state = 0, status = tl_store_open(path, &options, &store, &state, NULL, &err);
        if (status != TL_EIO)
            REFUSE("opening says %s, %s", tl_status_name(status), status < 0 ? err.what : "");
        CHECK(strstr(err.what, "a committed transaction has a part in") != NULL && strcmp(err.path, "orders-1") == 0);
        CHECK(err.sys_errno == EACCES && strstr(err.detail, "rename " TL_TXN_FILE) != NULL);
        CHECK(exists(TL_TXN_FILE));
    }
}

static void go_on(kit *k) {
    tl_producer producer = kit_producer(k, "till");
    tl_transaction transaction = kit_begin(&producer);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        kit_send(k->partitions[i], &transaction, AFTERWARDS);
    MUST(tl_transaction_commit(&transaction, true, &kit_error));
    for (int i = 0; i < KIT_PARTITIONS; i++)
        CHECK(kit_sees(k->partitions[i], BEFORE) && kit_sees(k->partitions[i], AFTERWARDS));
    CHECK(kit_is_stable(k) && kit_check(k) == 0);
    tl_producer_close(&producer);
}

static void check_it_is_there_again(void) {
    kit k;
    kit_directory(path, "txn-awaited");
    commit_and_die(true);
    tl_os_table.open = refuse_one;
    check_refused();
    kit_boot++; /* and the power goes meanwhile */
    check_refused();
    tl_os_table.open = tl_io_posix.open;
    kit_enter(&k, path, 1 << 20, false);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        CHECK(kit_sees(k.partitions[i], COMMITTED));
    CHECK(kit_committed(&k) == READ_UP_TO);
    go_on(&k);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

static void move_records(void) {
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/" TL_TXN_FILE, path);
    snprintf(to, sizeof to, "%s/" TL_TXN_FILE ".aside", path);
    CHECK(rename(from, to) == 0);
}

/* The way out for somebody who has to go on without the partition. */
static void check_records_are_taken_away(void) {
    kit k;
    kit_directory(path, "txn-awaited");
    commit_and_die(true);
    tl_os_table.open = refuse_one;
    check_refused();
    move_records();
    kit_enter(&k, path, 1 << 20, false);
    CHECK((k.partitions[GONE]->hot->failed & TL_UNRECOVERED) != 0 && kit_committed(&k) == TL_OFFSETS_NONE);
    kit_send(k.partitions[0], NULL, AFTERWARDS);
    CHECK(kit_sees(k.partitions[0], BEFORE) && kit_sees(k.partitions[0], AFTERWARDS));
    CHECK(kit_try_send(k.partitions[GONE], NULL, AFTERWARDS, 1, NULL) == TL_EFAILED);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        tl_partition_release(k.partitions[i]);
    CHECK(tl_store_close(k.store, &kit_error) <= TL_OK);
    tl_store_free(k.store);
    tl_os_table.open = tl_io_posix.open;
    kit_enter(&k, path, 1 << 20, false);
    CHECK(!kit_sees(k.partitions[GONE], COMMITTED) && kit_sees(k.partitions[GONE], BEFORE));
    CHECK(kit_committed(&k) == TL_OFFSETS_NONE);
    go_on(&k);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

/* A transaction that has no part there keeps nobody out. */
static void check_others_go_on(void) {
    kit k;
    kit_directory(path, "txn-awaited");
    commit_and_die(false);
    tl_os_table.open = refuse_one;
    kit_enter(&k, path, 1 << 20, false);
    CHECK(kit_sees(k.partitions[0], COMMITTED) && kit_sees(k.partitions[2], COMMITTED) && kit_committed(&k) == READ_UP_TO);
    for (int i = 0; i < KIT_PARTITIONS; i++)
        tl_partition_release(k.partitions[i]);
    CHECK(tl_store_close(k.store, &kit_error) <= TL_OK);
    tl_store_free(k.store);
    tl_os_table.open = tl_io_posix.open;
    kit_enter(&k, path, 1 << 20, false);
    CHECK(kit_sees(k.partitions[GONE], BEFORE) && kit_committed(&k) == READ_UP_TO);
    go_on(&k);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

int main(void) {
    kit_install();
    check_it_is_there_again();
    check_records_are_taken_away();
    check_others_go_on();
    return check_report();
}
