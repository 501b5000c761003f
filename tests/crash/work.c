/* What does a victim do until it dies? Imports work.h. One thread; everything it asks for and gets goes to the model. */
#define _GNU_SOURCE
#include "work.h"

#include <sys/mman.h>

static tl_partition *handles[MODEL_PARTITIONS];
static uint64_t dice;

uint32_t work_roll(uint32_t sides) { return (uint32_t)(model_random(&dice) % sides); }

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
    commits_begin();
    members_begin();
    transactions_begin();
    if (*state == TL_STORE_RECOVERED && !recovery.same_boot)
        model_forget_members(); /* the shared words are new */
    return store;
}

void work_forget_handle(const model_partition *p) {
    tl_partition **handle = &handles[p - m->partition];
    if (*handle != NULL)
        tl_partition_release(*handle);
    *handle = NULL;
}

void work_close(tl_store *store) {
    tl_error err = {0};
    for (uint32_t i = 0; i < m->partitions; i++)
        work_forget_handle(&m->partition[i]);
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
    return count == 0 ? NULL : live[work_roll(count)];
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
        work_roll(4) == 0
            ? bounds.log_end
            : bounds.log_start + (int64_t)(model_random(&dice) % (uint64_t)(bounds.log_end - bounds.log_start + 1));
    if (before > p->trim_asked)
        p->trim_asked = before;
    model_doing("trim partition %d before %lld", (int)(p - m->partition), (long long)before);
    model_expect_ok(tl_partition_trim(handle, before, &err), &err, "trim");
    if (before > p->trim_acked)
        p->trim_acked = before;
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
        uint32_t kind = work_roll(1000);
        if (p == NULL || kind < 40)
            catalogue_create(store);
        else if (kind < 560)
            appends_some(store, p);
        else if (kind < 620)
            sync_one(store, p);
        else if (kind < 680)
            make_durable(store, (int)work_roll(3));
        else if (kind < 850)
            commits_one(store, p);
        else if (kind < 900)
            trim(store, p);
        else if (kind < 930)
            catalogue_drop(store, p);
        else if (kind < 950)
            catalogue_configure(store, p);
        else if (kind < 955)
            commits_of_many_groups(store, p);
        else if (kind < 970)
            sleep_a_moment(store, p);
        else if (kind < 973)
            catalogue_pass(store);
        else
            members_work(store, model_mix(seed, i, 3)); /* dice of their own: the rest of a life stays what it was */
        if (m->transactional && model_mix(seed, i, 5) % 4 == 0)
            transactions_work(store, model_mix(seed, i, 6));
        m->clock_ms += work_roll(20);
    }
}
