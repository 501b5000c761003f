/* Is a message id in a window exactly when a plain list of the last ids says so, whether it grows or is counted anew?
 *
 * timeout_s: 240
 * Imports ids_kit.h. The window is plain memory here: no store, no file, and a clock that is a number. */
#define _GNU_SOURCE 1
#include "ids_kit.h"

static void hash_of(uint32_t name, tl_message_id *out) { tl_ids_hash(99, &name, sizeof name, out); }

static void check_hash(void) {
    /* SipHash-1-3 with 128 bits: no published vectors are at hand, so its properties are: every byte and the length
     * count, the key counts, and no two of many ids share a half. */
    enum { MANY = 20000 };
    static tl_message_id many[MANY];
    uint8_t text[64] = {0};
    tl_message_id a, b;
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        tl_ids_hash(1, text, bytes, &a);
        tl_ids_hash(2, text, bytes, &b);
        CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1] && a.hash[0] != 0);
        tl_ids_hash(1, text, bytes + 1, &b);
        CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1]);
        for (size_t at = 0; at < bytes; at++) {
            text[at] ^= 0x80;
            tl_ids_hash(1, text, bytes, &b);
            CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1]);
            text[at] ^= 0x80;
        }
    }
    for (uint32_t i = 0; i < MANY; i++)
        hash_of(i, &many[i]);
    for (int half = 0; half < 2; half++) {
        uint32_t spread[256] = {0};
        for (uint32_t i = 0; i < MANY; i++)
            spread[many[i].hash[half] & 255]++;
        for (int i = 0; i < 256; i++)
            CHECK(spread[i] > 30 && spread[i] < 140); /* 78 on average */
    }
}

static tl_ids_window window_of(uint32_t buckets) {
    tl_ids_window w = {calloc(1, tl_ids_bytes(buckets)), buckets};
    CHECK(w.map != NULL);
    return w;
}

/* Random sends against the oracle; grows when it must. */
static void check_window(uint32_t count, uint32_t age_ms, uint32_t names, uint32_t steps) {
    kit_oracle o = {.window = count, .age_ms = age_ms};
    tl_ids_window w = window_of(TL_IDS_BUCKETS_FIRST);
    uint32_t now = 1000000, grown = 0, duplicates = 0;
    int64_t offset = 0;
    for (uint32_t i = 0; i < steps; i++) {
        tl_message_id id;
        uint32_t name = kit_below(names);
        /* The window by age is about half of that by count. */
        now += kit_below(20) == 0 ? kit_below(60 * (age_ms / count) + 2) : kit_below(2);
        const tl_ids_rule rule = {count, age_ms, now};
        hash_of(name, &id);
        int64_t found = -1, wanted = kit_oracle_find(&o, name, now);
        bool is = tl_ids_find(&w, &id, &rule, 0, &found);
        CHECK(is == (wanted >= 0));
        if (is) {
            CHECK(found == wanted);
            duplicates++;
            if (kit_below(8) != 0)
                continue; /* else a message came that was not looked for: its id counts all the same */
        }
        int status = tl_ids_note(&w, &id, offset, now, &rule);
        while (status == TL_EFULL) {
            tl_ids_window larger = window_of(w.buckets * 2);
            uint32_t shift = kit_below(2) == 0 ? 0 : now > age_ms + 1000 ? now - age_ms - 1000 : 0;
            if (tl_ids_copy(&w, &larger, &rule, 0) == TL_OK) {
                CHECK(tl_ids_live(&larger, &rule) == tl_ids_live(&w, &rule));
                (void)shift;
            }
            free(w.map);
            w = larger;
            grown++;
            status = tl_ids_note(&w, &id, offset, now, &rule);
        }
        CHECK(status == TL_OK);
        kit_oracle_note(&o, name, offset++, now);
        if (kit_below(100) == 0) { /* a death before it could be said: the same is noted again */
            CHECK(tl_ids_note(&w, &id, offset - 1, now, &rule) == TL_OK);
            CHECK(tl_ids_next(&w) <= o.count);
        }
    }
    CHECK(duplicates > steps / 100);
    CHECK((uint64_t)w.buckets * TL_IDS_WAYS <= 4 * (uint64_t)count + 2 * TL_IDS_BUCKETS_FIRST * TL_IDS_WAYS);
    free(w.map);
    free(o.list);
}

/* Numbers and times counted anew: what was a duplicate is one, what was not is not. */
static void check_renewal(void) {
    enum { NAMES = 3000 };
    tl_ids_window old = window_of(1024), fresh = window_of(1024);
    tl_ids_rule rule = {2000, 5000, 0};
    for (uint32_t i = 0; i < NAMES; i++) {
        tl_message_id id;
        rule.now_ms = 100000 + 3 * i;
        hash_of(i, &id);
        CHECK(tl_ids_note(&old, &id, i, rule.now_ms, &rule) == TL_OK);
    }
    uint32_t shift = 90000, live = 0;
    CHECK(tl_ids_copy(&old, &fresh, &rule, shift) == TL_OK);
    CHECK(tl_ids_next(&fresh) == 2000);
    const tl_ids_rule shifted = {rule.count, rule.age_ms, rule.now_ms - shift};
    for (uint32_t i = 0; i < NAMES; i++) {
        tl_message_id id;
        int64_t before = -1, after = -1;
        hash_of(i, &id);
        bool was = tl_ids_find(&old, &id, &rule, 0, &before), is = tl_ids_find(&fresh, &id, &shifted, 0, &after);
        CHECK(was == is && before == after);
        CHECK(was == (i >= 1000 && 3 * (NAMES - 1 - i) < 5000));
        live += was;
    }
    CHECK(live == tl_ids_live(&fresh, &shifted) && live > 1000);
    free(old.map);
    free(fresh.map);
}

int main(void) {
    check_hash();
    check_renewal();
    check_window(1, 1000, 3, 3000);
    check_window(7, 50, 10, 20000);
    check_window(500, 100000, 700, 60000);
    check_window(20000, 1000000, 30000, 200000);
    return check_report();
}
