"""Do the wheel and the source distribution hold what they must, and does the wheel work where nothing else is?

Slow (it compiles, and installs what tidelog depends on): a lane of its own, `pytest -m slow tests/test_package.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUILD = "import sys, setuptools.build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
USE = """
import sys
import tidelog
assert "numpy" not in sys.modules, "importing tidelog loads numpy"
directory = sys.argv[1]
with tidelog.open(directory) as log:
    log.queue("orders").send_many([b"one", b"two"])
with tidelog.open(directory) as log:
    print([message.raw for message in log["orders"].scan()])
"""


def run(*command: object, cwd: Path) -> str:
    """The output of a command; fails with what it said."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TIDELOG_", "PYTHONPATH"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(source distribution, wheel built from it): what a release would upload."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-c", BUILD, "sdist", out, cwd=ROOT)
    (source,) = out.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(out, filter="data")
    run(sys.executable, "-c", BUILD, "wheel", out, cwd=out / source.name.removesuffix(".tar.gz"))
    (wheel,) = out.glob("*.whl")
    return source, wheel


def test_the_source_distribution_is_whole(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    kinds = (".c", ".h", ".pyx", ".pxd", ".pxi")
    native = {str(path.relative_to(ROOT)) for path in (ROOT / "native").rglob("*") if path.suffix in kinds}
    python = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py*") if path.suffix in (".py", ".pyi")}
    assert not (native | python | {"LICENSE", "setup.py", "pyproject.toml", "src/tidelog/py.typed"}) - held


def test_the_wheel_holds_what_runs_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        held = archive.namelist()
    inside = [name for name in held if name.startswith("tidelog/")]
    assert {"tidelog/py.typed", "tidelog/_native.pyi", "tidelog/cli/__init__.py"} <= set(inside)
    assert len([name for name in inside if name.startswith("tidelog/_native.") and name.endswith(".so")]) == 1
    assert {Path(name).suffix for name in inside} == {".py", ".pyi", ".so", ".typed"}
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"tidelog"}


def test_the_wheel_works_in_a_clean_environment(built: tuple[Path, Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", built[1], cwd=tmp_path)
    assert run(python, "-c", USE, tmp_path / "shop.log", cwd=tmp_path) == "[b'one', b'two']\n"
    assert run(tmp_path / "venv" / "bin" / "tidelog", "ls", tmp_path / "shop.log", "--format", "tsv", cwd=tmp_path)
