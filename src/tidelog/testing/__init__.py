"""Which tools does tidelog give to the tests of programs that use it?

Floor 8: may import every lower floor, never the package root. Importing this package costs nothing: each tool is a
module that is loaded when it is asked for. Thread rule: each module says its own.

    LogModel    a Hypothesis state machine that holds the public API against a plain list (needs hypothesis)

The pytest fixture `tide`, a log in a temporary directory, is there as soon as tidelog is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidelog.testing.model import LogModel

__all__ = ["LogModel"]


def __getattr__(name: str) -> Any:
    """Loads a tool at its first use."""
    if name == "LogModel":
        from tidelog.testing.model import LogModel

        return LogModel
    raise AttributeError(f"module 'tidelog.testing' has no attribute {name!r}")
