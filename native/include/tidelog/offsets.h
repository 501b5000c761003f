/* How far has each consumer group read each partition, and who holds the lease on it?
 *
 * Imports base.h. The `_consumer_offset` table: the file `offsets` of a store, mapped by every process and shared live.
 * A handle is used by any number of threads. Calls that say "catalogue lock" want it held by the caller, across
 * processes; every other call takes no lock that another process can hold, so nobody can be stopped inside one.
 * The table is truth within one boot; after a new boot it is reset and filled from the checkpoint.
 * Layout: native/src/offsets_file.h and docs/format.md. */
#ifndef TIDELOG_OFFSETS_H
#define TIDELOG_OFFSETS_H

#include "tidelog/base.h"

#define TL_OFFSETS_FILE "offsets"
#define TL_OFFSETS_MAX_SLOTS 1048576u
#define TL_OFFSETS_MAX_GROUP_BYTES 1024u
#define TL_OFFSETS_MAX_METADATA_BYTES 4096u /* Kafka's limit */
#define TL_OFFSETS_NONE (-1)                /* "nothing committed" */

typedef struct tl_offsets tl_offsets;

/* What one compare-and-swap changes. `owner` is the caller's name for a process (slot and incarnation packed, say);
 * 0 means nobody. `epoch` grows by one with each claim and never goes back within a boot. */
typedef struct tl_offset_word {
    int64_t offset;
    uint32_t epoch, owner;
} tl_offset_word;

/* One slot as it was read. `time_ms` is the time of this or of a neighbouring commit: it is stored after the word. */
typedef struct tl_offset_view {
    uint32_t slot, group, partition;
    uint32_t metadata_sequence;             /* changes with the metadata; 0: never set */
    uint8_t channel_id[16];
    tl_offset_word word;
    int64_t time_ms;
} tl_offset_view;

enum tl_offsets_mode {
    TL_OFFSETS_OPEN = 0,      /* an existing table; TL_ENOTFOUND when there is none */
    TL_OFFSETS_RESET = 1,     /* creates or empties it; only with the store's gate held exclusively */
    TL_OFFSETS_READ_ONLY = 2  /* for commands that only look; every change is TL_EINVAL */
};

/* TL_ECORRUPT (path, position) when the header is damaged or the file is shorter than what it says it holds;
 * TL_EUNSUPPORTED for another format version or a CPU without a 16-byte compare-and-swap. */
int tl_offsets_open(int dir, int mode, tl_offsets **out, tl_error *err);
/* No other call may be running. NULL is allowed. */
void tl_offsets_close(tl_offsets *t);

/* --- groups and slots; numbers are stable until the next reset ---
 *
 * Without `create`: TL_ENOTFOUND. With it (catalogue lock): TL_EFULL, TL_ENOSPC, TL_ENOMEM leave the table as it was.
 * A damaged slot makes lookups that find nothing answer TL_ECORRUPT, because the damaged one may be the one looked for;
 * lookups that find theirs go on working. */
int tl_offsets_group(tl_offsets *t, const void *name, size_t bytes, bool create, uint32_t *number, tl_error *err);
int tl_offsets_slot(tl_offsets *t, uint32_t group, const uint8_t channel_id[16], uint32_t partition, bool create,
                    uint32_t *slot, tl_error *err);
/* `name` has room for TL_OFFSETS_MAX_GROUP_BYTES. TL_EDROPPED: forgotten. */
int tl_offsets_group_name(tl_offsets *t, uint32_t number, char *name, size_t *bytes, tl_error *err);

/* Iteration: *cursor starts at 0. 1: one more; 0: the end; TL_ECORRUPT: a damaged slot, already stepped over, so that
 * the caller may go on. Forgotten ones are left out. Slots created meanwhile may or may not be seen. */
int tl_offsets_next_group(tl_offsets *t, uint32_t *cursor, uint32_t *number, tl_error *err);
int tl_offsets_next(tl_offsets *t, uint32_t *cursor, tl_offset_view *view, tl_error *err);
/* Only slots whose offset, time or metadata differ from what was marked as saved last. */
int tl_offsets_changed(tl_offsets *t, uint32_t *cursor, tl_offset_view *view, tl_error *err);
/* The checkpoint now holds what `view` says. One saver at a time. Read metadata after the view was yielded, so that a
 * change in between is seen as a change once more. */
int tl_offsets_mark_saved(tl_offsets *t, const tl_offset_view *view);

