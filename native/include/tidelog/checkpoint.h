/* Where do the small facts of a store survive a power cut: recovery points, log starts, leases, offsets, producers?
 *
 * Imports base.h. A durable set of (type, key) -> value in two files, checkpoint.a and checkpoint.b, of which one is
 * active. A file is a snapshot of the whole set followed by appended groups of changes; when it is full, or the caller
 * asks, the merged state goes to the other file under the next generation and that one becomes active. Even generations
 * live in a, odd ones in b. docs/format.md has the layout, src/checkpoint_scan.h the offsets of its fields.
 *
 * Threads and processes: the caller holds the store's checkpoint lock around append, load and snapshot, and the
 * checkpoint sync lock (alone) around sync. create, open and recover run under the exclusive gate. A handle keeps
 * nothing but descriptors; everything that changes stands in `words`, in shared memory, so any process may die at any
 * instruction and the next one goes on. There is no global state: after fork() a child closes its handles. */
#ifndef TIDELOG_CHECKPOINT_H
#define TIDELOG_CHECKPOINT_H

#include "tidelog/base.h"

#define TL_CHECKPOINT_KEY_BYTES 512u
#define TL_CHECKPOINT_VALUE_BYTES 65536u
#define TL_CHECKPOINT_GROUP_BYTES (1u << 20)     /* the largest group, its header included */
#define TL_CHECKPOINT_INITIAL_BYTES (512u << 10) /* of each file at least: a full disk stops no commit */
#define TL_CHECKPOINT_MAX_BYTES (1u << 30)       /* a larger file is not one of ours */

/* In the `shared` map, valid for one boot, every field read and written atomically. Per-file fields have index
 * generation & 1; those of the file that is not active mean nothing. */
typedef struct tl_checkpoint_words {
    uint64_t generation;   /* of the active file; stored last when a snapshot takes over. 0: not recovered yet */
    uint64_t tail[2];      /* chain CRC of the last group << 32 | end / 8: one word, so that no death tears it */
    uint64_t synced[2];    /* low half of the generation << 32 | synced end / 8: a late store does no harm */
    uint32_t allocated[2]; /* pages of 4096 bytes */
    uint32_t salt[2];      /* random per generation, part of every group header */
    uint32_t state;        /* bits of enum tl_checkpoint_state */
    uint32_t suspect;      /* low half of a generation whose sync leader died inside fdatasync */
} tl_checkpoint_words;

_Static_assert(sizeof(tl_checkpoint_words) == 64, "a cache line of the shared map");

enum tl_checkpoint_state {
    TL_CHECKPOINT_FAILED = 1,  /* a sync failed: sticky until the store is recovered */
    TL_CHECKPOINT_SYNCING = 2, /* a leader is inside fdatasync, or died there */
    TL_CHECKPOINT_PENDING = 4  /* the other file may hold a newer header that nobody has switched to */
};

typedef struct tl_checkpoint {
    int dir; /* the caller's; not closed */
    int fd[2];
    int snapshot_fd[2]; /* own descriptions: a write-back error is reported once per description, and one that a
                                   sync leader of another thread collects must not be hidden from the snapshot writer */
    tl_checkpoint_words *words;
} tl_checkpoint;

typedef struct tl_checkpoint_record {
    const void *key, *value;
    uint32_t value_bytes; /* 0 when deleted */
    uint16_t key_bytes;
    uint16_t type;
    bool deleted; /* removes (type, key); it need not exist */
} tl_checkpoint_record;

/* What an append reached, to be given to tl_checkpoint_sync. */
typedef struct tl_checkpoint_end {
    uint64_t generation, position;
} tl_checkpoint_end;

/* A result != 0 stops the loading, which then returns it. The pointers live until the call returns. */
typedef int tl_checkpoint_each(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                               uint32_t value_bytes);

