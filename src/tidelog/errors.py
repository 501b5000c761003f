"""Which error is raised for what, and what should the reader of the message do next?

Imports nothing of tidelog, so that every floor (the compiled extension too) can raise from here.
Thread rule: exceptions are plain values and `from_native` is a pure function; all may be used from any thread.

Every class carries `retriable`: True means that the very same call may succeed later without a change to the program.
Each child also derives from the builtin that generic code catches (`TimeoutError`, `LookupError`, `OSError`, ...).
"""

from __future__ import annotations

import errno as _errno
import os
import queue
from typing import Any, ClassVar

__all__ = [
    "ChannelNotFound",
    "Closed",
    "Corrupt",
    "DecodeError",
    "Error",
    "Fenced",
    "Forked",
    "Full",
    "Locked",
    "NoSpace",
    "NotSupported",
    "OffsetOutOfRange",
    "ReplyError",
    "SchemaMismatch",
    "StorageFailed",
    "Timeout",
    "TooLarge",
]


class Error(Exception):
    """Base of everything tidelog raises on purpose. `retriable` is True where the same call may succeed later."""

    retriable: ClassVar[bool] = False


class _OSErrorText(Error):
    """Keeps the message as the text of classes that are also OSError (which would print "[Errno 28] ..." instead).

    `errno: int | None` and `filename: str | None` keep the meaning they have in OSError.
    """

    errno: int | None
    filename: str | None

    def __init__(self, message: str = "", *, errno: int | None = None, filename: str | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        self.filename = filename

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError keeps both values outside __dict__, where pickle would not see them.
        return type(self), self.args, {**self.__dict__, "errno": self.errno, "filename": self.filename}


class Timeout(_OSErrorText, TimeoutError):
    """The time given to a call has passed. Nothing was lost; call again or give more time."""

    retriable = True


class Closed(Error):
    """The log, producer or consumer was closed, here or by another thread. Open it again."""


class Full(Error, queue.Full):
    """A bounded buffer or a fixed table has no room left now."""

    retriable = True


class ChannelNotFound(Error, LookupError):
    """No channel (or group) of this name exists, or it was dropped."""


class SchemaMismatch(Error, TypeError):
    """A channel exists with another kind, codec, dtype or partition count, or a value is not of the channel's type."""


class DecodeError(Error, ValueError):
    """Stored or received bytes are not a value of the channel's type, or not valid compressed data."""


class TooLarge(Error, ValueError):
    """A message or batch is larger than its limit."""


class OffsetOutOfRange(Error, LookupError):
    """The offset asked for is below the log start (removed by retention) or past the log end."""


class Corrupt(Error):
    """Bytes on disk or in shared memory are wrong.

    Attributes: `file: str` the file concerned, `position: int` the byte position in it (-1: not known),
    `command: str` what to run next ("": there is no such command).
    """

    def __init__(self, message: str = "", *, file: str = "", position: int = -1, command: str = "") -> None:
        super().__init__(message)
        self.file = file
        self.position = position
        self.command = command


class Fenced(Error):
    """Another one has taken over: a newer producer or consumer of this name, or whoever has the partition now.

    The message says whether to stop, or to go on with what is received next.
    """


class NoSpace(_OSErrorText, OSError):
    """The file system (or a quota) is full. Free space, then send again: nothing was lost."""

    retriable = True


class StorageFailed(_OSErrorText, OSError):
    """A system call on the store failed, or a sync failed earlier and the partition refuses work until it is healed."""


class NotSupported(Error, NotImplementedError):
    """This engine, platform, file system or installation cannot do it."""


class Forked(Error):
    """A handle opened before fork() was used in the child. Call `tidelog.open` in the child."""


class Locked(Error):
    """A lock could not be taken in time. `holder: str` says who holds it ("": not known)."""

    retriable = True

    def __init__(self, message: str = "", *, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class ReplyError(Error):
    """A question was answered by saying what went wrong. Raised by the `value` of such an answer.

    Attributes: `kind: str` the name of the error's type ("OutOfStock"), `text: str` what it says, `value` what was sent
    along, of the type of the channel's answers (None: nothing).
    """

    def __init__(self, message: str = "", *, kind: str = "", text: str = "", value: Any = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.text = text
        self.value = value


class InvalidArgument(Error, ValueError):
    """The native core refused an argument. Not exported: callers catch ValueError."""


class OutOfOrder(Error, ValueError):
    """A producer's batch does not follow its last one. Not exported: who sends with sequences of their own catch
    ValueError; no other producer sees it."""


class TransactionState(Error, RuntimeError):
    """What was asked does not fit the state of a transaction. Not exported: callers catch RuntimeError."""


class OutOfMemory(Error, MemoryError):
    """The native core could not get memory. Not exported: callers catch MemoryError."""

    retriable = True


# What a human can do about a failed system call, by errno; the rest is answered by _HINT_OTHER.
_HINTS = {
    _errno.EACCES: "give this user read and write access to the store, then try again",
    _errno.EPERM: "give this user read and write access to the store, then try again",
    _errno.EROFS: "the file system is read-only: remount it for writing, then try again",
    _errno.ENOENT: "check the path, and that nobody moved or deleted the store while it was open",
    _errno.ENOTDIR: "check the path: a part of it is not a directory",
    _errno.ELOOP: "the path is a symbolic link where tidelog wants the real thing: give the real path",
    _errno.EMFILE: "raise the limit of open files (`ulimit -n`), or open fewer stores, then try again",
    _errno.ENFILE: "the host is out of open files: raise fs.file-max, then try again",
    _errno.EFBIG: "raise the file size limit (`ulimit -f`), then try again",
}
_HINT_OTHER = "look at the kernel log (`dmesg`) for disk errors, then close the store in every process and reopen it"

# Files and folders that stand in the store itself; every other file stands one folder deeper.
_STORE_ENTRIES = ("tidelog.json", "store.lock", "shared", "checkpoint.a", "checkpoint.b", "offsets")
_STORE_FOLDERS = ("channels", "groups", "transactions")


def _store_of(path: str) -> str:
    """The store directory a file of a store belongs to, by its name alone."""
    folder, name = os.path.split(path.rstrip("/"))
    tail = name.rpartition("-")[2]
    if name in _STORE_ENTRIES or name in _STORE_FOLDERS or ("." not in name and tail.isdigit() and tail != name):
        return folder or "."
    return os.path.dirname(folder) or "." if folder else "."


def _repair_command(path: str) -> str:
    import shlex  # only on the way to an error message

    return f"tidelog check {shlex.quote(_store_of(path)) if path else 'STORE'} --repair"


def _sentence(what: str, path: str, position: int, sys_errno: int, detail: str) -> str:
    """ "what: detail: strerror (path at byte n)" with the parts that are there."""
    parts = [part for part in (what, detail, os.strerror(sys_errno) if sys_errno else "") if part]
    where = f" ({path}{f' at byte {position}' if position >= 0 else ''})" if path else ""
    return ": ".join(parts or ["the native core failed"]) + where


def corrupt(what: str, path: str, position: int = -1, detail: str = "") -> Corrupt:
    """A `Corrupt` for the file `path` at byte `position` (-1: not known), with the command that repairs its store."""
    command = _repair_command(path)
    return Corrupt(
        f"{_sentence(what, path, position, 0, detail)}; run: {command}", file=path, position=position, command=command
    )


def from_oserror(error: OSError, what: str) -> Error:
    """`NoSpace` or `StorageFailed` for a failed system call; `what` says what was being done ("cannot write ...")."""
    code = -4 if error.errno in (_errno.ENOSPC, _errno.EDQUOT) else -3
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return from_native(code, what, path, -1, error.errno or 0, "")


def from_native(code: int, what: str, path: str, position: int, sys_errno: int, detail: str) -> Error:
    """Turn a status of the native core into the exception to raise. The only table that does.

    `code`: a negative value of `enum tl_status` (native/include/tidelog/base.h); `what`: what was wrong; `path`: the
    file it concerns or ""; `position`: byte position in it or -1; `sys_errno`: errno or 0; `detail`: numbers that
    belong to `what`, for a lock its holder, for a fence or a close what to do next, or "". Never raises; an unknown
    code becomes a plain `Error`.
    """
    text = _sentence(what, path, position, sys_errno, detail)
    name = path or None
    match code:
        case -1:
            return InvalidArgument(text)
        case -2:
            return OutOfMemory(f"{text}; free memory or use smaller batches, then try again")
        case -3:
            hint = _HINTS.get(sys_errno, _HINT_OTHER)
            return StorageFailed(f"{text}; {hint}", errno=sys_errno or _errno.EIO, filename=name)
        case -4:
            return NoSpace(
                f"{text}; free space, then send again: nothing was lost",
                errno=sys_errno or _errno.ENOSPC,
                filename=name,
            )
        case -5:
            return corrupt(what, path, position, detail)
        case -6:
            return OffsetOutOfRange(f"{text}; read from the log start, or seek to an offset between log start and end")
        case -7:
            return TooLarge(f"{text}; send a smaller message, or raise max_message_bytes of the channel")
        case -8:
            return Locked(f"{text}; the lock is taken at the moment: try again")
        case -9:
            return Timeout(f"{text}; nothing was lost: call again or give more time", errno=_errno.ETIMEDOUT)
        case -10:
            holder = f"it is held by {detail}" if detail else "another process holds it"
            text = _sentence(what, path, position, sys_errno, "")
            return Locked(f"{text}; {holder}: wait for it or end it, then try again", holder=detail)
        case -11:
            text = _sentence(what, path, position, sys_errno, "")
            return Closed(f"{text}: {detail or 'open the log again with tidelog.open'}")
        case -12:
            return Forked(f"{text}; handles do not survive fork(): call tidelog.open in the child")
        case -13:
            return StorageFailed(
                f"{text}; an earlier sync to disk failed and the partition takes no more messages. Mend the disk, "
                f"close the store in every process, then run: {_repair_command(path)}",
                errno=sys_errno or _errno.EIO,
                filename=name,
            )
        case -14:
            text = _sentence(what, path, position, sys_errno, "")
            return Fenced(f"{text}; {detail or 'another one has taken over: stop this one, or open a new one'}")
        case -15:
            return ChannelNotFound(f"{text}; list what exists with `list(log)` or `tidelog ls`")
        case -16:
            return InvalidArgument(f"{text}; it exists already: open it, or choose another name")
        case -17:
            return NotSupported(f"{text}; see `log.can` for this engine and `tidelog doctor` for this host")
        case -18:
            return ChannelNotFound(f"{text}; the channel was dropped: create it again or close this handle")
        case -19:
            return Full(f"{text}; a fixed table is full: close what is not in use (processes, groups), then try again")
        case -20:
            command = _repair_command(path)
            return Corrupt(
                f"{text}; a mapped file is shorter than it was or the disk cannot read it: look at the kernel log "
                f"(`dmesg`), then run: {command}",
                file=path,
                position=position,
                command=command,
            )
        case -22:
            return OutOfOrder(
                f"{text}; what lies between was never sent, or is already in the log: open a new producer of this name "
                f"and go on behind its last message"
            )
        case -23:
            return TransactionState(f"{text}; commit or abort the transaction first")
    return Error(f"{text}; status {code} is unknown to this version: is the extension older or newer than the package?")
