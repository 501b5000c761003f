/* Does a checkpoint survive power cuts and dead processes in any order, with every synced group and no half one?
 *
 * Imports memory_disk.h, checkpoint_model.h. Single-threaded; children die at points. timeout_s: 240
 *
 * One lineage: a store is made; groups are appended, synced, snapshots taken; processes die at a random point of an
 * operation; the state is recovered from the page cache; and the power goes at a random write or sync, in recovery too.
 * After each cut the store must hold the state after group n for some n between the last group that a returned sync
 * covers and the last group that was begun, exactly; recovery again, and after another cut, must say the same n.
 * TL_POWER_LINEAGES in the environment sets how many (default 100, 12 rounds each). */
#define _DEFAULT_SOURCE 1
#include "checkpoint_model.h"
#include "memory_disk.h"

#include <sys/wait.h>
#include <unistd.h>

#define GROUPS 600
#define DEAD 64

/* What this lineage did, in shared memory since children append too. */
typedef struct lineage {
    tl_checkpoint_words words;
    uint64_t random;
    uint64_t seeds[GROUPS + 2];         /* of group n at [n] */
    uint64_t begun, synced;             /* the last group that was begun; that a returned sync covers */
    struct { uint64_t number, seed; } dead[DEAD]; /* begun by processes that died */
    size_t dead_count;
    const char *violation;              /* what went wrong first */
} lineage;

/* Each recovery reads half a megabyte: with the usual quarantine of freed memory, fork() copies page tables all day. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "quarantine_size_mb=1"; }

static lineage *line;
static tl_checkpoint handle;
static unsigned long cuts, deaths, fallbacks, lost_groups;
static int die_at;                      /* the child dies at the nth point it meets */

static void die(const char *name) {
    (void)name;
    if (die_at > 0 && --die_at == 0)
        _exit(0);
}

static uint64_t pick(uint64_t n) { return check_random(&line->random) % n; }

static bool expect(bool condition, const char *what) {
    if (!condition && line->violation == NULL)
        line->violation = what;
    return condition;
}

static model model_after(uint64_t number) {
    model m = {0};
    for (uint64_t n = 1; n <= number; n++)
        model_step(&m, n, line->seeds[n], NULL);
    return m;
}

/* Compares what is stored with the group it claims to end with, sets that number. Adopts a group of a dead process. */
static bool settle(uint64_t *number) {
    model_loaded loaded;
    tl_error err;
    bool ok = expect(model_load(&handle, &loaded, &err) == TL_OK, "the state cannot be loaded");
    ok = ok && expect(loaded.number >= line->synced, "a synced group is lost") &&
         expect(loaded.number <= line->begun, "a group that nobody wrote");
    if (ok && loaded.number > 0 && line->seeds[loaded.number] != loaded.seed) {
        bool was_dead = false;
        for (size_t i = 0; i < line->dead_count; i++)
            was_dead |= line->dead[i].number == loaded.number && line->dead[i].seed == loaded.seed;
        ok = expect(was_dead && loaded.number > line->synced, "the state belongs to no history");
        line->seeds[loaded.number] = loaded.seed;
    }
    if (ok) {
        model m = model_after(loaded.number);
        ok = expect(model_equal(&m, &loaded), "the state is not the one after its last group");
        *number = loaded.number;
    }
    model_loaded_free(&loaded);
    return ok;
}

static bool recover(void) {
    memset(&line->words, 0, sizeof line->words);
    tl_error err;
    return expect(tl_checkpoint_recover(&handle, &err) == TL_OK, "recovery fails");
}

static bool append(bool then_sync) {
    tl_error err;
    uint64_t number = line->begun + 1, seed = check_random(&line->random);
    model m = {.number = number - 1};
    tl_checkpoint_end end;
    line->seeds[number] = seed;
    line->begun = number;
    if (!expect(model_append(&handle, &m, seed, &end, &err) == TL_OK, "an append fails"))
        return false;
    int result = then_sync ? tl_checkpoint_sync(&handle, end, &err) : TL_OK;
    if (result == TL_EAGAIN) { /* as the header says: the leader before died in its sync */
        if (!expect(tl_checkpoint_snapshot(&handle, &err) == TL_OK, "a snapshot fails"))
            return false;
        result = tl_checkpoint_sync(&handle, end, &err);
    }
    if (!expect(result == TL_OK, "a sync fails"))
        return false;
    if (then_sync && !disk->cut)
        line->synced = number;
    return true;
}

