/* Which messages of an append are in the partition already, and how are the ids of those noted that were not?
 *
 * Imports remembering.h, reading.h, transactions.h, guard.h. Called by append_checked.c in the order of this file. A message
 * that repeats an id of the same call is a duplicate of the first, as if each were sent by itself: so whatever is said of one
 * `send` holds for each message of a `send_many`.
 *
 * A message that a transaction took back was never sent. So of an id that was noted in a transaction it is asked what became
 * of that: aborted, it is new; still open, it is new too unless it is the asker's own transaction (the other may come to
 * nothing, and a duplicate is the smaller evil); committed, it is a duplicate. An owner that died between its decision and
 * the markers left a transaction that only looks open: so before one is taken for open, what the dead left is finished. */
#include "remembering.h"

#include "reading.h"
#include "tidelog/guard.h"
#include "tidelog/transactions.h"

#define AHEAD 4 /* ids whose buckets are on their way to the cache */

/* --- without the lock --- */

static void forget_answers(tl_ids_sift *sift) {
    if (TL_LIKELY(sift->answers == NULL && sift->origin == NULL && sift->messages == NULL))
        return;
    tl_os->free(sift->answers);
    tl_os->free(sift->origin);
    tl_os->free(sift->messages);
    sift->answers = NULL;
    sift->origin = NULL;
    sift->messages = NULL;
}

void tl_ids_sift_free(tl_ids_sift *sift) {
    forget_answers(sift);
    if (TL_LIKELY(sift->before == NULL && sift->places == NULL))
        return;
    tl_os->free(sift->before);
    tl_os->free(sift->places);
    sift->before = sift->places = NULL;
}

static int no_memory(tl_error *err) { return tl_fail(err, TL_ENOMEM, "no memory to look for message ids", "", -1); }

/* The last message with each id, by its hash: open addressing, entries are number + 1. */
static bool find_pairs(const tl_message_id *ids, size_t count, uint32_t *table, size_t mask, uint32_t *before) {
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        if (before != NULL)
            before[i] = (uint32_t)i;
        if (ids[i].hash[0] == 0)
            continue;
        size_t at = (size_t)ids[i].hash[1] & mask;
        while (table[at] != 0 && memcmp(&ids[table[at] - 1], &ids[i], sizeof *ids) != 0)
            at = (at + 1) & mask;
        if (table[at] != 0) {
            found = true;
            if (before == NULL)
                return true;
            before[i] = table[at] - 1;
        }
        table[at] = (uint32_t)i + 1;
    }
    return found;
}

int tl_ids_sift_begin(const tl_append *what, tl_ids_sift *sift, tl_error *err) {
    uint32_t small[256], *table = small;
    size_t count = what->count, slots = 256;
    if (count < 2)
        return TL_OK;
    if (count > UINT32_MAX / 4)
        return tl_fail(err, TL_ETOOLARGE, "too many messages with ids in one call", "", -1);
    while (slots < 2 * count)
        slots *= 2;
    if (slots > 256 && (table = tl_os->malloc(slots * sizeof *table)) == NULL)
        return no_memory(err);
    memset(table, 0, slots * sizeof *table);
    int status = TL_OK;
    if (find_pairs(what->ids, count, table, slots - 1, NULL)) {
        sift->before = tl_calloc(count, sizeof *sift->before);
        sift->places = tl_calloc(count, sizeof *sift->places);
        memset(table, 0, slots * sizeof *table);
        if (sift->before == NULL || sift->places == NULL)
            status = no_memory(err);
        else
            (void)find_pairs(what->ids, count, table, slots - 1, sift->before);
    }
    if (table != small)
        tl_os->free(table);
    return status;
}

/* --- under the lock --- */

/* Who wrote the message at `offset`: the header of its batch. TL_ERANGE, TL_ECORRUPT: it cannot be told. */
static int batch_at(tl_partition *partition, int64_t offset, tl_batch *batch, tl_error *err) {
    tl_reading reading;
    tl_cursor cursor = {.offset = offset};
    int status = tl_reading_begin(&reading, partition, TL_READ_UNCOMMITTED, err);
    if (status < 0)
        return status;
    status = tl_reading_range(&reading, &cursor, err);
    if (status == TL_OK)
        status = tl_reading_next(&reading, &cursor, err);
    if (status == 1)
        status = tl_reading_header(&reading, tl_place_position(cursor.place), cursor.batch_offset, batch, err);
    else if (status == TL_OK)
        status = TL_ERANGE;
    tl_reading_end(&reading);
    return status == TL_EBUS ? TL_ECORRUPT : status;
}

