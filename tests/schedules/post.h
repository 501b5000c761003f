/* How does an actor send under a name, with an id, in a transaction, and what is in the log of that?
 *
 * Imports stage.h, transactions.h. Lives in the world. */
#ifndef TIDELOG_SCHEDULES_POST_H
#define TIDELOG_SCHEDULES_POST_H

#include "stage.h"
#include "tidelog/transactions.h"

/* What several processes may each send once: at most one of them is in the log, and all learn where. In the world. */
typedef struct single {
    uint32_t numbers[ACTORS * 2], count;
    int64_t offset; /* that somebody was told; -1 */
    uint32_t fresh; /* how many were told that theirs is the one */
} single;

/* How one message is sent. All zeros but `sequence` -1: plainly. */
typedef struct letter {
    const tl_producer *producer;
    tl_transaction *transaction;
    uint32_t entry;   /* of the transaction in the ledger */
    int32_t sequence; /* -1: the next one */
    const char *id;
    single *one_of; /* NULL: nobody else sends the same */
    /* Of a client that names itself; sequence as above: */
    int64_t client; /* 0: none */
    int16_t epoch;
    /* Answers: */
    uint32_t number; /* of the message in the history */
    int64_t offset;  /* -1: none */
    bool duplicate;
} letter;

#define LETTER ((letter){.sequence = -1})

/* Statuses but TL_OK and `expected` end the run. A message that was in the log already counts as refused: it must
 * never be seen, and its answer is where the other one stands. */
int post(int actor, int partition, letter *what, int expected);

/* After the witness has read everything: it is in the log where they were told. */
void single_judge(const single *of);

/* Reads a partition from its start and demands what was committed before. Returns how many messages are visible. */
int post_read(int actor, int partition);

/* Each batch of a partition's files in order, from the first segment on; an oracle that uses nothing but the format. */
void post_walk(int partition, void *context, void (*each)(void *context, const tl_batch *batch));
/* Of each producer: epochs never go down, and the sequences of an epoch have no gap and no repetition. */
void post_judge_sequences(int partition);

#endif
