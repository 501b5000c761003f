/* What did a dead owner of the catalogue's lock leave half done, and who finishes it?
 *
 * Imports handles.h. Called with the catalogue's inner lock, by whoever took it from the dead, or with the gate alone.
 * SHARING rule 18. Nobody was told that a half creation had succeeded, and no handle on it exists: it is undone, also in
 * the checkpoint, where its definition may stand already. A half drop is finished: others have seen that it began. */
#define _POSIX_C_SOURCE 200809L

#include "handles.h"

#include <fcntl.h>
#include <string.h>

/* An id that is in no checkpoint and not in the words: a name that somebody else has taken since must not be touched. */
static void remove_files(tl_store *store, uint32_t slot) {
    const tl_cold *cold = tl_shared_cold(store->shared, slot);
    for (uint32_t other = 0; other < store->header->partitions; other++) {
        uint64_t id = __atomic_load_n(&tl_shared_hot(store->shared, other)->id, __ATOMIC_ACQUIRE);
        if (id != 0 && (id & 1) == 0 && strcmp(tl_shared_cold(store->shared, other)->directory, cold->directory) == 0)
            return;
    }
    tl_partition_drop_directory(store, slot);
}

static void finish(tl_store *store, uint32_t slot) {
    tl_hot *hot = tl_shared_hot(store->shared, slot);
    tl_cold *cold = tl_shared_cold(store->shared, slot);
    bool created = hot->id == 0;
    if (!created)
        remove_files(store, slot);
    if (created || store->gate_exclusive) { /* nobody can have a handle on it */
        __atomic_store_n(&hot->id, 0, __ATOMIC_RELEASE);
        cold->id = 0;
    }
    TL_POINT("leftovers.finished");
}

int tl_leftovers_finish(tl_store *store, tl_error *err) {
    uint32_t count = store->header->partitions, used = 0;
    uint32_t *slots = tl_calloc(count + 1, sizeof *slots);
    if (slots == NULL)
        return tl_fail(err, TL_ENOMEM, "no memory to look for what a dead process left", store->path, -1);
    for (uint32_t slot = 0; slot < count; slot++) {
        uint64_t id = tl_shared_hot(store->shared, slot)->id;
        if ((id & 1) != 0 || (id == 0 && tl_shared_cold(store->shared, slot)->id != 0))
            slots[used++] = slot;
    }
    int status = used == 0 ? TL_OK : tl_records_drop(store, slots, used, err);
    TL_POINT("leftovers.recorded");
    for (uint32_t i = 0; status == TL_OK && i < used; i++)
        finish(store, slots[i]);
    tl_os->free(slots);
    return status;
}

static int remove_deleted(void *context, const char *name) {
    tl_store *store = context;
    if (strncmp(name, ".deleted-", 9) == 0)
        tl_catalogue_remove_directory(store, name);
    return 0;
}

void tl_leftovers_sweep(tl_store *store) {
    (void)tl_os->list(store->dir, store, remove_deleted);
    TL_POINT("leftovers.swept");
}
