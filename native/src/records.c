/* What does the checkpoint hold of a store, and how do shared words and records turn into each other?
 *
 * Imports handles.h. Blocking; callable from any thread. Appending takes the checkpoint lock, syncing the checkpoint sync
 * lock; the checkpoint itself survives the death of a holder of either. Layout of the values: docs/format.md; all are
 * little-endian and as long as their struct. Those of committed offsets are offset_records.c's. */
#include "handles.h"
#include "tidelog/ids.h"

#include <stdio.h>

typedef struct definition {
    uint64_t id;
    uint8_t channel[16];
    uint32_t partition, segment_bytes;
    int64_t segment_ms, retention_ms, retention_bytes;
    uint32_t max_message_bytes, retention_consumed;
    char directory[264];
    int64_t id_age_ms; /* from here on: not in records that older programs wrote */
    uint32_t id_count, reserved;
} definition;
#define DEFINITION_LEAST offsetof(definition, id_age_ms)
_Static_assert(DEFINITION_LEAST == 328 && sizeof(definition) == 344, "documented in docs/format.md");


typedef struct start {
    int64_t log_start;
    uint32_t first_ordinal, reserved;
    int64_t first_base;
} start;
typedef struct store_record {
    uint64_t next_id;
    uint32_t clean, reserved;
} store_record;
#define GROUP_RECORDS 2048u /* the largest record is under 400 bytes, a group at most 1 MiB */

/* --- writing --- */

static int append(tl_store *store, const tl_checkpoint_record *records, size_t count, tl_checkpoint_end *end,
                  tl_error *err) {
    for (size_t at = 0; at < count; at += GROUP_RECORDS) {
        size_t take = count - at < GROUP_RECORDS ? count - at : GROUP_RECORDS;
        int status = tl_store_take(store, &store->header->checkpoint_lock, "the checkpoint is locked", err);
        if (status < 0)
            return status;
        TL_POINT("records.locked");
        status = tl_checkpoint_append(&store->checkpoint, records + at, take, end, err);
        tl_lock_release(&store->header->checkpoint_lock, store->me);
        if (status < 0)
            return status;
        TL_POINT("records.appended");
    }
    return TL_OK;
}

static int sync_to(tl_store *store, tl_checkpoint_end end, tl_error *err) {
    int status = tl_store_take(store, &store->header->checkpoint_sync_lock, "the checkpoint is being synced", err);
    if (status < 0)
        return status;
    status = tl_checkpoint_sync(&store->checkpoint, end, err);
    tl_lock_release(&store->header->checkpoint_sync_lock, store->me);
    TL_POINT("records.synced");
    if (status != TL_EAGAIN)
        return status;
    status = tl_store_take(store, &store->header->checkpoint_lock, "the checkpoint is locked", err);
    if (status < 0)
        return status;
    status = tl_checkpoint_snapshot(&store->checkpoint, err);
    tl_lock_release(&store->header->checkpoint_lock, store->me);
    TL_POINT("records.snapshot");
    return status;
}

static int put(tl_store *store, const tl_checkpoint_record *records, size_t count, bool durable, tl_error *err) {
    if (count == 0)
        return TL_OK;
    tl_checkpoint_end end;
    int status = append(store, records, count, &end, err);
    return status == TL_OK && durable ? sync_to(store, end, err) : status;
}

int tl_records_put(tl_store *store, const tl_checkpoint_record *records, size_t count, bool durable, tl_error *err) {
    return put(store, records, count, durable, err);
}

int tl_records_sync(tl_store *store, tl_error *err) {
    const store_record mark = {__atomic_load_n(&store->header->next_id, __ATOMIC_RELAXED), 0, 0};
    const tl_checkpoint_record record = {
        .key = "", .value = &mark, .value_bytes = sizeof mark, .type = TL_RECORD_STORE};
    return put(store, &record, 1, true, err);
}

int tl_records_put_clean(tl_store *store, uint32_t clean, tl_error *err) {
    const store_record mark = {__atomic_load_n(&store->header->next_id, __ATOMIC_RELAXED), clean, 0};
    const tl_checkpoint_record record = {
        .key = "", .value = &mark, .value_bytes = sizeof mark, .type = TL_RECORD_STORE};
    return put(store, &record, 1, clean != TL_CLEAN_OPENING, err);
}

