/* What do the programs that test message ids share: a list to compare with, a store on the test's clock, messages?
 *
 * Imports store_kit.h, ids.h. Single-threaded. The list is the oracle: every id that was appended, with its offset and
 * time; it is searched from the end. */
#ifndef TIDELOG_TEST_IDS_KIT_H
#define TIDELOG_TEST_IDS_KIT_H

#include "store_kit.h"
#include "tidelog/ids.h"

static tl_error kit_error;
static uint64_t kit_seed = 20261127;

static inline uint32_t kit_below(uint32_t most) { return (uint32_t)(check_random(&kit_seed) % most); }

/* --- the oracle --- */

typedef struct kit_noted {
    uint32_t name;
    int64_t offset, came_ms;
} kit_noted;

typedef struct kit_oracle {
    kit_noted *list;
    size_t count, room;
    size_t gone; /* so many of the first are not in the log any more, and were forgotten with the words of a boot */
    uint32_t window;
    int64_t age_ms;
} kit_oracle;

static inline void kit_oracle_note(kit_oracle *o, uint32_t name, int64_t offset, int64_t now_ms) {
    if (o->count == o->room) {
        o->room = o->room == 0 ? 1024 : 2 * o->room;
        o->list = realloc(o->list, o->room * sizeof *o->list);
        CHECK(o->list != NULL);
    }
    o->list[o->count++] = (kit_noted){name, offset, now_ms};
}

/* The offset that a message with this id is a duplicate of, -1: of none. */
static inline int64_t kit_oracle_find(const kit_oracle *o, uint32_t name, int64_t now_ms) {
    for (size_t back = 1; back <= o->window && back <= o->count - o->gone; back++) {
        const kit_noted *n = &o->list[o->count - back];
        if (n->name == name)
            return now_ms - n->came_ms < o->age_ms ? n->offset : -1;
    }
    return -1;
}

/* --- a store --- */

static int64_t kit_clock_ms = 5000000000; /* monotonic and wall clock move together */
static inline int64_t kit_monotonic(void) { return kit_clock_ms * 1000000; }
static inline int64_t kit_now_ms(void) { return 1700000000000 + kit_clock_ms; }

/* Files are as old as the test's clock says: when each was seen first. */
enum { KIT_FILES = 65536 };
static struct { uint64_t inode; int64_t created_ms; } kit_born[KIT_FILES];
static int (*kit_true_stat)(int fd, tl_stat *out);
static int (*kit_true_open)(int dir, const char *path, int flags, unsigned mode);
static inline int kit_stat(int fd, tl_stat *out) {
    int status = kit_true_stat(fd, out);
    if (status < 0)
        return status;
    size_t at = out->inode % KIT_FILES;
    while (kit_born[at].created_ms != 0 && kit_born[at].inode != out->inode)
        at = (at + 1) % KIT_FILES;
    if (kit_born[at].created_ms == 0) {
        kit_born[at].inode = out->inode;
        kit_born[at].created_ms = kit_now_ms();
    }
    out->created_ms = kit_born[at].created_ms;
    return status;
}

/* A file that is made may have the number of one that is gone. */
static inline int kit_file_open(int dir, const char *path, int flags, unsigned mode) {
    tl_stat made;
    int old = (flags & O_CREAT) != 0 ? kit_true_open(dir, path, O_RDONLY, 0) : 0;
    if (old > 0)
        close(old);
    int fd = kit_true_open(dir, path, flags, mode);
    if (fd < 0 || old >= 0)
        return fd;
    CHECK(kit_stat(fd, &made) == 0);
    for (size_t at = made.inode % KIT_FILES; kit_born[at].created_ms != 0; at = (at + 1) % KIT_FILES)
        if (kit_born[at].inode == made.inode)
            kit_born[at].created_ms = kit_now_ms();
    return fd;
}

/* Once, before anything is opened: the clocks and the ages of files are the test's from here on. */
static inline void kit_ids_install(void) {
    kit_install();
    tl_os_table.monotonic_ns = kit_monotonic;
    tl_os_table.now_ms = kit_now_ms;
    kit_true_stat = tl_os_table.stat;
    tl_os_table.stat = kit_stat;
    kit_true_open = tl_os_table.open;
    tl_os_table.open = kit_file_open;
}

typedef struct kit_ids {
    tl_store *store;
    tl_partition *partition;
    char path[200];
    uint32_t slot;
    kit_oracle o;
    int64_t end; /* log end offset */
    bool learns; /* the next one who looks for an id makes the window from the log, as far as that goes back then */
} kit_ids;

