/* Is a message whose id several processes send in the log once, and do all of them learn where, whoever dies in
 * between?
 *
 * Imports scenarios.h, post.h, kernel.h, remembering.h. The window of ids: publishing, noting, growing, catching up,
 * making it anew in another boot. */
#include "scenarios.h"

#include "kernel.h"
#include "post.h"
#include "remembering.h"

#include <stdio.h>
#include <stdlib.h>

static single *of_x, *of_y; /* in the world */

static void send(int actor, single *of, const char *id) {
    letter what = LETTER;
    what.id = id;
    what.one_of = of;
    post(actor, 0, &what, 0);
}

static void begin(int actors) {
    of_x = tl_calloc(1, sizeof *of_x);
    of_y = tl_calloc(1, sizeof *of_y);
    of_x->offset = of_y->offset = -1;
    the_stage->ids = true;
    stage_prepare(actors, 1, 1 << 14, 40);
    stage_fill(0, 1);
}

/* Sent once more, each is known: the window says so, whatever whoever died had noted of it. */
static void verify_again(void) {
    send(ACTORS_WITNESS, of_x, "x");
    send(ACTORS_WITNESS, of_y, "y");
    tl_cursor cursor = {.offset = 0};
    int found = stage_read(ACTORS_WITNESS, 0, &cursor, 0);
    history_judge(0, 0, found);
    single_judge(of_x);
    single_judge(of_y);
    if (of_x->fresh + of_y->fresh < 2 && !actors_died(0) && !actors_died(1) && !actors_died(2))
        actors_fail("of an id all were told that it was there before");
}

static void verify(void) {
    stage_verify();
    verify_again();
}

/* --- the same id at the same time --- */

static void prepare_ids(void) {
    begin(3);
    letter what = LETTER;
    what.id = "before";
    actors_be(ACTORS_WITNESS);
    post(ACTORS_WITNESS, 0, &what, 0); /* so that there is a window */
    actors_be(-1);
}

static void act(int actor) {
    if (actor == 2) {
        stage_send(actor, 0, 1, 0, 0, NULL); /* without an id, in between */
        send(actor, of_y, "y");
        return;
    }
    send(actor, of_x, "x");
    send(actor, of_y, "y");
}

const scenario scenario_ids = {
    .name = "ids",
    .about = "three processes send the same ids, one of them something else as well",
    .weight = 34,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 4000, .act = act},
    .prepare = prepare_ids,
    .verify = verify,
};

/* --- for the first time, when there is no window, and after a new boot, when there is none any more --- */

static void prepare_window(void) { begin(2); }

static void act_window(int actor) {
    send(actor, of_x, "x");
    send(actor, of_y, "y");
}

static void verify_window(void) {
    verify_again();
    kernel_reboot();
    for (int i = 0; i < ACTORS; i++)
        actors_forget(i);
    stage_open(ACTORS_WITNESS);
    stage_handles(ACTORS_WITNESS);
    verify_again();
}

const scenario scenario_window = {
    .name = "window",
    .about = "two processes send the first ids of a partition, then a new boot",
    .weight = 13,
    .cast = {.count = 2, .mortal = 3, .most_ns = 400000000, .most_points = 6000, .act = act_window},
    .prepare = prepare_window,
    .verify = verify_window,
};

/* --- the window has no room for the next id --- */

enum { FIT = 2 * TL_IDS_WAYS, CROWD = FIT + 1, OTHERS = TL_IDS_UNSETTLED - 1 };

typedef struct crowd { /* in the world */
    char ids[CROWD + OTHERS][16];
    single sent[CROWD + OTHERS];
    uint32_t count;
} crowd;

static crowd *around_x;

/* Whether an id has the same two places in a window as x, wherever those are: they follow from one half of its hash, so
 * ids that have that half in common fill them. */
static bool is_neighbour(tl_ids_window *window, const tl_ids_rule *rule, const tl_message_id *id,
                         const tl_message_id *x) {
    int64_t offset = 0;
    memset(window->map, 0, tl_ids_bytes(window->buckets));
    for (uint64_t i = 1; i <= FIT; i++) {
        const tl_message_id same = {{i, id->hash[1]}};
        (void)tl_ids_note(window, &same, (int64_t)i, rule->now_ms, rule);
    }
    (void)tl_ids_note(window, x, FIT + 1, rule->now_ms, rule);
    tl_message_id other = {{1, ~id->hash[1]}};
    for (; other.hash[0] <= OTHERS; other.hash[0]++)
        (void)tl_ids_note(window, &other, (int64_t)(FIT + 1 + other.hash[0]), rule->now_ms, rule);
    return tl_ids_place(window, &other, rule, &offset) == TL_EFULL;
}

static void send_to_crowd(void) {
    single *of = &around_x->sent[around_x->count];
    of->offset = -1;
    send(ACTORS_WITNESS, of, around_x->ids[around_x->count++]);
}

/* Ids that belong into the same two places of the window as "x", one more than fit, and so many others that this one has
 * to get its place before the next id. */
static void prepare_growth(void) {
    prepare_ids();
    around_x = tl_calloc(1, sizeof *around_x);
    actors_be(ACTORS_WITNESS);
    tl_partition *partition = the_stage->partitions[ACTORS_WITNESS][0];
    uint64_t key = tl_ids_key(partition);
    uint32_t file = partition->ids->file;
    int64_t offset = 0;
    tl_ids_window window = {.buckets = partition->ids->window.buckets};
    tl_message_id x;
    tl_ids_rule rule;
    window.map = aligned_alloc(TL_PAGE, tl_ids_bytes(window.buckets));
    if (window.map == NULL || !tl_ids_rule_at(partition, tl_ids_now_ms(), &rule))
        actors_fail("there is no window to try ids in");
    tl_ids_hash(key, "x", 1, &x);
    for (uint32_t i = 0; around_x->count < CROWD; i++) {
        char *text = around_x->ids[around_x->count];
        tl_message_id other;
        snprintf(text, sizeof around_x->ids[0], "%u", i);
        tl_ids_hash(key, text, strlen(text), &other);
        if (is_neighbour(&window, &rule, &other, &x))
            send_to_crowd();
    }
    free(window.map);
    for (uint32_t i = 0; i < OTHERS; i++) {
        snprintf(around_x->ids[around_x->count], sizeof around_x->ids[0], "other %u", i);
        send_to_crowd();
    }
    if (partition->ids->file != file || tl_ids_place(&partition->ids->window, &x, &rule, &offset) != TL_EFULL)
        actors_fail("the window is not full");
    actors_be(-1);
}

static void act_growth(int actor) {
    send(actor, of_x, "x");
    send(actor, of_y, "y");
}

static void verify_growth(void) {
    stage_verify();
    for (uint32_t i = 0; i < around_x->count; i++)
        send(ACTORS_WITNESS, &around_x->sent[i], around_x->ids[i]);
    verify_again();
    for (uint32_t i = 0; i < around_x->count; i++)
        single_judge(&around_x->sent[i]);
}

const scenario scenario_growth = {
    .name = "growth",
    .about = "the window of ids has to grow for the next one",
    .weight = 18,
    .cast = {.count = 2, .mortal = 3, .most_ns = 400000000, .most_points = 6000, .act = act_growth},
    .prepare = prepare_growth,
    .verify = verify_growth,
};
