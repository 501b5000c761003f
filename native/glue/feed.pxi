# Which messages come next, out of several partitions in turn?
#
# The half of Reader that knows no groups: where it stands in each partition, filling chunks in rotation, sleeping until
# something is published. One thread at a time: `busy` names the thread inside, `enter` refuses another one. The GIL is
# kept for reads of at most RELEASE_FROM_BYTES that need no system call, and released for everything else.
#
# A partition is read while it is `assigned`. What changes that, `_turned()` of Consumer, is called between two
# messages: when the word `turn_at` points at differs from what was seen, when the catalogue changed, or at `look_ns`.
# The calls it makes itself find the reader busy with their own thread, and are let in (`turning`).
#
# The garbage collector must not clear these objects (no_gc_clear): giving the leases back needs the store.

cdef struct _Entry:
    tl_partition *native
    tl_cursor cursor
    uint64_t seen      # tail before the last look: what a sleeper compares with
    int64_t stop       # no message at or past this offset is handed over; -1: no such
    int64_t handed     # offset behind the last message handed over and not yet committed
    int64_t since      # where it stood after its last commit or seek: what was handed over from there on is not committed
    int32_t number
    uint32_t slot, epoch
    bint assigned, paused, finished, leased, owed

cdef enum:
    NEXT_BYTES = 65536  # read ahead for message by message

    CALL_NS = 500_000_000  # at most so long in the core at once: so late is it seen that a channel has more partitions

cdef extern from *:
    """
    static inline uint32_t glue_load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    """
    uint32_t glue_load(const uint32_t *word) noexcept nogil

cdef uint64_t _serials = 0


