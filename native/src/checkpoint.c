/* How does a change get into the active checkpoint file, and to the disk?
 *
 * Imports checkpoint_write.h, os.h. Thread rule: see checkpoint.h; the locks are the caller's. Bytes below `tail` of
 * the active file never change, so that word is all that a reader or a sync leader needs to know. */
#include "tidelog/checkpoint.h"

#include "checkpoint_write.h"
#include "tidelog/os.h"

#define STACK_GROUP_BYTES 4096u     /* up to here an append allocates nothing */

/* --- reading --- */

int tl_checkpoint_load(const tl_checkpoint *c, void *context, tl_checkpoint_each *each, tl_error *err) {
    uint64_t generation = LOAD(c->words->generation);
    if (generation == 0)
        return tl_fail(err, TL_EINVAL, "the checkpoint was not recovered before its first use", "", -1);
    tl_checkpoint_body body;
    int result = tl_checkpoint_read_active(c, generation, &body, err);
    for (uint64_t i = 0; i < body.live_count && result == TL_OK; i++) {
        tl_checkpoint_entry entry;
        uint64_t at = (uint64_t)body.live[i] << 3;
        if (tl_checkpoint_entry_read(body.bytes + at, body.end - TL_CHECKPOINT_FIRST - at, &entry))
            result = each(context, entry.type, entry.key, entry.key_bytes, entry.value, entry.value_bytes);
    }
    tl_checkpoint_body_free(&body);
    return result;
}

bool tl_checkpoint_needs_recovery(const tl_checkpoint *c) {
    return LOAD(c->words->generation) == 0 || (LOAD(c->words->state) & TL_CHECKPOINT_FAILED) != 0;
}

bool tl_checkpoint_is_filling(const tl_checkpoint *c) {
    unsigned slot = LOAD(c->words->generation) & 1;
    uint64_t allocated = (uint64_t)LOAD(c->words->allocated[slot]) * TL_CHECKPOINT_PAGE_BYTES;
    return tl_checkpoint_end_of(LOAD(c->words->tail[slot])) > allocated / 4 * 3;
}

tl_checkpoint_end tl_checkpoint_tail(const tl_checkpoint *c) {
    for (;;) {
        uint64_t generation = LOAD(c->words->generation), tail = LOAD(c->words->tail[generation & 1]);
        if (LOAD(c->words->generation) == generation)
            return (tl_checkpoint_end){.generation = generation, .position = tl_checkpoint_end_of(tail)};
    }
}

/* --- append --- */

static int measure(const tl_checkpoint_record *records, size_t count, uint32_t *bytes, tl_error *err) {
    uint64_t total = TL_CHECKPOINT_GROUP_HEADER_BYTES;
    if (count == 0)
        return tl_fail(err, TL_EINVAL, "a checkpoint group needs a record", "", -1);
    for (size_t i = 0; i < count && total <= TL_CHECKPOINT_GROUP_BYTES; i++) {
        const tl_checkpoint_record *record = &records[i];
        if (record->key_bytes > TL_CHECKPOINT_KEY_BYTES || record->value_bytes > TL_CHECKPOINT_VALUE_BYTES)
            return tl_fail(err, TL_ETOOLARGE, "a checkpoint key is over 512 bytes or its value over 64 KiB", "", -1);
        if (record->deleted && record->value_bytes != 0)
            return tl_fail(err, TL_EINVAL, "a deleted checkpoint record has no value", "", -1);
        total += tl_checkpoint_record_bytes(record->key_bytes, record->value_bytes);
    }
    if (total > TL_CHECKPOINT_GROUP_BYTES)
        return tl_fail(err, TL_ETOOLARGE, "a checkpoint group is over 1 MiB; append it in parts", "", -1);
    *bytes = (uint32_t)total;
    return TL_OK;
}

static void encode(uint8_t *group, uint32_t bytes, const tl_checkpoint_record *records, size_t count) {
    memset(group, 0, bytes);
    uint8_t *at = group + TL_CHECKPOINT_GROUP_HEADER_BYTES;
    for (size_t i = 0; i < count; i++) {
        const tl_checkpoint_record *record = &records[i];
        uint16_t flags = record->deleted ? TL_CHECKPOINT_DELETED : 0;
        memcpy(at, &record->type, 2);
        memcpy(at + 2, &flags, 2);
        memcpy(at + 4, &record->key_bytes, 2);
        tl_put_le32(at + 8, record->value_bytes);
        if (record->key_bytes != 0)
            memcpy(at + TL_CHECKPOINT_RECORD_HEADER_BYTES, record->key, record->key_bytes);
        if (record->value_bytes != 0)
            memcpy(at + TL_CHECKPOINT_RECORD_HEADER_BYTES + record->key_bytes, record->value, record->value_bytes);
        at += tl_checkpoint_record_bytes(record->key_bytes, record->value_bytes);
    }
}

static bool fits(const tl_checkpoint *c, uint64_t generation, uint32_t bytes) {
    unsigned slot = generation & 1;
    uint64_t allocated = (uint64_t)LOAD(c->words->allocated[slot]) * TL_CHECKPOINT_PAGE_BYTES;
    return tl_checkpoint_end_of(LOAD(c->words->tail[slot])) + bytes <= allocated;
}

