/* Which batches does a log hold, and is all of it delivered that is not damaged?
 *
 * Imports store_kit.h, crc32c.h. Single-threaded. The facts are learned from the bytes of the files while nothing is damaged;
 * what is read later is compared with them by digests. */
#ifndef TIDELOG_TEST_FACTS_H
#define TIDELOG_TEST_FACTS_H

#include "store_kit.h"
#include "tidelog/crc32c.h"

#include <sys/mman.h>

enum { SEGMENT_BYTES = 65536, MOST_BATCHES = 4096, MOST_FILES = 12, SEAL_BYTES = 48, SEALS_HEADER = 64 };

/* --- what is there --- */

typedef struct batch_fact {
    int64_t base, next;
    uint32_t file, position, bytes; /* file: number of its segment in `files` */
    bool silent;                    /* nothing is delivered of it: control, empty */
    uint32_t digest;                /* of what is delivered */
} batch_fact;

typedef struct file_fact {
    char name[80];
    uint8_t *map;
    uint8_t *copy;
    uint32_t bytes, used; /* used: of a file allocated ahead, what means something */
    int segment;          /* which one it belongs to; -1: the seals */
    bool sealed, log;
} file_fact;

static char store_path[200];
static tl_store *store;
static tl_partition *partition;
static batch_fact batches[MOST_BATCHES];
static uint32_t batch_count;
static file_fact files[MOST_FILES];
static uint32_t file_count;
static int64_t log_end;

/* Payloads that other writers made: gzip, snappy, lz4, zstd, three records each. */
static const char *const compressed[] = {
    "00000000000000000000006f00000000029b24e9470001000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
    "ffff000000031f8b08000000000002039362606060c936e4ca48cdc9c9679063e06262e42acf2fca496162ca602a1363606561c9366664"
    "62ca6304007e2fecd32a000000",
    "00000000000000000000007100000000028467ac710002000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
    "ffff0000000382534e415050590000000001000000010000002c2aa41a000000046b310a68656c6c6f001e000a02010a776f726c640202"
    "68027616000504046b330102026e01",
    "00000000000000000000006a0000000002817af5560003000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
    "ffff0000000304224d186040822a0000801a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b3301"
    "02026e0100000000",
    "0000000000000000000000640000000002dcc84c8e0004000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
    "ffff0000000328b52ffd202a5101001a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b33010202"
    "6e01"};

static void put_encoded(uint8_t *bytes, size_t size, size_t count, int64_t newest) {
    tl_error err = {0};
    tl_appended out;
    const tl_append what = {.encoded = bytes, .encoded_bytes = size, .count = count, .max_timestamp_ms = newest};
    if (tl_partition_append(partition, &what, 0, &out, &err) < 0)
        REFUSE("append: %s", err.what);
}

/* Until the tail is at or past `until`. Most batches are small, so that a 64 KiB segment holds many borders. */
static void fill(uint64_t until) {
    kit_ledger unused = {0};
    tl_appended out;
    tl_error err = {0};
    uint8_t bytes[400];
    for (int i = 0; tl_partition_tail(partition) < until; i++) {
        size_t count = i % 11 == 0 ? KIT_BATCH : i % 3 == 0 ? 1 : 4;
        CHECK(kit_append(partition, &unused, count, 0, &out, &err) == TL_OK);
        if (i % 6 == 1) {
            size_t size = check_unhex(compressed[i / 6 % 4], bytes);
            put_encoded(bytes, size, 3, 1700000000005);
        }
        if (i % 14 == 5)
            put_encoded(bytes, tl_batch_encode_marker(bytes, 0, 9, 1, i & 1, 0, 1000 + i), 1, 1000 + i);
        if (i % 14 == 9)
            put_encoded(bytes, tl_batch_encode_empty(bytes, 0, 4, &tl_batch_plain), 5, -1);
    }
    free(unused.entries);
}

static uint8_t *map_file(const char *name, uint32_t *bytes) {
    char path[600];
    struct stat about;
    snprintf(path, sizeof path, "%s/orders-0/%s", store_path, name);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && fstat(fd, &about) == 0 && about.st_size > 0);
    uint8_t *map = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    *bytes = (uint32_t)about.st_size;
    return map;
}

static void add_file(const char *name, int segment, bool sealed, bool log) {
    CHECK(file_count < MOST_FILES);
    file_fact *f = &files[file_count++];
    snprintf(f->name, sizeof f->name, "%.79s", name);
    f->map = map_file(name, &f->bytes);
    f->used = f->bytes;
    f->copy = malloc(f->bytes);
    CHECK(f->copy != NULL);
    memcpy(f->copy, f->map, f->bytes);
    f->segment = segment;
    f->sealed = sealed;
    f->log = log;
}

