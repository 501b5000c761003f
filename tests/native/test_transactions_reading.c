/* timeout_s: 240
 *
 * Do all ways of reading pass over what was aborted and stop at what is undecided, also over many segments?
 *
 * Imports transactions_kit.h, transacting.h. A model remembers which message of which transaction became what. */
#define _GNU_SOURCE
#include "transactions_kit.h"

#include "../../native/src/transacting.h"

enum { PRODUCERS = 4, STEPS = 500 };

static char path[200];
static uint64_t seen[KIT_MOST];

typedef struct message {
    int64_t offset;
    uint64_t number;
    int owner;   /* producer, -1: none */
    int outcome; /* 0 undecided, 1 visible, 2 aborted */
} message;

typedef struct model {
    message list[KIT_MOST];
    size_t count;
    int64_t start;
} model;

/* What a reader of committed messages may see: up to the first that is undecided. */
static size_t visible(const model *m, const message *out[KIT_MOST]) {
    size_t count = 0;
    for (size_t i = 0; i < m->count && m->list[i].outcome != 0; i++)
        if (m->list[i].outcome == 1 && m->list[i].offset >= m->start)
            out[count++] = &m->list[i];
    return count;
}

static int64_t first_undecided(const model *m) {
    for (size_t i = 0; i < m->count; i++)
        if (m->list[i].outcome == 0)
            return m->list[i].offset;
    return -1;
}

/* Rows of the width of one message's value, as far as they have it. */
static void compare_rows(tl_partition *partition, const message *const *wanted, size_t count) {
    static uint8_t rows[64 * KIT_TEXT];
    int64_t offsets[64];
    for (size_t i = 0; i < count; i++) {
        uint8_t text[KIT_TEXT];
        uint32_t bytes = kit_text(wanted[i]->number, text);
        tl_cursor cursor = {.offset = wanted[i]->offset};
        size_t taken = 0, need = 0;
        tl_read_end end;
        int status = tl_partition_read_rows(partition, &cursor, bytes, rows, 1, offsets, NULL, NULL, &taken, &need, 0, &end, &kit_error);
        CHECK((status == TL_OK && taken == 1 && offsets[0] == wanted[i]->offset && memcmp(rows, text, bytes) == 0) || status < 0);
    }
}

static void compare(tl_partition *partition, const model *m, bool thoroughly) {
    static const message *wanted[KIT_MOST];
    size_t count = visible(m, wanted), got = kit_read(partition, 0, seen);
    if (got != count)
        REFUSE("%zu messages are visible, %zu should be", got, count);
    for (size_t i = 0; i < count; i++)
        CHECK(seen[i] == wanted[i]->number);
    size_t all = 0;
    for (size_t i = 0; i < m->count; i++)
        all += m->list[i].offset >= m->start;
    CHECK(kit_read(partition, TL_READ_UNCOMMITTED, seen) == all);
    int64_t stable = 0, undecided = first_undecided(m);
    tl_bounds bounds;
    MUST(tl_partition_stable_end(partition, &stable, &kit_error));
    MUST(tl_partition_bounds(partition, &bounds, &kit_error));
    CHECK(stable == (undecided < 0 ? bounds.log_end : undecided));
    if (!thoroughly)
        return;
    compare_rows(partition, wanted, count);
    tl_chunk chunk = {0};
    for (size_t i = 0; i < m->count; i++) {
        const message *at = &m->list[i];
        size_t failed = 0;
        tl_chunk_clear(&chunk);
        int status = tl_partition_read_at(partition, &at->offset, 1, &chunk, 0, NULL, NULL, &failed, &kit_error);
        bool is_visible = at->outcome == 1 && at->offset >= m->start && (undecided < 0 || at->offset < undecided);
        CHECK(is_visible ? status == TL_OK && kit_is(&chunk, chunk.records, at->number) : status == TL_ERANGE);
        /* From here on, how many are visible, and which is the first at or past its time? */
        int64_t messages = 0, wanted_messages = 0, found = 0, time_ms = 1000 + (int64_t)at->number, first = -1;
        MUST(tl_partition_count(partition, at->offset, 0, &messages, &kit_error));
        MUST(tl_partition_find(partition, &time_ms, 1, &found, NULL, NULL, &kit_error));
        for (size_t w = 0; w < count; w++) {
            wanted_messages += wanted[w]->offset >= at->offset;
            if (first < 0 && wanted[w]->number >= at->number)
                first = wanted[w]->offset;
        }
        CHECK(messages == wanted_messages);
        CHECK(found == (first >= 0 ? first : stable));
    }
    tl_chunk_free(&chunk);
}

