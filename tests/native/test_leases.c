/* Who may read a partition: do plans and leases go to the members they should, also when their time is over, when their
 * process dies, and after the death of all?
 *
 * Imports groups_kit.h. Single-threaded; the clock is moved by hand. */
#define _GNU_SOURCE
#include "groups_kit.h"

static char base[200], path[256];
static tl_member_info infos[TL_MEMBERS];
static tl_group_view view;

static tl_store *fresh(const char *name) {
    snprintf(path, sizeof path, "%.150s/%s", base, name);
    return kit_enter(path, false);
}

/* --- plans and leases --- */

static void test_plans(void) {
    tl_store *store = fresh("plans");
    uint32_t slots[KIT_SLOTS], foreign[KIT_SLOTS], epoch = 0;
    int32_t members[KIT_SLOTS], found[KIT_SLOTS];
    kit_slots(store, "g", slots);
    kit_slots(store, "h", foreign);
    tl_member a = kit_join(store, "g", NULL);
    CHECK(tl_group_targets(store, &a, slots, found, KIT_SLOTS, &kit_error) == 0);
    for (int i = 0; i < KIT_SLOTS; i++)
        CHECK(found[i] == -1);
    tl_member b = kit_join(store, "g", NULL);
    for (int i = 0; i < KIT_SLOTS; i++)
        members[i] = i == 7 ? -1 : (int32_t)(i % 2 == 0 ? a.index : b.index);
    uint64_t version = tl_member_version(store, &a);
    CHECK(tl_group_install(store, &a, version - 1, slots, members, KIT_SLOTS, &kit_error) == 0);
    CHECK(tl_member_assigned(store, &a) == 0);
    CHECK(tl_group_install(store, &a, version, foreign, members, KIT_SLOTS, &kit_error) == TL_EINVAL);
    members[3] = TL_MEMBERS;
    CHECK(tl_group_install(store, &a, version, slots, members, KIT_SLOTS, &kit_error) == TL_EINVAL);
    members[3] = -2;
    CHECK(tl_group_install(store, &a, version, slots, members, KIT_SLOTS, &kit_error) == TL_EINVAL);
    members[3] = (int32_t)b.index;
    uint32_t unknown = 4000000, turn = *tl_member_turn(store, &a);
    CHECK(tl_group_install(store, &a, version, &unknown, members, 1, &kit_error) == TL_EINVAL);
    CHECK(tl_group_targets(store, &a, &unknown, found, 1, &kit_error) == TL_EINVAL);
    CHECK(tl_member_claim(store, &a, slots[0], &epoch) == 0); /* no plan yet */
    CHECK(tl_group_install(store, &b, version, slots, members, KIT_SLOTS, &kit_error) == 1);
    CHECK(tl_member_assigned(store, &a) == version && *tl_member_turn(store, &a) != turn);
    CHECK(tl_group_targets(store, &a, slots, found, KIT_SLOTS, &kit_error) == 1);
    CHECK(memcmp(found, members, sizeof found) == 0);
    CHECK(tl_member_claim(store, &a, slots[1], &epoch) == 0 && tl_member_claim(store, &a, slots[7], &epoch) == 0);
    CHECK(tl_member_claim(store, &a, foreign[0], &epoch) == 0);
    CHECK(tl_member_claim(store, &a, slots[0], &epoch) == 1 && epoch == 1);
    kit_join(store, "g", NULL);
    CHECK(tl_group_targets(store, &a, slots, found, KIT_SLOTS, &kit_error) == 0);
    CHECK(tl_member_claim(store, &a, slots[2], &epoch) == 0); /* a newer plan is awaited */
    kit_leave(store);
}

