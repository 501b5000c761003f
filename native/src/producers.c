/* How far has this process read what producers wrote to a partition, and how does it catch up?
 *
 * Imports producers.h, reading.h. The table belongs to whoever has the partition's producers_mutex. It is a function of the
 * log: whatever other processes append is found by walking batch headers from where the table stands to the tail. A walk
 * begins at the newest .producers file; whoever walks over a segment's start writes the one that is missing there. Only the
 * first of these files is needed for truth: it says that batches with a producer id are to be expected from there on, and
 * is therefore on the disk before the first of them is published. */
#include "producers.h"

#include "reading.h"
#include "tidelog/guard.h"

#define NEAR_BYTES (4u << 20) /* so far behind a caller that holds the lock may try to follow */
#define FOLLOWED_MOST 512u    /* batches; more of them would hold up others who want the lock */

/* --- the mutex --- */

#define BUSY_NS 50000 /* so long at most whoever waits does not look again */

/* The pair to tl_lock_try and tl_producers_at_hand. */
static bool is_sending(const tl_partition *partition) {
    return (__atomic_load_n(&partition->hot->lock, __ATOMIC_SEQ_CST) & ~TL_LOCK_WAITERS) == partition->store->me;
}

int tl_producers_enter(tl_partition *partition, bool try_only) {
    if (!try_only)
        pthread_mutex_lock(&partition->producers_mutex);
    else if (pthread_mutex_trylock(&partition->producers_mutex) != 0)
        return TL_EAGAIN;
    __atomic_store_n(&partition->producers_busy, 1, __ATOMIC_SEQ_CST);
    while (TL_UNLIKELY(is_sending(partition))) { /* by another thread, which may have been there before */
        if (try_only) {
            tl_producers_leave(partition);
            return TL_EAGAIN;
        }
        (void)tl_os->futex_wait(&partition->producers_busy, 1, BUSY_NS);
    }
    return TL_OK;
}

void tl_producers_leave(tl_partition *partition) {
    __atomic_store_n(&partition->producers_busy, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&partition->producers_mutex);
}

void tl_producers_free(tl_partition *partition) {
    if (partition->producers == NULL)
        return;
    tl_producers_end(partition->producers);
    tl_os->free(partition->producers);
    partition->producers = NULL;
}

tl_producer_table *tl_producers_table(tl_partition *partition) {
    return partition->producers == NULL ? NULL : partition->producers->table;
}

bool tl_producers_is_near(const tl_partition *partition) {
    const tl_producers *own = partition->producers;
    uint64_t tail = __atomic_load_n(&partition->hot->tail, __ATOMIC_ACQUIRE);
    return own != NULL && (own->complete == tail || (tl_place_ordinal(own->complete) == tl_place_ordinal(tail) &&
                                                     tail - own->complete <= NEAR_BYTES));
}

bool tl_producers_is_readable(const tl_partition *partition) {
    bool mapped = false;
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&partition->mutex;
    if (!tl_producers_is_near(partition))
        return false;
    pthread_mutex_lock(mutex);
    for (int i = 0; i < TL_SEGMENT_CACHE && !mapped; i++)
        mapped = partition->readers[i] != NULL && partition->readers[i]->ordinal == tl_place_ordinal(partition->hot->tail);
    pthread_mutex_unlock(mutex);
    return mapped;
}

/* --- following --- */

__attribute__((noinline)) static bool header_here(const tl_segment *segment, uint32_t position, uint32_t limit, tl_batch *batch) {
    uint8_t header[TL_BATCH_HEADER_BYTES];
    tl_error inner;
    tl_guard guard;
    if (limit - position < sizeof header)
        return false;
    TL_GUARDED(guard) { memcpy(header, segment->map + position, sizeof header); }
    TL_GUARD_CAUGHT(guard) { return false; }
    return tl_batch_parse(header, limit - position, batch, &inner) == TL_OK;
}

/* What others appended to the active segment a moment ago is read where this process writes: those pages are here, and where
 * it reads they may not be. */
