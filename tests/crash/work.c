/* What does a victim do until it dies? Imports model.h. One thread; everything it asks for and gets goes to the model. */
#define _GNU_SOURCE
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_MESSAGES = 60, ROW_BYTES = 40, HUGE_ROW_BYTES = 4000, HUGE_ROWS = 640 };

static uint8_t arena[1 << 20], encoded[1 << 20], huge[HUGE_ROWS * HUGE_ROW_BYTES];
static tl_partition *handles[MODEL_PARTITIONS];
static uint32_t epochs[MODEL_PARTITIONS][MODEL_GROUPS];
static uint64_t dice;

static uint32_t roll(uint32_t sides) { return (uint32_t)(model_random(&dice) % sides); }

/* --- open and close --- */

tl_store *work_open(int *state) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 5000, .create = true, .no_housekeeper = true};
    tl_store *store = NULL;
    tl_error err = {0};
    tl_recovery recovery;
    model_doing("open the store");
    int status = tl_store_open(m->path, &options, &store, state, &recovery, &err);
    model_expect_ok(status, &err, "open");
    if (recovery.failed_partitions != 0)
        model_fail("recovery could not repair %u partitions (same boot %d, clean %d, %u scanned)",
                   recovery.failed_partitions, recovery.same_boot, recovery.clean, recovery.scanned_partitions);
    memset(handles, 0, sizeof handles);
    memset(epochs, 0, sizeof epochs);
    members_begin();
    if (*state == TL_STORE_RECOVERED && !recovery.same_boot)
        model_forget_members(); /* the shared words are new */
    return store;
}

/* Whoever takes the catalogue's lock finishes what a dead owner of it began. */
static void catalogue_was_locked(void) {
    for (uint32_t i = 0; i < m->partitions; i++)
        if (m->partition[i].state == PARTITION_VANISHING || m->partition[i].state == PARTITION_CREATING)
            m->partition[i].state = PARTITION_DROPPED;
}

static void forget_handle(const model_partition *p) {
    tl_partition **handle = &handles[p - m->partition];
    if (*handle != NULL)
        tl_partition_release(*handle);
    *handle = NULL;
}

void work_close(tl_store *store) {
    tl_error err = {0};
    for (uint32_t i = 0; i < m->partitions; i++)
        forget_handle(&m->partition[i]);
    model_doing("close the store");
    model_expect_ok(tl_store_close(store, &err), &err, "close");
    tl_store_free(store);
}

tl_partition *work_partition(tl_store *store, const model_partition *p) {
    tl_partition **handle = &handles[p - m->partition];
    tl_error err = {0};
    if (*handle == NULL)
        model_expect_ok(tl_store_partition(store, p->slot, p->channel, handle, &err), &err, "take a handle");
    return *handle;
}

static model_partition *some_partition(void) {
    model_partition *live[MODEL_PARTITIONS];
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->partitions; i++)
        if (m->partition[i].state == PARTITION_LIVE)
            live[count++] = &m->partition[i];
    return count == 0 ? NULL : live[roll(count)];
}

/* --- catalogue --- */

