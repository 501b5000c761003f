"""How do tests get compiled things: the core as an archive, one C program, the package with its crash points in?

May be imported by every test lane; imports nothing of tidelog. Everything built stands under build/tests/, each file
under a name that holds a hash of all that went into it: sources, headers, flags, compiler. So nothing is built twice,
nothing stale is ever used, and several runs at once do no harm (files appear by rename).

Run as a program (`python -m tests.builds`, as `./dev check` does) it compiles the whole core with warnings as errors.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
CACHE = ROOT / "build" / "tests"

COMPILER = os.environ.get("CC") or shutil.which("gcc") or "cc"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wstrict-prototypes"]
BASE = [
    "-std=c11",
    "-fno-strict-aliasing",
    "-pthread",
    "-I" + str(NATIVE / "include"),
    "-I" + str(ROOT / "tests" / "native"),
]

_UNUSED_AFTER_SECONDS = 2 * 24 * 3600


@dataclass(frozen=True)
class Variant:
    """One way to compile the core; `name` is its folder under build/tests/."""

    name: str
    flags: tuple[str, ...]
    compiler: str = COMPILER


_ADDRESS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RELEASE = Variant("release", ("-O2",))
TEST = Variant("test", ("-O2", "-DTL_TEST"))
ASAN = Variant("asan", (*_ADDRESS, "-DTL_TEST"))
TSAN = Variant("tsan", ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread", "-DTL_TEST"))
FUZZ = Variant("fuzz", (*_ADDRESS, "-DTL_TEST"))
LIBFUZZER = Variant(
    "libfuzzer",
    ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=fuzzer-no-link,address,undefined", "-DTL_TEST"),
    "clang-14",
)

SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class BuildFailed(Exception):
    """A compiler or linker refused; the message is the command and what it said."""


def core_sources() -> list[Path]:
    """Every C file of the core, sorted."""
    return sorted((NATIVE / "src").glob("*.c"))


def public_headers() -> list[Path]:
    """Every header under native/include/tidelog, sorted."""
    return sorted((NATIVE / "include" / "tidelog").glob("*.h"))


def compiled(source: Path, variant: Variant) -> Path:
    """The object file of one C file. Raises BuildFailed."""
    flags = [*BASE, *WARNINGS, *variant.flags]
    out = _place(variant, source.stem, ".o", _hash([source, *_headers()], [_version(variant.compiler), *flags]))
    if not out.exists():
        _run_into(out, [variant.compiler, *flags, "-c", str(source)])
    return out


def archive(variant: Variant) -> tuple[Path, dict[str, str]]:
    """(archive of the core, what the compiler said of each file that did not compile).

    A file that does not compile is left out, so that the programs that do not need it can still be tested.
    """
    objects: list[Path] = []
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(2) as pool:
        for source, outcome in zip(
            core_sources(), pool.map(functools.partial(_attempt, variant), core_sources()), strict=True
        ):
            if isinstance(outcome, Path):
                objects.append(outcome)
            else:
                failures[source.name] = str(outcome)
    out = _place(variant, "libtidelog", ".a", _hash([], [path.name for path in objects]))
    if not out.exists():
        _run_into(out, ["ar", "rcs"], list(map(str, objects)))
    return out, failures


def program(source: Path, variant: Variant, *, extra: Sequence[Path] = (), flags: Sequence[str] = ()) -> Path:
    """An executable of `source` and the `extra` C files with the core's archive. Raises BuildFailed."""
    library, failures = archive(variant)
    used = [*BASE, *WARNINGS, *variant.flags, *flags]
    inputs = [source, *extra, *_headers(), *source.parent.glob("*.h")]
    out = _place(variant, source.stem, "", _hash(inputs, [_version(variant.compiler), library.name, *used]))
    if not out.exists():
        try:
            _run_into(out, [variant.compiler, *used, str(source), *map(str, extra), str(library), "-lm"])
        except BuildFailed as error:
            raise BuildFailed("\n".join([str(error), *failures.values()])) from None
    return out


