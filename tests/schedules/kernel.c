/* How does an operating system look that fits into a few pages and starts anew in a microsecond?
 *
 * Imports kernel.h, actors.h. Names are few and are looked for one by one. Nothing fails: failing calls are the
 * business of tests/faults. What a call changes, it changes at once, after its step. */
#define _GNU_SOURCE
#include "kernel.h"

#include "actors.h"
#include "tidelog/offsets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

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

static kernel *k;
int64_t (*kernel_sync_begins)(const uint8_t *bytes, uint64_t size);
void (*kernel_sync_ended)(int64_t answer);

/* --- names --- */

static name *find(uint32_t parent, const char *text, size_t length) {
    for (uint32_t i = 0; i < k->name_count; i++) {
        name *n = &k->names[i];
        if (n->used && n->parent == parent && strncmp(n->text, text, length) == 0 && n->text[length] == 0)
            return n;
    }
    return NULL;
}

/* The directory that holds the last part of a path, and that part. -ENOENT: there is none. */
static int walk(uint32_t from, const char *path, uint32_t *parent, const char **last) {
    for (;;) {
        const char *slash = strchr(path, '/');
        if (slash == NULL || slash[1] == 0) {
            *parent = from;
            *last = path;
            return strlen(path) < NAME_BYTES ? 0 : -ENAMETOOLONG;
        }
        const name *n = find(from, path, (size_t)(slash - path));
        if (n == NULL || !k->inodes[n->inode].directory)
            return -ENOENT;
        from = n->inode;
        path = slash + 1;
    }
}

static uint32_t start_of(int dir) { return dir == AT_FDCWD ? ROOT : k->descriptors[dir - FIRST_FD].inode; }

static name *look_up(int dir, const char *path, uint32_t *parent, const char **last) {
    return walk(start_of(dir), path, parent, last) < 0 ? NULL : find(*parent, *last, strlen(*last));
}

static int add_name(uint32_t parent, const char *text, uint32_t at) {
    uint32_t i = 0;
    while (i < k->name_count && k->names[i].used)
        i++;
    if (i == NAMES)
        actors_fail("the harness has no room for more names");
    name *n = &k->names[i];
    if (i == k->name_count)
        k->name_count++;
    *n = (name){.used = true, .parent = parent, .inode = at};
    snprintf(n->text, sizeof n->text, "%s", text);
    return 0;
}

/* Places of files are not handed out again: somebody may have the old one mapped. */
static uint32_t new_inode(bool directory, bool words) {
    if (k->inode_count == WORLD_FILES)
        actors_fail("the harness has no room for more files");
    k->inodes[k->inode_count] = (inode){.used = true, .directory = directory, .words = words};
    return k->inode_count++;
}

static int new_descriptor(uint32_t at) {
    uint32_t i = 0;
    while (i < k->descriptor_count && k->descriptors[i].open)
        i++;
    if (i == DESCRIPTORS)
        return -EMFILE;
    if (i == k->descriptor_count)
        k->descriptor_count++;
    k->descriptors[i] = (descriptor){.open = true, .actor = (int8_t)actors_current, .inode = at};
    return FIRST_FD + (int)i;
}

/* --- calls --- */

static inode *node(int fd) {
    uint32_t i = (uint32_t)(fd - FIRST_FD);
    if (i >= k->descriptor_count || !k->descriptors[i].open || k->descriptors[i].actor != actors_current)
        actors_fail("a descriptor is used that is not open in this process: %d", fd);
    return &k->inodes[k->descriptors[i].inode];
}

static uint8_t *bytes_of(int fd) { return world_file(k->descriptors[fd - FIRST_FD].inode); }

