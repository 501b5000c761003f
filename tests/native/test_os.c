/* Does every entry of the operating system table do what os.h promises on this kernel?
 *
 * Imports os.h. Oracles are plain libc calls. Children are forked for what only another process can show. */
#define _GNU_SOURCE 1
#include "check.h"
#include "tidelog/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char directory[] = "/tmp/tidelog-os-XXXXXX";
static int dir;
static size_t page_bytes;

static int create(const char *name) {
    int fd = tl_os->open(dir, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    return fd;
}

static void discard(int fd, const char *name) {
    CHECK(tl_os->close(fd) == 0);
    CHECK(tl_os->unlink(dir, name, false) == 0);
}

/* --- names --- */

typedef struct listing {
    int count, stop_at;
    unsigned seen; /* bit n for the name "n" */
} listing;

static int note(void *context, const char *name) {
    listing *l = context;
    CHECK(name[0] >= '0' && name[0] <= '9' && name[1] == 0);
    l->seen |= 1u << (name[0] - '0');
    return ++l->count == l->stop_at ? 77 : 0;
}

static void check_names(void) {
    int fd = create("file");
    CHECK(tl_os->open(dir, "file", O_RDWR | O_CREAT | O_EXCL, 0600) == -EEXIST);
    CHECK(tl_os->open(dir, "absent", O_RDWR, 0) == -ENOENT);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    tl_stat s;
    CHECK(tl_os->pwrite(fd, "abc", 3, 0) == 3 && tl_os->stat(fd, &s) == 0);
    struct stat expected;
    CHECK(fstat(fd, &expected) == 0);
    CHECK(s.size_bytes == 3 && s.links == 1 && s.uid == getuid() && s.inode == expected.st_ino);
    CHECK(s.device == expected.st_dev && S_ISREG(s.mode) && (s.mode & 0777) == 0600);
    CHECK(s.modified_ms / 1000 == expected.st_mtim.tv_sec);
    CHECK(s.blocks_bytes == (uint64_t)expected.st_blocks * 512);
    CHECK(s.modified_ms <= tl_os->now_ms() && s.modified_ms > tl_os->now_ms() - 60000);

    CHECK(symlinkat("file", dir, "link") == 0);
    CHECK(tl_os->open(dir, "link", O_RDONLY, 0) == -ELOOP);
    CHECK(tl_os->open(dir, "link", O_RDWR | O_CREAT, 0600) == -ELOOP);
    CHECK(tl_os->unlink(dir, "link", false) == 0);

    CHECK(tl_os->rename(dir, "file", dir, "other") == 0);
    CHECK(tl_os->open(dir, "file", O_RDONLY, 0) == -ENOENT);
    CHECK(tl_os->rename(dir, "file", dir, "other") == -ENOENT);
    CHECK(tl_os->mkdir(dir, "sub", 0700) == 0 && tl_os->mkdir(dir, "sub", 0700) == -EEXIST);
    int sub = tl_os->open(dir, "sub", O_RDONLY | O_DIRECTORY, 0);
    CHECK(sub >= 0 && tl_os->rename(dir, "other", sub, "moved") == 0);
    CHECK(tl_os->unlink(dir, "sub", true) == -ENOTEMPTY && tl_os->unlink(dir, "sub", false) == -EISDIR);
    CHECK(tl_os->unlink(sub, "moved", true) == -ENOTDIR && tl_os->unlink(sub, "moved", false) == 0);
    CHECK(tl_os->stat(fd, &s) == 0 && s.links == 0);

    listing l = {0, 0, 0};
    CHECK(tl_os->list(sub, &l, note) == 0 && l.count == 0);
    for (int i = 0; i < 10; i++) {
        char name[2] = {(char)('0' + i), 0};
        int file = tl_os->open(sub, name, O_WRONLY | O_CREAT, 0600);
        CHECK(file >= 0 && tl_os->close(file) == 0);
    }
    for (int round = 0; round < 2; round++) { /* twice: a listing must not leave the descriptor at its end */
        l = (listing){0, 0, 0};
        CHECK(tl_os->list(sub, &l, note) == 0 && l.count == 10 && l.seen == 0x3ff);
    }
    l = (listing){0, 4, 0};
    CHECK(tl_os->list(sub, &l, note) == 77 && l.count == 4);
    CHECK(tl_os->list(fd, &l, note) == -ENOTDIR);
    for (int i = 0; i < 10; i++) {
        char name[2] = {(char)('0' + i), 0};
        CHECK(tl_os->unlink(sub, name, false) == 0);
    }
    CHECK(tl_os->fsync(sub) == 0 && tl_os->close(sub) == 0);
    CHECK(tl_os->unlink(dir, "sub", true) == 0);
    CHECK(tl_os->close(fd) == 0 && tl_os->close(fd) == -EBADF);
    CHECK(tl_os->stat(fd, &s) == -EBADF);
}

static void check_no_descriptor_leaks(void) {
    listing l = {0, 0, 0};
    int fd = create("1"), before = dup(dir), after;
    CHECK(before >= 0 && close(before) == 0);
    for (int i = 0; i < 20; i++) {
        tl_identity identity;
        CHECK(tl_os->list(dir, &l, note) == 0 && tl_os->identity(dir, &identity) == 0);
    }
    after = dup(dir); /* the lowest free number is still the same */
    CHECK(after == before && close(after) == 0);
    discard(fd, "1");
}

/* --- bytes --- */

static void check_bytes(void) {
    int fd = create("bytes");
    uint8_t out[64], data[64];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 5 + 1);
    CHECK(tl_os->pread(fd, out, 64, 0) == 0);
    CHECK(tl_os->pwrite(fd, data, 64, 100) == 64);
    CHECK(tl_os->pread(fd, out, 64, 100) == 64 && memcmp(out, data, 64) == 0);
    CHECK(tl_os->pread(fd, out, 64, 150) == 14 && memcmp(out, data + 50, 14) == 0);
    CHECK(tl_os->pread(fd, out, 64, 164) == 0 && tl_os->pread(fd, out, 0, 0) == 0);
    CHECK(tl_os->pwrite(fd, data, 0, 0) == 0);
    CHECK(tl_os->pread(fd, out, 64, UINT64_MAX - 3) == -EINVAL && tl_os->pread(fd, out, 2, INT64_MAX) == -EINVAL);
    CHECK(tl_os->pwrite(fd, data, 64, UINT64_MAX) == -EFBIG && tl_os->ftruncate(fd, UINT64_MAX) == -EFBIG);
    CHECK(tl_os->fallocate(fd, UINT64_MAX, 1) == -EFBIG && tl_os->fallocate(fd, 0, UINT64_MAX) == -EFBIG);
    CHECK(tl_os->pwrite(-1, data, 1, 0) == -EBADF && tl_os->pread(-1, out, 1, 0) == -EBADF);

    tl_stat s;
    CHECK(tl_os->ftruncate(fd, 1 << 20) == 0 && tl_os->stat(fd, &s) == 0);
    CHECK(s.size_bytes == 1 << 20 && s.blocks_bytes < 1 << 18);
    int status = tl_os->fallocate(fd, 0, 1 << 20);
    CHECK(status == 0 || status == -EOPNOTSUPP);
    CHECK(tl_os->stat(fd, &s) == 0);
    CHECK(status == 0 ? s.blocks_bytes >= 1 << 20 : s.blocks_bytes < 1 << 18); /* never emulated */
    CHECK(tl_os->pread(fd, out, 64, 100) == 64 && memcmp(out, data, 64) == 0);
    if (status == 0)
        CHECK(tl_os->fallocate(fd, 1 << 20, 4096) == 0 && tl_os->stat(fd, &s) == 0 && s.size_bytes == (1 << 20) + 4096);
    uint64_t end = s.size_bytes;
    CHECK(tl_os->append_zeros(fd, 0) == 0 && tl_os->append_zeros(fd, (2 << 20) + 7) == 0 && tl_os->append_zeros(fd, 1) == 0);
    CHECK(tl_os->stat(fd, &s) == 0 && s.size_bytes == end + (2 << 20) + 8 && s.blocks_bytes >= 2 << 20);
    CHECK(tl_os->pread(fd, out, 64, 100) == 64 && memcmp(out, data, 64) == 0);
    CHECK(tl_os->pwrite(fd, data, 64, s.size_bytes) == 64 && tl_os->append_zeros(fd, 4096) == 0);
    CHECK(tl_os->pread(fd, out, 64, s.size_bytes) == 64 && memcmp(out, data, 64) == 0); /* behind it, never over it */
    CHECK(tl_os->append_zeros(fd, UINT64_MAX) == -EFBIG && tl_os->append_zeros(-1, 1) == -EBADF);
    tl_os->write_out(fd, 4096);
    tl_os->write_out(fd, UINT64_MAX); /* nothing is there, and what is no file is left to the sync */
    tl_os->write_out(-1, 0);
    CHECK(tl_os->pread(fd, out, 64, 100) == 64 && memcmp(out, data, 64) == 0);
    CHECK(tl_os->fdatasync(fd) == 0 && tl_os->fsync(fd) == 0 && tl_os->syncfs(fd) == 0);
    CHECK(tl_os->fsync(-1) == -EBADF && tl_os->fdatasync(-1) == -EBADF && tl_os->syncfs(-1) == -EBADF);
    discard(fd, "bytes");

    int ends[2]; /* no file system gives a pipe blocks: the emulation would say ESPIPE or EINVAL as well, never 0 */
    CHECK(pipe2(ends, O_CLOEXEC) == 0 && tl_os->fallocate(ends[1], 0, 4096) == -ESPIPE);
    close(ends[0]);
    close(ends[1]);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int signal) {
    (void)signal;
    alarms++;
}

