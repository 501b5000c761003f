"""Where does the directory of a `memory:` store stand, and who removes it?

Floor 4: may import errors. Thread rule: callable from any thread.

A store in memory is an ordinary store in a private directory of a tmpfs with room, or of the temporary directory if
there is none. It is removed at close or at the end of the process, never by a forked child. A process that was killed
leaves its directory behind: the next one that opens `memory:` sees that nobody holds the lock on it (a kernel lock, so
neither process ids nor ages are guessed about) and removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from contextlib import suppress

from tidelog.errors import from_oserror

SHARED_MEMORY = "/dev/shm"
ROOM_BYTES = 64 << 20
"""Free space that makes a tmpfs worth using."""

_PREFIX = "tidelog-memory-"


class MemoryDirectory:
    """A private directory that lives as long as this object, at most until the process ends.

    Attributes: `path: str`. Raises NoSpace or StorageFailed if no directory can be made.
    """

    def __init__(self) -> None:
        try:
            self.path, held = _make(_parent())
        except OSError as error:
            raise from_oserror(error, "no directory can be made for a store in memory") from error
        self._finalizer = weakref.finalize(self, _remove, self.path, held, os.getpid())

    def remove(self) -> None:
        """Remove the directory with everything in it; idempotent, and without effect in a forked child."""
        self._finalizer()


def _parent() -> str:
    """A tmpfs with room, else the temporary directory."""
    with suppress(OSError):
        free = os.statvfs(SHARED_MEMORY)
        if free.f_bavail * free.f_frsize >= ROOM_BYTES and os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
            return SHARED_MEMORY
    return tempfile.gettempdir()


def _make(parent: str) -> tuple[str, int]:
    """(path, descriptor that holds the lock on it)."""
    _sweep(parent)
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        held = _lock(path)
        if held is not None:
            return path, held
        # A sweeper took the directory for a dead one's between the two steps, and removes it.


def _lock(path: str) -> int | None:
    """A descriptor that holds the exclusive lock on the directory at `path`; None if somebody else does, or it is
    gone."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(held).st_nlink > 0 and os.path.samestat(os.fstat(held), os.stat(path, follow_symlinks=False)):
            return held
    except OSError:
        pass
    os.close(held)
    return None


def _sweep(parent: str) -> None:
    """Remove what killed processes of this user left."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX):
                continue
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                    continue
                held = _lock(entry.path)
                if held is not None:
                    _remove(entry.path, held, os.getpid())


def _remove(path: str, held: int, owner: int) -> None:
    if os.getpid() != owner:  # a forked child: the directory, and the lock, are its parent's
        return
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        os.close(held)
