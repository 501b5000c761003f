/* How is the `offsets` file opened, how does it grow, and are the fixed parts of a slot intact?
 *
 * Imports offsets_file.h, crc32c.h, os.h. Any thread; growing wants the catalogue lock and the handle's mutex.
 *
 * The whole virtual size is mapped once, far past the end of the file: a file that another process has grown is
 * readable here without a new mapping, and slots never move. What keeps a load inside the file is `seen`: a published
 * count is compared with the file's size before any slot below it is touched. */
#include "offsets_file.h"

#include "tidelog/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CHUNK_BYTES ((uint64_t)64 << 10)
#define LARGEST_CHUNK_BYTES ((uint64_t)4 << 20)
#define SPARE_BYTES CHUNK_BYTES /* always allocated ahead, so that some new slots are possible on a full disk */

#define RUN_REPAIR "close the store everywhere and run tidelog check --repair"

static const uint8_t file_magic[8] = {'T', 'L', 'O', 'F', 'F', 'S', 'E', 'T'};

int offsets_damaged(tl_error *err, uint32_t slot, const char *what) {
    return tl_fail(err, TL_ECORRUPT, what, TL_OFFSETS_FILE, offsets_position(slot));
}

static uint32_t header_crc(const file_header *header) {
    return tl_crc32c(0, header, offsetof(file_header, crc));
}

static uint32_t slots_in(uint64_t file_bytes) {
    if (file_bytes < OFFSETS_HEADER_BYTES)
        return 0;
    uint64_t slots = (file_bytes - OFFSETS_HEADER_BYTES) / OFFSETS_SLOT_BYTES;
    return slots < TL_OFFSETS_MAX_SLOTS ? (uint32_t)slots : TL_OFFSETS_MAX_SLOTS;
}

static int file_size(const tl_offsets *t, uint64_t *bytes, tl_error *err) {
    tl_stat st;
    int rc = tl_os->stat(t->fd, &st);
    if (rc < 0)
        return tl_fail_sys(err, rc, "cannot read the size of the offset table", TL_OFFSETS_FILE);
    if (!S_ISREG(st.mode))
        return tl_fail(err, TL_ECORRUPT,
                       "the offset table is not a regular file; move it away and open the store again",
                       TL_OFFSETS_FILE, -1);
    *bytes = st.size_bytes;
    return TL_OK;
}

/* The published count, safe to use: every slot below it lies inside the file. */
int offsets_count(const tl_offsets *t, uint32_t *count, tl_error *err) {
    tl_offsets *own = (tl_offsets *)t; /* what this process has learned is no part of the table's value */
    uint64_t word = __atomic_load_n(&offsets_header(t)->count, __ATOMIC_ACQUIRE);
    uint32_t n = (uint32_t)word;
    if (!guard_ok(word) || n > TL_OFFSETS_MAX_SLOTS)
        return tl_fail(err, TL_ECORRUPT,
                       "the slot count of the offset table is damaged; " RUN_REPAIR,
                       TL_OFFSETS_FILE, (int64_t)offsetof(file_header, count));
    if (n > __atomic_load_n(&t->seen, __ATOMIC_RELAXED)) {
        if (n > __atomic_load_n(&t->room, __ATOMIC_RELAXED)) {
            uint64_t bytes;
            int rc = file_size(t, &bytes, err);
            if (rc < 0)
                return rc;
            if (n > slots_in(bytes))
                return tl_fail(err, TL_ECORRUPT,
                               "the offset table ends before its last slot; " RUN_REPAIR,
                               TL_OFFSETS_FILE, (int64_t)bytes);
            __atomic_store_n(&own->room, slots_in(bytes), __ATOMIC_RELAXED);
        }
        __atomic_store_n(&own->seen, n, __ATOMIC_RELEASE);
    }
    *count = n;
    return TL_OK;
}

/* Real blocks for [from, to), which nobody uses yet. Without fallocate zeroes are written: a hole would be a SIGBUS on
 * a full disk. */
static int allocate(tl_offsets *t, uint64_t from, uint64_t to) {
    int rc = tl_os->fallocate(t->fd, from, to - from);
    if (rc != -EOPNOTSUPP)
        return rc;
    static const uint8_t zeroes[4096];
    for (uint64_t at = from; at < to;) {
        size_t n = to - at < sizeof zeroes ? (size_t)(to - at) : sizeof zeroes;
        int64_t written = tl_os->pwrite(t->fd, zeroes, n, at);
        if (written < 0)
            return (int)written;
        at += n;
    }
    return 0;
}

