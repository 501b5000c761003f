"""Which of the native primitives are there for everybody?

Floor 2: re-exports compiled functions and nothing else, so that a call costs what the function costs. Thread rule: pure
functions, callable from any thread; they release the GIL for large inputs.

    crc32c(data, crc=0) -> int
        CRC-32C (Castagnoli) of bytes-like `data`; `crc` is the sum of what came before it.
    murmur2(key) -> int
        Kafka's hash of a key (bytes-like), as an unsigned 32-bit number.
    partition(keys, partitions) -> int32 array
        The partition of each key by Kafka's rule: `(murmur2(key) & 0x7fffffff) % partitions`. `keys`: a sequence of
        bytes or str, or an array of `S`, `U` or integers.
    lookup(index, offsets, base_offset=0) -> int64 array
        For each offset the position in bytes that a Kafka offset index (bytes-like, entries of 8 bytes, relative to
        `base_offset`) gives for the last entry at or below it; 0 where there is none.
"""

from __future__ import annotations

from tidelog._native import crc32c, lookup, murmur2, partition

__all__ = ["crc32c", "lookup", "murmur2", "partition"]
