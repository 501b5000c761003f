/* Do sampled counters stay within their bounds, whatever is counted, by whomever, and whatever stands in the file?
 *
 * timeout_s: 120
 * Imports skew.h, store_kit.h. The oracle counts every key exactly, in an array. Single-threaded but for the race of
 * several processes. */
#define _GNU_SOURCE 1
#include "store_kit.h"
#include "tidelog/shared.h"
#include "tidelog/skew.h"

#include <math.h>

enum { KEYS = 100000, PROCESSES = 4 };

static tl_error err;
static uint32_t exact[KEYS];
static uint32_t number_of(const tl_skew_key *key) {
    char text[TL_SKEW_KEY_BYTES + 1] = {0};
    memcpy(text, key->key, key->key_bytes < TL_SKEW_KEY_BYTES ? key->key_bytes : TL_SKEW_KEY_BYTES);
    CHECK(strncmp(text, "key ", 4) == 0);
    return (uint32_t)strtoul(text + 4, NULL, 10);
}

static void note(tl_skew *skew, uint32_t key) {
    char text[32];
    int n = snprintf(text, sizeof text, "key %u", key);
    CHECK(tl_skew_note(skew, (const uint8_t *)text, (size_t)n, key % 4) == TL_OK);
    exact[key]++;
}

typedef struct fixture {
    tl_store *store;
    tl_partition *first;
    tl_skew *skew;
} fixture;

static uint32_t fixtures;

static fixture begin(void) {
    fixture f = {0};
    char path[64];
    uint32_t slot = 0;
    tl_recovery recovery;
    snprintf(path, sizeof path, "store-%u", fixtures++);
    CHECK(kit_open(path, &f.store, &recovery, &err) == TL_OK);
    CHECK(kit_create(f.store, 0, 1 << 20, &slot, &err) == TL_OK);
    CHECK(tl_store_ready(f.store, &err) == TL_OK);
    CHECK(tl_store_partition(f.store, slot, kit_channel, &f.first, &err) == TL_OK);
    CHECK(tl_skew_open(f.first, &f.skew, &err) == TL_OK);
    memset(exact, 0, sizeof exact);
    return f;
}

static void end(fixture *f) {
    tl_skew_close(f->skew);
    tl_partition_release(f->first);
    CHECK(tl_store_close(f->store, &err) == TL_OK);
    tl_store_free(f->store);
}

/* What the header promises of every counter, against the oracle. */
static uint32_t check_view(const tl_skew_view *view, uint32_t notes) {
    CHECK(view->samples == notes);
    uint64_t sum = 0;
    uint32_t best = 0, hottest = UINT32_MAX;
    for (uint32_t i = 0; i < view->keys; i++) {
        const tl_skew_key *key = &view->key[i];
        uint32_t number = number_of(key);
        CHECK(key->count - key->error <= exact[number]);
        CHECK(exact[number] <= key->count);
        CHECK(key->partition == number % 4);
        CHECK(key->error <= key->count);
        sum += key->count;
        if (key->count - key->error > best) {
            best = key->count - key->error;
            hottest = number;
        }
    }
    CHECK(sum + view->keyless == notes); /* space-saving loses no count */
    return hottest;
}

static void test_zipf(void) {
    fixture f = begin();
    static double sum[KEYS];
    uint64_t random = 1;
    double all = 0;
    for (uint32_t k = 0; k < KEYS; k++)
        sum[k] = all += 1.0 / pow(k + 1, 1.2);
    for (uint32_t i = 0; i < 60000; i++) {
        double at = (double)(check_random(&random) >> 11) / 9007199254740992.0 * all;
        uint32_t low = 0, high = KEYS - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (sum[middle] > at)
                high = middle;
            else
                low = middle + 1;
        }
        note(f.skew, low);
    }
    static tl_skew_view view;
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    CHECK(check_view(&view, 60000) == 0);
    /* The ten hottest all have a counter, with an error far below what they have: 8 a set share 1/16 of the rest. */
    uint32_t seen = 0;
    for (uint32_t i = 0; i < view.keys; i++) {
        if (number_of(&view.key[i]) < 10) {
            seen++;
            CHECK(view.key[i].error <= 60000 / 64);
        }
    }
    CHECK(seen == 10);
    uint32_t certain = 0, samples = 0;
    CHECK(tl_skew_top(f.skew, &certain, &samples) == TL_OK);
    CHECK(samples == 60000 && certain <= exact[0] && certain > exact[0] / 2);
    end(&f);
}