static void create(tl_store *store) {
    tl_partition_config configs[2];
    uint32_t slots[2] = {0}, live = 0, count = 1 + roll(2);
    bool used[MODEL_PARTITIONS] = {false};
    for (uint32_t i = 0; i < m->partitions; i++) {
        if (m->partition[i].state == PARTITION_LIVE) {
            used[m->partition[i].number] = true;
            live++;
        }
    }
    if (live + count > MODEL_LIVE || m->partitions + count > MODEL_PARTITIONS)
        return;
    memset(configs, 0, sizeof configs);
    model_partition *first = &m->partition[m->partitions];
    for (uint32_t i = 0; i < count; i++) {
        model_partition *p = &first[i];
        memset(p, 0, sizeof *p);
        while (used[p->number])
            p->number++;
        used[p->number] = true;
        uint64_t id[2] = {m->life, m->partitions + i + 1};
        memcpy(p->channel, id, 16);
        static const uint32_t sizes[] = {4096, 4096, 16384, 65536};
        p->segment_bytes = sizes[roll(4)];
        p->retention_ms = roll(5) == 0 ? 200 : -1;
        p->retention_bytes = roll(5) == 0 ? 20000 : -1;
        for (int g = 0; g < MODEL_GROUPS; g++)
            p->commits[g].acked = p->commits[g].synced = -1;
        p->state = PARTITION_CREATING;
        configs[i] = (tl_partition_config){.partition = p->number,
                                           .segment_bytes = p->segment_bytes,
                                           .segment_ms = -1,
                                           .retention_ms = p->retention_ms,
                                           .retention_bytes = p->retention_bytes,
                                           .max_message_bytes = 1 << 20};
        memcpy(configs[i].channel, p->channel, 16);
        snprintf(configs[i].directory, sizeof configs[i].directory, "orders-%u", p->number);
    }
    m->partitions += count;
    model_doing("create %u partitions, the first is %s", count, configs[0].directory);
    tl_error err = {0};
    model_expect_ok(tl_store_catalogue_lock(store, &err), &err, "lock the catalogue");
    model_expect_ok(tl_store_create_partitions(store, configs, count, slots, &err), &err, "create");
    tl_store_catalogue_unlock(store);
    catalogue_was_locked();
    for (uint32_t i = 0; i < count; i++) {
        first[i].slot = slots[i];
        first[i].state = PARTITION_LIVE;
    }
}

/* Partitions that nobody writes to and the model leaves out, enough for another block of shared words; the next time they
 * are dropped, however many of them a death has left. */
enum { PASSING = 70 };

typedef struct passing {
    uint32_t slots[PASSING];
    uint32_t count;
} passing;

static int find_passing(void *context, uint32_t slot, const tl_partition_config *config) {
    passing *found = context;
    if (memcmp(config->channel, MODEL_PASSING_CHANNEL, 16) == 0 && found->count < PASSING)
        found->slots[found->count++] = slot;
    return 0;
}

static void pass(tl_store *store) {
    static tl_partition_config configs[PASSING];
    passing found = {.count = 0};
    tl_error err = {0};
    model_doing("make or drop %d partitions at once", PASSING);
    model_expect_ok(tl_store_catalogue_lock(store, &err), &err, "lock the catalogue");
    tl_store_each_partition(store, &found, find_passing);
    if (found.count > 0) {
        model_expect_ok(tl_store_drop_partitions(store, found.slots, found.count, &err), &err, "drop many");
    } else {
        for (uint32_t i = 0; i < PASSING; i++) {
            configs[i] = (tl_partition_config){.partition = i,
                                               .segment_bytes = 4096,
                                               .segment_ms = -1,
                                               .retention_ms = -1,
                                               .retention_bytes = -1,
                                               .max_message_bytes = 1000};
            memcpy(configs[i].channel, MODEL_PASSING_CHANNEL, 16);
            snprintf(configs[i].directory, sizeof configs[i].directory, "passing-%u", i);
        }
        model_expect_ok(tl_store_create_partitions(store, configs, PASSING, found.slots, &err), &err, "create many");
    }
    tl_store_catalogue_unlock(store);
    catalogue_was_locked();
}

static void drop(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    tl_error err = {0};
    p->state = PARTITION_DROPPING;
    model_doing("drop partition %d", (int)(p - m->partition));
    model_expect_ok(tl_store_catalogue_lock(store, &err), &err, "lock the catalogue");
    model_expect_ok(tl_store_drop_partitions(store, &p->slot, 1, &err), &err, "drop");
    model_expect_ok(tl_store_forget_channel(store, p->channel, &err), &err,
                    "forget the offsets of a channel");
    tl_store_catalogue_unlock(store);
    catalogue_was_locked();
    p->state = PARTITION_DROPPED;
    const tl_message late = {.value = arena, .value_bytes = 10, .key_bytes = -1};
    tl_appended out;
    int status = tl_partition_append_one(handle, &late, 0, &out, &err);
    if (status != TL_EDROPPED)
        model_fail("an append to a dropped partition answered %s instead of TL_EDROPPED", tl_status_name(status));
    forget_handle(p);
}

