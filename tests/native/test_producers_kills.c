/* Is every batch of a producer in the log once, wherever its process is killed, and does a name never get an epoch twice?
 *
 * Imports store_kit.h, producers.h. Each child opens the store, sends batches with sequences of its own and opens a name now
 * and then; it is killed at a point of the core drawn beforehand. The parent then sends the batch again that was under way,
 * by its sequence, as whoever does not know whether it arrived. Message n has sequence n, so the log itself tells what is
 * doubled or lost. timeout_s: 300 */
#define _GNU_SOURCE
#include "store_kit.h"
#include "tidelog/producers.h"

#include <errno.h>

enum { TRIALS = 600, SENDS = 60, PRODUCER = 77 };

typedef struct word { /* what a child says */
    int32_t next;     /* messages that are acknowledged, all lives together */
    int32_t epoch;    /* of the name */
    int64_t name_id;
} word;

static char base[200];
static char points[256][48];
static unsigned kills[256], point_count;
static int countdown;
static enum { RARE, APPEND, ANY } wanted; /* at which points: the files and names of producers, their appends, all */

static bool is_rare(const char *name) { return strncmp(name, "producers.", 10) == 0 || strncmp(name, "names.", 6) == 0; }
static bool is_append(const char *name) { return strncmp(name, "append_checked.", 15) == 0; }

static void kill_here(const char *name) {
    if ((wanted == RARE && !is_rare(name)) || (wanted == APPEND && !is_append(name)) || --countdown != 0)
        return;
    int fd = open("killed-at", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0 && write(fd, name, strlen(name)) >= 0)
        close(fd);
    kill(getpid(), SIGKILL);
}

static tl_store *enter(tl_partition **partition) {
    tl_store *store = NULL;
    tl_error err = {0};
    tl_recovery recovery;
    uint32_t slot = 0;
    int status = kit_open(base, &store, &recovery, &err);
    if (status == TL_OK)
        status = tl_store_ready(store, &err);
    if (status < 0)
        REFUSE("open: %s, %s, %s", tl_status_name(status), err.what, err.path);
    if (tl_store_partition(store, 0, kit_channel, partition, &err) < 0) {
        CHECK(kit_create(store, 0, 4096, &slot, &err) == TL_OK);
        CHECK(tl_store_partition(store, slot, kit_channel, partition, &err) == TL_OK);
    }
    return store;
}

/* 0: appended, 1: it was there. */
static int send_number(tl_partition *partition, int32_t first, int32_t count, int64_t *offset) {
    uint8_t batch[8192], texts[4][KIT_TEXT];
    tl_message messages[4];
    int64_t newest = 0;
    for (int32_t i = 0; i < count; i++)
        messages[i] = kit_message((uint64_t)(first + i), texts[i]);
    const tl_batch_spec spec = {PRODUCER, first, 3, 0};
    size_t bytes = tl_batch_encode(batch, 0, &spec, messages, (size_t)count, &newest);
    const tl_producing producing = {.sequence = -1};
    const tl_append what = {.encoded = batch, .encoded_bytes = bytes, .count = (size_t)count, .max_timestamp_ms = newest,
                            .producing = &producing};
    tl_appended out;
    tl_error err = {0};
    int status = tl_partition_append(partition, &what, 0, &out, &err);
    if (status < 0)
        REFUSE("message %d: %s, %s, %s", first, tl_status_name(status), err.what, err.detail);
    *offset = out.base_offset;
    return out.duplicates > 0;
}

/* How many messages the batch has that begins with this one: the same in every life. */
static int32_t batch_of(int32_t first) { return 1 + (int32_t)((uint32_t)first * 2654435761u >> 30) % 3; }

static void live(uint64_t random, int32_t next, int pipe_fd) {
    tl_partition *partition = NULL;
    tl_error err = {0};
    tl_producer name = {0};
    tl_point_hook = kill_here;
    tl_store *store = enter(&partition);
    word said = {next, -1, -1};
    for (int i = 0; i < SENDS; i++) {
        uint64_t dice = check_random(&random);
        int64_t offset;
        if (i % 5 == 0) {
            if (tl_producer_open(store, "till", 4, &name, &err) < 0)
                REFUSE("the name: %s, %s", err.what, err.path);
            said.epoch = tl_producer_epoch(&name);
            said.name_id = name.producer_id;
        }
        int32_t count = batch_of(said.next);
        (void)send_number(partition, said.next, count, &offset);
        said.next += count;
        CHECK(write(pipe_fd, &said, sizeof said) == sizeof said);
        tl_bounds bounds;
        if (dice % 16 == 5)
            CHECK(tl_store_housekeep(store, &err) == TL_OK);
        int64_t kept = (int64_t)(dice >> 8 & 63);
        if (dice % 16 == 3 && tl_partition_bounds(partition, &bounds, &err) == TL_OK)
            CHECK(tl_partition_trim(partition, bounds.log_end > kept ? bounds.log_end - kept : 0, &err) == TL_OK);
        if (dice % 8 < 2) { /* a handle that knows nothing */
            tl_partition_release(partition);
            CHECK(tl_store_partition(store, 0, kit_channel, &partition, &err) == TL_OK);
        }
    }
    _exit(0); /* without closing */
}

