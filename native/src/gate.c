/* Who may enter a store, and what does each process find when it is inside?
 *
 * Imports handles.h. Called while a store is opened or closed, under the registry's mutex. SHARING rules 1 to 8: all hold
 * the gate (byte 0 of store.lock) shared; whoever gets it alone recovers, stores `ready` last and only then shares it. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define RETRY_NS 2000000

static void pause_a_little(void) {
    uint32_t word = 0;
    (void)tl_os->futex_wait(&word, 0, RETRY_NS);
}

/* Lock words depend on architecture and word size, hot words do not. */
uint32_t tl_gate_lock_abi(void) {
#if defined(__x86_64__)
    return TL_LOCK_ABI + 0x100;
#elif defined(__aarch64__)
    return TL_LOCK_ABI + 0x200;
#else
#error "tidelog supports x86-64 and aarch64 only"
#endif
}

static bool same_place(const tl_identity *a, const tl_identity *b) {
    return a->boot[0] == b->boot[0] && a->boot[1] == b->boot[1] && a->device == b->device && a->inode == b->inode;
}

/* Alone, the mount counts too: after umount and mount the page cache is another one. Beside others it does not: they
 * prove that it never went away, and a bind mount reaches the same files under another mount id. */
bool tl_shared_is_ready(tl_store *store) {
    const tl_shared_header *header = store->header;
    uint32_t set = __atomic_load_n(&header->ready_set, __ATOMIC_ACQUIRE);
    if ((set != TL_READY && !(set == TL_READY_ALONE && store->gate_exclusive)) ||
        !same_place(&header->ready, &store->identity))
        return false;
    return !store->gate_exclusive || header->ready.mount == store->identity.mount;
}

void tl_shared_unready(tl_store *store) {
    __atomic_store_n(&store->header->ready_set, 0, __ATOMIC_SEQ_CST);
    memset(&store->header->ready, 0, sizeof store->header->ready);
    TL_FULL_FENCE();
}

void tl_shared_set_ready(tl_store *store) {
    store->header->ready = store->identity;
    __atomic_store_n(&store->header->ready_set, TL_READY, __ATOMIC_RELEASE);
}

/* Of words that are ready. Whoever closes and dies leaves them to the next one that is alone. */
void tl_shared_set_alone(tl_store *store) {
    __atomic_store_n(&store->header->ready_set, TL_READY_ALONE, __ATOMIC_SEQ_CST);
}

static int map_shared(tl_store *store, int fd, tl_error *err) {
    void *at = NULL;
    int status = tl_os->map(fd, 0, TL_SHARED_BYTES, true, &at);
    if (status < 0)
        return tl_fail_sys(err, status, "the shared words cannot be mapped", "shared");
    store->shared = at;
    store->header = tl_shared_header_of(store->shared);
    return TL_OK;
}

int tl_shared_open(tl_store *store, tl_error *err) {
    if (store->shared != NULL) { /* a stale file of an earlier turn of the gate */
        tl_os->unmap(store->shared, TL_SHARED_BYTES);
        store->shared = NULL;
        store->header = NULL;
    }
    int fd = tl_os->open(store->dir, "shared", O_RDWR, 0);
    if (fd == -ENOENT)
        return tl_fail(err, TL_ENOTFOUND, "there are no shared words", "shared", -1);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the shared words cannot be opened", "shared");
    tl_stat stat;
    int status = tl_os->stat(fd, &stat);
    if (status < 0)
        status = tl_fail_sys(err, status, "the shared words cannot be looked at", "shared");
    else if (stat.size_bytes < TL_SHARED_BLOCKS_AT + TL_BLOCK_BYTES)
        status = tl_fail(err, TL_ECORRUPT, "the file of shared words is too short", "shared", (int64_t)stat.size_bytes);
    else
        status = map_shared(store, fd, err);
    tl_os->close(fd);
    if (status < 0)
        return status;
    const tl_shared_header *header = store->header;
    uint64_t blocks = header->allocated_blocks;
    if (header->magic != TL_SHARED_MAGIC || header->version != TL_SHARED_VERSION)
        return tl_fail(err, TL_ECORRUPT, "the shared words have another format", "shared", 0);
    if (blocks > TL_PARTITIONS / TL_BLOCK_PARTITIONS ||
        TL_SHARED_BLOCKS_AT + blocks * TL_BLOCK_BYTES > stat.size_bytes ||
        header->partitions > blocks * TL_BLOCK_PARTITIONS)
        return tl_fail(err, TL_ECORRUPT, "the file of shared words is shorter than it says", "shared",
                       (int64_t)stat.size_bytes);
    return TL_OK;
}

