/* May this batch of a producer be appended, and what does a batch of the log say about its producer?
 *
 * Imports producers.h. Plain memory for one thread at a time: no files, no locks. The rules are Kafka's ProducerAppendInfo
 * and ProducerStateEntry, in their order. States stand in one array, an open hash of their numbers beside it finds them. */
#include "tidelog/producers.h"

#include "tidelog/os.h"

#include <stdio.h>
#include <stdlib.h>

#define FIRST_ROOM 8u
#define EVICTED (TL_PRODUCERS_MOST / 8) /* at once, so that a full table does not sort at every new producer */

struct tl_producer_table {
    tl_producer_state *states;
    uint32_t count, room;
    uint32_t *slots; /* number of a state + 1; 0: free */
    uint32_t mask;   /* slots - 1; there are twice as many as `room` */
    uint32_t open;   /* transactions */
    uint32_t recent; /* number of the state that was found last, if there are so many: mostly the next one as well */
};

/* --- the hash --- */

static uint32_t home(const tl_producer_table *table, int64_t producer_id) {
    uint64_t mixed = (uint64_t)producer_id * 0x9e3779b97f4a7c15u;
    return (uint32_t)(mixed >> 32) & table->mask;
}

static void insert(tl_producer_table *table, uint32_t number) {
    uint32_t at = home(table, table->states[number].producer_id);
    while (table->slots[at] != 0)
        at = (at + 1) & table->mask;
    table->slots[at] = number + 1;
}

static void insert_all(tl_producer_table *table) {
    memset(table->slots, 0, ((size_t)table->mask + 1) * sizeof *table->slots);
    for (uint32_t i = 0; i < table->count; i++)
        insert(table, i);
}

tl_producer_state *tl_producer_table_find(tl_producer_table *table, int64_t producer_id) {
    if (table == NULL || table->count == 0)
        return NULL;
    if (TL_LIKELY(table->recent < table->count && table->states[table->recent].producer_id == producer_id))
        return &table->states[table->recent];
    for (uint32_t at = home(table, producer_id); table->slots[at] != 0; at = (at + 1) & table->mask) {
        uint32_t number = table->slots[at] - 1;
        if (table->states[number].producer_id == producer_id) {
            table->recent = number;
            return &table->states[number];
        }
    }
    return NULL;
}

