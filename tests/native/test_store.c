/* Does a store keep what it is given, across rolls, reopening, kills and a new boot?
 *
 * Imports the public headers of the core. Single-threaded; works in a directory of its own under TMPDIR. */
#define _GNU_SOURCE
#include "check.h"
#include "tidelog/log.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[256];
static const uint8_t channel[16] = "0123456789abcdef";

static tl_store *open_store(const char *path, int *state, tl_recovery *recovery) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 5000, .create = true, .no_housekeeper = true};
    tl_store *store = NULL;
    tl_error err = {0};
    int status = tl_store_open(path, &options, &store, state, recovery, &err);
    if (status < 0)
        fprintf(stderr, "open: %s %s %s %d\n", tl_status_name(status), err.what, err.path, err.sys_errno);
    CHECK(status == TL_OK);
    CHECK(tl_store_ready(store, &err) == TL_OK);
    return store;
}

static void close_store(tl_store *store) {
    tl_error err = {0};
    int status = tl_store_close(store, &err);
    if (status < 0)
        fprintf(stderr, "close: %s %s %s %d\n", tl_status_name(status), err.what, err.path, err.sys_errno);
    CHECK(status == TL_OK);
    tl_store_free(store);
}

static uint32_t create_partition(tl_store *store, uint32_t number, uint32_t segment_bytes) {
    tl_partition_config config = {.partition = number,
                                  .segment_bytes = segment_bytes,
                                  .segment_ms = -1,
                                  .retention_ms = -1,
                                  .retention_bytes = -1,
                                  .max_message_bytes = 1 << 20};
    memcpy(config.channel, channel, 16);
    snprintf(config.directory, sizeof config.directory, "orders-%u", number);
    uint32_t slot = 99;
    tl_error err = {0};
    int status = tl_store_create_partitions(store, &config, 1, &slot, &err);
    if (status < 0)
        fprintf(stderr, "create: %s %s %s\n", tl_status_name(status), err.what, err.path);
    CHECK(status == TL_OK);
    return slot;
}

static tl_partition *partition_of(tl_store *store, uint32_t slot) {
    tl_partition *partition = NULL;
    tl_error err = {0};
    CHECK(tl_store_partition(store, slot, channel, &partition, &err) == TL_OK);
    return partition;
}

static void value_of(int64_t offset, char out[64]) {
    int n = snprintf(out, 64, "value-%lld-", (long long)offset);
    memset(out + n, 'x', (size_t)(60 - n));
    out[60] = 0;
}

static void append_some(tl_partition *partition, int64_t from, int64_t count, bool batched, unsigned flags) {
    for (int64_t i = 0; i < count;) {
        char values[64][64];
        tl_message messages[64];
        int64_t take = batched ? (count - i < 64 ? count - i : 64) : 1;
        for (int64_t k = 0; k < take; k++) {
            value_of(from + i + k, values[k]);
            messages[k] = (tl_message){
                .value = (uint8_t *)values[k], .value_bytes = 60, .key_bytes = -1, .timestamp_ms = 1000 + from + i + k};
        }
        tl_appended out;
        tl_error err = {0};
        int status;
        if (batched) {
            const tl_append what = {.messages = messages, .count = (size_t)take};
            status = tl_partition_append(partition, &what, flags, &out, &err);
        } else {
            status = tl_partition_append_one(partition, &messages[0], flags, &out, &err);
        }
        if (status < 0)
            fprintf(stderr, "append: %s %s %s\n", tl_status_name(status), err.what, err.path);
        CHECK(status == TL_OK && out.base_offset == from + i && out.next_offset == from + i + take);
        i += take;
    }
}

