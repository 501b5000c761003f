/* How do messages get behind the tail when somebody asks whether they are there already, and as whom?
 *
 * Imports publishing.h, producers.h, remembering.h. Callable from any thread. The order of the steps is the point of this file:
 *   1. the mutex of this process for the partition's tables, and the long part of catching up, without the lock;
 *   2. the partition's lock, and the rest of catching up: from here on the tables say what the log says;
 *   3. the checks: fenced, ids, sequence. What is in the log already is answered with where it stands;
 *   4. batch by batch: encode, publish, note what was published.
 * A death between publishing and noting loses nothing: whoever comes next walks the log from where its table stands. */
#include "publishing.h"
#include "remembering.h"

#include "tidelog/crc32c.h"
#include "tidelog/producers.h"
#include "tidelog/transactions.h"

typedef struct sending {
    tl_partition *partition;
    const tl_append *what;
    tl_append now;           /* what is appended of it */
    const uint32_t *origin;  /* of each message of `now` its number in `what`; NULL: the same */
    const tl_message_id *ids; /* NULL: none is looked for */
    tl_ids_sift sift;
    tl_ids_gathered gathered;
    int64_t now_ms;          /* by the clock that ids are aged by; 0: not asked for yet */
    tl_batch_spec spec;      /* base_sequence: of the batch that comes next; -1: not known yet */
    tl_appended *result;
    unsigned flags;
    bool may_block;
    bool far; /* others appended more since this process last looked than may be looked at under the lock */
} sending;

/* --- before the lock --- */

/* A client's batch says itself who sent it; a named producer's is given its identity here. */
static int identify(sending *s, tl_error *err) {
    const tl_producing *producing = s->what->producing;
    s->spec = s->what->spec == NULL ? tl_batch_plain : *s->what->spec;
    if (producing == NULL)
        return TL_OK;
    if (producing->producer != NULL) {
        s->spec.producer_id = producing->transaction != NULL ? producing->transaction->producer_id : producing->producer->producer_id;
        s->spec.base_sequence = producing->sequence;
        if (producing->transaction != NULL)
            s->spec.attributes |= TL_ATTR_TRANSACTIONAL;
        return TL_OK;
    }
    tl_batch batch;
    if (s->what->encoded == NULL)
        return tl_fail(err, TL_EINVAL, "an append without a producer needs a ready batch", s->partition->cold->directory, -1);
    int status = tl_batch_parse(s->what->encoded, s->what->encoded_bytes, &batch, err);
    if (status < 0)
        return status;
    if (batch.producer_id < 0 || batch.producer_epoch < 0 || batch.base_sequence < 0 || tl_batch_is_control(&batch) ||
        batch.bytes != s->what->encoded_bytes || batch.count < 1 || batch.count != batch.last_offset_delta + 1 ||
        (size_t)batch.count != s->what->count)
        return tl_fail(err, TL_EINVAL, "a batch of a producer has an id, an epoch, a sequence and messages without gaps",
                       s->partition->cold->directory, -1);
    if (tl_batch_is_transactional(&batch) && producing->transaction == NULL)
        return tl_fail(err, TL_ETXNSTATE, "a batch says that it belongs to a transaction, and there is none",
                       s->partition->cold->directory, -1);
    s->spec = (tl_batch_spec){batch.producer_id, batch.base_sequence, batch.producer_epoch, batch.attributes};
    return TL_OK;
}

/* The long part of what the window of ids has to learn; `again`: what was gathered before was not enough. */
static int gather_ids(sending *s, bool again, tl_error *err) {
    if (s->ids == NULL)
        return TL_OK;
    if (!again && tl_ids_is_near(s->partition)) {
        tl_ids_prefetch(&s->partition->ids->window, s->ids);
        return TL_OK;
    }
    if (!s->may_block)
        return TL_EAGAIN;
    return tl_ids_gather(s->partition, s->what->unpack, s->what->unpack_context, &s->gathered, err);
}

static int begin_ids(sending *s, tl_error *err) {
    const tl_append *what = s->what;
    if (what->ids == NULL || __atomic_load_n(&s->partition->cold->id_count, __ATOMIC_RELAXED) == 0)
        return TL_OK;
    if (what->rows != NULL || what->first != 0)
        return tl_fail(err, TL_EINVAL, "rows carry no ids: give messages", s->partition->cold->directory, -1);
    s->ids = what->ids;
    return tl_ids_sift_begin(what, &s->sift, err);
}

