/* Which keys of a channel are the hottest now, counted by samples while messages are appended?
 *
 * Imports store.h, base.h. Every process that sends to a channel counts into one small file, `skew`, in the directory of
 * its partition 0; anybody may look. Callable from any thread. Nothing waits, nothing is locked while counting.
 *
 * Counters: TL_SKEW_SETS sets of TL_SKEW_WAYS. A key belongs to the set that its hash names, and each set is a
 * space-saving sketch of its own: a key that is not in it takes the place of the least frequent one and inherits its
 * count as `error`. So for every counter
 *     count - error <= samples of that key <= count,   error <= samples of its set / TL_SKEW_WAYS,
 * and a key without a counter has at most as many samples as the least frequent of its set. When TL_SKEW_WINDOW samples
 * are reached, everything is halved: counters speak of the last million messages or so, not of last year.
 * Processes race with single atomic operations; a lost race gives one sample to nobody or to the wrong key of a set.
 * How far samples are from messages is said where they are taken, in native/glue/skew.pxi. */
#ifndef TIDELOG_SKEW_H
#define TIDELOG_SKEW_H

#include "tidelog/store.h"

#define TL_SKEW_FILE "skew"
#define TL_SKEW_SETS 16u
#define TL_SKEW_WAYS 8u
#define TL_SKEW_KEYS (TL_SKEW_SETS * TL_SKEW_WAYS)
#define TL_SKEW_KEY_BYTES 32u    /* of a key that are kept; longer ones are told apart by their hash */
#define TL_SKEW_WINDOW 131072u

typedef struct tl_skew tl_skew;

/* One counter as it was read: error <= count <= samples. */
typedef struct tl_skew_key {
    uint32_t count, error;
    uint32_t partition; /* where a sample of it went last */
    uint32_t key_bytes; /* of the whole key */
    uint8_t key[TL_SKEW_KEY_BYTES];
} tl_skew_key;

typedef struct tl_skew_view {
    uint32_t samples, keyless; /* keyless: those of messages without a key */
    int64_t since_ms;          /* when counting began */
    uint32_t keys;
    tl_skew_key key[TL_SKEW_KEYS];
} tl_skew_view;

/* The counters of the channel whose partition 0 is `first`, for counting; made anew when there are none of this boot.
 * TL_EAGAIN: somebody is making them at this moment. Give them back with tl_skew_close; they outlive the partition. */
int tl_skew_open(tl_partition *first, tl_skew **out, tl_error *err);
void tl_skew_close(tl_skew *skew); /* NULL is allowed */

/* Counts one sample; key NULL: a message without a key. Makes no system call. TL_EBUS: the file is gone or damaged. */
int tl_skew_note(tl_skew *skew, const uint8_t *key, size_t key_bytes, uint32_t partition);
/* *certain: most samples that one key is known to have (its count less its error); *samples: of all. */
int tl_skew_top(tl_skew *skew, uint32_t *certain, uint32_t *samples);

/* A copy of all counters, without mapping anything. TL_ENOTFOUND: nothing was counted since the machine started. */
int tl_skew_look(tl_partition *first, tl_skew_view *out, tl_error *err);

#endif
