/* How does a checkpoint begin: made new, recovered after a power cut, or only looked at?
 *
 * Imports checkpoint_write.h, os.h. create, open and recover run under the exclusive gate of the store; check changes
 * nothing. */
#include "checkpoint_write.h"
#include "tidelog/os.h"

#include <errno.h>
#include <fcntl.h>

static int open_files(tl_checkpoint *c, int dir, int flags, unsigned mode, tl_checkpoint_words *words, tl_error *err) {
    *c = (tl_checkpoint){.dir = dir, .fd = {-1, -1}, .snapshot_fd = {-1, -1}, .words = words};
    int result = TL_OK, missing = 0;
    for (unsigned i = 0; i < 4 && result == TL_OK; i++) {
        int *fd = i < 2 ? &c->fd[i] : &c->snapshot_fd[i - 2];
        *fd = tl_os->open(dir, tl_checkpoint_names[i & 1], i < 2 ? flags : O_RDWR, mode);
        if (*fd == -ENOENT && i < 2)
            missing++;
        else if (*fd < 0)
            result = tl_fail_sys(err, *fd, "a checkpoint file could not be opened", tl_checkpoint_names[i & 1]);
        if (i == 1 && missing != 0) {
            int code = missing == 2 ? TL_ENOTFOUND : TL_ECORRUPT;
            result = tl_fail(err, code, "the checkpoint file is missing", tl_checkpoint_names[c->fd[0] >= 0], 0);
        }
    }
    if (result != TL_OK)
        tl_checkpoint_close(c);
    return result;
}

int tl_checkpoint_open(tl_checkpoint *c, int dir, tl_checkpoint_words *words, tl_error *err) {
    return open_files(c, dir, O_RDWR, 0, words, err);
}

void tl_checkpoint_close(tl_checkpoint *c) {
    for (int i = 0; i < 2; i++) {
        if (c->fd[i] >= 0)
            tl_os->close(c->fd[i]);
        if (c->snapshot_fd[i] >= 0)
            tl_os->close(c->snapshot_fd[i]);
        c->fd[i] = c->snapshot_fd[i] = -1;
    }
}

/* The first header comes last: until it is there, what a killed creation left is no checkpoint and is replaced. */
static int fill_new_files(tl_checkpoint *c, tl_error *err) {
    tl_checkpoint_file files[2];
    int result = TL_OK;
    for (unsigned slot = 0; slot < 2 && result == TL_OK; slot++) {
        result = tl_checkpoint_inspect(c->fd[slot], slot, &files[slot], err);
        if (result == TL_OK && files[slot].whole)
            result = tl_fail(err, TL_EEXIST, "there is a checkpoint already", tl_checkpoint_names[slot], 0);
    }
    for (unsigned slot = 0; slot < 2 && result == TL_OK; slot++) {
        int cut = tl_os->ftruncate(c->fd[slot], 0);
        if (cut < 0)
            return tl_fail_sys(err, cut, "a checkpoint file could not be emptied", tl_checkpoint_names[slot]);
        result = tl_checkpoint_grow(c->fd[slot], slot, 0, TL_CHECKPOINT_INITIAL_BYTES, err);
        int synced = result == TL_OK ? tl_os->fsync(c->fd[slot]) : 0;
        if (synced < 0)
            return tl_fail_sys(err, synced, "a new checkpoint file could not be synced", tl_checkpoint_names[slot]);
    }
    int synced = result == TL_OK ? tl_os->fsync(c->dir) : 0;
    if (synced < 0)
        return tl_fail_sys(err, synced, "the directory of a new checkpoint could not be synced", ".");
    if (result != TL_OK)
        return result;
    TL_POINT("checkpoint.create.allocated");
    tl_checkpoint_file first = {.size_bytes = TL_CHECKPOINT_INITIAL_BYTES,
                                .generation = TL_CHECKPOINT_FIRST_GENERATION,
                                .snapshot_end = TL_CHECKPOINT_FIRST};
    int drawn = tl_os->random(&first.salt, sizeof first.salt);
    if (drawn < 0)
        return tl_fail_sys(err, drawn, "the kernel gave no random bytes", "/dev/urandom");
    first.snapshot_chain = tl_checkpoint_chain_start(first.generation, first.salt);
    result = tl_checkpoint_write_header(c->fd[0], &first, err);
    if (result == TL_OK)
        result = tl_checkpoint_sync_file(c, c->fd[0], 0, err);
    if (result == TL_OK)
        tl_checkpoint_publish_file(c, &first, first.snapshot_end, first.snapshot_chain);
    return result;
}

int tl_checkpoint_create(tl_checkpoint *c, int dir, unsigned mode, tl_checkpoint_words *words, tl_error *err) {
    int result = open_files(c, dir, O_RDWR | O_CREAT, mode, words, err);
    if (result != TL_OK)
        return result;
    STORE(words->state, 0);
    STORE(words->suspect, 0);
    result = fill_new_files(c, err);
    if (result != TL_OK)
        tl_checkpoint_close(c);
    return result;
}

/* Wipes what stands behind the last whole group: half of one that was torn would be whole again if a power cut left the
 * other half of its successor, which may be the same bytes. Returns how far there is anything to write. */