/* Before the first message of a transaction is in a partition, the transaction's record names the partition. */
static int join(sending *s, tl_error *err) {
    tl_transaction *transaction = s->what->producing->transaction;
    if (!s->may_block && __atomic_load_n(&s->partition->joined, __ATOMIC_ACQUIRE) != transaction->number)
        return TL_EAGAIN;
    return tl_transaction_join(transaction, s->partition, err);
}

/* A try walks no further than its caller's thread may be held up. */
static int catch_up_before(sending *s, tl_error *err) {
    if (s->what->producing == NULL || (!s->far && tl_producers_is_near(s->partition)))
        return TL_OK;
    return s->may_block ? tl_producers_catch_up(s->partition, false, err) : TL_EAGAIN;
}

/* --- under the lock --- */

static int check_sender(sending *s, tl_error *err) {
    const tl_producing *producing = s->what->producing;
    if (producing == NULL)
        return TL_OK;
    int status = TL_OK;
    if (!tl_producers_follow(s->partition, &s->far)) {
        if (!s->may_block && (s->far || !tl_producers_is_readable(s->partition)))
            return TL_EAGAIN;
        if (s->far)
            return 1;
        if ((status = tl_producers_catch_up(s->partition, true, err)) < 0)
            return status;
    }
    if (producing->producer != NULL) {
        /* The epoch first: whoever opens the name anew bumps the holder before it. */
        s->spec.producer_epoch = producing->transaction != NULL ? producing->epoch : tl_producer_epoch(producing->producer);
        if (tl_producer_is_fenced(producing->producer) && !TL_BUG(NAME_NOT_FENCED))
            return tl_fail(err, TL_EFENCED, "a newer producer of this name was opened", s->partition->cold->directory, -1);
    }
    if (producing->transaction != NULL && (status = tl_transaction_check_open(producing->transaction, err)) < 0)
        return status;
    return tl_producers_mark(s->partition, s->may_block, err);
}

/* Patches identity and sequence into a ready batch of a named producer: both are under its CRC. */
static void sign(uint8_t *batch, size_t bytes, const tl_batch_spec *spec) {
    uint16_t attributes = (uint16_t)(tl_be16(batch + 21) | spec->attributes);
    if (tl_be64(batch + 43) == (uint64_t)spec->producer_id && tl_be16(batch + 51) == (uint16_t)spec->producer_epoch &&
        tl_be32(batch + 53) == (uint32_t)spec->base_sequence && tl_be16(batch + 21) == attributes)
        return;
    tl_put_be16(batch + 21, attributes);
    tl_put_be64(batch + 43, (uint64_t)spec->producer_id);
    tl_put_be16(batch + 51, (uint16_t)spec->producer_epoch);
    tl_put_be32(batch + 53, (uint32_t)spec->base_sequence);
    tl_put_be32(batch + 17, tl_crc32c(0, batch + TL_BATCH_CRC_FROM, bytes - TL_BATCH_CRC_FROM));
}

/* Before the lock, with the sequence that comes next as far as is known: summing a large batch takes its time. */
static void sign_early(sending *s) {
    const tl_producing *producing = s->what->producing;
    if (s->what->encoded == NULL || producing == NULL || producing->producer == NULL)
        return;
    tl_batch_spec spec = s->spec;
    spec.producer_epoch = producing->transaction != NULL ? producing->epoch : tl_producer_epoch(producing->producer);
    if (spec.base_sequence < 0)
        spec.base_sequence = tl_producer_next_sequence(
            tl_producer_table_find(tl_producers_table(s->partition), spec.producer_id), spec.producer_epoch);
    sign(s->what->encoded, s->what->encoded_bytes, &spec);
}