static void run_random(uint64_t seed, uint32_t segment_bytes) {
    static model m;
    kit k;
    tl_producer producers[PRODUCERS];
    tl_transaction open[PRODUCERS];
    bool is_open[PRODUCERS] = {false};
    memset(&m, 0, sizeof m);
    kit_directory(path, "txn-reading");
    kit_enter(&k, path, segment_bytes, false);
    for (int i = 0; i < PRODUCERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        producers[i] = kit_producer(&k, name);
    }
    uint64_t number = 1;
    for (int step = 0; step < STEPS; step++) {
        uint64_t dice = check_random(&seed);
        int who = (int)(dice % PRODUCERS);
        tl_partition *partition = k.partitions[0];
        switch (dice / PRODUCERS % 16) {
        case 0: /* ends */
        case 1:
        case 2:
            if (is_open[who]) {
                bool commit = (dice >> 40) % 2 == 0;
                MUST(commit ? tl_transaction_commit(&open[who], (dice >> 41) % 4 == 0, &kit_error)
                            : tl_transaction_abort(&open[who], &kit_error));
                for (size_t i = 0; i < m.count; i++)
                    if (m.list[i].owner == who && m.list[i].outcome == 0)
                        m.list[i].outcome = commit ? 1 : 2;
                is_open[who] = false;
            }
            break;
        case 3: /* plain */
            if (m.count < KIT_MOST - KIT_BATCH)
                m.list[m.count++] = (message){kit_send(partition, NULL, number), number, -1, 1}, number++;
            break;
        case 4:
            if ((dice >> 50) % 8 == 0 && !is_open[0] && !is_open[1] && !is_open[2] && !is_open[3] && m.count > 30) {
                int64_t before = m.list[m.count - 10].offset;
                MUST(tl_partition_trim(partition, before, &kit_error));
                m.start = before > m.start ? before : m.start;
            }
            break;
        case 5: /* another process would have walked and read it all: everything this one knows is forgotten */
            if ((dice >> 50) % 8 == 0) {
                tl_aborted_free(partition);
                tl_producers_free(partition);
                tl_partition_forget_segments(partition, UINT32_MAX);
            }
            break;
        default: {
            if (!is_open[who])
                open[who] = kit_begin(&producers[who]);
            is_open[who] = true;
            size_t count = 1 + (dice >> 33) % 5;
            int64_t offset = -1;
            if (m.count + count > KIT_MOST - KIT_BATCH)
                break;
            MUST(kit_try_send(partition, &open[who], number, count, &offset));
            for (size_t i = 0; i < count; i++, number++)
                m.list[m.count++] = (message){offset + (int64_t)i, number, who, 0};
        }
        }
        if (step % 16 == 0)
            compare(partition, &m, false);
        if (step % 300 == 299)
            compare(partition, &m, true);
    }
    CHECK(kit_check(&k) == 0);
    compare(k.partitions[0], &m, true);
    kit_leave(&k); /* aborts what is open */
    for (size_t i = 0; i < m.count; i++)
        m.list[i].outcome = m.list[i].outcome == 0 ? 2 : m.list[i].outcome;
    kit_enter(&k, path, segment_bytes, false);
    CHECK(kit_check(&k) == 0);
    compare(k.partitions[0], &m, true);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

/* Damage in the index of aborted transactions and in the records is found. */
static void check_damage(void) {
    kit k;
    kit_directory(path, "txn-damage");
    kit_enter(&k, path, 1 << 20, false);
    tl_producer producer = kit_producer(&k, "till");
    for (uint64_t i = 0; i < 3; i++) {
        tl_transaction transaction = kit_begin(&producer);
        kit_send(k.partitions[0], &transaction, i);
        MUST(tl_transaction_abort(&transaction, &kit_error));
    }
    tl_transaction transaction = kit_begin(&producer);
    kit_send(k.partitions[1], &transaction, 9);
    MUST(tl_transaction_commit(&transaction, true, &kit_error));
    CHECK(kit_check(&k) == 0);
    char file[300];
    uint8_t entries[3 * TL_ABORTED_BYTES], bad[3 * TL_ABORTED_BYTES];
    snprintf(file, sizeof file, "%s/orders-0/%020d.txnindex", path, 0);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0 && pread(fd, entries, sizeof entries, 0) == sizeof entries);
    CHECK(entries[9] == (uint8_t)producer.producer_id && entries[17] == 0 && entries[25] == 1 && entries[33] == 2);
    for (size_t at = 0; at < sizeof entries; at++) { /* but for the last stable offset, which nothing depends on */
        if (at % TL_ABORTED_BYTES >= 26)
            continue;
        memcpy(bad, entries, sizeof bad);
        bad[at] ^= 0x40;
        CHECK(pwrite(fd, bad, sizeof bad, 0) == sizeof bad);
        CHECK(kit_check(&k) > 0);
    }
    CHECK(ftruncate(fd, 2 * TL_ABORTED_BYTES + 5) == 0 && pwrite(fd, entries, 2 * TL_ABORTED_BYTES, 0) > 0 && kit_check(&k) > 0);
    CHECK(pwrite(fd, entries, sizeof entries, 0) == sizeof entries && kit_check(&k) == 0);
    close(fd);
    /* What a reader cannot know it does not guess. */
    memset(bad, 0xff, sizeof bad);
    fd = open(file, O_RDWR);
    CHECK(pwrite(fd, bad, sizeof bad, 0) == sizeof bad);
    tl_aborted_free(k.partitions[0]);
    CHECK(tl_aborted_contains(k.partitions[0], producer.producer_id, 0, &kit_error) == TL_ECORRUPT);
    CHECK(pwrite(fd, entries, sizeof entries, 0) == sizeof entries);
    close(fd);
    snprintf(file, sizeof file, "%s/transactions/records", path);
    fd = open(file, O_RDWR);
    tl_txn_record record;
    CHECK(fd >= 0 && pread(fd, &record, sizeof record, TL_PAGE) == sizeof record && record.state == TL_TXN_DONE);
    for (size_t i = 0; i < 64 + 24; i++) { /* every byte that decides something: head, first unit */
        size_t at = i < 64 ? i : i + 64;
        uint8_t byte = ((uint8_t *)&record)[at], flipped = (uint8_t)(byte ^ 0x80);
        CHECK(pwrite(fd, &flipped, 1, (off_t)(TL_PAGE + at)) == 1);
        CHECK(kit_check(&k) > 0);
        CHECK(pwrite(fd, &byte, 1, (off_t)(TL_PAGE + at)) == 1);
    }
    CHECK(kit_check(&k) == 0);
    close(fd);
    kit_leave(&k);
    kit_remove(AT_FDCWD, path);
}

int main(void) {
    kit_install();
    for (uint64_t seed = 1; seed <= 3; seed++)
        run_random(seed, seed % 2 == 0 ? 4096 : 16384);
    run_random(99, 1 << 20);
    check_damage();
    return check_report();
}
