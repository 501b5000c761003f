/* Can a partition's files, whatever is in them, make recovery, reads, searches or checks touch anything they must not?
 *
 * Imports store_kit.h. Single-threaded. Input: one byte of choices, then the bytes of the active segment behind a short start
 * that was synced (or in its place); some inputs have the CRCs of what looks like batches made right first, or nothing would
 * get past them. The files are opened in a new boot by the real store: what it says must be typed, what it reads must be in
 * the bytes, and what was synced must be read. */
#define _GNU_SOURCE
#include "../native/store_kit.h"
#include "tidelog/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { START = 3, MOST = 60000, SEGMENT = 65536 };
enum { FIX_CRC = 1, OVER_START = 2, SEALED = 4, SCRIBBLE_INDEX = 8, SCRIBBLE_SEALS = 16 };

static char image[200], place[220];
static kit_ledger ledger;
static uint8_t bytes[SEGMENT];
static size_t start_bytes;

static void copy_file(const char *from_dir, const char *to_dir, const char *name) {
    char from[600], to[600];
    static uint8_t buffer[1 << 20];
    snprintf(from, sizeof from, "%s/%s", from_dir, name);
    snprintf(to, sizeof to, "%s/%s", to_dir, name);
    int in = open(from, O_RDONLY);
    if (in < 0 && strchr(name, 'i') != NULL) /* so little needs no index */
        return;
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t n = read(in, buffer, sizeof buffer);
    CHECK(in >= 0 && out >= 0 && n >= 0 && n < (ssize_t)sizeof buffer);
    ssize_t used = n;
    while (used > 0 && buffer[used - 1] == 0)
        used--;
    CHECK(write(out, buffer, (size_t)used) == used && ftruncate(out, n) == 0);
    close(in);
    close(out);
}

static void copy_image(void) {
    static const char *const names[] = {"store.lock", "tidelog.json", "checkpoint.a", "checkpoint.b", "offsets"};
    char inner[300], from[300];
    kit_remove(AT_FDCWD, place);
    snprintf(inner, sizeof inner, "%s/orders-0", place);
    snprintf(from, sizeof from, "%s/orders-0", image);
    CHECK(mkdir(place, 0700) == 0 && mkdir(inner, 0700) == 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        copy_file(image, place, names[i]);
    copy_file(from, inner, "00000000000000000000.log");
    copy_file(from, inner, "00000000000000000000.index");
    copy_file(from, inner, "00000000000000000000.timeindex");
}

static void remove_all(void) {
    kit_remove(AT_FDCWD, image);
    kit_remove(AT_FDCWD, place);
}

/* Three messages, synced and in the checkpoint, taken as they stand while the store is open. */
static void prepare(void) {
    tl_store *store;
    tl_partition *partition;
    tl_error err = {0};
    tl_appended out;
    uint32_t slot;
    kit_install();
    kit_directory(image, "fuzz");
    snprintf(place, sizeof place, "%s-case", image);
    CHECK(kit_open(image, &store, NULL, &err) == TL_OK && tl_store_ready(store, &err) == TL_OK);
    CHECK(kit_create(store, 0, SEGMENT, &slot, &err) == TL_OK &&
          tl_store_partition(store, slot, kit_channel, &partition, &err) == TL_OK);
    for (int i = 0; i < START; i++)
        CHECK(kit_append(partition, &ledger, 1, 0, &out, &err) == TL_OK);
    CHECK(tl_store_housekeep(store, &err) == TL_OK);
    start_bytes = (size_t)tl_partition_tail(partition);
    char path[300];
    snprintf(path, sizeof path, "%s/orders-0/00000000000000000000.log", image);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && read(fd, bytes, start_bytes) == (ssize_t)start_bytes);
    close(fd);
    char kept[220]; /* closing trims and marks it clean: the image is taken before */
    snprintf(kept, sizeof kept, "%s-open", image);
    snprintf(place, sizeof place, "%s", kept);
    copy_image();
    tl_partition_release(partition);
    CHECK(tl_store_close(store, &err) == TL_OK);
    tl_store_free(store);
    kit_remove(AT_FDCWD, image);
    CHECK(rename(kept, image) == 0);
    snprintf(place, sizeof place, "%s-case", image);
    CHECK(atexit(remove_all) == 0);
}

