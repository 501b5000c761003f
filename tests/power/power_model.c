/* Does a store keep its promises whatever a power cut leaves of what was not synced, at any moment, and again while it
 * recovers?
 *
 * Imports disk.h, history.h. Single-threaded; forks one child at a time.
 *
 * A lineage is a seeded life of a store: appends, syncs, rolls, commits, trims, partitions that come and go, processes
 * that die, clean closes. At chosen points the process forks. The child builds many states that a power cut could have
 * left there and opens each as a new boot: it compares with the history, appends, lives on for a while, closes, opens
 * again; in some of them the power goes once more, during the recovery or later. A state counts once, by the hash of its
 * image. Everything follows from the seed: --replay with the path that a failure prints does it again.
 *
 *   power_model [--states N] [--seconds N] [--seed N] [--replay lineage.cut.state[.cut.state ...]] [--points]
 *
 * Exit codes: 0 so many states, no violation; 1 a violation; 3 time ran out before N states. TL_BUG=<name> breaks the
 * core on purpose: then 1 is what is wanted. */
#define _GNU_SOURCE
#include "disk.h"
#include "history.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEEN (1u << 25)
#define DEPTHS 3
#define POINTS 256
#define PATH 16
#define HANG_SECONDS 20

/* Shared by all processes of a run. */
typedef struct tally {
    uint64_t states, repeated, cuts, deaths, recoveries_cut, reopened, failed_syncs, lineages;
    uint64_t by_depth[DEPTHS + 1];
    struct {
        char name[40];
        uint64_t cuts;
    } points[POINTS];
    uint64_t seen[SEEN];
} tally;

static tally *total;
static uint64_t seed = 1, wanted = 20000;
static double most_seconds = 3600;
static disk disks[2];
static disk *spare;
static tl_store *store;
static tl_partition *open_parts[PARTITIONS];
static bool closing;

/* Where this process is: lineage.cut.state.cut.state ... */
static uint32_t path[PATH], replay[PATH];
static int path_length, replay_length;
static int depth;
static uint32_t cuts_here; /* since this state or lineage began */
static uint64_t workload_random, event_random;
static bool armed, in_event;
static uint64_t events_here, cut_at_event; /* cut_at_event: exactly there; 0: by chance */
static const history *must_equal;          /* what another recovery of the same state found */
static uint32_t hits[POINTS];
static char hit_names[POINTS][40];
static double cut_rate = 1;
static bool wordy; /* this lineage leaves long texts with its commits */

static void path_text(char out[200]) {
    int n = 0;
    for (int i = 0; i < path_length; i++)
        n += snprintf(out + n, 200 - (size_t)n, "%s%u", i == 0 ? "" : ".", path[i]);
}

static void say_path(const char *where) {
    char text[200];
    path_text(text);
    const char *bug = tl_bug == TL_BUG_NONE ? "" : tl_bug_name(tl_bug);
    fprintf(stderr, "  %s; to see it again: %s%s%spower_model --seed %llu --replay %s\n", where, *bug ? "TL_BUG=" : "",
            bug, *bug ? " " : "", (unsigned long long)seed, text);
}

static void violated(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "VIOLATION: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    say_path("seed, lineage, cut and state are in the command");
    _exit(1);
}

static uint64_t pick(uint64_t n) { return check_random(&workload_random) % n; }
static bool chance(uint64_t of) { return pick(of) == 0; }
static bool replaying(void) { return replay_length > 0; }
/* Whether the element at path_length is wanted. */
static bool on_path(uint32_t element) {
    return !replaying() || path_length >= replay_length || replay[path_length] == element;
}

