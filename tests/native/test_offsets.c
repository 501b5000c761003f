/* Does the offset table do what an array of structs does?
 *
 * timeout_s: 120
 * Imports offsets_kit.h. Single-threaded; works in the current directory. Growth, full disks and failing calls are in
 * test_offsets_room.c, races and kills in test_offsets_race.c, damage in test_offsets_damage.c. */
#define _GNU_SOURCE 1
#include "offsets_kit.h"

/* --- opening, names, answers to wrong arguments --- */

static void check_open(void) {
    tl_offsets *t;
    unlink("offsets");
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_ENOTFOUND && t == NULL);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_READ_ONLY, &t, &err) == TL_ENOTFOUND);
    CHECK(access("offsets", F_OK) != 0);
    CHECK(tl_offsets_open(dir, 77, &t, &err) == TL_EINVAL);
    t = open_table(TL_OFFSETS_RESET);
    uint32_t g = group_of(t, "billing"), s = slot_of(t, g, 1, 0), other;
    CHECK(tl_offsets_set(t, s, 5, 6, false) == TL_OK);
    tl_offsets_close(t);
    tl_offsets_close(NULL);
    t = open_table(TL_OFFSETS_OPEN);
    tl_offset_word w;
    int64_t time_ms;
    CHECK(tl_offsets_group(t, "billing", 7, false, &other, &err) == TL_OK && other == g);
    CHECK(tl_offsets_read(t, s, &w, &time_ms) == TL_OK && w.offset == 5 && time_ms == 6);
    tl_offsets_close(t);
    /* A reset empties the table and keeps the file's blocks. */
    t = open_table(TL_OFFSETS_RESET);
    CHECK(tl_offsets_group(t, "billing", 7, false, &other, &err) == TL_ENOTFOUND);
    CHECK(tl_offsets_read(t, s, &w, NULL) == TL_EINVAL);
    s = slot_of(t, group_of(t, "billing"), 1, 0);
    CHECK(tl_offsets_read(t, s, &w, &time_ms) == TL_OK && w.offset == TL_OFFSETS_NONE && w.epoch == 0 &&
          w.owner == 0 && time_ms == 0);
    tl_offsets_close(t);
    /* A pipe, a directory or a link in the file's place: an error, and no waiting. */
    unlink("offsets");
    CHECK(mkfifo("offsets", 0600) == 0);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_ECORRUPT && strcmp(err.path, "offsets") == 0);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err) == TL_ECORRUPT);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_READ_ONLY, &t, &err) == TL_ECORRUPT);
    unlink("offsets");
    CHECK(mkdir("offsets", 0700) == 0);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err) == TL_EIO && err.sys_errno == EISDIR);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_READ_ONLY, &t, &err) == TL_ECORRUPT);
    CHECK(rmdir("offsets") == 0 && symlink("elsewhere", "offsets") == 0);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err) == TL_EIO && err.sys_errno == ELOOP);
    CHECK(access("elsewhere", F_OK) != 0);
    unlink("offsets");
}

static void check_names(void) {
    static const uint32_t lengths[] =
        {1, 2, 7, 8, 9, 239, 240, 241, 249, 479, 480, 481, 719, 720, 721, 960, 961, 1023, 1024};
    enum { COUNT = sizeof lengths / sizeof *lengths };
    char name[1100], back[TL_OFFSETS_MAX_GROUP_BYTES];
    uint32_t numbers[COUNT], g, cursor = 0, seen = 0;
    memset(name, 'n', sizeof name);
    tl_offsets *t = open_table(TL_OFFSETS_RESET);
    CHECK(tl_offsets_group(t, name, 0, true, &g, &err) == TL_EINVAL);
    CHECK(tl_offsets_group(t, name, 1025, true, &g, &err) == TL_EINVAL);
    for (int i = 0; i < COUNT; i++)
        CHECK(tl_offsets_group(t, name, lengths[i], true, &numbers[i], &err) == TL_OK);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            size_t bytes = 0;
            CHECK(tl_offsets_group(t, name, lengths[i], round == 0, &g, &err) == TL_OK && g == numbers[i]);
            CHECK(tl_offsets_group_name(t, g, back, &bytes, &err) == TL_OK && bytes == lengths[i]);
            CHECK(memcmp(back, name, bytes) == 0);
        }
        tl_offsets_close(t);
        t = open_table(TL_OFFSETS_OPEN);
    }
    for (; tl_offsets_next_group(t, &cursor, &g, &err) == 1; seen++)
        CHECK(seen < COUNT && g == numbers[seen]);
    CHECK(seen == COUNT);
    CHECK(tl_offsets_group(t, name, 3, false, &g, &err) == TL_ENOTFOUND);
    CHECK(tl_offsets_group(t, "a\0b", 3, true, &g, &err) == TL_OK); /* bytes, not text */
    CHECK(tl_offsets_group(t, "a\0c", 3, false, &g, &err) == TL_ENOTFOUND);
    tl_offsets_close(t);
}

