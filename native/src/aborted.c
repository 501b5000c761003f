/* Which transactions of a partition were aborted, so that readers pass their messages over?
 *
 * Imports transacting.h. Callable from any thread. Each segment with an abort marker has a file BASE.txnindex, Kafka's format:
 * an entry is written under the partition's lock before its marker is published, and cold->aborts is raised in between. A
 * process keeps all entries of a partition in memory, sorted by producer and offset, and reads on in the files when that
 * count has moved. Entries of a transaction whose marker did not come at once may stand twice: the second one says more. */
#define _POSIX_C_SOURCE 200809L

#include "transacting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

typedef struct tl_aborted {
    tl_aborted_transaction *list;
    size_t count, room;
    uint64_t seen;     /* cold->aborts when it was read last */
    uint32_t first;    /* segment it begins with, */
    uint32_t ordinal;  /* and the one it was read to */
    uint64_t position; /* in its file */
    bool loaded;
} tl_aborted;

void tl_aborted_free(tl_partition *partition) {
    if (partition->aborted != NULL)
        tl_os->free(partition->aborted->list);
    tl_os->free(partition->aborted);
    partition->aborted = NULL;
}

/* --- the files --- */

int tl_aborted_note(tl_partition *partition, int64_t segment_base, const tl_aborted_transaction *aborted,
                    int64_t last_stable_offset, tl_error *err) {
    char path[360];
    uint8_t entry[TL_ABORTED_BYTES];
    if (TL_BUG(ABORT_NOT_INDEXED))
        return TL_OK;
    tl_put_be16(entry, 0);
    tl_put_be64(entry + 2, (uint64_t)aborted->producer_id);
    tl_put_be64(entry + 10, (uint64_t)aborted->first_offset);
    tl_put_be64(entry + 18, (uint64_t)aborted->last_offset);
    tl_put_be64(entry + 26, (uint64_t)last_stable_offset);
    tl_segment_path(partition, segment_base, ".txnindex", path);
    int fd = tl_os->open(partition->store->dir, path, O_RDWR | O_CREAT, TL_FILE_MODE);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the index of aborted transactions cannot be opened", path);
    tl_stat stat;
    int64_t status = tl_os->stat(fd, &stat);
    if (status == 0) /* what a dead writer left half written is written over */
        status = tl_os->pwrite(fd, entry, sizeof entry, stat.size_bytes / sizeof entry * sizeof entry);
    tl_os->close(fd);
    if (status < 0)
        return tl_fail_sys(err, (int)status, "the index of aborted transactions cannot be written", path);
    TL_POINT("txn.aborted_written");
    __atomic_fetch_add(&partition->cold->aborts, 1, __ATOMIC_RELEASE);
    TL_POINT("txn.aborted_noted");
    return TL_OK;
}

/* Whole entries from `from` on. */
static int read_from(tl_partition *partition, int64_t segment_base, uint64_t from, tl_aborted_transaction **out,
                     size_t *count, tl_error *err) {
    char path[360];
    *out = NULL;
    *count = 0;
    tl_segment_path(partition, segment_base, ".txnindex", path);
    int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return TL_OK;
    if (fd < 0)
        return tl_fail_sys(err, fd, "the index of aborted transactions cannot be opened", path);
    tl_stat stat;
    int64_t got = tl_os->stat(fd, &stat);
    uint64_t entries = got < 0 || stat.size_bytes < from ? 0 : (stat.size_bytes - from) / TL_ABORTED_BYTES;
    uint8_t *bytes = entries == 0 || entries > TL_MAX_SEGMENT_BYTES / TL_ABORTED_BYTES ? NULL : tl_os->malloc(entries * TL_ABORTED_BYTES);
    tl_aborted_transaction *list = bytes == NULL ? NULL : tl_calloc(entries, sizeof *list);
    if (got == 0 && list != NULL)
        got = tl_os->pread(fd, bytes, entries * TL_ABORTED_BYTES, from);
    tl_os->close(fd);
    int status = got < 0 ? tl_fail_sys(err, (int)got, "the index of aborted transactions cannot be read", path) : TL_OK;
    if (status == TL_OK && entries > 0 && list == NULL)
        status = tl_fail(err, TL_ENOMEM, "no memory for the index of aborted transactions", path, -1);
    for (size_t i = 0; status == TL_OK && list != NULL && i < (size_t)got / TL_ABORTED_BYTES; i++) {
        const uint8_t *entry = bytes + i * TL_ABORTED_BYTES;
        list[i] = (tl_aborted_transaction){(int64_t)tl_be64(entry + 2), (int64_t)tl_be64(entry + 10), (int64_t)tl_be64(entry + 18)};
        if (tl_be16(entry) != 0 || list[i].producer_id < 0 || list[i].first_offset < 0 ||
            list[i].last_offset <= list[i].first_offset)
            status = tl_fail(err, TL_ECORRUPT, "the index of aborted transactions has an impossible entry", path,
                             (int64_t)(from + i * TL_ABORTED_BYTES));
        *count = i + 1;
    }
    tl_os->free(bytes);
    if (status < 0) {
        tl_os->free(list);
        *count = 0;
        return status;
    }
    *out = list;
    return TL_OK;
}

