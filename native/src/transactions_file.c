/* Where do the records of transactions stand, and when are they on disk?
 *
 * Imports transacting.h, crc32c.h. Callable from any thread. The file is preallocated and mapped, and never gets shorter while
 * anybody has it mapped; whoever is alone may replace it. Slots are handed out under transactions_lock. One fdatasync serves
 * all who wait for it, among threads and processes, under records_sync_lock. */
#define _POSIX_C_SOURCE 200809L

#include "transacting.h"

#include "tidelog/crc32c.h"

#include <errno.h>
#include <fcntl.h>

#define NEW_FILE TL_TXN_FILE ".new"

/* --- mapping --- */

static uint32_t slots_of(const tl_txn_file *file) {
    uint64_t slots = __atomic_load_n(&file->slots, __ATOMIC_ACQUIRE);
    uint32_t count = (uint32_t)slots;
    return slots == tl_guarded(count) && count <= TL_TXN_MOST_SLOTS ? count : 0;
}

static int check_header(const tl_txn_file *file, uint64_t file_bytes, tl_error *err) {
    if (file->magic != TL_TXN_MAGIC || file->crc != tl_crc32c(0, file, 16))
        return tl_fail(err, TL_ECORRUPT, "the records of transactions have a damaged header", TL_TXN_FILE, 0);
    if (file->version != TL_TXN_VERSION || file->slot_bytes != TL_PAGE)
        return tl_fail(err, TL_EUNSUPPORTED, "the records of transactions have another version", TL_TXN_FILE, 8);
    if (slots_of(file) == 0 || ((uint64_t)slots_of(file) + 1) * TL_PAGE > file_bytes)
        return tl_fail(err, TL_ECORRUPT, "the file of transactions is shorter than it says", TL_TXN_FILE, 16);
    return TL_OK;
}

static int fill_new(int fd, uint32_t slots) {
    uint8_t page[TL_PAGE] = {0};
    tl_txn_file *file = (tl_txn_file *)(void *)page;
    file->magic = TL_TXN_MAGIC;
    file->version = TL_TXN_VERSION;
    file->slot_bytes = TL_PAGE;
    file->slots = tl_guarded(slots);
    file->crc = tl_crc32c(0, file, 16);
    int status = tl_os->fallocate(fd, 0, ((uint64_t)slots + 1) * TL_PAGE);
    int64_t written = status < 0 ? status : tl_os->pwrite(fd, page, sizeof page, 0);
    return written < 0 ? (int)written : 0;
}

static int sync_folder(tl_store *store) {
    int fd = tl_os->open(store->dir, TL_TXN_FOLDER, O_RDONLY | O_DIRECTORY, 0);
    int status = fd < 0 ? fd : tl_os->fsync(fd);
    if (fd >= 0)
        tl_os->close(fd);
    return status < 0 ? status : tl_os->fsync(store->dir);
}