static void check_arguments(void) {
    tl_offsets *t = open_table(TL_OFFSETS_RESET);
    uint32_t g = group_of(t, "g"), s = slot_of(t, g, 1, 0), epoch, x;
    uint8_t id[16];
    char long_name[700];
    tl_offset_word w;
    size_t bytes;
    memset(long_name, 'x', sizeof long_name);
    uint32_t with_overflow;
    CHECK(tl_offsets_group(t, long_name, sizeof long_name, true, &with_overflow, &err) == TL_OK);
    fill_id(id, 1);
    uint32_t wrong[] = {g, with_overflow + 1, with_overflow + 3, TL_OFFSETS_MAX_SLOTS, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(tl_offsets_read(t, wrong[i], &w, NULL) == TL_EINVAL);
        CHECK(tl_offsets_claim(t, wrong[i], (tl_offset_word){-1, 0, 0}, 1, &epoch) == TL_EINVAL);
        CHECK(tl_offsets_commit(t, wrong[i], 1, 1, 1, 1) == TL_EINVAL);
        CHECK(tl_offsets_release(t, wrong[i], 1, 1) == TL_EINVAL);
        CHECK(tl_offsets_set(t, wrong[i], 1, 1, true) == TL_EINVAL &&
              tl_offsets_advance(t, wrong[i], 1, 1) == TL_EINVAL);
        CHECK(tl_offsets_metadata(t, wrong[i], long_name, &bytes, &err) == TL_EINVAL);
        CHECK(tl_offsets_set_metadata(t, wrong[i], "x", 1, &err) == TL_EINVAL);
    }
    CHECK(tl_offsets_slot(t, s, id, 0, true, &x, &err) == TL_EINVAL &&
          tl_offsets_slot(t, UINT32_MAX, id, 0, true, &x, &err) == TL_EINVAL);
    CHECK(tl_offsets_group_name(t, s, long_name, &bytes, &err) == TL_EINVAL);
    CHECK(tl_offsets_claim(t, s, (tl_offset_word){-1, 0, 0}, 0, &epoch) == TL_EINVAL);
    CHECK(tl_offsets_commit(t, s, 0, 0, 1, 1) == TL_EINVAL && tl_offsets_release(t, s, 0, 0) == TL_EINVAL);
    CHECK(tl_offsets_set(t, s, -2, 1, true) == TL_EINVAL && tl_offsets_advance(t, s, -1, 1) == TL_EINVAL);
    /* An epoch at its end wraps; garbage in a word is data. */
    CHECK(tl_offsets_claim(t, s, (tl_offset_word){-1, 0, 0}, 7, &epoch) == TL_OK && epoch == 1);
    CHECK(tl_offsets_commit(t, s, 7, 1, -1, 1) == TL_EINVAL && tl_offsets_commit(t, s, 7, 1, INT64_MAX, 1) == TL_OK);
    CHECK(tl_offsets_set(t, s, 3, 1, false) == TL_EAGAIN && tl_offsets_set(t, s, 3, 1, true) == TL_OK);
    CHECK(tl_offsets_read(t, s, &w, NULL) == TL_OK && w.offset == 3 && w.epoch == 1 && w.owner == 7);
    CHECK(tl_offsets_inspect(t, s, &err) == TL_OK && tl_offsets_inspect(t, UINT32_MAX, &err) == TL_EINVAL);
    CHECK(tl_offsets_set_metadata(t, s, long_name, TL_OFFSETS_MAX_METADATA_BYTES + 1, &err) == TL_ETOOLARGE);
    tl_offsets_close(t);
    /* Looking changes nothing. */
    t = open_table(TL_OFFSETS_READ_ONLY);
    tl_offset_view view = {.slot = s};
    CHECK(tl_offsets_read(t, s, &w, NULL) == TL_OK && w.offset == 3);
    CHECK(tl_offsets_claim(t, s, w, 9, &epoch) == TL_EINVAL && tl_offsets_commit(t, s, 7, 1, 4, 4) == TL_EINVAL);
    CHECK(tl_offsets_release(t, s, 7, 1) == TL_EINVAL && tl_offsets_set(t, s, 1, 1, true) == TL_EINVAL);
    CHECK(tl_offsets_mark_saved(t, &view) == TL_EINVAL && tl_offsets_set_metadata(t, s, "x", 1, &err) == TL_EINVAL);
    CHECK(tl_offsets_group(t, "new", 3, true, &x, &err) == TL_EINVAL &&
          tl_offsets_slot(t, g, id, 5, true, &x, &err) == TL_EINVAL);
    CHECK(tl_offsets_forget_group(t, g, &err) == TL_EINVAL && tl_offsets_forget_channel(t, id, &err) == TL_EINVAL);
    tl_offsets_close(t);
}

