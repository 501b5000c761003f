/* Does a checkpoint give back exactly what was put in, to processes that are killed and that share it too?
 *
 * Imports checkpoint_model.h, memory_disk.h. Real files but for the limits. timeout_s: 120 */
#define _DEFAULT_SOURCE 1
#include "checkpoint_model.h"
#include "memory_disk.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "quarantine_size_mb=1"; } /* see test_checkpoint_power.c */

static tl_error err;
static char directory_name[256];

/* An empty directory; the files of the one before are removed. */
static int fresh_directory(void) {
    if (directory_name[0] == 0) {
        const char *base = getenv("TMPDIR");
        snprintf(directory_name, sizeof directory_name, "%s/checkpoint.XXXXXX", base == NULL ? "/tmp" : base);
        CHECK(mkdtemp(directory_name) != NULL);
    }
    tl_os_table = tl_io_posix;
    int dir = open(directory_name, O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0);
    unlinkat(dir, "checkpoint.a", 0);
    unlinkat(dir, "checkpoint.b", 0);
    return dir;
}

static tl_checkpoint_words *shared_words(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

static void reopen(tl_checkpoint *c, int dir, tl_checkpoint_words *words) {
    tl_checkpoint_close(c);
    memset(words, 0, sizeof *words);
    CHECK(tl_checkpoint_open(c, dir, words, &err) == TL_OK);
    CHECK(tl_checkpoint_recover(c, &err) == TL_OK);
}

static void check_round_trips(void) {
    int dir = fresh_directory();
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    CHECK(tl_checkpoint_open(&c, dir, &words, &err) == TL_ENOTFOUND);
    mode_t old = umask(0);
    CHECK(tl_checkpoint_create(&c, dir, 0600, &words, &err) == TL_OK);
    umask(old);
    for (int i = 0; i < 2; i++) {
        struct stat s;
        CHECK(fstat(c.fd[i], &s) == 0 && s.st_size == TL_CHECKPOINT_INITIAL_BYTES && (s.st_mode & 0777) == 0600);
        CHECK(s.st_blocks * 512 >= TL_CHECKPOINT_INITIAL_BYTES);
    }
    tl_checkpoint twice;
    CHECK(tl_checkpoint_create(&twice, dir, 0600, &words, &err) == TL_EEXIST);
    model m = {0};
    CHECK(model_holds(&c, &m));
    uint64_t seed = 5;
    for (int i = 0; i < 4000; i++) {
        tl_checkpoint_end end;
        CHECK(model_append(&c, &m, check_random(&seed), &end, &err) == TL_OK);
        uint64_t what = check_random(&seed) % 400;
        if (what < 8)
            CHECK(tl_checkpoint_sync(&c, end, &err) == TL_OK && tl_checkpoint_tail(&c).position == end.position);
        else if (what < 11)
            CHECK(tl_checkpoint_snapshot(&c, &err) == TL_OK);
        else if (what < 14)
            reopen(&c, dir, &words);
        if (what < 20)
            CHECK(model_holds(&c, &m));
    }
    CHECK(model_holds(&c, &m) && words.generation > 20);
    tl_checkpoint_report reports[2];
    CHECK(tl_checkpoint_check(dir, reports, &err) == TL_OK);
    uint32_t live = 1;
    for (uint32_t k = 0; k < MODEL_KEYS; k++)
        live += m.key[k].present;
    const tl_checkpoint_report *newest = &reports[words.generation & 1];
    CHECK(newest->newest && newest->generation == words.generation && newest->live_records == live);
    CHECK(newest->end == tl_checkpoint_tail(&c).position && newest->groups > 0 && newest->records >= live);
    CHECK(reports[1 - (words.generation & 1)].superseded_by == words.generation);
    tl_checkpoint_close(&c);

    /* A creation that was killed leaves no whole header; the next one replaces what there is. */
    dir = fresh_directory();
    int half = openat(dir, "checkpoint.b", O_CREAT | O_WRONLY, 0600);
    CHECK(half >= 0 && write(half, "half", 4) == 4 && close(half) == 0);
    CHECK(tl_checkpoint_open(&c, dir, &words, &err) == TL_ECORRUPT && strcmp(err.path, "checkpoint.a") == 0);
    CHECK(tl_checkpoint_check(dir, reports, &err) == TL_ECORRUPT && !reports[0].exists && reports[1].exists);
    CHECK(tl_checkpoint_create(&c, dir, 0600, &words, &err) == TL_OK);
    tl_checkpoint_close(&c);
    CHECK(unlinkat(dir, "checkpoint.b", 0) == 0);
    CHECK(tl_checkpoint_open(&c, dir, &words, &err) == TL_ECORRUPT && strcmp(err.path, "checkpoint.b") == 0);
}

static void check_limits(void) {
    disk_install(1);
    tl_checkpoint_words words = {0};
    tl_checkpoint c;
    CHECK(tl_checkpoint_create(&c, 0, 0600, &words, &err) == TL_OK);
    static uint8_t big[TL_CHECKPOINT_VALUE_BYTES + 1];
    memset(big, 7, sizeof big);
    tl_checkpoint_record r = {.key = big, .key_bytes = 512, .value = big, .value_bytes = TL_CHECKPOINT_VALUE_BYTES};
    CHECK(tl_checkpoint_append(&c, &r, 1, NULL, &err) == TL_OK);
    r.key_bytes = 513;
    CHECK(tl_checkpoint_append(&c, &r, 1, NULL, &err) == TL_ETOOLARGE);
    r.key_bytes = 0;
    r.value_bytes = TL_CHECKPOINT_VALUE_BYTES + 1;
    CHECK(tl_checkpoint_append(&c, &r, 1, NULL, &err) == TL_ETOOLARGE);
    r = (tl_checkpoint_record){.value = big, .value_bytes = 1, .deleted = true};
    CHECK(tl_checkpoint_append(&c, &r, 1, NULL, &err) == TL_EINVAL);
    CHECK(tl_checkpoint_append(&c, &r, 0, NULL, &err) == TL_EINVAL);
    CHECK(tl_checkpoint_sync(&c, (tl_checkpoint_end){words.generation, 1u << 20}, &err) == TL_EINVAL);
    CHECK(tl_checkpoint_sync(&c, (tl_checkpoint_end){words.generation + 1, 0}, &err) == TL_EINVAL);
    /* A group that is larger than the files makes the next one larger. */
    tl_checkpoint_record many[15];
    uint8_t keys[15];
    for (uint8_t i = 0; i < 15; i++) {
        keys[i] = i;
        many[i] = (tl_checkpoint_record){.key = &keys[i], .key_bytes = 1, .value = big, .value_bytes = 65000};
    }
    CHECK(!tl_checkpoint_is_filling(&c));
    CHECK(tl_checkpoint_append(&c, many, 15, NULL, &err) == TL_OK && disk->file[1].size > 975000);
    while (!tl_checkpoint_is_filling(&c))
        CHECK(tl_checkpoint_append(&c, many, 1, NULL, &err) == TL_OK && words.generation == 3);
    CHECK(tl_checkpoint_snapshot(&c, &err) == TL_OK && words.generation == 4);
    tl_checkpoint_record over[17];
    for (int i = 0; i < 17; i++)
        over[i] = many[0];
    CHECK(tl_checkpoint_append(&c, over, 17, NULL, &err) == TL_ETOOLARGE);
    words.generation = 0;
    CHECK(tl_checkpoint_append(&c, many, 1, NULL, &err) == TL_EINVAL && tl_checkpoint_snapshot(&c, &err) == TL_EINVAL);
    CHECK(tl_checkpoint_load(&c, NULL, model_each, &err) == TL_EINVAL);
}

/* --- processes --- */

static int point_number, die_at_point, operation;
static char point_name[64];

static void die_there(const char *name) {
    if (++point_number == die_at_point) {
        snprintf(point_name, sizeof point_name, "%s", name);
        kill(getpid(), SIGKILL);
    }
}

static int run_operation(tl_checkpoint *c, model *m) {
    tl_checkpoint_end end;
    int result = operation == 2 ? tl_checkpoint_snapshot(c, &err) : model_append(c, m, m->number * 7 + 1, &end, &err);
    return result == TL_OK && operation == 1 ? tl_checkpoint_sync(c, end, &err) : result;
}

/* A child is killed at every point of append, sync and snapshot. Its parent goes on with the same words, appends and
 * syncs, and a recovery from the files alone must find the same: what the dead left never comes before it. */
static void check_kills(void) {
    tl_checkpoint_words *words = shared_words();
    for (operation = 0; operation < 3; operation++) {
        int kills = 0;
        for (die_at_point = 1;; die_at_point++) {
            int dir = fresh_directory();
            tl_checkpoint c;
            model m = {0};
            CHECK(tl_checkpoint_create(&c, dir, 0600, words, &err) == TL_OK);
            for (uint64_t seed = 1; seed < 20; seed++)
                CHECK(model_append(&c, &m, seed, NULL, &err) == TL_OK);
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                tl_point_hook = die_there;
                point_number = 0;
                _exit(run_operation(&c, &m) == TL_OK ? 0 : 1);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child);
            bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            CHECK(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
            model with_group = m;
            if (operation < 2)
                model_step(&with_group, m.number + 1, m.number * 7 + 1, NULL);
            bool published = operation < 2 && model_holds(&c, &with_group);
            CHECK(published || model_holds(&c, &m));
            if (published)
                m = with_group;
            tl_checkpoint_words seen = *words;
            if (die_at_point % 2 == 0) { /* everybody has died: the files are left, perhaps with a whole group more */
                reopen(&c, dir, words);
                CHECK(model_holds(&c, &m) || model_holds(&c, &with_group));
                m = model_holds(&c, &m) ? m : with_group;
            }
            tl_checkpoint_end end;
            CHECK(model_append(&c, &m, 1234, &end, &err) == TL_OK);
            int result = tl_checkpoint_sync(&c, end, &err);
            if (result == TL_EAGAIN)
                result = tl_checkpoint_snapshot(&c, &err);
            CHECK(result == TL_OK && tl_checkpoint_sync(&c, end, &err) == TL_OK);
            reopen(&c, dir, words);
            CHECK(model_holds(&c, &m) && words->generation >= seen.generation);
            CHECK(model_append(&c, &m, 4321, NULL, &err) == TL_OK && tl_checkpoint_snapshot(&c, &err) == TL_OK);
            reopen(&c, dir, words);
            CHECK(model_holds(&c, &m));
            tl_checkpoint_close(&c);
            close(dir);
            kills += killed;
            if (!killed)
                break;
        }
        CHECK(kills == (operation == 0 ? 2 : operation == 1 ? 5 : 7));
    }
}

typedef struct together {
    tl_checkpoint_words words;
    pthread_mutex_t append, sync;
} together;

enum { WORKERS = 3, TURNS = 1200 };

static int count_each(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                      uint32_t value_bytes) {
    uint32_t *counts = context;
    CHECK(type == 5 && key_bytes == 1 && value_bytes == 4);
    memcpy(&counts[*(const uint8_t *)key % 8], value, 4);
    return 0;
}

static void work(tl_checkpoint *c, together *t, uint8_t me) {
    for (uint32_t turn = 1; turn <= TURNS; turn++) {
        tl_checkpoint_record r = {.key = &me, .key_bytes = 1, .value = &turn, .value_bytes = 4, .type = 5};
        tl_checkpoint_end end;
        tl_error mine;
        pthread_mutex_lock(&t->append);
        int result = tl_checkpoint_append(c, &r, 1, &end, &mine);
        if (result == TL_OK && turn % 150 == 0)
            result = tl_checkpoint_snapshot(c, &mine);
        pthread_mutex_unlock(&t->append);
        if (turn % 8 == 0 && result == TL_OK) {
            pthread_mutex_lock(&t->sync);
            result = tl_checkpoint_sync(c, end, &mine);
            pthread_mutex_unlock(&t->sync);
        }
        if (result != TL_OK) {
            fprintf(stderr, "worker %d turn %u: %s\n", me, turn, tl_status_name(result));
            _exit(1);
        }
    }
}

typedef struct worker {
    tl_checkpoint *c;
    together *t;
    uint8_t me;
} worker;

static void *work_thread(void *argument) {
    worker *w = argument;
    work(w->c, w->t, w->me);
    return NULL;
}

/* Two processes and two threads of one of them, with appends, syncs and snapshots at the same time. */
static void check_together(void) {
    int dir = fresh_directory();
    together *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(t != MAP_FAILED);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&t->append, &attributes);
    pthread_mutex_init(&t->sync, &attributes);
    tl_checkpoint c;
    CHECK(tl_checkpoint_create(&c, dir, 0600, &t->words, &err) == TL_OK);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        tl_checkpoint_close(&c); /* as after any fork: descriptors of its own */
        CHECK(tl_checkpoint_open(&c, dir, &t->words, &err) == TL_OK);
        work(&c, t, 0);
        _exit(0);
    }
    pthread_t threads[WORKERS];
    worker workers[WORKERS];
    for (uint8_t i = 1; i < WORKERS; i++) {
        workers[i] = (worker){.c = &c, .t = t, .me = i};
        CHECK(pthread_create(&threads[i], NULL, work_thread, &workers[i]) == 0);
    }
    for (int i = 1; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    uint64_t generation = t->words.generation;
    CHECK(generation >= 2 + WORKERS * (TURNS / 150) && t->words.state == 0 && t->words.suspect == 0);
    reopen(&c, dir, &t->words);
    uint32_t counts[8] = {0};
    CHECK(tl_checkpoint_load(&c, counts, count_each, &err) == TL_OK && t->words.generation == generation);
    for (int i = 0; i < WORKERS; i++)
        CHECK(counts[i] == TURNS);
    tl_checkpoint_close(&c);
}

int main(void) {
    check_round_trips();
    check_kills();
    check_together();
    check_limits();
    return check_report();
}
