/* Which call to the system fails, how, and what was it asked?
 *
 * Imports store_kit.h, os.h. Single-threaded. Every entry of tl_os that can fail is wrapped; while a fault is armed, calls
 * that could return the wanted error are counted, and the nth of them (and in mode `forever` all after it) does. What is
 * allocated, mapped and opened is counted too, so that a run can prove that it gave everything back. */
#ifndef TIDELOG_TEST_FAULT_TABLE_H
#define TIDELOG_TEST_FAULT_TABLE_H

#include "store_kit.h"

#include <errno.h>

enum fault_call {
    CALL_OPEN,
    CALL_CREATE,
    CALL_CLOSE,
    CALL_STAT,
    CALL_MKDIR,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_LIST,
    CALL_FALLOCATE,
    CALL_APPEND_ZEROS,
    CALL_FTRUNCATE,
    CALL_PREAD,
    CALL_PWRITE,
    CALL_FDATASYNC,
    CALL_FSYNC,
    CALL_MAP,
    CALL_POPULATE,
    CALL_LOCK,
    CALL_FUTEX,
    CALL_EVENT,
    CALL_WATCH,
    CALL_POLL,
    CALL_IDENTITY,
    CALL_FILESYSTEM,
    CALL_RANDOM,
    CALL_HEAP,
    CALL_COUNT
};

static const char *const fault_call_names[CALL_COUNT] = {
    "open",      "create",     "close",    "stat",       "mkdir",     "rename", "unlink", "list",
    "fallocate", "append_zeros", "ftruncate", "pread",    "pwrite",     "fdatasync", "fsync",  "map",    "populate",
    "lock",      "futex_wait", "event",    "process_watch", "poll",   "identity", "filesystem", "random", "malloc"};

#define B(call) (1u << CALL_##call)
#define WRITES (B(CREATE) | B(MKDIR) | B(RENAME) | B(FALLOCATE) | B(APPEND_ZEROS) | B(PWRITE) | B(FDATASYNC) | B(FSYNC))

/* How a call fails. DONE: it did what it was asked and still reports an error, as a network disk may. HALF: a part was
 * written. Some calls name the same trouble by another number: they return what the kernel would. */
enum fault_way { WAY_PLAIN, WAY_DONE, WAY_HALF };
typedef struct fault_kind {
    const char *name;
    int number;
    enum fault_way way;
    uint32_t calls;
} fault_kind;

static const fault_kind fault_kinds[] = {
    {"EIO", EIO, WAY_PLAIN,
     WRITES | B(OPEN) | B(STAT) | B(UNLINK) | B(LIST) | B(FTRUNCATE) | B(PREAD) | B(POPULATE) | B(IDENTITY) |
         B(FILESYSTEM)},
    {"EIO-done", EIO, WAY_DONE,
     B(CLOSE) | B(MKDIR) | B(RENAME) | B(UNLINK) | B(FALLOCATE) | B(APPEND_ZEROS) | B(FTRUNCATE) | B(PWRITE) | B(FDATASYNC) |
         B(FSYNC)},
    {"ENOSPC", ENOSPC, WAY_PLAIN, WRITES | B(POPULATE)},
    {"full", ENOSPC, WAY_PLAIN,
     B(CREATE) | B(MKDIR) | B(FALLOCATE) | B(APPEND_ZEROS) | B(POPULATE)}, /* what is allocated can be written */
    {"EDQUOT", EDQUOT, WAY_PLAIN, WRITES},
    {"EMFILE", EMFILE, WAY_PLAIN, B(OPEN) | B(CREATE) | B(LIST) | B(EVENT) | B(WATCH)},
    {"ENOMEM", ENOMEM, WAY_PLAIN, B(OPEN) | B(CREATE) | B(MAP) | B(POPULATE) | B(STAT) | B(LIST) | B(LOCK) | B(RANDOM) | B(EVENT) |
         B(WATCH) | B(POLL)},
    {"EINTR", EINTR, WAY_PLAIN, B(FUTEX)},
    {"short-ENOSPC", ENOSPC, WAY_HALF, B(PWRITE) | B(APPEND_ZEROS)},
    {"short-EIO", EIO, WAY_HALF, B(PWRITE) | B(APPEND_ZEROS)},
    {"heap", ENOMEM, WAY_PLAIN, B(HEAP)},
};
enum { FAULT_KINDS = sizeof fault_kinds / sizeof *fault_kinds };

typedef struct fault_plan {
    const fault_kind *kind;
    bool armed, forever;
    uint64_t nth, gap, seen, fired; /* gap: the call that many after the nth fails too; 0: none */
    uint32_t fired_calls;           /* bits of what fired since the caller cleared it */
    int number;                     /* the errno that the last one returned */
    char last[160];
} fault_plan;

