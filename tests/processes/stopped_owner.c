/* How does a test get a process that is stopped while it holds a partition's lock? Imports log.h.
 *
 * stopped_owner STORE SLOT CHANNEL_ID: appends one message to the partition in SLOT of the channel (32 hex digits). With
 * TL_STOP=append.copied:1 in the environment it stops itself, by SIGSTOP, with the lock held; it says "appended" when it
 * was continued and is done. */
#include "tidelog/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(int status, const tl_error *err, const char *what) {
    if (status >= 0)
        return;
    fprintf(stderr, "%s: %s (%s)\n", what, tl_status_name(status), err->what == NULL ? "" : err->what);
    exit(1);
}

int main(int argc, char **argv) {
    uint8_t channel[16];
    if (argc != 4 || strlen(argv[3]) != 32)
        return 2;
    for (size_t i = 0; i < sizeof channel; i++) {
        const char digits[3] = {argv[3][2 * i], argv[3][2 * i + 1], 0};
        channel[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    const tl_store_options options = {.flush_interval_ms = 1000, .lock_timeout_ms = 5000};
    tl_store *store = NULL;
    tl_partition *partition = NULL;
    tl_error err = {0};
    tl_recovery recovery;
    int state = 0;
    expect(tl_store_open(argv[1], &options, &store, &state, &recovery, &err), &err, "open");
    if (state != TL_STORE_JOINED)
        return 3;
    expect(tl_store_partition(store, (uint32_t)strtoul(argv[2], NULL, 10), channel, &partition, &err), &err, "partition");
    const tl_message message = {.value = (const uint8_t *)"stopped", .value_bytes = 7, .key_bytes = -1, .timestamp_ms = 1};
    tl_appended appended;
    expect(tl_partition_append_one(partition, &message, 0, &appended, &err), &err, "append");
    printf("appended\n");
    tl_partition_release(partition);
    expect(tl_store_close(store, &err), &err, "close");
    tl_store_free(store);
    return 0;
}
