/* What does the operating system that the tests play promise to the core?
 *
 * Imports os.h. All of its state is in the world. Files are stretches of the world's memory: a store through one
 * process's map is seen by all at once. Locks belong to descriptors, and a process that dies loses its descriptors.
 * Every call that another process can notice, or that notices what another one did, is a step. */
#ifndef TIDELOG_SCHEDULES_KERNEL_H
#define TIDELOG_SCHEDULES_KERNEL_H

#include "tidelog/os.h"

#include "world.h"

void kernel_begin(void);       /* once, before the world is frozen: fills tl_os */
void kernel_forget(int actor); /* it died: its descriptors and their locks are gone */

/* Told of the bytes of a file when a sync of it begins; what it answers is told again when the sync has ended. */
extern int64_t (*kernel_sync_begins)(const uint8_t *bytes, uint64_t size);
extern void (*kernel_sync_ended)(int64_t answer);
/* The bytes of a file, NULL: there is none. Names are relative to the root. */
const uint8_t *kernel_look(const char *path, uint64_t *size);
void kernel_reboot(void); /* the same files, another boot; every process is dead */
/* How far a store into a file may go: whole pages of it. */
uint64_t kernel_room(size_t inode);
bool kernel_holds_words(size_t inode); /* processes talk through it; it is not a log */

#endif
