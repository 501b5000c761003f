/* Can any pair of checkpoint files crash recovery, make it read or allocate past what is there, or loop?
 *
 * Imports checkpoint.h, checkpoint_scan.h, os.h. Single-threaded. The first two bytes say where the input is cut into
 * two files. Of each the first 112 bytes are header and marks, which go to their places in the first two pages; the
 * rest follows as groups. Checksums would keep random bytes out of everything behind them, so the third byte chooses whether
 * headers, marks and groups get right ones, and whether the lengths of records are brought into a range where many fit,
 * before recovery sees them. What recovers must load, take an append and a snapshot, and recover again to as many
 * keys. */
#include "../../native/src/checkpoint_scan.h"
#include "tidelog/crc32c.h"
#include "tidelog/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BYTES (1u << 20)
#define FD 1000

static uint8_t bytes[2][FILE_BYTES];
static uint64_t sizes[2];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "fuzz_checkpoint.c:%d: failed: %s\n", __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static int memory_open(int dir, const char *path, int flags, unsigned mode) {
    (void)dir, (void)flags, (void)mode;
    return FD + (path[strlen(path) - 1] - 'a');
}

static int memory_nothing(int fd) { return fd < 0 ? -EBADF : 0; }

static int memory_stat(int fd, tl_stat *out) {
    *out = (tl_stat){.size_bytes = sizes[fd - FD]};
    return 0;
}

static int64_t memory_pread(int fd, void *to, size_t n, uint64_t from) {
    uint64_t size = sizes[fd - FD];
    uint64_t there = from >= size ? 0 : n < size - from ? n : size - from;
    memcpy(to, bytes[fd - FD] + (from >= size ? 0 : from), there);
    return (int64_t)there;
}

static int64_t memory_pwrite(int fd, const void *from, size_t n, uint64_t to) {
    if (to > FILE_BYTES || n > FILE_BYTES - to)
        return -ENOSPC;
    memcpy(bytes[fd - FD] + to, from, n);
    if (to + n > sizes[fd - FD])
        sizes[fd - FD] = to + n;
    return (int64_t)n;
}

static int memory_fallocate(int fd, uint64_t from, uint64_t n) {
    (void)fd;
    return from + n > FILE_BYTES ? -ENOSPC : 0;
}

static int memory_random(void *to, size_t n) {
    memset(to, 0x5a, n);
    return 0;
}

/* Files are at most 1 MiB: whatever they say, no allocation may be larger than a few times that. */
static void *memory_malloc(size_t n) {
    REQUIRE(n <= 4 * FILE_BYTES);
    return malloc(n);
}

static int touch(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                 uint32_t value_bytes) {
    uint32_t crc = tl_crc32c(tl_crc32c(type, key, key_bytes), value, value_bytes);
    *(uint64_t *)context += crc == 0xffffffffu ? 2 : 1; /* every byte must have been read */
    return 0;
}

/* Lengths of records that mostly fit; the last one of a group takes what is left or is cut off. */
static uint32_t repair_records(uint8_t *group, uint32_t n) {
    uint32_t count = 0, at = TL_CHECKPOINT_GROUP_HEADER_BYTES;
    while (at + TL_CHECKPOINT_RECORD_HEADER_BYTES <= n) {
        uint8_t *record = group + at;
        uint32_t left = n - at - TL_CHECKPOINT_RECORD_HEADER_BYTES;
        uint16_t flags = record[2] & 1, key = (uint16_t)(left < 2 ? 0 : record[4] % 3);
        uint32_t value = flags ? 0 : record[8] % 40;
        if (value + key > left)
            value = flags || key > left ? 0 : left - key;
        record[0] &= 3;
        record[1] = 0;
        memcpy(record + 2, &flags, 2);
        memcpy(record + 4, &key, 2);
        memset(record + 6, record[6] == 0xff, 2);
        tl_put_le32(record + 8, value);
        at += (uint32_t)tl_checkpoint_record_bytes(key, value);
        count++;
    }
    return count;
}