int tl_shared_create(tl_store *store, tl_error *err) {
    if (store->shared != NULL) {
        tl_os->unmap(store->shared, TL_SHARED_BYTES);
        store->shared = NULL;
    }
    /* A new file, never the old one emptied: a handle that was not closed may still have the old one mapped. */
    int fd = tl_os->open(store->dir, "shared.new", O_RDWR | O_CREAT | O_TRUNC, TL_FILE_MODE);
    if (fd < 0)
        return tl_fail_sys(err, fd, "the shared words cannot be created", "shared.new");
    int status = tl_os->fallocate(fd, 0, TL_SHARED_BLOCKS_AT + TL_BLOCK_BYTES);
    if (status < 0)
        status = tl_fail_sys(err, status, "no space can be allocated for the shared words", "shared.new");
    else
        status = map_shared(store, fd, err);
    tl_os->close(fd);
    if (status < 0)
        return status;
    tl_shared_header *header = store->header;
    header->magic = TL_SHARED_MAGIC;
    header->version = TL_SHARED_VERSION;
    header->lock_abi = tl_gate_lock_abi();
    header->allocated_blocks = 1;
    header->next_id = 2;
    header->flush_interval_ms = (uint64_t)store->options.flush_interval_ms;
    TL_POINT("shared.created");
    status = tl_os->rename(store->dir, "shared.new", store->dir, "shared");
    return status < 0 ? tl_fail_sys(err, status, "the shared words cannot be renamed into place", "shared") : TL_OK;
}

int tl_shared_grow(tl_store *store, uint32_t partitions, tl_error *err) {
    tl_shared_header *header = store->header;
    if (partitions > TL_PARTITIONS)
        return tl_fail(err, TL_EFULL, "a store holds at most 131072 partitions", "shared", -1);
    uint64_t blocks = (partitions + TL_BLOCK_PARTITIONS - 1) / TL_BLOCK_PARTITIONS;
    if (blocks > header->allocated_blocks) {
        int fd = tl_os->open(store->dir, "shared", O_RDWR, 0);
        if (fd < 0)
            return tl_fail_sys(err, fd, "the shared words cannot be opened", "shared");
        uint64_t from = TL_SHARED_BLOCKS_AT + header->allocated_blocks * TL_BLOCK_BYTES;
        int status = tl_os->fallocate(fd, from, TL_SHARED_BLOCKS_AT + blocks * TL_BLOCK_BYTES - from);
        tl_os->close(fd);
        if (status < 0)
            return tl_fail_sys(err, status, "no space can be allocated for the shared words", "shared");
        __atomic_store_n(&header->allocated_blocks, blocks, __ATOMIC_RELEASE);
        TL_POINT("shared.grown");
    }
    if (partitions > header->partitions)
        __atomic_store_n(&header->partitions, partitions, __ATOMIC_RELEASE);
    return TL_OK;
}

/* --- the gate --- */

int tl_gate_enter(tl_store *store, bool *exclusive, tl_error *err) {
    int64_t deadline = tl_os->monotonic_ns() + tl_store_lock_timeout_ns(store);
    for (;;) {
        int status = tl_os->lock(store->lock_fd, TL_LOCK_EXCLUSIVE, TL_BYTE_GATE, 1, false);
        if (status == 0) {
            *exclusive = store->gate_exclusive = true;
            TL_POINT("gate.exclusive");
            return TL_OK;
        }
        if (status != -EAGAIN)
            return tl_fail_sys(err, status, "the gate of the store cannot be locked", "store.lock");
        status = tl_os->lock(store->lock_fd, TL_LOCK_SHARED, TL_BYTE_GATE, 1, false);
        if (status == 0) {
            store->gate_exclusive = false;
            if (tl_shared_open(store, NULL) == TL_OK && tl_shared_is_ready(store)) {
                if (store->header->lock_abi != tl_gate_lock_abi()) {
                    (void)tl_os->lock(store->lock_fd, TL_UNLOCK, TL_BYTE_GATE, 1, false);
                    tl_fail(err, TL_ELOCKED, "the store is open in a process with other lock words", "store.lock", -1);
                    if (err != NULL)
                        snprintf(err->detail, sizeof err->detail, "lock words %#x, ours are %#x",
                                 store->header->lock_abi, tl_gate_lock_abi());
                    return TL_ELOCKED;
                }
                *exclusive = false;
                TL_POINT("gate.shared");
                return TL_OK;
            }
            /* Whoever recovered died half way: leave, so that somebody gets it alone. */
            (void)tl_os->lock(store->lock_fd, TL_UNLOCK, TL_BYTE_GATE, 1, false);
        } else if (status != -EAGAIN) {
            return tl_fail_sys(err, status, "the gate of the store cannot be locked", "store.lock");
        }
        if (tl_os->monotonic_ns() > deadline) {
            tl_fail(err, TL_ELOCKED, "another process is recovering or closing the store", "store.lock", -1);
            if (err != NULL)
                snprintf(err->detail, sizeof err->detail, "another process, which may be stopped");
            return TL_ELOCKED;
        }
        pause_a_little();
    }
}

