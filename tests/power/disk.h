/* What of a store is on the platter at any moment, and what may a power cut leave of the rest?
 *
 * Imports os.h, check.h. Single-threaded; a forked child has a disk of its own. A whole file system in memory behind
 * tl_os_table: every file as processes see it, beside it the image at its last sync; every directory entry as seen, and
 * the list of changes that no sync of the directory covers. Stores through maps need no recording: what differs from the
 * image is what is not on the platter. A block that changed twice is also kept as it was in between ("middle").
 * disk_build makes one legal state after a cut in another disk: any subset of the 512-byte blocks, sizes and changes of
 * entries that nothing has synced. A sync that failed leaves pages that a later sync passes over, as Linux does. */
#ifndef TIDELOG_POWER_DISK_H
#define TIDELOG_POWER_DISK_H

#include "check.h"
#include "tidelog/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define BLOCK 512u
#define PAGE 4096u
#define FILE_ROOM (8u << 20)     /* of address space; files stay far below */
#define TRACKED_BYTES (1u << 20) /* blocks behind are either as synced or as seen */
#define INODES 256
#define NAMES 512
#define CHANGES 1024
#define DESCRIPTORS 512
#define FIRST_DESCRIPTOR 1000
#define ROOT 0
#define ITEMS 8192

typedef struct inode {
    bool used, directory;
    uint32_t maps;
    bool written_by_map;
    uint64_t size, durable_size;
    uint32_t filled, durable_filled;             /* bytes behind are zero */
    uint64_t middle[TRACKED_BYTES / BLOCK / 64]; /* which blocks have a middle version */
    uint64_t lost[TRACKED_BYTES / PAGE];         /* hash of a page whose write failed: clean for the kernel; 0: none */
} inode;

typedef struct entry {
    char name[56];
    uint16_t parent, child;
} entry;

enum change_kind { ADD, REMOVE, MOVE };

typedef struct change {
    enum change_kind kind;
    entry entry;
    char to[56]; /* of MOVE, in the same directory */
} change;

typedef struct disk {
    inode inodes[INODES];
    entry names[NAMES], durable[NAMES];
    change changes[CHANGES];
    size_t name_count, durable_count, change_count;
    uint8_t *bytes, *images, *middles; /* FILE_ROOM each, by inode */
} disk;

/* Something that a cut may or may not have left: a block, a size or a change of an entry. */
enum item_kind { ITEM_BLOCK, ITEM_SIZE, ITEM_CHANGE };
typedef struct item {
    uint8_t kind;
    bool has_middle;
    uint16_t inode;
    uint32_t at; /* index of the block or of the change */
} item;

static disk *now; /* what tl_os_table works on */
static struct {
    int inode;
    bool used;
} descriptors[DESCRIPTORS];
static int64_t clock_ns = 1000000000;
static uint64_t disk_random = 1, boot_number = 1;
static unsigned long long sync_calls;
static long fail_sync_in = -1; /* that many more syncs succeed; -1: all do */
static bool fail_kills;        /* whoever hears of the failure dies before it can tell */

/* Called around everything that changes the disk, and by every point of the core. */
static void on_event(const char *name);
static void on_failed_sync(void);

static uint8_t *bytes_of(disk *d, int i) { return d->bytes + (size_t)i * FILE_ROOM; }
static uint8_t *image_of(disk *d, int i) { return d->images + (size_t)i * FILE_ROOM; }
static uint8_t *middle_of(disk *d, int i) { return d->middles + (size_t)i * FILE_ROOM; }

static void disk_new(disk *d) {
    void *room = mmap(NULL, 3ull * INODES * FILE_ROOM, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED);
    memset(d, 0, sizeof *d);
    d->bytes = room;
    d->images = d->bytes + (size_t)INODES * FILE_ROOM;
    d->middles = d->images + (size_t)INODES * FILE_ROOM;
    d->inodes[ROOT].used = d->inodes[ROOT].directory = true;
}

static void refresh(inode *f) { /* what was stored through a map may reach to the end of the file */
    if (f->written_by_map && f->filled < f->size)
        f->filled = (uint32_t)f->size;
}

