/* What does a store say when its files were damaged while nobody had it open: one bit wrong, cut short, grown, emptied, gone?
 *
 *     damage_reopen [-i clean|unclean] [-f FILE] [-c CASE] [-n NUMBER] [-m MOST]
 *
 * Two images of one store are taken: closed cleanly, and as a power cut leaves it (a part of the active segment behind the
 * recovery point). Each case damages one file of an image and opens it in a new boot: what was acknowledged is there, or an
 * error names file and place; nothing else is lost, no offset is given out again, no older state comes back. Imports
 * facts.h. Single-threaded. Of each kind at most MOST cases a file, spread at random; -n with -i, -f and -c runs one. */
#define _GNU_SOURCE
#include "facts.h"

#include <getopt.h>

enum { MOST_IMAGE_FILES = 24, COMMITTED = 77, TRIMMED = KIT_BATCH /* the first batch */ };

typedef struct image_file {
    char name[100];
    uint8_t *bytes;
    size_t size, used; /* used: up to the last byte that is not zero */
} image_file;

typedef struct image {
    const char *name;
    image_file files[MOST_IMAGE_FILES];
    size_t count;
    uint32_t trusted; /* bytes of the active segment before the recovery point */
} image;

static image clean = {.name = "clean"}, unclean = {.name = "unclean"};
static char place[220];   /* where images are written */
static char current[200]; /* the case at work */

static void say_current(int number) {
    static const char text[] = "it died in the case -i ";
    (void)!write(2, text, sizeof text - 1);
    (void)!write(2, current, strlen(current));
    (void)!write(2, "\n", 1);
    if (number == SIGABRT) /* a verdict, which has been printed */
        _exit(1);
    signal(number, SIG_DFL);
    raise(number);
}

/* --- images --- */

static void take_directory(image *out, const char *directory, const char *prefix) {
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        char path[600];
        struct stat about;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (entry->d_name[0] == '.' || stat(path, &about) != 0)
            continue;
        if (S_ISDIR(about.st_mode)) {
            take_directory(out, path, "orders-0/");
            continue;
        }
        image_file *f = &out->files[out->count++];
        CHECK(out->count < MOST_IMAGE_FILES);
        snprintf(f->name, sizeof f->name, "%s%.70s", prefix, entry->d_name);
        f->size = f->used = (size_t)about.st_size;
        f->bytes = malloc(f->size + 1);
        int fd = open(path, O_RDONLY);
        CHECK(fd >= 0 && f->bytes != NULL && read(fd, f->bytes, f->size) == (ssize_t)f->size);
        close(fd);
        while (f->used > 0 && f->bytes[f->used - 1] == 0)
            f->used--;
    }
    closedir(stream);
}

static void write_file(const char *name, const uint8_t *bytes, size_t used, size_t size) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", place, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, used) == (ssize_t)used && ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

static void write_image(const image *from) {
    char inner[300];
    kit_remove(AT_FDCWD, place);
    snprintf(inner, sizeof inner, "%s/orders-0", place);
    CHECK(mkdir(place, 0700) == 0 && mkdir(inner, 0700) == 0);
    for (size_t i = 0; i < from->count; i++)
        if (strcmp(from->files[i].name, "shared") !=
            0) /* it means nothing in another boot; see the one case that keeps it */
            write_file(from->files[i].name, from->files[i].bytes, from->files[i].used, from->files[i].size);
}

static int keep_config(void *context, uint32_t slot, const tl_partition_config *config) {
    (void)slot;
    memcpy(context, config, sizeof *config);
    return 1;
}

