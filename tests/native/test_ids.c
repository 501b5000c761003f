/* Is a message id a duplicate exactly when a plain list of the last ids says so, whatever grows, restarts or dies?
 *
 * timeout_s: 240
 * Imports ids.h, store_kit.h. The oracle is a list of every id that was appended, with its offset and time; it is searched
 * from the end. The clock is the test's own. Children are killed between two instructions by TL points. */
#define _GNU_SOURCE 1
#include "store_kit.h"
#include "tidelog/ids.h"
#include "tidelog/shared.h"

#include <sys/mman.h>

static tl_error err;
static uint64_t seed = 20261127;

static uint32_t below(uint32_t most) { return (uint32_t)(check_random(&seed) % most); }

/* --- the oracle --- */

typedef struct noted {
    uint32_t name;
    int64_t offset, came_ms;
} noted;

typedef struct oracle {
    noted *list;
    size_t count, room;
    size_t gone; /* so many of the first are not in the log any more, and were forgotten with the words of a boot */
    uint32_t window;
    int64_t age_ms;
} oracle;

static void oracle_note(oracle *o, uint32_t name, int64_t offset, int64_t now_ms) {
    if (o->count == o->room) {
        o->room = o->room == 0 ? 1024 : 2 * o->room;
        o->list = realloc(o->list, o->room * sizeof *o->list);
        CHECK(o->list != NULL);
    }
    o->list[o->count++] = (noted){name, offset, now_ms};
}

/* The offset that a message with this id is a duplicate of, -1: of none. */
static int64_t oracle_find(const oracle *o, uint32_t name, int64_t now_ms) {
    for (size_t back = 1; back <= o->window && back <= o->count - o->gone; back++) {
        const noted *n = &o->list[o->count - back];
        if (n->name == name)
            return now_ms - n->came_ms < o->age_ms ? n->offset : -1;
    }
    return -1;
}

/* --- the window in memory --- */

static void hash_of(uint32_t name, tl_message_id *out) { tl_ids_hash(99, &name, sizeof name, out); }

static void check_hash(void) {
    /* SipHash-1-3 with 128 bits: no published vectors are at hand, so its properties are: every byte and the length count,
     * the key counts, and no two of many ids share a half. */
    enum { MANY = 20000 };
    static tl_message_id many[MANY];
    uint8_t text[64] = {0};
    tl_message_id a, b;
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        tl_ids_hash(1, text, bytes, &a);
        tl_ids_hash(2, text, bytes, &b);
        CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1] && a.hash[0] != 0);
        tl_ids_hash(1, text, bytes + 1, &b);
        CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1]);
        for (size_t at = 0; at < bytes; at++) {
            text[at] ^= 0x80;
            tl_ids_hash(1, text, bytes, &b);
            CHECK(a.hash[0] != b.hash[0] && a.hash[1] != b.hash[1]);
            text[at] ^= 0x80;
        }
    }
    for (uint32_t i = 0; i < MANY; i++)
        hash_of(i, &many[i]);
    for (int half = 0; half < 2; half++) {
        uint32_t spread[256] = {0};
        for (uint32_t i = 0; i < MANY; i++)
            spread[many[i].hash[half] & 255]++;
        for (int i = 0; i < 256; i++)
            CHECK(spread[i] > 30 && spread[i] < 140); /* 78 on average */
    }
}

static tl_ids_window window_of(uint32_t buckets) {
    tl_ids_window w = {calloc(1, tl_ids_bytes(buckets)), buckets};
    CHECK(w.map != NULL);
    return w;
}

