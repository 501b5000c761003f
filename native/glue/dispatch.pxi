# How does a producer or a transaction find what sends to a channel, at the cost of a look into a dict?
#
# A sender that was found once is used again as long as no channel of the log changed and the log is open; whatever is not
# at hand is asked of Python (`_send`, `_send_many`), which remembers what it found. Any thread.

cdef enum:
    KNOWN_MOST = 1024            # channels; then all are forgotten, and found again


cdef extern from *:
    PyObject *PyDict_GetItemWithError(object known, object key)
    void PyErr_Clear()


cdef inline Sender known_sender(dict known, object channel):
    """The sender that was remembered for `channel`, or None."""
    cdef PyObject *found = PyDict_GetItemWithError(known, channel)
    cdef Sender sender
    if found == NULL:
        PyErr_Clear()  # what cannot be hashed is not known
        return None
    sender = <Sender>found
    if sender.store.is_closed or not tl_store_is_open(sender.store.native) \
            or sender.generation != tl_store_generation(sender.store.native):
        return None
    return sender


cdef int remember_sender(dict known, object channel, object sender, uint64_t generation) except -1:
    """What is no compiled sender is not remembered: somebody takes part in every call."""
    if not isinstance(sender, Sender):
        return 0
    if len(known) >= KNOWN_MOST:
        known.clear()
    (<Sender>sender).generation = generation
    try:
        known[channel] = sender
    except TypeError:  # what cannot be hashed is found anew each time
        pass
    return 0


cdef class Dispatch:
    """What sends to several channels; tidelog.producer.Producer derives from it."""

    cdef dict known

    def __cinit__(self, *_, **__):
        self.known = {}

    def _remember(self, channel, sender, generation, /):
        """From now on `sender` sends to `channel`, as long as the log's catalogue is of this generation (int)."""
        remember_sender(self.known, channel, sender, generation)

    def _forget(self):
        """Nothing is known any more."""
        self.known.clear()

    def send(self, channel, value, *, key=None, headers=None, id=None, partition=None, timestamp=None):
        """Send one message; the arguments are those of `channel.send`. With `linger` the receipt completes later.

        Raises SchemaMismatch for a value that is not of the channel's type, TooLarge, NoSpace, StorageFailed, Closed.
        """
        cdef Sender sender = known_sender(self.known, channel)
        if sender is None:
            return self._send(channel, value, key=key, headers=headers, id=id, partition=partition, timestamp=timestamp)
        return sender.send_one(value, key, headers, id, partition, timestamp)

    def send_many(self, channel, values, *, keys=None, headers=None, ids=None, partition=None, timestamp=None):
        """Send many messages; the arguments are those of `channel.send_many`. They are batches already, so they do not
        linger; what was gathered for the channel before goes out first. Raises like `send`."""
        cdef Sender sender = known_sender(self.known, channel)
        if sender is None:
            return self._send_many(channel, values, keys=keys, headers=headers, ids=ids, partition=partition,
                                   timestamp=timestamp)
        return sender.send_all(values, keys, headers, ids, partition, timestamp)