static bool snapshot(void) {
    tl_error err;
    uint64_t covered = line->begun;
    if (!expect(tl_checkpoint_snapshot(&handle, &err) == TL_OK, "a snapshot fails"))
        return false;
    if (!disk->cut)
        line->synced = covered;
    return true;
}

/* Something happens in a process that may die of it. The numbers are set to what is published then. */
static bool die_doing(int what) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        die_at = 1 + (int)pick(what == 2 ? 8 : 5);
        tl_point_hook = die;
        bool ok = what == 2 ? snapshot() : append(what == 1);
        _exit(ok ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    deaths++;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return expect(false, "an operation fails in a child");
    /* Which of the groups begun is the last one published? The one that died may be torn or whole. */
    uint64_t number = 0, before = line->begun;
    if (!settle(&number))
        return false;
    if (number < before) {
        CHECK(number + 1 == before && line->dead_count < DEAD);
        line->dead[line->dead_count].number = before;
        line->dead[line->dead_count++].seed = line->seeds[before];
        /* begun stays: a cut may still bring that group to light, until one is appended in its place */
        line->begun = number;
    }
    return true;
}

static void arm_cut(uint64_t within) {
    static const unsigned keeps[] = {0, 128, 128, 240, 256};
    disk->keep = keeps[pick(5)];
    disk->cut_after = disk->calls + 1 + pick(within);
}

/* The power goes as armed, or now, and sometimes once more during recovery; then everything is checked. */
static bool cut_and_check(void) {
    if (!disk->cut)
        disk_take_image();
    disk_reboot();
    cuts++;
    if (pick(4) == 0) {
        arm_cut(6);
        if (!recover())
            return false;
        if (!disk->cut)
            disk_take_image();
        disk_reboot();
        cuts++;
    }
    uint64_t number = 0, again = 0;
    /* A dead group may stand right behind the last published one. */
    for (size_t i = 0; i < line->dead_count; i++) {
        if (line->dead[i].number == line->begun + 1) {
            line->begun++;
            line->seeds[line->begun] = line->dead[i].seed;
            break;
        }
    }
    if (!recover() || !settle(&number))
        return false;
    lost_groups += line->begun - number;
    line->begun = line->synced = number;
    /* What recovery found is durable: nothing unsynced survives this cut. */
    disk->keep = 0;
    if (tl_bug != TL_BUG_CHECKPOINT_OVERWRITTEN_UNSYNCED) {
        disk_take_image();
        disk_reboot();
    }
    if (!recover() || !settle(&again))
        return false;
    line->dead_count = 0;
    return expect(again == number, "a second recovery says something else");
}

/* Which sort of trouble a lineage has: all, or only deaths of snapshot writers followed by recovery and cuts. */
static bool run_lineage(uint64_t seed, int rounds, bool only_snapshots) {
    memset(line, 0, sizeof *line);
    line->random = seed;
    disk_install(seed ^ 0x5eed);
    tl_error err;
    CHECK(tl_checkpoint_create(&handle, 0, 0600, &line->words, &err) == TL_OK);
    for (int round = 0; round < rounds && line->begun + 40 < GROUPS; round++) {
        disk->lazy = only_snapshots || pick(3) == 0;
        if (!only_snapshots)
            arm_cut(40);
        for (int step = 0; step < 25 && !disk->cut && line->dead_count < DEAD; step++) {
            uint64_t what = pick(100);
            bool ok = true;
            if (only_snapshots && step == 1) {
                ok = die_doing(2) && recover();
                arm_cut(7);
            } else if (only_snapshots)
                ok = step == 0 ? append(true) : step == 2 ? append(false) : snapshot();
            else if (what < 46)
                ok = append(false);
            else if (what < 70)
                ok = append(true);
            else if (what < 82)
                ok = snapshot();
            else if (what < 94)
                ok = die_doing((int)pick(3));
            else {
                /* All processes died and the page cache stayed: what died unpublished may count now. */
                uint64_t number = 0;
                if (line->dead_count > 0 && line->dead[line->dead_count - 1].number == line->begun + 1)
                    line->seeds[++line->begun] = line->dead[line->dead_count - 1].seed;
                ok = recover() && settle(&number);
                if (ok) {
                    line->begun = number;
                    if (!disk->cut && tl_bug != TL_BUG_CHECKPOINT_OVERWRITTEN_UNSYNCED)
                        line->synced = number;
                    fallbacks++;
                }
            }
            if (!ok)
                return false;
        }
        if (!cut_and_check())
            return false;
    }
    tl_checkpoint_close(&handle);
    return true;
}

