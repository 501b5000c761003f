/* What is the time, and how long is the answer good for?
 *
 * Imports clock.h. Callable from any thread. */
#include "tidelog/clock.h"

#if defined(__x86_64__) && !defined(TL_TEST)
#include <cpuid.h>

/* An invariant counter runs at one rate on all cores, whatever they do, and that rate is above 1 GHz on every x86-64. */
static bool counter_is_steady(void) {
    static int steady = -1;
    int known = __atomic_load_n(&steady, __ATOMIC_RELAXED);
    if (known < 0) {
        unsigned a = 0, b = 0, c = 0, d = 0;
        known = __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & (1u << 8)) != 0 ? 1 : 0;
        __atomic_store_n(&steady, known, __ATOMIC_RELAXED);
    }
    return known == 1;
}
#endif

int64_t tl_clock_ask(tl_clock *clock) {
#if defined(__x86_64__) && !defined(TL_TEST) /* tests replace the clock behind tl_os and want to be asked every time */
    clock->cycles = __builtin_ia32_rdtsc();
    int64_t now_ns = tl_os->now_ns();
    clock->left = counter_is_steady() ? (uint64_t)(1000000 - now_ns % 1000000) : 0;
#else
    int64_t now_ns = tl_os->now_ns();
    clock->left = 0;
#endif
    clock->monotonic_ms = tl_os->monotonic_ns() / 1000000;
    return clock->now_ms = now_ns / 1000000;
}
