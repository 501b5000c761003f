/* What do the processes of one store share in the file `shared`, word by word?
 *
 * Imports lock.h, checkpoint.h (its words), base.h. The file is mapped once per process and never unmapped; it is valid
 * for one boot. Layouts are little-endian and fixed under TL_SHARED_VERSION. Every word but the padding is read and
 * written with atomics; the comment beside a word says who may write it.
 * File: header page | 512 process slots | 1024 group rows | 512 member rows | 1024 producer rows | blocks of 64 partitions
 * (64 hot entries, then 64 cold entries). */
#ifndef TIDELOG_SHARED_H
#define TIDELOG_SHARED_H

#include "tidelog/checkpoint.h"
#include "tidelog/lock.h"

#define TL_SHARED_MAGIC 0x3164657261687374u /* "tshared1" */
#define TL_SHARED_VERSION 3u
#define TL_LOCK_ABI 0x78000001u /* lock words: version 1; architecture and word size are added */
#define TL_PROCESSES 512u
#define TL_GROUPS 1024u
#define TL_MEMBERS 512u
#define TL_PRODUCERS 1024u
#define TL_PARTITIONS (1u << 17)
#define TL_BLOCK_PARTITIONS 64u

#define TL_UNRECOVERED 0x10000u

/* The words of a partition's end that belong together: valid when `tail` equals the partition's tail. */
typedef struct tl_end {
    uint64_t tail;
    int64_t end_offset;       /* log end offset */
    int64_t max_timestamp_ms; /* of the segment `tail` points into; -1: none */
    uint32_t header_crc;      /* CRC-32C over the first 21 bytes of every batch of that segment */
    uint32_t batches;         /* in that segment, modulo 2^32 */
} tl_end;

/* Readers look at a slot without the lock and ask the tail afterwards whether it was in force. Whoever sees a field of the
 * slot that is being filled also sees the tail that put the slot out of force: each field is released and acquired by
 * itself, which costs no more than a plain move on x86. */
TL_INLINE void tl_end_store(tl_end *end, const tl_end *from) {
    __atomic_store_n(&end->tail, from->tail, __ATOMIC_RELEASE);
    __atomic_store_n(&end->end_offset, from->end_offset, __ATOMIC_RELEASE);
    __atomic_store_n(&end->max_timestamp_ms, from->max_timestamp_ms, __ATOMIC_RELEASE);
    __atomic_store_n(&end->header_crc, from->header_crc, __ATOMIC_RELEASE);
    __atomic_store_n(&end->batches, from->batches, __ATOMIC_RELEASE);
}
TL_INLINE void tl_end_load(const tl_end *end, tl_end *to) {
    to->tail = __atomic_load_n(&end->tail, __ATOMIC_ACQUIRE);
    to->end_offset = __atomic_load_n(&end->end_offset, __ATOMIC_ACQUIRE);
    to->max_timestamp_ms = __atomic_load_n(&end->max_timestamp_ms, __ATOMIC_ACQUIRE);
    to->header_crc = __atomic_load_n(&end->header_crc, __ATOMIC_ACQUIRE);
    to->batches = __atomic_load_n(&end->batches, __ATOMIC_ACQUIRE);
}

/* A place in a partition: segment ordinal in the upper half, position in bytes in the lower. */
TL_INLINE uint64_t tl_place(uint32_t ordinal, uint32_t position) { return (uint64_t)ordinal << 32 | position; }
TL_INLINE uint32_t tl_place_ordinal(uint64_t place) { return (uint32_t)(place >> 32); }
TL_INLINE uint32_t tl_place_position(uint64_t place) { return (uint32_t)place; }

