/* What is a life of a store, step by step, and which processes take part in it? Imports model.h. */
#ifndef TIDELOG_CRASH_LIFE_H
#define TIDELOG_CRASH_LIFE_H

#include "model.h"

enum { STEPS = 12, WATCHDOG_SECONDS = 10 };

/* How the store is found by the child of a step. */
enum found { FOUND_SAME = 's', FOUND_BOOT = 'b', FOUND_KEEPER = 'k', FOUND_CLOSED = 'c' };

typedef struct step {
    char found, end; /* end, if it is not killed: 'x' it just dies, 'c' it closes */
    char point[48];
    uint64_t nth, tears;
} step;

typedef struct plan {
    uint64_t life;
    int count;
    step steps[STEPS];
} plan;

/* plan.c: which point, which hit, found how. Points are known once a child came by them. */
void plan_make(plan *made, uint64_t life);
const char *plan_text(const plan *made, int upto); /* what --plan takes; valid until the next call */
bool plan_parse(char *text, plan *out);

/* children.c: what the processes do; none of them returns. */
__attribute__((noreturn)) void child_run(const step *s, uint64_t seed);
__attribute__((noreturn)) void child_look(void);
__attribute__((noreturn)) void child_keep(int in, int out); /* writes a byte when it is in; 'c' on `in`: close */

#endif