/* Random sends against the oracle; grows when it must. */
static void check_window(uint32_t count, uint32_t age_ms, uint32_t names, uint32_t steps) {
    oracle o = {.window = count, .age_ms = age_ms};
    tl_ids_window w = window_of(TL_IDS_BUCKETS_FIRST);
    uint32_t now = 1000000, grown = 0, duplicates = 0;
    int64_t offset = 0;
    for (uint32_t i = 0; i < steps; i++) {
        tl_message_id id;
        uint32_t name = below(names);
        now += below(20) == 0 ? below(60 * (age_ms / count) + 2) : below(2); /* the window by age is about half of that by count */
        const tl_ids_rule rule = {count, age_ms, now};
        hash_of(name, &id);
        int64_t found = -1, wanted = oracle_find(&o, name, now);
        bool is = tl_ids_find(&w, &id, &rule, 0, &found);
        CHECK(is == (wanted >= 0));
        if (is) {
            CHECK(found == wanted);
            duplicates++;
            if (below(8) != 0)
                continue; /* else a message came that was not looked for: its id counts all the same */
        }
        int status = tl_ids_note(&w, &id, offset, now, &rule);
        while (status == TL_EFULL) {
            tl_ids_window larger = window_of(w.buckets * 2);
            uint32_t shift = below(2) == 0 ? 0 : now > age_ms + 1000 ? now - age_ms - 1000 : 0;
            if (tl_ids_copy(&w, &larger, &rule, 0) == TL_OK) {
                CHECK(tl_ids_live(&larger, &rule) == tl_ids_live(&w, &rule));
                (void)shift;
            }
            free(w.map);
            w = larger;
            grown++;
            status = tl_ids_note(&w, &id, offset, now, &rule);
        }
        CHECK(status == TL_OK);
        oracle_note(&o, name, offset++, now);
        if (below(100) == 0) { /* a death before it could be said: the same is noted again */
            CHECK(tl_ids_note(&w, &id, offset - 1, now, &rule) == TL_OK);
            CHECK(tl_ids_next(&w) <= o.count);
        }
    }
    CHECK(duplicates > steps / 100);
    CHECK((uint64_t)w.buckets * TL_IDS_WAYS <= 4 * (uint64_t)count + 2 * TL_IDS_BUCKETS_FIRST * TL_IDS_WAYS);
    free(w.map);
    free(o.list);
}

/* Numbers and times counted anew: what was a duplicate is one, what was not is not. */
static void check_renewal(void) {
    enum { NAMES = 3000 };
    tl_ids_window old = window_of(1024), fresh = window_of(1024);
    tl_ids_rule rule = {2000, 5000, 0};
    for (uint32_t i = 0; i < NAMES; i++) {
        tl_message_id id;
        rule.now_ms = 100000 + 3 * i;
        hash_of(i, &id);
        CHECK(tl_ids_note(&old, &id, i, rule.now_ms, &rule) == TL_OK);
    }
    uint32_t shift = 90000, live = 0;
    CHECK(tl_ids_copy(&old, &fresh, &rule, shift) == TL_OK);
    CHECK(tl_ids_next(&fresh) == 2000);
    const tl_ids_rule shifted = {rule.count, rule.age_ms, rule.now_ms - shift};
    for (uint32_t i = 0; i < NAMES; i++) {
        tl_message_id id;
        int64_t before = -1, after = -1;
        hash_of(i, &id);
        bool was = tl_ids_find(&old, &id, &rule, 0, &before), is = tl_ids_find(&fresh, &id, &shifted, 0, &after);
        CHECK(was == is && before == after);
        CHECK(was == (i >= 1000 && 3 * (NAMES - 1 - i) < 5000));
        live += was;
    }
    CHECK(live == tl_ids_live(&fresh, &shifted) && live > 1000);
    free(old.map);
    free(fresh.map);
}

/* --- in a store --- */

static int64_t clock_ms = 5000000000; /* monotonic and wall clock move together */
static int64_t test_monotonic(void) { return clock_ms * 1000000; }
static int64_t test_now_ms(void) { return 1700000000000 + clock_ms; }

/* Files are as old as the test's clock says: when each was seen first. */
enum { FILES = 65536 };
static struct { uint64_t inode; int64_t created_ms; } born[FILES];
static int (*true_stat)(int fd, tl_stat *out);
static int (*true_open)(int dir, const char *path, int flags, unsigned mode);
static int test_stat(int fd, tl_stat *out) {
    int status = true_stat(fd, out);
    if (status < 0)
        return status;
    size_t at = out->inode % FILES;
    while (born[at].created_ms != 0 && born[at].inode != out->inode)
        at = (at + 1) % FILES;
    if (born[at].created_ms == 0) {
        born[at].inode = out->inode;
        born[at].created_ms = test_now_ms();
    }
    out->created_ms = born[at].created_ms;
    return status;
}

