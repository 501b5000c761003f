"""A native store in a temporary directory, and the handles that the tests of the compiled extension need.

Used by tests only, below the public API: nothing but the extension, codecs and the partitioner is involved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidelog import compression, partitioner
from tidelog._native import Channelled, Partition, Reader, Sender, Store
from tidelog.codec import codec_for

CHANNEL_ID = bytes(range(16))
LIMIT = 1 << 20


def shared(type_: Any = None, *, name: str = "ch", kind: str = "topic", limit: int = LIMIT) -> Channelled:
    """What messages of a channel of `type_` share."""
    codec = codec_for(type_)
    return Channelled(
        name,
        kind,
        encode=codec.encode,
        decode=codec.decode,
        encode_many=codec.encode_many,
        decode_many=codec.decode_many,
        dtype=codec.dtype,
        key_bytes=partitioner.key_bytes,
        decompress=compression.decompress,
        max_message_bytes=limit,
        rows=codec.rows if codec.dtype is not None else None,
    )


class Opened:
    """An open store with one channel."""

    def __init__(self, path: Path, partitions: int = 1, type_: Any = None, **options: Any) -> None:
        self.store = Store(str(path), flush_interval_ms=1000, lock_timeout_ms=2000, create=True)
        if self.store.recovered:
            self.store.ready()
        known = {number: slot for slot, _, _, number in self.store.partitions()}
        segment_bytes = options.pop("segment_bytes", 1 << 24)
        if not known:
            self.store.lock_catalogue()
            slots = self.store.create_partitions(
                [f"ch-{number}" for number in range(partitions)],
                CHANNEL_ID,
                segment_bytes=segment_bytes,
                segment_ms=-1,
                retention_ms=-1,
                retention_bytes=-1,
                retention_consumed=False,
                max_message_bytes=options.get("limit", LIMIT),
            )
            self.store.unlock_catalogue()
            known = dict(enumerate(slots))
        self.slots = [known[number] for number in sorted(known)]
        self.parts: list[Partition] = [self.store.partition(slot, CHANNEL_ID) for slot in self.slots]
        self.shared = shared(type_, **options)

    def sender(self, codec: int = 0, *, synced: bool = False, partitioner: Any = None) -> Sender:
        """A sender; `codec`: the id of a compression."""
        sender = Sender()
        sender._attach(
            self.store,
            self.parts,
            self.shared,
            synced=synced,
            partitioner=partitioner,
            compress=(lambda data: compression.compress(codec, data)) if codec else None,
            codec_id=codec,
        )
        return sender

    def reader(self, mode: str = "none", group: str | None = None, *, claim: bool = True) -> Reader:
        """A reader of all partitions from the start, or from the committed offsets."""
        reader = Reader()
        reader._attach(
            self.store,
            [(part, number, self.shared) for number, part in enumerate(self.parts)],
            group=group,
            channel_ids=[CHANNEL_ID] * len(self.parts),
            mode=mode,
            uncommitted=False,
            busy_poll=0.0,
            max_bytes=1 << 20,
        )
        if group is not None and claim:
            for index, offset in enumerate(reader._claim(0.0)):
                reader._seek(index, offset or 0)
        return reader

    def drained(self, mode: str = "none", group: str | None = None) -> Reader:
        """A reader that ends at the log end as it is now."""
        reader = self.reader(mode, group)
        reader._stop_at([part.bounds()[1] for part in self.parts])
        return reader


@contextmanager
def opened(path: Path, partitions: int = 1, type_: Any = None, **options: Any) -> Iterator[Opened]:
    """An open store with one channel, closed at the end."""
    it = Opened(path, partitions, type_, **options)
    try:
        yield it
    finally:
        it.store.close()
