/* What do the files of the operating system that the tests play share?
 *
 * Private to kernel.c and kernel_files.c. Imports kernel.h. All state is in the world: each world starts with its own. */
#ifndef TIDELOG_SCHEDULES_KERNEL_INSIDE_H
#define TIDELOG_SCHEDULES_KERNEL_INSIDE_H

#include "kernel.h"

enum { NAMES = WORLD_FILES, DESCRIPTORS = 256, LOCKS = 64, NAME_BYTES = 56, FIRST_FD = 100, ROOT = 0 };

typedef struct inode {
    uint64_t size;
    bool used, directory, words;
} inode;

typedef struct name {
    bool used;
    uint32_t parent, inode;
    char text[NAME_BYTES];
} name;

typedef struct descriptor {
    bool open;
    int8_t actor;
    uint32_t inode;
} descriptor;

typedef struct held {
    uint8_t kind; /* TL_UNLOCK: free */
    uint16_t descriptor;
    uint32_t inode;
    uint64_t byte;
} held;

typedef struct kernel {
    inode inodes[WORLD_FILES];
    uint32_t inode_count, name_count, descriptor_count, lock_count; /* used up to here */
    name names[NAMES];
    descriptor descriptors[DESCRIPTORS];
    held locks[LOCKS];
    uint64_t random, boot;
} kernel;

extern kernel *kernel_now;

/* --- kernel_files.c --- */
void kernel_fill_files(tl_io *io); /* the calls on files and maps */
inode *kernel_node(int fd);        /* of a descriptor that is open in this process */
uint32_t kernel_start_of(int dir); /* the directory that names of a call are relative to */
/* NULL: there is none; then `last`, unless it is NULL, can be made in `parent`. */
name *kernel_look_up(int dir, const char *path, uint32_t *parent, const char **last);
/* Places of files are not handed out again: somebody may have the old one mapped. */
uint32_t kernel_new_inode(bool directory, bool words);

/* --- kernel.c --- */
void kernel_drop_locks(uint32_t of); /* of a descriptor */

#endif
