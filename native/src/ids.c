/* Where does a window of message ids keep an id, and which entries still count?
 *
 * Imports ids.h. Plain memory: the caller has the partition's lock, or the window for itself. Layout: docs/format.md.
 *
 * Entries stand in the order of their numbers, in a ring; buckets of eight slots say which number an id has, and a filter
 * says of nearly every new id that it is one. Whoever sends with ids sends new ones nearly always, and a bucket is memory in
 * no cache, which costs as much as the rest of a send: so what waits for an answer asks the filter, a fifth of the window's
 * bytes, and the last ids are put into their buckets a few ids later, when those have come. Until then they are looked
 * through one by one.
 *
 * The filter has two generations of one ring each, side by side: bits of an id that fell out of the ring need not be known
 * then, since a whole generation is cleared when its turn comes again. Its bits only say "perhaps".
 *
 * A bucket overflows only when the slots are far more filled than the ring lets them be: there are twice as many. The lines
 * are compared as vectors where there are any. What fell out of the ring is over; an entry that still counts is never
 * overwritten, the window must grow then.
 *
 * An entry counts once the number of the next id was stored, after everything else; its bits in the filter come before that.
 * The tag of a slot is cleared before anything else in it changes and stored after everything else: who dies in between
 * leaves a free slot, and an id that is put into its bucket again. */
#include "tidelog/ids.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define NEXT_AT 128u    /* of the header: a line of its own, since it changes with every id */
#define SETTLED_AT 132u /* ids with smaller numbers are in their buckets */

typedef struct bucket {
    uint32_t tag[TL_IDS_WAYS]; /* 0: free */
    uint32_t number[TL_IDS_WAYS];
} bucket;

typedef struct entry {
    uint64_t second; /* half of the hash */
    uint32_t tag;    /* lower half of the first half, never 0 */
    uint32_t time;
    uint64_t offset;
} entry;

/* Of all ids whose first bucket is the one with this number. */
typedef struct perhaps {
    uint64_t generation[2];
} perhaps;
_Static_assert(sizeof(bucket) + TL_IDS_WAYS / 2 * sizeof(entry) + sizeof(perhaps) == TL_IDS_BUCKET_BYTES, "documented in docs/format.md");

/* --- the hash --- */

#define ROTATE(x, bits) ((x) << (bits) | (x) >> (64 - (bits)))
#define ROUND(v0, v1, v2, v3) \
    do { \
        v0 += v1; v1 = ROTATE(v1, 13) ^ v0; v0 = ROTATE(v0, 32); \
        v2 += v3; v3 = ROTATE(v3, 16) ^ v2; \
        v0 += v3; v3 = ROTATE(v3, 21) ^ v0; \
        v2 += v1; v1 = ROTATE(v1, 17) ^ v2; v2 = ROTATE(v2, 32); \
    } while (0)

void tl_ids_hash(uint64_t key, const void *id, size_t bytes, tl_message_id *out) {
    const uint8_t *p = id;
    uint64_t other = (key ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u; /* 64 random bits are enough to hide which ids collide */
    other ^= other >> 31;
    uint64_t v0 = key ^ 0x736f6d6570736575u, v1 = other ^ 0x646f72616e646f6du ^ 0xee;
    uint64_t v2 = key ^ 0x6c7967656e657261u, v3 = other ^ 0x7465646279746573u;
    uint64_t last = (uint64_t)bytes << 56;
    size_t left = bytes;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t word = tl_le64(p);
        v3 ^= word;
        ROUND(v0, v1, v2, v3);
        v0 ^= word;
    }
    if (left > 0 && bytes >= 8) {
        last |= tl_le64(p + left - 8) >> (64 - 8 * left); /* ends where the id does */
    } else {
        for (size_t i = 0; i < left; i++)
            last |= (uint64_t)p[i] << (8 * i);
    }
    v3 ^= last;
    ROUND(v0, v1, v2, v3);
    v0 ^= last;
    v2 ^= 0xee;
    ROUND(v0, v1, v2, v3);
    ROUND(v0, v1, v2, v3);
    ROUND(v0, v1, v2, v3);
    uint64_t first = v0 ^ v1 ^ v2 ^ v3;
    v1 ^= 0xdd;
    ROUND(v0, v1, v2, v3);
    ROUND(v0, v1, v2, v3);
    ROUND(v0, v1, v2, v3);
    out->hash[0] = first != 0 ? first : 1;
    out->hash[1] = v0 ^ v1 ^ v2 ^ v3;
}

