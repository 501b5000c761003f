/* How do messages in several partitions and a consumer's offsets become visible together, or not at all?
 *
 * Imports producers.h, log.h, base.h. Callable from any thread of any process; nothing that a call locks stays locked. The
 * record of a transaction in the file `transactions/records` is its commit point: one word decides, and anybody rolls forward
 * what follows from it (offsets, then a marker in each partition). SHARING rules 28 and 29.
 *
 * A tl_transaction is not written after begin: threads may send in it at once, and one may end it meanwhile. What comes
 * after the decision is TL_EFENCED. Order of locks: groups_lock, transactions_lock, a partition's producers_mutex, its lock.
 * All but check_open and opening may block and make system calls. */
#ifndef TIDELOG_TRANSACTIONS_H
#define TIDELOG_TRANSACTIONS_H

#include "tidelog/log.h"
#include "tidelog/producers.h"

typedef struct tl_transaction {
    tl_producer *producer; /* the caller's; outlives the transaction */
    uint32_t record;       /* its number in the file of records */
    uint64_t number;       /* of the transaction: never given out again within a boot */
    int64_t producer_id;
    int16_t epoch;         /* of this transaction alone; goes into every batch of it */
    int64_t deadline_ns;   /* monotonic */
} tl_transaction;

/* A transaction has room for about 120,000 partitions, or half as many offsets: TL_EFULL beyond. */

/* Begins one; bumps the producer's epoch. What an earlier transaction of this producer left is ended first. TL_EFENCED: a
 * newer producer of this name was opened; TL_EEXIST: this producer has one open; TL_EFULL: no record is free; TL_ENOSPC;
 * TL_EFAILED: a sync of the records failed, the store must be closed everywhere and opened again. */
int tl_transaction_begin(tl_producer *producer, int64_t timeout_ms, tl_transaction *out, tl_error *err);

/* Makes the partition a participant. Before the first append to it, without the partition's lock. Costs a load when it is
 * one already. TL_EFENCED: it is decided (timed out, the name was taken over, ended). Appends call it by themselves. */
int tl_transaction_join(tl_transaction *transaction, tl_partition *partition, tl_error *err);

/* What a consumer read: `offset` is committed for the slot when the transaction is, provided that the lease {owner,
 * lease_epoch} is in force then. The last offset given for a slot counts. Leases are not looked at before the commit. */
int tl_transaction_offset(tl_transaction *transaction, uint32_t slot, tl_owner owner, uint32_t lease_epoch, int64_t offset,
                          tl_error *err);

/* TL_OK: committed; readers see it now, but for partitions where no marker can be written yet (a full disk), which follow.
 * `synced`: it also survives a power cut. TL_EFENCED: a lease, the name or the time-out was lost, it is aborted and nothing
 * of it is visible. TL_EFAILED: a sync failed: if that of a partition, it is aborted; if that of the records (err->path says
 * which), it is not known to be committed before the store was closed everywhere and opened again. TL_ETIMEOUT: committed,
 * but a stopped process keeps it from the disk: whoever sweeps next goes on. Any other code: nothing is decided, and it may be
 * tried again or aborted. */
int tl_transaction_commit(tl_transaction *transaction, bool synced, tl_error *err);
/* TL_OK also when it has ended already, unless it is known to be committed: TL_ETXNSTATE. */
int tl_transaction_abort(tl_transaction *transaction, tl_error *err);

/* --- for appends (append_checked.c), under the partition's lock --- */

/* Whether it is still open: what is appended after TL_OK under the same lock gets its marker. No system call. */
int tl_transaction_check_open(const tl_transaction *transaction, tl_error *err);
/* Before a batch is published at `place` that opens a transaction in the partition: readers stop there. */
void tl_transaction_opening(tl_partition *partition, uint64_t place);

/* --- for everybody else --- */

/* Ends what the producer in this row has left: open is aborted, decided is finished. After the row's holder was bumped. */
int tl_transactions_abort_of(tl_store *store, uint32_t row, tl_error *err);
/* Finishes what is decided and could not be finished then (a full disk), for whoever sends as this producer and finds its
 * transaction in the way. 1: it was; 0: there is none; negative: it still cannot be. */
int tl_transactions_finish_of(tl_store *store, uint32_t row, tl_error *err);
/* Finishes decided ones, aborts those of dead owners and those past their time-out. Two loads when there is nothing. */
int tl_transactions_sweep(tl_store *store, tl_error *err);
/* For whoever took a lease, between its compare-and-swap and reading the offset. Two loads when there is nothing. */
int tl_transactions_finish_slot(tl_store *store, uint32_t offset_slot, tl_error *err);

/* The state of transactions_lock: *over says that it came from a dead owner. What it guards is whole then. */
int tl_transactions_lock(tl_store *store, bool *over, tl_error *err);
void tl_transactions_unlock(tl_store *store);

/* --- for readers --- */

/* Whether a transactional batch of this producer at `offset`, which lies before the last stable place, was aborted. 1, 0, or
 * a negative code (the index of aborted transactions cannot be read). Cheap: looks into memory of this process. */
int tl_aborted_contains(tl_partition *partition, int64_t producer_id, int64_t offset, tl_error *err);
/* The last stable offset: log end when no transaction is open. */
int tl_partition_stable_end(tl_partition *partition, int64_t *offset, tl_error *err);

typedef struct tl_aborted_transaction {
    int64_t producer_id, first_offset, last_offset; /* last: of its marker */
} tl_aborted_transaction;
/* Aborted transactions of the partition with last_offset >= from and first_offset < before, in any order: what a Kafka
 * client needs to filter. Calls each(context, transaction), which calls nothing of this; stops at a result != 0 and returns
 * it. */
int tl_aborted_each(tl_partition *partition, int64_t from, int64_t before, void *context,
                    int (*each)(void *context, const tl_aborted_transaction *transaction), tl_error *err);

typedef struct tl_transaction_info {
    uint64_t number;
    uint32_t record, state; /* 1 open, 2 committing, 3 aborting, 4 done */
    int64_t producer_id, started_ms, timeout_ms;
    int16_t epoch;
    bool synced;
    uint32_t row, owner, partitions, offsets;
} tl_transaction_info;
/* Those that are not free. Returns how many were filled in, or a negative code. */
int tl_transactions_list(tl_store *store, tl_transaction_info *out, size_t room, tl_error *err);

#endif
