/* What is a step, and what happens at one?
 *
 * Imports roles.h, accesses.h. Places in the code and calls of the system; at fine steps also each access to memory
 * that processes share; waiting and waking, which are calls too. */
#include "accesses.h"
#include "roles.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool actors_fine;
const char *actors_about_to = "access";
static bool actors_blind = true; /* the core was compiled without calls at its accesses */

static void tell(const char *what) {
    if (run.running && actors_current >= 0)
        printf("%6u  actor %d  %s\n", run.points + 1, actors_current, what);
}

/* The actor that runs is about to do something; others may do something before that, or it dies here. */
static void step(const char *what) {
    if (TL_UNLIKELY(actors_loud))
        tell(what);
    actors_note(false);
    run.touched_since_step[actors_current] = false;
    run.steps += actors_blind;
    deviation next;
    if (TL_LIKELY(!actors_deviates(&next, false)))
        return;
    if (next.kind == DEVIATION_KILL) {
        actors_kill(next.actor);
        actors_hand_over();
        abort(); /* the dead do not come back */
    }
    if (next.kind == DEVIATION_TIMEOUT)
        actors_pass_time(the->actors[next.actor].until_ns);
    actors_go_to(next.actor);
}

static bool on_stage(void) { return run.running && actors_current >= 0 && actors_current < run.cast->count; }

/* Places are counted as finely as they can be told apart, whatever is a step in this run: so equal runs are known by
 * their traces. */
static void count_place(void) {
    if (run.touched[actors_current])
        run.steps++;
    run.touched[actors_current] = false;
}

/* Two steps with nothing between them that others could notice are one. */
void actors_mark(const char *what) {
    if (!on_stage())
        return;
    bool due = actors_blind || (actors_fine ? run.touched[actors_current] : run.touched_since_step[actors_current]);
    count_place();
    if (due)
        step(what);
}

void actors_step(const char *what) {
    actors_mark(what);
    if (!on_stage())
        return;
    run.touched[actors_current] = run.touched_since_step[actors_current] = true;
    run.last_load = NULL;
}

/* A load that is repeated while nobody else runs finds the same: spinning is one step. */
void actors_access(const void *at, bool store) {
    actors_blind = false;
    if (!on_stage())
        return;
    bool due = actors_fine && run.touched[actors_current];
    if (store || at != run.last_load) {
        count_place();
        if (due)
            step(actors_about_to);
    }
    run.touched[actors_current] = run.touched_since_step[actors_current] = true;
    run.last_load = store ? NULL : at;
}

/* --- futexes and the clock --- */

int actors_wait(const uint32_t *word, uint32_t value, int64_t timeout_ns) {
    actors_step("futex.wait");
    if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value)
        return -EAGAIN;
    if (!on_stage()) {
        if (timeout_ns < 0)
            actors_fail("the harness would wait for ever");
        the->now_ns += timeout_ns;
        return -ETIMEDOUT;
    }
    role *a = &the->actors[actors_current];
    a->state = WAITING;
    a->word = word;
    a->until_ns = timeout_ns < 0 ? INT64_MAX : the->now_ns + timeout_ns;
    a->order = ++the->waits;
    a->result = 0;
    actors_hand_over();
    return a->result;
}

int actors_wake(const uint32_t *word, int count) {
    actors_step("futex.wake");
    int woken = 0;
    while (woken < count) {
        role *first = NULL;
        for (int i = 0; i < ACTORS; i++) {
            role *a = &the->actors[i];
            if (a->state == WAITING && a->word == word && (first == NULL || a->order < first->order))
                first = a;
        }
        if (first == NULL)
            break;
        first->state = READY;
        first->result = 0;
        woken++;
    }
    return woken;
}

/* Asking takes time, so that a loop that waits by asking ends. */
int64_t actors_now_ns(void) { return the->now_ns += 50; }
uint32_t actors_point(void) { return run.points; }

void actors_forget(int actor) {
    store_inside_fresh(&the->actors[actor].inside);
    the->actors[actor].guard = NULL;
    if (actor == actors_current)
        store_inside_load(&the->actors[actor].inside);
}

bool actors_died(int actor) { return the->actors[actor].state == DEAD; }