def test_package() -> Path:
    """A directory for PYTHONPATH that holds tidelog built with its crash points, yield points and seeded bugs.

    Processes that a test starts with it obey TL_CRASH, TL_STOP, TL_POINT_LOG and TL_BUG. The Python files are links to
    the sources. Raises BuildFailed.
    """
    package = ROOT / "src" / "tidelog"
    inputs = [ROOT / "setup.py", ROOT / "pyproject.toml"]
    inputs += [path for kind in ("*.c", "*.h", "*.pyx", "*.pxd", "*.pxi") for path in sorted(NATIVE.rglob(kind))]
    environment = {**os.environ, "TIDELOG_TEST_POINTS": "1"}
    base = CACHE / "package"
    out = base / _hash(inputs, [sys.version, environment.get("TIDELOG_SANITIZE", ""), environment.get("CFLAGS", "")])
    suffix = str(sysconfig.get_config_var("EXT_SUFFIX"))
    if not out.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as scratch:
            command = [
                sys.executable,
                "setup.py",
                "-q",
                "build_ext",
                "-b",
                scratch + "/lib",
                "-t",
                scratch + "/objects",
            ]
            _run(command, environment, 900)
            built = Path(scratch) / "lib" / "tidelog" / ("_native" + suffix)
            if not built.exists():
                raise BuildFailed("setup.py built no tidelog._native: is native/_native.pyx there?")
            _rename(built.parent.parent, out)
    os.utime(out)
    _prune(base)
    # Links are laid anew each time: the Python files may have changed in number since the extension was built.
    for path in package.iterdir():
        link = out / "tidelog" / path.name
        if path.suffix != ".so" and path.name != "__pycache__" and not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    return out


def _attempt(variant: Variant, source: Path) -> Path | BuildFailed:
    try:
        return compiled(source, variant)
    except BuildFailed as error:
        return error


@functools.cache
def _version(compiler: str) -> str:
    if shutil.which(compiler) is None:
        raise BuildFailed(f"there is no compiler {compiler!r}; install it or set CC")
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


def _headers() -> list[Path]:
    return [*public_headers(), *sorted(NATIVE.glob("src/*.h"))]


def _hash(paths: Iterable[Path], words: Iterable[str]) -> str:
    state = hashlib.sha256()
    for word in words:
        state.update(word.encode() + b"\0")
    for path in paths:
        state.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()[:16]


def _place(variant: Variant, stem: str, suffix: str, key: str) -> Path:
    """Where a built file belongs. One that stands there is marked as in use; its forgotten forerunners are removed."""
    folder = CACHE / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{stem}-{key}{suffix}"
    if out.exists():
        os.utime(out)
    else:
        _prune(folder)
    return out


def _prune(folder: Path) -> None:
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime < _UNUSED_AFTER_SECONDS:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # another run was quicker
            continue


def _run_into(out: Path, command: list[str], operands: Sequence[str] = ()) -> None:
    """Run a compiler or ar so that `out` appears whole or not at all."""
    partial = out.with_name(f"{out.name}.{os.getpid()}.{os.urandom(4).hex()}{out.suffix}")
    output = [str(partial)] if command[0] == "ar" else ["-o", str(partial)]
    try:
        _run([*command, *output, *operands], None, 300)
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


def _run(command: list[str], environment: dict[str, str] | None, timeout_seconds: float) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode:
        shown = [word for word in command if not re.match(r"-[WfI]", word)]
        raise BuildFailed(f"$ {shlex.join(shown)}\n{done.stdout}")


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.exists():  # else another run was quicker, and what it made is the same
            raise


def main() -> int:
    """Compile the core as it is released and as it is tested; print what the compiler says; 1 if anything failed."""
    failures: list[str] = []
    for variant in (RELEASE, TEST):
        failures += archive(variant)[1].values()
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(core_sources())} C files, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
