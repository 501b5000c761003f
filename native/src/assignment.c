/* Where does a group's plan stand, and when may a member take the lease of a partition?
 *
 * Imports membership.h. A plan is stored in the offset slots themselves, each naming a member row, and counts once
 * the group's `assigned` equals its version. The lease in the word of the slot is what keeps two members apart; the
 * plan only says who takes it next, so a member that acts on an old plan does no harm. */
#include "membership.h"
#include "tidelog/transactions.h"

/* {low bits of the lease's epoch 12, of the row's uses 10, member row + 1: 10}. One word beside the lease says which
 * member of its process took it. It names the use of the row: a newcomer in the row of an expelled one must not seem
 * to hold what that one holds. Wrong only if a lease outlives exactly a multiple of 1024 uses of a row. */
static uint32_t holder_word(uint32_t epoch, uint32_t uses, uint32_t index) {
    return (epoch & 0xfffu) << 20 | (uses & 0x3ffu) << 10 | (index + 1);
}

static bool plan_is_in_force(const tl_group_row *group) {
    uint64_t assigned = __atomic_load_n(&group->assigned, __ATOMIC_SEQ_CST);
    return assigned != 0 && assigned == __atomic_load_n(&group->version, __ATOMIC_SEQ_CST);
}

/* --- plans --- */

static int check_plan(tl_store *store, const tl_member *member, const uint32_t *slots, const int32_t *members,
                      size_t count, tl_error *err) {
    for (size_t i = 0; i < count; i++) {
        tl_offset_hints hints;
        int status = tl_offsets_hints(store->offsets, slots[i], &hints);
        if (status < 0)
            return tl_fail(err, status, "a plan names a slot of the table of offsets that cannot be used",
                           TL_OFFSETS_FILE, -1);
        if (hints.group != member->number || members[i] >= (int32_t)TL_MEMBERS || members[i] < -1)
            return tl_fail(err, TL_EINVAL, "a plan names an offset slot of another group, or no member", "", -1);
    }
    return TL_OK;
}

static void store_plan(tl_store *store, tl_group_row *group, uint64_t version, const uint32_t *slots,
                       const int32_t *members, size_t count) {
    __atomic_store_n(&group->assigned, 0, __ATOMIC_SEQ_CST);
    TL_POINT("groups.install.begun");
    for (size_t i = 0; i < count; i++) {
        (void)tl_offsets_assign(store->offsets, slots[i], members[i] < 0 ? TL_OFFSETS_NOBODY : (uint32_t)members[i]);
        TL_POINT("groups.install.slot");
    }
    __atomic_store_n(&group->assigned, version, __ATOMIC_SEQ_CST);
    TL_POINT("groups.install.stored");
    __atomic_fetch_add(&group->turn, 1, __ATOMIC_SEQ_CST);
}

int tl_group_install(tl_store *store, const tl_member *member, uint64_t version, const uint32_t *slots,
                     const int32_t *members, size_t count, tl_error *err) {
    bool turned = false, stored = false;
    int status = check_plan(store, member, slots, members, count, err);
    if (status == TL_OK)
        status = tl_groups_lock(store, &turned, err);
    if (status < 0)
        return status;
    tl_group_row *group = tl_shared_group(store->shared, member->row);
    if (!tl_member_is_active(store, member)) {
        status = tl_fail(err, TL_EFENCED, "the member was expelled, replaced, or has left", store->path, -1);
    } else if (group->version == version || TL_BUG(INSTALL_VERSION_UNCHECKED)) {
        store_plan(store, group, group->version, slots, members, count);
        stored = true;
    }
    tl_groups_unlock(store, turned || (stored && !TL_BUG(INSTALL_WITHOUT_WAKE)));
    return status < 0 ? status : stored;
}