typedef struct tl_hot {
    /* line 0: written under `lock` */
    uint32_t lock;
    uint32_t late;          /* unsynced bytes are older than promised: appenders sync first */
    uint64_t reserve;       /* bytes in [tail, reserve) may be half written */
    uint32_t index_entries; /* of the active segment */
    uint32_t time_entries;
    uint64_t segment_created_ms;
    tl_end end_a;
    /* line 1: read by readers */
    uint64_t tail;          /* release-stored last: the only word that bounds a read */
    uint64_t id;            /* never reused; bit 0: DROPPED */
    int64_t log_start;      /* log start offset */
    uint64_t lso;           /* place before which everything is decided; UINT64_MAX: no open transaction */
    uint64_t sleepers;      /* bit (slot & 63) of every process that sleeps on this partition */
    int64_t active_base[2]; /* base offset of the segment with an even, an odd ordinal; the tail's is valid */
    uint32_t first_ordinal; /* of the oldest segment kept */
    uint32_t lease_asked;   /* 1: the lease on disk may be ahead of `lease`, whose writer died before it could tell */
    /* line 2: written under `lock` */
    tl_end end_b;
    uint64_t bytes_since_entry; /* these three: tl_index_progress of the active segment */
    int64_t time_max_ms, time_max_offset;
    int64_t lease; /* no offset >= lease may be given out before the lease is extended on disk */
    /* line 3: syncing */
    uint32_t sync_lock;
    uint32_t failed;         /* errno of the failed sync; sticky. With TL_UNRECOVERED: why recovery gave it up */
    uint64_t synced;         /* everything before this place is on disk */
    uint64_t syncing;        /* place + 1 a leader is syncing up to; 0: none. Left set by a dead leader */
    uint64_t dirty_since_ns; /* monotonic time of the oldest unsynced append; 0: none */
    uint64_t saved;          /* `synced` as the checkpoint holds it */
    int64_t saved_log_start;
    uint32_t sync_waiters; /* threads asleep on sync_turns */
    uint32_t sync_turns;   /* futex: bumped when the sync lock was released */
    int64_t first_base;    /* base offset of segment first_ordinal; stored before it, under `lock` */
} tl_hot;

/* Counts and progress of the active segment's indexes: written under the lock, looked at without it. */
TL_INLINE void tl_hot_set_counts(tl_hot *hot, uint32_t index_entries, uint32_t time_entries) {
    __atomic_store_n(&hot->time_entries, time_entries, __ATOMIC_RELEASE);
    __atomic_store_n(&hot->index_entries, index_entries, __ATOMIC_RELEASE);
}
TL_INLINE void tl_hot_set_progress(tl_hot *hot, uint64_t bytes_since_entry, int64_t time_max_ms,
                                   int64_t time_max_offset) {
    __atomic_store_n(&hot->bytes_since_entry, bytes_since_entry, __ATOMIC_RELAXED);
    __atomic_store_n(&hot->time_max_ms, time_max_ms, __ATOMIC_RELAXED);
    __atomic_store_n(&hot->time_max_offset, time_max_offset, __ATOMIC_RELAXED);
}

/* What seldom changes; written under the catalogue lock before `id` is published, config words atomically. */
typedef struct tl_cold {
    uint64_t id;         /* as in tl_hot without the DROPPED bit; 0: free */
    uint8_t channel[16]; /* the channel's UUID */
    uint32_t partition;
    uint32_t segment_bytes;
    int64_t segment_ms, retention_ms, retention_bytes; /* -1: no limit */
    uint32_t max_message_bytes;
    uint32_t retention_consumed;
    uint64_t ids_complete; /* place up to which every message-id stands in the window of ids; 0: nothing is known */
    uint64_t aborts;       /* aborted transactions noted in this boot; release-stored before readers may pass them */
    int64_t id_age_ms;     /* how long, and */
    uint32_t id_count;     /* among how many ids, a repeated id is a duplicate; 0: never */
    uint32_t ids_file;     /* number of the file `ids` in force; 0: there is none, whatever ids_complete says */
    uint64_t ids_key;      /* of the hash of ids, random per boot; 0: none yet */
    uint64_t first_open;   /* place: no open transaction begins before it; UINT64_MAX: there is none. Lowered before `lso`,
                            * raised after the tail: what `lso` is computed from after a death */
    uint64_t producers;    /* 1: there are files BASE.producers, 2: there is none, 0: not known in this boot */
    uint64_t reserved[16];
    char directory[264]; /* name of the partition's directory, NUL-terminated */
} tl_cold;

typedef struct tl_process {
    uint32_t word;        /* futex: bumped to wake whoever sleeps in this process */
    uint32_t incarnation; /* bumped by whoever takes the slot */
    uint32_t sleeping;    /* threads asleep on `word` */
    uint32_t pid;         /* for messages only */
    uint64_t started_ms;
    uint32_t inside;      /* twice its incarnation plus one, from entering to leaving, or until its death is noticed; 0: none */
    uint32_t pid_namespace; /* where `pid` means this process; 0: not known */
    uint64_t reserved[4];
} tl_process;

/* A consumer group with members. Written under `groups_lock`; `turn` also by whoever gives a lease back. A row without
 * members may be taken for another group; its version never goes back. */
