/* What is the time in milliseconds, for a caller that asks millions of times a second?
 *
 * Imports os.h. A tl_clock belongs to one thread at a time. Exact: within a millisecond the answer is kept, and the cycle
 * counter says when that millisecond may be over. A counter of at least 1 GHz counts no fewer cycles than nanoseconds, so
 * "fewer cycles than nanoseconds were left" needs no calibration. Without such a counter every call asks the kernel. */
#ifndef TIDELOG_CLOCK_H
#define TIDELOG_CLOCK_H

#include "tidelog/os.h"

typedef struct tl_clock {
    uint64_t cycles; /* read just before the kernel was asked */
    uint64_t left;   /* nanoseconds the answer was good for then; 0: always ask */
    int64_t now_ms;
    int64_t monotonic_ms; /* by the monotonic clock, at the same moment */
} tl_clock;

int64_t tl_clock_ask(tl_clock *clock);

TL_INLINE bool tl_clock_holds(const tl_clock *clock) {
#if defined(__x86_64__)
    return TL_LIKELY(__builtin_ia32_rdtsc() - clock->cycles < clock->left);
#else
    return clock->left == UINT64_MAX; /* never */
#endif
}

/* The wall clock. */
TL_INLINE int64_t tl_clock_ms(tl_clock *clock) { return tl_clock_holds(clock) ? clock->now_ms : tl_clock_ask(clock); }

#endif
