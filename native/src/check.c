/* Is everything that a partition says it holds really there and whole?
 *
 * Imports handles.h, guard.h, reading.h. Read-only, callable beside writers: it looks at what stood before the tail when
 * it began. CRCs of batches, continuity of offsets, seals (length, end, running header CRC), both indexes, stray files. */
#include "transacting.h"

#include "reading.h"
#include "tidelog/crc32c.h"
#include "tidelog/guard.h"
#include "tidelog/ids.h"

#include <stdio.h>

typedef struct checking {
    tl_partition *partition;
    const tl_check_report *report;
    tl_reading reading;
    uint32_t header_crc, batches;
    int64_t max_timestamp_ms;
    uint64_t messages;
    tl_txn_opens opens;
    int findings;
} checking;

static void found(checking *c, const char *file, int64_t position, const char *what, int64_t first, int64_t next) {
    c->findings++;
    if (c->report->finding != NULL)
        c->report->finding(c->report->context, file, position, what, first, next);
}

static void found_here(checking *c, uint32_t position, const char *what, int64_t first, int64_t next) {
    char path[360];
    tl_segment_path(c->partition, c->reading.segment->base_offset, ".log", path);
    found(c, path, position, what, first, next);
}

/* CRC, and the running CRC of headers. 1: whole, 0: not, or a negative code. */
static int check_bytes(checking *c, uint32_t position, const tl_batch *batch, tl_error *err) {
    volatile bool whole = false;
    tl_guard guard;
    TL_GUARDED(guard) {
        const uint8_t *at = c->reading.segment->map + position;
        whole = tl_batch_crc_ok(at, batch);
        c->header_crc = tl_crc32c(c->header_crc, at, TL_BATCH_CRC_FROM);
    }
    TL_GUARD_CAUGHT(guard) { return tl_reading_bus(&c->reading, &guard, err); }
    return whole ? 1 : 0;
}

/* The records themselves, where they are readable without unpacking. */
static const char *check_records(checking *c, uint32_t position, const tl_batch *batch, tl_chunk *chunk,
                                 tl_error *err) {
    if (batch->count == 0 || tl_batch_codec(batch) != 0)
        return NULL;
    tl_chunk_clear(chunk);
    if (tl_chunk_reserve(chunk, batch->bytes, (size_t)batch->count, err) < 0)
        return "no memory to look into a batch";
    volatile bool copied = false;
    tl_guard guard;
    TL_GUARDED(guard) { copied = tl_batch_copy_checked(chunk->bytes, c->reading.segment->map + position, batch); }
    TL_GUARD_CAUGHT(guard) { copied = false; }
    tl_error inner = {0};
    if (!copied)
        return "a batch changed while it was read";
    if (tl_batch_records(chunk->bytes, TL_BATCH_HEADER_BYTES, batch->bytes - TL_BATCH_HEADER_BYTES, batch,
                         chunk->records, &inner) < 0)
        return inner.what;
    return NULL;
}

static void check_seal(checking *c, uint32_t position, int64_t expected) {
    uint32_t ordinal = c->reading.segment->ordinal;
    tl_seal seal;
    tl_error err = {0};
    if (ordinal >= tl_place_ordinal(c->reading.bounds.tail))
        return;
    if (tl_seals_read(c->partition, ordinal, &seal, &err) < 0) {
        found(c, err.path, err.position, err.what, c->reading.segment->base_offset, expected);
        return;
    }
    if (position == seal.length && seal.end_offset < expected)
        found_here(c, position, "a segment ends behind the offset in its seal", expected, expected);
    if (position == seal.length && (seal.header_crc != c->header_crc || seal.batches != c->batches))
        found_here(c, 0, "the batch headers do not have the CRC that the seal says", seal.base_offset, seal.end_offset);
    if (position == seal.length && seal.max_timestamp_ms != c->max_timestamp_ms)
        found_here(c, 0, "the newest timestamp is not the one in the seal", seal.base_offset, seal.end_offset);
}

static int map_index(checking *c, tl_index *index, tl_error *err) {
    int status = tl_segment_reader_index(c->partition, c->reading.segment, index, err);
    return status;
}

static void index_finding(checking *c, const tl_error *err, const char *suffix, int64_t next) {
    char path[360];
    tl_segment_path(c->partition, c->reading.segment->base_offset, suffix, path);
    found(c, path, err->position, err->what, c->reading.segment->base_offset, next);
}

static int index_step(const tl_index *index, tl_index_check *check, uint32_t position, const tl_batch *batch,
                      tl_error *err) {
    int status = TL_OK;
    tl_guard guard;
    TL_GUARDED(guard) { status = tl_index_check_step(index, check, position, batch, err); }
    TL_GUARD_CAUGHT(guard) {
        return tl_fail(err, TL_ECORRUPT, "an index is shorter than its count of entries", "", -1);
    }
    return status;
}