/* Offsets that follow on and CRCs that are right, for as long as the lengths make sense. */
static void make_right(uint8_t *at, size_t size, int64_t offset) {
    while (size >= TL_BATCH_HEADER_BYTES) {
        uint32_t length = tl_be32(at + 8) % 600;
        length = length < TL_BATCH_HEADER_BYTES - TL_BATCH_PREFIX_BYTES ? TL_BATCH_HEADER_BYTES - TL_BATCH_PREFIX_BYTES
                                                                        : length;
        if (length > size - TL_BATCH_PREFIX_BYTES)
            length = (uint32_t)(size - TL_BATCH_PREFIX_BYTES);
        tl_put_be64(at, (uint64_t)offset);
        tl_put_be32(at + 8, length);
        tl_put_be32(at + 12, 0);
        at[16] = 2;
        tl_put_be32(at + 17, tl_crc32c(0, at + TL_BATCH_CRC_FROM, length + TL_BATCH_PREFIX_BYTES - TL_BATCH_CRC_FROM));
        offset += (int64_t)(tl_be32(at + 23) & 0xffff) + 1;
        at += length + TL_BATCH_PREFIX_BYTES;
        size -= length + TL_BATCH_PREFIX_BYTES;
    }
}

static void typed(int status, const tl_error *err) {
    static const int allowed[] = {TL_ECORRUPT, TL_ERANGE, TL_EBUS, TL_EUNSUPPORTED, TL_EFAILED, TL_ETOOLARGE, TL_EFULL};
    bool found = status >= 0;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        found |= status == allowed[i];
    if (!found || (status < 0 && (err->what == NULL || err->code != status)))
        REFUSE("%s: %s, %s", tl_status_name(status), err->what == NULL ? "" : err->what, err->path);
}

static int unpack(void *context, tl_chunk *chunk, const tl_batch *batch, size_t at, size_t payload_bytes,
                  tl_error *err) {
    (void)context, (void)batch;
    int status = tl_chunk_reserve(chunk, payload_bytes, 0, err);
    if (status == TL_OK) {
        memmove(chunk->bytes + chunk->used, chunk->bytes + at, payload_bytes); /* as if it were not compressed */
        chunk->used += payload_bytes;
    }
    return status;
}

static void write_into(const char *name, size_t from, const uint8_t *what, size_t count, size_t length) {
    char path[400];
    snprintf(path, sizeof path, "%s/orders-0/%s", place, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && pwrite(fd, what, count, (off_t)from) == (ssize_t)count);
    if (length > 0)
        CHECK(ftruncate(fd, (off_t)length) == 0);
    close(fd);
}

