"""Does the public API do what lists would do, in every order of calls that Hypothesis thinks of?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tidelog.channel import Channel
from tidelog.testing import LogModel

SHORT = settings(max_examples=100, stateful_step_count=40, deadline=None)
# That a seeded bug is noticed is all that counts: its example need not be made smaller, which takes minutes.
NOTICED = settings(SHORT, phases=(Phase.explicit, Phase.generate))


class TestLog(LogModel.TestCase):
    """The model as it is shipped."""

    settings = SHORT


class Compressed(LogModel):
    """The same over compressed batches."""

    compression = "lz4"


class TestCompressed(Compressed.TestCase):
    """Compressed."""

    settings = SHORT


def test_the_model_notices_a_log_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Channel.scan

    def forgetful(self: Channel[Any], *args: Any, **options: Any) -> Any:
        return iter(list(scan(self, *args, **options))[1:])

    monkeypatch.setattr(Channel, "scan", forgetful)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(LogModel, settings=NOTICED)


def test_the_model_notices_a_trim_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "trim", lambda *args: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(LogModel, settings=NOTICED)


def test_the_model_notices_a_log_that_forgets_ids() -> None:
    class Forgetful(LogModel):
        def _open(self) -> None:
            super()._open()
            for channel in self.channels.values():
                channel.configure(dedup_count=0)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Forgetful, settings=NOTICED)
