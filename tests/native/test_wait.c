/* Does a sleeper see what was published without a wake, soon enough, and does it sleep long where nobody could do that?
 *
 * A publisher that dies between its last store and its wake is played by one that takes the sleepers' bits away first. The
 * sleeper is the parent, the publisher a child. Sleeps are counted at the call of the kernel. */
#define _GNU_SOURCE

#include "store_kit.h"
#include "tidelog/shared.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#define MS 1000000

static tl_error error;
static uint32_t sleeps; /* atomic */
static int64_t longest_ns;
static int (*true_futex_wait)(const uint32_t *word, uint32_t value, int64_t timeout_ns);

static int counted_futex_wait(const uint32_t *word, uint32_t value, int64_t timeout_ns) {
    __atomic_fetch_add(&sleeps, 1, __ATOMIC_SEQ_CST);
    if (timeout_ns > __atomic_load_n(&longest_ns, __ATOMIC_SEQ_CST))
        __atomic_store_n(&longest_ns, timeout_ns, __ATOMIC_SEQ_CST);
    return true_futex_wait(word, value, timeout_ns);
}

static tl_store *enter(void) {
    tl_store *store = NULL;
    CHECK(kit_open("log", &store, NULL, &error) >= 0 && tl_store_ready(store, &error) == TL_OK);
    return store;
}

static void test_alone(tl_store *store, tl_partition *partition) {
    uint64_t tail = tl_partition_tail(partition);
    sleeps = 0;
    CHECK(tl_store_wait(store, &partition, &tail, 1, 450 * (int64_t)MS, 0, NULL, 0, NULL, &error) == TL_ETIMEOUT);
    CHECK(sleeps == 1);
}

static void ignore(int number) { (void)number; }

static void *interrupt(void *thread) {
    const struct timespec moment = {0, 50 * MS};
    nanosleep(&moment, NULL);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

static void test_signal(tl_store *store, tl_partition *partition) {
    uint64_t tail = tl_partition_tail(partition);
    pthread_t me = pthread_self(), thread;
    const struct sigaction action = {.sa_handler = ignore};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && pthread_create(&thread, NULL, interrupt, &me) == 0);
    int64_t begin = tl_io_posix.monotonic_ns();
    CHECK(tl_store_wait(store, &partition, &tail, 1, 5000 * (int64_t)MS, 0, NULL, 0, NULL, &error) == TL_EAGAIN);
    CHECK(tl_io_posix.monotonic_ns() - begin < 2000 * (int64_t)MS);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* The child: comes in, publishes a message without a wake, and goes without a word. */
static void publish_and_die(int go) {
    const struct timespec moment = {0, 30 * MS}; /* the sleeper sleeps again */
    uint32_t slot;
    tl_partition *partition = NULL;
    uint8_t text[KIT_TEXT];
    tl_appended out;
    if (read(go, &slot, sizeof slot) != sizeof slot)
        _exit(1);
    nanosleep(&moment, NULL);
    tl_store *store = enter();
    if (tl_store_partition(store, slot, kit_channel, &partition, &error) != TL_OK)
        _exit(2);
    nanosleep(&moment, NULL);
    int fd = open("log/shared", O_RDWR);
    uint8_t *words = mmap(NULL, TL_SHARED_BLOCKS_AT + TL_BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED)
        _exit(3);
    const tl_message message = kit_message(1, text);
    __atomic_store_n(&tl_shared_hot(words, slot)->sleepers, 0, __ATOMIC_SEQ_CST);
    if (tl_partition_append_one(partition, &message, 0, &out, &error) != TL_OK)
        _exit(4);
    kill(getpid(), SIGKILL);
}

/* It would sleep for a second if it had not heard that somebody came in. */
static void test_publisher_without_a_wake(tl_store *store, tl_partition *partition, uint32_t slot, int go, pid_t child) {
    uint64_t tail = tl_partition_tail(partition);
    int status = 0;
    CHECK(write(go, &slot, sizeof slot) == sizeof slot);
    longest_ns = 0;
    int64_t begin = tl_io_posix.monotonic_ns();
    CHECK(tl_store_wait(store, &partition, &tail, 1, 20000 * (int64_t)MS, 0, NULL, 0, NULL, &error) == 0);
    int64_t took_ns = tl_io_posix.monotonic_ns() - begin;
    CHECK(longest_ns > 500 * (int64_t)MS); /* alone at first */
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    if (took_ns > 700 * (int64_t)MS) /* 60 of naps, 100 of a slice, and what a busy machine takes */
        REFUSE("a message that nobody woke for was seen after %lld ms", (long long)(took_ns / MS));
    /* The dead one counts until it is noticed; then it is quiet again. */
    tail = tl_partition_tail(partition);
    sleeps = 0;
    longest_ns = 0;
    CHECK(tl_store_wait(store, &partition, &tail, 1, 250 * (int64_t)MS, 0, NULL, 0, NULL, &error) == TL_ETIMEOUT);
    CHECK(longest_ns <= 100 * (int64_t)MS && sleeps >= 2);
}

int main(void) {
    int pipe_fds[2];
    CHECK(pipe(pipe_fds) == 0);
    kit_install();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        publish_and_die(pipe_fds[0]);
    true_futex_wait = tl_os_table.futex_wait;
    tl_os_table.futex_wait = counted_futex_wait;
    tl_store *store = enter();
    tl_partition *partition = NULL;
    uint32_t slot = 0;
    CHECK(kit_create(store, 0, 1 << 20, &slot, &error) == TL_OK);
    CHECK(tl_store_partition(store, slot, kit_channel, &partition, &error) == TL_OK);
    test_alone(store, partition);
    test_signal(store, partition);
    test_publisher_without_a_wake(store, partition, slot, pipe_fds[1], child);
    tl_partition_release(partition);
    CHECK(tl_store_close(store, &error) == TL_OK);
    tl_store_free(store);
    return 0;
}
