# How do the ids that callers give messages reach the core?
#
# The core knows ids by a keyed hash; the key belongs to the partition. Called with the GIL held, before the append, while
# the texts are kept alive by the caller.

cdef enum:
    SHORT_ID_BYTES = 100         # ids up to this long get their header block on the stack

cdef struct _IdBlock:
    uint8_t at[SHORT_ID_BYTES + 16]


cdef size_t put_id_block(_IdBlock *block, const char *text, size_t size_bytes) noexcept:
    """Writes the header block of a message that has nothing but a short id; its length."""
    cdef uint8_t *p = tl_varint_put(block.at, 1)
    p = tl_varint_put(p, 10)
    memcpy(p, b"message-id", 10)
    p = tl_varint_put(p + 10, <int64_t>size_bytes)
    memcpy(p, text, size_bytes)
    return <size_t>(p - block.at) + size_bytes


cdef const char *id_text(object name, Py_ssize_t *size_bytes) except NULL:
    """The bytes of an id. Raises TypeError, ValueError."""
    if type(name) is not str and not isinstance(name, str):
        raise TypeError(f"a message id is a str, not {type(name).__qualname__}")
    cdef const char *text = PyUnicode_AsUTF8AndSize(name, size_bytes)
    if size_bytes[0] == 0:
        raise ValueError("a message id has at least one character: two messages with an empty one would be duplicates; "
                         "give id=None for none")
    return text


cdef int hash_id(tl_partition *partition, object name, tl_message_id *out) except -1:
    """What the core knows the id `name` by; None: no id."""
    cdef Py_ssize_t size_bytes = 0
    cdef const char *text
    out.hash[0] = out.hash[1] = 0
    if name is not None:
        text = id_text(name, &size_bytes)
        tl_ids_hash(tl_ids_key(partition), text, <size_t>size_bytes, out)
    return 0


cdef int _unpack_for_ids(void *context, tl_chunk *chunk, const tl_batch *batch, size_t payload_at, size_t payload_bytes,
                         tl_error *err) noexcept with gil:
    """As _unpack, but a batch that cannot be unpacked by anybody has no ids, and stops nobody from sending."""
    cdef _Unpacker self = <_Unpacker>context
    cdef int code = _unpack(context, chunk, batch, payload_at, payload_bytes, err)
    if code == TL_EINVAL and isinstance(self.error, DecodeError):
        self.error = None
        return TL_ECORRUPT
    return code


cdef bint carries_no_ids(const tl_message *messages, const tl_message_id *ids, size_t count) noexcept:
    """Whether no message but those with an id in `ids` (NULL: none) can have the header message-id."""
    cdef size_t i
    for i in range(count):
        if messages[i].headers_bytes and (ids == NULL or ids[i].hash[0] == 0):
            return False
    return True