static void use(tl_partition *partition, bool start_is_whole, uint8_t choices) {
    tl_error err = {0};
    tl_bounds bounds;
    int status = tl_partition_bounds(partition, &bounds, &err);
    typed(status, &err);
    if (status < 0)
        return;
    CHECK(bounds.log_start == 0 && bounds.log_end >= START);
    tl_chunk chunk = {0};
    tl_cursor cursor = {0};
    int64_t last = -1, seen = 0;
    for (int rounds = 0; cursor.offset < bounds.log_end; rounds++) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        CHECK(rounds < 5000);
        int64_t from = cursor.offset;
        status = tl_partition_read(partition, &cursor, &chunk, 10, 4096, 0, &end, &err);
        typed(status, &err);
        if (status < 0) {
            CHECK(status != TL_ERANGE && end.skipped_to != from);
            if (end.skipped_to < 0)
                break;
            CHECK(end.skipped_to > from);
            cursor = (tl_cursor){.offset = end.skipped_to};
            continue;
        }
        if (chunk.count == 0 && !end.compressed && cursor.offset == from)
            break;
        for (size_t i = 0; i < chunk.count; i++) {
            const tl_record *r = &chunk.records[i];
            CHECK(r->offset > last && r->offset < bounds.log_end);
            last = r->offset;
            if (r->offset < START) {
                CHECK(!start_is_whole || kit_is(&chunk, r, ledger.entries[r->offset].number));
                seen++;
            }
            CHECK(r->value_bytes < 0 || r->value_at + (size_t)r->value_bytes <= chunk.used);
        }
    }
    CHECK(!start_is_whole || seen == START);
    const int64_t offsets[] = {0, 2, bounds.log_end - 1, bounds.log_end / 2, 4, 7},
                  times[] = {0, 1002, 1003, choices * 1000, INT64_MAX};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        size_t failed = 0;
        tl_chunk_clear(&chunk);
        status = tl_partition_read_at(partition, &offsets[i], 1, &chunk, 0, unpack, NULL, &failed, &err);
        typed(status, &err);
        CHECK(status < 0 || (chunk.count == 1 && chunk.records[0].offset == offsets[i]));
        CHECK(status == TL_OK || i > 1 || !start_is_whole);
    }
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t found = -1;
        status = tl_partition_find(partition, &times[i], 1, &found, unpack, NULL, &err);
        typed(status, &err);
        CHECK(status < 0 || (found >= 0 && found <= bounds.log_end));
    }
    uint8_t rows[64 * 40];
    size_t taken, need;
    tl_read_end end;
    cursor = (tl_cursor){.offset = START};
    status = tl_partition_read_rows(partition, &cursor, 40, rows, 64, NULL, NULL, &chunk, &taken, &need, 0, &end, &err);
    typed(status, &err);
    const tl_check_report report = {0};
    typed(tl_partition_check(partition, &report, &err), &err);
    tl_appended out;
    static kit_ledger unused;
    unused.count = 0;
    status = kit_append(partition, &unused, 2, 0, &out, &err);
    typed(status, &err);
    CHECK(status < 0 || out.base_offset >= bounds.log_end);
    tl_chunk_free(&chunk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (image[0] == 0)
        prepare();
    if (size < 1 || size > MOST)
        return 0;
    uint8_t choices = data[0];
    size_t from = (choices & OVER_START) != 0 ? 0 : start_bytes, count = size - 1;
    static uint8_t input[MOST];
    memcpy(input, data + 1, count);
    if ((choices & FIX_CRC) != 0)
        make_right(input, count, from == 0 ? 0 : START);
    copy_image();
    write_into("00000000000000000000.log", from, input, count, 0);
    if ((choices & SEALED) != 0) /* another segment behind it, where a batch might end */
        write_into("00000000000000000009.log", 0, input, count, 0);
    if ((choices & SCRIBBLE_INDEX) != 0) {
        write_into("00000000000000000000.index", 0, input, count > 4096 ? 4096 : count, 4096);
        write_into("00000000000000000000.timeindex", 0, input, count > 4096 ? 4096 : count, 4096);
    }
    if ((choices & SCRIBBLE_SEALS) != 0)
        write_into("seals", 0, input, count > 4096 ? 4096 : count, 4096);
    tl_store *store = NULL;
    tl_partition *partition = NULL;
    tl_error err = {0};
    kit_boot++;
    int status = kit_open(place, &store, NULL, &err);
    if (status < 0)
        REFUSE("the store does not open: %s, %s, %s", tl_status_name(status), err.what, err.path);
    CHECK(tl_store_ready(store, &err) == TL_OK);
    CHECK(tl_store_partition(store, 0, kit_channel, &partition, &err) == TL_OK);
    use(partition, from != 0, choices);
    tl_partition_release(partition);
    status = tl_store_close(store, &err);
    typed(status, &err);
    tl_store_free(store);
    return 0;
}