/* Says where the messages [at, at + count) of `now` stand. */
static void answer(sending *s, size_t at, size_t count, int64_t base_offset, bool duplicate) {
    tl_appended *result = s->result;
    for (size_t i = 0; i < count; i++) {
        size_t number = (s->origin == NULL ? at + i : s->origin[at + i]) - s->what->first;
        if (number == 0)
            result->base_offset = base_offset + (int64_t)i;
        if (s->what->offsets != NULL)
            s->what->offsets[number] = base_offset + (int64_t)i;
        if (s->what->duplicates != NULL)
            s->what->duplicates[number] = duplicate;
        else if (s->what->offsets == NULL)
            i = count - 1; /* only the first one is asked for */
    }
    size_t last = at + count - 1;
    result->answered = (s->origin == NULL ? last : s->origin[last]) - s->what->first + 1;
    result->duplicates += duplicate ? count : 0;
    if (base_offset + (int64_t)count > result->next_offset)
        result->next_offset = base_offset + (int64_t)count;
}

/* Whether the next batch is the first one of its transaction here. */
static bool opens_transaction(const tl_producing *producing, tl_partition *partition) {
    if (producing == NULL || producing->transaction == NULL)
        return false;
    const tl_producer_state *known =
        tl_producer_table_find(tl_producers_table(partition), producing->transaction->producer_id);
    return known == NULL || known->txn_first_offset < 0;
}

/* Kafka's rules. 1: the batch is in the log already, and was answered. */
static int check_sequence(sending *s, size_t at, size_t take, tl_batch *batch, tl_error *err) {
    const tl_producer_state *known = tl_producer_table_find(tl_producers_table(s->partition), s->spec.producer_id);
    if (s->spec.base_sequence < 0)
        s->spec.base_sequence = tl_producer_next_sequence(known, s->spec.producer_epoch);
    if (at == s->now.first)
        s->result->sequence = s->spec.base_sequence;
    batch->base_sequence = s->spec.base_sequence;
    const tl_producer_batch *duplicate = NULL;
    int status = tl_producer_check(known, batch, &duplicate, err);
    if (status < 0 && err != NULL)
        memcpy(err->path, s->partition->cold->directory, sizeof s->partition->cold->directory);
    if (status == 1)
        answer(s, at, take, duplicate->first_offset, true);
    return status;
}

/* One batch. *at moves behind it. */
static int append_next(sending *s, size_t *at, bool started, tl_room *where, tl_scratch *scratch, tl_error *err) {
    tl_partition *partition = s->partition;
    const tl_append *now = &s->now;
    size_t end = now->first + now->count, bytes = now->bound_bytes, take = now->count;
    /* The batches must be the same when they are sent again, so a bound that stands for the whole is only taken for that. */
    if (now->messages == NULL || bytes == 0 || bytes > TL_BATCH_MAX_BYTES || scratch != NULL)
        take = tl_append_measure(now, *at, end - *at, &bytes);
    if (bytes > TL_MAX_SEGMENT_BYTES)
        return tl_fail(err, TL_ETOOLARGE, "a batch does not fit into a segment", partition->cold->directory, (int64_t)bytes);
    tl_batch batch = {.producer_id = s->spec.producer_id, .producer_epoch = s->spec.producer_epoch,
                      .base_sequence = s->spec.base_sequence, .last_offset_delta = (int32_t)(take - 1),
                      .count = (int32_t)take, .attributes = s->spec.attributes};
    int status = TL_OK;
    if (s->spec.producer_id >= 0 && (status = check_sequence(s, *at, take, &batch, err)) < 0)
        return status;
    if (status == TL_OK) {
        if (s->spec.producer_id >= 0 && s->what->encoded != NULL && s->what->producing->producer != NULL)
            sign(s->what->encoded, s->what->encoded_bytes, &s->spec);
        /* Once begun a try goes on: its caller bounded the bytes, and half an answer would cost more than a short wait. */
        unsigned flags = started ? s->flags & ~(unsigned)TL_APPEND_TRY : s->flags;
        status = tl_append_room(partition, bytes, take, flags, where, err);
        if (status < 0)
            return status;
        if (opens_transaction(s->what->producing, partition))
            tl_transaction_opening(partition, where->tail);
        tl_append_reserve(partition, where, bytes);
        const uint8_t *header = NULL;
        status = tl_append_put(partition, now, *at, take, &bytes, where, scratch, &header, &batch.max_timestamp_ms, err);
        if (status < 0)
            return status;
        TL_POINT("append_checked.copied");
        if (TL_BUG(ID_NOTED_BEFORE_TAIL))
            tl_ids_note_batch(partition, now, s->what->ids, s->origin, *at, take, where->end.end_offset, false, where->tail,
                              where->tail, s->now_ms, s->may_block);
        batch.base_offset = where->end.end_offset;
        batch.bytes = (uint32_t)bytes;
        s->result->tail = tl_append_publish(partition, where, header, bytes, batch.base_offset + (int64_t)take,
                                            batch.max_timestamp_ms, s->may_block);
        __atomic_store_n(&partition->hot->reserve, s->result->tail, __ATOMIC_RELAXED); /* a bound reserved more than it took */
        TL_POINT("append_checked.published");
        /* What cannot be noted for want of memory is walked over by the next one who catches up. */
        tl_ids_note_batch(partition, now, s->what->ids, s->origin, *at, take, batch.base_offset,
                          (s->spec.attributes & TL_ATTR_TRANSACTIONAL) != 0, where->tail, s->result->tail, s->now_ms, s->may_block);
        if (s->spec.producer_id >= 0)
            (void)tl_producers_note(partition, &batch, where->tail, s->result->tail, TL_MARKER_NONE, -1, NULL);
        answer(s, *at, take, batch.base_offset, false);
        TL_POINT("append_checked.noted");
    }
    if (s->spec.producer_id >= 0)
        s->spec.base_sequence = tl_sequence_after(s->spec.base_sequence, (int64_t)take);
    *at += take;
    return TL_OK;
}

