/* Do the producers of a partition keep what is known of them across rolls, reopening, a new boot, trims and lost files?
 *
 * Imports producers_kit.h. Single-threaded; works in a directory of its own. What a batch must be answered is kept by the
 * test as a list of what it sent. */
#define _GNU_SOURCE
#include "producers_kit.h"

#include <sys/mman.h>

/* A handle that knows nothing: as another process would have. */
static void forget(void) {
    tl_error err = {0};
    tl_partition_release(kit_partition);
    kit_must_be(tl_store_partition(kit_store, kit_slot, kit_channel, &kit_partition, &err), TL_OK, &err);
}

static int send_raw(int64_t producer_id, int16_t epoch, int32_t sequence, int32_t count, int64_t *offset) {
    uint8_t batch[16384], texts[KIT_BATCH][KIT_TEXT];
    tl_message messages[KIT_BATCH];
    int64_t newest = 0;
    for (int i = 0; i < count; i++)
        messages[i] = kit_message(kit_next_number++, texts[i]);
    const tl_batch_spec spec = {producer_id, sequence, epoch, 0};
    size_t bytes = tl_batch_encode(batch, 0, &spec, messages, (size_t)count, &newest);
    const tl_producing producing = {.sequence = -1};
    const tl_append what = {.encoded = batch, .encoded_bytes = bytes, .count = (size_t)count, .max_timestamp_ms = newest,
                            .producing = &producing};
    tl_appended out;
    tl_error err = {0};
    int status = tl_partition_append(kit_partition, &what, 0, &out, &err);
    if (status == TL_OK) {
        CHECK(out.answered == (size_t)count && (out.duplicates == 0 || out.duplicates == (size_t)count));
        *offset = out.base_offset;
        return out.duplicates > 0 ? 1 : 0;
    }
    return status;
}

static size_t files_of(const char *suffix, char names[][64], size_t room) {
    char path[300];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/orders-0", kit_base);
    DIR *stream = opendir(path);
    for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
        size_t length = strlen(entry->d_name), tail = strlen(suffix);
        if (length > tail && strcmp(entry->d_name + length - tail, suffix) == 0 && count < room)
            snprintf(names[count++], 64, "%.63s", entry->d_name);
    }
    if (stream != NULL)
        closedir(stream);
    qsort(names, count, 64, (int (*)(const void *, const void *))strcmp);
    return count;
}

static void path_of(const char *name, char out[400]) { snprintf(out, 400, "%s/orders-0/%s", kit_base, name); }

