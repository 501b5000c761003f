/* How does an actor open, send, read and wait, and what does the witness demand at the end?
 *
 * Imports stage.h, world.h. */
#include "stage.h"

#include "handles.h"
#include "kernel.h"
#include "tidelog/transactions.h"
#include "world.h"

#include <stdio.h>

stage *the_stage;

void stage_refuse(int status, const char *what, const tl_error *err) {
    actors_fail("%s: %s: %s %s %s (errno %d)", what, tl_status_name(status), err->what == NULL ? "" : err->what,
                err->path, err->detail, err->sys_errno);
}

void stage_begin(void) { the_stage = world_new(sizeof *the_stage); }

void stage_open(int actor) {
    tl_error err = {0};
    const tl_store_options options = {
        .flush_interval_ms = 1000000, .lock_timeout_ms = 20000, .create = true, .no_housekeeper = true};
    int state = 0;
    STAGE_TRY(tl_store_open(STAGE_PATH, &options, &the_stage->stores[actor], &state, NULL, &err), "open");
    if (state == TL_STORE_RECOVERED)
        STAGE_TRY(tl_store_ready(the_stage->stores[actor], &err), "ready");
}

void stage_close(int actor) {
    tl_error err = {0};
    for (int i = 0; i < HISTORY_PARTITIONS; i++) {
        tl_partition_release(the_stage->partitions[actor][i]);
        the_stage->partitions[actor][i] = NULL;
    }
    STAGE_TRY(tl_store_close(the_stage->stores[actor], &err), "close");
    tl_store_free(the_stage->stores[actor]);
    the_stage->stores[actor] = NULL;
}

void stage_handles(int actor) {
    tl_error err = {0};
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++)
        STAGE_TRY(tl_store_partition(the_stage->stores[actor], the_stage->slots[i], STAGE_CHANNEL,
                                     &the_stage->partitions[actor][i], &err),
                  "partition");
}

static void create(int partitions, uint32_t segment_bytes) {
    tl_error err = {0};
    tl_partition_config configs[HISTORY_PARTITIONS];
    for (int i = 0; i < partitions; i++) {
        configs[i] = (tl_partition_config){.partition = (uint32_t)i,
                                           .segment_bytes = segment_bytes,
                                           .segment_ms = -1,
                                           .retention_ms = -1,
                                           .retention_bytes = -1,
                                           .id_count = the_stage->ids ? 1000 : 0,
                                           .id_age_ms = 600000,
                                           .max_message_bytes = 1 << 16};
        memcpy(configs[i].channel, STAGE_CHANNEL, 16);
        snprintf(configs[i].directory, sizeof configs[i].directory, "p%d", i);
    }
    for (int i = 0; i < HISTORY_PARTITIONS; i++)
        the_stage->slots[i] = UINT32_MAX;
    STAGE_TRY(tl_store_create_partitions(the_stage->stores[ACTORS_WITNESS], configs, (size_t)partitions,
                                         the_stage->slots, &err),
              "create");
}

void stage_prepare(int actors, int partitions, uint32_t segment_bytes, uint32_t message_bytes) {
    the_stage->message_bytes = message_bytes;
    actors_be(ACTORS_WITNESS);
    stage_open(ACTORS_WITNESS);
    create(partitions, segment_bytes);
    stage_handles(ACTORS_WITNESS);
    for (int i = 0; i < actors; i++) {
        actors_be(i);
        stage_open(i);
        stage_handles(i);
    }
    actors_be(-1);
}

int stage_send(int actor, int partition, uint32_t count, unsigned flags, int expected, tl_appended *out) {
    uint8_t texts[STAGE_BATCH][HISTORY_BYTES];
    tl_message messages[STAGE_BATCH];
    tl_appended mine;
    tl_error err = {0};
    out = out == NULL ? &mine : out;
    uint32_t first = history_send(actor, partition, count, true);
    for (uint32_t i = 0; i < count; i++) {
        history_text(first + i, texts[i], the_stage->message_bytes);
        messages[i] = (tl_message){.value = texts[i],
                                   .value_bytes = (int32_t)the_stage->message_bytes,
                                   .key_bytes = -1,
                                   .timestamp_ms = 1000 + first + i};
    }
    tl_partition *to = the_stage->partitions[actor][partition];
    int status;
    memset(out, 0, sizeof *out);
    if (count == 1 && (flags & TL_APPEND_THROUGH_FILE) == 0) {
        status = tl_partition_append_one(to, messages, flags, out, &err);
    } else {
        const tl_append what = {.messages = messages, .count = count};
        status = tl_partition_append(to, &what, flags, out, &err);
    }
    if (status == TL_OK) {
        if (out->next_offset - out->base_offset != count)
            actors_fail("an append of %u messages says that it took %lld", count,
                        (long long)(out->next_offset - out->base_offset));
        history_acknowledge(first, count, out->base_offset);
    } else if (status == expected) {
        history_refuse(first, count);
    } else {
        stage_refuse(status, "send", &err);
    }
    return status;
}

int stage_read(int actor, int partition, tl_cursor *cursor, int expected) {
    tl_chunk *chunk = &the_stage->chunks[actor];
    int64_t least = history_end(partition);
    int found = 0;
    for (;;) {
        tl_error err = {0};
        tl_read_end end;
        tl_chunk_clear(chunk);
        int64_t from = cursor->offset;
        int status =
            tl_partition_read(the_stage->partitions[actor][partition], cursor, chunk, 4, 1 << 16, 0, &end, &err);
        if (status < 0 && status == expected)
            return status;
        if (status < 0)
            stage_refuse(status, "read", &err);
        if (chunk->count == 0)
            break;
        for (size_t i = 0; i < chunk->count; i++, from++) {
            const tl_record *r = &chunk->records[i];
            if (r->offset < from || (r->offset != from && !history_has_gaps()))
                actors_fail("offset %lld was read where offset %lld was due", (long long)r->offset, (long long)from);
            from = r->offset;
            history_see(actor, partition, r->offset, chunk->bytes + r->value_at, (uint32_t)r->value_bytes);
            found++;
        }
    }
    if (cursor->offset < least && !history_has_gaps()) /* else a transaction may be open before that */
        actors_fail("a read ended at %lld, but %lld was acknowledged before it began", (long long)cursor->offset,
                    (long long)least - 1);
    return found;
}

