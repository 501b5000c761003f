/* How does the file of the active segment become longer, and when are its pages there to be written to?
 *
 * Imports handles.h. What goes through the map is made ready by zeros written at the end of the file, in bites: the kernel
 * takes them in large pieces, where a fault of a page that is only allocated costs six times as much and a sync half as
 * much again. What goes through the file needs no pages: for it, files are allocated by chunks that double. `allocated` and
 * `populated` only rise; a file that becomes shorter is no active segment any more. */
#include "handles.h"

#include <errno.h>
#include <fcntl.h>

#define BITE_LEAST (64u << 10)
#define BITE_MOST (256u << 10) /* 40 us under the lock of the partition */
#define SPINS 4000             /* 50 to 200 us */

static uint32_t clamp(uint32_t value, uint32_t least, uint32_t most) {
    return value < least ? least : value > most ? most : value;
}

void tl_segment_raise(uint32_t *mark, uint32_t to) {
    uint32_t seen = __atomic_load_n(mark, __ATOMIC_RELAXED);
    while (seen < to && !__atomic_compare_exchange_n(mark, &seen, to, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        continue;
}

uint32_t tl_segment_limit(const tl_segment *segment) {
    uint64_t limit = tl_page_up(__atomic_load_n(&segment->partition->cold->segment_bytes, __ATOMIC_RELAXED));
    return (uint32_t)(limit < segment->map_bytes ? limit : segment->map_bytes);
}

/* Of a seeded bug: where the end was a moment ago. */
static int zeros_at(int fd, uint64_t at, uint64_t bytes) {
    static const uint8_t zeros[TL_PAGE];
    int64_t status = 0;
    for (uint64_t done = 0; done < bytes && status >= 0; done += TL_PAGE)
        status = tl_os->pwrite(fd, zeros, TL_PAGE, at + done);
    return status < 0 ? (int)status : 0;
}

/* Other processes make the file longer as well, and a roll of theirs may cut it below us; then we have no business here. */
int tl_segment_lengthen(tl_segment *segment, int fd, uint32_t until) {
    tl_stat stat;
    int status = tl_os->stat(fd, &stat);
    if (status < 0)
        return status;
    uint64_t bytes = stat.size_bytes;
    TL_BETWEEN();
    if (bytes / TL_PAGE * TL_PAGE < until) {
        uint64_t more = tl_page_up(until) - bytes;
        status = TL_BUG(ZEROS_AT_A_PLACE) ? zeros_at(fd, bytes, more) : tl_os->append_zeros(fd, more);
        if (status < 0)
            return status;
        bytes += more;
    }
    tl_segment_raise(&segment->allocated, (uint32_t)(bytes < segment->map_bytes ? bytes / TL_PAGE * TL_PAGE : segment->map_bytes));
    return 0;
}

static int too_far(const tl_segment *segment, uint32_t until, tl_error *err) {
    char path[360];
    tl_segment_path(segment->partition, segment->base_offset, ".log", path);
    return tl_fail(err, TL_ETOOLARGE, "a batch does not fit into a segment", path, until);
}

int tl_segment_allocate(tl_segment *segment, uint32_t until, tl_error *err) {
    tl_partition *partition = segment->partition;
    uint32_t allocated = __atomic_load_n(&segment->allocated, __ATOMIC_ACQUIRE);
    if (until > segment->map_bytes)
        return too_far(segment, until, err);
    if (until <= allocated)
        return TL_OK;
    uint64_t target = (uint64_t)allocated + clamp(allocated, TL_CHUNK_FIRST, TL_CHUNK_MOST);
    if (target > tl_segment_limit(segment))
        target = tl_segment_limit(segment);
    if (target < until)
        target = tl_page_up(until);
    int fd = -1, status = tl_segment_descriptor(partition, segment, &fd, err);
    if (status < 0)
        return status;
    status = tl_os->fallocate(fd, allocated, target - allocated);
    if (status == -ENOSPC || status == -EDQUOT) { /* no room for growing ahead: take what this batch needs */
        target = tl_page_up(until);
        status = tl_os->fallocate(fd, allocated, target - allocated);
    }
    if (fd != segment->fd)
        tl_os->close(fd);
    if (status < 0) {
        char path[360];
        tl_segment_path(partition, segment->base_offset, ".log", path);
        return tl_fail_sys(err, status, "no space can be allocated for a segment", path);
    }
    TL_POINT("segment.extended");
    tl_segment_raise(&segment->allocated, (uint32_t)target);
    return TL_OK;
}

/* Fails where there is no room for a whole bite, or no such call: then as much is allocated as is needed. */
static void lengthen_by_a_bite(tl_segment *segment, uint32_t until) {
    uint64_t target = (uint64_t)__atomic_load_n(&segment->allocated, __ATOMIC_RELAXED);
    target += clamp((uint32_t)target, BITE_LEAST, BITE_MOST);
    if (target > tl_segment_limit(segment))
        target = tl_segment_limit(segment);
    int fd = -1;
    if (target < until)
        target = until;
    if (tl_segment_descriptor(segment->partition, segment, &fd, NULL) < 0)
        return;
    (void)tl_segment_lengthen(segment, fd, (uint32_t)target);
    if (fd != segment->fd)
        tl_os->close(fd);
    TL_POINT("segment.lengthened");
}

/* The kernel lets one of us at the file at a time, and whoever sleeps for it gets it last: better wait for a bite here. The
 * other one may have lost its core, so not for long. */
bool tl_segment_wait_ready(const tl_segment *segment, const bool *other_is_at_it, uint32_t until) {
    for (int spins = 0; spins < SPINS && __atomic_load_n(other_is_at_it, __ATOMIC_ACQUIRE); spins++) {
        if (__atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE) >= until)
            return true;
        tl_cpu_relax();
    }
    return false;
}

static int make_ready(tl_segment *segment, uint32_t until, tl_error *err) {
    if (until > __atomic_load_n(&segment->allocated, __ATOMIC_ACQUIRE))
        lengthen_by_a_bite(segment, until);
    int status = tl_segment_allocate(segment, until, err);
    uint32_t populated = __atomic_load_n(&segment->populated, __ATOMIC_ACQUIRE);
    if (status < 0 || until <= populated)
        return status;
    /* Of a segment that was found, nothing is populated by us. What stands before the tail must not be: faulting it in for
     * writing takes time and makes the disk write all of it again. */
    uint64_t tail = __atomic_load_n(&segment->partition->hot->tail, __ATOMIC_RELAXED);
    if (tl_place_ordinal(tail) == segment->ordinal && tl_place_position(tail) > populated)
        populated = tl_place_position(tail);
    uint64_t target = tl_page_up((uint64_t)until + clamp(until, 4 * TL_PAGE, BITE_MOST));
    uint32_t allocated = __atomic_load_n(&segment->allocated, __ATOMIC_ACQUIRE), from = populated / TL_PAGE * TL_PAGE;
    if (target > allocated)
        target = allocated;
    status = tl_os->populate(segment->map + from, (size_t)(target - from), true);
    if (status < 0) {
        char path[360];
        tl_segment_path(segment->partition, segment->base_offset, ".log", path);
        return status == -EFAULT ? tl_fail(err, TL_EBUS, "pages of a segment cannot be written", path, from)
                                 : tl_fail_sys(err, status, "pages of a segment cannot be faulted in", path);
    }
    tl_segment_raise(&segment->populated, (uint32_t)target);
    return TL_OK;
}

int tl_segment_make_ready(tl_segment *segment, uint32_t until, tl_error *err) {
    if (until > segment->map_bytes)
        return too_far(segment, until, err);
    if (tl_segment_wait_ready(segment, &segment->prefault_runs, until))
        return TL_OK;
    __atomic_store_n(&segment->writer_grows, true, __ATOMIC_RELEASE);
    int status = make_ready(segment, until, err);
    __atomic_store_n(&segment->writer_grows, false, __ATOMIC_RELEASE);
    return status;
}
