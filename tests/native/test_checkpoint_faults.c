/* Does a checkpoint keep its state when the disk is full, memory is out, calls fail, or a sync leader comes late?
 *
 * Imports checkpoint_model.h, memory_disk.h. Single-threaded. */
#define _DEFAULT_SOURCE 1
#include "checkpoint_model.h"
#include "memory_disk.h"

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "quarantine_size_mb=1"; } /* see test_checkpoint_power.c */

static tl_error err;

/* --- a full disk, and no memory --- */

static void check_full_disk(void) {
    disk_install(2);
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    model m = {0};
    uint64_t seed = 9;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    /* What is allocated is enough for any number of commits as long as the state is small. */
    disk->full = true;
    uint8_t counter[8] = {0};
    tl_checkpoint_record r = {.key = "n", .key_bytes = 1, .value = counter, .value_bytes = 8};
    for (int i = 0; i < 30000; i++) {
        memcpy(counter, &i, sizeof i);
        CHECK(tl_checkpoint_append(&c, &r, 1, NULL, &err) == TL_OK);
    }
    CHECK(words.generation > 4 && disk->file[0].size == TL_CHECKPOINT_INITIAL_BYTES);
    /* A snapshot that fits without spare room is taken; one that does not fit leaves everything as it was. */
    r.key = "n";
    r.deleted = true;
    r.value_bytes = 0;
    CHECK(tl_checkpoint_append(&c, &r, 1, NULL, &err) == TL_OK);
    static uint8_t value[60000];
    int stored = 0, result = TL_OK;
    for (uint8_t key[2] = {0, 0}; result == TL_OK && key[0] < 20; key[0]++, stored++) {
        tl_checkpoint_record large = {.key = key, .key_bytes = 2, .value = value, .value_bytes = sizeof value};
        result = tl_checkpoint_append(&c, &large, 1, NULL, &err);
    }
    stored--;
    CHECK(result == TL_ENOSPC && stored == 8);
    CHECK(tl_checkpoint_snapshot(&c, &err) == TL_OK);
    model_loaded loaded = {0};
    CHECK(tl_checkpoint_load(&c, &loaded, model_each, &err) == TL_OK && loaded.strange && !loaded.sequence);
    tl_checkpoint_record small = {.key = "s", .key_bytes = 1, .value = "v", .value_bytes = 1};
    CHECK(tl_checkpoint_append(&c, &small, 1, NULL, &err) == TL_OK);
    /* Room comes back: so does everything else. */
    disk->full = false;
    tl_checkpoint_record large = {.key = "large", .key_bytes = 5, .value = value, .value_bytes = sizeof value};
    CHECK(tl_checkpoint_append(&c, &large, 1, NULL, &err) == TL_OK);
    CHECK(model_append(&c, &m, check_random(&seed), NULL, &err) == TL_OK);
    disk_install(3);
    disk->full = true;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_ENOSPC && strcmp(err.path, "checkpoint.a") == 0);
    disk->full = false;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
}

static unsigned long fail_malloc_at;

static void *failing_malloc(size_t bytes) {
    if (fail_malloc_at != 0 && --fail_malloc_at == 0)
        return NULL;
    return malloc(bytes);
}

/* Each operation with its nth allocation refused: TL_ENOMEM and the state of before, then the same again succeeds. */
static void check_no_memory(void) {
    disk_install(4);
    tl_os_table.malloc = failing_malloc;
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    model m = {0};
    uint64_t seed = 3, refused = 0;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    for (int i = 0; i < 60; i++) {
        for (unsigned long nth = 1;; nth++) {
            model_loaded loaded = {0};
            uint64_t before = words.generation;
            fail_malloc_at = nth;
            int result;
            if (i % 4 == 0)
                result = tl_checkpoint_snapshot(&c, &err);
            else if (i % 4 == 1)
                result = model_load(&c, &loaded, &err);
            else if (i % 4 == 2) {
                memset(&words, 0, sizeof words);
                result = tl_checkpoint_recover(&c, &err);
            } else
                result = model_append(&c, &m, seed = 0x00ffffffffffffffu & (seed * 31 + 7), NULL, &err);
            bool fired = fail_malloc_at == 0;
            fail_malloc_at = 0;
            model_loaded_free(&loaded);
            if (result == TL_ENOMEM && i % 4 == 2)
                CHECK(words.generation == 0 && tl_checkpoint_recover(&c, &err) == TL_OK && words.generation == before);
            CHECK(model_holds(&c, &m));
            if (result == TL_OK) {
                CHECK(!fired);
                break;
            }
            CHECK(result == TL_ENOMEM && fired);
            refused++;
        }
    }
    CHECK(refused > 100);
    tl_os_table.malloc = malloc;
}

static unsigned long fail_call_at;

