"""Which tools does tidelog give to the tests of programs that use it?

Floor 8: may import every lower floor, never the package root. Importing this package costs nothing: each tool is a
module that is loaded when it is asked for. Thread rule: each module says its own.

Was everything delivered as it was promised?

    record = Recorder()                       # in memory; else Recorder("dir/name") in each process, load("dir")
    sending = Sending(record, orders)         # its send and send_many are written down
    with Receiving(record, orders.consumer, delivery="manual") as received: ...
    read_to_the_end(record, orders)
    check(record.history())                   # raises AnomalyFound: the shortest story that shows what is wrong

    check            judges a history: lost, doubled, reordered, skipped, two owners, torn transactions, power cuts
    History          what happened; `History.parse(text)` for histories written by hand, `load(*paths)` for files
    Recorder         writes the history of one process; what it wrote survives the death of the process
    Sending, Receiving, read_to_the_end    a channel, a consumer and a complete reading that record themselves
    Naming, Transacting                    a named producer and a transaction that do
    AnomalyFound     what `check` raises: `.name`, `.story` (its lines are a history too), `.anomalies`

What if something fails?

    kill_test        runs your programs, kills them at random instants and at lines and steps, again and again
    step             marks such a place; does nothing elsewhere
    Lives            what kill_test is made of: one process that starts and kills others
    effect           says in a handler that something was done; `tidelog chaos` counts it and kills around it
    faults           with faults.fail("append", error=NoSpace, after=3): ...   also delay and kill
    strategies       Hypothesis: keys, values, headers, messages, interleavings of producers and consumers
    AppMachine       a Hypothesis state machine for your own application: messages, time and faults in any order
    LogModel         a Hypothesis state machine that holds the public API against a plain list
    TransactionModel the same for transactions

An application is run in a test by `app.test()` (testing/harness.py). The pytest fixture `tide`, a log in a temporary
directory, is there as soon as tidelog is installed. `strategies`, `AppMachine`, `LogModel` and `TransactionModel` need
hypothesis, which `pip install 'tidelog[testing]'` brings, with pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidelog.testing import faults, strategies
    from tidelog.testing.app_machine import AppMachine
    from tidelog.testing.effects import effect
    from tidelog.testing.history import History
    from tidelog.testing.judge import check
    from tidelog.testing.kills import Kills, KillTestFailed, kill_test
    from tidelog.testing.lives import Lives, step
    from tidelog.testing.model import LogModel
    from tidelog.testing.recorder import Recorder, load
    from tidelog.testing.recording import Receiving, Sending, read_to_the_end
    from tidelog.testing.recording_txn import Naming, Transacting
    from tidelog.testing.stories import AnomalyFound
    from tidelog.testing.transaction_model import TransactionModel

__all__ = [
    "AnomalyFound",
    "AppMachine",
    "History",
    "KillTestFailed",
    "Kills",
    "Lives",
    "LogModel",
    "Naming",
    "Receiving",
    "Recorder",
    "Sending",
    "Transacting",
    "TransactionModel",
    "check",
    "effect",
    "faults",
    "kill_test",
    "load",
    "read_to_the_end",
    "step",
    "strategies",
]

_HOMES = {
    "AnomalyFound": "stories",
    "AppMachine": "app_machine",
    "History": "history",
    "KillTestFailed": "kills",
    "Kills": "kills",
    "Lives": "lives",
    "LogModel": "model",
    "TransactionModel": "transaction_model",
    "Naming": "recording_txn",
    "Receiving": "recording",
    "Recorder": "recorder",
    "Sending": "recording",
    "Transacting": "recording_txn",
    "check": "judge",
    "effect": "effects",
    "kill_test": "kills",
    "load": "recorder",
    "read_to_the_end": "recording",
    "step": "lives",
}


def __getattr__(name: str) -> Any:
    """Loads a tool at its first use. Raises ModuleNotFoundError, saying what to install, for one that needs more."""
    try:
        if name in ("faults", "strategies"):
            return importlib.import_module(f"tidelog.testing.{name}")
        if name in _HOMES:
            return getattr(importlib.import_module(f"tidelog.testing.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "hypothesis":
            raise
        raise ModuleNotFoundError(
            f"tidelog.testing.{name} needs the package hypothesis: install it with pip install 'tidelog[testing]'",
            name=error.name,
        ) from error
    raise AttributeError(f"module 'tidelog.testing' has no attribute {name!r}")
