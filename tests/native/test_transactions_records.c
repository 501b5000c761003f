/* What does the next opener make of a store whose records of transactions are damaged or gone?
 *
 * Imports the core, check.h, transactions_kit.h. A process commits one transaction, has another one open, and is killed; then
 * the file is changed, and somebody opens the store: on the same boot, or on another one. What had ended stays as it was,
 * what was open is aborted, and the name that had it open can go on. */
#define _POSIX_C_SOURCE 200809L

#include "../../native/src/transacting.h"
#include "transactions_kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static char path[200];

enum { ENDED = 1, LEFT_OPEN, BESIDE_THEM, AFTERWARDS };

static void leave_one_open(void) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        kit k;
        kit_enter(&k, path, 1 << 20, false);
        tl_producer producer = kit_producer(&k, "till");
        tl_transaction transaction = kit_begin(&producer);
        for (int i = 0; i < KIT_PARTITIONS; i++)
            kit_send(k.partitions[i], &transaction, ENDED);
        MUST(tl_transaction_commit(&transaction, true, &kit_error));
        transaction = kit_begin(&producer);
        for (int i = 0; i < KIT_PARTITIONS; i++) {
            kit_send(k.partitions[i], &transaction, LEFT_OPEN);
            kit_send(k.partitions[i], NULL, BESIDE_THEM);
        }
        MUST(tl_store_sync(k.store, &kit_error));
        (void)kill(getpid(), SIGKILL);
        _exit(1);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static bool exists(const char *name) {
    char full[512];
    snprintf(full, sizeof full, "%s/%s", path, name);
    return access(full, F_OK) == 0;
}

/* `position` -1: the file is removed. */
static void damage(int position) {
    char full[512];
    snprintf(full, sizeof full, "%s/" TL_TXN_FILE, path);
    if (position < 0) {
        CHECK(unlink(full) == 0);
        return;
    }
    FILE *file = fopen(full, "r+b");
    CHECK(file != NULL && fseek(file, position, SEEK_SET) == 0);
    int byte = fgetc(file);
    CHECK(byte != EOF && fseek(file, position, SEEK_SET) == 0 && fputc(byte ^ 0xff, file) != EOF && fclose(file) == 0);
}

static void verify(kit *k) {
    CHECK(kit_is_stable(k) && kit_check(k) == 0);
    for (int i = 0; i < KIT_PARTITIONS; i++) {
        CHECK(kit_sees(k->partitions[i], ENDED) && kit_sees(k->partitions[i], BESIDE_THEM));
        CHECK(!kit_sees(k->partitions[i], LEFT_OPEN));
    }
}

static void check(int position, bool new_boot) {
    kit k;
    kit_directory(path, "txn-records");
    leave_one_open();
    damage(position);
    kit_boot += new_boot;
    kit_enter(&k, path, 1 << 20, false);
    CHECK(exists(TL_TXN_FILE ".torn") == (position >= 0) && !exists(TL_TXN_FILE));
    verify(&k);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction transaction = kit_begin(&producer);
    kit_send(k.partitions[0], &transaction, AFTERWARDS);
    MUST(tl_transaction_commit(&transaction, true, &kit_error));
    CHECK(kit_sees(k.partitions[0], AFTERWARDS));
    tl_producer_close(&producer);
    kit_leave(&k);
    kit_boot++;
    kit_enter(&k, path, 1 << 20, false);
    verify(&k);
    CHECK(kit_sees(k.partitions[0], AFTERWARDS));
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

int main(void) {
    kit_install();
    for (int new_boot = 0; new_boot < 2; new_boot++) {
        check(0, new_boot != 0);                                /* magic */
        check(8, new_boot != 0);                                /* version, and so the CRC */
        check(16, new_boot != 0);                               /* count of slots */
        check((int)offsetof(tl_txn_file, crc), new_boot != 0);
        check(-1, new_boot != 0);
    }
    return check_report();
}
