# How do messages that are ready reach their partitions?
#
# The half of Sender that knows no Python values: it chooses partitions and splits a round of messages by partition keeping
# their order. Thread-safe: what it changes (sticky choice, scratch memory) is only touched with the GIL held, and scratch in
# use by one thread makes the next one take fresh memory.

cdef enum:
    STICKY_BYTES = 16384         # Kafka's batch.size: so much goes to one partition before the next is chosen
    ROUND_MESSAGES = 8192
    ROUND_BYTES = 16 << 20       # of rows; between rounds signals are looked at
    SCRATCH_MESSAGES = 16384     # scratch of this many is kept


cdef class _Outlet(_Inlet):
    cdef object partitioner
    cdef uint32_t sticky
    cdef int64_t sticky_left
    cdef uint64_t random
    cdef tl_message *scratch
    cdef size_t scratch_room
    cdef bint scratch_busy
    cdef tl_clock clock          # guarded by the GIL
    cdef int64_t skip            # messages until the next one that is sampled
    cdef _Sampler sampler
    cdef _Outlet lender          # whose `natives` these are, and who gets back what goes on: see borrow_from
    cdef bint borrowing

    def __dealloc__(self):
        if self.borrowing and self.lender is not None:
            self.lender.sticky, self.lender.sticky_left, self.lender.random = self.sticky, self.sticky_left, self.random
            self.lender.skip = self.skip
            if self.lender.scratch == NULL and not self.lender.scratch_busy:
                self.lender.scratch, self.lender.scratch_room = self.scratch, self.scratch_room
                self.scratch = NULL
        if not self.borrowing:
            tl_os.free(self.natives)
        tl_os.free(self.scratch)

    cdef void borrow_from(self, _Outlet lender) noexcept:
        """Sends to the partitions of `lender`, goes on where that one stands in choosing and sampling, and with its scratch:
        one that lives as long as a transaction would begin all of that anew too often."""
        self.lender = lender
        self.borrowing = True
        self.natives = lender.natives
        self.sticky, self.sticky_left, self.random = lender.sticky, lender.sticky_left, lender.random
        self.sampler, self.skip = lender.sampler, lender.skip
        if not lender.scratch_busy:
            self.scratch, self.scratch_room = lender.scratch, lender.scratch_room
            lender.scratch = NULL
            lender.scratch_room = 0
        self.partitions = lender.partitions

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
        number = partition
        if type(partition) is not int:
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

    cdef _Part send_messages(self, tl_message *messages, size_t count, size_t size_bytes, uint32_t only, uint32_t *ids,
                             tuple names=None):
        """Appends `count` messages (`size_bytes` in all); the caller keeps alive what they point at. `names`: the ids that
        callers gave them (str or None)."""
        cdef _Part part = self.begin_part(count, only, ids)
        cdef bint small = size_bytes <= RELEASE_FROM_BYTES
        cdef size_t i, first
        cdef size_t *starts = NULL
        cdef tl_message *ordered = NULL
        cdef tl_message_id *hashes = NULL
        cdef int64_t *offsets = NULL
        cdef uint8_t *duplicates = NULL
        cdef uint32_t number
        cdef bint repeats = self.may_repeat() or names is not None
        if self.compress is not None or repeats:
            part.offsets = <int64_t *>take(count, sizeof(int64_t))
        if repeats:
            part.duplicates = <uint8_t *>take(count, 1)
        try:
            if names is not None:
                hashes = <tl_message_id *>take(count, sizeof(tl_message_id))
            if ids == NULL:
                if names is not None:
                    for i in range(count):
                        hash_id(self.natives[only], names[i], &hashes[i])
                self.append_messages(only, messages, count, size_bytes, small, hashes, &part.place, part.offsets,
                                     part.duplicates)
                self.sample_new(part, messages, count, only, NULL)
                return part
            starts = <size_t *>take(<size_t>self.partitions + 1, sizeof(size_t))
            ordered = <tl_message *>take(count, sizeof(tl_message))
            group_by_id(ids, count, self.partitions, starts)
            for i in range(count):
                if names is not None:
                    hash_id(self.natives[ids[i]], names[i], &hashes[starts[ids[i]]])
                ordered[starts[ids[i]]] = messages[i]
                starts[ids[i]] += 1
            # starts[k] is now where k + 1 begins.
            if part.offsets != NULL:
                offsets = <int64_t *>take(count, sizeof(int64_t))
            if part.duplicates != NULL:
                duplicates = <uint8_t *>take(count, 1)
            first = 0
            for number in range(self.partitions):
                if starts[number] > first:
                    self.append_messages(number, ordered + first, starts[number] - first, 0, small,
                                         NULL if hashes == NULL else hashes + first, &part.places[number],
                                         NULL if offsets == NULL else offsets + first,
                                         NULL if duplicates == NULL else duplicates + first)
                first = starts[number]
            if offsets != NULL:
                group_by_id(ids, count, self.partitions, starts)
                for i in range(count):
                    part.offsets[i] = offsets[starts[ids[i]]]
                    if duplicates != NULL:
                        part.duplicates[i] = duplicates[starts[ids[i]]]
                    starts[ids[i]] += 1
            self.sample_new(part, messages, count, only, ids)
        finally:
            tl_os.free(starts)
            tl_os.free(ordered)
            tl_os.free(hashes)
            tl_os.free(offsets)
            tl_os.free(duplicates)
        return part

    cdef int sample_new(self, _Part part, const tl_message *messages, size_t count, uint32_t only,
                        const uint32_t *ids) except -1:
        """Samples what was appended, without the duplicates."""
        cdef size_t i
        if part.count_duplicates() == 0:
            self.sample(messages, count, only, ids)
            return 0
        for i in range(count):
            if part.duplicates[i] == 0:
                self.sample(messages + i, 1, only if ids == NULL else ids[i], NULL)
        return 0

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
        self.prepare(&what)
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
            receipt.where = self.handles[number]
            receipt.tail = place.tail
        else:
            receipt.where = tuple(parts)
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
