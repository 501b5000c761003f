/* What can an actor do with transactions, and what must hold when all have ended?
 *
 * Imports stage.h, transactions.h. What they do they tell the ledger. Lives in the world. */
#ifndef TIDELOG_SCHEDULES_OWNERS_H
#define TIDELOG_SCHEDULES_OWNERS_H

#include "stage.h"
#include "tidelog/transactions.h"

enum { OWNER_SLOT, OWNER_SYNCED, OWNER_DURABLE, OWNER_TAKEN }; /* of the_stage->words */
enum { OWNER_SEGMENT = 1 << 14, OWNER_MESSAGE = 40 };           /* bytes, where nothing rolls */
enum { OWNER_OFFSET = 7 };                                     /* what the first transaction that matters commits */

typedef struct owner {
    tl_producer producer;
    tl_transaction transaction;
    uint32_t entry; /* in the ledger */
    uint32_t lease; /* epoch of the lease, 0: none */
} owner;

extern owner *owners; /* in the world, one for each actor */

/* A store with a lease that actor 0 has, as it has the name "till". Its first transaction is committed already, so
 * that there is a file of records. */
void owners_prepare(int actors, int partitions, uint32_t segment_bytes, uint32_t message_bytes);
void owners_verify(void);
/* The offset is committed when the last transaction of actor 0 is. */
void owners_judge_offset(void);
void owners_verify_offset(void);

void owner_open_name(int actor, const char *name);
int64_t owner_offset(int actor); /* the committed one */
int64_t owner_claim(int actor);  /* takes the lease; the committed offset */
void owner_begin(int actor, int64_t timeout_ms);
bool owner_send(int actor, int partition);         /* in its transaction; false: that is over */
bool owner_add_offset(int actor, int64_t offset);  /* the same */
bool owner_commit(int actor, bool synced);         /* false: refused */
void owner_commit_surely(int actor, bool synced);  /* where nobody may interfere */
void owner_abort(int actor);
void owner_sweep(int actor);
void owner_pass(int64_t ns); /* sleeps */
/* Reads both partitions and the offset; what is seen must fit that transaction. */
void owner_look(int actor, uint32_t entry);

/* Two partitions and the offset; only one with a short time-out may be refused. */
void owner_act(int64_t timeout_ms, bool synced);
void owner_act_as_sweeper(int actor);
void owner_act_as_reader(int actor);

#endif
