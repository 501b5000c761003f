/* Does a store lose, repeat or invent anything when its process is killed at a named point?
 *
 * Imports model.h. A life of a store is a row of children, one after the other: each opens it, compares it with the model,
 * works, and is killed by SIGKILL at the nth hit of a point, wherever that is: while it opens, repairs, compares, works or
 * closes. Before a child its store may be found by nobody else (the words of the boot are repaired), beside a keeper that
 * has it open (survivors repair), after the keeper closed it, or after another boot (everything is scanned). A life ends
 * with two children that live: what the first finds the second finds.
 *
 * Usage: crash_points [--kills N] [--seed N] [--jobs N] [--directory D] [--least N]
 *        crash_points --life SEED --plan STEP,STEP,...      replays one life; both are printed by whatever fails
 * Exit code: 0 nothing is wrong, 1 a life went wrong, 2 usage, 4 fewer than 50 points reached --least (10) kills. */
#define _GNU_SOURCE
#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 12, WATCHDOG_SECONDS = 10, WANTED_POINTS = 50, JOBS = 8 };

/* How the store is found by the child of a step. */
enum found { FOUND_SAME = 's', FOUND_BOOT = 'b', FOUND_KEEPER = 'k', FOUND_CLOSED = 'c' };

typedef struct step {
    char found, end;                    /* end, if it is not killed: 'x' it just dies, 'c' it closes */
    char point[48];
    uint64_t nth, tears;
} step;

typedef struct plan {
    uint64_t life;
    int count;
    step steps[STEPS];
} plan;

static const char *directory_base;
static uint64_t base_seed, wanted_kills = 500, least_kills = 10;
static int jobs = 1;

/* --- what a child does --- */

static int (*true_identity)(int dir, tl_identity *out);

static int identity_of_boot(int dir, tl_identity *out) {
    int status = true_identity(dir, out);
    out->boot[0] += (uint64_t)m->boot;
    return status;
}

static int64_t clock_of_model(void) { return m->clock_ms; }

/* SIGKILL inside memcpy leaves any part of a batch: the bytes between tail and reserve are damaged before the death. */
static void tear(void) {
    char name[600];
    uint64_t state = m->tears;
    snprintf(name, sizeof name, "%s/shared", m->path);
    FILE *shared = fopen(name, "re");
    for (uint32_t i = 0; shared != NULL && i < m->partitions; i++) {
        const model_partition *p = &m->partition[i];
        tl_hot hot;
        uint64_t at = TL_SHARED_BLOCKS_AT + (uint64_t)(p->slot / TL_BLOCK_PARTITIONS) * TL_BLOCK_BYTES + p->slot % TL_BLOCK_PARTITIONS * sizeof hot;
        if (p->state != PARTITION_LIVE || fseek(shared, (long)at, SEEK_SET) != 0 || fread(&hot, sizeof hot, 1, shared) != 1 || hot.reserve <= hot.tail ||
            tl_place_ordinal(hot.reserve) != tl_place_ordinal(hot.tail))
            continue;
        snprintf(name, sizeof name, "%s/orders-%u/%020lld.log", m->path, p->number, (long long)hot.active_base[tl_place_ordinal(hot.tail) & 1]);
        FILE *log = fopen(name, "r+e");
        uint32_t from = tl_place_position(hot.tail), until = tl_place_position(hot.reserve);
        from += (uint32_t)(model_random(&state) % (until - from));
        for (uint32_t kind = (uint32_t)model_random(&state) % 2; log != NULL && from < until; from++) {
            fseek(log, from, SEEK_SET);
            fputc(kind == 0 ? 0 : (int)(model_random(&state) & 255), log);
        }
        if (log != NULL)
            fclose(log);
    }
    if (shared != NULL)
        fclose(shared);
}

static void die_here(const char *name) {
    if (m->point[0] == 0 || strcmp(name, m->point) != 0 || tl_point_hits(name) != m->nth)
        return;
    m->killed = true;
    if (m->tears != 0 && (strcmp(name, "append.copied") == 0 || strcmp(name, "append_many.copied") == 0 || strcmp(name, "append.reserved") == 0))
        tear();
    raise(SIGKILL);
}

static void note_hits(const char *name) {
    die_here(name);
    model_point *point = model_point_of(name);
    if (point == NULL)
        return;
    if (tl_point_hits(name) == 1)
        point->runs++;
    point->hits++;
}

