/* Is this directory a store, and may it become one?
 *
 * Imports handles.h. Called while a store is opened, under the registry's mutex. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

enum { NFS = 0x6969, SMB = 0x517b, SMB2 = 0xfe534d42u, CIFS = 0xff534d42u, V9FS = 0x01021997, FUSE = 0x65735546 };

static int check_filesystem(tl_store *store, tl_error *err) {
    uint64_t magic = 0;
    int status = tl_os->filesystem(store->dir, &magic);
    if (status < 0)
        return tl_fail_sys(err, status, "the file system of the store cannot be looked at", store->path);
    if (store->options.any_filesystem)
        return TL_OK;
    magic &= 0xffffffffu;
    if (magic == NFS || magic == SMB || magic == SMB2 || magic == CIFS || magic == V9FS || magic == FUSE)
        return tl_fail(err, TL_EUNSUPPORTED, "network and FUSE file systems keep no coherent maps: use a local disk",
                       store->path, -1);
    return TL_OK;
}

/* A power cut while a store is made may take store.lock and leave what was made after it: that is still nobody else's. */
static int has_entry(void *context, const char *name) {
    static const char *const ours[] = {"shared",  "shared.new",       "checkpoint.a", "checkpoint.b",
                                       "offsets", "tidelog.json.new", "lost+found"};
    (void)context;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcmp(name, ours[i]) == 0)
            return 0;
    return 1;
}

int tl_directory_open(tl_store *store, tl_error *err) {
    int fd = tl_os->open(AT_FDCWD, store->path, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOENT && store->options.create) {
        int status = tl_os->mkdir(AT_FDCWD, store->path, TL_DIRECTORY_MODE);
        if (status < 0 && status != -EEXIST)
            return tl_fail_sys(err, status, "the directory of the store cannot be made", store->path);
        fd = tl_os->open(AT_FDCWD, store->path, O_RDONLY | O_DIRECTORY, 0);
    }
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "there is no store here", store->path, -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the directory of the store cannot be opened", store->path);
    store->dir = fd;
    return check_filesystem(store, err);
}

static bool has_identity(tl_store *store) {
    int fd = tl_os->open(store->dir, "tidelog.json", O_RDONLY, 0);
    if (fd >= 0)
        tl_os->close(fd);
    return fd >= 0;
}

/* A store has store.lock from its first moment on; a directory with other things in it is not ours to fill. */
int tl_directory_lock_file(tl_store *store, tl_error *err) {
    int fd = tl_os->open(store->dir, "store.lock", O_RDWR, 0);
    if (fd == -ENOENT && has_identity(store)) {
        fd = tl_os->open(store->dir, "store.lock", O_RDWR, 0); /* another process may just have made both */
        /* Not made here: a process that has the deleted one open would no longer be seen. */
        if (fd == -ENOENT)
            return tl_fail(err, TL_EINVAL,
                           "store.lock is missing in this store: end every process that has the store open, then make "
                           "an empty file of this name in it",
                           store->path, -1);
    }
    if (fd == -ENOENT) {
        if (!store->options.create)
            return tl_fail(err, TL_ENOTFOUND, "there is no store here", store->path, -1);
        int other = tl_os->list(store->dir, NULL, has_entry);
        if (other < 0)
            return tl_fail_sys(err, other, "the directory of the store cannot be listed", store->path);
        fd = tl_os->open(store->dir, "store.lock", O_RDWR, 0);
        if (fd == -ENOENT && other == 1)
            return tl_fail(err, TL_EINVAL, "the directory is not empty and holds no store: give a new or an empty one",
                           store->path, -1);
        if (fd == -ENOENT)
            fd = tl_os->open(store->dir, "store.lock", O_RDWR | O_CREAT, TL_FILE_MODE);
    }
    if (fd < 0)
        return tl_fail_sys(err, fd, "the lock file of the store cannot be opened", store->path);
    store->lock_fd = fd;
    return TL_OK;
}

#define FORMAT_VERSION 1

/* The name of the store's directory, wherever it came from. A parent that may not be opened, or that cannot be synced
 * (the root of another kind of file system), is its owner's affair. */
static int sync_parent(tl_store *store) {
    if (TL_BUG(DIRECTORY_NOT_SYNCED))
        return 0;
    int fd = tl_os->open(store->dir, "..", O_RDONLY | O_DIRECTORY, 0);
    if (fd == -EACCES)
        return 0;
    if (fd < 0)
        return fd;
    int status = tl_os->fsync(fd);
    tl_os->close(fd);
    return status == -EINVAL || status == -EROFS ? 0 : status;
}

int tl_directory_write_identity(tl_store *store, tl_error *err) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t random[22];
    char cluster[23], text[200];
    int status = tl_os->random(random, sizeof random);
    if (status < 0)
        return tl_fail_sys(err, status, "no random bytes for the cluster id", store->path);
    for (int i = 0; i < 22; i++)
        cluster[i] = digits[random[i] & 63];
    cluster[0] = digits[random[0] % 62];         /* never '-', which command lines take for an option */
    cluster[21] = digits[(random[21] & 3) << 4]; /* 128 bits: two in the last digit */
    cluster[22] = 0;
    int length = snprintf(text, sizeof text, "{\"format\": %d, \"cluster_id\": \"%s\", \"created_ms\": %lld}\n",
                          FORMAT_VERSION, cluster, (long long)tl_os->now_ms());
    int fd = tl_os->open(store->dir, "tidelog.json.new", O_WRONLY | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the identity of the store cannot be written", "tidelog.json.new");
    int64_t written = tl_os->pwrite(fd, text, (size_t)length, 0);
    status = written < 0 ? (int)written : tl_os->fsync(fd);
    tl_os->close(fd);
    if (status == 0)
        status = sync_parent(store);
    if (status == 0)
        status = tl_os->rename(store->dir, "tidelog.json.new", store->dir, "tidelog.json");
    if (status == 0)
        status = tl_os->fsync(store->dir);
    return status < 0 ? tl_fail_sys(err, status, "the identity of the store cannot be written", "tidelog.json") : TL_OK;
}

/* TL_ENOTFOUND: there is none yet. */
int tl_directory_read_identity(tl_store *store, tl_error *err) {
    char text[512] = {0};
    int fd = tl_os->open(store->dir, "tidelog.json", O_RDONLY, 0);
    if (fd == -ENOENT)
        return TL_ENOTFOUND;
    if (fd < 0)
        return tl_fail_sys(err, fd, "the identity of the store cannot be read", "tidelog.json");
    int64_t got = tl_os->pread(fd, text, sizeof text - 1, 0);
    tl_os->close(fd);
    if (got < 0)
        return tl_fail_sys(err, (int)got, "the identity of the store cannot be read", "tidelog.json");
    int format = 0;
    if (sscanf(text, "{\"format\": %d", &format) != 1)
        return tl_fail(err, TL_ECORRUPT, "the identity of the store is damaged", "tidelog.json", 0);
    if (format != FORMAT_VERSION)
        return tl_fail(err, TL_EUNSUPPORTED,
                       "the store has another format version: use the tidelog that wrote it, or a newer one",
                       "tidelog.json", -1);
    return TL_OK;
}