/* Room for `slots` more behind the published ones, and a spare chunk behind those. Without space for the spare the call
 * succeeds as long as the slots themselves fit. */
int offsets_make_room(tl_offsets *t, uint32_t slots, uint32_t *first, tl_error *err) {
    if (!t->writable)
        return tl_fail(err, TL_EINVAL, "the offset table was opened read-only", TL_OFFSETS_FILE, -1);
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    if (slots > TL_OFFSETS_MAX_SLOTS - count)
        return tl_fail(err, TL_EFULL,
                       "the offset table is full; delete unused groups, close the store everywhere, open it again",
                       TL_OFFSETS_FILE, offsets_position(count));
    *first = count;
    uint64_t used = OFFSETS_HEADER_BYTES + ((uint64_t)count + slots) * OFFSETS_SLOT_BYTES;
    uint64_t wanted = used + SPARE_BYTES < OFFSETS_MAP_BYTES ? used + SPARE_BYTES : OFFSETS_MAP_BYTES;
    if (slots_in(wanted) <= __atomic_load_n(&t->room, __ATOMIC_RELAXED))
        return TL_OK;
    uint64_t size;
    rc = file_size(t, &size, err);
    if (rc < 0)
        return rc;
    int failed = 0;
    if (size < wanted) {
        uint64_t next = size;
        while (next < wanted) {
            uint64_t chunk = next < LARGEST_CHUNK_BYTES ? next : LARGEST_CHUNK_BYTES;
            if (chunk < CHUNK_BYTES)
                chunk = CHUNK_BYTES;
            next = (next + chunk) & ~(CHUNK_BYTES - 1);
        }
        if (next > OFFSETS_MAP_BYTES)
            next = OFFSETS_MAP_BYTES;
        TL_POINT("offsets.grow.before");
        failed = allocate(t, size, next);
        TL_POINT("offsets.grow.after");
        rc = file_size(t, &size, err); /* a call that failed half way may have grown the file a little */
        if (rc < 0)
            return rc;
    }
    __atomic_store_n(&t->room, slots_in(size), __ATOMIC_RELAXED);
    if (size >= used)
        return TL_OK;
    return tl_fail_sys(err, failed, "no room for a new slot in the offset table; free disk space and try again",
                       TL_OFFSETS_FILE);
}

void offsets_publish(tl_offsets *t, uint32_t count) {
    TL_POINT("offsets.slot.filled");
    TL_YIELD();
    __atomic_store_n(&offsets_header(t)->count, guarded(count), __ATOMIC_RELEASE);
    TL_POINT("offsets.slot.published");
}

/* --- the fixed parts of slots --- */

uint32_t offset_crc(uint32_t index, const offset_slot *slot) {
    return tl_crc32c(tl_crc32c(0, &index, sizeof index), slot, offsetof(offset_slot, crc));
}

uint32_t group_crc(uint32_t index, uint32_t name_bytes, const void *name) {
    uint32_t head[3] = {index, KIND_GROUP, name_bytes};
    return tl_crc32c(tl_crc32c(0, head, sizeof head), name, name_bytes);
}

uint32_t overflow_crc(uint32_t index, const overflow_slot *slot) {
    return tl_crc32c(tl_crc32c(0, &index, sizeof index), slot, offsetof(overflow_slot, crc));
}

void overflow_fill(overflow_slot *slot, uint32_t index, uint32_t of, uint32_t part) {
    memset(slot, 0, sizeof *slot);
    slot->kind = KIND_OVERFLOW;
    slot->of = of;
    slot->part = part;
    slot->crc = overflow_crc(index, slot);
}

bool overflow_ok(const tl_offsets *t, uint32_t index, uint32_t of, uint32_t part, uint32_t count) {
    if (index >= count)
        return false;
    overflow_slot head;
    memcpy(&head, offsets_at(t, index), offsetof(overflow_slot, bytes));
    return head.kind == KIND_OVERFLOW && head.of == of && head.part == part && head.crc == overflow_crc(index, &head);
}

