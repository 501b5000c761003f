/* What do all scenarios have in common: a store, processes that have it open, and what they do with it?
 *
 * Imports actors.h, history.h, log.h. A scenario is one small file: prepare, act, verify, and a line in scenarios.h.
 * Lives in the world. */
#ifndef TIDELOG_SCHEDULES_STAGE_H
#define TIDELOG_SCHEDULES_STAGE_H

#include "actors.h"
#include "history.h"
#include "tidelog/log.h"

#define STAGE_PATH "store"
#define STAGE_BATCH 4 /* messages in one call, at most */
#define STAGE_CHANNEL ((const uint8_t *)"0123456789abcdef")

typedef struct scenario {
    const char *name, *about;
    unsigned weight; /* its part of a campaign */
    cast cast;
    void (*prepare)(void); /* before the world is frozen */
    void (*verify)(void);  /* by the witness, after the last actor ended */
} scenario;

typedef struct stage {
    tl_store *stores[ACTORS];
    tl_partition *partitions[ACTORS][HISTORY_PARTITIONS];
    uint32_t slots[HISTORY_PARTITIONS];
    uint32_t message_bytes;
    tl_chunk chunks[ACTORS];
    bool ids; /* messages with the same id are one; to be set before stage_prepare */
    int64_t words[16]; /* the scenario's own */
} stage;

extern stage *the_stage;

#define STAGE_TRY(call, what) \
    do { \
        int stage_status = (call); \
        if (stage_status < 0) \
            stage_refuse(stage_status, what, &err); \
    } while (0)

void stage_refuse(int status, const char *what, const tl_error *err) __attribute__((noreturn));

void stage_begin(void);
/* In the name of the actor that is in force. */
void stage_open(int actor);
void stage_close(int actor);
void stage_handles(int actor); /* on both partitions */
/* A store that actors 0 to count - 1 and the witness have open, with one or two partitions. */
void stage_prepare(int actors, int partitions, uint32_t segment_bytes, uint32_t message_bytes);
void stage_fill(int partition, uint32_t messages); /* by the witness */

/* Sends `count` messages in one call; what is refused ends the run unless its status is `expected`. */
int stage_send(int actor, int partition, uint32_t count, unsigned flags, int expected, tl_appended *out);
/* Reads from the cursor to the end of what is decided, and tells the history. Returns how many. Statuses but
 * `expected` end the run. */
int stage_read(int actor, int partition, tl_cursor *cursor, int expected);
/* Waits until there is something behind the cursor; false: in vain. */
bool stage_wait(int actor, int partition, const tl_cursor *cursor, int64_t timeout_ns);

/* The witness reads everything there is in another boot, and judges. */
void stage_verify_boot(void);

/* The witness reads everything, sends one more message, reads everything again, and judges. Where there are gaps it
 * ends first what the dead have left open. */
void stage_verify(void);

#endif