int tl_gate_share(tl_store *store, tl_error *err) {
    int status = tl_os->lock(store->lock_fd, TL_LOCK_SHARED, TL_BYTE_GATE, 1, false);
    if (status < 0)
        return tl_fail_sys(err, status, "the gate of the store cannot be shared", "store.lock");
    store->gate_exclusive = false;
    TL_POINT("gate.converted");
    return TL_OK;
}

int tl_gate_upgrade(tl_store *store) {
    /* The closer byte first: of two who upgrade at once both would get EAGAIN, and nobody would close cleanly. */
    if (tl_os->lock(store->lock_fd, TL_LOCK_EXCLUSIVE, TL_BYTE_CLOSER, 1, false) < 0)
        return TL_EAGAIN;
    TL_POINT("close.closer_byte");
    if (tl_os->lock(store->lock_fd, TL_LOCK_EXCLUSIVE, TL_BYTE_GATE, 1, false) == 0) {
        store->gate_exclusive = true;
        return TL_OK;
    }
    if (TL_BUG(CLOSE_WITHOUT_GATE))
        return TL_OK;
    (void)tl_os->lock(store->lock_fd, TL_UNLOCK, TL_BYTE_GATE, 1, false);
    (void)tl_os->lock(store->lock_fd, TL_UNLOCK, TL_BYTE_CLOSER, 1, false);
    return TL_EAGAIN;
}

/* --- process slots --- */

int tl_gate_take_slot(tl_store *store, tl_error *err) {
    for (uint32_t slot = 0; slot < TL_PROCESSES; slot++) {
        int status = tl_os->lock(store->lock_fd, TL_LOCK_EXCLUSIVE, TL_BYTE_PROCESS + slot, 1, false);
        if (status == -EAGAIN)
            continue;
        if (status < 0)
            return tl_fail_sys(err, status, "a process slot cannot be locked", "store.lock");
        tl_process *process = tl_shared_process(store->shared, slot);
        uint32_t incarnation = process->incarnation;
        if (!TL_BUG(INCARNATION_NOT_BUMPED))
            incarnation = __atomic_add_fetch(&process->incarnation, 1, __ATOMIC_SEQ_CST);
        TL_POINT("gate.slot_taken");
        __atomic_store_n(&process->sleeping, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&process->pid, tl_os->process_id(), __ATOMIC_RELAXED);
        __atomic_store_n(&process->pid_namespace, tl_os->pid_namespace(), __ATOMIC_RELAXED);
        __atomic_store_n(&process->started_ms, (uint64_t)tl_os->now_ms(), __ATOMIC_RELAXED);
        __atomic_store_n(&process->inside, incarnation << 1 | 1u, __ATOMIC_SEQ_CST);
        store->slot = slot;
        store->me = tl_owner_make(slot, incarnation);
        uint64_t seen = __atomic_load_n(&store->header->processes, __ATOMIC_RELAXED);
        while (seen < slot + 1u && !__atomic_compare_exchange_n(&store->header->processes, &seen, slot + 1u, false,
                                                                __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        tl_store_wake_everybody(store); /* whoever thought itself alone looks more often from now on */
        return TL_OK;
    }
    return tl_fail(err, TL_EFULL, "512 processes have the store open already", "store.lock", -1);
}
