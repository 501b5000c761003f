# How does a Batch go to pyarrow, polars or duckdb?
#
# By the Arrow C stream interface, written out by hand so that none of them is needed here. Every buffer is a copy in
# the core's memory: release callbacks touch no Python object and may be called from any thread without the GIL.

cdef extern from *:
    """
    #ifndef ARROW_C_DATA_INTERFACE
    #define ARROW_C_DATA_INTERFACE
    struct ArrowSchema {
        const char *format, *name, *metadata;
        int64_t flags, n_children;
        struct ArrowSchema **children;
        struct ArrowSchema *dictionary;
        void (*release)(struct ArrowSchema *);
        void *private_data;
    };
    struct ArrowArray {
        int64_t length, null_count, offset, n_buffers, n_children;
        const void **buffers;
        struct ArrowArray **children;
        struct ArrowArray *dictionary;
        void (*release)(struct ArrowArray *);
        void *private_data;
    };
    #endif
    #ifndef ARROW_C_STREAM_INTERFACE
    #define ARROW_C_STREAM_INTERFACE
    struct ArrowArrayStream {
        int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
        int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
        const char *(*get_last_error)(struct ArrowArrayStream *);
        void (*release)(struct ArrowArrayStream *);
        void *private_data;
    };
    #endif
    """
    struct ArrowSchema:
        const char *format
        const char *name
        const char *metadata
        int64_t flags
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept nogil
        void *private_data

    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
        void (*release)(ArrowArrayStream *) noexcept nogil
        void *private_data

    object PyCapsule_New(void *pointer, const char *name, void (*destructor)(PyObject *) noexcept)
    void *PyCapsule_GetPointer(PyObject *capsule, const char *name)

cdef enum:
    ARROW_NULLABLE = 2

# One column; `text` is name and format, each ended by a NUL. The memory is the table's until the array takes it over.
cdef struct _Column:
    char *text
    size_t name_bytes
    int64_t flags, nulls
    int buffer_count
    void *buffers[3]

cdef struct _Table:
    size_t count, room
    int64_t length
    bint given           # the one record batch was handed out
    _Column *columns


cdef object arrow_stream(Batch batch):
    """A capsule with a stream of one record batch."""
    cdef _Table *table = <_Table *>take(1, sizeof(_Table))
    cdef ArrowArrayStream *stream = NULL
    memset(table, 0, sizeof(_Table))
    try:
        table.length = <int64_t>(batch.stop - batch.start)
        _fill_table(table, batch)
        stream = <ArrowArrayStream *>take(1, sizeof(ArrowArrayStream))
        stream.get_schema = _stream_schema
        stream.get_next = _stream_next
        stream.get_last_error = _stream_error
        stream.release = _stream_release
        stream.private_data = table
        return PyCapsule_New(stream, b"arrow_array_stream", _capsule_end)
    except BaseException:
        _free_table(table)
        tl_os.free(stream)
        raise


cdef int _fill_table(_Table *table, Batch batch) except -1:
    cdef _Chunk chunk = batch.chunk
    cdef set taken = set()
    dtype = None
    if chunk.run_count:
        shared = chunk.shared_of(chunk.run_of(batch.start))
        if shared.row_bytes and isinstance(batch.values, numpy().ndarray):
            dtype = shared.dtype
    if dtype is None:
        _add_binary(table, "value", batch, False)
    elif dtype.names is None:
        _add_array(table, "value", batch.values)
    else:
        for name in dtype.names:
            _add_array(table, name, batch.values[name])
            taken.add(name)
    _add_binary(table, _free_name("key", taken), batch, True)
    _add_array(table, _free_name("offset", taken), batch.offsets)
    _add_array(table, _free_name("timestamp", taken), batch.timestamps, b"tsm:UTC")
    _add_array(table, _free_name("partition", taken), batch.partitions)
    return 0


cdef object _free_name(object name, set taken):
    """A field of the rows keeps its name; the message's own column gets an underscore then."""
    while name in taken:
        name = f"_{name}"
    return name


cdef _Column *_add_column(_Table *table, str name, bytes format, int buffer_count, bint nullable) except NULL:
    """A column without data; its buffers are freed with the table."""
    cdef _Column *more
    cdef _Column *column
    cdef bytes text = name.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0" + format + b"\0"
    if table.count == table.room:
        more = <_Column *>take(table.room * 2 + 8, sizeof(_Column))
        if table.count:
            memcpy(more, table.columns, table.count * sizeof(_Column))
        tl_os.free(table.columns)
        table.columns = more
        table.room = table.room * 2 + 8
    column = &table.columns[table.count]
    memset(column, 0, sizeof(_Column))
    column.text = <char *>take(<size_t>PyBytes_GET_SIZE(text), 1)
    memcpy(column.text, PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))
    column.name_bytes = strlen(column.text)
    column.flags = ARROW_NULLABLE if nullable else 0
    column.buffer_count = buffer_count
    table.count += 1
    return column


