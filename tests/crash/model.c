/* How are seeds, names and contents of the model made, and how does a child report what is wrong? Imports model.h. */
#define _GNU_SOURCE
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

model *m;

uint64_t model_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t model_mix(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t state = a;
    state = model_random(&state) ^ b;
    state = model_random(&state) ^ c;
    return model_random(&state);
}

void model_forget_members(void) {
    memset(m->versions, 0, sizeof m->versions);
    memset(m->planned_row, 0, sizeof m->planned_row);
    memset(m->ids, 0, sizeof m->ids);
}

void model_begin_life(uint64_t life, const char *path) {
    for (uint32_t i = 0; i < m->partitions; i++)
        memset(&m->partition[i], 0, sizeof m->partition[i]);
    m->partitions = 0;
    m->life = life;
    m->clock_ms = 1000000;
    m->boot = 0;
    m->commits_made = 0;
    m->transactions = 0;
    m->transactions_boot = 0;
    m->offset_booted = false;
    model_forget_members();
    snprintf(m->path, sizeof m->path, "%s", path);
}

void model_boot(void) {
    m->boot++;
    model_forget_members();
    for (uint32_t i = 0; i < m->partitions; i++)
        m->partition[i].boot_pending = true;
}

model_point *model_point_of(const char *name) {
    for (uint32_t i = 0; i < m->point_count; i++)
        if (strcmp(m->points[i].name, name) == 0)
            return &m->points[i];
    if (m->point_count == MODEL_POINTS)
        return NULL;
    model_point *point = &m->points[m->point_count++];
    snprintf(point->name, sizeof point->name, "%s", name);
    return point;
}

uint32_t model_value_bytes(const model_partition *p, uint32_t sequence) {
    uint64_t r = model_mix(m->life, (uint64_t)(p - m->partition), sequence ^ 0x5aa5u);
    uint32_t kind = (uint32_t)(r % 100), more = (uint32_t)(r >> 32);
    if (kind < 70)
        return 12 + more % 120;
    if (kind < 95)
        return 12 + more % 900;
    return 12 + more % 6000;
}

void model_fill_value(const model_partition *p, uint32_t sequence, uint32_t bytes, uint8_t *out) {
    uint32_t self = (uint32_t)(p - m->partition);
    uint64_t state = model_mix(m->life, self, sequence);
    for (uint32_t i = 12; i < bytes; i += 8) {
        uint64_t r = model_random(&state);
        memcpy(out + i, &r, bytes - i < 8 ? bytes - i : 8);
    }
    memcpy(out, &self, 4);
    memcpy(out + 4, &sequence, 4);
    memcpy(out + 8, &bytes, 4);
}

void model_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "WRONG: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n  while: %s\n", m->doing);
    va_end(arguments);
    _exit(3);
}

void model_doing(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(m->doing, sizeof m->doing, format, arguments);
    va_end(arguments);
    if (m->loud)
        fprintf(stderr, "  %s\n", m->doing);
}

void model_expect_ok(int status, const tl_error *err, const char *what) {
    if (status < 0)
        model_fail("%s: %s (%s; %s; position %lld; errno %d; %s)", what, tl_status_name(status),
                   err->what == NULL ? "" : err->what, err->path, (long long)err->position, err->sys_errno,
                   err->detail);
}
