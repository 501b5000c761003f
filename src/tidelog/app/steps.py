"""Who is told when the handling of a message comes to its next step?

Floor 8: imports nothing of this package. Thread rule: `watcher` is set before an application starts, and is called from
whatever thread comes to a step.

Nobody, unless a tool for tests asks for it. So whoever passes a step looks at `watcher` first, which costs next to
nothing: `if steps.watcher is not None: steps.watcher("before-commit", name, message, "")`.

    received                    messages came from the log; with delivery="at-most-once" they are committed already
    before-handler              the function is about to be called
    after-handler               it has returned, and what it returned is not sent yet
    before-send, after-send     of an answer, or of a dead letter (detail: where it goes)
    before-commit, after-commit the group is told how far it has come; of a transaction: all of it or nothing
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Watcher", "watched", "watched_async", "watcher"]

Watcher: TypeAlias = Callable[[str, str, Any, str], None]
"""(step, name of the handler, subject, detail). The subject of "received" is a batch; around the handler it is what the
function gets; around a commit a message, a batch, or (partition, offset); otherwise the message."""

watcher: Watcher | None = None


def watched(name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`call`, with a step before and after it if anybody watches; decided when the application starts, so that it costs
    nothing otherwise."""
    tell = watcher
    if tell is None:
        return call

    def run(subject: Any) -> Any:
        tell("before-handler", name, subject, "")
        result = call(subject)
        tell("after-handler", name, subject, "")
        return result

    return run


def watched_async(name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same for what is awaited: `call` makes the awaitable."""
    tell = watcher
    if tell is None:
        return call

    async def run(subject: Any) -> Any:
        tell("before-handler", name, subject, "")
        result = await call(subject)
        tell("after-handler", name, subject, "")
        return result

    return run
