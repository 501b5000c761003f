/* How does the core reach the disk of the test, and how does time pass there?
 *
 * Imports disk.h. Single-threaded. The entries of tl_os_table; every one that changes the disk calls on_event before and
 * after, so that the power can go there. */
#ifndef TIDELOG_POWER_DISK_TABLE_H
#define TIDELOG_POWER_DISK_TABLE_H

#include "disk.h"

static int inode_of(int fd) {
    CHECK(fd >= FIRST_DESCRIPTOR && fd < FIRST_DESCRIPTOR + DESCRIPTORS && descriptors[fd - FIRST_DESCRIPTOR].used);
    return descriptors[fd - FIRST_DESCRIPTOR].inode;
}

static int disk_truncate(int i, uint64_t size) {
    inode *f = &now->inodes[i];
    CHECK(size <= FILE_ROOM);
    refresh(f);
    if (size < f->filled) {
        memset(bytes_of(now, i) + size, 0, f->filled - size);
        f->filled = (uint32_t)size;
    }
    f->size = size;
    return 0;
}

static int disk_open(int dir, const char *path, int flags, unsigned mode) {
    (void)mode;
    char last[56];
    int parent = walk(dir, path, last), child;
    if (parent < 0)
        return parent;
    if (strcmp(last, "..") == 0) {
        child = ROOT; /* stores stand in the root of this disk */
    } else if (strcmp(last, ".") == 0) {
        child = parent;
    } else {
        int at = find_in(now->names, now->name_count, parent, last);
        if (at < 0) {
            if ((flags & O_CREAT) == 0)
                return -ENOENT;
            on_event("disk.create");
            child = inode_new(false);
            note(ADD, parent, child, last, NULL);
            on_event("disk.created");
        } else if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
            return -EEXIST;
        } else {
            child = now->names[at].child;
        }
    }
    if ((flags & O_DIRECTORY) != 0 && !now->inodes[child].directory)
        return -ENOTDIR;
    if ((flags & O_TRUNC) != 0)
        disk_truncate(child, 0);
    for (int i = 0; i < DESCRIPTORS; i++) {
        if (!descriptors[i].used) {
            descriptors[i].used = true;
            descriptors[i].inode = child;
            return FIRST_DESCRIPTOR + i;
        }
    }
    return -EMFILE;
}

static int disk_close(int fd) {
    (void)inode_of(fd);
    descriptors[fd - FIRST_DESCRIPTOR].used = false;
    return 0;
}

static int disk_stat(int fd, tl_stat *out) {
    const inode *f = &now->inodes[inode_of(fd)];
    *out = (tl_stat){.device = 1,
                     .inode = (uint64_t)inode_of(fd) + 2,
                     .size_bytes = f->size,
                     .blocks_bytes = f->size,
                     .mode = 0100600,
                     .links = 1};
    return 0;
}

static int disk_mkdir(int dir, const char *path, unsigned mode) {
    (void)mode;
    char last[56];
    int parent = walk(dir, path, last);
    if (parent < 0)
        return parent;
    if (find_in(now->names, now->name_count, parent, last) >= 0)
        return -EEXIST;
    note(ADD, parent, inode_new(true), last, NULL);
    on_event("disk.mkdir");
    return 0;
}

static int disk_rename(int from_dir, const char *from, int to_dir, const char *to) {
    char last[56], to_last[56];
    int parent = walk(from_dir, from, last), target = walk(to_dir, to, to_last);
    if (parent < 0 || target < 0)
        return -ENOENT;
    CHECK(parent == target);
    int at = find_in(now->names, now->name_count, parent, last);
    if (at < 0)
        return -ENOENT;
    on_event("disk.rename");
    note(MOVE, parent, now->names[find_in(now->names, now->name_count, parent, last)].child, last, to_last);
    on_event("disk.renamed");
    return 0;
}

