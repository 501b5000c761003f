/* How does a name keep its producer id, get a new epoch whenever it is opened, and fence whoever had it before?
 *
 * Imports handles.h, producers.h, transactions.h. Callable from any thread; blocking. Rows in `shared` are changed under
 * transactions_lock. What must outlive them is on the disk before it is used: ids are reserved in blocks of 1000 and epochs
 * in blocks of 2048, so that neither most openings nor most transactions write anything. A row says which epoch is in
 * force; after a new boot all that is known is that every epoch below the end of the block may have been used.
 *
 * Fencing: whoever opens a name bumps `holder` in its row, before the epoch. An append compares it under the lock of its
 * partition. So once a later self has taken that lock, no earlier one adds anything any more. */
#include "handles.h"
#include "tidelog/producers.h"
#include "tidelog/transactions.h"

#include <stdio.h>

#define IDS_AT_ONCE 1000
#define EPOCHS_AT_ONCE 2048
#define EPOCHS_END (TL_PRODUCER_EPOCH_MOST + 1)

/* Value of record 7; the key is the name. */
typedef struct name_record {
    int64_t producer_id;
    uint16_t epoch_end; /* epochs below it may have been used */
    uint8_t zeros[6];
    int64_t previous_ids[TL_PRODUCER_IDS_KEPT];
} name_record;
_Static_assert(sizeof(name_record) == 48, "documented in docs/format.md");

/* What is known of a name. */
typedef struct identity {
    int64_t producer_id, previous_ids[TL_PRODUCER_IDS_KEPT];
    uint32_t epoch, epoch_end;
} identity;

static const identity nobody = {-1, {-1, -1, -1, -1}, 0, 0};

/* --- the checkpoint --- */

int tl_producer_names_load(tl_store *store, uint16_t type, const void *value, uint32_t value_bytes, tl_error *err) {
    int64_t end = 0;
    if (type == TL_RECORD_PRODUCER)
        return value_bytes == sizeof(name_record)
                   ? TL_OK
                   : tl_fail(err, TL_ECORRUPT, "the record of a producer has the wrong length", "checkpoint", -1);
    if (value_bytes != sizeof end)
        return tl_fail(err, TL_ECORRUPT, "the record of producer ids has the wrong length", "checkpoint", -1);
    memcpy(&end, value, sizeof end);
    if (end < 0)
        return tl_fail(err, TL_ECORRUPT, "the record of producer ids is impossible", "checkpoint", -1);
    store->header->next_producer_id = store->header->producer_ids_end = end;
    return TL_OK;
}

typedef struct looking {
    const char *name;
    size_t bytes;
    name_record found;
    bool known;
} looking;

static int look_at(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value, uint32_t value_bytes) {
    looking *l = context;
    if (type != TL_RECORD_PRODUCER || key_bytes != l->bytes || value_bytes != sizeof l->found ||
        memcmp(key, l->name, key_bytes) != 0)
        return 0;
    memcpy(&l->found, value, sizeof l->found);
    l->known = true;
    return 0; /* a later record of the key would count instead */
}

/* A name nobody has a row for: 1, or 0 when the checkpoint does not know it either. */
static int recall(tl_store *store, const char *name, size_t bytes, identity *out, tl_error *err) {
    looking l = {.name = name, .bytes = bytes};
    int status = tl_store_take(store, &store->header->checkpoint_lock, "the checkpoint is locked", err);
    if (status < 0)
        return status;
    status = tl_checkpoint_load(&store->checkpoint, &l, look_at, err);
    tl_lock_release(&store->header->checkpoint_lock, store->me);
    if (status < 0 || !l.known)
        return status < 0 ? status : 0;
    if (l.found.producer_id < 0 || l.found.epoch_end == 0 || l.found.epoch_end > EPOCHS_END)
        return tl_fail(err, TL_ECORRUPT, "the record of a producer is impossible", "checkpoint", -1);
    *out = (identity){.producer_id = l.found.producer_id, .epoch = l.found.epoch_end - 1u, .epoch_end = l.found.epoch_end};
    memcpy(out->previous_ids, l.found.previous_ids, sizeof out->previous_ids);
    return 1;
}

