# How do rows of a fixed width arrive in one array, without an object for each?
#
# Used by receive_many when every partition of the reader has the same dtype. The core copies values straight into a
# fresh numpy array; keys go to the chunk, one record beside each row. A batch with a value of another width is read as
# records instead: its raw bytes can be had, and `values` says which message is wrong.

cdef enum:
    MORE = 1        # the columns are full
    AS_RECORDS = 2  # the next batch does not fit into columns

cdef _Chunk fill_columns(_Feed self, size_t wanted):
    """Up to `wanted` rows of the partitions in turn; more when a single batch has more."""
    cdef _Chunk chunk = None
    cdef uint32_t k, i, first = self.rotation
    cdef size_t room = available(self, wanted), need = 0
    cdef int code
    if room == 0:
        # Nothing to read, as far as the tails say: the other way finds out whether something is wrong.
        return self.fill(wanted, NEXT_BYTES)
    try:
        for k in range(self.count):
            i = (first + k) % self.count
            if self.silent(i):
                continue
            if chunk is None:
                chunk = column_chunk(self, room)
            code = read_columns(self, i, chunk, room, &need)
            if code == TL_ETOOLARGE and chunk.row_count == 0:
                room = need
                chunk = column_chunk(self, room)
                code = read_columns(self, i, chunk, room, &need)
            if code == AS_RECORDS:
                self.rotation = i
                return self.fill(wanted, NEXT_BYTES)
            if code < 0:
                self.rotation = i
                break
            if chunk.row_count >= room:
                self.rotation = (i + 1) % self.count
                break
    except BaseException:
        if chunk is not None:
            self.rewind(chunk)
        raise
    return chunk if chunk is not None else self.fill(wanted, NEXT_BYTES)


cdef size_t available(_Feed self, size_t wanted) except? 0:
    """At most how many of `wanted` rows there are to read."""
    cdef uint32_t i
    cdef tl_bounds bounds
    cdef tl_error err
    cdef int64_t found = 0
    for i in range(self.count):
        if self.silent(i):
            continue
        if tl_partition_bounds(self.entries[i].native, &bounds, &err) < 0:
            return 0
        if self.entries[i].cursor.offset < bounds.log_start:
            return 0
        found += bounds.log_end - self.entries[i].cursor.offset
    return <size_t>max(min(found, <int64_t>wanted), 0)


cdef _Chunk column_chunk(_Feed self, size_t room):
    cdef _Chunk chunk = new_chunk(self.shareds, self.handles)
    chunk.reader = self.serial
    chunk.use_rows(numpy().empty(room, self.dtype), int64_array(<Py_ssize_t>room), int64_array(<Py_ssize_t>room), 0)
    return chunk


cdef int read_columns(_Feed self, uint32_t i, _Chunk chunk, size_t room, size_t *need) except -2:
    """Adds rows of one partition: MORE, 0 at its end, AS_RECORDS; TL_ETOOLARGE when its next batch needs more room
    (*need rows); -1 as in read_entry."""
    cdef _Entry *entry = &self.entries[i]
    cdef tl_cursor before
    cdef size_t had = chunk.row_count, taken = 0, row_bytes = self.row_bytes, kept
    cdef _View view = view_of(chunk.rows.view("u1"))
    cdef uint8_t *rows = <uint8_t *>view.at()
    cdef int64_t *offsets = <int64_t *>chunk.row_offset_at
    cdef int64_t *timestamps = <int64_t *>chunk.row_timestamp_at
    cdef tl_chunk *keys = &chunk.c
    cdef tl_read_end end
    cdef tl_error err
    cdef int code
    entry.seen = tl_partition_tail(entry.native)
    chunk.begin_run(entry.number, i, entry.epoch)
    while True:
        before = entry.cursor
        kept = keys.count
        end.skipped_to = -1
        with nogil:
            code = tl_partition_read_rows(
                entry.native, &entry.cursor, row_bytes, rows + chunk.row_count * row_bytes, room - chunk.row_count,
                offsets + chunk.row_count, timestamps + chunk.row_count, keys, &taken, need, self.flags, &end, &err)
        keys.count = kept + taken  # keys of a batch that failed half way
        if code == TL_ETOOLARGE and need[0] > 0:
            entry.cursor = before
            if chunk.row_count == 0:
                return TL_ETOOLARGE
            room = chunk.row_count
            break
        if code == TL_ECORRUPT and chunk.row_count == 0:
            entry.cursor = before
            entry.cursor.located = False
            return AS_RECORDS  # if it is damage, reading records says so
        if code < 0:
            return self.failed(i, code, &err, end.skipped_to, chunk.row_count > 0)
        chunk.row_count += taken
        if not end.compressed:
            break
        if self.unpack(i, chunk, &end, before) < 0:
            return -1
        if not spread_records(self, chunk, kept, room):
            keys.count = kept
            entry.cursor.offset = before.offset
            entry.cursor.located = False
            if chunk.row_count == 0:
                return AS_RECORDS
            self.rotation = i
            return -1
        if chunk.row_count >= room:
            break
    if entry.stop >= 0:
        while chunk.row_count > had and offsets[chunk.row_count - 1] >= entry.stop:
            chunk.row_count -= 1
        keys.count = chunk.row_count
        self.note_stop(entry)
    return MORE if chunk.row_count >= room else 0


cdef bint spread_records(_Feed self, _Chunk chunk, size_t first, size_t room) except -1:
    """Copies the values of unpacked records first .. to the columns; False when one of them has another width."""
    cdef size_t k, row_bytes = self.row_bytes
    cdef tl_record *record
    cdef uint8_t *rows = <uint8_t *>data_of(chunk.rows.view("u1"))
    for k in range(first, chunk.c.count):
        record = &chunk.c.records[k]
        if record.value_bytes != <int64_t>row_bytes or k >= room:
            return False
        memcpy(rows + k * row_bytes, chunk.c.bytes + record.value_at, row_bytes)
        (<int64_t *>chunk.row_offset_at)[k] = record.offset
        (<int64_t *>chunk.row_timestamp_at)[k] = record.timestamp_ms
    chunk.row_count = chunk.c.count
    return True
