/* What can still be known of a complete segment when its entry in the file of seals is damaged?
 *
 * Imports handles.h. Callable from any thread; makes system calls. The names of the segment files say where each begins, and
 * ordinals count them down from the active one. Length and counts are those of the trimmed files. What only the seal knew
 * (running header CRC, newest timestamp) stays unknown: readers need neither, `check` reports the entry. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

typedef struct names {
    int64_t *bases;
    size_t count, room;
    int64_t below;
    bool out_of_memory;
} names;

static int add_name(void *context, const char *name) {
    names *n = context;
    int64_t base = tl_segment_base_of_name(name);
    if (base < 0 || base >= n->below)
        return 0;
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 64 : 2 * n->room;
        int64_t *more = tl_os->realloc(n->bases, room * sizeof *more);
        if (more == NULL) {
            n->out_of_memory = true;
            return 1;
        }
        n->bases = more;
        n->room = room;
    }
    n->bases[n->count++] = base;
    return 0;
}

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static uint64_t file_bytes(tl_partition *partition, int64_t base, const char *suffix) {
    char path[360];
    tl_stat stat;
    tl_segment_path(partition, base, suffix, path);
    int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
    uint64_t bytes = fd >= 0 && tl_os->stat(fd, &stat) == 0 ? stat.size_bytes : 0;
    if (fd >= 0)
        tl_os->close(fd);
    return bytes;
}

static int list_below(tl_partition *partition, int64_t active_base, names *n, tl_error *err) {
    const char *directory = partition->cold->directory;
    memset(n, 0, sizeof *n);
    n->below = active_base;
    int fd = tl_os->open(partition->store->dir, directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the directory of a partition cannot be opened", directory);
    int status = tl_os->list(fd, n, add_name);
    tl_os->close(fd);
    if (n->out_of_memory)
        return tl_fail(err, TL_ENOMEM, "no memory to list segments", directory, -1);
    if (status < 0)
        return tl_fail_sys(err, status, "the directory of a partition cannot be listed", directory);
    if (n->count > 1)
        qsort(n->bases, n->count, sizeof *n->bases, descending);
    return TL_OK;
}

int tl_seals_guess(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err) {
    uint32_t active = tl_place_ordinal(tl_partition_tail(partition));
    int64_t active_base = 0;
    int status = tl_segment_base(partition, active, &active_base, err);
    if (status < 0 || ordinal >= active)
        return status < 0 ? status
                          : tl_fail(err, TL_ENOTFOUND, "a segment is not complete yet", partition->cold->directory, -1);
    names n;
    status = list_below(partition, active_base, &n, err);
    if (status == TL_OK && active - 1 - ordinal >= n.count)
        status = tl_fail(err, TL_ENOTFOUND, "a segment file is missing", partition->cold->directory, -1);
    if (status == TL_OK) {
        int64_t base = n.bases[active - 1 - ordinal];
        uint64_t bytes = file_bytes(partition, base, ".log");
        memset(out, 0, sizeof *out);
        out->base_offset = base;
        out->end_offset = -1;
        out->max_timestamp_ms = INT64_MAX; /* searches look into it */
        out->length = bytes > TL_MAX_SEGMENT_BYTES ? TL_MAX_SEGMENT_BYTES : (uint32_t)bytes;
        bytes = file_bytes(partition, base, ".index");
        out->index_entries = bytes > TL_INDEX_MAX_BYTES ? 0 : (uint32_t)bytes / TL_INDEX_ENTRY_BYTES;
        bytes = file_bytes(partition, base, ".timeindex");
        out->time_entries = bytes > TL_INDEX_TIME_MAX_BYTES ? 0 : (uint32_t)bytes / TL_INDEX_TIME_ENTRY_BYTES;
    }
    tl_os->free(n.bases);
    return status;
}
