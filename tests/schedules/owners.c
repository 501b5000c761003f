/* How are transactions begun, ended, swept and looked at, and told to the ledger?
 *
 * Imports owners.h, post.h, ledger.h. */
#include "owners.h"

#include "ledger.h"
#include "post.h"

owner *owners;

/* --- what they do --- */

void owner_open_name(int actor, const char *name) {
    tl_error err = {0};
    tl_store *store = the_stage->stores[actor];
    STAGE_TRY(tl_producer_open(store, name, strlen(name), &owners[actor].producer, &err), "open a name");
}

int64_t owner_offset(int actor) {
    tl_offset_word word;
    const tl_offsets *table = tl_store_offsets(the_stage->stores[actor]);
    if (tl_offsets_read(table, (uint32_t)the_stage->words[OWNER_SLOT], &word, NULL) != TL_OK)
        actors_fail("a slot cannot be read");
    return word.offset;
}

/* As a consumer does: after the claim, what was decided before is in the offset. */
int64_t owner_claim(int actor) {
    tl_error err = {0};
    tl_store *store = the_stage->stores[actor];
    tl_offset_word word;
    uint32_t slot = (uint32_t)the_stage->words[OWNER_SLOT];
    int status = TL_EAGAIN;
    for (int tries = 0; status == TL_EAGAIN; tries++) {
        if (tries == 8 || tl_offsets_read(tl_store_offsets(store), slot, &word, NULL) != TL_OK)
            actors_fail("a slot cannot be read and claimed");
        status = tl_offsets_claim(tl_store_offsets(store), slot, word, tl_store_owner(store), &owners[actor].lease);
    }
    if (status != TL_OK)
        actors_fail("a claim answered %s", tl_status_name(status));
    STAGE_TRY(tl_transactions_finish_slot(store, slot, &err), "finishing what holds the slot");
    return owner_offset(actor);
}

void owner_begin(int actor, int64_t timeout_ms) {
    tl_error err = {0};
    owner *o = &owners[actor];
    STAGE_TRY(tl_transaction_begin(&o->producer, timeout_ms, &o->transaction, &err), "begin");
    o->entry = ledger_open();
}

/* false: it is over. */
bool owner_send(int actor, int partition) {
    letter what = LETTER;
    what.producer = &owners[actor].producer;
    what.transaction = &owners[actor].transaction;
    what.entry = owners[actor].entry;
    return post(actor, partition, &what, TL_EFENCED) == TL_OK;
}

bool owner_add_offset(int actor, int64_t offset) {
    tl_error err = {0};
    owner *o = &owners[actor];
    int status = tl_transaction_offset(&o->transaction, (uint32_t)the_stage->words[OWNER_SLOT],
                                       tl_store_owner(the_stage->stores[actor]), o->lease, offset, &err);
    if (status < 0 && status != TL_EFENCED)
        stage_refuse(status, "offset", &err);
    return status == TL_OK;
}

void owner_abort(int actor) {
    tl_error err = {0};
    STAGE_TRY(tl_transaction_abort(&owners[actor].transaction, &err), "abort");
    ledger_refuse(owners[actor].entry);
}

bool owner_commit(int actor, bool synced) {
    tl_error err = {0};
    owner *o = &owners[actor];
    ledger_ask(o->entry);
    int status = tl_transaction_commit(&o->transaction, synced, &err);
    if (status < 0 && status != TL_EFENCED)
        stage_refuse(status, "commit", &err);
    if (status == TL_OK)
        ledger_commit(o->entry);
    else
        ledger_refuse(o->entry);
    return status == TL_OK;
}

/* Nobody may interfere. */
void owner_commit_surely(int actor, bool synced) {
    if (!owner_commit(actor, synced))
        actors_fail("a commit was refused without a reason");
}

void owner_sweep(int actor) {
    tl_error err = {0};
    STAGE_TRY(tl_transactions_sweep(the_stage->stores[actor], &err), "sweep");
}

void owner_pass(int64_t ns) {
    uint32_t word = 0;
    (void)tl_os->futex_wait(&word, 0, ns);
}

/* The offset first: whoever saw it finds the messages decided, and who saw a message finds the offset. */
void owner_look(int actor, uint32_t entry) {
    bool there = owner_offset(actor) == OWNER_OFFSET;
    if (there)
        ledger_show(entry, "offset is committed");
    post_read(actor, 0);
    post_read(actor, 1);
    if (ledger_outcome(entry) && owner_offset(actor) != OWNER_OFFSET)
        actors_fail("messages of a transaction are visible, and its offset is not committed");
    if (the_stage->words[OWNER_SYNCED] != 0 && ledger_outcome(entry) && the_stage->words[OWNER_DURABLE] == 0)
        actors_fail("a commit is seen, and its record is not on the disk");
}

/* --- the stage --- */

void owners_prepare(int actors, int partitions, uint32_t segment_bytes, uint32_t message_bytes) {
    tl_error err = {0};
    uint32_t slot = 0;
    history_allow_gaps();
    owners = tl_calloc(ACTORS, sizeof *owners);
    stage_prepare(actors, partitions, segment_bytes, message_bytes);
    stage_fill(0, 1);
    actors_be(ACTORS_WITNESS);
    STAGE_TRY(tl_store_offset_slot(the_stage->stores[ACTORS_WITNESS], "group", 5, STAGE_CHANNEL, 0, true, &slot, &err),
              "slot");
    the_stage->words[OWNER_SLOT] = slot;
    actors_be(0);
    owner_open_name(0, "till");
    (void)owner_claim(0);
    owner_begin(0, 1000); /* so that there is a file of records, and everybody's first one is behind him */
    owner_send(0, 0);
    owner_commit_surely(0, false);
    actors_be(-1);
}

void owners_verify(void) {
    stage_verify();
    for (int i = 0; i < HISTORY_PARTITIONS && the_stage->slots[i] != UINT32_MAX; i++)
        post_judge_sequences(i);
}

/* The first transaction's offset is committed when it is. */
void owners_judge_offset(void) {
    uint32_t entry = owners[0].entry;
    bool there = owner_offset(ACTORS_WITNESS) == OWNER_OFFSET;
    if (there)
        ledger_show(entry, "offset is committed");
    else if (entry > 1 && ledger_outcome(entry))
        actors_fail("a transaction is committed, and its offset is not");
}

void owners_verify_offset(void) {
    owners_verify();
    owners_judge_offset();
}

/* --- parts --- */

void owner_act(int64_t timeout_ms, bool synced) {
    owner_begin(0, timeout_ms);
    if (owner_send(0, 0) && owner_send(0, 1) && owner_add_offset(0, OWNER_OFFSET)) {
        if (!owner_commit(0, synced) && timeout_ms > 100)
            actors_fail("a commit was refused without a reason");
    } else if (timeout_ms > 100) {
        actors_fail("a transaction was ended that nobody had a reason to end");
    } else {
        owner_abort(0);
    }
}

void owner_act_as_sweeper(int actor) {
    owner_sweep(actor);
    owner_pass(25000000);
    owner_sweep(actor);
}

void owner_act_as_reader(int actor) {
    for (int i = 0; i < 2; i++) {
        uint32_t entry = owners[0].entry;
        if (entry > 1)
            owner_look(actor, entry);
    }
}
