/* What do the handles of a process on a store, a partition and a segment hold?
 *
 * Private to native/src. Imports store.h, log.h, index.h, checkpoint.h. The comment beside a field says what guards it. */
#ifndef TIDELOG_HANDLES_H
#define TIDELOG_HANDLES_H

#include "tidelog/checkpoint.h"
#include "tidelog/index.h"
#include "tidelog/log.h"
#include "tidelog/shared.h"
#include "tidelog/store.h"

#include <pthread.h>

#define TL_DIRECTORY_MODE 0700u
#define TL_FILE_MODE 0600u
#define TL_PAGE 4096u
TL_INLINE uint64_t tl_page_up(uint64_t bytes) { return (bytes + TL_PAGE - 1) / TL_PAGE * TL_PAGE; } /* whole pages */
#define TL_CHUNK_FIRST 65536u               /* files grow by chunks that double from here ... */
#define TL_CHUNK_MOST (64u << 20)           /* ... to here */
#define TL_LEASE ((int64_t)1 << 30)
#define TL_TRY_MOST_BYTES (64u << 10)        /* most a call may move that must not wait: its caller holds the GIL */
#define TL_MIN_SEGMENT_BYTES 4096u
#define TL_MAX_SEGMENT_BYTES 0x7fffffffu
#define TL_MAX_OPEN_SEGMENTS 192u           /* descriptors kept for writing and syncing; more are opened when needed */
#define TL_MAX_MAPPED_SEGMENTS 16384u

/* Bytes of store.lock (open-file-description locks). */
enum { TL_BYTE_GATE = 0, TL_BYTE_HOUSEKEEPER = 1, TL_BYTE_BROKER = 2, TL_BYTE_CLOSER = 3, TL_BYTE_CATALOGUE = 4, TL_BYTE_PROCESS = 16 };

/* One file of a partition with its indexes, as this process has it mapped. */
typedef struct tl_segment {
    tl_partition *partition;                /* without a reference: whoever holds the segment has one */
    uint32_t refs;                          /* atomic; the cache of its partition holds one */
    uint32_t ordinal;
    int64_t base_offset;
    uint8_t *map;                           /* map_bytes of address space; only what is allocated may be touched */
    size_t map_bytes;
    struct tl_segment *lender;              /* whose map it is, referenced; NULL: its own */
    bool writable;
    uint32_t used;                          /* atomic tick of the last use, for the LRU */
    /* of the writer, guarded by the partition's lock: */
    uint32_t allocated, populated;          /* atomic, never less: whole pages of the file; bytes whose pages were faulted in */
    uint32_t prefault_ahead;                /* when fewer bytes are populated ahead, more are asked for */
    uint32_t prefault_until;                /* atomic; what the prefaulting thread is asked for, 0: nothing */
    bool prefault_runs, writer_grows;       /* atomic; who is at it: each waits for the other's bite, but not for long */
    uint32_t found_bytes;                   /* length of the file when it was opened */
    int fd;                                 /* -1: not open. Of the writer; guarded by the partition's mutex */
    bool sealed_index;                      /* a reader's: counts come from the seal and do not change */
    uint8_t *offset_map, *time_map;         /* NULL until needed */
    size_t offset_bytes, time_bytes;        /* address space of the index maps */
    uint32_t offset_allocated, time_allocated;
} tl_segment;

/* What `seals` holds by ordinal. Entry k + 1 has its base offset before the tail moves to ordinal k + 1. */
typedef struct tl_seal {
    int64_t base_offset, end_offset, max_timestamp_ms;
    uint32_t length, header_crc;            /* length 0: not sealed yet */
    uint32_t index_entries, time_entries;
    uint32_t batches, crc;                  /* CRC-32C of the 44 bytes before it */
} tl_seal;
_Static_assert(sizeof(tl_seal) == 48, "entries of seals");
#define TL_SEALS_HEADER 64u
#define TL_SEALS_MAX_BYTES (64u << 20)      /* address space: 1.4 million segments */

#define TL_SEGMENT_CACHE 8

