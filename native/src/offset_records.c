/* What does the checkpoint hold of committed offsets, and when does it forget them?
 *
 * Imports handles.h. Blocking; callable from any thread. A record is keyed by channel, partition and group. Saving and
 * forgetting take the checkpoint lock for each step; loading has the gate alone. */
#include "handles.h"

typedef struct offset_value {
    int64_t offset, time_ms;
} offset_value;
typedef struct offset_key {
    uint8_t channel[16];
    uint32_t partition;
    char group[TL_OFFSETS_MAX_GROUP_BYTES];
} offset_key;

#define FORGET_RECORDS 1024u /* a key is at most 512 bytes, a group at most 1 MiB */

/* --- saving --- */

/* Under the checkpoint lock. */
static int append_offset(tl_store *store, const tl_offset_view *view, tl_error *err) {
    offset_key key;
    size_t group_bytes = 0, metadata_bytes = 0;
    uint8_t value[sizeof(offset_value) + TL_OFFSETS_MAX_METADATA_BYTES];
    const offset_value fixed = {view->word.offset, view->time_ms};
    memcpy(key.channel, view->channel_id, 16);
    key.partition = view->partition;
    int status = tl_offsets_group_name(store->offsets, view->group, key.group, &group_bytes, err);
    if (status < 0)
        return status == TL_EDROPPED ? TL_OK : status;
    if (view->metadata_sequence != 0 &&
        tl_offsets_metadata(store->offsets, view->slot, value + sizeof fixed, &metadata_bytes, NULL) < 0)
        metadata_bytes = 0; /* being changed: it counts as changed once more */
    memcpy(value, &fixed, sizeof fixed);
    const size_t key_bytes = offsetof(offset_key, group) + group_bytes;
    if (key_bytes > TL_CHECKPOINT_KEY_BYTES)
        return tl_fail(err, TL_ETOOLARGE, "a group name is too long to be kept: use at most 492 bytes", "", -1);
    const tl_checkpoint_record record = {&key,
                                         value,
                                         (uint32_t)(sizeof fixed + metadata_bytes),
                                         (uint16_t)key_bytes,
                                         TL_RECORD_OFFSET,
                                         view->word.offset < 0 && metadata_bytes == 0};
    tl_checkpoint_record stored = record;
    if (stored.deleted)
        stored.value_bytes = 0;
    status = tl_checkpoint_append(&store->checkpoint, &stored, 1, NULL, err);
    TL_POINT("records.offset_appended");
    if (status == TL_OK)
        (void)tl_offsets_mark_saved(store->offsets, view);
    return status;
}

/* Reads, appends and marks in one turn of the lock: of two savers in two processes the second would else append an older
 * offset behind a newer one, whose committer was told that it is durable. */
static int put_offset(tl_store *store, uint32_t slot, tl_error *err) {
    uint32_t cursor = slot;
    tl_offset_view view;
    int status = tl_store_take(store, &store->header->checkpoint_lock, "the checkpoint is locked", err);
    if (status < 0)
        return status;
    status = TL_OK;
    if (tl_offsets_changed(store->offsets, &cursor, &view, NULL) == 1 &&
        view.slot == slot) /* nobody has saved it meanwhile */
        status = append_offset(store, &view, err);
    tl_lock_release(&store->header->checkpoint_lock, store->me);
    return status;
}

int tl_records_put_offsets(tl_store *store, tl_error *err) {
    uint32_t cursor = 0;
    tl_offset_view view;
    int more;
    while ((more = tl_offsets_changed(store->offsets, &cursor, &view, NULL)) != 0) {
        if (more < 0)
            continue; /* a damaged slot keeps nobody else's commits from being saved; `check` reports it */
        int status = put_offset(store, view.slot, err);
        if (status < 0)
            return status;
    }
    return TL_OK;
}

/* --- forgetting --- */

typedef struct forgetting {
    const uint8_t *channel;
    uint8_t *keys; /* TL_CHECKPOINT_KEY_BYTES each */
    uint16_t *sizes;
    size_t count;
} forgetting;

static int note_key(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                    uint32_t value_bytes) {
    forgetting *f = context;
    (void)value;
    (void)value_bytes;
    if (type != TL_RECORD_OFFSET || key_bytes < sizeof ((offset_key *)NULL)->channel ||
        key_bytes > TL_CHECKPOINT_KEY_BYTES || memcmp(key, f->channel, sizeof ((offset_key *)NULL)->channel) != 0)
        return 0;
    memcpy(f->keys + f->count * TL_CHECKPOINT_KEY_BYTES, key, key_bytes);
    f->sizes[f->count++] = key_bytes;
    return f->count == FORGET_RECORDS; /* the rest in another step */
}

