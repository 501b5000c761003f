# How do Python's bytes, buffers and arrays become pointers, and pointers arrays again?
#
# Called with the GIL held. A pointer from here lives as long as the object it was taken from; callers keep that object.

cdef extern from *:
    """
    /* PyBytes_FromStringAndSize for the sizes that most values have. It takes a third of the time of reading a value, mostly
     * for calls and for what it does about empty and single bytes; what a bytes object consists of is public
     * (Include/cpython/bytesobject.h). Other interpreters, and builds that keep a list of all objects, take the usual way. */
    static inline PyObject *glue_bytes(const uint8_t *from, Py_ssize_t n) {
    #if defined(Py_DEBUG) || defined(Py_TRACE_REFS) || defined(Py_GIL_DISABLED) || defined(PYPY_VERSION) || PY_VERSION_HEX >= 0x030E0000
        return PyBytes_FromStringAndSize((const char *)from, n);
    #else
        if (n < 16 || n > 256)
            return PyBytes_FromStringAndSize((const char *)from, n);
        PyBytesObject *made = (PyBytesObject *)PyObject_Malloc(sizeof(PyBytesObject) + (size_t)n);
        if (made == NULL)
            return PyErr_NoMemory();
        Py_SET_REFCNT(made, 1);
        Py_SET_TYPE(made, &PyBytes_Type);
        Py_SET_SIZE(made, n);
        _Py_COMP_DIAG_PUSH
        _Py_COMP_DIAG_IGNORE_DEPR_DECLS
        made->ob_shash = -1;
        _Py_COMP_DIAG_POP
        tl_copy_short((uint8_t *)made->ob_sval, from, (size_t)n);
        made->ob_sval[n] = 0;
        return (PyObject *)made;
    #endif
    }
    """
    bytes glue_bytes(const uint8_t *start, Py_ssize_t size_bytes)
    PyObject *owned_bytes "glue_bytes"(const uint8_t *start, Py_ssize_t size_bytes) except NULL

cdef object _numpy = None  # imported at the first array: `import tidelog` must not pay for it


cdef object numpy():
    global _numpy
    if _numpy is None:
        import numpy as module

        _numpy = module
    return _numpy


cdef class _View:
    """A contiguous buffer held for as long as this object lives."""

    cdef Py_buffer buffer
    cdef bint held

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)

    cdef const uint8_t *at(self) noexcept:
        return <const uint8_t *>self.buffer.buf

    cdef size_t bytes(self) noexcept:
        return <size_t>self.buffer.len


cdef _View view_of(object data):
    """The bytes of any object with a contiguous buffer. Raises TypeError or BufferError."""
    cdef _View view = _View.__new__(_View)
    PyObject_GetBuffer(data, &view.buffer, PyBUF_SIMPLE)
    view.held = True
    return view


cdef void *data_of(object array) except? NULL:
    """Where the elements of an array that was made here begin. The array must be kept by the caller."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE)
    cdef void *at = buffer.buf
    PyBuffer_Release(&buffer)
    return at


cdef object int64_array(Py_ssize_t count):
    return numpy().empty(count, "i8")


cdef object int32_array(Py_ssize_t count):
    return numpy().empty(count, "i4")


cdef object bool_array(Py_ssize_t count):
    """All False."""
    return numpy().zeros(count, "?")


cdef object int64_input(object values, str what):
    """`values` as a contiguous int64 array of one dimension. Raises TypeError for anything that is no integer."""
    np = numpy()
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{what} are integers in one dimension, not {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "u" and array.size and int(array.max()) > 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"{what} must fit in 63 bits, and {array.max()} does not")
    return np.ascontiguousarray(array, "i8")


cdef object narrow_keys(object keys):
    """An integer array as 8 bytes big-endian each, the width of Java's Long. Raises TypeError, ValueError."""
    np = numpy()
    if keys.dtype.kind == "u" and keys.size and int(keys.max()) > 0x7FFFFFFFFFFFFFFF:
        raise ValueError(f"the key {keys.max()} does not fit in 8 bytes signed (-2**63 .. 2**63-1), the width every "
                         f"Kafka client agrees on; give str(key) or bytes")
    return np.ascontiguousarray(keys, ">i8")


cdef void *take(size_t count, size_t size_bytes) except NULL:
    """Memory from the core's allocator for `count` elements. Raises MemoryError."""
    cdef void *at = NULL
    if size_bytes == 0 or count <= (<size_t>-1) // size_bytes:
        at = tl_os.malloc(count * size_bytes if count and size_bytes else 1)
    if at == NULL:
        fail_plain(TL_ENOMEM, f"no memory for {count} elements of {size_bytes} bytes")
    return at


# CPython gives an arena of 1 MiB back to the kernel when its last object is freed. A program that drops one batch of small
# values before it asks for the next would map and fault in the same pages for every batch, which costs more than reading
# it. So a few values live on until the next batch is there: one in every PIN_BYTES, at most PINS of them.

cdef enum:
    SMALL_BYTES = 479       # of a bytes object whose memory comes from an arena
    PIN_BYTES = 1 << 18
    PINS = 16

cdef list _pins = [None] * PINS
cdef object _pinned_value = None


cdef inline void pin(PyObject *value, int64_t size_bytes):
    """If it is small, it lives until the next one is made, so that its pool of objects is not given back."""
    global _pinned_value
    if size_bytes <= SMALL_BYTES:
        _pinned_value = <object>value


cdef int pin_some(list values) except -1:
    """Keeps the arenas of these bytes objects until the next call."""
    cdef Py_ssize_t count = PyList_GET_SIZE(values), at = 0, step
    cdef int pin = 0
    cdef PyObject *value
    while at < count and pin < PINS:
        value = PyList_GET_ITEM(values, at)
        step = 1
        if value != <PyObject *>None:
            step = PyBytes_GET_SIZE(<object>value)
            if step > SMALL_BYTES:
                break
            _pins[pin] = <object>value
            pin += 1
            step = PIN_BYTES // (step + 33)
        at += step
    return 0
