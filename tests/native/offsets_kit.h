/* What do the programs that test the offset table alone share: the table in the current directory, and names for things?
 *
 * Imports check.h, offsets.h, os.h. Single-threaded. */
#ifndef TIDELOG_TEST_OFFSETS_KIT_H
#define TIDELOG_TEST_OFFSETS_KIT_H

#include "check.h"
#include "tidelog/offsets.h"
#include "tidelog/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int dir;
static tl_error err;

static tl_offsets *open_table(int mode) {
    tl_offsets *t = NULL;
    int rc = tl_offsets_open(dir, mode, &t, &err);
    if (rc != TL_OK)
        fprintf(stderr, "open: %s: %s\n", tl_status_name(rc), err.what);
    CHECK(rc == TL_OK && t != NULL);
    return t;
}

static void fill_id(uint8_t id[16], uint32_t n) {
    for (uint32_t i = 0; i < 16; i++)
        id[i] = (uint8_t)(n * 31 + i * (n | 1));
    memcpy(id, &n, 4);
}

static uint32_t group_of(tl_offsets *t, const char *name) {
    uint32_t g;
    CHECK(tl_offsets_group(t, name, strlen(name), true, &g, &err) == TL_OK);
    return g;
}

static uint32_t slot_of(tl_offsets *t, uint32_t group, uint32_t channel, uint32_t partition) {
    uint8_t id[16];
    uint32_t s;
    fill_id(id, channel);
    CHECK(tl_offsets_slot(t, group, id, partition, true, &s, &err) == TL_OK);
    return s;
}

#endif
