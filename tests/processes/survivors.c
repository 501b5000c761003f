/* Do three writers and two readers of one partition go on, whoever of them is killed or stopped?
 *
 * Imports shared.h. The parent kills one of them every now and then, half of the time inside a lock, and starts it again;
 * it stops others inside the lock and lets them go on: nobody may take a lock from a process that is only stopped. Each
 * writer times its calls. What a survivor waited longer than 100 ms is a failure, less what the machine took: the time its
 * own thread waited for a processor, or that the hiccup meter (a thread that only sleeps) lost, or that a stopped owner held
 * the lock. Then pairs of messages, the second one published while the readers go back to sleep, show lost wake-ups.
 *
 * Usage: survivors [--kills N] [--seed N] [--pairs N] [--directory D]     Exit code: 0 nothing is wrong, 1 something is, 2 usage */
#define _GNU_SOURCE
#include "shared.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES = WRITERS + READERS, STALL_LIMIT_MS = 100, LATE_LIMIT_MS = 50, WATCHDOG_MS = 10000 };

static pid_t pids[PROCESSES];
static uint64_t seed, wanted_kills = 300, pairs = 200, kills[PROCESSES], kills_in_lock, stops;
static int64_t worst_raw_ns, worst_net_ns, worst_hiccup_ns;
static const char *program;

static int failed(const char *what) {
    fprintf(stderr, "FAILED: %s; seed %llu\n  again: %s --seed %llu --kills %llu --pairs %llu\n  store: %s\n", what,
            (unsigned long long)seed, program, (unsigned long long)seed, (unsigned long long)wanted_kills,
            (unsigned long long)pairs, b->path);
    for (int i = 0; i < PROCESSES; i++)
        if (pids[i] > 0)
            kill(pids[i], SIGKILL);
    return 1;
}

/* --- what the machine took --- */

static uint32_t meter_stop;

static void excuse(int64_t from, int64_t until) {
    uint32_t at = __atomic_fetch_add(&b->excuse_count, 1, __ATOMIC_SEQ_CST);
    b->excuses[at % EXCUSES] = (interval){from, until};
}

static void *measure_hiccups(void *context) {
    (void)context;
    while (__atomic_load_n(&meter_stop, __ATOMIC_ACQUIRE) == 0) {
        int64_t from = now_ns();
        sleep_us(1000);
        int64_t until = now_ns(), late = until - from - 1000000;
        if (late > worst_hiccup_ns)
            worst_hiccup_ns = late;
        if (late > 2000000)
            excuse(from, until);
    }
    return NULL;
}

/* Intervals may overlap, so the excused part of each is cut out of what is left; good enough, and never too much. */
static int64_t excused_ns(interval call) {
    int64_t sum = 0, at = call.from;
    uint32_t count = b->excuse_count < EXCUSES ? b->excuse_count : EXCUSES;
    while (at < call.until) {
        int64_t best_from = call.until, best_until = call.until;
        for (uint32_t i = 0; i < count; i++) {
            const interval *e = &b->excuses[i];
            if (e->until > at && e->from < call.until && e->from < best_from) {
                best_from = e->from < at ? at : e->from;
                best_until = e->until < call.until ? e->until : call.until;
                if (best_from == at)
                    break;
            }
        }
        sum += best_until - best_from;
        at = best_until;
    }
    return sum;
}

/* --- children --- */

