/* Does a store hold what the model says? Imports model.h.
 *
 * O1 what was acknowledged is there once, at its offset, with its bytes; what was in the air at most once and in order.
 * O2 offsets are dense within a boot, no byte that nobody sent. O4 what one verifier saw the next one sees. Besides: log
 * starts, committed offsets, zeros behind the tail, sealed files that end with their last batch, no findings by `check`. */
#define _GNU_SOURCE
#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t expected_bytes[8192], block[1 << 16];

/* --- which partitions there are --- */

typedef struct presence {
    bool seen[MODEL_PARTITIONS];
} presence;

static int see(void *context, uint32_t slot, const tl_partition_config *config) {
    presence *found = context;
    uint64_t id[2];
    if (memcmp(config->channel, MODEL_PASSING_CHANNEL, 16) == 0 || memcmp(config->channel, MODEL_TRANSACTIONS_CHANNEL, 16) == 0)
        return 0;
    memcpy(id, config->channel, 16);
    uint64_t index = id[1] - 1;
    if (id[0] != m->life || index >= m->partitions)
        model_fail("slot %u holds a partition that nobody made, %s", slot, config->directory);
    model_partition *p = &m->partition[index];
    if (p->state == PARTITION_DROPPED || p->state == PARTITION_NONE)
        model_fail("partition %d is back in slot %u after it was dropped, or seen not to be there", (int)index, slot);
    if (p->state == PARTITION_VANISHING && !p->boot_pending)
        model_fail("partition %d was seen dropped and is back within the boot", (int)index);
    if (found->seen[index])
        model_fail("partition %d is there twice", (int)index);
    if (p->state == PARTITION_LIVE && p->slot != slot)
        model_fail("partition %d moved from slot %u to %u", (int)index, p->slot, slot);
    found->seen[index] = true;
    p->slot = slot;
    return 0;
}

static void verify_catalogue(tl_store *store, bool alone) {
    presence found = {{false}};
    model_doing("list the partitions");
    tl_store_each_partition(store, &found, see);
    for (uint32_t i = 0; i < m->partitions; i++) {
        model_partition *p = &m->partition[i];
        if (found.seen[i])
            p->state = PARTITION_LIVE;
        else if (p->state == PARTITION_LIVE)
            model_fail("partition %u is gone", i);
        else if (p->state == PARTITION_DROPPING || p->state == PARTITION_VANISHING)
            p->state = alone ? PARTITION_DROPPED : PARTITION_VANISHING;
        else if (p->state != PARTITION_CREATING ||
                 alone) /* a definition may be in the checkpoint, for the next boot to find */
            p->state = PARTITION_DROPPED;
    }
}

/* --- messages --- */

/* Offsets that nobody gave out are missing for good; a boot may add more of them behind everything that was seen. */
static bool repaired; /* the partition at hand */

static bool gap_allowed(model_partition *p, int64_t from, int64_t to) {
    for (uint32_t i = 0; i < p->gap_count; i++) {
        if (p->gap_from[i] <= from && from < p->gap_to[i]) {
            from = p->gap_to[i];
            i = UINT32_MAX; /* from the first one again */
        }
        if (from >= to)
            return true;
    }
    if (!p->boot_pending || from < p->end_seen || p->gap_count == MODEL_GAPS)
        return false;
    p->gap_from[p->gap_count] = from;
    p->gap_to[p->gap_count++] = to;
    return true;
}

static void check_gap(model_partition *p, int64_t from, int64_t to, const char *where) {
    if (from != to && !gap_allowed(p, from, to))
        model_fail("offsets %lld to %lld of partition %d are missing %s (no boot explains it; log end seen %lld)",
                   (long long)from, (long long)to - 1, (int)(p - m->partition), where, (long long)p->end_seen);
}

/* A message that is not below the log start and was not met. Until somebody has repaired what a dead writer left behind
 * the tail, a boot may still find it there and take it. */
