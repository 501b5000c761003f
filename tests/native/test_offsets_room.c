/* Does the offset table keep what it has while its file grows, on a full disk, when it is full, and without memory?
 *
 * timeout_s: 120
 * Imports offsets_kit.h. Single-threaded; works in the current directory. */
#define _GNU_SOURCE 1
#include "offsets_kit.h"

/* --- growth, and a disk that is full --- */

static uint64_t file_bytes(void) {
    struct stat st;
    CHECK(stat("offsets", &st) == 0);
    return (uint64_t)st.st_size;
}

static void check_growth(void) {
    unlink("offsets");
    tl_offsets *t = open_table(TL_OFFSETS_RESET), *other = open_table(TL_OFFSETS_OPEN);
    uint32_t g = group_of(t, "g"), count = 30000, last = 0, found;
    uint8_t id[16];
    uint64_t steps = 0, before = file_bytes();
    CHECK(before == 128 * 1024);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t s = slot_of(t, g, i / 100, i % 100);
        CHECK(s == g + 1 + i);
        uint64_t now = file_bytes(), used = 4096 + (uint64_t)(s + 1) * 256;
        CHECK(now >= used + 64 * 1024); /* the spare chunk is always there */
        CHECK(now <= 128 * 1024 + 2 * used + 64 * 1024 && now - before <= 4 << 20);
        steps += now != before;
        before = now;
        last = s;
    }
    CHECK(steps >= 5 && steps < 20);
    for (uint32_t i = 0; i < count; i++) {
        fill_id(id, i / 100);
        CHECK(tl_offsets_slot(other, g, id, i % 100, false, &found, &err) == TL_OK && found == g + 1 + i);
    }
    tl_offset_word w;
    CHECK(tl_offsets_set(t, last, 9, 9, false) == TL_OK && tl_offsets_read(other, last, &w, NULL) == TL_OK &&
          w.offset == 9);
    /* Created behind the other handle's back, and used there by number at once. */
    uint32_t s = slot_of(t, g, 1u << 20, 0);
    CHECK(tl_offsets_set(other, s, 4, 4, false) == TL_OK && tl_offsets_read(t, s, &w, NULL) == TL_OK && w.offset == 4);
    tl_offsets_close(t);
    tl_offsets_close(other);
    /* A reset does not give blocks back that a full disk might not give again. */
    t = open_table(TL_OFFSETS_RESET);
    CHECK(file_bytes() == before);
    tl_offsets_close(t);
    unlink("offsets");
}

static int full_fallocate(int fd, uint64_t from, uint64_t bytes) {
    (void)fd, (void)from, (void)bytes;
    return -ENOSPC;
}

static int no_fallocate(int fd, uint64_t from, uint64_t bytes) {
    (void)fd, (void)from, (void)bytes;
    return -EOPNOTSUPP;
}

static int64_t full_pwrite(int fd, const void *from, size_t bytes, uint64_t to) {
    (void)fd, (void)from, (void)bytes, (void)to;
    return -ENOSPC;
}

static void check_full_disk(void) {
    for (int emulated = 0; emulated < 2; emulated++) {
        tl_offsets *t;
        unlink("offsets");
        tl_os_table.fallocate = emulated ? no_fallocate : full_fallocate;
        tl_os_table.pwrite = full_pwrite;
        CHECK(tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err) == TL_ENOSPC && err.sys_errno == ENOSPC);
        tl_os_table.pwrite = tl_io_posix.pwrite;
        tl_os_table.fallocate = emulated ? no_fallocate : tl_io_posix.fallocate;
        t = open_table(TL_OFFSETS_RESET);
        CHECK(file_bytes() == 128 * 1024);
        uint32_t g = group_of(t, "g"), slots = 0, s = 0, first = slot_of(t, g, 0, 0), epoch;
        uint8_t id[16];
        tl_os_table.fallocate = emulated ? no_fallocate : full_fallocate;
        tl_os_table.pwrite = full_pwrite;
        int rc;
        for (;; slots++) {
            fill_id(id, 1 + slots);
            rc = tl_offsets_slot(t, g, id, 0, true, &s, &err);
            if (rc != TL_OK)
                break;
            CHECK(slots < 1000);
        }
        CHECK(rc == TL_ENOSPC && slots + 2 == (file_bytes() - 4096) / 256 && slots > 240);
        CHECK(tl_offsets_group(t, "another", 7, true, &s, &err) == TL_ENOSPC);
        /* What is there goes on working, metadata that fits inline included. */
        CHECK(tl_offsets_claim(t, first, (tl_offset_word){-1, 0, 0}, 3, &epoch) == TL_OK);
        CHECK(tl_offsets_commit(t, first, 3, epoch, 10, 10) == TL_OK &&
              tl_offsets_set_metadata(t, first, "text", 4, &err) == TL_OK);
        uint8_t text[300] = "long", back[TL_OFFSETS_MAX_METADATA_BYTES];
        size_t bytes;
        CHECK(tl_offsets_set_metadata(t, first, text, sizeof text, &err) == TL_ENOSPC);
        CHECK(tl_offsets_metadata(t, first, back, &bytes, &err) == TL_OK && bytes == 4 && memcmp(back, "text", 4) == 0);
        tl_os_table = tl_io_posix;
        if (emulated)
            tl_os_table.fallocate = no_fallocate;
        CHECK(tl_offsets_slot(t, g, id, 0, true, &s, &err) == TL_OK); /* space returned */
        CHECK(tl_offsets_set_metadata(t, first, text, sizeof text, &err) == TL_OK);
        CHECK(tl_offsets_metadata(t, first, back, &bytes, &err) == TL_OK && bytes == 300 &&
              memcmp(back, text, 300) == 0);
        tl_offsets_close(t);
        tl_os_table = tl_io_posix;
        tl_offsets_report report;
        CHECK(tl_offsets_check(dir, NULL, NULL, &report, &err) == TL_OK && report.problems == 0 &&
              report.offsets == slots + 2);
    }
}

