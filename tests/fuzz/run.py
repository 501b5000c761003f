"""How do the fuzz targets run for long, guided by coverage? `python tests/fuzz/run.py --seconds N [noun ...]`

Builds every tests/fuzz/fuzz_<noun>.c and the core with clang-14 -fsanitize=fuzzer,address,undefined and runs the
targets, two at a time. What libFuzzer finds worth keeping stays in build/fuzz/corpus/<noun>/, where the next run
begins. An input that breaks a target is written to build/fuzz/; it belongs into tests/fuzz/corpus/<noun>/ with the
repair.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests import builds  # noqa: E402  (the path above is where it is found)

WORK = builds.ROOT / "build" / "fuzz"


def fuzz(target: Path, seconds: int) -> tuple[str, int, str]:
    """(noun, exit code, output) of one target."""
    noun = target.stem.removeprefix("fuzz_")
    try:
        program = builds.program(target, builds.LIBFUZZER, flags=["-fsanitize=fuzzer,address,undefined"])
    except builds.BuildFailed as error:
        return noun, 1, str(error)
    grown, given = WORK / "corpus" / noun, HERE / "corpus" / noun
    grown.mkdir(parents=True, exist_ok=True)
    command = [
        str(program),
        f"-max_total_time={seconds}",
        "-max_len=65536",
        "-timeout=10",
        "-rss_limit_mb=3072",
        "-print_final_stats=1",
        f"-artifact_prefix={WORK}/{noun}-",
        str(grown),
        *([str(given)] if given.is_dir() else []),
    ]
    done = subprocess.run(
        command,
        cwd=WORK,
        env={**os.environ, **builds.SANITIZER_ENVIRONMENT, "TMPDIR": str(WORK)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds + 120,
        check=False,
    )
    return noun, done.returncode, done.stdout


def main() -> int:
    """Run the targets named on the command line, or all; 1 if one broke."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets with libFuzzer.")
    parser.add_argument("--seconds", type=int, default=30, help="for each target (default 30)")
    parser.add_argument("nouns", nargs="*", help="the targets (default: all)")
    args = parser.parse_args()
    targets = {path.stem.removeprefix("fuzz_"): path for path in sorted(HERE.glob("fuzz_*.c"))}
    if unknown := set(args.nouns) - set(targets):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(targets) or 'none'}")
    if not targets:
        parser.error("there is no tests/fuzz/fuzz_*.c")
    broken = []
    with ThreadPoolExecutor(2) as pool:
        chosen = [targets[noun] for noun in args.nouns or targets]
        for noun, code, output in pool.map(lambda target: fuzz(target, args.seconds), chosen):
            runs = re.search(r"number_of_executed_units: (\d+)", output)
            covered = re.findall(r"cov: (\d+)", output)
            count = int(runs[1]) if runs else 0
            print(f"{noun}: {count:,} inputs, {covered[-1] if covered else 0} edges, {'ok' if code == 0 else 'BROKEN'}")
            if code or not count:
                print(output[-20000:])
                broken.append(noun)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
