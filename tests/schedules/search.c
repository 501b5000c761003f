/* How are all schedules with a few preemptions and a death gone through, each once?
 *
 * Imports search.h, world.h, kernel.h. A plan of deviations is run; what could have been done otherwise behind its last
 * deviation gives the plans that are one longer. Choosing among those who can run when the one that ran cannot go on
 * costs nothing; making somebody go on in the place of one who could is a preemption, and so is a time-out that comes
 * while others could run. Runs are told apart by who ran how far: equal ones count once. */
#include "search.h"

#include "accesses.h"
#include "kernel.h"
#include "ledger.h"
#include "plan.h"
#include "scenarios.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SLOTS_FIRST ((size_t)1 << 12)

static const scenario *played;
static search_result *result;
static uint64_t quota_left;
static search_level *level; /* NULL: random ones */

static uint64_t *traces;
static size_t traces_room, traces_used;

static bool put(uint64_t *table, size_t room, uint64_t trace) {
    size_t at = (size_t)trace & (room - 1);
    while (table[at] != 0 && table[at] != trace)
        at = (at + 1) & (room - 1);
    bool fresh = table[at] == 0;
    table[at] = trace;
    return fresh;
}

static bool is_new(uint64_t trace) {
    trace = trace == 0 ? 1 : trace;
    if (2 * traces_used >= traces_room) {
        size_t room = traces_room == 0 ? SLOTS_FIRST : 4 * traces_room;
        uint64_t *grown = calloc(room, sizeof *grown);
        if (grown == NULL) {
            perror("no memory for traces");
            exit(2);
        }
        for (size_t i = 0; i < traces_room; i++)
            if (traces[i] != 0)
                put(grown, room, traces[i]);
        free(traces);
        traces = grown;
        traces_room = room;
    }
    bool fresh = put(traces, traces_room, trace);
    traces_used += fresh;
    return fresh;
}

static void set_stage(const scenario *of) {
    played = of;
    world_begin();
    kernel_begin();
    actors_begin();
    history_begin();
    ledger_begin();
    stage_begin();
    of->prepare();
    actors_be(-1);
    world_freeze();
}

static outcome play(plan *made, bool note) {
    world_reset();
    outcome of = actors_run(&played->cast, made, note);
    if (!of.failed)
        actors_verify(&of, played->verify);
    result->runs++;
    result->points += of.points;
    result->deaths += of.kills;
    return of;
}

/* Leaves out what the failure does not need. */
static void shorten(plan *made) {
    made->random = 0;
    for (uint32_t i = 0; i < made->count;) {
        plan shorter = *made;
        memmove(&shorter.deviations[i], &shorter.deviations[i + 1], (shorter.count - i - 1) * sizeof(deviation));
        shorter.count--;
        if (play(&shorter, false).failed) {
            *made = shorter;
            i = 0;
        } else {
            i++;
        }
    }
    (void)play(made, false); /* its words are those that are told */
}

static void note_failure(const plan *failing) {
    plan made = *failing;
    snprintf(result->failure, sizeof result->failure, "%s", actors_failure());
    plan_text(failing, result->schedule, sizeof result->schedule);
    result->fine = actors_fine;
    shorten(&made);
    if (actors_failure()[0] != 0) {
        snprintf(result->failure, sizeof result->failure, "%s", actors_failure());
        plan_text(&made, result->schedule, sizeof result->schedule);
    }
    result->failed = true;
}

/* False: enough. */
static bool count(const outcome *of, const plan *made) {
    if (of->failed) {
        note_failure(made);
        return false;
    }
    if (is_new(of->trace)) {
        result->different++;
        if (level != NULL)
            level->different++;
        else
            result->random_different++;
        quota_left--;
    }
    return quota_left > 0;
}

static bool go_through(const plan *prefix, unsigned preemptions, unsigned deaths);

static bool go_with(const plan *prefix, uint32_t point, int kind, int actor, unsigned preemptions, unsigned deaths) {
    plan longer = *prefix;
    if (longer.count == ACTORS_DEVIATIONS)
        return true;
    longer.deviations[longer.count++] = (deviation){.point = point, .kind = (uint8_t)kind, .actor = (uint8_t)actor};
    return go_through(&longer, preemptions, deaths);
}

static bool go_each(const plan *prefix, uint32_t point, int kind, unsigned set, unsigned preemptions, unsigned deaths) {
    for (; set != 0; set &= set - 1)
        if (!go_with(prefix, point, kind, __builtin_ctz(set), preemptions, deaths))
            return false;
    return true;
}

