/* What becomes of the files of producers when segments are sealed, deleted, recovered and checked?
 *
 * Imports producers.h. Blocking; callable from any thread unless it says otherwise. Each walk has a table of its own, so
 * that nothing here holds up an append for longer than it takes to copy a file's name. */
#define _POSIX_C_SOURCE 200809L

#include "producers.h"

#include <fcntl.h>
#include <stdio.h>

/* --- sealed segments --- */

static int write_if_missing(void *context, tl_partition *partition, const tl_producers *producers, tl_error *err) {
    (void)context;
    return tl_producers_store_missing(partition, producers, err);
}

static int has_files(tl_partition *partition, tl_error *err) {
    tl_segment_files files;
    if (__atomic_load_n(&partition->cold->producers, __ATOMIC_ACQUIRE) == TL_PRODUCERS_NONE)
        return 0;
    int status = tl_segment_list(partition, ".producers", &files, err);
    tl_os->free(files.bases);
    return status < 0 ? status : files.count > 0;
}

int tl_producers_seal(tl_partition *partition, tl_error *err) {
    uint32_t active = tl_place_ordinal(tl_partition_tail(partition));
    int64_t base = 0;
    if (active == 0 || __atomic_load_n(&partition->cold->producers, __ATOMIC_ACQUIRE) != TL_PRODUCERS_SOME)
        return TL_OK;
    int status = tl_segment_base(partition, active, &base, err);
    if (status < 0 || tl_producers_file_exists(partition, base))
        return status;
    tl_producers walking;
    (void)tl_producers_enter(partition, false); /* two of a process would write one temporary name */
    status = tl_producers_begin(partition, &walking, active, err);
    if (status == TL_OK) {
        status = tl_producers_walk(partition, &walking, active, write_if_missing, NULL, err);
        tl_producers_end(&walking);
    }
    tl_producers_leave(partition);
    TL_POINT("producers.sealed");
    return status;
}

/* --- deleting --- */

static int keep(tl_partition *partition, uint32_t first_kept, int64_t base, tl_error *err) {
    tl_producers walking;
    int status = tl_producers_begin(partition, &walking, first_kept, err);
    if (status < 0)
        return status;
    if (walking.complete == tl_place(first_kept, 0)) { /* begun at its very file, which is whole */
        status = tl_producers_sync_file(partition, base, err);
    } else {
        status = tl_producers_walk(partition, &walking, first_kept, write_if_missing, NULL, err);
        if (status == TL_OK)
            status = tl_producers_store(partition, first_kept, base, walking.table, true, err);
    }
    tl_producers_end(&walking);
    return status;
}

int tl_producers_keep(tl_partition *partition, uint32_t first_kept, tl_error *err) {
    int64_t base = 0;
    int status = tl_segment_base(partition, first_kept, &base, err);
    if (status < 0 || (status = has_files(partition, err)) <= 0)
        return status;
    (void)tl_producers_enter(partition, false);
    status = keep(partition, first_kept, base, err);
    tl_producers_leave(partition);
    TL_POINT("producers.kept");
    return status;
}

/* --- after a power cut; the gate is held alone --- */

typedef struct names {
    char (*names)[64];
    size_t count, room;
} names;

static int add_temporary(void *context, const char *name) {
    names *n = context;
    size_t length = strlen(name);
    if (strstr(name, ".producers-") == NULL || length >= sizeof *n->names || strcmp(name + length - 4, ".new") != 0)
        return 0;
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 8 : 2 * n->room;
        char(*more)[64] = tl_os->realloc(n->names, room * sizeof *more);
        if (more == NULL)
            return 1;
        n->names = more;
        n->room = room;
    }
    memcpy(n->names[n->count++], name, length + 1);
    return 0;
}

