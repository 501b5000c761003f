/* What do the parts of a victim's work share? Imports model.h. One thread.
 *
 * All of them draw from one sequence of dice: a life that is replayed does the same again, call by call. */
#ifndef TIDELOG_CRASH_WORK_H
#define TIDELOG_CRASH_WORK_H

#include "model.h"

/* work.c */
uint32_t work_roll(uint32_t sides);
void work_forget_handle(const model_partition *p);

/* catalogue.c */
void catalogue_create(tl_store *store);
void catalogue_pass(tl_store *store);
void catalogue_drop(tl_store *store, model_partition *p);
void catalogue_configure(tl_store *store, model_partition *p);

/* appends.c */
void appends_some(tl_store *store, model_partition *p);

/* commits.c */
void commits_begin(void);
void commits_one(tl_store *store, model_partition *p);
void commits_of_many_groups(tl_store *store, model_partition *p);

#endif