static void check_power(int lineages) {
    for (int i = 0; i < lineages; i++) {
        bool only_snapshots = i % 4 == 3;
        if (!run_lineage((uint64_t)i * 7919 + 1, 12, only_snapshots)) {
            fprintf(stderr, "lineage %d: %s (group %llu of %llu)\n", i, line->violation,
                    (unsigned long long)line->synced, (unsigned long long)line->begun);
            abort();
        }
        check_count++;
    }
    CHECK(cuts > (unsigned long)lineages * 5 && deaths > (unsigned long)lineages && fallbacks > 0 && lost_groups > 0);
    printf("%lu cuts, %lu deaths, %lu recoveries from the page cache, %lu unsynced groups lost\n", cuts, deaths,
           fallbacks, lost_groups);
}

/* A lane that cannot see the bug proves nothing. */
static void check_bug_is_caught(void) {
    int caught = 0;
    tl_bug = TL_BUG_CHECKPOINT_OVERWRITTEN_UNSYNCED;
    for (int i = 0; i < 40; i++)
        caught += !run_lineage((uint64_t)i * 104729 + 5, 12, true);
    tl_bug = TL_BUG_NONE;
    printf("CHECKPOINT_OVERWRITTEN_UNSYNCED caught in %d of 40 lineages\n", caught);
    CHECK(caught >= 10);
}

static void die_after_failed_sync(const char *name) {
    if (strcmp(name, "checkpoint.sync.failed") == 0)
        _exit(0);
}

/* A sync that failed is told to everybody and not tried again. Whether a synced group was lost is the result. */
static bool lost_after_failed_sync(bool leader_dies) {
    tl_error err;
    memset(line, 0, sizeof *line);
    disk_install(11);
    disk->keep = 0;
    disk->lazy = true;
    CHECK(tl_checkpoint_create(&handle, 0, 0600, &line->words, &err) == TL_OK);
    CHECK(append(true));
    model m = model_after(1);
    tl_checkpoint_end end;
    CHECK(model_append(&handle, &m, 77, &end, &err) == TL_OK);
    disk->fail_sync_at = 1;
    if (leader_dies) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            tl_point_hook = die_after_failed_sync;
            tl_checkpoint_sync(&handle, end, &err);
            _exit(1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    } else {
        CHECK(tl_checkpoint_sync(&handle, end, &err) == TL_EFAILED && err.sys_errno == EIO);
    }
    CHECK(disk->fail_sync_at == 0);
    int result = tl_checkpoint_sync(&handle, end, &err);
    if (!leader_dies && tl_bug == TL_BUG_NONE) {
        CHECK(result == TL_EFAILED && tl_checkpoint_snapshot(&handle, &err) == TL_EFAILED);
        model unchanged = m;
        CHECK(model_append(&handle, &unchanged, 78, NULL, &err) == TL_EFAILED);
        tl_checkpoint_end durable = {.generation = end.generation, .position = 8192};
        CHECK(tl_checkpoint_sync(&handle, durable, &err) == TL_OK);
        /* Recovery writes everything again and says what is durable from then on. */
        CHECK(recover() && model_holds(&handle, &m));
        result = tl_checkpoint_sync(&handle, tl_checkpoint_tail(&handle), &err);
    } else if (tl_bug == TL_BUG_NONE) {
        CHECK(result == TL_EAGAIN && tl_checkpoint_sync(&handle, end, &err) == TL_EAGAIN);
        CHECK(tl_checkpoint_snapshot(&handle, &err) == TL_OK);
        result = tl_checkpoint_sync(&handle, end, &err);
    }
    CHECK(result == TL_OK);
    disk_take_image();
    disk_reboot();
    bool lost = !recover() || !model_holds(&handle, &m);
    tl_checkpoint_close(&handle);
    return lost;
}

static void check_failed_syncs(void) {
    CHECK(!lost_after_failed_sync(false) && !lost_after_failed_sync(true));
    tl_bug = TL_BUG_FSYNC_RETRIED;
    CHECK(lost_after_failed_sync(false));
    tl_bug = TL_BUG_SYNCING_IGNORED;
    CHECK(lost_after_failed_sync(true));
    tl_bug = TL_BUG_NONE;
}

int main(void) {
    line = mmap(NULL, sizeof *line, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(line != MAP_FAILED);
    const char *lineages = getenv("TL_POWER_LINEAGES");
    check_failed_syncs();
    check_bug_is_caught();
    check_power(lineages == NULL ? 100 : atoi(lineages));
    return check_report();
}
