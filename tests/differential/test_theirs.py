"""Does a store give back exactly what other implementations wrote in their batches, as a broker takes them in?

Writers: kafka-python, aiokafka (its compiled builder), Apache Kafka's Java classes with everything a broker's log may
hold (gaps left by compaction, batches without records, transaction markers, append times), and batches known byte for
byte. put_batches.c appends them as they are, under AddressSanitizer; then they are read by scan, by consumer, at
offsets and by time. Those from Java are read once more by a boot that finds them behind its recovery point.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder

import tidelog
from tests import builds
from tests.differential import apache
from tests.differential.messages import Record, assert_same, load, made, of_message
from tests.differential.test_ours import assert_no_complaint

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
MESSAGES = 20_000
SEGMENT_BYTES = 2 << 20

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return builds.program(Path(__file__).with_name("put_batches.c"), builds.ASAN)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


def new_store(path: Path) -> tuple[int, str]:
    """A closed store with an empty topic "theirs"; its partition's slot, and the channel's id."""
    with tidelog.open(path) as log:
        log.topic("theirs", bytes, partitions=1, segment_bytes=SEGMENT_BYTES)
        definition = log.engine.definition("theirs")
    return definition.partitions[0], definition.id


def put(program: Path, path: Path, batches: Path, *, abandon: bool = False) -> None:
    """Append the batches of a file to the topic of a new store."""
    slot, channel = new_store(path)
    command = [str(program), str(path), str(slot), channel, str(batches), *(["abandon"] if abandon else [])]
    done = subprocess.run(
        command, env=builds.SANITIZER_ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def assert_reads(log: Any, records: list[Record]) -> None:
    """Every way of reading the topic gives these records."""
    topic = log["theirs"]
    scanned = list(topic.scan(isolation="read-uncommitted"))
    assert_same(map(of_message, scanned), records, "scan")

    came: list[Record] = []
    with topic.consumer(group="columns", stop="end") as consumer:
        while batch := consumer.receive_many(777, timeout=0):
            stamps = batch.timestamps.astype("M8[ms]").astype("i8").tolist()
            assert batch.values == [message.value for message in batch]
            rows = zip(batch.offsets.tolist(), stamps, batch.keys, batch.values, batch, strict=True)
            came += [Record(*row, tuple(message.headers.all)) for *row, message in rows]
    assert_same(came, records, "receive_many")

    dice = random.Random(len(records))
    some = dice.choices(records, k=2_000)
    batch = topic.read(np.array([record.offset for record in some]))
    assert_same(map(of_message, batch), some, "read at offsets")

    # The first offset that is not older, by walking all; what is asked for stands at, just after and far from records.
    wanted = [record.timestamp_ms + dice.choice((0, 0, 1, -1, 86_400_000)) for record in dice.choices(records, k=300)]
    newest_until = np.maximum.accumulate(np.array([record.timestamp_ms for record in records]))
    offsets = np.array([*(record.offset for record in records), log["theirs"].bounds(0)[1]])
    expected = offsets[np.searchsorted(newest_until, np.array(wanted))]
    found = topic.find(np.array(wanted, dtype="M8[ms]"))
    assert found.tolist() == expected.tolist()


def built(records: list[Record], builder: Callable[..., Any], codec: int, dice: random.Random) -> Iterator[bytes]:
    """The records in batches of one codec, the way a producer fills them."""
    at = 0
    while at < len(records):
        idempotent = dice.random() < 0.3
        batch = builder(
            magic=2,
            compression_type=codec,
            is_transactional=False,
            producer_id=dice.randrange(1 << 40) if idempotent else -1,
            producer_epoch=dice.randrange(1 << 15) if idempotent else -1,
            base_sequence=dice.randrange(1 << 31) if idempotent else -1,
            batch_size=dice.choice((1_000, 16_384, 200_000)),
        )
        count = 0
        while at < len(records):
            record = records[at]
            if not batch.append(count, record.timestamp_ms, record.key, record.value, list(record.headers)):
                break
            at, count = at + 1, count + 1
        yield bytes(batch.build())


@pytest.mark.parametrize(
    "builder", [pytest.param(KafkaPythonBuilder, id="kafka-python"), pytest.param(AiokafkaBuilder, id="aiokafka")]
)
def test_batches_of_python_clients(program: Path, tmp_path: Path, builder: Any) -> None:
    assert "_crecords" in AiokafkaBuilder.__module__, "aiokafka's compiled builder is not there"
    records = made(77, MESSAGES)
    dice = random.Random(1)
    batches = tmp_path / "batches"
    seen: set[int] = set()
    with batches.open("wb") as file:
        for codec in range(len(CODECS)):
            share = records[codec * MESSAGES // len(CODECS) : (codec + 1) * MESSAGES // len(CODECS)]
            for batch in built(share, builder, codec, dice):
                seen.add(batch[22] & 7)
                file.write(batch)
    assert seen == set(range(len(CODECS)))
    put(program, tmp_path / "store", batches)
    with tidelog.open(tmp_path / "store") as log:
        assert_reads(log, records)


@pytest.fixture(scope="module")
def written_by_java(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    path = tmp_path_factory.mktemp("java")
    apache.java("Batches", "write", 20261, MESSAGES, path / "batches", path / "records")
    records = load(path / "records")
    assert len(records) == MESSAGES
    return path / "batches", records


@pytest.mark.java
def test_batches_of_java(program: Path, tmp_path: Path, written_by_java: tuple[Path, list[Record]]) -> None:
    batches, records = written_by_java
    put(program, tmp_path / "store", batches)
    with tidelog.open(tmp_path / "store") as log:
        assert_reads(log, records)
        assert log.engine.store.partition(*_place(log)).check(_fail_with) == 0


@pytest.mark.java
def test_batches_of_java_after_a_power_cut(
    program: Path, tmp_path: Path, written_by_java: tuple[Path, list[Record]]
) -> None:
    batches, records = written_by_java
    path = tmp_path / "store"
    put(program, path, batches, abandon=True)
    (path / "shared").unlink()  # what a new boot does not have: the log is found by scanning it
    with tidelog.open(path) as log:
        recovery = log.engine.store.recovery
        assert recovery["scanned_bytes"] > 0 and recovery["torn_bytes"] == 0 and not recovery["clean"]
        assert_reads(log, records)
        assert log.engine.store.partition(*_place(log)).check(_fail_with) == 0
        receipt = log["theirs"].send(b"after")
        assert receipt.offset > records[-1].offset
        tail = Record(receipt.offset, next(log["theirs"].scan(receipt.offset)).timestamp_ms, None, b"after", ())
    # What recovery put in to keep offsets from being used again, the rebuilt indexes: Kafka reads those as well.
    directory = path / "theirs-0"
    logs = sorted(directory.glob("*.log"))
    apache.java("Batches", "read", tmp_path / "back", *logs)
    assert_same(load(tmp_path / "back"), [*records, tail], "Java")
    output = apache.dump_log("--deep-iteration", files=logs)
    # One batch more than was put in is ours; a second one fills the offsets that the cut may have taken.
    assert output.count("isvalid: true") == _batches(batches.read_bytes()) + 2
    assert "isvalid: false" not in output and "invalid bytes" not in output
    indexes = sorted(directory.glob("*.index")) + sorted(directory.glob("*.timeindex"))
    output = apache.dump_log("--verify-index-only", files=indexes)
    assert len(indexes) >= 4 and output.count("Dumping ") == len(indexes)
    assert_no_complaint(output)


def _place(log: Any) -> tuple[int, bytes]:
    definition = log.engine.definition("theirs")
    return definition.partitions[0], bytes.fromhex(definition.id)


def _fail_with(*finding: object) -> None:
    pytest.fail(f"check: {finding}")


def _batches(data: bytes) -> int:
    count = at = 0
    while at < len(data):
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        count += 1
    return count


# --- known byte for byte; each was read and found valid by Apache Kafka 4.3.0 ---

T = 1_700_000_000_000
_THREE = (
    (T, b"k1", b"hello", ()),
    (T + 5, None, b"world", (("h", b"v"),)),
    (T - 3, b"k3", None, (("n", None),)),
)
_RECORDS = (
    "1a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b330102026e01"  # of the three, uncompressed
)
_RAW_SNAPPY = "2aa4" + _RECORDS

# Name, batch, how many offsets it takes, its records as (offset in the batch, timestamp, key, value, headers).
VECTORS: list[tuple[str, str, int, tuple[Any, ...]]] = [
    (
        "plain",
        (
            "00000000000000000000005b00000000027f20915c0000000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
            "ffff00000003" + _RECORDS
        ),
        3,
        _THREE,
    ),
    (
        "transactional",
        (
            "00000000000000000000003a0000000002e3c713880010000000000000018bcfe568000000018bcfe5680000000000000003e800020000"
            "000700000001100000000261023100"
        ),
        1,
        ((T, b"a", b"1", ()),),
    ),
    (
        "commit marker",
        (
            "000000000000000a000000420000000002faf141810030000000000000018bcfe568000000018bcfe5680000000000000003e80002ffff"
            "ffff000000012000000008000000010c00000000000000"
        ),
        1,
        (),
    ),
    (
        "abort marker",
        (
            "000000000000000a0000004200000000020ecf97c90030000000000000018bcfe568000000018bcfe5680000000000000003e80002ffff"
            "ffff000000012000000008000000000c00000000000000"
        ),
        1,
        (),
    ),
    (
        "append time",
        (
            "00000000000000640000003a00000005029b76ca500008000000000000018bcfe568000000018bcfe56863ffffffffffffffffffffffff"
            "ffff00000001100000000278027900"
        ),
        1,
        ((T + 99, b"x", b"y", ()),),
    ),
    (
        "left empty by compaction",
        (
            "00000000000001f40000003100000003025d16da6f001000000009ffffffffffffffff0000018bcfe5680000000000000003e800020000"
            "002800000000"
        ),
        10,
        (),
    ),
    (
        "gzip",
        (
            "00000000000000000000006f00000000029b24e9470001000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
            "ffff000000031f8b08000000000002039362606060c936e4ca48cdc9c9679063e06262e42acf2fca496162ca602a1363606561c9366664"
            "62ca6304007e2fecd32a000000"
        ),
        3,
        _THREE,
    ),
    (
        "snappy",
        (
            "00000000000000000000007100000000028467ac710002000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
            "ffff0000000382534e415050590000000001000000010000002c" + _RAW_SNAPPY
        ),
        3,
        _THREE,
    ),
    (
        "lz4",
        (
            "00000000000000000000006a0000000002817af5560003000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
            "ffff0000000304224d186040822a000080" + _RECORDS + "00000000"
        ),
        3,
        _THREE,
    ),
    (
        "zstd",
        (
            "0000000000000000000000640000000002dcc84c8e0004000000020000018bcfe568000000018bcfe56805ffffffffffffffffffffffff"
            "ffff0000000328b52ffd202a510100" + _RECORDS
        ),
        3,
        _THREE,
    ),
]


def with_payload(batch: bytes, payload: bytes) -> bytes:
    """A batch with another payload, its length and CRC made right by an independent CRC."""
    changed = bytearray(batch[:61] + payload)
    struct.pack_into(">i", changed, 8, len(changed) - 12)
    struct.pack_into(">I", changed, 17, google_crc32c.value(bytes(changed[21:])))
    return bytes(changed)


def test_batches_known_byte_for_byte(program: Path, tmp_path: Path) -> None:
    vectors = [(name, bytes.fromhex(text), offsets, records) for name, text, offsets, records in VECTORS]
    snappy = next(data for name, data, _, _ in vectors if name == "snappy")
    # librdkafka and Go clients write one raw block; others the version numbers of Java's frame the other way round.
    vectors.append(("raw snappy", with_payload(snappy, bytes.fromhex(_RAW_SNAPPY)), 3, _THREE))
    swapped = snappy[61:69] + bytes.fromhex("0100000001000000") + snappy[77:]
    vectors.append(("snappy, little-endian versions", with_payload(snappy, swapped), 3, _THREE))
    vectors.append(vectors[0])  # and something behind them all
    expected: list[Record] = []
    next_offset = 0
    for _, _, offsets, records in vectors:
        expected += [Record(next_offset + place, *record) for place, record in enumerate(records)]
        next_offset += offsets
    (tmp_path / "batches").write_bytes(b"".join(data for _, data, _, _ in vectors))
    put(program, tmp_path / "store", tmp_path / "batches")
    with tidelog.open(tmp_path / "store") as log:
        assert log["theirs"].bounds(0) == (0, next_offset)
        assert_reads(log, expected)


@pytest.mark.parametrize(("position", "said"), [(70, "CRC"), (16, "parse"), (22, "parse"), (11, "parse")])
def test_a_wrong_byte_is_refused(program: Path, tmp_path: Path, position: int, said: str) -> None:
    """That put_batches takes a batch means something only if it can refuse one."""
    data = bytearray.fromhex(VECTORS[0][1])
    data[position] ^= 0x07
    (tmp_path / "batches").write_bytes(data)
    with pytest.raises(AssertionError, match=said):
        put(program, tmp_path / "store", tmp_path / "batches")
