/* Who belongs to a consumer group, which partition is whose, and may it take the lease?
 *
 * Imports store.h, base.h. Every function may be called by any thread of any process of the store. Membership lives
 * in `shared`, so it is of this boot and of processes that live: whoever dies is found out by the kernel's lock,
 * never by a time-out. One futex lock guards it, in sections that never wait for anything; calls that take it say so
 * and release the GIL first. What partition is whose is decided above (a pure function of the members); here it is
 * stored for a version of the membership, and refused for an older one. */
#ifndef TIDELOG_GROUPS_H
#define TIDELOG_GROUPS_H

#include "tidelog/shared.h"
#include "tidelog/store.h"

/* A member as its process knows it: a value, owned by the caller. `uses` makes it unique as long as anybody has the
 * store open. */
typedef struct tl_member {
    uint32_t index;  /* of its row */
    uint32_t uses;   /* of the row, when it was taken */
    uint32_t row;    /* of its group */
    uint32_t number; /* of its group in the table of offsets */
} tl_member;

/* Never 0. */
TL_INLINE uint64_t tl_member_id(const tl_member *member) {
    return (uint64_t)member->uses << 10 | (member->index + 1);
}

typedef struct tl_member_options {
    const char *name; /* NULL: dynamic. A name keeps its partitions for away_ns after its process has died */
    size_t name_bytes;
    const char *strategy;
    size_t strategy_bytes;
    const uint32_t *channels; /* local ids of the channels it reads */
    size_t channel_count;
    int64_t max_processing_ns; /* -1: it may handle one message for ever */
    int64_t away_ns;
} tl_member_options;

/* Takes the lock, and the catalogue's inner one when the group is new. A member of the same name is replaced: one
 * that is away gives its partitions to the newcomer without a new plan, one that lives is fenced. TL_EFULL: 512
 * members, or 1024 groups with members. */
int tl_group_join(tl_store *store, const char *group, size_t group_bytes, const tl_member_options *options,
                  tl_member *out, tl_error *err);
/* Takes the lock. `keep`: a name stays away, and its partitions wait for it. Nothing if it is no member any more; the
 * caller has given its leases back before. */
int tl_member_leave(tl_store *store, const tl_member *member, bool keep, tl_error *err);

/* False once it left, was expelled, or was replaced by its name. */
bool tl_member_is_active(tl_store *store, const tl_member *member);
/* Takes the lock. 1: a newer member of the group has its name. */
int tl_member_is_fenced(tl_store *store, const tl_member *member, const char *name, size_t name_bytes, tl_error *err);
/* Since when it handles something, monotonic ns; 0: it asks, or sleeps. */
void tl_member_handles(tl_store *store, const tl_member *member, int64_t since_ns);

/* The words of its group: loads. The turn is what tl_store_wait compares. */
const uint32_t *tl_member_turn(tl_store *store, const tl_member *member);
uint64_t tl_member_version(tl_store *store, const tl_member *member);
uint64_t tl_member_assigned(tl_store *store, const tl_member *member);
/* Bumps the turn and wakes everybody: after giving leases back. No lock. */
void tl_member_turned(tl_store *store, const tl_member *member);

typedef struct tl_group_view {
    uint64_t version, assigned;
    size_t count; /* of members */
} tl_group_view;

typedef struct tl_member_info {
    uint64_t id, joined;
    uint32_t index, pid;
    bool away;
    uint32_t channel_count, name_bytes; /* name_bytes 0: dynamic */
    uint32_t channels[TL_MEMBER_CHANNELS];
    char name[TL_MEMBER_NAME_BYTES];
    char strategy[TL_MEMBER_STRATEGY_BYTES];
} tl_member_info;

/* The members in the order in which they joined, and the version they are of: one consistent copy. `infos` has room for
 * TL_MEMBERS. Takes the lock, except for one who only looks. TL_ENOTFOUND: there is no such group. */
int tl_group_view_of(tl_store *store, uint32_t number, tl_group_view *view, tl_member_info *infos, tl_error *err);

/* --- assignment.c: which partition is whose --- */

/* Stores for each offset slot the member row it is assigned to (-1: none), if the membership still is of `version`.
 * Takes the lock. 1: stored; 0: the version has moved on; TL_EFENCED: `member` is none any more. */
int tl_group_install(tl_store *store, const tl_member *member, uint64_t version, const uint32_t *slots,
                     const int32_t *members, size_t count, tl_error *err);
/* The member row of each slot, -1: none; of one installed plan. 1: of the version that is in force; 0: a newer one
 * awaits its plan, so nobody should act on it. May take the lock. */
int tl_group_targets(tl_store *store, const tl_member *member, const uint32_t *slots, int32_t *members, size_t count,
                     tl_error *err);
/* Takes the lease of a slot that is assigned to `member` by the plan in force, if nobody holds it: it was given
 * back, or its holder's process is dead, or its holder is no active member of the group any more. 1: taken; 0: not
 * now. No lock; asks the kernel. Give it back with tl_offsets_release, then tl_member_turned. */
int tl_member_claim(tl_store *store, const tl_member *member, uint32_t slot, uint32_t *epoch);

/* --- the dead, the overdue, those away too long --- */

/* Removes them from all groups and wakes everybody if there were any; returns how many. Cheap when there are none. */
int tl_groups_sweep(tl_store *store);

#endif