/* --- the model: two handles on one file against plain arrays --- */

enum { GROUPS = 12, CHANNELS = 4, PARTITIONS = 3 };

typedef struct model_slot {
    bool known, changed_time;
    uint32_t slot, epoch, owner, metadata_bytes, metadata_saved;
    int64_t offset, time_ms, saved_offset, saved_time;
    uint64_t metadata_seed, saved_seed;
} model_slot;

static struct {
    bool known;
    uint32_t number;
    model_slot slots[CHANNELS][PARTITIONS];
} model[GROUPS];
static uint64_t model_random = 11;

static size_t model_name(uint32_t g, char *name) {
    size_t n = g % 3 == 0 ? 300 + g * 50 : 3 + g;
    memset(name, 'a' + (int)g, n);
    return n;
}

static void text_of(uint64_t seed, uint8_t *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        text[i] = (uint8_t)check_random(&seed);
}

static void model_check_slot(tl_offsets *t, const model_slot *m) {
    tl_offset_word w;
    int64_t time_ms;
    uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES], expected[TL_OFFSETS_MAX_METADATA_BYTES];
    size_t bytes;
    CHECK(tl_offsets_read(t, m->slot, &w, &time_ms) == TL_OK);
    CHECK(w.offset == m->offset && w.epoch == m->epoch && w.owner == m->owner && time_ms == m->time_ms);
    CHECK(tl_offsets_metadata(t, m->slot, text, &bytes, &err) == TL_OK && bytes == m->metadata_bytes);
    text_of(m->metadata_seed, expected, bytes);
    CHECK(memcmp(text, expected, bytes) == 0);
}

static bool model_changed(const model_slot *m) {
    return m->offset != m->saved_offset || m->time_ms != m->saved_time || m->metadata_seed != m->saved_seed;
}

/* Every live slot once, the changed ones again, in slot order; nothing else. */
static void model_check_iteration(tl_offsets *t, bool save) {
    for (int changed = 0; changed < 2; changed++) {
        uint32_t cursor = 0, yielded = 0, expected = 0;
        tl_offset_view v;
        for (;;) {
            int rc = changed ? tl_offsets_changed(t, &cursor, &v, &err) : tl_offsets_next(t, &cursor, &v, &err);
            if (rc == 0)
                break;
            CHECK(rc == 1);
            model_slot *m = NULL;
            for (uint32_t g = 0; g < GROUPS; g++)
                for (uint32_t c = 0; c < CHANNELS; c++)
                    for (uint32_t p = 0; p < PARTITIONS; p++) {
                        uint8_t id[16];
                        fill_id(id, c);
                        if (model[g].known && model[g].slots[c][p].known && model[g].number == v.group &&
                            p == v.partition &&
                            memcmp(id, v.channel_id, 16) == 0)
                            m = &model[g].slots[c][p];
                    }
            CHECK(m != NULL && m->slot == v.slot && v.word.offset == m->offset && v.time_ms == m->time_ms);
            CHECK(!changed || model_changed(m));
            yielded++;
            if (changed && save) {
                CHECK(tl_offsets_mark_saved(t, &v) == TL_OK);
                m->saved_offset = m->offset;
                m->saved_time = m->time_ms;
                m->saved_seed = m->metadata_seed;
                yielded--;
            }
        }
        for (uint32_t g = 0; g < GROUPS; g++)
            for (uint32_t i = 0; i < CHANNELS * PARTITIONS; i++) {
                const model_slot *m = &model[g].slots[i / PARTITIONS][i % PARTITIONS];
                expected += model[g].known && m->known && (!changed || model_changed(m));
            }
        CHECK(yielded == expected);
    }
}

