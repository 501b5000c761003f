/* Which number has this group, which slot this partition of it, and what numbers are there?
 *
 * Imports offsets_file.h, os.h. Any thread. Looking up takes no lock when the answer is indexed already; the handle's
 * mutex, which no other process sees, is taken to index what was published since, and to create.
 *
 * The index is private to the process and holds nothing that a slot does not say itself: every hit is compared with the
 * slot's own bytes. */
#include "offsets_file.h"

#define FIRST_CELLS 256u

typedef struct key {
    uint64_t hash;
    const void *name;           /* NULL: an offset slot */
    uint32_t name_bytes;
    uint32_t group, partition;
    const uint8_t *channel_id;
} key;

static uint64_t mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xd6e8feb86659fd93u);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static key group_key(const tl_offsets *t, const void *name, uint32_t bytes) {
    uint64_t h = mix(t->seed, bytes);
    for (uint32_t at = 0; at < bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, (const uint8_t *)name + at, bytes - at < 8 ? bytes - at : 8);
        h = mix(h ^ word, t->seed + at);
    }
    return (key){.hash = h, .name = name, .name_bytes = bytes};
}

static key slot_key(const tl_offsets *t, uint32_t group, const uint8_t channel_id[16], uint32_t partition) {
    uint64_t h = mix(~t->seed, (uint64_t)group << 32 | partition);
    h = mix(h ^ tl_le64(channel_id), t->seed);
    h = mix(h ^ tl_le64(channel_id + 8), t->seed);
    return (key){.hash = h, .group = group, .partition = partition, .channel_id = channel_id};
}