static void damage(const char *name, off_t at) {
    char path[400];
    uint8_t byte = 0;
    path_of(name, path);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x40;
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

static int findings;
static char last_finding[200];

static void on_finding(void *context, const char *file, int64_t position, const char *what, int64_t first, int64_t next) {
    (void)context, (void)position, (void)first, (void)next;
    findings++;
    snprintf(last_finding, sizeof last_finding, "%.90s: %.100s", file, what);
}

static int check_all(void) {
    const tl_check_report report = {.finding = on_finding};
    tl_error err = {0};
    findings = 0;
    int status = tl_partition_check(kit_partition, &report, &err);
    if (status < 0)
        REFUSE("check: %s, %s", tl_status_name(status), err.what);
    CHECK(status == findings);
    return findings;
}

/* What was sent with ids of its own, and must be answered. */
typedef struct sent {
    int64_t producer_id, offset;
    int32_t sequence, count;
} sent;
static sent list[4000];
static size_t sent_count;
static int64_t first_id;

static void raw_ok(int64_t producer_id, int32_t count) {
    int32_t sequence = 0;
    for (size_t i = 0; i < sent_count; i++)
        if (list[i].producer_id == producer_id)
            sequence = list[i].sequence + list[i].count;
    sent *next = &list[sent_count++];
    *next = (sent){producer_id, -1, sequence, count};
    int status = send_raw(producer_id, 0, sequence, count, &next->offset);
    if (status != 0)
        REFUSE("producer %lld sequence %d: %s", (long long)producer_id, sequence, tl_status_name(status));
}

/* The last five of each producer are answered, the sixth is refused, and what comes next is known. */
static void verify_window(const char *when) {
    for (int64_t id = first_id; id < first_id + 7; id++) {
        int back = 0;
        for (size_t i = sent_count; i > 0; i--) {
            const sent *s = &list[i - 1];
            if (s->producer_id != id || ++back > 7)
                continue;
            int64_t offset = -1;
            int status = send_raw(id, 0, s->sequence, s->count, &offset);
            if (status != (back <= 5 ? 1 : TL_EOUTOFORDER) || (back <= 5 && offset != s->offset))
                REFUSE("%s: batch %d back of %lld: %s at %lld, it stood at %lld", when, back, (long long)id,
                       tl_status_name(status), (long long)offset, (long long)s->offset);
            check_count++;
        }
    }
}

/* A name that wrote before all the others do. */
static void begin(void) {
    tl_appended out;
    kit_enter(true);
    tl_producer older = kit_open_name("older");
    CHECK(kit_send(&older, -1, 1, &out) == TL_OK);
    kit_leave();
}

static void test_files(uint64_t seed) {
    uint64_t random = seed;
    char names[512][64], logs[512][64], path[400];
    tl_error err = {0};
    kit_enter(false);
    sent_count = 0;
    first_id = 5000 * (int64_t)seed;
    size_t before = files_of(".producers", names, 512);
    CHECK(before >= 1);
    for (int i = 0; i < 300; i++) {
        raw_ok(first_id + (int64_t)(check_random(&random) % 7), 1 + (int32_t)(check_random(&random) % 3));
        if (check_random(&random) % 8 == 0)
            kit_send_plain(check_random(&random) % 5);
    }
    for (int i = 0; i < 40; i++) /* none of these is missed, but all files are walked over */
        kit_send_plain(1);
    size_t count = files_of(".producers", names, 512), segments = files_of(".log", logs, 512);
    CHECK(count > 20);
    verify_window("same handle");
    forget();
    verify_window("fresh handle");
    CHECK(files_of(".producers", names, 512) >= segments - 1);
    if (check_all() != 0)
        REFUSE("check: %s", last_finding);

    /* Some go, some are damaged; but one older than all this stays. */
    count = files_of(".producers", names, 512);
    for (size_t i = 1; i < count; i++) {
        path_of(names[i], path);
        if (check_random(&random) % 3 == 0)
            CHECK(unlink(path) == 0);
        else if (check_random(&random) % 2 == 0) {
            struct stat stat_of;
            CHECK(stat(path, &stat_of) == 0);
            damage(names[i], (off_t)(check_random(&random) % (uint64_t)stat_of.st_size));
        }
    }
    CHECK(check_all() > 0 && strstr(last_finding, ".producers") != NULL);
    forget();
    verify_window("lost files");
    kit_cut(3);
    verify_window("lost files, new boot");
    forget();
    verify_window("lost files, new boot, fresh handle");

    /* The newest file that is left lies: CRCs hold, but the check compares with what the batches say. */
    kit_leave();
    kit_enter(false);
    for (int i = 0; i < 30; i++)
        raw_ok(first_id + i % 7, 1);

    /* Trims keep what is known of those who wrote only to what goes. */
    raw_ok(first_id + 6, 2);
    tl_bounds bounds;
    kit_send_plain(100);
    kit_must_be(tl_partition_bounds(kit_partition, &bounds, &err), TL_OK, &err);
    kit_must_be(tl_partition_trim(kit_partition, bounds.log_end - 20, &err), TL_OK, &err);
    count = files_of(".producers", names, 512);
    segments = files_of(".log", logs, 512);
    CHECK(segments < 10 && count >= 1 && strncmp(names[0], logs[0], 20) == 0);
    verify_window("trimmed");
    forget();
    verify_window("trimmed, fresh handle");
    kit_must_be(tl_partition_bounds(kit_partition, &bounds, &err), TL_OK, &err);
    kit_must_be(tl_partition_trim(kit_partition, bounds.log_end, &err), TL_OK, &err);
    forget();
    verify_window("trimmed to the end");
    kit_cut(2);
    verify_window("trimmed to the end, new boot");
    CHECK(check_all() == 0);
    kit_leave();
}

/* A partition that no producer writes to has no such file, and the housekeeper makes those that are missing. */
static void test_upkeep(void) {
    char names[512][64], logs[512][64], path[400];
    tl_error err = {0};
    kit_remove(AT_FDCWD, kit_base);
    CHECK(mkdir(kit_base, 0700) == 0);
    kit_enter(true);
    kit_send_plain(200);
    kit_must_be(tl_store_housekeep(kit_store, &err), TL_OK, &err);
    CHECK(files_of(".producers", names, 512) == 0 && files_of(".log", logs, 512) > 5);
    CHECK(check_all() == 0);
    int64_t offset = -1;
    CHECK(send_raw(1, 0, 77, 1, &offset) == 0 && offset == 200);
    CHECK(files_of(".producers", names, 512) == 1);
    kit_send_plain(200);
    CHECK(files_of(".producers", names, 512) == 1);
    kit_must_be(tl_store_housekeep(kit_store, &err), TL_OK, &err);
    size_t count = files_of(".producers", names, 512);
    CHECK(count > 5);
    path_of(names[count - 1], path);
    CHECK(unlink(path) == 0);
    forget();
    CHECK(send_raw(1, 0, 77, 1, &offset) == 1 && offset == 200);
    CHECK(check_all() == 0);
    kit_leave();
}

static void test_refusals(void) {
    tl_error err = {0};
    int64_t offset = -1;
    kit_enter(false);
    uint8_t batch[512];
    const tl_producing raw = {.sequence = -1};
    tl_message one = {.value = batch, .value_bytes = 3, .key_bytes = -1, .timestamp_ms = 5};
    tl_append what = {.messages = &one, .count = 1, .producing = &raw};
    tl_appended out;
    CHECK(tl_partition_append(kit_partition, &what, 0, &out, &err) == TL_EINVAL);
    int64_t newest;
    const tl_batch_spec anonymous = {-1, -1, -1, 0}, half = {4, -1, 0, 0}, transactional = {4, 0, 0, TL_ATTR_TRANSACTIONAL};
    const tl_batch_spec *const specs[] = {&anonymous, &half, &transactional};
    for (int i = 0; i < 3; i++) {
        size_t bytes = tl_batch_encode(batch, 0, specs[i], &one, 1, &newest);
        what = (tl_append){.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest, .producing = &raw};
        CHECK(tl_partition_append(kit_partition, &what, 0, &out, &err) == (i == 2 ? TL_ETXNSTATE : TL_EINVAL));
    }
    CHECK(send_raw(4, 0, 0, 1, &offset) == 0);
    /* A try says that it would have to wait, and has done nothing. */
    forget();
    const tl_batch_spec spec = {4, 1, 0, 0};
    size_t bytes = tl_batch_encode(batch, 0, &spec, &one, 1, &newest);
    what = (tl_append){.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest, .producing = &raw};
    CHECK(tl_partition_append(kit_partition, &what, TL_APPEND_TRY, &out, &err) == TL_EAGAIN);
    CHECK(tl_partition_append(kit_partition, &what, 0, &out, &err) == TL_OK && out.duplicates == 0);
    CHECK(tl_partition_append(kit_partition, &what, TL_APPEND_TRY, &out, &err) == TL_OK && out.duplicates == 1);
    CHECK(tl_producers_enter(kit_partition, false) == TL_OK);
    CHECK(tl_producers_enter(kit_partition, true) == TL_EAGAIN);
    CHECK(tl_partition_append(kit_partition, &what, TL_APPEND_TRY, &out, &err) == TL_EAGAIN);
    tl_producers_leave(kit_partition);
    /* Ready batches of a name are given its identity; also through the file. */
    tl_producer name = kit_open_name("ready");
    for (int i = 0; i < 3; i++) {
        const tl_producing producing = {.producer = &name, .sequence = -1};
        bytes = tl_batch_encode(batch, 0, &tl_batch_plain, &one, 1, &newest);
        what = (tl_append){.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest, .producing = &producing};
        kit_must_be(tl_partition_append(kit_partition, &what, i == 1 ? TL_APPEND_THROUGH_FILE : 0, &out, &err), TL_OK, &err);
        CHECK(out.sequence == i);
    }
    CHECK(check_all() == 0); /* CRCs too */
    kit_leave();
}

/* --- others append meanwhile --- */

static uint32_t followed;

static void count_followed(const char *name) { followed += strcmp(name, "producers.followed") == 0; }

/* Another process appends: so many plain messages, and three of a producer after the first `before` of them. */
static int64_t appended_elsewhere(uint32_t plain, uint32_t before, int64_t producer_id, int32_t sequence) {
    int64_t *at = mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        kit_enter(false);
        kit_send_plain(before);
        CHECK(send_raw(producer_id, 0, sequence, 3, at) == 0);
        kit_send_plain(plain - before);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    int64_t offset = *at;
    munmap(at, sizeof *at);
    return offset;
}

/* Whatever others appended since this process looked last, it knows; and few batches it reads where it writes. */
static void test_following(void) {
    static const uint32_t counts[] = {0, 1, 5, 100, 500, 511, 512, 513, 600, 2000};
    tl_error err = {0};
    int64_t own = -1, again = -1;
    int32_t sequence = 0;
    kit_remove(AT_FDCWD, kit_base);
    kit_directory(kit_base, "following");
    tl_recovery recovery;
    kit_must_be(kit_open(kit_base, &kit_store, &recovery, &err), TL_OK, &err);
    kit_must_be(tl_store_ready(kit_store, &err), TL_OK, &err);
    kit_must_be(kit_create(kit_store, 0, 8u << 20, &kit_slot, &err), TL_OK, &err);
    kit_must_be(tl_store_partition(kit_store, kit_slot, kit_channel, &kit_partition, &err), TL_OK, &err);
    tl_point_hook = count_followed;
    CHECK(send_raw(77, 0, sequence++, 1, &own) == 0);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint32_t count = counts[i];
        int64_t theirs = appended_elsewhere(count, count / 2, 77, sequence);
        followed = 0;
        CHECK(send_raw(77, 0, sequence, 3, &again) == 1 && again == theirs); /* it is there already */
        if (count + 1 <= 512 ? followed != count + 1 : followed > 512)
            REFUSE("of %u batches %u were read where this process writes", count + 1, followed);
        sequence += 3;
        CHECK(send_raw(77, 0, sequence + 1, 1, &own) == TL_EOUTOFORDER);
        CHECK(send_raw(77, 0, sequence, 2, &own) == 0 && own == theirs + 3 + count - count / 2);
        sequence += 2;
    }
    tl_point_hook = NULL;
    CHECK(check_all() == 0);
    kit_leave();
}

int main(void) {
    kit_install();
    kit_directory(kit_base, "producers");
    begin();
    test_files(1);
    test_files(2);
    test_upkeep();
    test_refusals();
    test_following();
    kit_remove(AT_FDCWD, kit_base);
    return check_report();
}
