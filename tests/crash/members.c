/* What do victims do as members of consumer groups, and what must a death leave of it? Imports model.h, groups.h.
 *
 * One process at a time has members, and a keeper has none: after a death nobody is a member but names that are
 * away, and a plan that is in force names members that are there. */
#include "model.h"
#include "tidelog/groups.h"

#include <stdio.h>
#include <unistd.h>

enum { GROUPS = 2, MINE = 4, SLOTS = 5 };

static const uint8_t nowhere[16] = "no such channel"; /* the leases of partitions that nobody reads */
static tl_member_info infos[TL_MEMBERS];

typedef struct own {
    bool used, named;
    tl_member member;
} own;
static own mine[GROUPS][MINE];
static uint64_t dice;

static uint32_t roll(uint32_t sides) { return (uint32_t)(model_random(&dice) % sides); }

static const char *name_of(int g) { return g == 0 ? "members-0" : "members-1"; }

void members_begin(void) { memset(mine, 0, sizeof mine); }

static void slots_of(tl_store *store, int g, uint32_t slots[SLOTS]) {
    tl_error err = {0};
    for (uint32_t i = 0; i < SLOTS; i++)
        model_expect_ok(tl_store_offset_slot(store, name_of(g), 9, nowhere, i, true, &slots[i], &err), &err,
                        "find the offset slot of a member");
}

static void saw_version(int g, uint64_t version) {
    if (version < m->versions[g])
        model_fail("%s is at version %llu, and was at %llu before", name_of(g), (unsigned long long)version,
                   (unsigned long long)m->versions[g]);
    m->versions[g] = version;
}

/* Whoever is in the table: members of this process, and names that are away. */
static void verify_group(tl_store *store, int g, bool empty) {
    tl_group_view view;
    tl_error err = {0};
    uint32_t number = 0, slots[SLOTS];
    int32_t targets[SLOTS];
    bool here[TL_MEMBERS] = {false};
    model_expect_ok(tl_store_group(store, name_of(g), 9, &number, &err), &err, "find a group");
    int status = tl_group_view_of(store, number, &view, infos, &err);
    if (status == TL_ENOTFOUND)
        return;
    model_expect_ok(status, &err, "look at a group");
    saw_version(g, view.version);
    if (empty && view.count != 0)
        model_fail("%s has %zu members, and everybody had died", name_of(g), view.count);
    for (size_t i = 0; i < view.count; i++) {
        bool is_mine = false;
        here[infos[i].index] = true;
        for (int k = 0; k < MINE; k++)
            is_mine = is_mine || (mine[g][k].used && tl_member_id(&mine[g][k].member) == infos[i].id);
        if (!is_mine && (!infos[i].away || infos[i].name_bytes == 0))
            model_fail("member %llu of %s belongs to nobody alive", (unsigned long long)infos[i].id, name_of(g));
        if (i > 0 && infos[i - 1].joined >= infos[i].joined)
            model_fail("the members of %s are out of order", name_of(g));
    }
    for (int k = 0; k < MINE; k++)
        if (mine[g][k].used && !tl_member_is_active(store, &mine[g][k].member))
            model_fail("a member of %s was lost", name_of(g));
    if (view.count == 0 || view.assigned != view.version)
        return;
    const tl_member any = {.row = 0};
    for (uint32_t row = 0; row < TL_GROUPS; row++) { /* the group's row, by a member that is none */
        tl_member looker = any;
        looker.row = row;
        if (tl_member_assigned(store, &looker) != view.assigned || tl_member_version(store, &looker) != view.version)
            continue;
        slots_of(store, g, slots);
        model_expect_ok(tl_group_targets(store, &looker, slots, targets, SLOTS, &err), &err, "read a plan");
        uint8_t wrong = 0;
        for (int i = 0; i < SLOTS; i++)
            wrong |= targets[i] >= 0 && !here[targets[i]];
        if (wrong && m->planned_row[g] == row + 1)
            model_fail("the plan of %s is in force and names a member that is gone", name_of(g));
    }
}

