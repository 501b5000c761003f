/* How does a checkpoint test own the disk: fail it, stop it between two writes, and decide what a power cut leaves?
 *
 * Imports check.h, os.h. Two files, checkpoint.a and checkpoint.b, in memory that forked children share: what a process
 * sees (`cached`) and what the platter has (`durable`). A write dirties blocks of 512 bytes; now and then some of them
 * are written back by themselves; fdatasync writes all of a file. A cut takes the durable bytes and any subset of the
 * dirty blocks. Set disk_cut_after to take the cut in the middle of a call: the image is kept in `image`, and the call
 * goes on in a world that is forgotten afterwards. */
#ifndef TIDELOG_TEST_MEMORY_DISK_H
#define TIDELOG_TEST_MEMORY_DISK_H

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "check.h"
#include "tidelog/os.h"

#define DISK_BYTES (4u << 20)
#define DISK_BLOCK 512u
#define DISK_FD 1000

typedef struct disk_file {
    uint64_t size, durable_size, image_size;
    bool exists;
    uint8_t cached[DISK_BYTES], durable[DISK_BYTES], image[DISK_BYTES];
    uint8_t dirty[DISK_BYTES / DISK_BLOCK];
} disk_file;

typedef struct memory_disk {
    disk_file file[2];
    uint64_t random;
    uint64_t calls;          /* writes and syncs so far */
    uint64_t cut_after;      /* takes the image when so many calls have been made; 0: never */
    bool cut;                /* the image has been taken */
    unsigned keep;           /* of 256 dirty blocks so many survive a cut */
    bool full;               /* fallocate fails with ENOSPC, so do writes past the end of a file */
    uint64_t fail_sync_at;   /* this fdatasync from now on fails and forgets its dirty pages, like Linux; 0: none */
    bool lazy;               /* no write-back by itself */
} memory_disk;

static memory_disk *disk;

static void disk_take_image(void) {
    for (int i = 0; i < 2; i++) {
        disk_file *f = &disk->file[i];
        memcpy(f->image, f->durable, f->durable_size);
        if (f->size > f->durable_size)
            memset(f->image + f->durable_size, 0, f->size - f->durable_size);
        f->image_size = (check_random(&disk->random) & 255) < disk->keep ? f->size : f->durable_size;
        for (size_t block = 0; block * DISK_BLOCK < f->size; block++) {
            if (f->dirty[block] && (check_random(&disk->random) & 255) < disk->keep)
                memcpy(f->image + block * DISK_BLOCK, f->cached + block * DISK_BLOCK, DISK_BLOCK);
        }
    }
    disk->cut = true;
}

/* The machine starts again with the image. */
static inline void disk_reboot(void) {
    for (int i = 0; i < 2; i++) {
        disk_file *f = &disk->file[i];
        memset(f->cached, 0, f->size);
        memcpy(f->cached, f->image, f->image_size);
        memcpy(f->durable, f->image, f->image_size);
        f->size = f->durable_size = f->image_size;
        memset(f->dirty, 0, sizeof f->dirty);
    }
    disk->cut = false;
    disk->cut_after = 0;
}

static void disk_count(void) {
    disk->calls++;
    if (!disk->cut && disk->cut_after != 0 && disk->calls >= disk->cut_after)
        disk_take_image();
}

static int disk_open(int dir, const char *path, int flags, unsigned mode) {
    (void)dir;
    (void)mode;
    int i = path[strlen(path) - 1] - 'a';
    CHECK(i == 0 || i == 1);
    if (!disk->file[i].exists && !(flags & O_CREAT))
        return -ENOENT;
    disk->file[i].exists = true;
    return DISK_FD + i;
}

static int disk_close(int fd) {
    CHECK(fd == DISK_FD || fd == DISK_FD + 1);
    return 0;
}

static int disk_stat(int fd, tl_stat *out) {
    *out = (tl_stat){.size_bytes = disk->file[fd - DISK_FD].size};
    return 0;
}

