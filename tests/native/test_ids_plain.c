/* Do windows of message ids answer the same, and hold the same bytes, where there are no vectors to compare with?
 *
 * Imports check.h, ids.h. The code of ids.c stands here a second time, as it is compiled for a processor without SSE2, under
 * other names; the core has it as it is compiled for this one. Both get the same calls. */
#include "check.h"
#include "tidelog/ids.h"

#undef __SSE2__
#define tl_ids_hash plain_hash
#define tl_ids_next plain_next
#define tl_ids_prefetch plain_prefetch
#define tl_ids_find plain_find
#define tl_ids_note plain_note
#define tl_ids_place plain_place
#define tl_ids_fill plain_fill
#define tl_ids_copy plain_copy
#define tl_ids_live plain_live
#include "../../native/src/ids.c"
#undef tl_ids_hash
#undef tl_ids_next
#undef tl_ids_prefetch
#undef tl_ids_find
#undef tl_ids_note
#undef tl_ids_place
#undef tl_ids_fill
#undef tl_ids_copy
#undef tl_ids_live

enum { RUNS = 60, CALLS = 8000 };
enum kind { FOUND, NOT_FOUND, NOTED, FULL, GROWN, KINDS };

static uint64_t seed = 11;
static unsigned long happened[KINDS];

static tl_ids_window empty_window(uint32_t buckets) {
    const size_t bytes = (tl_ids_bytes(buckets) + 63) / 64 * 64;
    tl_ids_window window = {aligned_alloc(64, bytes), buckets};
    CHECK(window.map != NULL);
    memset(window.map, 0, bytes);
    return window;
}

/* Few of them, so that they come again; some share their bucket, some their tag, some their second half. */
static tl_message_id drawn_id(uint32_t of, uint32_t buckets) {
    uint64_t number = check_random(&seed) % of, state = number + 1;
    tl_message_id id = {{check_random(&state), check_random(&state)}};
    if (number % 3 == 0)
        id.hash[1] = (id.hash[1] & ~(uint64_t)(buckets - 1)) | (number % 2);
    if (number % 5 == 0)
        id.hash[0] = (id.hash[0] & ~(uint64_t)UINT32_MAX) | (number % 4); /* 0 and 1 are one tag */
    if (number % 7 == 0)
        id.hash[1] = 77;
    id.hash[0] += id.hash[0] == 0;
    return id;
}

static void check_same(const tl_ids_window *a, const tl_ids_window *b) {
    CHECK(a->buckets == b->buckets && memcmp(a->map, b->map, tl_ids_bytes(a->buckets)) == 0);
    CHECK(tl_ids_next(a) == plain_next(b));
}

/* Into windows twice as large. */
static void check_grown(tl_ids_window *a, tl_ids_window *b, const tl_ids_rule *rule) {
    tl_ids_window c = empty_window(a->buckets * 2), d = empty_window(a->buckets * 2);
    uint32_t shift_ms = check_random(&seed) % 4 == 0 ? rule->now_ms / 4 : 0;
    int status = tl_ids_copy(a, &c, rule, shift_ms);
    CHECK(plain_copy(b, &d, rule, shift_ms) == status);
    check_same(&c, &d);
    if (status == TL_OK && shift_ms == 0) {
        free(a->map);
        free(b->map);
        *a = c;
        *b = d;
        happened[GROWN]++;
        return;
    }
    free(c.map);
    free(d.map);
}

static void check_run(uint32_t buckets, uint32_t ids, uint32_t count, uint32_t age_ms, uint32_t first_number) {
    tl_ids_window a = empty_window(buckets), b = empty_window(buckets);
    tl_ids_rule rule = {count, age_ms, 1};
    *next_of(&a) = *next_of(&b) = first_number;
    for (int64_t offset = 0; offset < CALLS; offset++) {
        const tl_message_id id = drawn_id(ids, a.buckets);
        int64_t first = -1, second = -1;
        rule.now_ms += (uint32_t)(check_random(&seed) % 3);
        if (check_random(&seed) % 3 == 0) {
            uint32_t pending = (uint32_t)(check_random(&seed) % 4);
            bool found = tl_ids_find(&a, &id, &rule, pending, &first);
            CHECK(plain_find(&b, &id, &rule, pending, &second) == found && first == second);
            happened[found ? FOUND : NOT_FOUND]++;
        } else {
            int status = tl_ids_note(&a, &id, offset, rule.now_ms, &rule);
            CHECK(plain_note(&b, &id, offset, rule.now_ms, &rule) == status);
            happened[status == TL_OK ? NOTED : FULL]++;
            if (status == TL_EFULL && a.buckets < 8 * buckets)
                check_grown(&a, &b, &rule);
        }
        if (offset % 16 == 0)
            check_same(&a, &b);
    }
    check_same(&a, &b);
    CHECK(tl_ids_live(&a, &rule) == plain_live(&b, &rule));
    free(a.map);
    free(b.map);
}

int main(void) {
    static const uint32_t first_numbers[] = {0, INT32_MAX - CALLS / 2, UINT32_MAX - 4 * CALLS}; /* comparisons of signed words */
    for (int run = 0; run < RUNS; run++) {
        uint32_t buckets = 64u << (check_random(&seed) % 3), ids = 200u << (check_random(&seed) % 8);
        uint32_t count = 1u << (check_random(&seed) % 14);
        check_run(buckets, ids, count, (uint32_t)(check_random(&seed) % 2 == 0 ? 500 : 1000000), first_numbers[run % 3]);
    }
    for (int kind = 0; kind < KINDS; kind++)
        CHECK(happened[kind] > 50);
    return check_report();
}
