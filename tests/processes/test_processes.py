"""Do the processes of one partition, and of one consumer group, go on, whoever of them is killed or stopped?

survivors.c and membership.c say how. As a test 300 processes are killed in the one and 80 in the other;
`python -m tests.processes.test_processes --kills 20000` kills as many as asked.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import builds

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("reader.c", "shared.c", "writer.c")]


def program(variant: builds.Variant = builds.TEST) -> Path:
    """The compiled lane. Raises builds.BuildFailed."""
    return builds.program(HERE / "survivors.c", variant, extra=SOURCES)


@pytest.mark.timeout(600)
def test_kills_at_random_times() -> None:
    try:
        command = [str(program()), "--kills", "300"]
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=500, check=False)
    print(done.stdout)
    if done.returncode:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-8000:]}", pytrace=False)


@pytest.mark.timeout(300)
def test_members_of_a_group() -> None:
    try:
        command = [str(builds.program(HERE / "membership.c", builds.TEST)), "--rounds", "6"]
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=240, check=False)
    print(done.stdout)
    if done.returncode:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-8000:]}", pytrace=False)


def main(arguments: list[str]) -> int:
    """Run the lane with the arguments of the program."""
    return subprocess.run([str(program()), *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