static void prepare_child(unsigned seconds) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    true_identity = tl_os_table.identity;
    tl_os_table.identity = identity_of_boot;
    tl_os_table.now_ms = clock_of_model;
    alarm(seconds);
}

__attribute__((noreturn)) static void run_child(const step *s, uint64_t seed) {
    prepare_child(WATCHDOG_SECONDS);
    tl_point_hook = note_hits;
    int state = 0;
    tl_error err = {0};
    tl_store *store = work_open(&state);
    model_doing("make the store ready");
    model_expect_ok(tl_store_ready(store, &err), &err, "ready");
    bool alone = state == TL_STORE_RECOVERED;
    if (alone != (s->found != FOUND_KEEPER))
        model_fail("the store was %s, but %s", alone ? "recovered" : "joined", alone ? "a keeper has it open" : "nobody has it open");
    verify_store(store, alone);
    work_run(store, seed, 10 + (uint32_t)(seed % 50));
    if (s->end == 'c')
        work_close(store);
    _exit(0);
}

/* A process that only looks. It may be told that the store has to be recovered first; it changes no byte of it. */
__attribute__((noreturn)) static void run_looker(void) {
    const tl_store_options options = {.flush_interval_ms = 1000, .lock_timeout_ms = 5000, .look = true, .no_housekeeper = true};
    prepare_child(WATCHDOG_SECONDS);
    tl_store *store = NULL;
    tl_error err = {0};
    int state = 0;
    model_doing("open the store to look at it");
    int status = tl_store_open(m->path, &options, &store, &state, NULL, &err);
    if (status == TL_EUNSUPPORTED || status == TL_ENOTFOUND)
        _exit(0);
    model_expect_ok(status, &err, "open to look");
    verify_look(store);
    work_close(store);
    _exit(0);
}

/* --- the keeper: a process that has the store open meanwhile, and waits for messages --- */

static pid_t keeper;
static int keeper_pipe = -1;

typedef struct first_slot { uint32_t slot; uint8_t channel[16]; } first_slot;

static int take_first(void *context, uint32_t slot, const tl_partition_config *config) {
    first_slot *first = context;
    first->slot = slot;
    memcpy(first->channel, config->channel, 16);
    return 1;
}

__attribute__((noreturn)) static void run_keeper(int in, int out) {
    prepare_child(120);
    int state = 0;
    tl_error err = {0};
    char byte = 'r';
    tl_store *store = work_open(&state);
    model_expect_ok(tl_store_ready(store, &err), &err, "ready");
    if (write(out, &byte, 1) != 1)
        _exit(5);
    for (;;) {
        struct pollfd ready = {.fd = in, .events = POLLIN};
        first_slot first;
        tl_partition *partition = NULL;
        if (poll(&ready, 1, 0) > 0 && read(in, &byte, 1) == 1)
            break;
        if (tl_store_each_partition(store, &first, take_first) != 1 || tl_store_partition(store, first.slot, first.channel, &partition, NULL) < 0) {
            usleep(2000);
            continue;
        }
        uint64_t seen = tl_partition_tail(partition);
        (void)tl_store_wait(store, &partition, &seen, 1, 5000000, 0, NULL, &err);
        tl_partition_release(partition);
    }
    if (byte == 'c')
        work_close(store);
    _exit(0);
}

/* --- the parent --- */

static const char *text_of(const plan *plan_made, int upto) {
    static char text[4096];
    size_t used = 0;
    for (int i = 0; i <= upto && i < plan_made->count; i++) {
        const step *s = &plan_made->steps[i];
        int more = snprintf(text + used, sizeof text - used, "%s%c:%c:%s:%llu:%llu", i == 0 ? "" : ",", s->found, s->end, s->point[0] == 0 ? "-" : s->point,
                            (unsigned long long)s->nth, (unsigned long long)s->tears);
        used += (size_t)more;
    }
    return text;
}

static bool parse_plan(char *text, plan *out) {
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

static bool start_keeper(void) {
    int to[2], from[2];
    char byte = 0;
    if (pipe2(to, 0) < 0 || pipe2(from, 0) < 0)
        return false;
    keeper = fork();
    if (keeper == 0)
        run_keeper(to[0], from[1]);
    close(to[0]);
    close(from[1]);
    keeper_pipe = to[1];
    bool ready = read(from[0], &byte, 1) == 1 && byte == 'r';
    close(from[0]);
    return ready;
}

static int stop_keeper(bool close_cleanly) {
    if (keeper == 0)
        return 0;
    if (!close_cleanly)
        kill(keeper, SIGKILL);
    else if (write(keeper_pipe, "c", 1) != 1)
        return -1;
    int status = 0;
    waitpid(keeper, &status, 0);
    close(keeper_pipe);
    keeper = 0;
    return close_cleanly ? status : 0;
}

static void remove_tree(const char *path) {
    char command[400];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0)
        fprintf(stderr, "%s cannot be removed\n", path);
}

