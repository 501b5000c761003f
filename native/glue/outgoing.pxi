# How do messages that are ready reach their partitions?
#
# The half of Sender that knows no Python values: it chooses partitions, splits a round of messages by partition keeping
# their order, appends, compresses and syncs. Thread-safe: what it changes (sticky choice, scratch memory) is only
# touched with the GIL held, and scratch in use by one thread makes the next one take fresh memory.
#
# Small appends keep the GIL and only try (TL_APPEND_TRY); anything that has to wait, or is larger than
# RELEASE_FROM_BYTES, runs without the GIL on memory that the caller keeps alive.

cdef enum:
    STICKY_BYTES = 16384         # Kafka's batch.size: so much goes to one partition before the next is chosen
    ROUND_MESSAGES = 8192
    ROUND_BYTES = 16 << 20       # of rows; between rounds signals are looked at
    SCRATCH_MESSAGES = 16384     # scratch of this many is kept
    PATIENCE_NS = 1_000_000      # so long a sender that never waits tries to get a lock
    NAP_NS = 20_000


class WouldBlock(Exception):
    """A sender that never waits would have had to. Its argument is the partition it had chosen: the same call with
    `partition=`, on a thread that may wait, does it."""


cdef class _Outlet:
    cdef Store store
    cdef list handles
    cdef tl_partition **natives
    cdef uint32_t partitions     # 0: not attached
    cdef Channelled shared
    cdef bint synced
    cdef object partitioner, compress
    cdef tl_batch_spec spec
    cdef uint32_t sticky
    cdef int64_t sticky_left
    cdef uint64_t random
    cdef tl_message *scratch
    cdef size_t scratch_room
    cdef bint scratch_busy
    cdef tl_clock clock          # guarded by the GIL
    cdef int64_t skip            # messages until the next one that is sampled
    cdef _Sampler sampler
    cdef bint never_waits        # WouldBlock instead of waiting, for callers that must not

    def __dealloc__(self):
        tl_os.free(self.natives)
        tl_os.free(self.scratch)

    cdef int check_open(self) except -1:
        if self.partitions == 0:
            raise TypeError("this sender is not attached to a channel")
        if self.store.is_closed:
            closed(f"the log of the channel {self.shared.name!r} was closed")
        return 0

    # --- which partition ---

    cdef uint32_t stick(self, int64_t size_bytes) noexcept:
        """The partition for messages without a key: the same until STICKY_BYTES went there, then a random one."""
        cdef uint32_t chosen = self.sticky
        self.sticky_left -= size_bytes
        if self.sticky_left <= 0:
            self.move_on()
        return chosen

    cdef void move_on(self) noexcept:
        self.sticky_left = STICKY_BYTES
        if self.partitions > 1:
            self.random ^= self.random << 13
            self.random ^= self.random >> 7
            self.random ^= self.random << 17
            # One of the others, each as likely: staying would halve the spread over two partitions.
            self.sticky = (self.sticky + 1 + <uint32_t>((self.random >> 32) % (self.partitions - 1))) % self.partitions

    cdef uint32_t check_partition(self, object partition) except? 0xFFFFFFFF:
        """The number of a partition that a caller named. Raises TypeError, ValueError."""
        if isinstance(partition, bool) or not hasattr(partition, "__index__"):
            raise TypeError(f"a partition is an int, not {type(partition).__name__}")
        number = partition.__index__()
        if not 0 <= number < self.partitions:
            raise ValueError(f"partition {number} does not exist: {self.shared.name!r} has partitions "
                             f"0..{self.partitions - 1}")
        return <uint32_t>number

    cdef uint32_t ask_partitioner(self, bytes key, object value) except? 0xFFFFFFFF:
        answer = self.partitioner(key, value, self.partitions)
        try:
            return self.check_partition(answer)
        except (TypeError, ValueError) as error:
            name = getattr(self.partitioner, "__qualname__", None) or type(self.partitioner).__qualname__
            raise type(error)(f"the partitioner {name} answered {answer!r}: {error}") from None

    # --- appending to one partition ---

    cdef int append(self, uint32_t number, const tl_append *what, bint small, tl_appended *result) except -1:
        """Everything in `what` to one partition. On failure the exception says how many messages are in."""
        cdef tl_partition *native = self.natives[number]
        cdef unsigned flags = TL_APPEND_THROUGH_FILE if self.synced else 0
        cdef tl_error err
        cdef int code = TL_EAGAIN
        cdef int64_t patience = -1
        if small and not self.synced:
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
        if code < 0:
            try:
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

    cdef int append_packed(self, uint32_t number, const tl_message *messages, size_t count, _Place *place,
                           int64_t *offsets) except -1:
        """The same compressed, a batch at a time; `offsets` (may be NULL) gets the offset of every message."""
        cdef size_t done = 0, taken, size_bytes, i
        cdef tl_append what
        cdef tl_appended result
        cdef bytes records, packed
        cdef int64_t newest
        cdef uint8_t *out
        memset(&what, 0, sizeof(what))
        what.spec = &self.spec
        while done < count:
            taken = tl_batch_measure(messages + done, count - done, TL_BATCH_MAX_BYTES, &size_bytes)
            records = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(size_bytes - TL_BATCH_HEADER_BYTES))
            tl_batch_encode_records(<uint8_t *>PyBytes_AS_STRING(records), messages + done, taken)
            packed = self.compress(records)
            newest = messages[done].timestamp_ms
            for i in range(done + 1, done + taken):
                newest = max(newest, messages[i].timestamp_ms)
            size_bytes = <size_t>PyBytes_GET_SIZE(packed)
            out = <uint8_t *>take(TL_BATCH_HEADER_BYTES + size_bytes, 1)
            try:
                memcpy(out + TL_BATCH_HEADER_BYTES, PyBytes_AS_STRING(packed), size_bytes)
                what.encoded = out
                what.encoded_bytes = tl_batch_finish(out, 0, &self.spec, size_bytes, <int32_t>taken,
                                                     messages[done].timestamp_ms, newest)
                what.count = taken
                what.max_timestamp_ms = newest
                self.append(number, &what, what.encoded_bytes <= RELEASE_FROM_BYTES, &result)
            finally:
                tl_os.free(out)
            if done == 0:
                place.base_offset = result.base_offset
            place.tail = result.tail
            if offsets != NULL:
                for i in range(taken):
                    offsets[done + i] = result.base_offset + <int64_t>i
            done += taken
        place.count = count
        return 0

    cdef int append_messages(self, uint32_t number, const tl_message *messages, size_t count, size_t size_bytes,
                             bint small, _Place *place, int64_t *offsets) except -1:
        """`size_bytes`: of all keys, values and headers; 0: not known."""
        cdef tl_append what
        cdef tl_appended result
        if self.compress is not None:
            return self.append_packed(number, messages, count, place, offsets)
        memset(&what, 0, sizeof(what))
        what.messages = messages
        what.count = count
        if size_bytes > 0 and count > 1:
            what.bound_bytes = tl_batch_bound(count, size_bytes)
        self.append(number, &what, small, &result)
        place.base_offset = result.base_offset
        place.tail = result.tail
        place.count = count
        return 0

    # --- a round: many messages to one partition, or to those that `ids` names ---

    cdef _Part begin_part(self, size_t count, uint32_t only, uint32_t *ids):
        """Takes over `ids`."""
        cdef _Part part = _Part.__new__(_Part)
        part.handles = self.handles
        part.partitions = self.partitions
        part.count = count
        part.only = only
        part.places = &part.place
        part.ids = ids
        if ids != NULL:
            part.places = NULL
            part.places = <_Place *>take(self.partitions, sizeof(_Place))
            memset(part.places, 0, self.partitions * sizeof(_Place))
        return part

    cdef _Part send_messages(self, tl_message *messages, size_t count, size_t size_bytes, uint32_t only, uint32_t *ids):
        """Appends `count` messages (`size_bytes` in all); the caller keeps alive what they point at."""
        cdef _Part part = self.begin_part(count, only, ids)
        cdef bint small = size_bytes <= RELEASE_FROM_BYTES
        cdef size_t i, first
        cdef size_t *starts = NULL
        cdef tl_message *ordered = NULL
        cdef int64_t *offsets = NULL
        cdef uint32_t number
        if ids == NULL:
            if self.compress is not None:
                part.offsets = <int64_t *>take(count, sizeof(int64_t))
            self.append_messages(only, messages, count, size_bytes, small, &part.place, part.offsets)
            self.sample(messages, count, only, NULL)
            return part
        try:
            starts = <size_t *>take(<size_t>self.partitions + 1, sizeof(size_t))
            ordered = <tl_message *>take(count, sizeof(tl_message))
            group_by_id(ids, count, self.partitions, starts)
            for i in range(count):
                ordered[starts[ids[i]]] = messages[i]
                starts[ids[i]] += 1
            # starts[k] is now where k + 1 begins.
            if self.compress is not None:
                offsets = <int64_t *>take(count, sizeof(int64_t))
            first = 0
            for number in range(self.partitions):
                if starts[number] > first:
                    self.append_messages(number, ordered + first, starts[number] - first, 0, small, &part.places[number],
                                         NULL if offsets == NULL else offsets + first)
                first = starts[number]
            if offsets != NULL:
                part.offsets = <int64_t *>take(count, sizeof(int64_t))
                group_by_id(ids, count, self.partitions, starts)
                for i in range(count):
                    part.offsets[i] = offsets[starts[ids[i]]]
                    starts[ids[i]] += 1
            self.sample(messages, count, only, ids)
        finally:
            tl_os.free(starts)
            tl_os.free(ordered)
            tl_os.free(offsets)
        return part

    cdef _Part send_rows(self, tl_rows *rows, size_t first, size_t count, uint32_t only, uint32_t *ids):
        """Rows first .. first + count - 1; with `ids` (of those rows) each to its own partition. Takes over `ids`."""
        cdef _Part part = self.begin_part(count, only, ids)
        cdef bint small = count <= RELEASE_FROM_BYTES // (rows.row_bytes + 1)
        cdef size_t i, begin
        cdef size_t *starts = NULL
        cdef uint32_t *pick = NULL
        cdef uint32_t number
        cdef tl_append what
        cdef tl_appended result
        memset(&what, 0, sizeof(what))
        what.rows = rows
        if ids == NULL:
            what.first = first
            what.count = count
            self.append(only, &what, small, &result)
            part.place.base_offset = result.base_offset
            part.place.tail = result.tail
            part.place.count = count
            self.sample_rows(rows, first, count, only, NULL)
            return part
        try:
            starts = <size_t *>take(<size_t>self.partitions + 1, sizeof(size_t))
            pick = <uint32_t *>take(count, sizeof(uint32_t))
            group_by_id(ids, count, self.partitions, starts)
            for i in range(count):
                pick[starts[ids[i]]] = <uint32_t>(first + i)
                starts[ids[i]] += 1
            rows.pick = pick
            begin = 0
            for number in range(self.partitions):
                if starts[number] > begin:
                    what.first = begin
                    what.count = starts[number] - begin
                    self.append(number, &what, small, &result)
                    part.places[number].base_offset = result.base_offset
                    part.places[number].tail = result.tail
                    part.places[number].count = what.count
                begin = starts[number]
            self.sample_rows(rows, first, count, only, ids)
        finally:
            rows.pick = NULL
            tl_os.free(starts)
            tl_os.free(pick)
        return part

    # --- samples of what was appended ---

    cdef inline int sample(self, const tl_message *messages, size_t count, uint32_t only,
                           const uint32_t *ids) except -1:
        cdef int64_t at = self.skip
        self.skip -= <int64_t>count
        if self.skip < 0:
            self.skip = SKEW_RETRY_MESSAGES  # what another thread counts down while this one samples
            self.skip = self.sampler.messages(messages, <int64_t>count, at, only, ids)
        return 0

    cdef inline int sample_rows(self, const tl_rows *rows, size_t first, size_t count, uint32_t only,
                                const uint32_t *ids) except -1:
        cdef int64_t at = self.skip
        self.skip -= <int64_t>count
        if self.skip < 0:
            self.skip = SKEW_RETRY_MESSAGES
            self.skip = self.sampler.rows(rows, <int64_t>first, <int64_t>count, at, only, ids)
        return 0

    cdef Receipt receipt_of(self, list parts):
        """The receipt of the rounds, after syncing them if this sender is synced."""
        cdef Receipt receipt = Receipt.__new__(Receipt)
        cdef _Part part = None, last = None
        receipt.number = -1
        receipt.at = -1
        for part in parts:
            receipt.total += <int64_t>part.count
            if part.count:
                last = part
        if last is None:
            return receipt
        cdef uint32_t number = last.only if last.ids == NULL else last.ids[last.count - 1]
        cdef _Place *place = &last.place if last.ids == NULL else &last.places[number]
        receipt.number = <int32_t>number
        receipt.at = place.base_offset + <int64_t>place.count - 1
        if last.offsets != NULL:
            receipt.at = last.offsets[last.count - 1]
        if len(parts) == 1 and last.ids == NULL and last.offsets == NULL:
            receipt.handle = self.handles[number]
            receipt.tail = place.tail
        else:
            receipt.parts = tuple(parts)
        if self.synced:
            receipt.sync(-1)
        return receipt

    # --- scratch ---

    cdef tl_message *borrow(self, size_t count) except NULL:
        """Room for `count` messages, to be given back."""
        if self.scratch_busy or count > SCRATCH_MESSAGES:
            return <tl_message *>take(count, sizeof(tl_message))
        if count > self.scratch_room:
            tl_os.free(self.scratch)
            self.scratch = NULL
            self.scratch_room = 0
            self.scratch = <tl_message *>take(max(count, 1024), sizeof(tl_message))
            self.scratch_room = max(count, 1024)
        self.scratch_busy = True
        return self.scratch

    cdef void give_back(self, tl_message *messages) noexcept:
        if messages == self.scratch:
            self.scratch_busy = False
        else:
            tl_os.free(messages)


cdef void group_by_id(const uint32_t *ids, size_t count, uint32_t partitions, size_t *starts) noexcept:
    """starts[k]: where the messages of partition k begin when they are put in the order of their partitions."""
    cdef size_t i, before = 0, here
    memset(starts, 0, (<size_t>partitions + 1) * sizeof(size_t))
    for i in range(count):
        starts[ids[i]] += 1
    for i in range(partitions):
        here = starts[i]
        starts[i] = before
        before += here
