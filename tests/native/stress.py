"""How do the stress programs run for long? `python -m tests.native.stress --seconds N`

Each tests/native/stress_<noun>.c is built with ThreadSanitizer and run once; those that know TIDELOG_STRESS_SECONDS run
for that long.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import builds

STRESSES = sorted(Path(__file__).resolve().parent.glob("stress_*.c"))


def main() -> int:
    """Run them one after the other; 1 if one broke."""
    parser = argparse.ArgumentParser(description="Run the stress programs under ThreadSanitizer.")
    parser.add_argument("--seconds", type=int, default=60, help="how long each runs (default 60)")
    seconds = parser.parse_args().seconds
    environment = {**os.environ, **builds.SANITIZER_ENVIRONMENT, "TIDELOG_STRESS_SECONDS": str(seconds)}
    broken = 0
    for source in STRESSES:
        print(f"{source.name}, {seconds} s", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [builds.program(source, builds.TSAN)],
                cwd=directory,
                env={**environment, "TMPDIR": directory},
                timeout=seconds + 600,
                check=False,
            )
        broken += done.returncode != 0
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
