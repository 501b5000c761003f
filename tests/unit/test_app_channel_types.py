"""Does a type checker see the same of a channel that an application declared as of the channel itself?

Reads the sources: what only a type checker sees is not there when the program runs.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tidelog

SOURCES = Path(tidelog.__file__).parent


def methods(path: str, *classes: str) -> dict[str, ast.FunctionDef]:
    """The functions of these classes by name, those under `if TYPE_CHECKING:` too, where they come first."""
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(ast.parse((SOURCES / path).read_text())):
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for statement in node.body:
                seen = statement.body if isinstance(statement, ast.If) else [statement]
                for function in seen:
                    if isinstance(function, ast.FunctionDef):
                        found[function.name] = function
    return found


CHANNEL = methods("patterns/request.py", "Asking") | methods("channel.py", "Channel", "Queue")
APP = methods("app/channels.py", "AppChannel")
PUBLIC = [name for name in CHANNEL if not name.startswith("_")]


def face(function: ast.FunctionDef) -> tuple[str, str, bool]:
    """Parameters, result, and whether it is a property."""
    text = ast.unparse(function.args).replace("=_KEEP", "=_Keep.KEEP").replace("Literal[_Keep.KEEP]", "KEEP")
    decorated = any(ast.unparse(decorator) == "property" for decorator in function.decorator_list)
    return text, ast.unparse(function.returns) if function.returns is not None else "", decorated


@pytest.mark.parametrize("name", PUBLIC)
def test_it_is_the_same(name: str) -> None:
    parameters, result, decorated = face(APP[name])
    if name == "consumer":  # of a queue or of a topic, which has a group
        parameters = parameters.replace("*group: str", "*")
    assert (parameters, result, decorated) == face(CHANNEL[name])


def test_nothing_is_left_to_guess() -> None:
    assert {"send", "send_many", "scan", "consumer", "tail", "ask", "configure"} <= set(PUBLIC)
    assert "__getattr__" not in APP, "a type checker would take everything for Any"
