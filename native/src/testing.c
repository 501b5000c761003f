/* How does a test build fail, stop, watch and break the core?
 *
 * Imports os.h. Empty in release builds. Callable from any thread; hooks and entries of the table are set before the
 * threads that meet them start. It talks to the system through tl_io_posix, so that a fault a test put into the table
 * does not hit the tools that look at it. */
#ifdef TL_TEST

#define _POSIX_C_SOURCE 200809L

#include "tidelog/os.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

tl_io tl_os_table;
void (*tl_point_hook)(const char *name);
void (*tl_yield_hook)(void);
void (*tl_between_hook)(void);
int tl_bug = TL_BUG_NONE;

/* About 80 points exist; a power of two well above that keeps the probes short. */
#define POINTS 512

/* A counter is claimed once, by a compare-and-swap of its name, and never given back. */
typedef struct counter {
    const char *name;
    uint64_t hits;
} counter;

static counter counters[POINTS];

/* One signal at the nth hit of one point. */
typedef struct trigger {
    char name[64]; /* "" never fires */
    uint64_t nth;
} trigger;

static trigger crash_at, stop_at;
static const char *log_path;

__attribute__((format(printf, 1, 2), noreturn)) static void refuse(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("tidelog: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* Names are compared by their bytes: the same literal has a different address in every file that uses it. */
static counter *counter_of(const char *name, bool claim) {
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p != 0; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    for (uint32_t probe = 0; probe < POINTS; probe++) {
        counter *candidate = &counters[(hash + probe) % POINTS];
        const char *owner = __atomic_load_n(&candidate->name, __ATOMIC_ACQUIRE);
        if (owner == NULL && !claim)
            return NULL;
        if (owner == NULL && __atomic_compare_exchange_n(&candidate->name, &owner, name, false, __ATOMIC_ACQ_REL,
                                                         __ATOMIC_ACQUIRE))
            return candidate;
        if (owner == name || strcmp(owner, name) == 0)
            return candidate;
    }
    return NULL;
}

static void log_first_hit(const char *name) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s\n", name);
    if (length < 0 || length >= (int)sizeof line)
        refuse("the point name \"%s\" is too long for the log; keep it under %zu bytes", name, sizeof line - 1);
    int fd = tl_io_posix.open(AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (fd < 0)
        refuse("TL_POINT_LOG=%s cannot be opened (errno %d); name a writable file", log_path, -fd);
    /* One write of a file in append mode: lines of several processes do not mix, whatever position is given. */
    int64_t written = tl_io_posix.pwrite(fd, line, (size_t)length, 0);
    if (written < 0)
        refuse("TL_POINT_LOG=%s cannot be written (errno %d)", log_path, (int)-written);
    tl_io_posix.close(fd);
}

static bool fires(const trigger *armed, const char *name, uint64_t hit) {
    return armed->nth == hit && strcmp(armed->name, name) == 0;
}

void tl_point_hit(const char *name) {
    counter *point = counter_of(name, true);
    if (point == NULL)
        refuse("more than %d points; raise POINTS in testing.c", POINTS);
    uint64_t hit = __atomic_add_fetch(&point->hits, 1, __ATOMIC_RELAXED);
    if (hit == 1 && log_path != NULL)
        log_first_hit(name);
    void (*hook)(const char *) = __atomic_load_n(&tl_point_hook, __ATOMIC_ACQUIRE);
    if (hook != NULL)
        hook(name);
    if (fires(&stop_at, name, hit))
        raise(SIGSTOP); /* stops every thread of the process */
    if (fires(&crash_at, name, hit))
        raise(SIGKILL);
}

uint64_t tl_point_hits(const char *name) {
    const counter *point = counter_of(name, false);
    return point == NULL ? 0 : __atomic_load_n(&point->hits, __ATOMIC_RELAXED);
}

const char *tl_bug_name(int bug) {
#define BUG_TEXT(name) #name,
    static const char *const names[] = {"NONE", TL_BUG_LIST(BUG_TEXT)};
#undef BUG_TEXT
    return bug >= 0 && bug < TL_BUG_COUNT ? names[bug] : "?";
}

static void parse_bug(void) {
    const char *wanted = getenv("TL_BUG");
    if (wanted == NULL || wanted[0] == 0)
        return;
    for (int bug = 0; bug < TL_BUG_COUNT; bug++) {
        if (strcmp(wanted, tl_bug_name(bug)) == 0) {
            tl_bug = bug;
            return;
        }
    }
    refuse("TL_BUG=%s is not the name of a bug; TL_BUG_LIST in os.h has them all", wanted);
}

static void parse_trigger(const char *variable, trigger *out) {
    const char *text = getenv(variable);
    if (text == NULL || text[0] == 0)
        return;
    const char *colon = strrchr(text, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - text);
    char *end = NULL;
    unsigned long long nth = colon == NULL || colon[1] < '1' || colon[1] > '9' ? 0 : strtoull(colon + 1, &end, 10);
    if (nth == 0 || *end != 0 || length == 0 || length >= sizeof out->name)
        refuse("%s=%s is not of the form name:nth with nth >= 1", variable, text);
    memcpy(out->name, text, length);
    out->name[length] = 0;
    out->nth = nth;
}

/* "The nth hit" is counted per process, so a child does not inherit its parent's hits. It has one thread here. */
static void forget_hits(void) {
    for (int i = 0; i < POINTS; i++)
        __atomic_store_n(&counters[i].hits, 0, __ATOMIC_RELAXED);
}

/* The first priority that user code may have: constructors of tests already find the table filled. */
__attribute__((constructor(101))) static void prepare(void) {
    tl_os_table = tl_io_posix;
    parse_bug();
    parse_trigger("TL_CRASH", &crash_at);
    parse_trigger("TL_STOP", &stop_at);
    const char *path = getenv("TL_POINT_LOG");
    log_path = path != NULL && path[0] != 0 ? path : NULL;
    pthread_atfork(NULL, NULL, forget_hits);
}

#else

/* ISO C wants a declaration in every translation unit. */
typedef int tl_testing_is_empty;

#endif
