/* Do members of consumer groups come, go, get each other's names and wake each other as they should, and is what stands in
 * their rows believed no further than it may be?
 *
 * Imports groups_kit.h. Single-threaded but for one waiter; the clock is moved by hand. */
#define _GNU_SOURCE
#include "groups_kit.h"

#include <pthread.h>
#include <sys/mman.h>

static char base[200], path[256];
static tl_member_info infos[TL_MEMBERS];
static tl_group_view view;

static tl_store *fresh(const char *name) {
    snprintf(path, sizeof path, "%.150s/%s", base, name);
    return kit_enter(path, false);
}

/* --- coming and going --- */

static void test_members(void) {
    tl_store *store = fresh("members");
    uint32_t number = kit_number(store, "g");
    CHECK(tl_group_view_of(store, number, &view, infos, &kit_error) == TL_ENOTFOUND);
    tl_member a = kit_join(store, "g", NULL), b = kit_join(store, "g", "till-3"), other = kit_join(store, "h", NULL);
    CHECK(a.number == number && b.number == number && other.number != number && other.row != a.row && a.row == b.row);
    CHECK(tl_member_id(&a) != 0 && tl_member_id(&a) != tl_member_id(&b));
    CHECK(kit_view(store, number, &view, infos) == 2 && view.version == tl_member_version(store, &a) && view.assigned == 0);
    CHECK(infos[0].id == tl_member_id(&a) && infos[0].index == a.index && infos[0].name_bytes == 0 && !infos[0].away);
    CHECK(infos[1].id == tl_member_id(&b) && infos[1].name_bytes == 6 && memcmp(infos[1].name, "till-3", 6) == 0);
    CHECK(infos[0].pid == (uint32_t)getpid() && strcmp(infos[0].strategy, "sticky") == 0);
    CHECK(infos[0].channel_count == 1 && infos[0].channels[0] == 7);

    uint64_t version = view.version;
    uint32_t turn = *tl_member_turn(store, &a), others = *tl_member_turn(store, &other);
    CHECK(tl_member_leave(store, &a, false, &kit_error) == TL_OK);
    CHECK(!tl_member_is_active(store, &a) && tl_member_is_active(store, &b));
    CHECK(tl_member_version(store, &b) > version && *tl_member_turn(store, &b) != turn);
    CHECK(*tl_member_turn(store, &other) == others);
    version = tl_member_version(store, &b);
    CHECK(tl_member_leave(store, &a, false, &kit_error) == TL_OK && tl_member_version(store, &b) == version);
    /* The row is taken anew, by another id, and stands last in the order of joining although its index is the
     * lowest. */
    tl_member c = kit_join(store, "g", NULL);
    CHECK(c.index == a.index && tl_member_id(&c) != tl_member_id(&a) && !tl_member_is_active(store, &a));
    CHECK(tl_member_leave(store, &a, false, &kit_error) == TL_OK && tl_member_is_active(store, &c));
    CHECK(kit_view(store, number, &view, infos) == 2 && infos[0].index == b.index && infos[1].index == c.index);
    CHECK(tl_groups_sweep(store) == 0);
    kit_leave(store);
}

static void test_options(void) {
    tl_store *store = fresh("options");
    char name[200], long_group[1100];
    uint32_t channels[80] = {0};
    tl_member member;
    memset(name, 'n', sizeof name);
    memset(long_group, 'g', sizeof long_group);
    const tl_member_options good = {.name = name,
                                    .name_bytes = 96,
                                    .strategy = "a-strategy-of-23-letters",
                                    .strategy_bytes = 23,
                                    .channels = channels,
                                    .channel_count = 64,
                                    .max_processing_ns = 0,
                                    .away_ns = 0};
    tl_member_options bad[8];
    for (int i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].name_bytes = 97, bad[1].name_bytes = 0, bad[2].strategy_bytes = 24, bad[3].strategy_bytes = 0;
    bad[4].channel_count = 65, bad[5].channel_count = 0, bad[6].max_processing_ns = -2, bad[7].away_ns = -1;
    for (int i = 0; i < 8; i++)
        CHECK(tl_group_join(store, "g", 1, &bad[i], &member, &kit_error) == TL_EINVAL);
    CHECK(tl_group_join(store, "g", 0, &good, &member, &kit_error) == TL_EINVAL);
    CHECK(tl_group_join(store, long_group, 1025, &good, &member, &kit_error) == TL_EINVAL);
    CHECK(tl_group_join(store, long_group, 1024, &good, &member, &kit_error) == TL_OK);
    CHECK(kit_view(store, member.number, &view, infos) == 1 && infos[0].name_bytes == 96 && infos[0].channel_count == 64);
    CHECK(strlen(infos[0].strategy) == 23);
    tl_store_retain(store);
    kit_leave(store);
    CHECK(kit_try_join(store, "g", NULL, -1, 0, &member) == TL_ECLOSED && tl_groups_sweep(store) == 0);
    CHECK(tl_member_leave(store, &member, false, &kit_error) == TL_ECLOSED);
    tl_store_free(store);
}

