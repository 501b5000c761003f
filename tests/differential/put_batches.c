/* How do batches that others have written get into a store, the way a broker takes them in?
 *
 * put_batches STORE SLOT CHANNEL FILE [abandon]: appends every batch of FILE to a partition, which nobody may have open.
 * Each is parsed, its CRC checked and, where it is not compressed, its records decoded before it is appended as it is.
 * With "abandon" the process leaves without closing the store, as one that is killed does.
 * Imports log.h. One thread. */
#include "tidelog/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void fail(const char *doing, const tl_error *err) {
    fprintf(stderr, "put_batches: %s: %s (code %d, errno %d, %s at %lld)\n", doing, err->what, err->code,
            err->sys_errno, err->path, (long long)err->position);
    exit(1);
}

static uint8_t *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    *bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*bytes == 0 ? 1 : *bytes);
    if (data == NULL || fread(data, 1, *bytes, file) != *bytes) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return data;
}

/* One batch in memory of its own, so that a step past its end is seen by the sanitizers. Returns its size. */
static size_t put(tl_partition *partition, const uint8_t *from, size_t available, int64_t *next_offset) {
    tl_error err = {0};
    tl_batch batch;
    if (tl_batch_parse(from, available, &batch, &err) < 0)
        fail("parse", &err);
    uint8_t *own = malloc(batch.bytes);
    if (own == NULL)
        exit(1);
    memcpy(own, from, batch.bytes);
    if (!tl_batch_crc_ok(own, &batch)) {
        fprintf(stderr, "put_batches: the CRC of the batch at offset %lld is taken for wrong\n",
                (long long)batch.base_offset);
        exit(1);
    }
    if (tl_batch_codec(&batch) == 0 && batch.count > 0) {
        tl_record *records = malloc((size_t)batch.count * sizeof *records);
        if (records == NULL)
            exit(1);
        if (tl_batch_records(own, TL_BATCH_HEADER_BYTES, batch.bytes - TL_BATCH_HEADER_BYTES, &batch, records, &err) <
            0)
            fail("decode the records", &err);
        free(records);
    }
    const tl_append what = {.encoded = own,
                            .encoded_bytes = batch.bytes,
                            .count = (size_t)batch.last_offset_delta + 1,
                            .max_timestamp_ms = batch.max_timestamp_ms};
    tl_appended result;
    if (tl_partition_append(partition, &what, 0, &result, &err) < 0)
        fail("append", &err);
    if (*next_offset >= 0 && result.base_offset != *next_offset) {
        fprintf(stderr, "put_batches: a batch got offset %lld after %lld\n", (long long)result.base_offset,
                (long long)*next_offset);
        exit(1);
    }
    *next_offset = result.next_offset;
    free(own);
    return batch.bytes;
}

int main(int count, char **arguments) {
    if (count < 5 || strlen(arguments[3]) != 32) {
        fprintf(stderr, "usage: put_batches STORE SLOT CHANNEL FILE [abandon]\n");
        return 2;
    }
    uint8_t channel[16];
    for (size_t i = 0; i < sizeof channel; i++) {
        const char digits[3] = {arguments[3][2 * i], arguments[3][2 * i + 1], 0};
        channel[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    const tl_store_options options = {.flush_interval_ms = 1000, .lock_timeout_ms = 5000, .no_housekeeper = true};
    tl_store *store;
    tl_partition *partition;
    tl_recovery recovery;
    tl_error err = {0};
    int state;
    if (tl_store_open(arguments[1], &options, &store, &state, &recovery, &err) < 0)
        fail("open the store", &err);
    if (state == TL_STORE_RECOVERED && tl_store_ready(store, &err) < 0)
        fail("make the store ready", &err);
    if (tl_store_partition(store, (uint32_t)strtoul(arguments[2], NULL, 10), channel, &partition, &err) < 0)
        fail("take the partition", &err);
    size_t bytes, at = 0, batches = 0;
    uint8_t *data = read_file(arguments[4], &bytes);
    int64_t next_offset = -1;
    for (; at < bytes; batches++)
        at += put(partition, data + at, bytes - at, &next_offset);
    free(data);
    printf("%zu batches\n", batches);
    fflush(stdout);
    if (count > 5)
        _exit(0);
    tl_partition_release(partition);
    if (tl_store_close(store, &err) < 0)
        fail("close the store", &err);
    tl_store_free(store);
    return 0;
}
