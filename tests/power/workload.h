/* What does a life of a store consist of, and what does each step promise?
 *
 * Imports run.h. Single-threaded. Each op_* does one thing to the store as a program would and tells the history what was
 * promised once the call has returned. */
#ifndef TIDELOG_POWER_WORKLOAD_H
#define TIDELOG_POWER_WORKLOAD_H

#include "run.h"
#include "transactions.h"

static int trace_partition(void *context, uint32_t slot, const tl_partition_config *config);

static void open_store(enum how_strict strict) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 5000, .create = true, .no_housekeeper = true};
    tl_error err = {0};
    tl_recovery recovery;
    int state = 0;
    bool was_armed = armed;
    int status = tl_store_open("store", &options, &store, &state, &recovery, &err);
    if ((status == TL_EFAILED || status == TL_EIO) && told.sync_failed) { /* that sync was one of ours; it fails once */
        strict = strict == AFTER_CLOSE ? AFTER_DEATH : strict;
        status = tl_store_open("store", &options, &store, &state, &recovery, &err);
    }
    if (status < 0)
        violated("the store cannot be opened: %s, %s (%s at %lld)", tl_status_name(status), err.what, err.path,
                 (long long)err.position);
    if (recovery.failed_partitions > 0)
        violated("%u partitions cannot be recovered", recovery.failed_partitions);
    if (strict == AFTER_CLOSE && !recovery.clean && !recovery.same_boot && !recovery.created)
        violated("a store that was closed cleanly counts as not closed");
    status = tl_store_ready(store, &err);
    if (status < 0)
        violated("the store does not get ready: %s, %s", tl_status_name(status), err.what);
    told.created = true;
    armed = false;
    trace("opened %s: %s%s%u scanned, %llu bytes, %llu torn",
          strict == AFTER_CUT     ? "after a cut"
          : strict == AFTER_DEATH ? "after a death"
                                  : "after a close",
          recovery.clean ? "clean, " : "", recovery.same_boot ? "same boot, " : "", recovery.scanned_partitions,
          (unsigned long long)recovery.scanned_bytes, (unsigned long long)recovery.torn_bytes);
    memset(open_parts, 0, sizeof open_parts);
    if (replaying())
        (void)tl_store_each_partition(store, NULL, trace_partition);
    verify_store(store, strict);
    if (transactional)
        verify_transactions(store, strict);
    told.sync_failed = told.store_failed = false;
    armed = was_armed;
}

static int trace_partition(void *context, uint32_t slot, const tl_partition_config *config) {
    tl_partition *partition = NULL;
    tl_partition_info info;
    (void)context;
    if (tl_store_partition(store, slot, config->channel, &partition, NULL) < 0)
        return 0;
    if (tl_partition_describe(partition, &info, NULL) == TL_OK)
        trace("  %s: offsets %lld to %lld, lease %lld, segments %u to %u, position %u, synced %u at %u",
              config->directory, (long long)info.log_start, (long long)info.log_end, (long long)info.lease,
              info.first_ordinal, (unsigned)(info.tail >> 32), (unsigned)info.tail, (unsigned)(info.synced >> 32),
              (unsigned)info.synced);
    tl_partition_release(partition);
    return 0;
}

static tl_partition *partition_of(int i) {
    tl_error err = {0};
    if (open_parts[i] == NULL &&
        tl_store_partition(store, told.parts[i].slot, told.parts[i].channel, &open_parts[i], &err) < 0)
        violated("%s: it cannot be opened: %s", told.parts[i].directory, err.what);
    return open_parts[i];
}

static void release_parts(void) {
    for (int i = 0; i < PARTITIONS; i++) {
        tl_partition_release(open_parts[i]);
        open_parts[i] = NULL;
    }
}

/* Whether a call that did not succeed was allowed not to. */
static bool failure_is_known(part *p, int status, const tl_error *err, const char *what) {
    if (status == TL_EFAILED && (told.sync_failed || (p != NULL && p->failed))) {
        if (p != NULL && told.sync_failed)
            told.store_failed = true;
        told.store_failed |= told.sync_failed;
        return true;
    }
    violated("%s fails: %s, %s (%s)", what, tl_status_name(status), err->what, err->path);
}

