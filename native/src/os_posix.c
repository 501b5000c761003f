/* How does Linux do each thing that the core asks of an operating system?
 *
 * Imports os_identity.h. Callable from any thread: nothing here is kept between calls. The only file besides os_identity.c,
 * guard.c and testing.c that talks to libc's system interface, and the only place that reads errno.
 *
 * A call that a signal interrupts is started again here, so that callers have no retry loops of their own. The one
 * exception is futex_wait: its callers sleep in slices and must come back to run Python's signal handlers. */
#define _GNU_SOURCE 1

#include "os_identity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Headers may be older than the kernel that runs: the numbers are kernel interface and never change. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* A call that a signal interrupted starts again. */
#define RETRY(result, call) \
    do { \
        (result) = (call); \
    } while ((result) < 0 && errno == EINTR)

static int or_errno(int result) { return result < 0 ? -errno : result; }

/* off_t is signed, our positions are not: a range it cannot hold is refused before it turns negative. */
static bool range_fits(uint64_t from, uint64_t bytes) {
    return from <= (uint64_t)INT64_MAX && bytes <= (uint64_t)INT64_MAX - from;
}

/* --- names and descriptors --- */

static int os_open(int dir, const char *path, int flags, unsigned mode) {
    int fd;
    RETRY(fd, openat(dir, path, flags | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode));
    return or_errno(fd);
}

/* Linux has freed the number even when close() reports EINTR: a second close could hit a stranger's descriptor. */
static int os_close(int fd) {
    int result = or_errno(close(fd));
    return result == -EINTR ? 0 : result;
}

/* statx and not fstat, which knows no time of creation; one call for all. */
static int os_stat(int fd, tl_stat *out) {
    struct statx x;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &x) < 0)
        return -errno;
    *out = (tl_stat){.device = (uint64_t)makedev(x.stx_dev_major, x.stx_dev_minor),
                     .inode = x.stx_ino,
                     .size_bytes = x.stx_size,
                     .blocks_bytes = x.stx_blocks * 512,
                     .modified_ms = x.stx_mtime.tv_sec * 1000 + x.stx_mtime.tv_nsec / 1000000,
                     .mode = x.stx_mode,
                     .links = x.stx_nlink,
                     .uid = x.stx_uid};
    if ((x.stx_mask & STATX_BTIME) != 0)
        out->created_ms = x.stx_btime.tv_sec * 1000 + x.stx_btime.tv_nsec / 1000000;
    return 0;
}

static int os_mkdir(int dir, const char *path, unsigned mode) { return or_errno(mkdirat(dir, path, (mode_t)mode)); }

static int os_rename(int from_dir, const char *from, int to_dir, const char *to) {
    return or_errno(renameat(from_dir, from, to_dir, to));
}

static int os_unlink(int dir, const char *path, bool directory) {
    return or_errno(unlinkat(dir, path, directory ? AT_REMOVEDIR : 0));
}

/* A fresh open of ".", not dup(): duplicates share one read position, and two threads
 * may list one directory at the same time. */
static int os_list(int dir, void *context, int (*each)(void *context, const char *name)) {
    int fd = os_open(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        int result = -errno;
        os_close(fd);
        return result;
    }
    int result = 0;
    while (result == 0) {
        errno = 0; /* NULL means the end or an error, and only errno tells which */
        struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        const char *name = entry->d_name;
        bool here_or_up = name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
        if (!here_or_up)
            result = each(context, name);
    }
    closedir(stream);
    return result;
}

/* --- bytes of a file --- */

/* glibc's fallocate() is the bare system call: unlike posix_fallocate() it never falls back to writing a zero into
 * every block, which would race with other writers and could erase their bytes. */
static int os_fallocate(int fd, uint64_t from, uint64_t bytes) {
    if (!range_fits(from, bytes))
        return -EFBIG;
    int result;
    RETRY(result, fallocate(fd, 0, (off_t)from, (off_t)bytes));
    return or_errno(result);
}

/* The kernel finds the end and writes under one lock of the file: no two such calls, and nobody who makes the file longer in
 * another way, ever meet in one place. Blocks are asked for first, behind the end, since that is cheaper than to have them
 * promised page by page, and because a full disk is found out before anything is written. */