static void configure(tl_store *store, model_partition *p) {
    static const uint32_t sizes[] = {4096, 16384, 65536};
    tl_error err = {0};
    p->segment_bytes = sizes[roll(3)];
    tl_partition_config config = {.partition = p->number,
                                  .segment_bytes = p->segment_bytes,
                                  .segment_ms = -1,
                                  .retention_ms = p->retention_ms,
                                  .retention_bytes = p->retention_bytes,
                                  .max_message_bytes = 1 << 20};
    memcpy(config.channel, p->channel, 16);
    snprintf(config.directory, sizeof config.directory, "orders-%u", p->number);
    model_doing("configure partition %d", (int)(p - m->partition));
    model_expect_ok(tl_store_configure_partitions(store, &p->slot, 1, &config, &err), &err, "configure");
    catalogue_was_locked();
}

/* --- appending --- */

static uint32_t ask(model_partition *p, uint32_t bytes, bool has_key) {
    uint32_t sequence = p->sent;
    p->messages[sequence] = (model_message){-1, m->clock_ms, bytes, MESSAGE_ASKED, has_key};
    __atomic_store_n(&p->sent, sequence + 1, __ATOMIC_RELEASE);
    return sequence;
}

static void kept(model_partition *p, uint32_t first, uint32_t count, const tl_appended *out) {
    if (out->base_offset != p->end_seen || out->next_offset != out->base_offset + count)
        model_fail("messages %u to %u got offsets %lld to %lld, the log end was %lld", first, first + count - 1,
                   (long long)out->base_offset, (long long)out->next_offset - 1, (long long)p->end_seen);
    for (uint32_t i = 0; i < count; i++) {
        p->messages[first + i].offset = out->base_offset + i;
        p->messages[first + i].state = MESSAGE_KEPT;
    }
    p->end_seen = out->next_offset;
}

static tl_message message_of(const model_partition *p, uint32_t sequence, uint8_t *at) {
    const model_message *entry = &p->messages[sequence];
    model_fill_value(p, sequence, entry->bytes, at);
    return (tl_message){.key = entry->has_key ? at : NULL,
                        .key_bytes = entry->has_key ? 8 : -1,
                        .value = at,
                        .value_bytes = (int32_t)entry->bytes,
                        .timestamp_ms = entry->timestamp_ms};
}

void work_append_one(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    unsigned flags = roll(6) == 0 ? TL_APPEND_THROUGH_FILE : roll(6) == 0 ? TL_APPEND_TRY : 0;
    uint32_t sequence = ask(p, model_value_bytes(p, p->sent), roll(3) == 0);
    m->clock_ms++;
    const tl_message message = message_of(p, sequence, arena);
    tl_appended out = {0};
    tl_error err = {0};
    model_doing("append message %u to partition %d, flags %u", sequence, (int)(p - m->partition), flags);
    int status = tl_partition_append_one(handle, &message, flags, &out, &err);
    if (status == TL_EAGAIN && flags == TL_APPEND_TRY)
        status = tl_partition_append_one(handle, &message, 0, &out, &err);
    model_expect_ok(status, &err, "append one");
    kept(p, sequence, 1, &out);
}