/* Offsets [from, until) hold their values; whatever lies elsewhere is a gap. */
static int64_t verify(tl_partition *partition, int64_t from) {
    tl_cursor cursor = {.offset = from};
    tl_chunk chunk = {0};
    tl_error err = {0};
    int64_t seen = 0;
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        int status = tl_partition_read(partition, &cursor, &chunk, 100, 1 << 20, 0, &end, &err);
        if (status < 0)
            fprintf(stderr, "read: %s %s %s %lld\n", tl_status_name(status), err.what, err.path,
                    (long long)err.position);
        CHECK(status == TL_OK);
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++) {
            char want[64];
            value_of(chunk.records[i].offset, want);
            CHECK(chunk.records[i].value_bytes == 60 && memcmp(chunk.bytes + chunk.records[i].value_at, want, 60) == 0);
            seen++;
        }
    }
    tl_chunk_free(&chunk);
    return seen;
}

static void check_clean(tl_partition *partition) {
    tl_error err = {0};
    const tl_check_report report = {0};
    int findings = tl_partition_check(partition, &report, &err);
    if (findings != 0)
        fprintf(stderr, "check: %d %s %s\n", findings, err.what == NULL ? "" : err.what, err.path);
    CHECK(findings == 0);
}

static void test_basic(void) {
    char path[300];
    snprintf(path, sizeof path, "%s/basic", base);
    int state;
    tl_recovery recovery;
    tl_error err = {0};
    tl_store *store = open_store(path, &state, &recovery);
    CHECK(state == TL_STORE_RECOVERED && recovery.created);
    uint32_t slot = create_partition(store, 0, 65536);
    tl_partition *partition = partition_of(store, slot);
    append_some(partition, 0, 5000, false, 0);
    append_some(partition, 5000, 5000, true, 0);
    append_some(partition, 10000, 500, true, TL_APPEND_THROUGH_FILE);
    CHECK(verify(partition, 0) == 10500);
    CHECK(verify(partition, 7777) == 10500 - 7777);
    check_clean(partition);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_OK && bounds.log_start == 0 && bounds.log_end == 10500);
    CHECK(tl_partition_sync(partition, bounds.tail, -1, &err) == TL_OK);
    int64_t offsets[500];
    tl_chunk chunk = {0};
    size_t failed;
    for (int i = 0; i < 500; i++)
        offsets[i] = (i * 7919) % 10500;
    CHECK(tl_partition_read_at(partition, offsets, 500, &chunk, 0, NULL, NULL, &failed, &err) == TL_OK &&
          chunk.count == 500);
    for (int i = 0; i < 500; i++) {
        char want[64];
        value_of(offsets[i], want);
        CHECK(chunk.records[i].offset == offsets[i] && memcmp(chunk.bytes + chunk.records[i].value_at, want, 60) == 0);
    }
    tl_chunk_free(&chunk);
    const int64_t times[] = {0, 1000, 1001, 6000, 11499, 11500, 99999};
    const int64_t wanted[] = {0, 0, 1, 5000, 10499, 10500, 10500};
    int64_t found[7];
    CHECK(tl_partition_find(partition, times, 7, found, NULL, NULL, &err) == TL_OK);
    for (int i = 0; i < 7; i++)
        CHECK(found[i] == wanted[i]);
    CHECK(tl_partition_trim(partition, 3000, &err) == TL_OK);
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_OK && bounds.log_start == 3000);
    CHECK(verify(partition, 3000) == 7500);
    tl_cursor gone = {.offset = 2999};
    tl_read_end end;
    CHECK(tl_partition_read(partition, &gone, &chunk, 1, 1, 0, &end, &err) == TL_ERANGE);
    tl_partition_release(partition);
    close_store(store);

    store = open_store(path, &state, &recovery);
    CHECK(recovery.clean && recovery.partitions == 1);
    partition = partition_of(store, slot);
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_OK && bounds.log_start == 3000 &&
          bounds.log_end == 10500);
    CHECK(verify(partition, 3000) == 7500);
    append_some(partition, 10500, 1000, false, 0);
    CHECK(verify(partition, 3000) == 8500);
    check_clean(partition);
    CHECK(tl_partition_trim(partition, 11500, &err) == TL_OK);
    CHECK(verify(partition, 11500) == 0);
    append_some(partition, 11500, 10, false, 0);
    CHECK(verify(partition, 11500) == 10);
    CHECK(tl_store_housekeep(store, &err) == TL_OK);
    tl_partition_release(partition);
    close_store(store);
    store = open_store(path, &state, &recovery);
    partition = partition_of(store, slot);
    CHECK(verify(partition, 11500) == 10);
    CHECK(tl_store_drop_partitions(store, &slot, 1, &err) == TL_OK);
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_EDROPPED);
    tl_partition_release(partition);
    CHECK(create_partition(store, 0, 65536) != slot);
    close_store(store);
}