/* Whether the message at `offset`, which came in a transaction, counts. TL_IDS_SWEEP as tl_ids_sift_run. */
static int judge(tl_partition *partition, const tl_producing *producing, int64_t offset, bool swept, bool may_block, tl_error *err) {
    tl_batch batch;
    if (!may_block)
        return TL_EAGAIN;
    int status = batch_at(partition, offset, &batch, err);
    if (status == TL_ERANGE || status == TL_ECORRUPT)
        return 0;
    if (status < 0 || !tl_batch_is_transactional(&batch))
        return status < 0 ? status : 1;
    if ((status = tl_producers_catch_up(partition, true, err)) < 0)
        return status;
    const tl_producer_state *known = tl_producer_table_find(tl_producers_table(partition), batch.producer_id);
    if (known != NULL && known->txn_first_offset >= 0 && offset >= known->txn_first_offset) {
        if (producing != NULL && producing->transaction != NULL && producing->transaction->producer_id == batch.producer_id &&
            producing->epoch == batch.producer_epoch)
            return 1;
        return swept || TL_BUG(ID_DECIDED_TAKEN_FOR_OPEN) ? 0 : TL_IDS_SWEEP;
    }
    status = tl_aborted_contains(partition, batch.producer_id, offset, err);
    return status < 0 ? status : status == 0 || TL_BUG(ID_ABORTED_TAKEN);
}

__attribute__((noinline)) static int find(tl_partition *partition, const tl_message_id *id, const tl_ids_rule *rule,
                                          uint32_t pending, int64_t *offset) {
    volatile bool found = false;
    volatile int64_t at = 0;
    tl_guard guard;
    TL_GUARDED(guard) {
        int64_t seen = 0;
        found = tl_ids_find(&partition->ids->window, id, rule, pending, &seen);
        at = seen;
    }
    TL_GUARD_CAUGHT(guard) { return TL_EBUS; }
    *offset = at;
    return found ? 1 : 0;
}

/* 1: the id was seen at *offset; 0: it was not. TL_IDS_SWEEP as tl_ids_sift_run. */
static int was_seen(tl_partition *partition, const tl_append *what, const tl_message_id *id, const tl_ids_rule *rule,
                    uint32_t pending, int64_t end_offset, bool swept, bool may_block, int64_t *offset, tl_error *err) {
    int status = find(partition, id, rule, pending, offset);
    if (status == TL_EBUS)
        return tl_fail(err, TL_EBUS, "the file of message ids cannot be read", partition->cold->directory, -1);
    if (status == 0)
        return 0;
    bool in_transaction = (*offset & TL_IDS_IN_TRANSACTION) != 0;
    *offset &= ~TL_IDS_IN_TRANSACTION;
    if (*offset < 0 || *offset >= end_offset) /* of no message of this log */
        return 0;
    return in_transaction ? judge(partition, what->producing, *offset, swept, may_block, err) : 1;
}

static int keep_all(const tl_append *what, tl_ids_sift *sift, size_t until) {
    sift->answers = tl_os->malloc(what->count * sizeof *sift->answers);
    sift->origin = tl_os->malloc(what->count * sizeof *sift->origin);
    if (what->messages != NULL)
        sift->messages = tl_os->malloc(what->count * sizeof *sift->messages);
    if (sift->answers == NULL || sift->origin == NULL || (what->messages != NULL && sift->messages == NULL))
        return TL_ENOMEM;
    for (size_t i = 0; i < until; i++) {
        sift->answers[i] = TL_IDS_NEW;
        sift->origin[i] = (uint32_t)i;
        if (sift->messages != NULL)
            sift->messages[i] = what->messages[what->first + i];
    }
    return TL_OK;
}

/* The message of this call that message i repeats; -1: none that still counts. */
static int64_t repeated(const tl_ids_sift *sift, size_t i, uint32_t place, const tl_ids_rule *rule) {
    if (sift->before == NULL || sift->before[i] == i)
        return -1;
    size_t earlier = sift->before[i];
    if (sift->answers != NULL && sift->answers[earlier] != TL_IDS_NEW) {
        if (sift->answers[earlier] >= 0)
            return -1; /* the window knows it, and is asked again: others may have come between */
        earlier = (size_t)(-2 - sift->answers[earlier]);
    }
    return place - sift->places[earlier] <= rule->count ? (int64_t)earlier : -1;
}

