"""Does every fuzz target survive its corpus and a few thousand made inputs, under gcc's AddressSanitizer and UBSan?

tests/fuzz/fuzz_<noun>.c defines LLVMFuzzerTestOneInput; tests/fuzz/corpus/<noun>/ may hold inputs to start from, among
them every input that once broke the target. tests/fuzz/run.py runs the same targets for longer, with libFuzzer.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import builds

HERE = Path(__file__).parent
TARGETS = sorted(HERE.glob("fuzz_*.c"))
INPUTS = 4000


def smoke(target: Path, directory: Path) -> tuple[int, str]:
    """(exit code, output) of one target over its corpus and INPUTS made inputs."""
    program = builds.program(target, builds.FUZZ, extra=[HERE / "replay.c"])
    corpus = HERE / "corpus" / target.stem.removeprefix("fuzz_")
    command = [program, "-n", str(INPUTS), "-s", "1", *([corpus] if corpus.is_dir() else [])]
    options = builds.SANITIZER_ENVIRONMENT["ASAN_OPTIONS"] + ":handle_abort=1"
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **builds.SANITIZER_ENVIRONMENT, "ASAN_OPTIONS": options, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "target", [pytest.param(path, id=path.stem) for path in TARGETS] or [pytest.param(None, id="none")]
)
def test_survives(target: Path | None, tmp_path: Path) -> None:
    assert target is not None, "there is no tests/fuzz/fuzz_*.c: the glob or the layout is wrong"
    try:
        code, output = smoke(target, tmp_path)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    if code:
        pytest.fail(f"{target.name}: exit code {code}\n{output[-20000:]}\n(kept in {tmp_path})", pytrace=False)
    count = re.search(r"ok (\d+) checks", output)
    assert count is not None and int(count[1]) > INPUTS, output


BROKEN = """
#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return size > 100 ? data[size] : 0; /* one past the end */
}
"""


@pytest.mark.timeout(600)
def test_a_read_past_the_end_is_seen(tmp_path: Path) -> None:
    target = tmp_path / "fuzz_broken.c"
    target.write_text(BROKEN)
    code, output = smoke(target, tmp_path)
    assert code != 0 and "heap-buffer-overflow" in output, output
    kept = list(tmp_path.glob("crash-1-*"))
    assert len(kept) == 1 and kept[0].stat().st_size > 100
