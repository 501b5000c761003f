/* What does a program meet that fills a disk, frees it and goes on?
 *
 * Imports worker.h. */
#ifndef TIDELOG_POWER_FULL_ROLE_H
#define TIDELOG_POWER_FULL_ROLE_H

#include "worker.h"

/* Appends until the disk is full, syncing now and then; returns how many messages went in. */
static uint64_t fill_up(uint32_t *number) {
    uint64_t sent = 0;
    for (unsigned refused = 0; refused < 2 * partition_count;) {
        uint32_t p = (uint32_t)pick(partition_count);
        tl_appended out = {0};
        tl_error err = {0};
        int count = pick(2) == 0 ? 1 : BATCH;
        int status = append(partitions[p], *number, count, pick(4) == 0 ? TL_APPEND_THROUGH_FILE : 0, &out, &err);
        if (status == TL_ENOSPC) {
            refused++;
            continue;
        }
        if (status < 0)
            broken("on a disk that fills up an append gets %s, %s (%s, errno %d)", tl_status_name(status), err.what,
                   err.path, err.sys_errno);
        *number += (uint32_t)count;
        sent += (uint64_t)count;
        if (pick(200) == 0 && (status = tl_partition_sync(partitions[p], out.tail, -1, &err)) < 0)
            broken("on a disk that fills up a sync gets %s, %s (%s, errno %d)", tl_status_name(status), err.what,
                   err.path, err.sys_errno);
    }
    return sent;
}

static void read_back(void) {
    for (uint32_t p = 0; p < partition_count; p++) {
        tl_bounds bounds;
        tl_error err = {0};
        tl_chunk chunk = {0};
        tl_read_end end;
        const tl_check_report report = {.finding = on_finding};
        if (tl_partition_bounds(partitions[p], &bounds, &err) < 0)
            broken("no bounds on a full disk: %s", err.what);
        tl_cursor cursor = {.offset = bounds.log_start};
        int64_t next = bounds.log_start;
        for (;;) {
            tl_chunk_clear(&chunk);
            int status = tl_partition_read(partitions[p], &cursor, &chunk, 1000, 1 << 20, 0, &end, &err);
            if (status < 0)
                broken("on a full disk a read at %lld gets %s, %s (%s)", (long long)next, tl_status_name(status),
                       err.what, err.path);
            if (chunk.count == 0)
                break;
            for (size_t i = 0; i < chunk.count; i++) {
                const uint8_t *value = chunk.bytes + chunk.records[i].value_at;
                uint64_t number = number_in(value, (size_t)chunk.records[i].value_bytes);
                if (chunk.records[i].offset != next ||
                    !is_value((uint32_t)number, value, (size_t)chunk.records[i].value_bytes))
                    broken("on a full disk offset %lld does not hold what was sent", (long long)next);
                next++;
            }
        }
        if (next != bounds.log_end)
            broken("on a full disk the log can be read to %lld only, its end is %lld", (long long)next,
                   (long long)bounds.log_end);
        tl_chunk_free(&chunk);
        if (tl_partition_check(partitions[p], &report, &err) < 0)
            broken("on a full disk check fails: %s (%s)", err.what, err.path);
    }
}

/* Takes what is left, so that freeing it is what makes room again, and not a trim. */
static int take_ballast(const char *path) {
    static uint8_t bytes[65536];
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    memset(bytes, 'x', sizeof bytes);
    size_t size = sizeof bytes;
    while (fd >= 0 && size > 0)
        if (write(fd, bytes, size) < (ssize_t)size)
            size /= 2;
    if (fd >= 0)
        close(fd);
    return fd;
}

static int full(const char *directory, int cycles) {
    char ballast[4096];
    uint32_t number = 1;
    uint64_t sent = 0;
    uint8_t channel[16];
    uint32_t slot = 0;
    tl_error err = {0};
    snprintf(ballast, sizeof ballast, "%s/../ballast", directory);
    prepare(directory, 3);
    open_store(directory, false, 100);
    channel_of(0, channel);
    if (tl_store_offset_slot(store, "readers", 7, channel, 0, true, &slot, &err) < 0)
        broken("an offset slot cannot be made: %s", err.what);
    for (int cycle = 0; cycle < cycles; cycle++) {
        bool by_ballast = cycle % 2 == 1;
        if (by_ballast && take_ballast(ballast) < 0)
            broken("the ballast file cannot be made: errno %d", errno);
        uint64_t now = fill_up(&number);
        sent += now;
        read_back();
        for (int i = 0; i < 20; i++) {
            int64_t offset = cycle * 100 + i;
            int status = tl_offsets_set(tl_store_offsets(store), slot, offset, 1, true);
            if (status == TL_OK)
                status = tl_store_sync_offsets(store, &err);
            if (status < 0)
                broken("on a full disk a synced commit gets %s, %s (%s, errno %d)", tl_status_name(status), err.what,
                       err.path, err.sys_errno);
        }
        int status = tl_store_sync(store, &err);
        if (status < 0)
            broken("on a full disk a flush gets %s, %s (%s, errno %d)", tl_status_name(status), err.what, err.path,
                   err.sys_errno);
        if (by_ballast && unlink(ballast) < 0)
            broken("the ballast file cannot be removed: errno %d", errno);
        for (uint32_t p = 0; p < partition_count; p++) {
            tl_bounds bounds;
            if (tl_partition_bounds(partitions[p], &bounds, &err) < 0)
                broken("no bounds on a full disk: %s", err.what);
            int64_t before =
                by_ballast ? bounds.log_start
                           : bounds.log_end - (int64_t)pick((uint64_t)(bounds.log_end - bounds.log_start) / 4 + 1);
            status = before > bounds.log_start ? tl_partition_trim(partitions[p], before, &err) : TL_OK;
            if (status < 0 && !(status == TL_ENOSPC && before == bounds.log_end))
                broken("on a full disk a trim gets %s, %s (%s, errno %d)", tl_status_name(status), err.what, err.path,
                       err.sys_errno);
        }
        for (uint32_t p = 0; p < partition_count; p++) { /* without opening anything again */
            tl_appended out;
            status = append(partitions[p], number, 1, 0, &out, &err);
            if (status < 0)
                broken("space is free again and an append to orders-%u gets %s, %s (%s, errno %d)", p,
                       tl_status_name(status), err.what, err.path, err.sys_errno);
            number++;
            sent++;
        }
    }
    read_back();
    close_store();
    printf("FULL %d times, %llu messages\n", cycles, (unsigned long long)sent);
    return 0;
}

#endif