static int os_append_zeros(int fd, uint64_t bytes) {
    enum { PIECE = 16 << 10, MOST = 64 };
    static uint8_t zeros[PIECE]; /* never written to; one that is const would lie in the file of the library */
    struct stat now;
    if (fstat(fd, &now) < 0)
        return -errno;
    if (!range_fits((uint64_t)now.st_size, bytes))
        return -EFBIG;
    if (bytes == 0)
        return 0;
    int result;
    RETRY(result, fallocate(fd, FALLOC_FL_KEEP_SIZE, now.st_size, (off_t)bytes));
    if (result < 0)
        return -errno;
    while (bytes > 0) {
        struct iovec pieces[MOST];
        int count = 0;
        for (uint64_t left = bytes; left > 0 && count < MOST; count++) {
            size_t piece = left < PIECE ? (size_t)left : PIECE;
            pieces[count] = (struct iovec){zeros, piece};
            left -= piece;
        }
        ssize_t written;
        RETRY(written, pwritev2(fd, pieces, count, 0, RWF_APPEND));
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        bytes -= (uint64_t)written;
    }
    return 0;
}

static int os_ftruncate(int fd, uint64_t size_bytes) {
    if (!range_fits(size_bytes, 0))
        return -EFBIG;
    int result;
    RETRY(result, ftruncate(fd, (off_t)size_bytes));
    return or_errno(result);
}

static int64_t os_pread(int fd, void *to, size_t bytes, uint64_t from) {
    if (!range_fits(from, bytes))
        return -EINVAL;
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(fd, (uint8_t *)to + done, bytes - done, (off_t)(from + done));
        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            break;
        else if (errno != EINTR)
            return -errno;
    }
    return (int64_t)done;
}

static int64_t os_pwrite(int fd, const void *from, size_t bytes, uint64_t to) {
    if (!range_fits(to, bytes))
        return -EFBIG;
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pwrite(fd, (const uint8_t *)from + done, bytes - done, (off_t)(to + done));
        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            return -EIO; /* no progress and no reason: never spin on it */
        else if (errno != EINTR)
            return -errno;
    }
    return (int64_t)done;
}

#define PIECE_BYTES (256u << 10)

/* ext4 holds the locks of up to 2,048 pages until all of them are on their way, and who faults one of them in waits for that:
 * up to 20 ms behind a sync of a second's messages. A piece takes less than one. What fails here the sync finds too. */
static void os_write_out(int fd, uint64_t from) {
#if defined(SYNC_FILE_RANGE_WRITE)
    struct stat now;
    if (fstat(fd, &now) < 0)
        return;
    for (uint64_t at = from; at < (uint64_t)now.st_size; at += PIECE_BYTES)
        if (sync_file_range(fd, (off_t)at, PIECE_BYTES, SYNC_FILE_RANGE_WRITE) < 0)
            return;
#else
    (void)fd;
    (void)from;
#endif
}

/* An interrupted sync may be started again, and only that one: EINTR is returned before a write-back error has been
 * collected, while any other error is reported once and then forgotten by the kernel. */
static int os_fdatasync(int fd) {
    int result;
    RETRY(result, fdatasync(fd));
    return or_errno(result);
}

static int os_fsync(int fd) {
    int result;
    RETRY(result, fsync(fd));
    return or_errno(result);
}

static int os_syncfs(int fd) {
    int result;
    RETRY(result, syncfs(fd));
    return or_errno(result);
}

/* --- maps --- */

static int map_file(void *at, int fd, uint64_t from, size_t bytes, bool writable, int flags, void **out) {
    if (!range_fits(from, bytes))
        return -EINVAL;
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *address = mmap(at, bytes, protection, MAP_SHARED | flags, fd, (off_t)from);
    if (address == MAP_FAILED)
        return -errno;
    *out = address;
    return 0;
}

static int os_map(int fd, uint64_t from, size_t bytes, bool writable, void **out) {
    return map_file(NULL, fd, from, bytes, writable, 0, out);
}

static int os_reserve(size_t bytes, void **out) {
    void *address = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return -errno;
    *out = address;
    return 0;
}

/* MAP_FIXED replaces whatever stands there: `at` must lie inside a reservation of the caller's own. */
static int os_map_at(void *at, int fd, uint64_t from, size_t bytes, bool writable) {
    void *unused;
    return map_file(at, fd, from, bytes, writable, MAP_FIXED, &unused);
}

static int os_unmap(void *at, size_t bytes) { return or_errno(munmap(at, bytes)); }

/* The kernel answers EFAULT where a touch would raise SIGBUS. Kernels before 5.14 do not know the advice and answer
 * EINVAL, which counts as success: the blocks were allocated before they were mapped, the pages come one by one when
 * they are touched, and the guard catches what goes wrong then. Touching them here would fault outside any guard. */
static int os_populate(void *at, size_t bytes, bool writable) {
    if (((uintptr_t)at & (uintptr_t)(sysconf(_SC_PAGESIZE) - 1)) != 0)
        return -EINVAL;
    int result;
    RETRY(result, madvise(at, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ));
    result = or_errno(result);
    return result == -EINVAL ? 0 : result;
}

/* --- locks and sleeping --- */