static uint64_t wipe_torn(const tl_checkpoint_file *file, const tl_checkpoint_body *body) {
    uint64_t used = file->size_bytes;
    while (used > body->end && body->bytes[used - 1 - TL_CHECKPOINT_FIRST] == 0)
        used--;
    memset(body->bytes + (body->end - TL_CHECKPOINT_FIRST), 0, used - body->end);
    return used;
}

/* A writer that died may have left the newest copy in the page cache only, and the error of a failed write-back is
 * reported once, perhaps to a process that is dead. So what was read is written back and synced, before anything may
 * overwrite the older copy. The bytes are the same, hence a power cut in between changes nothing. */
static int make_durable(tl_checkpoint *c, const tl_checkpoint_file files[2], unsigned newest,
                        const tl_checkpoint_body *body, tl_error *err) {
    const tl_checkpoint_file *file = &files[newest], *other = &files[1 - newest];
    int fd = c->fd[newest], result = TL_OK;
    if (!TL_BUG(CHECKPOINT_OVERWRITTEN_UNSYNCED)) {
        result = tl_checkpoint_write_header(fd, file, err);
        if (result == TL_OK)
            result = tl_checkpoint_write_bytes(fd, newest, body->bytes, wipe_torn(file, body) - TL_CHECKPOINT_FIRST,
                                               TL_CHECKPOINT_FIRST, err);
        if (result == TL_OK)
            result = tl_checkpoint_sync_file(c, fd, newest, err);
    }
    TL_POINT("checkpoint.recover.synced");
    if (result == TL_OK)
        result = tl_checkpoint_write_mark(fd, newest, TL_CHECKPOINT_SYNCED, file->generation, body->end, err);
    if (result == TL_OK && other->whole && other->superseded_by != file->generation) {
        result = tl_checkpoint_write_mark(c->fd[1 - newest], 1 - newest, TL_CHECKPOINT_SUPERSEDED, other->generation,
                                          file->generation, err);
        if (result == TL_OK)
            result = tl_checkpoint_sync_file(c, c->fd[1 - newest], 1 - newest, err);
    }
    return result;
}

/* durable false: what is read counts as it is, and no byte is written. */
static int find_newest(tl_checkpoint *c, bool durable, tl_error *err) {
    tl_checkpoint_file files[2];
    for (unsigned slot = 0; slot < 2; slot++) {
        int result = tl_checkpoint_inspect(c->fd[slot], slot, &files[slot], err);
        if (result != TL_OK)
            return result;
    }
    int newest = tl_checkpoint_newest(files, err);
    if (newest < 0)
        return newest;
    STORE(c->words->generation, 0);
    STORE(c->words->state, 0);
    STORE(c->words->suspect, 0);
    tl_checkpoint_body body;
    int result = tl_checkpoint_read(c->fd[newest], &files[newest], 0, &body, err);
    if (result == TL_OK && durable)
        result = make_durable(c, files, (unsigned)newest, &body, err);
    if (result == TL_OK)
        tl_checkpoint_publish_file(c, &files[newest], body.end, body.chain);
    tl_checkpoint_body_free(&body);
    return result;
}

int tl_checkpoint_recover(tl_checkpoint *c, tl_error *err) { return find_newest(c, true, err); }

/* --- looking only --- */

int tl_checkpoint_view(tl_checkpoint *c, tl_error *err) { return find_newest(c, false, err); }

int tl_checkpoint_check(int dir, tl_checkpoint_report reports[2], tl_error *err) {
    tl_checkpoint_file files[2] = {{.name = tl_checkpoint_names[0]}, {.name = tl_checkpoint_names[1]}};
    int fds[2] = {-1, -1}, result = TL_OK;
    for (unsigned slot = 0; slot < 2; slot++) {
        reports[slot] = (tl_checkpoint_report){.name = tl_checkpoint_names[slot]};
        fds[slot] = tl_os->open(dir, tl_checkpoint_names[slot], O_RDONLY, 0);
        reports[slot].exists = fds[slot] >= 0;
    }
    for (unsigned slot = 0; slot < 2 && result == TL_OK; slot++) {
        if (fds[slot] == -ENOENT)
            result = tl_fail(err, TL_ECORRUPT, "the checkpoint file is missing", files[slot].name, 0);
        else if (fds[slot] < 0)
            result = tl_fail_sys(err, fds[slot], "a checkpoint file could not be opened", files[slot].name);
        else
            result = tl_checkpoint_inspect(fds[slot], slot, &files[slot], err);
        reports[slot].whole = files[slot].whole;
        reports[slot].size_bytes = files[slot].size_bytes;
        reports[slot].generation = files[slot].generation;
        reports[slot].superseded_by = files[slot].superseded_by;
        reports[slot].synced_end = files[slot].synced_end;
    }
    int newest = result == TL_OK ? tl_checkpoint_newest(files, err) : result;
    if (newest < 0)
        result = newest;
    if (result == TL_OK) {
        tl_checkpoint_body body;
        result = tl_checkpoint_read(fds[newest], &files[newest], 0, &body, err);
        if (result == TL_OK)
            result = tl_checkpoint_merge(&body, err);
        tl_checkpoint_report *report = &reports[newest];
        report->newest = true;
        report->groups = body.groups;
        report->records = body.records;
        report->live_records = body.live_count;
        report->end = body.end;
        tl_checkpoint_body_free(&body);
    }
    for (int slot = 0; slot < 2; slot++) {
        if (fds[slot] >= 0)
            tl_os->close(fds[slot]);
    }
    return result;
}
