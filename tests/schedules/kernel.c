/* How does an operating system look that fits into a few pages and starts anew in a microsecond?
 *
 * Imports kernel_inside.h, actors.h. Files are kernel_files.c's; here are locks, clocks, what else the core asks, and
 * looks from outside. Nothing fails: failing calls are the business of tests/faults. */
#define _GNU_SOURCE
#include "kernel_inside.h"

#include "actors.h"

#include <errno.h>
#include <fcntl.h>

kernel *kernel_now;

/* --- locks --- */

void kernel_drop_locks(uint32_t of) {
    for (uint32_t i = 0; i < kernel_now->lock_count; i++)
        if (kernel_now->locks[i].kind != TL_UNLOCK && kernel_now->locks[i].descriptor == of)
            kernel_now->locks[i].kind = TL_UNLOCK;
}

static bool conflicts(uint32_t of, uint32_t inode_of, uint64_t byte, int kind) {
    for (uint32_t i = 0; i < kernel_now->lock_count; i++) {
        const held *h = &kernel_now->locks[i];
        if (h->kind != TL_UNLOCK && h->inode == inode_of && h->byte == byte && h->descriptor != of &&
            (kind == TL_LOCK_EXCLUSIVE || h->kind == TL_LOCK_EXCLUSIVE))
            return true;
    }
    return false;
}

static int call_lock(int fd, int kind, uint64_t byte, uint64_t bytes, bool wait) {
    actors_step("lock");
    (void)kernel_node(fd);
    uint32_t of = (uint32_t)(fd - FIRST_FD), at = kernel_now->descriptors[of].inode, i = 0, free = LOCKS;
    if (bytes != 1 || wait)
        actors_fail("the harness locks single bytes, and never waits for one");
    if (kind != TL_UNLOCK && conflicts(of, at, byte, kind))
        return -EAGAIN;
    for (; i < kernel_now->lock_count; i++) {
        held *h = &kernel_now->locks[i];
        if (h->kind == TL_UNLOCK)
            free = i;
        else if (h->descriptor == of && h->byte == byte)
            break;
    }
    if (i == kernel_now->lock_count) {
        if (kind == TL_UNLOCK)
            return 0;
        i = free < LOCKS ? free : kernel_now->lock_count++;
    }
    if (i >= LOCKS)
        actors_fail("the harness has no room for more locks");
    kernel_now->locks[i] = (held){.kind = (uint8_t)kind, .descriptor = (uint16_t)of, .inode = at, .byte = byte};
    return 0;
}

static int call_locked(int fd, uint64_t byte) {
    actors_step("locked");
    (void)kernel_node(fd);
    uint32_t of = (uint32_t)(fd - FIRST_FD);
    return conflicts(of, kernel_now->descriptors[of].inode, byte, TL_LOCK_EXCLUSIVE) ? 1 : 0;
}

void kernel_forget(int actor) {
    for (uint32_t i = 0; i < kernel_now->descriptor_count; i++) {
        if (!kernel_now->descriptors[i].open || kernel_now->descriptors[i].actor != actor)
            continue;
        kernel_drop_locks(i);
        kernel_now->descriptors[i].open = false;
    }
}

/* --- what else the core asks --- */

static int call_event(void) { return -ENOSYS; }
static int call_event_of(int fd) {
    (void)fd;
    return -ENOSYS;
}
static int call_process_watch(uint32_t pid) {
    (void)pid;
    return -ENOSYS;
}
static int call_poll(const int *fds, bool *ready, size_t count, int64_t timeout_ns) {
    (void)fds;
    (void)ready;
    (void)count;
    (void)timeout_ns;
    return -ENOSYS;
}

static int call_identity(int dir, tl_identity *out) {
    *out = (tl_identity){.boot = {1, kernel_now->boot}, .device = 1, .inode = kernel_start_of(dir) + 1u, .mount = 1};
    return 0;
}

static int call_filesystem(int dir, uint64_t *magic) {
    (void)dir;
    *magic = 0xef53;
    return 0;
}

static int64_t call_now_ns(void) { return 1700000000000000000 + actors_now_ns(); }
static int64_t call_now_ms(void) { return call_now_ns() / 1000000; }

static int call_random(void *to, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        kernel_now->random = kernel_now->random * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)to)[i] = (uint8_t)(kernel_now->random >> 56);
    }
    return 0;
}

static uint32_t call_process_id(void) { return 1000u + (uint32_t)(actors_current + 1); }
static uint32_t call_pid_namespace(void) { return 1; }

void kernel_begin(void) {
    kernel_now = world_new(sizeof *kernel_now);
    kernel_new_inode(true, false);
    tl_os_table = (tl_io){.lock = call_lock,
                          .locked = call_locked,
                          .futex_wait = actors_wait,
                          .futex_wake = actors_wake,
                          .event = call_event,
                          .event_set = call_event_of,
                          .event_clear = call_event_of,
                          .process_watch = call_process_watch,
                          .poll = call_poll,
                          .identity = call_identity,
                          .filesystem = call_filesystem,
                          .now_ms = call_now_ms,
                          .now_ns = call_now_ns,
                          .coarse_ms = call_now_ms,
                          .monotonic_ns = actors_now_ns,
                          .random = call_random,
                          .process_id = call_process_id,
                          .pid_namespace = call_pid_namespace,
                          .malloc = world_malloc,
                          .realloc = world_realloc,
                          .free = world_free};
    kernel_fill_files(&tl_os_table);
}

/* --- looks from outside --- */

const uint8_t *kernel_look(const char *path, uint64_t *size) {
    uint32_t parent = 0;
    const char *last = NULL;
    const name *n = kernel_look_up(AT_FDCWD, path, &parent, &last);
    if (n == NULL)
        return NULL;
    *size = kernel_now->inodes[n->inode].size;
    return world_file(n->inode);
}

void kernel_reboot(void) {
    for (int actor = 0; actor < ACTORS; actor++)
        kernel_forget(actor);
    kernel_now->boot++;
}

uint64_t kernel_room(size_t inode_of) {
    return inode_of < kernel_now->inode_count ? (kernel_now->inodes[inode_of].size + 4095) / 4096 * 4096 : 0;
}

bool kernel_holds_words(size_t inode_of) { return kernel_now->inodes[inode_of].words; }
