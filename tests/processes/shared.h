/* What do the parent, its writers and its readers know of each other?
 *
 * Imports the public headers of the core. Anonymous memory that a parent shares with everybody it starts. A word is
 * written by the one process its comment names, with atomics where somebody else reads it meanwhile. */
#ifndef TIDELOG_PROCESSES_SHARED_H
#define TIDELOG_PROCESSES_SHARED_H

#include "tidelog/log.h"

#include <sys/types.h>

enum { WRITERS = 3, READERS = 2, MOST_PER_WRITER = 1 << 21, MOST_OFFSETS = 1 << 22, SLOW = 256, EXCUSES = 4096 };

/* How the parent wants a writer to end, at its next chance inside a lock. */
enum order { ORDER_NONE, ORDER_DIE, ORDER_STOP };

typedef struct interval {
    int64_t from, until;
} interval;

typedef struct slow_call {
    interval when;
    int64_t delayed_ns;
} slow_call; /* delayed: this thread waited for a processor */

typedef struct writer {
    uint32_t order, steps; /* of the parent: what to do inside a lock, after so many points */
    uint32_t in_lock;      /* 1 while it is stopped and holds the partition's lock */
    uint32_t stops;
    uint64_t asked; /* of the writer: sequences below it were asked for */
    uint64_t calls;
    int64_t worst_ns;
    uint32_t slow_count;
    slow_call slow[SLOW];
    uint64_t robbed; /* appends that succeeded while another one was stopped inside the lock */
} writer;

typedef struct reader {
    int64_t next;           /* offset; everything before it was checked */
    uint64_t last[WRITERS]; /* sequence + 1 of the last message of each writer */
    uint64_t waits;         /* that ended by a message of a call that returned, so that somebody had to wake it */
    int64_t worst_ns;       /* of these: from that return to the end of the wait */
} reader;

typedef struct board {
    char path[256];
    uint32_t slot;
    uint32_t stop;      /* of the parent */
    int64_t trimmed;    /* of writer 2: acknowledged */
    uint32_t late;      /* of the one who writes pairs: how many were seen late ... */
    int64_t slowest_ns; /* ... and the worst of them */
    writer writers[WRITERS];
    reader readers[READERS];
    uint32_t excuse_count;
    interval excuses[EXCUSES]; /* of the parent: nobody could run then, or a stopped one held the lock */
    int64_t offset_of[WRITERS][MOST_PER_WRITER]; /* + 1, of acknowledged sequences */
    uint64_t message_at[MOST_OFFSETS];  /* writer << 40 | sequence + 1, by the first reader that sees the offset */
    int64_t published_ns[MOST_OFFSETS]; /* when its append had returned; 0: not known */
} board;

extern board *b;

__attribute__((format(printf, 1, 2), noreturn)) void wrong(const char *format, ...);
void expect_ok(int status, const tl_error *err, const char *what);
int64_t now_ns(void);
void sleep_us(int64_t us);
tl_store *enter(bool housekeeper);
tl_partition *partition_of(tl_store *store);
void leave(tl_store *store, tl_partition *partition);
uint64_t random_of(uint64_t *state);

/* Messages: writer u32, its own length u32, sequence u64, then bytes that follow from both. */
uint32_t message_bytes(uint32_t self, uint64_t sequence);
void message_fill(uint32_t self, uint64_t sequence, uint8_t *out);

/* writer.c, reader.c: what the children do; they do not return. */
__attribute__((noreturn)) void run_writer(uint32_t self, uint64_t seed);
__attribute__((noreturn)) void run_reader(uint32_t self);
/* Two messages in quick succession, the second one published while a reader goes to sleep. The offset of the second. */
int64_t write_pair(tl_partition *partition, uint64_t *state);
/* Everything once more, by a process that is alone. */
void verify_all(void);

static const uint8_t channel_id[16] = "processes-lane-1";

#endif
