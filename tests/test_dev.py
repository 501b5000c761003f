"""Does ./dev say what is wrong and end with the exit code that it promises?

Runs the script in a copy of nothing but itself, with a PATH that holds only the commands it needs, so that neither
a real compiler nor a package manager is ever reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "basename",
    "cat",
    "cut",
    "date",
    "dirname",
    "find",
    "flock",
    "ls",
    "mkdir",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
)
SHELLS = [name for name in ("dash", "bash", "sh") if shutil.which(name)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with ./dev, the build files and bin/, the whole PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "native").mkdir()
    for name in ("dev", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in COMMANDS:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(found)
    program(tmp_path, "id", "echo 1000")
    return tmp_path


def dev(tree: Path, *arguments: str, shell: str = "sh", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ./dev from another directory."""
    return subprocess.run(
        [shutil.which(shell) or shell, str(tree / "dev"), *arguments],
        cwd="/",
        env={"PATH": str(tree / "bin"), "HOME": str(tree), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(tree: Path, name: str, text: str) -> None:
    """Put a shell script into the PATH."""
    path = tree / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("shell", SHELLS)
def test_usage(tree: Path, shell: str) -> None:
    wrong = dev(tree, "tset", shell=shell)
    assert wrong.returncode == 2 and "'tset'" in wrong.stderr and "usage: ./dev" in wrong.stderr
    assert dev(tree, shell=shell).returncode == 2
    asked = dev(tree, "--help", shell=shell)
    assert asked.returncode == 0
    for verb in ("build", "demo", "test", "bench", "check", "torture"):
        assert f"\n  {verb} " in asked.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_is_there(tree: Path, shell: str) -> None:
    done = dev(tree, "build", shell=shell)
    assert done.returncode == 3
    assert "missing: python3 >= 3.11, a C compiler" in done.stderr
    line = "sudo apt-get update && sudo apt-get install -y python3 python3-dev python3-venv gcc libc6-dev"
    assert line in done.stdout


def test_old_python_is_not_taken(tree: Path) -> None:
    program(tree, "python3", "exit 1")  # what `sys.exit(version_info < (3, 11))` makes of an old one
    assert "python3 >= 3.11" in dev(tree, "build").stderr


def test_only_the_compiler_is_missing(tree: Path) -> None:
    (tree / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    done = dev(tree, "test")
    assert done.returncode == 3
    assert "missing: a C compiler with the headers of libc\n" in done.stderr
    assert "run ./dev test again" in done.stdout


def test_a_compiler_without_headers_is_not_enough(tree: Path) -> None:
    (tree / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    program(tree, "gcc", "cat >/dev/null; echo 'stdio.h: No such file or directory' >&2; exit 1")
    done = dev(tree, "build")
    assert done.returncode == 3 and "headers of libc" in done.stderr


def test_root_installs_and_goes_on_only_when_that_helped(tree: Path) -> None:
    (tree / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    program(tree, "id", "echo 0")
    program(tree, "apt-get", f'echo apt-get "$@" >>{tree}/calls')
    done = dev(tree, "build")
    assert done.returncode == 3 and "still missing: a C compiler" in done.stderr
    update, install = (tree / "calls").read_text().splitlines()
    assert update.endswith("update") and install.endswith("gcc libc6-dev")
