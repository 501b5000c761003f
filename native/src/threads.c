/* How does a thread of the core begin its life among those of an application?
 *
 * Imports handles.h. Callable from any thread. Signals are the application's: they go to its threads. What the kernel sends
 * a thread for a fault of its own is not blocked, because such a fault in a thread that blocks it kills the process,
 * whatever guard there is (guard.h catches SIGBUS). */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <signal.h>

int tl_thread_start(pthread_t *out, void *(*run)(void *context), void *context) {
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int number = pthread_create(out, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -number;
}