static void test_leases(void) {
    tl_store *store = fresh("leases");
    tl_offsets *table = tl_store_offsets(store);
    tl_owner me = tl_store_owner(store);
    uint32_t slots[KIT_SLOTS], epoch = 0, taken = 0;
    kit_slots(store, "g", slots);
    tl_member a = kit_join(store, "g", NULL), b = kit_join(store, "g", NULL);
    kit_give_all(store, &a, slots, &a);
    CHECK(tl_member_claim(store, &a, slots[0], &epoch) == 1 && tl_member_claim(store, &a, slots[1], &epoch) == 1);
    CHECK(tl_offsets_commit(table, slots[0], me, 1, 17, 1) == TL_OK);

    /* Handed over: not before it is given back, and the offset stays. */
    kit_give_all(store, &a, slots, &b);
    CHECK(tl_member_claim(store, &b, slots[0], &taken) == 0 && tl_member_claim(store, &a, slots[2], &taken) == 0);
    CHECK(tl_offsets_release(table, slots[0], me, 1) == TL_OK);
    CHECK(tl_member_claim(store, &b, slots[0], &taken) == 1 && taken == 2);
    tl_offset_word word;
    CHECK(tl_offsets_read(table, slots[0], &word, NULL) == TL_OK && word.offset == 17 && word.owner == me);
    /* Whoever leaves with a lease is no holder any more; neither is a newcomer in its row. */
    CHECK(tl_member_leave(store, &a, false, &kit_error) == TL_OK);
    tl_member c = kit_join(store, "g", NULL);
    CHECK(c.index == a.index);
    kit_give_all(store, &b, slots, &b);
    CHECK(tl_member_claim(store, &b, slots[1], &taken) == 1);
    CHECK(tl_offsets_commit(table, slots[1], me, 1, 20, 1) == TL_EFENCED);
    /* A lease that somebody took without being a member is held as long as its process lives. */
    CHECK(tl_offsets_read(table, slots[3], &word, NULL) == TL_OK);
    CHECK(tl_offsets_claim(table, slots[3], word, me, &epoch) == TL_OK);
    CHECK(tl_member_claim(store, &b, slots[3], &taken) == 0);
    CHECK(tl_offsets_read(table, slots[4], &word, NULL) == TL_OK);
    CHECK(tl_offsets_claim(table, slots[4], word, tl_owner_make(300, 5), &epoch) == TL_OK); /* nobody has that slot */
    CHECK(tl_member_claim(store, &b, slots[4], &taken) == 1);
    /* Its own lease, which it has lost sight of. */
    CHECK(tl_member_claim(store, &b, slots[4], &taken) == 1);
    /* A group that was deleted: its slots are gone. */
    CHECK(tl_offsets_forget_group(table, b.number, &kit_error) == TL_OK);
    CHECK(tl_member_claim(store, &b, slots[5], &taken) == TL_EDROPPED);
    CHECK(tl_group_install(store, &b, tl_member_version(store, &b), slots, (const int32_t[]){0}, 1, &kit_error) == TL_EDROPPED);
    tl_member again = kit_join(store, "g", NULL);
    CHECK(again.number != b.number && again.row != b.row);
    tl_offsets_report report;
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    CHECK(tl_offsets_check(dir, NULL, NULL, &report, &kit_error) == TL_OK && report.problems == 0);
    close(dir);
    kit_leave(store);
}

/* --- time --- */