static void test_uniform(void) {
    fixture f = begin();
    uint64_t random = 2;
    for (uint32_t i = 0; i < 50000; i++)
        note(f.skew, (uint32_t)(check_random(&random) % KEYS));
    static tl_skew_view view;
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    check_view(&view, 50000);
    CHECK(view.keys == TL_SKEW_KEYS);
    for (uint32_t i = 0; i < view.keys; i++) /* nobody is taken for hot */
        CHECK(view.key[i].count - view.key[i].error < 20);
    end(&f);
}

static void test_one_hot_key(void) {
    fixture f = begin();
    uint64_t random = 3;
    for (uint32_t i = 0; i < 50000; i++) {
        uint64_t r = check_random(&random);
        if (r % 10 < 2)
            CHECK(tl_skew_note(f.skew, NULL, 0, 0) == TL_OK);
        else
            note(f.skew, r % 10 < 5 ? 4711 : (uint32_t)(r >> 32) % KEYS);
    }
    static tl_skew_view view;
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    CHECK(check_view(&view, 50000) == 4711);
    CHECK(view.keyless > 9000 && view.keyless < 11000);
    end(&f);
}

/* What was hot long ago is not hot now. */
static void test_halving(void) {
    fixture f = begin();
    for (uint32_t i = 0; i < TL_SKEW_WINDOW; i++)
        note(f.skew, 1);
    static tl_skew_view view;
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    CHECK(view.samples == TL_SKEW_WINDOW / 2 && view.keys == 1);
    CHECK(view.key[0].count == TL_SKEW_WINDOW / 2 && view.key[0].error == 0);
    for (uint32_t i = 0; i < 5 * TL_SKEW_WINDOW; i++)
        note(f.skew, 2);
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    CHECK(view.samples >= TL_SKEW_WINDOW / 2 && view.samples < TL_SKEW_WINDOW);
    for (uint32_t i = 0; i < view.keys; i++)
        CHECK(number_of(&view.key[i]) == 2 ? view.key[i].count > view.samples * 9 / 10 : view.key[i].count < view.samples / 10);
    end(&f);
}

/* Long keys are told apart behind what is kept of them; keys that are empty or hold zeros are keys. */
static void test_odd_keys(void) {
    fixture f = begin();
    static uint8_t key[3000];
    memset(key, 'x', sizeof key);
    for (uint32_t i = 0; i < 100; i++) {
        key[2999] = (uint8_t)(i % 2);
        CHECK(tl_skew_note(f.skew, key, 3000, 0) == TL_OK);
        CHECK(tl_skew_note(f.skew, key, 40 + i % 2, 0) == TL_OK);
        CHECK(tl_skew_note(f.skew, key, 0, 0) == TL_OK);
        CHECK(tl_skew_note(f.skew, (const uint8_t *)"\0\0", 1 + i % 2, 0) == TL_OK);
    }
    static tl_skew_view view;
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    CHECK(view.samples == 400 && view.keys == 7);
    for (uint32_t i = 0; i < view.keys; i++)
        CHECK(view.key[i].count == (view.key[i].key_bytes == 0 ? 100 : 50));
    end(&f);
}

/* --- whose file it is --- */

static void test_another_boot(void) {
    fixture f = begin();
    char path[64];
    for (int i = 0; i < 50; i++)
        note(f.skew, 7);
    end(&f);
    uint32_t slot = 0;
    tl_recovery recovery;
    snprintf(path, sizeof path, "store-%u", fixtures - 1);
    for (int boot = 0; boot < 2; boot++) {
        kit_boot += (uint64_t)boot;
        CHECK(kit_open(path, &f.store, &recovery, &err) == TL_OK);
        CHECK(tl_store_ready(f.store, &err) == TL_OK);
        CHECK(tl_store_partition(f.store, slot, kit_channel, &f.first, &err) == TL_OK);
        static tl_skew_view view;
        int status = tl_skew_look(f.first, &view, &err);
        if (boot == 0)
            CHECK(status == TL_OK && view.samples == 50);
        else
            CHECK(status == TL_ENOTFOUND);
        CHECK(tl_skew_open(f.first, &f.skew, &err) == TL_OK);
        CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
        CHECK(view.samples == (boot == 0 ? 50 : 0));
        end(&f);
    }
}