void members_verify(tl_store *store, bool alone) {
    model_doing("look at the members of groups");
    members_begin();
    while (tl_groups_sweep(store) > 0)
        continue;
    for (int g = 0; g < GROUPS; g++)
        verify_group(store, g, alone);
}

static void join(tl_store *store, int g, own *o) {
    static const uint32_t channels[3] = {1, 2, 3};
    char name[16];
    tl_error err = {0};
    o->named = roll(2) == 0;
    snprintf(name, sizeof name, "till-%d", (int)(o - mine[g]));
    const tl_member_options options = {.name = o->named ? name : NULL,
                                       .name_bytes = o->named ? strlen(name) : 0,
                                       .strategy = "sticky",
                                       .strategy_bytes = 6,
                                       .channels = channels,
                                       .channel_count = 1 + roll(3),
                                       .max_processing_ns = -1,
                                       .away_ns = roll(2) == 0 ? 0 : (int64_t)3600 * 1000000000};
    model_doing("join %s%s%s", name_of(g), o->named ? " as " : "", o->named ? name : "");
    model_expect_ok(tl_group_join(store, name_of(g), 9, &options, &o->member, &err), &err, "join");
    o->used = true;
    uint64_t id = tl_member_id(&o->member);
    for (uint32_t i = 0; i < MODEL_IDS; i++)
        if (m->ids[i] == id)
            model_fail("member id %llu was given out before", (unsigned long long)id);
    m->ids[m->id_count++ % MODEL_IDS] = id;
}

static void part(tl_store *store, int g, own *o) {
    tl_error err = {0};
    model_doing("leave %s", name_of(g));
    o->used = false;
    model_expect_ok(tl_member_leave(store, &o->member, roll(2) == 0, &err), &err, "leave");
}

/* A plan, and all leases by it: whoever had them has left, has died, or is of this process and gives them back. */
static void plan_and_take(tl_store *store, int g, const own *o) {
    tl_error err = {0};
    uint32_t slots[SLOTS], epoch = 0;
    int32_t members[SLOTS];
    uint64_t version = tl_member_version(store, &o->member);
    slots_of(store, g, slots);
    for (int i = 0; i < SLOTS; i++)
        members[i] = roll(8) == 0 ? -1 : (int32_t)o->member.index;
    model_doing("plan for %s", name_of(g));
    if (tl_group_install(store, &o->member, version - 1, slots, members, SLOTS, &err) != 0)
        model_fail("a plan for a version that has passed was stored");
    int status = tl_group_install(store, &o->member, version, slots, members, SLOTS, &err);
    model_expect_ok(status, &err, "install a plan");
    if (status != 1)
        model_fail("nobody else is there, and yet the version moved on");
    m->planned_row[g] = o->member.row + 1;
    for (int i = 0; i < SLOTS; i++) {
        tl_offset_word word;
        tl_offsets *table = tl_store_offsets(store);
        model_expect_ok(tl_offsets_read(table, slots[i], &word, NULL), &err, "read a lease");
        if (word.owner == tl_store_owner(store) && roll(2) == 0)
            model_expect_ok(tl_offsets_release(table, slots[i], word.owner, word.epoch), &err, "give a lease back");
        int taken = tl_member_claim(store, &o->member, slots[i], &epoch);
        model_expect_ok(taken, &err, "claim");
        if (taken == 1 && members[i] < 0)
            model_fail("a partition of nobody was taken");
        if (taken == 0 && members[i] >= 0 && word.owner != tl_store_owner(store))
            model_fail("a partition whose holder is dead or gone was not taken");
    }
    tl_member_turned(store, &o->member);
}

void members_work(tl_store *store, uint64_t seed) {
    dice = seed;
    for (uint32_t i = 2 + roll(8); i > 0; i--) {
        int g = (int)roll(GROUPS);
        own *o = &mine[g][roll(MINE)];
        if (!o->used)
            join(store, g, o);
        else if (roll(2) == 0)
            part(store, g, o);
        else
            plan_and_take(store, g, o);
        if (roll(4) == 0 && tl_groups_sweep(store) == 0)
            verify_group(store, g, false);
    }
}
