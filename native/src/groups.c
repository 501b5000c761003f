/* How do members come into the table of consumer groups, how do they go, and who is in it?
 *
 * Imports handles.h, membership.h. Any thread of any process. Rows are changed under `groups_lock` alone; each
 * change ends with a new version or turn, so that what members have seen differs from it. A row becomes a member by
 * its last store (`state`), so a death leaves a member or none. What it may leave is a change without its new
 * version: whoever takes the lock over from the dead gives every group a new one, and everything is computed anew. */
#include "membership.h"

/* --- rows --- */

uint32_t tl_groups_used(const tl_store *store) {
    uint32_t used = __atomic_load_n(&store->header->groups, __ATOMIC_ACQUIRE);
    return used < TL_GROUPS ? used : TL_GROUPS;
}

uint32_t tl_members_used(const tl_store *store) {
    uint32_t used = __atomic_load_n(&store->header->members, __ATOMIC_ACQUIRE);
    return used < TL_MEMBERS ? used : TL_MEMBERS;
}

/* Others look at rows without the lock: every word is stored by itself, the state last. */
static void row_store(tl_member_row *row, const tl_member_row *image) {
    uint32_t words[sizeof *row / 4], *to = (uint32_t *)(void *)row;
    memcpy(words, image, sizeof words);
    for (size_t i = 1; i < sizeof *row / 4; i++)
        __atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
    TL_POINT("groups.row.filled");
    __atomic_store_n(&row->state, image->state, __ATOMIC_RELEASE);
}

static void row_load(const tl_member_row *row, tl_member_row *image) {
    const uint32_t *from = (const uint32_t *)(const void *)row;
    uint32_t words[sizeof *row / 4];
    for (size_t i = 0; i < sizeof *row / 4; i++)
        words[i] = __atomic_load_n(&from[i], i == 0 ? __ATOMIC_ACQUIRE : __ATOMIC_RELAXED);
    memcpy(image, words, sizeof *image);
    image->name_bytes = image->name_bytes <= TL_MEMBER_NAME_BYTES ? image->name_bytes : 0;
    image->channel_count = image->channel_count <= TL_MEMBER_CHANNELS ? image->channel_count : 0;
    image->strategy[TL_MEMBER_STRATEGY_BYTES - 1] = 0;
}

static bool is_member(const tl_member_row *row) {
    uint32_t state = __atomic_load_n(&row->state, __ATOMIC_ACQUIRE);
    return state == TL_MEMBER_ACTIVE || state == TL_MEMBER_AWAY;
}

tl_group_row *tl_groups_row(tl_store *store, uint32_t row) {
    return row < TL_GROUPS ? tl_shared_group(store->shared, row) : NULL;
}

/* --- the lock --- */

static void bump(tl_group_row *group, bool members_changed) {
    if (members_changed)
        __atomic_fetch_add(&group->version, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&group->turn, 1, __ATOMIC_SEQ_CST);
}

/* A dead process may have changed members, or half of a plan, and not said so. */
void tl_groups_repair(tl_store *store) {
    TL_POINT("groups.lock.taken_over");
    if (TL_BUG(GROUPS_NOT_REPAIRED))
        return;
    for (uint32_t row = 0; row < tl_groups_used(store); row++)
        bump(tl_shared_group(store->shared, row), true);
    TL_POINT("groups.lock.repaired");
}

int tl_groups_lock(tl_store *store, bool *turned, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    int taken = tl_store_take(store, &store->header->groups_lock, "the table of consumer groups is locked", err);
    if (taken < 0)
        return taken;
    *turned = taken == TL_LOCK_TAKEN_OVER;
    if (*turned)
        tl_groups_repair(store);
    if (tl_store_usable(store))
        return TL_OK;
    tl_groups_unlock(store, *turned);
    return tl_store_refuse(store, err);
}

/* Waking is outside the lock: it makes system calls. */
void tl_groups_unlock(tl_store *store, bool turned) {
    tl_lock_release(&store->header->groups_lock, store->me);
    if (turned)
        tl_store_wake_everybody(store);
}