/* Answers what was seen before, and leaves the rest in `now`; of a ready batch all of it or nothing. */
static int sift(sending *s, tl_scratch *scratch, tl_error *err) {
    int status = tl_ids_sift_run(s->partition, s->what, s->now_ms, s->may_block, &s->sift, err);
    const int64_t *answers = s->sift.answers;
    if (status != TL_OK || answers == NULL)
        return status;
    for (size_t i = 0; i < s->what->count; i++)
        if (answers[i] >= 0)
            answer(s, i, 1, answers[i], true);
    if (s->spec.producer_id >= 0 && s->what->producing->producer != NULL)
        s->spec.base_sequence = -1; /* sent again: the sequences it was given were for those that are in already */
    s->now.count = s->what->encoded == NULL ? s->sift.kept : 0;
    s->now.messages = s->sift.messages;
    s->now.bound_bytes = 0;
    s->origin = s->sift.origin;
    if (scratch == NULL || s->now.count == 0)
        return TL_OK;
    if (scratch->heap != NULL) /* what is left makes other batches */
        tl_os->free(scratch->heap);
    return tl_append_scratch(&s->now, scratch, err);
}

/* What repeats a message of this call stands where that one went. Of a ready batch the caller is told which one that is. */
static void answer_repetitions(sending *s, int status) {
    const tl_append *what = s->what;
    const int64_t *answers = s->sift.answers;
    s->origin = NULL;
    for (size_t i = 0; answers != NULL && i < what->count; i++) {
        if (answers[i] >= TL_IDS_NEW || what->offsets == NULL)
            continue;
        size_t first = (size_t)(-2 - answers[i]);
        if (what->encoded == NULL) {
            answer(s, i, 1, what->offsets[first], true);
        } else {
            what->offsets[i] = (int64_t)first;
            what->duplicates[i] = TL_DUPLICATE_OF_THIS_CALL;
        }
    }
    if (status == TL_OK && answers != NULL)
        s->result->answered = what->encoded == NULL || s->result->duplicates == what->count ? what->count : 0;
}

/* 1: producers or the window of ids have more to learn than may be done under the lock. TL_IDS_SWEEP: a transaction may have to be ended
 * first. In both cases nothing was done. */
