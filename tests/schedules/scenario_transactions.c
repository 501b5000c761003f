/* Do the messages of a transaction in two partitions, and one offset, become visible together or never, whoever dies
 * wherever?
 *
 * Imports scenarios.h, owners.h, post.h. Owners, finishers, sweepers, readers. The oracle: what the ledger says. */
#include "scenarios.h"

#include "owners.h"
#include "post.h"

/* --- somebody ends what its owner cannot, or is thought not to --- */

static void prepare_commit(void) { owners_prepare(3, 2, OWNER_SEGMENT, OWNER_MESSAGE); }

static void act_commit(int actor) {
    if (actor == 0)
        owner_act(60000, false);
    else if (actor == 1)
        owner_act_as_sweeper(actor);
    else
        owner_act_as_reader(actor);
}

const scenario scenario_commit = {
    .name = "commit",
    .about = "two partitions and an offset are committed beside a sweeper and a reader",
    .weight = 24,
    .cast = {.count = 3, .mortal = 7, .waits = true, .most_ns = 700000000, .most_points = 8000, .act = act_commit},
    .prepare = prepare_commit,
    .verify = owners_verify_offset,
};

static void act_expire(int actor) {
    if (actor == 0)
        owner_act(10, false);
    else if (actor == 1)
        owner_act_as_sweeper(actor);
    else
        owner_act_as_reader(actor);
}

const scenario scenario_expire = {
    .name = "expire",
    .about = "the same, and the time-out of the transaction comes at any moment",
    .weight = 22,
    .cast = {.count = 3, .mortal = 7, .waits = true, .most_ns = 700000000, .most_points = 8000, .act = act_expire},
    .prepare = prepare_commit,
    .verify = owners_verify_offset,
};

/* --- a reader sleeps until it is committed, and another writer's message lies behind it --- */

enum { VISIBLE = 5 }; /* two from before, the transaction's two, and the plain one */

static void act_visible(int actor) {
    if (actor == 0) {
        owner_act(60000, false);
        return;
    }
    if (actor == 1) {
        stage_send(actor, 0, 1, 0, 0, NULL);
        return;
    }
    tl_error err = {0};
    tl_partition *const *of = the_stage->partitions[actor];
    for (int most = 0; most < 16; most++) {
        uint64_t tails[2] = {tl_partition_tail(of[0]), tl_partition_tail(of[1])};
        if (post_read(actor, 0) + post_read(actor, 1) == VISIBLE)
            break;
        int status = tl_store_wait(the_stage->stores[actor], of, tails, 2, 150000000, 0, NULL, 0, NULL, &err);
        if (status < 0 && status != TL_ETIMEOUT)
            stage_refuse(status, "wait", &err);
        if (status == TL_ETIMEOUT && (actors_died(0) || actors_died(1)))
            break;
    }
}

const scenario scenario_visible = {
    .name = "visible",
    .about = "a reader sleeps until a transaction is committed, beside a plain writer",
    .weight = 26,
    .cast = {.count = 3, .mortal = 7, .most_ns = 700000000, .most_points = 8000, .act = act_visible},
    .prepare = prepare_commit,
    .verify = owners_verify_offset,
};

/* --- two are open in one partition --- */

static void prepare_two(void) {
    owners_prepare(3, 1, OWNER_SEGMENT, OWNER_MESSAGE);
    actors_be(1);
    owner_open_name(1, "desk");
    actors_be(-1);
}

static void act_two(int actor) {
    tl_cursor cursor = {.offset = 0};
    if (actor == 2) {
        history_look(actor, 0);
        stage_read(actor, 0, &cursor, 0);
        stage_read(actor, 0, &cursor, 0);
        return;
    }
    owner_begin(actor, 60000);
    owner_send(actor, 0);
    if (actor == 0)
        owner_commit_surely(actor, false);
    else
        owner_abort(actor);
}

const scenario scenario_two = {
    .name = "two",
    .about = "two transactions in one partition, one of them aborted, and a reader",
    .weight = 24,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 8000, .act = act_two},
    .prepare = prepare_two,
    .verify = owners_verify,
};

/* --- a finisher comes late: the producer's next transaction is not its business --- */

static void prepare_late(void) {
    owners_prepare(3, 2, OWNER_SEGMENT, OWNER_MESSAGE);
    actors_be(0);
    owner_begin(0, 1);
    owner_send(0, 0);
    owner_send(0, 1);
    owner_pass(2000000);
    actors_be(-1);
}

static void act_late(int actor) {
    if (actor == 1) {
        owner_sweep(actor);
        return;
    }
    if (actor == 2) {
        post_read(actor, 0);
        post_read(actor, 1);
        return;
    }
    owner_abort(actor);
    owner_begin(actor, 60000);
    if (!owner_send(actor, 0) || !owner_send(actor, 1))
        actors_fail("a transaction was ended that nobody had a reason to end");
    owner_commit_surely(actor, false);
}

const scenario scenario_late = {
    .name = "late",
    .about = "a sweeper ends a transaction beside its owner, who begins the next one",
    .weight = 24,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 8000, .act = act_late},
    .prepare = prepare_late,
    .verify = owners_verify,
};
