/* Do points, their triggers, their log and the seeded bugs do what os.h says?
 *
 * Imports os.h. The environment is read before main, so every case runs this program again with its own variables and
 * looks at how it ended. */
#define _GNU_SOURCE 1
#include "check.h"
#include "tidelog/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/tidelog-points-XXXXXX";
static char path[64];

/* --- what the program does when it is started as a child: each returns the exit code --- */

static void hit_both(int times) {
    for (int i = 0; i < times; i++) {
        TL_POINT("append.after_copy");
        TL_POINT("append.enter");
    }
}

static int run_three(void) {
    hit_both(3);
    return 40;
}

/* Nine hits by the parent must not bring a child's first hit near the trigger. */
static int run_fork(void) {
    hit_both(2);
    pid_t pid = fork();
    if (pid == 0) {
        uint64_t inherited = tl_point_hits("append.enter");
        hit_both(2);
        _exit(inherited == 0 && tl_point_hits("append.enter") == 2 ? 0 : 1);
    }
    int status = -1;
    return waitpid(pid, &status, 0) == pid && status == 0 && tl_point_hits("append.enter") == 2 ? 40 : 1;
}

static int run_bug(void) {
    if (TL_BUG(FSYNC_RETRIED))
        return 41;
    return tl_bug == TL_BUG_NONE ? 40 : 42;
}

static const char *hooked[8];
static int hooked_count;

static void hook(const char *name) { hooked[hooked_count++] = name; }

/* Started with a trigger at the second hit: the hook still sees that hit. It reports by a file, as the process dies. */
static void hook_that_tells(const char *name) {
    if (tl_point_hits(name) == 2)
        tl_os->close(tl_os->open(AT_FDCWD, getenv("TOLD"), O_WRONLY | O_CREAT, 0600));
}

static int run_hook(void) {
    tl_point_hook = hook_that_tells;
    hit_both(3);
    return 40;
}

/* --- starting children --- */