int group_load(const tl_offsets *t, uint32_t number, uint32_t count, uint8_t *name, uint32_t *bytes, uint32_t *state,
               tl_error *err) {
    if (number >= count)
        return tl_fail(err, TL_EINVAL, "no such group number", TL_OFFSETS_FILE, -1);
    const group_slot *slot = offsets_at(t, number);
    group_slot head;
    memcpy(&head, slot, offsetof(group_slot, state));
    uint32_t n = head.name_bytes;
    if (head.kind == KIND_OFFSET || head.kind == KIND_OVERFLOW)
        return tl_fail(err, TL_EINVAL, "this number belongs to no group", TL_OFFSETS_FILE, offsets_position(number));
    if (head.kind != KIND_GROUP || n == 0 || n > TL_OFFSETS_MAX_GROUP_BYTES)
        return offsets_damaged(err, number, "a slot of the offset table is damaged; run tidelog check");
    uint32_t inline_bytes = n < GROUP_INLINE_BYTES ? n : GROUP_INLINE_BYTES;
    memcpy(name, slot->name, inline_bytes);
    uint32_t part = 0;
    for (uint32_t at = inline_bytes; at < n; part++) {
        uint32_t index = number + 1 + part, take = n - at < OVERFLOW_BYTES ? n - at : OVERFLOW_BYTES;
        if (!overflow_ok(t, index, number, part, count))
            return offsets_damaged(err, index, "the rest of a group name is damaged; run tidelog check");
        memcpy(name + at, ((const overflow_slot *)offsets_at(t, index))->bytes, take);
        at += take;
    }
    if (head.crc != group_crc(number, n, name))
        return offsets_damaged(err, number, "a group in the offset table has a wrong checksum; run tidelog check");
    *state = __atomic_load_n(&slot->state, __ATOMIC_RELAXED);
    if (*state != STATE_LIVE && *state != STATE_FORGOTTEN)
        return offsets_damaged(err, number, "the state of a group in the offset table is damaged; run tidelog check");
    *bytes = n;
    return TL_OK;
}

int offset_load(const tl_offsets *t, uint32_t slot, uint32_t count, offset_slot *out, tl_error *err) {
    if (slot >= count)
        return tl_fail(err, TL_EINVAL, "no such slot number", TL_OFFSETS_FILE, -1);
    const offset_slot *at = offsets_at(t, slot);
    memcpy(out, at, offsetof(offset_slot, word));
    if (out->kind == KIND_GROUP || out->kind == KIND_OVERFLOW)
        return tl_fail(err, TL_EINVAL, "this number belongs to no offset slot", TL_OFFSETS_FILE,
                       offsets_position(slot));
    /* A group is older than its slots, so its number is smaller. */
    if (out->kind != KIND_OFFSET || out->crc != offset_crc(slot, out) || out->group >= slot)
        return offsets_damaged(err, slot, "a slot of the offset table is damaged; run tidelog check");
    out->state = __atomic_load_n(&at->state, __ATOMIC_RELAXED);
    if (out->state != STATE_LIVE && out->state != STATE_FORGOTTEN)
        return offsets_damaged(err, slot, "the state of a slot in the offset table is damaged; run tidelog check");
    return TL_OK;
}

/* --- open and close --- */

static bool has_wide_swap(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_CMPXCHG16B) != 0;
#else
    return true;
#endif
}

/* Keeps what the file already has on disk: giving blocks back on a full disk could lose them for ever. */
static int prepare_file(tl_offsets *t, uint64_t size, tl_error *err) {
    int rc;
    if (size > OFFSETS_MAP_BYTES) {
        size = OFFSETS_MAP_BYTES;
        rc = tl_os->ftruncate(t->fd, size);
        if (rc < 0)
            return tl_fail_sys(err, rc, "cannot shorten the offset table", TL_OFFSETS_FILE);
    }
    uint64_t least = CHUNK_BYTES + SPARE_BYTES;
    rc = allocate(t, 0, size > least ? size : least);
    if (rc < 0)
        return tl_fail_sys(err, rc, "cannot allocate the offset table; free disk space and open the store again",
                           TL_OFFSETS_FILE);
    return TL_OK;
}

static void write_header(tl_offsets *t) {
    file_header *header = offsets_header(t);
    __atomic_store_n(&header->count, guarded(0), __ATOMIC_RELEASE);
    TL_POINT("offsets.reset.emptied");
    file_header fresh = {.version = OFFSETS_VERSION};
    fresh.slot_bytes = OFFSETS_SLOT_BYTES;
    fresh.maximum_slots = TL_OFFSETS_MAX_SLOTS;
    memcpy(fresh.magic, file_magic, sizeof fresh.magic);
    fresh.crc = header_crc(&fresh);
    fresh.count = guarded(0);
    memset(t->map + sizeof fresh, 0, OFFSETS_HEADER_BYTES - sizeof fresh);
    memcpy(header, &fresh, offsetof(file_header, count));
    TL_POINT("offsets.reset.done");
}

