# How does a named producer stay the same one, and how is a client's own batch appended?
#
# A Named may be used by any thread. Opening and closing one writes to the disk now and then, so both release the GIL.

@cython.final
cdef class Named:
    """An open name of a producer: its producer id with an epoch of its own. Whoever opens the name after it, in any
    process, fences it.

    `Named(store, name)` raises ValueError (an empty name, or one over 184 bytes of UTF-8), Full, NoSpace,
    StorageFailed, Locked, Closed, Forked.
    """

    cdef tl_producer native
    cdef Store store           # None: closed
    cdef readonly str name
    cdef _Transacting current  # of the transaction that is open; None: there is none
    cdef _Transacting left     # of one that could not be aborted when it was given up: the next one does it first

    def __init__(self, Store store, str name, /):
        if self.store is not None:
            raise RuntimeError("this name is open already")
        cdef tl_store *native = store.open_native()
        cdef bytes encoded = name.encode("utf-8")
        cdef const char *at = PyBytes_AS_STRING(encoded)
        cdef size_t size_bytes = <size_t>PyBytes_GET_SIZE(encoded)
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_producer_open(native, at, size_bytes, &self.native, &err)
        if code < 0:
            fail(code, &err)
        self.store = store
        self.name = name

    def __dealloc__(self):
        if self.store is not None and not self.store.is_closed:
            with nogil:
                tl_producer_close(&self.native)

    cdef tl_producer *open_native(self) except NULL:
        if self.store is None:
            closed(f"the producer {self.name!r} was closed", "make a new one with log.producer()")
        self.store.open_native()
        return &self.native

    @property
    def producer_id(self):
        """Its producer id (int), which stands in every batch it sends."""
        return self.open_native().producer_id

    @property
    def epoch(self):
        """The epoch (int) of what it sends next, while it is not fenced."""
        return tl_producer_epoch(self.open_native())

    @property
    def fenced(self):
        """Whether a newer producer of this name was opened."""
        return tl_producer_is_fenced(self.open_native())

    def last(self, partition, /):
        """The last offset that this name wrote into a Partition, whichever self of it did; None: none is known. An
        older self adds nothing behind it. Raises Fenced, Closed, Locked, Corrupt."""
        cdef tl_producer *native = self.open_native()
        cdef tl_partition *where = (<Partition?>partition).open_native()
        cdef int64_t offset = -1
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_producer_last(native, where, &offset, &err)
        if code < 0:
            fail(code, &err)
        return None if offset < 0 else offset

    def next_sequence(self, partition, /):
        """The sequence (int) that its next message in a Partition has. Given to Sender._begin_at, what is sent can be sent
        again without being doubled. Raises as `last`."""
        cdef tl_producer *native = self.open_native()
        cdef tl_partition *where = (<Partition?>partition).open_native()
        cdef int32_t sequence = -1
        cdef tl_error err
        cdef int code
        with nogil:
            code = tl_producer_next(native, where, &sequence, &err)
        if code < 0:
            fail(code, &err)
        return sequence

    def check(self):
        """Raises RuntimeError while a transaction of it is open, and Closed when it was closed."""
        self.open_native()
        if self.current is not None:
            raise RuntimeError(f"a transaction of the producer {self.name!r} is open: send in it with tx.send, or beside it "
                               f"as another producer")

    def close(self):
        """Gives the name up: nothing can be sent under this opening of it any more, and a transaction that is open is
        aborted. Idempotent."""
        cdef Store store = self.store
        cdef _Transacting current = self.current
        cdef tl_error err
        self.store = None
        if store is not None and not store.is_closed:
            if current is not None:
                with nogil:
                    tl_transaction_abort(&current.native, &err)  # what fails here, whoever comes to the name makes good
                current.end(TRANSACTION_ABORTED)
            with nogil:
                tl_producer_close(&self.native)


def _append_encoded(partition, batch, count, max_timestamp_ms, /):
    """Appends a ready record batch of a client, whose header says producer id, epoch and sequence, by Kafka's rules for
    idempotent producers. Returns (offset of its first message, whether it was there already).

    `batch`: bytes of one whole batch with a right CRC and `count` messages. Raises Fenced (an older epoch), ValueError (out
    of order), RuntimeError (the state of its transaction).
    """
    cdef tl_partition *native = (<Partition?>partition).open_native()
    cdef bytearray own = bytearray(batch)  # its base offset is written into it
    cdef tl_producing producing
    cdef tl_append what
    cdef tl_appended result
    cdef tl_error err
    cdef int code
    memset(&what, 0, sizeof(what))
    memset(&producing, 0, sizeof(producing))
    producing.sequence = -1
    what.producing = &producing
    what.encoded = <uint8_t *>PyByteArray_AS_STRING(own)
    what.encoded_bytes = <size_t>PyByteArray_GET_SIZE(own)
    what.count = count
    what.max_timestamp_ms = max_timestamp_ms
    with nogil:
        code = tl_partition_append(native, &what, 0, &result, &err)
    if code < 0:
        fail(code, &err)
    return result.base_offset, result.duplicates > 0
