# What goes with the values of a `send_many`: keys, headers, ids, timestamps?
#
# Each of them is one for all messages or runs parallel to the values. `advance` runs all Python code of a round
# (iterators, key functions, encoders) and keeps what it made; `fill` and `choose` then only take pointers into that.

cdef extern from *:
    bint PyList_CheckExact(object o)


cdef bint all_bytes(object items, Py_ssize_t count) noexcept:
    """Whether a list or tuple holds nothing but exact bytes."""
    cdef PyObject **at = PySequence_Fast_ITEMS(items)
    cdef Py_ssize_t i
    for i in range(count):
        if not PyBytes_CheckExact(at[i]):
            return False
    return True


cdef int raise_too_large(Channelled shared, Py_ssize_t value_bytes, Py_ssize_t key_bytes, str which) except -1:
    key = f" and its key {key_bytes}" if key_bytes > 0 else ""
    raise TooLarge(f"{which}the value has {value_bytes} bytes{key}, but {shared.name!r} takes messages of at most "
                   f"{shared.max_message_bytes}: send a smaller one, or open the channel with a larger "
                   f"max_message_bytes")


cdef inline int64_t clock_ms() noexcept:
    """The time a message gets that was given none. Exact, at 20 ns: with a coarse clock (4 ns) a message could be older
    than the moment before its `send`, and be missed by whoever reads from that moment on."""
    return tl_os.now_ms()


cdef int64_t milliseconds(object timestamp) except? -9223372036854775807:
    """An aware datetime, seconds since 1970 (int, float) or a datetime64, in ms. Raises TypeError, ValueError."""
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError(f"the timestamp {timestamp!r} has no time zone: use datetime.now(timezone.utc)")
        return (timestamp - _EPOCH) // _MILLISECOND
    if hasattr(timestamp, "dtype") and timestamp.dtype.kind == "M":
        return int(timestamp.astype("M8[ms]").astype("i8"))
    if isinstance(timestamp, bool) or not hasattr(timestamp, "__float__"):
        raise TypeError(f"a timestamp is an aware datetime or seconds since 1970, not {type(timestamp).__name__}")
    cdef double seconds = timestamp
    if not -9e15 < seconds * 1000 < 9e15:
        raise ValueError(f"the timestamp {timestamp!r} is no time in seconds since 1970")
    return <int64_t>round_to_nearest(seconds * 1000)


cdef extern from "math.h":
    double round_to_nearest "nearbyint"(double x)

_MILLISECOND = timedelta(milliseconds=1)


@cython.final
cdef class _Parallel:
    """A list, tuple, array or iterator that is used up in step with the values."""

    cdef object source  # list, tuple or iterator
    cdef str what
    cdef Py_ssize_t at, total  # total: -1 for an iterator

    cdef int begin(self, object given, str what, Py_ssize_t count) except -1:
        self.what = what
        if hasattr(given, "dtype"):
            given = given.tolist()
        # Apart: of a union Cython loses what the last check raises, and that one runs Python (a signal may be handled).
        if isinstance(given, str | bytes) or isinstance(given, Mapping):
            raise TypeError(f"{what} of {type(given).__qualname__}: give a sequence with one for each message")
        if isinstance(given, list | tuple):
            self.source = given
            self.total = len(given)
            if count >= 0 and self.total != count:
                raise ValueError(f"{self.total} {what} for {count} messages: give one for each")
        else:
            self.source = iter(given)
            self.total = -1
        return 0

    cdef object advance(self, Py_ssize_t count):
        """The next `count` as a list or tuple."""
        if self.total == count and self.at == 0:
            self.at = count
            return self.source
        if self.total >= 0:
            taken = self.source[self.at:self.at + count]
        else:
            taken = list(islice(self.source, count))
        self.at += len(taken)
        if len(taken) != count:
            raise ValueError(f"there are only {self.at} {self.what}, and more messages: give one for each")
        return taken

    cdef int finish(self) except -1:
        more = self.at < self.total if self.total >= 0 else next(self.source, self) is not self
        if more:
            raise ValueError(f"there are more {self.what} than messages ({self.at}): give one for each")
        return 0


