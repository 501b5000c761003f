/* How does the state move to the other checkpoint file, whoever dies meanwhile?
 *
 * Imports checkpoint_write.h, os.h. Thread rule: see checkpoint.h; the locks are the caller's.
 *
 * Invariants:
 * - The file that is overwritten is never the only synced copy: a snapshot goes to the file that is not active, and the
 *   active one was synced when it became active (by the snapshot, or by recovery).
 * - Nothing is published to a generation while a whole header of a newer one may stand in the other file: recovery
 *   would take that one and lose what was published. PENDING says that it may; whoever comes next wipes the header. */
#include "checkpoint_write.h"
#include "tidelog/os.h"

#define CHUNK_BYTES (128u << 10)    /* snapshot groups; holds the largest record */
#define SPARE_BYTES (256u << 10)    /* room for changes after a snapshot, besides as much again as the snapshot */
#define GROWTH_BYTES (64u << 10)

/* A snapshot writer died, or failed, between its header and the switch. */
int tl_checkpoint_wipe_pending(tl_checkpoint *c, tl_error *err) {
    if (!(LOAD(c->words->state) & TL_CHECKPOINT_PENDING))
        return TL_OK;
    unsigned slot = 1 - (LOAD(c->words->generation) & 1);
    static const uint8_t blank[TL_CHECKPOINT_PAGE_BYTES];
    int result = tl_checkpoint_write_bytes(c->snapshot_fd[slot], slot, blank, sizeof blank, 0, err);
    TL_POINT("checkpoint.snapshot.header_cleared");
    if (result == TL_OK)
        result = tl_checkpoint_sync_file(c, c->snapshot_fd[slot], slot, err);
    if (result == TL_OK)
        __atomic_fetch_and(&c->words->state, ~(uint32_t)TL_CHECKPOINT_PENDING, __ATOMIC_SEQ_CST);
    return result;
}

/* Grows the file to hold the snapshot twice and some; on a full disk what it has will do if the snapshot fits. */
static int make_room(int fd, unsigned slot, uint64_t need, uint64_t extra, uint64_t *size_bytes, tl_error *err) {
    tl_stat stat;
    int result = tl_os->stat(fd, &stat);
    if (result < 0)
        return tl_fail_sys(err, result, "the size of a checkpoint file could not be read", tl_checkpoint_names[slot]);
    uint64_t want = (2 * need + SPARE_BYTES + extra + GROWTH_BYTES - 1) / GROWTH_BYTES * GROWTH_BYTES;
    if (want < TL_CHECKPOINT_INITIAL_BYTES)
        want = TL_CHECKPOINT_INITIAL_BYTES;
    if (want > TL_CHECKPOINT_MAX_BYTES)
        want = TL_CHECKPOINT_MAX_BYTES;
    if (need > want)
        return tl_fail(err, TL_EFULL, "the checkpoint holds more than a file may; drop channels or groups",
                       tl_checkpoint_names[slot], -1);
    *size_bytes = stat.size_bytes;
    if (want <= stat.size_bytes)
        return TL_OK;
    result = tl_checkpoint_grow(fd, slot, stat.size_bytes, want, err);
    if (result == TL_OK)
        *size_bytes = want;
    else if (result == TL_ENOSPC && need <= stat.size_bytes)
        result = TL_OK;
    return result;
}

