/* Which states may a power cut leave, and how is one of them built?
 *
 * Imports disk.h. Single-threaded. Everything that nothing has synced is an item: a 512-byte block, the size of a file, a
 * change of a directory entry. Any subset of them is a legal state, and a block that changed twice may also be in between.
 * Real file systems leave fewer; what is safe here is safe on all of them. */
#ifndef TIDELOG_POWER_STATES_H
#define TIDELOG_POWER_STATES_H

#include "disk.h"

#define ITEMS 8192

/* Something that a cut may or may not have left: a block, a size or a change of an entry. */
enum item_kind { ITEM_BLOCK, ITEM_SIZE, ITEM_CHANGE };
typedef struct item {
    uint8_t kind;
    bool has_middle;
    uint16_t inode;
    uint32_t at; /* index of the block or of the change */
} item;

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

/* Which items a state keeps. The first states of a cut are the plain ones; few items are enumerated; then chance. */
static void choose(uint8_t *keep, const item *items, size_t count, uint32_t number, uint64_t *random) {
    if (count <= 5 && number < 1u << count) {
        for (size_t k = 0; k < count; k++)
            keep[k] = number >> k & 1;
        return;
    }
    uint32_t kind = number < 4 ? number : 4 + (uint32_t)(check_random(random) % 10);
    size_t at = count == 0 ? 0 : check_random(random) % count, from = count == 0 ? 0 : check_random(random) % count;
    static const uint8_t share[] = {6, 32, 128, 224, 250};
    uint8_t often = share[check_random(random) % 5];
    uint64_t page = 0;
    for (size_t k = 0; k < count; k++) {
        bool block = items[k].kind == ITEM_BLOCK, yes = false;
        switch (kind) {
        case 0:
            yes = false;
            break;
        case 1:
            yes = true;
            break;
        case 2:
            yes = block;
            break;
        case 3:
            yes = !block;
            break;
        case 4:
            yes = k == at;
            break;
        case 5:
            yes = k != at;
            break;
        case 6:
            yes = k <= at;
            break; /* prefix */
        case 7:
            yes = k >= at;
            break; /* reverse */
        case 8:
            yes = (k + count - from) % count <= at;
            break;
        case 9: /* whole pages */
        case 10:
            if (k == 0 || !block || items[k].inode != items[k - 1].inode ||
                items[k].at / (PAGE / BLOCK) != items[k - 1].at / (PAGE / BLOCK))
                page = check_random(random);
            yes = (page & 255) < often;
            break;
        case 11:
            yes = !block || (check_random(random) & 255) < often;
            break;
        default:
            yes = (check_random(random) & 255) < often;
            break;
        }
        keep[k] = yes ? 1 : 0;
        if (yes && items[k].has_middle && (check_random(random) & 3) == 0)
            keep[k] = 2;
    }
}

#endif
