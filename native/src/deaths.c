/* How does a process notice at once that another one of the store has died?
 *
 * Imports membership.h. One thread per process and store, from the first join until the close; a forked child has
 * none. It sleeps in poll over a descriptor for each process that has members (the kernel makes it ready when that
 * process ends) and an event of its own. Descriptors are hints: what counts is the byte in store.lock, which
 * tl_groups_sweep asks for. Where there is none (an old kernel, another PID namespace), and while somebody has a
 * deadline, it looks ten times a second. */
#define _POSIX_C_SOURCE 200809L

#include "membership.h"

#include <signal.h>

#define TICK_NS 100000000
#define IDLE_NS 1000000000

struct tl_deaths {
    tl_store *store;
    pthread_t thread;
    uint32_t stop;                /* atomic */
    int event;
    tl_owner watched[TL_PROCESSES]; /* by process slot; 0: none */
    int descriptors[TL_PROCESSES];  /* atomic; -1: none. Cleared before it is closed: a child that forks in between must
                                     * not close a number that is somebody else's by then */
};

static void unwatch(tl_deaths *deaths, uint32_t slot) {
    int fd = deaths->descriptors[slot];
    __atomic_store_n(&deaths->descriptors[slot], -1, __ATOMIC_SEQ_CST);
    if (fd >= 0)
        tl_os->close(fd);
}

/* Descriptors for the processes that have members now. False: there is one without, or somebody has a deadline. */
static bool look_around(tl_store *store, tl_deaths *deaths) {
    uint8_t wanted[TL_PROCESSES] = {0};
    bool covered = true;
    for (uint32_t i = 0; i < tl_members_used(store); i++) {
        const tl_member_row *row = tl_shared_member(store->shared, i);
        uint32_t state = __atomic_load_n(&row->state, __ATOMIC_ACQUIRE);
        tl_owner owner = __atomic_load_n(&row->owner, __ATOMIC_RELAXED);
        uint32_t slot = tl_owner_slot(owner);
        if (state == TL_MEMBER_AWAY ||
            (state == TL_MEMBER_ACTIVE && __atomic_load_n(&row->max_processing_ns, __ATOMIC_RELAXED) >= 0))
            covered = false;
        if (state != TL_MEMBER_ACTIVE || owner == 0 || slot >= TL_PROCESSES || slot == store->slot || wanted[slot] != 0)
            continue;
        wanted[slot] = 1;
        if (deaths->watched[slot] != owner) {
            unwatch(deaths, slot);
            deaths->watched[slot] = owner;
            int fd = tl_os->process_watch(tl_store_owner_pid(store, owner));
            __atomic_store_n(&deaths->descriptors[slot], fd < 0 ? -1 : fd, __ATOMIC_SEQ_CST);
        }
        if (deaths->descriptors[slot] < 0)
            covered = false;
    }
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++) {
        if (wanted[slot] == 0 && deaths->watched[slot] != 0) {
            unwatch(deaths, slot);
            deaths->watched[slot] = 0;
        }
    }
    return covered;
}

/* A descriptor that got ready has said all it can. If its process's byte is still held (a child may have it), ticks
 * ask. */
static void sleep_until_something_ends(tl_deaths *deaths, int64_t timeout_ns) {
    int fds[TL_PROCESSES + 1];
    uint32_t slots[TL_PROCESSES + 1];
    bool ready[TL_PROCESSES + 1];
    size_t count = 1;
    fds[0] = deaths->event;
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++) {
        if (deaths->descriptors[slot] < 0)
            continue;
        slots[count] = slot;
        fds[count++] = deaths->descriptors[slot];
    }
    int status = tl_os->poll(fds, ready, count, timeout_ns);
    if (status < 0) { /* no memory, say: the tick is what is left */
        uint32_t word = 0;
        (void)tl_os->futex_wait(&word, 0, TICK_NS);
        return;
    }
    if (ready[0])
        (void)tl_os->event_clear(deaths->event);
    for (size_t i = 1; i < count; i++)
        if (ready[i])
            unwatch(deaths, slots[i]);
}

