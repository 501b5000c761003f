# What do the senders, the consumers and the producer of a transaction know of it?
#
# One object that all of them hold, so that none of them has to hold another. `state` only grows, except from ENDING back to
# OPEN, and is changed with the GIL held by the Transaction alone.

cdef enum:
    TRANSACTION_NEW = 0
    TRANSACTION_OPEN = 1
    TRANSACTION_ENDING = 2     # commit() or abort() is at work
    TRANSACTION_COMMITTED = 3  # from here on it has ended
    TRANSACTION_ABORTED = 4
    TRANSACTION_UNKNOWN = 5    # the disk has not said whether it was committed


@cython.final
cdef class _Transacting:
    cdef int state
    cdef int64_t deadline_ns   # on the monotonic clock, when anybody may abort it
    cdef tl_transaction native
    cdef Named producer
    cdef Store store

    cdef void end(self, int state) noexcept:
        """It has ended so; the producer may begin another one."""
        self.state = state
        if self.producer.current is self:
            self.producer.current = None

    cdef int refuse(self) except -1:
        """Raises what is wrong with using it now."""
        if self.state == TRANSACTION_COMMITTED:
            closed("the transaction was committed", "begin another one with log.transaction(...)")
        if self.state == TRANSACTION_ENDING:
            closed("the transaction is being ended by another thread", "begin another one with log.transaction(...)")
        if self.state == TRANSACTION_NEW:
            raise RuntimeError("the transaction has not begun: enter it with `with log.transaction(...) as tx:`")
        closed("the transaction was aborted: by abort(), an error, or since its producer or the log was closed",
               "begin another one with log.transaction(...), and send everything again")