/* --- maps --- */

static void check_maps(void) {
    int fd = create("map");
    void *a = NULL, *b = NULL, *reserved = NULL;
    CHECK(tl_os->ftruncate(fd, 4 * page_bytes) == 0);
    CHECK(tl_os->map(fd, 0, 4 * page_bytes, true, &a) == 0);
    CHECK(tl_os->map(fd, page_bytes, page_bytes, false, &b) == 0);
    CHECK(tl_os->map(fd, 1, page_bytes, false, &reserved) == -EINVAL && reserved == NULL);
    CHECK(tl_os->map(fd, UINT64_MAX - page_bytes + 1, page_bytes, false, &reserved) == -EINVAL);
    ((uint8_t *)a)[page_bytes + 3] = 99;
    CHECK(((uint8_t *)b)[3] == 99);
    uint8_t byte = 0;
    CHECK(tl_os->pread(fd, &byte, 1, page_bytes + 3) == 1 && byte == 99);

    CHECK(tl_os->reserve(16 * page_bytes, &reserved) == 0);
    uint8_t *at = (uint8_t *)reserved + 4 * page_bytes;
    CHECK(tl_os->map_at(at, fd, page_bytes, 2 * page_bytes, true) == 0);
    CHECK(at[3] == 99);
    at[page_bytes] = 55;
    CHECK(((uint8_t *)a)[2 * page_bytes] == 55);
    /* What was not mapped stays without access: the kernel refuses to read it for a system call. */
    CHECK(write(fd, at - page_bytes, 1) == -1 && errno == EFAULT);
    CHECK(write(fd, at + 2 * page_bytes, 1) == -1 && errno == EFAULT);
    CHECK(tl_os->unmap(reserved, 16 * page_bytes) == 0 && tl_os->unmap(b, page_bytes) == 0);
    CHECK(tl_os->unmap((uint8_t *)a + 1, page_bytes) == -EINVAL);

    /* A read-only map refuses a store, a shared one outlives its descriptor. */
    CHECK(tl_os->map(fd, 0, page_bytes, false, &b) == 0);
    CHECK(pread(fd, b, 1, 0) == -1 && errno == EFAULT);
    CHECK(tl_os->unmap(b, page_bytes) == 0);

    unsigned char resident[4] = {0};
    CHECK(tl_os->populate(a, 4 * page_bytes, true) == 0 && tl_os->populate(a, 4 * page_bytes, false) == 0);
    CHECK(mincore(a, 4 * page_bytes, resident) == 0);
    CHECK((resident[0] & resident[1] & resident[2] & resident[3] & 1) == 1);
    CHECK(tl_os->populate((uint8_t *)a + 1, page_bytes, true) == -EINVAL);
    CHECK(tl_os->ftruncate(fd, page_bytes) == 0);
    /* Kernels before 5.14 refuse this advice; qemu's user emulation says 0 to any, also to one that does not exist. */
    bool known = madvise(a, page_bytes, 22) == 0 && madvise(a, page_bytes, 9999) != 0;
    CHECK(tl_os->populate(a, 4 * page_bytes, true) == (known ? -EFAULT : 0));
    CHECK(tl_os->populate(a, 4 * page_bytes, false) == (known ? -EFAULT : 0));
    CHECK(tl_os->unmap(a, 4 * page_bytes) == 0);
    CHECK(!known || tl_os->populate(a, page_bytes, false) == -ENOMEM);
    discard(fd, "map");
}

