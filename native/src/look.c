/* What can be seen of a store without changing it?
 *
 * Imports handles.h. Called while a store is opened, under the registry's mutex. SHARING rule 7. Beside others a looker is
 * one of them, but never appends. With nobody inside it works on a private copy of the words: those of this boot if every
 * process died, else what the checkpoint says after a clean close. A store that needs recovery is not looked at. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define RETRY_NS 2000000

int tl_store_refuse_look(const tl_store *store, tl_error *err) {
    return tl_fail(err, TL_EINVAL, "the store was opened to look at it only: open it without that to change it",
                   store->path, -1);
}

static int take_gate(tl_store *store, tl_error *err) {
    int64_t deadline = tl_os->monotonic_ns() + tl_store_lock_timeout_ns(store);
    for (;;) {
        int status = tl_os->lock(store->lock_fd, TL_LOCK_SHARED, TL_BYTE_GATE, 1, false);
        if (status == 0)
            return TL_OK;
        if (status != -EAGAIN)
            return tl_fail_sys(err, status, "the gate of the store cannot be locked", "store.lock");
        if (tl_os->monotonic_ns() > deadline)
            return tl_fail(err, TL_ELOCKED, "another process is recovering or closing the store", "store.lock", -1);
        uint32_t word = 0;
        (void)tl_os->futex_wait(&word, 0, RETRY_NS);
    }
}

static int private_words(tl_store *store, uint64_t blocks, tl_error *err) {
    size_t bytes = TL_SHARED_BLOCKS_AT + (size_t)blocks * TL_BLOCK_BYTES;
    uint8_t *words = tl_calloc(1, bytes);
    if (words == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory for a copy of the shared words", store->path, -1);
    if (store->shared != NULL) {
        memcpy(words, store->shared, bytes);
        tl_os->unmap(store->shared, TL_SHARED_BYTES);
    }
    store->shared = words;
    store->header = tl_shared_header_of(words);
    store->private_words = true;
    return TL_OK;
}

static int note_slot(void *context, uint16_t type, const void *key, uint16_t key_bytes, const void *value,
                     uint32_t value_bytes) {
    uint32_t slot = 0, *slots = context;
    (void)value;
    (void)value_bytes;
    if (type < TL_RECORD_DEFINITION || type > TL_RECORD_START || key_bytes != sizeof slot)
        return TL_OK;
    memcpy(&slot, key, sizeof slot);
    if (slot >= *slots && slot < TL_PARTITIONS) /* others are refused when they are loaded */
        *slots = slot + 1;
    return TL_OK;
}

/* Blocks of words that the checkpoint's partitions need. */
static int count_blocks(tl_store *store, uint64_t *blocks, tl_error *err) {
    tl_checkpoint_words words = {0};
    tl_checkpoint checkpoint = {.fd = {-1, -1}, .snapshot_fd = {-1, -1}};
    uint32_t slots = 1;
    int status = tl_checkpoint_open(&checkpoint, store->dir, &words, err);
    if (status < 0)
        return status;
    status = tl_checkpoint_view(&checkpoint, err);
    if (status == TL_OK)
        status = tl_checkpoint_load(&checkpoint, &slots, note_slot, err);
    tl_checkpoint_close(&checkpoint);
    *blocks = (slots + TL_BLOCK_PARTITIONS - 1) / TL_BLOCK_PARTITIONS;
    return status;
}

/* Nobody is inside and the words are not of this boot: the checkpoint knows all of a store that was closed cleanly. */
static int from_checkpoint(tl_store *store, tl_error *err) {
    if (store->shared != NULL) {
        tl_os->unmap(store->shared, TL_SHARED_BYTES);
        store->shared = NULL;
    }
    uint64_t blocks = 0;
    int status = count_blocks(store, &blocks, err);
    if (status == TL_OK)
        status = private_words(store, blocks, err);
    if (status < 0)
        return status;
    store->header->magic = TL_SHARED_MAGIC;
    store->header->version = TL_SHARED_VERSION;
    store->header->allocated_blocks = blocks; /* enough, so that nothing is allocated */
    status = tl_checkpoint_open(&store->checkpoint, store->dir, &store->header->checkpoint, err);
    if (status == TL_OK)
        status = tl_checkpoint_view(&store->checkpoint, err);
    bool clean = false;
    if (status == TL_OK)
        status = tl_records_load(store, &clean, err);
    if (status == TL_OK && !clean)
        status = tl_fail(err, TL_EUNSUPPORTED,
                         "the store was not closed before the machine stopped and has not been recovered: open it "
                         "in a program, or run `tidelog check --repair`",
                         store->path, -1);
    return status;
}

int tl_look_enter(tl_store *store, bool *live, tl_error *err) {
    *live = false;
    int status = take_gate(store, err);
    if (status < 0)
        return status;
    store->gate_exclusive = false;
    status = tl_directory_read_identity(store, err);
    if (status < 0) /* also one whose maker died before it was whole */
        return status == TL_ENOTFOUND ? tl_fail(err, TL_ENOTFOUND, "there is no store here", store->path, -1) : status;
    bool usable = tl_shared_open(store, NULL) == TL_OK && tl_shared_is_ready(store);
    if (usable && tl_os->locked(store->lock_fd, TL_BYTE_GATE) == 1) {
        if (store->header->lock_abi != tl_gate_lock_abi())
            return tl_fail(err, TL_ELOCKED, "the store is open in a process with other lock words", "store.lock", -1);
        *live = true;
        return TL_OK;
    }
    if (usable) {
        store->gate_exclusive = true; /* asks for the mount too: nobody proves that it never went away */
        usable = tl_shared_is_ready(store);
        store->gate_exclusive = false;
    }
    status = usable ? private_words(store, store->header->allocated_blocks, err) : from_checkpoint(store, err);
    if (status == TL_OK && usable)
        status = tl_checkpoint_open(&store->checkpoint, store->dir, &store->header->checkpoint, err);
    if (status == TL_OK)
        status = tl_offsets_open(store->dir, TL_OFFSETS_READ_ONLY, &store->offsets, err);
    if (status == TL_OK)
        __atomic_store_n(&store->open, 1, __ATOMIC_SEQ_CST);
    return status;
}
