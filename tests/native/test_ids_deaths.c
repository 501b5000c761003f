/* Is no message with an id lost and none doubled when its sender is killed between any two steps, or the power goes?
 *
 * timeout_s: 240
 * Imports ids_kit.h. A child sends messages and is killed at its nth point (TL_POINT); n goes up until it gets through.
 * Then they are all sent again, and every answer must be true. */
#define _GNU_SOURCE 1
#include "ids_kit.h"

#include <sys/mman.h>

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

static void be_killed(kit_ids *f, uint32_t first, unsigned way) {
    tl_store *store;
    tl_recovery recovery;
    CHECK(kit_open(f->path, &store, &recovery, &kit_error) == TL_OK);
    CHECK(tl_store_partition(store, f->slot, kit_channel, &f->partition, &kit_error) == TL_OK);
    tl_point_hook = maybe_die;
    for (uint32_t i = 0; i < NAMES; i += way == 2 ? NAMES : 1) {
        kit_sent s = {.count = 0};
        tl_appended result;
        for (uint32_t k = i; k < (way == 2 ? NAMES : i + 1); k++)
            kit_sent_add(f, &s, first + k);
        if (kit_sent_send(f, &s, way == 0 ? TL_APPEND_TRY : 0, &result) == TL_EAGAIN)
            CHECK(kit_sent_send(f, &s, 0, &result) == TL_OK);
        for (uint32_t k = 0; k < s.count; k++)
            child->offset[i + k] = s.offset[k];
    }
    _exit(0);
}

/* What stands at an offset must be the message that was sent with the id. */
static void check_there(kit_ids *f, int64_t offset, const char *text, uint64_t at) {
    tl_chunk chunk = {0};
    size_t failed = 0;
    CHECK(tl_partition_read_at(f->partition, &offset, 1, &chunk, 0, NULL, NULL, &failed, &kit_error) == TL_OK);
    if (chunk.records[0].value_bytes != (int32_t)strlen(text) ||
        memcmp(chunk.bytes + chunk.records[0].value_at, text, strlen(text)) != 0)
        REFUSE("kill %llu: %s is said to stand at %lld, where another message stands: it was lost", (unsigned long long)at, text,
               (long long)offset);
    tl_chunk_free(&chunk);
}

