/* How is a letter put into the core's words, and how are the files of a partition walked from outside?
 *
 * Imports post.h, kernel.h, ids.h, handles.h. */
#include "post.h"

#include "handles.h"
#include "kernel.h"
#include "ledger.h"
#include "tidelog/ids.h"

#include <stdio.h>

/* --- sending --- */

static void single_answered(single *of, const letter *what) {
    if (of->offset >= 0 && of->offset != what->offset)
        actors_fail("one message is said to be at offset %lld and at offset %lld", (long long)of->offset,
                    (long long)what->offset);
    of->offset = what->offset;
    of->fresh += !what->duplicate;
    if (of->fresh > 1)
        actors_fail("two were told that their message is the first with this id");
}

/* A block of headers with `message-id` alone. */
static uint32_t header_of(const char *id, uint8_t *out) {
    size_t bytes = strlen(id);
    out[0] = 2;
    out[1] = 20;
    memcpy(out + 2, "message-id", 10);
    out[12] = (uint8_t)(2 * bytes);
    memcpy(out + 13, id, bytes);
    return 13 + (uint32_t)bytes;
}

static void answered(letter *what, const tl_appended *appended) {
    what->offset = appended->base_offset;
    what->duplicate = appended->duplicates != 0;
    if (what->duplicate)
        history_refuse(what->number, 1);
    else
        history_acknowledge(what->number, 1, appended->base_offset);
    if (what->one_of != NULL)
        single_answered(what->one_of, what);
}

/* The path of one message with an id, or of a name, first, as the glue does. */
static int append(tl_partition *to, const letter *what, tl_message *message, tl_appended *appended, tl_error *err) {
    uint8_t header[64], batch[HISTORY_BYTES + 256];
    tl_message_id id = {{0, 0}};
    const tl_producing producing = {.producer = what->producer,
                                    .transaction = what->transaction,
                                    .epoch = what->transaction == NULL ? 0 : what->transaction->epoch,
                                    .sequence = what->sequence};
    if (what->client != 0) {
        const tl_batch_spec spec = {what->client, what->sequence, what->epoch, 0};
        int64_t newest = 0;
        size_t bytes = tl_batch_encode(batch, 0, &spec, message, 1, &newest);
        const tl_append client = {.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest,
                                  .producing = &producing};
        return tl_partition_append(to, &client, 0, appended, err);
    }
    if (what->id != NULL) {
        message->headers = header;
        message->headers_bytes = header_of(what->id, header);
        tl_ids_hash(tl_ids_key(to), what->id, strlen(what->id), &id);
        if (what->producer == NULL) {
            int status = tl_partition_append_one_id(to, message, &id, -1, appended, err);
            if (status != TL_EAGAIN)
                return status;
        }
    }
    if (what->id == NULL && what->producer != NULL && what->transaction == NULL && what->sequence < 0) {
        int status = tl_partition_append_one_named(to, message, what->producer, appended, err);
        if (status != TL_EAGAIN)
            return status;
    }
    const tl_append given = {.messages = message, .count = 1, .producing = what->producer == NULL ? NULL : &producing,
                             .ids = what->id == NULL ? NULL : &id};
    return tl_partition_append(to, &given, 0, appended, err);
}

int post(int actor, int partition, letter *what, int expected) {
    uint8_t text[HISTORY_BYTES];
    tl_appended appended = {.base_offset = -1};
    tl_error err = {0};
    what->offset = -1;
    what->number = history_send(actor, partition, 1, true);
    if (what->transaction != NULL)
        history_join(what->number, what->entry);
    if (what->one_of != NULL)
        what->one_of->numbers[what->one_of->count++] = what->number;
    history_text(what->number, text, the_stage->message_bytes);
    tl_message message = {.value = text, .value_bytes = (int32_t)the_stage->message_bytes, .key_bytes = -1,
                          .timestamp_ms = 1000 + what->number};
    int status = append(the_stage->partitions[actor][partition], what, &message, &appended, &err);
    if (status == TL_OK)
        answered(what, &appended);
    else if (status == expected)
        history_refuse(what->number, 1);
    else
        stage_refuse(status, "post", &err);
    return status;
}

void single_judge(const single *of) {
    int64_t found = -1;
    for (uint32_t i = 0; i < of->count; i++) {
        int64_t offset = history_offset(of->numbers[i]);
        if (offset < 0)
            continue;
        if (found >= 0)
            actors_fail("one message stands at offset %lld and at offset %lld", (long long)found, (long long)offset);
        found = offset;
    }
    if (of->offset >= 0 && found != of->offset)
        actors_fail("a message is said to be at offset %lld, and %s", (long long)of->offset,
                    found < 0 ? "is not in the log" : "stands elsewhere");
}

/* --- reading --- */

int post_read(int actor, int partition) {
    uint32_t committed = ledger_committed(), before = history_next();
    tl_cursor cursor = {.offset = 0};
    history_look(actor, partition);
    int found = stage_read(actor, partition, &cursor, 0);
    history_demand(actor, partition, committed, before);
    return found;
}

void post_walk(int partition, void *context, void (*each)(void *context, const tl_batch *batch)) {
    int64_t next = 0;
    for (;;) {
        char path[64];
        uint64_t size = 0;
        int64_t base = next;
        snprintf(path, sizeof path, STAGE_PATH "/p%d/%020lld.log", partition, (long long)base);
        const uint8_t *bytes = kernel_look(path, &size);
        if (bytes == NULL)
            return;
        for (uint64_t at = 0; at + TL_BATCH_HEADER_BYTES <= size;) {
            tl_batch batch;
            if (tl_batch_parse(bytes + at, (size_t)(size - at), &batch, NULL) < 0 ||
                !tl_batch_crc_ok(bytes + at, &batch) || batch.base_offset != next)
                break;
            each(context, &batch);
            next = tl_batch_next_offset(&batch);
            at += batch.bytes;
        }
        if (next == base)
            return;
    }
}

typedef struct producers_seen {
    struct {
        int64_t id;
        int16_t epoch;
        int32_t next;
    } all[8];
    size_t count;
} producers_seen;

static void see_batch(void *context, const tl_batch *batch) {
    producers_seen *seen = context;
    size_t i = 0;
    if (batch->producer_id < 0 || tl_batch_is_control(batch))
        return;
    while (i < seen->count && seen->all[i].id != batch->producer_id)
        i++;
    if (i == sizeof seen->all / sizeof *seen->all)
        actors_fail("the log knows more producers than there are");
    if (i == seen->count) {
        seen->all[seen->count++].id = batch->producer_id;
    } else if (batch->producer_epoch < seen->all[i].epoch) {
        actors_fail("at offset %lld stands epoch %d of producer %lld behind epoch %d", (long long)batch->base_offset,
                    batch->producer_epoch, (long long)batch->producer_id, seen->all[i].epoch);
    } else if (batch->producer_epoch == seen->all[i].epoch && batch->base_sequence != seen->all[i].next) {
        actors_fail("at offset %lld stands sequence %d of producer %lld, and %d was due", (long long)batch->base_offset,
                    (int)batch->base_sequence, (long long)batch->producer_id, (int)seen->all[i].next);
    }
    seen->all[i].epoch = batch->producer_epoch;
    seen->all[i].next = batch->base_sequence + batch->count;
}

void post_judge_sequences(int partition) {
    producers_seen seen = {.count = 0};
    post_walk(partition, &seen, see_batch);
}
