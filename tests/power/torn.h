/* Is every byte that a recovery cut off a segment still to be found?
 *
 * Imports run.h, states.h. Single-threaded. */
#ifndef TIDELOG_POWER_TORN_H
#define TIDELOG_POWER_TORN_H

#include "run.h"
#include "states.h"

/* Segments as the cut left them: what is not part of the log afterwards must be found in .torn files. */
typedef struct kept_segment {
    char directory[16], name[32];
    uint8_t *bytes;
    uint32_t used;
} kept_segment;
static kept_segment kept[64];
static int kept_count;

static void keep_segments(disk *d) {
    for (int i = 0; i < kept_count; i++)
        free(kept[i].bytes);
    kept_count = 0;
    for (size_t i = 0; i < d->name_count; i++) {
        const entry *e = &d->names[i];
        size_t length = strlen(e->name);
        if (length != 24 || strcmp(e->name + 20, ".log") != 0 || kept_count == 64)
            continue;
        for (size_t k = 0; k < d->name_count; k++) {
            if (d->names[k].child != e->parent || strncmp(d->names[k].name, "orders-", 7) != 0)
                continue;
            kept_segment *s = &kept[kept_count++];
            memset(s, 0, sizeof *s);
            memcpy(s->directory, d->names[k].name, sizeof s->directory);
            memcpy(s->name, e->name, length);
            uint32_t used = d->inodes[e->child].filled;
            while (used > 0 && bytes_of(d, e->child)[used - 1] == 0)
                used--;
            s->used = used;
            s->bytes = malloc(used + 1);
            memcpy(s->bytes, bytes_of(d, e->child), used);
        }
    }
}

static bool found_in_torn(int directory, const kept_segment *s, uint32_t same) {
    for (size_t i = 0; i < now->name_count; i++) {
        const entry *e = &now->names[i];
        if (e->parent != directory || strncmp(e->name, s->name, 24) != 0 || strncmp(e->name + 24, ".torn", 5) != 0)
            continue;
        uint32_t from = e->name[29] == '-' ? (uint32_t)strtoul(e->name + 30, NULL, 10) : 0;
        if (from <= same && from <= s->used && now->inodes[e->child].size >= s->used - from &&
            memcmp(bytes_of(now, e->child), s->bytes + from, s->used - from) == 0)
            return true;
    }
    return false;
}

static void verify_torn(void) {
    for (int i = 0; i < kept_count; i++) {
        const kept_segment *s = &kept[i];
        const part *p = NULL;
        for (int k = 0; k < told.part_count; k++)
            if (told.parts[k].existence == LIVE && strcmp(told.parts[k].directory, s->directory) == 0)
                p = &told.parts[k];
        int store_at = find_in(now->names, now->name_count, ROOT, "store");
        int at = p == NULL || store_at < 0
                     ? -1
                     : find_in(now->names, now->name_count, now->names[store_at].child, s->directory);
        if (at < 0)
            continue;
        int directory = now->names[at].child, file = find_in(now->names, now->name_count, directory, s->name);
        uint32_t same = 0;
        if (file >= 0)
            while (same < s->used && bytes_of(now, now->names[file].child)[same] == s->bytes[same])
                same++;
        if (same == s->used || found_in_torn(directory, s, same))
            continue;
        if (file < 0 && strtoll(s->name, NULL, 10) < p->start)
            continue; /* deleted by a trim */
        violated("%s/%s: bytes from %u to %u were cut and are in no .torn file", s->directory, s->name, same, s->used);
    }
}

#endif