static pid_t start(const char *what, const char *variable, const char *value) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(20);
        setenv("TOLD", path, 1);
        if (variable != NULL)
            setenv(variable, value, 1);
        execl("/proc/self/exe", "test_points", what, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static int run(const char *what, const char *variable, const char *value) {
    int status = 0;
    pid_t pid = start(what, variable, value);
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

/* Like run(), with standard error in `text`. */
static int run_and_read(const char *what, const char *variable, const char *value, char *text, size_t size) {
    int ends[2], status = 0, saved = dup(2);
    CHECK(saved >= 0 && pipe2(ends, O_CLOEXEC) == 0 && dup2(ends[1], 2) == 2);
    pid_t pid = start(what, variable, value);
    CHECK(dup2(saved, 2) == 2);
    close(ends[1]);
    close(saved);
    size_t used = 0;
    for (ssize_t n; used < size - 1 && (n = read(ends[0], text + used, size - 1 - used)) > 0;)
        used += (size_t)n;
    text[used] = 0;
    close(ends[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static bool killed_by(int status, int signal) { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }
static bool exited(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }

static void check_crash(void) {
    CHECK(exited(run("three", NULL, NULL), 40));
    CHECK(killed_by(run("three", "TL_CRASH", "append.enter:1"), SIGKILL));
    CHECK(killed_by(run("three", "TL_CRASH", "append.enter:3"), SIGKILL));
    CHECK(exited(run("three", "TL_CRASH", "append.enter:4"), 40));
    CHECK(exited(run("three", "TL_CRASH", "append.ente:1"), 40));
    CHECK(exited(run("three", "TL_CRASH", ""), 40));
    CHECK(exited(run("fork", NULL, NULL), 40));
    CHECK(exited(run("fork", "TL_CRASH", "append.enter:3"), 40));
    static const char *malformed[] = {"append.enter",    "append.enter:",   "append.enter:0", "append.enter:-1",
                                      "append.enter:1x", "append.enter: 1", ":1",             "append.enter:one"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        char text[512];
        CHECK(killed_by(run_and_read("three", "TL_CRASH", malformed[i], text, sizeof text), SIGABRT));
        CHECK(strstr(text, "TL_CRASH=") != NULL && strstr(text, "name:nth") != NULL);
    }
}

static void check_stop(void) {
    int status = 0;
    pid_t pid = start("three", "TL_STOP", "append.after_copy:2");
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(kill(pid, SIGCONT) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && exited(status, 40));
}

static void check_hook_before_trigger(void) {
    CHECK(exited(run("hook", NULL, NULL), 40) && unlink(path) == 0);
    CHECK(killed_by(run("hook", "TL_CRASH", "append.after_copy:2"), SIGKILL) && unlink(path) == 0);
    CHECK(killed_by(run("hook", "TL_CRASH", "append.after_copy:1"), SIGKILL) && unlink(path) < 0 && errno == ENOENT);
}

static void check_log(void) {
    char text[256] = "", unwritable[96];
    CHECK(exited(run("three", "TL_POINT_LOG", path), 40));
    CHECK(exited(run("fork", "TL_POINT_LOG", path), 40));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    /* Once for each of three processes. */
    CHECK(strcmp(text, "append.after_copy\nappend.enter\nappend.after_copy\nappend.enter\n"
                       "append.after_copy\nappend.enter\n") == 0);
    CHECK(unlink(path) == 0);
    snprintf(unwritable, sizeof unwritable, "%s/none/log", directory);
    CHECK(killed_by(run_and_read("three", "TL_POINT_LOG", unwritable, text, sizeof text), SIGABRT));
    CHECK(strstr(text, "TL_POINT_LOG=") != NULL);
}

static void check_bugs(void) {
    char text[512];
    CHECK(exited(run("bug", NULL, NULL), 40));
    CHECK(exited(run("bug", "TL_BUG", ""), 40));
    CHECK(exited(run("bug", "TL_BUG", "FSYNC_RETRIED"), 41));
    for (int bug = 1; bug < TL_BUG_COUNT; bug++)
        CHECK(exited(run("bug", "TL_BUG", tl_bug_name(bug)), bug == TL_BUG_FSYNC_RETRIED ? 41 : 42));
    CHECK(killed_by(run_and_read("bug", "TL_BUG", "FSYNC_RETRIE", text, sizeof text), SIGABRT));
    CHECK(strstr(text, "FSYNC_RETRIE") != NULL && strstr(text, "TL_BUG_LIST") != NULL);
    CHECK(strcmp(tl_bug_name(TL_BUG_NONE), "NONE") == 0);
    CHECK(strcmp(tl_bug_name(TL_BUG_WRITER_IGNORES_DROP), "WRITER_IGNORES_DROP") == 0);
    CHECK(strcmp(tl_bug_name(TL_BUG_COUNT), "?") == 0 && strcmp(tl_bug_name(-1), "?") == 0);
}

/* --- counts, here --- */

static int yields;

static void count_yield(void) { yields++; }

static void check_hooks(void) {
    tl_point_hook = hook;
    TL_POINT("hook.one");
    TL_POINT("hook.two");
    TL_POINT("hook.one");
    tl_point_hook = NULL;
    TL_POINT("hook.one");
    CHECK(hooked_count == 3 && strcmp(hooked[1], "hook.two") == 0 && strcmp(hooked[2], "hook.one") == 0);
    CHECK(tl_point_hits("hook.one") == 3 && tl_point_hits("hook.two") == 1 && tl_point_hits("hook.three") == 0);
    TL_YIELD();
    tl_yield_hook = count_yield;
    TL_YIELD();
    TL_YIELD();
    tl_yield_hook = NULL;
    CHECK(yields == 2);
}

static char names[200][16];

static void *hit_all(void *argument) {
    (void)argument;
    for (int round = 0; round < 50; round++)
        for (size_t i = 0; i < 200; i++)
            TL_POINT(names[i]);
    return NULL;
}

/* Eight threads meet every name for the first time together: one counter each, no hit lost. */
static void check_threads(void) {
    pthread_t threads[8];
    for (size_t i = 0; i < 200; i++)
        snprintf(names[i], sizeof names[i], "thread.%zu", i);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, hit_all, NULL) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < 200; i++) {
        char copy[16];
        memcpy(copy, names[i], sizeof copy); /* by bytes, not by address */
        CHECK(tl_point_hits(copy) == 400);
    }
}

static int64_t fail_pread(int fd, void *to, size_t bytes, uint64_t from) {
    (void)fd, (void)to, (void)bytes, (void)from;
    return -EIO;
}

static bool filled_before_constructors;

__attribute__((constructor)) static void look_at_table(void) { filled_before_constructors = tl_os->open != NULL; }

static void check_table(void) {
    CHECK(filled_before_constructors);
    CHECK(memcmp(tl_os, &tl_io_posix, sizeof tl_io_posix) == 0);
    tl_os_table.pread = fail_pread;
    CHECK(tl_os->pread(0, NULL, 0, 0) == -EIO && tl_io_posix.pread(0, NULL, 0, 0) == 0);
    tl_os_table = tl_io_posix;
    int64_t start = tl_os->monotonic_ns();
    for (int i = 0; i < 1000000; i++)
        TL_POINT("measure.a_point_name");
    printf("a point costs %.1f ns; ", (double)(tl_os->monotonic_ns() - start) / 1e6);
    CHECK(tl_point_hits("measure.a_point_name") == 1000000);
}

int main(int argc, char **argv) {
    if (argc == 2) {
        if (strcmp(argv[1], "three") == 0)
            return run_three();
        if (strcmp(argv[1], "fork") == 0)
            return run_fork();
        if (strcmp(argv[1], "bug") == 0)
            return run_bug();
        return strcmp(argv[1], "hook") == 0 ? run_hook() : 98;
    }
    CHECK(mkdtemp(directory) != NULL);
    snprintf(path, sizeof path, "%s/log", directory);
    check_table();
    check_hooks();
    check_threads();
    check_crash();
    check_stop();
    check_hook_before_trigger();
    check_log();
    check_bugs();
    CHECK(rmdir(directory) == 0);
    return check_report();
}
