/* Which places of the offset table are wrong?
 *
 * Imports offsets_file.h, os.h. Any thread; reads beside live writers and changes nothing. A word of an offset slot has
 * no redundancy (all 16 bytes are the compare-and-swap), so its bits, the holder and the times are data, whatever they
 * say. */
#include "offsets_file.h"

#include <stdio.h>

static bool all_zero(const void *p, size_t bytes) {
    const uint8_t *at = p;
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != 0)
            return false;
    return true;
}

static int check_group(const tl_offsets *t, uint32_t slot, uint32_t count, uint32_t *state, tl_error *err) {
    uint8_t name[TL_OFFSETS_MAX_GROUP_BYTES];
    uint32_t bytes;
    return group_load(t, slot, count, name, &bytes, state, err);
}

static int check_offset(const tl_offsets *t, uint32_t slot, uint32_t count, uint32_t *state, tl_error *err) {
    offset_slot fixed;
    uint32_t bytes, group_state;
    int rc = offset_load(t, slot, count, &fixed, err);
    if (rc < 0)
        return rc;
    *state = fixed.state;
    const offset_slot *s = offsets_at(t, slot);
    if (!assignment_ok(__atomic_load_n(&s->assigned, __ATOMIC_RELAXED)))
        return offsets_damaged(err, slot, "the assignment of an offset slot is damaged");
    if (check_group(t, fixed.group, count, &group_state, NULL) < 0)
        return offsets_damaged(err, slot, "an offset slot belongs to a group that is damaged or none");
    rc = metadata_load(t, slot, NULL, &bytes, err);
    return rc == TL_EAGAIN ? TL_OK : rc; /* whole every time, it only keeps changing */
}

static int check_overflow(const tl_offsets *t, uint32_t slot, uint32_t count, tl_error *err) {
    overflow_slot head;
    memcpy(&head, offsets_at(t, slot), offsetof(overflow_slot, bytes));
    if (head.crc != overflow_crc(slot, &head) || head.of >= slot)
        return offsets_damaged(err, slot, "an overflow slot of the offset table is damaged");
    uint32_t kind = slot_kind(t, head.of);
    if (head.of >= count || (kind != KIND_GROUP && kind != KIND_OFFSET))
        return offsets_damaged(err, slot, "an overflow slot of the offset table belongs to no group and no offset");
    return TL_OK;
}

static int check_slot(const tl_offsets *t, uint32_t slot, uint32_t count, uint32_t *kind, uint32_t *state,
                      tl_error *err) {
    *kind = slot_kind(t, slot);
    *state = STATE_LIVE;
    switch (*kind) {
    case KIND_GROUP:
        return check_group(t, slot, count, state, err);
    case KIND_OFFSET:
        return check_offset(t, slot, count, state, err);
    case KIND_OVERFLOW:
        return check_overflow(t, slot, count, err);
    default:
        return offsets_damaged(err, slot, "a slot of the offset table is of no known kind");
    }
}

int tl_offsets_inspect(const tl_offsets *t, uint32_t slot, tl_error *err) {
    uint32_t count, kind, state;
    int rc = offsets_count(t, &count, err);
    if (rc < 0)
        return rc;
    if (slot >= count)
        return tl_fail(err, TL_EINVAL, "no such slot number", TL_OFFSETS_FILE, -1);
    rc = check_slot(t, slot, count, &kind, &state, err);
    if (rc == TL_OK && state == STATE_FORGOTTEN)
        return tl_fail(err, TL_EDROPPED, "this group or partition was deleted; look it up again", TL_OFFSETS_FILE,
                       offsets_position(slot));
    return rc;
}

/* Two live slots for one key would give each process the one that it met first. */
static int check_unique(tl_offsets *t, uint32_t slot, uint32_t kind, uint32_t count, tl_error *err) {
    uint32_t first = slot;
    int rc = TL_OK;
    if (kind == KIND_GROUP) {
        uint8_t name[TL_OFFSETS_MAX_GROUP_BYTES];
        uint32_t bytes, state;
        rc = group_load(t, slot, count, name, &bytes, &state, err);
        if (rc == TL_OK)
            rc = tl_offsets_group(t, name, bytes, false, &first, err);
    } else if (kind == KIND_OFFSET) {
        offset_slot fixed;
        rc = offset_load(t, slot, count, &fixed, err);
        if (rc == TL_OK)
            rc = tl_offsets_slot(t, fixed.group, fixed.channel_id, fixed.partition, false, &first, err);
    }
    if (rc == TL_ENOMEM)
        return rc;
    /* Forgotten meanwhile, or of a forgotten group, is not found; damage has been reported where it is. */
    if (rc < 0 || first == slot)
        return TL_OK;
    return offsets_damaged(err, slot, "a second slot for the same group or partition");
}

int tl_offsets_check(int dir, void (*each)(void *context, const tl_error *problem), void *context,
                     tl_offsets_report *report, tl_error *err) {
    tl_offsets *t;
    tl_error problem;
    memset(report, 0, sizeof *report);
    int rc = tl_offsets_open(dir, TL_OFFSETS_READ_ONLY, &t, err);
    if (rc < 0)
        return rc;
    tl_stat st;
    rc = tl_os->stat(t->fd, &st);
    if (rc < 0) {
        rc = tl_fail_sys(err, rc, "cannot read the size of the offset table", TL_OFFSETS_FILE);
        goto done;
    }
    report->file_bytes = st.size_bytes;
    uint32_t count;
    rc = offsets_count(t, &count, err);
    if (rc < 0)
        goto done;
    report->slots = count;
    const file_header *header = offsets_header(t);
    if (!all_zero(header->zero, sizeof header->zero) ||
        !all_zero(t->map + sizeof *header, OFFSETS_HEADER_BYTES - sizeof *header)) {
        report->problems++;
        tl_fail(&problem, TL_ECORRUPT, "reserved bytes of the header are not zero", TL_OFFSETS_FILE,
                (int64_t)sizeof *header);
        if (each != NULL)
            each(context, &problem);
    }
    for (uint32_t slot = 0; slot < count; slot++) {
        uint32_t kind, state;
        int found = check_slot(t, slot, count, &kind, &state, &problem);
        if (found == TL_OK && state == STATE_LIVE)
            found = check_unique(t, slot, kind, count, &problem);
        if (found == TL_ENOMEM) {
            rc = tl_fail(err, TL_ENOMEM, "no memory for the index of the offset table", TL_OFFSETS_FILE, -1);
            break;
        }
        if (found < 0) {
            report->problems++;
            if (each != NULL)
                each(context, &problem);
            continue;
        }
        report->groups += kind == KIND_GROUP && state == STATE_LIVE;
        report->offsets += kind == KIND_OFFSET && state == STATE_LIVE;
        report->overflow += kind == KIND_OVERFLOW;
        report->forgotten += state == STATE_FORGOTTEN;
    }
done:
    tl_offsets_close(t);
    return rc;
}
