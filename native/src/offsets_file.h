/* How do the bytes of the `offsets` file lie, and what do the files that work on them share?
 *
 * Imports offsets.h, os.h. Private to offsets*.c. Slot numbers are indexes; position = header + index * slot bytes.
 *
 * Immutable once published: kind, group number, channel id, partition, names, and the CRC over them, which also covers
 * the slot's own index so that a slot copied elsewhere is noticed. Everything else is a word of its own that is loaded
 * and stored atomically. Words that steer (count, state, metadata sequence) carry redundancy, so that a flipped bit is
 * an error and never another meaning. */
#ifndef TIDELOG_SRC_OFFSETS_FILE_H
#define TIDELOG_SRC_OFFSETS_FILE_H

#include "tidelog/offsets.h"
#include "tidelog/os.h"

#include <pthread.h>

#define OFFSETS_HEADER_BYTES 4096u
#define OFFSETS_SLOT_BYTES 256u
#define OFFSETS_MAP_BYTES (OFFSETS_HEADER_BYTES + (size_t)TL_OFFSETS_MAX_SLOTS * OFFSETS_SLOT_BYTES)
#define OFFSETS_VERSION 1u
#define OFFSETS_NO_SLOT UINT32_MAX

enum slot_kind { KIND_GROUP = 0x50555247, KIND_OFFSET = 0x5346464f, KIND_OVERFLOW = 0x5245564f };
enum slot_state { STATE_LIVE = 0x4556494c, STATE_FORGOTTEN = 0x454e4f47 };

typedef struct file_header {
    uint8_t magic[8];           /* "TLOFFSET" */
    uint32_t version, slot_bytes, maximum_slots;
    uint32_t crc;               /* over the 20 bytes before it */
    uint8_t zero[40];
    uint64_t count;             /* guarded(slots in use); release-stored when slots are complete */
} file_header;

#define GROUP_INLINE_BYTES 240u

typedef struct group_slot {
    uint32_t kind, name_bytes;
    uint32_t crc;               /* index, kind, name_bytes, then the name */
    uint32_t state;
    uint8_t name[GROUP_INLINE_BYTES];
} group_slot;

#define METADATA_INLINE_BYTES 56u

typedef struct metadata_copy {
    uint32_t sequence, bytes;
    uint32_t first, run;        /* overflow slots [first, first + run) belong to this copy; run 0: none */
    uint32_t crc;               /* slot index, the four words above, then the text */
    uint32_t zero;
    uint8_t text[METADATA_INLINE_BYTES];
} metadata_copy;

typedef struct offset_slot {
    uint32_t kind, group;
    uint8_t channel_id[16];
    uint32_t partition;
    uint32_t crc;               /* index and the 28 bytes before it */
    _Alignas(16) uint64_t word[2]; /* offset; epoch | owner << 32: changed only by a 16-byte compare-and-swap */
    int64_t time_ms;
    uint32_t state;
    uint32_t holder;            /* which member took the lease of which epoch; stored after the claim */
    uint64_t metadata;          /* guarded(sequence): copies[sequence & 1] is the valid one; 0: none */
    int64_t saved_offset, saved_time_ms;
    uint32_t saved_metadata;
    uint32_t assigned;          /* member row + 1, its complement above; 0: nobody ever */
    metadata_copy copies[2];
} offset_slot;

#define OVERFLOW_BYTES 240u

/* Continues a name (whole run belongs to the group slot before it) or a copy of metadata. */
typedef struct overflow_slot {
    uint32_t kind, of;          /* the slot it belongs to */
    uint32_t part;              /* position in its run; OVERFLOW_COPY_1 set: of copies[1] */
    uint32_t crc;               /* index, kind, of, part; the bytes are covered by their owner's CRC */
    uint8_t bytes[OVERFLOW_BYTES];
} overflow_slot;

#define OVERFLOW_COPY_1 0x10000u

_Static_assert(sizeof(group_slot) == OFFSETS_SLOT_BYTES && sizeof(overflow_slot) == OFFSETS_SLOT_BYTES, "slot size");
_Static_assert(sizeof(offset_slot) == OFFSETS_SLOT_BYTES && offsetof(offset_slot, word) == 32, "slot layout");
_Static_assert(offsetof(offset_slot, state) == 56, "a commit touches one cache line");
_Static_assert(offsetof(offset_slot, copies) == 96 && sizeof(metadata_copy) == 80, "metadata layout");
_Static_assert(offsetof(file_header, count) == 64, "the count has a cache line of its own");