static void test_full(void) {
    tl_store *store = fresh("full");
    static tl_member members[TL_MEMBERS];
    tl_member more;
    for (uint32_t i = 0; i < TL_MEMBERS; i++)
        members[i] = kit_join(store, "g", NULL);
    CHECK(kit_try_join(store, "g", NULL, -1, 0, &more) == TL_EFULL);
    CHECK(kit_try_join(store, "another", NULL, -1, 0, &more) == TL_EFULL);
    CHECK(kit_view(store, members[0].number, &view, infos) == TL_MEMBERS);
    CHECK(tl_member_leave(store, &members[100], false, &kit_error) == TL_OK);
    CHECK(kit_join(store, "another", NULL).index == members[100].index);
    for (uint32_t i = 0; i < TL_MEMBERS; i++)
        CHECK(tl_member_leave(store, &members[i], false, &kit_error) == TL_OK);
    /* More groups than rows, one after the other: each gets a row, and one that comes back no version a second time. */
    uint64_t last = tl_member_version(store, &members[0]);
    for (uint32_t i = 0; i < TL_GROUPS + 200; i++) {
        char group[32];
        snprintf(group, sizeof group, "passing-%u", i);
        more = kit_join(store, group, NULL);
        CHECK(tl_member_leave(store, &more, false, &kit_error) == TL_OK);
    }
    more = kit_join(store, "g", NULL);
    CHECK(more.row < TL_GROUPS && tl_member_version(store, &more) > last);
    CHECK(kit_view(store, more.number, &view, infos) == 1);
    kit_leave(store);
}

/* --- names --- */

static void test_names(void) {
    tl_store *store = fresh("names");
    uint32_t slots[KIT_SLOTS], epoch = 0, newer_epoch = 0;
    kit_slots(store, "g", slots);
    tl_offsets *table = tl_store_offsets(store);
    tl_member a = kit_join(store, "g", NULL), old = kit_join(store, "g", "till"), elsewhere = kit_join(store, "h", "till");
    kit_give_all(store, &a, slots, &old);
    uint64_t version = tl_member_version(store, &a);
    CHECK(tl_member_claim(store, &old, slots[0], &epoch) == 1);

    /* Alive: replaced in its place, and its lease is worth nothing once the newer one has taken it. */
    tl_member newer = kit_join(store, "g", "till");
    CHECK(newer.index == old.index && tl_member_id(&newer) != tl_member_id(&old));
    CHECK(!tl_member_is_active(store, &old) && tl_member_is_active(store, &newer) && tl_member_is_active(store, &elsewhere));
    CHECK(tl_member_is_fenced(store, &old, "till", 4, &kit_error) == 1);
    CHECK(tl_member_is_fenced(store, &newer, "till", 4, &kit_error) == 0);
    CHECK(tl_member_is_fenced(store, &elsewhere, "till", 4, &kit_error) == 0);
    CHECK(tl_member_version(store, &a) == version && tl_member_assigned(store, &a) == version);
    CHECK(tl_member_claim(store, &old, slots[1], &epoch) == 0);
    CHECK(tl_offsets_commit(table, slots[0], tl_store_owner(store), epoch, 5, 1) == TL_OK);
    CHECK(tl_member_claim(store, &newer, slots[0], &newer_epoch) == 1);
    CHECK(tl_offsets_commit(table, slots[0], tl_store_owner(store), epoch, 6, 1) == TL_EFENCED);
    CHECK(tl_group_install(store, &old, version, slots, NULL, 0, &kit_error) == TL_EFENCED);

    /* Away: nothing moves until the time is over, and a newcomer of the name gets the place. */
    CHECK(tl_member_leave(store, &newer, true, &kit_error) == TL_OK);
    CHECK(kit_view(store, a.number, &view, infos) == 2 && infos[1].away && view.version == version);
    kit_later_ns += 9 * (int64_t)KIT_SECOND;
    CHECK(tl_groups_sweep(store) == 0);
    tl_member back = kit_join(store, "g", "till");
    CHECK(back.index == old.index && tl_member_version(store, &a) == version);
    CHECK(tl_member_claim(store, &back, slots[0], &epoch) == 1);
    CHECK(tl_member_leave(store, &back, true, &kit_error) == TL_OK);
    kit_later_ns += 11 * (int64_t)KIT_SECOND;
    CHECK(tl_groups_sweep(store) == 1 && tl_member_version(store, &a) > version);
    CHECK(kit_view(store, a.number, &view, infos) == 1);
    /* A dynamic member does not stay. Another subscription under the same name is a change. */
    CHECK(tl_member_leave(store, &a, true, &kit_error) == TL_OK);
    CHECK(kit_view(store, a.number, &view, infos) == 0);
    tl_member one = kit_join(store, "g", "till"), two;
    version = tl_member_version(store, &one);
    const uint32_t channels[2] = {7, 8};
    const tl_member_options more = {.name = "till",
                                    .name_bytes = 4,
                                    .strategy = "sticky",
                                    .strategy_bytes = 6,
                                    .channels = channels,
                                    .channel_count = 2,
                                    .max_processing_ns = -1};
    CHECK(tl_group_join(store, "g", 1, &more, &two, &kit_error) == TL_OK);
    CHECK(two.index == one.index && tl_member_version(store, &two) > version);
    kit_leave(store);
}