/* What was dropped is not made anew, and a message that comes first finds the directory there. */
static void test_directory(void) {
    fixture f = begin();
    uint8_t text[KIT_TEXT];
    const tl_message message = kit_message(1, text);
    tl_appended appended;
    CHECK(tl_partition_append_one(f.first, &message, 0, &appended, &err) == TL_OK);
    CHECK(tl_partition_sync(f.first, appended.tail, -1, &err) == TL_OK);
    uint32_t slot = 0;
    CHECK(tl_store_drop_partitions(f.store, &slot, 1, &err) == TL_OK);
    note(f.skew, 3); /* into a file without a name */
    tl_skew *again = NULL;
    CHECK(tl_skew_open(f.first, &again, &err) == TL_EDROPPED && again == NULL);
    char path[64];
    snprintf(path, sizeof path, "store-%u/orders-0", fixtures - 1);
    CHECK(access(path, F_OK) != 0);
    end(&f);
}

/* Somebody creates a channel and is stopped: no sender waits for that. */
static void test_nothing_waits(void) {
    fixture f = begin();
    tl_skew_close(f.skew);
    f.skew = NULL;
    char path[64];
    snprintf(path, sizeof path, "store-%u/orders-0/skew", fixtures - 1);
    CHECK(unlink(path) == 0);
    snprintf(path, sizeof path, "store-%u/shared", fixtures - 1);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    const off_t at = offsetof(tl_shared_header, catalogue_lock);
    const uint32_t held = 0x7fffffffu, before = 0;
    CHECK(pwrite(fd, &held, 4, at) == 4);
    CHECK(tl_skew_open(f.first, &f.skew, &err) == TL_EAGAIN);
    CHECK(pwrite(fd, &before, 4, at) == 4);
    close(fd);
    CHECK(tl_skew_open(f.first, &f.skew, &err) == TL_OK);
    end(&f);
}

/* --- several processes --- */

static void test_race(void) {
    fixture f = begin();
    enum { EACH = 25000, HOT = 12 };
    pid_t child[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        child[p] = fork();
        CHECK(child[p] >= 0);
        if (child[p] == 0) {
            uint64_t random = 100 + (uint64_t)p;
            for (uint32_t i = 0; i < EACH; i++) {
                uint64_t r = check_random(&random);
                note(f.skew, r % 2 == 0 ? (uint32_t)(r >> 8) % HOT : HOT + (uint32_t)(r >> 8) % (KEYS - HOT));
            }
            _exit(0);
        }
    }
    static tl_skew_view view;
    for (int looks = 0; looks < 200; looks++) { /* while they count: never out of bounds, never a key nobody sent */
        CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
        for (uint32_t i = 0; i < view.keys; i++) {
            CHECK(view.key[i].count <= view.samples && view.key[i].error <= view.key[i].count);
            CHECK(number_of(&view.key[i]) < KEYS);
        }
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = 0;
        CHECK(waitpid(child[p], &status, 0) == child[p] && status == 0);
    }
    for (int p = 0; p < PROCESSES; p++) { /* the oracle: the same numbers once more */
        uint64_t random = 100 + (uint64_t)p;
        for (uint32_t i = 0; i < EACH; i++) {
            uint64_t r = check_random(&random);
            exact[r % 2 == 0 ? (uint32_t)(r >> 8) % HOT : HOT + (uint32_t)(r >> 8) % (KEYS - HOT)]++;
        }
    }
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
    CHECK(view.samples == PROCESSES * EACH);
    uint32_t hot = 0;
    for (uint32_t i = 0; i < view.keys; i++) {
        const tl_skew_key *key = &view.key[i];
        uint32_t number = number_of(key);
        if (number < HOT) { /* a lost race moves one sample: 1 % is far more than all of them */
            hot++;
            CHECK(key->count - key->error <= exact[number] + PROCESSES * EACH / 100);
            CHECK(exact[number] <= key->count + PROCESSES * EACH / 100);
        }
    }
    CHECK(hot == HOT);
    end(&f);
}

