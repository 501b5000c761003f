/* What do those who run the actors know of them?
 *
 * Private to actors.c and steps.c. Imports actors.h, store_inside.h, guard.h. */
#ifndef TIDELOG_SCHEDULES_ROLES_H
#define TIDELOG_SCHEDULES_ROLES_H

#include "actors.h"
#include "store_inside.h"
#include "tidelog/guard.h"

enum { READY, WAITING, ENDED, DEAD };

typedef struct role {
    uint32_t state;
    bool started;
    int result; /* of its wait */
    const uint32_t *word;
    int64_t until_ns;
    uint64_t order; /* whoever waits longest is woken first */
    tl_guard *guard;
    store_inside inside;
} role;

typedef struct roles {
    role actors[ACTORS];
    int64_t now_ns;
    uint64_t waits;
} roles;

/* Of the run that is going on. */
typedef struct running {
    const cast *cast;
    plan *plan;
    bool note, running;
    uint32_t next; /* of the plan's deviations */
    uint32_t next_point;
    uint32_t points;
    uint32_t steps; /* places the actor that runs came by since it went on */
    outcome outcome;
    int64_t began_ns;
    uint64_t random;
    uint32_t random_points[ACTORS_DEVIATIONS], random_next;
    bool touched[ACTORS], touched_since_step[ACTORS]; /* did it do what others can notice since the last place, step? */
    const void *last_load;
    char failure[1024];
} running;

extern roles *the; /* in the world */
extern running run;

/* Counts and notes one more point. */
void actors_note(bool forced);
/* Is there a deviation at this point? */
bool actors_deviates(deviation *out, bool forced);
void actors_kill(int victim);
/* Another one goes on; returns when this one does. */
void actors_go_to(int next);
/* The same when the one that ran cannot go on. */
void actors_hand_over(void);
void actors_pass_time(int64_t until_ns);

#endif