/* ids_end 0: no block of ids is taken. */
static int record(tl_store *store, const char *name, size_t bytes, const identity *who, int64_t ids_end, bool durable,
                  tl_error *err) {
    name_record value = {.producer_id = who->producer_id, .epoch_end = (uint16_t)who->epoch_end};
    memcpy(value.previous_ids, who->previous_ids, sizeof value.previous_ids);
    const tl_checkpoint_record records[2] = {
        {name, &value, sizeof value, (uint16_t)bytes, TL_RECORD_PRODUCER, false},
        {"", &ids_end, sizeof ids_end, 0, TL_RECORD_PRODUCER_IDS, false},
    };
    TL_POINT("names.recording");
    int status = tl_records_put(store, records, ids_end == 0 ? 1 : 2, durable && !TL_BUG(EPOCH_NOT_SYNCED), err);
    TL_POINT("names.recorded");
    return status;
}

/* --- identities; under transactions_lock --- */

/* A producer id that no name and no client had. The block it comes from is recorded by the caller's next record. */
static int64_t take_id(tl_store *store, int64_t *ids_end) {
    tl_shared_header *header = store->header;
    int64_t id = __atomic_load_n(&header->next_producer_id, __ATOMIC_RELAXED);
    *ids_end = id >= __atomic_load_n(&header->producer_ids_end, __ATOMIC_RELAXED) ? id + IDS_AT_ONCE : 0;
    return id;
}

static void took_id(tl_store *store, int64_t id, int64_t ids_end) {
    if (ids_end != 0)
        __atomic_store_n(&store->header->producer_ids_end, ids_end, __ATOMIC_RELAXED);
    __atomic_store_n(&store->header->next_producer_id, id + 1, __ATOMIC_RELAXED);
}

/* The next epoch of a name, a new id when there is none left; known: it has had one. Durable. */
static int advance(tl_store *store, const char *name, size_t bytes, bool known, identity *who, tl_error *err) {
    identity next = *who;
    int64_t ids_end = 0;
    bool fresh = !known || who->epoch >= TL_PRODUCER_EPOCH_MOST;
    if (fresh) {
        next = known ? *who : nobody;
        if (known) {
            memmove(next.previous_ids + 1, next.previous_ids, sizeof next.previous_ids - sizeof *next.previous_ids);
            next.previous_ids[0] = who->producer_id;
        }
        next.producer_id = take_id(store, &ids_end);
        next.epoch = 0;
        next.epoch_end = EPOCHS_AT_ONCE;
    } else {
        next.epoch++;
    }
    if (!fresh && next.epoch >= next.epoch_end)
        next.epoch_end = next.epoch + EPOCHS_AT_ONCE < EPOCHS_END ? next.epoch + EPOCHS_AT_ONCE : EPOCHS_END;
    if (fresh || next.epoch_end != who->epoch_end) {
        int status = record(store, name, bytes, &next, ids_end, true, err);
        if (status < 0)
            return status;
    }
    if (fresh)
        took_id(store, next.producer_id, ids_end);
    *who = next;
    return TL_OK;
}

/* --- rows; under transactions_lock --- */

static tl_producer_row *find_row(tl_store *store, const char *name, size_t bytes, uint32_t *number) {
    uint32_t used = __atomic_load_n(&store->header->producers, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < used && i < TL_PRODUCERS; i++) {
        tl_producer_row *row = tl_shared_producer(store->shared, i);
        if (__atomic_load_n(&row->name_bytes, __ATOMIC_ACQUIRE) == bytes && memcmp(row->name, name, bytes) == 0) {
            *number = i;
            return row;
        }
    }
    return NULL;
}

/* One that no name has; else one whose name nobody has open. */
static tl_producer_row *free_row(tl_store *store, uint32_t *number) {
    uint32_t used = __atomic_load_n(&store->header->producers, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < used && i < TL_PRODUCERS; i++)
        if (__atomic_load_n(&tl_shared_producer(store->shared, i)->name_bytes, __ATOMIC_RELAXED) == 0) {
            *number = i;
            return tl_shared_producer(store->shared, i);
        }
    if (used < TL_PRODUCERS) {
        __atomic_store_n(&store->header->producers, used + 1, __ATOMIC_RELEASE);
        *number = used;
        return tl_shared_producer(store->shared, used);
    }
    for (uint32_t i = 0; i < TL_PRODUCERS; i++) {
        tl_producer_row *row = tl_shared_producer(store->shared, i);
        tl_owner owner = __atomic_load_n(&row->owner, __ATOMIC_RELAXED);
        if (__atomic_load_n(&row->transaction, __ATOMIC_RELAXED) == 0 &&
            (owner == 0 || !tl_store_owner_alive(store, owner))) {
            *number = i;
            return row;
        }
    }
    return NULL;
}