static void model_step(tl_offsets *t, int64_t now) {
    uint32_t g = (uint32_t)(check_random(&model_random) % GROUPS),
        c = (uint32_t)(check_random(&model_random) % CHANNELS);
    uint32_t p = (uint32_t)(check_random(&model_random) % PARTITIONS), number, slot, epoch;
    char name[TL_OFFSETS_MAX_GROUP_BYTES];
    uint8_t id[16], text[TL_OFFSETS_MAX_METADATA_BYTES];
    bool create = check_random(&model_random) % 2;
    size_t name_bytes = model_name(g, name);
    int rc = tl_offsets_group(t, name, name_bytes, create, &number, &err);
    fill_id(id, c);
    if (!model[g].known && !create) {
        CHECK(rc == TL_ENOTFOUND);
        return;
    }
    CHECK(rc == TL_OK);
    if (!model[g].known) {
        memset(&model[g], 0, sizeof model[g]);
        model[g].known = true;
        model[g].number = number;
    }
    CHECK(number == model[g].number);
    model_slot *m = &model[g].slots[c][p];
    rc = tl_offsets_slot(t, number, id, p, create, &slot, &err);
    if (!m->known && !create) {
        CHECK(rc == TL_ENOTFOUND);
        return;
    }
    CHECK(rc == TL_OK);
    if (!m->known)
        *m = (model_slot){.known = true, .slot = slot, .offset = TL_OFFSETS_NONE, .saved_offset = TL_OFFSETS_NONE};
    CHECK(slot == m->slot);
    int64_t offset = (int64_t)(check_random(&model_random) >> 1);
    uint32_t owner = (uint32_t)(check_random(&model_random) % 5 + 1);
    if (m->owner != 0 && check_random(&model_random) % 4 != 0)
        owner = m->owner;
    uint32_t by_epoch = check_random(&model_random) % 5 != 0 ? m->epoch : m->epoch - 1;
    bool mine = owner == m->owner && by_epoch == m->epoch;
    switch (check_random(&model_random) % 12) {
    case 0:
        CHECK(tl_offsets_claim(t, slot, (tl_offset_word){m->offset, m->epoch, m->owner}, owner, &epoch) == TL_OK);
        CHECK(epoch == m->epoch + 1);
        m->epoch = epoch;
        m->owner = owner;
        break;
    case 1: {
        tl_offset_word wrong = {m->offset, m->epoch, m->owner};
        uint64_t which = check_random(&model_random) % 3;
        wrong.offset ^= which == 0;
        wrong.epoch ^= which == 1;
        wrong.owner ^= which == 2;
        CHECK(tl_offsets_claim(t, slot, wrong, owner, &epoch) == TL_EAGAIN);
        break;
    }
    case 2:
        CHECK(tl_offsets_release(t, slot, owner, by_epoch) == (mine ? TL_OK : TL_EFENCED));
        m->owner = mine ? 0 : m->owner;
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        CHECK(tl_offsets_commit(t, slot, owner, by_epoch, offset, now) == (mine ? TL_OK : TL_EFENCED));
        if (mine) {
            m->offset = offset;
            m->time_ms = now;
        }
        break;
    case 7: {
        bool force = check_random(&model_random) % 2, refused = m->owner != 0 && !force;
        offset = check_random(&model_random) % 4 == 0 ? TL_OFFSETS_NONE : offset;
        CHECK(tl_offsets_set(t, slot, offset, now, force) == (refused ? TL_EAGAIN : TL_OK));
        if (!refused) {
            m->offset = offset;
            m->time_ms = now;
        }
        break;
    }
    case 8:
        CHECK(tl_offsets_advance(t, slot, offset, now) == TL_OK);
        if (offset > m->offset) {
            m->offset = offset;
            m->time_ms = now;
        }
        break;
    case 9:
    case 10: {
        uint64_t kind = check_random(&model_random) % 4;
        static const uint32_t below[] = {2, 60, 500, TL_OFFSETS_MAX_METADATA_BYTES + 1};
        m->metadata_bytes = (uint32_t)(check_random(&model_random) % below[kind]);
        m->metadata_seed = check_random(&model_random) | 1;
        text_of(m->metadata_seed, text, m->metadata_bytes);
        uint8_t before[TL_OFFSETS_MAX_METADATA_BYTES];
        size_t bytes;
        CHECK(tl_offsets_metadata(t, slot, before, &bytes, &err) == TL_OK);
        bool same = bytes == m->metadata_bytes && memcmp(before, text, bytes) == 0;
        CHECK(tl_offsets_set_metadata(t, slot, text, m->metadata_bytes, &err) == TL_OK);
        if (same) /* nothing is stored, so nothing is a change either: the model cannot tell two empty texts apart */
            m->metadata_seed = m->saved_seed = m->saved_seed != 0 || bytes != 0 ? m->metadata_seed : 0;
        if (same) {
            tl_offset_view v = {.slot = slot, .word = {m->offset, 0, 0}, .time_ms = m->time_ms};
            uint32_t cursor = slot;
            CHECK(tl_offsets_next(t, &cursor, &v, &err) == 1 && v.slot == slot &&
                  tl_offsets_mark_saved(t, &v) == TL_OK);
            m->saved_offset = m->offset;
            m->saved_time = m->time_ms;
        }
        break;
    }
    default:
        if (check_random(&model_random) % 40 == 0) {
            CHECK(tl_offsets_forget_group(t, number, &err) == TL_OK);
            CHECK(tl_offsets_commit(t, slot, owner, m->epoch, 1, 1) == TL_EDROPPED);
            CHECK(tl_offsets_slot(t, number, id, p, true, &slot, &err) == TL_EDROPPED);
            CHECK(tl_offsets_inspect(t, number, &err) == TL_EDROPPED);
            CHECK(tl_offsets_forget_group(t, number, &err) == TL_OK);
            memset(&model[g], 0, sizeof model[g]);
            return;
        }
        if (check_random(&model_random) % 60 == 0) {
            CHECK(tl_offsets_forget_channel(t, id, &err) == TL_OK);
            for (uint32_t i = 0; i < GROUPS; i++)
                memset(model[i].slots[c], 0, sizeof model[i].slots[c]);
            return;
        }
    }
    model_check_slot(t, m);
}