/* Catalogue lock. Slots become tombstones that only a reset frees: a number never means something else within a boot.
 * A group is gone from the first store on, its slots follow; both calls may be repeated after a death half way. */
int tl_offsets_forget_channel(tl_offsets *t, const uint8_t channel_id[16], tl_error *err);
int tl_offsets_forget_group(tl_offsets *t, uint32_t number, tl_error *err);

/* --- the word ---
 *
 * All of them: TL_EINVAL for a number that is no slot, TL_EDROPPED for a forgotten slot, TL_ECORRUPT for damaged bytes;
 * tl_offsets_inspect then says what is wrong and where. */
int tl_offsets_read(const tl_offsets *t, uint32_t slot, tl_offset_word *word, int64_t *time_ms);
/* Takes the lease if the word still is `expected`, whoever holds it: the caller has made sure that the old owner
 * released it or died. TL_EAGAIN: the word has changed; read it again. `owner` is not 0. */
int tl_offsets_claim(tl_offsets *t, uint32_t slot, tl_offset_word expected, uint32_t owner, uint32_t *epoch);
/* TL_EFENCED: the lease was taken over. */
int tl_offsets_release(tl_offsets *t, uint32_t slot, uint32_t owner, uint32_t epoch);
/* Any offset >= 0, also a smaller one (a seek back). TL_EFENCED: the lease was taken over, nothing was stored. */
int tl_offsets_commit(tl_offsets *t, uint32_t slot, uint32_t owner, uint32_t epoch, int64_t offset, int64_t now_ms);
/* Administrative, without a lease; TL_OFFSETS_NONE removes the commit. TL_EAGAIN while somebody holds the lease, unless
 * `force`: then the lease stays with its owner, whose next commit wins. */
int tl_offsets_set(tl_offsets *t, uint32_t slot, int64_t offset, int64_t now_ms, bool force);
/* For rolling a decided transaction forward: stores unless the committed offset is already as large. */
int tl_offsets_advance(tl_offsets *t, uint32_t slot, int64_t offset, int64_t now_ms);

/* --- hints of consumer groups (groups.h): no offset depends on them, and they are not saved --- */

#define TL_OFFSETS_NOBODY UINT32_MAX

typedef struct tl_offset_hints {
    tl_offset_word word;
    uint32_t group;    /* the slot's group number */
    uint32_t holder;   /* what tl_offsets_set_holder stored last, 0: nothing yet */
    uint32_t assigned; /* the member row that the partition is assigned to, TL_OFFSETS_NOBODY: none, or damaged */
} tl_offset_hints;
/* Statuses as for the word. */
int tl_offsets_hints(const tl_offsets *t, uint32_t slot, tl_offset_hints *out);
int tl_offsets_set_holder(tl_offsets *t, uint32_t slot, uint32_t holder);
int tl_offsets_assign(tl_offsets *t, uint32_t slot, uint32_t member); /* TL_OFFSETS_NOBODY: to none */

/* --- metadata: the text a consumer leaves with its commit --- */

/* `text` has room for TL_OFFSETS_MAX_METADATA_BYTES. Never half of one; TL_EAGAIN when writers kept changing it. */
int tl_offsets_metadata(const tl_offsets *t, uint32_t slot, void *text, size_t *bytes, tl_error *err);
/* Catalogue lock. TL_ETOOLARGE beyond the limit. Setting what is already there stores nothing. A caller that acts for
 * a lease commits first: a fenced commit then keeps the metadata out too. */
int tl_offsets_set_metadata(tl_offsets *t, uint32_t slot, const void *text, size_t bytes, tl_error *err);

/* --- looking for damage --- */

/* Validates one slot in full; err names file and position. */
int tl_offsets_inspect(const tl_offsets *t, uint32_t slot, tl_error *err);

typedef struct tl_offsets_report {
    uint32_t slots, groups, offsets, overflow, forgotten;
    uint32_t problems;
    uint64_t file_bytes;
} tl_offsets_report;

/* Reads the whole table and changes nothing. TL_OK: it could be read, report->problems says how many places are wrong;
 * `each` (may be NULL) is told every one. A damaged header is TL_ECORRUPT, no file TL_ENOTFOUND. */
int tl_offsets_check(int dir, void (*each)(void *context, const tl_error *problem), void *context,
                     tl_offsets_report *report, tl_error *err);

#endif
