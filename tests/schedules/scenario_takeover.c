/* Is what a transaction decided in step with what comes after it, when its lease or its name is taken over meanwhile?
 *
 * Imports scenarios.h, owners.h, ledger.h. */
#include "scenarios.h"

#include "ledger.h"
#include "owners.h"

/* --- the lease is taken over --- */

static void prepare_takeover(void) {
    owners_prepare(3, 1, OWNER_SEGMENT, OWNER_MESSAGE);
    actors_be(1);
    owner_open_name(1, "desk");
    actors_be(0);
    owner_begin(0, 60000);
    owner_send(0, 0);
    actors_be(-1);
}

/* Goes on from what it finds, and what it finds is what will ever have been committed. */
static void act_taker(int actor) {
    int64_t found = owner_claim(actor);
    if (found == OWNER_OFFSET)
        ledger_show(owners[0].entry, "offset is committed");
    else
        ledger_hide(owners[0].entry, "offset was not committed when its lease was taken over");
    the_stage->words[OWNER_TAKEN] = found == OWNER_OFFSET ? OWNER_OFFSET + 1 : OWNER_OFFSET + 2;
    owner_begin(actor, 60000);
    if (!owner_send(actor, 0) || !owner_add_offset(actor, the_stage->words[OWNER_TAKEN]))
        actors_fail("a transaction was ended that nobody had a reason to end");
    owner_commit_surely(actor, false);
}

static void act_takeover(int actor) {
    if (actor == 1) {
        act_taker(actor);
    } else if (actor == 2) {
        tl_cursor cursor = {.offset = 0};
        owner_act_as_sweeper(actor);
        stage_read(actor, 0, &cursor, 0);
    } else if (owner_add_offset(actor, OWNER_OFFSET)) {
        owner_commit(actor, false);
    } else {
        actors_fail("a transaction was ended that nobody had a reason to end");
    }
}

static void verify_takeover(void) {
    owners_verify();
    int64_t offset = owner_offset(ACTORS_WITNESS);
    bool first = ledger_outcome(2), second = owners[1].entry != 0 && ledger_outcome(owners[1].entry);
    int64_t due = second ? the_stage->words[OWNER_TAKEN] : first ? OWNER_OFFSET : TL_OFFSETS_NONE;
    if (offset != due)
        actors_fail("offset %lld is committed at the end, and the output says %lld", (long long)offset, (long long)due);
}

const scenario scenario_takeover = {
    .name = "takeover",
    .about = "a lease is taken over while its owner commits; the taker goes on; a sweeper",
    .weight = 26,
    .cast = {.count = 3, .mortal = 7, .waits = true, .most_ns = 700000000, .most_points = 8000, .act = act_takeover},
    .prepare = prepare_takeover,
    .verify = verify_takeover,
};

/* --- the name is taken over --- */

static void prepare_successor(void) {
    owners_prepare(2, 1, OWNER_SEGMENT, OWNER_MESSAGE);
    actors_be(0);
    owner_begin(0, 60000);
    owner_send(0, 0);
    actors_be(-1);
}

static void act_successor(int actor) {
    if (actor == 0) {
        if (owner_send(actor, 0))
            owner_commit(actor, false);
        else
            owner_abort(actor);
        return;
    }
    owner_open_name(actor, "till");
    tl_cursor cursor = {.offset = 0};
    history_look(actor, 0);
    stage_read(actor, 0, &cursor, 0);
    if (!ledger_outcome(2))
        ledger_hide(2, "messages were not visible when its name had been taken over");
    owner_begin(actor, 60000);
    if (!owner_send(actor, 0))
        actors_fail("a transaction was ended that nobody had a reason to end");
    owner_commit_surely(actor, false);
}

const scenario scenario_successor = {
    .name = "successor",
    .about = "a name is opened anew while its older self commits, and begins a transaction",
    .weight = 22,
    .cast = {.count = 2, .mortal = 3, .most_ns = 400000000, .most_points = 8000, .act = act_successor},
    .prepare = prepare_successor,
    .verify = owners_verify,
};
