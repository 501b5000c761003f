# Who is a member of a consumer group, and which partition is whose?
#
# The face of the core's table of groups. A Membership may be used by any thread; every call that takes the table's lock
# releases the GIL. Nothing here decides who reads what: plans come from Python, the core stores and guards them.

cdef list _members_of(const tl_member_info *infos, size_t count):
    cdef size_t i
    cdef uint32_t k
    cdef list found = []
    for i in range(count):
        name = None
        if infos[i].name_bytes:
            name = PyUnicode_DecodeUTF8(infos[i].name, <Py_ssize_t>infos[i].name_bytes, "surrogateescape")
        found.append((
            infos[i].index, infos[i].id, infos[i].pid, name,
            PyUnicode_DecodeUTF8(infos[i].strategy, <Py_ssize_t>strlen(infos[i].strategy), "surrogateescape"),
            tuple([infos[i].channels[k] for k in range(infos[i].channel_count)]), <bint>infos[i].away,
        ))
    return found


cdef tuple view_group(tl_store *native, uint32_t number):
    """(version, assigned, members) of a group, in one copy; (0, 0, []) of one that has had no members."""
    cdef tl_group_view view
    cdef tl_error err
    cdef int code
    cdef tl_member_info *infos = <tl_member_info *>take(TL_MEMBERS, sizeof(tl_member_info))
    try:
        with nogil:
            code = tl_group_view_of(native, number, &view, infos, &err)
        if code == TL_ENOTFOUND:
            return 0, 0, []
        if code < 0:
            fail(code, &err)
        return view.version, view.assigned, _members_of(infos, view.count)
    finally:
        tl_os.free(infos)


