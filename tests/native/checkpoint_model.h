/* What should a checkpoint hold after these groups? An array that remembers the last value of each of 48 keys.
 *
 * Imports check.h, checkpoint.h. A group is a function of (number, seed): puts and deletes of random keys with random
 * values, and one record that says the number and the seed, so that a loaded state tells which history it claims. */
#ifndef TIDELOG_TEST_CHECKPOINT_MODEL_H
#define TIDELOG_TEST_CHECKPOINT_MODEL_H

#include "check.h"
#include "tidelog/checkpoint.h"

#define MODEL_KEYS 48u
#define MODEL_RECORDS 7u
#define MODEL_SEQUENCE 999u

/* Of each key: the seed and size of its value. */
typedef struct model {
    struct { uint64_t seed; uint32_t bytes; bool present; } key[MODEL_KEYS];
    uint64_t number, seed;              /* of the last group; number 0: none */
} model;

typedef struct model_group {
    tl_checkpoint_record records[MODEL_RECORDS + 1];
    size_t count;
    uint8_t keys[MODEL_RECORDS][512], sequence[16];
    uint8_t *values[MODEL_RECORDS];
} model_group;

#define MODEL_LARGEST 300u            /* bytes of a value; in one group of 16 they may be 40,000 */

static uint16_t model_key(uint32_t k, uint8_t out[512]) {
    uint16_t bytes = (uint16_t)(k % 5 == 0 ? 512 : k % 7 == 0 ? 0 : 3 + k);
    memset(out, 'k', bytes);
    if (bytes > 0)
        out[bytes - 1] = (uint8_t)k;
    return bytes;
}

static uint16_t model_type(uint32_t k) { return (uint16_t)(k % 7 == 0 ? 1000 + k : k % 3); }

static void model_value(uint64_t seed, uint8_t *out, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(i % 8 == 0 ? check_random(&seed) : seed >> (8 * (i % 8)));
}

/* Applies group (number, seed) to a model, and builds its records unless `group` is NULL. */
static void model_step(model *m, uint64_t number, uint64_t seed, model_group *group) {
    uint64_t random = seed;
    uint32_t largest = seed >> 60 == 0 ? 40000 : MODEL_LARGEST;
    size_t count = check_random(&random) % MODEL_RECORDS;
    for (size_t i = 0; i < count; i++) {
        uint32_t k = (uint32_t)(check_random(&random) % MODEL_KEYS);
        bool deleted = check_random(&random) % 4 == 0;
        uint32_t bytes = deleted ? 0 : (uint32_t)(check_random(&random) % (largest + 1));
        uint64_t value_seed = check_random(&random);
        m->key[k].seed = value_seed;
        m->key[k].bytes = bytes;
        m->key[k].present = !deleted;
        if (group != NULL) {
            group->values[i] = malloc(bytes + 1);
            CHECK(group->values[i] != NULL);
            model_value(value_seed, group->values[i], bytes);
            group->records[i] = (tl_checkpoint_record){.key = group->keys[i],
                                                       .value = group->values[i],
                                                       .value_bytes = bytes,
                                                       .key_bytes = model_key(k, group->keys[i]),
                                                       .type = model_type(k),
                                                       .deleted = deleted};
        }
    }
    m->number = number;
    m->seed = seed;
    if (group != NULL) {
        memcpy(group->sequence, &number, 8);
        memcpy(group->sequence + 8, &seed, 8);
        group->records[count] = (tl_checkpoint_record){
            .key = "seq", .key_bytes = 3, .type = MODEL_SEQUENCE, .value = group->sequence, .value_bytes = 16};
        group->count = count + 1;
    }
}

static void model_group_free(model_group *group) {
    for (size_t i = 0; i + 1 < group->count; i++)
        free(group->values[i]);
    group->count = 0;
}

/* What was loaded, kept as values so that it can be compared in any order. */
typedef struct model_loaded {
    uint8_t *value[MODEL_KEYS];
    uint32_t bytes[MODEL_KEYS];
    uint64_t number, seed;
    bool strange, sequence;             /* a key that no group wrote, or one twice */
} model_loaded;

static int model_each(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                      uint32_t value_bytes) {
    model_loaded *loaded = context;
    if (type == MODEL_SEQUENCE && key_bytes == 3 && value_bytes == 16 && !loaded->sequence) {
        memcpy(&loaded->number, value, 8);
        memcpy(&loaded->seed, (const uint8_t *)value + 8, 8);
        loaded->sequence = true;
        return 0;
    }
    for (uint32_t k = 0; k < MODEL_KEYS; k++) {
        uint8_t expected[512];
        if (model_type(k) != type || model_key(k, expected) != key_bytes || memcmp(expected, key, key_bytes) != 0)
            continue;
        if (loaded->value[k] != NULL)
            break;
        loaded->value[k] = malloc(value_bytes + 1);
        CHECK(loaded->value[k] != NULL);
        memcpy(loaded->value[k], value, value_bytes);
        loaded->bytes[k] = value_bytes;
        return 0;
    }
    loaded->strange = true;
    return 0;
}

static int model_load(const tl_checkpoint *c, model_loaded *loaded, tl_error *err) {
    *loaded = (model_loaded){0};
    return tl_checkpoint_load(c, loaded, model_each, err);
}

static bool model_equal(const model *m, const model_loaded *loaded) {
    bool equal = !loaded->strange && loaded->number == m->number && loaded->seed == m->seed;
    for (uint32_t k = 0; k < MODEL_KEYS && equal; k++) {
        equal = m->key[k].present == (loaded->value[k] != NULL);
        if (equal && m->key[k].present) {
            uint8_t *expected = malloc(m->key[k].bytes + 1);
            CHECK(expected != NULL);
            model_value(m->key[k].seed, expected, m->key[k].bytes);
            equal = loaded->bytes[k] == m->key[k].bytes && memcmp(expected, loaded->value[k], m->key[k].bytes) == 0;
            free(expected);
        }
    }
    return equal;
}

static void model_loaded_free(model_loaded *loaded) {
    for (uint32_t k = 0; k < MODEL_KEYS; k++)
        free(loaded->value[k]);
}

/* Whether the checkpoint holds exactly this. */
static inline bool model_holds(const tl_checkpoint *c, const model *m) {
    model_loaded loaded;
    tl_error err;
    bool equal = model_load(c, &loaded, &err) == TL_OK && model_equal(m, &loaded);
    model_loaded_free(&loaded);
    return equal;
}

static inline int model_append(tl_checkpoint *c, model *m, uint64_t seed, tl_checkpoint_end *end, tl_error *err) {
    model_group group;
    model next = *m;
    model_step(&next, m->number + 1, seed, &group);
    int result = tl_checkpoint_append(c, group.records, group.count, end, err);
    model_group_free(&group);
    if (result == TL_OK)
        *m = next;
    return result;
}

#endif