static void check_absent(model_partition *p, uint32_t sequence, int64_t log_start) {
    model_message *entry = &p->messages[sequence];
    if (entry->state == MESSAGE_KEPT && entry->offset >= log_start)
        model_fail("message %u of partition %d, acknowledged or seen at offset %lld, is lost (log start %lld)",
                   sequence, (int)(p - m->partition), (long long)entry->offset, (long long)log_start);
    if (entry->state == MESSAGE_ASKED && repaired)
        entry->state = MESSAGE_GONE;
}

static void check_record(model_partition *p, const tl_chunk *chunk, const tl_record *record, uint32_t *next,
                         int64_t log_start) {
    uint32_t self = (uint32_t)(p - m->partition), id[3] = {0};
    if (record->value_bytes >= 12)
        memcpy(id, chunk->bytes + record->value_at, 12);
    uint32_t sequence = id[1];
    if (record->value_bytes < 12 || id[0] != self || sequence >= p->sent || id[2] != (uint32_t)record->value_bytes)
        model_fail("offset %lld of partition %u holds bytes that nobody sent (%d bytes, %x %x %x)",
                   (long long)record->offset, self, record->value_bytes, id[0], id[1], id[2]);
    if (sequence < *next)
        model_fail("message %u of partition %u is there twice or out of order, at offset %lld", sequence, self,
                   (long long)record->offset);
    for (; *next < sequence; (*next)++)
        check_absent(p, *next, log_start);
    *next = sequence + 1;
    model_message *entry = &p->messages[sequence];
    if (entry->state == MESSAGE_GONE || entry->state == MESSAGE_NONE)
        model_fail("message %u of partition %u was seen not to be there and is at offset %lld now", sequence, self,
                   (long long)record->offset);
    if (entry->state == MESSAGE_KEPT && entry->offset != record->offset)
        model_fail("message %u of partition %u moved from offset %lld to %lld", sequence, self,
                   (long long)entry->offset, (long long)record->offset);
    if (entry->bytes != (uint32_t)record->value_bytes || entry->timestamp_ms != record->timestamp_ms ||
        (record->key_bytes == 8) != (entry->has_key != 0))
        model_fail("message %u of partition %u has another length, key or timestamp", sequence, self);
    model_fill_value(p, sequence, entry->bytes, expected_bytes);
    if (memcmp(expected_bytes, chunk->bytes + record->value_at, entry->bytes) != 0 ||
        (entry->has_key && memcmp(expected_bytes, chunk->bytes + record->key_at, 8) != 0))
        model_fail("message %u of partition %u has other bytes at offset %lld", sequence, self,
                   (long long)record->offset);
    entry->offset = record->offset;
    entry->state = MESSAGE_KEPT;
    m->messages_verified++;
}

static void verify_messages(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    tl_bounds bounds;
    tl_error err = {0};
    int self = (int)(p - m->partition);
    model_doing("read partition %d", self);
    model_expect_ok(tl_partition_bounds(handle, &bounds, &err), &err, "bounds");
    if (bounds.log_start < p->trim_acked || bounds.log_start < p->start_seen)
        model_fail("the log start of partition %d is %lld, behind an acknowledged trim at %lld or one seen at %lld",
                   self, (long long)bounds.log_start, (long long)p->trim_acked, (long long)p->start_seen);
    if (bounds.log_start > p->trim_asked && p->retention_ms < 0 && p->retention_bytes < 0)
        model_fail("the log start of partition %d is %lld, nobody asked for more than %lld", self,
                   (long long)bounds.log_start, (long long)p->trim_asked);
    if (bounds.log_end < p->end_seen)
        model_fail("the log end of partition %d went back from %lld to %lld", self, (long long)p->end_seen,
                   (long long)bounds.log_end);
    p->start_seen = bounds.log_start;
    tl_cursor cursor = {.offset = bounds.log_start};
    tl_chunk chunk = {0};
    int64_t expected = bounds.log_start;
    uint32_t next = 0;
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        model_expect_ok(tl_partition_read(handle, &cursor, &chunk, 500, 1 << 18, 0, &end, &err), &err, "read");
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++) {
            check_gap(p, expected, chunk.records[i].offset, "between messages");
            check_record(p, &chunk, &chunk.records[i], &next, bounds.log_start);
            expected = chunk.records[i].offset + 1;
        }
    }
    tl_chunk_free(&chunk);
    check_gap(p, expected, bounds.log_end, "at the log end");
    for (; next < p->sent; next++)
        check_absent(p, next, bounds.log_start);
    if (p->retention_bytes < 0 && p->retention_ms >= 0)
        for (uint32_t i = 0; i < p->sent; i++)
            if (p->messages[i].state == MESSAGE_KEPT && p->messages[i].offset < bounds.log_start &&
                p->messages[i].offset >= p->trim_asked && p->messages[i].timestamp_ms + p->retention_ms >= m->clock_ms)
                model_fail("message %u of partition %d was removed before its time", i, self);
    p->end_seen = bounds.log_end;
}

