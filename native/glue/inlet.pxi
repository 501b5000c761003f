# How do messages that are ready get into one partition?
#
# The part of a sender that knows neither Python values nor other partitions: it appends, compresses, and asks for what is in
# the log already. Called with the GIL held, by any thread.
#
# Small appends keep the GIL and only try (TL_APPEND_TRY); anything that has to wait, or is larger than
# RELEASE_FROM_BYTES, runs without the GIL on memory that the caller keeps alive.

cdef enum:
    PATIENCE_NS = 1_000_000      # so long a sender that never waits tries to get a lock
    NAP_NS = 20_000
    THROUGH_FROM = 32            # messages; a system call for fewer costs more than the pages that the sync cleans


class WouldBlock(Exception):
    """A sender that never waits would have had to. Its argument is the partition it had chosen: the same call with
    `partition=`, on a thread that may wait, does it."""


cdef class _Inlet:
    cdef Store store
    cdef list handles
    cdef tl_partition **natives
    cdef uint32_t partitions     # 0: not attached
    cdef Channelled shared
    cdef bint synced
    cdef object compress
    cdef tl_batch_spec spec
    cdef bint never_waits        # WouldBlock instead of waiting, for callers that must not
    cdef Named named             # None: messages carry no producer
    cdef tl_producing producing  # as whom, where `named` is one
    cdef _Transacting transacting  # the transaction of `named` that everything sent is part of, or None
    cdef bint through            # appends of many messages go through the file: a sync follows
    cdef _Unpacker unpacker      # None until ids are looked for

    cdef int check_open(self) except -1:
        if self.partitions == 0:
            raise TypeError("this sender is not attached to a channel")
        if self.store.is_closed:
            closed(f"the log of the channel {self.shared.name!r} was closed")
        return 0

    def _begin_at(self, sequence, /):
        """Of a named producer: the sequence of the next message sent, where the same messages are sent again; -1: the one
        that follows. What is sent then counts on from it. One thread at a time."""
        self.producing.sequence = sequence

    cdef inline int check_sender(self) except -1:
        """Whether the producer may send here now: in the transaction that this sender was made for, or in none."""
        if self.transacting is None:
            if self.named.current is not None:
                self.named.check()
        elif self.transacting.state != TRANSACTION_OPEN:
            self.transacting.refuse()
        else:
            self.producing.epoch = self.transacting.native.epoch
        return 0

    cdef inline void prepare(self, tl_append *what) noexcept:
        memset(what, 0, sizeof(tl_append))
        if self.named is not None:
            what.producing = &self.producing

    cdef inline bint may_repeat(self) noexcept:
        """Whether messages may be in the log already, so that where each one stands must be asked."""
        return self.producing.sequence >= 0

    cdef int look_for(self, tl_append *what, const tl_message_id *ids, int64_t *offsets, uint8_t *duplicates) except -1:
        """The messages of `what` have these ids; NULL: none."""
        what.offsets = offsets
        what.duplicates = duplicates
        if ids == NULL:
            return 0
        what.ids = ids
        if self.unpacker is None:
            self.unpacker = _Unpacker.__new__(_Unpacker)
            self.unpacker.decompress = self.shared.decompress
        what.unpack = _unpack_for_ids
        what.unpack_context = <void *>self.unpacker
        return 0

    cdef int append(self, uint32_t number, const tl_append *what, bint small, tl_appended *result) except -1:
        """Everything in `what` to one partition. On failure the exception says how many messages are in."""
        cdef tl_partition *native = self.natives[number]
        cdef bint many = not small or (what.count >= THROUGH_FROM and not self.never_waits)
        cdef bint through = self.synced or (self.through and many)
        cdef unsigned flags = TL_APPEND_THROUGH_FILE if through else 0
        cdef tl_error err
        cdef int code = TL_EAGAIN
        cdef int64_t patience = -1
        if self.named is not None:
            self.check_sender()
        if small and not through:
            code = tl_partition_append(native, what, TL_APPEND_TRY, result, &err)
            while code == TL_EAGAIN and self.never_waits:
                self.be_patient(number, &patience)
                code = tl_partition_append(native, what, TL_APPEND_TRY, result, &err)
        elif self.never_waits:
            raise WouldBlock(number)
        if code == TL_EAGAIN:
            result.base_offset = result.next_offset = 0
            with nogil:
                code = tl_partition_append(native, what, flags, result, &err)
        if code >= 0 and self.producing.sequence >= 0:
            if what.ids != NULL and result.duplicates > 0:
                self.producing.sequence = -1  # what was left out has used up none
            else:
                self.producing.sequence = tl_sequence_after(self.producing.sequence, <int64_t>what.count)
        if code < 0:
            try:
                if self.unpacker is not None and self.unpacker.error is not None:
                    error_inside, self.unpacker.error = self.unpacker.error, None
                    raise error_inside
                fail(code, &err)
            except Exception as error:
                if result.next_offset > result.base_offset:
                    error.add_note(f"{result.next_offset - result.base_offset} of the messages for partition {number} "
                                   f"are in the log, from offset {result.base_offset} on")
                raise
        return 0

    cdef int be_patient(self, uint32_t number, int64_t *until) except -1:
        """After a try that failed: returns when the lock may be free. Raises WouldBlock once PATIENCE_NS have passed, or
        when it is no lock that is in the way. *until: -1 at first."""
        cdef tl_partition *native = self.natives[number]
        cdef uint32_t nobody = 0
        if until[0] < 0:
            until[0] = tl_os.monotonic_ns() + PATIENCE_NS
        elif not tl_partition_is_locked(native):
            raise WouldBlock(number)
        with nogil:
            while tl_partition_is_locked(native) and tl_os.monotonic_ns() < until[0]:
                tl_os.futex_wait(&nobody, 0, NAP_NS)  # a nap: whoever holds the lock may need this processor
        if tl_os.monotonic_ns() >= until[0]:
            raise WouldBlock(number)
        return 0

    cdef int append_batch(self, uint32_t number, const tl_message *messages, size_t count, size_t size_bytes,
                          const tl_message_id *ids, int64_t *offsets, uint8_t *duplicates, tl_appended *result) except -1:
        """One compressed batch of at most TL_BATCH_MAX_BYTES, `size_bytes` before."""
        cdef tl_append what
        cdef int64_t newest = messages[0].timestamp_ms
        cdef size_t i
        cdef bytes packed
        cdef bytes records = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(size_bytes - TL_BATCH_HEADER_BYTES))
        tl_batch_encode_records(<uint8_t *>PyBytes_AS_STRING(records), messages, count)
        packed = self.compress(records)
        for i in range(1, count):
            newest = max(newest, messages[i].timestamp_ms)
        size_bytes = <size_t>PyBytes_GET_SIZE(packed)
        cdef uint8_t *out = <uint8_t *>take(TL_BATCH_HEADER_BYTES + size_bytes, 1)
        self.prepare(&what)
        try:
            memcpy(out + TL_BATCH_HEADER_BYTES, PyBytes_AS_STRING(packed), size_bytes)
            what.spec = &self.spec
            what.encoded = out
            what.encoded_bytes = tl_batch_finish(out, 0, &self.spec, size_bytes, <int32_t>count,
                                                 messages[0].timestamp_ms, newest)
            what.count = count
            what.max_timestamp_ms = newest
            what.no_ids = carries_no_ids(messages, ids, count)
            self.look_for(&what, ids, offsets, duplicates)
            self.append(number, &what, what.encoded_bytes <= RELEASE_FROM_BYTES, result)
        finally:
            tl_os.free(out)
        return 0

    cdef int append_rest(self, uint32_t number, const tl_message *messages, size_t count, const tl_message_id *ids,
                         int64_t *offsets, uint8_t *duplicates, _Place *place) except -1:
        """Of a batch that was not appended because some of its messages are duplicates: the others, packed again."""
        cdef size_t i, kept = 0
        cdef tl_message *rest = NULL
        cdef tl_message_id *rest_ids = NULL
        cdef int64_t *rest_offsets = NULL
        cdef uint8_t *rest_duplicates = NULL
        try:
            rest = <tl_message *>take(count, sizeof(tl_message))
            rest_ids = <tl_message_id *>take(count, sizeof(tl_message_id))
            rest_offsets = <int64_t *>take(count, sizeof(int64_t))
            rest_duplicates = <uint8_t *>take(count, 1)
            for i in range(count):
                if duplicates[i] == 0:
                    rest[kept] = messages[i]
                    rest_ids[kept] = ids[i]
                    kept += 1
            if kept:
                self.append_packed(number, rest, kept, rest_ids, place, rest_offsets, rest_duplicates)
            kept = 0
            for i in range(count):
                if duplicates[i] == 0:
                    offsets[i] = rest_offsets[kept]
                    duplicates[i] = rest_duplicates[kept]
                    kept += 1
                elif duplicates[i] == TL_DUPLICATE_OF_THIS_CALL:  # the first of them is before it, and is answered
                    offsets[i] = offsets[offsets[i]]
                    duplicates[i] = TL_DUPLICATE
        finally:
            tl_os.free(rest)
            tl_os.free(rest_ids)
            tl_os.free(rest_offsets)
            tl_os.free(rest_duplicates)
        return 0

    cdef int append_packed(self, uint32_t number, const tl_message *messages, size_t count, const tl_message_id *ids,
                           _Place *place, int64_t *offsets, uint8_t *duplicates) except -1:
        """The same compressed, a batch at a time; `offsets` (NULL only for one batch) gets the offset of every message."""
        cdef size_t done = 0, taken, size_bytes, i
        cdef tl_appended result
        while done < count:
            taken = tl_batch_measure(messages + done, count - done, TL_BATCH_MAX_BYTES, &size_bytes)
            if duplicates != NULL:
                memset(duplicates + done, 0, taken)
            self.append_batch(number, messages + done, taken, size_bytes, NULL if ids == NULL else ids + done,
                              NULL if offsets == NULL else offsets + done,
                              NULL if duplicates == NULL else duplicates + done, &result)
            if done == 0:
                place.base_offset = result.base_offset
            place.tail = result.tail
            if ids == NULL:
                if offsets != NULL:
                    for i in range(taken):
                        offsets[done + i] = result.base_offset + <int64_t>i
                if duplicates != NULL:
                    memset(duplicates + done, result.duplicates > 0, taken)
            elif result.answered < taken:
                self.append_rest(number, messages + done, taken, ids + done, offsets + done, duplicates + done, place)
            done += taken
        place.count = count
        return 0

    cdef int append_messages(self, uint32_t number, const tl_message *messages, size_t count, size_t size_bytes,
                             bint small, const tl_message_id *ids, _Place *place, int64_t *offsets,
                             uint8_t *duplicates) except -1:
        """`size_bytes`: of all keys, values and headers; 0: not known. `ids`: of the messages, NULL: none is looked for.
        `offsets`, `duplicates`: where messages may be in the log already, and `offsets` where they are compressed; else
        NULL."""
        cdef tl_append what
        cdef tl_appended result
        if self.compress is not None:
            return self.append_packed(number, messages, count, ids, place, offsets, duplicates)
        self.prepare(&what)
        what.messages = messages
        what.count = count
        self.look_for(&what, ids, offsets, duplicates)
        if size_bytes > 0 and count > 1:
            what.bound_bytes = tl_batch_bound(count, size_bytes)
        self.append(number, &what, small, &result)
        place.base_offset = result.base_offset
        place.tail = result.tail
        place.count = count
        return 0
