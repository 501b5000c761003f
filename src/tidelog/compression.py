"""How are the records of a batch packed and unpacked, in the containers that every Kafka client reads?

Floor 3: may import errors. zlib comes with Python; lz4, cramjam (snappy) and zstd are imported at first use.
Thread rule: pure functions, callable from any thread, always outside all locks; the packages release the GIL.

Unpacking treats its input as hostile: output is produced piece by piece under an absolute cap and a cap on the ratio,
sizes that a header claims are checked before anything is allocated, and truncated data or bytes after the end are
refused. Formats: gzip RFC 1952; snappy raw blocks, or framed the way Java does ("xerial"); LZ4 frames; zstd frames.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

from tidelog.errors import DecodeError, NotSupported

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
"""Kafka's codec ids, the low three bits of a batch's attributes."""

NAMES = ("none", "gzip", "snappy", "lz4", "zstd")

MAX_BYTES = 64 << 20
"""Default cap on the bytes that one batch may unpack to."""

Data: TypeAlias = "bytes | bytearray | memoryview"

# The best ratio each format can express: an honest batch never exceeds it, a header that claims more is lying.
# gzip: 258 bytes by 2 bits; snappy: 64 bytes by 3; lz4: 255 bytes of match length by 1; zstd: a 128 KiB block by 4.
_FORMAT_RATIO = (1, 1032, 22, 255, 32_768)
_RATIO_FREE_BYTES = 1 << 16

_SLICE_BYTES = 256 << 10  # input handed over at once; bounds what a decompressor copies as unused data
_MAX_MEMBERS = 1024  # gzip members or zstd frames in one batch; writers make one
_MAX_BLOCKS = 65_536  # xerial blocks in one batch: 2 GiB of Java's 32 KiB blocks

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + b"\x00\x00\x00\x01" * 2  # version, compatible version
_XERIAL_BLOCK_BYTES = 32 << 10
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_ZSTD_WINDOW_LOG_MAX = 27  # what the highest level of any Kafka client needs; memory is touched only as output grows

_kept = threading.local()


def codec_id(name: str | None) -> int:
    """Kafka's id of a compression name: none (also "uncompressed" and None) 0, gzip 1, snappy 2, lz4 3, zstd 4.

    Raises ValueError for any other name.
    """
    if name is None or name == "uncompressed":
        return NONE
    try:
        return NAMES.index(name)
    except ValueError:
        raise ValueError(f"compression {name!r} does not exist: use one of {', '.join(NAMES)}") from None


def codec_name(codec: int) -> str:
    """The name of an id. Raises DecodeError for an id that Kafka has not given out (5 to 7)."""
    if 0 <= codec < len(NAMES):
        return NAMES[codec]
    raise DecodeError(f"compression id {codec} is not one of Kafka's (0 to 4): the batch is corrupt")


def ensure(codec: int) -> None:
    """Import what this codec needs, so that a missing package shows when a channel is opened and not at the first send.

    Raises NotSupported naming what to install, DecodeError for an unknown id.
    """
    name = codec_name(codec)
    if name not in ("none", "gzip"):
        _load(name)


@cache
def _load(name: str) -> Any:
    modules = {"snappy": ("cramjam",), "lz4": ("lz4.frame",), "zstd": ("compression.zstd", "backports.zstd")}[name]
    module: ModuleType
    for path in modules:
        try:
            module = importlib.import_module(path)
        except ImportError:
            continue
        return module.snappy if name == "snappy" else module
    install = "pip install lz4" if name == "lz4" else f"pip install 'tidelog[{name}]'"
    raise NotSupported(f"{name} compression needs a package that is not installed: {install}")


def compress(codec: int, data: Data) -> bytes:
    """`data` packed as one container of the codec (an id of Kafka's); codec 0 returns it as bytes.

    Raises NotSupported if the codec's package is missing, DecodeError for an unknown id.
    """
    if codec == NONE:
        return bytes(data)
    if codec == GZIP:
        return zlib.compress(data, wbits=31)
    if codec == SNAPPY:
        return _xerial(_load("snappy"), data)
    if codec == LZ4:
        # What Java writes, and all that it reads: independent blocks of 64 KiB (FLG 0x60, BD 0x40).
        frame = _load("lz4")
        packed: bytes = frame.compress(
            data, block_size=frame.BLOCKSIZE_MAX64KB, block_linked=False, content_checksum=False, store_size=False
        )
        return packed
    codec_name(codec)
    return _zstd(data)


def _zstd(data: Data) -> bytes:
    """One zstd frame. The compressor is kept per thread: making one costs four times what packing a batch does."""
    compressor = getattr(_kept, "zstd", None) or _load("zstd").ZstdCompressor()
    _kept.zstd = None  # a compressor that was interrupted half way through a frame is not used again
    packed: bytes = compressor.compress(data, compressor.FLUSH_FRAME)
    _kept.zstd = compressor
    return packed


def _xerial(snappy: Any, data: Data) -> bytes:
    view = memoryview(data).cast("B")
    parts: list[bytes] = [_XERIAL_HEADER]
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (len(block).to_bytes(4, "big"), block)
    return b"".join(parts)


def decompress(codec: int, data: Data, max_bytes: int = MAX_BYTES, max_ratio: int | None = None) -> bytes:
    """Unpack one batch's records.

    `max_bytes`: the most bytes to return. `max_ratio`: the most bytes per byte of `data` (outputs up to 64 KiB are
    free); by default what the format can express at best, so that no honest batch is refused.
    Raises DecodeError if a cap is passed, and for garbage, truncated data, bytes after the end or an unknown id;
    NotSupported if the codec's package is missing.
    """
    view = memoryview(data).cast("B")
    name = codec_name(codec)
    ratio = _FORMAT_RATIO[codec] if max_ratio is None else min(max_ratio, _FORMAT_RATIO[codec])
    cap = max(0, min(max_bytes, max(_RATIO_FREE_BYTES, len(view) * ratio)))
    if codec == NONE:
        if len(view) > max_bytes:
            raise _over(name, max_bytes, len(view))
        return bytes(data)
    if not view:
        raise DecodeError(f"{name}: no data at all where a compressed batch should be: it is truncated")
    if codec == GZIP:
        return _stream(name, view, cap, lambda: zlib.decompressobj(wbits=31), (zlib.error,))
    package = _load(name)
    if codec == SNAPPY:
        return _unsnappy(package, view, cap)
    if codec == LZ4:
        return _unlz4(package, view, cap)
    options = {package.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX}
    return _stream(name, view, cap, lambda: package.ZstdDecompressor(options=options), (package.ZstdError, EOFError))


def _over(name: str, cap: int, given: int) -> DecodeError:
    return DecodeError(
        f"{name}: {given} bytes of input unpack to more than the {cap} bytes allowed here: raise max_message_bytes of "
        f"the channel if the sender is trusted, otherwise refuse the sender"
    )


def _garbage(name: str, error: BaseException | str) -> DecodeError:
    return DecodeError(f"{name}: not valid compressed data ({error}): the batch is corrupt, or of another codec")


def _truncated(name: str, given: int) -> DecodeError:
    return DecodeError(f"{name}: the data ends after {given} bytes, before its end mark: the batch is truncated")


def _trailing(name: str, count: int) -> DecodeError:
    return DecodeError(f"{name}: {count} bytes follow the end of the compressed data: the batch is corrupt")


def _stream(
    name: str, view: memoryview, cap: int, new: Callable[[], Any], failures: tuple[type[BaseException], ...]
) -> bytes:
    """Unpack gzip members or zstd frames, one after the other, never holding more than `cap` + 1 bytes of output."""
    out: list[bytes] = []
    total = position = members = 0
    while position < len(view):
        members += 1
        if members > _MAX_MEMBERS:
            raise _garbage(name, f"more than {_MAX_MEMBERS} parts")
        begin = position
        decompressor = new()
        while not decompressor.eof:
            if position >= len(view):
                raise _truncated(name, len(view))
            piece = view[position : position + _SLICE_BYTES]
            position += len(piece)
            try:
                chunk: bytes = decompressor.decompress(piece, cap - total + 1)
            except failures as error:
                # What follows a whole part and is no further part is trailing junk.
                raise (_garbage(name, error) if members == 1 else _trailing(name, len(view) - begin)) from error
            total += len(chunk)
            if total > cap:
                raise _over(name, cap, len(view))
            out.append(chunk)
        position -= len(decompressor.unused_data)
    return out[0] if len(out) == 1 else b"".join(out)


def _unlz4(frame: Any, view: memoryview, cap: int) -> bytes:
    """Unpack one LZ4 frame; a second one is refused, as Java's reader knows only one."""
    if view[:4] != _LZ4_MAGIC[: len(view)]:
        raise _garbage("lz4", "it does not begin with the frame magic")
    # The package allocates `max_length` at once, so the step follows the input's size: a bomb gets small steps.
    step = max(_RATIO_FREE_BYTES, 4 * len(view))
    decompressor = frame.LZ4FrameDecompressor()
    out: list[bytes] = []
    total = 0
    piece: Data = view
    while True:
        try:
            chunk: bytes = decompressor.decompress(piece, max_length=min(step, cap - total + 1))
        except (RuntimeError, EOFError, ValueError) as error:
            raise _garbage("lz4", error) from error
        total += len(chunk)
        if total > cap:
            raise _over("lz4", cap, len(view))
        out.append(chunk)
        if decompressor.eof:
            break
        if decompressor.needs_input or (not chunk and not piece):
            raise _truncated("lz4", len(view))
        piece = b""
    if decompressor.unused_data:
        raise _trailing("lz4", len(decompressor.unused_data))
    return out[0] if len(out) == 1 else b"".join(out)


def _unsnappy(snappy: Any, view: memoryview, cap: int) -> bytes:
    """Unpack snappy: Java's framing if its magic is there (the version ints after it vary), else one raw block."""
    if view[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return _unsnappy_block(snappy, view, cap, len(view))
    if len(view) < len(_XERIAL_HEADER):
        raise _truncated("snappy", len(view))
    out: list[bytes] = []
    total, position = 0, len(_XERIAL_HEADER)
    while position < len(view):
        if len(out) >= _MAX_BLOCKS:
            raise _garbage("snappy", f"more than {_MAX_BLOCKS} blocks")
        if len(view) - position < 4:
            raise _truncated("snappy", len(view))
        length = int.from_bytes(view[position : position + 4], "big", signed=True)
        position += 4
        if length <= 0:
            raise _garbage("snappy", f"a block of {length} bytes")
        if length > len(view) - position:
            raise _truncated("snappy", len(view))
        chunk = _unsnappy_block(snappy, view[position : position + length], cap - total, len(view))
        total += len(chunk)
        position += length
        out.append(chunk)
    return out[0] if len(out) == 1 else b"".join(out)


def _unsnappy_block(snappy: Any, block: memoryview, cap: int, given: int) -> bytes:
    """One raw block. Its header claims the size, which is checked before the package allocates it."""
    claimed = 0
    for place, byte in enumerate(block[:5]):
        claimed |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    else:
        if len(block) < 5:
            raise _truncated("snappy", given)
        raise _garbage("snappy", "its length is no varint")
    if claimed > len(block) * _FORMAT_RATIO[SNAPPY]:
        raise _garbage("snappy", f"{len(block)} bytes claim to unpack to {claimed}")
    if claimed > cap:
        raise _over("snappy", cap, given)
    try:
        chunk = bytes(snappy.decompress_raw(block))
    except Exception as error:  # cramjam.DecompressionError, whose module is not at hand here
        raise _garbage("snappy", error) from error
    if len(chunk) != claimed:
        raise _garbage("snappy", f"{claimed} bytes were claimed, {len(chunk)} came")
    return chunk