/* What happens, when it is a replay. */
__attribute__((format(printf, 1, 2))) static void trace(const char *format, ...) {
    if (!replaying() || path_length < replay_length - 4)
        return;
    char text[200];
    va_list arguments;
    path_text(text);
    fprintf(stderr, "  [%s] ", text);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

/* --- doing things to the store --- */

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
    bool failed = told.sync_failed;
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

/* --- cuts --- */

static bool claim(uint64_t hash) {
    for (uint64_t at = hash;; at++) {
        uint64_t *slot = &total->seen[at & (SEEN - 1)];
        if (*slot == hash)
            return false;
        if (*slot == 0) {
            *slot = hash;
            return true;
        }
    }
}

/* Which items a state keeps. The first states of a cut are the plain ones; few items are enumerated; then chance. */
static void choose(uint8_t *keep, const item *items, size_t count, uint32_t number, uint64_t *random) {
    if (count <= 5 && number < 1u << count) {
        for (size_t k = 0; k < count; k++)
            keep[k] = number >> k & 1;
        return;
    }
    uint32_t kind = number < 4 ? number : 4 + (uint32_t)(check_random(random) % 10);
    size_t at = count == 0 ? 0 : check_random(random) % count, from = count == 0 ? 0 : check_random(random) % count;
    static const uint8_t share[] = {6, 32, 128, 224, 250};
    uint8_t often = share[check_random(random) % 5];
    uint64_t page = 0;
    for (size_t k = 0; k < count; k++) {
        bool block = items[k].kind == ITEM_BLOCK, yes = false;
        switch (kind) {
        case 0:
            yes = false;
            break;
        case 1:
            yes = true;
            break;
        case 2:
            yes = block;
            break;
        case 3:
            yes = !block;
            break;
        case 4:
            yes = k == at;
            break;
        case 5:
            yes = k != at;
            break;
        case 6:
            yes = k <= at;
            break; /* prefix */
        case 7:
            yes = k >= at;
            break; /* reverse */
        case 8:
            yes = (k + count - from) % count <= at;
            break;
        case 9: /* whole pages */
        case 10:
            if (k == 0 || !block || items[k].inode != items[k - 1].inode ||
                items[k].at / (PAGE / BLOCK) != items[k - 1].at / (PAGE / BLOCK))
                page = check_random(random);
            yes = (page & 255) < often;
            break;
        case 11:
            yes = !block || (check_random(random) & 255) < often;
            break;
        default:
            yes = (check_random(random) & 255) < often;
            break;
        }
        keep[k] = yes ? 1 : 0;
        if (yes && items[k].has_middle && (check_random(random) & 3) == 0)
            keep[k] = 2;
    }
}

/* Segments as the cut left them: what is not part of the log afterwards must be found in .torn files. */
typedef struct kept_segment {
    char directory[16], name[32];
    uint8_t *bytes;
    uint32_t used;
} kept_segment;
static kept_segment kept[64];
static int kept_count;

static void keep_segments(disk *d) {
    for (int i = 0; i < kept_count; i++)
        free(kept[i].bytes);
    kept_count = 0;
    for (size_t i = 0; i < d->name_count; i++) {
        const entry *e = &d->names[i];
        size_t length = strlen(e->name);
        if (length != 24 || strcmp(e->name + 20, ".log") != 0 || kept_count == 64)
            continue;
        for (size_t k = 0; k < d->name_count; k++) {
            if (d->names[k].child != e->parent || strncmp(d->names[k].name, "orders-", 7) != 0)
                continue;
            kept_segment *s = &kept[kept_count++];
            memset(s, 0, sizeof *s);
            memcpy(s->directory, d->names[k].name, sizeof s->directory);
            memcpy(s->name, e->name, length);
            uint32_t used = d->inodes[e->child].filled;
            while (used > 0 && bytes_of(d, e->child)[used - 1] == 0)
                used--;
            s->used = used;
            s->bytes = malloc(used + 1);
            memcpy(s->bytes, bytes_of(d, e->child), used);
        }
    }
}

static bool found_in_torn(int directory, const kept_segment *s, uint32_t same) {
    for (size_t i = 0; i < now->name_count; i++) {
        const entry *e = &now->names[i];
        if (e->parent != directory || strncmp(e->name, s->name, 24) != 0 || strncmp(e->name + 24, ".torn", 5) != 0)
            continue;
        uint32_t from = e->name[29] == '-' ? (uint32_t)strtoul(e->name + 30, NULL, 10) : 0;
        if (from <= same && from <= s->used && now->inodes[e->child].size >= s->used - from &&
            memcmp(bytes_of(now, e->child), s->bytes + from, s->used - from) == 0)
            return true;
    }
    return false;
}

static void verify_torn(void) {
    for (int i = 0; i < kept_count; i++) {
        const kept_segment *s = &kept[i];
        const part *p = NULL;
        for (int k = 0; k < told.part_count; k++)
            if (told.parts[k].existence == LIVE && strcmp(told.parts[k].directory, s->directory) == 0)
                p = &told.parts[k];
        int store_at = find_in(now->names, now->name_count, ROOT, "store");
        int at = p == NULL || store_at < 0
                     ? -1
                     : find_in(now->names, now->name_count, now->names[store_at].child, s->directory);
        if (at < 0)
            continue;
        int directory = now->names[at].child, file = find_in(now->names, now->name_count, directory, s->name);
        uint32_t same = 0;
        if (file >= 0)
            while (same < s->used && bytes_of(now, now->names[file].child)[same] == s->bytes[same])
                same++;
        if (same == s->used || found_in_torn(directory, s, same))
            continue;
        if (file < 0 && strtoll(s->name, NULL, 10) < p->start)
            continue; /* deleted by a trim */
        violated("%s/%s: bytes from %u to %u were cut and are in no .torn file", s->directory, s->name, same, s->used);
    }
}

static int64_t end_of_spans(const part *p) {
    return p->span_count == 0 ? p->start : p->spans[p->span_count - 1].offset + p->spans[p->span_count - 1].count;
}

static void compare_with_other_recovery(void) {
    for (int i = 0; i < told.part_count; i++) {
        const part *a = &told.parts[i], *b = &must_equal->parts[i];
        if (a->existence != b->existence)
            violated("%s: a recovery that was cut short changes whether it exists", a->directory);
        if (a->existence != LIVE)
            continue;
        bool same = a->span_count == b->span_count && a->start == b->start;
        for (int k = 0; same && k < a->span_count; k++)
            same = a->spans[k].offset == b->spans[k].offset && a->spans[k].count == b->spans[k].count &&
                   a->spans[k].number == b->spans[k].number;
        if (!same)
            violated("%s: a recovery that was cut short and done again finds other messages: from %lld to %lld, the "
                     "other from %lld to %lld",
                     a->directory, (long long)a->start, (long long)end_of_spans(a), (long long)b->start,
                     (long long)end_of_spans(b));
    }
}

static void new_boot(void) {
    boot_number++;
    memset(descriptors, 0, sizeof descriptors);
    fail_sync_in = -1;
    fail_kills = false;
}

static void begin_counting(void) {
    cuts_here = 0;
    events_here = 0;
    memset(hits, 0, sizeof hits);
}

/* Opens the state in `now` and lives in it. */
static void evaluate(const item *items, const uint8_t *keep, size_t count, disk *from, const history *at_cut) {
    alarm(HANG_SECONDS);
    new_boot();
    keep_segments(now);
    armed = false;
    begin_counting();
    bool once_more = depth < DEPTHS - 1 && chance(depth == 0 ? 6 : 12);
    uint64_t lives = pick(8), event = pick(1000000);
    open_store(AFTER_CUT);
    uint64_t recovery_events = events_here;
    verify_torn();
    if (must_equal != NULL)
        compare_with_other_recovery();
    must_equal = NULL;
    if (once_more && recovery_events > 0) {
        /* The same state again, and the power goes while it recovers. */
        static history first;
        first = told;
        close_store();
        (void)disk_build(now, from, items, keep, count, event % 2 == 0);
        told = *at_cut;
        new_boot();
        begin_counting();
        must_equal = &first;
        cut_at_event = 1 + event % recovery_events;
        armed = true;
        open_store(AFTER_CUT);
        armed = false;
        cut_at_event = 0;
        must_equal = NULL;
        total->recoveries_cut++;
    }
    int i = live_part();
    if (i >= 0)
        op_append(i, 1 + (int)pick(3), 0, false);
    if (lives == 0 && depth < DEPTHS - 1) {
        begin_counting();
        cut_rate = depth == 0 ? 0.25 : 0.1;
        armed = true;
        live(4 + (int)pick(20));
        armed = false;
    }
    if (close_store() && lives % 4 == 1) {
        new_boot();
        open_store(AFTER_CLOSE);
        close_store();
        total->reopened++;
    }
}

static void evaluate_all(uint64_t cut_seed) {
    static item items[ITEMS];
    static uint8_t keep[ITEMS];
    static const uint32_t states[DEPTHS] = {48, 10, 4};
    static history at_cut;
    disk *from = now;
    disk *to = spare;
    const history *equal = must_equal;
    static history equal_copy;
    if (equal != NULL) {
        equal_copy = *equal;
        equal = &equal_copy;
    }
    spare = from;
    at_cut = told;
    size_t count = disk_items(from, items);
    depth++;
    for (uint32_t number = 0; number < states[depth - 1]; number++) {
        if (!on_path(number))
            continue;
        path[path_length++] = number;
        uint64_t random = scramble(cut_seed + number + 1);
        choose(keep, items, count, number, &random);
        uint64_t hash = disk_build(to, from, items, keep, count, (random & 1) != 0);
        if (replaying() || claim(hash)) {
            if (!replaying()) {
                total->states++;
                total->by_depth[depth - 1]++;
            }
            depth--;
            now = to;
            told = at_cut;
            must_equal = equal;
            workload_random = scramble(random + 1);
            event_random = scramble(random + 2);
            disk_random = scramble(random + 3);
            depth++;
            int outer = depth;
            trace("state with %zu things not synced, %llx", count, (unsigned long long)hash);
            for (size_t k = 0; replaying() && path_length == replay_length && k < count; k++)
                trace("  %s %s %u: %u",
                      items[k].kind == ITEM_BLOCK  ? "block"
                      : items[k].kind == ITEM_SIZE ? "size"
                                                   : "entry",
                      any_name_of(from, items[k].inode), items[k].at, keep[k]);
            evaluate(items, keep, count, from, &at_cut);
            depth = outer;
            now = from;
        } else {
            total->repeated++;
        }
        path_length--;
    }
}

/* Visible to others at this moment, whatever the call that is running will return. */
static void note_visible(void) {
    for (int i = 0; i < told.part_count && store != NULL && tl_store_is_open(store); i++) {
        part *p = &told.parts[i];
        tl_bounds bounds;
        if (p->existence == LIVE && open_parts[i] != NULL &&
            tl_partition_bounds(open_parts[i], &bounds, NULL) == TL_OK && bounds.log_end > p->end)
            p->end = bounds.log_end;
    }
}

/* The power may go while the core holds what its own fork handlers want to take. So they are caught here, and only those
 * of the child run, after a fork that calls none. */
static void (*child_handlers[8])(void);
static int child_handler_count;
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    (void)prepare, (void)parent;
    CHECK(child_handler_count < 8);
    child_handlers[child_handler_count++] = child;
    return 0;
}

