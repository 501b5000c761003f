/* Does every lookup, single or batched, in any order of queries, find what a walk through all entries finds?
 *
 * Imports index.h through index_oracle.h. Single-threaded. */
#include "index_oracle.h"

static uint64_t state = 20261127;

static uint64_t below(uint64_t n) {
    return check_random(&state) % n;
}

static int ascending(const void *a, const void *b) {
    int64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    return x < y ? -1 : x > y;
}

static int64_t any_query(const int64_t *near, size_t near_count, int64_t base) {
    static const int64_t corners[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT32_MAX, 1LL << 32, INT64_MAX - 1,
                                      INT64_MAX};
    switch (below(8)) {
    case 0:
        return corners[below(sizeof corners / sizeof *corners)];
    case 1:
        return (int64_t)check_random(&state);
    case 2:
        return (int64_t)((uint64_t)base + below(1u << 31));
    default:
        if (near_count == 0)
            return base;
        return (int64_t)((uint64_t)near[below(near_count)] + below(5) - 2);
    }
}

/* Random order, sorted, sorted runs, reversed. */
static void arrange(int64_t *queries, size_t n, unsigned how) {
    if (n == 0 || how == 0)
        return;
    if (how == 2) {
        size_t cut = below(n + 1);
        qsort(queries, cut, sizeof *queries, ascending);
        qsort(queries + cut, n - cut, sizeof *queries, ascending);
        return;
    }
    qsort(queries, n, sizeof *queries, ascending);
    for (size_t i = 0; how == 3 && i < n / 2; i++) {
        int64_t kept = queries[i];
        queries[i] = queries[n - 1 - i];
        queries[n - 1 - i] = kept;
    }
}

static void check_all_lookups(const tl_index *index, const int64_t *offsets, const int64_t *timestamps, size_t n,
                              uint32_t limit_position) {
    size_t room = (n > 0 ? n : 1) * sizeof(int64_t);
    int64_t *positions = malloc(room), *in_place = malloc(room), *raw = malloc(room);
    tl_index_time *times = malloc((n > 0 ? n : 1) * sizeof *times);
    CHECK(positions != NULL && in_place != NULL && raw != NULL && times != NULL);
    memset(positions, 0x55, room);
    memcpy(in_place, offsets, n * sizeof *offsets);
    tl_index_lookup_many(index, offsets, n, limit_position, positions);
    tl_index_lookup_many(index, in_place, n, limit_position, in_place);
    tl_index_lookup_raw(index->offset_entries, index->offset_count, index->base_offset, offsets, n, raw);
    tl_index_lookup_times(index, timestamps, n, times);
    for (size_t i = 0; i < n; i++) {
        int64_t expected = naive_position(index, offsets[i], limit_position);
        CHECK(positions[i] == expected);
        CHECK(in_place[i] == expected);
        CHECK(raw[i] == naive_position(index, offsets[i], NO_LIMIT));
        tl_index_entry one = tl_index_lookup(index, offsets[i], limit_position);
        CHECK(one.position == expected);
        CHECK(expected == 0 || (one.offset >= index->base_offset && one.offset <= offsets[i]));
        tl_index_time time = naive_time(index, timestamps[i]), single = tl_index_lookup_time(index, timestamps[i]);
        CHECK(times[i].timestamp_ms == time.timestamp_ms && times[i].offset == time.offset);
        CHECK(single.timestamp_ms == time.timestamp_ms && single.offset == time.offset);
    }
    free(positions);
    free(in_place);
    free(raw);
    free(times);
}

static void check_lookups(void) {
    for (int round = 0; round < 3000; round++) {
        uint32_t count = round < 40 ? (uint32_t)round : (uint32_t)below(round % 50 == 0 ? 2000 : 120);
        static const int64_t bases[] = {0, 1, 1000, 1LL << 40, INT64_MAX - INT32_MAX};
        tl_index index = new_index(bases[below(5)], count, count);
        index.offset_count = index.time_count = count;
        int64_t *offsets = malloc((count + 1) * sizeof *offsets), *stamps = malloc((count + 1) * sizeof *stamps);
        CHECK(offsets != NULL && stamps != NULL);
        uint32_t relative = 0, position = 0, step = round % 3 == 0 && count > 0 ? INT32_MAX / count : 60;
        int64_t timestamp_ms = below(2) ? -1 : (int64_t)below(1u << 30);
        for (uint32_t slot = 0; slot < count; slot++) {
            relative += 1 + (uint32_t)below(step);
            position += 1 + (uint32_t)below(INT32_MAX / 2000);
            timestamp_ms += 1 + (int64_t)below(1000);
            if (slot + 1 == count && round % 3 == 0)
                relative = position = INT32_MAX;
            put_offset(&index, slot, relative, position);
            put_time(&index, slot, timestamp_ms, relative);
            offsets[slot] = index.base_offset + relative;
            stamps[slot] = timestamp_ms;
        }
        size_t n = below(150);
        int64_t *queries = malloc((n + 1) * sizeof *queries), *moments = malloc((n + 1) * sizeof *moments);
        CHECK(queries != NULL && moments != NULL);
        for (size_t i = 0; i < n; i++) {
            queries[i] = any_query(offsets, count, index.base_offset);
            moments[i] = any_query(stamps, count, 0);
        }
        arrange(queries, n, (unsigned)round & 3);
        arrange(moments, n, (unsigned)round & 3);
        check_all_lookups(&index, queries, moments, n, round % 5 == 0 ? (uint32_t)below(position + 2) : NO_LIMIT);
        /* a count that another process made up is cut to the capacity, with the same answers */
        tl_index wild = index;
        wild.offset_count = wild.time_count = UINT32_MAX;
        if (n > 0) {
            int64_t expected = naive_position(&index, queries[0], NO_LIMIT);
            CHECK(tl_index_lookup(&wild, queries[0], NO_LIMIT).position == expected);
            CHECK(tl_index_lookup_time(&wild, moments[0]).offset == naive_time(&index, moments[0]).offset);
        }
        free(offsets);
        free(stamps);
        free(queries);
        free(moments);
        free_index(&index);
    }
}

