/* Does damage to the offset table, bit by bit, cut by cut and as whole lies, end as data or as an error with its place?
 *
 * timeout_s: 180
 * Imports offsets.h and the private layout, to write lies with right checksums. Works in the current directory. */
#define _GNU_SOURCE 1
#include "check.h"
#include "../../native/src/offsets_file.h"
#include "tidelog/crc32c.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GROUPS = 3, SLOTS = 5 };

static int dir, fd;
static tl_error err;
static uint8_t good[1 << 16];
static size_t good_bytes;
static char names[GROUPS][400];
static size_t name_bytes[GROUPS];
static uint32_t numbers[GROUPS], slots[SLOTS], slot_group[SLOTS];
static uint8_t ids[SLOTS][16], texts[SLOTS][TL_OFFSETS_MAX_METADATA_BYTES];
static size_t text_bytes[SLOTS] = {0, 5, 56, 700, 300};
static tl_offset_view views[SLOTS];

static void build(void) {
    tl_offsets *t;
    uint64_t seed = 5;
    unlink("offsets");
    CHECK(tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err) == TL_OK);
    for (uint32_t g = 0; g < GROUPS; g++) {
        name_bytes[g] = g == 1 ? 300 : 4 + g;
        memset(names[g], 'a' + (int)g, name_bytes[g]);
        CHECK(tl_offsets_group(t, names[g], name_bytes[g], true, &numbers[g], &err) == TL_OK);
    }
    for (uint32_t s = 0; s < SLOTS; s++) {
        uint32_t cursor, epoch;
        for (int i = 0; i < 16; i++)
            ids[s][i] = (uint8_t)check_random(&seed);
        for (size_t i = 0; i < text_bytes[s]; i++)
            texts[s][i] = (uint8_t)check_random(&seed);
        slot_group[s] = numbers[s % 2];
        CHECK(tl_offsets_slot(t, slot_group[s], ids[s], s, true, &slots[s], &err) == TL_OK);
        CHECK(tl_offsets_set_metadata(t, slots[s], "older", 5, &err) == TL_OK);
        CHECK(tl_offsets_set_metadata(t, slots[s], texts[s], text_bytes[s], &err) == TL_OK);
        CHECK(tl_offsets_set(t, slots[s], 1000 + s, 5000 + s, false) == TL_OK);
        if (s == 2)
            CHECK(tl_offsets_claim(t, slots[s], (tl_offset_word){1002, 0, 0}, 42, &epoch) == TL_OK);
        cursor = slots[s];
        CHECK(tl_offsets_next(t, &cursor, &views[s], &err) == 1 && views[s].slot == slots[s]);
    }
    CHECK(tl_offsets_forget_group(t, numbers[2], &err) == TL_OK);
    uint32_t count;
    CHECK(offsets_count(t, &count, &err) == TL_OK);
    tl_offsets_close(t);
    fd = open("offsets", O_RDWR);
    good_bytes = OFFSETS_HEADER_BYTES + (size_t)count * OFFSETS_SLOT_BYTES;
    CHECK(fd >= 0 && good_bytes < sizeof good && pread(fd, good, good_bytes, 0) == (ssize_t)good_bytes);
}

static void restore(void) { CHECK(pwrite(fd, good, good_bytes, 0) == (ssize_t)good_bytes); }

static bool typed(int rc) {
    CHECK(rc == TL_ECORRUPT || rc == TL_EUNSUPPORTED);
    CHECK(err.code == rc && strcmp(err.path, "offsets") == 0 && err.what != NULL && err.position >= 0);
    return true;
}

/* What is read is what was written, or a typed error; returns the number of errors. `data_at`: the byte whose change is
 * data (a slot's word or time), or -1. Losing a key, or answering with another value, is a failure. */