static void forked(void (*run)(uint64_t), uint64_t argument, const char *name) {
    fflush(NULL);
    pid_t child = _Fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int i = 0; i < child_handler_count; i++)
            child_handlers[i]();
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(HANG_SECONDS);
        store = NULL;
        memset(open_parts, 0, sizeof open_parts);
        in_event = false;
        run(argument);
        fflush(NULL);
        _exit(0);
    }
    int status = 0;
    alarm(0);
    CHECK(waitpid(child, &status, 0) == child);
    alarm(HANG_SECONDS);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "VIOLATION: the process died of signal %d (%s) after the cut at %s\n", WTERMSIG(status),
                strsignal(WTERMSIG(status)), name);
        say_path("its last state is unknown: replay this cut");
    }
    _exit(1);
}

static void die_and_go_on(uint64_t unused) {
    (void)unused;
    memset(descriptors, 0, sizeof descriptors);
    fail_sync_in = -1;
    fail_kills = false;
    armed = false;
    depth++;
    path[path_length++] = 0;
    begin_counting();
    open_store(AFTER_DEATH);
    if (depth < DEPTHS) {
        cut_rate = 0.25;
        armed = true;
        for (int k = 0; k < 3 && !told.store_failed; k++) { /* what the dead one left is finished first */
            int i = live_part();
            if (k == 1 && chance(2))
                op_store_sync(true);
            else if (i >= 0)
                op_sync(i);
        }
        live((int)pick(16));
        armed = false;
    }
    on_event("end");
    armed = false;
    close_store();
}

