/* Does a missing page of a mapped file become an error inside a guard, and still kill the process outside?
 *
 * Imports guard.h and os.h. The sanitizers must leave SIGBUS alone (ASAN_OPTIONS=handle_sigbus=0): their own handler
 * would stand where the test expects the default one. The program sets that itself, in __asan_default_options. */
#define _GNU_SOURCE 1
#include "check.h"
#include "tidelog/guard.h"
#include "tidelog/os.h"

#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "handle_sigbus=0"; }
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "handle_sigbus=0"; }

#define PAGES 4
static size_t page_bytes;

/* Four mapped pages of a file that was cut to one: pages 1 to 3 are missing. */
static uint8_t *broken_map(void) {
    void *map = NULL;
    int fd = memfd_create("guard", MFD_CLOEXEC);
    CHECK(fd >= 0 && tl_os->ftruncate(fd, PAGES * page_bytes) == 0);
    CHECK(tl_os->map(fd, 0, PAGES * page_bytes, true, &map) == 0);
    memset(map, 7, PAGES * page_bytes);
    CHECK(tl_os->ftruncate(fd, page_bytes) == 0);
    tl_os->close(fd);
    return map;
}

static void unmap(uint8_t *map) { CHECK(tl_os->unmap(map, PAGES * page_bytes) == 0); }

/* NULL and the byte, or the fault's address. The load is volatile, or a caller that ignores the byte would lose it. */
static const uint8_t *read_byte(const uint8_t *at, uint8_t *out) {
    tl_guard guard;
    TL_GUARDED(guard) {
        *out = *(const volatile uint8_t *)at;
    } TL_GUARD_CAUGHT(guard) {
        return guard.address;
    }
    return NULL;
}

static int read_by_return(const uint8_t *at) {
    tl_guard guard;
    TL_GUARDED(guard) {
        return *at;
    } TL_GUARD_CAUGHT(guard) {
        return -1;
    }
    return -2; /* never: the block returns */
}

static const uint8_t *copy_bytes(uint8_t *to, const uint8_t *from, size_t bytes) {
    tl_guard guard;
    TL_GUARDED(guard) {
        memmove(to, from, bytes);
    } TL_GUARD_CAUGHT(guard) {
        return guard.address;
    }
    return NULL;
}

static void check_caught(void) {
    uint8_t *map = broken_map(), byte = 0, *buffer = malloc(2 * page_bytes);
    CHECK(read_byte(map + 5, &byte) == NULL && byte == 7);
    CHECK(tl_guard_current == NULL);
    for (int i = 0; i < 1000; i++) {
        size_t at = page_bytes + (size_t)i * 11;
        CHECK(read_byte(map + at, &byte) == map + at);
        CHECK(tl_guard_current == NULL);
    }
    CHECK(read_by_return(map) == 7 && tl_guard_current == NULL);
    CHECK(read_by_return(map + page_bytes) == -1 && tl_guard_current == NULL);
    /* Inside libc's copies, forwards, backwards and both ways across the map: the address lies in the missing page. */
    const uint8_t *at = copy_bytes(buffer, map + page_bytes - 100, 200);
    CHECK(at >= map + page_bytes && at < map + page_bytes + 100);
    memset(buffer, 1, 2 * page_bytes);
    at = copy_bytes(map + page_bytes - 100, buffer, page_bytes);
    CHECK(at >= map + page_bytes && at < map + 2 * page_bytes);
    CHECK(copy_bytes(map + 100, map, page_bytes) >= map + page_bytes);
    CHECK(copy_bytes(map, buffer, page_bytes) == NULL && map[page_bytes - 1] == 1);
    free(buffer);
    unmap(map);
}

/* The rules for locals that guard.h states, and that a fault leaves what was computed before it alone. */
static void check_locals(void) {
    uint8_t *map = broken_map();
    for (int round = 0; round < 100; round++) {
        double kept = round * 1.5;
        uint64_t before[4] = {(uint64_t)round, 2, 3, 4};
        volatile int steps = 0;
        int caught = 0;
        tl_guard guard;
        TL_GUARDED(guard) {
            for (size_t i = 0; i < 4 * page_bytes; i += 64) {
                steps++;
                *(volatile uint8_t *)(map + i);
            }
            caught = 2;
        } TL_GUARD_CAUGHT(guard) {
            caught = 1;
        }
        CHECK(caught == 1 && steps == (int)(page_bytes / 64) + 1);
        CHECK(kept == round * 1.5 && before[0] == (uint64_t)round && before[3] == 4);
    }
    unmap(map);
}

/* A float environment and a signal mask of one's own come through a fault: guard.c does not jump out of the handler. */
static void check_thread_state(void) {
    uint8_t *map = broken_map(), byte;
    sigset_t blocked, now;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
    CHECK(fesetround(FE_UPWARD) == 0);
    CHECK(read_byte(map + page_bytes, &byte) == map + page_bytes);
    CHECK(fegetround() == FE_UPWARD);
    fesetround(FE_TONEAREST);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &blocked, &now) == 0);
    CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGBUS) == 0);
    /* The same on an alternate stack, twice: the kernel must see it as free again. */
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536}, old;
    CHECK(sigaltstack(&alternate, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(read_byte(map + page_bytes, &byte) == map + page_bytes);
        CHECK(sigaltstack(NULL, &old) == 0 && old.ss_flags == 0);
    }
    old.ss_flags = SS_DISABLE;
    CHECK(sigaltstack(&old, NULL) == 0);
    free(alternate.ss_sp);
    unmap(map);
}