static void *watch_until_closed(void *context) {
    tl_deaths *deaths = context;
    tl_store *store = deaths->store;
    while (__atomic_load_n(&deaths->stop, __ATOMIC_SEQ_CST) == 0) {
        __atomic_store_n(&store->deaths_seen, __atomic_load_n(&store->header->arrivals, __ATOMIC_SEQ_CST),
                         __ATOMIC_SEQ_CST);
        (void)tl_groups_sweep(store);
        bool covered = look_around(store, deaths);
        sleep_until_something_ends(deaths, covered ? IDLE_NS : TICK_NS);
    }
    return NULL;
}

/* Signals are the application's: they go to its threads, as with the housekeeper. */
static int start_thread(tl_deaths *deaths) {
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int number = pthread_create(&deaths->thread, NULL, watch_until_closed, deaths);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return number;
}

static int start_locked(tl_store *store, tl_error *err) {
    tl_deaths *deaths = tl_calloc(1, sizeof *deaths);
    if (deaths == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to watch the processes of a group", store->path, -1);
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++)
        deaths->descriptors[slot] = -1;
    deaths->store = store;
    deaths->event = tl_os->event();
    if (deaths->event < 0) {
        int status = tl_fail_sys(err, deaths->event, "no event descriptor to watch the processes of a group with",
                                 store->path);
        tl_os->free(deaths);
        return status;
    }
    __atomic_store_n(&store->deaths, deaths, __ATOMIC_SEQ_CST);
    int number = start_thread(deaths);
    if (number == 0)
        return TL_OK;
    __atomic_store_n(&store->deaths, NULL, __ATOMIC_SEQ_CST);
    tl_os->close(deaths->event);
    tl_os->free(deaths);
    return tl_fail_sys(err, -number, "the thread that watches the processes of a group cannot be started", store->path);
}

int tl_deaths_start(tl_store *store, tl_error *err) {
    if (store->options.no_housekeeper || __atomic_load_n(&store->deaths, __ATOMIC_SEQ_CST) != NULL)
        return TL_OK;
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    pthread_mutex_lock(&store->mutex);
    int status = store->deaths != NULL || store->deaths_stopped ? TL_OK : start_locked(store, err);
    pthread_mutex_unlock(&store->mutex);
    return status;
}

/* Somebody has joined or gone away since the thread looked: it may not know that process, or that deadline. */
void tl_deaths_nudge(tl_store *store) {
    if (__atomic_load_n(&store->deaths, __ATOMIC_SEQ_CST) == NULL ||
        __atomic_load_n(&store->deaths_seen, __ATOMIC_SEQ_CST) ==
            __atomic_load_n(&store->header->arrivals, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&store->mutex); /* a close may be about to take the event away */
    const tl_deaths *deaths = store->deaths;
    if (deaths != NULL)
        (void)tl_os->event_set(deaths->event);
    pthread_mutex_unlock(&store->mutex);
}

void tl_deaths_stop(tl_store *store) {
    pthread_mutex_lock(&store->mutex);
    tl_deaths *deaths = store->deaths;
    store->deaths_stopped = true;
    __atomic_store_n(&store->deaths, NULL, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&store->mutex);
    if (deaths == NULL)
        return;
    __atomic_store_n(&deaths->stop, 1, __ATOMIC_SEQ_CST);
    (void)tl_os->event_set(deaths->event);
    pthread_join(deaths->thread, NULL);
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++)
        unwatch(deaths, slot);
    tl_os->close(deaths->event);
    tl_os->free(deaths);
}

/* In a forked child, which has no such thread and must not touch locks: the descriptors are its own copies. */
void tl_deaths_forked(tl_store *store) {
    const tl_deaths *deaths = store->deaths;
    if (deaths == NULL)
        return;
    tl_os->close(deaths->event);
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++)
        if (deaths->descriptors[slot] >= 0)
            tl_os->close(deaths->descriptors[slot]);
}