/* --- joining --- */

/* The group's row, or one that no member needs. Its version goes on above all others, so that a group that comes
 * back to another row never sees a version twice. */
static int take_group_row(tl_store *store, uint32_t number, uint32_t *out, tl_error *err) {
    uint64_t needed[TL_GROUPS / 64] = {0}, highest = 0;
    uint32_t used = tl_groups_used(store), free = TL_GROUPS;
    for (uint32_t i = 0; i < tl_members_used(store); i++) {
        const tl_member_row *row = tl_shared_member(store->shared, i);
        if (is_member(row) && row->group < TL_GROUPS)
            needed[row->group / 64] |= (uint64_t)1 << (row->group % 64);
    }
    for (uint32_t i = 0; i < used; i++) {
        const tl_group_row *group = tl_shared_group(store->shared, i);
        if (group->group == number + 1) {
            *out = i;
            return TL_OK;
        }
        highest = group->version > highest ? group->version : highest;
        if (free == TL_GROUPS && (needed[i / 64] >> (i % 64) & 1) == 0)
            free = i;
    }
    if (used < TL_GROUPS)
        free = used; /* a row keeps the version of its group as long as there are fresh ones */
    if (free == TL_GROUPS)
        return tl_fail(err, TL_EFULL, "1024 consumer groups have members already", store->path, -1);
    tl_group_row *group = tl_shared_group(store->shared, free);
    __atomic_store_n(&group->assigned, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&group->version, highest, __ATOMIC_RELAXED);
    __atomic_store_n(&group->group, number + 1, __ATOMIC_RELEASE);
    TL_POINT("groups.group.taken");
    if (free == used)
        __atomic_store_n(&store->header->groups, used + 1, __ATOMIC_RELEASE);
    *out = free;
    return TL_OK;
}

static bool has_name(const tl_member_row *row, const char *name, size_t bytes) {
    return bytes > 0 && row->name_bytes == bytes && memcmp(row->name, name, bytes) == 0;
}

static bool same_subscription(const tl_member_row *a, const tl_member_row *b) {
    return a->channel_count == b->channel_count && strncmp(a->strategy, b->strategy, TL_MEMBER_STRATEGY_BYTES) == 0 &&
           memcmp(a->channels, b->channels, a->channel_count * sizeof *a->channels) == 0;
}

/* The row of the member whose name it is, or a free one. */
static tl_member_row *take_member_row(tl_store *store, uint32_t group, const tl_member_options *options,
                                      uint32_t *index, tl_error *err) {
    uint32_t used = tl_members_used(store), free = used;
    for (uint32_t i = 0; i < used; i++) {
        tl_member_row *row = tl_shared_member(store->shared, i);
        if (!is_member(row))
            free = free == used ? i : free;
        else if (row->group == group && has_name(row, options->name, options->name_bytes))
            return *index = i, row;
    }
    if (free == TL_MEMBERS) {
        tl_fail(err, TL_EFULL, "the consumer groups of this store have 512 members already", store->path, -1);
        return NULL;
    }
    if (free == used)
        __atomic_store_n(&store->header->members, used + 1, __ATOMIC_RELEASE);
    return *index = free, tl_shared_member(store->shared, free);
}

static int check_options(const tl_member_options *options, tl_error *err) {
    if (options->name_bytes > TL_MEMBER_NAME_BYTES || (options->name != NULL && options->name_bytes == 0))
        return tl_fail(err, TL_EINVAL, "a member's name has 1 to 96 bytes", "", -1);
    if (options->strategy_bytes == 0 || options->strategy_bytes >= TL_MEMBER_STRATEGY_BYTES ||
        memchr(options->strategy, 0, options->strategy_bytes) != NULL)
        return tl_fail(err, TL_EINVAL, "a strategy's name has 1 to 23 bytes, none of them zero", "", -1);
    if (options->channel_count == 0 || options->channel_count > TL_MEMBER_CHANNELS)
        return tl_fail(err, TL_EINVAL, "a member reads 1 to 64 channels", "", -1);
    if (options->away_ns < 0 || options->max_processing_ns < -1)
        return tl_fail(err, TL_EINVAL, "a member's times are not negative", "", -1);
    return TL_OK;
}

