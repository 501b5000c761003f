# What has been handed over, who may commit it, and when is it committed?
#
# Leases: one slot of the table of committed offsets for each partition, claimed by compare-and-swap; a commit with a
# lease that was taken over is refused (Fenced). A partition is read while its lease is held; without a group always.
# What was handed over is owed until it is committed. One thread at a time.
#
# In a transaction nothing is committed here: the transaction takes what is owed with it. Until it has ended the assignment
# stays as it is, because a partition that went would take the transaction down; and when it is given up, every partition
# that owes something is read again from `since`.

cdef enum:
    AT_LEAST_ONCE = 0  # commit when the next is asked for
    AT_MOST_ONCE = 1   # commit before handing over
    MANUAL = 2         # commit() only
    NO_GROUP = 3
    IN_TRANSACTION = 4 # the transaction commits

cdef tuple _MODES = ("at-least-once", "at-most-once", "manual", "none")


@cython.no_gc_clear
cdef class _Delivery(_Feed):
    cdef str group
    cdef list channel_ids     # by entry
    cdef int mode
    cdef tl_offsets *table
    cdef tl_owner me
    cdef uint32_t *owing      # entries with something owed
    cdef uint32_t owing_count
    cdef Membership membership  # in the group, None: leases are taken by claim() alone
    cdef bint limited         # the group wants to know since when something is handled
    cdef bint expellable      # it may cease to be a member while its process lives: limited, or another may take its name
    cdef tl_clock clock       # for asking_often()
    cdef int64_t told_ms      # when that told the group last
    cdef _Transacting transacting  # the transaction that it takes part in, or None
    cdef int own_mode         # the mode outside of it
    cdef bint torn            # something handed over is not its own any more, so the transaction cannot be committed

    def __dealloc__(self):
        self.release_leases()
        tl_os.free(self.owing)

    cdef int begin_delivery(self, str group, object channel_ids, str mode) except -1:
        if mode not in _MODES:
            raise ValueError(f"the mode {mode!r} does not exist: use one of {', '.join(_MODES)}")
        self.mode = _MODES.index(mode)
        if (group is None) != (self.mode == NO_GROUP):
            raise ValueError(f"mode {mode!r} with group {group!r}: a group needs another mode than 'none', and only it")
        self.group = group
        self.channel_ids = []
        self.table = tl_store_offsets(self.store.open_native())
        self.me = tl_store_owner(self.store.native)
        self.add_channel_ids(list(channel_ids))
        return 0

    cdef int add_channel_ids(self, list given) except -1:
        """What groups need to know of the partitions that were added last."""
        cdef uint32_t i, had = <uint32_t>len(self.channel_ids)
        if len(given) != self.count - had:
            raise ValueError(f"{len(given)} channel ids for {self.count - had} partitions: give one for each")
        cdef list ids = self.channel_ids + [_channel_id(channel_id) for channel_id in given]
        cdef uint32_t *owing = <uint32_t *>widened(self.owing, self.owing_count, self.count, sizeof(uint32_t))
        tl_os.free(self.owing)
        self.owing = owing
        self.channel_ids = ids
        for i in range(had, self.count):
            self.entries[i].assigned = self.mode == NO_GROUP
        return 0

    # --- leases ---

    cdef int claim(self, uint32_t i, int64_t until_ns) except -1:
        """Takes the lease of one partition once its owner has released it or died. Raises Locked with the holder."""
        cdef _Entry *entry = &self.entries[i]
        cdef tl_store *native = self.store.open_native()
        cdef tl_offset_word word
        cdef int64_t time_ms = 0, part = 1_000_000, now
        cdef tl_error err
        cdef int code
        cdef bint free
        find_offset_slot(self.store, self.group, self.channel_ids[i], entry.number, True, &entry.slot)
        while True:
            self.store.open_native()
            code = tl_offsets_read(self.table, entry.slot, &word, &time_ms)
            if code < 0:
                self.store.fail_slot(code, entry.slot)
            free = word.owner == 0
            if not free and word.owner != self.me:
                with nogil:
                    free = not tl_store_owner_alive(native, word.owner)
            if free:
                code = tl_offsets_claim(self.table, entry.slot, word, self.me, &entry.epoch)
                if code >= 0:
                    # A transaction that is decided may still owe the slot its offset, and whoever has the lease reads it.
                    with nogil:
                        code = tl_transactions_finish_slot(native, entry.slot, &err)
                    if code < 0:
                        tl_offsets_release(self.table, entry.slot, self.me, entry.epoch)
                        fail(code, &err)
                    entry.leased = entry.assigned = True
                    return 0
                if code != TL_EAGAIN:
                    self.store.fail_slot(code, entry.slot)
                continue
            now = tl_os.monotonic_ns()
            if now >= until_ns:
                fail_plain(TL_ELOCKED, f"partition {entry.number} of {self.shareds[i].name!r} is being read for the "
                           f"group {self.group!r}", lease_holder(self.store, entry.slot))
            part = min(part * 2, 50_000_000, until_ns - now)
            with nogil:
                code = tl_store_wait(native, self.waited, self.seen, 0, part, 0, NULL, 0, &self.cancelled, &err)
            PyErr_CheckSignals()
            if code < 0 and code != TL_ETIMEOUT and code != TL_EAGAIN:
                fail(code, &err)

    cdef bint take_lease(self, uint32_t i) except -1:
        """Takes the lease of a partition that is assigned to this member, unless somebody still holds it (False)."""
        cdef _Entry *entry = &self.entries[i]
        cdef tl_store *native = self.store.open_native()
        cdef tl_member member
        cdef int code
        if entry.leased:
            return True
        if self.membership is None:
            raise ValueError("this reader is no member of a group: there is nothing to take")
        member = self.membership.member
        find_offset_slot(self.store, self.group, self.channel_ids[i], entry.number, True, &entry.slot)
        with nogil:
            code = tl_member_claim(native, &member, entry.slot, &entry.epoch)
        if code < 0:
            self.store.fail_slot(code, entry.slot)
        if code == 0:
            return False
        entry.leased = entry.assigned = True
        return True

    cdef void give_lease(self, uint32_t i) noexcept:
        """Gives one lease back; the caller tells the group. What is owed stays uncommitted."""
        cdef _Entry *entry = &self.entries[i]
        self.tear(i)
        self.forgive(i)
        entry.assigned = entry.paused = False
        if entry.leased:
            entry.leased = False
            # Where it was taken over this stores nothing.
            tl_offsets_release(self.table, entry.slot, self.me, entry.epoch)

    cdef void lose_lease(self, uint32_t i) noexcept:
        """Somebody else has the lease. Nothing more of this partition is handed over; the next call looks at the
        group."""
        self.drop_buffer()
        self.tear(i)
        self.forgive(i)
        self.entries[i].leased = self.entries[i].assigned = self.entries[i].paused = False
        self.look_ns = 0

    cdef void tell_group(self) noexcept:
        """Others may take what was given back."""
        cdef tl_store *native = self.store.native
        cdef tl_member member
        if self.membership is not None:
            member = self.membership.member
            with nogil:
                tl_member_turned(native, &member)

    cdef void release_leases(self) noexcept:
        """Gives every lease back, and what is owed stays uncommitted. The member that leaves then tells the group."""
        cdef uint32_t i
        if self.table == NULL or self.store is None or self.store.native == NULL:
            return
        if self.store.is_closed or not tl_store_is_open(self.store.native):
            return
        for i in range(self.count):
            if self.entries[i].leased:
                self.give_lease(i)

    # --- membership ---

    @cython.final
    cdef int check_expelled(self, bint wanted) except -1:
        """Raises Fenced when this is no member any more although something that was handed over waits for its commit,
        or one is `wanted`. It is said once; the next call that receives joins anew."""
        cdef bint owed = self.owing_count > 0 and (self.mode == AT_LEAST_ONCE or self.mode == IN_TRANSACTION)
        if not self.expellable or self.membership.is_active():
            return 0
        while self.owing_count:
            self.tear(self.owing[self.owing_count - 1])
            self.forgive(self.owing[self.owing_count - 1])
        self.look_ns = 0
        if owed or wanted:
            if self.membership.fenced:
                fail_plain(TL_EFENCED, f"another consumer of group {self.group!r} has the name of this one now, so "
                           f"nothing is committed", "close this one, and give each running consumer a name of its own")
            fail_plain(TL_EFENCED, f"group {self.group!r} has gone on without this consumer, which took longer than "
                       f"max_processing, so nothing is committed and others get the same messages",
                       "receive again to join anew, and give more time with max_processing= if that happens often")
        return 0

    cdef void asking(self, int64_t now_ns) noexcept:
        if self.limited and tl_store_is_open(self.store.native):
            tl_member_handles(self.store.native, &self.membership.member, now_ns)

    cdef inline void asking_often(self) noexcept:
        """The same between two messages of one read, at the cost of a look at the cycle counter. What was told within
        the same millisecond stands: the group counts whole ones, and to the member's favour."""
        cdef int64_t now_ms = tl_clock_ms(&self.clock)
        if now_ms != self.told_ms:
            self.told_ms = now_ms
            self.asking(tl_os.monotonic_ns())

    # --- commits ---

    @cython.final
    cdef inline int commit_entry(self, uint32_t i, int64_t offset) except -1:
        if not tl_store_is_open(self.store.native):
            self.refuse_commit(i)
        return self.commit_open(i, offset)

    @cython.final
    cdef inline int commit_open(self, uint32_t i, int64_t offset) except -1:
        """commit_entry() for whoever has just seen that the store is open."""
        cdef _Entry *entry = &self.entries[i]
        cdef int code
        if not entry.leased:
            self.refuse_commit(i)
        code = tl_offsets_commit(self.table, entry.slot, self.me, entry.epoch, offset, tl_os.coarse_ms())
        if code < 0:
            self.failed_commit(i, code)
        entry.since = offset
        return 0

    cdef int refuse_commit(self, uint32_t i) except -1:
        if self.mode == NO_GROUP:
            raise ValueError("there is nothing to commit: this reader belongs to no group, so it keeps no offsets")
        self.store.open_native()
        if not tl_store_is_open(self.store.native):
            self.handles[i].bounds()  # raises what has become of the store
            closed("the log was closed")
        if self.membership is not None:
            fail_plain(TL_EFENCED, f"partition {self.entries[i].number} of {self.shareds[i].name!r} is not assigned to "
                       f"this consumer any more, so nothing is committed",
                       "whoever has it now gets the messages that were not committed: go on with what is received next")
        raise ValueError(f"partition {self.entries[i].number} of {self.shareds[i].name!r} has not been claimed")

    cdef int failed_commit(self, uint32_t i, int code) except -1:
        if code == TL_EFENCED:
            what = (f"the lease of group {self.group!r} on partition {self.entries[i].number} of "
                    f"{self.shareds[i].name!r} was taken over, so nothing is committed")
            if self.membership is None:
                fail_plain(code, what, "another process reads this partition for the group: stop this one")
            self.lose_lease(i)
            fail_plain(code, what, "whoever has it now gets the messages that were not committed: go on with what is "
                       "received next")
        self.store.fail_slot(code, self.entries[i].slot)

    @cython.final
    cdef inline void owe(self, uint32_t i, int64_t offset) noexcept:
        """Everything before `offset` was handed over."""
        cdef _Entry *entry = &self.entries[i]
        entry.handed = offset
        if not entry.owed:
            entry.owed = True
            self.owing[self.owing_count] = i
            self.owing_count += 1

    cdef int settle(self) except -1:
        """Commits what is owed. What could not be committed stays owed."""
        cdef uint32_t i
        while self.owing_count:
            i = self.owing[self.owing_count - 1]
            if self.entries[i].owed:
                self.commit_entry(i, self.entries[i].handed)
                self.entries[i].owed = False
            self.owing_count -= 1
        return 0

    @cython.final
    cdef inline int settle_open(self) except -1:
        """settle() for whoever has just seen that the store is open, and that something is owed: mostly one entry's."""
        cdef uint32_t i = self.owing[0]
        if self.owing_count != 1 or not self.entries[i].owed:
            return self.settle()
        self.commit_open(i, self.entries[i].handed)
        self.entries[i].owed = False
        self.owing_count = 0
        return 0

    cdef void forgive(self, uint32_t i) noexcept:
        """What was handed over of a partition is not committed by itself any more."""
        cdef uint32_t k
        if self.entries[i].owed:
            self.entries[i].owed = False
            for k in range(self.owing_count):
                if self.owing[k] == i:
                    self.owing[k] = self.owing[self.owing_count - 1]
                    self.owing_count -= 1
                    break

    # --- in a transaction ---

    cdef int take_part(self, _Transacting transacting) except -1:
        """From now on `transacting` commits what is handed over, and what is owed already."""
        self.enter()
        try:
            if self.transacting is not None:
                self.leave_ended()
            if self.transacting is not None:
                raise RuntimeError("this consumer takes part in another transaction, which is open: leave that one first")
            self.own_mode = self.mode
            self.mode = IN_TRANSACTION
            self.transacting = transacting
            self.torn = False
        finally:
            self.leave()
        return 0

    cdef int check_part(self) except -1:
        """Raises ValueError unless it may take part in a transaction."""
        if self.mode == NO_GROUP:
            raise ValueError("a consumer without a group (a tail) keeps no offsets that a transaction could commit: give "
                             "one with a group, or leave it out")
        if self.mode == AT_MOST_ONCE:
            raise ValueError("this consumer is at-most-once: it commits before it hands over, so its messages cannot be "
                             "part of a transaction: make it with delivery='at-least-once'")
        return 0

    cdef int hand_in(self, _Transacting transacting) except -1:
        """Adds what is owed to the transaction, after enter(). Raises Fenced when some of that is lost to it, Closed
        when it was closed."""
        cdef uint32_t k, i
        cdef tl_error err
        cdef tl_owner me = self.me
        cdef uint32_t slot, epoch
        cdef int64_t handed
        cdef int code
        if not self.cancelled:
            self.check_expelled(False)
        if self.torn:
            fail_plain(TL_EFENCED, f"the consumer of group {self.group!r} was closed, or lost a partition of which it had "
                       f"handed something over, before the transaction was committed: nothing of it is visible",
                       "whoever has the partition now gets the messages again: go on with what is received next")
        for k in range(self.owing_count):
            i = self.owing[k]
            slot, epoch, handed = self.entries[i].slot, self.entries[i].epoch, self.entries[i].handed
            with nogil:
                code = tl_transaction_offset(&transacting.native, slot, me, epoch, handed, &err)
            if code < 0:
                fail(code, &err)
        return 0

    cdef int look_ended(self) except -1:
        """leave_ended(), unless another thread is inside: that one then does it at its next call."""
        if self.busy or self.cancelled or self.transacting is None:
            return 0
        return self.leave_ended()

    cdef int leave_ended(self) except -1:
        """Takes note that its transaction has ended, after enter()."""
        cdef uint32_t i
        cdef _Entry *entry
        if self.transacting is None or self.transacting.state < TRANSACTION_COMMITTED:
            return 0
        if self.transacting.state == TRANSACTION_COMMITTED:
            while self.owing_count:
                i = self.owing[self.owing_count - 1]
                self.entries[i].since = self.entries[i].handed
                self.forgive(i)
        elif self.owing_count:
            self.drop_buffer()
            while self.owing_count:
                i = self.owing[self.owing_count - 1]
                entry = &self.entries[i]
                entry.cursor.offset = entry.since
                entry.cursor.located = False
                entry.finished = 0 <= entry.stop <= entry.since
                self.forgive(i)
        self.mode = self.own_mode
        self.transacting = None
        self.torn = False
        return 0

    cdef inline void tear(self, uint32_t i) noexcept:
        """What a partition owes to the transaction is lost to it."""
        if self.mode == IN_TRANSACTION and self.entries[i].owed:
            self.torn = True

    cdef bint stays(self) noexcept:
        return (self.mode == IN_TRANSACTION and self.owing_count > 0
                and self.transacting.state < TRANSACTION_COMMITTED
                and tl_os.monotonic_ns() < self.transacting.deadline_ns)

    cdef bint owe_before(self, uint32_t i, int64_t offset) noexcept:
        """Of what was handed over of a partition only what stands before `offset` is owed; whether that is less."""
        cdef _Entry *entry = &self.entries[i]
        if not entry.owed or entry.handed <= offset:
            return False
        if offset <= entry.since:
            self.forgive(i)
        else:
            entry.handed = offset
        return True

    cdef int give_back(self, uint32_t i, int64_t offset) except -1:
        """What was handed over of a partition from `offset` on is handed over again, and not owed."""
        cdef _Entry *entry = &self.entries[i]
        if not self.owe_before(i, offset):
            return 0
        self.drop_buffer()
        offset = max(offset, entry.since)
        entry.cursor.offset = offset
        entry.cursor.located = False
        entry.finished = 0 <= entry.stop <= offset
        return 0

    @cython.final
    cdef inline int commit_to(self, uint32_t i, int64_t offset) except -1:
        """commit() of one partition, by the caller's own choice, after enter()."""
        self.commit_open(i, offset)
        if self.entries[i].owed and self.entries[i].handed <= offset:
            self.forgive(i)
        return 0

    @cython.final
    cdef inline int commit_run(self, _Chunk chunk, size_t run, int64_t offset) except -1:
        """commit() of what was handed over. A partition that was lost and came back has another lease: what was handed
        over before that is refused, for it would move the group back behind what others have done meanwhile."""
        cdef bint own = chunk.reader == self.serial
        cdef uint32_t i = chunk.runs[run].entry if own else self.entry_of(chunk, run)
        if own and self.entries[i].leased and chunk.runs[run].epoch != self.entries[i].epoch:
            fail_plain(TL_EFENCED, f"partition {self.entries[i].number} of {self.shareds[i].name!r} was another "
                       f"consumer's after this was handed over, so it cannot be committed any more",
                       "the messages came again: commit what has been received since then")
        return self.commit_to(i, offset)

    @cython.final
    cdef uint32_t entry_of(self, _Chunk chunk, size_t run) except? 0xFFFFFFFF:
        """Which partition of this reader a run of messages came from, whoever read them."""
        cdef uint32_t i
        if chunk.reader == self.serial:
            return chunk.runs[run].entry
        name = chunk.shared_of(run).name
        for i in range(self.count):
            if self.entries[i].number == chunk.runs[run].partition and (<Channelled>self.shareds[i]).name == name:
                return i
        raise ValueError(f"the messages are of partition {chunk.runs[run].partition} of {name!r}, which this consumer "
                         f"does not read")
