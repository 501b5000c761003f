/* Which answers and sights of a transaction go together?
 *
 * Imports ledger.h, actors.h. One that nobody asked to commit is never seen. From the first sight, or from the
 * answer, it is committed for good; from a refusal, or from a look that must have shown it, it never is. What a dead
 * process had asked for may have either end, but one. */
#include "ledger.h"

#include "actors.h"
#include "world.h"

typedef struct entry {
    bool asked, committed, refused, shown, hidden;
} entry;

typedef struct ledger {
    entry entries[LEDGER_MOST];
    uint32_t next;
} ledger;

static ledger *l;

void ledger_begin(void) {
    l = world_new(sizeof *l);
    l->next = 1;
}

uint32_t ledger_open(void) {
    if (l->next == LEDGER_MOST)
        actors_fail("the ledger is full");
    return l->next++;
}

void ledger_ask(uint32_t number) { l->entries[number].asked = true; }

void ledger_commit(uint32_t number) {
    entry *e = &l->entries[number];
    if (e->refused || e->hidden)
        actors_fail("transaction %u is said to be committed, and was %s before", number,
                    e->refused ? "refused" : "seen not to be");
    e->committed = true;
}

void ledger_refuse(uint32_t number) {
    entry *e = &l->entries[number];
    if (e->committed || e->shown)
        actors_fail("transaction %u was refused, and is %s", number, e->shown ? "there" : "said to be committed");
    e->refused = true;
}

void ledger_show(uint32_t number, const char *what) {
    entry *e = &l->entries[number];
    if (!e->asked || e->refused || e->hidden)
        actors_fail("transaction %u %s, and its %s", number,
                    !e->asked    ? "is undecided"
                    : e->refused ? "was refused"
                                 : "was not committed when that was looked at",
                    what);
    e->shown = true;
}

void ledger_hide(uint32_t number, const char *what) {
    entry *e = &l->entries[number];
    if (e->committed || e->shown)
        actors_fail("transaction %u is committed, and its %s", number, what);
    e->hidden = true;
}

uint32_t ledger_committed(void) {
    uint32_t set = 0;
    for (uint32_t i = 1; i < l->next; i++)
        set |= (uint32_t)l->entries[i].committed << i;
    return set;
}

bool ledger_outcome(uint32_t number) { return l->entries[number].committed || l->entries[number].shown; }
