/* Is every damaged bit and every missing byte of the newest checkpoint noticed, and nothing else?
 *
 * Imports checkpoint_model.h, memory_disk.h, crc32c.h, checkpoint_scan.h (the layout). timeout_s: 120 */
#define _DEFAULT_SOURCE 1
#include "../../native/src/checkpoint_scan.h"
#include "checkpoint_model.h"
#include "memory_disk.h"
#include "tidelog/crc32c.h"

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "quarantine_size_mb=1"; } /* see test_checkpoint_power.c */

static tl_error err;

static memory_disk *pristine;

static void restore(void) {
    for (int i = 0; i < 2; i++) {
        disk->file[i].size = pristine->file[i].size;
        memcpy(disk->file[i].cached, pristine->file[i].cached, pristine->file[i].size + 4096);
    }
}

/* Recovers; whether the result is allowed: the state of the last group, or a typed error that names a place, or, when
 * `tail_may_go`, the state after the last synced group. Never anything else. Returns whether damage was reported. */
static bool recover_damaged(const model *whole, const model *synced, bool tail_may_go) {
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    tl_checkpoint_report reports[2];
    CHECK(tl_checkpoint_open(&c, 0, &words, &err) == TL_OK);
    int checked = tl_checkpoint_check(0, reports, &err);
    int result = tl_checkpoint_recover(&c, &err);
    CHECK(checked == result);
    if (result == TL_OK) {
        model_loaded loaded;
        CHECK(model_load(&c, &loaded, &err) == TL_OK);
        CHECK(model_equal(whole, &loaded) || (tail_may_go && model_equal(synced, &loaded)));
        model_loaded_free(&loaded);
    } else {
        CHECK(result == TL_ECORRUPT && strncmp(err.path, "checkpoint.", 11) == 0 && err.position >= 0);
    }
    tl_checkpoint_close(&c);
    return result != TL_OK;
}

/* The next seed whose group is small but not empty, so that trying every bit of it takes seconds. */
static uint64_t small_seed(uint64_t seed) {
    for (;; seed++) {
        model m = {0};
        model_group group;
        model_step(&m, 1, seed, &group);
        size_t bytes = 0;
        for (size_t i = 0; i < group.count; i++)
            bytes += group.records[i].key_bytes + group.records[i].value_bytes;
        bool small = group.count > 2 && bytes < 200;
        model_group_free(&group);
        if (small)
            return seed;
    }
}

/* A pair of files: generation 3 in b is the newest, synced up to a position that is told, then one group that is not.
 * The files are cut to a few hundred bytes past their end, so that every bit can be tried. */
static uint64_t make_pair(model *whole, model *synced, bool with_tail) {
    disk_install(6);
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    *whole = (model){0};
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    tl_checkpoint_end end;
    for (uint64_t seed = 1000; seed < 4000; seed += 1000)
        CHECK(model_append(&c, whole, small_seed(seed), &end, &err) == TL_OK);
    CHECK(tl_checkpoint_sync(&c, end, &err) == TL_OK && tl_checkpoint_snapshot(&c, &err) == TL_OK);
    CHECK(model_append(&c, whole, small_seed(4000), &end, &err) == TL_OK);
    CHECK(model_append(&c, whole, small_seed(5000), &end, &err) == TL_OK);
    CHECK(tl_checkpoint_sync(&c, end, &err) == TL_OK && end.generation == 3);
    *synced = *whole;
    if (with_tail)
        CHECK(model_append(&c, whole, small_seed(6000), NULL, &err) == TL_OK);
    uint64_t tail = tl_checkpoint_tail(&c).position;
    disk->file[1].size = tail + 200;
    disk->file[0].size = tail + 200;
    tl_checkpoint_close(&c);
    memcpy(pristine, disk, sizeof *disk);
    return end.position;
}

/* Which flips must be noticed: those of bytes that recovery uses and that were synced, which are the 64 bytes of the
 * header and the groups up to the synced end of the newest file. Behind that end, as in a torn tail, the group may be
 * forgotten. Everything else (the other file, marks, padding of the header page) may change nothing. */
static void check_flips(bool with_tail, bool with_mark) {
    model whole, synced;
    uint64_t synced_end = make_pair(&whole, &synced, with_tail);
    if (!with_mark) { /* after a power cut the mark may be missing: then the group behind testifies */
        memset(pristine->file[1].cached + 4096, 0, 512);
        CHECK(with_tail);
    }
    unsigned long noticed = 0, harmless = 0;
    for (int file = 0; file < 2; file++) {
        for (uint64_t at = 0; at < pristine->file[file].size; at++) {
            bool unused = (at >= 64 && at < 4096) || (at >= 4096 + 24 && at < 4608) || (at >= 4608 + 24 && at < 8192);
            if (unused && at % 61 != 0)
                continue;
            for (int bit = 0; bit < 8; bit++) {
                restore();
                disk->file[file].cached[at] ^= (uint8_t)(1u << bit);
                bool used = file == 1 && (at < 64 || (at >= 8192 && at < synced_end));
                /* Without the mark the testimony stands in the tail group: its own loss is a torn tail. */
                bool reported = recover_damaged(&whole, &synced, file == 1 && at >= synced_end);
                CHECK(reported == used);
                noticed += reported;
                harmless += !reported;
            }
        }
    }
    CHECK(noticed > 2000 && harmless > 2000);
}

