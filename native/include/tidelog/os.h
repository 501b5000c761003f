/* How does the core reach the operating system, and how do tests fail it, stop it and look at it?
 *
 * Imports base.h. `tl_os` is the only door to system calls and to the heap: src/os_posix.c fills it, tests replace
 * single entries (fail the nth call, forget unsynced bytes, pretend a new boot). Every entry is callable from any thread.
 * Calls return a value >= 0 or -errno; none touches a global errno that a caller would have to save. */
#ifndef TIDELOG_OS_H
#define TIDELOG_OS_H

#include "tidelog/base.h"

typedef struct tl_stat {
    uint64_t device, inode, size_bytes;
    uint64_t blocks_bytes; /* really allocated */
    int64_t modified_ms;
    int64_t created_ms; /* 0: the file system does not say */
    uint32_t mode, links, uid;
} tl_stat;

/* Two opens of one store in one page cache have equal identities (SHARING rule 1). */
typedef struct tl_identity {
    uint64_t boot[2]; /* the kernel's boot id */
    uint64_t device, inode, mount;
} tl_identity;

#define TL_POLL_MOST 520u /* descriptors in one poll */

enum tl_lock_kind { TL_UNLOCK = 0, TL_LOCK_SHARED = 1, TL_LOCK_EXCLUSIVE = 2 };

typedef struct tl_io {
    /* Paths are relative to a directory descriptor and never follow a symbolic link in their last part. */
    int (*open)(int dir, const char *path, int flags, unsigned mode); /* O_CLOEXEC | O_NOFOLLOW are added */
    int (*close)(int fd);
    int (*stat)(int fd, tl_stat *out);
    int (*mkdir)(int dir, const char *path, unsigned mode);
    int (*rename)(int from_dir, const char *from, int to_dir, const char *to);
    int (*unlink)(int dir, const char *path, bool directory);
    int (*list)(int dir, void *context,
                int (*each)(void *context,
                            const char *name)); /* not "." and ".."; stops at a result != 0 and returns it */
    int (*fallocate)(int fd, uint64_t from, uint64_t bytes); /* real allocation, or -EOPNOTSUPP: never emulated */
    int (*append_zeros)(int fd, uint64_t bytes); /* at the end, wherever that is by then; a part may be there after an error */
    int (*ftruncate)(int fd, uint64_t size_bytes);
    int64_t (*pread)(int fd, void *to, size_t bytes, uint64_t from);        /* whole unless the file ends */
    int64_t (*pwrite)(int fd, const void *from, size_t bytes, uint64_t to); /* whole, or -errno */
    void (*write_out)(int fd, uint64_t from); /* begins to write what is dirty from there on, in small pieces; the sync after it waits */
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*syncfs)(int fd);
    int (*map)(int fd, uint64_t from, size_t bytes, bool writable, void **out); /* shared; `from` page aligned */
    int (*reserve)(size_t bytes, void **out); /* address space without memory behind it */
    int (*map_at)(void *at, int fd, uint64_t from, size_t bytes, bool writable); /* over a part of a reservation */
    int (*unmap)(void *at, size_t bytes);
    int (*populate)(void *at, size_t bytes,
                    bool writable); /* faults pages in now; a full disk is an error, not a signal */
    int (*lock)(int fd, int kind, uint64_t byte, uint64_t bytes,
                bool wait);               /* open-file-description locks; -EAGAIN when taken */
    int (*locked)(int fd, uint64_t byte); /* 1: another description holds it exclusively or shared */
    int (*futex_wait)(const uint32_t *word, uint32_t value,
                      int64_t timeout_ns); /* shared between processes; -EAGAIN, -ETIMEDOUT, -EINTR */
    int (*futex_wake)(const uint32_t *word, int count);
    int (*event)(void); /* a descriptor that is ready in poll from event_set until event_clear */
    int (*event_set)(int fd);
    int (*event_clear)(int fd);
    int (*process_watch)(uint32_t pid); /* a descriptor that gets ready when this process of our PID namespace ends */
    int (*poll)(const int *fds, bool *ready, size_t count,
                int64_t timeout_ns); /* how many are ready, 0 also after a signal; negative ones are left out */
    int (*identity)(int dir, tl_identity *out);
    int (*filesystem)(int dir, uint64_t *magic); /* statfs f_type */
    int64_t (*now_ms)(void);                     /* wall clock */
    int64_t (*now_ns)(void);                     /* the same, finer */
    int64_t (*coarse_ms)(void);                  /* the same at a fifth of the cost, up to 10 ms late */
    int64_t (*monotonic_ns)(void);
    int (*random)(void *to, size_t bytes);
    uint32_t (*process_id)(void); /* for messages only, never for liveness */
    uint32_t (*pid_namespace)(void); /* process ids mean the same where this is the same; 0: not known */
    void *(*malloc)(size_t bytes);
    void *(*realloc)(void *old, size_t bytes);
    void (*free)(void *old);
} tl_io;

extern const tl_io tl_io_posix;

#ifdef TL_TEST
extern tl_io tl_os_table; /* a writable copy, for tests */
#define tl_os (&tl_os_table)
#else
#define tl_os (&tl_io_posix)
#endif