static void cut(const char *name, bool death) {
    uint32_t number = ++cuts_here;
    uint64_t cut_seed = scramble(event_random + number);
    if (!on_path(number))
        return;
    static history before;
    before = told;
    note_visible();
    if (death && (cut_seed & 1) != 0)
        disk_keep_middle(now, &cut_seed); /* what a dead process left half done may reach the platter */
    path[path_length++] = number;
    trace("%s at %s", death ? "death" : "cut", name);
    if (death)
        total->deaths++;
    else
        total->cuts++;
    if (!death) {
        for (int i = 0; i < POINTS; i++) {
            if (total->points[i].name[0] == 0)
                strcpy(total->points[i].name, name);
            if (strcmp(total->points[i].name, name) == 0) {
                total->points[i].cuts++;
                break;
            }
        }
    }
    forked(death ? die_and_go_on : evaluate_all, cut_seed, name);
    path_length--;
    told = before;
}

static uint32_t *hits_of(const char *name) {
    for (int i = 0; i < POINTS; i++) {
        if (hit_names[i][0] == 0) {
            CHECK(strlen(name) < sizeof hit_names[i]);
            strcpy(hit_names[i], name);
        }
        if (strcmp(hit_names[i], name) == 0)
            return &hits[i];
    }
    CHECK(!"more points than the test has room for: raise POINTS");
    return NULL;
}

