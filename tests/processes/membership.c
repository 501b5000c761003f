/* Do the members of a group in several processes keep and lose their partitions as they should, when they are
 * killed, stopped, replaced, too slow, or die inside the table's lock?
 *
 * Imports the public headers of the core. The parent is a member itself and watches; each round it starts others,
 * has them join and take partitions, and does something to them. How long a death went unnoticed is measured: from
 * the kill to the moment when a survivor, who sleeps in tl_store_wait, may take the partition.
 *
 * Usage: membership [--rounds N] [--directory D]    Exit code: 0 nothing is wrong, 1 something is, 2 usage */
#define _GNU_SOURCE
#include "tidelog/groups.h"
#include "tidelog/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 4, MS = 1000000, NOTICE_LIMIT_MS = 100, PATIENCE_MS = 10000 };

static const uint8_t channel_id[16] = "membership-lane!";
static char path[256];
static const char *doing = "start";
static tl_error error;
static int64_t noticed_ns[4096];
static int noticed;

/* What the processes tell each other. */
typedef struct board {
    uint32_t order;      /* of the parent: the child goes on when it is as large as it waits for */
    uint32_t reached;    /* of the child: where it is */
    tl_member member;    /* of the child */
    tl_owner owner;
    uint32_t epoch[SLOTS];
    int32_t taken;       /* how many leases it has */
    int32_t status;      /* of its last call */
    uint32_t active;
} board;
static board *b;

__attribute__((format(printf, 1, 2), noreturn)) static void wrong(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "WRONG: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n  while: %s\n  store: %s\n", doing, path);
    va_end(arguments);
    _exit(1); /* children die with their parent */
}

