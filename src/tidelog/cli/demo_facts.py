"""What does the source file say, in a form that is small enough to be held against everything that was received?

Floor 9: imports demo_source. Thread rule: `Facts` never change after they were gathered.

A row is kept as a fingerprint of its text, 16 bytes whatever its length: files larger than memory can be proved too.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tidelog.cli.common import CommandError
from tidelog.cli.demo_source import Source

PRINT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows by number: their fingerprints and keys."""

    source: Source
    prints: bytes
    key_of_row: array[int]
    """Row number -> place in `keys`."""
    keys: list[str]
    hottest: list[tuple[str, int]]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.key_of_row)

    def print_of(self, row: int) -> bytes:
        """The fingerprint of a row."""
        return self.prints[row * PRINT_BYTES : (row + 1) * PRINT_BYTES]

    def victim(self) -> tuple[int, str]:
        """(row, key) of a record that a fault can be tried on: another one of the same key comes after it."""
        key = self.hottest[0][0]
        place = self.keys.index(key)
        rows = [row for row, at in enumerate(self.key_of_row) if at == place]
        return rows[max(0, len(rows) // 2 - 1)], key


def fingerprint(cells: Sequence[str]) -> bytes:
    """16 bytes that stand for the cells of a row: other cells, other bytes."""
    # The lengths keep ("a", "bc") and ("ab", "c") apart, whatever characters the cells hold.
    text = "\0".join(cells) + "\0" + ",".join(map(str, map(len, cells)))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=PRINT_BYTES).digest()


def gather(source: Source) -> Facts:
    """Read the file once. Raises CommandError for a file without rows."""
    position = source.key_position()
    prints = bytearray()
    key_of_row: array[int] = array("I")
    places: dict[str, int] = {}
    for _, cells in source.rows():
        prints += fingerprint(cells)
        key_of_row.append(places.setdefault(cells[position], len(places)))
    if not key_of_row:
        raise CommandError(f"{source.path} holds no records; give a CSV file with a heading and at least one row")
    keys = list(places)
    hottest = [(keys[place], count) for place, count in Counter(key_of_row).most_common(10)]
    return Facts(source, bytes(prints), key_of_row, keys, hottest)
