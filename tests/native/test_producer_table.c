/* Does the table of producers follow Kafka's rules, and does it depend on the log alone?
 *
 * Imports producers.h. Single-threaded. The oracle keeps every batch of every producer and works each answer out from the
 * whole list; it knows no window, no hash and no state. */
#include "check.h"
#include "tidelog/producers.h"

/* --- the oracle --- */

typedef struct event {
    tl_batch batch;
    uint64_t place;
    int marker;
} event;

static event history[1 << 16];
static size_t events;

static int64_t last_of(const tl_batch *batch) { /* in 64 bits and by division: not how the core does it */
    return (batch->base_sequence + (int64_t)batch->last_offset_delta) % (INT64_C(2147483647) + 1);
}

/* Whether an event still says something of its producer: nothing of another epoch came behind it. */
static int64_t epoch_known(int64_t producer_id) {
    int64_t epoch = -1;
    for (size_t i = 0; i < events; i++)
        if (history[i].batch.producer_id == producer_id)
            epoch = history[i].batch.producer_epoch > epoch ? history[i].batch.producer_epoch : epoch;
    return epoch;
}

static int oracle(const tl_batch *batch, int64_t *duplicate_of) {
    int64_t epoch = epoch_known(batch->producer_id), next = 0, open = -1;
    int seen = 0;
    for (size_t i = events; i > 0; i--) { /* newest first */
        const tl_batch *old = &history[i - 1].batch;
        if (old->producer_id != batch->producer_id || old->producer_epoch != epoch || (old->attributes & TL_ATTR_CONTROL))
            continue;
        if (seen == 0)
            next = (last_of(old) + 1) % (INT64_C(2147483647) + 1);
        if (++seen <= 5 && batch->producer_epoch == epoch && old->base_sequence == batch->base_sequence &&
            last_of(old) == last_of(batch)) {
            *duplicate_of = old->base_offset;
            return 1;
        }
    }
    for (size_t i = 0; i < events; i++) {
        if (history[i].batch.producer_id != batch->producer_id)
            continue;
        if (history[i].batch.attributes & TL_ATTR_CONTROL)
            open = -1;
        else if ((history[i].batch.attributes & TL_ATTR_TRANSACTIONAL) && open < 0)
            open = history[i].batch.base_offset;
    }
    if (epoch < 0)
        return TL_OK;
    if (batch->producer_epoch < epoch)
        return TL_EFENCED;
    if (batch->base_sequence != (batch->producer_epoch > epoch ? 0 : next))
        return TL_EOUTOFORDER;
    return open >= 0 && !(batch->attributes & TL_ATTR_TRANSACTIONAL) ? TL_ETXNSTATE : TL_OK;
}

/* --- */

static tl_producer_table *table;
static int64_t offset;

static tl_batch batch_of(int64_t producer_id, int epoch, int32_t sequence, int32_t count, unsigned attributes) {
    return (tl_batch){.base_offset = offset, .producer_id = producer_id, .producer_epoch = (int16_t)epoch,
                      .base_sequence = sequence, .last_offset_delta = count - 1, .count = count,
                      .attributes = (uint16_t)attributes, .max_timestamp_ms = 1000 + offset, .bytes = 100};
}

static void step(const tl_batch *batch, int marker) {
    tl_error err = {0};
    CHECK(tl_producer_table_step(table, batch, (uint64_t)batch->base_offset * 100, marker, 7, &err) == TL_OK);
    history[events++] = (event){*batch, (uint64_t)batch->base_offset * 100, marker};
    offset += batch->last_offset_delta + 1;
}

/* What the table says, and what the oracle says; then the batch is appended if it may be. */
static int send_batch(int64_t producer_id, int epoch, int32_t sequence, int32_t count, unsigned attributes, int64_t *answer) {
    tl_batch batch = batch_of(producer_id, epoch, sequence, count, attributes);
    const tl_producer_batch *duplicate = NULL;
    tl_error err = {0};
    int64_t of = -1;
    int wanted = oracle(&batch, &of);
    int got = tl_producer_check(tl_producer_table_find(table, producer_id), &batch, &duplicate, &err);
    if (got != wanted)
        fprintf(stderr, "producer %lld epoch %d sequence %d count %d attributes %x: %s, not %s\n", (long long)producer_id, epoch,
                sequence, count, attributes, tl_status_name(got), tl_status_name(wanted));
    CHECK(got == wanted);
    if (got == 1) {
        CHECK(duplicate->first_offset == of && duplicate->last_offset == of + count - 1);
        *answer = of;
    } else if (got == TL_OK) {
        *answer = offset;
        step(&batch, TL_MARKER_NONE);
    } else {
        CHECK(err.code == got && err.detail[0] != 0);
    }
    return got;
}

