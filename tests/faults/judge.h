/* What stands before a run, and what must hold when the faults are lifted?
 *
 * Imports work.h. Single-threaded. Judged three times: in the process that met the faults, after opening again, and after
 * opening in another boot. */
#ifndef TIDELOG_TEST_JUDGE_H
#define TIDELOG_TEST_JUDGE_H

#include "work.h"

static void run_prepare(const work *w) {
    run.segment_bytes = w->segment_bytes;
    run.committed = run.commit_in_doubt = -1;
    if (w->before == NULL)
        return;
    fault.fired = 0;
    if (!have_partition())
        REFUSE("the store could not be prepared");
    put(2, 0);
    w->before();
}

typedef struct listed {
    int main, other, strange;
    uint32_t slot;
} listed;

static int look(void *context, uint32_t slot, const tl_partition_config *config) {
    listed *l = context;
    if (strcmp(config->directory, "orders-0") == 0 && config->segment_bytes == run.segment_bytes) {
        l->main++;
        l->slot = slot;
    } else if (strcmp(config->directory, "orders-1") == 0) {
        l->other++;
    } else {
        l->strange++;
    }
    return 0;
}

static void look_at_catalogue(const char *when) {
    listed l = {0};
    (void)tl_store_each_partition(run.store, &l, look);
    if (l.strange > 0 || l.main > 1 || l.other > 1 || (run.created && l.main == 0) ||
        (!run.create_in_doubt && !run.created && l.main > 0) ||
        (!run.other_in_doubt && l.other > 0))
        REFUSE("%s: %d, %d and %d partitions of orders-0, orders-1 and others are listed", when, l.main, l.other,
               l.strange);
    if (l.main == 1) {
        if (run.created && l.slot != run.slot)
            REFUSE("%s: the partition moved from slot %u to %u", when, run.slot, l.slot);
        run.created = true;
        run.slot = l.slot;
    }
}

