# How is a partition's configuration handed to the core and read back?
#
# Called with the GIL held. Sizes are bytes, durations milliseconds, -1 stands for "no limit".

cdef int _fill_config(
    tl_partition_config *config,
    object segment_bytes,
    object segment_ms,
    object retention_ms,
    object retention_bytes,
    object retention_consumed,
    object max_message_bytes,
    object dedup_count,
    object dedup_window_ms,
) except -1:
    memset(config, 0, sizeof(tl_partition_config))
    config.segment_bytes = segment_bytes
    config.segment_ms = segment_ms
    config.retention_ms = retention_ms
    config.retention_bytes = retention_bytes
    config.retention_consumed = bool(retention_consumed)
    config.max_message_bytes = max_message_bytes
    config.id_count = dedup_count
    config.id_age_ms = dedup_window_ms
    return 0


cdef uint32_t *_slots_of(object slots) except NULL:
    """The slot numbers as an array that the caller frees."""
    cdef size_t i, count = len(slots)
    cdef uint32_t *numbers = <uint32_t *>take(count, sizeof(uint32_t))
    try:
        for i in range(count):
            numbers[i] = slots[i]
    except BaseException:
        tl_os.free(numbers)
        raise
    return numbers


cdef int _note_partition(void *context, uint32_t slot, const tl_partition_config *config) noexcept with gil:
    try:
        (<list>context).append((
            slot,
            PyUnicode_DecodeFSDefault(config.directory),
            PyBytes_FromStringAndSize(<const char *>config.channel, 16),
            config.partition,
        ))
    except MemoryError:
        return TL_ENOMEM
    return 0
