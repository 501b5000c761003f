/* What would a C program do by hand in tidelog's place?
 *
 * Compiled on demand by baselines.py and called through ctypes. Every loop takes the checksum as a function pointer
 * (google-crc32c's, or the core's), times itself with the monotonic clock and answers nanoseconds; a negative answer is
 * -errno. Each does the best C can do at its job: copies and checksums go by blocks that stay in the cache. */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define HAVE_CALLGRIND 1
#endif
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define BLOCK (64u << 10) /* copied, then checksummed while it is still in the second-level cache */
#define STEP (1u << 20)   /* populated at once */
#define CHUNK (64u << 20) /* allocated at once */

typedef uint32_t (*checksum)(uint32_t crc, const uint8_t *p, size_t n);

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- copying and checksumming --- */

static uint32_t sink;

static void copy_block(uint8_t *to, const uint8_t *from, size_t n, checksum crc, bool of_source) {
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t size = n - at < BLOCK ? n - at : BLOCK;
        if (of_source)
            sink = crc(sink, from + at, size);
        memcpy(to + at, from + at, size);
        if (!of_source)
            sink = crc(sink, to + at, size);
    }
}

/* memcpy and CRC-32C of what was copied (a writer), or of the source before it (a reader). */
int64_t bl_copy(uint8_t *to, const uint8_t *from, size_t n, checksum crc, int of_source) {
    int64_t start = now_ns();
    copy_block(to, from, n, crc, of_source != 0);
    return now_ns() - start;
}

int64_t bl_checksum(const uint8_t *from, size_t n, checksum crc, uint32_t *out) {
    int64_t start = now_ns();
    *out = crc(0, from, n);
    return now_ns() - start;
}

/* --- the sustained loop --- */

#define FILES 64

typedef struct flusher {
    int fds[FILES];
    atomic_int count, stop;
    int64_t interval_ns;
    int64_t syncs;
} flusher;

static void *flush_until_stopped(void *context) {
    flusher *f = context;
    int first = 0;
    int64_t next = now_ns() + f->interval_ns;
    while (!atomic_load(&f->stop)) {
        struct timespec slice = {0, 1000000};
        nanosleep(&slice, NULL);
        if (now_ns() < next)
            continue;
        next = now_ns() + f->interval_ns;
        int count = atomic_load(&f->count);
        for (int i = first; i < count; i++, f->syncs++)
            fdatasync(f->fds[i]);
        first = count - 1; /* the files before the last one are whole and synced now */
    }
    return NULL;
}

/* Appends `total` bytes in batches to files of `segment_bytes` in `directory`: populates, copies, checksums; a second
 * thread calls fdatasync every `interval_ns`. The clock stops when the last byte is copied; what is not synced then is
 * left to the caller, who does the same on the other side. */
int64_t bl_sustained(const char *directory, size_t total, size_t segment_bytes, const uint8_t *source,
                     size_t source_bytes, size_t batch, int64_t interval_ns, checksum crc) {
    flusher f = {.interval_ns = interval_ns};
    pthread_t thread;
    int64_t result = 0;
    uint8_t *map = MAP_FAILED;
    size_t done = 0, in_source = 0;
    if (batch == 0 || batch > source_bytes || (total + segment_bytes - 1) / segment_bytes > FILES)
        return -EINVAL;
    int64_t start = now_ns();
    if (pthread_create(&thread, NULL, flush_until_stopped, &f) != 0)
        return -EAGAIN;
    while (done < total && result == 0) {
        char path[4096];
        snprintf(path, sizeof path, "%s/baseline-%d", directory, atomic_load(&f.count));
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0) {
            result = -errno;
            break;
        }
        f.fds[atomic_load(&f.count)] = fd;
        atomic_fetch_add(&f.count, 1);
        map = mmap(NULL, segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            result = -errno;
            break;
        }
        size_t at = 0, allocated = 0, populated = 0;
        while (at + batch <= segment_bytes && done < total) {
            if (at + batch > allocated) {
                size_t more = segment_bytes - allocated < CHUNK ? segment_bytes - allocated : CHUNK;
                if (fallocate(fd, 0, (off_t)allocated, (off_t)more) != 0) {
                    result = -errno;
                    break;
                }
                allocated += more;
            }
            while (at + batch > populated) {
                size_t more = allocated - populated < STEP ? allocated - populated : STEP;
                if (madvise(map + populated, more, MADV_POPULATE_WRITE) != 0) {
                    result = -errno;
                    break;
                }
                populated += more;
            }
            if (result != 0)
                break;
            copy_block(map + at, source + in_source, batch, crc, false);
            at += batch;
            done += batch;
            in_source = in_source + 2 * batch > source_bytes ? 0 : in_source + batch;
        }
        munmap(map, segment_bytes);
        if (at == 0 && result == 0)
            result = -EINVAL;
    }
    if (result == 0)
        result = now_ns() - start;
    atomic_store(&f.stop, 1);
    pthread_join(thread, NULL);
    for (int i = 0; i < atomic_load(&f.count); i++)
        close(f.fds[i]);
    return result;
}

