/* How does a C test fill a store, remember what was acknowledged, and find out whether all of it is still there?
 *
 * Imports check.h, log.h. Single-threaded. A message is known by its number: text and size follow from it, so that what is
 * read back needs no copy to be compared with. A ledger holds what appends acknowledged, and nothing else may be read. */
#ifndef TIDELOG_TEST_STORE_KIT_H
#define TIDELOG_TEST_STORE_KIT_H

#include "check.h"
#include "tidelog/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Prints what broke and ends this process: the parent knows the case and says how to replay it. */
#define REFUSE(...) \
    do { \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__); \
        fputc('\n', stderr); \
        abort(); \
    } while (0)

/* A call that has to succeed; `error` is the one that it fills. */
#define KIT_MUST(call, error) \
    do { \
        int must_status = (call); \
        if (must_status < 0) \
            REFUSE("%s: %s, %s, %s", #call, tl_status_name(must_status), (error).what, (error).path); \
    } while (0)

static const uint8_t kit_channel[16] = "0123456789abcdef";
static uint64_t kit_boot; /* added to the kernel's boot id: another value is another boot */
static int (*kit_true_identity)(int dir, tl_identity *out);

static inline int kit_identity(int dir, tl_identity *out) {
    int status = kit_true_identity(dir, out);
    out->boot[0] += kit_boot;
    return status;
}

/* Once, before anything is opened. */
static inline void kit_install(void) {
    kit_true_identity = tl_os_table.identity;
    tl_os_table.identity = kit_identity;
}

static inline int kit_open(const char *path, tl_store **store, tl_recovery *recovery, tl_error *err) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 300, .create = true, .no_housekeeper = true};
    int state = 0;
    *store = NULL;
    return tl_store_open(path, &options, store, &state, recovery, err);
}

static inline int kit_create(tl_store *store, uint32_t number, uint32_t segment_bytes, uint32_t *slot, tl_error *err) {
    tl_partition_config config = {.partition = number,
                                  .segment_bytes = segment_bytes,
                                  .segment_ms = -1,
                                  .retention_ms = -1,
                                  .retention_bytes = -1,
                                  .max_message_bytes = 1 << 20};
    memcpy(config.channel, kit_channel, 16);
    snprintf(config.directory, sizeof config.directory, "orders-%u", number);
    return tl_store_create_partitions(store, &config, 1, slot, err);
}

/* --- messages --- */

enum { KIT_TEXT = 512, KIT_BATCH = 32 };

static inline uint32_t kit_text(uint64_t number, uint8_t out[KIT_TEXT]) {
    int n = snprintf((char *)out, KIT_TEXT, "message %llu ", (unsigned long long)number);
    uint32_t bytes = 40 + (uint32_t)(number * 2654435761u >> 16) % 200;
    for (uint32_t i = (uint32_t)n; i < bytes; i++)
        out[i] = (uint8_t)(number * 131 + i * i);
    return bytes;
}

static inline tl_message kit_message(uint64_t number, uint8_t text[KIT_TEXT]) {
    uint32_t bytes = kit_text(number, text);
    return (tl_message){.value = text,
                        .value_bytes = (int32_t)bytes,
                        .key = text,
                        .key_bytes = number % 3 == 0 ? -1 : 8,
                        .timestamp_ms = 1000 + (int64_t)number};
}

static inline bool kit_is(const tl_chunk *chunk, const tl_record *record, uint64_t number) {
    uint8_t text[KIT_TEXT];
    const tl_message wanted = kit_message(number, text);
    if (record->value_bytes != wanted.value_bytes || record->key_bytes != wanted.key_bytes ||
        record->timestamp_ms != wanted.timestamp_ms)
        return false;
    return memcmp(chunk->bytes + record->value_at, text, (size_t)wanted.value_bytes) == 0 &&
           (wanted.key_bytes < 0 || memcmp(chunk->bytes + record->key_at, text, (size_t)wanted.key_bytes) == 0);
}

/* --- the ledger --- */

typedef struct kit_entry {
    int64_t offset;
    uint64_t number;
} kit_entry;

typedef struct kit_ledger {
    kit_entry *entries;
    size_t count, room;
    int64_t start;     /* log start, acknowledged or seen */
    int64_t doubts[8]; /* log starts that failed trims may have left, for this boot or for the next */
    size_t doubt_count;
} kit_ledger;

static uint64_t kit_next_number = 1;

static inline void kit_note(kit_ledger *ledger, int64_t offset, uint64_t number) {
    if (ledger->count > 0 && offset <= ledger->entries[ledger->count - 1].offset)
        REFUSE("offset %lld was given out after %lld", (long long)offset,
               (long long)ledger->entries[ledger->count - 1].offset);
    if (ledger->count == ledger->room) {
        ledger->room = ledger->room == 0 ? 256 : 2 * ledger->room;
        ledger->entries = realloc(ledger->entries, ledger->room * sizeof *ledger->entries);
        CHECK(ledger->entries != NULL);
    }
    ledger->entries[ledger->count++] = (kit_entry){offset, number};
}

