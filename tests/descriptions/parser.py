"""How do tests ask AsyncAPI's own parser, and its JSON Schema?

Used by the tests of this directory only. What package.json names is installed by npm once, as package-lock.json says,
and stands under build/descriptions/, under a name that holds a hash of both.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).parent
CACHE = ROOT / "build" / "descriptions"
WARNING = 1  # Spectral's severities: 0 error, 1 warning, 2 information, 3 hint


class Unavailable(Exception):
    """Node.js or npm is missing, or did not install what it should; the message says what to do."""


class Complaint(NamedTuple):
    """What the parser said about one place of one document."""

    severity: int
    code: str
    message: str
    path: str


@functools.cache
def modules() -> Path:
    """A directory with node_modules and validate.mjs, made if it is not there yet. Raises Unavailable."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name in ("package.json", "package-lock.json"):
        digest.update((HERE / name).read_bytes())
    target = CACHE / f"node-{digest.hexdigest()[:16]}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            missing = [name for name in ("node", "npm") if shutil.which(name) is None]
            if missing:
                raise Unavailable(
                    f"{', '.join(missing)}: not found; install with: sudo apt-get update && "
                    f"sudo apt-get install -y nodejs npm"
                )
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(HERE / name, scratch)
                # Scripts of packages have no business here; the parser needs none.
                _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", scratch], "", 300)
                Path(scratch).rename(target)
                Path(scratch).mkdir()  # for the context manager to remove
    return target


def ask(documents: Mapping[str, str]) -> dict[str, list[Complaint]]:
    """What the parser says about each document (JSON or YAML text), information and hints included."""
    program = modules() / "validate.mjs"
    shutil.copy(HERE / "validate.mjs", program)
    said = json.loads(_run(["node", str(program)], json.dumps(dict(documents)), 120))
    assert said.keys() == documents.keys()
    return {name: [Complaint(**one) for one in complaints] for name, complaints in said.items()}


def serious(complaints: list[Complaint]) -> list[Complaint]:
    """Errors and warnings."""
    return [one for one in complaints if one.severity <= WARNING]


@functools.cache
def schema(version: str) -> dict[str, Any]:
    """AsyncAPI's JSON Schema of a version of documents."""
    folder = modules() / "node_modules" / "@asyncapi" / "specs" / "schemas"
    found: dict[str, Any] = json.loads((folder / f"{version}-without-$id.json").read_text(encoding="utf-8"))
    return found


def _run(command: list[str], given: str, seconds: int) -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, encoding="utf-8", timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise Unavailable(
            f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done.stdout
