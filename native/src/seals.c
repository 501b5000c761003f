/* What does the file `seals` say about the segments of a partition that are complete?
 *
 * Imports handles.h. Writing needs the partition's lock; reading takes none: entry k is complete before the tail moves to
 * ordinal k + 1, and carries its own CRC.
 * Layout: 64 bytes of header {magic, version, entry size, CRC}, then one 48-byte tl_seal by segment ordinal. */
#include "handles.h"

#include "tidelog/crc32c.h"
#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define MAGIC 0x31736c6165736474u /* "tdseals1" */
#define VERSION 1u

static void seals_path(const tl_partition *partition, char out[360]) {
    snprintf(out, 360, "%s/seals", partition->cold->directory);
}

static void put_header(uint8_t header[TL_SEALS_HEADER]) {
    memset(header, 0, TL_SEALS_HEADER);
    tl_put_le64(header, MAGIC);
    tl_put_le32(header + 8, VERSION);
    tl_put_le32(header + 12, (uint32_t)sizeof(tl_seal));
    tl_put_le32(header + 60, tl_crc32c(0, header, 60));
}

static bool header_ok(const uint8_t *header) {
    uint8_t wanted[TL_SEALS_HEADER];
    put_header(wanted);
    return memcmp(header, wanted, TL_SEALS_HEADER) == 0;
}

/* Whoever made the file died before its header was whole, or the header is damaged. It says nothing that is not known and
 * entries carry their own CRCs, so a writer makes it anew. A whole header that is another one is of another format. */
static bool header_lost(int fd) {
    uint8_t there[TL_SEALS_HEADER];
    if (tl_os->pread(fd, there, sizeof there, 0) != sizeof there)
        return false;
    return !header_ok(there) && tl_le32(there + 60) != tl_crc32c(0, there, 60);
}

/* Opens, if need be creates, checks and maps. The partition's mutex is held. */
static int map_locked(tl_partition *partition, bool create, tl_error *err) {
    tl_store *store = partition->store;
    char path[360];
    seals_path(partition, path);
    int fd = tl_os->open(store->dir, path, create ? O_RDWR | O_CREAT : O_RDWR, TL_FILE_MODE);
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "the file of seals is missing", path, -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the file of seals cannot be opened", path);
    tl_stat stat;
    int status = tl_os->stat(fd, &stat);
    if (status < 0) {
        tl_os->close(fd);
        return tl_fail_sys(err, status, "the file of seals cannot be looked at", path);
    }
    bool fresh = stat.size_bytes < TL_PAGE;
    if (create && (fresh || header_lost(fd))) {
        uint8_t header[TL_SEALS_HEADER];
        put_header(header);
        status = fresh ? tl_os->fallocate(fd, 0, TL_PAGE) : 0;
        if (status == 0) {
            int64_t written = tl_os->pwrite(fd, header, sizeof header, 0);
            status = written < 0 ? (int)written : 0;
        }
        stat.size_bytes = fresh ? TL_PAGE : stat.size_bytes;
    }
    if (status < 0) {
        tl_os->close(fd);
        return tl_fail_sys(err, status, "the file of seals cannot be written", path);
    }
    if (stat.size_bytes < TL_PAGE || stat.size_bytes > TL_SEALS_MAX_BYTES) {
        tl_os->close(fd);
        return tl_fail(err, TL_ECORRUPT, "the file of seals has an impossible size", path, (int64_t)stat.size_bytes);
    }
    void *at = partition->seals;
    if (partition->seals == NULL) {
        status = tl_os->map(fd, 0, TL_SEALS_MAX_BYTES, true, &at);
        if (status < 0) {
            tl_os->close(fd);
            return tl_fail_sys(err, status, "the file of seals cannot be mapped", path);
        }
    }
    tl_os->close(fd);
    bool ok = false;
    tl_guard guard;
    TL_GUARDED(guard) { ok = header_ok(at); }
    TL_GUARD_CAUGHT(guard) { ok = false; }
    if (!ok) {
        if (partition->seals == NULL)
            tl_os->unmap(at, TL_SEALS_MAX_BYTES);
        return tl_fail(err, TL_ECORRUPT, "the header of the file of seals is damaged", path, 0);
    }
    partition->seals = at;
    __atomic_store_n(&partition->seals_allocated, (uint32_t)(stat.size_bytes / TL_PAGE * TL_PAGE), __ATOMIC_RELEASE);
    return TL_OK;
}

int tl_seals_map(tl_partition *partition, bool create, tl_error *err) {
    pthread_mutex_lock(&partition->mutex);
    int status = partition->seals != NULL ? TL_OK : map_locked(partition, create, err);
    pthread_mutex_unlock(&partition->mutex);
    return status;
}

