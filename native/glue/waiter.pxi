# How do many readers wait at once, without a thread for each and without blocking whoever asked?
#
# An event loop looks with reader_poll, which never waits; what is not there yet it leaves to the Waiter: one thread per
# process and native store, which sleeps in the core for the partitions of all readers that wait, and calls back. All
# state is guarded by the GIL, which the thread gives back while it sleeps. A watch tells once and is gone: whoever was
# told looks again, and watches again.

cdef enum:
    FRESH_BYTES = 65536      # so much behind the tail is read at once: it was written a moment ago and is in memory

POLL_BLOCKS = -1
POLL_NOTHING = 0
POLL_READY = 1
POLL_FINISHED = 2


def reader_poll(Reader reader, many, bint may_block, /):
    """Moves what `reader` has to hand over into its buffer: POLL_READY, POLL_NOTHING, POLL_FINISHED (every partition has
    reached its stop). `many`: how many will be asked for at once, 0: message by message.

    Nothing is handed over, so an answer that nobody hears loses nothing. Without `may_block` the answer may be
    POLL_BLOCKS, with nothing changed: it takes more than to copy what was just written. Raises what `receive` raises.
    """
    cdef size_t wanted = many
    if not may_block and not reader.cancelled and reader.at >= reader.end and not is_fresh(reader):
        return POLL_BLOCKS
    if reader.more(0, wanted):
        return POLL_READY
    return POLL_FINISHED if reader.all_finished() else POLL_NOTHING


def reader_next(Reader reader, /):
    """The next message if one is in the buffer, else None. Raises what `receive` raises."""
    if reader.at >= reader.end:
        return None
    return reader.next_message()


cdef bint is_fresh(Reader reader) noexcept:
    """Whether every partition was read to within FRESH_BYTES of its end."""
    cdef uint32_t i
    cdef _Entry *entry
    for i in range(reader.count):
        if reader.silent(i):
            continue
        entry = &reader.entries[i]
        if not entry.cursor.located or tl_partition_tail(entry.native) > entry.cursor.place + FRESH_BYTES:
            return False
    return True


@cython.final
cdef class _Watch:
    """One reader that waits: its partitions, and their tails when it looked."""

    cdef Reader reader
    cdef list handles             # keeps the partitions
    cdef tl_partition **natives
    cdef uint64_t *seen
    cdef size_t count
    cdef object tell, what

    def __dealloc__(self):
        tl_os.free(self.natives)
        tl_os.free(self.seen)

    cdef bint is_due(self):
        cdef size_t i
        if self.reader.cancelled or self.reader.store.is_closed or self.reader.turn_due():
            return True
        for i in range(self.count):
            if tl_partition_tail(self.natives[i]) != self.seen[i]:
                return True
        return False


cdef _Watch watch_of(Reader reader, object tell, object what):
    cdef _Watch watch = _Watch.__new__(_Watch)
    cdef uint32_t i
    watch.reader = reader
    watch.tell = tell
    watch.what = what
    watch.handles = list(reader.handles)
    watch.natives = <tl_partition **>take(reader.count, sizeof(void *))
    watch.seen = <uint64_t *>take(reader.count, sizeof(uint64_t))
    for i in range(reader.count):
        if not reader.silent(i):
            watch.natives[watch.count] = reader.entries[i].native
            watch.seen[watch.count] = reader.entries[i].seen
            watch.count += 1
    return watch


cdef dict _waiters = {}       # address of the native store -> Waiter
cdef object _waiters_pid = None