static identity identity_of(const tl_producer_row *row) {
    identity who = {.producer_id = row->producer_id, .epoch = row->epoch, .epoch_end = row->epoch_end};
    memcpy(who.previous_ids, row->previous_ids, sizeof who.previous_ids);
    return who;
}

static void store_previous(tl_producer_row *row, const identity *who) {
    for (int i = 0; i < TL_PRODUCER_IDS_KEPT; i++)
        __atomic_store_n(&row->previous_ids[i], who->previous_ids[i], __ATOMIC_RELAXED);
}

/* From here on everybody else who has the name open is fenced. */
static void put_in_force(tl_store *store, tl_producer_row *row, const char *name, size_t bytes, const identity *who) {
    TL_POINT("names.taking");
    if (__atomic_load_n(&row->name_bytes, __ATOMIC_RELAXED) != bytes || memcmp(row->name, name, bytes) != 0) {
        __atomic_store_n(&row->name_bytes, 0, __ATOMIC_RELEASE); /* a death in here leaves a free row */
        memset(row->name, 0, sizeof row->name);
        memcpy(row->name, name, bytes);
    }
    __atomic_fetch_add(&row->holder, 1, __ATOMIC_SEQ_CST);
    TL_POINT("names.fenced");
    __atomic_store_n(&row->owner, store->me, __ATOMIC_RELAXED);
    __atomic_store_n(&row->producer_id, who->producer_id, __ATOMIC_RELAXED);
    store_previous(row, who);
    __atomic_store_n(&row->epoch_end, who->epoch_end, __ATOMIC_RELAXED);
    __atomic_store_n(&row->epoch, who->epoch, __ATOMIC_RELEASE);
    __atomic_store_n(&row->name_bytes, (uint32_t)bytes, __ATOMIC_RELEASE);
    TL_POINT("names.in_force");
}

static int open_locked(tl_store *store, const char *name, size_t bytes, tl_producer *out, tl_error *err) {
    uint32_t number = 0;
    identity who = nobody;
    tl_producer_row *row = find_row(store, name, bytes, &number);
    int known = row != NULL;
    if (row != NULL)
        who = identity_of(row);
    else if ((known = recall(store, name, bytes, &who, err)) < 0)
        return known;
    if (row == NULL && (row = free_row(store, &number)) == NULL)
        return tl_fail(err, TL_EFULL, "1024 names of producers are open: close some", store->path, -1);
    int status = advance(store, name, bytes, known == 1, &who, err);
    if (status < 0)
        return status;
    put_in_force(store, row, name, bytes, &who);
    *out = (tl_producer){.store = store, .row = number, .holder = row->holder, .producer_id = who.producer_id};
    return TL_OK;
}

/* At a clean close, the gate held alone: what was reserved and not used is given back, or every restart would cost a block
 * of epochs. First in the words, which stay the truth if the close does not get to its end. Not synced. */
int tl_producer_names_settle(tl_store *store, tl_error *err) {
    int status = TL_OK;
    for (uint32_t i = 0; status == TL_OK && i < TL_PRODUCERS && i < store->header->producers; i++) {
        tl_producer_row *row = tl_shared_producer(store->shared, i);
        identity who = identity_of(row);
        if (row->name_bytes == 0 || row->name_bytes > TL_PRODUCER_NAME_BYTES || who.epoch_end <= who.epoch + 1)
            continue;
        who.epoch_end = who.epoch + 1;
        __atomic_store_n(&row->epoch_end, who.epoch_end, __ATOMIC_RELAXED);
        status = record(store, row->name, row->name_bytes, &who, 0, false, err);
    }
    return status;
}

/* --- a name in this process --- */

static tl_producer_row *row_of(const tl_producer *producer) {
    return tl_shared_producer(producer->store->shared, producer->row);
}

bool tl_producer_is_fenced(const tl_producer *producer) {
    return __atomic_load_n(&row_of(producer)->holder, __ATOMIC_ACQUIRE) != producer->holder;
}

