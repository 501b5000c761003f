/* Which members of consumer groups are dead, overdue, or have been away too long?
 *
 * Imports membership.h. Any thread of any process, also of several at once. Rows are looked at without the lock;
 * only when one of them must go is the lock taken, and each is judged once more under it. */
#include "membership.h"

#define LOCK_WAIT_NS 60000000 /* a dead owner shows within a slice of 20 ms; a stopped one is not waited for here */

static bool is_overdue(const tl_member_row *row, int64_t now_ns) {
    int64_t most_ns = __atomic_load_n(&row->max_processing_ns, __ATOMIC_RELAXED);
    uint64_t since = __atomic_load_n(&row->since, __ATOMIC_ACQUIRE);
    if (most_ns < 0 || since >> 24 == 0 ||
        (since & 0xffffffu) != (__atomic_load_n(&row->uses, __ATOMIC_RELAXED) & 0xffffffu))
        return false;
    return now_ns - (int64_t)(since >> 24) * 1000000 > most_ns && !TL_BUG(OVERDUE_NEVER_EXPELLED);
}

/* Of words that anybody may have written: any two of them have a difference. */
static int64_t passed(int64_t now_ns, int64_t then_ns) { return (int64_t)((uint64_t)now_ns - (uint64_t)then_ns); }

enum fate { STAYS, GOES_AWAY, GOES };

static enum fate fate_of(tl_store *store, tl_pulse *known, const tl_member_row *row, int64_t now_ns) {
    uint32_t state = __atomic_load_n(&row->state, __ATOMIC_ACQUIRE);
    int64_t away_ns = __atomic_load_n(&row->away_ns, __ATOMIC_RELAXED);
    if (state == TL_MEMBER_AWAY)
        return passed(now_ns, __atomic_load_n(&row->away_since_ns, __ATOMIC_RELAXED)) >= away_ns ||
                       TL_BUG(AWAY_TIME_IGNORED)
                   ? GOES
                   : STAYS;
    if (state != TL_MEMBER_ACTIVE)
        return STAYS;
    if (!tl_pulse_is_alive(store, known, __atomic_load_n(&row->owner, __ATOMIC_RELAXED)))
        return __atomic_load_n(&row->name_bytes, __ATOMIC_RELAXED) > 0 && away_ns > 0 ? GOES_AWAY : GOES;
    return is_overdue(row, now_ns) ? GOES : STAYS;
}

static bool anybody_goes(tl_store *store) {
    tl_pulse known = {{0}};
    int64_t now_ns = tl_os->monotonic_ns();
    for (uint32_t i = 0; i < tl_members_used(store); i++)
        if (fate_of(store, &known, tl_shared_member(store->shared, i), now_ns) != STAYS)
            return true;
    /* Whoever died inside the lock may have changed members without a word: the next one who takes it says so. */
    return tl_store_lock_is_orphaned(store, &store->header->groups_lock);
}

static int remove_under_lock(tl_store *store) {
    tl_pulse known = {{0}};
    int removed = 0;
    int64_t now_ns = tl_os->monotonic_ns();
    for (uint32_t i = 0; i < tl_members_used(store); i++) {
        tl_member_row *row = tl_shared_member(store->shared, i);
        enum fate fate = fate_of(store, &known, row, now_ns);
        if (fate == STAYS)
            continue;
        TL_POINT("groups.sweep.found");
        tl_member_remove(store, row, fate == GOES_AWAY);
        removed++;
    }
    return removed;
}

int tl_groups_sweep(tl_store *store) {
    if (!tl_store_usable(store) || store->options.look || !anybody_goes(store))
        return 0;
    int taken = tl_lock_take(&store->header->groups_lock, store->me, &store->liveness, LOCK_WAIT_NS, NULL);
    if (taken < 0)
        return 0; /* whoever is in it sees the dead too, or the next sweep does */
    if (taken == TL_LOCK_TAKEN_OVER)
        tl_groups_repair(store);
    int removed = tl_store_usable(store) ? remove_under_lock(store) : 0;
    tl_groups_unlock(store, removed > 0 || taken == TL_LOCK_TAKEN_OVER);
    return removed;
}

/* This process leaves the store: what its members hold is free from the moment its byte is. */
void tl_groups_leave_all(tl_store *store) {
    bool any = false;
    if (store->options.look)
        return;
    for (uint32_t i = 0; i < tl_members_used(store) && !any; i++) {
        const tl_member_row *row = tl_shared_member(store->shared, i);
        any = __atomic_load_n(&row->state, __ATOMIC_ACQUIRE) == TL_MEMBER_ACTIVE &&
              __atomic_load_n(&row->owner, __ATOMIC_RELAXED) == store->me;
    }
    if (!any)
        return;
    int taken = tl_lock_take(&store->header->groups_lock, store->me, &store->liveness, LOCK_WAIT_NS, NULL);
    if (taken < 0)
        return; /* somebody is stopped in it: whoever sweeps next finds our members dead */
    if (taken == TL_LOCK_TAKEN_OVER)
        tl_groups_repair(store);
    for (uint32_t i = 0; i < tl_members_used(store); i++) {
        tl_member_row *row = tl_shared_member(store->shared, i);
        if (row->state == TL_MEMBER_ACTIVE && row->owner == store->me)
            tl_member_remove(store, row, row->name_bytes > 0 && row->away_ns > 0);
    }
    tl_groups_unlock(store, true);
}