static const char *program;

static int life_failed(const plan *made, int at, const char *what, int number) {
    fprintf(stderr, "FAILED: %s (%d) at step %d: point %s, hit %llu, found '%c', seed %llu\n  while: %s\n  replay: %s --life %llu --plan '%s'\n  store: %s\n", what,
            number, at, made->steps[at].point[0] == 0 ? "none" : made->steps[at].point, (unsigned long long)made->steps[at].nth, made->steps[at].found,
            (unsigned long long)base_seed, m->doing, program, (unsigned long long)made->life, text_of(made, at), m->path);
    return 1;
}

/* Makes the store be found as the step says. */
static int arrange(const plan *made, int at) {
    const step *s = &made->steps[at];
    int status = 0;
    if (s->found == FOUND_KEEPER) {
        if (keeper == 0 && !start_keeper()) {
            waitpid(keeper, &status, 0);
            keeper = 0;
            return life_failed(made, at, "the keeper could not open the store", status);
        }
        return 0;
    }
    if (keeper != 0 && (status = stop_keeper(s->found == FOUND_CLOSED)) != 0)
        return life_failed(made, at, "the keeper could not close the store", status);
    if (s->found == FOUND_BOOT)
        model_boot();
    return 0;
}

/* Names, sizes and contents of all files; `name` is relative to the directory. */
static uint64_t fingerprint_of(int in, const char *name) {
    static uint64_t words[1 << 13];
    uint64_t sum = 0;
    int fd = openat(in, name, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) < 0)
        return 0;
    DIR *dir = S_ISDIR(stat.st_mode) ? fdopendir(fd) : NULL;
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        uint64_t hash = 5381;
        for (const char *c = entry->d_name; *c != 0; c++)
            hash = hash * 33 + (uint8_t)*c;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            sum += hash * (1 + fingerprint_of(fd, entry->d_name));
    }
    ssize_t got;
    while (dir == NULL && (got = read(fd, words, sizeof words - 8)) > 0) {
        memset((uint8_t *)words + got, 0, 8); /* of the last word, what is not of the file */
        for (ssize_t i = 0; i < (got + 7) / 8; i++)
            sum = sum * 6364136223846793005u + words[i];
    }
    if (dir != NULL)
        closedir(dir);
    else
        close(fd);
    return sum + (uint64_t)stat.st_size;
}

static int look(const plan *made, int at) {
    uint64_t before = keeper == 0 ? fingerprint_of(AT_FDCWD, m->path) : 0;
    int status = 0;
    m->point[0] = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        run_looker();
    waitpid(child, &status, 0);
    if (status != 0)
        return life_failed(made, at, "one who only looked found something wrong", status);
    if (keeper == 0 && fingerprint_of(AT_FDCWD, m->path) != before)
        return life_failed(made, at, "one who only looked changed the store", 0);
    return 0;
}

