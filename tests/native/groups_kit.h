/* What do the programs that test consumer groups share: a store with a few partitions, members by name, plans?
 *
 * Imports store_kit.h, groups.h. Single-threaded. */
#ifndef TIDELOG_TEST_GROUPS_KIT_H
#define TIDELOG_TEST_GROUPS_KIT_H

#include "store_kit.h"
#include "tidelog/groups.h"

enum { KIT_SLOTS = 8, KIT_SECOND = 1000000000 };

static tl_error kit_error;
static int64_t kit_later_ns; /* added to the monotonic clock */

static inline int64_t kit_monotonic(void) { return tl_io_posix.monotonic_ns() + kit_later_ns; }

static inline tl_store *kit_enter(const char *path, bool threads) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 3000, .create = true, .no_housekeeper = !threads};
    tl_store *store = NULL;
    int state = 0;
    int status = tl_store_open(path, &options, &store, &state, NULL, &kit_error);
    if (status < 0)
        REFUSE("open: %s %s %s", tl_status_name(status), kit_error.what, kit_error.path);
    CHECK(tl_store_ready(store, &kit_error) == TL_OK);
    return store;
}

static inline void kit_leave(tl_store *store) {
    CHECK(tl_store_close(store, &kit_error) == TL_OK);
    tl_store_free(store);
}

/* The offset slots of the partitions of one channel, for a group. */
static inline void kit_slots(tl_store *store, const char *group, uint32_t slots[KIT_SLOTS]) {
    for (uint32_t i = 0; i < KIT_SLOTS; i++)
        CHECK(tl_store_offset_slot(store, group, strlen(group), kit_channel, i, true, &slots[i], &kit_error) == TL_OK);
}

static inline uint32_t kit_number(tl_store *store, const char *group) {
    uint32_t number = 0;
    CHECK(tl_store_group(store, group, strlen(group), &number, &kit_error) == TL_OK);
    return number;
}

static inline int kit_try_join(tl_store *store, const char *group, const char *name, int64_t max_processing_ns,
                               int64_t away_ns, tl_member *out) {
    static const uint32_t channels[1] = {7};
    const tl_member_options options = {.name = name,
                                       .name_bytes = name == NULL ? 0 : strlen(name),
                                       .strategy = "sticky",
                                       .strategy_bytes = 6,
                                       .channels = channels,
                                       .channel_count = 1,
                                       .max_processing_ns = max_processing_ns,
                                       .away_ns = away_ns};
    return tl_group_join(store, group, strlen(group), &options, out, &kit_error);
}

static inline tl_member kit_join(tl_store *store, const char *group, const char *name) {
    tl_member member;
    int status = kit_try_join(store, group, name, -1, 10 * (int64_t)KIT_SECOND, &member);
    if (status < 0)
        REFUSE("join: %s %s", tl_status_name(status), kit_error.what);
    return member;
}

static inline size_t kit_view(tl_store *store, uint32_t number, tl_group_view *view, tl_member_info *infos) {
    int status = tl_group_view_of(store, number, view, infos, &kit_error);
    if (status < 0)
        REFUSE("view: %s %s", tl_status_name(status), kit_error.what);
    return view->count;
}

/* All slots to one member, by the version of now. */
static inline void kit_give_all(tl_store *store, const tl_member *by, const uint32_t slots[KIT_SLOTS], const tl_member *to) {
    int32_t members[KIT_SLOTS];
    for (int i = 0; i < KIT_SLOTS; i++)
        members[i] = (int32_t)to->index;
    CHECK(tl_group_install(store, by, tl_member_version(store, by), slots, members, KIT_SLOTS, &kit_error) == 1);
}

#endif