struct tl_partition {
    tl_store *store;
    uint32_t slot, refs;                    /* refs: atomic */
    uint64_t id;
    tl_hot *hot;
    tl_cold *cold;
    tl_segment *writer;                     /* guarded by hot->lock: one thread of one process at a time */
    pthread_mutex_t index_mutex;            /* guards the index maps of readers' segments; taken before `mutex` */
    pthread_mutex_t mutex;                  /* guards what follows; never held while waiting for a shared lock */
    tl_segment *readers[TL_SEGMENT_CACHE];
    tl_segment *lending;                    /* the last writer, referenced: readers of this process use its map, or NULL */
    uint8_t *seals;                         /* mapped once, on first need */
    uint32_t seals_allocated;
    pthread_mutex_t producers_mutex;        /* guards what follows; taken before hot->lock */
    uint32_t producers_busy;                /* atomic; 0: what follows may be used under hot->lock alone */
    struct tl_producers *producers;         /* NULL until the first append that needs them */
    struct tl_ids *ids;                     /* the same; changed under hot->lock as well */
    uint8_t *ids_map;                       /* atomic, with the next: its map, to prefetch from without any lock */
    uint32_t ids_buckets;
    uint64_t joined;                        /* atomic; number of the transaction of this process that joined last */
    pthread_mutex_t aborted_mutex;          /* guards what follows; nothing else is taken under it but `mutex` */
    struct tl_aborted *aborted;             /* NULL until the first transactional batch is read */
    /* of whoever holds hot->sync_lock: */
    uint64_t directory_synced;              /* place up to which directory entries are known to be on disk */
    int sync_fd;                            /* -1: none; descriptor of segment sync_ordinal */
    uint32_t sync_ordinal;
};

struct tl_store {
    uint32_t open;                          /* atomic; 0 after the last close */
    uint32_t opens;                         /* references by tl_store_open; guarded by the registry's mutex */
    uint32_t refs;                          /* atomic; memory */
    uint32_t fork_generation;
    char *path;
    int dir, lock_fd;
    tl_identity identity;
    tl_store_options options;
    bool gate_exclusive;
    bool private_words;                     /* looking at a store that nobody has open: `shared` is a copy of our own */
    uint8_t *shared;
    tl_shared_header *header;
    uint32_t slot;
    tl_owner me;
    tl_liveness liveness;                   /* first member of what tl_store_of_liveness finds the store by */
    tl_checkpoint checkpoint;
    tl_offsets *offsets;
    struct tl_txn_file *records;            /* atomic; guarded by `mutex`: the map of transactions/records, or NULL */
    int records_fd;
    uint32_t records_hint;                  /* atomic; where a free record was found last */
    uint32_t records_announced;             /* atomic; 1: those who watch processes were told that we have transactions */
    pthread_mutex_t mutex;                  /* guards table, segments counted below */
    tl_partition **table;                   /* by slot */
    uint32_t table_size;
    uint32_t mapped_segments, open_descriptors, tick; /* atomic */
    pthread_mutex_t catalogue;              /* in front of TL_BYTE_CATALOGUE */
    bool catalogue_held;                    /* guarded by `catalogue` */
    pthread_t housekeeper;
    bool has_housekeeper, is_housekeeper;
    uint32_t housekeeper_word;              /* futex: wakes the thread */
    struct tl_deaths *deaths;               /* atomic; guarded by `mutex`: the thread that watches processes, or NULL */
    uint32_t deaths_seen;                   /* atomic; `arrivals` when that thread looked around last */
    bool deaths_stopped;                    /* guarded by `mutex`: closing, no such thread is started any more */
    pthread_t prefaulter;
    bool has_prefaulter;                    /* guarded by `mutex` */
    uint32_t prefault_word, prefault_stop;  /* atomic; the first is a futex */
    tl_segment *prefault_segment;           /* atomic; referenced, or NULL */
    int64_t retained_ns;                    /* last retention round; housekeeping only */
    pthread_mutex_t housekeeping;           /* one round at a time in a process */
    tl_store *next;                         /* registry */
};

extern uint32_t tl_fork_generation;         /* atomic */

/* Keeps the first error of a round that goes on with the other partitions. */
TL_INLINE void tl_keep_first(int status, const tl_error *inner, int *kept, tl_error *err) {
    if (status < 0 && *kept == TL_OK) {
        *kept = status;
        if (err != NULL)
            *err = *inner;
    }
}