static int run_step(const plan *made, int at) {
    const step *s = &made->steps[at];
    int status = arrange(made, at);
    if (status == 0 && at > 0 && model_mix(made->life, (uint64_t)at, 2) % 4 == 0)
        status = look(made, at);
    if (status != 0)
        return status;
    snprintf(m->point, sizeof m->point, "%s", s->point);
    m->nth = s->nth;
    m->tears = s->tears;
    m->killed = false;
    m->children++;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        run_child(s, model_mix(made->life, (uint64_t)at, 1));
    waitpid(child, &status, 0);
    if (m->loud)
        fprintf(stderr, "step %d: %s%s\n", at, m->killed ? "killed at " : "lived", m->killed ? m->point : "");
    if (m->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        model_point *point = model_point_of(m->point);
        if (point != NULL)
            point->kills++;
        return 0;
    }
    if (WIFSIGNALED(status))
        return life_failed(made, at, WTERMSIG(status) == SIGALRM ? "hangs; ended by the watchdog" : "died of a signal", WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? 0 : life_failed(made, at, "the child found something wrong; exit code", WEXITSTATUS(status));
}

static int run_life(const plan *made) {
    int status = 0;
    for (int i = 0; status == 0 && i < made->count; i++)
        status = run_step(made, i);
    if (keeper != 0)
        (void)stop_keeper(false);
    return status;
}

/* How many of a hundred children meet a point at all. */
static uint64_t chance(const model_point *point) { return m->children == 0 ? 100 : point->runs * 100 / m->children; }

static bool begins(const char *name, const char *prefix) { return strncmp(name, prefix, strlen(prefix)) == 0; }

static bool torn(const step *s) {
    return s->tears != 0 && (strcmp(s->point, "append.copied") == 0 || strcmp(s->point, "append_many.copied") == 0 || strcmp(s->point, "append.reserved") == 0);
}

/* What the death of the step before, or the way the store is found, gives a child to do that it seldom does else. */
static bool fits(const model_point *point, const step *s, const step *before) {
    if (s->found == FOUND_BOOT && before != NULL && torn(before))
        return begins(point->name, "recover.torn") || begins(point->name, "recover.scanned");
    if (s->found == FOUND_BOOT)
        return begins(point->name, "recover.") || begins(point->name, "offsets.reset") || begins(point->name, "shared.") || begins(point->name, "checkpoint.recover");
    if (before == NULL)
        return begins(point->name, "checkpoint.create") || begins(point->name, "shared.") || begins(point->name, "ready.");
    if (begins(before->point, "append") || begins(before->point, "roll") || begins(before->point, "segment"))
        return begins(point->name, "repair.") || begins(point->name, "lock.");
    if (begins(before->point, "sync.") && s->found == FOUND_KEEPER)
        return begins(point->name, "sync.lock") || begins(point->name, "sync.dirtied");
    if (begins(before->point, "catalogue.") || begins(before->point, "drop.") || begins(before->point, "leftovers."))
        return begins(point->name, "leftovers.") || begins(point->name, "catalogue.way");
    return begins(before->point, "checkpoint.s") && (begins(point->name, "checkpoint.snapshot") || begins(point->name, "records.snapshot"));
}

/* Mostly the point of a few that was met least; the nth hit is one that the child probably lives to see. */
static void choose_point(step *s, const step *before, uint64_t *dice) {
    if (m->point_count == 0)
        return;
    const model_point *best = NULL;
    bool special = before != NULL && (begins(before->point, "checkpoint.s") || begins(before->point, "sync.") || torn(before));
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

static void make_plan(plan *made, uint64_t life) {
    uint64_t dice = life;
    memset(made, 0, sizeof *made);
    made->life = life;
    made->count = 4 + (int)(model_random(&dice) % 7);
    for (int i = 0; i < made->count; i++) {
        step *s = &made->steps[i];
        uint32_t how = (uint32_t)(model_random(&dice) % 100);
        bool kept = i > 0 && made->steps[i - 1].found == FOUND_KEEPER;
        s->found = how < 25 ? FOUND_BOOT : how < 45 ? FOUND_KEEPER : how < 60 && kept ? FOUND_CLOSED : kept && how < 80 ? FOUND_KEEPER : FOUND_SAME;
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
    made->steps[made->count - 2].found = made->steps[made->count - 2].found == FOUND_KEEPER ? FOUND_SAME : made->steps[made->count - 2].found;
    made->steps[made->count - 1].found = FOUND_SAME;
}

static uint64_t kills_so_far(void) {
    uint64_t kills = 0;
    for (uint32_t i = 0; i < m->point_count; i++)
        kills += m->points[i].kills;
    return kills;
}

static int run_job(int job) {
    uint64_t lives = 0;
    while (kills_so_far() < wanted_kills / (uint64_t)jobs + 1) {
        plan made;
        char path[256];
        uint64_t life = model_mix(base_seed, (uint64_t)job, lives++);
        snprintf(path, sizeof path, "%s/life-%d", directory_base, job);
        remove_tree(path);
        model_begin_life(life, path);
        make_plan(&made, life);
        int status = run_life(&made);
        if (status != 0)
            return status;
        remove_tree(path);
    }
    return 0;
}

static int by_kills(const void *a, const void *b) {
    const model_point *x = a, *y = b;
    return x->kills != y->kills ? (x->kills < y->kills ? 1 : -1) : strcmp(x->name, y->name);
}

static int report(model *const *models, double seconds) {
    static model_point all[MODEL_POINTS];
    uint32_t count = 0;
    uint64_t kills = 0, verified = 0, looked = 0, messages = 0, reached = 0;
    for (int job = 0; job < jobs; job++) {
        verified += models[job]->verified;
        looked += models[job]->looked;
        messages += models[job]->messages_verified;
        for (uint32_t i = 0; i < models[job]->point_count; i++) {
            const model_point *point = &models[job]->points[i];
            uint32_t k = 0;
            while (k < count && strcmp(all[k].name, point->name) != 0)
                k++;
            if (k == count && count < MODEL_POINTS)
                snprintf(all[count++].name, sizeof all->name, "%s", point->name);
            all[k].kills += point->kills;
            all[k].hits += point->hits;
            kills += point->kills;
        }
    }
    qsort(all, count, sizeof *all, by_kills);
    printf("%-36s %8s %12s\n", "point", "kills", "hits");
    for (uint32_t i = 0; i < count; i++) {
        printf("%-36s %8llu %12llu\n", all[i].name, (unsigned long long)all[i].kills, (unsigned long long)all[i].hits);
        if (all[i].kills >= least_kills)
            reached++;
    }
    printf("%llu kills at %u points, %llu of them with %llu kills or more; %llu verifications and %llu looks at %llu messages; %.1f s; seed %llu\n", (unsigned long long)kills,
           count, (unsigned long long)reached, (unsigned long long)least_kills, (unsigned long long)verified, (unsigned long long)looked, (unsigned long long)messages, seconds,
           (unsigned long long)base_seed);
    if (wanted_kills >= 5000 && reached < WANTED_POINTS) {
        printf("only %llu points were reached often enough, %d are wanted\n", (unsigned long long)reached, WANTED_POINTS);
        return 4;
    }
    return 0;
}

static model *new_model(void) {
    void *at = mmap(NULL, sizeof(model), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return at;
}

static int run_all(void) {
    model *models[JOBS];
    pid_t pids[JOBS];
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int job = 0; job < jobs; job++) {
        models[job] = m = new_model();
        fflush(NULL);
        pids[job] = fork();
        if (pids[job] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(run_job(job));
        }
    }
    int worst = 0;
    for (int left = jobs; left > 0; left--) {
        int status = 0;
        pid_t ended = wait(&status);
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        if (code == 0 || worst != 0)
            continue;
        worst = code;
        for (int job = 0; job < jobs; job++) /* one failure is enough: its seed and plan are printed */
            if (pids[job] != ended)
                kill(pids[job], SIGKILL);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    int reported = report(models, (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    return worst != 0 ? worst : reported;
}

static int usage(void) {
    fprintf(stderr, "usage: crash_points [--kills N] [--seed N] [--jobs N] [--directory D] [--least N] | --life SEED --plan STEPS [--directory D]\n");
    return 2;
}

int main(int argc, char **argv) {
    static char directory[200];
    plan replayed;
    uint64_t life = 0;
    char *plan_text = NULL;
    program = argv[0];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    base_seed = (uint64_t)now.tv_sec ^ ((uint64_t)now.tv_nsec << 20);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--kills") == 0)
            wanted_kills = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            base_seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--least") == 0)
            least_kills = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--jobs") == 0)
            jobs = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--directory") == 0)
            directory_base = argv[i + 1];
        else if (strcmp(argv[i], "--life") == 0)
            life = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--plan") == 0)
            plan_text = argv[i + 1];
        else
            return usage();
    }
    if (argc % 2 == 0 || jobs < 1 || jobs > JOBS || wanted_kills == 0)
        return usage();
    if (directory_base == NULL) {
        /* A process dies without the disk noticing, so memory does as well as a disk and is quicker. */
        snprintf(directory, sizeof directory, "%s/tl-points-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        directory_base = mkdtemp(directory);
    }
    if (directory_base == NULL)
        return usage();
    int status;
    if (plan_text != NULL) {
        char path[256];
        m = new_model();
        m->loud = true;
        memset(&replayed, 0, sizeof replayed);
        if (!parse_plan(plan_text, &replayed))
            return usage();
        replayed.life = life;
        snprintf(path, sizeof path, "%s/life", directory_base);
        model_begin_life(life, path);
        status = run_life(&replayed);
        printf("%s\n", status == 0 ? "the life ends well" : "the life went wrong");
    } else {
        status = run_all();
    }
    if (status != 1 && directory_base == directory)
        remove_tree(directory);
    return status;
}
