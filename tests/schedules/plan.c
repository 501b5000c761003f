/* How is a plan written, read, and drawn?
 *
 * Imports plan.h, libc. Pure functions. A deviation is written POINT>ACTOR (it goes on), POINT~ACTOR (it times out) or
 * POINTxACTOR (it dies). */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>

uint64_t plan_draw(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Where to deviate: in runs of about `usual` points, and in order. */
void plan_draw_points(plan *made, uint64_t *state, uint32_t usual, uint32_t points[ACTORS_DEVIATIONS]) {
    made->count = 0;
    made->random_most = 1 + (uint32_t)(plan_draw(state) % 6);
    for (uint32_t i = 0; i < made->random_most; i++) {
        uint32_t at = 1 + (uint32_t)(plan_draw(state) % usual), k = i;
        for (; k > 0 && points[k - 1] > at; k--)
            points[k] = points[k - 1];
        points[k] = at;
    }
}

static const char kinds[] = {'>', '~', 'x'};

void plan_text(const plan *made, char *out, size_t room) {
    size_t at = 0;
    out[0] = 0;
    if (made->count == 0)
        snprintf(out, room, "-");
    for (uint32_t i = 0; i < made->count && at + 16 < room; i++) {
        const deviation *d = &made->deviations[i];
        at += (size_t)snprintf(out + at, room - at, "%s%u%c%u", i == 0 ? "" : ",", d->point, kinds[d->kind], d->actor);
    }
}

bool plan_parse(const char *text, plan *made) {
    *made = (plan){.count = 0};
    if (strcmp(text, "-") == 0)
        return true;
    while (*text != 0 && made->count < ACTORS_DEVIATIONS) {
        char *end, kind;
        deviation *d = &made->deviations[made->count++];
        d->point = (uint32_t)strtoul(text, &end, 10);
        kind = *end;
        const char *found = end == text || kind == 0 ? NULL : memchr(kinds, kind, sizeof kinds);
        if (found == NULL)
            return false;
        d->kind = (uint8_t)(found - kinds);
        text = end + 1;
        d->actor = (uint8_t)strtoul(text, &end, 10);
        if (end == text || (*end != 0 && *end != ','))
            return false;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}
