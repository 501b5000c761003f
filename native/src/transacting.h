/* What do the files that work on transactions share?
 *
 * Private to native/src. Imports transactions.h, handles.h. Layout of the file of records: docs/format.md. The words of a
 * record are changed under transactions_lock alone; `state` is stored last and is the truth of this boot. */
#ifndef TIDELOG_SRC_TRANSACTING_H
#define TIDELOG_SRC_TRANSACTING_H

#include "handles.h"
#include "tidelog/transactions.h"

#define TL_TXN_FOLDER "transactions"
#define TL_TXN_FILE "transactions/records"
#define TL_TXN_FIRST_SLOTS 64u     /* 256 KiB; doubled when all are taken */
#define TL_TXN_MOST_SLOTS 16384u   /* 64 MiB of address space in each process that uses transactions */
#define TL_TXN_CHAIN 1024u         /* slots of one transaction */
#define TL_TXN_UNITS 124u
#define TL_TXN_NAME_BYTES 24u      /* of a group's name in one unit */

enum { TL_TXN_FREE = 0, TL_TXN_OPEN = 1, TL_TXN_COMMITTING = 2, TL_TXN_ABORTING = 3, TL_TXN_DONE = 4, TL_TXN_CHAINED = 5 };
enum { TL_TXN_UNDECIDED = 0, TL_TXN_ABORT = 1, TL_TXN_COMMIT = 2 };

/* What a transaction is about, in units of which the first 24 bytes are under the CRC. A partition takes one unit, an offset
 * two (the second names channel, partition and group, because slots of the table of offsets are numbers of one boot), the
 * name of a group one and as many as its bytes need; none goes over the end of a slot. */
enum { TL_TXN_PARTITION = 1, TL_TXN_OFFSET = 2, TL_TXN_GROUP = 3 };
typedef struct tl_txn_unit {
    uint32_t kind;
    uint32_t slot;  /* of the partition, of the table of offsets; number of the group */
    uint64_t id;    /* of the partition; epoch of the lease and owner << 32; bytes of the name */
    int64_t offset; /* to be committed */
    uint64_t place; /* of a partition: behind the marker, 0: it is not there yet. Not under the CRC */
} tl_txn_unit;
typedef struct tl_txn_where { /* the second unit of an offset */
    uint8_t channel[16];
    uint32_t partition, group;
    uint64_t unused;
} tl_txn_where;

typedef struct tl_txn_record {
    uint32_t crc;   /* of bytes 8-63 and of the units; right once it is decided */
    uint32_t state;
    uint64_t number;
    int64_t producer_id;
    int16_t epoch;
    uint16_t decision;
    uint32_t owner;
    int64_t started_ms, decided_ms;
    uint32_t timeout_ms;
    uint32_t used; /* units in this slot */
    uint32_t next; /* slot + 1 in which it goes on; 0: nowhere */
    uint32_t synced;
    /* of this boot, not under the CRC: */
    int64_t deadline_ns, decided_ns;
    uint64_t sequence; /* of the decision, for the sync of the records */
    uint32_t row;      /* of its producer */
    uint32_t applied;  /* its offsets stand in the table of offsets */
    uint32_t head;     /* of a slot that goes on for another: that one's number */
    uint32_t reserved[7];
    tl_txn_unit units[TL_TXN_UNITS];
} tl_txn_record;

_Static_assert(sizeof(tl_txn_unit) == 32 && sizeof(tl_txn_where) == 32, "units of records");
_Static_assert(sizeof(tl_txn_record) == TL_PAGE && offsetof(tl_txn_record, units) == 128, "a record is a page");

typedef struct tl_txn_file {
    uint64_t magic;
    uint32_t version, slot_bytes;
    uint64_t slots; /* guarded; changed under transactions_lock */
    uint32_t named; /* its name is on the disk */
    uint8_t reserved[32];
    uint32_t crc; /* of bytes 0-15 */
} tl_txn_file;
#define TL_TXN_MAGIC 0x31736e6172746474u /* "tdtrans1" */
#define TL_TXN_VERSION 1u
#define TL_TXN_MAP_BYTES ((size_t)(TL_TXN_MOST_SLOTS + 1) * TL_PAGE)

TL_INLINE uint64_t tl_guarded(uint32_t value) { return value | (uint64_t)~value << 32; }

/* --- transactions_file.c --- */
int tl_txn_map(tl_store *store, bool create, tl_error *err);  /* maps the file; TL_ENOTFOUND: there is none. To create: locked */
int tl_txn_keep_name(tl_store *store, tl_error *err); /* mapped: its name is on the disk when this returns */
tl_txn_record *tl_txn_at(tl_store *store, uint32_t slot);     /* NULL: no such slot, or not mapped */
uint32_t tl_txn_used(const tl_store *store);                  /* slots ever used in this boot */
int tl_txn_free_slot(tl_store *store, uint32_t *slot, tl_error *err); /* under the lock; grows the file. TL_EFULL */
uint32_t tl_txn_crc(const tl_txn_record *record);
/* How many units this one takes; 0: it cannot be. `left`: units from it to the end of those in use. */
uint32_t tl_txn_span(const tl_txn_unit *unit, uint32_t left);
/* Until the decision `sequence` is on disk. TL_EFAILED is sticky. */
int tl_txn_sync(tl_store *store, uint64_t sequence, tl_error *err);
int tl_txn_reset(tl_store *store, tl_error *err);             /* alone: removes the file, durably */
int tl_txn_write_anew(tl_store *store, tl_error *err);        /* alone: after a sync of it failed */
void tl_txn_unmap(tl_store *store);
/* Alone, after a new boot: copies of all slots as they are on the disk; *count 0: there is no file. Free with tl_os->free. */
int tl_txn_load(tl_store *store, tl_txn_record **out, uint32_t *count, tl_error *err);