static void fill_definition(const tl_cold *cold, definition *out) {
    memset(out, 0, sizeof *out);
    out->id = cold->id;
    memcpy(out->channel, cold->channel, 16);
    out->partition = cold->partition;
    out->segment_bytes = __atomic_load_n(&cold->segment_bytes, __ATOMIC_RELAXED);
    out->segment_ms = __atomic_load_n(&cold->segment_ms, __ATOMIC_RELAXED);
    out->retention_ms = __atomic_load_n(&cold->retention_ms, __ATOMIC_RELAXED);
    out->retention_bytes = __atomic_load_n(&cold->retention_bytes, __ATOMIC_RELAXED);
    out->max_message_bytes = __atomic_load_n(&cold->max_message_bytes, __ATOMIC_RELAXED);
    out->retention_consumed = __atomic_load_n(&cold->retention_consumed, __ATOMIC_RELAXED);
    snprintf(out->directory, sizeof out->directory, "%s", cold->directory);
    out->id_age_ms = __atomic_load_n(&cold->id_age_ms, __ATOMIC_RELAXED);
    out->id_count = __atomic_load_n(&cold->id_count, __ATOMIC_RELAXED);
}

int tl_records_put_definitions(tl_store *store, const uint32_t *slots, size_t count, bool with_lease, tl_error *err) {
    definition *values = tl_calloc(count + 1, sizeof *values);
    tl_checkpoint_record *records = tl_calloc(2 * count + 1, sizeof *records);
    int64_t *leases = tl_calloc(count + 1, sizeof *leases);
    int status = TL_OK;
    if (values == NULL || records == NULL || leases == NULL) {
        status = tl_fail(err, TL_ENOMEM, "no memory for the records of new partitions", "", -1);
        goto out;
    }
    const store_record mark = {__atomic_load_n(&store->header->next_id, __ATOMIC_RELAXED), 0, 0};
    size_t used = 0;
    records[used++] =
        (tl_checkpoint_record){.key = "", .value = &mark, .value_bytes = sizeof mark, .type = TL_RECORD_STORE};
    for (size_t i = 0; i < count; i++) {
        fill_definition(tl_shared_cold(store->shared, slots[i]), &values[i]);
        records[used++] =
            (tl_checkpoint_record){&slots[i], &values[i], sizeof values[i], 4, TL_RECORD_DEFINITION, false};
        leases[i] = tl_shared_hot(store->shared, slots[i])->lease;
        if (with_lease)
            records[used++] = (tl_checkpoint_record){&slots[i], &leases[i], 8, 4, TL_RECORD_LEASE, false};
    }
    status = put(store, records, used, true, err);
out:
    tl_os->free(values);
    tl_os->free(records);
    tl_os->free(leases);
    return status;
}

