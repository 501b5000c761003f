/* How do several virtual processes share one thread, and who decides which of them goes on?
 *
 * Imports roles.h, kernel.h, plan.h, world.h. What belongs to an actor is in the world and comes back with it;
 * the plan of a run does not. Contexts are entered by setcontext once and changed by longjmp, which makes no system
 * call. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to go to another stack */
#define _GNU_SOURCE
#include "actors.h"
#include "kernel.h"
#include "plan.h"
#include "roles.h"
#include "world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK_BYTES ((size_t)256 << 10)

int actors_current = -1;
choice *actors_choices;
bool actors_loud;

roles *the;                         /* in the world */
static ucontext_t contexts[ACTORS]; /* made anew for each run, from one that was got once */
static uint8_t *stacks[ACTORS];
static jmp_buf places[ACTORS], home;

running run;

static uint32_t points_usual = 64; /* how long runs are, for random points */

static void mix(uint64_t value) {
    run.outcome.trace = (run.outcome.trace ^ value) * 0x9e3779b97f4a7c15u;
    run.outcome.trace ^= run.outcome.trace >> 29;
}

/* --- whose handles are in force --- */

void actors_be(int next) {
    if (actors_current >= 0) {
        the->actors[actors_current].guard = tl_guard_current;
        store_inside_save(&the->actors[actors_current].inside);
    }
    actors_current = next;
    if (next >= 0) {
        tl_guard_current = the->actors[next].guard;
        store_inside_load(&the->actors[next].inside);
    } else {
        tl_guard_current = NULL;
    }
}

static void end_slice(void) {
    run.last_load = NULL;
    if (run.steps > 0)
        mix((uint64_t)actors_current << 32 | run.steps);
    run.steps = 0;
}

static void body(void);

static void enter(int next) __attribute__((noreturn));
static void enter(int next) {
    actors_be(next);
    role *a = &the->actors[next];
    if (a->started)
        _longjmp(places[next], 1);
    a->started = true;
    makecontext(&contexts[next], body, 0);
    setcontext(&contexts[next]);
    abort();
}

void actors_go_to(int next) {
    end_slice();
    if (next == actors_current)
        return;
    run.outcome.switches++;
    if (actors_current >= 0 && the->actors[actors_current].state <= WAITING && _setjmp(places[actors_current]) != 0)
        return;
    enter(next);
}

static void finish(void) __attribute__((noreturn));
static void finish(void) {
    end_slice();
    actors_be(-1);
    _longjmp(home, 1);
}

void actors_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(run.failure, sizeof run.failure, format, arguments);
    va_end(arguments);
    if (!run.running) {
        fprintf(stderr, "FAILED outside of a schedule: %s\n", run.failure);
        exit(1);
    }
    run.outcome.failed = true;
    actors_be(-1);
    _longjmp(home, 1);
}

/* --- what may happen next --- */

static uint8_t in_state(uint32_t state) {
    uint8_t set = 0;
    for (int i = 0; i < run.cast->count; i++)
        if (the->actors[i].state == state)
            set |= (uint8_t)(1u << i);
    return set;
}

static uint8_t timed(void) {
    uint8_t set = 0;
    for (int i = 0; i < run.cast->count; i++)
        if (the->actors[i].state == WAITING && the->actors[i].until_ns != INT64_MAX)
            set |= (uint8_t)(1u << i);
    return set;
}

static uint8_t mortal(bool forced) {
    if (run.outcome.kills > 0)
        return 0;
    if (!forced)
        return run.cast->mortal & (uint8_t)(1u << actors_current);
    uint8_t set = 0;
    for (int i = 0; i < run.cast->count; i++)
        if (the->actors[i].started && the->actors[i].state <= WAITING)
            set |= (uint8_t)(1u << i);
    return set & run.cast->mortal;
}

void actors_note(bool forced) {
    if (run.points >= run.cast->most_points)
        actors_fail("nobody gets anywhere: %u points", run.points);
    run.points++;
    if (run.note && run.points < ACTORS_CHOICES)
        actors_choices[run.points] = (choice){.forced = forced,
                                              .ran = (uint8_t)actors_current,
                                              .ready = in_state(READY),
                                              .waiting = timed(),
                                              .mortal = mortal(forced)};
}

void actors_pass_time(int64_t until_ns) {
    if (until_ns > the->now_ns)
        the->now_ns = until_ns;
    if (the->now_ns - run.began_ns > run.cast->most_ns)
        actors_fail("somebody hangs: %lld ms have passed", (long long)(the->now_ns - run.began_ns) / 1000000);
    for (int i = 0; i < run.cast->count; i++) {
        role *a = &the->actors[i];
        if (a->state == WAITING && a->until_ns <= the->now_ns) {
            a->state = READY;
            a->result = -ETIMEDOUT;
        }
    }
}

void actors_kill(int victim) {
    if (victim == actors_current)
        end_slice();
    if (actors_loud)
        printf("        actor %d dies\n", victim);
    mix(0xdead00000000u | (unsigned)victim);
    run.outcome.kills++;
    the->actors[victim].state = DEAD;
    kernel_forget(victim);
}

/* The deviation for this point, if there is one that is possible here. */
static bool deviation_at(deviation *out, bool forced) {
    if (run.points == run.next_point) {
        *out = run.plan->deviations[run.next++];
        run.next_point = run.next < run.plan->count ? run.plan->deviations[run.next].point : UINT32_MAX;
        uint8_t bit = (uint8_t)(1u << out->actor);
        if (out->actor >= run.cast->count)
            return false;
        return (out->kind == DEVIATION_SWITCH && (in_state(READY) & bit) != 0) ||
               (out->kind == DEVIATION_TIMEOUT && (timed() & bit) != 0) ||
               (out->kind == DEVIATION_KILL && (mortal(forced) & bit) != 0);
    }
    return false;
}

