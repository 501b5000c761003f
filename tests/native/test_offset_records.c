/* Are the committed offsets of a dropped channel gone for good, and nobody else's, whatever happens in between?
 *
 * Each case ends with a new boot, where the table of offsets is filled from the checkpoint and nothing else. The oracle
 * is the list of what was committed. */
#define _GNU_SOURCE

#include "store_kit.h"
#include "tidelog/offsets.h"

enum { GROUPS = 1100 }; /* more than the core forgets in one step */

static const uint8_t other_channel[16] = "fedcba9876543210";
static tl_error error;

static tl_store *enter(void) {
    tl_store *store = NULL;
    CHECK(kit_open("log", &store, NULL, &error) >= 0 && tl_store_ready(store, &error) == TL_OK);
    return store;
}

static void leave(tl_store *store) {
    CHECK(tl_store_close(store, &error) == TL_OK);
    tl_store_free(store);
    kit_boot++;
}

static void commit_all(tl_store *store, const uint8_t channel[16], int groups) {
    for (int i = 0; i < groups; i++) {
        char name[16];
        uint32_t slot = 0;
        int bytes = snprintf(name, sizeof name, "group-%d", i);
        CHECK(tl_store_offset_slot(store, name, (size_t)bytes, channel, (uint32_t)i % 3, true, &slot, &error) == TL_OK);
        CHECK(tl_offsets_set(tl_store_offsets(store), slot, i, 1, true) == TL_OK);
    }
    CHECK(tl_store_sync_offsets(store, &error) == TL_OK);
}

static int count_of(tl_store *store, const uint8_t channel[16]) {
    uint32_t cursor = 0;
    tl_offset_view view;
    int found = 0;
    while (tl_offsets_next(tl_store_offsets(store), &cursor, &view, &error) == 1)
        found += memcmp(view.channel_id, channel, 16) == 0 && view.word.offset >= 0;
    return found;
}

static void forget(tl_store *store) {
    CHECK(tl_store_catalogue_lock(store, &error) == TL_OK);
    CHECK(tl_store_forget_channel(store, kit_channel, &error) == TL_OK);
    tl_store_catalogue_unlock(store);
}

static void test_forgotten_for_good(void) {
    tl_store *store = enter();
    commit_all(store, kit_channel, GROUPS);
    commit_all(store, other_channel, 5);
    forget(store);
    CHECK(count_of(store, kit_channel) == 0 && count_of(store, other_channel) == 5);
    leave(store);
    store = enter();
    CHECK(count_of(store, kit_channel) == 0);
    CHECK(count_of(store, other_channel) == 5);
    leave(store);
}

/* Killed when the table has forgotten and the checkpoint has not, or has half: it comes back, and is forgotten again. */
static void test_death_half_way(void) {
    tl_store *store = enter();
    commit_all(store, kit_channel, GROUPS);
    leave(store);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        store = enter();
        if (tl_offsets_forget_channel(tl_store_offsets(store), kit_channel, &error) != TL_OK)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    kit_boot++;
    store = enter();
    CHECK(count_of(store, kit_channel) == GROUPS && count_of(store, other_channel) == 5);
    forget(store);
    forget(store);
    leave(store);
    store = enter();
    CHECK(count_of(store, kit_channel) == 0 && count_of(store, other_channel) == 5);
    leave(store);
}

/* A commit that was not saved yet is not saved later on. */
static void test_unsaved_commits(void) {
    tl_store *store = enter();
    uint32_t slot = 0, epoch = 0;
    tl_offset_word word;
    CHECK(tl_store_offset_slot(store, "late", 4, kit_channel, 0, true, &slot, &error) == TL_OK);
    CHECK(tl_offsets_read(tl_store_offsets(store), slot, &word, NULL) == TL_OK);
    CHECK(tl_offsets_claim(tl_store_offsets(store), slot, word, tl_store_owner(store), &epoch) == TL_OK);
    CHECK(tl_offsets_commit(tl_store_offsets(store), slot, tl_store_owner(store), epoch, 7, 1) == TL_OK);
    forget(store);
    CHECK(tl_offsets_commit(tl_store_offsets(store), slot, tl_store_owner(store), epoch, 8, 1) == TL_EDROPPED);
    CHECK(tl_store_housekeep(store, &error) == TL_OK);
    leave(store);
    store = enter();
    CHECK(count_of(store, kit_channel) == 0);
    leave(store);
}

int main(void) {
    kit_install();
    test_forgotten_for_good();
    test_death_half_way();
    test_unsaved_commits();
    return 0;
}