/* --- hostile bytes --- */

/* A sender died between taking a counter and writing its key, or somebody scribbled over the key: it is not shown, and
 * the next sample of the true key puts its name back. */
static void test_half_written(void) {
    fixture f = begin();
    char path[64];
    snprintf(path, sizeof path, "store-%u/orders-0/skew", fixtures - 1);
    for (int i = 0; i < 10; i++)
        note(f.skew, 12345);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    off_t at = 0;
    uint64_t hash = 0;
    for (uint32_t i = 0; i < TL_SKEW_KEYS && hash == 0; i++) {
        at = 128 + 64 * (off_t)i;
        CHECK(pread(fd, &hash, 8, at) == 8);
    }
    CHECK(hash != 0);
    static tl_skew_view view;
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK && view.keys == 1);
    CHECK(pwrite(fd, "key 54321", 9, at + 32) == 9);
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK && view.keys == 0 && view.samples == 10);
    const uint32_t other = (uint32_t)hash + 1;
    CHECK(pwrite(fd, &other, 4, at + 24) == 4);
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK && view.keys == 0);
    note(f.skew, 12345);
    CHECK(tl_skew_look(f.first, &view, &err) == TL_OK && view.keys == 1);
    CHECK(number_of(&view.key[0]) == 12345 && view.key[0].count == 11);
    close(fd);
    end(&f);
}

static void test_damage(void) {
    fixture f = begin();
    char path[64];
    snprintf(path, sizeof path, "store-%u/orders-0/skew", fixtures - 1);
    uint64_t random = 9;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    static uint8_t noise[128 + 64 * TL_SKEW_KEYS];
    static tl_skew_view view;
    for (int round = 0; round < 300; round++) {
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)(round % 3 == 0 ? 0xff : check_random(&random));
        size_t from = 40; /* magic, boot and id stay: otherwise it is just another file */
        CHECK(pwrite(fd, noise + from, sizeof noise - from, (off_t)from) == (ssize_t)(sizeof noise - from));
        for (uint32_t i = 0; i < 300; i++) {
            CHECK(tl_skew_note(f.skew, noise, i % 64, i) == TL_OK);
            CHECK(tl_skew_note(f.skew, NULL, 0, i) == TL_OK);
        }
        uint32_t certain = 0, samples = 0;
        CHECK(tl_skew_top(f.skew, &certain, &samples) == TL_OK && certain <= samples);
        CHECK(tl_skew_look(f.first, &view, &err) == TL_OK);
        CHECK(view.keys <= TL_SKEW_KEYS && view.keyless <= view.samples);
        for (uint32_t i = 0; i < view.keys; i++)
            CHECK(view.key[i].error <= view.key[i].count && view.key[i].count <= view.samples);
    }
    CHECK(ftruncate(fd, 0) == 0); /* the map has no page any more: an error, not a signal */
    CHECK(tl_skew_note(f.skew, noise, 8, 0) == TL_EBUS);
    uint32_t certain = 0, samples = 0;
    CHECK(tl_skew_top(f.skew, &certain, &samples) == TL_EBUS);
    CHECK(tl_skew_look(f.first, &view, &err) == TL_ENOTFOUND);
    close(fd);
    tl_skew_close(f.skew);
    CHECK(tl_skew_open(f.first, &f.skew, &err) == TL_OK); /* a short file is made anew */
    CHECK(tl_skew_note(f.skew, noise, 8, 0) == TL_OK);
    end(&f);
}

int main(void) {
    kit_install();
    test_zipf();
    test_uniform();
    test_one_hot_key();
    test_halving();
    test_odd_keys();
    test_another_boot();
    test_directory();
    test_nothing_waits();
    test_race();
    test_half_written();
    test_damage();
    return check_report();
}