int tl_aborted_read(tl_partition *partition, int64_t segment_base, tl_aborted_transaction **out, size_t *count, tl_error *err) {
    return read_from(partition, segment_base, 0, out, count, err);
}

static int put_new(tl_store *store, const char *made, int64_t segment_base, const tl_txn_ended *ended, size_t count) {
    int fd = tl_os->open(store->dir, made, O_WRONLY | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd < 0)
        return fd;
    int64_t status = 0;
    uint64_t at = 0;
    for (size_t i = 0; i < count && status >= 0; i++) {
        uint8_t entry[TL_ABORTED_BYTES];
        if (ended[i].segment_base != segment_base)
            continue;
        tl_put_be16(entry, 0);
        tl_put_be64(entry + 2, (uint64_t)ended[i].aborted.producer_id);
        tl_put_be64(entry + 10, (uint64_t)ended[i].aborted.first_offset);
        tl_put_be64(entry + 18, (uint64_t)ended[i].aborted.last_offset);
        tl_put_be64(entry + 26, (uint64_t)ended[i].aborted.last_offset + 1);
        status = tl_os->pwrite(fd, entry, sizeof entry, at);
        at += sizeof entry;
    }
    if (status >= 0)
        status = tl_os->fsync(fd);
    tl_os->close(fd);
    return (int)(status < 0 ? status : 0);
}

int tl_aborted_write(tl_partition *partition, int64_t segment_base, const tl_txn_ended *ended, size_t count, tl_error *err) {
    tl_store *store = partition->store;
    char path[360], made[360];
    size_t own = 0;
    for (size_t i = 0; i < count; i++)
        own += ended[i].segment_base == segment_base;
    tl_segment_path(partition, segment_base, ".txnindex", path);
    tl_segment_path(partition, segment_base, ".txnindex.new", made);
    int status;
    if (own == 0) {
        status = tl_os->unlink(store->dir, path, false);
        status = status == -ENOENT ? 0 : status;
    } else {
        status = put_new(store, made, segment_base, ended, count);
        if (status == 0)
            status = tl_os->rename(store->dir, made, store->dir, path);
        __atomic_fetch_add(&partition->cold->aborts, 1, __ATOMIC_RELEASE);
    }
    TL_POINT("txn.aborted_rebuilt");
    return status < 0 ? tl_fail_sys(err, status, "the index of aborted transactions cannot be written anew", path) : TL_OK;
}

/* --- what a process knows --- */

static int by_producer(const void *a, const void *b) {
    const tl_aborted_transaction *x = a, *y = b;
    if (x->producer_id != y->producer_id)
        return x->producer_id < y->producer_id ? -1 : 1;
    if (x->first_offset != y->first_offset)
        return x->first_offset < y->first_offset ? -1 : 1;
    return (x->last_offset > y->last_offset) - (x->last_offset < y->last_offset);
}

static int take(tl_aborted *own, const tl_aborted_transaction *list, size_t count, tl_error *err) {
    if (own->count + count > own->room) {
        size_t room = 2 * (own->count + count);
        tl_aborted_transaction *grown = tl_os->realloc(own->list, room * sizeof *grown);
        if (grown == NULL)
            return tl_fail(err, TL_ENOMEM, "no memory for the aborted transactions of a partition", "", -1);
        own->list = grown;
        own->room = room;
    }
    memcpy(own->list + own->count, list, count * sizeof *list);
    own->count += count;
    return TL_OK;
}

/* Reads on to the active segment. Files of segments that retention takes meanwhile are missing, and so are their messages. */
static int read_on(tl_partition *partition, tl_aborted *own, tl_error *err) {
    uint32_t last = tl_place_ordinal(tl_partition_tail(partition));
    uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    if (!own->loaded || own->first != first) { /* what was deleted is forgotten, too */
        own->count = 0;
        own->ordinal = own->first = first;
        own->position = 0;
    }
    for (;;) {
        int64_t base = 0;
        tl_aborted_transaction *list = NULL;
        size_t count = 0;
        int status = tl_segment_base(partition, own->ordinal, &base, err);
        if (status == TL_OK)
            status = read_from(partition, base, own->position, &list, &count, err);
        if (status == TL_OK && count > 0)
            status = take(own, list, count, err);
        tl_os->free(list);
        if (status < 0)
            return status;
        own->position += count * TL_ABORTED_BYTES;
        if (own->ordinal >= last)
            break;
        own->ordinal++;
        own->position = 0;
    }
    if (own->count > 1)
        qsort(own->list, own->count, sizeof *own->list, by_producer);
    return TL_OK;
}

/* Under aborted_mutex. */
static int refresh(tl_partition *partition, tl_error *err) {
    uint64_t aborts = __atomic_load_n(&partition->cold->aborts, __ATOMIC_ACQUIRE);
    tl_aborted *own = partition->aborted;
    if (TL_LIKELY(own != NULL && own->loaded && own->seen == aborts))
        return TL_OK;
    if (own == NULL) {
        own = partition->aborted = tl_calloc(1, sizeof *own);
        if (own == NULL)
            return tl_fail(err, TL_ENOMEM, "no memory for the aborted transactions of a partition", "", -1);
    }
    int status = TL_OK;
    for (int tries = 0; tries < 3; tries++) {
        uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
        status = read_on(partition, own, err);
        if (status == TL_OK || first == __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE))
            break;
        own->loaded = false;
    }
    own->loaded = status == TL_OK;
    own->seen = aborts;
    return status;
}

