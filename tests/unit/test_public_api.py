"""Is exported what is meant to be, is all of it documented, and does importing it stay cheap?"""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import tidelog

EXPORTED = {
    *("open", "Log", "Channel", "Queue", "Topic", "Producer", "Consumer", "Message", "Batch", "Receipt", "Position"),
    *("App", "Replies", "ReplyError"),
    *("aio", "native", "testing"),
    *("Error", "Timeout", "Closed", "Full", "ChannelNotFound", "SchemaMismatch", "DecodeError", "TooLarge"),
    *("OffsetOutOfRange", "Corrupt", "Fenced", "NoSpace", "StorageFailed", "NotSupported", "Forked", "Locked"),
}


def test_exactly_this_is_exported() -> None:
    assert set(tidelog.__all__) == EXPORTED
    assert set(dir(tidelog)) == EXPORTED
    assert list(tidelog.__all__) == sorted(tidelog.__all__)
    for name in EXPORTED:
        assert getattr(tidelog, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        tidelog.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", sorted(EXPORTED - {"aio", "native", "testing"}))
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(tidelog, name)
    assert inspect.getdoc(thing)
    if not inspect.isclass(thing):
        return
    for member, value in inspect.getmembers(thing):
        inherited_from_python = not any(
            member in vars(base) and base.__module__.startswith("tidelog") for base in thing.__mro__
        )
        if member.startswith("_") or inherited_from_python or not (callable(value) or isinstance(value, property)):
            continue
        assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("name", ["crc32c", "murmur2", "partition", "lookup"])
def test_primitives(name: str) -> None:
    assert name in tidelog.native.__all__
    assert inspect.getdoc(getattr(tidelog.native, name))
    assert name in (tidelog.native.__doc__ or "")


def test_primitives_answer_known_values() -> None:
    assert tidelog.native.crc32c(b"123456789") == 0xE3069283  # RFC 3720
    assert tidelog.native.murmur2(b"21") == 0xFFFFFFFF & -973932308  # Kafka's own test
    assert tidelog.native.partition([b"21", b"21"], 7).tolist() == [(0x7FFFFFFF & -973932308) % 7] * 2


def test_importing_loads_neither_numpy_nor_rich_nor_the_tests_tools() -> None:
    code = (
        "import sys, tidelog\n"
        "tidelog.open\n"
        "heavy = {'numpy', 'rich', 'hypothesis', 'pytest', 'asyncio', 'matplotlib', 'multiprocessing', 'lz4'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_loaded_once_and_keep_their_identity() -> None:
    from tidelog.channel import Queue
    from tidelog.errors import Timeout
    from tidelog.log import open as open_log

    assert tidelog.open is open_log
    assert vars(tidelog)["open"] is open_log
    assert tidelog.Queue is Queue
    assert tidelog.Timeout is Timeout
    names: dict[str, object] = {}
    exec("from tidelog import *", names)
    assert set(names) - {"__builtins__"} == EXPORTED


def test_sending_bytes_needs_no_numpy() -> None:
    code = (
        "import sys, tidelog\n"
        "with tidelog.open('memory:') as log:\n"
        "    queue = log.queue('q')\n"
        "    queue.send(b'x', key='k')\n"
        "    queue.send_many([b'y'], keys=['k'])\n"
        "    with queue.consumer(stop='end') as received:\n"
        "        assert [message.value for message in received] == [b'x', b'y']\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_errors_derive_from_what_generic_code_catches() -> None:
    import queue

    pairs = {
        tidelog.Timeout: TimeoutError,
        tidelog.Full: queue.Full,
        tidelog.ChannelNotFound: LookupError,
        tidelog.SchemaMismatch: TypeError,
        tidelog.DecodeError: ValueError,
        tidelog.TooLarge: ValueError,
        tidelog.OffsetOutOfRange: LookupError,
        tidelog.NoSpace: OSError,
        tidelog.StorageFailed: OSError,
        tidelog.NotSupported: NotImplementedError,
    }
    for error, builtin in pairs.items():
        assert issubclass(error, builtin)
        assert issubclass(error, tidelog.Error)
        assert isinstance(error.retriable, bool)