/* --- store.c --- */
TL_INLINE bool tl_store_usable(const tl_store *store) {
    return __atomic_load_n(&store->open, __ATOMIC_SEQ_CST) != 0 &&
           store->fork_generation == __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED);
}
int tl_store_refuse(const tl_store *store, tl_error *err);      /* TL_ECLOSED or TL_EFORKED with a sentence */
int tl_store_refuse_look(const tl_store *store, tl_error *err); /* TL_EINVAL: a store opened to look at is not changed */
int64_t tl_store_lock_timeout_ns(const tl_store *store);
/* Takes a shared lock of the store with its lock timeout. TL_LOCK_TAKEN, TL_LOCK_TAKEN_OVER or TL_ELOCKED with the holder in err. */
int tl_store_take(tl_store *store, uint32_t *word, const char *what, tl_error *err);
void tl_store_holder(tl_store *store, tl_owner holder, tl_error *err);

/* Who was found alive in one pass over rows: one system call for each process, not for each of its rows. */
typedef struct tl_pulse { tl_owner alive[TL_PROCESSES]; } tl_pulse;
bool tl_pulse_is_alive(tl_store *store, tl_pulse *known, tl_owner owner);
/* Whether the holder of a lock word of `shared` is dead. */
TL_INLINE bool tl_store_lock_is_orphaned(tl_store *store, const uint32_t *word) {
    tl_owner holder = __atomic_load_n(word, __ATOMIC_SEQ_CST) & ~TL_LOCK_WAITERS;
    return holder != 0 && holder != store->me && !tl_store_owner_alive(store, holder);
}

/* --- threads.c --- */
int tl_thread_start(pthread_t *out, void *(*run)(void *context), void *context);          /* 0 or a negative errno */

/* --- directory.c --- */
int tl_directory_open(tl_store *store, tl_error *err);
int tl_directory_lock_file(tl_store *store, tl_error *err);
int tl_directory_write_identity(tl_store *store, tl_error *err);
int tl_directory_read_identity(tl_store *store, tl_error *err);          /* TL_ENOTFOUND: there is none yet */

/* --- look.c --- */
int tl_look_enter(tl_store *store, bool *live, tl_error *err);

/* --- entry.c --- */
int tl_entry_recover(tl_store *store, tl_recovery *recovery, tl_error *err);
int tl_entry_join(tl_store *store, tl_error *err);

/* --- gate.c: entering and leaving the directory --- */
int tl_gate_enter(tl_store *store, bool *exclusive, tl_error *err);
int tl_gate_take_slot(tl_store *store, tl_error *err);
uint32_t tl_gate_lock_abi(void);
int tl_gate_share(tl_store *store, tl_error *err);              /* exclusive to shared */
int tl_gate_upgrade(tl_store *store);                           /* TL_OK, or TL_EAGAIN: others are in */
int tl_shared_create(tl_store *store, tl_error *err);           /* a new file, nobody else inside */
int tl_shared_open(tl_store *store, tl_error *err);             /* maps it; TL_ENOTFOUND, TL_ECORRUPT when it cannot be used */
bool tl_shared_is_ready(tl_store *store);
void tl_shared_unready(tl_store *store);
void tl_shared_set_ready(tl_store *store);
void tl_shared_set_alone(tl_store *store);
int tl_shared_grow(tl_store *store, uint32_t partitions, tl_error *err); /* allocates blocks; under the catalogue's inner lock */

/* --- records.c: what the checkpoint holds --- */
enum { TL_RECORD_STORE = 1, TL_RECORD_DEFINITION = 2, TL_RECORD_STATE = 3, TL_RECORD_LEASE = 4, TL_RECORD_START = 5, TL_RECORD_OFFSET = 6,
       TL_RECORD_PRODUCER = 7, TL_RECORD_PRODUCER_IDS = 8 };

typedef struct tl_state {                   /* a partition as a checkpoint knows it; all but the first two only after a clean close */
    uint64_t recovery_point;
    int64_t recovery_offset;                /* log end offset there */
    int64_t base_offset;                    /* of the segment it points into */
    int64_t max_timestamp_ms;
    uint32_t header_crc, batches, index_entries, time_entries;
    uint64_t bytes_since_entry;
    int64_t time_max_ms, time_max_offset;
    uint64_t created_ms;
} tl_state;

/* OPENING: it was closed cleanly and whoever opens it has not come far; nothing is lost if that one dies, but the table of
 * offsets may be half filled, so it is nothing to look at. */