static fault_plan fault;
static char fault_paths[1024][120]; /* by descriptor: what it was opened as */
static int64_t fault_blocks, fault_maps, fault_large_maps, fault_descriptors;

#define LARGE_MAP (64u << 20) /* only the shared words take so much address space in these runs */

static inline const char *fault_path(int fd) { return fd >= 0 && fd < 1024 ? fault_paths[fd] : "?"; }

static inline bool fault_strikes(enum fault_call call, const char *path) {
    if (!fault.armed || (fault.kind->calls & (1u << call)) == 0)
        return false;
    fault.seen++;
    bool again = fault.seen > fault.nth && (fault.forever || (fault.gap != 0 && fault.seen == fault.nth + fault.gap));
    if (fault.seen != fault.nth && !again)
        return false;
    fault.fired++;
    fault.fired_calls |= 1u << call;
    fault.number = fault.kind->number;
    if (call == CALL_POPULATE && fault.kind->number == ENOSPC)
        fault.number = EFAULT;
    if (call == CALL_LOCK)
        fault.number = ENOLCK;
    snprintf(fault.last, sizeof fault.last, "%s(%s)", fault_call_names[call], path);
    return true;
}

#define SIMPLE(call, path, real) \
    do { \
        if (!fault_strikes(call, path)) \
            return real; \
        if (fault.kind->way == WAY_DONE) \
            (void)(real); \
        return -fault.number; \
    } while (0)

static int fault_open(int dir, const char *path, int flags, unsigned mode) {
    enum fault_call call = (flags & O_CREAT) != 0 ? CALL_CREATE : CALL_OPEN;
    if (fault_strikes(call, path))
        return -fault.number;
    int fd = tl_io_posix.open(dir, path, flags, mode);
    if (fd >= 0 && fd < 1024)
        snprintf(fault_paths[fd], sizeof fault_paths[fd], "%s", path);
    fault_descriptors += fd >= 0;
    return fd;
}
static int fault_close(int fd) {
    bool strikes = fault_strikes(CALL_CLOSE, fault_path(fd));
    int status = tl_io_posix.close(fd);
    fault_descriptors--;
    return strikes ? -fault.number : status;
}
static int fault_stat(int fd, tl_stat *out) { SIMPLE(CALL_STAT, fault_path(fd), tl_io_posix.stat(fd, out)); }
static int fault_mkdir(int dir, const char *path, unsigned mode) {
    SIMPLE(CALL_MKDIR, path, tl_io_posix.mkdir(dir, path, mode));
}
static int fault_rename(int a, const char *from, int b, const char *to) {
    SIMPLE(CALL_RENAME, from, tl_io_posix.rename(a, from, b, to));
}
static int fault_unlink(int dir, const char *path, bool directory) {
    SIMPLE(CALL_UNLINK, path, tl_io_posix.unlink(dir, path, directory));
}
static int fault_list(int dir, void *context, int (*each)(void *context, const char *name)) {
    SIMPLE(CALL_LIST, fault_path(dir), tl_io_posix.list(dir, context, each));
}
static int fault_fallocate(int fd, uint64_t from, uint64_t bytes) {
    SIMPLE(CALL_FALLOCATE, fault_path(fd), tl_io_posix.fallocate(fd, from, bytes));
}
static int fault_append_zeros(int fd, uint64_t bytes) {
    if (!fault_strikes(CALL_APPEND_ZEROS, fault_path(fd)))
        return tl_io_posix.append_zeros(fd, bytes);
    if (fault.kind->way != WAY_PLAIN && bytes > 0)
        (void)tl_io_posix.append_zeros(fd, fault.kind->way == WAY_DONE ? bytes : (bytes + 1) / 2);
    return -fault.number;
}
static int fault_ftruncate(int fd, uint64_t bytes) {
    SIMPLE(CALL_FTRUNCATE, fault_path(fd), tl_io_posix.ftruncate(fd, bytes));
}
static int64_t fault_pread(int fd, void *to, size_t bytes, uint64_t from) {
    SIMPLE(CALL_PREAD, fault_path(fd), tl_io_posix.pread(fd, to, bytes, from));
}
static int64_t fault_pwrite(int fd, const void *from, size_t bytes, uint64_t to) {
    if (!fault_strikes(CALL_PWRITE, fault_path(fd)))
        return tl_io_posix.pwrite(fd, from, bytes, to);
    if (fault.kind->way != WAY_PLAIN && bytes > 0)
        (void)tl_io_posix.pwrite(fd, from, fault.kind->way == WAY_DONE ? bytes : (bytes + 1) / 2, to);
    return -fault.number;
}
static int fault_fdatasync(int fd) { SIMPLE(CALL_FDATASYNC, fault_path(fd), tl_io_posix.fdatasync(fd)); }
static int fault_fsync(int fd) { SIMPLE(CALL_FSYNC, fault_path(fd), tl_io_posix.fsync(fd)); }
static int fault_map(int fd, uint64_t from, size_t bytes, bool writable, void **out) {
    if (fault_strikes(CALL_MAP, fault_path(fd)))
        return -fault.number;
    int status = tl_io_posix.map(fd, from, bytes, writable, out);
    if (status == 0)
        *(bytes > LARGE_MAP ? &fault_large_maps : &fault_maps) += 1;
    return status;
}
static int fault_reserve(size_t bytes, void **out) {
    if (fault_strikes(CALL_MAP, "reserve"))
        return -fault.number;
    int status = tl_io_posix.reserve(bytes, out);
    if (status == 0)
        *(bytes > LARGE_MAP ? &fault_large_maps : &fault_maps) += 1;
    return status;
}
static int fault_map_at(void *at, int fd, uint64_t from, size_t bytes, bool writable) {
    SIMPLE(CALL_MAP, fault_path(fd), tl_io_posix.map_at(at, fd, from, bytes, writable));
}
static int fault_unmap(void *at, size_t bytes) {
    *(bytes > LARGE_MAP ? &fault_large_maps : &fault_maps) -= 1;
    return tl_io_posix.unmap(at, bytes);
}
static int fault_populate(void *at, size_t bytes, bool writable) {
    SIMPLE(CALL_POPULATE, "map", tl_io_posix.populate(at, bytes, writable));
}
static int fault_lock(int fd, int kind, uint64_t byte, uint64_t bytes, bool wait) {
    SIMPLE(CALL_LOCK, fault_path(fd), tl_io_posix.lock(fd, kind, byte, bytes, wait));
}
static int fault_futex_wait(const uint32_t *word, uint32_t value, int64_t timeout_ns) {
    SIMPLE(CALL_FUTEX, "word", tl_io_posix.futex_wait(word, value, timeout_ns));
}
static int fault_event(void) {
    if (fault_strikes(CALL_EVENT, "event"))
        return -fault.number;
    int fd = tl_io_posix.event();
    fault_descriptors += fd >= 0;
    return fd;
}
static int fault_process_watch(uint32_t pid) {
    if (fault_strikes(CALL_WATCH, "process"))
        return -fault.number;
    int fd = tl_io_posix.process_watch(pid);
    fault_descriptors += fd >= 0;
    return fd;
}
static int fault_poll(const int *fds, bool *ready, size_t count, int64_t timeout_ns) {
    SIMPLE(CALL_POLL, "poll", tl_io_posix.poll(fds, ready, count, timeout_ns));
}
static int fault_identity(int dir, tl_identity *out) { SIMPLE(CALL_IDENTITY, "store", kit_identity(dir, out)); }
static int fault_filesystem(int dir, uint64_t *magic) {
    SIMPLE(CALL_FILESYSTEM, "store", tl_io_posix.filesystem(dir, magic));
}
static int fault_random(void *to, size_t bytes) { SIMPLE(CALL_RANDOM, "random", tl_io_posix.random(to, bytes)); }

