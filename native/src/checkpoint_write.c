/* How is one thing written to a checkpoint file, and its failure remembered?
 *
 * Imports checkpoint_write.h, os.h. Thread rule: see checkpoint.h; the locks are the caller's. */
#include "checkpoint_write.h"

#include "tidelog/os.h"

#include <errno.h>

int tl_checkpoint_sync_file(tl_checkpoint *c, int fd, unsigned slot, tl_error *err) {
    int result = tl_os->fdatasync(fd);
    if (result >= 0)
        return TL_OK;
    TL_POINT("checkpoint.sync.failed");
    if (!TL_BUG(FSYNC_RETRIED))
        __atomic_fetch_or(&c->words->state, TL_CHECKPOINT_FAILED, __ATOMIC_SEQ_CST);
    tl_fail(err, TL_EFAILED, "a checkpoint file could not be synced; nothing more is accepted until the store has been "
            "closed by everybody and opened again", tl_checkpoint_names[slot], -1);
    if (err != NULL)
        err->sys_errno = -result;
    return TL_EFAILED;
}

int tl_checkpoint_write_bytes(int fd, unsigned slot, const void *from, size_t bytes, uint64_t to, tl_error *err) {
    int64_t n = tl_os->pwrite(fd, from, bytes, to);
    if (n < 0)
        return tl_fail_sys(err, (int)n, "a checkpoint file could not be written", tl_checkpoint_names[slot]);
    return TL_OK;
}

int tl_checkpoint_write_mark(int fd, unsigned slot, uint32_t kind, uint64_t generation, uint64_t value, tl_error *err) {
    uint8_t mark[TL_CHECKPOINT_MARK_BYTES];
    tl_checkpoint_mark_encode(mark, kind, generation, value);
    uint64_t at = kind == TL_CHECKPOINT_SYNCED ? TL_CHECKPOINT_SYNCED_AT : TL_CHECKPOINT_SUPERSEDED_AT;
    return tl_checkpoint_write_bytes(fd, slot, mark, sizeof mark, at, err);
}

/* Blocks are allocated and then written with zeros: a sync of blocks that were only allocated has to commit a change of
 * the file's extents each time, one of written blocks has not. Where the file system cannot allocate, the zeros do. */
int tl_checkpoint_grow(int fd, unsigned slot, uint64_t from, uint64_t to, tl_error *err) {
    static const uint8_t zeros[16384];
    int result = tl_os->fallocate(fd, from, to - from);
    if (result < 0 && result != -EOPNOTSUPP)
        return tl_fail_sys(err, result, "no room could be allocated for a checkpoint file", tl_checkpoint_names[slot]);
    for (uint64_t at = from; at < to; at += sizeof zeros) {
        result = tl_checkpoint_write_bytes(fd, slot, zeros, to - at < sizeof zeros ? to - at : sizeof zeros, at, err);
        if (result != TL_OK)
            return result;
    }
    return TL_OK;
}

void tl_checkpoint_publish_file(tl_checkpoint *c, const tl_checkpoint_file *file, uint64_t end, uint32_t chain) {
    unsigned slot = file->generation & 1;
    STORE(c->words->tail[slot], tl_checkpoint_tail_word(chain, end));
    STORE(c->words->synced[slot], tl_checkpoint_synced_word(file->generation, end));
    STORE(c->words->allocated[slot], (uint32_t)(file->size_bytes / TL_CHECKPOINT_PAGE_BYTES));
    STORE(c->words->salt[slot], file->salt);
    STORE(c->words->generation, file->generation);
}

int tl_checkpoint_write_header(int fd, const tl_checkpoint_file *file, tl_error *err) {
    uint8_t page[TL_CHECKPOINT_PAGE_BYTES];
    tl_checkpoint_header_encode(page, file);
    return tl_checkpoint_write_bytes(fd, file->generation & 1, page, sizeof page, 0, err);
}

int tl_checkpoint_check_usable(const tl_checkpoint *c, tl_error *err) {
    if (LOAD(c->words->generation) == 0)
        return tl_fail(err, TL_EINVAL, "the checkpoint was not recovered before its first use", "", -1);
    if (LOAD(c->words->state) & TL_CHECKPOINT_FAILED)
        return tl_fail(err, TL_EFAILED, "a checkpoint file could not be synced earlier; close the store everywhere and "
                       "open it again", "", -1);
    return TL_OK;
}

int tl_checkpoint_read_active(const tl_checkpoint *c, uint64_t generation, tl_checkpoint_body *body, tl_error *err) {
    unsigned slot = generation & 1;
    *body = (tl_checkpoint_body){0};
    tl_checkpoint_file file;
    int result = tl_checkpoint_inspect(c->fd[slot], slot, &file, err);
    if (result == TL_OK && (!file.whole || file.generation != generation))
        result = tl_fail(err, TL_ECORRUPT, "the header of the active checkpoint file is damaged", file.name, 0);
    if (result == TL_OK)
        result = tl_checkpoint_read(c->fd[slot], &file, LOAD(c->words->tail[slot]), body, err);
    if (result == TL_OK)
        result = tl_checkpoint_merge(body, err);
    return result;
}
