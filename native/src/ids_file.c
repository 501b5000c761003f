/* In which file does a partition keep the ids it has seen, and which file is in force?
 *
 * Imports remembering.h, guard.h, crc32c.h. Layout: docs/format.md. A file is in force when its number stands in the shared
 * words, it is of this boot and partition, and its key is the one of the words: so no stale, copied or half made file ever
 * is. A file never grows. A larger one is made beside it, filled, and put in its place by a rename; whoever dies in between
 * leaves a file in force that is whole: by its number if it is still mapped somewhere, else none, and the log is walked. */
#define _POSIX_C_SOURCE 200809L

#include "remembering.h"

#include "tidelog/crc32c.h"
#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define MAGIC 0x316469676d736474u /* "tdsmgid1" */
#define VERSION 2u

typedef struct header {
    uint64_t magic;
    uint32_t version, buckets;
    uint64_t boot[2];
    uint64_t partition; /* id */
    uint64_t key;
    int64_t epoch_ms;
    uint32_t file, crc; /* CRC of the 60 bytes before it */
} header;
_Static_assert(sizeof(header) == 64, "documented in docs/format.md");

static void path_of(const tl_partition *partition, const char *suffix, char out[360]) {
    snprintf(out, 360, "%s/" TL_IDS_FILE "%s", partition->cold->directory, suffix);
}