@cython.final
cdef class _Beside:
    cdef Channelled shared
    cdef object key_function
    cdef _Parallel keys, headers, ids, stamps
    cdef bytes common_headers
    cdef bint keyed              # keys or ids choose the partitions
    cdef bint timed              # a timestamp was given
    cdef bint endless            # the same headers again and again
    cdef int64_t timestamp_ms    # one for all
    # of this round:
    cdef object round_keys, round_stamps
    cdef tuple round_ids
    cdef list round_headers

    cdef int begin(self, Channelled shared, object keys, object headers, object ids, object timestamp,
                   Py_ssize_t count) except -1:
        """`count`: how many messages there will be, -1: not known."""
        self.shared = shared
        if keys is not None:
            self.keyed = True
            if callable(keys):
                self.key_function = keys
            else:
                self.keys = _Parallel.__new__(_Parallel)
                self.keys.begin(keys, "keys", count)
        if headers is not None:
            if isinstance(headers, Mapping):
                self.common_headers = encode_headers(headers, None, None)
                if ids is not None or shared.type_of is not None:
                    self.common_headers = None
                    self.headers = None
                    headers = repeat(headers)
                    self.endless = True
            if not isinstance(headers, Mapping):
                self.headers = _Parallel.__new__(_Parallel)
                self.headers.begin(headers, "headers", count)
        if ids is not None:
            self.keyed = True
            self.ids = _Parallel.__new__(_Parallel)
            self.ids.begin(ids, "ids", count)
        if timestamp is not None:
            self.timed = True
            if isinstance(timestamp, list | tuple) or getattr(timestamp, "ndim", 0) == 1:
                if hasattr(timestamp, "dtype") and timestamp.dtype.kind == "M":
                    timestamp = list(timestamp)  # numpy's scalars: tolist() would make naive datetimes
                self.stamps = _Parallel.__new__(_Parallel)
                self.stamps.begin(timestamp, "timestamps", count)
            else:
                self.timestamp_ms = milliseconds(timestamp)
        return 0

    cdef int advance(self, object items, Py_ssize_t count) except -1:
        """All Python code of a round whose values are `items`."""
        cdef object keys = None
        if self.key_function is not None:
            function = self.key_function
            keys = [function(item) for item in items]
            if len(keys) != count:
                raise ValueError("the list of values changed while it was sent")
        elif self.keys is not None:
            keys = self.keys.advance(count)
        if keys is not None:
            keys = self.plain_keys(keys)
        self.round_keys = keys
        self.round_ids = None if self.ids is None else tuple(self.ids.advance(count))
        self.round_headers = None
        given = None if self.headers is None else self.headers.advance(count)
        if self.shared.type_of is not None:
            self.round_headers = self.typed_headers(items, given, count)
        elif given is not None:
            if self.round_ids is None:
                self.round_headers = [encode_headers(one, None, None) for one in given]
            else:
                self.round_headers = [encode_headers(one, name, None) for one, name in zip(given, self.round_ids)]
        elif self.round_ids is not None:
            self.round_headers = [encode_headers(None, name, None) for name in self.round_ids]
        self.round_stamps = None
        if self.stamps is not None:
            self.round_stamps = [milliseconds(one) for one in self.stamps.advance(count)]
        return 0

    cdef list typed_headers(self, object items, object given, Py_ssize_t count):
        """The header blocks of a round on a channel whose messages say their type."""
        cdef list blocks = []
        cdef Py_ssize_t i = 0
        for item in items:
            if i == count:
                break
            try:
                blocks.append(self.shared.header_block(None if given is None else given[i],
                                                       None if self.round_ids is None else self.round_ids[i], item))
            except SchemaMismatch as error:
                raise SchemaMismatch(f"value {i}: {error}") from error
            i += 1
        if i != count:
            raise ValueError("the list of values changed while it was sent")
        return blocks

    cdef object plain_keys(self, object keys):
        """The keys as a tuple of bytes, str or None."""
        cdef Py_ssize_t i = 0
        for key in keys:
            if type(key) is not bytes and type(key) is not str and key is not None:
                break
        else:
            return tuple(keys)
        function = self.shared.key_bytes
        cdef list plain = []
        for key in keys:
            try:
                plain.append(key if type(key) is bytes else function(key))
            except (TypeError, ValueError) as error:
                raise type(error)(f"key {i}: {error}") from None
            i += 1
        return tuple(plain)

    cdef Py_ssize_t fill(self, tl_message *messages, Py_ssize_t count, int64_t max_message_bytes) except -1:
        """Keys, headers and times into the entries; the bytes of keys and headers together."""
        cdef Py_ssize_t i, total = 0, size_bytes
        cdef object key
        cdef bytes block
        if self.round_keys is not None:
            for i in range(count):
                key = <object>PyTuple_GET_ITEM(self.round_keys, i)
                if type(key) is bytes:
                    messages[i].key = <const uint8_t *>PyBytes_AS_STRING(key)
                    size_bytes = PyBytes_GET_SIZE(key)
                elif key is None:
                    continue
                else:
                    messages[i].key = <const uint8_t *>PyUnicode_AsUTF8AndSize(key, &size_bytes)
                if size_bytes + messages[i].value_bytes > max_message_bytes:
                    raise_too_large(self.shared, messages[i].value_bytes, size_bytes, f"message {i} of this round: ")
                messages[i].key_bytes = <int32_t>size_bytes
                total += size_bytes
        if self.round_headers is not None:
            for i in range(count):
                block = self.round_headers[i]
                if block is not None:
                    messages[i].headers = <const uint8_t *>PyBytes_AS_STRING(block)
                    messages[i].headers_bytes = <uint32_t>PyBytes_GET_SIZE(block)
                    total += PyBytes_GET_SIZE(block)
        elif self.common_headers is not None:
            for i in range(count):
                messages[i].headers = <const uint8_t *>PyBytes_AS_STRING(self.common_headers)
                messages[i].headers_bytes = <uint32_t>PyBytes_GET_SIZE(self.common_headers)
            total += count * PyBytes_GET_SIZE(self.common_headers)
        if self.round_stamps is not None:
            for i in range(count):
                messages[i].timestamp_ms = self.round_stamps[i]
        return total

    cdef int choose(self, const tl_message *messages, Py_ssize_t count, uint32_t partitions, uint32_t keyless,
                    uint32_t *chosen) except -1:
        """Kafka's rule for every message: by key, else by id, else `keyless`."""
        cdef const uint8_t *at[256]
        cdef int32_t size_bytes[256]
        cdef Py_ssize_t i, first = 0, block, text_bytes = 0
        while first < count:
            block = min(count - first, 256)
            for i in range(block):
                at[i] = messages[first + i].key
                size_bytes[i] = messages[first + i].key_bytes
                if at[i] == NULL and self.round_ids is not None and self.round_ids[first + i] is not None:
                    at[i] = <const uint8_t *>PyUnicode_AsUTF8AndSize(self.round_ids[first + i], &text_bytes)
                    size_bytes[i] = <int32_t>text_bytes
            tl_partition_slices(at, size_bytes, <size_t>block, partitions, chosen + first)
            for i in range(first, first + block):
                if chosen[i] == NO_PARTITION:
                    chosen[i] = keyless
            first += block
        return 0

    cdef int finish(self) except -1:
        for parallel in (self.keys, self.headers, self.ids, self.stamps):
            if parallel is not None and not (self.endless and parallel is self.headers):
                (<_Parallel>parallel).finish()
        return 0
