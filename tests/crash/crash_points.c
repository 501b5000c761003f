/* Does a store lose, repeat or invent anything when its process is killed at a named point?
 *
 * Imports life.h. A life of a store is a row of children, one after the other: each opens it, compares it with the model,
 * works, and is killed by SIGKILL at the nth hit of a point, wherever that is: while it opens, repairs, compares, works or
 * closes. Before a child its store may be found by nobody else (the words of the boot are repaired), beside a keeper that
 * has it open (survivors repair), after the keeper closed it, or after another boot (everything is scanned). A life ends
 * with two children that live: what the first finds the second finds.
 *
 * Usage: crash_points [--kills N] [--seed N] [--jobs N] [--directory D] [--least N] [--transactions 1]
 *        crash_points --life SEED --plan STEP,STEP,...      replays one life; both are printed by whatever fails
 * Exit code: 0 nothing is wrong, 1 a life went wrong, 2 usage, 4 fewer than 50 points reached --least (10) kills. */
#define _GNU_SOURCE
#include "life.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WANTED_POINTS = 50, JOBS = 8 };

static const char *directory_base;
static uint64_t base_seed, wanted_kills = 500, least_kills = 10;
static int jobs = 1;
static bool transactional; /* children work in transactions, too */
static pid_t keeper;
static int keeper_pipe = -1;

static bool start_keeper(void) {
    int to[2], from[2];
    char byte = 0;
    if (pipe2(to, 0) < 0 || pipe2(from, 0) < 0)
        return false;
    keeper = fork();
    if (keeper == 0)
        child_keep(to[0], from[1]);
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
    fprintf(stderr,
            "FAILED: %s (%d) at step %d: point %s, hit %llu, found '%c', seed %llu\n  while: %s\n  replay: %s%s --life "
            "%llu --plan '%s'\n  store: %s\n",
            what, number, at, made->steps[at].point[0] == 0 ? "none" : made->steps[at].point,
            (unsigned long long)made->steps[at].nth, made->steps[at].found, (unsigned long long)base_seed, m->doing,
            program, transactional ? " --transactions 1" : "", (unsigned long long)made->life, plan_text(made, at), m->path);
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
        child_look();
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
        child_run(s, model_mix(made->life, (uint64_t)at, 1));
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
        return life_failed(made, at, WTERMSIG(status) == SIGALRM ? "hangs; ended by the watchdog" : "died of a signal",
                           WTERMSIG(status));
    return WEXITSTATUS(status) == 0
               ? 0
               : life_failed(made, at, "the child found something wrong; exit code", WEXITSTATUS(status));
}

static int run_life(const plan *made) {
    int status = 0;
    for (int i = 0; status == 0 && i < made->count; i++)
        status = run_step(made, i);
    if (keeper != 0)
        (void)stop_keeper(false);
    return status;
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
        plan_make(&made, life);
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
    printf("%llu kills at %u points, %llu of them with %llu kills or more; %llu verifications and %llu looks at %llu "
           "messages; %.1f s; seed %llu\n",
           (unsigned long long)kills, count, (unsigned long long)reached, (unsigned long long)least_kills,
           (unsigned long long)verified, (unsigned long long)looked, (unsigned long long)messages, seconds,
           (unsigned long long)base_seed);
    if (wanted_kills >= 5000 && reached < WANTED_POINTS) {
        printf("only %llu points were reached often enough, %d are wanted\n", (unsigned long long)reached,
               WANTED_POINTS);
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
    ((model *)at)->transactional = transactional;
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
    fprintf(stderr, "usage: crash_points [--kills N] [--seed N] [--jobs N] [--directory D] [--least N] | --life SEED "
                    "--plan STEPS [--directory D]\n");
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
        else if (strcmp(argv[i], "--transactions") == 0)
            transactional = atoi(argv[i + 1]) != 0;
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
        snprintf(directory, sizeof directory, "%s/tl-points-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
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
        if (!plan_parse(plan_text, &replayed))
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
