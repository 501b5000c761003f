# What is one received message?
#
# A Message is a chunk, an index and a value; everything else is made when it is asked for. It keeps its chunk, and so its
# bytes, alive. Messages never change; any thread may use them.

cdef enum:
    HELD_BYTES = 1024  # a longer value is copied out of the chunk only if somebody wants it

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Position = namedtuple("Position", ("partition", "offset"), module="tidelog._native")
Position.__doc__ = "Where a message stands: `partition` (int) and logical `offset` (int); -1, -1: nowhere."


@cython.no_gc
cdef class Message:
    """A message as it was received. A value that has to be decoded is when it is first asked for, and kept.

    `value` raises DecodeError when the stored bytes are not of the channel's type; `raw` never does.
    """

    # Not looked at by the garbage collector, which saves a seventh of the cost of a message: bytes cannot refer back to it.
    # _Decoded holds values that can.
    cdef size_t index
    cdef uint32_t run
    # The last fields, see put_value() and pool.pxi. Short bytes are here from the start: that costs as much as making them when
    # they are asked for, and what has no getter is read by the interpreter without a call.
    cdef _Chunk chunk
    cdef object held

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
        """Where an answer is wanted: the header reply-to (or Spring's kafka_replyTopic) as str, or None: nowhere."""
        given = self.header("reply-to")
        return self.header("kafka_replyTopic") if given is None else given

    @property
    def kind(self):
        """The header message-kind, else what the channel carries: "command", "event" or "document"."""
        given = self.header("message-kind")
        return given if given in ("command", "event", "document") else self.shared().carries

    @property
    def attempt(self):
        """Which attempt at handling it this is, from 1 on (int): what the header attempt says (1 without one; other
        software writes it), and one more for each attempt of an application that failed since its start."""
        given = self.header("attempt")
        if given is None or len(given) > 9 or not given.isascii() or not given.isdigit():
            return 1
        return max(int(given), 1)

    def reply(self, value=None, *, error=None, headers=None):
        """Answers a question (`Channel.ask`): sends `value` to where it wants its answer, and returns the Receipt.

        `value`: of the type that the channel was opened with as `reply=`, else bytes. `error`: an exception or a text
        that says why there is no proper answer; the asker's `message.value` then raises ReplyError. `headers`: further
        ones. Raises ValueError if the message asks for no answer, ChannelNotFound if the asker's reply channel is gone
        (nobody waits any more: go on with the next message), NotSupported for messages of a log's inner readers, and
        otherwise like `send`.
        """
        answer = self.shared().answer
        if answer is None:
            raise NotSupported(f"messages of {self.channel!r} that were received this way cannot be answered: receive "
                               f"them from a channel of an open log")
        return answer(self, value, error, headers)

    cdef Channelled shared(self):
        return self.chunk.shared_of(self.run)

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


cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        const char *name
        int type
        Py_ssize_t offset
        int flags
        const char *doc
    int T_OBJECT_EX, READONLY

cdef extern from *:
    object PyDescr_NewMember(PyTypeObject *of, PyMemberDef *member)

cdef PyMemberDef _value_member


cdef int put_value(type owner) except -1:
    """Makes `held` readable as `value`, as a slot of a class of Python's is: Cython would write a getter."""
    cdef PyTypeObject *native = <PyTypeObject *>owner
    _value_member.name = b"value"
    _value_member.type = T_OBJECT_EX
    _value_member.offset = native.tp_basicsize - <Py_ssize_t>sizeof(PyObject *)
    _value_member.flags = READONLY
    _value_member.doc = b"The value as the channel's type; None for a null value, which only Kafka clients write."
    (<dict>native.tp_dict)["value"] = PyDescr_NewMember(native, &_value_member)
    PyType_Modified(native)
    return 0


put_value(Message)
glue_pool_of(&glue_messages, <PyTypeObject *>Message, 2, glue_let_message_go)

cdef extern from *:
    Message glue_message(PyObject *chunk, PyObject *held)


@cython.final
cdef class _Decoded(Message):
    """A message whose value is made when it is asked for: a long one, or more than bytes. That may refer to the message,
    so it is collectable."""

    cdef object decoded  # None: not yet

    @property
    def value(self):
        """The value as the channel's type; None for a null value, which only Kafka clients write."""
        if self.decoded is None:
            self.decoded = decoded_value(self, self.shared())
        return self.decoded


cdef class _Answer(Message):
    """A message seen through another channel's types than the one it came through: an answer, typed by the question's
    channel. Collectable, as its values may refer to it."""

    cdef Channelled seen_as
    cdef object decoded  # None: not yet

    @property
    def value(self):
        """The value as the channel's type; None for a null value, which only Kafka clients write."""
        if self.decoded is None:
            self.decoded = decoded_value(self, self.seen_as)
        return self.decoded

    cdef Channelled shared(self):
        return self.seen_as


@cython.final
cdef class _Again(_Answer):
    """A message that is handed over again after failed attempts. Its value is decoded anew: what failed may have changed
    the other one."""

    cdef int failed

    @property
    def attempt(self):
        """Which attempt at handling it this is, from 1 on (int)."""
        return Message.attempt.__get__(self) + self.failed


cdef object decoded_value(Message message, Channelled shared):
    if message.chunk.rows is not None:
        return message.chunk.rows[message.index]
    cdef bytes data = message.chunk.raw_of(message.index)
    if data is None or shared.decode_message is None:
        return shared.value_of(data)
    return shared.decode_message(message, data)


def message_as(Message message, Channelled shared, /):
    """The same message, with the types of `shared`."""
    cdef _Answer answer = _Answer.__new__(_Answer)
    answer.chunk = message.chunk
    answer.index = message.index
    answer.run = message.run
    answer.seen_as = shared
    return answer


def message_again(Message message, int failed, /):
    """The same message, as it is after so many failed attempts at handling it."""
    cdef _Again again = _Again.__new__(_Again)
    again.chunk = message.chunk
    again.index = message.index
    again.run = message.run
    again.seen_as = message.shared()
    again.failed = failed
    return again


cdef Message new_decoded(_Chunk chunk, size_t index, size_t run):
    cdef _Decoded message = _Decoded.__new__(_Decoded)
    message.chunk = chunk
    message.index = index
    message.run = <uint32_t>run
    return message


cdef inline Message new_message(_Chunk chunk, size_t index, size_t run):
    cdef tl_record *record
    cdef Message message
    cdef PyObject *held = <PyObject *>None
    if chunk.runs[run].decoded:
        return new_decoded(chunk, index, run)
    record = &chunk.c.records[index]
    if record.value_bytes > HELD_BYTES:
        return new_decoded(chunk, index, run)
    if record.value_bytes >= 0:
        held = owned_bytes(chunk.c.bytes + record.value_at, record.value_bytes)
        pin(held, record.value_bytes)
    else:
        Py_INCREF(None)
    message = glue_message(<PyObject *>chunk, held)
    message.index = index
    message.run = <uint32_t>run
    return message