static uint32_t digest_record(const tl_chunk *chunk, const tl_record *r, uint32_t crc) {
    const int64_t facts[4] = {r->offset, r->timestamp_ms, r->value_bytes, r->key_bytes};
    crc = tl_crc32c(crc, facts, sizeof facts);
    if (r->value_bytes > 0)
        crc = tl_crc32c(crc, chunk->bytes + r->value_at, (size_t)r->value_bytes);
    if (r->key_bytes > 0)
        crc = tl_crc32c(crc, chunk->bytes + r->key_at, (size_t)r->key_bytes);
    return tl_crc32c(crc, chunk->bytes + r->headers_at, r->headers_bytes);
}

/* The batch that holds an offset, by the facts. */
static uint32_t batch_of(int64_t offset) {
    uint32_t low = 0, high = batch_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (batches[middle].next <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* --- reading --- */

typedef struct reading_result {
    uint8_t seen[MOST_BATCHES]; /* delivered whole and as it was */
    uint32_t errors;
    char file[80]; /* of the last error */
    int64_t position;
    const char *what;
} reading_result;

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* Reads [from, until); anything that is not what was written ends the program. */
static void read_range(int64_t from, int64_t until, reading_result *out, const char *when) {
    static tl_chunk chunk;
    tl_cursor cursor = {.offset = from};
    out->errors = 0;
    for (int rounds = 0; cursor.offset < until; rounds++) {
        if (rounds > 5000)
            REFUSE("%s: reading does not end", when);
        tl_read_end end;
        tl_error err = {0};
        tl_chunk_clear(&chunk);
        int64_t began = cursor.offset;
        int status = tl_partition_read(partition, &cursor, &chunk, 1, 1 << 20, 0, &end, &err);
        if (status < 0) {
            if ((status != TL_ECORRUPT && status != TL_EBUS) || err.what == NULL || err.path[0] == 0)
                REFUSE("%s: read at %lld: %s, %s", when, (long long)began, tl_status_name(status),
                       err.what == NULL ? "" : err.what);
            out->errors++;
            snprintf(out->file, sizeof out->file, "%.79s", name_of(err.path));
            out->position = err.position;
            out->what = err.what;
            if (end.skipped_to < 0)
                return;
            if (end.skipped_to <= cursor.offset)
                REFUSE("%s: after the error at %lld reading is to go on at %lld", when, (long long)cursor.offset,
                       (long long)end.skipped_to);
            cursor = (tl_cursor){.offset = end.skipped_to};
            continue;
        }
        if (chunk.count == 0 && !end.compressed) {
            if (cursor.offset == began)
                return;
            continue;
        }
        int64_t first = end.compressed ? end.batch.base_offset : chunk.records[0].offset;
        uint32_t n = batch_of(first), digest = 0;
        if (n >= batch_count)
            REFUSE("%s: offset %lld was never given out", when, (long long)first);
        if (end.compressed)
            digest = tl_crc32c(1, chunk.bytes + end.batch_at, end.batch.bytes);
        for (size_t i = 0; i < chunk.count; i++)
            digest = digest_record(&chunk, &chunk.records[i], digest);
        if (first != batches[n].base || digest != batches[n].digest)
            REFUSE("%s: the batch at offset %lld was read as something else", when, (long long)batches[n].base);
        out->seen[n] = 1;
    }
}

/* Walks the logs by the facts of their headers, and fills `batches`. Nothing is damaged yet. */
static void learn(void) {
    static tl_chunk chunk;
    for (uint32_t f = 0; f < file_count; f++) {
        if (!files[f].log)
            continue;
        uint32_t at = 0;
        tl_batch batch;
        tl_error err = {0};
        while (at < files[f].bytes && tl_batch_parse(files[f].map + at, files[f].bytes - at, &batch, &err) == TL_OK) {
            batch_fact *b = &batches[batch_count++];
            CHECK(batch_count < MOST_BATCHES && tl_batch_crc_ok(files[f].map + at, &batch));
            *b = (batch_fact){.base = batch.base_offset,
                              .next = tl_batch_next_offset(&batch),
                              .file = f,
                              .position = at,
                              .bytes = batch.bytes,
                              .silent = batch.count == 0 || tl_batch_is_control(&batch)};
            if (tl_batch_codec(&batch) != 0) {
                b->digest = tl_crc32c(1, files[f].map + at, batch.bytes);
            } else if (!b->silent) {
                tl_chunk_clear(&chunk);
                CHECK(tl_chunk_reserve(&chunk, batch.bytes, (size_t)batch.count, &err) == TL_OK);
                memcpy(chunk.bytes, files[f].map + at, batch.bytes);
                CHECK(tl_batch_records(chunk.bytes, TL_BATCH_HEADER_BYTES, batch.bytes - TL_BATCH_HEADER_BYTES, &batch,
                                       chunk.records, &err) == TL_OK);
                for (int32_t i = 0; i < batch.count; i++)
                    b->digest = digest_record(&chunk, &chunk.records[i], b->digest);
            }
            at += batch.bytes;
        }
        files[f].used = at;
        CHECK(!files[f].sealed || at == files[f].bytes);
    }
    tl_chunk_free(&chunk);
    log_end = batches[batch_count - 1].next;
}

#endif
