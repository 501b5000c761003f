/* What was sent, acknowledged and seen in one schedule, and does that fit together?
 *
 * Imports base.h. The oracle: it knows nothing of the core but offsets and numbers. A message is known by its number,
 * its text follows from that. What is wrong is told by actors_fail. Lives in the world. */
#ifndef TIDELOG_SCHEDULES_HISTORY_H
#define TIDELOG_SCHEDULES_HISTORY_H

#include "tidelog/base.h"

enum { HISTORY_PARTITIONS = 2, HISTORY_MOST = 128, HISTORY_BYTES = 4096 };

void history_begin(void); /* once, before the world is frozen */
/* Markers of transactions take offsets too, and what stands in the log need not be visible. */
void history_allow_gaps(void);
bool history_has_gaps(void);

/* `count` messages are about to be sent by one call; the first one's number. `whole`: all become visible or none. */
uint32_t history_send(int actor, int partition, uint32_t count, bool whole);
void history_acknowledge(uint32_t first, uint32_t count, int64_t base_offset);
void history_refuse(uint32_t first, uint32_t count); /* they must never be seen */

/* It is visible when this transaction of the ledger is committed, and never else. */
void history_join(uint32_t number, uint32_t transaction);
/* Where a message stands, as far as somebody was told or has seen; -1. */
int64_t history_offset(uint32_t number);
/* At the end, the witness having read everything: does a reader see what stands there? */
bool history_is_visible(int partition, int64_t offset);

/* The text of a message. */
void history_text(uint32_t number, uint8_t *out, uint32_t bytes);
/* Somebody has read this; its number. */
uint32_t history_see(int actor, int partition, int64_t offset, const uint8_t *value, uint32_t bytes);
/* Where there are gaps: an actor begins to read a partition from its start; and at the end it has seen those
 * messages, with a number below `before`, of the transactions in the set `committed`. */
void history_look(int actor, int partition);
void history_demand(int actor, int partition, uint32_t committed, uint32_t before);
uint32_t history_next(void); /* the number of the next message */
/* The end that whoever reads from now on must see at least. */
int64_t history_end(int partition);

/* At the end, [start, end) having been read completely: is everything there, once, in order? */
void history_judge(int partition, int64_t start, int64_t end);

#endif
