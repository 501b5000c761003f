"""Which application do the words MOD:APP mean?

Floor 8: may import application, errors. Thread rule: imports run once; call it from the main thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from tidelog.app.application import App

__all__ = ["NoTarget", "NotThere", "load", "target_of"]

DEFAULT_NAME = "app"


class NoTarget(TypeError, ValueError):
    """Words that name no application: they are malformed, or what they name is something else."""


class NotThere(LookupError):
    """The module or the application that was named does not exist."""


def load(target: str) -> App:
    """The application of `target`: "shop.billing:app", or a file, "shop/billing.py:app"; without a name it is "app".

    The current directory is looked at for modules, as `python -m` does; for a file its own directory.
    Raises NoTarget for a target that is none or is something else, NotThere if the module or the application does not
    exist, and whatever the module raises when it is imported.
    """
    where, _, name = target.partition(":")
    name = name or DEFAULT_NAME
    if not where:
        raise NoTarget(f"{target!r} names no module: write MODULE:APP or FILE.py:APP, for example shop.billing:app")
    module = _from_file(where) if where.endswith(".py") or os.sep in where else _by_name(where)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            apps = sorted(word for word, value in vars(module).items() if isinstance(value, App))
            hint = f"it has {', '.join(f'{where}:{word}' for word in apps)}" if apps else "it has no tidelog.App at all"
            raise NotThere(f"{where} has no {name!r}: {hint}") from None
    if not isinstance(found, App):
        raise NoTarget(f"{target} is a {type(found).__name__}, not a tidelog.App")
    return found


def _from_file(path: str) -> ModuleType:
    full = os.path.abspath(path)
    if not os.path.isfile(full):
        raise NotThere(f"there is no file {path}: give MODULE:APP or FILE.py:APP")
    name = os.path.splitext(os.path.basename(full))[0]
    _look_in(os.path.dirname(full))
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == full:
        return known
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise NotThere(f"{path} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _by_name(name: str) -> ModuleType:
    if not all(name.split(".")):
        raise NoTarget(
            f"{name!r} is no name of a module: write MODULE:APP or FILE.py:APP, for example shop.billing:app"
        )
    _look_in(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that it imports, and that is missing, is another matter.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise NotThere(
            f"there is no module {name!r} in {os.getcwd()} or installed: give MODULE:APP or FILE.py:APP"
        ) from None


def _look_in(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def target_of(app: App) -> str:
    """Words that `load` finds this application by, in another process. Raises ValueError if there are none."""
    modules = [sys.modules["__main__"], *(module for name, module in list(sys.modules.items()) if name != "__main__")]
    for module in modules:
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                where = _address(module)
                if where is not None:
                    return f"{where}:{name}"
    raise ValueError(
        f"the application {app.name} is no name of a module, so another process cannot find it: make it one "
        f"(app = tidelog.App(...) at the top level of a file), or run it with workers=1"
    )


def _address(module: ModuleType) -> str | None:
    if module.__name__ != "__main__":
        return module.__name__
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name)
    file = getattr(module, "__file__", None)
    return None if file is None else os.path.abspath(file)