static int verify(tl_offsets *t, int64_t data_at) {
    int errors = 0, rc;
    for (uint32_t g = 0; g < GROUPS - 1; g++) {
        uint32_t number = 0;
        char name[TL_OFFSETS_MAX_GROUP_BYTES];
        size_t bytes;
        rc = tl_offsets_group(t, names[g], name_bytes[g], false, &number, &err);
        errors += rc < 0 ? typed(rc) : 0;
        CHECK(rc < 0 || number == numbers[g]);
        rc = tl_offsets_group_name(t, numbers[g], name, &bytes, &err);
        errors += rc < 0 ? typed(rc) : 0;
        CHECK(rc < 0 || (bytes == name_bytes[g] && memcmp(name, names[g], bytes) == 0));
    }
    for (uint32_t s = 0; s < SLOTS; s++) {
        uint32_t slot = 0;
        tl_offset_word w;
        int64_t time_ms, at = offsets_position(slots[s]);
        bool word_is_data = data_at >= at + 32 && data_at < at + 48;
        bool time_is_data = data_at >= at + 48 && data_at < at + 56;
        uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES];
        size_t bytes;
        rc = tl_offsets_slot(t, slot_group[s], ids[s], s, false, &slot, &err);
        errors += rc < 0 ? typed(rc) : 0;
        CHECK(rc < 0 || slot == slots[s]);
        rc = tl_offsets_read(t, slots[s], &w, &time_ms);
        CHECK(rc == TL_OK || rc == TL_ECORRUPT);
        if (rc < 0) {
            errors += typed(tl_offsets_inspect(t, slots[s], &err)); /* tells the place that a word call cannot */
        } else {
            CHECK(word_is_data || memcmp(&w, &views[s].word, sizeof w) == 0);
            CHECK(time_is_data || time_ms == views[s].time_ms);
        }
        rc = tl_offsets_metadata(t, slots[s], text, &bytes, &err);
        errors += rc < 0 ? typed(rc) : 0;
        CHECK(rc < 0 || (bytes == text_bytes[s] && memcmp(text, texts[s], bytes) == 0));
    }
    for (int changed = 0; changed < 2; changed++) {
        uint32_t cursor = 0, found = 0, wrong = 0;
        tl_offset_view v;
        while (wrong < 1000) {
            rc = changed ? tl_offsets_changed(t, &cursor, &v, &err) : tl_offsets_next(t, &cursor, &v, &err);
            if (rc == 0)
                break;
            if (rc < 0) {
                wrong += typed(rc);
                continue;
            }
            while (found < SLOTS && slots[found] < v.slot)
                found++;
            CHECK(found < SLOTS && slots[found] == v.slot && v.group == slot_group[found] && v.partition == found);
            CHECK(memcmp(v.channel_id, ids[found], 16) == 0);
        }
        errors += (int)wrong;
    }
    return errors;
}

/* Changes of every kind on a damaged table: any result, no crash, no access outside the file. */
static void use(tl_offsets *t) {
    uint32_t x, epoch;
    tl_offset_word w;
    for (uint32_t s = 0; s < SLOTS; s++) {
        if (tl_offsets_read(t, slots[s], &w, NULL) == TL_OK && tl_offsets_claim(t, slots[s], w, 9, &epoch) == TL_OK) {
            tl_offsets_commit(t, slots[s], 9, epoch, 77, 77);
            tl_offsets_release(t, slots[s], 9, epoch);
        }
        tl_offsets_set(t, slots[s], 1, 1, true);
        tl_offsets_set_metadata(t, slots[s], texts[3], 70 + s * 100, &err);
    }
    tl_offsets_group(t, "another group", 13, true, &x, &err);
    tl_offsets_slot(t, numbers[0], ids[0], 99, true, &x, &err);
    tl_offsets_forget_channel(t, ids[1], &err);
    tl_offsets_forget_group(t, numbers[1], &err);
}

static void check_flips(void) {
    unsigned long caught = 0, harmless = 0, data = 0, noticed = 0;
    for (size_t at = 0; at < good_bytes; at++) {
        /* The reserved page of the header: all bytes, one bit each. */
        bool reserved = at >= 128 && at < OFFSETS_HEADER_BYTES;
        for (unsigned bit = reserved ? at % 8 : 0; bit < 8; bit += reserved ? 8 : 1) {
            uint8_t byte = (uint8_t)(good[at] ^ (1u << bit));
            tl_offsets *t;
            tl_offsets_report report;
            CHECK(pwrite(fd, &byte, 1, (off_t)at) == 1);
            int rc = tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err), errors = 1;
            if (rc < 0)
                typed(rc);
            else
                errors = verify(t, (int64_t)at);
            rc = tl_offsets_check(dir, NULL, NULL, &report, &err);
            CHECK(rc == TL_OK || rc == TL_ECORRUPT || rc == TL_EUNSUPPORTED);
            bool seen = rc < 0 || report.problems > 0;
            bool word_or_time = at >= OFFSETS_HEADER_BYTES && at % OFFSETS_SLOT_BYTES >= 32 &&
                at % OFFSETS_SLOT_BYTES < 56;
            CHECK(errors == 0 || seen); /* what a reader stumbles over, `check` reports */
            caught += errors > 0;
            noticed += errors == 0 && seen;
            data += errors == 0 && !seen && word_or_time;
            harmless += errors == 0 && !seen && !word_or_time;
            if (t != NULL && (at * 8 + bit) % 5 == 0) {
                use(t);
                restore();
                CHECK(ftruncate(fd, (off_t)good_bytes) == 0 && ftruncate(fd, 128 << 10) == 0);
            }
            tl_offsets_close(t);
            CHECK(pwrite(fd, &good[at], 1, (off_t)at) == 1);
        }
    }
    printf("flips: %lu errors, %lu seen by check only, %lu in words and times, %lu in unused bytes; ", caught,
           noticed, data, harmless);
    CHECK(caught > 5000 && noticed > 3968 && data > 0);
}