/* Appends `count` messages (at most KIT_BATCH) and notes those that are in, whatever the status says of the others. */
static inline int kit_append(tl_partition *partition, kit_ledger *ledger, size_t count, unsigned flags,
                             tl_appended *out, tl_error *err) {
    static uint8_t texts[KIT_BATCH][KIT_TEXT];
    tl_message messages[KIT_BATCH];
    uint64_t first = kit_next_number;
    CHECK(count <= KIT_BATCH);
    for (size_t i = 0; i < count; i++)
        messages[i] = kit_message(kit_next_number++, texts[i]);
    memset(out, 0, sizeof *out);
    int status;
    if (count == 1) {
        status = tl_partition_append_one(partition, messages, flags, out, err);
        if (status < 0)
            memset(out, 0, sizeof *out);
    } else {
        const tl_append what = {.messages = messages, .count = count};
        status = tl_partition_append(partition, &what, flags, out, err);
    }
    if (status == TL_OK && out->next_offset - out->base_offset != (int64_t)count)
        REFUSE("an append of %zu messages says it took %lld", count, (long long)(out->next_offset - out->base_offset));
    for (int64_t offset = out->base_offset; offset < out->next_offset; offset++)
        kit_note(ledger, offset, first + (uint64_t)(offset - out->base_offset));
    return status;
}

/* Everything acknowledged is there, at its offset, and nothing else is. */
static inline void kit_verify(tl_partition *partition, kit_ledger *ledger, const char *when) {
    tl_error err = {0};
    tl_bounds bounds;
    int status = tl_partition_bounds(partition, &bounds, &err);
    if (status < 0)
        REFUSE("%s: bounds: %s, %s", when, tl_status_name(status), err.what);
    for (size_t i = 0; i < ledger->doubt_count; i++)
        if (bounds.log_start == ledger->doubts[i] && bounds.log_start > ledger->start)
            ledger->start = bounds.log_start;
    if (bounds.log_start != ledger->start)
        REFUSE("%s: the log starts at %lld, not at %lld", when, (long long)bounds.log_start, (long long)ledger->start);
    if (ledger->count > 0 && bounds.log_end <= ledger->entries[ledger->count - 1].offset)
        REFUSE("%s: the log ends at %lld, but %lld was acknowledged", when, (long long)bounds.log_end,
               (long long)ledger->entries[ledger->count - 1].offset);
    size_t at = 0;
    while (at < ledger->count && ledger->entries[at].offset < ledger->start)
        at++;
    tl_cursor cursor = {.offset = bounds.log_start};
    tl_chunk chunk = {0};
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        status = tl_partition_read(partition, &cursor, &chunk, 64, 1 << 20, 0, &end, &err);
        if (status < 0)
            REFUSE("%s: read at %lld: %s, %s, %s", when, (long long)cursor.offset, tl_status_name(status), err.what,
                   err.path);
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++, at++) {
            if (at >= ledger->count || ledger->entries[at].offset != chunk.records[i].offset)
                REFUSE("%s: offset %lld was read, %lld was expected", when, (long long)chunk.records[i].offset,
                       at < ledger->count ? (long long)ledger->entries[at].offset : -1);
            if (!kit_is(&chunk, &chunk.records[i], ledger->entries[at].number))
                REFUSE("%s: offset %lld does not hold message %llu", when, (long long)chunk.records[i].offset,
                       (unsigned long long)ledger->entries[at].number);
        }
    }
    tl_chunk_free(&chunk);
    if (at != ledger->count)
        REFUSE("%s: the acknowledged offset %lld is lost", when, (long long)ledger->entries[at].offset);
}

/* --- directories --- */

static inline void kit_remove(int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        (void)unlinkat(parent, name, 0);
        return;
    }
    DIR *stream = fdopendir(fd);
    CHECK(stream != NULL);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            kit_remove(fd, entry->d_name);
    closedir(stream);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

/* A directory of its own, in memory where that is possible. The caller removes it with kit_remove(AT_FDCWD, out). */
static inline void kit_directory(char out[200], const char *noun) {
    const char *tmp = getenv("TIDELOG_TEST_RAM");
    if (tmp == NULL)
        tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
    snprintf(out, 200, "%.120s/tidelog-%s-XXXXXX", tmp == NULL ? "/tmp" : tmp, noun);
    CHECK(mkdtemp(out) != NULL);
}

static inline int kit_open_descriptors(void) {
    int count = 0;
    DIR *stream = opendir("/proc/self/fd");
    CHECK(stream != NULL);
    while (readdir(stream) != NULL)
        count++;
    closedir(stream);
    return count;
}

#endif