int16_t tl_producer_epoch(const tl_producer *producer) {
    return (int16_t)__atomic_load_n(&row_of(producer)->epoch, __ATOMIC_ACQUIRE);
}

static int fenced(const tl_producer *producer, tl_error *err) {
    return tl_fail(err, TL_EFENCED, "a newer producer of this name was opened", producer->store->path, -1);
}

int tl_producer_open(tl_store *store, const char *name, size_t bytes, tl_producer *out, tl_error *err) {
    bool over = false;
    if (bytes == 0 || bytes > TL_PRODUCER_NAME_BYTES)
        return tl_fail(err, TL_EINVAL, "the name of a producer has 1 to 184 bytes", store->path, -1);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    int status = tl_transactions_lock(store, &over, err);
    if (status < 0)
        return status;
    status = open_locked(store, name, bytes, out, err);
    tl_transactions_unlock(store);
    if (status == TL_OK)
        status = tl_transactions_abort_of(store, out->row, err);
    return status;
}

void tl_producer_close(tl_producer *producer) {
    tl_store *store = producer->store;
    bool over = false;
    if (tl_producer_is_fenced(producer) || tl_transactions_lock(store, &over, NULL) < 0)
        return; /* a store that was closed forgets its owners by itself */
    if (!tl_producer_is_fenced(producer)) {
        __atomic_fetch_add(&row_of(producer)->holder, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(&row_of(producer)->owner, 0, __ATOMIC_RELAXED);
    }
    tl_transactions_unlock(store);
}

int tl_producer_next_epoch(tl_producer *producer, int16_t *epoch, tl_error *err) {
    tl_store *store = producer->store;
    tl_producer_row *row = row_of(producer);
    char name[TL_PRODUCER_NAME_BYTES];
    size_t bytes = row->name_bytes;
    if (tl_producer_is_fenced(producer) || bytes == 0 || bytes > sizeof name)
        return fenced(producer, err);
    memcpy(name, row->name, bytes);
    identity who = identity_of(row);
    int status = advance(store, name, bytes, true, &who, err);
    if (status < 0)
        return status;
    __atomic_store_n(&row->producer_id, who.producer_id, __ATOMIC_RELAXED);
    store_previous(row, &who);
    __atomic_store_n(&row->epoch_end, who.epoch_end, __ATOMIC_RELAXED);
    __atomic_store_n(&row->epoch, who.epoch, __ATOMIC_RELEASE);
    producer->producer_id = who.producer_id;
    *epoch = (int16_t)who.epoch;
    return TL_OK;
}

/* --- what it wrote --- */

int tl_producer_next(const tl_producer *producer, tl_partition *partition, int32_t *sequence, tl_error *err) {
    (void)tl_producers_enter(partition, false);
    int status = tl_producers_catch_up(partition, false, err); /* nobody else appends with this id and epoch */
    int16_t epoch = tl_producer_epoch(producer);
    if (status == TL_OK && tl_producer_is_fenced(producer))
        status = fenced(producer, err);
    if (status == TL_OK)
        *sequence = tl_producer_next_sequence(tl_producer_table_find(tl_producers_table(partition), producer->producer_id), epoch);
    tl_producers_leave(partition);
    return status;
}

int tl_producer_last(const tl_producer *producer, tl_partition *partition, int64_t *offset, tl_error *err) {
    *offset = -1;
    (void)tl_producers_enter(partition, false);
    int status = tl_producers_catch_up(partition, false, err);
    if (status == TL_OK)
        status = tl_partition_lock(partition, false, err);
    if (status == TL_OK) {
        status = tl_producers_catch_up(partition, true, err);
        if (status == TL_OK && tl_producer_is_fenced(producer))
            status = fenced(producer, err);
        int64_t id = producer->producer_id;
        for (int i = 0; status == TL_OK && id >= 0 && *offset < 0; i++) { /* of the ids it had, the newest that wrote here */
            const tl_producer_state *known = tl_producer_table_find(tl_producers_table(partition), id);
            *offset = known == NULL ? -1 : known->last_offset;
            id = i < TL_PRODUCER_IDS_KEPT ? __atomic_load_n(&row_of(producer)->previous_ids[i], __ATOMIC_RELAXED) : -1;
        }
        tl_partition_unlock(partition);
    }
    tl_producers_leave(partition);
    return status;
}