cdef int _add_binary(_Table *table, str name, Batch batch, bint keys) except -1:
    """Values or keys as variable-length bytes, null where they are null."""
    cdef size_t i, count = <size_t>table.length, total = 0
    cdef tl_record *record
    cdef const uint8_t *base = batch.chunk.c.bytes
    cdef int32_t size_bytes
    for i in range(count):
        record = batch.chunk.key_record(batch.start + i)
        size_bytes = record.key_bytes if keys else record.value_bytes
        total += <size_t>(size_bytes if size_bytes > 0 else 0)
    cdef bint wide = total > 0x7FFFFFFF
    cdef _Column *column = _add_column(table, name, b"Z" if wide else b"z", 3, True)
    column.buffers[0] = take(count // 8 + 1, 1)
    column.buffers[1] = take(count + 1, 8 if wide else 4)
    column.buffers[2] = take(total, 1)
    cdef uint8_t *valid = <uint8_t *>column.buffers[0]
    cdef uint8_t *to = <uint8_t *>column.buffers[2]
    cdef size_t at = 0
    memset(valid, 0, count // 8 + 1)
    for i in range(count + 1):
        if wide:
            (<int64_t *>column.buffers[1])[i] = <int64_t>at
        else:
            (<int32_t *>column.buffers[1])[i] = <int32_t>at
        if i == count:
            break
        record = batch.chunk.key_record(batch.start + i)
        size_bytes = record.key_bytes if keys else record.value_bytes
        if size_bytes < 0:
            column.nulls += 1
            continue
        valid[i >> 3] |= <uint8_t>(1 << (i & 7))
        memcpy(to + at, base + (record.key_at if keys else record.value_at), <size_t>size_bytes)
        at += <size_t>size_bytes
    return 0


_ARROW_FORMATS = {
    "i1": b"c", "u1": b"C", "i2": b"s", "u2": b"S", "i4": b"i", "u4": b"I", "i8": b"l", "u8": b"L",
    "f2": b"e", "f4": b"f", "f8": b"g",
}
_ARROW_UNITS = {"s": b"s", "ms": b"m", "us": b"u", "ns": b"n"}


cdef int _add_array(_Table *table, str name, object array, bytes format=None) except -1:
    """A numpy column of one dimension. Raises NotSupported for what Arrow's plain types cannot hold."""
    np = numpy()
    dtype = array.dtype
    if array.ndim != 1 or dtype.names is not None or dtype.kind not in "iufbSUmMV":
        raise NotSupported(f"the field {name!r} is {dtype} of shape {array.shape[1:]}: Arrow export takes numbers, "
                           f"text, times and bytes; use .values instead")
    array = np.ascontiguousarray(array, dtype.newbyteorder("="))
    if dtype.kind == "b":
        return _add_buffer(table, name, b"b", np.packbits(array, bitorder="little"))
    if dtype.kind == "S":
        return _add_text(table, name, b"z", array.tolist())
    if dtype.kind == "U":
        return _add_text(table, name, b"u", [text.encode("utf-8", "surrogatepass") for text in array.tolist()])
    if dtype.kind == "V":
        return _add_buffer(table, name, b"w:%d" % dtype.itemsize, array)
    if dtype.kind in "mM" and format is None:
        unit, step = np.datetime_data(dtype)
        if step != 1 or unit not in _ARROW_UNITS:
            unit = "s" if unit in ("D", "h", "m", "W", "M", "Y") else "ns"
            array = array.astype(f"{dtype.kind}8[{unit}]")
        format = (b"ts" + _ARROW_UNITS[unit] + b":") if dtype.kind == "M" else b"tD" + _ARROW_UNITS[unit]
    if format is None:
        format = _ARROW_FORMATS.get(f"{dtype.kind}{dtype.itemsize}")
        if format is None:
            raise NotSupported(f"the field {name!r} is {dtype}, which Arrow does not have; use .values instead")
    return _add_buffer(table, name, format, array)


cdef int _add_buffer(_Table *table, str name, bytes format, object array) except -1:
    cdef _Column *column = _add_column(table, name, format, 2, False)
    cdef _View view
    cdef size_t size_bytes = array.nbytes
    column.buffers[1] = take(size_bytes + 8, 1)  # never of no bytes, whose address would be of no use
    if size_bytes:
        view = view_of(array.view("u1"))
        memcpy(column.buffers[1], view.at(), size_bytes)
    return 0


cdef int _add_text(_Table *table, str name, bytes format, list texts) except -1:
    cdef size_t i, count = <size_t>table.length, at = 0, total = 0
    cdef bytes text
    for text in texts:
        total += <size_t>PyBytes_GET_SIZE(text)
    if total > 0x7FFFFFFF:
        raise NotSupported(f"the field {name!r} has more than 2 GiB of text in one batch: export smaller slices")
    cdef _Column *column = _add_column(table, name, format, 3, False)
    column.buffers[1] = take(count + 1, 4)
    column.buffers[2] = take(total, 1)
    for i in range(count):
        text = texts[i]
        (<int32_t *>column.buffers[1])[i] = <int32_t>at
        memcpy(<char *>column.buffers[2] + at, PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))
        at += <size_t>PyBytes_GET_SIZE(text)
    (<int32_t *>column.buffers[1])[count] = <int32_t>at
    return 0