/* A file that is made may have the number of one that is gone. */
static int test_open(int dir, const char *path, int flags, unsigned mode) {
    tl_stat made;
    int old = (flags & O_CREAT) != 0 ? true_open(dir, path, O_RDONLY, 0) : 0;
    if (old > 0)
        close(old);
    int fd = true_open(dir, path, flags, mode);
    if (fd < 0 || old >= 0)
        return fd;
    CHECK(test_stat(fd, &made) == 0);
    for (size_t at = made.inode % FILES; born[at].created_ms != 0; at = (at + 1) % FILES)
        if (born[at].inode == made.inode)
            born[at].created_ms = test_now_ms();
    return fd;
}

typedef struct fixture {
    tl_store *store;
    tl_partition *partition;
    char path[200];
    uint32_t slot;
    oracle o;
    int64_t end; /* log end offset */
    bool learns; /* the next one who looks for an id makes the window from the log, as far as that goes back then */
} fixture;

static void open_store(fixture *f) {
    tl_recovery recovery;
    CHECK(kit_open(f->path, &f->store, &recovery, &err) == TL_OK);
}

static void open_partition(fixture *f) {
    CHECK(tl_store_ready(f->store, &err) == TL_OK);
    CHECK(tl_store_partition(f->store, f->slot, kit_channel, &f->partition, &err) == TL_OK);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(f->partition, &bounds, &err) == TL_OK);
    f->end = bounds.log_end;
}

static void close_store(fixture *f) {
    tl_partition_release(f->partition);
    CHECK(tl_store_close(f->store, &err) == TL_OK);
    tl_store_free(f->store);
}

static tl_partition_config config_of(const oracle *o, uint32_t segment_bytes) {
    tl_partition_config config = {.segment_bytes = segment_bytes, .segment_ms = -1, .retention_ms = -1, .retention_bytes = -1,
                                  .max_message_bytes = 1 << 20, .id_count = o->window, .id_age_ms = o->age_ms};
    memcpy(config.channel, kit_channel, 16);
    snprintf(config.directory, sizeof config.directory, "orders-0");
    return config;
}

static fixture begin(uint32_t window, int64_t age_ms, uint32_t segment_bytes) {
    fixture f = {.o = {.window = window, .age_ms = age_ms}};
    kit_directory(f.path, "ids");
    open_store(&f);
    const tl_partition_config config = config_of(&f.o, segment_bytes);
    CHECK(tl_store_create_partitions(f.store, &config, 1, &f.slot, &err) == TL_OK);
    open_partition(&f);
    return f;
}

static void end(fixture *f) {
    close_store(f);
    kit_remove(AT_FDCWD, f->path);
    free(f->o.list);
}

enum { MOST = 64 };
typedef struct sent {
    uint32_t name[MOST]; /* 0: no id */
    uint8_t block[MOST][48];
    char text[MOST][32];
    tl_message message[MOST];
    tl_message_id id[MOST];
    int64_t offset[MOST];
    uint8_t duplicate[MOST];
    size_t count;
} sent;

/* A header block with `message-id` alone. */
static uint32_t block_of(const char *text, uint8_t *out) {
    size_t bytes = strlen(text);
    CHECK(bytes < 32);
    out[0] = 2;
    out[1] = 20;
    memcpy(out + 2, "message-id", 10);
    out[12] = (uint8_t)(2 * bytes);
    memcpy(out + 13, text, bytes);
    return 13 + (uint32_t)bytes;
}

static void add_message(fixture *f, sent *s, uint32_t name) {
    size_t i = s->count++;
    s->name[i] = name;
    snprintf(s->text[i], sizeof s->text[i], "id %u", name);
    s->message[i] = (tl_message){.value = (const uint8_t *)s->text[i], .value_bytes = (int32_t)strlen(s->text[i]), .key_bytes = -1,
                                 .timestamp_ms = test_now_ms()};
    s->id[i] = (tl_message_id){{0, 0}};
    if (name == 0)
        return;
    s->message[i].headers_bytes = block_of(s->text[i], s->block[i]);
    s->message[i].headers = s->block[i];
    tl_ids_hash(tl_ids_key(f->partition), s->text[i], strlen(s->text[i]), &s->id[i]);
}

static int send(fixture *f, sent *s, unsigned flags, tl_appended *result) {
    memset(s->offset, 0xff, sizeof s->offset);
    memset(s->duplicate, 0xff, sizeof s->duplicate);
    if (s->count == 1 && s->name[0] != 0 && (flags & TL_APPEND_TRY) != 0 && below(2) == 0) { /* the path of `send` */
        int status = tl_partition_append_one_id(f->partition, s->message, s->id, result, &err);
        s->offset[0] = result->base_offset;
        s->duplicate[0] = (uint8_t)result->duplicates;
        if (status != TL_EAGAIN)
            return status;
    }
    const tl_append what = {.messages = s->message, .count = s->count, .ids = s->id, .offsets = s->offset, .duplicates = s->duplicate};
    return tl_partition_append(f->partition, &what, flags, result, &err);
}

