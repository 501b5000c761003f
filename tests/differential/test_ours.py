"""Do other implementations of Kafka's formats read the files of a store, and find in them what was sent?

Readers: kafka-python, aiokafka (its compiled parser), Apache Kafka's Java classes, and kafka-dump-log, which compares
the indexes with the log as well. Each reads sealed segments and the last one of a store that was closed.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from aiokafka.record.memory_records import MemoryRecords as AiokafkaRecords
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

import tidelog
from tests.differential import apache
from tests.differential.messages import Record, assert_same, load, made

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
MESSAGES = 4_000  # of each codec: 20,000 for every reader
SEGMENT_BYTES = 512 << 10

pytestmark = pytest.mark.timeout(300)


class Sent(NamedTuple):
    """A partition's directory and what was sent to it."""

    directory: Path
    records: list[Record]

    def files(self, suffix: str) -> list[Path]:
        """The partition's files of one kind, in the order of their offsets."""
        return sorted(self.directory.glob(f"*.{suffix}"))


def send(topic: Any, records: list[Record], seed: int) -> None:
    """By `send` and by `send_many`, one to some hundred messages at a time."""
    dice = random.Random(seed)
    at = 0
    while at < len(records):
        some = records[at : at + dice.choice((1, 1, 7, 100, 700))]
        at += len(some)
        stamps = np.array([record.timestamp_ms for record in some], dtype="M8[ms]")
        if len(some) == 1:
            only = some[0]
            topic.send(only.value, key=only.key, headers=only.headers or None, timestamp=stamps[0])
        else:
            topic.send_many(
                [record.value for record in some],
                keys=[record.key for record in some],
                headers=[record.headers for record in some],
                timestamp=stamps,
            )


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sent]:
    """A closed store with two topics for every codec: NAME of any bytes, NAME-text of letters and digits."""
    path = tmp_path_factory.mktemp("ours") / "store"
    result = {}
    with tidelog.open(path) as log:
        for number, codec in enumerate(CODECS):
            for text in (False, True):
                name = f"{codec}-text" if text else codec
                topic = log.topic(name, bytes, partitions=1, segment_bytes=SEGMENT_BYTES, compression=codec)
                records = made(2 * number + text, MESSAGES, text=text, nulls=False)
                send(topic, records, number)
                result[name] = Sent(path / f"{name}-0", records)
    for name, each in result.items():
        assert len(each.files("log")) > 3, f"{name} has no sealed segments to look at"
    return result


def decoded(directory: Path, parser: Callable[[bytes], Any]) -> Iterator[Record]:
    """What a Python implementation reads in a partition's log; checks CRCs, and that the files hold nothing else."""
    for path in sorted(directory.glob("*.log")):
        data = path.read_bytes()
        parsed = parser(data)
        assert parsed.size_in_bytes() == len(data)
        at = 0
        while parsed.has_next():
            batch = parsed.next_batch()
            assert batch is not None and batch.magic == 2
            base, length = struct.unpack_from(">qi", data, at)
            at += 12 + length
            assert batch.validate_crc(), f"{path}: the CRC of the batch at offset {base} is taken for wrong"
            for record in batch:
                yield Record(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
        assert at == len(data), f"{path}: {len(data) - at} bytes after the last batch"


def codec_ids(directory: Path) -> set[int]:
    """The codecs that the headers of a partition's batches name."""
    found = set()
    for path in directory.glob("*.log"):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            found.add(data[at + 22] & 7)
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    return found


@pytest.mark.parametrize("codec", CODECS)
def test_batches_are_of_the_codec(sent: dict[str, Sent], codec: str) -> None:
    assert CODECS.index(codec) in codec_ids(sent[codec].directory)
    assert codec_ids(sent[codec].directory) <= {0, CODECS.index(codec)}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "parser", [pytest.param(KafkaPythonRecords, id="kafka-python"), pytest.param(AiokafkaRecords, id="aiokafka")]
)
def test_python_clients_read_it(sent: dict[str, Sent], codec: str, parser: Any) -> None:
    assert "_crecords" in AiokafkaRecords.__module__, "aiokafka's compiled parser is not there"
    assert_same(decoded(sent[codec].directory, parser), sent[codec].records, parser.__module__)


@pytest.mark.java
def test_java_client_reads_it(sent: dict[str, Sent], tmp_path: Path) -> None:
    for name, topic in sent.items():
        out = tmp_path / f"{name}.records"
        apache.java("Batches", "read", out, *topic.files("log"))
        assert_same(load(out), topic.records, f"Java, {name}")