bool tl_producers_follow(tl_partition *partition, bool *far) {
    tl_producers *own = partition->producers;
    uint32_t followed = 0;
    const tl_segment *segment = partition->writer;
    uint64_t tail = partition->hot->tail;
    tl_batch batch;
    if (!tl_producers_is_near(partition))
        return false;
    while (own->complete != tail) {
        *far = ++followed > FOLLOWED_MOST;
        uint32_t position = tl_place_position(own->complete), limit = tl_place_position(tail);
        if (*far || segment == NULL || segment->ordinal != tl_place_ordinal(tail) || position > limit || limit > segment->map_bytes ||
            !header_here(segment, position, limit, &batch) || batch.base_offset != own->next_offset || batch.leader_epoch != 0)
            return false;
        if (batch.producer_id >= 0 &&
            (tl_batch_is_control(&batch) ||
             tl_producer_table_step(own->table, &batch, own->complete, TL_MARKER_NONE, -1, NULL) < 0))
            return false;
        own->complete += batch.bytes;
        own->next_offset = tl_batch_next_offset(&batch);
        TL_POINT("producers.followed");
    }
    return true;
}

/* --- where a walk begins --- */

void tl_producers_end(tl_producers *producers) {
    tl_producer_table_free(producers->table);
    producers->table = NULL;
}

/* 1: the table is that of the file; 0: it is not to be had. */
static int load_file(tl_partition *partition, tl_reading *reading, int64_t base, uint32_t until, tl_producers *out,
                     tl_error *err) {
    uint32_t ordinal = 0;
    int64_t named = -1;
    if (tl_reading_segment(reading, base, &ordinal, NULL) < 0 || ordinal > until ||
        tl_segment_base(partition, ordinal, &named, NULL) < 0 || named != base)
        return 0; /* of a segment that a cut or retention took, or that comes later */
    int status = tl_producers_load(partition, ordinal, base, out->table, err);
    if (status == TL_ENOTFOUND || status == TL_ECORRUPT)
        return 0;
    if (status < 0)
        return status;
    out->complete = tl_place(ordinal, 0);
    out->next_offset = base;
    return 1;
}