#define EXPECT(condition) \
    do { \
        if (!(condition)) \
            wrong("line %d: %s (last error: %s)", __LINE__, #condition, error.what == NULL ? "none" : error.what); \
    } while (0)

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void pause_us(long us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

#define UNTIL(condition) \
    do { \
        for (int64_t since = now_ns(); !(condition); pause_us(100)) \
            if (now_ns() - since > (int64_t)PATIENCE_MS * MS) \
                wrong("line %d: waited in vain for: %s", __LINE__, #condition); \
    } while (0)

static uint32_t word(const uint32_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
static void say(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }

/* --- a process of the store --- */

static tl_store *enter(bool threads) {
    const tl_store_options options = {
        .flush_interval_ms = 1000, .lock_timeout_ms = 5000, .create = true, .no_housekeeper = !threads};
    tl_store *store = NULL;
    int state = 0;
    EXPECT(tl_store_open(path, &options, &store, &state, NULL, &error) == TL_OK);
    EXPECT(tl_store_ready(store, &error) == TL_OK);
    return store;
}

static tl_member join(tl_store *store, const char *name, int64_t max_processing_ns, int64_t away_ns) {
    static const uint32_t channels[1] = {1};
    const tl_member_options options = {.name = name,
                                       .name_bytes = name == NULL ? 0 : strlen(name),
                                       .strategy = "sticky",
                                       .strategy_bytes = 6,
                                       .channels = channels,
                                       .channel_count = 1,
                                       .max_processing_ns = max_processing_ns,
                                       .away_ns = away_ns};
    tl_member member;
    EXPECT(tl_group_join(store, "g", 1, &options, &member, &error) == TL_OK);
    return member;
}

static void slots_of(tl_store *store, uint32_t slots[SLOTS]) {
    for (uint32_t i = 0; i < SLOTS; i++)
        EXPECT(tl_store_offset_slot(store, "g", 1, channel_id, i, true, &slots[i], &error) == TL_OK);
}

static int plan(tl_store *store, const tl_member *by, uint64_t version, const tl_member *to) {
    uint32_t slots[SLOTS];
    int32_t members[SLOTS];
    slots_of(store, slots);
    for (int i = 0; i < SLOTS; i++)
        members[i] = (int32_t)to->index;
    return tl_group_install(store, by, version, slots, members, SLOTS, &error);
}

static int take_all(tl_store *store, const tl_member *member, uint32_t epoch[SLOTS]) {
    uint32_t slots[SLOTS];
    int taken = 0;
    slots_of(store, slots);
    for (int i = 0; i < SLOTS; i++)
        taken += tl_member_claim(store, member, slots[i], &epoch[i]) == 1;
    return taken;
}

static uint32_t wakes_of(tl_store *store, tl_owner owner) {
    char name[300];
    snprintf(name, sizeof name, "%s/shared", tl_store_path(store));
    FILE *file = fopen(name, "re");
    tl_process process;
    EXPECT(file != NULL && fseek(file, (long)(TL_SHARED_PROCESSES_AT + tl_owner_slot(owner) * sizeof process), SEEK_SET) == 0 &&
           fread(&process, sizeof process, 1, file) == 1);
    fclose(file);
    return process.word;
}

/* --- the child --- */

typedef struct role {
    const char *name;
    int64_t max_processing_ns, away_ns;
    bool plans;       /* gives everything to itself and takes it */
    const char *dies; /* the point at which it dies when it is told to leave */
} role;

static const char *dies_at;
static void die_there(const char *name) {
    if (dies_at != NULL && strcmp(name, dies_at) == 0)
        raise(SIGKILL);
}

__attribute__((noreturn)) static void run_child(const role *r) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    tl_store *store = enter(true);
    tl_member member = join(store, r->name, r->max_processing_ns, r->away_ns);
    b->member = member;
    b->owner = tl_store_owner(store);
    if (r->plans) {
        EXPECT(plan(store, &member, tl_member_version(store, &member), &member) == 1);
        b->taken = take_all(store, &member, b->epoch);
    }
    if (r->max_processing_ns >= 0)
        tl_member_handles(store, &member, tl_os->monotonic_ns());
    say(&b->reached, 1);
    UNTIL(word(&b->order) >= 1);
    uint32_t slots[SLOTS];
    slots_of(store, slots);
    b->status = tl_offsets_commit(tl_store_offsets(store), slots[0], b->owner, b->epoch[0], 7, 1);
    b->active = tl_member_is_active(store, &member);
    say(&b->reached, 2);
    UNTIL(word(&b->order) >= 2);
    dies_at = r->dies;
    EXPECT(tl_member_leave(store, &member, false, &error) == TL_OK);
    tl_store_close(store, &error);
    _exit(0);
}

static pid_t start(const role *r) {
    memset(b, 0, sizeof *b);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        run_child(r);
    UNTIL(word(&b->reached) == 1 || waitpid(child, NULL, WNOHANG) == child);
    if (word(&b->reached) != 1)
        wrong("the child ended before it was ready");
    return child;
}

static void reap(pid_t child) {
    int status;
    EXPECT(waitpid(child, &status, 0) == child);
}

static void end(pid_t child) {
    kill(child, SIGKILL);
    reap(child);
}

/* Sleeps like a consumer: until the group turns, again and again, until the membership has another version. */
static void sleep_until_newer(tl_store *store, const tl_member *me, uint64_t version) {
    uint32_t turn = *tl_member_turn(store, me);
    for (int64_t begin = now_ns(); tl_member_version(store, me) == version;) {
        int status = tl_store_wait(store, NULL, NULL, 0, 50 * (int64_t)MS, 0,
                                   &(tl_turn){tl_member_turn(store, me), turn}, 1, NULL, &error);
        EXPECT(status == TL_ETURNED || status == TL_ETIMEOUT);
        turn = *tl_member_turn(store, me);
        if (now_ns() - begin > (int64_t)PATIENCE_MS * MS)
            wrong("nobody noticed that a member is gone");
    }
}

/* Lets the watcher learn of a newcomer, as a consumer that waits does. */
static void wait_a_moment(tl_store *store, const tl_member *me) {
    for (int i = 0; i < 2; i++)
        (void)tl_store_wait(store, NULL, NULL, 0, 5 * (int64_t)MS, 0,
                            &(tl_turn){tl_member_turn(store, me), *tl_member_turn(store, me)}, 1, NULL, &error);
}

/* --- the rounds --- */

static void killed(tl_store *store, const tl_member *me) {
    uint32_t epoch[SLOTS];
    doing = "a member is killed";
    pid_t child = start(&(role){.max_processing_ns = -1, .plans = true});
    EXPECT(b->taken == SLOTS);
    EXPECT(plan(store, me, tl_member_version(store, me), me) == 1);
    EXPECT(take_all(store, me, epoch) == 0); /* it lives and holds them */
    wait_a_moment(store, me);
    uint64_t version = tl_member_version(store, me);
    uint32_t turn = *tl_member_turn(store, me);
    int64_t begin = now_ns();
    kill(child, SIGKILL);
    sleep_until_newer(store, me, version);
    UNTIL(*tl_member_turn(store, me) != turn); /* what others compare */
    EXPECT(plan(store, me, tl_member_version(store, me), me) == 1);
    EXPECT(take_all(store, me, epoch) == SLOTS);
    noticed_ns[noticed++ % 4096] = now_ns() - begin;
    reap(child);
    uint32_t slots[SLOTS];
    slots_of(store, slots);
    for (int i = 0; i < SLOTS; i++)
        EXPECT(tl_offsets_release(tl_store_offsets(store), slots[i], tl_store_owner(store), epoch[i]) == TL_OK);
}

static void stopped(tl_store *store, const tl_member *me) {
    uint32_t epoch[SLOTS];
    doing = "a member is stopped, and has no limit";
    pid_t child = start(&(role){.max_processing_ns = -1, .plans = true});
    uint64_t version = tl_member_version(store, me);
    kill(child, SIGSTOP);
    pause_us(150000);
    EXPECT(tl_groups_sweep(store) == 0 && tl_member_version(store, me) == version);
    EXPECT(plan(store, me, version, me) == 1 && take_all(store, me, epoch) == 0);
    kill(child, SIGCONT);
    say(&b->order, 1);
    UNTIL(word(&b->reached) == 2);
    EXPECT(b->status == TL_OK && b->active);
    end(child);
    sleep_until_newer(store, me, version);

    doing = "a member is stopped for longer than it may handle a message";
    child = start(&(role){.max_processing_ns = 60 * (int64_t)MS, .plans = true});
    version = tl_member_version(store, me);
    kill(child, SIGSTOP);
    wait_a_moment(store, me);
    sleep_until_newer(store, me, version);
    EXPECT(plan(store, me, tl_member_version(store, me), me) == 1);
    EXPECT(take_all(store, me, epoch) == SLOTS);
    kill(child, SIGCONT);
    say(&b->order, 1);
    UNTIL(word(&b->reached) == 2);
    EXPECT(b->status == TL_EFENCED && !b->active);
    end(child);
    uint32_t slots[SLOTS];
    slots_of(store, slots);
    for (int i = 0; i < SLOTS; i++)
        EXPECT(tl_offsets_release(tl_store_offsets(store), slots[i], tl_store_owner(store), epoch[i]) == TL_OK);
}

static void replaced(tl_store *store, const tl_member *me) {
    doing = "a static member is stopped and replaced by its name";
    pid_t child = start(&(role){.name = "till-3", .max_processing_ns = -1, .away_ns = 3000 * (int64_t)MS, .plans = true});
    EXPECT(b->taken == SLOTS);
    tl_member old = b->member;
    uint64_t version = tl_member_version(store, me);
    uint32_t epoch[SLOTS];
    kill(child, SIGSTOP);
    tl_member newer = join(store, "till-3", -1, 3000 * (int64_t)MS);
    EXPECT(newer.index == old.index && tl_member_id(&newer) != tl_member_id(&old));
    EXPECT(tl_member_version(store, me) == version && take_all(store, &newer, epoch) == SLOTS);
    kill(child, SIGCONT);
    say(&b->order, 1);
    UNTIL(word(&b->reached) == 2);
    EXPECT(b->status == TL_EFENCED && !b->active && tl_member_is_active(store, &newer));
    end(child);
    EXPECT(tl_member_leave(store, &newer, false, &error) == TL_OK);

    doing = "a static member is killed and comes back in time";
    child = start(&(role){.name = "till-4", .max_processing_ns = -1, .away_ns = 30000 * (int64_t)MS, .plans = true});
    old = b->member;
    version = tl_member_version(store, me);
    end(child);
    tl_groups_sweep(store);
    tl_groups_sweep(store); /* away, and not long enough */
    EXPECT(tl_member_version(store, me) == version);
    newer = join(store, "till-4", -1, 0);
    EXPECT(newer.index == old.index && tl_member_version(store, me) == version && take_all(store, &newer, epoch) == SLOTS);
    EXPECT(tl_member_leave(store, &newer, false, &error) == TL_OK);

    doing = "a static member is killed and does not come back";
    child = start(&(role){.name = "till-5", .max_processing_ns = -1, .away_ns = 30 * (int64_t)MS, .plans = true});
    version = tl_member_version(store, me);
    end(child);
    sleep_until_newer(store, me, version);
}

/* Under the lock: members changed, and nobody was told. Survivors must see another version. */
static void died_inside(tl_store *store, const tl_member *me) {
    static const char *const points[] = {"groups.leave.begun", "groups.leave.stored", "groups.leave.done"};
    for (int i = 0; i < 3; i++) {
        doing = points[i];
        pid_t child = start(&(role){.max_processing_ns = -1, .plans = true, .dies = points[i]});
        wait_a_moment(store, me);
        uint64_t version = tl_member_version(store, me);
        say(&b->order, 2);
        reap(child);
        int64_t begin = now_ns();
        sleep_until_newer(store, me, version);
        noticed_ns[noticed++ % 4096] = now_ns() - begin;
        pause_us(1000);
        tl_groups_sweep(store);
        tl_group_view view;
        static tl_member_info infos[TL_MEMBERS];
        EXPECT(tl_group_view_of(store, me->number, &view, infos, &error) == TL_OK && view.count == 1);
        EXPECT(plan(store, me, tl_member_version(store, me), me) == 1);
    }
}

static void told(tl_store *store, const tl_member *me) {
    doing = "a plan is installed";
    pid_t child = start(&(role){.max_processing_ns = -1});
    uint64_t version = tl_member_version(store, me);
    uint32_t wakes = wakes_of(store, b->owner);
    EXPECT(plan(store, me, version - 1, me) == 0);
    EXPECT(tl_member_assigned(store, me) != version);
    EXPECT(wakes_of(store, b->owner) == wakes);
    EXPECT(plan(store, me, version, &b->member) == 1 && tl_member_assigned(store, me) == version);
    if (wakes_of(store, b->owner) == wakes)
        wrong("a plan was installed and nobody was woken");
    say(&b->order, 2);
    reap(child);
}

/* A lease that was taken by no member, where the last holder that is written down has left: it is held nevertheless. */
static void borrowed(tl_store *store, const tl_member *me) {
    doing = "a lease is taken by one who is no member";
    uint32_t slots[SLOTS], epoch[SLOTS], taken = 0;
    tl_member other = join(store, NULL, -1, 0);
    tl_offset_word lease;
    tl_offsets *table = tl_store_offsets(store);
    slots_of(store, slots);
    EXPECT(plan(store, me, tl_member_version(store, me), &other) == 1 && take_all(store, &other, epoch) == SLOTS);
    for (int i = 0; i < SLOTS; i++)
        EXPECT(tl_offsets_release(table, slots[i], tl_store_owner(store), epoch[i]) == TL_OK);
    EXPECT(tl_member_leave(store, &other, false, &error) == TL_OK);
    EXPECT(tl_offsets_read(table, slots[0], &lease, NULL) == TL_OK);
    EXPECT(tl_offsets_claim(table, slots[0], lease, tl_store_owner(store), &taken) == TL_OK);
    EXPECT(plan(store, me, tl_member_version(store, me), me) == 1 && take_all(store, me, epoch) == SLOTS - 1);
    EXPECT(tl_offsets_commit(table, slots[0], tl_store_owner(store), taken, 9, 1) == TL_OK);
    epoch[0] = taken;
    for (int i = 0; i < SLOTS; i++)
        EXPECT(tl_offsets_release(table, slots[i], tl_store_owner(store), epoch[i]) == TL_OK);
}

static int by_value(const void *x, const void *y) {
    int64_t a = *(const int64_t *)x, c = *(const int64_t *)y;
    return a < c ? -1 : a > c;
}

int main(int argc, char **argv) {
    char directory[200] = "";
    int rounds = 3;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--rounds") == 0)
            rounds = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--directory") == 0)
            snprintf(directory, sizeof directory, "%s", argv[i + 1]);
        else
            rounds = 0;
    }
    if (argc % 2 == 0 || rounds < 1)
        return fprintf(stderr, "usage: membership [--rounds N] [--directory D]\n"), 2;
    bool own = directory[0] == 0;
    if (own)
        snprintf(directory, sizeof directory, "%s/tl-members-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (own && mkdtemp(directory) == NULL)
        return 2;
    snprintf(path, sizeof path, "%s/store", directory);
    b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED)
        return 2;
    tl_point_hook = die_there;
    tl_store *store = enter(true);
    tl_member me = join(store, NULL, -1, 0);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 5; i++)
            killed(store, &me);
        stopped(store, &me);
        replaced(store, &me);
        died_inside(store, &me);
        told(store, &me);
        borrowed(store, &me);
    }
    int count = noticed < 4096 ? noticed : 4096;
    qsort(noticed_ns, (size_t)count, sizeof *noticed_ns, by_value);
    printf("%d deaths noticed: median %.2f ms, 9 of 10 within %.2f ms, slowest %.2f ms\n", count,
           (double)noticed_ns[count / 2] / MS, (double)noticed_ns[count * 9 / 10] / MS, (double)noticed_ns[count - 1] / MS);
    /* One of them may have met a machine that was busy with others; half of them not. */
    if (noticed_ns[count / 2] > (int64_t)NOTICE_LIMIT_MS * MS)
        wrong("deaths are noticed after %.1f ms", (double)noticed_ns[count / 2] / MS);
    EXPECT(tl_member_leave(store, &me, false, &error) == TL_OK);
    EXPECT(tl_store_close(store, &error) == TL_OK);
    tl_store_free(store);
    if (own) {
        char command[300];
        snprintf(command, sizeof command, "rm -rf '%s'", directory);
        if (system(command) != 0)
            return 1;
    }
    return 0;
}
