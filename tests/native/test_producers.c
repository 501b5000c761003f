/* Do the producers of a partition keep what is known of them across rolls, reopening, a new boot, trims and lost files, and do
 * names keep their identity and fence?
 *
 * Imports the public headers of the core. Single-threaded; works in a directory of its own. What a batch must be answered is
 * kept by the test as a list of what it sent. */
#define _GNU_SOURCE
#include "store_kit.h"
#include "tidelog/producers.h"
#include "tidelog/shared.h"

#include <errno.h>

static char base[200];
static tl_store *store;
static tl_partition *partition;
static uint32_t slot;

static void must_be(int status, int wanted, const tl_error *err) {
    if (status != wanted)
        REFUSE("%s (%s, %s, %s, errno %d), not %s", tl_status_name(status), err->what == NULL ? "" : err->what, err->path,
               err->detail, err->sys_errno, tl_status_name(wanted));
    check_count++;
}

static void enter(bool create) {
    tl_error err = {0};
    tl_recovery recovery;
    must_be(kit_open(base, &store, &recovery, &err), TL_OK, &err);
    must_be(tl_store_ready(store, &err), TL_OK, &err);
    if (create)
        must_be(kit_create(store, 0, 4096, &slot, &err), TL_OK, &err);
    must_be(tl_store_partition(store, slot, kit_channel, &partition, &err), TL_OK, &err);
}

static void leave(void) {
    tl_error err = {0};
    tl_partition_release(partition);
    must_be(tl_store_close(store, &err), TL_OK, &err);
    tl_store_free(store);
}

/* A handle that knows nothing: as another process would have. */
static void forget(void) {
    tl_error err = {0};
    tl_partition_release(partition);
    must_be(tl_store_partition(store, slot, kit_channel, &partition, &err), TL_OK, &err);
}

static void send_plain(size_t count);

/* As after a power cut that took nothing: the last process died with the store open, and the boot is another one. */
static void cut(size_t messages) {
    leave();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        enter(false);
        send_plain(messages);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    kit_boot++;
    enter(false);
}

static int send(const tl_producer *producer, int32_t sequence, size_t count, tl_appended *out) {
    uint8_t texts[KIT_BATCH][KIT_TEXT];
    tl_message messages[KIT_BATCH];
    for (size_t i = 0; i < count; i++)
        messages[i] = kit_message(kit_next_number++, texts[i]);
    const tl_producing producing = {.producer = producer, .sequence = sequence};
    const tl_append what = {.messages = messages, .count = count, .producing = &producing};
    tl_error err = {0};
    return tl_partition_append(partition, &what, 0, out, &err);
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
    int status = tl_partition_append(partition, &what, 0, &out, &err);
    if (status == TL_OK) {
        CHECK(out.answered == (size_t)count && (out.duplicates == 0 || out.duplicates == (size_t)count));
        *offset = out.base_offset;
        return out.duplicates > 0 ? 1 : 0;
    }
    return status;
}

static void send_plain(size_t count) {
    tl_error err = {0};
    for (size_t i = 0; i < count; i++) {
        uint8_t text[KIT_TEXT];
        tl_message message = kit_message(kit_next_number++, text);
        tl_appended out;
        must_be(tl_partition_append_one(partition, &message, 0, &out, &err), TL_OK, &err);
    }
}

static tl_producer open_name(const char *name) {
    tl_producer producer;
    tl_error err = {0};
    must_be(tl_producer_open(store, name, strlen(name), &producer, &err), TL_OK, &err);
    return producer;
}

/* --- files --- */

static size_t files_of(const char *suffix, char names[][64], size_t room) {
    char path[300];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/orders-0", base);
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

static void path_of(const char *name, char out[400]) { snprintf(out, 400, "%s/orders-0/%s", base, name); }

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
    int status = tl_partition_check(partition, &report, &err);
    if (status < 0)
        REFUSE("check: %s, %s", tl_status_name(status), err.what);
    CHECK(status == findings);
    return findings;
}

/* --- names --- */

static int (*true_fdatasync)(int fd);
static int syncs;

static int counted_fdatasync(int fd) {
    syncs++;
    return true_fdatasync(fd);
}

/* What an opening takes from a block is on the disk before it returns; most openings take nothing. */
static void test_durable(void) {
    true_fdatasync = tl_os_table.fdatasync;
    tl_os_table.fdatasync = counted_fdatasync;
    enter(true);
    int written = 0;
    for (int i = 0; i < 4100; i++) {
        int before = syncs;
        tl_producer producer = open_name("durable");
        CHECK(tl_producer_epoch(&producer) == i);
        if (i % 2048 == 0)
            CHECK(syncs > before);
        written += syncs > before;
    }
    CHECK(written == 3);
    int before = syncs;
    (void)open_name("another");
    CHECK(syncs > before);
    leave();
    tl_os_table.fdatasync = true_fdatasync;
    kit_remove(AT_FDCWD, base);
    CHECK(mkdir(base, 0700) == 0);
}