int tl_ids_sift_run(tl_partition *partition, const tl_append *what, int64_t now_ms, bool may_block, tl_ids_sift *sift,
                    tl_error *err) {
    tl_ids_rule rule;
    tl_end end;
    uint32_t place = 0;
    (void)tl_ids_rule_at(partition, now_ms, &rule);
    tl_end_read(partition->hot, partition->hot->tail, &end);
    forget_answers(sift);
    sift->kept = 0;
    for (size_t i = 0; i < what->count; i++) {
        const tl_message_id *id = &what->ids[i];
        int64_t answer = TL_IDS_NEW, offset = 0;
        if (i + AHEAD < what->count)
            tl_ids_prefetch(&partition->ids->window, id + AHEAD);
        if (id->hash[0] != 0) {
            int64_t first = repeated(sift, i, place, &rule);
            int status = first >= 0 ? 0 : was_seen(partition, what, id, &rule, place, end.end_offset, sift->swept, may_block,
                                                   &offset, err);
            if (status < 0 || status == TL_IDS_SWEEP)
                return status;
            answer = first >= 0 ? -2 - first : status == 1 ? offset : TL_IDS_NEW;
        }
        if (answer != TL_IDS_NEW && sift->answers == NULL && keep_all(what, sift, i) < 0)
            return no_memory(err);
        if (sift->answers != NULL)
            sift->answers[i] = answer;
        if (answer != TL_IDS_NEW)
            continue;
        if (sift->answers != NULL) {
            sift->origin[sift->kept] = (uint32_t)i;
            if (sift->messages != NULL)
                sift->messages[sift->kept] = what->messages[what->first + i];
        }
        if (sift->places != NULL)
            sift->places[i] = place;
        place += id->hash[0] != 0;
        sift->kept++;
    }
    return TL_OK;
}

/* The id of message i of `now`, as a walk through the log would find it. false: that cannot be said here. */
static bool id_of(const tl_append *now, const tl_message_id *ids, const uint32_t *origin, size_t i, uint64_t key, tl_message_id *out) {
    *out = ids != NULL ? ids[origin == NULL ? i - now->first : origin[i - now->first]] : (tl_message_id){{0, 0}};
    if (out->hash[0] != 0 || now->rows != NULL)
        return true;
    if (now->encoded != NULL)
        return now->no_ids;
    if (now->messages[i].headers_bytes > 0)
        tl_ids_of_headers(key, now->messages[i].headers, 0, now->messages[i].headers_bytes, out);
    return true;
}

void tl_ids_note_batch(tl_partition *partition, const tl_append *now, const tl_message_id *ids, const uint32_t *origin, size_t at,
                       size_t count, int64_t base_offset, bool transactional, uint64_t from, uint64_t tail, int64_t now_ms,
                       bool may_block) {
    tl_cold *cold = partition->cold;
    if (cold->ids_file == 0 || cold->ids_complete != from || tl_ids_map(partition, false, NULL) < 0)
        return;
    size_t plain = now->rows != NULL ? count : 0; /* messages from `at` on that have no header, and so no id */
    while (ids == NULL && now->messages != NULL && plain < count && now->messages[at + plain].headers_bytes == 0)
        plain++;
    uint64_t key = plain < count ? tl_ids_key(partition) : 0;
    if (TL_BUG(IDS_COMPLETE_FIRST))
        __atomic_store_n(&cold->ids_complete, tail, __ATOMIC_RELEASE);
    int64_t mark = transactional ? TL_IDS_IN_TRANSACTION : 0;
    for (size_t i = plain; i < count; i++) {
        tl_message_id id;
        if (!id_of(now, ids, origin, at + i, key, &id))
            return;
        if (now_ms == 0)
            now_ms = tl_ids_now_ms();
        if (id.hash[0] != 0 && tl_ids_put(partition, &id, (base_offset + (int64_t)i) | mark, now_ms, now_ms, may_block, NULL) < 0)
            return;
    }
    TL_POINT("ids.noted");
    __atomic_store_n(&cold->ids_complete, tail, __ATOMIC_RELEASE);
    TL_POINT("ids.complete");
}
