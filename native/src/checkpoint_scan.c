/* Which bytes of a checkpoint file are whole, and what do they say together?
 *
 * Imports checkpoint_scan.h, crc32c.h, os.h. Callable from any thread: everything is the caller's. Bytes are hostile:
 * a file is read into memory once, sizes are bounded by what was read, and hashing is seeded so that nobody who may
 * choose keys can choose collisions. */
#include "checkpoint_scan.h"

#include "tidelog/crc32c.h"
#include "tidelog/os.h"

#include <stdio.h>

#define FORMAT_VERSION 1u
#define POSITIONS_END ((uint64_t)UINT32_MAX << 3)

static const uint8_t magic[8] = {'t', 'i', 'd', 'e', 'c', 'k', 'p', '\n'};
const char *const tl_checkpoint_names[2] = {"checkpoint.a", "checkpoint.b"};

static uint16_t le16(const void *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

/* --- the first two pages --- */

uint32_t tl_checkpoint_chain_start(uint64_t generation, uint32_t salt) {
    uint8_t seed[12];
    tl_put_le64(seed, generation);
    tl_put_le32(seed + 8, salt);
    return tl_crc32c(0, seed, sizeof seed);
}

void tl_checkpoint_header_encode(uint8_t page[TL_CHECKPOINT_PAGE_BYTES], const tl_checkpoint_file *file) {
    memset(page, 0, TL_CHECKPOINT_PAGE_BYTES);
    memcpy(page, magic, sizeof magic);
    tl_put_le32(page + 8, FORMAT_VERSION);
    tl_put_le64(page + 16, file->generation);
    tl_put_le64(page + 24, file->snapshot_end);
    tl_put_le64(page + 32, file->snapshot_records);
    tl_put_le32(page + 40, file->salt);
    tl_put_le32(page + 44, file->snapshot_chain);
    tl_put_le32(page + 60, tl_crc32c(0, page, 60));
}

void tl_checkpoint_mark_encode(uint8_t mark[TL_CHECKPOINT_MARK_BYTES], uint32_t kind, uint64_t generation,
                               uint64_t value) {
    tl_put_le32(mark, kind);
    tl_put_le64(mark + 8, generation);
    tl_put_le64(mark + 16, value);
    tl_put_le32(mark + 4, tl_crc32c(kind, mark + 8, 16));
}

static uint64_t mark_value(const uint8_t *mark, uint32_t kind, uint64_t generation) {
    bool ok = tl_le32(mark) == kind && tl_le32(mark + 4) == tl_crc32c(kind, mark + 8, 16) &&
              tl_le64(mark + 8) == generation;
    return ok ? tl_le64(mark + 16) : 0;
}

static bool header_is_ours(const uint8_t *page) {
    return memcmp(page, magic, sizeof magic) == 0 && tl_le32(page + 60) == tl_crc32c(0, page, 60);
}

static bool header_read(const uint8_t *page, unsigned slot, tl_checkpoint_file *out) {
    out->generation = tl_le64(page + 16);
    out->snapshot_end = tl_le64(page + 24);
    out->snapshot_records = tl_le64(page + 32);
    out->salt = tl_le32(page + 40);
    out->snapshot_chain = tl_le32(page + 44);
    return out->generation >= TL_CHECKPOINT_FIRST_GENERATION && (out->generation & 1) == slot &&
           out->snapshot_end >= TL_CHECKPOINT_FIRST && out->snapshot_end < POSITIONS_END &&
           (out->snapshot_end & 7) == 0;
}

int tl_checkpoint_inspect(int fd, unsigned slot, tl_checkpoint_file *out, tl_error *err) {
    *out = (tl_checkpoint_file){.name = tl_checkpoint_names[slot]};
    tl_stat stat;
    int result = tl_os->stat(fd, &stat);
    if (result < 0)
        return tl_fail_sys(err, result, "the size of a checkpoint file could not be read", out->name);
    out->size_bytes = stat.size_bytes;
    if (stat.size_bytes > TL_CHECKPOINT_MAX_BYTES)
        return tl_fail(err, TL_ECORRUPT, "the checkpoint file is larger than any that is written", out->name,
                       TL_CHECKPOINT_MAX_BYTES);
    uint8_t pages[TL_CHECKPOINT_FIRST];
    memset(pages, 0, sizeof pages);
    int64_t n = tl_os->pread(fd, pages, sizeof pages, 0);
    if (n < 0)
        return tl_fail_sys(err, (int)n, "the header of a checkpoint file could not be read", out->name);
    bool ours = header_is_ours(pages);
    if (ours && tl_le32(pages + 8) != FORMAT_VERSION)
        return tl_fail(err, TL_EUNSUPPORTED, "the checkpoint was written by another version of the format; open the "
                       "store with the tidelog that wrote it", out->name, 8);
    out->whole = ours && header_read(pages, slot, out);
    if (out->whole) {
        out->synced_end = mark_value(pages + TL_CHECKPOINT_SYNCED_AT, TL_CHECKPOINT_SYNCED, out->generation);
        out->superseded_by = mark_value(pages + TL_CHECKPOINT_SUPERSEDED_AT, TL_CHECKPOINT_SUPERSEDED, out->generation);
    }
    return TL_OK;
}

/* A file gets its SUPERSEDED mark once its successor is synced. So a file without one is the newest even when the other
 * is damaged (that was a snapshot which a power cut ended), and a file with one never stands in for its successor:
 * older state would hand out leases and offsets again. */
int tl_checkpoint_newest(const tl_checkpoint_file files[2], tl_error *err) {
    if (!files[0].whole && !files[1].whole)
        return tl_fail(err, TL_ECORRUPT, "the headers of both checkpoint files are damaged", files[0].name, 0);
    int newest = !files[0].whole || (files[1].whole && files[1].generation > files[0].generation);
    if (files[newest].superseded_by > files[newest].generation)
        return tl_fail(err, TL_ECORRUPT, "the header of the newest checkpoint file is damaged",
                       files[1 - newest].name, 0);
    return newest;
}

/* --- groups --- */

uint32_t tl_checkpoint_group_seal(uint8_t *group, uint32_t bytes, uint32_t count, const tl_checkpoint_place *place) {
    uint32_t header = TL_CHECKPOINT_GROUP_HEADER_BYTES;
    tl_put_le32(group + 4, place->previous);
    tl_put_le64(group + 8, place->generation);
    tl_put_le64(group + 16, place->position);
    tl_put_le64(group + 24, place->synced_end);
    tl_put_le32(group + 32, bytes);
    tl_put_le32(group + 36, count);
    tl_put_le32(group + 40, tl_crc32c(0, group + header, bytes - header));
    tl_put_le32(group + 44, place->salt);
    uint32_t crc = tl_crc32c(0, group + 4, header - 4);
    tl_put_le32(group, crc);
    return crc;
}

/* Whether a group header of this generation stands here, whatever became of its records. */
static bool group_here(const uint8_t *group, const tl_checkpoint_file *file, uint64_t position) {
    return tl_le64(group + 8) == file->generation && tl_le64(group + 16) == position &&
           tl_le32(group + 44) == file->salt &&
           tl_le32(group) == tl_crc32c(0, group + 4, TL_CHECKPOINT_GROUP_HEADER_BYTES - 4);
}

bool tl_checkpoint_entry_read(const uint8_t *at, uint64_t bytes, tl_checkpoint_entry *out) {
    if (bytes < TL_CHECKPOINT_RECORD_HEADER_BYTES)
        return false;
    out->type = le16(at);
    out->flags = le16(at + 2);
    out->key_bytes = le16(at + 4);
    out->value_bytes = tl_le32(at + 8);
    if (out->key_bytes > TL_CHECKPOINT_KEY_BYTES || out->value_bytes > TL_CHECKPOINT_VALUE_BYTES || le16(at + 6) != 0 ||
        (out->flags & ~TL_CHECKPOINT_DELETED) != 0 || (out->flags != 0 && out->value_bytes != 0))
        return false;
    uint64_t whole = tl_checkpoint_record_bytes(out->key_bytes, out->value_bytes);
    out->bytes = (uint32_t)whole;
    out->key = at + TL_CHECKPOINT_RECORD_HEADER_BYTES;
    out->value = out->key + out->key_bytes;
    return whole <= bytes;
}

static bool records_fit(const uint8_t *at, uint64_t bytes, uint32_t count) {
    tl_checkpoint_entry entry;
    for (; count > 0; count--, at += entry.bytes, bytes -= entry.bytes) {
        if (!tl_checkpoint_entry_read(at, bytes, &entry))
            return false;
    }
    return bytes == 0;
}

static int damaged(tl_error *err, const tl_checkpoint_file *file, uint64_t position, const char *what,
                   uint64_t promised) {
    tl_fail(err, TL_ECORRUPT, what, file->name, (int64_t)position);
    if (err != NULL)
        snprintf(err->detail, sizeof err->detail, "generation %llu, synced up to position %llu",
                 (unsigned long long)file->generation, (unsigned long long)promised);
    return TL_ECORRUPT;
}

/* What is known to have been synced: by the header, by the mark, and by groups behind the first damaged one. A valid
 * group there is no damage in itself: the kernel writes pages in any order, so after a power cut the last unsynced
 * groups survive in any combination. But if its header says that bytes past `end` were synced, they were whole. */
static uint64_t promised_end(const tl_checkpoint_file *file, const tl_checkpoint_body *body, uint64_t size_bytes) {
    uint64_t promised = file->snapshot_end > file->synced_end ? file->snapshot_end : file->synced_end;
    for (uint64_t at = body->end; at + TL_CHECKPOINT_GROUP_HEADER_BYTES <= size_bytes; at += 8) {
        const uint8_t *group = body->bytes + (at - TL_CHECKPOINT_FIRST);
        uint64_t synced_end = tl_le64(group + 24);
        if (synced_end > promised && synced_end <= at && group_here(group, file, at))
            promised = synced_end;
    }
    return promised;
}

/* Sets end, chain, groups, records. `snapshot_whole` says whether the snapshot ended where and as the header says. */
static int walk(const tl_checkpoint_file *file, uint64_t size_bytes, tl_checkpoint_body *body, bool *snapshot_whole,
                tl_error *err) {
    uint64_t at = TL_CHECKPOINT_FIRST;
    uint32_t chain = tl_checkpoint_chain_start(file->generation, file->salt);
    *snapshot_whole = at == file->snapshot_end && chain == file->snapshot_chain && file->snapshot_records == 0;
    while (at + TL_CHECKPOINT_GROUP_HEADER_BYTES <= size_bytes) {
        const uint8_t *group = body->bytes + (at - TL_CHECKPOINT_FIRST);
        uint32_t bytes = tl_le32(group + 32), count = tl_le32(group + 36), header = TL_CHECKPOINT_GROUP_HEADER_BYTES;
        if (!group_here(group, file, at) || tl_le32(group + 4) != chain || bytes < header || (bytes & 7) != 0 ||
            bytes > TL_CHECKPOINT_GROUP_BYTES || bytes > size_bytes - at ||
            tl_le32(group + 40) != tl_crc32c(0, group + header, bytes - header))
            break;
        if (!records_fit(group + header, bytes - header, count))
            return damaged(err, file, at, "a checkpoint group has a right checksum over wrong records",
                           file->synced_end);
        chain = tl_le32(group);
        at += bytes;
        body->groups++;
        body->records += count;
        if (at == file->snapshot_end)
            *snapshot_whole = chain == file->snapshot_chain && body->records == file->snapshot_records;
    }
    body->end = at;
    body->chain = chain;
    return TL_OK;
}

int tl_checkpoint_read(int fd, const tl_checkpoint_file *file, uint64_t tail, tl_checkpoint_body *out, tl_error *err) {
    *out = (tl_checkpoint_body){0};
    uint64_t size = tail == 0 ? file->size_bytes : (uint64_t)(uint32_t)tail << 3;
    if (size < TL_CHECKPOINT_FIRST || size > file->size_bytes || file->snapshot_end > size)
        return damaged(err, file, file->size_bytes, "the checkpoint file is shorter than what was synced to it",
                       file->snapshot_end);
    out->bytes = tl_os->malloc(size - TL_CHECKPOINT_FIRST + 1);
    if (out->bytes == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the groups of a checkpoint", file->name, -1);
    int64_t n = tl_os->pread(fd, out->bytes, size - TL_CHECKPOINT_FIRST, TL_CHECKPOINT_FIRST);
    if (n < 0)
        return tl_fail_sys(err, (int)n, "the groups of a checkpoint file could not be read", file->name);
    size = TL_CHECKPOINT_FIRST + (uint64_t)n;
    bool snapshot_whole;
    int result = walk(file, size, out, &snapshot_whole, err);
    if (result != TL_OK)
        return result;
    if (tail != 0) {
        bool as_published = out->end == (uint64_t)(uint32_t)tail << 3 && out->chain == tail >> 32;
        return as_published ? TL_OK : damaged(err, file, out->end, "a published checkpoint group is damaged", out->end);
    }
    uint64_t promised = promised_end(file, out, size);
    if (out->end < promised || !snapshot_whole)
        return damaged(err, file, out->end, "a synced checkpoint group is damaged", promised);
    return TL_OK;
}

void tl_checkpoint_body_free(tl_checkpoint_body *body) {
    tl_os->free(body->bytes);
    tl_os->free(body->live);
    *body = (tl_checkpoint_body){0};
}

/* --- the latest record of each key --- */

/* The seed is secret and goes through every multiplication. A seeded CRC would not do: it is linear, two keys of one
 * length that collide under one seed collide under all. */
static uint64_t hash(uint64_t seed, const tl_checkpoint_entry *entry) {
    uint64_t h = seed ^ entry->type ^ ((uint64_t)entry->key_bytes << 16);
    for (size_t at = 0; at < entry->key_bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, entry->key + at, entry->key_bytes - at < 8 ? entry->key_bytes - at : 8);
        unsigned __int128 product = (unsigned __int128)(h ^ word) * (seed | 1);
        h = (uint64_t)product ^ (uint64_t)(product >> 64) ^ 0x9e3779b97f4a7c15u;
    }
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ (h >> 31);
}

static bool same_key(const tl_checkpoint_entry *a, const tl_checkpoint_entry *b) {
    return a->type == b->type && a->key_bytes == b->key_bytes && memcmp(a->key, b->key, a->key_bytes) == 0;
}

/* Calls for each record of a body that has been walked, in order. */
#define FOR_EACH_RECORD(body, at, entry) \
    for (uint64_t at_group = 0, group_end; at_group + TL_CHECKPOINT_FIRST < (body)->end; at_group = group_end) \
        for (at = at_group + TL_CHECKPOINT_GROUP_HEADER_BYTES, \
             group_end = at_group + tl_le32((body)->bytes + at_group + 32); \
             at < group_end && tl_checkpoint_entry_read((body)->bytes + at, group_end - at, &(entry)); \
             at += (entry).bytes)

int tl_checkpoint_merge(tl_checkpoint_body *body, tl_error *err) {
    if (body->records == 0)
        return TL_OK;
    uint64_t seed;
    int result = tl_os->random(&seed, sizeof seed);
    if (result < 0)
        return tl_fail_sys(err, result, "the kernel gave no random bytes", "/dev/urandom");
    size_t slots = 16;
    while (slots < 2 * body->records)
        slots *= 2;
    /* A slot holds position / 8 of the latest record, which is never 0: a header stands before it. */
    uint32_t *table = tl_calloc(slots, sizeof *table);
    body->live = table == NULL ? NULL : tl_calloc(body->records, sizeof *body->live);
    if (body->live == NULL) {
        tl_os->free(table);
        return tl_fail(err, TL_ENOMEM, "no memory to merge a checkpoint", "", -1);
    }
    tl_checkpoint_entry entry, other;
    uint64_t at;
    /* Probes end: at least half of the slots stay empty. Pass 0 leaves the latest record of each key in the table,
     * pass 1 meets the records again and keeps those. */
    for (int pass = 0; pass < 2; pass++) {
        FOR_EACH_RECORD(body, at, entry) {
            size_t slot = hash(seed, &entry) & (slots - 1);
            for (; table[slot] != 0; slot = (slot + 1) & (slots - 1)) {
                uint64_t there = (uint64_t)table[slot] << 3;
                if (tl_checkpoint_entry_read(body->bytes + there, body->end - TL_CHECKPOINT_FIRST - there, &other) &&
                    same_key(&entry, &other))
                    break;
            }
            if (pass == 0) {
                table[slot] = (uint32_t)(at >> 3);
            } else if (table[slot] == (uint32_t)(at >> 3) && entry.flags == 0) {
                body->live[body->live_count++] = (uint32_t)(at >> 3);
                body->live_bytes += entry.bytes;
            }
        }
    }
    tl_os->free(table);
    return TL_OK;
}