static void note_damage(tl_offsets *t, uint32_t slot) {
    uint32_t none = OFFSETS_NO_SLOT;
    __atomic_compare_exchange_n(&t->damaged, &none, slot, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* 1: the live slot of this key, 0: another or a forgotten one, negative: damaged. */
static int matches(const tl_offsets *t, const key *wanted, uint32_t slot, uint32_t count) {
    if (wanted->name == NULL) {
        offset_slot fixed;
        int rc = offset_load(t, slot, count, &fixed, NULL);
        if (rc < 0)
            return rc;
        return fixed.state == STATE_LIVE && fixed.group == wanted->group && fixed.partition == wanted->partition &&
               memcmp(fixed.channel_id, wanted->channel_id, 16) == 0;
    }
    uint8_t name[TL_OFFSETS_MAX_GROUP_BYTES];
    uint32_t bytes, state;
    int rc = group_load(t, slot, count, name, &bytes, &state, NULL);
    if (rc < 0)
        return rc;
    return state == STATE_LIVE && bytes == wanted->name_bytes && memcmp(name, wanted->name, bytes) == 0;
}

static bool find(tl_offsets *t, const key *wanted, uint32_t *slot) {
    const offsets_index *index = __atomic_load_n(&t->index, __ATOMIC_ACQUIRE);
    if (index == NULL)
        return false;
    uint32_t tag = (uint32_t)(wanted->hash >> 32);
    for (uint32_t at = (uint32_t)wanted->hash & index->mask;; at = (at + 1) & index->mask) {
        uint64_t cell = __atomic_load_n(&index->cells[at], __ATOMIC_ACQUIRE);
        if (cell == 0)
            return false;
        if ((uint32_t)(cell >> 32) != tag)
            continue;
        uint32_t found = (uint32_t)cell - 1;
        /* `seen` was stored before the cell, so it lies above every indexed slot. */
        int rc = matches(t, wanted, found, __atomic_load_n(&t->seen, __ATOMIC_ACQUIRE));
        if (rc < 0)
            note_damage(t, found);
        if (rc == 1) {
            *slot = found;
            return true;
        }
    }
}

/* --- under the mutex --- */

/* Room for one more, at most three quarters full, so that probes stay short and always meet an empty cell. The low hash
 * bits of a cell are not kept: they are its place, found again from the slot. */
static void insert(offsets_index *index, uint64_t hash, uint32_t slot) {
    uint32_t at = (uint32_t)hash & index->mask;
    while (index->cells[at] != 0)
        at = (at + 1) & index->mask;
    __atomic_store_n(&index->cells[at], (hash >> 32) << 32 | (slot + 1), __ATOMIC_RELEASE);
    index->used++;
}

/* 1 and the key of a live group or offset slot, 0 for what is not indexed, negative when damaged. */
static int key_of(const tl_offsets *t, uint32_t slot, uint32_t count, uint64_t *hash) {
    switch (slot_kind(t, slot)) {
    case KIND_GROUP: {
        uint8_t name[TL_OFFSETS_MAX_GROUP_BYTES];
        uint32_t bytes, state;
        int rc = group_load(t, slot, count, name, &bytes, &state, NULL);
        if (rc < 0)
            return rc;
        *hash = group_key(t, name, bytes).hash;
        return state == STATE_LIVE;
    }
    case KIND_OFFSET: {
        offset_slot fixed;
        int rc = offset_load(t, slot, count, &fixed, NULL);
        if (rc < 0)
            return rc;
        *hash = slot_key(t, fixed.group, fixed.channel_id, fixed.partition).hash;
        return fixed.state == STATE_LIVE;
    }
    case KIND_OVERFLOW:
        return 0;
    default:
        return TL_ECORRUPT;
    }
}

static int reserve_cell(tl_offsets *t, uint32_t count, tl_error *err) {
    offsets_index *old = t->index;
    if (old != NULL && old->used < (old->mask + 1) / 4 * 3)
        return TL_OK;
    uint32_t cells = old == NULL ? FIRST_CELLS : (old->mask + 1) * 2;
    offsets_index *grown = tl_calloc(1, sizeof *grown + (size_t)cells * sizeof grown->cells[0]);
    if (grown == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the index of the offset table", TL_OFFSETS_FILE, -1);
    grown->mask = cells - 1;
    grown->older = old;
    for (uint32_t i = 0; old != NULL && i <= old->mask; i++) {
        uint64_t hash;
        uint32_t slot = (uint32_t)old->cells[i] - 1;
        if (old->cells[i] == 0)
            continue;
        int rc = key_of(t, slot, count, &hash);
        if (rc < 0)
            note_damage(t, slot);
        if (rc > 0)
            insert(grown, hash, slot);
    }
    __atomic_store_n(&t->index, grown, __ATOMIC_RELEASE);
    return TL_OK;
}

/* Indexes what was published since. A damaged slot is noted and stepped over. */
static int extend(tl_offsets *t, tl_error *err) {
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    while (t->indexed < count) {
        uint64_t hash;
        rc = key_of(t, t->indexed, count, &hash);
        if (rc < 0)
            note_damage(t, t->indexed);
        if (rc > 0) {
            rc = reserve_cell(t, count, err);
            if (rc < 0)
                return rc;
            insert(t->index, hash, t->indexed);
        }
        t->indexed++;
    }
    return TL_OK;
}

static int missing(const tl_offsets *t, tl_error *err, const char *what) {
    uint32_t damaged = __atomic_load_n(&t->damaged, __ATOMIC_RELAXED);
    if (damaged != OFFSETS_NO_SLOT)
        return offsets_damaged(err, damaged, "not found, but a slot of the offset table is damaged and may be the one; "
                                             "close the store everywhere and run tidelog check --repair");
    return tl_fail(err, TL_ENOTFOUND, what, TL_OFFSETS_FILE, -1);
}

/* Everything that can fail comes before the first byte is written. */
static int begin_create(tl_offsets *t, uint32_t slots, uint32_t *first, tl_error *err) {
    int rc = offsets_make_room(t, slots, first, err);
    return rc < 0 ? rc : reserve_cell(t, *first, err);
}

static void end_create(tl_offsets *t, uint64_t hash, uint32_t first, uint32_t slots) {
    offsets_publish(t, first + slots);
    __atomic_store_n(&t->seen, first + slots, __ATOMIC_RELEASE); /* before the cell: whoever finds it asks `seen` */
    insert(t->index, hash, first);
    t->indexed = first + slots;
    TL_POINT("offsets.slot.indexed");
}

static int create_group(tl_offsets *t, const key *wanted, uint32_t *number, tl_error *err) {
    uint32_t n = wanted->name_bytes, inline_bytes = n < GROUP_INLINE_BYTES ? n : GROUP_INLINE_BYTES;
    uint32_t parts = (n - inline_bytes + OVERFLOW_BYTES - 1) / OVERFLOW_BYTES, first;
    int rc = begin_create(t, 1 + parts, &first, err);
    if (rc < 0)
        return rc;
    group_slot *slot = offsets_at(t, first);
    memset(slot, 0, sizeof *slot);
    slot->kind = KIND_GROUP;
    slot->name_bytes = n;
    slot->state = STATE_LIVE;
    memcpy(slot->name, wanted->name, inline_bytes);
    slot->crc = group_crc(first, n, wanted->name);
    TL_POINT("offsets.group.begun");
    for (uint32_t part = 0, at = inline_bytes; part < parts; part++, at += OVERFLOW_BYTES) {
        overflow_slot *more = offsets_at(t, first + 1 + part);
        overflow_fill(more, first + 1 + part, first, part);
        memcpy(more->bytes, (const uint8_t *)wanted->name + at, n - at < OVERFLOW_BYTES ? n - at : OVERFLOW_BYTES);
    }
    end_create(t, wanted->hash, first, 1 + parts);
    *number = first;
    return TL_OK;
}

static int create_slot(tl_offsets *t, const key *wanted, uint32_t *number, tl_error *err) {
    uint32_t first;
    int rc = begin_create(t, 1, &first, err);
    if (rc < 0)
        return rc;
    offset_slot *slot = offsets_at(t, first);
    memset(slot, 0, sizeof *slot);
    slot->kind = KIND_OFFSET;
    slot->group = wanted->group;
    memcpy(slot->channel_id, wanted->channel_id, 16);
    slot->partition = wanted->partition;
    slot->crc = offset_crc(first, slot);
    slot->word[0] = (uint64_t)(int64_t)TL_OFFSETS_NONE;
    slot->state = STATE_LIVE;
    slot->metadata = guarded(0);
    slot->saved_offset = TL_OFFSETS_NONE;
    end_create(t, wanted->hash, first, 1);
    *number = first;
    return TL_OK;
}

static int find_or_create(tl_offsets *t, const key *wanted, bool create, uint32_t *number, tl_error *err) {
    if (find(t, wanted, number))
        return TL_OK;
    pthread_mutex_lock(&t->mutex);
    int rc = extend(t, err);
    if (rc == TL_OK && !find(t, wanted, number)) {
        rc = missing(t, err,
                     wanted->name != NULL ? "no such consumer group" : "the group has no offset for this partition");
        if (rc == TL_ENOTFOUND && create)
            rc = wanted->name != NULL ? create_group(t, wanted, number, err) : create_slot(t, wanted, number, err);
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

int tl_offsets_group(tl_offsets *t, const void *name, size_t bytes, bool create, uint32_t *number, tl_error *err) {
    if (bytes == 0 || bytes > TL_OFFSETS_MAX_GROUP_BYTES)
        return tl_fail(err, TL_EINVAL, "a group name has 1 to 1024 bytes", "", -1);
    key wanted = group_key(t, name, (uint32_t)bytes);
    return find_or_create(t, &wanted, create, number, err);
}

/* Its name is not looked at: a slot's lookup only wants to know that the group is one and lives. */
static int group_live(const tl_offsets *t, uint32_t number, tl_error *err) {
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    uint32_t kind = number < count ? slot_kind(t, number) : KIND_OFFSET;
    if (kind == KIND_OFFSET || kind == KIND_OVERFLOW)
        return tl_fail(err, TL_EINVAL, "no such group number", TL_OFFSETS_FILE, -1);
    if (kind != KIND_GROUP)
        return offsets_damaged(err, number, "a slot of the offset table is damaged; run tidelog check");
    uint32_t state = __atomic_load_n(&((const group_slot *)offsets_at(t, number))->state, __ATOMIC_RELAXED);
    if (state == STATE_FORGOTTEN)
        return tl_fail(err, TL_EDROPPED, "the consumer group was deleted; look it up by its name again",
                       TL_OFFSETS_FILE, -1);
    if (state != STATE_LIVE)
        return offsets_damaged(err, number, "the state of a group in the offset table is damaged; run tidelog check");
    return TL_OK;
}

int tl_offsets_slot(tl_offsets *t, uint32_t group, const uint8_t channel_id[16], uint32_t partition, bool create,
                    uint32_t *slot, tl_error *err) {
    int rc = group_live(t, group, err);
    if (rc < 0)
        return rc;
    key wanted = slot_key(t, group, channel_id, partition);
    return find_or_create(t, &wanted, create, slot, err);
}

int tl_offsets_group_name(tl_offsets *t, uint32_t number, char *name, size_t *bytes, tl_error *err) {
    uint32_t count, n, state;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    rc = group_load(t, number, count, (uint8_t *)name, &n, &state, err);
    if (rc < 0)
        return rc;
    *bytes = n;
    if (state == STATE_FORGOTTEN)
        return tl_fail(err, TL_EDROPPED, "the consumer group was deleted", TL_OFFSETS_FILE, -1);
    return TL_OK;
}

int tl_offsets_next_group(tl_offsets *t, uint32_t *cursor, uint32_t *number, tl_error *err) {
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    while (*cursor < count) {
        uint32_t at = (*cursor)++, bytes, state;
        uint8_t name[TL_OFFSETS_MAX_GROUP_BYTES];
        rc = group_load(t, at, count, name, &bytes, &state, err);
        if (rc == TL_EINVAL)
            continue;
        if (rc < 0)
            return rc;
        if (state == STATE_LIVE) {
            *number = at;
            return 1;
        }
    }
    return 0;
}

/* --- forgetting --- */

static int forget(tl_offsets *t, bool by_group, uint32_t group, const uint8_t *channel_id, tl_error *err) {
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    for (uint32_t at = 0; at < count; at++) {
        offset_slot fixed;
        if (slot_kind(t, at) != KIND_OFFSET)
            continue;
        int damage = offset_load(t, at, count, &fixed, rc == TL_OK ? err : NULL);
        if (damage < 0) { /* the others are forgotten all the same; the caller hears of the first damaged one */
            rc = rc == TL_OK ? damage : rc;
            continue;
        }
        if (by_group ? fixed.group != group : memcmp(fixed.channel_id, channel_id, 16) != 0)
            continue;
        TL_POINT("offsets.forget.before_slot");
        __atomic_store_n(&((offset_slot *)offsets_at(t, at))->state, STATE_FORGOTTEN, __ATOMIC_RELEASE);
    }
    return rc;
}

int tl_offsets_forget_channel(tl_offsets *t, const uint8_t channel_id[16], tl_error *err) {
    if (!t->writable)
        return tl_fail(err, TL_EINVAL, "the offset table was opened read-only", TL_OFFSETS_FILE, -1);
    return forget(t, false, 0, channel_id, err);
}

int tl_offsets_forget_group(tl_offsets *t, uint32_t number, tl_error *err) {
    if (!t->writable)
        return tl_fail(err, TL_EINVAL, "the offset table was opened read-only", TL_OFFSETS_FILE, -1);
    int rc = group_live(t, number, err);
    if (rc < 0 && rc != TL_EDROPPED)
        return rc;
    TL_POINT("offsets.forget.before_group");
    __atomic_store_n(&((group_slot *)offsets_at(t, number))->state, STATE_FORGOTTEN, __ATOMIC_RELEASE);
    TL_POINT("offsets.forget.after_group");
    return forget(t, true, number, NULL, err);
}
