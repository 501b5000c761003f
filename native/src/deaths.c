/* How does a process notice at once that another one of the store has died?
 *
 * Imports membership.h. One thread per process and store, from the first join until the close; a forked child has
 * none. It sleeps in poll over a descriptor for each process that has members (the kernel makes it ready when that
 * process ends) and an event of its own. Descriptors are hints: what counts is the byte in store.lock, which
 * tl_groups_sweep asks for. Where there is none (an old kernel, another PID namespace) it looks ten times a second, and
 * else when the next deadline of a member may have passed. */
#include "membership.h"
#include "tidelog/transactions.h"

#define TICK_NS 100000000
#define IDLE_NS 1000000000
#define PASSED_NS 2000000 /* milliseconds are rounded up on both sides of a deadline */

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

/* How long until this member may be overdue, or has been away for too long, at the earliest; INT64_MAX: never. One that
 * begins to handle something later has all of its time then. */
static int64_t time_left(const tl_member_row *row, uint32_t state, int64_t now_ns) {
    int64_t most_ns = __atomic_load_n(&row->max_processing_ns, __ATOMIC_RELAXED), since_ns = now_ns;
    if (state == TL_MEMBER_AWAY) {
        most_ns = __atomic_load_n(&row->away_ns, __ATOMIC_RELAXED);
        since_ns = __atomic_load_n(&row->away_since_ns, __ATOMIC_RELAXED);
    } else {
        uint64_t since = __atomic_load_n(&row->since, __ATOMIC_ACQUIRE);
        if (since >> 24 != 0 && (since & 0xffffffu) == (__atomic_load_n(&row->uses, __ATOMIC_RELAXED) & 0xffffffu))
            since_ns = (int64_t)(since >> 24) * 1000000;
    }
    int64_t passed_ns = (int64_t)((uint64_t)now_ns - (uint64_t)since_ns);
    if (most_ns < 0)
        return INT64_MAX;
    if (passed_ns < 0 || passed_ns > most_ns) /* due, or words that somebody has damaged */
        return 0;
    return most_ns - passed_ns;
}

/* A descriptor for this process. True: there is none to be had, so it is to be asked for now and then. */
static bool watch(tl_store *store, tl_deaths *deaths, tl_owner owner, uint8_t wanted[TL_PROCESSES]) {
    uint32_t slot = tl_owner_slot(owner);
    if (owner == 0 || slot == store->slot || wanted[slot] != 0)
        return false;
    wanted[slot] = 1;
    if (deaths->watched[slot] != owner) {
        unwatch(deaths, slot);
        deaths->watched[slot] = owner;
        /* In another namespace the number is that of a process that has nothing to do with us. */
        uint32_t theirs = __atomic_load_n(&tl_shared_process(store->shared, slot)->pid_namespace, __ATOMIC_RELAXED);
        uint32_t ours = __atomic_load_n(&tl_shared_process(store->shared, store->slot)->pid_namespace, __ATOMIC_RELAXED);
        int fd = theirs == ours && ours != 0 ? tl_os->process_watch(tl_store_owner_pid(store, owner)) : -1;
        __atomic_store_n(&deaths->descriptors[slot], fd < 0 ? -1 : fd, __ATOMIC_SEQ_CST);
    }
    return deaths->descriptors[slot] < 0;
}

/* Descriptors for the processes that have members or producers now. How long the thread may sleep. */
static int64_t look_around(tl_store *store, tl_deaths *deaths) {
    uint8_t wanted[TL_PROCESSES] = {0};
    int64_t sleep_ns = IDLE_NS, now_ns = tl_os->monotonic_ns();
    for (uint32_t i = 0; i < tl_members_used(store); i++) {
        const tl_member_row *row = tl_shared_member(store->shared, i);
        uint32_t state = __atomic_load_n(&row->state, __ATOMIC_ACQUIRE);
        tl_owner owner = __atomic_load_n(&row->owner, __ATOMIC_RELAXED);
        uint32_t slot = tl_owner_slot(owner);
        if (state == TL_MEMBER_AWAY || state == TL_MEMBER_ACTIVE) {
            int64_t left_ns = time_left(row, state, now_ns);
            if (left_ns < sleep_ns - PASSED_NS)
                sleep_ns = left_ns < TICK_NS / 2 ? TICK_NS / 2 : left_ns + PASSED_NS;
        }
        if (state == TL_MEMBER_ACTIVE && slot < TL_PROCESSES && watch(store, deaths, owner, wanted) && sleep_ns > TICK_NS)
            sleep_ns = TICK_NS;
    }
    /* Whoever has a producer may have a transaction open, at which readers stop. */
    for (uint32_t i = 0; i < __atomic_load_n(&store->header->producers, __ATOMIC_ACQUIRE) && i < TL_PRODUCERS; i++) {
        tl_owner owner = __atomic_load_n(&tl_shared_producer(store->shared, i)->owner, __ATOMIC_RELAXED);
        uint32_t slot = tl_owner_slot(owner);
        bool seen_dead = slot < TL_PROCESSES && deaths->watched[slot] == owner && deaths->descriptors[slot] < 0 &&
                         !tl_store_owner_alive(store, owner);
        if (slot < TL_PROCESSES && !seen_dead && watch(store, deaths, owner, wanted) && sleep_ns > TICK_NS)
            sleep_ns = TICK_NS;
    }
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++) {
        if (wanted[slot] == 0 && deaths->watched[slot] != 0) {
            unwatch(deaths, slot);
            deaths->watched[slot] = 0;
        }
    }
    return sleep_ns;
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
        (void)tl_transactions_sweep(store, NULL);
        sleep_until_something_ends(deaths, look_around(store, deaths));
    }
    return NULL;
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
    int status = tl_thread_start(&deaths->thread, watch_until_closed, deaths);
    if (status == 0)
        return TL_OK;
    __atomic_store_n(&store->deaths, NULL, __ATOMIC_SEQ_CST);
    tl_os->close(deaths->event);
    tl_os->free(deaths);
    return tl_fail_sys(err, status, "the thread that watches the processes of a group cannot be started", store->path);
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
