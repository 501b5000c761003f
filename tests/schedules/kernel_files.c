/* What do the calls on files do in the operating system that the tests play?
 *
 * Imports kernel_inside.h, actors.h. Names are few and are looked for one by one. What a call changes, it changes at
 * once, after its step. */
#define _GNU_SOURCE
#include "kernel_inside.h"

#include "actors.h"
#include "tidelog/offsets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

int64_t (*kernel_sync_begins)(const uint8_t *bytes, uint64_t size);
void (*kernel_sync_ended)(int64_t answer);

/* --- names --- */

static name *find(uint32_t parent, const char *text, size_t length) {
    for (uint32_t i = 0; i < kernel_now->name_count; i++) {
        name *n = &kernel_now->names[i];
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
        if (n == NULL || !kernel_now->inodes[n->inode].directory)
            return -ENOENT;
        from = n->inode;
        path = slash + 1;
    }
}

uint32_t kernel_start_of(int dir) { return dir == AT_FDCWD ? ROOT : kernel_now->descriptors[dir - FIRST_FD].inode; }

name *kernel_look_up(int dir, const char *path, uint32_t *parent, const char **last) {
    return walk(kernel_start_of(dir), path, parent, last) < 0 ? NULL : find(*parent, *last, strlen(*last));
}

static int add_name(uint32_t parent, const char *text, uint32_t at) {
    uint32_t i = 0;
    while (i < kernel_now->name_count && kernel_now->names[i].used)
        i++;
    if (i == NAMES)
        actors_fail("the harness has no room for more names");
    name *n = &kernel_now->names[i];
    if (i == kernel_now->name_count)
        kernel_now->name_count++;
    *n = (name){.used = true, .parent = parent, .inode = at};
    snprintf(n->text, sizeof n->text, "%s", text);
    return 0;
}

uint32_t kernel_new_inode(bool directory, bool words) {
    if (kernel_now->inode_count == WORLD_FILES)
        actors_fail("the harness has no room for more files");
    kernel_now->inodes[kernel_now->inode_count] = (inode){.used = true, .directory = directory, .words = words};
    return kernel_now->inode_count++;
}

static int new_descriptor(uint32_t at) {
    uint32_t i = 0;
    while (i < kernel_now->descriptor_count && kernel_now->descriptors[i].open)
        i++;
    if (i == DESCRIPTORS)
        return -EMFILE;
    if (i == kernel_now->descriptor_count)
        kernel_now->descriptor_count++;
    kernel_now->descriptors[i] = (descriptor){.open = true, .actor = (int8_t)actors_current, .inode = at};
    return FIRST_FD + (int)i;
}

/* --- calls --- */

inode *kernel_node(int fd) {
    uint32_t i = (uint32_t)(fd - FIRST_FD);
    if (i >= kernel_now->descriptor_count || !kernel_now->descriptors[i].open ||
        kernel_now->descriptors[i].actor != actors_current)
        actors_fail("a descriptor is used that is not open in this process: %d", fd);
    return &kernel_now->inodes[kernel_now->descriptors[i].inode];
}

static uint8_t *bytes_of(int fd) { return world_file(kernel_now->descriptors[fd - FIRST_FD].inode); }

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
        return new_descriptor(path[1] == 0 ? kernel_start_of(dir) : ROOT);
    name *n = kernel_look_up(dir, path, &parent, &last);
    if (last == NULL)
        return -ENOENT;
    if (n != NULL && (flags & O_EXCL) != 0)
        return -EEXIST;
    if (n == NULL && (flags & O_CREAT) == 0)
        return -ENOENT;
    if (n != NULL && (flags & O_DIRECTORY) != 0 && !kernel_now->inodes[n->inode].directory)
        return -ENOTDIR;
    uint32_t at = n != NULL ? n->inode : kernel_new_inode(false, is_of_words(last));
    if (n == NULL)
        add_name(parent, last, at);
    if ((flags & O_TRUNC) != 0 && kernel_now->inodes[at].size > 0) {
        memset(world_file(at), 0, kernel_now->inodes[at].size);
        kernel_now->inodes[at].size = 0;
    }
    return new_descriptor(at);
}

