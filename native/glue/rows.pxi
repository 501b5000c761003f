# How are rows of a fixed width sent without a Python object for each?
#
# The array is contiguous and of the channel's dtype; a view keeps its memory for as long as a call lasts. Keys that are
# a field of text go to the core as (position, width) in the row; everything else (integer keys, parallel keys, headers,
# ids, several timestamps) makes tl_message entries that point into the array.

cdef int send_array(Sender self, object array, object keys, object headers, object ids, uint32_t only, object timestamp,
                    list parts) except -1:
    """Sends every row of `array`; appends what was done to `parts`."""
    cdef Channelled shared = self.shared
    cdef size_t count = len(array), first = 0, size = 0
    cdef tl_rows rows
    cdef uint32_t *chosen = NULL
    cdef bint keyed = keys is not None
    cdef object key_rows = None
    if shared.row_bytes > <size_t>self.max_message_bytes:
        self.too_large(<Py_ssize_t>shared.row_bytes, -1, "")
    memset(&rows, 0, sizeof(rows))
    rows.stride = rows.row_bytes = shared.row_bytes
    if isinstance(keys, str):
        keys = key_field(array, keys, &rows)
    cdef bint simple = (keys is None and headers is None and ids is None and self.partitioner is None and
                        self.compress is None and not isinstance(timestamp, list | tuple) and
                        getattr(timestamp, "ndim", 0) == 0)
    if rows.key_bytes + rows.row_bytes > <size_t>self.max_message_bytes:
        self.too_large(<Py_ssize_t>rows.row_bytes, <Py_ssize_t>rows.key_bytes, "")
    if count == 0:
        return 0
    if not simple:
        if rows.key_bytes:  # headers or ids beside a field: the field's text as a parallel list
            keys = array.dtype.names and fields_text(array, &rows)
        return send_entries(self, array, keys, headers, ids, only, timestamp, parts)
    cdef _View view = view_of(array.view("u1"))
    rows.rows = view.at()
    rows.timestamp_ms = clock_ms() if timestamp is None else milliseconds(timestamp)
    cdef size_t most = max(<size_t>ROUND_BYTES // shared.row_bytes, 1)
    while first < count:
        size = min(count - first, most)
        if only != NO_PARTITION:
            parts.append(self.send_rows(&rows, first, size, only, NULL))
        elif not keyed:
            parts.append(self.send_rows(&rows, first, size, self.sticky, NULL))
        else:
            chosen = <uint32_t *>take(size, sizeof(uint32_t))
            with nogil:
                tl_partition_rows(rows.rows + first * rows.stride + rows.key_at, rows.stride, rows.key_bytes,
                                  rows.strip_key, size, self.partitions, chosen)
            parts.append(self.send_rows(&rows, first, size, NO_PARTITION, chosen))
        first += size
        PyErr_CheckSignals()
    if not keyed:
        self.move_on()
    return 0


cdef object key_field(object array, str name, tl_rows *rows):
    """Points `rows` at a field of text and answers None, or answers the keys that a field of integers stands for."""
    fields = array.dtype.fields
    if fields is None or name not in fields:
        raise ValueError(f"rows of {array.dtype} have no field {name!r}: keys= names a field, or is a sequence")
    kind = fields[name][0]
    if kind.kind == "S" and kind.subdtype is None and kind.itemsize:
        rows.key_at = fields[name][1]
        rows.key_bytes = kind.itemsize
        rows.strip_key = True
        return None
    if kind.kind in "iu" and kind.subdtype is None:
        return narrow_keys(array[name])
    if kind.kind == "U" and kind.subdtype is None:
        return array[name].tolist()
    raise TypeError(f"the field {name!r} is {kind}: a key is text (S, U) or an integer")


cdef object fields_text(object array, tl_rows *rows):
    """The field that `rows` points at as a list of bytes."""
    for name in array.dtype.names:
        kind, at = array.dtype.fields[name][:2]
        if <size_t>at == rows.key_at and <size_t>kind.itemsize == rows.key_bytes and kind.kind == "S":
            rows.key_bytes = 0
            return array[name].tolist()
    raise ValueError("the key's field is not in the rows")


cdef int send_entries(Sender self, object array, object keys, object headers, object ids, uint32_t only,
                      object timestamp, list parts) except -1:
    """Rows with something beside them, through an entry for each."""
    cdef size_t i, count = len(array), first = 0, size, row_bytes = self.shared.row_bytes
    cdef _View view = view_of(array.view("u1")), key_view = None
    cdef _Beside beside = _Beside.__new__(_Beside)
    cdef tl_message *messages
    cdef uint32_t *chosen
    cdef uint32_t number
    cdef int64_t now
    cdef size_t total, most = max(min(<size_t>ROUND_BYTES // row_bytes, <size_t>ROUND_MESSAGES), 1)
    cdef object wide = None
    if hasattr(keys, "dtype") and keys.ndim == 1 and keys.dtype.kind in "iu":
        wide = narrow_keys(keys)
        if <size_t>len(wide) != count:
            raise ValueError(f"{len(wide)} keys for {count} messages: give one for each")
        key_view = view_of(wide.view("u1"))
        keys = None
        if row_bytes + 8 > <size_t>self.max_message_bytes:
            self.too_large(<Py_ssize_t>row_bytes, 8, "")
    beside.begin(self.shared, keys, headers, ids, timestamp, <Py_ssize_t>count)
    beside.keyed = beside.keyed or wide is not None
    while first < count:
        size = min(count - first, most)
        items = array[first:first + size]
        beside.advance(items, <Py_ssize_t>size)
        now = beside.timestamp_ms if beside.timed else clock_ms()
        messages = self.borrow(size)
        try:
            for i in range(size):
                messages[i].key = NULL
                messages[i].key_bytes = -1
                if key_view is not None:
                    messages[i].key = key_view.at() + (first + i) * 8
                    messages[i].key_bytes = 8
                messages[i].value = view.at() + (first + i) * row_bytes
                messages[i].value_bytes = <int32_t>row_bytes
                messages[i].headers = NULL
                messages[i].headers_bytes = 0
                messages[i].timestamp_ms = now
            total = <size_t>beside.fill(messages, <Py_ssize_t>size, self.max_message_bytes)
            chosen = NULL
            number = only
            if only == NO_PARTITION:
                chosen = self.choose(messages, items, <Py_ssize_t>size, beside, &number)
            parts.append(self.send_messages(messages, size, total + size * row_bytes, number, chosen, beside.round_ids))
        finally:
            self.give_back(messages)
        first += size
        PyErr_CheckSignals()
    if not beside.keyed:
        self.move_on()
    beside.finish()
    return 0
