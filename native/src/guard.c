/* What happens when the kernel raises SIGBUS?
 *
 * Imports guard.h. Any thread may install; the handler uses only async-signal-safe calls and an initial-exec thread
 * local. SIGSEGV is left alone: a missing page of a mapped file is always SIGBUS, a SIGSEGV is a bug that must be seen.
 *
 * The handler does not jump out of signal context. It points the interrupted thread at `land` and returns, and the
 * jump happens there, in ordinary context. A jump out of the handler would be a few lines shorter, and wrong in four
 * ways that all show up far from here: the kernel starts a handler with default rounding and denormal modes and only
 * the return from it restores the thread's own; the signal mask stays as the handler's; an alternate stack that was
 * installed with SS_AUTODISARM stays disarmed; and a shadow stack keeps the signal frame. */
#define _GNU_SOURCE 1

#include "tidelog/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

/* The model stands here again because gcc does not take it over from the declaration. */
#define IN_STATIC_TLS __attribute__((tls_model("initial-exec")))
_Thread_local tl_guard *tl_guard_current IN_STATIC_TLS;

/* Every disposition that was found in front of ours, each once; they stay valid for handlers that are running. */
#define HANDLERS 16
static struct sigaction handlers[HANDLERS];
static int handler_count; /* slots below it are filled and never change again */
static int newest;        /* whom we go on to; handlers[0] is whom the process had before us */
static pthread_mutex_t installing = PTHREAD_MUTEX_INITIALIZER;

/* How often `pass_on` stands on this thread's stack, and the frame of its first call. */
static _Thread_local int passing IN_STATIC_TLS;
static _Thread_local uintptr_t passing_frame IN_STATIC_TLS;

__attribute__((noreturn)) static void land(void) {
    tl_guard *guard = tl_guard_current;
    tl_guard_current = guard->outer;
    longjmp(guard->place, 1);
}

/* Makes the thread go on in `land`, as if the interrupted function had called it. The red zone may be overwritten: only
 * functions that call nothing use one, and the function that owns the guard has called setjmp. */
static void divert(ucontext_t *context) {
#if defined(__x86_64__)
    greg_t *registers = context->uc_mcontext.gregs;
    registers[REG_RSP] = (registers[REG_RSP] & ~(greg_t)15) - 8; /* the alignment after a call instruction */
    registers[REG_RIP] = (greg_t)(uintptr_t)land;
    registers[REG_EFL] &= ~(greg_t)0x400; /* a backward copy sets the direction flag; functions expect it clear */
#elif defined(__aarch64__)
    context->uc_mcontext.sp &= ~(uint64_t)15;
    context->uc_mcontext.pc = (uint64_t)(uintptr_t)land;
#else
#error "tidelog needs the program counter of a signal frame: supported are x86-64 and aarch64"
#endif
}

static void die_of(int signal, bool fault) {
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    sigaction(signal, &fallback, NULL);
    /* A faulting instruction runs again on return and now kills the process there, which is what a core dump wants to
     * show. A signal that somebody sent would be lost. */
    if (!fault)
        raise(signal);
}

/* Not ours. A handler that is installed over ours and then found by a later tl_guard_install has us as its own
 * predecessor: faulthandler restores it and raises again. The second round therefore goes to the process's first
 * handler, and the third ends the process, so the chain is never a circle. A handler may also leave by longjmp; its
 * round is over when the stack is back at or above the first frame, since nested calls lie strictly below it. */
static void pass_on(int signal, siginfo_t *info, void *context, bool fault) {
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    int latest = __atomic_load_n(&newest, __ATOMIC_ACQUIRE);
    if (passing == 0 || frame >= passing_frame) {
        passing = 0;
        passing_frame = frame;
    }
    if (passing >= 2 || (passing == 1 && latest == 0)) {
        die_of(signal, fault);
        return;
    }
    const struct sigaction *next = &handlers[passing == 0 ? latest : 0];
    passing++;
    if (next->sa_flags & SA_SIGINFO)
        next->sa_sigaction(signal, info, context);
    else if (next->sa_handler == SIG_DFL || (next->sa_handler == SIG_IGN && fault)) /* faults cannot be ignored */
        die_of(signal, fault);
    else if (next->sa_handler != SIG_IGN)
        next->sa_handler(signal);
    passing--;
}

static void on_sigbus(int signal, siginfo_t *info, void *context) {
    int saved_errno = errno;
    /* Sent by a process (<= 0), or a memory failure found elsewhere (MCEERR_AO): not about the interrupted access. */
    bool fault = info->si_code > 0 && info->si_code != BUS_MCEERR_AO;
    tl_guard *guard = tl_guard_current;
    if (fault && guard != NULL) {
        guard->address = info->si_addr;
        divert(context);
    } else {
        pass_on(signal, info, context, fault);
    }
    errno = saved_errno;
}

static bool same_handler(const struct sigaction *a, const struct sigaction *b) {
    if ((a->sa_flags & SA_SIGINFO) != (b->sa_flags & SA_SIGINFO))
        return false;
    return a->sa_flags & SA_SIGINFO ? a->sa_sigaction == b->sa_sigaction : a->sa_handler == b->sa_handler;
}

static int put_on_top(tl_error *err) {
    /* SA_NODEFER: a fault inside a handler that we passed on to must kill the process, not hang or be deferred; and
     * faulthandler's raise() has to arrive. SA_ONSTACK: a fault near the end of the stack, and Go or Rust hosts. */
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK, .sa_sigaction = on_sigbus}, found;
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &found) < 0)
        return tl_fail_sys(err, -errno, "the handler of SIGBUS cannot be read", NULL);
    if (same_handler(&found, &ours))
        return TL_OK;
    int slot = 0;
    while (slot < handler_count && !same_handler(&handlers[slot], &found))
        slot++;
    if (slot == HANDLERS)
        return tl_fail(err, TL_EFULL, "too many different SIGBUS handlers stood over the one of tidelog", NULL, -1);
    if (slot == handler_count) {
        handlers[slot] = found;
        handler_count++;
    }
    __atomic_store_n(&newest, slot, __ATOMIC_RELEASE); /* before ours can run */
    if (sigaction(SIGBUS, &ours, NULL) < 0)
        return tl_fail_sys(err, -errno, "the handler of SIGBUS cannot be set", NULL);
    return TL_OK;
}

int tl_guard_install(tl_error *err) {
    pthread_mutex_lock(&installing);
    int status = put_on_top(err);
    pthread_mutex_unlock(&installing);
    return status;
}

static void before_fork(void) { pthread_mutex_lock(&installing); }

static void after_fork(void) { pthread_mutex_unlock(&installing); }

/* fork() while another thread installs would leave the mutex taken in the child for ever. */
__attribute__((constructor)) static void prepare(void) { pthread_atfork(before_fork, after_fork, after_fork); }
