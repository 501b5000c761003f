/* What was decided about each transaction of one schedule, and does what was seen of it agree?
 *
 * Imports base.h. Knows nothing of the core: transactions are numbers from 1. What is wrong is told by actors_fail.
 * Lives in the world. */
#ifndef TIDELOG_SCHEDULES_LEDGER_H
#define TIDELOG_SCHEDULES_LEDGER_H

#include "tidelog/base.h"

enum { LEDGER_MOST = 16 };

void ledger_begin(void); /* once, before the world is frozen */

uint32_t ledger_open(void); /* one begins; its number */
void ledger_ask(uint32_t number);    /* its commit is called */
void ledger_commit(uint32_t number); /* the call says that it is committed */
void ledger_refuse(uint32_t number); /* a call says that it is not and will not be */

/* Somebody saw something that only a commit brings. */
void ledger_show(uint32_t number, const char *what);
/* Somebody saw that it is not committed, and that it never can be from there on. */
void ledger_hide(uint32_t number, const char *what);

/* A set with a bit for each whose commit has answered: what begins now sees them. */
uint32_t ledger_committed(void);
/* At the end, everything having been shown that there is: was it committed? */
bool ledger_outcome(uint32_t number);

#endif