/* Some messages once more, through the indexes. */
static void verify_lookups(tl_store *store, model_partition *p) {
    tl_partition *handle = work_partition(store, p);
    enum { MOST = 24 };
    int64_t offsets[MOST], times[MOST], found[MOST];
    uint32_t which[MOST];
    size_t count = 0, failed = 0;
    uint64_t state = model_mix(m->life, p->sent, 77);
    tl_chunk chunk = {0};
    tl_error err = {0};
    for (int tries = 0; tries < 3 * MOST && count < MOST && p->sent > 0; tries++) {
        uint32_t sequence = (uint32_t)(model_random(&state) % p->sent);
        const model_message *entry = &p->messages[sequence];
        if (entry->state == MESSAGE_KEPT && entry->offset >= p->start_seen) {
            which[count] = sequence;
            times[count] = entry->timestamp_ms;
            offsets[count++] = entry->offset;
        }
    }
    if (count == 0)
        return;
    model_doing("look messages of partition %d up", (int)(p - m->partition));
    model_expect_ok(tl_partition_read_at(handle, offsets, count, &chunk, 0, NULL, NULL, &failed, &err), &err,
                    "read at offsets");
    for (size_t i = 0; i < count; i++) {
        model_fill_value(p, which[i], p->messages[which[i]].bytes, expected_bytes);
        if (chunk.records[i].offset != offsets[i] ||
            memcmp(expected_bytes, chunk.bytes + chunk.records[i].value_at, p->messages[which[i]].bytes) != 0)
            model_fail("reading offset %lld of partition %d gave another message", (long long)offsets[i],
                       (int)(p - m->partition));
    }
    tl_chunk_free(&chunk);
    model_expect_ok(tl_partition_find(handle, times, count, found, NULL, NULL, &err), &err, "find timestamps");
    for (size_t i = 0; i < count; i++) {
        uint32_t sequence = which[i];
        int64_t first = offsets[i];
        while (sequence > 0 && p->messages[sequence - 1].timestamp_ms == times[i]) { /* rows share one */
            sequence--;
            if (p->messages[sequence].state == MESSAGE_KEPT && p->messages[sequence].offset >= p->start_seen)
                first = p->messages[sequence].offset;
        }
        if (found[i] != first)
            model_fail("timestamp %lld of partition %d was found at offset %lld, it is at %lld", (long long)times[i],
                       (int)(p - m->partition), (long long)found[i], (long long)first);
    }
}

/* --- committed offsets --- */

