/* timeout_s: 240
 *
 * Is the base offset of a segment that one's, whatever others do to the partition while it is asked for?
 *
 * Imports store_kit.h, handles.h. Who asks is stopped where it has read one shared word and not yet the next (TL_BETWEEN).
 * Meanwhile another process appends over the ends of segments, and is killed at the nth point of its rolls; n goes up until
 * it gets through ROLLS of them. What the bases are is told by the names of the files. */
#define _GNU_SOURCE
#include "../../native/src/handles.h"
#include "store_kit.h"

#include <sys/prctl.h>

enum { SEGMENT = 4096, ROLLS = 3, BEFORE = 5, MOST_SEGMENTS = 64 };

static char path[200];
static tl_error error;

#define MUST(call) KIT_MUST(call, error)

/* Message `offset + 1` stands at every offset, so nobody has to be told what was appended. */
static void append(tl_partition *partition) {
    tl_bounds bounds;
    uint8_t text[KIT_TEXT];
    tl_appended appended;
    MUST(tl_partition_bounds(partition, &bounds, &error));
    const tl_message message = kit_message((uint64_t)bounds.log_end + 1, text);
    MUST(tl_partition_append_one(partition, &message, 0, &appended, &error));
    CHECK(appended.base_offset == bounds.log_end);
}

static uint32_t active(const tl_partition *partition) { return tl_place_ordinal(tl_partition_tail(partition)); }

/* --- who appends meanwhile --- */

static long kill_at, points; /* kill_at 0: never */

static void die(const char *name) {
    if (strncmp(name, "roll.", 5) == 0 && ++points == kill_at)
        raise(SIGKILL);
}

/* In a process of its own: true when it was killed in a roll, false when it came through ROLLS of them. */
static bool roll_and_die(long nth) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        tl_store *store;
        tl_partition *partition;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(30);
        tl_yield_hook = tl_between_hook = NULL;
        points = 0;
        kill_at = nth;
        MUST(kit_open(path, &store, NULL, &error));
        MUST(tl_store_partition(store, 0, kit_channel, &partition, &error));
        tl_point_hook = die;
        for (uint32_t until = active(partition) + ROLLS; active(partition) < until;)
            append(partition);
        tl_point_hook = NULL;
        raise(SIGTERM); /* nothing is closed */
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
    return WTERMSIG(status) == SIGKILL;
}

/* --- what is right --- */

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* A roll that did not get to the tail may have left one more file, behind all others. */
static int64_t base_by_name(uint32_t ordinal) {
    static int64_t bases[MOST_SEGMENTS];
    char directory[256];
    size_t count = 0;
    snprintf(directory, sizeof directory, "%s/orders-0", path);
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (strlen(entry->d_name) == 24 && strcmp(entry->d_name + 20, ".log") == 0 && count < MOST_SEGMENTS)
            bases[count++] = strtoll(entry->d_name, NULL, 10);
    closedir(stream);
    qsort(bases, count, sizeof *bases, by_value);
    CHECK(ordinal < count);
    return bases[ordinal];
}

/* Every message is at its offset; how many there are. */
static int64_t read_all(tl_partition *partition) {
    tl_cursor cursor = {.offset = 0};
    tl_chunk chunk = {0};
    int64_t offset = 0;
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        MUST(tl_partition_read(partition, &cursor, &chunk, 64, 1 << 20, 0, &end, &error));
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++, offset++)
            if (chunk.records[i].offset != offset || !kit_is(&chunk, &chunk.records[i], (uint64_t)offset + 1))
                REFUSE("offset %lld was read, or another message, instead of offset %lld", (long long)chunk.records[i].offset,
                       (long long)offset);
    }
    tl_chunk_free(&chunk);
    return offset;
}

/* --- who is stopped --- */

static tl_store *store;
static tl_partition *partition;

static void enter(void) {
    kit_directory(path, "bases");
    uint32_t slot;
    MUST(kit_open(path, &store, NULL, &error));
    MUST(tl_store_ready(store, &error));
    MUST(kit_create(store, 0, SEGMENT, &slot, &error));
    MUST(tl_store_partition(store, slot, kit_channel, &partition, &error));
    for (int i = 0; i < BEFORE; i++)
        append(partition);
}

