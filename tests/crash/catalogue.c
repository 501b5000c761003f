/* What does a victim do to partitions as a whole: make, drop, configure them? Imports work.h. One thread. */
#define _GNU_SOURCE
#include "work.h"

#include <stdio.h>

/* Whoever takes the catalogue's lock finishes what a dead owner of it began. */
static void catalogue_was_locked(void) {
    for (uint32_t i = 0; i < m->partitions; i++)
        if (m->partition[i].state == PARTITION_VANISHING || m->partition[i].state == PARTITION_CREATING)
            m->partition[i].state = PARTITION_DROPPED;
}

void catalogue_create(tl_store *store) {
    tl_partition_config configs[2];
    uint32_t slots[2] = {0}, live = 0, count = 1 + work_roll(2);
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
        p->segment_bytes = sizes[work_roll(4)];
        p->retention_ms = work_roll(5) == 0 ? 200 : -1;
        p->retention_bytes = work_roll(5) == 0 ? 20000 : -1;
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

void catalogue_pass(tl_store *store) {
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

void catalogue_drop(tl_store *store, model_partition *p) {
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
    static const uint8_t nothing[10];
    const tl_message late = {.value = nothing, .value_bytes = sizeof nothing, .key_bytes = -1};
    tl_appended out;
    int status = tl_partition_append_one(handle, &late, 0, &out, &err);
    if (status != TL_EDROPPED)
        model_fail("an append to a dropped partition answered %s instead of TL_EDROPPED", tl_status_name(status));
    work_forget_handle(p);
}

void catalogue_configure(tl_store *store, model_partition *p) {
    static const uint32_t sizes[] = {4096, 16384, 65536};
    tl_error err = {0};
    p->segment_bytes = sizes[work_roll(3)];
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