@cython.final
cdef class Waiter:
    """The thread of this process that waits for readers of one store. Made by Waiter.of(store), and shared."""

    cdef Store store
    cdef size_t users
    cdef set watches
    cdef uint32_t kicked          # what the core looks at: come back and look at the watches
    cdef bint ended
    cdef object __weakref__

    @staticmethod
    def of(Store store, /):
        """The waiter of a store, for one more user, who calls release() in the end."""
        global _waiters_pid
        import os
        import threading

        cdef size_t address = <size_t>store.open_native()
        cdef Waiter waiter
        pid = os.getpid()
        if _waiters_pid != pid:  # the threads of a parent are not ours
            _waiters.clear()
            _waiters_pid = pid
        waiter = _waiters.get(address)
        if waiter is None or waiter.ended:
            waiter = Waiter.__new__(Waiter)
            waiter.store = store
            waiter.watches = set()
            _waiters[address] = waiter
            threading.Thread(target=waiter._run, name="tidelog-waiter", daemon=True).start()
        waiter.users += 1
        return waiter

    def release(self):
        """One user less; without any the thread ends."""
        if self.users:
            self.users -= 1
            if not self.users:
                self.end()

    def watch(self, Reader reader, tell, what, /):
        """Calls tell([what]) once, on the waiter's thread, as soon as there may be something for `reader` that its last
        poll did not find, or it was closed. Answers what unwatch() takes. Watches of one `tell` are told together."""
        cdef _Watch watch = watch_of(reader, tell, what)
        if self.ended:
            closed("the log was closed")
        self.watches.add(watch)
        self.kick()
        return watch

    def unwatch(self, watch, /):
        """Forgets a watch, if it has not told yet."""
        self.watches.discard(watch)

    @property
    def waiting(self):
        """How many watches have not told yet (int)."""
        return len(self.watches)

    cdef void kick(self) noexcept:
        self.kicked = 1
        if tl_store_is_open(self.store.native):
            tl_store_wake(self.store.native)

    cdef int end(self) except -1:
        cdef size_t address = <size_t>self.store.native
        self.ended = True
        if _waiters.get(address) is self:
            del _waiters[address]
        self.kick()
        return 0

    def _run(self):
        """The thread."""
        cdef tl_store *native = self.store.native
        cdef tl_partition **natives = NULL
        cdef uint64_t *seen = NULL
        cdef size_t count, room = 0, turn_count, turn_room = 0
        cdef tl_turn *turns = NULL
        cdef int64_t slice_ns
        cdef tl_error err
        cdef int code
        cdef _Watch watch
        cdef list watched
        try:
            while not self.ended:
                self.kicked = 0
                watched = list(self.watches)  # keeps the partitions while the core looks at them
                count = 0
                for watch in watched:
                    count += watch.count
                if count > room:
                    tl_os.free(natives)
                    tl_os.free(seen)
                    natives = NULL
                    seen = NULL
                    room = 0
                    natives = <tl_partition **>take(2 * count, sizeof(void *))
                    seen = <uint64_t *>take(2 * count, sizeof(uint64_t))
                    room = 2 * count
                if <size_t>len(watched) > turn_room:
                    tl_os.free(turns)
                    turns = NULL
                    turn_room = 0
                    turns = <tl_turn *>take(2 * len(watched), sizeof(tl_turn))
                    turn_room = 2 * len(watched)
                count = turn_count = 0
                for watch in watched:
                    memcpy(natives + count, watch.natives, watch.count * sizeof(void *))
                    memcpy(seen + count, watch.seen, watch.count * sizeof(uint64_t))
                    count += watch.count
                    if watch.reader.turn_at != &watch.reader.no_turn and not watch.reader.stays():
                        turns[turn_count].word = watch.reader.turn_at
                        turns[turn_count].seen = watch.reader.turn_seen
                        turn_count += 1
                slice_ns = self.longest_slice()
                with nogil:
                    code = tl_store_wait(native, natives, seen, count, slice_ns, 0, turns, turn_count, &self.kicked,
                                         &err)
                if not tl_store_is_open(native):
                    self.end()
                self.tell_due()
        finally:
            tl_os.free(natives)
            tl_os.free(seen)
            tl_os.free(turns)
            self.end()
            self.tell_due()

    cdef int64_t longest_slice(self) except -2:
        """How long to sleep before a look at what the core does not compare: -1 when nobody waits."""
        cdef _Watch watch
        cdef int64_t now = tl_os.monotonic_ns(), longest = CALL_NS
        if not self.watches:
            return -1
        for watch in self.watches:
            watch.reader.asking(now)
            longest = min(longest, watch.reader.slice_ns)
            if watch.reader.look_ns >= 0 and not watch.reader.stays():
                longest = min(longest, max(watch.reader.look_ns - now, 0))
        return longest

    cdef int tell_due(self) except -1:
        """Tells and forgets the watches that are due; all of them at the end."""
        cdef _Watch watch
        cdef dict told = {}
        for watch in list(self.watches):
            if self.ended or watch.is_due():
                self.watches.discard(watch)
                told.setdefault(watch.tell, []).append(watch.what)
        for tell, whats in told.items():
            try:
                tell(whats)
            except RuntimeError:
                pass  # its loop was closed meanwhile: nobody waits there any more
        return 0