static void test_overdue(void) {
    tl_store *store = fresh("overdue");
    uint32_t slots[KIT_SLOTS], epoch = 0, taken = 0;
    kit_slots(store, "g", slots);
    tl_member slow, patient = kit_join(store, "g", NULL);
    CHECK(kit_try_join(store, "g", "slow", 5 * (int64_t)KIT_SECOND, 60 * (int64_t)KIT_SECOND, &slow) == TL_OK);
    kit_give_all(store, &slow, slots, &slow);
    CHECK(tl_member_claim(store, &slow, slots[0], &epoch) == 1);
    /* Its time runs from the join on: one that takes partitions and never asks is found out too. */
    tl_member silent;
    CHECK(kit_try_join(store, "g", NULL, 2 * (int64_t)KIT_SECOND, 0, &silent) == TL_OK);
    CHECK(tl_groups_sweep(store) == 0);
    kit_later_ns += 3 * (int64_t)KIT_SECOND;
    CHECK(tl_groups_sweep(store) == 1 && !tl_member_is_active(store, &silent));
    tl_member_handles(store, &slow, 0);
    tl_member_handles(store, &patient, tl_os->monotonic_ns());
    kit_later_ns += 100 * (int64_t)KIT_SECOND;
    CHECK(tl_groups_sweep(store) == 0); /* it asks, and the other one has no limit */
    tl_member_handles(store, &slow, tl_os->monotonic_ns());
    kit_later_ns += 4 * (int64_t)KIT_SECOND;
    CHECK(tl_groups_sweep(store) == 0);
    tl_member_handles(store, &slow, 0);
    kit_later_ns += 4 * (int64_t)KIT_SECOND;
    CHECK(tl_groups_sweep(store) == 0);
    tl_member_handles(store, &slow, tl_os->monotonic_ns());
    kit_later_ns += 6 * (int64_t)KIT_SECOND;
    uint64_t version = tl_member_version(store, &patient);
    CHECK(tl_groups_sweep(store) == 1 && tl_groups_sweep(store) == 0);
    CHECK(!tl_member_is_active(store, &slow) && tl_member_version(store, &patient) > version);
    CHECK(tl_member_is_fenced(store, &slow, "slow", 4, &kit_error) == 0);
    /* It still could commit; once somebody has its partition it cannot. */
    CHECK(tl_offsets_commit(tl_store_offsets(store), slots[0], tl_store_owner(store), epoch, 3, 1) == TL_OK);
    kit_give_all(store, &patient, slots, &patient);
    CHECK(tl_member_claim(store, &patient, slots[0], &taken) == 1);
    CHECK(tl_offsets_commit(tl_store_offsets(store), slots[0], tl_store_owner(store), epoch, 4, 1) == TL_EFENCED);
    /* What the expelled one still stores about itself says nothing of a newcomer in its row. */
    tl_member next;
    CHECK(kit_try_join(store, "g", NULL, 5 * (int64_t)KIT_SECOND, 0, &next) == TL_OK && next.index == slow.index);
    tl_member_handles(store, &slow, tl_os->monotonic_ns() - 50 * (int64_t)KIT_SECOND);
    CHECK(tl_groups_sweep(store) == 0 && tl_member_is_active(store, &next));
    kit_leave(store);
}

/* --- deaths --- */

static void test_death_and_boot(void) {
    tl_store *store = fresh("deaths");
    uint32_t slots[KIT_SLOTS], epoch = 0, taken = 0, number = kit_number(store, "g");
    kit_slots(store, "g", slots);
    tl_member mine = kit_join(store, "g", NULL), theirs[2] = {{0}};
    int pipes[2], status;
    CHECK(pipe(pipes) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(kit_try_join(store, "g", NULL, -1, 0, &theirs[0]) == TL_EFORKED);
        CHECK(tl_member_leave(store, &mine, false, &kit_error) == TL_EFORKED && tl_groups_sweep(store) == 0);
        tl_store *own = kit_enter(path, false);
        theirs[0] = kit_join(own, "g", NULL);
        theirs[1] = kit_join(own, "g", "static");
        kit_give_all(own, &theirs[0], slots, &theirs[0]);
        CHECK(tl_member_claim(own, &theirs[0], slots[0], &epoch) == 1);
        CHECK(write(pipes[1], theirs, sizeof theirs) == sizeof theirs);
        for (;;)
            pause();
    }
    CHECK(read(pipes[0], theirs, sizeof theirs) == sizeof theirs);
    CHECK(tl_groups_sweep(store) == 0 && kit_view(store, number, &view, infos) == 3);
    kit_give_all(store, &mine, slots, &mine);
    CHECK(tl_member_claim(store, &mine, slots[0], &taken) == 0);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    CHECK(tl_member_claim(store, &mine, slots[0], &taken) == 1); /* the kernel says that its owner is dead */
    CHECK(tl_groups_sweep(store) == 2 && kit_view(store, number, &view, infos) == 2);
    CHECK(infos[1].away && infos[1].index == theirs[1].index && !tl_member_is_active(store, &theirs[0]));

    kit_leave(store);
}