static void inode_clear(disk *d, int i) {
    inode *f = &d->inodes[i];
    refresh(f);
    memset(bytes_of(d, i), 0, f->filled);
    memset(image_of(d, i), 0, f->durable_filled);
    memset(f, 0, sizeof *f);
}

static void disk_reset(disk *d) {
    for (int i = 1; i < INODES; i++)
        if (d->inodes[i].used)
            inode_clear(d, i);
    d->name_count = d->durable_count = d->change_count = 0;
}

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 29)) * 0x9fb21c651e98df25u;
    return x ^ (x >> 32);
}

static uint64_t hash_bytes(const uint8_t *p, size_t bytes) { /* zeros add nothing, so trailing ones do not matter */
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, p + at, bytes - at < 8 ? bytes - at : 8);
        if (word != 0)
            sum += mix(word + at * 0x9e3779b97f4a7c15u);
    }
    return sum;
}

/* --- names --- */

static int find_in(const entry *names, size_t count, int parent, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (names[i].parent == parent && strcmp(names[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void take_out(entry *names, size_t *count, int at) { names[at] = names[--*count]; }

static void put_in(entry *names, size_t *count, const entry *e) {
    int old = find_in(names, *count, e->parent, e->name);
    if (old >= 0)
        take_out(names, count, old);
    CHECK(*count < NAMES);
    names[(*count)++] = *e;
}

static void apply(entry *names, size_t *count, const change *c) {
    int at = find_in(names, *count, c->entry.parent, c->entry.name);
    if (c->kind == ADD) {
        put_in(names, count, &c->entry);
    } else if (at >= 0 && names[at].child == c->entry.child) {
        take_out(names, count, at);
        if (c->kind == MOVE) {
            entry moved = c->entry;
            memcpy(moved.name, c->to, sizeof moved.name);
            put_in(names, count, &moved);
        }
    }
}

/* The directory and the last part of a path. -ENOENT when there is no such directory. */
static int walk(int dir, const char *path, char last[56]) {
    int parent = dir == AT_FDCWD ? ROOT : descriptors[dir - FIRST_DESCRIPTOR].inode;
    for (;;) {
        const char *slash = strchr(path, '/');
        size_t length = slash == NULL ? strlen(path) : (size_t)(slash - path);
        CHECK(length > 0 && length < 56);
        memcpy(last, path, length);
        last[length] = 0;
        if (slash == NULL)
            return parent;
        int at = find_in(now->names, now->name_count, parent, last);
        if (at < 0)
            return -ENOENT;
        parent = now->names[at].child;
        path = slash + 1;
    }
}

static bool referred(const disk *d, int i) {
    for (size_t k = 0; k < d->name_count; k++)
        if (d->names[k].child == i)
            return true;
    for (size_t k = 0; k < d->durable_count; k++)
        if (d->durable[k].child == i)
            return true;
    for (size_t k = 0; k < d->change_count; k++)
        if (d->changes[k].entry.child == i)
            return true;
    for (size_t k = 0; k < DESCRIPTORS; k++)
        if (descriptors[k].used && descriptors[k].inode == i)
            return true;
    return d->inodes[i].maps > 0;
}

static int inode_new(bool directory) {
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 1; i < INODES; i++) {
            if (!now->inodes[i].used) {
                now->inodes[i].used = true;
                now->inodes[i].directory = directory;
                return i;
            }
        }
        for (int i = 1; i < INODES; i++)
            if (!referred(now, i))
                inode_clear(now, i);
    }
    CHECK(!"more files than the disk of the test holds: raise INODES");
    return -1;
}

static void note(enum change_kind kind, int parent, int child, const char *name, const char *to) {
    CHECK(now->change_count < CHANGES);
    change *c = &now->changes[now->change_count++];
    memset(c, 0, sizeof *c);
    c->kind = kind;
    c->entry.parent = (uint16_t)parent;
    c->entry.child = (uint16_t)child;
    strcpy(c->entry.name, name);
    if (to != NULL)
        strcpy(c->to, to);
    apply(now->names, &now->name_count, c);
}

/* --- the table --- */

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

static void settle_entries(int dir) {
    size_t kept = 0;
    for (size_t i = 0; i < now->change_count; i++) {
        if (now->changes[i].entry.parent == dir)
            apply(now->durable, &now->durable_count, &now->changes[i]);
        else
            now->changes[kept++] = now->changes[i];
    }
    now->change_count = kept;
}

static bool page_is_lost(int i, uint64_t page) {
    inode *f = &now->inodes[i];
    if (page >= TRACKED_BYTES / PAGE || f->lost[page] == 0)
        return false;
    if ((hash_bytes(bytes_of(now, i) + page * PAGE, PAGE) | 1) == f->lost[page])
        return true;
    f->lost[page] = 0; /* stored to since: dirty again */
    return false;
}

static void settle_file(int i) {
    inode *f = &now->inodes[i];
    refresh(f);
    uint32_t most = f->filled > f->durable_filled ? f->filled : f->durable_filled;
    for (uint32_t at = 0; at < most; at += PAGE)
        if (!page_is_lost(i, at / PAGE))
            memcpy(image_of(now, i) + at, bytes_of(now, i) + at, most - at < PAGE ? most - at : PAGE);
    f->durable_filled = most;
    f->durable_size = f->size;
    memset(f->middle, 0, sizeof f->middle);
}

static void lose_file(int i) {
    inode *f = &now->inodes[i];
    refresh(f);
    for (uint32_t at = 0; at < f->filled && at < TRACKED_BYTES; at += PAGE)
        if (memcmp(bytes_of(now, i) + at, image_of(now, i) + at, PAGE) != 0)
            f->lost[at / PAGE] = hash_bytes(bytes_of(now, i) + at, PAGE) | 1;
}

static const char *any_name_of(const disk *d, int i) {
    for (size_t k = 0; k < d->name_count; k++)
        if (d->names[k].child == i)
            return d->names[k].name;
    for (size_t k = 0; k < d->durable_count; k++)
        if (d->durable[k].child == i)
            return d->durable[k].name;
    return "";
}

static bool is_index(const char *name) {
    size_t length = strlen(name);
    return length > 5 && strcmp(name + length - 5, "index") == 0;
}

/* A leader that finds its predecessor dead has stored to every page again: the kernel takes them for dirty. */
static inline void disk_touch_logs(void) {
    for (int i = 1; i < INODES; i++)
        if (now->inodes[i].used && !is_index(any_name_of(now, i)) &&
            strncmp(any_name_of(now, i), "checkpoint", 10) != 0)
            memset(now->inodes[i].lost, 0, sizeof now->inodes[i].lost);
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
    t->ftruncate = disk_ftruncate;
    t->pread = disk_pread;
    t->pwrite = disk_pwrite;
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

/* --- cuts --- */

/* Valid for one boot only, so no state after a cut depends on what they hold. */
static bool is_live_state(const char *name) {
    return strcmp(name, "shared") == 0 || strcmp(name, "shared.new") == 0 || strcmp(name, "offsets") == 0 ||
           strcmp(name, "store.lock") == 0;
}

/* Everything that nothing has synced. */
static size_t disk_items(disk *d, item *items) {
    size_t count = 0;
    for (int i = 1; i < INODES; i++) {
        inode *f = &d->inodes[i];
        if (!f->used || f->directory || is_live_state(any_name_of(d, i)))
            continue;
        refresh(f);
        uint32_t most = f->filled > f->durable_filled ? f->filled : f->durable_filled;
        for (uint32_t at = 0; at < most; at += BLOCK) {
            if (memcmp(bytes_of(d, i) + at, image_of(d, i) + at, BLOCK) == 0)
                continue;
            CHECK(count < ITEMS);
            uint32_t block = at / BLOCK;
            bool middle = at < TRACKED_BYTES && (f->middle[block / 64] >> block % 64 & 1) != 0;
            items[count++] = (item){ITEM_BLOCK, middle, (uint16_t)i, block};
        }
        if (f->size != f->durable_size)
            items[count++] = (item){ITEM_SIZE, false, (uint16_t)i, 0};
    }
    for (size_t k = 0; k < d->change_count && count < ITEMS; k++)
        items[count++] = (item){ITEM_CHANGE, false, d->changes[k].entry.child, (uint32_t)k};
    return count;
}

/* At a moment of the kernel's choosing some dirty blocks are as they are now; they may reach the platter like that. */
static inline void disk_keep_middle(disk *d, uint64_t *random) {
    for (int i = 1; i < INODES; i++) {
        inode *f = &d->inodes[i];
        if (!f->used || f->directory)
            continue;
        refresh(f);
        for (uint32_t at = 0; at < f->filled && at < TRACKED_BYTES; at += BLOCK) {
            if ((check_random(random) & 1) != 0 || memcmp(bytes_of(d, i) + at, image_of(d, i) + at, BLOCK) == 0)
                continue;
            memcpy(middle_of(d, i) + at, bytes_of(d, i) + at, BLOCK);
            f->middle[at / BLOCK / 64] |= 1ull << at / BLOCK % 64;
        }
    }
}

static void copy_inode(disk *to, const disk *from, int i, bool live) {
    inode *f = &to->inodes[i];
    const inode *g = &from->inodes[i];
    f->used = true;
    f->directory = g->directory;
    f->size = live ? g->size : g->durable_size;
    f->filled = live ? g->filled : g->durable_filled;
    memcpy(bytes_of(to, i), (live ? from->bytes : from->images) + (size_t)i * FILE_ROOM, f->filled);
}

/* `keep[k]`: 0 as on the platter, 1 as seen, 2 the middle version. Returns the hash of what was built in `to`. */
static uint64_t disk_build(disk *to, disk *from, const item *items, const uint8_t *keep, size_t count,
                           bool live_state) {
    disk_reset(to);
    memcpy(to->names, from->durable, from->durable_count * sizeof *to->names);
    to->name_count = from->durable_count;
    for (size_t k = 0; k < count; k++)
        if (items[k].kind == ITEM_CHANGE && keep[k] != 0)
            apply(to->names, &to->name_count, &from->changes[items[k].at]);
    bool reached[INODES] = {[ROOT] = true};
    for (int depth = 0; depth < 3; depth++)
        for (size_t i = 0; i < to->name_count; i++)
            if (reached[to->names[i].parent])
                reached[to->names[i].child] = true;
    for (size_t i = to->name_count; i-- > 0;)
        if (!reached[to->names[i].parent])
            take_out(to->names, &to->name_count, (int)i);
    for (size_t i = 0; i < to->name_count; i++) {
        int child = to->names[i].child;
        bool live = is_live_state(to->names[i].name);
        refresh(&from->inodes[child]);
        copy_inode(to, from, child, live && live_state);
    }
    for (size_t k = 0; k < count; k++) {
        int i = items[k].inode;
        inode *f = &to->inodes[i];
        if (keep[k] == 0 || items[k].kind == ITEM_CHANGE || !f->used)
            continue;
        if (items[k].kind == ITEM_SIZE) {
            f->size = from->inodes[i].size;
            continue;
        }
        size_t at = (size_t)items[k].at * BLOCK;
        const uint8_t *source = keep[k] == 2 && items[k].has_middle ? middle_of(from, i) : bytes_of(from, i);
        if (f->filled < at + BLOCK)
            f->filled = (uint32_t)(at + BLOCK);
        memcpy(bytes_of(to, i) + at, source + at, BLOCK);
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < to->name_count; i++) {
        int child = to->names[i].child;
        inode *f = &to->inodes[child];
        uint64_t name = hash_bytes((const uint8_t *)to->names[i].name, strlen(to->names[i].name)) + to->names[i].parent;
        if (f->filled > f->size) { /* behind the end of a file stands nothing */
            memset(bytes_of(to, child) + f->size, 0, f->filled - f->size);
            f->filled = (uint32_t)f->size;
        }
        memcpy(image_of(to, child), bytes_of(to, child), f->filled);
        f->durable_filled = f->filled;
        f->durable_size = f->size;
        if (!is_live_state(to->names[i].name))
            sum += mix(mix(name) + f->size * 31 + (f->filled == 0 ? 0 : hash_bytes(bytes_of(to, child), f->filled)));
    }
    memcpy(to->durable, to->names, to->name_count * sizeof *to->names);
    to->durable_count = to->name_count;
    return sum == 0 ? 1 : sum;
}

#endif
