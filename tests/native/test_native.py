"""Does every C test of the core pass, under AddressSanitizer and UBSan, and every C stress run under ThreadSanitizer?

tests/native/test_<noun>.c and stress_<noun>.c are programs: exit code 0 is a pass. Each is linked with the whole core
and runs in an empty directory of its own, which is also its TMPDIR. `timeout_s: 300` in its first comment gives it
longer than a minute.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import builds

HERE = Path(__file__).parent
TESTS = sorted(HERE.glob("test_*.c"))
STRESSES = sorted(HERE.glob("stress_*.c"))
OF_IDS = sorted(set(HERE.glob("test_ids*.c")) - {HERE / "test_ids_plain.c"})  # that one has both in itself
DEFAULT_TIMEOUT_SECONDS = 120.0


def timeout_of(source: Path) -> float:
    """Seconds that the program may take, from its first comment."""
    match = re.search(r"timeout_s: *(\d+)", source.read_text().split("*/", 1)[0])
    return float(match[1]) if match else DEFAULT_TIMEOUT_SECONDS


def mark(source: Path) -> object:
    """The parameter of one program, with a pytest timeout that leaves room for compiling."""
    return pytest.param(source, id=source.stem, marks=pytest.mark.timeout(timeout_of(source) + 300))


def run(program: Path, source: Path, directory: Path) -> None:
    """Run one program; fail with everything it printed."""
    environment = {**os.environ, **builds.SANITIZER_ENVIRONMENT, "TMPDIR": str(directory)}
    limit = timeout_of(source)
    process = subprocess.Popen(
        [program],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        # The whole session: a test that forks must not leave children behind.
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{source.name} ran longer than {limit:g} s\n{output[-20000:]}", pytrace=False)
    if process.returncode:
        how = f"exit code {process.returncode}"
        if process.returncode < 0:
            how = signal.Signals(-process.returncode).name
        pytest.fail(f"{source.name}: {how}\n{output[-20000:]}", pytrace=False)
    print(output, end="")


def built(source: Path, variant: builds.Variant, **options: Any) -> Path:
    """The program, or a failed test with the compiler's words."""
    try:
        return builds.program(source, variant, **options)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", [pytest.param(path, id=path.stem) for path in builds.core_sources()])
def test_compiles_without_warnings(source: Path) -> None:
    try:
        builds.compiled(source, builds.RELEASE)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize("header", [pytest.param(path, id=path.stem) for path in builds.public_headers()])
def test_header_stands_alone(header: Path, tmp_path: Path) -> None:
    """Whoever includes it need not know what it needs."""
    source = tmp_path / f"alone_{header.stem}.c"
    source.write_text(f'#include "tidelog/{header.name}"\n#include "tidelog/{header.name}"\n')
    try:
        builds.compiled(source, builds.RELEASE)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize("source", [mark(path) for path in TESTS + STRESSES])
def test_program(source: Path, tmp_path: Path) -> None:
    run(built(source, builds.TSAN if source in STRESSES else builds.ASAN), source, tmp_path)


@pytest.mark.parametrize("source", [mark(path) for path in OF_IDS])
def test_ids_without_vectors(source: Path, tmp_path: Path) -> None:
    """As on a processor without SSE2: the window of ids is compiled so, and stands before the one in the archive."""
    window = builds.NATIVE / "src" / "ids.c"
    run(built(source, builds.ASAN, extra=[window], flags=["-U__SSE2__"]), source, tmp_path)


def test_programs_are_found() -> None:
    assert len(TESTS) > 0, "there is no tests/native/test_*.c: the glob or the layout is wrong"
    assert len(OF_IDS) > 1