bool stage_wait(int actor, int partition, const tl_cursor *cursor, int64_t timeout_ns) {
    tl_error err = {0};
    tl_partition *of = the_stage->partitions[actor][partition];
    tl_bounds bounds;
    STAGE_TRY(tl_partition_bounds(of, &bounds, &err), "bounds");
    if (bounds.log_end > cursor->offset)
        return true;
    int status = tl_store_wait(the_stage->stores[actor], &of, &bounds.tail, 1, timeout_ns, 0, NULL, 0, NULL, &err);
    if (status < 0 && status != TL_ETIMEOUT)
        stage_refuse(status, "wait", &err);
    return status >= 0;
}

void stage_fill(int partition, uint32_t messages) {
    actors_be(ACTORS_WITNESS);
    for (uint32_t i = 0; i < messages; i++)
        stage_send(ACTORS_WITNESS, partition, 1, 0, 0, NULL);
    tl_cursor cursor = {.offset = 0};
    stage_read(ACTORS_WITNESS, partition, &cursor, 0);
    actors_be(-1);
}

/* What a dead writer left behind the tail is gone once somebody has taken the lock after it. */
static void check_blank(int partition) {
    const tl_hot *hot = the_stage->partitions[ACTORS_WITNESS][partition]->hot;
    char path[64];
    uint64_t size = 0;
    snprintf(path, sizeof path, STAGE_PATH "/p%d/%020lld.log", partition,
             (long long)hot->active_base[tl_place_ordinal(hot->tail) & 1]);
    const uint8_t *bytes = kernel_look(path, &size);
    uint64_t from = tl_place_position(hot->tail), until = from + 4096 < size ? from + 4096 : size;
    for (uint64_t at = from; bytes != NULL && at < until; at++)
        if (bytes[at] != 0)
            actors_fail("behind the end of the log, at position %llu, stands something", (unsigned long long)at);
}

/* Whoever died has left transactions; a live owner is left alone for a while. */
static void end_transactions(void) {
    tl_error err = {0};
    tl_store *store = the_stage->stores[ACTORS_WITNESS];
    uint32_t word = 0;
    (void)tl_os->futex_wait(&word, 0, 30000000);
    STAGE_TRY(tl_transactions_sweep(store, &err), "the last sweep");
    if (store->header->unfinished != 0)
        actors_fail("%u transactions are not finished at the end", (unsigned)store->header->unfinished);
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++)
        if (the_stage->partitions[ACTORS_WITNESS][i]->hot->lso != UINT64_MAX)
            actors_fail("readers of partition %d stop before a transaction that is over", i);
}

static void note_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                         int64_t next) {
    (void)context;
    (void)first;
    (void)next;
    actors_fail("a check finds at position %lld of %s: %s", (long long)position, file, what);
}

/* What tl_partition_check says of the files; a finding ends the run. */
static void check_files(int partition) {
    tl_error err = {0};
    const tl_check_report report = {.finding = note_finding};
    STAGE_TRY(tl_partition_check(the_stage->partitions[ACTORS_WITNESS][partition], &report, &err), "check");
}

void stage_verify_boot(void) {
    int64_t ends[HISTORY_PARTITIONS];
    kernel_reboot();
    for (int i = 0; i < ACTORS; i++)
        actors_forget(i);
    stage_open(ACTORS_WITNESS);
    stage_handles(ACTORS_WITNESS);
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++) {
        tl_cursor cursor = {.offset = 0};
        history_look(ACTORS_WITNESS, i);
        stage_read(ACTORS_WITNESS, i, &cursor, 0);
        ends[i] = cursor.offset;
    }
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++)
        history_judge(i, 0, ends[i]);
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++)
        check_files(i);
}

/* All that is visible is seen before anything is judged: a transaction shows in the one or in the other partition. */
static void verify_gaps(void) {
    end_transactions();
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++) {
        tl_cursor cursor = {.offset = 0};
        history_look(ACTORS_WITNESS, i);
        stage_read(ACTORS_WITNESS, i, &cursor, 0);
    }
}

void stage_verify(void) {
    if (history_has_gaps())
        verify_gaps();
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++) {
        tl_error err = {0};
        tl_bounds bounds;
        STAGE_TRY(tl_partition_bounds(the_stage->partitions[ACTORS_WITNESS][i], &bounds, &err), "bounds at the end");
        tl_cursor cursor = {.offset = bounds.log_start};
        stage_read(ACTORS_WITNESS, i, &cursor, 0);
        history_judge(i, bounds.log_start, cursor.offset);
        stage_send(ACTORS_WITNESS, i, 1, 0, 0, NULL);
        tl_cursor again = {.offset = bounds.log_start};
        stage_read(ACTORS_WITNESS, i, &again, 0);
        if (again.offset != cursor.offset + 1)
            actors_fail("one more message moved the end from %lld to %lld", (long long)cursor.offset,
                        (long long)again.offset);
        history_judge(i, bounds.log_start, again.offset);
        check_blank(i);
        if (history_has_gaps())
            check_files(i);
    }
}