static int call_close(int fd) {
    (void)kernel_node(fd);
    actors_step("close");
    kernel_drop_locks((uint32_t)(fd - FIRST_FD));
    kernel_now->descriptors[fd - FIRST_FD].open = false;
    return 0;
}

static int call_stat(int fd, tl_stat *out) {
    actors_step("stat");
    const inode *n = kernel_node(fd);
    *out = (tl_stat){.device = 1,
                     .inode = kernel_now->descriptors[fd - FIRST_FD].inode + 1u,
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
    if (kernel_look_up(dir, path, &parent, &last) != NULL)
        return -EEXIST;
    return last == NULL ? -ENOENT : add_name(parent, last, kernel_new_inode(true, false));
}

static int call_rename(int from_dir, const char *from, int to_dir, const char *to) {
    uint32_t parent = 0;
    const char *last = NULL;
    actors_step("rename");
    name *n = kernel_look_up(from_dir, from, &parent, &last);
    if (n == NULL)
        return -ENOENT;
    last = NULL;
    name *there = kernel_look_up(to_dir, to, &parent, &last);
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
    name *n = kernel_look_up(dir, path, &parent, &last);
    if (n == NULL)
        return -ENOENT;
    if (kernel_now->inodes[n->inode].directory != directory)
        return directory ? -ENOTDIR : -EISDIR;
    for (uint32_t i = 0; directory && i < kernel_now->name_count; i++)
        if (kernel_now->names[i].used && kernel_now->names[i].parent == n->inode)
            return -ENOTEMPTY;
    n->used = false;
    return 0;
}

static int call_list(int dir, void *context, int (*each)(void *context, const char *name)) {
    uint32_t parent = kernel_start_of(dir);
    actors_step("list");
    for (uint32_t i = 0; i < kernel_now->name_count; i++) {
        if (!kernel_now->names[i].used || kernel_now->names[i].parent != parent)
            continue;
        char text[NAME_BYTES];
        memcpy(text, kernel_now->names[i].text, sizeof text);
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
    inode *n = kernel_node(fd);
    if (from + bytes > n->size)
        resize(n, bytes_of(fd), from + bytes);
    return 0;
}

static int call_append_zeros(int fd, uint64_t bytes) {
    actors_step("append_zeros");
    inode *n = kernel_node(fd);
    resize(n, bytes_of(fd), n->size + bytes);
    return 0;
}

static int call_ftruncate(int fd, uint64_t size_bytes) {
    actors_step("ftruncate");
    resize(kernel_node(fd), bytes_of(fd), size_bytes);
    return 0;
}

static int64_t call_pread(int fd, void *to, size_t bytes, uint64_t from) {
    actors_step("pread");
    const inode *n = kernel_node(fd);
    size_t got = from >= n->size ? 0 : n->size - from < bytes ? (size_t)(n->size - from) : bytes;
    memcpy(to, bytes_of(fd) + from, got);
    return (int64_t)got;
}

static void put(int fd, uint64_t to, const void *from, size_t bytes) {
    inode *n = kernel_node(fd);
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
    const inode *n = kernel_node(fd);
    int64_t answer = kernel_sync_begins == NULL || n->directory ? -1 : kernel_sync_begins(bytes_of(fd), n->size);
    actors_step("synced");
    if (answer >= 0)
        kernel_sync_ended(answer);
    return 0;
}

static int call_map(int fd, uint64_t from, size_t bytes, bool writable, void **out) {
    (void)bytes;
    (void)writable;
    (void)kernel_node(fd);
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

static void call_write_out(int fd, uint64_t from) {
    (void)fd;
    (void)from;
}

void kernel_fill_files(tl_io *io) {
    io->open = call_open;
    io->close = call_close;
    io->stat = call_stat;
    io->mkdir = call_mkdir;
    io->rename = call_rename;
    io->unlink = call_unlink;
    io->list = call_list;
    io->fallocate = call_fallocate;
    io->append_zeros = call_append_zeros;
    io->ftruncate = call_ftruncate;
    io->pread = call_pread;
    io->pwrite = call_pwrite;
    io->write_out = call_write_out;
    io->fdatasync = call_sync;
    io->fsync = call_sync;
    io->syncfs = call_sync;
    io->map = call_map;
    io->reserve = call_reserve;
    io->map_at = call_map_at;
    io->unmap = call_unmap;
    io->populate = call_populate;
}
