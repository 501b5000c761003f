/* How does a process enter, share and leave a store, and which partitions does it hold?
 *
 * Imports lock.h, offsets.h, base.h. Every function is thread-safe unless it says otherwise; one native store per
 * (device, inode) in a process, counted by references. After fork() every call answers TL_EFORKED in the child. */
#ifndef TIDELOG_STORE_H
#define TIDELOG_STORE_H

#include "tidelog/lock.h"
#include "tidelog/offsets.h"

typedef struct tl_store tl_store;
typedef struct tl_partition tl_partition;

typedef struct tl_store_options {
    int64_t flush_interval_ms; /* > 0 */
    int64_t lock_timeout_ms;   /* >= 0 */
    bool create;               /* make the directory if it is missing */
    bool look;                 /* read-only: never creates, repairs, initialises or closes cleanly (SHARING rule 7) */
    bool any_filesystem;       /* also on file systems without coherent maps: for tests only */
    bool no_housekeeper;       /* no thread of its own: the caller calls tl_store_housekeep (tests) */
} tl_store_options;

enum tl_store_state {
    TL_STORE_JOINED = 0,   /* others are in it, or this process had it open */
    TL_STORE_RECOVERED = 1 /* this call recovered it and holds the gate alone until tl_store_ready */
};

/* What recovery found; all zero after joining. */
typedef struct tl_recovery {
    bool clean, same_boot, created;
    uint32_t partitions, scanned_partitions;
    uint64_t scanned_bytes, torn_bytes; /* torn: moved to .torn files */
    uint32_t repaired_locks, failed_partitions;
    uint32_t damaged_partitions; /* damage before the recovery point: kept as it is, and reported by reads and check */
} tl_recovery;

int tl_store_open(const char *path, const tl_store_options *options, tl_store **out, int *state, tl_recovery *recovery,
                  tl_error *err);
int tl_store_ready(tl_store *store, tl_error *err);
/* Drops a reference. The last one of the last process closes cleanly: trims, seals, writes the clean mark. Blocked calls
 * of other threads are woken and answer TL_ECLOSED. The handle's memory lives on while partitions or readers use it. */
int tl_store_close(tl_store *store, tl_error *err);
void tl_store_retain(tl_store *store);
void tl_store_free(tl_store *store); /* gives back the memory reference that open or retain gave */
bool tl_store_is_open(const tl_store *store);
const char *tl_store_path(const tl_store *store);

/* The catalogue lock for callers that run Python meanwhile: a kernel lock (a dead holder frees it), with a mutex of the
 * process in front. Held by one thread; TL_ELOCKED after lock_timeout. */
int tl_store_catalogue_lock(tl_store *store, tl_error *err);
void tl_store_catalogue_unlock(tl_store *store);
uint64_t tl_store_generation(const tl_store *store); /* of the catalogue */
void tl_store_bump_generation(tl_store *store);

typedef struct tl_partition_config {
    uint8_t channel[16];
    uint32_t partition;
    char directory[264];
    uint32_t segment_bytes;
    int64_t segment_ms, retention_ms, retention_bytes;
    uint32_t max_message_bytes;
    bool retention_consumed;
    uint32_t id_count; /* a message whose id is among the last so many ids, */
    int64_t id_age_ms; /* and younger than this, is a duplicate; id_count 0: none is */
} tl_partition_config;

/* Durable when they return, all or none. Callers hold the catalogue lock, except in tests. */
int tl_store_create_partitions(tl_store *store, const tl_partition_config *configs, size_t count, uint32_t *slots,
                               tl_error *err);
int tl_store_configure_partitions(tl_store *store, const uint32_t *slots, size_t count,
                                  const tl_partition_config *config, tl_error *err);
/* Marks them DROPPED, renames their directories away and deletes them. Slots are reused only by an exclusive opener. */
int tl_store_drop_partitions(tl_store *store, const uint32_t *slots, size_t count, tl_error *err);
/* Slots in use: calls each(context, slot, config); stops at a result != 0 and returns it. */
int tl_store_each_partition(tl_store *store, void *context,
                            int (*each)(void *context, uint32_t slot, const tl_partition_config *config));

/* A handle on a partition; `channel` must match, else TL_EDROPPED. Give it back with tl_partition_release. */
int tl_store_partition(tl_store *store, uint32_t slot, const uint8_t channel[16], tl_partition **out, tl_error *err);
void tl_partition_release(tl_partition *partition);

/* Syncs every partition that has unsynced bytes, then the checkpoint. */
int tl_store_sync(tl_store *store, tl_error *err);
/* One round of a housekeeper's work (flush, checkpoint, leases, retention), whatever the clock says. */
int tl_store_housekeep(tl_store *store, tl_error *err);

/* The turn of one group (tl_member_turn) as the caller saw it last. */
typedef struct tl_turn {
    const uint32_t *word;
    uint32_t seen;
} tl_turn;

/* Sleeps until the tail of a partition differs from seen[i], a turn differs from what was seen of it (TL_ETURNED),
 * timeout_ns passes (TL_ETIMEOUT), a signal handler has run in this thread (TL_EAGAIN: see to it, then call again), or
 * the store is closed or *cancel becomes non-zero (TL_ECLOSED). busy_ns: how long to spin before sleeping. Returns the
 * index that changed. Cancelling: store to *cancel, then tl_store_wake. */
int tl_store_wait(tl_store *store, tl_partition *const *partitions, const uint64_t *seen, size_t count,
                  int64_t timeout_ns, int64_t busy_ns, const tl_turn *turns, size_t turn_count, const uint32_t *cancel,
                  tl_error *err);
void tl_store_wake(tl_store *store); /* every thread of this process that sleeps */

/* The table of committed offsets, and this process as an owner of leases. */
tl_offsets *tl_store_offsets(tl_store *store);
tl_owner tl_store_owner(const tl_store *store);
bool tl_store_owner_alive(tl_store *store, tl_owner owner);
uint32_t tl_store_owner_pid(tl_store *store, tl_owner owner);
/* Removes every committed offset of a channel that is dropped, in the table and in the checkpoint. The caller holds the
 * catalogue lock. May be repeated; needs no sync, because whoever opens the store alone repeats it. */
int tl_store_forget_channel(tl_store *store, const uint8_t channel[16], tl_error *err);
/* Creating slots takes the catalogue's inner lock. */
int tl_store_offset_slot(tl_store *store, const char *group, size_t group_bytes, const uint8_t channel[16],
                         uint32_t partition, bool create, uint32_t *slot, tl_error *err);
/* The number of a group, made if there is none (takes the catalogue's inner lock). */
int tl_store_group(tl_store *store, const char *group, size_t group_bytes, uint32_t *number, tl_error *err);
/* Makes committed offsets durable now (commit at level synced). */
int tl_store_sync_offsets(tl_store *store, tl_error *err);

typedef struct tl_process_info {
    uint32_t slot, pid;
    bool self;
    int64_t started_ms;
} tl_process_info;
size_t tl_store_processes(tl_store *store, tl_process_info *out, size_t room);

#endif
