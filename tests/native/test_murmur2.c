/* Is a key's hash Kafka's murmur2, and do the batched ways agree with it for every width, length and partition count?
 *
 * Imports murmur2.h. Single-threaded. */
#include "check.h"
#include "tidelog/murmur2.h"

static const struct {
    const char *hex;
    uint32_t hash, of_3, of_12, of_100;
} vectors[] = {
    {"", 275646681u, 0, 9, 81},
    {"00", 375494588u, 2, 8, 88},
    {"61", 2731586172u, 1, 4, 24},
    {"6162", 316155434u, 2, 2, 34},
    {"616263", 479470107u, 0, 3, 7},
    {"61626364", 2971317748u, 2, 8, 0},
    {"31", 2301521807u, 0, 3, 59},
    {"3130", 1164287326u, 1, 10, 26},
    {"3231", 3321034988u, 0, 0, 40},
    {"313030", 627947253u, 0, 9, 53},
    {"6b61666b61", 3496464228u, 1, 4, 80},
    {"666f6f626172", 3504634814u, 0, 6, 66},
    {"757365722d3132333435", 4051476243u, 1, 7, 95},
    {"612d6c6974746c652d6269742d6c6f6e672d737472696e67", 3308985760u, 2, 8, 12},
    {"612d6c6974746c652d6269742d6c6f6e6765722d737472696e67", 2808662467u, 2, 11, 19},
    {"6c6b6a683233346c68396669756839307932336f697568736166756a6861646f66323239706872396831396838396838", 4236069325u, 2,
     5, 77},
    {"000102030405060708090a0b0c0d0e0f", 3256932137u, 0, 9, 89},
    {"ffffffff", 644171429u, 2, 5, 29},
    {"fffefd", 998637092u, 2, 8, 92},
    {"c3a9e4b8ad", 4005141372u, 1, 4, 24},
    {"0000000000000000", 3772207363u, 2, 11, 15},
    {"54686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f67", 495243318u, 0, 6, 18},
    {"6769626572697368313233343536373839", 2404723468u, 2, 8, 20},
    {"31323334", 2680781588u, 0, 0, 40},
};

static uint64_t seed = 11;

/* From the published description, a byte at a time; the tail counts as one more word with its own rule. */
static uint32_t slow_murmur2(const uint8_t *key, size_t bytes) {
    const uint32_t m = 1540483477u;
    uint32_t h = 2538058380u ^ (uint32_t)bytes;
    for (size_t i = 0; i < bytes / 4; i++) {
        uint32_t k = 0;
        for (size_t j = 4; j-- > 0;)
            k = k * 256 + key[4 * i + j];
        k *= m;
        k ^= k / 16777216;
        k *= m;
        h *= m;
        h ^= k;
    }
    uint32_t tail = 0;
    for (size_t j = bytes % 4; j-- > 0;)
        tail = tail * 256 + key[bytes / 4 * 4 + j];
    if (bytes % 4 != 0) {
        h ^= tail;
        h *= m;
    }
    h ^= h / 8192;
    h *= m;
    return h ^ h / 32768;
}

static uint32_t slow_partition(const uint8_t *key, size_t bytes, uint32_t partitions) {
    return (slow_murmur2(key, bytes) % 2147483648u) % partitions;
}

/* Everyday counts, all bit lengths, and the ends. */
static uint32_t random_partitions(void) {
    uint32_t n = (uint32_t)check_random(&seed) >> (check_random(&seed) % 32);
    return n == 0 ? 1 : n;
}

static void check_vectors(void) {
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t key[128];
        size_t n = check_unhex(vectors[i].hex, key);
        CHECK(slow_murmur2(key, n) == vectors[i].hash);
        CHECK(tl_murmur2(key, n) == vectors[i].hash);
        CHECK(tl_partition_of(vectors[i].hash, 3) == vectors[i].of_3);
        CHECK(tl_partition_of(vectors[i].hash, 12) == vectors[i].of_12);
        CHECK(tl_partition_of(vectors[i].hash, 100) == vectors[i].of_100);
        const uint8_t *keys[3] = {key, NULL, key};
        int32_t lengths[3] = {(int32_t)n, 0, -1};
        uint32_t out[3];
        tl_partition_slices(keys, lengths, 3, 100, out);
        CHECK(out[0] == vectors[i].of_100 && out[1] == UINT32_MAX && out[2] == UINT32_MAX);
        tl_partition_rows(key, 0, n, false, 1, 12, out);
        CHECK(out[0] == vectors[i].of_12);
    }
}