/* Whether it was a clean close: not when a partition has failed. */
static bool close_store(void) {
    tl_error err = {0};
    if (replaying()) { /* is it the cut, or was it wrong before? */
        bool was_armed = armed;
        armed = false;
        for (int i = 0; i < told.part_count; i++) {
            const tl_check_report report = {.context = &told.parts[i], .finding = report_finding};
            if (told.parts[i].existence == LIVE && !told.parts[i].failed && !told.store_failed)
                (void)tl_partition_check(partition_of(i), &report, &err);
        }
        armed = was_armed;
    }
    release_parts();
    trace("close");
    closing = true;
    int status = tl_store_close(store, &err);
    closing = false;
    tl_store_free(store);
    store = NULL;
    bool failed = told.sync_failed || told.txn_failed;
    for (int i = 0; i < told.part_count; i++)
        failed |= told.parts[i].existence == LIVE && told.parts[i].failed;
    if (status < 0) {
        if (!failed || (status != TL_EFAILED && status != TL_EIO))
            violated("closing fails: %s, %s (%s)", tl_status_name(status), err.what, err.path);
        return false;
    }
    for (int i = 0; i < told.part_count; i++) {
        told.parts[i].synced = told.parts[i].end;
        commits_are_synced(&told.parts[i]);
    }
    return true;
}

static int live_part(void) {
    int found = -1, seen = 0;
    for (int i = 0; i < told.part_count; i++)
        if (told.parts[i].existence == LIVE && !told.parts[i].failed && pick((uint64_t)++seen) == 0)
            found = i;
    return found;
}

static void op_append(int i, int count, unsigned flags, bool encoded) {
    static uint8_t values[BATCH][MOST_VALUE + 16], ready[65536];
    tl_message messages[BATCH];
    part *p = &told.parts[i];
    tl_partition *partition = partition_of(i);
    uint32_t first = told.next_number;
    told.next_number += (uint32_t)count;
    for (int k = 0; k < count; k++) {
        uint32_t number = first + (uint32_t)k;
        fill_value(number, values[k]);
        messages[k] = (tl_message){.value = values[k],
                                   .value_bytes = (int32_t)value_bytes_of(number),
                                   .key = values[k],
                                   .key_bytes = number % 3 == 0 ? 4 : -1,
                                   .timestamp_ms = timestamp_of(number)};
    }
    tl_append what = {.messages = messages, .count = (size_t)count};
    if (encoded) {
        size_t bytes = 0;
        CHECK(tl_batch_measure(messages, (size_t)count, sizeof ready, &bytes) == (size_t)count);
        what.encoded_bytes =
            tl_batch_encode(ready, 0, &tl_batch_plain, messages, (size_t)count, &what.max_timestamp_ms);
        what.encoded = ready;
        what.messages = NULL;
    }
    tl_appended out = {0};
    tl_error err = {0};
    p->inflight = (span){p->end, count, first};
    trace("%s: append %d at %lld%s", p->directory, count, (long long)p->end,
          (flags & TL_APPEND_THROUGH_FILE) != 0 ? " through the file" : "");
    int status = count == 1 && !encoded ? tl_partition_append_one(partition, messages, flags, &out, &err)
                                        : tl_partition_append(partition, &what, flags, &out, &err);
    if (status < 0) {
        p->inflight.count = 0;
        (void)failure_is_known(p, status, &err, "an append");
        return;
    }
    if (out.base_offset != p->end || out.next_offset != p->end + count)
        violated("%s: appended at %lld to %lld, the end was %lld: an offset is used twice or left out", p->directory,
                 (long long)out.base_offset, (long long)out.next_offset, (long long)p->end);
    finish_inflight(p);
}