typedef struct tl_group_row {
    uint32_t group;    /* the group's number in the table of offsets + 1; 0: never used */
    uint32_t turn;     /* bumped at every join, leave, death, installed plan and lease given back: what members compare */
    uint64_t version;  /* bumped when members come, go or change: the generation */
    uint64_t assigned; /* the version whose plan stands in the offset slots; 0: none, or one is being stored */
    uint64_t reserved[5];
} tl_group_row;

enum { TL_MEMBER_FREE = 0, TL_MEMBER_ACTIVE = 1, TL_MEMBER_AWAY = 2 };
#define TL_MEMBER_CHANNELS 64u
#define TL_MEMBER_NAME_BYTES 96u
#define TL_MEMBER_STRATEGY_BYTES 24u

/* A member of a group. Written under `groups_lock`, `state` last; `since` by the member itself. */
typedef struct tl_member_row {
    uint32_t state; /* FREE, ACTIVE, AWAY (of a name: its process died or left, its partitions wait for it) */
    tl_owner owner; /* its process; 0 while it is away */
    uint32_t group; /* index of its group row */
    uint32_t uses;  /* bumped by each member that takes the row: (uses, index) is given out once in these words' life */
    uint64_t joined;               /* place in the order of joining */
    int64_t max_processing_ns;     /* -1: no limit */
    int64_t away_ns, away_since_ns; /* monotonic */
    uint32_t channel_count, name_bytes;
    uint32_t pid; /* for messages only */
    uint32_t reserved_a;
    uint64_t since; /* monotonic ms since when it handles something << 24 | low bits of `uses`; ms 0: it asks or sleeps */
    uint64_t reserved_b[7];
    uint32_t channels[TL_MEMBER_CHANNELS]; /* local ids */
    char name[TL_MEMBER_NAME_BYTES];
    char strategy[TL_MEMBER_STRATEGY_BYTES]; /* NUL-terminated */
    uint64_t reserved_c;
} tl_member_row;

#define TL_PRODUCER_NAME_BYTES 184u
#define TL_PRODUCER_IDS_KEPT 4

/* A named producer. Written under `transactions_lock`; `holder` is compared by every append under a partition's lock. A row
 * that nobody owns and that has no transaction may be taken for another name: what must outlive it is in the checkpoint. */
typedef struct tl_producer_row {
    uint64_t holder;      /* bumped by each one that opens the name: whoever sees another value than its own is fenced */
    int64_t producer_id;
    uint32_t owner;       /* tl_owner of the process that has it open; 0: nobody */
    uint32_t epoch;       /* 0 .. 32766; in force for what is appended next */
    uint32_t epoch_end;   /* epochs below it are reserved in the checkpoint, durably */
    uint32_t transaction; /* number of its open record + 1; 0: none */
    uint32_t name_bytes;  /* 0: a free row */
    uint32_t reserved_a;
    int64_t previous_ids[TL_PRODUCER_IDS_KEPT]; /* the producer ids this name had before, newest first; -1: none */
    char name[TL_PRODUCER_NAME_BYTES];
} tl_producer_row;

/* ready_set. 0: the words are not to be trusted. ALONE: they are true, but the store is being closed, its checkpoint may say
 * "clean" already, and only who has the gate alone may go on from them. */
enum { TL_READY = 1, TL_READY_ALONE = 2 };

typedef struct tl_shared_header {
    uint64_t magic;
    uint32_t version, lock_abi;
    tl_identity ready; /* zeroed first, stored last (rule 2) */
    uint32_t ready_set, reserved_a;
    /* one line each: */
    _Alignas(64) uint32_t catalogue_lock;
    uint32_t partitions; /* slots ever used; grows under catalogue_lock, release-stored */
    uint64_t generation; /* of the catalogue: bumped when channels come or go */
    uint64_t next_id;    /* of partitions; never goes back (checkpointed) */
    uint64_t allocated_blocks;
    _Alignas(64) uint32_t checkpoint_lock;
    uint32_t reserved_b;
    _Alignas(64) uint32_t checkpoint_sync_lock;
    uint32_t reserved_c;
    _Alignas(64) tl_checkpoint_words checkpoint;
    _Alignas(64) uint64_t last_flush_ns; /* monotonic; the last round of flushing that ended */
    uint64_t flush_interval_ms;          /* the smallest asked for by a process */
    uint64_t processes;                  /* highest slot ever used + 1 */
    _Alignas(64) uint32_t groups_lock;   /* group and member rows, and the plans in offset slots */
    uint32_t groups, members;            /* rows ever used */
    uint32_t arrivals;                   /* bumped when one joins or goes away: who watches processes looks again */
    uint64_t joined;                     /* the last place given out in the order of joining */
    _Alignas(64) uint32_t transactions_lock; /* producer rows, and what states the records of transactions have */
    uint32_t producers;                      /* rows ever used */
    uint32_t transactions;                   /* records ever used in this boot */
    uint32_t unfinished;                     /* records that are neither free nor done */
    int64_t next_producer_id, producer_ids_end; /* of the block that the checkpoint has given out */
    uint64_t next_transaction;               /* numbers of transactions; never goes back within a boot */
    uint32_t transactions_failed;            /* errno of a failed sync of the records; sticky, 0: none */
    uint32_t records_sync_lock;              /* one sync of the records at a time, for all who wait */
    uint64_t decisions;                      /* taken so far; numbers them */
    uint64_t decisions_synced;               /* up to this one the records are on disk */
    uint32_t records_syncing;                /* 1: a leader is inside that sync, or died there */
    uint32_t reserved_d;
} tl_shared_header;