static int append_group(tl_checkpoint *c, uint8_t *group, uint32_t bytes, const tl_checkpoint_record *records,
                        size_t count, tl_checkpoint_end *end, tl_error *err) {
    uint64_t generation = LOAD(c->words->generation);
    unsigned slot = generation & 1;
    uint64_t tail = LOAD(c->words->tail[slot]);
    tl_checkpoint_place place = {.generation = generation,
                                 .position = tl_checkpoint_end_of(tail),
                                 .synced_end = tl_checkpoint_end_of(LOAD(c->words->synced[slot])),
                                 .salt = LOAD(c->words->salt[slot]),
                                 .previous = (uint32_t)(tail >> 32)};
    encode(group, bytes, records, count);
    uint32_t chain = tl_checkpoint_group_seal(group, bytes, (uint32_t)count, &place);
    int result = tl_checkpoint_write_bytes(c->fd[slot], slot, group, bytes, place.position, err);
    TL_POINT("checkpoint.append.written");
    if (result != TL_OK)
        return result;
    STORE(c->words->tail[slot], tl_checkpoint_tail_word(chain, place.position + bytes));
    TL_POINT("checkpoint.append.published");
    if (end != NULL)
        *end = (tl_checkpoint_end){.generation = generation, .position = place.position + bytes};
    return TL_OK;
}

int tl_checkpoint_append(tl_checkpoint *c, const tl_checkpoint_record *records, size_t count, tl_checkpoint_end *end,
                         tl_error *err) {
    uint32_t bytes = 0;
    int result = measure(records, count, &bytes, err);
    if (result == TL_OK)
        result = tl_checkpoint_check_usable(c, err);
    if (result == TL_OK)
        result = tl_checkpoint_wipe_pending(c, err);
    if (result == TL_OK && !fits(c, LOAD(c->words->generation), bytes)) {
        result = tl_checkpoint_snapshot_for(c, bytes, err);
        if (result == TL_OK && !fits(c, LOAD(c->words->generation), bytes))
            result = tl_fail(err, TL_ENOSPC, "neither checkpoint file has room and the disk is full; free some space",
                             "", -1);
    }
    if (result != TL_OK)
        return result;
    uint8_t small[STACK_GROUP_BYTES];
    uint8_t *group = bytes <= sizeof small ? small : tl_os->malloc(bytes);
    if (group == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for a checkpoint group", "", -1);
    result = append_group(c, group, bytes, records, count, end, err);
    if (group != small)
        tl_os->free(group);
    return result;
}

/* --- sync --- */

/* Only forward, and only while the file still belongs to the generation that was synced: two snapshots may have passed
 * since this leader looked. */
static void publish_synced(tl_checkpoint *c, uint64_t generation, uint64_t end) {
    uint64_t *word = &c->words->synced[generation & 1];
    uint64_t now = LOAD(*word), next = tl_checkpoint_synced_word(generation, end);
    while (now >> 32 == (uint32_t)generation && now < next &&
           !__atomic_compare_exchange_n(word, &now, next, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
        ;
}

static int lead_sync(tl_checkpoint *c, uint64_t generation, uint64_t end, tl_error *err) {
    unsigned slot = generation & 1;
    uint32_t before = __atomic_fetch_or(&c->words->state, TL_CHECKPOINT_SYNCING, __ATOMIC_SEQ_CST);
    if ((before & TL_CHECKPOINT_SYNCING) && !TL_BUG(SYNCING_IGNORED))
        STORE(c->words->suspect, (uint32_t)generation);
    int result = TL_EAGAIN;
    if (LOAD(c->words->suspect) == (uint32_t)generation) {
        tl_fail(err, TL_EAGAIN, "the last process to sync the checkpoint died in it; take a snapshot", "", -1);
    } else {
        TL_POINT("checkpoint.sync.started");
        result = tl_checkpoint_sync_file(c, c->fd[slot], slot, err);
        TL_POINT("checkpoint.sync.flushed");
    }
    if (result == TL_OK) {
        publish_synced(c, generation, end);
        (void)tl_checkpoint_write_mark(c->fd[slot], slot, TL_CHECKPOINT_SYNCED, generation, end, NULL);
    }
    __atomic_fetch_and(&c->words->state, ~(uint32_t)TL_CHECKPOINT_SYNCING, __ATOMIC_SEQ_CST);
    TL_POINT("checkpoint.sync.done");
    return result;
}

int tl_checkpoint_sync(tl_checkpoint *c, tl_checkpoint_end end, tl_error *err) {
    for (;;) {
        uint64_t generation = LOAD(c->words->generation);
        unsigned slot = generation & 1;
        uint64_t synced = LOAD(c->words->synced[slot]), tail = LOAD(c->words->tail[slot]);
        /* A snapshot was synced before it became active, with everything that was published before it. */
        if (end.generation < generation)
            return TL_OK;
        if (LOAD(c->words->generation) != generation)
            continue;
        if (end.generation > generation || end.position > tl_checkpoint_end_of(tail))
            return tl_fail(err, TL_EINVAL, "this end was not given out by this checkpoint", "", -1);
        if (end.position <= tl_checkpoint_end_of(synced))
            return TL_OK;
        int result = tl_checkpoint_check_usable(c, err);
        return result == TL_OK ? lead_sync(c, generation, tl_checkpoint_end_of(tail), err) : result;
    }
}