static void append_many(tl_store *store, model_partition *p, uint32_t count, bool ready) {
    tl_partition *handle = work_partition(store, p);
    unsigned flags = roll(3) == 0 ? TL_APPEND_THROUGH_FILE : 0;
    tl_message messages[MOST_MESSAGES];
    uint32_t first = p->sent;
    size_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = ask(p, model_value_bytes(p, p->sent), roll(3) == 0);
        messages[i] = message_of(p, sequence, arena + used);
        used += p->messages[sequence].bytes;
        m->clock_ms++;
    }
    tl_append what = {.messages = messages, .count = count};
    if (ready) {
        size_t bytes = 0;
        if (tl_batch_measure(messages, count, TL_BATCH_MAX_BYTES, &bytes) != count)
            model_fail("%u messages do not fit a batch", count);
        what = (tl_append){.encoded = encoded, .encoded_bytes = bytes, .count = count};
        tl_batch_encode(encoded, 0, &tl_batch_plain, messages, count, &what.max_timestamp_ms);
    }
    tl_appended out = {0};
    tl_error err = {0};
    model_doing("append messages %u to %u to partition %d%s, flags %u", first, first + count - 1,
                (int)(p - m->partition), ready ? ", encoded" : "", flags);
    model_expect_ok(tl_partition_append(handle, &what, flags, &out, &err), &err, "append many");
    kept(p, first, count, &out);
}

static void append_rows(tl_store *store, model_partition *p, uint32_t count, uint32_t row_bytes) {
    tl_partition *handle = work_partition(store, p);
    uint32_t first = p->sent;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = ask(p, row_bytes, false);
        model_fill_value(p, sequence, row_bytes, huge + (size_t)i * row_bytes);
    }
    const tl_rows rows = {.rows = huge, .stride = row_bytes, .row_bytes = row_bytes, .timestamp_ms = m->clock_ms};
    const tl_append what = {.rows = &rows, .count = count};
    m->clock_ms++;
    tl_appended out = {0};
    tl_error err = {0};
    model_doing("append rows %u to %u of %u bytes to partition %d", first, first + count - 1, row_bytes,
                (int)(p - m->partition));
    model_expect_ok(tl_partition_append(handle, &what, roll(4) == 0 ? TL_APPEND_THROUGH_FILE : 0, &out, &err), &err,
                    "append rows");
    kept(p, first, count, &out);
}

static void append_some(tl_store *store, model_partition *p) {
    uint32_t room = MODEL_MESSAGES - p->sent, kind = roll(100);
    if (room < MOST_MESSAGES)
        return;
    if (kind < 50)
        for (uint32_t i = 1 + roll(12); i > 0; i--)
            work_append_one(store, p);
    else if (kind < 80)
        append_many(store, p, 1 + roll(roll(3) == 0 ? MOST_MESSAGES : 8), false);
    else if (kind < 90)
        append_many(store, p, 1 + roll(12), true);
    else if (kind < 99 || room < HUGE_ROWS)
        append_rows(store, p, 1 + roll(40), ROW_BYTES);
    else
        append_rows(store, p, HUGE_ROWS, HUGE_ROW_BYTES);
}

/* --- durability, retention --- */

static void offsets_are_synced(const int32_t before[MODEL_PARTITIONS][MODEL_GROUPS]) {
    for (uint32_t i = 0; i < m->partitions; i++)
        for (int g = 0; g < MODEL_GROUPS; g++)
            if (before[i][g] > m->partition[i].commits[g].synced)
                m->partition[i].commits[g].synced = before[i][g];
}

static void make_durable(tl_store *store, int kind) {
    int32_t before[MODEL_PARTITIONS][MODEL_GROUPS];
    tl_error err = {0};
    for (uint32_t i = 0; i < m->partitions; i++)
        for (int g = 0; g < MODEL_GROUPS; g++)
            before[i][g] = m->partition[i].commits[g].acked;
    static const char *const names[] = {"sync the store", "one round of housekeeping", "sync the offsets"};
    model_doing("%s", names[kind]);
    int status = kind == 0   ? tl_store_sync(store, &err)
                 : kind == 1 ? tl_store_housekeep(store, &err)
                             : tl_store_sync_offsets(store, &err);
    model_expect_ok(status, &err, names[kind]);
    offsets_are_synced(before);
}

