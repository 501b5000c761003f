/* Does a store on a real file system keep what it acknowledged, when the file system is cut off or full?
 *
 * Imports worker.h, full_role.h. One process per role; the script that starts them (cuts.py, full_disk.py) mounts and unmounts.
 *
 *   power_worker prepare DIR PARTITIONS        makes the store and its partitions
 *   power_worker work DIR WORKER FIRST SEED    appends until something fails or it is killed; every acknowledgement is a
 *                                              line on standard output, written after the call returned
 *   power_worker verify DIR                    reads such lines, and LOST lines, from standard input; prints what is left
 *   power_worker full DIR CYCLES SEED          fills the disk, frees it, goes on, CYCLES times
 *
 * Lines:  A partition offset count number synced   acknowledged; synced 0 or 1
 *         C worker offset                           a commit acknowledged as synced
 *         T partition offset                        a trim acknowledged
 *         those three end with `@ ns`: the monotonic time at which the call had returned
 *         LOST partition from until                 found lost by an earlier verification: gone for ever
 *         LEFT partition until log_end              printed by verify
 *         E status                                  why a worker ended
 * Exit codes: 0 fine, 1 a promise is broken (the reason is on standard error), 2 wrong use. */
#define _GNU_SOURCE
#include "full_role.h"
#include "worker.h"

/* --- work --- */

static uint32_t worker;
static uint32_t group_slot;

/* Returns the status that ends the work. */
static int step(uint32_t *number, tl_error *err) {
    uint32_t p = (uint32_t)pick(partition_count);
    uint64_t dice = pick(100);
    tl_appended out;
    int status;
    if (dice < 92) {
        bool synced = dice < 25;
        int count = pick(3) == 0 ? 1 + (int)pick(BATCH) : 1;
        status = append(partitions[p], *number, count, synced ? TL_APPEND_THROUGH_FILE : 0, &out, err);
        if (status < 0)
            return status;
        uint32_t first = *number;
        *number += (uint32_t)count;
        say("A %u %lld %d %u 0 @ %lld\n", p, (long long)out.base_offset, count, first, time_ns());
        if (synced && (status = tl_partition_sync(partitions[p], out.tail, -1, err)) == TL_OK)
            say("A %u %lld %d %u 1 @ %lld\n", p, (long long)out.base_offset, count, first, time_ns());
        return status;
    }
    tl_bounds bounds;
    if ((status = tl_partition_bounds(partitions[p], &bounds, err)) < 0)
        return status;
    if (dice < 97) {
        tl_offset_word word;
        (void)tl_offsets_read(tl_store_offsets(store), group_slot, &word, NULL);
        int64_t offset = (word.offset < 0 ? 0 : word.offset) + 1 + (int64_t)pick(5);
        status = tl_offsets_set(tl_store_offsets(store), group_slot, offset, 1, true);
        if (status == TL_OK && (status = tl_store_sync_offsets(store, err)) == TL_OK)
            say("C %u %lld @ %lld\n", worker, (long long)offset, time_ns());
        return status;
    }
    if (worker == 0 && bounds.log_end - bounds.log_start > 3000) {
        int64_t before = bounds.log_end - 1500;
        if ((status = tl_partition_trim(partitions[p], before, err)) == TL_OK)
            say("T %u %lld @ %lld\n", p, (long long)before, time_ns());
    }
    return status;
}

static int work(const char *directory, uint32_t first) {
    tl_error err = {0};
    uint8_t channel[16];
    char group[16];
    open_store(directory, false, 100);
    channel_of(0, channel);
    int bytes = snprintf(group, sizeof group, "worker-%u", worker);
    int status = tl_store_offset_slot(store, group, (size_t)bytes, channel, 0, true, &group_slot, &err);
    while (status == TL_OK)
        status = step(&first, &err);
    say("E %s, %s (%s, errno %d)\n", tl_status_name(status), err.what == NULL ? "" : err.what, err.path, err.sys_errno);
    return 0;
}

