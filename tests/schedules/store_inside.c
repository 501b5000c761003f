/* How is what store.c keeps for a whole process exchanged when another virtual process goes on?
 *
 * Imports store.c itself, whose statics are not reachable otherwise; the core's archive then contributes none of it. */
#include "store.c"

#include "store_inside.h"

void store_inside_fresh(store_inside *inside) {
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    inside->registry = NULL;
    inside->registry_mutex = fresh;
}

/* Nobody waits for the mutex, ever: there is one thread. So it may be copied. */
void store_inside_save(store_inside *inside) {
    inside->registry = registry;
    inside->registry_mutex = registry_mutex;
}

void store_inside_load(const store_inside *inside) {
    registry = inside->registry;
    registry_mutex = inside->registry_mutex;
}