/* Whoever comes after the death of all finds no member, but knows every version and id that was given out. */
static void test_everybody_dies(void) {
    struct seen {
        uint64_t version, id;
        uint32_t slot;
    } seen;
    int pipes[2], status, state = 0;
    snprintf(path, sizeof path, "%.150s/everybody", base);
    CHECK(pipe(pipes) == 0);
    for (int round = 0; round < 3; round++) {
        pid_t child = fork();
        if (child == 0) {
            uint32_t slots[KIT_SLOTS], epoch = 0;
            tl_store *own = kit_enter(path, false);
            kit_slots(own, "g", slots);
            tl_member member = kit_join(own, "g", "static");
            kit_join(own, "g", NULL);
            kit_give_all(own, &member, slots, &member);
            CHECK(tl_member_claim(own, &member, slots[0], &epoch) == 1);
            CHECK(tl_offsets_commit(tl_store_offsets(own), slots[0], tl_store_owner(own), epoch, 40, 1) == TL_OK);
            CHECK(tl_store_sync_offsets(own, &kit_error) == TL_OK);
            seen = (struct seen){tl_member_version(own, &member), tl_member_id(&member), slots[0]};
            CHECK(write(pipes[1], &seen, sizeof seen) == sizeof seen);
            if (round == 2)
                kit_leave(own); /* with two members that never left */
            raise(SIGKILL);
        }
        CHECK(read(pipes[0], &seen, sizeof seen) == sizeof seen);
        waitpid(child, &status, 0);
        if (round == 1)
            kit_boot++;
        const tl_store_options options = {.flush_interval_ms = 1000, .lock_timeout_ms = 3000, .no_housekeeper = true};
        tl_store *store = NULL;
        tl_recovery recovery;
        CHECK(tl_store_open(path, &options, &store, &state, &recovery, &kit_error) == TL_OK);
        CHECK(state == TL_STORE_RECOVERED && recovery.same_boot == (round == 0) && recovery.clean == (round == 2));
        CHECK(tl_store_ready(store, &kit_error) == TL_OK);
        uint32_t number = kit_number(store, "g"), slots[KIT_SLOTS], epoch = 0;
        int found = tl_group_view_of(store, number, &view, infos, &kit_error);
        CHECK(found == (round == 0 ? TL_OK : TL_ENOTFOUND));
        CHECK(found != TL_OK || (view.count == 0 && view.version > seen.version && view.assigned != view.version));
        kit_slots(store, "g", slots);
        tl_offset_hints hints;
        CHECK(tl_offsets_hints(tl_store_offsets(store), slots[0], &hints) == TL_OK && hints.word.offset == 40);
        CHECK(round == 0 || (hints.assigned == TL_OFFSETS_NOBODY && hints.holder == 0 && hints.word.owner == 0));
        tl_member next = kit_join(store, "g", "static");
        CHECK(round != 0 || tl_member_id(&next) != seen.id);
        kit_give_all(store, &next, slots, &next);
        CHECK(tl_member_claim(store, &next, slots[0], &epoch) == 1);
        kit_leave(store);
    }
    close(pipes[0]);
    close(pipes[1]);
}

int main(void) {
    kit_directory(base, "leases");
    kit_install();
    tl_os_table.monotonic_ns = kit_monotonic;
    test_plans();
    test_leases();
    test_overdue();
    test_death_and_boot();
    test_everybody_dies();
    kit_remove(AT_FDCWD, base);
    return check_report();
}
