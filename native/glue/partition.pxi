# What can be asked of one partition, apart from sending to it and following it?
#
# A Partition may be used by any thread. Everything that may block releases the GIL; Python is called back (to unpack
# compressed batches, to report findings) only where the core holds no lock.

cdef class Partition:
    """A handle on one partition of an open store. Any method raises Closed after the store was closed, ChannelNotFound
    after the channel was dropped, Forked in a child process."""

    cdef tl_partition *native
    cdef Store store
    cdef uint32_t number
    cdef object __weakref__

    def __dealloc__(self):
        if self.native != NULL:
            with nogil:
                tl_partition_release(self.native)

    cdef tl_partition *open_native(self) except NULL:
        if self.native == NULL:
            raise TypeError("a Partition comes from Store.partition()")
        self.store.open_native()
        return self.native

    @property
    def slot(self):
        """Its place in the store's table of partitions (int)."""
        return self.number

    def bounds(self):
        """(log start offset, log end offset)."""
        cdef tl_partition *native = self.open_native()
        cdef tl_bounds found
        cdef tl_error err
        cdef int code = tl_partition_bounds(native, &found, &err)
        if code < 0:
            fail(code, &err)
        return found.log_start, found.log_end

    def stable_end(self):
        """The last stable offset: before it there is no message of a transaction that is open (int)."""
        cdef int64_t offset = -1
        cdef tl_error err
        cdef tl_partition *native = self.open_native()
        cdef int code
        with nogil:
            code = tl_partition_stable_end(native, &offset, &err)
        if code < 0:
            fail(code, &err)
        return offset

    def count_from(self, offset, /, *, uncommitted=False):
        """How many messages stand from `offset` to the last stable offset (int), without those of aborted transactions;
        `uncommitted`: to the log end, with them. Gaps in the offsets are none."""
        cdef tl_partition *native = self.open_native()
        cdef tl_error err
        cdef int64_t start = offset, found = 0
        cdef unsigned flags = TL_READ_UNCOMMITTED if uncommitted else 0
        cdef int code
        with nogil:
            code = tl_partition_count(native, start, flags, &found, &err)
        if code < 0:
            fail(code, &err)
        return found

    def tail(self):
        """The place behind the last byte appended: what sync() takes (int)."""
        return tl_partition_tail(self.open_native())

    def sync(self, tail=None, timeout=None, /):
        """Blocks until everything before `tail` (default: all of it) is on disk. `timeout`: seconds or None.

        Raises Timeout, StorageFailed, NoSpace.
        """
        cdef tl_partition *native = self.open_native()
        sync_partition(native, tl_partition_tail(native) if tail is None else <uint64_t>tail, nanoseconds(timeout))

    def trim(self, before, /):
        """Moves the log start to the offset `before` and deletes the segments below it. Raises OffsetOutOfRange."""
        cdef tl_partition *native = self.open_native()
        cdef int64_t offset = before
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_partition_trim(native, offset, &err)
        if code < 0:
            fail(code, &err)

    def retain(self, now_ms, /):
        """Deletes the segments that retention no longer keeps at the time `now_ms`; returns how many."""
        cdef tl_partition *native = self.open_native()
        cdef int64_t now = now_ms
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_partition_retain(native, now, &err)
        if code < 0:
            fail(code, &err)
        return code

    def find(self, timestamps_ms, decompress, /):
        """The first offset whose timestamp is at or past each of `timestamps_ms` (int64 array, ms since 1970); the log
        end where there is none. Returns an int64 array. `decompress`: as in Channelled. Raises Corrupt, DecodeError."""
        cdef tl_partition *native = self.open_native()
        wanted = int64_input(timestamps_ms, "timestamps")
        cdef size_t count = len(wanted)
        out = int64_array(count)
        if count == 0:
            return out
        cdef _View asked = view_of(wanted)
        cdef const int64_t *from_ = <const int64_t *>asked.at()
        cdef int64_t *to = <int64_t *>data_of(out)
        cdef _Unpacker unpacker = _Unpacker.__new__(_Unpacker)
        unpacker.decompress = decompress
        cdef void *context = <void *>unpacker
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_partition_find(native, from_, count, to, _unpack, context, &err)
        if code < 0:
            unpacker.fail(code, &err)
        return out

    def read_at(self, offsets, Channelled shared, number, /, *, uncommitted=False):
        """The messages at `offsets` (int64 array, in any order; sorted is fast) as a Batch in that order.

        `shared`, `number`: the channel and the partition number that the messages shall name.
        Raises OffsetOutOfRange naming the first offset without a message, Corrupt, DecodeError.
        """
        cdef tl_partition *native = self.open_native()
        wanted = int64_input(offsets, "offsets")
        cdef size_t count = len(wanted), failed = 0
        cdef _Chunk chunk = new_chunk([shared], [self])
        chunk.begin_run(number, 0, 0)
        if count == 0:
            return new_batch(chunk, 0, 0)
        cdef _View asked = view_of(wanted)
        cdef const int64_t *from_ = <const int64_t *>asked.at()
        cdef unsigned flags = TL_READ_UNCOMMITTED if uncommitted else 0
        cdef _Unpacker unpacker = _Unpacker.__new__(_Unpacker)
        unpacker.decompress = shared.decompress
        cdef void *context = <void *>unpacker
        cdef tl_chunk *target = &chunk.c
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_partition_read_at(native, from_, count, target, flags, _unpack, context, &failed, &err)
        if code == TL_ERANGE and unpacker.error is None:
            start, end = self.bounds()
            raise from_native(TL_ERANGE, f"partition {number} of {shared.name!r} has no message at offset "
                              f"{wanted[failed]}, and its log is [{start}, {end})", "", -1, 0, "")
        if code < 0:
            unpacker.fail(code, &err)
        return new_batch(chunk, 0, chunk.c.count)

    def describe(self):
        """Its state as int by name: log_start, log_end, max_timestamp_ms, lease, bytes, allocated_bytes, tail, synced,
        segments, first_ordinal, failed (errno of a failed sync, 0: none)."""
        cdef tl_partition *native = self.open_native()
        cdef tl_partition_info info
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_partition_describe(native, &info, &err)
        if code < 0:
            fail(code, &err)
        return info

    def sampled(self):
        """What senders have sampled of the keys of the whole channel, asked of its partition 0; None: nothing since the
        machine started. (samples, those of messages without a key, ms since 1970 when counting began,
        [(first 32 bytes of the key, its length, partition, samples at most, how many of them may be another key's)]).
        """
        cdef tl_partition *native = self.open_native()
        cdef tl_skew_view *view = <tl_skew_view *>take(1, sizeof(tl_skew_view))
        cdef tl_error err
        cdef int code
        cdef uint32_t i
        cdef tl_skew_key *key
        cdef list keys = []
        try:
            with nogil:
                code = tl_skew_look(native, view, &err)
            if code == TL_ENOTFOUND:
                return None
            if code < 0:
                fail(code, &err)
            for i in range(view.keys):
                key = &view.key[i]
                keys.append((
                    PyBytes_FromStringAndSize(<char *>key.key, min(key.key_bytes, <uint32_t>TL_SKEW_KEY_BYTES)),
                    key.key_bytes, key.partition, key.count, key.error,
                ))
            return view.samples, view.keyless, view.since_ms, keys
        finally:
            tl_os.free(view)

    def check(self, finding, progress=None, /):
        """Walks every byte of the partition, changing nothing; returns the number of findings.

        finding(file, position, what, first_offset, next_offset) is called for each; progress(bytes, batches, messages)
        once for about every MiB, with what was looked at since its last call. What they raise ends the walk's reports
        and is raised at its end.
        """
        cdef tl_partition *native = self.open_native()
        cdef _Inspection inspection = _Inspection.__new__(_Inspection)
        inspection.finding = finding
        inspection.progress = progress
        cdef _Progress seen
        memset(&seen, 0, sizeof(seen))
        seen.inspection = <void *>inspection
        cdef tl_check_report report
        report.context = &seen
        report.finding = _report_finding
        report.progress = _note_progress
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_partition_check(native, &report, &err)
            _report_progress(&seen)
        if inspection.error is not None:
            raise inspection.error
        if code < 0:
            fail(code, &err)
        return code


