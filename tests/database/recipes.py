"""The programs under test: the blocks of the pages, as a reader would save them, or with a bug.

A bug is a text that is replaced. That it is there, and once, is checked: a page that changes takes its bugs along.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

HOWTO = Path(__file__).resolve().parent.parent.parent / "docs" / "howto"
Bug = Sequence[tuple[str, str]]
"""Pairs of what stands there and what stands there instead."""


def source(page: str, name: str, bug: Bug = ()) -> str:
    """The block of a page that is saved as `name`.py."""
    text = (HOWTO / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```python\n(# {name}\.py\n.*?)^```$", text, re.M | re.S)
    assert len(blocks) == 1, f"{page} has {len(blocks)} blocks that are {name}.py"
    (code,) = blocks
    for there, instead in bug:
        assert code.count(there) == 1, f"{name}.py has this {code.count(there)} times:\n{there}"
        code = code.replace(there, instead)
    return str(code)


@contextmanager
def recipe(page: str, name: str, folder: Path, bug: Bug = ()) -> Iterator[ModuleType]:
    """The module, saved in `folder` and imported from there, by the processes of a kill test too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source(page, name, bug), encoding="utf-8")
    assert name not in sys.modules
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)
