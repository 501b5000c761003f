/* Does a fenced owner ever commit, is half a word or text ever read, and what does a process killed anywhere leave?
 *
 * timeout_s: 180
 * Imports offsets.h, os.h. Several processes with several threads each on one table in the current directory. */
#define _GNU_SOURCE 1
#include "check.h"
#include "tidelog/offsets.h"
#include "tidelog/os.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 3, LEASES = 1 << 16, PROCESSES = 3, THREADS = 2 };

/* For several threads at once: CHECK's counter is for one. */
#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static int dir;
static tl_error err;
static uint32_t slots[SLOTS];

/* What every lease did, written by its holder; in memory shared by the processes. The history of one slot is a chain:
 * the offset that claim e + 1 found must be the last one that lease e was told it had committed. */
typedef struct history {
    uint32_t owner[LEASES];
    int64_t start[LEASES];      /* the offset the claim found, + 2; 0: not written yet */
    int64_t last[LEASES];       /* the last offset committed with success, + 2; 0: none */
    int64_t attempted[LEASES];  /* a commit under way when its process was killed may have happened, + 2 */
} history;

typedef struct shared_state {
    history slot[SLOTS];
    uint64_t claims, commits, fenced, reads, torn, regressed;
    uint32_t next_owner, stop;
} shared_state;

static shared_state *shared;

static void add(uint64_t *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED); }

/* Commits of lease e are e << 32 | n: an offset names its lease. */
static void look(const tl_offsets *t, uint32_t s, tl_offset_word *before) {
    tl_offset_word w;
    REQUIRE(tl_offsets_read(t, slots[s], &w, NULL) == TL_OK);
    add(&shared->reads);
    if (w.epoch >= LEASES)
        return;
    const history *h = &shared->slot[s];
    uint32_t owner = __atomic_load_n(&h->owner[w.epoch], __ATOMIC_ACQUIRE);
    int64_t start = __atomic_load_n(&h->start[w.epoch], __ATOMIC_ACQUIRE);
    uint64_t wrote = w.offset < 0 ? 0 : (uint64_t)w.offset >> 32;
    bool torn = wrote > w.epoch || (w.owner != 0 && owner != 0 && w.owner != owner);
    torn |= wrote < w.epoch && start != 0 && w.offset != start - 2;
    if (torn)
        add(&shared->torn);
    if (before->epoch == w.epoch && w.offset < before->offset)
        add(&shared->regressed);
    *before = w;
}

static void *work(void *argument) {
    tl_offsets *t = argument;
    uint32_t owner = __atomic_add_fetch(&shared->next_owner, 1, __ATOMIC_RELAXED), held[SLOTS] = {0};
    uint64_t seed = owner * 7919u;
    int64_t n[SLOTS] = {0};
    tl_offset_word before[SLOTS];
    for (uint32_t s = 0; s < SLOTS; s++)
        before[s] = (tl_offset_word){.offset = INT64_MIN};
    while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        uint32_t s = (uint32_t)(check_random(&seed) % SLOTS), epoch;
        history *h = &shared->slot[s];
        look(t, s, &before[s]);
        if (held[s] == 0 || check_random(&seed) % 64 == 0) {
            tl_offset_word w = before[s];
            if (w.epoch >= LEASES - 2)
                return NULL;
            if (w.owner != 0 && check_random(&seed) % 8 != 0)
                continue; /* mostly wait for a release, sometimes rob */
            if (tl_offsets_claim(t, slots[s], w, owner, &epoch) != TL_OK)
                continue;
            REQUIRE(epoch == w.epoch + 1);
            __atomic_store_n(&h->owner[epoch], owner, __ATOMIC_RELEASE);
            __atomic_store_n(&h->start[epoch], w.offset + 2, __ATOMIC_RELEASE);
            held[s] = epoch;
            n[s] = 0;
            add(&shared->claims);
        }
        for (uint64_t i = check_random(&seed) % 40; i > 0 && held[s] != 0; i--) {
            int64_t offset = (int64_t)((uint64_t)held[s] << 32 | (uint64_t)++n[s]);
            h->attempted[held[s]] = offset + 2;
            int rc = tl_offsets_commit(t, slots[s], owner, held[s], offset, 1);
            if (rc == TL_OK) {
                h->last[held[s]] = offset + 2;
                add(&shared->commits);
            } else {
                REQUIRE(rc == TL_EFENCED);
                add(&shared->fenced);
                held[s] = 0;
            }
        }
        if (held[s] != 0 && check_random(&seed) % 4 == 0) {
            int rc = tl_offsets_release(t, slots[s], owner, held[s]);
            REQUIRE(rc == TL_OK || rc == TL_EFENCED);
            held[s] = 0;
        }
    }
    return NULL;
}

