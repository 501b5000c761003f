# What headers does a message carry, and how are they written?
#
# A block is what stands in a record: varint count, then per header varint length and name, varint length (-1: null) and
# value. Names that are not UTF-8 pass through unchanged (surrogateescape). Headers never change after they were made.

@cython.collection_type("mapping")
cdef class Headers:
    """The headers of a message: an ordered mapping from name (str) to value (bytes).

    `Headers(pairs)` takes (name, value) pairs; str values are written as UTF-8. Of repeated names the last one wins;
    `all` keeps them. A null value, which only Kafka clients write, reads as b"" here and as None in `all`.
    Raises TypeError for other names and values.
    """

    cdef list pairs
    cdef dict last

    def __init__(self, pairs=(), /):
        cdef list checked = []
        for name, value in _pairs_of(pairs):
            checked.append((_check_name(name), _header_value(name, value)))
        self.pairs = checked
        self.last = None

    cdef dict table(self):
        if self.last is None:
            self.last = {name: (b"" if value is None else value) for name, value in self.pairs}
        return self.last

    @property
    def all(self):
        """Every header in order as (name, value or None), repeats included."""
        return list(self.pairs)

    def __getitem__(self, name, /):
        return self.table()[name]

    def __iter__(self):
        return iter(self.table())

    def __len__(self):
        return len(self.table())

    def __contains__(self, name):
        return name in self.table()

    def __eq__(self, other):
        if isinstance(other, Headers):
            return self.pairs == (<Headers>other).pairs
        if isinstance(other, Mapping):
            return self.table() == dict(other)
        return NotImplemented

    __hash__ = None

    def __repr__(self):
        return f"Headers({self.pairs!r})"

    def __reduce__(self):
        return Headers, (list(self.pairs),)

    def get(self, name, default=None, /):
        """The value of `name` (bytes), or `default`."""
        return self.table().get(name, default)

    def keys(self):
        """The names in order, without repeats."""
        return self.table().keys()

    def values(self):
        """The values in the order of `keys`."""
        return self.table().values()

    def items(self):
        """(name, value) in the order of `keys`."""
        return self.table().items()


Mapping.register(Headers)

cdef Headers _NO_HEADERS = Headers()


cdef object _pairs_of(object headers):
    if isinstance(headers, Headers):
        return (<Headers>headers).pairs
    if isinstance(headers, Mapping):
        return headers.items()
    return headers


cdef str _check_name(object name):
    if not isinstance(name, str):
        raise TypeError(f"a header's name is a str, not {type(name).__qualname__}")
    return str(name)


cdef bytes _header_value(object name, object value):
    if value is None or type(value) is bytes:
        return value
    if isinstance(value, str):
        return (<str>value).encode("utf-8", "surrogateescape")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"the header {name!r} is {type(value).__qualname__}: a value is bytes or str; write str(value)")


cdef bytes encode_headers(object headers, object message_id, str type_name):
    """The block of `headers` (a mapping, pairs or None), of an `id=`, which travels as "message-id", and of the name of
    the value's type, which replaces a "type" among the headers; None: empty."""
    cdef list parts = []
    cdef size_t total = 0
    cdef bytes name_bytes, value_bytes
    cdef Py_ssize_t id_bytes = 0
    if headers is not None:
        for name, value in _pairs_of(headers):
            if type_name is not None and name == "type":
                continue  # of a message that is passed on
            name_bytes = _check_name(name).encode("utf-8", "surrogateescape")
            value_bytes = _header_value(name, value)
            parts.append(name_bytes)
            parts.append(value_bytes)
            total += _header_bytes(name_bytes, value_bytes)
    if message_id is not None:
        id_text(message_id, &id_bytes)
        value_bytes = (<str>message_id).encode()
        parts.append(b"message-id")
        parts.append(value_bytes)
        total += _header_bytes(b"message-id", value_bytes)
    if type_name is not None:
        value_bytes = type_name.encode("utf-8", "surrogateescape")
        parts.append(b"type")
        parts.append(value_bytes)
        total += _header_bytes(b"type", value_bytes)
    cdef Py_ssize_t i, count = PyList_GET_SIZE(parts) // 2
    if count == 0:
        return None
    total += tl_varint_size(count)
    if total > 0x7FFFFFFF:
        raise TooLarge(f"the headers take {total} bytes, more than a record can hold; put the data into the value")
    cdef bytes block = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    cdef uint8_t *p = tl_varint_put(<uint8_t *>PyBytes_AS_STRING(block), count)
    for i in range(count):
        p = _put_field(p, parts[2 * i])
        p = _put_field(p, parts[2 * i + 1])
    return block


cdef size_t _header_bytes(bytes name, bytes value) except? 0:
    cdef Py_ssize_t name_bytes = PyBytes_GET_SIZE(name)
    cdef Py_ssize_t value_bytes = -1 if value is None else PyBytes_GET_SIZE(value)
    return (tl_varint_size(name_bytes) + <size_t>name_bytes + tl_varint_size(value_bytes) +
            <size_t>(value_bytes if value_bytes > 0 else 0))


cdef uint8_t *_put_field(uint8_t *p, bytes data) except NULL:
    if data is None:
        return tl_varint_put(p, -1)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(data)
    p = tl_varint_put(p, count)
    memcpy(p, PyBytes_AS_STRING(data), <size_t>count)
    return p + count


cdef Headers decode_headers(const uint8_t *base, size_t at, size_t size_bytes):
    """The headers of the block at base[at, at + size_bytes), which the core has checked when it decoded the record."""
    if size_bytes == 0:
        return _NO_HEADERS
    cdef Headers headers = Headers.__new__(Headers)
    cdef size_t end = at + size_bytes
    cdef int32_t left = -1, value_bytes = 0
    cdef uint32_t name_at = 0, name_bytes = 0, value_at = 0
    cdef int more
    cdef list pairs = []
    while True:
        more = tl_header_next(base, &at, end, &left, &name_at, &name_bytes, &value_at, &value_bytes)
        if more == 0:
            break
        if more < 0:
            raise DecodeError("the headers of this message are damaged; read .raw, or run: tidelog check")
        pairs.append((
            PyUnicode_DecodeUTF8(<char *>base + name_at, name_bytes, "surrogateescape"),
            None if value_bytes < 0 else PyBytes_FromStringAndSize(<char *>base + value_at, value_bytes),
        ))
    headers.pairs = pairs
    headers.last = None
    return headers