enum { TL_UNCLEAN = 0, TL_CLEAN = 1, TL_CLEAN_OPENING = 2 };
int tl_records_put_clean(tl_store *store, uint32_t clean, tl_error *err);   /* durable when it returns, but for OPENING */
int tl_records_put_definitions(tl_store *store, const uint32_t *slots, size_t count, bool with_lease, tl_error *err);
int tl_records_drop(tl_store *store, const uint32_t *slots, size_t count, tl_error *err);
int tl_records_put_states(tl_store *store, const uint32_t *slots, const tl_state *states, size_t count, tl_error *err);   /* not synced */
/* Durable. */
int tl_records_put_start(tl_store *store, uint32_t slot, int64_t log_start, uint32_t first_ordinal, int64_t first_base,
                         tl_error *err);
int tl_records_put_lease(tl_store *store, const uint32_t *slots, const int64_t *leases, size_t count, tl_error *err);   /* durable */
int tl_records_sync(tl_store *store, tl_error *err);
int tl_records_put(tl_store *store, const tl_checkpoint_record *records, size_t count, bool durable, tl_error *err);
int tl_records_load_mark(tl_store *store, bool *clean, tl_error *err);       /* the store's own record alone */
/* Fills shared words and the offset table from the checkpoint; *clean: it was closed cleanly. */
int tl_records_load(tl_store *store, bool *clean, tl_error *err);

/* --- offset_records.c: what it holds of committed offsets --- */
int tl_records_put_offsets(tl_store *store, tl_error *err);                 /* what changed; not synced */
int tl_records_load_offset(tl_store *store, const void *key, uint16_t key_bytes, const void *value, uint32_t value_bytes,
                           tl_error *err);
void tl_records_mark_offsets_saved(tl_store *store);

/* --- segment.c --- */
void tl_segment_path(const tl_partition *partition, int64_t base_offset, const char *suffix, char out[360]);
int tl_segment_create(tl_partition *partition, uint32_t ordinal, int64_t base_offset, tl_segment **out, tl_error *err);
int tl_segment_open_writer(tl_partition *partition, uint32_t ordinal, int64_t base_offset, tl_segment **out, tl_error *err);
int tl_segment_open_reader(tl_partition *partition, uint32_t ordinal, tl_segment **out, tl_error *err);  /* through the cache; release it */
int tl_segment_base(tl_partition *partition, uint32_t ordinal, int64_t *base, tl_error *err);
void tl_segment_release(tl_store *store, tl_segment *segment);
int tl_segment_descriptor(tl_partition *partition, tl_segment *segment, int *fd, tl_error *err);
void tl_segment_drop_descriptor(tl_store *store, tl_segment *segment);
int tl_segment_index(tl_partition *partition, tl_segment *segment, tl_index *out, bool room_for_entries, tl_error *err);
/* The same for a reader's segment, which threads share. */
int tl_segment_reader_index(tl_partition *partition, tl_segment *segment, tl_index *out, tl_error *err);
void tl_segment_lend(tl_partition *partition);                              /* the writer's map; under the lock */
void tl_partition_forget_segments(tl_partition *partition, uint32_t below_ordinal);

/* --- growth.c: of a segment that is written to; `until` is a position --- */
uint32_t tl_segment_limit(const tl_segment *segment);                       /* where growing ahead ends */
/* Without the lock: by zeros at the end, up to `until` at least, unless it is as long already. 0 or a negative errno. */
int tl_segment_lengthen(tl_segment *segment, int fd, uint32_t until);
int tl_segment_allocate(tl_segment *segment, uint32_t until, tl_error *err);            /* under the lock */
int tl_segment_make_ready(tl_segment *segment, uint32_t until, tl_error *err);          /* the same, and its pages are there */
/* Until that is false or pages up to `until` are ready, but not for long; whether they are. */
bool tl_segment_wait_ready(const tl_segment *segment, const bool *other_is_at_it, uint32_t until);
void tl_segment_raise(uint32_t *mark, uint32_t to);                         /* `allocated` or `populated`, unless it is higher */

