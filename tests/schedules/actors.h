/* Who runs when, and what happens to who is killed?
 *
 * Imports base.h. Everything happens in one thread of one process. An actor is a process as the core sees it: it has
 * its own handle on the store, descriptors, locks and mutexes, and a stack on which its part of the scenario runs. At
 * each step another one may go on instead. A step is what stands between two looks at shared memory or two calls of the
 * system.
 *
 * A run is described by its deviations. Without any, an actor runs until it ends or waits, then the one with the lowest
 * number that can run goes on, and when all wait, time passes until the first of them times out. Each point at which it
 * could go otherwise has a number, counted from 1 in each run. */
#ifndef TIDELOG_SCHEDULES_ACTORS_H
#define TIDELOG_SCHEDULES_ACTORS_H

#include "tidelog/base.h"

#define ACTORS 6 /* the last one stands by and looks when all others have ended */
#define ACTORS_WITNESS (ACTORS - 1)

enum deviation_kind {
    DEVIATION_SWITCH,  /* another actor goes on */
    DEVIATION_TIMEOUT, /* time passes until another one, which waits, times out */
    DEVIATION_KILL
};

typedef struct deviation {
    uint32_t point;
    uint8_t kind, actor;
} deviation;

/* What could be done at one point. Sets are bit masks of actors. */
typedef struct choice {
    uint8_t forced; /* the actor that ran cannot go on */
    uint8_t ran, ready, waiting, mortal;
} choice;

enum { ACTORS_DEVIATIONS = 64, ACTORS_CHOICES = 1 << 15 };

typedef struct plan {
    deviation deviations[ACTORS_DEVIATIONS];
    uint32_t count;
    uint64_t random; /* not 0: a seed for further deviations, which are added to the plan */
    uint32_t random_most;
} plan;

typedef struct outcome {
    bool failed;
    uint64_t trace;  /* who ran how far, in order: equal for equal runs */
    uint32_t points; /* how many choices there were */
    uint32_t switches, kills;
    bool all_waited;   /* nobody could run, and time had to pass */
    int64_t passed_ns; /* of the clock */
} outcome;

/* What a scenario says about its actors. */
typedef struct cast {
    int count;
    uint8_t mortal;       /* who may be killed */
    bool waits;           /* may all of them wait at once although nobody died? */
    int64_t most_ns;      /* longer on the clock is a hang */
    uint32_t most_points; /* more is a livelock */
    void (*act)(int actor);
} cast;

extern int actors_current;     /* -1: the harness itself */
extern choice *actors_choices; /* what was possible at each point of the last run; filled when `note` was asked for */
extern bool actors_loud;       /* prints each step */

void actors_begin(void); /* once, before the world is frozen */
/* The harness does something in an actor's name, and nothing comes in between. */
void actors_be(int actor);
outcome actors_run(const cast *of, plan *made, bool note);
/* `check` runs as the witness; failures inside end it. */
void actors_verify(outcome *of, void (*check)(void));
bool actors_died(int actor);
void actors_forget(int actor); /* as if its process had never opened anything: after a new boot */

/* --- for the kernel, for hooks, and for scenarios --- */

/* Before something that others may notice, or that notices others; `what` it is. */
void actors_step(const char *what);
/* The same at a place in the code: a step only if there was something to notice since the last one. */
void actors_mark(const char *what);
int actors_wait(const uint32_t *word, uint32_t value, int64_t timeout_ns);
int actors_wake(const uint32_t *word, int count);
int64_t actors_now_ns(void);
uint32_t actors_point(void);

/* Ends the run: what the core does is wrong. */
void actors_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
const char *actors_failure(void);
const char *actors_story(void); /* of the run that is going on: its deviations, as text */

#endif