/* --- places --- */

static uint32_t *next_of(const tl_ids_window *window) { return (uint32_t *)(void *)(window->map + NEXT_AT); }
static uint32_t *settled_of(const tl_ids_window *window) { return (uint32_t *)(void *)(window->map + SETTLED_AT); }

uint32_t tl_ids_next(const tl_ids_window *window) { return __atomic_load_n(next_of(window), __ATOMIC_RELAXED); }

/* How many ids before `next` are not in their buckets. Never more than there can be, whatever stands there. */
TL_INLINE uint32_t unsettled(const tl_ids_window *window, uint32_t next) {
    uint32_t count = next - __atomic_load_n(settled_of(window), __ATOMIC_RELAXED);
    return count <= TL_IDS_UNSETTLED ? count : TL_IDS_UNSETTLED;
}

TL_INLINE uint32_t place_of(const tl_ids_window *window, const tl_message_id *id) { return (uint32_t)id->hash[1] & (window->buckets - 1); }

TL_INLINE void buckets_of(const tl_ids_window *window, const tl_message_id *id, bucket *out[2]) {
    bucket *all = (bucket *)(void *)(window->map + TL_IDS_HEADER_BYTES);
    uint32_t one = place_of(window, id), away = (uint32_t)(id->hash[1] >> 32) % (TL_IDS_PAGE_BUCKETS - 1) + 1;
    out[0] = all + one;
    out[1] = all + (one ^ away); /* another one of the page: a page costs as much as a cache line */
}

/* Slots are numbered 0 to 7 in the first bucket of an id, 8 to 15 in the second. */
TL_INLINE bucket *bucket_of(bucket *const in[2], int slot) { return in[slot / (int)TL_IDS_WAYS]; }
TL_INLINE uint32_t *tag_at(bucket *const in[2], int slot) { return &bucket_of(in, slot)->tag[slot % (int)TL_IDS_WAYS]; }
TL_INLINE uint32_t *number_at(bucket *const in[2], int slot) { return &bucket_of(in, slot)->number[slot % (int)TL_IDS_WAYS]; }

TL_INLINE uint32_t ring_of(const tl_ids_window *window) { return window->buckets * (TL_IDS_WAYS / 2); }
TL_INLINE entry *entry_of(const tl_ids_window *window, uint32_t number) {
    entry *ring = (entry *)(void *)(window->map + TL_IDS_HEADER_BYTES + (size_t)window->buckets * sizeof(bucket));
    return ring + (number & (ring_of(window) - 1));
}

TL_INLINE perhaps *perhaps_of(const tl_ids_window *window, uint32_t place) {
    size_t before = (size_t)window->buckets * (sizeof(bucket) + TL_IDS_WAYS / 2 * sizeof(entry));
    return (perhaps *)(void *)(window->map + TL_IDS_HEADER_BYTES + before) + place;
}

TL_INLINE uint32_t tag_of(const tl_message_id *id) { return (uint32_t)id->hash[0] != 0 ? (uint32_t)id->hash[0] : 1; }

/* What the window keeps of a hash: 96 bits. */
TL_INLINE tl_message_id id_of(const entry *e) { return (tl_message_id){{e->tag, e->second}}; }
TL_INLINE bool is_of(const entry *e, const tl_message_id *id) { return e->second == id->hash[1] && e->tag == tag_of(id); }

/* --- the filter --- */

TL_INLINE uint64_t bits_of(uint32_t tag) {
    return (uint64_t)1 << (tag & 63) | (uint64_t)1 << (tag >> 6 & 63) | (uint64_t)1 << (tag >> 12 & 63) | (uint64_t)1 << (tag >> 18 & 63);
}

/* false: the id is not in the ring. */
TL_INLINE bool may_be_known(const tl_ids_window *window, const tl_message_id *id) {
    const perhaps *p = perhaps_of(window, place_of(window, id));
    uint64_t bits = bits_of(tag_of(id));
    return (~p->generation[0] & bits) == 0 || (~p->generation[1] & bits) == 0;
}

__attribute__((noinline, cold)) static void clear_generation(const tl_ids_window *window, uint32_t generation) {
    for (uint32_t place = 0; place < window->buckets; place++)
        perhaps_of(window, place)->generation[TL_BUG(ID_FILTER_FORGETS) ? !generation : generation] = 0;
}