static void verify_commits(tl_store *store, model_partition *p) {
    tl_error err = {0};
    tl_offsets *table = tl_store_offsets(store);
    for (int g = 0; g < MODEL_GROUPS; g++) {
        model_commits *c = &p->commits[g];
        char group[24];
        uint32_t slot = 0;
        tl_offset_word word = {TL_OFFSETS_NONE, 0, 0};
        snprintf(group, sizeof group, "group-%d", g);
        model_doing("read the committed offset of %s, partition %d", group, (int)(p - m->partition));
        int status = tl_store_offset_slot(store, group, strlen(group), p->channel, p->number, false, &slot, &err);
        if (status == TL_OK)
            status = tl_offsets_read(table, slot, &word, NULL);
        if (status != TL_ENOTFOUND)
            model_expect_ok(status, &err, "read a committed offset");
        int32_t least = p->boot_pending ? c->synced : c->acked, k = c->asked - 1;
        while (k >= 0 && c->values[k] != word.offset)
            k--;
        if (word.offset >= 0 && k < 0)
            model_fail("the committed offset of %s, partition %d is %lld, which nobody committed", group,
                       (int)(p - m->partition), (long long)word.offset);
        if (k < least)
            model_fail("the committed offset of %s, partition %d went back to %lld (commit %d), acknowledged was %lld "
                       "(commit %d)",
                       group, (int)(p - m->partition), (long long)word.offset, k, (long long)c->values[least], least);
        c->asked = k + 1;
        c->acked = k;
        if (p->boot_pending)
            c->synced = k;
        if (status != TL_OK)
            continue;
        char text[TL_OFFSETS_MAX_METADATA_BYTES + 1];
        size_t bytes = 0;
        model_expect_ok(tl_offsets_metadata(table, slot, text, &bytes, &err), &err, "read metadata");
        text[bytes] = 0;
        char *end = text;
        long long value = strtoll(text, &end, 10);
        bool whole = bytes == 0 || (*end == ':' && (size_t)(end - text) < bytes);
        for (const char *at = end + 1; bytes > 0 && whole && at < text + bytes; at++)
            whole = *at == (char)('a' + value % 26);
        if (!whole)
            model_fail("the metadata of %s, partition %d is torn: %.40s", group, (int)(p - m->partition), text);
    }
}

/* --- files --- */

static uint64_t length_of_batches(int fd, uint64_t size, const char *name) {
    uint64_t at = 0;
    uint8_t header[12];
    while (at < size) {
        if (pread(fd, header, sizeof header, (off_t)at) != (ssize_t)sizeof header)
            model_fail("%s ends inside the header of a batch, at %llu of %llu", name, (unsigned long long)at,
                       (unsigned long long)size);
        uint32_t length = tl_be32(header + 8);
        if (length < 49 || at + 12 + length > size)
            model_fail("%s is sealed and has something else than a batch at %llu of %llu", name, (unsigned long long)at,
                       (unsigned long long)size);
        at += 12 + (uint64_t)length;
    }
    return at;
}

static void expect_zeros(int fd, uint64_t from, const char *name) {
    ssize_t got;
    while ((got = pread(fd, block, sizeof block, (off_t)from)) > 0) {
        for (ssize_t i = 0; i < got; i++)
            if (block[i] != 0)
                model_fail("%s has a byte %#x behind its tail, at %llu", name, block[i],
                           (unsigned long long)from + (unsigned long long)i);
        from += (uint64_t)got;
    }
}

