"""Does the source keep the rules that no compiler and no linter holds?

Floors of the Python files are import-linter's (`./dev check`); this file holds what that cannot see: the native
boundary, sizes, first comments, docstrings, forbidden words. Each rule is a function from text to complaints, and each
is shown a text that breaks it, so that a rule that has gone blind is seen.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tidelog"
LINES_MAX = 500
COLUMNS_MAX = 140  # of C and Cython, where 120 is the aim; Python's 120 are ruff's to hold
LEFT_OUT = {".git", "build", "dist", "__pycache__", "tidelog.egg-info", "LICENSE"}

Rule = Callable[[str, str], Iterator[str]]


def files(*patterns: str) -> list[Path]:
    """The project's files that match, without what builds and tools leave."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    kept = [path for path in found if not _left(path.relative_to(ROOT).parts)]
    return sorted(kept)


def _left(parts: tuple[str, ...]) -> bool:
    return any(part in LEFT_OUT or (part.startswith(".") and part.endswith(("venv", "cache"))) for part in parts)


CORE = files("native/include/**/*.h", "native/src/*.[ch]")
GLUE = files("native/*.pyx", "native/*.pxd", "native/glue/*")
PYTHON = files("src/tidelog/**/*.py")
TESTS = files("tests/**/*.py", "tests/**/*.c", "tests/**/*.h", "benchmarks/**/*.py", "benchmarks/**/*.c", "setup.py")
PROSE = files("*.md", "docs/**/*.md", "pyproject.toml", "dev", ".ci/*", ".gitignore")


def code_only(text: str) -> str:
    """C without its comments and strings; the lines keep their numbers."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n") + " "

    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", blank, text, flags=re.S)


def no_python_in_core(_: str, text: str) -> Iterator[str]:
    if re.search(r"#\s*include\s*[<\"]Python\.h", text):
        yield "includes Python.h: the core builds and is tested without Python"


def system_behind_its_door(name: str, text: str) -> Iterator[str]:
    """System calls and the heap only through `tl_os`; the door, the signal guard and the test seams are exempt."""
    if re.search(r"#\s*define\s+_GNU_SOURCE", text) and name not in ("os_posix.c", "os_identity.c", "guard.c"):
        yield "defines _GNU_SOURCE: only os_posix.c, os_identity.c and guard.c may"
    if name in ("os_posix.c", "os_identity.c", "guard.c", "testing.c"):
        return
    for header in re.findall(
        r"#\s*include\s*<((?:unistd|dirent|sys/(?:mman|file|ioctl|syscall|statfs|uio)|linux/\w+)\.h)>", text
    ):
        yield f"includes <{header}>: system calls go through tl_os (os_posix.c)"
    for number, line in enumerate(code_only(text).split("\n"), 1):
        if match := re.search(r"(?<![\w.>])(malloc|calloc|realloc|free|mmap|munmap|fsync|fdatasync|pwrite)\s*\(", line):
            yield f"line {number} calls {match[1]}(): the heap and the system are behind tl_os"


def glue_imports(_: str, text: str) -> Iterator[str]:
    """_native stands on floor 2: of the package it may import errors.py only, so that there is no circle."""
    for match in re.finditer(r"^\s*(?:from|import)\s+tidelog\b([.\w]*)", text, re.M):
        if match[1] != ".errors":
            yield f"imports tidelog{match[1]}: the native module may import tidelog.errors and nothing else"


def small(_: str, text: str) -> Iterator[str]:
    if (count := text.count("\n")) > LINES_MAX:
        yield f"has {count} lines; past {LINES_MAX} a file is split along a noun"


def shaped(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > COLUMNS_MAX and not name.endswith(".py"):
            yield f"line {number} has {len(line)} columns, more than {COLUMNS_MAX}"
        if "\t" in line or line != line.rstrip():
            yield f"line {number} has a tab or ends in a space"


def introduced(name: str, text: str) -> Iterator[str]:
    """Every file says first what it is there for."""
    body = re.sub(r"^#![^\n]*\n", "", text)
    opening = (
        ('"""', 'r"""')
        if name.endswith((".py", ".pyi"))
        else ("/*", "//")
        if name.endswith((".c", ".h"))
        else ("#", '"""')
    )
    if body.strip() and not body.startswith(opening):
        yield "does not begin with a comment (or docstring) that says what the file is for"


def asks(_: str, text: str) -> Iterator[str]:
    """The first sentence of a source file is the question that the file answers."""
    first = re.split(r"\n\s*(?:[*#]\s*)?\n|\*/|(?<=..)\"\"\"", text[:2000], maxsplit=1)[0]
    if text.strip() and not re.search(r"\?|^\W*(What|Which|How|Where|When|Who|Why)\b", first):
        yield "its first comment does not say which question the file answers"


def documented(_: str, text: str) -> Iterator[str]:
    """Every public class, function and method has a docstring.

    Overloads and setters speak through their first form, the members of a Protocol through the classes that have them.
    """
    yield from _undocumented(ast.parse(text), "")


def _undocumented(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try | ast.With):
            yield from _undocumented(child, prefix)
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in child.decorator_list}
        if not decorators & {"overload", "setter", "deleter"} and ast.get_docstring(child) is None:
            yield f"line {child.lineno}: {prefix}{child.name} has no docstring"
        if isinstance(child, ast.ClassDef) and not any("Protocol" in ast.unparse(base) for base in child.bases):
            yield from _undocumented(child, f"{prefix}{child.name}.")


