/* What does a partition know of the producers that wrote to it, and how does a named producer keep its identity?
 *
 * Imports log.h, base.h. Tables are plain memory for one thread at a time. What takes a partition or a store may be called
 * from any thread; it says what must be held. Kafka's rules (its ProducerAppendInfo) decide; the state is a function of the
 * batches of the log, so every process that has walked them answers alike. */
#ifndef TIDELOG_PRODUCERS_H
#define TIDELOG_PRODUCERS_H

#include "tidelog/batch.h"
#include "tidelog/log.h"

#define TL_PRODUCER_BATCHES 5u       /* how many batches back a repetition is known */
#define TL_PRODUCERS_MOST 65536u     /* in the table of one partition */
#define TL_SEQUENCE_MOST INT32_MAX   /* the next one is 0 */
#define TL_PRODUCER_EPOCH_MOST 32766 /* the next one belongs to a new producer id */

enum { TL_MARKER_NONE = -1, TL_MARKER_ABORT = 0, TL_MARKER_COMMIT = 1 };

typedef struct tl_producer_batch {
    int32_t first_sequence, last_sequence;
    int64_t first_offset, last_offset, timestamp_ms;
} tl_producer_batch;

typedef struct tl_producer_state {
    int64_t producer_id;
    int16_t epoch;
    uint16_t batch_count;      /* of `batches`, oldest first */
    int32_t coordinator_epoch; /* of the last marker; -1: none */
    int64_t txn_first_offset;  /* of the open transaction; -1: none */
    uint64_t txn_first_place;  /* UINT64_MAX: none */
    int64_t last_timestamp_ms;
    int64_t last_offset;       /* of its last message, whichever epoch that had; -1: none */
    tl_producer_batch batches[TL_PRODUCER_BATCHES];
} tl_producer_state;

/* --- producer_table.c: the rules, in plain memory --- */

typedef struct tl_producer_table tl_producer_table;
tl_producer_table *tl_producer_table_new(void); /* NULL: no memory */
void tl_producer_table_free(tl_producer_table *table);
void tl_producer_table_clear(tl_producer_table *table);
size_t tl_producer_table_count(const tl_producer_table *table);
/* NULL: unknown. Good until the next call that adds to the table. */
tl_producer_state *tl_producer_table_find(tl_producer_table *table, int64_t producer_id);
/* Puts a state as it is, as a file holds it. */
int tl_producer_table_put(tl_producer_table *table, const tl_producer_state *state, tl_error *err);
/* Calls each(context, state) until one answers != 0, and returns that. */
int tl_producer_table_each(const tl_producer_table *table, void *context,
                           int (*each)(void *context, const tl_producer_state *state));
/* Place of the first batch of the oldest open transaction; UINT64_MAX: none. `other_than`: does not count, -1: all do. */
uint64_t tl_producer_table_first_open(const tl_producer_table *table, int64_t other_than);

/* Whether a data batch of a producer may be appended; `known` is its state or NULL. Kafka's rules in their order. TL_OK; 1:
 * a repetition, *duplicate says of what; TL_EFENCED (its 47), TL_EOUTOFORDER (45), TL_ETXNSTATE (48). */
int tl_producer_check(const tl_producer_state *known, const tl_batch *batch, const tl_producer_batch **duplicate,
                      tl_error *err);
/* What one batch of the log does to the table; `place` is where it stands. Batches without a producer id do nothing.
 * `marker` of a control batch: TL_MARKER_ABORT or _COMMIT; of a control batch that is no marker, and of data: _NONE. */
int tl_producer_table_step(tl_producer_table *table, const tl_batch *batch, uint64_t place, int marker,
                           int32_t coordinator_epoch, tl_error *err);
/* The same of a data batch of a producer whose state is at hand. */
void tl_producer_table_add(tl_producer_table *table, tl_producer_state *state, const tl_batch *batch, uint64_t place);
/* The sequence that comes after `count` messages that begin at `sequence`. */
TL_INLINE int32_t tl_sequence_after(int32_t sequence, int64_t count) {
    return (int32_t)(((int64_t)sequence + count) & TL_SEQUENCE_MOST);
}
/* The sequence of this producer's next batch: 0 for one that is unknown or begins an epoch. */
int32_t tl_producer_next_sequence(const tl_producer_state *known, int16_t epoch);