static void check_nesting(void) {
    uint8_t *map = broken_map(), byte = 0;
    volatile int order = 0;
    tl_guard outer, inner;
    TL_GUARDED(outer) {
        CHECK(tl_guard_current == &outer);
        TL_GUARDED(inner) {
            CHECK(tl_guard_current == &inner);
            *(volatile uint8_t *)(map + 2 * page_bytes);
            order = 100;
        } TL_GUARD_CAUGHT(inner) {
            CHECK(tl_guard_current == &outer && order == 0);
            order = 1;
        }
        CHECK(read_byte(map + 3 * page_bytes, &byte) == map + 3 * page_bytes); /* one in a function that is called */
        CHECK(tl_guard_current == &outer);
        for (volatile int i = 0; i < 3; i++) {
            TL_GUARDED(inner) {
                byte = *(volatile uint8_t *)map;
                break; /* leaves the block, as documented, not the loop */
            } TL_GUARD_CAUGHT(inner) {
                order = 100;
            }
            CHECK(tl_guard_current == &outer);
            order++;
        }
        *(volatile uint8_t *)(map + page_bytes);
        order = 100;
    } TL_GUARD_CAUGHT(outer) {
        CHECK(order == 4);
        order = 5;
    }
    CHECK(order == 5 && outer.address == map + page_bytes && inner.address == map + 2 * page_bytes);
    CHECK(tl_guard_current == NULL);
    unmap(map);
}

/* --- children that die or are asked --- */

static int child(void (*body)(uint8_t *map)) {
    uint8_t *map = broken_map();
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(10); /* a circle of handlers must fail the test, not hang it */
        body(map);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    unmap(map);
    return status;
}

static void touch(uint8_t *map) { *(volatile uint8_t *)(map + page_bytes); }

static void send_it(uint8_t *map) {
    (void)map;
    raise(SIGBUS);
}

/* A signal that somebody sent says nothing about the block it meets. */
static void send_it_into_a_guard(uint8_t *map) {
    tl_guard guard;
    TL_GUARDED(guard) {
        send_it(map);
    } TL_GUARD_CAUGHT(guard) {
        _exit(3);
    }
}

static uint8_t *expected_address;

static void with_info(int signal, siginfo_t *info, void *context) {
    _exit(signal == SIGBUS && info->si_addr == expected_address && context != NULL ? 41 : 1);
}

static int fake_calls;

static void plain(int signal) { _exit(signal == SIGBUS ? 42 + fake_calls : 1); }

static void set_handler(void (*handler)(int), void (*action)(int, siginfo_t *, void *)) {
    struct sigaction a = {.sa_flags = SA_NODEFER};
    if (action != NULL) {
        a.sa_flags |= SA_SIGINFO;
        a.sa_sigaction = action;
    } else {
        a.sa_handler = handler;
    }
    CHECK(sigaction(SIGBUS, &a, NULL) == 0);
}

/* Each of these runs in a child that has not installed yet, as main() forks them first. */
static void chain_to_info(uint8_t *map) {
    uint8_t byte;
    set_handler(NULL, with_info);
    CHECK(tl_guard_install(NULL) == TL_OK);
    CHECK(read_byte(map + page_bytes, &byte) == map + page_bytes);
    expected_address = map + page_bytes;
    touch(map);
}

static void chain_to_plain(uint8_t *map) {
    set_handler(plain, NULL);
    CHECK(tl_guard_install(NULL) == TL_OK && tl_guard_install(NULL) == TL_OK);
    touch(map);
}

static void chain_to_ignore(uint8_t *map) {
    set_handler(SIG_IGN, NULL);
    CHECK(tl_guard_install(NULL) == TL_OK);
    raise(SIGBUS); /* ignored, as it was before us */
    touch(map);    /* kills, as it would have before us */
}

static struct sigaction before_fake;

/* What Python's faulthandler does: report, put the handler before it back, raise again. */
static void fake_faulthandler(int signal) {
    if (++fake_calls > 3)
        _exit(9);
    sigaction(signal, &before_fake, NULL);
    raise(signal);
}

static void enable_fake(void) {
    struct sigaction a = {.sa_flags = SA_NODEFER, .sa_handler = fake_faulthandler};
    CHECK(sigaction(SIGBUS, &a, &before_fake) == 0);
}

static void reported_before_us(uint8_t *map) {
    enable_fake();
    CHECK(tl_guard_install(NULL) == TL_OK);
    touch(map);
}

