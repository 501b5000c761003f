/* timeout_s: 240
 *
 * Does a file that several processes and threads make longer keep every byte, and what if it cannot become longer?
 *
 * Imports store_kit.h, handles.h. Zeros at the end must never meet a message, whoever writes it meanwhile, and must not stay
 * behind a segment that was complete when they came. */
#define _GNU_SOURCE
#include "../../native/src/handles.h"
#include "store_kit.h"

#include <errno.h>
#include <sys/prctl.h>

enum { SEGMENT = 4 << 20, WRITERS = 3, EACH = 30000, MANY = 4096 };

static char path[200];
static tl_error error;

#define MUST(call) KIT_MUST(call, error)

/* With the thread that works ahead. */
static tl_partition *open_partition(tl_store **store, bool create) {
    const tl_store_options options = {.flush_interval_ms = 1000, .lock_timeout_ms = 20000, .create = true};
    tl_partition *partition;
    int state;
    uint32_t slot = 0;
    MUST(tl_store_open(path, &options, store, &state, NULL, &error));
    if (create)
        MUST(kit_create(*store, 0, SEGMENT, &slot, &error));
    MUST(tl_store_partition(*store, slot, kit_channel, &partition, &error));
    return partition;
}

static int append(tl_partition *partition, uint64_t number) {
    uint8_t text[KIT_TEXT];
    tl_appended appended;
    const tl_message message = kit_message(number, text);
    return tl_partition_append_one(partition, &message, 0, &appended, &error);
}

static void begin(const char *noun) {
    kit_directory(path, noun);
    memset(&error, 0, sizeof error);
}

static void end(tl_store *store, tl_partition *partition) {
    tl_partition_release(partition);
    MUST(tl_store_close(store, &error));
    tl_store_free(store);
    kit_remove(AT_FDCWD, path);
}

/* --- several at once --- */

static void write_all(uint64_t writer) {
    tl_store *store;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(200);
    tl_partition *partition = open_partition(&store, false);
    for (uint64_t i = 0; i < EACH; i++)
        MUST(append(partition, writer << 32 | i));
    tl_partition_release(partition);
    MUST(tl_store_close(store, &error));
    _exit(0);
}

/* `each` messages of every writer, in its order; a zero over one would be a batch that does not hold. */
static void read_all(tl_partition *partition, uint64_t writers, uint64_t each) {
    uint64_t next[WRITERS] = {0}, count = 0;
    tl_cursor cursor = {.offset = 0};
    tl_chunk chunk = {0};
    for (;;) {
        tl_read_end where;
        tl_chunk_clear(&chunk);
        MUST(tl_partition_read(partition, &cursor, &chunk, 4096, 1 << 20, 0, &where, &error));
        if (chunk.count == 0)
            break;
        for (size_t i = 0; i < chunk.count; i++, count++) {
            uint64_t writer = 0;
            while (writer < writers && !(next[writer] < each && kit_is(&chunk, &chunk.records[i], writer << 32 | next[writer])))
                writer++;
            if (writer == writers)
                REFUSE("offset %lld is nobody's next message", (long long)chunk.records[i].offset);
            next[writer]++;
        }
    }
    tl_chunk_free(&chunk);
    if (count != writers * each)
        REFUSE("%llu messages are there", (unsigned long long)count);
}