/* --- transactions.c --- */
void tl_txn_repair(tl_store *store); /* under the lock that was taken from the dead, or alone */
bool tl_txn_is_head(uint32_t state); /* of a record that stands for a transaction */
tl_txn_record *tl_txn_open_record(tl_store *store, const tl_transaction *transaction); /* under the lock; NULL: decided */
int tl_txn_decided(const tl_transaction *transaction, tl_error *err);                  /* TL_EFENCED, and why */
/* Under the lock: an open one is decided against. */
void tl_txn_decide_abort(tl_store *store, tl_txn_record *record);
TL_INLINE uint32_t tl_txn_state(const tl_txn_record *record) { return __atomic_load_n(&record->state, __ATOMIC_ACQUIRE); }

/* --- transaction_units.c --- */
typedef struct tl_txn_units {
    tl_txn_record *all;    /* the slots of the file, or a copy of them, */
    uint32_t count;        /* and how many those are */
    tl_txn_record *record; /* the slot at hand */
    uint64_t number;
    uint32_t at, steps; /* the next unit in it; slots so far */
} tl_txn_units;
tl_txn_units tl_txn_units_of(tl_store *store, tl_txn_record *record);
/* The next unit, NULL at the end. Whatever stands in the slots, it comes to an end. */
tl_txn_unit *tl_txn_next(tl_txn_units *u);
void tl_txn_free(tl_store *store, tl_txn_record *record); /* under the lock: with all that went on for it */

/* --- transaction_end.c --- */
/* TL_OK: ended, or not there any more. TL_EFAILED: but for partitions that have failed. */
int tl_txn_finish(tl_store *store, uint32_t slot, uint64_t number, tl_error *err);
/* Under the lock: moves the offsets of a committing record, once. */
void tl_txn_apply_offsets(tl_store *store, tl_txn_record *record);
/* Appends the marker of a transaction that is open in the partition; `first_offset`: of it. 1: it was appended; 0: none is
 * open with this id and epoch. *place: behind it. */
int tl_txn_mark(tl_partition *partition, int64_t producer_id, int16_t epoch, bool commit, uint64_t *place, tl_error *err);

/* --- opens.c --- */
typedef struct tl_txn_open {
    int64_t producer_id, first_offset;
    uint64_t place;
    int16_t epoch;
} tl_txn_open;
typedef struct tl_txn_ended { /* an aborted one, and the segment its marker stands in */
    tl_aborted_transaction aborted;
    int64_t segment_base;
} tl_txn_ended;
typedef struct tl_txn_opens {
    tl_txn_open *open;
    tl_txn_ended *ended;
    size_t open_count, open_room, ended_count, ended_room;
} tl_txn_opens;
/* What is open at the tail, and was aborted since, of what begins at `from` or behind it. Free with tl_txn_opens_free. */
int tl_txn_walk(tl_partition *partition, uint64_t from, tl_txn_opens *out, tl_error *err);
void tl_txn_opens_free(tl_txn_opens *opens);
int tl_txn_add_open(tl_txn_opens *opens, const tl_txn_open *open, tl_error *err);
int tl_txn_step(tl_txn_opens *opens, const tl_batch *batch, uint64_t place, int marker, int64_t segment_base, tl_error *err);
/* TL_MARKER_ABORT, _COMMIT, or _NONE for a control batch that is none. `bytes`: a whole copy of it. */
int tl_txn_marker_of(const uint8_t *bytes, const tl_batch *batch);

/* --- aborted.c --- */
#define TL_ABORTED_BYTES 34u
/* Under the partition's lock, before the marker is published; its segment is the active one. */
int tl_aborted_note(tl_partition *partition, int64_t segment_base, const tl_aborted_transaction *aborted,
                    int64_t last_stable_offset, tl_error *err);
/* What a segment's file says; *count 0: there is none. `*out` is to be freed with tl_os->free. */
int tl_aborted_read(tl_partition *partition, int64_t segment_base, tl_aborted_transaction **out, size_t *count, tl_error *err);
/* Alone: the file of a segment anew, durably; none where `count` is 0. Only entries with that segment_base are taken. */
int tl_aborted_write(tl_partition *partition, int64_t segment_base, const tl_txn_ended *ended, size_t count, tl_error *err);
/* Compares the files with what a walk over the whole log found. */
int tl_aborted_check(tl_partition *partition, const tl_txn_opens *opens, const tl_bounds *bounds, void *context,
                     void (*found)(void *context, const char *file, const char *what, int64_t first, int64_t next),
                     tl_error *err);

#endif
