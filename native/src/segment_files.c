/* Which files of its segments does a partition have, and when are their names on the disk?
 *
 * Imports handles.h. Callable from any thread; makes system calls. A file is named by the base offset of its segment, and
 * other files stand in the same directory: a name that is not 20 digits and the suffix asked for is passed over. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

const char *const tl_segment_suffixes[TL_SEGMENT_SUFFIXES] = {".log", ".index", ".timeindex", ".txnindex", ".producers"};

typedef struct listing {
    tl_segment_files *files;
    const char *suffix;
    bool out_of_memory;
} listing;

/* Of "<20 digits>..."; -1: another file. */
static int64_t base_of(const char *name) {
    int64_t base = 0;
    for (int i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9' || base > (INT64_MAX - 9) / 10)
            return -1;
        base = base * 10 + (name[i] - '0');
    }
    return base;
}

static int add_file(void *context, const char *name) {
    listing *l = context;
    tl_segment_files *files = l->files;
    if (strcmp(name, TL_FAILED_FILE) == 0)
        files->failed_marker = true;
    int64_t base = base_of(name);
    if (base < 0 || strcmp(name + 20, l->suffix) != 0)
        return 0;
    if (files->count == files->room) {
        size_t room = files->room == 0 ? 16 : 2 * files->room;
        int64_t *more = tl_os->realloc(files->bases, room * sizeof *more);
        if (more == NULL) {
            l->out_of_memory = true;
            return 1;
        }
        files->bases = more;
        files->room = room;
    }
    files->bases[files->count++] = base;
    return 0;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int tl_segment_list(tl_partition *partition, const char *suffix, tl_segment_files *out, tl_error *err) {
    const char *directory = partition->cold->directory;
    listing l = {.files = out, .suffix = suffix};
    memset(out, 0, sizeof *out);
    int fd = tl_os->open(partition->store->dir, directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOENT)
        return TL_OK;
    if (fd < 0)
        return tl_fail_sys(err, fd, "the directory of a partition cannot be opened", directory);
    int status = tl_os->list(fd, &l, add_file);
    tl_os->close(fd);
    if (status >= 0 && !l.out_of_memory) {
        if (out->count > 1)
            qsort(out->bases, out->count, sizeof *out->bases, by_value);
        return TL_OK;
    }
    tl_os->free(out->bases);
    memset(out, 0, sizeof *out);
    return status < 0 ? tl_fail_sys(err, status, "the directory of a partition cannot be listed", directory)
                      : tl_fail(err, TL_ENOMEM, "no memory to list the files of a partition", directory, -1);
}

typedef struct sweeping {
    tl_partition *partition;
    int64_t first_base;
} sweeping;

static int remove_if_left(void *context, const char *name) {
    const sweeping *s = context;
    int64_t base = base_of(name);
    for (size_t i = 0; base >= 0 && i < TL_SEGMENT_SUFFIXES; i++) {
        size_t bytes = strlen(tl_segment_suffixes[i]);
        if (strncmp(name + 20, tl_segment_suffixes[i], bytes) != 0)
            continue;
        const char *rest = name + 20 + bytes;
        if (strcmp(rest, ".deleted") != 0 && (*rest != 0 || base >= s->first_base))
            continue;
        char path[360];
        tl_segment_path(s->partition, base, name + 20, path);
        (void)tl_os->unlink(s->partition->store->dir, path, false);
    }
    return 0;
}

/* Files below the first segment kept, and those that were renamed already. Another one may be at work on the same files: whoever
 * comes second finds them gone. What fails is left to the next deleter. */
void tl_segment_sweep(tl_partition *partition) {
    sweeping s = {.partition = partition, .first_base = __atomic_load_n(&partition->hot->first_base, __ATOMIC_ACQUIRE)};
    int fd = tl_os->open(partition->store->dir, partition->cold->directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return;
    (void)tl_os->list(fd, &s, remove_if_left);
    tl_os->close(fd);
    TL_POINT("retain.swept");
}

int tl_segment_sync_names(tl_partition *partition) {
    int fd = tl_os->open(partition->store->dir, partition->cold->directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int status = tl_os->fsync(fd);
    tl_os->close(fd);
    return status;
}