static int disk_unlink(int dir, const char *path, bool directory) {
    char last[56];
    int parent = walk(dir, path, last);
    int at = parent < 0 ? -1 : find_in(now->names, now->name_count, parent, last);
    if (at < 0)
        return -ENOENT;
    int child = now->names[at].child;
    if (now->inodes[child].directory != directory)
        return directory ? -ENOTDIR : -EISDIR;
    for (size_t i = 0; i < now->name_count; i++)
        if (directory && now->names[i].parent == child)
            return -ENOTEMPTY;
    on_event("disk.unlink");
    note(REMOVE, parent, child, last, NULL);
    on_event("disk.unlinked");
    return 0;
}

static int disk_list(int dir, void *context, int (*each)(void *context, const char *name)) {
    int parent = inode_of(dir), result = 0;
    size_t count = 0;
    static entry found[NAMES];
    for (size_t i = 0; i < now->name_count; i++)
        if (now->names[i].parent == parent)
            found[count++] = now->names[i];
    for (size_t i = 0; i < count && result == 0; i++)
        result = each(context, found[i].name);
    return result;
}

static int disk_fallocate(int fd, uint64_t from, uint64_t bytes) {
    inode *f = &now->inodes[inode_of(fd)];
    CHECK(from + bytes <= FILE_ROOM);
    on_event("disk.fallocate");
    if (from + bytes > f->size)
        f->size = from + bytes;
    return 0;
}

static int disk_append_zeros(int fd, uint64_t bytes) {
    inode *f = &now->inodes[inode_of(fd)];
    CHECK(f->size + bytes <= FILE_ROOM);
    on_event("disk.append_zeros");
    f->size += bytes;
    return 0;
}

static int disk_ftruncate(int fd, uint64_t size) {
    on_event("disk.truncate");
    return disk_truncate(inode_of(fd), size);
}

static int64_t disk_pread(int fd, void *to, size_t bytes, uint64_t from) {
    int i = inode_of(fd);
    const inode *f = &now->inodes[i];
    if (from >= f->size)
        return 0;
    bytes = bytes < f->size - from ? bytes : (size_t)(f->size - from);
    memcpy(to, bytes_of(now, i) + from, bytes);
    return (int64_t)bytes;
}

static int64_t disk_pwrite(int fd, const void *from, size_t bytes, uint64_t to) {
    static const uint8_t zeros[16384];
    int i = inode_of(fd);
    inode *f = &now->inodes[i];
    CHECK(to + bytes <= FILE_ROOM);
    refresh(f);
    bool blank = to >= f->filled && bytes <= sizeof zeros && memcmp(from, zeros, bytes) == 0;
    if (!blank) {
        on_event("disk.write");
        memcpy(bytes_of(now, i) + to, from, bytes);
        if (f->filled < to + bytes)
            f->filled = (uint32_t)(to + bytes);
        for (uint64_t page = to / PAGE; page * PAGE < to + bytes && page < TRACKED_BYTES / PAGE; page++)
            f->lost[page] = 0; /* dirty again */
    }
    if (f->size < to + bytes)
        f->size = to + bytes;
    if (!blank)
        on_event("disk.written");
    return (int64_t)bytes;
}

static int disk_sync(int fd) {
    int i = inode_of(fd);
    sync_calls++;
    on_event("disk.sync");
    if (now->inodes[i].directory) {
        settle_entries(i);
    } else if (fail_sync_in >= 0 && !(fail_kills && is_index(any_name_of(now, i))) && fail_sync_in-- == 0) {
        /* Not of an index when nobody lives to tell: it can be made anew, and each entry is verified when it is used. */
        lose_file(i);
        on_failed_sync();
        return -EIO;
    } else {
        settle_file(i);
    }
    on_event("disk.synced");
    return 0;
}

