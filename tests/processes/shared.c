/* How do the processes of this lane open the store, make messages and complain? Imports shared.h. */
#define _GNU_SOURCE
#include "shared.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

board *b;

void wrong(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "WRONG: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(3);
}

void expect_ok(int status, const tl_error *err, const char *what) {
    if (status < 0)
        wrong("%s: %s (%s; %s; position %lld; errno %d; %s)", what, tl_status_name(status),
              err->what == NULL ? "" : err->what, err->path, (long long)err->position, err->sys_errno, err->detail);
}

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void sleep_us(int64_t us) {
    const struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

uint64_t random_of(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

tl_store *enter(bool housekeeper) {
    const tl_store_options options = {
        .flush_interval_ms = 50, .lock_timeout_ms = 5000, .create = true, .no_housekeeper = !housekeeper};
    tl_store *store = NULL;
    tl_error err = {0};
    int state = 0;
    tl_recovery recovery;
    expect_ok(tl_store_open(b->path, &options, &store, &state, &recovery, &err), &err, "open");
    if (recovery.failed_partitions != 0)
        wrong("recovery could not repair the partition");
    expect_ok(tl_store_ready(store, &err), &err, "ready");
    return store;
}

tl_partition *partition_of(tl_store *store) {
    tl_partition *partition = NULL;
    tl_error err = {0};
    expect_ok(tl_store_partition(store, b->slot, channel_id, &partition, &err), &err, "take a handle");
    return partition;
}

void leave(tl_store *store, tl_partition *partition) {
    tl_error err = {0};
    tl_partition_release(partition);
    expect_ok(tl_store_close(store, &err), &err, "close");
    tl_store_free(store);
}

uint32_t message_bytes(uint32_t self, uint64_t sequence) {
    uint64_t state = self * 1000003u + sequence;
    uint64_t r = random_of(&state);
    return 16 + (uint32_t)(r % 100 == 0 ? r >> 32 & 4095 : r >> 32 & 127);
}

void message_fill(uint32_t self, uint64_t sequence, uint8_t *out) {
    uint32_t bytes = message_bytes(self, sequence);
    uint64_t state = sequence << 8 | self;
    for (uint32_t i = 16; i < bytes; i += 8) {
        uint64_t r = random_of(&state);
        memcpy(out + i, &r, bytes - i < 8 ? bytes - i : 8);
    }
    memcpy(out, &self, 4);
    memcpy(out + 4, &bytes, 4);
    memcpy(out + 8, &sequence, 8);
}