/* A new empty set: both files allocated and synced, the directory synced, `words` set. Leftovers of a creation that was
 * killed are replaced; TL_EEXIST when there is a whole file: open and recover that one. `mode`: 0600 normally. */
int tl_checkpoint_create(tl_checkpoint *c, int dir, unsigned mode, tl_checkpoint_words *words, tl_error *err);

/* Opens both files and touches neither `words` nor bytes. TL_ENOTFOUND: there are none; TL_ECORRUPT: one is gone. */
int tl_checkpoint_open(tl_checkpoint *c, int dir, tl_checkpoint_words *words, tl_error *err);
void tl_checkpoint_close(tl_checkpoint *c);

/* After a new boot or a FAILED store: finds the newest state, makes sure that it is on the disk, and sets `words`.
 * Groups past the last synced one may be torn and are then forgotten. TL_ECORRUPT names file and position when synced
 * bytes are damaged; older state is never handed out in their place. */
int tl_checkpoint_recover(tl_checkpoint *c, tl_error *err);

/* The same for one who only looks, with words of its own: writes nothing, so what it finds may be gone after a power cut. */
int tl_checkpoint_view(tl_checkpoint *c, tl_error *err);

/* Every live key once, the one changed last comes last. */
int tl_checkpoint_load(const tl_checkpoint *c, void *context, tl_checkpoint_each *each, tl_error *err);

/* Writes `count` records as one group: after a power cut all of them are there or none. Takes a snapshot by itself when
 * the file is full. `end` may be NULL. TL_ENOSPC when neither file has room and the disk is full, TL_ETOOLARGE for a
 * group over TL_CHECKPOINT_GROUP_BYTES, TL_EFAILED after a failed sync; nothing is changed then. */
int tl_checkpoint_append(tl_checkpoint *c, const tl_checkpoint_record *records, size_t count, tl_checkpoint_end *end,
                         tl_error *err);

/* Returns when everything up to `end` is on the disk; one caller's fdatasync serves all who appended before it.
 * TL_EFAILED: this or an earlier fdatasync failed; it is never tried again.
 * TL_EAGAIN: the leader before died inside fdatasync, and may have collected an error that the kernel reports once, so
 * that a second fdatasync proves nothing. Release the sync lock, take the checkpoint lock, call tl_checkpoint_snapshot
 * (it writes everything anew, elsewhere); its success makes everything appended before it durable. */
int tl_checkpoint_sync(tl_checkpoint *c, tl_checkpoint_end end, tl_error *err);

/* Writes the merged state to the other file, syncs it and makes it the active one. On an error the old one stays. */
int tl_checkpoint_snapshot(tl_checkpoint *c, tl_error *err);

/* The end of everything published so far; needs no lock. Syncing it syncs everything. */
tl_checkpoint_end tl_checkpoint_tail(const tl_checkpoint *c);

/* A sync failed, or a recovery did not get to its end: nothing is accepted until tl_checkpoint_recover. */
bool tl_checkpoint_needs_recovery(const tl_checkpoint *c);

/* Whether less than a quarter of the active file is free: a good time for a snapshot off the path of a commit. */
bool tl_checkpoint_is_filling(const tl_checkpoint *c);

/* What tl_checkpoint_check saw of one file. */
typedef struct tl_checkpoint_report {
    const char *name;
    bool exists, whole;                             /* whole: its header is valid */
    bool newest;                                    /* the one that recovery takes; only this one is walked */
    uint64_t size_bytes, generation, superseded_by; /* superseded_by 0: nothing newer was ever completed */
    uint64_t groups, records, live_records;
    uint64_t end, synced_end; /* positions; bytes from `end` on mean nothing */
} tl_checkpoint_report;

/* Reads both files as recovery would and changes nothing. With a store in use hold the checkpoint lock, else a snapshot
 * may pass by between the two files and look like damage. */
int tl_checkpoint_check(int dir, tl_checkpoint_report reports[2], tl_error *err);

#endif