@cython.no_gc_clear
cdef class _Feed:
    # Not in Reader: Cython makes no dealloc for a class that adds nothing but this, and weak references would dangle.
    cdef object __weakref__
    cdef Store store
    cdef list handles, shareds     # by entry: Partition, Channelled
    cdef _Entry *entries
    cdef tl_partition **waited     # scratch of wait()
    cdef uint64_t *seen
    cdef uint32_t count, rotation
    cdef unsigned flags
    cdef size_t max_bytes
    cdef int64_t busy_ns
    cdef object dtype              # of every channel, or None
    cdef size_t row_bytes
    cdef uint64_t serial
    cdef unsigned long busy        # thread inside, 0: none
    cdef uint32_t cancelled
    cdef uint32_t roused           # what a sleeper looks at: set by _cancel and by _rouse
    # what to look at between two messages
    cdef const uint32_t *turn_at   # differs from turn_seen: something changed in the group
    cdef uint32_t turn_seen, no_turn
    cdef uint64_t generation       # of the catalogue, at the last look
    cdef int64_t look_ns           # when _turned() is due again whatever happens; -1: only at changes
    cdef int64_t slice_ns          # at most so long asleep at once
    cdef bint turning              # inside _turned()
    cdef uint32_t depth            # calls inside calls of _turned()
    cdef bint stopping             # there are ends: iteration is over when all assigned partitions are finished
    cdef bint pending              # the assignment is not complete: nothing is over yet
    # messages read and not handed over: chunk[at:end]
    cdef _Chunk chunk
    cdef size_t at, end, run, run_end

    def __dealloc__(self):
        tl_os.free(self.entries)
        tl_os.free(self.waited)
        tl_os.free(self.seen)

    cdef int begin(self, Store store, object partitions, bint uncommitted, double busy_poll,
                   size_t max_bytes) except -1:
        global _serials
        if self.turn_at != NULL:
            raise RuntimeError("this reader is attached already")
        self.handles = []
        self.shareds = []
        self.store = store
        self.add_entries(list(partitions))
        self.flags = TL_READ_UNCOMMITTED if uncommitted else 0
        self.busy_ns = nanoseconds(busy_poll)
        self.max_bytes = max_bytes
        self.look_ns = -1
        self.slice_ns = CALL_NS
        self.generation = tl_store_generation(store.open_native())
        _serials += 1
        self.serial = _serials
        self.look_at(&self.no_turn)  # attached
        return 0

    cdef void look_at(self, const uint32_t *turn_at) noexcept:
        """Compares this word from now on."""
        self.turn_at = turn_at
        self.turn_seen = glue_load(turn_at)

    cdef int add_entries(self, list given) except -1:
        """More partitions behind those that are there: (Partition, number, Channelled). Nothing is changed on an
        error."""
        cdef uint32_t i, count = self.count + <uint32_t>len(given)
        cdef Partition handle
        cdef Channelled shared
        cdef list handles = list(self.handles), shareds = list(self.shareds)
        cdef object dtype = self.dtype
        cdef size_t row_bytes = self.row_bytes
        cdef _Entry *entries = <_Entry *>widened(self.entries, self.count, count, sizeof(_Entry))
        cdef tl_partition **waited = NULL
        cdef uint64_t *seen = NULL
        try:
            for i in range(self.count, count):
                handle, number, shared = given[i - self.count]
                handles.append(handle)
                shareds.append(shared)
                entries[i].native = handle.open_native()
                entries[i].number = number
                entries[i].stop = -1
                if i == 0:
                    dtype = shared.dtype
                    row_bytes = shared.row_bytes
                elif row_bytes and shared.dtype != dtype:
                    row_bytes = 0
            waited = <tl_partition **>take(count, sizeof(void *))
            seen = <uint64_t *>take(count, sizeof(uint64_t))
        except BaseException:
            tl_os.free(entries)
            tl_os.free(waited)
            raise
        tl_os.free(self.entries)
        tl_os.free(self.waited)
        tl_os.free(self.seen)
        self.entries, self.waited, self.seen = entries, waited, seen
        self.handles, self.shareds = handles, shareds
        self.dtype = dtype
        self.row_bytes = row_bytes
        self.count = count
        return 0

    # --- one thread at a time ---

    @cython.final
    cdef int enter(self) except -1:
        """Every call passes here, or looks at `busy` and `cancelled` itself."""
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.turn_at == NULL:
            raise TypeError("this reader is not attached to a log")
        if self.busy and not (self.turning and self.busy == me):
            refuse_thread(self.busy, me)
        if self.cancelled:
            closed("the consumer was closed", "make a new one with channel.consumer()")
        if not tl_store_is_open(self.store.open_native()):
            # A forked child must not be handed what its parent had read.
            if self.count:
                self.handles[0].bounds()  # raises what has become of the store
            closed("the log was closed")
        if self.busy:
            self.depth += 1
        self.busy = me
        return 0

    @cython.final
    cdef void leave(self) noexcept:
        if self.depth:
            self.depth -= 1
        else:
            self.busy = 0

    cdef uint32_t check_index(self, object index) except? 0xFFFFFFFF:
        cdef int64_t wanted = index
        if not 0 <= wanted < self.count:
            raise IndexError(f"there is no partition {wanted} among the {self.count} of this reader")
        return <uint32_t>wanted

    # --- reading ---

    cdef inline bint silent(self, uint32_t i) noexcept:
        """Whether nothing is to be read from a partition."""
        return not self.entries[i].assigned or self.entries[i].paused or self.entries[i].finished

    cdef _Chunk empty_chunk(self):
        """The last one again, if nobody has a message of it: message by message, most reads find it so."""
        cdef _Chunk chunk = self.chunk
        self.chunk = None
        if chunk is None or not chunk.begin_again():
            chunk = new_chunk(None, None)
        chunk.shareds, chunk.handles = self.shareds, self.handles
        chunk.reader = self.serial
        return chunk

    cdef _Chunk fill(self, size_t max_records, size_t max_bytes):
        """Messages of the partitions in turn: at least one batch if there is any, then up to the limits."""
        cdef _Chunk chunk = self.empty_chunk()
        cdef uint32_t k, i, first = self.rotation
        try:
            for k in range(self.count):
                i = (first + k) % self.count
                if self.silent(i):
                    continue
                if self.read_entry(i, chunk, max_records - chunk.c.count, max_bytes - chunk.c.used) < 0:
                    self.rotation = i  # what is wrong there is said when the messages before it were handed over
                    break
                if chunk.c.count >= max_records or chunk.c.used >= max_bytes:
                    self.rotation = (i + 1) % self.count
                    break
        except BaseException:
            self.rewind(chunk)
            raise
        return chunk

    cdef int read_entry(self, uint32_t i, _Chunk chunk, size_t max_records, size_t max_bytes) except -2:
        """Adds messages of one partition. -1: something is wrong there, which is said once the chunk is used up."""
        cdef _Entry *entry = &self.entries[i]
        cdef tl_cursor before = entry.cursor
        cdef size_t had = chunk.c.count
        cdef tl_chunk *into = &chunk.c
        cdef tl_read_end end
        cdef tl_error err
        cdef int code = TL_EAGAIN
        entry.seen = tl_partition_tail(entry.native)
        chunk.begin_run(entry.number, i, entry.epoch)
        if max_bytes <= RELEASE_FROM_BYTES:
            code = tl_partition_read(entry.native, &entry.cursor, into, max_records, max_bytes,
                                     self.flags | TL_READ_TRY, &end, &err)
            if code == TL_EAGAIN:
                entry.cursor = before
        if code == TL_EAGAIN:
            with nogil:
                code = tl_partition_read(entry.native, &entry.cursor, into, max_records, max_bytes, self.flags, &end,
                                         &err)
        if code < 0:
            return self.failed(i, code, &err, end.skipped_to, had > 0)
        if end.compressed and self.unpack(i, chunk, &end, before) < 0:
            code = -1
        if entry.stop >= 0:
            while chunk.c.count > had and chunk.c.records[chunk.c.count - 1].offset >= entry.stop:
                chunk.c.count -= 1
            self.note_stop(entry)
        return -1 if code == -1 else 0

    cdef void note_stop(self, _Entry *entry) noexcept:
        """Whether everything before the stop was read; the cursor then stands at it."""
        if entry.cursor.offset >= entry.stop:
            if entry.cursor.offset > entry.stop:
                entry.cursor.offset = entry.stop
                entry.cursor.located = False
            entry.finished = True

    cdef int unpack(self, uint32_t i, _Chunk chunk, tl_read_end *end, tl_cursor before) except -2:
        """Adds the records of the compressed batch that ended a read. When that fails the cursor stands before the
        batch, and the answer is -1 if there are messages to hand over first."""
        cdef tl_chunk *into = &chunk.c
        cdef size_t at
        cdef tl_error err
        cdef int code
        try:
            records = (<Channelled>self.shareds[i]).unpack(
                tl_batch_codec(&end.batch), into.bytes + end.batch_at + TL_BATCH_HEADER_BYTES,
                end.batch.bytes - TL_BATCH_HEADER_BYTES)
            at = into.used
            code = append_bytes(into, records, &err)
            if code >= 0:
                code = tl_chunk_add(into, at, <size_t>PyBytes_GET_SIZE(records), &end.batch, before.offset, &err)
            if code == TL_ECORRUPT:
                raise DecodeError(f"the compressed batch at offset {end.batch.base_offset} of partition "
                                  f"{self.entries[i].number} of {self.shareds[i].name!r} unpacks to no records: "
                                  f"{(<bytes>err.what).decode('utf-8', 'replace')}")
            if code < 0:
                fail(code, &err)
        except BaseException as error:
            self.entries[i].cursor.offset = max(before.offset, end.batch.base_offset)
            self.entries[i].cursor.located = False
            if chunk.count() and isinstance(error, Exception):
                return -1
            raise
        return 0

    cdef int rewind(self, _Chunk chunk) except -1:
        """Puts the cursors back before the messages of a chunk that will not be handed over."""
        cdef size_t run
        cdef _Entry *entry
        for run in range(chunk.run_count):
            if chunk.runs[run].first < chunk.run_end(run):
                entry = &self.entries[chunk.runs[run].entry]
                entry.cursor.offset = chunk.offset_of(chunk.runs[run].first)
                entry.cursor.located = False
                entry.finished = False
        return 0

    cdef int failed(self, uint32_t i, int code, const tl_error *err, int64_t skipped_to, bint later) except -2:
        """Raises what went wrong in one partition, or puts it off (-1) when there are messages to hand over first."""
        cdef _Entry *entry = &self.entries[i]
        cdef int64_t wanted = entry.cursor.offset
        entry.cursor.located = False
        if later:
            return -1
        name = (<Channelled>self.shareds[i]).name
        if code == TL_ERANGE:
            start, end = (<Partition>self.handles[i]).bounds()
            entry.cursor.offset = start
            raise from_native(code, f"partition {entry.number} of {name!r} has no offset {wanted} any more, its log is "
                              f"[{start}, {end}); the next call goes on at {start}", "", -1, 0, "")
        try:
            fail(code, err)
        except Exception as error:
            if code == TL_ECORRUPT and skipped_to >= 0:
                error.add_note(f"partition {entry.number} of {name!r} can be read again from offset {skipped_to} on: "
                               f"seek there to skip the damaged messages")
                error.skipped_to = skipped_to
            raise

    cdef bint all_finished(self) noexcept:
        """Whether nothing more can come: there are stops, and each partition that is assigned has reached its own."""
        cdef uint32_t i
        if not self.stopping or self.pending:
            return False
        for i in range(self.count):
            if self.entries[i].assigned and not self.entries[i].finished:
                return False
        return True

    # --- changes of the assignment ---

    cdef bint turn_due(self):
        """Whether to call _turned(), seen from between two reads."""
        if self.stays():
            return False
        return (glue_load(self.turn_at) != self.turn_seen
                or tl_store_generation(self.store.native) != self.generation
                or (self.look_ns >= 0 and tl_os.monotonic_ns() >= self.look_ns))

    cdef int turn_over(self) except -1:
        """Calls _turned(). An error leaves everything due, so that the next call takes it up again."""
        cdef const uint32_t *at = self.turn_at
        cdef uint32_t seen = glue_load(at)  # before the look: what changes during it is due again
        cdef uint64_t generation = tl_store_generation(self.store.open_native())
        if self.cancelled:
            closed("the consumer was closed", "make a new one with channel.consumer()")
        self.turning = True
        try:
            again = self._turned()
        finally:
            self.turning = False
            self.depth = 0
        if self.turn_at == at:
            self.turn_seen = seen
        self.generation = generation
        self.look_ns = -1 if again is None else tl_os.monotonic_ns() + nanoseconds(again)
        return 0

    # --- waiting ---

    cdef bint wait(self, int64_t until_ns) except -1:
        """Sleeps until a partition has more than at the last look or _turned() is due (True), or the clock passes
        `until_ns` or somebody calls _rouse() (False; -1: for ever). Raises Closed when cancelled.

        A signal ends the sleep of the thread that gets it, so the look at signals after CALL_NS is for those that
        another thread got, or that came just before the sleep.
        """
        cdef uint32_t i
        cdef size_t waiting = 0
        cdef int64_t now, part, busy = self.busy_ns
        cdef tl_store *native = self.store.open_native()
        cdef tl_turn turn
        cdef tl_error err
        cdef int code
        cdef bint stays
        turn.word = self.turn_at
        turn.seen = self.turn_seen
        for i in range(self.count):
            if not self.silent(i):
                self.waited[waiting] = self.entries[i].native
                self.seen[waiting] = self.entries[i].seen
                waiting += 1
        while True:
            self.store.open_native()
            part = self.slice_ns
            stays = self.stays()
            now = tl_os.monotonic_ns()
            if until_ns >= 0:
                if now >= until_ns:
                    return False
                part = min(part, until_ns - now)
            if self.look_ns >= 0 and not stays:
                part = max(min(part, self.look_ns - now), 0)
            self.asking(now)
            with nogil:
                code = tl_store_wait(native, self.waited, self.seen, waiting, part, min(busy, part), &turn,
                                     0 if stays or self.turn_at == &self.no_turn else 1, &self.roused, &err)
            PyErr_CheckSignals()
            if code >= 0 or code == TL_ETURNED:
                return True
            if code == TL_ECLOSED and self.roused and not self.cancelled and tl_store_is_open(native):
                self.roused = 0
                return False
            if code == TL_ECLOSED and self.cancelled and tl_store_is_open(native):
                closed("the consumer was closed while it waited", "make a new one with channel.consumer()")
            if code != TL_ETIMEOUT and code != TL_EAGAIN:
                fail(code, &err)
            if self.turn_due():
                return True
            busy = max(busy - part, 0)

    cdef bint stays(self) noexcept:
        """Whether the assignment must not change now; _Delivery knows."""
        return False

    cdef void asking(self, int64_t now_ns) noexcept:
        """Told while it waits, at least every slice_ns; _Delivery tells the group."""

    # --- where it stands ---

    cdef int64_t position(self, uint32_t i) noexcept:
        """Offset of the next message of a partition to be handed over."""
        cdef size_t run, first, end
        if self.chunk is not None and self.at < self.end:
            for run in range(self.chunk.run_count):
                first = max(self.chunk.runs[run].first, self.at)
                end = min(self.chunk.run_end(run), self.end)
                if self.chunk.runs[run].entry == i and first < end:
                    return self.chunk.offset_of(first)
        return self.entries[i].cursor.offset

    cdef void drop_buffer(self) noexcept:
        """Forgets what was read and not handed over; reading starts there again."""
        cdef uint32_t i
        cdef int64_t offset
        if self.at < self.end:
            for i in range(self.count):
                offset = self.position(i)
                if offset != self.entries[i].cursor.offset:
                    self.entries[i].cursor.offset = offset
                    self.entries[i].cursor.located = False
                    self.entries[i].finished = False
        self.chunk = None
        self.at = self.end = self.run = self.run_end = 0

    cdef void use(self, _Chunk chunk) noexcept:
        """Hands over from this chunk from now on."""
        self.chunk = chunk
        self.at = 0
        self.end = chunk.count()
        self.run = 0
        self.run_end = chunk.run_end(0) if chunk.run_count else 0


cdef void *widened(const void *old, size_t had, size_t count, size_t size_bytes) except NULL:
    """A copy of `had` elements with room for `count`; what is behind them is zero. The old one stays the caller's."""
    cdef void *fresh = take(count, size_bytes)
    memset(fresh, 0, count * size_bytes)
    if had:
        memcpy(fresh, old, had * size_bytes)
    return fresh


cdef int refuse_thread(unsigned long inside, unsigned long me) except -1:
    import threading

    names = {thread.ident: thread.name for thread in threading.enumerate()}
    if inside == me:
        raise RuntimeError(f"thread {names.get(me, me)!r} is inside this consumer already: it cannot be used from a "
                           f"signal handler or from what it calls itself")
    raise RuntimeError(f"thread {names.get(inside, inside)!r} is inside this consumer, and thread "
                       f"{names.get(me, me)!r} called it too: a consumer belongs to one thread, open one for each")
