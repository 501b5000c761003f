"""Do the native primitives agree with other implementations: CRC-32C with google-crc32c, murmur2 with kafka-python?"""

from __future__ import annotations

import random

import google_crc32c
import numpy as np
from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python

from tidelog import native

ALIGNMENTS = 8
LONGEST = 4096
KEYS = 20_000


def test_crc32c_of_every_length_and_alignment() -> None:
    room = bytearray(random.Random(1).randbytes(LONGEST + ALIGNMENTS + 64))
    aligned = -np.frombuffer(room, np.uint8).ctypes.data % 64
    view = memoryview(room)
    for alignment in range(ALIGNMENTS):
        start = aligned + alignment
        for length in range(LONGEST + 1):
            ours = native.crc32c(view[start : start + length])
            assert ours == google_crc32c.value(bytes(view[start : start + length])), f"{length} bytes at {alignment}"


def test_crc32c_goes_on_where_it_stopped() -> None:
    dice = random.Random(2)
    data = dice.randbytes(3 << 20)
    whole = google_crc32c.value(data)
    for _ in range(200):
        cuts = sorted(dice.choices(range(len(data)), k=3))
        crc = 0
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            crc = native.crc32c(memoryview(data)[start:stop], crc)
        assert crc == whole, cuts


def test_murmur2_and_partition_of_random_keys() -> None:
    dice = random.Random(3)
    keys = [dice.randbytes(dice.choice((dice.randrange(64), dice.randrange(5000), 16))) for _ in range(KEYS)]
    hashes = [murmur2_of_kafka_python(key) & 0xFFFFFFFF for key in keys]
    for key, expected in zip(keys, hashes, strict=True):
        assert native.murmur2(key) & 0xFFFFFFFF == expected, key.hex()
    for partitions in (1, 2, 3, 12, 100, 9973):
        expected_all = [(value & 0x7FFFFFFF) % partitions for value in hashes]
        assert native.partition(keys, partitions).tolist() == expected_all
