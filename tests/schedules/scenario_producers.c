/* Is what a producer sends in the log once, in order, and never behind a later self, whoever is stopped or killed
 * wherever?
 *
 * Imports scenarios.h, post.h. Names and fencing, catching up with what others appended, sequences, files of
 * producers. */
#include "scenarios.h"

#include "ledger.h"
#include "post.h"

enum { SEGMENT_BYTES = 4096, MESSAGE_BYTES = 1500 /* two fill a segment */ };

static tl_producer *producers; /* in the world: one for each actor */
static single *singles;

static void begin(int actors, uint32_t segment_bytes, uint32_t message_bytes) {
    history_allow_gaps(); /* so that the witness also checks files */
    producers = tl_calloc(ACTORS, sizeof *producers);
    singles = tl_calloc(4, sizeof *singles);
    for (int i = 0; i < 4; i++)
        singles[i].offset = -1;
    stage_prepare(actors, 1, segment_bytes, message_bytes);
    stage_fill(0, 1);
}

static void open_name(int actor, const char *name) {
    tl_error err = {0};
    STAGE_TRY(tl_producer_open(the_stage->stores[actor], name, strlen(name), &producers[actor], &err), "open a name");
}

static void verify(void) {
    stage_verify();
    post_judge_sequences(0);
    for (int i = 0; i < 4; i++)
        single_judge(&singles[i]);
}

/* --- two selves of one name --- */

enum { LAST, OPENED }; /* of the_stage->words: what the newer one was told that the older one wrote last */

static void prepare_selves(void) {
    begin(3, 1 << 14, 40);
    actors_be(0);
    open_name(0, "till");
    letter first = LETTER;
    first.producer = &producers[0];
    post(0, 0, &first, 0);
    actors_be(-1);
}

static void act_selves(int actor) {
    letter what = LETTER;
    tl_error err = {0};
    if (actor == 0) {
        for (int i = 0; i < 2; i++) {
            what.producer = &producers[0];
            if (post(0, 0, &what, TL_EFENCED) == TL_EFENCED) {
                if (!tl_producer_is_fenced(&producers[0]))
                    actors_fail("a producer is refused and is not fenced");
                break;
            }
            if (the_stage->words[OPENED] != 0 && what.offset > the_stage->words[LAST])
                actors_fail("offset %lld has a message of an older self, whose last one was said to be at %lld",
                            (long long)what.offset, (long long)the_stage->words[LAST]);
        }
    } else if (actor == 1) {
        open_name(1, "till");
        STAGE_TRY(tl_producer_last(&producers[1], the_stage->partitions[1][0], &the_stage->words[LAST], &err), "last");
        the_stage->words[OPENED] = 1;
        what.producer = &producers[1];
        post(1, 0, &what, 0);
    } else {
        post(2, 0, &what, 0);
        post_read(2, 0);
    }
}

const scenario scenario_selves = {
    .name = "selves",
    .about = "a name is opened anew beside its older self, which sends; a plain writer",
    .weight = 48,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 4000, .act = act_selves},
    .prepare = prepare_selves,
    .verify = verify,
};

/* --- two names in one partition that rolls --- */

static void prepare_names(void) {
    begin(3, SEGMENT_BYTES, MESSAGE_BYTES);
    for (int i = 0; i < 2; i++) {
        actors_be(i);
        open_name(i, i == 0 ? "a" : "b");
    }
    actors_be(-1);
}

/* Sends a message, and once more with the same sequence: as after an answer that was lost. */
static void act_names(int actor) {
    letter what = LETTER, again = LETTER;
    tl_error err = {0};
    if (actor == 2) {
        STAGE_TRY(tl_store_housekeep(the_stage->stores[2], &err), "housekeeping");
        post_read(2, 0);
        return;
    }
    what.producer = again.producer = &producers[actor];
    STAGE_TRY(tl_producer_next(&producers[actor], the_stage->partitions[actor][0], &what.sequence, &err), "next");
    again.sequence = what.sequence;
    post(actor, 0, &what, 0);
    post(actor, 0, &again, 0);
    if (what.duplicate || !again.duplicate || what.offset != again.offset)
        actors_fail("a message went to offset %lld, and its repetition to %lld", (long long)what.offset,
                    (long long)again.offset);
}

const scenario scenario_names = {
    .name = "names",
    .about = "two names send and repeat into a partition that rolls; housekeeping beside them",
    .weight = 20,
    .cast = {.count = 3, .mortal = 7, .most_ns = 700000000, .most_points = 12000, .act = act_names},
    .prepare = prepare_names,
    .verify = verify,
};

/* --- a client repeats through another process what it does not know to be there --- */

enum { CLIENT = 77 };

static void prepare_retry(void) { begin(3, 1 << 14, 40); }

static letter of_client(int16_t epoch, int32_t sequence) {
    letter what = LETTER;
    what.client = CLIENT;
    what.epoch = epoch;
    what.sequence = sequence;
    return what;
}

static void act_retry(int actor) {
    for (int32_t sequence = 0; sequence < (actor == 2 ? 1 : 2); sequence++) {
        letter what = of_client(1, sequence);
        what.one_of = &singles[sequence];
        post(actor, 0, &what, 0);
    }
    if (actor != 2)
        return;
    letter late = of_client(1, 5), old = of_client(0, 2);
    if (post(actor, 0, &late, TL_EOUTOFORDER) == TL_OK)
        actors_fail("a message went in although one before it was missing");
    if (post(actor, 0, &old, TL_EFENCED) == TL_OK)
        actors_fail("a message of an epoch that is over went in");
}

const scenario scenario_retry = {
    .name = "retry",
    .about = "three processes pass on what one client repeats, from the first message of it on",
    .weight = 28,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 6000, .act = act_retry},
    .prepare = prepare_retry,
    .verify = verify,
};

/* --- several open a name that nobody has heard of --- */

enum { OPENINGS = ACTORS * 2 };

typedef struct opening { /* one (id, epoch) belongs to one of them */
    int64_t id;
    int16_t epoch;
} opening;

static opening *openings; /* in the world; of those that were not fenced before they could look */
static uint32_t *opened;

static void note_opening(int actor) {
    opening mine = {producers[actor].producer_id, tl_producer_epoch(&producers[actor])};
    if (tl_producer_is_fenced(&producers[actor]))
        return; /* the epoch is a later one's */
    for (uint32_t i = 0; i < *opened; i++)
        if (openings[i].id == mine.id && openings[i].epoch >= mine.epoch)
            actors_fail("epoch %d of producer %lld was given out after epoch %d", mine.epoch, (long long)mine.id,
                        openings[i].epoch);
    openings[(*opened)++] = mine;
}

static void prepare_heirs(void) {
    openings = tl_calloc(OPENINGS, sizeof *openings);
    opened = tl_calloc(1, sizeof *opened);
    begin(3, 1 << 14, 40);
}

static void act_heirs(int actor) {
    letter what = LETTER;
    open_name(actor, "till");
    note_opening(actor);
    what.producer = &producers[actor];
    post(actor, 0, &what, TL_EFENCED);
}

static void verify_heirs(void) {
    verify();
    stage_verify_boot();
    open_name(ACTORS_WITNESS, "till");
    note_opening(ACTORS_WITNESS);
}

const scenario scenario_heirs = {
    .name = "heirs",
    .about = "three open the same new name and send, then a new boot",
    .weight = 14,
    .cast = {.count = 3, .mortal = 7, .most_ns = 700000000, .most_points = 8000, .act = act_heirs},
    .prepare = prepare_heirs,
    .verify = verify_heirs,
};