/* True: of one plan, which was not replaced meanwhile. */
static bool copy_targets(tl_store *store, const tl_group_row *group, const uint32_t *slots, int32_t *members,
                         size_t count, int *status) {
    uint64_t assigned = __atomic_load_n(&group->assigned, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < count; i++) {
        tl_offset_hints hints;
        *status = tl_offsets_hints(store->offsets, slots[i], &hints);
        if (*status < 0)
            return true;
        members[i] = hints.assigned < TL_MEMBERS ? (int32_t)hints.assigned : -1;
    }
    TL_FULL_FENCE();
    return assigned != 0 && assigned == __atomic_load_n(&group->assigned, __ATOMIC_SEQ_CST);
}

int tl_group_targets(tl_store *store, const tl_member *member, const uint32_t *slots, int32_t *members, size_t count,
                     tl_error *err) {
    int status = TL_OK;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    tl_deaths_nudge(store); /* a busy member does not wait, but it asks when somebody has come */
    const tl_group_row *group = tl_shared_group(store->shared, member->row);
    if (!copy_targets(store, group, slots, members, count, &status)) {
        bool turned = false;
        int locked = tl_groups_lock(store, &turned, err);
        if (locked < 0)
            return locked;
        (void)copy_targets(store, group, slots, members, count, &status);
        tl_groups_unlock(store, turned);
    }
    if (status < 0)
        return tl_fail(err, status, "a slot of the table of offsets cannot be used", TL_OFFSETS_FILE, -1);
    return plan_is_in_force(group);
}

/* --- leases --- */

/* Whether the member that took the lease is none of the group any more. Only a holder stored for this very epoch
 * says who it was: between a claim and its holder's store nothing is known, and the lease stays. */
static bool holder_is_gone(tl_store *store, const tl_member *member, const tl_offset_hints *hints) {
    uint32_t index = (hints->holder & 0x3ffu) - 1, uses = hints->holder >> 10 & 0x3ffu;
    if (TL_BUG(EXPELLED_LEASE_KEPT))
        return false;
    if (TL_BUG(LIVE_HOLDER_IGNORED))
        return true;
    if (index >= TL_MEMBERS || (hints->holder >> 20 != (hints->word.epoch & 0xfffu) && !TL_BUG(HOLDER_OF_ANY_EPOCH)))
        return false;
    if (index == member->index && uses == (member->uses & 0x3ffu))
        return true; /* its own, which it has lost sight of */
    const tl_member_row *row = tl_shared_member(store->shared, index);
    return __atomic_load_n(&row->state, __ATOMIC_ACQUIRE) != TL_MEMBER_ACTIVE ||
           __atomic_load_n(&row->group, __ATOMIC_RELAXED) != member->row ||
           (__atomic_load_n(&row->uses, __ATOMIC_RELAXED) & 0x3ffu) != uses;
}

int tl_member_claim(tl_store *store, const tl_member *member, uint32_t slot, uint32_t *epoch) {
    tl_offset_hints hints;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, NULL);
    int status = tl_offsets_hints(store->offsets, slot, &hints);
    if (status < 0)
        return status;
    if (hints.assigned != member->index || hints.group != member->number || !tl_member_is_active(store, member) ||
        !plan_is_in_force(tl_shared_group(store->shared, member->row)))
        return 0;
    tl_owner owner = hints.word.owner;
    if (owner != 0 && !holder_is_gone(store, member, &hints) && tl_store_owner_alive(store, owner))
        return 0;
    TL_POINT("groups.claim.free");
    status = tl_offsets_claim(store->offsets, slot, hints.word, store->me, epoch);
    if (status == TL_EAGAIN)
        return 0;
    if (status < 0)
        return status;
    TL_POINT("groups.claim.taken");
    status = tl_transactions_finish_slot(store, slot, NULL); /* what the old owner decided is in the offset before it is read */
    if (status < 0) {
        (void)tl_offsets_release(store->offsets, slot, store->me, *epoch);
        return status;
    }
    status = tl_offsets_set_holder(store->offsets, slot, holder_word(*epoch, member->uses, member->index));
    return status < 0 ? status : 1;
}
