# Where do the bytes of received messages live, and to which partition and channel do they belong?
#
# A _Chunk is filled once by a reader and never changes afterwards, so any thread may read messages out of it. Batches
# and messages hold a reference; when the last one lets go, its memory goes to a small pool for the next read, or the reader
# fills it again.
#
# Two shapes: records (bytes and tl_record) or, for channels of fixed-width rows, numpy columns. In the second shape
# `c` holds the keys alone. A run is a stretch of messages of one partition.

cdef struct _Run:
    size_t first     # index of its first message
    int32_t partition
    uint32_t entry   # which partition of the reader it was read from: an index of `shareds` and `handles`
    uint32_t epoch   # of the lease under which it was read; of no meaning without one
    bint decoded     # values are more than bytes

cdef enum:
    POOL_CHUNKS = 4
    POOL_BYTES = 4 << 20  # a larger chunk is not kept

cdef tl_chunk _pool[POOL_CHUNKS]
cdef int _pooled = 0


@cython.final
cdef class _Chunk:
    cdef tl_chunk c
    cdef _Chunk owner            # whose bytes these are, when they are not our own
    cdef _Run *runs
    cdef _Run first_run          # room for the usual case of one run
    cdef size_t run_count, run_room
    cdef list shareds, handles   # by entry: Channelled, Partition; the reader's own, which it never changes
    cdef uint64_t reader         # serial of the Reader that filled it, 0: none
    cdef object rows, row_offsets, row_timestamps  # numpy arrays, or None in the first shape
    cdef const int64_t *row_offset_at
    cdef const int64_t *row_timestamp_at
    cdef size_t row_count

    def __cinit__(self):
        self.runs = &self.first_run
        self.run_room = 1

    def __dealloc__(self):
        global _pooled
        if self.runs != &self.first_run:
            tl_os.free(self.runs)
        if self.owner is not None:
            self.c.bytes = NULL
            tl_os.free(self.c.records)
        elif self.c.room and self.c.room <= POOL_BYTES and _pooled < POOL_CHUNKS:
            tl_chunk_clear(&self.c)
            _pool[_pooled] = self.c
            _pooled += 1
        else:
            tl_chunk_free(&self.c)

    cdef bint begin_again(self) noexcept:
        """Makes it empty for the next read, if it is of the first shape and nobody but the caller has it."""
        if Py_REFCNT(self) != 1 or self.owner is not None or self.rows is not None or self.c.room > POOL_BYTES:
            return False
        tl_chunk_clear(&self.c)
        self.run_count = 0
        return True

    cdef int begin_run(self, int32_t partition, uint32_t entry, uint32_t epoch) except -1:
        """What is added from here on belongs to this partition. An empty run before it is replaced."""
        cdef _Run *wider
        cdef size_t here = self.count()
        if self.run_count and self.runs[self.run_count - 1].first == here:
            self.run_count -= 1
        if self.run_count == self.run_room:
            wider = <_Run *>take(self.run_room * 4, sizeof(_Run))
            memcpy(wider, self.runs, self.run_count * sizeof(_Run))
            if self.runs != &self.first_run:
                tl_os.free(self.runs)
            self.runs = wider
            self.run_room *= 4
        self.runs[self.run_count].first = here
        self.runs[self.run_count].partition = partition
        self.runs[self.run_count].entry = entry
        self.runs[self.run_count].epoch = epoch
        self.runs[self.run_count].decoded = self.rows is not None or (<Channelled>self.shareds[entry]).decode is not None
        self.run_count += 1
        return 0

    cdef inline Channelled shared_of(self, size_t run):
        return <Channelled>self.shareds[self.runs[run].entry]

    cdef size_t count(self) noexcept:
        return self.c.count if self.rows is None else self.row_count

    cdef size_t run_of(self, size_t index) noexcept:
        """Which run a message is in: the last one that begins at or before it."""
        cdef size_t low = 0, high = self.run_count, middle
        while high - low > 1:
            middle = (low + high) // 2
            if self.runs[middle].first <= index:
                low = middle
            else:
                high = middle
        return low

    cdef size_t run_end(self, size_t run) noexcept:
        return self.runs[run + 1].first if run + 1 < self.run_count else self.count()

    cdef int64_t offset_of(self, size_t index) noexcept:
        return self.c.records[index].offset if self.rows is None else self.row_offset_at[index]

    cdef int64_t timestamp_of(self, size_t index) noexcept:
        return self.c.records[index].timestamp_ms if self.rows is None else self.row_timestamp_at[index]

    cdef bytes raw_of(self, size_t index):
        """The bytes of a value; None for a null one."""
        cdef tl_record *record
        if self.rows is not None:
            return self.rows[index].tobytes()
        record = &self.c.records[index]
        if record.value_bytes < 0:
            return None
        return PyBytes_FromStringAndSize(<char *>self.c.bytes + record.value_at, record.value_bytes)

    cdef bytes key_of(self, size_t index):
        cdef tl_record *record = self.key_record(index)
        if record.key_bytes < 0:
            return None
        return PyBytes_FromStringAndSize(<char *>self.c.bytes + record.key_at, record.key_bytes)

    cdef inline tl_record *key_record(self, size_t index) noexcept:
        """The record that holds the key of a message: beside columns too there is one for every row."""
        return &self.c.records[index]

    cdef Headers headers_of(self, size_t index):
        cdef tl_record *record
        cdef size_t run
        cdef Batch found
        if self.rows is None:
            record = &self.c.records[index]
            return decode_headers(self.c.bytes, record.headers_at, record.headers_bytes)
        # The column read leaves headers behind: they are fetched when somebody asks.
        run = self.run_of(index)
        found = (<Partition>self.handles[self.runs[run].entry]).read_at(
            [self.row_offset_at[index]], self.shared_of(run), self.runs[run].partition, uncommitted=True)
        return found.chunk.headers_of(0)

    cdef _Chunk pick(self, size_t start, Py_ssize_t step, size_t count):
        """Every `step`th message from `start` on, as a chunk that shares the bytes."""
        cdef _Chunk picked = _Chunk.__new__(_Chunk)
        cdef size_t i, index, run, last = <size_t>-1
        picked.shareds, picked.handles = self.shareds, self.handles
        picked.owner = self if self.owner is None else self.owner
        picked.reader = self.reader
        picked.c.bytes = self.c.bytes
        picked.c.used = picked.c.room = self.c.used
        if self.c.count:
            picked.c.records = <tl_record *>take(count, sizeof(tl_record))
            picked.c.capacity = count
        cdef object chosen
        if self.rows is not None:
            stop = <Py_ssize_t>start + step * <Py_ssize_t>count
            chosen = slice(start, stop if stop >= 0 else None, step)
            picked.use_rows(numpy().ascontiguousarray(self.rows[chosen]),
                            numpy().ascontiguousarray(self.row_offsets[chosen]),
                            numpy().ascontiguousarray(self.row_timestamps[chosen]), 0)
        for i in range(count):
            index = <size_t>(<Py_ssize_t>start + step * <Py_ssize_t>i)
            run = self.run_of(index)
            if run != last:
                picked.begin_run(self.runs[run].partition, self.runs[run].entry, self.runs[run].epoch)
                last = run
            if index < self.c.count:
                picked.c.records[i] = self.c.records[index]
                picked.c.count = i + 1
            if self.rows is not None:
                picked.row_count = i + 1
        return picked

    cdef int use_rows(self, object rows, object offsets, object timestamps, size_t count) except -1:
        """Makes it a chunk of columns, of which `count` rows are filled."""
        self.rows = rows
        self.row_offsets = offsets
        self.row_timestamps = timestamps
        self.row_offset_at = <const int64_t *>data_of(offsets)
        self.row_timestamp_at = <const int64_t *>data_of(timestamps)
        self.row_count = count
        return 0


cdef _Chunk new_chunk(list shareds, list handles):
    """An empty chunk, with memory from the pool if there is some."""
    global _pooled
    cdef _Chunk chunk = _Chunk.__new__(_Chunk)
    chunk.shareds, chunk.handles = shareds, handles
    if _pooled > 0:
        _pooled -= 1
        chunk.c = _pool[_pooled]
    return chunk
