/* Which orders of sending, acknowledging and seeing are allowed?
 *
 * Imports history.h, ledger.h, actors.h. An acknowledged message is at its offset; an offset never shows two
 * messages; no message shows twice; messages of one sender stand in the order of their calls, and a call that began
 * after an acknowledgement stands behind what was acknowledged. Those that a dead process was sending may be there
 * or not, whole. Those of a transaction are there when it is committed, all of them, and none else. */
#include "history.h"

#include "actors.h"
#include "ledger.h"
#include "world.h"

enum { UNKNOWN, SENDING, ACKNOWLEDGED, REFUSED };

typedef struct message {
    uint8_t state, partition;
    int8_t actor;
    uint8_t transaction; /* 0: none */
    uint8_t shown;       /* a bit for each actor that saw it in its last look */
    bool whole;
    uint32_t call;  /* the first number of the call that sent it */
    int64_t offset; /* acknowledged, or seen; -1 */
    int64_t behind; /* it stands at or behind this offset */
} message;

typedef struct history {
    message messages[HISTORY_MOST]; /* by number */
    uint32_t next;
    bool gaps;
    uint32_t seen[HISTORY_PARTITIONS][HISTORY_MOST]; /* by offset: a number, 0: nothing yet */
    int64_t end[HISTORY_PARTITIONS];
} history;

static history *h;

void history_begin(void) {
    h = world_new(sizeof *h);
    h->next = 1;
}

void history_allow_gaps(void) { h->gaps = true; }
bool history_has_gaps(void) { return h->gaps; }
uint32_t history_next(void) { return h->next; }

uint32_t history_send(int actor, int partition, uint32_t count, bool whole) {
    uint32_t first = h->next;
    if (first + count > HISTORY_MOST)
        actors_fail("the history is full");
    for (uint32_t i = 0; i < count; i++)
        h->messages[h->next++] = (message){.state = SENDING,
                                           .partition = (uint8_t)partition,
                                           .actor = (int8_t)actor,
                                           .whole = whole,
                                           .call = first,
                                           .offset = -1,
                                           .behind = h->end[partition]};
    return first;
}

static void place(uint32_t number, int partition, int64_t offset) {
    message *m = &h->messages[number];
    if (offset < 0 || offset >= HISTORY_MOST)
        actors_fail("offset %lld cannot be: fewer messages were sent", (long long)offset);
    uint32_t *there = &h->seen[partition][offset];
    if (*there != 0 && *there != number)
        actors_fail("offset %lld has message %u now and had message %u", (long long)offset, number, *there);
    if (m->offset >= 0 && m->offset != offset)
        actors_fail("message %u is at offset %lld and at offset %lld", number, (long long)m->offset, (long long)offset);
    if (offset < m->behind)
        actors_fail("message %u is at offset %lld, but offset %lld was acknowledged before it was sent", number,
                    (long long)offset, (long long)m->behind - 1);
    m->offset = offset;
    *there = number;
}

void history_acknowledge(uint32_t first, uint32_t count, int64_t base_offset) {
    for (uint32_t i = 0; i < count; i++) {
        message *m = &h->messages[first + i];
        m->state = ACKNOWLEDGED;
        place(first + i, m->partition, base_offset + i);
        if (h->end[m->partition] < base_offset + i + 1)
            h->end[m->partition] = base_offset + i + 1;
    }
}

void history_refuse(uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        message *m = &h->messages[first + i];
        if (m->offset >= 0)
            actors_fail("message %u was refused, but is at offset %lld", first + i, (long long)m->offset);
        m->state = REFUSED;
    }
}

void history_join(uint32_t number, uint32_t transaction) { h->messages[number].transaction = (uint8_t)transaction; }

int64_t history_offset(uint32_t number) { return h->messages[number].offset; }

bool history_is_visible(int partition, int64_t offset) {
    uint32_t number = offset >= 0 && offset < HISTORY_MOST ? h->seen[partition][offset] : 0;
    return number != 0 && (h->messages[number].shown >> ACTORS_WITNESS & 1) != 0;
}

void history_text(uint32_t number, uint8_t *out, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(number * 37 + i);
    memcpy(out, &number, bytes < sizeof number ? bytes : sizeof number);
}