/* Offsets go by without messages, as when a lease is filled: so leases run out here too. */
static void op_leap(int i) {
    part *p = &told.parts[i];
    uint8_t batch[TL_BATCH_HEADER_BYTES];
    int64_t count = ((int64_t)1 << (20 + pick(11))) - 1; /* less than a lease */
    if (p->end > (int64_t)1 << 60)
        return;
    size_t bytes = tl_batch_encode_empty(batch, 0, count - 1, &tl_batch_plain);
    trace("%s: leap over %lld", p->directory, (long long)count);
    const tl_append what = {.encoded = batch, .encoded_bytes = bytes, .count = (size_t)count, .max_timestamp_ms = -1};
    tl_appended out;
    tl_error err = {0};
    int status = tl_partition_append(partition_of(i), &what, 0, &out, &err);
    if (status < 0)
        (void)failure_is_known(p, status, &err, "a leap");
    else
        p->end = out.next_offset;
}

static void op_sync(int i) {
    part *p = &told.parts[i];
    tl_error err = {0};
    int64_t covered = p->end;
    trace("%s: sync up to %lld", p->directory, (long long)covered);
    tl_partition *partition = partition_of(i);
    int status = tl_partition_sync(partition, tl_partition_tail(partition), -1, &err);
    if (status < 0) {
        if (failure_is_known(p, status, &err, "a sync"))
            p->failed = true;
    } else if (p->synced < covered) {
        p->synced = covered;
    }
}

static void op_store_sync(bool housekeep) {
    int64_t ends[PARTITIONS];
    tl_error err = {0};
    trace(housekeep ? "housekeep" : "sync of the store");
    for (int i = 0; i < told.part_count; i++)
        ends[i] = told.parts[i].end;
    int status = housekeep ? tl_store_housekeep(store, &err) : tl_store_sync(store, &err);
    if (status < 0) {
        (void)failure_is_known(NULL, status, &err, "a flush of everything");
        return;
    }
    for (int i = 0; i < told.part_count; i++) {
        if (told.parts[i].existence != LIVE)
            continue;
        if (!told.parts[i].failed && told.parts[i].synced < ends[i])
            told.parts[i].synced = ends[i];
        commits_are_synced(&told.parts[i]);
    }
}

static void op_commit(int i, bool synced) {
    part *p = &told.parts[i];
    uint32_t slot = 0;
    tl_error err = {0};
    if (p->commit_count >= COMMITS - 1)
        synced = true;
    else {
        int status = tl_store_offset_slot(store, "readers", 7, p->channel, 0, true, &slot, &err);
        if (status < 0)
            violated("an offset slot cannot be made: %s, %s", tl_status_name(status), err.what);
        int64_t offset = p->start + (int64_t)pick((uint64_t)(p->end - p->start) + 1);
        note_commit(p, offset);
        trace("%s: commit %lld", p->directory, (long long)offset);
        p->committing = true;
        status = tl_offsets_set(tl_store_offsets(store), slot, offset, 5, true);
        if (status < 0)
            violated("a commit fails: %s", tl_status_name(status));
        p->committing = false;
        for (int k = 0; wordy && k < 12;
             k++) { /* groups with long texts fill the checkpoint, until it goes to the other file */
            char text[TL_OFFSETS_MAX_METADATA_BYTES], group[16];
            int bytes = snprintf(group, sizeof group, "wordy-%d", k);
            memset(text, 'a' + (int)pick(26), sizeof text);
            if (tl_store_offset_slot(store, group, (size_t)bytes, p->channel, 0, true, &slot, &err) < 0 ||
                tl_offsets_set_metadata(tl_store_offsets(store), slot, text, sizeof text, &err) < 0)
                violated("the text of a commit cannot be kept: %s", err.what);
        }
    }
    if (!synced)
        return;
    trace("sync of the commits");
    int status = tl_store_sync_offsets(store, &err);
    if (status < 0)
        (void)failure_is_known(NULL, status, &err, "a synced commit");
    else
        for (int k = 0; k < told.part_count; k++)
            commits_are_synced(&told.parts[k]);
}

static void op_trim(int i) {
    part *p = &told.parts[i];
    tl_error err = {0};
    int64_t before = chance(4) ? p->end : p->start + (int64_t)pick((uint64_t)(p->end - p->start) + 1);
    if (p->span_count > 0 && chance(2)) {
        const span *s = &p->spans[pick((uint64_t)p->span_count)];
        before = s->offset + (int64_t)pick((uint64_t)s->count + 1);
    }
    if (before <= p->start)
        return;
    p->start_asked = before;
    trace("%s: trim before %lld", p->directory, (long long)before);
    int status = tl_partition_trim(partition_of(i), before, &err);
    if (status < 0)
        (void)failure_is_known(p, status, &err, "a trim");
    else
        p->start = before;
}