/* Files that processes talk through: each access is a step. */
static bool is_of_words(const char *text) {
    static const char *const starts[] = {"shared", TL_OFFSETS_FILE, "records", "ids"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strncmp(text, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

static int call_open(int dir, const char *path, int flags, unsigned mode) {
    (void)mode;
    uint32_t parent = 0;
    const char *last = NULL;
    actors_step("open");
    if (strcmp(path, ".") == 0 || strcmp(path, "..") == 0)
        return new_descriptor(path[1] == 0 ? start_of(dir) : ROOT);
    name *n = look_up(dir, path, &parent, &last);
    if (last == NULL)
        return -ENOENT;
    if (n != NULL && (flags & O_EXCL) != 0)
        return -EEXIST;
    if (n == NULL && (flags & O_CREAT) == 0)
        return -ENOENT;
    if (n != NULL && (flags & O_DIRECTORY) != 0 && !k->inodes[n->inode].directory)
        return -ENOTDIR;
    uint32_t at = n != NULL ? n->inode : new_inode(false, is_of_words(last));
    if (n == NULL)
        add_name(parent, last, at);
    if ((flags & O_TRUNC) != 0 && k->inodes[at].size > 0) {
        memset(world_file(at), 0, k->inodes[at].size);
        k->inodes[at].size = 0;
    }
    return new_descriptor(at);
}

static void drop_locks(uint32_t of) {
    for (uint32_t i = 0; i < k->lock_count; i++)
        if (k->locks[i].kind != TL_UNLOCK && k->locks[i].descriptor == of)
            k->locks[i].kind = TL_UNLOCK;
}

static int call_close(int fd) {
    (void)node(fd);
    actors_step("close");
    drop_locks((uint32_t)(fd - FIRST_FD));
    k->descriptors[fd - FIRST_FD].open = false;
    return 0;
}

static int call_stat(int fd, tl_stat *out) {
    actors_step("stat");
    const inode *n = node(fd);
    *out = (tl_stat){.device = 1,
                     .inode = k->descriptors[fd - FIRST_FD].inode + 1u,
                     .size_bytes = n->size,
                     .blocks_bytes = n->size,
                     .mode = n->directory ? S_IFDIR | 0700u : S_IFREG | 0600u,
                     .links = 1};
    return 0;
}

static int call_mkdir(int dir, const char *path, unsigned mode) {
    (void)mode;
    uint32_t parent = 0;
    const char *last = NULL;
    actors_step("mkdir");
    if (look_up(dir, path, &parent, &last) != NULL)
        return -EEXIST;
    return last == NULL ? -ENOENT : add_name(parent, last, new_inode(true, false));
}

static int call_rename(int from_dir, const char *from, int to_dir, const char *to) {
    uint32_t parent = 0;
    const char *last = NULL;
    actors_step("rename");
    name *n = look_up(from_dir, from, &parent, &last);
    if (n == NULL)
        return -ENOENT;
    last = NULL;
    name *there = look_up(to_dir, to, &parent, &last);
    if (last == NULL)
        return -ENOENT;
    if (there != NULL)
        there->used = false;
    n->parent = parent;
    snprintf(n->text, sizeof n->text, "%s", last);
    return 0;
}

static int call_unlink(int dir, const char *path, bool directory) {
    uint32_t parent = 0;
    const char *last = NULL;
    actors_step("unlink");
    name *n = look_up(dir, path, &parent, &last);
    if (n == NULL)
        return -ENOENT;
    if (k->inodes[n->inode].directory != directory)
        return directory ? -ENOTDIR : -EISDIR;
    for (uint32_t i = 0; directory && i < k->name_count; i++)
        if (k->names[i].used && k->names[i].parent == n->inode)
            return -ENOTEMPTY;
    n->used = false;
    return 0;
}

static int call_list(int dir, void *context, int (*each)(void *context, const char *name)) {
    uint32_t parent = start_of(dir);
    actors_step("list");
    for (uint32_t i = 0; i < k->name_count; i++) {
        if (!k->names[i].used || k->names[i].parent != parent)
            continue;
        char text[NAME_BYTES];
        memcpy(text, k->names[i].text, sizeof text);
        int result = each(context, text);
        if (result != 0)
            return result;
    }
    return 0;
}

static void resize(inode *n, uint8_t *bytes, uint64_t size) {
    if (size > WORLD_FILE_BYTES)
        actors_fail("a file grows to %llu bytes, more than the harness has", (unsigned long long)size);
    if (size < n->size)
        memset(bytes + size, 0, n->size - size);
    n->size = size;
}

static int call_fallocate(int fd, uint64_t from, uint64_t bytes) {
    actors_step("fallocate");
    inode *n = node(fd);
    if (from + bytes > n->size)
        resize(n, bytes_of(fd), from + bytes);
    return 0;
}

static int call_ftruncate(int fd, uint64_t size_bytes) {
    actors_step("ftruncate");
    resize(node(fd), bytes_of(fd), size_bytes);
    return 0;
}

static int64_t call_pread(int fd, void *to, size_t bytes, uint64_t from) {
    actors_step("pread");
    const inode *n = node(fd);
    size_t got = from >= n->size ? 0 : n->size - from < bytes ? (size_t)(n->size - from) : bytes;
    memcpy(to, bytes_of(fd) + from, got);
    return (int64_t)got;
}

static void put(int fd, uint64_t to, const void *from, size_t bytes) {
    inode *n = node(fd);
    if (to + bytes > n->size)
        resize(n, bytes_of(fd), to + bytes);
    memcpy(bytes_of(fd) + to, from, bytes);
}

/* Half, then the other half: a process may be killed, or read by others, in the middle. The file never ends behind
 * bytes that were not copied yet. */
static int64_t call_pwrite(int fd, const void *from, size_t bytes, uint64_t to) {
    actors_step("pwrite");
    size_t half = bytes / 2;
    put(fd, to, from, half);
    actors_step("pwrite, second half");
    put(fd, to + half, (const uint8_t *)from + half, bytes - half);
    return (int64_t)bytes;
}

static int call_sync(int fd) {
    actors_step("sync");
    const inode *n = node(fd);
    int64_t answer = kernel_sync_begins == NULL || n->directory ? -1 : kernel_sync_begins(bytes_of(fd), n->size);
    actors_step("synced");
    if (answer >= 0)
        kernel_sync_ended(answer);
    return 0;
}

static int call_map(int fd, uint64_t from, size_t bytes, bool writable, void **out) {
    (void)bytes;
    (void)writable;
    (void)node(fd);
    *out = bytes_of(fd) + from;
    return 0;
}

static int call_reserve(size_t bytes, void **out) {
    (void)bytes;
    (void)out;
    actors_fail("the harness reserves no address space");
}

static int call_map_at(void *at, int fd, uint64_t from, size_t bytes, bool writable) {
    (void)at;
    (void)fd;
    (void)from;
    (void)bytes;
    (void)writable;
    actors_fail("the harness maps nothing at a fixed place");
}

static int call_unmap(void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    return 0;
}

static int call_populate(void *at, size_t bytes, bool writable) {
    (void)at;
    (void)bytes;
    (void)writable;
    return 0;
}

/* --- locks --- */

static bool conflicts(uint32_t of, uint32_t inode_of, uint64_t byte, int kind) {
    for (uint32_t i = 0; i < k->lock_count; i++) {
        const held *h = &k->locks[i];
        if (h->kind != TL_UNLOCK && h->inode == inode_of && h->byte == byte && h->descriptor != of &&
            (kind == TL_LOCK_EXCLUSIVE || h->kind == TL_LOCK_EXCLUSIVE))
            return true;
    }
    return false;
}

static int call_lock(int fd, int kind, uint64_t byte, uint64_t bytes, bool wait) {
    actors_step("lock");
    (void)node(fd);
    uint32_t of = (uint32_t)(fd - FIRST_FD), at = k->descriptors[of].inode, i = 0, free = LOCKS;
    if (bytes != 1 || wait)
        actors_fail("the harness locks single bytes, and never waits for one");
    if (kind != TL_UNLOCK && conflicts(of, at, byte, kind))
        return -EAGAIN;
    for (; i < k->lock_count; i++) {
        held *h = &k->locks[i];
        if (h->kind == TL_UNLOCK)
            free = i;
        else if (h->descriptor == of && h->byte == byte)
            break;
    }
    if (i == k->lock_count) {
        if (kind == TL_UNLOCK)
            return 0;
        i = free < LOCKS ? free : k->lock_count++;
    }
    if (i >= LOCKS)
        actors_fail("the harness has no room for more locks");
    k->locks[i] = (held){.kind = (uint8_t)kind, .descriptor = (uint16_t)of, .inode = at, .byte = byte};
    return 0;
}

static int call_locked(int fd, uint64_t byte) {
    actors_step("locked");
    (void)node(fd);
    uint32_t of = (uint32_t)(fd - FIRST_FD);
    return conflicts(of, k->descriptors[of].inode, byte, TL_LOCK_EXCLUSIVE) ? 1 : 0;
}

void kernel_forget(int actor) {
    for (uint32_t i = 0; i < k->descriptor_count; i++) {
        if (!k->descriptors[i].open || k->descriptors[i].actor != actor)
            continue;
        drop_locks(i);
        k->descriptors[i].open = false;
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
    *out = (tl_identity){.boot = {1, k->boot}, .device = 1, .inode = start_of(dir) + 1u, .mount = 1};
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
        k->random = k->random * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)to)[i] = (uint8_t)(k->random >> 56);
    }
    return 0;
}

static uint32_t call_process_id(void) { return 1000u + (uint32_t)(actors_current + 1); }
static uint32_t call_pid_namespace(void) { return 1; }

void kernel_begin(void) {
    k = world_new(sizeof *k);
    new_inode(true, false);
    tl_os_table = (tl_io){.open = call_open,
                          .close = call_close,
                          .stat = call_stat,
                          .mkdir = call_mkdir,
                          .rename = call_rename,
                          .unlink = call_unlink,
                          .list = call_list,
                          .fallocate = call_fallocate,
                          .ftruncate = call_ftruncate,
                          .pread = call_pread,
                          .pwrite = call_pwrite,
                          .fdatasync = call_sync,
                          .fsync = call_sync,
                          .syncfs = call_sync,
                          .map = call_map,
                          .reserve = call_reserve,
                          .map_at = call_map_at,
                          .unmap = call_unmap,
                          .populate = call_populate,
                          .lock = call_lock,
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
}

/* --- looks from outside --- */

const uint8_t *kernel_look(const char *path, uint64_t *size) {
    uint32_t parent = 0;
    const char *last = NULL;
    const name *n = look_up(AT_FDCWD, path, &parent, &last);
    if (n == NULL)
        return NULL;
    *size = k->inodes[n->inode].size;
    return world_file(n->inode);
}

void kernel_reboot(void) {
    for (int actor = 0; actor < ACTORS; actor++)
        kernel_forget(actor);
    k->boot++;
}

uint64_t kernel_room(size_t inode_of) {
    return inode_of < k->inode_count ? (k->inodes[inode_of].size + 4095) / 4096 * 4096 : 0;
}

bool kernel_holds_words(size_t inode_of) { return k->inodes[inode_of].words; }
