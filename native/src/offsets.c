/* What is committed for a partition, who may commit, and what has changed since the last checkpoint?
 *
 * Imports offsets_file.h. Any thread of any process; no lock anywhere: every change of the word is one 16-byte
 * compare-and-swap (SHARING rule 26).
 *
 * Reading the word takes two loads and a check instead of a second compare-and-swap. A compare-and-swap writes: it
 * takes the cache line away from the committer and dies on a read-only map. (A 16-byte SSE load is atomic on every CPU
 * with AVX, but only there.) Two loads are enough because the upper half {epoch, owner} never returns to an earlier
 * value: a claim takes a new epoch, a release keeps it and clears the owner. So when the upper half is the same before
 * and after the lower half was loaded, it did not change in between and both halves stood together. A retry means that
 * a claim or a release went through: the loop cannot wait for anybody who is stopped. */
#include "offsets_file.h"

/* True when the word was {low, high} and now is {new_low, new_high}; a full barrier on x86-64, acquire and release on
 * aarch64. What was found instead is not reported: on aarch64 a pair that was not stored back may be torn. */
TL_INLINE bool word_swap(uint64_t word[2], uint64_t low, uint64_t high, uint64_t new_low, uint64_t new_high) {
#if defined(__x86_64__)
    bool done;
    __asm__ volatile("lock cmpxchg16b %[word]"
                     : "=@ccz"(done), [word] "+m"(*(unsigned __int128 *)(void *)word), "+a"(low), "+d"(high)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    return done;
#elif defined(__aarch64__)
    uint64_t a, b;
    uint32_t result;
    __asm__ volatile("1: ldaxp %[a], %[b], %[word]\n"
                     "   cmp %[a], %[low]\n"
                     "   ccmp %[b], %[high], #0, eq\n"
                     "   b.ne 2f\n"
                     "   stlxp %w[result], %[new_low], %[new_high], %[word]\n"
                     "   cbnz %w[result], 1b\n"
                     "2: cset %w[result], eq\n"
                     : [a] "=&r"(a), [b] "=&r"(b), [result] "=&r"(result),
                       [word] "+Q"(*(unsigned __int128 *)(void *)word)
                     : [low] "r"(low), [high] "r"(high), [new_low] "r"(new_low), [new_high] "r"(new_high)
                     : "cc", "memory");
    return result != 0;
#else
#error "offset slots need a 16-byte compare-and-swap: x86-64 or aarch64"
#endif
}

TL_INLINE uint64_t lease(uint32_t epoch, uint32_t owner) { return epoch | (uint64_t)owner << 32; }

TL_INLINE void word_read(const offset_slot *s, uint64_t *low, uint64_t *high) {
    for (;;) {
        *high = __atomic_load_n(&s->word[1], __ATOMIC_ACQUIRE);
        TL_YIELD();
        *low = __atomic_load_n(&s->word[0], __ATOMIC_ACQUIRE);
        TL_YIELD();
        if (TL_LIKELY(*high == __atomic_load_n(&s->word[1], __ATOMIC_RELAXED)))
            return;
    }
}

TL_INLINE int find_live(const tl_offsets *t, uint32_t slot, offset_slot **out) {
    if (TL_UNLIKELY(slot >= __atomic_load_n(&t->seen, __ATOMIC_ACQUIRE))) {
        uint32_t count;
        int rc = offsets_count(t, &count, NULL);
        if (rc < 0)
            return rc;
        if (slot >= count)
            return TL_EINVAL;
    }
    offset_slot *s = offsets_at(t, slot);
    uint32_t kind = __atomic_load_n(&s->kind, __ATOMIC_RELAXED), state = __atomic_load_n(&s->state, __ATOMIC_RELAXED);
    if (TL_LIKELY(kind == KIND_OFFSET && state == STATE_LIVE)) {
        *out = s;
        return TL_OK;
    }
    if (kind == KIND_GROUP || kind == KIND_OVERFLOW)
        return TL_EINVAL;
    return kind == KIND_OFFSET && state == STATE_FORGOTTEN ? TL_EDROPPED : TL_ECORRUPT;
}

TL_INLINE int find_writable(const tl_offsets *t, uint32_t slot, offset_slot **out) {
    return TL_LIKELY(t->writable) ? find_live(t, slot, out) : TL_EINVAL;
}

int offset_live(const tl_offsets *t, uint32_t slot, offset_slot **out) {
    return find_live(t, slot, out);
}

int tl_offsets_read(const tl_offsets *t, uint32_t slot, tl_offset_word *word, int64_t *time_ms) {
    offset_slot *s;
    int rc = find_live(t, slot, &s);
    if (rc < 0)
        return rc;
    uint64_t low, high;
    word_read(s, &low, &high);
    *word = (tl_offset_word){.offset = (int64_t)low, .epoch = (uint32_t)high, .owner = (uint32_t)(high >> 32)};
    if (time_ms != NULL)
        *time_ms = __atomic_load_n(&s->time_ms, __ATOMIC_RELAXED);
    return TL_OK;
}

int tl_offsets_claim(tl_offsets *t, uint32_t slot, tl_offset_word expected, uint32_t owner, uint32_t *epoch) {
    offset_slot *s;
    int rc = owner == 0 ? TL_EINVAL : find_writable(t, slot, &s);
    if (rc < 0)
        return rc;
    uint32_t taken = expected.epoch + 1;
    TL_POINT("offsets.claim.before_cas");
    TL_YIELD();
    if (!word_swap(s->word, (uint64_t)expected.offset, lease(expected.epoch, expected.owner), (uint64_t)expected.offset,
                   lease(taken, owner)))
        return TL_EAGAIN;
    TL_POINT("offsets.claim.after_cas");
    *epoch = taken;
    return TL_OK;
}

int tl_offsets_release(tl_offsets *t, uint32_t slot, uint32_t owner, uint32_t epoch) {
    offset_slot *s;
    int rc = owner == 0 ? TL_EINVAL : find_writable(t, slot, &s);
    if (rc < 0)
        return rc;
    uint64_t mine = lease(epoch, owner);
    for (;;) {
        uint64_t low = __atomic_load_n(&s->word[0], __ATOMIC_RELAXED);
        uint64_t high = __atomic_load_n(&s->word[1], __ATOMIC_RELAXED);
        if (high != mine)
            return TL_EFENCED;
        TL_POINT("offsets.release.before_cas");
        TL_YIELD();
        if (word_swap(s->word, low, high, low, lease(epoch, 0)))
            break;
    }
    TL_POINT("offsets.release.after_cas");
    return TL_OK;
}

/* The two halves are loaded one by one and may not have stood together: the swap finds out. */
int tl_offsets_commit(tl_offsets *t, uint32_t slot, uint32_t owner, uint32_t epoch, int64_t offset, int64_t now_ms) {
    offset_slot *s;
    int rc = TL_UNLIKELY(owner == 0 || offset < 0) ? TL_EINVAL : find_writable(t, slot, &s);
    if (TL_UNLIKELY(rc < 0))
        return rc;
    uint64_t mine = lease(epoch, owner);
    for (;;) {
        uint64_t low = __atomic_load_n(&s->word[0], __ATOMIC_RELAXED);
        uint64_t high = __atomic_load_n(&s->word[1], __ATOMIC_RELAXED);
        if (TL_UNLIKELY(high != mine) && !TL_BUG(ZOMBIE_COMMIT_ACCEPTED))
            return TL_EFENCED;
        TL_POINT("offsets.commit.before_cas");
        TL_YIELD();
        if (TL_LIKELY(word_swap(s->word, low, high, (uint64_t)offset, high)))
            break;
    }
    TL_POINT("offsets.commit.after_cas");
    __atomic_store_n(&s->time_ms, now_ms, __ATOMIC_RELAXED);
    return TL_OK;
}

int tl_offsets_set(tl_offsets *t, uint32_t slot, int64_t offset, int64_t now_ms, bool force) {
    offset_slot *s;
    int rc = offset < TL_OFFSETS_NONE ? TL_EINVAL : find_writable(t, slot, &s);
    if (rc < 0)
        return rc;
    for (;;) {
        uint64_t low = __atomic_load_n(&s->word[0], __ATOMIC_RELAXED);
        uint64_t high = __atomic_load_n(&s->word[1], __ATOMIC_RELAXED);
        if (high >> 32 != 0 && !force)
            return TL_EAGAIN;
        TL_POINT("offsets.set.before_cas");
        TL_YIELD();
        if (word_swap(s->word, low, high, (uint64_t)offset, high))
            break;
    }
    TL_POINT("offsets.set.after_cas");
    __atomic_store_n(&s->time_ms, now_ms, __ATOMIC_RELAXED);
    return TL_OK;
}

int tl_offsets_advance(tl_offsets *t, uint32_t slot, int64_t offset, int64_t now_ms) {
    offset_slot *s;
    int rc = offset < 0 ? TL_EINVAL : find_writable(t, slot, &s);
    if (rc < 0)
        return rc;
    for (;;) {
        uint64_t low = __atomic_load_n(&s->word[0], __ATOMIC_RELAXED);
        uint64_t high = __atomic_load_n(&s->word[1], __ATOMIC_RELAXED);
        if ((int64_t)low >= offset)
            return TL_OK;
        TL_POINT("offsets.advance.before_cas");
        TL_YIELD();
        if (word_swap(s->word, low, high, (uint64_t)offset, high))
            break;
    }
    TL_POINT("offsets.advance.after_cas");
    __atomic_store_n(&s->time_ms, now_ms, __ATOMIC_RELAXED);
    return TL_OK;
}

/* --- hints of consumer groups --- */

int tl_offsets_hints(const tl_offsets *t, uint32_t slot, tl_offset_hints *out) {
    offset_slot *s;
    int rc = find_live(t, slot, &s);
    if (rc < 0)
        return rc;
    uint64_t low, high;
    /* The holder before the word: one that was stored for a later claim is never paired with an earlier word. */
    out->holder = __atomic_load_n(&s->holder, __ATOMIC_ACQUIRE);
    word_read(s, &low, &high);
    out->word = (tl_offset_word){.offset = (int64_t)low, .epoch = (uint32_t)high, .owner = (uint32_t)(high >> 32)};
    out->group = s->group;
    uint32_t assigned = __atomic_load_n(&s->assigned, __ATOMIC_ACQUIRE);
    out->assigned = assignment_ok(assigned) && assigned != 0 ? (assigned & 0xffffu) - 1 : TL_OFFSETS_NOBODY;
    return TL_OK;
}

int tl_offsets_set_holder(tl_offsets *t, uint32_t slot, uint32_t holder) {
    offset_slot *s;
    int rc = find_writable(t, slot, &s);
    if (rc == TL_OK)
        __atomic_store_n(&s->holder, holder, __ATOMIC_RELEASE);
    return rc;
}

int tl_offsets_assign(tl_offsets *t, uint32_t slot, uint32_t member) {
    offset_slot *s;
    int rc = member != TL_OFFSETS_NOBODY && member >= 0xffffu ? TL_EINVAL : find_writable(t, slot, &s);
    if (rc == TL_OK)
        __atomic_store_n(&s->assigned, assignment(member == TL_OFFSETS_NOBODY ? 0 : member + 1), __ATOMIC_RELEASE);
    return rc;
}

/* --- iteration and what the checkpoint has --- */

void offset_view(const tl_offsets *t, uint32_t slot, const offset_slot *fixed, tl_offset_view *view) {
    const offset_slot *s = offsets_at(t, slot);
    uint64_t low, high;
    /* Before the word: a change made meanwhile then differs from what is marked as saved, and is saved once more. */
    view->metadata_sequence = (uint32_t)__atomic_load_n(&s->metadata, __ATOMIC_ACQUIRE);
    word_read(s, &low, &high);
    view->word = (tl_offset_word){.offset = (int64_t)low, .epoch = (uint32_t)high, .owner = (uint32_t)(high >> 32)};
    view->time_ms = __atomic_load_n(&s->time_ms, __ATOMIC_RELAXED);
    view->slot = slot;
    view->group = fixed->group;
    view->partition = fixed->partition;
    memcpy(view->channel_id, fixed->channel_id, 16);
}

/* A slot whose group was forgotten is forgotten, also when whoever deleted the group died before coming to the slot. */
static bool group_forgotten(const tl_offsets *t, uint32_t group) {
    const group_slot *g = offsets_at(t, group);
    return slot_kind(t, group) == KIND_GROUP && __atomic_load_n(&g->state, __ATOMIC_RELAXED) == STATE_FORGOTTEN;
}

static bool differs_from_saved(const offset_slot *s, const tl_offset_view *view) {
    return view->word.offset != __atomic_load_n(&s->saved_offset, __ATOMIC_RELAXED) ||
           view->time_ms != __atomic_load_n(&s->saved_time_ms, __ATOMIC_RELAXED) ||
           view->metadata_sequence != __atomic_load_n(&s->saved_metadata, __ATOMIC_RELAXED);
}

static int next_slot(tl_offsets *t, uint32_t *cursor, bool changed_only, tl_offset_view *view, tl_error *err) {
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    while (*cursor < count) {
        uint32_t at = (*cursor)++;
        offset_slot fixed;
        rc = offset_load(t, at, count, &fixed, err);
        if (rc == TL_EINVAL)
            continue;
        if (rc < 0)
            return rc;
        if (fixed.state != STATE_LIVE || group_forgotten(t, fixed.group))
            continue;
        offset_view(t, at, &fixed, view);
        if (!changed_only || differs_from_saved(offsets_at(t, at), view))
            return 1;
    }
    return 0;
}

int tl_offsets_next(tl_offsets *t, uint32_t *cursor, tl_offset_view *view, tl_error *err) {
    return next_slot(t, cursor, false, view, err);
}

int tl_offsets_changed(tl_offsets *t, uint32_t *cursor, tl_offset_view *view, tl_error *err) {
    return next_slot(t, cursor, true, view, err);
}

int tl_offsets_mark_saved(tl_offsets *t, const tl_offset_view *view) {
    offset_slot *s;
    int rc = find_writable(t, view->slot, &s);
    if (rc < 0)
        return rc;
    __atomic_store_n(&s->saved_offset, view->word.offset, __ATOMIC_RELAXED);
    TL_POINT("offsets.saved.half");
    __atomic_store_n(&s->saved_time_ms, view->time_ms, __ATOMIC_RELAXED);
    __atomic_store_n(&s->saved_metadata, view->metadata_sequence, __ATOMIC_RELAXED);
    return TL_OK;
}