static void *fault_malloc(size_t bytes) {
    void *memory = fault_strikes(CALL_HEAP, "malloc") ? NULL : tl_io_posix.malloc(bytes);
    fault_blocks += memory != NULL;
    return memory;
}
static void *fault_realloc(void *old, size_t bytes) {
    void *memory = fault_strikes(CALL_HEAP, "realloc") ? NULL : tl_io_posix.realloc(old, bytes);
    fault_blocks += memory != NULL && old == NULL;
    return memory;
}
static void fault_free(void *old) {
    fault_blocks -= old != NULL;
    tl_io_posix.free(old);
}

static inline void fault_install(void) {
    kit_install();
    tl_io *t = &tl_os_table;
    t->open = fault_open, t->close = fault_close, t->stat = fault_stat, t->mkdir = fault_mkdir,
    t->rename = fault_rename;
    t->unlink = fault_unlink, t->list = fault_list, t->fallocate = fault_fallocate;
    t->append_zeros = fault_append_zeros, t->ftruncate = fault_ftruncate;
    t->pread = fault_pread, t->pwrite = fault_pwrite, t->fdatasync = fault_fdatasync, t->fsync = fault_fsync;
    t->map = fault_map, t->reserve = fault_reserve, t->map_at = fault_map_at, t->unmap = fault_unmap,
    t->populate = fault_populate;
    t->lock = fault_lock, t->futex_wait = fault_futex_wait, t->event = fault_event,
    t->process_watch = fault_process_watch, t->poll = fault_poll, t->identity = fault_identity,
    t->filesystem = fault_filesystem;
    t->random = fault_random, t->malloc = fault_malloc, t->realloc = fault_realloc, t->free = fault_free;
}

#endif
