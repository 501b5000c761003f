# How is a transaction begun, committed and given up, together with what its consumers have handed over?
#
# Callable from any thread; commit() and abort() by one at a time, and not while another thread is inside one of the
# consumers. What decides is one call of the core, and what follows from it here runs without a look at signals: an
# interrupt comes before all of it or behind it.

cdef tuple _TRANSACTION_STATES = ("new", "open", "open", "committed", "aborted", "unknown")


@cython.no_gc_clear
cdef class Transaction(Dispatch):
    """What messages of one named producer and offsets of consumers become visible together, or not at all. Begun by
    `with`; leaving commits, an exception aborts. tidelog.transaction derives from it."""

    cdef _Transacting inside
    cdef list readers
    cdef int64_t timeout_ms
    cdef bint synced, flushes
    cdef unsigned long ender   # thread that ends it now, 0: none
    cdef bint ended            # by commit() or abort(): leaving then does nothing
    cdef readonly Dispatch _outside  # the producer; what is `known` here are senders of this transaction alone
    cdef public dict _senders        # those that Python made
    cdef object __weakref__

    def _attach(self, Dispatch outside, Named producer, readers, int64_t timeout_ms, bint synced, bint flushes, /):
        """`outside`: the producer whose name that is; `readers`: whose offsets go along; `flushes`: _before() is to be
        called. False, and nothing is done, when one of the readers is none of this log. Raises ValueError for a reader
        that keeps no offsets or commits before it hands over, or for one that stands twice."""
        cdef list several = list(readers)
        if self.inside is not None:
            raise RuntimeError("this transaction is attached already")
        for reader in several:
            if not isinstance(reader, Reader) or (<Reader>reader).store is not producer.store:
                return False
        for reader in several:
            (<Reader>reader).check_part()
        if len(several) > 1 and len({id(reader) for reader in several}) != len(several):
            raise ValueError("a consumer is named twice: a transaction takes each of its consumers once")
        self.readers = several
        self._outside = outside
        self.timeout_ms = timeout_ms
        self.synced = synced
        self.flushes = flushes
        cdef _Transacting inside = _Transacting.__new__(_Transacting)
        inside.producer = producer
        inside.store = producer.store
        self.inside = inside
        return True

    @property
    def _synced(self):
        return bool(self.synced)

    def __dealloc__(self):
        # Nobody can end it any more. Its readers take note at their next call.
        if self.inside is not None and self.inside.state in (TRANSACTION_OPEN, TRANSACTION_ENDING):
            self.abort_native(NULL)

    @property
    def state(self):
        """"new", "open", "committed", "aborted", or "unknown": the disk failed while it was asked."""
        return _TRANSACTION_STATES[self.checked().state]

    @property
    def _inside(self):
        """What senders of this transaction are attached with."""
        return self.checked()

    cdef _Transacting checked(self):
        if self.inside is None:
            raise TypeError("this transaction is not attached: use log.transaction(producer, consumer)")
        return self.inside

    # --- sending ---

    cdef Sender sender_of(self, object channel):
        """The sender of a channel within this transaction; None: neither it nor the producer knows one."""
        cdef _Transacting inside = self.checked()
        cdef Sender sender = self.known_sender(channel), base
        if sender is None:
            base = self._outside.known_sender(channel)
            if base is not None and base.named is inside.producer:
                sender = base.within(inside, self.synced)
                sender.generation = base.generation
                self.remember(channel, sender)
        return sender

    # --- beginning ---

    def _before(self):
        """Called before it begins; Transaction of Python flushes the producer."""

    def __enter__(self):
        cdef _Transacting inside = self.checked()
        cdef Named producer = inside.producer
        cdef Reader reader
        cdef list taken = []
        cdef tl_error err
        cdef int code
        cdef int64_t timeout_ms = self.timeout_ms
        if inside.state != TRANSACTION_NEW:
            raise RuntimeError("a transaction is entered once: make another one with log.transaction(...)")
        if self.flushes:
            self._before()
        producer.open_native()
        if producer.current is not None:
            raise RuntimeError(f"a transaction of the producer {producer.name!r} is open already, and it has one at a "
                               f"time: leave that one first, or use a producer of another name")
        cdef _Transacting left = producer.left
        if left is not None:
            with nogil:
                code = tl_transaction_abort(&left.native, &err)
            if code < 0 and code != TL_EFENCED:
                fail(code, &err)
            producer.left = None
        with nogil:
            code = tl_transaction_begin(&producer.native, timeout_ms, &inside.native, &err)
        if code < 0:
            fail(code, &err)
        inside.state = TRANSACTION_OPEN
        inside.deadline_ns = inside.native.deadline_ns
        producer.current = inside
        try:
            for reader in self.readers:
                taken.append(reader)
                reader.take_part(inside)
        except BaseException:
            self.abort_native(NULL)
            for reader in taken:
                reader.look_ended()
            raise
        return self

    # --- ending ---

    def commit(self):
        """Makes everything that was sent in it visible and commits what the consumers have handed over, at once.

        Raises Fenced when a partition, the producer's name or the time was lost: then it is aborted, and the messages
        come again. StorageFailed: see `state`. Any other error (Locked, NoSpace) leaves it open: call again, or abort.
        Closed when it has ended already, and RuntimeError while another thread is inside a consumer.
        """
        self.begin_end()
        try:
            self.commit_begun()
        finally:
            self.ender = 0
            self.ended = self.inside.state != TRANSACTION_OPEN

    def abort(self):
        """Forgets everything that was sent in it; its consumers go back to where they had last committed, so the messages
        come again. Calling it again does nothing. Raises Closed when it is committed; what else it raises (Locked,
        StorageFailed) does not change that it can never be committed: until its time-out readers may have to wait."""
        cdef tl_error err
        cdef int code
        if self.checked().state in (TRANSACTION_ABORTED, TRANSACTION_UNKNOWN):
            self.ended = True
            return
        self.begin_end()
        try:
            code = self.abort_native(&err)
            self.take_note()
        finally:
            self.ender = 0
            self.ended = True
        if code < 0:
            fail(code, &err)

    def close(self):
        """abort(), unless it has ended."""
        if self.checked().state == TRANSACTION_OPEN:
            self.abort()

    def __exit__(self, kind, error, trace):
        cdef _Transacting inside = self.checked()
        cdef uint32_t nobody = 0
        while inside.state == TRANSACTION_ENDING and self.ender and self.ender != PyThread_get_thread_ident():
            with nogil:
                tl_os.futex_wait(&nobody, 0, NAP_NS)
            PyErr_CheckSignals()
        # In a forked child it is the parent's. The number of the process costs a system call: only where it may be one.
        if self.ended or (not tl_store_is_open(inside.store.native) and inside.store.opened_by != _getpid()):
            return False
        if kind is None:
            try:
                self.commit()
            except BaseException:
                self.give_up()
                raise
        else:
            self.give_up()
        return False

    cdef int give_up(self) except -1:
        """abort(), while an error is on its way out that says more than what aborting may raise."""
        if self.inside.state == TRANSACTION_OPEN and not self.ender:
            self.abort_native(NULL)
            self.take_note()
        return 0

    cdef int begin_end(self) except -1:
        cdef _Transacting inside = self.checked()
        if inside.state == TRANSACTION_NEW:
            raise RuntimeError("the transaction has not begun: enter it with `with log.transaction(...) as tx:`")
        if inside.state == TRANSACTION_ENDING:
            raise RuntimeError("another thread is ending this transaction")
        if inside.state != TRANSACTION_OPEN:
            inside.refuse()
        inside.producer.open_native()
        self.ender = PyThread_get_thread_ident()
        inside.state = TRANSACTION_ENDING
        return 0

    cdef int commit_begun(self) except -1:
        cdef _Transacting inside = self.inside
        cdef list entered = []
        cdef Reader reader
        cdef bint synced = self.synced
        cdef tl_error err
        cdef int code
        try:
            try:
                for reader in self.readers:
                    if not reader.cancelled:
                        reader.enter()
                        entered.append(reader)
                    reader.hand_in(inside)
            except Fenced:
                self.abort_native(NULL)
                raise
            with nogil:
                code = tl_transaction_commit(&inside.native, synced, &err)
            if code >= 0:
                inside.end(TRANSACTION_COMMITTED)
            elif code == TL_EFENCED:
                inside.end(TRANSACTION_ABORTED)
            elif code == TL_EFAILED:
                inside.end(TRANSACTION_UNKNOWN if b"transactions" in <bytes><const char *>err.path
                           else TRANSACTION_ABORTED)
            if code < 0:
                fail(code, &err)
        finally:
            if inside.state == TRANSACTION_ENDING:  # nothing is decided
                inside.state = TRANSACTION_OPEN
            for reader in entered:
                reader.leave_ended()
                reader.leave()
        return 0

    cdef int abort_native(self, tl_error *err) noexcept:
        """What the core answers; whatever that is, this transaction is never committed."""
        cdef _Transacting inside = self.inside
        cdef tl_error own
        cdef int code = 0
        if err == NULL:
            err = &own
        if tl_store_is_open(inside.store.native):
            with nogil:
                code = tl_transaction_abort(&inside.native, err)
        inside.end(TRANSACTION_COMMITTED if code == TL_ETXNSTATE else TRANSACTION_ABORTED)
        if code == TL_ELOCKED:
            inside.producer.left = inside
        return code

    cdef int take_note(self) except -1:
        """Its readers go back to where they stood; one that another thread is inside does so at its next call."""
        cdef Reader reader
        for reader in self.readers:
            reader.look_ended()
        return 0
