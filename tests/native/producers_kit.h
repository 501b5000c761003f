/* What do the programs that test producers share: a store with one partition, entered and left, and batches of names?
 *
 * Imports store_kit.h, producers.h. Single-threaded. */
#ifndef TIDELOG_TEST_PRODUCERS_KIT_H
#define TIDELOG_TEST_PRODUCERS_KIT_H

#include "store_kit.h"
#include "tidelog/producers.h"

static char kit_base[200];
static tl_store *kit_store;
static tl_partition *kit_partition;
static uint32_t kit_slot;
static uint32_t kit_straight; /* messages that went by the path of `send` */

static inline void kit_must_be(int status, int wanted, const tl_error *err) {
    if (status != wanted)
        REFUSE("%s (%s, %s, %s, errno %d), not %s", tl_status_name(status), err->what == NULL ? "" : err->what, err->path,
               err->detail, err->sys_errno, tl_status_name(wanted));
    check_count++;
}

static inline void kit_enter(bool create) {
    tl_error err = {0};
    tl_recovery recovery;
    kit_must_be(kit_open(kit_base, &kit_store, &recovery, &err), TL_OK, &err);
    kit_must_be(tl_store_ready(kit_store, &err), TL_OK, &err);
    if (create)
        kit_must_be(kit_create(kit_store, 0, 4096, &kit_slot, &err), TL_OK, &err);
    kit_must_be(tl_store_partition(kit_store, kit_slot, kit_channel, &kit_partition, &err), TL_OK, &err);
}

static inline void kit_leave(void) {
    tl_error err = {0};
    tl_partition_release(kit_partition);
    kit_must_be(tl_store_close(kit_store, &err), TL_OK, &err);
    tl_store_free(kit_store);
}

static inline void kit_send_plain(size_t count) {
    tl_error err = {0};
    for (size_t i = 0; i < count; i++) {
        uint8_t text[KIT_TEXT];
        tl_message message = kit_message(kit_next_number++, text);
        tl_appended out;
        kit_must_be(tl_partition_append_one(kit_partition, &message, 0, &out, &err), TL_OK, &err);
    }
}

/* As after a power cut that took nothing: the last process died with the store open, and the boot is another one. */
static inline void kit_cut(size_t messages) {
    kit_leave();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        kit_enter(false);
        kit_send_plain(messages);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    kit_boot++;
    kit_enter(false);
}

static inline int kit_send(const tl_producer *producer, int32_t sequence, size_t count, tl_appended *out) {
    uint8_t texts[KIT_BATCH][KIT_TEXT];
    tl_message messages[KIT_BATCH];
    for (size_t i = 0; i < count; i++)
        messages[i] = kit_message(kit_next_number++, texts[i]);
    const tl_producing producing = {.producer = producer, .sequence = sequence};
    const tl_append what = {.messages = messages, .count = count, .producing = &producing};
    tl_error err = {0};
    if (count == 1 && sequence < 0 && kit_next_number % 2 == 0) { /* the path of `send` */
        int status = tl_partition_append_one_named(kit_partition, messages, producer, out, &err);
        kit_straight += status == TL_OK;
        if (status != TL_EAGAIN)
            return status;
    }
    return tl_partition_append(kit_partition, &what, 0, out, &err);
}

static inline tl_producer kit_open_name(const char *name) {
    tl_producer producer;
    tl_error err = {0};
    kit_must_be(tl_producer_open(kit_store, name, strlen(name), &producer, &err), TL_OK, &err);
    return producer;
}

#endif
