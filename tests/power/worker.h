/* What do the roles of the worker share: the store, its partitions, messages by number, and lines that are whole?
 *
 * Imports log.h, values.h. Single-threaded but for the store's own housekeeping. */
#ifndef TIDELOG_POWER_WORKER_H
#define TIDELOG_POWER_WORKER_H

#include "tidelog/log.h"
#include "values.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST_PARTITIONS 8
#define BATCH 20
#define SEGMENT_BYTES 65536u

static uint64_t random_state;
static tl_store *store;
static tl_partition *partitions[MOST_PARTITIONS];
static uint32_t partition_count;

__attribute__((format(printf, 1, 2), noreturn)) static void broken(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "power_worker: BROKEN: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t pick(uint64_t n) {
    random_state += 0x9e3779b97f4a7c15u;
    return scramble(random_state) % n;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) { /* one write, so that lines of a killed process are whole */
    char line[200];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(1, line, (size_t)bytes) != bytes)
        _exit(0); /* whoever listened is gone */
}

static long long time_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void channel_of(uint32_t number, uint8_t out[16]) { memset(out, 'a' + (int)number, 16); }

static int find_slot(void *context, uint32_t slot, const tl_partition_config *config) {
    tl_error err = {0};
    uint32_t number = config->partition;
    (void)context;
    if (number >= MOST_PARTITIONS)
        return 0;
    int status = tl_store_partition(store, slot, config->channel, &partitions[number], &err);
    if (status < 0)
        broken("orders-%u cannot be opened: %s, %s", number, tl_status_name(status), err.what);
    partition_count = partition_count > number + 1 ? partition_count : number + 1;
    return 0;
}

static tl_recovery open_store(const char *directory, bool create, int64_t flush_ms) {
    const tl_store_options options = {.flush_interval_ms = flush_ms, .lock_timeout_ms = 10000, .create = create};
    tl_error err = {0};
    tl_recovery recovery = {0};
    int state;
    int status = tl_store_open(directory, &options, &store, &state, &recovery, &err);
    if (status == TL_OK)
        status = tl_store_ready(store, &err);
    if (status < 0)
        broken("the store cannot be opened: %s, %s (%s at %lld, errno %d)", tl_status_name(status), err.what, err.path,
               (long long)err.position, err.sys_errno);
    (void)tl_store_each_partition(store, NULL, find_slot);
    return recovery;
}

static void close_store(void) {
    tl_error err = {0};
    for (uint32_t i = 0; i < partition_count; i++)
        tl_partition_release(partitions[i]);
    partition_count = 0;
    int status = tl_store_close(store, &err);
    if (status < 0)
        broken("the store cannot be closed: %s, %s (%s)", tl_status_name(status), err.what, err.path);
    tl_store_free(store);
}

static int prepare(const char *directory, uint32_t count) {
    tl_partition_config configs[MOST_PARTITIONS];
    uint32_t slots[MOST_PARTITIONS];
    tl_error err = {0};
    memset(configs, 0, sizeof configs);
    open_store(directory, true, 1000);
    for (uint32_t i = 0; i < count; i++) {
        channel_of(i, configs[i].channel);
        configs[i].partition = i;
        snprintf(configs[i].directory, sizeof configs[i].directory, "orders-%u", i);
        configs[i].segment_bytes = SEGMENT_BYTES;
        configs[i].segment_ms = configs[i].retention_ms = configs[i].retention_bytes = -1;
        configs[i].max_message_bytes = 1 << 20;
    }
    if (tl_store_create_partitions(store, configs, count, slots, &err) < 0)
        broken("partitions cannot be made: %s (%s)", err.what, err.path);
    close_store();
    return 0;
}

static int append(tl_partition *partition, uint32_t number, int count, unsigned flags, tl_appended *out,
                  tl_error *err) {
    static uint8_t values[BATCH][MOST_VALUE + 16];
    tl_message messages[BATCH];
    for (int i = 0; i < count; i++) {
        uint32_t n = number + (uint32_t)i;
        fill_value(n, values[i]);
        messages[i] = (tl_message){.value = values[i],
                                   .value_bytes = (int32_t)value_bytes_of(n),
                                   .key_bytes = -1,
                                   .timestamp_ms = timestamp_of(n)};
    }
    const tl_append what = {.messages = messages, .count = (size_t)count};
    return count == 1 ? tl_partition_append_one(partition, messages, flags, out, err)
                      : tl_partition_append(partition, &what, flags, out, err);
}

static void on_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                       int64_t next) {
    (void)context;
    broken("check: %s at %lld: %s (offsets %lld to %lld)", file, (long long)position, what, (long long)first,
           (long long)next);
}

#endif
