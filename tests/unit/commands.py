"""Runs a command line in this process, with its output on a pipe. Used by the tests of the command line only."""

from __future__ import annotations

import io
import json
import sys
from typing import Any, NamedTuple

import pytest

from tidelog.cli import main


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """stdout as lines of cells between tabs."""
        return [line.split("\t") for line in self.out.splitlines()]


class Commands:
    """`run("ls", store)` runs `tidelog ls STORE`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        monkeypatch.delenv("TIDELOG_URL", raising=False)
        monkeypatch.delenv("TIDELOG_LOG_LEVEL", raising=False)

    def __call__(self, *argv: object, stdin: bytes = b"") -> Ran:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capsys.readouterr()
        code = main([str(word) for word in argv])
        out, err = self._capsys.readouterr()
        return Ran(int(code), out, err)

    def good(self, *argv: object, stdin: bytes = b"") -> Ran:
        """The same; the command must end well."""
        ran = self(*argv, stdin=stdin)
        assert ran.code == 0, ran.err or ran.out
        return ran
