/* How does a text stand beside an offset so that nobody ever reads half of one?
 *
 * Imports offsets_file.h, crc32c.h. Readers: any thread, no lock. Writers: the catalogue lock and the handle's mutex,
 * so there is one at a time; one that died left at most a half-written spare copy.
 *
 * Sequence s says that copies[s & 1] is the text. A writer fills the other copy, then stores s + 1. A reader's copy is
 * overwritten only by the writer after next, which starts after s + 1 became visible: a reader that still sees s after
 * its last load has a whole copy. Text words are stored with release and loaded with acquire, which gives that order
 * without fences. The CRC finds damage, not races. A copy that has once needed overflow slots keeps them. */
#include "offsets_file.h"

#include "tidelog/crc32c.h"

#define COPY_WORDS (sizeof(metadata_copy) / 8)
#define OVERFLOW_WORDS (OVERFLOW_BYTES / 8)
#define LARGEST_RUN ((TL_OFFSETS_MAX_METADATA_BYTES + OVERFLOW_BYTES - 1) / OVERFLOW_BYTES)
#define READ_TRIES 1000

static void load_words(void *to, const void *from, size_t words) {
    for (size_t i = 0; i < words; i++) {
        uint64_t w = __atomic_load_n((const uint64_t *)from + i, __ATOMIC_ACQUIRE);
        memcpy((uint8_t *)to + 8 * i, &w, 8);
    }
}

static void store_words(void *to, const void *from, size_t words) {
    for (size_t i = 0; i < words; i++) {
        uint64_t w;
        memcpy(&w, (const uint8_t *)from + 8 * i, 8);
        __atomic_store_n((uint64_t *)to + i, w, __ATOMIC_RELEASE);
    }
}

static uint32_t copy_crc(uint32_t slot, const metadata_copy *copy, const void *text) {
    uint32_t crc = tl_crc32c(tl_crc32c(0, &slot, sizeof slot), copy, offsetof(metadata_copy, crc));
    return tl_crc32c(crc, text, copy->bytes);
}

/* Whether [first, first + run) really is an overflow run of this copy. A half-written copy is not believed: the slots
 * themselves say whose they are. */
static bool run_ok(const tl_offsets *t, uint32_t slot, uint32_t which, uint32_t first, uint32_t run, uint32_t count) {
    if (run > LARGEST_RUN || first >= count || run > count - first)
        return false;
    for (uint32_t part = 0; part < run; part++)
        if (!overflow_ok(t, first + part, slot, part | (which != 0 ? OVERFLOW_COPY_1 : 0), count))
            return false;
    return true;
}

/* One attempt at copy `sequence`: TL_OK, or TL_ECORRUPT, which means damage only if the sequence has not moved on. */
static int load_copy(const tl_offsets *t, uint32_t slot, uint32_t sequence, uint8_t *text, uint32_t *bytes) {
    const offset_slot *s = offsets_at(t, slot);
    metadata_copy copy;
    load_words(&copy, &s->copies[sequence & 1], COPY_WORDS);
    if (copy.sequence != sequence || copy.bytes > TL_OFFSETS_MAX_METADATA_BYTES)
        return TL_ECORRUPT;
    *bytes = copy.bytes;
    if (copy.bytes <= METADATA_INLINE_BYTES) {
        memcpy(text, copy.text, copy.bytes);
    } else {
        uint32_t count;
        int rc = offsets_count(t, &count, NULL);
        if (rc < 0)
            return rc;
        if (copy.bytes > copy.run * (uint64_t)OVERFLOW_BYTES ||
            !run_ok(t, slot, sequence & 1, copy.first, copy.run, count))
            return TL_ECORRUPT;
        for (uint32_t at = 0, part = 0; at < copy.bytes; at += OVERFLOW_BYTES, part++) {
            const overflow_slot *more = offsets_at(t, copy.first + part);
            uint8_t block[OVERFLOW_BYTES];
            uint32_t left = copy.bytes - at;
            load_words(block, more->bytes, OVERFLOW_WORDS);
            memcpy(text + at, block, left < OVERFLOW_BYTES ? left : OVERFLOW_BYTES);
        }
    }
    return copy.crc == copy_crc(slot, &copy, text) ? TL_OK : TL_ECORRUPT;
}

int metadata_load(const tl_offsets *t, uint32_t slot, uint8_t *text, uint32_t *bytes, tl_error *err) {
    const offset_slot *s = offsets_at(t, slot);
    uint8_t own[TL_OFFSETS_MAX_METADATA_BYTES];
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t word = __atomic_load_n(&s->metadata, __ATOMIC_ACQUIRE);
        uint32_t sequence = (uint32_t)word;
        if (!guard_ok(word))
            return offsets_damaged(err, slot, "the metadata sequence of an offset is damaged; run tidelog check");
        *bytes = 0;
        if (sequence == 0)
            return TL_OK;
        TL_POINT("offsets.metadata.read");
        TL_YIELD();
        int rc = load_copy(t, slot, sequence, text != NULL ? text : own, bytes);
        TL_YIELD();
        if (word != __atomic_load_n(&s->metadata, __ATOMIC_RELAXED))
            continue;
        if (rc < 0)
            return offsets_damaged(err, slot,
                                   "the metadata of an offset has a wrong checksum; commit it again to replace it");
        return TL_OK;
    }
    return tl_fail(err, TL_EAGAIN, "the metadata kept changing while it was read; read it again", TL_OFFSETS_FILE,
                   offsets_position(slot));
}