int tl_seals_check_header(tl_partition *partition, tl_error *err) {
    char path[360];
    seals_path(partition, path);
    int status = tl_seals_map(partition, false, err);
    if (status < 0)
        return status;
    volatile bool ok = false;
    tl_guard guard;
    TL_GUARDED(guard) { ok = header_ok(partition->seals); }
    TL_GUARD_CAUGHT(guard) { ok = false; }
    return ok ? TL_OK : tl_fail(err, TL_ECORRUPT, "the header of the file of seals is damaged", path, 0);
}

static uint64_t entry_at(uint32_t ordinal) { return TL_SEALS_HEADER + (uint64_t)ordinal * sizeof(tl_seal); }

static int ensure_room(tl_partition *partition, uint64_t until, tl_error *err) {
    if (until <= __atomic_load_n(&partition->seals_allocated, __ATOMIC_ACQUIRE))
        return TL_OK;
    char path[360];
    seals_path(partition, path);
    if (until > TL_SEALS_MAX_BYTES)
        return tl_fail(err, TL_EFULL, "a partition has more segments than its file of seals can hold", path, -1);
    int fd = tl_os->open(partition->store->dir, path, O_RDWR, 0);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the file of seals cannot be opened", path);
    uint64_t target = (until + TL_PAGE - 1) / TL_PAGE * TL_PAGE + TL_PAGE;
    target = target > TL_SEALS_MAX_BYTES ? TL_SEALS_MAX_BYTES : target;
    int status = tl_os->fallocate(fd, 0, target);
    tl_os->close(fd);
    if (status < 0)
        return tl_fail_sys(err, status, "no space can be allocated for the file of seals", path);
    __atomic_store_n(&partition->seals_allocated, (uint32_t)target, __ATOMIC_RELEASE);
    return TL_OK;
}

int tl_seals_put(tl_partition *partition, uint32_t ordinal, const tl_seal *seal, tl_error *err) {
    int status = tl_seals_map(partition, true, err);
    if (status == TL_OK)
        status = ensure_room(partition, entry_at(ordinal) + sizeof *seal, err);
    if (status < 0)
        return status;
    tl_seal stored = *seal;
    stored.crc = tl_crc32c(0, &stored, offsetof(tl_seal, crc));
    tl_guard guard;
    TL_GUARDED(guard) { memcpy(partition->seals + entry_at(ordinal), &stored, sizeof stored); }
    TL_GUARD_CAUGHT(guard) {
        char path[360];
        seals_path(partition, path);
        return tl_fail(err, TL_EBUS, "the file of seals cannot be written", path, (int64_t)entry_at(ordinal));
    }
    return TL_OK;
}

/* Damage of an entry is no damage of its segment. */
int tl_seals_get(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err) {
    int status = tl_seals_read(partition, ordinal, out, err);
    bool lost = status == TL_ECORRUPT || status == TL_EBUS || status == TL_ENOTFOUND;
    return lost && tl_seals_guess(partition, ordinal, out, NULL) == TL_OK ? TL_OK : status;
}

int tl_seals_read(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err) {
    int status = tl_seals_map(partition, false, err);
    if (status < 0)
        return status;
    char path[360];
    uint64_t until = entry_at(ordinal) + sizeof *out;
    if (until > __atomic_load_n(&partition->seals_allocated, __ATOMIC_ACQUIRE)) {
        pthread_mutex_lock(&partition->mutex); /* another process may have grown it */
        status = map_locked(partition, false, err);
        pthread_mutex_unlock(&partition->mutex);
        if (status < 0)
            return status;
        if (until > __atomic_load_n(&partition->seals_allocated, __ATOMIC_ACQUIRE)) {
            seals_path(partition, path);
            return tl_fail(err, TL_ENOTFOUND, "the file of seals has no entry for a segment", path,
                           (int64_t)entry_at(ordinal));
        }
    }
    tl_guard guard;
    TL_GUARDED(guard) { memcpy(out, partition->seals + entry_at(ordinal), sizeof *out); }
    TL_GUARD_CAUGHT(guard) {
        seals_path(partition, path);
        return tl_fail(err, TL_EBUS, "the file of seals cannot be read", path, (int64_t)entry_at(ordinal));
    }
    if (out->crc == tl_crc32c(0, out, offsetof(tl_seal, crc)) && out->base_offset >= 0 &&
        out->length <= TL_MAX_SEGMENT_BYTES)
        return TL_OK;
    seals_path(partition, path);
    return tl_fail(err, TL_ECORRUPT, "an entry of the file of seals is damaged", path, (int64_t)entry_at(ordinal));
}
