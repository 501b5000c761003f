/* How does a file of a partition come to be, get mapped and go?
 *
 * Imports handles.h. Writers' segments belong to whoever holds the partition's lock; readers' are reference-counted and
 * cached under the partition's mutex. A file is allocated before it is mapped (a store into a hole on a full disk is a
 * signal) and mapped once over its whole future length: growing (growth.c) needs no new map. */
#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

void tl_segment_path(const tl_partition *partition, int64_t base_offset, const char *suffix, char out[360]) {
    snprintf(out, 360, "%s/%020lld%s", partition->cold->directory, (long long)base_offset, suffix);
}

/* A batch may be larger than a segment: such a segment holds it alone. Positions stay below 2^31. */
static size_t address_space(const tl_partition *partition, uint64_t file_bytes) {
    uint64_t bytes = __atomic_load_n(&partition->cold->segment_bytes, __ATOMIC_RELAXED);
    bytes += (uint64_t)__atomic_load_n(&partition->cold->max_message_bytes, __ATOMIC_RELAXED) + (2u << 20);
    if (bytes < file_bytes)
        bytes = file_bytes;
    if (bytes > 0x80000000u)
        bytes = 0x80000000u;
    return (size_t)tl_page_up(bytes);
}

static tl_segment *segment_new(tl_partition *partition, uint32_t ordinal, int64_t base_offset, bool writable) {
    tl_segment *segment = tl_calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->partition = partition;
    segment->refs = 1;
    segment->ordinal = ordinal;
    segment->base_offset = base_offset;
    segment->writable = writable;
    segment->fd = -1;
    __atomic_fetch_add(&partition->store->mapped_segments, 1, __ATOMIC_RELAXED);
    return segment;
}

void tl_segment_drop_descriptor(tl_store *store, tl_segment *segment) {
    if (segment->fd >= 0) {
        tl_os->close(segment->fd);
        segment->fd = -1;
        __atomic_fetch_sub(&store->open_descriptors, 1, __ATOMIC_RELAXED);
    }
}