int tl_records_drop(tl_store *store, const uint32_t *slots, size_t count, tl_error *err) {
    static const uint16_t types[] = {TL_RECORD_DEFINITION, TL_RECORD_STATE, TL_RECORD_LEASE, TL_RECORD_START};
    tl_checkpoint_record *records = tl_calloc(4 * count + 1, sizeof *records);
    if (records == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to drop partitions", "", -1);
    for (size_t i = 0; i < 4 * count; i++)
        records[i] = (tl_checkpoint_record){&slots[i / 4], "", 0, 4, types[i % 4], true};
    int status = put(store, records, 4 * count, true, err);
    tl_os->free(records);
    return status;
}

int tl_records_put_states(tl_store *store, const uint32_t *slots, const tl_state *states, size_t count, tl_error *err) {
    tl_checkpoint_record *records = tl_calloc(count + 1, sizeof *records);
    if (records == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for recovery points", "", -1);
    for (size_t i = 0; i < count; i++)
        records[i] = (tl_checkpoint_record){&slots[i], &states[i], sizeof states[i], 4, TL_RECORD_STATE, false};
    int status = put(store, records, count, false, err);
    tl_os->free(records);
    return status;
}

int tl_records_put_start(tl_store *store, uint32_t slot, int64_t log_start, uint32_t first_ordinal, int64_t first_base,
                         tl_error *err) {
    const start value = {log_start, first_ordinal, 0, first_base};
    const tl_checkpoint_record record = {&slot, &value, sizeof value, 4, TL_RECORD_START, false};
    return put(store, &record, 1, true, err);
}

int tl_records_put_lease(tl_store *store, const uint32_t *slots, const int64_t *leases, size_t count, tl_error *err) {
    tl_checkpoint_record *records = tl_calloc(count + 1, sizeof *records);
    if (records == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for leases", "", -1);
    for (size_t i = 0; i < count; i++)
        records[i] = (tl_checkpoint_record){&slots[i], &leases[i], 8, 4, TL_RECORD_LEASE, false};
    int status = put(store, records, count, !TL_BUG(LEASE_NOT_SYNCED), err);
    tl_os->free(records);
    return status;
}

/* --- loading; the gate is held alone --- */

typedef struct loading {
    tl_store *store;
    tl_error *err;
    uint32_t clean;
} loading;

static int damaged(const loading *l, const char *what) { return tl_fail(l->err, TL_ECORRUPT, what, "checkpoint", -1); }

static int load_slot(loading *l, const void *key, uint16_t key_bytes, uint32_t *slot) {
    if (key_bytes != 4)
        return damaged(l, "a record of the checkpoint has a key of the wrong length");
    memcpy(slot, key, 4);
    if (*slot >= TL_PARTITIONS)
        return damaged(l, "a record of the checkpoint names a partition that cannot be");
    return tl_shared_grow(l->store, *slot + 1, l->err);
}

static int load_definition(loading *l, uint32_t slot, const definition *from) {
    tl_cold *cold = tl_shared_cold(l->store->shared, slot);
    if (from->id == 0 || (from->id & 1) != 0 || memchr(from->directory, 0, sizeof from->directory) == NULL ||
        from->id_count > TL_IDS_COUNT_MOST || from->directory[0] == 0 || from->directory[0] == '.' || strchr(from->directory, '/') != NULL)
        return damaged(l, "a definition of a partition in the checkpoint is impossible");
    cold->id = from->id;
    memcpy(cold->channel, from->channel, 16);
    cold->partition = from->partition;
    cold->segment_bytes = from->segment_bytes;
    cold->segment_ms = from->segment_ms;
    cold->retention_ms = from->retention_ms;
    cold->retention_bytes = from->retention_bytes;
    cold->max_message_bytes = from->max_message_bytes;
    cold->retention_consumed = from->retention_consumed;
    cold->id_age_ms = from->id_age_ms;
    cold->id_count = from->id_count;
    snprintf(cold->directory, sizeof cold->directory, "%s", from->directory);
    return TL_OK;
}

static int load_state(loading *l, uint32_t slot, const tl_state *from) {
    tl_hot *hot = tl_shared_hot(l->store->shared, slot);
    if (from->recovery_offset < from->base_offset || from->base_offset < 0 ||
        tl_place_position(from->recovery_point) > TL_MAX_SEGMENT_BYTES)
        return damaged(l, "a recovery point in the checkpoint is impossible");
    hot->tail = hot->reserve = hot->synced = hot->saved = from->recovery_point;
    hot->end_a =
        (tl_end){from->recovery_point, from->recovery_offset, from->max_timestamp_ms, from->header_crc, from->batches};
    hot->active_base[tl_place_ordinal(from->recovery_point) & 1] = from->base_offset;
    hot->index_entries = from->index_entries;
    hot->time_entries = from->time_entries;
    hot->bytes_since_entry = from->bytes_since_entry;
    hot->time_max_ms = from->time_max_ms;
    hot->time_max_offset = from->time_max_offset;
    hot->segment_created_ms = from->created_ms;
    return TL_OK;
}

static int load_mark(loading *l, const void *value, uint32_t value_bytes) {
    store_record mark;
    if (value_bytes != sizeof mark)
        return damaged(l, "the store's record in the checkpoint has the wrong length");
    memcpy(&mark, value, sizeof mark);
    l->store->header->next_id = mark.next_id;
    l->clean = mark.clean;
    return TL_OK;
}

static int load_mark_only(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                          uint32_t value_bytes) {
    (void)key;
    (void)key_bytes;
    return type == TL_RECORD_STORE ? load_mark(context, value, value_bytes) : TL_OK;
}

int tl_records_load_mark(tl_store *store, bool *clean, tl_error *err) {
    loading l = {store, err, 0};
    int status = tl_checkpoint_load(&store->checkpoint, &l, load_mark_only, err);
    *clean = l.clean != 0;
    return status;
}

static int load_one(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                    uint32_t value_bytes) {
    loading *l = context;
    if (type == TL_RECORD_STORE)
        return load_mark(l, value, value_bytes);
    if (type == TL_RECORD_OFFSET)
        return tl_records_load_offset(l->store, key, key_bytes, value, value_bytes, l->err);
    if (type == TL_RECORD_PRODUCER || type == TL_RECORD_PRODUCER_IDS)
        return tl_producer_names_load(l->store, type, value, value_bytes, l->err);
    if (type < TL_RECORD_DEFINITION || type > TL_RECORD_START)
        return damaged(l, "the checkpoint has a record of a type that this version does not know");
    uint32_t slot = 0;
    int status = load_slot(l, key, key_bytes, &slot);
    if (status < 0)
        return status;
    tl_hot *hot = tl_shared_hot(l->store->shared, slot);
    union {
        definition definition;
        tl_state state;
        start start;
        int64_t lease;
    } u;
    const size_t sizes[] = {sizeof(definition), sizeof(tl_state), sizeof(int64_t), sizeof(start)};
    bool is_short = type == TL_RECORD_DEFINITION && value_bytes == DEFINITION_LEAST;
    if (value_bytes != sizes[type - TL_RECORD_DEFINITION] && !is_short)
        return damaged(l, "a record of the checkpoint has the wrong length");
    u.definition.id_age_ms = TL_IDS_DEFAULT_AGE_MS;
    u.definition.id_count = TL_IDS_DEFAULT_COUNT;
    memcpy(&u, value, value_bytes);
    switch (type) {
    case TL_RECORD_DEFINITION:
        return load_definition(l, slot, &u.definition);
    case TL_RECORD_STATE:
        return load_state(l, slot, &u.state);
    case TL_RECORD_LEASE:
        hot->lease = u.lease;
        return TL_OK;
    default:
        hot->log_start = u.start.log_start;
        hot->first_ordinal = u.start.first_ordinal;
        hot->first_base = u.start.first_base;
        hot->saved_log_start = u.start.log_start;
        return TL_OK;
    }
}

/* Segments may have been deleted up to a place behind the recovery point: that was durable before the first of them went,
 * so the log begins where the first one kept begins, and what it holds is for the scan to find out. */
static int start_at_first_kept(loading *l, tl_hot *hot) {
    if (hot->first_base < 0 || hot->first_ordinal == UINT32_MAX)
        return damaged(l, "a log start in the checkpoint is impossible");
    uint64_t place = tl_place(hot->first_ordinal, 0);
    hot->tail = hot->reserve = hot->synced = hot->saved = place;
    hot->end_a = (tl_end){.tail = place, .end_offset = hot->first_base, .max_timestamp_ms = -1};
    hot->active_base[hot->first_ordinal & 1] = hot->first_base;
    hot->index_entries = hot->time_entries = 0;
    hot->bytes_since_entry = 0;
    hot->time_max_ms = hot->time_max_offset = -1;
    return TL_OK;
}

int tl_records_load(tl_store *store, bool *clean, tl_error *err) {
    loading l = {store, err, 0};
    int status = tl_checkpoint_load(&store->checkpoint, &l, load_one, err);
    if (status < 0)
        return status;
    for (uint32_t slot = 0; slot < store->header->partitions; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        if (cold->id == 0) /* dropped: only its slot is left */
            memset(hot, 0, sizeof *hot);
        hot->lso = UINT64_MAX;
        cold->first_open = 0;
        cold->ids_file = 0; /* what a window of another boot says of this log, nobody knows */
        if (hot->first_ordinal > tl_place_ordinal(hot->tail) && (status = start_at_first_kept(&l, hot)) < 0)
            return status;
        cold->first_open = hot->tail; /* where the recovery of transactions begins */
        if (hot->saved == 0 && hot->end_a.end_offset == 0)
            hot->end_a.max_timestamp_ms = hot->time_max_ms = hot->time_max_offset = -1;
        if (cold->id >= store->header->next_id)
            store->header->next_id = cold->id + 2;
        hot->id = cold->id;
    }
    if (store->offsets != NULL)
        tl_records_mark_offsets_saved(store);
    *clean = l.clean == TL_CLEAN || (l.clean == TL_CLEAN_OPENING && !store->options.look);
    return TL_OK;
}
