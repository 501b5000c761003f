"""How many instructions does an operation take, and has that changed?

valgrind's callgrind counts, no clock is involved, so the numbers repeat on a busy machine. Counted per operation, the
Python loop around it included: `send` (1,000 single ones), `send_id` (the same, each with an id that was not sent
before), `producer_send` and `named_send` (`send` through a producer, without and with a
name), `send_many` (a message, in batches of 1,000), `values` (a message of
`receive_many(...).values`), `commit`, `lookup` (an offset out of 10,000, in an index of 10,000 entries).
Read-committed beside read-uncommitted, where no transaction is open, by 500 messages: `committed_values` and
`uncommitted_values` (of batches of 1,000), `..._lone` (of messages that were sent one by one), `..._settled` (of
transactions of 500 that were committed), `..._messages` (each message as an object, and its value).
Each is done twice before counting begins. Nothing flushes meanwhile (flush_interval of an hour). valgrind's CPU has no
AVX-512, so the checksum and the lookup take the next best way.

    python -m benchmarks.instructions             compares with benchmarks/results/instructions.json
    python -m benchmarks.instructions --update    writes that file

Exit codes: 0 within 3 % of the file and within the limits, 1 not, 3 not run.

Counts of another compiler or Python are another toolchain's: they are not compared, and the answer says so. Limits
(LIMITS) are between two counts of one run, and hold for every toolchain.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tidelog
from benchmarks.baselines import compiled
from benchmarks.harness import ROOT, VALUE_BYTES, Context, Figure
from benchmarks.lookup import some_index
from tidelog import _native, native
from tidelog.consumer import ISOLATIONS

COMMITTED = ROOT / "benchmarks" / "results" / "instructions.json"
TOLERANCE = 0.03
COUNT = 1000
ROUNDS = 10
READ = ROUNDS * COUNT // 2
PASSES = 3  # what is not counted is done twice
LIMITS = {
    # What is no more than so many times what.
    "committed_values": ("uncommitted_values", 1.02),
    "committed_lone": ("uncommitted_lone", 1.02),
    "committed_settled": ("uncommitted_settled", 1.02),
    "committed_messages": ("uncommitted_messages", 1.02),
}
_START, _ZERO, _DUMP, _STOP = range(4)


class NotRun(Exception):
    """valgrind or its headers are missing; the message says what to install."""


def work(folder: Path) -> None:
    """What runs under callgrind: every operation once to warm up, then between two marks."""
    import numpy as np

    values = [os.urandom(VALUE_BYTES) for _ in range(COUNT)]
    index, offsets, _ = some_index(10 * COUNT)
    queries = np.random.default_rng(5).integers(0, int(offsets[-1]), 10 * COUNT)
    with tidelog.open(folder / "bench.log", flush_interval=3600) as log:
        queue = log.queue("values", partitions=1)
        for _ in range(2 * ROUNDS):
            queue.send_many(values)
        consumer = queue.consumer(delivery="manual")
        messages = list(consumer.receive_many(COUNT))
        send, commit = queue.send, consumer.commit
        plain, named = log.producer(), log.producer(name="instructions")

        def send_each() -> None:
            for value in values:
                send(value)

        send_named = log.queue("ids", partitions=1).send
        ids = iter([[f"order-{turn * COUNT + number:06}" for number in range(COUNT)] for turn in range(PASSES)])

        def send_ids() -> None:
            for value, name in zip(values, next(ids), strict=True):
                send_named(value, id=name)

        def send_through(producer: tidelog.Producer) -> None:
            for value in values:
                producer.send(queue, value)

        def send_batches() -> None:
            for _ in range(ROUNDS):
                queue.send_many(values)

        def receive() -> None:
            left = ROUNDS * COUNT // 2
            while left > 0:
                left -= len(consumer.receive_many(COUNT).values)

        def commit_each() -> None:
            for message in messages:
                commit(message)

        def look_up() -> None:
            native.lookup(index, queries)

        batches, lone, settled = (log.topic(name, partitions=1) for name in ("batches", "lone", "settled"))
        for _ in range(ROUNDS):
            with log.transaction(named, level="written") as transaction:
                transaction.send_many(settled, values[:500])
        for _ in range(ROUNDS // 2):
            batches.send_many(values)
            for value in values:
                lone.send(value)

        def read(reader: Any, objects: bool) -> None:
            reader.seek("earliest")
            left = READ
            while left > 0:
                found = reader.receive_many(500)
                left -= len([message.value for message in found]) if objects else len(found.values)

        marks = compiled()
        operations: dict[str, Callable[[], None]] = {
            "send": send_each,
            "send_id": send_ids,
            "producer_send": partial(send_through, plain),
            "named_send": partial(send_through, named),
            "send_many": send_batches,
            "values": receive,
            "commit": commit_each,
            "lookup": look_up,
        }
        readers: list[Any] = []
        read_from: list[tuple[str, Any]] = [
            ("values", batches),
            ("lone", lone),
            ("settled", settled),
            ("messages", batches),
        ]
        for name, channel in read_from:
            for isolation in ISOLATIONS:
                reader = channel.consumer(group=f"{isolation}-{name}", delivery="manual", isolation=isolation)
                readers.append(reader)
                operations[f"{isolation.removeprefix('read-')}_{name}"] = partial(read, reader, name == "messages")
        for name, operation in operations.items():
            _count(marks, name, operation)
        for reader in (consumer, *readers):
            reader.close()


def _count(marks: Any, name: str, operation: Callable[[], None]) -> None:
    operation()
    if not marks.bl_callgrind(_START, b""):
        raise NotRun("the baselines were built without valgrind/callgrind.h: install valgrind")
    operation()  # what the first pass under instrumentation costs is not the operation's
    marks.bl_callgrind(_ZERO, b"")
    operation()
    marks.bl_callgrind(_DUMP, name.encode())
    marks.bl_callgrind(_STOP, b"")


OPERATIONS = {
    "send": COUNT,
    "send_id": COUNT,
    "producer_send": COUNT,
    "named_send": COUNT,
    "send_many": ROUNDS * COUNT,
    "values": ROUNDS * COUNT // 2,
    "commit": COUNT,
    "lookup": 10 * COUNT,
    "committed_values": READ,
    "uncommitted_values": READ,
    "committed_lone": READ,
    "uncommitted_lone": READ,
    "committed_settled": READ,
    "uncommitted_settled": READ,
    "committed_messages": READ,
    "uncommitted_messages": READ,
}


def count() -> dict[str, float]:
    """Instructions per operation, by name. Raises NotRun."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise NotRun("there is no valgrind: apt-get install valgrind")
    compiled()
    with tempfile.TemporaryDirectory(prefix="tidelog-callgrind-") as name:
        out = Path(name) / "callgrind.out"
        command = [valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-m", "benchmarks.instructions", "--work", name]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotRun(f"valgrind ended with {done.returncode}: {done.stderr[-2000:]}")
        found = parse(path.read_text() for path in Path(name).glob("callgrind.out*"))
    if missing := set(OPERATIONS) - set(found):
        raise NotRun(f"callgrind wrote nothing for {', '.join(sorted(missing))}: {done.stderr[-2000:]}")
    return {name: found[name] / operations for name, operations in OPERATIONS.items()}


def parse(files: Any) -> dict[str, int]:
    """Instructions by the name of the mark, from the texts of callgrind's files."""
    found: dict[str, int] = {}
    for text in files:
        mark = re.search(r"^desc: Trigger: Client Request: (\w+)", text, re.M)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
        if mark and total:
            found[mark[1]] = found.get(mark[1], 0) + int(total[1])
    return found


def toolchain() -> dict[str, str]:
    """What decides on counts besides the source."""
    return {
        "compiler": str(_native.BUILD["compiler"]),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
    }


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], bool | None]:
    """(a line for each operation, whether all are within the tolerance; None: not comparable)."""
    if old["toolchain"] != new["toolchain"]:
        return [f"not compared: {old['toolchain']} counted differently from {new['toolchain']}"], None
    lines, fine = [], True
    for name in sorted(set(old["instructions"]) | set(new["instructions"])):
        before, after = old["instructions"].get(name), new["instructions"].get(name)
        if not before or not after:
            lines.append(f"{name}: {'new' if after else 'gone'}")
            fine = False
            continue
        change = after / before - 1
        within = abs(change) <= TOLERANCE
        fine = fine and within
        note = "" if within else "  more than before" if change > 0 else "  fewer: commit it with --update"
        lines.append(f"{name}: {before:,.1f} -> {after:,.1f} instructions ({change:+.1%}){note}")
    return lines, fine


