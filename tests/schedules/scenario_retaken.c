/* May a message whose id came in a transaction be sent again, and is it never left out for one that was taken back?
 *
 * Imports scenarios.h, post.h, ledger.h. Ids and transactions together: who is told "it is there already" can rely
 * on it. */
#include "scenarios.h"

#include "ledger.h"
#include "post.h"

/* That a message is at this offset already; `entry` is the transaction of whoever was told, 0: none. */
typedef struct told {
    int64_t offset;
    uint32_t entry;
} told;

typedef struct telling {
    tl_producer producer;
    told duplicates[8];
    uint32_t count, fresh; /* fresh: plain ones that went in */
} telling;

static telling *all; /* in the world */

static bool send(int actor, tl_transaction *transaction, uint32_t entry) {
    letter what = LETTER;
    what.id = "x";
    what.transaction = transaction;
    what.producer = transaction == NULL ? NULL : transaction->producer;
    what.entry = entry;
    if (post(actor, 0, &what, TL_EFENCED) != TL_OK)
        return false;
    if (what.duplicate)
        all->duplicates[all->count++] = (told){what.offset, entry};
    else
        all->fresh += transaction == NULL;
    return true;
}

static void prepare(void) {
    tl_error err = {0};
    history_allow_gaps();
    the_stage->ids = true;
    all = tl_calloc(1, sizeof *all);
    stage_prepare(3, 1, 1 << 14, 40);
    stage_fill(0, 1);
    actors_be(0);
    STAGE_TRY(tl_producer_open(the_stage->stores[0], "till", 4, &all->producer, &err), "open a name");
    actors_be(-1);
}

static void act(int actor) {
    tl_error err = {0};
    if (actor != 0) {
        send(actor, NULL, 0);
        return;
    }
    for (int i = 0; i < 2; i++) {
        tl_transaction transaction;
        STAGE_TRY(tl_transaction_begin(&all->producer, 60000, &transaction, &err), "begin");
        uint32_t entry = ledger_open();
        if (!send(0, &transaction, entry))
            actors_fail("a transaction was ended that nobody had a reason to end");
        if (i == 0) {
            STAGE_TRY(tl_transaction_abort(&transaction, &err), "abort");
            ledger_refuse(entry);
        } else {
            ledger_ask(entry);
            STAGE_TRY(tl_transaction_commit(&transaction, false, &err), "commit");
            ledger_commit(entry);
        }
    }
}

static void verify(void) {
    stage_verify();
    for (uint32_t i = 0; i < all->count; i++) {
        const told *t = &all->duplicates[i];
        if ((t->entry == 0 || ledger_outcome(t->entry)) && !history_is_visible(0, t->offset))
            actors_fail("a message was left out for one at offset %lld, which nobody sees", (long long)t->offset);
    }
    if (all->fresh > 1)
        actors_fail("two plain messages have the same id");
}

const scenario scenario_retaken = {
    .name = "retaken",
    .about = "an id in an aborted and a committed transaction, and from two plain writers",
    .weight = 20,
    .cast = {.count = 3, .mortal = 7, .most_ns = 400000000, .most_points = 8000, .act = act},
    .prepare = prepare,
    .verify = verify,
};
