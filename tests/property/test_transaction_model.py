"""Do transactions do what lists would do, in every order of calls that Hypothesis thinks of?"""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tidelog.testing import TransactionModel
from tidelog.transaction import Transaction

SHORT = settings(max_examples=40, stateful_step_count=40, deadline=None)
NOTICED = settings(SHORT, max_examples=300, phases=(Phase.explicit, Phase.generate))


class TestTransactions(TransactionModel.TestCase):
    """The model as it is shipped."""

    settings = SHORT


def test_the_model_notices_an_abort_that_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction, "abort", lambda self: self.commit(), raising=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(TransactionModel, settings=NOTICED)


def test_the_model_notices_a_commit_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transaction, "commit", lambda self: self.abort(), raising=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(TransactionModel, settings=NOTICED)