/* The base offset of the oldest segment that is kept. */
static int64_t oldest(const fixture *f) {
    char path[260];
    int64_t base = INT64_MAX;
    snprintf(path, sizeof path, "%s/orders-0", f->path);
    DIR *directory = opendir(path);
    for (struct dirent *entry = directory == NULL ? NULL : readdir(directory); entry != NULL; entry = readdir(directory)) {
        char *rest = NULL;
        long long number = strtoll(entry->d_name, &rest, 10);
        if (strcmp(rest, ".log") == 0 && number < base)
            base = number;
    }
    if (directory != NULL)
        closedir(directory);
    return base;
}

/* Sends and compares every answer with the oracle, which learns from them. */
static void send_checked(fixture *f, sent *s, unsigned flags) {
    tl_appended result;
    for (int64_t base = f->learns ? oldest(f) : 0; f->o.gone < f->o.count && f->o.list[f->o.gone].offset < base;)
        f->o.gone++;
    f->learns = false;
    int status = send(f, s, flags, &result);
    if (status == TL_EAGAIN && (flags & TL_APPEND_TRY) != 0)
        status = send(f, s, flags & ~(unsigned)TL_APPEND_TRY, &result);
    CHECK(status == TL_OK);
    size_t duplicates = 0;
    for (size_t i = 0; i < s->count; i++) {
        int64_t wanted = s->name[i] == 0 ? -1 : oracle_find(&f->o, s->name[i], clock_ms);
        if (s->duplicate[i] != (wanted >= 0) || (wanted >= 0 && s->offset[i] != wanted))
            REFUSE("id %u, message %zu of %zu: answered %d at %lld, the list says %lld (log end %lld, %zu ids)", s->name[i], i,
                   s->count, s->duplicate[i], (long long)s->offset[i], (long long)wanted, (long long)f->end, f->o.count);
        duplicates += s->duplicate[i];
        if (wanted >= 0) {
            CHECK(s->offset[i] == wanted);
            continue;
        }
        CHECK(s->offset[i] == f->end);
        if (s->name[i] != 0)
            oracle_note(&f->o, s->name[i], f->end, clock_ms);
        f->end++;
    }
    CHECK(result.duplicates == duplicates && result.answered == s->count && result.base_offset == s->offset[0]);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(f->partition, &bounds, &err) == TL_OK && bounds.log_end == f->end && bounds.tail == result.tail);
}

/* The same messages past the checks: their ids count. */
static void send_unlooked(fixture *f, sent *s) {
    tl_appended result;
    const tl_append what = {.messages = s->message, .count = s->count};
    CHECK(tl_partition_append(f->partition, &what, 0, &result, &err) == TL_OK && result.base_offset == f->end);
    for (size_t i = 0; i < s->count; i++, f->end++)
        if (s->name[i] != 0)
            oracle_note(&f->o, s->name[i], f->end, clock_ms);
}

static void restart(fixture *f) {
    close_store(f);
    if (below(2) == 0)
        kit_boot++; /* the machine was started anew: nothing of the old window may be believed */
    open_store(f);
    open_partition(f);
    f->learns = true;
}

static void check_store(uint32_t window, int64_t age_ms, uint32_t names, uint32_t steps, uint32_t segment_bytes) {
    fixture f = begin(window, age_ms, segment_bytes);
    for (uint32_t step = 0; step < steps; step++) {
        sent s = {.count = 0};
        uint32_t kind = below(100), count = below(10) == 0 ? 1 + below(MOST) : 1 + below(3);
        clock_ms += below(12) == 0 ? (int64_t)below((uint32_t)age_ms / 2) : below(3);
        for (uint32_t i = 0; i < count; i++)
            add_message(&f, &s, below(8) == 0 ? 0 : 1 + below(names));
        if (kind < 70)
            send_checked(&f, &s, kind < 30 ? TL_APPEND_TRY : kind < 60 ? 0 : TL_APPEND_THROUGH_FILE);
        else if (kind < 85)
            send_unlooked(&f, &s);
        else if (kind < 95) {
            tl_appended result;
            const tl_message plain = {.value = (const uint8_t *)"p", .value_bytes = 1, .key_bytes = -1, .timestamp_ms = test_now_ms()};
            CHECK(tl_partition_append_one(f.partition, &plain, 0, &result, &err) == TL_OK && result.base_offset == f.end++);
        } else if (kind < 97) {
            tl_bounds bounds;
            CHECK(tl_partition_bounds(f.partition, &bounds, &err) == TL_OK);
            CHECK(tl_partition_trim(f.partition, bounds.log_start + (bounds.log_end - bounds.log_start) / 3, &err) == TL_OK);
        } else if (kind < 99) {
            restart(&f);
        }
    }
    end(&f);
}

