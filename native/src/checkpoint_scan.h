/* What stands where in a checkpoint file, and how is it read back?
 *
 * Imports checkpoint.h. Private to the checkpoint. Callable from any thread: everything is the caller's.
 *
 * Page 0, the header: 0 magic[8]; 8 format version u32; 16 generation u64; 24 snapshot end u64; 32 snapshot records
 *   u64; 40 salt u32; 44 chain CRC at the snapshot end u32; 60 CRC-32C of bytes 0..59 u32. Written after the snapshot
 *   is synced, so a whole header promises a whole snapshot.
 * Page 1, marks, in sectors of their own because different lock holders write them: at 4096 SYNCED, at 4608 SUPERSEDED.
 *   0 kind u32; 4 CRC-32C of bytes 8..23, seeded with the kind, u32; 8 generation u64; 16 value u64. A mark is written
 *   when its promise is already true and it need not reach the disk: without it less damage is recognised, no more.
 * From 8192, groups: 0 CRC-32C of bytes 4..47 u32; 4 CRC of the group before u32; 8 generation u64; 16 own position
 *   u64; 24 what was known to be synced when it was written u64; 32 bytes u32; 36 records u32; 40 CRC-32C of the
 *   records u32; 44 salt u32; 48 records. The chain of CRCs starts at the CRC of generation and salt. It keeps a
 *   stale group of the same generation, which a writer that died or a power cut left behind, from following a newer
 *   one that ends there.
 * A record: 0 type u16; 2 flags u16; 4 key bytes u16; 6 zero u16; 8 value bytes u32; 12 key, value, zeros to 8 bytes.
 * Everything is little-endian. */
#ifndef TIDELOG_CHECKPOINT_SCAN_H
#define TIDELOG_CHECKPOINT_SCAN_H

#include "tidelog/checkpoint.h"

#define TL_CHECKPOINT_PAGE_BYTES 4096u
#define TL_CHECKPOINT_HEADER_BYTES 64u
#define TL_CHECKPOINT_MARK_BYTES 24u
#define TL_CHECKPOINT_SYNCED_AT 4096u
#define TL_CHECKPOINT_SUPERSEDED_AT 4608u
#define TL_CHECKPOINT_FIRST 8192u
#define TL_CHECKPOINT_GROUP_HEADER_BYTES 48u
#define TL_CHECKPOINT_RECORD_HEADER_BYTES 12u
#define TL_CHECKPOINT_DELETED 1u
#define TL_CHECKPOINT_FIRST_GENERATION 2u

enum tl_checkpoint_mark { TL_CHECKPOINT_SYNCED = 0x434e5953, TL_CHECKPOINT_SUPERSEDED = 0x5458454e };

extern const char *const tl_checkpoint_names[2];

/* What the first two pages of a file say. */
typedef struct tl_checkpoint_file {
    const char *name;
    uint64_t size_bytes;
    bool whole;
    uint32_t salt, snapshot_chain;
    uint64_t generation, snapshot_end, snapshot_records;
    uint64_t synced_end;        /* 0 without a mark of this generation */
    uint64_t superseded_by;     /* 0 without one */
} tl_checkpoint_file;

/* The groups of one file in memory. Positions in `live` are from `bytes`, in units of 8. */
typedef struct tl_checkpoint_body {
    uint8_t *bytes;             /* the file from TL_CHECKPOINT_FIRST on */
    uint64_t end;               /* position in the file where the last whole group ends */
    uint64_t groups, records;
    uint32_t chain;
    uint32_t *live;             /* filled by tl_checkpoint_merge */
    uint64_t live_count, live_bytes;
} tl_checkpoint_body;

/* One record inside a body. */
typedef struct tl_checkpoint_entry {
    const uint8_t *key, *value;
    uint32_t value_bytes, bytes;
    uint16_t type, flags, key_bytes;
} tl_checkpoint_entry;

/* Where a group is going to stand. */
typedef struct tl_checkpoint_place {
    uint64_t generation, position, synced_end;
    uint32_t salt, previous;
} tl_checkpoint_place;

TL_INLINE uint64_t tl_checkpoint_record_bytes(uint64_t key_bytes, uint64_t value_bytes) {
    return (TL_CHECKPOINT_RECORD_HEADER_BYTES + key_bytes + value_bytes + 7) & ~(uint64_t)7;
}

uint32_t tl_checkpoint_chain_start(uint64_t generation, uint32_t salt);
void tl_checkpoint_header_encode(uint8_t page[TL_CHECKPOINT_PAGE_BYTES], const tl_checkpoint_file *file);
void tl_checkpoint_mark_encode(uint8_t mark[TL_CHECKPOINT_MARK_BYTES], uint32_t kind, uint64_t generation,
                               uint64_t value);

/* Writes the header of a group whose records already stand behind it; returns its CRC, the next link of the chain. */
uint32_t tl_checkpoint_group_seal(uint8_t *group, uint32_t bytes, uint32_t count, const tl_checkpoint_place *place);

/* Reads the first two pages. A damaged header is not an error: `whole` is false. `slot`: 0 for a, 1 for b. */
int tl_checkpoint_inspect(int fd, unsigned slot, tl_checkpoint_file *out, tl_error *err);

/* The index of the newest file, or TL_ECORRUPT when there is none or the newest is the damaged one. */
int tl_checkpoint_newest(const tl_checkpoint_file files[2], tl_error *err);

/* Reads and checks all groups of a whole file. `tail`: 0 to find the end, or the word of tl_checkpoint_words for it.
 * Free the body in any case. */
int tl_checkpoint_read(int fd, const tl_checkpoint_file *file, uint64_t tail, tl_checkpoint_body *out, tl_error *err);

/* Finds the latest record of each key that is not deleted, in the order of the file. */
int tl_checkpoint_merge(tl_checkpoint_body *body, tl_error *err);
void tl_checkpoint_body_free(tl_checkpoint_body *body);

/* The record at `at`, or false when it does not fit in `bytes`. */
bool tl_checkpoint_entry_read(const uint8_t *at, uint64_t bytes, tl_checkpoint_entry *out);

#endif
