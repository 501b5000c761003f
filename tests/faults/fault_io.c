/* What happens when the nth call to the system (or to the heap) fails, once or from then on, in every kind of work?
 *
 *     fault_io [-w WORK] [-e ERROR] [-m once|forever] [-n NTH] [-s STRIDE] [-q]
 *
 * Each run is a forked child: a store is prepared, the fault armed, the work done (each step tried whatever the step before
 * it said), the fault lifted, and then: nothing acknowledged is lost, no offset is given out twice, appends go on, no lock,
 * descriptor, map or block is left, a failed sync stays failed, the store opens in this boot and in another one with
 * everything in it. n grows until a run meets no fault. Imports fault_table.h. */
#define _GNU_SOURCE
#include "fault_table.h"
#include "work.h"

#include <getopt.h>

enum { UNTOUCHED = 0, STRUCK = 10, SECONDS = 10, NTH_MOST = 5000 };

static bool quiet;

static void one(const work *w, const fault_kind *kind, bool forever, uint64_t nth, const char *base) {
    snprintf(run.path, sizeof run.path, "%s/store", base);
    alarm(SECONDS);
    int descriptors = kit_open_descriptors();
    run_prepare(w);
    fault = (fault_plan){.kind = kind, .armed = true, .forever = forever, .nth = nth};
    w->act();
    fault.armed = false;
    run_judge(w);
    free(run.ledger.entries);
    memset(&run, 0, sizeof run);
    if (fault_blocks != 0 || fault_maps != 0 || kit_open_descriptors() != descriptors)
        REFUSE("left behind: %lld blocks of memory, %lld maps, %d descriptors", (long long)fault_blocks, (long long)fault_maps,
               kit_open_descriptors() - descriptors);
    exit(fault.fired > 0 ? STRUCK : UNTOUCHED);
}

/* The exit code of one run; anything but the two good ones has been reported. */
static int fork_one(const work *w, const fault_kind *kind, bool forever, uint64_t nth) {
    char base[200];
    kit_directory(base, "fault");
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        one(w, kind, forever, nth, base);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (code == UNTOUCHED || code == STRUCK) {
        kit_remove(AT_FDCWD, base);
        return code;
    }
    fprintf(stderr, "FAILED (%s): fault_io -w %s -e %s -m %s -n %llu\n  its files are in %s\n",
            WIFSIGNALED(status) ? (WTERMSIG(status) == SIGALRM ? "it hung" : strsignal(WTERMSIG(status))) : "exit code", w->name,
            kind->name, forever ? "forever" : "once", (unsigned long long)nth, base);
    return code;
}

int main(int argc, char **argv) {
    const char *only_work = NULL, *only_kind = NULL, *only_mode = NULL;
    uint64_t only_nth = 0, stride = 1;
    for (int option; (option = getopt(argc, argv, "w:e:m:n:s:q")) != -1;) {
        if (option == 'w')
            only_work = optarg;
        else if (option == 'e')
            only_kind = optarg;
        else if (option == 'm')
            only_mode = optarg;
        else if (option == 'n')
            only_nth = strtoull(optarg, NULL, 10);
        else if (option == 's')
            stride = strtoull(optarg, NULL, 10);
        else if (option == 'q')
            quiet = true;
        else
            return 2;
    }
    fault_install();
    unsigned long struck = 0, broken = 0, lanes = 0;
    for (size_t i = 0; i < WORKS; i++) {
        if (only_work != NULL && strcmp(only_work, works[i].name) != 0)
            continue;
        unsigned long before = struck;
        for (size_t k = 0; k < FAULT_KINDS; k++) {
            bool all = only_kind == NULL && strcmp(fault_kinds[k].name, "heap") != 0;
            if (!all && (only_kind == NULL || strcmp(only_kind, fault_kinds[k].name) != 0))
                continue;
            for (int forever = 0; forever < 2; forever++) {
                if (only_mode != NULL && strcmp(only_mode, forever ? "forever" : "once") != 0)
                    continue;
                uint64_t nth = only_nth != 0 ? only_nth : 1;
                int code = STRUCK;
                for (; code != UNTOUCHED; nth += stride) {
                    code = fork_one(&works[i], &fault_kinds[k], forever != 0, nth);
                    struck += code == STRUCK;
                    broken += code != STRUCK && code != UNTOUCHED;
                    CHECK(nth < NTH_MOST);
                    if (only_nth != 0 || broken > 20)
                        break;
                }
                lanes += struck > before;
            }
        }
        if (!quiet)
            printf("%s: %lu faults\n", works[i].name, struck - before);
        if (broken > 20)
            break;
    }
    printf("ok %lu checks: %lu runs met a fault, %lu broke\n", struck + lanes, struck, broken);
    return broken == 0 && (struck > 0 || only_nth != 0) ? 0 : 1;
}