/* Zeroed memory or NULL; checks the product for overflow. */
void *tl_calloc(size_t count, size_t bytes);

/* --- seams for tests; release builds compile them to nothing --- */

/* Bugs that a test build can switch on with TL_BUG=<name> (SHARING names the interleaving each one breaks). */
enum tl_bug {
    TL_BUG_NONE = 0,
#define TL_BUG_LIST(X) \
    X(TAIL_BEFORE_COPY) \
    X(NO_BARRIER_BEFORE_SLEEPERS) X(NO_ZERO_TO_RESERVE) X(END_SLOT_WITHOUT_TAG) X(OFFSET_REUSED_AFTER_CUT) \
        X(DIRECTORY_NOT_SYNCED) X(TAIL_CRC_NOT_CHECKED) X(STOPPED_OWNER_ROBBED) X(INCARNATION_NOT_BUMPED) \
            X(INDEX_AHEAD_OF_DATA) X(FSYNC_RETRIED) X(SYNCING_IGNORED) X(CHECKPOINT_BEFORE_LOG_SYNC) \
                X(CHECKPOINT_OVERWRITTEN_UNSYNCED) X(READY_STORED_FIRST) X(CLOSE_WITHOUT_GATE) X(SEAL_AFTER_TAIL) \
                    X(STRAY_SEGMENT_KEPT) X(LEASE_NOT_SYNCED) X(CLEAN_MARK_KEPT) X(LOG_START_AFTER_UNLINK) \
                        X(RECOVERY_POINT_AFTER_SYNC) X(ZOMBIE_COMMIT_ACCEPTED) X(WRITER_IGNORES_DROP) \
                            X(AWAY_TIME_IGNORED) X(GROUPS_NOT_REPAIRED) X(LIVE_HOLDER_IGNORED) \
                                X(EXPELLED_LEASE_KEPT) X(INSTALL_WITHOUT_WAKE) X(INSTALL_VERSION_UNCHECKED) \
                                    X(NAMESAKE_NOT_FENCED) X(OVERDUE_NEVER_EXPELLED) X(HOLDER_OF_ANY_EPOCH) \
                                        X(REMOVED_WITHOUT_A_TURN) X(SEQUENCE_NOT_CHECKED) \
                                            X(EPOCH_NOT_CHECKED) X(WINDOW_OF_ONE) X(NAME_NOT_FENCED) \
                                                X(PRODUCERS_NOT_MARKED) X(EPOCH_NOT_SYNCED) X(MARKER_BEFORE_RECORD_SYNC) X(LSO_AFTER_TAIL) \
                                                    X(LATE_MARKER_HITS_NEXT) X(OFFSETS_WITHOUT_LEASE_CHECK) \
                                                        X(ABORT_NOT_INDEXED) X(TAKER_DOES_NOT_FINISH) \
                                                            X(ID_NOTED_BEFORE_TAIL) X(ID_WINDOW_FORGETS) \
                                                            X(ID_FILTER_FORGETS) X(ID_SEALED_FIRST) X(ID_NOT_UNDONE) \
                                                            X(IDS_NOT_REBUILT) X(ID_AGE_IGNORED) X(IDS_COMPLETE_FIRST) \
                                                            X(ID_DECIDED_TAKEN_FOR_OPEN) X(ID_ABORTED_TAKEN) \
                                                            X(COMMIT_FORGETS_A_PARTITION) X(LSO_NOT_REPAIRED) \
                                                            X(ZEROS_AT_A_PLACE) X(ZEROS_LEFT_BEHIND_A_SEAL)
#define TL_BUG_ENUM(name) TL_BUG_##name,
    TL_BUG_LIST(TL_BUG_ENUM)
#undef TL_BUG_ENUM
        TL_BUG_COUNT
};

#ifdef TL_TEST
/* TL_CRASH=name:nth kills the process by SIGKILL at the nth hit of a point, TL_STOP=name:nth stops it by SIGSTOP.
 * TL_POINT_LOG=path appends the names of points when they are hit first. A hook set by tests is called before both. */
void tl_point_hit(const char *name);      /* a literal: the pointer is kept */
uint64_t tl_point_hits(const char *name); /* by this process so far; a forked child starts at 0 */
extern void (*tl_point_hook)(const char *name);
extern void (*tl_yield_hook)(void);
extern void (*tl_between_hook)(void); /* where somebody has one shared word and not yet the next one that belongs to it */
extern int tl_bug; /* an enum tl_bug; from TL_BUG=<name> in the environment, or set by a test */
const char *tl_bug_name(int bug);
#define TL_POINT(name) tl_point_hit(name)
#define TL_YIELD() (tl_yield_hook ? tl_yield_hook() : (void)0)
#define TL_BETWEEN() (tl_between_hook ? tl_between_hook() : (void)0)
#define TL_BUG(name) (TL_UNLIKELY(tl_bug == TL_BUG_##name))
#else
#define TL_POINT(name) ((void)0)
#define TL_YIELD() ((void)0)
#define TL_BETWEEN() ((void)0)
#define TL_BUG(name) 0
#endif

#endif
