/* Does a partition take nothing any more once its drop has returned, and does nothing of it come back?
 *
 * Imports scenarios.h, kernel.h. */
#include "scenarios.h"

#include "kernel.h"

enum { DROPPED }; /* of the_stage->words */

static void prepare(void) {
    stage_prepare(3, 1, 1 << 13, 40);
    stage_fill(0, 1);
}

static void act(int actor) {
    tl_error err = {0};
    if (actor == 0) {
        STAGE_TRY(tl_store_drop_partitions(the_stage->stores[0], the_stage->slots, 1, &err), "drop");
        the_stage->words[DROPPED] = 1;
        return;
    }
    for (int i = 0; i < 2; i++) {
        bool gone = the_stage->words[DROPPED] != 0;
        tl_cursor cursor = {.offset = 0};
        int status =
            actor == 1 ? stage_send(actor, 0, 1, 0, TL_EDROPPED, NULL) : stage_read(actor, 0, &cursor, TL_EDROPPED);
        if (gone && status != TL_EDROPPED)
            actors_fail("actor %d had an answer of a channel whose drop had returned", actor);
    }
}

static void verify(void) {
    uint64_t size = 0;
    bool returned = the_stage->words[DROPPED] != 0;
    int status = stage_send(ACTORS_WITNESS, 0, 1, 0, TL_EDROPPED, NULL);
    if (returned && status != TL_EDROPPED)
        actors_fail("a dropped channel takes messages");
    if (returned && kernel_look(STAGE_PATH "/p0", &size) != NULL)
        actors_fail("the directory of a dropped partition is there");
    if (status == TL_OK)
        stage_verify();
}

const scenario scenario_drop = {
    .name = "drop",
    .about = "a channel is dropped beside a writer and a reader",
    .weight = 20,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 6000, .act = act},
    .prepare = prepare,
    .verify = verify,
};
