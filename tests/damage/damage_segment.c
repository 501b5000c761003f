/* What do reads and `check` say when one bit of a segment, an index, a seal is wrong, or a file is cut short?
 *
 *     damage_segment [-f FILE] [-b BIT] [-t LENGTH] [-s STRIDE] [-a]
 *
 * A partition with two sealed segments and an active one holds every kind of batch: plain, single, compressed by each codec,
 * control, empty. Each bit of each file is flipped in place (the store stays open and mapped): everything but the damaged
 * batch must be read as it was, the damaged one as it was or not at all with an error that names its file and position, and
 * `check` must find what matters. The same for files cut to every length. No bit of a log, an index or a used seal is without
 * meaning; those behind the last entry of a file that was allocated ahead are, and are left out. With -a all of the log is read
 * and checked for every bit, not only what stands near it. Imports facts.h. Single-threaded. */
#define _GNU_SOURCE
#include "facts.h"

#include <getopt.h>

/* --- verdicts --- */

typedef struct tally {
    unsigned long tried, reported, harmless, found_by_check;
} tally;

static int findings;
static void count_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                          int64_t next) {
    (void)context, (void)file, (void)position, (void)what, (void)first, (void)next;
    findings++;
}

static int check_everything(void) {
    const tl_check_report report = {.finding = count_finding};
    tl_error err = {0};
    findings = 0;
    int status = tl_partition_check(partition, &report, &err);
    if (status < 0 && (err.what == NULL || err.path[0] == 0))
        REFUSE("check answered %s", tl_status_name(status));
    return status < 0 ? 1 : status;
}

/* All of [first, last] but `hurt` (-1: none) was delivered; it too, unless an error named its place. */
static void judge(const reading_result *r, uint32_t first, uint32_t last, int64_t hurt, const char *when, tally *t) {
    for (uint32_t n = first; n <= last; n++)
        if (n != hurt && !batches[n].silent && !r->seen[n])
            REFUSE("%s: the batch at offset %lld (%s, position %u) is lost too; the error was %s in %s at %lld", when,
                   (long long)batches[n].base, files[batches[n].file].name, batches[n].position,
                   r->errors == 0 ? "none" : r->what, r->file, (long long)r->position);
    if (r->errors > 1)
        REFUSE("%s: %u errors for one damage", when, r->errors);
    if (hurt < 0) {
        if (r->errors != 0)
            REFUSE("%s: %s in %s at %lld, though every message is whole", when, r->what, r->file,
                   (long long)r->position);
        return;
    }
    const batch_fact *b = &batches[hurt];
    if (r->errors == 0 && !(b->silent || r->seen[hurt]))
        REFUSE("%s: the batch at offset %lld is lost, and nothing was said", when, (long long)b->base);
    if (r->errors == 1 && (strcmp(r->file, files[b->file].name) != 0 || r->position < b->position ||
                           r->position >= b->position + b->bytes))
        REFUSE("%s: the error names %s at %lld, the damage is in %s at %u", when, r->file, (long long)r->position,
               files[b->file].name, b->position);
    t->reported += r->errors;
    t->harmless += r->errors == 0;
}

