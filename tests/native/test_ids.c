/* Is a message id a duplicate exactly when a plain list of the last ids says so, whatever is trimmed or opened again?
 *
 * timeout_s: 240
 * Imports ids_kit.h. Every answer of a store is compared with the list, which learns from the answers. */
#define _GNU_SOURCE 1
#include "ids_kit.h"

/* The base offset of the oldest segment that is kept. */
static int64_t oldest(const kit_ids *f) {
    char path[260];
    int64_t base = INT64_MAX;
    snprintf(path, sizeof path, "%s/orders-0", f->path);
    DIR *directory = opendir(path);
    for (struct dirent *entry = directory == NULL ? NULL : readdir(directory); entry != NULL; entry = readdir(directory)) {
        char *rest = NULL;
        long long number = strtoll(entry->d_name, &rest, 10);
        if (strcmp(rest, ".log") == 0 && number < base)
            base = number;
    }
    if (directory != NULL)
        closedir(directory);
    return base;
}

/* Sends and compares every answer with the oracle, which learns from them. */
static void send_checked(kit_ids *f, kit_sent *s, unsigned flags) {
    tl_appended result;
    for (int64_t base = f->learns ? oldest(f) : 0; f->o.gone < f->o.count && f->o.list[f->o.gone].offset < base;)
        f->o.gone++;
    f->learns = false;
    int status = kit_sent_send(f, s, flags, &result);
    if (status == TL_EAGAIN && (flags & TL_APPEND_TRY) != 0)
        status = kit_sent_send(f, s, flags & ~(unsigned)TL_APPEND_TRY, &result);
    CHECK(status == TL_OK);
    size_t duplicates = 0;
    for (size_t i = 0; i < s->count; i++) {
        int64_t wanted = s->name[i] == 0 ? -1 : kit_oracle_find(&f->o, s->name[i], kit_clock_ms);
        if (s->duplicate[i] != (wanted >= 0) || (wanted >= 0 && s->offset[i] != wanted))
            REFUSE("id %u, message %zu of %zu: answered %d at %lld, the list says %lld (log end %lld, %zu ids)", s->name[i], i,
                   s->count, s->duplicate[i], (long long)s->offset[i], (long long)wanted, (long long)f->end, f->o.count);
        duplicates += s->duplicate[i];
        if (wanted >= 0) {
            CHECK(s->offset[i] == wanted);
            continue;
        }
        CHECK(s->offset[i] == f->end);
        if (s->name[i] != 0)
            kit_oracle_note(&f->o, s->name[i], f->end, kit_clock_ms);
        f->end++;
    }
    CHECK(result.duplicates == duplicates && result.answered == s->count && result.base_offset == s->offset[0]);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(f->partition, &bounds, &kit_error) == TL_OK && bounds.log_end == f->end && bounds.tail == result.tail);
}

/* The same messages past the checks: their ids count. */
static void send_unlooked(kit_ids *f, kit_sent *s) {
    tl_appended result;
    const tl_append what = {.messages = s->message, .count = s->count};
    CHECK(tl_partition_append(f->partition, &what, 0, &result, &kit_error) == TL_OK && result.base_offset == f->end);
    for (size_t i = 0; i < s->count; i++, f->end++)
        if (s->name[i] != 0)
            kit_oracle_note(&f->o, s->name[i], f->end, kit_clock_ms);
}

static void restart(kit_ids *f) {
    kit_ids_close(f);
    if (kit_below(2) == 0)
        kit_boot++; /* the machine was started anew: nothing of the old window may be believed */
    kit_ids_open(f);
    kit_ids_enter(f);
    f->learns = true;
}

static void check_store(uint32_t window, int64_t age_ms, uint32_t names, uint32_t steps, uint32_t segment_bytes) {
    kit_ids f = kit_ids_begin(window, age_ms, segment_bytes);
    for (uint32_t step = 0; step < steps; step++) {
        kit_sent s = {.count = 0};
        uint32_t kind = kit_below(100), count = kit_below(10) == 0 ? 1 + kit_below(KIT_MOST) : 1 + kit_below(3);
        kit_clock_ms += kit_below(12) == 0 ? (int64_t)kit_below((uint32_t)age_ms / 2) : kit_below(3);
        for (uint32_t i = 0; i < count; i++)
            kit_sent_add(&f, &s, kit_below(8) == 0 ? 0 : 1 + kit_below(names));
        if (kind < 70)
            send_checked(&f, &s, kind < 30 ? TL_APPEND_TRY : kind < 60 ? 0 : TL_APPEND_THROUGH_FILE);
        else if (kind < 85)
            send_unlooked(&f, &s);
        else if (kind < 95) {
            tl_appended result;
            const tl_message plain = {.value = (const uint8_t *)"p", .value_bytes = 1, .key_bytes = -1, .timestamp_ms = kit_now_ms()};
            CHECK(tl_partition_append_one(f.partition, &plain, 0, &result, &kit_error) == TL_OK && result.base_offset == f.end++);
        } else if (kind < 97) {
            tl_bounds bounds;
            CHECK(tl_partition_bounds(f.partition, &bounds, &kit_error) == TL_OK);
            CHECK(tl_partition_trim(f.partition, bounds.log_start + (bounds.log_end - bounds.log_start) / 3, &kit_error) == TL_OK);
        } else if (kind < 99) {
            restart(&f);
        }
    }
    kit_ids_end(&f);
}

int main(void) {
    kit_ids_install();
    check_store(5, 1000, 12, 3000, 1 << 20);
    check_store(200, 60000, 300, 4000, 1 << 14);
    return check_report();
}