cdef int sync_partition(tl_partition *native, uint64_t tail, int64_t timeout_ns) except -1:
    """Blocks until everything before `tail` is on disk, looking for signals ten times a second. -1: for ever."""
    cdef tl_error err
    cdef int64_t left = timeout_ns, part
    cdef int code
    if tl_partition_is_synced(native, tail):
        return 0
    while True:
        part = SLICE_NS if left < 0 or left > SLICE_NS else left
        with nogil:
            code = tl_partition_sync(native, tail, part, &err)
        PyErr_CheckSignals()
        if code == TL_ETIMEOUT and (left < 0 or left > part):
            left = left if left < 0 else left - part
            continue
        if code < 0:
            fail(code, &err)
        return 0


cdef enum:
    SLICE_NS = 100_000_000   # how long a blocked call may keep a signal waiting


cdef int64_t nanoseconds(object timeout) except? -2:
    """A time-out (seconds, timedelta, None: for ever) as nanoseconds, -1: for ever. Raises TypeError, ValueError."""
    if timeout is None:
        return -1
    cdef double seconds
    if type(timeout) is not float and isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    try:
        seconds = timeout
    except TypeError:
        raise TypeError(f"a timeout is a number of seconds, a timedelta, or None to wait for ever, not {timeout!r}") from None
    if not seconds >= 0:
        raise ValueError(f"a timeout is 0 or more seconds, or None to wait for ever, not {timeout!r}")
    return -1 if seconds > 4e9 else <int64_t>(seconds * 1e9)


cdef class _Unpacker:
    """What the core's call back for a compressed batch needs, and what went wrong in it."""

    cdef object decompress, error

    cdef int fail(self, int code, const tl_error *err) except -1:
        if self.error is not None:
            raise self.error
        fail(code, err)


cdef int _unpack(void *context, tl_chunk *chunk, const tl_batch *batch, size_t payload_at, size_t payload_bytes,
                 tl_error *err) noexcept with gil:
    cdef _Unpacker self = <_Unpacker>context
    cdef int code
    try:
        records = self.decompress(
            tl_batch_codec(batch),
            PyBytes_FromStringAndSize(<char *>chunk.bytes + payload_at, <Py_ssize_t>payload_bytes))
        code = append_bytes(chunk, bytes(records), err)
        return code
    except BaseException as error:
        self.error = error
        return TL_EINVAL


cdef int append_bytes(tl_chunk *chunk, bytes data, tl_error *err) noexcept:
    """Puts `data` behind what the chunk holds. A status of the core's."""
    cdef size_t count = <size_t>PyBytes_GET_SIZE(data)
    cdef int code = tl_chunk_reserve(chunk, count, 0, err)
    if code >= 0:
        memcpy(chunk.bytes + chunk.used, PyBytes_AS_STRING(data), count)
        chunk.used += count
    return code
