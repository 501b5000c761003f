/* Which schedules of a scenario are tried, how many were different, and which one fails?
 *
 * Imports stage.h. Single-threaded; one search in a process. */
#ifndef TIDELOG_SCHEDULES_SEARCH_H
#define TIDELOG_SCHEDULES_SEARCH_H

#include "stage.h"

#define SEARCH_LEVELS 13

/* All schedules with exactly so many preemptions and deaths, or as many of them as the quota allowed. */
typedef struct search_level {
    unsigned preemptions, deaths;
    bool fine; /* every access to shared memory is a step */
    uint64_t different;
    bool complete;
} search_level;

typedef struct search_result {
    uint64_t runs, different, random_different;
    uint64_t points; /* of all runs */
    search_level levels[SEARCH_LEVELS];
    uint64_t deaths, timeouts;
    double seconds;
    size_t pages;
    bool failed, fine;
    char failure[1024], schedule[1024];
} search_result;

/* Prepares the scenario and tries `quota` different schedules: level by level, then random ones from `seed`. Stops at
 * the first that fails, with the smallest plan that still does. */
void search(const scenario *of, uint64_t quota, uint64_t seed, search_result *out);
/* One schedule; true: it fails. */
bool search_replay(const scenario *of, const char *schedule, search_result *out);

#endif
