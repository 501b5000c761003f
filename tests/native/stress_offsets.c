/* Do threads of one handle race on anything of the offset table that is not atomic?
 *
 * timeout_s: 120
 * Imports offsets.h, os.h. Runs under ThreadSanitizer. Creators, committers, text writers, readers share one handle. */
#define _GNU_SOURCE 1
#include "check.h"
#include "tidelog/offsets.h"
#include "tidelog/os.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

enum { CHANNELS = 3000, PARTITIONS = 4, COMMITTERS = 2, LOOKERS = 2 };

/* For several threads at once: CHECK's counter is for one. */
#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static tl_offsets *table;
static uint32_t group, created, done;
/* Stands for the catalogue lock: one creator, text writer or deleter at a time. */
static pthread_mutex_t catalogue = PTHREAD_MUTEX_INITIALIZER;

static void fill_id(uint8_t id[16], uint32_t n) {
    memset(id, 0, 16);
    memcpy(id, &n, 4);
}

static void *create(void *unused) {
    tl_error err;
    char name[300];
    (void)unused;
    memset(name, 'g', sizeof name);
    for (uint32_t c = 0; c < CHANNELS; c++) {
        uint8_t id[16], text[600];
        uint32_t slot, other;
        fill_id(id, c);
        memset(text, (int)c, sizeof text);
        pthread_mutex_lock(&catalogue);
        for (uint32_t p = 0; p < PARTITIONS; p++)
            REQUIRE(tl_offsets_slot(table, group, id, p, true, &slot, &err) == TL_OK);
        REQUIRE(tl_offsets_group(table, name, 1 + c % 300, true, &other, &err) == TL_OK);
        REQUIRE(tl_offsets_set_metadata(table, slot, text, c % 600, &err) == TL_OK);
        if (c % 50 == 49) {
            fill_id(id, c - 20);
            REQUIRE(tl_offsets_forget_channel(table, id, &err) == TL_OK);
        }
        pthread_mutex_unlock(&catalogue);
        __atomic_store_n(&created, c + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *commit(void *argument) {
    uint32_t owner = (uint32_t)(uintptr_t)argument, slot, epoch;
    uint64_t seed = owner, commits = 0;
    tl_error err;
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        uint32_t count = __atomic_load_n(&created, __ATOMIC_ACQUIRE);
        uint8_t id[16], text[100] = "text";
        tl_offset_word w;
        if (count == 0)
            continue;
        fill_id(id, (uint32_t)(check_random(&seed) % count));
        int rc = tl_offsets_slot(table, group, id, (uint32_t)(check_random(&seed) % PARTITIONS), false, &slot, &err);
        REQUIRE(rc == TL_OK || rc == TL_ENOTFOUND);
        if (rc != TL_OK || tl_offsets_read(table, slot, &w, NULL) != TL_OK ||
            tl_offsets_claim(table, slot, w, owner, &epoch) != TL_OK)
            continue;
        for (int i = 0; i < 8; i++)
            commits += tl_offsets_commit(table, slot, owner, epoch, i, i) == TL_OK;
        if (check_random(&seed) % 8 == 0) {
            pthread_mutex_lock(&catalogue);
            rc = tl_offsets_set_metadata(table, slot, text, check_random(&seed) % 100, &err);
            pthread_mutex_unlock(&catalogue);
            REQUIRE(rc == TL_OK || rc == TL_EDROPPED);
        }
        tl_offsets_release(table, slot, owner, epoch);
    }
    REQUIRE(commits > 0);
    return NULL;
}

static void *look(void *argument) {
    tl_error err;
    uint64_t looked = 0;
    bool saver = argument != NULL;
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        uint32_t cursor = 0, number;
        tl_offset_view v;
        uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES];
        char name[TL_OFFSETS_MAX_GROUP_BYTES];
        size_t bytes;
        int rc;
        while ((rc = saver ? tl_offsets_changed(table, &cursor, &v, &err) : tl_offsets_next(table, &cursor, &v,
                                                                                            &err)) != 0) {
            REQUIRE(rc == 1);
            rc = tl_offsets_metadata(table, v.slot, text, &bytes, &err);
            REQUIRE(rc == TL_OK || rc == TL_EDROPPED || rc == TL_EAGAIN);
            if (saver)
                tl_offsets_mark_saved(table, &v);
            looked++;
        }
        for (cursor = 0; (rc = tl_offsets_next_group(table, &cursor, &number, &err)) != 0;) {
            REQUIRE(rc == 1 && tl_offsets_group_name(table, number, name, &bytes, &err) == TL_OK);
            REQUIRE(tl_offsets_group(table, name, bytes, false, &cursor, &err) == TL_OK && cursor == number);
            cursor = number + 1;
        }
    }
    REQUIRE(looked > 0);
    return NULL;
}

int main(void) {
    pthread_t threads[1 + COMMITTERS + LOOKERS];
    tl_error err;
    int dir = open(".", O_RDONLY | O_DIRECTORY), n = 0;
    CHECK(dir >= 0 && tl_offsets_open(dir, TL_OFFSETS_RESET, &table, &err) == TL_OK);
    CHECK(tl_offsets_group(table, "main", 4, true, &group, &err) == TL_OK);
    CHECK(pthread_create(&threads[n++], NULL, create, NULL) == 0);
    for (uintptr_t i = 0; i < COMMITTERS; i++)
        CHECK(pthread_create(&threads[n++], NULL, commit, (void *)(i + 1)) == 0);
    for (uintptr_t i = 0; i < LOOKERS; i++)
        CHECK(pthread_create(&threads[n++], NULL, look, (void *)i) == 0);
    while (n > 0)
        CHECK(pthread_join(threads[--n], NULL) == 0);
    tl_offsets_close(table);
    tl_offsets_report report;
    CHECK(tl_offsets_check(dir, NULL, NULL, &report, &err) == TL_OK && report.problems == 0);
    CHECK(report.groups == 301 && report.forgotten == CHANNELS / 50 * PARTITIONS);
    close(dir);
    return check_report();
}