/* One bit of a log. Near it every flip is read; all of the log, read_at and check only for some, since each takes longer. */
static void flip_log(const file_fact *f, uint32_t bit, bool thoroughly, tally *t) {
    static reading_result r;
    char when[120];
    snprintf(when, sizeof when, "-f %s -b %u", f->name, bit);
    uint32_t hurt = 0;
    while (&files[batches[hurt].file] != f || batches[hurt].position + batches[hurt].bytes <= bit / 8)
        hurt++;
    uint32_t first = thoroughly || hurt < 3 ? 0 : hurt - 3,
             last = thoroughly || hurt + 4 > batch_count ? batch_count - 1 : hurt + 3;
    memset(r.seen + first, 0, last - first + 1);
    f->map[bit / 8] ^= (uint8_t)(1u << bit % 8);
    read_range(batches[first].base, batches[last].next, &r, when);
    judge(&r, first, last, hurt, when, t);
    if (r.errors == 0)
        REFUSE("%s: nothing was noticed", when);
    if (thoroughly || (bit / 8 - batches[hurt].position) < TL_BATCH_HEADER_BYTES) {
        if (check_everything() == 0)
            REFUSE("%s: check finds nothing", when);
        t->found_by_check++;
        /* From behind the damage, and at single offsets around it. */
        if (hurt + 1 < batch_count) {
            memset(r.seen + first, 0, last - first + 1);
            read_range(batches[hurt + 1].base, batches[last].next, &r, when);
            judge(&r, hurt + 1, last, -1, when, t);
        }
        for (uint32_t n = first; n <= last; n += thoroughly ? 7 : 1) {
            static tl_chunk chunk;
            tl_error err = {0};
            size_t failed = 0;
            if (batches[n].silent || batches[n].digest == 0 ||
                files[batches[n].file].map[batches[n].position + 22] % 8 != 0)
                continue; /* compressed ones need an unpacker */
            tl_chunk_clear(&chunk);
            int status = tl_partition_read_at(partition, &batches[n].base, 1, &chunk, 0, NULL, NULL, &failed, &err);
            if (status < 0 && n != hurt)
                REFUSE("%s: read_at(%lld): %s, %s", when, (long long)batches[n].base, tl_status_name(status), err.what);
            if (status < 0 && (status != TL_ECORRUPT || err.path[0] == 0))
                REFUSE("%s: read_at in the damaged batch: %s, %s", when, tl_status_name(status), err.what);
            if (status == TL_OK && n == hurt)
                REFUSE("%s: read_at delivers the damaged batch", when);
        }
    }
    f->map[bit / 8] ^= (uint8_t)(1u << bit % 8);
    t->tried++;
}

/* --- time --- */

static int64_t newest_before(uint32_t n) { /* oracle: the largest timestamp of batches before n */
    int64_t newest = -1;
    for (uint32_t k = 0; k < n; k++) {
        int64_t own = (int64_t)tl_be64(files[batches[k].file].copy + batches[k].position + 35);
        newest = own > newest ? own : newest;
    }
    return newest;
}

static void find_some(const char *when) {
    static int64_t asked[64], wanted[64];
    static size_t count;
    if (count == 0) { /* timestamps of single messages that are newer than everything before them */
        for (uint32_t n = 0; n < batch_count && count < 64; n += 5) {
            int64_t own = (int64_t)tl_be64(files[batches[n].file].copy + batches[n].position + 27); /* base timestamp */
            if (!batches[n].silent && own > newest_before(n) && own < 1600000000000 &&
                tl_be32(files[batches[n].file].copy + batches[n].position + 57) > 0) {
                asked[count] = own;
                wanted[count++] = batches[n].base;
            }
        }
        CHECK(count > 0);
    }
    int64_t found[64];
    tl_error err = {0};
    int status = tl_partition_find(partition, asked, count, found, NULL, NULL, &err);
    if (status < 0)
        REFUSE("%s: find: %s, %s in %s", when, tl_status_name(status), err.what, err.path);
    for (size_t i = 0; i < count; i++)
        if (found[i] != wanted[i])
            REFUSE("%s: time %lld was found at %lld, not at %lld", when, (long long)asked[i], (long long)found[i],
                   (long long)wanted[i]);
}