/* On the disk, but for its name. */
static int create(tl_store *store, tl_error *err) {
    int status = tl_os->mkdir(store->dir, TL_TXN_FOLDER, TL_DIRECTORY_MODE);
    if (status < 0 && status != -EEXIST)
        return tl_fail_sys(err, status, "the folder of transactions cannot be made", TL_TXN_FOLDER);
    int fd = tl_os->open(store->dir, NEW_FILE, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the records of transactions cannot be created", NEW_FILE);
    status = fill_new(fd, TL_TXN_FIRST_SLOTS);
    if (status == 0)
        status = tl_os->fsync(fd);
    tl_os->close(fd);
    TL_POINT("txn.file_filled");
    if (status == 0)
        status = tl_os->rename(store->dir, NEW_FILE, store->dir, TL_TXN_FILE);
    TL_POINT("txn.file_created");
    return status < 0 ? tl_fail_sys(err, status, "the records of transactions cannot be created", TL_TXN_FILE) : TL_OK;
}

/* A record in a file that a power cut takes away would decide nothing; whoever made it may have died since. */
int tl_txn_keep_name(tl_store *store, tl_error *err) {
    if (TL_LIKELY(__atomic_load_n(&store->records->named, __ATOMIC_RELAXED) != 0))
        return TL_OK;
    int status = sync_folder(store);
    if (status < 0)
        return tl_fail_sys(err, status, "the folder of transactions cannot be synced", TL_TXN_FOLDER);
    __atomic_store_n(&store->records->named, 1, __ATOMIC_RELEASE);
    TL_POINT("txn.file_named");
    return TL_OK;
}

static int map_file(tl_store *store, tl_error *err) {
    int fd = tl_os->open(store->dir, TL_TXN_FILE, O_RDWR, 0);
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "there are no records of transactions", TL_TXN_FILE, -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the records of transactions cannot be opened", TL_TXN_FILE);
    tl_stat stat;
    void *at = NULL;
    int status = tl_os->stat(fd, &stat);
    if (status == 0 && stat.size_bytes < TL_PAGE)
        status = TL_ECORRUPT;
    else if (status == 0)
        status = tl_os->map(fd, 0, TL_TXN_MAP_BYTES, true, &at);
    if (status < 0) {
        tl_os->close(fd);
        return status == TL_ECORRUPT ? tl_fail(err, TL_ECORRUPT, "the file of transactions is too short", TL_TXN_FILE, 0)
                                     : tl_fail_sys(err, status, "the records of transactions cannot be mapped", TL_TXN_FILE);
    }
    status = check_header(at, stat.size_bytes, err);
    if (status < 0) {
        tl_os->unmap(at, TL_TXN_MAP_BYTES);
        tl_os->close(fd);
        return status;
    }
    store->records_fd = fd;
    __atomic_store_n(&store->records, (tl_txn_file *)at, __ATOMIC_RELEASE);
    return TL_OK;
}

int tl_txn_map(tl_store *store, bool create_it, tl_error *err) {
    if (__atomic_load_n(&store->records, __ATOMIC_ACQUIRE) != NULL)
        return TL_OK;
    pthread_mutex_lock(&store->mutex);
    int status = store->records != NULL ? TL_OK : map_file(store, err);
    if (status == TL_ENOTFOUND && create_it && (status = create(store, err)) == TL_OK)
        status = map_file(store, err);
    pthread_mutex_unlock(&store->mutex);
    return status;
}

void tl_transactions_free(tl_store *store) { tl_txn_unmap(store); }

void tl_txn_unmap(tl_store *store) {
    if (store->records == NULL)
        return;
    tl_os->unmap(store->records, TL_TXN_MAP_BYTES);
    tl_os->close(store->records_fd);
    store->records = NULL;
}

tl_txn_record *tl_txn_at(tl_store *store, uint32_t slot) {
    tl_txn_file *file = __atomic_load_n(&store->records, __ATOMIC_ACQUIRE);
    if (file == NULL || slot >= slots_of(file))
        return NULL;
    return (tl_txn_record *)(void *)((uint8_t *)file + (size_t)(slot + 1) * TL_PAGE);
}

uint32_t tl_txn_used(const tl_store *store) {
    uint32_t used = __atomic_load_n(&store->header->transactions, __ATOMIC_ACQUIRE);
    return used < TL_TXN_MOST_SLOTS ? used : TL_TXN_MOST_SLOTS;
}

/* --- slots --- */

static int grow(tl_store *store, tl_error *err) {
    uint32_t slots = slots_of(store->records), more = slots < TL_TXN_MOST_SLOTS / 2 ? 2 * slots : TL_TXN_MOST_SLOTS;
    if (more <= slots)
        return tl_fail(err, TL_EFULL, "16384 records of transactions are in use", TL_TXN_FILE, -1);
    uint64_t from = ((uint64_t)slots + 1) * TL_PAGE;
    int status = tl_os->fallocate(store->records_fd, from, (uint64_t)(more - slots) * TL_PAGE);
    if (status < 0)
        return tl_fail_sys(err, status, "no space can be allocated for records of transactions", TL_TXN_FILE);
    TL_POINT("txn.file_grown");
    __atomic_store_n(&store->records->slots, tl_guarded(more), __ATOMIC_RELEASE);
    return TL_OK;
}

int tl_txn_free_slot(tl_store *store, uint32_t *slot, tl_error *err) {
    uint32_t used = tl_txn_used(store), hint = __atomic_load_n(&store->records_hint, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < used; i++) {
        uint32_t at = (hint + i) % used;
        const tl_txn_record *record = tl_txn_at(store, at);
        if (record != NULL && tl_txn_state(record) == TL_TXN_FREE) {
            __atomic_store_n(&store->records_hint, at + 1, __ATOMIC_RELAXED);
            *slot = at;
            return TL_OK;
        }
    }
    if (used >= slots_of(store->records)) {
        int status = grow(store, err);
        if (status < 0)
            return status;
    }
    tl_txn_record *record = tl_txn_at(store, used);
    if (record == NULL)
        return tl_fail(err, TL_ECORRUPT, "the file of transactions is shorter than it says", TL_TXN_FILE, 16);
    __atomic_store_n(&record->state, TL_TXN_FREE, __ATOMIC_RELAXED); /* of an earlier boot */
    __atomic_store_n(&store->header->transactions, used + 1, __ATOMIC_RELEASE);
    *slot = used;
    return TL_OK;
}

uint32_t tl_txn_crc(const tl_txn_record *record) {
    uint32_t crc = tl_crc32c(0, &record->number, offsetof(tl_txn_record, deadline_ns) - offsetof(tl_txn_record, number));
    for (uint32_t i = 0; i < record->used && i < TL_TXN_UNITS; i++)
        crc = tl_crc32c(crc, &record->units[i], offsetof(tl_txn_unit, place));
    return crc;
}

uint32_t tl_txn_span(const tl_txn_unit *unit, uint32_t left) {
    uint64_t span = 0;
    if (unit->kind == TL_TXN_PARTITION)
        span = 1;
    else if (unit->kind == TL_TXN_OFFSET)
        span = 2;
    else if (unit->kind == TL_TXN_GROUP && unit->id <= TL_OFFSETS_MAX_GROUP_BYTES)
        span = 1 + (unit->id + TL_TXN_NAME_BYTES - 1) / TL_TXN_NAME_BYTES;
    return span <= left ? (uint32_t)span : 0;
}

/* --- on disk --- */

static int failed(tl_store *store, tl_error *err) {
    tl_fail(err, TL_EFAILED,
            "a sync of the records of transactions failed: close the store everywhere and open it again", TL_TXN_FILE, -1);
    if (err != NULL)
        err->sys_errno = (int)__atomic_load_n(&store->header->transactions_failed, __ATOMIC_RELAXED);
    return TL_EFAILED;
}

/* A leader died inside its sync and may have collected an error that the kernel reports once: written once more, the pages
 * bring it up again. */
static void dirty_again(tl_store *store) {
    for (uint32_t slot = 0; slot < tl_txn_used(store); slot++) {
        tl_txn_record *record = tl_txn_at(store, slot);
        if (record != NULL)
            (void)__atomic_fetch_or(&record->state, 0, __ATOMIC_RELAXED);
    }
    TL_POINT("txn.dirtied_again");
}

/* Under records_sync_lock. */
static int lead(tl_store *store, uint64_t sequence, tl_error *err) {
    tl_shared_header *header = store->header;
    if (__atomic_load_n(&header->transactions_failed, __ATOMIC_ACQUIRE) != 0)
        return failed(store, err);
    if (__atomic_load_n(&header->decisions_synced, __ATOMIC_ACQUIRE) >= sequence)
        return TL_OK;
    int status = tl_txn_map(store, false, err);
    if (status < 0)
        return status;
    uint64_t upto = __atomic_load_n(&header->decisions, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&header->records_syncing, __ATOMIC_ACQUIRE) != 0)
        dirty_again(store);
    __atomic_store_n(&header->records_syncing, 1, __ATOMIC_SEQ_CST);
    TL_POINT("txn.records_syncing");
    status = tl_os->fdatasync(store->records_fd);
    if (status < 0) {
        __atomic_store_n(&header->transactions_failed, (uint32_t)-status, __ATOMIC_SEQ_CST);
        return failed(store, err);
    }
    __atomic_store_n(&header->decisions_synced, upto, __ATOMIC_RELEASE);
    __atomic_store_n(&header->records_syncing, 0, __ATOMIC_RELEASE);
    TL_POINT("txn.records_synced");
    return TL_OK;
}

