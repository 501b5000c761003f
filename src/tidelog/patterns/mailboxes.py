"""Which reply channels does this process have, and what becomes of those whose process was killed?

Floor 7: may import mailbox, engine.base, codec, config, envelope, names, errors, and the compiled reader. Thread rule:
everything may be called from any thread; after fork() every call raises Forked.

An own one (`reply.` and a UUID) is made at the first question and dropped with the log; one whose process was killed is
dropped by whoever makes the next. A durable one (`reply.` and a name) stays.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from typing import Final

from tidelog._native import Reader
from tidelog.codec import codec_for
from tidelog.config import MAX_MESSAGE_BYTES, ChannelOptions
from tidelog.engine.base import Engine
from tidelog.envelope import new_id
from tidelog.errors import ChannelNotFound, Error, Locked, SchemaMismatch
from tidelog.names import check_channel
from tidelog.patterns.mailbox import Mailbox

__all__ = ["Mailboxes", "drop_orphans", "is_own"]

PREFIX: Final = "reply."
SEGMENT_BYTES = 4 << 20
"""Small: what was consumed goes when its segment is full."""
ORPHAN_AGE_S = 60.0
"""A reply channel that nobody has ever held is an orphan when it is older: its maker died before it took it."""
ORPHANS_AT_ONCE = 64

_OWN = re.compile(r"reply\.[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


def is_own(name: str) -> bool:
    """Whether a channel, or the group that reads it, has the name of a process's own reply channel."""
    return _OWN.fullmatch(name) is not None


class Mailboxes:
    """The reply channels of one log in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._own: Mailbox | None = None
        self._late = 0
        self._durable: dict[str, tuple[Mailbox, str]] = {}

    def own(self) -> Mailbox:
        """This process's own reply channel, made at the first call. Raises Closed, Forked, NoSpace, StorageFailed."""
        mailbox = self._own
        if mailbox is not None and mailbox.usable():
            return mailbox
        self._engine.names()  # raises Forked and Closed before the lock, which a fork may have left taken
        with self._lock:
            if self._own is None or not self._own.usable():
                self._late = self.late
                drop_orphans(self._engine)
                self._own = _make(self._engine, PREFIX + new_id(), durable=False)
            return self._own

    def durable(self, name: str, channel: str) -> Mailbox:
        """The reply channel of that name, made if there is none, for questions on `channel`.

        Raises ValueError or TypeError for a name that is not allowed or is another channel's, Locked (naming the
        holder) while another process uses it, SchemaMismatch if the channel is something else.
        """
        if not isinstance(name, str):
            raise TypeError(f"durable= is a name, not {type(name).__name__}: give a str, the same after a restart")
        if not name:
            raise ValueError("durable= is a name, not an empty text: give one that is the same after a restart")
        full = check_channel(PREFIX + name)
        if is_own(full):
            raise ValueError(f"durable={name!r} is kept for reply channels without a name: choose another")
        self._engine.names()
        with self._lock:
            known = self._durable.get(name)
            if known is not None and known[1] != channel:
                raise ValueError(
                    f"durable={name!r} belongs to the questions on {known[1]!r}: choose another name for {channel!r}"
                )
            if known is not None and known[0].usable():
                return known[0]
            mailbox = _make(self._engine, full, durable=True)
            self._durable[name] = (mailbox, channel)
            return mailbox

    @property
    def late(self) -> int:
        """Answers to this process that came too late, and were dropped."""
        return self._late + (0 if self._own is None else self._own.late)


def drop_orphans(engine: Engine) -> int:
    """Drop reply channels without a name whose process is gone; answers how many."""
    found = [name for name in engine.names() if is_own(name)]
    if not found:
        return 0
    owners = {row.group: row.owner_pid for row in engine.committed() if row.group == row.channel}
    dropped = 0
    for name in found[:ORPHANS_AT_ONCE]:
        with suppress(Error):  # somebody else drops it too, or holds the catalogue: the next one sweeps again
            owner = owners.get(name)
            if owner or not _is_reply_channel(engine, name):
                continue
            if owner is None and time.time() - engine.definition(name).created_ms / 1000 < ORPHAN_AGE_S:
                continue
            engine.drop(name)
            dropped += 1
    return dropped


def _is_reply_channel(engine: Engine, name: str) -> bool:
    definition = engine.definition(name)
    one = len(definition.partitions) == 1 and definition.retention_consumed
    return one and definition.kind == "queue" and definition.codec == "raw"


def _make(engine: Engine, name: str, *, durable: bool) -> Mailbox:
    """A mailbox over the channel `name`, which is created if it is missing, and held by this process alone."""
    raw = codec_for(bytes)
    options = ChannelOptions.of(
        "queue",
        partitions=1,
        retention="consumed",
        carries="document",
        segment_bytes=SEGMENT_BYTES,
        max_message_bytes=MAX_MESSAGE_BYTES,
        dedup_count=0,
    )
    while True:
        definition = engine.create(name, "queue", raw, options)
        if not _is_reply_channel(engine, name):
            raise SchemaMismatch(
                f"the channel {name!r} exists and is no reply channel: choose another name for durable="
            )
        opened = engine.open(definition, raw)
        reader = Reader()
        mode = "manual" if durable else "at-least-once"
        engine.attach_reader(reader, [(opened, 0)], group=name, mode=mode)
        try:
            (committed,) = reader._claim(0.0)
        except Locked as error:
            raise Locked(
                f"the reply channel {name!r} is in use by {error.holder or 'another process'}: a name for durable= "
                f"belongs to one process at a time",
                holder=error.holder,
            ) from error
        with suppress(ChannelNotFound):
            # Until it was claimed, somebody may have taken it for an orphan.
            if engine.definition(name).id == definition.id:
                start = opened.partitions[0].bounds()[0]
                reader._seek(0, start if committed is None else max(committed, start))
                return Mailbox(engine, opened, reader, durable=durable)
        reader._cancel()
        reader._release()
