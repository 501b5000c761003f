/* Which steps do appending, syncing, opening and snapshots of a checkpoint share?
 *
 * Imports checkpoint_scan.h. Private to the checkpoint. Thread rule: see checkpoint.h; the locks are the caller's. */
#ifndef TIDELOG_CHECKPOINT_WRITE_H
#define TIDELOG_CHECKPOINT_WRITE_H

#include "checkpoint_scan.h"

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)

/* The packed words of tl_checkpoint_words. */
TL_INLINE uint64_t tl_checkpoint_tail_word(uint32_t chain, uint64_t end) { return (uint64_t)chain << 32 | end >> 3; }
TL_INLINE uint64_t tl_checkpoint_synced_word(uint64_t generation, uint64_t end) { return generation << 32 | end >> 3; }
TL_INLINE uint64_t tl_checkpoint_end_of(uint64_t word) { return (uint64_t)(uint32_t)word << 3; }

/* fdatasync; a failure sets FAILED for everybody and returns TL_EFAILED. */
int tl_checkpoint_sync_file(tl_checkpoint *c, int fd, unsigned slot, tl_error *err);
int tl_checkpoint_write_bytes(int fd, unsigned slot, const void *from, size_t bytes, uint64_t to, tl_error *err);
int tl_checkpoint_write_mark(int fd, unsigned slot, uint32_t kind, uint64_t generation, uint64_t value, tl_error *err);
int tl_checkpoint_write_header(int fd, const tl_checkpoint_file *file, tl_error *err);

/* Allocates [from, to) and fills it with zeros. */
int tl_checkpoint_grow(int fd, unsigned slot, uint64_t from, uint64_t to, tl_error *err);

/* Sets the words of a file that is synced up to `end` and makes it the active one. */
void tl_checkpoint_publish_file(tl_checkpoint *c, const tl_checkpoint_file *file, uint64_t end, uint32_t chain);

/* TL_EINVAL before recovery, TL_EFAILED after a failed sync. */
int tl_checkpoint_check_usable(const tl_checkpoint *c, tl_error *err);

/* The published groups of the active file, merged. Free the body in any case. */
int tl_checkpoint_read_active(const tl_checkpoint *c, uint64_t generation, tl_checkpoint_body *body, tl_error *err);

/* Wipes a newer header that nobody switched to; first step of everything that publishes. */
int tl_checkpoint_wipe_pending(tl_checkpoint *c, tl_error *err);

/* A snapshot with room for a group of `extra` bytes behind it, where the disk has it. */
int tl_checkpoint_snapshot_for(tl_checkpoint *c, uint64_t extra, tl_error *err);

#endif