static void sync_one(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    tl_error err = {0};
    model_doing("sync partition %d", (int)(p - m->partition));
    uint64_t tail = tl_partition_tail(handle), again = tl_point_hits("sync.dirtied_again");
    size_t bytes = 0;
    const uint8_t *shared = verify_map_shared(&bytes);
    const tl_hot *hot = tl_shared_hot((uint8_t *)(uintptr_t)shared, p->slot);
    bool leader_died = hot->syncing != 0 && hot->synced < tail;
    munmap((void *)(uintptr_t)shared, bytes);
    model_expect_ok(tl_partition_sync(handle, tail, -1, &err), &err, "sync");
    if (leader_died && tl_point_hits("sync.dirtied_again") == again)
        model_fail("a leader died in a sync, and the next one trusted the pages: an error that only the dead one saw "
                   "would be lost");
    if (!tl_partition_is_synced(handle, tail))
        model_fail("a sync returned before its tail was synced");
}

static void trim(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    tl_bounds bounds;
    tl_error err = {0};
    model_expect_ok(tl_partition_bounds(handle, &bounds, &err), &err, "bounds");
    int64_t before =
        roll(4) == 0
            ? bounds.log_end
            : bounds.log_start + (int64_t)(model_random(&dice) % (uint64_t)(bounds.log_end - bounds.log_start + 1));
    if (before > p->trim_asked)
        p->trim_asked = before;
    model_doing("trim partition %d before %lld", (int)(p - m->partition), (long long)before);
    model_expect_ok(tl_partition_trim(handle, before, &err), &err, "trim");
    if (before > p->trim_acked)
        p->trim_acked = before;
}

/* --- committed offsets --- */

static void commit(tl_store *store, model_partition *p) {
    uint32_t self = (uint32_t)(p - m->partition), g = roll(MODEL_GROUPS), slot = 0;
    model_commits *c = &p->commits[g];
    tl_offsets *table = tl_store_offsets(store);
    const tl_owner me = tl_store_owner(store);
    tl_offset_word word;
    tl_error err = {0};
    char group[16];
    if (c->asked == MODEL_COMMITS)
        return;
    snprintf(group, sizeof group, "group-%u", g);
    model_doing("commit for %s, partition %u", group, self);
    model_expect_ok(tl_store_offset_slot(store, group, strlen(group), p->channel, p->number, true, &slot, &err), &err,
                    "find the offset slot");
    model_expect_ok(tl_offsets_read(table, slot, &word, NULL), &err, "read the offset slot");
    if (epochs[self][g] == 0 || word.epoch != epochs[self][g] || word.owner != me) {
        model_expect_ok(tl_offsets_claim(table, slot, word, me, &epochs[self][g]), &err, "claim the lease");
        if (roll(3) == 0) { /* somebody else takes it over: the old lease must be worth nothing from then on */
            uint32_t stale = epochs[self][g], other = 0;
            model_expect_ok(tl_offsets_read(table, slot, &word, NULL), &err, "read the offset slot");
            model_expect_ok(tl_offsets_claim(table, slot, word, me ^ (1u << 20), &other), &err, "take the lease over");
            int status = tl_offsets_commit(table, slot, me, stale, 1, m->clock_ms);
            if (status != TL_EFENCED)
                model_fail("a commit with a lease that was taken over answered %s instead of TL_EFENCED",
                           tl_status_name(status));
            model_expect_ok(tl_offsets_read(table, slot, &word, NULL), &err, "read the offset slot");
            model_expect_ok(tl_offsets_claim(table, slot, word, me, &epochs[self][g]), &err, "claim the lease back");
        }
    }
    int64_t value = (int64_t)(++m->commits_made * 4) + roll(4);
    c->values[c->asked] = value;
    __atomic_store_n(&c->asked, c->asked + 1, __ATOMIC_RELEASE);
    uint32_t kind = roll(10);
    int status = kind == 0   ? tl_offsets_advance(table, slot, value, m->clock_ms)
                 : kind == 1 ? tl_offsets_set(table, slot, value, m->clock_ms, true)
                             : tl_offsets_commit(table, slot, me, epochs[self][g], value, m->clock_ms);
    model_expect_ok(status, &err, "commit");
    __atomic_store_n(&c->acked, c->asked - 1, __ATOMIC_RELEASE);
    if (roll(4) == 0) {
        char text[300];
        int length = snprintf(text, sizeof text, "%lld:", (long long)value);
        uint32_t bytes = (uint32_t)length + roll(200);
        memset(text + length, 'a' + (int)(value % 26), bytes - (uint32_t)length);
        model_expect_ok(tl_store_catalogue_lock(store, &err), &err, "lock the catalogue");
        model_expect_ok(tl_offsets_set_metadata(table, slot, text, bytes, &err), &err, "set metadata");
        tl_store_catalogue_unlock(store);
    }
    if (roll(5) == 0) {
        model_expect_ok(tl_offsets_release(table, slot, me, epochs[self][g]), &err, "release the lease");
        epochs[self][g] = 0;
    }
}

