# What are many received messages together: a sequence, and columns?
#
# A Batch is a stretch of a chunk; slices share it. Lists of values are made once and kept. Never changes; any thread.

@cython.collection_type("sequence")
cdef class Batch:
    """Messages that were received together: a sequence of Message, and columns.

    Slices share the memory. `values` of a channel with a numpy dtype is one array of it, otherwise a list.
    """

    cdef _Chunk chunk
    cdef size_t start, stop
    cdef object decoded  # what `values` answered, None: not yet

    @property
    def values(self):
        """Every value: an array of the channel's dtype, or a list. Raises DecodeError naming the first wrong one."""
        if self.decoded is None:
            self.decoded = self.all_values()
        return self.decoded

    cdef object all_values(self):
        cdef _Chunk chunk = self.chunk
        cdef size_t run, at, end
        cdef Channelled shared, other
        if chunk.rows is not None:
            return chunk.rows[self.start:self.stop]
        if chunk.run_count == 0:
            return []
        cdef size_t first = chunk.run_of(self.start)
        shared = chunk.shared_of(first)
        for run in range(first + 1, chunk.run_count):
            if chunk.runs[run].first >= self.stop:
                break
            if chunk.shared_of(run) is not shared:
                break
        else:
            return values_between(chunk, shared, self.start, self.stop)
        if run >= chunk.run_count or chunk.runs[run].first >= self.stop:
            return values_between(chunk, shared, self.start, self.stop)
        cdef list several = []
        run = first
        at = self.start
        while at < self.stop:
            end = min(chunk.run_end(run), self.stop)
            several.extend(values_between(chunk, chunk.shared_of(run), at, end))
            at = end
            run += 1
        return several

    @property
    def raws(self):
        """The stored bytes of every value, as a list (b"" for a null one)."""
        cdef size_t i
        if self.chunk.rows is None:
            return raws_between(self.chunk, self.start, self.stop, b"", NULL)
        return [self.chunk.raw_of(i) for i in range(self.start, self.stop)]

    @property
    def keys(self):
        """The key of every message, bytes or None, as a list."""
        cdef size_t i
        return [self.chunk.key_of(i) for i in range(self.start, self.stop)]

    @property
    def offsets(self):
        """The offset of every message: int64 array."""
        if self.chunk.rows is not None:
            return self.chunk.row_offsets[self.start:self.stop]
        cdef size_t i, count = self.stop - self.start
        out = int64_array(count)
        cdef int64_t *to = <int64_t *>data_of(out) if count else NULL
        cdef tl_record *records = self.chunk.c.records + self.start
        for i in range(count):
            to[i] = records[i].offset
        return out

    @property
    def timestamps(self):
        """When every message was created: datetime64[ms] array, UTC."""
        if self.chunk.rows is not None:
            return self.chunk.row_timestamps[self.start:self.stop].view("M8[ms]")
        cdef size_t i, count = self.stop - self.start
        out = int64_array(count)
        cdef int64_t *to = <int64_t *>data_of(out) if count else NULL
        cdef tl_record *records = self.chunk.c.records + self.start
        for i in range(count):
            to[i] = records[i].timestamp_ms
        return out.view("M8[ms]")

    @property
    def partitions(self):
        """The partition number of every message: int32 array."""
        cdef size_t count = self.stop - self.start
        out = int32_array(count)
        if count:
            self.fill_partitions(<int32_t *>data_of(out))
        return out

    cdef int fill_partitions(self, int32_t *to) noexcept:
        cdef size_t at = self.start, run = self.chunk.run_of(self.start), end, i
        while at < self.stop:
            end = min(self.chunk.run_end(run), self.stop)
            for i in range(at, end):
                to[i - self.start] = self.chunk.runs[run].partition
            at = end
            run += 1
        return 0

    @property
    def nbytes(self):
        """Bytes of all keys and values (int)."""
        cdef size_t i, total = 0
        cdef tl_record *record
        for i in range(self.start, self.stop):
            record = self.chunk.key_record(i)
            if record.key_bytes > 0:
                total += <size_t>record.key_bytes
            if self.chunk.rows is None and record.value_bytes > 0:
                total += <size_t>record.value_bytes
        if self.chunk.rows is not None:
            total += (self.stop - self.start) * <size_t>self.chunk.rows.dtype.itemsize
        return total

    def ends(self):
        """{partition: last offset + 1} of the messages in the batch."""
        cdef dict found = {}
        for name, run, offset in batch_ends(self):
            number = self.chunk.runs[run].partition
            found[number] = max(offset, found.get(number, 0))
        return found

    def __len__(self):
        return <Py_ssize_t>(self.stop - self.start)

    def __getitem__(self, index, /):
        cdef Py_ssize_t count = <Py_ssize_t>(self.stop - self.start), at, first, step
        if isinstance(index, slice):
            start, stop, stride = index.indices(count)
            first, step = start, stride
            at = len(range(start, stop, stride))
            if step == 1:
                return new_batch(self.chunk, self.start + <size_t>first, self.start + <size_t>(first + at))
            return new_batch(self.chunk.pick(self.start + <size_t>first, step, <size_t>at), 0, <size_t>at)
        at = index
        if at < 0:
            at += count
        if not 0 <= at < count:
            raise IndexError(f"there is no message {index} among {count}")
        return new_message(self.chunk, self.start + <size_t>at, self.chunk.run_of(self.start + <size_t>at))

    def __iter__(self):
        cdef _Messages messages = _Messages.__new__(_Messages)
        messages.chunk = self.chunk
        messages.at = self.start
        messages.stop = self.stop
        messages.run = self.chunk.run_of(self.start)
        messages.run_stop = self.chunk.run_end(messages.run) if self.stop > self.start else 0
        return messages

    def __reversed__(self):
        return iter(self[::-1])

    def __contains__(self, message):
        return any(message is one or message == one for one in self)

    def index(self, value, start=0, stop=None, /):
        """The index of the first message equal to `value`. Raises ValueError. Messages are equal only to themselves."""
        for at in range(*slice(start, stop).indices(len(self))):
            if self[at] == value:
                return at
        raise ValueError("the message is not in the batch")

    def count(self, value, /):
        """How many messages equal `value`."""
        return sum(1 for one in self if one == value)

    def __repr__(self):
        ends = ", ".join(f"{partition}: {end}" for partition, end in sorted(self.ends().items()))
        return f"<Batch of {len(self)} messages, ends {{{ends}}}>"

    def __arrow_c_stream__(self, requested_schema=None):
        """The batch as an Arrow stream of one record batch (PyCapsule interface; pyarrow, polars, duckdb take it).

        Columns: value (binary), or one per field of the channel's dtype; key, offset, timestamp, partition.
        Raises NotSupported for fields that Arrow's plain types cannot hold.
        """
        return arrow_stream(self)

    @classmethod
    def __class_getitem__(cls, item, /):
        return GenericAlias(cls, item)


