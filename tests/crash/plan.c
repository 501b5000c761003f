/* Where does the child of a step die, and how is a plan written down? Imports life.h. */
#define _GNU_SOURCE
#include "life.h"

#include <stdio.h>
#include <stdlib.h>

const char *plan_text(const plan *made, int upto) {
    static char text[4096];
    size_t used = 0;
    for (int i = 0; i <= upto && i < made->count; i++) {
        const step *s = &made->steps[i];
        int more =
            snprintf(text + used, sizeof text - used, "%s%c:%c:%s:%llu:%llu", i == 0 ? "" : ",", s->found, s->end,
                     s->point[0] == 0 ? "-" : s->point, (unsigned long long)s->nth, (unsigned long long)s->tears);
        used += (size_t)more;
    }
    return text;
}

bool plan_parse(char *text, plan *out) {
    out->count = 0;
    for (char *part = strtok(text, ","); part != NULL; part = strtok(NULL, ",")) {
        if (out->count == STEPS)
            return false;
        step *s = &out->steps[out->count++];
        unsigned long long nth, tears;
        if (sscanf(part, "%c:%c:%47[^:]:%llu:%llu", &s->found, &s->end, s->point, &nth, &tears) != 5)
            return false;
        s->nth = nth;
        s->tears = tears;
        if (strcmp(s->point, "-") == 0)
            s->point[0] = 0;
    }
    return out->count > 0;
}

/* How many of a hundred children meet a point at all. */
static uint64_t chance(const model_point *point) { return m->children == 0 ? 100 : point->runs * 100 / m->children; }

static bool begins(const char *name, const char *prefix) { return strncmp(name, prefix, strlen(prefix)) == 0; }

static bool torn(const step *s) {
    return s->tears != 0 && (strcmp(s->point, "append.copied") == 0 || strcmp(s->point, "append_many.copied") == 0 ||
                             strcmp(s->point, "append.reserved") == 0);
}

/* What the death of the step before, or the way the store is found, gives a child to do that it seldom does else. */
static bool fits(const model_point *point, const step *s, const step *before) {
    if (s->found == FOUND_BOOT && before != NULL && torn(before))
        return begins(point->name, "recover.torn") || begins(point->name, "recover.scanned");
    if (s->found == FOUND_BOOT)
        return begins(point->name, "recover.") || begins(point->name, "offsets.reset") ||
               begins(point->name, "shared.") || begins(point->name, "checkpoint.recover");
    if (before == NULL)
        return begins(point->name, "checkpoint.create") || begins(point->name, "shared.") ||
               begins(point->name, "ready.");
    if (begins(before->point, "append") || begins(before->point, "roll") || begins(before->point, "segment"))
        return begins(point->name, "repair.") || begins(point->name, "lock.");
    if (begins(before->point, "groups.") && s->found == FOUND_KEEPER)
        return begins(point->name, "groups.lock") || begins(point->name, "groups.sweep");
    if (begins(before->point, "sync.") && s->found == FOUND_KEEPER)
        return begins(point->name, "sync.lock") || begins(point->name, "sync.dirtied");
    if (begins(before->point, "catalogue.") || begins(before->point, "drop.") || begins(before->point, "leftovers."))
        return begins(point->name, "leftovers.") || begins(point->name, "catalogue.way");
    return begins(before->point, "checkpoint.s") &&
           (begins(point->name, "checkpoint.snapshot") || begins(point->name, "records.snapshot"));
}

/* Mostly the point of a few that was met least; the nth hit is one that the child probably lives to see. */
static void choose_point(step *s, const step *before, uint64_t *dice) {
    if (m->point_count == 0)
        return;
    const model_point *best = NULL;
    bool special =
        before != NULL && (begins(before->point, "checkpoint.s") || begins(before->point, "sync.") || torn(before));
    bool follow = model_random(dice) % 100 < (special ? 80 : 40);
    for (int tries = 0; tries < 400 && follow && best == NULL; tries++) {
        const model_point *one = &m->points[model_random(dice) % m->point_count];
        if (fits(one, s, before))
            best = one;
    }
    for (int i = 0, found = 0; best == NULL || (!follow && i < 200 && found < 4); i++) {
        const model_point *other = &m->points[model_random(dice) % m->point_count];
        follow = false;
        if (model_random(dice) % 100 >= chance(other) + 4 && i < 200)
            continue;
        found++;
        if (best == NULL || other->kills < best->kills)
            best = other;
    }
    uint64_t usual = best->runs == 0 ? 1 : best->hits / best->runs;
    usual = usual < 1 ? 1 : usual > 60 ? 60 : usual;
    snprintf(s->point, sizeof s->point, "%s", best->name);
    s->nth = 1 + model_random(dice) % usual;
    s->tears = model_random(dice) % 2 == 0 ? 0 : model_random(dice) | 1;
    if (begins(s->point, "close."))
        s->end = 'c';
}

void plan_make(plan *made, uint64_t life) {
    uint64_t dice = life;
    memset(made, 0, sizeof *made);
    made->life = life;
    made->count = 4 + (int)(model_random(&dice) % 7);
    for (int i = 0; i < made->count; i++) {
        step *s = &made->steps[i];
        uint32_t how = (uint32_t)(model_random(&dice) % 100);
        bool kept = i > 0 && made->steps[i - 1].found == FOUND_KEEPER;
        s->found = how < 25           ? FOUND_BOOT
                   : how < 45         ? FOUND_KEEPER
                   : how < 60 && kept ? FOUND_CLOSED
                   : kept && how < 80 ? FOUND_KEEPER
                                      : FOUND_SAME;
        if (i > 0 && torn(&made->steps[i - 1]) && model_random(&dice) % 2 == 0)
            s->found = FOUND_BOOT;
        if (i > 0 && begins(made->steps[i - 1].point, "checkpoint.sync.") && s->found != FOUND_KEEPER)
            s->found = FOUND_SAME;
        if (i > 0 && begins(made->steps[i - 1].point, "sync.") && kept)
            s->found = FOUND_KEEPER;
        s->end = model_random(&dice) % 2 == 0 ? 'x' : 'c';
        if (i < made->count - 2)
            choose_point(s, i == 0 ? NULL : &made->steps[i - 1], &dice);
    }
    made->steps[0].found = FOUND_SAME;
    made->steps[made->count - 2].found =
        made->steps[made->count - 2].found == FOUND_KEEPER ? FOUND_SAME : made->steps[made->count - 2].found;
    made->steps[made->count - 1].found = FOUND_SAME;
}
