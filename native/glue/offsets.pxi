# Which slot of the table of committed offsets belongs to a group and a partition, and who holds its lease?
#
# Called with the GIL held; released where the catalogue's inner lock may be waited for.

cdef bint find_offset_slot(Store store, str group, object channel_id, object partition, bint create,
                           uint32_t *slot) except -1:
    """Whether there is a slot; with `create` there is one afterwards. Raises ValueError, Full, NoSpace."""
    cdef tl_store *native = store.open_native()
    cdef bytes name = group.encode("utf-8", "surrogateescape")
    cdef bytes channel = _channel_id(channel_id)
    cdef const char *name_at = name
    cdef size_t name_bytes = len(name)
    cdef const uint8_t *channel_at = <const uint8_t *>PyBytes_AS_STRING(channel)
    cdef uint32_t number = partition
    cdef tl_error err
    cdef int code
    if not 0 < name_bytes <= TL_OFFSETS_MAX_GROUP_BYTES:
        raise ValueError(f"a group's name has 1 to {TL_OFFSETS_MAX_GROUP_BYTES} bytes, not {name_bytes}")
    with nogil:
        code = tl_store_offset_slot(native, name_at, name_bytes, channel_at, number, create, slot, &err)
    if code == TL_ENOTFOUND and not create:
        return False
    if code < 0:
        fail(code, &err)
    return True


cdef str lease_holder(Store store, uint32_t slot):
    """Who holds the lease of a slot, for messages: "process 4711", or "" when nobody does any more."""
    cdef tl_offset_word word
    cdef int64_t time_ms = 0
    if tl_offsets_read(tl_store_offsets(store.native), slot, &word, &time_ms) < 0 or word.owner == 0:
        return ""
    cdef uint32_t pid
    with nogil:
        pid = tl_store_owner_pid(store.native, word.owner)
    if word.owner == tl_store_owner(store.native):
        return f"another consumer of this process ({pid})"
    return f"process {pid}"
