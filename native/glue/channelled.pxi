# What do all messages of one channel share?
#
# Made once per channel handle and never changed, so any thread may use it. The functions in it are Python's and are
# called with the GIL held, outside all native locks.

cdef class Channelled:
    """What messages of a channel share: built once per channel handle, handed to readers and senders.

    `name`: the channel; `kind`: "queue" or "topic". `encode`, `decode` and their `_many` forms turn values into bytes
    and back, None where values are bytes already. `dtype`: numpy dtype of fixed-width rows or None; `rows`: makes one
    contiguous array of the dtype from whatever `send_many` takes. `key_bytes`: the bytes of a key. `decompress`:
    (codec id, payload) -> records. `max_message_bytes`: the most that key and value of a message may take together.
    `carries`: what a message without the header message-kind is: "command", "event" or "document".
    `type_of`: the name of a value's type, written as the header "type", or None: no such header is written.
    `decode_message`: (message, bytes) -> value, for values that the headers have a say in; None: the bytes alone tell.
    `answer`: (message, value, error, headers) -> Receipt, what `Message.reply` does; set once by who opens the channel.
    """

    cdef readonly str name, kind, carries
    cdef object encode, decode, encode_many, decode_many, rows, dtype, key_bytes, decompress, type_of, decode_message
    cdef public object answer
    cdef dict type_blocks  # by type name: the header block of a message that has no other header
    cdef int64_t max_message_bytes
    cdef size_t row_bytes  # 0: values have no fixed width

    def __init__(
        self,
        str name,
        str kind,
        *,
        encode,
        decode,
        encode_many,
        decode_many,
        dtype,
        key_bytes,
        decompress,
        max_message_bytes,
        rows=None,
        carries=None,
        type_of=None,
        decode_message=None,
    ):
        self.name = name
        self.kind = kind
        self.carries = carries if carries is not None else ("command" if kind == "queue" else "event")
        self.encode = encode
        self.decode = decode
        self.encode_many = encode_many
        self.decode_many = decode_many
        self.rows = rows
        self.dtype = dtype
        self.key_bytes = key_bytes
        self.decompress = decompress
        self.max_message_bytes = max_message_bytes
        self.row_bytes = 0 if dtype is None else dtype.itemsize
        self.type_of = type_of
        self.decode_message = decode_message
        self.answer = None
        self.type_blocks = {}

    def __repr__(self):
        return f"<Channelled {self.kind} {self.name!r}>"

    cdef object value_of(self, bytes data):
        """The value that stored bytes stand for; None for a null value (a tombstone of Kafka's)."""
        if data is None or self.decode is None:
            return data
        return self.decode(data)

    cdef bytes header_block(self, object headers, object message_id, object value):
        """The header block of a message with this value, with the header "type" where the channel writes it."""
        cdef str name
        cdef bytes block
        if self.type_of is None:
            return encode_headers(headers, message_id, None)
        name = self.type_of(value)
        if headers is not None or message_id is not None:
            return encode_headers(headers, message_id, name)
        found = self.type_blocks.get(name)
        if found is not None:
            return found
        block = encode_headers(None, None, name)
        self.type_blocks[name] = block
        return block

    cdef object unpack(self, unsigned codec_id, const uint8_t *payload, size_t size_bytes):
        """The records of a compressed batch, as bytes. Raises DecodeError, NotSupported."""
        records = self.decompress(codec_id, PyBytes_FromStringAndSize(<const char *>payload, <Py_ssize_t>size_bytes))
        if type(records) is not bytes:
            records = bytes(records)
        return records