@cython.no_gc_clear
cdef class Membership:
    """One member of a consumer group, from the moment it is made. Thread-safe.

    `Membership(store, group, channels=[local ids], name=None, strategy="sticky", max_processing=None, away=10.0)`;
    `name` makes it static: its partitions wait `away` seconds for it when its process dies, and a newer member of the
    name replaces it. `max_processing`: seconds after which somebody who handles a message is expelled, None: never.
    Raises Full when the table is full, ValueError for options that no member may have, Locked.
    """

    cdef Store store
    cdef tl_member member
    cdef bytes encoded_name
    cdef bint joined, left
    cdef object __weakref__

    def __init__(self, Store store, str group, *, channels, name, str strategy, max_processing, away):
        if self.joined:
            raise RuntimeError("this membership has joined already")
        cdef tl_store *native = store.open_native()
        cdef bytes encoded_group = group.encode("utf-8", "surrogateescape")
        cdef bytes encoded_strategy = strategy.encode("utf-8", "surrogateescape")
        cdef bytes encoded_name = None if name is None else name.encode("utf-8", "surrogateescape")
        cdef const char *group_at = encoded_group
        cdef size_t group_bytes = len(encoded_group)
        cdef list given = list(channels)
        cdef tl_member_options options
        cdef tl_error err
        cdef int code
        cdef size_t i
        cdef int64_t away_ns = nanoseconds(away)
        memset(&options, 0, sizeof(options))
        if not 0 < group_bytes <= TL_OFFSETS_MAX_GROUP_BYTES:
            raise ValueError(f"a group's name has 1 to {TL_OFFSETS_MAX_GROUP_BYTES} bytes, not {group_bytes}")
        if encoded_name is not None:
            options.name = encoded_name
            options.name_bytes = len(encoded_name)
        options.strategy = encoded_strategy
        options.strategy_bytes = len(encoded_strategy)
        options.channel_count = len(given)
        options.max_processing_ns = nanoseconds(max_processing)
        options.away_ns = 0x7FFFFFFFFFFFFFFF if away_ns < 0 else away_ns
        cdef uint32_t *numbers = <uint32_t *>take(len(given), sizeof(uint32_t))
        try:
            for i in range(options.channel_count):
                numbers[i] = given[i]
            options.channels = numbers
            with nogil:
                code = tl_group_join(native, group_at, group_bytes, &options, &self.member, &err)
        finally:
            tl_os.free(numbers)
        if code < 0:
            fail(code, &err)
        self.store = store
        self.encoded_name = encoded_name
        self.joined = True

    def __dealloc__(self):
        cdef tl_error err
        cdef bint keep = self.encoded_name is not None
        if self.joined and not self.left and self.store is not None and self.store.native != NULL:
            with nogil:
                if tl_store_is_open(self.store.native):
                    tl_member_leave(self.store.native, &self.member, keep, &err)

    cdef tl_store *native(self) except NULL:
        if not self.joined:
            raise TypeError("a Membership joins when it is made: Membership(store, group, ...)")
        return self.store.open_native()

    cdef bint is_active(self) noexcept:
        """Whether it still is a member: two loads."""
        return (self.joined and not self.left and self.store.native != NULL and not self.store.is_closed
                and tl_member_is_active(self.store.native, &self.member))

    cdef const uint32_t *turn_word(self) noexcept:
        """What tl_store_wait compares; valid as long as this object."""
        return tl_member_turn(self.store.native, &self.member)

    @property
    def index(self):
        """Its row in the table of members, by which plans name it (int)."""
        return self.member.index

    @property
    def id(self):
        """Never 0, and never given to another member as long as anybody has the store open (int)."""
        return tl_member_id(&self.member)

    @property
    def active(self):
        """False once it left, was expelled, or was replaced by a newer member of its name."""
        return self.is_active()

    @property
    def fenced(self):
        """Whether a newer member of the group has its name."""
        cdef const char *name
        cdef size_t name_bytes
        cdef tl_error err
        cdef int code
        if self.encoded_name is None or self.left or self.is_active():
            return False
        cdef tl_store *native = self.native()
        name = self.encoded_name
        name_bytes = len(self.encoded_name)
        with nogil:
            code = tl_member_is_fenced(native, &self.member, name, name_bytes, &err)
        if code < 0:
            fail(code, &err)
        return code == 1

    @property
    def turn(self):
        """Changes with every join, leave, death, installed plan and returned lease of the group (int)."""
        cdef tl_store *native = self.native()
        return tl_member_turn(native, &self.member)[0]

    @property
    def version(self):
        """The generation: changes when members come, go or change (int)."""
        return tl_member_version(self.native(), &self.member)

    @property
    def assigned(self):
        """The version whose plan is installed; another one than `version` while a plan is awaited (int)."""
        return tl_member_assigned(self.native(), &self.member)

    def view(self):
        """(version, members) in one copy; members as from members()."""
        version, _, members = view_group(self.native(), self.member.number)
        return version, members

    def members(self):
        """(index, id, pid, name, strategy, local ids of its channels, away) of each, in the order they joined."""
        return view_group(self.native(), self.member.number)[2]

    def targets(self, slots):
        """The index of the member that each offset slot is assigned to, -1: none. Of one plan; nobody may act on it
        unless `assigned` equals `version`. Raises ChannelNotFound when a slot's channel was dropped."""
        cdef tl_store *native = self.native()
        cdef size_t i, count = len(slots)
        cdef tl_error err
        cdef int code
        cdef uint32_t *numbers = _slots_of(slots)
        cdef int32_t *members = NULL
        try:
            members = <int32_t *>take(count, sizeof(int32_t))
            with nogil:
                code = tl_group_targets(native, &self.member, numbers, members, count, &err)
            if code < 0:
                fail(code, &err)
            return [members[i] for i in range(count)]
        finally:
            tl_os.free(numbers)
            tl_os.free(members)

    def install(self, version, slots, members):
        """Stores who each offset slot is assigned to (index of a member, -1: nobody) and wakes everybody. False: the
        version has moved on, and nothing was stored. Raises Fenced when this is no member any more, ValueError for slots
        of another group, ChannelNotFound for slots of a dropped channel."""
        cdef tl_store *native = self.native()
        cdef size_t i, count = len(slots)
        cdef uint64_t wanted = version
        cdef tl_error err
        cdef int code
        if len(members) != count:
            raise ValueError(f"{len(members)} members for {count} slots: give one for each")
        cdef uint32_t *numbers = _slots_of(slots)
        cdef int32_t *indexes = NULL
        try:
            indexes = <int32_t *>take(count, sizeof(int32_t))
            for i in range(count):
                indexes[i] = members[i]
            with nogil:
                code = tl_group_install(native, &self.member, wanted, numbers, indexes, count, &err)
            if code < 0:
                fail(code, &err)
            return code == 1
        finally:
            tl_os.free(numbers)
            tl_os.free(indexes)

    def sweep(self):
        """Removes members that are dead, overdue, or away for too long, of all groups. Cheap when there are none."""
        cdef tl_store *native = self.native()
        with nogil:
            tl_groups_sweep(native)

    def leave(self, keep=False):
        """Ends the membership; leases are given back before. `keep`: a static name stays away, and its partitions wait
        for it. Calling it again, or after the store was closed, does nothing."""
        cdef bint kept = keep
        cdef tl_error err
        cdef int code
        if not self.joined or self.left:
            return
        self.left = True
        if self.store.is_closed or not tl_store_is_open(self.store.native):
            return
        cdef tl_store *native = self.store.native
        with nogil:
            code = tl_member_leave(native, &self.member, kept, &err)
        if code < 0 and code != TL_ECLOSED:
            self.left = False
            fail(code, &err)