/* --- locks --- */

/* The answer of a child that opens the file itself. */
static int locked_in_child(uint64_t byte) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int fd = tl_os->open(dir, "lock", O_RDWR, 0);
        _exit(fd < 0 ? 9 : tl_os->locked(fd, byte));
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    return WEXITSTATUS(status);
}

static void check_locks(void) {
    int a = create("lock"), b = tl_os->open(dir, "lock", O_RDWR, 0), c = tl_os->open(dir, "lock", O_RDWR, 0);
    CHECK(b >= 0 && tl_os->locked(b, 0) == 0 && locked_in_child(0) == 0);
    CHECK(tl_os->lock(a, TL_LOCK_EXCLUSIVE, 5, 1, false) == 0);
    CHECK(tl_os->lock(b, TL_LOCK_EXCLUSIVE, 5, 1, false) == -EAGAIN);
    CHECK(tl_os->lock(b, TL_LOCK_SHARED, 5, 1, false) == -EAGAIN);
    CHECK(tl_os->lock(b, TL_LOCK_EXCLUSIVE, 4, 3, false) == -EAGAIN); /* a range meets it */
    CHECK(tl_os->lock(b, TL_LOCK_EXCLUSIVE, 4, 1, false) == 0 && tl_os->lock(b, TL_LOCK_EXCLUSIVE, 6, 1, false) == 0);
    CHECK(tl_os->locked(b, 5) == 1 && tl_os->locked(a, 5) == 0); /* one's own is never reported */
    CHECK(locked_in_child(5) == 1 && locked_in_child(4) == 1 && locked_in_child(7) == 0);
    CHECK(tl_os->close(c) == 0); /* closing another description of the file drops nothing, as POSIX locks would */
    CHECK(tl_os->locked(b, 5) == 1);
    CHECK(tl_os->lock(a, TL_LOCK_SHARED, 5, 1, false) == 0); /* converts */
    CHECK(tl_os->locked(b, 5) == 1 && tl_os->lock(b, TL_LOCK_SHARED, 5, 1, false) == 0);
    CHECK(tl_os->lock(a, TL_LOCK_EXCLUSIVE, 5, 1, false) == -EAGAIN && tl_os->locked(a, 5) == 1);
    CHECK(tl_os->lock(b, TL_UNLOCK, 5, 1, false) == 0 && tl_os->lock(a, TL_LOCK_EXCLUSIVE, 5, 1, false) == 0);
    CHECK(tl_os->lock(a, TL_UNLOCK, 5, 1, false) == 0 && tl_os->locked(b, 5) == 0);
    CHECK(tl_os->lock(a, 3, 5, 1, false) == -EINVAL && tl_os->lock(a, TL_LOCK_SHARED, UINT64_MAX, 1, false) == -EINVAL);
    CHECK(tl_os->lock(-1, TL_LOCK_SHARED, 0, 1, false) == -EBADF && tl_os->locked(-1, 0) == -EBADF);
    CHECK(tl_os->close(b) == 0 && tl_os->locked(a, 4) == 0);

    /* A child holds byte 9 while it is stopped, and loses it the moment it is killed; a waiting lock then gets it. */
    int ready[2];
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int fd = tl_os->open(dir, "lock", O_RDWR, 0);
        int status = tl_os->lock(fd, TL_LOCK_EXCLUSIVE, 9, 1, false);
        if (write(ready[1], status == 0 ? "y" : "n", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    char answer = 0;
    CHECK(read(ready[0], &answer, 1) == 1 && answer == 'y');
    close(ready[0]);
    close(ready[1]);
    CHECK(tl_os->locked(a, 9) == 1);
    int status = 0;
    CHECK(kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    CHECK(tl_os->locked(a, 9) == 1 && tl_os->lock(a, TL_LOCK_EXCLUSIVE, 9, 1, false) == -EAGAIN);
    /* Signals that come while it waits are no reason to give up. */
    alarms = 0;
    pid_t killer = fork();
    CHECK(killer >= 0);
    if (killer == 0) {
        for (int i = 0; i < 5; i++) {
            usleep(10000);
            kill(getppid(), SIGALRM);
        }
        kill(pid, SIGKILL);
        _exit(0);
    }
    CHECK(tl_os->lock(a, TL_LOCK_EXCLUSIVE, 9, 1, true) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    CHECK(waitpid(killer, &status, 0) == killer && status == 0 && alarms > 0);
    discard(a, "lock");
}

/* --- futexes --- */

static void check_futexes(void) {
    int fd = create("words");
    void *map = NULL;
    CHECK(tl_os->ftruncate(fd, page_bytes) == 0 && tl_os->map(fd, 0, page_bytes, true, &map) == 0);
    uint32_t *word = map;
    CHECK(tl_os->futex_wait(word, 1, -1) == -EAGAIN && tl_os->futex_wait(word, 1, 0) == -EAGAIN);
    CHECK(tl_os->futex_wait(word, 0, 0) == -ETIMEDOUT);
    int64_t start = tl_os->monotonic_ns();
    CHECK(tl_os->futex_wait(word, 0, 30000000) == -ETIMEDOUT);
    int64_t waited = tl_os->monotonic_ns() - start;
    CHECK(waited >= 30000000 && waited < 5000000000);
    CHECK(tl_os->futex_wake(word, 10) == 0);

    /* Two children sleep on another map of the same file, without a limit. */
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            void *own = NULL;
            if (tl_os->map(fd, 0, page_bytes, true, &own) != 0 || own == map)
                _exit(1);
            uint32_t *his = own;
            int status = 0;
            while (__atomic_load_n(his, __ATOMIC_ACQUIRE) == 0)
                status = tl_os->futex_wait(his, 0, -1);
            _exit(status == 0 && __atomic_load_n(his, __ATOMIC_ACQUIRE) == 7 ? 0 : 2);
        }
    }
    int woken = 0;
    for (int i = 0; i < 500 && woken < 2; i++) { /* wakes without a change: they go back to sleep */
        woken = tl_os->futex_wake(word, 2);
        CHECK(woken >= 0 && woken <= 2);
        usleep(2000);
    }
    CHECK(woken == 2);
    usleep(10000);
    __atomic_store_n(word, 7, __ATOMIC_RELEASE);
    CHECK(tl_os->futex_wake(word, 1000) >= 0);
    for (int i = 0; i < 2; i++) {
        int status = 0;
        CHECK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    }

    /* A signal ends a wait: the caller has to look at it. */
    struct itimerval often = {{.tv_usec = 20000}, {.tv_usec = 20000}}, never = {{0, 0}, {0, 0}};
    alarms = 0;
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    int status = tl_os->futex_wait(word, 7, 5000000000);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(status == -EINTR && alarms >= 1);
    CHECK(tl_os->unmap(map, page_bytes) == 0);
    discard(fd, "words");
}

/* --- the machine --- */

static void check_identity(void) {
    tl_identity a, b, other;
    memset(&a, 1, sizeof a);
    memset(&b, 2, sizeof b);
    CHECK(tl_os->identity(dir, &a) == 0);
    int again = tl_os->open(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY, 0);
    CHECK(again >= 0 && tl_os->identity(again, &b) == 0 && memcmp(&a, &b, sizeof a) == 0);
    struct stat s;
    CHECK(fstat(dir, &s) == 0 && a.device == s.st_dev && a.inode == s.st_ino && (a.boot[0] | a.boot[1]) != 0);
    char text[64] = "", hex[40];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    CHECK(file != NULL && fgets(text, sizeof text, file) != NULL && fclose(file) == 0);
    snprintf(hex, sizeof hex, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(a.boot[0] >> 32),
             (unsigned)(a.boot[0] >> 16 & 0xffff), (unsigned)(a.boot[0] & 0xffff), (unsigned)(a.boot[1] >> 48),
             (unsigned long long)(a.boot[1] & 0xffffffffffffu));
    CHECK(strncmp(hex, text, 36) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(tl_os->identity(again, &b) == 0 && memcmp(&a, &b, sizeof a) == 0 ? 0 : 1);
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(tl_os->mkdir(dir, "sub", 0700) == 0);
    int sub = tl_os->open(dir, "sub", O_RDONLY | O_DIRECTORY, 0);
    CHECK(sub >= 0 && tl_os->identity(sub, &other) == 0);
    CHECK(other.inode != a.inode && other.device == a.device && other.mount == a.mount && other.boot[0] == a.boot[0]);
    int proc = tl_os->open(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY, 0);
    CHECK(proc >= 0 && tl_os->identity(proc, &other) == 0 && other.device != a.device);
    struct statx x; /* without a mount id: kernels before 5.8, and emulators that do not pass it on */
    CHECK(statx(dir, "", AT_EMPTY_PATH, 0x1000u, &x) == 0);
    bool mounts = (x.stx_mask & 0x1000u) != 0 && x.stx_mnt_id != 0;
    CHECK(mounts ? a.mount != 0 && other.mount != 0 && other.mount != a.mount : a.mount == 0);
    uint64_t magic = 0;
    struct statfs fs;
    CHECK(statfs(directory, &fs) == 0 && tl_os->filesystem(dir, &magic) == 0 && magic == (uint64_t)fs.f_type);
    CHECK(tl_os->filesystem(proc, &magic) == 0 && magic == 0x9fa0); /* PROC_SUPER_MAGIC */
    CHECK(tl_os->identity(-1, &other) == -EBADF && tl_os->filesystem(-1, &magic) == -EBADF);
    CHECK(tl_os->close(proc) == 0 && tl_os->close(sub) == 0 && tl_os->close(again) == 0);
    CHECK(tl_os->unlink(dir, "sub", true) == 0);
}

static void check_events(void) {
    int event = tl_os->event(), fds[3];
    bool ready[3] = {true, true, true};
    CHECK(event >= 0 && (fcntl(event, F_GETFD) & FD_CLOEXEC) != 0);
    fds[0] = -1, fds[1] = event, fds[2] = -1;
    int64_t begin = tl_os->monotonic_ns();
    CHECK(tl_os->poll(fds, ready, 3, 20000000) == 0 && !ready[0] && !ready[1] && !ready[2]);
    CHECK(tl_os->monotonic_ns() - begin >= 20000000);
    CHECK(tl_os->event_clear(event) == 0); /* also of one that is not set: it never waits */
    CHECK(tl_os->event_set(event) == 0 && tl_os->event_set(event) == 0);
    CHECK(tl_os->poll(fds, ready, 3, -1) == 1 && !ready[0] && ready[1] && !ready[2]);
    CHECK(tl_os->poll(fds, ready, 3, 0) == 1);
    CHECK(tl_os->event_clear(event) == 0 && tl_os->poll(fds, ready, 3, 0) == 0);
    CHECK(tl_os->poll(fds, ready, TL_POLL_MOST + 1, 0) == -EINVAL);
    struct itimerval soon = {.it_value = {0, 20000}};
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(tl_os->poll(fds, ready, 3, 30000000000) == 0 && !ready[1]); /* a signal ends it early */
    CHECK(tl_os->monotonic_ns() - begin < 20000000000);
    CHECK(tl_os->close(event) == 0);
    CHECK(tl_os->event_set(-1) == -EBADF && tl_os->event_clear(-1) == -EBADF);

    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    int watched = tl_os->process_watch((uint32_t)child);
    CHECK(watched >= 0 && (fcntl(watched, F_GETFD) & FD_CLOEXEC) != 0);
    fds[1] = watched;
    CHECK(tl_os->poll(fds, ready, 3, 10000000) == 0);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(tl_os->poll(fds, ready, 3, 10000000000) == 1 && ready[1]);
    CHECK(tl_os->close(watched) == 0 && waitpid(child, NULL, 0) == child);
    CHECK(tl_os->process_watch((uint32_t)child) == -ESRCH && tl_os->process_watch(0) == -EINVAL);
}

static void check_clocks_and_memory(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    int64_t ms = tl_os->now_ms() - ((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    CHECK(ms >= 0 && ms < 5000);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    int64_t ns = tl_os->monotonic_ns() - ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
    CHECK(ns >= 0 && ns < 5000000000);
    uint8_t a[4096], b[4096];
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    CHECK(tl_os->random(a, sizeof a) == 0 && tl_os->random(b, sizeof b) == 0 && memcmp(a, b, sizeof a) != 0);
    unsigned bits = 0;
    for (size_t i = 0; i < sizeof a; i++)
        bits += (unsigned)__builtin_popcount(a[i]);
    CHECK(bits > 15000 && bits < 17800); /* 16384, ten standard deviations */
    CHECK(tl_os->random(a, 0) == 0);

    uint8_t *memory = tl_os->malloc(100);
    CHECK(memory != NULL);
    memset(memory, 0xff, 100);
    tl_os->free(memory);
    memory = tl_calloc(25, 4);
    CHECK(memory != NULL);
    for (int i = 0; i < 100; i++)
        CHECK(memory[i] == 0);
    memory[99] = 3;
    memory = tl_os->realloc(memory, 5000);
    CHECK(memory != NULL && memory[99] == 3);
    tl_os->free(memory);
    CHECK(tl_calloc(SIZE_MAX / 2, 3) == NULL && tl_calloc((size_t)1 << 32, (size_t)1 << 32) == NULL);
}

int main(void) {
    struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART: system calls see EINTR */
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    CHECK(mkdtemp(directory) != NULL);
    dir = tl_os->open(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    check_no_descriptor_leaks();
    check_names();
    check_bytes();
    check_maps();
    check_locks();
    check_futexes();
    check_identity();
    check_events();
    check_clocks_and_memory();
    CHECK(tl_os->close(dir) == 0 && rmdir(directory) == 0);
    return check_report();
}
