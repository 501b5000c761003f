/* How does one message of a named producer get behind the tail at little more cost than one without a name?
 *
 * Imports publishing.h, producers.h, guard.h. Callable from any thread; never waits. The steps are those of append_checked.c
 * with everything at hand: nobody of this process looks at the producers of the partition, few batches came since it looked
 * last, the message is the next one of its producer, in no transaction and without headers. Whatever is not at hand, and
 * every refusal, is TL_EAGAIN, and left to that file. */
#include "publishing.h"
#include "producers.h"

#include "tidelog/guard.h"

/* In a function of its own: what a guard may clobber must not live in the caller's registers. */
__attribute__((noinline)) static bool put(const tl_room *where, const tl_batch_spec *spec, const tl_message *message,
                                         const tl_frame *frame) {
    tl_guard guard;
    TL_GUARDED(guard) { tl_batch_encode_signed(where->at, where->end.end_offset, spec, message, frame); }
    TL_GUARD_CAUGHT(guard) { return false; }
    return true;
}

/* Under the lock, with the table. */
static int append_locked(tl_partition *partition, const tl_message *message, const tl_producer *producer,
                         const tl_frame *frame, tl_room *where, tl_appended *result, tl_error *err) {
    const bool at_hand = tl_producers_at_hand(partition); /* first of all */
    tl_producers *own = partition->producers;
    bool far = false;
    if (TL_UNLIKELY(!at_hand || own == NULL || (own->complete != partition->hot->tail && !tl_producers_follow(partition, &far)) ||
                    __atomic_load_n(&partition->cold->producers, __ATOMIC_ACQUIRE) != TL_PRODUCERS_SOME))
        return TL_EAGAIN;
    /* The epoch first: whoever opens the name anew bumps the holder before it. */
    int16_t epoch = tl_producer_epoch(producer);
    tl_producer_state *known = tl_producer_table_find(own->table, producer->producer_id);
    if (TL_UNLIKELY((tl_producer_is_fenced(producer) && !TL_BUG(NAME_NOT_FENCED)) || known == NULL || known->epoch != epoch ||
                    known->txn_first_offset >= 0))
        return TL_EAGAIN;
    const tl_batch_spec spec = {producer->producer_id, tl_producer_next_sequence(known, epoch), epoch, 0};
    tl_batch batch = {.producer_id = spec.producer_id, .producer_epoch = epoch, .base_sequence = spec.base_sequence, .count = 1,
                      .bytes = (uint32_t)frame->bytes, .max_timestamp_ms = message->timestamp_ms};
    int status = tl_append_room(partition, frame->bytes, 1, TL_APPEND_TRY, where, err);
    if (TL_UNLIKELY(status < 0))
        return status;
    tl_append_reserve(partition, where, frame->bytes);
    if (TL_UNLIKELY(!put(where, &spec, message, frame)))
        return TL_EAGAIN;
    TL_POINT("append_named.copied");
    batch.base_offset = where->end.end_offset;
    uint64_t tail = tl_append_publish(partition, where, where->at, frame->bytes, batch.base_offset + 1, message->timestamp_ms, false);
    TL_POINT("append_named.published");
    tl_append_follow_ids(partition, where->tail, tail);
    if (TL_LIKELY(own->complete == where->tail)) {
        tl_producer_table_add(own->table, known, &batch, where->tail);
        own->complete = tail;
        own->next_offset = batch.base_offset + 1;
    } else { /* a segment began */
        (void)tl_producers_note(partition, &batch, where->tail, tail, TL_MARKER_NONE, -1, NULL);
    }
    TL_POINT("append_named.noted");
    *result = (tl_appended){.base_offset = batch.base_offset, .next_offset = batch.base_offset + 1, .tail = tail, .answered = 1,
                            .sequence = spec.base_sequence};
    return TL_OK;
}

int tl_partition_append_one_named(tl_partition *partition, const tl_message *message, const tl_producer *producer,
                                  tl_appended *result, tl_error *err) {
    const tl_frame frame = tl_batch_frame(message);
    if (TL_UNLIKELY(frame.bytes > TL_TRY_MOST_BYTES || __atomic_load_n(&partition->hot->late, __ATOMIC_RELAXED) != 0))
        return TL_EAGAIN;
    int status = tl_append_lock(partition, true, err);
    if (TL_UNLIKELY(status < 0))
        return status;
    TL_POINT("append_named.locked");
    tl_room where;
    where.looked = 0;
    status = append_locked(partition, message, producer, &frame, &where, result, err);
    tl_append_unlock(partition, &where);
    return status;
}
