# How does the consumer of an Arrow stream take the table over and give it back?
#
# The callbacks of the C stream interface over a _Table (arrow.pxi). They never need the GIL and touch no Python object,
# so a consumer may call them from any thread. Whoever was given a struct calls its `release` once; a struct whose
# `release` is NULL is free or was moved away.

cdef enum:
    ENOMEM_ERRNO = 12


cdef void _free_table(_Table *table) noexcept nogil:
    cdef size_t i
    cdef int k
    if table == NULL:
        return
    for i in range(table.count):
        tl_os.free(table.columns[i].text)
        for k in range(3):
            tl_os.free(table.columns[i].buffers[k])
    tl_os.free(table.columns)
    tl_os.free(table)


cdef void _capsule_end(PyObject *capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, b"arrow_array_stream")
    if stream != NULL:
        if stream.release != NULL:
            stream.release(stream)
        tl_os.free(stream)


cdef const char *_stream_error(ArrowArrayStream *stream) noexcept nogil:
    return b"no memory for an Arrow schema or array"


cdef void _stream_release(ArrowArrayStream *stream) noexcept nogil:
    _free_table(<_Table *>stream.private_data)
    stream.private_data = NULL
    stream.release = NULL


# --- schema ---

cdef void _schema_release(ArrowSchema *schema) noexcept nogil:
    cdef int64_t i
    if schema.children != NULL:
        for i in range(schema.n_children):
            if schema.children[i] != NULL:
                if schema.children[i].release != NULL:
                    schema.children[i].release(schema.children[i])
                tl_os.free(schema.children[i])
        tl_os.free(schema.children)
    tl_os.free(schema.private_data)
    schema.release = NULL


cdef int _stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept nogil:
    cdef _Table *table = <_Table *>stream.private_data
    cdef size_t i, text_bytes
    cdef ArrowSchema *child
    cdef char *text
    memset(out, 0, sizeof(ArrowSchema))
    out.format = b"+s"
    out.name = b""
    out.release = _schema_release
    out.children = <ArrowSchema **>tl_os.malloc((table.count + 1) * sizeof(void *))
    if out.children == NULL:
        return _refuse_schema(out)
    for i in range(table.count):
        out.children[i] = NULL
    out.n_children = <int64_t>table.count
    for i in range(table.count):
        child = <ArrowSchema *>tl_os.malloc(sizeof(ArrowSchema))
        if child == NULL:
            return _refuse_schema(out)
        memset(child, 0, sizeof(ArrowSchema))
        out.children[i] = child
        child.release = _schema_release
        text_bytes = table.columns[i].name_bytes + 1
        text_bytes += strlen(table.columns[i].text + text_bytes) + 1
        text = <char *>tl_os.malloc(text_bytes)
        if text == NULL:
            return _refuse_schema(out)
        memcpy(text, table.columns[i].text, text_bytes)
        child.private_data = text
        child.name = text
        child.format = text + table.columns[i].name_bytes + 1
        child.flags = table.columns[i].flags
    return 0


cdef int _refuse_schema(ArrowSchema *out) noexcept nogil:
    _schema_release(out)
    return ENOMEM_ERRNO


# --- array ---

cdef void _array_release(ArrowArray *array) noexcept nogil:
    cdef int64_t i
    if array.children != NULL:
        for i in range(array.n_children):
            if array.children[i] != NULL:
                if array.children[i].release != NULL:
                    array.children[i].release(array.children[i])
                tl_os.free(array.children[i])
        tl_os.free(array.children)
    if array.buffers != NULL:
        for i in range(array.n_buffers):
            tl_os.free(<void *>array.buffers[i])
        tl_os.free(array.buffers)
    array.release = NULL


cdef int _stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept nogil:
    """The record batch, then the end (an array that is released already). Buffers move from the table to the array."""
    cdef _Table *table = <_Table *>stream.private_data
    cdef size_t i
    cdef int k
    cdef ArrowArray *child
    memset(out, 0, sizeof(ArrowArray))
    if table.given:
        return 0
    out.release = _array_release
    out.length = table.length
    out.n_buffers = 1
    out.buffers = <const void **>tl_os.malloc(sizeof(void *))
    out.children = <ArrowArray **>tl_os.malloc((table.count + 1) * sizeof(void *))
    if out.buffers == NULL or out.children == NULL:
        return _refuse_array(out)
    out.buffers[0] = NULL
    for i in range(table.count):
        out.children[i] = NULL
    out.n_children = <int64_t>table.count
    for i in range(table.count):
        child = <ArrowArray *>tl_os.malloc(sizeof(ArrowArray))
        if child == NULL:
            return _refuse_array(out)
        memset(child, 0, sizeof(ArrowArray))
        out.children[i] = child
        child.release = _array_release
        child.length = table.length
        child.null_count = table.columns[i].nulls
        child.buffers = <const void **>tl_os.malloc(3 * sizeof(void *))
        if child.buffers == NULL:
            return _refuse_array(out)
    # Nothing can fail from here on, so either all buffers move or none does.
    for i in range(table.count):
        child = out.children[i]
        child.n_buffers = table.columns[i].buffer_count
        for k in range(3):
            child.buffers[k] = table.columns[i].buffers[k]
            table.columns[i].buffers[k] = NULL
    table.given = True
    return 0


cdef int _refuse_array(ArrowArray *out) noexcept nogil:
    if out.buffers == NULL:
        out.n_buffers = 0
    _array_release(out)
    return ENOMEM_ERRNO
