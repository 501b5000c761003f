"""What do the demo's subscribers compute, and what should it be according to the source file?

Floor 9: imports demo_source. Thread rule: pure functions over plain dictionaries.

Every answer is a table `cell -> whole numbers` whose partial tables (one per partition) add up. `add` fills it from
typed events as they arrive; `direct` computes it from the text of the file, by other code, to hold the first against.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tidelog.cli.demo_source import NOT_AVAILABLE, Flight

Table = dict[str, list[int]]
Partition = Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Answer:
    """One question: its group, what it asks, how an event is added, and how the file answers directly."""

    group: str
    question: str
    add: Callable[[Table, bytes, int, Any], None]
    """(table, key, partition, event)"""
    direct: Callable[[Sequence[str], Iterable[Sequence[str]], int, Partition], Table]
    """(heading, rows of cells, which cell is the key, key -> partition)"""


def merge(tables: Iterable[Table]) -> Table:
    """The sum of partial tables."""
    result: Table = {}
    for table in tables:
        for cell, numbers in table.items():
            known = result.get(cell)
            result[cell] = list(numbers) if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
    return result


def _add_delays(table: Table, key: bytes, partition: int, event: Flight) -> None:
    numbers = table.get(event.carrier)
    if numbers is None:
        numbers = table[event.carrier] = [0, 0, 0, 0, 0]
    numbers[0] += 1
    if event.dep_delay is not None:
        numbers[1] += 1
        numbers[2] += event.dep_delay
    if event.arr_delay is not None:
        numbers[3] += 1
        numbers[4] += event.arr_delay


def _direct_delays(heading: Sequence[str], rows: Iterable[Sequence[str]], key: int, partition: Partition) -> Table:
    carrier, departure, arrival = (heading.index(name) for name in ("carrier", "dep_delay", "arr_delay"))
    departures: defaultdict[str, list[int]] = defaultdict(list)
    arrivals: defaultdict[str, list[int]] = defaultdict(list)
    flights: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        flights[row[carrier]] += 1
        if row[departure] != NOT_AVAILABLE:
            departures[row[carrier]].append(int(row[departure]))
        if row[arrival] != NOT_AVAILABLE:
            arrivals[row[carrier]].append(int(row[arrival]))
    return {
        name: [count, len(departures[name]), sum(departures[name]), len(arrivals[name]), sum(arrivals[name])]
        for name, count in flights.items()
    }


def _add_routes(table: Table, key: bytes, partition: int, event: Flight) -> None:
    cell = f"{event.month:02} {event.origin}-{event.dest}"
    numbers = table.get(cell)
    if numbers is None:
        table[cell] = [1]
    else:
        numbers[0] += 1


def _direct_routes(heading: Sequence[str], rows: Iterable[Sequence[str]], key: int, partition: Partition) -> Table:
    month, origin, dest = (heading.index(name) for name in ("month", "origin", "dest"))
    return _counted(f"{row[month].zfill(2)} {row[origin]}-{row[dest]}" for row in rows)


def _add_keys(table: Table, key: bytes, partition: int, event: Any) -> None:
    table.setdefault(key.decode(), [0])[0] += 1


def _direct_keys(heading: Sequence[str], rows: Iterable[Sequence[str]], key: int, partition: Partition) -> Table:
    return _counted(row[key] for row in rows)


def _add_partitions(table: Table, key: bytes, partition: int, event: Any) -> None:
    table.setdefault(str(partition), [0])[0] += 1


def _direct_partitions(heading: Sequence[str], rows: Iterable[Sequence[str]], key: int, partition: Partition) -> Table:
    by_key = _counted(row[key] for row in rows)
    result: Table = {}
    for text, (count,) in by_key.items():
        result.setdefault(str(partition(text.encode())), [0])[0] += count
    return result


def _counted(cells: Iterable[str]) -> Table:
    counts: defaultdict[str, int] = defaultdict(int)
    for cell in cells:
        counts[cell] += 1
    return {cell: [count] for cell, count in counts.items()}


DELAYS = Answer("delays", "mean delay per carrier", _add_delays, _direct_delays)
ROUTES = Answer("routes", "busiest routes by month", _add_routes, _direct_routes)
KEYS = Answer("keys", "records per key", _add_keys, _direct_keys)
PARTITIONS = Answer("partitions", "records per partition", _add_partitions, _direct_partitions)

ANSWERS = {answer.group: answer for answer in (DELAYS, ROUTES, KEYS, PARTITIONS)}


def answers_for(flights: bool) -> tuple[Answer, Answer]:
    """The two questions asked of the flights, or of any file. The first one's subscriber is killed."""
    return (DELAYS, ROUTES) if flights else (KEYS, PARTITIONS)


def summary(answer: Answer, table: Table) -> list[str]:
    """A few lines for people."""
    if answer is DELAYS:
        return _delay_lines(table)
    if answer is ROUTES:
        return _route_lines(table)
    top = sorted(table.items(), key=lambda item: (-item[1][0], item[0]))[:8]
    return ["  ".join(f"{cell} {numbers[0]}" for cell, numbers in top)]


def _delay_lines(table: Table) -> list[str]:
    def means(numbers: list[int]) -> tuple[float, float]:
        _, departures, departure_sum, arrivals, arrival_sum = numbers
        return departure_sum / max(departures, 1), arrival_sum / max(arrivals, 1)

    ranked = sorted(((*means(numbers), name) for name, numbers in table.items()), key=lambda item: (-item[1], item[2]))
    cells = [f"{name} {departure:+.1f}/{arrival:+.1f}" for departure, arrival, name in ranked]
    return ["   ".join(cells[at : at + 6]) for at in range(0, len(cells), 6)]


def _route_lines(table: Table) -> list[str]:
    best: dict[str, tuple[int, str]] = {}
    for cell, (count,) in table.items():
        month, _, route = cell.partition(" ")
        if (count, route) > best.get(month, (0, "")):
            best[month] = (count, route)
    cells = [f"{month} {route} {count}" for month, (count, route) in sorted(best.items())]
    return ["   ".join(cells[at : at + 4]) for at in range(0, len(cells), 4)]
