/* How is a store opened, shared inside a process, and closed?
 *
 * Imports handles.h, guard.h. Thread-safe. The registry holds one native store per (device, inode): two descriptions of
 * store.lock in one process would conflict with each other. fork(): the child forgets every store and closes its copies of
 * the lock descriptors, which are the parent's locks too; all handles answer TL_EFORKED there. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include "tidelog/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

uint32_t tl_fork_generation;
static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static tl_store *registry;
static bool fork_handlers;

/* --- fork --- */

static void before_fork(void) { pthread_mutex_lock(&registry_mutex); }
static void after_fork_parent(void) { pthread_mutex_unlock(&registry_mutex); }

static void after_fork_child(void) {
    __atomic_fetch_add(&tl_fork_generation, 1, __ATOMIC_SEQ_CST);
    for (tl_store *store = registry; store != NULL; store = store->next) {
        tl_os->close(store->lock_fd); /* the lock stays: the parent's descriptor is of the same description */
        tl_deaths_forked(store);
    }
    registry = NULL;
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    registry_mutex = fresh;
}

/* --- refusals and waits --- */

int tl_store_refuse(const tl_store *store, tl_error *err) {
    if (store->fork_generation != __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED))
        return tl_fail(err, TL_EFORKED, "the store was opened before fork()", store->path, -1);
    return tl_fail(err, TL_ECLOSED, "the log was closed", store->path, -1);
}

int64_t tl_store_lock_timeout_ns(const tl_store *store) { return store->options.lock_timeout_ms * 1000000; }

void tl_store_holder(tl_store *store, tl_owner holder, tl_error *err) {
    if (err == NULL)
        return;
    uint32_t pid = tl_store_owner_pid(store, holder);
    if (holder == store->me)
        snprintf(err->detail, sizeof err->detail, "another thread of this process");
    else if (pid != 0)
        snprintf(err->detail, sizeof err->detail, "process %u (slot %u)", pid, tl_owner_slot(holder));
    else
        snprintf(err->detail, sizeof err->detail, "a process in slot %u", tl_owner_slot(holder));
}

int tl_store_take(tl_store *store, uint32_t *word, const char *what, tl_error *err) {
    if (store->options.look)
        return tl_store_refuse_look(store, err);
    tl_owner holder = 0;
    int taken = tl_lock_take(word, store->me, &store->liveness, tl_store_lock_timeout_ns(store), &holder);
    if (taken >= 0)
        return taken;
    tl_fail(err, taken, what, store->path, -1);
    tl_store_holder(store, holder, err);
    return taken;
}

static bool owner_alive(const tl_liveness *liveness, tl_owner owner) {
    const tl_store *store = (const tl_store *)(const void *)((const char *)liveness - offsetof(tl_store, liveness));
    return tl_store_owner_alive((tl_store *)(uintptr_t)store, owner);
}

bool tl_store_owner_alive(tl_store *store, tl_owner owner) {
    uint32_t slot = tl_owner_slot(owner);
    if (owner == 0 || slot >= TL_PROCESSES)
        return false;
    const tl_process *process = tl_shared_process(store->shared, slot);
    uint32_t incarnation = __atomic_load_n(&process->incarnation, __ATOMIC_SEQ_CST) & TL_INCARNATION_MASK;
    if (incarnation != tl_owner_incarnation(owner))
        return false;
    if (slot == store->slot) /* the kernel never reports one's own lock */
        return tl_store_usable(store) || store->opens > 0;
    return tl_os->locked(store->lock_fd, TL_BYTE_PROCESS + slot) == 1;
}

bool tl_pulse_is_alive(tl_store *store, tl_pulse *known, tl_owner owner) {
    uint32_t slot = tl_owner_slot(owner);
    if (owner == 0 || slot >= TL_PROCESSES)
        return false;
    if (known->alive[slot] == owner)
        return true;
    if (!tl_store_owner_alive(store, owner))
        return false;
    known->alive[slot] = owner;
    return true;
}