/* --- looking, waiting --- */

static void test_look(void) {
    tl_store *store = fresh("look");
    tl_member member = kit_join(store, "g", "static");
    const tl_store_options looking = {.flush_interval_ms = 1000, .lock_timeout_ms = 3000, .look = true};
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        tl_store *looker = NULL;
        int state = 0;
        CHECK(tl_store_open(path, &looking, &looker, &state, NULL, &kit_error) == TL_OK);
        CHECK(kit_view(looker, member.number, &view, infos) == 1 && memcmp(infos[0].name, "static", 6) == 0);
        CHECK(kit_try_join(looker, "g", NULL, -1, 0, &member) == TL_EINVAL && tl_groups_sweep(looker) == 0);
        CHECK(tl_member_leave(looker, &member, false, &kit_error) == TL_EINVAL);
        kit_leave(looker);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(status == 0 && tl_member_is_active(store, &member));
    kit_leave(store);
    tl_store *looker = NULL;
    CHECK(tl_store_open(path, &looking, &looker, &status, NULL, &kit_error) == TL_OK);
    CHECK(kit_view(looker, member.number, &view, infos) == 0); /* nobody is inside */
    kit_leave(looker);
}

static tl_store *waiting_store;
static tl_member waiting_member, waiting_other;

static void *wait_for_turn(void *context) {
    uint32_t seen = *(uint32_t *)context;
    tl_error err = {0};
    const tl_turn turns[] = {{tl_member_turn(waiting_store, &waiting_other), *tl_member_turn(waiting_store, &waiting_other)},
                             {tl_member_turn(waiting_store, &waiting_member), seen}};
    /* What turns is looked for behind what does not: a wake alone would not end the wait. */
    int status = tl_store_wait(waiting_store, NULL, NULL, 0, 20 * (int64_t)KIT_SECOND, 0, turns, 2, NULL, &err);
    return status == TL_ETURNED ? context : NULL;
}

static void test_turns_wake(void) {
    tl_store *store = waiting_store = fresh("turns");
    uint32_t slots[KIT_SLOTS], turn, cancel = 1;
    kit_slots(store, "g", slots);
    tl_member a = waiting_member = kit_join(store, "g", NULL), b;
    waiting_other = kit_join(store, "other", NULL);
    turn = *tl_member_turn(store, &a);
    tl_turn turns[] = {{tl_member_turn(store, &waiting_other), *tl_member_turn(store, &waiting_other)},
                       {tl_member_turn(store, &a), turn}};
    CHECK(tl_store_wait(store, NULL, NULL, 0, 1000, 0, turns, 2, NULL, &kit_error) == TL_ETIMEOUT);
    turns[1].seen = turn + 1;
    CHECK(tl_store_wait(store, NULL, NULL, 0, 1000, 0, turns, 1, NULL, &kit_error) == TL_ETIMEOUT);
    CHECK(tl_store_wait(store, NULL, NULL, 0, 1000, 0, turns, 2, NULL, &kit_error) == TL_ETURNED);
    CHECK(tl_store_wait(store, NULL, NULL, 0, 1000, 0, turns, 2, &cancel, &kit_error) == TL_ECLOSED);
    for (int what = 0; what < 5; what++) {
        turn = *tl_member_turn(store, &a);
        pthread_t thread;
        void *answer = NULL;
        CHECK(pthread_create(&thread, NULL, wait_for_turn, &turn) == 0);
        usleep(2000);
        if (what == 0)
            b = kit_join(store, "g", "b");
        else if (what == 1)
            kit_give_all(store, &a, slots, &a);
        else if (what == 2)
            tl_member_turned(store, &a);
        else
            CHECK(tl_member_leave(store, &b, what == 3, &kit_error) == TL_OK);
        if (what == 3)
            b = kit_join(store, "g", "b");
        CHECK(pthread_join(thread, &answer) == 0 && answer == &turn);
    }
    kit_leave(store);
}

