/* Is an offset committed by exactly those who hold its lease?
 *
 * Imports scenarios.h. Claims, commits, releases, a robber. The oracle keeps, for each epoch, what its owner committed
 * last and what it is committing; a claim must have found the one or the other, and nothing may come after it. */
#include "scenarios.h"

enum { SLOT, FORCED };
enum { EPOCHS = 12, NOTHING = -2 };

typedef struct epoch {
    int64_t begun_at; /* the offset that the claim found; NOTHING: no such epoch yet */
    int64_t committed, committing;
    bool over; /* a later claim has returned */
} epoch;

static epoch *epochs; /* in the world */

static void prepare(void) {
    tl_error err = {0};
    uint32_t slot = 0;
    stage_prepare(3, 1, 1 << 14, 40);
    stage_fill(0, 1);
    actors_be(ACTORS_WITNESS);
    STAGE_TRY(tl_store_offset_slot(the_stage->stores[ACTORS_WITNESS], "group", 5, STAGE_CHANNEL, 0, true, &slot, &err),
              "slot");
    actors_be(-1);
    the_stage->words[SLOT] = slot;
    epochs = tl_calloc(EPOCHS, sizeof *epochs);
    for (int i = 0; i < EPOCHS; i++)
        epochs[i].begun_at = epochs[i].committed = epochs[i].committing = NOTHING;
    epochs[0] = (epoch){.begun_at = TL_OFFSETS_NONE, .committed = TL_OFFSETS_NONE, .committing = NOTHING};
}

static epoch *of_epoch(uint32_t number) {
    if (number >= EPOCHS)
        actors_fail("epoch %u cannot be: so many claims were not made", number);
    return &epochs[number];
}

static void claimed(uint32_t number, int64_t found) {
    epoch *before = of_epoch(number - 1), *now = of_epoch(number);
    if (now->begun_at != NOTHING)
        actors_fail("epoch %u was given out twice", number);
    if (before->begun_at != NOTHING && found != before->committed && found != before->committing)
        actors_fail("a claim of epoch %u found %lld, and epoch %u had committed %lld", number, (long long)found,
                    number - 1, (long long)before->committed);
    *now = (epoch){.begun_at = found, .committed = found, .committing = NOTHING};
    before->over = true;
}

/* 0: fenced. */
static int commit(int actor, uint32_t number, int64_t offset) {
    epoch *mine = of_epoch(number);
    mine->committing = offset;
    int status = tl_offsets_commit(tl_store_offsets(the_stage->stores[actor]), (uint32_t)the_stage->words[SLOT],
                                   tl_store_owner(the_stage->stores[actor]), number, offset, 1);
    if (status != TL_OK && status != TL_EFENCED)
        actors_fail("a commit answered %s", tl_status_name(status));
    bool next_knows = number + 1 < EPOCHS && epochs[number + 1].begun_at != NOTHING;
    if (status == TL_OK && next_knows && epochs[number + 1].begun_at != offset)
        actors_fail("a commit of epoch %u went through after epoch %u had begun", number, number + 1);
    if (status == TL_EFENCED && next_knows && epochs[number + 1].begun_at == offset && mine->committed != offset)
        actors_fail("a commit of %lld was refused and is there", (long long)offset);
    if (status == TL_OK)
        mine->committed = offset;
    mine->committing = NOTHING;
    return status == TL_OK;
}

static bool take(int actor, bool by_force, uint32_t *number, int64_t *offset) {
    tl_store *store = the_stage->stores[actor];
    tl_offset_word word;
    if (tl_offsets_read(tl_store_offsets(store), (uint32_t)the_stage->words[SLOT], &word, NULL) != TL_OK)
        actors_fail("a slot cannot be read");
    if (!by_force && word.owner != 0 && tl_store_owner_alive(store, word.owner))
        return false;
    int status = tl_offsets_claim(tl_store_offsets(store), (uint32_t)the_stage->words[SLOT], word,
                                  tl_store_owner(store), number);
    if (status == TL_EAGAIN)
        return false;
    if (status != TL_OK)
        actors_fail("a claim answered %s", tl_status_name(status));
    *offset = word.offset;
    claimed(*number, word.offset);
    return true;
}

static void act(int actor) {
    tl_offsets *table = tl_store_offsets(the_stage->stores[actor]);
    int64_t offset = 0;
    uint32_t number = 0;
    bool mine = false;
    for (int tries = 0; tries < 3 && !mine; tries++)
        mine = take(actor, actor == 2 && tries == 1, &number, &offset);
    if (!mine || !commit(actor, number, offset + 1) || !commit(actor, number, offset + 2 + actor))
        return;
    int status =
        tl_offsets_release(table, (uint32_t)the_stage->words[SLOT], tl_store_owner(the_stage->stores[actor]), number);
    if (status != TL_OK && status != TL_EFENCED)
        actors_fail("a release answered %s", tl_status_name(status));
    if (commit(actor, number, offset + 9))
        actors_fail("a commit went through after the lease was given back");
}

static void verify(void) {
    tl_offset_word word;
    if (tl_offsets_read(tl_store_offsets(the_stage->stores[ACTORS_WITNESS]), (uint32_t)the_stage->words[SLOT], &word,
                        NULL) != TL_OK)
        actors_fail("a slot cannot be read at the end");
    const epoch *last = of_epoch(word.epoch);
    if (last->begun_at == NOTHING) /* its claimer died before it could tell */
        last = of_epoch(word.epoch - 1);
    if (word.offset != last->committed && word.offset != last->committing)
        actors_fail("%lld is committed at the end, and epoch %u committed %lld last", (long long)word.offset,
                    word.epoch, (long long)last->committed);
}

const scenario scenario_offsets = {
    .name = "offsets",
    .about = "three consumers claim a lease, commit, give it back; one robs it",
    .weight = 42,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 2000, .act = act},
    .prepare = prepare,
    .verify = verify,
};
