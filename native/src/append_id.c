/* How does one message with an id get behind the tail at little more cost than one without?
 *
 * Imports publishing.h, remembering.h, guard.h. Callable from any thread; never waits. The steps are those of
 * append_checked.c with everything at hand: the window is mapped and knows every message, the id is not one of a
 * transaction, there is room. Whatever is not at hand is TL_EAGAIN, and left to that file. The window is found without the
 * mutex of this process: who changes where it is mapped holds the partition's lock too. */
#include "publishing.h"
#include "remembering.h"

#include "tidelog/guard.h"

/* What is written before the message is published. 0: it was; 1: it is a duplicate; negative: nothing was.
 *
 * The batch is written first, without its magic: the answer lies in memory that is in no cache, and comes meanwhile. What
 * turns out not to be sent leaves zeros again, since bytes past the tail can be part of no message. */
TL_INLINE int put(tl_partition *partition, const tl_message *message, const tl_message_id *id, const tl_ids_rule *rule,
                  const tl_frame *frame, tl_room *where, int64_t *offset) {
    tl_append_reserve(partition, where, frame->bytes);
    tl_batch_encode_unsealed(where->at, where->end.end_offset, message, frame);
    if (TL_BUG(ID_SEALED_FIRST))
        tl_batch_seal(where->at);
    TL_POINT("append_id.written");
    int status = tl_ids_place(&partition->ids->window, id, rule, offset);
    if (TL_LIKELY(status == 0)) {
        tl_batch_seal(where->at);
        return 0;
    }
    TL_POINT("append_id.refused");
    if (!TL_BUG(ID_NOT_UNDONE))
        memset(where->at, 0, frame->bytes);
    TL_POINT("append_id.zeroed");
    tl_append_abandon(partition, where);
    return status;
}

/* Functions of their own: what a guard may clobber must not live in the caller's registers. */
__attribute__((noinline)) static int put_guarded(tl_partition *partition, const tl_message *message, const tl_message_id *id,
                                                 const tl_ids_rule *rule, const tl_frame *frame, tl_room *where,
                                                 int64_t *offset) {
    volatile int status = TL_EBUS;
    tl_guard guard;
    TL_GUARDED(guard) { status = put(partition, message, id, rule, frame, where, offset); }
    TL_GUARD_CAUGHT(guard) { return TL_EBUS; }
    return status;
}

__attribute__((noinline)) static bool fill(tl_ids_window *window, const tl_message_id *id, int64_t offset, uint32_t time_ms) {
    tl_guard guard;
    TL_GUARDED(guard) { tl_ids_fill(window, id, offset, time_ms); }
    TL_GUARD_CAUGHT(guard) { return false; }
    return true;
}

/* Under the lock. */
static int append_locked(tl_partition *partition, const tl_message *message, const tl_message_id *id, const tl_frame *frame,
                         int64_t now_ms, tl_room *where, tl_appended *result, tl_error *err) {
    tl_cold *cold = partition->cold;
    struct tl_ids *ids = partition->ids;
    uint64_t tail = partition->hot->tail;
    uint32_t file = __atomic_load_n(&cold->ids_file, __ATOMIC_RELAXED);
    if (TL_UNLIKELY(ids == NULL || file == 0 || ids->file != file || __atomic_load_n(&cold->ids_complete, __ATOMIC_RELAXED) != tail))
        return TL_EAGAIN;
    tl_ids_rule rule;
    if (TL_UNLIKELY(!tl_ids_rule_at(partition, now_ms < 0 ? tl_ids_now_ms() : now_ms, &rule) || rule.count == 0))
        return TL_EAGAIN;
    int status = tl_append_room(partition, frame->bytes, 1, TL_APPEND_TRY, where, err);
    if (TL_UNLIKELY(status < 0))
        return status;
    status = put_guarded(partition, message, id, &rule, frame, where, &result->base_offset);
    if (TL_UNLIKELY(status < 0 || (status == 1 && (uint64_t)result->base_offset >= (uint64_t)where->end.end_offset)))
        return TL_EAGAIN; /* full, damaged, or in a transaction */
    result->answered = 1;
    result->duplicates = (size_t)status;
    result->tail = tail;
    if (status == 1)
        return TL_OK;
    TL_POINT("append_id.copied");
    result->base_offset = where->end.end_offset;
    result->tail = tl_append_publish(partition, where, where->at, frame->bytes, result->base_offset + 1, message->timestamp_ms, false);
    if (TL_BUG(IDS_COMPLETE_FIRST))
        __atomic_store_n(&cold->ids_complete, result->tail, __ATOMIC_RELEASE);
    TL_POINT("append_id.published");
    if (TL_LIKELY(fill(&ids->window, id, result->base_offset, rule.now_ms)))
        __atomic_store_n(&cold->ids_complete, result->tail, __ATOMIC_RELEASE);
    TL_POINT("append_id.complete");
    return TL_OK;
}

void tl_partition_expect_id(tl_partition *partition, const void *id, size_t bytes, tl_message_id *out) {
    tl_ids_hash(tl_ids_key(partition), id, bytes, out);
    const tl_ids_window near = {__atomic_load_n(&partition->ids_map, __ATOMIC_RELAXED),
                                __atomic_load_n(&partition->ids_buckets, __ATOMIC_RELAXED)};
    if (TL_LIKELY(near.map != NULL)) /* it may be unmapped at this moment: a prefetch does not fault */
        tl_ids_prefetch(&near, out);
}

int tl_partition_append_one_id(tl_partition *partition, const tl_message *message, const tl_message_id *id, int64_t now_ms,
                               tl_appended *result, tl_error *err) {
    const tl_frame frame = tl_batch_frame(message);
    if (TL_UNLIKELY(frame.bytes > TL_TRY_MOST_BYTES || __atomic_load_n(&partition->hot->late, __ATOMIC_RELAXED) != 0))
        return TL_EAGAIN;
    int status = tl_append_lock(partition, true, err);
    if (TL_UNLIKELY(status < 0))
        return status;
    TL_POINT("append_id.locked");
    tl_room where;
    where.looked = 0;
    status = append_locked(partition, message, id, &frame, now_ms, &where, result, err);
    tl_append_unlock(partition, &where);
    result->next_offset = result->base_offset + 1;
    return status;
}