/* Of the id that gets this number. Whoever dies while a generation is cleared leaves bits of ids that are gone. */
TL_INLINE void remember_perhaps(const tl_ids_window *window, const tl_message_id *id, uint32_t number) {
    uint32_t ring = ring_of(window), generation = (number & ring) != 0;
    if (TL_UNLIKELY((number & (ring - 1)) == 0))
        clear_generation(window, generation);
    uint64_t *word = &perhaps_of(window, place_of(window, id))->generation[generation];
    __atomic_store_n(word, *word | bits_of(tag_of(id)), __ATOMIC_RELAXED);
}

void tl_ids_prefetch(const tl_ids_window *window, const tl_message_id *id) {
    __builtin_prefetch(perhaps_of(window, place_of(window, id)), 1);
}

/* --- looking --- */

/* A bit for each slot with this tag. */
TL_INLINE uint32_t with_tag(bucket *const in[2], uint32_t tag) {
#if defined(__SSE2__)
    const __m128i wanted = _mm_set1_epi32((int)tag);
    __m128i found[2];
    for (int b = 0; b < 2; b++) {
        const __m128i *tags = (const __m128i *)(const void *)in[b]->tag;
        found[b] = _mm_packs_epi32(_mm_cmpeq_epi32(_mm_load_si128(tags), wanted), _mm_cmpeq_epi32(_mm_load_si128(tags + 1), wanted));
    }
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(found[0], found[1]));
#else
    uint32_t match = 0;
    for (int slot = 0; slot < 2 * (int)TL_IDS_WAYS; slot++)
        match |= (uint32_t)(*tag_at(in, slot) == tag) << slot;
    return match;
#endif
}

/* The slot of an id in these buckets, or -1; `next` is the number of the next id. A slot whose number fell out of the ring
 * may have got an entry with the same id that belongs to another slot: it says nothing. */
TL_INLINE int slot_of(const tl_ids_window *window, bucket *const in[2], const tl_message_id *id, uint32_t next) {
    for (uint32_t match = with_tag(in, tag_of(id)); TL_UNLIKELY(match != 0); match &= match - 1) {
        int slot = __builtin_ctz(match);
        uint32_t number = *number_at(in, slot);
        if (next - number <= ring_of(window) && is_of(entry_of(window, number), id))
            return slot;
    }
    return -1;
}

/* What an entry must not be below to count, when `next` is the number of the id that comes now, `pending` ids later. */
typedef struct floors {
    uint32_t number;
    int64_t time;
} floors;

TL_INLINE floors floors_of(const tl_ids_window *window, uint32_t next, uint32_t pending, const tl_ids_rule *rule) {
    uint32_t ring = ring_of(window), kept = next > ring ? next - ring : 0;
    uint32_t counted = next + pending > rule->count ? next + pending - rule->count : 0;
    return (floors){counted > kept ? counted : kept, TL_BUG(ID_AGE_IGNORED) ? 0 : (int64_t)rule->now_ms - (int64_t)rule->age_ms};
}

/* An entry that was never used is over, since its time is 0. */
TL_INLINE bool counts(const tl_ids_window *window, uint32_t number, const floors *floor) {
    return number >= floor->number && (int64_t)entry_of(window, number)->time > floor->time;
}

/* The number of an id that is in the ring. */
__attribute__((noinline)) static bool find_number(const tl_ids_window *window, const tl_message_id *id, uint32_t next, uint32_t *number) {
    for (uint32_t back = 1, most = unsettled(window, next); back <= most; back++)
        if (is_of(entry_of(window, next - back), id)) {
            *number = next - back;
            return true;
        }
    bucket *in[2];
    buckets_of(window, id, in);
    int slot = slot_of(window, in, id, next);
    if (slot < 0)
        return false;
    *number = *number_at(in, slot);
    return true;
}

bool tl_ids_find(const tl_ids_window *window, const tl_message_id *id, const tl_ids_rule *rule, uint32_t pending,
                 int64_t *offset) {
    uint32_t next = tl_ids_next(window), number = 0;
    if (TL_LIKELY(!may_be_known(window, id)) || !find_number(window, id, next, &number))
        return false;
    const floors floor = floors_of(window, next, pending, rule);
    if (!counts(window, number, &floor))
        return false;
    *offset = (int64_t)entry_of(window, number)->offset;
    return true;
}

