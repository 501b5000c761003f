"""How does a handler say that it has done something that is not to be done twice?

Floor 8: imports nothing of tidelog, so that a service may import it. Thread rule: `effect` may be called from any
thread and any task; `recorder` is set before an application starts.

    from tidelog.testing import effect

    @app.on(orders)
    def charge(order: Order) -> None:
        bank.charge(order.card, order.cents)
        effect("charge", order.id)

It does nothing, except under `tidelog chaos`, which counts it, and kills the application right before and after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["effect", "recorder"]

recorder: Callable[[str, tuple[Any, ...]], None] | None = None
"""Who is told; set by what runs an application in a test."""


def effect(name: str, *of: Any) -> None:
    """Says: here something happens whose doing counts. `name`: what is done ("charge"); `of`: for what (an order's id),
    the same each time that it is done for the same thing. Write it beside what it stands for.

    What is undone when the process dies (a database transaction that is not committed) is no effect yet: such effects
    are read from the database, see `chaos_effects` in docs/howto/chaos.md.
    """
    if recorder is not None:
        recorder(name, of)