uint32_t tl_store_owner_pid(tl_store *store, tl_owner owner) {
    uint32_t slot = tl_owner_slot(owner);
    return slot < TL_PROCESSES ? __atomic_load_n(&tl_shared_process(store->shared, slot)->pid, __ATOMIC_RELAXED) : 0;
}

/* --- memory --- */

void tl_store_retain(tl_store *store) { __atomic_fetch_add(&store->refs, 1, __ATOMIC_RELAXED); }

void tl_store_free(tl_store *store) {
    if (store == NULL || __atomic_sub_fetch(&store->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    /* `shared` stays mapped: a thread may still sleep on a word in it, and a robust answer beats 96 MiB of address space. */
    if (store->offsets != NULL)
        tl_offsets_close(store->offsets);
    tl_transactions_free(store);
    if (store->private_words)
        tl_os->free(store->shared);
    if (store->dir >= 0)
        tl_os->close(store->dir);
    pthread_mutex_destroy(&store->mutex);
    pthread_mutex_destroy(&store->catalogue);
    pthread_mutex_destroy(&store->housekeeping);
    tl_os->free(store->table);
    tl_os->free(store->path);
    tl_os->free(store);
}

static tl_store *store_new(const char *path, const tl_store_options *options) {
    tl_store *store = tl_calloc(1, sizeof *store);
    size_t bytes = strlen(path) + 1;
    if (store == NULL || (store->path = tl_os->malloc(bytes)) == NULL) {
        tl_os->free(store);
        return NULL;
    }
    memcpy(store->path, path, bytes);
    store->options = *options;
    store->refs = 1;
    store->dir = store->lock_fd = -1;
    store->checkpoint.fd[0] = store->checkpoint.fd[1] = store->checkpoint.snapshot_fd[0] = store->checkpoint.snapshot_fd[1] = -1;
    store->liveness.alive = owner_alive;
    store->fork_generation = __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED);
    pthread_mutex_init(&store->mutex, NULL);
    pthread_mutex_init(&store->catalogue, NULL);
    pthread_mutex_init(&store->housekeeping, NULL);
    return store;
}

/* --- open and close --- */

static void let_go(tl_store *store) {
    tl_checkpoint_close(&store->checkpoint);
    if (store->lock_fd >= 0)
        tl_os->close(store->lock_fd); /* gate, slot and every other byte at once */
    store->lock_fd = -1;
}

static tl_store *find_open(const tl_identity *identity) {
    for (tl_store *store = registry; store != NULL; store = store->next)
        if (store->identity.device == identity->device && store->identity.inode == identity->inode)
            return store;
    return NULL;
}

static int open_locked(const char *path, const tl_store_options *options, tl_store **out, int *state,
                       tl_recovery *recovery, tl_error *err) {
    tl_store *store = store_new(path, options);
    if (store == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for a store", path, -1);
    int status = tl_directory_open(store, err);
    if (status == TL_OK && (status = tl_os->identity(store->dir, &store->identity)) < 0)
        status = tl_fail_sys(err, status, "the identity of the directory cannot be read", path);
    tl_store *known = status == TL_OK ? find_open(&store->identity) : NULL;
    if (known != NULL && known->options.look && !options->look)
        status = tl_fail(err, TL_ELOCKED, "this process has the store open to look at it only: close that first", path, -1);
    if (status == TL_OK && known != NULL) {
        tl_store_free(store);
        known->opens++;
        tl_store_retain(known);
        *out = known;
        *state = TL_STORE_JOINED;
        return TL_OK;
    }
    bool exclusive = false;
    if (status == TL_OK)
        status = tl_directory_lock_file(store, err);
    if (status == TL_OK)
        status = tl_guard_install(err);
    bool live = true;
    if (status == TL_OK && options->look)
        status = tl_look_enter(store, &live, err);
    else if (status == TL_OK)
        status = tl_gate_enter(store, &exclusive, err);
    if (status == TL_OK && live)
        status = exclusive ? tl_entry_recover(store, recovery, err) : tl_entry_join(store, err);
    if (status == TL_OK && !exclusive && !options->no_housekeeper && !options->look)
        status = tl_housekeeper_start(store, err);
    if (status < 0) {
        __atomic_store_n(&store->open, 0, __ATOMIC_SEQ_CST);
        let_go(store);
        if (store->shared != NULL && !store->private_words)
            tl_os->unmap(store->shared, TL_SHARED_BYTES); /* nobody ever had a handle that could sleep on a word in it */
        tl_store_free(store);
        return status;
    }
    store->opens = 1;
    store->next = registry;
    registry = store;
    *out = store;
    *state = exclusive ? TL_STORE_RECOVERED : TL_STORE_JOINED;
    return TL_OK;
}

int tl_store_open(const char *path, const tl_store_options *options, tl_store **out, int *state, tl_recovery *recovery, tl_error *err) {
    tl_recovery none;
    if (recovery == NULL)
        recovery = &none;
    memset(recovery, 0, sizeof *recovery);
    if (path == NULL || path[0] == 0 || options->flush_interval_ms <= 0 || options->lock_timeout_ms < 0)
        return tl_fail(err, TL_EINVAL, "a store needs a path, a flush interval above 0 and a lock timeout", path, -1);
    pthread_mutex_lock(&registry_mutex);
    if (!fork_handlers && pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0)
        fork_handlers = true;
    int status = fork_handlers ? open_locked(path, options, out, state, recovery, err)
                               : tl_fail(err, TL_ENOMEM, "no memory for the fork handlers", path, -1);
    pthread_mutex_unlock(&registry_mutex);
    return status;
}

int tl_store_ready(tl_store *store, tl_error *err) {
    if (!tl_store_usable(store))
        return tl_store_refuse(store, err);
    if (!store->gate_exclusive)
        return TL_OK;
    TL_POINT("ready.before");
    tl_shared_set_ready(store);
    TL_POINT("ready.stored");
    int status = tl_gate_share(store, err);
    if (status == TL_OK && !store->options.no_housekeeper)
        status = tl_housekeeper_start(store, err);
    return status;
}

/* No thread of ours may be inside a shared lock when the kernel is told that we are gone. A thread that takes one from
 * here on sees `open` 0 under it and lets go without having touched anything. */
static void wait_for_own_locks(tl_store *store) {
    if (store->private_words)
        return; /* locks are never taken there */
    uint32_t *words[] = {&store->header->catalogue_lock, &store->header->checkpoint_lock, &store->header->checkpoint_sync_lock,
                         &store->header->groups_lock, &store->header->transactions_lock, &store->header->records_sync_lock};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        while ((__atomic_load_n(words[i], __ATOMIC_SEQ_CST) & ~TL_LOCK_WAITERS) == store->me)
            sched_yield();
    for (uint32_t slot = 0; slot < store->table_size; slot++) {
        if (store->table[slot] == NULL)
            continue;
        tl_hot *hot = store->table[slot]->hot;
        while ((__atomic_load_n(&hot->lock, __ATOMIC_SEQ_CST) & ~TL_LOCK_WAITERS) == store->me ||
               (__atomic_load_n(&hot->sync_lock, __ATOMIC_SEQ_CST) & ~TL_LOCK_WAITERS) == store->me)
            sched_yield();
    }
}

/* For lookers: they read the table itself, and after a clean close it says what the checkpoint says. */
static int sync_offsets_file(tl_store *store, tl_error *err) {
    int fd = tl_os->open(store->dir, TL_OFFSETS_FILE, O_RDWR, 0);
    int status = fd < 0 ? fd : tl_os->fsync(fd);
    if (fd >= 0)
        tl_os->close(fd);
    return status < 0 ? tl_fail_sys(err, status, "the table of offsets cannot be synced", TL_OFFSETS_FILE) : TL_OK;
}

/* Everything to the disk, nothing given up: when this fails the shared words stay the truth of this boot, among them
 * committed offsets that no checkpoint has and a sync that failed. */
static int flush_all(tl_store *store, tl_error *err) {
    int kept = TL_OK;
    tl_error inner = {0};
    for (uint32_t slot = 0; slot < store->header->partitions; slot++) {
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        if (hot->id == 0 || (hot->id & 1) != 0 || (hot->failed & TL_UNRECOVERED) != 0)
            continue;
        tl_partition *partition = NULL;
        int status = TL_OK;
        if (hot->failed != 0) {
            status = tl_fail(&inner, TL_EFAILED,
                             "a partition has failed, so the store stays marked as not closed cleanly", cold->directory,
                                 -1);
            inner.sys_errno = (int)hot->failed;
        } else if (hot->synced != hot->tail && !TL_BUG(CHECKPOINT_BEFORE_LOG_SYNC)) {
            status = tl_store_partition(store, slot, cold->channel, &partition, &inner);
            if (status == TL_OK)
                status = tl_partition_sync(partition, hot->tail, -1, &inner);
            tl_partition_release(partition);
        }
        tl_keep_first(status, &inner, &kept, err); /* and on to the others */
    }
    tl_keep_first(tl_records_put_offsets(store, &inner), &inner, &kept, err);
    tl_keep_first(tl_records_sync(store, &inner), &inner, &kept, err);
    return kept;
}

/* A writer died and nobody has wanted its lock since. */
static int repair_dead(tl_store *store, uint32_t slot, tl_error *err) {
    tl_partition *partition = NULL;
    int status = tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err);
    if (status < 0)
        return status;
    status = tl_partition_lock(partition, false, err);
    if (status == TL_OK)
        tl_partition_unlock(partition);
    tl_partition_release(partition);
    return status;
}

/* The gate is ours alone and nobody will come. A failure leaves an unclean store, which loses nothing but time. */
static int close_cleanly(tl_store *store, tl_error *err) {
    tl_shared_header *header = store->header;
    TL_POINT("close.begin");
    int flushed = tl_leftovers_finish(store, err); /* what is half dropped gets no state below, and must not come back */
    if (flushed == TL_OK)
        flushed = tl_transactions_end_all(store, err);
    if (flushed == TL_OK)
        flushed = flush_all(store, err);
    if (flushed < 0)
        return flushed;
    tl_shared_set_alone(store);
    TL_POINT("close.alone");
    uint32_t count = header->partitions, used = 0;
    uint32_t *slots = tl_calloc(count + 1, sizeof *slots);
    int64_t *leases = tl_calloc(count + 1, sizeof *leases);
    tl_state *states = tl_calloc(count + 1, sizeof *states);
    int status = slots == NULL || leases == NULL || states == NULL ? tl_fail(err, TL_ENOMEM,
                                                                             "no memory to close cleanly", "", -1)
                                                                                 : TL_OK;
    for (uint32_t slot = 0; status == TL_OK && slot < count; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        if (hot->id == 0 || (hot->id & 1) != 0)
            continue;
        if (hot->lock != 0 && (status = repair_dead(store, slot, err)) < 0)
            break;
        tl_end end;
        tl_end_read(hot, hot->tail, &end);
        if (hot->tail == hot->saved && hot->synced == hot->tail && hot->lease == end.end_offset &&
            hot->lease_asked == 0 && hot->failed == 0)
            continue;
        tl_partition *partition = NULL;
        status = tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err);
        if (status < 0)
            break;
        status = tl_partition_settle(partition, &states[used], err);
        slots[used] = slot;
        leases[used++] = end.end_offset;
        tl_partition_release(partition);
        TL_POINT("close.partition");
    }
    /* First in the words: if we die now, whoever goes on from them asks for a lease before it gives an offset out. */
    for (uint32_t i = 0; status == TL_OK && i < used; i++)
        tl_shared_hot(store->shared, slots[i])->lease = leases[i];
    if (status == TL_OK)
        status = tl_records_put_states(store, slots, states, used, err);
    if (status == TL_OK)
        status = tl_records_put_offsets(store, err);
    if (status == TL_OK)
        status = tl_producer_names_settle(store, err);
    if (status == TL_OK)
        status = tl_records_put_lease(store, slots, leases, used, err);
    for (uint32_t i = 0; status == TL_OK && i < used; i++)
        tl_shared_hot(store->shared, slots[i])->lease_asked = 0;
    if (status == TL_OK)
        status = sync_offsets_file(store, err);
    TL_POINT("close.recorded");
    if (status == TL_OK)
        status = tl_records_put_clean(store, TL_CLEAN, err);
    TL_POINT("close.clean");
    if (status == TL_OK)
        tl_shared_unready(store);
    tl_os->free(slots);
    tl_os->free(leases);
    tl_os->free(states);
    return status;
}

