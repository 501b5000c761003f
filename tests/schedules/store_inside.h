/* What of the core belongs to a process but to none of its handles?
 *
 * Imports base.h, pthread.h. The registry of open stores and its mutex are static in store.c. Actors are processes of
 * their own, so each has its own: they are exchanged whenever another one goes on. */
#ifndef TIDELOG_SCHEDULES_STORE_INSIDE_H
#define TIDELOG_SCHEDULES_STORE_INSIDE_H

#include "tidelog/base.h"

#include <pthread.h>

typedef struct store_inside {
    void *registry;
    pthread_mutex_t registry_mutex;
} store_inside;

void store_inside_fresh(store_inside *inside);
void store_inside_save(store_inside *inside);
void store_inside_load(const store_inside *inside);

#endif