static bool others_may_append(const char *name) {
    return strcmp(name, "sync.begin") == 0 || strcmp(name, "sync.segment") == 0 ||
           strcmp(name, "sync.before_publish") == 0 || strcmp(name, "housekeeper.capture") == 0;
}

static void on_event(const char *name) {
    if (in_event)
        return;
    if (strcmp(name, "sync.dirtied_again") == 0)
        disk_touch_logs();
    events_here++;
    if (!armed)
        return;
    in_event = true;
    uint64_t dice = check_random(&event_random);
    if (cut_at_event != 0) {
        if (events_here == cut_at_event)
            cut(name, false);
        in_event = false;
        return;
    }
    uint32_t hit = ++*hits_of(name);
    double rate = cut_rate * (0.02 + 0.5 / hit) * (strncmp(name, "checkpoint.snapshot", 19) == 0 ? 6 : 1);
    if (others_may_append(name) && (dice >> 50) % 3 == 0 && !closing && store != NULL && !told.sync_failed) {
        int i = live_part();
        if (i >= 0 && told.parts[i].inflight.count == 0) {
            bool was = armed;
            armed = false;
            op_append(i, 1 + (int)pick(4), 0, false);
            armed = was;
        }
    }
    if ((dice >> 40) % 64 == 0)
        disk_keep_middle(now, &event_random);
    if ((double)(dice % 100000) < rate * 20000) {
        bool half_done = strstr(name, ".copied") != NULL || strcmp(name, "append.end_filled") == 0;
        bool death = (dice >> 20) % (half_done ? 2 : 8) == 0 && !told.sync_failed && depth < DEPTHS - 1;
        cut(name, death);
    }
    in_event = false;
}

static void on_failed_sync(void) {
    total->failed_syncs++;
    if (fail_kills && armed && !in_event) {
        in_event = true;
        cut("disk.sync.failed", true);
        in_event = false;
    }
    told.sync_failed = true;
}