static int grow(tl_producer_table *table, tl_error *err) {
    if (table->count < table->room)
        return TL_OK;
    uint32_t room = table->room == 0 ? FIRST_ROOM : 2 * table->room;
    tl_producer_state *states = tl_os->realloc(table->states, room * sizeof *states);
    if (states == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the producers of a partition", "", -1);
    table->states = states;
    uint32_t *slots = tl_os->malloc(2 * (size_t)room * sizeof *slots);
    if (slots == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for the producers of a partition", "", -1);
    tl_os->free(table->slots);
    table->slots = slots;
    table->mask = 2 * room - 1;
    table->room = room;
    insert_all(table);
    return TL_OK;
}

tl_producer_table *tl_producer_table_new(void) { return tl_calloc(1, sizeof(tl_producer_table)); }

void tl_producer_table_free(tl_producer_table *table) {
    if (table == NULL)
        return;
    tl_os->free(table->states);
    tl_os->free(table->slots);
    tl_os->free(table);
}

void tl_producer_table_clear(tl_producer_table *table) {
    table->count = table->open = 0;
    if (table->slots != NULL)
        insert_all(table);
}

size_t tl_producer_table_count(const tl_producer_table *table) { return table->count; }

int tl_producer_table_each(const tl_producer_table *table, void *context,
                           int (*each)(void *context, const tl_producer_state *state)) {
    int result = 0;
    for (uint32_t i = 0; i < table->count && result == 0; i++)
        result = each(context, &table->states[i]);
    return result;
}

/* --- the limit --- */

typedef struct age {
    int64_t last_offset, producer_id;
} age;

/* Producer ids decide between equals: which ones go must not depend on how the table came to be. */
static int by_age(const void *a, const void *b) {
    const age *x = a, *y = b;
    if (x->last_offset != y->last_offset)
        return x->last_offset < y->last_offset ? -1 : 1;
    return (x->producer_id > y->producer_id) - (x->producer_id < y->producer_id);
}

/* Those that have been silent for longest go, but none that has a transaction open. */
static int evict(tl_producer_table *table, tl_error *err) {
    age *ages = tl_os->malloc(table->count * sizeof *ages);
    if (ages == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to look for producers that are silent", "", -1);
    uint32_t idle = 0, kept = 0;
    for (uint32_t i = 0; i < table->count; i++)
        if (table->states[i].txn_first_offset < 0)
            ages[idle++] = (age){table->states[i].last_offset, table->states[i].producer_id};
    qsort(ages, idle, sizeof *ages, by_age);
    uint32_t leave = idle < EVICTED ? idle : EVICTED;
    for (uint32_t i = 0; leave > 0 && i < table->count; i++) {
        const tl_producer_state *state = &table->states[i];
        const age own = {state->last_offset, state->producer_id};
        if (state->txn_first_offset < 0 && by_age(&own, &ages[leave - 1]) <= 0)
            continue;
        table->states[kept++] = *state;
    }
    tl_os->free(ages);
    if (leave > 0) {
        table->count = kept;
        insert_all(table);
    }
    return TL_OK;
}

static int add(tl_producer_table *table, int64_t producer_id, tl_producer_state **out, tl_error *err) {
    int status = table->count >= TL_PRODUCERS_MOST ? evict(table, err) : TL_OK;
    if (status == TL_OK)
        status = grow(table, err);
    if (status < 0)
        return status;
    tl_producer_state *state = &table->states[table->count];
    memset(state, 0, sizeof *state);
    state->producer_id = producer_id;
    state->epoch = -1;
    state->coordinator_epoch = -1;
    state->txn_first_offset = state->last_timestamp_ms = state->last_offset = -1;
    state->txn_first_place = UINT64_MAX;
    insert(table, table->count++);
    *out = state;
    return TL_OK;
}

int tl_producer_table_put(tl_producer_table *table, const tl_producer_state *state, tl_error *err) {
    tl_producer_state *known = tl_producer_table_find(table, state->producer_id);
    int status = known == NULL ? add(table, state->producer_id, &known, err) : TL_OK;
    if (status < 0)
        return status;
    table->open += (state->txn_first_offset >= 0 ? 1u : 0u) - (known->txn_first_offset >= 0 ? 1u : 0u);
    *known = *state;
    return TL_OK;
}

uint64_t tl_producer_table_first_open(const tl_producer_table *table, int64_t other_than) {
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; table->open > 0 && i < table->count; i++) {
        const tl_producer_state *state = &table->states[i];
        if (state->txn_first_offset >= 0 && state->producer_id != other_than && state->txn_first_place < first)
            first = state->txn_first_place;
    }
    return first;
}

/* --- the rules --- */

static int32_t last_sequence_of(const tl_batch *batch) {
    return tl_sequence_after(batch->base_sequence, batch->last_offset_delta);
}

static const tl_producer_batch *find_repeated(const tl_producer_state *known, const tl_batch *batch) {
    int32_t last = last_sequence_of(batch);
    int until = TL_BUG(WINDOW_OF_ONE) ? known->batch_count - 1 : 0;
    for (int i = known->batch_count - 1; i >= until && i >= 0; i--)
        if (known->batches[i].first_sequence == batch->base_sequence && known->batches[i].last_sequence == last)
            return &known->batches[i];
    return NULL;
}

int32_t tl_producer_next_sequence(const tl_producer_state *known, int16_t epoch) {
    if (known == NULL || known->epoch != epoch || known->batch_count == 0)
        return 0;
    return tl_sequence_after(known->batches[known->batch_count - 1].last_sequence, 1);
}

int tl_producer_check(const tl_producer_state *known, const tl_batch *batch, const tl_producer_batch **duplicate,
                      tl_error *err) {
    if (known == NULL) /* what was known of it may have been deleted: any sequence will do */
        return TL_OK;
    if (batch->producer_epoch == known->epoch && (*duplicate = find_repeated(known, batch)) != NULL)
        return 1;
    int status = TL_OK;
    int32_t next = tl_producer_next_sequence(known, batch->producer_epoch);
    if (batch->producer_epoch < known->epoch && !TL_BUG(EPOCH_NOT_CHECKED))
        status = tl_fail(err, TL_EFENCED, "a newer epoch of this producer has written here", "", -1);
    else if (batch->base_sequence != next && !TL_BUG(SEQUENCE_NOT_CHECKED))
        status = tl_fail(err, TL_EOUTOFORDER, "a batch does not follow the last one of its producer", "", -1);
    else if (known->txn_first_offset >= 0 && !tl_batch_is_transactional(batch))
        status = tl_fail(err, TL_ETXNSTATE, "a producer with an open transaction sent a batch outside of it", "", -1);
    if (status < 0 && err != NULL)
        snprintf(err->detail, sizeof err->detail, "producer %lld, epoch %d, sequence %d; known: epoch %d, next sequence %d",
                 (long long)batch->producer_id, batch->producer_epoch, (int)batch->base_sequence, known->epoch, (int)next);
    return status;
}

/* --- what the log says --- */

static void enter_epoch(tl_producer_state *state, int16_t epoch) {
    if (state->epoch != epoch) {
        state->epoch = epoch;
        state->batch_count = 0;
    }
}

void tl_producer_table_add(tl_producer_table *table, tl_producer_state *state, const tl_batch *batch, uint64_t place) {
    enter_epoch(state, batch->producer_epoch);
    if (state->batch_count == TL_PRODUCER_BATCHES)
        memmove(state->batches, state->batches + 1, (TL_PRODUCER_BATCHES - 1) * sizeof *state->batches);
    else
        state->batch_count++;
    state->batches[state->batch_count - 1] = (tl_producer_batch){
        batch->base_sequence, last_sequence_of(batch), batch->base_offset, tl_batch_last_offset(batch), batch->max_timestamp_ms};
    state->last_timestamp_ms = batch->max_timestamp_ms;
    state->last_offset = tl_batch_last_offset(batch);
    if (tl_batch_is_transactional(batch) && state->txn_first_offset < 0) {
        state->txn_first_offset = batch->base_offset;
        state->txn_first_place = place;
        table->open++;
    }
}

int tl_producer_table_step(tl_producer_table *table, const tl_batch *batch, uint64_t place, int marker,
                           int32_t coordinator_epoch, tl_error *err) {
    bool control = tl_batch_is_control(batch);
    if (batch->producer_id < 0 || (control && marker == TL_MARKER_NONE))
        return TL_OK;
    tl_producer_state *state = tl_producer_table_find(table, batch->producer_id);
    if (control && state != NULL && batch->producer_epoch < state->epoch) /* of a transaction that is over */
        return TL_OK;
    int status = state == NULL ? add(table, batch->producer_id, &state, err) : TL_OK;
    if (status < 0)
        return status;
    if (!control) {
        tl_producer_table_add(table, state, batch, place);
        return TL_OK;
    }
    enter_epoch(state, batch->producer_epoch);
    state->coordinator_epoch = coordinator_epoch;
    state->last_timestamp_ms = batch->max_timestamp_ms;
    table->open -= state->txn_first_offset >= 0 ? 1u : 0u;
    state->txn_first_offset = -1;
    state->txn_first_place = UINT64_MAX;
    return TL_OK;
}