int tl_aborted_contains(tl_partition *partition, int64_t producer_id, int64_t offset, tl_error *err) {
    pthread_mutex_lock(&partition->aborted_mutex);
    int status = refresh(partition, err);
    if (status == TL_OK && partition->aborted->count > 0) {
        const tl_aborted *own = partition->aborted;
        size_t low = 0, high = own->count; /* entries before `low` begin at or before the offset */
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            const tl_aborted_transaction *at = &own->list[middle];
            if (at->producer_id < producer_id || (at->producer_id == producer_id && at->first_offset <= offset))
                low = middle + 1;
            else
                high = middle;
        }
        status = low > 0 && own->list[low - 1].producer_id == producer_id && own->list[low - 1].last_offset >= offset;
    }
    pthread_mutex_unlock(&partition->aborted_mutex);
    return status;
}

int tl_aborted_each(tl_partition *partition, int64_t from, int64_t before, void *context,
                    int (*each)(void *context, const tl_aborted_transaction *transaction), tl_error *err) {
    pthread_mutex_lock(&partition->aborted_mutex);
    int status = refresh(partition, err);
    for (size_t i = 0; status == TL_OK && i < partition->aborted->count; i++) {
        const tl_aborted_transaction *at = &partition->aborted->list[i];
        bool again = i + 1 < partition->aborted->count && at[1].producer_id == at->producer_id && at[1].first_offset == at->first_offset;
        if (!again && at->last_offset >= from && at->first_offset < before)
            status = each(context, at);
    }
    pthread_mutex_unlock(&partition->aborted_mutex);
    return status;
}

/* --- looking for damage --- */

static bool says(const tl_aborted_transaction *entries, size_t count, const tl_aborted_transaction *aborted) {
    for (size_t i = 0; i < count; i++)
        if (entries[i].producer_id == aborted->producer_id && entries[i].last_offset == aborted->last_offset &&
            entries[i].first_offset <= aborted->first_offset)
            return true;
    return false;
}

/* An entry is that of a transaction that was aborted, or of one that is about to be. Of one that began in a segment that is
 * gone nothing is known. */
static bool is_true(const tl_txn_opens *opens, const tl_aborted_transaction *entry, int64_t kept_from) {
    if (entry->first_offset < kept_from)
        return true;
    for (size_t i = 0; i < opens->ended_count; i++) {
        const tl_aborted_transaction *at = &opens->ended[i].aborted;
        if (at->producer_id == entry->producer_id && entry->last_offset <= at->last_offset &&
            entry->last_offset > at->first_offset && entry->first_offset == at->first_offset)
            return true;
    }
    for (size_t i = 0; i < opens->open_count; i++)
        if (opens->open[i].producer_id == entry->producer_id && entry->last_offset > opens->open[i].first_offset)
            return true;
    return false;
}

int tl_aborted_check(tl_partition *partition, const tl_txn_opens *opens, const tl_bounds *bounds, void *context,
                     void (*found)(void *context, const char *file, const char *what, int64_t first, int64_t next),
                     tl_error *err) {
    tl_aborted all = {0};
    uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t kept_from = 0;
    char path[360];
    int status = tl_segment_base(partition, first, &kept_from, err);
    for (uint32_t ordinal = first; status == TL_OK && ordinal <= tl_place_ordinal(bounds->tail); ordinal++) {
        int64_t base = 0;
        tl_aborted_transaction *list = NULL;
        size_t count = 0;
        tl_error inner = {0};
        if (tl_segment_base(partition, ordinal, &base, NULL) < 0)
            continue;
        status = tl_aborted_read(partition, base, &list, &count, &inner);
        tl_segment_path(partition, base, ".txnindex", path);
        if (status == TL_ECORRUPT) {
            found(context, path, inner.what, base, -1);
            status = TL_OK;
        } else if (status < 0 && err != NULL) {
            *err = inner;
        }
        for (size_t i = 0; status == TL_OK && i < count; i++)
            if (list[i].last_offset < bounds->log_end && !is_true(opens, &list[i], kept_from))
                found(context, path, "the index of aborted transactions names one that was not aborted", list[i].first_offset,
                      list[i].last_offset + 1);
        if (status == TL_OK && count > 0)
            status = take(&all, list, count, err);
        tl_os->free(list);
    }
    for (size_t i = 0; status == TL_OK && i < opens->ended_count; i++) {
        const tl_aborted_transaction *at = &opens->ended[i].aborted;
        tl_segment_path(partition, opens->ended[i].segment_base, ".txnindex", path);
        if (!says(all.list, all.count, at))
            found(context, path, "an aborted transaction is not in the index of aborted transactions", at->first_offset,
                  at->last_offset + 1);
    }
    tl_os->free(all.list);
    return status;
}
