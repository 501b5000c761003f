/* Which message ids did a partition see lately, and where does the message stand that brought each first?
 *
 * Imports log.h, guard.h's rules apply to maps. A window is plain memory for one caller at a time. What takes a partition
 * says what must be held. The window is a function of the log: every message with the header `message-id` counts, whoever
 * sent it, and its file can be thrown away at any time.
 *
 * A duplicate is an id that stands among the last `count` ids of the partition and is younger than `age_ms`. A false
 * duplicate would lose a message, so an entry counts only when it is whole, of this boot, of this partition, and when what
 * it refers to is in the log. A forgotten id sends a message twice, which is what happened without ids. */
#ifndef TIDELOG_IDS_H
#define TIDELOG_IDS_H

#include "tidelog/log.h"

#define TL_IDS_FILE "ids"
#define TL_IDS_HEADER_BYTES 4096u
#define TL_IDS_BUCKET_BYTES 176u /* with the four entries and the words of the filter that go with it */
#define TL_IDS_WAYS 8u
#define TL_IDS_PAGE_BUCKETS 64u
#define TL_IDS_UNSETTLED 8u /* so many ids at most are not in their buckets: a bucket is here before eight more are sent */
#define TL_IDS_BUCKETS_FIRST 64u
#define TL_IDS_BUCKETS_MOST (1u << 22)
#define TL_IDS_DEFAULT_COUNT 100000u
#define TL_IDS_DEFAULT_AGE_MS 600000ll
#define TL_IDS_COUNT_MOST 10000000u
#define TL_IDS_AGE_MOST_MS 2592000000ll /* 30 days: with it, ages fit 32 bits for three weeks before they are counted anew */
#define TL_IDS_IN_TRANSACTION ((int64_t)1 << 62) /* beside the offset of a message that a transaction may have taken back */

/* A keyed hash of an id; two ids of one partition are taken for one with probability 2^-96, since the window
 * keeps 96 bits of it. hash[0] 0: no id. */
typedef struct tl_message_id {
    uint64_t hash[2];
} tl_message_id;

/* SipHash with one and three rounds and 128 bits of result: ids come from outside, and whoever chooses them must not be
 * able to choose two that are taken for one. Never answers hash[0] 0. */
void tl_ids_hash(uint64_t key, const void *id, size_t bytes, tl_message_id *out);
/* The key of a partition, the same in all processes of a boot. */
uint64_t tl_ids_key(tl_partition *partition);

/* --- ids.c: the window, in plain memory --- */

typedef struct tl_ids_window {
    uint8_t *map; /* header and buckets */
    uint32_t buckets; /* a power of two */
} tl_ids_window;

/* What is a duplicate now. Times are milliseconds since the window's epoch. */
typedef struct tl_ids_rule {
    uint32_t count, age_ms, now_ms;
} tl_ids_rule;

TL_INLINE size_t tl_ids_bytes(uint32_t buckets) { return TL_IDS_HEADER_BYTES + (size_t)buckets * TL_IDS_BUCKET_BYTES; }
/* The number that the next id gets: ids are counted, so that the last `count` are known. */
uint32_t tl_ids_next(const tl_ids_window *window);
/* So that what the answer of the next two calls depends on is on its way. */
void tl_ids_prefetch(const tl_ids_window *window, const tl_message_id *id);
/* Whether `id` is a duplicate by the rule, after `pending` more ids than the window holds; *offset as it was noted. */
bool tl_ids_find(const tl_ids_window *window, const tl_message_id *id, const tl_ids_rule *rule, uint32_t pending,
                 int64_t *offset);
/* Notes an id, in place of an older message with the same one. Noting the same message again changes nothing. TL_EFULL:
 * there is no room but that of an id that counts; the window must grow (tl_ids_copy). Never half: a death in the middle leaves
 * a free slot. */
int tl_ids_note(tl_ids_window *window, const tl_message_id *id, int64_t offset, uint32_t time_ms, const tl_ids_rule *rule);
/* Both at once, for one message. 1: a duplicate of the message at *offset. 0: it is not, and there is room: until the window
 * is changed otherwise, tl_ids_fill notes it and cannot fail. TL_EFULL as above. */
int tl_ids_place(tl_ids_window *window, const tl_message_id *id, const tl_ids_rule *rule, int64_t *offset);
void tl_ids_fill(tl_ids_window *window, const tl_message_id *id, int64_t offset, uint32_t time_ms);
/* Copies the ids that are not over into an empty window; numbers begin at 0 again, times are shifted by `shift_ms` (what
 * lies before it is over). TL_EFULL: `to` is too small. */
int tl_ids_copy(const tl_ids_window *from, tl_ids_window *to, const tl_ids_rule *rule, uint32_t shift_ms);
/* How many ids of the window are not over. */
uint32_t tl_ids_live(const tl_ids_window *window, const tl_ids_rule *rule);

/* --- ids_file.c: of a partition, from outside --- */

/* Whether the file is one, as far as can be told while others write it. 0: it is, or there is none; 1: *what says what is
 * wrong with it. Read-only. */
int tl_ids_check(tl_partition *partition, const char **what, tl_error *err);

typedef struct tl_ids_info {
    uint32_t ids, slots; /* not over; room */
    bool complete;       /* every message of the log counts in it */
} tl_ids_info;
/* A look without the lock. TL_ENOTFOUND: no id was asked for since the machine started. */
int tl_ids_describe(tl_partition *partition, tl_ids_info *out, tl_error *err);

#endif