_BATCH = re.compile(r"^baseOffset: (\d+) .* isvalid: (\w+)$", re.MULTILINE)
_FINDING = re.compile(
    r"Dumping /|Log starting offset: \d+$|baseOffset: \d+ |\| offset: \d+ |offset: \d+ position: \d+$"
    r"|timestamp: -?\d+ offset: \d+$|/.* is empty\.$"
)
_RECORD = re.compile(
    r"^\| offset: (\d+) CreateTime: (-?\d+) keySize: (-?\d+) valueSize: (-?\d+) sequence: -1 headerKeys: \[([^\]]*)\]"
    r"(?: key: (\w*))?(?: payload: (\w*))?$",
    re.MULTILINE,
)


def dumped(output: str) -> Iterator[tuple[Any, ...]]:
    """(offset, timestamp, key, value, names of headers) of every record that kafka-dump-log prints."""
    for match in _RECORD.finditer(output):
        offset, timestamp_ms, key_bytes, value_bytes, names, key, value = match.groups()
        for size, data in ((key_bytes, key), (value_bytes, value)):
            assert int(size) == (-1 if data is None else len(data)), f"the sizes in {match[0][:200]}"
        yield (
            int(offset),
            int(timestamp_ms),
            None if key is None else key.encode(),
            None if value is None else value.encode(),
            tuple(names.split(",")) if names else (),
        )


@pytest.mark.java
def test_kafka_dump_log_prints_it(sent: dict[str, Sent]) -> None:
    for codec in CODECS:
        topic = sent[f"{codec}-text"]
        output = apache.dump_log("--deep-iteration", "--print-data-log", files=topic.files("log"))
        batches = _BATCH.findall(output)
        assert len(batches) > 20 and {valid for _, valid in batches} == {"true"}, codec
        expected = [(*record[:4], tuple(name for name, _ in record.headers)) for record in topic.records]
        printed = list(dumped(output))
        assert len(printed) == output.count("\n| offset: ") == len(expected), codec
        for index, (theirs, ours) in enumerate(zip(printed, expected, strict=True)):
            assert theirs == ours, f"{codec}: record {index}"
        assert_no_complaint(output)


def assert_no_complaint(output: str) -> None:
    """kafka-dump-log has said nothing but what it found in files: no mismatch, gap, invalid bytes or whatever else."""
    # It takes -1 for the offset before every file, so that each segment but the first begins with a gap.
    output = re.sub(
        r"^Non-consecutive offsets in \S+/0*(\d+)\.log\n  -1 is followed by \1$", "", output, flags=re.MULTILINE
    )
    for line in output.splitlines():
        assert line == "" or _FINDING.match(line), line[:500]


def entries(path: Path, size: int) -> int:
    """How many entries an index has: those at the end that are zero are room that was allocated."""
    data = path.read_bytes()
    assert len(data) % size == 0, f"{path} has {len(data)} bytes"
    return len(data.rstrip(b"\0")) // size


@pytest.mark.java
def test_kafka_dump_log_verifies_the_indexes(sent: dict[str, Sent]) -> None:
    indexes: list[Path] = []
    for topic in sent.values():
        found = topic.files("index") + topic.files("timeindex")
        logs = {path.stem for path in topic.files("log")}
        # The last segment gets its files with its first entry, which only an append that may block makes.
        assert logs - {max(logs)} <= {path.stem for path in found if path.suffix == ".index"} <= logs
        assert {path.stem for path in topic.files("index")} == {path.stem for path in topic.files("timeindex")}
        assert any(entries(path, 8) > 1 for path in topic.files("index"))
        assert any(entries(path, 12) > 1 for path in topic.files("timeindex"))
        indexes += found
    checked = apache.dump_log("--index-sanity-check", files=indexes)
    empty = {str(path) for path in indexes if path.stat().st_size == 0}
    assert set(re.findall("^(.*) is empty.$", checked, re.MULTILINE)) == empty
    assert checked.count(" passed sanity check.") == len(indexes) - len(empty), checked
    for option in ("--verify-index-only", "--deep-iteration"):
        output = apache.dump_log(option, files=indexes)
        assert output.count("Dumping ") == len(indexes)
        assert_no_complaint(output)


@pytest.mark.java
def test_kafka_dump_log_sees_a_wrong_index(sent: dict[str, Sent], tmp_path: Path) -> None:
    """That it says nothing means something only if it can."""
    topic = sent["none"]
    log = max(topic.files("index"), key=lambda path: entries(path, 8)).with_suffix(".log")
    for suffix, offset_at in ((".index", 3), (".timeindex", 11)):  # the last byte of the first entry's offset
        data = bytearray(log.with_suffix(suffix).read_bytes())
        data[offset_at] ^= 1
        (tmp_path / log.with_suffix(suffix).name).write_bytes(data)
    (tmp_path / log.name).write_bytes(log.read_bytes())
    for suffix in (".index", ".timeindex"):
        output = apache.dump_log("--verify-index-only", files=[tmp_path / log.with_suffix(suffix).name])
        with pytest.raises(AssertionError, match="Mismatch|not found"):
            assert_no_complaint(output)