static void mark(int64_t producer_id, int epoch, int kind) {
    tl_batch batch = batch_of(producer_id, epoch, -1, 1, TL_ATTR_CONTROL | TL_ATTR_TRANSACTIONAL);
    step(&batch, kind);
}

static void begin(void) {
    tl_producer_table_free(table);
    table = tl_producer_table_new();
    CHECK(table != NULL && tl_producer_table_count(table) == 0);
    events = 0;
    offset = 0;
}

/* --- the rules, one by one --- */

static void test_rules(void) {
    int64_t at[8], again = -1, answer = -1;
    begin();
    CHECK(send_batch(9, 3, 41, 2, 0, &at[0]) == TL_OK); /* unknown: any epoch, any sequence */
    for (int i = 1; i < 7; i++)
        CHECK(send_batch(9, 3, 41 + 2 * i, 2, 0, &at[i]) == TL_OK);
    for (int i = 6; i >= 2; i--) { /* the last five */
        CHECK(send_batch(9, 3, 41 + 2 * i, 2, 0, &again) == 1);
        CHECK(again == at[i]);
    }
    CHECK(send_batch(9, 3, 43, 2, 0, &again) == TL_EOUTOFORDER);      /* the sixth */
    CHECK(send_batch(9, 3, 53, 1, 0, &again) == TL_EOUTOFORDER);      /* half of one */
    CHECK(send_batch(9, 3, 53, 3, 0, &again) == TL_EOUTOFORDER);      /* more than one */
    CHECK(send_batch(9, 3, 56, 1, 0, &again) == TL_EOUTOFORDER);      /* a gap */
    CHECK(send_batch(9, 2, 55, 1, 0, &again) == TL_EFENCED);          /* an old epoch */
    CHECK(send_batch(9, 2, 53, 2, 0, &again) == TL_EFENCED);          /* that repeats what a newer one wrote */
    CHECK(send_batch(9, 4, 55, 1, 0, &again) == TL_EOUTOFORDER);      /* a new epoch begins at 0 */
    CHECK(send_batch(9, 4, 0, 1, 0, &answer) == TL_OK);
    CHECK(send_batch(9, 4, 53, 2, 0, &again) == TL_EOUTOFORDER);      /* batches of the old epoch are forgotten */
    CHECK(send_batch(9, 3, 53, 2, 0, &again) == TL_EFENCED);
    CHECK(send_batch(9, 4, 1, 1, 0, &answer) == TL_OK);
    CHECK(send_batch(8, 0, 5, 1, 0, &answer) == TL_OK);               /* another producer */
    CHECK(tl_producer_table_count(table) == 2);
    CHECK(tl_producer_table_find(table, 7) == NULL);
    CHECK(tl_producer_table_find(table, 9)->last_offset == offset - 2);
}

static void test_wrap(void) {
    int64_t answer = -1, first = -1;
    begin();
    CHECK(send_batch(1, 0, INT32_MAX - 3, 3, 0, &first) == TL_OK); /* ends at INT32_MAX - 1 */
    CHECK(send_batch(1, 0, INT32_MAX, 1, 0, &answer) == TL_OK);
    CHECK(send_batch(1, 0, INT32_MAX, 1, 0, &answer) == 1);
    CHECK(send_batch(1, 0, 0, 1, 0, &answer) == TL_OK);
    begin();
    CHECK(send_batch(1, 0, INT32_MAX - 1, 4, 0, &first) == TL_OK); /* over the end: its last sequence is 1 */
    CHECK(tl_producer_table_find(table, 1)->batches[0].last_sequence == 1);
    CHECK(send_batch(1, 0, INT32_MAX - 1, 4, 0, &answer) == 1 && answer == first);
    CHECK(send_batch(1, 0, 3, 1, 0, &answer) == TL_EOUTOFORDER);
    CHECK(send_batch(1, 0, 2, 1, 0, &answer) == TL_OK);
    CHECK(tl_sequence_after(INT32_MAX, 1) == 0 && tl_sequence_after(INT32_MAX - 1, 1) == INT32_MAX);
}

