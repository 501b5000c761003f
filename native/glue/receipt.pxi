# Where did messages go that were sent?
#
# A Receipt is complete when it is made. A call that sent one message keeps four numbers; a larger one keeps a part per
# round of native appends: which partition each message chose, and where each partition's run began. Never changes; any
# thread may use it, and waiting for the disk releases the GIL.

@cython.no_gc
cdef class Receipt:
    """What `send` answers: where the message went. Complete on return in the embedded engine.

    Of several messages `partition` and `offset` are those of the last one; -1 when there was none.
    """

    cdef int64_t at            # offset of the last message
    cdef int64_t total         # messages
    cdef uint64_t tail
    cdef int32_t number        # partition of the last message
    cdef bint repeated         # of one message: it was in the log already
    cdef object where          # Partition of one run; tuple of _Part: of several; None: nothing was sent. The last field

    @property
    def partition(self):
        """The partition of the (last) message."""
        return self.number

    @property
    def offset(self):
        """The offset of the (last) message."""
        return self.at

    @property
    def count(self):
        """How many messages were sent."""
        return self.total

    @property
    def done(self):
        """True: the messages are in the log."""
        return True

    @property
    def duplicate(self):
        """Whether the message was in the log before, so that nothing was appended and its position is the first one's;
        of several messages: whether all were."""
        cdef _Part part
        if type(self.where) is not tuple:
            return self.repeated
        for part in <tuple>self.where:
            if part.count_duplicates() < part.count:
                return False
        return self.total > 0

    @property
    def duplicates(self):
        """Which of the messages were in the log before: bool array."""
        cdef _Part part
        cdef int64_t at = 0
        out = bool_array(self.total)
        cdef uint8_t *to = <uint8_t *>data_of(out) if self.total else NULL
        if type(self.where) is not tuple:
            if self.total:
                memset(to, self.repeated, <size_t>self.total)
            return out
        for part in <tuple>self.where:
            if part.duplicates != NULL:
                memcpy(to + at, part.duplicates, part.count)
            at += <int64_t>part.count
        return out

    def result(self, timeout=None, level=None):
        """The Position of the (last) message. level="synced" first waits until all of them are on disk.

        `timeout`: seconds, None to wait for ever. Raises Timeout, StorageFailed, NoSpace, ValueError (another level).
        """
        if level is not None and level != "written":
            if level != "synced":
                raise ValueError(f"the level {level!r} does not exist: 'written' or 'synced'")
            self.sync(nanoseconds(timeout))
        return Position(self.number, self.at)

    cdef int sync(self, int64_t timeout_ns) except -1:
        """Blocks until every message is on disk; -1: for ever."""
        cdef _Part part
        cdef int64_t until = tl_os.monotonic_ns() + timeout_ns
        if type(self.where) is tuple:
            for part in <tuple>self.where:
                part.sync(until, timeout_ns < 0)
        elif self.where is not None:
            sync_partition((<Partition>self.where).open_native(), self.tail, timeout_ns)
        return 0

    @property
    def partitions(self):
        """The partition of every message: int32 array."""
        cdef _Part part
        cdef int64_t i, at = 0
        out = int32_array(self.total)
        cdef int32_t *to = <int32_t *>data_of(out) if self.total else NULL
        if type(self.where) is not tuple:
            for i in range(self.total):
                to[i] = self.number
            return out
        for part in <tuple>self.where:
            part.fill_partitions(to + at)
            at += <int64_t>part.count
        return out

    @property
    def offsets(self):
        """The offset of every message in its partition: int64 array."""
        cdef _Part part
        cdef int64_t i, at = 0
        out = int64_array(self.total)
        cdef int64_t *to = <int64_t *>data_of(out) if self.total else NULL
        if type(self.where) is not tuple:
            for i in range(self.total):
                to[i] = self.at - self.total + 1 + i
            return out
        for part in <tuple>self.where:
            part.fill_offsets(to + at)
            at += <int64_t>part.count
        return out

    def __repr__(self):
        if self.total == 1:
            return f"<Receipt partition {self.number} offset {self.at}>"
        return f"<Receipt of {self.total} messages, the last in partition {self.number} at offset {self.at}>"


glue_pool_of(&glue_receipts, <PyTypeObject *>Receipt, 1, glue_let_receipt_go)

cdef extern from *:
    Receipt glue_receipt(PyObject *where)


cdef inline Receipt new_receipt(PyObject *where, int64_t at, int64_t total, uint64_t tail, int32_t number, bint repeated):
    cdef Receipt receipt = glue_receipt(where)
    receipt.at = at
    receipt.total = total
    receipt.tail = tail
    receipt.number = number
    receipt.repeated = repeated
    return receipt


cdef struct _Place:
    int64_t base_offset  # of this round's first message in the partition; the others follow it without a gap
    uint64_t tail
    size_t count         # messages of this round in the partition


@cython.final
cdef class _Part:
    """What one round of appends did. `ids`, `offsets` and `duplicates` are ours to free."""

    cdef list handles           # Partition, by number
    cdef _Place *places         # by partition number; of `only` alone when there are no ids
    cdef _Place place
    cdef uint32_t partitions, only
    cdef uint32_t *ids          # partition of each message; NULL: all went to `only`
    cdef int64_t *offsets       # of each message where a run took several appends; NULL: runs are dense
    cdef uint8_t *duplicates    # of each message whether it was there before; NULL: none was
    cdef size_t count

    def __dealloc__(self):
        if self.places != &self.place:
            tl_os.free(self.places)
        tl_os.free(self.ids)
        tl_os.free(self.offsets)
        tl_os.free(self.duplicates)

    cdef size_t count_duplicates(self) noexcept:
        cdef size_t i, found = 0
        if self.duplicates != NULL:
            for i in range(self.count):
                found += self.duplicates[i] != 0
        return found

    cdef int sync(self, int64_t until, bint for_ever) except -1:
        cdef uint32_t i, number
        for i in range(self.partitions if self.ids != NULL else 1):
            number = i if self.ids != NULL else self.only
            if self.places[i].count:
                sync_partition((<Partition>self.handles[number]).open_native(), self.places[i].tail,
                               -1 if for_ever else max(until - tl_os.monotonic_ns(), 0))
        return 0

    cdef void fill_partitions(self, int32_t *to) noexcept:
        cdef size_t i
        for i in range(self.count):
            to[i] = <int32_t>(self.only if self.ids == NULL else self.ids[i])

    cdef int fill_offsets(self, int64_t *to) except -1:
        cdef size_t i
        cdef int64_t *following
        cdef uint32_t id
        if self.offsets != NULL:
            memcpy(to, self.offsets, self.count * sizeof(int64_t))
        elif self.ids == NULL:
            for i in range(self.count):
                to[i] = self.place.base_offset + <int64_t>i
        else:
            following = <int64_t *>take(self.partitions, sizeof(int64_t))
            for id in range(self.partitions):
                following[id] = self.places[id].base_offset
            for i in range(self.count):
                id = self.ids[i]
                to[i] = following[id]
                following[id] += 1
            tl_os.free(following)
        return 0
