# What is one received message?
#
# A Message is a chunk and an index; everything else is made when it is asked for. It keeps its chunk, and so its bytes,
# alive. Messages never change; any thread may use them.

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Position = namedtuple("Position", ("partition", "offset"), module="tidelog._native")
Position.__doc__ = "Where a message stands: `partition` (int) and logical `offset` (int); -1, -1: nowhere."


@cython.no_gc
@cython.freelist(256)
cdef class Message:
    """A message as it was received. Its value is decoded when it is first asked for and kept.

    `value` raises DecodeError when the stored bytes are not of the channel's type; `raw` never does.
    """

    # Not looked at by the garbage collector, which saves a seventh of the cost of a message: bytes and rows of numbers
    # cannot refer back to it. _Decoded holds values that can.
    cdef _Chunk chunk
    cdef size_t index
    cdef uint32_t run

    @property
    def value(self):
        """The value as the channel's type; None for a null value, which only Kafka clients write."""
        cdef tl_record *record
        if self.chunk.rows is not None:
            return self.chunk.rows[self.index]
        record = &self.chunk.c.records[self.index]
        if record.value_bytes < 0:
            return None
        return pinned(PyBytes_FromStringAndSize(<char *>self.chunk.c.bytes + record.value_at, record.value_bytes),
                      record.value_bytes)

    @property
    def raw(self):
        """The stored bytes of the value (b"" for a null one)."""
        data = self.chunk.raw_of(self.index)
        return b"" if data is None else data

    @property
    def key(self):
        """The key's bytes, or None."""
        return self.chunk.key_of(self.index)

    @property
    def headers(self):
        """The headers: an ordered mapping str -> bytes."""
        return self.chunk.headers_of(self.index)

    @property
    def timestamp(self):
        """When it was created: an aware datetime in UTC, to the ms. Raises DecodeError outside years 1..9999."""
        milliseconds = self.timestamp_ms
        try:
            return _EPOCH + timedelta(milliseconds=milliseconds)
        except OverflowError:
            raise DecodeError(f"the timestamp {milliseconds} ms is no date of Python's: read .timestamp_ms") from None

    @property
    def timestamp_ms(self):
        """When it was created: milliseconds since 1970 (int)."""
        return self.chunk.timestamp_of(self.index)

    @property
    def partition(self):
        """The number of its partition (int)."""
        return self.chunk.runs[self.run].partition

    @property
    def offset(self):
        """Its logical position in the partition (int)."""
        return self.chunk.offset_of(self.index)

    @property
    def channel(self):
        """The name of its channel."""
        return self.shared().name

    @property
    def id(self):
        """The id it was sent with, else channel-partition-offset, which is as unique."""
        given = self.header("message-id")
        return f"{self.channel}-{self.partition}-{self.offset}" if given is None else given

    @property
    def correlation_id(self):
        """The header correlation-id as str, or None."""
        return self.header("correlation-id")

    @property
    def reply_to(self):
        """The header reply-to as str, or None."""
        return self.header("reply-to")

    @property
    def kind(self):
        """The header message-kind, else what the channel carries: "command", "event" or "document"."""
        given = self.header("message-kind")
        return self.shared().carries if given is None else given

    cdef Channelled shared(self):
        return <Channelled>self.chunk.shareds[self.run]

    cdef str header(self, str name):
        cdef Headers headers = self.chunk.headers_of(self.index)
        if headers is _NO_HEADERS:
            return None
        data = headers.get(name)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def __repr__(self):
        key = self.key
        raw = self.raw
        shown = repr(raw) if len(raw) <= 60 else f"{raw[:60]!r}... {len(raw)} bytes"
        return (f"<Message {self.channel}-{self.partition}@{self.offset}"
                f"{'' if key is None else f' key={key[:60]!r}'} {shown}>")

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)


@cython.final
cdef class _Decoded(Message):
    """A message of a channel whose values are more than bytes: they may refer to the message, so it is collectable."""

    cdef object decoded  # None: not yet

    @property
    def value(self):
        """The value as the channel's type; None for a null value, which only Kafka clients write."""
        if self.decoded is None:
            self.decoded = self.shared().value_of(self.chunk.raw_of(self.index))
        return self.decoded


cdef inline Message new_message(_Chunk chunk, size_t index, size_t run):
    cdef Message message
    if chunk.runs[run].decoded:
        message = _Decoded.__new__(_Decoded)
    else:
        message = Message.__new__(Message)
    message.chunk = chunk
    message.index = index
    message.run = <uint32_t>run
    return message