static inline void kit_ids_open(kit_ids *f) {
    tl_recovery recovery;
    CHECK(kit_open(f->path, &f->store, &recovery, &kit_error) == TL_OK);
}

static inline void kit_ids_enter(kit_ids *f) {
    CHECK(tl_store_ready(f->store, &kit_error) == TL_OK);
    CHECK(tl_store_partition(f->store, f->slot, kit_channel, &f->partition, &kit_error) == TL_OK);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(f->partition, &bounds, &kit_error) == TL_OK);
    f->end = bounds.log_end;
}

static inline void kit_ids_close(kit_ids *f) {
    tl_partition_release(f->partition);
    CHECK(tl_store_close(f->store, &kit_error) == TL_OK);
    tl_store_free(f->store);
}

static inline tl_partition_config kit_ids_config(const kit_oracle *o, uint32_t segment_bytes) {
    tl_partition_config config = {.segment_bytes = segment_bytes,
                                  .segment_ms = -1,
                                  .retention_ms = -1,
                                  .retention_bytes = -1,
                                  .max_message_bytes = 1 << 20,
                                  .id_count = o->window,
                                  .id_age_ms = o->age_ms};
    memcpy(config.channel, kit_channel, 16);
    snprintf(config.directory, sizeof config.directory, "orders-0");
    return config;
}

static inline kit_ids kit_ids_begin(uint32_t window, int64_t age_ms, uint32_t segment_bytes) {
    kit_ids f = {.o = {.window = window, .age_ms = age_ms}};
    kit_directory(f.path, "ids");
    kit_ids_open(&f);
    const tl_partition_config config = kit_ids_config(&f.o, segment_bytes);
    CHECK(tl_store_create_partitions(f.store, &config, 1, &f.slot, &kit_error) == TL_OK);
    kit_ids_enter(&f);
    return f;
}

static inline void kit_ids_end(kit_ids *f) {
    kit_ids_close(f);
    kit_remove(AT_FDCWD, f->path);
    free(f->o.list);
}

enum { KIT_MOST = 64 };
typedef struct kit_sent {
    uint32_t name[KIT_MOST]; /* 0: no id */
    uint8_t block[KIT_MOST][48];
    char text[KIT_MOST][32];
    tl_message message[KIT_MOST];
    tl_message_id id[KIT_MOST];
    int64_t offset[KIT_MOST];
    uint8_t duplicate[KIT_MOST];
    size_t count;
} kit_sent;

/* A header block with `message-id` alone. */
static inline uint32_t kit_id_header(const char *text, uint8_t *out) {
    size_t bytes = strlen(text);
    CHECK(bytes < 32);
    out[0] = 2;
    out[1] = 20;
    memcpy(out + 2, "message-id", 10);
    out[12] = (uint8_t)(2 * bytes);
    memcpy(out + 13, text, bytes);
    return 13 + (uint32_t)bytes;
}

static inline void kit_sent_add(kit_ids *f, kit_sent *s, uint32_t name) {
    size_t i = s->count++;
    s->name[i] = name;
    snprintf(s->text[i], sizeof s->text[i], "id %u", name);
    s->message[i] = (tl_message){.value = (const uint8_t *)s->text[i],
                                 .value_bytes = (int32_t)strlen(s->text[i]),
                                 .key_bytes = -1,
                                 .timestamp_ms = kit_now_ms()};
    s->id[i] = (tl_message_id){{0, 0}};
    if (name == 0)
        return;
    s->message[i].headers_bytes = kit_id_header(s->text[i], s->block[i]);
    s->message[i].headers = s->block[i];
    tl_ids_hash(tl_ids_key(f->partition), s->text[i], strlen(s->text[i]), &s->id[i]);
}

static inline int kit_sent_send(kit_ids *f, kit_sent *s, unsigned flags, tl_appended *result) {
    memset(s->offset, 0xff, sizeof s->offset);
    memset(s->duplicate, 0xff, sizeof s->duplicate);
    if (s->count == 1 && s->name[0] != 0 && (flags & TL_APPEND_TRY) != 0 && kit_below(2) == 0) {
        /* the path of `send` */
        int status = tl_partition_append_one_id(f->partition, s->message, s->id, -1, result, &kit_error);
        s->offset[0] = result->base_offset;
        s->duplicate[0] = (uint8_t)result->duplicates;
        if (status != TL_EAGAIN)
            return status;
    }
    const tl_append what = {
        .messages = s->message, .count = s->count, .ids = s->id, .offsets = s->offset, .duplicates = s->duplicate};
    return tl_partition_append(f->partition, &what, flags, result, &kit_error);
}

#endif