static int check_header(tl_offsets *t, tl_error *err) {
    uint64_t size;
    int rc = file_size(t, &size, err);
    if (rc < 0)
        return rc;
    if (size < OFFSETS_HEADER_BYTES)
        return tl_fail(err, TL_ECORRUPT,
                       "the offset table ends inside its header; " RUN_REPAIR,
                       TL_OFFSETS_FILE, (int64_t)size);
    __atomic_store_n(&t->room, slots_in(size), __ATOMIC_RELAXED);
    file_header header;
    memcpy(&header, t->map, offsetof(file_header, count));
    if (memcmp(header.magic, file_magic, sizeof file_magic) != 0 || header.crc != header_crc(&header))
        return tl_fail(err, TL_ECORRUPT,
                       "the header of the offset table is damaged; " RUN_REPAIR,
                       TL_OFFSETS_FILE, 0);
    if (header.version != OFFSETS_VERSION || header.slot_bytes != OFFSETS_SLOT_BYTES ||
        header.maximum_slots != TL_OFFSETS_MAX_SLOTS)
        return tl_fail(err, TL_EUNSUPPORTED,
                       "the offset table has another format version; open the store with the tidelog that wrote it",
                       TL_OFFSETS_FILE, (int64_t)offsetof(file_header, version));
    uint32_t count;
    return offsets_count(t, &count, err);
}

int tl_offsets_open(int dir, int mode, tl_offsets **out, tl_error *err) {
    *out = NULL;
    if (mode != TL_OFFSETS_OPEN && mode != TL_OFFSETS_RESET && mode != TL_OFFSETS_READ_ONLY)
        return tl_fail(err, TL_EINVAL, "unknown way of opening the offset table", TL_OFFSETS_FILE, -1);
    if (!has_wide_swap())
        return tl_fail(err, TL_EUNSUPPORTED,
                       "this CPU has no 16-byte compare-and-swap (cmpxchg16b), which offset slots need",
                       TL_OFFSETS_FILE, -1);
    tl_offsets *t = tl_calloc(1, sizeof *t);
    if (t == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the handle of the offset table", TL_OFFSETS_FILE, -1);
    t->writable = mode != TL_OFFSETS_READ_ONLY;
    t->damaged = OFFSETS_NO_SLOT;
    pthread_mutex_init(&t->mutex, NULL);
    /* O_NONBLOCK: a pipe that stands in the file's place must not hang us. */
    int flags = (t->writable ? O_RDWR : O_RDONLY) | (mode == TL_OFFSETS_RESET ? O_CREAT : 0) | O_NONBLOCK;
    int rc = t->fd = tl_os->open(dir, TL_OFFSETS_FILE, flags, 0600);
    if (rc < 0) {
        rc = rc == -ENOENT ? tl_fail(err, TL_ENOTFOUND, "the store has no offset table", TL_OFFSETS_FILE, -1)
                           : tl_fail_sys(err, rc, "cannot open the offset table", TL_OFFSETS_FILE);
        goto failed;
    }
    uint64_t size;
    rc = file_size(t, &size, err); /* also refuses what is no file before it is mapped */
    if (rc < 0)
        goto failed;
    rc = tl_os->random(&t->seed, sizeof t->seed);
    if (rc < 0) {
        rc = tl_fail_sys(err, rc, "the kernel gives no random bytes", "/dev/urandom");
        goto failed;
    }
    if (mode == TL_OFFSETS_RESET) {
        rc = prepare_file(t, size, err);
        if (rc < 0)
            goto failed;
    }
    void *map = NULL;
    rc = tl_os->map(t->fd, 0, OFFSETS_MAP_BYTES, t->writable, &map);
    if (rc < 0) {
        rc = tl_fail_sys(err, rc, "cannot map the offset table", TL_OFFSETS_FILE);
        goto failed;
    }
    t->map = map;
    if (mode == TL_OFFSETS_RESET)
        write_header(t);
    rc = check_header(t, err);
    if (rc < 0)
        goto failed;
    *out = t;
    return TL_OK;
failed:
    tl_offsets_close(t);
    return rc;
}

void tl_offsets_close(tl_offsets *t) {
    if (t == NULL)
        return;
    if (t->map != NULL)
        tl_os->unmap(t->map, OFFSETS_MAP_BYTES);
    if (t->fd >= 0)
        tl_os->close(t->fd);
    for (offsets_index *index = t->index, *older; index != NULL; index = older) {
        older = index->older;
        tl_os->free(index);
    }
    pthread_mutex_destroy(&t->mutex);
    tl_os->free(t);
}