static void remove_temporary(tl_partition *partition) {
    names found = {0};
    int fd = tl_os->open(partition->store->dir, partition->cold->directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return;
    (void)tl_os->list(fd, &found, add_temporary);
    for (size_t i = 0; i < found.count; i++)
        (void)tl_os->unlink(fd, found.names[i], false);
    tl_os->close(fd);
    tl_os->free(found.names);
}

static void remove_file(tl_partition *partition, int64_t base) {
    char path[360];
    tl_segment_path(partition, base, ".producers", path);
    (void)tl_os->unlink(partition->store->dir, path, false);
}

/* The oldest file stays whatever it holds: it says that batches with a producer id are to be expected. */
static void remove_torn(tl_partition *partition, uint32_t from, int64_t oldest) {
    uint32_t active = tl_place_ordinal(partition->hot->tail);
    tl_producer_table *table = tl_producer_table_new();
    for (uint32_t ordinal = from; table != NULL && ordinal <= active; ordinal++) {
        int64_t base = 0;
        if (tl_segment_base(partition, ordinal, &base, NULL) == TL_OK && base > oldest &&
            tl_producers_load(partition, ordinal, base, table, NULL) == TL_ECORRUPT)
            remove_file(partition, base);
    }
    tl_producer_table_free(table);
}

void tl_producers_recover(tl_partition *partition, uint32_t from) {
    tl_segment_files files;
    tl_hot *hot = partition->hot;
    int64_t active = hot->active_base[tl_place_ordinal(hot->tail) & 1];
    if (tl_segment_list(partition, ".producers", &files, NULL) < 0)
        return;
    for (size_t i = files.count; i > 0 && files.bases[i - 1] > active; i--)
        remove_file(partition, files.bases[i - 1]); /* up to there it was scanned: it is what the files were made from */
    if (files.count > 0) {
        remove_torn(partition, from > hot->first_ordinal ? from : hot->first_ordinal, files.bases[0]);
        (void)tl_segment_sync_names(partition); /* else one that comes back stands below the next recovery point */
    }
    tl_os->free(files.bases);
    remove_temporary(partition);
}

/* --- checking --- */

typedef struct checking {
    const tl_check_report *report;
    tl_producer_table *read;
    const tl_producer_table *walked;
    int findings;
    bool differs;
} checking;

static int compare(void *context, const tl_producer_state *walked) {
    checking *c = context;
    const tl_producer_state *read = tl_producer_table_find(c->read, walked->producer_id);
    c->differs = read == NULL || read->epoch != walked->epoch || read->batch_count != walked->batch_count ||
                 read->coordinator_epoch != walked->coordinator_epoch || read->txn_first_offset != walked->txn_first_offset ||
                 read->txn_first_place != walked->txn_first_place || read->last_offset != walked->last_offset ||
                 read->last_timestamp_ms != walked->last_timestamp_ms ||
                 memcmp(read->batches, walked->batches, walked->batch_count * sizeof *walked->batches) != 0;
    return c->differs;
}

static void find(checking *c, tl_partition *partition, int64_t base, int64_t position, const char *what) {
    char path[360];
    tl_segment_path(partition, base, ".producers", path);
    c->findings++;
    if (c->report->finding != NULL)
        c->report->finding(c->report->context, path, position, what, -1, -1);
}

static int check_file(void *context, tl_partition *partition, const tl_producers *walked, tl_error *err) {
    checking *c = context;
    tl_error inner = {0};
    int status = tl_producers_load(partition, tl_place_ordinal(walked->complete), walked->next_offset, c->read, &inner);
    if (status == TL_ENOTFOUND)
        return TL_OK;
    if (status == TL_ECORRUPT) {
        find(c, partition, walked->next_offset, inner.position, inner.what);
        return TL_OK;
    }
    if (status < 0) {
        if (err != NULL)
            *err = inner;
        return status;
    }
    c->differs = false;
    if (tl_producer_table_each(walked->table, c, compare) != 0 ||
        tl_producer_table_count(walked->table) != tl_producer_table_count(c->read))
        find(c, partition, walked->next_offset, -1, "a file of producers does not say what the batches before it say");
    return TL_OK;
}

int tl_producers_check(tl_partition *partition, const tl_check_report *report, tl_error *err) {
    tl_segment_files files;
    int status = tl_segment_list(partition, ".producers", &files, err);
    if (status < 0 || files.count == 0)
        return status;
    checking c = {.report = report, .read = tl_producer_table_new()};
    tl_producers walking = {.table = tl_producer_table_new(), .next_offset = files.bases[0]};
    uint32_t first = __atomic_load_n(&partition->hot->first_ordinal, __ATOMIC_ACQUIRE);
    int64_t begins = 0;
    if (c.read == NULL || walking.table == NULL)
        status = tl_fail(err, TL_ENOMEM, "no memory to check files of producers", partition->cold->directory, -1);
    if (status == TL_OK)
        status = tl_segment_base(partition, first, &begins, err);
    if (status == TL_OK) { /* what the first kept segment's file says of batches that are gone has to be taken as it is */
        walking.complete = tl_place(first, 0);
        walking.next_offset = begins;
        tl_error inner = {0};
        int loaded = tl_producers_load(partition, first, begins, walking.table, &inner);
        if (loaded == TL_ECORRUPT)
            find(&c, partition, begins, inner.position, inner.what);
        else if (loaded < 0 && loaded != TL_ENOTFOUND)
            status = loaded;
    }
    if (status == TL_OK)
        status = tl_producers_walk(partition, &walking, UINT32_MAX, check_file, &c, err);
    tl_producers_end(&walking);
    tl_producer_table_free(c.read);
    tl_os->free(files.bases);
    return status < 0 ? status : c.findings;
}