static void prepare(void) {
    tl_error err = {0};
    uint32_t slot = 0, offset_slot = 0, epoch = 0;
    tl_offset_word word;
    kit_install();
    kit_directory(store_path, "damage");
    snprintf(place, sizeof place, "%s-case", store_path);
    CHECK(kit_open(store_path, &store, NULL, &err) == TL_OK && tl_store_ready(store, &err) == TL_OK);
    CHECK(kit_create(store, 0, SEGMENT_BYTES, &slot, &err) == TL_OK);
    CHECK(tl_store_partition(store, slot, kit_channel, &partition, &err) == TL_OK);
    fill((uint64_t)2 << 32 | 9000);
    CHECK(tl_partition_trim(partition, TRIMMED, &err) == TL_OK);
    CHECK(tl_store_offset_slot(store, "group", 5, kit_channel, 0, true, &offset_slot, &err) == TL_OK);
    CHECK(tl_offsets_read(tl_store_offsets(store), offset_slot, &word, NULL) == TL_OK);
    CHECK(tl_offsets_claim(tl_store_offsets(store), offset_slot, word, 5, &epoch) == TL_OK);
    CHECK(tl_offsets_commit(tl_store_offsets(store), offset_slot, 5, epoch, COMMITTED, 1) == TL_OK);
    /* So many changes that the checkpoint moves to its other file. */
    tl_partition_config config;
    (void)tl_store_each_partition(store, &config, keep_config);
    for (int i = 0; i < 1700; i++)
        CHECK(tl_store_configure_partitions(store, &slot, 1, &config, &err) == TL_OK);
    CHECK(tl_store_housekeep(store, &err) == TL_OK);
    uint64_t synced = tl_partition_tail(partition);
    fill((uint64_t)2 << 32 | 18000);
    take_directory(&unclean, store_path, "");
    unclean.trusted = (uint32_t)synced;
    tl_partition_release(partition);
    CHECK(tl_store_close(store, &err) == TL_OK);
    tl_store_free(store);
    take_directory(&clean, store_path, "");
    clean.trusted = UINT32_MAX;
    char names[3][100];
    int count = 0;
    for (size_t i = 0; i < clean.count; i++)
        if (strstr(clean.files[i].name, ".log") != NULL)
            snprintf(names[count++], 100, "%.79s", clean.files[i].name + 9);
    CHECK(count == 3);
    qsort(names, 3, sizeof names[0], (int (*)(const void *, const void *))strcmp);
    for (int i = 0; i < 3; i++)
        add_file(names[i], i, true, true);
    learn();
}

/* --- one case --- */

typedef struct expectation {
    uint32_t hurt_from, hurt_until; /* numbers of batches that may be missing */
    bool cut;                       /* they are behind the recovery point: put aside, and no error afterwards */
    bool gone;                      /* the whole file: appends may be refused */
    bool may_refuse;                /* the store may refuse to open, naming the file */
    const char *file;
} expectation;

typedef struct tally {
    unsigned long tried, refused, reported, cut, whole;
} tally;

static void judge(const expectation *wanted, tally *t) {
    static reading_result r;
    tl_error err = {0};
    tl_recovery recovery;
    t->tried++;
    kit_boot++;
    int status = kit_open(place, &store, &recovery, &err);
    if (status < 0) {
        if (!wanted->may_refuse || (status != TL_ECORRUPT && status != TL_EUNSUPPORTED && status != TL_EINVAL) ||
            strstr(err.path, wanted->file) == NULL)
            REFUSE("%s: open: %s, %s, %s", current, tl_status_name(status), err.what, err.path);
        t->refused++;
        return;
    }
    CHECK(tl_store_ready(store, &err) == TL_OK);
    if (recovery.failed_partitions > 0)
        REFUSE("%s: the partition was given up", current);
    if ((status = tl_store_partition(store, 0, kit_channel, &partition, &err)) < 0)
        REFUSE("%s: handle: %s, %s", current, tl_status_name(status), err.what);
    tl_bounds bounds;
    tl_appended out;
    kit_ledger unused = {0};
    CHECK(tl_partition_bounds(partition, &bounds, &err) == TL_OK);
    if (bounds.log_start != TRIMMED)
        REFUSE("%s: the log starts at %lld", current, (long long)bounds.log_start);
    memset(r.seen, 0, batch_count);
    read_range(TRIMMED, bounds.log_end < log_end ? bounds.log_end : log_end, &r, current);
    unsigned long lost = 0;
    for (uint32_t n = 0; n < batch_count; n++) {
        bool may = n >= wanted->hurt_from && n < wanted->hurt_until;
        if (batches[n].next <= TRIMMED || batches[n].silent || r.seen[n])
            continue;
        if (!may)
            REFUSE("%s: the batch at offset %lld (file %u, position %u) is lost; the error was %s in %s at %lld",
                   current, (long long)batches[n].base, batches[n].file, batches[n].position,
                   r.errors == 0 ? "none" : r.what, r.file, (long long)r.position);
        lost++;
    }
    if (lost > 0 && !wanted->cut && r.errors == 0)
        REFUSE("%s: %lu batches are lost, and nothing was said", current, lost);
    if (r.errors > 0 && (wanted->cut || wanted->hurt_from == wanted->hurt_until))
        REFUSE("%s: %s in %s at %lld, though what is left is whole", current, r.what, r.file, (long long)r.position);
    if (r.errors > 0 && strstr(r.file, wanted->file) == NULL)
        REFUSE("%s: the error names %s", current, r.file);
    status = kit_append(partition, &unused, 2, 0, &out, &err);
    free(unused.entries);
    if (status < 0 && !(wanted->gone && status == TL_ECORRUPT && strstr(err.path, wanted->file) != NULL))
        REFUSE("%s: append: %s, %s, %s", current, tl_status_name(status), err.what, err.path);
    if (status == TL_OK && out.base_offset < log_end)
        REFUSE("%s: offset %lld was given out again", current, (long long)out.base_offset);
    uint32_t slot = 0;
    tl_offset_word word = {0};
    if (tl_store_offset_slot(store, "group", 5, kit_channel, 0, false, &slot, &err) < 0 ||
        tl_offsets_read(tl_store_offsets(store), slot, &word, NULL) < 0 || word.offset != COMMITTED)
        REFUSE("%s: the committed offset is %lld", current, (long long)word.offset);
    tl_partition_release(partition);
    if ((status = tl_store_close(store, &err)) < 0)
        REFUSE("%s: close: %s, %s, %s", current, tl_status_name(status), err.what, err.path);
    tl_store_free(store);
    t->reported += r.errors > 0;
    t->cut += lost > 0 && r.errors == 0;
    t->whole += lost == 0;
}

