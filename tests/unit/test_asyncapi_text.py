"""Does a description keep every value on its way through JSON and YAML, also those that YAML 1.1 takes for others?"""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.descriptions.apps import APPS
from tidelog.asyncapi.document import describe
from tidelog.asyncapi.text import read, write_json, write_yaml
from tidelog.errors import DecodeError, NotSupported

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TRICKY = [
    *(
        "no",
        "on",
        "yes",
        "y",
        "true",
        "null",
        "~",
        "",
        " ",
        "1",
        "1.0",
        "1e3",
        "1E3",
        "0o17",
        "017",
        "0x1F",
        "1_000",
        "+1",
    ),
    *(
        ".5",
        ".inf",
        ".nan",
        "2026-01-31",
        "12:30:00",
        "1:30",
        "=",
        "<<",
        "a: b",
        "# c",
        "- d",
        "'",
        '"',
        "a\nb\n",
        "a\n\n b",
    ),
    *("\t", "é", "\u2028", "🌊", "*a", "&a", "!a", "%a", "@a", "`a", "{a}", "[a]", "a #b", "|", ">", "key:", "? a"),
]


@pytest.mark.parametrize("name", APPS)
def test_round_trip(name: str) -> None:
    document = describe(APPS[name])
    assert read(write_json(document)) == document
    assert read(write_yaml(document)) == document
    # PyYAML's own rules agree, except for what YAML 1.1 and 1.2 see differently, which is quoted.
    assert yaml.safe_load(write_yaml(document)) == document


@pytest.mark.parametrize("text", TRICKY)
def test_texts_stay_texts(text: str) -> None:
    document = {"asyncapi": "3.0.0", "value": text, "list": [text]}
    assert read(write_yaml(document)) == document
    assert yaml.safe_load(write_yaml(document)) == document


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_value(document: dict[str, Any]) -> None:
    assert read(write_json(document)) == document
    # YAML has no place for a few characters, which PyYAML then writes escaped.
    assert read(write_yaml(document)) == document


def test_numbers_are_read_by_the_rules_of_yaml_1_2() -> None:
    assert read("a: 1e3\nb: 017\nc: no\nd: 2026-01-31\ne: True\nf: ~\ng: 1_0\nh: -.5") == {
        "a": 1000.0,
        "b": 17,
        "c": "no",
        "d": "2026-01-31",
        "e": True,
        "f": None,
        "g": "1_0",
        "h": -0.5,
    }


@pytest.mark.parametrize("text", ["", "3", "[]", "- a", "a: b: c", "{", "!!python/object/apply:os.getcwd []", "a: *b"])
def test_what_is_no_description(text: str) -> None:
    with pytest.raises(DecodeError):
        read(text)


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    document = describe(APPS["one-way"])
    assert read(write_json(document)) == document
    for call in (lambda: write_yaml(document), lambda: read("a: 1")):
        with pytest.raises(NotSupported, match=r"tidelog\[docs\]"):
            call()


def test_json_is_json() -> None:
    assert json.loads(write_json({"é": [1]})) == {"é": [1]}
    assert write_json({"é": 1}).endswith("}\n") and "é" in write_json({"é": 1})