/* Ids of the whole log, each at most once. */
static void check_once(kit_ids *f, uint32_t names, uint64_t at) {
    tl_cursor cursor = {0};
    tl_chunk chunk = {0};
    tl_read_end end;
    uint8_t *seen = calloc(names + 1, 1);
    CHECK(seen != NULL);
    do {
        tl_chunk_clear(&chunk);
        CHECK(tl_partition_read(f->partition, &cursor, &chunk, 10000, 1 << 20, 0, &end, &kit_error) == TL_OK);
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
    kit_ids f = kit_ids_begin(100000, 1000000, 1 << 14);
    uint32_t name = 1;
    child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(child != MAP_FAILED);
    bool ended = false;
    for (kill_at = 1; !ended; kill_at++) {
        tl_appended result;
        memset(child, 0xff, sizeof *child);
        child->hits = 0;
        kit_sent one = {.count = 0};
        kit_sent_add(&f, &one, name); /* the window is in force and complete, or small and about to grow */
        CHECK(kit_sent_send(&f, &one, 0, &result) == TL_OK && result.duplicates == 0);
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
        kit_sent other = {.count = 0}; /* takes the offset that the dead one had in mind */
        kit_sent_add(&f, &other, ++name);
        CHECK(kit_sent_send(&f, &other, 0, &result) == TL_OK && result.duplicates == 0);
        for (uint32_t i = 0; i < NAMES; i++) {
            kit_sent again = {.count = 0};
            kit_sent_add(&f, &again, first + i);
            CHECK(kit_sent_send(&f, &again, 0, &result) == TL_OK);
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
    CHECK(tl_partition_bounds(f.partition, &bounds, &kit_error) == TL_OK);
    kit_ids_end(&f);
}

/* --- a power cut --- */

enum { SYNCED = 20, SENT = 40 };

static void send_and_die(kit_ids *f, uint64_t *places) {
    kit_ids_open(f);
    kit_ids_enter(f);
    for (uint32_t i = 0; i < SENT; i++) {
        kit_sent s = {.count = 0};
        tl_appended result;
        kit_sent_add(f, &s, 1 + i);
        CHECK(kit_sent_send(f, &s, 0, &result) == TL_OK && result.duplicates == 0 && s.offset[0] == (int64_t)i);
        places[i] = result.tail;
        if (i == SYNCED - 1)
            CHECK(tl_partition_sync(f->partition, result.tail, -1, &kit_error) == TL_OK);
    }
    raise(SIGKILL);
}

/* `survive` of the messages reached the disk before the machine stopped: the others were never sent. */
static void check_cut(uint32_t survive) {
    kit_ids f = kit_ids_begin(1000, 1000000, 1 << 20);
    kit_ids_close(&f);
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
    kit_ids_open(&f);
    kit_ids_enter(&f);
    int64_t resumed = f.end;
    CHECK(resumed >= SENT); /* the lease: no offset is given out twice */
    for (uint32_t i = SENT; i-- > 0;) {
        kit_sent s = {.count = 0};
        tl_appended result;
        kit_sent_add(&f, &s, 1 + i);
        CHECK(kit_sent_send(&f, &s, 0, &result) == TL_OK);
        CHECK(s.duplicate[0] == (i < survive));
        CHECK(s.offset[0] == (i < survive ? (int64_t)i : resumed + (SENT - 1 - i)));
    }
    munmap(places, SENT * sizeof *places);
    kit_ids_end(&f);
}

/* --- a message that is refused --- */

/* Where the log ends stands nothing. */
static void check_nothing_after(const kit_ids *f, uint64_t tail) {
    char path[260];
    uint8_t bytes[1024], nothing[1024] = {0};
    snprintf(path, sizeof path, "%s/orders-0/%020d.log", f->path, 0);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t there = pread(fd, bytes, sizeof bytes, (off_t)tail); /* recovery cuts the file there */
    close(fd);
    CHECK(there >= 0 && memcmp(bytes, nothing, (size_t)there) == 0);
}

/* By the path of `send`. */
static void send_again(kit_ids *f, kit_sent *one, tl_appended *result) {
    int status = TL_EAGAIN;
    for (unsigned tries = 0; status == TL_EAGAIN && tries < 10000; tries++) /* the housekeeper may have the lock */
        status = tl_partition_append_one_id(f->partition, one->message, one->id, -1, result, &kit_error);
    CHECK(status == TL_OK && result->duplicates == 1 && result->base_offset == 0);
}

static void be_refused(kit_ids *f) {
    tl_appended result;
    kit_ids_open(f);
    kit_ids_enter(f);
    kit_sent one = {.count = 0};
    kit_sent_add(f, &one, 1);
    kit_sent other = {.count = 0};
    kit_sent_add(f, &other, 2);
    CHECK(kit_sent_send(f, &other, 0, &result) == TL_OK && result.duplicates == 0); /* the window is at hand from here on */
    tl_point_hook = maybe_die;
    send_again(f, &one, &result);
    _exit(0);
}

/* A duplicate is written before it is known to be one: whoever dies then, and if the machine starts anew, it was not sent. */
static void check_refused(bool new_boot) {
    child = mmap(NULL, sizeof *child, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(child != MAP_FAILED);
    bool ended = false;
    for (kill_at = 1; !ended; kill_at++) {
        kit_ids f = kit_ids_begin(1000, 1000000, 1 << 20);
        kit_sent one = {.count = 0};
        tl_appended result;
        kit_sent_add(&f, &one, 1);
        CHECK(kit_sent_send(&f, &one, 0, &result) == TL_OK && result.duplicates == 0);
        send_again(&f, &one, &result);
        check_nothing_after(&f, result.tail);
        kit_ids_close(&f);
        child->hits = 0;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            be_refused(&f);
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid);
        ended = WIFEXITED(status);
        CHECK(ended ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
        kit_boot += new_boot;
        kit_ids_open(&f);
        kit_ids_enter(&f);
        check_once(&f, 2, kill_at);
        kit_sent again = {.count = 0};
        kit_sent_add(&f, &again, 1);
        CHECK(kit_sent_send(&f, &again, 0, &result) == TL_OK && again.duplicate[0] && again.offset[0] == 0);
        check_nothing_after(&f, result.tail);
        kit_ids_end(&f);
    }
    CHECK(kill_at > 5);
    munmap(child, sizeof *child);
}

int main(void) {
    kit_ids_install();
    check_refused(false);
    check_refused(true);
    for (uint32_t survive = SYNCED; survive <= SENT; survive += 5)
        check_cut(survive);
    for (unsigned way = 0; way < 3; way++)
        check_deaths(way);
    return check_report();
}
