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
    for (tl_store *store = registry; store != NULL; store = store->next)
        tl_os->close(store->lock_fd); /* the lock stays: the parent's descriptor is of the same description */
    registry = NULL;
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    registry_mutex = fresh;
}

/* --- refusals and waits --- */

int tl_store_refuse(const tl_store *store, tl_error *err) {
    if (store->fork_generation != __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED))
        return tl_fail(err, TL_EFORKED, "the store was opened before fork()", store->path, -1);
    return tl_fail(err, TL_ECLOSED, "the store is closed", store->path, -1);
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
    store->checkpoint.fd[0] = store->checkpoint.fd[1] = -1;
    store->liveness.alive = owner_alive;
    store->fork_generation = __atomic_load_n(&tl_fork_generation, __ATOMIC_RELAXED);
    pthread_mutex_init(&store->mutex, NULL);
    pthread_mutex_init(&store->catalogue, NULL);
    pthread_mutex_init(&store->housekeeping, NULL);
    return store;
}

/* --- recovery; the gate is held alone --- */

/* Every process is gone, and the page cache is the one they wrote to: the words are the truth. */
static int recover_same_boot(tl_store *store, tl_recovery *recovery, tl_error *err) {
    tl_shared_header *header = store->header;
    recovery->same_boot = true;
    header->catalogue_lock = header->checkpoint_lock = header->checkpoint_sync_lock = 0;
    int status = tl_checkpoint_open(&store->checkpoint, store->dir, &header->checkpoint, err);
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_OPEN, &store->offsets, err);
    if (status < 0)
        return status;
    for (uint32_t slot = 0; slot < header->partitions; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        tl_cold *cold = tl_shared_cold(store->shared, slot);
        hot->sleepers = 0;
        hot->sync_waiters = 0;
        hot->sync_lock = 0; /* `syncing` stays: the next leader must know that one died */
        if (hot->id == 0 || (hot->id & 1) != 0) {
            hot->lock = 0;
            continue;
        }
        recovery->partitions++;
        if (hot->lock == 0 && hot->reserve == hot->tail)
            continue;
        recovery->repaired_locks++;
        hot->lock = store->me;
        tl_partition *partition = NULL;
        tl_error inner = {0};
        status = tl_store_partition(store, slot, cold->channel, &partition, &inner);
        if (status == TL_OK) {
            status = tl_partition_repair(partition, &inner);
            tl_partition_release(partition);
        }
        if (status < 0) { /* this partition alone is out of order; opening again, or `check --repair`, tries again */
            recovery->failed_partitions++;
            hot->failed = inner.sys_errno != 0 ? (uint32_t)inner.sys_errno : EIO;
        }
        hot->lock = 0;
    }
    return TL_OK;
}

static int recover_from_disk(tl_store *store, bool fresh, tl_recovery *recovery, tl_error *err) {
    int status = tl_shared_create(store, err);
    if (status < 0)
        return status;
    tl_shared_header *header = store->header;
    store->me = tl_owner_make(0, 1); /* until a slot is taken; nobody else is here */
    TL_POINT("recover.shared_created");
    if (fresh)
        status = tl_checkpoint_create(&store->checkpoint, store->dir, TL_FILE_MODE, &header->checkpoint, err);
    if (!fresh || status == TL_EEXIST) {
        status = tl_checkpoint_open(&store->checkpoint, store->dir, &header->checkpoint, err);
        if (status == TL_OK)
            status = tl_checkpoint_recover(&store->checkpoint, err);
    }
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_RESET, &store->offsets, err);
    bool clean = false;
    if (status == TL_OK)
        status = tl_records_load(store, &clean, err);
    if (status < 0)
        return status;
    TL_POINT("recover.loaded");
    recovery->clean = clean;
    recovery->created = fresh;
    return TL_OK;
}

/* After a slot was taken: what needs an owner. */
static int recover_partitions(tl_store *store, tl_recovery *recovery, tl_error *err) {
    tl_shared_header *header = store->header;
    uint32_t count = header->partitions, leased = 0;
    uint32_t *slots = tl_calloc(count + 1, sizeof *slots);
    int64_t *leases = tl_calloc(count + 1, sizeof *leases);
    int status = TL_OK;
    if (slots == NULL || leases == NULL) {
        status = tl_fail(err, TL_ENOMEM, "no memory to recover partitions", "", -1);
        goto out;
    }
    for (uint32_t slot = 0; slot < count; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        if (hot->id == 0)
            continue;
        recovery->partitions++;
        tl_partition *partition = NULL;
        status = tl_store_partition(store, slot, tl_shared_cold(store->shared, slot)->channel, &partition, err);
        if (status < 0)
            goto out;
        tl_error inner = {0};
        int recovered = tl_partition_recover(partition, recovery->clean, recovery, &inner);
        if (recovered == TL_ENOMEM || recovered == TL_ENOSPC) {
            if (err != NULL)
                *err = inner;
            status = recovered;
        } else if (recovered < 0) { /* damage in one partition keeps nobody from the others */
            recovery->failed_partitions++;
            hot->failed = inner.sys_errno != 0 ? (uint32_t)inner.sys_errno : EIO;
        } else if (recovered == 1) {
            tl_end end;
            tl_end_read(hot, hot->tail, &end);
            slots[leased] = slot;
            leases[leased++] = end.end_offset + TL_LEASE;
        }
        tl_partition_release(partition);
        if (status < 0)
            goto out;
        TL_POINT("recover.partition");
    }
    status = tl_records_put_lease(store, slots, leases, leased, err);
    for (uint32_t i = 0; status == TL_OK && i < leased; i++)
        tl_shared_hot(store->shared, slots[i])->lease = leases[i];
    TL_POINT("recover.leased");
    /* Before the first append: from here on a power cut needs the scan. */
    if (status == TL_OK && (recovery->clean || recovery->created) && !TL_BUG(CLEAN_MARK_KEPT))
        status = tl_records_put_clean(store, false, err);
    TL_POINT("recover.unclean_marked");
out:
    tl_os->free(slots);
    tl_os->free(leases);
    return status;
}