/* --- segment_files.c --- */
enum { TL_SEGMENT_SUFFIXES = 5 };
extern const char *const tl_segment_suffixes[TL_SEGMENT_SUFFIXES];          /* of all files of a segment; ".log" is the first */
#define TL_FAILED_FILE "FAILED"                                             /* beside them, once a sync has failed */
typedef struct tl_segment_files {
    int64_t *bases;                         /* ascending; to be freed */
    size_t count, room;
    bool failed_marker;                     /* TL_FAILED_FILE is there */
} tl_segment_files;
/* The segments that have a file with this suffix. No directory: none. Nothing is left to free when it fails. */
int tl_segment_list(tl_partition *partition, const char *suffix, tl_segment_files *out, tl_error *err);
void tl_segment_sweep(tl_partition *partition);                              /* what a deleter that died has left */
int tl_segment_sync_names(tl_partition *partition);                         /* of files that came or went; 0 or a negative errno */

/* --- seals.c, reseal.c --- */
int tl_seals_map(tl_partition *partition, bool create, tl_error *err);
int tl_seals_put(tl_partition *partition, uint32_t ordinal, const tl_seal *seal, tl_error *err);
/* Checked copy. TL_ENOTFOUND: no such entry yet. */
int tl_seals_read(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err);
int tl_seals_check_header(tl_partition *partition, tl_error *err);
/* The same for readers: what a damaged entry of a complete segment said is found out anew from the files (end_offset -1,
 * max_timestamp_ms INT64_MAX: not known). */
int tl_seals_get(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err);
int tl_seals_guess(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err);

/* --- append.c, roll.c, repair.c, sync.c, retain.c, recover.c, wait.c, housekeeper.c --- */
extern const char tl_given_up[];                                            /* what is said of a partition with TL_UNRECOVERED */
/* The end slot that belongs to `tail`. */
TL_INLINE void tl_end_read(const tl_hot *hot, uint64_t tail, tl_end *out) {
    const tl_end *end = __atomic_load_n(&hot->end_a.tail, __ATOMIC_ACQUIRE) == tail ? &hot->end_a : &hot->end_b;
    if (TL_BUG(END_SLOT_WITHOUT_TAG))
        end = __atomic_load_n(&hot->end_a.end_offset, __ATOMIC_ACQUIRE) >= __atomic_load_n(&hot->end_b.end_offset, __ATOMIC_ACQUIRE)
                  ? &hot->end_a : &hot->end_b;
    tl_end_load(end, out);
}
bool tl_end_at(tl_hot *hot, uint64_t *tail, tl_end *out);                   /* without the lock; false: kept changing */
int tl_partition_lock(tl_partition *partition, bool try_only, tl_error *err);
void tl_partition_unlock(tl_partition *partition);
int tl_partition_writer(tl_partition *partition, tl_error *err);            /* maps the active segment; under the lock */
int tl_partition_roll(tl_partition *partition, int64_t base_offset, tl_error *err);     /* under the lock */
int tl_partition_roll_early(tl_partition *partition, tl_error *err);                    /* under the lock; at the log end */
void tl_segment_trim_files(tl_partition *partition, int64_t base_offset, const tl_seal *seal);
int tl_partition_repair(tl_partition *partition, tl_error *err);            /* after taking the lock from a dead owner */
int tl_partition_extend_lease(tl_partition *partition, tl_error *err);      /* under the lock */
/* 1: it may have been written to, so its lease must be renewed durably; 0: nothing to do. The gate is held alone. */
int tl_partition_recover(tl_partition *partition, bool clean, tl_recovery *totals, tl_error *err);
/* Syncs, trims files to what is used, and says what the checkpoint must hold. The gate is held alone. */
int tl_partition_settle(tl_partition *partition, tl_state *out, tl_error *err);
void tl_partition_wake_sleepers(tl_partition *partition);
int tl_partition_sync_flush(tl_partition *partition, tl_error *err);        /* everything up to the tail as it is now */
int tl_partition_sync_indexes(tl_partition *partition, int64_t base_offset, tl_error *err); /* of a segment that is complete */
/* A sync failed: sticky for every process and the next boot. Returns TL_EFAILED. */
int tl_partition_set_failed(tl_partition *partition, int negative_errno, const char *path, tl_error *err);
/* What the checkpoint may hold once everything before *upto is synced; false: it kept changing. */
bool tl_partition_capture(tl_partition *partition, tl_state *out);
void tl_partition_drop_directory(tl_store *store, uint32_t slot);
void tl_catalogue_remove_directory(tl_store *store, const char *name);
/* Under the catalogue's inner lock, or alone: half creations are undone, half drops finished. */
int tl_leftovers_finish(tl_store *store, tl_error *err);
void tl_leftovers_sweep(tl_store *store);                                   /* alone: directories whose removal was cut short */
int tl_partition_delete_segments(tl_partition *partition, int64_t before, uint32_t first_kept, tl_error *err);
/* Pages ahead are running out, and nobody is at work on them. */
TL_INLINE bool tl_prefault_is_due(const tl_segment *segment, uint64_t until, uint32_t ready) {
    return TL_UNLIKELY(ready < until + segment->prefault_ahead) && __atomic_load_n(&segment->prefault_until, __ATOMIC_ACQUIRE) == 0;
}
void tl_prefault_ask(tl_segment *segment, uint32_t position);
void tl_prefault_stop(tl_store *store);
int tl_housekeeper_start(tl_store *store, tl_error *err);
void tl_housekeeper_stop(tl_store *store);
void tl_store_wake_everybody(tl_store *store);