/* --- a run --- */

static void lineage(uint64_t number) {
    workload_random = scramble(seed * 1000003 + number);
    event_random = scramble(workload_random + 1);
    disk_random = scramble(workload_random + 2);
    begin_counting();
    cut_rate = 1;
    wordy = number % 5 == 4;
    armed = true;
    open_store(AFTER_CLOSE);
    op_create();
    for (int act = 0; act < 3 && !told.store_failed; act++) {
        live(20 + (int)pick(30));
        if (chance(2)) {
            fail_sync_in = (long)pick(12);
            fail_kills = chance(2);
        }
    }
    if (!told.store_failed) {
        on_event("end");
        close_store();
        on_event("closed");
    } else {
        in_event = true;
        cut("end", true);
        cut("end", false);
        in_event = false;
    }
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void parse(int argc, char **argv, bool *points) {
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--points") == 0) {
            *points = true;
            continue;
        }
        if (strcmp(argv[i], "--states") == 0)
            wanted = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            most_seconds = strtod(value, NULL);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--replay") == 0) {
            char *at = (char *)(uintptr_t)value;
            while (*at != 0 && replay_length < PATH) {
                replay[replay_length++] = (uint32_t)strtoul(at, &at, 10);
                at += *at == '.';
            }
        } else {
            fprintf(stderr, "usage: power_model [--states N] [--seconds N] [--seed N] [--replay PATH] [--points]\n");
            exit(2);
        }
        i++;
    }
}

int main(int argc, char **argv) {
    bool points = false;
    parse(argc, argv, &points);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    total = mmap(NULL, sizeof *total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(total != MAP_FAILED);
    disk_new(&disks[0]);
    disk_new(&disks[1]);
    now = &disks[0];
    spare = &disks[1];
    disk_install();
    tl_point_hook = on_event;
    printf("power_model: seed %llu%s%s\n", (unsigned long long)seed, tl_bug == TL_BUG_NONE ? "" : ", bug ",
           tl_bug == TL_BUG_NONE ? "" : tl_bug_name(tl_bug));
    double began = seconds_now(), took = 0;
    uint64_t number = replaying() ? replay[0] : 0;
    do {
        path[0] = (uint32_t)number;
        path_length = 1;
        forked(lineage, number, "the beginning");
        total->lineages++;
        number++;
        took = seconds_now() - began;
    } while (!replaying() && total->states < wanted && took < most_seconds);
    if (points)
        for (int i = 0; i < POINTS && total->points[i].name[0] != 0; i++)
            printf("  %-40s %llu\n", total->points[i].name, (unsigned long long)total->points[i].cuts);
    int thin = 0, names = 0;
    for (int i = 0; i < POINTS && total->points[i].name[0] != 0; i++) {
        names++;
        thin += total->points[i].cuts < 10;
    }
    printf("power_model: %llu distinct states (%llu at once, %llu after a second cut, %llu after a third; %llu "
           "repeated ones left out) of %llu cuts at %d "
           "points (%d of them under 10 times) in %llu lineages; %llu deaths, %llu recoveries cut, %llu reopened, %llu "
           "syncs failed; %.1f s\n",
           (unsigned long long)total->states, (unsigned long long)total->by_depth[0],
           (unsigned long long)total->by_depth[1], (unsigned long long)total->by_depth[2],
           (unsigned long long)total->repeated, (unsigned long long)total->cuts, names, thin,
           (unsigned long long)total->lineages, (unsigned long long)total->deaths,
           (unsigned long long)total->recoveries_cut, (unsigned long long)total->reopened,
           (unsigned long long)total->failed_syncs, took);
    if (!replaying() && total->states < wanted) {
        printf("power_model: NOT ENOUGH: %llu states were asked for within %.0f s\n", (unsigned long long)wanted,
               most_seconds);
        return 3;
    }
    printf("power_model: no violation\n");
    return 0;
}