void tl_segment_release(tl_store *store, tl_segment *segment) {
    if (segment == NULL || __atomic_sub_fetch(&segment->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (segment->lender != NULL)
        tl_segment_release(store, segment->lender);
    else if (segment->map != NULL)
        tl_os->unmap(segment->map, segment->map_bytes);
    if (segment->offset_map != NULL)
        tl_os->unmap(segment->offset_map, segment->offset_bytes);
    if (segment->time_map != NULL)
        tl_os->unmap(segment->time_map, segment->time_bytes);
    tl_segment_drop_descriptor(store, segment);
    __atomic_fetch_sub(&store->mapped_segments, 1, __ATOMIC_RELAXED);
    tl_os->free(segment);
}

/* Keeps `fd` for later while few are open, else closes it. */
static void keep_descriptor(tl_store *store, tl_segment *segment, int fd) {
    if (__atomic_add_fetch(&store->open_descriptors, 1, __ATOMIC_RELAXED) <= TL_MAX_OPEN_SEGMENTS) {
        segment->fd = fd;
        return;
    }
    __atomic_fetch_sub(&store->open_descriptors, 1, __ATOMIC_RELAXED);
    tl_os->close(fd);
}

/* The caller closes *fd unless it is segment->fd. An error of a background write is reported to a descriptor that is
 * opened later too, as long as nobody has seen it and the inode is in memory, which our map ensures. */
int tl_segment_descriptor(tl_partition *partition, tl_segment *segment, int *fd, tl_error *err) {
    *fd = segment->fd;
    if (*fd >= 0)
        return TL_OK;
    char path[360];
    tl_segment_path(partition, segment->base_offset, ".log", path);
    *fd = tl_os->open(partition->store->dir, path, O_RDWR, 0);
    if (*fd < 0)
        return tl_fail_sys(err, *fd, "a segment file cannot be opened", path);
    return TL_OK;
}

static int map_whole(tl_partition *partition, tl_segment *segment, int fd, uint64_t file_bytes, const char *path,
                     tl_error *err) {
    segment->map_bytes = address_space(partition, file_bytes);
    void *at = NULL;
    int status = tl_os->map(fd, 0, segment->map_bytes, segment->writable, &at);
    if (status < 0)
        return tl_fail_sys(err, status, "a segment file cannot be mapped", path);
    segment->map = at;
    return TL_OK;
}

static int make_directory(tl_partition *partition, tl_error *err) {
    int status = tl_os->mkdir(partition->store->dir, partition->cold->directory, TL_DIRECTORY_MODE);
    if (status < 0 && status != -EEXIST)
        return tl_fail_sys(err, status, "the directory of a partition cannot be made", partition->cold->directory);
    return TL_OK;
}

/* Nothing is written to a segment before the tail points into it, so a file that holds nothing was left by a roll that
 * did not get so far (and whose unlink failed too). */
static bool is_blank(int fd) {
    uint8_t header[TL_BATCH_HEADER_BYTES], none[TL_BATCH_HEADER_BYTES] = {0};
    int64_t got = tl_os->pread(fd, header, sizeof header, 0);
    return got >= 0 && memcmp(header, none, (size_t)got) == 0 && !TL_BUG(STRAY_SEGMENT_KEPT);
}

int tl_segment_create(tl_partition *partition, uint32_t ordinal, int64_t base_offset, tl_segment **out, tl_error *err) {
    tl_store *store = partition->store;
    char path[360], temporary[360];
    tl_segment_path(partition, base_offset, ".log", path);
    tl_segment_path(partition, base_offset, ".log.new", temporary);
    tl_segment *segment = segment_new(partition, ordinal, base_offset, true);
    if (segment == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for a segment", path, -1);
    int fd = -1, status = TL_OK;
    if (ordinal == 0 && (status = make_directory(partition, err)) < 0)
        goto failed;
    fd = tl_os->open(store->dir, path, O_RDONLY, 0);
    if (fd >= 0) {
        bool blank = is_blank(fd);
        tl_os->close(fd);
        fd = -1;
        if (!blank) {
            status = tl_fail(err, TL_ECORRUPT, "a file stands where the next segment must go", path, -1);
            goto failed;
        }
    }
    /* Never an old file emptied: until the new length is on the disk, a power cut brings back what stood in it. */
    (void)tl_os->unlink(store->dir, temporary, false);
    fd = tl_os->open(store->dir, temporary, O_RDWR | O_CREAT | O_EXCL, TL_FILE_MODE);
    if (fd == -ENOENT && (status = make_directory(partition, err)) == TL_OK)
        fd = tl_os->open(store->dir, temporary, O_RDWR | O_CREAT | O_EXCL, TL_FILE_MODE);
    if (fd < 0) {
        status = tl_fail_sys(err, fd, "a segment file cannot be created", temporary);
        goto failed;
    }
    uint32_t limit = __atomic_load_n(&partition->cold->segment_bytes, __ATOMIC_RELAXED);
    uint32_t first = limit < TL_CHUNK_FIRST ? (uint32_t)tl_page_up(limit) : TL_CHUNK_FIRST;
    status = tl_os->fallocate(fd, 0, first);
    if (status < 0) {
        status = tl_fail_sys(err, status, "no space can be allocated for a segment", temporary);
        tl_os->unlink(store->dir, temporary, false);
        goto failed;
    }
    TL_POINT("segment.allocated");
    segment->allocated = first;
    status = map_whole(partition, segment, fd, first, path, err);
    if (status < 0) {
        tl_os->unlink(store->dir, temporary, false);
        goto failed;
    }
    status = tl_os->rename(store->dir, temporary, store->dir, path);
    if (status < 0) {
        status = tl_fail_sys(err, status, "a segment file cannot be renamed into place", path);
        tl_os->unlink(store->dir, temporary, false);
        goto failed;
    }
    TL_POINT("segment.named");
    keep_descriptor(store, segment, fd);
    *out = segment;
    return TL_OK;
failed:
    if (fd >= 0)
        tl_os->close(fd);
    tl_segment_release(store, segment);
    return status;
}

static int open_existing(tl_partition *partition, uint32_t ordinal, int64_t base_offset, bool writable,
                         tl_segment **out, tl_error *err) {
    tl_store *store = partition->store;
    char path[360];
    tl_segment_path(partition, base_offset, ".log", path);
    int fd = tl_os->open(store->dir, path, writable ? O_RDWR : O_RDONLY, 0);
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "a segment file is missing", path, -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "a segment file cannot be opened", path);
    tl_stat stat;
    int status = tl_os->stat(fd, &stat);
    tl_segment *segment = NULL;
    if (status < 0) {
        status = tl_fail_sys(err, status, "a segment file cannot be looked at", path);
    } else if (stat.size_bytes > TL_MAX_SEGMENT_BYTES) {
        status = tl_fail(err, TL_ECORRUPT, "a segment file is larger than 2 GiB", path, (int64_t)stat.size_bytes);
    } else if ((segment = segment_new(partition, ordinal, base_offset, writable)) == NULL) {
        status = tl_fail(err, TL_ENOMEM, "no memory for a segment", path, -1);
    } else {
        /* A crash may have left a size that is not ours to trust beyond whole pages: growing starts from there. */
        segment->allocated = (uint32_t)(stat.size_bytes / TL_PAGE * TL_PAGE);
        segment->found_bytes = (uint32_t)stat.size_bytes;
        status = map_whole(partition, segment, fd, stat.size_bytes, path, err);
    }
    if (status < 0) {
        tl_os->close(fd);
        tl_segment_release(store, segment);
        return status;
    }
    if (writable)
        keep_descriptor(store, segment, fd);
    else
        tl_os->close(fd);
    *out = segment;
    return TL_OK;
}

int tl_segment_open_writer(tl_partition *partition, uint32_t ordinal, int64_t base_offset, tl_segment **out,
                           tl_error *err) {
    return open_existing(partition, ordinal, base_offset, true, out, err);
}

/* --- readers --- */

static void shed_if_many(tl_partition *partition) {
    tl_store *store = partition->store;
    if (__atomic_load_n(&store->mapped_segments, __ATOMIC_RELAXED) < TL_MAX_MAPPED_SEGMENTS)
        return;
    pthread_mutex_lock(&store->mutex);
    for (uint32_t slot = 0; slot < store->table_size; slot++) {
        tl_partition *other = store->table[slot];
        if (other == NULL || other == partition)
            continue;
        if (tl_lock_try(&other->hot->lock, store->me)) { /* a busy partition keeps its map */
            tl_segment *writer = other->writer;
            other->writer = NULL;
            tl_lock_release(&other->hot->lock, store->me);
            tl_segment_release(store, writer);
        }
        tl_partition_forget_segments(other, UINT32_MAX);
    }
    pthread_mutex_unlock(&store->mutex);
}

void tl_partition_forget_segments(tl_partition *partition, uint32_t below_ordinal) {
    tl_segment *dropped[TL_SEGMENT_CACHE + 1];
    int count = 0;
    pthread_mutex_lock(&partition->mutex);
    if (partition->lending != NULL && partition->lending->ordinal < below_ordinal) {
        dropped[count++] = partition->lending;
        partition->lending = NULL;
    }
    for (int i = 0; i < TL_SEGMENT_CACHE; i++) {
        if (partition->readers[i] != NULL && partition->readers[i]->ordinal < below_ordinal) {
            dropped[count++] = partition->readers[i];
            partition->readers[i] = NULL;
        }
    }
    pthread_mutex_unlock(&partition->mutex);
    for (int i = 0; i < count; i++)
        tl_segment_release(partition->store, dropped[i]);
}

/* The base offset of a segment: of the active one from the shared words, of the others from their seals. */
int tl_segment_base(tl_partition *partition, uint32_t ordinal, int64_t *base, tl_error *err) {
    tl_hot *hot = partition->hot;
    for (int tries = 0; tries < 100; tries++) {
        uint32_t active = tl_place_ordinal(__atomic_load_n(&hot->tail, __ATOMIC_ACQUIRE));
        if (ordinal > active)
            return tl_fail(err, TL_ENOTFOUND, "there is no such segment yet", partition->cold->directory, -1);
        if (ordinal != active)
            break;
        TL_BETWEEN();
        int64_t found = (int64_t)__atomic_load_n(&hot->active_base[ordinal & 1], __ATOMIC_ACQUIRE);
        uint32_t again = tl_place_ordinal(__atomic_load_n(&hot->tail, __ATOMIC_ACQUIRE));
        if (again == ordinal) { /* the roll to ordinal + 2 rewrites its half before the tail says so */
            *base = found;
            return TL_OK;
        }
    }
    tl_seal seal;
    int status = tl_seals_get(partition, ordinal, &seal, err);
    if (status == TL_OK)
        *base = seal.base_offset;
    return status;
}

/* What a process writes it has in memory: to fault the same pages in once more for its readers would cost half of a read. */
void tl_segment_lend(tl_partition *partition) {
    __atomic_fetch_add(&partition->writer->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&partition->mutex);
    tl_segment *before = partition->lending;
    partition->lending = partition->writer;
    pthread_mutex_unlock(&partition->mutex);
    tl_segment_release(partition->store, before);
}

/* NULL: this process does not write to that segment. */
static tl_segment *borrow(tl_partition *partition, uint32_t ordinal) {
    tl_segment *lender = NULL;
    pthread_mutex_lock(&partition->mutex);
    if (partition->lending != NULL && partition->lending->ordinal == ordinal) {
        lender = partition->lending;
        __atomic_fetch_add(&lender->refs, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&partition->mutex);
    if (lender == NULL)
        return NULL;
    tl_segment *segment = segment_new(partition, ordinal, lender->base_offset, false);
    if (segment == NULL) {
        tl_segment_release(partition->store, lender);
        return NULL;
    }
    segment->lender = lender;
    segment->map = lender->map;
    segment->map_bytes = lender->map_bytes;
    return segment;
}

int tl_segment_open_reader(tl_partition *partition, uint32_t ordinal, tl_segment **out, tl_error *err) {
    uint32_t tick = __atomic_add_fetch(&partition->store->tick, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&partition->mutex);
    for (int i = 0; i < TL_SEGMENT_CACHE; i++) {
        tl_segment *cached = partition->readers[i];
        if (cached != NULL && cached->ordinal == ordinal) {
            __atomic_fetch_add(&cached->refs, 1, __ATOMIC_RELAXED);
            cached->used = tick;
            pthread_mutex_unlock(&partition->mutex);
            *out = cached;
            return TL_OK;
        }
    }
    pthread_mutex_unlock(&partition->mutex);
    int64_t base = 0;
    int status = tl_segment_base(partition, ordinal, &base, err);
    if (status < 0)
        return status;
    shed_if_many(partition);
    tl_segment *fresh = borrow(partition, ordinal);
    status = fresh != NULL ? TL_OK : open_existing(partition, ordinal, base, false, &fresh, err);
    if (status < 0)
        return status;
    fresh->refs = 2;
    fresh->used = tick;
    tl_segment *replaced = NULL;
    pthread_mutex_lock(&partition->mutex);
    int oldest = 0;
    for (int i = 0; i < TL_SEGMENT_CACHE; i++) {
        if (partition->readers[i] == NULL) {
            oldest = i;
            break;
        }
        if ((int32_t)(partition->readers[i]->used - partition->readers[oldest]->used) < 0)
            oldest = i;
    }
    replaced = partition->readers[oldest];
    partition->readers[oldest] = fresh;
    pthread_mutex_unlock(&partition->mutex);
    tl_segment_release(partition->store, replaced);
    *out = fresh;
    return TL_OK;
}

/* --- indexes --- */

static int open_index(tl_partition *partition, tl_segment *segment, const char *suffix, uint32_t most_bytes,
                      uint32_t entry_bytes, bool room, uint32_t *used, uint8_t **map, size_t *map_bytes,
                      uint32_t *allocated, tl_error *err) {
    uint32_t needed = (room ? *used + 2 : *used) * entry_bytes; /* room: for one entry, and the one kept for the roll */
    if (needed <= *allocated && (*map != NULL || needed == 0))
        return TL_OK;
    char path[360];
    tl_segment_path(partition, segment->base_offset, suffix, path);
    int flags = segment->writable ? O_RDWR | O_CREAT : O_RDONLY;
    int fd = tl_os->open(partition->store->dir, path, flags, TL_FILE_MODE);
    if (fd == -ENOENT)
        return TL_OK; /* a reader of a segment without one scans from its start */
    if (fd < 0)
        return tl_fail_sys(err, fd, "an index cannot be opened", path);
    int status = TL_OK;
    tl_stat stat;
    status = tl_os->stat(fd, &stat);
    if (status < 0)
        status = tl_fail_sys(err, status, "an index cannot be looked at", path);
    else
        *allocated = stat.size_bytes > most_bytes ? most_bytes : (uint32_t)stat.size_bytes;
    /* A repair made it again with fewer entries than the words or the checkpoint count. */
    if (status == TL_OK && *used > *allocated / entry_bytes)
        *used = *allocated / entry_bytes;
    if (status == TL_OK && segment->writable && room && needed > *allocated && needed <= most_bytes) {
        uint64_t target = tl_page_up(2 * (uint64_t)*allocated + TL_PAGE);
        if (target < needed)
            target = tl_page_up(needed);
        if (target > most_bytes)
            target = most_bytes;
        status = tl_os->fallocate(fd, *allocated, target - *allocated);
        if (status < 0)
            status = tl_fail_sys(err, status, "no space can be allocated for an index", path);
        else
            *allocated = (uint32_t)target;
    }
    if (status == TL_OK && *map == NULL && *allocated > 0) {
        /* A reader's index of a sealed segment does not grow; all others may grow up to the most there can be. */
        size_t bytes = (size_t)tl_page_up(segment->sealed_index ? *allocated : most_bytes);
        void *at = NULL;
        status = tl_os->map(fd, 0, bytes, segment->writable, &at);
        if (status < 0) {
            status = tl_fail_sys(err, status, "an index cannot be mapped", path);
        } else {
            *map = at;
            *map_bytes = bytes;
        }
    }
    tl_os->close(fd);
    return status;
}

int tl_segment_index(tl_partition *partition, tl_segment *segment, tl_index *out, bool room_for_entries,
                     tl_error *err) {
    tl_hot *hot = partition->hot;
    uint32_t offsets = 0, times = 0;
    uint32_t active = tl_place_ordinal(__atomic_load_n(&hot->tail, __ATOMIC_ACQUIRE));
    memset(out, 0, sizeof *out);
    if (segment->ordinal == active) {
        offsets = __atomic_load_n(&hot->index_entries, __ATOMIC_ACQUIRE);
        times = __atomic_load_n(&hot->time_entries, __ATOMIC_ACQUIRE);
    }
    if (segment->ordinal != tl_place_ordinal(__atomic_load_n(&hot->tail, __ATOMIC_ACQUIRE))) {
        tl_seal seal;
        int status = tl_seals_get(partition, segment->ordinal, &seal, err);
        if (status < 0)
            return status;
        offsets = seal.index_entries;
        times = seal.time_entries;
        segment->sealed_index = true;
    }
    int status = open_index(partition, segment, ".index", TL_INDEX_MAX_BYTES, TL_INDEX_ENTRY_BYTES, room_for_entries,
                            &offsets, &segment->offset_map, &segment->offset_bytes, &segment->offset_allocated, err);
    if (status == TL_OK)
        status = open_index(partition, segment, ".timeindex", TL_INDEX_TIME_MAX_BYTES, TL_INDEX_TIME_ENTRY_BYTES,
                            room_for_entries, &times, &segment->time_map, &segment->time_bytes,
                            &segment->time_allocated, err);
    if (status < 0)
        return status;
    if (segment->writable && segment->ordinal == active && offsets < hot->index_entries)
        __atomic_store_n(&hot->index_entries, offsets, __ATOMIC_RELEASE);
    if (segment->writable && segment->ordinal == active && times < hot->time_entries)
        __atomic_store_n(&hot->time_entries, times, __ATOMIC_RELEASE);
    out->base_offset = segment->base_offset;
    out->offset_entries = segment->offset_map;
    out->time_entries = segment->time_map;
    out->offset_capacity = segment->offset_map == NULL ? 0 : segment->offset_allocated / TL_INDEX_ENTRY_BYTES;
    out->time_capacity = segment->time_map == NULL ? 0 : segment->time_allocated / TL_INDEX_TIME_ENTRY_BYTES;
    out->offset_count = offsets < out->offset_capacity ? offsets : out->offset_capacity;
    out->time_count = times < out->time_capacity ? times : out->time_capacity;
    return TL_OK;
}

int tl_segment_reader_index(tl_partition *partition, tl_segment *segment, tl_index *out, tl_error *err) {
    pthread_mutex_lock(&partition->index_mutex);
    int status = tl_segment_index(partition, segment, out, false, err);
    pthread_mutex_unlock(&partition->index_mutex);
    return status;
}
