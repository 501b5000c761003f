/* Is a death noticed at once, whatever the system refuses, and does the thread that watches leave nothing behind?
 *
 * Imports groups_kit.h. The store runs its own threads here. */
#define _GNU_SOURCE
#include "groups_kit.h"

#include <errno.h>
#include <sys/prctl.h>

enum { NOTICE_LIMIT_MS = 100, PATIENCE_NS = 2000000000 };

static char base[200], path[256];
static uint32_t watches, polls;

static int refuse_watch(uint32_t pid) {
    (void)pid;
    __atomic_fetch_add(&watches, 1, __ATOMIC_SEQ_CST);
    return -ENOSYS;
}
static int refuse_poll(const int *fds, bool *ready, size_t count, int64_t timeout_ns) {
    (void)fds;
    (void)ready;
    (void)count;
    (void)timeout_ns;
    __atomic_fetch_add(&polls, 1, __ATOMIC_SEQ_CST);
    return -ENOMEM;
}
static int refuse_event(void) { return -EMFILE; }

/* A member in a process of its own, once it has joined. */
static pid_t start_member(const char *name, int64_t away_ns) {
    int pipes[2];
    char byte;
    CHECK(pipe(pipes) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        tl_member member;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        tl_store *store = kit_enter(path, true);
        CHECK(kit_try_join(store, "g", name, -1, away_ns, &member) == TL_OK);
        CHECK(write(pipes[1], "r", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(pipes[0], &byte, 1) == 1);
    close(pipes[0]);
    close(pipes[1]);
    return child;
}

/* How long it takes until the membership has another version, while nobody asks but the thread that watches. */
static double notice_ms(tl_store *store, const tl_member *me, pid_t child) {
    uint64_t version = tl_member_version(store, me);
    int64_t begin = tl_io_posix.monotonic_ns();
    kill(child, SIGKILL);
    while (tl_member_version(store, me) == version) {
        CHECK(tl_io_posix.monotonic_ns() - begin < PATIENCE_NS);
        usleep(100);
    }
    double ms = (double)(tl_io_posix.monotonic_ns() - begin) / 1e6;
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return ms;
}

static void learn_of_newcomers(tl_store *store, const tl_member *me) {
    for (int i = 0; i < 2; i++)
        (void)tl_store_wait(store, NULL, NULL, 0, 5000000, 0,
                            &(tl_turn){tl_member_turn(store, me), *tl_member_turn(store, me)}, 1, NULL, &kit_error);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void test_noticed(void) {
    enum { KILLS = 21 };
    double ms[KILLS];
    int descriptors = kit_open_descriptors();
    tl_store *store = kit_enter(path, true);
    tl_member me = kit_join(store, "g", NULL);
    for (int i = 0; i < KILLS; i++) {
        pid_t child = start_member(NULL, 0), bystander = start_member(NULL, 0);
        learn_of_newcomers(store, &me);
        ms[i] = notice_ms(store, &me, child);
        CHECK(notice_ms(store, &me, bystander) < PATIENCE_NS / 1e6);
    }
    qsort(ms, KILLS, sizeof *ms, by_value);
    printf("a death is noticed after %.2f ms (median of %d; the slowest %.2f ms)\n", ms[KILLS / 2], KILLS, ms[KILLS - 1]);
    CHECK(ms[KILLS / 2] < NOTICE_LIMIT_MS);
    /* A static one: away at first, gone when its time is over, without anybody asking. */
    pid_t child = start_member("static", 300000000);
    CHECK(notice_ms(store, &me, child) >= 299);
    kit_leave(store);
    CHECK(kit_open_descriptors() == descriptors);
}

/* An old kernel, another PID namespace, no memory: it takes longer, and nothing else. */
static void test_refused(void) {
    tl_store *store = kit_enter(path, true);
    tl_os_table.process_watch = refuse_watch;
    tl_member me = kit_join(store, "g", NULL);
    pid_t child = start_member(NULL, 0);
    learn_of_newcomers(store, &me);
    CHECK(notice_ms(store, &me, child) < PATIENCE_NS / 1e6 && __atomic_load_n(&watches, __ATOMIC_SEQ_CST) > 0);
    tl_os_table.process_watch = tl_io_posix.process_watch;
    tl_os_table.poll = refuse_poll;
    child = start_member(NULL, 0);
    CHECK(notice_ms(store, &me, child) < PATIENCE_NS / 1e6 && __atomic_load_n(&polls, __ATOMIC_SEQ_CST) > 0);
    kit_leave(store);
    tl_os_table.poll = tl_io_posix.poll;

    int descriptors = kit_open_descriptors();
    store = kit_enter(path, true);
    tl_os_table.event = refuse_event;
    CHECK(kit_try_join(store, "g", NULL, -1, 0, &me) == TL_EIO && kit_error.sys_errno == EMFILE);
    tl_os_table.event = tl_io_posix.event;
    me = kit_join(store, "g", NULL);
    kit_leave(store);
    CHECK(kit_open_descriptors() == descriptors);
}

/* The child has no such thread, and none of its descriptors. */
static void test_fork(void) {
    int descriptors = kit_open_descriptors(), status;
    tl_store *store = kit_enter(path, true);
    kit_join(store, "g", NULL);
    pid_t member = start_member(NULL, 0);
    usleep(20000);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        /* What stays open are the parent's directory and files of the store, which hold no lock. */
        int inherited = kit_open_descriptors();
        tl_member mine;
        CHECK(kit_try_join(store, "g", NULL, -1, 0, &mine) == TL_EFORKED);
        CHECK(tl_store_close(store, &kit_error) == TL_OK);
        tl_store *own = kit_enter(path, true);
        mine = kit_join(own, "g", NULL);
        learn_of_newcomers(own, &mine);
        kit_leave(own);
        CHECK(kit_open_descriptors() == inherited);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    kill(member, SIGKILL);
    waitpid(member, &status, 0);
    kit_leave(store);
    CHECK(kit_open_descriptors() == descriptors);
}

/* Closing while others join, wait and sweep: no thread outlives its store. */
static void test_close_again_and_again(void) {
    int descriptors = kit_open_descriptors();
    for (int i = 0; i < 30; i++) {
        tl_store *store = kit_enter(path, true);
        tl_member a = kit_join(store, "g", NULL), b = kit_join(store, "h", i % 2 == 0 ? "name" : NULL);
        CHECK(tl_member_is_active(store, &a) && tl_member_is_active(store, &b));
        if (i % 3 == 0)
            CHECK(tl_member_leave(store, &b, true, &kit_error) == TL_OK);
        kit_leave(store);
    }
    CHECK(kit_open_descriptors() == descriptors);
}

int main(void) {
    kit_directory(base, "deaths");
    kit_install();
    snprintf(path, sizeof path, "%.150s/store", base);
    test_noticed();
    test_refused();
    test_fork();
    test_close_again_and_again();
    kit_remove(AT_FDCWD, base);
    return check_report();
}