/* Enough groups of their own to make the table grow, and forgotten at once. */
static void many_groups(tl_store *store, model_partition *p) {
    tl_error err = {0};
    tl_offsets *table = tl_store_offsets(store);
    model_doing("make and forget many groups");
    uint32_t count = 20 + roll(150), base = roll(1000);
    for (uint32_t i = 0; i < count; i++) {
        char group[32];
        uint32_t slot = 0, number = 0;
        snprintf(group, sizeof group, "passing-%u", base + i);
        model_expect_ok(tl_store_offset_slot(store, group, strlen(group), p->channel, p->number, true, &slot, &err),
                        &err, "make a group");
        if (i % 16 != 0)
            continue;
        model_expect_ok(tl_store_catalogue_lock(store, &err), &err, "lock the catalogue");
        if (tl_offsets_group(table, group, strlen(group), false, &number, &err) == TL_OK)
            model_expect_ok(tl_offsets_forget_group(table, number, &err), &err, "forget a group");
        tl_store_catalogue_unlock(store);
    }
}

/* --- reading beside it --- */

static void sleep_a_moment(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    uint64_t seen = tl_partition_tail(handle);
    tl_error err = {0};
    model_doing("wait for partition %d", (int)(p - m->partition));
    int status = tl_store_wait(store, &handle, &seen, 1, 300000, 0, NULL, 0, NULL, &err);
    if (status != TL_ETIMEOUT)
        model_fail("a wait for a partition nobody appends to answered %s", tl_status_name(status));
}

void work_run(tl_store *store, uint64_t seed, uint32_t operations) {
    dice = seed;
    for (uint32_t i = 0; i < operations; i++) {
        model_partition *p = some_partition();
        uint32_t kind = roll(1000);
        if (p == NULL || kind < 40)
            create(store);
        else if (kind < 560)
            append_some(store, p);
        else if (kind < 620)
            sync_one(store, p);
        else if (kind < 680)
            make_durable(store, (int)roll(3));
        else if (kind < 850)
            commit(store, p);
        else if (kind < 900)
            trim(store, p);
        else if (kind < 930)
            drop(store, p);
        else if (kind < 950)
            configure(store, p);
        else if (kind < 955)
            many_groups(store, p);
        else if (kind < 970)
            sleep_a_moment(store, p);
        else if (kind < 973)
            pass(store);
        else
            members_work(store, model_mix(seed, i, 3)); /* dice of their own: the rest of a life stays what it was */
        m->clock_ms += roll(20);
    }
}