/* --- verify --- */

typedef struct ack {
    int64_t offset;
    uint32_t number;
    bool synced;
} ack;
typedef struct lost {
    int64_t from, until;
} lost;

static struct {
    ack *acks;
    size_t count, room;
    lost lost[4096];
    size_t lost_count;
    int64_t start;
} told[MOST_PARTITIONS];
static int64_t commits[64];

static int by_offset(const void *a, const void *b) {
    const ack *x = a, *y = b;
    return x->offset != y->offset ? (x->offset > y->offset) - (x->offset < y->offset) : (int)y->synced - (int)x->synced;
}

static void read_lines(void) {
    char line[300];
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned p, number, synced;
        long long offset, until;
        int count;
        if (sscanf(line, "A %u %lld %d %u %u", &p, &offset, &count, &number, &synced) == 5 && p < MOST_PARTITIONS) {
            for (int i = 0; i < count; i++) {
                if (told[p].count == told[p].room) {
                    told[p].room = told[p].room == 0 ? 1024 : 2 * told[p].room;
                    told[p].acks = realloc(told[p].acks, told[p].room * sizeof *told[p].acks);
                }
                told[p].acks[told[p].count++] = (ack){offset + i, number + (uint32_t)i, synced != 0};
            }
        } else if (sscanf(line, "C %u %lld", &p, &offset) == 2 && p < 64) {
            commits[p] = offset > commits[p] ? offset : commits[p];
        } else if (sscanf(line, "T %u %lld", &p, &offset) == 2 && p < MOST_PARTITIONS) {
            told[p].start = offset > told[p].start ? offset : told[p].start;
        } else if (sscanf(line, "LOST %u %lld %lld", &p, &offset, &until) == 3 && p < MOST_PARTITIONS) {
            if (told[p].lost_count == sizeof told[p].lost / sizeof *told[p].lost)
                broken("too many LOST lines");
            told[p].lost[told[p].lost_count++] = (lost){offset, until};
        }
    }
}

static void verify_partition(uint32_t p) {
    tl_error err = {0};
    tl_bounds bounds;
    const tl_check_report report = {.finding = on_finding};
    int status = tl_partition_bounds(partitions[p], &bounds, &err);
    if (status < 0)
        broken("orders-%u: no bounds: %s, %s", p, tl_status_name(status), err.what);
    if ((status = tl_partition_check(partitions[p], &report, &err)) < 0)
        broken("orders-%u: check fails: %s, %s (%s)", p, tl_status_name(status), err.what, err.path);
    if (bounds.log_start < told[p].start)
        broken("orders-%u: it was trimmed to %lld and starts at %lld", p, (long long)told[p].start,
               (long long)bounds.log_start);
    qsort(told[p].acks, told[p].count, sizeof *told[p].acks, by_offset);
    tl_cursor cursor = {.offset = bounds.log_start};
    tl_chunk chunk = {0};
    size_t at = 0;
    int64_t missing = INT64_MAX, last = bounds.log_start - 1;
    for (;;) {
        tl_read_end end;
        tl_chunk_clear(&chunk);
        status = tl_partition_read(partitions[p], &cursor, &chunk, 1000, 1 << 20, 0, &end, &err);
        if (status < 0)
            broken("orders-%u: reading at %lld fails: %s, %s (%s at %lld)", p, (long long)cursor.offset,
                   tl_status_name(status), err.what, err.path, (long long)err.position);
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++) {
            const tl_record *record = &chunk.records[i];
            const uint8_t *value = chunk.bytes + record->value_at;
            uint64_t number = number_in(value, (size_t)record->value_bytes);
            long long offset = (long long)record->offset;
            if (number > UINT32_MAX || !is_value((uint32_t)number, value, (size_t)record->value_bytes))
                broken("orders-%u: the message at %lld has bytes that nobody sent", p, offset);
            for (; at < told[p].count && told[p].acks[at].offset < offset; at++)
                if (told[p].acks[at].offset >= bounds.log_start)
                    missing = told[p].acks[at].offset < missing ? told[p].acks[at].offset : missing;
            if (missing <= offset)
                broken("orders-%u: the message at %lld is lost, the one at %lld is there", p, (long long)missing,
                       offset);
            for (; at < told[p].count && told[p].acks[at].offset == offset; at++)
                if (told[p].acks[at].number != number)
                    broken("orders-%u: offset %lld was message %u and is %llu now", p, offset, told[p].acks[at].number,
                           (unsigned long long)number);
            for (size_t k = 0; k < told[p].lost_count; k++)
                if (offset >= told[p].lost[k].from && offset < told[p].lost[k].until)
                    broken("orders-%u: the message at %lld was lost in an earlier cut and is there again", p, offset);
            last = offset;
        }
    }
    tl_chunk_free(&chunk);
    int64_t most = last;
    for (; at < told[p].count; at++) {
        if (told[p].acks[at].offset < bounds.log_start)
            continue;
        if (told[p].acks[at].synced)
            broken("orders-%u: the message at %lld was acknowledged as synced and is lost", p,
                   (long long)told[p].acks[at].offset);
        most = told[p].acks[at].offset > most ? told[p].acks[at].offset : most;
    }
    if (bounds.log_end <= most)
        broken("orders-%u: the log ends at %lld, offset %lld was handed out before", p, (long long)bounds.log_end,
               (long long)most);
    printf("LEFT %u %lld %lld\n", p, (long long)last + 1, (long long)bounds.log_end);
}