static void start(int i) {
    fflush(NULL);
    pids[i] = fork();
    if (pids[i] != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (i < WRITERS)
        run_writer((uint32_t)i, seed ^ (kills[i] << 32) ^ (uint64_t)i);
    run_reader((uint32_t)(i - WRITERS));
}

/* -1: it ended by itself, which is wrong. */
static int reap(int i, bool by_kill) {
    int status = 0;
    waitpid(pids[i], &status, 0);
    pids[i] = 0;
    if (by_kill && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 0;
    if (!by_kill && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    fprintf(stderr, "%s %d ended with status %#x\n", i < WRITERS ? "writer" : "reader", i < WRITERS ? i : i - WRITERS,
            status);
    return -1;
}

static uint64_t progress(void) {
    uint64_t sum = 0;
    for (int w = 0; w < WRITERS; w++)
        sum += __atomic_load_n(&b->writers[w].calls, __ATOMIC_RELAXED);
    for (int r = 0; r < READERS; r++)
        sum += (uint64_t)__atomic_load_n(&b->readers[r].next, __ATOMIC_RELAXED);
    return sum;
}

static bool anybody_ended(void) {
    for (int i = 0; i < PROCESSES; i++) {
        siginfo_t info = {0};
        if (pids[i] > 0 && waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0)
            return true;
    }
    return false;
}

/* --- one victim --- */

static int kill_one(int victim, bool inside, uint64_t *state) {
    if (!inside || victim >= WRITERS) {
        kill(pids[victim], SIGKILL);
    } else {
        b->writers[victim].steps = (uint32_t)(random_of(state) % 40);
        __atomic_store_n(&b->writers[victim].order, ORDER_DIE, __ATOMIC_SEQ_CST);
        int64_t deadline = now_ns() + (int64_t)WATCHDOG_MS * 1000000;
        siginfo_t info = {0};
        while (waitid(P_PID, (id_t)pids[victim], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0) {
            if (now_ns() > deadline)
                return failed("a writer came by no point for 10 s");
            sleep_us(200);
            info.si_pid = 0;
        }
        kills_in_lock++;
    }
    if (reap(victim, true) < 0)
        return failed("a process ended by itself");
    kills[victim]++;
    /* Mostly the others meet the lock of the dead one; sometimes its successor is quicker, in the same slot. */
    if (random_of(state) % 3 != 0)
        sleep_us(30000);
    if (victim < WRITERS)
        __atomic_store_n(&b->writers[victim].order, ORDER_NONE, __ATOMIC_SEQ_CST);
    start(victim);
    return 0;
}

/* Stopped with the lock in hand; the others must wait for it as long as it takes. */
static int stop_one(int victim, uint64_t *state) {
    writer *w = &b->writers[victim];
    w->steps = (uint32_t)(random_of(state) % 20);
    __atomic_store_n(&w->order, ORDER_STOP, __ATOMIC_SEQ_CST);
    int64_t from = now_ns(), deadline = from + (int64_t)WATCHDOG_MS * 1000000;
    while (__atomic_load_n(&w->in_lock, __ATOMIC_SEQ_CST) == 0) {
        if (now_ns() > deadline)
            return failed("a writer that was told to stop came by no point for 10 s");
        sleep_us(200);
    }
    sleep_us(60000 + (int64_t)(random_of(state) % 60000));
    kill(pids[victim], SIGCONT);
    while (__atomic_load_n(&w->in_lock, __ATOMIC_SEQ_CST) != 0)
        sleep_us(100);
    /* A waiter of the word sleeps at most 20 ms more, if it missed the wake. */
    excuse(from, now_ns() + 20000000);
    stops++;
    return 0;
}

/* --- judgement --- */

static int judge_stalls(void) {
    for (int w = 0; w < WRITERS; w++) {
        const writer *one = &b->writers[w];
        uint32_t count = __atomic_load_n(&one->slow_count, __ATOMIC_ACQUIRE);
        for (uint32_t i = count > SLOW ? count - SLOW : 0; i < count; i++) {
            const slow_call *slow = &one->slow[i % SLOW];
            int64_t raw = slow->when.until - slow->when.from, excused = excused_ns(slow->when);
            int64_t net = raw - (excused > slow->delayed_ns ? excused : slow->delayed_ns);
            if (excused == 0 && raw > worst_raw_ns)
                worst_raw_ns = raw;
            if (net > worst_net_ns)
                worst_net_ns = net;
        }
        if (__atomic_load_n(&one->robbed, __ATOMIC_SEQ_CST) != 0)
            return failed("a writer appended while another one was stopped with the lock in its hands");
    }
    return worst_net_ns > (int64_t)STALL_LIMIT_MS * 1000000 ? failed("a survivor waited longer than 100 ms") : 0;
}

static int run_kills(uint64_t *state) {
    uint64_t before = 0;
    int64_t moved_at = now_ns();
    for (uint64_t done = 0; done < wanted_kills;) {
        sleep_us(30000 + (int64_t)(random_of(state) % 50000));
        if (anybody_ended())
            return failed("a process ended by itself");
        uint64_t now = progress();
        if (now != before)
            moved_at = now_ns();
        before = now;
        if (now_ns() - moved_at > (int64_t)WATCHDOG_MS * 1000000)
            return failed("nobody has got on for 10 s");
        int victim = (int)(random_of(state) % PROCESSES), status;
        if (victim < WRITERS && random_of(state) % 6 == 0) {
            status = stop_one(victim, state);
        } else {
            status = kill_one(victim, random_of(state) % 2 == 0, state);
            done++;
        }
        if (status != 0)
            return status;
        if (done % 32 == 0 && (status = judge_stalls()) != 0)
            return status;
    }
    return judge_stalls();
}

static bool readers_at(int64_t offset, int64_t deadline) {
    for (;;) {
        bool there = true;
        for (int r = 0; r < READERS; r++)
            there = there && __atomic_load_n(&b->readers[r].next, __ATOMIC_ACQUIRE) > offset;
        if (there || now_ns() > deadline)
            return there;
        sleep_us(500);
    }
}

/* A child, so that the parent never opens the store. */
static int run_pairs(uint64_t pair_seed) {
    uint64_t state = pair_seed;
    tl_store *store = enter(false);
    tl_partition *partition = partition_of(store);
    for (uint64_t i = 0; i < pairs; i++) {
        int64_t offset = write_pair(partition, &state), published = now_ns();
        if (!readers_at(offset, published + (int64_t)WATCHDOG_MS * 1000000))
            wrong("a reader has not seen a message for 10 s");
        const interval wait = {published, now_ns()};
        int64_t net = wait.until - wait.from - excused_ns(wait);
        b->slowest_ns = net > b->slowest_ns ? net : b->slowest_ns;
        b->late += net > (int64_t)LATE_LIMIT_MS * 1000000;
        sleep_us(1000 + (int64_t)(random_of(&state) % 5000));
    }
    leave(store, partition);
    return 0;
}

static int judge_wakes(uint64_t *state) {
    if (pairs == 0)
        return 0;
    for (int w = 0; w < WRITERS; w++) /* only the readers are left to be woken; what writers know is on the board */
        kill(pids[w], SIGKILL), (void)reap(w, true);
    uint64_t pair_seed = random_of(state);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(run_pairs(pair_seed));
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0)
        return failed("the pairs went wrong");
    if (b->late > 1) /* one may be the machine's */
        return failed("waiting readers were woken late, again and again");
    return 0;
}

static int judge_end(void) {
    __atomic_store_n(&b->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < PROCESSES; i++)
        if (pids[i] > 0 && reap(i, false) < 0)
            return failed("a process could not end");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        verify_all();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status == 0 ? 0 : failed("what is left is not what was written");
}

static int make_store(void) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        tl_error err = {0};
        tl_store *store = enter(false);
        tl_partition_config config = {.segment_bytes = 65536,
                                      .segment_ms = -1,
                                      .retention_ms = -1,
                                      .retention_bytes = -1,
                                      .max_message_bytes = 1 << 20,
                                      .directory = "events-0"};
        memcpy(config.channel, channel_id, 16);
        expect_ok(tl_store_create_partitions(store, &config, 1, &b->slot, &err), &err, "create");
        expect_ok(tl_store_close(store, &err), &err, "close");
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

static int usage(void) {
    fprintf(stderr, "usage: survivors [--kills N] [--seed N] [--pairs N] [--directory D]\n");
    return 2;
}

int main(int argc, char **argv) {
    static char directory[200];
    char command[400];
    program = argv[0];
    seed = (uint64_t)now_ns() ^ (uint64_t)getpid() << 40;
    b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b == MAP_FAILED)
        return usage();
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--kills") == 0)
            wanted_kills = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--pairs") == 0)
            pairs = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--directory") == 0)
            snprintf(directory, sizeof directory, "%s", argv[i + 1]);
        else
            return usage();
    }
    if (argc % 2 == 0)
        return usage();
    /* In memory, so that no call waits for a disk. */
    if (directory[0] == 0) {
        snprintf(directory, sizeof directory, "%s/tl-survivors-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (mkdtemp(directory) == NULL)
            return usage();
    }
    snprintf(b->path, sizeof b->path, "%s/store", directory);
    uint64_t state = seed;
    int64_t begin = now_ns();
    if (make_store() != 0)
        return failed("the store could not be made");
    for (int i = 0; i < PROCESSES; i++)
        start(i);
    pthread_t meter;
    if (pthread_create(&meter, NULL, measure_hiccups, NULL) != 0)
        return failed("the hiccup meter cannot be started");
    int status = run_kills(&state);
    if (status == 0)
        status = judge_wakes(&state);
    if (status == 0)
        status = judge_end();
    __atomic_store_n(&meter_stop, 1, __ATOMIC_RELEASE);
    pthread_join(meter, NULL);
    uint64_t sent = 0, waits = 0;
    int64_t worst_wake_ns = 0;
    for (int w = 0; w < WRITERS; w++)
        sent += b->writers[w].asked;
    for (int r = 0; r < READERS; r++) {
        waits += b->readers[r].waits;
        worst_wake_ns = b->readers[r].worst_ns > worst_wake_ns ? b->readers[r].worst_ns : worst_wake_ns;
    }
    printf("%llu kills (writers %llu %llu %llu, readers %llu %llu; %llu inside a lock), %llu stops inside the lock; "
           "%llu messages, %llu wake-ups; %.1f s; seed %llu\n",
           (unsigned long long)(kills[0] + kills[1] + kills[2] + kills[3] + kills[4]), (unsigned long long)kills[0],
           (unsigned long long)kills[1], (unsigned long long)kills[2], (unsigned long long)kills[3],
           (unsigned long long)kills[4], (unsigned long long)kills_in_lock, (unsigned long long)stops,
           (unsigned long long)sent, (unsigned long long)waits, (double)(now_ns() - begin) / 1e9,
           (unsigned long long)seed);
    printf("longest call of a survivor %.1f ms (limit 100), %.1f ms less what the machine took; worst hiccup %.1f ms\n",
           (double)worst_raw_ns / 1e6, (double)worst_net_ns / 1e6, (double)worst_hiccup_ns / 1e6);
    printf("slowest wake-up beside kills %.1f ms; slowest of %llu pairs %.1f ms (limit 50), %u late\n",
           (double)worst_wake_ns / 1e6, (unsigned long long)pairs, (double)b->slowest_ns / 1e6, b->late);
    if (status == 0) {
        snprintf(command, sizeof command, "rm -rf '%s'", directory);
        if (system(command) != 0)
            fprintf(stderr, "%s cannot be removed\n", directory);
    }
    return status;
}