static void check_modulus_at(uint32_t divisor) {
    tl_modulus modulus = tl_modulus_of(divisor);
    uint32_t last = 0x7fffffffu - 0x7fffffffu % divisor; /* the largest multiple: where rounding errs first */
    uint32_t edges[] = {0, 1, divisor - 1, divisor, divisor + 1, last - 1, last, last + 1, 0x7ffffffeu, 0x7fffffffu};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        uint32_t n = edges[i] & 0x7fffffffu;
        CHECK(tl_modulus_take(&modulus, n) == n % divisor);
    }
    for (int i = 0; i < 20; i++) {
        uint32_t n = (uint32_t)check_random(&seed) & 0x7fffffffu, multiple = n - n % divisor;
        CHECK(tl_modulus_take(&modulus, n) == n % divisor);
        CHECK(tl_modulus_take(&modulus, multiple) == 0);
        CHECK(multiple == 0 || tl_modulus_take(&modulus, multiple - 1) == divisor - 1);
    }
}

static void check_modulus(void) {
    for (uint32_t divisor = 1; divisor <= 20000; divisor++)
        check_modulus_at(divisor);
    for (unsigned bit = 14; bit < 32; bit++)
        for (uint32_t near = 0; near < 9; near++)
            check_modulus_at((1u << bit) - 4 + near);
    check_modulus_at(UINT32_MAX);
    for (int i = 0; i < 50000; i++)
        check_modulus_at(random_partitions());
}

/* Keys of one width in a heap block that ends with the last key. */
static void check_rows_of(size_t key_bytes, size_t stride, size_t count, unsigned nul_chance) {
    size_t size = count == 0 ? 0 : (count - 1) * stride + key_bytes;
    uint8_t *keys = malloc(size > 0 ? size : 1);
    uint32_t *out = malloc((count + 1) * sizeof *out), partitions = random_partitions();
    CHECK(keys != NULL && out != NULL);
    for (size_t i = 0; i < size; i++)
        keys[i] = check_random(&seed) % 8 < nul_chance ? 0 : (uint8_t)check_random(&seed);
    for (int strip = 0; strip < 2; strip++) {
        out[count] = 0xabadcafeu;
        tl_partition_rows(keys, stride, key_bytes, strip != 0, count, partitions, out);
        CHECK(out[count] == 0xabadcafeu);
        for (size_t i = 0; i < count; i++) {
            const uint8_t *key = keys + i * stride;
            size_t n = key_bytes;
            while (strip && n > 0 && key[n - 1] == 0)
                n--;
            CHECK(tl_stripped_bytes(key, strip ? key_bytes : 0) == (strip ? n : 0));
            CHECK(out[i] == slow_partition(key, n, partitions));
        }
    }
    free(keys);
    free(out);
}

static void check_rows(void) {
    for (size_t key_bytes = 0; key_bytes <= 70; key_bytes++)
        for (size_t gap = 0; gap < 3; gap++)
            for (size_t count = 0; count < 36; count += 1 + count / 4)
                for (unsigned nul_chance = 0; nul_chance <= 8; nul_chance += 4)
                    check_rows_of(key_bytes, key_bytes + gap * gap * 5, count, nul_chance);
}

static void check_slices(void) {
    enum { COUNT = 500 };
    static uint8_t pool[COUNT * 64];
    const uint8_t *keys[COUNT];
    int32_t lengths[COUNT];
    uint32_t out[COUNT];
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (uint8_t)check_random(&seed);
    for (int round = 0; round < 50; round++) {
        uint32_t partitions = random_partitions();
        uint64_t run = 1 + check_random(&seed) % 40, absent = round % 3 == 0 ? 16 : 200;
        for (size_t i = 0; i < COUNT; i++) {
            keys[i] = check_random(&seed) % absent == 0 ? NULL : pool + check_random(&seed) % (sizeof pool - 72);
            lengths[i] = i % run != 0 ? lengths[i - 1] : (int32_t)(check_random(&seed) % 73); /* runs of one length */
        }
        tl_partition_slices(keys, lengths, COUNT, partitions, out);
        for (size_t i = 0; i < COUNT; i++) {
            size_t n = (size_t)lengths[i];
            CHECK(out[i] == (keys[i] == NULL ? UINT32_MAX : slow_partition(keys[i], n, partitions)));
            CHECK(keys[i] == NULL || tl_murmur2(keys[i], n) == slow_murmur2(keys[i], n));
        }
    }
}

int main(void) {
    static const char *names[] = {"scalar", "avx2"};
    printf("default: %s;", tl_partition_rows_name());
    CHECK(tl_partition_rows_select("none") == TL_EUNSUPPORTED);
    check_modulus();
    check_slices();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int status = tl_partition_rows_select(names[i]);
        CHECK(status == TL_OK || (status == TL_EUNSUPPORTED && i > 0));
        if (status != TL_OK)
            continue;
        CHECK(strcmp(tl_partition_rows_name(), names[i]) == 0);
        printf(" %s", names[i]);
        check_vectors();
        check_rows();
    }
    printf("; ");
    return check_report();
}