/* Lets others run in the middle of things, now and then. */
static void shake(void) {
    static __thread uint64_t seed;
    if (seed == 0)
        seed = (uint64_t)(uintptr_t)&seed ^ (uint64_t)getpid();
    if (check_random(&seed) % 128 == 0)
        sched_yield();
}

static pid_t start_worker(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child != 0)
        return child;
    tl_offsets *t;
    pthread_t threads[THREADS];
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_OK);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, t) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    tl_offsets_close(t);
    _exit(0);
}

static tl_offsets *fresh_table(void) {
    tl_offsets *t;
    uint32_t g;
    uint8_t id[16] = {1};
    CHECK(tl_offsets_open(dir, TL_OFFSETS_RESET, &t, &err) == TL_OK);
    CHECK(tl_offsets_group(t, "group", 5, true, &g, &err) == TL_OK);
    for (uint32_t s = 0; s < SLOTS; s++)
        CHECK(tl_offsets_slot(t, g, id, s, true, &slots[s], &err) == TL_OK);
    return t;
}

/* Breaks in the chains of claims, plus torn and regressed reads. `kills`: how many processes die on the way. */
static uint64_t contend(unsigned kills, unsigned seconds_of_10) {
    memset(shared, 0, sizeof *shared);
    tl_offsets *t = fresh_table();
    pid_t children[PROCESSES];
    uint64_t seed = 17, broken = 0;
    for (int i = 0; i < PROCESSES; i++)
        children[i] = start_worker();
    for (unsigned i = 0; i < kills; i++) {
        int victim = (int)(check_random(&seed) % PROCESSES);
        usleep((unsigned)(check_random(&seed) % 5000));
        CHECK(kill(children[victim], SIGKILL) == 0 && waitpid(children[victim], NULL, 0) == children[victim]);
        children[victim] = start_worker();
    }
    usleep(seconds_of_10 * 100000);
    __atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (uint32_t s = 0; s < SLOTS; s++) {
        tl_offset_word w;
        const history *h = &shared->slot[s];
        CHECK(tl_offsets_read(t, slots[s], &w, NULL) == TL_OK && w.epoch > 0 && w.epoch < LEASES);
        for (uint32_t e = 1; e <= w.epoch; e++) {
            int64_t found = e == w.epoch ? w.offset + 2 : h->start[e + 1];
            int64_t told = h->last[e] != 0 ? h->last[e] : h->start[e];
            if (found == 0 || h->start[e] == 0) {
                CHECK(kills > 0); /* killed between the claim and its note */
                continue;
            }
            broken += found != told && !(kills > 0 && found == h->attempted[e]);
        }
    }
    tl_offsets_close(t);
    CHECK(shared->claims > 100 && shared->commits > 1000 && shared->reads > 1000);
    if (tl_bug == TL_BUG_NONE && broken + shared->torn + shared->regressed > 0)
        fprintf(stderr, "%llu claims found another offset than was committed last, %llu torn reads, %llu regressions\n",
                (unsigned long long)broken, (unsigned long long)shared->torn, (unsigned long long)shared->regressed);
    return broken + shared->torn + shared->regressed;
}

static void check_words(void) {
    CHECK(contend(0, 15) == 0);
    CHECK(shared->fenced > 20);
    printf("%llu claims, %llu commits, %llu fenced; ", (unsigned long long)shared->claims,
           (unsigned long long)shared->commits,
           (unsigned long long)shared->fenced);
    CHECK(contend(150, 2) == 0);
    tl_bug = TL_BUG_ZOMBIE_COMMIT_ACCEPTED;
    CHECK(contend(0, 5) > 0); /* the checker can see */
    tl_bug = TL_BUG_NONE;
}

/* --- a process killed at each point --- */

static const char *const points[] = {
    "offsets.group.begun", "offsets.slot.filled", "offsets.slot.published", "offsets.slot.indexed",
        "offsets.grow.before",
    "offsets.grow.after", "offsets.claim.before_cas", "offsets.claim.after_cas", "offsets.release.before_cas",
    "offsets.release.after_cas", "offsets.commit.before_cas", "offsets.commit.after_cas", "offsets.set.before_cas",
    "offsets.set.after_cas", "offsets.advance.before_cas", "offsets.advance.after_cas", "offsets.metadata.overflow",
    "offsets.metadata.half", "offsets.metadata.filled", "offsets.metadata.published", "offsets.saved.half",
    "offsets.forget.before_group", "offsets.forget.after_group", "offsets.forget.before_slot"};
enum { POINTS = sizeof points / sizeof *points };