static void leave(void) {
    tl_partition_release(partition);
    MUST(tl_store_close(store, &error));
    tl_store_free(store);
    kit_remove(AT_FDCWD, path);
}

static long nth;
static bool killed, stopped;

static void stop_once(void) {
    tl_between_hook = NULL;
    stopped = true;
    killed = roll_and_die(nth);
}

/* Whoever asks for the base of the segment that was the active one. */
static void check_base(void) {
    for (nth = 1, killed = true; killed; nth++) {
        enter();
        for (uint32_t asked = 0; asked < 2; asked++) { /* in each half of the pair of bases */
            int64_t base = -1;
            stopped = false;
            CHECK(active(partition) == asked);
            tl_between_hook = stop_once;
            MUST(tl_segment_base(partition, asked, &base, &error));
            tl_between_hook = NULL;
            CHECK(stopped);
            if (base != base_by_name(asked))
                REFUSE("a roller was killed at point %ld: segment %u is said to begin at %lld, not at %lld", nth, asked,
                       (long long)base, (long long)base_by_name(asked));
            if (active(partition) != 0)
                break;
            while (active(partition) == 0)
                append(partition);
        }
        CHECK(read_all(partition) >= BEFORE);
        leave();
    }
    CHECK(nth > 6 * ROLLS);
}

/* Housekeeping, while it takes down where the log ends. */
static void check_capture(void) {
    for (nth = 1, killed = true; killed; nth++) {
        enter();
        tl_state state;
        stopped = false;
        tl_between_hook = stop_once;
        CHECK(tl_partition_capture(partition, &state));
        tl_between_hook = NULL;
        CHECK(stopped);
        int64_t base = base_by_name(tl_place_ordinal(state.recovery_point));
        if (state.base_offset != base)
            REFUSE("a roller was killed at point %ld: the captured segment is said to begin at %lld, not at %lld", nth,
                   (long long)state.base_offset, (long long)base);
        CHECK(state.recovery_offset >= base && (tl_place_position(state.recovery_point) > 0) == (state.recovery_offset > base));
        leave();
    }
    CHECK(nth > 6 * ROLLS);
}

/* --- a checkpoint that was written so can be opened again --- */

static long yields, roll_at;

static void roll_at_yield(void) {
    if (++yields == roll_at) {
        tl_yield_hook = tl_between_hook = NULL;
        (void)roll_and_die(0);
    }
}

/* In a process of its own: housekeeping, with rolls of another one at its nth yield point, and then the power is cut.
 * Whether it came by that many. */
static bool housekeep_and_cut(void) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(60);
        MUST(kit_open(path, &store, NULL, &error));
        MUST(tl_store_ready(store, &error));
        MUST(tl_store_partition(store, 0, kit_channel, &partition, &error));
        append(partition);
        yields = 0;
        tl_yield_hook = tl_between_hook = roll_at_yield;
        MUST(tl_store_housekeep(store, &error));
        raise(yields >= roll_at ? SIGKILL : SIGTERM);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
    return WTERMSIG(status) == SIGKILL;
}

static void check_checkpoint(void) {
    bool reached = true;
    for (roll_at = 1; reached; roll_at++) {
        enter();
        tl_partition_release(partition);
        MUST(tl_store_close(store, &error));
        tl_store_free(store);
        reached = housekeep_and_cut();
        kit_boot++;
        tl_recovery recovery = {0};
        if (kit_open(path, &store, &recovery, &error) < 0)
            REFUSE("others rolled at yield point %ld of housekeeping: %s, %s", roll_at, error.what, error.path);
        MUST(tl_store_ready(store, &error));
        MUST(tl_store_partition(store, 0, kit_channel, &partition, &error));
        CHECK(recovery.failed_partitions == 0 && read_all(partition) > BEFORE);
        leave();
    }
    CHECK(roll_at > 3);
}

int main(void) {
    kit_install();
    check_base();
    check_capture();
    check_checkpoint();
    return check_report();
}