/* Gives right checksums to what stands where a header, marks and groups would stand. */
static void repair(unsigned slot, bool records) {
    uint8_t *p = bytes[slot];
    if (sizes[slot] < TL_CHECKPOINT_FIRST)
        return;
    tl_checkpoint_file file = {.generation = tl_le64(p + 16) % 1000 * 2 + 2 + slot, .salt = tl_le32(p + 40)};
    uint64_t at = TL_CHECKPOINT_FIRST, snapshot_groups = tl_le32(p + 48) % 4;
    uint32_t chain = tl_checkpoint_chain_start(file.generation, file.salt);
    file.snapshot_end = at;
    file.snapshot_chain = chain;
    while (sizes[slot] - at >= TL_CHECKPOINT_GROUP_HEADER_BYTES) {
        uint8_t *group = p + at;
        uint32_t n = tl_le32(group + 32), count = tl_le32(group + 36);
        if (records) {
            n = TL_CHECKPOINT_GROUP_HEADER_BYTES + (n & 0x1f8);
            count = n > sizes[slot] - at ? 0 : repair_records(group, n);
        }
        if (n < TL_CHECKPOINT_GROUP_HEADER_BYTES || n > sizes[slot] - at || (n & 7) != 0)
            break;
        tl_checkpoint_place place = {.generation = file.generation,
                                     .position = at,
                                     .synced_end = tl_le64(group + 24),
                                     .salt = file.salt,
                                     .previous = chain};
        chain = tl_checkpoint_group_seal(group, n, count, &place);
        at += n;
        if (snapshot_groups > 0) {
            snapshot_groups--;
            file.snapshot_end = at;
            file.snapshot_chain = chain;
            file.snapshot_records += count;
        }
    }
    uint64_t synced_end = tl_le64(p + TL_CHECKPOINT_SYNCED_AT + 16) % (2 * FILE_BYTES);
    uint64_t successor = tl_le64(p + TL_CHECKPOINT_SUPERSEDED_AT + 16) % 4000;
    tl_checkpoint_header_encode(p, &file);
    tl_checkpoint_mark_encode(p + TL_CHECKPOINT_SYNCED_AT, TL_CHECKPOINT_SYNCED, file.generation, synced_end);
    tl_checkpoint_mark_encode(p + TL_CHECKPOINT_SUPERSEDED_AT, TL_CHECKPOINT_SUPERSEDED, file.generation, successor);
}

/* Spreads the start of an input over the first two pages. */
static void place(unsigned slot, const uint8_t *data, size_t n) {
    static const struct {
        size_t at, n;
    } parts[] = {{0, 64},
                 {TL_CHECKPOINT_SYNCED_AT, 24},
                 {TL_CHECKPOINT_SUPERSEDED_AT, 24},
                 {TL_CHECKPOINT_FIRST, FILE_BYTES - TL_CHECKPOINT_FIRST}};
    memset(bytes[slot], 0, sizes[slot]); /* what the input before left */
    sizes[slot] = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && n > 0; i++) {
        size_t taken = n < parts[i].n ? n : parts[i].n;
        memcpy(bytes[slot] + parts[i].at, data, taken);
        sizes[slot] = parts[i].at + taken;
        data += taken;
        n -= taken;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3)
        return 0;
    tl_os_table.open = memory_open;
    tl_os_table.close = tl_os_table.fdatasync = tl_os_table.fsync = memory_nothing;
    tl_os_table.stat = memory_stat;
    tl_os_table.pread = memory_pread;
    tl_os_table.pwrite = memory_pwrite;
    tl_os_table.fallocate = memory_fallocate;
    tl_os_table.random = memory_random;
    tl_os_table.malloc = memory_malloc;
    size_t split = (data[0] | (size_t)data[1] << 8) % (size - 2);
    uint8_t repairs = data[2];
    data += 3;
    size -= 3;
    place(0, data, split);
    place(1, data + split, size - split);
    for (unsigned slot = 0; slot < 2; slot++) {
        if (repairs & (1u << slot))
            repair(slot, (repairs & 4) != 0);
    }
    tl_checkpoint_report reports[2];
    tl_error err;
    int checked = tl_checkpoint_check(0, reports, &err);
    tl_checkpoint c;
    tl_checkpoint_words words = {0};
    REQUIRE(tl_checkpoint_open(&c, 0, &words, &err) == TL_OK);
    int result = tl_checkpoint_recover(&c, &err);
    REQUIRE(result == checked);
    if (result != TL_OK) {
        REQUIRE((result == TL_ECORRUPT || result == TL_EUNSUPPORTED) && err.path[0] != 0 && err.position >= 0);
        return 0;
    }
    uint64_t before = 0, after = 0;
    REQUIRE(tl_checkpoint_load(&c, &before, touch, &err) == TL_OK);
    tl_checkpoint_record record = {.key = "\xff fuzz", .key_bytes = 6, .value = "v", .value_bytes = 1, .type = 65535};
    result = tl_checkpoint_append(&c, &record, 1, NULL, &err);
    REQUIRE(result == TL_OK || result == TL_ENOSPC);
    if (tl_checkpoint_snapshot(&c, &err) == TL_OK)
        REQUIRE(tl_checkpoint_sync(&c, tl_checkpoint_tail(&c), &err) == TL_OK);
    words = (tl_checkpoint_words){0};
    REQUIRE(tl_checkpoint_recover(&c, &err) == TL_OK);
    REQUIRE(tl_checkpoint_load(&c, &after, touch, &err) == TL_OK);
    REQUIRE(after == before || after == before + (result == TL_OK));
    return 0;
}