static int (*true_identity)(int dir, tl_identity *out);
static uint64_t boot;
static int other_boot(int dir, tl_identity *out) {
    int status = true_identity(dir, out);
    out->boot[0] += boot;
    return status;
}

static void test_kill_and_boot(void) {
    char path[300];
    snprintf(path, sizeof path, "%s/kill", base);
    int state;
    tl_recovery recovery;
    tl_error err = {0};
    tl_store *store = open_store(path, &state, &recovery);
    uint32_t slot = create_partition(store, 0, 65536);
    close_store(store);
    for (int round = 0; round < 3; round++) {
        pid_t child = fork();
        if (child == 0) {
            store = open_store(path, &state, &recovery);
            tl_partition *partition = partition_of(store, slot);
            append_some(partition, round * 3000, 3000, round == 1, 0);
            raise(SIGKILL);
        }
        int status;
        waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    store = open_store(path, &state, &recovery);
    CHECK(recovery.same_boot && !recovery.clean);
    tl_partition *partition = partition_of(store, slot);
    CHECK(verify(partition, 0) == 9000);
    check_clean(partition);
    tl_partition_release(partition);
    CHECK(tl_store_sync(store, &err) == TL_OK);
    close_store(store);

    /* a writer dies, then the machine does */
    pid_t child = fork();
    if (child == 0) {
        store = open_store(path, &state, &recovery);
        partition = partition_of(store, slot);
        append_some(partition, 9000, 777, false, 0);
        raise(SIGKILL);
    }
    int status;
    waitpid(child, &status, 0);
    boot = 1;
    store = open_store(path, &state, &recovery);
    CHECK(!recovery.same_boot && !recovery.clean && recovery.scanned_partitions == 1);
    partition = partition_of(store, slot);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_OK);
    CHECK(bounds.log_end >= (int64_t)1 << 30);
    int64_t kept = verify(partition, 0);
    if (kept != 9777)
        fprintf(stderr, "kept %lld scanned %llu torn %llu failed %u\n", (long long)kept,
                (unsigned long long)recovery.scanned_bytes, (unsigned long long)recovery.torn_bytes,
                recovery.failed_partitions);
    CHECK(kept == 9777);
    append_some(partition, bounds.log_end, 100, false, 0);
    CHECK(verify(partition, 0) == 9877);
    check_clean(partition);
    tl_partition_release(partition);
    close_store(store);
    boot = 2;
    store = open_store(path, &state, &recovery);
    CHECK(recovery.clean);
    partition = partition_of(store, slot);
    CHECK(verify(partition, 0) == 9877);
    tl_partition_release(partition);
    close_store(store);
}

