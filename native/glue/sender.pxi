# How does Python send one message, or many?
#
# Values, keys, headers and times become tl_message entries here; _Outlet takes them to their partitions. Thread-safe.
# All Python code (encoders, key functions, iterators) has run before the first pointer into a Python object is taken,
# so that nothing a caller changes meanwhile can leave a pointer dangling.

cdef enum:
    NO_PARTITION = 0xFFFFFFFF

cdef extern from *:
    PyObject **PySequence_Fast_ITEMS(object sequence)
    bint PyBytes_CheckExact(PyObject *o)
    Py_ssize_t _bytes_size "PyBytes_GET_SIZE"(PyObject *o)
    char *_bytes_at "PyBytes_AS_STRING"(PyObject *o)
    PyObject *_list_item "PyList_GET_ITEM"(PyObject *o, Py_ssize_t i)


cdef class Sender(_Outlet):
    """The sending half of a channel, for one ack level and compression; thread-safe. Channel derives from it."""

    cdef bint plain              # values are bytes, nothing is compressed or synced: the path of `send`
    cdef Py_ssize_t bare_below   # values of fewer bytes take send_bare, where nothing but the value is given
    cdef bint typed              # every message has the header "type"
    cdef int64_t max_message_bytes
    cdef uint64_t generation     # of the catalogue when it was remembered for a channel; see dispatch.pxi

    def _attach(
        self,
        Store store,
        partitions,
        Channelled shared,
        *,
        synced,
        partitioner,
        compress,
        codec_id,
        watch=None,
        named=None,
    ):
        """Makes it send to `partitions` (by number) of a channel. `compress`: records -> bytes of the codec `codec_id`,
        or None. `partitioner`: (key, value, partitions) -> partition, or None for Kafka's rule. `watch`: told of keys
        that are too hot, or None. `named`: the Named as whom it sends, or None."""
        if self.partitions:
            raise RuntimeError("this sender is attached already")
        cdef list handles = list(partitions)
        cdef uint32_t i, count = <uint32_t>len(handles)
        if count == 0:
            raise ValueError("a channel has at least one partition")
        cdef tl_partition **natives = <tl_partition **>take(count, sizeof(void *))
        for i in range(count):
            natives[i] = (<Partition?>handles[i]).native
        self.natives = natives
        self.store = store
        self.handles = handles
        self.shared = shared
        self.synced = synced
        self.partitioner = partitioner
        self.compress = compress
        self.spec = tl_batch_plain
        self.spec.attributes = 0 if compress is None else codec_id
        self.plain = shared.encode is None and compress is None and not synced
        self.typed = shared.type_of is not None
        self.max_message_bytes = shared.max_message_bytes
        self.producing.sequence = -1
        if named is not None:
            self.producing.producer = (<Named?>named).open_native()
            self.named = named
        self.random = 0
        tl_os.random(&self.random, sizeof(self.random))
        self.random |= 1
        self.sticky = <uint32_t>((self.random >> 33) % count)
        self.sticky_left = STICKY_BYTES
        self.sampler = new_sampler(<Partition>handles[0], shared.name, count, watch)
        self.skip = self.sampler.gap() // 2
        if self.plain and not self.typed and partitioner is None:
            self.bare_below = min(self.max_message_bytes, RELEASE_FROM_BYTES) + 1
        self.partitions = count

    def _within(self, _Transacting transacting, through, /):
        """A sender that does the same, as part of a transaction of the producer as whom this one sends. `through`: a sync
        will follow. It never syncs by itself."""
        return self.within(transacting, through)

    cdef Sender within(self, _Transacting transacting, bint through):
        cdef Sender inner = Sender.__new__(Sender)
        if self.partitions == 0 or self.named is None or transacting is None or self.named is not transacting.producer:
            raise ValueError("a sender within a transaction is made of one of the same named producer")
        inner.store = self.store
        inner.handles = self.handles
        inner.shared = self.shared
        inner.partitioner = self.partitioner
        inner.compress = self.compress
        inner.spec = self.spec
        inner.plain = self.shared.encode is None and self.compress is None
        inner.typed = self.typed
        inner.max_message_bytes = self.max_message_bytes
        inner.never_waits = self.never_waits
        inner.named = self.named
        inner.producing = self.producing
        inner.producing.sequence = -1
        inner.producing.transaction = &transacting.native
        inner.transacting = transacting
        inner.through = through
        inner.borrow_from(self)
        return inner

    def _never_wait(self):
        """From now on `send` raises WouldBlock, and has sent nothing, where it would have to wait: for a lock that is held
        for longer than a millisecond, for the system, or for the disk."""
        self.never_waits = True

    def send(self, value, *, key=None, headers=None, id=None, partition=None, timestamp=None):
        """Appends one message and returns its Receipt.

        `value`: of the channel's type; `key`: bytes, str, int or None; `headers`: mapping or pairs of str to bytes or
        str; `id`: a str that names the message (header message-id), and chooses the partition when there is no key. A
        second message with the same id within the window of its partition is not appended: `receipt.duplicate`;
        `partition`: int, overrides the rule; `timestamp`: aware datetime or seconds since 1970, default now.
        Raises SchemaMismatch, TooLarge, ValueError, TypeError, NoSpace, StorageFailed, Locked, Closed.
        """
        cdef Given given = all_given(key, headers, id, partition, timestamp)
        return self.send_one(<PyObject *>value, &given)

    @cython.final
    cdef Receipt send_bare(self, PyObject *value):
        """What send_one does with fewer than bare_below bytes and nothing else, where nothing is in the way: half the
        instructions of Python's part of a send."""
        cdef tl_message message
        cdef tl_appended result
        cdef tl_error err
        cdef Py_ssize_t value_bytes = _bytes_size(value)
        cdef uint32_t number
        cdef int64_t left
        cdef int code = TL_EAGAIN
        if self.store.is_closed:
            return self.send_one(value, &_NOTHING)
        message.key = message.headers = NULL
        message.headers_bytes = 0
        message.key_bytes = -1
        message.value = <const uint8_t *>_bytes_at(value)
        message.value_bytes = <int32_t>value_bytes
        message.timestamp_ms = tl_clock_ms(&self.clock)
        left = self.sticky_left
        number = self.stick(value_bytes)
        if self.named is None:
            code = tl_partition_append_one(self.natives[number], &message, TL_APPEND_TRY, &result, &err)
        elif self.producing.sequence < 0:
            self.check_sender()
            code = tl_partition_append_one_named(self.natives[number], &message, self.producing.producer, &result, &err)
        if code < 0:
            self.sticky, self.sticky_left = number, left  # it is chosen again
            return self.send_one(value, &_NOTHING)
        self.sample(&message, 1, number, NULL)
        return self.receipt_at(number, &result, False)

    @cython.final
    cdef inline Receipt send_alone(self, PyObject *value):
        """A value without anything else."""
        if PyBytes_CheckExact(value) and _bytes_size(value) < self.bare_below:
            return self.send_bare(value)
        return self.send_one(value, &_NOTHING)

    cdef object send_given(self, PyObject **values, PyObject *names):
        """A value and keyword arguments. Not final, so that it is not inlined where there are none."""
        cdef Given given
        if take_given(values + 1, names, &given):
            return self.send_one(values[0], &given)
        return call_slowly(_slow_send, self, values, 1, names)

    @cython.final
    cdef inline Receipt receipt_at(self, uint32_t number, const tl_appended *result, bint repeated):
        """Of one message."""
        return new_receipt(_list_item(<PyObject *>self.handles, number), result.base_offset, 1, result.tail,
                           <int32_t>number, repeated)

    @cython.final
    cdef Receipt send_one(self, PyObject *value, const Given *given):
        cdef tl_message message
        cdef tl_appended result
        cdef tl_append what
        cdef tl_error err
        cdef uint32_t number
        cdef int code
        cdef Py_ssize_t key_bytes = -1, value_bytes
        cdef const char *text
        cdef PyObject *data = value
        cdef object made, block_of, keyed
        cdef int64_t patience = -1, first = 0
        cdef Py_ssize_t id_bytes = 0
        cdef const char *id_at = NULL
        cdef tl_message_id hashed
        cdef uint8_t repeated = 0
        cdef _IdBlock block
        if self.partitions == 0 or self.store.is_closed:
            self.check_open()
        if not self.plain or not PyBytes_CheckExact(value):
            made = self.bytes_of(<object>value)
            data = <PyObject *>made
        value_bytes = _bytes_size(data)
        message.key = NULL
        if given.key != NULL:
            if PyBytes_CheckExact(given.key):
                message.key = <const uint8_t *>_bytes_at(given.key)
                key_bytes = _bytes_size(given.key)
            elif PyUnicode_CheckExact(given.key):
                text = PyUnicode_AsUTF8AndSize(<object>given.key, &key_bytes)
                message.key = <const uint8_t *>text
            else:
                keyed = self.shared.key_bytes(<object>given.key)
                if keyed is not None:
                    message.key = <const uint8_t *>PyBytes_AS_STRING(keyed)
                    key_bytes = PyBytes_GET_SIZE(keyed)
        if value_bytes + max(key_bytes, 0) > self.max_message_bytes:
            self.too_large(value_bytes, key_bytes, "")
        if given.id != NULL:
            id_at = id_text(<object>given.id, &id_bytes)
        if given.partition != NULL:
            number = self.check_partition(<object>given.partition)
        elif self.partitioner is not None:
            number = self.ask_partitioner(
                None if key_bytes < 0 else PyBytes_FromStringAndSize(<char *>message.key, key_bytes), <object>value)
        elif self.partitions == 1 and (key_bytes >= 0 or id_at != NULL):
            number = 0
        elif message.key != NULL:
            number = tl_partition_of(tl_murmur2(message.key, <size_t>key_bytes), self.partitions)
        elif id_at != NULL:
            number = tl_partition_of(tl_murmur2(id_at, <size_t>id_bytes), self.partitions)
        else:
            number = self.stick(value_bytes)
        if id_at != NULL:
            tl_partition_expect_id(self.natives[number], id_at, <size_t>id_bytes, &hashed)
        message.headers = NULL
        message.headers_bytes = 0
        if id_at != NULL and given.headers == NULL and not self.typed and id_bytes <= SHORT_ID_BYTES:
            message.headers_bytes = <uint32_t>put_id_block(&block, id_at, <size_t>id_bytes)
            message.headers = block.at
        elif given.headers != NULL or id_at != NULL or self.typed:
            block_of = self.shared.header_block(or_none(given.headers), or_none(given.id), <object>value)
            if block_of is not None:
                message.headers = <const uint8_t *>PyBytes_AS_STRING(block_of)
                message.headers_bytes = <uint32_t>PyBytes_GET_SIZE(block_of)
        message.value = <const uint8_t *>_bytes_at(data)
        message.value_bytes = <int32_t>value_bytes
        message.key_bytes = <int32_t>key_bytes
        message.timestamp_ms = (tl_clock_ms(&self.clock) if given.timestamp == NULL
                                else milliseconds(<object>given.timestamp))
        if (self.synced or self.compress is not None or (message.headers != NULL and id_at == NULL)
                or value_bytes + key_bytes + message.headers_bytes > RELEASE_FROM_BYTES):
            value_bytes += message.headers_bytes
            return self.receipt_of([self.send_messages(&message, 1, <size_t>value_bytes, number, NULL,
                                                       None if id_at == NULL else (<object>given.id,))])
        if self.named is not None or id_at != NULL:
            code = TL_EAGAIN
            if self.named is None:
                code = tl_partition_append_one_id(self.natives[number], &message, &hashed,
                                                  self.clock.monotonic_ms if given.timestamp == NULL else -1, &result, &err)
                repeated = result.duplicates
            elif id_at == NULL and self.transacting is None and self.producing.sequence < 0:
                self.check_sender()
                code = tl_partition_append_one_named(self.natives[number], &message, self.producing.producer, &result, &err)
            if code == TL_EAGAIN:
                repeated = 0
                self.prepare(&what)
                what.messages = &message
                what.count = 1
                if id_at != NULL:
                    self.look_for(&what, &hashed, &first, &repeated)
                self.append(number, &what, True, &result)
            elif code < 0:
                fail(code, &err)
        else:
            code = tl_partition_append_one(self.natives[number], &message, TL_APPEND_TRY, &result, &err)
            while code == TL_EAGAIN and self.never_waits:
                self.be_patient(number, &patience)
                code = tl_partition_append_one(self.natives[number], &message, TL_APPEND_TRY, &result, &err)
            if code == TL_EAGAIN:
                with nogil:
                    code = tl_partition_append_one(self.natives[number], &message, 0, &result, &err)
            if code < 0:
                fail(code, &err)
        if not repeated:
            self.sample(&message, 1, number, NULL)
        return self.receipt_at(number, &result, repeated)

    def send_many(self, values, *, keys=None, headers=None, ids=None, partition=None, timestamp=None):
        """Appends many messages, in order within each partition, and returns one Receipt for all.

        `values`: any iterable; for a channel of a numpy dtype also an array or a dict of columns. `keys`: a parallel
        iterable, a function of the value, or, for rows, the name of a field. `headers`: one mapping for all, or a
        parallel sequence of mappings (None: none). `ids`: parallel str (None: none); `receipt.duplicates` says which were
        there before, and of two with one id in a call the second is a duplicate. `timestamp`: one for all, or parallel.
        Without keys a whole call goes to one partition. Raises as `send`, and ValueError for parallel lists of other
        lengths; a note on the exception says how many messages are in the log already.
        """
        return self.send_all(values, keys, headers, ids, partition, timestamp)

    @cython.final
    cdef Receipt send_all(self, values, keys, headers, ids, partition, timestamp):
        self.check_open()
        cdef uint32_t only = NO_PARTITION
        cdef list parts = []
        if partition is not None:
            only = self.check_partition(partition)
        elif self.partitions == 1 and self.partitioner is None:
            only = 0
        try:
            if self.shared.row_bytes:
                send_array(self, self.shared.rows(values), keys, headers, ids, only, timestamp, parts)
            else:
                self.send_rounds(values, keys, headers, ids, only, timestamp, parts)
        except Exception as error:
            sent = sum([(<_Part>part).count for part in parts])
            if sent:
                error.add_note(f"the first {sent} messages of this call are in the log already")
            raise
        return self.receipt_of(parts)

    cdef int send_rounds(self, object values, object keys, object headers, object ids, uint32_t only, object timestamp,
                         list parts) except -1:
        """Sends an iterable, some thousand messages at a time."""
        cdef Py_ssize_t count, round_size
        cdef object items
        cdef bint whole = isinstance(values, list | tuple)
        cdef bint last = whole
        cdef _Beside beside = _Beside.__new__(_Beside)
        count = len(values) if whole else -1
        beside.begin(self.shared, keys, headers, ids, timestamp, count)
        if whole and count <= ROUND_MESSAGES:
            if count:
                parts.append(self.send_round(values, count, beside, only))
        else:
            round_size = ROUND_MESSAGES if whole else 1024
            if whole:
                self.check_sizes(values)
            source = iter(values)
            while True:
                items = list(islice(source, round_size))
                count = PyList_GET_SIZE(items)
                if count == 0:
                    break
                parts.append(self.send_round(items, count, beside, only))
                PyErr_CheckSignals()
        if not beside.keyed:
            self.move_on()
        beside.finish()
        return 0

    cdef _Part send_round(self, object items, Py_ssize_t count, _Beside beside, uint32_t only):
        cdef tl_message *messages
        cdef uint32_t *chosen = NULL
        cdef Py_ssize_t i, total
        cdef _Part part
        beside.advance(items, count)
        cdef object datas = items if self.shared.encode is None else self.shared.encode_many(items)
        if self.shared.encode is None and not all_bytes(datas, count):
            datas = [self.bytes_of(data) for data in datas]
        elif PyList_CheckExact(datas) and (self.partitioner is not None or self.compress is not None):
            datas = tuple(datas)  # Python code will run: the caller's list may change meanwhile
        if len(datas) != count:
            raise ValueError(f"{count} values became {len(datas)} while they were sent: another thread changed them")
        messages = self.borrow(<size_t>count)
        try:
            total = self.fill_values(messages, datas, count, beside)
            total += beside.fill(messages, count, self.max_message_bytes)
            if total > RELEASE_FROM_BYTES and PyList_CheckExact(datas):
                datas = tuple(datas)
            if only == NO_PARTITION:
                chosen = self.choose(messages, items, count, beside, &only)
            part = self.send_messages(messages, <size_t>count, <size_t>total, only, chosen, beside.round_ids)
        finally:
            self.give_back(messages)
        return part

    cdef Py_ssize_t fill_values(self, tl_message *messages, object datas, Py_ssize_t count,
                                _Beside beside) except -1:
        """Values into fresh entries; the bytes they have together. `datas` is a list or tuple of bytes."""
        cdef PyObject **items = PySequence_Fast_ITEMS(datas)
        cdef int64_t now = beside.timestamp_ms if beside.stamps is None else 0
        cdef Py_ssize_t i, total = 0, size_bytes, largest = 0
        cdef tl_message *message = messages
        if not beside.timed:
            now = tl_clock_ms(&self.clock)
        for i in range(count):
            size_bytes = _bytes_size(items[i])
            message.key = NULL
            message.value = <const uint8_t *>_bytes_at(items[i])
            message.headers = NULL
            message.key_bytes = -1
            message.value_bytes = <int32_t>size_bytes
            message.headers_bytes = 0
            message.timestamp_ms = now
            total += size_bytes
            if size_bytes > largest:
                largest = size_bytes
            message += 1
        if largest > self.max_message_bytes:
            for i in range(count):
                if _bytes_size(items[i]) > self.max_message_bytes:
                    self.too_large(_bytes_size(items[i]), -1, f"message {i} of this round: ")
        return total

    cdef uint32_t *choose(self, tl_message *messages, object items, Py_ssize_t count, _Beside beside,
                          uint32_t *only) except? NULL:
        """The partition of every message, to be freed by the caller; or NULL and one for all in *only."""
        cdef uint32_t *chosen
        cdef Py_ssize_t i
        cdef object key
        if not beside.keyed and self.partitioner is None:
            only[0] = self.sticky
            return NULL
        chosen = <uint32_t *>take(<size_t>count, sizeof(uint32_t))
        try:
            if self.partitioner is not None:
                for i in range(count):
                    key = None
                    if messages[i].key_bytes >= 0:
                        key = PyBytes_FromStringAndSize(<char *>messages[i].key, messages[i].key_bytes)
                    chosen[i] = self.ask_partitioner(key, items[i])
            else:
                beside.choose(messages, count, self.partitions, self.sticky, chosen)
        except BaseException:
            tl_os.free(chosen)
            raise
        return chosen

    cdef bytes bytes_of(self, object value):
        """The bytes to store. Raises SchemaMismatch."""
        if self.shared.encode is not None:
            data = self.shared.encode(value)
            return data if type(data) is bytes else bytes(data)
        if type(value) is bytes:
            return value
        if isinstance(value, str) or value is None or not PyObject_CheckBuffer(value):
            raise SchemaMismatch(f"{self.shared.name!r} holds bytes, not {type(value).__qualname__}: give bytes, or "
                                 f"open the channel with a type")
        return bytes(value)

    cdef int check_sizes(self, object values) except -1:
        """Refuses a list with a message that is too large before its first round is sent."""
        cdef Py_ssize_t i = 0
        if self.shared.encode is None:
            for value in values:
                if type(value) is bytes and PyBytes_GET_SIZE(value) > self.max_message_bytes:
                    self.too_large(PyBytes_GET_SIZE(value), -1, f"message {i}: ")
                i += 1
        return 0

    cdef int too_large(self, Py_ssize_t value_bytes, Py_ssize_t key_bytes, str which) except -1:
        raise_too_large(self.shared, value_bytes, key_bytes, which)


cdef object quick_send(object self, PyObject **values, Py_ssize_t count, PyObject *names):
    if count == 1:
        if names == NULL:
            return (<Sender>self).send_alone(values[0])
        return (<Sender>self).send_given(values, names)
    return call_slowly(_slow_send, self, values, count, names)


cdef PyMethodDef _quick_send
cdef object _slow_send = put_quick(
    Sender, "send", "($self, value, *, key=None, headers=None, id=None, partition=None, timestamp=None)", &_quick_send,
    <void *>quick_send)