_Static_assert(sizeof(tl_hot) == 256, "hot words of a partition fill four cache lines");
_Static_assert(sizeof(tl_cold) == 512, "cold entries fill eight cache lines");
_Static_assert(sizeof(tl_process) == 64, "a process slot is a cache line");
_Static_assert(sizeof(tl_group_row) == 64, "a group row is a cache line");
_Static_assert(sizeof(tl_member_row) == 512 && offsetof(tl_member_row, since) == 64, "a member row fills eight lines");
_Static_assert(sizeof(tl_producer_row) == 256, "a producer row fills four lines");
_Static_assert(offsetof(tl_shared_header, transactions_lock) == 448, "documented in docs/format.md");
_Static_assert(offsetof(tl_shared_header, groups_lock) == 384, "documented in docs/format.md");
_Static_assert(sizeof(tl_shared_header) <= 4096, "the header is a page");

#define TL_SHARED_PROCESSES_AT 4096u
#define TL_SHARED_GROUPS_AT (TL_SHARED_PROCESSES_AT + TL_PROCESSES * 64u)
#define TL_SHARED_MEMBERS_AT (TL_SHARED_GROUPS_AT + TL_GROUPS * 64u)
#define TL_SHARED_PRODUCERS_AT (TL_SHARED_MEMBERS_AT + TL_MEMBERS * 512u)
#define TL_SHARED_BLOCKS_AT (TL_SHARED_PRODUCERS_AT + TL_PRODUCERS * 256u)
#define TL_BLOCK_BYTES (TL_BLOCK_PARTITIONS * (256u + 512u))
#define TL_SHARED_BYTES (TL_SHARED_BLOCKS_AT + (size_t)(TL_PARTITIONS / TL_BLOCK_PARTITIONS) * TL_BLOCK_BYTES)

TL_INLINE tl_shared_header *tl_shared_header_of(uint8_t *map) { return (tl_shared_header *)(void *)map; }
TL_INLINE tl_process *tl_shared_process(uint8_t *map, uint32_t slot) {
    return (tl_process *)(void *)(map + TL_SHARED_PROCESSES_AT) + slot;
}
TL_INLINE tl_group_row *tl_shared_group(uint8_t *map, uint32_t row) {
    return (tl_group_row *)(void *)(map + TL_SHARED_GROUPS_AT) + row;
}
TL_INLINE tl_member_row *tl_shared_member(uint8_t *map, uint32_t row) {
    return (tl_member_row *)(void *)(map + TL_SHARED_MEMBERS_AT) + row;
}
TL_INLINE tl_producer_row *tl_shared_producer(uint8_t *map, uint32_t row) {
    return (tl_producer_row *)(void *)(map + TL_SHARED_PRODUCERS_AT) + row;
}
TL_INLINE tl_hot *tl_shared_hot(uint8_t *map, uint32_t slot) {
    uint8_t *block = map + TL_SHARED_BLOCKS_AT + (size_t)(slot / TL_BLOCK_PARTITIONS) * TL_BLOCK_BYTES;
    return (tl_hot *)(void *)block + slot % TL_BLOCK_PARTITIONS;
}
TL_INLINE tl_cold *tl_shared_cold(uint8_t *map, uint32_t slot) {
    uint8_t *block = map + TL_SHARED_BLOCKS_AT + (size_t)(slot / TL_BLOCK_PARTITIONS) * TL_BLOCK_BYTES;
    return (tl_cold *)(void *)(block + TL_BLOCK_PARTITIONS * 256u) + slot % TL_BLOCK_PARTITIONS;
}

#endif
