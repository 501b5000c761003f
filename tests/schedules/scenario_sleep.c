/* Does a sleeper wake as soon as there is something for it?
 *
 * Imports scenarios.h. Bits, barriers, futex words. That all wait although nobody died is a failure in itself: the run
 * ends where time would have to pass. */
#include "scenarios.h"

static void prepare(void) {
    stage_prepare(3, 1, 1 << 16, 40);
    stage_fill(0, 1);
}

static void read_until(int actor, int partition, int64_t offset, int writers) {
    tl_cursor cursor = {.offset = 1};
    while (cursor.offset < offset) {
        bool deaths = false;
        for (int writer = 0; writer < writers; writer++)
            deaths |= actors_died(writer);
        if (!stage_wait(actor, partition, &cursor, 150000000) && deaths)
            break;
        stage_read(actor, partition, &cursor, 0);
    }
    stage_read(actor, partition, &cursor, 0);
}

static void act(int actor) {
    if (actor == 2)
        read_until(actor, 0, 3, 2);
    else
        stage_send(actor, 0, 1, 0, 0, NULL);
}

const scenario scenario_sleep = {
    .name = "sleep",
    .about = "a reader sleeps until two writers have written",
    .weight = 38,
    .cast = {.count = 3, .mortal = 7, .most_ns = 700000000, .most_points = 4000, .act = act},
    .prepare = prepare,
    .verify = stage_verify,
};

/* --- two sleepers on one partition, one of which may die with its bit set --- */

static void act_two(int actor) {
    if (actor == 0) {
        stage_send(actor, 0, 1, 0, 0, NULL);
        stage_send(actor, 0, 1, 0, 0, NULL);
    } else {
        read_until(actor, 0, actor == 1 ? 2 : 3, 1);
    }
}

const scenario scenario_sleepers = {
    .name = "sleepers",
    .about = "two readers sleep until a writer has written once, twice",
    .weight = 56,
    .cast = {.count = 3, .mortal = 7, .most_ns = 700000000, .most_points = 4000, .act = act_two},
    .prepare = prepare,
    .verify = stage_verify,
};