/* Of a row: since when it handles something, 0: it does not. The word names the use of the row, so that a late store
 * says nothing about whoever has the row by then. */
static uint64_t since_word(int64_t since_ns, uint32_t uses) {
    uint64_t since_ms = since_ns == 0 ? 0 : (uint64_t)since_ns / 1000000 + 1;
    return since_ms << 24 | (uses & 0xffffffu);
}

/* Under the lock. A row that is taken over stays a member throughout: whoever dies in between leaves one whose owner is
 * dead. Nothing is said of it (no version) when the newcomer wants what the one before had. */
static int join_locked(tl_store *store, uint32_t number, const tl_member_options *options, tl_member *out,
                       tl_error *err) {
    tl_shared_header *header = store->header;
    uint32_t group = 0, index = 0;
    int status = take_group_row(store, number, &group, err);
    if (status < 0)
        return status;
    tl_member_row *row = take_member_row(store, group, options, &index, err);
    if (row == NULL)
        return TL_EFULL;
    bool replaces = is_member(row);
    tl_member_row image = {.state = TL_MEMBER_ACTIVE,
                           .owner = store->me,
                           .group = group,
                           .uses = row->uses + 1,
                           .joined = replaces ? row->joined : ++header->joined,
                           .max_processing_ns = options->max_processing_ns,
                           .away_ns = options->away_ns,
                           .channel_count = (uint32_t)options->channel_count,
                           .name_bytes = (uint32_t)options->name_bytes,
                           .pid = tl_os->process_id()};
    if (replaces && TL_BUG(NAMESAKE_NOT_FENCED))
        image.uses = row->uses;
    if (options->max_processing_ns >= 0) /* whoever joins and never asks would keep its partitions for ever */
        image.since = since_word(tl_os->monotonic_ns(), image.uses);
    if (options->name_bytes > 0)
        memcpy(image.name, options->name, options->name_bytes);
    memcpy(image.strategy, options->strategy, options->strategy_bytes);
    memcpy(image.channels, options->channels, options->channel_count * sizeof *image.channels);
    bool changed = !replaces || !same_subscription(row, &image);
    TL_POINT("groups.join.begun");
    row_store(row, &image);
    TL_POINT("groups.join.stored");
    bump(tl_shared_group(store->shared, group), changed);
    __atomic_fetch_add(&header->arrivals, 1, __ATOMIC_SEQ_CST);
    TL_POINT("groups.join.done");
    *out = (tl_member){.index = index, .uses = image.uses, .row = group, .number = number};
    return TL_OK;
}

int tl_group_join(tl_store *store, const char *group, size_t group_bytes, const tl_member_options *options,
                  tl_member *out, tl_error *err) {
    uint32_t number = 0;
    bool turned = false;
    int status = check_options(options, err);
    if (status == TL_OK && tl_store_usable(store) && store->options.look)
        status = tl_store_refuse_look(store, err);
    if (status == TL_OK)
        status = tl_store_group(store, group, group_bytes, &number, err);
    if (status == TL_OK)
        status = tl_deaths_start(store, err);
    if (status == TL_OK)
        status = tl_groups_lock(store, &turned, err);
    if (status < 0)
        return status;
    status = join_locked(store, number, options, out, err);
    tl_groups_unlock(store, true);
    tl_deaths_nudge(store);
    return status;
}

/* --- one member --- */

static bool is_mine(const tl_member_row *row, const tl_member *member) {
    return __atomic_load_n(&row->state, __ATOMIC_ACQUIRE) == TL_MEMBER_ACTIVE &&
           __atomic_load_n(&row->uses, __ATOMIC_RELAXED) == member->uses;
}