/* False: enough. */
static bool go_through(const plan *prefix, unsigned preemptions, unsigned deaths) {
    plan made = *prefix;
    outcome of = play(&made, true);
    bool leaf = preemptions == 0 && deaths == 0;
    if (of.failed || leaf)
        if (!count(&of, &made))
            return false;
    uint32_t from = prefix->count == 0 ? 1 : prefix->deviations[prefix->count - 1].point + 1;
    uint32_t until = of.points < ACTORS_CHOICES ? of.points : ACTORS_CHOICES - 1;
    if (from > until)
        return true;
    choice *choices = malloc((until - from + 1) * sizeof *choices);
    if (choices == NULL) {
        perror("no memory for choices");
        exit(2);
    }
    memcpy(choices, actors_choices + from, (until - from + 1) * sizeof *choices);
    bool more = true;
    for (uint32_t point = from; more && point <= until; point++) {
        const choice *c = &choices[point - from];
        unsigned others = c->forced ? c->ready & (c->ready - 1u) : c->ready & ~(1u << c->ran);
        if (c->forced)
            more = go_each(prefix, point, DEVIATION_SWITCH, others, preemptions, deaths);
        else if (preemptions > 0)
            more = go_each(prefix, point, DEVIATION_SWITCH, others, preemptions - 1, deaths);
        if (more && preemptions > 0 && c->ready != 0)
            more = go_each(prefix, point, DEVIATION_TIMEOUT, c->waiting, preemptions - 1, deaths);
        if (more && deaths > 0)
            more = go_each(prefix, point, DEVIATION_KILL, c->mortal, preemptions, deaths - 1);
    }
    free(choices);
    return more;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now); /* others may be at work on this machine */
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* How many schedules a level has, seen from the smaller ones. Part of a level is no sample of it: the search begins
 * with what deviates early. So a level that is too large is left to the random ones. */
static double expected(const search_level *of) {
    double orders = 1, preempted = 0, died = 0;
    for (const search_level *l = result->levels; l < of; l++) {
        if (l->preemptions + l->deaths == 0)
            orders = (double)l->different;
        else if (l->fine == of->fine && l->preemptions + l->deaths == 1 && l->deaths == 0)
            preempted = (double)l->different;
        else if (l->fine == of->fine && l->preemptions + l->deaths == 1)
            died = (double)l->different;
    }
    if (of->preemptions + of->deaths < 2)
        return 0;
    double sum = orders;
    for (unsigned i = 1; i <= of->preemptions; i++)
        sum *= preempted / orders / i;
    return of->deaths > 0 ? 0.7 * sum * died / orders : 0.7 * sum;
}

void search(const scenario *of, uint64_t quota, uint64_t seed, search_result *out) {
    static const search_level levels[SEARCH_LEVELS] = {
        {.preemptions = 0},
        {.preemptions = 1},
        {.deaths = 1},
        {.preemptions = 1, .fine = true},
        {.deaths = 1, .fine = true},
        {.preemptions = 1, .deaths = 1},
        {.preemptions = 2},
        {.preemptions = 2, .deaths = 1},
        {.preemptions = 1, .deaths = 1, .fine = true},
        {.preemptions = 2, .fine = true},
        {.preemptions = 3},
        {.preemptions = 3, .deaths = 1},
        {.preemptions = 2, .deaths = 1, .fine = true},
    };
    double began = seconds_now();
    result = out;
    set_stage(of);
    memcpy(out->levels, levels, sizeof levels);
    /* A fifth is left for random ones, which go deeper. */
    uint64_t rest = quota - quota / 5;
    for (int i = 0; i < SEARCH_LEVELS && rest > 0 && !out->failed; i++) {
        plan none = {.count = 0};
        level = &out->levels[i];
        if (expected(level) > (double)rest)
            continue;
        actors_fine = level->fine;
        quota_left = rest;
        level->complete = go_through(&none, level->preemptions, level->deaths);
        rest = quota_left;
    }
    actors_fine = true;
    level = NULL;
    quota_left = rest + quota / 5;
    /* Where nearly all schedules are known already, new ones become rare: that is the end too. */
    for (uint64_t tried = 0; quota_left > 0 && !out->failed && tried < 3 * quota; tried++) {
        plan made = {.random = (seed * 0x9e3779b97f4a7c15u + tried * 2 + 1) | 1};
        outcome ended = play(&made, false);
        if (!count(&ended, &made))
            break;
    }
    out->pages = world_pages();
    out->seconds = seconds_now() - began;
}

bool search_replay(const scenario *of, const char *schedule, search_result *out) {
    result = out;
    plan made;
    if (!plan_parse(schedule, &made)) {
        fprintf(stderr, "this is no schedule: %s\n", schedule);
        exit(2);
    }
    set_stage(of);
    outcome ended = play(&made, false);
    out->failed = ended.failed;
    snprintf(out->failure, sizeof out->failure, "%s", actors_failure());
    return ended.failed;
}