static bool is_log(const image_file *f) { return strstr(f->name, ".log") != NULL; }

/* Which batches a change of bytes [from, until) of a file may cost. */
static expectation expect(const image *from, const image_file *f, size_t at, size_t until) {
    expectation e = {.file = strstr(f->name, "checkpoint") != NULL   ? "checkpoint"
                             : strncmp(f->name, "orders-0/", 9) == 0 ? f->name + 9
                                                                     : f->name};
    e.may_refuse = strstr(f->name, "checkpoint") != NULL || strcmp(f->name, "tidelog.json") == 0 ||
                   strcmp(f->name, "store.lock") == 0;
    if (strcmp(f->name, "store.lock") == 0)
        e.file = ""; /* without it the directory is not known to be a store: the error names the directory */
    for (uint32_t n = 0; n < batch_count && is_log(f); n++) {
        if (strcmp(files[batches[n].file].name, f->name + 9) != 0)
            continue;
        size_t begin = batches[n].position, end = begin + batches[n].bytes;
        bool active = batches[n].file == 2;
        if (end <= at || begin >= until)
            continue;
        if (e.hurt_from == e.hurt_until) {
            e.hurt_from = n;
            e.cut = active && begin >= from->trusted;
        }
        e.hurt_until = n + 1;
        if (active && begin >= from->trusted) /* pages reach the disk in any order: nothing behind the gap counts */
            e.hurt_until = batch_count;
    }
    return e;
}

/* --- cases --- */

static void flip(const image *from, image_file *f, uint64_t bit, tally *t) {
    f->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    write_image(from);
    f->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    const expectation e = expect(from, f, bit / 8, bit / 8 + 1);
    judge(&e, t);
}

static void cut(const image *from, const image_file *f, uint64_t length, tally *t) {
    write_image(from);
    write_file(f->name, f->bytes, length < f->used ? length : f->used, length);
    expectation e = expect(from, f, length, SIZE_MAX);
    if (is_log(f) && !e.cut && e.hurt_from < e.hurt_until && batches[e.hurt_from].file == 2)
        e.cut = length >= from->trusted;
    judge(&e, t);
}

enum { TAILS = 5 };
static void grow(const image *from, const image_file *f, uint64_t kind, tally *t) {
    enum { MORE = 5000 };
    static const char *const names[TAILS] = {"zeros", "ones", "random", "an old batch", "the last batch again"};
    uint8_t *bytes = calloc(1, f->size + MORE);
    CHECK(bytes != NULL);
    memcpy(bytes, f->bytes, f->size);
    uint64_t seed = kind;
    size_t at = is_log(f) ? f->used : f->size;
    if (is_log(f)) /* batches may end in zeros: where the last one ends is known */
        for (uint32_t n = 0; n < batch_count; n++)
            if (strcmp(files[batches[n].file].name, f->name + 9) == 0)
                at = batches[n].position + batches[n].bytes;
    for (size_t i = 0; kind > 0 && kind < 3 && i < MORE && at + i < f->size + MORE; i++)
        bytes[at + i] = kind == 1 ? 0xff : (uint8_t)check_random(&seed);
    const batch_fact *copy = kind == 3 ? &batches[1] : &batches[batch_count - 1];
    if (kind >= 3)
        memcpy(bytes + at, files[copy->file].copy + copy->position, copy->bytes < MORE ? copy->bytes : MORE);
    write_image(from);
    write_file(f->name, bytes, f->size + MORE, f->size + MORE);
    free(bytes);
    expectation e = expect(from, f, SIZE_MAX, SIZE_MAX);
    size_t said = strlen(current);
    snprintf(current + said, sizeof current - said, " (%s)", names[kind]);
    judge(&e, t);
}