/* Copies the live records into groups of up to CHUNK_BYTES; sets where they end in `file`. */
static int write_groups(int fd, const tl_checkpoint_body *body, tl_checkpoint_file *file, tl_error *err) {
    uint8_t *chunk = tl_os->malloc(CHUNK_BYTES);
    if (chunk == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to write a checkpoint", "", -1);
    tl_checkpoint_place place = {.generation = file->generation, .position = TL_CHECKPOINT_FIRST, .salt = file->salt,
                                 .previous = tl_checkpoint_chain_start(file->generation, file->salt)};
    uint32_t used = TL_CHECKPOINT_GROUP_HEADER_BYTES, count = 0;
    int result = TL_OK;
    for (uint64_t i = 0; i <= body->live_count && result == TL_OK; i++) {
        tl_checkpoint_entry entry = {0};
        uint64_t at = i < body->live_count ? (uint64_t)body->live[i] << 3 : 0;
        if (at != 0 && !tl_checkpoint_entry_read(body->bytes + at, body->end - TL_CHECKPOINT_FIRST - at, &entry))
            continue;
        if (count > 0 && (at == 0 || used + entry.bytes > CHUNK_BYTES)) {
            place.previous = tl_checkpoint_group_seal(chunk, used, count, &place);
            result = tl_checkpoint_write_bytes(fd, file->generation & 1, chunk, used, place.position, err);
            place.position += used;
            used = TL_CHECKPOINT_GROUP_HEADER_BYTES;
            count = 0;
        }
        if (at == 0)
            break;
        memcpy(chunk + used, body->bytes + at, entry.bytes);
        used += entry.bytes;
        count++;
    }
    tl_os->free(chunk);
    file->snapshot_records = body->live_count;
    file->snapshot_end = place.position;
    file->snapshot_chain = place.previous;
    return result;
}

/* Two syncs, and the header between them: a whole header promises whole records behind it, so damage there is never
 * taken for a snapshot that was cut short. */
static int write_snapshot(tl_checkpoint *c, const tl_checkpoint_body *body, uint64_t generation, uint64_t extra,
                          tl_error *err) {
    unsigned slot = generation & 1;
    int fd = c->snapshot_fd[slot];
    tl_checkpoint_file file = {.name = tl_checkpoint_names[slot], .generation = generation};
    int result = tl_os->random(&file.salt, sizeof file.salt);
    if (result < 0)
        return tl_fail_sys(err, result, "the kernel gave no random bytes", "/dev/urandom");
    uint64_t groups = body->live_bytes / (CHUNK_BYTES / 4) + 2; /* two neighbours fill one chunk */
    uint64_t need = TL_CHECKPOINT_FIRST + body->live_bytes + groups * TL_CHECKPOINT_GROUP_HEADER_BYTES;
    result = make_room(fd, slot, need, extra, &file.size_bytes, err);
    TL_POINT("checkpoint.snapshot.grown");
    if (result == TL_OK)
        result = write_groups(fd, body, &file, err);
    TL_POINT("checkpoint.snapshot.written");
    if (result == TL_OK)
        result = tl_checkpoint_sync_file(c, fd, slot, err);
    if (result != TL_OK)
        return result;
    TL_POINT("checkpoint.snapshot.body_synced");
    __atomic_fetch_or(&c->words->state, TL_CHECKPOINT_PENDING, __ATOMIC_SEQ_CST);
    result = tl_checkpoint_write_header(fd, &file, err);
    TL_POINT("checkpoint.snapshot.header_written");
    if (result == TL_OK)
        result = tl_checkpoint_sync_file(c, fd, slot, err);
    if (result != TL_OK)
        return result;
    TL_POINT("checkpoint.snapshot.synced");
    tl_checkpoint_publish_file(c, &file, file.snapshot_end, file.snapshot_chain);
    TL_POINT("checkpoint.snapshot.switched");
    /* A writer that dies before this line makes the next one wipe the file that was left behind, which is harmless. */
    __atomic_fetch_and(&c->words->state, ~(uint32_t)TL_CHECKPOINT_PENDING, __ATOMIC_SEQ_CST);
    return TL_OK;
}

int tl_checkpoint_snapshot_for(tl_checkpoint *c, uint64_t extra, tl_error *err) {
    uint64_t generation = LOAD(c->words->generation);
    tl_checkpoint_body body;
    int result = tl_checkpoint_read_active(c, generation, &body, err);
    if (result == TL_OK)
        result = write_snapshot(c, &body, generation + 1, extra, err);
    tl_checkpoint_body_free(&body);
    if (result != TL_OK)
        return result;
    unsigned old = generation & 1;
    int fd = c->snapshot_fd[old];
    /* The mark guards against later damage only: that it could not be written is no reason to fail. */
    if (tl_checkpoint_write_mark(fd, old, TL_CHECKPOINT_SUPERSEDED, generation, generation + 1, NULL) == TL_OK)
        result = tl_checkpoint_sync_file(c, fd, old, err);
    TL_POINT("checkpoint.snapshot.superseded");
    return result;
}

int tl_checkpoint_snapshot(tl_checkpoint *c, tl_error *err) {
    int result = tl_checkpoint_check_usable(c, err);
    if (result == TL_OK)
        result = tl_checkpoint_wipe_pending(c, err);
    return result == TL_OK ? tl_checkpoint_snapshot_for(c, 0, err) : result;
}