/* The count is moved near the end by hand (the file is sparse, which a test's may be): only calls that look nothing up
 * may follow. */
static void check_table_full(void) {
    unlink("offsets");
    tl_offsets *t = open_table(TL_OFFSETS_RESET);
    uint32_t first = slot_of(t, group_of(t, "g"), 0, 0), count = TL_OFFSETS_MAX_SLOTS - 3;
    uint64_t word = count | (uint64_t)~count << 32;
    uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES] = "text", back[TL_OFFSETS_MAX_METADATA_BYTES];
    size_t bytes;
    CHECK(truncate("offsets", 4096 + (off_t)TL_OFFSETS_MAX_SLOTS * 256) == 0);
    int fd = open("offsets", O_RDWR);
    CHECK(fd >= 0 && pwrite(fd, &word, 8, 64) == 8);
    close(fd);
    CHECK(tl_offsets_set_metadata(t, first, text, 4096, &err) == TL_EFULL);
    CHECK(tl_offsets_set_metadata(t, first, text, 721, &err) == TL_EFULL);
    CHECK(tl_offsets_metadata(t, first, back, &bytes, &err) == TL_OK && bytes == 0);
    CHECK(tl_offsets_set_metadata(t, first, text, 480, &err) == TL_OK);
    CHECK(tl_offsets_metadata(t, first, back, &bytes, &err) == TL_OK && bytes == 480 && memcmp(back, text, 480) == 0);
    CHECK(file_bytes() == 4096 + (uint64_t)TL_OFFSETS_MAX_SLOTS * 256);
    CHECK(tl_offsets_set(t, first, 1, 1, false) == TL_OK);
    tl_offsets_close(t);
    t = open_table(TL_OFFSETS_RESET);
    CHECK(slot_of(t, group_of(t, "g"), 0, 0) == first);
    tl_offsets_close(t);
    unlink("offsets");
}

/* --- every system call and every allocation fails in turn --- */

static long countdown;
static bool failing(void) { return --countdown == 0; }
static int f_open(int d, const char *p, int f, unsigned m) {
    return failing() ? -EMFILE : tl_io_posix.open(d, p, f, m);
}
static int f_stat(int fd, tl_stat *out) { return failing() ? -EIO : tl_io_posix.stat(fd, out); }
static int f_fallocate(int fd, uint64_t a, uint64_t b) { return failing() ? -ENOSPC : tl_io_posix.fallocate(fd, a, b); }
static int f_map(int fd, uint64_t a, size_t b, bool w, void **o) {
    return failing() ? -ENOMEM : tl_io_posix.map(fd, a, b, w, o);
}
static int f_random(void *to, size_t n) { return failing() ? -EIO : tl_io_posix.random(to, n); }
static void *f_malloc(size_t n) { return failing() ? NULL : tl_io_posix.malloc(n); }
static void *f_realloc(void *p, size_t n) { return failing() ? NULL : tl_io_posix.realloc(p, n); }

static int scenario(uint32_t *done) {
    tl_offsets *t;
    uint32_t g, s;
    uint8_t id[16];
    *done = 0;
    int rc = tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err);
    if (rc < 0) {
        CHECK(t == NULL);
        return rc;
    }
    rc = tl_offsets_group(t, "g", 1, true, &g, &err);
    for (uint32_t i = 0; rc == TL_OK && i < 600; i++) {
        fill_id(id, i);
        rc = tl_offsets_slot(t, g, id, 0, true, &s, &err);
        *done += rc == TL_OK;
        if (rc == TL_OK && i == 300)
            rc =
                tl_offsets_set_metadata(t, s, "a text that does not fit into a slot and needs an overflow..", 60, &err);
    }
    tl_offsets_close(t);
    return rc;
}

static void check_faults(void) {
    uint32_t full = 0, failures = 0;
    tl_os_table.open = f_open;
    tl_os_table.stat = f_stat;
    tl_os_table.fallocate = f_fallocate;
    tl_os_table.map = f_map;
    tl_os_table.random = f_random;
    tl_os_table.malloc = f_malloc;
    tl_os_table.realloc = f_realloc;
    for (long nth = 1;; nth++) {
        uint32_t done;
        unlink("offsets");
        countdown = nth;
        int rc = scenario(&done);
        if (countdown > 0) {
            CHECK(rc == TL_OK && done == 600);
            full = 1;
            break;
        }
        /* A growth that fails while the spare chunk lasts is no failure. */
        CHECK(rc == TL_OK || rc == TL_EIO || rc == TL_ENOMEM || rc == TL_ENOSPC);
        CHECK(rc == TL_OK || (err.code == rc && err.what != NULL));
        failures += rc != TL_OK;
        if (done > 0) {
            countdown = 0; /* off */
            tl_offsets_report report;
            CHECK(tl_offsets_check(dir, NULL, NULL, &report, &err) == TL_OK && report.problems == 0 &&
                  report.offsets == done);
        }
    }
    tl_os_table = tl_io_posix;
    printf("%u faults; ", failures);
    /* open, stat, random, fallocate, map and stat again, the handle and the index thrice */
    CHECK(full == 1 && failures >= 9);
}

int main(void) {
    dir = open(".", O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0);
    check_growth();
    check_full_disk();
    check_table_full();
    check_faults();
    close(dir);
    return check_report();
}