uint32_t history_see(int actor, int partition, int64_t offset, const uint8_t *value, uint32_t bytes) {
    uint8_t text[HISTORY_BYTES];
    uint32_t number = 0;
    memcpy(&number, value, bytes < sizeof number ? bytes : sizeof number);
    if (number == 0 || number >= h->next || bytes > sizeof text)
        actors_fail("offset %lld of partition %d shows what nobody sent", (long long)offset, partition);
    history_text(number, text, bytes);
    if (memcmp(text, value, bytes) != 0)
        actors_fail("message %u at offset %lld is torn", number, (long long)offset);
    message *m = &h->messages[number];
    if (m->partition != partition)
        actors_fail("message %u of partition %u is in partition %d", number, m->partition, partition);
    if (m->state == REFUSED)
        actors_fail("message %u at offset %lld was refused", number, (long long)offset);
    if (m->transaction != 0)
        ledger_show(m->transaction, "message is visible");
    place(number, partition, offset);
    m->shown |= (uint8_t)(1u << actor);
    return number;
}

void history_look(int actor, int partition) {
    for (uint32_t number = 1; number < h->next; number++)
        if (h->messages[number].partition == partition)
            h->messages[number].shown &= (uint8_t)~(1u << actor);
}

void history_demand(int actor, int partition, uint32_t committed, uint32_t before) {
    for (uint32_t number = 1; number < before; number++) {
        const message *m = &h->messages[number];
        bool due = m->partition == partition && m->state == ACKNOWLEDGED && m->transaction != 0 &&
                   (committed >> m->transaction & 1) != 0;
        if (due && (m->shown >> actor & 1) == 0)
            actors_fail("message %u of transaction %u was committed, and a reader does not see it", number,
                        m->transaction);
    }
}

int64_t history_end(int partition) { return h->end[partition]; }

/* After the witness has looked at everything. */
static void judge_visible(uint32_t number, const message *m) {
    bool visible = (m->shown >> ACTORS_WITNESS & 1) != 0;
    if (m->state == ACKNOWLEDGED && m->transaction == 0 && !visible)
        actors_fail("message %u was acknowledged and is not there", number);
    if (m->state == ACKNOWLEDGED && m->transaction != 0 && visible != ledger_outcome(m->transaction))
        actors_fail("message %u is %s, and its transaction %u is %scommitted", number, visible ? "there" : "not there",
                    m->transaction, visible ? "not " : "");
}

static void judge_message(uint32_t number, int partition, int64_t start, int64_t end) {
    const message *m = &h->messages[number], *first = &h->messages[m->call];
    if (m->state == ACKNOWLEDGED && m->offset >= end)
        actors_fail("message %u was acknowledged at offset %lld, and the log ends at %lld", number,
                    (long long)m->offset, (long long)end);
    if (m->state == SENDING && m->actor >= 0 && m->actor < ACTORS_WITNESS && !actors_died(m->actor))
        actors_fail("message %u was never answered", number);
    if (m->whole && (m->offset < 0) != (first->offset < 0))
        actors_fail("messages %u and %u were sent in one batch, and one of them is missing", m->call, number);
    if (m->offset >= 0 && m->call != number && h->messages[number - 1].offset >= 0 &&
        m->offset <= h->messages[number - 1].offset)
        actors_fail("messages %u and %u are in the wrong order", number - 1, number);
    for (uint32_t earlier = 1; m->offset >= start && earlier < m->call; earlier++) {
        const message *e = &h->messages[earlier];
        if (e->actor == m->actor && e->partition == partition && e->offset > m->offset)
            actors_fail("messages %u and %u of one sender are in the wrong order", earlier, number);
    }
}

void history_judge(int partition, int64_t start, int64_t end) {
    for (int64_t offset = start; offset < end && !h->gaps; offset++)
        if (offset >= HISTORY_MOST || h->seen[partition][offset] == 0)
            actors_fail("offset %lld is below the end of the log and holds nothing", (long long)offset);
    for (int64_t offset = end; offset < HISTORY_MOST; offset++)
        if (h->seen[partition][offset] != 0)
            actors_fail("offset %lld was seen, and the log ends at %lld", (long long)offset, (long long)end);
    for (uint32_t number = 1; number < h->next; number++)
        if (h->messages[number].partition == partition) {
            judge_message(number, partition, start, end);
            if (h->gaps)
                judge_visible(number, &h->messages[number]);
        }
}