static int64_t disk_pread(int fd, void *to, size_t bytes, uint64_t from) {
    const disk_file *f = &disk->file[fd - DISK_FD];
    if (from >= f->size)
        return 0;
    size_t n = bytes < f->size - from ? bytes : (size_t)(f->size - from);
    memcpy(to, f->cached + from, n);
    return (int64_t)n;
}

static int64_t disk_pwrite(int fd, const void *from, size_t bytes, uint64_t to) {
    disk_file *f = &disk->file[fd - DISK_FD];
    CHECK(to + bytes <= DISK_BYTES);
    if (disk->full && to + bytes > f->size)
        return -ENOSPC;
    memcpy(f->cached + to, from, bytes);
    for (uint64_t block = to / DISK_BLOCK; block * DISK_BLOCK < to + bytes; block++)
        f->dirty[block] = 1;
    if (to + bytes > f->size)
        f->size = to + bytes;
    disk_count();
    if (!disk->lazy && (check_random(&disk->random) & 7) == 0) {
        for (size_t block = 0; block * DISK_BLOCK < f->size; block++) {
            if (f->dirty[block] && (check_random(&disk->random) & 1)) {
                memcpy(f->durable + block * DISK_BLOCK, f->cached + block * DISK_BLOCK, DISK_BLOCK);
                f->dirty[block] = 0;
            }
        }
    }
    return (int64_t)bytes;
}

static int disk_fdatasync(int fd) {
    disk_file *f = &disk->file[fd - DISK_FD];
    disk_count(); /* a cut here is a cut during the sync: any subset has arrived */
    if (disk->fail_sync_at != 0 && --disk->fail_sync_at == 0) {
        memset(f->dirty, 0, sizeof f->dirty);
        return -EIO;
    }
    for (size_t block = 0; block * DISK_BLOCK < f->size; block++) {
        if (f->dirty[block])
            memcpy(f->durable + block * DISK_BLOCK, f->cached + block * DISK_BLOCK, DISK_BLOCK);
    }
    memset(f->dirty, 0, sizeof f->dirty);
    f->durable_size = f->size;
    return 0;
}

static int disk_fsync(int fd) { return fd >= DISK_FD ? disk_fdatasync(fd) : 0; }

static int disk_ftruncate(int fd, uint64_t size_bytes) {
    disk_file *f = &disk->file[fd - DISK_FD];
    if (size_bytes < f->size)
        memset(f->cached + size_bytes, 0, f->size - size_bytes);
    f->size = size_bytes;
    return 0;
}

static int disk_fallocate(int fd, uint64_t from, uint64_t bytes) {
    disk_file *f = &disk->file[fd - DISK_FD];
    CHECK(from + bytes <= DISK_BYTES);
    if (disk->full)
        return -ENOSPC;
    if (from + bytes > f->size)
        f->size = from + bytes;
    return 0;
}

/* An empty disk behind tl_os. */
static void disk_install(uint64_t seed) {
    if (disk == NULL) {
        disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(disk != MAP_FAILED);
    }
    for (int i = 0; i < 2; i++) {
        disk_file *f = &disk->file[i];
        memset(f->cached, 0, f->size);
        memset(f->dirty, 0, sizeof f->dirty);
        f->exists = false;
        f->size = f->durable_size = f->image_size = 0;
    }
    disk->calls = disk->cut_after = disk->fail_sync_at = 0;
    disk->cut = disk->full = disk->lazy = false;
    disk->random = seed;
    disk->keep = 128;
    tl_os_table.open = disk_open;
    tl_os_table.close = disk_close;
    tl_os_table.stat = disk_stat;
    tl_os_table.pread = disk_pread;
    tl_os_table.pwrite = disk_pwrite;
    tl_os_table.fdatasync = disk_fdatasync;
    tl_os_table.fsync = disk_fsync;
    tl_os_table.ftruncate = disk_ftruncate;
    tl_os_table.fallocate = disk_fallocate;
}

#endif