/* One bit of an index or of the seals: everything is read as it was. */
static void flip_other(const file_fact *f, uint32_t bit, tally *t) {
    static reading_result r;
    char when[120];
    snprintf(when, sizeof when, "-f %s -b %u", f->name, bit);
    f->map[bit / 8] ^= (uint8_t)(1u << bit % 8);
    memset(r.seen, 0, batch_count);
    read_range(0, log_end, &r, when);
    judge(&r, 0, batch_count - 1, -1, when, t);
    for (uint32_t n = bit % 16; n < batch_count; n += 16) { /* each from its own start: that asks the indexes */
        r.seen[n] = 0;
        read_range(batches[n].base, batches[n].next, &r, when);
        judge(&r, n, n, -1, when, t);
    }
    find_some(when);
    if (check_everything() > 0)
        t->found_by_check++;
    else
        REFUSE("%s: check finds nothing", when);
    f->map[bit / 8] ^= (uint8_t)(1u << bit % 8);
    t->tried++;
}

/* --- cut short --- */

static void cut_log(const file_fact *f, uint32_t length, tally *t) {
    static reading_result r;
    char path[600], when[120];
    snprintf(when, sizeof when, "-f %s -t %u", f->name, length);
    snprintf(path, sizeof path, "%s/orders-0/%s", store_path, f->name);
    CHECK(truncate(path, length) == 0);
    memset(r.seen, 0, batch_count);
    read_range(0, log_end, &r, when);
    for (uint32_t n = 0; n < batch_count; n++) {
        bool there = &files[batches[n].file] != f || batches[n].position + batches[n].bytes <= length;
        if (!batches[n].silent && there && !r.seen[n])
            REFUSE("%s: the batch at offset %lld is lost too: %s at %lld", when, (long long)batches[n].base, r.what,
                   (long long)r.position);
        if (!there && r.seen[n] && length + 4096 < batches[n].position)
            REFUSE("%s: a batch that is gone was delivered", when);
    }
    /* The rest of the last page reads as zeros: a cut that took zeros alone takes nothing. */
    for (uint32_t n = 0; n < batch_count && r.errors == 0; n++)
        if (!batches[n].silent && !r.seen[n])
            REFUSE("%s: the batch at offset %lld is lost, and nothing was said", when, (long long)batches[n].base);
    t->reported += r.errors > 0;
    t->tried++;
}

static void put_back(const file_fact *f) {
    char path[600];
    snprintf(path, sizeof path, "%s/orders-0/%s", store_path, f->name);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pwrite(fd, f->copy, f->bytes, 0) == (ssize_t)f->bytes && ftruncate(fd, (off_t)f->bytes) == 0);
    close(fd);
}

static void cut_other(const file_fact *f, uint32_t length, tally *t) {
    static reading_result r;
    char path[600], when[120];
    snprintf(when, sizeof when, "-f %s -t %u", f->name, length);
    snprintf(path, sizeof path, "%s/orders-0/%s", store_path, f->name);
    CHECK(truncate(path, length) == 0);
    memset(r.seen, 0, batch_count);
    read_range(0, log_end, &r, when);
    judge(&r, 0, batch_count - 1, -1, when, t);
    find_some(when);
    t->found_by_check += check_everything() > 0;
    t->tried++;
}

/* --- main --- */

static void verdict(int number) {
    (void)number;
    _exit(1); /* what is wrong has been printed */
}