/* Equal neighbours are no valid index, but still in order: the last of them is the greatest. */
static void check_duplicates(void) {
    tl_index index = new_index(10, 40, 0);
    for (uint32_t slot = 0; slot < 40; slot++)
        put_offset(&index, slot, slot / 7 * 5, slot + 1);
    for (index.offset_count = 1; index.offset_count <= 40; index.offset_count++)
        for (int64_t target = 5; target < 60; target++) {
            int64_t positions[20], targets[20];
            for (int i = 0; i < 20; i++)
                targets[i] = target;
            tl_index_lookup_many(&index, targets, 20, NO_LIMIT, positions);
            for (int i = 0; i < 20; i++)
                CHECK(positions[i] == naive_position(&index, target, NO_LIMIT));
            CHECK(tl_index_lookup(&index, target, NO_LIMIT).position == naive_position(&index, target, NO_LIMIT));
        }
    free_index(&index);
}

/* Disorder, negative numbers, positions past the limit: an answer is 0 or an entry that fits and lies inside. */
static void check_hostile_lookups(void) {
    for (int round = 0; round < 4000; round++) {
        uint32_t count = (uint32_t)below(70);
        tl_index index = new_index((int64_t)below(1000), count, count);
        index.offset_count = index.time_count = count;
        uint64_t mask = round % 2 ? UINT64_MAX : 0x000000ff000000ff;
        for (uint32_t slot = 0; slot < count; slot++) {
            uint64_t noise = check_random(&state) & mask;
            put_offset(&index, slot, (uint32_t)(noise >> 32), (uint32_t)noise);
            put_time(&index, slot, (int64_t)(round % 2 ? check_random(&state) : below(300)), (uint32_t)(noise >> 32));
        }
        uint32_t limit_position = below(3) ? (uint32_t)below(300) : NO_LIMIT;
        size_t n = below(60);
        int64_t queries[60], positions[60];
        tl_index_time times[60];
        for (size_t i = 0; i < n; i++)
            queries[i] = below(4) ? (int64_t)below(1400) : (int64_t)check_random(&state);
        arrange(queries, n, (unsigned)round / 2 & 3);
        tl_index_lookup_many(&index, queries, n, limit_position, positions);
        tl_index_lookup_times(&index, queries, n, times);
        for (size_t i = 0; i < n; i++) {
            CHECK(is_hint(&index, queries[i], limit_position, positions[i]));
            tl_index_entry one = tl_index_lookup(&index, queries[i], limit_position);
            CHECK(is_hint(&index, queries[i], limit_position, one.position));
            tl_index_time single = tl_index_lookup_time(&index, queries[i]);
            CHECK(times[i].timestamp_ms <= queries[i] || times[i].timestamp_ms == -1);
            CHECK(single.timestamp_ms <= queries[i] || single.timestamp_ms == -1);
            CHECK(times[i].offset >= index.base_offset && times[i].offset - index.base_offset <= INT32_MAX);
            CHECK(times[i].timestamp_ms >= 0 || times[i].offset == index.base_offset);
        }
        free_index(&index);
    }
}

/* An offset that would wrap around int64 is refused like any other that cannot be. */
static void check_last_base(void) {
    tl_index index = new_index(INT64_MAX, 1, 1);
    index.offset_count = index.time_count = 1;
    put_offset(&index, 0, 5, 100);
    put_time(&index, 0, 70, 5);
    CHECK(tl_index_lookup(&index, INT64_MAX, NO_LIMIT).position == 0);
    tl_index_time found = tl_index_lookup_time(&index, 71);
    CHECK(found.timestamp_ms == -1 && found.offset == INT64_MAX);
    free_index(&index);
}

int main(void) {
    check_last_base();
    check_lookups();
    check_duplicates();
    check_hostile_lookups();
    return check_report();
}