static int find_start(tl_partition *partition, tl_reading *reading, tl_producers *out, uint32_t until, tl_error *err) {
    uint64_t *known = &partition->cold->producers, unknown = TL_PRODUCERS_UNKNOWN;
    tl_segment_files files = {0};
    int status = TL_OK;
    /* The tail was read before: what stands before it had its mark by then. */
    if (__atomic_load_n(known, __ATOMIC_ACQUIRE) != TL_PRODUCERS_NONE &&
        (status = tl_segment_list(partition, ".producers", &files, err)) < 0)
        return status;
    if (files.count == 0 && __atomic_load_n(known, __ATOMIC_ACQUIRE) != TL_PRODUCERS_SOME) {
        (void)__atomic_compare_exchange_n(known, &unknown, TL_PRODUCERS_NONE, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
        out->complete = reading->bounds.tail;
        out->next_offset = reading->bounds.log_end;
        return TL_OK;
    }
    int found = 0;
    for (size_t i = files.count; i > 0 && found == 0; i--)
        found = load_file(partition, reading, files.bases[i - 1], until, out, err);
    tl_os->free(files.bases);
    if (found != 0)
        return found < 0 ? found : TL_OK;
    uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    out->complete = tl_place(first, 0);
    return tl_segment_base(partition, first, &out->next_offset, err);
}

int tl_producers_begin(tl_partition *partition, tl_producers *out, uint32_t until, tl_error *err) {
    tl_reading reading;
    memset(out, 0, sizeof *out);
    out->table = tl_producer_table_new();
    if (out->table == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the producers of a partition", partition->cold->directory, -1);
    int status = tl_reading_begin(&reading, partition, TL_READ_UNCOMMITTED, err);
    if (status == TL_OK) {
        status = find_start(partition, &reading, out, until, err);
        tl_reading_end(&reading);
    }
    if (status < 0)
        tl_producers_end(out);
    return status;
}

/* --- walking --- */

/* What a control batch says: its record's key is {version, type}, its value {version, coordinator epoch}. */
static int read_marker(const tl_reading *reading, uint32_t position, const tl_batch *batch, int *marker,
                       int32_t *coordinator_epoch, tl_error *err) {
    uint8_t bytes[256];
    *marker = TL_MARKER_NONE;
    if (batch->count != 1 || batch->bytes > sizeof bytes) /* compacted away, or a filler of a repair */
        return TL_OK;
    tl_record record;
    bool whole = false;
    tl_guard guard;
    TL_GUARDED(guard) { whole = tl_batch_copy_checked(bytes, reading->segment->map + position, batch); }
    TL_GUARD_CAUGHT(guard) { return tl_reading_bus(reading, &guard, err); }
    if (!whole || tl_batch_records(bytes, TL_BATCH_HEADER_BYTES, batch->bytes - TL_BATCH_HEADER_BYTES, batch, &record, NULL) < 0)
        return tl_reading_corrupt(reading, "a control batch is damaged", position, err);
    if (record.key_bytes < 4 || record.value_bytes < 6)
        return TL_OK;
    unsigned type = tl_be16(bytes + record.key_at + 2);
    if (type <= TL_MARKER_COMMIT) {
        *marker = (int)type;
        *coordinator_epoch = (int32_t)tl_be32(bytes + record.value_at + 2);
    }
    return TL_OK;
}

/* The batch at the cursor. */
static int step(tl_reading *reading, tl_cursor *cursor, tl_producers *producers, tl_error *err) {
    tl_batch batch;
    uint32_t position = tl_place_position(cursor->place);
    int status = tl_reading_header(reading, position, cursor->batch_offset, &batch, err);
    if (status < 0)
        return status;
    if (batch.producer_id >= 0) {
        int marker = TL_MARKER_NONE;
        int32_t coordinator_epoch = -1;
        if (tl_batch_is_control(&batch))
            status = read_marker(reading, position, &batch, &marker, &coordinator_epoch, err);
        if (status == TL_OK)
            status = tl_producer_table_step(producers->table, &batch, cursor->place, marker, coordinator_epoch, err);
        if (status < 0)
            return status;
    }
    tl_cursor_step(cursor, &batch);
    cursor->offset = cursor->batch_offset;
    producers->complete = cursor->place;
    producers->next_offset = cursor->batch_offset;
    return TL_OK;
}

/* What stands in a damaged place is as if it were not there, for every process; the rest counts. */
static int step_over(tl_reading *reading, tl_cursor *cursor, int status, tl_error *err) {
    int64_t resume = -1;
    status = tl_reading_resync(reading, cursor, status, &resume, err);
    if (status == TL_OK || resume <= cursor->offset)
        return status;
    cursor->offset = resume;
    cursor->located = false;
    return TL_OK;
}

static int walk(tl_partition *partition, tl_reading *reading, tl_producers *producers, uint32_t until,
                tl_producers_boundary boundary, void *context, tl_error *err) {
    tl_cursor cursor = {.offset = producers->next_offset, .place = producers->complete,
                        .batch_offset = producers->next_offset, .located = true};
    for (;;) {
        int status = tl_reading_next(reading, &cursor, err);
        if (status >= 0 && tl_place_ordinal(cursor.place) > tl_place_ordinal(producers->complete)) {
            producers->complete = tl_place(tl_place_ordinal(cursor.place), 0);
            int found = tl_segment_base(partition, tl_place_ordinal(cursor.place), &producers->next_offset, err);
            if (found == TL_OK && boundary != NULL)
                found = boundary(context, partition, producers, err);
            if (found < 0)
                return found;
            TL_POINT("producers.boundary");
        }
        if (status == 0 || (status > 0 && tl_place_ordinal(cursor.place) >= until)) {
            if (status == 0)
                producers->complete = cursor.place;
            return TL_OK;
        }
        if (status > 0)
            status = step(reading, &cursor, producers, err);
        if (status < 0 && (status = step_over(reading, &cursor, status, err)) < 0)
            return status;
    }
}

int tl_producers_walk(tl_partition *partition, tl_producers *producers, uint32_t until, tl_producers_boundary boundary,
                      void *context, tl_error *err) {
    tl_reading reading;
    int status = tl_reading_begin(&reading, partition, TL_READ_UNCOMMITTED, err);
    if (status < 0)
        return status;
    status = walk(partition, &reading, producers, until, boundary, context, err);
    tl_reading_end(&reading);
    return status;
}

int tl_producers_store_missing(tl_partition *partition, const tl_producers *producers, tl_error *err) {
    uint32_t ordinal = tl_place_ordinal(producers->complete);
    if (tl_producers_file_exists(partition, producers->next_offset))
        return TL_OK;
    bool trusted = ordinal <= tl_place_ordinal(__atomic_load_n(&partition->hot->synced, __ATOMIC_ACQUIRE));
    return tl_producers_store(partition, ordinal, producers->next_offset, producers->table, trusted, err);
}

/* Cannot fail: without the file whoever comes walks from an earlier one. */
static int write_missing(void *context, tl_partition *partition, const tl_producers *producers, tl_error *err) {
    (void)context;
    (void)err;
    /* Not known to be any: there were files where the walk began. */
    if (__atomic_load_n(&partition->cold->producers, __ATOMIC_ACQUIRE) != TL_PRODUCERS_NONE)
        (void)tl_producers_store_missing(partition, producers, NULL);
    return TL_OK;
}

int tl_producers_catch_up(tl_partition *partition, bool locked, tl_error *err) {
    int status = TL_OK;
    for (int tries = 0; tries < 8; tries++) {
        tl_producers *own = partition->producers;
        if (TL_LIKELY(own != NULL && own->complete == __atomic_load_n(&partition->hot->tail, __ATOMIC_ACQUIRE)))
            return TL_OK;
        if (own == NULL) {
            tl_producers fresh;
            if ((own = tl_os->malloc(sizeof *own)) == NULL)
                return tl_fail(err, TL_ENOMEM, "no memory for the producers of a partition", partition->cold->directory, -1);
            status = tl_producers_begin(partition, &fresh, UINT32_MAX, err);
            if (status < 0) {
                tl_os->free(own);
                return status;
            }
            *own = fresh;
            partition->producers = own;
        }
        TL_POINT("producers.begun");
        status = tl_producers_walk(partition, own, UINT32_MAX, write_missing, NULL, err);
        TL_POINT("producers.walked");
        if (status == TL_OK && (!locked || own->complete == __atomic_load_n(&partition->hot->tail, __ATOMIC_ACQUIRE)))
            return TL_OK;
        if (status < 0 && status != TL_ERANGE)
            return status;
        if (status == TL_ERANGE) /* retention took where it stood, and left a file for what is kept */
            tl_producers_free(partition);
    }
    return status < 0 ? status
                      : tl_fail(err, TL_ECORRUPT, "the tail of a partition lies where no batch ends", partition->cold->directory, -1);
}

/* --- what appends do --- */

int tl_producers_note(tl_partition *partition, const tl_batch *batch, uint64_t place, uint64_t tail, int marker,
                      int32_t coordinator_epoch, tl_error *err) {
    tl_producers *own = partition->producers;
    if (TL_UNLIKELY(own->complete != place)) {
        if (tl_place_position(place) != 0 || tl_place_ordinal(place) != tl_place_ordinal(own->complete) + 1)
            return TL_OK; /* an earlier batch could not be noted: the next one who catches up walks over both */
        own->complete = place;
        own->next_offset = batch->base_offset;
        (void)write_missing(NULL, partition, own, NULL);
    }
    int status = tl_producer_table_step(own->table, batch, place, marker, coordinator_epoch, err);
    if (status < 0)
        return status;
    own->complete = tail;
    own->next_offset = tl_batch_next_offset(batch);
    return TL_OK;
}

int tl_producers_mark(tl_partition *partition, bool may_block, tl_error *err) {
    uint64_t *known = &partition->cold->producers;
    if (TL_LIKELY(__atomic_load_n(known, __ATOMIC_ACQUIRE) == TL_PRODUCERS_SOME) || TL_BUG(PRODUCERS_NOT_MARKED))
        return TL_OK;
    if (!may_block)
        return TL_EAGAIN;
    tl_segment_files files;
    int status = tl_segment_list(partition, ".producers", &files, err);
    if (status < 0)
        return status;
    int64_t oldest = files.count > 0 ? files.bases[0] : -1;
    tl_os->free(files.bases);
    TL_POINT("producers.mark");
    if (oldest >= 0) { /* whoever made it may have died before it was on the disk */
        status = tl_producers_sync_file(partition, oldest, err);
    } else {
        uint32_t ordinal = tl_place_ordinal(partition->hot->tail);
        tl_producer_table *none = tl_producer_table_new();
        status = none == NULL ? tl_fail(err, TL_ENOMEM, "no memory for a file of producers", partition->cold->directory, -1)
                              : tl_producers_store(partition, ordinal, partition->hot->active_base[ordinal & 1], none, true, err);
        tl_producer_table_free(none);
    }
    if (status < 0)
        return status;
    __atomic_store_n(known, TL_PRODUCERS_SOME, __ATOMIC_RELEASE);
    TL_POINT("producers.marked");
    return TL_OK;
}

uint64_t tl_producers_first_open(tl_partition *partition, int64_t other_than) {
    return partition->producers == NULL ? UINT64_MAX
                                        : tl_producer_table_first_open(partition->producers->table, other_than);
}

typedef struct each_open {
    void *context;
    int (*each)(void *context, const tl_producer_state *state);
} each_open;

static int if_open(void *context, const tl_producer_state *state) {
    const each_open *wanted = context;
    return state->txn_first_offset >= 0 ? wanted->each(wanted->context, state) : 0;
}

int tl_producers_each_open(tl_partition *partition, void *context,
                           int (*each)(void *context, const tl_producer_state *state)) {
    each_open wanted = {context, each};
    return partition->producers == NULL ? 0 : tl_producer_table_each(partition->producers->table, &wanted, if_open);
}