static int disk_syncfs(int fd) {
    (void)fd;
    on_event("disk.syncfs");
    for (int i = 0; i < INODES; i++) {
        if (now->inodes[i].used && now->inodes[i].directory)
            settle_entries(i);
        else if (now->inodes[i].used)
            settle_file(i);
    }
    return 0;
}

static int disk_map(int fd, uint64_t from, size_t bytes, bool writable, void **out) {
    int i = inode_of(fd);
    (void)bytes; /* maps reach over what the file will become; nobody may touch more than what it is */
    now->inodes[i].maps++;
    now->inodes[i].written_by_map |= writable;
    *out = bytes_of(now, i) + from;
    return 0;
}

static int disk_unmap(void *at, size_t bytes) {
    (void)bytes;
    size_t i = (size_t)((uint8_t *)at - now->bytes) / FILE_ROOM;
    if ((uint8_t *)at >= now->bytes && i < INODES && now->inodes[i].maps > 0)
        now->inodes[i].maps--;
    return 0;
}

static int disk_populate(void *at, size_t bytes, bool writable) {
    (void)writable;
    size_t i = (size_t)((uint8_t *)at - now->bytes) / FILE_ROOM,
           from = (size_t)((uint8_t *)at - now->bytes) % FILE_ROOM;
    return from + bytes <= (now->inodes[i].size + PAGE - 1) / PAGE * PAGE ? 0 : -EFAULT;
}

static int disk_lock(int fd, int kind, uint64_t byte, uint64_t bytes, bool wait) {
    (void)fd, (void)kind, (void)byte, (void)bytes, (void)wait;
    return 0; /* one process at a time; those before it are dead */
}
static int disk_locked(int fd, uint64_t byte) {
    (void)fd, (void)byte;
    return 0;
}
static int disk_futex_wait(const uint32_t *word, uint32_t value, int64_t timeout_ns) {
    (void)word, (void)value;
    clock_ns += timeout_ns > 0 ? timeout_ns : 1000;
    return -ETIMEDOUT;
}
static int disk_futex_wake(const uint32_t *word, int count) {
    (void)word, (void)count;
    return 0;
}
static int disk_identity(int dir, tl_identity *out) {
    *out = (tl_identity){{boot_number, 7}, 1, (uint64_t)inode_of(dir) + 2, 1};
    return 0;
}
static int disk_filesystem(int dir, uint64_t *magic) {
    (void)dir;
    *magic = 0xef53;
    return 0;
}
static int64_t disk_now_ms(void) { return 1700000000000 + clock_ns / 1000000; }
static int64_t disk_monotonic_ns(void) { return clock_ns += 1000; }
static int disk_draw(void *to, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)to)[i] = (uint8_t)check_random(&disk_random);
    return 0;
}

static void disk_write_out(int fd, uint64_t from) { /* what is dirty may be written at any time here */
    (void)fd;
    (void)from;
}

static void disk_install(void) {
    tl_io *t = &tl_os_table;
    t->open = disk_open;
    t->close = disk_close;
    t->stat = disk_stat;
    t->mkdir = disk_mkdir;
    t->rename = disk_rename;
    t->unlink = disk_unlink;
    t->list = disk_list;
    t->fallocate = disk_fallocate;
    t->append_zeros = disk_append_zeros;
    t->ftruncate = disk_ftruncate;
    t->pread = disk_pread;
    t->pwrite = disk_pwrite;
    t->write_out = disk_write_out;
    t->fdatasync = t->fsync = disk_sync;
    t->syncfs = disk_syncfs;
    t->map = disk_map;
    t->unmap = disk_unmap;
    t->populate = disk_populate;
    t->lock = disk_lock;
    t->locked = disk_locked;
    t->futex_wait = disk_futex_wait;
    t->futex_wake = disk_futex_wake;
    t->identity = disk_identity;
    t->filesystem = disk_filesystem;
    t->now_ms = disk_now_ms;
    t->monotonic_ns = disk_monotonic_ns;
    t->random = disk_draw;
}

#endif