static void check_cuts(void) {
    for (size_t length = 0; length <= good_bytes; length++) {
        tl_offsets *t;
        restore();
        CHECK(ftruncate(fd, (off_t)length) == 0);
        int rc = tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err);
        if (length < good_bytes) {
            CHECK(rc == TL_ECORRUPT && typed(rc) && t == NULL && err.position == (int64_t)length);
            continue;
        }
        /* The spare behind the last slot is gone: nothing is lost, and new slots get room again. */
        uint32_t x;
        CHECK(rc == TL_OK && verify(t, -1) == 0);
        CHECK(tl_offsets_group(t, "after the cut", 13, true, &x, &err) == TL_OK);
        tl_offsets_close(t);
    }
    CHECK(ftruncate(fd, (off_t)good_bytes) == 0 && ftruncate(fd, 128 << 10) == 0);
    restore();
}

/* --- lies whose checksums are right --- */

static void *slot_bytes(uint32_t slot) { return good + OFFSETS_HEADER_BYTES + (size_t)slot * OFFSETS_SLOT_BYTES; }

static void write_slot(uint32_t slot, const void *bytes) {
    CHECK(pwrite(fd, bytes, OFFSETS_SLOT_BYTES, offsets_position(slot)) == OFFSETS_SLOT_BYTES);
}

static unsigned problems_told;
static void tell(void *context, const tl_error *problem) {
    CHECK(context == &problems_told && problem->code == TL_ECORRUPT && problem->position >= 0 &&
          strcmp(problem->path, "offsets") == 0);
    problems_told++;
}

static void lie(uint32_t expected_problems) {
    tl_offsets *t;
    tl_offsets_report report;
    problems_told = 0;
    CHECK(tl_offsets_check(dir, tell, &problems_told, &report, &err) == TL_OK);
    CHECK(report.problems == expected_problems && problems_told == expected_problems);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_OK);
    use(t);
    tl_offsets_close(t);
    restore();
}

static void lie_copy(uint32_t s, uint32_t bytes, uint32_t first, uint32_t run) {
    offset_slot o;
    memcpy(&o, slot_bytes(slots[s]), sizeof o);
    metadata_copy *copy = &o.copies[(uint32_t)o.metadata & 1];
    copy->bytes = bytes;
    copy->first = first;
    copy->run = run;
    copy->crc = tl_crc32c(tl_crc32c(0, &slots[s], 4), copy, offsetof(metadata_copy, crc));
    write_slot(slots[s], &o);
    lie(1);
}