static void op_create(void) {
    static const uint32_t sizes[] = {4096, 8192, 16384, 65536};
    tl_partition_config configs[2];
    uint32_t slots[2];
    int count = told.part_count + 2 <= PARTITIONS && chance(2) ? 2 : 1;
    if (told.part_count + count > PARTITIONS)
        return;
    int first = told.part_count;
    for (int k = 0; k < count; k++) {
        part *p = &told.parts[first + k];
        memset(p, 0, sizeof *p);
        p->existence = CREATING;
        memset(p->channel, 'a' + first + k, 16);
        p->commits[0] = -1;
        p->commit_count = 1;
        /* A name is used again once its owner is gone. */
        for (int n = 0; p->directory[0] == 0; n++) {
            char name[24];
            snprintf(name, sizeof name, "orders-%d", n);
            bool taken = false;
            for (int j = 0; j < first + k; j++)
                taken |= strcmp(told.parts[j].directory, name) == 0 && told.parts[j].existence != DROPPED &&
                         told.parts[j].existence != NOT_THERE;
            if (!taken)
                memcpy(p->directory, name, sizeof p->directory);
        }
        tl_partition_config *c = &configs[k];
        memset(c, 0, sizeof *c);
        memcpy(c->channel, p->channel, 16);
        memcpy(c->directory, p->directory, sizeof p->directory);
        c->segment_bytes = sizes[pick(4)];
        c->segment_ms = c->retention_ms = c->retention_bytes = -1;
        c->max_message_bytes = 1 << 20;
        if (chance(8))
            c->retention_consumed = false;
    }
    told.part_count += count;
    trace("%s: create %d", told.parts[first].directory, count);
    tl_error err = {0};
    int status = tl_store_create_partitions(store, configs, (size_t)count, slots, &err);
    if (status < 0) {
        (void)failure_is_known(NULL, status, &err, "creating partitions");
        return;
    }
    for (int k = 0; k < count; k++) {
        told.parts[first + k].existence = LIVE;
        told.parts[first + k].slot = slots[k];
    }
}

static void op_drop(int i) {
    part *p = &told.parts[i];
    tl_error err = {0};
    p->existence = DROPPING;
    trace("%s: drop", p->directory);
    int status = tl_store_drop_partitions(store, &p->slot, 1, &err);
    if (status < 0)
        (void)failure_is_known(NULL, status, &err, "dropping a partition");
    else
        p->existence = DROPPED;
    tl_partition_release(open_parts[i]);
    open_parts[i] = NULL;
}

static void op_any(void) {
    if (transactional && chance(4)) {
        op_transaction();
        return;
    }
    int i = live_part();
    if (i < 0) {
        op_create();
        return;
    }
    uint64_t dice = pick(100);
    unsigned flags = chance(4) ? TL_APPEND_THROUGH_FILE : 0;
    if (dice < 28)
        op_append(i, 1, flags, false);
    else if (dice < 50)
        op_append(i, 1 + (int)pick(BATCH), flags, chance(4));
    else if (dice < 54)
        op_leap(i);
    else if (dice < 66)
        op_sync(i);
    else if (dice < 70)
        op_store_sync(false);
    else if (dice < 75)
        op_store_sync(true);
    else if (dice < 83)
        op_commit(i, chance(3));
    else if (dice < 89)
        op_trim(i);
    else if (dice < 92)
        op_create();
    else if (dice < 94)
        op_drop(i);
    else if (dice < 97) {
        tl_partition_release(open_parts[i]);
        open_parts[i] = NULL;
    } else {
        bool clean = close_store();
        on_event("closed");
        if (clean && chance(2))
            boot_number++;
        open_store(clean ? AFTER_CLOSE : AFTER_DEATH);
    }
}

/* A while of its life. Ends early when a sync has failed. */
static void live(int ops) {
    for (int k = 0; k < ops && !told.store_failed; k++)
        op_any();
}

#endif