static void test_rows(void) {
    char path[300];
    snprintf(path, sizeof path, "%s/rows", base);
    int state;
    tl_error err = {0};
    tl_store *store = open_store(path, &state, NULL);
    uint32_t slot = create_partition(store, 0, 1 << 26);
    tl_partition *partition = partition_of(store, slot);
    enum { ROWS = 20000, WIDTH = 100 };
    uint8_t *rows = malloc(ROWS * WIDTH), *back = malloc(ROWS * WIDTH);
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        rows[i] = (uint8_t)(i * 31 + i / 100);
    const tl_rows source = {.rows = rows, .stride = WIDTH, .row_bytes = WIDTH, .timestamp_ms = 5};
    const tl_append what = {.rows = &source, .count = ROWS};
    tl_appended out;
    CHECK(tl_partition_append(partition, &what, 0, &out, &err) == TL_OK && out.next_offset == ROWS);
    tl_cursor cursor = {0};
    size_t got = 0;
    while (got < ROWS) {
        size_t taken, need;
        tl_read_end end;
        CHECK(tl_partition_read_rows(partition, &cursor, WIDTH, back + got * WIDTH, ROWS - got, NULL, NULL, NULL,
                                     &taken, &need, 0, &end, &err) == TL_OK);
        CHECK(taken > 0);
        got += taken;
    }
    CHECK(memcmp(rows, back, ROWS * WIDTH) == 0);
    free(rows);
    free(back);
    tl_partition_release(partition);
    close_store(store);
}

static void test_look(void) {
    char path[300];
    snprintf(path, sizeof path, "%s/look", base);
    const tl_store_options looking = {.flush_interval_ms = 1000, .lock_timeout_ms = 5000, .look = true};
    int state;
    tl_error err = {0};
    tl_store *looker = NULL;
    CHECK(tl_store_open(path, &looking, &looker, &state, NULL, &err) == TL_ENOTFOUND);
    tl_store *store = open_store(path, &state, NULL);
    uint32_t slot = create_partition(store, 0, 65536);
    tl_partition *partition = partition_of(store, slot);
    append_some(partition, 0, 2000, false, 0);
    tl_partition_release(partition);
    close_store(store);
    for (int round = 0; round < 4; round++) { /* closed cleanly; then everybody dead; then beside a living process */
        int pipes[2];
        CHECK(pipe(pipes) == 0);
        pid_t child = round == 0 ? 0 : fork();
        if (round > 0 && child == 0) {
            store = open_store(path, &state, NULL);
            append_some(partition_of(store, slot), 2000 + (round - 1) * 10, 10, false, 0);
            CHECK(write(pipes[1], "x", 1) == 1);
            if (round == 2)
                pause();
            raise(SIGKILL);
        }
        char ready;
        int status;
        if (round > 0)
            CHECK(read(pipes[0], &ready, 1) == 1);
        if (round == 1 || round == 3)
            waitpid(child, &status, 0);
        int opened = tl_store_open(path, &looking, &looker, &state, NULL, &err);
        if (opened < 0)
            fprintf(stderr, "look: %s %s\n", err.what, err.path);
        CHECK(opened == TL_OK && state == TL_STORE_JOINED);
        partition = partition_of(looker, slot);
        CHECK(verify(partition, 0) == 2000 + round * 10);
        check_clean(partition);
        const tl_message message = {.value_bytes = -1, .key_bytes = -1};
        tl_appended out;
        CHECK(tl_partition_append_one(partition, &message, 0, &out, &err) == TL_EINVAL);
        CHECK(tl_partition_trim(partition, 5, &err) == TL_EINVAL);
        CHECK(tl_store_sync(looker, &err) == TL_EINVAL);
        tl_partition_release(partition);
        close_store(looker);
        if (round == 2) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
        }
        close(pipes[0]);
        close(pipes[1]);
    }
    boot = 3; /* nobody recovered it: there is nothing to look at */
    CHECK(tl_store_open(path, &looking, &looker, &state, NULL, &err) == TL_EUNSUPPORTED);
}

int main(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/tidelog-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    CHECK(mkdtemp(base) != NULL);
    true_identity = tl_os_table.identity;
    tl_os_table.identity = other_boot;
    test_basic();
    test_kill_and_boot();
    test_rows();
    test_look();
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    CHECK(system(command) == 0);
    return check_report();
}