static void check_model(void) {
    tl_offsets *handles[2];
    memset(model, 0, sizeof model);
    handles[0] = open_table(TL_OFFSETS_RESET);
    handles[1] = open_table(TL_OFFSETS_OPEN);
    for (int i = 0; i < 60000; i++) {
        model_step(handles[check_random(&model_random) % 2], 1000 + i / 3);
        if (i % 500 == 0)
            model_check_iteration(handles[i / 500 % 2], i / 500 % 3 == 0);
        if (i % 7000 == 0) {
            tl_offsets_close(handles[1]);
            handles[1] = open_table(TL_OFFSETS_OPEN);
        }
    }
    for (uint32_t g = 0; g < GROUPS; g++)
        for (uint32_t k = 0; k < CHANNELS * PARTITIONS; k++)
            if (model[g].slots[k / PARTITIONS][k % PARTITIONS].known)
                for (int h = 0; h < 2; h++)
                    model_check_slot(handles[h], &model[g].slots[k / PARTITIONS][k % PARTITIONS]);
    tl_offsets_close(handles[0]);
    tl_offsets_close(handles[1]);
    tl_offsets_report report;
    CHECK(tl_offsets_check(dir, NULL, NULL, &report, &err) == TL_OK && report.problems == 0);
    CHECK(report.groups > 0 && report.offsets > 0 && report.overflow > 0 && report.forgotten > 0);
    CHECK(report.slots >= report.groups + report.offsets + report.overflow);
}

int main(void) {
    dir = open(".", O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0);
    check_open();
    check_names();
    check_arguments();
    check_model();
    close(dir);
    return check_report();
}
