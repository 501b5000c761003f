/* What does a victim commit, and for which groups? Imports work.h. One thread. */
#define _GNU_SOURCE
#include "work.h"

#include <stdio.h>

static uint32_t epochs[MODEL_PARTITIONS][MODEL_GROUPS]; /* of the leases it holds; 0: none */

void commits_begin(void) { memset(epochs, 0, sizeof epochs); }

void commits_one(tl_store *store, model_partition *p) {
    uint32_t self = (uint32_t)(p - m->partition), g = work_roll(MODEL_GROUPS), slot = 0;
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
        if (work_roll(3) == 0) { /* somebody else takes it over: the old lease must be worth nothing from then on */
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
    int64_t value = (int64_t)(++m->commits_made * 4) + work_roll(4);
    c->values[c->asked] = value;
    __atomic_store_n(&c->asked, c->asked + 1, __ATOMIC_RELEASE);
    uint32_t kind = work_roll(10);
    int status = kind == 0   ? tl_offsets_advance(table, slot, value, m->clock_ms)
                 : kind == 1 ? tl_offsets_set(table, slot, value, m->clock_ms, true)
                             : tl_offsets_commit(table, slot, me, epochs[self][g], value, m->clock_ms);
    model_expect_ok(status, &err, "commit");
    __atomic_store_n(&c->acked, c->asked - 1, __ATOMIC_RELEASE);
    if (work_roll(4) == 0) {
        char text[300];
        int length = snprintf(text, sizeof text, "%lld:", (long long)value);
        uint32_t bytes = (uint32_t)length + work_roll(200);
        memset(text + length, 'a' + (int)(value % 26), bytes - (uint32_t)length);
        model_expect_ok(tl_store_catalogue_lock(store, &err), &err, "lock the catalogue");
        model_expect_ok(tl_offsets_set_metadata(table, slot, text, bytes, &err), &err, "set metadata");
        tl_store_catalogue_unlock(store);
    }
    if (work_roll(5) == 0) {
        model_expect_ok(tl_offsets_release(table, slot, me, epochs[self][g]), &err, "release the lease");
        epochs[self][g] = 0;
    }
}

/* Enough groups of their own to make the table grow, and forgotten at once. */
void commits_of_many_groups(tl_store *store, model_partition *p) {
    tl_error err = {0};
    tl_offsets *table = tl_store_offsets(store);
    model_doing("make and forget many groups");
    uint32_t count = 20 + work_roll(150), base = work_roll(1000);
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
