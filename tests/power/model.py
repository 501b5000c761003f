"""How does the simulated power loss run? `python -m tests.power.model --states N [--seed N] [--jobs N]`

Imports tests.builds. Compiles power_model.c with the core, its crash points and its seeded bugs, and runs it, in
several processes with seeds of their own if asked. What it prints goes through; the exit code is the worst one.
TL_BUG=<name> in the environment breaks the core on purpose: the run must then fail.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests import builds


def main() -> int:
    """0 when every process reached its states without a violation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=100_000, help="distinct ones, all processes together")
    parser.add_argument("--seconds", type=int, default=3600, help="at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    try:
        program = builds.program(Path(__file__).with_name("power_model.c"), builds.TEST)
    except builds.BuildFailed as error:
        print(error)
        return 1
    each = -(-arguments.states // arguments.jobs)
    processes = []
    for job in range(arguments.jobs):
        command = [
            program,
            "--states",
            str(each),
            "--seconds",
            str(arguments.seconds),
            "--seed",
            str(arguments.seed + job),
        ]
        processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
    codes = [process.wait() for process in processes]
    return max(1 if code < 0 else code for code in codes)


if __name__ == "__main__":
    sys.exit(main())