static void process_leaves(tl_process *process) {
    __atomic_store_n(&process->pid, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&process->inside, 0, __ATOMIC_RELEASE);
}

int tl_store_close(tl_store *store, tl_error *err) {
    if (store->fork_generation != __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED))
        return TL_OK; /* the parent's store: the child has nothing to close */
    pthread_mutex_lock(&registry_mutex);
    if (store->opens == 0 || --store->opens > 0) {
        pthread_mutex_unlock(&registry_mutex);
        return TL_OK;
    }
    store->opens = 1; /* alive for the other processes until the descriptor goes */
    tl_deaths_stop(store);
    tl_transactions_leave(store);
    tl_groups_leave_all(store);
    tl_housekeeper_stop(store);
    tl_prefault_stop(store);
    bool alone = !store->options.look && (store->gate_exclusive || tl_gate_upgrade(store) == TL_OK);
    int status = TL_OK;
    if (alone) {
        __atomic_store_n(&store->open, 2, __ATOMIC_SEQ_CST);
        status = close_cleanly(store, err);
    }
    __atomic_store_n(&store->open, 0, __ATOMIC_SEQ_CST);
    wait_for_own_locks(store);
    tl_store_wake_everybody(store);
    for (tl_store **at = &registry; *at != NULL; at = &(*at)->next) {
        if (*at == store) {
            *at = store->next;
            break;
        }
    }
    if (!store->private_words)
        process_leaves(tl_shared_process(store->shared, store->slot));
    store->opens = 0;
    TL_POINT("close.let_go");
    let_go(store);
    pthread_mutex_unlock(&registry_mutex);
    return status;
}

bool tl_store_is_open(const tl_store *store) { return tl_store_usable(store); }
const char *tl_store_path(const tl_store *store) { return store->path; }
tl_offsets *tl_store_offsets(tl_store *store) { return store->offsets; }
tl_owner tl_store_owner(const tl_store *store) { return store->me; }

size_t tl_store_processes(tl_store *store, tl_process_info *out, size_t room) {
    size_t found = 0;
    uint32_t count = (uint32_t)__atomic_load_n(&store->header->processes, __ATOMIC_ACQUIRE);
    for (uint32_t slot = 0; slot < count && slot < TL_PROCESSES && found < room; slot++) {
        tl_process *process = tl_shared_process(store->shared, slot);
        bool self = slot == store->slot;
        if (!self && tl_os->locked(store->lock_fd, TL_BYTE_PROCESS + slot) != 1)
            continue;
        out[found++] = (tl_process_info){slot, __atomic_load_n(&process->pid, __ATOMIC_RELAXED), self,
                                         (int64_t)__atomic_load_n(&process->started_ms, __ATOMIC_RELAXED)};
    }
    return found;
}
