/* How are sampled keys counted in a file that all senders of a channel share?
 *
 * Imports handles.h, guard.h, skew.h. Callable from any thread of any process; layout in docs/format.md. The file is a
 * statistic of one boot: nobody waits for it, nothing is lost with it, and whatever stands in it is only ever taken for
 * numbers that are clipped when they are read. */
#include "tidelog/skew.h"

#include "handles.h"
#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define MAGIC 0x3177656b736c6474u /* "tdlskew1" */
#define HASHED_BYTES 512u         /* of each end of a long key */
#define LOOKS 3

typedef struct counter {
    uint64_t hash;      /* of the whole key; 0: free. Whoever changes it by compare-and-swap owns the next stores */
    uint32_t count, error;
    uint32_t partition, key_bytes;
    uint32_t key_of;    /* low half of the hash whose key stands in `key`, stored after it */
    uint32_t reserved;
    uint8_t key[TL_SKEW_KEY_BYTES];
} counter;

typedef struct counters {
    uint64_t magic;
    uint64_t boot[2];
    uint64_t id;        /* of the partition: never reused */
    uint64_t seed;      /* of the hash */
    int64_t since_ms;
    uint32_t samples, keyless;
    uint32_t halvings_begun, halvings_ended;
    uint64_t reserved[8];
    counter counter[TL_SKEW_KEYS];
} counters;

_Static_assert(sizeof(counter) == 64, "a counter is a cache line");
_Static_assert(offsetof(counters, counter) == 128, "the header is two cache lines");

struct tl_skew {
    counters *map;
    uint64_t seed;      /* our own copy: another process may scribble over the map */
};

static uint64_t hash_bytes(uint64_t hash, const uint8_t *at, size_t bytes) {
    uint64_t last = 0;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        hash = (hash ^ tl_le64(at)) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    if (bytes > 0)
        memcpy(&last, at, bytes);
    hash = (hash ^ last) * 0xd6e8feb86659fd93u;
    return hash ^ hash >> 32;
}

/* Never 0. Of a long key both ends and the length count: hashing 256 MiB for a statistic would be felt. */
static uint64_t hash_key(uint64_t seed, const uint8_t *key, size_t bytes) {
    uint64_t hash = seed ^ bytes * 0xff51afd7ed558ccdu;
    if (bytes > 2 * HASHED_BYTES) {
        hash = hash_bytes(hash, key, HASHED_BYTES);
        hash = hash_bytes(hash, key + bytes - HASHED_BYTES, HASHED_BYTES);
    } else {
        hash = hash_bytes(hash, key, bytes);
    }
    hash *= 0xff51afd7ed558ccdu;
    hash ^= hash >> 33;
    return hash != 0 ? hash : 1;
}

/* --- the file --- */

static void path_of(const tl_partition *first, const char *suffix, char out[360]) {
    snprintf(out, 360, "%s/" TL_SKEW_FILE "%s", first->cold->directory, suffix);
}

static bool is_current(const counters *c, const tl_partition *first) {
    return c->magic == MAGIC && c->id == first->id && c->boot[0] == first->store->identity.boot[0] &&
           c->boot[1] == first->store->identity.boot[1];
}

/* Under the catalogue's inner lock, so that two who find none do not count into two files, and nobody makes the directory
 * of a channel anew that is being dropped. Partition 0 may have no directory yet: it gets one with its first message. */
