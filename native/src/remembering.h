/* What do the files that remember message ids of a partition share?
 *
 * Private to the files that append, and to ids_*.c. Imports handles.h, ids.h. The map of the window is changed by whoever
 * holds both the partition's `producers_mutex` and its lock, and used by whoever holds one of them; the window itself is
 * written under the lock only. */
#ifndef TIDELOG_SRC_REMEMBERING_H
#define TIDELOG_SRC_REMEMBERING_H

#include "handles.h"
#include "tidelog/ids.h"

#define TL_IDS_NEAR_BYTES (64u << 10) /* so far behind a caller that holds the lock catches up by itself */

/* The window as this process has it mapped; guarded by producers_mutex, and changed under the partition's lock as well. */
struct tl_ids {
    tl_ids_window window;
    uint32_t file;    /* its number */
    int64_t epoch_ms; /* monotonic time at which its clock stands at 0 */
};

/* --- ids_file.c --- */

/* Without the lock: whether there is a file in force. TL_ENOTFOUND: none that can be trusted. */
int tl_ids_seek(tl_partition *partition, tl_error *err);
/* Under the lock, since others use the map under it alone: maps the file in force unless that is done.
 * TL_ENOTFOUND: there is none that can be trusted; TL_EAGAIN: it would take
 * system calls, and `may_block` forbids them. */
int tl_ids_map(tl_partition *partition, bool may_block, tl_error *err);
/* Under the lock: makes an empty file with room for `ids`, maps it and gives it its name. It is in force when
 * tl_ids_enforce was called; until then nothing is. */
int tl_ids_make(tl_partition *partition, uint64_t ids, int64_t now_ms, tl_error *err);
void tl_ids_enforce(tl_partition *partition, uint64_t complete);
/* Under the lock, mapped: a file that holds the same with more room (`larger`), or with times and numbers counted anew. */
int tl_ids_renew(tl_partition *partition, bool larger, int64_t now_ms, tl_error *err);
/* The monotonic clock that ids are aged by. */
int64_t tl_ids_now_ms(void);
/* Mapped: what is a duplicate at this moment. false: the file's clock or numbers run out (tl_ids_renew). */
bool tl_ids_rule_at(const tl_partition *partition, int64_t now_ms, tl_ids_rule *out);
/* Under the lock, mapped: notes an id that came at `time_ms`, in a larger file if it must. TL_EBUS: a page is gone. */
int tl_ids_put(tl_partition *partition, const tl_message_id *id, int64_t offset, int64_t time_ms, int64_t now_ms, bool may_block,
               tl_error *err);

/* --- ids_catchup.c --- */

/* The id in a block of headers: of the last header `message-id` that is not empty. hash[0] 0: none. */
void tl_ids_of_headers(uint64_t key, const uint8_t *base, size_t at, size_t bytes, tl_message_id *out);

typedef struct tl_ids_seen {
    tl_message_id id;
    int64_t offset;       /* with TL_IDS_IN_TRANSACTION */
    int64_t timestamp_ms; /* wall clock; INT64_MIN: when it came is not known */
} tl_ids_seen;

/* What a walk through the log found. Zero it before use; free with tl_ids_gathered_free. */
typedef struct tl_ids_gathered {
    tl_ids_seen *list;
    size_t count, room;
    bool whole;        /* there was no window to go on from */
    uint64_t from, upto;
} tl_ids_gathered;
void tl_ids_gathered_free(tl_ids_gathered *gathered);

/* Without the lock: whether tl_ids_catch_up has little to do. */
bool tl_ids_is_near(tl_partition *partition);
/* Without the lock: walks from where the window stands to the tail. */
int tl_ids_gather(tl_partition *partition, tl_unpack unpack, void *context, tl_ids_gathered *out, tl_error *err);
/* Under the lock: takes over what was gathered and walks the rest. 1: that is too far, or compressed: gather again.
 * TL_EAGAIN: it would take system calls. */
int tl_ids_catch_up(tl_partition *partition, const tl_ids_gathered *gathered, int64_t now_ms, bool may_block, tl_error *err);

/* --- ids_append.c --- */

/* What an append keeps of its messages, and where those stand that it drops. Zero it before use. */
typedef struct tl_ids_sift {
    uint32_t *before;  /* of each message: the last one before it in the call with the same id, or itself; NULL: no id comes twice */
    int64_t *answers;  /* of each message: TL_IDS_NEW, else where it stands; of a repetition within the call, the number of the
                        * message it repeats as -2 - number. NULL: all are new */
    uint32_t *places;  /* beside `before`: of each new message, how many ids of the call came before its own */
    uint32_t *origin;  /* beside `answers`: of each message kept, its number */
    tl_message *messages;
    size_t kept;
    bool swept; /* transactions of dead owners were ended: one that is open now has somebody who will decide */
} tl_ids_sift;
#define TL_IDS_NEW ((int64_t)-1)
void tl_ids_sift_free(tl_ids_sift *sift);
/* Without the lock: finds ids that come twice in the call. */
int tl_ids_sift_begin(const tl_append *what, tl_ids_sift *sift, tl_error *err);
/* Under the lock, caught up: finds those that were seen before. TL_EAGAIN: it would take system calls. TL_IDS_SWEEP: one was
 * sent in somebody else's open transaction, and nothing was swept yet: sweep without the lock, and run it again. */
#define TL_IDS_SWEEP 2
int tl_ids_sift_run(tl_partition *partition, const tl_append *what, int64_t now_ms, bool may_block, tl_ids_sift *sift,
                    tl_error *err);
/* Under the lock: the messages [at, at + count) of `now` were published at base_offset, in [from, tail). What cannot be
 * noted stays behind ids_complete. now_ms 0: it is asked for when it is needed. `ids`
 * and `origin` as in the append: the id of message i is ids[origin[i]]. */
void tl_ids_note_batch(tl_partition *partition, const tl_append *now, const tl_message_id *ids, const uint32_t *origin, size_t at,
                       size_t count, int64_t base_offset, bool transactional, uint64_t from, uint64_t tail, int64_t now_ms,
                       bool may_block);

#endif