/* A hash table, open addressing; a cell is slot + 1 below, 32 bits of hash above, 0 when empty. Cells are only ever
 * filled, so that readers probe without a lock; a table that has grown too small stays readable until close. */
typedef struct offsets_index {
    uint32_t mask, used;
    struct offsets_index *older;
    uint64_t cells[];
} offsets_index;

struct tl_offsets {
    uint8_t *map;
    int fd;
    bool writable;
    uint32_t seen;              /* atomic: a published count that this process has checked against the file's size */
    uint32_t room;              /* atomic: slots the file had room for when last looked at */
    pthread_mutex_t mutex;      /* this process's creators and index writers; never held across a wait */
    uint64_t seed;              /* names come from clients: their hash must not be guessable */
    offsets_index *index;       /* atomic: newest table */
    uint32_t indexed;           /* under the mutex: slots below are in the index */
    uint32_t damaged;           /* atomic: first damaged slot met while indexing, or OFFSETS_NO_SLOT */
};

TL_INLINE uint64_t guarded(uint32_t v) { return v | (uint64_t)~v << 32; }
TL_INLINE bool guard_ok(uint64_t w) { return (uint32_t)w == (uint32_t)~(w >> 32); }

TL_INLINE uint32_t assignment(uint32_t number) { return (number & 0xffffu) | (~number & 0xffffu) << 16; }
TL_INLINE bool assignment_ok(uint32_t w) { return w == 0 || (w & 0xffffu) == (~(w >> 16) & 0xffffu); }

TL_INLINE file_header *offsets_header(const tl_offsets *t) { return (file_header *)(void *)t->map; }
TL_INLINE void *offsets_at(const tl_offsets *t, uint32_t slot) {
    return t->map + OFFSETS_HEADER_BYTES + (size_t)slot * OFFSETS_SLOT_BYTES;
}
TL_INLINE int64_t offsets_position(uint32_t slot) {
    return (int64_t)OFFSETS_HEADER_BYTES + (int64_t)slot * OFFSETS_SLOT_BYTES;
}
TL_INLINE uint32_t slot_kind(const tl_offsets *t, uint32_t slot) {
    return __atomic_load_n((const uint32_t *)offsets_at(t, slot), __ATOMIC_RELAXED);
}

/* --- offsets_file.c --- */
int offsets_damaged(tl_error *err, uint32_t slot, const char *what);
int offsets_count(const tl_offsets *t, uint32_t *count, tl_error *err);
int offsets_make_room(tl_offsets *t, uint32_t slots, uint32_t *first, tl_error *err);
void offsets_publish(tl_offsets *t, uint32_t count);
uint32_t overflow_crc(uint32_t index, const overflow_slot *slot);
void overflow_fill(overflow_slot *slot, uint32_t index, uint32_t of, uint32_t part);
bool overflow_ok(const tl_offsets *t, uint32_t index, uint32_t of, uint32_t part, uint32_t count);
uint32_t offset_crc(uint32_t index, const offset_slot *slot);
uint32_t group_crc(uint32_t index, uint32_t name_bytes, const void *name);
/* The group's name, checked; also of a forgotten one. */
int group_load(const tl_offsets *t, uint32_t number, uint32_t count, uint8_t *name, uint32_t *bytes, uint32_t *state,
               tl_error *err);
/* Checks what never changes about an offset slot, and its state. */
int offset_load(const tl_offsets *t, uint32_t slot, uint32_t count, offset_slot *out, tl_error *err);

/* --- offsets.c --- */
void offset_view(const tl_offsets *t, uint32_t slot, const offset_slot *fixed, tl_offset_view *view);
/* The slot if it is a live offset slot, at the price of a few loads; its fixed part is not checked. */
int offset_live(const tl_offsets *t, uint32_t slot, offset_slot **out);

/* --- offsets_metadata.c --- */
/* TL_ECORRUPT when the valid copy is damaged; `text` may be NULL. */
int metadata_load(const tl_offsets *t, uint32_t slot, uint8_t *text, uint32_t *bytes, tl_error *err);

#endif