static int pick(uint8_t set) {
    int nth = (int)(plan_draw(&run.random) % (unsigned)__builtin_popcount(set));
    for (; nth > 0; nth--)
        set &= (uint8_t)(set - 1);
    return __builtin_ctz(set);
}

/* A random deviation, noted in the plan so that the run can be told and repeated. */
static bool deviation_drawn(deviation *out, bool forced) {
    if (run.plan->count == ACTORS_DEVIATIONS)
        return false;
    bool due = false;
    while (run.random_next < run.plan->random_most && run.random_points[run.random_next] <= run.points) {
        due = true;
        run.random_next++;
    }
    uint8_t others = (uint8_t)(in_state(READY) & ~(1u << actors_current));
    uint8_t can_die = mortal(forced), can_time_out = timed();
    if (forced && !due && (__builtin_popcount(others) < 2 || plan_draw(&run.random) % 2 == 0))
        return false;
    if (!forced && !due)
        return false;
    uint64_t dice = plan_draw(&run.random) % 8;
    *out = (deviation){.point = run.points, .kind = DEVIATION_SWITCH};
    if (dice < 2 && can_die != 0) {
        out->kind = DEVIATION_KILL;
        out->actor = (uint8_t)pick(can_die);
    } else if (dice == 2 && can_time_out != 0 && (others != 0 || !forced)) {
        out->kind = DEVIATION_TIMEOUT;
        out->actor = (uint8_t)pick(can_time_out);
    } else if (others != 0) {
        out->actor = (uint8_t)pick(others);
    } else {
        return false;
    }
    run.plan->deviations[run.plan->count++] = *out;
    return true;
}

bool actors_deviates(deviation *out, bool forced) {
    if (TL_LIKELY(run.plan->random == 0 && run.points != run.next_point))
        return false;
    return run.plan->random != 0 ? deviation_drawn(out, forced) : deviation_at(out, forced);
}

/* The actor that ran cannot go on. */
void actors_hand_over(void) {
    for (;;) {
        actors_note(true);
        deviation what;
        if (actors_deviates(&what, true)) {
            if (what.kind == DEVIATION_KILL) {
                actors_kill(what.actor);
                continue;
            }
            if (what.kind == DEVIATION_TIMEOUT)
                actors_pass_time(the->actors[what.actor].until_ns);
            actors_go_to(what.actor);
            return;
        }
        uint8_t ready = in_state(READY);
        if (ready != 0) {
            actors_go_to(__builtin_ctz(ready));
            return;
        }
        uint8_t waiting = in_state(WAITING);
        if (waiting == 0)
            finish();
        int64_t first = INT64_MAX;
        for (int i = 0; i < run.cast->count; i++)
            if (the->actors[i].state == WAITING && the->actors[i].until_ns < first)
                first = the->actors[i].until_ns;
        if (first == INT64_MAX)
            actors_fail("everybody waits for ever");
        run.outcome.all_waited = true;
        if (run.outcome.kills == 0 && !run.cast->waits)
            actors_fail("everybody waits although nobody died: a wake-up was lost");
        actors_pass_time(first);
    }
}

static void body(void) {
    run.cast->act(actors_current);
    the->actors[actors_current].state = ENDED;
    actors_hand_over();
    abort();
}

/* --- runs --- */

void actors_begin(void) {
    the = world_new(sizeof *the);
    the->now_ns = 1000000000;
    actors_choices = calloc(ACTORS_CHOICES, sizeof *actors_choices);
    for (int i = 0; i < ACTORS; i++) {
        stacks[i] = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stacks[i] == MAP_FAILED || actors_choices == NULL || getcontext(&contexts[i]) != 0) {
            perror("actors");
            exit(2);
        }
        contexts[i].uc_stack = (stack_t){.ss_sp = stacks[i], .ss_size = STACK_BYTES};
        store_inside_fresh(&the->actors[i].inside);
    }
}

static void begin_run(const cast *of, plan *made, bool noted) {
    run.cast = of;
    run.plan = made;
    run.note = noted;
    run.next = 0;
    run.next_point = made->count > 0 ? made->deviations[0].point : UINT32_MAX;
    run.points = run.steps = 0;
    run.outcome = (outcome){.trace = 0x243f6a8885a308d3u};
    run.failure[0] = 0;
    memset(run.touched, 0, sizeof run.touched);
    memset(run.touched_since_step, 0, sizeof run.touched_since_step);
    run.last_load = NULL;
    run.random = made->random;
    run.random_next = 0;
    if (made->random != 0)
        plan_draw_points(made, &run.random, points_usual, run.random_points);
}

outcome actors_run(const cast *of, plan *made, bool noted) {
    begin_run(of, made, noted);
    run.began_ns = the->now_ns;
    run.running = true;
    if (_setjmp(home) == 0) {
        actors_current = -1;
        actors_hand_over();
    }
    run.outcome.points = run.points;
    run.outcome.passed_ns = the->now_ns - run.began_ns;
    points_usual = (points_usual * 15 + run.points) / 16 + 1;
    run.running = false;
    return run.outcome;
}

void actors_verify(outcome *of, void (*check)(void)) {
    run.running = true;
    if (_setjmp(home) == 0) {
        actors_be(ACTORS_WITNESS);
        check();
        actors_be(-1);
    }
    run.running = false;
    of->failed |= run.outcome.failed;
}

const char *actors_failure(void) { return run.failure; }

const char *actors_story(void) {
    static char text[2048];
    if (!run.running && run.plan == NULL)
        return "before the first schedule";
    int at = snprintf(text, sizeof text, "in the schedule ");
    plan_text(run.plan, text + at, sizeof text - (size_t)at);
    return text;
}