static void check_many(void) {
    tl_store *store;
    pid_t writers[WRITERS];
    begin("growth");
    tl_partition *partition = open_partition(&store, true);
    tl_partition_release(partition);
    MUST(tl_store_close(store, &error));
    tl_store_free(store);
    fflush(NULL);
    for (uint64_t writer = 0; writer < WRITERS; writer++) {
        if ((writers[writer] = fork()) == 0)
            write_all(writer);
        CHECK(writers[writer] > 0);
    }
    for (int writer = 0; writer < WRITERS; writer++) {
        int status;
        CHECK(waitpid(writers[writer], &status, 0) == writers[writer] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    partition = open_partition(&store, false);
    read_all(partition, WRITERS, EACH);
    end(store, partition);
}

/* --- zeros that come too late --- */

static pthread_t main_thread;

/* The thread knows where the end is, and the writer makes it another one before the zeros come. */
static uint32_t between;                   /* atomic; 1: the thread stands there, 2: it may go on */

static void stand_between(void) {
    uint32_t none = 0;
    if (pthread_equal(pthread_self(), main_thread) ||
        !__atomic_compare_exchange_n(&between, &none, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    while (__atomic_load_n(&between, __ATOMIC_SEQ_CST) != 2)
        usleep(100);
}

static void check_between(void) {
    tl_store *store;
    uint64_t number = 0;
    begin("between");
    main_thread = pthread_self();
    tl_between_hook = stand_between;
    tl_partition *partition = open_partition(&store, true);
    for (uint64_t more = 0; more < MANY; number++) {
        CHECK(number < 1000000); /* the thread was never asked */
        MUST(append(partition, number));
        more += __atomic_load_n(&between, __ATOMIC_SEQ_CST) == 1;
    }
    CHECK(tl_place_ordinal(tl_partition_tail(partition)) == 0);
    __atomic_store_n(&between, 2, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&partition->store->prefault_segment, __ATOMIC_SEQ_CST) != NULL || partition->writer->prefault_until != 0)
        usleep(100);
    tl_between_hook = NULL;
    read_all(partition, 1, number);
    end(store, partition);
}

static uint32_t late;                      /* atomic; 1: the thread stands before its zeros, 2: it may go on, 3: they are there */
static uint64_t late_bytes;                /* of the file, with them */
static int (*true_append_zeros)(int fd, uint64_t bytes);

static int append_zeros_late(int fd, uint64_t bytes) {
    uint32_t none = 0;
    if (pthread_equal(pthread_self(), main_thread) ||
        !__atomic_compare_exchange_n(&late, &none, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return true_append_zeros(fd, bytes);
    while (__atomic_load_n(&late, __ATOMIC_SEQ_CST) != 2)
        usleep(100);
    int status = true_append_zeros(fd, bytes);
    tl_stat stat;
    CHECK(status == 0 && tl_os->stat(fd, &stat) == 0);
    late_bytes = stat.size_bytes;
    __atomic_store_n(&late, 3, __ATOMIC_SEQ_CST);
    return status;
}

static uint64_t length_of(tl_partition *partition, int64_t base_offset) {
    char name[360];
    tl_stat stat;
    tl_segment_path(partition, base_offset, ".log", name);
    int fd = tl_os->open(partition->store->dir, name, O_RDONLY, 0);
    CHECK(fd >= 0 && tl_os->stat(fd, &stat) == 0);
    tl_os->close(fd);
    return stat.size_bytes;
}

static void check_late(void) {
    tl_store *store;
    tl_seal seal;
    uint64_t number = 0;
    begin("late");
    main_thread = pthread_self();
    tl_os_table.append_zeros = append_zeros_late;
    tl_partition *partition = open_partition(&store, true);
    while (tl_place_ordinal(tl_partition_tail(partition)) == 0 || __atomic_load_n(&late, __ATOMIC_SEQ_CST) == 0) {
        CHECK(number < 1000000); /* the thread was never asked */
        MUST(append(partition, number++));
    }
    __atomic_store_n(&late, 2, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&late, __ATOMIC_SEQ_CST) != 3)
        usleep(100);
    MUST(tl_seals_read(partition, 0, &seal, &error));
    CHECK(late_bytes > seal.length);
    for (int tries = 0; length_of(partition, 0) != seal.length; tries++) {
        CHECK(tries < 20000);
        usleep(100);
    }
    for (int i = 0; i < 1000; i++)
        MUST(append(partition, number++));
    tl_os_table.append_zeros = true_append_zeros;
    end(store, partition);
}

/* --- no zeros at all --- */

static int refuse_zeros(int fd, uint64_t bytes) { return fd < 0 || bytes == 0 ? -EINVAL : -EOPNOTSUPP; }
static int full_fallocate(int fd, uint64_t from, uint64_t bytes) {
    return fd < 0 || from + bytes == 0 ? -EINVAL : -ENOSPC;
}
static int full_zeros(int fd, uint64_t bytes) { return fd < 0 || bytes == 0 ? -EINVAL : -ENOSPC; }

/* A kernel without the call takes the other way; a full disk is an error that says so, and no end of appending. */
static void check_refused(void) {
    tl_store *store;
    uint64_t number = 0;
    begin("refused");
    int (*true_fallocate)(int, uint64_t, uint64_t) = tl_os_table.fallocate;
    tl_os_table.append_zeros = refuse_zeros;
    tl_partition *partition = open_partition(&store, true);
    for (; number < MANY; number++)
        MUST(append(partition, number));
    CHECK(tl_place_position(tl_partition_tail(partition)) > 2 * TL_CHUNK_FIRST);
    tl_os_table.append_zeros = full_zeros;
    tl_os_table.fallocate = full_fallocate;
    int status = TL_OK;
    for (uint64_t tried = 0; tried < 1000000 && status == TL_OK; tried++)
        if ((status = append(partition, number)) == TL_OK)
            number++;
    CHECK(status == TL_ENOSPC);
    tl_os_table.fallocate = true_fallocate;
    tl_os_table.append_zeros = true_append_zeros;
    for (uint64_t until = number + MANY; number < until; number++)
        MUST(append(partition, number));
    tl_bounds bounds;
    MUST(tl_partition_bounds(partition, &bounds, &error));
    CHECK(bounds.log_end == (int64_t)number);
    end(store, partition);
}

int main(void) {
    true_append_zeros = tl_os_table.append_zeros;
    check_many();
    check_between();
    check_late();
    check_refused();
    return 0;
}
