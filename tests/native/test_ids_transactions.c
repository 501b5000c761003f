/* timeout_s: 240
 *
 * Is a message with an id, sent in a transaction whose owner is killed at any point, there once when it is sent again?
 *
 * Imports transactions_kit.h. A child sends two messages with ids in a transaction and kills itself at its nth point; n goes
 * up until it gets through. Then somebody sends both again: outside of transactions, as another producer, or as the next life
 * of the same one; beside the dead, after all have left, or on another boot. Whatever the dead one had decided, what readers
 * see at the end is each message exactly once, and every answer says where. */
#define _GNU_SOURCE
#include "transactions_kit.h"

#include "tidelog/ids.h"

#include <sys/mman.h>

enum { MESSAGES = 2 };
enum resender { PLAIN, OTHER, SAME, RESENDERS };
enum aftermath { BESIDE, ALL_DEAD, NEW_BOOT, AFTERMATHS };
static const char *const resender_names[] = {"nobody", "another producer", "the same producer"};

static char path[200];
static struct told {
    int stage; /* 1: commit or abort was called, 2: it was answered */
} *child;
static uint64_t hits, kill_at;

static void kill_self(const char *name) {
    (void)name;
    if (++hits == kill_at)
        raise(SIGKILL);
}

static void enter(kit *k) {
    kit_enter(k, path, 1 << 16, false);
    __atomic_store_n(&k->partitions[0]->cold->id_age_ms, 600000, __ATOMIC_RELAXED);
    __atomic_store_n(&k->partitions[0]->cold->id_count, 1000, __ATOMIC_RELAXED);
}

typedef struct answer {
    int64_t offset;
    bool duplicate;
} answer;

/* One message whose id is its number; in no transaction, or in this one. */
static answer send_id(kit *k, tl_transaction *transaction, uint64_t number) {
    uint8_t text[KIT_TEXT], block[48];
    tl_partition *partition = k->partitions[0];
    tl_message message = kit_message(number, text);
    char name[16];
    int bytes = snprintf(name, sizeof name, "%llu", (unsigned long long)number);
    block[0] = 2;
    block[1] = 20;
    memcpy(block + 2, "message-id", 10);
    block[12] = (uint8_t)(2 * bytes);
    memcpy(block + 13, name, (size_t)bytes);
    message.headers = block;
    message.headers_bytes = 13 + (uint32_t)bytes;
    tl_message_id id;
    int64_t offset = -1;
    uint8_t duplicate = 9;
    tl_ids_hash(tl_ids_key(partition), name, (size_t)bytes, &id);
    const tl_producing producing = {.producer = transaction == NULL ? NULL : transaction->producer,
                                    .transaction = transaction,
                                    .epoch = transaction == NULL ? 0 : transaction->epoch,
                                    .sequence = -1};
    const tl_append what = {.messages = &message, .count = 1, .producing = transaction == NULL ? NULL : &producing,
                            .ids = &id, .offsets = &offset, .duplicates = &duplicate};
    tl_appended appended;
    int status = TL_EAGAIN;
    if (transaction == NULL && number % 2 == 0) { /* the path of `send` */
        status = tl_partition_append_one_id(partition, &message, &id, -1, &appended, &kit_error);
        offset = appended.base_offset;
        duplicate = (uint8_t)appended.duplicates;
    }
    if (status == TL_EAGAIN)
        MUST(tl_partition_append(partition, &what, 0, &appended, &kit_error));
    CHECK(duplicate <= 1 && offset >= 0);
    return (answer){offset, duplicate == 1};
}

static void run_child(uint64_t number, bool commit) {
    kit k;
    enter(&k);
    tl_producer producer = kit_producer(&k, "till");
    tl_transaction transaction = kit_begin(&producer);
    tl_point_hook = kill_self;
    for (uint64_t i = 0; i < MESSAGES; i++)
        CHECK(!send_id(&k, &transaction, number + i).duplicate);
    child->stage = 1;
    MUST(commit ? tl_transaction_commit(&transaction, false, &kit_error) : tl_transaction_abort(&transaction, &kit_error));
    child->stage = 2;
    tl_point_hook = NULL;
    raise(SIGKILL);
}