/* The index of aborted transactions is compared at the end with what the log says. */
static int step_transactions(checking *c, uint32_t position, const tl_batch *batch, tl_error *err) {
    uint8_t bytes[256];
    volatile bool whole = tl_batch_is_control(batch) && batch->bytes <= sizeof bytes;
    tl_guard guard;
    TL_GUARDED(guard) { whole = whole && tl_batch_copy_checked(bytes, c->reading.segment->map + position, batch); }
    TL_GUARD_CAUGHT(guard) { whole = false; }
    return tl_txn_step(&c->opens, batch, tl_place(c->reading.segment->ordinal, position),
                       whole ? tl_txn_marker_of(bytes, batch) : TL_MARKER_NONE, c->reading.segment->base_offset, err);
}

static void aborted_finding(void *context, const char *file, const char *what, int64_t first, int64_t next) {
    found(context, file, -1, what, first, next);
}

/* One segment. */
static int check_segment(checking *c, uint32_t ordinal, int64_t *expected, tl_error *err) {
    int status = tl_reading_enter(&c->reading, ordinal, err);
    if (status ==
        TL_ERANGE) { /* retention took it meanwhile, and with it what the next one would have to follow on from */
        *expected = -1;
        return TL_OK;
    }
    if (status < 0) {
        found(c, err->path, err->position, err->what, *expected, -1);
        tl_reading_end(&c->reading);
        return TL_OK;
    }
    if (*expected >= 0 && c->reading.segment->base_offset < *expected)
        found_here(c, 0, "a segment begins before the one before it ended", c->reading.segment->base_offset, *expected);
    *expected = c->reading.segment->base_offset;
    c->header_crc = c->batches = 0;
    c->max_timestamp_ms = -1;
    tl_index index;
    tl_index_check check = {0};
    bool has_index = map_index(c, &index, err) == TL_OK, index_ok = true;
    if (!has_index)
        found(c, err->path, err->position, err->what, *expected, -1);
    tl_chunk chunk = {0};
    uint32_t position = 0;
    while (position < c->reading.limit) {
        tl_batch batch;
        tl_error inner = {0};
        status = tl_reading_header(&c->reading, position, *expected, &batch, &inner);
        if (status < 0) {
            found_here(c, position, inner.what, *expected,
                       c->reading.end_offset >= 0 ? c->reading.end_offset : c->reading.bounds.log_end);
            break;
        }
        int64_t next = tl_batch_next_offset(&batch);
        const char *wrong = NULL;
        status = check_bytes(c, position, &batch, err);
        if (status < 0)
            break;
        wrong = status == 0 ? "the CRC of a batch is wrong" : check_records(c, position, &batch, &chunk, err);
        if (wrong != NULL)
            found_here(c, position, wrong, batch.base_offset, next);
        if (has_index && index_ok && index_step(&index, &check, position, &batch, &inner) < 0) {
            index_finding(c, &inner, strstr(inner.what, "time") != NULL ? ".timeindex" : ".index", next);
            index_ok = false;
        }
        c->batches++;
        uint64_t messages = tl_batch_is_control(&batch) ? 0 : (uint64_t)batch.count;
        c->messages += messages;
        if (batch.producer_id >= 0 && step_transactions(c, position, &batch, err) < 0)
            return TL_ENOMEM;
        if (batch.max_timestamp_ms > c->max_timestamp_ms)
            c->max_timestamp_ms = batch.max_timestamp_ms;
        position += batch.bytes;
        *expected = next;
        if (c->report->progress != NULL)
            c->report->progress(c->report->context, batch.bytes, 1, messages);
    }
    tl_chunk_free(&chunk);
    if (status < 0)
        return status == TL_ECORRUPT ? TL_OK : status;
    tl_error inner = {0};
    /* Entries that nothing explained: of the active segment they are wrong only if nobody appended meanwhile. */
    bool still =
        ordinal < tl_place_ordinal(c->reading.bounds.tail) || tl_partition_tail(c->partition) == c->reading.bounds.tail;
    if (has_index && index_ok && still && tl_index_check_end(&index, &check, &inner) < 0)
        index_finding(c, &inner, strstr(inner.what, "time") != NULL ? ".timeindex" : ".index", *expected);
    check_seal(c, position, *expected);
    return TL_OK;
}

