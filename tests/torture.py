"""The long lanes: which are there, and what is run when somebody asks for hours of them?

`./dev torture` runs all of them one after the other, `./dev torture crash processes` the named ones, and
`./dev torture --list` says what there is. Each lane is a command; its exit code 0 is a pass. A lane is added by a line
in LANES.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass

from tests import builds


@dataclass(frozen=True)
class Lane:
    """A command of this tree's interpreter: `python -m` and these words."""

    name: str
    words: tuple[str, ...]
    about: str


LANES = [
    Lane("crash", ("tests.crash.test_points", "--kills", "100000", "--jobs", "2"), "100,000 kills at named points"),
    Lane("processes", ("tests.processes.test_processes", "--kills", "20000"), "20,000 kills at random times"),
    Lane("models", ("tests.models.test_models", "--crashes", "3"), "models of the protocols, with three crashes"),
    Lane(
        "power",
        ("tests.power.model", "--states", "3000000", "--seconds", "36000", "--jobs", "2"),
        "simulated power cuts",
    ),
    Lane("cuts", ("tests.power.cuts", "--cuts", "5000"), "real power cuts"),
    Lane("full-disk", ("tests.power.full_disk", "--cycles", "1000"), "full disks"),
    Lane(
        "history",
        ("tests.history.run", "--runs", "60", "--seconds", "120", "--kills", "400", "--operations", "4000000"),
        "groups under kills, stops, full disks and rebalances, judged by their history",
    ),
    Lane("databases", ("tests.database.run", "--kills", "5000"), "the recipes for one's own database under kills"),
    Lane(
        "schedules",
        ("tests.schedules.test_schedules", "--schedules", "50000000", "--jobs", "2"),
        "50 million orders in which processes can run and die",
    ),
    Lane("faults", ("tests.faults.test_faults",), "every call fails in turn, alone and in pairs, and every allocation"),
    Lane("damage", ("tests.damage.test_damage",), "every bit and every length of every file"),
    Lane(
        "threads",
        ("tests.native.stress", "--seconds", "3600"),
        "eight threads, every operation, ThreadSanitizer",
    ),
    Lane("fuzz", ("tests.fuzz.run", "--seconds", "1200"), "each fuzz target for 20 minutes"),
    Lane("bugs", ("tests.bugs.test_bugs", "--all"), "every seeded bug must be caught by its lane"),
]


def main() -> int:
    """Run lanes; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="./dev torture", description="Run the long test lanes.")
    parser.add_argument("lanes", nargs="*", metavar="LANE", help="all of them if none is named")
    parser.add_argument("--list", action="store_true", help="say what there is and stop")
    options = parser.parse_args()
    known = {lane.name: lane for lane in LANES}
    unknown = sorted(set(options.lanes) - set(known))
    if unknown:
        parser.error(f"there is no lane {', '.join(unknown)}; ./dev torture --list names them")
    if options.list:
        for lane in LANES:
            print(f"{lane.name:12} {lane.about}")
        return 0
    failed: list[str] = []
    for lane in [known[name] for name in options.lanes] if options.lanes else LANES:
        print(f"--- {lane.name}: {lane.about}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *lane.words], cwd=builds.ROOT, check=False).returncode
        print(
            f"--- {lane.name}: {'ok' if code == 0 else f'exit code {code}'} after {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if code:
            failed.append(lane.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
