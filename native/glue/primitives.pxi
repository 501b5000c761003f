# The hot primitives for users and benchmarks: checksum, key hash, partition rule, index lookup.
#
# Callable from any thread. Large inputs are worked on without the GIL; the caller must not change them meanwhile.

cdef extern from *:
    """
    #ifdef TL_TEST
    #define TL_BUILD_TEST_POINTS 1
    #else
    #define TL_BUILD_TEST_POINTS 0
    #endif
    #if defined(__SANITIZE_ADDRESS__)
    #define TL_BUILD_SANITIZER "address"
    #elif defined(__SANITIZE_THREAD__)
    #define TL_BUILD_SANITIZER "thread"
    #else
    #define TL_BUILD_SANITIZER ""
    #endif
    #ifdef __OPTIMIZE__
    #define TL_BUILD_OPTIMIZED 1
    #else
    #define TL_BUILD_OPTIMIZED 0
    #endif
    #ifdef __clang__
    #define TL_BUILD_COMPILER "clang " __clang_version__
    #else
    #define TL_BUILD_COMPILER "gcc " __VERSION__
    #endif
    #if defined(__aarch64__)
    #define TL_BUILD_MACHINE "aarch64"
    #else
    #define TL_BUILD_MACHINE "x86_64"
    #endif
    """
    bint TL_BUILD_TEST_POINTS
    bint TL_BUILD_OPTIMIZED
    const char *TL_BUILD_SANITIZER
    const char *TL_BUILD_COMPILER
    const char *TL_BUILD_MACHINE
    const char *CYTHON_ABI

cdef enum:
    RELEASE_FROM_BYTES = 65536  # the most that is worked on with the GIL held

BUILD = {
    "compiler": (<bytes>TL_BUILD_COMPILER).decode("ascii", "replace"),
    "machine": (<bytes>TL_BUILD_MACHINE).decode("ascii"),
    "optimized": TL_BUILD_OPTIMIZED,
    "sanitizer": (<bytes>TL_BUILD_SANITIZER).decode("ascii"),
    "test_points": TL_BUILD_TEST_POINTS,
    "cython": (<bytes>CYTHON_ABI).decode("ascii"),
}


def crc32c(data, crc=0, /):
    """CRC-32C (Castagnoli) of bytes, continuing from `crc`, the result for what stood before.

    `data`: bytes or any contiguous buffer; `crc`: int, 0 <= crc < 2**32.
    Returns an int in the same range: crc32c(b, crc32c(a)) == crc32c(a + b).
    Raises TypeError, BufferError (not contiguous) or OverflowError.
    """
    cdef uint32_t sum = crc
    cdef const uint8_t *at
    cdef size_t count
    cdef _View view = None
    if type(data) is bytes:
        at = <const uint8_t *>PyBytes_AS_STRING(data)
        count = <size_t>PyBytes_GET_SIZE(data)
    else:
        view = view_of(data)
        at = view.at()
        count = view.bytes()
    if count < RELEASE_FROM_BYTES:
        return tl_crc32c(sum, at, count)
    with nogil:
        sum = tl_crc32c(sum, at, count)
    return sum


def crc32c_name():
    """The implementation of CRC-32C that this processor runs: "table", "sse42", "pclmul", "avx512" or "armv8"."""
    return (<bytes>tl_crc32c_name()).decode("ascii")


