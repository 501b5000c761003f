/* Does nobody see a synced commit before the decision is on the disk, and are transactions found again in a new boot?
 *
 * Imports scenarios.h, owners.h, post.h, kernel.h, transacting.h. The oracle looks into the file of records when a sync
 * of it begins, and believes what it found when the sync has ended. */
#include "scenarios.h"

#include "handles.h"
#include "kernel.h"
#include "owners.h"
#include "post.h"
#include "transacting.h"

/* How many decisions to commit stand in the file of records. */
static int64_t decisions(const uint8_t *bytes, uint64_t size) {
    uint64_t found = 0;
    const uint8_t *records = kernel_look(STAGE_PATH "/" TL_TXN_FILE, &found);
    if (bytes != records)
        return -1;
    int64_t count = 0;
    for (uint64_t at = TL_PAGE; at + TL_PAGE <= size; at += TL_PAGE) {
        const tl_txn_record *record = (const tl_txn_record *)(const void *)(bytes + at);
        count += record->decision == TL_TXN_COMMIT && record->synced != 0 && record->crc == tl_txn_crc(record) &&
                 record->state == TL_TXN_COMMITTING;
    }
    return count;
}

static void records_synced(int64_t count) {
    if (count > 0)
        the_stage->words[OWNER_DURABLE] = 1;
}

static void prepare_synced(void) {
    owners_prepare(3, 2, OWNER_SEGMENT, OWNER_MESSAGE);
    the_stage->words[OWNER_SYNCED] = 1;
    kernel_sync_begins = decisions;
    kernel_sync_ended = records_synced;
}

static void act_synced(int actor) {
    if (actor == 0)
        owner_act(60000, true);
    else if (actor == 1)
        owner_act_as_sweeper(actor);
    else
        owner_act_as_reader(actor);
}

static void verify_synced(void) {
    tl_error err = {0};
    uint32_t slot = 0;
    stage_verify_boot();
    /* Slots are numbers of one boot; without an offset there is none. */
    STAGE_TRY(tl_store_offset_slot(the_stage->stores[ACTORS_WITNESS], "group", 5, STAGE_CHANNEL, 0, true, &slot, &err),
              "slot");
    the_stage->words[OWNER_SLOT] = slot;
    owners_judge_offset();
}

const scenario scenario_synced = {
    .name = "synced",
    .about = "a synced commit beside a sweeper and a reader, then a new boot",
    .weight = 18,
    .cast = {.count = 3, .mortal = 7, .waits = true, .most_ns = 700000000, .most_points = 12000, .act = act_synced},
    .prepare = prepare_synced,
    .verify = verify_synced,
};

/* --- transactions go over the end of a segment, and are found again in another boot --- */

static void prepare_across(void) {
    owners_prepare(3, 1, 4096, 1500); /* two fill a segment */
    actors_be(1);
    owner_open_name(1, "desk");
    actors_be(-1);
}

static void act_across(int actor) {
    tl_error err = {0};
    if (actor == 2) {
        STAGE_TRY(tl_store_housekeep(the_stage->stores[actor], &err), "housekeeping");
        return;
    }
    owner_begin(actor, 60000);
    if (!owner_send(actor, 0) || (actor == 0 && !owner_send(actor, 0)))
        actors_fail("a transaction was ended that nobody had a reason to end");
    if (actor == 0)
        owner_commit_surely(actor, false);
    else
        owner_abort(actor);
}

static void verify_across(void) {
    stage_verify_boot();
    post_judge_sequences(0);
    const tl_hot *hot = the_stage->partitions[ACTORS_WITNESS][0]->hot;
    if (hot->lso != UINT64_MAX)
        actors_fail("readers stop before a transaction of an earlier boot");
}

const scenario scenario_across = {
    .name = "across",
    .about = "a committed and an aborted transaction over several segments beside housekeeping, then a new boot",
    .weight = 18,
    .cast = {.count = 3, .mortal = 7, .most_ns = 2000000000, .most_points = 20000, .act = act_across},
    .prepare = prepare_across,
    .verify = verify_across,
};