static int create(tl_partition *first, tl_error *err) {
    tl_store *store = first->store;
    char path[360], made[360];
    path_of(first, "", path);
    path_of(first, ".new", made);
    counters head;
    memset(&head, 0, offsetof(counters, counter));
    head.magic = MAGIC;
    memcpy(head.boot, store->identity.boot, sizeof head.boot);
    head.id = first->id;
    head.since_ms = tl_os->now_ms();
    (void)tl_os->random(&head.seed, sizeof head.seed);
    if (__atomic_load_n(&first->hot->id, __ATOMIC_RELAXED) != first->id)
        return tl_fail(err, TL_EDROPPED, "the channel was dropped", first->cold->directory, -1);
    int fd = tl_os->open(store->dir, made, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd == -ENOENT) {
        (void)tl_os->mkdir(store->dir, first->cold->directory, TL_DIRECTORY_MODE); /* the next open says how it went */
        fd = tl_os->open(store->dir, made, O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    }
    if (fd < 0)
        return tl_fail_sys(err, fd, "the file of sampled keys cannot be created", made);
    int status = tl_os->fallocate(fd, 0, sizeof(counters));
    if (status == 0) {
        int64_t written = tl_os->pwrite(fd, &head, offsetof(counters, counter), 0);
        status = written < 0 ? (int)written : 0;
    }
    tl_os->close(fd);
    if (status == 0)
        status = tl_os->rename(store->dir, made, store->dir, path);
    if (status < 0) {
        (void)tl_os->unlink(store->dir, made, false);
        return tl_fail_sys(err, status, "the file of sampled keys cannot be created", made);
    }
    return TL_OK;
}

/* Maps the file if it is of this boot and of this partition; TL_ENOTFOUND otherwise. */
static int map_current(tl_partition *first, counters **out, tl_error *err) {
    char path[360];
    path_of(first, "", path);
    counters head;
    void *at = NULL;
    tl_stat stat;
    int fd = tl_os->open(first->store->dir, path, O_RDWR, 0);
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "no keys were sampled yet", path, -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the file of sampled keys cannot be opened", path);
    int status = tl_os->stat(fd, &stat);
    if (status == 0 && stat.size_bytes < sizeof(counters))
        status = TL_ENOTFOUND;
    if (status == 0) {
        int64_t got = tl_os->pread(fd, &head, offsetof(counters, counter), 0);
        if (got < 0)
            status = (int)got;
        else if ((size_t)got < offsetof(counters, counter) || !is_current(&head, first))
            status = TL_ENOTFOUND;
    }
    if (status == 0)
        status = tl_os->map(fd, 0, sizeof(counters), true, &at);
    tl_os->close(fd);
    if (status == TL_ENOTFOUND)
        return tl_fail(err, TL_ENOTFOUND, "the file of sampled keys is of another boot", path, -1);
    if (status < 0)
        return tl_fail_sys(err, status, "the file of sampled keys cannot be mapped", path);
    *out = at;
    return TL_OK;
}

int tl_skew_open(tl_partition *first, tl_skew **out, tl_error *err) {
    tl_store *store = first->store;
    counters *map = NULL;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    tl_skew *skew = tl_calloc(1, sizeof *skew);
    if (skew == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for sampled keys", "", -1);
    int status = map_current(first, &map, err);
    if (status == TL_ENOTFOUND) {
        if (!tl_lock_try(&store->header->catalogue_lock, store->me)) {
            status = tl_fail(err, TL_EAGAIN, "the catalogue is locked", "", -1);
        } else {
            status = map_current(first, &map, err); /* somebody may have made it since */
            if (status == TL_ENOTFOUND && (status = create(first, err)) == TL_OK)
                status = map_current(first, &map, err);
            tl_lock_release(&store->header->catalogue_lock, store->me);
        }
    }
    if (status < 0) {
        tl_os->free(skew);
        return status;
    }
    tl_guard guard;
    TL_GUARDED(guard) { skew->seed = map->seed; }
    TL_GUARD_CAUGHT(guard) { skew->seed = 0; }
    skew->map = map;
    *out = skew;
    return TL_OK;
}

void tl_skew_close(tl_skew *skew) {
    if (skew == NULL)
        return;
    tl_os->unmap(skew->map, sizeof(counters));
    tl_os->free(skew);
}

/* --- counting --- */

static void name_counter(counter *c, uint64_t hash, const uint8_t *key, size_t key_bytes) {
    (void)__atomic_exchange_n(&c->key_of, ~(uint32_t)hash, __ATOMIC_ACQ_REL); /* nothing below moves before it */
    __atomic_store_n(&c->key_bytes, key_bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)key_bytes, __ATOMIC_RELAXED);
    memcpy(c->key, key, key_bytes < TL_SKEW_KEY_BYTES ? key_bytes : TL_SKEW_KEY_BYTES);
    __atomic_store_n(&c->key_of, (uint32_t)hash, __ATOMIC_RELEASE);
}

static void count_key(counters *map, uint64_t hash, const uint8_t *key, size_t key_bytes, uint32_t partition) {
    counter *set = map->counter + (hash >> 60) * TL_SKEW_WAYS, *least = set;
    uint64_t least_hash = 0;
    uint32_t fewest = UINT32_MAX;
    for (counter *c = set; c < set + TL_SKEW_WAYS; c++) {
        uint64_t seen = __atomic_load_n(&c->hash, __ATOMIC_RELAXED);
        if (seen == hash) {
            __atomic_fetch_add(&c->count, 1, __ATOMIC_RELAXED);
            __atomic_store_n(&c->partition, partition, __ATOMIC_RELAXED);
            if (TL_UNLIKELY(__atomic_load_n(&c->key_of, __ATOMIC_RELAXED) != (uint32_t)hash))
                name_counter(c, hash, key, key_bytes); /* who took this counter died before it wrote the key */
            return;
        }
        uint32_t count = seen == 0 ? 0 : __atomic_load_n(&c->count, __ATOMIC_RELAXED);
        if (count < fewest) {
            fewest = count;
            least = c;
            least_hash = seen;
        }
    }
    if (!__atomic_compare_exchange_n(&least->hash, &least_hash, hash, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&least->error, fewest, __ATOMIC_RELAXED);
    __atomic_fetch_add(&least->count, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&least->partition, partition, __ATOMIC_RELAXED);
    name_counter(least, hash, key, key_bytes);
}

/* By subtraction, so that what others add meanwhile is not lost. Halves are taken off downwards: an error stays an upper
 * bound. A process that dies in here leaves some counters twice as large as others, until the next halving. */
static void halve(uint32_t *word) {
    __atomic_fetch_sub(word, __atomic_load_n(word, __ATOMIC_RELAXED) / 2, __ATOMIC_RELAXED);
}

static void halve_all(counters *map, uint32_t samples) {
    if (!__atomic_compare_exchange_n(&map->samples, &samples, samples - samples / 2, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED))
        return; /* another sample came meanwhile, and its sender does it */
    uint32_t begun = __atomic_add_fetch(&map->halvings_begun, 1, __ATOMIC_ACQ_REL);
    halve(&map->keyless);
    for (uint32_t i = 0; i < TL_SKEW_KEYS; i++) {
        halve(&map->counter[i].count);
        halve(&map->counter[i].error);
    }
    __atomic_store_n(&map->halvings_ended, begun, __ATOMIC_RELEASE);
}

int tl_skew_note(tl_skew *skew, const uint8_t *key, size_t key_bytes, uint32_t partition) {
    counters *map = skew->map;
    volatile bool fine = true;
    tl_guard guard;
    TL_GUARDED(guard) {
        uint32_t samples = __atomic_add_fetch(&map->samples, 1, __ATOMIC_RELAXED);
        if (key == NULL)
            __atomic_fetch_add(&map->keyless, 1, __ATOMIC_RELAXED);
        else
            count_key(map, hash_key(skew->seed, key, key_bytes), key, key_bytes, partition);
        if (TL_UNLIKELY(samples >= TL_SKEW_WINDOW))
            halve_all(map, samples);
    }
    TL_GUARD_CAUGHT(guard) { fine = false; }
    return fine ? TL_OK : TL_EBUS;
}

int tl_skew_top(tl_skew *skew, uint32_t *certain, uint32_t *samples) {
    counters *map = skew->map;
    volatile uint32_t all = 0, most = 0;
    volatile bool fine = true;
    tl_guard guard;
    TL_GUARDED(guard) {
        uint32_t best = 0;
        for (uint32_t i = 0; i < TL_SKEW_KEYS; i++) {
            uint32_t error = __atomic_load_n(&map->counter[i].error, __ATOMIC_RELAXED);
            uint32_t count = __atomic_load_n(&map->counter[i].count, __ATOMIC_RELAXED);
            if (count > error && count - error > best)
                best = count - error;
        }
        all = __atomic_load_n(&map->samples, __ATOMIC_RELAXED);
        most = best;
    }
    TL_GUARD_CAUGHT(guard) { fine = false; }
    *samples = all;
    *certain = most < all ? most : all;
    return fine ? TL_OK : TL_EBUS;
}

/* --- looking --- */

/* Whether `c` names a key, and nothing is half written. */
static bool names_its_key(const counters *from, const counter *c) {
    if (c->hash == 0 || c->key_of != (uint32_t)c->hash || c->count == 0)
        return false;
    return c->key_bytes > TL_SKEW_KEY_BYTES || hash_key(from->seed, c->key, c->key_bytes) == c->hash;
}

static void take_view(const counters *from, tl_skew_view *out) {
    out->samples = from->samples;
    out->keyless = from->keyless < from->samples ? from->keyless : from->samples;
    out->since_ms = from->since_ms;
    out->keys = 0;
    for (uint32_t i = 0; i < TL_SKEW_KEYS; i++) {
        const counter *c = from->counter + i;
        if (!names_its_key(from, c))
            continue;
        tl_skew_key *key = out->key + out->keys++;
        key->count = c->count < out->samples ? c->count : out->samples;
        key->error = c->error < key->count ? c->error : key->count;
        key->partition = c->partition;
        key->key_bytes = c->key_bytes;
        memcpy(key->key, c->key, sizeof key->key);
    }
}

int tl_skew_look(tl_partition *first, tl_skew_view *out, tl_error *err) {
    char path[360];
    path_of(first, "", path);
    if (!tl_store_usable(first->store))
        return tl_store_refuse(first->store, err);
    counters *copy = tl_calloc(1, sizeof *copy);
    if (copy == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for sampled keys", path, -1);
    int fd = tl_os->open(first->store->dir, path, O_RDONLY, 0);
    int status = TL_OK;
    if (fd == -ENOENT)
        status = tl_fail(err, TL_ENOTFOUND, "no keys were sampled yet", path, -1);
    else if (fd < 0)
        status = tl_fail_sys(err, fd, "the file of sampled keys cannot be opened", path);
    for (int i = 0; status == TL_OK && i < LOOKS; i++) {
        int64_t got = tl_os->pread(fd, copy, sizeof *copy, 0);
        if (got < 0)
            status = tl_fail_sys(err, (int)got, "the file of sampled keys cannot be read", path);
        else if ((size_t)got < sizeof *copy || !is_current(copy, first))
            status = tl_fail(err, TL_ENOTFOUND, "the file of sampled keys is of another boot", path, -1);
        else if (copy->halvings_begun == copy->halvings_ended)
            break; /* else somebody is halving: look again, and take the last look as it is */
    }
    if (fd >= 0)
        tl_os->close(fd);
    if (status == TL_OK)
        take_view(copy, out);
    tl_os->free(copy);
    return status;
}