static void note_kill(void) {
    char name[48] = "";
    int fd = open("killed-at", O_RDONLY);
    if (fd < 0)
        return;
    ssize_t got = read(fd, name, sizeof name - 1);
    close(fd);
    (void)unlink("killed-at");
    name[got > 0 ? got : 0] = 0;
    unsigned i = 0;
    while (i < point_count && strcmp(points[i], name) != 0)
        i++;
    if (i == point_count)
        memcpy(points[point_count++], name, sizeof name);
    kills[i]++;
}

/* From the log start on every number once, in order, up to `next`. */
static void verify(tl_partition *partition, int32_t next) {
    tl_bounds bounds;
    tl_error err = {0};
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_OK);
    tl_cursor cursor = {.offset = bounds.log_start};
    tl_chunk chunk = {0};
    int64_t number = bounds.log_start; /* nobody else writes here, and no offset is left out on one boot */
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        int status = tl_partition_read(partition, &cursor, &chunk, 64, 1 << 20, 0, &end, &err);
        if (status < 0)
            REFUSE("read: %s, %s", tl_status_name(status), err.what);
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++, number++)
            if (chunk.records[i].offset != number || !kit_is(&chunk, &chunk.records[i], (uint64_t)number))
                REFUSE("offset %lld does not hold message %lld: one was doubled or lost", (long long)chunk.records[i].offset,
                       (long long)number);
    }
    tl_chunk_free(&chunk);
    if (number != next)
        REFUSE("the log ends with message %lld, not %d", (long long)number - 1, next - 1);
    const tl_check_report report = {0};
    if (tl_partition_check(partition, &report, &err) != 0)
        REFUSE("the check finds damage");
}

int main(void) {
    uint64_t random = 20261127;
    word last = {0, -1, -1};
    unsigned arrived = 0, again = 0;
    kit_install();
    kit_directory(base, "kills");
    for (int trial = 0; trial < TRIALS; trial++) {
        int fds[2];
        CHECK(pipe(fds) == 0);
        uint64_t seed = check_random(&random);
        static const uint32_t most[] = {[RARE] = 80, [APPEND] = 240, [ANY] = 900};
        wanted = (seed & 3) < 2 ? RARE : (seed & 3) == 2 ? APPEND : ANY;
        countdown = 1 + (int)((seed >> 8) % most[wanted]);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(fds[0]);
            live(seed, last.next, fds[1]);
        }
        close(fds[1]);
        word said;
        while (read(fds[0], &said, sizeof said) == sizeof said) {
            if (last.name_id >= 0 && said.name_id != last.name_id)
                REFUSE("trial %d: the name had the producer id %lld, epoch %d, and has now %lld, epoch %d", trial,
                       (long long)last.name_id, last.epoch, (long long)said.name_id, said.epoch);
            CHECK(said.epoch > last.epoch || (said.epoch == last.epoch && said.next > last.next));
            last = said;
        }
        close(fds[0]);
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
            note_kill();
        else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            REFUSE("trial %d: a child ended with %x", trial, status);
        tl_partition *partition = NULL;
        tl_store *store = enter(&partition);
        int64_t offset = -1;
        int there = send_number(partition, last.next, batch_of(last.next), &offset);
        CHECK(offset == last.next);
        arrived += (unsigned)there;
        again += !there;
        last.next += batch_of(last.next);
        verify(partition, last.next);
        tl_producer name;
        tl_error err = {0};
        CHECK(tl_producer_open(store, "till", 4, &name, &err) == TL_OK);
        CHECK(tl_producer_epoch(&name) > last.epoch);
        last.epoch = tl_producer_epoch(&name);
        last.name_id = name.producer_id;
        tl_partition_release(partition);
        if (trial % 7 == 0) /* another boot, that lost nothing: everybody dies with the store open */
            CHECK(tl_store_sync(store, &err) == TL_OK);
        CHECK(tl_store_close(store, &err) == TL_OK);
        tl_store_free(store);
    }
    unsigned total = 0, own = 0;
    for (unsigned i = 0; i < point_count; i++) {
        total += kills[i];
        own += (is_rare(points[i]) || is_append(points[i])) && kills[i] >= 5;
        printf("%4u at %s\n", kills[i], points[i]);
    }
    printf("%u kills at %u points; the batch under way had arrived %u times, and not %u times\n", total, point_count, arrived,
           again);
    fflush(stdout);
    CHECK(total > TRIALS / 2 && own >= 12 && arrived > 5 && again > 20);
    kit_remove(AT_FDCWD, base);
    return check_report();
}