def within_limits(new: dict[str, Any]) -> tuple[list[str], bool]:
    """(a line for each of LIMITS, whether all hold)."""
    lines, fine = [], True
    for name, (other, limit) in LIMITS.items():
        ratio = new["instructions"][name] / new["instructions"][other]
        fine = fine and ratio <= limit
        lines.append(f"{name}: {ratio:.4f} x {other}{'' if ratio <= limit else f'  more than {limit:g} x'}")
    return lines, fine


def run(ctx: Context) -> list[Figure]:
    """The counts as figures; none where valgrind is missing, and progress says so."""
    try:
        found = count()
    except NotRun as error:
        ctx.say(f"instructions: NOT RUN: {error}")
        return []
    titles = {"send_many": "send_many, per message", "values": "receive_many(...).values, per message"}
    known: dict[str, float] = {}
    if COMMITTED.exists():
        old = json.loads(COMMITTED.read_text())
        known = old["instructions"] if old["toolchain"] == toolchain() else {}
    return [
        Figure(
            name=f"instructions_{name}",
            title=f"instructions of {titles.get(name, name)}",
            unit="",
            measured=[value],
            against="the committed count" if name in known else "",
            baseline=[known[name]] if name in known else [],
        )
        for name, value in found.items()
    ]


def main() -> int:
    """The command; 0 within the tolerance (or not comparable) and the limits, 1 outside, 3 not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true", help="write the counts instead of comparing them")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.work:
            work(given.work)
            return 0
        new = {"toolchain": toolchain(), "instructions": count()}
    except NotRun as error:
        print(f"NOT RUN: {error}", file=sys.stderr)
        return 3
    limits, held = within_limits(new)
    if given.update or not COMMITTED.exists():
        COMMITTED.parent.mkdir(parents=True, exist_ok=True)
        COMMITTED.write_text(json.dumps(new, indent=1) + "\n")
        print("\n".join([json.dumps(new["instructions"], indent=1), *limits]))
        return 0 if held else 1
    lines, fine = compare(json.loads(COMMITTED.read_text()), new)
    print("\n".join([*lines, *limits]))
    return 1 if fine is False or not held else 0


if __name__ == "__main__":
    sys.exit(main())