int tl_offsets_metadata(const tl_offsets *t, uint32_t slot, void *text, size_t *bytes, tl_error *err) {
    offset_slot *s;
    uint32_t n;
    int rc = offset_live(t, slot, &s);
    if (rc < 0)
        return tl_fail(err, rc, "this offset slot cannot be used", TL_OFFSETS_FILE, offsets_position(slot));
    rc = metadata_load(t, slot, text, &n, err);
    if (rc == TL_OK)
        *bytes = n;
    return rc;
}

/* A run for `bytes` of text: the copy's own if it is large enough, else a new one, published before anything points to
 * it. Runs double, so that what outgrown ones waste stays below what is used; only a reset frees them. */
static int find_run(tl_offsets *t, uint32_t slot, uint32_t which, metadata_copy *copy, uint32_t bytes, tl_error *err) {
    uint32_t count;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    if (!run_ok(t, slot, which, copy->first, copy->run, count))
        copy->first = copy->run = 0;
    if (bytes <= METADATA_INLINE_BYTES || bytes <= copy->run * (uint64_t)OVERFLOW_BYTES)
        return TL_OK;
    uint32_t run = 1, first;
    while (run * OVERFLOW_BYTES < bytes)
        run *= 2;
    if (run > LARGEST_RUN)
        run = LARGEST_RUN;
    rc = offsets_make_room(t, run, &first, err);
    if (rc < 0)
        return rc;
    for (uint32_t part = 0; part < run; part++)
        overflow_fill(offsets_at(t, first + part), first + part, slot, part | (which != 0 ? OVERFLOW_COPY_1 : 0));
    offsets_publish(t, first + run);
    rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    copy->first = first;
    copy->run = run;
    return TL_OK;
}

static int store_metadata(tl_offsets *t, uint32_t slot, offset_slot *s, const uint8_t *text, uint32_t bytes,
                          tl_error *err) {
    uint8_t current[TL_OFFSETS_MAX_METADATA_BYTES];
    uint32_t current_bytes = 0;
    uint64_t word = __atomic_load_n(&s->metadata, __ATOMIC_ACQUIRE);
    if (!guard_ok(word))
        return offsets_damaged(err, slot, "the metadata sequence of an offset is damaged; run tidelog check");
    /* A damaged copy is no obstacle: the new text goes to the other one. */
    if (metadata_load(t, slot, current, &current_bytes, NULL) == TL_OK && current_bytes == bytes &&
        (bytes == 0 || memcmp(current, text, bytes) == 0))
        return TL_OK;
    uint32_t sequence = (uint32_t)word + 1;
    if (sequence == 0) /* 0 means "none"; 2 is the copy whose turn it is */
        sequence = 2;
    metadata_copy *target = &s->copies[sequence & 1], copy;
    load_words(&copy, target, COPY_WORDS);
    int rc = find_run(t, slot, sequence & 1, &copy, bytes, err);
    if (rc < 0)
        return rc;
    copy.sequence = sequence;
    copy.bytes = bytes;
    copy.zero = 0;
    copy.crc = copy_crc(slot, &copy, text);
    memset(copy.text, 0, sizeof copy.text);
    if (bytes <= METADATA_INLINE_BYTES) {
        if (bytes != 0)
            memcpy(copy.text, text, bytes);
    } else {
        for (uint32_t at = 0, part = 0; at < bytes; at += OVERFLOW_BYTES, part++) {
            uint8_t block[OVERFLOW_BYTES] = {0};
            memcpy(block, text + at, bytes - at < OVERFLOW_BYTES ? bytes - at : OVERFLOW_BYTES);
            store_words(((overflow_slot *)offsets_at(t, copy.first + part))->bytes, block, OVERFLOW_WORDS);
            TL_POINT("offsets.metadata.overflow");
            TL_YIELD();
        }
    }
    store_words(target, &copy, COPY_WORDS / 2);
    TL_POINT("offsets.metadata.half");
    TL_YIELD();
    store_words((uint64_t *)(void *)target + COPY_WORDS / 2, (const uint8_t *)&copy + COPY_WORDS / 2 * 8,
                COPY_WORDS - COPY_WORDS / 2);
    TL_POINT("offsets.metadata.filled");
    TL_YIELD();
    __atomic_store_n(&s->metadata, guarded(sequence), __ATOMIC_RELEASE);
    TL_POINT("offsets.metadata.published");
    return TL_OK;
}

int tl_offsets_set_metadata(tl_offsets *t, uint32_t slot, const void *text, size_t bytes, tl_error *err) {
    offset_slot *s;
    if (bytes > TL_OFFSETS_MAX_METADATA_BYTES)
        return tl_fail(err, TL_ETOOLARGE, "offset metadata has at most 4096 bytes", "", -1);
    if (!t->writable)
        return tl_fail(err, TL_EINVAL, "the offset table was opened read-only", TL_OFFSETS_FILE, -1);
    int rc = offset_live(t, slot, &s);
    if (rc < 0)
        return tl_fail(err, rc, "this offset slot cannot be used", TL_OFFSETS_FILE, offsets_position(slot));
    pthread_mutex_lock(&t->mutex);
    rc = store_metadata(t, slot, s, text, (uint32_t)bytes, err);
    pthread_mutex_unlock(&t->mutex);
    return rc;
}