static void remove_one(const image *from, const image_file *f, tally *t) {
    char path[400];
    write_image(from);
    snprintf(path, sizeof path, "%s/%s", place, f->name);
    CHECK(unlink(path) == 0);
    expectation e = expect(from, f, 0, SIZE_MAX);
    e.cut = false;
    e.gone = true;
    judge(&e, t);
}

int main(int argc, char **argv) {
    const char *only_image = NULL, *only_file = NULL, *only_case = NULL;
    uint64_t most = 700;
    int64_t only = -1;
    for (int option; (option = getopt(argc, argv, "i:f:c:n:m:")) != -1;) {
        switch (option) {
        case 'i':
            only_image = optarg;
            break;
        case 'f':
            only_file = optarg;
            break;
        case 'c':
            only_case = optarg;
            break;
        case 'n':
            only = atoll(optarg);
            break;
        case 'm':
            most = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    prepare();
    signal(SIGSEGV, say_current);
    signal(SIGBUS, say_current);
    signal(SIGABRT, say_current);
    signal(SIGALRM, say_current);
    unsigned long all = 0;
    image *const images[] = {&clean, &unclean};
    for (size_t k = 0; k < 2; k++) {
        image *from = images[k];
        for (size_t i = 0; i < from->count; i++) {
            image_file *f = &from->files[i];
            if ((only_image != NULL && strcmp(only_image, from->name) != 0) ||
                (only_file != NULL && strcmp(only_file, f->name) != 0) || strcmp(f->name, "shared") == 0)
                continue;
            static const char *const kinds[] = {"flip", "cut", "grow", "remove"};
            const uint64_t counts[] = {f->used * 8, f->size, TAILS, 1};
            tally totals[4] = {0};
            for (int c = 0; c < 4; c++) {
                /* Nothing of `offsets` is looked at in a new boot; the bulk of a checkpoint is history. */
                uint64_t most_here = strcmp(f->name, "offsets") == 0 ? most / 20 + 1 : most, seed = (uint64_t)c;
                double step = counts[c] > most_here ? (double)counts[c] / (double)most_here : 1;
                for (double at = 0; (uint64_t)at<counts[c]; at += step> 1
                                        ? step * (double)(check_random(&seed) % 1000 + 500) / 1000
                                        : 1) {
                    uint64_t n = (uint64_t)at;
                    if (only_case != NULL && strcmp(only_case, kinds[c]) != 0)
                        continue;
                    uint64_t number = only >= 0 ? (uint64_t)only : n;
                    snprintf(current, sizeof current, "%s -f %s -c %s -n %llu", from->name, f->name, kinds[c],
                             (unsigned long long)number);
                    alarm(20);
                    if (c == 0)
                        flip(from, f, number, &totals[c]);
                    else if (c == 1)
                        cut(from, f, number, &totals[c]);
                    else if (c == 2)
                        grow(from, f, number, &totals[c]);
                    else
                        remove_one(from, f, &totals[c]);
                    if (only >= 0)
                        break;
                }
                all += totals[c].tried;
            }
            printf("%s %s: flips %lu (whole %lu, reported %lu, cut %lu, refused %lu), ", from->name, f->name,
                   totals[0].tried, totals[0].whole, totals[0].reported, totals[0].cut, totals[0].refused);
            printf("lengths %lu (%lu, %lu, %lu, %lu), grown %lu, removed %lu\n", totals[1].tried, totals[1].whole,
                   totals[1].reported, totals[1].cut, totals[1].refused, totals[2].tried, totals[3].tried);
            fflush(stdout);
        }
    }
    kit_remove(AT_FDCWD, store_path);
    kit_remove(AT_FDCWD, place);
    printf("ok %lu checks: %u batches\n", all, batch_count);
    return 0;
}