static void test_transactions(void) {
    int64_t answer = -1, first = -1;
    begin();
    CHECK(tl_producer_table_first_open(table, -1) == UINT64_MAX);
    CHECK(send_batch(5, 0, 0, 2, TL_ATTR_TRANSACTIONAL, &first) == TL_OK);
    CHECK(send_batch(6, 0, 0, 1, TL_ATTR_TRANSACTIONAL, &answer) == TL_OK);
    CHECK(tl_producer_table_first_open(table, -1) == (uint64_t)first * 100);
    CHECK(tl_producer_table_first_open(table, 5) == (uint64_t)answer * 100);
    CHECK(send_batch(5, 0, 2, 1, 0, &answer) == TL_ETXNSTATE);
    CHECK(send_batch(5, 0, 0, 2, 0, &answer) == 1); /* Kafka looks for repetitions first */
    CHECK(send_batch(5, 0, 2, 1, TL_ATTR_TRANSACTIONAL, &answer) == TL_OK);
    CHECK(tl_producer_table_find(table, 5)->txn_first_offset == first);
    mark(5, 0, TL_MARKER_COMMIT);
    const tl_producer_state *state = tl_producer_table_find(table, 5);
    CHECK(state->txn_first_offset == -1 && state->txn_first_place == UINT64_MAX && state->coordinator_epoch == 7);
    CHECK(state->last_offset == 3);
    CHECK(send_batch(5, 0, 3, 1, 0, &answer) == TL_OK); /* the same epoch goes on counting */
    mark(6, 1, TL_MARKER_ABORT);                        /* a marker that fences */
    CHECK(tl_producer_table_first_open(table, -1) == UINT64_MAX);
    CHECK(send_batch(6, 0, 1, 1, 0, &answer) == TL_EFENCED);
    CHECK(send_batch(6, 1, 1, 1, 0, &answer) == TL_EOUTOFORDER);
    CHECK(send_batch(6, 1, 0, 1, TL_ATTR_TRANSACTIONAL, &answer) == TL_OK);
    tl_batch late = batch_of(6, 0, -1, 1, TL_ATTR_CONTROL | TL_ATTR_TRANSACTIONAL);
    tl_error err = {0}; /* of a transaction that is over: the open one is not its */
    CHECK(tl_producer_table_step(table, &late, 1, TL_MARKER_ABORT, 0, &err) == TL_OK);
    CHECK(tl_producer_table_find(table, 6)->txn_first_offset >= 0 && tl_producer_table_find(table, 6)->epoch == 1);
    tl_batch other = batch_of(77, 0, -1, 1, TL_ATTR_CONTROL);
    CHECK(tl_producer_table_step(table, &other, 1, TL_MARKER_NONE, 0, &err) == TL_OK);
    tl_batch plain = batch_of(-1, -1, -1, 5, 0);
    CHECK(tl_producer_table_step(table, &plain, 1, TL_MARKER_NONE, 0, &err) == TL_OK);
    CHECK(tl_producer_table_count(table) == 2);
}

/* --- random batches --- */

