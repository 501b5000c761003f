/* Is what was confirmed as synced really on the disk, whoever led the sync and died in it?
 *
 * Imports scenarios.h. Group commit: the sync lock, turns, waiters. The oracle is the disk of the kernel that the tests
 * play: it walks the batches of a segment when a sync of it begins, and believes what it found when the sync has ended.
 */
#include "scenarios.h"

#include "kernel.h"

enum { DURABLE }; /* of the_stage->words: the largest offset on the disk + 1 */

/* The end of the batches that stand in a segment, -1: these are no batches. */
static int64_t walk(const uint8_t *bytes, uint64_t size) {
    int64_t end = -1;
    for (uint64_t at = 0; at + TL_BATCH_HEADER_BYTES <= size;) {
        tl_batch batch;
        if (tl_batch_parse(bytes + at, (size_t)(size - at), &batch, NULL) < 0 || !tl_batch_crc_ok(bytes + at, &batch))
            break;
        end = tl_batch_next_offset(&batch);
        at += batch.bytes;
    }
    return end;
}

static void sync_ended(int64_t end) {
    if (the_stage->words[DURABLE] < end)
        the_stage->words[DURABLE] = end;
}

static void prepare(void) {
    stage_prepare(3, 1, 1 << 14, 40);
    stage_fill(0, 1);
    kernel_sync_begins = walk;
    kernel_sync_ended = sync_ended;
}

static void act(int actor) {
    tl_error err = {0};
    tl_appended appended;
    tl_partition *partition = the_stage->partitions[actor][0];
    stage_send(actor, 0, actor == 1 ? 2 : 1, actor == 1 ? TL_APPEND_THROUGH_FILE : 0, 0, &appended);
    STAGE_TRY(tl_partition_sync(partition, appended.tail, -1, &err), "sync");
    if (the_stage->words[DURABLE] < appended.next_offset)
        actors_fail("offset %lld was confirmed as synced, and the disk holds those below %lld",
                    (long long)appended.next_offset - 1, (long long)the_stage->words[DURABLE]);
    if (!tl_partition_is_synced(partition, appended.tail))
        actors_fail("what was synced is not synced any more");
}

const scenario scenario_sync = {
    .name = "sync",
    .about = "three writers who sync what they wrote",
    .weight = 62,
    .cast = {.count = 3, .mortal = 7, .most_ns = 700000000, .most_points = 6000, .act = act},
    .prepare = prepare,
    .verify = stage_verify,
};