cdef bytes plain_key(object key):
    """The bytes of one key by Kafka's rules; None stays None. Raises TypeError, ValueError."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        return (<str>key).encode()
    if isinstance(key, bytes):  # numpy.bytes_ is padded with NULs
        return bytes(key).rstrip(b"\0") if hasattr(key, "dtype") else bytes(key)
    if isinstance(key, bool) or type(key).__name__ in ("bool_", "bool"):
        raise TypeError(f"{key!r} is a bool: a key is bytes, str, int (8 bytes, big-endian) or None")
    if hasattr(key, "__index__"):
        try:
            return key.__index__().to_bytes(8, "big", signed=True)
        except OverflowError:
            raise ValueError(f"the key {key} does not fit in 8 bytes signed (-2**63 .. 2**63-1); give str(key)"
                             ) from None
    if PyObject_CheckBuffer(key):
        return bytes(key)
    raise TypeError(f"{type(key).__qualname__} cannot be a key: a key is bytes, str, int (8 bytes, big-endian) or None")


def murmur2(key, /):
    """Kafka's murmur2 of a key, as an unsigned int below 2**32.

    `key`: bytes or a buffer; str is hashed as UTF-8, int as 8 bytes big-endian. Raises TypeError for anything else.
    """
    cdef bytes data = plain_key(key)
    if data is None:
        raise TypeError("None has no hash: a message without a key goes to no partition of its own")
    return tl_murmur2(PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


def partition(keys, partitions, /):
    """The partition of every key by Kafka's rule (murmur2), as an int32 array; -1 where the key is None.

    `keys`: an iterable of keys (bytes, str, int, None), or a one-dimensional array of `S` (trailing NULs do not
    belong to a key), `U`, or integers (8 bytes big-endian). `partitions`: int, 1 <= partitions < 2**31.
    Raises TypeError, ValueError.
    """
    cdef int64_t wide = partitions
    if not 0 < wide < 0x80000000:
        raise ValueError(f"{partitions} partitions: there must be at least 1, and fewer than 2**31")
    cdef uint32_t n = <uint32_t>wide
    if type(keys) is not list and type(keys) is not tuple:  # what derives from them may have a length of its own
        dtype = getattr(keys, "dtype", None)
        if dtype is not None and keys.ndim == 1 and dtype.kind in "Siu":
            return _partition_array(keys, n)
        keys = keys.tolist() if dtype is not None else list(keys)
    cdef Py_ssize_t count = len(keys)
    out = int32_array(count)
    if count:
        partition_list(keys, count, n, <uint32_t *>data_of(out))
    return out


cdef object _partition_array(object keys, uint32_t n):
    np = numpy()
    is_text = keys.dtype.kind == "S"
    cdef object rows = np.ascontiguousarray(keys) if is_text else narrow_keys(keys)
    cdef size_t width = rows.dtype.itemsize
    cdef bint strip = is_text
    cdef size_t count = len(rows)
    out = int32_array(count)
    if count == 0:
        return out
    cdef _View view = view_of(rows.view("u1")) if width else None
    cdef const uint8_t *at = view.at() if width else <const uint8_t *>b""
    cdef uint32_t *ids = <uint32_t *>data_of(out)
    with nogil:
        tl_partition_rows(at, width, width, strip, count, n, ids)
    return out


cdef int partition_list(object keys, Py_ssize_t count, uint32_t n, uint32_t *out) except -1:
    """Partitions of a list or tuple of keys, hashed in blocks so that one pass of the core covers many."""
    cdef const uint8_t *at[256]
    cdef int32_t size_bytes[256]
    cdef PyObject **items = PySequence_Fast_ITEMS(keys)
    cdef PyObject *key
    cdef Py_ssize_t i, first = 0, block
    while first < count:
        block = min(count - first, 256)
        for i in range(block):
            key = items[first + i]
            if PyBytes_CheckExact(key):
                at[i] = <const uint8_t *>PyBytes_AS_STRING(<object>key)
                size_bytes[i] = <int32_t>PyBytes_GET_SIZE(<object>key)
            elif key == <PyObject *>None:
                at[i] = NULL
                size_bytes[i] = -1
            else:
                # Making bytes of it may run code that changes the list: never between taking an address and its use.
                made = [plain_key(one) for one in keys]
                if len(made) != count:
                    raise ValueError(f"the list of keys changed its length from {count} to {len(made)} meanwhile")
                return partition_list(made, count, n, out)
        tl_partition_slices(at, size_bytes, <size_t>block, n, out + first)
        first += block
    return 0


def lookup(index, offsets, base_offset=0, /):
    """Positions in a segment file from which to read for each offset: a batched lower bound over an offset index.

    `index`: the bytes of a Kafka offset index (entries of 8 bytes); `offsets`: int64 array, in any order (sorted ones
    are faster); `base_offset`: int, the first offset of the segment. Returns an int64 array of byte positions, 0 where
    no entry is at or below the offset. Raises TypeError, ValueError (the index is no whole number of entries).
    """
    cdef _View entries = view_of(index)
    if entries.bytes() % TL_INDEX_ENTRY_BYTES:
        raise ValueError(f"an offset index is a whole number of entries of 8 bytes, not {entries.bytes()} bytes")
    wanted = int64_input(offsets, "offsets")
    cdef int64_t base = base_offset
    cdef size_t n = len(wanted)
    out = int64_array(n)
    if n == 0:
        return out
    cdef _View asked = view_of(wanted)
    cdef const int64_t *from_ = <const int64_t *>asked.at()
    cdef int64_t *to = <int64_t *>data_of(out)
    cdef const uint8_t *at = entries.at()
    cdef size_t count = entries.bytes() // TL_INDEX_ENTRY_BYTES
    with nogil:
        tl_index_lookup_raw(at, count, base, from_, n, to)
    return out
