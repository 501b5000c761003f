/* Does a store keep its promises whatever a power cut leaves of what was not synced, at any moment, and again while it
 * recovers?
 *
 * Imports disk_table.h, states.h, torn.h, workload.h. Single-threaded; forks one child at a time.
 *
 * A lineage is a seeded life of a store: appends, syncs, rolls, commits, trims, partitions that come and go, processes
 * that die, clean closes. At chosen points the process forks. The child builds many states that a power cut could have
 * left there and opens each as a new boot: it compares with the history, appends, lives on for a while, closes, opens
 * again; in some of them the power goes once more, during the recovery or later. A state counts once, by the hash of its
 * image. Everything follows from the seed: --replay with the path that a failure prints does it again.
 *
 *   power_model [--states N] [--seconds N] [--seed N] [--transactions 1] [--replay lineage.cut.state[.cut.state ...]] [--points]
 *
 * Exit codes: 0 so many states, no violation; 1 a violation; 3 time ran out before N states. TL_BUG=<name> breaks the
 * core on purpose: then 1 is what is wanted. */
#define _GNU_SOURCE
#include "disk_table.h"
#include "states.h"
#include "torn.h"
#include "workload.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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
    rare_count = 0;
    memset(hits, 0, sizeof hits);
}

/* Opens the state in `now` and lives in it. */
static void evaluate(const item *items, const uint8_t *keep, size_t count, disk *from, const history *at_cut) {
    alarm(HANG_SECONDS);
    new_boot();
    keep_segments(now);
    armed = false;
    begin_counting();
    bool once_more = depth < DEPTHS - 1 && chance(depth == 0 ? 6 : 12), often = depth < DEPTHS - 1 && chance(2);
    uint64_t lives = pick(8), event = pick(1000000);
    open_store(AFTER_CUT);
    uint64_t recovery_events = events_here, at_event = 1 + event % (recovery_events + 1);
    if (rare_count > 0 && often) {
        once_more = true;
        at_event = rare_events[event % (uint64_t)rare_count] + event / 16 % 4;
    }
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
        cut_at_event = at_event;
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
    cut_rate = 0.25;
    armed = depth < DEPTHS;
    open_store(AFTER_DEATH);
    if (depth < DEPTHS) {
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
    if ((strncmp(name, "recover.torn", 12) == 0 || strcmp(name, "recover.segment_aside") == 0) && rare_count < 16)
        rare_events[rare_count++] = events_here;
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
        else if (strcmp(argv[i], "--transactions") == 0)
            transactional = atoi(value) != 0;
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
