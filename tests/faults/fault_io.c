/* What happens when the nth call to the system (or to the heap) fails, once or from then on, in every kind of work?
 *
 *     fault_io [-w WORK] [-e ERROR] [-m once|forever|pair] [-n NTH] [-g GAP] [-s STRIDE] [-q]
 *
 * In mode `pair` the call GAP calls after the nth fails too (each of 1, 2, 3, 5, 8, 13, 21 when no GAP is given); it runs
 * when it is asked for. Errors of the heap run when -e heap asks for them.
 *
 * Each run is a forked child: a store is prepared, the fault armed, the work done (each step tried whatever the step before
 * it said), the fault lifted, and then: nothing acknowledged is lost, no offset is given out twice, appends go on, no lock,
 * descriptor, map or block is left, a failed sync stays failed, the store opens in this boot and in another one with
 * everything in it. n grows until a run meets no fault. Imports fault_table.h. */
#define _GNU_SOURCE
#include "fault_table.h"
#include "judge.h"

#include <getopt.h>

enum { UNTOUCHED = 0, STRUCK = 10, SECONDS = 10, NTH_MOST = 5000, MOST_BROKEN = 20 };

enum { ONCE, FOREVER, PAIR, MODES };
static const char *const modes[MODES] = {"once", "forever", "pair"};
static const uint64_t gaps[] = {1, 2, 3, 5, 8, 13, 21};

static bool quiet;

static void one(const work *w, const fault_kind *kind, const fault_plan *plan, const char *base) {
    snprintf(run.path, sizeof run.path, "%s/store", base);
    alarm(SECONDS);
    int descriptors = kit_open_descriptors();
    run_prepare(w);
    fault = *plan;
    fault.kind = kind;
    fault.armed = true;
    w->act();
    fault.armed = false;
    run_judge(w);
    free(run.ledger.entries);
    memset(&run, 0, sizeof run);
    if (fault_blocks != 0 || fault_maps != 0 || kit_open_descriptors() != descriptors)
        REFUSE("left behind: %lld blocks of memory, %lld maps, %d descriptors", (long long)fault_blocks,
               (long long)fault_maps,
               kit_open_descriptors() - descriptors);
    exit(fault.fired > 0 ? STRUCK : UNTOUCHED);
}

/* The exit code of one run; anything but the two good ones has been reported. */
static int fork_one(const work *w, const fault_kind *kind, int mode, const fault_plan *plan) {
    char base[200];
    kit_directory(base, "fault");
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        one(w, kind, plan, base);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (code == UNTOUCHED || code == STRUCK) {
        kit_remove(AT_FDCWD, base);
        return code;
    }
    fprintf(stderr, "FAILED (%s): fault_io -w %s -e %s -m %s -n %llu -g %llu\n  its files are in %s\n",
            WIFSIGNALED(status) ? (WTERMSIG(status) == SIGALRM ? "it hung" : strsignal(WTERMSIG(status))) : "exit code",
                w->name,
            kind->name, modes[mode], (unsigned long long)plan->nth, (unsigned long long)plan->gap, base);
    return code;
}

typedef struct tally {
    unsigned long struck, broken, lanes;
} tally;

/* n grows until a run meets no fault. */
static void lane(const work *w, const fault_kind *kind, int mode, uint64_t only_nth, uint64_t gap, uint64_t stride,
                 tally *t) {
    int code = STRUCK;
    unsigned long before = t->struck;
    for (uint64_t nth = only_nth != 0 ? only_nth : 1; code != UNTOUCHED && t->broken <= MOST_BROKEN; nth += stride) {
        const fault_plan plan = {.nth = nth, .forever = mode == FOREVER, .gap = mode == PAIR ? gap : 0};
        code = fork_one(w, kind, mode, &plan);
        t->struck += code == STRUCK;
        t->broken += code != STRUCK && code != UNTOUCHED;
        CHECK(nth < NTH_MOST);
        if (only_nth != 0)
            break;
    }
    t->lanes += t->struck > before;
}

int main(int argc, char **argv) {
    const char *only_work = NULL, *only_kind = NULL, *only_mode = NULL;
    uint64_t only_nth = 0, only_gap = 0, stride = 1;
    for (int option; (option = getopt(argc, argv, "w:e:m:n:g:s:q")) != -1;) {
        switch (option) {
        case 'w': only_work = optarg; break;
        case 'e': only_kind = optarg; break;
        case 'm': only_mode = optarg; break;
        case 'n': only_nth = strtoull(optarg, NULL, 10); break;
        case 'g': only_gap = strtoull(optarg, NULL, 10); break;
        case 's': stride = strtoull(optarg, NULL, 10); break;
        case 'q': quiet = true; break;
        default: return 2;
        }
    }
    fault_install();
    tally t = {0};
    for (size_t i = 0; i < WORKS; i++) {
        if (only_work != NULL && strcmp(only_work, works[i].name) != 0)
            continue;
        unsigned long before = t.struck;
        for (size_t k = 0; k < FAULT_KINDS; k++) {
            if (only_kind == NULL ? strcmp(fault_kinds[k].name, "heap") == 0
                : strcmp(only_kind, fault_kinds[k].name) != 0)
                continue;
            for (int mode = 0; mode < MODES; mode++) {
                if (only_mode == NULL ? mode == PAIR : strcmp(only_mode, modes[mode]) != 0)
                    continue;
                for (size_t g = 0; g < (mode == PAIR && only_gap == 0 ? sizeof gaps / sizeof *gaps : 1); g++)
                    lane(&works[i], &fault_kinds[k], mode, only_nth, only_gap != 0 ? only_gap : gaps[g], stride, &t);
            }
        }
        if (!quiet)
            printf("%s: %lu faults\n", works[i].name, t.struck - before);
    }
    printf("ok %lu checks: %lu runs met a fault in %lu lanes, %lu broke\n", t.struck, t.struck, t.lanes, t.broken);
    return t.broken == 0 && (t.struck > 0 || only_nth != 0) ? 0 : 1;
}