def no_root_import(_: str, text: str) -> Iterator[str]:
    """The root only re-exports: what imports it from inside makes a circle, and loads everything."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "tidelog" or (alias.name.startswith("tidelog.") and alias.asname is None):
                    yield f"line {node.lineno}: import {alias.name}; write `from tidelog.x import y`"
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: a relative import; write `from tidelog.x import y`"
        if isinstance(node, ast.ImportFrom) and node.module == "tidelog":
            for alias in node.names:
                if not _is_module(alias.name):
                    yield f"line {node.lineno}: takes {alias.name} from the package root; name its module"


def _is_module(name: str) -> bool:
    return name == "_native" or (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def silent(_: str, text: str) -> Iterator[str]:
    """A library prints nothing and leaves logging to whoever uses it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "breakpoint", "logging.basicConfig"):
            yield f"line {node.lineno}: calls {ast.unparse(node.func)}()"


FORBIDDEN = [
    r"/wor" + r"k/",
    r"/roo" + r"t/",
    r"\bTO" + r"DO\b",
    r"\bFIX" + r"ME\b",
    r"\bXX" + r"X\b",
    r"pypi" + r"\.org|pythonhosted" + r"\.org|npmjs" + r"\.(?:org|com)|crates" + r"\.io",
    r"proxy\.gol" + r"ang|maven" + r"\.org|apache" + r"\.org/maven|deb\.deb" + r"ian|ubuntu" + r"\.com",
]


def clean_words(_: str, text: str) -> Iterator[str]:
    """No path of one machine, no registry's host, no note to oneself."""
    for number, line in enumerate(text.split("\n"), 1):
        for pattern in FORBIDDEN:
            if match := re.search(pattern, line):
                yield f"line {number} has the forbidden word {match[0]!r}"


LIBRARY = [path for path in PYTHON if "cli" not in path.relative_to(PACKAGE).parts]
RULES: list[tuple[Rule, list[Path], str, str]] = [
    # rule, files, name and text of an example that breaks it
    (no_python_in_core, CORE, "log.c", "#include <Python.h>\n"),
    (system_behind_its_door, CORE, "log.c", "#define _GNU_SOURCE\n"),
    (system_behind_its_door, CORE, "log.c", "#include <sys/mman.h>\n"),
    (system_behind_its_door, CORE, "log.c", "/* free() */\nvoid f(void *p) { free(p); }\n"),
    (glue_imports, GLUE, "errors.pxi", "from tidelog.errors import Error\nfrom tidelog import message\n"),
    (small, [*CORE, *GLUE, *PYTHON], "log.c", "\n" * (LINES_MAX + 1)),
    (shaped, [*CORE, *GLUE, *TESTS, *PYTHON], "log.c", "x" * 141),
    (shaped, [*CORE, *GLUE, *TESTS, *PYTHON], "log.c", "int x; \n"),
    (introduced, [*CORE, *GLUE, *PYTHON, *TESTS], "log.py", "import os\n"),
    (introduced, [*CORE, *GLUE, *PYTHON, *TESTS], "log.c", "#include <stdio.h>\n"),
    (
        asks,
        [*CORE, *[path for path in PYTHON if path != PACKAGE / "__init__.py"]],
        "log.c",
        "/* The log.\n *\n * Is it? */\n",
    ),
    (documented, PYTHON, "log.py", "class A:\n    'Yes.'\n    def f(self): pass\n"),
    (no_root_import, PYTHON, "log.py", "import tidelog\n"),
    (no_root_import, PYTHON, "log.py", "from tidelog import Log\n"),
    (silent, LIBRARY, "log.py", "print('hello')\n"),
    (clean_words, [*CORE, *GLUE, *PYTHON, *TESTS, *PROSE], "log.c", "/* TO" + "DO */\n"),
    (clean_words, [*CORE, *GLUE, *PYTHON, *TESTS, *PROSE], "dev", "cd /wor" + "k/main\n"),
]
UNIQUE = {rule.__name__: (rule, paths) for rule, paths, _, _ in RULES}


@pytest.mark.parametrize("name", UNIQUE)
def test_rule(name: str) -> None:
    rule, paths = UNIQUE[name]
    if rule is not glue_imports:
        assert paths, "no files were found: the glob or the layout is wrong"
    complaints = []
    for path in paths:
        # The root is the one place that may do what it forbids others.
        if rule is no_root_import and path == PACKAGE / "__init__.py":
            continue
        text = path.read_text(encoding="utf-8")
        complaints += [f"{path.relative_to(ROOT)}: {complaint}" for complaint in rule(path.name, text)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize(("rule", "name", "text"), [pytest.param(r, n, t, id=r.__name__) for r, _, n, t in RULES])
def test_rule_sees(rule: Rule, name: str, text: str) -> None:
    assert len(list(rule(name, text))) == 1


def modules() -> list[str]:
    """Every module of the package by its dotted name."""
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PYTHON]
    return sorted(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("module", modules())
def test_imports_alone(module: str) -> None:
    """In a fresh process, so that no module works only because another was imported before it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDELOG_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {module}"],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == "", "importing a module prints nothing"