/* --- deaths between any two instructions --- */

enum { NAMES = 6 };
static struct shared_words {
    int64_t offset[NAMES]; /* acknowledged; -1: not */
    uint64_t hits;
} *child;
static uint64_t kill_at;

static void maybe_die(const char *name) {
    if ((strncmp(name, "ids.", 4) == 0 || strncmp(name, "append", 6) == 0) && ++child->hits == kill_at)
        raise(SIGKILL);
}

static void be_killed(fixture *f, uint32_t first, unsigned way) {
    tl_store *store;
    tl_recovery recovery;
    CHECK(kit_open(f->path, &store, &recovery, &err) == TL_OK);
    CHECK(tl_store_partition(store, f->slot, kit_channel, &f->partition, &err) == TL_OK);
    tl_point_hook = maybe_die;
    for (uint32_t i = 0; i < NAMES; i += way == 2 ? NAMES : 1) {
        sent s = {.count = 0};
        tl_appended result;
        for (uint32_t k = i; k < (way == 2 ? NAMES : i + 1); k++)
            add_message(f, &s, first + k);
        if (send(f, &s, way == 0 ? TL_APPEND_TRY : 0, &result) == TL_EAGAIN)
            CHECK(send(f, &s, 0, &result) == TL_OK);
        for (uint32_t k = 0; k < s.count; k++)
            child->offset[i + k] = s.offset[k];
    }
    _exit(0);
}

/* What stands at an offset must be the message that was sent with the id. */
static void check_there(fixture *f, int64_t offset, const char *text, uint64_t at) {
    tl_chunk chunk = {0};
    size_t failed = 0;
    CHECK(tl_partition_read_at(f->partition, &offset, 1, &chunk, 0, NULL, NULL, &failed, &err) == TL_OK);
    if (chunk.records[0].value_bytes != (int32_t)strlen(text) ||
        memcmp(chunk.bytes + chunk.records[0].value_at, text, strlen(text)) != 0)
        REFUSE("kill %llu: %s is said to stand at %lld, where another message stands: it was lost", (unsigned long long)at, text,
               (long long)offset);
    tl_chunk_free(&chunk);
}

/* Ids of the whole log, each at most once. */
static void check_once(fixture *f, uint32_t names, uint64_t at) {
    tl_cursor cursor = {0};
    tl_chunk chunk = {0};
    tl_read_end end;
    uint8_t *seen = calloc(names + 1, 1);
    CHECK(seen != NULL);
    do {
        tl_chunk_clear(&chunk);
        CHECK(tl_partition_read(f->partition, &cursor, &chunk, 10000, 1 << 20, 0, &end, &err) == TL_OK);
        for (size_t i = 0; i < chunk.count; i++) {
            unsigned long name = strtoul((const char *)chunk.bytes + chunk.records[i].value_at + 3, NULL, 10);
            CHECK(name <= names);
            if (seen[name]++ != 0)
                REFUSE("kill %llu: id %lu is in the log twice", (unsigned long long)at, name);
        }
    } while (chunk.count > 0);
    free(seen);
    tl_chunk_free(&chunk);
}

