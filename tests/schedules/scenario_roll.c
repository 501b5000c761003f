/* Does a log go on in its next segment for writers and readers, wherever whoever rolls it is stopped or killed?
 *
 * Imports scenarios.h. Publication of a segment, seals, stray files, trim beside readers. */
#include "scenarios.h"

enum { SEGMENT_BYTES = 4096, MESSAGE_BYTES = 1500 /* two fill a segment */ };

static void prepare(void) {
    stage_prepare(3, 1, SEGMENT_BYTES, MESSAGE_BYTES);
    stage_fill(0, 2);
}

static void act(int actor) {
    if (actor < 2) {
        stage_send(actor, 0, 1, 0, 0, NULL);
        return;
    }
    tl_cursor cursor = {.offset = 1};
    stage_read(actor, 0, &cursor, 0);
    stage_read(actor, 0, &cursor, 0);
    cursor = (tl_cursor){.offset = 0}; /* by the seal of what was the active segment */
    stage_read(actor, 0, &cursor, 0);
}

const scenario scenario_roll = {
    .name = "roll",
    .about = "two writers, the first rolls; one reader goes over the border",
    .weight = 72,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 6000, .act = act},
    .prepare = prepare,
    .verify = stage_verify,
};

/* --- segments go away below a reader --- */

enum { TRIM_BEFORE = 4 };

static void prepare_trim(void) {
    stage_prepare(3, 1, SEGMENT_BYTES, MESSAGE_BYTES);
    stage_fill(0, 6);
}

static void read_or_skip(int actor, int64_t from) {
    tl_error err = {0};
    tl_cursor cursor = {.offset = from};
    for (int tries = 0; stage_read(actor, 0, &cursor, TL_ERANGE) == TL_ERANGE; tries++) {
        tl_bounds bounds;
        STAGE_TRY(tl_partition_bounds(the_stage->partitions[actor][0], &bounds, &err), "bounds");
        if (tries == 3 || bounds.log_start <= cursor.offset)
            actors_fail("offset %lld is out of range, and the log starts at %lld", (long long)cursor.offset,
                        (long long)bounds.log_start);
        cursor = (tl_cursor){.offset = bounds.log_start};
    }
}

static void act_trim(int actor) {
    tl_error err = {0};
    if (actor == 0) {
        STAGE_TRY(tl_partition_trim(the_stage->partitions[0][0], TRIM_BEFORE, &err), "trim");
    } else if (actor == 1) {
        stage_send(actor, 0, 1, 0, 0, NULL);
    } else {
        read_or_skip(actor, 0);
        read_or_skip(actor, 3);
    }
}

static void verify_trim(void) {
    tl_error err = {0};
    tl_bounds bounds;
    STAGE_TRY(tl_partition_bounds(the_stage->partitions[ACTORS_WITNESS][0], &bounds, &err), "bounds");
    if (bounds.log_start != 0 && bounds.log_start != TRIM_BEFORE)
        actors_fail("the log starts at %lld", (long long)bounds.log_start);
    if (bounds.log_start == 0 && !actors_died(0))
        actors_fail("a trim returned, and the log starts where it started");
    stage_verify();
}

const scenario scenario_trim = {
    .name = "trim",
    .about = "segments are trimmed beside a writer and a reader",
    .weight = 80,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 6000, .act = act_trim},
    .prepare = prepare_trim,
    .verify = verify_trim,
};