bool tl_member_is_active(tl_store *store, const tl_member *member) {
    return member->index < TL_MEMBERS && is_mine(tl_shared_member(store->shared, member->index), member);
}

const uint32_t *tl_member_turn(tl_store *store, const tl_member *member) {
    return &tl_shared_group(store->shared, member->row)->turn;
}

uint64_t tl_member_version(tl_store *store, const tl_member *member) {
    return __atomic_load_n(&tl_shared_group(store->shared, member->row)->version, __ATOMIC_SEQ_CST);
}

uint64_t tl_member_assigned(tl_store *store, const tl_member *member) {
    return __atomic_load_n(&tl_shared_group(store->shared, member->row)->assigned, __ATOMIC_SEQ_CST);
}

void tl_member_turned(tl_store *store, const tl_member *member) {
    __atomic_fetch_add(&tl_shared_group(store->shared, member->row)->turn, 1, __ATOMIC_SEQ_CST);
    tl_store_wake_everybody(store);
}

void tl_member_handles(tl_store *store, const tl_member *member, int64_t since_ns) {
    __atomic_store_n(&tl_shared_member(store->shared, member->index)->since, since_word(since_ns, member->uses),
                     __ATOMIC_RELEASE);
}

int tl_member_leave(tl_store *store, const tl_member *member, bool keep, tl_error *err) {
    bool turned = false;
    int status = tl_groups_lock(store, &turned, err);
    if (status < 0)
        return status;
    tl_member_row *row = tl_shared_member(store->shared, member->index);
    if (is_mine(row, member)) {
        tl_member_remove(store, row, keep && row->name_bytes > 0 && row->away_ns > 0);
        turned = true;
    }
    tl_groups_unlock(store, turned);
    tl_deaths_nudge(store);
    return TL_OK;
}