static const char *deadly;
static uint64_t deadly_hit;
static void die_at(const char *name) {
    static uint64_t hits;
    if (strcmp(name, deadly) == 0 && ++hits == deadly_hit)
        kill(getpid(), SIGKILL);
}

/* Where the child has got to: step i is done when *progress > i. */
static void busy_child(uint32_t *progress, unsigned round) {
    tl_offsets *t;
    char name[500];
    uint8_t text[2000];
    memset(text, 't', sizeof text);
    CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_OK);
    for (uint32_t i = 0; i < 40; i++) {
        uint32_t g, s, epoch, cursor = 0;
        uint8_t id[16] = {(uint8_t)i, (uint8_t)round, (uint8_t)(round >> 8)};
        tl_offset_word w;
        tl_offset_view v;
        memset(name, 'A' + (int)(i % 26), sizeof name);
        size_t n = (size_t)snprintf(name, sizeof name, "%u-%u", round, i);
        name[n] = 'A';
        CHECK(tl_offsets_group(t, name, i % 2 ? 480 : n, true, &g, &err) == TL_OK);
        for (uint32_t p = 0; p < 8; p++)
            CHECK(tl_offsets_slot(t, g, id, p, true, &s, &err) == TL_OK);
        CHECK(tl_offsets_read(t, s, &w, NULL) == TL_OK && tl_offsets_claim(t, s, w, 5, &epoch) == TL_OK);
        CHECK(tl_offsets_commit(t, s, 5, epoch, 10, 10) == TL_OK &&
              tl_offsets_set_metadata(t, s, text, 20, &err) == TL_OK);
        CHECK(tl_offsets_set_metadata(t, s, text, 100 + i * 40, &err) == TL_OK &&
              tl_offsets_release(t, s, 5, epoch) == TL_OK);
        CHECK(tl_offsets_set_metadata(t, s, text, 30, &err) == TL_OK && tl_offsets_set(t, s, 12, 12, false) == TL_OK);
        CHECK(tl_offsets_advance(t, s, 15, 15) == TL_OK);
        CHECK(tl_offsets_changed(t, &cursor, &v, &err) >= 0 && tl_offsets_mark_saved(t, &v) == TL_OK);
        if (i % 3 == 0)
            CHECK(tl_offsets_forget_group(t, g, &err) == TL_OK);
        __atomic_store_n(progress, i + 1, __ATOMIC_RELEASE);
    }
    tl_offsets_close(t);
    _exit(0);
}

static void check_kills(void) {
    uint32_t *progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint32_t killed[POINTS] = {0};
    CHECK(progress != MAP_FAILED);
    tl_offsets_close(fresh_table());
    for (unsigned round = 0; round < POINTS * 12; round++) {
        deadly = points[round % POINTS];
        deadly_hit = 1 + round / POINTS;
        if (strncmp(deadly, "offsets.grow", 12) == 0) { /* the file grows rarely: on a table that is as good as new */
            unlink("offsets");
            tl_offsets_close(fresh_table());
            deadly_hit = 1;
        }
        *progress = 0;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            tl_point_hook = die_at;
            busy_child(progress, round);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        killed[round % POINTS] += WIFSIGNALED(status);
        tl_offsets_report report;
        CHECK(tl_offsets_check(dir, NULL, NULL, &report, &err) == TL_OK && report.problems == 0);
        /* Whatever was finished is there whole, and the survivor can finish the rest. */
        tl_offsets *t;
        CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &t, &err) == TL_OK);
        for (uint32_t i = 0; i <= *progress && i < 40; i++) {
            uint32_t g, s;
            char name[500];
            uint8_t id[16] = {(uint8_t)i, (uint8_t)round, (uint8_t)(round >> 8)}, text[TL_OFFSETS_MAX_METADATA_BYTES];
            size_t n, bytes;
            tl_offset_word w;
            memset(name, 'A' + (int)(i % 26), sizeof name);
            n = (size_t)snprintf(name, sizeof name, "%u-%u", round, i);
            name[n] = 'A';
            int rc = tl_offsets_group(t, name, i % 2 ? 480 : n, i == *progress, &g, &err);
            CHECK(rc == (i < *progress && i % 3 == 0 ? TL_ENOTFOUND : TL_OK));
            if (rc != TL_OK)
                continue;
            CHECK(tl_offsets_slot(t, g, id, 7, i == *progress, &s, &err) == TL_OK &&
                  tl_offsets_read(t, s, &w, NULL) == TL_OK);
            CHECK(tl_offsets_metadata(t, s, text, &bytes, &err) == TL_OK);
            for (size_t k = 0; k < bytes; k++)
                CHECK(text[k] == 't');
            CHECK(i == *progress || (w.offset == 15 && w.owner == 0 && bytes == 30));
            CHECK(bytes == 0 || bytes == 20 || bytes == 30 || bytes == 100 + i * 40);
            CHECK(tl_offsets_set_metadata(t, s, "new", 3, &err) == TL_OK &&
                  tl_offsets_metadata(t, s, text, &bytes, &err) == TL_OK && bytes == 3);
        }
        tl_offsets_close(t);
    }
    for (int i = 0; i < POINTS; i++) {
        if (killed[i] < 10)
            fprintf(stderr, "%s fired %u times\n", points[i], killed[i]);
        CHECK(killed[i] >= 10);
    }
    munmap(progress, 4096);
    printf("%d points; ", POINTS);
}

