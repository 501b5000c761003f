/* Do processes that come and go at the same time find a whole store, whoever dies at the gate?
 *
 * Imports scenarios.h, kernel.h. The gate, slots and incarnations, joining, recovering, closing cleanly. */
#include "scenarios.h"

#include "kernel.h"

static void close_all(int actors) {
    for (int i = 0; i < actors; i++) {
        actors_be(i);
        stage_close(i);
    }
    actors_be(-1);
}

static void leave_witness(void) {
    actors_be(ACTORS_WITNESS);
    stage_close(ACTORS_WITNESS);
    actors_be(-1);
}

static void visit(int actor) {
    stage_open(actor);
    stage_handles(actor);
    stage_send(actor, 0, 1, 0, 0, NULL);
    tl_cursor cursor = {.offset = 0};
    stage_read(actor, 0, &cursor, 0);
    stage_close(actor);
}

/* The same files in another boot: every process is gone, and what the checkpoint says must be enough to find it all. */
static void verify_boot(void) {
    tl_error err = {0};
    tl_bounds bounds;
    kernel_reboot();
    for (int i = 0; i < ACTORS; i++)
        actors_forget(i);
    stage_open(ACTORS_WITNESS);
    stage_handles(ACTORS_WITNESS);
    STAGE_TRY(tl_partition_bounds(the_stage->partitions[ACTORS_WITNESS][0], &bounds, &err), "bounds");
    if (bounds.log_start != 0)
        actors_fail("after a new boot the log starts at %lld", (long long)bounds.log_start);
    tl_cursor cursor = {.offset = 0};
    int found = stage_read(ACTORS_WITNESS, 0, &cursor, 0);
    history_judge(0, 0, found);
}

static void verify(void) {
    stage_open(ACTORS_WITNESS);
    stage_handles(ACTORS_WITNESS);
    stage_verify();
    verify_boot();
}

/* --- one is inside and leaves, the others come and leave --- */

static void prepare_leave(void) {
    stage_prepare(1, 1, 1 << 13, 40);
    stage_fill(0, 1);
    leave_witness();
}

static void act_leave(int actor) {
    if (actor == 1) {
        visit(actor);
        return;
    }
    stage_send(actor, 0, 1, 0, 0, NULL);
    stage_close(actor);
}

const scenario scenario_leave = {
    .name = "leave",
    .about = "one is inside, writes and leaves; one comes, writes, reads and leaves",
    .weight = 6,
    .cast = {.count = 2, .mortal = 3, .waits = true, .most_ns = 2000000000, .most_points = 20000, .act = act_leave},
    .prepare = prepare_leave,
    .verify = verify,
};

/* --- nobody is inside --- */

static void prepare_enter(void) {
    prepare_leave();
    close_all(1);
}

const scenario scenario_enter = {
    .name = "enter",
    .about = "two come into a closed store at once, write, read and leave",
    .weight = 6,
    .cast = {.count = 2, .mortal = 3, .waits = true, .most_ns = 2000000000, .most_points = 20000, .act = visit},
    .prepare = prepare_enter,
    .verify = verify,
};

/* --- what housekeeping wrote down is true in the next boot --- */

static void prepare_flush(void) {
    stage_prepare(2, 1, 4096, 1500);
    stage_fill(0, 1);
}

static void act_flush(int actor) {
    tl_error err = {0};
    if (actor == 1) {
        STAGE_TRY(tl_store_housekeep(the_stage->stores[1], &err), "housekeeping");
        return;
    }
    stage_send(actor, 0, 1, 0, 0, NULL);
    stage_send(actor, 0, 1, 0, 0, NULL); /* in the next segment */
}

const scenario scenario_flush = {
    .name = "flush",
    .about = "a flush and a checkpoint beside a writer who rolls, then a new boot",
    .weight = 13,
    .cast = {.count = 2, .mortal = 3, .most_ns = 2000000000, .most_points = 20000, .act = act_flush},
    .prepare = prepare_flush,
    .verify = verify_boot,
};