/* --- hostile words --- */

/* Whatever stands in the rows: no access outside the table, and what is read keeps its bounds. */
static void test_hostile(void) {
    tl_store *store = fresh("hostile");
    uint32_t slots[KIT_SLOTS], epoch = 0;
    int32_t members[KIT_SLOTS];
    kit_slots(store, "g", slots);
    tl_member a = kit_join(store, "g", "name");
    char file[300];
    snprintf(file, sizeof file, "%s/shared", path);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    size_t bytes = TL_SHARED_BLOCKS_AT;
    uint8_t *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    uint64_t dice = 11;
    for (int round = 0; round < 2000; round++) {
        tl_shared_header *header = tl_shared_header_of(map);
        uint32_t rows = round % 3 == 0 ? TL_MEMBERS : 4;
        for (uint32_t i = 0; i < rows; i++) {
            uint8_t *row = (uint8_t *)tl_shared_member(map, i);
            for (int k = 0; k < 60; k++)
                row[check_random(&dice) % (k < 30 ? 72 : 512)] = (uint8_t)check_random(&dice);
            tl_shared_member(map, i)->state = (uint32_t)(check_random(&dice) % 4);
            if (check_random(&dice) % 2 == 0)
                tl_shared_member(map, i)->group = a.row;
        }
        header->members = (uint32_t)(check_random(&dice) % 2 == 0 ? check_random(&dice) : check_random(&dice) % 600);
        header->groups = (uint32_t)(check_random(&dice) % 2 == 0 ? check_random(&dice) : 1);
        tl_group_row *group = tl_shared_group(map, a.row);
        group->group = a.number + 1;
        group->assigned = check_random(&dice) % 2 == 0 ? group->version : check_random(&dice);
        if (header->groups == 0)
            header->groups = 1;
        int found = tl_group_view_of(store, a.number, &view, infos, &kit_error);
        CHECK(found == TL_OK || found == TL_ENOTFOUND);
        CHECK(view.count <= TL_MEMBERS);
        for (size_t i = 0; i < view.count; i++)
            CHECK(infos[i].name_bytes <= TL_MEMBER_NAME_BYTES && infos[i].channel_count <= TL_MEMBER_CHANNELS &&
                  memchr(infos[i].strategy, 0, TL_MEMBER_STRATEGY_BYTES) != NULL && infos[i].index < TL_MEMBERS);
        tl_member member = {.index = 0};
        (void)kit_try_join(store, "g", round % 2 == 0 ? "name" : NULL, 5, 5, &member);
        (void)tl_group_targets(store, &a, slots, members, KIT_SLOTS, &kit_error);
        for (int i = 0; i < KIT_SLOTS; i++) {
            CHECK(members[i] >= -1 && members[i] < (int32_t)TL_MEMBERS);
            (void)tl_offsets_set_holder(tl_store_offsets(store), slots[i], (uint32_t)check_random(&dice));
            (void)tl_offsets_assign(tl_store_offsets(store), slots[i], a.index);
            (void)tl_member_claim(store, &a, slots[i], &epoch);
        }
        (void)tl_group_install(store, &a, group->version, slots, members, KIT_SLOTS, &kit_error);
        (void)tl_member_is_fenced(store, &a, "name", 4, &kit_error);
        (void)tl_groups_sweep(store);
        (void)tl_member_leave(store, &member, round % 5 == 0, &kit_error);
    }
    munmap(map, bytes);
    kit_leave(store);
}

int main(void) {
    kit_directory(base, "groups");
    kit_install();
    tl_os_table.monotonic_ns = kit_monotonic;
    test_members();
    test_options();
    test_full();
    test_names();
    test_look();
    test_turns_wake();
    test_hostile();
    kit_remove(AT_FDCWD, base);
    return check_report();
}