static int verify(const char *directory) {
    for (int i = 0; i < 64; i++)
        commits[i] = -1;
    read_lines();
    tl_recovery recovery = open_store(directory, false, 1000);
    if (recovery.failed_partitions > 0)
        broken("%u partitions cannot be recovered", recovery.failed_partitions);
    for (uint32_t p = 0; p < partition_count; p++)
        verify_partition(p);
    for (uint32_t i = 0; i < 64; i++) {
        char group[16];
        uint8_t channel[16];
        uint32_t slot;
        tl_offset_word word = {.offset = -1};
        channel_of(0, channel);
        int bytes = snprintf(group, sizeof group, "worker-%u", i);
        if (tl_store_offset_slot(store, group, (size_t)bytes, channel, 0, false, &slot, NULL) == TL_OK)
            (void)tl_offsets_read(tl_store_offsets(store), slot, &word, NULL);
        if (word.offset < commits[i])
            broken("the offset %lld of worker %u was committed as synced, %lld is there", (long long)commits[i], i,
                   (long long)word.offset);
    }
    printf("RECOVERED %s %u partitions, %llu bytes scanned, %llu torn\n",
           recovery.same_boot ? "same boot,"
           : recovery.clean   ? "clean,"
                              : "after a cut,",
           recovery.partitions, (unsigned long long)recovery.scanned_bytes, (unsigned long long)recovery.torn_bytes);
    close_store();
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 4 && strcmp(argv[1], "prepare") == 0)
        return prepare(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
    if (argc == 6 && strcmp(argv[1], "work") == 0) {
        worker = (uint32_t)strtoul(argv[3], NULL, 10);
        random_state = strtoull(argv[5], NULL, 10);
        return work(argv[2], (uint32_t)strtoul(argv[4], NULL, 10));
    }
    if (argc == 3 && strcmp(argv[1], "verify") == 0)
        return verify(argv[2]);
    if (argc == 5 && strcmp(argv[1], "full") == 0) {
        random_state = strtoull(argv[4], NULL, 10);
        return full(argv[2], (int)strtol(argv[3], NULL, 10));
    }
    fprintf(stderr, "usage: power_worker prepare|work|verify|full DIR ... (see its first comment)\n");
    return 2;
}
