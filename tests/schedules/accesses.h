/* What does an access to shared memory tell the actors?
 *
 * Imports actors.h. */
#ifndef TIDELOG_SCHEDULES_ACCESSES_H
#define TIDELOG_SCHEDULES_ACCESSES_H

#include "actors.h"

/* Before a load or store of memory that processes share. */
void actors_access(const void *at, bool store);
extern const char *actors_about_to; /* what a loud run says of it */
extern bool actors_fine; /* every access is a step; otherwise only points, yields and calls of the system are */

#endif
