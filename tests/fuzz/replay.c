/* How does a fuzz target run without libFuzzer: over given files, and over inputs made from them or from nothing?
 *
 *     fuzz_<noun> [-n INPUTS] [-s SEED] [-m LONGEST] [FILE or DIRECTORY ...]
 *
 * Linked with one tests/fuzz/fuzz_<noun>.c, which defines LLVMFuzzerTestOneInput. Imports check.h. Single-threaded.
 * Every input stands in a heap block of exactly its size, so that AddressSanitizer sees a read past either end. When a
 * sanitizer ends the process, the input it died of is written to `crash-<seed>-<number>` in the current directory. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SEEDS_MAX 4096
#define SEED_BYTES_MAX (1u << 20)

typedef struct seed {
    uint8_t *bytes;
    size_t size;
} seed;

static seed seeds[SEEDS_MAX];
static size_t seed_count;
static const uint8_t *current;
static size_t current_size;
static char crash_name[64];

/* Runs inside a dying process: only system calls. */
static void keep_input(void) {
    int fd = current == NULL ? -1 : open(crash_name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd < 0)
        return;
    for (size_t done = 0; done < current_size;) {
        ssize_t n = write(fd, current + done, current_size - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    close(fd);
    fprintf(stderr, "the input is in %s (%zu bytes)\n", crash_name, current_size);
}

static void run(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size == 0 ? 1 : size);
    CHECK(exact != NULL);
    memcpy(exact, data, size);
    current = exact;
    current_size = size;
    LLVMFuzzerTestOneInput(exact, size);
    current = NULL;
    free(exact);
    check_count++;
}

static void load(const char *path) {
    struct stat about;
    if (stat(path, &about) != 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    if (S_ISDIR(about.st_mode)) {
        DIR *dir = opendir(path);
        CHECK(dir != NULL);
        for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
            char inner[4096];
            if (entry->d_name[0] == '.')
                continue;
            int n = snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
            CHECK(n > 0 && (size_t)n < sizeof inner);
            load(inner);
        }
        closedir(dir);
        return;
    }
    CHECK(seed_count < SEEDS_MAX && about.st_size <= SEED_BYTES_MAX);
    seed *s = &seeds[seed_count++];
    s->size = (size_t)about.st_size;
    s->bytes = malloc(s->size + 1);
    FILE *file = fopen(path, "rb");
    CHECK(s->bytes != NULL && file != NULL && fread(s->bytes, 1, s->size, file) == s->size);
    fclose(file);
}

/* One input of at most `longest` bytes: noise, or a seed with a few bytes changed, cut or moved. */
static size_t make(uint64_t *random, uint8_t *out, size_t longest) {
    static const uint8_t telling[] = {0, 1, 2, 0x7f, 0x80, 0xff};
    size_t size;
    if (seed_count == 0 || check_random(random) % 8 == 0) {
        /* Short ones are as likely as long ones: the length has a random number of bits. */
        size = check_random(random) >> (32 + check_random(random) % 32);
        size %= longest + 1;
        for (size_t i = 0; i < size; i++)
            out[i] = (uint8_t)check_random(random);
        return size;
    }
    const seed *s = &seeds[check_random(random) % seed_count];
    size = s->size < longest ? s->size : longest;
    memcpy(out, s->bytes, size);
    for (uint64_t changes = check_random(random) % 6 + 1; changes > 0 && size > 0; changes--) {
        size_t at = check_random(random) % size, other = check_random(random) % size;
        size_t length = check_random(random) % 16 + 1;
        switch (check_random(random) % 6) {
        case 0:
            out[at] ^= (uint8_t)(1u << (check_random(random) % 8));
            break;
        case 1:
            out[at] = (uint8_t)check_random(random);
            break;
        case 2:
            out[at] = telling[check_random(random) % sizeof telling];
            break;
        case 3:
            for (size_t i = at; i < size && i < at + length; i++)
                out[i] = telling[check_random(random) % 2 * 5];
            break;
        case 4:
            if (at + length <= size && other + length <= size)
                memmove(out + at, out + other, length);
            break;
        default:
            size = at;
            break;
        }
    }
    return size;
}

int main(int argc, char **argv) {
    unsigned long inputs = 0;
    uint64_t random_seed = 1;
    size_t longest = 4096;
    for (int option; (option = getopt(argc, argv, "n:s:m:")) != -1;) {
        if (option == 'n')
            inputs = strtoul(optarg, NULL, 10);
        else if (option == 's')
            random_seed = strtoull(optarg, NULL, 10);
        else if (option == 'm')
            longest = strtoul(optarg, NULL, 10);
        else
            return 2;
    }
    __sanitizer_set_death_callback(keep_input);
    snprintf(crash_name, sizeof crash_name, "crash-given");
    for (int i = optind; i < argc; i++)
        load(argv[i]);
    run((const uint8_t *)"", 0);
    for (size_t i = 0; i < seed_count; i++)
        run(seeds[i].bytes, seeds[i].size);
    uint8_t *scratch = malloc(longest == 0 ? 1 : longest);
    CHECK(scratch != NULL);
    uint64_t random = random_seed;
    for (unsigned long i = 0; i < inputs; i++) {
        snprintf(crash_name, sizeof crash_name, "crash-%llu-%lu", (unsigned long long)random_seed, i);
        size_t size = make(&random, scratch, longest);
        run(scratch, size);
    }
    free(scratch);
    for (size_t i = 0; i < seed_count; i++)
        free(seeds[i].bytes);
    printf("%zu seeds; ", seed_count);
    return check_report();
}