int tl_txn_sync(tl_store *store, uint64_t sequence, tl_error *err) {
    tl_shared_header *header = store->header;
    if (__atomic_load_n(&header->decisions_synced, __ATOMIC_ACQUIRE) >= sequence)
        return TL_OK;
    int status = tl_store_take(store, &header->records_sync_lock, "the records of transactions are being synced", err);
    if (status < 0)
        return status;
    status = lead(store, sequence, err);
    tl_lock_release(&header->records_sync_lock, store->me);
    return status;
}

int tl_txn_reset(tl_store *store, tl_error *err) {
    tl_txn_unmap(store);
    int status = tl_os->unlink(store->dir, TL_TXN_FILE, false);
    TL_POINT("txn.file_removed");
    if (status == -ENOENT)
        return TL_OK;
    if (status == 0)
        status = sync_folder(store);
    return status < 0 ? tl_fail_sys(err, status, "the records of transactions cannot be removed", TL_TXN_FILE) : TL_OK;
}

/* What the page cache says goes into a new file, on disk before it takes the place of the old one, which cannot be trusted. */
int tl_txn_write_anew(tl_store *store, tl_error *err) {
    int status = tl_txn_map(store, false, err);
    if (status < 0)
        return status == TL_ENOTFOUND ? TL_OK : status;
    uint64_t bytes = ((uint64_t)slots_of(store->records) + 1) * TL_PAGE;
    int fd = tl_os->open(store->dir, NEW_FILE, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the records of transactions cannot be written anew", NEW_FILE);
    status = tl_os->fallocate(fd, 0, bytes);
    if (status == 0) {
        int64_t written = tl_os->pwrite(fd, store->records, bytes, 0);
        status = written < 0 ? (int)written : tl_os->fsync(fd);
    }
    tl_os->close(fd);
    if (status == 0)
        status = tl_os->rename(store->dir, NEW_FILE, store->dir, TL_TXN_FILE);
    if (status == 0)
        status = sync_folder(store);
    if (status < 0)
        return tl_fail_sys(err, status, "the records of transactions cannot be written anew", TL_TXN_FILE);
    TL_POINT("txn.file_anew");
    tl_txn_unmap(store);
    tl_shared_header *header = store->header;
    header->decisions_synced = header->decisions;
    header->records_syncing = header->transactions_failed = 0;
    return tl_txn_map(store, false, err);
}

int tl_txn_load(tl_store *store, tl_txn_record **out, uint32_t *count, tl_error *err) {
    *out = NULL;
    *count = 0;
    int fd = tl_os->open(store->dir, TL_TXN_FILE, O_RDONLY, 0);
    if (fd == -ENOENT)
        return TL_OK;
    if (fd < 0)
        return tl_fail_sys(err, fd, "the records of transactions cannot be opened", TL_TXN_FILE);
    tl_txn_file file;
    tl_stat stat = {0};
    int64_t got = tl_os->stat(fd, &stat);
    if (got == 0)
        got = tl_os->pread(fd, &file, sizeof file, 0);
    int status = got < 0 ? tl_fail_sys(err, (int)got, "the records of transactions cannot be read", TL_TXN_FILE)
                 : (size_t)got < sizeof file
                     ? tl_fail(err, TL_ECORRUPT, "the file of transactions is too short", TL_TXN_FILE, 0)
                     : check_header(&file, stat.size_bytes, err);
    uint32_t slots = status == TL_OK ? slots_of(&file) : 0;
    if (status == TL_OK && (*out = tl_calloc(slots, sizeof **out)) == NULL)
        status = tl_fail(err, TL_ENOMEM, "no memory for the records of transactions", TL_TXN_FILE, -1);
    if (status == TL_OK) {
        got = tl_os->pread(fd, *out, (size_t)slots * TL_PAGE, TL_PAGE);
        if (got < 0)
            status = tl_fail_sys(err, (int)got, "the records of transactions cannot be read", TL_TXN_FILE);
        else
            *count = (uint32_t)(got / TL_PAGE);
    }
    tl_os->close(fd);
    if (status < 0) {
        tl_os->free(*out);
        *out = NULL;
    }
    return status;
}