static void check_truncations(bool with_tail) {
    model whole, synced;
    uint64_t synced_end = make_pair(&whole, &synced, with_tail);
    for (int file = 0; file < 2; file++) {
        for (uint64_t size = 0; size < pristine->file[file].size; size++) {
            restore();
            disk->file[file].size = size;
            bool reported = recover_damaged(&whole, &synced, file == 1 && size >= synced_end);
            CHECK(reported == (file == 1 && size < synced_end));
        }
    }
}

/* The newest header damaged while the older file does not know of a newer one is a snapshot cut short, not damage:
 * then the older one is the state. With both damaged there is none. */
static void check_choice(void) {
    model whole, synced;
    make_pair(&whole, &synced, false);
    restore();
    disk->file[0].cached[0] ^= 1;
    disk->file[1].cached[0] ^= 1;
    CHECK(recover_damaged(&whole, &synced, false) && strcmp(err.path, "checkpoint.a") == 0);
    restore();
    disk->file[1].cached[20] ^= 1;
    CHECK(recover_damaged(&whole, &synced, false) && strcmp(err.path, "checkpoint.b") == 0 && err.position == 0);
    memset(disk->file[0].cached + 4608, 0, 512);
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    model before = {0};
    for (uint64_t seed = 1000; seed < 4000; seed += 1000)
        model_step(&before, before.number + 1, small_seed(seed), NULL);
    CHECK(tl_checkpoint_open(&c, 0, &words, &err) == TL_OK && tl_checkpoint_recover(&c, &err) == TL_OK);
    CHECK(model_holds(&c, &before));

    /* A snapshot writer that died before it marked the older file: recovery marks it, durably. */
    restore();
    memset(disk->file[0].cached + 4608, 0, 512);
    memset(disk->file[0].durable + 4608, 0, 512);
    CHECK(tl_checkpoint_recover(&c, &err) == TL_OK && model_holds(&c, &whole));
    disk->file[1].cached[20] ^= 1;
    memcpy(disk->file[0].cached, disk->file[0].durable, 8192);
    CHECK(recover_damaged(&whole, &synced, false) && strcmp(err.path, "checkpoint.b") == 0);

    /* A header with a right checksum that promises another snapshot than the one behind it. */
    for (int lie = 0; lie < 3; lie++) {
        restore();
        tl_checkpoint_file file;
        CHECK(tl_checkpoint_inspect(c.fd[1], 1, &file, &err) == TL_OK && file.whole && file.snapshot_records > 0);
        file.snapshot_records += lie == 0;
        file.snapshot_chain += lie == 1;
        file.snapshot_end += lie == 2 ? 8 : 0;
        tl_checkpoint_header_encode(disk->file[1].cached, &file);
        CHECK(recover_damaged(&whole, &synced, false));
    }
    /* Another version of the format is not damage. */
    restore();
    disk->file[1].cached[8] = 2;
    tl_put_le32(disk->file[1].cached + 60, tl_crc32c(0, disk->file[1].cached, 60));
    CHECK(tl_checkpoint_recover(&c, &err) == TL_EUNSUPPORTED && strcmp(err.path, "checkpoint.b") == 0);
}

static int count_each(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                      uint32_t value_bytes) {
    uint32_t *counts = context;
    CHECK(type == 5 && key_bytes == 1 && value_bytes == 4);
    memcpy(&counts[*(const uint8_t *)key % 8], value, 4);
    return 0;
}

/* A power cut takes the second of three unsynced groups. When another one of its size is written in its place, the
 * third stands right behind it, whole, of the same generation and at its own position; it must stay dead. */
static void check_stale_group(void) {
    disk_install(8);
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    uint64_t positions[4] = {tl_checkpoint_tail(&c).position};
    for (uint32_t i = 1; i < 4; i++) {
        uint8_t key = (uint8_t)i;
        tl_checkpoint_record r = {.key = &key, .key_bytes = 1, .value = &i, .value_bytes = 4, .type = 5};
        tl_checkpoint_end end;
        CHECK(tl_checkpoint_append(&c, &r, 1, &end, &err) == TL_OK);
        positions[i] = end.position;
    }
    memset(disk->file[0].cached + positions[1], 0, positions[2] - positions[1]);
    memset(&words, 0, sizeof words);
    CHECK(tl_checkpoint_recover(&c, &err) == TL_OK && tl_checkpoint_tail(&c).position == positions[1]);
    tl_checkpoint_record again = {.key = "\4", .key_bytes = 1, .value = "four", .value_bytes = 4, .type = 5};
    CHECK(tl_checkpoint_append(&c, &again, 1, NULL, &err) == TL_OK);
    memset(&words, 0, sizeof words);
    CHECK(tl_checkpoint_recover(&c, &err) == TL_OK && tl_checkpoint_tail(&c).position == positions[2]);
    uint32_t counts[8] = {0};
    CHECK(tl_checkpoint_load(&c, counts, count_each, &err) == TL_OK);
    CHECK(counts[1] == 1 && counts[2] == 0 && counts[3] == 0 && memcmp(&counts[4], "four", 4) == 0);
}

int main(void) {
    pristine = malloc(sizeof *pristine);
    CHECK(pristine != NULL);
    check_flips(false, true);
    check_flips(true, true);
    check_flips(true, false);
    check_truncations(false);
    check_truncations(true);
    check_choice();
    check_stale_group();
    free(pristine);
    return check_report();
}
