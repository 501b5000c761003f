"""How does a benchmark use other processes?

A child is another interpreter that runs `python -m MODULE ARGS`, prints "ready", obeys lines on stdin and answers each
with a line; it ends when its stdin does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchmarks.harness import ROOT


class Child:
    """Another interpreter that runs `python -m MODULE ARGS`, obeys lines on stdin and answers with lines."""

    def __init__(self, module: str, *args: object) -> None:
        """Starts it; the module's `main` must say "ready" first."""
        command = [sys.executable, "-m", module, *map(str, args)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def tell(self, *words: object) -> None:
        """Sends one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The next line. Raises RuntimeError when the child has ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with exit code {self.process.wait()}")
        return line.strip()

    def expect(self, word: str) -> None:
        """Waits for a line that must be `word`."""
        if (line := self.answer()) != word:
            raise RuntimeError(f"{self.process.args} said {line!r} instead of {word!r}")

    def ask(self, *words: object) -> str:
        """`tell`, then `answer`."""
        self.tell(*words)
        return self.answer()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def obey(commands: dict[str, Callable[..., object]]) -> None:
    """The child's side: says "ready", then calls the function that the first word of each line names with the rest as
    integers, and prints what it answers."""
    print("ready", flush=True)
    for line in sys.stdin:
        name, *numbers = line.split()
        print(commands[name](*map(int, numbers)), flush=True)