static int append_locked(sending *s, tl_scratch *scratch, tl_error *err) {
    tl_room where = {.looked = 0};
    if (s->ids != NULL)
        s->now_ms = tl_ids_now_ms();
    int status = check_sender(s, err);
    s->now = *s->what;
    s->now.spec = &s->spec;
    if (status == TL_OK && s->ids != NULL)
        status = tl_ids_catch_up(s->partition, &s->gathered, s->now_ms, s->may_block, err);
    if (status == TL_OK && s->ids != NULL)
        status = sift(s, scratch, err);
    for (size_t at = s->now.first, end = at + s->now.count; status == TL_OK && at < end;)
        status = append_next(s, &at, at > s->now.first, &where, scratch, err);
    if (status == TL_OK && s->result->tail == 0) /* duplicates alone: what is synced to here holds them too */
        s->result->tail = s->partition->hot->tail;
    tl_append_unlock(s->partition, &where);
    if (status <= TL_OK)
        answer_repetitions(s, status);
    return status;
}

static int append_once(tl_partition *partition, const tl_append *what, unsigned flags, tl_appended *result, tl_error *err) {
    sending s = {.partition = partition, .what = what, .result = result, .flags = flags,
                 .may_block = (flags & TL_APPEND_TRY) == 0};
    tl_scratch scratch, *through_file = (flags & TL_APPEND_THROUGH_FILE) != 0 ? &scratch : NULL;
    memset(result, 0, sizeof *result);
    result->sequence = -1;
    scratch.heap = NULL;
    if (what->count == 0)
        return tl_fail(err, TL_EINVAL, "an append has no messages", "", -1);
    int status = identify(&s, err);
    if (status == TL_OK)
        status = begin_ids(&s, err);
    if (status == TL_OK && through_file != NULL)
        status = tl_append_scratch(what, &scratch, err);
    if (status == TL_OK && TL_UNLIKELY(__atomic_load_n(&partition->hot->late, __ATOMIC_RELAXED) != 0))
        status = tl_append_help(partition, flags, err);
    if (status == TL_OK && what->producing != NULL && what->producing->transaction != NULL)
        status = join(&s, err);
    if (status == TL_OK && (status = tl_producers_enter(partition, !s.may_block)) == TL_OK) {
        int64_t until_ns = 0;
        bool again = false;
        for (;;) {
            status = catch_up_before(&s, err);
            if (status == TL_OK)
                status = gather_ids(&s, again, err);
            if (status == TL_OK)
                sign_early(&s);
            TL_POINT("append_checked.entered");
            if (status == TL_OK)
                status = tl_partition_lock(partition, !s.may_block, err);
            if (status == TL_OK)
                status = append_locked(&s, through_file, err);
            if (status == TL_IDS_SWEEP) { /* it takes locks that come before the mutex */
                tl_producers_leave(partition);
                (void)tl_transactions_sweep(partition->store, NULL);
                s.sift.swept = true;
                (void)tl_producers_enter(partition, false);
                continue;
            }
            again = status == 1;
            if (TL_LIKELY(!again) || (until_ns > 0 && tl_os->monotonic_ns() > until_ns))
                break;
            if (until_ns == 0)
                until_ns = tl_os->monotonic_ns() + tl_store_lock_timeout_ns(partition->store);
        }
        tl_producers_leave(partition);
        if (status == 1)
            status = tl_fail(err, TL_ELOCKED, "others append faster than what they append can be looked through",
                             partition->cold->directory, -1);
    }
    tl_ids_sift_free(&s.sift);
    tl_ids_gathered_free(&s.gathered);
    if (scratch.heap != NULL)
        tl_os->free(scratch.heap);
    return status;
}

/* A transaction whose end was decided while the disk was full still stands open here: it is ended first, or what forbids that
 * is the answer. */
int tl_partition_append_checked(tl_partition *partition, const tl_append *what, unsigned flags, tl_appended *result,
                                tl_error *err) {
    int status = append_once(partition, what, flags, result, err);
    const tl_producing *producing = what->producing;
    if (TL_LIKELY(status != TL_ETXNSTATE) || producing == NULL || producing->producer == NULL ||
        producing->transaction != NULL || result->answered > 0)
        return status;
    if ((flags & TL_APPEND_TRY) != 0)
        return TL_EAGAIN;
    tl_error inner = {0};
    int ended = tl_transactions_finish_of(partition->store, producing->producer->row, &inner);
    if (ended >= 0) /* 0: somebody else has ended it since, or it is open and this says so once more */
        return append_once(partition, what, flags, result, err);
    if (err != NULL)
        *err = inner;
    return ended;
}