/* The same, after the child took an epoch: nobody knows how many it used. */
static void cut_with_name(void) {
    leave();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        enter(false);
        (void)open_name("till");
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    kit_boot++;
    enter(false);
}

static void test_names(void) {
    tl_appended out;
    tl_error err = {0};
    enter(true);
    tl_producer till = open_name("till"), other = open_name("other");
    CHECK(till.producer_id != other.producer_id && tl_producer_epoch(&till) == 0);
    int64_t offset = -2;
    must_be(tl_producer_last(&till, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == -1);
    for (int i = 0; i < 3; i++) {
        CHECK(send(&till, -1, 2, &out) == TL_OK && out.sequence == 2 * i && out.base_offset == 2 * i && out.duplicates == 0);
        CHECK(out.answered == 2);
    }
    CHECK(send(&till, 4, 2, &out) == TL_OK && out.duplicates == 2 && out.base_offset == 4 && out.tail > 0);
    CHECK(send(&till, 2, 2, &out) == TL_OK && out.duplicates == 2 && out.base_offset == 2);
    CHECK(send(&till, 7, 1, &out) == TL_EOUTOFORDER);
    CHECK(send(&other, -1, 1, &out) == TL_OK && out.sequence == 0);
    must_be(tl_producer_last(&till, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 5);

    tl_producer again = open_name("till");
    CHECK(again.producer_id == till.producer_id && tl_producer_epoch(&again) == 1 && again.row == till.row);
    CHECK(tl_producer_is_fenced(&till) && !tl_producer_is_fenced(&again) && !tl_producer_is_fenced(&other));
    CHECK(send(&till, -1, 1, &out) == TL_EFENCED);
    CHECK(send(&till, 4, 2, &out) == TL_EFENCED); /* also what would be a repetition */
    CHECK(tl_producer_last(&till, partition, &offset, &err) == TL_EFENCED);
    must_be(tl_producer_last(&again, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 5);
    CHECK(send(&again, -1, 1, &out) == TL_OK && out.sequence == 0 && out.base_offset == 7);
    CHECK(send(&again, -1, 1, &out) == TL_OK && out.sequence == 1);
    tl_producer_close(&till); /* says nothing any more about the name */
    tl_producer_close(&again);
    tl_producer third = open_name("till");
    CHECK(tl_producer_epoch(&third) == 2);
    CHECK(send(&again, -1, 1, &out) == TL_EFENCED);

    int64_t id = third.producer_id, other_id = other.producer_id;
    leave();
    enter(false);
    tl_producer reopened = open_name("till");
    CHECK(reopened.producer_id == id && tl_producer_epoch(&reopened) >= 3);
    must_be(tl_producer_last(&reopened, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 8);
    int16_t before = tl_producer_epoch(&reopened);
    leave();
    kit_boot++;
    enter(false); /* closed in order: not an epoch is lost */
    reopened = open_name("till");
    CHECK(reopened.producer_id == id && tl_producer_epoch(&reopened) == before + 1);
    cut(0);
    tl_producer booted = open_name("till"); /* what was used of the epochs is what was given back by the close before */
    CHECK(booted.producer_id == id && tl_producer_epoch(&booted) == before + 2);
    cut_with_name();
    booted = open_name("till");
    CHECK(booted.producer_id == id && tl_producer_epoch(&booted) >= before + 2 + 2048);
    CHECK(open_name("other").producer_id == other_id);
    int64_t fresh = open_name("fresh").producer_id;
    CHECK(fresh != id && fresh != other_id && fresh >= 1000); /* the rest of the block may have been given out */
    must_be(tl_producer_last(&booted, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == 8);
    CHECK(send(&booted, -1, 1, &out) == TL_OK && out.sequence == 0);

    tl_producer bad;
    char longest[TL_PRODUCER_NAME_BYTES + 1];
    memset(longest, 'n', sizeof longest);
    CHECK(tl_producer_open(store, "", 0, &bad, &err) == TL_EINVAL);
    CHECK(tl_producer_open(store, longest, sizeof longest, &bad, &err) == TL_EINVAL);
    must_be(tl_producer_open(store, longest, sizeof longest - 1, &bad, &err), TL_OK, &err);
    leave();
}

/* Past the last epoch comes a new id; what the old one wrote is still known by the name. */
static void test_epochs_end(void) {
    tl_error err = {0};
    tl_appended out;
    enter(false);
    tl_producer producer = open_name("epochs");
    CHECK(send(&producer, -1, 1, &out) == TL_OK);
    int64_t wrote = out.base_offset, first_id = producer.producer_id, offset = -1;
    int16_t epoch = tl_producer_epoch(&producer), before = epoch;
    while (producer.producer_id == first_id) {
        before = epoch;
        must_be(tl_producer_next_epoch(&producer, &epoch, &err), TL_OK, &err);
        CHECK(epoch == before + 1 || (epoch == 0 && before == 32766));
    }
    CHECK(epoch == 0 && before == 32766);
    must_be(tl_producer_last(&producer, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == wrote);
    CHECK(send(&producer, -1, 1, &out) == TL_OK && out.sequence == 0);
    must_be(tl_producer_last(&producer, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == out.base_offset);
    int64_t id = producer.producer_id;
    for (int turn = 0; turn < 3; turn++) { /* four ids back is still known */
        for (int16_t e = 0; e < 32766;)
            must_be(tl_producer_next_epoch(&producer, &e, &err), TL_OK, &err);
        must_be(tl_producer_next_epoch(&producer, &epoch, &err), TL_OK, &err);
        CHECK(epoch == 0 && producer.producer_id != id);
    }
    must_be(tl_producer_last(&producer, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == out.base_offset);
    id = producer.producer_id;
    cut(0);
    producer = open_name("epochs");
    CHECK(producer.producer_id == id && tl_producer_epoch(&producer) == 1);
    must_be(tl_producer_last(&producer, partition, &offset, &err), TL_OK, &err);
    CHECK(offset == out.base_offset);
    leave();
}

static void test_many_names(void) {
    static tl_producer all[1024 + 1];
    char name[32];
    tl_error err = {0};
    enter(false);
    for (int i = 0; i < 1024; i++) {
        snprintf(name, sizeof name, "name-%d", i);
        int status = tl_producer_open(store, name, strlen(name), &all[i], &err);
        if (status == TL_EFULL) { /* the row of nobody here is left: those of the tests before are open */
            CHECK(i > 1000);
            break;
        }
        must_be(status, TL_OK, &err);
    }
    CHECK(tl_producer_open(store, "one more", 8, &all[1024], &err) == TL_EFULL);
    int64_t id = all[7].producer_id;
    int16_t epoch = tl_producer_epoch(&all[7]);
    tl_producer old = all[7];
    tl_producer_close(&all[7]);
    tl_producer more = open_name("one more");
    CHECK(more.row == old.row && tl_producer_is_fenced(&old));
    tl_producer_close(&all[8]);
    tl_producer seven = open_name("name-7");
    CHECK(seven.producer_id == id && tl_producer_epoch(&seven) > epoch);
    leave();
}

/* --- files --- */

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

static void test_files(uint64_t seed) {
    uint64_t random = seed;
    char names[512][64], logs[512][64], path[400];
    tl_error err = {0};
    enter(false);
    sent_count = 0;
    first_id = 5000 * (int64_t)seed;
    size_t before = files_of(".producers", names, 512);
    CHECK(before >= 1);
    for (int i = 0; i < 300; i++) {
        raw_ok(first_id + (int64_t)(check_random(&random) % 7), 1 + (int32_t)(check_random(&random) % 3));
        if (check_random(&random) % 8 == 0)
            send_plain(check_random(&random) % 5);
    }
    for (int i = 0; i < 40; i++) /* none of these is missed, but all files are walked over */
        send_plain(1);
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
    cut(3);
    verify_window("lost files, new boot");
    forget();
    verify_window("lost files, new boot, fresh handle");

    /* The newest file that is left lies: CRCs hold, but the check compares with what the batches say. */
    leave();
    enter(false);
    for (int i = 0; i < 30; i++)
        raw_ok(first_id + i % 7, 1);

    /* Trims keep what is known of those who wrote only to what goes. */
    raw_ok(first_id + 6, 2);
    tl_bounds bounds;
    send_plain(100);
    must_be(tl_partition_bounds(partition, &bounds, &err), TL_OK, &err);
    must_be(tl_partition_trim(partition, bounds.log_end - 20, &err), TL_OK, &err);
    count = files_of(".producers", names, 512);
    segments = files_of(".log", logs, 512);
    CHECK(segments < 10 && count >= 1 && strncmp(names[0], logs[0], 20) == 0);
    verify_window("trimmed");
    forget();
    verify_window("trimmed, fresh handle");
    must_be(tl_partition_bounds(partition, &bounds, &err), TL_OK, &err);
    must_be(tl_partition_trim(partition, bounds.log_end, &err), TL_OK, &err);
    forget();
    verify_window("trimmed to the end");
    cut(2);
    verify_window("trimmed to the end, new boot");
    CHECK(check_all() == 0);
    leave();
}

/* A partition that no producer writes to has no such file, and the housekeeper makes those that are missing. */
static void test_upkeep(void) {
    char names[512][64], logs[512][64], path[400];
    tl_error err = {0};
    kit_remove(AT_FDCWD, base);
    CHECK(mkdir(base, 0700) == 0);
    enter(true);
    send_plain(200);
    must_be(tl_store_housekeep(store, &err), TL_OK, &err);
    CHECK(files_of(".producers", names, 512) == 0 && files_of(".log", logs, 512) > 5);
    CHECK(check_all() == 0);
    int64_t offset = -1;
    CHECK(send_raw(1, 0, 77, 1, &offset) == 0 && offset == 200);
    CHECK(files_of(".producers", names, 512) == 1);
    send_plain(200);
    CHECK(files_of(".producers", names, 512) == 1);
    must_be(tl_store_housekeep(store, &err), TL_OK, &err);
    size_t count = files_of(".producers", names, 512);
    CHECK(count > 5);
    path_of(names[count - 1], path);
    CHECK(unlink(path) == 0);
    forget();
    CHECK(send_raw(1, 0, 77, 1, &offset) == 1 && offset == 200);
    CHECK(check_all() == 0);
    leave();
}

static void test_refusals(void) {
    tl_error err = {0};
    int64_t offset = -1;
    enter(false);
    uint8_t batch[512];
    const tl_producing raw = {.sequence = -1};
    tl_message one = {.value = batch, .value_bytes = 3, .key_bytes = -1, .timestamp_ms = 5};
    tl_append what = {.messages = &one, .count = 1, .producing = &raw};
    tl_appended out;
    CHECK(tl_partition_append(partition, &what, 0, &out, &err) == TL_EINVAL);
    int64_t newest;
    const tl_batch_spec anonymous = {-1, -1, -1, 0}, half = {4, -1, 0, 0}, transactional = {4, 0, 0, TL_ATTR_TRANSACTIONAL};
    const tl_batch_spec *const specs[] = {&anonymous, &half, &transactional};
    for (int i = 0; i < 3; i++) {
        size_t bytes = tl_batch_encode(batch, 0, specs[i], &one, 1, &newest);
        what = (tl_append){.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest, .producing = &raw};
        CHECK(tl_partition_append(partition, &what, 0, &out, &err) == (i == 2 ? TL_ETXNSTATE : TL_EINVAL));
    }
    CHECK(send_raw(4, 0, 0, 1, &offset) == 0);
    /* A try says that it would have to wait, and has done nothing. */
    forget();
    const tl_batch_spec spec = {4, 1, 0, 0};
    size_t bytes = tl_batch_encode(batch, 0, &spec, &one, 1, &newest);
    what = (tl_append){.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest, .producing = &raw};
    CHECK(tl_partition_append(partition, &what, TL_APPEND_TRY, &out, &err) == TL_EAGAIN);
    CHECK(tl_partition_append(partition, &what, 0, &out, &err) == TL_OK && out.duplicates == 0);
    CHECK(tl_partition_append(partition, &what, TL_APPEND_TRY, &out, &err) == TL_OK && out.duplicates == 1);
    CHECK(tl_producers_enter(partition, false) == TL_OK);
    CHECK(tl_producers_enter(partition, true) == TL_EAGAIN);
    CHECK(tl_partition_append(partition, &what, TL_APPEND_TRY, &out, &err) == TL_EAGAIN);
    tl_producers_leave(partition);
    /* Ready batches of a name are given its identity; also through the file. */
    tl_producer name = open_name("ready");
    for (int i = 0; i < 3; i++) {
        const tl_producing producing = {.producer = &name, .sequence = -1};
        bytes = tl_batch_encode(batch, 0, &tl_batch_plain, &one, 1, &newest);
        what = (tl_append){.encoded = batch, .encoded_bytes = bytes, .count = 1, .max_timestamp_ms = newest, .producing = &producing};
        must_be(tl_partition_append(partition, &what, i == 1 ? TL_APPEND_THROUGH_FILE : 0, &out, &err), TL_OK, &err);
        CHECK(out.sequence == i);
    }
    CHECK(check_all() == 0); /* CRCs too */
    leave();
}

int main(void) {
    kit_install();
    kit_directory(base, "producers");
    test_durable();
    test_names();
    test_epochs_end();
    test_many_names();
    test_files(1);
    test_files(2);
    test_upkeep();
    test_refusals();
    kit_remove(AT_FDCWD, base);
    return check_report();
}
