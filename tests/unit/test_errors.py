"""Does every error class mean what generic code expects, and does every native status become a helpful exception?"""

from __future__ import annotations

import copy
import errno
import pickle
import queue

import pytest

from tidelog import errors

TREE = {
    "Timeout": (TimeoutError, True),
    "Closed": (errors.Error, False),
    "Full": (queue.Full, True),
    "ChannelNotFound": (LookupError, False),
    "SchemaMismatch": (TypeError, False),
    "DecodeError": (ValueError, False),
    "TooLarge": (ValueError, False),
    "OffsetOutOfRange": (LookupError, False),
    "ReplyError": (errors.Error, False),
    "Corrupt": (errors.Error, False),
    "Fenced": (errors.Error, False),
    "NoSpace": (OSError, True),
    "StorageFailed": (OSError, False),
    "NotSupported": (NotImplementedError, False),
    "Forked": (errors.Error, False),
    "Locked": (errors.Error, True),
}


def native(code: int, path: str = "shop.log/orders-0/1.log", sys_errno: int = 0, detail: str = "") -> errors.Error:
    return errors.from_native(code, "the append failed", path, 4096, sys_errno, detail)


def test_the_public_names_are_exactly_the_tree() -> None:
    assert set(errors.__all__) == {"Error", *TREE}


@pytest.mark.parametrize("name", TREE)
def test_class_bases_text_and_copies(name: str) -> None:
    builtin, retriable = TREE[name]
    cls = getattr(errors, name)
    error = cls("it's gone: do this next")
    assert isinstance(error, errors.Error)
    assert isinstance(error, builtin)
    assert cls.retriable is error.retriable is retriable
    assert str(error) == "it's gone: do this next"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is cls
        assert str(twin) == str(error)
    assert str(cls()) == ""


@pytest.mark.parametrize("cls", [errors.NoSpace, errors.StorageFailed, errors.Timeout])
def test_os_errors_keep_errno_and_file_name(cls: type[errors.NoSpace]) -> None:
    error = cls("disk full", errno=errno.ENOSPC, filename="a/b")
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.errno, twin.filename, str(twin)) == (errno.ENOSPC, "a/b", "disk full")


def test_attributes_survive_pickling() -> None:
    corrupt = pickle.loads(pickle.dumps(errors.Corrupt("bad", file="f", position=7, command="c")))
    assert (corrupt.file, corrupt.position, corrupt.command) == ("f", 7, "c")
    assert pickle.loads(pickle.dumps(errors.Locked("busy", holder="process 7"))).holder == "process 7"


@pytest.mark.parametrize(
    ("code", "cls", "builtin", "advice"),
    [
        (-1, errors.InvalidArgument, ValueError, "the append failed"),
        (-2, errors.OutOfMemory, MemoryError, "smaller batches"),
        (-3, errors.StorageFailed, OSError, "dmesg"),
        (-4, errors.NoSpace, OSError, "free space, then send again: nothing was lost"),
        (-5, errors.Corrupt, errors.Error, "run: tidelog check shop.log --repair"),
        (-6, errors.OffsetOutOfRange, LookupError, "log start"),
        (-7, errors.TooLarge, ValueError, "max_message_bytes"),
        (-8, errors.Locked, errors.Error, "try again"),
        (-9, errors.Timeout, TimeoutError, "call again"),
        (-10, errors.Locked, errors.Error, "another process holds it"),
        (-11, errors.Closed, errors.Error, ": open the log again with tidelog.open"),
        (-12, errors.Forked, errors.Error, "in the child"),
        (-13, errors.StorageFailed, OSError, "tidelog check shop.log --repair"),
        (-14, errors.Fenced, errors.Error, "stop this one"),
        (-15, errors.ChannelNotFound, LookupError, "tidelog ls"),
        (-16, errors.InvalidArgument, ValueError, "another name"),
        (-17, errors.NotSupported, NotImplementedError, "tidelog doctor"),
        (-18, errors.ChannelNotFound, LookupError, "dropped"),
        (-19, errors.Full, queue.Full, "close what is not in use"),
        (-20, errors.Corrupt, errors.Error, "tidelog check shop.log --repair"),
    ],
)
def test_every_native_status(code: int, cls: type[errors.Error], builtin: type[Exception], advice: str) -> None:
    error = native(code)
    assert type(error) is cls
    assert isinstance(error, builtin)
    assert str(error).startswith("the append failed")
    assert advice in str(error)


@pytest.mark.parametrize("code", [-21, 0, 5, -(2**31)])
def test_an_unknown_status_is_still_an_error(code: int) -> None:
    error = native(code)
    assert type(error) is errors.Error
    assert str(code) in str(error)


def test_the_parts_of_the_text() -> None:
    assert "the append failed: 3 of 4: " in str(native(-3, sys_errno=errno.EIO, detail="3 of 4"))
    assert "(shop.log/orders-0/1.log at byte 4096)" in str(native(-3))
    assert str(errors.from_native(-11, "", "", -1, 0, "")).startswith("the native core failed: ")
    assert "byte" not in str(errors.from_native(-3, "x", "p", -1, 0, ""))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "read and write access"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOENT, "check the path"),
        (errno.EIO, "dmesg"),
    ],
)
def test_failed_system_calls_say_what_to_do(number: int, advice: str) -> None:
    error = native(-3, sys_errno=number)
    assert isinstance(error, errors.StorageFailed)
    assert error.errno == number
    assert error.filename == "shop.log/orders-0/1.log"
    assert advice in str(error)


def test_locked_carries_its_holder() -> None:
    error = native(-10, detail="process 4711 (slot 3)")
    assert isinstance(error, errors.Locked)
    assert error.holder == "process 4711 (slot 3)"
    assert "it is held by process 4711 (slot 3): wait for it or end it" in str(error)


@pytest.mark.parametrize(
    ("path", "store"),
    [
        ("shop.log/orders-0/00000000000000000000.log", "shop.log"),
        ("/var/shop.log/orders-0/1.index", "/var/shop.log"),
        ("shop.log/orders-0", "shop.log"),
        ("/var/shop.log/checkpoint.a", "/var/shop.log"),
        ("shop.log/channels/orders.json", "shop.log"),
        ("shop.log/channels", "shop.log"),
        ("/var/my shop/orders-0/1.log", "'/var/my shop'"),
        ("offsets", "."),
        ("orders-0/1.log", "."),
        ("", "STORE"),
    ],
)
def test_corrupt_names_the_command_for_its_store(path: str, store: str) -> None:
    error = native(-5, path=path)
    assert isinstance(error, errors.Corrupt)
    assert (error.file, error.position) == (path, 4096)
    assert error.command == f"tidelog check {store} --repair"
    assert str(error).endswith(f"run: {error.command}")


def test_from_oserror() -> None:
    full = errors.from_oserror(OSError(errno.EDQUOT, "quota", "a/b"), "cannot write")
    assert isinstance(full, errors.NoSpace)
    assert (full.errno, full.filename) == (errno.EDQUOT, "a/b")
    assert isinstance(errors.from_oserror(OSError("odd"), "cannot write"), errors.StorageFailed)
    assert "a/b" in str(errors.from_oserror(OSError(errno.EIO, "x", b"a/b"), "cannot write"))


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ("", "the log was closed (shop.log): open the log again with tidelog.open"),
        ("make a new one", "the log was closed (shop.log): make a new one"),
    ],
)
def test_what_is_closed_says_what_to_do(detail: str, text: str) -> None:
    assert str(errors.from_native(-11, "the log was closed", "shop.log", -1, 0, detail)) == text
