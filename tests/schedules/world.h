/* Where does everything live that one schedule changes, so that the next one finds it as it was?
 *
 * Imports base.h. Single-threaded. One stretch of address space holds the state of the kernel that the tests play, the
 * heap of every process, and the bytes of every file; a file has one place in it, so that two processes that map it see
 * the same memory. After world_freeze the first store into a page copies the page; world_reset puts the copies back.
 * What stands elsewhere in the harness survives a reset. */
#ifndef TIDELOG_SCHEDULES_WORLD_H
#define TIDELOG_SCHEDULES_WORLD_H

#include "tidelog/base.h"

#define WORLD_FILES 128u
#define WORLD_FILE_SHIFT 23u /* 8 MiB of address space for each file */
#define WORLD_FILE_BYTES ((size_t)1 << WORLD_FILE_SHIFT)
#define WORLD_HEAP_BYTES ((size_t)32 << 20)

/* At one address in every run: what an access is for is asked a hundred million times. */
#define WORLD_FILES_AT ((uintptr_t)0x200000000000u)

void world_begin(void);
void world_freeze(void);
void world_reset(void);
size_t world_pages(void); /* how many pages a reset puts back */

/* Zeroed, and for as long as the world stands. */
void *world_new(size_t bytes);

/* The heap behind tl_os. */
void *world_malloc(size_t bytes);
void *world_realloc(void *old, size_t bytes);
void world_free(void *old);

TL_INLINE uint8_t *world_file(uint32_t inode) {
    return (uint8_t *)(WORLD_FILES_AT + ((uintptr_t)inode << WORLD_FILE_SHIFT));
}
/* Which file an address belongs to; WORLD_FILES or more: none. */
TL_INLINE size_t world_file_of(const void *at) { return ((uintptr_t)at - WORLD_FILES_AT) >> WORLD_FILE_SHIFT; }

#endif
