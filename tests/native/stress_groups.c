/* Do threads that join, plan, take partitions, hand them over and leave ever hold one partition twice, or race?
 *
 * Imports groups_kit.h. Run under ThreadSanitizer. Every thread is a member that plans for all when a plan is
 * wanted, takes what is its own and gives back what is not. `held` is the oracle: who has a partition, by what
 * claims answered alone. */
#define _GNU_SOURCE
#include "groups_kit.h"

#include <pthread.h>

enum { THREADS = 5, LIFES = 25, STEPS = 60 };

static tl_store *store;
static uint32_t slots[KIT_SLOTS];
static uint32_t held[KIT_SLOTS]; /* thread + 1; 0: nobody */
static uint64_t claims, plans, commits, hand_overs;

/* CHECK counts without atomics. */
#define REQUIRE(condition) \
    do { \
        if (!(condition)) \
            REFUSE("%s", #condition); \
    } while (0)

static void plan(const tl_member *me) {
    static _Thread_local tl_member_info infos[TL_MEMBERS];
    tl_group_view view;
    tl_error err = {0};
    int32_t members[KIT_SLOTS];
    REQUIRE(tl_group_view_of(store, me->number, &view, infos, &err) == TL_OK);
    if (view.count == 0 || view.version == view.assigned)
        return;
    for (size_t i = 0; i < KIT_SLOTS; i++)
        members[i] = (int32_t)infos[(i + view.version) % view.count].index;
    int stored = tl_group_install(store, me, view.version, slots, members, KIT_SLOTS, &err);
    REQUIRE(stored == 0 || stored == 1);
    __atomic_fetch_add(&plans, (uint64_t)stored, __ATOMIC_RELAXED);
}

static void give(uint32_t self, int i, uint32_t epochs[KIT_SLOTS]) {
    uint32_t expected = self + 1;
    REQUIRE(__atomic_compare_exchange_n(&held[i], &expected, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    REQUIRE(tl_offsets_release(tl_store_offsets(store), slots[i], tl_store_owner(store), epochs[i]) == TL_OK);
    epochs[i] = 0;
    __atomic_fetch_add(&hand_overs, 1, __ATOMIC_RELAXED);
}

static void step(uint32_t self, const tl_member *me, uint32_t epochs[KIT_SLOTS]) {
    int32_t targets[KIT_SLOTS];
    tl_error err = {0};
    bool gave = false;
    if (tl_member_version(store, me) != tl_member_assigned(store, me))
        plan(me);
    uint32_t turn = __atomic_load_n(tl_member_turn(store, me), __ATOMIC_SEQ_CST);
    int in_force = tl_group_targets(store, me, slots, targets, KIT_SLOTS, &err);
    REQUIRE(in_force >= 0);
    for (int i = 0; in_force == 1 && i < KIT_SLOTS; i++) {
        if (targets[i] != (int32_t)me->index) {
            if (epochs[i] != 0) {
                give(self, i, epochs);
                gave = true;
            }
            continue;
        }
        if (epochs[i] == 0) {
            int taken = tl_member_claim(store, me, slots[i], &epochs[i]);
            REQUIRE(taken == 0 || taken == 1);
            uint32_t nobody = 0;
            REQUIRE(taken == 0 || __atomic_compare_exchange_n(&held[i], &nobody, self + 1, false, __ATOMIC_SEQ_CST,
                                                              __ATOMIC_SEQ_CST));
            __atomic_fetch_add(&claims, (uint64_t)taken, __ATOMIC_RELAXED);
        }
        if (epochs[i] != 0) {
            REQUIRE(tl_offsets_commit(tl_store_offsets(store), slots[i], tl_store_owner(store), epochs[i], 1, 1) == TL_OK);
            __atomic_fetch_add(&commits, 1, __ATOMIC_RELAXED);
        }
    }
    if (gave)
        tl_member_turned(store, me);
    int status = tl_store_wait(store, NULL, NULL, 0, 1000000, 0, &(tl_turn){tl_member_turn(store, me), turn}, 1, NULL,
                               &err);
    REQUIRE(status == TL_ETURNED || status == TL_ETIMEOUT);
}

static void *live(void *argument) {
    uint32_t self = *(uint32_t *)argument;
    uint64_t dice = self;
    for (int life = 0; life < LIFES; life++) {
        static const uint32_t channels[1] = {1};
        char name[16];
        snprintf(name, sizeof name, "thread-%u", self);
        const tl_member_options options = {.name = self % 2 == 0 ? NULL : name,
                                           .name_bytes = self % 2 == 0 ? 0 : strlen(name),
                                           .strategy = "sticky",
                                           .strategy_bytes = 6,
                                           .channels = channels,
                                           .channel_count = 1,
                                           .max_processing_ns = 3600 * (int64_t)KIT_SECOND,
                                           .away_ns = 3600 * (int64_t)KIT_SECOND};
        tl_member me;
        tl_error err = {0};
        uint32_t epochs[KIT_SLOTS] = {0};
        REQUIRE(tl_group_join(store, "g", 1, &options, &me, &err) == TL_OK);
        for (uint64_t i = check_random(&dice) % STEPS; i > 0; i--) {
            tl_member_handles(store, &me, i % 2 == 0 ? 0 : tl_os->monotonic_ns());
            step(self, &me, epochs);
            REQUIRE(tl_member_is_active(store, &me));
            if (i % 8 == 0)
                REQUIRE(tl_groups_sweep(store) == 0);
        }
        for (int i = 0; i < KIT_SLOTS; i++)
            if (epochs[i] != 0)
                give(self, i, epochs);
        REQUIRE(tl_member_leave(store, &me, check_random(&dice) % 2 == 0, &err) == TL_OK);
        REQUIRE(!tl_member_is_active(store, &me));
    }
    return NULL;
}

int main(void) {
    char base[200], path[256];
    pthread_t threads[THREADS];
    uint32_t numbers[THREADS];
    kit_directory(base, "stress-groups");
    kit_install();
    snprintf(path, sizeof path, "%.150s/store", base);
    store = kit_enter(path, true);
    kit_slots(store, "g", slots);
    for (uint32_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, live, &numbers[i]) == 0);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < KIT_SLOTS; i++)
        CHECK(held[i] == 0);
    CHECK(plans > THREADS && claims > KIT_SLOTS && hand_overs == claims && commits >= claims);
    printf("%llu plans, %llu leases taken and given back, %llu commits; ", (unsigned long long)plans,
           (unsigned long long)claims, (unsigned long long)commits);
    kit_leave(store);
    kit_remove(AT_FDCWD, base);
    return check_report();
}