/* Enabled over us and overtaken by the next opening: guards work, and the circle ours - theirs - ours ends in death. */
static void reported_between_us(uint8_t *map) {
    uint8_t byte;
    CHECK(tl_guard_install(NULL) == TL_OK);
    enable_fake();
    CHECK(tl_guard_install(NULL) == TL_OK);
    CHECK(read_byte(map + page_bytes, &byte) == map + page_bytes && fake_calls == 0);
    touch(map);
}

static void reported_between_us_after_plain(uint8_t *map) {
    set_handler(plain, NULL); /* the first one: reached in the second round */
    reported_between_us(map);
}

static void raise_again(int signal) {
    if (++fake_calls > 5)
        _exit(9);
    raise(signal);
}

/* Nobody in the chain ends the process: theirs comes back to us, and so does the first one. */
static void nobody_dies(uint8_t *map) {
    set_handler(raise_again, NULL);
    reported_between_us(map);
}

static sigjmp_buf jump_place;

static void jumper(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)info;
    (void)context;
    siglongjmp(jump_place, 1);
}

/* Another library with guards of this kind may jump out of its handler as often as it likes. */
static void foreign_jumps(uint8_t *map) {
    static volatile int jumps;
    set_handler(NULL, jumper);
    CHECK(tl_guard_install(NULL) == TL_OK);
    while (jumps < 10) {
        if (sigsetjmp(jump_place, 1) == 0) {
            touch(map);
            _exit(1);
        }
        jumps++;
    }
    _exit(43);
}

static void many_handlers(uint8_t *map) {
    (void)map;
    tl_error err;
    for (uintptr_t i = 0; i < 40; i++) { /* never called: only their addresses differ */
        struct sigaction a = {.sa_handler = SIG_DFL};
        if (i > 0) {
            uintptr_t address = 4096 + i;
            memcpy(&a.sa_handler, &address, sizeof address);
        }
        CHECK(sigaction(SIGBUS, &a, NULL) == 0);
        int status = tl_guard_install(&err);
        if (status != TL_OK)
            _exit(status == TL_EFULL && i == 16 ? 44 : 1);
    }
}

static void check_children_before_install(void) {
    int status = child(chain_to_info);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 41);
    status = child(chain_to_plain);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    status = child(chain_to_ignore);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = child(reported_before_us);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
#ifndef __SANITIZE_THREAD__ /* it delivers a signal raised in a handler only after that handler, so nothing nests */
    status = child(reported_between_us);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = child(reported_between_us_after_plain);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 43); /* theirs first, then the first one */
    status = child(nobody_dies);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
#endif
    status = child(foreign_jumps);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 43);
    status = child(many_handlers);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 44);
}

static void check_children_after_install(void) {
    int status = child(touch);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = child(send_it);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = child(send_it_into_a_guard);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

/* --- threads and cost --- */

static uint8_t *shared_map;

static void *fault_often(void *argument) {
    uintptr_t number = (uintptr_t)argument, wrong = 0;
    for (size_t i = 0; i < 5000; i++) {
        size_t at = (i % PAGES) * page_bytes + number;
        uint8_t byte = 0;
        const uint8_t *fault = read_byte(shared_map + at, &byte);
        bool good = i % PAGES == 0 ? fault == NULL && byte == 7 : fault == shared_map + at;
        wrong += !good;
        if (i % 16 == 0)
            wrong += tl_guard_install(NULL) != TL_OK;
    }
    wrong += tl_guard_current != NULL;
    return (void *)wrong;
}

static void check_threads(void) {
    pthread_t threads[8];
    shared_map = broken_map();
    for (uintptr_t i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, fault_often, (void *)i) == 0);
    for (int i = 0; i < 8; i++) {
        void *wrong;
        CHECK(pthread_join(threads[i], &wrong) == 0 && wrong == NULL);
    }
    unmap(shared_map);
}

__attribute__((noinline)) static void guarded_add(volatile uint64_t *word) {
    tl_guard guard;
    TL_GUARDED(guard) {
        *word += 1;
    } TL_GUARD_CAUGHT(guard) {
        abort();
    }
}

__attribute__((noinline)) static void plain_add(volatile uint64_t *word) { *word += 1; }

static void measure(void) {
    volatile uint64_t word = 0;
    double best[2] = {1e9, 1e9};
    for (int round = 0; round < 10; round++) {
        for (int guarded = 0; guarded < 2; guarded++) {
            int64_t start = tl_os->monotonic_ns();
            for (int i = 0; i < 1000000; i++) {
                if (guarded)
                    guarded_add(&word);
                else
                    plain_add(&word);
            }
            double ns = (double)(tl_os->monotonic_ns() - start) / 1e6;
            best[guarded] = ns < best[guarded] ? ns : best[guarded];
        }
    }
    CHECK(word == 20000000 && tl_guard_current == NULL);
    printf("call with a guard %.2f ns, without %.2f ns; ", best[1], best[0]);
}

int main(void) {
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    check_children_before_install();
    CHECK(tl_guard_install(NULL) == TL_OK);
    CHECK(tl_guard_install(NULL) == TL_OK);
    check_caught();
    check_locals();
    check_thread_state();
    check_nesting();
    check_children_after_install();
    check_threads();
    measure();
    return check_report();
}
