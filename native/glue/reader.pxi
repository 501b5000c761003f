# How does Python receive messages: one by one, many at once, waiting or not?
#
# The public face over _Delivery and _Feed. One thread at a time; only _cancel and _rouse may come from another one.

@cython.no_gc_clear
cdef class Reader(_Delivery):
    """Reads partitions of one or more channels in turn, and holds their leases and committed offsets. Not thread-safe:
    a second thread inside raises. Consumer derives from it."""

    def _attach(
        self,
        Store store,
        partitions,
        *,
        group,
        channel_ids,
        mode,
        uncommitted,
        busy_poll,
        max_bytes,
    ):
        """mode: "at-least-once", "at-most-once", "manual" or "none" (no group, no commits)."""
        self.begin(store, partitions, uncommitted, busy_poll, max_bytes)
        self.begin_delivery(group, channel_ids, mode)

    def _claim(self, timeout, /):
        """Takes the lease of every partition; answers the committed offsets. Raises Locked with the holder."""
        cdef int64_t until = nanoseconds(timeout)
        cdef uint32_t i
        until = 0x7FFFFFFFFFFFFFFF if until < 0 else tl_os.monotonic_ns() + until
        self.enter()
        try:
            if self.mode == NO_GROUP:
                raise ValueError("this reader belongs to no group: there is nothing to claim")
            for i in range(self.count):
                if not self.entries[i].leased:
                    self.claim(i, until)
            return [self.committed(i) for i in range(self.count)]
        except BaseException:
            self.release_leases()
            raise
        finally:
            self.leave()

    def _join(self, Membership membership, max_processing=None, /):
        """Takes part in a group: from now on its turn is compared at every hand-over, and _turned() is called at once
        before the next one. Leases are taken with _take(). `max_processing`: what the group was told, in seconds; the
        group then learns when calls end. A second call takes the place of the first."""
        cdef int64_t limit_ns = nanoseconds(max_processing)
        self.enter()
        try:
            if self.mode == NO_GROUP:
                raise ValueError("this reader belongs to no group: there is nothing to join")
            self.membership = membership
            self.limited = limit_ns >= 0
            self.expellable = self.limited or membership.encoded_name is not None
            # While it waits it must tell more often than it may be silent.
            self.slice_ns = CALL_NS if limit_ns < 0 else max(min(CALL_NS, limit_ns // 4), 1_000_000)
            self.look_at(tl_member_turn(self.store.native, &membership.member))
            self.look_ns = 0
            # From now on: who takes partitions and never asks would keep them from the others for ever.
            self.asking(tl_os.monotonic_ns())
        finally:
            self.leave()

    def _turned(self):
        """Called between two messages when the group or the catalogue has changed; Consumer does what is to do. Seconds
        after which it is to be called again at the latest, None: only at changes."""
        return None

    def _take(self, index, /):
        """Takes the lease of a partition that is assigned to this member; False: somebody still holds it."""
        cdef uint32_t i = self.check_index(index)
        self.enter()
        try:
            return self.take_lease(i)
        finally:
            self.leave()

    def _give(self, indexes, /):
        """Gives the leases of these partitions back. What was read of them and not handed over is forgotten, and what
        is owed stays uncommitted."""
        self.enter()
        try:
            self.drop_buffer()
            for index in indexes:
                self.give_lease(self.check_index(index))
            self.tell_group()
        finally:
            self.leave()

    def _holds(self, index, /):
        """Whether the lease of a partition is held."""
        return bool(self.entries[self.check_index(index)].leased)

    def _extend(self, partitions, channel_ids, /):
        """More partitions, behind those that are there."""
        self.enter()
        try:
            self.add_entries(list(partitions))
            self.add_channel_ids(list(channel_ids))
        finally:
            self.leave()

    def _incomplete(self, pending, /):
        """Whether more partitions may come: then iteration does not end, whatever has reached its stop."""
        self.pending = bool(pending)

    def _seek(self, index, offset, /):
        """The next message of a partition is the one at `offset`, or the first behind it."""
        cdef uint32_t i = self.check_index(index)
        cdef int64_t wanted = offset
        if wanted < 0:
            raise ValueError(f"the offset {wanted} is negative")
        self.enter()
        self.drop_buffer()
        self.forgive(i)
        self.entries[i].cursor.offset = self.entries[i].since = wanted
        self.entries[i].cursor.located = False
        self.entries[i].finished = 0 <= self.entries[i].stop <= wanted
        self.leave()

    def _position(self, index, /):
        """Offset of the next message of a partition to be handed over."""
        return self.position(self.check_index(index))

    def _stop_at(self, ends, /):
        """Offsets at which each partition is finished: iteration ends when all are."""
        cdef uint32_t i
        cdef int64_t end
        if ends is not None and len(ends) != self.count:
            raise ValueError(f"{len(ends)} ends for {self.count} partitions: give one for each")
        self.enter()
        try:
            self.drop_buffer()
            self.stopping = ends is not None
            for i in range(self.count):
                end = -1 if ends is None else ends[i]
                self.entries[i].stop = end
                self.entries[i].finished = 0 <= end <= self.entries[i].cursor.offset
        finally:
            self.leave()

    def _pause(self, index, paused, /):
        """A paused partition hands over nothing, and keeps its lease."""
        cdef uint32_t i = self.check_index(index)
        self.enter()
        self.drop_buffer()
        self.entries[i].paused = bool(paused)
        self.leave()

    def _commit(self, index, offset, /):
        """Stores `offset` as the next one wanted of a partition."""
        cdef uint32_t i = self.check_index(index)
        cdef int64_t wanted = offset
        if wanted < 0:
            raise ValueError(f"the offset {wanted} is negative")
        self.enter()
        try:
            self.commit_to(i, wanted)
        finally:
            self.leave()

    def _commit_beside(self, index, offset, /):
        """_commit() from any thread, also while another one is inside: whether it is stored. If not, _commit() of the
        one thread says why, and settles it. Callers see to it that the offset only grows. The lease cannot change
        meanwhile, since this keeps the GIL; and nothing is owed in the mode "manual", which alone may do this."""
        cdef uint32_t i = self.check_index(index)
        cdef int64_t wanted = offset
        if (self.mode != MANUAL or wanted < 0 or self.cancelled or self.store.is_closed
                or not tl_store_is_open(self.store.native) or not self.entries[i].leased):
            return False
        if tl_offsets_commit(self.table, self.entries[i].slot, self.me, self.entries[i].epoch, wanted,
                             tl_os.coarse_ms()) < 0:
            return False
        self.entries[i].since = wanted
        return True

    def _owe_before(self, index, offset, /):
        """What commits everything that was handed over commits of a partition only what stands before `offset`."""
        cdef uint32_t i = self.check_index(index)
        cdef int64_t wanted = offset
        self.enter()
        try:
            self.owe_before(i, wanted)
        finally:
            self.leave()

    def _return(self, index, offset, /):
        """What was handed over of a partition from `offset` on comes again, and is not committed by what commits
        everything that was handed over."""
        cdef uint32_t i = self.check_index(index)
        cdef int64_t wanted = offset
        self.enter()
        try:
            self.give_back(i, wanted)
        finally:
            self.leave()

    def _committed(self, index, /):
        """The committed offset of a claimed partition, None if there is none."""
        return self.committed(self.check_index(index))

    cdef object committed(self, uint32_t i):
        cdef tl_offset_word word
        cdef int64_t time_ms = 0
        if not self.entries[i].leased or not tl_store_is_open(self.store.native):
            self.refuse_commit(i)
        cdef int code = tl_offsets_read(self.table, self.entries[i].slot, &word, &time_ms)
        if code < 0:
            self.store.fail_slot(code, self.entries[i].slot)
        return word.offset if word.offset >= 0 else None

    def _bounds(self, index, /):
        """(log start offset, log end offset) of a partition."""
        return (<Partition>self.handles[self.check_index(index)]).bounds()

    def _count(self, index, offset, /):
        """How many messages stand from `offset` to where this reader has to stop in a partition, of those it would see."""
        cdef bint uncommitted = (self.flags & TL_READ_UNCOMMITTED) != 0
        return (<Partition>self.handles[self.check_index(index)]).count_from(offset, uncommitted=uncommitted)

    def _release(self):
        """Gives the leases back."""
        self.release_leases()

    def _cancel(self):
        """Wakes a blocked call of another thread, which then raises Closed. Callable from any thread."""
        self.cancelled = 1
        self._rouse()

    def _rouse(self):
        """Ends the wait of a blocked call of another thread, or else the next wait, as if its time-out had passed.
        Callable from any thread; whoever iterates sees the end."""
        self.roused = 1
        if self.store is not None and self.store.native != NULL and tl_store_is_open(self.store.native):
            tl_store_wake(self.store.native)

    def _settle(self):
        """Commits what was handed over and counts as handled (leaving `with` without an exception)."""
        if self.mode == AT_LEAST_ONCE:
            self.enter()
            try:
                self.check_expelled(False)
                self.settle()
            finally:
                self.leave()

    # --- receiving ---

    def __iter__(self):
        cdef _Delivered messages = _Delivered.__new__(_Delivered)
        messages.reader = self
        return messages

    def __next__(self):
        return self.next_message()

    cdef inline Message next_message(self):
        if (self.busy or self.cancelled or self.at >= self.end or self.store.is_closed
                or not tl_store_is_open(self.store.native) or glue_load(self.turn_at) != self.turn_seen):
            if not self.more(-1, 0):
                raise StopIteration
        else:
            if self.owing_count and self.mode == AT_LEAST_ONCE:
                self.settle_open()
            if self.limited:
                self.asking_often()
        return self.hand_over()

    def receive(self, timeout=None):
        """The next message. `timeout`: seconds, None to wait for ever.

        Raises Timeout when none came in time (and at once when every partition has reached its stop), Closed,
        OffsetOutOfRange (once; the next call goes on at the log start), Corrupt, Fenced.
        """
        if not self.more(until(timeout), 0):
            if self.all_finished():
                raise Timeout("every partition was read up to its stop: there is no message left to receive")
            raise Timeout(f"no message came within {timeout} s; call again or give more time")
        return self.hand_over()

    def receive_many(self, count=1000, timeout=None):
        """A Batch of up to `count` messages: waits for the first one only. Empty when none came within `timeout`
        seconds (None: for ever) or every partition has reached its stop. Raises as `receive` does."""
        cdef int64_t wanted = count
        cdef size_t first, run
        cdef uint32_t i
        if wanted <= 0:
            raise ValueError(f"count is 1 or more, not {count}")
        if not self.more(until(timeout), <size_t>wanted):
            return self.nothing()
        first = self.at
        cdef size_t stop = min(self.end, first + <size_t>wanted)
        cdef _Chunk chunk = self.chunk
        if self.mode != NO_GROUP:
            run = self.run
            while run < chunk.run_count and chunk.runs[run].first < stop:
                i = chunk.runs[run].entry
                if chunk.run_end(run) > first:
                    if self.mode == AT_MOST_ONCE:
                        self.commit_entry(i, chunk.offset_of(min(chunk.run_end(run), stop) - 1) + 1)
                    else:
                        self.owe(i, chunk.offset_of(min(chunk.run_end(run), stop) - 1) + 1)
                run += 1
        self.at = stop
        if stop < self.end:
            self.run = chunk.run_of(stop)
            self.run_end = chunk.run_end(self.run)
        else:
            self.chunk = None  # the batch alone keeps it
            self.at = self.end = 0
        return new_batch(chunk, first, stop)

    def commit(self, upto=None, *, level=None):
        """Stores the offset behind a message, behind every message of a batch, or behind everything handed over (None).

        level="synced" returns once the offsets are on disk. Raises Fenced when the lease was lost, ValueError for
        messages of other partitions, another level, or a reader without a group.
        """
        cdef _Chunk chunk
        cdef Batch batch
        cdef Message message
        cdef bint synced = False
        if level is not None:
            synced = level == "synced"
            if not synced and level != "written":
                raise ValueError(f"the level {level!r} does not exist: 'written' or 'synced'")
        self.enter()
        try:
            if self.mode == NO_GROUP:
                self.refuse_commit(0)
            if self.mode == IN_TRANSACTION:
                self.leave_ended()
            if self.mode == IN_TRANSACTION:
                raise RuntimeError("this consumer takes part in a transaction, which commits what it has handed over: "
                                   "call commit() of the transaction, or leave its `with`")
            self.check_expelled(True)
            if upto is None:
                self.settle()
            elif isinstance(upto, Message):
                message = upto
                chunk = message.chunk
                self.commit_run(chunk, message.run, chunk.offset_of(message.index) + 1)
            elif isinstance(upto, Batch):
                batch = upto
                for _, run_number, offset in batch_ends(batch):
                    self.commit_run(batch.chunk, run_number, offset)
            else:
                raise TypeError(f"commit() takes a Message, a Batch or nothing, not {type(upto).__qualname__}")
            if synced:
                self.store.sync_offsets()
        finally:
            self.leave()

    cdef Batch nothing(self):
        """A batch without messages, whose `values` still has the right type."""
        cdef _Chunk chunk = new_chunk(self.shareds, self.handles)
        if self.count:
            chunk.begin_run(self.entries[0].number, 0, 0)
        return new_batch(chunk, 0, 0)

    cdef bint more(self, int64_t until_ns, size_t many) except -1:
        """Whether there is a message to hand over: reads, and waits until `until_ns` (-1: for ever). `many`: how many
        are asked for at once, 0: message by message."""
        cdef _Chunk chunk
        self.enter()
        try:
            if self.turning:
                raise RuntimeError("on_assign and on_revoke are called while a message is asked for: they may commit, "
                                   "seek, pause and resume, and not receive")
            if self.mode == IN_TRANSACTION:
                self.leave_ended()
            if glue_load(self.turn_at) != self.turn_seen:
                self.check_expelled(False)
            if self.mode == AT_LEAST_ONCE:
                self.settle()
            if glue_load(self.turn_at) != self.turn_seen and not self.stays():
                self.turn_over()
            while self.at >= self.end:
                if self.turn_due():
                    self.turn_over()
                    if self.at < self.end:
                        break
                if many == 0:
                    chunk = self.fill(NEXT_BYTES, NEXT_BYTES)
                elif self.row_bytes:
                    self.chunk = None
                    chunk = fill_columns(self, many)
                else:
                    chunk = self.fill(many, self.max_bytes)
                if chunk.count() or chunk.rows is None:
                    self.use(chunk)
                chunk = None
                if self.at < self.end:
                    break
                if self.all_finished() or not self.wait(until_ns):
                    return False
            return True
        finally:
            if self.limited:
                self.asking(tl_os.monotonic_ns())  # what follows is the handling of what is handed over now
            self.leave()

    cdef Message hand_over(self):
        cdef _Chunk chunk = self.chunk
        cdef size_t index = self.at
        cdef uint32_t i
        while index >= self.run_end:
            self.run += 1
            self.run_end = chunk.run_end(self.run)
        if self.mode != NO_GROUP:
            i = chunk.runs[self.run].entry
            if self.mode == AT_MOST_ONCE:
                self.commit_entry(i, chunk.offset_of(index) + 1)
            else:
                self.owe(i, chunk.offset_of(index) + 1)
        self.at = index + 1
        return new_message(chunk, index, self.run)


cdef int64_t until(object timeout) except? -2:
    """The monotonic time in ns at which a time-out in seconds ends; -1: never."""
    cdef int64_t wanted = nanoseconds(timeout)
    return wanted if wanted < 0 else tl_os.monotonic_ns() + wanted


@cython.final
cdef class _Delivered:
    """What `for message in consumer` iterates over. A type of its own because Consumer is a class of Python's, whose
    `__next__` is looked up by name for every message."""

    cdef Reader reader

    def __iter__(self):
        return self

    def __next__(self):
        return self.reader.next_message()