/* Under the lock. Away or gone. */
void tl_member_remove(tl_store *store, tl_member_row *row, bool away) {
    tl_group_row *group = tl_groups_row(store, row->group);
    TL_POINT("groups.leave.begun");
    if (away) {
        __atomic_store_n(&row->away_since_ns, tl_os->monotonic_ns(), __ATOMIC_RELAXED);
        __atomic_store_n(&row->owner, 0, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&row->state, away ? TL_MEMBER_AWAY : TL_MEMBER_FREE, __ATOMIC_RELEASE);
    TL_POINT("groups.leave.stored");
    if (group != NULL && TL_BUG(REMOVED_WITHOUT_A_TURN))
        __atomic_fetch_add(&group->version, 1, __ATOMIC_SEQ_CST);
    else if (group != NULL)
        bump(group, !away);
    if (away)
        __atomic_fetch_add(&store->header->arrivals, 1, __ATOMIC_SEQ_CST);
    TL_POINT("groups.leave.done");
}

int tl_member_is_fenced(tl_store *store, const tl_member *member, const char *name, size_t name_bytes, tl_error *err) {
    bool turned = false, fenced = false;
    int status = tl_groups_lock(store, &turned, err);
    if (status < 0)
        return status;
    const tl_group_row *group = tl_shared_group(store->shared, member->row);
    for (uint32_t i = 0; i < tl_members_used(store) && !fenced && group->group == member->number + 1; i++) {
        const tl_member_row *row = tl_shared_member(store->shared, i);
        fenced = is_member(row) && row->group == member->row && has_name(row, name, name_bytes) &&
                 (i != member->index || row->uses != member->uses);
    }
    tl_groups_unlock(store, turned);
    return fenced;
}

/* --- everybody --- */

/* Alone after a death of all: nobody is a member, and everything that was seen differs from now on. */
void tl_groups_forget_members(tl_store *store) {
    for (uint32_t i = 0; i < TL_MEMBERS; i++)
        __atomic_store_n(&tl_shared_member(store->shared, i)->state, TL_MEMBER_FREE, __ATOMIC_RELAXED);
    TL_POINT("groups.forget.freed");
    for (uint32_t i = 0; i < tl_groups_used(store); i++)
        bump(tl_shared_group(store->shared, i), true);
    store->header->groups_lock = 0;
}

static void describe(const tl_member_row *row, uint32_t index, tl_member_info *info) {
    const tl_member member = {.index = index, .uses = row->uses};
    *info = (tl_member_info){.id = tl_member_id(&member),
                             .joined = row->joined,
                             .index = index,
                             .pid = row->pid,
                             .away = row->state == TL_MEMBER_AWAY,
                             .channel_count = row->channel_count,
                             .name_bytes = row->name_bytes};
    memcpy(info->channels, row->channels, sizeof info->channels);
    memcpy(info->name, row->name, sizeof info->name);
    memcpy(info->strategy, row->strategy, sizeof info->strategy);
}

/* Into its place in the order of joining; rows mostly come in that order already. */
static void insert(tl_member_info *infos, size_t count, const tl_member_row *row, uint32_t index) {
    while (count > 0 && infos[count - 1].joined > row->joined) {
        infos[count] = infos[count - 1];
        count--;
    }
    describe(row, index, &infos[count]);
}

static bool copy_members(tl_store *store, uint32_t number, tl_group_view *view, tl_member_info *infos) {
    uint32_t group = 0, used = tl_groups_used(store);
    *view = (tl_group_view){0, 0, 0};
    while (group < used &&
           __atomic_load_n(&tl_shared_group(store->shared, group)->group, __ATOMIC_ACQUIRE) != number + 1)
        group++;
    if (group == used)
        return false;
    const tl_group_row *row = tl_shared_group(store->shared, group);
    view->version = __atomic_load_n(&row->version, __ATOMIC_SEQ_CST);
    view->assigned = __atomic_load_n(&row->assigned, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < tl_members_used(store); i++) {
        tl_member_row image;
        row_load(tl_shared_member(store->shared, i), &image);
        if ((image.state != TL_MEMBER_ACTIVE && image.state != TL_MEMBER_AWAY) || image.group != group)
            continue;
        insert(infos, view->count++, &image, i);
    }
    return true;
}

/* One who looks takes no lock: the copy is consistent when nobody held it before and after, and no version or turn
 * moved. */
static bool look_at_members(tl_store *store, uint32_t number, tl_group_view *view, tl_member_info *infos) {
    bool found = false;
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t before = 0, after = 0;
        bool busy = __atomic_load_n(&store->header->groups_lock, __ATOMIC_SEQ_CST) != 0;
        for (uint32_t i = 0; i < tl_groups_used(store); i++)
            before += __atomic_load_n(&tl_shared_group(store->shared, i)->turn, __ATOMIC_SEQ_CST);
        found = copy_members(store, number, view, infos);
        for (uint32_t i = 0; i < tl_groups_used(store); i++)
            after += __atomic_load_n(&tl_shared_group(store->shared, i)->turn, __ATOMIC_SEQ_CST);
        if (!busy && before == after && __atomic_load_n(&store->header->groups_lock, __ATOMIC_SEQ_CST) == 0)
            break;
    }
    return found;
}

int tl_group_view_of(tl_store *store, uint32_t number, tl_group_view *view, tl_member_info *infos, tl_error *err) {
    bool turned = false, found = false;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->private_words) { /* nobody is inside, so nobody is a member */
        *view = (tl_group_view){0, 0, 0};
        return TL_OK;
    }
    if (store->options.look) {
        found = look_at_members(store, number, view, infos);
    } else {
        tl_deaths_nudge(store);
        int status = tl_groups_lock(store, &turned, err);
        if (status < 0)
            return status;
        found = copy_members(store, number, view, infos);
        tl_groups_unlock(store, turned);
    }
    return found ? TL_OK : tl_fail(err, TL_ENOTFOUND, "the consumer group has had no members", store->path, -1);
}