/* --- producers.c: the table of a partition in this process; guarded by the partition's `producers_mutex` --- */

/* Whoever uses the table holds this mutex of the process. It is taken before the partition's lock. TL_EAGAIN: `try_only`,
 * and another thread has it. */
int tl_producers_enter(tl_partition *partition, bool try_only);
void tl_producers_leave(tl_partition *partition);
/* Walks headers from where the table stands (at first from the newest .producers file) up to the tail. `locked`: the
 * caller holds the partition's lock, so that the tail stays. Callers that will lock call it without the lock first, so
 * that the long part of the way is walked while others append. */
int tl_producers_catch_up(tl_partition *partition, bool locked, tl_error *err);
/* Whether catching up is no more than a short walk, and may be left to whoever holds the lock. */
bool tl_producers_is_near(const tl_partition *partition);
/* Under the partition's lock: goes a short way where this process writes. true: caught up; else it is for catch_up, and
 * if *far better without the lock. */
bool tl_producers_follow(tl_partition *partition, bool *far);
/* Whether catch_up needs no system call and no more than a short walk. */
bool tl_producers_is_readable(const tl_partition *partition);
/* The table, caught up by the caller; NULL before the first catch-up. */
tl_producer_table *tl_producers_table(tl_partition *partition);
/* Under the partition's lock, caught up: notes the batch that was published at `place` up to `tail`. */
int tl_producers_note(tl_partition *partition, const tl_batch *batch, uint64_t place, uint64_t tail, int marker,
                      int32_t coordinator_epoch, tl_error *err);
/* Under the partition's lock, caught up, before a batch with a producer id is published: from the active segment on there
 * is a .producers file, durably. Makes system calls only the first time in a partition's life and in a process's. */
int tl_producers_mark(tl_partition *partition, bool may_block, tl_error *err);
/* Caught up under the partition's lock: place of the first batch of the oldest open transaction; UINT64_MAX: none.
 * `other_than`: a producer id that does not count, -1: all do. */
uint64_t tl_producers_first_open(tl_partition *partition, int64_t other_than);
/* Each producer with an open transaction; stops at a result != 0 and returns it. */
int tl_producers_each_open(tl_partition *partition, void *context,
                           int (*each)(void *context, const tl_producer_state *state));

/* --- producer_names.c --- */

typedef struct tl_producer {
    tl_store *store;
    uint32_t row;
    uint64_t holder;
    int64_t producer_id;
} tl_producer;

/* Opens a name: its producer id with a new epoch, both durable before this returns, and whoever had it open before is
 * fenced in every process. TL_EINVAL: the name is empty or longer than TL_PRODUCER_NAME_BYTES; TL_EFULL: too many names
 * are open. Blocking. */
int tl_producer_open(tl_store *store, const char *name, size_t bytes, tl_producer *out, tl_error *err);
void tl_producer_close(tl_producer *producer);
/* Under transactions_lock: bumps the epoch, for the next transaction; past the last one the name gets a new producer id. May
 * sync. */
int tl_producer_next_epoch(tl_producer *producer, int16_t *epoch, tl_error *err);
bool tl_producer_is_fenced(const tl_producer *producer);
int16_t tl_producer_epoch(const tl_producer *producer);
/* The sequence that its next message in a partition has. Given to an append, that one can be repeated. Blocking. */
int tl_producer_next(const tl_producer *producer, tl_partition *partition, int32_t *sequence, tl_error *err);
/* The last offset that this name wrote into a partition, -1: none is known. What it says stays true: an older self cannot
 * add to it, because it was read under the partition's lock after that one was fenced. Blocking. */
int tl_producer_last(const tl_producer *producer, tl_partition *partition, int64_t *offset, tl_error *err);

#endif
