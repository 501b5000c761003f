/* What is a plan of deviations as text, and how is one drawn at random?
 *
 * Imports actors.h. Pure functions. */
#ifndef TIDELOG_SCHEDULES_PLAN_H
#define TIDELOG_SCHEDULES_PLAN_H

#include "actors.h"

void plan_text(const plan *made, char *out, size_t room);
bool plan_parse(const char *text, plan *made); /* false: this is none */

/* splitmix64: every seed is a good one. */
uint64_t plan_draw(uint64_t *state);
void plan_draw_points(plan *made, uint64_t *state, uint32_t usual, uint32_t points[ACTORS_DEVIATIONS]);

#endif