/* The segment that the tail points into: zeros behind it. Those before it: whole batches and nothing else. */
static void verify_files(model_partition *p, const tl_hot *hot) {
    char directory[320], name[600];
    int64_t bases[512], active = hot->active_base[tl_place_ordinal(hot->tail) & 1];
    int count = 0;
    snprintf(directory, sizeof directory, "%s/orders-%u", m->path, p->number);
    model_doing("look at the files of %s", directory);
    DIR *dir = opendir(directory);
    if (dir == NULL && errno == ENOENT && hot->tail == 0)
        return;
    if (dir == NULL)
        model_fail("%s cannot be opened: %s", directory, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (length == 24 && strcmp(entry->d_name + 20, ".log") == 0 && count < 512)
            bases[count++] = strtoll(entry->d_name, NULL, 10);
    }
    closedir(dir);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s/%020lld.log", directory, (long long)bases[i]);
        int fd = open(name, O_RDONLY | O_CLOEXEC);
        struct stat stat;
        if (fd < 0 || fstat(fd, &stat) < 0)
            model_fail("%s cannot be opened: %s", name, strerror(errno));
        if (bases[i] > active)
            model_fail("%s lies behind the active segment, which begins at %lld", name, (long long)active);
        if (bases[i] == active)
            expect_zeros(fd, tl_place_position(hot->tail), name);
        else
            (void)length_of_batches(fd, (uint64_t)stat.st_size, name);
        close(fd);
    }
}

static void say_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                        int64_t next) {
    (void)context;
    fprintf(stderr, "finding: %s, position %lld: %s (offsets %lld to %lld)\n", file, (long long)position, what,
            (long long)first, (long long)next);
}

const uint8_t *verify_map_shared(size_t *bytes) {
    char name[320];
    snprintf(name, sizeof name, "%s/shared", m->path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) < 0)
        model_fail("%s cannot be opened: %s", name, strerror(errno));
    *bytes = (size_t)stat.st_size;
    void *at = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        model_fail("%s cannot be mapped: %s", name, strerror(errno));
    return at;
}

void verify_look(tl_store *store) {
    presence found = {{false}};
    model_doing("list the partitions, looking only");
    tl_store_each_partition(store, &found, see);
    for (uint32_t i = 0; i < m->partitions; i++) {
        model_partition *p = &m->partition[i];
        if (p->state == PARTITION_LIVE && !found.seen[i])
            model_fail("partition %u is not there for one who only looks", i);
        if (p->state != PARTITION_LIVE)
            continue;
        repaired = false;
        verify_messages(store, p);
        verify_lookups(store, p);
        verify_commits(store, p);
    }
    m->looked++;
}

void verify_store(tl_store *store, bool alone) {
    verify_catalogue(store, alone);
    members_verify(store, alone);
    size_t bytes = 0;
    const uint8_t *shared = verify_map_shared(&bytes);
    for (uint32_t i = 0; i < m->partitions; i++) {
        model_partition *p = &m->partition[i];
        if (p->state != PARTITION_LIVE)
            continue;
        const tl_hot *hot = tl_shared_hot((uint8_t *)(uintptr_t)shared, p->slot);
        repaired = hot->lock == 0 && hot->reserve == hot->tail;
        verify_messages(store, p);
        verify_commits(store, p);
        if (alone && (hot->lock != 0 || hot->reserve != hot->tail))
            model_fail("recovery left partition %u with lock %x, reserve %llx, tail %llx", i, hot->lock,
                       (unsigned long long)hot->reserve, (unsigned long long)hot->tail);
        if (hot->lock != 0 && p->sent < MODEL_MESSAGES) /* nobody has repaired it: whoever appends next does */
            work_append_one(store, p);
        if (hot->lock == 0) {
            verify_files(p, hot);
            verify_lookups(store, p);
            const tl_check_report report = {.finding = say_finding};
            tl_error err = {0};
            model_doing("check partition %u", i);
            int findings = tl_partition_check(work_partition(store, p), &report, &err);
            model_expect_ok(findings, &err, "check");
            if (findings != 0)
                model_fail("check has %d findings in partition %u", findings, i);
        }
        p->boot_pending = false;
    }
    for (uint32_t i = 0; i < m->partitions; i++)
        if (m->partition[i].state != PARTITION_VANISHING && m->partition[i].state != PARTITION_CREATING)
            m->partition[i].boot_pending = false;
    munmap((void *)(uintptr_t)shared, bytes);
    if (m->transactional) {
        transactions_verify(store, m->transactions_boot != m->boot);
        m->transactions_boot = m->boot;
    }
    m->verified++;
}
