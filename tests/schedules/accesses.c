/* How does every access of the core to shared memory become a step?
 *
 * Imports actors.h, kernel.h, world.h. The core is compiled with -fsanitize=thread, which puts a call in front of each
 * load and store and a call in place of each atomic operation, and linked with the functions below instead of the
 * sanitizer's library. There is one thread, so plain operations are atomic. Accesses to other memory than files of the
 * world are a process's own business and no steps. Not seen: memcpy of the C library, and the 16-byte compare-and-swap,
 * which has a TL_YIELD before it. */
#include "accesses.h"

#include "kernel.h"
#include "world.h"

#include <stdio.h>

typedef unsigned long count_of;

#define HIDDEN __attribute__((visibility("default"), used))

static uint32_t plain_run; /* plain accesses of one kind to one file, one after the other */
static size_t plain_file;
static bool plain_store;

static void tell_place(const void *at, size_t bytes, const char *what) {
    static char text[96];
    size_t file = world_file_of(at);
    snprintf(text, sizeof text, "%s %zu bytes, file %zu at %#zx", what, bytes, file,
             (size_t)((const uint8_t *)at - world_file((uint32_t)file)));
    actors_about_to = text;
}

/* Before the access. A batch is copied by dozens of stores: the first, second, fourth, eighth ... is a step, since
 * nobody looks there before it is published. Every access to the shared words is one. */
__attribute__((noinline)) static void access_file(const void *at, size_t bytes, bool store, bool plain) {
    size_t file = world_file_of(at);
    if ((uintptr_t)at + bytes > (uintptr_t)world_file((uint32_t)file) + kernel_room(file))
        actors_fail("an access of %zu bytes at position %zu of file %zu is behind its end", bytes,
                    (size_t)((const uint8_t *)at - world_file((uint32_t)file)), file);
    if (plain && !kernel_holds_words(file)) {
        plain_run = file == plain_file && store == plain_store ? plain_run + 1 : 1;
        plain_file = file;
        plain_store = store;
        if ((plain_run & (plain_run - 1)) != 0)
            return;
    } else {
        plain_run = 0;
    }
    if (TL_UNLIKELY(actors_loud))
        tell_place(at, bytes, store ? "store" : "load");
    actors_access(at, store);
}

TL_INLINE void access_to(const void *at, size_t bytes, bool store, bool plain) {
    if (TL_UNLIKELY(world_file_of(at) < WORLD_FILES) && actors_current >= 0)
        access_file(at, bytes, store, plain);
}

HIDDEN void __tsan_init(void) {}
HIDDEN void __tsan_func_entry(void *from) { (void)from; }
HIDDEN void __tsan_func_exit(void) {}

#define PLAIN(bytes) \
    HIDDEN void __tsan_read##bytes(void *at) { access_to(at, bytes, false, true); } \
    HIDDEN void __tsan_write##bytes(void *at) { access_to(at, bytes, true, true); }
#define UNALIGNED(bytes) \
    HIDDEN void __tsan_unaligned_read##bytes(void *at) { access_to(at, bytes, false, true); } \
    HIDDEN void __tsan_unaligned_write##bytes(void *at) { access_to(at, bytes, true, true); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)
HIDDEN void __tsan_read_range(void *at, count_of bytes) { access_to(at, bytes, false, true); }
HIDDEN void __tsan_write_range(void *at, count_of bytes) { access_to(at, bytes, true, true); }

#define FETCH(bits, type, name, expression) \
    HIDDEN type __tsan_atomic##bits##_##name(volatile type *at, type value, int order) { \
        (void)order; \
        access_to((const void *)(uintptr_t)at, sizeof *at, true, false); \
        type old = *at; \
        *at = (type)(expression); \
        return old; \
    }
#define EXCHANGE(bits, type, name) \
    HIDDEN int __tsan_atomic##bits##_compare_exchange_##name(volatile type *at, type *expected, type value, int order, \
                                                             int failing) { \
        (void)order; \
        (void)failing; \
        access_to((const void *)(uintptr_t)at, sizeof *at, true, false); \
        if (*at != *expected) { \
            *expected = *at; \
            return 0; \
        } \
        *at = value; \
        return 1; \
    }
#define ATOMIC(bits, type) \
    HIDDEN type __tsan_atomic##bits##_load(const volatile type *at, int order) { \
        (void)order; \
        access_to((const void *)(uintptr_t)at, sizeof *at, false, false); \
        return *at; \
    } \
    HIDDEN void __tsan_atomic##bits##_store(volatile type *at, type value, int order) { \
        (void)order; \
        access_to((const void *)(uintptr_t)at, sizeof *at, true, false); \
        *at = value; \
    } \
    FETCH(bits, type, exchange, value) \
    FETCH(bits, type, fetch_add, old + value) \
    FETCH(bits, type, fetch_sub, old - value) \
    FETCH(bits, type, fetch_and, old & value) \
    FETCH(bits, type, fetch_or, old | value) \
    FETCH(bits, type, fetch_xor, old ^ value) \
    EXCHANGE(bits, type, strong) \
    EXCHANGE(bits, type, weak)
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

HIDDEN void __tsan_atomic_thread_fence(int order) { (void)order; }
HIDDEN void __tsan_atomic_signal_fence(int order) { (void)order; }
