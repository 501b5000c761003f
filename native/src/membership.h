/* What do the files that work on the table of consumer groups share?
 *
 * Private to groups.c, assignment.c, sweep.c, deaths.c. Imports groups.h, handles.h. */
#ifndef TIDELOG_SRC_MEMBERSHIP_H
#define TIDELOG_SRC_MEMBERSHIP_H

#include "handles.h"
#include "tidelog/groups.h"

/* --- groups.c --- */
uint32_t tl_groups_used(const tl_store *store);                      /* bounds of the rows ever used */
uint32_t tl_members_used(const tl_store *store);
tl_group_row *tl_groups_row(tl_store *store, uint32_t row);          /* NULL: no such row */
/* *turned: it was taken from the dead and all groups have turned, which the caller hands on to the unlock. */
int tl_groups_lock(tl_store *store, bool *turned, tl_error *err);
void tl_groups_repair(tl_store *store);                              /* after a take-over, under the lock */
void tl_groups_unlock(tl_store *store, bool turned);                 /* turned: wakes everybody */
void tl_member_remove(tl_store *store, tl_member_row *row, bool away); /* under the lock */

#endif
