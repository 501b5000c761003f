/* What can still be known of a complete segment when its entry in the file of seals is damaged?
 *
 * Imports handles.h. Callable from any thread; makes system calls. The names of the segment files say where each begins, and
 * ordinals count them down from the active one. Length and counts are those of the trimmed files. What only the seal knew
 * (running header CRC, newest timestamp) stays unknown: readers need neither, `check` reports the entry. */
#include "handles.h"

#include <fcntl.h>

static uint64_t file_bytes(tl_partition *partition, int64_t base, const char *suffix) {
    char path[360];
    tl_stat stat;
    tl_segment_path(partition, base, suffix, path);
    int fd = tl_os->open(partition->store->dir, path, O_RDONLY, 0);
    uint64_t bytes = fd >= 0 && tl_os->stat(fd, &stat) == 0 ? stat.size_bytes : 0;
    if (fd >= 0)
        tl_os->close(fd);
    return bytes;
}

int tl_seals_guess(tl_partition *partition, uint32_t ordinal, tl_seal *out, tl_error *err) {
    uint32_t active = tl_place_ordinal(tl_partition_tail(partition));
    int64_t active_base = 0;
    int status = tl_segment_base(partition, active, &active_base, err);
    if (status < 0 || ordinal >= active)
        return status < 0 ? status
                          : tl_fail(err, TL_ENOTFOUND, "a segment is not complete yet", partition->cold->directory, -1);
    tl_segment_files files;
    status = tl_segment_list(partition, ".log", &files, err);
    size_t complete = 0;
    while (complete < files.count && files.bases[complete] < active_base)
        complete++;
    if (status == TL_OK && complete < active - ordinal)
        status = tl_fail(err, TL_ENOTFOUND, "a segment file is missing", partition->cold->directory, -1);
    if (status == TL_OK) {
        int64_t base = files.bases[complete - (active - ordinal)];
        uint64_t bytes = file_bytes(partition, base, ".log");
        memset(out, 0, sizeof *out);
        out->base_offset = base;
        out->end_offset = -1;
        out->max_timestamp_ms = INT64_MAX; /* searches look into it */
        out->length = bytes > TL_MAX_SEGMENT_BYTES ? TL_MAX_SEGMENT_BYTES : (uint32_t)bytes;
        bytes = file_bytes(partition, base, ".index");
        out->index_entries = bytes > TL_INDEX_MAX_BYTES ? 0 : (uint32_t)bytes / TL_INDEX_ENTRY_BYTES;
        bytes = file_bytes(partition, base, ".timeindex");
        out->time_entries = bytes > TL_INDEX_TIME_MAX_BYTES ? 0 : (uint32_t)bytes / TL_INDEX_TIME_ENTRY_BYTES;
    }
    tl_os->free(files.bases);
    return status;
}