static void check_deaths(unsigned way) {
    fixture f = begin(100000, 1000000, 1 << 14);
    uint32_t name = 1;
    child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(child != MAP_FAILED);
    bool ended = false;
    for (kill_at = 1; !ended; kill_at++) {
        tl_appended result;
        memset(child, 0xff, sizeof *child);
        child->hits = 0;
        sent one = {.count = 0};
        add_message(&f, &one, name); /* the window is in force and complete, or small and about to grow */
        CHECK(send(&f, &one, 0, &result) == TL_OK && result.duplicates == 0);
        uint32_t first = name + 1;
        name += 1 + NAMES;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            be_killed(&f, first, way);
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid);
        ended = WIFEXITED(status);
        CHECK(ended ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
        sent other = {.count = 0}; /* takes the offset that the dead one had in mind */
        add_message(&f, &other, ++name);
        CHECK(send(&f, &other, 0, &result) == TL_OK && result.duplicates == 0);
        for (uint32_t i = 0; i < NAMES; i++) {
            sent again = {.count = 0};
            add_message(&f, &again, first + i);
            CHECK(send(&f, &again, 0, &result) == TL_OK);
            if (child->offset[i] >= 0 && (!again.duplicate[0] || again.offset[0] != child->offset[i]))
                REFUSE("kill %llu: id %u was acknowledged at %lld and is sent again at %lld", (unsigned long long)kill_at, first + i,
                       (long long)child->offset[i], (long long)again.offset[0]);
            check_there(&f, again.offset[0], again.text[0], kill_at);
        }
        name++;
        if (kill_at % 16 == 0 || ended)
            check_once(&f, name, kill_at);
    }
    CHECK(kill_at > 20);
    munmap(child, sizeof *child);
    tl_bounds bounds;
    CHECK(tl_partition_bounds(f.partition, &bounds, &err) == TL_OK);
    end(&f);
}

/* --- a power cut --- */

enum { SYNCED = 20, SENT = 40 };

static void send_and_die(fixture *f, uint64_t *places) {
    open_store(f);
    open_partition(f);
    for (uint32_t i = 0; i < SENT; i++) {
        sent s = {.count = 0};
        tl_appended result;
        add_message(f, &s, 1 + i);
        CHECK(send(f, &s, 0, &result) == TL_OK && result.duplicates == 0 && s.offset[0] == (int64_t)i);
        places[i] = result.tail;
        if (i == SYNCED - 1)
            CHECK(tl_partition_sync(f->partition, result.tail, -1, &err) == TL_OK);
    }
    raise(SIGKILL);
}

/* `survive` of the messages reached the disk before the machine stopped: the others were never sent. */
static void check_cut(uint32_t survive) {
    fixture f = begin(1000, 1000000, 1 << 20);
    close_store(&f);
    uint64_t *places = mmap(NULL, SENT * sizeof *places, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(places != MAP_FAILED);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        send_and_die(&f, places);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    char path[260];
    snprintf(path, sizeof path, "%s/orders-0/%020d.log", f.path, 0);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    uint64_t from = places[survive - 1], until = places[SENT - 1];
    static const uint8_t zeros[1 << 16];
    CHECK(until - from <= sizeof zeros && pwrite(fd, zeros, until - from, (off_t)from) == (ssize_t)(until - from));
    close(fd);
    kit_boot++;
    open_store(&f);
    open_partition(&f);
    int64_t resumed = f.end;
    CHECK(resumed >= SENT); /* the lease: no offset is given out twice */
    for (uint32_t i = SENT; i-- > 0;) {
        sent s = {.count = 0};
        tl_appended result;
        add_message(&f, &s, 1 + i);
        CHECK(send(&f, &s, 0, &result) == TL_OK);
        CHECK(s.duplicate[0] == (i < survive));
        CHECK(s.offset[0] == (i < survive ? (int64_t)i : resumed + (SENT - 1 - i)));
    }
    munmap(places, SENT * sizeof *places);
    end(&f);
}

int main(void) {
    kit_install();
    check_hash();
    check_renewal();
    check_window(1, 1000, 3, 3000);
    check_window(7, 50, 10, 20000);
    check_window(500, 100000, 700, 60000);
    check_window(20000, 1000000, 30000, 200000);
    tl_os_table.monotonic_ns = test_monotonic;
    tl_os_table.now_ms = test_now_ms;
    true_stat = tl_os_table.stat;
    tl_os_table.stat = test_stat;
    true_open = tl_os_table.open;
    tl_os_table.open = test_open;
    check_store(5, 1000, 12, 3000, 1 << 20);
    check_store(200, 60000, 300, 4000, 1 << 14);
    for (uint32_t survive = SYNCED; survive <= SENT; survive += 5)
        check_cut(survive);
    for (unsigned way = 0; way < 3; way++)
        check_deaths(way);
    return check_report();
}