/* --- producer_names.c: what the checkpoint holds of them --- */
/* Records 7 and 8 while the store is loaded; records of names are looked for when a name is opened. */
int tl_producer_names_settle(tl_store *store, tl_error *err);              /* at a clean close; not synced */
int tl_producer_names_load(tl_store *store, uint16_t type, const void *value, uint32_t value_bytes, tl_error *err);

/* --- producers.c, producers_upkeep.c --- */
void tl_producers_free(tl_partition *partition);                            /* with its handle */
/* Before segments below `first_kept` go: what was known of producers where that one begins, durably; nothing where no
 * producer ever wrote. */
int tl_producers_keep(tl_partition *partition, uint32_t first_kept, tl_error *err);
int tl_producers_seal(tl_partition *partition, tl_error *err);              /* of the housekeeper: files that are missing */
/* Alone, of a partition that was scanned from segment `from` on: files of what a power cut took, and those it tore, go. */
void tl_producers_recover(tl_partition *partition, uint32_t from);
/* Returns the number of findings. */
int tl_producers_check(tl_partition *partition, const tl_check_report *report, tl_error *err);

/* --- transactions_recover.c, transaction_end.c, opens.c, aborted.c: what opening, flushing, retaining and closing have to do
 * with transactions --- */
/* Under the partition's lock, taken from the dead: `lso` anew. */
int tl_transactions_repair(tl_partition *partition, tl_error *err);
int tl_transactions_recover_same_boot(tl_store *store, tl_recovery *recovery, tl_error *err);      /* all are dead: nothing stays open */
/* Alone, after a new boot; partitions are recovered, their leases durable. */
int tl_transactions_recover(tl_store *store, bool clean, tl_recovery *recovery, tl_error *err);
void tl_transactions_leave(tl_store *store);                                /* what this process has open is aborted */
int tl_transactions_end_all(tl_store *store, tl_error *err);                /* alone, at a clean close */
/* Records whose markers are on disk now; free them once the offsets that changed before are, too. */
typedef struct tl_done_records { uint32_t *slots; uint64_t *numbers; size_t count, room; } tl_done_records;
void tl_transactions_collect_done(tl_store *store, tl_done_records *out);
void tl_transactions_free_done(tl_store *store, tl_done_records *done, bool durable);
int tl_transactions_check(tl_store *store, void *context, void (*found)(void *context, const tl_error *problem), tl_error *err);
void tl_transactions_free(tl_store *store);                                 /* with its handle */
void tl_aborted_free(tl_partition *partition);                              /* with its handle */

/* --- ids_file.c --- */
void tl_ids_free(tl_partition *partition);                                  /* with its handle */

/* --- groups.c, sweep.c, deaths.c: what opening, waiting and closing have to do with members of groups --- */
typedef struct tl_deaths tl_deaths;
void tl_groups_forget_members(tl_store *store);                             /* alone, after the death of all */
void tl_groups_leave_all(tl_store *store);                                  /* members of this process */
int tl_deaths_start(tl_store *store, tl_error *err);                        /* unless it runs; nothing with no_housekeeper */
void tl_deaths_nudge(tl_store *store);
void tl_deaths_stop(tl_store *store);
void tl_deaths_forked(tl_store *store);

#endif