Sequence.register(Batch)


cdef Batch new_batch(_Chunk chunk, size_t start, size_t stop):
    cdef Batch batch = Batch.__new__(Batch)
    batch.chunk = chunk
    batch.start = start
    batch.stop = stop
    return batch


cdef list batch_ends(Batch batch):
    """(channel, a run, largest offset + 1) for each partition of each channel in a batch."""
    cdef dict found = {}
    cdef _Chunk chunk = batch.chunk
    cdef size_t at = batch.start, run, end, i
    cdef int64_t offset
    run = chunk.run_of(at)
    while at < batch.stop:
        end = min(chunk.run_end(run), batch.stop)
        if end > at:
            offset = chunk.offset_of(end - 1)
            if chunk.reader == 0 or chunk.offset_of(at) > offset:  # read(offsets) or a slice: in any order
                for i in range(at, end):
                    offset = max(offset, chunk.offset_of(i))
            key = (chunk.shared_of(run).name, chunk.runs[run].partition)
            known = found.get(key)
            if known is None or known[2] <= offset:
                found[key] = (key[0], run, offset + 1)
        at = end
        run += 1
    return list(found.values())


@cython.final
@cython.freelist(8)
cdef class _Messages:
    """The iterator over a batch."""

    cdef _Chunk chunk
    cdef size_t at, stop, run, run_stop

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= self.stop:
            raise StopIteration
        while self.at >= self.run_stop:
            self.run += 1
            self.run_stop = self.chunk.run_end(self.run)
        self.at += 1
        return new_message(self.chunk, self.at - 1, self.run)

    def __length_hint__(self):
        return <Py_ssize_t>(self.stop - self.at)


cdef list raws_between(_Chunk chunk, size_t start, size_t stop, object null, bint *nulls):
    """The values' bytes of a chunk of records; `null` stands for null ones, *nulls (may be NULL): there are some."""
    cdef Py_ssize_t i, count = <Py_ssize_t>(stop - start)
    cdef list out = PyList_New(count)
    cdef tl_record *record = chunk.c.records + start
    cdef const uint8_t *base = chunk.c.bytes
    cdef object value
    for i in range(count):
        if record.value_bytes >= 0:
            value = glue_bytes(base + record.value_at, record.value_bytes)
        else:
            value = null
            if nulls != NULL:
                nulls[0] = True
        Py_INCREF(value)
        PyList_SET_ITEM(out, i, value)
        record += 1
    pin_some(out)
    return out


cdef object values_between(_Chunk chunk, Channelled shared, size_t start, size_t stop):
    """The values of messages of one channel in a chunk of records."""
    if shared.row_bytes:
        return rows_between(chunk, shared, start, stop)
    if shared.decode_message is not None:
        return messages_between(chunk, shared, start, stop)
    cdef bint nulls = False
    cdef list raws = raws_between(chunk, start, stop, None, &nulls)
    if shared.decode is None:
        return raws
    if shared.decode_many is None or nulls:
        return [shared.value_of(raw) for raw in raws]
    return shared.decode_many(raws)


cdef list messages_between(_Chunk chunk, Channelled shared, size_t start, size_t stop):
    """The values of messages whose headers have a say in them."""
    cdef list values = []
    cdef size_t i
    for i in range(start, stop):
        try:
            values.append(decoded_value(new_message(chunk, i, chunk.run_of(i)), shared))
        except DecodeError as error:
            raise DecodeError(f"message {i - start}: {error}") from error
    return values


cdef object rows_between(_Chunk chunk, Channelled shared, size_t start, size_t stop):
    """Fixed-width values as one array of the channel's dtype, owned by the array."""
    cdef size_t i, count = stop - start, row_bytes = shared.row_bytes
    out = numpy().empty(count, shared.dtype)
    if count == 0:
        return out
    cdef _View view = view_of(out.view("u1"))
    cdef uint8_t *to = <uint8_t *>view.at()
    cdef tl_record *record = chunk.c.records + start
    for i in range(count):
        if record.value_bytes != <int64_t>row_bytes:
            raise DecodeError(
                f"message {i} (offset {record.offset}) has {max(record.value_bytes, 0)} bytes, but rows of "
                f"{shared.name!r} have {row_bytes}; read .raws, or open the channel as bytes")
        memcpy(to, chunk.c.bytes + record.value_at, row_bytes)
        to += row_bytes
        record += 1
    return out
