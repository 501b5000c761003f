/* What do the processes of a life do: the one that is killed, the one that only looks, the keeper that has the store open
 * meanwhile? Imports life.h. Each is a fresh process with one thread. */
#define _GNU_SOURCE
#include "life.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static int (*true_identity)(int dir, tl_identity *out);

static int identity_of_boot(int dir, tl_identity *out) {
    int status = true_identity(dir, out);
    out->boot[0] += (uint64_t)m->boot;
    return status;
}

static int64_t clock_of_model(void) { return m->clock_ms; }

/* SIGKILL inside memcpy leaves any part of a batch: the bytes between tail and reserve are damaged before the death. */
static void tear(void) {
    char name[600];
    uint64_t state = m->tears;
    snprintf(name, sizeof name, "%s/shared", m->path);
    FILE *shared = fopen(name, "re");
    for (uint32_t i = 0; shared != NULL && i < m->partitions; i++) {
        const model_partition *p = &m->partition[i];
        tl_hot hot;
        uint64_t at = TL_SHARED_BLOCKS_AT + (uint64_t)(p->slot / TL_BLOCK_PARTITIONS) * TL_BLOCK_BYTES +
                      p->slot % TL_BLOCK_PARTITIONS * sizeof hot;
        if (p->state != PARTITION_LIVE || fseek(shared, (long)at, SEEK_SET) != 0 ||
            fread(&hot, sizeof hot, 1, shared) != 1 || hot.reserve <= hot.tail ||
            tl_place_ordinal(hot.reserve) != tl_place_ordinal(hot.tail))
            continue;
        snprintf(name, sizeof name, "%s/orders-%u/%020lld.log", m->path, p->number,
                 (long long)hot.active_base[tl_place_ordinal(hot.tail) & 1]);
        FILE *log = fopen(name, "r+e");
        uint32_t from = tl_place_position(hot.tail), until = tl_place_position(hot.reserve);
        from += (uint32_t)(model_random(&state) % (until - from));
        for (uint32_t kind = (uint32_t)model_random(&state) % 2; log != NULL && from < until; from++) {
            fseek(log, from, SEEK_SET);
            fputc(kind == 0 ? 0 : (int)(model_random(&state) & 255), log);
        }
        if (log != NULL)
            fclose(log);
    }
    if (shared != NULL)
        fclose(shared);
}

static void die_here(const char *name) {
    if (m->point[0] == 0 || strcmp(name, m->point) != 0 || tl_point_hits(name) != m->nth)
        return;
    m->killed = true;
    if (m->tears != 0 && (strcmp(name, "append.copied") == 0 || strcmp(name, "append_many.copied") == 0 ||
                          strcmp(name, "append.reserved") == 0))
        tear();
    raise(SIGKILL);
}

static void note_hits(const char *name) {
    die_here(name);
    model_point *point = model_point_of(name);
    if (point == NULL)
        return;
    if (tl_point_hits(name) == 1)
        point->runs++;
    point->hits++;
}

static void prepare_child(unsigned seconds) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    true_identity = tl_os_table.identity;
    tl_os_table.identity = identity_of_boot;
    tl_os_table.now_ms = clock_of_model;
    alarm(seconds);
}

void child_run(const step *s, uint64_t seed) {
    prepare_child(WATCHDOG_SECONDS);
    tl_point_hook = note_hits;
    int state = 0;
    tl_error err = {0};
    tl_store *store = work_open(&state);
    model_doing("make the store ready");
    model_expect_ok(tl_store_ready(store, &err), &err, "ready");
    bool alone = state == TL_STORE_RECOVERED;
    if (alone != (s->found != FOUND_KEEPER))
        model_fail("the store was %s, but %s", alone ? "recovered" : "joined",
                   alone ? "a keeper has it open" : "nobody has it open");
    verify_store(store, alone);
    work_run(store, seed, 10 + (uint32_t)(seed % 50));
    if (s->end == 'c')
        work_close(store);
    _exit(0);
}

/* A process that only looks. It may be told that the store has to be recovered first; it changes no byte of it. */
void child_look(void) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 5000, .look = true, .no_housekeeper = true};
    prepare_child(WATCHDOG_SECONDS);
    tl_store *store = NULL;
    tl_error err = {0};
    int state = 0;
    model_doing("open the store to look at it");
    int status = tl_store_open(m->path, &options, &store, &state, NULL, &err);
    if (status == TL_EUNSUPPORTED || status == TL_ENOTFOUND)
        _exit(0);
    model_expect_ok(status, &err, "open to look");
    verify_look(store);
    work_close(store);
    _exit(0);
}

/* --- the keeper --- */

typedef struct first_slot {
    uint32_t slot;
    uint8_t channel[16];
} first_slot;

static int take_first(void *context, uint32_t slot, const tl_partition_config *config) {
    first_slot *first = context;
    first->slot = slot;
    memcpy(first->channel, config->channel, 16);
    return 1;
}

void child_keep(int in, int out) {
    prepare_child(120);
    int state = 0;
    tl_error err = {0};
    char byte = 'r';
    tl_store *store = work_open(&state);
    model_expect_ok(tl_store_ready(store, &err), &err, "ready");
    if (write(out, &byte, 1) != 1)
        _exit(5);
    for (;;) {
        struct pollfd ready = {.fd = in, .events = POLLIN};
        first_slot first;
        tl_partition *partition = NULL;
        if (poll(&ready, 1, 0) > 0 && read(in, &byte, 1) == 1)
            break;
        if (tl_store_each_partition(store, &first, take_first) != 1 ||
            tl_store_partition(store, first.slot, first.channel, &partition, NULL) < 0) {
            usleep(2000);
            continue;
        }
        uint64_t seen = tl_partition_tail(partition);
        (void)tl_store_wait(store, &partition, &seen, 1, 5000000, 0, NULL, 0, NULL, &err);
        tl_partition_release(partition);
    }
    if (byte == 'c')
        work_close(store);
    _exit(0);
}
