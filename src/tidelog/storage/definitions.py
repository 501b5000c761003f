"""What is a channel, and how does its definition stand on disk so that all processes agree on it?

Floor 4: may import errors, names, codec. Calls the operating system through `os`: definitions are cold.
Thread rule: functions without state, callable from any thread and any process at once. Creating is atomic: of several
processes that create one name exactly one wins, the others get FileExistsError and read what the winner wrote.

A definition is `<store>/channels/<name>.json`; the directory given to these functions is `<store>/channels`. Files are
written whole under a temporary name, synced, then linked or renamed, then the directory is synced: a reader or a power
cut sees the old text or the new one, never half of one. What is read is hostile: every field is checked.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from tidelog import codec as _codec
from tidelog import names as _names
from tidelog.errors import ChannelNotFound, Corrupt, NotSupported, SchemaMismatch, corrupt, from_oserror

FORMAT = 1
"""Raised by every change of the fields below; a newer one is refused, so that nothing unknown is ever rewritten."""

MAX_FILE_BYTES = 4 << 20
"""A definition is at most this long (it holds a JSON Schema)."""

StrPath: TypeAlias = "str | os.PathLike[str]"

_SUFFIX = ".json"
_TEMPORARY = ".tmp-"
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_LIMIT = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]


class Reply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a queue's answers are (publish / async response)."""

    type: str
    codec: Literal["raw", "utf-8", "json", "msgpack", "dtype"] = "raw"
    dtype: list[Any] | None = None
    schema: dict[str, Any] | None = None


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One channel. Times are milliseconds, sizes bytes; -1 is "no limit"."""

    format: int = FORMAT
    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    """Random, in hex; Kafka's topic id. A channel that is dropped and created again has a new one."""
    local_id: _U32
    """Short id for tables in shared memory."""
    name: str
    kind: Literal["queue", "topic"]
    carries: Literal["document", "command", "event"]
    type: str = "bytes"
    """For descriptions only."""
    codec: Literal["raw", "utf-8", "json", "msgpack", "dtype"] = "raw"
    dtype: list[Any] | None = None
    """Layout of fixed-width rows (`codec.dtype_descr`)."""
    schema: dict[str, Any] | None = None
    """JSON Schema of the values, for descriptions; never compared."""
    reply: Reply | None = None
    retention_ms: _LIMIT = -1
    retention_bytes: _LIMIT = -1
    retention_consumed: bool = False
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1, le=256 << 20)] = 16 << 20
    segment_bytes: Annotated[int, msgspec.Meta(ge=1 << 12, le=(1 << 31) - 1)] = 1 << 30
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    dedup_count: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 100_000
    """Among how many ids of a partition a repeated one is a duplicate; 0: never."""
    dedup_window_ms: Annotated[int, msgspec.Meta(ge=1, le=30 * 24 * 3600 * 1000)] = 600_000
    """How old that id may be."""
    partitions: Annotated[list[_U32], msgspec.Meta(min_length=1, max_length=_names.MAX_PARTITIONS)]
    """Slot of each partition in the shared map, by partition number."""
    created_ms: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an opener of an existing channel asks for; `partitions` None: as many as there are."""

    kind: Literal["queue", "topic"]
    codec: str
    dtype: list[Any] | None = None
    partitions: int | None = None
    reply: Reply | None = None


class _Header(msgspec.Struct):
    format: int


_decode_header = msgspec.json.Decoder(_Header).decode
_decode = msgspec.json.Decoder(Definition).decode


def reply_of(codec: _codec.Codec | None) -> Reply | None:
    """How a definition says that answers are written by `codec`."""
    if codec is None:
        return None
    name: Any = codec.name
    return Reply(type=codec.type_name, codec=name, dtype=codec.descr, schema=codec.schema())


def new_id() -> str:
    """A random channel id in hex. Its Kafka form never begins with '-', which command lines take for an option."""
    import uuid  # loads the platform module, which opening a log does not need

    while True:
        fresh = uuid.uuid4().hex
        if not topic_id_base64(fresh).startswith("-"):
            return fresh


def topic_id_base64(channel_id: str) -> str:
    """Kafka's 22 character form of a channel id (32 hex digits). Raises ValueError for other text."""
    raw = bytes.fromhex(channel_id) if len(channel_id) == 32 else b""
    if len(raw) != 16:
        raise ValueError(f"{channel_id!r} is no channel id: it has 32 hex digits")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def write_new(directory: StrPath, definition: Definition) -> None:
    """Create `<directory>/<name>.json`, all or nothing, and durable when this returns. Makes the directory if missing.

    Raises FileExistsError if the name is taken (read it, then `compare`), ValueError for a definition or name that is
    not allowed, NoSpace or StorageFailed for the disk.
    """
    data, final = _encode(definition), _file_name(definition.name)
    _make(directory)
    try:
        with _opened(directory) as folder, _temporary(folder, data) as temporary:
            # A link, not a rename: it fails if the name exists.
            os.link(temporary, final, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.fsync(folder)
    except FileExistsError:
        path = os.path.join(directory, final)
        raise FileExistsError(errno.EEXIST, f"the channel {definition.name!r} exists already", path) from None


def replace(directory: StrPath, definition: Definition) -> None:
    """Write `<directory>/<name>.json` anew, all or nothing, and durable when this returns.

    The caller holds the catalogue lock. Raises ChannelNotFound if there is no such channel, otherwise like `write_new`.
    """
    data, final = _encode(definition), _file_name(definition.name)
    try:
        with _opened(directory) as folder:
            os.stat(final, dir_fd=folder, follow_symlinks=False)
            with _temporary(folder, data) as temporary:
                os.rename(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
    except FileNotFoundError:
        raise _not_found(definition.name) from None


def read(directory: StrPath, name: str) -> Definition:
    """The definition of `name`.

    Raises ChannelNotFound if there is none, Corrupt (with the file) if its bytes are wrong, NotSupported if a newer
    tidelog wrote it, ValueError for a name that is not allowed, StorageFailed for the disk.
    """
    file_name = _file_name(name)
    path = os.path.join(directory, file_name)
    try:
        with _opened(directory) as folder:
            return _parse(_read_file(folder, file_name, path), name, path)
    except FileNotFoundError:
        raise _not_found(name) from None


def names(directory: StrPath) -> list[str]:
    """The names of all channels, sorted; files that are no definitions are passed over. No directory: no channels.

    Raises StorageFailed for the disk.
    """
    try:
        with _opened(directory) as folder:
            entries = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (entry[: -len(_SUFFIX)] for entry in entries if entry.endswith(_SUFFIX))
    return sorted(name for name in found if _is_name(name))


def remove(directory: StrPath, name: str) -> None:
    """Take the definition away; durable when this returns. This is the commit point of dropping a channel.

    Raises ChannelNotFound if there is none, ValueError for a name that is not allowed, StorageFailed for the disk.
    """
    file_name = _file_name(name)
    try:
        with _opened(directory) as folder:
            os.unlink(file_name, dir_fd=folder)
            os.fsync(folder)
    except FileNotFoundError:
        raise _not_found(name) from None


def sweep(directory: StrPath) -> int:
    """Remove temporary files that killed processes left, and return how many. Only with the gate held exclusively."""
    try:
        with _opened(directory) as folder:
            stray = [entry for entry in os.listdir(folder) if entry.startswith(_TEMPORARY)]
            stray = [entry for entry in stray if not entry.endswith(_SUFFIX)]
            for entry in stray:
                os.unlink(entry, dir_fd=folder)
            return len(stray)
    except FileNotFoundError:
        return 0


def compare(existing: Definition, wanted: Wanted) -> None:
    """Raise SchemaMismatch naming every difference in kind, codec, dtype and, if given, the number of partitions and
    how answers are written.

    The payload's schema is never compared: it may grow.
    """
    differences = []
    if existing.kind != wanted.kind:
        differences.append(f"it is a {existing.kind}, not a {wanted.kind}")
    if existing.codec != wanted.codec:
        differences.append(f"its codec is {existing.codec!r} ({existing.type}), not {wanted.codec!r}")
    elif existing.dtype != wanted.dtype:
        differences.append(f"its dtype is {existing.dtype}, not {wanted.dtype}")
    if wanted.partitions is not None and len(existing.partitions) != wanted.partitions:
        differences.append(f"it has {len(existing.partitions)} partitions, not {wanted.partitions}")
    if wanted.reply is not None and existing.reply is not None:
        ours, theirs = wanted.reply, existing.reply
        if (ours.codec, ours.dtype) != (theirs.codec, theirs.dtype):
            differences.append(f"its answers are {theirs.codec!r} ({theirs.type}), not {ours.codec!r} ({ours.type})")
    if differences:
        raise SchemaMismatch(
            f"the channel {existing.name!r} exists, but {'; '.join(differences)}: open it as it is "
            f"(log[{existing.name!r}]), or choose another name"
        )


# --- bytes to definition ---


def _encode(definition: Definition) -> bytes:
    """The text of a definition, read back before it is written: a mistake of ours must not reach the disk."""
    data = msgspec.json.format(msgspec.json.encode(definition), indent=1) + b"\n"
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the definition of {definition.name!r} has {len(data)} bytes; at most {MAX_FILE_BYTES}")
    try:
        _parse(data, definition.name, "")
    except Corrupt as error:
        raise ValueError(f"the definition of {definition.name!r} is wrong: {error}") from error
    return data


def _parse(data: bytes, name: str, path: str) -> Definition:
    try:
        written = _decode_header(data).format
        if written > FORMAT:
            raise NotSupported(
                f"the channel {name!r} was written by a newer tidelog (format {written}, this one knows {FORMAT}): "
                f"upgrade tidelog, then open it again ({path})"
            )
        if written < 1:
            raise ValueError(f"format {written} does not exist")
        definition = _decode(data)
        if definition.name != name:
            raise ValueError(f"it is the definition of {definition.name!r:.300}")
        if len(set(definition.partitions)) != len(definition.partitions):
            raise ValueError("two partitions share a slot")
        for layout in (definition, definition.reply):
            if layout is not None:
                _check_layout(layout.codec, layout.dtype)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"the definition of the channel {name!r} is damaged", path, detail=str(error)) from error
    return definition


def _check_layout(codec: str, dtype: list[Any] | None) -> None:
    if (codec == "dtype") != (dtype is not None):
        raise ValueError(f"the codec {codec!r} {'needs' if codec == 'dtype' else 'has no'} dtype")
    if dtype is not None:
        _codec.check_descr(dtype)


# --- files ---


def _is_name(name: str) -> bool:
    try:
        _names.check_channel(name, internal=True)
    except ValueError:
        return False
    return True


def _file_name(name: str) -> str:
    return _names.check_channel(name, internal=True) + _SUFFIX


def _not_found(name: str) -> ChannelNotFound:
    return ChannelNotFound(f"there is no channel {name!r}: create it with log.queue or log.topic, or see `list(log)`")


@contextmanager
def _opened(directory: StrPath) -> Iterator[int]:
    """A descriptor of the directory: whatever happens to its path, all steps concern the same one.

    FileNotFoundError and FileExistsError pass through, other OSErrors become NoSpace or StorageFailed.
    """
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else ""
        error.filename = os.path.join(directory, name) if name else os.fspath(directory)
        raise from_oserror(error, "the channel definitions cannot be used") from error


def _make(directory: StrPath) -> None:
    """Make the directory if it is missing, durably."""
    try:
        os.mkdir(directory, 0o700)
        parent = os.open(os.path.dirname(os.path.abspath(directory)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise from_oserror(error, "the directory of channel definitions cannot be made") from error


@contextmanager
def _temporary(folder: int, data: bytes) -> Iterator[str]:
    """The name of a synced file with these bytes, removed at the end unless it was renamed."""
    # The channel's name is no part of it: both together could be too long for a file name.
    name = f"{_TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        yield name
    finally:
        with suppress(OSError):  # renamed, or left to `sweep`
            os.unlink(name, dir_fd=folder)


def _read_file(folder: int, name: str, path: str) -> bytes:
    # Not blocking: a FIFO planted under this name must not hang the opener.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise corrupt("a channel definition is no regular file", path)
        data = bytearray()
        while chunk := os.read(file, MAX_FILE_BYTES + 1 - len(data)):
            data += chunk
            if len(data) > MAX_FILE_BYTES:
                raise corrupt(f"a channel definition is longer than {MAX_FILE_BYTES} bytes", path)
        return bytes(data)
    finally:
        os.close(file)
