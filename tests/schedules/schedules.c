/* Does the core keep its promises in every order in which its processes can run, and whoever dies wherever?
 *
 * Imports search.h, scenarios.h. Each scenario is searched in a process of its own.
 *
 * Usage: schedules [--schedules N] [--seed N] [--jobs N] [--scenario NAME]... [--list]
 *        schedules --scenario NAME --grain GRAIN --schedule PLAN      replays one, and tells its steps; printed by
 * whatever fails Exit code: 0 nothing is wrong, 1 a schedule went wrong, 2 usage, 4 fewer different schedules than
 * asked for. */
#define _GNU_SOURCE
#include "scenarios.h"
#include "accesses.h"
#include "search.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static const scenario *const all[] = {
#define SCENARIO_LISTED(name) &scenario_##name,
    SCENARIOS(SCENARIO_LISTED)
#undef SCENARIO_LISTED
};
enum { COUNT = sizeof all / sizeof *all };

static bool chosen[COUNT];
static const char *program, *schedule;
static uint64_t wanted = 20000, seed;
static int jobs = 1;

static void yield(void) { actors_mark("yield"); }

static uint64_t quota_of(int i) {
    uint64_t weights = 0;
    for (int j = 0; j < COUNT; j++)
        weights += chosen[j] ? all[j]->weight : 0;
    return wanted * all[i]->weight / weights + 1;
}

static void tell_failure(const scenario *of, const search_result *r) {
    fprintf(stderr,
            "FAILED: %s: %s\n  schedule: %s\n  replay: %s --scenario %s --grain %s --schedule '%s'\n  seed: %llu\n",
            of->name, r->failure, r->schedule, program, of->name, r->fine ? "fine" : "coarse", r->schedule,
            (unsigned long long)seed);
}

static pid_t start(int i, search_result *r) {
    fflush(NULL);
    pid_t child = fork();
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    search(all[i], quota_of(i), seed, r);
    if (r->failed)
        tell_failure(all[i], r);
    fflush(NULL);
    _exit(r->failed ? 1 : 0);
}

/* Searches all that are chosen; the worst exit code. */
static int search_all(search_result *results) {
    int worst = 0, running = 0, next = 0;
    pid_t pids[COUNT] = {0};
    while (next < COUNT || running > 0) {
        while (next < COUNT && running < jobs && worst == 0) {
            if (chosen[next]) {
                pids[next] = start(next, &results[next]);
                running++;
            }
            next++;
        }
        if (running == 0)
            break;
        int status = 0;
        pid_t ended = wait(&status);
        running--;
        for (int i = 0; i < COUNT; i++) {
            if (pids[i] != ended || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
                continue;
            worst = 1;
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 || !results[i].failed)
                fprintf(stderr, "FAILED: %s: the search ended with status %d\n", all[i]->name, status);
        }
    }
    return worst;
}

static int report(const search_result *results, int worst) {
    search_result sum = {0};
    printf("%-12s %10s %10s %8s %8s %6s   %s\n", "scenario", "different", "runs", "points", "us each", "pages",
           "preemptions+deaths (f: fine steps): different ones, * all there are");
    for (int i = 0; i < COUNT; i++) {
        const search_result *r = &results[i];
        if (!chosen[i] || r->runs == 0)
            continue;
        printf("%-12s %10llu %10llu %8.1f %8.1f %6zu  ", all[i]->name, (unsigned long long)r->different,
               (unsigned long long)r->runs, (double)r->points / (double)r->runs, r->seconds * 1e6 / (double)r->runs,
               r->pages);
        for (int j = 0; j < SEARCH_LEVELS; j++)
            if (r->levels[j].different > 0)
                printf(" %u+%u%s: %llu%s", r->levels[j].preemptions, r->levels[j].deaths, r->levels[j].fine ? "f" : "",
                       (unsigned long long)r->levels[j].different, r->levels[j].complete ? "*" : "");
        printf(" random: %llu\n", (unsigned long long)r->random_different);
        sum.different += r->different;
        sum.runs += r->runs;
        sum.deaths += r->deaths;
        sum.points += r->points;
        sum.seconds += r->seconds;
    }
    printf("%llu different schedules in %llu runs, %llu with a death, %.1f million steps, %.1f s of work; seed %llu\n",
           (unsigned long long)sum.different, (unsigned long long)sum.runs, (unsigned long long)sum.deaths,
           (double)sum.points / 1e6, sum.seconds, (unsigned long long)seed);
    return worst != 0 ? worst : sum.different < wanted ? 4 : 0;
}

static int usage(void) {
    fprintf(stderr, "usage: schedules [--schedules N] [--seed N] [--jobs N] [--scenario NAME]... [--list]\n"
                    "       schedules --scenario NAME --grain fine|coarse --schedule PLAN\n");
    return 2;
}

static bool choose(const char *name) {
    for (int i = 0; i < COUNT; i++) {
        if (strcmp(all[i]->name, name) == 0)
            return chosen[i] = true;
    }
    return false;
}

static int replay(void) {
    static search_result r;
    actors_loud = true;
    for (int i = 0; i < COUNT; i++) {
        if (!chosen[i])
            continue;
        bool failed = search_replay(all[i], schedule, &r);
        snprintf(r.schedule, sizeof r.schedule, "%s", schedule);
        printf("%s\n", failed ? r.failure : "nothing is wrong");
        return failed ? 1 : 0;
    }
    return usage();
}

int main(int argc, char **argv) {
    bool some = false;
    program = argv[0];
    seed = (uint64_t)time(NULL);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0) {
            for (int j = 0; j < COUNT; j++)
                printf("%-12s %s\n", all[j]->name, all[j]->about);
            return 0;
        }
        if (value == NULL)
            return usage();
        i++;
        if (strcmp(argv[i - 1], "--schedules") == 0)
            wanted = strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--seed") == 0)
            seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--jobs") == 0)
            jobs = atoi(value);
        else if (strcmp(argv[i - 1], "--scenario") == 0 && choose(value))
            some = true;
        else if (strcmp(argv[i - 1], "--grain") == 0 && (strcmp(value, "fine") == 0 || strcmp(value, "coarse") == 0))
            actors_fine = value[0] == 'f';
        else if (strcmp(argv[i - 1], "--schedule") == 0)
            schedule = value;
        else
            return usage();
    }
    if (wanted == 0 || jobs < 1)
        return usage();
    for (int j = 0; !some && j < COUNT; j++)
        chosen[j] = true;
    tl_point_hook = actors_mark;
    tl_yield_hook = yield;
    if (schedule != NULL)
        return replay();
    search_result *results =
        mmap(NULL, sizeof *results * COUNT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    int worst = search_all(results);
    return report(results, worst);
}