/* --- round trips: two words in a shared page, 64 bytes apart --- */

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void await(_Atomic uint32_t *word, uint32_t wanted, bool spin) {
    for (;;) {
        uint32_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (seen == wanted)
            return;
        if (spin)
            pause_cpu();
        else
            futex_wait(word, seen);
    }
}

static void post(_Atomic uint32_t *word, uint32_t value, bool spin) {
    atomic_store_explicit(word, value, memory_order_release);
    if (!spin)
        futex_wake(word);
}

/* Both sides are called with the same `first` and `count`; the numbers go on from call to call. */
int64_t bl_ping(uint8_t *page, uint32_t first, uint32_t count, int spin) {
    _Atomic uint32_t *there = (_Atomic uint32_t *)(void *)page, *back = (_Atomic uint32_t *)(void *)(page + 64);
    int64_t start = now_ns();
    for (uint32_t i = first; i != first + count; i++) {
        post(there, i, spin != 0);
        await(back, i, spin != 0);
    }
    return now_ns() - start;
}

int64_t bl_pong(uint8_t *page, uint32_t first, uint32_t count, int spin) {
    _Atomic uint32_t *there = (_Atomic uint32_t *)(void *)page, *back = (_Atomic uint32_t *)(void *)(page + 64);
    for (uint32_t i = first; i != first + count; i++) {
        await(there, i, spin != 0);
        post(back, i, spin != 0);
    }
    return 0;
}

/* --- synced writes --- */

int64_t bl_pwrite_synced(int fd, int64_t at, const uint8_t *bytes, size_t n, int count) {
    int64_t start = now_ns();
    for (int i = 0; i < count; i++, at += (int64_t)n)
        if (pwrite(fd, bytes, n, at) != (ssize_t)n || fdatasync(fd) != 0)
            return -errno;
    return now_ns() - start;
}

/* One small write and fsync: the unit in which the cost of opening is told. */
int64_t bl_fsync(int fd, const uint8_t *bytes, size_t n) {
    int64_t start = now_ns();
    if (pwrite(fd, bytes, n, 0) != (ssize_t)n || fsync(fd) != 0)
        return -errno;
    return now_ns() - start;
}

/* --- the hiccup meter: how late does a sleeping thread of this process wake up? --- */

#define HICCUPS 4096

static struct {
    pthread_t thread;
    atomic_int stop;
    int64_t period_ns, note_ns, worst_ns;
    int64_t ends[HICCUPS], late[HICCUPS];
    int count;
} meter;

static void *measure_hiccups(void *context) {
    (void)context;
    while (!atomic_load(&meter.stop)) {
        struct timespec period = {0, meter.period_ns};
        int64_t start = now_ns();
        nanosleep(&period, NULL);
        int64_t end = now_ns(), late = end - start - meter.period_ns;
        if (late > meter.worst_ns)
            meter.worst_ns = late;
        if (late >= meter.note_ns && meter.count < HICCUPS) {
            meter.ends[meter.count] = end;
            meter.late[meter.count++] = late;
        }
    }
    return NULL;
}

int bl_meter_start(int64_t period_ns, int64_t note_ns) {
    meter.period_ns = period_ns;
    meter.note_ns = note_ns;
    meter.worst_ns = meter.count = 0;
    atomic_store(&meter.stop, 0);
    return -pthread_create(&meter.thread, NULL, measure_hiccups, NULL);
}

/* Copies up to `room` noted hiccups and answers their number. */
int bl_meter_stop(int64_t *ends, int64_t *late, int room, int64_t *worst_ns) {
    atomic_store(&meter.stop, 1);
    pthread_join(meter.thread, NULL);
    int count = meter.count < room ? meter.count : room;
    memcpy(ends, meter.ends, (size_t)count * sizeof *ends);
    memcpy(late, meter.late, (size_t)count * sizeof *late);
    *worst_ns = meter.worst_ns;
    return count;
}

/* --- marks for callgrind; 0: built without valgrind's headers --- */

int bl_callgrind(int what, const char *name) {
#ifdef HAVE_CALLGRIND
    if (what == 0)
        CALLGRIND_START_INSTRUMENTATION;
    else if (what == 1)
        CALLGRIND_ZERO_STATS;
    else if (what == 2)
        CALLGRIND_DUMP_STATS_AT(name);
    else
        CALLGRIND_STOP_INSTRUMENTATION;
    return 1;
#else
    (void)what, (void)name;
    return 0;
#endif
}
