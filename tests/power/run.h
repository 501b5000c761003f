/* Where in a run is this process, what has the run counted, and how does a failure say how to come back here?
 *
 * Imports disk.h, history.h. Single-threaded; the tally is shared by all processes of a run, the rest is this one's own. */
#ifndef TIDELOG_POWER_RUN_H
#define TIDELOG_POWER_RUN_H

#include "disk.h"
#include "history.h"

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
static uint64_t rare_events[16];           /* of a recovery that puts bytes aside: the moments worth a cut */
static int rare_count;
static uint32_t hits[POINTS];
static char hit_names[POINTS][40];
static double cut_rate = 1;
static bool transactional; /* transactions too */
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
    fprintf(stderr, "  %s; to see it again: %s%s%spower_model --seed %llu%s --replay %s\n", where, *bug ? "TL_BUG=" : "",
            bug, *bug ? " " : "", (unsigned long long)seed, transactional ? " --transactions 1" : "", text);
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

#endif
