/* Does an offset table made of any bytes, and used in any order, end as data or as an error?
 *
 * The input: a byte that says how, then patches {u16 position, u8 length, bytes} over a small good table, or the whole
 * file as it is. Slots whose checksum the patches broke get a right one on request, so that what lies behind the
 * checksums is reached too. */
#define _GNU_SOURCE 1
#include "../../native/src/offsets_file.h"
#include "tidelog/crc32c.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TABLE_SLOTS = 40, TABLE_BYTES = OFFSETS_HEADER_BYTES + TABLE_SLOTS * OFFSETS_SLOT_BYTES };

static int fd = -1;
static uint8_t good[TABLE_BYTES], table[TABLE_BYTES];
static const uint8_t id[16] = "0123456789abcdef";

#define NEED(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%d: failed: %s\n", __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* The table stands in memory: a file system would spend a thousand times longer on each input than we do. */
static int open_memory(int in, const char *path, int flags, unsigned mode) {
    (void)in, (void)path, (void)flags, (void)mode;
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void prepare(void) {
    tl_offsets *t;
    tl_error err;
    uint32_t g, h, s;
    char name[300];
    uint8_t text[900];
    fd = memfd_create("offsets", MFD_CLOEXEC);
    NEED(fd >= 0);
    tl_os_table.open = open_memory;
    memset(name, 'n', sizeof name);
    memset(text, 't', sizeof text);
    NEED(tl_offsets_open(-1, TL_OFFSETS_RESET, &t, &err) == TL_OK);
    NEED(tl_offsets_group(t, "g", 1, true, &g, &err) == TL_OK &&
         tl_offsets_group(t, name, sizeof name, true, &h, &err) == TL_OK);
    for (uint32_t p = 0; p < 4; p++) {
        NEED(tl_offsets_slot(t, p % 2 ? g : h, id, p, true, &s, &err) == TL_OK &&
             tl_offsets_set(t, s, p, p, false) == TL_OK);
        NEED(tl_offsets_set_metadata(t, s, text, 20, &err) == TL_OK &&
             tl_offsets_set_metadata(t, s, text, p * 300, &err) == TL_OK);
    }
    tl_offsets_close(t);
    NEED(pread(fd, good, sizeof good, 0) == sizeof good);
}

static void mend_copy(uint32_t slot, metadata_copy *copy) {
    uint32_t crc = tl_crc32c(tl_crc32c(0, &slot, sizeof slot), copy, offsetof(metadata_copy, crc));
    copy->crc = tl_crc32c(crc, copy->text, copy->bytes);
}

static void mend_checksums(void) {
    for (uint32_t i = 0; i < TABLE_SLOTS; i++) {
        uint8_t *at = table + OFFSETS_HEADER_BYTES + i * OFFSETS_SLOT_BYTES;
        offset_slot o;
        overflow_slot v;
        group_slot g;
        memcpy(&o, at, sizeof o);
        memcpy(&v, at, sizeof v);
        memcpy(&g, at, sizeof g);
        if (o.kind == KIND_OFFSET) {
            o.crc = offset_crc(i, &o);
            for (int c = 0; c < 2; c++)
                if (o.copies[c].bytes <= METADATA_INLINE_BYTES)
                    mend_copy(i, &o.copies[c]);
            memcpy(at, &o, sizeof o);
        } else if (o.kind == KIND_OVERFLOW) {
            v.crc = overflow_crc(i, &v);
            memcpy(at, &v, sizeof v);
        } else if (o.kind == KIND_GROUP && g.name_bytes <= GROUP_INLINE_BYTES) {
            g.crc = group_crc(i, g.name_bytes, g.name);
            memcpy(at, &g, sizeof g);
        }
    }
}

static void use(tl_offsets *t, const uint8_t *data, size_t size) {
    tl_error err;
    tl_offset_view v;
    tl_offset_word w;
    char name[TL_OFFSETS_MAX_GROUP_BYTES];
    uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES];
    size_t bytes;
    uint32_t number, epoch, cursor = 0;
    int rc;
    for (int i = 0; i < 100 && (rc = tl_offsets_next_group(t, &cursor, &number, &err)) != 0; i++) {
        NEED(rc == 1 || rc == TL_ECORRUPT);
        if (rc == 1 && tl_offsets_group_name(t, number, name, &bytes, &err) == TL_OK) {
            NEED(bytes >= 1 && bytes <= sizeof name);
            rc = tl_offsets_group(t, name, bytes, false, &number, &err);
            NEED(rc == TL_OK || rc == TL_ECORRUPT);
        }
    }
    cursor = 0;
    for (int i = 0; i < 100 && (rc = tl_offsets_next(t, &cursor, &v, &err)) != 0; i++) {
        NEED(rc == 1 || rc == TL_ECORRUPT);
        if (rc != 1)
            continue;
        rc = tl_offsets_metadata(t, v.slot, text, &bytes, &err);
        NEED((rc == TL_OK && bytes <= sizeof text) || rc == TL_ECORRUPT);
        NEED(tl_offsets_read(t, v.slot, &w, NULL) == TL_OK && w.offset == v.word.offset);
        NEED(tl_offsets_claim(t, v.slot, w, 3, &epoch) == TL_OK && epoch == w.epoch + 1);
        NEED(tl_offsets_commit(t, v.slot, 3, epoch, 8, 8) == TL_OK && tl_offsets_release(t, v.slot, 3, epoch) == TL_OK);
        tl_offsets_mark_saved(t, &v);
        if (size > 0)
            tl_offsets_set_metadata(t, v.slot, text, data[(uint32_t)i % size] * 9u, &err);
    }
    for (size_t i = 0; i + 1 < size && i < 20; i++) {
        uint32_t slot = data[i] % 64u;
        switch (data[i + 1] % 5) {
        case 0: tl_offsets_slot(t, slot, id, data[i], true, &number, &err); break;
        case 1: tl_offsets_group(t, data + i, size - i < 400 ? size - i : 400, true, &number, &err); break;
        case 2: tl_offsets_forget_group(t, slot, &err); break;
        case 3: tl_offsets_inspect(t, slot, &err); break;
        default: tl_offsets_set_metadata(t, slot, good, data[i] * 17u, &err); break;
        }
    }
    if (size % 7 == 0)
        tl_offsets_forget_channel(t, id, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tl_offsets *t;
    tl_error err;
    tl_offsets_report report;
    if (fd < 0)
        prepare();
    if (size == 0)
        return 0;
    uint8_t how = *data++;
    size--;
    size_t length = sizeof table;
    memcpy(table, good, sizeof table);
    if (how % 4 == 0) {
        length = size < sizeof table ? size : sizeof table;
        memcpy(table, data, length);
    } else {
        for (size_t at = 0; at + 4 <= size;) {
            size_t to = (data[at] | (size_t)data[at + 1] << 8) % sizeof table, n = data[at + 2] % 32u + 1u;
            n = n < size - at - 3 ? n : size - at - 3;
            n = n < sizeof table - to ? n : sizeof table - to;
            memcpy(table + to, data + at + 3, n);
            at += 3 + n;
        }
        if (how % 4 == 1)
            length = how * 56u;
    }
    if (how & 64)
        mend_checksums();
    NEED(ftruncate(fd, 0) == 0 && pwrite(fd, table, length, 0) == (ssize_t)length);
    if (how & 128)
        NEED(ftruncate(fd, 128 << 10) == 0);
    int rc = tl_offsets_check(-1, NULL, NULL, &report, &err);
    NEED(rc == TL_OK || ((rc == TL_ECORRUPT || rc == TL_EUNSUPPORTED) && err.position >= 0));
    if (tl_offsets_open(-1, TL_OFFSETS_OPEN, &t, &err) == TL_OK) {
        use(t, data, size);
        tl_offsets_close(t);
    }
    return 0;
}
