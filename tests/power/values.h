/* Which bytes does message number n have, and are these they?
 *
 * Imports libc. Pure functions. A number stands for one message for ever: whoever finds an offset can tell which message
 * is there and whether every byte of it is right, without asking who wrote it. */
#ifndef TIDELOG_POWER_VALUES_H
#define TIDELOG_POWER_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MOST_VALUE 600

static inline uint64_t scramble(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Most messages are small; every seventh may be large. */
static inline size_t value_bytes_of(uint32_t number) {
    return 8 + (size_t)(scramble(number) % (number % 7 == 0 ? MOST_VALUE : 90));
}

static inline int64_t timestamp_of(uint32_t number) { return 1600000000000 + number; }

static inline void fill_value(uint32_t number, uint8_t *out) {
    size_t bytes = value_bytes_of(number);
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = i == 0 ? number : scramble(((uint64_t)number << 20) + i);
        memcpy(out + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

static inline bool is_value(uint32_t number, const uint8_t *value, size_t bytes) {
    uint8_t want[MOST_VALUE + 16];
    if (bytes != value_bytes_of(number))
        return false;
    fill_value(number, want);
    return memcmp(value, want, bytes) == 0;
}

/* The number that the bytes claim to be. */
static inline uint64_t number_in(const uint8_t *value, size_t bytes) {
    uint64_t number = UINT64_MAX;
    if (bytes >= 8)
        memcpy(&number, value, 8);
    return number;
}

#endif
