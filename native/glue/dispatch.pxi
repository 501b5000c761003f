# How does a producer or a transaction find what sends to a channel, at the cost of a look into a dict?
#
# A sender that was found once is used again as long as no channel of the log changed and the log is open; whatever is not
# at hand is asked of Python (`_send`, `_send_many`), which remembers what it found. Any thread.

cdef enum:
    KNOWN_MOST = 1024            # channels; then all are forgotten, and found again


cdef extern from *:
    PyObject *PyDict_GetItemWithError(object known, object key)
    void PyErr_Clear()


cdef class Dispatch:
    """What sends to several channels; tidelog.producer.Producer and Transaction derive from it."""

    cdef dict known              # None: no more than the last one
    cdef object last             # the channel that was sent to last, and its sender: most programs send to one
    cdef Sender last_sender

    cdef Sender known_sender(self, object channel):
        """The sender that was remembered for `channel`, or None."""
        cdef Sender sender = self.last_sender
        cdef PyObject *found
        if sender is None or channel is not self.last:
            if self.known is None:
                return None
            found = PyDict_GetItemWithError(self.known, channel)
            if found == NULL:
                PyErr_Clear()  # what cannot be hashed is not known
                return None
            sender = <Sender>found
            self.sent_last(channel, sender)
        if sender.store.is_closed or not tl_store_is_open(sender.store.native) \
                or sender.generation != tl_store_generation(sender.store.native):
            return None
        return sender

    def _remember(self, channel, sender, generation, /):
        """From now on `sender` sends to `channel`, as long as the log's catalogue is of this generation (int). What is no
        compiled sender is not remembered: somebody takes part in every call."""
        if isinstance(sender, Sender):
            (<Sender>sender).generation = generation
            self.remember(channel, sender)

    cdef int remember(self, object channel, Sender sender) except -1:
        if self.last_sender is not None:
            self.keep(self.last, self.last_sender)
            self.keep(channel, sender)
        self.sent_last(channel, sender)
        return 0

    cdef int keep(self, object channel, Sender sender) except -1:
        if self.known is None or len(self.known) >= KNOWN_MOST:
            self.known = {}
        try:
            self.known[channel] = sender
        except TypeError:  # what cannot be hashed is found anew each time
            pass
        return 0

    cdef int sent_last(self, object channel, Sender sender) except -1:
        # Never a channel beside the sender of another one: giving up the old ones may run somebody's code.
        self.last_sender = None
        self.last = channel
        self.last_sender = sender
        return 0

    def _forget(self):
        """Nothing is known any more."""
        self.last_sender = None
        self.last = None
        self.known = None

    cdef Sender sender_of(self, object channel):
        """The sender of a channel; None: Python has to be asked."""
        return self.known_sender(channel)

    def send(self, channel, value, *, key=None, headers=None, id=None, partition=None, timestamp=None):
        """Send one message; the arguments are those of `channel.send`. With `linger` the receipt completes later.

        In a transaction compression and partitioner are those of the producer. The message is in the log when this
        returns, and readers see it after the commit: the receipt's position is that of the message, and
        `result(level="synced")` waits for its bytes alone, not for the commit.

        Raises SchemaMismatch for a value that is not of the channel's type, TooLarge, NoSpace, StorageFailed, Closed
        (also when the transaction has ended), Fenced (also when it was aborted from elsewhere).
        """
        cdef Sender sender = self.sender_of(channel)
        if sender is None:
            return self._send(channel, value, key=key, headers=headers, id=id, partition=partition, timestamp=timestamp)
        cdef Given given = all_given(key, headers, id, partition, timestamp)
        return sender.send_one(<PyObject *>value, &given)

    def send_many(self, channel, values, *, keys=None, headers=None, ids=None, partition=None, timestamp=None):
        """Send many messages; the arguments are those of `channel.send_many`. They are batches already, so they do not
        linger; what was gathered for the channel before goes out first. Raises like `send`."""
        cdef Sender sender = self.sender_of(channel)
        if sender is None:
            return self._send_many(channel, values, keys=keys, headers=headers, ids=ids, partition=partition,
                                   timestamp=timestamp)
        return sender.send_all(values, keys, headers, ids, partition, timestamp)


cdef object quick_dispatch(object self, PyObject **values, Py_ssize_t count, PyObject *names):
    cdef Given given
    cdef Sender sender
    if count == 2 and (names == NULL or take_given(values + 2, names, &given)):
        sender = (<Dispatch>self).sender_of(<object>values[0])
        if sender is not None:
            return sender.send_alone(values[1]) if names == NULL else sender.send_one(values[1], &given)
    return call_slowly(_slow_dispatch, self, values, count, names)


cdef PyMethodDef _quick_dispatch
cdef object _slow_dispatch = put_quick(
    Dispatch, "send", "($self, channel, value, *, key=None, headers=None, id=None, partition=None, timestamp=None)",
    &_quick_dispatch, <void *>quick_dispatch)