uint64_t tl_ids_key(tl_partition *partition) {
    uint64_t *word = &partition->cold->ids_key, key = __atomic_load_n(word, __ATOMIC_RELAXED), fresh = 0;
    if (TL_LIKELY(key != 0))
        return key;
    (void)tl_os->random(&fresh, sizeof fresh);
    fresh = fresh != 0 ? fresh : 1;
    return __atomic_compare_exchange_n(word, &key, fresh, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ? fresh : key;
}

static void unmap(tl_partition *partition) {
    struct tl_ids *ids = partition->ids;
    if (ids == NULL)
        return;
    tl_os->unmap(ids->window.map, tl_ids_bytes(ids->window.buckets));
    tl_os->free(ids);
    partition->ids = NULL;
    __atomic_store_n(&partition->ids_map, NULL, __ATOMIC_RELAXED);
}

void tl_ids_free(tl_partition *partition) { unmap(partition); }

static bool is_of(const header *h, const tl_partition *partition) {
    const tl_store *store = partition->store;
    return h->magic == MAGIC && h->version == VERSION && h->crc == tl_crc32c(0, h, sizeof *h - 4) &&
           h->boot[0] == store->identity.boot[0] && h->boot[1] == store->identity.boot[1] && h->partition == partition->id &&
           h->key == __atomic_load_n(&partition->cold->ids_key, __ATOMIC_RELAXED);
}

static bool is_possible(const header *h, uint64_t file_bytes) {
    return h->buckets >= TL_IDS_BUCKETS_FIRST && h->buckets <= TL_IDS_BUCKETS_MOST && (h->buckets & (h->buckets - 1)) == 0 &&
           file_bytes >= tl_ids_bytes(h->buckets);
}

static int keep(tl_partition *partition, void *map, const header *h, tl_error *err) {
    struct tl_ids *ids = tl_calloc(1, sizeof *ids);
    if (ids == NULL) {
        tl_os->unmap(map, tl_ids_bytes(h->buckets));
        return tl_fail(err, TL_ENOMEM, "no memory for message ids", "", -1);
    }
    *ids = (struct tl_ids){.window = {map, h->buckets}, .file = h->file, .epoch_ms = h->epoch_ms};
    unmap(partition);
    partition->ids = ids;
    __atomic_store_n(&partition->ids_buckets, h->buckets, __ATOMIC_RELAXED);
    __atomic_store_n(&partition->ids_map, map, __ATOMIC_RELAXED);
    return TL_OK;
}

/* Reads the header of the file that has the name. TL_ENOTFOUND: there is none. */
static int look(const tl_partition *partition, int flags, int *fd, header *h, uint64_t *bytes, tl_error *err) {
    char path[360];
    path_of(partition, "", path);
    *fd = tl_os->open(partition->store->dir, path, flags, 0);
    if (*fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "no message ids were seen yet", path, -1);
    if (*fd < 0)
        return tl_fail_sys(err, *fd, "the file of message ids cannot be opened", path);
    tl_stat stat;
    int status = tl_os->stat(*fd, &stat);
    int64_t got = status < 0 ? status : tl_os->pread(*fd, h, sizeof *h, 0);
    if (got == (int64_t)sizeof *h) {
        *bytes = stat.size_bytes;
        return TL_OK;
    }
    tl_os->close(*fd);
    return got < 0 ? tl_fail_sys(err, (int)got, "the file of message ids cannot be read", path)
                   : tl_fail(err, TL_ECORRUPT, "the file of message ids is shorter than its header", path, got);
}

int tl_ids_seek(tl_partition *partition, tl_error *err) {
    header h;
    uint64_t bytes = 0;
    uint32_t file = __atomic_load_n(&partition->cold->ids_file, __ATOMIC_ACQUIRE);
    int fd = -1, status = file == 0 ? TL_ENOTFOUND : look(partition, O_RDONLY, &fd, &h, &bytes, err);
    if (status < 0)
        return status == TL_ECORRUPT ? TL_ENOTFOUND : status;
    tl_os->close(fd);
    return is_of(&h, partition) && h.file == file && is_possible(&h, bytes) ? TL_OK : TL_ENOTFOUND;
}

int tl_ids_map(tl_partition *partition, bool may_block, tl_error *err) {
    uint32_t file = __atomic_load_n(&partition->cold->ids_file, __ATOMIC_ACQUIRE);
    if (TL_LIKELY(partition->ids != NULL && partition->ids->file == file))
        return TL_OK;
    if (file == 0)
        return TL_ENOTFOUND;
    if (!may_block)
        return TL_EAGAIN;
    header h;
    uint64_t bytes = 0;
    void *map = NULL;
    int fd = -1, status = look(partition, O_RDWR, &fd, &h, &bytes, err);
    if (status < 0)
        return status == TL_ECORRUPT ? TL_ENOTFOUND : status;
    status = is_of(&h, partition) && h.file == file && is_possible(&h, bytes) ? TL_OK : TL_ENOTFOUND;
    if (status == TL_OK && (status = tl_os->map(fd, 0, tl_ids_bytes(h.buckets), true, &map)) < 0)
        status = tl_fail_sys(err, status, "the file of message ids cannot be mapped", partition->cold->directory);
    tl_os->close(fd);
    return status == TL_OK ? keep(partition, map, &h, err) : status;
}

/* --- making --- */

static bool fill(const tl_ids_window *from, tl_ids_window *to, const header *h, const tl_ids_rule *rule, uint32_t shift_ms,
                 volatile int *status) {
    tl_guard guard;
    TL_GUARDED(guard) {
        memcpy(to->map, h, sizeof *h);
        *status = from == NULL ? TL_OK : tl_ids_copy(from, to, rule, shift_ms);
    }
    TL_GUARD_CAUGHT(guard) { return false; }
    return true;
}

static int create(tl_partition *partition, const header *h, void **map, tl_error *err) {
    tl_store *store = partition->store;
    char made[360];
    path_of(partition, ".new", made);
    int fd = tl_os->open(store->dir, made, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd == -ENOENT) { /* no message was appended yet */
        (void)tl_os->mkdir(store->dir, partition->cold->directory, TL_DIRECTORY_MODE);
        fd = tl_os->open(store->dir, made, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    }
    if (fd < 0)
        return tl_fail_sys(err, fd, "the file of message ids cannot be made", made);
    TL_POINT("ids.file_opened");
    int status = tl_os->fallocate(fd, 0, tl_ids_bytes(h->buckets));
    if (status == 0)
        status = tl_os->map(fd, 0, tl_ids_bytes(h->buckets), true, map);
    tl_os->close(fd);
    if (status < 0) {
        (void)tl_os->unlink(store->dir, made, false);
        return tl_fail_sys(err, status, "the file of message ids cannot be made", made);
    }
    return TL_OK;
}

/* A file with the name, made of `from` (NULL: empty), mapped, not in force. TL_EFULL: `from` does not fit into it. */
static int replace(tl_partition *partition, header *h, const tl_ids_window *from, const tl_ids_rule *rule, uint32_t shift_ms,
                   tl_error *err) {
    tl_store *store = partition->store;
    char path[360], made[360];
    path_of(partition, "", path);
    path_of(partition, ".new", made);
    h->magic = MAGIC;
    h->version = VERSION;
    memcpy(h->boot, store->identity.boot, sizeof h->boot);
    h->partition = partition->id;
    h->key = tl_ids_key(partition);
    (void)tl_os->random(&h->file, sizeof h->file);
    if (h->file == 0 || h->file == partition->cold->ids_file)
        h->file = partition->cold->ids_file + 1 != 0 ? partition->cold->ids_file + 1 : 1;
    h->crc = tl_crc32c(0, h, sizeof *h - 4);
    void *map = NULL;
    int made_status = create(partition, h, &map, err);
    if (made_status < 0)
        return made_status;
    tl_ids_window to = {map, h->buckets};
    volatile int status = TL_OK;
    if (!fill(from, &to, h, rule, shift_ms, &status))
        status = tl_fail(err, TL_EBUS, "the file of message ids cannot be written", made, -1);
    TL_POINT("ids.file_filled");
    if (status == TL_OK && (status = tl_os->rename(store->dir, made, store->dir, path)) < 0)
        status = tl_fail_sys(err, status, "the file of message ids cannot be renamed", made);
    TL_POINT("ids.file_renamed");
    if (status < 0) {
        (void)tl_os->unlink(store->dir, made, false);
        tl_os->unmap(map, tl_ids_bytes(h->buckets));
        return status;
    }
    return keep(partition, map, h, err);
}

int64_t tl_ids_now_ms(void) { return tl_os->monotonic_ns() / 1000000; }

/* So many buckets that `ids` fill no more than half of the slots. */
static uint32_t buckets_for(uint64_t ids) {
    uint32_t buckets = TL_IDS_BUCKETS_FIRST;
    while (buckets < TL_IDS_BUCKETS_MOST && (uint64_t)buckets * (TL_IDS_WAYS / 2) < ids)
        buckets *= 2;
    return buckets;
}

int tl_ids_make(tl_partition *partition, uint64_t ids, int64_t now_ms, tl_error *err) {
    header h = {.buckets = buckets_for(ids), .epoch_ms = now_ms - TL_IDS_AGE_MOST_MS};
    __atomic_store_n(&partition->cold->ids_file, 0, __ATOMIC_RELEASE);
    return replace(partition, &h, NULL, NULL, 0, err);
}

void tl_ids_enforce(tl_partition *partition, uint64_t complete) {
    __atomic_store_n(&partition->cold->ids_complete, complete, __ATOMIC_RELEASE);
    TL_POINT("ids.complete_stored");
    __atomic_store_n(&partition->cold->ids_file, partition->ids->file, __ATOMIC_RELEASE);
    TL_POINT("ids.enforced");
}

int tl_ids_renew(tl_partition *partition, bool larger, int64_t now_ms, tl_error *err) {
    tl_ids_rule rule;
    const struct tl_ids old = *partition->ids;
    (void)tl_ids_rule_at(partition, now_ms, &rule);
    int64_t epoch_ms = now_ms - TL_IDS_AGE_MOST_MS > old.epoch_ms ? now_ms - TL_IDS_AGE_MOST_MS : old.epoch_ms;
    int64_t shift_ms = epoch_ms - old.epoch_ms < UINT32_MAX ? epoch_ms - old.epoch_ms : UINT32_MAX;
    int status = TL_EFULL;
    for (uint32_t buckets = larger ? old.window.buckets * 2 : old.window.buckets;
         status == TL_EFULL && buckets <= TL_IDS_BUCKETS_MOST; buckets *= 2) {
        header h = {.buckets = buckets, .epoch_ms = epoch_ms};
        status = replace(partition, &h, &old.window, &rule, (uint32_t)shift_ms, err);
    }
    if (status == TL_EFULL)
        return tl_fail(err, TL_EFULL, "too many message ids within the window: make dedup_count smaller", partition->cold->directory, -1);
    if (status < 0)
        return status;
    __atomic_store_n(&partition->cold->ids_file, partition->ids->file, __ATOMIC_RELEASE);
    TL_POINT("ids.renewed");
    return TL_OK;
}

/* --- using --- */

TL_INLINE tl_ids_rule rule_of(uint32_t count, int64_t age_ms, int64_t now_ms) {
    return (tl_ids_rule){count, age_ms < 0 ? 0 : age_ms > TL_IDS_AGE_MOST_MS ? (uint32_t)TL_IDS_AGE_MOST_MS : (uint32_t)age_ms,
                         now_ms < 0 ? 0 : now_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)now_ms};
}

bool tl_ids_rule_at(const tl_partition *partition, int64_t now_ms, tl_ids_rule *out) {
    const struct tl_ids *ids = partition->ids;
    *out = rule_of(__atomic_load_n(&partition->cold->id_count, __ATOMIC_RELAXED),
                   __atomic_load_n(&partition->cold->id_age_ms, __ATOMIC_RELAXED), now_ms - ids->epoch_ms);
    return now_ms - ids->epoch_ms < UINT32_MAX && tl_ids_next(&ids->window) < UINT32_MAX - (1u << 24);
}

/* In a function of its own: what the guard may clobber must not live in the caller's registers. */
__attribute__((noinline)) static int note_guarded(tl_partition *partition, const tl_message_id *id, int64_t offset, int64_t time_ms,
                                                  int64_t now_ms) {
    tl_ids_rule rule;
    (void)tl_ids_rule_at(partition, now_ms, &rule);
    time_ms -= partition->ids->epoch_ms;
    uint32_t time = time_ms < 0 ? 0 : time_ms < rule.now_ms ? (uint32_t)time_ms : rule.now_ms;
    volatile int status = TL_EBUS;
    tl_guard guard;
    TL_GUARDED(guard) { status = tl_ids_note(&partition->ids->window, id, offset, time, &rule); }
    TL_GUARD_CAUGHT(guard) { return TL_EBUS; }
    return status;
}

int tl_ids_put(tl_partition *partition, const tl_message_id *id, int64_t offset, int64_t time_ms, int64_t now_ms, bool may_block,
               tl_error *err) {
    int status = note_guarded(partition, id, offset, time_ms, now_ms);
    while (status == TL_EFULL) {
        if (!may_block)
            return TL_EAGAIN;
        if ((status = tl_ids_renew(partition, true, now_ms, err)) < 0)
            return status;
        status = note_guarded(partition, id, offset, time_ms, now_ms);
    }
    return status == TL_EBUS ? tl_fail(err, TL_EBUS, "the file of message ids cannot be written", partition->cold->directory, -1)
                             : status;
}

/* --- looking --- */

static int copy_window(const tl_partition *partition, int fd, const header *h, tl_ids_window *out, tl_error *err) {
    size_t bytes = tl_ids_bytes(h->buckets);
    out->buckets = h->buckets;
    out->map = tl_os->malloc(bytes);
    if (out->map == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to look at message ids", partition->cold->directory, -1);
    int64_t got = tl_os->pread(fd, out->map, bytes, 0);
    if (got == (int64_t)bytes)
        return TL_OK;
    tl_os->free(out->map);
    return got < 0 ? tl_fail_sys(err, (int)got, "the file of message ids cannot be read", partition->cold->directory)
                   : tl_fail(err, TL_ECORRUPT, "the file of message ids is shorter than it says", partition->cold->directory, got);
}

int tl_ids_describe(tl_partition *partition, tl_ids_info *out, tl_error *err) {
    header h;
    uint64_t bytes = 0;
    tl_ids_window window;
    uint32_t file = __atomic_load_n(&partition->cold->ids_file, __ATOMIC_ACQUIRE);
    int fd = -1, status = file == 0 ? TL_ENOTFOUND : look(partition, O_RDONLY, &fd, &h, &bytes, err);
    if (status < 0)
        return status;
    status = is_of(&h, partition) && h.file == file && is_possible(&h, bytes) ? copy_window(partition, fd, &h, &window, err)
                                                                              : TL_ENOTFOUND;
    tl_os->close(fd);
    if (status < 0)
        return status;
    const tl_ids_rule rule = rule_of(__atomic_load_n(&partition->cold->id_count, __ATOMIC_RELAXED),
                                     __atomic_load_n(&partition->cold->id_age_ms, __ATOMIC_RELAXED),
                                     tl_ids_now_ms() - h.epoch_ms);
    out->slots = h.buckets * (TL_IDS_WAYS / 2);
    out->ids = tl_ids_live(&window, &rule);
    out->complete = __atomic_load_n(&partition->cold->ids_complete, __ATOMIC_RELAXED) ==
                    __atomic_load_n(&partition->hot->tail, __ATOMIC_RELAXED);
    tl_os->free(window.map);
    return TL_OK;
}

int tl_ids_check(tl_partition *partition, const char **what, tl_error *err) {
    header h;
    uint64_t bytes = 0;
    int fd = -1, status = look(partition, O_RDONLY, &fd, &h, &bytes, err);
    if (status == TL_ENOTFOUND)
        return 0;
    *what = "the file of message ids is damaged: it can be deleted, and is made again from the log";
    if (status == TL_ECORRUPT)
        return 1;
    if (status < 0)
        return status;
    tl_os->close(fd);
    return h.magic != MAGIC || h.version != VERSION || h.crc != tl_crc32c(0, &h, sizeof h - 4) || !is_possible(&h, bytes);
}
