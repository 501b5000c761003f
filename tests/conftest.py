"""What holds for every test: how hypothesis behaves, and where failures leave what reproduces them.

HYPOTHESIS_PROFILE chooses: `default` is quick and the same on every run, so that the change that breaks something is
the one that is seen to; `thorough` draws new examples each time (the long lanes).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

with suppress(ImportError):  # the native part is not built; what asks for the fixture then fails by its name
    from tidelog.testing.plugin import tide  # noqa: F401

# No deadline in either: a shared machine stalls, and no test may fail by time.
_SHARED = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", derandomize=True, max_examples=100, **_SHARED)
settings.register_profile("thorough", max_examples=2000, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

LANES = frozenset({"bugs", "crash", "damage", "faults", "guarantees", "models", "power", "processes"})
"""Folders whose tests take minutes: left out of a plain run, asked for by `-m lane`, each a lane of .ci/run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in a lane's folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.relative_to(here).parts[0] in LANES:
            item.add_marker(pytest.mark.lane)