static void check_lies(void) {
    lie(0);
    group_slot g;
    offset_slot o;
    overflow_slot more;
    /* The same group twice, the same partition twice. */
    memcpy(&g, slot_bytes(numbers[0]), sizeof g);
    g.crc = group_crc(numbers[2], g.name_bytes, g.name);
    write_slot(numbers[2], &g);
    lie(1);
    memcpy(&o, slot_bytes(slots[0]), sizeof o);
    o.crc = offset_crc(slots[1], &o);
    o.metadata = guarded(0);
    write_slot(slots[1], &o);
    lie(1);
    /* A slot copied as it is has its old index in its checksum; its metadata's overflow is then nobody's. */
    memcpy(&o, slot_bytes(slots[0]), sizeof o);
    write_slot(slots[1], &o);
    lie(1);
    /* A name longer than allowed, longer than its overflow, without any. */
    for (uint32_t n = 0; n < 3; n++) {
        memcpy(&g, slot_bytes(numbers[0]), sizeof g);
        g.name_bytes = n == 0 ? 0 : n == 1 ? 1024 : UINT32_MAX;
        write_slot(numbers[0], &g);
        lie(1 + 3); /* the group, and its three slots that belong to nobody now */
    }
    /* A slot of a group that comes after it, of a slot, of itself. */
    for (uint32_t n = 0; n < 3; n++) {
        memcpy(&o, slot_bytes(slots[1]), sizeof o);
        o.group = n == 0 ? slots[4] : n == 1 ? slots[0] : slots[1];
        o.crc = offset_crc(slots[1], &o);
        write_slot(slots[1], &o);
        lie(1);
    }
    /* Metadata beyond every bound, and in overflow slots of somebody else or outside. */
    offset_slot *long_one = slot_bytes(slots[3]);
    uint32_t run_first = long_one->copies[(uint32_t)long_one->metadata & 1].first;
    static const uint32_t values[] = {0, 1, 57, 241, 4096, 4097, UINT32_MAX};
    for (size_t a = 0; a < sizeof values / sizeof *values; a++)
        for (size_t b = 0; b < sizeof values / sizeof *values; b++)
            for (size_t c = 2; c < sizeof values / sizeof *values; c++)
                lie_copy(4, values[c], values[a], values[b]);
    lie_copy(4, 300, run_first, 4);
    lie_copy(4, 300, run_first, 2);
    /* Overflow that belongs to nobody. */
    memcpy(&more, slot_bytes(run_first), sizeof more);
    more.of = run_first;
    more.crc = overflow_crc(run_first, &more);
    write_slot(run_first, &more);
    lie(2);
    /* A count that is well formed and wrong. */
    for (uint64_t count = 0; count < 3; count++) {
        static const uint32_t counts[] = {600, TL_OFFSETS_MAX_SLOTS, TL_OFFSETS_MAX_SLOTS + 1};
        uint64_t word = guarded(counts[count]);
        tl_offsets *t;
        CHECK(pwrite(fd, &word, 8, offsetof(file_header, count)) == 8);
        CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_ECORRUPT);
        CHECK(err.position == (counts[count] > TL_OFFSETS_MAX_SLOTS ? 64 : 128 << 10));
        restore();
    }
    file_header header;
    memcpy(&header, good, sizeof header);
    header.version = 2;
    header.crc = tl_crc32c(0, &header, offsetof(file_header, crc));
    CHECK(pwrite(fd, &header, sizeof header, 0) == sizeof header);
    tl_offsets *t;
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_EUNSUPPORTED && typed(err.code));
    restore();
}

/* Another process writes noise into the slots while this one works on them. */
static void check_scribbler(void) {
    uint8_t *map = mmap(NULL, 128 << 10, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        uint64_t seed = 3;
        static const uint32_t telling[] = {0, 1, KIND_GROUP, KIND_OFFSET, KIND_OVERFLOW, STATE_LIVE, 4096, UINT32_MAX};
        for (;;) {
            size_t at = 64 + 4 * (check_random(&seed) % ((good_bytes - 64) / 4));
            uint32_t word = check_random(&seed) % 2 ? (uint32_t)check_random(&seed) : telling[check_random(&seed) % 8];
            __atomic_store_n((uint32_t *)(void *)(map + at), word, __ATOMIC_RELAXED);
            if (check_random(&seed) % 8 == 0) {
                size_t whole = check_random(&seed) % good_bytes & ~(size_t)255;
                memcpy(map + whole, good + whole, good_bytes - whole < 256 ? good_bytes - whole : 256);
            }
        }
    }
    unsigned long opened = 0, changed = 0;
    for (int round = 0; round < 4000; round++) {
        tl_offsets *t;
        tl_offsets_report report;
        uint32_t x, cursor = 0;
        tl_offset_view v;
        uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES];
        char name[TL_OFFSETS_MAX_GROUP_BYTES];
        size_t bytes;
        if (round % 50 == 0)
            restore();
        if (tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) != TL_OK)
            continue;
        opened++;
        for (int i = 0; i < 200 && tl_offsets_next(t, &cursor, &v, &err) != 0; i++)
            changed += tl_offsets_metadata(t, v.slot, text, &bytes, &err) == TL_OK;
        for (uint32_t s = 0; s < SLOTS; s++) {
            tl_offsets_slot(t, slot_group[s], ids[s], s, false, &x, &err);
            tl_offsets_metadata(t, slots[s], text, &bytes, &err);
        }
        for (uint32_t g = 0; g < GROUPS; g++) {
            tl_offsets_group(t, names[g], name_bytes[g], false, &x, &err);
            tl_offsets_group_name(t, numbers[g], name, &bytes, &err);
        }
        use(t);
        tl_offsets_check(dir, NULL, NULL, &report, &err);
        tl_offsets_close(t);
    }
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    munmap(map, 128 << 10);
    printf("scribbled: %lu opens, %lu reads; ", opened, changed);
    CHECK(opened > 100 && changed > 100);
}

int main(void) {
    dir = open(".", O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0);
    build();
    tl_offsets *t;
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_OK && verify(t, -1) == 0);
    tl_offsets_close(t);
    check_flips();
    check_cuts();
    check_lies();
    check_scribbler();
    close(fd);
    close(dir);
    return check_report();
}