/* Where readers see a message; its number must be there once. */
static int64_t place_of(kit *k, uint64_t number, const char *when) {
    int64_t found = -1;
    tl_cursor cursor = {.offset = 0};
    tl_chunk chunk = {0};
    tl_bounds bounds;
    MUST(tl_partition_bounds(k->partitions[0], &bounds, &kit_error));
    cursor.offset = bounds.log_start;
    do {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        MUST(tl_partition_read(k->partitions[0], &cursor, &chunk, 100, 1 << 20, 0, &end, &kit_error));
        for (size_t i = 0; i < chunk.count; i++) {
            if (strtoull((const char *)chunk.bytes + chunk.records[i].value_at + 8, NULL, 10) != number)
                continue;
            if (found >= 0)
                REFUSE("%s: message %llu is there twice", when, (unsigned long long)number);
            found = chunk.records[i].offset;
        }
    } while (chunk.count > 0);
    tl_chunk_free(&chunk);
    if (found < 0)
        REFUSE("%s: message %llu is not there: its repetition was taken for a duplicate", when, (unsigned long long)number);
    return found;
}

static void resend(kit *k, enum resender who, uint64_t number, bool answered, const char *when) {
    answer answers[MESSAGES];
    if (who == PLAIN) {
        for (uint64_t i = 0; i < MESSAGES; i++)
            answers[i] = send_id(k, NULL, number + i);
    } else {
        tl_producer producer = kit_producer(k, who == SAME ? "till" : "other");
        tl_transaction transaction = kit_begin(&producer);
        for (uint64_t i = 0; i < MESSAGES; i++)
            answers[i] = send_id(k, &transaction, number + i);
        MUST(tl_transaction_commit(&transaction, false, &kit_error));
        tl_producer_close(&producer);
    }
    MUST(tl_transactions_sweep(k->store, &kit_error));
    for (uint64_t i = 0; i < MESSAGES; i++) {
        CHECK(answers[i].duplicate == answers[0].duplicate);
        if (answered && !answers[i].duplicate)
            REFUSE("%s: it was committed, and is sent again", when);
        if (place_of(k, number + i, when) != answers[i].offset)
            REFUSE("%s: the answer says another place", when);
        answer again = send_id(k, NULL, number + i);
        CHECK(again.duplicate && again.offset == answers[i].offset);
    }
}

/* At every second point where it tells most, and at a few in the other cases. */
static void check(bool commit, enum resender who, enum aftermath after) {
    kit k;
    static uint64_t number = 1000;
    uint64_t duplicates_possible = 0, step = after != BESIDE ? 29 : commit && who == PLAIN ? 2 : 13;
    kit_directory(path, "ids-txn");
    enter(&k);
    (void)send_id(&k, NULL, 1);
    if (after != BESIDE)
        kit_leave(&k);
    bool through = false;
    for (kill_at = 1 + (uint64_t)who + 3 * (uint64_t)commit; !through; kill_at += step) {
        char when[160];
        snprintf(when, sizeof when, "%s, sent again by %s, aftermath %d, killed at point %llu", commit ? "commit" : "abort",
                 resender_names[who], (int)after, (unsigned long long)kill_at);
        number += 10;
        child->stage = 0;
        fflush(NULL);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            alarm(30);
            hits = 0;
            run_child(number, commit);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            REFUSE("%s: the child ended with %x instead of being killed", when, (unsigned)status);
        through = child->stage == 2;
        duplicates_possible += child->stage == 1;
        if (after == NEW_BOOT)
            kit_boot++;
        if (after != BESIDE)
            enter(&k);
        resend(&k, who, number, through && commit, when);
        CHECK(kit_is_stable(&k) && kit_check(&k) == 0);
        if (after != BESIDE)
            kit_leave(&k);
    }
    CHECK(kill_at > 30 && (after != BESIDE || duplicates_possible > 0));
    if (after == BESIDE)
        kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

int main(void) {
    kit_install();
    child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(child != MAP_FAILED);
    for (int commit = 0; commit < 2; commit++)
        for (int who = 0; who < RESENDERS; who++)
            for (int after = 0; after < AFTERMATHS; after++)
                check(commit != 0, (enum resender)who, (enum aftermath)after);
    munmap(child, sizeof *child);
    return check_report();
}