static void test_random(uint64_t seed) {
    uint64_t random = seed;
    unsigned tally[4] = {0}; /* accepted, repeated, fenced, out of order */
    for (int round = 0; round < 60; round++) {
        begin();
        for (int i = 0; i < 300; i++) {
            uint64_t dice = check_random(&random);
            int64_t producer_id = (int64_t)(dice & 3), answer = -1;
            const tl_producer_state *known = tl_producer_table_find(table, producer_id);
            int epoch = known == NULL ? (int)(dice >> 8 & 3) : known->epoch + (int)(dice >> 8 & 15) / 13 - ((dice >> 16 & 15) == 0);
            int32_t sequence = tl_producer_next_sequence(known, (int16_t)epoch), count = 1 + (int32_t)(dice >> 24 & 3);
            if (known == NULL && (dice >> 56 & 7) == 0)
                sequence = INT32_MAX - (int32_t)(dice >> 32 & 15);
            if (known != NULL && known->batch_count > 0 && (dice >> 40 & 3) == 0) { /* what the last ones were, or nearly */
                const tl_producer_batch *old = &known->batches[(dice >> 44 & 7) % known->batch_count];
                sequence = tl_sequence_after(old->first_sequence, (dice >> 48 & 7) == 0 ? 1 : 0);
                count = (int32_t)(old->last_offset - old->first_offset + 1);
            }
            if (epoch < 0 || (dice >> 52 & 15) == 0)
                epoch = epoch < 0 ? 0 : epoch, sequence = tl_sequence_after(sequence, 3);
            unsigned attributes = (dice >> 60 & 3) == 0 ? TL_ATTR_TRANSACTIONAL : 0;
            int got = send_batch(producer_id, epoch, sequence, count, attributes, &answer);
            tally[got == TL_OK ? 0 : got == 1 ? 1 : got == TL_EFENCED ? 2 : 3]++;
            known = tl_producer_table_find(table, producer_id);
            if (known != NULL && known->txn_first_offset >= 0 && (dice >> 62) == 0)
                mark(producer_id, known->epoch + (int)(dice >> 61 & 1), (int)(dice >> 20 & 1));
        }
    }
    printf("%u accepted, %u repeated, %u fenced, %u refused\n", tally[0], tally[1], tally[2], tally[3]);
    CHECK(tally[0] > 1000 && tally[1] > 500 && tally[2] > 100 && tally[3] > 300);
}

/* --- the limit --- */

static int count_open(void *context, const tl_producer_state *state) {
    *(unsigned *)context += state->txn_first_offset >= 0;
    return 0;
}

static void test_limit(void) {
    tl_error err = {0};
    begin();
    tl_producer_table *other = tl_producer_table_new();
    uint32_t loaded_at = TL_PRODUCERS_MOST / 2;
    for (uint32_t i = 0; i < TL_PRODUCERS_MOST + TL_PRODUCERS_MOST / 8 + 10; i++) {
        tl_batch batch = batch_of(1000000 - i, 0, 0, 1, i == 3 ? TL_ATTR_TRANSACTIONAL : 0);
        CHECK(tl_producer_table_step(table, &batch, i, TL_MARKER_NONE, -1, &err) == TL_OK);
        if (i > loaded_at) /* another process, which began with a file */
            CHECK(tl_producer_table_step(other, &batch, i, TL_MARKER_NONE, -1, &err) == TL_OK);
        else if (i == loaded_at)
            for (uint32_t k = 0; k <= i; k++) { /* in another order */
                uint32_t number = (k * 40503u) % (i + 1);
                while (tl_producer_table_find(other, 1000000 - (int64_t)number) != NULL)
                    number = (number + 1) % (i + 1);
                CHECK(tl_producer_table_put(other, tl_producer_table_find(table, 1000000 - (int64_t)number), &err) == TL_OK);
            }
        offset++;
    }
    size_t left = tl_producer_table_count(table);
    unsigned open = 0, open_there = 0;
    CHECK(left <= TL_PRODUCERS_MOST && left > TL_PRODUCERS_MOST / 2 && left == tl_producer_table_count(other));
    for (uint32_t i = 0; i < TL_PRODUCERS_MOST + TL_PRODUCERS_MOST / 8 + 10; i++)
        CHECK((tl_producer_table_find(table, 1000000 - (int64_t)i) == NULL) ==
              (tl_producer_table_find(other, 1000000 - (int64_t)i) == NULL));
    (void)tl_producer_table_each(table, &open, count_open);
    (void)tl_producer_table_each(other, &open_there, count_open);
    CHECK(open == 1 && open_there == 1 && tl_producer_table_find(table, 1000000 - 3) != NULL);
    CHECK(tl_producer_table_find(table, 1000000) == NULL);
    CHECK(tl_producer_table_first_open(table, -1) == 3);
    tl_producer_table_clear(table);
    CHECK(tl_producer_table_count(table) == 0 && tl_producer_table_find(table, 1000000 - 3) == NULL);
    tl_producer_table_free(other);
}

int main(void) {
    test_rules();
    test_wrap();
    test_transactions();
    test_random(1);
    test_random(20261127);
    test_limit();
    tl_producer_table_free(table);
    return check_report();
}
