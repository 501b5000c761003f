# How does Python enter, look at and leave a store?
#
# Every call that may block, lock or make a system call releases the GIL. A Store may be used by any thread. The native
# handle outlives close(): partitions and readers that still hold this object get TL_ECLOSED instead of a crash.

cdef bytes _channel_id(object channel_id):
    if type(channel_id) is not bytes or PyBytes_GET_SIZE(channel_id) != 16:
        raise ValueError(f"a channel id is 16 bytes, not {channel_id!r:.80}")
    return channel_id


cdef class Store:
    """One reference on the native store of a directory. Every blocking call releases the GIL.

    `Store(path, flush_interval_ms=1000, lock_timeout_ms=30000, create=True)`; durations are int milliseconds. With
    `look=True` nothing is created, repaired or changed, and whatever would change something raises ValueError.
    Raises StorageFailed, NoSpace, NotSupported (the file system), Corrupt, Locked. Any method raises Closed after
    close() and Forked in a child process.
    """

    cdef tl_store *native
    cdef bint is_closed, needs_ready
    cdef object opened_by     # number of the process; in its forked children nothing of the store can be used
    cdef object recovery_facts
    cdef object __weakref__

    def __init__(self, str path, /, *, flush_interval_ms, lock_timeout_ms, create, look=False):
        if self.native != NULL:
            raise RuntimeError("this store is open already")
        cdef tl_error err
        cdef tl_store_options options
        cdef tl_store *native = NULL
        cdef tl_recovery recovery
        cdef int state = TL_STORE_JOINED
        memset(&options, 0, sizeof(options))
        memset(&recovery, 0, sizeof(recovery))
        options.flush_interval_ms = flush_interval_ms
        options.lock_timeout_ms = lock_timeout_ms
        options.create = bool(create)
        options.look = bool(look)
        cdef bytes encoded = path.encode("utf-8", "surrogateescape")
        cdef const char *at = encoded
        if b"\0" in encoded:
            raise ValueError(f"the path {path!r} holds a NUL character")
        cdef int code
        with nogil:
            code = tl_store_open(at, &options, &native, &state, &recovery, &err)
        if code < 0:
            fail(code, &err)
        self.native = native
        self.opened_by = _getpid()
        self.needs_ready = state == TL_STORE_RECOVERED
        self.recovery_facts = {
            "clean": <bint>recovery.clean,
            "same_boot": <bint>recovery.same_boot,
            "created": <bint>recovery.created,
            "partitions": recovery.partitions,
            "scanned_partitions": recovery.scanned_partitions,
            "scanned_bytes": recovery.scanned_bytes,
            "torn_bytes": recovery.torn_bytes,
            "repaired_locks": recovery.repaired_locks,
            "failed_partitions": recovery.failed_partitions,
        }

    def __dealloc__(self):
        cdef tl_error err
        if self.native != NULL:
            with nogil:
                if not self.is_closed:
                    tl_store_close(self.native, &err)
                tl_store_free(self.native)

    cdef tl_store *open_native(self) except NULL:
        if self.native == NULL or self.is_closed:
            closed("the log was closed")
        return self.native

    @property
    def path(self):
        """The directory, absolute."""
        if self.native == NULL:
            closed("the log was closed")
        return PyUnicode_DecodeFSDefault(tl_store_path(self.native))

    @property
    def closed(self):
        """Whether this reference was closed, or the store under it."""
        return self.native == NULL or self.is_closed or not tl_store_is_open(self.native)

    @property
    def recovered(self):
        """This opener holds the gate alone and must call ready() after it has put the catalogue in order."""
        return self.needs_ready

    @property
    def recovery(self):
        """What opening found: flags and counts by name, all zero when others had the store open already."""
        return dict(self.recovery_facts)

    @property
    def generation(self):
        """Changes whenever channels were created or dropped, here or in another process (int)."""
        return tl_store_generation(self.open_native())

    def ready(self):
        """Lets others in, after recovery. Raises StorageFailed, NoSpace."""
        cdef tl_store *native = self.open_native()
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_ready(native, &err)
        if code < 0:
            fail(code, &err)
        self.needs_ready = False

    def close(self):
        """Gives the reference back and wakes blocked calls, which raise Closed. Calling it again does nothing.

        Raises StorageFailed or NoSpace when the last sync or checkpoint failed; the reference is gone nevertheless.
        """
        if self.native == NULL or self.is_closed:
            return
        self.is_closed = True
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_close(self.native, &err)
        if code < 0 and code != TL_EFORKED:
            fail(code, &err)

    def lock_catalogue(self):
        """Takes the lock under which channels are created and dropped, for this thread. Raises Locked."""
        cdef tl_store *native = self.open_native()
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_catalogue_lock(native, &err)
        if code < 0:
            fail(code, &err)

    def unlock_catalogue(self):
        """Gives the catalogue lock back."""
        if self.native != NULL:
            tl_store_catalogue_unlock(self.native)

    def bump_generation(self):
        """Tells every process that the catalogue changed."""
        tl_store_bump_generation(self.open_native())

    def create_partitions(
        self,
        directories,
        channel_id,
        /,
        *,
        segment_bytes,
        segment_ms,
        retention_ms,
        retention_bytes,
        retention_consumed,
        max_message_bytes,
        dedup_count=100_000,
        dedup_window_ms=600_000,
        first_partition=0,
    ):
        """Creates partitions first_partition, first_partition + 1, ... of a channel in these directories, durably, all
        or none; returns their slots.

        `channel_id`: its 16 bytes; sizes in bytes and durations in ms as int, -1: no limit. The caller holds the
        catalogue lock. Raises Full, NoSpace, StorageFailed, ValueError.
        """
        cdef tl_store *native = self.open_native()
        cdef bytes channel = _channel_id(channel_id)
        cdef size_t i, count = len(directories)
        cdef uint32_t first = first_partition
        cdef tl_partition_config common
        _fill_config(&common, segment_bytes, segment_ms, retention_ms, retention_bytes, retention_consumed,
                     max_message_bytes, dedup_count, dedup_window_ms)
        memcpy(common.channel, PyBytes_AS_STRING(channel), 16)
        cdef tl_error err
        cdef int code
        cdef bytes name
        cdef uint32_t *slots = NULL
        cdef tl_partition_config *configs = <tl_partition_config *>take(count, sizeof(tl_partition_config))
        try:
            slots = <uint32_t *>take(count, sizeof(uint32_t))
            for i in range(count):
                name = directories[i].encode("utf-8", "surrogateescape")
                if not 0 < len(name) < 264:
                    raise ValueError(f"the directory {directories[i]!r} must have 1 to 263 bytes")
                configs[i] = common
                configs[i].partition = first + <uint32_t>i
                memcpy(configs[i].directory, PyBytes_AS_STRING(name), len(name) + 1)
            with nogil:
                code = tl_store_create_partitions(native, configs, count, slots, &err)
            if code < 0:
                fail(code, &err)
            return [slots[i] for i in range(count)]
        finally:
            tl_os.free(configs)
            tl_os.free(slots)

    def configure_partitions(
        self,
        slots,
        /,
        *,
        segment_bytes,
        segment_ms,
        retention_ms,
        retention_bytes,
        retention_consumed,
        max_message_bytes,
        dedup_count=100_000,
        dedup_window_ms=600_000,
    ):
        """Changes the configuration of partitions, durably; units as in create_partitions."""
        cdef tl_store *native = self.open_native()
        cdef tl_partition_config common
        _fill_config(&common, segment_bytes, segment_ms, retention_ms, retention_bytes, retention_consumed,
                     max_message_bytes, dedup_count, dedup_window_ms)
        cdef tl_error err
        cdef int code
        cdef size_t count = len(slots)
        cdef uint32_t *numbers = _slots_of(slots)
        with nogil:
            code = tl_store_configure_partitions(native, numbers, count, &common, &err)
        tl_os.free(numbers)
        if code < 0:
            fail(code, &err)

    def drop_partitions(self, slots, /):
        """Marks partitions dropped and deletes their files. Whoever uses them then gets ChannelNotFound."""
        cdef tl_store *native = self.open_native()
        cdef tl_error err
        cdef int code
        cdef size_t count = len(slots)
        cdef uint32_t *numbers = _slots_of(slots)
        with nogil:
            code = tl_store_drop_partitions(native, numbers, count, &err)
        tl_os.free(numbers)
        if code < 0:
            fail(code, &err)

    def partitions(self):
        """(slot, directory, channel id, partition number) of every slot in use."""
        cdef tl_store *native = self.open_native()
        cdef list found = []
        tl_store_each_partition(native, <void *>found, _note_partition)
        return found

    def partition(self, slot, channel_id, /):
        """A handle on the partition in `slot`. Raises ChannelNotFound when the slot now belongs to another channel."""
        cdef tl_store *native = self.open_native()
        cdef bytes channel = _channel_id(channel_id)
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(channel)
        cdef uint32_t number = slot
        cdef Partition handle = Partition.__new__(Partition)
        cdef tl_partition *found = NULL
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_partition(native, number, at, &found, &err)
        if code < 0:
            fail(code, &err)
        handle.native = found
        handle.store = self
        handle.number = number
        return handle

    def sync(self):
        """Blocks until everything appended so far is on disk. Raises StorageFailed, NoSpace."""
        cdef tl_store *native = self.open_native()
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_sync(native, &err)
        if code < 0:
            fail(code, &err)

    def sync_offsets(self):
        """Blocks until the committed offsets are on disk. Raises StorageFailed, NoSpace."""
        cdef tl_store *native = self.open_native()
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_sync_offsets(native, &err)
        if code < 0:
            fail(code, &err)

    def check(self, finding, /):
        """Reads the checkpoint files and the table of offsets, changing nothing; returns the number of findings.

        finding(file, position, what, -1, -1) is called for each.
        """
        cdef tl_store *native = self.open_native()
        cdef _Inspection inspection = _Inspection.__new__(_Inspection)
        inspection.finding = finding
        inspection.progress = None
        cdef _Progress seen
        memset(&seen, 0, sizeof(seen))
        seen.inspection = <void *>inspection
        cdef tl_check_report report
        report.context = &seen
        report.finding = _report_finding
        report.progress = NULL
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_check(native, &report, &err)
        if inspection.error is not None:
            raise inspection.error
        if code < 0:
            fail(code, &err)
        return code

    def housekeep(self):
        """One round of flushing, checkpointing and retention now. Raises StorageFailed, NoSpace."""
        cdef tl_store *native = self.open_native()
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_housekeep(native, &err)
        if code < 0:
            fail(code, &err)

    def processes(self):
        """(slot, pid, is this process, started ms) of every process that has the store open."""
        cdef tl_store *native = self.open_native()
        cdef size_t i, count, room = 512
        cdef tl_process_info *found = <tl_process_info *>take(room, sizeof(tl_process_info))
        with nogil:
            count = tl_store_processes(native, found, room)
        result = [(found[i].slot, found[i].pid, <bint>found[i].self, found[i].started_ms)
                  for i in range(min(count, room))]
        tl_os.free(found)
        return result

    def committed(self, str group, channel_id, partition, /):
        """The committed offset (of the next message wanted), None if there is none."""
        cdef tl_offset_word word
        cdef uint32_t slot
        cdef int64_t time_ms = 0
        if not find_offset_slot(self, group, channel_id, partition, False, &slot):
            return None
        cdef int code = tl_offsets_read(tl_store_offsets(self.native), slot, &word, &time_ms)
        if code == TL_EDROPPED:
            return None
        if code < 0:
            self.fail_slot(code, slot)
        return word.offset if word.offset >= 0 else None

    def offsets(self):
        """(group, channel id, partition, offset or -1, commit time ms, pid of the live owner or 0) of every slot."""
        cdef tl_store *native = self.open_native()
        cdef tl_offsets *table = tl_store_offsets(native)
        cdef tl_offset_view view
        cdef tl_error err
        cdef uint32_t cursor = 0, pid
        cdef char name[TL_OFFSETS_MAX_GROUP_BYTES]
        cdef size_t name_bytes
        cdef int code
        cdef list found = []
        while True:
            code = tl_offsets_next(table, &cursor, &view, &err)
            if code == 0:
                return found
            if code < 0:
                fail(code, &err)
            code = tl_offsets_group_name(table, view.group, name, &name_bytes, &err)
            if code == TL_EDROPPED:
                continue
            if code < 0:
                fail(code, &err)
            pid = 0
            if view.word.owner != 0:
                with nogil:
                    if tl_store_owner_alive(native, view.word.owner):
                        pid = tl_store_owner_pid(native, view.word.owner)
            found.append((
                PyUnicode_DecodeUTF8(name, <Py_ssize_t>name_bytes, "surrogateescape"),
                PyBytes_FromStringAndSize(<char *>view.channel_id, 16),
                view.partition, view.word.offset if view.word.offset >= 0 else -1, view.time_ms, pid,
            ))

    def offset_slot(self, str group, channel_id, partition, create, /):
        """The number of a group's slot for a partition (int), by which plans name it; -1: there is none. With `create`
        there is one afterwards. Raises ValueError, Full, NoSpace."""
        cdef uint32_t slot
        return slot if find_offset_slot(self, group, channel_id, partition, bool(create), &slot) else -1

    def group_members(self, str group, /):
        """(version, version of the installed plan, members as from Membership.members()) of a group, whoever asks;
        (0, 0, []) of one that has had no members in this boot."""
        cdef tl_store *native = self.open_native()
        cdef bytes name = group.encode("utf-8", "surrogateescape")
        cdef const char *at = name
        cdef size_t size_bytes = len(name)
        cdef uint32_t number = 0
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_offsets_group(tl_store_offsets(native), at, size_bytes, False, &number, &err)
        if code == TL_ENOTFOUND:
            return 0, 0, []
        if code < 0:
            fail(code, &err)
        return view_group(native, number)

    def group_targets(self, str group, /):
        """(channel id, partition, index of the member it is assigned to) of every partition that a group has read and
        that the plan installed last gives to somebody, whoever asks."""
        cdef tl_store *native = self.open_native()
        cdef tl_offsets *table = tl_store_offsets(native)
        cdef bytes name = group.encode("utf-8", "surrogateescape")
        cdef const char *at = name
        cdef size_t size_bytes = len(name)
        cdef uint32_t number = 0, cursor = 0
        cdef tl_offset_view view
        cdef tl_offset_hints hints
        cdef tl_error err
        cdef int code
        cdef list found = []
        with nogil:
            code = tl_offsets_group(table, at, size_bytes, False, &number, &err)
        if code == TL_ENOTFOUND:
            return found
        while code >= 0:
            code = tl_offsets_next(table, &cursor, &view, &err)
            if code == 0:
                return found
            if (code > 0 and view.group == number and tl_offsets_hints(table, view.slot, &hints) == TL_OK
                    and hints.assigned != TL_OFFSETS_NOBODY):
                found.append((PyBytes_FromStringAndSize(<char *>view.channel_id, 16), view.partition, hints.assigned))
        fail(code, &err)

    def set_offset(self, str group, channel_id, partition, offset, /, *, force=False):
        """Stores a committed offset without a lease (-1 removes it). Raises Locked while a consumer holds the lease,
        unless `force`: then that consumer's next commit wins."""
        cdef int64_t wanted = offset
        cdef bint forced = force
        cdef uint32_t slot
        if wanted < -1:
            raise ValueError(f"the offset {wanted} is below -1 (which removes a commit)")
        find_offset_slot(self, group, channel_id, partition, True, &slot)
        cdef int code = tl_offsets_set(tl_store_offsets(self.native), slot, wanted, tl_os.now_ms(), forced)
        if code == TL_EAGAIN:
            fail_plain(TL_ELOCKED, f"the offset of group {group!r} in partition {partition} belongs to a running "
                       f"consumer", lease_holder(self, slot))
        if code < 0:
            self.fail_slot(code, slot)

    def forget_channel(self, channel_id, /):
        """Removes every committed offset of a channel; the caller holds the catalogue lock."""
        cdef tl_store *native = self.open_native()
        cdef bytes channel = _channel_id(channel_id)
        cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(channel)
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_store_forget_channel(native, at, &err)
        if code < 0:
            fail(code, &err)

    def forget_group(self, str group, /):
        """Removes a group and its committed offsets; the caller holds the catalogue lock. Raises ChannelNotFound."""
        cdef tl_store *native = self.open_native()
        cdef bytes name = group.encode("utf-8", "surrogateescape")
        cdef const char *at = name
        cdef size_t size_bytes = len(name)
        cdef uint32_t number = 0
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_offsets_group(tl_store_offsets(native), at, size_bytes, False, &number, &err)
            if code >= 0:
                code = tl_offsets_forget_group(tl_store_offsets(native), number, &err)
        if code < 0:
            fail(code, &err)

    cdef int fail_slot(self, int code, uint32_t slot) except -1:
        """Raises for a status of the offset table that comes without an error record."""
        cdef tl_error err
        if code == TL_ECORRUPT and tl_offsets_inspect(tl_store_offsets(self.native), slot, &err) == TL_ECORRUPT:
            fail(code, &err)
        fail_plain(code, f"slot {slot} of the table of committed offsets")