/* --- metadata: one writer after the other, readers beside them, writers killed in between --- */

static const tl_offsets *table_here;
static void read_beside(const char *name) {
    uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES];
    size_t bytes;
    bool published = strcmp(name, "offsets.metadata.published") == 0;
    if (strncmp(name, "offsets.metadata.", 17) != 0 || strcmp(name, "offsets.metadata.read") == 0)
        return;
    tl_point_hook = NULL;
    CHECK(tl_offsets_metadata(table_here, slots[0], text, &bytes, &err) == TL_OK);
    CHECK(bytes == (published ? 3000 : 500) && text[0] == (published ? 'b' : 'a') && text[bytes - 1] == text[0]);
    tl_point_hook = read_beside;
}

/* Text n: its length and bytes follow from n, which stands first. */
static size_t text_of(uint32_t n, uint8_t *text) {
    uint64_t seed = n;
    size_t bytes = 4 + check_random(&seed) % (n % 2 ? 100 : TL_OFFSETS_MAX_METADATA_BYTES - 3);
    for (size_t i = 4; i < bytes; i++)
        text[i] = (uint8_t)check_random(&seed);
    memcpy(text, &n, 4);
    return bytes;
}

static uint32_t read_text(const tl_offsets *t) {
    uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES], expected[TL_OFFSETS_MAX_METADATA_BYTES];
    size_t bytes;
    uint32_t n;
    int rc;
    do
        rc = tl_offsets_metadata(t, slots[0], text, &bytes, &err);
    while (rc == TL_EAGAIN);
    CHECK(rc == TL_OK);
    if (bytes == 0)
        return 0;
    memcpy(&n, text, 4);
    CHECK(text_of(n, expected) == bytes && memcmp(text, expected, bytes) == 0);
    return n;
}

static void check_metadata(void) {
    uint8_t text[TL_OFFSETS_MAX_METADATA_BYTES];
    tl_offsets *t = fresh_table();
    memset(text, 'a', 500);
    CHECK(tl_offsets_set_metadata(t, slots[0], text, 500, &err) == TL_OK);
    memset(text, 'b', 3000);
    table_here = t;
    tl_point_hook = read_beside;
    CHECK(tl_offsets_set_metadata(t, slots[0], text, 3000, &err) == TL_OK);
    tl_point_hook = NULL;
    tl_offsets_close(t);
    t = fresh_table();
    uint64_t seed = 23;
    uint32_t newest = 0, kills = 0, different = 0;
    for (int round = 0; round < 120; round++) {
        pid_t writer = fork();
        if (writer == 0) {
            tl_offsets *own;
            CHECK(tl_offsets_open(dir, TL_OFFSETS_OPEN, &own, &err) == TL_OK);
            for (uint32_t n = read_text(own) + 1;; n++) {
                size_t bytes = text_of(n, text);
                CHECK(tl_offsets_set_metadata(own, slots[0], text, bytes, &err) == TL_OK);
            }
        }
        int64_t until = tl_os->monotonic_ns() + (int64_t)(2 + check_random(&seed) % 8) * 1000000;
        while (tl_os->monotonic_ns() < until) {
            uint32_t n = read_text(t);
            CHECK(n >= newest);
            different += n != newest;
            newest = n;
        }
        CHECK(kill(writer, SIGKILL) == 0 && waitpid(writer, NULL, 0) == writer);
        kills++;
    }
    tl_offsets_close(t);
    printf("%u texts, %u seen, %u writers killed; ", newest, different, kills);
    CHECK(newest > 1000 && different > 100);
    tl_offsets_report report;
    CHECK(tl_offsets_check(dir, NULL, NULL, &report, &err) == TL_OK && report.problems == 0 && report.overflow < 100);
}

int main(void) {
    dir = open(".", O_RDONLY | O_DIRECTORY);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(dir >= 0 && shared != MAP_FAILED);
    tl_yield_hook = shake;
    check_words();
    tl_yield_hook = NULL;
    check_kills();
    tl_yield_hook = shake;
    check_metadata();
    munmap(shared, sizeof *shared);
    close(dir);
    return check_report();
}