/* --- noting --- */

/* A slot for one more id, in the bucket with more room; -1: both are full. */
TL_INLINE int vacancy(bucket *const in[2], const floors *floor) {
    uint32_t over;
    int roomy;
#if defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128(), sign = _mm_set1_epi32(INT32_MIN);
    const __m128i least = _mm_set1_epi32((int)(floor->number ^ 0x80000000u)); /* there are signed comparisons only */
    __m128i found[2];
    for (int b = 0; b < 2; b++) {
        const __m128i *tags = (const __m128i *)(const void *)in[b]->tag, *numbers = (const __m128i *)(const void *)in[b]->number;
        __m128i half[2];
        for (int i = 0; i < 2; i++)
            half[i] = _mm_or_si128(_mm_cmpeq_epi32(_mm_load_si128(tags + i), zero),
                                   _mm_cmpgt_epi32(least, _mm_xor_si128(_mm_load_si128(numbers + i), sign)));
        found[b] = _mm_packs_epi32(half[0], half[1]);
    }
    const __m128i all = _mm_packs_epi16(found[0], found[1]);
    const __m128i room = _mm_sad_epu8(_mm_and_si128(all, _mm_set1_epi8(1)), zero); /* two sums of eight */
    over = (uint32_t)_mm_movemask_epi8(all);
    roomy = _mm_cvtsi128_si32(_mm_unpackhi_epi64(room, room)) > _mm_cvtsi128_si32(room);
#else
    int more = 0; /* room in the second than in the first */
    over = 0;
    for (int slot = 0; slot < 2 * (int)TL_IDS_WAYS; slot++) {
        uint32_t is = *tag_at(in, slot) == 0 || *number_at(in, slot) < floor->number;
        over |= is << slot;
        more += slot < (int)TL_IDS_WAYS ? -(int)is : (int)is;
    }
    roomy = more > 0;
#endif
    if (TL_UNLIKELY(over == 0))
        return -1;
    return roomy ? (int)TL_IDS_WAYS + __builtin_ctz(over >> TL_IDS_WAYS) : __builtin_ctz(over);
}

/* Says in a bucket which number an id has; the newest of an id that stands twice. */
TL_INLINE bool settle(tl_ids_window *window, const tl_message_id *id, uint32_t number, const floors *floor) {
    bucket *in[2];
    buckets_of(window, id, in);
    int slot = slot_of(window, in, id, number + 1);
    if (slot < 0 && (slot = vacancy(in, floor)) < 0)
        return false;
    __atomic_store_n(tag_at(in, slot), 0, __ATOMIC_RELAXED);
    TL_RELEASE_FENCE();
    TL_POINT("ids.cleared");
    __atomic_store_n(number_at(in, slot), number, __ATOMIC_RELAXED);
    __atomic_store_n(tag_at(in, slot), tag_of(id), __ATOMIC_RELEASE);
    TL_POINT("ids.settled");
    return true;
}

/* Makes room for one more id, whose number is `next`. TL_EFULL: there is none but that of an id that counts. */
TL_INLINE int make_room(tl_ids_window *window, uint32_t next, const floors *floor) {
    uint32_t ring = ring_of(window);
    if (next >= ring && TL_UNLIKELY(counts(window, next - ring, floor)))
        return TL_EFULL; /* the entry that would be overwritten */
    if (TL_LIKELY(unsettled(window, next) == TL_IDS_UNSETTLED)) {
        const tl_message_id oldest = id_of(entry_of(window, next - TL_IDS_UNSETTLED));
        if (TL_UNLIKELY(!settle(window, &oldest, next - TL_IDS_UNSETTLED, floor)))
            return TL_EFULL;
        __atomic_store_n(settled_of(window), next - TL_IDS_UNSETTLED + 1, __ATOMIC_RELAXED);
    }
    return TL_OK;
}

int tl_ids_place(tl_ids_window *window, const tl_message_id *id, const tl_ids_rule *rule, int64_t *offset) {
    uint32_t next = tl_ids_next(window), number = 0;
    const floors floor = floors_of(window, next, 0, rule);
    if (TL_UNLIKELY(may_be_known(window, id)) && find_number(window, id, next, &number) && counts(window, number, &floor)) {
        *offset = (int64_t)entry_of(window, number)->offset;
        return 1;
    }
    return make_room(window, next, &floor);
}

