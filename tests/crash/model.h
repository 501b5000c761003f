/* What does the store have to hold, whatever died and whenever?
 *
 * Imports the public headers of the core. The model lives in memory that a parent shares with the children it kills: a
 * child notes what it is about to ask before the call and what was promised after it, so a death between leaves "asked",
 * which may have happened or not. One child at a time writes to it. */
#ifndef TIDELOG_CRASH_MODEL_H
#define TIDELOG_CRASH_MODEL_H

#include "tidelog/log.h"
#include "tidelog/shared.h"

enum {
    MODEL_PARTITIONS = 24,
    MODEL_LIVE = 3,
    MODEL_MESSAGES = 4096,
    MODEL_GROUPS = 2,
    MODEL_COMMITS = 1024,
    MODEL_GAPS = 32,
    MODEL_POINTS = 320,
    MODEL_TRANSACTIONS = 4096,
    MODEL_IDS = 512
};

/* ASKED: in the air when its sender died. KEPT: acknowledged, or seen by a reader, which promises the same. GONE: a
 * verifier looked and it was not there, so it must never come. */
enum message_state { MESSAGE_NONE, MESSAGE_ASKED, MESSAGE_KEPT, MESSAGE_GONE };

typedef struct model_message {
    int64_t offset, timestamp_ms;
    uint32_t bytes;
    uint8_t state, has_key;
} model_message;

/* VANISHING: a drop that nobody acknowledged is seen by survivors; a power cut may still undo it, a call that takes the
 * catalogue's lock over finishes it. */
enum partition_state {
    PARTITION_NONE,
    PARTITION_CREATING,
    PARTITION_LIVE,
    PARTITION_DROPPING,
    PARTITION_VANISHING,
    PARTITION_DROPPED
};

/* values[0, asked) were asked for, in this order; the one at `acked` was the last acknowledged, at `synced` the last that
 * was made durable. -1: none. */
typedef struct model_commits {
    int64_t values[MODEL_COMMITS];
    int32_t asked, acked, synced;
} model_commits;

typedef struct model_partition {
    uint32_t state, slot, number, segment_bytes;
    uint8_t channel[16];
    int64_t retention_ms, retention_bytes;
    uint32_t sent;
    bool boot_pending; /* the machine "booted" and no verifier has finished since */
    int64_t trim_asked, trim_acked, start_seen, end_seen;
    uint32_t gap_count;
    int64_t gap_from[MODEL_GAPS], gap_to[MODEL_GAPS];
    model_commits commits[MODEL_GROUPS];
    model_message messages[MODEL_MESSAGES];
} model_partition;

/* ASKED: its commit was called and not answered; whoever looks first sees what became of it. */
enum transaction_state { TRANSACTION_OPEN, TRANSACTION_ASKED, TRANSACTION_ABORTED, TRANSACTION_COMMITTED, TRANSACTION_SYNCED };
typedef struct model_transaction {
    uint8_t state;
} model_transaction;

typedef struct model_point {
    char name[48];
    uint64_t kills, runs, hits; /* hits: in the runs that reached it */
} model_point;

typedef struct model {
    uint64_t life; /* seed of this life of a store */
    char path[256];
    int64_t clock_ms, boot;
    uint32_t partitions;
    uint64_t commits_made;
    uint64_t versions[2]; /* of members.c, since the shared words were made: versions seen, rows that had a plan, ids given out */
    uint32_t planned_row[2], id_count;
    uint64_t ids[MODEL_IDS];
    char point[48];      /* where the running child dies; "": nowhere */
    uint64_t nth, tears; /* tears: seed for a death in the middle of a copy, 0: none */
    char doing[160];     /* for the report of a failure */
    bool killed, loud;
    uint32_t point_count;
    model_point points[MODEL_POINTS];
    uint64_t children, looked, verified, messages_verified;
    bool transactional, offset_booted; /* transactions too; the boot took back an offset and nobody has committed since */
    uint32_t transactions;
    int64_t transactions_boot; /* up to which they were verified */
    model_transaction transaction[MODEL_TRANSACTIONS];
    model_partition partition[MODEL_PARTITIONS];
} model;

#define MODEL_PASSING_CHANNEL "passing-by-----" /* 16 bytes; see catalogue.c */
#define MODEL_TRANSACTIONS_CHANNEL "transactions---" /* see transactions.c */

extern model *m;

uint64_t model_random(uint64_t *state);
uint64_t model_mix(uint64_t a, uint64_t b, uint64_t c);

void model_begin_life(uint64_t life, const char *path);
void model_boot(void);
void model_forget_members(void);
model_point *model_point_of(const char *name);

/* The bytes of a message follow from its number. Its first 12 bytes say which it is. */
void model_fill_value(const model_partition *p, uint32_t sequence, uint32_t bytes, uint8_t *out);
uint32_t model_value_bytes(const model_partition *p, uint32_t sequence);

/* Says what is wrong and ends the child: its parent adds what replays it. */
__attribute__((format(printf, 1, 2), noreturn)) void model_fail(const char *format, ...);
__attribute__((format(printf, 1, 2))) void model_doing(const char *format, ...);
void model_expect_ok(int status, const tl_error *err, const char *what);

/* work.c */
tl_store *work_open(int *state);
void work_run(tl_store *store, uint64_t seed, uint32_t operations);
void work_append_one(tl_store *store, model_partition *p);
void work_close(tl_store *store);
tl_partition *work_partition(tl_store *store, const model_partition *p);

/* members.c */
void members_begin(void);
void members_work(tl_store *store, uint64_t seed);
void members_verify(tl_store *store, bool alone);

/* transactions.c */
void transactions_begin(void);
void transactions_work(tl_store *store, uint64_t seed);
void transactions_verify(tl_store *store, bool booted);

/* verify.c: `alone` says that no other process has the store open. */
void verify_store(tl_store *store, bool alone);
void verify_look(tl_store *store);               /* by a process that must not change anything */
const uint8_t *verify_map_shared(size_t *bytes); /* the words of the boot, read-only; munmap them */

#endif