static void prepare(void) {
    tl_error err = {0};
    signal(SIGABRT, verdict);
    uint32_t slot = 0;
    kit_install();
    kit_directory(store_path, "damage");
    CHECK(kit_open(store_path, &store, NULL, &err) == TL_OK && tl_store_ready(store, &err) == TL_OK);
    CHECK(kit_create(store, 0, SEGMENT_BYTES, &slot, &err) == TL_OK);
    CHECK(tl_store_partition(store, slot, kit_channel, &partition, &err) == TL_OK);
    fill((uint64_t)2 << 32 | SEGMENT_BYTES / 3);
    DIR *stream;
    char path[600], names[16][80];
    int count = 0;
    snprintf(path, sizeof path, "%s/orders-0", store_path);
    CHECK((stream = opendir(path)) != NULL);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (strstr(entry->d_name, ".log") != NULL)
            snprintf(names[count++], 80, "%.79s", entry->d_name);
    closedir(stream);
    CHECK(count == 3);
    qsort(names, (size_t)count, sizeof names[0], (int (*)(const void *, const void *))strcmp);
    for (int i = 0; i < count; i++)
        add_file(names[i], i, i < 2, true);
    for (int i = 0; i < count; i++) {
        char other[80];
        snprintf(other, sizeof other, "%.20s.index", names[i]);
        add_file(other, i, i < 2, false);
        snprintf(other, sizeof other, "%.20s.timeindex", names[i]);
        add_file(other, i, i < 2, false);
    }
    add_file("seals", -1, false, false);
    learn();
    tl_partition_info info;
    CHECK(tl_partition_describe(partition, &info, &err) == TL_OK && info.log_end == log_end);
    for (uint32_t f = 3; f < file_count; f++)
        if (!files[f].sealed)
            files[f].used =
                files[f].segment < 0 ? SEALS_HEADER + 3 * SEAL_BYTES : 0; /* below: by the last byte that is not zero */
    for (uint32_t f = 3; f < file_count; f++) {
        uint32_t last = files[f].bytes, unit = strstr(files[f].name, ".timeindex") != NULL ? 12 : 8;
        while (last > 0 && files[f].copy[last - 1] == 0)
            last--;
        if (!files[f].sealed && files[f].segment >= 0)
            files[f].used = (last + unit - 1) / unit * unit;
    }
    if (check_everything() != 0)
        REFUSE("check finds something before anything is damaged");
}

int main(int argc, char **argv) {
    const char *only_file = NULL;
    int64_t only_bit = -1, only_length = -1;
    uint32_t stride = 1;
    bool all_of_it = false;
    for (int option; (option = getopt(argc, argv, "f:b:t:s:a")) != -1;) {
        switch (option) {
        case 'f':
            only_file = optarg;
            break;
        case 'b':
            only_bit = atoll(optarg);
            break;
        case 't':
            only_length = atoll(optarg);
            break;
        case 's':
            stride = (uint32_t)atoll(optarg);
            break;
        case 'a':
            all_of_it = true;
            break;
        default:
            return 2;
        }
    }
    prepare();
    find_some("undamaged");
    unsigned long all = 0;
    for (uint32_t n = 0; n < file_count; n++) {
        const file_fact *f = &files[n];
        if (only_file != NULL && strcmp(only_file, f->name) != 0)
            continue;
        tally t = {0}, cuts = {0};
        uint64_t seed = n;
        for (uint32_t bit = 0; bit < f->used * 8 && only_length < 0; bit += stride) {
            if (only_bit >= 0 && bit != only_bit)
                continue;
            if (f->log && only_bit >= 0)
                flip_log(f, bit, false, &t);
            if (f->log)
                flip_log(f, bit, all_of_it || only_bit >= 0 || check_random(&seed) % 64 == 0, &t);
            else
                flip_other(f, bit, &t);
        }
        if (memcmp(f->map, f->copy, f->bytes) != 0)
            REFUSE("%s: reading or checking changed the file", f->name);
        for (int64_t length = f->bytes - 1; length >= 0 && only_bit < 0; length -= stride) {
            if (only_length >= 0 && length != only_length)
                continue;
            (f->log ? cut_log : cut_other)(f, (uint32_t)length, &cuts);
        }
        put_back(f);
        printf("%s: %lu flips (%lu reported, %lu checked), %lu lengths (%lu reported, %lu checked)\n", f->name, t.tried,
               t.reported, t.found_by_check, cuts.tried, cuts.reported, cuts.found_by_check);
        fflush(stdout);
        all += t.tried + cuts.tried;
    }
    tl_error err = {0};
    tl_partition_release(partition);
    CHECK(tl_store_close(store, &err) == TL_OK);
    tl_store_free(store);
    kit_remove(AT_FDCWD, store_path);
    printf("ok %lu checks: %u batches in %u files\n", all, batch_count, file_count);
    return 0;
}
