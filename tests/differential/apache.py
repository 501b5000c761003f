"""How do tests run Apache Kafka's own code: kafka-dump-log, and the record classes of its Java client?

Used by the tests of this directory only. The jars that pom.xml names are fetched by Maven once and stand with the
compiled Batches.java under build/differential/, each under a name that holds a hash of what it was made from.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.builds import ROOT

HERE = Path(__file__).parent
CACHE = ROOT / "build" / "differential"
DUMP_LOG = "org.apache.kafka.tools.DumpLogSegments"

_NEEDED = "openjdk-17-jdk-headless maven"


class Unavailable(Exception):
    """Java or Maven is missing, or what they were asked to make was not made; the message says what to do."""


def check_tools() -> None:
    """Raises Unavailable, naming the Debian packages, unless java, javac (17 or later) and mvn are there."""
    missing = [name for name in ("java", "javac", "mvn") if shutil.which(name) is None]
    if missing:
        raise Unavailable(
            f"{', '.join(missing)}: not found; install with: sudo apt-get update && sudo apt-get install -y {_NEEDED}"
        )
    said = _run(["javac", "-version"], 60)
    version = int(said.split()[-1].split(".")[0])
    if version < 17:
        raise Unavailable(f"Kafka's jars need Java 17, this is {said.strip()}: install {_NEEDED}")


@functools.cache
def classpath() -> str:
    """Kafka's jars and the compiled Batches.java, made if they are not there yet. Raises Unavailable."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = CACHE / f"jars-{_hash('pom.xml')}"
        classes = CACHE / f"classes-{_hash('pom.xml', 'Batches.java')}"
        if not (jars.is_dir() and classes.is_dir()):
            check_tools()
        if not jars.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                fetch = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
                _run([*fetch, "-DincludeScope=runtime", f"-DoutputDirectory={scratch}/jars"], 600)
                Path(scratch, "jars").rename(jars)
        if not classes.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                compiler = ["javac", "-proc:none", "-cp", f"{jars}/*", "-d", f"{scratch}/classes"]
                _run([*compiler, str(HERE / "Batches.java")], 120)
                Path(scratch, "classes").rename(classes)
    return f"{classes}:{jars}/*"


def java(program: str, *arguments: object) -> str:
    """What a class prints, on its error output too: kafka-dump-log complains there, and exits with 0 all the same.

    Raises Unavailable, or AssertionError with all it said if its exit code is not 0.
    """
    # One processor's worth of compiler threads and a serial collector: a JVM that lives for a second gains by it.
    options = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g", "-Dfile.encoding=UTF-8"]
    command = ["java", *options, "-cp", classpath(), program, *map(str, arguments)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, f"{program} {arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("SLF4J: ")]
    return "\n".join([done.stdout, *complaints])


def dump_log(*options: str, files: list[Path]) -> str:
    """What kafka-dump-log prints about these files."""
    return java(DUMP_LOG, *options, "--files", ",".join(map(str, files)))


def _hash(*names: str) -> str:
    state = hashlib.sha256()
    for name in names:
        state.update((HERE / name).read_bytes() + b"\0")
    return state.hexdigest()[:16]


def _run(command: list[str], timeout_seconds: float) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_seconds,
        env={**os.environ, "MAVEN_OPTS": os.environ.get("MAVEN_OPTS", "-Xmx512m")},
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"$ {' '.join(command)}\nexit code {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout
