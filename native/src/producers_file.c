/* What does a file BASE.producers say, and how does it come to the disk?
 *
 * Imports producers.h, crc32c.h. Callable from any thread; a file is written under a temporary name of its process and
 * renamed, so it is whole or not there. It holds the state of all producers where segment BASE begins. Base offsets are
 * never used for two segments, not even after a power cut, and the state is a function of the log: so a file whose CRCs
 * hold is right, whoever wrote it and whenever, and a file that a power cut left half written is none.
 * Layout: docs/format.md. Little-endian. */
#define _POSIX_C_SOURCE 200809L

#include "producers.h"

#include "tidelog/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define MAGIC 0x3173646f72706474u /* "tdprods1" */
#define VERSION 1u
#define HEADER_BYTES 64u
#define ENTRY_BYTES 256u
#define BATCHES_AT 32u
#define BATCH_BYTES 32u
#define PORTION 64u /* entries written or read at once */

/* --- bytes --- */

static void put_header(uint8_t *out, uint64_t place, uint32_t entries) {
    memset(out, 0, HEADER_BYTES);
    tl_put_le64(out, MAGIC);
    tl_put_le32(out + 8, VERSION);
    tl_put_le32(out + 12, ENTRY_BYTES);
    tl_put_le64(out + 16, place);
    tl_put_le64(out + 24, entries | (uint64_t)~entries << 32);
    tl_put_le32(out + 60, tl_crc32c(0, out, 60));
}

static void put_entry(uint8_t *out, const tl_producer_state *state) {
    memset(out, 0, ENTRY_BYTES);
    tl_put_le64(out, (uint64_t)state->producer_id);
    memcpy(out + 8, &state->epoch, 2);
    memcpy(out + 10, &state->batch_count, 2);
    tl_put_le32(out + 12, (uint32_t)state->coordinator_epoch);
    tl_put_le64(out + 16, (uint64_t)state->txn_first_offset);
    tl_put_le64(out + 24, (uint64_t)state->last_timestamp_ms);
    for (size_t i = 0; i < state->batch_count; i++) {
        uint8_t *at = out + BATCHES_AT + i * BATCH_BYTES;
        const tl_producer_batch *batch = &state->batches[i];
        tl_put_le32(at, (uint32_t)batch->first_sequence);
        tl_put_le32(at + 4, (uint32_t)batch->last_sequence);
        tl_put_le64(at + 8, (uint64_t)batch->first_offset);
        tl_put_le64(at + 16, (uint64_t)batch->last_offset);
        tl_put_le64(at + 24, (uint64_t)batch->timestamp_ms);
    }
    tl_put_le64(out + 192, (uint64_t)state->last_offset);
    tl_put_le64(out + 200, state->txn_first_place);
    tl_put_le32(out + 252, tl_crc32c(0, out, 252));
}

static bool get_entry(const uint8_t *from, tl_producer_state *state) {
    if (tl_le32(from + 252) != tl_crc32c(0, from, 252))
        return false;
    memset(state, 0, sizeof *state);
    state->producer_id = (int64_t)tl_le64(from);
    memcpy(&state->epoch, from + 8, 2);
    memcpy(&state->batch_count, from + 10, 2);
    state->coordinator_epoch = (int32_t)tl_le32(from + 12);
    state->txn_first_offset = (int64_t)tl_le64(from + 16);
    state->last_timestamp_ms = (int64_t)tl_le64(from + 24);
    state->last_offset = (int64_t)tl_le64(from + 192);
    state->txn_first_place = tl_le64(from + 200);
    if (state->producer_id < 0 || state->epoch < 0 || state->batch_count > TL_PRODUCER_BATCHES)
        return false;
    for (size_t i = 0; i < state->batch_count; i++) {
        const uint8_t *at = from + BATCHES_AT + i * BATCH_BYTES;
        tl_producer_batch *batch = &state->batches[i];
        batch->first_sequence = (int32_t)tl_le32(at);
        batch->last_sequence = (int32_t)tl_le32(at + 4);
        batch->first_offset = (int64_t)tl_le64(at + 8);
        batch->last_offset = (int64_t)tl_le64(at + 16);
        batch->timestamp_ms = (int64_t)tl_le64(at + 24);
    }
    return true;
}

/* --- reading --- */

bool tl_producers_file_exists(tl_partition *partition, int64_t base_offset) {
    char path[360];
    tl_segment_path(partition, base_offset, ".producers", path);
    int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
    if (fd >= 0)
        tl_os->close(fd);
    return fd >= 0;
}

static int damaged(const char *path, int64_t position, tl_error *err) {
    return tl_fail(err, TL_ECORRUPT, "a file of producers is damaged", path, position);
}

static int load_entries(int fd, const char *path, uint32_t entries, tl_producer_table *table, tl_error *err) {
    uint8_t portion[PORTION * ENTRY_BYTES];
    for (uint32_t at = 0; at < entries;) {
        uint32_t take = entries - at < PORTION ? entries - at : PORTION;
        uint64_t from = HEADER_BYTES + (uint64_t)at * ENTRY_BYTES;
        int64_t got = tl_os->pread(fd, portion, (size_t)take * ENTRY_BYTES, from);
        if (got < 0)
            return tl_fail_sys(err, (int)got, "a file of producers cannot be read", path);
        if (got != (int64_t)take * ENTRY_BYTES)
            return damaged(path, (int64_t)from, err);
        for (uint32_t i = 0; i < take; i++) {
            tl_producer_state state;
            if (!get_entry(portion + (size_t)i * ENTRY_BYTES, &state))
                return damaged(path, (int64_t)(from + (uint64_t)i * ENTRY_BYTES), err);
            int status = tl_producer_table_put(table, &state, err);
            if (status < 0)
                return status;
        }
        at += take;
    }
    return TL_OK;
}

static int load_open(int fd, const char *path, uint64_t place, tl_producer_table *table, tl_error *err) {
    uint8_t header[HEADER_BYTES];
    tl_stat stat;
    int status = tl_os->stat(fd, &stat);
    int64_t got = status < 0 ? status : tl_os->pread(fd, header, sizeof header, 0);
    if (got < 0)
        return tl_fail_sys(err, (int)got, "a file of producers cannot be read", path);
    if (got != sizeof header || tl_le64(header) != MAGIC || tl_le32(header + 60) != tl_crc32c(0, header, 60))
        return damaged(path, 0, err);
    if (tl_le32(header + 8) != VERSION || tl_le32(header + 12) != ENTRY_BYTES)
        return tl_fail(err, TL_ECORRUPT, "a file of producers is of another version", path, 8);
    uint64_t guarded = tl_le64(header + 24);
    uint32_t entries = (uint32_t)guarded;
    if ((uint32_t)(guarded >> 32) != ~entries || stat.size_bytes != HEADER_BYTES + (uint64_t)entries * ENTRY_BYTES)
        return damaged(path, 24, err);
    if (tl_le64(header + 16) != place)
        return damaged(path, 16, err);
    return load_entries(fd, path, entries, table, err);
}

int tl_producers_load(tl_partition *partition, uint32_t ordinal, int64_t base_offset, tl_producer_table *table, tl_error *err) {
    char path[360];
    tl_segment_path(partition, base_offset, ".producers", path);
    int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "a file of producers is missing", path, -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "a file of producers cannot be opened", path);
    tl_producer_table_clear(table);
    int status = load_open(fd, path, tl_place(ordinal, 0), table, err);
    tl_os->close(fd);
    if (status < 0)
        tl_producer_table_clear(table);
    return status;
}

/* --- writing --- */

typedef struct writing {
    int fd, status;
    uint64_t to;
    uint32_t held;
    uint8_t portion[PORTION * ENTRY_BYTES];
} writing;

static int flush(writing *w) {
    int64_t written = w->held == 0 ? 0 : tl_os->pwrite(w->fd, w->portion, (size_t)w->held * ENTRY_BYTES, w->to);
    w->to += (uint64_t)w->held * ENTRY_BYTES;
    w->held = 0;
    w->status = written < 0 ? (int)written : 0;
    return w->status;
}

static int write_state(void *context, const tl_producer_state *state) {
    writing *w = context;
    put_entry(w->portion + (size_t)w->held * ENTRY_BYTES, state);
    return ++w->held == PORTION ? flush(w) : 0;
}

int tl_producers_sync_file(tl_partition *partition, int64_t base_offset, tl_error *err) {
    char path[360];
    tl_segment_path(partition, base_offset, ".producers", path);
    int fd = tl_os->open(partition->store->dir, path, O_RDWR, 0);
    int status = fd < 0 ? fd : tl_os->fsync(fd);
    if (fd >= 0)
        tl_os->close(fd);
    if (status == 0)
        status = tl_segment_sync_names(partition);
    return status < 0 ? tl_fail_sys(err, status, "a file of producers cannot be synced", path) : TL_OK;
}

int tl_producers_store(tl_partition *partition, uint32_t ordinal, int64_t base_offset, const tl_producer_table *table,
                       bool durable, tl_error *err) {
    tl_store *store = partition->store;
    char path[360], temporary[360], suffix[48];
    tl_segment_path(partition, base_offset, ".producers", path);
    snprintf(suffix, sizeof suffix, ".producers-%u.new", store->slot);
    tl_segment_path(partition, base_offset, suffix, temporary);
    writing w = {.to = HEADER_BYTES};
    int status = tl_os->mkdir(store->dir, partition->cold->directory, TL_DIRECTORY_MODE);
    if (status < 0 && status != -EEXIST)
        return tl_fail_sys(err, status, "the directory of a partition cannot be made", partition->cold->directory);
    w.fd = tl_os->open(store->dir, temporary, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (w.fd < 0)
        return tl_fail_sys(err, w.fd, "a file of producers cannot be created", temporary);
    uint8_t header[HEADER_BYTES];
    put_header(header, tl_place(ordinal, 0), (uint32_t)tl_producer_table_count(table));
    int64_t written = tl_os->pwrite(w.fd, header, sizeof header, 0);
    status = written < 0 ? (int)written : tl_producer_table_each(table, &w, write_state);
    if (status == 0)
        status = flush(&w);
    if (status == 0 && durable) /* before it has its name: what is durable is never seen half written */
        status = tl_os->fsync(w.fd);
    TL_POINT("producers.written");
    tl_os->close(w.fd);
    if (status == 0)
        status = tl_os->rename(store->dir, temporary, store->dir, path);
    TL_POINT("producers.named");
    if (status < 0) {
        (void)tl_os->unlink(store->dir, temporary, false);
        return tl_fail_sys(err, status, "a file of producers cannot be written", temporary);
    }
    status = durable ? tl_producers_sync_file(partition, base_offset, err) : TL_OK;
    TL_POINT("producers.durable");
    return status;
}
