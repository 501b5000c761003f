/* What do the files that know the producers of a partition share?
 *
 * Private to producers.c, producers_file.c. Imports handles.h, producers.h. */
#ifndef TIDELOG_SRC_PRODUCERS_H
#define TIDELOG_SRC_PRODUCERS_H

#include "handles.h"
#include "tidelog/producers.h"

/* What cold->producers says. */
enum { TL_PRODUCERS_UNKNOWN = 0, TL_PRODUCERS_SOME = 1, TL_PRODUCERS_NONE = 2 };

/* Under the partition's lock: whether the table may be used until that is released. Who has the mutex raises `producers_busy`
 * and then waits until this process does not have the lock, so one of the two sees the other. A flag that both take would
 * cost a tenth of a send, since it is an atomic exchange more. */
TL_INLINE bool tl_producers_at_hand(const tl_partition *partition) {
    return __atomic_load_n(&partition->producers_busy, __ATOMIC_SEQ_CST) == 0;
}

/* Fills an empty table with what BASE.producers says of the producers at the start of that segment. TL_ENOTFOUND: there is
 * none; TL_ECORRUPT: nothing of it is to be believed. */
int tl_producers_load(tl_partition *partition, uint32_t ordinal, int64_t base_offset, tl_producer_table *table, tl_error *err);
/* Writes it, whole or not at all, also over a damaged one. `durable`: it and its name are on the disk when this returns. */
int tl_producers_store(tl_partition *partition, uint32_t ordinal, int64_t base_offset, const tl_producer_table *table,
                       bool durable, tl_error *err);
bool tl_producers_file_exists(tl_partition *partition, int64_t base_offset);
int tl_producers_sync_file(tl_partition *partition, int64_t base_offset, tl_error *err); /* it and its name */

/* The table of a partition in this process, or one on its way to a place. */
typedef struct tl_producers {
    tl_producer_table *table;
    uint64_t complete;   /* place up to which it says what the log says */
    int64_t next_offset; /* that the batch there has */
} tl_producers;

/* An empty one at the newest file that can be believed and begins at or before segment `until`, else where the log begins or,
 * where no producer ever wrote, where it ends. Free with tl_producers_end. */
int tl_producers_begin(tl_partition *partition, tl_producers *out, uint32_t until, tl_error *err);
void tl_producers_end(tl_producers *producers);
/* Writes the file of the segment at whose start the table stands, if there is none. Recovery looks through those of the
 * segment with the recovery point and of later ones; below, only what was synced before it had its name may stand. */
int tl_producers_store_missing(tl_partition *partition, const tl_producers *producers, tl_error *err);
/* Walks to the tail, or to where segment `until` begins. Damaged places are stepped over. boundary(context, producers)
 * hears of every segment that begins on the way; a result < 0 ends the walk. */
typedef int (*tl_producers_boundary)(void *context, tl_partition *partition, const tl_producers *producers, tl_error *err);
int tl_producers_walk(tl_partition *partition, tl_producers *producers, uint32_t until, tl_producers_boundary boundary,
                      void *context, tl_error *err);

#endif