/* The header of the seals, and the entry that already names the active segment. */
static void check_seals(checking *c) {
    uint32_t active = tl_place_ordinal(c->reading.bounds.tail);
    tl_seal seal;
    tl_error err = {0};
    int64_t base = 0;
    if (active == 0)
        return;
    int status = tl_seals_check_header(c->partition, &err);
    if (status == TL_OK)
        status = tl_seals_read(c->partition, active, &seal, &err);
    if (status == TL_OK && tl_segment_base(c->partition, active, &base, NULL) == TL_OK && seal.base_offset != base)
        status = tl_fail(&err, TL_ECORRUPT, "the file of seals names another base offset for the active segment",
                         c->partition->cold->directory, -1);
    if (status < 0)
        found(c, err.path, err.position, err.what, c->reading.bounds.log_start, c->reading.bounds.log_end);
}

int tl_partition_check(tl_partition *partition, const tl_check_report *report, tl_error *err) {
    checking c;
    tl_error own = {0};
    err = err == NULL ? &own : err;
    memset(&c, 0, sizeof c);
    c.partition = partition;
    c.report = report;
    int status = tl_reading_begin(&c.reading, partition, TL_READ_UNCOMMITTED, err);
    if (status < 0)
        return status;
    int failed = (int)__atomic_load_n(&partition->hot->failed, __ATOMIC_RELAXED);
    char path[360];
    if (failed != 0) {
        snprintf(path, sizeof path, "%s/FAILED", partition->cold->directory);
        found(&c, path, -1, "a sync of this partition failed: it takes no more messages", c.reading.bounds.log_start,
              c.reading.bounds.log_end);
    }
    check_seals(&c);
    int64_t expected = -1;
    uint32_t last = tl_place_ordinal(c.reading.bounds.tail);
    uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    for (uint32_t ordinal = first; ordinal <= last && status == TL_OK; ordinal++)
        if (ordinal < last || tl_place_position(c.reading.bounds.tail) > 0)
            status = check_segment(&c, ordinal, &expected, err);
    if (status == TL_OK && expected >= 0 && tl_place_position(c.reading.bounds.tail) > 0 &&
        expected != c.reading.bounds.log_end && c.findings == 0)
        found(&c, partition->cold->directory, -1, "the last batch does not end at the log end", expected,
              c.reading.bounds.log_end);
    if (status == TL_OK)
        status = tl_aborted_check(partition, &c.opens, &c.reading.bounds, &c, aborted_finding, err);
    tl_txn_opens_free(&c.opens);
    tl_reading_end(&c.reading);
    if (status == TL_OK) {
        const char *what = NULL;
        snprintf(path, sizeof path, "%s/" TL_IDS_FILE, partition->cold->directory);
        if ((status = tl_ids_check(partition, &what, err)) == 1) {
            found(&c, path, -1, what, c.reading.bounds.log_start, c.reading.bounds.log_end);
            status = TL_OK;
        }
    }
    int producers = status < 0 ? status : tl_producers_check(partition, report, err);
    return producers < 0 ? producers : c.findings + producers;
}

/* --- the store's own files --- */

typedef struct store_checking {
    const tl_check_report *report;
    int findings;
} store_checking;

static void offsets_problem(void *context, const tl_error *problem) {
    store_checking *c = context;
    c->findings++;
    if (c->report->finding != NULL)
        c->report->finding(c->report->context, TL_OFFSETS_FILE, problem->position, problem->what, -1, -1);
}

static void records_problem(void *context, const tl_error *problem) {
    store_checking *c = context;
    c->findings++;
    if (c->report->finding != NULL)
        c->report->finding(c->report->context, TL_TXN_FILE, problem->position, problem->what, -1, -1);
}

int tl_store_check(tl_store *store, const tl_check_report *report, tl_error *err) {
    store_checking c = {report, 0};
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    tl_checkpoint_report files[2];
    tl_error found = {0};
    int status = TL_OK;
    /* Without the checkpoint lock, which a looker must not take, a snapshot may pass by between the two files: real damage
     * is still there when looked at again. */
    for (int tries = 0; tries < 3; tries++) {
        status = tl_checkpoint_check(store->dir, files, &found);
        if (status != TL_ECORRUPT)
            break;
    }
    if (status == TL_ECORRUPT) {
        c.findings++;
        if (report->finding != NULL)
            report->finding(report->context, found.path, found.position, found.what, -1, -1);
    } else if (status < 0) {
        if (err != NULL)
            *err = found;
        return status;
    }
    status = tl_transactions_check(store, &c, records_problem, &found);
    if (status < 0) {
        if (err != NULL)
            *err = found;
        return status;
    }
    tl_offsets_report table;
    status = tl_offsets_check(store->dir, offsets_problem, &c, &table, &found);
    if (status == TL_ECORRUPT)
        offsets_problem(&c, &found);
    else if (status < 0) {
        if (err != NULL)
            *err = found;
        return status;
    }
    return c.findings;
}
