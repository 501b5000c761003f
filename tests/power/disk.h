/* What of a file system is on the platter at any moment, and what do processes see of it?
 *
 * Imports os.h, check.h. Single-threaded; a forked child has a disk of its own. A whole file system in memory: every file as
 * processes see it, beside it the image at its last sync; every directory entry as seen, and the list of changes that no
 * sync of the directory covers. Stores through maps need no recording: what differs from the image is what is not on the
 * platter. A block that changed twice is also kept as it was in between ("middle"). A sync that failed leaves pages that a
 * later sync passes over, as Linux does. disk_table.h puts it behind tl_os_table, states.h says what a power cut leaves. */
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

/* --- what a sync does --- */

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

#endif