static int recover(tl_store *store, tl_recovery *recovery, tl_error *err) {
    int known = tl_directory_read_identity(store, err);
    if (known < 0 && known != TL_ENOTFOUND)
        return known;
    if (known == TL_ENOTFOUND && !store->options.create)
        return tl_fail(err, TL_ENOTFOUND, "there is no store here", store->path, -1);
    bool warm = known == TL_OK && tl_shared_open(store, NULL) == TL_OK && tl_shared_is_ready(store);
    int status = TL_OK;
    if (!warm)
        status = recover_from_disk(store, known == TL_ENOTFOUND, recovery, err);
    if (status < 0)
        return status;
    if (TL_BUG(READY_STORED_FIRST))
        tl_shared_set_ready(store);
    else
        tl_shared_unready(store); /* whoever comes after our death starts over */
    TL_POINT("recover.unready");
    status = tl_gate_take_slot(store, err);
    if (status < 0)
        return status;
    __atomic_store_n(&store->open, 1, __ATOMIC_SEQ_CST);
    status = warm ? recover_same_boot(store, recovery, err) : recover_partitions(store, recovery, err);
    if (status == TL_OK && known == TL_ENOTFOUND)
        status = tl_directory_write_identity(store, err);
    return status;
}

static int join(tl_store *store, tl_error *err) {
    int status = tl_gate_take_slot(store, err);
    if (status == TL_OK)
        status = tl_checkpoint_open(&store->checkpoint, store->dir, &store->header->checkpoint, err);
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_OPEN, &store->offsets, err);
    if (status < 0)
        return status;
    uint64_t seen = __atomic_load_n(&store->header->flush_interval_ms, __ATOMIC_RELAXED);
    uint64_t ours = (uint64_t)store->options.flush_interval_ms;
    while (ours < seen && !__atomic_compare_exchange_n(&store->header->flush_interval_ms, &seen, ours, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        continue;
    __atomic_store_n(&store->open, 1, __ATOMIC_SEQ_CST);
    return TL_OK;
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

static int open_locked(const char *path, const tl_store_options *options, tl_store **out, int *state, tl_recovery *recovery, tl_error *err) {
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
        status = exclusive ? recover(store, recovery, err) : join(store, err);
    if (status < 0) {
        __atomic_store_n(&store->open, 0, __ATOMIC_SEQ_CST);
        let_go(store);
        tl_store_free(store);
        return status;
    }
    store->opens = 1;
    store->next = registry;
    registry = store;
    *out = store;
    *state = exclusive ? TL_STORE_RECOVERED : TL_STORE_JOINED;
    if (!exclusive && !options->no_housekeeper && !options->look)
        return tl_housekeeper_start(store, err);
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
    uint32_t *words[3] = {&store->header->catalogue_lock, &store->header->checkpoint_lock, &store->header->checkpoint_sync_lock};
    for (int i = 0; i < 3; i++)
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

/* The gate is ours alone and nobody will come. A failure leaves an unclean store, which loses nothing but time. */
static int close_cleanly(tl_store *store, tl_error *err) {
    tl_shared_header *header = store->header;
    TL_POINT("close.begin");
    tl_shared_unready(store);
    uint32_t count = header->partitions, used = 0;
    uint32_t *slots = tl_calloc(count + 1, sizeof *slots);
    int64_t *leases = tl_calloc(count + 1, sizeof *leases);
    tl_state *states = tl_calloc(count + 1, sizeof *states);
    int status = slots == NULL || leases == NULL || states == NULL ? tl_fail(err, TL_ENOMEM, "no memory to close cleanly", "", -1) : TL_OK;
    for (uint32_t slot = 0; status == TL_OK && slot < count; slot++) {
        tl_hot *hot = tl_shared_hot(store->shared, slot);
        if (hot->id == 0 || (hot->id & 1) != 0)
            continue;
        tl_end end;
        tl_end_read(hot, hot->tail, &end);
        if (hot->tail == hot->saved && hot->synced == hot->tail && hot->lease == end.end_offset && hot->failed == 0)
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
    if (status == TL_OK)
        status = tl_records_put_states(store, slots, states, used, err);
    if (status == TL_OK)
        status = tl_records_put_offsets(store, err);
    if (status == TL_OK)
        status = tl_records_put_lease(store, slots, leases, used, err);
    if (status == TL_OK)
        status = sync_offsets_file(store, err);
    TL_POINT("close.recorded");
    if (status == TL_OK)
        status = tl_records_put_clean(store, true, err);
    TL_POINT("close.clean");
    tl_os->free(slots);
    tl_os->free(leases);
    tl_os->free(states);
    return status;
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
        __atomic_store_n(&tl_shared_process(store->shared, store->slot)->pid, 0, __ATOMIC_RELAXED);
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
