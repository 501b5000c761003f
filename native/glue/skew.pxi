# Which of the messages that are sent are sampled, and what is done when one key is too hot?
#
# A sender counts down to its next sample and does nothing else for the messages in between, so that counting costs
# nothing per message. The distance between two samples is random, 1 to 127 with a mean of SKEW_EVERY: a fixed one would
# meet the same key again and again where keys come in turn. Called with the GIL held, after the append, while the keys
# are still kept alive; what Python code a warning runs is a log's listener, and its errors go to the logger.
#
# How good it is: with n samples a key's share of the samples is its share p of the messages with a standard error of
# sqrt(p (1 - p) / n). Counters add to that what is said in skew.h: a share is known up to `error` / n, at most an eighth
# of the samples of a key's set, about n / 128 where keys spread over the sets.

cdef enum:
    SKEW_EVERY = 64
    SKEW_CHECK_SAMPLES = 512     # between two looks for a key that is too hot, and before the first
    SKEW_RETRY_MESSAGES = 4096   # when the file could not be opened just now

SAMPLED_EVERY = SKEW_EVERY


@cython.final
cdef class _Sampler:
    """Samples the messages of one sender, which counts down its `skip`."""

    cdef tl_skew *native
    cdef Partition first         # of the channel: the counters are kept beside its log
    cdef str channel
    cdef uint32_t partitions
    cdef object watch            # tidelog.skew.SkewWatch, or None
    cdef uint64_t random
    cdef uint32_t unchecked
    cdef int64_t quiet_until_ns
    cdef bint off

    def __dealloc__(self):
        tl_skew_close(self.native)

    cdef int64_t gap(self) noexcept:
        """From one sample to the next, in messages."""
        self.random ^= self.random << 13
        self.random ^= self.random >> 7
        self.random ^= self.random << 17
        return 1 + <int64_t>((self.random >> 32) * (2 * SKEW_EVERY - 1) >> 32)

    cdef bint ready(self) noexcept:
        """Whether there are counters; they are opened when they are needed first."""
        cdef tl_partition *partition
        cdef tl_skew *found = NULL
        cdef tl_error err
        cdef int code
        if self.native != NULL or self.off:
            return not self.off
        partition = self.first.native
        with nogil:
            code = tl_skew_open(partition, &found, &err)
        if code == TL_OK:
            if self.native == NULL:
                self.native = found
            else:                # another thread was faster
                tl_skew_close(found)
            return True
        self.off = code != TL_EAGAIN  # no room, no right to write: sending goes on without a statistic
        return False

    cdef int64_t later(self) noexcept:
        """How many messages to leave out when there are no counters."""
        return <int64_t>1 << 62 if self.off else SKEW_RETRY_MESSAGES

    cdef void note(self, const uint8_t *key, size_t key_bytes, uint32_t partition) noexcept:
        self.unchecked += 1
        if tl_skew_note(self.native, key, key_bytes, partition) < 0:
            self.off = True

    cdef int64_t messages(self, const tl_message *messages, int64_t count, int64_t at, uint32_t only,
                          const uint32_t *ids) except -1:
        """Samples from messages[at] on; how many messages behind the last of them the next sample is."""
        if not self.ready():
            return self.later()
        while at < count and not self.off:
            self.note(messages[at].key, <size_t>max(messages[at].key_bytes, 0), only if ids == NULL else ids[at])
            at += self.gap()
        if self.unchecked >= SKEW_CHECK_SAMPLES:
            self.check()
        return self.later() if self.off else at - count

    cdef int64_t rows(self, const tl_rows *rows, int64_t first, int64_t count, int64_t at, uint32_t only,
                      const uint32_t *ids) except -1:
        """The same for rows first .. first + count - 1; `at` and `ids` count from `first`."""
        cdef const uint8_t *key
        cdef size_t key_bytes
        if not self.ready():
            return self.later()
        while at < count and not self.off:
            key = NULL
            key_bytes = rows.key_bytes
            if key_bytes:
                key = rows.rows + <size_t>(first + at) * rows.stride + rows.key_at
                while rows.strip_key and key_bytes and key[key_bytes - 1] == 0:
                    key_bytes -= 1
            self.note(key, key_bytes, only if ids == NULL else ids[at])
            at += self.gap()
        if self.unchecked >= SKEW_CHECK_SAMPLES:
            self.check()
        return self.later() if self.off else at - count

    cdef int check(self) except -1:
        """Tells the watch when one key has more than its share."""
        cdef uint32_t certain = 0, samples = 0
        self.unchecked = 0
        if self.watch is None or self.partitions < 2 or tl_skew_top(self.native, &certain, &samples) < 0:
            return 0
        if samples < SKEW_CHECK_SAMPLES or tl_os.monotonic_ns() < self.quiet_until_ns:
            return 0
        if <double>certain < <double>self.watch.lowest * samples:
            return 0
        cdef double quiet = self.watch.hot(self.channel, self.partitions, self.first)
        self.quiet_until_ns = tl_os.monotonic_ns() + <int64_t>(quiet * 1e9)
        return 0


cdef _Sampler new_sampler(Partition first, str channel, uint32_t partitions, object watch):
    cdef _Sampler sampler = _Sampler.__new__(_Sampler)
    sampler.first = first
    sampler.channel = channel
    sampler.partitions = partitions
    sampler.watch = watch
    tl_os.random(&sampler.random, sizeof(sampler.random))
    sampler.random |= 1
    return sampler
