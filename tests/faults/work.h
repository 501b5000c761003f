/* Which kinds of work are done while calls fail, and what may each step of them answer?
 *
 * Imports fault_table.h. Single-threaded; one run per process. */
#ifndef TIDELOG_TEST_WORK_H
#define TIDELOG_TEST_WORK_H

#include "fault_table.h"

typedef struct work {
    const char *name;
    uint32_t segment_bytes;
    void (*before)(void);               /* without faults; the store is open unless this closes it */
    void (*act)(void);                  /* with faults */
} work;

typedef struct run_state {
    char path[260];
    tl_store *store;
    tl_partition *partition;
    uint32_t slot, other_slot;
    bool created, other_created, create_in_doubt, other_in_doubt, drop_in_doubt;
    uint32_t segment_bytes;
    kit_ledger ledger;
    int64_t committed, commit_in_doubt; /* -1: none */
    bool checkpoint_failed;             /* a sync of the checkpoint failed: no change is taken until all have closed */
    bool partition_failed;              /* a sync of the partition failed: it stays so, in this boot at least */
    int64_t opens;
    uint32_t unrecovered;               /* partitions that recovery gave up until the store is opened again */
    pid_t holder;
    int holder_pipe;
} run_state;

static run_state run;

/* --- one step --- */

/* What a full disk must not stop: offsets, checkpoints and the space of what is there were allocated before. */
static bool needs_no_space(const char *name) {
    static const char *const names[] = {"sync offsets", "trim", "read", "read_at", "find", "check", "describe", "drop",
                                        "housekeep", "store sync", "sync", "metadata", "close"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        found |= strcmp(name, names[i]) == 0;
    return found;
}

/* Every failure is typed and says what and where; no sync that failed is called a success. */
static int step(const char *name, int status, const tl_error *err) {
    uint32_t fired = fault.fired_calls;
    fault.fired_calls = 0;
    if (status >= 0 && run.unrecovered == 0) {
        if ((fired & (B(FDATASYNC) | B(FSYNC))) != 0)
            REFUSE("%s succeeded although %s failed in it", name, fault.last);
    }
    if (status >= 0)
        return status;
    if (err->code != status || err->what == NULL || err->what[0] == 0)
        REFUSE("%s answered %s, but the error says %s: %s", name, tl_status_name(status), tl_status_name(err->code),
               err->what == NULL ? "nothing" : err->what);
    if (fired == 0 && fault.fired == 0)
        REFUSE("%s failed without a fault: %s, %s, %s", name, tl_status_name(status), err->what, err->path);
    if (strcmp(fault.kind->name, "full") == 0 && needs_no_space(name))
        REFUSE("%s needs space on a full disk: %s, %s (%s)", name, err->what, err->path, fault.last);
    bool from_system = status == TL_EIO || status == TL_ENOSPC || (status == TL_ENOMEM && (fired & B(HEAP)) == 0);
    if (from_system && fired != 0 && err->path[0] == 0)
        REFUSE("%s: the error names no file: %s (%s)", name, err->what, fault.last);
    if (from_system && fired != 0 && err->sys_errno != fault.kind->number && err->sys_errno != fault.number)
        REFUSE("%s: errno %d became %d: %s, %s (%s)", name, fault.number, err->sys_errno, err->what, err->path,
               fault.last);
    if ((fired & B(HEAP)) != 0 && status != TL_ENOMEM)
        REFUSE("%s: a lack of memory became %s: %s, %s", name, tl_status_name(status), err->what, err->path);
    static const int wanted[] = {TL_EIO, TL_ENOSPC, TL_ENOMEM, TL_EFAILED, TL_EBUS, TL_ELOCKED, TL_EAGAIN, TL_ETIMEOUT};
    bool typed = false;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        typed |= status == wanted[i];
    if (!typed)
        REFUSE("%s: %s is not what a failing system is: %s, %s (%s)", name, tl_status_name(status), err->what,
               err->path, fault.last);
    if ((fault.kind->number == ENOSPC || fault.kind->number == EDQUOT) && status == TL_EIO && fault.number != EFAULT)
        REFUSE("%s: a full disk became %s: %s, %s (%s)", name, tl_status_name(status), err->what, err->path, fault.last);
    if (status == TL_EFAILED && run.unrecovered == 0)
        *(strstr(err->path, "checkpoint") == NULL && strstr(err->what, "checkpoint") == NULL ? &run.partition_failed
                                                                                             : &run.checkpoint_failed) = true;
    return status;
}

#define STEP(name, call) step(name, (err.what = NULL, (call)), &err)

static bool have_store(void) {
    tl_error err = {0};
    for (int tries = 0; run.store == NULL && tries < 2; tries++) {
        tl_store *store = NULL;
        tl_recovery recovery;
        run.unrecovered = 0;
        int status = kit_open(run.path, &store, &recovery, &err);
        run.unrecovered = status == TL_OK ? recovery.failed_partitions : 0;
        if (step("open", status, &err) < 0)
            continue;
        run.opens++;
        if (STEP("ready", tl_store_ready(store, &err)) < 0) {
            (void)STEP("close", tl_store_close(store, &err));
            tl_store_free(store);
            continue;
        }
        run.store = store;
    }
    return run.store != NULL;
}

static bool have_partition(void) {
    tl_error err = {0};
    if (!have_store())
        return false;
    for (int tries = 0; !run.created && tries < 2; tries++) {
        run.create_in_doubt = true;
        run.created = STEP("create", kit_create(run.store, 0, run.segment_bytes, &run.slot, &err)) == TL_OK;
    }
    if (run.created && run.partition == NULL)
        (void)STEP("handle", tl_store_partition(run.store, run.slot, kit_channel, &run.partition, &err));
    return run.partition != NULL;
}

static void put(size_t count, unsigned flags) {
    tl_error err = {0};
    tl_appended out;
    if (have_partition())
        (void)STEP("append", kit_append(run.partition, &run.ledger, count, flags, &out, &err));
}

static void leave(void) {
    tl_error err = {0};
    tl_partition_release(run.partition);
    run.partition = NULL;
    if (run.store == NULL)
        return;
    (void)STEP("close", tl_store_close(run.store, &err));
    tl_store_free(run.store);
    run.store = NULL;
}

/* --- kinds of work --- */

static void nothing(void) {}

static void do_create(void) {
    for (int i = 0; i < 3; i++)
        put(1, 0);
}

static void do_batches(void) {
    for (int i = 0; i < 8; i++)
        put(i % 4 == 3 ? 1 : KIT_BATCH, 0);
}

static void do_through_file(void) {
    for (int i = 0; i < 6; i++)
        put(i % 3 == 2 ? 1 : KIT_BATCH, TL_APPEND_THROUGH_FILE);
}

static void do_sync(void) {
    tl_error err = {0};
    for (int i = 0; i < 4; i++) {
        put(i == 2 ? KIT_BATCH : 2, i == 1 ? TL_APPEND_THROUGH_FILE : 0);
        if (run.partition == NULL)
            continue;
        bool was_failed = run.partition_failed;
        int status = STEP("sync", tl_partition_sync(run.partition, tl_partition_tail(run.partition), 200000000, &err));
        if (was_failed && status != TL_EFAILED)
            REFUSE("a sync answered %s after one had failed", tl_status_name(status));
    }
}

static void do_housekeep(void) {
    tl_error err = {0};
    for (int i = 0; i < 3 && have_partition(); i++) {
        put(KIT_BATCH, 0);
        (void)STEP("housekeep", tl_store_housekeep(run.store, &err));
        (void)STEP("store sync", tl_store_sync(run.store, &err));
    }
}

static void commit(int64_t offset) {
    tl_error err = {0};
    uint32_t slot = 0, epoch = 0, owner = tl_store_owner(run.store);
    if (STEP("slot", tl_store_offset_slot(run.store, "group", 5, kit_channel, 0, true, &slot, &err)) < 0)
        return;
    tl_offsets *table = tl_store_offsets(run.store);
    tl_offset_word word;
    CHECK(tl_offsets_read(table, slot, &word, NULL) == TL_OK);
    CHECK(tl_offsets_claim(table, slot, word, owner, &epoch) == TL_OK);
    CHECK(tl_offsets_commit(table, slot, owner, epoch, offset, 5) == TL_OK);
    run.committed = offset;
    (void)STEP("metadata", tl_offsets_set_metadata(table, slot, "a text of a consumer", (size_t)(offset % 20), &err));
}

static void do_commit(void) {
    tl_error err = {0};
    for (int i = 1; i < 4 && have_partition(); i++) {
        commit(i * 2);
        (void)STEP("sync offsets", tl_store_sync_offsets(run.store, &err));
    }
    for (int i = 0; i < 4 && run.store != NULL; i++) { /* more groups: the table grows */
        char name[400];
        uint32_t slot = 0;
        memset(name, 'a' + i, sizeof name);
        (void)STEP("slot", tl_store_offset_slot(run.store, name, 300, kit_channel, (uint32_t)i, true, &slot, &err));
    }
}

static void do_trim(void) {
    tl_error err = {0};
    static const int64_t befores[] = {40, 90, 160, 161};
    for (size_t i = 0; i < 4 && have_partition(); i++) {
        int64_t before = i == 2 && run.ledger.count > 0 ? run.ledger.entries[run.ledger.count - 1].offset + 1
            : befores[i];
        if (before <= run.ledger.start)
            continue;
        /* Trimming all begins a new segment, which takes space. */
        if (STEP(i == 2 ? "trim all" : "trim", tl_partition_trim(run.partition, before, &err)) == TL_OK)
            run.ledger.start = before;
        else
            run.ledger.doubts[run.ledger.doubt_count++] = before;
        put(i == 1 ? KIT_BATCH : 1, 0);
    }
}

static void do_drop(void) {
    tl_error err = {0};
    bool alive = false;
    for (int i = 0; i < 3 && have_partition(); i++) {
        run.other_in_doubt = true;
        if (!alive && STEP("create other", kit_create(run.store, 1, 4096, &run.other_slot, &err)) < 0)
            continue;
        alive = true;
        tl_partition *other = NULL;
        tl_appended out;
        kit_ledger spare = {0};
        if (STEP("handle", tl_store_partition(run.store, run.other_slot, kit_channel, &other, &err)) == TL_OK)
            for (int k = 0; k < 3; k++)
                (void)STEP("append other", kit_append(other, &spare, KIT_BATCH, 0, &out, &err));
        free(spare.entries);
        int status = STEP("drop", tl_store_drop_partitions(run.store, &run.other_slot, 1, &err));
        alive = status < 0 && status != TL_EFAILED; /* refused: it lives on */
        tl_partition_release(other);
    }
    put(2, 0);
}

static void do_close(void) {
    leave();
    put(1, 0);
}

static void do_open(void) {
    (void)have_partition();
    put(3, 0);
    put(KIT_BATCH, 0);
}

static void do_read(void) {
    tl_error err = {0};
    tl_chunk chunk = {0};
    for (int round = 0; round < 3 && have_partition(); round++) {
        tl_cursor cursor = {.offset = round * 40};
        tl_read_end end;
        tl_chunk_clear(&chunk);
        if (STEP("read", tl_partition_read(run.partition, &cursor, &chunk, 1000, 1 << 20, 0, &end, &err)) == TL_OK)
            for (size_t i = 0; i < chunk.count; i++)
                if (!kit_is(&chunk, &chunk.records[i], run.ledger.entries[chunk.records[i].offset].number))
                    REFUSE("a wrong message was read at %lld", (long long)chunk.records[i].offset);
        const int64_t offsets[] = {3, 150, 77, 4}, times[] = {0, 1050, 1155, 99999};
        int64_t found[4];
        size_t failed;
        tl_chunk_clear(&chunk);
        if (STEP("read_at", tl_partition_read_at(run.partition, offsets, 4, &chunk, 0, NULL, NULL, &failed,
                                                 &err)) == TL_OK)
            for (size_t i = 0; i < 4; i++)
                if (!kit_is(&chunk, &chunk.records[i], run.ledger.entries[offsets[i]].number))
                    REFUSE("a wrong message was read at %lld", (long long)offsets[i]);
        if (STEP("find", tl_partition_find(run.partition, times, 4, found, NULL, NULL, &err)) == TL_OK)
            for (size_t i = 0; i < 4; i++) {
                size_t at = 0;
                while (at < run.ledger.count && 1000 + (int64_t)run.ledger.entries[at].number < times[i])
                    at++;
                int64_t wanted = at < run.ledger.count ? run.ledger.entries[at].offset
                    : run.ledger.entries[at - 1].offset + 1;
                if (found[i] != wanted)
                    REFUSE("time %lld was found at %lld, not at %lld", (long long)times[i], (long long)found[i],
                           (long long)wanted);
            }
        const tl_check_report report = {0};
        tl_partition_info info;
        (void)STEP("check", tl_partition_check(run.partition, &report, &err));
        (void)STEP("describe", tl_partition_describe(run.partition, &info, &err));
        if (round == 1) {
            tl_partition_release(run.partition);
            run.partition = NULL;
        }
    }
    tl_chunk_free(&chunk);
}

/* --- what stands before the work --- */

static void fill(void) {
    for (int i = 0; i < 6; i++)
        put(KIT_BATCH, 0);
    commit(7);
}

static void fill_and_close(void) {
    fill();
    leave();
}

/* Another process appends and dies; what it wrote is known here too, because numbers and offsets are. */
static void killed_elsewhere(bool mid_append) {
    leave();
    pid_t child = fork();
    CHECK(child >= 0);
    size_t from = run.ledger.count;
    if (child == 0) {
        fault.fired = 1; /* nothing fails here, but a child reports by dying */
        put(KIT_BATCH, 0);
        put(5, 0);
        commit(9);
        if (mid_append) {
            setenv("TL_CRASH", "append.copied:1", 1);
            tl_point_hook = NULL;
        }
        raise(SIGKILL);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int64_t offset = from == 0 ? 0 : run.ledger.entries[from - 1].offset + 1;
    for (int i = 0; i < KIT_BATCH + 5; i++)
        kit_note(&run.ledger, offset + i, kit_next_number++);
    run.committed = 9;
}

static void before_same_boot(void) {
    fill();
    killed_elsewhere(false);
}

static void before_new_boot(void) {
    before_same_boot();
    kit_boot++;
    run.committed = 7; /* what was only written may be gone with the machine: 9 is not promised */
    run.commit_in_doubt = 9;
}

static void before_clean_boot(void) {
    fill_and_close();
    kit_boot++;
}

/* Somebody else has the store open all the while. */
static void before_join(void) {
    fill_and_close();
    int ready[2], stop[2];
    CHECK(pipe(ready) == 0 && pipe(stop) == 0);
    run.holder = fork();
    CHECK(run.holder >= 0);
    if (run.holder == 0) {
        close(stop[1]);
        char byte = 1;
        bool open = have_partition();
        if (!open || write(ready[1], &byte, 1) != 1)
            _exit(1);
        (void)!read(stop[0], &byte, 1);
        _exit(0);
    }
    char byte = 0;
    close(stop[0]);
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        REFUSE("the other process could not open the store");
    close(ready[0]);
    run.holder_pipe = stop[1];
}

static const work works[] = {
    {"create", 65536, NULL, do_create},
    {"batches", 8192, nothing, do_batches},
    {"through-file", 8192, nothing, do_through_file},
    {"sync", 8192, nothing, do_sync},
    {"housekeep", 8192, nothing, do_housekeep},
    {"commit", 65536, nothing, do_commit},
    {"trim", 8192, fill, do_trim},
    {"drop", 65536, nothing, do_drop},
    {"close", 8192, fill, do_close},
    {"reopen-clean", 8192, fill_and_close, do_open},
    {"reopen-clean-boot", 8192, before_clean_boot, do_open},
    {"reopen-same-boot", 8192, before_same_boot, do_open},
    {"reopen-new-boot", 8192, before_new_boot, do_open},
    {"join", 8192, before_join, do_open},
    {"read", 8192, fill, do_read},
};
enum { WORKS = sizeof works / sizeof *works };

#endif