/* One step under the checkpoint lock. 1: there may be more. */
static int forget_some(tl_store *store, forgetting *f, tl_checkpoint_record *records, tl_error *err) {
    f->count = 0;
    int status = tl_store_take(store, &store->header->checkpoint_lock, "the checkpoint is locked", err);
    if (status < 0)
        return status;
    int more = tl_checkpoint_load(&store->checkpoint, f, note_key, err);
    for (size_t i = 0; more >= 0 && i < f->count; i++)
        records[i] = (tl_checkpoint_record){f->keys + i * TL_CHECKPOINT_KEY_BYTES, "", 0, f->sizes[i], TL_RECORD_OFFSET,
                                            true};
    status = more < 0 || f->count == 0 ? more : tl_checkpoint_append(&store->checkpoint, records, f->count, NULL, err);
    tl_lock_release(&store->header->checkpoint_lock, store->me);
    TL_POINT("records.offsets_forgotten");
    return status < 0 ? status : more;
}

/* In the table first: a saver that looks at a slot under the lock from now on leaves it out, and what it saved before goes
 * below. Not synced: whatever a death or a power cut leaves is loaded into the table once more, where whoever opens the
 * store alone finds that no channel has it, and comes here. */
int tl_store_forget_channel(tl_store *store, const uint8_t channel[16], tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    forgetting f = {.channel = channel,
                    .keys = tl_calloc(FORGET_RECORDS, TL_CHECKPOINT_KEY_BYTES),
                    .sizes = tl_calloc(FORGET_RECORDS, sizeof *f.sizes)};
    tl_checkpoint_record *records = tl_calloc(FORGET_RECORDS, sizeof *records);
    int kept = TL_OK, status = 1;
    tl_error inner = {0};
    if (f.keys == NULL || f.sizes == NULL || records == NULL) {
        kept = tl_fail(err, TL_ENOMEM, "no memory to forget the offsets of a channel", store->path, -1);
        goto out;
    }
    status = tl_offsets_forget_channel(store->offsets, channel, &inner); /* a damaged slot keeps nothing else from going */
    tl_keep_first(status, &inner, &kept, err);
    do {
        status = forget_some(store, &f, records, &inner);
    } while (status > 0);
    tl_keep_first(status, &inner, &kept, err);
out:
    tl_os->free(f.keys);
    tl_os->free(f.sizes);
    tl_os->free(records);
    return kept;
}

/* --- loading; the gate is held alone --- */

static int damaged(tl_error *err) {
    return tl_fail(err, TL_ECORRUPT, "a committed offset in the checkpoint is impossible", "checkpoint", -1);
}

int tl_records_load_offset(tl_store *store, const void *key, uint16_t key_bytes, const void *value, uint32_t value_bytes,
                           tl_error *err) {
    offset_key k;
    offset_value v;
    if (key_bytes <= offsetof(offset_key, group) || key_bytes > sizeof k || value_bytes < sizeof v)
        return damaged(err);
    memcpy(&k, key, key_bytes);
    memcpy(&v, value, sizeof v);
    uint32_t group = 0, slot = 0;
    tl_offsets *table = store->offsets;
    if (table == NULL) /* one who only looks reads the table itself, which a clean close has synced */
        return TL_OK;
    int status = tl_offsets_group(table, k.group, key_bytes - offsetof(offset_key, group), true, &group, err);
    if (status == TL_OK)
        status = tl_offsets_slot(table, group, k.channel, k.partition, true, &slot, err);
    if (status == TL_OK && v.offset >= 0)
        status = tl_offsets_set(table, slot, v.offset, v.time_ms, true);
    if (status == TL_OK && value_bytes > sizeof v)
        status =
            tl_offsets_set_metadata(table, slot, (const uint8_t *)value + sizeof v, value_bytes - sizeof v, err);
    return status;
}

/* The merged state of the offsets comes back as it was saved, so nothing of it needs saving again. */
void tl_records_mark_offsets_saved(tl_store *store) {
    uint32_t cursor = 0;
    tl_offset_view view;
    while (tl_offsets_changed(store->offsets, &cursor, &view, NULL) == 1)
        (void)tl_offsets_mark_saved(store->offsets, &view);
}
