/* Do two writers and a reader get along, whoever of them is stopped or killed wherever?
 *
 * Imports scenarios.h. The partition's lock, publication, take-over and repair, and reading without a lock. */
#include "scenarios.h"

static void prepare(void) {
    stage_prepare(3, 1, 1 << 16, 40);
    stage_fill(0, 2);
}

static void act(int actor) {
    if (actor < 2) {
        stage_send(actor, 0, 1, 0, 0, NULL);
        if (actor == 0)
            stage_send(actor, 0, 1, 0, 0, NULL);
        return;
    }
    tl_cursor cursor = {.offset = 1};
    stage_read(actor, 0, &cursor, 0);
    stage_read(actor, 0, &cursor, 0);
}

const scenario scenario_append = {
    .name = "append",
    .about = "two writers, one reader",
    .weight = 138,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 3000, .act = act},
    .prepare = prepare,
    .verify = stage_verify,
};

/* --- several messages in one call are one batch: all of it is seen, or nothing --- */

static void act_batches(int actor) {
    tl_appended appended;
    if (actor == 0)
        stage_send(actor, 0, 3, 0, 0, &appended);
    else if (actor == 1)
        stage_send(actor, 0, 2, TL_APPEND_THROUGH_FILE, 0, &appended);
    else {
        tl_cursor cursor = {.offset = 0};
        stage_read(actor, 0, &cursor, 0);
        cursor = (tl_cursor){.offset = 2};
        stage_read(actor, 0, &cursor, 0);
    }
}

const scenario scenario_batches = {
    .name = "batches",
    .about = "a batch through the map, one through the file, one reader",
    .weight = 40,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 3000, .act = act_batches},
    .prepare = prepare,
    .verify = stage_verify,
};

/* --- a partition that nobody has written to: its directory, first segment and lease are made on the way --- */

static void prepare_first(void) { stage_prepare(3, 1, 1 << 13, 40); }

static void act_first(int actor) {
    if (actor < 2) {
        stage_send(actor, 0, 1, 0, 0, NULL);
        return;
    }
    tl_cursor cursor = {.offset = 0};
    stage_read(actor, 0, &cursor, 0);
    stage_read(actor, 0, &cursor, 0);
}

const scenario scenario_first = {
    .name = "first",
    .about = "two first messages of a partition, one reader",
    .weight = 36,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 6000, .act = act_first},
    .prepare = prepare_first,
    .verify = stage_verify,
};