/* The faults are lifted. Nothing fails now but what must stay failed. */
static void judge_open(const char *when, bool must_be_failed, bool may_be_failed) {
    tl_error err = {0};
    int status;
    if (run.store == NULL) {
        tl_recovery recovery;
        if ((status = kit_open(run.path, &run.store, &recovery, &err)) < 0)
            REFUSE("%s: open: %s, %s, %s", when, tl_status_name(status), err.what, err.path);
        if (recovery.failed_partitions + recovery.damaged_partitions > 0)
            REFUSE("%s: %u partitions were given up, %u found damaged", when, recovery.failed_partitions,
                   recovery.damaged_partitions);
        run.opens++;
        if (tl_store_ready(run.store, &err) < 0)
            REFUSE("%s: ready: %s, %s", when, err.what, err.path);
    }
    look_at_catalogue(when);
    if (run.unrecovered > 0) { /* it says so; everything is there once the store has been opened again */
        tl_partition_info info;
        if (run.partition == NULL && (status = tl_store_partition(run.store, run.slot, kit_channel, &run.partition,
                                                                  &err)) < 0)
            REFUSE("%s: handle: %s, %s", when, tl_status_name(status), err.what);
        if ((status = tl_partition_describe(run.partition, &info, &err)) != TL_EFAILED)
            REFUSE("%s: a partition that was given up answers %s", when, tl_status_name(status));
        return;
    }
    if (!run.created) {
        status = kit_create(run.store, 0, run.segment_bytes, &run.slot, &err);
        run.created = status == TL_OK;
        if (status < 0 && !may_be_failed)
            REFUSE("%s: create: %s, %s", when, err.what, err.path);
        if (status < 0)
            return;
    }
    if (run.partition == NULL && (status = tl_store_partition(run.store, run.slot, kit_channel, &run.partition,
                                                              &err)) < 0)
        REFUSE("%s: handle: %s, %s", when, tl_status_name(status), err.what);
    kit_verify(run.partition, &run.ledger, when);
    tl_bounds bounds;
    tl_appended out;
    CHECK(tl_partition_bounds(run.partition, &bounds, &err) == TL_OK);
    status = kit_append(run.partition, &run.ledger, 2, 0, &out, &err);
    if (status == TL_OK && out.base_offset != bounds.log_end)
        REFUSE("%s: an append got %lld, the log ended at %lld", when, (long long)out.base_offset,
               (long long)bounds.log_end);
    if (status < 0 && !(status == TL_EFAILED && may_be_failed))
        REFUSE("%s: appends do not go on: %s, %s, %s", when, tl_status_name(status), err.what, err.path);
    if (status == TL_OK) {
        status = kit_append(run.partition, &run.ledger, KIT_BATCH, TL_APPEND_THROUGH_FILE, &out, &err);
        if (status < 0)
            REFUSE("%s: appends through the file do not go on: %s, %s, %s", when, tl_status_name(status), err.what,
                   err.path);
    }
    status = tl_partition_sync(run.partition, tl_partition_tail(run.partition), 1000000000, &err);
    if (must_be_failed && status != TL_EFAILED)
        REFUSE("%s: a failed sync was forgotten: %s", when, tl_status_name(status));
    if (status < 0 && !(status == TL_EFAILED && may_be_failed))
        REFUSE("%s: syncs do not go on: %s, %s, %s", when, tl_status_name(status), err.what, err.path);
    kit_verify(run.partition, &run.ledger, when);
    if (run.committed >= 0) {
        uint32_t slot = 0;
        tl_offset_word word = {0};
        status = tl_store_offset_slot(run.store, "group", 5, kit_channel, 0, false, &slot, &err);
        if (status < 0 || tl_offsets_read(tl_store_offsets(run.store), slot, &word, NULL) < 0)
            REFUSE("%s: the committed offset is gone: %s", when, err.what);
        if (word.offset != run.committed && word.offset != run.commit_in_doubt)
            REFUSE("%s: the committed offset is %lld, not %lld", when, (long long)word.offset, (long long)run.committed);
    }
}

static void count_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                          int64_t next) {
    (void)context;
    if (strstr(file, "FAILED") == NULL)
        REFUSE("check: %s at %lld: %s, offsets %lld to %lld", file, (long long)position, what, (long long)first,
               (long long)next);
}

static void judge_close(const char *when, bool may_be_failed) {
    tl_error err = {0};
    if (run.partition != NULL && run.unrecovered == 0) {
        const tl_check_report report = {.finding = count_finding};
        int findings = tl_partition_check(run.partition, &report, &err);
        if (findings < 0)
            REFUSE("%s: check: %s, %s, %s", when, tl_status_name(findings), err.what, err.path);
    }
    tl_partition_release(run.partition);
    run.partition = NULL;
    int status = tl_store_close(run.store, &err);
    if (status < 0 && !may_be_failed)
        REFUSE("%s: close: %s, %s, %s", when, tl_status_name(status), err.what, err.path);
    tl_store_free(run.store);
    run.store = NULL;
}

static void run_judge(const work *w) {
    (void)w;
    bool failed = run.partition_failed;
    judge_open("fault lifted", failed, failed || run.checkpoint_failed);
    if (run.holder != 0) {
        close(run.holder_pipe);
        int status = 0;
        CHECK(waitpid(run.holder, &status, 0) == run.holder);
    }
    judge_close("fault lifted", failed || run.checkpoint_failed || run.unrecovered > 0);
    run.unrecovered = 0;
    judge_open("opened again", failed, failed);
    judge_close("opened again", failed);
    kit_boot++;
    judge_open("opened in another boot", false, failed);
    judge_close("opened in another boot", failed);
    if (fault_large_maps > run.opens)
        REFUSE("%lld large maps are left of %lld opens", (long long)fault_large_maps, (long long)run.opens);
}

#endif