void tl_ids_fill(tl_ids_window *window, const tl_message_id *id, int64_t offset, uint32_t time_ms) {
    uint32_t next = tl_ids_next(window);
    entry *e = entry_of(window, next);
    bucket *in[2];
    buckets_of(window, id, in);
    __builtin_prefetch(in[0], 1);
    __builtin_prefetch(in[1], 1);
    __builtin_prefetch(entry_of(window, next + TL_IDS_UNSETTLED), 1);
    remember_perhaps(window, id, next);
    __atomic_store_n(&e->time, 0, __ATOMIC_RELAXED); /* over, for the slot of whatever stood here before */
    TL_RELEASE_FENCE();
    __atomic_store_n(&e->second, id->hash[1], __ATOMIC_RELAXED);
    __atomic_store_n(&e->tag, tag_of(id), __ATOMIC_RELAXED);
    __atomic_store_n(&e->offset, (uint64_t)offset, __ATOMIC_RELAXED);
    TL_POINT("ids.half");
    __atomic_store_n(&e->time, time_ms, __ATOMIC_RELEASE);
    TL_POINT("ids.stored");
    __atomic_store_n(next_of(window), next + 1, __ATOMIC_RELEASE);
    TL_POINT("ids.counted");
}

int tl_ids_note(tl_ids_window *window, const tl_message_id *id, int64_t offset, uint32_t time_ms, const tl_ids_rule *rule) {
    uint32_t next = tl_ids_next(window), number = 0;
    if (may_be_known(window, id) && find_number(window, id, next, &number) && (int64_t)entry_of(window, number)->offset == offset)
        return TL_OK; /* whoever noted it died before it could say so */
    const floors floor = floors_of(window, next, 0, rule);
    int status = make_room(window, next, &floor);
    if (TL_BUG(ID_WINDOW_FORGETS) && status == TL_EFULL) {
        __atomic_store_n(settled_of(window), next, __ATOMIC_RELAXED);
        status = TL_OK;
    }
    if (TL_LIKELY(status == TL_OK))
        tl_ids_fill(window, id, offset, time_ms);
    return status;
}

/* --- all of them --- */

TL_INLINE bucket *all_of(const tl_ids_window *window) { return (bucket *)(void *)(window->map + TL_IDS_HEADER_BYTES); }

uint32_t tl_ids_live(const tl_ids_window *window, const tl_ids_rule *rule) {
    uint32_t live = 0, next = tl_ids_next(window), number = 0;
    const floors floor = floors_of(window, next, 0, rule);
    for (uint32_t b = 0; b < window->buckets; b++)
        for (uint32_t i = 0; i < TL_IDS_WAYS; i++)
            live += all_of(window)[b].tag[i] != 0 && counts(window, all_of(window)[b].number[i], &floor);
    for (uint32_t back = unsettled(window, next); back > 0; back--) {
        const tl_message_id id = id_of(entry_of(window, next - back));
        bucket *in[2];
        buckets_of(window, &id, in);
        int older = slot_of(window, in, &id, next);
        live += counts(window, next - back, &floor) && (older < 0 || !counts(window, *number_at(in, older), &floor)) &&
                find_number(window, &id, next, &number) && number == next - back;
    }
    return live;
}

int tl_ids_copy(const tl_ids_window *from, tl_ids_window *to, const tl_ids_rule *rule, uint32_t shift_ms) {
    uint32_t next = tl_ids_next(from);
    const floors floor = floors_of(from, next, 0, rule), none = {0, 0};
    for (uint32_t number = floor.number; number < next; number++) {
        const entry *old = entry_of(from, number);
        uint32_t time = old->time, fresh = number - floor.number;
        const tl_message_id id = id_of(old);
        if (time <= shift_ms || !counts(from, number, &floor))
            continue;
        *entry_of(to, fresh) = (entry){id.hash[1], tag_of(&id), time - shift_ms, old->offset};
        remember_perhaps(to, &id, fresh);
        if (!settle(to, &id, fresh, &none))
            return TL_EFULL;
    }
    __atomic_store_n(settled_of(to), next - floor.number, __ATOMIC_RELAXED);
    __atomic_store_n(next_of(to), next - floor.number, __ATOMIC_RELAXED);
    return TL_OK;
}