static bool call_fails(void) { return fail_call_at != 0 && --fail_call_at == 0; }
static int failing_stat(int fd, tl_stat *out) { return call_fails() ? -EIO : disk_stat(fd, out); }
static int64_t failing_pread(int fd, void *to, size_t n, uint64_t from) {
    return call_fails() ? -EIO : disk_pread(fd, to, n, from);
}
/* Half of it arrives, as when a disk fails in the middle of a write. */
static int64_t failing_pwrite(int fd, const void *from, size_t n, uint64_t to) {
    return call_fails() ? (disk_pwrite(fd, from, n / 2, to), -EIO) : disk_pwrite(fd, from, n, to);
}

/* Each operation with its nth read, write or size refused: TL_EIO that names a file, or, where the call only serves to
 * recognise later damage, success; never another state. */
static void check_failing_calls(void) {
    disk_install(5);
    tl_os_table.stat = failing_stat;
    tl_os_table.pread = failing_pread;
    tl_os_table.pwrite = failing_pwrite;
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    model m = {0};
    uint64_t refused = 0, ignored = 0;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    for (int i = 0; i < 60; i++) {
        bool fired = true;
        for (unsigned long nth = 1; fired; nth++) {
            tl_checkpoint_end end = tl_checkpoint_tail(&c);
            int result;
            fail_call_at = nth;
            if (i % 3 == 0)
                result = tl_checkpoint_snapshot(&c, &err);
            else if (i % 3 == 1) {
                result = model_append(&c, &m, nth * 64 + (uint64_t)i, &end, &err);
                result = result == TL_OK ? tl_checkpoint_sync(&c, end, &err) : result;
            } else {
                memset(&words, 0, sizeof words);
                result = tl_checkpoint_recover(&c, &err);
            }
            fired = fail_call_at == 0;
            fail_call_at = 0;
            CHECK(result == TL_OK || (fired && result == TL_EIO && strncmp(err.path, "checkpoint.", 11) == 0));
            refused += result != TL_OK;
            ignored += fired && result == TL_OK;
            if (words.generation == 0)
                CHECK(tl_checkpoint_recover(&c, &err) == TL_OK);
            CHECK(model_holds(&c, &m));
        }
    }
    CHECK(refused > 200 && ignored >= 40);
    memset(&words, 0, sizeof words);
    CHECK(tl_checkpoint_recover(&c, &err) == TL_OK && model_holds(&c, &m));
}

/* A file system that cannot allocate gets zeros written. */
static int no_fallocate(int fd, uint64_t from, uint64_t bytes) {
    (void)fd, (void)from, (void)bytes;
    return -EOPNOTSUPP;
}

static void check_no_fallocate(void) {
    disk_install(6);
    tl_os_table.fallocate = no_fallocate;
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    CHECK(disk->file[0].size == TL_CHECKPOINT_INITIAL_BYTES && disk->file[1].size == TL_CHECKPOINT_INITIAL_BYTES);
}

/* --- a straggler --- */

static tl_checkpoint straggler;
static tl_checkpoint_end unsynced;

/* Between a leader's fdatasync and its publishing, two snapshots pass and its file serves another generation. */
static void overtake(const char *name) {
    if (strcmp(name, "checkpoint.sync.flushed") != 0)
        return;
    tl_point_hook = NULL;
    CHECK(tl_checkpoint_snapshot(&straggler, &err) == TL_OK && tl_checkpoint_snapshot(&straggler, &err) == TL_OK);
    tl_checkpoint_record r = {.key = "late", .key_bytes = 4, .value = "v", .value_bytes = 1};
    CHECK(tl_checkpoint_append(&straggler, &r, 1, &unsynced, &err) == TL_OK);
}

static void check_straggler(void) {
    disk_install(7);
    tl_checkpoint_words words = {0};
    CHECK(tl_checkpoint_create(&straggler, 0, 0600, &words, &err) == TL_OK);
    tl_checkpoint_record r = {.key = "k", .key_bytes = 1, .value = "v", .value_bytes = 1};
    tl_checkpoint_end end;
    for (int i = 0; i < 500; i++)
        CHECK(tl_checkpoint_append(&straggler, &r, 1, &end, &err) == TL_OK);
    tl_point_hook = overtake;
    CHECK(tl_checkpoint_sync(&straggler, end, &err) == TL_OK && tl_point_hook == NULL);
    CHECK(unsynced.generation == end.generation + 2 && unsynced.position < end.position);
    uint64_t calls = disk->calls;
    CHECK(tl_checkpoint_sync(&straggler, unsynced, &err) == TL_OK && disk->calls > calls);
    calls = disk->calls;
    CHECK(tl_checkpoint_sync(&straggler, unsynced, &err) == TL_OK);
    CHECK(tl_checkpoint_sync(&straggler, end, &err) == TL_OK);
    CHECK(disk->calls == calls);
    memset(&words, 0, sizeof words);
    CHECK(tl_checkpoint_recover(&straggler, &err) == TL_OK);
    CHECK(tl_checkpoint_tail(&straggler).position == unsynced.position);
}

int main(void) {
    check_full_disk();
    check_no_memory();
    check_failing_calls();
    check_no_fallocate();
    check_straggler();
    return check_report();
}