/* Open-file-description locks belong to the open, not to the process: no other close() of the file drops them. */
static int os_lock(int fd, int kind, uint64_t byte, uint64_t bytes, bool wait) {
    if (!range_fits(byte, bytes))
        return -EINVAL;
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = (off_t)bytes};
    if (kind == TL_LOCK_SHARED)
        lock.l_type = F_RDLCK;
    else if (kind == TL_LOCK_EXCLUSIVE)
        lock.l_type = F_WRLCK;
    else if (kind != TL_UNLOCK)
        return -EINVAL;
    int result;
    RETRY(result, fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock));
    result = or_errno(result);
    return result == -EACCES ? -EAGAIN : result;
}

static int os_locked(int fd, uint64_t byte) {
    if (!range_fits(byte, 1))
        return -EINVAL;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return -errno;
    return lock.l_type != F_UNLCK;
}

static int os_futex_wait(const uint32_t *word, uint32_t value, int64_t timeout_ns) {
    struct timespec timeout = {0, 0};
    if (timeout_ns >= 0) {
        timeout.tv_sec = (time_t)(timeout_ns / 1000000000);
        timeout.tv_nsec = (long)(timeout_ns % 1000000000);
    }
    /* FUTEX_PRIVATE_FLAG is left out: sleepers and wakers are different processes that share a file. */
    long result = syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
    return or_errno((int)result);
}

static int os_futex_wake(const uint32_t *word, int count) {
    return or_errno((int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0));
}

/* --- who ends, what happens --- */

static int os_event(void) { return or_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

/* A counter that is full is ready, which is all that was asked for. */
static int os_event_set(int fd) {
    const uint64_t one = 1;
    ssize_t result;
    RETRY(result, write(fd, &one, sizeof one));
    return result < 0 && errno != EAGAIN ? -errno : 0;
}

static int os_event_clear(int fd) {
    uint64_t count;
    ssize_t result;
    RETRY(result, read(fd, &count, sizeof count));
    return result < 0 && errno != EAGAIN ? -errno : 0;
}

/* The kernel sets O_CLOEXEC by itself. Kernels before 5.3 do not know the call. */
static int os_process_watch(uint32_t pid) { return or_errno((int)syscall(SYS_pidfd_open, (pid_t)pid, 0)); }

/* A signal ends the wait early and nothing is ready: the caller looks at its clock anyway. */
static int os_poll(const int *fds, bool *ready, size_t count, int64_t timeout_ns) {
    struct pollfd asked[TL_POLL_MOST];
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    if (count > TL_POLL_MOST)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        asked[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        ready[i] = false;
    }
    int result = ppoll(asked, (nfds_t)count, timeout_ns < 0 ? NULL : &timeout, NULL);
    if (result < 0)
        return errno == EINTR ? 0 : -errno;
    for (size_t i = 0; i < count; i++)
        ready[i] = asked[i].fd >= 0 && asked[i].revents != 0;
    return result;
}

/* --- what time, what luck --- */

static int64_t os_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t os_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t os_coarse_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t os_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint32_t os_process_id(void) {
    return (uint32_t)getpid();
}

static int os_random(void *to, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = getrandom((uint8_t *)to + done, bytes - done, 0);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

void *tl_calloc(size_t count, size_t bytes) {
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total))
        return NULL;
    void *memory = tl_os->malloc(total);
    if (memory != NULL)
        memset(memory, 0, total);
    return memory;
}

const tl_io tl_io_posix = {
    .open = os_open,
    .close = os_close,
    .stat = os_stat,
    .mkdir = os_mkdir,
    .rename = os_rename,
    .unlink = os_unlink,
    .list = os_list,
    .fallocate = os_fallocate,
    .append_zeros = os_append_zeros,
    .ftruncate = os_ftruncate,
    .pread = os_pread,
    .pwrite = os_pwrite,
    .write_out = os_write_out,
    .fdatasync = os_fdatasync,
    .fsync = os_fsync,
    .syncfs = os_syncfs,
    .map = os_map,
    .reserve = os_reserve,
    .map_at = os_map_at,
    .unmap = os_unmap,
    .populate = os_populate,
    .lock = os_lock,
    .locked = os_locked,
    .futex_wait = os_futex_wait,
    .futex_wake = os_futex_wake,
    .event = os_event,
    .event_set = os_event_set,
    .event_clear = os_event_clear,
    .process_watch = os_process_watch,
    .poll = os_poll,
    .identity = tl_os_identity,
    .filesystem = tl_os_filesystem,
    .now_ms = os_now_ms,
    .now_ns = os_now_ns,
    .coarse_ms = os_coarse_ms,
    .monotonic_ns = os_monotonic_ns,
    .random = os_random,
    .process_id = os_process_id,
    .pid_namespace = tl_os_pid_namespace,
    .malloc = malloc,
    .realloc = realloc,
    .free = free,
};
